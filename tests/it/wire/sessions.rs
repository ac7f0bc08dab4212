//! What happens when an upload breaks: rules 16 to 20 and 31, and promise 4.

use std::collections::HashSet;

use longshore::{ErrorKind, error::chain, event::Event};

use super::{
    CHUNK, Pusher, REPOSITORY, assert_arrived, image::Layout, pushed, pushed_by, story, under_another_name,
    upload_story,
};
use crate::support::registry::{Fault, Lie, Manners, Registry, Route, Script};

/// Three chunks and a bit.
const LARGE: usize = 3 * CHUNK as usize + 1000;

/// A registry that has the configs already, so that the only upload is that of the layers.
pub(super) fn with_configs(layout: &Layout, script: Script) -> Registry {
    let registry = Registry::start(script);
    for digest in &layout.blobs {
        let bytes = layout.read(digest);
        if bytes.starts_with(b"{") {
            registry.seed(REPOSITORY, &bytes);
        }
    }
    registry
}

/// Pushes one layer, and returns the story of its upload.
fn upload(size: usize, script: Script) -> (Registry, Vec<String>) {
    let layout = Layout::of(&[size]);
    let registry = with_configs(&layout, script);
    let result = Pusher::new().push(layout.path(), &registry);
    if let Err(error) = result {
        panic!("{}\n{}", chain(&error), story(&registry));
    }
    assert_arrived(&layout, &registry);
    let uploaded = upload_story(&registry);
    (registry, uploaded)
}

#[test]
fn rule_16_a_chunk_of_unknown_fate_is_asked_about_until_the_answer_is_stable() {
    let broken = Fault::Cut { after: 10_000 };
    let (registry, story) = upload(LARGE, Script::new().on(Route::Patch, 2, broken));
    assert_eq!(
        story,
        [
            "Open 202",
            "Patch 0-65535 202",
            "Patch 65536-131071 -",
            "Status 204",
            "Status 204",
            "Patch 75536-141071 202",
            "Patch 141072-197607 202",
            "Commit 0 201",
        ]
    );
    assert_eq!(registry.bytes(Route::Patch), LARGE as u64, "what was kept is not sent again");
}

#[test]
fn rule_16_an_answer_that_changes_is_asked_for_again() {
    let script = Script::new().on(Route::Patch, 2, Fault::Cut { after: 10_000 }).on(
        Route::Status,
        1,
        Fault::Range(Lie::Constant("0-69999")),
    );
    let (registry, story) = upload(LARGE, script);
    assert_eq!(registry.calls(Route::Status), 3, "{story:?}");
    assert_eq!(registry.bytes(Route::Patch), LARGE as u64);
}

#[test]
fn rule_16_a_chunk_whose_answer_was_lost_is_not_sent_twice() {
    let (registry, story) = upload(LARGE, Script::new().on(Route::Patch, 2, Fault::LoseAnswer));
    assert_eq!((registry.calls(Route::Patch), registry.bytes(Route::Patch)), (4, LARGE as u64), "{story:?}");
}

#[test]
fn rule_16_a_server_error_is_no_proof_that_nothing_was_kept() {
    for status in [500, 502, 503, 504, 524] {
        let (_, story) = upload(LARGE, Script::new().on(Route::Patch, 2, Fault::status(status)));
        assert_eq!(
            story[2..5],
            [format!("Patch 65536-131071 {status}"), "Status 204".into(), "Status 204".into()]
        );
    }
}

#[test]
fn rule_16_a_stalled_chunk_is_asked_about_too() {
    let layout = Layout::of(&[LARGE]);
    let registry = with_configs(&layout, Script::new().on(Route::Patch, 2, Fault::Stall { after: 100 }));
    let mut pusher = Pusher::new();
    pusher.client.timeout = std::time::Duration::from_secs(3);
    pusher.push(layout.path(), &registry).unwrap();
    let story = upload_story(&registry);
    assert_eq!(story[2..4], ["Patch 65536-131071 -", "Status 204"], "{story:?}");
    assert_arrived(&layout, &registry);
}

