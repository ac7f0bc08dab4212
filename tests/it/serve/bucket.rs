//! `longshore serve s3://…`: processes that share nothing but a bucket, on a real S3 server, are one registry.

use std::{
    path::{Path, PathBuf},
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use longshore::oci::Digest;

use super::{MIB, offset, open, patch, peak, put, send};
use crate::{
    support::{
        capability::is_unavailable,
        longshore::Longshore,
        nginx::Nginx,
        raw::Raw,
        read_back::ReadBack,
        relay,
        s3::{Relay, S3},
        serve::Serve,
        skopeo,
        until::until,
    },
    wire::image::{Layout, gzip, layer, noise},
};

fn two() -> (S3, Serve, Serve) {
    let s3 = S3::start();
    let (a, b) = (Serve::over(&s3, &[]), Serve::over(&s3, &[]));
    (s3, a, b)
}

fn blob(host: &str, name: &str, digest: &Digest) -> (u16, Digest) {
    let reply = send(host, "GET", &format!("/v2/{name}/blobs/{digest}"), &[], b"");
    (reply.status, Digest::of(&reply.body))
}

/// Lists the files below a folder, by their paths.
fn files(folder: &Path) -> Vec<PathBuf> {
    let walked = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter().filter_map(Result::ok);
    walked.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path).collect()
}

/// Sends the first bytes of a body of three times as many, and waits until some of them have come to the bucket.
fn begin(s3: &S3, serve: &Serve, location: &str, bytes: &[u8]) -> Raw {
    let mut slow = Raw::connect(serve.host());
    let length = (3 * bytes.len()).to_string();
    slow.write_head("PATCH", location, &[("Content-Length", &length)]).unwrap();
    slow.write(bytes).unwrap();
    until("a part", || s3.loose_parts() > 0);
    slow
}

#[test]
fn an_upload_belongs_to_no_process() {
    let (s3, a, b) = two();
    let bytes = noise(1, 60 * MIB);
    let location = open(a.host(), "a/b");
    let mut at = 0;
    for (length, serve) in [(1, &b), (5 * MIB - 1, &a), (7, &b), (20 * MIB, &a), (16 * MIB + 1, &b)] {
        let reply = patch(serve.host(), &location, at, &bytes[at..at + length]);
        assert_eq!(reply.status, 202, "{reply:?}");
        at += length;
    }
    assert_eq!((offset(a.host(), &location), offset(b.host(), &location)), (at, at));
    let digest = Digest::of(&bytes);
    let reply = put(a.host(), &location, &digest, &bytes[at..]);
    assert_eq!(reply.status, 201, "{reply:?}");
    for serve in [&a, &b] {
        assert_eq!(send(serve.host(), "GET", &location, &[], b"").status, 404);
        assert_eq!(blob(serve.host(), "a/b", &digest), (200, digest.clone()));
        let target = format!("/v2/a/b/blobs/{digest}");
        let part = send(serve.host(), "GET", &target, &[("Range", "bytes=5242870-30000000")], b"");
        assert!(part.status == 206 && part.body == bytes[5_242_870..=30_000_000]);
    }
    assert_eq!((files(&s3.registry().join("_uploads")), s3.loose_parts()), (Vec::new(), 0));
}

#[test]
fn an_upload_is_cancelled_at_the_other_process() {
    let (s3, a, b) = two();
    let location = open(a.host(), "a");
    let mut slow = begin(&s3, &a, &location, &noise(1, 20 * MIB));
    assert_eq!(send(b.host(), "DELETE", &location, &[], b"").status, 204);
    for serve in [&a, &b] {
        assert_eq!(patch(serve.host(), &location, 0, b"more").status, 404);
        assert_eq!(send(serve.host(), "DELETE", &location, &[], b"").status, 404);
    }
    slow.write(&noise(1, 40 * MIB)).unwrap();
    assert_eq!(slow.reply("PATCH").unwrap().status, 404);
    assert_eq!(files(&s3.registry()), Vec::<PathBuf>::new());
}

