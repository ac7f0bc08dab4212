//! `longshore serve --upstream`: what other tools push comes out at another registry, or they hear why not.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use longshore::oci::Digest;
use serde_json::{Value, json};

use super::{MIB, open, put, send};
use crate::{
    support::{
        capability::is_unavailable,
        docker_registry::DockerRegistry,
        longshore::Longshore,
        podman::Podman,
        raw::{Raw, Reply},
        read_back::ReadBack,
        registry::{Auth, Fault, Manners, Registry, Route, Script},
        serve::Serve,
        skopeo, tool,
        until::until,
    },
    wire::image::{Layout, gzip, layer, noise},
};

/// A gateway that everybody may use, on an upstream.
fn gateway(dir: &Path, upstream: &str, more: &[&str]) -> Serve {
    let upstream = format!("--upstream={upstream}");
    Serve::start_with(dir, &[&[upstream.as_str(), "--allow-anonymous", "--retries=0"], more].concat())
}

/// An image whose layers can be unpacked, one of several chunks where chunks are of a MiB.
fn image() -> Layout {
    Layout::of_layers(&[5 * MIB / 2, 1000].map(|size| gzip(&layer(&noise(size as u64, size)))))
}

fn source(layout: &Layout) -> String {
    format!("oci:{}", layout.path().display())
}

/// Puts a manifest, whose blobs somebody has to have.
fn put_manifest(host: &str, name: &str, reference: &str, layout: &Layout) -> Reply {
    let headers = [("Content-Type", layout.root.media_type)];
    send(host, "PUT", &format!("/v2/{name}/manifests/{reference}"), &headers, &layout.root.bytes)
}

/// Sends a layout's blobs.
fn put_blobs(host: &str, name: &str, layout: &Layout) {
    for digest in &layout.blobs {
        let sent = put(host, &open(host, name), digest, &layout.read(digest));
        assert_eq!(sent.status, 201, "{sent:?}");
    }
}

/// Returns the tags that a gateway's own folder has of a repository.
fn tags_in(dir: &Path, name: &str) -> Vec<String> {
    let Ok(index) = fs_err::read(dir.join(name).join("index.json")) else { return Vec::new() };
    let index: Value = serde_json::from_slice(&index).unwrap();
    let names = index["manifests"].as_array().unwrap().iter();
    let names = names.filter_map(|entry| entry["annotations"]["org.opencontainers.image.ref.name"].as_str());
    names.map(str::to_owned).collect()
}

