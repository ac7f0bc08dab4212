//! Manifests: in by digest and by tag, out by both, listed, found from their subjects, and away.

use longshore::oci::{Algorithm, Digest};
use serde_json::{Value, json};

use super::{
    Registry, code, digest_of,
    kinds::{Document, Kind, kinds},
};
use crate::wire::image::{INDEX, MANIFEST};

fn push(registry: &Registry, kind: &Kind) {
    for (digest, bytes) in &kind.blobs {
        assert_eq!(registry.blob("a", digest, bytes).status, 201, "{}", kind.name);
    }
    for document in &kind.manifests {
        assert_pushed(registry, document, &document.digest.to_string());
    }
    let root = kind.manifests.last().unwrap();
    // A tag alone says nothing of the algorithm.
    if root.digest.algorithm() == Algorithm::Sha256 {
        assert_pushed(registry, root, kind.name);
    } else {
        let reference = format!("{}?tag={}", root.digest, kind.name);
        assert_eq!(registry.manifest("a", &reference, root.media_type, &root.bytes).status, 201);
    }
}

#[track_caller]
fn assert_pushed(registry: &Registry, document: &Document, reference: &str) {
    let reply = registry.manifest("a", reference, document.media_type, &document.bytes);
    assert_eq!(reply.status, 201, "{reply:?}");
    assert_eq!(reply.header("Docker-Content-Digest"), Some(&*document.digest.to_string()));
    let subject = document.subject.as_ref().map(Digest::to_string);
    assert_eq!(reply.header("OCI-Subject"), subject.as_deref());
    assert_there(registry, document, reply.header("Location").unwrap());
}

#[track_caller]
fn assert_there(registry: &Registry, document: &Document, target: &str) {
    for method in ["GET", "HEAD"] {
        let accept = [("Accept", INDEX), ("Accept", MANIFEST)];
        let reply = registry.send(method, target, &accept, b"");
        assert_eq!(reply.status, 200, "{target}");
        assert_eq!(reply.header("Content-Type"), Some(document.media_type));
        assert_eq!(reply.header("Content-Length"), Some(&*document.bytes.len().to_string()));
        assert_eq!(reply.header("Docker-Content-Digest"), Some(&*document.digest.to_string()));
        assert!(reply.body == if method == "GET" { &*document.bytes } else { b"" }, "{target}");
    }
}

#[track_caller]
fn assert_gone(registry: &Registry, target: &str) {
    let reply = registry.get(target);
    assert_eq!((reply.status, &*code(&reply)), (404, "MANIFEST_UNKNOWN"));
    assert_eq!(registry.head(target).status, 404);
}

/// Each of the documents with a subject is found from it, among all and among those of its type.
fn assert_found(registry: &Registry, kind: &Kind) {
    for document in &kind.manifests {
        let Some(subject) = &document.subject else { continue };
        let mut queries = vec![String::new()];
        if let Some(artifact_type) = &document.artifact_type {
            let escaped = artifact_type.replace('/', "%2F").replace('+', "%2B");
            queries.extend([artifact_type, &escaped].map(|wanted| format!("?artifactType={wanted}")));
        }
        for query in queries {
            let reply = registry.get(&format!("/v2/a/referrers/{subject}{query}"));
            assert_eq!((reply.status, reply.header("Content-Type")), (200, Some(INDEX)));
            let filters = reply.header("OCI-Filters-Applied");
            assert_eq!(filters, (!query.is_empty()).then_some("artifactType"));
            let list: Value = serde_json::from_slice(&reply.body).unwrap();
            assert_eq!((&list["schemaVersion"], &list["mediaType"]), (&json!(2), &json!(INDEX)));
            let mut expected = document.descriptor();
            if let Some(artifact_type) = &document.artifact_type {
                expected["artifactType"] = json!(artifact_type);
            }
            if !document.annotations.is_null() {
                expected["annotations"] = document.annotations.clone();
            }
            let listed = list["manifests"].as_array().unwrap();
            assert!(listed.contains(&expected), "{expected} is not in {list:#}");
            if !query.is_empty() {
                assert!(listed.iter().all(|one| one["artifactType"] == expected["artifactType"]), "{list:#}");
            }
        }
    }
}