#[test]
fn of_two_writers_one_gets_416() {
    for s3 in [S3::start(), S3::heedless()] {
        let (a, b) = (Serve::over(&s3, &[]), Serve::over(&s3, &[]));
        let location = open(a.host(), "a");
        let mut slow = begin(&s3, &a, &location, &noise(1, 20 * MIB));
        // The newer one goes on: the other's client may long have gone.
        let bytes = noise(2, 20 * MIB);
        assert_eq!(patch(b.host(), &location, 0, &bytes).status, 202);
        slow.write(&noise(3, 40 * MIB)).unwrap();
        let reply = slow.reply("PATCH").unwrap();
        assert_eq!((reply.status, reply.header("Range")), (416, Some("0-20971519")), "{reply:?}");
        let digest = Digest::of(&bytes);
        assert_eq!(put(a.host(), &location, &digest, b"").status, 201);
        assert_eq!(blob(b.host(), "a", &digest), (200, digest.clone()));
    }
}

#[test]
fn a_bucket_that_heeds_no_conditions_is_said_to_be_one() {
    let s3 = S3::heedless();
    let serve = Serve::over(&s3, &[]);
    let said =
        serve.stderr().find(|line| line.contains("whatever the conditions are").then(|| line.to_owned()));
    assert!(said.unwrap().contains(S3::REGISTRY));
}

#[test]
fn what_a_bucket_has_done_without_saying_so_is_done() {
    let s3 = S3::troubled();
    let serve = Serve::over(&s3, &[]);
    let bytes = noise(1, 20 * MIB);
    let location = open(serve.host(), "a");
    for range in [0..9 * MIB, 9 * MIB..19 * MIB] {
        let reply = patch(serve.host(), &location, range.start, &bytes[range]);
        assert_eq!(reply.status, 202, "{reply:?}");
    }
    let digest = Digest::of(&bytes);
    let reply = put(serve.host(), &location, &digest, &bytes[19 * MIB..]);
    assert_eq!(reply.status, 201, "{reply:?}");
    assert_eq!(blob(serve.host(), "a", &digest), (200, digest.clone()));
    assert_eq!(files(&s3.registry().join("_uploads")), Vec::<PathBuf>::new());
}

#[test]
fn what_was_acknowledged_outlives_the_process() {
    let (s3, a, b) = two();
    let bytes = noise(1, 30 * MIB);
    let location = open(a.host(), "a");
    assert_eq!(patch(a.host(), &location, 0, &bytes[..9 * MIB]).status, 202);
    // Other bytes than those that are to come: nobody has acknowledged them.
    let broken = begin(&s3, &a, &location, &noise(2, 20 * MIB));
    a.kill();
    drop(broken);
    assert_eq!(offset(b.host(), &location), 9 * MIB);
    assert_eq!(patch(b.host(), &location, 9 * MIB, &bytes[9 * MIB..20 * MIB]).status, 202);
    b.kill();
    let c = Serve::over(&s3, &[]);
    let digest = Digest::of(&bytes);
    assert_eq!(put(c.host(), &location, &digest, &bytes[20 * MIB..]).status, 201);
    assert_eq!(blob(c.host(), "a", &digest), (200, digest.clone()));
    assert_eq!((files(&s3.registry().join("_uploads")), s3.loose_parts()), (Vec::new(), 0));
}

