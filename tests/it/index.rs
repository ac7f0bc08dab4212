//! `push --index`: one multi-platform index of images that lie in several places.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    support::{
        capability::is_unavailable,
        docker_registry::DockerRegistry,
        longshore::{Longshore, Run},
        podman::Podman,
        read_back::ReadBack,
        registry::{Registry, Route},
        skopeo,
    },
    wire::image::{Archive, INDEX, Layout, MANIFEST, layer, noise},
};

const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// An image for a platform: a layer that all of them have, and one of its own.
fn image(platform: Value) -> Archive {
    let own = platform.to_string().len() as u64;
    Archive::on(platform, vec![layer(&noise(1, 40_000)), layer(&noise(100 + own, 1000))])
}

fn amd64() -> Archive {
    image(json!({ "os": "linux", "architecture": "amd64" }))
}

fn arm64() -> Archive {
    image(json!({ "os": "linux", "architecture": "arm64", "variant": "v8" }))
}

fn push(longshore: &Longshore, sources: &[&Path], to: &str, more: &[&str]) -> Run {
    let sources: Vec<_> = sources.iter().map(|source| source.to_str().unwrap()).collect();
    longshore.run([&["push", "--index"], sources.as_slice(), &[to], more].concat())
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// Reads an index that arrived, with all its children; returns the platforms in their order.
fn platforms(index: &ReadBack) -> Vec<Value> {
    let children = parsed(&index.manifest)["manifests"].as_array().unwrap().clone();
    for child in &children {
        let bytes = index.blob(child["digest"].as_str().unwrap()).unwrap();
        assert_eq!(child["size"], bytes.len());
        assert_eq!(child["mediaType"], parsed(&bytes)["mediaType"]);
        let contents = index.contents(&bytes).unwrap();
        assert!(contents.layers.iter().all(Option::is_some), "{contents:?}");
    }
    children.into_iter().map(|child| child["platform"].clone()).collect()
}

#[test]
fn a_list_of_podmans_is_pushed_with_all_its_images() {
    if is_unavailable("podman") || is_unavailable("skopeo") {
        return;
    }
    let (longshore, registry, home) =
        (Longshore::new(), DockerRegistry::start(), tempfile::tempdir().unwrap());
    let podman = Podman::at(home.path().to_owned());
    let (amd64, arm64) = (amd64(), arm64());
    for (archive, name) in [(&amd64, "localhost/amd64:1"), (&arm64, "localhost/arm64:1")] {
        let loaded = podman.load(&archive.path()).unwrap();
        podman.tag(loaded.rsplit(' ').next().unwrap().trim(), name).unwrap();
    }
    podman.list("both", &["localhost/amd64:1", "localhost/arm64:1"]).unwrap();
    let listed = parsed(podman.listed("both").unwrap().as_bytes());
    let second = listed["manifests"][1]["digest"].as_str().unwrap();
    podman.annotate("both", second, "a=b").unwrap();
    let source = |name: &str| format!("containers-storage:[vfs@{}]{name}", podman.store().display());
    let to = |path: &str| format!("{}/{path}", registry.host());
    let run = |arguments: &[&str]| {
        let run = longshore.run(arguments);
        assert_eq!(run.code, Some(0), "{run:?}");
    };

    run(&["push", &source("both"), &to("one/app:1")]);
    let back = ReadBack::of(&to("one/app:1")).unwrap();
    let (one, two) = (
        json!({ "os": "linux", "architecture": "amd64" }),
        json!({ "os": "linux", "architecture": "arm64", "variant": "v8" }),
    );
    assert_eq!(platforms(&back), [one.clone(), two.clone()]);
    assert_eq!(parsed(&back.manifest)["manifests"][1]["annotations"]["a"], "b");
    // The same as each of them alone, and as a bundle of them.
    run(&["push", &source("both"), &to("one/app:arm"), "--platform", "linux/arm64"]);
    run(&["push", &source("arm64:1"), &to("one/app:alone")]);
    for tag in ["arm", "alone"] {
        let alone = ReadBack::of(&to(&format!("one/app:{tag}"))).unwrap();
        assert_eq!(parsed(&back.manifest)["manifests"][1]["digest"], alone.digest());
    }
    let bundle = home.path().join("both.tar");
    run(&["bundle", &source("both"), "--output", bundle.to_str().unwrap()]);
    run(&["push", bundle.to_str().unwrap(), &to("two/app:1")]);
    assert_eq!(ReadBack::of(&to("two/app:1")).unwrap().digest(), back.digest());
    // As a part of another index, beside one that is made of archives.
    let s390x = image(json!({ "os": "linux", "architecture": "s390x" }));
    let both = source("both");
    let pushed =
        push(&longshore, &[Path::new(&both), &s390x.path()], &to("three/app:1"), &["--format", "docker"]);
    assert_eq!(pushed.code, Some(0), "{pushed:?}");
    let three = ReadBack::of(&to("three/app:1")).unwrap();
    assert_eq!(platforms(&three), [one, two, json!({ "os": "linux", "architecture": "s390x" })]);
    assert_eq!(parsed(&three.manifest)["mediaType"], DOCKER_INDEX);
    // What is not there any more may be at the destination, and else it is missed before anything is tagged.
    podman.remove("localhost/arm64:1").unwrap();
    let run = longshore.run(["push", &source("both"), &to("four/app:1")]);
    assert_eq!(run.code, Some(3), "{run:?}");
    assert!(run.stderr.contains(second), "{}", run.stderr);
    assert!(ReadBack::of(&to("four/app:1")).is_err());
}

#[test]
fn archives_of_several_platforms_become_one_index() {
    let (longshore, registry) = (Longshore::new(), DockerRegistry::start());
    let windows = image(json!({ "os": "windows", "architecture": "amd64", "os.version": "10.0.20348.2527" }));
    let (amd64, arm64) = (amd64(), arm64());
    let to = format!("{}/team/demo:1", registry.host());
    let file = longshore.home().join("digest");
    let more = ["--tag=2", "--digest-file", file.to_str().unwrap()];
    // One of them can be read once.
    let run = push(&longshore, &[&amd64.path(), &arm64.compressed(), &windows.path()], &to, &more);
    let back = ReadBack::of(&to).unwrap();
    assert_eq!(run.pushed().unwrap(), format!("{}/team/demo@{}", registry.host(), back.digest()));
    assert_eq!(fs_err::read_to_string(file).unwrap(), back.digest());
    assert_eq!(parsed(&back.manifest)["mediaType"], INDEX);
    assert_eq!(
        platforms(&back),
        [
            json!({ "os": "linux", "architecture": "amd64" }),
            json!({ "os": "linux", "architecture": "arm64", "variant": "v8" }),
            json!({ "os": "windows", "architecture": "amd64", "os.version": "10.0.20348.2527" }),
        ]
    );
    let other = ReadBack::of(&format!("{}/team/demo:2", registry.host())).unwrap();
    assert_eq!(other.digest(), back.digest());

    // The same images in another packaging, from an empty cache, by another registry: the same index.
    let dir = tempfile::tempdir().unwrap();
    let into = ["--into", dir.path().to_str().unwrap()];
    let again = Longshore::new();
    push(&again, &[&amd64.compressed(), &arm64.path(), &windows.compressed()], "demo:1", &into)
        .pushed()
        .unwrap();
    assert_eq!(ReadBack::of_layout(dir.path().join("demo"), "1").unwrap().manifest, back.manifest);
}

#[test]
fn what_platforms_share_is_sent_once_and_nothing_the_second_time() {
    let (longshore, registry) = (Longshore::new(), Registry::honest());
    let (amd64, arm64) = (amd64(), arm64());
    let to = format!("{}/demo:1", registry.host());
    let first = push(&longshore, &[&amd64.path(), &arm64.path()], &to, &[]);
    first.pushed().unwrap();
    let sent: u64 =
        [Route::Open, Route::Patch, Route::Commit].map(|route| registry.bytes(route)).iter().sum();
    assert!(sent < 50_000, "{sent}: the layer of 40,000 bytes went over the line more than once");
    assert_eq!(registry.tags("demo"), ["1"]);
    let before = registry.log().len();
    let second = push(&longshore, &[&amd64.path(), &arm64.path()], &to, &[]);
    assert_eq!(second.pushed().unwrap(), first.pushed().unwrap());
    let asked: Vec<_> = registry.log()[before..].iter().map(|exchange| exchange.route).collect();
    assert!(asked.iter().all(|route| [Route::Base, Route::ManifestHead].contains(route)), "{asked:?}");
}

#[test]
fn options_hold_for_all_of_it() {
    let (longshore, registry) = (Longshore::new(), DockerRegistry::start());
    let (amd64, arm64) = (amd64(), arm64());
    for (more, index, manifest, layers) in [
        (&["--format=docker"][..], DOCKER_INDEX, DOCKER_MANIFEST, "tar.gzip"),
        (&["--compression=zstd"], INDEX, MANIFEST, "tar+zstd"),
    ] {
        let to = format!("{}/demo:{}", registry.host(), more[0].split('=').next_back().unwrap());
        push(&longshore, &[&amd64.path(), &arm64.path()], &to, more).pushed().unwrap();
        let back = ReadBack::of(&to).unwrap();
        assert_eq!(parsed(&back.manifest)["mediaType"], index);
        assert_eq!(platforms(&back).len(), 2);
        for child in parsed(&back.manifest)["manifests"].as_array().unwrap() {
            assert_eq!(child["mediaType"], manifest);
            let image = parsed(&back.blob(child["digest"].as_str().unwrap()).unwrap());
            assert!(image["layers"][0]["mediaType"].as_str().unwrap().ends_with(layers), "{image}");
        }
    }
}

/// An index in a layout, of an image and what BuildKit attests of it, with words of its own.
fn attested(dir: &Path, image: &Archive) -> Vec<u8> {
    let layout = format!("oci:{}:v1", dir.display());
    skopeo::repackage(&format!("docker-archive:{}", image.path().display()), &layout).unwrap();
    let list = parsed(&fs_err::read(dir.join("index.json")).unwrap());
    let mut child = list["manifests"][0].clone();
    child.as_object_mut().unwrap().remove("annotations");
    let attestation = Layout::of(&[300]);
    for blob in attestation.blobs.iter().chain([&attestation.root.digest]) {
        fs_err::copy(attestation.blob(blob), dir.join("blobs/sha256").join(blob.hex())).unwrap();
    }
    let mut about = attestation.root.descriptor();
    about["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    about["annotations"] = json!({
        "vnd.docker.reference.digest": child["digest"], "vnd.docker.reference.type": "attestation-manifest",
    });
    child["platform"] =
        json!({ "os": "linux", "architecture": "arm64", "variant": "v8", "os.features": ["x"] });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [child, about] }).to_string();
    let digest = longshore::oci::Digest::of(index.as_bytes());
    fs_err::write(dir.join("blobs/sha256").join(digest.hex()), &index).unwrap();
    let root = json!({ "mediaType": INDEX, "digest": digest, "size": index.len() });
    let list = json!({ "schemaVersion": 2, "manifests": [root] });
    fs_err::write(dir.join("index.json"), list.to_string()).unwrap();
    index.into_bytes()
}

