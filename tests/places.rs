//! Places that other tools keep images in, read without these tools: `dir:` folders, containerd's storage,
//! folders of layouts, a registry's storage, nix2container's descriptions, programs that write archives.
//!
//! What the samples hold is compared with what an independent reader found; where there is no sample, one is
//! put together from the blobs of another.
#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "support/program.rs"]
mod program;
#[path = "support/reader.rs"]
mod reader;

use std::{
    collections::BTreeMap,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use longshore::{
    Error, Result,
    blob::Blob,
    error::chain,
    oci::Digest,
    source::{
        Image, ImageContent, Input, Source, SourceSpec, StorageOptions, choose,
        detect::{SourceOptions, open},
        stores::{bolt, containerd},
    },
};
use serde_json::{Value, json};

use self::reader::{check_layers, check_manifests, root, samples, unpack, unpacked};

/// Written with plain layers, so that their images are config and layers.
const PLAIN: [&str; 2] = ["podman-save", "skopeo-decompress"];

#[test]
fn docker_dirs_are_what_the_independent_reader_found() {
    let Some(samples) = samples() else { return };
    for sample in unpacked(&samples.join("dir")) {
        let listed = expected(&samples, &format!("dir/{}", sample.name));
        let by_transport = source(&format!("dir:{}", sample.path.display()));
        if listed[0]["kind"] == "schema1" {
            let error = by_transport.unwrap_err();
            assert_eq!(error.kind().exit_code(), 3);
            assert!(chain(&error).contains("unsupported"), "{error:?}");
            continue;
        }
        for source in [by_transport.unwrap(), source(sample.path.to_str().unwrap()).unwrap()] {
            let images = source.images().unwrap();
            assert!(source.warnings().is_empty());
            if PLAIN.contains(&sample.name.as_str()) {
                check_layers(source.as_ref(), &images[0], &listed[0]);
                assert_eq!(images[0].platform.as_ref().unwrap().to_string(), "linux/amd64");
            } else {
                check_manifests(source.as_ref(), &images, &listed);
            }
        }
    }
}

#[test]
fn signatures_of_a_docker_dir_are_counted() {
    let Some(samples) = samples() else { return };
    for sample in unpacked(&samples.join("dir")) {
        for name in ["signature-1", "signature-12", "0a.signature-1", "signature-x", "signature"] {
            fs_err::write(sample.path.join(name), "").unwrap();
        }
        if let Ok(source) = source(sample.path.to_str().unwrap()) {
            let [warning] = &source.warnings()[..] else { panic!("{:?}", source.warnings()) };
            assert!(warning.ends_with("not pushed: 3"), "{warning}");
        }
    }
}

#[test]
fn containerd_is_read_by_the_names_in_its_database() {
    let Some(root_dir) = containerd_root() else { return };
    let dir = root_dir.path().to_str().unwrap();
    let listed = expected(&samples().unwrap(), "stores/containerd21-root.tar.gz");
    let whole = source(dir).unwrap();
    let names: Vec<String> = whole.images().unwrap().into_iter().map(|image| image.names.join(" ")).collect();
    assert_eq!(
        names,
        [
            "localhost/bk:1",
            "localhost/multi:multi",
            "localhost/multi:other",
            "localhost/sample:1",
            "docker.io/library/multi:latest",
            "localhost/sample:1",
            "localhost/tiny:latest",
            "multi",
            "registry.example.com:5000/ns/tiny:v1",
        ]
    );
    for image in whole.images().unwrap() {
        check_containerd(whole.as_ref(), image, &listed);
    }
    for (reference, name) in [
        ("moby/multi", "multi"),
        ("multi", "multi"),
        ("docker.io/library/multi", "docker.io/library/multi:latest"),
        ("registry.example.com:5000/ns/tiny:v1", "registry.example.com:5000/ns/tiny:v1"),
        ("lab/localhost/sample:1", "localhost/sample:1"),
        ("@0", "localhost/bk:1"),
    ] {
        let image = chosen(&format!("containerd:[{dir}]{reference}")).unwrap();
        assert!(image.names.iter().any(|own| own == name), "{reference}: {:?}", image.names);
    }
    assert_eq!(chosen(&format!("containerd:[{dir}]none")).unwrap_err().kind().exit_code(), 2);
}

#[test]
fn dockers_images_are_read_wherever_docker_keeps_them() {
    let Some(containerd) = containerd_root() else { return };
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().to_str().unwrap();
    let daemon = root.path().join("containerd/daemon");
    fs_err::create_dir(daemon.parent().unwrap()).unwrap();
    fs_err::rename(containerd.path(), &daemon).unwrap();
    fs_err::create_dir(containerd.path()).unwrap();
    let of_containerd = ["multi", "sample", "tiny", "multi", "tiny"];
    let specs = [dir.to_owned(), format!("docker-storage:[{dir}]")];
    let names = |spec: &str| -> Vec<String> {
        let images = source(spec).unwrap().images().unwrap();
        images.into_iter().map(|image| image.names[0].clone()).collect()
    };
    // Where `image/` is absent or stale, and beside a storage that has images too.
    for spec in &specs {
        let names = names(spec);
        assert_eq!(names.len(), of_containerd.len(), "{names:?}");
        assert!(names.iter().zip(of_containerd).all(|(name, part)| name.contains(part)), "{names:?}");
    }
    fs_err::create_dir_all(root.path().join("image/overlay2")).unwrap();
    fs_err::write(root.path().join("image/overlay2/repositories.json"), r#"{"Repositories":{}}"#).unwrap();
    for spec in &specs {
        assert_eq!(names(spec).len(), of_containerd.len());
    }
    unpack(&samples().unwrap().join("stores/docker28-overlay2-root.tar.gz"), root.path());
    for spec in &specs {
        let both = source(spec).unwrap();
        assert!(both.name().starts_with("Docker's storage"), "{}", both.name());
        for (name, is_manifest) in [("docker.io/library/multi", true), ("localhost/base:2", false)] {
            let image = chosen(&format!("{spec}:{name}").replace("]:", "]")).unwrap();
            match &image.content {
                ImageContent::Manifest(manifest) => drop(both.document(manifest).unwrap()),
                ImageContent::Layers { layers, .. } => drop(both.open(&layers[0]).unwrap()),
                ImageContent::Broken { .. } | ImageContent::Index { .. } => panic!("{image:?}"),
            }
            assert_eq!(matches!(image.content, ImageContent::Manifest(_)), is_manifest, "{name}");
        }
        let ambiguous = chosen(&format!("{spec}:localhost/sample:1").replace("]:", "]")).unwrap_err();
        assert_eq!(ambiguous.kind().exit_code(), 2, "{ambiguous:?}");
    }
    // Docker may use the machine's containerd.
    fs_err::remove_dir_all(root.path().join("image")).unwrap();
    fs_err::rename(daemon, root.path().join("elsewhere")).unwrap();
    let spec: SourceSpec = "docker-storage:localhost/sample:1".parse().unwrap();
    let storage = StorageOptions { docker_roots: vec![root.path().to_owned()], ..StorageOptions::default() };
    let options = |containerd_roots| SourceOptions {
        storage: storage.clone(),
        containerd_roots,
        ..SourceOptions::default()
    };
    let Input::Indexed(found) = open(&spec, &options(vec![root.path().join("elsewhere")])).unwrap() else {
        panic!("a pass")
    };
    choose(found.as_ref(), &spec.choice, None).unwrap();
    let error = open(&spec, &options(Vec::new())).unwrap_err();
    assert!(error.hints().concat().contains("containerd:moby/"), "{error:?}");
}

#[test]
fn entries_of_one_name_are_told_apart_by_their_platforms() {
    let Some(samples) = samples() else { return };
    let mut layouts = unpacked(&samples.join("oci")).into_iter();
    let sample = layouts.find(|sample| sample.name == "multiarch-nested").unwrap();
    let read = |path: &Path| -> Value { serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap() };
    // All entries of one name, and none says what it is for but in its config.
    let path = sample.path.join("index.json");
    let nested = read(&path)["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
    let mut index = read(&sample.path.join("blobs").join(nested));
    for entry in index["manifests"].as_array_mut().unwrap() {
        entry.as_object_mut().unwrap().remove("platform");
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "app:1" });
    }
    fs_err::write(&path, index.to_string()).unwrap();
    let layout = source(sample.path.to_str().unwrap()).unwrap();
    let choose = |choice: &str, platform: &str| {
        let spec: SourceSpec = format!("{}{choice}", sample.path.display()).parse().unwrap();
        choose(layout.as_ref(), &spec.choice, platform.parse().ok().as_ref())
    };
    for choice in ["", ":app:1"] {
        for (at, platform) in [(0, "linux/amd64"), (1, "linux/arm64")] {
            let image = choose(choice, platform).unwrap();
            assert_eq!(root(&image).digest.to_string(), index["manifests"][at]["digest"].as_str().unwrap());
        }
        let error = choose(choice, "").unwrap_err();
        assert_eq!(error.kind().exit_code(), 2);
        let hints = error.hints().join("\n");
        let platforms = ["@0: app:1, linux/amd64, sha256:", "@1: app:1, linux/arm64/v8, sha256:"];
        assert!(platforms.iter().all(|platform| hints.contains(platform)), "{hints}");
        assert!(hints.contains("`--platform`"), "{hints}");
        assert_eq!(choose(choice, "linux/s390x").unwrap_err().kind().exit_code(), 2);
    }
}

#[test]
fn containerd_is_read_by_digest_even_without_names() {
    let Some(root_dir) = containerd_root() else { return };
    let dir = root_dir.path().to_str().unwrap();
    let listed = expected(&samples().unwrap(), "stores/containerd21-root.tar.gz");
    // A child of an index, which has no name of its own.
    let child = "sha256:f2da022f023f671ff86d72300ec2ab6aa93211bc384faee418937e363d5bf925";
    let content = format!("{dir}/io.containerd.content.v1.content");
    for spec in [
        format!("containerd:[{dir}]@{child}"),
        format!("containerd:[{dir}]{child}"),
        format!("{dir}@{child}"),
        format!("{content}@{child}"),
    ] {
        let image = chosen(&spec).unwrap();
        assert_eq!(root(&image).digest.to_string(), child, "{spec}");
        check_containerd(source(&spec).unwrap().as_ref(), image, &listed);
    }
    let error = chosen(&content).unwrap_err();
    assert!(error.hints().join(" ").contains("digest"), "{error:?}");
    let unknown = chosen(&format!("containerd:[{dir}]@{}", Digest::of(b"unknown"))).unwrap_err();
    assert_eq!(unknown.kind().exit_code(), 2, "{unknown:?}");
}

#[test]
fn a_damaged_database_is_an_error_or_says_the_same() {
    let Some(root_dir) = containerd_root() else { return };
    let path = root_dir.path().join("io.containerd.metadata.v1.bolt/meta.db");
    let file = fs_err::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let size = file.metadata().unwrap().len();
    let read = || {
        bolt::snapshot(
            || Blob::open(&path),
            |database| containerd::contents(database).map(|(images, _)| images),
        )
    };
    let whole = read().unwrap().len();
    assert_eq!(whole, 9);
    // All of both metas, and something in every page.
    let mut errors = 0;
    for at in (0..size).step_by(89).chain(0..80).chain(4096..4176) {
        let mut byte = [0];
        file.file().read_exact_at(&mut byte, at).unwrap();
        file.file().write_all_at(&[byte[0] ^ 0x81], at).unwrap();
        errors += usize::from(read().is_err());
        file.file().write_all_at(&byte, at).unwrap();
    }
    assert!(errors > 0);
    assert_eq!(read().unwrap().len(), whole);
}

#[test]
fn a_folder_of_layouts_is_read_by_repository_and_tag() {
    let Some(samples) = samples() else { return };
    let dir = tempfile::tempdir().unwrap();
    for (sample, repository) in [("umoci", "ns/app"), ("multiarch-nested", "multi")] {
        let to = dir.path().join(repository);
        fs_err::create_dir_all(to.parent().unwrap()).unwrap();
        unpack(&samples.join(format!("oci/{sample}.dir.tar.gz")), dir.path());
        fs_err::rename(dir.path().join(sample), to).unwrap();
    }
    fs_err::create_dir_all(dir.path().join("ns/app/_uploads")).unwrap();
    let spec = dir.path().to_str().unwrap();
    let whole = source(spec).unwrap();
    let images = whole.images().unwrap();
    let names: Vec<_> = images.iter().map(|image| image.names.join(" ")).collect();
    let mut listed = expected(&samples, "oci/multiarch-nested");
    listed.extend(expected(&samples, "oci/umoci"));
    assert_eq!(names, ["multi:multi", "ns/app:u1", "ns/app:u2"]);
    check_manifests_of(whole.as_ref(), &images, &listed);
    for image in &images {
        let found = chosen(&format!("{spec}:{}", image.names[0])).unwrap();
        assert_eq!(root(&found).digest, root(image).digest);
    }
}

#[test]
fn a_registrys_storage_is_read_by_repository_and_tag() {
    let Some(samples) = samples() else { return };
    for sample in unpacked(&samples.join("oci")) {
        if !["skopeo", "multiarch-nested", "sparse-index-only"].contains(&sample.name.as_str()) {
            continue;
        }
        let listed = expected(&samples, &format!("oci/{}", sample.name));
        let digest = listed[0]["manifest"].as_str().unwrap();
        let dir = registry_storage(&sample.path, "ns/app", "v1", digest);
        let spec = dir.path().to_str().unwrap();
        let whole = source(spec).unwrap();
        let images = whole.images().unwrap();
        assert_eq!(images.len(), 1);
        check_manifests_of(whole.as_ref(), &images, &listed);
        for choice in [":ns/app:v1", &format!("@{digest}"), ""] {
            assert_eq!(chosen(&format!("{spec}{choice}")).unwrap().names[0], "ns/app:v1");
        }
        let error = chosen(&format!("{spec}:ns/app:v2")).unwrap_err();
        assert!(error.hints().join(" ").contains("ns/app:v1"), "{error:?}");
    }
}

#[test]
fn a_nix2container_description_is_its_layer_files() {
    let Some(samples) = samples() else { return };
    let Some(sample) = unpacked(&samples.join("hand")).into_iter().find(|s| s.name == "nix2container") else {
        return;
    };
    let file = sample.path.join("image.json");
    let text = fs_err::read_to_string(&file).unwrap().replace("@SAMPLE@", sample.path.to_str().unwrap());
    fs_err::write(&file, &text).unwrap();
    let error = source(file.to_str().unwrap()).unwrap_err();
    assert_eq!(error.kind().exit_code(), 3);
    assert!(chain(&error).contains("store paths"), "{error:?}");

    let mut description: Value = serde_json::from_str(&text).unwrap();
    description["layers"].as_array_mut().unwrap().pop();
    fs_err::write(&file, description.to_string()).unwrap();
    let described = source(file.to_str().unwrap()).unwrap();
    let image = described.images().unwrap().remove(0);
    let layer = &description["layers"][0];
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["/x"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}},"history":[{{}}]}}"#,
        layer["diff_ids"]
    );
    let listed = json!({
        "config": Digest::of(config.as_bytes()).to_string(),
        "diff_ids": [layer["diff_ids"]],
        "layers": [{
            "digest": layer["digest"],
            "compression": "none",
            "uncompressed": layer["diff_ids"],
            "uncompressed_size": layer["size"],
        }],
    });
    check_layers(described.as_ref(), &image, &listed);

    // Another file in its place does not leave this machine.
    let path = sample.path.join("layer.tar");
    let size = fs_err::metadata(&path).unwrap().len();
    fs_err::write(&path, vec![b'x'; size as usize]).unwrap();
    let ImageContent::Layers { layers, .. } = &image.content else { panic!("{image:?}") };
    let error = source(file.to_str().unwrap()).unwrap().open(&layers[0]).unwrap_err();
    assert!(chain(&error).contains("digest mismatch"), "{error:?}");
}