#[test]
fn nothing_is_half_there_whenever_a_process_is_killed() {
    let s3 = S3::start();
    let mut acknowledged: Vec<(String, Digest)> = Vec::new();
    for round in 0..3_u64 {
        let (killed, other) = (Serve::over(&s3, &[]), Serve::over(&s3, &[]));
        let clients: Vec<_> = (0..6)
            .map(|client| {
                let host = killed.host().to_owned();
                std::thread::spawn(move || {
                    let mut done = Vec::new();
                    for blob in 0.. {
                        let name = format!("r{}", client % 3);
                        let bytes = noise(round << 32 | client << 16 | blob, 50_000);
                        let digest = Digest::of(&bytes);
                        let target = format!("/v2/{name}/blobs/uploads/?digest={digest}");
                        match Raw::try_connect(&host)
                            .and_then(|mut raw| raw.send("POST", &target, &[], &bytes))
                        {
                            Ok(reply) if reply.status == 201 => done.push((name, digest)),
                            Ok(reply) => panic!("{reply:?}"),
                            Err(_) => break,
                        }
                    }
                    done
                })
            })
            .collect();
        let blobs = s3.registry().join("_blobs/sha256");
        // Nobody who has failed is waited for.
        until("blobs", || {
            files(&blobs).len() >= acknowledged.len() + 12 || clients.iter().any(JoinHandle::is_finished)
        });
        killed.kill();
        acknowledged.extend(clients.into_iter().flat_map(|client| client.join().unwrap()));
        for (name, digest) in &acknowledged {
            assert_eq!(blob(other.host(), name, digest), (200, digest.clone()));
        }
        // Also what was not acknowledged is whole, where it can be seen.
        for path in files(&s3.registry()) {
            let below = path.strip_prefix(s3.registry()).unwrap().to_str().unwrap();
            if let Some((name, hex)) = below.split_once("/_blobs/sha256/") {
                let digest: Digest = format!("sha256:{hex}").parse().unwrap();
                assert_eq!(blob(other.host(), name, &digest), (200, digest.clone()));
            }
        }
    }
}

#[test]
fn stale_uploads_are_given_up_and_live_ones_are_not() {
    let s3 = S3::start();
    let serve = Serve::over(&s3, &[]);
    let [stale, live, begun] = [(); 3].map(|()| open(serve.host(), "a"));
    for location in [&stale, &live] {
        assert_eq!(patch(serve.host(), location, 0, &noise(1, 9 * MIB)).status, 202);
    }
    drop(begin(&s3, &serve, &begun, &noise(2, 20 * MIB)));
    serve.kill();
    assert!(s3.loose_parts() > 0);
    let id = |location: &str| location.rsplit('/').next().unwrap().to_owned();
    for location in [&stale, &begun] {
        let state = s3.registry().join("_uploads").join(id(location));
        let file = fs_err::OpenOptions::new().write(true).open(state).unwrap();
        file.file().set_modified(SystemTime::now() - Duration::from_secs(25 * 3600)).unwrap();
    }
    let serve = Serve::over(&s3, &[]);
    for location in [&stale, &begun] {
        assert_eq!(send(serve.host(), "GET", location, &[], b"").status, 404);
        assert_eq!(files(&s3.registry().join("_data").join(id(location))), Vec::<PathBuf>::new());
    }
    assert_eq!(s3.loose_parts(), 0);
    assert_eq!(offset(serve.host(), &live), 9 * MIB);
    let digest = Digest::of(&noise(1, 9 * MIB));
    assert_eq!(put(serve.host(), &live, &digest, b"").status, 201);
}

#[test]
fn many_uploads_at_once_take_turns_at_little_memory() {
    let s3 = S3::start();
    let serve = Serve::over(&s3, &[]);
    let bytes = noise(1, 18 * MIB);
    let digest = Digest::of(&bytes);
    let length = bytes.len().to_string();
    let begin = |_| {
        let mut raw = Raw::connect(serve.host());
        let target = format!("{}?digest={digest}", open(serve.host(), "a"));
        raw.write_head("PUT", &target, &[("Content-Length", &length)]).unwrap();
        raw
    };
    let mut uploads: Vec<_> = (0..16).map(begin).collect();
    // Nobody sends the second half before all have sent the first.
    for piece in bytes.chunks(9 * MIB) {
        std::thread::scope(|scope| {
            for raw in &mut uploads {
                scope.spawn(|| raw.write(piece).unwrap());
            }
        });
    }
    for raw in &mut uploads {
        assert_eq!(raw.reply("PUT").unwrap().status, 201);
    }
    assert_eq!(blob(serve.host(), "a", &digest), (200, digest.clone()));
    // Eight parts of 8 MiB, and what it takes to send them.
    let peak = peak(&serve);
    assert!(peak < 110 << 10, "{peak} KiB");
}

