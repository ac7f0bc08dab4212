//! Uploads that were not finished: what it takes to go on with one in a later process.
//!
//! One small file for each blob on its way to a repository, in a private folder, locked as long as somebody sends
//! the blob: whoever comes second opens a session of his own. It holds the session's address, which is as good as
//! a credential, so its mode is 0600 and nobody is ever shown it. It is written in place: what a power cut leaves
//! of it is no record, and costs the bytes that are sent again.

use std::{
    fs::DirBuilder,
    io::{Read, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use url::Url;

use super::{Location, session::Held};
use crate::{
    error::{Context as _, ErrorKind, Result, chain},
    lock::Locked,
    oci::Digest,
};

/// The folder of unfinished uploads.
#[derive(Clone, Debug)]
pub struct Unfinished {
    dir: PathBuf,
}

/// Whose bytes go where, by whom: what a record is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The registry, as references name it.
    pub host: String,
    /// The repository's path.
    pub repository: String,
    /// Where the credentials come from.
    pub account: String,
    /// The blob: its digest, or what its bytes are made from and how.
    pub blob: String,
}

/// The record of one upload, ours until it is dropped.
#[derive(Debug)]
#[must_use = "a record is locked until it is dropped"]
pub struct Record {
    file: Locked,
    path: PathBuf,
    key: Key,
}

/// How far an upload had come.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The session.
    pub held: Held,
    /// So many of its first bytes have this digest, where the blob's own was not known yet.
    pub prefix: Option<(u64, Digest)>,
}

#[derive(Serialize, Deserialize)]
struct Text {
    #[serde(flatten)]
    key: Key,
    location: String,
    offset: u64,
    chunk: u64,
    #[serde(default)]
    equal_parts: bool,
    /// Seconds since 1970.
    at: u64,
    prefix: Option<(u64, Digest)>,
}

impl Unfinished {
    /// Keeps records in `dir`, a folder of their own, which is made when there is one.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Takes the record of an upload, and what is in it; `None` while another process has it. What cannot be kept
    /// is not kept, and makes nothing fail.
    pub fn take(&self, key: Key) -> Option<(Record, Option<Progress>)> {
        let taken = self.open(key);
        taken.unwrap_or_else(|error| {
            tracing::debug!("the upload could not be taken up again: {}", chain(&error));
            None
        })
    }

    /// Returns whether there is a record of an upload, whosever.
    pub fn has(&self, key: &Key) -> bool {
        self.path(key).is_ok_and(|path| path.exists())
    }

    fn path(&self, key: &Key) -> Result<PathBuf> {
        let name = serde_json::to_vec(key).context(ErrorKind::Internal, || self.looking())?;
        Ok(self.dir.join(format!("{}.json", Digest::of(&name).hex())))
    }

    fn looking(&self) -> String {
        format!("looking for unfinished uploads in `{}`", self.dir.display())
    }

    fn open(&self, key: Key) -> Result<Option<(Record, Option<Progress>)>> {
        let opening = || self.looking();
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).context(ErrorKind::Local, opening)?;
        let path = self.path(&key)?;
        let mut options = fs_err::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.options_mut().mode(0o600);
        let file = options.open(&path).context(ErrorKind::Local, opening)?;
        let Ok(file) = Locked::alone(file) else { return Ok(None) };
        let mut text = String::new();
        // A FIFO would wait for its writer, who is none but us.
        if file.metadata().context(ErrorKind::Local, opening)?.is_file() {
            Read::take(&*file, TEXT_LIMIT).read_to_string(&mut text).context(ErrorKind::Local, opening)?;
        }
        let progress = serde_json::from_str::<Text>(&text).ok().and_then(|text| text.progress(&key));
        Ok(Some((Record { file, path, key }, progress)))
    }

    /// Removes the records of uploads that no registry can be expected to remember.
    pub fn sweep(&self) {
        let Ok(entries) = fs_err::read_dir(&self.dir) else { return };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let age = fs_err::metadata(&path).and_then(|data| data.modified()).ok();
            let is_old = age.and_then(|made| made.elapsed().ok()).is_some_and(|age| age > KEPT);
            if is_old
                // For writing too: a FIFO that somebody put there would otherwise wait for its writer.
                && let Ok(file) = fs_err::OpenOptions::new().read(true).write(true).open(&path)
                && file.file().try_lock().is_ok()
            {
                forget(&path);
            }
        }
    }
}

impl Text {
    /// Returns what the record says, if it is the right one and young enough.
    fn progress(self, key: &Key) -> Option<Progress> {
        let age = now().checked_sub(self.at)?;
        if self.key != *key || age > KEPT.as_secs() {
            return None;
        }
        let location = Location(self.location.parse::<Url>().ok()?);
        let Self { offset, chunk, equal_parts, .. } = self;
        let held = Held { location, offset, chunk, equal_parts };
        Some(Progress { held, prefix: self.prefix })
    }
}

impl Record {
    /// Notes how far the upload has come.
    pub fn write(&mut self, progress: Progress) {
        let Progress { held: Held { location, offset, chunk, equal_parts }, prefix } = progress;
        let location = location.0.to_string();
        let text = Text { key: self.key.clone(), location, offset, chunk, equal_parts, at: now(), prefix };
        let written = serde_json::to_vec(&text).map_err(std::io::Error::from).and_then(|text| {
            let mut file: &fs_err::File = &self.file;
            file.rewind()?;
            file.write_all(&text)?;
            file.set_len(text.len() as u64)
        });
        if let Err(error) = written {
            tracing::debug!("how far the upload is could not be noted: {error}");
        }
    }

