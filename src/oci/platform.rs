//! Platforms: which machine an image runs on.
//!
//! Read by hand: the oci-spec crate drops `os.version` and `os.features`, by which Windows images differ.

use std::{borrow::Borrow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::go_json::null_is_empty;
use crate::error::{Error, Result};

/// An operating system and processor, as descriptors and configs name them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`, `windows`, …; `unknown` for attestations.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub os: String,
    /// `amd64`, `arm64`, …, as Go names them.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub architecture: String,
    /// `v7`, `v8`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The build of Windows a Windows image needs.
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
}

impl Platform {
    /// Returns whether an image for `self` is what somebody who asks for `wanted` wants.
    pub fn satisfies(&self, wanted: &Self) -> bool {
        let (own, asked) = (self.normalized(), wanted.normalized());
        own.os == asked.os
            && own.architecture == asked.architecture
            && (asked.variant.is_none() || own.variant_or_default() == asked.variant_or_default())
            && (asked.os_version.is_none() || own.os_version == asked.os_version)
    }

    /// Returns whether this is the placeholder that attestation manifests carry.
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }

    /// Returns whether it names no machine at all.
    pub(super) fn is_empty(&self) -> bool {
        self.os.is_empty() && self.architecture.is_empty()
    }

    /// Says that what there is is for other platforms.
    pub(crate) fn not_offered(&self, offered: &[impl Borrow<Self>], what: &str) -> Error {
        let mut offered: Vec<String> = offered.iter().map(|platform| platform.borrow().to_string()).collect();
        offered.sort();
        offered.dedup();
        let offered = if offered.is_empty() { "no platform at all".into() } else { offered.join(", ") };
        Error::usage(format!("{what} holds no image for `{self}`")).with_hint(format!("it is for {offered}"))
    }

    /// Returns this with the variant that is meant where none is said, if there is one.
    pub fn with_usual_variant(&self) -> Option<Self> {
        let platform = self.normalized();
        let variant = platform.variant_or_default().filter(|_| self.variant.is_none())?.to_owned();
        Some(Self { variant: Some(variant), ..platform })
    }

    /// Returns the variant that is meant (gh:containerd/platforms, database.go).
    fn variant_or_default(&self) -> Option<&str> {
        let default = match self.architecture.as_str() {
            "amd64" => Some("v1"),
            "arm" => Some("v7"),
            "arm64" => Some("v8"),
            _ => None,
        };
        self.variant.as_deref().or(default)
    }

    /// Common spellings become Go's.
    fn normalized(&self) -> Self {
        let mut platform = self.clone();
        platform.os.make_ascii_lowercase();
        platform.architecture = match platform.architecture.to_ascii_lowercase().as_str() {
            "x86_64" | "x86-64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            "i386" | "i686" => "386".to_owned(),
            "armhf" => "arm".to_owned(),
            other => other.to_owned(),
        };
        if let Some(variant @ ("5" | "6" | "7" | "8")) = platform.variant.as_deref() {
            platform.variant = Some(format!("v{variant}"));
        }
        platform
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split('/');
        let (os, architecture, variant) = (parts.next(), parts.next(), parts.next());
        match (os, architecture, parts.next()) {
            (Some(os), Some(architecture), None)
                if !os.is_empty() && !architecture.is_empty() && variant != Some("") =>
            {
                Ok(Self {
                    os: os.to_owned(),
                    architecture: architecture.to_owned(),
                    variant: variant.map(str::to_owned),
                    os_version: None,
                })
            }
            _ => Err(Error::usage(format!("not a platform: `{text}`"))
                .with_hint("write it as OS/ARCH or OS/ARCH/VARIANT, like `linux/arm64/v8`")),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if let Some(variant) = &self.variant {
            write!(f, "/{variant}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn spellings_of_one_platform_match() {
        assert!(platform("linux/arm64/v8").satisfies(&platform("linux/aarch64")));
        assert!(platform("linux/arm64").satisfies(&platform("linux/arm64/v8")));
        assert!(platform("linux/amd64").satisfies(&platform("linux/x86_64")));
        assert!(!platform("linux/arm/v6").satisfies(&platform("linux/arm/v7")));
        assert!(platform("linux/arm/v7").satisfies(&platform("linux/arm")));
        assert!(!platform("linux/amd64").satisfies(&platform("windows/amd64")));
    }

    #[test]
    fn what_is_left_out_is_as_go_understands_it() {
        // arm is arm/v7, and amd64 is amd64/v1 (gh:containerd/platforms, database.go).
        assert!(platform("linux/arm").satisfies(&platform("linux/arm/v7")));
        assert!(platform("linux/arm/v7").satisfies(&platform("linux/arm/7")));
        assert!(platform("linux/arm/v6").satisfies(&platform("linux/arm")));
        assert!(!platform("linux/arm").satisfies(&platform("linux/arm/v6")));
        assert!(platform("linux/amd64").satisfies(&platform("linux/amd64/v1")));
        assert!(!platform("linux/amd64").satisfies(&platform("linux/amd64/v2")));
        assert!(platform("linux/arm64").satisfies(&platform("linux/arm64/8")));
    }

    #[test]
    fn a_platform_may_say_nothing() {
        for text in
            ["{}", r#"{"os":null,"architecture":null,"variant":null}"#, r#"{"os":"","architecture":""}"#]
        {
            assert_eq!(serde_json::from_str::<Platform>(text).unwrap(), Platform::default(), "{text}");
        }
    }

    #[test]
    fn what_is_no_platform_is_said() {
        for text in ["", "linux", "linux/", "a/b/c/d", "linux/arm/"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
