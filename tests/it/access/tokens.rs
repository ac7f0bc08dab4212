//! Tokens that a real registry checks: what is asked for is what distribution needs.

use super::{PASSWORD, USER, User};
use crate::support::{
    docker_registry::DockerRegistry,
    registry::{Auth, Fault, Manners, Registry, Route, Script},
    token_server::TokenServer,
};

#[test]
fn the_tokens_asked_for_are_what_a_real_registry_needs() {
    let user = User::new();
    let tokens = TokenServer::start(USER, PASSWORD, "team/");
    let registry = DockerRegistry::start_with("", &tokens.settings(&user.path("bundle.pem")));
    let host = registry.host();
    user.log_in(host, "wr0ng", &[]).said(4, &["incorrect username or password", "from this login"]);
    user.log_in(host, PASSWORD, &[]).ended(0);
    assert_eq!(tokens.asked(), [Vec::<String>::new()], "to be let in, no right is needed");

    user.push(&format!("{host}/team/base:1"), &[]).pushed();
    let base = "repository:team/base:pull".to_owned();
    assert_eq!(tokens.asked()[1..], [vec![format!("{base},push")]], "one token is good for a whole push");

    let mounted = user.push(&format!("{host}/team/demo:1"), &["--mount-from", "team/base", "-v"]);
    mounted.pushed();
    let with_source = vec!["repository:team/demo:pull,push".to_owned(), base];
    assert!(tokens.asked().contains(&with_source), "{:?}", tokens.asked());
    assert!(!mounted.stderr.contains("sent "), "all of it is mounted: {mounted:?}");

    // A source that is not ours is done without.
    user.push(&format!("{host}/team/other:1"), &["--mount-from", "theirs/base"]).pushed();
    // A token without the rights is given all the same, and the registry has the last word.
    let forbidden = user.push(&format!("{host}/theirs/demo:1"), &[]);
    forbidden.said(4, &["the registry was shown user `me` from", "auth.json"]);
}

#[test]
fn a_refresh_token_that_is_too_old_asks_for_a_login() {
    // As RFC 6749 has it.
    let stale = Fault::status(400).body("application/json", r#"{"error":"invalid_grant"}"#);
    let auth = Auth::Bearer { user: USER, password: PASSWORD, expires_in: None };
    let script = Script::new().manners(Manners { auth, ..Manners::default() }).always(Route::Token, stale);
    let registry = Registry::start(script);
    let (user, host) = (User::new(), registry.host());
    user.write(".docker/config.json", format!(r#"{{"auths":{{"{host}":{{"identitytoken":"old"}}}}}}"#));
    let run = user.push(&format!("{host}/demo:1"), &[]);
    run.said(
        4,
        &["invalid_grant", "an identity token from `", &format!("log in by `longshore login {host}`")],
    );
}

#[test]
fn a_bucket_is_not_said_to_have_seen_our_login() {
    let xml = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>";
    let expired = Fault::status(403).body("application/xml", xml);
    let bucket = Registry::start(Script::new().always(Route::Commit, expired));
    let auth = Auth::Basic { user: USER, password: PASSWORD };
    let elsewhere = bucket.host().replace("127.0.0.1", "localhost");
    let location = Fault::Location(Some(format!("http://{elsewhere}{{path}}")));
    let manners = Manners { auth, ..Manners::default() };
    let registry = Registry::start(Script::new().manners(manners).always(Route::Open, location));
    let user = User::new();
    user.log_in(&registry.host(), PASSWORD, &[]).ended(0);
    let run = user.push(&format!("{}/demo:1", registry.host()), &[]);
    run.said(4, &["403 Forbidden: AccessDenied: Request has expired"]);
    assert!(!run.stderr.contains("hint: "), "{run:?}");
}
