//! Bytes by offset: a regular file, several in a row, or a span of these.
//!
//! Whatever has bytes at rest (a layout's blob, an entry inside a tar, a cache entry) is a [`Blob`]. It is
//! opened so that nothing can hang (no FIFO, no device), read by offset from any thread, and never written.

use std::{
    io::{self, Read},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::io::{ReadWriteFlags, preadv2};

use crate::{
    error::{Context, Error, ErrorKind, Result, counted},
    oci::{Descriptor, Digest, Hasher},
};

/// A span of a regular file, or of several that are one, open for reading.
#[derive(Clone, Debug)]
pub struct Blob {
    bytes: Bytes,
    start: u64,
    size: u64,
    through_link: bool,
}

#[derive(Clone, Debug)]
enum Bytes {
    File(Arc<fs_err::File>),
    /// Each with the offset at which it begins.
    Row(Arc<[(u64, Blob)]>),
}

impl Blob {
    /// Opens a whole file, which must be a regular one; symlinks are followed and remembered.
    pub fn open(path: &Path) -> Result<Self> {
        let through_link =
            fs_err::symlink_metadata(path).map_err(|error| unopened(path, &error))?.file_type().is_symlink();
        let file = fs_err::OpenOptions::from_options(nonblocking())
            .open(path)
            .map_err(|error| unopened(path, &error))?;
        let metadata =
            file.metadata().context(ErrorKind::Local, || format!("reading `{}`", path.display()))?;
        if !metadata.is_file() {
            return Err(Error::source(format!("`{}` is not a regular file", path.display())));
        }
        Ok(Self { bytes: Bytes::File(Arc::new(file)), start: 0, size: metadata.len(), through_link })
    }

    /// Makes a blob of a file that is open already, like a cache entry in the making.
    pub fn from_file(file: Arc<fs_err::File>, size: u64) -> Self {
        Self { bytes: Bytes::File(file), start: 0, size, through_link: false }
    }

    /// Makes one blob of several, one after the other.
    pub fn row(blobs: Vec<Self>) -> Self {
        let through_link = blobs.iter().any(Self::through_link);
        let mut size = 0;
        let starts = blobs.into_iter().map(|blob| {
            let start = size;
            size += blob.size;
            (start, blob)
        });
        let bytes = Bytes::Row(starts.collect());
        Self { bytes, start: 0, size, through_link }
    }

    /// Returns a part of these bytes, if they reach that far.
    pub fn slice(&self, start: u64, size: u64) -> Option<Self> {
        let end = start.checked_add(size)?;
        (end <= self.size).then(|| Self {
            bytes: self.bytes.clone(),
            start: self.start + start,
            size,
            through_link: self.through_link,
        })
    }

    /// Returns the number of bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Returns whether the file was reached through a symlink, so that its digest must be checked before
    /// anything of it leaves this machine.
    pub const fn through_link(&self) -> bool {
        self.through_link
    }

    /// Returns the file's path, for messages; of several that of the one in which these bytes begin.
    pub fn path(&self) -> PathBuf {
        match &self.bytes {
            Bytes::File(file) => file.path().to_owned(),
            Bytes::Row(row) => at(row, self.start).map(|(_, blob)| blob.path()).unwrap_or_default(),
        }
    }

    /// Reads at `offset` of the blob until `buffer` is full.
    pub fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        if let Bytes::File(file) = &self.bytes {
            return file.file().read_exact_at(buffer, self.start + offset);
        }
        while !buffer.is_empty() {
            let read = self.read_at(buffer, offset)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buffer = &mut buffer[read..];
            offset += read as u64;
        }
        Ok(())
    }

    /// Reads at `offset` what the page cache has, without a wait for the disk: how many bytes of `buffer`
    /// that fills, which may be none.
    #[cfg_attr(
        not(any(feature = "server", test)),
        expect(dead_code, reason = "only the embedded registry reads so")
    )]
    pub(crate) fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> usize {
        let Bytes::File(file) = &self.bytes else { return 0 };
        let into = &mut [io::IoSliceMut::new(buffer)];
        // A file system that cannot tell refuses the flag: nothing is read then, and the caller waits.
        preadv2(file.file(), into, self.start + offset, ReadWriteFlags::NOWAIT).unwrap_or(0)
    }

    /// Reads some bytes at `offset`; none where there are none.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let offset = self.start + offset;
        match &self.bytes {
            Bytes::File(file) => file.file().read_at(buffer, offset),
            Bytes::Row(row) => {
                let Some((start, blob)) = at(row, offset) else { return Ok(0) };
                let room =
                    buffer.len().min(usize::try_from(start + blob.size - offset).unwrap_or(usize::MAX));
                blob.read_at(&mut buffer[..room], offset - start)
            }
        }
    }

    /// Returns a reader from the first to the last byte.
    pub fn reader(&self) -> BlobReader {
        BlobReader { blob: self.clone(), offset: 0 }
    }

    /// Reads everything, for small documents only: `limit` is what the caller is prepared to hold.
    pub fn read_all(&self, limit: u64, what: &str) -> Result<Vec<u8>> {
        if self.size > limit {
            return Err(Error::source(format!(
                "{what} is over the limit of {limit} bytes: {} bytes",
                self.size
            )));
        }
        let mut bytes = vec![0; self.size as usize];
        self.read_exact_at(&mut bytes, 0).context(ErrorKind::Source, || format!("reading {what}"))?;
        Ok(bytes)
    }

    /// Reads the first bytes, `most` of them if there are as many.
    pub fn head(&self, most: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; most.min(usize::try_from(self.size).unwrap_or(most))];
        self.read_exact_at(&mut bytes, 0)
            .context(ErrorKind::Source, || format!("reading `{}`", self.path().display()))?;
        Ok(bytes)
    }

    /// Reads all bytes once and compares their size and digest with a descriptor's.
    pub fn verify(&self, expected: &Descriptor) -> Result<()> {
        let mut hasher = Hasher::new(expected.digest.algorithm());
        io::copy(&mut self.reader(), &mut hasher)
            .context(ErrorKind::Source, || format!("reading `{}`", self.path().display()))?;
        let found = hasher.finish();
        if self.size != expected.size || found != expected.digest {
            return Err(mismatch(&self.path().display().to_string(), expected, self.size, &found));
        }
        Ok(())
    }
}

