//! Descriptors: how one document names another, by media type, digest and size.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer};

use super::{
    Digest, Platform,
    go_json::{empty_is_none, null_is_empty, texts},
    media_type::is_nondistributable,
};

/// A reference to some bytes, as manifests and indexes hold it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the bytes are; some producers leave it out of index.json.
    #[serde(default, deserialize_with = "empty_is_none")]
    pub media_type: Option<String>,
    /// Their digest.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
    /// Names, attestation marks and whatever a producer likes.
    #[serde(default, deserialize_with = "texts")]
    pub annotations: BTreeMap<String, String>,
    /// What kind of artifact the target is.
    pub artifact_type: Option<String>,
    /// The bytes themselves, when a producer embedded them.
    #[serde(default, deserialize_with = "base64")]
    pub data: Option<Vec<u8>>,
    /// Which machine the target is for.
    #[serde(default, deserialize_with = "machine")]
    pub platform: Option<Platform>,
    /// Where else the bytes can be had; such layers are not uploaded.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub urls: Vec<String>,
}

impl Descriptor {
    /// Creates a descriptor with nothing but the three fields that are always there.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self {
            media_type: Some(media_type.into()),
            digest,
            size,
            annotations: BTreeMap::new(),
            artifact_type: None,
            data: None,
            platform: None,
            urls: Vec::new(),
        }
    }

    /// Returns an annotation's value.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }

    /// Returns whether the target is fetched from elsewhere, so that a registry need not have it, or may not pass it on.
    pub fn is_foreign(&self) -> bool {
        !self.urls.is_empty() || self.media_type.as_deref().is_some_and(is_nondistributable)
    }
}

/// A platform that says nothing is none.
fn machine<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Platform>, D::Error> {
    Ok(Option::<Platform>::deserialize(deserializer)?.filter(|platform| !platform.is_empty()))
}

fn base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    Option::<String>::deserialize(deserializer)?
        .map(|text| STANDARD.decode(text).map_err(serde::de::Error::custom))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_null_or_says_nothing_is_not_there() {
        let text = format!(
            r#"{{"digest":"{}","size":0,"annotations":{{"a":null,"b":"1"}},"platform":{{}}}}"#,
            Digest::of(b"")
        );
        let descriptor: Descriptor = serde_json::from_str(&text).unwrap();
        assert_eq!(descriptor.annotation("b"), Some("1"));
        assert_eq!((descriptor.annotation("a"), descriptor.platform.as_ref()), (Some(""), None));
    }
}
