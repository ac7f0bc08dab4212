//! Writing one block (RFC 1951 §3.2.3): with codes of its own, or as it is where no code makes it smaller.

use super::{
    bits::{Bits, Word},
    huffman,
    matches::Sequence,
    symbols::{Counts, DISTANCE_RANGES, DISTANCES, END, LENGTHS, LITERALS, LONGEST, of_length},
};

/// Four literals fit between two flushes: 7 + 4 × 14 ≤ 64 bits.
const LONGEST_LITERAL: usize = 14;
/// So do a length and a distance with their extra bits: 7 + (14 + 5) + (15 + 13).
const LONGEST_DISTANCE: usize = 15;

/// The most bytes that are stored at once (§3.2.4).
pub(super) const MOST_STORED: usize = 0xffff;

/// Writes the block of `plain`, which is what `sequences` say, and `counts` count.
pub(super) fn write<'a>(
    bits: Bits<'a>,
    plain: &[u8],
    sequences: &[Sequence],
    counts: &Counts,
    is_last: bool,
) -> Bits<'a> {
    let mut counts = counts.clone();
    counts.literals[END] = 1;
    let literals = huffman::code(&counts.literals, LONGEST_LITERAL);
    let distances = huffman::code(&counts.distances, LONGEST_DISTANCE);
    let header = Header::new(&literals, &distances);
    let cost = header.cost()
        + cost(&counts.literals, &literals, |symbol| LENGTHS[symbol].extra)
        + cost(&counts.distances, &distances, |symbol| DISTANCE_RANGES[symbol].extra);
    if cost / 8 < plain.len() {
        let bits = header.write(bits, is_last);
        coded(bits, plain, sequences, &literals, &distances)
    } else {
        stored(bits, plain, is_last)
    }
}

/// The number of bits that the symbols take, with the bits behind them.
fn cost(counts: &[u32], code: &[Word], extra: impl Fn(usize) -> u32) -> usize {
    let each = counts.iter().zip(code).enumerate();
    each.map(|(symbol, (count, word))| *count as usize * (word.size + extra(symbol)) as usize).sum()
}

fn stored<'a>(mut bits: Bits<'a>, plain: &[u8], is_last: bool) -> Bits<'a> {
    let mut pieces = plain.chunks(MOST_STORED).peekable();
    loop {
        let piece = pieces.next().unwrap_or_default();
        let ends = is_last && pieces.peek().is_none();
        bits.push(Word { bits: ends.into(), size: 3 });
        bits.align();
        let size = piece.len() as u32;
        bits.push(Word { bits: size | !size << 16, size: 32 });
        bits.flush();
        bits.append(piece);
        if pieces.peek().is_none() {
            return bits;
        }
    }
}

fn coded<'a>(
    mut bits: Bits<'a>,
    mut plain: &[u8],
    sequences: &[Sequence],
    literals: &[Word; LITERALS],
    distances: &[Word; DISTANCES],
) -> Bits<'a> {
    let mut lengths = [Word::default(); LONGEST + 1];
    for (length, word) in lengths.iter_mut().enumerate().skip(3) {
        let symbol = of_length(length);
        let (code, range) = (literals[symbol], LENGTHS[symbol]);
        let extra = (length as u32 - u32::from(range.first)) << code.size;
        *word = Word { bits: code.bits | extra, size: code.size + range.extra };
    }
    for sequence in sequences {
        let (run, rest) = plain.split_at(sequence.literals.into());
        let (quads, few) = run.as_chunks::<4>();
        for quad in quads {
            for literal in quad {
                bits.push(literals[usize::from(*literal)]);
            }
            bits.flush();
        }
        if let Some(three) = plain[4 * quads.len()..].first_chunk::<3>() {
            // A processor guesses wrong how many of them are left over, so the others are pushed with no bits.
            for (index, literal) in three.iter().enumerate() {
                let word = literals[usize::from(*literal)];
                let mask = u32::from(index < few.len()).wrapping_neg();
                bits.push(Word { bits: word.bits & mask, size: word.size & mask });
            }
            bits.flush();
        } else {
            for literal in few {
                bits.push(literals[usize::from(*literal)]);
            }
            bits.flush();
        }
        if sequence.length > 0 {
            bits.push(lengths[usize::from(sequence.length)]);
            let symbol = usize::from(sequence.distance_symbol);
            let (code, range) = (distances[symbol], DISTANCE_RANGES[symbol]);
            let extra = u32::from(sequence.distance - range.first) << code.size;
            bits.push(Word { bits: code.bits | extra, size: code.size + range.extra });
            bits.flush();
        }
        plain = &rest[sequence.length.into()..];
    }
    bits.push(literals[END]);
    bits.flush();
    bits
}

/// How the codes are told (§3.2.7): the lengths of their words, as runs, in a code of its own.
struct Header {
    literals: usize,
    distances: usize,
    runs: Vec<Run>,
    code: [Word; RUNS],
    /// How many lengths of that code are told.
    told: usize,
}

