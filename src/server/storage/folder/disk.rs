//! The folder, so laid out that other tools can read it:
//!
//! * `<repository>/`: an OCI layout, for `skopeo copy oci:DIR/<repository>:<tag>` and friends;
//! * `_blobs/<algorithm>/<hex>`: every blob once; those of the layouts are hard links to them;
//! * `_uploads/<id>/`: bytes on their way in ([`super::staging`]);
//! * `_lock`: locked while one of the others is made or cleared, so that several processes can share a folder.
//!
//! No repository's name has a part that begins with `_`. A blob is verified, synced, then named: what can be
//! seen is whole, and what was acknowledged survives. A blob that only `_blobs` has is nobody's, and goes.
//! Everything here waits for the disk.

use std::{
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use walkdir::{DirEntry, WalkDir};

use super::{
    index::Index,
    staging::{self, Staging},
};
use crate::{
    blob::Blob,
    error::{Context as _, Error, ErrorKind, Result},
    layout::{BLOBS, INDEX, OCI_LAYOUT, read, write},
    oci::{Algorithm, Digest, Manifest, manifest::MANIFEST_LIMIT},
    server::protocol::{Name, Refusal},
};

/// Everything the registry has.
#[derive(Clone, Debug)]
pub(in crate::server) struct Disk {
    root: PathBuf,
}

impl Disk {
    /// Opens a folder, and makes it if need be.
    pub(super) fn open(root: &Path) -> Result<Self> {
        let opening = || format!("opening the registry `{}`", root.display());
        let disk = Self { root: std::path::absolute(root).context(ErrorKind::Local, opening)? };
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let folder = disk.root.join("_blobs").join(algorithm.name());
            fs_err::create_dir_all(folder).context(ErrorKind::Local, opening)?;
        }
        fs_err::create_dir_all(disk.uploads()).context(ErrorKind::Local, opening)?;
        Ok(disk)
    }

    /// Clears what nobody needs: uploads that were not touched for `lifetime`, what killed processes left, and blobs
    /// of no repository.
    pub(in crate::server) fn clear(&self, lifetime: Duration) -> Result<()> {
        let clearing = || format!("clearing the registry `{}`", self.root.display());
        let _lock = self.lock_folder(fs_err::File::lock)?;
        staging::reap(&self.uploads(), lifetime)?;
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let folder = self.root.join("_blobs").join(algorithm.name());
            for entry in fs_err::read_dir(folder).context(ErrorKind::Local, clearing)? {
                remove_if_last(&entry.context(ErrorKind::Local, clearing)?.path())?;
            }
        }
        Ok(())
    }

    /// Returns how many uploads there are.
    pub(in crate::server) fn count_uploads(&self) -> Result<usize> {
        Ok(fs_err::read_dir(self.uploads()).context(ErrorKind::Local, || "counting uploads".into())?.count())
    }

    /// Returns the folder of an upload.
    pub(super) fn upload(&self, id: &str) -> PathBuf {
        self.uploads().join(id)
    }

    /// Makes room for the bytes of an upload.
    pub(super) fn stage(&self, id: &str, algorithm: Algorithm) -> Result<Staging> {
        let _lock = self.lock_folder(fs_err::File::lock_shared)?;
        Staging::create(self.upload(id), algorithm)
    }

    /// Makes staged bytes a blob of a repository, if they are what `digest` says.
    pub(super) fn commit(&self, staging: &Staging, name: &Name, digest: &Digest) -> Result<(), Refusal> {
        let found = staging.digest(digest.algorithm())?;
        if found != *digest {
            return Err(Refusal::wrong_digest(&found, digest));
        }
        let shared = self.shared(digest);
        if !shared.exists() {
            // Whoever clears the folder shall not wait for the disk.
            staging.sync()?;
        }
        self.link(name, digest, |path| {
            if !shared.exists() {
                staging.persist(&shared)?;
            }
            staging::link(&shared, path)
        })?;
        Ok(())
    }

    /// Makes a blob of one repository (of any, if none is named) one of another, without copying it. Returns
    /// whether there was such a blob.
    pub(in crate::server) fn mount(&self, name: &Name, digest: &Digest, from: Option<&Name>) -> Result<bool> {
        let path = match from {
            Some(from) => write::blob_path(&self.folder(from), digest),
            None => self.shared(digest),
        };
        match read::open_at(&path)? {
            // A hard link to a symlink might lead nowhere.
            Some(blob) if !blob.through_link() => {
                let linked = self.link(name, digest, |to| staging::link(&path, to));
                match linked {
                    // It was taken away just now.
                    Err(error) if read::is_missing(&error) => Ok(false),
                    linked => linked.map(|()| true),
                }
            }
            _ => Ok(false),
        }
    }

    /// Takes a blob out of a repository, and off the disk if no other has it. Returns whether it was there.
    pub(super) fn remove(&self, name: &Name, digest: &Digest) -> Result<bool> {
        let removing = || format!("removing a blob of `{name}`");
        let _lock = self.lock_folder(fs_err::File::lock)?;
        let path = write::blob_path(&self.folder(name), digest);
        match fs_err::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            removed => removed.context(ErrorKind::Local, removing)?,
        }
        path.parent().map_or(Ok(()), sync)?;
        remove_if_last(&self.shared(digest))?;
        Ok(true)
    }

    /// Returns the folder that a repository's blobs are in, where it has some.
    pub(super) fn blobs(&self, name: &Name) -> PathBuf {
        self.folder(name).join(BLOBS)
    }

    /// Opens a blob of a repository.
    pub(in crate::server) fn blob(&self, name: &Name, digest: &Digest) -> Result<Option<Blob>> {
        read::open_blob(&self.blobs(name), digest)
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

    /// Returns the names of all repositories, sorted.
    pub(in crate::server) fn repositories(&self) -> Vec<String> {
        // What cannot be read is no repository, nor is what a layout holds.
        let is_outside = |entry: &DirEntry| {
            let name = entry.file_name().to_str().unwrap_or("_");
            entry.file_type().is_dir() && !name.starts_with('_') && name != BLOBS
        };
        let folders = WalkDir::new(&self.root).min_depth(1).into_iter().filter_entry(is_outside);
        let layouts = folders.filter_map(Result::ok).filter(|folder| folder.path().join(INDEX).is_file());
        let name = |layout: DirEntry| Some(layout.path().strip_prefix(&self.root).ok()?.to_str()?.to_owned());
        let mut names: Vec<_> = layouts.filter_map(name).collect();
        names.retain(|name| name.parse::<Name>().is_ok());
        names.sort();
        names
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
    pub(super) fn lock(&self, name: &Name) -> Result<Option<LockedRepository>> {
        let folder = self.folder(name);
        // Never replaced, unlike the index.
        let file = match fs_err::File::open(folder.join(OCI_LAYOUT)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::local("opening a repository").because(error)),
        };
        file.lock().context(ErrorKind::Local, || format!("locking `{}`", folder.display()))?;
        Ok(self.index(name)?.map(|index| LockedRepository { index, folder, _file: file }))
    }

    /// Makes a repository, if it is not there, and locks it.
    pub(super) fn make(&self, name: &Name) -> Result<LockedRepository> {
        self.make_folder(name)?;
        self.lock(name)?.ok_or_else(|| Error::local(format!("the repository `{name}` has just been removed")))
    }

    fn make_folder(&self, name: &Name) -> Result<()> {
        let folder = self.folder(name);
        if folder.join(OCI_LAYOUT).exists() {
            return Ok(());
        }
        let _lock = self.lock_folder(fs_err::File::lock)?;
        write::init(&folder)?;
        sync(&folder.join(BLOBS))?;
        folder.ancestors().skip(1).take_while(|outer| outer.starts_with(&self.root)).try_for_each(sync)
    }

    /// Has `link` give a blob its name in a repository, while nobody takes blobs away.
    fn link(&self, name: &Name, digest: &Digest, link: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        self.make_folder(name)?;
        let _lock = self.lock_folder(fs_err::File::lock_shared)?;
        let blobs = self.folder(name).join(BLOBS);
        let folder = blobs.join(digest.algorithm().name());
        if !folder.exists() {
            let making = || format!("making `{}`", folder.display());
            fs_err::create_dir_all(&folder).context(ErrorKind::Local, making)?;
            sync(&blobs)?;
        }
        link(&folder.join(digest.hex()))?;
        sync(&folder)
    }

    fn folder(&self, name: &Name) -> PathBuf {
        self.root.join(name.as_str())
    }

    fn shared(&self, digest: &Digest) -> PathBuf {
        self.root.join("_blobs").join(digest.path())
    }

    fn uploads(&self) -> PathBuf {
        self.root.join("_uploads")
    }

    /// Locks the folder while uploads and repositories come and go. Each opening is a lock of its own, also against
    /// other threads.
    fn lock_folder(&self, lock: fn(&fs_err::File) -> io::Result<()>) -> Result<fs_err::File> {
        let locking = || format!("locking `{}`", self.root.display());
        let file = fs_err::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.root.join("_lock"))
            .context(ErrorKind::Local, locking)?;
        lock(&file).context(ErrorKind::Local, locking)?;
        Ok(file)
    }
}

