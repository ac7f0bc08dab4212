//! The folder, so laid out that other tools can read it:
//!
//! * `<repository>/`: an OCI layout, for `skopeo copy oci:DIR/<repository>:<tag>` and friends;
//! * `_blobs/<algorithm>/<hex>`: every blob once; those of the layouts are hard links to them;
//! * `_uploads/<id>/`: bytes on their way in ([`super::staging`]);
//! * `_lock`: locked while one of the others is made or cleared, so that several processes can share a folder.
//!
//! No repository's name has a part that begins with `_`. A blob is verified, synced, then named: what can be
//! seen is whole, and what was acknowledged survives. Everything here waits for the disk.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::{
    index::Index,
    reply::Refusal,
    staging::{self, Staging},
};
use crate::{
    blob::Blob,
    error::{Context as _, Error, ErrorKind, Result},
    layout::{BLOBS, INDEX, OCI_LAYOUT, write},
    oci::{Algorithm, Digest, Manifest, Repository, manifest::MANIFEST_LIMIT},
};

/// A repository's name, safe as a path below the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name(String);

impl FromStr for Name {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        // Repositories can lie inside one another: these would be taken for a part of the outer layout.
        let reserved = |part: &str| matches!(part, BLOBS | INDEX | OCI_LAYOUT);
        match Repository::new("", text) {
            Ok(_) if !text.split('/').any(reserved) => Ok(Self(text.to_owned())),
            _ => Err(Refusal::bad_request("NAME_INVALID", "this cannot be a repository's name")),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything the registry has.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    root: PathBuf,
}

impl Storage {
    /// Opens a folder, makes it if need be, and clears what killed processes left in it.
    pub(super) fn open(root: &Path) -> Result<Self> {
        let opening = || format!("opening the registry `{}`", root.display());
        let storage = Self { root: std::path::absolute(root).context(ErrorKind::Local, opening)? };
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let folder = storage.root.join("_blobs").join(algorithm.name());
            fs_err::create_dir_all(folder).context(ErrorKind::Local, opening)?;
        }
        fs_err::create_dir_all(storage.uploads()).context(ErrorKind::Local, opening)?;
        let lock = storage.open_lock()?;
        lock.lock().context(ErrorKind::Local, opening)?;
        staging::reap(&storage.uploads())?;
        Ok(storage)
    }

    /// Makes room for the bytes of an upload and returns it with the upload's id.
    pub(super) fn stage(&self, algorithm: Algorithm) -> Result<(String, Staging)> {
        let lock = self.open_lock()?;
        lock.lock_shared().context(ErrorKind::Local, || "making an upload".into())?;
        let id = format!("{:032x}", rand::random::<u128>());
        let staging = Staging::create(self.uploads().join(&id), algorithm)?;
        Ok((id, staging))
    }

    /// Makes staged bytes a blob of a repository, if they are what `digest` says.
    pub(super) fn commit(&self, staging: Staging, name: &Name, digest: &Digest) -> Result<(), Refusal> {
        let found = staging.digest(digest.algorithm())?;
        if found != *digest {
            let message = format!("the digest of the bytes is {found}, not {digest}");
            return Err(Refusal::bad_request("DIGEST_INVALID", message));
        }
        let shared = self.shared(digest);
        if !shared.exists() {
            staging.persist(&shared)?;
        }
        Ok(self.link(&shared, name, digest)?)
    }

    /// Makes a blob of one repository (of any, if none is named) one of another, without copying it. Returns
    /// whether there was such a blob.
    pub(super) fn mount(&self, name: &Name, digest: &Digest, from: Option<&Name>) -> Result<bool> {
        let path = match from {
            Some(from) => write::blob_path(&self.folder(from), digest),
            None => self.shared(digest),
        };
        match existing(Blob::open(&path))? {
            // A hard link to a symlink might lead nowhere.
            Some(blob) if !blob.through_link() => self.link(&path, name, digest).map(|()| true),
            _ => Ok(false),
        }
    }

    /// Opens a blob of a repository.
    pub(super) fn blob(&self, name: &Name, digest: &Digest) -> Result<Option<Blob>> {
        existing(Blob::open(&write::blob_path(&self.folder(name), digest)))
    }

    /// Reads a manifest of a repository. `declared` is its media type, where the index says it.
    pub(super) fn manifest(
        &self,
        name: &Name,
        digest: &Digest,
        declared: Option<&str>,
    ) -> Result<Option<Manifest>> {
        let blob = match self.blob(name, digest)? {
            Some(blob) if blob.size() <= MANIFEST_LIMIT => blob,
            _ => return Ok(None),
        };
        let bytes = blob.read_all(MANIFEST_LIMIT, "a manifest")?;
        // A config or layer has a digest too, and is no manifest.
        Ok(Manifest::parse(bytes.into(), digest.clone(), declared).ok())
    }

