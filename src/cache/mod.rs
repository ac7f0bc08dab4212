//! Encoded blobs by diff ID: each layer is encoded once in its life.
//!
//! An OCI layout folder (`blobs/sha256/…`) with one small entry per (diff ID, encoding, encoder version) and
//! one per source digest whose diff ID was proven. Written by temp file, fsync and rename, so that any
//! number of processes may share it and a kill at any moment leaves nothing half-made in sight.
//!
//! An entry is a promise about names and sizes only: whoever sends a blob hashes it on the way, and calls
//! [`Cache::forget`] when it is not what the entry says. What is damaged is dropped and made again: an entry is
//! sealed with its own name, so that another layer's is not taken for it. An entry's file is touched when it is
//! used, so that [`Cache::prune`] can tell which was not for the longest time.

mod claim;
mod prune;
mod seal;
mod trust;
mod writer;

use std::{
    collections::HashMap,
    fs::DirBuilder,
    io::{self, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use parking_lot::Mutex;
use rustix::io::Errno;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use claim::Claim;
pub use prune::{Freed, Kept};
pub(crate) use seal::sealed;
pub use writer::Writer;

use self::{
    seal::unsealed,
    trust::{Distrusted, must_be_ours, must_hold_no_images},
};
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

#[derive(Clone, Debug)]
enum Keeping {
    /// On disk, for every later run.
    All,
    /// In files without a name, as long as somebody has this cache.
    Run(Arc<Mutex<Run>>),
}

/// What was encoded in this run.
type Run = HashMap<(DiffId, Encoding), (Entry, Blob)>;

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
    /// put blobs is refused, and one that holds images: what no entry names would be swept out of it.
    pub fn open(dir: &Path) -> Result<Self> {
        let opening = || format!("opening the cache `{}`", dir.display());
        DirBuilder::new().recursive(true).mode(0o700).create(dir).context(ErrorKind::Local, opening)?;
        must_be_ours(dir)?;
        must_hold_no_images(dir)?;
        layout::write::init(dir)?;
        let writing = dir.join(WRITING);
        fs_err::create_dir_all(&writing).context(ErrorKind::Local, opening)?;
        writer::sweep(&writing)?;
        Ok(Self { dir: dir.to_owned(), keeping: Keeping::All })
    }

    /// Returns whether there is a cache in `dir`, or whatever [`Cache::open`] has to say of the place.
    pub fn exists(dir: &Path) -> bool {
        [layout::OCI_LAYOUT, OURS].iter().any(|part| dir.join(part).try_exists().unwrap_or(true))
    }

    /// Returns whether a cache was not opened because others could have put blobs into it.
    pub fn is_distrusted(error: &Error) -> bool {
        error.find::<Distrusted>().is_some()
    }

    /// Returns a cache that forgets: its blobs have no names and are gone with its last clone and their last
    /// handle. `dir` says on which disk.
    pub fn scratch(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), keeping: Keeping::Run(Arc::default()) }
    }

    /// Returns whether nothing in the folder is ours.
    const fn is_scratch(&self) -> bool {
        matches!(self.keeping, Keeping::Run(_))
    }

    /// Returns the folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns what the cache holds of a layer in this encoding. An entry that cannot be read, or whose blob
    /// is missing or has another size, is dropped.
    pub fn lookup(&self, diff_id: &DiffId, encoding: Encoding) -> Result<Option<(Entry, Blob)>> {
        if let Keeping::Run(run) = &self.keeping {
            return Ok(run.lock().get(&(diff_id.clone(), encoding)).cloned());
        }
        let path = self.encoded_path(diff_id, encoding);
        let Some(entry) = self.read::<Entry>(&path)? else { return Ok(None) };
        let Some(blob) = self.blob(&entry)? else {
            self.forget(diff_id, encoding)?;
            return Ok(None);
        };
        touch(&path);
        Ok(Some((entry, blob)))
    }

    /// Opens the blob of an entry, if it is still there, a file that can be read, and of the right size.
    fn blob(&self, entry: &Entry) -> Result<Option<Blob>> {
        match Blob::open(&layout::write::blob_path(&self.dir, &entry.digest)) {
            Ok(blob) => Ok((blob.size() == entry.size).then_some(blob)),
            Err(error) if is_damage(&error) => Ok(None),
            Err(error) => Err(Error::local("opening a cached blob").because(error)),
        }
    }

    /// Starts a blob whose digest is not known yet.
    pub fn writer(&self) -> Result<Writer> {
        Writer::new(self).context(ErrorKind::Local, || format!("writing to `{}`", self.dir.display()))
    }

    /// Drops a layer whose blob turned out to be damaged.
    pub fn forget(&self, diff_id: &DiffId, encoding: Encoding) -> Result<()> {
        if let Keeping::Run(run) = &self.keeping {
            run.lock().remove(&(diff_id.clone(), encoding));
            return Ok(());
        }
        let path = self.encoded_path(diff_id, encoding);
        if let Some(entry) = self.read::<Entry>(&path)? {
            remove(&path)?;
            remove(&layout::write::blob_path(&self.dir, &entry.digest))?;
        }
        Ok(())
    }

    /// Returns the diff ID of the source blob `digest`, if it was ever proven by decoding it.
    pub fn proven(&self, digest: &Digest) -> Result<Option<DiffId>> {
        let path = self.proven_path(digest);
        let proven = self.read::<Proven>(&path)?;
        if proven.is_some() {
            touch(&path);
        }
        Ok(proven.map(|proven| proven.diff_id))
    }

    /// Remembers that the blob `digest` was decoded and has this diff ID.
    pub fn remember(&self, digest: &Digest, diff_id: &DiffId) -> Result<()> {
        if self.proven(digest)?.as_ref() == Some(diff_id) {
            return Ok(());
        }
        self.write(&self.proven_path(digest), &Proven { diff_id: diff_id.clone() })
    }

    /// Forgets what the blob `digest` was once proven to be.
    pub fn disprove(&self, digest: &Digest) -> Result<()> {
        remove(&self.proven_path(digest))
    }

    fn encoded_path(&self, diff_id: &DiffId, encoding: Encoding) -> PathBuf {
        self.dir.join(entry_name(diff_id, encoding))
    }

    fn proven_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{PROVEN}/{}.json", digest.path()))
    }

    /// Reads a small file of ours. One that is not what was written there is dropped.
    fn read<T: Serialize + DeserializeOwned>(&self, path: &Path) -> Result<Option<T>> {
        if self.is_scratch() {
            return Ok(None);
        }
        match Blob::open(path).and_then(|file| file.read_all(ENTRY_LIMIT, "a cache entry")) {
            Ok(bytes) => {
                if let Some(value) = unsealed(&self.name_of(path), &bytes) {
                    return Ok(Some(value));
                }
            }
            Err(error) if error.find::<io::Error>().is_some_and(is_missing) => return Ok(None),
            Err(error) if is_damage(&error) => {}
            Err(error) => return Err(Error::local("reading the cache").because(error)),
        }
        tracing::warn!("dropped a damaged cache entry: `{}`", path.display());
        remove(path)?;
        Ok(None)
    }

    fn write<T: Serialize>(&self, path: &Path, value: &T) -> Result<()> {
        if self.is_scratch() {
            return Ok(());
        }
        let writing = || format!("writing `{}`", path.display());
        let bytes = sealed(&self.name_of(path), value)?;
        fs_err::create_dir_all(path.parent().unwrap_or(&self.dir)).context(ErrorKind::Local, writing)?;
        make_way(path)?;
        // Not beside its place: whoever clears the cache would take it away.
        let mut temp = writer::locked_in(&self.dir.join(WRITING)).context(ErrorKind::Local, writing)?;
        temp.write_all(&bytes).context(ErrorKind::Local, writing)?;
        layout::write::persist(temp, path)
    }

    /// Returns where below the root a file is, wherever the cache is.
    fn name_of(&self, path: &Path) -> String {
        path.strip_prefix(&self.dir).unwrap_or(path).display().to_string()
    }
}

