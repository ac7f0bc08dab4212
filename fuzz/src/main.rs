//! Feeds foreign bytes to the parsers: to the one that `--target=NAME` names, or to all.
//!
//! A target finds something by panicking, by hanging, or by breaking what its assertion says. Built with
//! coverage instrumentation on stable Rust by `fuzz/run`; a new target is a function and a row of [`TARGETS`].
#![no_main]

use std::{
    io::{self, Write as _},
    sync::LazyLock,
};

use bytes::Bytes;
use http::{HeaderValue, header::WWW_AUTHENTICATE};
use longshore::{
    blob::Blob,
    oci::{Digest, ImageConfig, Manifest, Reference},
    registry::{Location, auth::Challenge, session::range},
    source::{
        archive::{Entries, Index},
        bolt, containerd,
    },
};
use url::Url;

/// Every parser of bytes that come from elsewhere.
const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("archive", archive),
    ("bolt", bolt),
    ("challenge", challenge),
    ("location", location),
    ("manifest", manifest),
    ("range", range),
    ("reference", reference),
];

/// The targets of this run. libFuzzer leaves arguments that begin with two dashes to us.
static CHOSEN: LazyLock<Vec<fn(&[u8])>> = LazyLock::new(|| {
    let wanted = std::env::args().find_map(|argument| argument.strip_prefix("--target=").map(str::to_owned));
    let is_wanted = |name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
    let chosen: Vec<_> =
        TARGETS.iter().filter(|(name, _)| is_wanted(name)).map(|(_, target)| *target).collect();
    assert!(!chosen.is_empty(), "no such target: {wanted:?}");
    chosen
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| CHOSEN.iter().for_each(|target| target(data)));

/// The table of contents of a tar is the same whether the archive is jumped through or streamed.
fn archive(data: &[u8]) {
    let jumped = Index::of(&blob(data));
    let mut streamed = Entries::new(data);
    let mut names = Vec::new();
    let mut ended_well = true;
    while let Some(entry) = streamed.next() {
        match entry {
            Ok(head) => names.push(head.name),
            Err(_) => {
                ended_well = false;
                break;
            }
        }
        ended_well &= io::copy(&mut streamed, &mut io::sink()).is_ok();
    }
    if let Ok(index) = jumped {
        assert!(ended_well, "read by jumps, but not as a stream: {names:?}");
        assert!(names.iter().all(|name| index.contains(name)));
    }
}

/// containerd's database, which no damage may make endless.
fn bolt(data: &[u8]) {
    let blob = blob(data);
    drop(bolt::snapshot(|| Ok(blob.clone()), containerd::images));
}

/// One header a line.
fn challenge(data: &[u8]) {
    let values = data.split(|&byte| byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok());
    drop(Challenge::read(&values.map(|value| (WWW_AUTHENTICATE, value)).collect()));
}

/// Where an upload goes on: anywhere on the registry's own host, or on another one by https only.
fn location(data: &[u8]) {
    let request: Url = "https://registry.example.com/v2/demo/blobs/uploads/".parse().expect("a URL");
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    if let Ok(location) = Location::read(value, &request) {
        assert_eq!(format!("{location:?}"), "Location(…)", "a location is never printed");
    }
}

fn manifest(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let digest = Digest::of(data);
    for declared in [None, Some("application/vnd.oci.image.index.v1+json")] {
        if let Ok(manifest) = Manifest::parse(bytes.clone(), digest.clone(), declared) {
            assert_eq!(manifest.bytes, bytes, "a manifest's bytes are never touched");
        }
    }
    drop(ImageConfig::parse(data, "fuzz"));
}

/// What a `Range` header claims fits its words: no number appears from nowhere.
fn range(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(stored) = range::parse(text) {
        assert!(stored.count == 0 || text.contains(&(stored.count - 1).to_string()), "{stored:?}");
    }
}

fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(
            reference.to_string().parse::<Reference>().ok(),
            Some(reference),
            "it reads what it prints"
        );
    }
}

/// Puts bytes where they can be read by offset.
fn blob(data: &[u8]) -> Blob {
    let mut file = tempfile::tempfile().expect("a temp file can be made");
    file.write_all(data).expect("a temp file can be written");
    Blob::from_file(fs_err::File::from_parts(file, "fuzz").into(), data.len() as u64)
}
