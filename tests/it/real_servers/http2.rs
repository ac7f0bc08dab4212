//! HTTP/2, which is spoken when it is asked for, and where it is offered.

use std::collections::BTreeSet;

use super::{LARGE, arguments, assert_arrived, is_possible};
use crate::{
    support::{
        docker_registry::DockerRegistry,
        longshore::{Longshore, Run},
        nginx::Nginx,
    },
    wire::image::{Layout, noise},
};

/// No limit, and nothing is kept back until a body is whole.
const OPEN: &str = "client_max_body_size 0; proxy_request_buffering off;";

fn push(user: &Longshore, layout: &Layout, nginx: &Nginx, repository: &str, more: &[&str]) -> Run {
    let certificate = format!("--ca-file={}", nginx.certificate().display());
    let arguments = arguments(layout.path(), nginx.host(), repository).into_iter().chain([certificate]);
    user.run(arguments.chain(more.iter().map(|&more| more.to_owned())))
}

/// What was pushed is read from the registry behind it.
fn assert_behind(layout: &Layout, run: &Run, nginx: &Nginx, registry: &DockerRegistry, repository: &str) {
    let run = Run {
        code: run.code,
        stdout: run.stdout.replace(nginx.host(), registry.host()),
        stderr: run.stderr.clone(),
        ..*run
    };
    assert_arrived(layout, &run, registry.host(), repository);
}

#[test]
fn rule_24_http_2_is_spoken_only_if_it_is_asked_for() {
    if !is_possible() {
        return;
    }
    let registry = DockerRegistry::start();
    let layout = Layout::of(&[LARGE, LARGE / 2, 1000, 2000, 3000]);
    for (options, version, repository) in [
        (&[][..], "HTTP/1.1", "first"),
        (&["--http2"], "HTTP/2.0", "second"),
        (&["--http2", "--limit-rate=100MiB"], "HTTP/2.0", "third"),
    ] {
        let nginx = Nginx::start_tls(true, &[registry.host()], OPEN);
        let run = push(&Longshore::new(), &layout, &nginx, repository, options);
        assert_behind(&layout, &run, &nginx, &registry, repository);
        assert_eq!(nginx.versions(), BTreeSet::from([version.to_owned()]), "{options:?}");
        let certificate = format!("--ca-file={}", nginx.certificate().display());
        let arguments = ["doctor", nginx.host(), &certificate].into_iter();
        let run = Longshore::new().run(arguments.chain(options.iter().copied().filter(|&o| o == "--http2")));
        for words in [version, "its certificate is trusted"] {
            assert!(run.stdout.contains(words), "{words}: {run:?}");
        }
    }
}

#[test]
fn a_limit_that_is_stated_over_http_2_is_met_with_once() {
    if !is_possible() {
        return;
    }
    let registry = DockerRegistry::start();
    let nginx = Nginx::start_tls(true, &[registry.host()], "client_max_body_size 10m;");
    let user = Longshore::new();
    for (seed, refused) in [(1, 1), (2, 0)] {
        let layout = Layout::of_layers(&[noise(seed, LARGE)]);
        let before = nginx.too_large();
        let run = push(&user, &layout, &nginx, "demo", &["--http2"]);
        assert_behind(&layout, &run, &nginx, &registry, "demo");
        assert_eq!(nginx.too_large() - before, refused, "{run:?}");
    }
}

#[test]
fn long_heads_are_read_by_http_2_too() {
    if !is_possible() {
        return;
    }
    let registry = DockerRegistry::start();
    let layout = Layout::of(&[1000]);
    let filler = "x".repeat(4000);
    let headers =
        (0..15).map(|n| format!("add_header X-Filler-{n} {filler} always;")).collect::<Vec<_>>().join("\n");
    let nginx = Nginx::start_tls(true, &[registry.host()], &format!("{OPEN}\n{headers}"));
    let run = push(&Longshore::new(), &layout, &nginx, "demo", &["--http2"]);
    assert_behind(&layout, &run, &nginx, &registry, "demo");
    assert_eq!(nginx.versions(), BTreeSet::from(["HTTP/2.0".to_owned()]));
}

#[test]
fn where_http_2_is_not_offered_http_1_does() {
    if !is_possible() {
        return;
    }
    let registry = DockerRegistry::start();
    let layout = Layout::of(&[1000]);
    let nginx = Nginx::start_tls(false, &[registry.host()], OPEN);
    let run = push(&Longshore::new(), &layout, &nginx, "demo", &["--http2"]);
    assert_behind(&layout, &run, &nginx, &registry, "demo");
    assert_eq!(nginx.versions(), BTreeSet::from(["HTTP/1.1".to_owned()]));

    let nginx = Nginx::start(&[registry.host()], OPEN);
    let destination = arguments(layout.path(), nginx.host(), "plain");
    let run = Longshore::new().run(destination.iter().map(String::as_str).chain(["--http2"]));
    assert_behind(&layout, &run, &nginx, &registry, "plain");
}
