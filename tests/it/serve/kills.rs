//! `kill -9` of the registry at any moment: what was acknowledged is there, what was not is nowhere to be seen.

use std::{
    path::Path,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use longshore::oci::Digest;

use super::{MIB, offset, open, patch, put, send};
use crate::{
    support::{longshore::Longshore, port::Port, raw::Raw, relay::Relay, serve::Serve, until::until},
    wire::image::{Layout, noise},
};

/// What longshore sends at once where nobody has said otherwise.
const CHUNK: usize = 16 * MIB;

/// Two chunks and a half.
const LARGE: usize = 40 * MIB;

/// So long does a status wait for what is being saved, at least.
const SETTLE: Duration = Duration::from_secs(1);

/// All that is sent beside layers.
const WORDS: usize = MIB / 4;

/// Returns how many bytes of an upload there are on disk.
fn size(dir: &Path, location: &str) -> u64 {
    let data = dir.join("_uploads").join(location.rsplit('/').next().unwrap()).join("data");
    fs_err::metadata(data).unwrap().len()
}

#[test]
fn an_upload_goes_on_where_it_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = noise(1, 3 * MIB);
    let server = Serve::start(dir.path());
    let location = open(server.host(), "a");
    assert_eq!(patch(server.host(), &location, 0, &bytes[..MIB]).status, 202);
    // Half a chunk more, other bytes than those that are to come: nobody has acknowledged them.
    let mut broken = Raw::connect(server.host());
    broken.write_head("PATCH", &location, &[("Content-Length", "1000000")]).unwrap();
    broken.write(&noise(2, MIB / 2)).unwrap();
    until("some of the half chunk", || size(dir.path(), &location) > MIB as u64);
    server.kill();

    let server = Serve::start(dir.path());
    assert_eq!(offset(server.host(), &location), MIB);
    assert_eq!(patch(server.host(), &location, MIB, &bytes[MIB..2 * MIB]).status, 202);
    server.kill();
    let server = Serve::start(dir.path());
    let digest = Digest::of(&bytes);
    assert_eq!(put(server.host(), &location, &digest, &bytes[2 * MIB..]).status, 201);
    let blob = format!("/v2/a/blobs/{digest}");
    assert_eq!(Digest::of(&send(server.host(), "GET", &blob, &[], b"").body), digest);
    assert_eq!(fs_err::read_dir(dir.path().join("_uploads")).unwrap().count(), 0);
}

#[test]
fn a_shorter_last_chunk_than_the_one_that_was_killed_ends_the_blob() {
    let dir = tempfile::tempdir().unwrap();
    let server = Serve::start(dir.path());
    let location = open(server.host(), "a");
    let mut broken = Raw::connect(server.host());
    broken.write_head("PATCH", &location, &[("Content-Length", "9000000")]).unwrap();
    broken.write(&noise(1, MIB)).unwrap();
    until("some of the chunk", || size(dir.path(), &location) > 0);
    server.kill();
    let server = Serve::start(dir.path());
    let digest = Digest::of(b"short");
    assert_eq!(put(server.host(), &location, &digest, b"short").status, 201);
    assert_eq!(send(server.host(), "GET", &format!("/v2/a/blobs/{digest}"), &[], b"").body, b"short");
}