#[test]
fn repositories_share_blobs_and_keep_their_own() {
    let (s3, a, b) = two();
    let bytes = noise(1, 9 * MIB);
    let digest = Digest::of(&bytes);
    let target = |name: &str| format!("/v2/{name}/blobs/{digest}");
    for (name, serve) in [("a", &a), ("b/c", &b)] {
        let post = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        assert_eq!(send(serve.host(), "POST", &post, &[], &bytes).status, 201);
    }
    let mount = format!("/v2/d/blobs/uploads/?mount={digest}&from=b/c");
    assert_eq!(send(a.host(), "POST", &mount, &[], b"").status, 201);
    assert_eq!(files(&s3.registry().join("_data")).len(), 1);
    for name in ["a", "b/c"] {
        assert_eq!(send(b.host(), "DELETE", &target(name), &[], b"").status, 202);
        assert_eq!(send(a.host(), "HEAD", &target(name), &[], b"").status, 404);
    }
    assert_eq!(blob(b.host(), "d", &digest), (200, digest.clone()));
}

#[test]
fn skopeo_copies_in_and_out() {
    if ["nginx", "skopeo"].into_iter().any(is_unavailable) {
        return;
    }
    let (_s3, a, b) = two();
    let nginx = Nginx::start(&[a.host(), b.host()], "client_max_body_size 0;");
    let layers = [20 * MIB, MIB, 1000].map(|size| gzip(&layer(&noise(size as u64, size))));
    let layout = Layout::of_layers(&layers);
    let reference = format!("{}/a/demo:1", nginx.host());
    skopeo::push(&format!("oci:{}", layout.path().display()), &reference).unwrap();
    let there = ReadBack::of(&reference).unwrap();
    assert_eq!(there.digest(), layout.root.digest.to_string());
    let layers = there.contents(&there.manifest).unwrap().layers;
    assert!(layers.len() == 3 && layers.iter().all(Option::is_some), "{layers:?}");
}

#[test]
fn a_push_in_chunks_goes_through_a_load_balancer() {
    if ["nginx", "skopeo"].into_iter().any(is_unavailable) {
        return;
    }
    let (_s3, a, b) = two();
    let nginx = Nginx::start(&[a.host(), b.host()], "client_max_body_size 0;");
    let layout = Layout::of(&[10 * MIB, 5 * MIB, 1000]);
    let destination = format!("{}/demo:1", nginx.host());
    let source = layout.path().display().to_string();
    let run = Longshore::new().run(["push", &source, &destination, "--chunk-size=1MiB"]);
    let expected = format!("{}/demo@{}", nginx.host(), layout.root.digest);
    assert_eq!(run.pushed(), Ok(expected.as_str()));
    assert_eq!(ReadBack::of(&destination).unwrap().digest(), layout.root.digest.to_string());
}

#[test]
fn a_push_goes_on_at_the_other_process_when_one_is_killed() {
    let (_s3, a, b) = two();
    let relay = relay::Relay::start(a.host());
    let layout = Layout::of(&[40 * MIB]);
    relay.hold_second("PATCH");
    let (source, host) = (layout.path().display().to_string(), relay.host().to_owned());
    let running = Longshore::new().start(["push", &source, &format!("{host}/demo:1")]);
    relay.wait_until_held();
    a.kill();
    relay.lead_to(b.host());
    relay.cut();
    let run = running.finish();
    assert_eq!(run.pushed(), Ok(&*format!("{host}/demo@{}", layout.root.digest)));
    assert_eq!(blob(b.host(), "demo", &layout.blobs[0]), (200, layout.blobs[0].clone()));
    // What the first chunk brought was not sent again.
    assert!(relay.sent() <= (40 * MIB + MIB / 4) as u64, "{}", relay.sent());
}