/// Notes that something was used. Where this fails it only looks older than it is.
fn touch(path: &Path) {
    if let Err(error) = fs_err::File::open(path).and_then(|file| file.set_modified(SystemTime::now())) {
        tracing::debug!("an entry could not be touched: {error}");
    }
}

/// What a source blob was proven to be.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Proven {
    diff_id: DiffId,
}

/// Returns where below a cache's root the entry of a layer is: on disk and wherever else layers are kept.
pub(crate) fn entry_name(diff_id: &DiffId, encoding: Encoding) -> String {
    format!("{ENCODED}/{}/{encoding}-v{ENCODER_VERSION}.json", diff_id.0.path())
}

/// Makes way for a file: one is replaced by another, but not a folder that somebody put in its place.
fn make_way(path: &Path) -> Result<()> {
    match fs_err::symlink_metadata(path) {
        Ok(there) if there.is_dir() => remove(path),
        _ => Ok(()),
    }
}

/// Where a file is in a folder's place, what should be in it is missing too.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Whether something was put where a file of ours was, or made unreadable: not that this machine is at its limits.
fn is_damage(error: &Error) -> bool {
    // The standard library has no stable name for symlinks that lead to each other.
    let of_files = [io::ErrorKind::PermissionDenied, io::Error::from(Errno::LOOP).kind()];
    let cause = error.find::<io::Error>();
    cause.is_none_or(|cause| is_missing(cause) || of_files.contains(&cause.kind()))
}

