//! Requests that nobody should send, in any order: each is answered, and the folder stays what it is.

use std::path::{Path, PathBuf};

use longshore::oci::Digest;
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Value, json};

use crate::support::{raw::Raw, serve::Serve};

/// Stands for the upload that was opened last.
const UPLOAD: &str = "UPLOAD";
const BLOB: &[u8] = b"{}";

#[derive(Clone, Debug)]
struct Request {
    method: &'static str,
    target: String,
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
}

/// A manifest that can be stored once its blob is there.
fn manifest() -> Vec<u8> {
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let config = json!({ "mediaType": "application/json", "digest": Digest::of(BLOB), "size": BLOB.len() });
    json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [] }).to_string().into()
}

fn words() -> Vec<String> {
    let odd = [
        "v2",
        "a",
        "b",
        "blobs",
        "uploads",
        "manifests",
        "tags",
        "list",
        "referrers",
        "_catalog",
        "_blobs",
        "_uploads",
        "_lock",
        "..",
        ".",
        "%2e%2e",
        "%2F",
        "%00",
        "%ff",
        "",
        "index.json",
        "oci-layout",
        "latest",
        "sha256:1",
        "sha256:..",
        "md5:0",
        "healthz",
        "A",
        "-",
        "~",
        UPLOAD,
    ];
    let digests = [Digest::of(BLOB), Digest::of(&manifest()), Digest::of(b"absent")];
    odd.map(str::to_owned)
        .into_iter()
        .chain(digests.map(|digest| digest.to_string()))
        .chain([long()])
        .collect()
}

fn long() -> String {
    "a".repeat(300)
}

fn target() -> impl Strategy<Value = String> {
    let word = || select(words());
    let path = prop_oneof![
        vec(word(), 0..7).prop_map(|words| format!("/{}", words.join("/"))),
        vec(word(), 0..3).prop_map(|words| format!("/v2/{}/tags/list", words.join("/"))),
        (word(), word(), word()).prop_map(|(name, kind, what)| format!("/v2/{name}/{kind}/{what}")),
        select(vec!["/v2/a/blobs/uploads/".to_owned(), "/v2/b/blobs/uploads/".to_owned(), UPLOAD.to_owned()]),
        word().prop_map(|what| format!("/v2/a/manifests/{what}")),
        word().prop_map(|what| format!("/v2/a/blobs/{what}")),
    ];
    let key =
        select(vec!["digest", "mount", "from", "n", "last", "tag", "artifactType", "digest-algorithm", "x"]);
    let value = prop_oneof![word(), any::<u64>().prop_map(|number| number.to_string()), "[%&=+;-]{0,5}"];
    (path, vec((key, value), 0..3)).prop_map(|(path, query)| {
        let query: Vec<_> = query.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) }
    })
}

fn request() -> impl Strategy<Value = Request> {
    let method = select(vec!["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO"]);
    let header = select(vec![
        ("Range", "bytes=0-0"),
        ("Range", "bytes=5-1"),
        ("Range", "bytes=-0"),
        ("Range", "bytes=18446744073709551615-"),
        ("Range", "lines=1"),
        ("Content-Range", "0-1"),
        ("Content-Range", "1-0"),
        ("Content-Range", "bytes 0-1/2"),
        ("Content-Range", "18446744073709551615-18446744073709551616"),
        ("Content-Range", "-"),
        ("Content-Type", "application/vnd.oci.image.manifest.v1+json"),
        ("Content-Type", "application/vnd.oci.image.index.v1+json"),
        ("Content-Type", ";"),
        ("Accept", "x"),
        ("Authorization", "Basic ="),
        ("OCI-Chunk-Min-Length", "-1"),
    ]);
    let index =
        json!({ "schemaVersion": 2, "manifests": [{ "digest": "sha256:..", "size": -1 }] }).to_string();
    let body = prop_oneof![
        select(vec![Vec::new(), BLOB.to_vec(), manifest(), index.into_bytes(), b"[".repeat(10_000)]),
        vec(any::<u8>(), 0..40),
    ];
    (method, target(), vec(header, 0..3), body).prop_map(|(method, target, headers, body)| Request {
        method,
        target,
        headers,
        body,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nonsense_is_answered_and_leaves_no_trace(requests in vec(request(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("registry");
        let server = Serve::start(&root);
        let mut upload = "/v2/a/blobs/uploads/none".to_owned();
        for Request { method, target, headers, body } in requests {
            let target = target.replace(UPLOAD, if target.starts_with(UPLOAD) { &upload } else { "x" });
            let reply = Raw::connect(server.host()).send(method, &target, &headers, &body);
            let reply = reply.unwrap_or_else(|error| panic!("{method} {target}: {error}"));
            prop_assert!((200..500).contains(&reply.status), "{method} {target}: {reply:?}");
            if reply.status >= 400 && method != "HEAD" {
                let words: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
                prop_assert!(words["errors"][0]["code"].is_string(), "{method} {target}: {reply:?}");
            }
            if let (202, Some(location)) = (reply.status, reply.header("Location")) {
                upload = location.to_owned();
            }
        }
        let beside: Vec<_> = fs_err::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        prop_assert_eq!(&beside, std::slice::from_ref(&root));
        for file in files(&root) {
            let path = file.strip_prefix(&root).unwrap().display().to_string();
            let bytes = fs_err::read(&file).unwrap();
            if let Some((_, hex)) = path.split_once("sha256/") {
                prop_assert_eq!(Digest::of(&bytes).hex().to_owned(), hex, "{}", path);
            } else if path.ends_with("index.json") {
                let index: Value = serde_json::from_slice(&bytes).unwrap();
                prop_assert_eq!(&index["schemaVersion"], 2, "{}", path);
            } else {
                let known = ["_lock", "oci-layout"].iter().any(|name| path.ends_with(name));
                prop_assert!(known || path.starts_with("_uploads/"), "{}", path);
            }
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let files = entries.flat_map(|entry| {
        if entry.file_type().unwrap().is_dir() { files(&entry.path()) } else { vec![entry.path()] }
    });
    files.collect()
}
