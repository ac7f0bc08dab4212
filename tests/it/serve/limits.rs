//! What the registry does not put up with, and how it ends.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use longshore::oci::Digest;

use super::{MIB, open, patch, peak, put, send};
use crate::{
    support::{
        longshore::Longshore,
        raw::{Raw, Reply},
        serve::Serve,
        small_disk::SmallDisk,
        until::until,
    },
    wire::image::{Layout, noise},
};

/// `me` and `secret`, as `htpasswd -nbB -C 4` writes them.
fn users(dir: &std::path::Path) -> String {
    let file = dir.join("users");
    fs_err::write(&file, format!("me:{}\n", bcrypt::hash("secret", 4).unwrap())).unwrap();
    format!("--htpasswd={}", file.display())
}

/// `me:secret`
const LOGIN: (&str, &str) = ("Authorization", "Basic bWU6c2VjcmV0");

fn post(serve: &Serve, headers: &[(&str, &str)]) -> Reply {
    send(serve.host(), "POST", "/v2/a/blobs/uploads/", headers, b"")
}

#[test]
fn who_is_not_in_the_file_gets_nowhere_or_may_pull() {
    let (dir, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let users = users(home.path());
    let serve = Serve::start_with(dir.path(), &[&users]);
    let reply = send(serve.host(), "GET", "/v2/", &[], b"");
    assert_eq!((reply.status, reply.header("WWW-Authenticate")), (401, Some("Basic realm=\"longshore\"")));
    assert!(reply.text().contains("UNAUTHORIZED"));
    assert_eq!(send(serve.host(), "GET", "/v2/", &[LOGIN], b"").status, 200);
    assert_eq!(post(&serve, &[]).status, 401);
    assert_eq!(post(&serve, &[("Authorization", "Basic bWU6d3Jvbmc=")]).status, 401);
    let digest = Digest::of(b"blob");
    let target = format!("/v2/a/blobs/uploads/?digest={digest}");
    assert_eq!(send(serve.host(), "POST", &target, &[LOGIN], b"blob").status, 201);
    let blob = format!("/v2/a/blobs/{digest}");
    assert_eq!(send(serve.host(), "GET", &blob, &[], b"").status, 401);
    drop(serve);

    let serve = Serve::start_with(dir.path(), &[&users, "--read-only"]);
    assert_eq!(send(serve.host(), "GET", &blob, &[], b"").body, b"blob");
    assert_eq!(post(&serve, &[]).status, 401);
    assert_eq!(post(&serve, &[LOGIN]).status, 202);
    drop(serve);

    let serve = Serve::start_with(dir.path(), &["--read-only"]);
    assert_eq!(send(serve.host(), "GET", &blob, &[], b"").body, b"blob");
    let reply = post(&serve, &[]);
    assert!(reply.status == 403 && reply.text().contains("DENIED"), "{reply:?}");
    assert_eq!(send(serve.host(), "DELETE", &blob, &[], b"").status, 403);
}

#[test]
fn a_push_logs_in() {
    let (dir, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let serve = Serve::start_with(dir.path(), &[&users(home.path())]);
    let layout = Layout::of(&[1000]);
    let source = layout.path().display().to_string();
    let destination = format!("{}/demo:1", serve.host());
    assert_eq!(Longshore::new().run(["push", &source, &destination]).code, Some(4));
    fs_err::write(home.path().join("password"), "secret").unwrap();
    let arguments = ["push", &source, &destination, "--creds=me", "--password-stdin"];
    Longshore::new().run_fed(&home.path().join("password"), arguments).pushed().unwrap();
}

#[test]
fn a_file_of_other_hashes_is_refused() {
    let (dir, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = home.path().join("users");
    fs_err::write(&file, "me:secret\n").unwrap();
    let stderr = Serve::fail(dir.path(), &[&format!("--htpasswd={}", file.display())]);
    assert!(stderr.contains("line 1 holds no name and bcrypt hash"), "{stderr}");
    assert!(stderr.contains("hint: `htpasswd -B`") && !stderr.contains("secret"), "{stderr}");
}

#[test]
fn whether_it_is_well_everybody_may_ask() {
    let (dir, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let serve = Serve::start_with(dir.path(), &[&users(home.path())]);
    let reply = send(serve.host(), "GET", "/healthz", &[], b"");
    assert_eq!((reply.status, &*reply.text()), (200, r#"{"status":"ok","uploads":0}"#));
    fs_err::remove_dir_all(dir.path().join("_uploads")).unwrap();
    assert_eq!(send(serve.host(), "GET", "/healthz", &[], b"").status, 500);
}

#[test]
fn open_uploads_are_limited_and_ended_ones_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start_with(dir.path(), &["--most-uploads=2"]);
    let location = open(serve.host(), "a");
    open(serve.host(), "b");
    let reply = post(&serve, &[]);
    assert_eq!((reply.status, reply.header("Retry-After")), (429, Some("10")), "{reply:?}");
    assert!(reply.text().contains("TOOMANYREQUESTS"));
    // What is there goes on.
    assert_eq!(patch(serve.host(), &location, 0, b"blob").status, 202);
    assert_eq!(put(serve.host(), &location, &Digest::of(b"blob"), b"").status, 201);
    assert_eq!(post(&serve, &[]).status, 202);
}

#[test]
fn bodies_are_limited_and_a_push_learns_it() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start_with(dir.path(), &["--chunk-max=1MiB"]);
    let reply = post(&serve, &[]);
    assert_eq!(reply.header("OCI-Chunk-Max-Length"), Some("1048576"));
    let location = reply.header("Location").unwrap();
    let reply = patch(serve.host(), location, 0, &noise(1, MIB + 1));
    assert_eq!((reply.status, reply.header("OCI-Chunk-Max-Length")), (413, Some("1048576")));
    let layout = Layout::of(&[5 * MIB / 2]);
    let source = layout.path().display().to_string();
    let run = Longshore::new().run(["push", &source, &format!("{}/demo:1", serve.host())]);
    assert_eq!(run.pushed(), Ok(&*format!("{}/demo@{}", serve.host(), layout.root.digest)));
}

#[test]
fn headers_are_limited() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start(dir.path());
    let names: Vec<_> = (0..200).map(|number| format!("X-{number}")).collect();
    let headers: Vec<_> = names.iter().map(|name| (&**name, "x")).collect();
    assert_eq!(send(serve.host(), "GET", "/v2/", &headers, b"").status, 431);
}

/// Long for a client on loopback, short for a test.
const PATIENCE: &str = "--patience=3s";

#[test]
fn who_sends_nothing_is_cut_and_what_had_come_counts() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start_with(dir.path(), &[PATIENCE]);
    let location = open(serve.host(), "a");
    let mut slow = Raw::connect(serve.host());
    slow.write_head("PATCH", &location, &[("Content-Length", "100")]).unwrap();
    slow.write(b"0123").unwrap();
    assert_eq!(slow.reply("PATCH").unwrap().status, 408);
    assert_eq!(send(serve.host(), "GET", &location, &[], b"").header("Range"), Some("0-3"));
}

#[test]
fn who_sends_a_byte_now_and_then_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start_with(dir.path(), &[PATIENCE]);
    let location = open(serve.host(), "a");
    let mut slow = TcpStream::connect(serve.host()).unwrap();
    // The pause between two bytes.
    slow.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    write!(slow, "PATCH {location} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200\r\n\r\n").unwrap();
    let mut status = [0; "HTTP/1.1 408".len()];
    for _ in 0..200 {
        slow.write_all(b"x").unwrap();
        if matches!(slow.peek(&mut status), Ok(read) if read == status.len()) {
            break;
        }
    }
    assert_eq!(str::from_utf8(&status), Ok("HTTP/1.1 408"));
}

#[test]
fn who_takes_nothing_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    // More than all buffers on the way hold.
    let bytes = noise(1, 64 * MIB);
    let digest = Digest::of(&bytes);
    let serve = Serve::start(dir.path());
    assert_eq!(put(serve.host(), &open(serve.host(), "a"), &digest, &bytes).status, 201);
    serve.kill();

    let serve = Serve::start_with(dir.path(), &[PATIENCE]);
    let alone = sockets(&serve);
    let mut idle = TcpStream::connect(serve.host()).unwrap();
    write!(idle, "GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    // The beginning of an answer.
    idle.read_exact(&mut [0; 8]).unwrap();
    until("the end of the connection", || sockets(&serve) == alone);
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).ok();
    assert!(rest.len() < bytes.len(), "{}", rest.len());
}

