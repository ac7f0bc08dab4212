//! Every sample that a real tool wrote is read and compared with what an independent reader found in it, and
//! every broken one is refused with the words that its row in `EXPECT.tsv` demands.
//!
//! The samples lie beside the repository, or a part of them in `fixtures/`.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it does and stops")]

use std::{
    collections::{BTreeSet, HashSet},
    fs::Permissions,
    io::{self, Cursor, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use longshore::{
    Error, Result,
    codec::Compression,
    error::chain,
    oci::{Algorithm, Content, Descriptor, DiffId, Digest, Hasher, ImageConfig, Manifest},
    source::{
        Choice, Data, Image, ImageContent, Input, Layer, Missing, Source, SourceSpec,
        archive::{Entries, EntryData, EntryKind, Index},
        choose,
        detect::{SourceOptions, from_index, open},
        resolve,
        tree::read_config,
    },
};
use serde_json::Value;
use tempfile::TempDir;

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
                let images = indexed(&sample.path).images().unwrap();
                let error = choose(images.clone(), &Choice::Only, "it").unwrap_err();
                assert_eq!(error.kind().exit_code(), 2);
                assert!(error.hints().iter().any(|hint| hint.contains("@1: no name, linux/arm64/v8")));
                choose(images, &Choice::Index(1), "it").unwrap();
                continue;
            }
            _ => continue,
        };
        let image = choose(indexed(&sample.path).images().unwrap(), &Choice::Only, "it").unwrap();
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
        // Stores and `dir:` are for later; a mode of 000 does not stop root.
        if name.starts_with("cs-") || name.starts_with("dir-") || name == "oci-blob-unreadable" {
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
            let image = choose(source.images().unwrap(), &Choice::Only, "it").unwrap();
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
        let image = choose(source.images().unwrap(), &Choice::Only, "it").unwrap();
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

/// A sample as tools would find it on disk.
struct Sample {
    name: String,
    path: PathBuf,
    _dir: TempDir,
}

fn samples() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = [root.join("../shared/samples"), root.join("fixtures")]
        .into_iter()
        .find(|dir| dir.join("expected.json").exists());
    if found.is_none() {
        println!("NOT RUN: neither ../shared/samples nor fixtures/ is here");
    }
    found
}

/// Returns the samples in a folder, those that are folders themselves unpacked.
fn unpacked(folder: &Path) -> Vec<Sample> {
    let Ok(entries) = fs_err::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
        .into_iter()
        .filter(|path| path.to_str().unwrap().contains(".tar"))
        .map(|path| {
            let dir = tempfile::tempdir().unwrap();
            let name = path.file_name().unwrap().to_str().unwrap();
            match name.strip_suffix(".dir.tar.gz") {
                Some(name) => {
                    unpack(&path, dir.path());
                    Sample { name: name.to_owned(), path: dir.path().join(name), _dir: dir }
                }
                None => Sample { name: name.to_owned(), path, _dir: dir },
            }
        })
        .collect()
}

/// Unpacks a sample as it is: with FIFOs and links that lead anywhere.
fn unpack(archive: &Path, dir: &Path) {
    let file = fs_err::File::open(archive).unwrap();
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(file));
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = dir.join(entry.path().unwrap());
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        match entry.header().entry_type() {
            tar::EntryType::Directory => fs_err::create_dir_all(&path).unwrap(),
            tar::EntryType::Fifo => {
                let mode = rustix::fs::Mode::from(0o644);
                rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
            }
            tar::EntryType::Symlink => {
                let target = entry.link_name().unwrap().unwrap();
                std::os::unix::fs::symlink(target, &path).unwrap();
            }
            tar::EntryType::Link => {
                fs_err::hard_link(dir.join(entry.link_name().unwrap().unwrap()), &path).unwrap();
            }
            _ => {
                io::copy(&mut entry, &mut fs_err::File::create(&path).unwrap()).unwrap();
                let mode = entry.header().mode().unwrap();
                fs_err::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            }
        }
    }
}

