//! What a push does to the machine it runs on: promises 6, 7 and 9. The binary, as a user runs it.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::Metadata,
    io::{Seek as _, SeekFrom, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use longshore::oci::{Algorithm, Digest, Hasher};
use serde_json::json;
use tempfile::TempDir;

use super::{
    CHUNK,
    image::{Archive, INDEX, Layout, MANIFEST, noise},
    story,
};
use crate::support::{
    capability,
    longshore::{Longshore, Run},
    registry::{Fault, Registry, Route, Script},
};

const MIB: u64 = 1 << 20;

/// Three chunks and a bit.
const LARGE: usize = 3 * CHUNK as usize + 1000;

/// A file that is mostly a hole: what is written, and its digest.
struct Sparse {
    file: fs_err::File,
    hasher: Hasher,
    size: u64,
}

impl Sparse {
    fn create(path: &Path) -> Self {
        Self { file: fs_err::File::create(path).unwrap(), hasher: Hasher::new(Algorithm::Sha256), size: 0 }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.file.write_all(bytes).unwrap();
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// Leaves a hole, which reads as zeros.
    fn skip(&mut self, size: u64) {
        let zeros = vec![0; MIB as usize];
        for _ in 0..size / MIB {
            self.hasher.update(&zeros);
        }
        self.hasher.update(&zeros[..(size % MIB) as usize]);
        self.size += size;
        self.file.seek(SeekFrom::Start(self.size)).unwrap();
        self.file.set_len(self.size).unwrap();
    }

    fn header(&mut self, name: &str, size: u64) {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_size(size);
        header.set_mode(0o644);
        header.set_cksum();
        self.write(header.as_bytes());
    }

    fn entry(&mut self, name: &str, bytes: &[u8]) {
        self.header(name, bytes.len() as u64);
        self.write(bytes);
        self.skip((bytes.len() as u64).next_multiple_of(512) - bytes.len() as u64);
    }
}

/// A docker archive with one plain layer: `zeros` bytes of nothing, `random` bytes of noise.
pub(super) fn large_archive(dir: &Path, zeros: u64, random: usize) -> PathBuf {
    let path = dir.join("large.tar");
    let mut archive = Sparse::create(&path);
    let content = zeros + random as u64;
    archive.header("layer.tar", 512 + content + 1024);
    archive.hasher = Hasher::new(Algorithm::Sha256);
    archive.header("file", content);
    archive.skip(zeros);
    archive.write(&noise(1, random));
    archive.skip(1024);
    let diff_id = archive.hasher.clone().finish();
    let config = json!({
        "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [diff_id] },
    });
    archive.entry("config.json", config.to_string().as_bytes());
    let manifest = json!([{ "Config": "config.json", "RepoTags": ["large:1"], "Layers": ["layer.tar"] }]);
    archive.entry("manifest.json", manifest.to_string().as_bytes());
    archive.skip(1024);
    path
}

/// An OCI layout with one blob of `size` bytes of nothing.
fn large_layout(dir: &Path, size: u64) {
    let blobs = dir.join("blobs/sha256");
    fs_err::create_dir_all(&blobs).unwrap();
    let mut blob = Sparse::create(&blobs.join("new"));
    blob.skip(size);
    let layer = blob.hasher.finish();
    fs_err::rename(blobs.join("new"), blobs.join(layer.hex())).unwrap();
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs_err::write(blobs.join(digest.hex()), bytes).unwrap();
        (digest, bytes.len())
    };
    let (config, config_size) = put(b"{}");
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": config_size },
        "layers": [{ "mediaType": "application/x-model", "digest": layer, "size": size }],
    });
    let (manifest, manifest_size) = put(manifest.to_string().as_bytes());
    let root = json!({ "mediaType": MANIFEST, "digest": manifest, "size": manifest_size });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [root] });
    fs_err::write(dir.join("index.json"), index.to_string()).unwrap();
    fs_err::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

fn push(longshore: &Longshore, source: &Path, rest: &[&OsStr]) -> Run {
    let arguments = [OsStr::new("push"), source.as_os_str()];
    longshore.run(arguments.iter().chain(rest))
}

