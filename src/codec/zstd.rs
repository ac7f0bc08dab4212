//! The zstd encoder: one block of plain bytes becomes one whole zstd frame.
//!
//! A zstd file may have any number of frames (RFC 8878 §3), so blocks encoded apart make a layer when they are
//! put together in order. Each frame says how many bytes it decodes to, has no checksum (the layer's digest is
//! one), and depends on the block, the level and libzstd alone: no worker threads of its own.

use ::zstd::{
    bulk::Compressor,
    zstd_safe::{self, CParameter},
};

use crate::error::{Error, Result};

/// The number of plain bytes in every frame but the last. Half of it costs 2 % in size, twice of it memory on
/// every thread; part of the bytes that `ENCODER_VERSION` stands for.
pub const BLOCK: usize = 4 << 20;

/// What level 3 changes, so that both of its tables fit a core's second cache of 1 MiB: the one for long matches has
/// half its entries. 11 % faster at 0.9 % more bytes, of which the window gives half back.
const LEVEL_3: CParameter = CParameter::HashLog(16);

/// Encodes blocks at one level, one after the other, into a buffer that is used again.
pub struct Encoder {
    compressor: Compressor<'static>,
    frame: Vec<u8>,
}

impl Encoder {
    /// Creates an encoder of `level` 1 to 22.
    pub fn new(level: u8) -> Result<Self> {
        if !(1..=22).contains(&level) {
            return Err(Error::usage(format!("zstd has no level {level}, only 1 to 22")));
        }
        let mut compressor = Compressor::new(level.into()).map_err(failed)?;
        // All of a frame is in reach of its end, at every level; it takes no memory, since the block is at hand.
        compressor.set_parameter(CParameter::WindowLog(BLOCK.ilog2())).map_err(failed)?;
        if level == 3 {
            compressor.set_parameter(LEVEL_3).map_err(failed)?;
        }
        Ok(Self { compressor, frame: Vec::new() })
    }

    /// Returns the frame that decodes to `block`.
    pub fn encode(&mut self, block: &[u8]) -> Result<&[u8]> {
        self.frame.clear();
        self.frame.reserve(zstd_safe::compress_bound(block.len()));
        self.compressor.compress_to_buffer(block, &mut self.frame).map_err(failed)?;
        Ok(&self.frame)
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::internal("encoding a zstd frame").because(error)
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoder")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_becomes_one_frame_that_says_its_size() {
        for level in [1, 3, 19] {
            let mut encoder = Encoder::new(level).unwrap();
            for block in [&b"plain"[..], b"", &vec![7; 70_000]] {
                let frame = encoder.encode(block).unwrap();
                assert_eq!(zstd_safe::find_frame_compressed_size(frame), Ok(frame.len()), "one frame");
                assert_eq!(zstd_safe::get_frame_content_size(frame).unwrap(), Some(block.len() as u64));
                assert_eq!(::zstd::decode_all(frame).unwrap(), block);
            }
        }
    }

    #[test]
    fn frames_put_together_are_a_file() {
        let mut encoder = Encoder::new(3).unwrap();
        let mut file = encoder.encode(b"one, ").unwrap().to_vec();
        file.extend(encoder.encode(b"two").unwrap());
        assert_eq!(::zstd::decode_all(file.as_slice()).unwrap(), b"one, two");
    }

    #[test]
    fn other_levels_are_refused() {
        for level in [0, 23, 255] {
            assert!(Encoder::new(level).unwrap_err().message().contains("only 1 to 22"));
        }
    }
}