/// Returns how many sockets a registry has.
fn sockets(serve: &Serve) -> usize {
    let files = fs_err::read_dir(format!("/proc/{}/fd", serve.id())).unwrap();
    let links = files.filter_map(|file| fs_err::read_link(file.unwrap().path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

#[test]
fn a_full_disk_is_said_and_what_was_acknowledged_stays() {
    let Some(disk) = SmallDisk::new() else { return };
    let serve = Serve::start(disk.path());
    let location = open(serve.host(), "a");
    let bytes = noise(1, 6 * MIB);
    assert_eq!(patch(serve.host(), &location, 0, &bytes[..2 * MIB]).status, 202);
    let reply = patch(serve.host(), &location, 2 * MIB, &bytes[2 * MIB..]);
    assert!(reply.status == 507 && reply.text().contains("disk is full"), "{reply:?}");
    let range = send(serve.host(), "GET", &location, &[], b"");
    let end: usize = range.header("Range").unwrap().strip_prefix("0-").unwrap().parse().unwrap();
    assert!(end + 1 >= 2 * MIB, "{range:?}");
    assert_eq!(send(serve.host(), "DELETE", &location, &[], b"").status, 204);
    // There is room again.
    let location = open(serve.host(), "a");
    assert_eq!(put(serve.host(), &location, &Digest::of(&bytes[..MIB]), &bytes[..MIB]).status, 201);
    drop(serve);
}

#[test]
fn uploads_in_flight_are_finished_before_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start(dir.path());
    let bytes = noise(1, 2 * MIB);
    let digest = Digest::of(&bytes);
    let location = open(serve.host(), "a");
    let mut last = Raw::connect(serve.host());
    let length = bytes.len().to_string();
    last.write_head("PUT", &format!("{location}?digest={digest}"), &[("Content-Length", &length)]).unwrap();
    last.write(&bytes[..MIB]).unwrap();
    let data = dir.path().join("_uploads").join(location.rsplit('/').next().unwrap()).join("data");
    until("the first half", || fs_err::metadata(&data).unwrap().len() > 0);
    serve.terminate();
    // It takes nobody else any more.
    until("its last connection", || Raw::try_connect(serve.host()).is_err());
    last.write(&bytes[MIB..]).unwrap();
    assert_eq!(last.reply("PUT").unwrap().status, 201);
    assert!(serve.wait().success());
    assert!(dir.path().join("a/blobs/sha256").join(digest.hex()).exists());
}

#[test]
fn a_hundred_uploads_at_once_take_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start(dir.path());
    let bytes = noise(1, 2 * MIB);
    let digest = Digest::of(&bytes);
    let length = bytes.len().to_string();
    let mut uploads = Vec::new();
    for _ in 0..100 {
        let mut raw = Raw::connect(serve.host());
        let target = format!("{}?digest={digest}", open(serve.host(), "a"));
        raw.write_head("PUT", &target, &[("Content-Length", &length)]).unwrap();
        uploads.push(raw);
    }
    // All of them in the middle, again and again.
    for piece in bytes[..bytes.len() - 1].chunks(256 << 10) {
        std::thread::scope(|scope| {
            for raw in &mut uploads {
                scope.spawn(|| raw.write(piece).unwrap());
            }
        });
    }
    for raw in &mut uploads {
        raw.write(&bytes[bytes.len() - 1..]).unwrap();
    }
    for raw in &mut uploads {
        assert_eq!(raw.reply("PUT").unwrap().status, 201);
    }
    // Of 32 MiB; the program itself is a file, of less than 10 MiB where it is not built for tests.
    let peak = peak(&serve);
    assert!(peak < 22 << 10, "{peak} KiB");
}

#[test]
fn stale_uploads_are_given_up_and_young_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start(dir.path());
    let (old, young) = (open(serve.host(), "a"), open(serve.host(), "a"));
    serve.kill();
    let day = Duration::from_secs(24 * 60 * 60);
    for file in ["data", "state"] {
        let path = dir.path().join("_uploads").join(old.rsplit('/').next().unwrap()).join(file);
        let file = fs_err::OpenOptions::new().write(true).open(path).unwrap();
        file.file().set_modified(std::time::SystemTime::now() - day).unwrap();
    }
    let serve = Serve::start_with(dir.path(), &["--upload-lifetime=25h"]);
    assert_eq!(send(serve.host(), "GET", &old, &[], b"").status, 204);
    drop(serve);
    let serve = Serve::start(dir.path());
    assert_eq!(send(serve.host(), "GET", &old, &[], b"").status, 404);
    assert_eq!(send(serve.host(), "GET", &young, &[], b"").status, 204);
}