#[test]
fn promise_6_memory_is_no_function_of_a_layer_that_is_encoded() {
    if capability::is_unavailable("time") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let archive = large_archive(dir.path(), 704 * MIB, 64 << 20);
    let registry = Registry::honest();
    let destination = format!("{}/large:1", registry.host());
    let run = push(&Longshore::new(), &archive, &[destination.as_ref()]);
    run.pushed().unwrap();
    assert!(run.peak < 48 << 10, "{} KiB", run.peak);
    assert!(registry.bytes(Route::Patch) > 64 << 20);
}

#[test]
fn promise_6_memory_is_no_function_of_a_stored_blob() {
    if capability::is_unavailable("time") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (source, destination) = (dir.path().join("layout"), dir.path().join("registry"));
    large_layout(&source, 256 * MIB);
    let rest = ["large:1".as_ref(), "--into".as_ref(), destination.as_os_str()];
    let run = push(&Longshore::new(), &source, &rest);
    run.pushed().unwrap();
    // The embedded registry has its part of it.
    assert!(run.peak < 32 << 10, "{} KiB", run.peak);
}

/// A machine of which every folder is watched.
struct Machine {
    home: TempDir,
}

impl Machine {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        for folder in ["home", "cwd", "tmp", "cache"] {
            fs_err::create_dir(home.path().join(folder)).unwrap();
        }
        Self { home }
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn start(&self, source: &Path, registry: &Registry, more: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_longshore"))
            .arg("push")
            .arg(source)
            .args([&format!("{}/demo:1", registry.host()), "--chunk-size=64KiB"])
            .arg("--cache-dir")
            .arg(self.folder("cache"))
            .args(more)
            .current_dir(self.folder("cwd"))
            .env_clear()
            .env("HOME", self.folder("home"))
            .env("TMPDIR", self.folder("tmp"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Returns the files in a folder but those of [`STATE`]: a line about a host, or about an upload.
    fn strays(&self, name: &str) -> Vec<PathBuf> {
        let mut files = self.files(name);
        let is_state = |file: &PathBuf| file.starts_with(self.folder(STATE));
        files.retain(|file| !is_state(file) || file.metadata().unwrap().len() > 1000);
        files
    }

    /// Returns what lies in a folder.
    fn files(&self, folder: &str) -> Vec<PathBuf> {
        files(&self.folder(folder)).into_keys().collect()
    }
}

/// What can be seen of a file without reading it.
#[derive(Debug, PartialEq, Eq)]
struct State {
    inode: u64,
    mode: u32,
    owner: (u32, u32),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Returns everything in a folder but folders, and that of folders too which changes when something is made
/// in them.
fn states(folder: &Path) -> BTreeMap<PathBuf, State> {
    let state = |metadata: Metadata| State {
        inode: metadata.ino(),
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    };
    let entries = walkdir::WalkDir::new(folder).into_iter().map(Result::unwrap);
    entries.map(|entry| (entry.path().to_owned(), state(entry.metadata().unwrap()))).collect()
}

fn files(folder: &Path) -> BTreeMap<PathBuf, State> {
    let mut states = states(folder);
    states.retain(|path, _| !path.is_dir());
    states
}

/// Returns the files that a process has open, as the kernel tells them.
fn open_files(child: &Child) -> Vec<String> {
    let links = fs_err::read_dir(format!("/proc/{}/fd", child.id())).unwrap();
    let targets = links.filter_map(|link| fs_err::read_link(link.unwrap().path()).ok());
    // Not sockets, pipes and devices.
    targets
        .map(|target| target.display().to_string())
        .filter(|target| target.starts_with('/') && !target.starts_with("/dev/"))
        .collect()
}

/// Where a later push finds what this one began.
const STATE: &str = "home/.local/state/longshore";

#[test]
fn rule_09_a_chunk_is_never_held_in_memory() {
    if capability::is_unavailable("time") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    large_layout(dir.path(), 200 * MIB);
    let registry = Registry::honest();
    let destination = format!("{}/large:1", registry.host());
    let rest = [destination.as_ref(), "--chunk-size=64MiB".as_ref()];
    let run = push(&Longshore::new(), dir.path(), &rest);
    run.pushed().unwrap();
    assert!(run.peak < 32 << 10, "{} KiB", run.peak);
    assert_eq!(registry.exchanges(Route::Patch)[0].received, 64 * MIB);
}

#[test]
fn promise_7_only_the_cache_is_written() {
    let (archive, layout) = (Archive::of(&[LARGE, 1000]), Layout::of(&[LARGE, 1000]));
    let compressed = Archive::of(&[LARGE, 1000]);
    for (source, dir) in [
        (archive.path(), archive.dir()),
        (compressed.compressed(), compressed.dir()),
        (layout.path().to_owned(), layout.path()),
    ] {
        for no_cache in [false, true] {
            let machine = Machine::new();
            let before = states(dir);
            let held = Fault::Await { route: Route::Open, calls: usize::MAX };
            let registry = Registry::start(Script::new().on(Route::Patch, 2, held));
            let more: &[&str] = if no_cache { &["--no-cache"] } else { &[] };
            let mut child = machine.start(&source, &registry, more);
            registry.wait_for(Route::Patch, 2);
            // In the middle of it: what is open is the source, or lies in the cache, or nowhere any more.
            for file in open_files(&child) {
                let known = [machine.folder("cache"), machine.folder(STATE), dir.to_owned()];
                assert!(known.iter().any(|known| Path::new(&file).starts_with(known)), "{file}");
            }
            let check = |machine: &Machine| {
                for folder in ["home", "cwd", "tmp"] {
                    assert_eq!(machine.strays(folder), Vec::<PathBuf>::new());
                }
                if no_cache {
                    assert_eq!(machine.files("cache"), Vec::<PathBuf>::new());
                }
                assert_eq!(states(dir), before);
            };
            check(&machine);
            registry.release();
            assert!(child.wait().unwrap().success(), "{}", story(&registry));
            check(&machine);
            // Nothing is left half written.
            assert!(
                !machine.folder("cache").join("writing").exists()
                    || machine.files("cache/writing").is_empty()
            );
        }
    }
}

#[test]
fn promise_7_nothing_is_left_by_a_push_without_a_cache_that_was_killed() {
    let archive = Archive::of(&[LARGE, 1000]);
    for source in [archive.path(), archive.compressed()] {
        let machine = Machine::new();
        let held = Fault::Await { route: Route::Open, calls: usize::MAX };
        let registry = Registry::start(Script::new().on(Route::Patch, 2, held));
        let mut child = machine.start(&source, &registry, &["--no-cache"]);
        registry.wait_for(Route::Patch, 2);
        child.kill().unwrap();
        child.wait().unwrap();
        for folder in ["home", "cwd", "tmp", "cache"] {
            assert_eq!(machine.strays(folder), Vec::<PathBuf>::new());
        }
        assert!(registry.tags("demo").is_empty());
    }
}

/// Takes away from everybody the right to write.
fn make_read_only(folder: &Path) {
    for entry in walkdir::WalkDir::new(folder).contents_first(true).into_iter().map(Result::unwrap) {
        let mode = if entry.file_type().is_dir() { 0o555 } else { 0o444 };
        fs_err::set_permissions(entry.path(), PermissionsExt::from_mode(mode)).unwrap();
    }
}

#[test]
fn promise_9_the_source_is_only_read() {
    if capability::is_unavailable("unprivileged") {
        return;
    }
    let (archive, layout) = (Archive::of(&[LARGE, 1000]), Layout::of(&[LARGE, 1000]));
    for (source, dir) in [(archive.path(), archive.dir()), (layout.path().to_owned(), layout.path())] {
        make_read_only(dir);
        let before = states(dir);
        let registry = Registry::honest();
        let destination = format!("{}/demo:1", registry.host());
        // By somebody who could not write there if he wanted, and by somebody who could.
        for longshore in [Longshore::new().by_nobody(), Longshore::new()] {
            push(&longshore, &source, &[destination.as_ref(), "--chunk-size=64KiB".as_ref()])
                .pushed()
                .unwrap();
            assert_eq!(states(dir), before);
        }
    }
}