    /// Returns what makes all that was noted outlive a power cut, as soon as the disk lets it.
    pub fn sync(&self) -> impl FnOnce() + Send + use<> {
        let copy = self.file.file().try_clone();
        move || {
            if let Err(error) = copy.and_then(|file| file.sync_data()) {
                tracing::debug!("how far the upload is may be forgotten: {error}");
            }
        }
    }

    /// Notes that there is nothing to go on with: the upload is lost.
    pub fn clear(&self) {
        if let Err(error) = self.file.set_len(0) {
            tracing::debug!("a lost upload could not be forgotten: {error}");
        }
    }

    /// Removes the record: the blob has arrived, or never will.
    pub fn finish(self) {
        forget(&self.path);
    }
}

impl Drop for Record {
    /// Leaves nothing where there is nothing to go on with: the upload may have been dropped before it began.
    fn drop(&mut self) {
        if self.file.metadata().is_ok_and(|file| file.len() == 0 && file.nlink() > 0) {
            forget(&self.path);
        }
    }
}

fn forget(path: &Path) {
    if let Err(error) = fs_err::remove_file(path) {
        tracing::debug!("a record could not be removed: {error}");
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// distribution purges uploads after a week, Quay after two days.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Locations are long where they are signed.
const TEXT_LIMIT: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, mknodat, utimensat};

    use super::*;

    fn key(blob: &str) -> Key {
        Key {
            host: "r.example".into(),
            repository: "demo".into(),
            account: "nobody".into(),
            blob: blob.into(),
        }
    }

    fn progress() -> Progress {
        let location = Location("https://r.example/v2/demo/blobs/uploads/1?_state=secret".parse().unwrap());
        let held = Held { location, offset: 5, chunk: 4, equal_parts: true };
        Progress { held, prefix: Some((4, Digest::of(b"four"))) }
    }

    #[test]
    fn what_was_noted_is_found_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let unfinished = Unfinished::new(&dir.path().join("uploads"));
        let (mut record, found) = unfinished.take(key("a")).unwrap();
        assert!(found.is_none());
        record.write(progress());
        assert!(unfinished.take(key("a")).is_none(), "it is being sent");
        let (begun, _) = unfinished.take(key("b")).unwrap();
        let path = begun.path.clone();
        drop(begun);
        assert!(!path.exists(), "there is nothing to go on with");
        let mode = |path: &Path| fs_err::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&record.path), mode(&unfinished.dir)), (0o600, 0o700));
        assert!(!format!("{record:?} {:?}", progress()).contains("secret"));
        drop(record);
        let (record, found) = unfinished.take(key("a")).unwrap();
        let found = found.unwrap();
        assert_eq!((found.held.location, found.held.offset), (progress().held.location, 5));
        assert_eq!((found.held.chunk, found.held.equal_parts), (4, true));
        assert_eq!(found.prefix, progress().prefix);
        record.clear();
        drop(record);
        let (mut record, found) = unfinished.take(key("a")).unwrap();
        assert!(found.is_none());
        record.write(progress());
        let path = record.path.clone();
        record.finish();
        assert!(!path.exists());
    }

    #[test]
    fn what_another_began_in_our_place_stays() {
        let dir = tempfile::tempdir().unwrap();
        let unfinished = Unfinished::new(dir.path());
        let (ours, _) = unfinished.take(key("a")).unwrap();
        fs_err::remove_file(&ours.path).unwrap();
        let (theirs, _) = unfinished.take(key("a")).unwrap();
        drop(ours);
        assert!(theirs.path.exists());
    }

    #[test]
    fn a_record_waits_for_no_pipe() {
        let dir = tempfile::tempdir().unwrap();
        let unfinished = Unfinished::new(dir.path());
        let path = unfinished.path(&key("a")).unwrap();
        let pipe = || mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        pipe();
        let (mut record, found) = unfinished.take(key("a")).unwrap();
        assert!(found.is_none());
        record.write(progress());
        drop(record);
        assert!(!path.exists(), "gone with the record");
        pipe();
        let old = (SystemTime::now() - 2 * KEPT).duration_since(UNIX_EPOCH).unwrap();
        let old = Timespec { tv_sec: old.as_secs().cast_signed(), tv_nsec: 0 };
        let times = Timestamps { last_access: old, last_modification: old };
        utimensat(CWD, &path, &times, AtFlags::empty()).unwrap();
        unfinished.sweep();
        assert!(!path.exists());
    }

    #[test]
    fn a_record_is_nobody_elses_and_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let unfinished = Unfinished::new(dir.path());
        let write = |change: &dyn Fn(&mut serde_json::Value)| {
            let (mut record, _) = unfinished.take(key("a")).unwrap();
            record.write(progress());
            let mut text: serde_json::Value =
                serde_json::from_slice(&fs_err::read(&record.path).unwrap()).unwrap();
            change(&mut text);
            fs_err::write(&record.path, text.to_string()).unwrap();
            drop(record);
            unfinished.take(key("a")).unwrap().1.is_some()
        };
        assert!(write(&|_| {}));
        assert!(!write(&|text| text["account"] = "somebody".into()));
        assert!(!write(&|text| text["host"] = "other.example".into()));
        assert!(!write(&|text| text["at"] = (now() - KEPT.as_secs() - 1).into()));
        assert!(!write(&|text| text["location"] = "nonsense".into()));
        assert!(!write(&|text| *text = "cut off".into()));
        let (record, _) = unfinished.take(key("a")).unwrap();
        let old = SystemTime::now() - 2 * KEPT;
        record.file.set_modified(old).unwrap();
        unfinished.sweep();
        assert!(record.path.exists(), "it is being sent");
        let path = record.path.clone();
        drop(record);
        let (mut young, _) = unfinished.take(key("b")).unwrap();
        young.write(progress());
        drop(young);
        unfinished.sweep();
        assert!(!path.exists());
        assert!(unfinished.has(&key("b")));
    }
}