#[test]
fn what_was_acknowledged_is_there_and_nothing_half() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<(String, Digest)> = Vec::new();
    // Each time it is killed with as many requests in flight, whatever they are at.
    for round in 0..4_u64 {
        let server = Serve::start(dir.path());
        let host = server.host().to_owned();
        let clients: Vec<_> = (0..8)
            .map(|client| {
                let host = host.clone();
                std::thread::spawn(move || {
                    let mut done = Vec::new();
                    for blob in 0.. {
                        let name = format!("r{}", client % 3);
                        let bytes = noise(round << 32 | client << 16 | blob, 100_000);
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
        // Some of them have come through by then; nobody who has failed is waited for.
        let blobs = || fs_err::read_dir(dir.path().join("_blobs/sha256")).unwrap().count();
        until("blobs", || blobs() >= acknowledged.len() + 20 || clients.iter().any(JoinHandle::is_finished));
        server.kill();
        acknowledged.extend(clients.into_iter().flat_map(|client| client.join().unwrap()));
    }
    let server = Serve::start(dir.path());
    for (name, digest) in &acknowledged {
        let reply = send(server.host(), "GET", &format!("/v2/{name}/blobs/{digest}"), &[], b"");
        assert_eq!((reply.status, Digest::of(&reply.body)), (200, digest.clone()));
    }
    for blob in fs_err::read_dir(dir.path().join("_blobs/sha256")).unwrap() {
        let blob = blob.unwrap();
        let bytes = fs_err::read(blob.path()).unwrap();
        assert_eq!(Digest::of(&bytes).hex(), blob.file_name().to_str().unwrap());
    }
    assert_eq!(fs_err::read_dir(dir.path().join("_uploads")).unwrap().count(), 0);
}

/// Kills the registry when so much of a large layer has been sent, and starts it again; returns how many bytes the
/// push sent in all.
fn kill_in_push(hold: impl Fn(&Relay)) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let port = Port::new();
    let server = Serve::start_at(dir.path(), port.host());
    let relay = Relay::start(port.host());
    let layout = Layout::of(&[LARGE]);
    hold(&relay);
    let source = layout.path().display().to_string();
    let destination = format!("{}/demo:1", relay.host());
    let running = Longshore::new().start(["push", &source, &destination]);
    relay.wait_until_held();
    server.kill();
    let _server = Serve::start_at(dir.path(), port.host());
    relay.cut();
    let run = running.finish();
    let expected = format!("{}/demo@{}", relay.host(), layout.root.digest);
    assert_eq!(run.pushed(), Ok(expected.as_str()));
    let blob = dir.path().join("demo/blobs/sha256").join(layout.blobs[0].hex());
    assert_eq!(Digest::of(&fs_err::read(blob).unwrap()), layout.blobs[0]);
    relay.sent()
}

#[test]
fn a_push_goes_on_at_the_registry_that_was_killed_between_chunks() {
    let sent = kill_in_push(|relay| relay.hold_second("PATCH"));
    assert!(sent <= (LARGE + WORDS) as u64, "{sent}");
}

#[test]
fn a_push_repeats_at_most_the_chunk_that_the_registry_was_killed_in() {
    let sent = kill_in_push(|relay| relay.hold_after((CHUNK + CHUNK / 2) as u64));
    assert!(sent <= (LARGE + CHUNK / 2 + WORDS) as u64, "{sent}");
}

#[test]
fn a_status_counts_what_is_being_saved() {
    let dir = tempfile::tempdir().unwrap();
    let server = Serve::start(dir.path());
    let location = open(server.host(), "a");
    let mut broken = Raw::connect(server.host());
    broken.write_head("PATCH", &location, &[("Content-Length", &(2 * MIB).to_string())]).unwrap();
    broken.write(&noise(4, MIB)).unwrap();
    until("what was sent", || size(dir.path(), &location) >= MIB as u64);
    let mut asking = Raw::connect(server.host());
    let mut asked = Instant::now();
    asking.write_head("GET", &location, &[]).unwrap();
    drop(broken);
    let mut reply = asking.reply("GET").unwrap();
    while reply.header("Range") != Some("0-1048575") {
        // A disk may be slower than that.
        assert!(reply.status == 204 && asked.elapsed() >= SETTLE, "not waited for: {reply:?}");
        asked = Instant::now();
        reply = send(server.host(), "GET", &location, &[], b"");
    }
}

#[test]
fn a_push_that_is_killed_goes_on_in_the_middle_of_a_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let (server, user, layout) = (Serve::start(dir.path()), Longshore::new(), Layout::of(&[LARGE]));
    let relay = Relay::start(server.host());
    let source = layout.path().display().to_string();
    let destination = format!("{}/demo:1", relay.host());
    relay.hold_after((CHUNK + CHUNK / 2) as u64);
    let running = user.start(["push", &source, &destination]);
    relay.wait_until_held();
    running.kill();
    relay.cut();
    let before = relay.sent();
    let run = user.run(["push", &source, &destination]);
    assert!(run.pushed().unwrap().ends_with(&layout.root.digest.to_string()), "{run:?}");
    let again = relay.sent() - before;
    assert!(again <= (LARGE - CHUNK - CHUNK / 2 + WORDS) as u64, "{again}");
}
