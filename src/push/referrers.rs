//! What a source holds about its images: signatures, SBOMs, attestations.
//!
//! They name an image by its digest: in a manifest's `subject` (OCI 1.1), or in a tag of cosign's like
//! `sha256-<hex>.sig`. The tag `sha256-<hex>` alone is a list of referrers that a registry without a list of its own was
//! given (distribution-spec, "referrers tag schema"): what it lists is pushed, and the destination's list kept by
//! whoever pushes a referrer (delivery/manifest.rs).

use std::{
    collections::HashSet,
    sync::{Arc, OnceLock},
};

use crate::{
    error::Result,
    oci::{Content, Descriptor, Digest, Manifest},
    source::{Image, ImageContent, Source},
};

/// An image that is there for the sake of another one.
#[derive(Clone, Debug)]
pub(super) struct Companion {
    pub(super) image: Image,
    /// What it is about.
    pub(super) subject: Digest,
}

impl Companion {
    /// Says which one it is: "`sha256-….sig`", "application/spdx+json sha256:…".
    pub(super) fn name(&self) -> String {
        let ImageContent::Manifest(descriptor) = &self.image.content else { return String::new() };
        match (self.image.names.first(), &descriptor.artifact_type) {
            (Some(name), _) => format!("`{name}`"),
            (None, Some(kind)) => format!("{kind} {}", descriptor.digest),
            (None, None) => descriptor.digest.to_string(),
        }
    }

    /// The tags it is kept under beside its subject.
    pub(super) fn tags(&self) -> Vec<String> {
        let named = self.image.names.iter().filter(|name| tagged(name).is_some());
        named.filter_map(|name| name.rsplit([':', '/']).next()).map(str::to_owned).collect()
    }
}

/// All that a source holds about images: looked for once, since every manifest has to be read for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Referrers(Arc<OnceLock<Vec<Companion>>>);

impl Referrers {
    /// Finds what is about one of these images, what is about that, and so on; in the order in which it can be pushed.
    /// It may be an image that has a name of its own, too.
    pub(super) fn about(
        &self,
        source: &dyn Source,
        subjects: impl IntoIterator<Item = Digest>,
    ) -> Result<Vec<Companion>> {
        let mut waiting: Vec<&Companion> = self.all(source)?.iter().collect();
        let mut known: HashSet<Digest> = subjects.into_iter().collect();
        let mut found = Vec::new();
        loop {
            let (ready, rest): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|companion| known.contains(&companion.subject));
            if ready.is_empty() {
                return Ok(found);
            }
            known.extend(ready.iter().filter_map(|companion| companion.image.digest().cloned()));
            found.extend(ready.into_iter().cloned());
            waiting = rest;
        }
    }

    fn all(&self, source: &dyn Source) -> Result<&[Companion]> {
        if let Some(all) = self.0.get() {
            return Ok(all);
        }
        let images = unfold(source.images()?, source).into_iter();
        let all = images.filter_map(|image| Some(Companion { subject: subject(&image, source)?, image }));
        let all = all.collect();
        Ok(self.0.get_or_init(|| all))
    }
}

/// Puts what a list of referrers lists in the place of the list.
pub(super) fn unfold(images: Vec<Image>, source: &dyn Source) -> Vec<Image> {
    let mut seen: HashSet<Digest> = images.iter().filter_map(Image::digest).cloned().collect();
    let mut unfolded = Vec::new();
    for image in images {
        match listed(&image, source) {
            Some(referrers) => {
                let new = referrers.into_iter().filter(|referrer| seen.insert(referrer.digest.clone()));
                unfolded.extend(new.map(|referrer| Image {
                    names: Vec::new(),
                    platform: None,
                    content: ImageContent::Manifest(referrer),
                    companion: true,
                }));
            }
            None => unfolded.push(image),
        }
    }
    unfolded
}

/// Returns the referrers that an image is no more than a list of.
fn listed(image: &Image, source: &dyn Source) -> Option<Vec<Descriptor>> {
    if !image.companion || !image.names.iter().all(|name| is_list(name)) {
        return None;
    }
    let about = image.names.iter().find_map(|name| tagged(name))?;
    let Content::Index { manifests } = manifest(image, source)?.content else { return None };
    let refers = |descriptor: &Descriptor| {
        read(descriptor, source)?.subject.filter(|subject| subject.digest == about).map(drop)
    };
    manifests.iter().all(|descriptor| refers(descriptor).is_some()).then_some(manifests)
}

/// Returns which image a companion is about: what its manifest says, or a tag of cosign's kind.
pub(super) fn subject(image: &Image, source: &dyn Source) -> Option<Digest> {
    manifest(image, source)?
        .subject
        .map(|subject| subject.digest)
        .or_else(|| image.names.iter().find_map(|name| tagged(name)))
}

fn manifest(image: &Image, source: &dyn Source) -> Option<Manifest> {
    let ImageContent::Manifest(descriptor) = &image.content else { return None };
    read(descriptor, source)
}

/// Reads a document. What cannot be read is told of when it is to be pushed.
fn read(descriptor: &Descriptor, source: &dyn Source) -> Option<Manifest> {
    let bytes = source.document(descriptor).ok()?;
    Manifest::parse(bytes, descriptor.digest.clone(), descriptor.media_type.as_deref()).ok()
}

/// Reads the digest that a tag like `sha256-<hex>.sig` is made of.
fn tagged(name: &str) -> Option<Digest> {
    let tag = name.rsplit([':', '/']).next()?;
    let digest = tag.split('.').next()?.replacen('-', ":", 1);
    digest.parse().ok()
}

/// Returns whether a tag is a list's.
fn is_list(name: &str) -> bool {
    tagged(name).is_some() && !name.contains('.')
}
