//! `--if-exists`: what becomes of tags that a repository has already.
//!
//! All tags are asked for before anything is sent. Registries have no way to set a tag only where there is none, so
//! somebody else may still come between the question and the tag.

use std::collections::{BTreeMap, HashSet};

use crate::{
    error::{Error, ErrorKind, Result},
    event::How,
    oci::Digest,
    push::{IfExists, Pushed, Target},
};

/// The tags of an image, by what may become of each.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// Those to set.
    pub(super) tags: Vec<String>,
    /// Those to leave, and what they stand for.
    pub(super) skipped: BTreeMap<String, Digest>,
    /// Among those to set, those that stand for something already and must not stand for anything else.
    fixed: BTreeMap<String, Digest>,
    /// `registry/repository`, for messages.
    repository: String,
}

impl Names {
    /// Returns an error if an image must not be called so; without a digest nobody knows which one it will be.
    pub(super) fn allow(&self, digest: Option<&Digest>) -> Result<()> {
        let Some((tag, there)) = self.fixed.iter().find(|(_, there)| Some(*there) != digest) else {
            return Ok(());
        };
        let words = format!("`{}:{tag}` is there already: {there}", self.repository);
        let error = Error::new(ErrorKind::Refused, words);
        Err(match digest {
            Some(digest) => error.with_hint(format!("what would be pushed is {digest}")),
            None => error.with_hint("what would be pushed has no digest before its layers are encoded"),
        }
        .with_hint("`--if-exists skip` leaves the tag, `--if-exists overwrite` moves it"))
    }
}

impl Target {
    /// Returns the tags that are asked for.
    fn tags(&self) -> Vec<String> {
        let mut tags: Vec<String> = self.destination.tag.iter().chain(&self.tags).cloned().collect();
        if tags.is_empty() && self.destination.digest.is_none() {
            tags.push("latest".to_owned());
        }
        let mut seen = HashSet::new();
        tags.retain(|tag| seen.insert(tag.clone()));
        tags
    }

    /// Finds out which tags may be set.
    pub(super) async fn names(&self, if_exists: IfExists) -> Result<Names> {
        let mut names = Names {
            tags: self.tags(),
            skipped: BTreeMap::new(),
            fixed: BTreeMap::new(),
            repository: self.destination.repository.to_string(),
        };
        if if_exists == IfExists::Overwrite {
            return Ok(names);
        }
        for tag in std::mem::take(&mut names.tags) {
            let there = self.client.head_manifest(self.repository(), &tag).await?;
            match (there, if_exists) {
                (Some(there), IfExists::Skip) => drop(names.skipped.insert(tag, there)),
                (Some(there), _) => {
                    names.fixed.insert(tag.clone(), there);
                    names.tags.push(tag);
                }
                (None, _) => names.tags.push(tag),
            }
        }
        Ok(names)
    }

    /// Returns what is at the target already, if no tag is left to set.
    pub(super) async fn skipped(&self, names: &Names) -> Result<Option<Pushed>> {
        let first = self.tags().into_iter().find_map(|tag| names.skipped.get_key_value(&tag));
        let Some((tag, digest)) = first.filter(|_| names.tags.is_empty()) else { return Ok(None) };
        let manifest = self.client.get_manifest(self.repository(), tag).await?;
        let (media_type, bytes) = manifest.ok_or_else(|| {
            Error::new(ErrorKind::Refused, format!("`{}:{tag}` was there and is gone", names.repository))
        })?;
        Ok(Some(Pushed {
            digest: digest.clone(),
            media_type,
            size: bytes.len() as u64,
            tags: Vec::new(),
            skipped: names.skipped.clone(),
            referrers: Vec::new(),
            how: How::Present,
            bytes_sent: 0,
        }))
    }
}

/// Returns what is there already, if no target lacks a tag: then a source that would have to be read from its first byte
/// to its last need not be read. Whatever goes wrong is told by the push.
pub(in crate::push) async fn all_skipped(
    targets: &[Target],
    if_exists: IfExists,
) -> Option<Vec<Result<Pushed>>> {
    if if_exists != IfExists::Skip {
        return None;
    }
    let mut skipped = Vec::new();
    for target in targets {
        let names = target.names(if_exists).await.ok()?;
        skipped.push(Ok(target.skipped(&names).await.ok()??));
    }
    Some(skipped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_may_be_set_again_for_what_it_stands_for() {
        let (ours, other) = (Digest::of(b"ours"), Digest::of(b"other"));
        let names = |fixed: &[&Digest]| Names {
            tags: Vec::new(),
            skipped: BTreeMap::new(),
            fixed: fixed.iter().map(|digest| (digest.hex().to_owned(), (*digest).clone())).collect(),
            repository: "r.example/demo".to_owned(),
        };
        assert!(names(&[]).allow(None).is_ok());
        assert!(names(&[&ours]).allow(Some(&ours)).is_ok());
        for (fixed, digest) in
            [(vec![&ours], None), (vec![&ours, &other], Some(&ours)), (vec![&other], Some(&ours))]
        {
            assert_eq!(names(&fixed).allow(digest).unwrap_err().kind(), ErrorKind::Refused);
        }
    }
}
