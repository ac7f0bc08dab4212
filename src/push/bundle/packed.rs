//! A blob of a bundle, and where its bytes are: layers stay where they lie until the archive is written.

use std::{io::Read, sync::Arc};

use bytes::Bytes;

use crate::{
    error::{Error, ErrorKind, Result},
    oci::Digest,
    push::{Cargo, delivery::send::DamagedEntry, press::transcode::Job, runtime::blocking},
    source::{Data, Layer},
};

/// A blob of a bundle, and where its bytes are.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    pub(super) size: u64,
    pub(super) bytes: Whereabouts,
}

/// Where the bytes of a blob are.
#[derive(Clone, Debug)]
pub(super) enum Whereabouts {
    /// In the cache, or taken over while the source passed.
    Encoded(Arc<Cargo>, Layer),
    Memory(Bytes),
    /// In the source.
    Source(Arc<Cargo>, Layer),
}

impl Packed {
    /// Opens it, and says what it is called.
    pub(super) fn open(&self, digest: &Digest) -> Result<(Box<dyn Read + '_>, String)> {
        match &self.bytes {
            Whereabouts::Memory(bytes) => Ok((Box::new(&bytes[..]), digest.to_string())),
            Whereabouts::Encoded(cargo, layer) => {
                let Cargo { absorbed, press, options, .. } = &**cargo;
                let found = match &layer.diff_id {
                    Some(diff_id) => match press.cache.lookup(diff_id, options.recipe.encoding())? {
                        None => absorbed.layer(&diff_id.0).ok().cloned(),
                        found => found,
                    },
                    None => None,
                };
                let (_, bytes) = found.ok_or_else(|| {
                    Error::local(format!("layer `{}` is no longer in the cache", layer.name))
                        .because(DamagedEntry)
                })?;
                Ok((Box::new(bytes.reader()), bytes.path().display().to_string()))
            }
            Whereabouts::Source(cargo, layer) => {
                let bytes: Box<dyn Read> = match cargo.source.open(layer)? {
                    Data::Absorbed(plain) => Box::new(cargo.reproduce(&plain)?.reader()),
                    Data::Stored(bytes) => Box::new(bytes.reader()),
                    Data::Stream(stream) => stream,
                };
                Ok((bytes, layer.name.clone()))
            }
        }
    }
}

impl Whereabouts {
    /// Says where a blob lies that could not be written.
    pub(super) fn blame(&self, error: Error) -> Error {
        match self {
            _ if error.kind() != ErrorKind::Source => error,
            Self::Encoded(cargo, layer) => {
                let damaged = Error::local(format!("the cached layer `{}` was damaged", layer.name));
                let Cargo { absorbed, press, options, .. } = &**cargo;
                match layer.diff_id.as_ref().filter(|it| absorbed.layer(&it.0).is_ok()) {
                    // It has passed, and cannot be encoded anew.
                    Some(diff_id) => match press.cache.forget(diff_id, options.recipe.encoding()) {
                        Ok(()) => damaged.because(error).with_hint("bundle it once more"),
                        Err(error) => error,
                    },
                    None => damaged.because(DamagedEntry),
                }
            }
            Self::Memory(_) => error,
            Self::Source(cargo, _) => error.while_doing(format!("reading {}", cargo.source.name())),
        }
    }

    /// Encodes it again if it lies encoded in the cache and is no longer as it was. What was taken over while the source
    /// passed is not to be had again.
    pub(super) async fn mend(&self) -> Result<()> {
        let Self::Encoded(cargo, layer) = self else { return Ok(()) };
        if layer.diff_id.as_ref().is_none_or(|diff_id| cargo.absorbed.layer(&diff_id.0).is_ok()) {
            return Ok(());
        }
        let (job, mut feed) = Job::encode(layer.clone(), cargo.options.recipe.encoding());
        let working = cargo.start(vec![job])?;
        feed.sealed().await?;
        blocking(move || working.join()).await
    }
}
