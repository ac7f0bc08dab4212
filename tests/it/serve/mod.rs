//! `longshore serve` as its users run it: a process over a folder, or several.

#[cfg(feature = "buckets")]
mod bucket;
mod gateway;
mod images;
mod kills;
mod limits;
mod nonsense;
mod replicas;
mod tools;

use longshore::oci::Digest;

use crate::support::{
    raw::{Raw, Reply},
    serve::Serve,
};

const MIB: usize = 1 << 20;

/// Sends one request on a connection of its own.
#[track_caller]
fn send(host: &str, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    Raw::connect(host).send(method, target, headers, body).unwrap()
}

/// Opens an upload and returns where it is.
#[track_caller]
fn open(host: &str, name: &str) -> String {
    let reply = send(host, "POST", &format!("/v2/{name}/blobs/uploads/"), &[], b"");
    assert_eq!(reply.status, 202, "{reply:?}");
    reply.header("Location").unwrap().to_owned()
}

/// Sends a chunk that begins at `first`.
#[track_caller]
fn patch(host: &str, location: &str, first: usize, bytes: &[u8]) -> Reply {
    let range = format!("{first}-{}", first + bytes.len() - 1);
    send(host, "PATCH", location, &[("Content-Range", &range)], bytes)
}

/// Closes an upload with its last bytes.
#[track_caller]
fn put(host: &str, location: &str, digest: &Digest, bytes: &[u8]) -> Reply {
    send(host, "PUT", &format!("{location}?digest={digest}"), &[], bytes)
}

/// Returns the most memory that a process has had, less its files, in KiB.
fn peak(serve: &Serve) -> u64 {
    let status = fs_err::read_to_string(format!("/proc/{}/status", serve.id())).unwrap();
    let kib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap()
    };
    kib("VmHWM:") - kib("RssFile:")
}

/// Asks how many bytes of an upload there are; one or none are not told apart.
#[track_caller]
fn offset(host: &str, location: &str) -> usize {
    let reply = send(host, "GET", location, &[], b"");
    assert_eq!(reply.status, 204, "{reply:?}");
    reply.header("Range").unwrap().strip_prefix("0-").unwrap().parse::<usize>().unwrap() + 1
}
