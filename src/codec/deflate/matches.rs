//! Finding what was there before: plain bytes become sequences of literals and a match.
//!
//! One candidate for a position is the last place whose next four bytes have the same hash. Where it matches,
//! another table is asked for a place of eight equal bytes, so that long matches are not lost to near short ones;
//! and failing that, a match that is longer one byte later is taken instead. Of the places within a match five are
//! remembered, at both of its ends, whatever its length: a loop whose end cannot be foreseen would cost more than
//! it finds.
//!
//! Candidates are compared in a ring of the last 64 KiB: a place is its last 16 bits, which is all the tables hold,
//! and any 16 bits are a place in the ring. So a place that has long left the window is an honest candidate for
//! where its bits point to now, and nothing need be cleared while the window moves.

use super::symbols::{self, Counts, LONGEST};

/// The number of plain bytes that are searched at once, and the smallest block.
pub(super) const CHUNK: usize = 16 << 10;
/// The sequences of a chunk: matches are no shorter than four bytes, and literals end it.
pub(super) const MOST: usize = CHUNK / 4 + 1;

const RING: usize = 1 << 16;
/// The ring is filled so far beyond a chunk: a match may go on, and eight bytes are read at each of its places.
const AHEAD: usize = LONGEST + 14;
/// The farthest a match may be away.
const WINDOW: usize = 1 << 15;
// What is ahead of a position has not overwritten its window.
const _: () = assert!(WINDOW + CHUNK + AHEAD <= RING);
const QUADS: u32 = 15;
const OCTETS: u32 = 14;
/// So many bytes from its end a block is not searched: eight are read at the next position, too.
const TAIL: usize = 16;
/// A match of so many bytes is good enough not to look one byte further.
const GOOD: u32 = 6;
/// For every so many literals in a row one more position is passed over: there is nothing to find in ciphertext.
const PATIENCE: usize = 128;

/// Literals, and what is repeated behind them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sequence {
    pub literals: u16,
    /// 4 to 258, or 0 where the chunk ends.
    pub length: u16,
    /// 1 to 32,768.
    pub distance: u16,
    pub distance_symbol: u8,
}

/// A place eight equal bytes or fewer were found at.
#[derive(Clone, Copy)]
struct Candidate {
    /// Bits that differ; zero if none of eight bytes does. The lowest is set if the place is out of the window.
    difference: u64,
    /// Less one.
    distance: u16,
}

impl Candidate {
    fn length(self) -> u32 {
        self.difference.trailing_zeros() / 8
    }
}

/// What is remembered of one block, whatever its size.
#[derive(Debug)]
pub(super) struct Matches {
    /// The first bytes are repeated at the end.
    ring: Box<[u8; RING + 8]>,
    quads: Box<[u16; 1 << QUADS]>,
    octets: Box<[u16; 1 << OCTETS]>,
    /// The number of bytes of the block that the ring has got.
    loaded: usize,
}

impl Matches {
    pub(super) fn new() -> Self {
        Self { ring: zeros(), quads: zeros(), octets: zeros(), loaded: 0 }
    }

    /// Forgets the block before, wholly: what comes out depends on one block alone.
    pub(super) fn forget(&mut self) {
        self.ring.fill(0);
        self.quads.fill(0);
        self.octets.fill(0);
        self.loaded = 0;
    }

    /// Appends the sequences of the bytes from `start` on, until `end` or until the match ends that reaches
    /// beyond, counts their symbols, and returns where that is.
    pub(super) fn find(
        &mut self,
        plain: &[u8],
        start: usize,
        end: usize,
        sequences: &mut Vec<Sequence>,
        counts: &mut Counts,
    ) -> usize {
        self.load(&plain[..plain.len().min(end + AHEAD)]);
        let Self { ring, quads, octets, .. } = self;
        let octet_at = |place: u16| octet(&ring[usize::from(place)..]);
        let compare = |octet: u64, here: u16, place: u16| {
            let distance = here.wrapping_sub(place).wrapping_sub(1);
            Candidate { difference: octet ^ octet_at(place) | u64::from(distance >> 15), distance }
        };
        let stop = end.min(plain.len().saturating_sub(TAIL));
        let mut done = start;
        let mut position = start;
        while position < stop {
            let here = position as u16;
            let octet = octet_at(here);
            let place = std::mem::replace(&mut quads[hash_quad(octet)], here);
            let mut found = compare(octet, here, place);
            if found.difference as u32 != 0 {
                counts.literals[octet as usize & 0xff] += 1;
                position += 1;
                let skipped = ((position - done) / PATIENCE).min(stop - position);
                if skipped > 0 {
                    count(counts, &plain[position..position + skipped]);
                    position += skipped;
                }
                continue;
            }
            if found.difference != 0 {
                let place = std::mem::replace(&mut octets[hash_octet(octet)], here);
                let long = compare(octet, here, place);
                if long.difference == 0 {
                    found = long;
                } else if found.length() < GOOD {
                    let next = here.wrapping_add(1);
                    let after = octet_at(next);
                    let place = std::mem::replace(&mut quads[hash_quad(after)], next);
                    let later = compare(after, next, place);
                    if later.length() > found.length() {
                        found = later;
                        counts.literals[octet as usize & 0xff] += 1;
                        position += 1;
                    }
                }
            }
            let distance = found.distance + 1;
            let length = match found.difference {
                0 => {
                    let most = &plain[position..plain.len().min(position + LONGEST)];
                    8 + common(&plain[position - usize::from(distance) + 8..], &most[8..])
                }
                _ => found.length() as usize,
            };
            let distance_symbol = symbols::of_distance(distance);
            counts.literals[symbols::of_length(length)] += 1;
            counts.distances[distance_symbol] += 1;
            sequences.push(Sequence {
                literals: (position - done) as u16,
                length: length as u16,
                distance,
                distance_symbol: distance_symbol as u8,
            });
            done = position + length;
            for inside in [position + 1, position + 2, position + 3, done - 2, done - 1] {
                quads[hash_quad(octet_at(inside as u16))] = inside as u16;
            }
            position = done;
        }
        let end = end.max(done);
        count(counts, &plain[position..end]);
        sequences.push(Sequence {
            literals: (end - done) as u16,
            length: 0,
            distance: 0,
            distance_symbol: 0,
        });
        end
    }

