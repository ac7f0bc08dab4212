//! What passes between the thread that makes the bytes of a blob and the task that sends them: how far they are, and
//! nothing of them.

use super::Progress;
use crate::{error::Error, oci::Digest};

/// How far the bytes of a blob are at hand.
#[derive(Clone, Debug, Default)]
pub struct Spool {
    /// So many bytes can be read.
    pub written: u64,
    /// So many of them, from the first on, have this digest, where somebody hashes them while he makes them. Each
    /// is at least twice as long as the one before, so that they are few.
    pub prefixes: Vec<(u64, Digest)>,
    /// No more will come: the digest and size of all of them, or why there are none.
    pub end: Option<Result<(Digest, u64), Error>>,
}

impl Spool {
    /// A blob that is complete, of known digest and size.
    pub const fn complete(digest: Digest, size: u64) -> Self {
        Self { written: size, prefixes: Vec::new(), end: Some(Ok((digest, size))) }
    }

    /// Takes note of how far a pass has come.
    pub fn advance(&mut self, progress: &Progress) {
        self.written = progress.encoded;
        if self.prefixes.last().is_none_or(|(size, _)| progress.encoded >= 2 * size) {
            self.prefixes.push((progress.encoded, progress.prefix.clone()));
        }
    }

    /// Returns the longest beginning within the first `size` bytes whose digest is known.
    pub fn prefix(&self, size: u64) -> Option<&(u64, Digest)> {
        self.prefixes.iter().rev().find(|(known, _)| *known <= size)
    }

    /// Returns the digest and size once they are known.
    pub const fn sealed(&self) -> Option<&(Digest, u64)> {
        match &self.end {
            Some(Ok(sealed)) => Some(sealed),
            _ => None,
        }
    }
}
