//! Prefix codes: as short as the counts of their symbols allow, none longer than wanted (RFC 1951 §3.2.2).

use super::bits::Word;

/// The code words of `N` symbols; those that do not occur have none, of size 0.
pub(super) fn code<const N: usize>(counts: &[u32; N], longest: usize) -> [Word; N] {
    words(lengths(counts, longest))
}

/// Huffman's lengths. Some decoders want two symbols in any code: a symbol alone gets a companion.
fn lengths<const N: usize>(counts: &[u32; N], longest: usize) -> [u8; N] {
    let mut lengths = [0; N];
    // Sorting numbers is quicker than sorting symbols by their counts. The symbol below makes the order complete.
    let mut rarest_first = [0_u64; N];
    let mut leaves = 0;
    for (symbol, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        rarest_first[leaves] = u64::from(count) << 32 | symbol as u64;
        leaves += 1;
    }
    let rarest_first = &mut rarest_first[..leaves];
    rarest_first.sort_unstable();
    let symbol = |leaf: usize| (rarest_first[leaf] & 0xffff) as usize;
    if leaves < 2 {
        let alone = if leaves == 1 { symbol(0) } else { 0 };
        lengths[alone] = 1;
        lengths[usize::from(alone == 0)] = 1;
        return lengths;
    }
    let mut of_length = depths::<N>(rarest_first.iter().map(|leaf| (leaf >> 32) as u32), leaves);
    shorten(&mut of_length, longest);
    let mut leaf = 0;
    for length in (1..=longest).rev() {
        for _ in 0..of_length[length] {
            lengths[symbol(leaf)] = length as u8;
            leaf += 1;
        }
    }
    lengths
}

/// More than any tree of 286 leaves and 2^32 occurrences has: a level more takes 1.6 times as many (Fibonacci).
const DEEPEST: usize = 48;

/// Builds the tree of the least weight over leaves in rising order, and returns how many there are at each depth.
fn depths<const N: usize>(weights: impl Iterator<Item = u32>, leaves: usize) -> [u32; DEEPEST] {
    // Leaves and inner nodes both come in rising order, so the lightest is the first that is left of either.
    // An inner node's weight gives way to its place in the tree once it has been taken.
    let mut leaf = [0_u32; N];
    leaf.iter_mut().zip(weights).for_each(|(leaf, weight)| *leaf = weight);
    let mut weight = [0_u32; N];
    let mut parent = [0_u16; N];
    let mut leaves_of = [0_u8; N];
    let (mut next_leaf, mut next_inner) = (0, 0);
    for node in 0..leaves - 1 {
        for _ in 0..2 {
            let is_inner = next_leaf == leaves || next_inner < node && weight[next_inner] < leaf[next_leaf];
            if is_inner {
                weight[node] += weight[next_inner];
                parent[next_inner] = node as u16;
                next_inner += 1;
            } else {
                weight[node] += leaf[next_leaf];
                leaves_of[node] += 1;
                next_leaf += 1;
            }
        }
    }
    let mut depth = [0_u8; N];
    let mut of_depth = [0; DEEPEST];
    for node in (0..leaves - 1).rev() {
        depth[node] = if node == leaves - 2 { 1 } else { depth[usize::from(parent[node])] + 1 };
        of_depth[usize::from(depth[node])] += u32::from(leaves_of[node]);
    }
    of_depth
}

/// Brings leaves that hang too deep up to `longest`. That is more than fits, so for each that is too many one that
/// hangs higher makes room: it goes down a level, and one from the lowest joins it there.
fn shorten(of_length: &mut [u32; DEEPEST], longest: usize) {
    let too_deep: u32 = of_length[longest + 1..].iter().sum();
    if too_deep == 0 {
        return;
    }
    of_length[longest + 1..].fill(0);
    of_length[longest] += too_deep;
    let room = 1_u32 << longest;
    let mut taken: u32 = (1..=longest).map(|length| of_length[length] << (longest - length)).sum();
    while taken > room {
        let higher = (1..longest)
            .rev()
            .find(|length| of_length[*length] > 0)
            .expect("there are fewer leaves than room");
        of_length[higher] -= 1;
        of_length[higher + 1] += 2;
        of_length[longest] -= 1;
        taken -= 1;
    }
}

