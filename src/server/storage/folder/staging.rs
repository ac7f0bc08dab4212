//! The bytes of an upload on their way in: a file of their own, hashed as it grows.
//!
//! Each lies in a folder of its own under `_uploads`: `data`, locked by whoever may append to it. What one request
//! brings as a whole is gone when it is dropped, unless the storage gave it a name. What takes several requests is
//! kept, and has its `state` beside it: whose it is, how many bytes count, and their running hash. Nothing else
//! knows of it, so any process can go on with it. The bytes are synced, then the state is replaced in one step:
//! whatever kills us in between leaves more bytes than the state counts, and those are written again.

use std::{
    fmt, io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    blob::Blob,
    error::{Context as _, Error, ErrorKind, Result},
    lock::Locked,
    oci::{Algorithm, Digest, Hasher},
};

/// The file of bytes inside an upload's folder.
const DATA: &str = "data";
/// The file that says how many of them count.
const STATE: &str = "state";

/// So many bytes of one request are at most lost when this process is killed. Each time they are synced: more often
/// would make the disk wait.
const CHECKPOINT: u64 = 64 << 20;

/// Longer than anybody needs to see whether a file is locked.
const MOMENT: Duration = Duration::from_millis(5);

/// Bytes that nobody can see yet.
#[derive(Debug)]
#[must_use = "dropping it throws its bytes away, unless it is kept"]
pub(super) struct Staging {
    folder: PathBuf,
    file: Locked,
    size: u64,
    hasher: Hasher,
    /// Who goes on with it in other requests, if anybody.
    keeper: Option<Keeper>,
}

#[derive(Debug)]
struct Keeper {
    repository: String,
    /// How many bytes the state counts.
    saved: u64,
}

/// What is known of an upload that is kept.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    /// The repository it is for.
    pub(super) repository: String,
    /// How many bytes count.
    pub(super) size: u64,
    algorithm: Algorithm,
    /// As the hash function writes it, in base64.
    hash: String,
}

/// What became of the wish to append.
#[derive(Debug)]
pub(super) enum Taken {
    /// Another request is at it, maybe of another process.
    Busy,
    /// There is no such upload any more.
    Gone,
    /// Nobody else can append.
    Ours(Staging),
}

impl State {
    /// Reads the state of the upload in `folder`, if there is one. A damaged one is none: its client begins anew.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(STATE);
        match fs_err::read(&path) {
            Ok(bytes) => {
                let state = serde_json::from_slice(&bytes);
                Ok(state.inspect_err(|error| damaged(folder, error)).ok())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::local("reading an upload's state").because(error)),
        }
    }
}

impl Staging {
    /// Makes an empty one in `folder`, which must not exist. [`reap`] must not run meanwhile.
    pub(super) fn create(folder: PathBuf, algorithm: Algorithm) -> Result<Self> {
        let making = || format!("making the upload `{}`", folder.display());
        fs_err::create_dir(&folder).context(ErrorKind::Local, making)?;
        let file = fs_err::OpenOptions::new().read(true).write(true).create_new(true).open(folder.join(DATA));
        let file = file.context(ErrorKind::Local, making)?;
        let file = Locked::wait(file).context(ErrorKind::Local, making)?;
        Ok(Self { folder, file, size: 0, hasher: Hasher::new(algorithm), keeper: None })
    }