/// Returns the files of a repository's blobs in a gateway's own folder.
fn blobs_in(dir: &Path, name: &str) -> Vec<String> {
    let Ok(files) = fs_err::read_dir(dir.join(name).join("blobs/sha256")) else { return Vec::new() };
    files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn what_skopeo_pushes_is_at_the_upstream_when_it_returns() {
    if is_unavailable("skopeo") {
        return;
    }
    let (dir, registry, layout) = (tempfile::tempdir().unwrap(), DockerRegistry::start(), image());
    let serve = gateway(dir.path(), &format!("{}/mirror/of", registry.host()), &["--chunk-size=1MiB"]);
    skopeo::push(&source(&layout), &format!("{}/a/demo:1", serve.host())).unwrap();
    let there = ReadBack::of(&format!("{}/mirror/of/a/demo:1", registry.host())).unwrap();
    assert_eq!(there.digest(), layout.root.digest.to_string());
    let layers = there.contents(&there.manifest).unwrap().layers;
    assert!(layers.len() == 2 && layers.iter().all(Option::is_some), "{layers:?}");
    assert_eq!(tags_in(dir.path(), "a/demo"), ["1"]);

    // An index, its children first, and by digest alone.
    let layers = [vec![gzip(&layer(b"one"))], vec![gzip(&layer(b"two"))]];
    let index = Layout::index(&[&layers[0], &layers[1]]);
    skopeo::push_with(&source(&index), &format!("{}/a/demo:2", serve.host()), &["--all"]).unwrap();
    let there = format!("{}/mirror/of/a/demo", registry.host());
    assert_eq!(skopeo::raw_manifest(&format!("{there}:2")).unwrap(), index.root.bytes);
    for child in &index.children {
        assert_eq!(skopeo::raw_manifest(&format!("{there}@{}", child.digest)).unwrap(), child.bytes);
    }
}

#[test]
fn podman_pushes_through_two_registries_of_ours_in_chunks_that_the_last_one_takes() {
    if is_unavailable("podman") || is_unavailable("skopeo") {
        return;
    }
    let (dirs, store) = ([(); 2].map(|()| tempfile::tempdir().unwrap()), tempfile::tempdir().unwrap());
    let upstream = Serve::start_with(dirs[0].path(), &["--chunk-max=64KiB"]);
    let serve = gateway(dirs[1].path(), upstream.host(), &[]);
    let podman = Podman::at(store.path().to_owned());
    let archive = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/docker-archive/podman-save.tar");
    let loaded = podman.load(Path::new(archive)).unwrap();
    let image = loaded.trim().rsplit(' ').next().unwrap();
    podman.push(image, &format!("{}/a/demo:1", serve.host())).unwrap();
    let raw = |host: &str| skopeo::raw_manifest(&format!("{host}/a/demo:1")).unwrap();
    assert_eq!(raw(serve.host()), raw(upstream.host()));
    let there = ReadBack::of(&format!("{}/a/demo:1", upstream.host())).unwrap();
    assert!(there.contents(&there.manifest).unwrap().layers.iter().all(Option::is_some));
    // And back, by the gateway.
    let pulled = podman.pull(&format!("{}/a/demo:1", serve.host())).unwrap();
    let manifest: Value = serde_json::from_slice(&raw(upstream.host())).unwrap();
    assert_eq!(manifest["config"]["digest"], format!("sha256:{pulled}"));
}

#[test]
fn our_own_push_hears_the_upstreams_digest() {
    let (dir, registry) = (tempfile::tempdir().unwrap(), Registry::honest());
    let serve = gateway(dir.path(), &registry.host(), &[]);
    let layout = Layout::index_with_referrer();
    let path = layout.path().display().to_string();
    let run = Longshore::new().run(["push", &path, &format!("{}/a/demo:1", serve.host()), "--tag=2"]);
    assert_eq!(run.pushed(), Ok(&*format!("{}/a/demo@{}", serve.host(), layout.root.digest)));
    for tag in ["1", "2"] {
        assert_eq!(registry.manifest("a/demo", tag).unwrap().1, layout.root.bytes);
    }
    for child in &layout.children {
        assert_eq!(registry.manifest("a/demo", &child.digest.to_string()).unwrap().1, child.bytes);
    }
}

#[test]
fn what_is_pushed_by_sha512_is_known_by_it_at_the_upstream() {
    let (dirs, layout) = ([(); 2].map(|()| tempfile::tempdir().unwrap()), Layout::of(&[1000]).by_sha512());
    let upstream = Serve::start(dirs[0].path());
    let serve = gateway(dirs[1].path(), upstream.host(), &[]);
    put_blobs(serve.host(), "demo", &layout);
    let digest = layout.root.digest.to_string();
    let reply = put_manifest(serve.host(), "demo", &format!("{digest}?tag=1&tag=2"), &layout);
    assert_eq!((reply.status, reply.header("OCI-Tag")), (201, Some("1, 2")), "{reply:?}");
    for host in [upstream.host(), serve.host()] {
        for reference in ["1", "2", &digest] {
            let there = send(host, "GET", &format!("/v2/demo/manifests/{reference}"), &[], b"");
            assert_eq!(there.header("Docker-Content-Digest"), Some(&*digest), "{reference}: {there:?}");
            assert_eq!(there.body, layout.root.bytes);
        }
    }
    // The upstream was asked for nothing else.
    let kept = fs_err::read(dirs[0].path().join("demo/index.json")).unwrap();
    assert!(!String::from_utf8(kept).unwrap().contains("sha256:"));
}

#[test]
fn a_body_limit_is_met_once_and_remembered() {
    let manners = Manners { body_limit: Some(MIB as u64), ..Manners::default() };
    let registry = Registry::start(Script::new().manners(manners));
    let dir = tempfile::tempdir().unwrap();
    let refused = || registry.log().iter().filter(|exchange| exchange.answered == Some(413)).count();
    for (seed, tag) in [(1, "1"), (2, "2")] {
        // Nobody remembers but the file.
        let serve = gateway(dir.path(), &registry.host(), &[]);
        let layout = Layout::of_layers(&[noise(seed, 3 * MIB)]);
        let before = refused();
        put_blobs(serve.host(), "demo", &layout);
        let reply = put_manifest(serve.host(), "demo", tag, &layout);
        assert_eq!(reply.status, 201, "{reply:?}");
        assert_eq!(reply.header("Docker-Content-Digest"), Some(&*layout.root.digest.to_string()));
        assert_eq!(registry.manifest("demo", tag).unwrap().1, layout.root.bytes);
        assert_eq!(refused() > before, seed == 1, "{}", refused());
    }
}

#[test]
fn what_the_upstream_has_is_not_sent_again() {
    let (dir, registry, layout) = (tempfile::tempdir().unwrap(), Registry::honest(), image());
    let path = layout.path().display().to_string();
    Longshore::new().run(["push", &path, &format!("{}/demo:1", registry.host())]).pushed().unwrap();
    let opened = registry.calls(Route::Open);
    let serve = gateway(dir.path(), &registry.host(), &[]);
    Longshore::new().run(["push", &path, &format!("{}/demo:2", serve.host())]).pushed().unwrap();
    assert_eq!(registry.manifest("demo", "2").unwrap().1, layout.root.bytes);
    assert_eq!(registry.calls(Route::Open), opened);
    assert_eq!(blobs_in(dir.path(), "demo"), [layout.root.digest.hex()]);
    // Of an index neither.
    let reply = send(serve.host(), "GET", &format!("/v2/demo/manifests/{}", layout.root.digest), &[], b"");
    assert_eq!((reply.status, reply.body), (200, layout.root.bytes.clone()));
    let index = json!({"schemaVersion": 2, "manifests": [layout.root.descriptor()]}).to_string();
    fs_err::remove_dir_all(dir.path().join("demo")).unwrap();
    let headers = [("Content-Type", "application/vnd.oci.image.index.v1+json")];
    let reply = send(serve.host(), "PUT", "/v2/demo/manifests/index", &headers, index.as_bytes());
    assert_eq!(reply.status, 201, "{reply:?}");
    assert_eq!(registry.manifest("demo", "index").unwrap().1, index.as_bytes());
}

#[test]
fn what_the_upstream_has_elsewhere_is_mounted_there() {
    let (registry, layout) = (Registry::honest(), Layout::of(&[1000]));
    layout.blobs.iter().for_each(|digest| drop(registry.seed("team/base", &layout.read(digest))));
    let dir = tempfile::tempdir().unwrap();
    let serve = gateway(dir.path(), &format!("{}/team", registry.host()), &[]);
    for digest in &layout.blobs {
        for (from, expected) in [("none", 202), ("base", 201)] {
            let path = format!("/v2/demo/blobs/uploads/?mount={digest}&from={from}");
            assert_eq!(send(serve.host(), "POST", &path, &[], b"").status, expected, "{from}");
        }
    }
    assert_eq!(put_manifest(serve.host(), "demo", "1", &layout).status, 201);
    assert_eq!(registry.manifest("team/demo", "1").unwrap().1, layout.root.bytes);
    assert_eq!((registry.calls(Route::Patch), registry.calls(Route::Commit)), (0, 0));
}

#[test]
fn what_nobody_has_is_named_and_nothing_is_tagged() {
    let (dir, registry, layout) = (tempfile::tempdir().unwrap(), Registry::honest(), image());
    let serve = gateway(dir.path(), &registry.host(), &[]);
    let reply = put_manifest(serve.host(), "demo", "1", &layout);
    assert!(reply.status == 404 && reply.text().contains("MANIFEST_BLOB_UNKNOWN"), "{reply:?}");
    assert!(layout.blobs.iter().any(|blob| reply.text().contains(&blob.to_string())), "{reply:?}");
    let child = json!({"schemaVersion": 2, "manifests": [layout.root.descriptor()]}).to_string();
    let headers = [("Content-Type", "application/vnd.oci.image.index.v1+json")];
    let reply = send(serve.host(), "PUT", "/v2/demo/manifests/1", &headers, child.as_bytes());
    assert!(reply.status == 404 && reply.text().contains(&layout.root.digest.to_string()), "{reply:?}");
    // Others are wrong by themselves.
    let reply = send(serve.host(), "PUT", "/v2/demo/manifests/1", &headers, b"{}");
    assert_eq!(reply.status, 400, "{reply:?}");
    assert!(registry.tags("demo").is_empty() && tags_in(dir.path(), "demo").is_empty());
}

#[test]
fn an_upstream_that_is_down_is_said_and_what_is_here_stands_in_for_it() {
    let (dir, layout) = (tempfile::tempdir().unwrap(), image());
    let mut registry = DockerRegistry::start();
    let serve = gateway(dir.path(), registry.host(), &[]);
    put_blobs(serve.host(), "demo", &layout);
    assert_eq!(put_manifest(serve.host(), "demo", "1", &layout).status, 201);
    registry.kill();

    let other = Layout::of(&[1000]);
    put_blobs(serve.host(), "demo", &other);
    let reply = put_manifest(serve.host(), "demo", "1", &other);
    assert!(reply.status == 502 && reply.text().contains("cannot be reached"), "{reply:?}");
    assert_eq!(tags_in(dir.path(), "demo"), ["1"]);
    for reference in ["1".to_owned(), layout.root.digest.to_string()] {
        for method in ["GET", "HEAD"] {
            let reply = send(serve.host(), method, &format!("/v2/demo/manifests/{reference}"), &[], b"");
            let digest = layout.root.digest.to_string();
            assert_eq!((reply.status, reply.header("Docker-Content-Digest")), (200, Some(&*digest)));
        }
    }
    serve.stderr().find(|line| line.contains("the folder has to do").then_some(())).unwrap();
    // What is not here may well be there.
    assert_eq!(send(serve.host(), "GET", "/v2/demo/manifests/2", &[], b"").status, 502);
    assert_eq!(send(serve.host(), "GET", "/v2/demo/tags/list", &[], b"").status, 502);
    if !is_unavailable("skopeo") {
        // Its users see no more than the first line.
        let error = skopeo::push(&source(&other), &format!("{}/demo:3", serve.host())).unwrap_err();
        assert!(error.contains("502 Bad Gateway") && error.contains("cannot be reached"), "{error}");
    }

    registry.restart();
    assert_eq!(put_manifest(serve.host(), "demo", "1", &other).status, 201);
    let reply = send(serve.host(), "GET", "/v2/demo/manifests/1", &[], b"");
    assert_eq!(reply.body, other.root.bytes);
}

/// `me:s3cret`, as files hold it.
const LOGIN: &str = "bWU6czNjcmV0";

#[test]
fn who_runs_the_gateway_has_to_log_in_and_clients_hear_no_more_than_that() {
    let auth = Auth::Basic { user: "me", password: "s3cret" };
    let registry = Registry::start(Script::new().manners(Manners { auth, ..Manners::default() }));
    let (dir, layout) = (tempfile::tempdir().unwrap(), Layout::of(&[1000]));
    let wrong = json!({"auths": {registry.host(): {"auth": "bWU6dGhlb3RoZXI="}}}).to_string();
    let right = json!({"auths": {registry.host(): {"auth": LOGIN}}}).to_string();
    for (file, expected) in [("{}".to_owned(), 403), (wrong, 403), (right, 201)] {
        let place = dir.path().join("auth.json");
        fs_err::write(&place, file).unwrap();
        let serve =
            gateway(dir.path(), &registry.host(), &[&format!("--authfile={}", place.display()), "-vv"]);
        put_blobs(serve.host(), "demo", &layout);
        let reply = put_manifest(serve.host(), "demo", "1", &layout);
        assert_eq!(reply.status, expected, "{reply:?}");
        assert_eq!(tags_in(dir.path(), "demo").len(), usize::from(expected == 201));
        let text = reply.text();
        if expected != 201 {
            assert!(text.contains(&format!("longshore login {}", registry.host())), "{text}");
            assert!(!text.contains("auth.json") && !text.contains("`me`"), "{text}");
            assert_eq!(reply.header("WWW-Authenticate"), None);
            let tag = send(serve.host(), "GET", "/v2/demo/manifests/1", &[], b"");
            assert_eq!((tag.status, tag.header("WWW-Authenticate")), (403, None), "{tag:?}");
        }
        let stderr = serve.stderr();
        serve.kill();
        for secret in ["s3cret", "theother", LOGIN, "bWU6dGhlb3RoZXI="] {
            assert!(!text.contains(secret) && stderr.all().iter().all(|line| !line.contains(secret)));
        }
    }
}

#[test]
fn who_runs_the_gateway_may_log_in_while_it_runs() {
    let auth = Auth::Bearer { user: "me", password: "s3cret", expires_in: None };
    let registry = Registry::start(Script::new().manners(Manners { auth, ..Manners::default() }));
    let (dir, layout) = (tempfile::tempdir().unwrap(), Layout::of(&[1000]));
    let file = dir.path().join("auth.json");
    let option = format!("--authfile={}", file.display());
    let serve = gateway(dir.path(), &registry.host(), &[&option]);
    put_blobs(serve.host(), "demo", &layout);
    assert_eq!(put_manifest(serve.host(), "demo", "1", &layout).status, 403);
    fs_err::write(&file, json!({"auths": {registry.host(): {"auth": LOGIN}}}).to_string()).unwrap();
    assert_eq!(put_manifest(serve.host(), "demo", "1", &layout).status, 201);
    assert_eq!(registry.manifest("demo", "1").unwrap().1, layout.root.bytes);
}

#[test]
fn a_login_that_led_nowhere_is_not_asked_for_for_ever() {
    for realm in ["http://127.0.0.1:1/token", "http://other.example/token"] {
        let challenge = format!("Bearer realm=\"{realm}\"");
        let lost = Fault::status(401).header("WWW-Authenticate", &challenge);
        let registry = Registry::start(Script::new().on(Route::ManifestGet, 1, lost));
        let dir = tempfile::tempdir().unwrap();
        let serve = gateway(dir.path(), &registry.host(), &[]);
        let ask = || send(serve.host(), "GET", "/v2/demo/manifests/1", &[], b"").status;
        assert_eq!((ask(), ask()), (502, 404), "{realm}");
    }
}

#[test]
fn a_refusal_comes_with_its_status_and_words() {
    let (dir, layout) = (tempfile::tempdir().unwrap(), Layout::of(&[1000]));
    let words = r#"{"errors":[{"code":"NAME_UNKNOWN","message":"there is no such project"}]}"#;
    for (route, upstream, code, expected) in [
        (Route::Open, 403, "NAME_UNKNOWN", 403),
        (Route::Open, 404, "NAME_UNKNOWN", 404),
        (Route::ManifestPut, 400, "NAME_UNKNOWN", 400),
        (Route::ManifestPut, 413, "NAME_UNKNOWN", 413),
        (Route::ManifestPut, 429, "NAME_UNKNOWN", 429),
        (Route::ManifestPut, 501, "NAME_UNKNOWN", 502),
        (Route::ManifestPut, 503, "UNAVAILABLE", 502),
    ] {
        let fault = Fault::status(upstream).body("application/json", words);
        let registry = Registry::start(Script::new().always(route, fault));
        let serve = gateway(dir.path(), &registry.host(), &[]);
        put_blobs(serve.host(), "demo", &layout);
        let reply = put_manifest(serve.host(), "demo", "1", &layout);
        assert_eq!(reply.status, expected, "{upstream} {reply:?}");
        assert!(
            reply.text().contains("there is no such project") && reply.text().contains(code),
            "{reply:?}"
        );
        assert!(tags_in(dir.path(), "demo").is_empty());
    }
    // A HEAD has no words, and to wait is asked for by status alone.
    let tomorrow = Fault::status(429).header("Retry-After", "86400");
    let registry = Registry::start(Script::new().always(Route::ManifestHead, tomorrow));
    let serve = gateway(dir.path(), &registry.host(), &[]);
    put_blobs(serve.host(), "demo", &layout);
    let reply = put_manifest(serve.host(), "demo", "1", &layout);
    assert!(reply.status == 429 && reply.text().contains("TOOMANYREQUESTS"), "{reply:?}");
    assert_eq!(reply.header("Retry-After"), Some("86400"), "{reply:?}");
}

#[test]
fn what_is_not_here_is_pulled_through_and_not_kept() {
    let (dir, registry, layout) = (tempfile::tempdir().unwrap(), DockerRegistry::start(), image());
    let path = layout.path().display().to_string();
    let there = format!("{}/mirror/demo", registry.host());
    Longshore::new().run(["push", &path, &format!("{there}:1")]).pushed().unwrap();
    let serve = gateway(dir.path(), &format!("{}/mirror", registry.host()), &[]);
    let ask = |method, path: &str, headers: &[_]| {
        send(serve.host(), method, &format!("/v2/demo/{path}"), headers, b"")
    };
    let digest = layout.root.digest.to_string();
    for reference in ["1", &digest] {
        let path = format!("manifests/{reference}");
        let (whole, head) = (ask("GET", &path, &[]), ask("HEAD", &path, &[]));
        let any = ask("GET", &path, &[("Accept", "*/*")]);
        assert_eq!((&whole.body, &any.body), (&layout.root.bytes, &layout.root.bytes));
        for reply in [&whole, &head, &any] {
            let headers = ["Docker-Content-Digest", "Content-Type"].map(|name| reply.header(name));
            assert_eq!((reply.status, headers), (200, [Some(&*digest), Some(layout.root.media_type)]));
        }
    }
    let blob = format!("blobs/{}", layout.blobs[0]);
    let bytes = layout.read(&layout.blobs[0]);
    assert_eq!(ask("GET", &blob, &[]).body, bytes);
    let size = bytes.len().to_string();
    assert_eq!(ask("HEAD", &blob, &[]).header("Content-Length"), Some(&*size));
    let part = ask("GET", &blob, &[("Range", "bytes=100-199")]);
    assert_eq!((part.status, &*part.body), (206, &bytes[100..200]));
    assert!(blobs_in(dir.path(), "demo").is_empty());

    let none = Digest::of(b"none");
    for (path, code) in [
        ("manifests/none".to_owned(), "MANIFEST_UNKNOWN"),
        (format!("manifests/{none}"), "MANIFEST_UNKNOWN"),
        (format!("blobs/{none}"), "BLOB_UNKNOWN"),
    ] {
        let reply = ask("GET", &path, &[]);
        assert!(reply.status == 404 && reply.text().contains(code), "{path} {reply:?}");
    }
    for path in [blob, format!("manifests/{digest}"), "manifests/1".to_owned()] {
        let refused = ask("DELETE", &path, &[]);
        assert_eq!(refused.status, 405, "{path}");
        assert!(!refused.header("Allow").unwrap().contains("DELETE"), "{path}");
    }
    if !is_unavailable("skopeo") {
        let copy = tempfile::tempdir().unwrap();
        let to = format!("dir:{}", copy.path().join("it").display());
        skopeo::copy(&format!("{}/demo:1", serve.host()), &to, &[]).unwrap();
        assert_eq!(fs_err::read(copy.path().join("it/manifest.json")).unwrap(), layout.root.bytes);
    }
}

#[test]
fn what_comes_encoded_says_so() {
    let encoded = Fault::Header("Content-Encoding", "zstd");
    let (dir, registry) =
        (tempfile::tempdir().unwrap(), Registry::start(Script::new().always(Route::BlobGet, encoded)));
    let digest = registry.seed("demo", b"encoded");
    let serve = gateway(dir.path(), &registry.host(), &[]);
    let reply = send(serve.host(), "GET", &format!("/v2/demo/blobs/{digest}"), &[], b"");
    assert_eq!((reply.header("Content-Encoding"), &*reply.body), (Some("zstd"), &b"encoded"[..]));
}

#[test]
fn what_is_there_is_told_by_200_and_its_size() {
    let no_content = Script::new().always(Route::BlobHead, Fault::status(204));
    let (dir, registry) = (tempfile::tempdir().unwrap(), Registry::start(no_content));
    let digest = registry.seed("demo", b"there");
    let serve = gateway(dir.path(), &registry.host(), &[]);
    let ask = |digest: &Digest| send(serve.host(), "HEAD", &format!("/v2/demo/blobs/{digest}"), &[], b"");
    let there = ask(&digest);
    assert_eq!((there.status, there.header("Content-Length")), (200, Some("5")), "{there:?}");
    assert_eq!(ask(&Digest::of(b"none")).status, 404);
}

#[test]
fn a_page_of_tags_leads_to_the_next_one_here() {
    let (dirs, layout) = ([(); 2].map(|()| tempfile::tempdir().unwrap()), Layout::of(&[1000]));
    let upstream = Serve::start(dirs[0].path());
    let serve = gateway(dirs[1].path(), &format!("{}/mirror/of", upstream.host()), &[]);
    put_blobs(serve.host(), "demo", &layout);
    assert_eq!(put_manifest(serve.host(), "demo", "1?tag=2&tag=3", &layout).status, 201);
    let page = send(serve.host(), "GET", "/v2/demo/tags/list?n=2", &[], b"");
    assert_eq!(page.text(), r#"{"name":"demo","tags":["1","2"]}"#);
    let link = page.header("Link").unwrap();
    let (next, rest) = link.strip_prefix('<').and_then(|link| link.split_once('>')).unwrap();
    assert!(next.starts_with("/v2/demo/tags/list?") && rest == "; rel=\"next\"", "{link}");
    assert!(send(serve.host(), "GET", next, &[], b"").text().contains(r#""tags":["3"]"#));
}

#[test]
fn a_tag_that_has_moved_at_the_upstream_has_moved_here() {
    let (dir, registry) = (tempfile::tempdir().unwrap(), Registry::honest());
    let (one, two) = (Layout::of(&[1000]), Layout::of(&[2000]));
    let serve = gateway(dir.path(), &registry.host(), &[]);
    put_blobs(serve.host(), "demo", &one);
    assert_eq!(put_manifest(serve.host(), "demo", "1", &one).status, 201);
    let path = two.path().display().to_string();
    Longshore::new().run(["push", &path, &format!("{}/demo:1", registry.host())]).pushed().unwrap();
    assert_eq!(send(serve.host(), "GET", "/v2/demo/manifests/1", &[], b"").body, two.root.bytes);
}

#[test]
fn referrers_are_the_upstreams() {
    let (dir, registry) = (tempfile::tempdir().unwrap(), Registry::honest());
    let serve = gateway(dir.path(), &registry.host(), &[]);
    let subject = Layout::of(&[1000]);
    put_blobs(serve.host(), "demo", &subject);
    assert_eq!(put_manifest(serve.host(), "demo", "1", &subject).status, 201);
    let about = Layout::referrer(b"about it", &subject.root);
    put_blobs(serve.host(), "demo", &about);
    let reply = put_manifest(serve.host(), "demo", &about.root.digest.to_string(), &about);
    let digest = subject.root.digest.to_string();
    assert_eq!((reply.status, reply.header("OCI-Subject")), (201, Some(&*digest)), "{reply:?}");
    let list = send(serve.host(), "GET", &format!("/v2/demo/referrers/{digest}"), &[], b"");
    assert!(list.status == 200 && list.text().contains(&about.root.digest.to_string()), "{list:?}");
    assert_eq!(registry.calls(Route::Referrers), 1);
}

#[test]
fn referrers_that_come_at_once_are_all_in_the_list_of_an_upstream_that_keeps_none() {
    let manners = Manners { subject: false, latency: Duration::from_millis(20), ..Manners::default() };
    let (dir, registry) = (tempfile::tempdir().unwrap(), Registry::start(Script::new().manners(manners)));
    let serve = gateway(dir.path(), &registry.host(), &[]);
    let subject = Layout::of(&[1000]);
    put_blobs(serve.host(), "demo", &subject);
    assert_eq!(put_manifest(serve.host(), "demo", "1", &subject).status, 201);
    let all: Vec<_> = (0..6_u8).map(|n| Layout::referrer(&[n], &subject.root)).collect();
    thread::scope(|scope| {
        for about in &all {
            scope.spawn(|| {
                put_blobs(serve.host(), "demo", about);
                let digest = about.root.digest.to_string();
                assert_eq!(put_manifest(serve.host(), "demo", &digest, about).status, 201);
            });
        }
    });
    let (_, list) = registry.manifest("demo", &subject.root.digest.to_string().replace(':', "-")).unwrap();
    let list = String::from_utf8(list).unwrap();
    for about in &all {
        assert!(list.contains(&about.root.digest.to_string()), "{list}");
    }
}

#[test]
fn a_manifest_may_be_about_what_it_names() {
    let (dir, registry) = (tempfile::tempdir().unwrap(), Registry::honest());
    let serve = gateway(dir.path(), &registry.host(), &[]);
    let about = Layout::of(&[1000]).altered(|manifest| manifest["subject"] = manifest["layers"][0].clone());
    put_blobs(serve.host(), "demo", &about);
    assert_eq!(put_manifest(serve.host(), "demo", "1", &about).status, 201);
}

#[test]
fn blobs_leave_before_the_manifest_has_come() {
    let (dir, registry, layout) = (tempfile::tempdir().unwrap(), Registry::honest(), image());
    let serve = gateway(dir.path(), &registry.host(), &[]);
    put_blobs(serve.host(), "demo", &layout);
    registry.wait_for(Route::Commit, layout.blobs.len());
    // A whole one in one request as well.
    let target = format!("/v2/demo/blobs/uploads/?digest={}", Digest::of(b"whole"));
    assert_eq!(send(serve.host(), "POST", &target, &[], b"whole").status, 201);
    registry.wait_for(Route::Commit, layout.blobs.len() + 1);
    assert_eq!(put_manifest(serve.host(), "demo", "1", &layout).status, 201);
    assert_eq!(registry.calls(Route::Commit), layout.blobs.len() + 1);
    assert_eq!(registry.manifest("demo", "1").unwrap().1, layout.root.bytes);
}

#[test]
fn who_asks_again_waits_for_what_was_begun() {
    let held = Fault::Await { route: Route::Other, calls: usize::MAX };
    let registry = Registry::start(Script::new().on(Route::ManifestPut, 1, held));
    let (dir, layout) = (tempfile::tempdir().unwrap(), Layout::of(&[1000]));
    let serve = gateway(dir.path(), &registry.host(), &[]);
    put_blobs(serve.host(), "demo", &layout);
    let again = thread::scope(|scope| {
        let put = || put_manifest(serve.host(), "demo", "1", &layout).status;
        let first = scope.spawn(put);
        registry.wait_for(Route::ManifestPut, 1);
        let again = scope.spawn(put);
        registry.release();
        [first, again].map(|put| put.join().unwrap())
    });
    assert_eq!((again, registry.calls(Route::ManifestPut)), ([201, 201], 1));
}

#[test]
fn a_push_goes_on_when_its_client_has_gone() {
    let held = Fault::Await { route: Route::Other, calls: usize::MAX };
    let registry = Registry::start(Script::new().on(Route::ManifestPut, 1, held));
    let (dir, layout) = (tempfile::tempdir().unwrap(), Layout::of(&[1000]));
    let serve = gateway(dir.path(), &registry.host(), &[]);
    put_blobs(serve.host(), "demo", &layout);
    let mut client = Raw::connect(serve.host());
    let length = layout.root.bytes.len().to_string();
    let headers = [("Content-Type", layout.root.media_type), ("Content-Length", &*length)];
    client.write_head("PUT", "/v2/demo/manifests/1", &headers).unwrap();
    client.write(&layout.root.bytes).unwrap();
    registry.wait_for(Route::ManifestPut, 1);
    assert!(tags_in(dir.path(), "demo").is_empty());
    drop(client);
    registry.release();
    until("the tag", || tags_in(dir.path(), "demo") == ["1"]);
    assert_eq!(registry.manifest("demo", "1").unwrap().1, layout.root.bytes);
}

/// Asks under a name.
fn called(serve: &Serve, host: &str) -> Reply {
    let mut raw = Raw::connect(serve.host());
    raw.write(format!("GET /v2/ HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
    raw.reply("GET").unwrap()
}

#[test]
fn a_name_that_nobody_has_given_it_is_refused() {
    let (dir, registry) = (tempfile::tempdir().unwrap(), Registry::honest());
    let gateway = gateway(dir.path(), &registry.host(), &["--name=registry.internal"]);
    let plain = Serve::start(dir.path());
    for serve in [&gateway, &plain] {
        for host in ["localhost:5000", serve.host(), "[::1]:5000"] {
            assert_eq!(called(serve, host).status, 200, "{host}");
        }
        let reply = called(serve, "evil.example:5000");
        assert!(reply.status == 421 && reply.text().contains("--name"), "{reply:?}");
    }
    assert_eq!(called(&gateway, "Registry.internal:5000").status, 200);
    assert_eq!(called(&plain, "registry.internal").status, 421);
    // A page of theirs that calls us by our own name.
    for origin in ["https://evil.example", "null"] {
        let open = send(gateway.host(), "POST", "/v2/demo/blobs/uploads/", &[("Origin", origin)], b"");
        assert_eq!(open.status, 403, "{open:?}");
    }
    // Whoever serves a network serves whatever names it has there.
    let open = Serve::start_at(dir.path(), "0.0.0.0:0");
    assert_eq!(called(&open, "registry.example.com").status, 200);
}

#[test]
fn a_gateway_asks_for_a_password_that_it_has_made_up() {
    let (dir, home, registry) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), Registry::honest());
    let upstream = format!("--upstream={}", registry.host());
    let told = Serve::start_with(dir.path(), &[&upstream]);
    let find = |line: &str| {
        Some(line.split_once("as `longshore`, with the password `")?.1.split_once('`')?.0.to_owned())
    };
    let password = told.stderr().find(find).unwrap();
    assert!(password.len() >= 22, "{password}");
    let login =
        told.stderr().find(|line| line.trim().starts_with("podman login").then(|| line.trim().to_owned()));
    let login = login.unwrap();
    assert!(login.contains("--password-stdin") && !login.contains(&password), "{login}");

    let file = home.path().join("password");
    let option = format!("--password-file={}", file.display());
    let kept = Serve::start_with(dir.path(), &[&upstream, &option, "-q"]);
    assert_eq!(fs_err::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let other = fs_err::read_to_string(&file).unwrap();
    assert_ne!(other.trim_end(), password);
    for (serve, password) in [(&told, password.as_str()), (&kept, other.trim_end())] {
        let basic = |text: String| format!("Basic {}", BASE64_STANDARD.encode(text));
        let right = basic(format!("longshore:{password}"));
        for (path, method) in [("/v2/", "GET"), ("/v2/a/blobs/uploads/", "POST"), ("/v2/a/tags/list", "GET")]
        {
            assert_eq!(send(serve.host(), method, path, &[], b"").status, 401, "{path}");
            let wrong = basic("longshore:longshore".to_owned());
            assert_eq!(send(serve.host(), method, path, &[("Authorization", &wrong)], b"").status, 401);
        }
        assert_eq!(registry.log().len(), 0);
        assert_eq!(send(serve.host(), "GET", "/v2/", &[("Authorization", &right)], b"").status, 200);
    }
    if !is_unavailable("podman") {
        // As it was told, with the password where the reader pastes it.
        let auth_file = home.path().join("auth.json");
        let command = format!("echo {password} | {login}");
        let mut shell = Command::new("bash");
        tool::output(shell.args(["-c", &command]).env("REGISTRY_AUTH_FILE", &auth_file)).unwrap();
        let layout = image();
        let options = [format!("--authfile={}", auth_file.display())];
        let to = format!("{}/demo:1", told.host());
        assert!(skopeo::push(&source(&layout), &to).is_err());
        skopeo::push_with(&source(&layout), &to, &[&options[0]]).unwrap();
        assert_eq!(registry.manifest("demo", "1").unwrap().1, layout.root.bytes);
    }
    // One that does not get to listen leaves the other's password alone.
    let listen = format!("--listen={}", kept.host());
    let elsewhere = home.path().join("elsewhere").display().to_string();
    let run = Longshore::new().run(["serve", &listen, &upstream, &option, &elsewhere]);
    assert!(run.stderr.contains("listening on"), "{}", run.stderr);
    assert_eq!(fs_err::read_to_string(&file).unwrap(), other);
    let stderr = kept.stderr();
    kept.kill();
    assert!(stderr.all().iter().all(|line| !line.contains(other.trim_end())));
}

#[test]
fn who_would_lend_our_credentials_without_a_word_is_asked_back() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    fs_err::write(&users, format!("me:{}\n", bcrypt::hash("secret", 4).unwrap())).unwrap();
    let users = format!("--htpasswd={}", users.display());
    for (arguments, words) in [
        (&["--read-only"][..], "--allow-anonymous"),
        (&["--allow-anonymous", &users], "--read-only"),
        (&["--quiet"], "--password-file"),
        (&["--progress=json"], "--password-file"),
        (&["--password-file=p", &users], "--htpasswd"),
    ] {
        let stderr = Serve::fail(dir.path(), &[&["--upstream=127.0.0.1:1"], arguments].concat());
        assert!(stderr.contains(words), "{arguments:?}: {stderr}");
    }
    for arguments in [["--allow-anonymous"], ["--password-file=p"]] {
        assert!(Serve::fail(dir.path(), &arguments).contains("--upstream"), "{arguments:?}");
    }
    for (listen, own) in
        [("127.0.0.1", "localhost"), ("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("[::]", "[::1]")]
    {
        let (listen, own) = (format!("--listen={listen}:5999"), format!("--upstream={own}:5999/a"));
        let stderr = Longshore::new().run(["serve", &listen, "x", &own, "--allow-anonymous"]).stderr;
        assert!(stderr.contains("its own upstream"), "{listen} {own} {stderr}");
    }
    assert!(Serve::fail(dir.path(), &["--name=registry:5000"]).contains("without a port"));
    let bad = Serve::fail(dir.path(), &["--upstream=127.0.0.1:1/demo:1", "--allow-anonymous"]);
    assert!(bad.contains("is an image, no registry"), "{bad}");
    assert!(!PathBuf::from("p").exists());

    // Users of a file log in, or push only.
    let registry = Registry::honest();
    let upstream = format!("--upstream={}", registry.host());
    let login = ("Authorization", "Basic bWU6c2VjcmV0");
    let (asks, lends) =
        (&[&*upstream, &users][..], &[&*upstream, &users, "--read-only", "--allow-anonymous"]);
    for (arguments, anonymous) in [(asks, 401), (lends, 404)] {
        let serve = Serve::start_with(dir.path(), arguments);
        assert_eq!(send(serve.host(), "GET", "/v2/a/manifests/1", &[], b"").status, anonymous);
        assert_eq!(send(serve.host(), "GET", "/v2/a/manifests/1", &[login], b"").status, 404);
        assert_eq!(send(serve.host(), "POST", "/v2/a/blobs/uploads/", &[], b"").status, 401);
        assert_eq!(send(serve.host(), "POST", "/v2/a/blobs/uploads/", &[login], b"").status, 202);
    }
}