/// Removes a file that another process may have removed already, or what somebody put in its place.
fn remove(path: &Path) -> Result<()> {
    let removed = match fs_err::remove_file(path) {
        Err(_) if path.is_dir() => fs_err::remove_dir_all(path),
        removed => removed,
    };
    match removed {
        Err(error) if !is_missing(&error) => Err(Error::local("dropping a cache entry").because(error)),
        _ => Ok(()),
    }
}

/// What an image layout does not have.
const OURS: &str = "longshore";
/// Entries of encoded blobs: `<algorithm>/<diff ID>/<encoding>-v<encoder version>.json`.
const ENCODED: &str = "longshore/encoded";
/// Proven diff IDs of source blobs: `<algorithm>/<digest>.json`.
const PROVEN: &str = "longshore/proven";
/// Layers that somebody encodes just now: `<diff ID>-<encoding>`, each locked.
const CLAIMED: &str = "longshore/claimed";
/// An entry is a few short fields.
const ENTRY_LIMIT: u64 = 4 << 10;
/// Blobs in the making, each locked by its writer.
const WRITING: &str = "longshore/writing";

#[cfg(test)]
mod tests {
    use std::{
        fs::Permissions,
        ops::ControlFlow,
        os::unix::fs::{MetadataExt as _, PermissionsExt as _},
        sync::atomic::{AtomicBool, Ordering},
    };

    use rustix::fs::{CWD, FileType, Mode};

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
        assert!(cache.lookup(&diff_id, GZIP).unwrap().is_none());

