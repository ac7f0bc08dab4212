//! What a user sees of each answer that stops a push, or that does not: status, cause and words, on a terminal.

use std::thread;

use serde_json::json;

use super::{CHUNK, REPOSITORY, image::Layout, sessions::with_configs};
use crate::support::{
    longshore::{Longshore, Run},
    registry::{Auth, Fault, Manners, Registry, Route, Script},
};

/// Two chunks.
const LARGE: usize = CHUNK as usize + 1000;

/// Pushes one layer to a registry with this script, and returns the exit code and all that was said of trouble.
fn said(script: Script) -> String {
    said_of(&Layout::of(&[LARGE]), script)
}

/// The same with this image.
fn said_of(layout: &Layout, script: Script) -> String {
    said_by(&Longshore::new(), layout, &with_configs(layout, script))
}

/// The same to somebody who has logged in with this password.
fn said_to(password: &str, script: Script) -> String {
    let (user, layout) = (Longshore::new(), Layout::of(&[LARGE]));
    let registry = with_configs(&layout, script);
    let auths = json!({ "auths": { registry.host(): { "username": "me", "password": password } } });
    fs_err::create_dir(user.home().join(".docker")).unwrap();
    fs_err::write(user.home().join(".docker/config.json"), auths.to_string()).unwrap();
    let said = said_by(&user, &layout, &registry);
    assert!(!said.contains(password), "{said}");
    said
}

fn said_by(user: &Longshore, layout: &Layout, registry: &Registry) -> String {
    let destination = format!("{}/{REPOSITORY}:1", registry.host());
    let source = layout.path().to_str().unwrap();
    let chunk = if layout.read(&layout.blobs[0]).len() > LARGE { "8MiB" } else { "64KiB" };
    let run = user.run(["push", source, &destination, "--quiet", "--retries=1", "--chunk-size", chunk]);
    assert_eq!(run.code == Some(0), registry.tags(REPOSITORY) == ["1"], "{run:?}");
    let said = seen(&run);
    said.replace(&registry.host(), "REGISTRY").replace(&user.home().display().to_string(), "HOME")
}

/// Returns what a user sees of a run. How a kernel puts a reset depends on when it hears of it.
fn seen(run: &Run) -> String {
    assert!(!run.stderr.contains(['<', '\u{1b}']), "{run:?}");
    let mut seen = String::new();
    for line in run.stderr.lines() {
        match line.split_once("the connection broke").and_then(|(_, rest)| rest.split_once(": ")) {
            Some((_, reason)) => seen.push_str(&line.replace(reason, "REASON")),
            None => seen.push_str(line),
        }
        seen.push('\n');
    }
    let code = run.code.expect("it ended by itself");
    format!("{seen}exit code {code}\n")
}

fn always(route: Route, fault: Fault) -> Script {
    Script::new().always(route, fault)
}

/// A refusal in the words of the distribution specification.
fn refusal(status: u16, code: &str, message: &str) -> Fault {
    let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#);
    Fault::status(status).body("application/json", &body)
}

/// A page as nginx and others make it.
fn page(status: u16, title: &str, server: &str) -> Fault {
    let html =
        format!("<html>\r\n<head><title>{title}</title></head>\r\n<body><h1>{title}</h1></body></html>");
    Fault::status(status).body("text/html", &html).header("Server", server)
}

/// Tried again as soon as may be.
fn at_once(status: u16) -> Fault {
    Fault::status(status).header("Retry-After", "0")
}

fn basic() -> Script {
    let auth = Auth::Basic { user: "me", password: "s3cret" };
    Script::new().manners(Manners { auth, ..Manners::default() })
}

fn bearer() -> Script {
    let auth = Auth::Bearer { user: "me", password: "s3cret", expires_in: Some(300) };
    Script::new().manners(Manners { auth, ..Manners::default() })
}