#[test]
fn a_program_that_writes_an_archive_is_read_as_one() {
    let Some(samples) = samples() else { return };
    let archive = samples.join("docker-archive/podman-save.tar");
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("result");
    let run = |text: String| {
        program::install(&script, &text);
        let options = SourceOptions { from_command: true, ..SourceOptions::default() };
        open(&script.to_str().unwrap().parse::<SourceSpec>()?, &options)
    };
    let read = |input: Input| -> std::io::Result<Vec<u8>> {
        let Input::Pass(mut pass) = input else { panic!("{input:?}") };
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut pass.tar, &mut bytes).map(|_| bytes)
    };
    let whole = fs_err::read(&archive).unwrap();
    assert_eq!(read(run(format!("cat {}", archive.display())).unwrap()).unwrap(), whole);
    assert_eq!(read(run(format!("gzip -c {}", archive.display())).unwrap()).unwrap(), whole);
    let failed = read(run(format!("cat {}; exit 7", archive.display())).unwrap()).unwrap_err();
    assert!(failed.to_string().contains("exit status: 7"), "{failed}");
    let silent = run("exit 7".to_owned()).unwrap_err();
    assert!(chain(&silent).contains("exit status: 7"), "{silent:?}");
    let hints = source(script.to_str().unwrap()).unwrap_err();
    assert!(hints.hints().join(" ").contains("--from-command"), "{hints:?}");
}