#[test]
fn images_are_there_when_the_registry_opens() {
    let s3 = S3::start();
    let layout = Layout::of(&[MIB, 1000]);
    let named = format!("team/other:2={}", layout.path().display());
    for images in [&[&*named][..], &[]] {
        let serve = Serve::over(&s3, images);
        let manifest = send(serve.host(), "GET", "/v2/team/other/manifests/2", &[], b"");
        assert_eq!(manifest.body, layout.root.bytes);
    }
}

#[test]
fn a_dead_bucket_is_a_registry_that_is_not_available() {
    let s3 = S3::start();
    // So much that the server opens, and then no more; the connections stay.
    let relay = Relay::before(s3.address(), 64 << 10);
    let serve = Serve::over_address(relay.address(), &["--patience=10s"]).unwrap();
    let location = open(serve.host(), "a");
    let digest = Digest::of(b"blob");
    let post = format!("/v2/a/blobs/uploads/?digest={digest}");
    assert_eq!(send(serve.host(), "POST", &post, &[], b"blob").status, 201);
    while send(serve.host(), "GET", &format!("/v2/a/blobs/{digest}"), &[], b"").status == 200 {}
    let questions = [
        ("GET", format!("/v2/a/blobs/{digest}")),
        ("GET", "/v2/a/tags/list".to_owned()),
        ("GET", "/v2/a/manifests/1".to_owned()),
        ("POST", "/v2/a/blobs/uploads/".to_owned()),
        ("PATCH", location),
        ("GET", "/healthz".to_owned()),
    ];
    // All at once: each waits.
    std::thread::scope(|scope| {
        for (method, target) in &questions {
            let serve = &serve;
            scope.spawn(move || {
                let reply = send(serve.host(), method, target, &[], b"");
                assert_eq!(reply.status, 503, "{method} {target}: {reply:?}");
                assert!(reply.text().contains("UNAVAILABLE"), "{reply:?}");
            });
        }
    });
    let waited = serve.stderr().find(|line| line.contains("no answer within 10s").then_some(()));
    assert!(waited.is_some(), "{:#?}", serve.stderr().all());
}

#[test]
fn bytes_that_are_missing_are_named() {
    let s3 = S3::start();
    let serve = Serve::over(&s3, &[]);
    let digest = Digest::of(b"blob");
    let post = format!("/v2/a/blobs/uploads/?digest={digest}");
    assert_eq!(send(serve.host(), "POST", &post, &[], b"blob").status, 201);
    fs_err::remove_dir_all(s3.registry().join("_data")).unwrap();
    Raw::connect(serve.host()).send("GET", &format!("/v2/a/blobs/{digest}"), &[], b"").unwrap_err();
    let said = serve.stderr().find(|line| line.contains("reading `_data/").then(|| line.to_owned())).unwrap();
    assert!(said.contains("NoSuchKey"), "{said}");
}

#[test]
fn a_bucket_that_lets_nobody_in_is_told_at_the_start() {
    // Nobody listens there.
    let error = Serve::over_address(([127, 0, 0, 1], 1).into(), &[]).err().unwrap();
    assert!(error.contains("opening the registry in `s3://fleet/registry`"), "{error}");
}

#[test]
fn a_gateway_wants_a_folder() {
    let server = S3::start();
    let failed = Serve::over_address(server.address(), &["--upstream=127.0.0.1:1", "--allow-anonymous"]);
    let words = failed.err().expect("it serves nothing");
    assert!(words.contains("in a folder, and not in a bucket"), "{words}");
}
