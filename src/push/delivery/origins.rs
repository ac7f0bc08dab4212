//! Where else at the destination's registry a blob may be: mounted from there, it need not be sent.
//!
//! One list for all who ask: the repository that the user names, the one where an earlier push has seen the blob, those
//! that the source remembers to have had it, and those that the names of the image speak of. A mount that is refused costs
//! nothing: the registry opens an upload instead, which is used or given back.

use super::Delivery;
use crate::{
    oci::{Digest, Reference, Repository},
    plan::{AtHand, Need},
    push::wanted::{Wanted, draft::Encodings},
    source::Origin,
};

impl Delivery {
    /// Tells each needed blob where else it may be.
    pub(super) fn locate(&self, needs: &mut [Need]) {
        let host = &self.target.destination.repository.host;
        let seen =
            self.cargo.options.sightings.as_ref().map(|sightings| sightings.at(host)).unwrap_or_default();
        for need in needs {
            let Some((digest, _)) = &need.identity else { continue };
            let mut remembered = self.cargo.source.origins(&need.layer);
            remembered.retain(|origin| origin.digest == *digest);
            need.origins = self.origins(&remembered, seen.get(digest));
        }
    }

    /// Remembers what the destination has: blobs for pushes to other repositories, the image for its next push.
    pub(super) fn note_sightings(&self, wanted: &Wanted, encoded: &Encodings, root: &Digest) {
        let Some(sightings) = &self.cargo.options.sightings else { return };
        let here = &self.target.destination.repository;
        let needs = wanted.needs.iter().filter(|need| need.at_hand != AtHand::Foreign);
        let known = needs.filter_map(|need| need.identity.as_ref()).chain(encoded.values());
        let digests = known.map(|(digest, _)| digest).chain([root]);
        sightings.note(&here.host, &here.path, digests.cloned());
    }

    /// Returns the repositories of the destination's registry that may have a blob, the likeliest first; `seen` is
    /// where a push has seen it, `remembered` what the source knows.
    pub(super) fn origins(&self, remembered: &[Origin], seen: Option<&String>) -> Vec<String> {
        let here = &self.target.destination.repository;
        let names = self.image.parts().iter().flat_map(|image| &image.names);
        let named = names.filter_map(|name| name.parse::<Reference>().ok());
        let named: Vec<Repository> = named.map(|name| name.repository).collect();
        let remembered = remembered.iter().flat_map(|origin| &origin.repositories);
        let others = remembered.chain(&named).filter(|other| is_host(&other.host, &here.host));
        let mut paths: Vec<String> = Vec::new();
        for path in self.cargo.options.mount_from.iter().chain(seen).chain(others.map(|other| &other.path)) {
            if *path != here.path && !paths.contains(path) {
                paths.push(path.clone());
            }
        }
        paths.truncate(ORIGINS);
        paths
    }
}

/// Returns whether somebody's word for a host means this registry: containerd leaves its port out, and a bundle all of
/// it.
fn is_host(word: &str, host: &str) -> bool {
    let port = |rest: &str| rest.strip_prefix(':').is_some_and(|port| !port.contains([':', ']']));
    word.is_empty() || word == host || host.strip_prefix(word).is_some_and(port)
}

/// More are not asked: each may cost a request for each blob.
const ORIGINS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_may_lack_its_port() {
        for (word, host, means) in [
            ("r.example.com", "r.example.com", true),
            ("127.0.0.1", "127.0.0.1:5000", true),
            ("", "127.0.0.1:5000", true),
            ("[::1]", "[::1]:5000", true),
            ("127.0.0.1:5000", "127.0.0.1:5001", false),
            ("127.0.0.1:5000", "127.0.0.1", false),
            ("r.example", "r.example.com", false),
            ("r.example.co", "r.example.com:5000", false),
            ("[:", "[::1]", false),
        ] {
            assert_eq!(is_host(word, host), means, "{word} {host}");
        }
    }
}
