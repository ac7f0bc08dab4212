//! Every sample that a real tool wrote is read and compared with what an independent reader found in it, and
//! every broken one is refused with the words that its row in `EXPECT.tsv` demands.
//!
//! The samples lie beside the repository, or a part of them in `fixtures/`.
#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "support/reader.rs"]
mod reader;

use std::{
    collections::BTreeSet,
    io::{self, Read},
    path::Path,
};

use longshore::{
    Error, Result,
    codec::Compression,
    error::chain,
    oci::{Algorithm, Content, Descriptor, Digest, Hasher, ImageConfig, Manifest},
    source::{
        Choice, ImageContent, Input, Layer, Source, SourceSpec,
        archive::{Entries, EntryData, EntryKind, Index},
        choose,
        detect::{SourceOptions, open},
        documents::read_config,
        resolve,
        tarball::from_index,
    },
};
use serde_json::Value;

use self::reader::{Sample, check_layers, check_manifests, root, samples, strings, unpacked};

/// Written by Docker's own store, so that their manifests are made up and their images are config and layers.
const MADE_UP: [&str; 5] = [
    "docker26-save-by-id.tar",
    "docker26-save-multi.tar",
    "docker26-save.tar",
    "docker28-save-multi.tar",
    "docker28-save.tar",
];

/// Bad samples whose defect shows only when a layer or config is hashed or decoded, as a push does.
const FOUND_BY_PUSH: [&str; 5] = [
    "da-diffid-mismatch.tar",
    "da-layer-gzip-corrupt.tar",
    "da-same-path-two-diffids.tar",
    "oci-wrong-digest-config",
    "oci-wrong-digest-layer",
];

#[test]
fn good_samples_are_what_the_independent_reader_found() {
    let Some(samples) = samples() else { return };
    let expected: Value =
        serde_json::from_slice(&fs_err::read(samples.join("expected.json")).unwrap()).unwrap();
    let mut seen = BTreeSet::new();
    for folder in ["oci", "oci-archive", "docker-archive", "hand"] {
        for sample in unpacked(&samples.join(folder)) {
            let key = format!("{folder}/{}", sample.name);
            let Some(expected) = expected.get(&key) else { panic!("`{key}` is not in expected.json") };
            println!("{key}");
            check_sample(&sample, expected);
            seen.insert(key);
        }
    }
    assert!(!seen.is_empty(), "no samples in {}", samples.display());
    if !samples.ends_with("fixtures") {
        let listed = expected.as_object().unwrap().keys();
        let ours = listed.filter(|key| !key.starts_with("dir/") && !key.starts_with("stores/"));
        assert_eq!(ours.cloned().collect::<BTreeSet<_>>(), seen);
    }
}

#[test]
fn one_image_among_its_signatures_needs_no_choice() {
    let Some(samples) = samples() else { return };
    for sample in unpacked(&samples.join("hand")) {
        let names: &[&str] = match sample.name.as_str() {
            "artifact-referrers" | "cosign-tags" | "referrers-fallback-tag" => &["app"],
            "oci-artifact-manifest-removed" => &[],
            "flat-platforms" => {
                let source = indexed(&sample.path);
                let error = choose(source.as_ref(), &Choice::Only, None).unwrap_err();
                assert_eq!(error.kind().exit_code(), 2);
                assert!(error.hints().iter().any(|hint| hint.contains("@1: no name, linux/arm64/v8")));
                let arm64 = "linux/arm64".parse().ok();
                for (choice, platform) in [(Choice::Index(1), None), (Choice::Only, arm64)] {
                    let image = choose(source.as_ref(), &choice, platform.as_ref()).unwrap();
                    assert_eq!(image.platform.unwrap().to_string(), "linux/arm64/v8");
                }
                continue;
            }
            _ => continue,
        };
        let image = choose(indexed(&sample.path).as_ref(), &Choice::Only, None).unwrap();
        assert_eq!(image.names, names, "{}", sample.name);
    }
}

