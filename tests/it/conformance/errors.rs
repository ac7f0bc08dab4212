//! What is wrong with a request, in the specification's words.

use longshore::oci::Digest;
use serde_json::{Value, json};

use super::{Registry, code};
use crate::wire::image::{INDEX, MANIFEST};

cases! {
    what_is_not_there_is_unknown;
    names_that_are_none_are_refused;
    digests_that_are_none_are_refused;
    manifests_that_are_none_are_refused;
    manifests_with_something_missing_are_refused;
    what_cannot_be_done_is_unsupported;
}

cases_of_a_gateway! {
    names_that_are_none_are_refused;
    digests_that_are_none_are_refused;
    manifests_that_are_none_are_refused;
    what_cannot_be_done_is_unsupported;
}

fn what_is_not_there_is_unknown(registry: &Registry) {
    let digest = Digest::of(b"missing");
    for (target, expected) in [
        (format!("/v2/a/manifests/{digest}"), "MANIFEST_UNKNOWN"),
        ("/v2/a/manifests/missing".to_owned(), "MANIFEST_UNKNOWN"),
        (format!("/v2/a/blobs/{digest}"), "BLOB_UNKNOWN"),
        ("/v2/a/tags/list".to_owned(), "NAME_UNKNOWN"),
        (format!("/v2/a/blobs/uploads/{}", "0".repeat(32)), "BLOB_UPLOAD_UNKNOWN"),
        ("/v2/a/blobs/uploads/..".to_owned(), "BLOB_UPLOAD_UNKNOWN"),
    ] {
        let reply = registry.get(&target);
        assert_eq!((reply.status, &*code(&reply)), (404, expected), "{target}");
    }
    for target in
        [format!("/v2/a/manifests/{digest}"), "/v2/a/manifests/1".into(), format!("/v2/a/blobs/{digest}")]
    {
        assert_eq!(registry.delete(&target), 404, "{target}");
    }
}

fn names_that_are_none_are_refused(registry: &Registry) {
    let long = "a/".repeat(127) + "ab";
    for name in ["A", "a//b", "-a", "a_", "_uploads", "..", "a/..", "a/../b", "index.json", "a%2fb", &*long] {
        for (method, rest) in [("POST", "blobs/uploads/"), ("GET", "tags/list"), ("PUT", "manifests/1")] {
            let reply = registry.send(method, &format!("/v2/{name}/{rest}"), &[], b"");
            assert_eq!((reply.status, &*code(&reply)), (400, "NAME_INVALID"), "{method} {name}");
        }
    }
    assert_eq!(registry.send("POST", &format!("/v2/{}/blobs/uploads/", &long[1..]), &[], b"").status, 400);
    assert_eq!(registry.send("POST", &format!("/v2/{}/blobs/uploads/", &long[2..]), &[], b"").status, 202);
}

fn digests_that_are_none_are_refused(registry: &Registry) {
    for method in ["PUT", "GET", "DELETE"] {
        let target = "/v2/a/manifests/sha256:baddigeststring";
        let reply = registry.send(method, target, &[("Content-Type", MANIFEST)], b"{}");
        assert_eq!((reply.status, &*code(&reply)), (400, "DIGEST_INVALID"), "{method}");
    }
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }).to_string();
    let digest = Digest::of(index.as_bytes()).to_string();
    let reply = registry.manifest("a", &digest, INDEX, (index + "  ").as_bytes());
    assert_eq!((reply.status, &*code(&reply)), (400, "DIGEST_INVALID"));
}

fn manifests_that_are_none_are_refused(registry: &Registry) {
    let missing = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
        "config": { "mediaType": "x/y", "digest": Digest::of(b"missing"), "size": 7 },
    });
    for (bytes, status, expected) in [
        (b"{".to_vec(), 400, "MANIFEST_INVALID"),
        (b"[]".to_vec(), 400, "MANIFEST_INVALID"),
        (missing.to_string().into_bytes(), 404, "MANIFEST_BLOB_UNKNOWN"),
        (vec![b' '; (4 << 20) + 1], 413, "MANIFEST_INVALID"),
    ] {
        let reply = registry.manifest("a", "1", MANIFEST, &bytes);
        assert_eq!((reply.status, &*code(&reply)), (status, expected));
    }
    assert_eq!(registry.get("/v2/a/manifests/1").status, 404);
}

/// Sparse images lack a layer or a platform. A registry may refuse them, and this one does.
fn manifests_with_something_missing_are_refused(registry: &Registry) {
    let config = Digest::of(b"{}");
    assert_eq!(registry.blob("a", &config, b"{}").status, 201);
    let named = |media_type: &str, digest: &Digest, size: usize| json!({ "mediaType": media_type, "digest": digest, "size": size });
    let image = |layers: &[Value]| json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": named("x/y", &config, 2), "layers": layers });
    let whole = image(&[]).to_string();
    let there = Digest::of(whole.as_bytes());
    assert_eq!(registry.manifest("a", &there.to_string(), MANIFEST, whole.as_bytes()).status, 201);
    let missing = Digest::of(b"missing");
    let without_layer = image(&[named("x/y", &config, 2), named("x/y", &missing, 7)]);
    let without_platform = json!({
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [named(MANIFEST, &there, whole.len()), named(MANIFEST, &missing, 7)],
    });
    for (media_type, document) in [(MANIFEST, without_layer), (INDEX, without_platform)] {
        let bytes = document.to_string().into_bytes();
        let digest = Digest::of(&bytes).to_string();
        for reference in ["sparse", &digest] {
            let reply = registry.manifest("a", reference, media_type, &bytes);
            assert_eq!((reply.status, &*code(&reply)), (404, "MANIFEST_BLOB_UNKNOWN"), "{media_type}");
            assert!(reply.text().contains(&missing.to_string()), "{reply:?}");
            assert_eq!(registry.get(&format!("/v2/a/manifests/{reference}")).status, 404);
        }
    }
    let tags = registry.get("/v2/a/tags/list").text();
    assert!(!tags.contains("sparse"), "{tags}");
}

fn what_cannot_be_done_is_unsupported(registry: &Registry) {
    for (method, target) in [("POST", "/v2/"), ("PATCH", "/v2/a/manifests/1"), ("PUT", "/v2/a/tags/list")] {
        let reply = registry.send(method, target, &[], b"");
        assert_eq!((reply.status, &*code(&reply)), (405, "UNSUPPORTED"), "{method} {target}");
    }
    for target in ["/", "/v1/", "/v2/a", "/v3/a/tags/list"] {
        let reply = registry.get(target);
        assert_eq!((reply.status, &*code(&reply)), (404, "UNSUPPORTED"), "{target}");
    }
}