        let (encoded, made) = fill(&cache, b"plain");
        assert_eq!(encoded.diff_id, diff_id);
        let expected = Entry { digest: encoded.digest.clone(), size: encoded.size, plain_size: 5 };
        let again = Cache::open(&cache.dir).unwrap();
        let (entry, found) = again.lookup(&diff_id, GZIP).unwrap().unwrap();
        assert_eq!(entry, expected);
        assert!(again.lookup(&diff_id, Encoding::Gzip { level: 2 }).unwrap().is_none());
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
    }

    #[test]
    fn a_folder_of_images_is_refused() {
        let (_dir, cache) = cache();
        let blob = layout::write::blob_path(cache.dir(), &Digest::of(b"layer"));
        fs_err::write(&blob, "layer").unwrap();
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"m","digest":"{}","size":5}}]}}"#,
            Digest::of(b"layer")
        );
        fs_err::write(cache.dir().join(layout::INDEX), index).unwrap();
        let error = Cache::open(cache.dir()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(blob.exists() && !Cache::is_distrusted(&error));
    }

    #[test]
    fn a_damaged_entry_is_dropped() {
        let (_dir, cache) = cache();
        let (encoded, _) = fill(&cache, b"plain");
        let path = cache.encoded_path(&encoded.diff_id, GZIP);
        for damage in ["", "{", "[]", r#"{"digest":"sha256:../x","size":1,"plainSize":1}"#] {
            fs_err::write(&path, damage).unwrap();
            assert!(cache.lookup(&encoded.diff_id, GZIP).unwrap().is_none());
            assert!(!path.exists(), "{damage}");
        }
        let pipe = || rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let huge = || fs_err::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let ring = || std::os::unix::fs::symlink(&path, &path).unwrap();
        let folder = || fs_err::create_dir_all(path.join("deep")).unwrap();
        for put in [&pipe as &dyn Fn(), &huge, &ring, &folder] {
            put();
            assert!(cache.lookup(&encoded.diff_id, GZIP).unwrap().is_none());
            assert!(!path.exists());
        }
        fill(&cache, b"plain");
        assert!(cache.lookup(&encoded.diff_id, GZIP).unwrap().is_some(), "made again");
    }

    #[test]
    fn an_entry_of_another_layer_is_no_entry() {
        let (_dir, cache) = cache();
        let (one, _) = fill(&cache, b"one");
        let (two, _) = fill(&cache, b"two");
        let [ours, theirs] = [&one, &two].map(|layer| cache.encoded_path(&layer.diff_id, GZIP));
        fs_err::copy(&theirs, &ours).unwrap();
        assert!(cache.lookup(&one.diff_id, GZIP).unwrap().is_none());

        let edited = fs_err::read_to_string(&theirs).unwrap().replace(two.digest.hex(), one.digest.hex());
        fs_err::write(&theirs, edited).unwrap();
        assert!(cache.lookup(&two.diff_id, GZIP).unwrap().is_none());

        cache.remember(&one.digest, &one.diff_id).unwrap();
        fs_err::copy(cache.proven_path(&one.digest), cache.proven_path(&two.digest)).unwrap();
        assert_eq!(cache.proven(&two.digest).unwrap(), None);
        fs_err::rename(&cache.dir, cache.dir.with_extension("moved")).unwrap();
        let moved = Cache::open(&cache.dir.with_extension("moved")).unwrap();
        assert_eq!(moved.proven(&one.digest).unwrap(), Some(one.diff_id), "wherever the cache is");
    }

    #[test]
    fn an_entry_without_its_whole_blob_is_dropped() {
        let (_dir, cache) = cache();
        let truncate = |path: &Path| fs_err::write(path, b"short").unwrap();
        let unlink = |path: &Path| fs_err::remove_file(path).unwrap();
        let bury = |path: &Path| {
            unlink(path);
            fs_err::create_dir_all(path.join("deep")).unwrap();
        };
        let ring = |path: &Path| {
            unlink(path);
            std::os::unix::fs::symlink(path, path).unwrap();
        };
        for damage in [&truncate as &dyn Fn(&Path), &unlink, &ring, &bury] {
            let (encoded, blob) = fill(&cache, b"plain");
            damage(&blob.path());
            assert!(cache.lookup(&encoded.diff_id, GZIP).unwrap().is_none());
            assert_eq!(files(&cache.dir), [] as [PathBuf; 0]);
        }
    }

    /// Who encodes anew has not always looked for the entry before.
    #[test]
    fn an_entry_is_made_whatever_lies_in_its_place() {
        let (_dir, cache) = cache();
        let (encoded, blob) = fill(&cache, b"plain");
        for path in [blob.path(), cache.encoded_path(&encoded.diff_id, GZIP)] {
            fs_err::remove_file(&path).unwrap();
            fs_err::create_dir_all(path.join("deep")).unwrap();
            fill(&cache, b"plain");
            let (_, found) = cache.lookup(&encoded.diff_id, GZIP).unwrap().unwrap();
            assert_eq!(found.read_all(100, "a blob").unwrap(), blob.read_all(100, "a blob").unwrap());
        }
    }

    #[test]
    fn what_is_forgotten_is_gone() {
        let (_dir, cache) = cache();
        let (kept, _) = fill(&cache, b"one");
        let (damaged, _) = fill(&cache, b"two");
        cache.forget(&damaged.diff_id, GZIP).unwrap();
        cache.forget(&damaged.diff_id, GZIP).unwrap();
        assert!(cache.lookup(&damaged.diff_id, GZIP).unwrap().is_none());
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
        assert!(cache.lookup(&encoded.diff_id, GZIP).unwrap().is_none());
    }

    #[test]
    fn leftovers_of_the_killed_are_swept_and_those_of_the_living_are_not() {
        let (_dir, cache) = cache();
        fs_err::write(cache.dir.join(WRITING).join("layer-killed"), b"half").unwrap();
        let pipe = cache.dir.join(WRITING).join("pipe");
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let (encoded, writer) = write(&cache, b"plain");
        assert_eq!(files(&cache.dir).len(), 2);
        let again = Cache::open(&cache.dir).unwrap();
        assert_eq!(files(&cache.dir).len(), 1);
        writer.commit(&encoded, GZIP).unwrap();
        assert!(again.lookup(&encoded.diff_id, GZIP).unwrap().is_some());
    }

    #[test]
    fn a_scratch_keeps_nothing_beyond_its_run() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::scratch(&dir.path().join("beside/it"));
        let (encoded, writer) = write(&cache, b"plain");
        let blob = writer.commit(&encoded, GZIP).unwrap();
        cache.remember(&encoded.digest, &encoded.diff_id).unwrap();
        assert_eq!(files(dir.path()), [] as [PathBuf; 0]);
        assert_eq!(Digest::of(&blob.read_all(100, "it").unwrap()), encoded.digest);
        assert_eq!(cache.proven(&encoded.digest).unwrap(), None);
        let (_, found) = cache.clone().lookup(&encoded.diff_id, GZIP).unwrap().unwrap();
        assert_eq!(found.size(), encoded.size, "as long as the run lasts");
        assert!(
            Cache::scratch(&dir.path().join("beside/it")).lookup(&encoded.diff_id, GZIP).unwrap().is_none()
        );
        cache.forget(&encoded.diff_id, GZIP).unwrap();
        assert!(cache.lookup(&encoded.diff_id, GZIP).unwrap().is_none());
    }

    #[test]
    fn a_scratch_in_a_caches_own_folder_finds_nothing_there() {
        let (_dir, cache) = cache();
        let (encoded, _) = fill(&cache, b"plain");
        let scratch = Cache::scratch(&cache.dir);
        assert!(scratch.lookup(&encoded.diff_id, GZIP).unwrap().is_none());
        scratch.forget(&encoded.diff_id, GZIP).unwrap();
        assert!(cache.lookup(&encoded.diff_id, GZIP).unwrap().is_some());
    }

    #[test]
    fn an_entry_is_made_while_somebody_clears_the_cache() {
        let (_dir, cache) = cache();
        let done = AtomicBool::new(false);
        let failures: Vec<_> = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    cache.clear().unwrap();
                }
            });
            let commit = |_| {
                let (encoded, writer) = write(&cache, b"plain");
                writer.commit(&encoded, GZIP).err()
            };
            let failures = (0..100).filter_map(commit).collect();
            done.store(true, Ordering::Relaxed);
            failures
        });
        assert!(failures.is_empty(), "{failures:?}");
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