    /// Goes on with the one that is kept in `folder`.
    pub(super) fn resume(folder: PathBuf) -> Result<Taken> {
        let opening = || format!("opening the upload `{}`", folder.display());
        let mut file = lock(&folder);
        if let Ok(None) = file {
            // Who only asks holds it for a moment.
            thread::sleep(MOMENT);
            file = lock(&folder);
        }
        let file = match file {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Taken::Gone),
            locked => locked.context(ErrorKind::Local, opening)?,
        };
        let Some(file) = file else { return Ok(Taken::Busy) };
        // Whoever held the lock until now may have ended it.
        let Some(State { repository, size, algorithm, hash }) = State::read(&folder)? else {
            return Ok(Taken::Gone);
        };
        let hasher = STANDARD.decode(hash).ok().and_then(|state| Hasher::resume(algorithm, &state));
        let Some(hasher) = hasher else {
            damaged(&folder, &"its hash is none");
            return Ok(Taken::Gone);
        };
        let keeper = Some(Keeper { repository, saved: size });
        Ok(Taken::Ours(Self { folder, file, size, hasher, keeper }))
    }

    /// Returns how many bytes there are.
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Lets other requests for this repository go on with it.
    pub(super) fn keep(&mut self, repository: String) -> Result<()> {
        self.write_state(&repository)?;
        self.keeper = Some(Keeper { repository, saved: self.size });
        Ok(())
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
        match &self.keeper {
            Some(keeper) if self.size - keeper.saved >= CHECKPOINT => self.save(),
            _ => Ok(()),
        }
    }

    /// Makes all bytes so far count, if it is kept.
    pub(super) fn save(&mut self) -> Result<()> {
        let Some(mut keeper) = self.keeper.take_if(|keeper| keeper.saved != self.size) else { return Ok(()) };
        let saved = self.sync().and_then(|()| self.write_state(&keeper.repository));
        if saved.is_ok() {
            keeper.saved = self.size;
        }
        self.keeper = Some(keeper);
        saved
    }

    /// Returns the digest of all bytes so far; by another hash function than the one it was made with, they
    /// are all read again.
    pub(super) fn digest(&self, algorithm: Algorithm) -> Result<Digest> {
        if algorithm == self.hasher.algorithm() {
            return Ok(self.hasher.clone().finish());
        }
        let mut hasher = Hasher::new(algorithm);
        let blob = Blob::open(&self.path())?;
        let blob = blob.slice(0, self.size).ok_or_else(|| Error::local("an upload lost bytes on disk"))?;
        io::copy(&mut blob.reader(), &mut hasher)
            .context(ErrorKind::Local, || format!("reading `{}`", self.path().display()))?;
        Ok(hasher.finish())
    }

    /// Brings the bytes safely to disk.
    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_data().context(ErrorKind::Local, || format!("writing `{}`", self.path().display()))
    }

    /// Gives the bytes their name, once they are safely on disk, unless others have it already: by their
    /// digest's name they are the same. Those are not replaced, since somebody may be linking to them right
    /// now, and a file that has just lost its last name cannot be linked to.
    pub(super) fn persist(&self, path: &Path) -> Result<()> {
        // What a killed process wrote and its state does not count.
        let cut = self.file.set_len(self.size);
        cut.context(ErrorKind::Local, || format!("writing `{}`", path.display()))?;
        self.sync()?;
        link(&self.path(), path)
    }

    /// Keeps it no longer: its end is this value's.
    pub(super) fn end(&mut self) {
        self.keeper = None;
    }

    fn write_state(&self, repository: &str) -> Result<()> {
        let state = State {
            repository: repository.to_owned(),
            size: self.size,
            algorithm: self.hasher.algorithm(),
            hash: STANDARD.encode(self.hasher.state()),
        };
        let bytes = serde_json::to_vec(&state).expect("strings and numbers are always JSON");
        // Only who holds the lock writes here. Not synced: an older state is as good, and a damaged one ends the
        // upload.
        let (new, path) = (self.folder.join("state.new"), self.folder.join(STATE));
        fs_err::write(&new, bytes)
            .and_then(|()| fs_err::rename(&new, &path))
            .context(ErrorKind::Local, || format!("writing `{}`", path.display()))
    }

    fn path(&self) -> PathBuf {
        self.folder.join(DATA)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let left = match &self.keeper {
            None => fs_err::remove_dir_all(&self.folder),
            // A disk that is too full for the state would stay so until the upload is given up.
            Some(keeper) if keeper.saved != self.size => self.file.set_len(keeper.saved),
            Some(_) => Ok(()),
        };
        if let Err(error) = left
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("of an upload more stays behind than counts: {error}");
        }
    }
}