#[test]
fn an_index_gives_its_children_with_all_that_is_said_of_them() {
    let (longshore, registry) = (Longshore::new(), DockerRegistry::start());
    let dir = tempfile::tempdir().unwrap();
    let index = parsed(&attested(dir.path(), &arm64()));
    let amd64 = amd64();
    let to = format!("{}/demo:1", registry.host());
    push(&longshore, &[dir.path(), &amd64.path()], &to, &[]).pushed().unwrap();
    let back = ReadBack::of(&to).unwrap();
    let arrived = parsed(&back.manifest);
    assert_eq!(arrived["manifests"][0], index["manifests"][0]);
    assert_eq!(arrived["manifests"][1], index["manifests"][1]);
    assert_eq!(platforms(&back).len(), 3);

    // What is attested of an image is attested of what that becomes.
    push(&longshore, &[dir.path(), &amd64.path()], &to, &["--compression=zstd"]).pushed().unwrap();
    let arrived = parsed(&ReadBack::of(&to).unwrap().manifest);
    assert_ne!(arrived["manifests"][0]["digest"], index["manifests"][0]["digest"]);
    assert_eq!(
        arrived["manifests"][1]["annotations"]["vnd.docker.reference.digest"],
        arrived["manifests"][0]["digest"]
    );
}