/// The registry behind a proxy under the name of Amazon's.
pub(super) fn amazon(pusher: &mut Pusher, script: Script) -> (Registry, &'static str) {
    let manners = Manners {
        patch_status: 201,
        status: false,
        range: Some(Lie::Constant("0-10485759")),
        ..Manners::default()
    };
    let registry = under_another_name(pusher, script.manners(manners));
    (registry, "123456789012.dkr.ecr.eu-west-1.amazonaws.com")
}

#[test]
fn rule_17_ecr_tells_by_a_refused_chunk_where_it_is() {
    for fault in [Fault::Cut { after: 10_000 }, Fault::LoseAnswer, Fault::status(500)] {
        let mut pusher = Pusher::new();
        let (registry, host) = amazon(&mut pusher, Script::new().on(Route::Patch, 2, fault.clone()));
        let layout = Layout::of(&[LARGE]);
        if let Err(error) = pusher.push_to(layout.path(), host, "team/demo:1") {
            panic!("{fault:?}: {}\n{}", chain(&error), story(&registry));
        }
        assert_arrived(&layout, &registry);
        assert_eq!(registry.calls(Route::Status), 0);
    }
}

#[test]
fn rule_17_only_one_chunk_asks_so() {
    let mut pusher = Pusher::new();
    let script = Script::new().on(Route::Patch, 2, Fault::LoseAnswer).on(
        Route::Patch,
        3,
        Fault::Cut { after: 10_000 },
    );
    let (registry, host) = amazon(&mut pusher, script);
    let layout = Layout::of(&[LARGE]);
    pusher.push_to(layout.path(), host, "team/demo:1").unwrap();
    assert_arrived(&layout, &registry);
    // One for the config, and two for the layer.
    assert_eq!(registry.calls(Route::Open), 3, "{}", story(&registry));
}

/// No session is sent the first byte of a blob twice.
pub(super) fn assert_begun_once(registry: &Registry) {
    let mut sessions = HashSet::new();
    for exchange in registry.log() {
        let begins = match exchange.route {
            Route::Patch => exchange.content_range.is_some_and(|range| range.starts_with("0-")),
            Route::Commit => exchange.content_length > Some(0),
            _ => false,
        };
        let session = exchange.target.split('?').next().unwrap_or_default().to_owned();
        assert!(!begins || sessions.insert(session), "{}", story(registry));
    }
}

#[test]
fn rule_18_no_session_is_begun_twice_at_byte_0() {
    for keeps_partial in [true, false] {
        for fault in
            [Fault::Cut { after: 1 }, Fault::Cut { after: 10_000 }, Fault::LoseAnswer, Fault::status(500)]
        {
            let manners = Manners { keeps_partial, ..Manners::default() };
            let script = Script::new().manners(manners).on(Route::Patch, 1, fault.clone());
            let (registry, _) = upload(LARGE, script.on(Route::Patch, 2, fault));
            assert_begun_once(&registry);
        }
    }
}

#[test]
fn rule_18_nor_where_each_question_fails() {
    for deaf in [Fault::status(500), Fault::reset()] {
        for fault in [Fault::Cut { after: 10_000 }, Fault::LoseAnswer, Fault::status(502)] {
            let script = Script::new().on(Route::Patch, 2, fault).always(Route::Status, deaf.clone());
            let (registry, _) = upload(LARGE, script);
            assert_begun_once(&registry);
        }
    }
}

#[test]
fn rule_18_nor_where_the_registry_answers_no_questions() {
    for fault in [Fault::Cut { after: 10_000 }, Fault::LoseAnswer, Fault::status(500)] {
        let mut pusher = Pusher::new();
        let (registry, host) = amazon(&mut pusher, Script::new().on(Route::Patch, 1, fault));
        let layout = Layout::of(&[LARGE]);
        pusher.push_to(layout.path(), host, "team/demo:1").unwrap();
        assert_arrived(&layout, &registry);
        assert_begun_once(&registry);
    }
}

