//! Inventories: which blobs a site has, and in which repositories.
//!
//! `{"longshoreInventory":1,"repositories":[{"name":"team/app","tags":{"1":"sha256:…"},"manifests":{"sha256:…":550},
//! "blobs":{"sha256:…":1234}}]}`, sizes in bytes; a name without the registry's host, or null where it is not known.
//! Keys may be added; those that are there stay. A list that was cut off is no JSON, so nobody takes it for a whole.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::{BufReader, Read as _},
    path::Path,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Context as _, Error, ErrorKind, Result},
    oci::Digest,
};

/// What one repository has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holdings {
    /// Its path, where it is known.
    pub name: Option<String>,
    /// The digest of what each tag names.
    #[serde(default, skip_deserializing)]
    pub tags: BTreeMap<String, Digest>,
    /// Manifests and indexes, with their sizes.
    #[serde(default)]
    pub manifests: BTreeMap<Digest, u64>,
    /// Configs and layers, with their sizes.
    #[serde(default)]
    pub blobs: BTreeMap<Digest, u64>,
}

/// What sites have, as the base of a bundle: this need not be carried there.
#[derive(Clone, Debug, Default)]
pub struct Base {
    /// With some of the repositories that have it.
    blobs: HashMap<Digest, Vec<Arc<str>>>,
    manifests: HashSet<Digest>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "longshoreInventory")]
    version: u64,
    repositories: Vec<Holdings>,
}

impl Base {
    /// Reads the inventory in a file, besides what is known already.
    pub fn read(&mut self, file: &Path) -> Result<()> {
        self.read_within(LIMIT, file)
    }

    fn read_within(&mut self, limit: u64, file: &Path) -> Result<()> {
        let name = file.display();
        let opened = fs_err::File::open(file).context(ErrorKind::Usage, || format!("reading `{name}`"))?;
        let mut bytes = BufReader::new(opened).take(limit);
        let document: Document = serde_json::from_reader(&mut bytes).map_err(|error| {
            if bytes.limit() == 0 {
                return Error::usage(format!("`{name}` is over the limit of {limit} bytes"))
                    .with_hint("make an inventory of each part of the registry that matters");
            }
            Error::usage(format!("`{name}` is no inventory, or is cut off"))
                .because(error)
                .with_hint("`longshore inventory REGISTRY` writes one")
        })?;
        if document.version != VERSION {
            let words = format!("`{name}` is an inventory of version {}", document.version);
            return Err(Error::usage(words).with_hint("a newer longshore reads it"));
        }
        document.repositories.into_iter().for_each(|holdings| self.add(holdings));
        Ok(())
    }

    /// Adds what a repository has.
    pub fn add(&mut self, holdings: Holdings) {
        let name: Option<Arc<str>> = holdings.name.map(Into::into);
        for digest in holdings.blobs.into_keys() {
            let known = self.blobs.entry(digest).or_default();
            known.extend(name.clone().filter(|_| known.len() < PLACES));
        }
        self.manifests.extend(holdings.manifests.into_keys());
    }

    pub(super) fn has_blob(&self, digest: &Digest) -> bool {
        self.blobs.contains_key(digest)
    }

    pub(super) fn has_manifest(&self, digest: &Digest) -> bool {
        self.manifests.contains(digest)
    }

    /// Returns where a blob is, if it is anywhere.
    pub(super) fn repositories(&self, digest: &Digest) -> Option<Vec<String>> {
        let repositories = self.blobs.get(digest)?;
        Some(repositories.iter().map(|name| name.as_ref().to_owned()).collect())
    }
}

/// What this program reads and writes.
pub const VERSION: u64 = 1;
/// Some ten million blobs.
const LIMIT: u64 = 1 << 30;
/// More places of a blob are not remembered: each may cost a push a question.
const PLACES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inventory_is_whole_and_not_endless() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = format!(
            r#"{{"longshoreInventory":1,"repositories":[{{"name":"a","blobs":{{"{}":1}}}}]}}"#,
            Digest::of(b"")
        );
        fs_err::write(file.path(), &text).unwrap();
        let mut base = Base::default();
        base.read(file.path()).unwrap();
        assert_eq!(base.repositories(&Digest::of(b"")), Some(vec!["a".to_owned()]));
        let error = base.read_within(text.len() as u64 - 1, file.path()).unwrap_err();
        assert!(error.kind() == ErrorKind::Usage && error.message().contains("over the limit"), "{error}");
        fs_err::write(file.path(), &text[..text.len() - 1]).unwrap();
        assert!(base.read(file.path()).unwrap_err().message().contains("cut off"));
    }
}