fn damaged(folder: &Path, why: &dyn fmt::Display) {
    tracing::warn!("the state of the upload `{}` is damaged: {why}", folder.display());
}

/// Locks the upload in `folder`, unless somebody else has it locked.
fn lock(folder: &Path) -> io::Result<Option<Locked>> {
    let data = fs_err::OpenOptions::new().read(true).write(true).open(folder.join(DATA))?;
    Ok(Locked::alone(data).ok())
}

/// Returns whether somebody is appending to the upload in `folder`.
pub(super) fn is_busy(folder: &Path) -> bool {
    fs_err::File::open(folder.join(DATA)).is_ok_and(|data| Locked::shared(data).is_err())
}

/// Gives a file another name, unless something has it already.
pub(super) fn link(from: &Path, to: &Path) -> Result<()> {
    match fs_err::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked.context(ErrorKind::Local, || format!("linking `{}`", to.display())),
    }
}

/// Ends the upload in `folder`, whoever is at it: a request that appends finds nothing left to save. Returns
/// whether there was one.
pub(super) fn cancel(folder: &Path) -> Result<bool> {
    // In one step; no upload has such a name.
    let gone = folder.with_extension("gone");
    match fs_err::rename(folder, &gone) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        renamed => renamed.context(ErrorKind::Local, || "ending an upload".into())?,
    }
    fs_err::remove_dir_all(&gone).context(ErrorKind::Local, || "ending an upload".into())?;
    Ok(true)
}

/// Removes what nobody will go on with from `uploads`: what dead processes left of single requests, and what was kept
/// but not touched for `lifetime`. What somebody holds locked stays.
pub(super) fn reap(uploads: &Path, lifetime: Duration) -> Result<()> {
    let reaping = || format!("removing stale uploads from `{}`", uploads.display());
    for entry in fs_err::read_dir(uploads).context(ErrorKind::Local, reaping)? {
        let folder = entry.context(ErrorKind::Local, reaping)?.path();
        if is_stale(&folder, lifetime) {
            cancel(&folder)?;
        }
    }
    Ok(())
}

