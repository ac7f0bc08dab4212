//! How much goes on at once, and when nothing may: rules 24 and 30, `--jobs`.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
    time::Duration,
};

use longshore::{
    ErrorKind,
    event::Event,
    registry::{Sightings, retry::Pace},
};
use tempfile::TempDir;

use super::{
    CHUNK, Pusher, REPOSITORY, assert_arrived, image::Layout, pushed, pushed_by, story, upload_story,
};
use crate::support::registry::{Fault, Manners, Registry, Route, Script};

/// Three chunks and a bit.
const LARGE: usize = 3 * CHUNK as usize + 1000;

/// Returns how many uploads in chunks were under way at once, at most.
fn most_chunked(registry: &Registry) -> usize {
    let mut open = BTreeSet::new();
    let mut most = 0;
    for exchange in registry.log() {
        let session = exchange.target.split('?').next().unwrap_or_default().to_owned();
        match exchange.route {
            Route::Patch => open.insert(session),
            Route::Commit => open.remove(&session),
            _ => continue,
        };
        most = most.max(open.len());
    }
    most
}

fn most_in_flight(registry: &Registry, route: Route) -> usize {
    registry.exchanges(route).iter().map(|exchange| exchange.in_flight).max().unwrap_or(0)
}

#[test]
fn jobs_limit_large_blobs_while_small_ones_go_by() {
    for jobs in [1, 2, 3] {
        let mut pusher = Pusher::new();
        pusher.options.jobs = jobs;
        let small = 9;
        let sizes: Vec<_> = (0..5).map(|n| LARGE + n).chain((0..small).map(|n| 1000 + n)).collect();
        let mut script = Script::new();
        for nth in 1..=jobs {
            // All places are taken until every small blob, and the config, has been committed.
            script = script.on(Route::Patch, nth, Fault::Await { route: Route::Commit, calls: small + 1 });
        }
        let registry = pushed_by(&pusher, &Layout::of(&sizes), script);
        assert_eq!(most_chunked(&registry), jobs, "{}", story(&registry));
    }
}

#[test]
fn an_upload_is_opened_while_other_blobs_are_asked_about() {
    // Nothing more is said about blobs until an upload was opened.
    let script = Script::new().always(Route::BlobHead, Fault::Await { route: Route::Open, calls: 1 }).on(
        Route::BlobHead,
        1,
        Fault::Header("X-Answer", "at once"),
    );
    let registry = pushed(&Layout::of(&[LARGE, 1000, 2000]), script);
    assert_eq!((registry.calls(Route::Open), registry.calls(Route::Cancel)), (4, 0), "{}", story(&registry));
}

#[test]
fn an_upload_that_was_opened_in_vain_is_given_back() {
    // A blob may not be asked about, and that is told when an upload was opened.
    let script = Script::new()
        .on(Route::BlobHead, 2, Fault::status(403))
        .always(Route::BlobGet, Fault::Await { route: Route::Open, calls: 1 });
    let registry = Registry::start(script);
    let error = Pusher::new().push(Layout::of(&[LARGE, 1000]).path(), &registry).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let seen = [Route::Open, Route::Cancel, Route::Patch, Route::Commit].map(|route| registry.calls(route));
    assert_eq!(seen, [1, 1, 0, 0], "{}", story(&registry));
}

/// A machine that remembers what it has left at registries.
fn with_memory(state: &TempDir) -> Pusher {
    let mut pusher = Pusher::new();
    pusher.options.sightings = Some(Sightings::new(state.path()));
    pusher
}

fn routes(registry: &Registry) -> Vec<Route> {
    registry.log().iter().map(|exchange| exchange.route).collect()
}

#[test]
fn where_an_image_was_never_left_everything_is_asked_at_once() {
    // Nothing is said about the image before an upload was opened and every blob asked about.
    let script = Script::new().on(Route::ManifestHead, 1, Fault::Await { route: Route::Open, calls: 1 }).on(
        Route::Open,
        1,
        Fault::Await { route: Route::BlobHead, calls: 4 },
    );
    let (state, layout) = (tempfile::tempdir().unwrap(), Layout::of(&[LARGE, 1000, 2000]));
    let pusher = with_memory(&state);
    let registry = pushed_by(&pusher, &layout, script);
    let seen = [Route::BlobHead, Route::Open, Route::Cancel].map(|route| registry.calls(route));
    assert_eq!(seen, [4, 4, 0], "{}", story(&registry));
    // Where it was, there is one question.
    let before = registry.log().len();
    pusher.push(layout.path(), &registry).unwrap();
    assert_eq!(routes(&registry)[before..], [Route::ManifestHead]);
}