#[test]
fn rule_18_nor_where_the_registry_asks_for_it() {
    let words = "First byte of the layer part is 65536 instead of 0";
    let fault = Fault::status(416).body("text/plain", words);
    let (registry, story) = upload(LARGE, Script::new().on(Route::Patch, 2, fault));
    assert_begun_once(&registry);
    assert_eq!(registry.calls(Route::Open), 2, "{story:?}");
}

#[test]
fn rule_18_nor_where_a_whole_blob_may_have_come_in_part() {
    for fault in [Fault::Cut { after: 500 }, Fault::status(500), Fault::status(202)] {
        // A session that is asked says nothing.
        let script = Script::new().always(Route::Status, Fault::Range(Lie::Absent));
        let (registry, story) = upload(1000, script.on(Route::Commit, 1, fault));
        assert_begun_once(&registry);
        assert_eq!((registry.calls(Route::Open), registry.calls(Route::Commit)), (2, 2), "{story:?}");
    }
}

#[test]
fn rule_19_a_lost_session_restarts_that_blob_only() {
    for fault in [Fault::LoseSession, Fault::status(404)] {
        let layout = Layout::of(&[LARGE, LARGE + 1000, LARGE + 2000]);
        let script =
            Script::new().on(Route::Patch, 5, fault.clone()).on(Route::Status, 1, Fault::LoseSession);
        let registry = pushed(&layout, script);
        assert_eq!(registry.calls(Route::Open), 5, "{}", story(&registry));
        let sent = registry.bytes(Route::Patch) - 3 * (LARGE as u64 + 1000);
        // Whichever it is: the largest may be.
        assert!(sent <= LARGE as u64 + 2000, "{sent} bytes were sent again");
    }
}

#[test]
fn rule_19_the_last_of_six_sessions_is_one_put() {
    let (registry, story) = upload(LARGE, Script::new().always(Route::Patch, Fault::LoseSession));
    assert_eq!(registry.calls(Route::Open), 6);
    assert_eq!(story.last().unwrap(), &format!("Commit {LARGE} 201"));
}

#[test]
fn rule_19_a_registry_that_loses_everything_is_given_up() {
    let layout = Layout::of(&[LARGE]);
    let script = Script::new().always(Route::Patch, Fault::LoseSession);
    let registry = with_configs(&layout, script.always(Route::Commit, Fault::LoseSession));
    let error = Pusher::new().push(layout.path(), &registry).unwrap_err();
    assert_eq!((error.kind(), registry.calls(Route::Open)), (ErrorKind::Refused, 6), "{}", chain(&error));
    assert!(error.hints().iter().any(|hint| hint.contains("load balancer")));
    assert_eq!((registry.calls(Route::ManifestPut), registry.tags(REPOSITORY)), (0, vec![]));
}

#[test]
fn rule_20_a_lost_answer_to_a_commit_is_decided_by_head() {
    for size in [LARGE, 1000] {
        let (registry, story) = upload(size, Script::new().on(Route::Commit, 1, Fault::LoseAnswer));
        assert_eq!((registry.calls(Route::Commit), registry.calls(Route::Open)), (1, 1), "{story:?}");
    }
}

#[test]
fn rule_20_a_commit_that_is_said_to_have_failed_is_decided_by_head_too() {
    for size in [LARGE, 1000] {
        for status in [202, 400, 404, 409, 416, 500, 502, 503] {
            let (registry, story) = upload(size, Script::new().on(Route::Commit, 1, Fault::Belie(status)));
            assert_eq!((registry.calls(Route::Commit), registry.calls(Route::Open)), (1, 1), "{story:?}");
            assert_eq!(registry.calls(Route::BlobHead), 3, "two of them are the survey's: {story:?}");
        }
    }
}