fn source(spec: &str) -> Result<Box<dyn Source>> {
    match open(&spec.parse()?, &SourceOptions::default())? {
        Input::Indexed(source) => Ok(source),
        Input::Pass(pass) => Err(Error::internal(format!("{pass:?} passes"))),
    }
}

fn chosen(spec: &str) -> Result<Image> {
    let source = source(spec)?;
    choose(source.as_ref(), &spec.parse::<SourceSpec>()?.choice, None)
}

fn expected(samples: &Path, name: &str) -> Vec<Value> {
    let all: Value = serde_json::from_slice(&fs_err::read(samples.join("expected.json")).unwrap()).unwrap();
    all[name]["images"].as_array().unwrap_or_else(|| panic!("`{name}` is not in expected.json")).clone()
}

/// Compares images with the entries of their digest, whatever these are called.
fn check_manifests_of(source: &dyn Source, images: &[Image], listed: &[Value]) {
    let mut listed = listed.to_vec();
    for entry in &mut listed {
        entry["ref"] = Value::Null;
    }
    check_manifests(source, images, &listed);
}

/// Compares one image of a store that lists documents, each once, with what is in it.
fn check_containerd(source: &dyn Source, image: Image, listed: &[Value]) {
    let digest = root(&image).digest.to_string();
    // A child is listed within its index, and on its own.
    let own = listed.iter().find(|entry| entry["manifest"] == digest && entry.get("in").is_none()).unwrap();
    let below = listed.iter().filter(|entry| entry["in"] == digest.as_str());
    let listed: Vec<Value> = std::iter::once(own).chain(below).cloned().collect();
    check_manifests(source, &[image], &listed);
}

/// Unpacks containerd's storage.
fn containerd_root() -> Option<tempfile::TempDir> {
    let archive = samples()?.join("stores/containerd21-root.tar.gz");
    if !archive.exists() {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    unpack(&archive, dir.path());
    Some(dir)
}

/// Puts the blobs of a layout where a distribution registry keeps them, with one tag.
fn registry_storage(layout: &Path, repository: &str, tag: &str, digest: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("docker/registry/v2");
    let mut files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    for entry in fs_err::read_dir(layout.join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let hex = path.file_name().unwrap().to_str().unwrap();
        let to = root.join("blobs/sha256").join(&hex[..2]).join(hex).join("data");
        files.insert(to, fs_err::read(&path).unwrap());
    }
    let repository = root.join("repositories").join(repository);
    files.insert(repository.join("_manifests/tags").join(tag).join("current/link"), digest.into());
    files.insert(repository.join("_layers/sha256/00/link"), digest.into());
    // A tag that is being deleted.
    fs_err::create_dir_all(repository.join("_manifests/tags/gone")).unwrap();
    for (path, bytes) in files {
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, bytes).unwrap();
    }
    dir
}
