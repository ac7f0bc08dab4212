//! Bytes to bytes: recognising, decoding and encoding layers. Synchronous CPU work, no I/O of its own.
//!
//! * [`compression`]: which encoding some bytes are in, by their first bytes, and its decoder;
//! * [`recipe`]: what is wanted of layers; [`encoder`], [`gzip`], [`mod@zstd`]: the encoders of one block,
//!   and `deflate`, which the fastest gzip is made by;
//! * [`transcode()`]: the one pass that encodes a plain layer in blocks on several threads and computes both
//!   digests; [`prove()`]: the pass that computes both digests of a layer that is encoded already;
//! * [`Spool`]: what either tells of the bytes that it makes, or has hashed, to whoever sends them meanwhile.

pub mod compression;
mod deflate;
pub mod encoder;
pub mod gzip;
pub mod prove;
pub mod recipe;
mod spool;
pub mod transcode;
pub mod zstd;

use std::io;

pub use compression::Compression;
pub use prove::prove;
pub use recipe::{Encoding, Recipe};
pub use spool::Spool;
pub use transcode::transcode;

use crate::{
    error::{Error, ErrorKind},
    oci::{DiffId, Digest},
};

/// Bump when the bytes of any encoding change for the same input: it is part of every cache key, and the
/// golden digests fail until it is done.
pub const ENCODER_VERSION: u32 = 4;

/// A layer that has been read from end to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The digest of its plain bytes.
    pub diff_id: DiffId,
    /// The digest of its encoded bytes.
    pub digest: Digest,
    /// The number of encoded bytes.
    pub size: u64,
    /// The number of plain bytes.
    pub plain_size: u64,
}

/// How far a pass has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// So many plain bytes are done.
    pub plain: u64,
    /// They make so many encoded bytes, which can be read where they are kept.
    pub encoded: u64,
    /// The digest of these encoded bytes.
    pub prefix: Digest,
}

/// The cause beneath the error of a pass that was told to stop, and of nothing else: nobody wants the result.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("nobody waits for the result")]
pub struct Stopped;

impl From<Stopped> for Error {
    fn from(stopped: Stopped) -> Self {
        Self::internal("stopped").because(stopped)
    }
}

/// Puts an I/O error into our words, unless it carries them already: our own readers and writers know more.
fn blame(kind: ErrorKind, doing: &str) -> impl FnOnce(io::Error) -> Error {
    move |error| match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(foreign) => Error::new(kind, doing).because(foreign),
    }
}
