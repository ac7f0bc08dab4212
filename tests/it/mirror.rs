//! `push --all`: every image of a source below one prefix.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde_json::{Value, json};

use crate::{
    support::{
        capability::is_unavailable,
        docker_registry::DockerRegistry,
        longshore::Longshore,
        podman::Podman,
        read_back::ReadBack,
        registry::{Registry, Route},
        samples::Sample,
    },
    wire::image::{Archive, Document, Layout, noise},
};

fn multi() -> Sample {
    Sample::open("docker-archive/docker28-save-multi.tar")
}

fn listed(registry: &DockerRegistry, repository: &str) -> BTreeSet<String> {
    let url = format!("http://{}/v2/{repository}/tags/list", registry.host());
    let output = std::process::Command::new("curl").args(["-sf", &url]).output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    answer["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()).collect()
}

/// Two images of one layout, `a:1` and `b:1`, which share a layer.
fn pair() -> Layout {
    let shared = noise(1, 40_000);
    let one = vec![shared.clone(), noise(2, 1000)];
    let two = vec![shared, noise(3, 1000)];
    let layout = Layout::index(&[&one, &two]);
    let [a, b] = [0, 1].map(|at: usize| layout.children[at].descriptor());
    layout.list(&[(&a, Some("r.example/team/a:1")), (&b, Some("r.example/team/b:1"))]);
    layout
}

fn push_all(longshore: &Longshore, source: &Path, to: &str, more: &[&str]) -> crate::support::longshore::Run {
    longshore.run([&["push", "--all", source.to_str().unwrap(), to], more].concat())
}

#[test]
fn every_image_arrives_under_its_own_names() {
    let (longshore, registry, archive) = (Longshore::new(), DockerRegistry::start(), multi());
    let to = format!("{}/mirror", registry.host());
    let run = push_all(&longshore, &archive.path, &to, &["--map", "localhost=local"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(run.stdout.lines().count(), 4, "{run:?}");
    for (repository, tag) in
        [("local/sample", "1"), ("local/tiny", "latest"), ("ns/tiny", "v1"), ("local/classic", "1")]
    {
        assert_eq!(listed(&registry, &format!("mirror/{repository}")), BTreeSet::from([tag.to_owned()]));
        let back = ReadBack::of(&format!("{to}/{repository}:{tag}")).unwrap();
        let line = format!("{to}/{repository}@{}", back.digest());
        assert!(run.stdout.lines().any(|printed| printed == line), "{line}: {}", run.stdout);
    }
}

#[test]
fn what_is_known_by_its_digest_gets_no_tag() {
    let (longshore, registry, layout) = (Longshore::new(), DockerRegistry::start(), pair());
    let [a, b] = [0, 1].map(|at: usize| layout.children[at].descriptor());
    let [of_a, of_b] =
        [&a, &b].map(|image| format!("r.example/team/app@{}", image["digest"].as_str().unwrap()));
    // Kubernetes has containerd call an image by its config, too.
    let id = layout.blobs[0].to_string();
    layout.list(&[(&a, Some(&of_a)), (&a, Some(&id)), (&b, Some(&of_b)), (&b, Some("r.example/team/app:1"))]);
    let run = push_all(&longshore, layout.path(), registry.host(), &[]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stdout.lines().all(|printed| printed.contains("/team/app@")), "{}", run.stdout);
    assert_eq!(listed(&registry, "team/app"), BTreeSet::from(["1".to_owned()]));
    for image in [&a, &b] {
        let pushed = format!("{}/team/app@{}", registry.host(), image["digest"].as_str().unwrap());
        assert!(run.stdout.lines().any(|printed| printed == pushed), "{pushed}: {}", run.stdout);
        ReadBack::of(&pushed).unwrap();
    }
}

#[test]
fn what_docker_pulled_by_a_digest_gets_no_tag() {
    let (longshore, registry) = (Longshore::new(), DockerRegistry::start());
    let store = Sample::open("stores/docker28-overlay2-root.tar.gz");
    let list = store.path.join("image/overlay2/repositories.json");
    let mut names: Value = serde_json::from_slice(&fs_err::read(&list).unwrap()).unwrap();
    let digest = format!("@sha256:{}", "0".repeat(64));
    let by_tag = names["Repositories"]["localhost/sample"]["localhost/sample:1"].clone();
    names["Repositories"]["localhost/sample"][format!("localhost/sample{digest}")] = by_tag;
    let alone = names["Repositories"]["localhost/base"]["localhost/base:2"].take();
    names["Repositories"]["localhost/base"] = json!({ (format!("localhost/base{digest}")): alone });
    fs_err::write(list, names.to_string()).unwrap();
    let source = format!("docker-storage:[{}]", store.path.display());
    let run = push_all(&longshore, Path::new(&source), &format!("{}/m", registry.host()), &[]);
    assert_eq!(run.code, Some(7), "{run:?}");
    assert!(run.stderr.contains("hint: push it alone, as `SOURCE:@N`"), "{run:?}");
    assert_eq!(listed(&registry, "m/sample"), BTreeSet::from(["1".to_owned()]));
    assert!(ReadBack::of(&format!("{}/m/base:latest", registry.host())).is_err());
}

#[test]
fn a_shared_layer_is_sent_once() {
    let (registry, layout) = (Registry::honest(), pair());
    let run = push_all(&Longshore::new(), layout.path(), &format!("{}/m", registry.host()), &[]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let sent: u64 = registry.log().iter().map(|exchange| exchange.received).sum();
    assert!(sent < 50_000, "{sent}: the layer of 40,000 bytes went over the line more than once");
    for repository in ["m/team/a", "m/team/b"] {
        assert!(registry.tags(repository).contains(&"1".to_owned()), "{repository}");
    }
}

#[test]
fn all_of_podmans_storage_is_pushed() {
    if is_unavailable("podman") || is_unavailable("skopeo") {
        return;
    }
    let (longshore, registry, home) = (Longshore::new(), Registry::honest(), tempfile::tempdir().unwrap());
    let podman = Podman::at(home.path().to_owned());
    podman.load(&multi().path).unwrap();
    let source = format!("containers-storage:[vfs@{}]", podman.store().display());
    let to = format!("{}/m", registry.host());
    let run = push_all(&longshore, Path::new(&source), &to, &["--json"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let printed: Value = serde_json::from_str(&run.stdout).unwrap();
    let told = |repository: &str| {
        let name = format!("{to}/{repository}");
        printed["pushed"].as_array().unwrap().iter().find(|one| one["repository"] == name).cloned().unwrap()
    };
    // Two of the three images have a layer in common, and one has two names.
    let (mut blobs, mut layers) = (BTreeMap::new(), Vec::new());
    for (host, repository, tag) in [
        ("localhost", "sample", "1"),
        ("localhost", "tiny", "latest"),
        ("registry.example.com:5000", "ns/tiny", "v1"),
        ("localhost", "classic", "1"),
    ] {
        let back = ReadBack::of(&format!("{to}/{repository}:{tag}")).unwrap();
        assert_eq!(told(repository)["digest"], back.digest(), "{printed}");
        let contents = back.contents(&back.manifest).unwrap();
        // podman knows an image by its config, and a layer by its plain bytes.
        let id = podman.id(&format!("{host}/{repository}:{tag}")).unwrap();
        assert_eq!(contents.config, format!("sha256:{id}"));
        let config = back.blob(&contents.config).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        let found: Vec<_> = contents.layers.into_iter().map(Option::unwrap).collect();
        let plain: Vec<_> = found.iter().map(|layer| layer.plain.as_str()).collect();
        assert_eq!(config["rootfs"]["diff_ids"], json!(plain));
        let digests: Vec<_> = found.into_iter().map(|layer| layer.digest).collect();
        for digest in digests.iter().chain([&contents.config]) {
            blobs.insert(digest.clone(), back.blob(digest).unwrap().len() as u64);
        }
        layers.push(digests);
    }
    assert!(layers[1] == layers[2] && layers[3].contains(&layers[1][0]), "{layers:?}");
    let sent: u64 =
        [Route::Open, Route::Patch, Route::Commit].map(|route| registry.bytes(route)).iter().sum();
    assert_eq!(sent, blobs.values().sum::<u64>(), "every blob went over the line once");
}

#[test]
fn images_go_side_by_side_and_every_blob_once() {
    let (longshore, registry) = (Longshore::new(), Registry::honest());
    // A ring: each image has a layer of its own, and shares one with each of its neighbours.
    let shared: Vec<_> = (0..12).map(|seed| noise(seed + 1, 50_000)).collect();
    let layers =
        |at: usize| vec![shared[at].clone(), shared[(at + 1) % 12].clone(), noise(100 + at as u64, 1000)];
    let images: Vec<_> = (0..12).map(layers).collect();
    let layout = Layout::index(&images.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let descriptors: Vec<_> = layout.children.iter().map(Document::descriptor).collect();
    let names: Vec<_> =
        (0..12).map(|at| format!("r.example/team/{}:{at}", ["a", "b", "c"][at % 3])).collect();
    let entries: Vec<_> =
        descriptors.iter().zip(&names).map(|(entry, name)| (entry, Some(name.as_str()))).collect();
    layout.list(&entries);
    let run = push_all(&longshore, layout.path(), &format!("{}/m", registry.host()), &["--json", "--jobs=3"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let distinct: u64 = layout.blobs.iter().map(|blob| layout.read(blob).len() as u64).sum();
    let sent: u64 =
        [Route::Open, Route::Patch, Route::Commit].map(|route| registry.bytes(route)).iter().sum();
    assert_eq!(sent, distinct);
    // What became of each is told in the order of the source.
    let printed: Value = serde_json::from_str(&run.stdout).unwrap();
    let digests: Vec<_> = printed["pushed"].as_array().unwrap().iter().map(|one| &one["digest"]).collect();
    assert_eq!(digests, descriptors.iter().map(|entry| &entry["digest"]).collect::<Vec<_>>());
    for (at, name) in names.iter().enumerate() {
        let repository = name.split(['/', ':']).nth(2).unwrap();
        let arrived = registry.manifest(&format!("m/team/{repository}"), &at.to_string()).unwrap().1;
        assert_eq!(arrived, layout.children[at].bytes, "{name}");
    }
}

#[test]
fn one_that_fails_stops_no_other() {
    let (registry, layout) = (Registry::honest(), pair());
    // What only the first image has.
    fs_err::remove_file(layout.blob(&layout.blobs[1])).unwrap();
    let run = push_all(&Longshore::new(), layout.path(), &format!("{}/m", registry.host()), &["--json"]);
    assert_eq!(run.code, Some(7), "{run:?}");
    let printed: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(printed["pushed"][0]["repository"], format!("{}/m/team/b", registry.host()));
    assert_eq!(printed["failed"][0]["destination"], format!("{}/m/team/a", registry.host()));
    assert!(run.stderr.contains("pushing `r.example/team/a:1`"), "{}", run.stderr);
    assert!(registry.tags("m/team/a").is_empty());
}

#[test]
fn what_is_about_an_image_goes_where_that_goes() {
    let (registry, layout) = (DockerRegistry::start(), pair());
    let [a, b] = [0, 1].map(|at: usize| layout.children[at].clone());
    let signature = Layout::referrer(b"a signature", &a);
    layout.adopt(&signature);
    let tag = format!("sha256-{}.sig", a.digest.hex());
    layout.list(&[
        (&signature.root.descriptor(), Some(&tag)),
        (&a.descriptor(), Some("r.example/team/a:1")),
        (&b.descriptor(), Some("r.example/team/b:1")),
    ]);
    let to = format!("{}/m", registry.host());
    let run = push_all(&Longshore::new(), layout.path(), &to, &[]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let tags = listed(&registry, "m/team/a");
    assert!(tags.contains(&tag) && tags.contains("1"), "{tags:?}");
    assert_eq!(listed(&registry, "m/team/b"), BTreeSet::from(["1".to_owned()]));
    // An image that is made anew has another digest, which nobody has signed.
    let run = push_all(&Longshore::new(), layout.path(), &to, &["--format=docker"]);
    assert_eq!(run.code, Some(7), "{run:?}");
    assert!(run.stderr.contains(&format!("would not hold for it: `{tag}`")), "{}", run.stderr);
    let fresh = format!("{}/n", registry.host());
    let run = push_all(&Longshore::new(), layout.path(), &fresh, &["--format=docker", "--remove-signatures"]);
    assert_eq!((run.code, run.stdout.lines().count()), (Some(0), 2), "{run:?}");
    assert_eq!(listed(&registry, "n/team/a"), BTreeSet::from(["1".to_owned()]));
}

#[test]
fn what_is_about_a_child_goes_where_its_index_goes() {
    let (registry, layout) = (Registry::honest(), Layout::index(&[&[noise(1, 2000)], &[noise(2, 300)]]));
    let sbom = Layout::artifact(b"an SBOM", &layout.children[1]);
    let signature = Layout::artifact(b"a signature", &sbom.root);
    layout.adopt(&sbom);
    layout.adopt(&signature);
    layout.list(&[
        (&layout.root.descriptor(), Some("r.example/team/a:1")),
        (&sbom.root.descriptor(), None),
        (&signature.root.descriptor(), None),
    ]);
    let push = |to: &str, more: &[&str]| {
        let run = push_all(&Longshore::new(), layout.path(), &format!("{}/{to}", registry.host()), more);
        assert_eq!(run.code, Some(0), "{run:?}");
        for companion in [&sbom, &signature] {
            let place = format!("{to}/team/a");
            assert!(registry.manifest(&place, &companion.root.digest.to_string()).is_some(), "{run:?}");
        }
    };
    push("m", &[]);
    // What is about one platform goes with that, too, and is for none itself.
    layout.list(&[
        (&layout.put_index(&[&layout.children[1]]).descriptor(), Some("r.example/team/a:1")),
        (&sbom.root.descriptor(), None),
        (&signature.root.descriptor(), None),
    ]);
    push("n", &["--platform", "linux/amd64"]);
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_sent() {
    let (registry, layout) = (Registry::honest(), pair());
    let host = registry.host();
    for (to, more, words) in [
        (format!("{host}/m:1"), &[][..], "has a tag or a digest"),
        ("mirror".to_owned(), &[], "names no registry"),
        (format!("{host}/m"), &["--tag=2"], "`--tag` is for one image"),
        (format!("{host}/m"), &["--map=x"], "`x` maps nothing"),
        (
            format!("{host}/m"),
            &["--map=r.example/team/a=one", "--map=r.example/team/b=one"],
            "would both become",
        ),
    ] {
        let run = push_all(&Longshore::new(), layout.path(), &to, more);
        assert_eq!(run.code, Some(2), "{run:?}");
        assert!(run.stderr.contains(words), "{words}: {}", run.stderr);
    }
    let run =
        Longshore::new().run(["push", "--map=a=b", layout.path().to_str().unwrap(), &format!("{host}/m")]);
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(registry.log().is_empty(), "{:?}", registry.log());
}

#[test]
fn what_has_neither_name_nor_digest_is_pushed_alone() {
    let (longshore, registry, archive) = (Longshore::new(), Registry::honest(), Archive::of(&[1000]));
    let mut bytes = fs_err::read(archive.path()).unwrap();
    let at = bytes.windows(10).position(|found| found == br#"["demo:1"]"#).unwrap();
    bytes[at..at + 10].copy_from_slice(b"[]        ");
    fs_err::write(archive.path(), bytes).unwrap();
    let run = push_all(&longshore, &archive.path(), &format!("{}/demo", registry.host()), &[]);
    assert_eq!(run.code, Some(3), "{run:?}");
    assert!(run.stderr.contains("hint: push it alone, as `SOURCE:@N`"), "{run:?}");
    let alone = format!("{}:@0", archive.path().display());
    let run = longshore.run(["push", &alone, &format!("{}/demo:1", registry.host())]);
    assert_eq!(run.code, Some(0), "{run:?}");
}

#[test]
fn a_dry_run_says_where_each_would_go() {
    let (registry, layout) = (Registry::honest(), pair());
    let run = push_all(&Longshore::new(), layout.path(), &format!("{}/m", registry.host()), &["--dry-run"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    for repository in ["m/team/a", "m/team/b"] {
        assert!(run.stdout.contains(&format!("{}/{repository}@sha256:", registry.host())), "{}", run.stdout);
    }
    let asked =
        |route| matches!(route, Route::BlobHead | Route::ManifestHead | Route::ManifestGet | Route::Base);
    assert!(registry.log().iter().all(|exchange| asked(exchange.route)), "{:?}", registry.log());
}

#[test]
fn a_folder_can_be_the_mirror() {
    let (longshore, archive) = (Longshore::new(), multi());
    let dir = tempfile::tempdir().unwrap();
    let into = dir.path().to_str().unwrap();
    let run = push_all(&longshore, &archive.path, ".", &["--into", into]);
    assert_eq!(run.code, Some(0), "{run:?}");
    for (repository, tag) in [("sample", "1"), ("tiny", "latest"), ("ns/tiny", "v1"), ("classic", "1")] {
        ReadBack::of_layout(dir.path().join(repository), tag).unwrap();
    }
}

/// A folder with a docker archive, an OCI archive in parts, and one that is compressed.
fn folder(longshore: &Longshore) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs_err::copy(multi().path, dir.path().join("multi.tar")).unwrap();
    let packed = Sample::open("docker-archive/podman-save.tar.gz");
    fs_err::copy(packed.path, dir.path().join("packed.tar.gz")).unwrap();
    let (file, layout) = (dir.path().join("pair.tar"), pair());
    let bundle = ["bundle", "-o", file.to_str().unwrap(), "--split", "20KB", layout.path().to_str().unwrap()];
    assert_eq!(longshore.run(bundle).code, Some(0));
    dir
}

#[test]
fn a_folder_of_archives_is_pushed_inspected_and_bundled() {
    let (longshore, registry) = (Longshore::new(), DockerRegistry::start());
    let dir = folder(&longshore);
    let run = push_all(&longshore, dir.path(), &format!("{}/m", registry.host()), &[]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stderr.contains("compressed archives are left out") && run.stderr.contains("packed.tar.gz"));
    for name in ["sample:1", "tiny:latest", "ns/tiny:v1", "classic:1", "team/a:1", "team/b:1"] {
        ReadBack::of(&format!("{}/m/{name}", registry.host())).unwrap();
    }
    let source = dir.path().to_str().unwrap();
    let run = longshore.run(["inspect", "--verify", source]);
    assert!(run.code == Some(0) && run.stdout.contains("r.example/team/b:1"), "{run:?}");
    let bundle = tempfile::tempdir().unwrap();
    let file = bundle.path().join("all.tar");
    let run = longshore.run(["bundle", "-o", file.to_str().unwrap(), source]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(run.stdout.lines().count(), 5, "{run:?}");
}

#[test]
fn two_archives_may_not_mean_two_images_by_one_name() {
    let (registry, dir) = (Registry::honest(), tempfile::tempdir().unwrap());
    for sample in ["buildx-plain", "buildx-provenance"] {
        let sample = Sample::open(&format!("oci-archive/{sample}.tar"));
        fs_err::copy(&sample.path, dir.path().join(sample.path.file_name().unwrap())).unwrap();
    }
    let run = push_all(&Longshore::new(), dir.path(), &registry.host(), &[]);
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("two images are called `localhost/bk:1`"), "{run:?}");
}

#[test]
fn a_folder_may_hold_more_archives_than_files_may_usually_be_open() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..100 {
        fs_err::copy(multi().path, dir.path().join(format!("{number}.tar"))).unwrap();
    }
    let inspect = |limit: &str| {
        let script = format!(r#"ulimit {limit} && exec "$0" inspect --json "$1""#);
        std::process::Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_longshore"), dir.path().to_str().unwrap()])
            .output()
            .unwrap()
    };
    let output = inspect("-Sn 64");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // All of them hold the same images.
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["images"].as_array().unwrap().len(), 4);
    // Where no more is allowed at all, that is not the archives' fault.
    let output = inspect("-n 64");
    assert_eq!(output.status.code(), Some(8), "{}", String::from_utf8_lossy(&output.stderr));
}