#[test]
fn bad_samples_are_refused_as_their_row_demands() {
    let Some(samples) = samples() else { return };
    let table = fs_err::read_to_string(samples.join("bad/EXPECT.tsv")).unwrap();
    let mut count = 0;
    for sample in unpacked(&samples.join("bad")) {
        let name = sample.name.as_str();
        let row = table.lines().find(|row| row.split('\t').next() == Some(name));
        let Some(row) = row else { panic!("`{name}` is not in EXPECT.tsv") };
        let fields: Vec<&str> = row.split('\t').collect();
        let [_, _, exit, word, ..] = fields[..] else { panic!("odd row: {row}") };
        // Stores are for later; a mode of 000 does not stop root.
        if name.starts_with("cs-") || name == "oci-blob-unreadable" {
            continue;
        }
        count += 1;
        match examine(&sample.path) {
            Ok(()) => assert!(exit == "0" || FOUND_BY_PUSH.contains(&name), "{name} was accepted"),
            Err(error) => {
                let said = format!("{}; {}", chain(&error), error.hints().join("; "));
                println!("{name}: {said}");
                assert_eq!(error.kind().exit_code().to_string(), exit, "{name}: {said}");
                assert!(said.contains(word), "{name}: `{word}` is not in: {said}");
            }
        }
    }
    assert!(count > 0, "no bad samples in {}", samples.display());
}

#[test]
fn what_goes_on_in_a_source_is_warned_of() {
    let Some(samples) = samples() else { return };
    for sample in unpacked(&samples.join("bad")) {
        if sample.name == "da-config-name-digest-lies.tar" {
            let warnings = indexed(&sample.path).warnings().join("\n");
            assert!(warnings.contains(&"0".repeat(64)), "{warnings}");
        }
        if sample.name == "oci-dag-bomb" {
            let source = indexed(&sample.path);
            let image = choose(source.as_ref(), &Choice::Only, None).unwrap();
            let tree = resolve(source.as_ref(), root(&image), None).unwrap();
            assert_eq!(tree.manifests.len(), 13);
        }
    }
}

#[test]
fn one_platform_takes_the_place_of_its_index() {
    let Some(samples) = samples() else { return };
    for sample in unpacked(&samples.join("oci")) {
        let wanted = match sample.name.as_str() {
            "buildx-multiplatform-attest" | "crane-pull-index" | "multiarch-nested" => "linux/arm64/v8",
            "buildah" => "linux/amd64",
            _ => continue,
        };
        let source = indexed(&sample.path);
        let image = choose(source.as_ref(), &Choice::Only, None).unwrap();
        let tree = resolve(source.as_ref(), root(&image), Some(&wanted.parse().unwrap())).unwrap();
        let [manifest] = &tree.manifests[..] else { panic!("{}: {:?}", sample.name, tree.manifests) };
        let Content::Image { config: Some(config), .. } = &manifest.content else { panic!("an index") };
        let config = ImageConfig::parse(&read_config(source.as_ref(), config).unwrap(), "it").unwrap();
        assert!(config.platform.unwrap().satisfies(&wanted.parse().unwrap()), "{}", sample.name);
        let error =
            resolve(source.as_ref(), root(&image), Some(&"linux/s390x".parse().unwrap())).unwrap_err();
        assert_eq!(error.kind().exit_code(), 2, "{error:?}");
        assert!(error.hints().join(" ").contains("linux/a"), "{error:?}");
    }
}

