//! Getting in: rules 26 to 29.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use longshore::{
    ErrorKind,
    error::chain,
    registry::{Credential, Credentials, Secret, Sightings},
};

use super::{
    CHUNK, Pusher, REPOSITORY, assert_arrived, image::Layout, pushed_by, sessions::with_configs, story,
    upload_story,
};
use crate::support::registry::{Auth, Exchange, Fault, Manners, Registry, Route, Script};

/// Three chunks and a bit.
const LARGE: usize = 3 * CHUNK as usize + 1000;

fn bearer(expires_in: Option<u64>) -> Script {
    let auth = Auth::Bearer { user: "me", password: "s3cret", expires_in };
    Script::new().manners(Manners { auth, ..Manners::default() })
}

fn basic() -> Script {
    let auth = Auth::Basic { user: "me", password: "s3cret" };
    Script::new().manners(Manners { auth, ..Manners::default() })
}

fn me(password: &str) -> Pusher {
    let mut credentials = Credentials::default();
    let credential = Credential::Login { user: "me".into(), password: Secret::new(password) };
    credentials.give("the wallet", credential);
    let mut pusher = Pusher::new();
    pusher.client.credentials = credentials;
    pusher
}

fn scopes(exchange: &Exchange) -> Vec<String> {
    let (_, query) = exchange.target.split_once('?').unwrap();
    let pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.filter(|(key, _)| key == "scope").map(|(_, value)| value.into_owned()).collect()
}

/// Nothing of a body was read before somebody had shown something.
fn assert_no_body_unauthenticated(registry: &Registry) {
    for exchange in registry.log() {
        assert!(exchange.received == 0 || exchange.authorization.is_some(), "{exchange:?}");
    }
}

#[test]
fn rule_26_a_challenge_is_answered_and_no_body_goes_before_it() {
    for script in [basic(), bearer(Some(300)), bearer(None)] {
        let registry = pushed_by(&me("s3cret"), &Layout::of(&[LARGE, 1000]), script);
        assert_no_body_unauthenticated(&registry);
        let refused = registry.log().iter().filter(|exchange| exchange.answered == Some(401)).count();
        assert_eq!(refused, 1, "{}", story(&registry));
        assert_eq!(registry.calls(Route::Base), 0, "a 200 there would prove nothing");
    }
}

#[test]
fn a_password_is_shown_by_one_before_it_is_shown_by_many() {
    // What is asked ahead shows none: a wrong one shown by many at once locks an account.
    for password in ["s3cret", "wrong"] {
        let state = tempfile::tempdir().unwrap();
        let mut pusher = me(password);
        pusher.options.sightings = Some(Sightings::new(state.path()));
        let registry = Registry::start(basic());
        let pushed = pusher.push(Layout::of(&[LARGE, 1000, 2000]).path(), &registry);
        assert_eq!(pushed.is_ok(), password == "s3cret");
        let mut shown = registry.log();
        shown.retain(|exchange| exchange.authorization.is_some());
        assert_eq!(shown[0].route, Route::ManifestHead, "{}", story(&registry));
        let asks_for_image =
            |exchange: &Exchange| matches!(exchange.route, Route::ManifestHead | Route::ManifestGet);
        assert!(pushed.is_ok() || shown.iter().all(asks_for_image), "{}", story(&registry));
    }
}

#[test]
fn many_who_ask_ahead_share_one_token() {
    let state = tempfile::tempdir().unwrap();
    let mut pusher = me("s3cret");
    pusher.options.sightings = Some(Sightings::new(state.path()));
    let registry = pushed_by(&pusher, &Layout::of(&[LARGE, 1000, 2000]), bearer(Some(300)));
    assert_eq!(registry.calls(Route::Token), 1, "{}", story(&registry));
    assert_no_body_unauthenticated(&registry);
}

