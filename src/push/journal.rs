//! A list of pushes that was interrupted: what of it is done.
//!
//! One small file for each list. A push is known by what was asked for and by what its source looked like; whoever changes
//! either has it done again. What is noted is what the registry has confirmed, and is believed for a week: a tag may have
//! moved since. So the file goes when the whole list is done, and a run after that asks the registry about every image.

use std::{
    collections::BTreeMap,
    fs::{DirBuilder, Metadata},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Pushed;
use crate::{
    blob::Blob,
    error::{Context as _, ErrorKind, Result, chain},
    oci::Digest,
    source::{SourceSpec, spec::Location},
};

/// What of a list is done.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    document: Document,
}

/// One push of a list, by all that decides what comes of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fingerprint(String);

/// The file.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    /// Which list it is.
    list: String,
    done: BTreeMap<Fingerprint, Done>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Done {
    /// Seconds since 1970.
    at: u64,
    /// Where the image has arrived, as the user knows the place, and what is there.
    arrived: Vec<(String, Pushed)>,
}

impl Fingerprint {
    /// Names a push. `asked` is what was asked for: destinations, and whatever options make another image. The source
    /// stands for itself by its file's identity, size and times, so it must be a file or a layout; nothing is opened.
    pub fn new(asked: &serde_json::Value, source: &SourceSpec) -> Option<Self> {
        let Location::Path(path) = &source.location else { return None };
        let path = std::path::absolute(path).ok()?;
        // A name that is no UTF-8 is no JSON either.
        path.to_str()?;
        let transport = source.transport.map(|transport| format!("{transport:?}"));
        let choice = format!("{:?}", source.choice);
        let name = json!([asked, path, transport, choice, looks(&path)?]);
        Some(Self(Digest::of(name.to_string().as_bytes()).to_string()))
    }
}

impl Journal {
    /// Reads what is kept in `dir` of a list; `list` tells lists apart. What cannot be read is nothing.
    pub fn open(dir: &Path, list: &str) -> Self {
        let path = dir.join(format!("{}.json", Digest::of(list.as_bytes()).hex()));
        let bytes = Blob::open(&path).and_then(|file| file.read_all(LIMIT, "what is done of the list"));
        let document = bytes.ok().and_then(|bytes| serde_json::from_slice::<Document>(&bytes).ok());
        let mut document = document
            .filter(|document| document.list == list)
            .unwrap_or_else(|| Document { list: list.to_owned(), done: BTreeMap::new() });
        document.done.retain(|_, done| now().checked_sub(done.at).is_some_and(|age| age < KEPT.as_secs()));
        Self { path, document }
    }

    /// Returns what came of a push, if it is done.
    pub fn done(&self, push: &Fingerprint) -> Option<&[(String, Pushed)]> {
        self.document.done.get(push).map(|done| done.arrived.as_slice())
    }

    /// Notes that a push is done. What cannot be kept is not kept, and makes nothing fail.
    pub fn note(&mut self, push: Fingerprint, arrived: Vec<(String, Pushed)>) {
        self.document.done.insert(push, Done { at: now(), arrived });
        if let Err(error) = self.write() {
            tracing::debug!("what is done of the list is not kept: {}", chain(&error));
        }
    }

    /// Forgets the list: it is done, or shall be done from its beginning.
    pub fn forget(mut self) {
        self.document.done.clear();
        match fs_err::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::debug!("what was done of the list could not be forgotten: {error}");
            }
            _ => {}
        }
    }

    fn write(&self) -> Result<()> {
        let dir = self.path.parent().unwrap_or(&self.path);
        let writing = || format!("writing to `{}`", dir.display());
        let bytes = serde_json::to_vec(&self.document).context(ErrorKind::Internal, writing)?;
        DirBuilder::new().recursive(true).mode(0o700).create(dir).context(ErrorKind::Local, writing)?;
        // Mode 0600, and whole or not at all; what a power cut takes is done again.
        let mut temp = tempfile::NamedTempFile::new_in(dir).context(ErrorKind::Local, writing)?;
        temp.write_all(&bytes).context(ErrorKind::Local, writing)?;
        temp.persist(&self.path).map_err(|error| error.error).context(ErrorKind::Local, writing)?;
        Ok(())
    }
}

