//! A registry that means harm: headers, answers and places that no honest one would think of. A push ends, well or
//! with somebody else to blame, and nothing is tagged that did not arrive.

use std::{thread, time::Duration};

use longshore::{
    Error, ErrorKind,
    error::chain,
    push::IfExists,
    registry::{Credential, Credentials, Secret},
};

use super::{
    CHUNK, Pusher, REPOSITORY, assert_arrived, image::Layout, locations::trusting, pushed_by, story,
};
use crate::support::registry::{Auth, Fault, Manners, Registry, Route, Script};

/// Three chunks and a bit.
const LARGE: usize = 3 * CHUNK as usize + 1000;

/// Everything that a push asks.
const ROUTES: [Route; 6] =
    [Route::ManifestHead, Route::BlobHead, Route::Open, Route::Patch, Route::Commit, Route::ManifestPut];

/// Pushes to a registry with this script: all is there, or it is the registry's fault and nothing is tagged.
fn survived(pusher: &Pusher, layout: &Layout, script: Script, what: &str) -> Option<Error> {
    let registry = Registry::start(script);
    match pusher.push(layout.path(), &registry) {
        Ok(_) => {
            assert_arrived(layout, &registry);
            None
        }
        Err(error) => {
            let blamed = [ErrorKind::Denied, ErrorKind::Network, ErrorKind::Refused].contains(&error.kind());
            assert!(blamed, "{what}: {error:?}\n{}", story(&registry));
            assert!(registry.tags(REPOSITORY).is_empty(), "{what}: {error:?}");
            Some(error)
        }
    }
}

fn with_password() -> Pusher {
    let mut credentials = Credentials::default();
    let credential = Credential::Login { user: "me".into(), password: Secret::new("s3cret") };
    credentials.give("a test", credential);
    let mut pusher = Pusher::new();
    pusher.client.credentials = credentials;
    pusher
}

#[test]
fn absurd_headers_are_survived() {
    let (mut pusher, layout) = (Pusher::new(), Layout::of(&[LARGE, 1000]));
    // Some of these make a body whose end nobody can tell.
    pusher.client.timeout = Duration::from_millis(300);
    let huge: &'static str = "x".repeat(200 << 10).leak();
    let numbers = ["", "-1", "0", "1", "18446744073709551615", "18446744073709551616", "1e9", "٣", "0x10"];
    let ranges =
        ["0", "0-18446744073709551615", "9-0", "bytes=0--1", "0-18446744073709551616", "--", "0-0,5-9"];
    let places =
        ["", "//", "http://", "http://[", "javascript:alert(1)", "\u{9b}31m", "?", "#", "http://a:99999/"];
    let dates = ["Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT"];
    for (name, values) in [
        ("Range", ranges.as_slice()),
        ("OCI-Chunk-Min-Length", &numbers),
        ("OCI-Chunk-Max-Length", &numbers),
        ("Location", &places),
        ("Retry-After", &numbers),
        ("Retry-After", &dates),
        ("Date", &dates),
        (
            "Docker-Content-Digest",
            &["", "sha256:", "sha256:../../etc/passwd", "md5:d41d8cd98f00b204e9800998ecf8427e"],
        ),
        ("OCI-Subject", &["\u{9b}"]),
        ("Warning", &["299 - \"", "299 - \"\u{9b}31m\"", "299"]),
        ("Content-Type", &["", "/", "\u{e9}"]),
        ("WWW-Authenticate", &["Bearer", "Bearer realm=", ",,,"]),
        ("Transfer-Encoding", &["gzip", "chunked, identity"]),
        ("X-Huge", &[huge]),
    ] {
        for value in values.iter().copied().chain([huge]) {
            let script = ROUTES
                .iter()
                .fold(Script::new(), |script, route| script.always(*route, Fault::Header(name, value)));
            let shown: String = value.chars().take(40).collect();
            survived(&pusher, &layout, script, &format!("{name}: {shown}"));
        }
    }
}

