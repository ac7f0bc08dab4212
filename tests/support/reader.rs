//! What an independent reader found in the samples, compared with what a source says of them.
//!
//! The samples lie beside the repository, or a part of them in `fixtures/`.
#![expect(clippy::print_stdout, reason = "a test says what it does")]

use std::{
    collections::{BTreeSet, HashSet},
    fs::Permissions,
    io::{self, Cursor, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use longshore::{
    codec::Compression,
    oci::{Content, Descriptor, DiffId, Digest, Hasher, ImageConfig, Manifest},
    source::{Data, Image, ImageContent, Layer, Missing, Source, documents::read_config, resolve},
};
use serde_json::Value;
use tempfile::TempDir;

/// A sample as tools would find it on disk.
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    _dir: TempDir,
}

pub(crate) fn samples() -> Option<PathBuf> {
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
pub(crate) fn unpacked(folder: &Path) -> Vec<Sample> {
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
pub(crate) fn unpack(archive: &Path, dir: &Path) {
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

pub(crate) fn check_manifests(source: &dyn Source, images: &[Image], listed: &[Value]) {
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
            assert!(Missing::is_cause_of(&opened.unwrap_err()));
            continue;
        }
        let bytes = all(opened.unwrap());
        assert_eq!(digest_of(&bytes, layer), expected["digest"]);
        assert_eq!(bytes.len() as u64, expected["size"]);
        check_plain(bytes, expected);
    }
}

pub(crate) fn check_layers(source: &dyn Source, image: &Image, expected: &Value) {
    let ImageContent::Layers { config, layers, .. } = &image.content else { panic!("a manifest: {image:?}") };
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

pub(crate) fn root(image: &Image) -> &Descriptor {
    let ImageContent::Manifest(descriptor) = &image.content else { panic!("not a manifest: {image:?}") };
    descriptor
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

fn digests<'a>(digests: impl Iterator<Item = &'a Digest>) -> BTreeSet<String> {
    digests.map(Digest::to_string).collect()
}

fn expected_digests(entries: &[&Value]) -> BTreeSet<String> {
    entries.iter().map(|entry| entry["manifest"].as_str().unwrap().to_owned()).collect()
}

pub(crate) fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
}
