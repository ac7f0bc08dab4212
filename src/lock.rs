//! A file that nobody else has locked, until its holder lets go.
//!
//! A lock lasts until the last copy of the open file is closed, and every program that we start (a credential
//! helper) has such copies for a moment, between fork and exec. So the lock is given back, not only the file closed.

use std::{fs::TryLockError, io, ops::Deref};

/// A locked file.
#[derive(Debug)]
#[must_use = "the lock ends when this is dropped"]
pub(crate) struct Locked(fs_err::File);

impl Locked {
    /// Waits until nobody else has the file locked.
    pub(crate) fn wait(file: fs_err::File) -> io::Result<Self> {
        file.lock()?;
        Ok(Self(file))
    }

    /// Fails where anybody has the file locked.
    pub(crate) fn alone(file: fs_err::File) -> Result<Self, TryLockError> {
        file.file().try_lock()?;
        Ok(Self(file))
    }

    /// Fails where anybody has the file locked for himself.
    #[cfg(any(feature = "server", test))]
    pub(crate) fn shared(file: fs_err::File) -> Result<Self, TryLockError> {
        file.file().try_lock_shared()?;
        Ok(Self(file))
    }
}

impl Deref for Locked {
    type Target = fs_err::File;

    fn deref(&self) -> &fs_err::File {
        &self.0
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Closing it is the other way, which cannot fail.
        self.0.unlock().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_an_open_file_do_not_outlive_its_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let locked = Locked::wait(fs_err::File::create_new(&path).unwrap()).unwrap();
        let copy = locked.file().try_clone().unwrap();
        let open = || fs_err::File::open(&path).unwrap();
        Locked::shared(open()).unwrap_err();
        drop(locked);
        let (one, two) = (Locked::shared(open()).unwrap(), Locked::shared(open()).unwrap());
        Locked::alone(open()).unwrap_err();
        drop((one, two));
        drop(Locked::alone(open()).unwrap());
        drop(copy);
    }
}
