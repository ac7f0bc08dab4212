//! Who encodes a layer: one process at a time, for any number that want it.
//!
//! A claim is a lock on a file of the layer's name; it ends with its holder, however that ends. Whoever comes
//! second waits and finds the entry.

use std::{fs::TryLockError, io, os::unix::fs::MetadataExt as _, path::PathBuf};

use super::{CLAIMED, Cache};
use crate::{
    codec::Encoding,
    error::{Context as _, Error, ErrorKind, Result},
    oci::DiffId,
};

/// The right to encode a layer, until it is dropped.
#[derive(Debug)]
#[must_use = "a claim ends when it is dropped"]
pub struct Claim(Option<(fs_err::File, PathBuf)>);

impl Cache {
    /// Claims a layer; `None` while somebody else has it.
    pub fn claim(&self, diff_id: &DiffId, encoding: Encoding) -> Result<Option<Claim>> {
        if self.is_scratch() {
            return Ok(Some(Claim(None)));
        }
        let claiming = || format!("claiming layer {diff_id} in the cache");
        let dir = self.dir.join(CLAIMED);
        fs_err::create_dir_all(&dir).context(ErrorKind::Local, claiming)?;
        let path = dir.join(format!("{}-{encoding}", diff_id.0.hex()));
        // For reading too: a FIFO that somebody put there would otherwise wait for its reader.
        let file = fs_err::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.context(ErrorKind::Local, claiming)?;
        match file.file().try_lock() {
            Err(TryLockError::WouldBlock) => Ok(None),
            // Where the file system knows no locks, everybody encodes.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                Ok(Some(Claim(None)))
            }
            Err(TryLockError::Error(error)) => Err(Error::local(claiming()).because(error)),
            // Its last holder may have removed it between our two steps: then it is nobody's.
            Ok(()) if file.metadata().is_ok_and(|data| data.nlink() == 0) => Ok(None),
            Ok(()) => Ok(Some(Claim(Some((file, path))))),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Removed while it is locked, so that nobody removes another's.
        if let Some((_, path)) = &self.0
            && let Err(error) = fs_err::remove_file(path)
        {
            tracing::debug!("a claim could not be removed: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode};

    use super::*;
    use crate::oci::Digest;

    #[test]
    fn a_layer_is_claimed_by_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, other) = (Cache::open(dir.path()).unwrap(), Cache::open(dir.path()).unwrap());
        let (layer, gzip) = (DiffId(Digest::of(b"plain")), Encoding::default());
        let claim = cache.claim(&layer, gzip).unwrap().unwrap();
        assert!(other.claim(&layer, gzip).unwrap().is_none());
        assert!(other.claim(&layer, Encoding::Zstd { level: 3 }).unwrap().is_some());
        assert!(other.claim(&DiffId(Digest::of(b"other")), gzip).unwrap().is_some());
        drop(claim);
        assert!(other.claim(&layer, gzip).unwrap().is_some());
        assert_eq!(fs_err::read_dir(dir.path().join(CLAIMED)).unwrap().count(), 0);
        assert!(Cache::scratch(dir.path()).claim(&layer, gzip).unwrap().is_some());
    }

    #[test]
    fn a_claim_waits_for_no_pipe() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let (layer, gzip) = (DiffId(Digest::of(b"plain")), Encoding::Gzip { level: 1 });
        let claimed = dir.path().join(CLAIMED);
        fs_err::create_dir(&claimed).unwrap();
        let path = claimed.join(format!("{}-{gzip}", layer.0.hex()));
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(cache.claim(&layer, gzip).unwrap().is_some());
        assert!(!path.exists(), "gone with the claim");
    }

    #[test]
    fn many_claims_are_held_one_after_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let layer = DiffId(Digest::of(b"plain"));
        let held = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let cache = Cache::open(dir.path()).unwrap();
                    let mut had = 0;
                    while had < 50 {
                        let Some(claim) = cache.claim(&layer, Encoding::default()).unwrap() else { continue };
                        assert_eq!(held.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        held.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        drop(claim);
                        had += 1;
                    }
                });
            }
        });
    }
}
