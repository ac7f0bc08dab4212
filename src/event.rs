//! What goes on, told to the outside: one enum, one trait.
//!
//! The library never prints. Whoever runs a push hands in a [`Reporter`] and turns events into bars, lines
//! or JSON. Progress is always an absolute, acknowledged offset: a restart needs no negative numbers.

use std::{fmt, time::Duration};

/// Something that happened during a push. `blob` is what the user knows it by: a digest, or before it is
/// known the layer's name in its source.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The registry acknowledged bytes. The offset may fall when a session is lost.
    Acknowledged {
        /// Of this blob.
        blob: String,
        /// All bytes before this one.
        offset: u64,
        /// Of so many, if that is known yet.
        size: Option<u64>,
    },
    /// A blob is confirmed by the registry.
    Confirmed {
        /// Its digest.
        blob: String,
        /// How it came to be there.
        how: How,
        /// Its size.
        size: u64,
    },
    /// A layer is being encoded.
    Encoded {
        /// The layer.
        blob: String,
        /// So many plain bytes are done.
        plain: u64,
    },
    /// A manifest was accepted.
    Manifest {
        /// Under this tag or digest.
        reference: String,
        /// Its digest.
        digest: String,
    },
    /// What is about to be done.
    Planned {
        /// Blobs that are at the registry already.
        present: usize,
        /// Layers of another image at the registry, which serve this one too.
        reuse: usize,
        /// Layers to be fetched from the shared cache, to be checked and sent.
        fetch: usize,
        /// Blobs to be asked for by mount.
        mount: usize,
        /// Blobs to be sent as they are.
        upload: usize,
        /// Layers to be encoded and sent.
        transcode: usize,
        /// Bytes to be sent as they are.
        bytes: u64,
    },
    /// Bytes were handed to the network, whether or not the registry will acknowledge them.
    Sent {
        /// So many in this push so far, over all blobs, repeats included.
        bytes: u64,
    },
    /// A request will be tried again after a pause.
    Waiting {
        /// For this blob.
        blob: String,
        /// So long.
        pause: Duration,
        /// Because of this.
        why: String,
    },
    /// Something the user should know, which stops nothing.
    Warning {
        /// In one line.
        message: String,
    },
}

/// How a blob came to be at the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum How {
    /// Mounted from another repository.
    Mounted,
    /// It was there already.
    Present,
    /// It was there already, as a layer of another image.
    Reused,
    /// Sent.
    Uploaded,
}

/// Hears what goes on. Called from any thread, often: must be quick.
pub trait Reporter: Send + Sync {
    /// Takes note of one event.
    fn event(&self, event: Event);
}

/// Hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Reporter for Silent {
    fn event(&self, _: Event) {}
}

impl fmt::Debug for dyn Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reporter")
    }
}
