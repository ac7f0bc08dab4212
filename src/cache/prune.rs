//! What a cache holds, and how it is kept small: the entries that were not used for the longest time go first.
//!
//! A blob goes with the last entry that names it. Whoever has it open reads on; whoever looks for it later
//! makes it again.

use std::{
    collections::{HashMap, HashSet},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{CLAIMED, Cache, ENCODED, Entry, PROVEN, WRITING, remove};
use crate::{
    codec::{self, Stopped},
    error::{Context as _, ErrorKind, Result},
    layout::{BLOBS, write::blob_path},
    oci::{DiffId, Digest},
};

/// A layer that a cache holds.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The digest of its plain bytes.
    pub diff_id: DiffId,
    /// How it is encoded, as recipes are written.
    pub encoding: String,
    /// By which version of the encoder.
    pub version: u32,
    /// What it is encoded to.
    pub entry: Entry,
    /// When it was last asked for.
    pub used: SystemTime,
    path: PathBuf,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Entries.
    pub entries: usize,
    /// Bytes of blobs.
    pub bytes: u64,
}

impl Cache {
    /// Lists the layers, the one used last first. What makes no sense is left out.
    pub fn list(&self) -> Result<Vec<Kept>> {
        let mut kept = Vec::new();
        for path in files(&self.dir.join(ENCODED)) {
            kept.extend(self.kept(path)?);
        }
        kept.sort_by(|a, b| b.used.cmp(&a.used).then_with(|| a.path.cmp(&b.path)));
        Ok(kept)
    }

    fn kept(&self, path: PathBuf) -> Result<Option<Kept>> {
        let parts = (|| {
            let (encoding, version) = path.file_stem()?.to_str()?.rsplit_once("-v")?;
            let hex = path.parent()?.file_name()?.to_str()?;
            let algorithm = path.parent()?.parent()?.file_name()?.to_str()?;
            let diff_id: Digest = format!("{algorithm}:{hex}").parse().ok()?;
            Some((DiffId(diff_id), encoding.to_owned(), version.parse().ok()?))
        })();
        let Some((diff_id, encoding, version)) = parts else { return Ok(None) };
        let Ok(used) = fs_err::metadata(&path).and_then(|data| data.modified()) else { return Ok(None) };
        let Some(entry) = self.read::<Entry>(&path)? else { return Ok(None) };
        Ok(Some(Kept { diff_id, encoding, version, entry, used, path }))
    }

    /// Removes what has not been used for `unused`, then the least recently used until no more than `limit` bytes
    /// are left; also what no entry names, and proofs that nobody has asked for. What another version's encoder made is
    /// that version's, which may share the cache: it grows old like the rest.
    pub fn prune(&self, limit: u64, unused: Option<Duration>) -> Result<Freed> {
        if self.is_scratch() {
            return Ok(Freed::default());
        }
        let now = SystemTime::now();
        let kept = self.list()?;
        let mut named: HashMap<&Digest, usize> = HashMap::new();
        for kept in &kept {
            *named.entry(&kept.entry.digest).or_default() += 1;
        }
        let mut freed = Freed::default();
        let mut left = 0;
        for kept in &kept {
            left += kept.entry.size;
            let is_old =
                unused.is_some_and(|unused| now.duration_since(kept.used).is_ok_and(|age| age > unused));
            if left <= limit && !is_old {
                continue;
            }
            left -= kept.entry.size;
            remove(&kept.path)?;
            freed.entries += 1;
            if let Some(entries) = named.get_mut(&kept.entry.digest) {
                *entries -= 1;
                if *entries == 0 {
                    freed.bytes += kept.entry.size;
                    remove(&blob_path(&self.dir, &kept.entry.digest))?;
                }
            }
        }
        let named = named.into_iter().filter(|(_, entries)| *entries > 0).map(|(digest, _)| digest.hex());
        freed.bytes += self.sweep_unnamed(&named.collect(), now)?;
        self.sweep_proven(unused.unwrap_or(PROOFS_LAST), now)?;
        Ok(freed)
    }

