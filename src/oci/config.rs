//! Image configs: what Longshore needs of them, which is the diff IDs and the platform.
//!
//! The bytes of a config are its identity (the image ID) and are pushed as they were found.

use serde::Deserialize;

use super::{DiffId, Platform};
use crate::error::{Error, Result, counted};

/// Larger configs are refused, as the other tools do.
pub const CONFIG_LIMIT: u64 = 4 << 20;

/// The view of an image config.
#[derive(Clone, Debug)]
pub struct ImageConfig {
    /// The digests of the plain layers, base first.
    pub diff_ids: Vec<DiffId>,
    /// The machine the image is for; absent in configs of artifacts.
    pub platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Document {
    rootfs: Option<RootFs>,
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
    #[serde(rename = "os.version")]
    os_version: Option<String>,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Option<Vec<DiffId>>,
}

impl ImageConfig {
    /// Reads a config; `name` is what its source calls it.
    pub fn parse(bytes: &[u8], name: &str) -> Result<Self> {
        let document: Document = serde_json::from_slice(bytes)
            .map_err(|error| Error::source(format!("image config `{name}` is not valid")).because(error))?;
        let rootfs = document
            .rootfs
            .ok_or_else(|| Error::source(format!("image config `{name}` has no `rootfs`, so no diff IDs")))?;
        let platform = match (document.os, document.architecture) {
            (Some(os), Some(architecture)) => Some(Platform {
                os,
                architecture,
                variant: document.variant,
                os_version: document.os_version,
            }),
            _ => None,
        };
        Ok(Self { diff_ids: rootfs.diff_ids.unwrap_or_default(), platform })
    }

    /// Returns an error unless an image of so many layers has as many diff IDs.
    pub(crate) fn check_layers(&self, count: usize, image: &str) -> Result<()> {
        if count == self.diff_ids.len() {
            return Ok(());
        }
        let diff_ids = counted(self.diff_ids.len(), "diff ID");
        Err(Error::source(format!("{image} has {} and {diff_ids}", counted(count, "layer"))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_configs_keep_their_build() {
        let text = br#"{"os":"windows","os.version":"10.0.20348","architecture":"amd64","rootfs":{"diff_ids":null}}"#;
        let config = ImageConfig::parse(text, "c").unwrap();
        assert_eq!(config.platform.unwrap().os_version.as_deref(), Some("10.0.20348"));
        assert!(config.diff_ids.is_empty());
    }

    #[test]
    fn a_config_without_layers_is_named() {
        let error = ImageConfig::parse(b"{}", "abc.json").unwrap_err();
        assert!(error.message().contains("abc.json"), "{error}");
    }
}