#[test]
fn rule_26_the_empty_post_brings_the_challenge_where_reading_is_free() {
    // Looking needs no credentials at many registries.
    let challenge = Fault::status(401).header("WWW-Authenticate", "Basic realm=\"x\"");
    let layout = Layout::of(&[LARGE]);
    let registry = Registry::start(Script::new().on(Route::Open, 1, challenge));
    layout.blobs[1..].iter().for_each(|digest| drop(registry.seed(REPOSITORY, &layout.read(digest))));
    me("s3cret").push(layout.path(), &registry).unwrap();
    let patches = registry.exchanges(Route::Patch);
    assert!(patches.iter().all(|patch| patch.authorization.as_deref() == Some("Basic")));
}

#[test]
fn rule_26_a_challenge_that_a_401_lacks_is_asked_for_at_the_base() {
    let bare = || Fault::status(401);
    for script in [basic(), bearer(Some(300))] {
        let script = script.on(Route::ManifestHead, 1, bare());
        let registry = pushed_by(&me("s3cret"), &Layout::of(&[LARGE, 1000]), script);
        assert_no_body_unauthenticated(&registry);
        let base = registry.exchanges(Route::Base);
        assert_eq!(base.len(), 1, "{}", story(&registry));
        assert_eq!((base[0].authorization.as_deref(), base[0].answered), (None, Some(401)));
    }
    // Where that is open to all, nothing is shown to anybody.
    let registry = Registry::start(Script::new().always(Route::ManifestHead, bare()));
    let error = me("s3cret").push(Layout::of(&[1000]).path(), &registry).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.hints().iter().any(|hint| hint.contains("asks for no login")), "{error:?}");
    assert!(registry.log().iter().all(|exchange| exchange.authorization.is_none()), "{}", story(&registry));
}

#[test]
fn rule_26_schemes_in_any_case_commas_in_quotes_and_several_headers_are_read() {
    for challenges in [
        vec!["BASIC realm=\"Sonatype Nexus\""],
        vec!["basic realm=\"a, b\""],
        vec!["Negotiate", "Basic realm=\"x\""],
        vec!["Digest realm=\"a\", nonce=\"Bearer realm=\\\"x\\\"\", Basic realm=\"x\""],
    ] {
        let mut fault = Fault::status(401);
        for challenge in &challenges {
            fault = fault.header("WWW-Authenticate", challenge);
        }
        let script = basic().on(Route::ManifestHead, 1, fault);
        let registry = pushed_by(&me("s3cret"), &Layout::of(&[1000]), script);
        let refused = registry.log().iter().filter(|exchange| exchange.answered == Some(401)).count();
        assert_eq!(refused, 1, "{challenges:?}");
    }
    let challenge = "bEARER Realm=\"http://127.0.0.1:{port}/token\", SERVICE=\"one, two\", scope=\"repository:team/demo:pull\"";
    let fault = Fault::status(401)
        .header("WWW-Authenticate", "Basic realm=\"x\"")
        .header("WWW-Authenticate", challenge);
    let registry =
        pushed_by(&me("s3cret"), &Layout::of(&[1000]), bearer(Some(300)).on(Route::ManifestHead, 1, fault));
    let token = &registry.exchanges(Route::Token)[0];
    assert!(token.target.contains("service=one%2C+two") || token.target.contains("service=one%2C%20two"));
}

#[test]
fn rule_27_the_first_token_is_good_for_pushing() {
    // The first question is a HEAD, for which the registry itself would ask only for `pull`.
    let registry = pushed_by(&me("s3cret"), &Layout::of(&[LARGE, 1000, 2000]), bearer(Some(300)));
    let tokens = registry.exchanges(Route::Token);
    assert_eq!(tokens.len(), 1, "{}", story(&registry));
    assert_eq!(scopes(&tokens[0]), ["repository:team/demo:pull,push"]);
}

#[test]
fn rule_27_a_mount_asks_to_read_its_source() {
    let mut pusher = me("s3cret");
    pusher.options.mount_from = Some("team/base".to_owned());
    let layout = Layout::of(&[LARGE]);
    let registry = Registry::start(bearer(Some(300)));
    layout.blobs.iter().for_each(|digest| drop(registry.seed("team/base", &layout.read(digest))));
    pusher.push(layout.path(), &registry).unwrap();
    assert_arrived(&layout, &registry);
    assert_eq!((registry.calls(Route::Mount), registry.calls(Route::Open)), (2, 0));
    let tokens = registry.exchanges(Route::Token);
    let asked: Vec<_> = tokens.iter().map(scopes).collect();
    let both = ["repository:team/demo:pull,push".to_owned(), "repository:team/base:pull".to_owned()];
    assert!(asked.iter().any(|scopes| *scopes == both), "{asked:?}");
}