    /// Forgets what was proven of layers, and not asked for in so long.
    fn sweep_proven(&self, unused: Duration, now: SystemTime) -> Result<()> {
        for path in files(&self.dir.join(PROVEN)) {
            let used = fs_err::metadata(&path).and_then(|data| data.modified()).ok();
            if used.and_then(|used| now.duration_since(used).ok()).is_some_and(|age| age > unused) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Removes blobs that no entry names. A new one may be about to be named.
    fn sweep_unnamed(&self, named: &HashSet<&str>, now: SystemTime) -> Result<u64> {
        let mut bytes = 0;
        for path in files(&self.dir.join(BLOBS)) {
            if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| named.contains(name)) {
                continue;
            }
            let Ok(data) = fs_err::metadata(&path) else { continue };
            let age = data.modified().ok().and_then(|made| now.duration_since(made).ok());
            if age.is_some_and(|age| age > UNNAMED) {
                remove(&path)?;
                bytes += data.len();
            }
        }
        Ok(bytes)
    }

    /// Removes everything that it keeps.
    pub fn clear(&self) -> Result<Freed> {
        if self.is_scratch() {
            return Ok(Freed::default());
        }
        let kept = self.list()?;
        let mut freed = Freed { entries: kept.len(), bytes: 0 };
        for path in [ENCODED, PROVEN].iter().flat_map(|part| files(&self.dir.join(part))) {
            remove(&path)?;
        }
        for path in files(&self.dir.join(BLOBS)) {
            freed.bytes += fs_err::metadata(&path).map_or(0, |data| data.len());
            remove(&path)?;
        }
        Ok(freed)
    }

    /// Decodes a layer and compares both digests. One that is not what its entry says is dropped; returns why.
    pub fn verify(&self, kept: &Kept) -> Result<Option<String>> {
        let why = match self.blob(&kept.entry)? {
            None => "its blob is missing, or of another size".to_owned(),
            Some(blob) => match codec::prove(&blob, &|_| std::ops::ControlFlow::Continue(())) {
                Ok(found) if found.digest != kept.entry.digest => format!("its digest is {}", found.digest),
                Ok(found) if found.diff_id != kept.diff_id => format!("its diff ID is {}", found.diff_id),
                Ok(_) => return Ok(None),
                Err(error) if error.find::<Stopped>().is_some() => return Err(error),
                Err(error) => crate::error::chain(&error),
            },
        };
        remove(&kept.path)?;
        remove(&blob_path(&self.dir, &kept.entry.digest))?;
        Ok(Some(why))
    }

    /// Returns how many bytes lie below the folder, whatever they are.
    pub fn disk_use(&self) -> Result<u64> {
        let mut bytes = 0;
        for part in [BLOBS, ENCODED, PROVEN, WRITING, CLAIMED] {
            for path in files(&self.dir.join(part)) {
                match fs_err::metadata(&path) {
                    Ok(data) => bytes += data.len(),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => {
                        return Err(error).context(ErrorKind::Local, || {
                            format!("measuring the cache `{}`", self.dir.display())
                        });
                    }
                }
            }
        }
        Ok(bytes)
    }
}

/// Lists the files below a folder, which others may change meanwhile.
fn files(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = walkdir::WalkDir::new(dir).sort_by_file_name().into_iter().filter_map(Result::ok);
    entries.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path)
}

