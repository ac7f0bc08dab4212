//! Two registries over one store, asked in turn.

use super::{LARGE, arguments, assert_arrived, is_possible};
use crate::{
    support::{docker_registry::DockerRegistry, longshore::Longshore, nginx::Nginx, skopeo},
    wire::image::Layout,
};

/// Starts two registries with these secrets, by which they sign the state of an upload, behind one host.
fn replicas(secrets: [&str; 2]) -> ([DockerRegistry; 2], Nginx) {
    let [one, other] = secrets.map(|secret| format!(", secret: {secret}"));
    let one = DockerRegistry::start_with(&one, "");
    let other = one.start_beside(&other);
    let nginx = Nginx::start(&[one.host(), other.host()], "client_max_body_size 0;");
    ([one, other], nginx)
}

#[test]
fn replicas_that_share_a_secret_are_one_registry() {
    if !is_possible() {
        return;
    }
    let (registries, nginx) = replicas(["same", "same"]);
    let layout = Layout::of(&[LARGE, LARGE / 2, 1000]);
    let run = Longshore::new().run(arguments(layout.path(), nginx.host(), "demo"));
    assert_arrived(&layout, &run, nginx.host(), "demo");
    for registry in &registries {
        registry.wait_for("PATCH", 202);
    }
}

#[test]
fn replicas_that_do_not_trust_each_other_are_named_and_nothing_is_tagged() {
    if !is_possible() {
        return;
    }
    let (_registries, nginx) = replicas(["one", "other"]);
    let layout = Layout::of(&[LARGE]);
    let [push, source, destination] = arguments(layout.path(), nginx.host(), "demo");
    let run = Longshore::new().run([push, source, destination, "--retries=1".to_owned()]);
    // Requests may happen to fall to the right one each time.
    if run.code == Some(0) {
        return assert_arrived(&layout, &run, nginx.host(), "demo");
    }
    // Whether the last answer is the registry's 404 or a 502 of nginx, whose body nobody reads, is left to chance.
    assert!(matches!(run.code, Some(5 | 6)) && run.stdout.is_empty(), "{run:?}");
    assert!(run.stderr.contains("at a registry that loses uploads\n"), "{run:?}");
    assert!(run.stderr.contains("hint: replicas behind a load balancer lose uploads"), "{run:?}");
    skopeo::raw_manifest(&format!("{}/demo:1", nginx.host())).unwrap_err();
}
