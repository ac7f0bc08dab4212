//! Which image an archive holds, however its entries are spelled.
//!
//! Where we take what skopeo refuses, that is well: chains of links, hard links, numbers that nobody needs, a last block
//! that is not whole. What skopeo takes we refuse for [`REASONS`] alone.

use longshore::oci::Digest;
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Value, json};

use super::{CASES, User};
use crate::{support::cases::cases, wire::image::layer};

/// Why an archive is refused that skopeo takes: readers would not agree about it, or nobody writes such.
const REASONS: [&str; 4] = [
    "duplicate entry",
    // What says that it is no file of any kind known: skopeo reads all that is not known to be something else.
    "is not a regular file",
    "is a GNU sparse file",
    "the archive is truncated",
];

/// A way to put a file into an archive.
type Spelling = fn(&str, &[u8]) -> Vec<u8>;

const SPELLINGS: [(&str, Spelling); 28] = [
    ("plain", plain),
    ("dot", |name, data| plain(&format!("./{name}"), data)),
    ("up", |name, data| plain(&format!("x/../{name}"), data)),
    ("out", |name, data| plain(&format!("../{name}"), data)),
    ("root", |name, data| plain(&format!("/{name}"), data)),
    ("doubled slash", |name, data| plain(&name.replacen('/', "//", 1), data)),
    ("slash behind", |name, data| plain(&format!("{name}/"), data)),
    ("upper case", |name, data| plain(&name.to_uppercase(), data)),
    ("PAX name", |name, data| [pax(&[("path", name)]), plain("other", data)].concat()),
    ("PAX name twice", |name, data| [pax(&[("path", "x"), ("path", name)]), plain("x", data)].concat()),
    ("empty PAX name", |name, data| [pax(&[("path", "")]), plain(name, data)].concat()),
    ("two PAX headers", |name, data| {
        [pax(&[("path", "x")]), pax(&[("mtime", "1.5")]), plain(name, data)].concat()
    }),
    ("PAX size", |name, data| {
        let head = header(name, b'0', "", 0, |_| {});
        [pax(&[("size", &data.len().to_string())]), head, padded(data)].concat()
    }),
    ("global header", |name, data| [pax(&[("path", "x")]), extended(b'g', b""), plain(name, data)].concat()),
    ("GNU name", |name, data| [extended(b'L', name.as_bytes()), plain("other", data)].concat()),
    ("empty GNU name", |name, data| [extended(b'L', b"\0"), plain(name, data)].concat()),
    ("GNU name, then PAX's", |name, data| {
        [extended(b'L', name.as_bytes()), pax(&[("path", "x")]), plain("y", data)].concat()
    }),
    ("sparse by its name alone", |name, data| [pax(&[("GNU.sparse.name", "x")]), plain(name, data)].concat()),
    ("sparse", |name, data| {
        let size = data.len().to_string();
        let map = format!("0,{size}");
        let records = [("GNU.sparse.size", &*size), ("GNU.sparse.map", &map), ("GNU.sparse.name", name)];
        [pax(&records), plain("x", data)].concat()
    }),
    ("v7", |name, data| [header(name, 0, "", data.len(), |h| h[257..265].fill(0)), padded(data)].concat()),
    ("name in two fields", |name, data| {
        let (folder, name) = name.rsplit_once('/').unwrap_or(("", name));
        let head = header(name, b'0', "", data.len(), |h| {
            h[345..345 + folder.len()].copy_from_slice(folder.as_bytes());
        });
        [head, padded(data)].concat()
    }),
    ("GNU with another field", |name, data| {
        let gnu = |h: &mut [u8]| {
            h[257..265].copy_from_slice(b"ustar  \0");
            h[345..347].copy_from_slice(b"up");
        };
        [header(name, b'0', "", data.len(), gnu), padded(data)].concat()
    }),
    ("base-256 size", |name, data| {
        let size = (data.len() as u128 | 0x80 << 88).to_be_bytes();
        let head = header(name, b'0', "", 0, |h| h[124..136].copy_from_slice(&size[4..]));
        [head, padded(data)].concat()
    }),
    ("unknown type", |name, data| [header(name, b'Z', "", data.len(), |_| {}), padded(data)].concat()),
    ("symlink", |name, data| {
        let target = format!("{}real", "../".repeat(name.matches('/').count()));
        [plain("real", data), header(name, b'2', &target, 0, |_| {})].concat()
    }),
    ("absolute symlink", |name, data| [plain("real", data), header(name, b'2', "/real", 0, |_| {})].concat()),
    ("hard link", |name, data| [plain("real", data), header(name, b'1', "real", 0, |_| {})].concat()),
    ("twice", |name, data| plain(name, data).repeat(2)),
];

