//! A large file in the making, whole or in parts of one size, beside its place until all of it is there.
//!
//! Everything is written into a folder `.NAME.…` next to the place. It is locked as long as somebody writes there, so
//! that what a kill leaves behind can be told from the work of others, and goes when the same file is written again.
//! What fails, for whatever reason, leaves the place as it was.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use tempfile::TempDir;

use super::{
    parts::{Part, Parts},
    write::{replaceable, sync},
};
use crate::{
    error::{Context as _, Error, ErrorKind, Result, counted},
    oci::{Algorithm, Hasher},
};

/// Writes a file, or its parts. Dropped before [`Output::finish`], it leaves nothing behind.
#[derive(Debug)]
#[must_use]
pub struct Output {
    dir: PathBuf,
    name: String,
    size: u64,
    /// The size of all parts but the last, where there are parts.
    split: Option<u64>,
    stage: Stage,
    lock: fs_err::File,
    done: Vec<Part>,
    current: fs_err::File,
    written: u64,
    hasher: Hasher,
}

/// The folder in which an output is made: it is gone when any handle on it is dropped.
#[derive(Clone, Debug)]
#[must_use]
pub struct Stage(Arc<Mutex<Option<TempDir>>>);

impl Output {
    /// Begins a file of `size` bytes at `place`, in parts of `split` bytes where that is said.
    pub fn create(place: &Path, size: u64, split: Option<u64>) -> Result<Self> {
        let writing = || format!("writing `{}`", place.display());
        let place = replaceable(place)?;
        let (Some(dir), Some(name)) = (place.parent(), place.file_name().and_then(|name| name.to_str()))
        else {
            return Err(Error::usage(format!("`{}` names no file", place.display())));
        };
        if split.is_some_and(|split| size.div_ceil(split.max(1)) > PARTS) {
            return Err(Error::usage(format!("{} would be more than {PARTS} parts", counted(size, "byte")))
                .with_hint("choose larger ones"));
        }
        let (temp, lock) = workplace(dir, &format!(".{name}.")).context(ErrorKind::Local, writing)?;
        require_room(dir, name, size)?;
        let current = create(temp.path(), 0).context(ErrorKind::Local, writing)?;
        Ok(Self {
            dir: dir.to_owned(),
            name: name.to_owned(),
            size,
            split,
            stage: Stage(Arc::new(Mutex::new(Some(temp)))),
            lock,
            done: Vec::new(),
            current,
            written: 0,
            hasher: Hasher::new(Algorithm::Sha256),
        })
    }

    /// Returns a handle on what is unfinished.
    pub fn stage(&self) -> Stage {
        self.stage.clone()
    }

    /// Puts everything in its place, and returns what leads to it: the file, or the list of its parts.
    pub fn finish(mut self) -> Result<PathBuf> {
        let place = self.dir.join(&self.name);
        let writing = || format!("writing `{}`", place.display());
        self.end_file().context(ErrorKind::Local, writing)?;
        let stage = self.stage.0.lock().take();
        let stage = stage.ok_or_else(|| Error::internal("the output was given up"))?;
        let Some(each) = self.split else {
            fs_err::rename(staged(stage.path(), 0), &place).context(ErrorKind::Local, writing)?;
            sync(&self.dir).context(ErrorKind::Local, writing)?;
            return Ok(place);
        };
        for (number, part) in self.done.iter().enumerate() {
            let from = staged(stage.path(), number);
            fs_err::rename(from, self.dir.join(&part.name)).context(ErrorKind::Local, writing)?;
        }
        sync(&self.dir).context(ErrorKind::Local, writing)?;
        let list = self.dir.join(Parts::list_name(&self.name));
        Parts { size: self.size, each, parts: std::mem::take(&mut self.done) }.replace(&list)?;
        drop(self.lock);
        Ok(list)
    }

