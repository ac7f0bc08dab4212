//! Manifests, tags and referrers in a bucket: each an object of its own.

use super::{Objects, blob_key, store::Document};
use crate::{
    error::{Context as _, ErrorKind, Result},
    oci::{Algorithm, Digest, Manifest},
    server::{
        protocol::{Name, Needed, Refusal, Target},
        storage::Removal,
    },
};

impl Objects {
    /// Returns the first of these that a repository does not have.
    pub(in crate::server) async fn first_missing(
        &self,
        name: Name,
        needed: Vec<Needed>,
    ) -> Result<Option<Needed>> {
        let key_of = |needed: &Needed| match needed {
            Needed::Blob(digest) => blob_key(&name, digest),
            Needed::Manifest(digest) => key(&name, digest),
        };
        let missing = self.store.first_missing(needed.iter().map(key_of).collect()).await?;
        Ok(missing.and_then(|at| needed.into_iter().nth(at)))
    }

    /// Finds a manifest.
    pub(in crate::server) async fn manifest(&self, name: Name, target: Target) -> Result<Option<Manifest>> {
        let digest = match target {
            Target::Digest(digest) => digest,
            Target::Tag(tag) => match self.store.read(&tag_key(&name, &tag)).await? {
                Some(named) => parse_tag(&named)?,
                None => return Ok(None),
            },
        };
        let found = self.store.read(&key(&name, &digest)).await?;
        found.map(|document| parse(document, digest)).transpose()
    }

    /// Stores a manifest under its digest and these tags. Whoever finds one of those finds all.
    pub(in crate::server) async fn put_manifest(
        &self,
        name: Name,
        tags: Vec<String>,
        manifest: Manifest,
    ) -> Result<(), Refusal> {
        let Manifest { bytes, digest, media_type, subject, .. } = manifest;
        self.store.put_noted(&key(&name, &digest), bytes, &media_type).await?;
        let named = digest.to_string();
        if let Some(subject) = &subject {
            let key = referrer_key(&name, &subject.digest, &digest);
            self.store.put(&key, named.clone().into()).await?;
        }
        for tag in tags {
            self.store.put(&tag_key(&name, &tag), named.clone().into()).await?;
        }
        Ok(())
    }

    /// Takes a tag away, or a manifest with all its tags.
    pub(in crate::server) async fn remove_manifest(&self, name: Name, target: Target) -> Result<Removal> {
        match target {
            Target::Tag(tag) => {
                let key = tag_key(&name, &tag);
                if self.store.exists(&key).await? {
                    self.store.remove(vec![key]).await?;
                    return Ok(Removal::Done);
                }
            }
            Target::Digest(digest) => {
                if let Some(document) = self.store.read(&key(&name, &digest)).await? {
                    let mut about = self.tags_of(&name, &digest).await?;
                    // What cannot be read can still be removed.
                    if let Some(subject) = parse(document, digest.clone()).ok().and_then(|it| it.subject) {
                        about.push(referrer_key(&name, &subject.digest, &digest));
                    }
                    self.store.remove(about).await?;
                    // Last: until it is gone, whoever was interrupted can try again.
                    self.store.remove(vec![key(&name, &digest)]).await?;
                    return Ok(Removal::Done);
                }
            }
        }
        Ok(if self.is_repository(&name).await? { Removal::NoManifest } else { Removal::NoRepository })
    }

    /// Returns the tags of a repository, sorted; nothing if there is no such repository.
    pub(in crate::server) async fn tags(&self, name: Name) -> Result<Option<Vec<String>>> {
        let tags = self.store.list(&tags_key(&name)).await?;
        if tags.is_empty() && !self.is_repository(&name).await? {
            return Ok(None);
        }
        Ok(Some(tags.into_iter().map(|(tag, _)| tag).collect()))
    }

    /// Returns the manifests that are about another one.
    pub(in crate::server) async fn referrers(&self, name: Name, subject: Digest) -> Result<Vec<Manifest>> {
        let listed = self.store.list(&referrers_key(&name, &subject)).await?;
        let digests: Vec<Digest> = listed.iter().filter_map(|(hex, _)| digest_of(hex)).collect();
        let keys = digests.iter().map(|digest| key(&name, digest)).collect();
        let found = self.store.read_all(keys).await?;
        // Those that are gone, or were never acknowledged, are not there.
        let manifest = |(at, document)| {
            let digest = digests.iter().find(|digest| key(&name, digest) == at)?;
            parse(document, digest.clone()).ok()
        };
        Ok(found.into_iter().filter_map(manifest).collect())
    }

    /// Returns the keys of the tags that name a manifest.
    async fn tags_of(&self, name: &Name, digest: &Digest) -> Result<Vec<String>> {
        let tags = self.store.list(&tags_key(name)).await?;
        let keys = tags.into_iter().map(|(tag, _)| tag_key(name, &tag)).collect();
        let named = digest.to_string();
        let found = self.store.read_all(keys).await?;
        Ok(found.into_iter().filter(|(_, tag)| tag.bytes == named).map(|(key, _)| key).collect())
    }

    /// Returns whether there is anything of a repository.
    async fn is_repository(&self, name: &Name) -> Result<bool> {
        let blobs = format!("{name}/_blobs");
        Ok(self.store.is_any_below(&format!("{name}/_manifests")).await?
            || self.store.is_any_below(&blobs).await?)
    }
}

fn parse(document: Document, digest: Digest) -> Result<Manifest> {
    Manifest::parse(document.bytes, digest, document.note.as_deref())
}

fn parse_tag(document: &Document) -> Result<Digest> {
    let text = String::from_utf8_lossy(&document.bytes);
    text.parse().context(ErrorKind::Local, || "a tag's document is damaged".into())
}

/// Returns where a repository's manifest lies.
pub(super) fn key(name: &Name, digest: &Digest) -> String {
    format!("{name}/_manifests/{}", digest.path())
}

fn tags_key(name: &Name) -> String {
    format!("{name}/_tags")
}

fn tag_key(name: &Name, tag: &str) -> String {
    format!("{}/{tag}", tags_key(name))
}

fn referrers_key(name: &Name, subject: &Digest) -> String {
    format!("{name}/_referrers/{}", subject.hex())
}

fn referrer_key(name: &Name, subject: &Digest, referrer: &Digest) -> String {
    format!("{}/{}", referrers_key(name, subject), referrer.hex())
}

/// Reads a digest that is known by its hex digits: each hash function has its own number of them.
fn digest_of(hex: &str) -> Option<Digest> {
    let with = |algorithm: Algorithm| format!("{}:{hex}", algorithm.name()).parse().ok();
    with(Algorithm::Sha256).or_else(|| with(Algorithm::Sha512))
}