/// A header whose checksum is right after `alter`.
fn header(name: &str, flag: u8, target: &str, size: usize, alter: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut block = vec![0; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(148, b"        ");
    put(156, &[flag]);
    put(157, target.as_bytes());
    put(257, b"ustar\x0000");
    alter(&mut block);
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn padded(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    data.resize(data.len().next_multiple_of(512), 0);
    data
}

fn plain(name: &str, data: &[u8]) -> Vec<u8> {
    [header(name, b'0', "", data.len(), |_| {}), padded(data)].concat()
}

/// An entry that says something about the next one.
fn extended(flag: u8, payload: &[u8]) -> Vec<u8> {
    [header("extended", flag, "", payload.len(), |_| {}), padded(payload)].concat()
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let record = |(key, value): &(&str, &str)| {
        let rest = format!(" {key}={value}\n");
        let length = (rest.len()..rest.len() + 5)
            .find(|length| length.to_string().len() + rest.len() == *length)
            .unwrap();
        format!("{length}{rest}")
    };
    extended(b'x', records.iter().map(record).collect::<String>().as_bytes())
}

/// The files of a docker archive or an OCI archive, of which the first says which of two images it holds; and that file as
/// the other image has it.
fn files(oci: bool, layer: &[u8]) -> (Vec<(String, Vec<u8>)>, Vec<u8>) {
    let blob = |bytes: &[u8]| (format!("blobs/sha256/{}", Digest::of(bytes).hex()), bytes.to_vec());
    let config = |name: &str| {
        let rootfs = json!({ "type": "layers", "diff_ids": [Digest::of(layer)] });
        json!({ "os": "linux", "architecture": "amd64", "config": {}, "author": name, "rootfs": rootfs })
            .to_string()
            .into_bytes()
    };
    let (one, other) = (config("one"), config("other"));
    if !oci {
        let list =
            json!([{ "Config": "d/c.json", "RepoTags": ["a:1"], "Layers": ["d/layer.tar"] }]).to_string();
        let files =
            [("d/c.json", one), ("d/layer.tar", layer.to_vec()), ("manifest.json", list.into_bytes())];
        return (files.map(|(name, bytes)| (name.to_owned(), bytes)).into(), other);
    }
    let named = |kind: &str, bytes: &[u8]| json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": Digest::of(bytes), "size": bytes.len() });
    let manifest = |bytes: &[u8]| {
        let (config, layers) = (named("config.v1+json", bytes), [named("layer.v1.tar", layer)]);
        json!({ "schemaVersion": 2, "config": config, "layers": layers }).to_string().into_bytes()
    };
    let index = |manifest: &[u8]| {
        json!({ "schemaVersion": 2, "manifests": [named("manifest.v1+json", manifest)] })
            .to_string()
            .into_bytes()
    };
    let manifests = [manifest(&one), manifest(&other)];
    let mut files = vec![("index.json".to_owned(), index(&manifests[0]))];
    files.extend([layer, &one, &other, &manifests[0], &manifests[1]].map(blob));
    files.push(("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
    (files, index(&manifests[1]))
}

/// Returns the digest of the config, and of the manifest where the archive has one.
fn image(manifest: &[u8], oci: bool) -> (Value, Option<Digest>) {
    let parsed: Value = serde_json::from_slice(manifest).unwrap();
    (parsed["config"]["digest"].clone(), oci.then(|| Digest::of(manifest)))
}

proptest! {
    #![proptest_config(cases(2 * CASES))]

    #[test]
    fn an_archive_holds_the_image_that_skopeo_finds_in_it(
        (oci, size) in (any::<bool>(), 1..600_usize),
        odd in vec((0..6_usize, select(SPELLINGS.to_vec())), 0..2),
        decoy in option::of((select(SPELLINGS.to_vec()), any::<[bool; 2]>())),
        end in select(vec![1024, 1024, 1024, 0, 512, 10240]),
        (junk, cut) in (prop::bool::weighted(0.1), option::weighted(0.1, 1..1200_usize)),
    ) {
        let layer = layer(&vec![b'x'; size]);
        let (files, other) = files(oci, &layer);
        let spelling = |at: usize| odd.iter().find(|(odd, _)| *odd == at).map_or(plain as Spelling, |(_, (_, spell))| *spell);
        let mut entries: Vec<_> =
            files.iter().enumerate().map(|(at, (name, bytes))| spelling(at)(name, bytes)).collect();
        if let Some(((_, spell), [first, last])) = decoy {
            entries.insert(usize::from(!first), spell(&files[0].0, &other));
            if last {
                entries.rotate_left(2);
            }
        }
        let mut bytes = entries.concat();
        bytes.truncate(bytes.len() - cut.unwrap_or(0));
        if cut.is_none() {
            bytes.resize(bytes.len() + end, 0);
            bytes.extend(if junk && end >= 1024 { &b"junk"[..] } else { b"" });
        }

        let machine = User::new();
        let kind = if oci { "oci-archive" } else { "docker-archive" };
        let from = format!("{kind}:{}", machine.write("x.tar", bytes).display());
        let [theirs, ours] = ["theirs", "ours"].map(|name| machine.path(name));
        let taken = machine.skopeo(&[], &[&from, &format!("dir:{}", theirs.display())]);
        let pushed = machine.longshore(&["--no-cache", &from, &format!("oci:{}", ours.display())]);
        match (taken, pushed) {
            (Ok(_), Ok(_)) => {
                let read = |path| fs_err::read(path).unwrap();
                let index: Value = serde_json::from_slice(&read(ours.join("index.json"))).unwrap();
                let digest: Digest = index["manifests"][0]["digest"].as_str().unwrap().parse().unwrap();
                let found = read(ours.join("blobs/sha256").join(digest.hex()));
                prop_assert_eq!(image(&found, oci), image(&read(theirs.join("manifest.json")), oci));
            }
            // skopeo unpacks OCI archives, where `/NAME` becomes `NAME`; for both of us it is not that in a docker archive.
            (Ok(_), Err(_)) if oci && odd.iter().any(|(_, (name, _))| *name == "root") => {}
            (Ok(_), Err(words)) => prop_assert!(REASONS.iter().any(|reason| words.contains(reason)), "{}", words),
            (Err(_), _) => {}
        }
    }
}
