//! A disk that is soon full.

use std::{path::Path, process::Command};

use tempfile::TempDir;

use super::capability::is_unavailable;

/// A file system of 4 MiB, which goes when it is dropped.
pub(crate) struct SmallDisk(TempDir);

impl SmallDisk {
    /// Makes one, where this machine lets us.
    pub(crate) fn new() -> Option<Self> {
        if is_unavailable("mount") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(dir.path()).status();
        assert!(mounted.unwrap().success());
        Some(Self(dir))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(self.path()).status().ok();
    }
}