#[test]
fn rule_20_a_commit_that_failed_is_made_again_without_the_bytes() {
    for status in [500, 503, 504] {
        let (registry, story) = upload(LARGE, Script::new().on(Route::Commit, 1, Fault::status(status)));
        assert_eq!(
            (registry.calls(Route::Commit), registry.bytes(Route::Patch)),
            (2, LARGE as u64),
            "{story:?}"
        );
    }
}

#[test]
fn rule_20_the_head_is_repeated_until_it_answers() {
    // The first two are the survey's.
    let script = Script::new()
        .on(Route::Commit, 1, Fault::LoseAnswer)
        .on(Route::BlobHead, 3, Fault::status(503))
        .on(Route::BlobHead, 4, Fault::reset());
    let (registry, story) = upload(LARGE, script);
    assert_eq!((registry.calls(Route::Commit), registry.calls(Route::BlobHead)), (1, 5), "{story:?}");
}

#[test]
fn rule_20_a_blob_of_another_size_is_not_ours() {
    let script = Script::new().on(Route::Commit, 1, Fault::status(500)).on(
        Route::BlobHead,
        3,
        Fault::status(200).header("Content-Length", "17"),
    );
    let (registry, story) = upload(LARGE, script);
    assert_eq!((registry.calls(Route::Commit), registry.calls(Route::ManifestPut)), (2, 1), "{story:?}");
}

#[test]
fn a_blob_put_together_wrongly_is_sent_again_then_in_one_piece_and_then_refused() {
    let (registry, _) = upload(LARGE, Script::new().on(Route::Commit, 1, Fault::DigestMismatch));
    assert_eq!(registry.calls(Route::Open), 2);

    let layout = Layout::of(&[LARGE]);
    let registry = with_configs(&layout, Script::new().always(Route::Commit, Fault::DigestMismatch));
    let error = Pusher::new().push(layout.path(), &registry).unwrap_err();
    assert!(chain(&error).contains("assembled different bytes"), "{}", chain(&error));
    assert_eq!((registry.calls(Route::Open), registry.tags(REPOSITORY)), (3, vec![]));
}

#[test]
fn rule_31_drips_do_not_renew_the_budget() {
    let layout = Layout::of(&[LARGE]);
    let registry = with_configs(&layout, Script::new().always(Route::Patch, Fault::AcceptOnly(3)));
    let error = Pusher::new().push(layout.path(), &registry).unwrap_err();
    assert_ne!(error.kind(), ErrorKind::Internal, "{}", chain(&error));
    assert!(registry.log().len() < 60, "{}", story(&registry));
    assert!(registry.tags(REPOSITORY).is_empty());
}

#[test]
fn rule_31_progress_renews_the_budget() {
    // Far more failures than one budget, and progress between them.
    let mut script = Script::new();
    for nth in 0..15 {
        script = script.on(Route::Patch, 2 + 2 * nth, Fault::status(503));
    }
    let (registry, _) = upload(20 * CHUNK as usize, script);
    assert_eq!(registry.calls(Route::Patch), 35);
    assert_eq!(registry.calls(Route::Open), 1);
}

#[test]
fn rule_31_the_last_rest_renews_the_budget_too() {
    let mut script = Script::new();
    for (route, nth) in [(Route::Patch, 4), (Route::Patch, 5), (Route::Commit, 1), (Route::Commit, 2)] {
        script = script.on(route, nth, Fault::status(429));
    }
    let layout = Layout::of(&[LARGE]);
    let registry = with_configs(&layout, script);
    let mut pusher = Pusher::new();
    pusher.options.retries = 2;
    if let Err(error) = pusher.push(layout.path(), &registry) {
        panic!("{}\n{}", chain(&error), story(&registry));
    }
    assert_arrived(&layout, &registry);
}