#[test]
fn rule_27_a_forbidden_source_of_a_mount_is_done_without_once() {
    for status in [401, 403, 404, 400] {
        let mut pusher = me("s3cret");
        pusher.options.mount_from = Some("private/base".to_owned());
        let fault = if status == 401 { Fault::Unauthorized } else { Fault::status(status) };
        let registry =
            pushed_by(&pusher, &Layout::of(&[LARGE]), bearer(Some(300)).always(Route::Mount, fault));
        assert_eq!(registry.calls(Route::Open), 2, "{}", story(&registry));
        assert!(registry.calls(Route::Mount) <= 6, "{}", story(&registry));
    }
}

#[test]
fn rule_27_a_source_that_the_token_server_forbids_is_done_without() {
    for status in [401, 403] {
        let mut pusher = me("s3cret");
        pusher.options.mount_from = Some("private/base".to_owned());
        // The first token is for the destination alone.
        let script = bearer(Some(300)).on(Route::Token, 2, Fault::status(status));
        let registry = pushed_by(&pusher, &Layout::of(&[LARGE]), script);
        assert_eq!(registry.calls(Route::Token), 2, "{}", story(&registry));
        assert!(
            scopes(&registry.exchanges(Route::Token)[1]).contains(&"repository:private/base:pull".into())
        );
    }
}

#[test]
fn rule_28_a_token_outlives_the_body_it_carries() {
    // Good for 20 seconds: enough for a question, not for a body.
    let registry = pushed_by(&me("s3cret"), &Layout::of(&[LARGE]), bearer(Some(20)));
    let carried = [Route::Patch, Route::Commit].map(|route| registry.exchanges(route));
    let bodies = carried.concat().iter().filter(|exchange| exchange.received > 0).count();
    let tokens = registry.calls(Route::Token);
    assert!(tokens > bodies, "{tokens} tokens for {bodies} bodies\n{}", story(&registry));
}

#[test]
fn rule_28_a_token_without_a_life_is_good_for_a_minute() {
    let registry = pushed_by(&me("s3cret"), &Layout::of(&[LARGE]), bearer(None));
    assert_eq!(registry.calls(Route::Token), 1);
}

#[test]
fn rule_28_on_a_slow_line_a_token_lives_longer() {
    // The few bytes of the last chunk of one layer make the line look slow when the next one is begun: 64 KiB would
    // take it six minutes.
    let auth = Auth::Bearer { user: "me", password: "s3cret", expires_in: Some(300) };
    let script =
        Script::new().manners(Manners { auth, latency: Duration::from_millis(60), ..Manners::default() });
    let layout = Layout::of(&[CHUNK as usize + 10, CHUNK as usize + 11]);
    let registry = with_configs(&layout, script);
    let mut pusher = me("s3cret");
    pusher.options.jobs = 1;
    pusher.push(layout.path(), &registry).unwrap();
    assert_arrived(&layout, &registry);
    assert_eq!(registry.calls(Route::Token), 2, "{}", story(&registry));
}

