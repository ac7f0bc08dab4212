//! Blobs: every way in, out as a whole, by range and by HEAD, and away.

use longshore::oci::{Algorithm, Digest};

use super::{ALGORITHMS, Registry, code, digest_of, with};
use crate::{support::raw::Raw, wire::image::noise};

/// Three chunks, the last one shorter.
const CHUNK: usize = 1024;
const SIZE: usize = 3 * CHUNK - 5;

/// Brings a blob; returns the last status, and where the blob is.
type Way = fn(&Registry, &Digest, &[u8]) -> (u16, String);

/// The ways to bring a blob.
const WAYS: [Way; 5] = [post_only, post_and_put, chunked, chunked_with_last_in_put, streamed];

fn post_only(registry: &Registry, digest: &Digest, bytes: &[u8]) -> (u16, String) {
    let reply = registry.blob("a", digest, bytes);
    (reply.status, reply.header("Location").unwrap_or_default().to_owned())
}

fn post_and_put(registry: &Registry, digest: &Digest, bytes: &[u8]) -> (u16, String) {
    close(registry, &registry.open("a", ""), digest, &[], bytes)
}

fn chunked(registry: &Registry, digest: &Digest, bytes: &[u8]) -> (u16, String) {
    let mut location = registry.open("a", "");
    for (number, chunk) in bytes.chunks(CHUNK).enumerate() {
        location = patch(registry, &location, number * CHUNK, chunk);
    }
    close(registry, &location, digest, &[], b"")
}

fn chunked_with_last_in_put(registry: &Registry, digest: &Digest, bytes: &[u8]) -> (u16, String) {
    let location = registry.open("a", &format!("?digest-algorithm={}", digest.algorithm().name()));
    let location = patch(registry, &location, 0, &bytes[..CHUNK]);
    let location = patch(registry, &location, CHUNK, &bytes[CHUNK..2 * CHUNK]);
    let range = format!("{}-{}", 2 * CHUNK, bytes.len() - 1);
    close(registry, &location, digest, &[("Content-Range", &range)], &bytes[2 * CHUNK..])
}

fn streamed(registry: &Registry, digest: &Digest, bytes: &[u8]) -> (u16, String) {
    let location = registry.open("a", "");
    let mut raw = Raw::connect(registry.serve.host());
    raw.write_head("PATCH", &location, &[("Transfer-Encoding", "chunked")]).unwrap();
    for piece in bytes.chunks(1000) {
        raw.write(format!("{:x}\r\n", piece.len()).as_bytes()).unwrap();
        raw.write(piece).unwrap();
        raw.write(b"\r\n").unwrap();
    }
    raw.write(b"0\r\n\r\n").unwrap();
    let reply = raw.reply("PATCH").unwrap();
    assert_eq!((reply.status, reply.header("Range")), (202, Some(&*format!("0-{}", bytes.len() - 1))));
    close(registry, reply.header("Location").unwrap(), digest, &[], b"")
}

fn patch(registry: &Registry, location: &str, first: usize, chunk: &[u8]) -> String {
    let last = first + chunk.len() - 1;
    let reply = registry.send("PATCH", location, &[("Content-Range", &format!("{first}-{last}"))], chunk);
    assert_eq!((reply.status, reply.header("Range")), (202, Some(&*format!("0-{last}"))), "{reply:?}");
    reply.header("Location").unwrap().to_owned()
}

fn close(
    registry: &Registry,
    location: &str,
    digest: &Digest,
    headers: &[(&str, &str)],
    bytes: &[u8],
) -> (u16, String) {
    let reply = registry.send("PUT", &with(location, &format!("digest={digest}")), headers, bytes);
    if reply.status == 201 {
        assert_eq!(reply.header("Docker-Content-Digest"), Some(&*digest.to_string()));
    } else {
        assert_eq!(code(&reply), "DIGEST_INVALID");
    }
    (reply.status, reply.header("Location").unwrap_or_default().to_owned())
}

