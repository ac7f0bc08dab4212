//! The gzip encoder: one block of plain bytes becomes one whole gzip member.
//!
//! A gzip file may have any number of members (RFC 1952 §2.2), so blocks encoded apart, in any order and on
//! any thread, make a layer when they are put together in theirs. A member's bytes depend on the block, the
//! level and `ENCODER_VERSION` alone: its header holds no time, no name, and "unknown" for the operating system.
//!
//! Level 1, which is what a push takes unasked, is made by `deflate`; the others are libdeflate's.

use libdeflater::{CompressionLvl, Compressor};

use super::deflate::Deflate;
use crate::error::{Error, Result};

/// The number of plain bytes in every member but the last. Smaller ones compress worse, larger ones cost
/// memory on every thread; part of the bytes that `ENCODER_VERSION` stands for.
pub const BLOCK: usize = 1 << 20;

/// The header of a member (RFC 1952 §2.3): deflate, no flags, no time, the fastest, an unknown system.
const FASTEST: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];

/// Encodes blocks at one level, one after the other, into a buffer that is used again.
pub struct Encoder {
    level: Level,
    member: Vec<u8>,
}

enum Level {
    Fastest(Deflate),
    Other(Compressor),
}

impl Encoder {
    /// Creates an encoder of `level` 1 to 12.
    pub fn new(level: u8) -> Result<Self> {
        let level = match CompressionLvl::new(level.into()) {
            Ok(_) if level == 1 => Level::Fastest(Deflate::new()),
            Ok(known) if level > 1 => Level::Other(Compressor::new(known)),
            _ => return Err(Error::usage(format!("gzip has no level {level}, only 1 to 12"))),
        };
        Ok(Self { level, member: Vec::new() })
    }

    /// Returns the member that decodes to `block`.
    pub fn encode(&mut self, block: &[u8]) -> Result<&[u8]> {
        let size = match &mut self.level {
            Level::Fastest(deflate) => {
                let room = room(&mut self.member, FASTEST.len() + Deflate::bound(block.len()) + 8);
                let (header, rest) = room.split_at_mut(FASTEST.len());
                header.copy_from_slice(&FASTEST);
                let size = deflate.encode(block, rest);
                rest[size..][..4].copy_from_slice(&libdeflater::crc32(block).to_le_bytes());
                rest[size + 4..][..4].copy_from_slice(&(block.len() as u32).to_le_bytes());
                FASTEST.len() + size + 8
            }
            Level::Other(compressor) => {
                let room = room(&mut self.member, compressor.gzip_compress_bound(block.len()));
                compressor
                    .gzip_compress(block, room)
                    .map_err(|error| Error::internal("encoding a gzip member").because(error))?
            }
        };
        Ok(&self.member[..size])
    }
}

fn room(buffer: &mut Vec<u8>, size: usize) -> &mut [u8] {
    if buffer.len() < size {
        buffer.resize(size, 0);
    }
    buffer
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoder")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::{GzDecoder, MultiGzDecoder};

    use super::*;

    #[test]
    fn a_block_becomes_one_member_that_says_nothing_of_where_it_was_made() {
        for level in 1..=12 {
            let mut encoder = Encoder::new(level).unwrap();
            for block in [&b"plain"[..], b"", &vec![7; 70_000]] {
                let member = encoder.encode(block).unwrap();
                let (magic, rest) = member.split_at(4);
                assert_eq!(magic, [0x1f, 0x8b, 8, 0], "no flags: no name, no comment");
                assert_eq!(rest[..4], [0; 4], "no time");
                assert_eq!(rest[5], 255, "no operating system");
                let mut decoder = GzDecoder::new(member);
                let mut plain = Vec::new();
                decoder.read_to_end(&mut plain).unwrap();
                assert_eq!(plain, block);
                assert!(decoder.into_inner().is_empty(), "one member");
            }
        }
    }

    #[test]
    fn members_put_together_are_a_file() {
        let mut encoder = Encoder::new(6).unwrap();
        let mut file = encoder.encode(b"one, ").unwrap().to_vec();
        file.extend(encoder.encode(b"two").unwrap());
        let mut plain = String::new();
        MultiGzDecoder::new(file.as_slice()).read_to_string(&mut plain).unwrap();
        assert_eq!(plain, "one, two");
    }

    #[test]
    fn other_levels_are_refused() {
        for level in [0, 13, 255] {
            assert!(Encoder::new(level).unwrap_err().message().contains("only 1 to 12"));
        }
    }
}
