//! The fault registry does what its script says, and is honest otherwise: seen by a client that sends bytes.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::Arc,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use longshore::oci::{Algorithm, Digest, Hasher};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};

use crate::support::{
    raw::{Raw, Reply},
    registry::{Auth, Fault, Lie, Manners, Registry, Route, Script},
};

const UPLOADS: &str = "/v2/demo/blobs/uploads/";

/// Opens a session; returns its address.
fn open(raw: &mut Raw) -> String {
    let reply = raw.send("POST", UPLOADS, &[], b"").unwrap();
    assert_eq!(reply.status, 202);
    reply.header("Location").unwrap().to_owned()
}

fn patch(raw: &mut Raw, location: &str, start: usize, bytes: &[u8]) -> Reply {
    let range = format!("{start}-{}", start + bytes.len() - 1);
    raw.send("PATCH", location, &[("Content-Range", &range)], bytes).unwrap()
}

fn commit(raw: &mut Raw, location: &str, bytes: &[u8], body: &[u8]) -> Reply {
    raw.send("PUT", &format!("{location}&digest={}", Digest::of(bytes)), &[], body).unwrap()
}

/// Opens a session and sends one chunk; returns the answer to it.
fn patch_to(registry: &Registry, bytes: &[u8]) -> Reply {
    let mut raw = Raw::connect(&registry.host());
    let location = open(&mut raw);
    patch(&mut raw, &location, 0, bytes)
}

