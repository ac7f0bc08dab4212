//! DEFLATE (RFC 1951) at the speed of a push: the encoder of gzip's level 1.
//!
//! Encoding is most of what a cold push does, and libdeflate's level 1 takes a fifth more time for the same size.
//! Speed is bought by searching less ([`matches`]), and paid for by cutting blocks where their codes change: what
//! has been found in every 16 KiB is counted, and joins the block before if one code for both costs less than
//! another header. Codes ([`huffman`]) and their words ([`block`], [`bits`], [`symbols`]) are the RFC's.
//!
//! Nothing is carried over from one call to the next, and there is no arithmetic whose result depends on the
//! machine: equal bytes give equal bytes.

mod bits;
mod block;
mod huffman;
mod matches;
mod symbols;

use bits::Bits;
use matches::{CHUNK, MOST, Matches, Sequence};
use symbols::Counts;

/// About what another header costs, in bits.
const HEADER: u64 = 1000;
/// A block with so many sequences takes no more of them.
const FULL: usize = 32 << 10;

/// Encodes one input after the other, with the same memory: about half a megabyte.
#[derive(Debug)]
pub(super) struct Deflate {
    matches: Matches,
    sequences: Vec<Sequence>,
}

/// Chunks that will be one block.
struct Draft {
    start: usize,
    /// The number of its sequences.
    sequences: usize,
    counts: Counts,
    cost: u64,
}

impl Deflate {
    pub(super) fn new() -> Self {
        Self { matches: Matches::new(), sequences: Vec::with_capacity(FULL + 2 * MOST) }
    }

    /// Returns the room that the encoded form of `size` bytes needs: no code makes it longer than it was, and each
    /// block, each piece of a stored one and the last flush take a few bytes more.
    pub(super) const fn bound(size: usize) -> usize {
        size + 16 * (size / CHUNK + 1)
    }

