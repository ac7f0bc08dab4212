//! An entry of a tar archive, as its headers say it together: its own, and GNU's and PAX's before it.
//!
//! One parser, [`read_head`], serves both ways to read an archive: [`super::reader::Entries`] streams one that passes
//! by, [`super::index::Index`] jumps through a file. Names are text and never paths of this machine.

use std::io::Read;

use super::header::{BLOCK, Header, decimal, padding, read_up_to, skip_sparse_map, text, truncated};
use crate::error::{Error, Result};

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

/// Reads the headers of the entry that begins at `at`, and says how many bytes they take. None is the
/// archive's end: a block of zeros, or no bytes at all.
pub(super) fn read_head(input: &mut impl Read, at: u64) -> Result<Option<(EntryHead, u64)>> {
    let mut offset = at;
    let mut extensions = Extensions::default();
    loop {
        let Some(header) = Header::read(input, offset)? else {
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
    fn take(&mut self, typeflag: u8, payload: &[u8]) -> Result<(), &'static str> {
        match typeflag {
            Header::GNU_LONG_NAME => self.gnu_long_name = word(text(payload)),
            Header::GNU_LONG_LINK => self.gnu_long_link = word(text(payload)),
            // As for Go's archive/tar, the last one counts: who adds them up reads another archive than the others do.
            Header::PAX => self.pax = Pax::parse(payload)?,
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
            Header::FILE | Header::V7_FILE | Header::CONTIGUOUS_FILE if sparse => EntryKind::Sparse,
            // v7 knew no folders but by this.
            Header::V7_FILE if name.ends_with('/') => EntryKind::Other,
            Header::FILE | Header::V7_FILE | Header::CONTIGUOUS_FILE => EntryKind::File,
            Header::HARDLINK => EntryKind::Hardlink(target),
            Header::SYMLINK => EntryKind::Symlink(target),
            Header::GNU_SPARSE => EntryKind::Sparse,
            _ => EntryKind::Other,
        };
        // Links, devices, folders and FIFOs have no payload, whatever their size says.
        let is_empty = (Header::HARDLINK..=Header::FIFO).contains(&header.typeflag());
        let size = if is_empty { 0 } else { pax.size.unwrap_or(size) };
        EntryHead { name, kind, size }
    }
}

impl Pax {
    /// Reads records: `LENGTH KEY=VALUE\n`, where the length counts all of it.
    fn parse(mut records: &[u8]) -> Result<Self, &'static str> {
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

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
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

/// Returns a text, unless it is empty: that says nothing.
fn word(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// For long names and PAX records: a path has at most 4 KiB, and extended attributes are not for images'
/// outer archives.
const EXTENSION_LIMIT: u64 = 1 << 20;
