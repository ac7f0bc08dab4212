//! One small JSON file for each host, in a folder of what is remembered.
//!
//! Whatever is kept so can be lost: a file that cannot be read is none, and of two processes that write at the same
//! time one wins.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    blob::Blob,
    error::{Context as _, ErrorKind, Result},
};

/// Nothing that is remembered of a host is so large.
const LIMIT: u64 = 64 << 20;

/// A folder of files by host.
#[derive(Clone, Debug)]
pub(super) struct HostFiles {
    dir: PathBuf,
}

#[derive(Deserialize, Serialize)]
struct Record<T> {
    host: String,
    #[serde(flatten)]
    content: T,
}

impl HostFiles {
    /// Keeps files in `dir`, which is made when there is one.
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Returns what is kept of a host.
    pub(super) fn read<T: DeserializeOwned>(&self, host: &str) -> Option<T> {
        let bytes = Blob::open(&self.path(host)).ok()?.read_all(LIMIT, host).ok()?;
        let record: Record<T> = serde_json::from_slice(&bytes).ok()?;
        (record.host == host).then_some(record.content)
    }

    /// Keeps this of a host instead of what was kept before.
    pub(super) fn write<T: Serialize>(&self, host: &str, content: T) -> Result<()> {
        let writing = || format!("writing to `{}`", self.dir.display());
        let record = Record { host: host.to_owned(), content };
        let bytes = serde_json::to_vec(&record).context(ErrorKind::Internal, writing)?;
        fs_err::create_dir_all(&self.dir).context(ErrorKind::Local, writing)?;
        // Whole or not at all, and no more: what a power cut takes is found out again.
        let mut temp = tempfile::NamedTempFile::new_in(&self.dir).context(ErrorKind::Local, writing)?;
        temp.write_all(&bytes).context(ErrorKind::Local, writing)?;
        temp.persist(self.path(host)).map_err(|error| error.error).context(ErrorKind::Local, writing)?;
        Ok(())
    }

    pub(super) fn path(&self, host: &str) -> PathBuf {
        // `[::1]:5000` too is a file's name, and `..` is none.
        let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
        self.dir.join(format!("{}.json", host.chars().map(safe).collect::<String>()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn what_is_no_file_of_ours_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let files = HostFiles::new(dir.path());
        let kept = BTreeMap::from([("what".to_owned(), 1)]);
        let read = || files.read::<BTreeMap<String, u32>>("a");
        files.write("a", &kept).unwrap();
        assert_eq!(read().unwrap(), kept);
        // Nobody is waited for, and nothing large is read.
        let path = files.path("a");
        let mut long = fs_err::read(&path).unwrap();
        long.resize(LIMIT as usize + 1, b' ');
        fs_err::write(&path, long).unwrap();
        assert_eq!(read(), None);
        fs_err::remove_file(&path).unwrap();
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert_eq!(read(), None);
    }
}