#[test]
fn with_a_certificate_it_speaks_tls() {
    let (dir, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (home.path().join("cert.pem"), home.path().join("key.pem"));
    fs_err::write(&certificate, cert.pem()).unwrap();
    fs_err::write(&key, signing_key.serialize_pem()).unwrap();
    let arguments = [format!("--tls-cert={}", certificate.display()), format!("--tls-key={}", key.display())];
    let serve = Serve::start_with(dir.path(), &[&arguments[0], &arguments[1]]);
    let layout = Layout::of(&[MIB]);
    let source = layout.path().display().to_string();
    let destination = format!("{}/demo:1", serve.host());
    let trusting = format!("--ca-file={}", certificate.display());
    let run = Longshore::new().run(["push", &source, &destination, &trusting]);
    assert_eq!(run.pushed(), Ok(&*format!("{}/demo@{}", serve.host(), layout.root.digest)));
    let stderr = Serve::fail(dir.path(), &[&arguments[0], &format!("--tls-key={}", certificate.display())]);
    assert!(stderr.contains("holds no private key"), "{stderr}");
}

#[test]
fn what_is_no_place_for_a_registry_is_said_to_be_none() {
    let (built, here) = (cfg!(feature = "buckets"), std::path::Path::new("file:///tmp"));
    let words = if built {
        "a registry cannot lie at such an address\nhint: a folder is served by its path"
    } else {
        "error: this longshore was built without object storage\nhint: build it with `--features buckets`"
    };
    let stderr = Serve::fail(here, &[]);
    assert!(stderr.contains(words), "{stderr}");
    let stderr = Serve::fail(std::path::Path::new("s4://bucket"), &[]);
    let words = if built { "the address of the bucket begins with `s4:`" } else { words };
    assert!(stderr.contains(words), "{stderr}");
}

#[test]
fn what_it_has_done_is_counted_for_who_may_ask() {
    let (dir, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let serve = Serve::start_with(dir.path(), &[&users(home.path())]);
    let bytes = noise(1, MIB);
    let digest = Digest::of(&bytes);
    let target = format!("/v2/a/blobs/uploads/?digest={digest}");
    assert_eq!(send(serve.host(), "POST", &target, &[LOGIN], &bytes).status, 201);
    assert_eq!(post(&serve, &[LOGIN]).status, 202);
    assert_eq!(send(serve.host(), "GET", &format!("/v2/a/blobs/{digest}"), &[LOGIN], b"").status, 200);
    assert_eq!(send(serve.host(), "GET", "/metrics", &[], b"").status, 401);
    let reply = send(serve.host(), "GET", "/metrics", &[LOGIN], b"");
    assert_eq!(reply.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = reply.text();
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} in\n{text}")).parse::<usize>().unwrap()
    };
    let requests = |method, route, status| {
        let labels = format!("{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}}");
        value(&format!("longshore_requests_total{labels}"))
    };
    let counted =
        [("POST", "uploads", 201), ("POST", "uploads", 202), ("GET", "blob", 200), ("GET", "metrics", 401)];
    assert_eq!(counted.map(|(method, route, status)| requests(method, route, status)), [1; 4]);
    let durations = "longshore_request_duration_seconds_count{method=\"POST\",route=\"uploads\"}";
    assert_eq!((value(durations), value("longshore_open_uploads")), (2, 1));
    for traffic in ["longshore_received_bytes_total", "longshore_sent_bytes_total"] {
        assert!(value(traffic) > MIB, "{text}");
    }
}