/// Says what a file looks like, or the documents that say what a layout holds; nothing of what may change without these.
fn looks(path: &Path) -> Option<serde_json::Value> {
    let metadata = fs_err::metadata(path).ok()?;
    if metadata.is_file() {
        return Some(look(&metadata));
    }
    let documents = ["index.json", "manifest.json"].map(|name| fs_err::metadata(path.join(name)).ok());
    let looks: Vec<_> = documents.iter().flatten().map(look).collect();
    (metadata.is_dir() && !looks.is_empty()).then(|| json!(looks))
}

fn look(file: &Metadata) -> serde_json::Value {
    json!([
        file.dev(),
        file.ino(),
        file.size(),
        [file.mtime(), file.mtime_nsec()],
        [file.ctime(), file.ctime_nsec()]
    ])
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// So long the interrupted run is the same one.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Every push of the longest list has its place.
const LIMIT: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rustix::fs::{CWD, FileType, Mode};

    use super::*;

    fn pushed() -> Pushed {
        Pushed {
            digest: Digest::of(b"x"),
            media_type: "m".into(),
            size: 1,
            tags: vec!["1".into()],
            referrers: Vec::new(),
            skipped: BTreeMap::new(),
            how: crate::event::How::Uploaded,
            bytes_sent: 9,
        }
    }

    fn fingerprint(path: &Path, asked: &str) -> Option<Fingerprint> {
        Fingerprint::new(&json!(asked), &path.to_str().unwrap().parse().unwrap())
    }

    #[test]
    fn what_is_done_is_known_until_the_list_is() {
        let dir = tempfile::tempdir().unwrap();
        let (state, source) = (dir.path().join("lists"), dir.path().join("a.tar"));
        fs_err::write(&source, "a").unwrap();
        let fingerprint = fingerprint(&source, "x").unwrap();
        let mut journal = Journal::open(&state, "list");
        assert!(journal.done(&fingerprint).is_none());
        journal.note(fingerprint.clone(), vec![("r.example/a".into(), pushed())]);
        let mode = fs_err::metadata(&journal.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Journal::open(&state, "list");
        assert_eq!(again.done(&fingerprint).unwrap(), [("r.example/a".to_owned(), pushed())]);
        assert!(Journal::open(&state, "other").done(&fingerprint).is_none());
        again.forget();
        assert!(Journal::open(&state, "list").done(&fingerprint).is_none());
    }

    #[test]
    fn a_push_is_another_one_when_its_source_changes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.tar");
        fs_err::write(&file, "one").unwrap();
        let first = fingerprint(&file, "x").unwrap();
        assert_eq!(fingerprint(&file, "x").unwrap(), first);
        assert_ne!(fingerprint(&file, "y").unwrap(), first);
        // Another file of the same size, in its place.
        let other = dir.path().join("b.tar");
        fs_err::write(&other, "two").unwrap();
        fs_err::rename(&other, &file).unwrap();
        assert_ne!(fingerprint(&file, "x").unwrap(), first);
        // What a folder holds is seen only where one document says it.
        assert_eq!(fingerprint(dir.path(), "x"), None);
        fs_err::write(dir.path().join("index.json"), "{}").unwrap();
        assert!(fingerprint(dir.path(), "x").is_some());
        assert_eq!(Fingerprint::new(&json!("x"), &"-".parse().unwrap()), None);
    }

    #[test]
    fn what_is_old_or_damaged_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("a.tar");
        fs_err::write(&source, "a").unwrap();
        let fingerprint = fingerprint(&source, "x").unwrap();
        let known = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut journal = Journal::open(dir.path(), "list");
            journal.note(fingerprint.clone(), Vec::new());
            let mut text = serde_json::to_value(&journal.document).unwrap();
            change(&mut text);
            fs_err::write(&journal.path, text.to_string()).unwrap();
            Journal::open(dir.path(), "list").done(&fingerprint).is_some()
        };
        assert!(known(&|_| {}));
        assert!(!known(&|text| text["done"][&fingerprint.0]["at"] = (now() - KEPT.as_secs() - 1).into()));
        assert!(!known(&|text| text["list"] = "other".into()));
        assert!(!known(&|text| *text = "cut off".into()));
        let path = Journal::open(dir.path(), "list").path;
        fs_err::remove_file(&path).unwrap();
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(Journal::open(dir.path(), "list").done(&fingerprint).is_none(), "and nobody is waited for");
    }
}
