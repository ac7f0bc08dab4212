//! Where a registry may send us, and what we show there: rules 21 to 23, 25 and 32, and promise 8.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
    time::Duration,
};

use longshore::{
    ErrorKind,
    error::chain,
    registry::{Certificates, Credential, Credentials, Proxies, Secret},
};
use url::Url;

use super::{
    CHUNK, Pusher, REPOSITORY, assert_arrived, image::Layout, pushed, pushed_by, story, under_another_name,
};
use crate::support::registry::{Exchange, Fault, Manners, Registry, Route, Script};

/// Three chunks and a bit.
const LARGE: usize = 3 * CHUNK as usize + 1000;

const SESSION: [Route; 4] = [Route::Open, Route::Patch, Route::Status, Route::Mount];

/// Every session is said to be here.
fn moved(mut script: Script, location: &str) -> Script {
    for route in SESSION {
        script = script.always(route, Fault::Location(Some(location.to_owned())));
    }
    script
}

fn named(exchange: &Exchange, host: &str) -> bool {
    exchange.header("Host").unwrap().starts_with(host)
}

/// A pusher with a password that it shows from the first challenge on.
fn with_password() -> Pusher {
    let mut credentials = Credentials::default();
    let credential = Credential::Login { user: "me".into(), password: Secret::new("s3cret") };
    credentials.give("a test", credential);
    let mut pusher = Pusher::new();
    pusher.client.credentials = credentials;
    pusher
}

/// Asks for a password at the first request, and takes whatever comes then.
fn challenging() -> Script {
    let challenge = Fault::status(401).header("WWW-Authenticate", "Basic realm=\"all\"");
    Script::new().on(Route::ManifestHead, 1, challenge)
}

/// Trusts the certificate of a registry.
pub(super) fn trusting(registry: &Registry) -> Certificates {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    fs_err::write(&path, registry.certificate()).unwrap();
    let mut certificates = Certificates::default();
    certificates.trust_file(&path).unwrap();
    certificates
}

fn tls() -> Script {
    Script::new().manners(Manners { tls: true, ..Manners::default() })
}

#[test]
fn rule_21_a_location_on_the_same_host_keeps_our_scheme_and_port() {
    for location in [
        "{path}",
        "http://127.0.0.1:{port}{path}",
        "http://127.0.0.1{path}",
        "https://127.0.0.1{path}",
        "https://127.0.0.1:{port}{path}",
        "http://127.0.0.1:1{path}",
        "//127.0.0.1:{port}{path}",
        "HTTP://127.0.0.1:{port}{path}",
    ] {
        pushed(&Layout::of(&[LARGE]), moved(Script::new(), location));
    }
}

#[test]
fn rule_21_an_http_location_under_https_stays_https() {
    let registry = Registry::start(moved(tls(), "http://127.0.0.1{path}"));
    let mut pusher = Pusher::new();
    pusher.client.certificates = trusting(&registry);
    let layout = Layout::of(&[LARGE]);
    pusher.push(layout.path(), &registry).unwrap();
    assert_arrived(&layout, &registry);
}

#[test]
fn rule_21_the_query_survives_untouched_and_the_digest_follows_it() {
    let odd = "&sig=a%2Bb+c==%7e~&x=%e2%82%ac&=";
    let registry = pushed(&Layout::of(&[LARGE]), moved(Script::new(), &format!("{{path}}{odd}")));
    for exchange in registry.log() {
        if matches!(exchange.route, Route::Patch) {
            assert!(exchange.target.ends_with(odd), "{}", exchange.target);
        }
        if matches!(exchange.route, Route::Commit) {
            let (_, digest) = exchange.target.split_once(odd).unwrap();
            assert!(digest.starts_with("&digest=sha256%3A") && digest.len() == 17 + 64, "{digest}");
        }
    }
}

#[test]
fn rule_21_sessions_may_live_outside_of_v2() {
    let registry = pushed(&Layout::of(&[LARGE]), moved(Script::new(), "/artifacts-uploads{path}"));
    let patches = registry.exchanges(Route::Patch);
    assert!(patches[0].target.starts_with("/artifacts-uploads/v2/"));
    assert!(patches.len() > 1);
}

#[test]
fn rule_21_a_location_that_is_missing_is_asked_for() {
    // The old one is stale after a chunk: the registry refuses it, and a status names the new one.
    let registry = pushed(&Layout::of(&[LARGE]), Script::new().on(Route::Patch, 2, Fault::Location(None)));
    assert_eq!(registry.bytes(Route::Patch), LARGE as u64 + CHUNK, "{}", story(&registry));
    assert_eq!(registry.calls(Route::Status), 1);
}