#[test]
fn what_is_there_already_is_found_by_a_machine_that_knows_nothing() {
    let layout = Layout::of(&[LARGE, 1000]);
    let registry = pushed(&layout, Script::new());
    let before = registry.log().len();
    let state = tempfile::tempdir().unwrap();
    with_memory(&state).push(layout.path(), &registry).unwrap();
    let mut asked = routes(&registry).split_off(before);
    // What was opened ahead is given back.
    let count = |wanted: Route| asked.iter().filter(|route| **route == wanted).count();
    assert_eq!((count(Route::Open), count(Route::Cancel)), (1, 1), "{}", story(&registry));
    asked.retain(|route| !matches!(route, Route::Open | Route::Cancel | Route::BlobHead));
    assert_eq!(asked, [Route::ManifestHead]);
    let before = registry.log().len();
    with_memory(&state).push(layout.path(), &registry).unwrap();
    assert_eq!(routes(&registry)[before..], [Route::ManifestHead], "now it knows");
}

#[test]
fn an_upload_opened_for_a_blob_that_is_there_is_for_the_next() {
    let (state, layout) = (tempfile::tempdir().unwrap(), Layout::of(&[LARGE, 1000]));
    let registry = Registry::honest();
    let largest = layout.blobs.iter().map(|digest| layout.read(digest)).max_by_key(Vec::len).unwrap();
    registry.seed(REPOSITORY, &largest);
    with_memory(&state).push(layout.path(), &registry).unwrap();
    let seen = [Route::Open, Route::Cancel].map(|route| registry.calls(route));
    assert_eq!(seen, [2, 0], "{}", story(&registry));
    assert_arrived(&layout, &registry);
}

#[test]
fn a_refusal_of_what_is_asked_ahead_is_none() {
    let script = Script::new()
        .on(Route::Open, 1, Fault::status(403))
        .on(Route::BlobHead, 1, Fault::status(403))
        .on(Route::BlobHead, 2, Fault::status(500))
        .on(Route::BlobHead, 3, Fault::reset());
    let state = tempfile::tempdir().unwrap();
    let registry = pushed_by(&with_memory(&state), &Layout::of(&[LARGE, 1000, 2000]), script);
    assert_eq!(registry.calls(Route::Open), 5, "{}", story(&registry));
}

#[test]
fn small_blobs_share_24_connections() {
    let sizes: Vec<_> = (0..40).map(|n| 1000 + n).collect();
    let script = Script::new().always(Route::Commit, Fault::Await { route: Route::Commit, calls: 24 });
    let registry = pushed(&Layout::of(&sizes), script);
    assert_eq!(most_in_flight(&registry, Route::Commit), 24, "{}", story(&registry));
    assert!(most_in_flight(&registry, Route::BlobHead) <= 24);
}

#[test]
fn small_blobs_share_16_mebibytes() {
    let mut pusher = Pusher::new();
    pusher.options.chunk_size = None;
    let script = Script::new().always(Route::Commit, Fault::Await { route: Route::Commit, calls: 3 });
    let registry = pushed_by(&pusher, &Layout::of(&[5 << 20, 5 << 20, 5 << 20, 5 << 20, 5 << 20]), script);
    let puts = registry.exchanges(Route::Commit);
    // Three of them and the config.
    assert!(puts.iter().all(|put| put.in_flight <= 4), "{}", story(&registry));
}

#[test]
fn the_first_429_halves_the_connections_of_small_blobs() {
    let sizes: Vec<_> = (0..60).map(|n| 1000 + n).collect();
    let registry = Arc::new(OnceLock::<Registry>::new());
    let heard = Arc::clone(&registry);
    // The other uploads are held until this one has heard that it shall wait.
    let pusher = Pusher::new().acting(move |event| {
        if let (Event::Waiting { .. }, Some(registry)) = (event, heard.get()) {
            registry.release();
        }
    });
    let held = Fault::Await { route: Route::Open, calls: usize::MAX };
    let script = Script::new().on(Route::Open, 1, Fault::status(429)).always(Route::Open, held);
    let registry = registry.get_or_init(|| Registry::start(script));
    let layout = Layout::of(&sizes);
    pusher.push(layout.path(), registry).unwrap();
    assert_arrived(&layout, registry);
    // What was under way already goes on.
    let late = registry.exchanges(Route::Commit).split_off(30);
    assert!(late.iter().all(|put| put.in_flight <= 12), "{}", story(registry));
}

#[test]
fn rule_24_http_2_is_not_even_asked_for() {
    let registry = Registry::start(Script::new().manners(Manners { tls: true, ..Manners::default() }));
    let mut pusher = Pusher::new();
    pusher.client.insecure = true;
    let layout = Layout::of(&[LARGE]);
    pusher.push(layout.path(), &registry).unwrap();
    assert_arrived(&layout, &registry);
}

#[test]
fn rule_24_one_connection_serves_many_requests() {
    let registry = pushed(&Layout::of(&[20 * CHUNK as usize]), Script::new());
    let connections: BTreeSet<_> =
        registry.exchanges(Route::Patch).iter().map(|exchange| exchange.connection).collect();
    assert!(connections.len() < 10, "{connections:?}");
}

