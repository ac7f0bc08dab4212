//! What an image needs, before the registry is asked: its blobs, what the source and the cache hold of each,
//! and the documents that name them.

pub(super) mod draft;
mod listing;

use std::collections::{HashMap, HashSet};

use self::draft::{Draft, Encodings, Finished, finish};
pub(super) use self::listing::named_by;
use super::Format;
use crate::{
    blob::Blob,
    error::{Error, Result},
    oci::{Descriptor, DiffId, Digest},
    plan::{AtHand, Need},
    source::Layer,
};

/// What an image needs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Each blob once.
    pub(crate) needs: Vec<Need>,
    /// Children of an index that the source names and does not hold.
    pub(crate) absent: Vec<Descriptor>,
    /// Blobs that lie encoded in the cache.
    pub(crate) cached: HashMap<Digest, Blob>,
    /// The documents, the root last.
    drafts: Vec<Draft>,
    /// In which family they are pushed.
    format: Format,
    /// What the user should know about layers that stay as they are.
    notes: Vec<String>,
}

impl Wanted {
    /// Returns the digests and sizes of encoded layers, as far as they are known.
    pub(crate) fn encoded(&self) -> Encodings {
        encodings(&self.needs)
    }

    /// The layers that would have to be encoded.
    pub(crate) fn plain_layers(&self) -> impl Iterator<Item = &Layer> {
        self.needs.iter().filter(|need| need.at_hand == AtHand::Plain).map(|need| &need.layer)
    }

    /// Takes a form of a layer that the repository has for ours.
    pub(crate) fn reuse(&mut self, diff_id: &DiffId, identity: &(Digest, u64)) {
        for need in self.needs.iter_mut().filter(|need| need.layer.diff_id.as_ref() == Some(diff_id)) {
            need.identity = Some(identity.clone());
            need.weight = identity.1;
            need.at_hand = AtHand::Registry;
        }
    }

    /// Takes note that another repository has a form of a layer, which it may be mounted from.
    pub(crate) fn may_come_from(&mut self, diff_id: &DiffId, repository: &str) {
        for need in self.needs.iter_mut().filter(|need| need.layer.diff_id.as_ref() == Some(diff_id)) {
            need.origins.push(repository.to_owned());
        }
    }

    /// Returns which of the source's documents will be pushed as they are, and which will be made anew.
    pub(crate) fn kept_and_changed(&self) -> Result<(HashSet<Digest>, HashSet<Digest>)> {
        draft::kept_and_changed(&self.drafts, &self.encoded(), self.format)
    }

    /// Returns the documents as they are pushed, now that all layers are known.
    pub(crate) fn complete(&self, encoded: &Encodings) -> Result<Finished> {
        let finished = self.finish(encoded)?;
        finished.ok_or_else(|| Error::internal("a layer was neither encoded nor refused"))
    }

    /// Returns the documents as they are pushed, if all layers are known.
    pub(crate) fn finish(&self, encoded: &Encodings) -> Result<Option<Finished>> {
        let finished = finish(&self.drafts, encoded, self.format)?;
        Ok(finished.map(|mut finished| {
            finished.notes.extend_from_slice(&self.notes);
            finished
        }))
    }
}

/// Returns the digests and sizes of encoded layers, as far as they are known. Where a layer is there as it is, too,
/// what it is encoded to counts, whenever that becomes known.
pub(in crate::push) fn encodings<'a>(needs: impl IntoIterator<Item = &'a Need>) -> Encodings {
    let known = |need: &Need| Some((need.layer.diff_id.clone()?, need.identity.clone()?));
    let (as_they_are, encoded): (Vec<_>, Vec<_>) =
        needs.into_iter().partition(|need| need.at_hand == AtHand::Encoded);
    as_they_are.into_iter().chain(encoded).filter_map(known).collect()
}
