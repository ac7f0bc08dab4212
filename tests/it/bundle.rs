//! `bundle` and `inventory`: images over an air gap, whole and as deltas, in one file and in parts.

use std::{
    collections::BTreeSet,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use longshore::oci::Digest;
use rustix::fs::{CWD, FileType, mknodat};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    support::{
        capability::is_unavailable,
        docker_registry::DockerRegistry,
        longshore::{Longshore, Run},
        podman::Podman,
        read_back::ReadBack,
        registry::{Fault, Registry, Route, Script},
        samples::Sample,
        serve::Serve,
        skopeo, tool,
    },
    wire::image::{Archive, Document, Layout, noise},
};

const MIB: usize = 1 << 20;
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A desk with a folder, and somebody who works there.
struct Desk {
    longshore: Longshore,
    dir: TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { longshore: Longshore::new(), dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn names(&self) -> BTreeSet<String> {
        let entries = fs_err::read_dir(self.dir.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Bundles these sources, which works.
    fn bundle(&self, name: &str, sources: &[&Path], more: &[&str]) -> Value {
        let run = self.try_bundle(name, sources, more);
        assert_eq!(run.code, Some(0), "{run:?}");
        serde_json::from_str(&run.stdout).unwrap()
    }

    fn try_bundle(&self, name: &str, sources: &[&Path], more: &[&str]) -> Run {
        let output = self.path(name);
        let mut arguments = vec!["bundle", "--json", "-o", output.to_str().unwrap()];
        arguments.extend(sources.iter().map(|source| source.to_str().unwrap()));
        self.longshore.run([&arguments, more].concat())
    }

    fn inventory(&self, name: &str, places: &[&str]) -> String {
        let run = self.longshore.run([&["inventory"], places].concat());
        assert_eq!(run.code, Some(0), "{run:?}");
        let path = self.path(name);
        fs_err::write(&path, run.stdout).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn push_all(&self, source: &Path, to: &str) -> Run {
        self.longshore.run(["push", "--all", source.to_str().unwrap(), to])
    }
}

/// Makes a layout list these manifests, each under this name.
fn list(layout: &Layout, entries: &[(&Document, &str)]) {
    let named = |(document, name): &(&Document, &str)| {
        let mut entry = document.descriptor();
        entry["annotations"] = json!({ REF_NAME: name });
        entry
    };
    let entries: Vec<_> = entries.iter().map(named).collect();
    let index = json!({ "schemaVersion": 2, "manifests": entries });
    fs_err::write(layout.path().join("index.json"), index.to_string()).unwrap();
}

/// One image with these layers, under a name.
fn image(name: &str, layers: &[Vec<u8>]) -> Layout {
    let layout = Layout::of_layers(layers);
    list(&layout, &[(&layout.root, name)]);
    layout
}

/// An image and its signature, as cosign tags it.
fn signed(name: &str) -> (Layout, String) {
    let layout = Layout::of(&[40_000, 1000]);
    let signature = Layout::referrer(b"a signature", &layout.root);
    for blob in signature.blobs.iter().chain([&signature.root.digest]) {
        fs_err::copy(signature.blob(blob), layout.blob(blob)).unwrap();
    }
    let tag = format!("sha256-{}.sig", layout.root.digest.hex());
    list(&layout, &[(&signature.root, &tag), (&layout.root, name)]);
    (layout, tag)
}

fn entries(archive: &Path) -> Vec<String> {
    let listed = tool::output(Command::new("tar").arg("-tf").arg(archive)).unwrap();
    String::from_utf8(listed).unwrap().lines().map(str::to_owned).collect()
}

fn size(path: &Path) -> u64 {
    fs_err::metadata(path).unwrap().len()
}

#[test]
fn images_of_all_sources_are_in_one_archive_that_others_read() {
    if is_unavailable("skopeo") {
        return;
    }
    let (desk, multi) = (Desk::new(), Sample::open("docker-archive/docker28-save-multi.tar"));
    let shared = noise(1, 40_000);
    let one = image("r.example/team/a:1", &[shared.clone(), noise(2, 1000)]);
    let two = image("r.example/team/b:1", &[shared.clone(), noise(3, 1000)]);
    let sources = [&*multi.path, one.path(), two.path()];
    let bundled = desk.bundle("b.tar", &sources, &[]);
    let images = bundled["images"].as_array().unwrap();
    let names: Vec<_> = images.iter().flat_map(|image| image["names"].as_array().unwrap()).collect();
    assert_eq!(names.len(), 6, "{names:?}");
    for name in &names {
        let name = name.as_str().unwrap();
        let to = format!("dir:{}", desk.path("copy").display());
        skopeo::repackage(&format!("oci-archive:{}:{name}", desk.path("b.tar").display()), &to)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let entries = entries(&desk.path("b.tar"));
    assert_eq!(entries[..2], ["oci-layout", "index.json"]);
    let once: BTreeSet<_> = entries.iter().collect();
    assert_eq!(once.len(), entries.len(), "{entries:?}");
    assert!(entries.contains(&format!("blobs/sha256/{}", Digest::of(&shared).hex())));
    let run = desk.longshore.run(["inspect", "--verify", desk.path("b.tar").to_str().unwrap()]);
    assert_eq!(run.code, Some(0), "{run:?}");
    // Somebody else, at another time, with nothing in the cache.
    let other = Desk::new();
    other.bundle("b.tar", &sources, &[]);
    assert!(fs_err::read(desk.path("b.tar")).unwrap() == fs_err::read(other.path("b.tar")).unwrap());
    // So does an archive that can be read once.
    let packed = other.path("multi.tar.gz");
    let gzip = format!("gzip -c {} > {}", multi.path.display(), packed.display());
    tool::output(Command::new("sh").args(["-c", &gzip])).unwrap();
    other.bundle("c.tar", &[&packed, one.path(), two.path()], &["--no-cache"]);
    assert!(fs_err::read(desk.path("b.tar")).unwrap() == fs_err::read(other.path("c.tar")).unwrap());
}

#[test]
fn a_bundle_is_pushed_as_its_sources_are() {
    if is_unavailable("docker-registry") {
        return;
    }
    let (desk, registry) = (Desk::new(), DockerRegistry::start());
    let multi = Sample::open("docker-archive/docker28-save-multi.tar");
    desk.bundle("b.tar", &[&multi.path], &[]);
    let pushed = |source: &Path| {
        let run = desk.push_all(source, &format!("{}/m", registry.host()));
        assert_eq!(run.code, Some(0), "{run:?}");
        run.stdout
    };
    assert_eq!(pushed(&desk.path("b.tar")), pushed(&multi.path));
}

#[test]
fn blobs_by_sha512_have_names_that_every_tar_reads() {
    let (desk, layout) = (Desk::new(), Layout::of(&[1000]).by_sha512());
    desk.bundle("bundle.tar", &[layout.path()], &["--split", "700"]);
    desk.bundle("bundle.tar", &[layout.path()], &[]);
    let parts = desk.path("bundle.tar.parts");
    let copied = format!("oci-archive:{}:app", desk.path("copied.tar").display());
    let run = desk.longshore.run(["push", parts.to_str().unwrap(), &copied]);
    assert_eq!(run.code, Some(0), "{run:?}");
    for archive in ["bundle.tar", "copied.tar"] {
        let archive = desk.path(archive);
        let blobs = entries(&archive).into_iter().filter(|name| name.starts_with("blobs/sha512/"));
        assert!(blobs.map(|name| name.len()).all(|length| length == "blobs/sha512/".len() + 128));
        let run = desk.longshore.run(["inspect", "--verify", archive.to_str().unwrap()]);
        assert_eq!(run.code, Some(0), "{run:?}");
    }
    let registry = Registry::start(Script::new());
    let run = desk.push_all(&parts, &format!("{}/app", registry.host()));
    assert_eq!(run.code, Some(0), "{run:?}");
}

#[test]
fn what_cannot_be_bundled_leaves_nothing() {
    let desk = Desk::new();
    let (one, two) = (image("r.example/a:1", &[noise(1, 1000)]), image("r.example/a:1", &[noise(2, 1000)]));
    let damaged = image("r.example/b:1", &[noise(3, 1000), noise(4, 1000)]);
    fs_err::write(damaged.blob(&damaged.blobs[0]), noise(5, 1000)).unwrap();
    let lacking = image("r.example/c:1", &[noise(6, 1000), noise(7, 1000)]);
    for blob in &lacking.blobs[..2] {
        fs_err::remove_file(lacking.blob(blob)).unwrap();
    }
    let [gone, also] = [0, 1].map(|at: usize| lacking.blobs[at].to_string());
    for (sources, code, words) in [
        (vec![one.path(), two.path()], 2, vec!["two images are called `r.example/a:1`"]),
        (vec![one.path(), damaged.path()], 3, vec!["digest mismatch", damaged.blobs[0].hex()]),
        (vec![lacking.path()], 3, vec!["missing in the source of `r.example/c:1`", &gone, &also]),
    ] {
        let run = desk.try_bundle("b.tar", &sources, &[]);
        assert_eq!(run.code, Some(code), "{run:?}");
        assert!(words.iter().all(|words| run.stderr.contains(words)), "{words:?}: {}", run.stderr);
        assert!(desk.names().is_empty(), "{:?}", desk.names());
    }
    // One that is there stays.
    desk.bundle("b.tar", &[one.path()], &[]);
    let before = fs_err::read(desk.path("b.tar")).unwrap();
    assert_eq!(desk.try_bundle("b.tar", &[damaged.path()], &[]).code, Some(3));
    assert_eq!(fs_err::read(desk.path("b.tar")).unwrap(), before);
}

#[test]
fn however_much_of_the_cache_is_damaged_the_bundle_is_made() {
    let (desk, archive) = (Desk::new(), Archive::of(&[300_000, 20_000, 3_000_000, 70_000]));
    let source = archive.path();
    let cache = desk.longshore.home().join("cache");
    let options = ["--cache-dir", cache.to_str().unwrap()];
    desk.bundle("cold.tar", &[&source], &options);
    let kept = || fs_err::read_dir(cache.join("blobs/sha256")).unwrap().map(|blob| blob.unwrap().path());
    for (at, blob) in kept().enumerate() {
        let mut bytes = fs_err::read(&blob).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        // One is cut, which is seen earlier.
        bytes.truncate(bytes.len() - usize::from(at == 3));
        fs_err::write(&blob, bytes).unwrap();
    }
    let run = desk.try_bundle("mended.tar", &[&source], &options);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(run.stderr.lines().filter(|line| line.contains("damaged")).count(), 1, "{run:?}");
    assert_eq!(fs_err::read(desk.path("mended.tar")).unwrap(), fs_err::read(desk.path("cold.tar")).unwrap());
    let run = desk.longshore.run([&["cache", "verify"][..], &options].concat());
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "4 layers good, 0 dropped\n"), "{run:?}");
}

/// What the cache has of a layer is not encoded while the archive passes, and then it is too late.
#[test]
fn what_is_damaged_of_the_cache_is_good_when_the_archive_passes_again() {
    let (desk, sample) = (Desk::new(), Sample::open("docker-archive/podman-save.tar"));
    let (cache, output) = (desk.longshore.home().join("cache"), desk.path("b.tar"));
    let bundle = || {
        let options = ["--cache-dir", cache.to_str().unwrap(), "-o", output.to_str().unwrap(), "-"];
        desk.longshore.run_fed(&sample.path, [&["bundle"], &options[..]].concat())
    };
    assert_eq!(bundle().code, Some(0));
    let kept = fs_err::read_dir(cache.join("blobs/sha256")).unwrap().map(|blob| blob.unwrap().path());
    let blob = kept.max_by_key(|blob| fs_err::metadata(blob).unwrap().len()).unwrap();
    let mut bytes = fs_err::read(&blob).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs_err::write(&blob, bytes).unwrap();
    let run = bundle();
    assert!(run.code == Some(8) && run.stderr.contains("hint: bundle it once more"), "{run:?}");
    let run = bundle();
    assert_eq!(run.code, Some(0), "{run:?}");
}

#[test]
fn a_bundle_that_is_killed_is_made_anew() {
    let (desk, multi) = (Desk::new(), Sample::open("docker-archive/docker28-save-multi.tar"));
    let (pipe, output) = (desk.path("pipe"), desk.path("b.tar"));
    mknodat(CWD, &pipe, FileType::Fifo, 0o600.into(), 0).unwrap();
    let running =
        desk.longshore.start(["bundle".as_ref(), "-o".as_ref(), output.as_os_str(), pipe.as_os_str()]);
    let bytes = fs_err::read(&multi.path).unwrap();
    let mut writer = fs_err::OpenOptions::new().write(true).open(&pipe).unwrap();
    writer.write_all(&bytes[..bytes.len() / 2]).unwrap();
    running.kill();
    drop(writer);
    fs_err::remove_file(&pipe).unwrap();
    assert!(desk.names().is_empty(), "{:?}", desk.names());
    // As one leaves it that is killed while it writes.
    fs_err::create_dir(desk.path(".b.tar.Ab3dE6")).unwrap();
    fs_err::write(desk.path(".b.tar.Ab3dE6/0"), "half").unwrap();
    desk.bundle("b.tar", &[&multi.path], &[]);
    assert_eq!(desk.names(), BTreeSet::from(["b.tar".to_owned()]));
}

/// The whole way: saved with podman and signed, bundled, served on the far side, pulled there; and once more with what
/// has changed.
#[test]
fn images_and_then_what_has_changed_go_over_the_gap() {
    if ["podman", "root", "skopeo"].into_iter().any(is_unavailable) {
        return;
    }
    let (desk, far) = (Desk::new(), tempfile::tempdir().unwrap());
    let podman = podman(&desk);
    let saved = desk.path("saved.tar");
    for sample in ["podman-save", "docker20-classic-build"] {
        podman.load(&Sample::open(&format!("docker-archive/{sample}.tar")).path).unwrap();
    }
    podman.save(&["localhost/sample:1", "localhost/classic:1"], &saved).unwrap();
    let (layout, signature) = signed("r.example/team/signed:1");
    desk.bundle("b.tar", &[&saved, layout.path()], &[]);
    let serve = Serve::start(far.path());
    let to = format!("{}/site", serve.host());
    let run = desk.push_all(&desk.path("b.tar"), &to);
    assert_eq!((run.code, run.stdout.lines().count()), (Some(0), 4), "{run:?}");
    for image in ["sample:1", "classic:1"] {
        podman.pull(&format!("{to}/{image}")).unwrap();
    }
    for tag in ["1", &signature] {
        ReadBack::of(&format!("{to}/team/signed:{tag}")).unwrap();
    }

    // The far side says what it has, by its registry or by its folder.
    let have = desk.inventory("have.json", &[serve.host()]);
    let folder = desk.inventory("folder.json", &[far.path().to_str().unwrap()]);
    assert_eq!(json_of(&have)["repositories"], json_of(&folder)["repositories"]);
    let newer = image("r.example/team/signed:2", &[layout.read(&layout.blobs[0]), noise(9, 2000)]);
    let bundled = desk.bundle("d.tar", &[&saved, newer.path()], &["--base", &have]);
    let entries = entries(&desk.path("d.tar"));
    assert!(entries.contains(&"longshore.json".to_owned()), "{entries:?}");
    // The new layer and config, and three manifests.
    assert_eq!(bundled["blobs"], 5, "{entries:?}");
    let run = desk.push_all(&desk.path("d.tar"), &to);
    assert_eq!(run.code, Some(0), "{run:?}");
    let back = ReadBack::of(&format!("{to}/team/signed:2")).unwrap();
    assert_eq!(back.digest(), newer.root.digest.to_string());
    podman.pull(&format!("{to}/sample:1")).unwrap();
}

fn podman(desk: &Desk) -> Podman {
    let home = desk.path("podman");
    fs_err::create_dir(&home).unwrap();
    Podman::at(home)
}

fn json_of(path: &str) -> Value {
    serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap()
}

#[test]
fn a_delta_is_as_large_as_what_has_changed() {
    if is_unavailable("docker-registry") || is_unavailable("skopeo") {
        return;
    }
    let (desk, registry) = (Desk::new(), DockerRegistry::start());
    let layers: Vec<_> = (1..=8).map(|seed| noise(seed, 2 * MIB)).collect();
    let before = image("r.example/big:1", &layers);
    desk.bundle("b.tar", &[before.path()], &[]);
    assert_eq!(desk.push_all(&desk.path("b.tar"), registry.host()).code, Some(0));
    let mut changed = layers;
    changed[3] = noise(100, 2 * MIB);
    let after = image("r.example/big:2", &changed);
    // What the site has is known from it, or from the bundle that was carried there.
    for place in [registry.host().to_owned(), desk.path("b.tar").display().to_string()] {
        let have = desk.inventory("have.json", &[&place]);
        desk.bundle("d.tar", &[after.path()], &["--base", &have]);
        let size = size(&desk.path("d.tar"));
        assert!(size > 2 * MIB as u64 && size < 2 * MIB as u64 + 20_000, "{place}: {size}");
    }
    let run = desk.push_all(&desk.path("d.tar"), registry.host());
    assert_eq!(run.code, Some(0), "{run:?}");
    ReadBack::of(&format!("{}/big:2", registry.host())).unwrap();
    // A delta of a delta: together they are what the site has.
    let (b, d) = (desk.path("b.tar").display().to_string(), desk.path("d.tar").display().to_string());
    let have = desk.inventory("have.json", &[&b, &d]);
    let bundled = desk.bundle("e.tar", &[before.path(), after.path()], &["--base", &have]);
    assert_eq!(bundled["blobs"], 2, "two manifests: {bundled}");
}

#[test]
fn what_is_missing_is_named_before_anything_is_pushed() {
    let (desk, registry) = (Desk::new(), Registry::honest());
    let shared = noise(1, 5000);
    let one = image("r.example/a:1", &[shared.clone(), noise(2, 5000)]);
    let two = image("r.example/b:1", &[shared, noise(3, 5000)]);
    let new = image("r.example/new:1", &[noise(4, 5000)]);
    desk.bundle("base.tar", &[one.path(), two.path()], &[]);
    let have = desk.inventory("have.json", &[desk.path("base.tar").to_str().unwrap()]);
    desk.bundle("d.tar", &[new.path(), one.path(), two.path()], &["--base", &have]);
    // The registry has all of one image, and of the other one all but its own layer; what they share only once.
    for blob in &one.blobs {
        registry.seed("a", &one.read(blob));
    }
    registry.seed("b", &two.read(&two.blobs[2]));
    let delta = desk.path("d.tar");
    let run = desk.push_all(&delta, &registry.host());
    assert_eq!((run.code, run.stdout.as_str()), (Some(3), ""), "{run:?}");
    assert!(run.stderr.contains("nothing was pushed: `r.example/b:1`"), "{}", run.stderr);
    assert!(
        run.stderr.contains(two.blobs[1].hex()) && run.stderr.contains("newer inventory"),
        "{}",
        run.stderr
    );
    for there in one.blobs.iter().chain(&new.blobs).chain(&two.blobs[2..]) {
        assert!(!run.stderr.contains(there.hex()), "{}", run.stderr);
    }
    let asks = |route| matches!(route, Route::BlobHead | Route::ManifestHead | Route::Base);
    assert!(registry.log().iter().all(|exchange| asks(exchange.route)), "{:?}", registry.log());
    let to = format!("{}/", registry.host());
    let dry = desk.longshore.run(["push", "--all", delta.to_str().unwrap(), &to, "--dry-run"]);
    assert_eq!((dry.code, dry.stderr), (run.code, run.stderr));
    // One image alone is told the same, and so is who only asks what would be done.
    let single = format!("{}:r.example/b:1", delta.display());
    let host = registry.host();
    for more in [&[][..], &["--dry-run"]] {
        let run = desk.longshore.run([&["push", &single, &format!("{host}/b:1")], more].concat());
        assert!(run.code == Some(3) && run.stderr.contains(two.blobs[1].hex()), "{run:?}");
    }
    assert!(["a", "b", "new"].iter().all(|name| registry.tags(name).is_empty()));
    registry.seed("b", &two.read(&two.blobs[1]));
    assert_eq!(desk.push_all(&delta, &host).code, Some(0));
    assert_eq!(registry.tags("b"), ["1"]);
}

#[test]
fn what_the_site_has_in_another_repository_is_mounted() {
    let (desk, registry) = (Desk::new(), Registry::honest());
    let base = image("r.example/base:1", &[noise(1, 50_000)]);
    let app = image("r.example/app:1", &[noise(1, 50_000), noise(2, 100)]);
    desk.bundle("b.tar", &[base.path()], &[]);
    assert_eq!(desk.push_all(&desk.path("b.tar"), &registry.host()).code, Some(0));
    let have = desk.inventory("have.json", &[&registry.host()]);
    desk.bundle("d.tar", &[app.path()], &["--base", &have]);
    // A machine that never pushed there.
    let run = Desk::new().push_all(&desk.path("d.tar"), &registry.host());
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(registry.calls(Route::Mount), 1);
    assert_eq!(registry.blob("app", &app.blobs[0]).unwrap().len(), 50_000);
}

#[test]
fn parts_are_checked_before_anything_is_sent() {
    let (desk, registry) = (Desk::new(), Registry::honest());
    let layout = image("r.example/a:1", &[noise(1, 30_000), noise(2, 30_000)]);
    let whole = desk.bundle("w.tar", &[layout.path()], &[]);
    let bundled = desk.bundle("b.tar", &[layout.path()], &["--split", "10kB"]);
    let list = desk.path("b.tar.parts");
    assert_eq!(bundled["file"], list.to_str().unwrap());
    assert_eq!(bundled["size"], whole["size"]);
    let parts: Vec<_> = (0..7).map(|number| desk.path(&format!("b.tar.{number:03}"))).collect();
    assert!(parts[..6].iter().all(|part| size(part) == 10_000) && size(&parts[6]) < 10_000);
    let joined: Vec<u8> = parts.iter().flat_map(|part| fs_err::read(part).unwrap()).collect();
    assert!(joined == fs_err::read(desk.path("w.tar")).unwrap());
    tool::output(
        Command::new("sha256sum").args(["--check", "--strict", "b.tar.parts"]).current_dir(desk.dir.path()),
    )
    .unwrap();

    let right = fs_err::read(&parts[2]).unwrap();
    let mut wrong = right.clone();
    wrong[77] ^= 1;
    fs_err::write(&parts[2], wrong).unwrap();
    fs_err::rename(&parts[4], desk.path("away")).unwrap();
    let run = desk.push_all(&list, &registry.host());
    assert_eq!(run.code, Some(3), "{run:?}");
    assert!(run.stderr.contains("`b.tar.002` is damaged, `b.tar.004` is missing"), "{}", run.stderr);
    assert!(registry.log().is_empty(), "{:?}", registry.log());
    fs_err::write(&parts[2], right).unwrap();
    fs_err::rename(desk.path("away"), &parts[4]).unwrap();
    let run = desk.push_all(&list, &registry.host());
    assert_eq!(run.code, Some(0), "{run:?}");
    for blob in &layout.blobs {
        assert!(registry.blob("a", blob).unwrap() == layout.read(blob));
    }
}

#[test]
fn a_push_of_a_bundle_that_is_killed_goes_on() {
    let (desk, layout) = (Desk::new(), image("r.example/a:1", &[noise(1, MIB), noise(2, 1000)]));
    desk.bundle("b.tar", &[layout.path()], &["--split", "300kB"]);
    let registry = Registry::start(Script::new().on(
        Route::Patch,
        3,
        Fault::Await { route: Route::ManifestPut, calls: 1 },
    ));
    let source = desk.path("b.tar.parts");
    let push = ["push", "--all", "--chunk-size=256KiB", source.to_str().unwrap(), &registry.host()]
        .map(str::to_owned);
    let running = desk.longshore.start(&push);
    registry.wait_for(Route::Patch, 3);
    running.kill();
    assert!(registry.tags("a").is_empty());
    registry.release();
    let run = desk.longshore.run(&push);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(registry.tags("a"), ["1"]);
    assert!(registry.blob("a", &layout.blobs[0]).unwrap() == layout.read(&layout.blobs[0]));
}

#[test]
fn a_registry_that_lists_nothing_is_asked_by_name() {
    let desk = Desk::new();
    let layout = image("r.example/team/a:1", &[noise(1, 1000)]);
    for status in [401, 403, 404, 405] {
        let registry = Registry::start(Script::new().always(Route::Catalog, Fault::status(status)));
        let host = registry.host();
        assert_eq!(desk.push_all(layout.path(), &host).code, Some(0));
        let run = desk.longshore.run(["inventory", &host]);
        assert!(matches!(run.code, Some(4 | 5)), "{status}: {run:?}");
        assert!(run.stderr.contains(&format!("name the repositories: `{host}/NAME`")), "{}", run.stderr);
        assert!(serde_json::from_str::<Value>(&run.stdout).is_err(), "{}", run.stdout);
        let run = desk.longshore.run(["inventory", &format!("{host}/team/a")]);
        assert_eq!(run.code, Some(0), "{status}: {run:?}");
        assert!(run.stderr.contains("is taken for one repository"), "{}", run.stderr);
        assert!(run.stderr.contains("team/a: 1 tag, 2 blobs\n"), "{}", run.stderr);
        let have: Value = serde_json::from_str(&run.stdout).unwrap();
        let blobs = have["repositories"][0]["blobs"].as_object().unwrap();
        assert!(layout.blobs.iter().all(|blob| blobs.contains_key(&blob.to_string())), "{have}");
        assert_eq!(have["repositories"][0]["tags"]["1"], layout.root.digest.to_string());
    }
}

#[test]
fn lists_in_pages_are_read_to_their_end() {
    if is_unavailable("docker-registry") {
        return;
    }
    let (desk, registry) = (Desk::new(), DockerRegistry::start_with("", "catalog: {maxentries: 2}\n"));
    let layout = image("v1", &[noise(1, 1000)]);
    for name in ["a", "b/c", "b/d", "b/e", "bb"] {
        assert_eq!(desk.push_all(layout.path(), &format!("{}/{name}", registry.host())).code, Some(0));
    }
    let names = |place: &str| {
        let have = json_of(&desk.inventory("have.json", &[place]));
        let names = have["repositories"].as_array().unwrap().iter();
        names.map(|repository| repository["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(registry.host()), ["a", "b/c", "b/d", "b/e", "bb"]);
    assert_eq!(names(&format!("{}/b", registry.host())), ["b/c", "b/d", "b/e"]);
    assert_eq!(names(&format!("docker://{}/bb", registry.host())), ["bb"]);
}

#[test]
fn what_is_no_inventory_is_no_base() {
    let (desk, layout) = (Desk::new(), image("r.example/a:1", &[noise(1, 1000)]));
    let base = desk.path("have.json");
    for (text, words) in [
        ("", "is cut off"),
        (r#"{"longshoreInventory":1,"repositories":["#, "is cut off"),
        (r#"{"repositories":[]}"#, "is no inventory"),
        (r#"{"longshoreInventory":2,"repositories":[]}"#, "of version 2"),
    ] {
        fs_err::write(&base, text).unwrap();
        let run = desk.try_bundle("b.tar", &[layout.path()], &["--base", base.to_str().unwrap()]);
        assert!(run.code == Some(2) && run.stderr.contains(words), "{text}: {run:?}");
    }
    let run = desk.try_bundle("b.tar", &[layout.path()], &["--base", "/no/where"]);
    assert!(run.code == Some(2) && run.stderr.contains("reading `/no/where`"), "{run:?}");
    for (arguments, words) in [
        (vec!["inventory", "nowhere"], "`nowhere` names no registry"),
        (vec!["inventory", "me:xyzzy@localhost:1"], "holds no login"),
        (vec!["inventory", "docker-archive:none.tar"], "does not exist"),
        (vec!["bundle", "-o", "/nowhere/b.tar", layout.path().to_str().unwrap()], "/nowhere"),
        (vec!["bundle", "-o", "b.tar", "--split=0", layout.path().to_str().unwrap()], "no size"),
    ] {
        let run = desk.longshore.run(&arguments);
        assert!(matches!(run.code, Some(2 | 8)) && run.stderr.contains(words), "{arguments:?}: {run:?}");
    }
}

#[test]
fn what_is_about_an_image_comes_with_it_when_that_is_named() {
    let (desk, (layout, signature)) = (Desk::new(), signed("app:1"));
    let source = layout.path().display().to_string() + ":app:1";
    let names = |bundled: Value| {
        let images = bundled["images"].as_array().unwrap().clone();
        images.iter().flat_map(|image| image["names"].as_array().unwrap().clone()).collect::<Vec<_>>()
    };
    let bundled = desk.bundle("bundle.tar", &[Path::new(&source)], &[]);
    assert_eq!(names(bundled), [json!("app:1"), json!(signature)]);
    let bundled = desk.bundle("bundle.tar", &[Path::new(&source)], &["--remove-signatures"]);
    assert_eq!(names(bundled), [json!("app:1")]);
}

#[test]
fn a_limit_on_files_is_told_of() {
    let (dir, layout) = (tempfile::tempdir().unwrap(), Layout::of(&[MIB]));
    let script = r#"ulimit -f 100 && exec "$0" bundle -o "$1/b.tar" --no-cache "$2""#;
    let output = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_longshore")])
        .args([dir.path(), layout.path()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(8) && said.contains("holds no file of"), "{output:?}");
    assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn what_is_about_one_platform_comes_with_it() {
    let (desk, layout) = (Desk::new(), Layout::index(&[&[noise(1, 2000)]]));
    let sbom = Layout::artifact(b"an SBOM", &layout.children[0]);
    layout.adopt(&sbom);
    layout.list(&[(&layout.root.descriptor(), Some("app:1")), (&sbom.root.descriptor(), None)]);
    let named = layout.path().display().to_string() + ":app:1";
    for source in [layout.path(), Path::new(&named)] {
        let bundled = desk.bundle("bundle.tar", &[source], &["--platform", "linux/amd64"]);
        let digests = [&layout.children[0], &sbom.root].map(|document| document.digest.to_string());
        let packed = bundled["images"].as_array().unwrap().iter();
        let packed: Vec<_> = packed.map(|image| image["digest"].as_str().unwrap()).collect();
        assert_eq!(packed, digests);
    }
}

#[test]
fn what_would_not_hold_for_a_changed_image_stops_it() {
    let (desk, (layout, tag)) = (Desk::new(), signed("r.example/a:1"));
    let names = |more: &[&str]| {
        let bundled = desk.bundle("b.tar", &[layout.path()], more);
        let images = bundled["images"].as_array().unwrap().clone();
        images.iter().map(|image| image["names"][0].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&[]), ["r.example/a:1", &tag]);
    let run = desk.try_bundle("c.tar", &[layout.path()], &["--format=docker"]);
    assert!(run.code == Some(2) && run.stderr.contains("would not hold for it"), "{run:?}");
    assert_eq!(names(&["--format=docker", "--remove-signatures"]), ["r.example/a:1"]);
}

#[test]
fn lists_without_an_end_are_given_up() {
    let page = |names: &str, next: &str| {
        let body = format!(r#"{{"repositories":[{names}]}}"#);
        let link = format!("<{next}>; rel=\"next\"");
        Fault::status(200).body("application/json", &body).header("Link", &link)
    };
    let to = |last: &str| page("\"a\"", &format!("/v2/_catalog?last={last}"));
    let ring = Script::new().always(Route::Catalog, to("b")).on(Route::Catalog, 1, to("a"));
    for (script, calls) in [
        // Each page is empty and leads to another one.
        (Script::new().always(Route::Catalog, page("", "{path}x")), 100),
        (ring.on(Route::Catalog, 3, to("a")), 3),
    ] {
        let registry = Registry::start(script);
        let run = Longshore::new().run(["inventory", &registry.host()]);
        assert_eq!(run.code, Some(5), "{run:?}");
        assert!(run.stderr.contains("the list has no end"), "{}", run.stderr);
        assert_eq!(registry.calls(Route::Catalog), calls);
    }
}
