//! The two alphabets of DEFLATE (RFC 1951 §3.2.5), and how often a block uses their symbols.

/// The symbols of literals, the end of a block, and lengths.
pub(super) const LITERALS: usize = 286;
/// The symbols of distances.
pub(super) const DISTANCES: usize = 30;
/// The symbol behind the last sequence of a block.
pub(super) const END: usize = 256;
/// The longest match there is a symbol for.
pub(super) const LONGEST: usize = 258;

const FIRST_LENGTH: usize = 257;
/// Of the longest match, which has a symbol to itself.
const LAST_LENGTH: usize = LITERALS - 1;

/// The first length or distance that a symbol stands for, and the number of bits that say which one of its range.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Range {
    pub first: u16,
    pub extra: u32,
}

/// The ranges of all symbols: those that stand for no length have no extra bits.
pub(super) const LENGTHS: [Range; LITERALS] = {
    let mut ranges = [Range { first: 0, extra: 0 }; LITERALS];
    let mut first = 3;
    let mut symbol = FIRST_LENGTH;
    while symbol < LAST_LENGTH {
        let step = symbol - FIRST_LENGTH;
        let extra = if step < 8 { 0 } else { step as u32 / 4 - 1 };
        ranges[symbol] = Range { first, extra };
        first += 1 << extra;
        symbol += 1;
    }
    ranges[LAST_LENGTH].first = LONGEST as u16;
    ranges
};

/// The ranges of all symbols of distances.
pub(super) const DISTANCE_RANGES: [Range; DISTANCES] = {
    let mut ranges = [Range { first: 0, extra: 0 }; DISTANCES];
    let mut first = 1;
    let mut symbol = 0;
    while symbol < DISTANCES {
        let extra = if symbol < 4 { 0 } else { symbol as u32 / 2 - 1 };
        ranges[symbol] = Range { first, extra };
        first += 1 << extra;
        symbol += 1;
    }
    ranges
};

/// The step behind `FIRST_LENGTH` of every length.
const LENGTH_STEPS: [u8; LONGEST + 1] = {
    let mut steps = [0; LONGEST + 1];
    let mut symbol = FIRST_LENGTH;
    while symbol < LITERALS {
        let range = LENGTHS[symbol];
        let mut length = range.first as usize;
        while length < range.first as usize + (1 << range.extra) && length <= LONGEST {
            steps[length] = (symbol - FIRST_LENGTH) as u8;
            length += 1;
        }
        symbol += 1;
    }
    steps
};

/// Returns the symbol of a length of 3 to 258.
#[inline]
pub(super) fn of_length(length: usize) -> usize {
    FIRST_LENGTH + usize::from(LENGTH_STEPS[length])
}

/// Returns the symbol of a distance of 1 to 32,768.
#[inline]
pub(super) fn of_distance(distance: u16) -> usize {
    let from_zero = u32::from(distance) - 1;
    match from_zero.checked_ilog2() {
        None | Some(0) => from_zero as usize,
        Some(high) => (2 * high + (from_zero >> (high - 1) & 1)) as usize,
    }
}

/// How often each symbol occurs.
#[derive(Clone, Debug)]
pub(super) struct Counts {
    pub literals: [u32; LITERALS],
    pub distances: [u32; DISTANCES],
}

impl Counts {
    pub(super) const NONE: Self = Self { literals: [0; LITERALS], distances: [0; DISTANCES] };

    pub(super) fn add(&mut self, other: &Self) {
        self.literals.iter_mut().zip(&other.literals).for_each(|(count, more)| *count += more);
        self.distances.iter_mut().zip(&other.distances).for_each(|(count, more)| *count += more);
    }

    /// Estimates how many 256ths of a bit the symbols take with the best codes for them, which are not part of it,
    /// nor are extra bits.
    pub(super) fn cost(&self) -> u64 {
        entropy(&self.literals) + entropy(&self.distances)
    }
}

