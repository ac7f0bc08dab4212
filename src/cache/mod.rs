//! Encoded blobs by diff ID: each layer is encoded once in its life.
//!
//! An OCI layout folder (`blobs/sha256/…`) with one small entry per (diff ID, encoding, encoder version) and
//! one per source digest whose diff ID was proven. Written by temp file, fsync and rename, so that any
//! number of processes may share it and a kill at any moment leaves nothing half-made in sight.
//!
//! An entry is a promise about names and sizes only: whoever sends a blob hashes it on the way, and calls
//! [`Cache::forget`] when it is not what the entry says. What is damaged is dropped and made again.

mod writer;

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use writer::Writer;

use crate::{
    blob::Blob,
    codec::{ENCODER_VERSION, Encoding},
    error::{Context as _, Error, ErrorKind, Result},
    layout,
    oci::{DiffId, Digest},
};

/// Where encoded blobs are written: a folder that keeps them, or a scratch that forgets.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
    keeping: Keeping,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeping {
    All,
    Nothing,
}

/// What is known about an encoded blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The digest of its bytes.
    pub digest: Digest,
    /// The number of its bytes.
    pub size: u64,
    /// The number of bytes it decodes to.
    pub plain_size: u64,
}

impl Cache {
    /// Opens the cache in `dir`, which is made if it is missing. A folder in which somebody else could have
    /// put blobs is refused.
    pub fn open(dir: &Path) -> Result<Self> {
        let opening = || format!("opening the cache `{}`", dir.display());
        DirBuilder::new().recursive(true).mode(0o700).create(dir).context(ErrorKind::Local, opening)?;
        must_be_ours(dir)?;
        layout::write::init(dir)?;
        let writing = dir.join(WRITING);
        fs_err::create_dir_all(&writing).context(ErrorKind::Local, opening)?;
        writer::sweep(&writing)?;
        Ok(Self { dir: dir.to_owned(), keeping: Keeping::All })
    }

    /// Returns a cache in which nothing is ever found or kept: its blobs have no names and are gone with
    /// their last handle. `dir` says on which disk.
    pub fn scratch(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), keeping: Keeping::Nothing }
    }

    /// Returns the folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns what the cache holds of a layer in this encoding. An entry that cannot be read, or whose blob
    /// is missing or has another size, is dropped.
    pub fn lookup(&self, diff_id: &DiffId, encoding: Encoding) -> Result<Option<Entry>> {
        let Some(entry) = self.read::<Entry>(&self.encoded_path(diff_id, encoding))? else {
            return Ok(None);
        };
        if self.blob(&entry)?.is_some() {
            return Ok(Some(entry));
        }
        self.forget(diff_id, encoding)?;
        Ok(None)
    }

    /// Opens the blob of an entry, if it is still there and of the right size.
    pub fn blob(&self, entry: &Entry) -> Result<Option<Blob>> {
        match Blob::open(&layout::write::blob_path(&self.dir, &entry.digest)) {
            Ok(blob) => Ok((blob.size() == entry.size).then_some(blob)),
            Err(error) if error.find::<io::Error>().is_some_and(is_missing) => Ok(None),
            Err(error) => Err(Error::local("opening a cached blob").because(error)),
        }
    }

    /// Starts a blob whose digest is not known yet.
    pub fn writer(&self) -> Result<Writer> {
        Writer::new(self).context(ErrorKind::Local, || format!("writing to `{}`", self.dir.display()))
    }

    /// Drops a layer whose blob turned out to be damaged.
    pub fn forget(&self, diff_id: &DiffId, encoding: Encoding) -> Result<()> {
        let path = self.encoded_path(diff_id, encoding);
        if let Some(entry) = self.read::<Entry>(&path)? {
            remove(&path)?;
            remove(&layout::write::blob_path(&self.dir, &entry.digest))?;
        }
        Ok(())
    }

    /// Returns the diff ID of the source blob `digest`, if it was ever proven by decoding it.
    pub fn proven(&self, digest: &Digest) -> Result<Option<DiffId>> {
        self.read(&self.proven_path(digest))
    }

    /// Remembers that the blob `digest` was decoded and has this diff ID.
    pub fn remember(&self, digest: &Digest, diff_id: &DiffId) -> Result<()> {
        if self.proven(digest)?.as_ref() == Some(diff_id) {
            return Ok(());
        }
        self.write(&self.proven_path(digest), diff_id)
    }

    fn encoded_path(&self, diff_id: &DiffId, encoding: Encoding) -> PathBuf {
        let DiffId(digest) = diff_id;
        let dir = self.dir.join(ENCODED).join(digest.algorithm().name()).join(digest.hex());
        dir.join(format!("{encoding}-v{ENCODER_VERSION}.json"))
    }

    fn proven_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(PROVEN).join(digest.algorithm().name()).join(format!("{}.json", digest.hex()))
    }

    /// Reads a small file of ours. One that makes no sense is dropped.
    fn read<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>> {
        if self.keeping == Keeping::Nothing {
            return Ok(None);
        }
        let bytes = match fs_err::read(path) {
            Ok(bytes) => bytes,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(Error::local("reading the cache").because(error)),
        };
        if let Ok(value) = serde_json::from_slice(&bytes) {
            return Ok(Some(value));
        }
        tracing::warn!("dropped a damaged cache entry: `{}`", path.display());
        remove(path)?;
        Ok(None)
    }

    fn write<T: Serialize>(&self, path: &Path, value: &T) -> Result<()> {
        if self.keeping == Keeping::Nothing {
            return Ok(());
        }
        let writing = || format!("writing `{}`", path.display());
        let bytes = serde_json::to_vec(value).context(ErrorKind::Internal, writing)?;
        fs_err::create_dir_all(path.parent().unwrap_or(&self.dir)).context(ErrorKind::Local, writing)?;
        layout::write::write_atomic(path, &bytes)
    }
}

