//! Tokens that a real registry checks: what is asked for is what distribution needs.

use super::{PASSWORD, USER, User};
use crate::support::{docker_registry::DockerRegistry, token_server::TokenServer};

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
