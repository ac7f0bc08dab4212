//! The bytes of an upload on their way in: a file of their own, hashed as it grows.
//!
//! Each lies in a folder of its own under `_uploads`, locked as long as somebody may still append, and is
//! gone when it is dropped, unless the storage gave it a name. What a killed process left is unlocked.

use std::{
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use crate::{
    blob::Blob,
    error::{Context as _, Error, ErrorKind, Result},
    oci::{Algorithm, Digest, Hasher},
};

/// The file of bytes inside an upload's folder.
const DATA: &str = "data";

/// Bytes that nobody can see yet.
#[derive(Debug)]
#[must_use = "dropping it throws its bytes away"]
pub(super) struct Staging {
    folder: PathBuf,
    file: fs_err::File,
    size: u64,
    algorithm: Algorithm,
    hasher: Hasher,
}

impl Staging {
    /// Makes an empty one in `folder`, which must not exist. [`reap`] must not run meanwhile.
    pub(super) fn create(folder: PathBuf, algorithm: Algorithm) -> Result<Self> {
        let making = || format!("making the upload `{}`", folder.display());
        fs_err::create_dir(&folder).context(ErrorKind::Local, making)?;
        let file = fs_err::OpenOptions::new().read(true).write(true).create_new(true).open(folder.join(DATA));
        let file = file.context(ErrorKind::Local, making)?;
        file.lock().context(ErrorKind::Local, making)?;
        Ok(Self { folder, file, size: 0, algorithm, hasher: Hasher::new(algorithm) })
    }

    /// Returns how many bytes there are.
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Takes the next bytes.
    pub(super) fn append(&mut self, pieces: &[Bytes]) -> Result<()> {
        for piece in pieces {
            // By offset: what a full disk let through of the last piece is written again.
            let written = self.file.file().write_all_at(piece, self.size);
            written.context(ErrorKind::Local, || format!("writing `{}`", self.path().display()))?;
            self.hasher.update(piece);
            self.size += piece.len() as u64;
        }
        Ok(())
    }

    /// Returns the digest of all bytes so far; by another hash function than the one it was made with, they
    /// are all read again.
    pub(super) fn digest(&self, algorithm: Algorithm) -> Result<Digest> {
        if algorithm == self.algorithm {
            return Ok(self.hasher.clone().finish());
        }
        let mut hasher = Hasher::new(algorithm);
        let blob = Blob::open(&self.path())?;
        let blob = blob.slice(0, self.size).ok_or_else(|| Error::local("an upload lost bytes on disk"))?;
        io::copy(&mut blob.reader(), &mut hasher)
            .context(ErrorKind::Local, || format!("reading `{}`", self.path().display()))?;
        Ok(hasher.finish())
    }

    /// Gives the bytes their name, once they are safely on disk, unless others have it already: by their
    /// digest's name they are the same. Those are not replaced, since somebody may be linking to them right
    /// now, and a file that has just lost its last name cannot be linked to.
    pub(super) fn persist(self, path: &Path) -> Result<()> {
        let writing = || format!("writing `{}`", path.display());
        self.file.set_len(self.size).context(ErrorKind::Local, writing)?;
        self.file.sync_data().context(ErrorKind::Local, writing)?;
        link(&self.path(), path)
    }

    fn path(&self) -> PathBuf {
        self.folder.join(DATA)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = fs_err::remove_dir_all(&self.folder) {
            tracing::warn!("an upload's folder stays behind: {error}");
        }
    }
}

/// Gives a file another name, unless something has it already.
pub(super) fn link(from: &Path, to: &Path) -> Result<()> {
    match fs_err::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked.context(ErrorKind::Local, || format!("linking `{}`", to.display())),
    }
}

/// Removes what dead processes left under `uploads`: whatever nobody holds locked.
pub(super) fn reap(uploads: &Path) -> Result<()> {
    let reaping = || format!("removing stale uploads from `{}`", uploads.display());
    for entry in fs_err::read_dir(uploads).context(ErrorKind::Local, reaping)? {
        let folder = entry.context(ErrorKind::Local, reaping)?.path();
        let live = match fs_err::File::open(folder.join(DATA)) {
            Ok(file) => file.try_lock().is_err(),
            Err(_) => false,
        };
        if !live {
            fs_err::remove_dir_all(&folder).context(ErrorKind::Local, reaping)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_get_their_name_or_vanish() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, named) = (dir.path().join("1"), dir.path().join("named"));
        let mut staging = Staging::create(folder.clone(), Algorithm::Sha256).unwrap();
        staging.append(&[Bytes::from_static(b"ab"), Bytes::from_static(b"c")]).unwrap();
        assert_eq!(staging.size(), 3);
        assert_eq!(staging.digest(Algorithm::Sha256).unwrap(), Digest::of(b"abc"));
        let mut long = Hasher::new(Algorithm::Sha512);
        long.update(b"abc");
        assert_eq!(staging.digest(Algorithm::Sha512).unwrap(), long.finish());
        staging.persist(&named).unwrap();
        assert_eq!(fs_err::read(&named).unwrap(), b"abc");
        assert!(!folder.exists());

        drop(Staging::create(folder.clone(), Algorithm::Sha256).unwrap());
        assert!(!folder.exists());
    }

    #[test]
    fn a_name_is_never_taken_from_bytes_that_have_it() {
        let dir = tempfile::tempdir().unwrap();
        let named = dir.path().join("named");
        let inode = || std::os::unix::fs::MetadataExt::ino(&fs_err::metadata(&named).unwrap());
        Staging::create(dir.path().join("1"), Algorithm::Sha256).unwrap().persist(&named).unwrap();
        let first = inode();
        Staging::create(dir.path().join("2"), Algorithm::Sha256).unwrap().persist(&named).unwrap();
        assert_eq!(inode(), first);
        assert!(!dir.path().join("2").exists());
    }

    #[test]
    fn only_what_nobody_holds_is_stale() {
        let dir = tempfile::tempdir().unwrap();
        let live = Staging::create(dir.path().join("live"), Algorithm::Sha256).unwrap();
        fs_err::create_dir(dir.path().join("dead")).unwrap();
        fs_err::write(dir.path().join("dead/data"), b"left").unwrap();
        fs_err::create_dir(dir.path().join("stillborn")).unwrap();
        reap(dir.path()).unwrap();
        assert!(dir.path().join("live/data").exists());
        assert!(!dir.path().join("dead").exists());
        assert!(!dir.path().join("stillborn").exists());
        drop(live);
    }
}