    /// Writes `plain` encoded into `out`, which has the room for it, and returns its size.
    pub(super) fn encode(&mut self, plain: &[u8], out: &mut [u8]) -> usize {
        self.matches.forget();
        self.sequences.clear();
        let mut bits = Bits::new(out);
        let mut block = Draft { start: 0, sequences: 0, counts: Counts::NONE, cost: 0 };
        let mut found = 0;
        for end in (0..plain.len()).step_by(CHUNK).map(|chunk| plain.len().min(chunk + CHUNK)) {
            let start = found;
            let mut counts = Counts::NONE;
            found = self.matches.find(plain, start, end, &mut self.sequences, &mut counts);
            let cost = counts.cost();
            let mut both = block.counts.clone();
            both.add(&counts);
            let joined = both.cost();
            if joined <= block.cost + cost + (HEADER << 8) && self.sequences.len() <= FULL {
                block = Draft { sequences: self.sequences.len(), counts: both, cost: joined, ..block };
            } else {
                let sequences = self.sequences.drain(..block.sequences);
                bits = block::write(
                    bits,
                    &plain[block.start..start],
                    sequences.as_slice(),
                    &block.counts,
                    false,
                );
                drop(sequences);
                block = Draft { start, sequences: self.sequences.len(), counts, cost };
            }
        }
        block::write(bits, &plain[block.start..], &self.sequences, &block.counts, true).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::DeflateDecoder;
    use proptest::prelude::*;

    use super::*;

    fn encoded(deflate: &mut Deflate, plain: &[u8]) -> Vec<u8> {
        let mut out = vec![0; Deflate::bound(plain.len())];
        let size = deflate.encode(plain, &mut out);
        out.truncate(size);
        out
    }

    /// By two decoders that have nothing in common.
    fn assert_decodes(encoded: &[u8], plain: &[u8]) {
        let mut room = vec![0; plain.len() + 1];
        let size = libdeflater::Decompressor::new().deflate_decompress(encoded, &mut room).unwrap();
        assert!(room[..size] == *plain, "libdeflate decodes something else");
        let mut decoder = DeflateDecoder::new(encoded);
        let mut decoded = Vec::new();
        decoder.read_to_end(&mut decoded).unwrap();
        assert!(decoded == plain, "zlib-rs decodes something else");
        assert_eq!(decoder.total_in() as usize, encoded.len(), "nothing is left over");
    }

    fn noise(seed: u64, size: usize) -> Vec<u8> {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        std::iter::repeat_with(next).take(size).collect()
    }

    #[test]
    fn whatever_size_it_has() {
        let mut deflate = Deflate::new();
        let noise = noise(1, 3 * CHUNK + 1);
        let text: Vec<u8> =
            (0..9_000).flat_map(|n| format!("line {} of {n}\n", n % 97).into_bytes()).collect();
        for plain in [&noise, &text, &vec![0; 70_000]] {
            let sizes = (0..300).chain([CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 1]);
            for size in sizes.filter(|size| *size <= plain.len()) {
                assert_decodes(&encoded(&mut deflate, &plain[..size]), &plain[..size]);
            }
        }
    }

    #[test]
    fn what_cannot_be_made_smaller_is_stored() {
        let plain = noise(2, 1 << 20);
        let stored = encoded(&mut Deflate::new(), &plain);
        assert!(stored.len() - plain.len() < 1 << 10, "{}", stored.len());
        assert_decodes(&stored, &plain);
    }

    /// All bytes equally often, in ever another order: no match, and not one bit less for a block of its own.
    #[test]
    fn a_block_may_have_as_many_literals_as_bytes() {
        let mut order: Vec<u8> = (0..=255).collect();
        let plain: Vec<u8> = noise(5, 1 << 20)
            .chunks_exact(256)
            .flat_map(|noise| {
                noise.iter().enumerate().for_each(|(at, with)| order.swap(at, usize::from(*with)));
                order.clone()
            })
            .collect();
        assert_decodes(&encoded(&mut Deflate::new(), &plain), &plain);
    }

    #[test]
    fn blocks_are_cut_where_the_bytes_change() {
        let words =
            |from: u8, size: usize| noise(3, size).iter().map(|byte| from + byte % 16).collect::<Vec<_>>();
        let (low, high) = (words(0, 1 << 17), words(128, 1 << 17));
        let mut deflate = Deflate::new();
        let apart = encoded(&mut deflate, &low).len() + encoded(&mut deflate, &high).len();
        let together = encoded(&mut deflate, &[low, high].concat()).len();
        assert!(together <= apart + 1000, "16 symbols a block take 4 bits each, not 5: {together}, {apart}");
    }

    #[test]
    fn codes_as_deep_as_they_get_are_shortened() {
        // Symbol n occurs about 1.6 times as often as the one before, in no order that repeats.
        let mut plain = Vec::new();
        let (mut count, mut next) = (1_usize, 1_usize);
        for symbol in 0..23 {
            plain.extend(std::iter::repeat_n(symbol, count));
            (count, next) = (next, count + next);
        }
        let order = noise(4, 4 * plain.len());
        for (index, four) in order.as_chunks::<4>().0.iter().enumerate().rev() {
            plain.swap(index, u32::from_le_bytes(*four) as usize % (index + 1));
        }
        assert_decodes(&encoded(&mut Deflate::new(), &plain), &plain);
    }

    /// Pieces that are new, repeated from near or far, or one byte again and again.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            (any::<u64>(), 0..2_000_usize, 1..=255_u8).prop_map(|(seed, size, of)| (0, size, seed, of)),
            (1..70_000_u64, 0..3_000_usize).prop_map(|(back, size)| (1, size, back, 0)),
            (any::<u8>(), 0..40_000_usize).prop_map(|(byte, size)| (2, size, 0, byte)),
        ];
        prop::collection::vec(piece, 0..60).prop_map(|pieces| {
            let mut plain: Vec<u8> = Vec::new();
            for (kind, size, number, byte) in pieces {
                match kind {
                    0 => plain.extend(noise(number, size).iter().map(|one| one % byte)),
                    1 => {
                        let back = number as usize % (plain.len() + 1);
                        (0..size * usize::from(back > 0)).for_each(|_| plain.push(plain[plain.len() - back]));
                    }
                    _ => plain.extend(std::iter::repeat_n(byte, size)),
                }
            }
            plain
        })
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded_and_depends_on_nothing_else(before in bytes(), plain in bytes()) {
            let mut used = Deflate::new();
            encoded(&mut used, &before);
            let again = encoded(&mut used, &plain);
            assert_decodes(&again, &plain);
            prop_assert!(again == encoded(&mut Deflate::new(), &plain), "something of the input before is left");
        }
    }
}