/// n log n less the sum of what each of the counts has of that.
fn entropy(counts: &[u32]) -> u64 {
    let all = counts.iter().sum();
    let parts: u64 = counts.iter().map(|&count| times_log2(count)).sum();
    times_log2(all).saturating_sub(parts)
}

#[inline]
fn times_log2(count: u32) -> u64 {
    u64::from(count) * u64::from(log2(count))
}

/// The logarithm in 256ths, a straight line between powers of two: the exponent and the head of the mantissa of
/// a float, which compilers do for many numbers at once. Zero has none, and is multiplied by zero.
#[inline]
#[expect(clippy::cast_precision_loss, reason = "what is lost is below a 256th")]
fn log2(count: u32) -> u32 {
    (count as f32).to_bits().wrapping_sub(1.0_f32.to_bits()) >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tables of RFC 1951 §3.2.5, at both ends and where their steps change.
    #[test]
    fn the_alphabets_are_the_standards() {
        for (length, symbol, extra) in
            [(3, 257, 0), (10, 264, 0), (11, 265, 1), (12, 265, 1), (18, 268, 1), (19, 269, 2), (114, 279, 4)]
        {
            assert_eq!((of_length(length), LENGTHS[symbol].extra), (symbol, extra), "{length}");
        }
        for (length, symbol, extra) in
            [(115, 280, 4), (130, 280, 4), (131, 281, 5), (257, 284, 5), (258, 285, 0)]
        {
            assert_eq!((of_length(length), LENGTHS[symbol].extra), (symbol, extra), "{length}");
        }
        for (distance, symbol, extra) in [(1, 0, 0), (4, 3, 0), (5, 4, 1), (6, 4, 1), (7, 5, 1), (9, 6, 2)] {
            assert_eq!((of_distance(distance), DISTANCE_RANGES[symbol].extra), (symbol, extra), "{distance}");
        }
        for (distance, symbol, extra) in [(256, 15, 6), (257, 16, 7), (24_576, 28, 13), (24_577, 29, 13)] {
            assert_eq!((of_distance(distance), DISTANCE_RANGES[symbol].extra), (symbol, extra), "{distance}");
        }
    }

    #[test]
    fn every_length_and_distance_is_in_the_range_of_its_symbol() {
        let holds = |range: Range, value: u16| (range.first..).take(1 << range.extra).any(|one| one == value);
        assert!((3..=LONGEST).all(|length| holds(LENGTHS[of_length(length)], length as u16)));
        assert!((1..=32_768).all(|distance| holds(DISTANCE_RANGES[of_distance(distance)], distance)));
    }

    #[test]
    fn costs_are_about_those_of_the_best_codes() {
        let mut counts = Counts::NONE;
        assert_eq!(counts.cost(), 0);
        counts.literals[7] = 1000;
        assert_eq!(counts.cost(), 0, "one symbol needs no telling");
        counts.literals[8..15].fill(1000);
        assert_eq!(counts.cost() >> 8, 8 * 1000 * 3, "eight alike take three bits each");
        counts.distances[0] = 1;
        counts.distances[1] = 255;
        let distances = (counts.cost() >> 8) - 8 * 1000 * 3;
        assert!((8..12).contains(&distances), "{distances}");
    }

    #[test]
    fn a_block_may_be_as_large_as_its_counts() {
        let mut counts = Counts::NONE;
        for each in [1 << 12, 1 << 23] {
            counts.literals[..256].fill(each);
            assert_eq!(counts.cost() >> 8, 8 * 256 * u64::from(each), "a byte is a byte");
        }
    }

    #[test]
    fn counts_are_put_together() {
        let mut one = Counts::NONE;
        one.literals[5] = 3;
        one.distances[29] = 1;
        let mut both = one.clone();
        both.add(&one);
        assert_eq!((both.literals[5], both.literals[6], both.distances[29]), (6, 0, 2));
    }
}
