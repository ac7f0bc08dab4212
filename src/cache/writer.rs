//! A blob in the making: written once from start to end, readable all the while, visible when it is whole.
//!
//! The temp file of a cache lies on the same disk as the blobs and is locked as long as its writer lives, so
//! that the leftovers of killed processes can be told from the work of others and [`sweep`] may take them. A
//! scratch's file has no name at all. Writes go straight to the file: callers write whole blocks.

use std::{
    io::{self, Write},
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::Arc,
};

use tempfile::NamedTempFile;

use super::{Cache, Entry, Keeping, WRITING, make_way, remove};
use crate::{
    blob::Blob,
    codec::{Encoded, Encoding},
    error::{Context as _, Error, ErrorKind, Result, counted},
    layout,
};

/// Writes a blob into the cache. Dropped without [`Writer::commit`], it leaves nothing behind.
#[derive(Debug)]
#[must_use]
pub struct Writer {
    cache: Cache,
    /// The name of `file`, unless it is a scratch's.
    temp: Option<NamedTempFile>,
    file: Arc<fs_err::File>,
    size: u64,
}

impl Writer {
    pub(super) fn new(cache: &Cache) -> io::Result<Self> {
        let (temp, file, path) = match cache.keeping {
            Keeping::All => {
                let temp = locked_in(&cache.dir.join(WRITING))?;
                let (file, path) = (temp.as_file().try_clone()?, temp.path().to_owned());
                (Some(temp), file, path)
            }
            Keeping::Run(_) => {
                fs_err::create_dir_all(&cache.dir)?;
                (None, tempfile::tempfile_in(&cache.dir)?, cache.dir.clone())
            }
        };
        let file = Arc::new(fs_err::File::from_parts(file, path));
        Ok(Self { cache: cache.clone(), temp, file, size: 0 })
    }

    /// Returns a handle to read what has been written so far, and afterwards, whatever becomes of the writer.
    pub fn blob_file(&self) -> Arc<fs_err::File> {
        Arc::clone(&self.file)
    }

    /// Gives the finished blob its name, then makes the entry by which it is found.
    pub fn commit(self, encoded: &Encoded, encoding: Encoding) -> Result<Blob> {
        if self.size != encoded.size {
            let (size, expected) = (self.size, encoded.size);
            return Err(Error::internal(format!("{size} bytes were written of a blob of {expected}")));
        }
        let Encoded { digest, size, plain_size, .. } = encoded.clone();
        let entry = Entry { digest, size, plain_size };
        let Some(temp) = self.temp else {
            let blob = Blob::from_file(self.file, self.size);
            if let Keeping::Run(run) = &self.cache.keeping {
                run.lock().insert((encoded.diff_id.clone(), encoding), (entry, blob.clone()));
            }
            return Ok(blob);
        };
        let path = layout::write::blob_path(&self.cache.dir, &encoded.digest);
        let file = temp
            .as_file()
            .try_clone()
            .context(ErrorKind::Local, || format!("opening `{}`", path.display()))?;
        make_way(&path)?;
        layout::write::persist(temp, &path)?;
        self.cache.write(&self.cache.encoded_path(&encoded.diff_id, encoding), &entry)?;
        Ok(Blob::from_file(Arc::new(fs_err::File::from_parts(file, path)), size))
    }

    /// Says in which folder a write failed and, when its disk is full, how much it did not hold.
    fn unwritten(&self, error: io::Error, wanted: usize) -> io::Error {
        let (kind, dir) = (error.kind(), self.cache.dir.display());
        let ours = match kind {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                let needed = self.size + wanted as u64;
                Error::local(format!(
                    "no space left in `{dir}`: the layer needs {} or more",
                    counted(needed, "byte")
                ))
                .with_hint("make room there, or name another folder with `--cache-dir`")
            }
            _ => Error::local(format!("writing to `{dir}`")),
        };
        io::Error::new(kind, ours.because(error))
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.file().write(bytes).map_err(|error| self.unwritten(error, bytes.len()))?;
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes a temp file that no sweep takes.
pub(super) fn locked_in(dir: &Path) -> io::Result<NamedTempFile> {
    loop {
        let temp = tempfile::Builder::new().prefix("layer-").tempfile_in(dir)?;
        // Where the file system knows no locks, nothing is ever swept.
        temp.as_file().lock().ok();
        // Somebody's sweep may have been quicker than our lock.
        if temp.as_file().metadata()?.nlink() > 0 {
            return Ok(temp);
        }
    }
}

/// Removes the temp files of writers that were killed: those that nobody locks.
pub(super) fn sweep(dir: &Path) -> Result<()> {
    let sweeping = || format!("looking for leftovers in `{}`", dir.display());
    for entry in fs_err::read_dir(dir).context(ErrorKind::Local, sweeping)? {
        let entry = entry.context(ErrorKind::Local, sweeping)?;
        let path = entry.path();
        // A pipe would be waited for.
        if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        // One that cannot be opened was just named or removed by its writer.
        let Ok(file) = fs_err::OpenOptions::new().write(true).open(&path) else { continue };
        if file.try_lock().is_ok() {
            remove(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::codec::transcode::transcode;

    #[test]
    fn a_full_disk_names_the_folder_and_the_need() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Cache::scratch(dir.path()).writer().unwrap();
        let full = fs_err::OpenOptions::new().write(true).open("/dev/full").unwrap();
        writer.file = Arc::new(full);
        writer.size = 1000;
        let go_on = |_| ControlFlow::Continue(());
        let error = transcode(&mut &b"plain"[..], Encoding::default(), 1, &mut writer, &go_on).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Local);
        let folder = format!("no space left in `{}`: the layer needs 10", dir.path().display());
        assert!(error.message().starts_with(&folder), "{error}");
        assert_eq!(error.find::<io::Error>().unwrap().kind(), io::ErrorKind::StorageFull);
        assert!(error.hints()[0].contains("--cache-dir"));
    }

    #[test]
    fn a_blob_of_another_size_is_not_committed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let mut writer = cache.writer().unwrap();
        let go_on = |_| ControlFlow::Continue(());
        let encoded = transcode(&mut &b"plain"[..], Encoding::default(), 1, &mut writer, &go_on).unwrap();
        writer.write_all(b"more").unwrap();
        let error = writer.commit(&encoded, Encoding::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(cache.lookup(&encoded.diff_id, Encoding::default()).unwrap().is_none());
    }
}
