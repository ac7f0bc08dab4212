//! What is wanted of layers: the user's [`Recipe`], and the [`Encoding`] it comes to for one layer.
//!
//! `keep`, `none`, `gzip`, `gzip:6`, `zstd`, `zstd:19`: what a command line or a list says, and what a cache
//! key and a message say, is the same text.

use std::{fmt, str::FromStr};

use super::Compression;
use crate::error::{Error, Result};

/// How a layer is encoded: part of the cache key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Encoding {
    /// gzip: level 1 is ours, 2 to 12 are libdeflate's.
    Gzip {
        /// The level.
        level: u8,
    },
    /// Not at all.
    None,
    /// zstd, at one of its levels 1 to 22.
    Zstd {
        /// The level.
        level: u8,
    },
}

/// What is wanted of all layers of a push.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recipe {
    /// What a manifest names stays as it is, and so does what is encoded already; the rest is made gzip.
    #[default]
    Keep,
    /// Everything in this encoding.
    Encode {
        /// The target.
        encoding: Encoding,
        /// `--force-compression`: layers too that are in it already, at whatever level.
        force: bool,
    },
}

impl Recipe {
    /// Returns how a layer is to be encoded that is found as `found`, or nothing if it goes out as it is.
    /// `named` says that a manifest of the source names these very bytes.
    pub fn target(self, found: Compression, named: bool) -> Option<Encoding> {
        match self {
            Self::Keep if named || matches!(found, Compression::Gzip | Compression::Zstd) => None,
            Self::Keep => Some(Encoding::default()),
            Self::Encode { encoding, force } if force || found != encoding.into() => Some(encoding),
            Self::Encode { .. } => None,
        }
    }

    /// Returns how plain layers are encoded that no manifest names.
    pub fn encoding(self) -> Encoding {
        match self {
            Self::Keep => Encoding::default(),
            Self::Encode { encoding, .. } => encoding,
        }
    }
}

impl Default for Encoding {
    /// The level that beats the peers' speed at their size (ARCHITECTURE.md has the figures).
    fn default() -> Self {
        Self::Gzip { level: 1 }
    }
}

impl From<Encoding> for Compression {
    fn from(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Gzip { .. } => Self::Gzip,
            Encoding::None => Self::None,
            Encoding::Zstd { .. } => Self::Zstd,
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gzip { level } => write!(f, "gzip:{level}"),
            Self::None => f.write_str("none"),
            Self::Zstd { level } => write!(f, "zstd:{level}"),
        }
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => f.write_str("keep"),
            Self::Encode { encoding, .. } => encoding.fmt(f),
        }
    }
}

impl FromStr for Encoding {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level)),
            None => (text, None),
        };
        let level = |default: u8, limit: u8| match level.map_or(Ok(default), str::parse) {
            Ok(level) if (1..=limit).contains(&level) => Ok(level),
            _ => Err(Error::usage(format!("{name} has the levels 1 to {limit}: `{}`", text.escape_debug()))),
        };
        match (name, text) {
            ("gzip", _) => Ok(Self::Gzip { level: level(1, 12)? }),
            ("zstd", _) => Ok(Self::Zstd { level: level(3, 22)? }),
            (_, "none") => Ok(Self::None),
            _ => Err(Error::usage(format!("not a compression: `{}`", text.escape_debug()))
                .with_hint("`keep`, `gzip`, `zstd` and `none` are, and `gzip:6` or `zstd:19` with a level")),
        }
    }
}

impl FromStr for Recipe {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "keep" => Ok(Self::Keep),
            _ => Ok(Self::Encode { encoding: text.parse()?, force: false }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_what_is_read() {
        for (text, said) in [
            ("keep", "keep"),
            ("none", "none"),
            ("gzip", "gzip:1"),
            ("gzip:12", "gzip:12"),
            ("zstd", "zstd:3"),
            ("zstd:22", "zstd:22"),
        ] {
            assert_eq!(text.parse::<Recipe>().unwrap().to_string(), said);
        }
        for text in
            ["", "Keep", "gzip:", "gzip:0", "gzip:13", "gzip:-1", "zstd:23", "zstd:3:1", "none:1", "xz"]
        {
            let error = text.parse::<Recipe>().unwrap_err();
            assert_eq!(error.kind().exit_code(), 2, "{text}");
        }
    }

    #[test]
    fn every_layer_has_one_target() {
        use Compression::{Bzip2, Gzip, None as Plain, Xz, Zstd};
        let recipe = |text: &str| text.parse::<Recipe>().unwrap();
        let all = [Plain, Gzip, Zstd, Xz, Bzip2];
        for found in all {
            assert_eq!(Recipe::Keep.target(found, true), None);
            let made = matches!(found, Plain | Xz | Bzip2).then_some(Encoding::Gzip { level: 1 });
            assert_eq!(Recipe::Keep.target(found, false), made, "{found:?}");
            for (text, kept) in [("gzip:6", Gzip), ("zstd:9", Zstd), ("none", Plain)] {
                let target = (found != kept).then(|| recipe(text).encoding());
                assert_eq!(recipe(text).target(found, true), target, "{text} {found:?}");
                let forced = Recipe::Encode { encoding: recipe(text).encoding(), force: true };
                assert_eq!(forced.target(found, false), Some(recipe(text).encoding()));
            }
        }
    }
}
