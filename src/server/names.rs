//! What requests and manifests name.

use std::{fmt, str::FromStr};

use super::reply::Refusal;
use crate::{
    layout::{BLOBS, INDEX, OCI_LAYOUT},
    oci::{Digest, Repository},
};

/// A repository's name, safe as a path below the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name(String);

impl Name {
    /// Returns it as clients write it.
    pub(super) fn as_str(&self) -> &str {
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

/// What a manifest names and its repository must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Needed {
    /// A config or layer.
    Blob(Digest),
    /// A child of an index.
    Manifest(Digest),
}