    fn end_file(&mut self) -> io::Result<()> {
        self.current.sync_all()?;
        let hasher = std::mem::replace(&mut self.hasher, Hasher::new(Algorithm::Sha256));
        let name = Parts::name(&self.name, self.done.len());
        self.done.push(Part { name, digest: hasher.finish() });
        Ok(())
    }

    fn next_part(&mut self) -> io::Result<()> {
        self.end_file()?;
        let stage = self.stage.0.lock().as_ref().map(|stage| stage.path().to_owned());
        let stage = stage.ok_or(io::ErrorKind::BrokenPipe)?;
        self.current = create(&stage, self.done.len())?;
        self.written = 0;
        Ok(())
    }

    fn unwritten(&self, error: io::Error) -> io::Error {
        let kind = error.kind();
        let ours = match kind {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                no_room(&self.dir, &self.name, self.size)
            }
            io::ErrorKind::FileTooLarge => Error::local(format!(
                "`{}` holds no file of {}",
                self.dir.display(),
                counted(self.size, "byte")
            ))
            .with_hint("`--split 4GB` makes parts that every file system takes"),
            _ => Error::local(format!("writing `{}`", self.dir.join(&self.name).display())),
        };
        io::Error::new(kind, ours.because(error))
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut room = bytes.len();
        if let Some(split) = self.split {
            if self.written >= split {
                self.next_part().map_err(|error| self.unwritten(error))?;
            }
            room = room.min(usize::try_from(split - self.written).unwrap_or(usize::MAX));
        }
        let written = self.current.write(&bytes[..room]).map_err(|error| self.unwritten(error))?;
        if self.split.is_some() {
            self.hasher.update(&bytes[..written]);
        }
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(self.0.lock().take());
    }
}

/// Three digits number the parts.
const PARTS: u64 = 1000;

fn staged(stage: &Path, number: usize) -> PathBuf {
    stage.join(number.to_string())
}

fn create(stage: &Path, number: usize) -> io::Result<fs_err::File> {
    fs_err::File::create_new(staged(stage, number))
}

/// Makes a folder in `dir` for what is unfinished, which stays locked as long as the file is open. What killed processes
/// have left there under the same prefix goes.
pub fn workplace(dir: &Path, prefix: &str) -> io::Result<(TempDir, fs_err::File)> {
    sweep(dir, prefix);
    loop {
        let temp = tempfile::Builder::new().prefix(prefix).tempdir_in(dir)?;
        let lock = match fs_err::File::open(temp.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            lock => lock?,
        };
        // Where the file system knows no locks, nothing is ever swept.
        lock.file().lock().ok();
        // Somebody's sweep may have been quicker than our lock.
        if temp.path().exists() {
            return Ok((temp, lock));
        }
    }
}

/// Removes what killed processes have left in `dir`: what nobody locks.
pub fn sweep(dir: &Path, prefix: &str) {
    let Ok(entries) = fs_err::read_dir(dir) else { return };
    let ours = |name: &str| {
        let rest = name.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.len() == RANDOM && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    };
    for entry in entries.filter_map(Result::ok).filter(|entry| entry.file_name().to_str().is_some_and(ours)) {
        let path = entry.path();
        let Ok(lock) = fs_err::File::open(&path) else { continue };
        if path.is_dir() && lock.file().try_lock().is_ok() {
            // What stays takes room, and harms nobody.
            fs_err::remove_dir_all(path).ok();
        }
    }
}

/// The crate tempfile appends so many letters and digits.
const RANDOM: usize = 6;

/// Says so before hours of writing where a disk cannot hold `size` bytes.
pub(super) fn require_room(dir: &Path, name: &str, size: u64) -> Result<()> {
    match rustix::fs::statvfs(dir) {
        // Some file systems do not count.
        Ok(disk) if disk.f_blocks > 0 && disk.f_bavail.saturating_mul(disk.f_frsize) < size => {
            Err(no_room(dir, name, size))
        }
        _ => Ok(()),
    }
}

