//! Places on disk that hold images. Read-only: nothing is created, locked for writing or changed.
//!
//! A [`Source`] lists its images and opens what they name. It implements only what it natively knows: one
//! that holds manifests hands them out as they are; one that holds configs and layers says so, and the
//! manifest is made later. [`spec`] is what a user types; [`detect`] finds out by content what it leads to;
//! [`choose`](mod@choose) picks one of several images; [`tree`] walks from an image to everything that has to
//! be pushed for it.

pub mod archive;
mod blobs;
pub mod bolt;
pub mod choose;
mod command;
pub mod containerd;
pub mod containers_storage;
pub mod contents;
pub mod detect;
pub mod distribution_storage;
pub mod docker_archive;
pub mod docker_dir;
pub mod docker_root;
pub mod docker_storage;
pub mod folder;
mod foreign;
mod graphroot;
pub mod hybrid;
mod imgpkg;
pub mod nix2container;
pub mod oci_layout;
pub mod passed;
pub mod payload;
pub mod sources;
pub mod spec;
pub mod storage_conf;
mod store;
mod tar_reader;
pub mod tar_split;
pub mod tarball;
pub mod tree;

use std::{fmt, io::Read, slice};

use bytes::Bytes;

pub use choose::choose;
pub use spec::{Choice, SourceSpec, Transport};
pub use storage_conf::StorageOptions;
pub use tree::{Tree, resolve};

use crate::{
    blob::Blob,
    error::{Error, Result},
    layout::left_out::LeftOut,
    oci::{Descriptor, DiffId, Digest, Manifest, Platform, Repository},
};

/// A place on disk that holds images.
pub trait Source: Send + Sync {
    /// Says what this is and where, for messages: "OCI archive `x.tar`".
    fn name(&self) -> String;

    /// Lists the images, in the order of the source.
    fn images(&self) -> Result<Vec<Image>>;

    /// Reads a manifest or index by descriptor. Its size and digest have been checked. An error of
    /// [`Missing`] means that the source names it and does not hold it: where images are configs and layers, any.
    fn document(&self, descriptor: &Descriptor) -> Result<Bytes> {
        Err(Error::source(format!("manifest {} is missing", descriptor.digest)).because(Missing))
    }

    /// Opens a layer or config that one of this source's images names. Size (where a descriptor states it)
    /// and file type have been checked, the digest has not. [`Missing`] as for documents.
    fn open(&self, layer: &Layer) -> Result<Data>;

    /// Says where registries have had a blob, or an encoded form of a plain layer, as far as this source
    /// remembers. Only a hint: what cannot be read is nothing.
    fn origins(&self, _blob: &Layer) -> Vec<Origin> {
        Vec::new()
    }

    /// Returns what is left out on purpose: its images name it, and the site that they go to is said to have it.
    fn left_out(&self) -> Option<&LeftOut> {
        None
    }

    /// Returns how many plain bytes a layer has that would have to be produced, if that is on record.
    fn plain_size(&self, _layer: &Layer) -> Option<u64> {
        None
    }

    /// Things the user should know about what was found.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Things the user should know about an image that is pushed.
    fn notes(&self, _image: &Image) -> Vec<String> {
        Vec::new()
    }
}

impl fmt::Debug for dyn Source + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// Says that signatures in the format of simple signing stay behind: no registry has a place for them.
fn signatures_stay(holder: &str, count: usize) -> Option<String> {
    (count > 0).then(|| format!("{holder} holds signatures, which are not pushed: {count}"))
}

/// What a path turned out to be.
#[derive(Debug)]
pub enum Input {
    /// Readable in place.
    Indexed(Box<dyn Source>),
    /// A compressed archive or a pipe: readable once, in its own order.
    Pass(Pass),
}

/// An archive that can be read once, from its first byte to its last; decoded already.
pub struct Pass {
    /// What it is called in messages.
    pub name: String,
    /// The plain tar.
    pub tar: Box<dyn Read + Send>,
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The bytes of a layer.
pub enum Data {
    /// Taken over by whoever read the archive while it passed; this is the digest of the plain bytes.
    Absorbed(Digest),
    /// At rest, readable by offset.
    Stored(Blob),
    /// To be produced by reading once.
    Stream(Box<dyn Read + Send>),
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absorbed(_) => "Absorbed",
            Self::Stored(_) => "Stored",
            Self::Stream(_) => "Stream",
        })
    }
}

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
    /// Returns the digest of the manifest or index that the source holds, if it holds one.
    pub fn digest(&self) -> Option<&Digest> {
        match &self.content {
            ImageContent::Manifest(descriptor) => Some(&descriptor.digest),
            ImageContent::Broken { .. } | ImageContent::Layers { .. } | ImageContent::Index { .. } => None,
        }
    }

    /// Returns whether the source knows it by the digest of this manifest, held or not.
    pub fn is_known_by(&self, digest: &Digest) -> bool {
        let known = match &self.content {
            ImageContent::Layers { original, .. } => original.as_ref().map(|manifest| &manifest.digest),
            ImageContent::Broken { .. } | ImageContent::Manifest(_) | ImageContent::Index { .. } => {
                self.digest()
            }
        };
        known == Some(digest)
    }

    /// Returns what tells it from others, whatever they are called.
    pub fn identity(&self) -> Digest {
        match &self.content {
            ImageContent::Broken { id, .. } => id.clone(),
            ImageContent::Layers { config, .. } => Digest::of(config),
            ImageContent::Manifest(descriptor) => descriptor.digest.clone(),
            ImageContent::Index { manifest, .. } => manifest.digest.clone(),
        }
    }

    /// Returns the images that an index is of, or else the one that this is.
    pub fn parts(&self) -> &[Self] {
        match &self.content {
            ImageContent::Index { images, .. } => images,
            ImageContent::Broken { .. } | ImageContent::Layers { .. } | ImageContent::Manifest(_) => {
                slice::from_ref(self)
            }
        }
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

/// Where registries have had a blob, as whoever pulled or pushed it has noted.
///
/// The digest of a layer's encoded form is as good as the store it is noted in: it was written by who had both
/// the encoded and the plain bytes in hand and computed both digests, and the diff ID it is noted for is the one
/// that the image's config names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The digest it has there.
    pub digest: Digest,
    /// The repositories, the likeliest first. A host may lack its port, or be empty: that is every registry.
    pub repositories: Vec<Repository>,
}

/// Returns the digest that a file is named by, as many producers do: `<hex>.tar`, `sha256:<hex>`, `<hex>.tar.gz`.
/// A hint, and no more: nobody has looked into it.
pub fn digest_in(name: &str) -> Option<Digest> {
    let file = name.rsplit('/').next()?;
    let stem = file.split('.').next()?;
    let hex = stem.strip_prefix("sha256:").unwrap_or(stem);
    format!("sha256:{hex}").parse().ok()
}

/// The cause beneath an error about something that a source names and does not hold.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the source does not hold it")]
pub struct Missing;