/// The blob is there, whole, and gone at once when it is deleted.
#[track_caller]
fn assert_there(registry: &Registry, name: &str, digest: &Digest, bytes: &[u8]) {
    let target = format!("/v2/{name}/blobs/{digest}");
    for method in ["GET", "HEAD"] {
        let reply = registry.send(method, &target, &[], b"");
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("Content-Length"), Some(&*bytes.len().to_string()));
        assert_eq!(reply.header("Docker-Content-Digest"), Some(&*digest.to_string()));
        assert_eq!(reply.body, if method == "GET" { bytes } else { b"" });
    }
}

#[track_caller]
fn assert_deletable(registry: &Registry, name: &str, digest: &Digest) {
    let target = format!("/v2/{name}/blobs/{digest}");
    assert_eq!(registry.delete(&target), 202);
    assert_gone(registry, name, digest);
    assert_eq!(registry.delete(&target), 404);
}

#[track_caller]
fn assert_gone(registry: &Registry, name: &str, digest: &Digest) {
    let target = format!("/v2/{name}/blobs/{digest}");
    let reply = registry.get(&target);
    assert_eq!((reply.status, &*code(&reply)), (404, "BLOB_UNKNOWN"));
    assert_eq!(registry.head(&target).status, 404);
}

cases! {
    blobs_come_in_every_way;
    a_single_chunk_is_a_blob;
    blobs_of_another_digest_are_refused_in_every_way;
    empty_and_well_known_blobs_are_blobs;
    chunks_out_of_order_are_refused_and_the_upload_goes_on;
    a_chunk_of_another_size_than_it_says_is_refused;
    a_cancelled_upload_is_unknown;
    uploads_belong_to_their_repository;
    blobs_are_mounted_from_a_repository_or_from_any;
    what_cannot_be_mounted_is_uploaded;
    ranges_of_a_blob_are_sent;
    digests_are_of_known_algorithms;
}

cases_of_a_gateway! {
    a_single_chunk_is_a_blob;
    blobs_of_another_digest_are_refused_in_every_way;
    a_chunk_of_another_size_than_it_says_is_refused;
    a_cancelled_upload_is_unknown;
    uploads_belong_to_their_repository;
    ranges_of_a_blob_are_sent;
    digests_are_of_known_algorithms;
}

fn blobs_come_in_every_way(registry: &Registry) {
    for algorithm in ALGORITHMS {
        for (number, way) in (0..).zip(WAYS) {
            let bytes = noise(number, SIZE);
            let digest = digest_of(algorithm, &bytes);
            assert_gone(registry, "a", &digest);
            let (status, location) = way(registry, &digest, &bytes);
            assert_eq!(status, 201);
            assert_eq!(registry.get(&location).body, bytes);
            assert_there(registry, "a", &digest, &bytes);
            assert_deletable(registry, "a", &digest);
        }
    }
}

fn a_single_chunk_is_a_blob(registry: &Registry) {
    for algorithm in ALGORITHMS {
        let bytes = noise(1, 512);
        let digest = digest_of(algorithm, &bytes);
        assert_eq!(chunked(registry, &digest, &bytes).0, 201);
        assert_there(registry, "a", &digest, &bytes);
    }
}

fn blobs_of_another_digest_are_refused_in_every_way(registry: &Registry) {
    for algorithm in ALGORITHMS {
        for (number, way) in (0..).zip(WAYS) {
            let bytes = noise(number, SIZE);
            let digest = digest_of(algorithm, &bytes);
            assert_eq!(way(registry, &digest, &[&*bytes, b"oh no"].concat()).0, 400);
            assert_gone(registry, "a", &digest);
        }
    }
}

fn empty_and_well_known_blobs_are_blobs(registry: &Registry) {
    for algorithm in ALGORITHMS {
        for bytes in [&b""[..], b"{}"] {
            for way in [post_only, post_and_put] {
                let digest = digest_of(algorithm, bytes);
                assert_eq!(way(registry, &digest, bytes).0, 201);
                assert_there(registry, "a", &digest, bytes);
                assert_deletable(registry, "a", &digest);
            }
        }
    }
}