fn check_sample(sample: &Sample, expected: &Value) {
    let format = expected["format"].as_str().unwrap();
    if matches!(format, "?" | "docker-dir-extracted") {
        let error = examine(&sample.path).unwrap_err();
        assert_eq!(error.kind().exit_code(), 3, "{error:?}");
        return;
    }
    let made_up = MADE_UP.contains(&sample.name.as_str());
    for source in sources(&sample.path) {
        let source = source.as_ref();
        let images = source.images().unwrap();
        match (&expected["images"], format) {
            (Value::Array(listed), "docker-archive") => {
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
    let options = SourceOptions { blob_dir: beside.exists().then_some(beside) };
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
            EntryData::Absorbed { digest, size }
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
    let image = choose(source.images()?, &spec.choice, &source.name())?;
    match &image.content {
        ImageContent::Layers { layers, .. } => {
            for layer in layers {
                source.open(layer)?;
            }
        }
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

fn check_manifests(source: &dyn Source, images: &[Image], listed: &[Value]) {
    let top: Vec<&Value> = listed.iter().filter(|entry| entry.get("in").is_none()).collect();
    assert_eq!(images.len(), top.len());
    for (image, expected) in images.iter().zip(top) {
        for name in ["ref", "containerd_name"].iter().filter_map(|key| expected[key].as_str()) {
            assert!(name.split(',').all(|name| image.names.iter().any(|own| own == name)), "{name}");
        }
        let tree = resolve(source, root(image), None).unwrap();
        let (missing, held): (Vec<&Value>, Vec<&Value>) =
            reached(expected, listed).into_iter().partition(|entry| entry["missing"] == true);
        assert_eq!(digests(tree.missing.iter().map(|d| &d.digest)), expected_digests(&missing));
        let found: Vec<Digest> = tree.manifests.iter().map(|m| Digest::of(&m.bytes)).collect();
        assert_eq!(digests(found.iter()), expected_digests(&held));
        assert_eq!(found.last().unwrap().to_string(), expected["manifest"]);
        for (at, manifest) in tree.manifests.iter().enumerate() {
            let entry = held.iter().find(|entry| entry["manifest"] == found[at].to_string()).unwrap();
            check_manifest(source, manifest, entry);
            if let Content::Index { manifests } = &manifest.content {
                let before: HashSet<&Digest> = tree.manifests[..at].iter().map(|m| &m.digest).collect();
                let missing = |child: &&Descriptor| tree.missing.iter().any(|m| m.digest == child.digest);
                assert!(manifests.iter().filter(|c| !missing(c)).all(|child| before.contains(&child.digest)));
            }
        }
    }
}

fn check_manifest(source: &dyn Source, manifest: &Manifest, expected: &Value) {
    if let Some(media_type) = expected["manifest_type"].as_str().filter(|text| !text.is_empty()) {
        assert_eq!(manifest.media_type, media_type);
    }
    let Content::Image { config, layers } = &manifest.content else { return };
    let Some(config) = config else { return };
    let bytes = read_config(source, config).unwrap();
    assert_eq!(digest_of(&bytes, config), expected["config"]);
    if expected["kind"] == "image" && expected["diff_ids"].as_array().is_some_and(|ids| !ids.is_empty()) {
        let diff_ids = ImageConfig::parse(&bytes, "it").unwrap().diff_ids;
        let diff_ids: Vec<String> = diff_ids.iter().map(DiffId::to_string).collect();
        assert_eq!(diff_ids, strings(&expected["diff_ids"]));
    }
    let listed = expected["layers"].as_array().unwrap();
    assert_eq!(layers.len(), listed.len());
    for (layer, expected) in layers.iter().zip(listed) {
        let opened = source.open(&Layer::named(layer));
        if expected["missing"] == true {
            assert_eq!(layer.digest.to_string(), expected["digest"]);
            assert_eq!(layer.urls, strings(&expected["urls"]));
            assert!(opened.unwrap_err().find::<Missing>().is_some());
            continue;
        }
        let bytes = all(opened.unwrap());
        assert_eq!(digest_of(&bytes, layer), expected["digest"]);
        assert_eq!(bytes.len() as u64, expected["size"]);
        check_plain(bytes, expected);
    }
}

fn check_layers(source: &dyn Source, image: &Image, expected: &Value) {
    let ImageContent::Layers { config, layers } = &image.content else { panic!("a manifest: {image:?}") };
    assert_eq!(Digest::of(config).to_string(), expected["config"]);
    let diff_ids: Vec<String> =
        layers.iter().map(|layer| layer.diff_id.as_ref().unwrap().to_string()).collect();
    assert_eq!(diff_ids, strings(&expected["diff_ids"]));
    for (layer, expected) in layers.iter().zip(expected["layers"].as_array().unwrap()) {
        let bytes = all(source.open(layer).unwrap());
        // The independent reader does not follow every link; the diff ID says what must be there.
        if expected["missing"] != true {
            assert_eq!(Digest::of(&bytes).to_string(), expected["digest"]);
            check_plain(bytes.clone(), expected);
        }
        assert_eq!(layer.diff_id.as_ref().unwrap().0, Digest::of(&plain(bytes)));
    }
}

fn check_plain(bytes: Vec<u8>, expected: &Value) {
    let compression = Compression::detect(&bytes);
    // What it took for a plain file, like a chart, may be packed on its own account.
    if expected["compression"] == compression.name() {
        let plain = plain(bytes);
        assert_eq!(Digest::of(&plain).to_string(), expected["uncompressed"]);
        assert_eq!(plain.len() as u64, expected["uncompressed_size"]);
    } else {
        assert_eq!(expected["compression"], "none");
    }
}

/// Returns the entries of an independent reader's list that one of them leads to, itself included.
fn reached<'a>(from: &'a Value, listed: &'a [Value]) -> Vec<&'a Value> {
    let children =
        listed.iter().filter(|entry| entry["in"] == from["manifest"] && entry["in"] != Value::Null);
    let below = children.flat_map(|child| reached(child, listed));
    std::iter::once(from).chain(below).collect()
}

fn root(image: &Image) -> &Descriptor {
    match &image.content {
        ImageContent::Manifest(descriptor) => descriptor,
        ImageContent::Layers { .. } => panic!("not a manifest: {image:?}"),
    }
}

/// Returns the blobs that are pushed with a manifest.
fn blobs(manifest: &Manifest) -> Vec<Descriptor> {
    match &manifest.content {
        Content::Image { config, layers } => config.iter().chain(layers).cloned().collect(),
        Content::Index { .. } => Vec::new(),
    }
}

fn all(data: Data) -> Vec<u8> {
    let mut bytes = Vec::new();
    match data {
        Data::Stored(blob) => blob.reader().read_to_end(&mut bytes),
        Data::Stream(mut stream) => stream.read_to_end(&mut bytes),
        Data::Absorbed(digest) => panic!("{digest} passed by and is not at hand"),
    }
    .unwrap();
    bytes
}

fn plain(bytes: Vec<u8>) -> Vec<u8> {
    let mut plain = Vec::new();
    let compression = Compression::detect(&bytes);
    compression.decoder(Box::new(Cursor::new(bytes))).unwrap().read_to_end(&mut plain).unwrap();
    plain
}

/// Returns the digest of bytes, by the algorithm that their descriptor uses.
fn digest_of(bytes: &[u8], descriptor: &Descriptor) -> String {
    let mut hasher = Hasher::new(descriptor.digest.algorithm());
    hasher.update(bytes);
    hasher.finish().to_string()
}

fn hashed(reader: &mut impl Read) -> (u64, Digest) {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let size = io::copy(reader, &mut hasher).unwrap();
    (size, hasher.finish())
}

fn digests<'a>(digests: impl Iterator<Item = &'a Digest>) -> BTreeSet<String> {
    digests.map(Digest::to_string).collect()
}

fn expected_digests(entries: &[&Value]) -> BTreeSet<String> {
    entries.iter().map(|entry| entry["manifest"].as_str().unwrap().to_owned()).collect()
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
}