    /// Brings what is new of `plain` into the ring.
    fn load(&mut self, plain: &[u8]) {
        let at = self.loaded % RING;
        let new = &plain[self.loaded..];
        let (first, rest) = new.split_at(new.len().min(RING - at));
        self.ring[at..at + first.len()].copy_from_slice(first);
        self.ring[..rest.len()].copy_from_slice(rest);
        self.ring.copy_within(..8, RING);
        self.loaded = plain.len();
    }
}

#[expect(clippy::unnecessary_box_returns, reason = "these arrays are too large for the stack")]
fn zeros<T: Clone + Default, const N: usize>() -> Box<[T; N]> {
    let boxed = vec![T::default(); N].into_boxed_slice().try_into();
    boxed.unwrap_or_else(|_| unreachable!("it has this length"))
}

fn count(counts: &mut Counts, literals: &[u8]) {
    for literal in literals {
        counts.literals[usize::from(*literal)] += 1;
    }
}

#[inline]
fn octet(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().expect("eight bytes"))
}

#[inline]
fn hash_quad(octet: u64) -> usize {
    ((octet as u32).wrapping_mul(0x9e37_79b1) >> (u32::BITS - QUADS)) as usize
}

#[inline]
fn hash_octet(octet: u64) -> usize {
    (octet.wrapping_mul(0x9e37_79b1_85eb_ca87) >> (u64::BITS - OCTETS)) as usize
}

/// Returns how many bytes at the start of both are equal, up to the length of `here`, the shorter one.
#[inline]
fn common(before: &[u8], here: &[u8]) -> usize {
    let (octets, rest) = here.as_chunks::<8>();
    for (index, (old, new)) in before.as_chunks::<8>().0.iter().zip(octets).enumerate() {
        let difference = u64::from_le_bytes(*old) ^ u64::from_le_bytes(*new);
        if difference != 0 {
            return 8 * index + difference.trailing_zeros() as usize / 8;
        }
    }
    let whole = here.len() - rest.len();
    whole + before[whole..].iter().zip(rest).take_while(|(old, new)| old == new).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequences(plain: &[u8]) -> (Vec<Sequence>, Counts) {
        let (mut found, mut counts, mut end) = (Vec::new(), Counts::NONE, 0);
        let mut matches = Matches::new();
        for chunk in (0..plain.len()).step_by(CHUNK) {
            let before = found.len();
            end = matches.find(plain, end, plain.len().min(chunk + CHUNK), &mut found, &mut counts);
            assert!(found.len() - before <= MOST);
        }
        assert_eq!(end, plain.len());
        (found, counts)
    }

    fn rebuilt(sequences: &[Sequence], plain: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for sequence in sequences {
            bytes.extend_from_slice(&plain[bytes.len()..][..sequence.literals.into()]);
            for _ in 0..sequence.length {
                bytes.push(bytes[bytes.len() - usize::from(sequence.distance)]);
            }
        }
        bytes
    }

    #[test]
    fn sequences_say_all_and_counts_count_them() {
        let words = |size: u32, of: u32| (0..size).flat_map(move |n| (n.wrapping_mul(n) % of).to_be_bytes());
        for plain in [vec![], vec![7; 100_000], words(30_000, 997).collect(), words(90_000, 65_521).collect()]
        {
            let (sequences, counts) = sequences(&plain);
            assert!(rebuilt(&sequences, &plain) == plain);
            let literals: u32 = sequences.iter().map(|sequence| u32::from(sequence.literals)).sum();
            assert_eq!(counts.literals[..symbols::END].iter().sum::<u32>(), literals);
            let matches = sequences.iter().filter(|sequence| sequence.length > 0);
            assert_eq!(counts.distances.iter().sum::<u32>() as usize, matches.clone().count());
            for sequence in matches {
                assert!((4..=258).contains(&sequence.length) && (1..=32_768).contains(&sequence.distance));
                assert_eq!(usize::from(sequence.distance_symbol), symbols::of_distance(sequence.distance));
            }
        }
    }

    #[test]
    fn what_left_the_window_is_not_found() {
        for (distance, found) in [(32_768, true), (32_769, false), (65_536, false), (65_537, false)] {
            let mut state = 1_u64;
            let noise = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            };
            let mut plain: Vec<u8> = std::iter::repeat_with(noise).take(distance + 500).collect();
            plain.copy_within(..500, distance);
            let (sequences, _) = sequences(&plain);
            let long = sequences.iter().filter(|sequence| sequence.length > 30);
            assert_eq!(long.map(|sequence| usize::from(sequence.distance)).max(), found.then_some(distance));
        }
    }
}
