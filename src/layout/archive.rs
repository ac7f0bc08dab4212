//! Writes a layout as one file, an OCI archive: the same bytes for the same layout.
//!
//! Entries are written in the order given, without a copy of them: what an archive holds is known before it begins,
//! and so is its size.

use std::{
    io::{self, Read, Write},
    path::Path,
};

use tar::{EntryType, Header};

use super::{BLOBS, INDEX, OCI_LAYOUT, output::require_room, write};
use crate::{
    blob::mismatch,
    error::{Context as _, Error, ErrorKind, Result, counted},
    oci::{Descriptor, Hasher},
};

/// Writes an archive entry by entry. Owners and times are nobody's and none.
#[derive(Debug)]
#[must_use = "an archive has an end"]
pub struct ArchiveWriter<W> {
    to: W,
}

impl<W: Write> ArchiveWriter<W> {
    /// Begins an archive.
    pub const fn new(to: W) -> Self {
        Self { to }
    }

    /// Writes a file of `size` bytes.
    pub fn append(&mut self, name: &str, size: u64, bytes: &mut dyn Read) -> Result<()> {
        if needs_own_entry(name) {
            let mut name = [name.as_bytes(), &[0]].concat();
            self.write(header(LONG_NAME, EntryType::GNULongName, name.len() as u64)?.as_bytes())?;
            name.resize(name.len().next_multiple_of(BLOCK as usize), 0);
            self.write(&name)?;
        }
        self.write(header(name, EntryType::Regular, size)?.as_bytes())?;
        let mut frame = vec![0; FRAME];
        let mut left = size;
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(FRAME).min(FRAME);
            let reading = || format!("reading `{name}`");
            let read = bytes.read(&mut frame[..wanted]).context(ErrorKind::Source, reading)?;
            if read == 0 {
                return Err(Error::source(format!("`{name}` ends {} too early", counted(left, "byte"))));
            }
            self.write(&frame[..read])?;
            left -= read as u64;
        }
        let padding = (size.next_multiple_of(BLOCK) - size) as usize;
        self.write(&[0; BLOCK as usize][..padding])
    }

    /// Writes a blob, which must be what its descriptor says; `name` is what an error calls it.
    pub fn append_blob(&mut self, blob: &Descriptor, bytes: &mut dyn Read, name: &str) -> Result<()> {
        let mut hashed = Hashed { bytes, hasher: Hasher::new(blob.digest.algorithm()) };
        self.append(&write::blob_name(&blob.digest), blob.size, &mut hashed)?;
        let found = hashed.hasher.finish();
        if found == blob.digest { Ok(()) } else { Err(mismatch(name, blob, blob.size, &found)) }
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Result<W> {
        self.write(&[0; END])?;
        self.to.flush().map_err(unwritten)?;
        Ok(self.to)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.to.write_all(bytes).map_err(unwritten)
    }
}

/// Bytes that are hashed as they pass.
struct Hashed<'a> {
    bytes: &'a mut dyn Read,
    hasher: Hasher,
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

/// Returns how large an archive is of files of these names and sizes.
pub fn archive_size<N: AsRef<str>>(files: impl IntoIterator<Item = (N, u64)>) -> u64 {
    let entry = |size: u64| BLOCK + size.next_multiple_of(BLOCK);
    let entries = files.into_iter().map(|(name, size)| {
        let name = name.as_ref();
        entry(size) + if needs_own_entry(name) { entry(name.len() as u64 + 1) } else { 0 }
    });
    entries.sum::<u64>() + END as u64
}

/// Writes the layout in `dir` to `file`, whole or not at all; both are on one filesystem.
pub fn write_archive(dir: &Path, file: &Path) -> Result<()> {
    let writing = || format!("writing `{}`", file.display());
    let mut temp = write::readable().tempfile_in(dir).context(ErrorKind::Local, writing)?;
    let files = files(dir).context(ErrorKind::Local, writing)?;
    if let Some((_, size)) = files.iter().find(|(name, _)| name == INDEX) {
        write::check_index(*size)?;
    }
    if let (Some(place), Some(name)) = (file.parent(), file.file_name()) {
        let size = archive_size(files.iter().map(|(name, size)| (name, *size)));
        require_room(place, &name.to_string_lossy(), size)?;
    }
    let mut archive = ArchiveWriter::new(temp.as_file_mut());
    for (name, size) in files {
        let mut source = fs_err::File::open(dir.join(&name)).context(ErrorKind::Local, writing)?;
        archive.append(&name, size, &mut source).map_err(|error| error.while_doing(writing()))?;
    }
    archive.finish().map_err(|error| error.while_doing(writing()))?;
    write::persist(temp, file)
}