#[test]
fn rule_21_an_upload_without_any_location_is_refused() {
    for none in [None, Some(String::new())] {
        let registry = Registry::start(Script::new().always(Route::Open, Fault::Location(none)));
        let error = Pusher::new().push(Layout::of(&[LARGE]).path(), &registry).unwrap_err();
        assert_eq!((error.kind(), registry.tags(REPOSITORY)), (ErrorKind::Refused, vec![]));
        assert!(chain(&error).contains("by 202 without a `Location`"), "{}", chain(&error));
    }
}

#[test]
fn rule_22_another_host_gets_bytes_but_no_credentials() {
    let script = moved(challenging(), "http://localhost:{port}{path}");
    let registry = pushed_by(&with_password(), &Layout::of(&[LARGE, 1000]), script);
    let (far, near): (Vec<_>, Vec<_>) =
        registry.log().into_iter().partition(|exchange| named(exchange, "localhost"));
    assert!(far.iter().any(|exchange| exchange.received > 0));
    assert!(far.iter().all(|exchange| exchange.authorization.is_none()), "{}", story(&registry));
    let shown = near[1..].iter().all(|exchange| exchange.authorization.as_deref() == Some("Basic"));
    assert!(shown, "the registry itself gets them, from its challenge on");
    assert_eq!(near[0].authorization, None);
}

#[test]
fn rule_22_another_port_of_the_host_is_another_host() {
    // A 307 is a statement about an address, unlike a Location that forgot the port.
    let elsewhere = Registry::honest();
    let target = format!("http://{}/v2/team/demo/manifests/1", elsewhere.host());
    let away = Fault::status(307).header("Location", &target);
    let script = Script::new()
        .on(Route::ManifestHead, 1, Fault::status(401).header("WWW-Authenticate", "Basic realm=\"all\""))
        .on(Route::ManifestHead, 2, away);
    pushed_by(&with_password(), &Layout::of(&[1000]), script);
    assert_eq!(elsewhere.log().len(), 1);
    assert_eq!(elsewhere.log()[0].authorization, None);
}

#[test]
fn rule_22_nothing_goes_down_from_https_to_another_host() {
    let registry = Registry::start(moved(tls(), "http://localhost:{port}{path}"));
    let mut pusher = with_password();
    pusher.client.certificates = trusting(&registry);
    let error = pusher.push(Layout::of(&[LARGE]).path(), &registry).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{}", chain(&error));
    assert_eq!((registry.calls(Route::Patch), registry.calls(Route::Commit)), (0, 0));
    assert!(registry.tags(REPOSITORY).is_empty());
}

/// A public name, behind a proxy, that sends us into our own surroundings.
fn public(script: Script) -> (Registry, Pusher) {
    let registry = Registry::start(script);
    let mut pusher = with_password();
    pusher.client.plain_http = true;
    pusher.client.proxies =
        Proxies { http: Some(format!("http://{}", registry.host()).parse().unwrap()), ..Proxies::default() };
    (registry, pusher)
}

#[test]
fn rule_22_a_public_registry_may_not_name_private_addresses() {
    for host in [
        "169.254.169.254",
        "10.0.0.1",
        "127.0.0.2",
        "[::1]",
        "192.168.1.1:8080",
        "[fe80::1]",
        "0.0.0.0",
        // A name, which only its address gives away.
        "localhost:{port}",
    ] {
        let (registry, pusher) = public(moved(Script::new(), &format!("http://{host}{{path}}")));
        let error =
            pusher.push_to(Layout::of(&[LARGE]).path(), "registry.example.com", "team/demo:1").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{}", chain(&error));
        assert_eq!((registry.calls(Route::Patch), registry.calls(Route::Commit)), (0, 0), "{host}");
    }
}

#[test]
fn rule_22_a_redirect_is_checked_too() {
    for route in [Route::ManifestHead, Route::Open, Route::Commit, Route::ManifestPut] {
        let mut pusher = with_password();
        let away = Fault::status(307).header("Location", "http://169.254.169.254/latest");
        let registry = under_another_name(&mut pusher, Script::new().always(route, away));
        let error =
            pusher.push_to(Layout::of(&[1000]).path(), "registry.example.com", "team/demo:1").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{route:?}: {}", chain(&error));
        assert!(registry.log().iter().all(|exchange| !exchange.target.contains("latest")));
        assert!(registry.tags(REPOSITORY).is_empty());
    }
}

#[test]
fn rule_22_a_token_realm_is_checked_too() {
    for realm in ["http://169.254.169.254/token", "https://10.0.0.1/token", "http://auth.example.com/token"] {
        let challenge = format!("Bearer realm=\"{realm}\",service=\"x\"");
        let fault = Fault::status(401).header("WWW-Authenticate", &challenge);
        let (registry, pusher) = public(Script::new().always(Route::ManifestHead, fault));
        let error =
            pusher.push_to(Layout::of(&[LARGE]).path(), "registry.example.com", "team/demo:1").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{realm}: {}", chain(&error));
        assert!(registry.log().iter().all(|exchange| exchange.authorization.is_none()), "{realm}");
        assert_eq!(registry.calls(Route::Token), 0);
    }
}

