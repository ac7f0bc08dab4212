//! Headers of tar archives: v7, ustar, PAX and GNU, as image tools write them, one after the other.
//!
//! One parser, [`read_head`], serves both ways to read an archive: [`Entries`] streams one that passes by,
//! [`super::archive::Index`] jumps through a file. Nothing is extracted; names are text and never paths of
//! this machine. No header's number is trusted: arithmetic is checked, nothing is allocated by it, and an
//! archive that is shorter than its headers say is called truncated.

use std::{
    io::{self, Read},
    ops::Range,
};

use crate::error::{Context as _, Error, ErrorKind, Result};

/// What an archive says about one of its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryHead {
    /// The name as it is written, invalid UTF-8 replaced.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
    /// The number of bytes that follow.
    pub size: u64,
}

/// What an entry is, as far as images need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// Another name for the entry of this name.
    Hardlink(String),
    /// A folder, a device, or something even less useful.
    Other,
    /// A file whose holes are left out, so that its bytes are not those of the file.
    Sparse,
    /// A pointer to the entry of this name, relative to the folder it is in.
    Symlink(String),
}

/// The entries of an archive that can be read once.
///
/// The iterator yields the heads; reading yields the payload of the last one, and what is left of it is
/// skipped. The end of the iteration is the end of the input, so that a decoder beneath has checked its sums.
#[derive(Debug)]
pub struct Entries<R> {
    input: R,
    offset: u64,
    payload: u64,
    padding: u64,
    ended: bool,
}

impl<R: Read> Entries<R> {
    /// Reads the archive in `input` from its first byte.
    pub const fn new(input: R) -> Self {
        Self { input, offset: 0, payload: 0, padding: 0, ended: false }
    }

    fn advance(&mut self) -> Result<Option<EntryHead>> {
        let left = self.payload + self.padding;
        let skipped = io::copy(&mut self.input.by_ref().take(left), &mut io::sink())
            .context(ErrorKind::Source, || "reading the archive".into())?;
        self.offset += skipped;
        if skipped < left {
            return Err(truncated(self.offset));
        }
        let Some((head, length)) = read_head(&mut self.input, self.offset)? else {
            // Where nothing came before, nothing is checked by what follows, and that may never end.
            if self.offset > 0 {
                io::copy(&mut self.input, &mut io::sink())
                    .context(ErrorKind::Source, || "reading the archive to its end".into())?;
            }
            return Ok(None);
        };
        self.offset += length;
        self.payload = head.size;
        self.padding = padding(head.size);
        Ok(Some(head))
    }
}

impl<R: Read> Iterator for Entries<R> {
    type Item = Result<EntryHead>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let head = self.advance();
        self.ended = !matches!(head, Ok(Some(_)));
        head.transpose()
    }
}

impl<R: Read> Read for Entries<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.payload).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.input.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, truncated(self.offset)));
        }
        self.payload -= read as u64;
        self.offset += read as u64;
        Ok(read)
    }
}

/// Reads the headers of the entry that begins at `at`, and says how many bytes they take. None is the
/// archive's end: a block of zeros, or no bytes at all.
pub(super) fn read_head(input: &mut impl Read, at: u64) -> Result<Option<(EntryHead, u64)>> {
    let mut offset = at;
    let mut extensions = Extensions::default();
    loop {
        let Some(header) = read_block(input, offset)?.map(Header) else {
            return if offset == at { Ok(None) } else { Err(truncated(offset)) };
        };
        if header.is_empty() {
            return Ok(None);
        }
        let wrong = |what: &str| Error::source(format!("tar header at byte {offset}: {what}"));
        if !header.is_sound() {
            return Err(wrong("wrong checksum"));
        }
        let size = header.size().map_err(wrong)?;
        if !header.is_extension() {
            let length = offset + BLOCK as u64 + skip_sparse_map(input, &header, offset)? - at;
            return Ok(Some((extensions.head(&header, size), length)));
        }
        if size > EXTENSION_LIMIT {
            return Err(wrong(&format!(
                "an extended header is over the limit of {EXTENSION_LIMIT} bytes: {size}"
            )));
        }
        let padded = size + padding(size);
        let mut payload = read_up_to(input, padded)?;
        if (payload.len() as u64) < padded {
            return Err(truncated(offset));
        }
        payload.truncate(size as usize);
        extensions.take(header.typeflag(), &payload).map_err(wrong)?;
        offset += BLOCK as u64 + padded;
    }
}