/// Lists the files of a layout with their sizes, as an archive has them: the small documents first, so that a reader of a
/// pipe knows what follows.
fn files(dir: &Path) -> io::Result<Vec<(String, u64)>> {
    let mut blobs = Vec::new();
    for algorithm in fs_err::read_dir(dir.join(BLOBS))? {
        let algorithm = algorithm?;
        for blob in fs_err::read_dir(algorithm.path())? {
            let [algorithm, blob] = [algorithm.file_name(), blob?.file_name()];
            blobs.push(format!("{BLOBS}/{}/{}", algorithm.display(), blob.display()));
        }
    }
    blobs.sort();
    let names = [OCI_LAYOUT, INDEX].map(str::to_owned).into_iter().chain(blobs);
    let sized = |name: String| fs_err::metadata(dir.join(&name)).map(|file| (name, file.len()));
    names.map(sized).collect()
}

/// Whether a name is too long for a header, as that of a blob by SHA-512 is: it stands in an entry of its own before.
const fn needs_own_entry(name: &str) -> bool {
    name.len() > NAME_LIMIT
}

fn header(name: &str, kind: EntryType, size: u64) -> Result<Header> {
    let is_plain = size < USTAR_LIMIT && kind == EntryType::Regular && !needs_own_entry(name);
    let mut header = if is_plain { Header::new_ustar() } else { Header::new_gnu() };
    let short = if needs_own_entry(name) { LONG_NAME } else { name };
    header.set_path(short).context(ErrorKind::Internal, || format!("naming `{name}`"))?;
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(size);
    for id in [Header::set_uid, Header::set_gid, Header::set_mtime] {
        id(&mut header, 0);
    }
    header.set_cksum();
    Ok(header)
}

/// Puts a failed write into words, unless whoever writes has done so.
fn unwritten(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(foreign) => Error::local("writing an archive").because(foreign),
    }
}

/// Tar's unit.
const BLOCK: u64 = 512;
/// Two blocks of nothing end an archive.
const END: usize = 1024;
/// Larger files have sizes that only GNU's headers hold.
const USTAR_LIMIT: u64 = 8 << 30;
/// No header holds a longer name in one piece.
const NAME_LIMIT: usize = 100;
/// What GNU's tar calls the entry that holds a name.
const LONG_NAME: &str = "././@LongLink";
/// What is written passes in pieces of this size.
const FRAME: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    #[test]
    fn one_layout_makes_one_archive_whenever_and_wherever_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let archives = ["a", "b"].map(|name| {
            let layout = dir.path().join(name);
            write::init(&layout).unwrap();
            let mut blobs = [&b"one"[..], b"two", b"three"];
            if name == "b" {
                blobs.reverse();
            }
            for blob in blobs {
                fs_err::write(write::blob_path(&layout, &Digest::of(blob)), blob).unwrap();
            }
            let file = dir.path().join(format!("{name}.tar"));
            write_archive(&layout, &file).unwrap();
            fs_err::read(file).unwrap()
        });
        assert_eq!(archives[0], archives[1]);
        let mut archive = tar::Archive::new(&archives[0][..]);
        let names: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names.len(), 5);
        assert_eq!(names[..2], [OCI_LAYOUT, INDEX]);
    }

    #[test]
    fn a_blob_is_what_its_descriptor_says() {
        let mut archive = ArchiveWriter::new(Vec::new());
        let right = Descriptor::new("", Digest::of(b"right"), 5);
        archive.append_blob(&right, &mut &b"right"[..], "it").unwrap();
        for (bytes, words) in [(&b"wrong"[..], "digest mismatch in `it`"), (b"righ", "ends 1 byte too early")]
        {
            let error = archive.append_blob(&right, &mut { bytes }, "it").unwrap_err();
            assert!(error.kind() == ErrorKind::Source && error.message().contains(words), "{error}");
        }
    }

    #[test]
    fn the_size_is_known_before() {
        let sizes = [0, 1, 511, 512, 513, 600_000];
        let names = ["file".to_owned(), "n".repeat(100), "n".repeat(101), "n".repeat(600)];
        let files: Vec<_> = names.iter().flat_map(|name| sizes.map(|size| (name, size))).collect();
        let mut archive = ArchiveWriter::new(Vec::new());
        for (name, size) in &files {
            archive.append(name, *size, &mut io::repeat(1)).unwrap();
        }
        assert_eq!(archive.finish().unwrap().len() as u64, archive_size(files));
        let huge = header("file", EntryType::Regular, 9 << 30).unwrap();
        assert_eq!((huge.size().unwrap(), huge.as_gnu().is_some()), (9 << 30, true));
    }
}