#[test]
fn rule_22_this_machine_is_reached_without_a_proxy() {
    let mut pusher = Pusher::new();
    let nobody = Registry::honest();
    let proxy: Option<Url> = Some(format!("http://{}", nobody.host()).parse().unwrap());
    pusher.client.proxies = Proxies { http: proxy.clone(), https: proxy, ..Proxies::default() };
    pushed_by(&pusher, &Layout::of(&[1000]), Script::new());
    assert!(nobody.log().is_empty(), "{}", story(&nobody));
}

#[test]
fn rule_22_what_a_registry_says_is_made_harmless() {
    let words = r#"{"errors":[{"code":"DENIED","message":"no\u001b[2J\u0007\nsecond line\u202e"}]}"#;
    let fault = Fault::status(403).body("application/json", words);
    let registry = Registry::start(Script::new().always(Route::Open, fault));
    let error = Pusher::new().push(Layout::of(&[1000]).path(), &registry).unwrap_err();
    let said = chain(&error);
    assert!(said.contains("no") && !said.chars().any(|c| c.is_control() || c == '\u{202e}'), "{said:?}");
    assert_eq!(error.kind(), ErrorKind::Denied);
}

#[test]
fn rule_23_a_redirected_body_is_sent_there_by_the_same_method() {
    for status in [307, 308] {
        let away = || Fault::status(status).header("Location", "http://localhost:{port}{path}");
        let mut script = challenging().on(Route::Patch, 2, away());
        for route in [Route::Open, Route::Commit, Route::ManifestPut] {
            script = script.on(route, 1, away());
        }
        let registry = pushed_by(&with_password(), &Layout::of(&[LARGE]), script);
        let far: Vec<_> =
            registry.log().into_iter().filter(|exchange| named(exchange, "localhost")).collect();
        for route in [Route::Patch, Route::ManifestPut] {
            assert!(far.iter().any(|exchange| exchange.route == route && exchange.received > 0), "{route:?}");
        }
        assert!(far.iter().all(|exchange| exchange.authorization.is_none() && exchange.method != "GET"));
        // Where it leads is what is asked for, to the last byte.
        let script = Script::new().on(Route::Commit, 1, away());
        let registry = pushed(&Layout::of(&[1000]), script);
        let commits = registry.exchanges(Route::Commit);
        let moved = commits.iter().find(|exchange| named(exchange, "localhost")).unwrap();
        assert!(
            commits
                .iter()
                .any(|exchange| exchange.target == moved.target && exchange.answered == Some(status))
        );
    }
}

#[test]
fn rule_23_a_lax_redirect_never_becomes_a_get() {
    for status in [301, 302] {
        let slash = Fault::status(status).header("Location", "{path}?again=1");
        let registry = pushed(&Layout::of(&[LARGE]), Script::new().on(Route::Open, 1, slash.clone()));
        assert!(registry.log().iter().all(|exchange| exchange.method != "GET"));

        let away = Fault::status(status).header("Location", "http://localhost:{port}{path}");
        for route in [Route::Open, Route::Patch, Route::Commit] {
            let registry = Registry::start(Script::new().always(route, away.clone()));
            let error = Pusher::new().push(Layout::of(&[LARGE]).path(), &registry).unwrap_err();
            assert!(chain(&error).contains("is redirected by"), "{}", chain(&error));
            assert!(registry.log().iter().all(|exchange| exchange.method != "GET"));
            assert!(registry.tags(REPOSITORY).is_empty());
        }
    }
}

#[test]
fn rule_23_circles_end() {
    for route in
        [Route::Open, Route::Patch, Route::Commit, Route::BlobHead, Route::ManifestPut, Route::ManifestHead]
    {
        let circle = Fault::status(307).header("Location", "{path}&again=1");
        let registry = Registry::start(Script::new().always(route, circle));
        let error = Pusher::new().push(Layout::of(&[LARGE]).path(), &registry).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{route:?}: {}", chain(&error));
        let rounds = |exchange: &Exchange| exchange.target.matches("again=1").count();
        assert_eq!(registry.exchanges(route).iter().map(rounds).max(), Some(5), "{route:?}");
        assert!(registry.calls(route) <= 18, "{route:?}\n{}", story(&registry));
        assert!(registry.tags(REPOSITORY).is_empty());
    }
}