/// Refuses a folder in which somebody else could have put blobs.
fn must_be_ours(dir: &Path) -> Result<()> {
    let name = dir.display();
    let folder = fs_err::metadata(dir).context(ErrorKind::Local, || format!("opening the cache `{name}`"))?;
    // Whoever owns what we make there is who we are.
    let ours = tempfile::tempfile_in(dir)
        .and_then(|file| file.metadata())
        .context(ErrorKind::Local, || format!("writing to the cache `{name}`"))?;
    match distrust(folder.mode(), folder.uid(), ours.uid()) {
        Some(why) => Err(Error::local(format!("{why}: `{name}`"))),
        None => Ok(()),
    }
}

fn distrust(mode: u32, owner: u32, us: u32) -> Option<&'static str> {
    if owner != us {
        Some("the cache folder belongs to another user")
    } else if mode & 0o022 != 0 {
        Some("others may write to the cache folder")
    } else {
        None
    }
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// Removes a file that another process may have removed already.
fn remove(path: &Path) -> Result<()> {
    match fs_err::remove_file(path) {
        Err(error) if !is_missing(&error) => Err(Error::local("dropping a cache entry").because(error)),
        _ => Ok(()),
    }
}

/// Entries of encoded blobs: `<algorithm>/<diff ID>/<encoding>-v<encoder version>.json`.
const ENCODED: &str = "longshore/encoded";
/// Proven diff IDs of source blobs: `<algorithm>/<digest>.json`.
const PROVEN: &str = "longshore/proven";
/// Blobs in the making, each locked by its writer.
const WRITING: &str = "longshore/writing";

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, io::Write as _, ops::ControlFlow, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::codec::{Encoded, transcode::transcode};

    const GZIP: Encoding = Encoding::Gzip { level: 1 };

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("cache")).unwrap();
        (dir, cache)
    }

    fn write(cache: &Cache, plain: &[u8]) -> (Encoded, Writer) {
        let mut writer = cache.writer().unwrap();
        let go_on = |_| ControlFlow::Continue(());
        let encoded = transcode(&mut &plain[..], GZIP, 1, &mut writer, &go_on).unwrap();
        (encoded, writer)
    }

    fn fill(cache: &Cache, plain: &[u8]) -> (Encoded, Blob) {
        let (encoded, writer) = write(cache, plain);
        let blob = writer.commit(&encoded, GZIP).unwrap();
        (encoded, blob)
    }

    /// Lists the files below a folder, except those that make it a layout.
    fn files(dir: &Path) -> Vec<PathBuf> {
        walkdir::WalkDir::new(dir)
            .sort_by_file_name()
            .into_iter()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_type().is_file() && entry.depth() > 1)
            .map(|entry| entry.path().strip_prefix(dir).unwrap().to_owned())
            .collect()
    }

    #[test]
    fn what_was_committed_is_found() {
        let (_dir, cache) = cache();
        let diff_id = DiffId(Digest::of(b"plain"));
        assert_eq!(cache.lookup(&diff_id, GZIP).unwrap(), None);

        let (encoded, made) = fill(&cache, b"plain");
        assert_eq!(encoded.diff_id, diff_id);
        let expected = Entry { digest: encoded.digest.clone(), size: encoded.size, plain_size: 5 };
        let again = Cache::open(&cache.dir).unwrap();
        assert_eq!(again.lookup(&diff_id, GZIP).unwrap(), Some(expected.clone()));
        assert_eq!(again.lookup(&diff_id, Encoding::Gzip { level: 2 }).unwrap(), None);

        let found = again.blob(&expected).unwrap().unwrap();
        for blob in [made, found] {
            assert_eq!(Digest::of(&blob.read_all(100, "it").unwrap()), encoded.digest);
            assert!(blob.path().ends_with(encoded.digest.hex()), "{:?}", blob.path());
        }
    }

    #[test]
    fn the_folder_is_a_layout_and_private() {
        let (_dir, cache) = cache();
        assert_eq!(fs_err::metadata(&cache.dir).unwrap().mode() & 0o777, 0o700);
        for name in [layout::OCI_LAYOUT, layout::INDEX] {
            assert!(cache.dir.join(name).is_file());
        }
    }

    #[test]
    fn a_folder_of_others_is_refused() {
        let (_dir, cache) = cache();
        fs_err::set_permissions(&cache.dir, Permissions::from_mode(0o770)).unwrap();
        let error = Cache::open(&cache.dir).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Local);
        assert!(error.message().starts_with("others may write"), "{error}");

        for (mode, owner, trusted) in
            [(0o700, 7, true), (0o755, 7, true), (0o720, 7, false), (0o702, 7, false), (0o700, 0, false)]
        {
            assert_eq!(distrust(mode, owner, 7).is_none(), trusted, "{mode:o} of {owner}");
        }
    }

    #[test]
    fn a_damaged_entry_is_dropped() {
        let (_dir, cache) = cache();
        let (encoded, _) = fill(&cache, b"plain");
        let path = cache.encoded_path(&encoded.diff_id, GZIP);
        for damage in ["", "{", "[]", r#"{"digest":"sha256:../x","size":1,"plainSize":1}"#] {
            fs_err::write(&path, damage).unwrap();
            assert_eq!(cache.lookup(&encoded.diff_id, GZIP).unwrap(), None);
            assert!(!path.exists(), "{damage}");
        }
        fill(&cache, b"plain");
        assert!(cache.lookup(&encoded.diff_id, GZIP).unwrap().is_some(), "made again");
    }

    #[test]
    fn an_entry_without_its_whole_blob_is_dropped() {
        let (_dir, cache) = cache();
        let truncate = |path: &Path| fs_err::write(path, b"short").unwrap();
        let unlink = |path: &Path| fs_err::remove_file(path).unwrap();
        for damage in [&truncate as &dyn Fn(&Path), &unlink] {
            let (encoded, blob) = fill(&cache, b"plain");
            damage(&blob.path());
            assert_eq!(cache.lookup(&encoded.diff_id, GZIP).unwrap(), None);
            assert_eq!(files(&cache.dir), [] as [PathBuf; 0]);
        }
    }

    #[test]
    fn what_is_forgotten_is_gone() {
        let (_dir, cache) = cache();
        let (kept, _) = fill(&cache, b"one");
        let (damaged, _) = fill(&cache, b"two");
        cache.forget(&damaged.diff_id, GZIP).unwrap();
        cache.forget(&damaged.diff_id, GZIP).unwrap();
        assert_eq!(cache.lookup(&damaged.diff_id, GZIP).unwrap(), None);
        assert!(cache.lookup(&kept.diff_id, GZIP).unwrap().is_some());
        assert_eq!(files(&cache.dir).len(), 2);
    }

    #[test]
    fn proven_diff_ids_are_remembered() {
        let (_dir, cache) = cache();
        let (digest, diff_id) = (Digest::of(b"encoded"), DiffId(Digest::of(b"plain")));
        assert_eq!(cache.proven(&digest).unwrap(), None);
        cache.remember(&digest, &diff_id).unwrap();
        cache.remember(&digest, &diff_id).unwrap();
        assert_eq!(cache.proven(&digest).unwrap(), Some(diff_id));
        fs_err::write(cache.proven_path(&digest), "\"sha256:1\"").unwrap();
        assert_eq!(cache.proven(&digest).unwrap(), None);
    }

    #[test]
    fn a_blob_can_be_read_while_it_is_written() {
        let (_dir, cache) = cache();
        for cache in [&cache, &Cache::scratch(&cache.dir)] {
            let mut writer = cache.writer().unwrap();
            writer.write_all(b"first").unwrap();
            let behind = Blob::from_file(writer.blob_file(), 5);
            writer.write_all(b", second").unwrap();
            assert_eq!(behind.read_all(10, "it").unwrap(), b"first");
            drop(writer);
            assert_eq!(behind.read_all(10, "it").unwrap(), b"first", "a handle outlives the name");
        }
    }

    #[test]
    fn a_writer_that_does_not_commit_leaves_nothing() {
        let (_dir, cache) = cache();
        let (encoded, writer) = write(&cache, b"plain");
        assert_eq!(files(&cache.dir).len(), 1);
        drop(writer);
        assert_eq!(files(&cache.dir), [] as [PathBuf; 0]);
        assert_eq!(cache.lookup(&encoded.diff_id, GZIP).unwrap(), None);
    }

    #[test]
    fn leftovers_of_the_killed_are_swept_and_those_of_the_living_are_not() {
        let (_dir, cache) = cache();
        fs_err::write(cache.dir.join(WRITING).join("layer-killed"), b"half").unwrap();
        let (encoded, writer) = write(&cache, b"plain");
        assert_eq!(files(&cache.dir).len(), 2);
        let again = Cache::open(&cache.dir).unwrap();
        assert_eq!(files(&cache.dir).len(), 1);
        writer.commit(&encoded, GZIP).unwrap();
        assert!(again.lookup(&encoded.diff_id, GZIP).unwrap().is_some());
    }

    #[test]
    fn a_scratch_keeps_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::scratch(&dir.path().join("beside/it"));
        let (encoded, writer) = write(&cache, b"plain");
        let blob = writer.commit(&encoded, GZIP).unwrap();
        cache.remember(&encoded.digest, &encoded.diff_id).unwrap();
        assert_eq!(files(dir.path()), [] as [PathBuf; 0]);
        assert_eq!(Digest::of(&blob.read_all(100, "it").unwrap()), encoded.digest);
        assert_eq!(cache.lookup(&encoded.diff_id, GZIP).unwrap(), None);
        assert_eq!(cache.proven(&encoded.digest).unwrap(), None);
        cache.forget(&encoded.diff_id, GZIP).unwrap();
    }

    #[test]
    fn a_scratch_in_a_caches_own_folder_finds_nothing_there() {
        let (_dir, cache) = cache();
        let (encoded, _) = fill(&cache, b"plain");
        let scratch = Cache::scratch(&cache.dir);
        assert_eq!(scratch.lookup(&encoded.diff_id, GZIP).unwrap(), None);
        scratch.forget(&encoded.diff_id, GZIP).unwrap();
        assert!(cache.lookup(&encoded.diff_id, GZIP).unwrap().is_some());
    }

    #[test]
    fn many_may_make_the_same_entry_at_once() {
        let (_dir, cache) = cache();
        let plain = vec![3; 100_000];
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let own = Cache::open(&cache.dir).unwrap();
                    for _ in 0..5 {
                        let (encoded, blob) = fill(&own, &plain);
                        assert_eq!(Digest::of(&blob.read_all(1000, "it").unwrap()), encoded.digest);
                        assert!(own.lookup(&encoded.diff_id, GZIP).unwrap().is_some());
                    }
                });
            }
        });
        assert_eq!(files(&cache.dir).len(), 2, "one blob, one entry");
    }
}
