//! What a source holds about its images: signatures, SBOMs, attestations.
//!
//! They name an image by its digest: in a manifest's `subject` (OCI 1.1), or in a tag of cosign's like
//! `sha256-<hex>.sig`. The tag `sha256-<hex>` alone is a list of referrers that a registry without a list of its own was
//! given (distribution-spec, "referrers tag schema"): what it lists is pushed, and the destination's list kept by
//! whoever pushes a referrer ([`super::manifest`]).

use std::{collections::HashSet, sync::Arc};

use super::{Cargo, Format, Options, Pushed, Target, delivery::Delivery, spool::blocking, wanted::Wanted};
use crate::{
    codec::Recipe,
    error::{Error, Result},
    oci::{Content, Descriptor, Digest, Manifest},
    source::{Image, ImageContent, Source},
};

/// What becomes of what a source holds about an image. It is never altered, and so holds no more for an image that is
/// made anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Companions {
    /// It is not pushed; but an image for which it would hold no more is refused.
    #[default]
    Stay,
    /// `--referrers`: it is pushed behind the image; an image for which it would hold no more is refused.
    Travel,
    /// `--remove-signatures`: as if it were not there.
    Forget,
}

impl Delivery {
    /// Delivers the image, and what is about it where that travels along.
    pub(super) async fn run_accompanied(&self) -> Result<Pushed> {
        let pushed = self.run().await?;
        if self.options.companions != Companions::Travel || pushed.was_left_alone() {
            return Ok(pushed);
        }
        let mut referrers = Vec::new();
        for companion in self.companions().await? {
            let name = companion.name();
            let beside = Self {
                target: Target::of(
                    &companion.image,
                    &self.target.destination.repository,
                    &companion.tags(),
                    &self.target.client,
                ),
                image: companion.image,
                options: self.options.clone().unaltered(),
                ..self.clone()
            };
            let arrived = Box::pin(beside.run()).await;
            let arrived = arrived.map_err(|error| {
                error.while_doing(format!("pushing {name}, which is about {}", companion.subject))
            })?;
            referrers.push(arrived.digest);
        }
        Ok(Pushed { referrers, ..pushed })
    }

    /// Finds what is about the documents that are pushed as they are.
    async fn companions(&self) -> Result<Vec<Companion>> {
        let (kept, delivery) = (self.kept().await?, self.clone());
        blocking(move || about(&*delivery.source, kept)).await
    }

    /// Finds out which documents are pushed as they are.
    pub(super) async fn kept(&self) -> Result<HashSet<Digest>> {
        Ok(self.listed().await?.kept_and_changed(self.options.format)?.0)
    }
}

impl Cargo {
    /// Returns the same for what is about images.
    pub(super) fn unaltered(&self) -> Self {
        Self { options: self.options.clone().unaltered(), ..self.clone() }
    }
}

impl Options {
    /// Returns the options for what is about an image, which is never altered, whatever becomes of the image.
    pub(super) fn unaltered(self) -> Self {
        Self { format: Format::Auto, platform: None, recipe: Recipe::Keep, ..self }
    }
}

/// Refuses an image that is made anew while the source holds something about it.
pub(super) async fn check_companions(
    source: &Arc<dyn Source>,
    wanted: &Wanted,
    options: &Options,
) -> Result<()> {
    let (_, changed) = wanted.kept_and_changed(options.format)?;
    if changed.is_empty() || options.companions == Companions::Forget {
        return Ok(());
    }
    let source = Arc::clone(source);
    let stale = blocking(move || about(&*source, changed)).await?;
    if stale.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = stale.iter().map(Companion::name).collect();
    Err(Error::usage(format!(
        "the image would be made anew, and what the source holds about it would not hold for it: {}",
        names.join(", ")
    ))
    .with_hint("leave out `--compression` and `--format` to push it as it is")
    .with_hint("`--remove-signatures` pushes the new one alone"))
}

/// An image that is there for the sake of another one.
#[derive(Clone, Debug)]
pub(super) struct Companion {
    pub(super) image: Image,
    /// What it is about.
    subject: Digest,
}

impl Companion {
    /// Says which one it is: "`sha256-….sig`", "application/spdx+json sha256:…".
    fn name(&self) -> String {
        let ImageContent::Manifest(descriptor) = &self.image.content else { return String::new() };
        match (self.image.names.first(), &descriptor.artifact_type) {
            (Some(name), _) => format!("`{name}`"),
            (None, Some(kind)) => format!("{kind} {}", descriptor.digest),
            (None, None) => descriptor.digest.to_string(),
        }
    }

    /// The tags it is kept under beside its subject.
    fn tags(&self) -> Vec<String> {
        let named = self.image.names.iter().filter(|name| tagged(name).is_some());
        named.filter_map(|name| name.rsplit([':', '/']).next()).map(str::to_owned).collect()
    }
}

/// Finds what is about one of these images, what is about that, and so on; in the order in which it can be pushed. It may
/// be an image that has a name of its own, too.
pub(super) fn about(
    source: &dyn Source,
    subjects: impl IntoIterator<Item = Digest>,
) -> Result<Vec<Companion>> {
    let mut waiting: Vec<Companion> = unfold(source.images()?, source)
        .into_iter()
        .filter_map(|image| Some(Companion { subject: subject(&image, source)?, image }))
        .collect();
    let mut known: HashSet<Digest> = subjects.into_iter().collect();
    let mut found = Vec::new();
    loop {
        let (ready, rest): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|companion| known.contains(&companion.subject));
        if ready.is_empty() {
            return Ok(found);
        }
        known.extend(ready.iter().filter_map(|companion| companion.image.digest().cloned()));
        found.extend(ready);
        waiting = rest;
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
