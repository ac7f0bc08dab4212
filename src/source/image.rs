//! An image as its source knows it: what it is called, what there is of it, and the layers that can be opened.
//!
//! A source holds a manifest, or a config and layers, or an index of both. What is said here is the source's own
//! word: nothing of it has been read through, and a digest in a file's name is a hint.

use std::slice;

use bytes::Bytes;

use crate::{
    error::{Error, Result},
    oci::{Descriptor, DiffId, Digest, Manifest, Platform},
};

/// One image of a source.
#[derive(Clone, Debug)]
pub struct Image {
    /// What it can be asked for by: tags, full names, as the source spells them.
    pub names: Vec<String>,
    /// Its platform, where the source's own listing says it.
    pub platform: Option<Platform>,
    /// What the source holds of it.
    pub content: ImageContent,
    /// Whether it is there for the sake of another image, as signatures, SBOMs and attestations are, and what a store
    /// keeps without a name. Such ones are never meant unless they are asked for.
    pub companion: bool,
}

impl Image {
    /// An image of which the listing says no more than this.
    pub fn new(names: Vec<String>, content: ImageContent) -> Self {
        Self { names, platform: None, content, companion: false }
    }

    /// Returns the digest of the manifest or index that the source holds, if it holds one.
    pub fn digest(&self) -> Option<&Digest> {
        let ImageContent::Manifest(descriptor) = &self.content else { return None };
        Some(&descriptor.digest)
    }

    /// Returns whether the source knows it by the digest of this manifest, held or not.
    pub fn is_known_by(&self, digest: &Digest) -> bool {
        let known = match &self.content {
            ImageContent::Layers { original, .. } => original.as_ref().map(|manifest| &manifest.digest),
            _ => self.digest(),
        };
        known == Some(digest)
    }

    /// Returns what tells it from others, whatever they are called.
    pub fn identity(&self) -> Digest {
        match &self.content {
            ImageContent::Index { manifest, .. } => manifest.digest.clone(),
            _ => self.id(),
        }
    }

    /// Returns its ID, as the source's own tool says it.
    pub fn id(&self) -> Digest {
        match &self.content {
            ImageContent::Broken { id, .. } | ImageContent::Index { id, .. } => id.clone(),
            ImageContent::Layers { config, .. } => Digest::of(config),
            ImageContent::Manifest(descriptor) => descriptor.digest.clone(),
        }
    }

    /// Returns the images that an index is of, or else the one that this is.
    pub fn parts(&self) -> &[Self] {
        let ImageContent::Index { images, .. } = &self.content else { return slice::from_ref(self) };
        images
    }

    /// Returns the one of its parts that is for a platform; of several variants the usual one is meant.
    pub fn part_for(&self, wanted: &Platform, what: &str) -> Result<&Self> {
        let offered: Vec<_> = self.parts().iter().filter_map(|part| part.platform.clone()).collect();
        let is_for = |part: &&Self, wanted| part.platform.as_ref().is_some_and(|own| own.satisfies(wanted));
        let asked = wanted.with_usual_variant();
        let found = asked
            .iter()
            .chain([wanted])
            .find_map(|wanted| self.parts().iter().find(|part| is_for(part, wanted)));
        found.ok_or_else(|| wanted.not_offered(&offered, what))
    }
}

/// What a source holds of an image.
#[derive(Clone, Debug)]
pub enum ImageContent {
    /// Nothing that can be read, which is no reason to refuse the other images.
    Broken {
        /// What tells it from others: in a store the digest that its config should have.
        id: Digest,
        /// Why, for whoever wants it.
        error: Error,
    },
    /// A config and layers, for which a manifest has to be made.
    Layers {
        /// The image config, byte for byte.
        config: Bytes,
        /// The layers, base first, each with its diff ID.
        layers: Vec<Layer>,
        /// The manifest that the image was pulled or built with, whose encoded layers the source does not hold,
        /// but a registry may.
        original: Option<Manifest>,
    },
    /// A manifest or index, to be pushed byte for byte.
    Manifest(Descriptor),
    /// An index of images that may have no manifest yet, and of what only the destination may have.
    Index {
        /// What a store calls it, which may be no digest of anything.
        id: Digest,
        /// The index. An image without a manifest it names by its config, or by the manifest that it was pulled or built
        /// with.
        manifest: Manifest,
        /// What the source holds of what it names.
        images: Vec<Image>,
        /// What it names besides.
        absent: Vec<Descriptor>,
    },
}

/// A blob that a source can open: a layer, or a config that a manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// What the source calls it, for opening and for messages: an entry's name, a digest.
    pub name: String,
    /// What a manifest says about it, where there is one.
    pub descriptor: Option<Descriptor>,
    /// The digest of its plain bytes, where a config says it.
    pub diff_id: Option<DiffId>,
}

impl Layer {
    /// A blob that a manifest names.
    pub fn named(descriptor: &Descriptor) -> Self {
        Self { name: descriptor.digest.to_string(), descriptor: Some(descriptor.clone()), diff_id: None }
    }
}

/// Returns the digest that a file is named by, as many producers do: `<hex>.tar`, `sha256:<hex>`, `<hex>.tar.gz`.
/// A hint, and no more: nobody has looked into it.
pub fn digest_in(name: &str) -> Option<Digest> {
    let file = name.rsplit('/').next()?;
    let stem = file.split('.').next()?;
    let hex = stem.strip_prefix("sha256:").unwrap_or(stem);
    format!("sha256:{hex}").parse().ok()
}