fn chunks_out_of_order_are_refused_and_the_upload_goes_on(registry: &Registry) {
    for algorithm in ALGORITHMS {
        for last_in_put in [false, true] {
            let bytes = noise(7, SIZE);
            let digest = digest_of(algorithm, &bytes);
            let mut location = registry.open("a", "");
            for first in (0..SIZE).step_by(CHUNK) {
                // One ahead, or back to the beginning.
                let wrong = if first + CHUNK < SIZE { first + CHUNK } else { 0 };
                let end = SIZE.min(wrong + CHUNK);
                let range = format!("{wrong}-{}", end - 1);
                let (method, target) = if last_in_put && end == SIZE {
                    ("PUT", with(&location, &format!("digest={digest}")))
                } else {
                    ("PATCH", location.clone())
                };
                let reply = registry.send(method, &target, &[("Content-Range", &range)], &bytes[wrong..end]);
                assert_eq!((reply.status, &*code(&reply)), (416, "BLOB_UPLOAD_INVALID"));
                // Where it is, it says, there and here.
                let status = registry.get(&location);
                assert_eq!(status.status, 204);
                let expected = format!("0-{}", first.saturating_sub(1));
                assert_eq!(status.header("Range"), Some(&*expected));
                assert_eq!(reply.header("Range"), Some(&*expected));
                let end = SIZE.min(first + CHUNK);
                status.header("Location").unwrap().clone_into(&mut location);
                if last_in_put && end == SIZE {
                    let range = format!("{first}-{}", end - 1);
                    let closed =
                        close(registry, &location, &digest, &[("Content-Range", &range)], &bytes[first..]);
                    assert_eq!(closed.0, 201);
                } else {
                    location = patch(registry, &location, first, &bytes[first..end]);
                }
            }
            if !last_in_put {
                assert_eq!(close(registry, &location, &digest, &[], b"").0, 201);
            }
            assert_there(registry, "a", &digest, &bytes);
            assert_deletable(registry, "a", &digest);
        }
    }
}

fn a_chunk_of_another_size_than_it_says_is_refused(registry: &Registry) {
    let location = registry.open("a", "");
    for range in ["0-9", "x", "9-0", "bytes 0-1/2"] {
        let reply = registry.send("PATCH", &location, &[("Content-Range", range)], b"xx");
        assert_eq!(reply.status, 400, "{range}");
        assert!(matches!(&*code(&reply), "SIZE_INVALID" | "BLOB_UPLOAD_INVALID"));
    }
    assert_eq!(registry.get(&location).header("Range"), Some("0-0"));
}

fn a_cancelled_upload_is_unknown(registry: &Registry) {
    for location in [registry.open("a", ""), patch(registry, &registry.open("a", ""), 0, b"bytes")] {
        assert_eq!(registry.delete(&location), 204);
        for method in ["GET", "PATCH", "DELETE"] {
            let reply = registry.send(method, &location, &[], b"");
            assert_eq!((reply.status, &*code(&reply)), (404, "BLOB_UPLOAD_UNKNOWN"), "{method}");
        }
        let digest = Digest::of(b"bytes");
        let reply = registry.send("PUT", &with(&location, &format!("digest={digest}")), &[], b"");
        assert_eq!((reply.status, &*code(&reply)), (404, "BLOB_UPLOAD_UNKNOWN"));
    }
}

fn uploads_belong_to_their_repository(registry: &Registry) {
    let location = registry.open("a", "");
    let elsewhere = location.replace("/v2/a/", "/v2/b/");
    assert_eq!(registry.get(&elsewhere).status, 404);
    assert_eq!(registry.delete(&elsewhere), 404);
    assert_eq!(registry.get(&location).status, 204);
}