#[test]
fn an_answer_counts_though_its_body_never_comes() {
    let pusher = || {
        let mut pusher = Pusher::new();
        // Answers come sooner, on however busy a machine.
        pusher.client.timeout = Duration::from_secs(5);
        pusher
    };
    let layout = Layout::of(&[LARGE, 1000]);
    // All at once: each waits for a body.
    thread::scope(|scope| {
        for route in [Route::Open, Route::Patch, Route::Commit, Route::ManifestPut] {
            let (layout, pusher) = (&layout, &pusher);
            scope.spawn(move || {
                let dragged = Fault::Header("Content-Length", "1000");
                let registry = pushed_by(&pusher(), layout, Script::new().on(route, 1, dragged));
                assert_eq!(registry.calls(Route::Status), 0, "{}", story(&registry));
                assert_eq!(registry.calls(Route::Commit), layout.blobs.len(), "{}", story(&registry));
                assert_eq!(registry.calls(Route::ManifestPut), 1, "{}", story(&registry));
            });
        }
        // What a refusal says is read as far as it goes.
        let refusal = Fault::status(403).body("text/plain", "not you").header("Content-Length", "1000");
        let script = Script::new().always(Route::Open, refusal);
        let error = survived(&pusher(), &layout, script, "a refusal").unwrap();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(chain(&error).contains("403 Forbidden: not you"), "{error:?}");
    });
}

#[test]
fn who_never_answers_a_closing_put_is_waited_for_as_the_user_wants() {
    let mut pusher = Pusher::new();
    pusher.client.timeout = Duration::from_millis(500);
    let script = Script::new().on(Route::Commit, 1, Fault::Stall { after: LARGE });
    let registry = pushed_by(&pusher, &Layout::of(&[LARGE]), script);
    assert_eq!(registry.exchanges(Route::Commit)[0].answered, None, "{}", story(&registry));
}

#[test]
fn answers_that_never_end_are_cut() {
    let layout = Layout::of(&[LARGE]);
    let mut cases: Vec<(Route, Fault)> = Vec::new();
    for route in ROUTES.into_iter().chain([Route::Status, Route::Token, Route::ManifestGet]) {
        cases.push((route, Fault::EndlessHead));
        if !matches!(route, Route::BlobHead | Route::ManifestHead) {
            cases.extend([200, 201, 202, 403, 500].map(|status| (route, Fault::Endless(status))));
        }
    }
    for (route, fault) in cases {
        let mut script = Script::new().always(route, fault.clone());
        let mut pusher = with_password();
        pusher.client.retries = 1;
        pusher.options.retries = 1;
        match route {
            Route::Token => {
                let auth = Auth::Bearer { user: "me", password: "s3cret", expires_in: None };
                script = script.manners(Manners { auth, ..Manners::default() });
            }
            // A status is asked for after a lost answer.
            Route::Status => script = script.on(Route::Patch, 2, Fault::LoseAnswer),
            // A manifest is read where its digest is not said, and the words of a refused HEAD by GET.
            Route::ManifestGet => script = script.always(Route::ManifestHead, Fault::status(200)),
            _ => {}
        }
        let registry = Registry::start(script);
        // Who says 201 is believed.
        if let Err(error) = pusher.push(layout.path(), &registry) {
            assert_ne!(error.kind(), ErrorKind::Internal, "{route:?} {fault:?}: {error:?}");
            assert!(registry.tags(REPOSITORY).is_empty(), "{route:?} {fault:?}: {error:?}");
        }
        assert!(registry.calls(route) > 0, "{route:?}\n{}", story(&registry));
        // What is not read is in the buffers of two sockets.
        for exchange in registry.exchanges(route) {
            assert!(exchange.poured < 32 << 20, "{route:?} {fault:?}: {} bytes", exchange.poured);
        }
    }
}

