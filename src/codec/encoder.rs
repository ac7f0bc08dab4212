//! The encoder of one block, in whichever encoding: what a worker of the transcoding pass holds.

use super::{Encoding, gzip, zstd};
use crate::error::Result;

/// Encodes blocks one after the other. Memory is about one block of output, and a level's tables.
#[derive(Debug)]
pub enum Encoder {
    /// A gzip member a block.
    Gzip(gzip::Encoder),
    /// The block itself.
    None,
    /// A zstd frame a block.
    Zstd(zstd::Encoder),
}

impl Encoder {
    /// Creates an encoder; a level that does not exist is refused.
    pub fn new(encoding: Encoding) -> Result<Self> {
        Ok(match encoding {
            Encoding::Gzip { level } => Self::Gzip(gzip::Encoder::new(level)?),
            Encoding::None => Self::None,
            Encoding::Zstd { level } => Self::Zstd(zstd::Encoder::new(level)?),
        })
    }

    /// Returns the number of plain bytes in every block but the last.
    pub const fn block_size(&self) -> usize {
        match self {
            Self::Gzip(_) | Self::None => gzip::BLOCK,
            Self::Zstd(_) => zstd::BLOCK,
        }
    }

    /// Returns the bytes that decode to `block`.
    pub fn encode<'a>(&'a mut self, block: &'a [u8]) -> Result<&'a [u8]> {
        match self {
            Self::Gzip(encoder) => encoder.encode(block),
            Self::None => Ok(block),
            Self::Zstd(encoder) => encoder.encode(block),
        }
    }
}
