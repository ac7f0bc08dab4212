//! What requests and manifests name, checked: nothing behind this file sees a name, tag or digest that could be anything
//! else.

use std::{fmt, str::FromStr};

use super::reply::Refusal;
use crate::{
    layout::{BLOBS, INDEX, OCI_LAYOUT},
    oci::{Digest, Repository, reference},
};

/// A repository's name, safe as a path below the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server) struct Name(String);

impl Name {
    /// Returns it as clients write it.
    pub(in crate::server) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        // Repositories can lie inside one another: these would be taken for a part of the outer layout.
        let reserved = |part: &str| matches!(part, BLOBS | INDEX | OCI_LAYOUT);
        match Repository::new("", text) {
            Ok(_) if !text.split('/').any(reserved) => Ok(Self(text.to_owned())),
            _ => Err(Refusal::bad_request("NAME_INVALID", "this cannot be a repository's name")),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a manifest is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server) enum Target {
    /// By what it is.
    Digest(Digest),
    /// By what it is called.
    Tag(String),
}

impl Target {
    /// Reads what stands last in a path.
    pub(in crate::server) fn parse(text: &str) -> Result<Self, Refusal> {
        if text.contains(':') || text.contains('%') {
            return digest(text).map(Self::Digest);
        }
        match reference::check_tag(text) {
            Ok(()) => Ok(Self::Tag(text.to_owned())),
            Err(error) => Err(Refusal::not_found("MANIFEST_UNKNOWN", error.message())),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest(digest) => digest.fmt(f),
            Self::Tag(tag) => f.write_str(tag),
        }
    }
}

/// Reads a digest as paths hold it.
pub(in crate::server) fn digest(text: &str) -> Result<Digest, Refusal> {
    // Some HTTP libraries escape the colon.
    let text = text.replacen("%3A", ":", 1).replacen("%3a", ":", 1);
    text.parse().map_err(|error: crate::Error| Refusal::bad_request("DIGEST_INVALID", error.message()))
}

/// What a manifest names and its repository must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server) enum Needed {
    /// A config or layer.
    Blob(Digest),
    /// A child of an index.
    Manifest(Digest),
}