#[test]
fn rule_31_another_session_brings_no_other_budget() {
    // What is acknowledged once more is no progress.
    let mut script = Script::new().on(Route::Patch, 4, Fault::LoseSession);
    for nth in [2, 3, 6, 7] {
        script = script.on(Route::Patch, nth, Fault::status(429));
    }
    let layout = Layout::of(&[LARGE]);
    let registry = with_configs(&layout, script);
    let mut pusher = Pusher::new();
    pusher.options.retries = 3;
    let error = pusher.push(layout.path(), &registry).unwrap_err();
    assert!(chain(&error).contains("giving up after 3 attempts without progress"), "{}", chain(&error));
    let seen = [Route::Open, Route::Patch].map(|route| registry.calls(route));
    assert_eq!(seen, [2, 7], "{}", story(&registry));
}

#[test]
fn rule_31_a_registry_that_fails_for_ever_is_given_up_in_bounded_calls() {
    let places =
        [Route::BlobHead, Route::Open, Route::Patch, Route::Commit, Route::ManifestHead, Route::ManifestPut];
    let faults = [
        Fault::status(503),
        Fault::status(429),
        Fault::status(404),
        Fault::status(400),
        Fault::status(403),
        Fault::status(202),
        Fault::Unauthorized,
        Fault::reset(),
        Fault::Location(None),
        Fault::DigestMismatch,
    ];
    let layout = Layout::of(&[LARGE, 1000]);
    for route in places {
        for fault in &faults {
            let script = Script::new().always(route, fault.clone());
            let registry = Registry::start(script);
            let outcome = Pusher::new().push(layout.path(), &registry);
            let calls = registry.log().len();
            assert!(calls < 120, "{route:?} {fault:?}: {calls} calls");
            match outcome {
                Err(error) => {
                    let kind = error.kind();
                    let blamed = [ErrorKind::Network, ErrorKind::Refused, ErrorKind::Denied].contains(&kind);
                    assert!(blamed, "{route:?} {fault:?}: {}", chain(&error));
                    assert!(registry.tags(REPOSITORY).is_empty(), "{route:?} {fault:?}");
                }
                // It said that it had taken the manifest.
                Ok(_) if registry.tags(REPOSITORY).is_empty() => {
                    assert_eq!(
                        (route, registry.log().last().unwrap().answered),
                        (Route::ManifestPut, Some(202))
                    );
                }
                Ok(_) => assert_arrived(&layout, &registry),
            }
        }
    }
}

#[test]
fn rule_36_progress_is_what_the_registry_acknowledged_and_falls_with_a_lost_session() {
    let pusher = Pusher::new();
    let script = Script::new().on(Route::Patch, 3, Fault::LoseSession);
    let layout = Layout::of(&[LARGE]);
    let registry = with_configs(&layout, script);
    pusher.push(layout.path(), &registry).unwrap();
    let acknowledged =
        |event| if let Event::Acknowledged { offset, .. } = event { Some(offset) } else { None };
    let offsets: Vec<_> = pusher.events().into_iter().filter_map(acknowledged).collect();
    let large = LARGE as u64;
    assert_eq!(offsets, [CHUNK, 2 * CHUNK, 0, CHUNK, 2 * CHUNK, 3 * CHUNK, large]);
    // What was sent is told apart, and what was lost was sent.
    let sent = |event| if let Event::Sent { bytes, .. } = event { Some(bytes) } else { None };
    assert_eq!(pusher.events().into_iter().filter_map(sent).max(), Some(3 * CHUNK + large));
}

#[test]
fn without_retries_the_first_failure_is_the_last() {
    let mut pusher = Pusher::new();
    (pusher.options.retries, pusher.client.retries) = (0, 0);
    let layout = Layout::of(&[LARGE]);
    let registry = with_configs(&layout, Script::new().on(Route::Patch, 1, Fault::status(503)));
    assert_eq!(pusher.push(layout.path(), &registry).unwrap_err().kind(), ErrorKind::Network);
    assert_eq!(registry.calls(Route::Patch), 1);
    pushed_by(&pusher, &layout, Script::new());
}