#[test]
fn rule_28_a_token_may_say_itself_how_long_it_lives() {
    for (life, lasts) in [(20, false), (300, true)] {
        let claims = format!(r#"{{"iat":1000000000,"exp":{}}}"#, 1_000_000_000 + life);
        let token = format!("e30.{}.x", BASE64_URL_SAFE_NO_PAD.encode(claims));
        let given = Fault::status(200).body("application/json", &format!(r#"{{"token":"{token}"}}"#));
        let challenge = "Bearer realm=\"http://127.0.0.1:{port}/token\"";
        let script = Script::new()
            .on(Route::ManifestHead, 1, Fault::status(401).header("WWW-Authenticate", challenge))
            .always(Route::Token, given);
        let registry = pushed_by(&me("s3cret"), &Layout::of(&[LARGE]), script);
        assert_eq!(registry.calls(Route::Token) == 1, lasts, "{life}: {}", story(&registry));
    }
}

#[test]
fn rule_28_many_blobs_at_once_share_one_question_for_a_token() {
    let sizes: Vec<_> = (0..20).map(|n| 1000 + n).collect();
    let registry = pushed_by(&me("s3cret"), &Layout::of(&sizes), bearer(Some(300)));
    assert_eq!(registry.calls(Route::Token), 1, "{}", story(&registry));
}

#[test]
fn rule_29_a_token_that_expires_in_mid_session_costs_no_bytes() {
    // A refused body was not taken: it goes once more, and nothing before it.
    let layout = Layout::of(&[LARGE]);
    let registry = Registry::start(bearer(Some(300)).on(Route::Patch, 2, Fault::ExpireTokens));
    layout.blobs[1..].iter().for_each(|digest| drop(registry.seed(REPOSITORY, &layout.read(digest))));
    me("s3cret").push(layout.path(), &registry).unwrap();
    assert_arrived(&layout, &registry);
    assert_eq!(
        upload_story(&registry),
        [
            "Open 202",
            "Patch 0-65535 202",
            "Patch 65536-131071 401",
            "Status 204",
            "Patch 65536-131071 202",
            "Patch 131072-196607 202",
            "Patch 196608-197607 202",
            "Commit 0 201",
        ]
    );
    assert_eq!(registry.calls(Route::Token), 2);
}

#[test]
fn rule_29_what_was_taken_all_the_same_is_not_sent_again() {
    let layout = Layout::of(&[LARGE]);
    let registry = Registry::start(bearer(Some(300)).on(Route::Patch, 2, Fault::Belie(401)));
    layout.blobs[1..].iter().for_each(|digest| drop(registry.seed(REPOSITORY, &layout.read(digest))));
    me("s3cret").push(layout.path(), &registry).unwrap();
    assert_arrived(&layout, &registry);
    let story = upload_story(&registry);
    assert_eq!(story[2..5], ["Patch 65536-131071 401", "Status 204", "Patch 131072-196607 202"], "{story:?}");
}

#[test]
fn rule_29_expiry_anywhere_is_survived() {
    // At the first request of all it would be a token refused when it is fresh.
    for route in [Route::BlobHead, Route::Open, Route::Patch, Route::Commit, Route::ManifestPut] {
        for nth in [1, 2] {
            let script = bearer(Some(300)).on(route, nth, Fault::ExpireTokens);
            pushed_by(&me("s3cret"), &Layout::of(&[LARGE, 1000]), script);
        }
    }
}

#[test]
fn rule_29_a_second_401_in_a_row_names_the_credential() {
    for route in
        [Route::ManifestHead, Route::BlobHead, Route::Open, Route::Patch, Route::Commit, Route::ManifestPut]
    {
        for script in [basic(), bearer(Some(300))] {
            let registry = Registry::start(script.always(route, Fault::Unauthorized));
            let error = me("s3cret").push(Layout::of(&[LARGE]).path(), &registry).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{route:?}: {}", chain(&error));
            let hints = error.hints().join("\n");
            assert!(hints.contains("the wallet"), "{route:?}: {} {hints:?}", chain(&error));
            assert!(!format!("{error:?}{}{hints}", chain(&error)).contains("s3cret"));
            assert!(registry.calls(route) <= 8, "{route:?}\n{}", story(&registry));
            assert!(registry.tags(REPOSITORY).is_empty());
        }
    }
}

#[test]
fn a_wrong_password_is_denied_before_anything_is_sent() {
    for script in [basic(), bearer(Some(300))] {
        let registry = Registry::start(script);
        let error = me("wr0ng").push(Layout::of(&[LARGE]).path(), &registry).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{}", chain(&error));
        assert!(registry.log().iter().all(|exchange| exchange.received == 0));
        assert!(registry.calls(Route::Token) <= 2, "no account is locked: {}", story(&registry));
    }
}