    /// Reads what a repository lists; nothing if there is no such repository.
    pub(super) fn index(&self, name: &Name) -> Result<Option<Index>> {
        let path = self.folder(name).join(INDEX);
        match fs_err::read(&path) {
            Ok(bytes) => Index::parse(&bytes)
                .map(Some)
                .map_err(|error| error.while_doing(format!("reading `{}`", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::local("reading a repository's index").because(error)),
        }
    }

    /// Locks a repository against every other process and request that would change what it lists; nothing
    /// if there is no such repository.
    pub(super) fn lock(&self, name: &Name) -> Result<Option<Locked>> {
        let folder = self.folder(name);
        // Never replaced, unlike the index.
        let file = match fs_err::File::open(folder.join(OCI_LAYOUT)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::local("opening a repository").because(error)),
        };
        file.lock().context(ErrorKind::Local, || format!("locking `{}`", folder.display()))?;
        Ok(Some(Locked { folder, _file: file }))
    }

    /// Makes a repository, if it is not there, and locks it.
    pub(super) fn make(&self, name: &Name) -> Result<Locked> {
        self.make_folder(name)?;
        self.lock(name)?.ok_or_else(|| Error::local(format!("the repository `{name}` has just been removed")))
    }

    fn make_folder(&self, name: &Name) -> Result<()> {
        let folder = self.folder(name);
        if folder.join(OCI_LAYOUT).exists() {
            return Ok(());
        }
        let lock = self.open_lock()?;
        lock.lock().context(ErrorKind::Local, || format!("locking `{}`", self.root.display()))?;
        write::init(&folder)?;
        sync(&folder.join(BLOBS))?;
        folder.ancestors().skip(1).take_while(|outer| outer.starts_with(&self.root)).try_for_each(sync)
    }

    fn link(&self, source: &Path, name: &Name, digest: &Digest) -> Result<()> {
        self.make_folder(name)?;
        let blobs = self.folder(name).join(BLOBS);
        let folder = blobs.join(digest.algorithm().name());
        if !folder.exists() {
            let making = || format!("making `{}`", folder.display());
            fs_err::create_dir_all(&folder).context(ErrorKind::Local, making)?;
            sync(&blobs)?;
        }
        staging::link(source, &folder.join(digest.hex()))?;
        sync(&folder)
    }

    fn folder(&self, name: &Name) -> PathBuf {
        self.root.join(&name.0)
    }

    fn shared(&self, digest: &Digest) -> PathBuf {
        self.root.join("_blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    fn uploads(&self) -> PathBuf {
        self.root.join("_uploads")
    }

    /// Opens the file that is locked while uploads and repositories come and go. Each opening is a lock of
    /// its own, also against other threads.
    fn open_lock(&self) -> Result<fs_err::File> {
        fs_err::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.root.join("_lock"))
            .context(ErrorKind::Local, || format!("locking `{}`", self.root.display()))
    }
}

/// A repository that nobody else changes.
#[derive(Debug)]
#[must_use = "the lock lasts as long as this"]
pub(super) struct Locked {
    folder: PathBuf,
    _file: fs_err::File,
}

impl Locked {
    /// Writes what the repository lists.
    pub(super) fn write(&self, index: &Index) -> Result<()> {
        write::write_atomic(&self.folder.join(INDEX), &index.to_bytes())
    }

    /// Takes a blob out of the repository; other repositories keep it.
    pub(super) fn remove(&self, digest: &Digest) -> Result<()> {
        match fs_err::remove_file(write::blob_path(&self.folder, digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::local("removing a manifest").because(error))
            }
            _ => Ok(()),
        }
    }
}

/// Makes what a folder lists survive a loss of power.
fn sync(folder: &Path) -> Result<()> {
    fs_err::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .context(ErrorKind::Local, || format!("syncing `{}`", folder.display()))
}

fn existing(opened: Result<Blob>) -> Result<Option<Blob>> {
    let missing = |error: &Error| {
        error.find::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    match opened {
        Ok(blob) => Ok(Some(blob)),
        Err(error) if missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn put(storage: &Storage, name: &Name, bytes: &'static [u8]) -> Digest {
        let (_, mut staging) = storage.stage(Algorithm::Sha256).unwrap();
        staging.append(&[Bytes::from_static(bytes)]).unwrap();
        let digest = Digest::of(bytes);
        storage.commit(staging, name, &digest).unwrap();
        digest
    }

    fn inode(path: &Path) -> u64 {
        use std::os::unix::fs::MetadataExt as _;
        fs_err::metadata(path).unwrap().ino()
    }

    #[test]
    fn a_blob_is_stored_once_for_all_repositories() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path()).unwrap();
        let (a, b) = ("a".parse().unwrap(), "a/b".parse().unwrap());
        let digest = put(&storage, &a, b"blob");
        assert!(storage.blob(&b, &digest).unwrap().is_none());
        assert!(storage.mount(&b, &digest, Some(&a)).unwrap());
        assert!(!storage.mount(&b, &Digest::of(b"none"), Some(&a)).unwrap());
        put(&storage, &b, b"blob");
        let path = |repository: &str| dir.path().join(repository).join("blobs/sha256").join(digest.hex());
        assert_eq!(inode(&path("a")), inode(&path("a/b")));
        assert_eq!(inode(&path("a")), inode(&storage.shared(&digest)));
        assert!(dir.path().join("a/b/oci-layout").exists());
    }

    #[test]
    fn wrong_bytes_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path()).unwrap();
        let name = "a".parse().unwrap();
        let (_, staging) = storage.stage(Algorithm::Sha256).unwrap();
        assert!(storage.commit(staging, &name, &Digest::of(b"x")).is_err());
        assert!(!dir.path().join("a").exists());
        assert_eq!(fs_err::read_dir(storage.uploads()).unwrap().count(), 0);
        assert_eq!(fs_err::read_dir(dir.path().join("_blobs/sha256")).unwrap().count(), 0);
    }

    #[test]
    fn another_process_on_the_same_folder_keeps_its_uploads() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path()).unwrap();
        let (id, live) = storage.stage(Algorithm::Sha256).unwrap();
        fs_err::create_dir(storage.uploads().join("dead")).unwrap();
        Storage::open(dir.path()).unwrap();
        assert!(storage.uploads().join(&id).exists());
        assert!(!storage.uploads().join("dead").exists());
        drop(live);
    }
}
