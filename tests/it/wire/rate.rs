//! `--limit-rate`: what is sent is the same, only later. How much later is arithmetic, and tested beside it.

use std::{num::NonZero, time::Duration};

use longshore::registry::{Learned, Lesson, RateLimit};

use super::{CHUNK, Pusher, image::Layout, pushed_by, story};
use crate::support::{
    longshore::Longshore,
    registry::{Fault, Registry, Route, Script},
};

const MIB: usize = 1 << 20;

/// Three chunks and a bit.
const LARGE: usize = 3 * CHUNK as usize + 1000;

fn limit(bytes_per_second: u64) -> RateLimit {
    RateLimit::new(NonZero::new(bytes_per_second).unwrap())
}

/// Returns the sizes of all chunks.
fn chunks(registry: &Registry) -> Vec<usize> {
    registry.exchanges(Route::Patch).iter().filter_map(|patch| patch.content_length).collect()
}

#[test]
fn a_limited_push_arrives_whole() {
    let mut pusher = Pusher::new();
    pusher.client.rate_limit = Some(limit(4 << 20));
    // More than the burst, in frames that are cut.
    pushed_by(&pusher, &Layout::of(&[LARGE, 2 * LARGE + 1, 1000]), Script::new());
}

#[test]
fn a_limit_lower_than_the_patience_with_a_silent_peer_is_no_stall() {
    let mut pusher = Pusher::new();
    // After the burst a KiB takes eight seconds.
    pusher.client.rate_limit = Some(limit(1 << 7));
    pusher.client.timeout = Duration::from_secs(3);
    let registry = pushed_by(&pusher, &Layout::of(&[4 * CHUNK as usize + 1000]), Script::new());
    let patches = registry.exchanges(Route::Patch);
    assert_eq!(patches.len(), 5, "{}", story(&registry));
}

#[test]
fn a_peer_that_stands_still_is_noticed_all_the_same() {
    let mut pusher = Pusher::new();
    pusher.client.rate_limit = Some(limit(4 << 20));
    pusher.client.timeout = Duration::from_secs(2);
    let script = Script::new().on(Route::Patch, 2, Fault::Stall { after: 1000 });
    let registry = pushed_by(&pusher, &Layout::of(&[LARGE]), script);
    assert_eq!(registry.exchanges(Route::Patch)[1].answered, None, "{}", story(&registry));
}

#[test]
fn chunks_fit_the_limit_and_the_host_is_not_taken_for_slow() {
    let dir = tempfile::tempdir().unwrap();
    let learned = Learned::new(dir.path());
    let mut pusher = Pusher::new();
    pusher.options.chunk_size = None;
    pusher.options.learned = Some(learned.clone());
    pusher.options.jobs = 60;
    pusher.client.rate_limit = Some(limit(60 * 50_000));
    let layout = Layout::of(&[3 * MIB]);
    let registry = Registry::start(Script::new());
    let known = Lesson { rate: Some(1 << 30), ..Lesson::default() };
    learned.teach(&registry.host(), known);
    pusher.push(layout.path(), &registry).unwrap();
    // Half a minute of a sixtieth.
    let first = chunks(&registry)[0];
    assert!(first.abs_diff(1_500_000) < 64 << 10, "{}", story(&registry));
    assert_eq!(learned.lesson(&registry.host()).rate, known.rate);
}

#[test]
fn the_command_line_takes_a_limit_as_it_takes_sizes() {
    let layout = Layout::of(&[LARGE]);
    let source = layout.path().to_str().unwrap();
    let registry = Registry::honest();
    let push = |user: &Longshore, repository: &str, more: &[&str]| {
        let destination = format!("{}/{repository}:1", registry.host());
        user.run(["push", source, &destination, "--chunk-size=64KiB"].iter().chain(more))
    };
    push(&Longshore::new(), "typed", &["--limit-rate", "4MiB"]).pushed().unwrap();
    push(&Longshore::new().with_env("LONGSHORE_LIMIT_RATE", "4MiB"), "variable", &[]).pushed().unwrap();
    for repository in ["typed", "variable"] {
        for digest in &layout.blobs {
            assert!(registry.blob(repository, digest).as_ref() == Some(&layout.read(digest)), "{digest}");
        }
    }
    let asked = registry.log().len();
    for (limit, words) in [
        ("0", "`--limit-rate 0` lets nothing through"),
        ("fast", "'fast' for '--limit-rate <SIZE>': not a size; `100000`, `10MB` and `8MiB` are"),
        ("5MB/s", "not a size"),
    ] {
        let run = push(&Longshore::new(), "never", &["--limit-rate", limit]);
        assert_eq!(run.code, Some(2), "{run:?}");
        assert!(run.stderr.contains(words), "{run:?}");
    }
    assert_eq!(registry.log().len(), asked);
}

#[test]
fn the_embedded_registry_is_no_exception() {
    let (layout, dir) = (Layout::of(&[LARGE]), tempfile::tempdir().unwrap());
    let arguments = ["demo:1", "--limit-rate=4MiB", "--into", dir.path().to_str().unwrap()];
    let run = Longshore::new().run(["push", layout.path().to_str().unwrap()].iter().chain(&arguments));
    run.pushed().unwrap();
}