/// A symbol of the third alphabet: a length, or one of the `REPEAT`s with its extra bits.
struct Run {
    symbol: usize,
    times: Word,
}

const RUNS: usize = 19;
const LONGEST_RUN: usize = 7;
/// The length before, 3 to 6 times.
const REPEAT: usize = 16;
/// No length, 3 to 10 times.
const REPEAT_NONE: usize = 17;
/// No length, 11 to 138 times.
const REPEAT_NONE_OFTEN: usize = 18;
/// The order in which the lengths of the third code are told: those least used come last.
const ORDER: [usize; RUNS] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

impl Header {
    fn new(literals: &[Word; LITERALS], distances: &[Word; DISTANCES]) -> Self {
        let used = |code: &[Word], least: usize| {
            code.iter().rposition(|word| word.size > 0).map_or(least, |last| least.max(last + 1))
        };
        let (literal_count, distance_count) = (used(literals, END + 1), used(distances, 1));
        let lengths = literals[..literal_count].iter().chain(&distances[..distance_count]);
        let runs = runs(&lengths.map(|word| word.size).collect::<Vec<_>>());
        let mut counts = [0; RUNS];
        for run in &runs {
            counts[run.symbol] += 1;
        }
        let code = huffman::code(&counts, LONGEST_RUN);
        let told = ORDER.iter().rposition(|symbol| code[*symbol].size > 0).map_or(4, |last| 4.max(last + 1));
        Self { literals: literal_count, distances: distance_count, runs, code, told }
    }

    fn cost(&self) -> usize {
        let runs = self.runs.iter().map(|run| (self.code[run.symbol].size + run.times.size) as usize);
        3 + 5 + 5 + 4 + 3 * self.told + runs.sum::<usize>()
    }

    fn write<'a>(&self, mut bits: Bits<'a>, is_last: bool) -> Bits<'a> {
        bits.push(Word { bits: u32::from(is_last) | 2 << 1, size: 3 });
        bits.push(Word { bits: (self.literals - 257) as u32, size: 5 });
        bits.push(Word { bits: (self.distances - 1) as u32, size: 5 });
        bits.push(Word { bits: (self.told - 4) as u32, size: 4 });
        bits.flush();
        for symbol in &ORDER[..self.told] {
            bits.push(Word { bits: self.code[*symbol].size, size: 3 });
            bits.flush();
        }
        for run in &self.runs {
            bits.push(self.code[run.symbol]);
            bits.push(run.times);
            bits.flush();
        }
        bits
    }
}

fn runs(lengths: &[u32]) -> Vec<Run> {
    let mut runs = Vec::with_capacity(lengths.len());
    for same in lengths.chunk_by(|one, next| one == next) {
        let (length, mut left) = (same[0] as usize, same.len());
        if length == 0 {
            left = repeat(&mut runs, left, REPEAT_NONE_OFTEN, 11, 7);
            left = repeat(&mut runs, left, REPEAT_NONE, 3, 3);
        } else {
            runs.push(Run { symbol: length, times: Word::default() });
            left = repeat(&mut runs, left - 1, REPEAT, 3, 2);
        }
        repeat(&mut runs, left, length, 1, 0);
    }
    runs
}

/// Says `times` by a symbol that stands for `least` or more, with so many bits to say how many more. Returns what
/// is left, less than that.
fn repeat(runs: &mut Vec<Run>, mut times: usize, symbol: usize, least: usize, size: u32) -> usize {
    while times >= least {
        let said = times.min(least + (1 << size) - 1);
        runs.push(Run { symbol, times: Word { bits: (said - least) as u32, size } });
        times -= said;
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(lengths: &[u32]) -> Vec<(usize, u32)> {
        runs(lengths).iter().map(|run| (run.symbol, run.times.bits)).collect()
    }

    #[test]
    fn lengths_are_told_as_runs() {
        assert_eq!(said(&[]), []);
        assert_eq!(said(&[5]), [(5, 0)]);
        assert_eq!(said(&[5, 5, 5]), [(5, 0), (5, 0), (5, 0)]);
        assert_eq!(said(&[5, 5, 5, 5]), [(5, 0), (REPEAT, 0)]);
        assert_eq!(said(&[7; 9]), [(7, 0), (REPEAT, 3), (7, 0), (7, 0)]);
        assert_eq!(said(&[0, 0, 4, 0]), [(0, 0), (0, 0), (4, 0), (0, 0)]);
        assert_eq!(said(&[0; 10]), [(REPEAT_NONE, 7)]);
        assert_eq!(said(&[0; 11]), [(REPEAT_NONE_OFTEN, 0)]);
        assert_eq!(said(&[0; 138 + 12]), [(REPEAT_NONE_OFTEN, 127), (REPEAT_NONE_OFTEN, 1)]);
        assert_eq!(said(&[0; 138 + 2]), [(REPEAT_NONE_OFTEN, 127), (0, 0), (0, 0)]);
    }
}