fn no_room(dir: &Path, name: &str, size: u64) -> Error {
    Error::local(format!("no space left in `{}`: `{name}` needs {}", dir.display(), counted(size, "byte")))
        .with_hint("make room there, or write it elsewhere")
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::{blob::Blob, error::chain};

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs_err::read_dir(dir).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_there_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("f.tar");
        fs_err::write(&place, "before").unwrap();
        let mut output = Output::create(&place, 5, None).unwrap();
        output.write_all(b"whole").unwrap();
        assert_eq!(fs_err::read(&place).unwrap(), b"before");
        assert_eq!(output.finish().unwrap(), place);
        assert_eq!(fs_err::read(&place).unwrap(), b"whole");
        let output = Output::create(&place, 5, None).unwrap();
        drop(output);
        assert_eq!(names(dir.path()), ["f.tar"]);
    }

    #[test]
    fn parts_are_as_large_as_was_asked_and_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("f.tar");
        let mut output = Output::create(&place, 10, Some(4)).unwrap();
        output.write_all(b"0123456789").unwrap();
        let list = output.finish().unwrap();
        assert_eq!(names(dir.path()), ["f.tar.000", "f.tar.001", "f.tar.002", "f.tar.parts"]);
        assert_eq!(fs_err::read(dir.path().join("f.tar.001")).unwrap(), b"4567");
        let parts = Parts::parse(&fs_err::read(&list).unwrap()).unwrap();
        assert_eq!(parts.open(dir.path()).unwrap().read_all(10, "it").unwrap(), b"0123456789");
        // Fewer parts take the place of more.
        let mut output = Output::create(&place, 4, Some(4)).unwrap();
        output.write_all(b"0123").unwrap();
        output.finish().unwrap();
        assert_eq!(names(dir.path()), ["f.tar.000", "f.tar.parts"]);
        assert!(Output::create(&place, 1001, Some(1)).unwrap_err().message().contains("1000 parts"));
    }

    #[test]
    fn what_is_given_up_or_killed_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("f");
        let mut output = Output::create(&place, 10, Some(4)).unwrap();
        drop(output.stage());
        assert!(output.write_all(b"0123456789").is_err());
        assert_eq!(names(dir.path()), Vec::<String>::new());
        // As a kill leaves it, beside somebody's who is at work and somebody else's.
        fs_err::create_dir(dir.path().join(".f.abcDEF")).unwrap();
        fs_err::create_dir(dir.path().join(".f.config")).unwrap();
        let working = Output::create(&place, 10, None).unwrap();
        fs_err::create_dir(dir.path().join(".f.toolong")).unwrap();
        let other = Output::create(&place, 10, None).unwrap();
        assert_eq!(names(dir.path()).len(), 3);
        drop((working, other));
        assert_eq!(names(dir.path()), [".f.toolong"]);
    }

    #[test]
    fn who_makes_a_folder_while_others_sweep_has_one() {
        let dir = tempfile::tempdir().unwrap();
        let make = || {
            for _ in 0..200 {
                let (stage, _lock) = workplace(dir.path(), ".f.").unwrap();
                fs_err::write(stage.path().join("file"), "").unwrap();
            }
        };
        thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(make))));
        assert_eq!(names(dir.path()), Vec::<String>::new());
    }

    #[test]
    fn a_full_disk_is_told_before_and_in_the_middle() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("f.tar");
        let words = format!("no space left in `{}`: `f.tar` needs", dir.path().display());
        let error = Output::create(&place, u64::MAX / 2, None).unwrap_err();
        assert!(error.kind() == ErrorKind::Local && error.message().starts_with(&words), "{error}");
        let mut output = Output::create(&place, 5, None).unwrap();
        output.current = fs_err::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = output.write_all(b"whole").unwrap_err();
        assert!(chain(&error).starts_with(&format!("{words} 5 bytes")), "{}", chain(&error));
        assert!(Blob::open(&place).is_err());
    }
}
