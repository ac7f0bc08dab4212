//! One header of a tar archive: a block of 512 bytes in the format of v7, ustar, PAX or GNU.
//!
//! No number in it is trusted: arithmetic is checked, and nothing is allocated by it.

use std::{io::Read, ops::Range};

use crate::error::{Context as _, Error, ErrorKind, Result};

/// A block of fields, each at its place.
pub(super) struct Header([u8; BLOCK]);

/// The typeflags: what a header is of. A regular file had none in v7, and POSIX lets a contiguous one be taken for one.
impl Header {
    pub(super) const V7_FILE: u8 = 0;
    pub(super) const FILE: u8 = b'0';
    pub(super) const HARDLINK: u8 = b'1';
    pub(super) const SYMLINK: u8 = b'2';
    pub(super) const FIFO: u8 = b'6';
    pub(super) const CONTIGUOUS_FILE: u8 = b'7';
    pub(super) const GNU_LONG_LINK: u8 = b'K';
    pub(super) const GNU_LONG_NAME: u8 = b'L';
    pub(super) const GNU_SPARSE: u8 = b'S';
    pub(super) const PAX_GLOBAL: u8 = b'g';
    pub(super) const PAX: u8 = b'x';
}

impl Header {
    /// Reads a header; none if the input ends right here.
    pub(super) fn read(input: &mut impl Read, offset: u64) -> Result<Option<Self>> {
        Ok(read_block(input, offset)?.map(Self))
    }

    /// Returns whether it has no fields: it ends the archive.
    pub(super) fn is_empty(&self) -> bool {
        self.0 == [0; BLOCK]
    }

    /// Compares the checksum, for which some old tars took bytes as signed.
    pub(super) fn is_sound(&self) -> bool {
        const SUM: Range<usize> = 148..156;
        let bytes =
            || self.0.iter().enumerate().map(|(at, &byte)| if SUM.contains(&at) { b' ' } else { byte });
        let unsigned: u64 = bytes().map(u64::from).sum();
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
        let stated = number(&self.0[SUM]).ok();
        stated.is_some_and(|stated| stated == unsigned || Ok(stated) == u64::try_from(signed))
    }

    /// Returns the name that stands here. ustar splits the prefix off long ones; star's is shorter, and GNU has two times
    /// in its place, which Go wrote over before its version 1.8 and still reads as a prefix where they are none.
    pub(super) fn name(&self) -> String {
        let block = &self.0;
        let name = text(&block[..100]);
        let is_time = |field: &[u8]| field[0] == 0 || number(field).is_ok();
        let prefix = match self.magic() {
            b"ustar  \0" if is_time(&block[345..357]) && is_time(&block[357..369]) => String::new(),
            b"ustar  \0" => {
                Some(text(&block[345..500])).filter(|prefix| prefix.is_ascii()).unwrap_or_default()
            }
            magic if !magic.starts_with(b"ustar\0") => String::new(),
            _ if block.ends_with(b"tar\0") => text(&block[345..476]),
            _ => text(&block[345..500]),
        };
        if prefix.is_empty() { name } else { format!("{prefix}/{name}") }
    }

    pub(super) fn size(&self) -> Result<u64, &'static str> {
        number(&self.0[124..136])
    }

    /// Returns what it is a header of.
    pub(super) const fn typeflag(&self) -> u8 {
        self.0[156]
    }

    /// Returns whether it is no entry's own, but says more of the entry behind it.
    pub(super) const fn is_extension(&self) -> bool {
        matches!(self.typeflag(), Self::GNU_LONG_LINK | Self::GNU_LONG_NAME | Self::PAX | Self::PAX_GLOBAL)
    }

    /// Returns where a link leads.
    pub(super) fn linkname(&self) -> String {
        text(&self.0[157..257])
    }

    /// Returns the format's mark and version.
    fn magic(&self) -> &[u8] {
        &self.0[257..265]
    }
}

/// Returns whether these first bytes of a file are a tar header, right or damaged.
pub(in crate::source) fn is_tar(bytes: &[u8]) -> bool {
    let Some(header) = bytes.first_chunk().copied().map(Header) else { return false };
    header.is_empty() || header.magic().starts_with(b"ustar") || header.is_sound()
}

/// Returns the number of bytes that fill the last block of a payload.
pub(super) const fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

/// Says that the archive ends before its headers say so.
pub(super) fn truncated(offset: u64) -> Error {
    Error::source(format!("the archive is truncated: what begins at byte {offset} is not complete"))
}

/// Skips the rest of an old GNU sparse file's map, which stands between header and payload.
pub(super) fn skip_sparse_map(input: &mut impl Read, header: &Header, offset: u64) -> Result<u64> {
    let mut length = 0;
    let mut more = header.typeflag() == Header::GNU_SPARSE && header.0[482] != 0;
    while more {
        length += BLOCK as u64;
        let block = read_block(input, offset + length)?.ok_or_else(|| truncated(offset + length))?;
        more = block[504] != 0;
    }
    Ok(length)
}

/// Reads one block; none if the input ends right here.
fn read_block(input: &mut impl Read, offset: u64) -> Result<Option<[u8; BLOCK]>> {
    match <[u8; BLOCK]>::try_from(read_up_to(input, BLOCK as u64)?) {
        Ok(block) => Ok(Some(block)),
        Err(block) if block.is_empty() => Ok(None),
        Err(_) => Err(truncated(offset)),
    }
}

/// Reads as many bytes, or as many as there are.
pub(super) fn read_up_to(input: &mut impl Read, size: u64) -> Result<Vec<u8>> {
    // A name or a few records fit in a block, too.
    let mut bytes = Vec::with_capacity(BLOCK);
    let read = input.take(size).read_to_end(&mut bytes);
    read.context(ErrorKind::Source, || "reading the archive".into())?;
    Ok(bytes)
}

/// Reads a number: octal digits between spaces and NULs, on either side as Go's archive/tar takes them, or base-256
/// when the first bit is set.
fn number(field: &[u8]) -> Result<u64, &'static str> {
    if let Some((&first, rest)) = field.split_first()
        && first & 0x80 != 0
    {
        if first & 0x40 != 0 {
            return Err("negative size");
        }
        let number = rest.iter().try_fold(u64::from(first & 0x3f), |number, &byte| {
            Some(number.checked_mul(256)? + u64::from(byte))
        });
        return number.filter(|number| *number <= LARGEST).ok_or("size out of range");
    }
    let start = field.iter().position(|&byte| byte != 0 && byte != b' ').unwrap_or(field.len());
    let digits = field[start..].split(|&byte| byte == 0).next().unwrap_or_default();
    digits.trim_ascii_end().iter().try_fold(0_u64, |number, &digit| match digit {
        b'0'..=b'7' => Ok(number.checked_mul(8).ok_or("size out of range")? + u64::from(digit - b'0')),
        _ => Err("a number is not octal"),
    })
}

pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|number| *number <= LARGEST)
}

/// Returns the text before the first NUL.
pub(super) fn text(field: &[u8]) -> String {
    let text = field.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

pub(super) const BLOCK: usize = 512;
/// No file is larger, and rounded up to whole blocks it is still a number.
const LARGEST: u64 = i64::MAX as u64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_stand_between_spaces() {
        assert_eq!(number(b"   17 \0\0\0\0\0\0"), Ok(15));
        assert_eq!(number(b"777777777777"), Ok((1 << 36) - 1));
        assert_eq!(number(&[0; 12]), Ok(0));
        // As Go reads them: whoever took this for none would read the payload as headers.
        assert_eq!(number(b"\0 \0 17\0\0\0\0\0"), Ok(15));
    }
}
