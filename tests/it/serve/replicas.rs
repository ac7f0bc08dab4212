//! Two processes over one folder are one registry.

use longshore::oci::Digest;

use super::{MIB, offset, open, patch, put, send};
use crate::{
    support::{
        capability::is_unavailable, longshore::Longshore, nginx::Nginx, raw::Raw, read_back::ReadBack,
        serve::Serve, until::until,
    },
    wire::image::{Layout, noise},
};

#[test]
fn an_upload_goes_on_at_the_other_process() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Serve::start(dir.path()), Serve::start(dir.path()));
    let bytes = noise(1, 3 * MIB);
    let location = open(a.host(), "a/b");
    assert_eq!(patch(b.host(), &location, 0, &bytes[..MIB]).status, 202);
    assert_eq!(offset(a.host(), &location), MIB);
    // Where the other process is by now, this one knows.
    assert_eq!(patch(a.host(), &location, 0, &bytes[..MIB]).status, 416);
    assert_eq!(patch(a.host(), &location, MIB, &bytes[MIB..2 * MIB]).status, 202);
    let digest = Digest::of(&bytes);
    let reply = put(b.host(), &location, &digest, &bytes[2 * MIB..]);
    assert_eq!(reply.status, 201, "{reply:?}");
    for host in [a.host(), b.host()] {
        assert_eq!(send(host, "GET", &location, &[], b"").status, 404);
        let blob = send(host, "GET", &format!("/v2/a/b/blobs/{digest}"), &[], b"");
        assert_eq!(Digest::of(&blob.body), digest);
    }
}

#[test]
fn who_is_appending_keeps_the_other_process_away() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Serve::start(dir.path()), Serve::start(dir.path()));
    let bytes = noise(2, 2 * MIB);
    let location = open(a.host(), "a");
    let mut slow = Raw::connect(a.host());
    let length = bytes.len().to_string();
    slow.write_head("PATCH", &location, &[("Content-Length", &length)]).unwrap();
    slow.write(&bytes[..MIB]).unwrap();
    // Before its first byte is written, the request may not have come that far.
    let data = dir.path().join("_uploads").join(location.rsplit('/').next().unwrap()).join("data");
    until("the first half", || fs_err::metadata(&data).unwrap().len() > 0);
    let refused = patch(b.host(), &location, 0, &bytes);
    assert_eq!((refused.status, refused.header("Range")), (416, Some("0-0")));
    assert!(refused.text().contains("BLOB_UPLOAD_INVALID"), "{refused:?}");
    slow.write(&bytes[MIB..]).unwrap();
    assert_eq!(slow.reply("PATCH").unwrap().status, 202);
    assert_eq!(put(b.host(), &location, &Digest::of(&bytes), b"").status, 201);
}

#[test]
fn an_upload_is_cancelled_at_the_other_process() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Serve::start(dir.path()), Serve::start(dir.path()));
    let location = open(a.host(), "a");
    assert_eq!(patch(a.host(), &location, 0, b"bytes").status, 202);
    assert_eq!(send(b.host(), "DELETE", &location, &[], b"").status, 204);
    for host in [a.host(), b.host()] {
        assert_eq!(patch(host, &location, 5, b"more").status, 404);
        assert_eq!(send(host, "DELETE", &location, &[], b"").status, 404);
    }
    assert_eq!(fs_err::read_dir(dir.path().join("_uploads")).unwrap().count(), 0);
}

#[test]
fn a_push_through_a_load_balancer_arrives() {
    if ["nginx", "skopeo"].into_iter().any(is_unavailable) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Serve::start(dir.path()), Serve::start(dir.path()));
    let nginx = Nginx::start(&[a.host(), b.host()], "client_max_body_size 0;");
    let layout = Layout::of(&[10 * MIB, 5 * MIB, 1000]);
    let destination = format!("{}/demo:1", nginx.host());
    let source = layout.path().display().to_string();
    let run = Longshore::new().run(["push", &source, &destination, "--chunk-size=1MiB"]);
    let expected = format!("{}/demo@{}", nginx.host(), layout.root.digest);
    assert_eq!(run.pushed(), Ok(expected.as_str()));
    let there = ReadBack::of(&destination).unwrap();
    assert_eq!(there.digest(), layout.root.digest.to_string());
}