#[test]
fn rule_25_no_cookie_is_kept() {
    let mut script = Script::new();
    for route in [Route::ManifestHead, Route::BlobHead, Route::Open, Route::Patch, Route::Commit] {
        script = script.always(route, Fault::Header("Set-Cookie", "sid=1; Path=/"));
    }
    let registry = pushed(&Layout::of(&[LARGE]), script);
    assert!(registry.log().iter().all(|exchange| exchange.header("Cookie").is_none()));
}

#[test]
fn rule_32_a_failed_look_is_repeated_and_not_read_as_missing() {
    let layout = Layout::of(&[LARGE]);
    for fault in [Fault::status(503), Fault::status(429), Fault::reset(), Fault::status(504)] {
        let script = Script::new().on(Route::BlobHead, 1, fault.clone()).on(Route::BlobHead, 2, fault);
        let registry = Registry::start(script);
        layout.blobs.iter().for_each(|digest| drop(registry.seed(REPOSITORY, &layout.read(digest))));
        Pusher::new().push(layout.path(), &registry).unwrap();
        assert_eq!((registry.calls(Route::BlobHead), registry.calls(Route::Open)), (4, 0));
    }
}

#[test]
fn rule_32_a_look_without_an_answer_is_repeated() {
    let layout = Layout::of(&[LARGE]);
    let registry = Registry::start(Script::new().on(Route::BlobHead, 1, Fault::Stall { after: 0 }));
    layout.blobs.iter().for_each(|digest| drop(registry.seed(REPOSITORY, &layout.read(digest))));
    let mut pusher = Pusher::new();
    pusher.client.timeout = Duration::from_secs(1);
    pusher.push(layout.path(), &registry).unwrap();
    assert_eq!(registry.calls(Route::Open), 0, "{}", story(&registry));
    assert!(registry.calls(Route::BlobHead) >= 3, "{}", story(&registry));
}

#[test]
fn rule_32_a_redirected_look_shows_no_credentials() {
    let away = Fault::status(307).header("Location", "http://localhost:{port}{path}");
    let script = challenging().on(Route::BlobHead, 1, away);
    let registry = pushed_by(&with_password(), &Layout::of(&[LARGE]), script);
    let mut far = registry.log();
    far.retain(|exchange| named(exchange, "localhost"));
    assert_eq!(far.len(), 1);
    assert_eq!((far[0].route, &far[0].authorization), (Route::BlobHead, &None));
}

#[test]
fn rule_32_a_look_that_leads_astray_means_unknown() {
    for target in ["ftp://example.com/x", "file:///etc/passwd"] {
        let away = Fault::status(307).header("Location", target);
        pushed(&Layout::of(&[LARGE]), Script::new().always(Route::BlobHead, away));
    }
}

#[test]
fn rule_32_a_look_that_measures_its_own_body_is_made_anew() {
    let layout = Layout::of(&[1000, LARGE]);
    let registry = pushed(&layout, Script::new().always(Route::BlobHead, Fault::status(200)));
    // It has everything but the tag now.
    let pusher = Pusher::new();
    pusher.push_to(layout.path(), &registry.host(), &format!("{REPOSITORY}:2")).unwrap();
    assert_eq!(registry.calls(Route::Open), layout.blobs.len(), "{}", story(&registry));
}

#[test]
fn rule_32_a_look_that_leads_into_our_surroundings_means_unknown() {
    for target in ["http://169.254.169.254/x", "http://localhost:{port}{path}"] {
        let mut pusher = Pusher::new();
        let away = Fault::status(307).header("Location", target);
        let registry = under_another_name(&mut pusher, Script::new().always(Route::BlobHead, away));
        let layout = Layout::of(&[LARGE]);
        pusher.push_to(layout.path(), "registry.example.com", &format!("{REPOSITORY}:1")).unwrap();
        assert_arrived(&layout, &registry);
        assert!(!registry.log().iter().any(|exchange| named(exchange, "localhost")));
    }
}

#[test]
fn a_registry_that_does_not_know_its_own_address_is_named_for_it() {
    // Behind a proxy that passes on neither `Host` nor the scheme, and what is there speaks no TLS.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            // Whoever has heard enough need not read it.
            stream.read_exact(&mut [0; 16]).ok();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").ok();
        }
    });
    let location = Fault::Location(Some(format!("{elsewhere}{{path}}")));
    let registry = Registry::start(Script::new().always(Route::Open, location));
    let error = Pusher::new().push(Layout::of(&[1000]).path(), &registry).unwrap_err();
    let words = format!("no TLS connection to {elsewhere}, where http://{} sends us: ", registry.host());
    assert!(chain(&error).contains(&words), "{}", chain(&error));
    let hint = "if the registry is not to be found there, the proxy before it has to pass on `Host` and \
                `X-Forwarded-Proto`";
    assert_eq!(error.hints(), [hint]);
}
