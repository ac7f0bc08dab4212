//! A proxy that takes no large bodies: the limit is learned from what it says, or from how it hangs up, and is
//! remembered.

use super::{LARGE, arguments, assert_arrived, is_possible};
use crate::{
    support::{docker_registry::DockerRegistry, longshore::Longshore, nginx::Nginx},
    wire::image::{Layout, noise},
};

/// Pushes one image after another by one user to a host with these settings; returns how many bodies were too
/// large in each.
fn refusals(settings: &str) -> [usize; 2] {
    let registry = DockerRegistry::start();
    let nginx = Nginx::start(&[registry.host()], settings);
    let user = Longshore::new();
    let push = |seed: u64, repository: &str| {
        let layout = Layout::of_layers(&[noise(seed, LARGE)]);
        let before = nginx.too_large();
        let run = user.run(arguments(layout.path(), nginx.host(), repository));
        let refused = nginx.too_large() - before;
        assert_arrived(&layout, &run, nginx.host(), repository);
        assert_eq!(run.stderr.contains("takes no body of 16 MiB"), refused > 0, "{run:?}");
        refused
    };
    [push(1, "first"), push(2, "second")]
}

#[test]
fn a_limit_that_nginx_states_by_413_is_met_with_once() {
    if !is_possible() {
        return;
    }
    let limit = "client_max_body_size 10m;";
    assert_eq!(refusals(limit), [1, 0]);
    assert_eq!(refusals(&format!("{limit} proxy_request_buffering off;")), [1, 0]);
}

#[test]
fn a_limit_that_is_lost_in_a_reset_is_met_with_once_too() {
    if !is_possible() {
        return;
    }
    // What is in flight is thrown away, and the answer with it.
    let [first, second] = refusals("client_max_body_size 10m; lingering_close off;");
    assert!((1..=3).contains(&first), "{first}");
    assert_eq!(second, 0);
}