#[test]
fn rule_30_retry_after_pauses_the_whole_host() {
    // 1000 s by our clock here.
    let pause = Duration::from_millis(200);
    let pace = Pace { scale: 0.000_2, longest: Duration::from_secs(3600), random: || 0.0 };
    for status in [429, 503] {
        let registry = Arc::new(OnceLock::<Registry>::new());
        let heard = Arc::clone(&registry);
        // The other uploads are held until this one has heard that it shall wait. It is not the first, which is opened
        // while questions are still on their way.
        let mut pusher = Pusher::new().acting(move |event| {
            if let (Event::Waiting { .. }, Some(registry)) = (event, heard.get()) {
                registry.release();
            }
        });
        (pusher.options.pace, pusher.client.pace) = (pace, pace);
        let held = || Fault::Await { route: Route::Open, calls: usize::MAX };
        let script = Script::new()
            .on(Route::Open, 1, held())
            .on(Route::Open, 2, Fault::status(status).header("Retry-After", "1000"))
            .on(Route::Open, 3, held());
        let registry = registry.get_or_init(|| Registry::start(script));
        let layout = Layout::of(&[LARGE, 1000]);
        pusher.push(layout.path(), registry).unwrap();
        assert_arrived(&layout, registry);
        let log = registry.log();
        let refused = log.iter().position(|exchange| exchange.answered == Some(status)).unwrap();
        for later in log[refused + 1..].iter().filter(|exchange| exchange.route != Route::Open) {
            assert!(later.at - log[refused].at >= pause, "{later:?}");
        }
        let waited = |event: &Event| matches!(event, Event::Waiting { pause: told, .. } if *told == pause);
        assert!(pusher.events().iter().any(waited), "{:?}", pusher.events());
    }
}

#[test]
fn rule_30_a_body_is_rate_limited_too() {
    let layout = Layout::of(&[LARGE]);
    let limited = Fault::status(429).header("Retry-After", "60");
    let registry = Registry::start(Script::new().on(Route::Patch, 2, limited));
    layout.blobs[1..].iter().for_each(|digest| drop(registry.seed(REPOSITORY, &layout.read(digest))));
    Pusher::new().push(layout.path(), &registry).unwrap();
    let story = upload_story(&registry);
    assert_eq!(story[2..4], ["Patch 65536-131071 429", "Patch 65536-131071 202"], "{story:?}");
}

/// Returns the pauses that uploads made, in microseconds.
fn pauses(pusher: &Pusher) -> Vec<u128> {
    let pause = |event| if let Event::Waiting { pause, .. } = event { Some(pause.as_micros()) } else { None };
    pusher.events().into_iter().filter_map(pause).collect()
}

/// Takes a microsecond for a second.
fn hasty(scale: f64, random: fn() -> f64) -> Pusher {
    let mut pusher = Pusher::new();
    let pace = Pace { scale: scale * 0.000_001, longest: Duration::from_secs(3600), random };
    (pusher.options.pace, pusher.client.pace) = (pace, pace);
    pusher
}

#[test]
fn rule_30_it_may_be_a_date_and_is_obeyed_within_reason() {
    let limited = |asked| {
        let limited = Fault::status(503).header("Retry-After", asked);
        Script::new().on(Route::Open, 1, limited.header("Date", "Sun, 06 Nov 1994 08:49:37 GMT"))
    };
    for asked in ["1000", "Sun, 06 Nov 1994 09:06:17 GMT"] {
        let pusher = hasty(1.0, || 1.0);
        pushed_by(&pusher, &Layout::of_layers(&[]), limited(asked));
        assert_eq!(pauses(&pusher), [1000], "{asked}");
    }
    // Nobody waits for tomorrow.
    for asked in ["86400", "Mon, 07 Nov 1994 08:49:37 GMT"] {
        let (pusher, registry) = (hasty(1.0, || 1.0), Registry::start(limited(asked)));
        let error = pusher.push(Layout::of_layers(&[]).path(), &registry).unwrap_err();
        assert_eq!((error.kind(), registry.calls(Route::Open)), (ErrorKind::Network, 1));
        assert_eq!(pauses(&pusher), [0; 0], "{asked}");
    }
}

#[test]
fn rule_30_without_it_pauses_double_up_to_a_minute() {
    // Of the whole of it as much as the dice say.
    for (scale, random) in [(1.0, (|| 1.0) as fn() -> f64), (2.0, || 0.5)] {
        let mut pusher = hasty(scale, random);
        pusher.options.retries = 8;
        let registry = Registry::start(Script::new().always(Route::Open, Fault::status(503)));
        let error = pusher.push(Layout::of_layers(&[]).path(), &registry).unwrap_err();
        assert_eq!((error.kind(), registry.calls(Route::Open)), (ErrorKind::Network, 9));
        assert_eq!(pauses(&pusher), [1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