fn is_stale(folder: &Path, lifetime: Duration) -> bool {
    let Ok(data) = fs_err::File::open(folder.join(DATA)) else { return true };
    let Ok(data) = Locked::alone(data) else { return false };
    let Ok(state) = fs_err::metadata(folder.join(STATE)) else { return true };
    let touched = data.metadata().and_then(|data| Ok(data.modified()?.max(state.modified()?)));
    let age = touched.ok().and_then(|touched| SystemTime::now().duration_since(touched).ok());
    age.is_some_and(|age| age > lifetime)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn staged(folder: &Path, bytes: &'static [u8]) -> Staging {
        let mut staging = Staging::create(folder.to_owned(), Algorithm::Sha256).unwrap();
        staging.append(&[Bytes::from_static(bytes)]).unwrap();
        staging
    }

    fn resumed(folder: &Path) -> Staging {
        match Staging::resume(folder.to_owned()).unwrap() {
            Taken::Ours(staging) => staging,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn bytes_get_their_name_or_vanish() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, named) = (dir.path().join("1"), dir.path().join("named"));
        let mut staging = Staging::create(folder.clone(), Algorithm::Sha256).unwrap();
        staging.append(&[Bytes::from_static(b"ab"), Bytes::from_static(b"c")]).unwrap();
        assert_eq!(staging.size(), 3);
        assert_eq!(staging.digest(Algorithm::Sha256).unwrap(), Digest::of(b"abc"));
        assert_eq!(staging.digest(Algorithm::Sha512).unwrap(), Algorithm::Sha512.digest(b"abc"));
        staging.persist(&named).unwrap();
        drop(staging);
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
        staged(&dir.path().join("1"), b"").persist(&named).unwrap();
        let first = inode();
        staged(&dir.path().join("2"), b"").persist(&named).unwrap();
        assert_eq!(inode(), first);
        assert!(!dir.path().join("2").exists());
    }

    #[test]
    fn what_is_kept_goes_on_where_its_state_says() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, named) = (dir.path().join("1"), dir.path().join("named"));
        let mut staging = staged(&folder, b"ab");
        staging.keep("a/b".into()).unwrap();
        staging.append(&[Bytes::from_static(b"c")]).unwrap();
        staging.save().unwrap();
        assert!(matches!(Staging::resume(folder.clone()).unwrap(), Taken::Busy));
        // These nobody counts: there is no room for a state that would.
        staging.append(&[Bytes::from_static(b"lost")]).unwrap();
        drop(staging);
        assert_eq!(fs_err::read(folder.join(DATA)).unwrap(), b"abc");
        // Nor these: the process is killed before it can.
        fs_err::write(folder.join(DATA), b"abclost").unwrap();

        let state = State::read(&folder).unwrap().unwrap();
        assert_eq!((&*state.repository, state.size), ("a/b", 3));
        let mut staging = resumed(&folder);
        staging.append(&[Bytes::from_static(b"d")]).unwrap();
        assert_eq!(staging.digest(Algorithm::Sha256).unwrap(), Digest::of(b"abcd"));
        staging.persist(&named).unwrap();
        assert_eq!(fs_err::read(&named).unwrap(), b"abcd");
        staging.end();
        drop(staging);
        assert!(matches!(Staging::resume(folder).unwrap(), Taken::Gone));
    }

    #[test]
    fn a_request_of_any_length_is_saved_on_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("1");
        let mut staging = staged(&folder, b"");
        staging.keep("a".into()).unwrap();
        let pieces = vec![Bytes::from(vec![0; 1 << 20]); (CHECKPOINT >> 20) as usize + 1];
        pieces.chunks(1).for_each(|piece| staging.append(piece).unwrap());
        assert_eq!(State::read(&folder).unwrap().unwrap().size, CHECKPOINT);
    }

    #[test]
    fn a_cancelled_upload_cannot_be_saved_or_named() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("1");
        let mut staging = staged(&folder, b"");
        staging.keep("a".into()).unwrap();
        assert!(cancel(&folder).unwrap());
        assert!(!cancel(&folder).unwrap());
        staging.append(&[Bytes::from_static(b"late")]).unwrap();
        staging.save().unwrap_err();
        staging.persist(&dir.path().join("named")).unwrap_err();
        drop(staging);
        assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_damaged_state_is_no_upload() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("1");
        staged(&folder, b"ab").keep("a".into()).unwrap();
        let state = fs_err::read_to_string(folder.join(STATE)).unwrap();
        for damaged in [String::new(), state.replace("\"hash\":\"", "\"hash\":\"A"), "{}".into()] {
            fs_err::write(folder.join(STATE), &damaged).unwrap();
            assert!(matches!(Staging::resume(folder.clone()).unwrap(), Taken::Gone));
        }
    }

    #[test]
    fn only_what_nobody_goes_on_with_is_stale() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let live = staged(&path("live"), b"");
        for (name, age) in [("young", 1), ("old", 3), ("old-and-busy", 3)] {
            staged(&path(name), b"kept").keep("a".into()).unwrap();
            let touched = SystemTime::now() - Duration::from_secs(age * 3600);
            for file in [DATA, STATE] {
                let file = fs_err::OpenOptions::new().write(true).open(path(name).join(file)).unwrap();
                file.file().set_modified(touched).unwrap();
            }
        }
        let busy = resumed(&path("old-and-busy"));
        fs_err::create_dir(path("dead")).unwrap();
        fs_err::write(path("dead/data"), b"left").unwrap();
        fs_err::create_dir(path("stillborn")).unwrap();
        reap(dir.path(), Duration::from_secs(2 * 3600)).unwrap();
        let mut left: Vec<_> =
            fs_err::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["live", "old-and-busy", "young"]);
        drop((live, busy));
    }
}
