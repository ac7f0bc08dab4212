//! Places on disk that hold images. Read-only: nothing is created, locked for writing or changed.
//!
//! A [`Source`] lists its images and opens what they name. It implements only what it natively knows: one
//! that holds manifests hands them out as they are; one that holds configs and layers says so, and the
//! manifest is made later. [`spec`] is what a user types; [`detect`] finds out by content what it leads to;
//! [`choose`](mod@choose) picks one of several images; [`tree`] walks from an image to everything that has to
//! be pushed for it. [`contents`] describes an image, and [`verify`] checks it, for whoever does not push.

pub mod archive;
mod blobs;
pub mod choose;
mod command;
pub mod contents;
pub mod detect;
pub mod documents;
pub mod folder;
pub mod formats;
mod image;
mod names;
mod no_image;
pub mod passed;
pub mod platforms;
pub mod sources;
pub mod spec;
pub mod stores;
pub mod tarball;
pub mod tree;
pub mod verify;

use std::{fmt, io::Read};

use bytes::Bytes;

pub use choose::choose;
pub use image::{Image, ImageContent, Layer, digest_in};
pub use spec::{Choice, SourceSpec, Transport};
pub use stores::StorageOptions;
pub use tree::{Tree, resolve};

use crate::{
    blob::Blob,
    error::{Error, Result},
    layout::left_out::LeftOut,
    oci::{Descriptor, Digest, Repository},
};

/// A place on disk that holds images.
pub trait Source: Send + Sync {
    /// Says what this is and where, for messages: "OCI archive `x.tar`".
    fn name(&self) -> String;

    /// Lists the images, in the order of the source.
    fn images(&self) -> Result<Vec<Image>>;

    /// Reads a manifest or index by descriptor. Its size and digest have been checked. What the source names and does not
    /// hold is [`Missing`], and where images are configs and layers, all is; any other error says that it is broken.
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

/// The cause beneath an error about something that a source names and does not hold; without it, it is broken.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the source does not hold it")]
pub struct Missing;

impl Missing {
    /// Returns whether an error is about something that is missing, and not broken.
    pub fn is_cause_of(error: &Error) -> bool {
        error.find::<Self>().is_some()
    }
}