fn code(reply: &Reply) -> String {
    let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    body["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
}

fn location(reply: &Reply) -> String {
    reply.header("Location").unwrap().to_owned()
}

fn with(manners: Manners) -> Registry {
    Registry::start(Script::new().manners(manners))
}

fn fault(route: Route, fault: Fault) -> Registry {
    Registry::start(Script::new().on(route, 1, fault))
}

#[test]
fn an_image_pushed_in_chunks_is_there() {
    let registry = Registry::honest();
    let mut raw = Raw::connect(&registry.host());
    let config = b"{}";
    let layer = b"hello, world";
    let digest = Digest::of(layer);
    let head = format!("/v2/demo/blobs/{digest}");
    assert_eq!(raw.send("HEAD", &head, &[], b"").unwrap().status, 404);

    let session = open(&mut raw);
    let first = patch(&mut raw, &session, 0, &layer[..5]);
    assert_eq!((first.status, first.header("Range")), (202, Some("0-4")));
    let second = patch(&mut raw, &location(&first), 5, &layer[5..]);
    assert_eq!((second.status, second.header("Range")), (202, Some("0-11")));
    let closed = commit(&mut raw, &location(&second), layer, b"");
    assert_eq!((closed.status, closed.header("Docker-Content-Digest")), (201, Some(&*digest.to_string())));
    assert_eq!(raw.send("HEAD", &head, &[], b"").unwrap().header("Content-Length"), Some("12"));
    assert_eq!(raw.send("GET", &head, &[], b"").unwrap().body, layer);

    let whole = open(&mut raw);
    assert_eq!(commit(&mut raw, &whole, config, config).status, 201);
    let descriptor = |media_type: &str, bytes: &[u8]| serde_json::json!({ "mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len() });
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type,
        "config": descriptor("application/vnd.oci.image.config.v1+json", config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    });
    let manifest = manifest.to_string();
    let put = |raw: &mut Raw, media_type: &str| {
        raw.send("PUT", "/v2/demo/manifests/1", &[("Content-Type", media_type)], manifest.as_bytes()).unwrap()
    };
    assert_eq!(put(&mut raw, "application/json").status, 400);
    assert_eq!(put(&mut raw, media_type).status, 201);
    assert_eq!(registry.tags("demo"), ["1"]);
    assert_eq!(registry.manifest("demo", "1"), Some((media_type.into(), manifest.clone().into_bytes())));
    assert_eq!(registry.blob("demo", &digest).as_deref(), Some(&layer[..]));
    assert_eq!((registry.calls(Route::Patch), registry.bytes(Route::Patch)), (2, 12));
    let asked = registry.log().into_iter().map(|exchange| format!("{} {}", exchange.method, exchange.target));
    assert_eq!(asked.take(2).collect::<Vec<_>>(), [format!("HEAD {head}"), format!("POST {UPLOADS}")]);
    let log = registry.exchanges(Route::Patch);
    assert_eq!((log[1].content_range.as_deref(), log[1].content_length), (Some("5-11"), Some(7)));
    assert!(registry.log().iter().all(|exchange| exchange.connection == 1 && !exchange.chunked));
}

#[test]
fn a_manifest_needs_what_it_names() {
    let registry = Registry::honest();
    let mut raw = Raw::connect(&registry.host());
    let child = Digest::of(b"nowhere");
    let index = format!(r#"{{"manifests":[{{"digest":"{child}","size":7}}]}}"#);
    let media_type = [("Content-Type", "application/vnd.oci.image.index.v1+json")];
    let refused = raw.send("PUT", "/v2/demo/manifests/1", &media_type, index.as_bytes()).unwrap();
    assert_eq!((refused.status, code(&refused).as_str()), (404, "MANIFEST_BLOB_UNKNOWN"));
    assert!(refused.text().contains(&child.to_string()));
    assert!(registry.tags("demo").is_empty());
    let wrong = format!("/v2/demo/manifests/{child}");
    assert_eq!(code(&raw.send("PUT", &wrong, &media_type, b"{}").unwrap()), "DIGEST_INVALID");
}

#[test]
fn a_subject_is_echoed_and_its_referrers_are_listed() {
    let put = |registry: &Registry| {
        let mut raw = Raw::connect(&registry.host());
        let subject = Digest::of(b"subject");
        let index = format!(r#"{{"manifests":[],"subject":{{"digest":"{subject}","size":7}}}}"#);
        let media_type = [("Content-Type", "application/vnd.oci.image.index.v1+json")];
        let reply = raw.send("PUT", "/v2/demo/manifests/1", &media_type, index.as_bytes()).unwrap();
        let listed = raw.send("GET", &format!("/v2/demo/referrers/{subject}"), &[], b"").unwrap();
        (reply.header("OCI-Subject").map(str::to_owned), listed)
    };
    let (echo, listed) = put(&Registry::honest());
    assert_eq!(echo, Some(Digest::of(b"subject").to_string()));
    assert!(listed.text().contains("\"digest\""));
    let (echo, listed) = put(&with(Manners { subject: false, ..Manners::default() }));
    assert_eq!((echo, listed.status), (None, 404));
}

#[test]
fn ranges_and_digests_are_checked() {
    let registry = Registry::honest();
    let mut raw = Raw::connect(&registry.host());
    let first = open(&mut raw);
    let skipped = patch(&mut raw, &first, 3, b"abc");
    assert_eq!((skipped.status, code(&skipped).as_str()), (416, "RANGE_INVALID"));
    let lying = raw.send("PATCH", &first, &[("Content-Range", "0-9")], b"abc").unwrap();
    assert_eq!((lying.status, code(&lying).as_str()), (400, "SIZE_INVALID"));
    let old_form = raw.send("PATCH", &first, &[("Content-Range", "bytes 0-2/3")], b"abc").unwrap();
    assert_eq!(old_form.status, 400);
    let taken = patch(&mut raw, &first, 0, b"abc");
    assert_eq!(code(&patch(&mut raw, &first, 3, b"def")), "BLOB_UPLOAD_INVALID", "a stale address");
    let wrong = commit(&mut raw, &location(&taken), b"abd", b"");
    assert_eq!((wrong.status, code(&wrong).as_str()), (400, "DIGEST_INVALID"));
    assert_eq!(registry.blob("demo", &Digest::of(b"abc")), None);

    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(b"abc");
    let long = hasher.finish();
    let whole = raw.send("POST", &format!("{UPLOADS}?digest={long}"), &[], b"abc").unwrap();
    assert_eq!(whole.status, 201);
    assert!(registry.blob("demo", &long).is_some());
}

#[test]
fn a_session_can_be_asked_and_given_back() {
    let registry = Registry::honest();
    let mut raw = Raw::connect(&registry.host());
    let session = open(&mut raw);
    patch(&mut raw, &session, 0, b"abc");
    let status = raw.send("GET", &session, &[], b"").unwrap();
    assert_eq!((status.status, status.header("Range")), (204, Some("0-2")));
    assert_eq!(patch(&mut raw, &location(&status), 3, b"d").status, 202);
    assert_eq!(raw.send("DELETE", &session, &[], b"").unwrap().status, 204);
    assert_eq!(code(&raw.send("GET", &session, &[], b"").unwrap()), "BLOB_UPLOAD_UNKNOWN");
}

#[test]
fn a_blob_is_mounted_from_where_it_is() {
    let registry = Registry::honest();
    let mut raw = Raw::connect(&registry.host());
    let digest = registry.seed("other", b"abc");
    let mount = |from: &str| format!("{UPLOADS}?mount={digest}&from={from}");
    assert_eq!(raw.send("POST", &mount("nowhere"), &[], b"").unwrap().status, 202);
    assert_eq!(registry.blob("demo", &digest), None);
    assert_eq!(raw.send("POST", &mount("other"), &[], b"").unwrap().status, 201);
    assert!(registry.blob("demo", &digest).is_some());
    assert_eq!((registry.calls(Route::Mount), registry.calls(Route::Open)), (2, 0));
}

#[test]
fn streamed_bodies_are_taken_and_logged_as_such() {
    let registry = Registry::honest();
    let mut raw = Raw::connect(&registry.host());
    let session = open(&mut raw);
    raw.write_head("PATCH", &session, &[("Transfer-Encoding", "chunked")]).unwrap();
    raw.write(b"5\r\nhello\r\n3;x=y\r\n, w\r\n0\r\n\r\n").unwrap();
    let reply = raw.reply("PATCH").unwrap();
    assert_eq!((reply.status, reply.header("Range")), (202, Some("0-7")));
    assert!(registry.exchanges(Route::Patch)[0].chunked);
    assert_eq!(registry.bytes(Route::Patch), 8);
}

#[test]
fn a_fault_happens_at_its_call_and_no_other() {
    let down = Fault::status(503).header("Retry-After", "1").body("text/html", "<h1>down</h1>");
    let registry = Registry::start(Script::new().on(Route::Patch, 2, down));
    let mut raw = Raw::connect(&registry.host());
    let session = open(&mut raw);
    let first = patch(&mut raw, &session, 0, b"abc");
    let second = patch(&mut raw, &location(&first), 3, b"def");
    assert_eq!((first.status, second.status, second.header("Retry-After")), (202, 503, Some("1")));
    assert_eq!(second.text(), "<h1>down</h1>");
    let third = patch(&mut raw, &location(&first), 3, b"def");
    assert_eq!((third.status, third.header("Range")), (202, Some("0-5")), "nothing was kept of the second");
    let answered: Vec<_> =
        registry.exchanges(Route::Patch).iter().map(|exchange| exchange.answered).collect();
    assert_eq!(answered, [Some(202), Some(503), Some(202)]);

    let registry = Registry::start(Script::new().always(Route::BlobHead, Fault::status(500)));
    let mut raw = Raw::connect(&registry.host());
    for _ in 0..3 {
        let head = format!("/v2/demo/blobs/{}", Digest::of(b""));
        assert_eq!(raw.send("HEAD", &head, &[], b"").unwrap().status, 500);
    }
}

#[test]
fn a_cut_body_is_kept_or_not() {
    for (keeps_partial, kept) in [(true, "0-1"), (false, "0-0")] {
        let manners = Manners { keeps_partial, ..Manners::default() };
        let script = Script::new().manners(manners).on(Route::Patch, 1, Fault::Cut { after: 2 });
        let registry = Registry::start(script);
        let mut raw = Raw::connect(&registry.host());
        let session = open(&mut raw);
        assert!(raw.send("PATCH", &session, &[("Content-Range", "0-5")], b"abcdef").is_err());
        let mut raw = Raw::connect(&registry.host());
        let status = raw.send("GET", &session, &[], b"").unwrap();
        assert_eq!(status.header("Range"), Some(kept));
        assert_eq!((registry.bytes(Route::Patch), registry.exchanges(Route::Patch)[0].answered), (2, None));
        assert_eq!(registry.exchanges(Route::Status)[0].connection, 2);
    }
}

#[test]
fn a_client_that_goes_away_leaves_what_it_sent() {
    let registry = Registry::honest();
    let mut raw = Raw::connect(&registry.host());
    let session = open(&mut raw);
    raw.write_head("PATCH", &session, &[("Content-Range", "0-5"), ("Content-Length", "6")]).unwrap();
    raw.write(b"abc").unwrap();
    drop(raw);
    // The registry notices in its own time: ask until it has.
    let mut raw = Raw::connect(&registry.host());
    let mut range = || raw.send("GET", &session, &[], b"").unwrap().header("Range").map(str::to_owned);
    assert!((0..100_000).any(|_| range().as_deref() == Some("0-2")));
}

#[test]
fn an_early_refusal_comes_before_the_body() {
    let registry = fault(Route::Patch, Fault::early_and_linger(413, 4));
    let mut raw = Raw::connect(&registry.host());
    let session = open(&mut raw);
    raw.write_head("PATCH", &session, &[("Content-Range", "0-99"), ("Content-Length", "100")]).unwrap();
    raw.write(b"abcd").unwrap();
    assert_eq!(raw.reply("PATCH").unwrap().status, 413);
    raw.write(&[0; 96]).unwrap();
    assert_eq!(registry.bytes(Route::Patch), 4);

    let registry = fault(Route::Patch, Fault::early(413, 64 << 10).header("Server", "nginx"));
    let mut raw = Raw::connect(&registry.host());
    let session = open(&mut raw);
    let megabyte = vec![0; 1 << 20];
    // Reset: the answer may be lost, the connection is.
    let reply = raw.send("PATCH", &session, &[], &megabyte);
    assert!(reply.is_err() || reply.unwrap().status == 413);
    assert!(raw.send("GET", &session, &[], b"").is_err());
    assert_eq!(
        (registry.bytes(Route::Patch), registry.exchanges(Route::Patch)[0].answered),
        (64 << 10, Some(413))
    );
}

#[test]
fn a_stall_never_ends() {
    let registry = fault(Route::Commit, Fault::Stall { after: 0 });
    let mut raw = Raw::connect(&registry.host());
    let session = open(&mut raw);
    raw.write_head("PUT", &session, &[("Content-Length", "0")]).unwrap();
    // It can be seen to have the request while others are served.
    let mut other = Raw::connect(&registry.host());
    let mut is_asked = || {
        other.send("GET", "/v2/", &[], b"").unwrap();
        registry.calls(Route::Commit) == 1
    };
    assert!((0..100_000).any(|_| is_asked()));
    drop(registry);
    assert!(raw.reply("PUT").is_err(), "it ends with the registry, unanswered");
}

#[test]
fn an_answer_is_lost_after_the_work() {
    let registry = fault(Route::Commit, Fault::LoseAnswer);
    let mut raw = Raw::connect(&registry.host());
    let session = open(&mut raw);
    let digest = Digest::of(b"abc");
    assert!(raw.send("PUT", &format!("{session}&digest={digest}"), &[], b"abc").is_err());
    assert!(registry.blob("demo", &digest).is_some());
    let registry = fault(Route::Open, Fault::reset());
    assert!(Raw::connect(&registry.host()).send("POST", UPLOADS, &[], b"").is_err());
}

#[test]
fn a_location_is_whatever_the_script_says() {
    for (template, told) in [
        (Some("{path}"), Some("/v2/demo/blobs/uploads/session-1?_state=1".to_owned())),
        (
            Some("http://evil.example{path}"),
            Some("http://evil.example/v2/demo/blobs/uploads/session-1?_state=1".into()),
        ),
        (None, None),
    ] {
        let registry = fault(Route::Patch, Fault::Location(template.map(str::to_owned)));
        let reply = patch_to(&registry, b"abc");
        assert_eq!((reply.status, reply.header("Location").map(str::to_owned)), (202, told));
    }
}

#[test]
fn a_range_is_whatever_the_script_says() {
    for (lie, told) in [
        (Lie::Absent, None),
        (Lie::BytesUnit, Some("bytes=0-5")),
        (Lie::Constant("0-10485759"), Some("0-10485759")),
        (Lie::LastChunkOnly, Some("3-5")),
        (Lie::OffByOne, Some("0-6")),
    ] {
        let registry = with(Manners { range: Some(lie.clone()), ..Manners::default() });
        let mut raw = Raw::connect(&registry.host());
        let session = open(&mut raw);
        let first = patch(&mut raw, &session, 0, b"abc");
        let second = patch(&mut raw, &location(&first), 3, b"def");
        assert_eq!(second.header("Range"), told, "{lie:?}");
        let status = raw.send("GET", &session, &[], b"").unwrap();
        assert_eq!(status.header("Range"), Some("0-5"), "only PATCH lies");
    }
    let registry = fault(Route::Status, Fault::Range(Lie::OffByOne));
    let mut raw = Raw::connect(&registry.host());
    let session = open(&mut raw);
    patch(&mut raw, &session, 0, b"abc");
    assert_eq!(raw.send("GET", &session, &[], b"").unwrap().header("Range"), Some("0-3"));
}

#[test]
fn part_of_a_chunk_is_taken() {
    let registry = fault(Route::Patch, Fault::AcceptOnly(2));
    let mut raw = Raw::connect(&registry.host());
    let session = open(&mut raw);
    let short = patch(&mut raw, &session, 0, b"abcdef");
    assert_eq!((short.status, short.header("Range")), (202, Some("0-1")));
    let rest = patch(&mut raw, &location(&short), 2, b"cdef");
    assert_eq!(commit(&mut raw, &location(&rest), b"abcdef", b"").status, 201);
}

#[test]
fn a_session_is_lost() {
    let reply = patch_to(&fault(Route::Patch, Fault::LoseSession), b"abc");
    assert_eq!((reply.status, code(&reply).as_str()), (404, "BLOB_UPLOAD_UNKNOWN"));
}

#[test]
fn a_right_commit_is_called_wrong() {
    let registry = fault(Route::Commit, Fault::DigestMismatch);
    let mut raw = Raw::connect(&registry.host());
    let session = open(&mut raw);
    let refused = commit(&mut raw, &session, b"abc", b"abc");
    assert_eq!((refused.status, code(&refused).as_str()), (400, "DIGEST_INVALID"));
    assert_eq!(raw.send("GET", &session, &[], b"").unwrap().status, 404);
}

#[test]
fn chunk_limits_are_said_and_enforced() {
    let manners = Manners { chunk_min: Some(3), chunk_max: Some(4), ..Manners::default() };
    let registry = with(manners);
    let mut raw = Raw::connect(&registry.host());
    let opened = raw.send("POST", UPLOADS, &[], b"").unwrap();
    let limits = (opened.header("oci-chunk-min-length"), opened.header("oci-chunk-max-length"));
    assert_eq!(limits, (Some("3"), Some("4")));
    assert_eq!(patch(&mut raw, &location(&opened), 0, b"abcde").status, 413);
    let short = patch(&mut raw, &location(&opened), 0, b"ab");
    assert_eq!(short.status, 202, "it could be the last");
    assert_eq!(patch(&mut raw, &location(&short), 2, b"cde").status, 416);
}

#[test]
fn unequal_parts_are_refused() {
    let registry = with(Manners { equal_parts: true, ..Manners::default() });
    let mut raw = Raw::connect(&registry.host());
    let session = open(&mut raw);
    let first = patch(&mut raw, &session, 0, b"abc");
    assert_eq!(patch(&mut raw, &location(&first), 3, b"defg").status, 416);
    let last = patch(&mut raw, &location(&first), 3, b"d");
    assert_eq!(last.status, 202);
    assert_eq!(patch(&mut raw, &location(&last), 4, b"efg").status, 416);
}

#[test]
fn a_closing_body_is_dropped() {
    for (keeps_closing_body, status) in [(true, 201), (false, 400)] {
        let registry = with(Manners { keeps_closing_body, ..Manners::default() });
        let mut raw = Raw::connect(&registry.host());
        let session = open(&mut raw);
        let first = patch(&mut raw, &session, 0, b"abc");
        assert_eq!(commit(&mut raw, &location(&first), b"abcd", b"d").status, status);
        let whole = open(&mut raw);
        assert_eq!(commit(&mut raw, &whole, b"abcd", b"abcd").status, 201, "no chunk was sent");
    }
}

#[test]
fn a_closing_body_is_refused() {
    let registry = with(Manners { refuses_whole: Some(500), ..Manners::default() });
    let mut raw = Raw::connect(&registry.host());
    let session = open(&mut raw);
    assert_eq!(commit(&mut raw, &session, b"abcd", b"abcd").status, 500);
    let chunk = patch(&mut raw, &session, 0, b"abcd");
    assert_eq!(commit(&mut raw, &location(&chunk), b"abcd", b"").status, 201);
}

#[test]
fn ecr_answers_201_and_tells_offsets_by_416_only() {
    let registry = with(Manners { patch_status: 201, status: false, ..Manners::default() });
    let mut raw = Raw::connect(&registry.host());
    let session = open(&mut raw);
    assert_eq!(patch(&mut raw, &session, 0, b"abc").status, 201);
    assert_eq!(raw.send("GET", &session, &[], b"").unwrap().status, 404);
    let probe = patch(&mut raw, &session, 0, b"abc");
    assert_eq!(probe.status, 416);
    assert!(probe.text().contains("First byte of the layer part is 0 instead of 3"));
}

#[test]
fn large_bodies_are_refused_in_html_before_they_are_read() {
    let registry = with(Manners { body_limit: Some(10), ..Manners::default() });
    let mut raw = Raw::connect(&registry.host());
    let session = open(&mut raw);
    raw.write_head("PATCH", &session, &[("Content-Length", "11")]).unwrap();
    let refused = raw.reply("PATCH").unwrap();
    assert_eq!((refused.status, refused.header("Content-Type")), (413, Some("text/html")));
    assert_eq!(registry.bytes(Route::Patch), 0);
}

#[test]
fn refusals_can_be_html() {
    let registry = with(Manners { html: true, ..Manners::default() });
    let reply = Raw::connect(&registry.host()).send("GET", "/v2/demo/manifests/1", &[], b"").unwrap();
    assert_eq!(reply.status, 404);
    assert!(reply.text().starts_with("<html>"));
}

#[test]
fn basic_lets_in_who_knows_the_password() {
    let auth = Auth::Basic { user: "me", password: "s3cret" };
    let registry = with(Manners { auth, ..Manners::default() });
    let mut raw = Raw::connect(&registry.host());
    let refused = raw.send("POST", UPLOADS, &[], b"").unwrap();
    assert_eq!(refused.status, 401);
    assert!(refused.header("WWW-Authenticate").unwrap().starts_with("Basic "));
    let right = format!("Basic {}", BASE64_STANDARD.encode("me:s3cret"));
    assert_eq!(raw.send("POST", UPLOADS, &[("Authorization", &right)], b"").unwrap().status, 202);
    let shown: Vec<_> =
        registry.exchanges(Route::Open).into_iter().map(|exchange| exchange.authorization).collect();
    assert_eq!(shown, [None, Some("Basic".to_owned())]);
}

#[test]
fn tokens_are_good_for_what_they_were_asked_for_until_they_expire() {
    let auth = Auth::Bearer { user: "me", password: "s3cret", expires_in: Some(60) };
    let script = Script::new().manners(Manners { auth, ..Manners::default() });
    let registry = Registry::start(script.on(Route::Open, 4, Fault::ExpireTokens));
    let mut raw = Raw::connect(&registry.host());
    let refused = raw.send("POST", UPLOADS, &[], b"").unwrap();
    let challenge = format!(
        r#"Bearer realm="http://{}/token",service="faults",scope="repository:demo:pull,push""#,
        registry.host()
    );
    assert_eq!((refused.status, refused.header("WWW-Authenticate")), (401, Some(&*challenge)));

    let basic = format!("Basic {}", BASE64_STANDARD.encode("me:s3cret"));
    let bearer = |raw: &mut Raw, actions: &str| {
        let target = format!("/token?service=faults&scope=repository%3Ademo%3A{actions}");
        assert_eq!(raw.send("GET", &target, &[], b"").unwrap().status, 401);
        let reply = raw.send("GET", &target, &[("Authorization", &basic)], b"").unwrap();
        let said: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(said["expires_in"], 60);
        format!("Bearer {}", said["token"].as_str().unwrap())
    };
    let (pull, push) = (bearer(&mut raw, "pull"), bearer(&mut raw, "pull,push"));
    let weak = raw.send("POST", UPLOADS, &[("Authorization", &pull)], b"").unwrap();
    assert!(weak.header("WWW-Authenticate").unwrap().contains("insufficient_scope"));
    let opened = raw.send("POST", UPLOADS, &[("Authorization", &push)], b"").unwrap();
    assert_eq!(opened.status, 202);
    let cancel = raw.send("DELETE", &location(&opened), &[("Authorization", &push)], b"").unwrap();
    assert_eq!(cancel.status, 401, "giving a session back takes a right of its own");
    assert_eq!(raw.send("POST", UPLOADS, &[("Authorization", &push)], b"").unwrap().status, 401, "expired");
    assert_eq!(registry.calls(Route::Token), 4);
}

#[test]
fn everybody_is_asked_once_more() {
    let registry = fault(Route::Patch, Fault::Unauthorized);
    let mut raw = Raw::connect(&registry.host());
    let session = open(&mut raw);
    assert_eq!(patch(&mut raw, &session, 0, b"abc").status, 401);
    assert_eq!(patch(&mut raw, &session, 0, b"abc").status, 202);
}

#[test]
fn tls_is_spoken_with_a_certificate_of_its_own() {
    let registry = with(Manners { tls: true, ..Manners::default() });
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(registry.certificate().as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(registry.host()).unwrap());
    stream.write_all(b"POST /v2/demo/blobs/uploads/ HTTP/1.1\r\nContent-Length: 0\r\n\r\n").unwrap();
    let mut reply = String::new();
    while !reply.contains("\r\n\r\n") {
        let mut buffer = [0; 1024];
        let size = stream.read(&mut buffer).unwrap();
        assert!(size > 0, "{reply}");
        reply.push_str(std::str::from_utf8(&buffer[..size]).unwrap());
    }
    assert!(reply.starts_with("HTTP/1.1 202 Accepted"), "{reply}");
    assert!(reply.contains(&format!("Location: https://{}", registry.host())), "{reply}");
}