#[test]
fn a_challenge_with_twenty_thousand_scopes_is_cut_short() {
    let scopes = (0..20_000).map(|n| format!("a:{n}:b")).collect::<Vec<_>>().join(" ");
    let challenge = format!("Bearer realm=\"http://127.0.0.1:{{port}}/token\",scope=\"{scopes}\"");
    let auth = Auth::Bearer { user: "me", password: "s3cret", expires_in: None };
    let script = Script::new().manners(Manners { auth, ..Manners::default() });
    let fault = Fault::status(401).header("WWW-Authenticate", &challenge);
    let registry = Registry::start(script.on(Route::ManifestHead, 1, fault));
    let layout = Layout::of(&[1000]);
    with_password().push(layout.path(), &registry).unwrap();
    assert_arrived(&layout, &registry);
    let token = &registry.exchanges(Route::Token)[0];
    assert_eq!(token.target.matches("scope=").count(), 17, "its own and sixteen");
}

#[test]
fn tls_does_not_lead_down_by_realm_or_redirect() {
    let tls = || Script::new().manners(Manners { tls: true, ..Manners::default() });
    let away = |status: u16| Fault::status(status).header("Location", "http://localhost:{port}{path}");
    let bearer = |realm: &str| {
        Fault::status(401).header("WWW-Authenticate", &format!("Bearer realm=\"{realm}\",service=\"x\""))
    };
    for (what, script) in [
        (
            "a realm on the same host",
            tls().always(Route::ManifestHead, bearer("http://127.0.0.1:{port}/token")),
        ),
        ("a realm elsewhere", tls().always(Route::ManifestHead, bearer("http://localhost:{port}/token"))),
        ("a redirect of a HEAD", tls().always(Route::ManifestHead, away(307))),
        ("a redirect of a POST", tls().always(Route::Open, away(308))),
        ("a redirect of a body", tls().always(Route::Patch, away(307))),
        ("a redirect of a manifest", tls().always(Route::ManifestPut, away(307))),
    ] {
        let registry = Registry::start(script);
        let mut pusher = with_password();
        pusher.client.certificates = trusting(&registry);
        let error = pusher.push(Layout::of(&[LARGE]).path(), &registry).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{what}: {}", chain(&error));
        assert_eq!(registry.calls(Route::Token), 0, "{what}");
        let shown = registry.log().iter().any(|exchange| exchange.authorization.is_some());
        assert!(!shown, "{what}: {}", story(&registry));
    }
}

#[test]
fn a_web_server_is_no_registry() {
    let layout = Layout::of(&[1000, 1000]);
    let page = || Fault::status(200).body("text/html", "<h1>It works!</h1>");
    for well in [|| Fault::status(200), page] {
        let script = [ROUTES.as_slice(), &[Route::Base, Route::ManifestGet]].concat();
        let script = script.into_iter().fold(Script::new(), |script, route| script.always(route, well()));
        for if_exists in [IfExists::Overwrite, IfExists::Skip, IfExists::Fail] {
            let mut pusher = Pusher::new();
            pusher.options.if_exists = if_exists;
            let error = survived(&pusher, &layout, script.clone(), "web server").expect("an error");
            assert!(chain(&error).contains("answered with something that is no manifest"), "{error:?}");
            assert_eq!(error.hints(), ["whoever answers there may be no registry"]);
            assert_eq!(pusher.warnings(), [""; 0]);
        }
        let script = Script::new().always(Route::BlobHead, well()).always(Route::BlobGet, well());
        let error = survived(&Pusher::new(), &layout, script, "blob").expect("an error");
        assert_eq!(error.hints(), ["whoever answers there may be no registry"], "{error:?}");
        let script = Script::new().always(Route::Open, well());
        let error = survived(&Pusher::new(), &layout, script, "open").expect("an error");
        assert!(chain(&error).contains("opened an upload by 200 without a `Location`"), "{error:?}");
        assert_eq!(error.hints(), ["whoever answers there may be no registry"]);
    }
}