#[test]
fn status_400_bytes_that_were_put_together_wrongly() {
    insta::assert_snapshot!(said(always(Route::Commit, Fault::DigestMismatch)), @r"
    error: uploading `sha256:bdb3287c2bed22cb1190f0a77cd64cd0f60021a933b1eae8a15e320e88ce3159`
      caused by: the registry assembled different bytes than we sent (66536 bytes in one piece)
      caused by: sending the blob in one piece of 66536 bytes
      caused by: `PUT http://REGISTRY/v2/team/demo/blobs/uploads/…` was answered 400 Bad Request: DIGEST_INVALID: provided digest did not match uploaded content
    exit code 5
    ");
}

#[test]
fn status_400_a_chunk_that_is_too_small() {
    insta::assert_snapshot!(said(always(Route::Commit, refusal(400, "LAYER_PART_TOO_SMALL", "Layer part is too small"))), @r"
    error: uploading `sha256:bdb3287c2bed22cb1190f0a77cd64cd0f60021a933b1eae8a15e320e88ce3159`
      caused by: completing the upload
      caused by: `PUT http://REGISTRY/v2/team/demo/blobs/uploads/…` was answered 400 Bad Request: LAYER_PART_TOO_SMALL: Layer part is too small
    hint: the registry wants larger chunks: try a larger `--chunk-size`
    exit code 5
    ");
}

#[test]
fn status_400_a_length_that_is_not_liked() {
    insta::assert_snapshot!(said(always(Route::Patch, refusal(400, "CONTENT_LENGTH_INVALID", "content length is invalid"))), @r"
    warning: going on with the blob in one piece: sending bytes 0 to 65536: `PATCH http://REGISTRY/v2/team/demo/blobs/uploads/…` was answered 400 Bad Request: CONTENT_LENGTH_INVALID: content length is invalid
    exit code 0
    ");
}

#[test]
fn status_400_a_manifest_without_a_media_type() {
    insta::assert_snapshot!(said_of(&Layout::without_media_type(), always(Route::ManifestPut, refusal(400, "MANIFEST_INVALID", "manifest invalid"))), @r"
    error: pushing the manifest to `REGISTRY/team/demo:1`
      caused by: `PUT http://REGISTRY/v2/team/demo/manifests/1` was answered 400 Bad Request: MANIFEST_INVALID: manifest invalid
    hint: the manifest has no `mediaType`, which some registries insist on: `--format oci` adds it, and so changes the digest
    exit code 5
    ");
    // It may mean something else, in the words of Trow and of Quay.
    for words in ["Manifest invalid: Blob asset not found: sha256:0", "Unknown blob `sha256:0`"] {
        let missing = always(Route::ManifestPut, refusal(400, "MANIFEST_INVALID", words));
        let said = said_of(&Layout::without_media_type(), missing);
        assert!(said.contains("looking again for what is missing") && !said.contains("--format"), "{said}");
    }
    // A registry that says nothing may mean the same.
    let silent = always(Route::ManifestPut, Fault::status(400));
    assert!(said_of(&Layout::without_media_type(), silent).contains("`--format oci` adds it"));
    // And so it does.
    let (registry, layout) = (Registry::honest(), Layout::without_media_type());
    let destination = format!("{}/{REPOSITORY}:1", registry.host());
    Longshore::new()
        .run(["push", layout.path().to_str().unwrap(), &destination, "--format=oci"])
        .pushed()
        .unwrap();
    let manifest = String::from_utf8(registry.manifest(REPOSITORY, "1").unwrap().1).unwrap();
    let stated = r#""mediaType":"application/vnd.oci.image.manifest.v1+json","#;
    assert_eq!(manifest.replacen(stated, "", 1).as_bytes(), layout.root.bytes);
}

#[test]
fn status_401_nobody() {
    insta::assert_snapshot!(said(bearer()), @r"
    error: looking for `REGISTRY/team/demo:1`
      caused by: getting a token
      caused by: `GET http://REGISTRY/token` was answered 401 Unauthorized
    hint: no credentials for `REGISTRY`; looked in: `HOME/run/containers/auth.json` (missing), `HOME/config/containers/auth.json` (missing), `HOME/.docker/config.json` (missing), `HOME/.dockercfg` (missing)
    hint: log in by `longshore login REGISTRY`
    exit code 4
    ");
}

#[test]
fn status_401_a_wrong_password() {
    insta::assert_snapshot!(said_to("wrong", bearer()), @r"
    error: looking for `REGISTRY/team/demo:1`
      caused by: getting a token
      caused by: `GET http://REGISTRY/token` was answered 401 Unauthorized
    hint: the registry was shown user `me` from `HOME/.docker/config.json`
    hint: log in by `longshore login REGISTRY`
    exit code 4
    ");
}

#[test]
fn status_401_and_403_a_login_that_may_not_push() {
    insta::assert_snapshot!(said_to("s3cret", basic().always(Route::Open, refusal(403, "DENIED", "requested access to the resource is denied"))), @r"
    error: uploading `sha256:bdb3287c2bed22cb1190f0a77cd64cd0f60021a933b1eae8a15e320e88ce3159`
      caused by: opening an upload
      caused by: `POST http://REGISTRY/v2/team/demo/blobs/uploads/` was answered 403 Forbidden: DENIED: requested access to the resource is denied
    hint: the registry was shown user `me` from `HOME/.docker/config.json`
    hint: the registry knows this login, but does not let it push to `REGISTRY/team/demo`
    exit code 4
    ");
    // A token with fewer rights than were asked for is no refusal yet.
    insta::assert_snapshot!(said_to("s3cret", bearer().always(Route::Open, Fault::Unauthorized)), @r"
    error: uploading `sha256:bdb3287c2bed22cb1190f0a77cd64cd0f60021a933b1eae8a15e320e88ce3159`
      caused by: opening an upload
      caused by: `POST http://REGISTRY/v2/team/demo/blobs/uploads/` was answered 401 Unauthorized: UNAUTHORIZED: authentication required
    hint: the registry was shown user `me` from `HOME/.docker/config.json`
    hint: the registry knows this login, but does not let it push to `REGISTRY/team/demo`
    exit code 4
    ");
}

#[test]
fn a_login_is_said_to_be_known_where_it_was_answered() {
    let denied = || refusal(403, "DENIED", "no");
    let firewall = || page(403, "Blocked", "cloudflare");
    for (script, what) in [
        (basic().always(Route::Open, firewall()), "a proxy refuses, whatever the login may do"),
        (basic().always(Route::ManifestPut, denied()), "it was let push already"),
        (Script::new().always(Route::Open, denied()), "nobody wanted to see the login"),
    ] {
        let said = said_to("s3cret", script);
        assert!(said.ends_with("exit code 4\n") && !said.contains("knows this login"), "{what}: {said}");
    }
    // Nor is it the login that was answered where everybody is.
    let said = said(always(Route::Open, denied()));
    assert!(said.ends_with("exit code 4\n") && !said.contains("knows this login"), "{said}");
}

#[test]
fn status_403_the_page_of_a_firewall() {
    insta::assert_snapshot!(said(always(Route::Open, page(403, "Attention Required! | Cloudflare", "cloudflare").header("CF-Ray", "8c2f-FRA"))), @r"
    error: uploading `sha256:bdb3287c2bed22cb1190f0a77cd64cd0f60021a933b1eae8a15e320e88ce3159`
      caused by: opening an upload
      caused by: `POST http://REGISTRY/v2/team/demo/blobs/uploads/` was answered 403 Forbidden: Attention Required! | Cloudflare (by cloudflare, CF-Ray 8c2f-FRA)
    hint: it was a web page that refused: ask whoever runs what stands before the registry
    hint: no credentials for `REGISTRY`; looked in: `HOME/run/containers/auth.json` (missing), `HOME/config/containers/auth.json` (missing), `HOME/.docker/config.json` (missing), `HOME/.dockercfg` (missing)
    exit code 4
    ");
}

#[test]
fn status_404_no_such_repository() {
    insta::assert_snapshot!(said(always(Route::Open, refusal(404, "NAME_UNKNOWN", "The repository does not exist"))), @r"
    error: uploading `sha256:bdb3287c2bed22cb1190f0a77cd64cd0f60021a933b1eae8a15e320e88ce3159`
      caused by: opening an upload
      caused by: `POST http://REGISTRY/v2/team/demo/blobs/uploads/` was answered 404 Not Found: NAME_UNKNOWN: The repository does not exist
    hint: create the repository or project at the registry first
    exit code 5
    ");
}

#[test]
fn status_404_of_whoever_is_no_registry() {
    insta::assert_snapshot!(said(always(Route::Open, page(404, "404 Not Found", "nginx"))), @r"
    error: uploading `sha256:bdb3287c2bed22cb1190f0a77cd64cd0f60021a933b1eae8a15e320e88ce3159`
      caused by: opening an upload
      caused by: `POST http://REGISTRY/v2/team/demo/blobs/uploads/` was answered 404 Not Found (by nginx)
    hint: is a registry at this address? If so, create the repository or project there first
    exit code 5
    ");
}

#[test]
fn status_405_a_mirror_that_can_only_be_read() {
    insta::assert_snapshot!(said(always(Route::Open, refusal(405, "UNSUPPORTED", "The operation is unsupported."))), @r"
    error: uploading `sha256:bdb3287c2bed22cb1190f0a77cd64cd0f60021a933b1eae8a15e320e88ce3159`
      caused by: opening an upload
      caused by: `POST http://REGISTRY/v2/team/demo/blobs/uploads/` was answered 405 Method Not Allowed: UNSUPPORTED: The operation is unsupported.
    hint: the registry or a proxy does not accept pushes here
    exit code 5
    ");
    insta::assert_snapshot!(said(always(Route::ManifestPut, page(405, "405 Not Allowed", "nginx/1.22.1"))), @r"
    error: pushing the manifest to `REGISTRY/team/demo:1`
      caused by: `PUT http://REGISTRY/v2/team/demo/manifests/1` was answered 405 Not Allowed (by nginx/1.22.1)
    hint: the registry or a proxy does not accept pushes here
    exit code 5
    ");
}

#[test]
fn status_5xx_what_does_not_pass() {
    insta::assert_snapshot!(said(always(Route::Open, at_once(503))), @r"
    error: uploading `sha256:bdb3287c2bed22cb1190f0a77cd64cd0f60021a933b1eae8a15e320e88ce3159`
      caused by: giving up after 1 attempt without progress
      caused by: opening an upload
      caused by: `POST http://REGISTRY/v2/team/demo/blobs/uploads/` was answered 503 Service Unavailable
    exit code 6
    ");
    insta::assert_snapshot!(said(always(Route::Patch, page(502, "502 Bad Gateway", "nginx").header("Retry-After", "0"))), @r"
    error: uploading `sha256:bdb3287c2bed22cb1190f0a77cd64cd0f60021a933b1eae8a15e320e88ce3159`
      caused by: giving up after 1 attempt without progress
      caused by: sending bytes 0 to 65536
      caused by: `PATCH http://REGISTRY/v2/team/demo/blobs/uploads/…` was answered 502 Bad Gateway (by nginx)
    exit code 6
    ");
    insta::assert_snapshot!(said(always(Route::Commit, at_once(504))), @r"
    error: uploading `sha256:bdb3287c2bed22cb1190f0a77cd64cd0f60021a933b1eae8a15e320e88ce3159`
      caused by: giving up after 1 attempt without progress
      caused by: completing the upload
      caused by: `PUT http://REGISTRY/v2/team/demo/blobs/uploads/…` was answered 504 Gateway Timeout
    exit code 6
    ");
    insta::assert_snapshot!(said(always(Route::ManifestPut, at_once(500))), @r"
    warning: pushing the manifest to `REGISTRY/team/demo:1`: `PUT http://REGISTRY/v2/team/demo/manifests/1` was answered 500 Internal Server Error; trying again in 0.5 s
    error: pushing the manifest to `REGISTRY/team/demo:1`
      caused by: `PUT http://REGISTRY/v2/team/demo/manifests/1` was answered 500 Internal Server Error
    exit code 6
    ");
    let routes =
        [Route::ManifestHead, Route::BlobHead, Route::Open, Route::Patch, Route::Commit, Route::ManifestPut];
    // Most of the time is spent waiting.
    thread::scope(|scope| {
        for route in routes {
            scope.spawn(move || {
                for status in [408, 499, 500, 502, 503, 504, 520, 521, 522, 523, 524] {
                    let said = said(always(route, at_once(status)));
                    let told = said.contains(&format!("was answered {status}"));
                    assert!(told && said.ends_with("exit code 6\n"), "{said}");
                }
            });
        }
    });
}

#[test]
fn status_501_what_will_never_pass() {
    insta::assert_snapshot!(said(always(Route::Open, Fault::status(501))), @r"
    error: uploading `sha256:bdb3287c2bed22cb1190f0a77cd64cd0f60021a933b1eae8a15e320e88ce3159`
      caused by: opening an upload
      caused by: `POST http://REGISTRY/v2/team/demo/blobs/uploads/` was answered 501 Not Implemented
    exit code 5
    ");
}

#[test]
fn status_411_a_length_that_was_lost() {
    insta::assert_snapshot!(said(always(Route::ManifestPut, page(411, "411 Length Required", "nginx/1.22.1"))), @r"
    error: pushing the manifest to `REGISTRY/team/demo:1`
      caused by: `PUT http://REGISTRY/v2/team/demo/manifests/1` was answered 411 Length Required (by nginx/1.22.1)
    hint: longshore states every length: a proxy on the way to the registry has dropped it
    exit code 5
    ");
}

#[test]
fn status_413_a_body_that_is_too_large() {
    let nginx = || page(413, "413 Request Entity Too Large", "nginx/1.22.1");
    // What helps is done, and told.
    let once = Script::new().on(Route::Patch, 1, nginx());
    insta::assert_snapshot!(said_of(&Layout::of(&[10 << 20]), once), @r"
    warning: the registry (nginx/1.22.1) takes no body of 8 MiB; going on with chunks of 5 MiB
    exit code 0
    ");
    insta::assert_snapshot!(said(always(Route::Patch, nginx())), @r"
    error: uploading `sha256:bdb3287c2bed22cb1190f0a77cd64cd0f60021a933b1eae8a15e320e88ce3159`
      caused by: the registry, or a proxy before it, refuses even a body of 65536 bytes
      caused by: sending bytes 0 to 65536
      caused by: `PATCH http://REGISTRY/v2/team/demo/blobs/uploads/…` was answered 413 Request Entity Too Large (by nginx/1.22.1)
    hint: a proxy limits request bodies: try a smaller `--chunk-size`
    exit code 5
    ");
    // And remembered: who asks for more is told why it is not done, in all formats.
    let (user, layout) = (Longshore::new(), Layout::of(&[10 << 20]));
    let registry = with_configs(&layout, Script::new().on(Route::Patch, 1, nginx()));
    said_by(&user, &layout, &registry);
    let lowered = |number: usize, option: &str| {
        let layout = Layout::of(&[(10 << 20) + number * 1000]);
        let destination = format!("{}/{REPOSITORY}:{number}", registry.host());
        let run =
            user.run(["push", layout.path().to_str().unwrap(), &destination, "--chunk-size=8MiB", option]);
        let said = run.stderr.replace(&registry.host(), "REGISTRY");
        let lines = said.lines().filter(|line| line.contains("as was asked for"));
        // When it was is nobody's business here.
        let timeless =
            |line: &str| line.split_once(r#","event""#).map_or(line.to_owned(), |(_, rest)| rest.to_owned());
        lines.map(timeless).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(lowered(1, "--quiet"), @"warning: `REGISTRY` gets chunks of 5 MiB and not of 8 MiB, as was asked for: larger ones have been refused here; `longshore doctor REGISTRY/team/demo` tries larger ones again");
    insta::assert_snapshot!(lowered(2, "--progress=json"), @r#":"warning","message":"`REGISTRY` gets chunks of 5 MiB and not of 8 MiB, as was asked for: larger ones have been refused here; `longshore doctor REGISTRY/team/demo` tries larger ones again"}"#);
    // Smaller chunks help nobody who wants larger ones.
    let minimum = Manners { chunk_min: Some(CHUNK), ..Manners::default() };
    insta::assert_snapshot!(said(always(Route::Patch, nginx()).manners(minimum)), @r"
    error: uploading `sha256:bdb3287c2bed22cb1190f0a77cd64cd0f60021a933b1eae8a15e320e88ce3159`
      caused by: the registry wants chunks of at least 65536 bytes but takes at most 65535
      caused by: sending bytes 0 to 65536
      caused by: `PATCH http://REGISTRY/v2/team/demo/blobs/uploads/…` was answered 413 Request Entity Too Large (by nginx/1.22.1)
    hint: a proxy before the registry may limit request bodies: raise its limit
    exit code 5
    ");
    insta::assert_snapshot!(said(always(Route::ManifestPut, nginx())), @r"
    error: pushing the manifest to `REGISTRY/team/demo:1`
      caused by: `PUT http://REGISTRY/v2/team/demo/manifests/1` was answered 413 Request Entity Too Large (by nginx/1.22.1)
    hint: the registry takes only smaller manifests
    exit code 5
    ");
    let ghcr = "chunk exceeds the maximum permissible limit of 4.00MiB";
    let once = Script::new().on(Route::Patch, 1, refusal(416, "REQUESTED_RANGE_NOT_SATISFIABLE", ghcr));
    insta::assert_snapshot!(said_of(&Layout::of(&[10 << 20]), once), @r"
    warning: the registry takes no body of 8 MiB; going on with chunks of 4 MiB
    exit code 0
    ");
}

#[test]
fn status_415_a_type_that_is_not_taken() {
    insta::assert_snapshot!(said(always(Route::ManifestPut, refusal(415, "UNSUPPORTED", "unsupported media type"))), @r"
    error: pushing the manifest to `REGISTRY/team/demo:1`
      caused by: `PUT http://REGISTRY/v2/team/demo/manifests/1` was answered 415 Unsupported Media Type: UNSUPPORTED: unsupported media type
    hint: the registry does not take `application/vnd.oci.image.manifest.v1+json`: try `--format docker`
    exit code 5
    ");
}

#[test]
fn status_416_a_place_that_is_never_right() {
    insta::assert_snapshot!(said(always(Route::Patch, refusal(416, "RANGE_INVALID", "invalid content range"))), @r"
    error: uploading `sha256:bdb3287c2bed22cb1190f0a77cd64cd0f60021a933b1eae8a15e320e88ce3159`
      caused by: giving up after 1 attempt without progress
      caused by: sending bytes 0 to 65536
      caused by: `PATCH http://REGISTRY/v2/team/demo/blobs/uploads/…` was answered 416 Range Not Satisfiable: RANGE_INVALID: invalid content range
    exit code 5
    ");
}

#[test]
fn status_429_too_many_requests() {
    let limited =
        |seconds: &str| Fault::status(429).body("text/plain", "HAP429").header("Retry-After", seconds);
    insta::assert_snapshot!(said(always(Route::Open, limited("0"))), @r"
    error: uploading `sha256:bdb3287c2bed22cb1190f0a77cd64cd0f60021a933b1eae8a15e320e88ce3159`
      caused by: giving up after 1 attempt without progress
      caused by: opening an upload
      caused by: `POST http://REGISTRY/v2/team/demo/blobs/uploads/` was answered 429 Too Many Requests: HAP429
    hint: the registry limits requests: wait, or use fewer `--jobs`
    exit code 6
    ");
    insta::assert_snapshot!(said(always(Route::ManifestPut, limited("0"))), @r"
    warning: pushing the manifest to `REGISTRY/team/demo:1`: `PUT http://REGISTRY/v2/team/demo/manifests/1` was answered 429 Too Many Requests: HAP429; trying again in 0.5 s
    error: pushing the manifest to `REGISTRY/team/demo:1`
      caused by: `PUT http://REGISTRY/v2/team/demo/manifests/1` was answered 429 Too Many Requests: HAP429
    hint: the registry limits requests: wait, or use fewer `--jobs`
    exit code 6
    ");
    for route in [Route::Open, Route::ManifestPut] {
        let said = said(always(route, limited("100000")));
        assert!(
            said.contains("hint: the registry wants no more requests for 28 hours: push again then"),
            "{said}"
        );
        assert!(!said.contains("trying again") && said.ends_with("exit code 6\n"), "{said}");
    }
    // A pause that is asked for is told to whoever wants to hear what goes on.
    let (user, layout) = (Longshore::new(), Layout::of(&[LARGE]));
    let registry = with_configs(
        &layout,
        Script::new().on(Route::Open, 1, limited("1")).on(Route::Open, 2, limited("1")),
    );
    let destination = format!("{}/{REPOSITORY}:1", registry.host());
    let run = user.run(["push", layout.path().to_str().unwrap(), &destination]);
    let said = run.stderr.replace(&registry.host(), "REGISTRY");
    let waited: Vec<_> = said.lines().filter(|line| line.contains("429")).collect();
    insta::assert_snapshot!(waited.join("\n"), @"waiting 1s before going on with sha256:bdb3287c2bed22cb1190f0a77cd64cd0f60021a933b1eae8a15e320e88ce3159: opening an upload: `POST http://REGISTRY/v2/team/demo/blobs/uploads/` was answered 429 Too Many Requests: HAP429");
}

#[test]
fn resets() {
    insta::assert_snapshot!(said(always(Route::Open, Fault::reset())), @r"
    error: uploading `sha256:bdb3287c2bed22cb1190f0a77cd64cd0f60021a933b1eae8a15e320e88ce3159`
      caused by: giving up after 1 attempt without progress
      caused by: opening an upload
      caused by: the connection broke: REASON
    exit code 6
    ");
    insta::assert_snapshot!(said(always(Route::Patch, Fault::Cut { after: 1000 })), @r"
    error: uploading `sha256:bdb3287c2bed22cb1190f0a77cd64cd0f60021a933b1eae8a15e320e88ce3159`
      caused by: giving up after 1 attempt without progress
      caused by: sending bytes 1000 to 66536
      caused by: the connection broke after 65536 bytes: REASON
    exit code 6
    ");
    insta::assert_snapshot!(said(always(Route::Commit, Fault::reset())), @r"
    error: uploading `sha256:bdb3287c2bed22cb1190f0a77cd64cd0f60021a933b1eae8a15e320e88ce3159`
      caused by: giving up after 1 attempt without progress
      caused by: completing the upload
      caused by: the connection broke: REASON
    exit code 6
    ");
}

#[test]
fn a_question_that_is_lost_with_its_connection_is_asked_again_without_a_word() {
    let lost = |times: usize| {
        let lose = |script: Script, nth| script.on(Route::BlobHead, nth, Fault::reset());
        // One blob, which is asked about ahead, and then in earnest.
        said_of(&Layout::of_layers(&[]), (1..=times).fold(Script::new(), lose))
    };
    assert_eq!(lost(2), "exit code 0\n");
    insta::assert_snapshot!(lost(3), @r"
    warning: looking for blob 71b80ccd65b9 in `REGISTRY/team/demo`: the connection broke: REASON
    exit code 0
    ");
}

#[test]
fn a_reset_by_amazon_may_mean_that_there_is_no_such_repository() {
    // Its config is all that is sent.
    let layout = Layout::of_layers(&[]);
    let registry = Registry::start(always(Route::Open, Fault::reset()));
    let user = Longshore::new().with_env("HTTP_PROXY", &format!("http://{}", registry.host()));
    let host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
    let run = user.run([
        "push",
        layout.path().to_str().unwrap(),
        &format!("{host}/team/demo:1"),
        "--plain-http",
        "--quiet",
        "--retries=0",
    ]);
    insta::assert_snapshot!(seen(&run), @r"
    error: uploading `sha256:71b80ccd65b9a49f9d49450a1bf2d4ad25b347f9988a6497b3fa642efcc402ad`
      caused by: opening an upload
      caused by: the connection broke: REASON
    hint: Amazon ECR cuts the connection where there is no such repository: create it first
    exit code 6
    ");
}
