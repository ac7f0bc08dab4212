//! In which repository of a registry a blob was seen last, so that another one mounts it from there; and an image, so
//! that its next push asks for nothing else first.
//!
//! Only a hint, kept by host in the state folder, the newest first and no more than a few thousand: a registry that
//! does not have the blob there any more opens an upload instead of mounting it.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::host_files::HostFiles;
use crate::{error::chain, oci::Digest};

/// The blobs and images that this machine's pushes have left at registries, or found there.
#[derive(Clone, Debug)]
pub struct Sightings {
    files: HostFiles,
}

#[derive(Deserialize, Serialize)]
struct Seen {
    blobs: Vec<(Digest, String)>,
}

impl Sightings {
    /// Keeps what was seen in `dir`, a folder of its own, which is made when there is something.
    pub fn new(dir: &Path) -> Self {
        Self { files: HostFiles::new(dir) }
    }

    /// Returns in which repository of a host each blob was seen.
    pub fn at(&self, host: &str) -> HashMap<Digest, String> {
        self.read(host).into_iter().collect()
    }

    /// Remembers blobs that a repository of a host has. If that fails they are sent again.
    pub fn note(&self, host: &str, repository: &str, blobs: impl IntoIterator<Item = Digest>) {
        let fresh: HashSet<Digest> = blobs.into_iter().collect();
        let mut blobs = self.read(host);
        let known = |(digest, seen_in): &&(Digest, String)| seen_in == repository && fresh.contains(digest);
        if blobs.iter().filter(known).count() == fresh.len() {
            return;
        }
        blobs.retain(|(digest, _)| !fresh.contains(digest));
        blobs.splice(..0, fresh.into_iter().map(|digest| (digest, repository.to_owned())));
        blobs.truncate(MOST);
        if let Err(error) = self.files.write(host, Seen { blobs }) {
            tracing::debug!("what `{host}` has is not remembered: {}", chain(&error));
        }
    }

    fn read(&self, host: &str) -> Vec<(Digest, String)> {
        self.files.read(host).map_or_else(Vec::new, |Seen { blobs }| blobs)
    }
}

/// More are not remembered: some hundred images, and half a megabyte.
const MOST: usize = 4000;

#[cfg(test)]
mod tests {
    use super::*;

    fn blobs(numbers: std::ops::Range<usize>) -> Vec<Digest> {
        numbers.map(|number| Digest::of(&number.to_le_bytes())).collect()
    }

    #[test]
    fn the_last_place_counts_and_each_host_has_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let sightings = Sightings::new(&dir.path().join("blobs"));
        sightings.note("r.example", "base", blobs(0..3));
        sightings.note("r.example", "team/demo", blobs(2..4));
        sightings.note("other.example", "elsewhere", blobs(0..1));
        let seen = Sightings::new(&dir.path().join("blobs")).at("r.example");
        let places: Vec<_> = blobs(0..4).iter().map(|blob| seen[blob].clone()).collect();
        assert_eq!(places, ["base", "base", "team/demo", "team/demo"]);
        assert_eq!(sightings.at("third.example").len(), 0);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let sightings = Sightings::new(dir.path());
        sightings.note("h", "old", blobs(0..10));
        sightings.note("h", "new", blobs(10..10 + MOST - 5));
        let seen = sightings.at("h");
        assert_eq!((seen.len(), seen.values().filter(|place| *place == "old").count()), (MOST, 5));
    }

    #[test]
    fn what_is_damaged_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let sightings = Sightings::new(dir.path());
        sightings.note("h", "base", blobs(0..1));
        fs_err::write(sightings.files.path("h"), r#"{"host":"h","blobs":[["x","y"]]}"#).unwrap();
        assert_eq!(sightings.at("h").len(), 0);
        sightings.note("h", "base", blobs(0..1));
        assert_eq!(sightings.at("h").len(), 1);
    }
}
