//! Feeds foreign bytes to the parsers: to the one that `--target=NAME` names, or to all.
//!
//! A target finds something by panicking, by hanging, or by breaking what its assertion says. Built with
//! coverage instrumentation on stable Rust by `fuzz/run`; a new target is a function and a row of [`TARGETS`].
#![no_main]

use std::{
    io::{self, Cursor, Read as _, Write as _},
    path::Path,
    sync::LazyLock,
};

use bytes::Bytes;
use http::{HeaderValue, header::WWW_AUTHENTICATE};
use longshore::{
    blob::Blob,
    codec::{Compression, gzip},
    layout::{left_out::LeftOut, parts::Parts},
    oci::{Digest, ImageConfig, Manifest, Reference},
    registry::{Location, auth::Challenge, session::range},
    source::{
        archive::{Entries, EntryData, EntryHead, EntryKind, Index},
        stores::{
            bolt, containerd,
            payload::{Objects, Payloads},
            tar_split::TarSplit,
        },
        tarball,
    },
};
use url::Url;

/// Every parser of bytes that come from elsewhere, and the encoder that is ours.
const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("archive", archive),
    ("bolt", bolt),
    ("challenge", challenge),
    ("gzip", gzip_encoder),
    ("images", images),
    ("left-out", left_out),
    ("location", location),
    ("manifest", manifest),
    ("parts", parts),
    ("range", range),
    ("reference", reference),
    ("tar-split", tar_split),
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

/// containerd's database, which no damage may make endless. The checksums of its two meta pages are put right,
/// or hardly anything would get past them.
fn bolt(data: &[u8]) {
    let mut data = data.to_vec();
    for meta in [0, BOLT_PAGE] {
        if let Some(meta) = data.get_mut(meta + 16..meta + 80) {
            let sum = meta[..56].iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, &byte| {
                (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
            });
            meta[56..].copy_from_slice(&sum.to_le_bytes());
        }
    }
    let blob = blob(&data);
    drop(bolt::snapshot(|| Ok(blob.clone()), containerd::contents));
}

/// One header a line.
fn challenge(data: &[u8]) {
    let values = data.split(|&byte| byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok());
    drop(Challenge::read(&values.map(|value| (WWW_AUTHENTICATE, value)).collect()));
}

/// What is encoded is decoded. Repeated, it is longer than what is searched at once, and than the window.
fn gzip_encoder(data: &[u8]) {
    let times = data.first().map_or(0, |first| usize::from(first % 8));
    let plain = data.repeat(times);
    let mut encoder = gzip::Encoder::new(1).expect("there is a level 1");
    let member = encoder.encode(&plain).expect("any block can be encoded").to_vec();
    let mut decoded = Vec::new();
    let decoder = Compression::Gzip.decoder(Box::new(Cursor::new(member)));
    decoder.and_then(|mut decoder| decoder.read_to_end(&mut decoded)).expect("it can be decoded");
    assert!(decoded == plain, "something else is decoded");
}

/// An archive whose list of images this is: Docker's, imgpkg's, or a layout's. Another file in it may be a layer.
fn images(data: &[u8]) {
    for name in ["manifest.json", "index.json"] {
        let mut index = Index::default();
        for (name, bytes) in [(name, data), ("x.tar.gz", b"")] {
            let head = EntryHead { name: name.into(), kind: EntryKind::File, size: bytes.len() as u64 };
            index
                .add(head, EntryData::Kept(Bytes::copy_from_slice(bytes)))
                .expect("two entries are not too many");
        }
        if let Ok(source) = tarball::from_index(index, "fuzz", None) {
            drop(source.images());
        }
    }
}

/// What a bundle says it leaves out reads as it is written.
fn left_out(data: &[u8]) {
    if let Ok(read) = LeftOut::parse(data) {
        let bytes = read.to_bytes().expect("it can be written");
        assert_eq!(LeftOut::parse(&bytes).ok(), Some(read), "it reads what it writes");
    }
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

/// The parts of a file lie beside their list, and are as many as its size demands.
fn parts(data: &[u8]) {
    if let Ok(parts) = Parts::parse(data) {
        assert!(parts.parts.iter().all(|part| !part.name.contains('/')), "{parts:?}");
        assert_eq!(parts.size.div_ceil(parts.each), parts.parts.len() as u64, "{parts:?}");
    }
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

/// A layer is the same however it is read, and nothing that lies beside it gets into it.
fn tar_split(data: &[u8]) {
    let (at_once, slowly) = (rebuilt(data, 4 << 10), rebuilt(data, 5));
    if at_once.1 || slowly.1 {
        assert_eq!(at_once, slowly);
    }
    // What was read before an error counts as well.
    assert!(!slowly.0.windows(OUTSIDE.len()).any(|found| found == OUTSIDE), "a file outside was read");
    drop(Objects::parse(data));
}

/// Rebuilds the layer in `storage`, so many bytes at a time, and says whether it ended well.
fn rebuilt(lines: &[u8], step: usize) -> (Vec<u8>, bool) {
    let storage = Path::new(env!("CARGO_MANIFEST_DIR")).join("storage");
    let payloads = Payloads::open(&storage, "layer").expect("it is there");
    let mut layer = TarSplit::new(Cursor::new(lines.to_vec()), payloads);
    let (mut tar, mut piece) = (Vec::new(), vec![0; step]);
    loop {
        match layer.read(&mut piece) {
            Ok(0) => return (tar, true),
            Ok(size) => tar.extend(&piece[..size]),
            Err(_) => return (tar, false),
        }
    }
}

/// The page size of the database in `seeds`, the smallest there is.
const BOLT_PAGE: usize = 1 << 10;

/// What the file beside the layer in `storage`, where its links lead, begins with.
const OUTSIDE: &[u8] = b"it lies beside";

/// Puts bytes where they can be read by offset.
fn blob(data: &[u8]) -> Blob {
    let mut file = tempfile::tempfile().expect("a temp file can be made");
    file.write_all(data).expect("a temp file can be written");
    Blob::from_file(fs_err::File::from_parts(file, "fuzz").into(), data.len() as u64)
}
