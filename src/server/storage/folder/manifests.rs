//! What a repository lists: manifests by digest and tag, and what they are about.

use std::collections::BTreeSet;

use super::{disk::Disk, index::Index};
use crate::{
    error::Result,
    oci::{Content, Digest, Manifest},
    server::{
        protocol::{Name, Needed, Refusal, Target},
        storage::{Removal, session::Session},
    },
};

impl Disk {
    /// Takes a blob out of a repository, unless it is a manifest.
    pub(in crate::server) fn remove_blob(&self, name: &Name, digest: &Digest) -> Result<bool, Refusal> {
        if self.index(name)?.is_some_and(|index| index.listed(digest).is_some()) {
            return Err(Refusal::manifest_as_blob());
        }
        Ok(self.remove(name, digest)?)
    }

    /// Returns the first of these that a repository does not have. A manifest is a blob like any other.
    pub(in crate::server) fn first_missing(
        &self,
        name: &Name,
        needed: Vec<Needed>,
    ) -> Result<Option<Needed>> {
        for needed in needed {
            let (Needed::Blob(digest) | Needed::Manifest(digest)) = &needed;
            if self.blob(name, digest)?.is_none() {
                return Ok(Some(needed));
            }
        }
        Ok(None)
    }

    /// Finds a manifest.
    pub(in crate::server) fn find_manifest(&self, name: &Name, target: &Target) -> Result<Option<Manifest>> {
        let Some(index) = self.index(name)? else { return Ok(None) };
        let (digest, entry) = match target {
            Target::Digest(digest) => (digest, index.listed(digest)),
            Target::Tag(tag) => match index.tagged(tag) {
                Some(entry) => (&entry.digest, Some(entry)),
                None => return Ok(None),
            },
        };
        self.manifest(name, digest, entry.and_then(|entry| entry.media_type.as_deref()))
    }

    /// Stores a manifest and lists it.
    pub(in crate::server) fn put_manifest(
        &self,
        name: &Name,
        tags: &[String],
        manifest: &Manifest,
    ) -> Result<(), Refusal> {
        let mut repository = self.make(name)?;
        let before = repository.index.clone();
        let known = self.blob(name, &manifest.digest)?.is_some();
        let mut staging = self.stage(Session::new(name.clone()).id(), manifest.digest.algorithm())?;
        staging.append(std::slice::from_ref(&manifest.bytes))?;
        self.commit(&staging, name, &manifest.digest)?;
        let index = &mut repository.index;
        // One that was here and is not listed is the child of an index. What is about another one is found in the list
        // alone, and whoever stored it may have been killed before it was listed.
        if !known || manifest.subject.is_some() {
            index.list(manifest);
        }
        for tag in tags {
            index.tag(manifest, tag);
        }
        self.adopt_children(name, index, manifest)?;
        if *index != before {
            repository.write()?;
        }
        Ok(())
    }

    /// Takes a tag away, or a manifest with all its tags.
    pub(in crate::server) fn remove_manifest(&self, name: &Name, target: &Target) -> Result<Removal> {
        let Some(mut repository) = self.lock(name)? else { return Ok(Removal::NoRepository) };
        match target {
            Target::Tag(tag) => {
                if !repository.index.untag(tag) {
                    return Ok(Removal::NoManifest);
                }
                repository.write()?;
            }
            Target::Digest(digest) => {
                if self.manifest(name, digest, None)?.is_none() {
                    return Ok(Removal::NoManifest);
                }
                if repository.index.remove(digest) {
                    repository.write()?;
                }
                self.remove(name, digest)?;
            }
        }
        Ok(Removal::Done)
    }

    /// Returns the tags, sorted.
    pub(in crate::server) fn tags(&self, name: &Name) -> Result<Option<Vec<String>>> {
        Ok(self.index(name)?.map(|index| index.tags().into_iter().map(str::to_owned).collect()))
    }

    /// Returns the manifests that are about another one: found by reading what the repository lists.
    pub(in crate::server) fn referrers(&self, name: &Name, subject: &Digest) -> Result<Vec<Manifest>> {
        let Some(index) = self.index(name)? else { return Ok(Vec::new()) };
        let mut referrers = Vec::new();
        for (digest, entry) in index.manifests() {
            let manifest = self.manifest(name, digest, entry.media_type.as_deref())?;
            let is_about =
                |manifest: &Manifest| manifest.subject.as_ref().is_some_and(|about| about.digest == *subject);
            referrers.extend(manifest.filter(is_about));
        }
        Ok(referrers)
    }

    /// Children are found through their index, but for those that are about another manifest: whoever asks for
    /// its referrers finds them in the list.
    fn adopt_children(&self, name: &Name, index: &mut Index, parent: &Manifest) -> Result<()> {
        let Content::Index { manifests } = &parent.content else { return Ok(()) };
        let children: BTreeSet<&Digest> = manifests.iter().map(|child| &child.digest).collect();
        for child in children {
            if index.listed(child).is_some()
                && self.manifest(name, child, None)?.is_none_or(|child| child.subject.is_none())
            {
                index.adopt(child);
            }
        }
        Ok(())
    }
}
