//! Images made by real tools, with what an independent reader says is in them, and broken ones.
//!
//! All of them where the folder of reference data lies beside the project (or `LONGSHORE_SAMPLES` says where);
//! else the subset in `fixtures/`, which has the same shape.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;

use super::tool;

/// A sample, unpacked if it is a folder.
pub(crate) struct Sample {
    /// `oci/skopeo`, `docker-archive/buildah.tar`.
    pub(crate) name: String,
    /// What to push.
    pub(crate) path: PathBuf,
    _unpacked: Option<TempDir>,
}

/// What has to come of a bad sample.
#[derive(Clone, Debug)]
pub(crate) struct Bad {
    pub(crate) sample: String,
    pub(crate) exit: i32,
    /// A word of the message; may be empty.
    pub(crate) message: String,
}

/// Returns the folder of samples.
pub(crate) fn folder() -> PathBuf {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let all = std::env::var_os("LONGSHORE_SAMPLES").map(PathBuf::from);
    let all = all.unwrap_or_else(|| project.join("../shared/samples"));
    if all.join("expected.json").exists() { all } else { project.join("fixtures") }
}

/// Returns the names of the good samples of a kind, like `oci-archive`, with what is in each.
pub(crate) fn good(kind: &str) -> Vec<(String, Value)> {
    let expected = fs_err::read(folder().join("expected.json")).unwrap();
    let expected: serde_json::Map<String, Value> = serde_json::from_slice(&expected).unwrap();
    let of_kind = |name: &String| name.split('/').next() == Some(kind);
    expected.into_iter().filter(|(name, _)| of_kind(name)).collect()
}

/// Returns the rows of `bad/EXPECT.tsv`.
pub(crate) fn bad() -> Vec<Bad> {
    let rows = fs_err::read_to_string(folder().join("bad/EXPECT.tsv")).unwrap();
    let row = |line: &str| {
        let columns: Vec<_> = line.split('\t').collect();
        Bad { sample: columns[0].into(), exit: columns[2].parse().unwrap(), message: columns[3].into() }
    };
    rows.lines().skip(1).map(row).collect()
}

/// Unpacks a sample that is a folder or a storage; returns where it lies.
pub(crate) fn unpacked(name: &str, to: &Path) -> Option<PathBuf> {
    let (packed, path) = if name.starts_with("stores/") {
        (folder().join(name), to.to_owned())
    } else {
        (folder().join(format!("{name}.dir.tar.gz")), to.join(name.rsplit('/').next()?))
    };
    if !packed.exists() {
        return None;
    }
    let mut tar = Command::new("tar");
    tar.args(["--warning=no-timestamp", "-xpzf"]).arg(&packed).arg("-C").arg(to);
    tool::output(&mut tar).unwrap();
    Some(path)
}

impl Sample {
    /// Finds a sample by name; a folder or a storage is unpacked, with its links, FIFOs and modes.
    pub(crate) fn open(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        match unpacked(name, dir.path()) {
            Some(path) => Self { name: name.into(), path, _unpacked: Some(dir) },
            None => Self { name: name.into(), path: folder().join(name), _unpacked: None },
        }
    }

    /// Returns the text of an entry, if the sample is an archive that has it.
    pub(crate) fn entry(&self, name: &str) -> Option<String> {
        let output = Command::new("tar").arg("-xaOf").arg(&self.path).arg(name).output().unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