/// Says that bytes are not what their descriptor promises.
pub fn mismatch(name: &str, expected: &Descriptor, size: u64, found: &Digest) -> Error {
    if size == expected.size {
        Error::source(format!("digest mismatch in `{name}`: expected {}, found {found}", expected.digest))
    } else {
        Error::source(format!(
            "size mismatch in `{name}`: expected {}, found {size}",
            counted(expected.size, "byte")
        ))
    }
}

/// Reads a [`Blob`] from start to end.
#[derive(Debug)]
pub struct BlobReader {
    blob: Blob,
    offset: u64,
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.blob.size - self.offset;
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.blob.read_at(&mut buffer[..wanted], self.offset)?;
        if read == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file became shorter while it was read",
            ));
        }
        self.offset += read as u64;
        Ok(read)
    }
}

/// Returns the one of a row in which a byte lies.
fn at(row: &[(u64, Blob)], offset: u64) -> Option<&(u64, Blob)> {
    let after = row.partition_point(|(start, _)| *start <= offset);
    row[..after].last().filter(|(start, blob)| offset - start < blob.size)
}

fn nonblocking() -> std::fs::OpenOptions {
    let mut options = std::fs::OpenOptions::new();
    // A FIFO would otherwise wait for its writer for ever.
    options
        .read(true)
        .custom_flags((rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC).bits().cast_signed());
    options
}

fn unopened(path: &Path, error: &io::Error) -> Error {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => Error::source(format!("`{path}` is missing")),
        io::ErrorKind::PermissionDenied => {
            Error::source(format!("`{path}` may not be read: permission denied"))
        }
        _ => Error::source(format!("`{path}` cannot be opened")),
    }
    .because(io::Error::new(error.kind(), error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_stays_inside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs_err::write(&path, b"0123456789").unwrap();
        let blob = Blob::open(&path).unwrap();
        let part = blob.slice(2, 5).unwrap().slice(1, 3).unwrap();
        assert_eq!(part.read_all(10, "part").unwrap(), b"345");
        assert!(blob.slice(8, 3).is_none());
        assert!(blob.slice(u64::MAX, 2).is_none());
        assert!(blob.read_all(9, "it").unwrap_err().message().contains("limit"));
    }

    #[test]
    fn what_is_cached_is_the_beginning_of_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs_err::write(&path, b"0123456789").unwrap();
        let blob = Blob::open(&path).unwrap().slice(2, 8).unwrap();
        // Not every file system can tell what is cached; none may invent it.
        let mut buffer = [0; 5];
        let cached = blob.read_cached_at(&mut buffer, 1);
        assert!(cached == 0 || cached == 5, "{cached}");
        assert_eq!(buffer[..cached], b"34567"[..cached]);
        assert_eq!(Blob::row(vec![blob]).read_cached_at(&mut buffer, 1), 0);
    }

    #[test]
    fn several_files_are_one() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = ["0123", "", "4", "56789"].into_iter().zip(0..).map(|(text, name)| {
            let path = dir.path().join(name.to_string());
            fs_err::write(&path, text).unwrap();
            Blob::open(&path).unwrap()
        });
        let row = Blob::row(blobs.collect());
        for (start, size) in [(0, 10), (2, 5), (3, 1), (4, 1), (5, 5), (10, 0)] {
            let expected = &b"0123456789"[start as usize..][..size as usize];
            let part = row.slice(start, size).unwrap();
            assert_eq!(part.read_all(10, "part").unwrap(), expected);
            let mut read = Vec::new();
            part.reader().read_to_end(&mut read).unwrap();
            assert_eq!(read, expected);
        }
        assert!(row.slice(5, 6).is_none());
        assert!(row.read_exact_at(&mut [0; 2], 9).is_err());
        assert_eq!(row.slice(4, 3).unwrap().path(), dir.path().join("2"));
    }

    #[test]
    fn a_fifo_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(Blob::open(&path).unwrap_err().message().contains("not a regular file"));
    }

    #[test]
    fn a_link_is_followed_and_remembered() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("f"), b"x").unwrap();
        std::os::unix::fs::symlink("f", dir.path().join("l")).unwrap();
        assert!(Blob::open(&dir.path().join("l")).unwrap().through_link());
        assert!(!Blob::open(&dir.path().join("f")).unwrap().through_link());
        assert!(Blob::open(&dir.path().join("none")).unwrap_err().message().contains("missing"));
    }
}