#[test]
fn an_index_can_be_written_to_disk() {
    let (longshore, dir) = (Longshore::new(), tempfile::tempdir().unwrap());
    let (amd64, arm64) = (amd64(), arm64());
    for kind in ["oci", "oci-archive"] {
        let to = format!("{kind}:{}:v1", dir.path().join(kind).display());
        let run = push(&longshore, &[&amd64.path(), &arm64.path()], &to, &[]);
        let inspected = longshore.run(["inspect", run.pushed().unwrap(), "--verify"]);
        assert_eq!(inspected.code, Some(0), "{inspected:?}");
        for platform in ["linux/amd64", "linux/arm64/v8"] {
            assert!(inspected.stdout.contains(platform), "{inspected:?}");
        }
    }
}

#[test]
fn a_dry_run_asks_and_does_nothing() {
    let (longshore, registry) = (Longshore::new(), Registry::honest());
    let to = format!("{}/demo:1", registry.host());
    let run = push(&longshore, &[&amd64().path(), &arm64().path()], &to, &["--dry-run", "--json"]);
    let foreseen = &parsed(run.stdout.as_bytes())["destinations"][0];
    assert_eq!(foreseen["tags"], json!(["1"]), "{run:?}");
    // Two configs, one layer that both have and one of each.
    assert_eq!(foreseen["blobs"].as_array().unwrap().len(), 5, "{run:?}");
    let asked =
        |route| matches!(route, Route::BlobHead | Route::ManifestHead | Route::ManifestGet | Route::Base);
    assert!(registry.log().iter().all(|exchange| asked(exchange.route)), "{:?}", registry.log());
}

#[test]
fn what_makes_no_index_is_said_before_anything_is_sent() {
    let (longshore, registry) = (Longshore::new(), Registry::honest());
    let to = format!("{}/demo:1", registry.host());
    let (amd64, none) = (amd64(), image(json!({ "os": "linux" })));
    let same = image(json!({ "os": "linux", "architecture": "x86_64" }));
    let (amd64, none, same) = (amd64.path(), none.path(), same.compressed());
    for (sources, more, code, words) in [
        (vec![&amd64, &same], &[][..], 2, "both are for linux/x86_64"),
        (vec![&amd64, &none], &[], 3, "nothing says which platform it is for"),
        (vec![&amd64], &["--platform=linux/amd64"], 2, "`--platform` picks one"),
        (vec![&amd64], &["--all"], 2, "`--index` makes one"),
    ] {
        let sources: Vec<_> = sources.into_iter().map(std::path::PathBuf::as_path).collect();
        let run = push(&longshore, &sources, &to, more);
        assert_eq!(run.code, Some(code), "{run:?}");
        assert!(run.stderr.contains(words), "{words}: {}", run.stderr);
    }
    assert!(registry.log().is_empty(), "{:?}", registry.log());
}