/// What comes back later than this is decoded once more. A proof is a small file, and nothing else bounds their number.
const PROOFS_LAST: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// A blob gets its name before its entry is written.
const UNNAMED: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use std::{io::Write as _, ops::ControlFlow};

    use super::*;
    use crate::codec::{Encoding, transcode};

    fn fill(cache: &Cache, plain: &[u8], age_secs: u64) -> DiffId {
        let mut writer = cache.writer().unwrap();
        let go_on = |_| ControlFlow::Continue(());
        let encoded = transcode(&mut &plain[..], Encoding::None, 1, &mut writer, &go_on).unwrap();
        writer.commit(&encoded, Encoding::None).unwrap();
        let path = cache.encoded_path(&encoded.diff_id, Encoding::None);
        let used = SystemTime::now() - Duration::from_secs(age_secs);
        fs_err::File::open(path).unwrap().set_modified(used).unwrap();
        encoded.diff_id
    }

    fn holds(cache: &Cache, layer: &DiffId) -> bool {
        cache.list().unwrap().iter().any(|kept| kept.diff_id == *layer)
    }

    #[test]
    fn what_was_used_last_stays() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let [old, older, oldest] =
            [(b"old", 10), (b"111", 20), (b"222", 30)].map(|(b, age)| fill(&cache, b, age));
        assert_eq!(cache.list().unwrap().first().unwrap().diff_id, old);
        cache.lookup(&oldest, Encoding::None).unwrap().unwrap();
        assert_eq!(cache.prune(9, None).unwrap(), Freed::default());
        assert_eq!(cache.prune(7, None).unwrap(), Freed { entries: 1, bytes: 3 });
        assert!(holds(&cache, &old) && !holds(&cache, &older) && holds(&cache, &oldest));
        assert_eq!(cache.prune(u64::MAX, Some(Duration::from_secs(5))).unwrap().entries, 1);
        assert!(holds(&cache, &oldest));
        assert_eq!(cache.clear().unwrap(), Freed { entries: 1, bytes: 3 });
        assert_eq!(cache.disk_use().unwrap(), 0);
    }

    #[test]
    fn what_another_versions_encoder_made_grows_old_like_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let [layer, _] = [(b"theirs", 20), (b"ours 1", 10)].map(|(plain, age)| fill(&cache, plain, age));
        let path = cache.encoded_path(&layer, Encoding::None);
        let (entry, used) = (cache.read::<Entry>(&path).unwrap().unwrap(), cache.list().unwrap()[1].used);
        for version in [0, 99] {
            let theirs = path.with_file_name(format!("none-v{version}.json"));
            cache.write(&theirs, &entry).unwrap();
            fs_err::File::open(theirs).unwrap().set_modified(used).unwrap();
        }
        fs_err::remove_file(&path).unwrap();
        assert_eq!(cache.prune(18, None).unwrap(), Freed::default());
        assert_eq!(cache.list().unwrap().len(), 3);
        assert_eq!(cache.prune(6, None).unwrap(), Freed { entries: 2, bytes: 6 });
        assert_eq!(cache.list().unwrap().len(), 1);
    }

    #[test]
    fn unnamed_blobs_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let unnamed = blob_path(dir.path(), &Digest::of(b"unnamed"));
        let new = blob_path(dir.path(), &Digest::of(b"new"));
        for path in [&unnamed, &new] {
            fs_err::write(path, "12345").unwrap();
        }
        let long_ago = SystemTime::now() - 2 * UNNAMED;
        fs_err::OpenOptions::new().write(true).open(&unnamed).unwrap().set_modified(long_ago).unwrap();
        assert_eq!(cache.prune(u64::MAX, None).unwrap(), Freed { entries: 0, bytes: 5 });
        fs_err::write(&unnamed, "12345").unwrap();
        Cache::scratch(dir.path()).prune(0, None).unwrap();
        Cache::scratch(dir.path()).clear().unwrap();
        assert!(unnamed.exists(), "a scratch has nothing to prune");
        fs_err::remove_file(&unnamed).unwrap();
        assert!(new.exists() && !unnamed.exists() && cache.list().unwrap().is_empty());
    }

    #[test]
    fn what_was_proven_is_forgotten_when_nobody_asks() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let [asked, old, new] = [b"asked", b"old..", b"new.."].map(|bytes| Digest::of(bytes));
        for (digest, age) in [(&asked, PROOFS_LAST * 2), (&old, PROOFS_LAST * 2), (&new, PROOFS_LAST / 2)] {
            cache.remember(digest, &DiffId(digest.clone())).unwrap();
            let file = fs_err::File::open(cache.proven_path(digest)).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        }
        cache.proven(&asked).unwrap().unwrap();
        cache.prune(0, None).unwrap();
        let known = || [&asked, &old, &new].map(|digest| cache.proven_path(digest).exists());
        assert_eq!(known(), [true, false, true]);
        cache.prune(0, Some(PROOFS_LAST / 4)).unwrap();
        assert_eq!(known(), [true, false, false]);
    }

    #[test]
    fn damage_is_found_and_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let layer = fill(&cache, b"plain", 0);
        let [kept] = cache.list().unwrap().try_into().unwrap();
        assert_eq!(cache.verify(&kept).unwrap(), None);
        let mut blob = fs_err::OpenOptions::new().write(true).open(blob_path(dir.path(), &layer.0)).unwrap();
        blob.write_all(b"Plain").unwrap();
        assert!(cache.verify(&kept).unwrap().unwrap().contains("digest"));
        assert!(cache.lookup(&layer, Encoding::None).unwrap().is_none());
        assert_eq!(cache.disk_use().unwrap(), 0);
    }
}