/// Returns whether these first bytes of a file are a tar header, right or damaged.
pub(super) fn is_tar(bytes: &[u8]) -> bool {
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

const BLOCK: usize = 512;
/// No file is larger, and rounded up to whole blocks it is still a number.
const LARGEST: u64 = i64::MAX as u64;
/// For long names and PAX records: a path has at most 4 KiB, and extended attributes are not for images'
/// outer archives.
const EXTENSION_LIMIT: u64 = 1 << 20;

/// What a header is of. A regular file had no typeflag in v7; POSIX allows a contiguous one to be taken for one.
mod typeflag {
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

/// A block of fields, each at its place.
struct Header([u8; BLOCK]);

impl Header {
    /// Returns whether it has no fields: it ends the archive.
    fn is_empty(&self) -> bool {
        self.0 == [0; BLOCK]
    }

    /// Compares the checksum, for which some old tars took bytes as signed.
    fn is_sound(&self) -> bool {
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
    fn name(&self) -> String {
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

    fn size(&self) -> std::result::Result<u64, &'static str> {
        number(&self.0[124..136])
    }

    /// Returns what it is a header of.
    const fn typeflag(&self) -> u8 {
        self.0[156]
    }

    /// Returns whether it is no entry's own, but says more of the entry behind it.
    const fn is_extension(&self) -> bool {
        use typeflag::{GNU_LONG_LINK, GNU_LONG_NAME, PAX, PAX_GLOBAL};
        matches!(self.typeflag(), GNU_LONG_LINK | GNU_LONG_NAME | PAX | PAX_GLOBAL)
    }

    /// Returns where a link leads.
    fn linkname(&self) -> String {
        text(&self.0[157..257])
    }

    /// Returns the format's mark and version.
    fn magic(&self) -> &[u8] {
        &self.0[257..265]
    }
}

/// What the headers before an entry's own say about it.
#[derive(Default)]
struct Extensions {
    gnu_long_name: Option<String>,
    gnu_long_link: Option<String>,
    pax: Pax,
}

/// The PAX records of an entry.
#[derive(Default)]
struct Pax {
    path: Option<String>,
    linkpath: Option<String>,
    size: Option<u64>,
    sparse_map: bool,
    sparse_name: Option<String>,
    sparse_version: [Option<String>; 2],
}

impl Extensions {
    /// Takes what one more header says.
    fn take(&mut self, typeflag: u8, payload: &[u8]) -> std::result::Result<(), &'static str> {
        match typeflag {
            typeflag::GNU_LONG_NAME => self.gnu_long_name = word(text(payload)),
            typeflag::GNU_LONG_LINK => self.gnu_long_link = word(text(payload)),
            // As for Go's archive/tar, the last one counts: who adds them up reads another archive than the others do.
            typeflag::PAX => self.pax = Pax::parse(payload)?,
            // Defaults for all entries; nobody puts names or sizes there. What stands before them belongs to nothing.
            _ => *self = Self::default(),
        }
        Ok(())
    }

    /// Puts an entry's head together. Where several headers name it, GNU's win over PAX's over the entry's
    /// own, as in Go's archive/tar, which wrote and will read most images. A sparse file's own name is made up.
    fn head(self, header: &Header, size: u64) -> EntryHead {
        let Self { gnu_long_name, gnu_long_link, pax } = self;
        let sparse = pax.is_sparse();
        let sparse_name = pax.sparse_name.filter(|_| sparse);
        let name = sparse_name.or(gnu_long_name).or(pax.path).unwrap_or_else(|| header.name());
        let target = gnu_long_link.or(pax.linkpath).unwrap_or_else(|| header.linkname());
        let kind = match header.typeflag() {
            typeflag::FILE | typeflag::V7_FILE | typeflag::CONTIGUOUS_FILE if sparse => EntryKind::Sparse,
            // v7 knew no folders but by this.
            typeflag::V7_FILE if name.ends_with('/') => EntryKind::Other,
            typeflag::FILE | typeflag::V7_FILE | typeflag::CONTIGUOUS_FILE => EntryKind::File,
            typeflag::HARDLINK => EntryKind::Hardlink(target),
            typeflag::SYMLINK => EntryKind::Symlink(target),
            typeflag::GNU_SPARSE => EntryKind::Sparse,
            _ => EntryKind::Other,
        };
        // Links, devices, folders and FIFOs have no payload, whatever their size says.
        let is_empty = (typeflag::HARDLINK..=typeflag::FIFO).contains(&header.typeflag());
        let size = if is_empty { 0 } else { pax.size.unwrap_or(size) };
        EntryHead { name, kind, size }
    }
}

impl Pax {
    /// Reads records: `LENGTH KEY=VALUE\n`, where the length counts all of it.
    fn parse(mut records: &[u8]) -> std::result::Result<Self, &'static str> {
        const BROKEN: &str = "a PAX record is broken";
        let mut pax = Self::default();
        while !records.is_empty() {
            let space = records.iter().position(|&byte| byte == b' ').ok_or(BROKEN)?;
            let length = std::str::from_utf8(&records[..space])
                .ok()
                .and_then(|digits| digits.parse::<usize>().ok())
                .filter(|&length| length > space + 1 && length <= records.len())
                .ok_or(BROKEN)?;
            let (record, rest) = records.split_at(length);
            let record = record[space + 1..].strip_suffix(b"\n").ok_or(BROKEN)?;
            let equals = record.iter().position(|&byte| byte == b'=').ok_or(BROKEN)?;
            pax.take(&record[..equals], &record[equals + 1..])?;
            records = rest;
        }
        Ok(pax)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> std::result::Result<(), &'static str> {
        let word = || word(String::from_utf8_lossy(value).into_owned());
        match key {
            b"path" => self.path = word(),
            b"linkpath" => self.linkpath = word(),
            b"size" if value.is_empty() => self.size = None,
            b"size" => self.size = Some(decimal(value).ok_or("a PAX size is not a number")?),
            b"GNU.sparse.major" => self.sparse_version[0] = word(),
            b"GNU.sparse.minor" => self.sparse_version[1] = word(),
            b"GNU.sparse.name" => self.sparse_name = word(),
            b"GNU.sparse.map" | b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                self.sparse_map = !value.is_empty();
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns whether the records describe a sparse file, as Go's archive/tar decides it: what names no version that is
    /// known, or no map, is any other file and keeps its name.
    fn is_sparse(&self) -> bool {
        match self.sparse_version.each_ref().map(Option::as_deref) {
            [Some("0"), Some("0" | "1")] | [Some("1"), Some("0")] => true,
            [None, None] => self.sparse_map,
            _ => false,
        }
    }
}

/// Skips the rest of an old GNU sparse file's map, which stands between header and payload.
fn skip_sparse_map(input: &mut impl Read, header: &Header, offset: u64) -> Result<u64> {
    let mut length = 0;
    let mut more = header.typeflag() == typeflag::GNU_SPARSE && header.0[482] != 0;
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
fn read_up_to(input: &mut impl Read, size: u64) -> Result<Vec<u8>> {
    // A name or a few records fit in a block, too.
    let mut bytes = Vec::with_capacity(BLOCK);
    let read = input.take(size).read_to_end(&mut bytes);
    read.context(ErrorKind::Source, || "reading the archive".into())?;
    Ok(bytes)
}

/// Reads a number: octal digits between spaces and NULs, on either side as Go's archive/tar takes them, or base-256
/// when the first bit is set.
fn number(field: &[u8]) -> std::result::Result<u64, &'static str> {
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

fn decimal(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|number| *number <= LARGEST)
}

/// Returns a text, unless it is empty: that says nothing.
fn word(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// Returns the text before the first NUL.
fn text(field: &[u8]) -> String {
    let text = field.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn heads(bytes: &[u8]) -> Result<Vec<EntryHead>> {
        Entries::new(bytes).collect()
    }

    /// A header of our own making, for what the tar crate would not write.
    fn header(name: &str, flag: u8, size: &[u8; 12]) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[124..136].copy_from_slice(size);
        block[156] = flag;
        let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum::<u64>() + 8 * u64::from(b' ');
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }

    fn extended(flag: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = header("x", flag, format!("{:011o}\0", payload.len()).as_bytes().try_into().unwrap());
        bytes.extend_from_slice(payload);
        bytes.resize(bytes.len() + padding(payload.len() as u64) as usize, 0);
        bytes
    }

    fn built(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        builder.into_inner().unwrap()
    }

    fn append(builder: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes).unwrap();
    }

    #[test]
    fn payloads_are_read_or_skipped() {
        let long = "d/".repeat(200) + "f";
        let bytes = built(|builder| {
            append(builder, "a", b"one");
            append(builder, &long, &[7; 600]);
            append(builder, "c", b"");
        });
        let mut entries = Entries::new(bytes.as_slice());
        assert_eq!(entries.next().unwrap().unwrap().name, "a");
        assert_eq!(
            entries.next().unwrap().unwrap(),
            EntryHead { name: long, kind: EntryKind::File, size: 600 }
        );
        let mut payload = Vec::new();
        entries.read_to_end(&mut payload).unwrap();
        assert_eq!(payload, [7; 600]);
        assert_eq!(entries.next().unwrap().unwrap().size, 0);
        assert!(entries.next().is_none());
        assert!(entries.next().is_none());
    }

    #[test]
    fn pax_records_win_over_the_header() {
        let record = b"13 size=1025\n12 path=a/b\n15 linkpath=to\n";
        let bytes = [extended(b'x', record), header("z", b'2', b"00000000000\0")].concat();
        let head = &heads(&bytes).unwrap()[0];
        assert_eq!((head.name.as_str(), &head.kind), ("a/b", &EntryKind::Symlink("to".into())));
        let bytes = [extended(b'x', record), header("z", b'0', b"00000000000\0")].concat();
        let (head, _) = read_head(&mut bytes.as_slice(), 0).unwrap().unwrap();
        assert_eq!(head.size, 1025);
        for broken in ["", "1", "x path=a\n", "99 path=a\n", "8 path=a\n", "4 =\n5", "12 size=-1\n\n\n"] {
            let bytes = [extended(b'x', broken.as_bytes()), header("z", b'0', b"00000000000\0")].concat();
            assert_eq!(heads(&bytes).is_err(), !broken.is_empty(), "{broken:?}");
        }
    }

    #[test]
    fn of_several_extended_headers_the_last_one_counts() {
        let (size, comment) = (&b"9 size=0\n"[..], &b"13 comment=x\n"[..]);
        let file = header("f", b'0', b"00000000003\0");
        for bytes in [
            [extended(b'x', size), extended(b'x', comment), file.clone()].concat(),
            [extended(b'x', size), extended(b'g', comment), file.clone()].concat(),
            [extended(b'L', b"other\0"), extended(b'g', comment), file.clone()].concat(),
        ] {
            let (head, _) = read_head(&mut bytes.as_slice(), 0).unwrap().unwrap();
            assert_eq!((head.name.as_str(), head.size), ("f", 3));
        }
        let bytes = [extended(b'L', b"other\0"), extended(b'x', comment), file].concat();
        assert_eq!(read_head(&mut bytes.as_slice(), 0).unwrap().unwrap().0.name, "other");
    }

    #[test]
    fn a_record_without_a_value_says_nothing() {
        let bytes =
            [extended(b'x', b"13 size=1025\n8 size=\n8 path=\n"), header("f", b'0', b"00000000003\0")]
                .concat();
        let (head, _) = read_head(&mut bytes.as_slice(), 0).unwrap().unwrap();
        assert_eq!((head.name.as_str(), head.size), ("f", 3));
    }

    #[test]
    fn a_sparse_file_is_called_as_its_records_say() {
        const NAME: &str = "27 GNU.sparse.name=a/layer\n";
        const ONE: &str = "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n";
        for (records, sparse) in [
            (format!("{ONE}{NAME}"), true),
            (format!("{ONE}{NAME}12 path=a/b\n"), true),
            (format!("22 GNU.sparse.map=0,1\n{NAME}"), true),
            (NAME.to_owned(), false),
            (format!("22 GNU.sparse.major=2\n{NAME}"), false),
        ] {
            let own = header("GNUSparseFile.0/layer", b'0', b"00000000000\0");
            let head = heads(&[extended(b'x', records.as_bytes()), own].concat()).unwrap().remove(0);
            let expected = if sparse {
                ("a/layer", EntryKind::Sparse)
            } else {
                ("GNUSparseFile.0/layer", EntryKind::File)
            };
            assert_eq!((head.name.as_str(), head.kind), expected, "{records}");
        }
    }

    #[test]
    fn an_empty_long_name_is_none() {
        for payload in [&b""[..], b"\0"] {
            let own = header("f", b'2', b"00000000000\0");
            let bytes = [extended(b'L', payload), extended(b'K', payload), own].concat();
            let head = heads(&bytes).unwrap().remove(0);
            assert_eq!((head.name.as_str(), head.kind), ("f", EntryKind::Symlink(String::new())));
        }
        let bytes =
            [extended(b'x', b"12 path=f/g\n"), extended(b'L', b""), header("f", b'0', b"00000000000\0")];
        assert_eq!(heads(&bytes.concat()).unwrap()[0].name, "f/g");
    }

    #[test]
    fn a_name_begins_in_another_field_only_where_there_is_one() {
        for (magic, beginning, end, name) in [
            (&b"ustar\x0000"[..], &b"d"[..], &b""[..], "d/f"),
            (b"ustar\x0000", &[b'd'; 131], b"tar\0", &("d".repeat(131) + "/f")),
            // What stands behind star's field are times.
            (b"ustar\x0000", &[b'd'; 140], b"tar\0", &("d".repeat(131) + "/f")),
            (b"ustar  \0", b"00000000001", b"", "f"),
            (b"ustar  \0", b"d", b"", "d/f"),
            (b"ustar  \0", b"\xff\xff\xff", b"", "f"),
            (b"\0\0\0\0\0\0\0\0", b"d", b"", "f"),
        ] {
            let mut block = header("f", b'0', b"00000000000\0");
            block[257..265].copy_from_slice(magic);
            block[345..345 + beginning.len()].copy_from_slice(beginning);
            block[BLOCK - end.len()..].copy_from_slice(end);
            block[148..156].fill(b' ');
            let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            assert_eq!(heads(&block).unwrap()[0].name, name, "{magic:?} {beginning:?}");
        }
    }

    #[test]
    fn sizes_that_cannot_be_are_errors() {
        let huge = b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff";
        for (size, word) in [
            (huge, "truncated"),
            (b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", "out of range"),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "negative"),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "out of range"),
            (b"77777777777\0", "truncated"),
            (b"1234567890a\0", "octal"),
            (b"00001 000009", "octal"),
        ] {
            let error = heads(&header("f", b'0', size)).unwrap_err();
            assert!(error.message().contains(word), "{error}");
        }
        let record = b"29 size=18446744073709551615\n";
        let bytes = [extended(b'x', record), header("f", b'0', b"00000000000\0")].concat();
        assert!(heads(&bytes).unwrap_err().message().contains("not a number"));
        for flag in [b'L', b'K', b'x', b'g'] {
            let error = heads(&header("f", flag, b"10000000000\0")).unwrap_err();
            assert!(error.message().contains("limit"), "{error}");
        }
    }

    #[test]
    fn numbers_may_stand_between_spaces() {
        assert_eq!(number(b"   17 \0\0\0\0\0\0"), Ok(15));
        assert_eq!(number(b"777777777777"), Ok((1 << 36) - 1));
        assert_eq!(number(&[0; 12]), Ok(0));
        // As Go reads them: whoever took this for none would read the payload as headers.
        assert_eq!(number(b"\0 \0 17\0\0\0\0\0"), Ok(15));
    }

    #[test]
    fn a_wrong_checksum_is_said_where_it_is() {
        let mut bytes = built(|builder| {
            append(builder, "a", b"one");
            append(builder, "b", b"two");
        });
        bytes[1024] ^= 1;
        let error = heads(&bytes).unwrap_err();
        assert_eq!(error.message(), "tar header at byte 1024: wrong checksum");
    }

    #[test]
    fn the_end_may_be_zeros_or_nothing_and_what_follows_is_read() {
        let whole = built(|builder| append(builder, "a", b"one"));
        for (bytes, count) in
            [(&whole[..1024], 1), (&whole[..1536], 1), (&[whole.as_slice(), &whole].concat(), 1), (&[], 0)]
        {
            let mut input = bytes;
            assert_eq!(Entries::new(&mut input).count(), count);
            assert!(input.is_empty());
        }
        let endless = io::repeat(0).take(1 << 30);
        let mut entries = Entries::new(endless);
        assert!(entries.next().is_none());
        assert!(entries.input.limit() > 1 << 29, "zeros alone are no archive to be read to its end");
        for end in [1, 511, 512, 514, 1023] {
            let error = heads(&whole[..end]).unwrap_err();
            assert!(error.message().contains("truncated"), "{end}: {error}");
        }
    }

    #[test]
    fn gnu_sparse_files_are_told_apart_and_skipped_with_their_map() {
        let mut sparse = header("s", b'S', b"00000000000\0");
        sparse[482] = 1;
        let sum = sparse.iter().map(|&byte| u64::from(byte)).sum::<u64>()
            - sparse[148..156].iter().map(|&byte| u64::from(byte)).sum::<u64>()
            + 8 * u64::from(b' ');
        sparse[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let bytes = [sparse, vec![0; BLOCK], header("f", b'0', b"00000000000\0")].concat();
        let heads = heads(&bytes).unwrap();
        assert_eq!(heads[0].kind, EntryKind::Sparse);
        assert_eq!(heads[1].name, "f");
    }

    proptest! {
        #[test]
        fn no_header_panics_and_no_payload_is_made_up(
            headers in proptest::collection::vec(
                ("[a-z/]{0,90}", prop_oneof![any::<u8>(), Just(b'x'), Just(b'0')], any::<[u8; 4]>()), 0..4),
            payload in proptest::collection::vec(any::<u8>(), 0..1024),
        ) {
            let mut bytes = Vec::new();
            for (name, flag, size) in headers {
                // Half of the sizes are small octal numbers.
                let mut field = *b"00000000000\0";
                if size[0] & 1 == 0 {
                    field[..4].copy_from_slice(&size);
                } else {
                    field[9..11].copy_from_slice(&[b'0' + size[1] % 8, b'0' + size[2] % 8]);
                }
                bytes.extend(header(&name, flag, &field));
                bytes.extend(&payload);
            }
            let heads: Vec<_> = Entries::new(bytes.as_slice()).map_while(Result::ok).collect();
            let claimed: u64 = heads.iter().rev().skip(1).map(|head| head.size).sum();
            prop_assert!(claimed <= bytes.len() as u64);
        }

        #[test]
        fn the_reference_reader_sees_the_same(
            files in proptest::collection::vec(("[a-z/]{0,150}[a-z]", 0_usize..1500), 0..8)
        ) {
            let bytes = built(|builder| {
                for (name, size) in &files {
                    append(builder, name.trim_start_matches('/'), &vec![1; *size]);
                }
            });
            let own = heads(&bytes).unwrap();
            let mut reference = tar::Archive::new(bytes.as_slice());
            let theirs = reference.entries().unwrap().map(|entry| {
                let entry = entry.unwrap();
                let name = entry.path().unwrap().to_str().unwrap().to_owned();
                EntryHead { name, kind: EntryKind::File, size: entry.size() }
            });
            prop_assert_eq!(own, theirs.collect::<Vec<_>>());
        }
    }
}