cases! {
    every_kind_of_manifest_comes_goes_out_and_goes_away;
    a_manifest_comes_with_many_tags_at_once;
    parameters_of_a_media_type_are_ignored;
    a_manifest_is_no_blob_to_delete;
}

cases_of_a_gateway! {
    parameters_of_a_media_type_are_ignored;
}

fn every_kind_of_manifest_comes_goes_out_and_goes_away(registry: &Registry) {
    for kind in kinds() {
        push(registry, &kind);
        let root = kind.manifests.last().unwrap();
        let tag = format!("/v2/a/manifests/{}", kind.name);
        assert_there(registry, root, &tag);
        let tags: Value = serde_json::from_slice(&registry.get("/v2/a/tags/list").body).unwrap();
        assert!(tags["tags"].as_array().unwrap().contains(&json!(kind.name)), "{tags}");
        assert_found(registry, &kind);

        assert_eq!(registry.delete(&tag), 202);
        assert_gone(registry, &tag);
        for document in kind.manifests.iter().rev() {
            let target = format!("/v2/a/manifests/{}", document.digest);
            assert_there(registry, document, &target);
            assert_eq!(registry.delete(&target), 202, "{}", kind.name);
            assert_gone(registry, &target);
            if let Some(subject) = &document.subject {
                let list = registry.get(&format!("/v2/a/referrers/{subject}")).text();
                assert!(!list.contains(document.digest.hex()), "{list}");
            }
        }
        for (digest, _) in &kind.blobs {
            let target = format!("/v2/a/blobs/{digest}");
            // One blob may stand in two manifests.
            assert!(matches!(registry.delete(&target), 202 | 404));
            assert_eq!(registry.head(&target).status, 404);
        }
    }
    if let Some(dir) = &registry.dir {
        let left = fs_err::read_dir(dir.path().join("_blobs/sha256")).unwrap().count();
        assert_eq!(left, 0, "what no repository has is gone from the disk");
    }
}

fn a_manifest_comes_with_many_tags_at_once(registry: &Registry) {
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }).to_string();
        let digest = digest_of(algorithm, index.as_bytes());
        let tags: Vec<_> = (0..12).map(|n| format!("{}-{n}", algorithm.name())).collect();
        let reference = format!("{digest}?tag={}", tags.join("&tag="));
        let reply = registry.manifest("a", &reference, INDEX, index.as_bytes());
        assert_eq!(reply.status, 201, "{reply:?}");
        let accepted: Vec<_> = reply.header("OCI-Tag").unwrap().split(',').map(str::trim).collect();
        assert_eq!(accepted, tags);
        for tag in &tags {
            let there = registry.get(&format!("/v2/a/manifests/{tag}"));
            assert_eq!(there.header("Docker-Content-Digest"), Some(&*digest.to_string()));
        }
        let wrong = registry.manifest("a", &format!("{digest}?tag=ok&tag=.no"), INDEX, index.as_bytes());
        assert_eq!(wrong.status, 400);
        assert_gone(registry, "/v2/a/manifests/ok");
        // Deleted by digest, it has no tag any more.
        assert_eq!(registry.delete(&format!("/v2/a/manifests/{digest}")), 202);
        assert_gone(registry, &format!("/v2/a/manifests/{}", tags[0]));
    }
}

fn parameters_of_a_media_type_are_ignored(registry: &Registry) {
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }).to_string();
    let reply = registry.manifest("a", "1", &format!("{INDEX}; charset=utf-8"), index.as_bytes());
    assert_eq!(reply.status, 201, "{reply:?}");
    assert_eq!(registry.get("/v2/a/manifests/1").header("Content-Type"), Some(INDEX));
}

fn a_manifest_is_no_blob_to_delete(registry: &Registry) {
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }).to_string();
    assert_eq!(registry.manifest("a", "1", INDEX, index.as_bytes()).status, 201);
    let digest = Digest::of(index.as_bytes());
    assert_eq!(registry.delete(&format!("/v2/a/blobs/{digest}")), 400);
    assert_eq!(registry.get("/v2/a/manifests/1").status, 200);
}