fn check_sample(sample: &Sample, expected: &Value) {
    let format = expected["format"].as_str().unwrap();
    if format == "?" {
        let error = examine(&sample.path).unwrap_err();
        assert_eq!(error.kind().exit_code(), 3, "{error:?}");
        return;
    }
    let made_up = MADE_UP.contains(&sample.name.as_str());
    for source in sources(&sample.path) {
        let source = source.as_ref();
        let images = source.images().unwrap();
        match (&expected["images"], format) {
            (Value::Array(listed), "docker-archive" | "docker-dir-extracted") => {
                assert_eq!(images.len(), listed.len());
                for (image, expected) in images.iter().zip(listed) {
                    assert_eq!(image.names, strings(&expected["tags"]));
                    check_layers(source, image, expected);
                }
            }
            (Value::Array(listed), _) => check_manifests(source, &images, listed),
            (Value::Object(lists), _) if made_up => {
                let oci = lists["oci"].as_array().unwrap();
                let docker = lists["docker"].as_array().unwrap();
                assert_eq!(images.len(), oci.len());
                for (image, listed) in images.iter().zip(oci) {
                    let of_config = |item: &&Value| item["config"] == listed["config"];
                    check_layers(source, image, docker.iter().find(of_config).unwrap());
                }
            }
            (Value::Object(lists), _) => check_manifests(source, &images, lists["oci"].as_array().unwrap()),
            odd => panic!("{odd:?}"),
        }
    }
}

/// Opens a sample in place, and an archive as a stream, too.
fn sources(path: &Path) -> Vec<Box<dyn Source>> {
    // Some samples keep the blobs beside the layout, in a folder to be named or to be found by links.
    let inner = path.join("layout");
    let path = if inner.exists() { inner.as_path() } else { path };
    let beside = path.with_file_name("blobs");
    let options = SourceOptions { blob_dir: beside.exists().then_some(beside), ..SourceOptions::default() };
    let spec = path.to_str().unwrap().parse::<SourceSpec>().unwrap();
    match open(&spec, &options).unwrap() {
        Input::Indexed(source) if path.is_dir() => vec![source],
        Input::Indexed(source) => {
            let stream = fs_err::File::open(path).unwrap();
            vec![source, absorbed(Box::new(stream)).unwrap()]
        }
        Input::Pass(pass) => vec![absorbed(pass.tar).unwrap()],
    }
}

fn indexed(path: &Path) -> Box<dyn Source> {
    sources(path).swap_remove(0)
}

/// Reads an archive once, keeping what is small.
fn absorbed(tar: Box<dyn Read + Send>) -> Result<Box<dyn Source>> {
    let mut index = Index::default();
    let mut entries = Entries::new(tar);
    while let Some(head) = entries.next() {
        let head = head?;
        let data = if head.kind != EntryKind::File || head.size <= 4 << 20 {
            let mut bytes = Vec::new();
            entries.read_to_end(&mut bytes).map_err(|error| Error::source("reading").because(error))?;
            EntryData::Kept(bytes.into())
        } else {
            let (size, digest) = hashed(&mut entries);
            EntryData::Absorbed { digest, size, compression: Compression::None }
        };
        index.add(head, data)?;
    }
    from_index(index, "the stream", None)
}

/// Does what a push does to an image before it hashes and sends.
fn examine(path: &Path) -> Result<()> {
    let spec = path.to_str().unwrap().parse::<SourceSpec>()?;
    let source = match open(&spec, &SourceOptions::default())? {
        Input::Indexed(source) => source,
        Input::Pass(pass) => absorbed(pass.tar)?,
    };
    let image = choose(source.as_ref(), &spec.choice, None)?;
    match &image.content {
        ImageContent::Layers { layers, .. } => {
            for layer in layers {
                source.open(layer)?;
            }
        }
        ImageContent::Broken { error, .. } => return Err(error.clone()),
        ImageContent::Index { .. } => panic!("no archive is an index of images without manifests"),
        ImageContent::Manifest(descriptor) => {
            for manifest in resolve(source.as_ref(), descriptor, None)?.manifests {
                for blob in blobs(&manifest) {
                    source.open(&Layer::named(&blob))?;
                }
            }
        }
    }
    Ok(())
}

/// Returns the blobs that are pushed with a manifest.
fn blobs(manifest: &Manifest) -> Vec<Descriptor> {
    match &manifest.content {
        Content::Image { config, layers } => config.iter().chain(layers).cloned().collect(),
        Content::Index { .. } => Vec::new(),
    }
}

fn hashed(reader: &mut impl Read) -> (u64, Digest) {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let size = io::copy(reader, &mut hasher).unwrap();
    (size, hasher.finish())
}