fn blobs_are_mounted_from_a_repository_or_from_any(registry: &Registry) {
    // Which repositories have a blob is not known in a bucket.
    let anywhere = registry.dir.as_ref().map(|_| "");
    for algorithm in ALGORITHMS {
        for from in anywhere.into_iter().chain(["&from=other"]) {
            let bytes = noise(3, 512);
            let digest = digest_of(algorithm, &bytes);
            assert_eq!(registry.blob("other", &digest, &bytes).status, 201);
            let target = format!("/v2/a/blobs/uploads/?mount={digest}{from}");
            let reply = registry.send("POST", &target, &[], b"");
            assert_eq!(reply.status, 201, "{reply:?}");
            assert_eq!(reply.header("Docker-Content-Digest"), Some(&*digest.to_string()));
            assert_eq!(registry.get(reply.header("Location").unwrap()).body, bytes);
            // What one repository gives up the other keeps.
            assert_deletable(registry, "other", &digest);
            assert_there(registry, "a", &digest, &bytes);
            assert_deletable(registry, "a", &digest);
            let reply = registry.send("POST", &target, &[], b"");
            assert_eq!(reply.status, 202, "{reply:?}");
        }
    }
}

fn what_cannot_be_mounted_is_uploaded(registry: &Registry) {
    for algorithm in ALGORITHMS {
        let bytes = noise(4, 512);
        let digest = digest_of(algorithm, &bytes);
        for from in ["&from=other", ""] {
            let location = registry.open("a", &format!("?mount={digest}{from}"));
            assert_eq!(close(registry, &location, &digest, &[], &bytes).0, 201);
            assert_deletable(registry, "a", &digest);
        }
    }
}

fn ranges_of_a_blob_are_sent(registry: &Registry) {
    for algorithm in ALGORITHMS {
        let bytes = noise(5, 2048);
        let digest = digest_of(algorithm, &bytes);
        assert_eq!(registry.blob("a", &digest, &bytes).status, 201);
        let target = format!("/v2/a/blobs/{digest}");
        for (asked, sent) in
            [("500-1499", 500..1500), ("500-", 500..2048), ("-500", 1548..2048), ("2000-5000", 2000..2048)]
        {
            let reply = registry.send("GET", &target, &[("Range", &format!("bytes={asked}"))], b"");
            assert_eq!((reply.status, &*reply.body), (206, &bytes[sent.clone()]), "{asked}");
            assert_eq!(reply.header("Content-Length"), Some(&*sent.len().to_string()));
            let expected = format!("bytes {}-{}/2048", sent.start, sent.end - 1);
            assert_eq!(reply.header("Content-Range"), Some(&*expected));
        }
        for asked in ["500-0", "5000-10000", "-0"] {
            let reply = registry.send("GET", &target, &[("Range", &format!("bytes={asked}"))], b"");
            assert_eq!(reply.status, 416, "{asked}");
            assert_eq!(reply.header("Content-Range"), Some("bytes */2048"));
        }
    }
}

fn digests_are_of_known_algorithms(registry: &Registry) {
    for query in ["?digest=md5:00", "?digest=sha256:0", "?mount=sha256:0", "?digest-algorithm=md5"] {
        let reply = registry.send("POST", &format!("/v2/a/blobs/uploads/{query}"), &[], b"");
        assert_eq!(reply.status, 400, "{query}");
        assert!(matches!(&*code(&reply), "DIGEST_INVALID" | "UNSUPPORTED"), "{query}");
    }
    let location = registry.open("a", "");
    for query in ["", "digest=sha256:0"] {
        let reply = registry.send("PUT", &with(&location, query), &[], b"");
        assert_eq!((reply.status, &*code(&reply)), (400, "DIGEST_INVALID"));
    }
    assert_eq!(registry.get("/v2/a/blobs/sha256:0").status, 400);
    let digest = digest_of(Algorithm::Sha256, b"");
    assert_eq!(close(registry, &location, &digest, &[], b"").0, 201);
}
