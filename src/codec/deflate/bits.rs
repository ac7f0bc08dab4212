//! Bits put together to bytes, the lowest first (RFC 1951 §3.1.1).

/// Up to 32 bits that belong together: a code word, or one with the extra bits behind it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Word {
    pub bits: u32,
    pub size: u32,
}

/// Writes words into a buffer. What has been pushed is at most 64 bits before it is flushed, and at most 7 after.
#[derive(Debug)]
pub(super) struct Bits<'a> {
    out: &'a mut [u8],
    /// The number of whole bytes in `out`.
    bytes: usize,
    /// What is not in `out` yet.
    held: u64,
    size: u32,
}

impl<'a> Bits<'a> {
    /// Every flush needs eight bytes of room, however few it fills.
    pub(super) fn new(out: &'a mut [u8]) -> Self {
        Self { out, bytes: 0, held: 0, size: 0 }
    }

    #[inline]
    pub(super) fn push(&mut self, word: Word) {
        self.held |= u64::from(word.bits) << self.size;
        self.size += word.size;
    }

    #[inline]
    pub(super) fn flush(&mut self) {
        self.out[self.bytes..self.bytes + 8].copy_from_slice(&self.held.to_le_bytes());
        self.bytes += (self.size >> 3) as usize;
        self.held >>= self.size & !7;
        self.size &= 7;
    }

    /// Fills the byte that has begun with zeros.
    pub(super) fn align(&mut self) {
        self.flush();
        self.push(Word { bits: 0, size: self.size.wrapping_neg() & 7 });
        self.flush();
    }

    /// Appends whole bytes, after [`Self::align`].
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.out[self.bytes..self.bytes + bytes.len()].copy_from_slice(bytes);
        self.bytes += bytes.len();
    }

    /// Returns the number of bytes written, the last one filled with zeros.
    pub(super) fn finish(mut self) -> usize {
        self.align();
        self.bytes
    }
}
