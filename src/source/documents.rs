//! Reading the documents of an image, manifests and configs, whatever holds them.
//!
//! They are compared with their descriptors, and no more of them is read than an image may have.

use std::io::Read as _;

use bytes::Bytes;

use super::{Data, Layer, Source};
use crate::{
    blob::mismatch,
    error::{Context as _, Error, ErrorKind, Result},
    oci::{Descriptor, Hasher, Manifest, config::CONFIG_LIMIT},
};

/// Reads a manifest, whose size and digest the source checks.
pub(super) fn read_manifest(source: &dyn Source, descriptor: &Descriptor) -> Result<Manifest> {
    let bytes = source.document(descriptor)?;
    Manifest::parse(bytes, descriptor.digest.clone(), descriptor.media_type.as_deref())
}

/// Reads the config that a manifest of this source names, and checks its digest.
pub fn read_config(source: &dyn Source, descriptor: &Descriptor) -> Result<Bytes> {
    let what = format!("image config {}", descriptor.digest);
    let bytes = match source.open(&Layer::named(descriptor))? {
        Data::Stored(blob) => blob.read_all(CONFIG_LIMIT, &what)?,
        Data::Absorbed(_) => return Err(Error::source(format!("{what} is not a JSON document"))),
        Data::Stream(stream) => {
            let mut bytes = Vec::new();
            stream
                .take(CONFIG_LIMIT + 1)
                .read_to_end(&mut bytes)
                .context(ErrorKind::Source, || format!("reading {what}"))?;
            if bytes.len() as u64 > CONFIG_LIMIT {
                return Err(Error::source(format!("{what} is over the limit of {CONFIG_LIMIT} bytes")));
            }
            bytes
        }
    };
    check(&bytes, descriptor).map_err(|error| error.while_doing(format!("reading {}", source.name())))?;
    Ok(bytes.into())
}

/// Compares bytes with what a descriptor promises.
pub(super) fn check(bytes: &[u8], descriptor: &Descriptor) -> Result<()> {
    let mut hasher = Hasher::new(descriptor.digest.algorithm());
    hasher.update(bytes);
    let found = hasher.finish();
    if bytes.len() as u64 == descriptor.size && found == descriptor.digest {
        return Ok(());
    }
    Err(mismatch(&descriptor.digest.to_string(), descriptor, bytes.len() as u64, &found))
}

/// Returns an error for a document that is nested so deep in indexes, or one of so many.
pub(super) fn check_limits(depth: usize, documents: usize) -> Result<()> {
    if depth > DEPTH_LIMIT {
        return Err(Error::source(format!("indexes nest over the limit of {DEPTH_LIMIT} levels")));
    }
    if documents > DOCUMENT_LIMIT {
        return Err(Error::source(format!("the image is over the limit of {DOCUMENT_LIMIT} manifests")));
    }
    Ok(())
}

/// Nobody nests deeper than three; more is an attack.
pub(super) const DEPTH_LIMIT: usize = 16;
/// The largest multi-platform images have a few dozen.
const DOCUMENT_LIMIT: usize = 10_000;