/// The canonical code of these lengths. A code word starts with its highest bit, everything else with its lowest.
fn words<const N: usize>(lengths: [u8; N]) -> [Word; N] {
    let mut of_length = [0_u16; 16];
    lengths.iter().filter(|length| **length > 0).for_each(|length| of_length[usize::from(*length)] += 1);
    let mut next = [0_u16; 16];
    for length in 1..16 {
        next[length] = (next[length - 1] + of_length[length - 1]) << 1;
    }
    lengths.map(|length| {
        if length == 0 {
            return Word::default();
        }
        let bits = next[usize::from(length)];
        next[usize::from(length)] += 1;
        Word { bits: u32::from(bits.reverse_bits() >> (16 - length)), size: length.into() }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sizes<const N: usize>(counts: &[u32; N], longest: usize) -> [u32; N] {
        code(counts, longest).map(|word| word.size)
    }

    #[test]
    fn the_rare_are_long() {
        assert_eq!(sizes(&[1, 1, 2, 4, 8], 15), [4, 4, 3, 2, 1]);
        assert_eq!(sizes(&[5, 0, 5, 5, 5], 15), [2, 0, 2, 2, 2]);
        assert_eq!(sizes(&[10, 11, 12, 13], 15), [2; 4]);
    }

    #[test]
    fn a_symbol_alone_gets_a_companion() {
        assert_eq!(sizes(&[0, 0, 0], 15), [1, 1, 0]);
        assert_eq!(sizes(&[9, 0, 0], 15), [1, 1, 0]);
        assert_eq!(sizes(&[0, 0, 9], 15), [1, 0, 1]);
    }

    #[test]
    fn none_is_longer_than_wanted() {
        let mut fibonacci = [1; 24];
        for index in 2..24 {
            fibonacci[index] = fibonacci[index - 1] + fibonacci[index - 2];
        }
        assert_eq!(lengths(&fibonacci, 30).into_iter().max(), Some(23));
        for longest in [5, 7, 14] {
            let sizes = sizes(&fibonacci, longest);
            assert_eq!(*sizes.iter().max().unwrap() as usize, longest);
            assert_complete(&sizes);
            assert!(sizes.is_sorted_by(|rare, common| rare >= common), "{sizes:?}");
        }
    }

    /// The code words of RFC 1951 §3.2.2, whose example has these lengths.
    #[test]
    fn words_are_the_canonical_ones_lowest_bit_first() {
        let words = words([3, 3, 3, 3, 3, 2, 4, 4]).map(|word| (word.bits, word.size));
        let canonical =
            [(0b010, 3), (0b011, 3), (0b100, 3), (0b101, 3), (0b110, 3), (0, 2), (14, 4), (15, 4)];
        assert_eq!(
            words,
            canonical.map(|(bits, size): (u32, u32)| (bits.reverse_bits() >> (32 - size), size))
        );
    }

    fn assert_complete(sizes: &[u32]) {
        let taken: u32 = sizes.iter().filter(|size| **size > 0).map(|size| 1 << (15 - size)).sum();
        assert_eq!(taken, 1 << 15, "{sizes:?}");
    }

    proptest! {
        #[test]
        fn any_counts_have_a_complete_code(
            counts in prop::collection::vec(prop_oneof![Just(0), 0..10_u32, 0..70_000_u32], 286),
            longest in 9..=15_usize,
        ) {
            let counts: [u32; 286] = counts.try_into().unwrap();
            let sizes = sizes(&counts, longest);
            assert_complete(&sizes);
            prop_assert!(sizes.iter().all(|size| *size as usize <= longest));
            let used = counts.iter().filter(|count| **count > 0).count();
            prop_assert!(used < 2 || counts.iter().zip(&sizes).all(|(count, size)| (*count > 0) == (*size > 0)));
        }
    }
}