/// A repository that nobody else changes.
#[derive(Debug)]
#[must_use = "the lock lasts as long as this"]
pub(super) struct LockedRepository {
    /// What it lists.
    pub(super) index: Index,
    folder: PathBuf,
    _file: fs_err::File,
}

impl LockedRepository {
    /// Writes what it lists.
    pub(super) fn write(&self) -> Result<()> {
        write::write_atomic(&self.folder.join(INDEX), &self.index.to_bytes())
    }
}

/// Makes what a folder lists survive a loss of power.
fn sync(folder: &Path) -> Result<()> {
    write::sync(folder).context(ErrorKind::Local, || format!("syncing `{}`", folder.display()))
}

/// Removes a blob that has no other name.
fn remove_if_last(shared: &Path) -> Result<()> {
    let removing = || format!("removing `{}`", shared.display());
    match fs_err::metadata(shared) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        found if found.as_ref().is_ok_and(|found| found.nlink() > 1) => Ok(()),
        found => found.and_then(|_| fs_err::remove_file(shared)).context(ErrorKind::Local, removing),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn put(disk: &Disk, name: &Name, bytes: &'static [u8]) -> Digest {
        let mut staging = disk.stage("staged", Algorithm::Sha256).unwrap();
        staging.append(&[Bytes::from_static(bytes)]).unwrap();
        let digest = Digest::of(bytes);
        disk.commit(&staging, name, &digest).unwrap();
        digest
    }

    fn inode(path: &Path) -> u64 {
        use std::os::unix::fs::MetadataExt as _;
        fs_err::metadata(path).unwrap().ino()
    }

    #[test]
    fn a_blob_is_stored_once_for_all_repositories() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path()).unwrap();
        let (a, b) = ("a".parse().unwrap(), "a/b".parse().unwrap());
        let digest = put(&disk, &a, b"blob");
        assert!(disk.blob(&b, &digest).unwrap().is_none());
        assert!(disk.mount(&b, &digest, Some(&a)).unwrap());
        assert!(!disk.mount(&b, &Digest::of(b"none"), Some(&a)).unwrap());
        put(&disk, &b, b"blob");
        let path = |repository: &str| dir.path().join(repository).join("blobs/sha256").join(digest.hex());
        assert_eq!(inode(&path("a")), inode(&path("a/b")));
        assert_eq!(inode(&path("a")), inode(&disk.shared(&digest)));
        assert!(dir.path().join("a/b/oci-layout").exists());
    }

    #[test]
    fn wrong_bytes_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path()).unwrap();
        let name = "a".parse().unwrap();
        let staging = disk.stage("staged", Algorithm::Sha256).unwrap();
        assert!(disk.commit(&staging, &name, &Digest::of(b"x")).is_err());
        drop(staging);
        assert!(!dir.path().join("a").exists());
        assert_eq!(fs_err::read_dir(disk.uploads()).unwrap().count(), 0);
        assert_eq!(fs_err::read_dir(dir.path().join("_blobs/sha256")).unwrap().count(), 0);
    }

    #[test]
    fn a_blob_leaves_the_disk_with_its_last_repository() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path()).unwrap();
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        let digest = put(&disk, &a, b"blob");
        assert!(disk.mount(&b, &digest, None).unwrap());
        assert!(disk.remove(&a, &digest).unwrap());
        assert!(!disk.remove(&a, &digest).unwrap());
        assert!(disk.blob(&a, &digest).unwrap().is_none());
        assert!(disk.blob(&b, &digest).unwrap().is_some());
        assert!(disk.remove(&b, &digest).unwrap());
        assert!(!disk.shared(&digest).exists());
        assert!(!disk.mount(&b, &digest, None).unwrap());
    }

    #[test]
    fn what_nobody_needs_is_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path()).unwrap();
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        let (gone, kept) = (put(&disk, &a, b"gone"), put(&disk, &b, b"kept"));
        // As an administrator removes a repository.
        fs_err::remove_dir_all(dir.path().join("a")).unwrap();
        let live = disk.stage("live", Algorithm::Sha256).unwrap();
        fs_err::create_dir(disk.upload("dead")).unwrap();
        Disk::open(dir.path()).unwrap().clear(Duration::MAX).unwrap();
        assert!(disk.upload("live").exists());
        assert!(!disk.upload("dead").exists());
        assert!(!disk.shared(&gone).exists());
        assert!(disk.shared(&kept).exists());
        drop(live);
    }
}
