//! What hosts take, and how that is known or found out: rules 2, 7 and 8 where the line decides, and 10 to 12.

use std::time::Duration;

use longshore::{
    ErrorKind,
    error::chain,
    registry::{Learned, Lesson},
};

use super::{
    Pusher, REPOSITORY, assert_arrived,
    image::{Layout, noise},
    pushed_by, story, under_another_name, upload_story,
};
use crate::support::registry::{Fault, Manners, Registry, Route, Script};

const MIB: u64 = 1 << 20;

/// What is said where smaller chunks are no help.
const RAISE: &str = "a proxy before the registry may limit request bodies: raise its limit";

/// Chunks are as large as we would have them.
fn pusher() -> Pusher {
    let mut pusher = Pusher::new();
    pusher.options.chunk_size = None;
    pusher
}

fn layout(mib: usize) -> Layout {
    Layout::of(&[mib << 20])
}

/// Returns how many bytes each chunk had, by what its request said.
fn sizes(registry: &Registry) -> Vec<u64> {
    let patches = registry.exchanges(Route::Patch);
    patches.iter().map(|patch| patch.content_length.unwrap() as u64).collect()
}

/// A line that is remembered: so many bytes a second, and so many microseconds there and back.
fn line(rate: u64, round_trip: Option<u64>) -> Lesson {
    Lesson { rate: Some(rate), round_trip, ..Lesson::default() }
}

/// Remembers how the line to a registry is, and pushes `layout` there.
fn pushed_over_a_line(registry: &Registry, layout: &Layout, line: Lesson) -> Lesson {
    let state = tempfile::tempdir().unwrap();
    let learned = Learned::new(state.path());
    learned.teach(&registry.host(), line);
    let mut pusher = pusher();
    pusher.options.learned = Some(learned.clone());
    if let Err(error) = pusher.push(layout.path(), registry) {
        panic!("{}\n{}", chain(&error), story(registry));
    }
    assert_arrived(layout, registry);
    learned.lesson(&registry.host())
}

#[test]
fn rule_02_a_refusal_right_after_a_change_means_that_parts_must_be_equal() {
    // It does not say so. A line that is faster than was remembered has the second chunk grow.
    let registry =
        Registry::start(Script::new().manners(Manners { equal_parts: true, ..Manners::default() }));
    let layout = layout(60);
    let lesson = pushed_over_a_line(&registry, &layout, line(100_000, None));
    assert!(lesson.equal_parts);
    let story = upload_story(&registry);
    assert!(story[1..].iter().any(|line| line.ends_with(" 416")), "{story:?}");
    // One for the config, and two for the layer.
    assert_eq!(registry.calls(Route::Open), 3, "{story:?}");
}

#[test]
fn rule_07_the_first_chunk_suits_the_line_that_is_remembered() {
    // So much as goes over it in twenty round trips, of 50 ms here, within bounds.
    for (rate, first, size) in [(10, 16, 27), (25, 25, 40), (100, 60, 79)] {
        let latency = Duration::from_millis(60);
        let registry = Registry::start(Script::new().manners(Manners { latency, ..Manners::default() }));
        pushed_over_a_line(&registry, &layout(size), line(rate * MIB, Some(50_000)));
        assert_eq!(sizes(&registry)[0], first * MIB, "{rate} {}", story(&registry));
    }
}

#[test]
fn rule_07_a_chunk_grows_on_a_far_line() {
    // So far that it is far for a busy machine too: twenty round trips are longer than it takes for a chunk.
    let latency = Duration::from_millis(400);
    let far = Manners { latency, ..Manners::default() };
    let layout = layout(48);
    let registry = pushed_by(&pusher(), &layout, Script::new().manners(far.clone()));
    let grown = sizes(&registry);
    assert!(grown[0] == 16 * MIB && grown[1] > 16 * MIB && grown[1] <= 60 * MIB, "{grown:?}");
    // Not within a session whose parts are equal; and never where the user has said how large they are.
    let equal = Manners { chunk_min: Some(MIB), ..far.clone() };
    let registry = pushed_by(&pusher(), &layout, Script::new().manners(equal));
    assert_eq!(sizes(&registry), [16 * MIB; 3]);
    let mut told = pusher();
    told.options.chunk_size = Some(24 * MIB);
    assert_eq!(sizes(&pushed_by(&told, &layout, Script::new().manners(far))), [24 * MIB; 2]);
}

#[test]
fn rule_07_the_little_that_is_left_of_a_blob_says_nothing_of_the_line() {
    let state = tempfile::tempdir().unwrap();
    let mut pusher = pusher();
    pusher.options.learned = Some(Learned::new(state.path()));
    let registry = Registry::honest();
    for (size, first) in [(16 * MIB + 3, 16 * MIB), (80 * MIB, 16 * MIB)] {
        let before = registry.calls(Route::Patch);
        pusher.push(Layout::of(&[size as usize]).path(), &registry).unwrap();
        assert!(sizes(&registry)[before] >= first, "{}", story(&registry));
    }
}

#[test]
fn rule_08_on_a_slow_line_a_request_ends_within_half_a_minute() {
    // At 100 kB/s 16 MiB would take almost three minutes.
    for (chunk_min, largest) in [(Some(MIB), 3_000_000), (Some(6 * MIB), 6 * MIB)] {
        // With a minimum all parts are equal, however fast this line is in fact.
        let registry = Registry::start(Script::new().manners(Manners { chunk_min, ..Manners::default() }));
        pushed_over_a_line(&registry, &layout(20), line(100_000, None));
        let sizes = sizes(&registry);
        assert!(sizes[0].abs_diff(largest) < 64 << 10, "{sizes:?}");
        assert!(sizes[1..].iter().all(|size| *size <= sizes[0]), "{sizes:?}");
    }
}

#[test]
fn rule_10_known_hosts_get_what_they_take() {
    for (host, expected) in [
        ("ghcr.io", [4 * MIB, 4 * MIB, 4 * MIB, 4 * MIB, 4 * MIB, MIB].as_slice()),
        ("europe-docker.pkg.dev", &[]),
        ("gcr.io", &[]),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", &[10 * MIB, 10 * MIB, MIB]),
        ("public.ecr.aws", &[10 * MIB, 10 * MIB, MIB]),
        ("example.azurecr.io", &[16 * MIB, 5 * MIB]),
    ] {
        let mut pusher = pusher();
        let registry = under_another_name(&mut pusher, Script::new());
        let layout = layout(21);
        pusher.push_to(layout.path(), host, &format!("{REPOSITORY}:1")).unwrap();
        assert_arrived(&layout, &registry);
        assert_eq!(sizes(&registry), expected, "{host}");
        let whole = upload_story(&registry).contains(&format!("Commit {} 201", 21 * MIB));
        assert_eq!(whole, expected.is_empty(), "{host}");
    }
}

#[test]
fn rule_10_a_known_host_may_be_told_otherwise() {
    let mut pusher = pusher();
    pusher.options.chunk_size = Some(7 * MIB);
    let registry = under_another_name(&mut pusher, Script::new());
    pusher.push_to(layout(21).path(), "example.azurecr.io", &format!("{REPOSITORY}:1")).unwrap();
    assert_eq!(sizes(&registry), [7 * MIB, 7 * MIB, 7 * MIB]);
}

#[test]
fn rule_10_what_a_host_has_taught_is_kept() {
    let state = tempfile::tempdir().unwrap();
    let mut pusher = pusher();
    pusher.options.learned = Some(Learned::new(state.path()));
    let manners = Manners { body_limit: Some(10 * MIB), ..Manners::default() };
    let registry = pushed_by(&pusher, &layout(21), Script::new().manners(manners));
    let refused =
        |registry: &Registry| registry.log().iter().filter(|exchange| exchange.answered == Some(413)).count();
    assert_eq!(refused(&registry), 1, "{}", story(&registry));
    // By another process, another image.
    pusher.push(layout(22).path(), &registry).unwrap();
    assert_eq!(refused(&registry), 1, "{}", story(&registry));
}

#[test]
fn rule_10_what_went_through_is_no_reason_to_forget_what_was_refused() {
    // Something between what is taken in one piece and what is guessed after a refusal.
    let state = tempfile::tempdir().unwrap();
    let mut pusher = Pusher::new();
    (pusher.options.chunk_size, pusher.options.jobs) = (Some(2 * MIB), 1);
    pusher.options.learned = Some(Learned::new(state.path()));
    let manners = Manners { body_limit: Some(7 << 18), ..Manners::default() };
    let registry = Registry::start(Script::new().manners(manners));
    let layers = |seed| [3 << 19, 3 << 20, 3 << 20, 3 << 20].map(|size| noise(seed + size as u64, size));
    for seed in [1, 2] {
        let layout = Layout::of_layers(&layers(seed));
        pusher.push(layout.path(), &registry).unwrap();
        assert_arrived(&layout, &registry);
        let refused = registry.log().iter().filter(|exchange| exchange.answered == Some(413)).count();
        assert_eq!(refused, 1, "{}", story(&registry));
    }
}

#[test]
fn rule_10_what_was_asked_for_and_is_not_done_is_said_once() {
    // Two layers that are too large, and a config that is not.
    let two = |seed| Layout::of_layers(&[noise(seed, 3 << 20), noise(seed + 1, 3 << 20)]);
    let state = tempfile::tempdir().unwrap();
    let asking = |bytes| {
        let mut pusher = pusher();
        pusher.options.chunk_size = Some(bytes);
        pusher.options.learned = Some(Learned::new(state.path()));
        pusher
    };
    // Who meets with a limit tells of that.
    let manners = Manners { body_limit: Some(5 << 18), ..Manners::default() };
    let registry = Registry::start(Script::new().manners(manners));
    let meeting = asking(2 * MIB);
    meeting.push(two(1).path(), &registry).unwrap();
    assert!(meeting.warnings().iter().all(|said| said.ends_with("going on with chunks of 1 MiB")));
    // Who knows of it tells of what was asked for, at all destinations together.
    let (knowing, layout) = (asking(2 * MIB), two(3));
    let (mut push, runtime) =
        knowing.prepare(layout.path(), &registry.host(), &format!("{REPOSITORY}:1")).unwrap();
    let mut elsewhere = push.targets[0].clone();
    elsewhere.destination = format!("{}/team/other:1", registry.host()).parse().unwrap();
    push.targets.push(elsewhere);
    for pushed in runtime.block_on(push.run()).unwrap() {
        pushed.unwrap();
    }
    let host = registry.host();
    let said = format!(
        "`{host}` gets chunks of 1 MiB and not of 2 MiB, as was asked for: larger ones have been refused here; \
         `longshore doctor {host}/{REPOSITORY}` tries larger ones again"
    );
    assert_eq!(knowing.warnings(), [said]);
    // Who asks for no more than that is told nothing.
    let modest = asking(MIB);
    modest.push(two(5).path(), &registry).unwrap();
    assert_eq!(modest.warnings(), Vec::<String>::new());

    // And so it is where the registry announces what it takes.
    let manners = Manners { chunk_max: Some(MIB + (64 << 10)), ..Manners::default() };
    let registry = Registry::start(Script::new().manners(manners));
    let larger = asking(2 * MIB);
    larger.push(two(7).path(), &registry).unwrap();
    let host = registry.host();
    let said = format!(
        "`{host}` gets chunks of 1 MiB and not of 2 MiB, as was asked for: the registry announces that it takes no \
         larger ones"
    );
    assert_eq!(larger.warnings(), [said]);
    // The same for smaller ones.
    let manners = Manners { chunk_min: Some(MIB), ..Manners::default() };
    let registry = Registry::start(Script::new().manners(manners));
    let smaller = asking(MIB / 2);
    smaller.push(two(9).path(), &registry).unwrap();
    let host = registry.host();
    let said = format!(
        "`{host}` gets chunks of 1 MiB and not of 512 KiB, as was asked for: the registry announces that it takes no \
         smaller ones"
    );
    assert_eq!(smaller.warnings(), [said]);
}

#[test]
fn rule_11_a_body_too_large_begins_anew_one_rung_lower() {
    let words = r#"{"errors":[{"code":"SIZE_INVALID","message":"a chunk over the limit of 3 MiB"}]}"#;
    let ghcr = "chunk exceeds the maximum permissible limit of 4.00MiB";
    for (fault, next) in [
        (Fault::status(413), 8 * MIB),
        (Fault::status(413).body("text/html", "<h1>413 Request Entity Too Large</h1>"), 8 * MIB),
        (Fault::status(413).body("application/json", words), 3 * MIB),
        (Fault::status(416).body("text/plain", ghcr), 4 * MIB),
    ] {
        let registry = pushed_by(&pusher(), &layout(17), Script::new().on(Route::Patch, 1, fault));
        let story = upload_story(&registry);
        assert_eq!(sizes(&registry)[..2], [16 * MIB, next], "{story:?}");
        let opened = story.iter().filter(|line| line.starts_with("Open")).count();
        assert_eq!((opened, registry.calls(Route::Status)), (3, 0), "{story:?}");
    }
}

#[test]
fn rule_11_blobs_that_meet_a_limit_together_tell_of_each_rung_once() {
    let layers: Vec<_> = (0..4).map(|seed| noise(seed, 10 << 20)).collect();
    let layout = Layout::of_layers(&layers);
    let mut pusher = pusher();
    pusher.options.chunk_size = Some(9 * MIB);
    let manners = Manners { body_limit: Some(2 * MIB), ..Manners::default() };
    pushed_by(&pusher, &layout, Script::new().manners(manners));
    let said = [(9, 8), (8, 5), (5, 4), (4, 1)].map(|(refused, next)| {
        format!(
            "the registry (faults/1.0) takes no body of {refused} MiB; going on with chunks of {next} MiB"
        )
    });
    assert_eq!(pusher.warnings(), said);

    // Who has waited for its turn meanwhile meets with none of it.
    pusher.options.jobs = 1;
    let manners = Manners { body_limit: Some(2 * MIB), ..Manners::default() };
    let registry = pushed_by(&pusher, &layout, Script::new().manners(manners));
    let refused = registry.log().iter().filter(|exchange| exchange.answered == Some(413)).count();
    assert_eq!(refused, 4, "{}", story(&registry));
}

#[test]
fn rule_11_the_ladder_is_gone_down_to_its_end() {
    let layout = layout(2);
    let mut pusher = pusher();
    pusher.options.chunk_size = Some(64 * MIB);
    let registry = Registry::start(Script::new().always(Route::Commit, Fault::status(413)));
    layout.blobs[1..].iter().for_each(|digest| drop(registry.seed(REPOSITORY, &layout.read(digest))));
    // The blob is one PUT, and then two PATCHes: those are taken, and closed without a body.
    let error = pusher.push(layout.path(), &registry).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{}", chain(&error));
    assert_eq!(sizes(&registry), [MIB, MIB], "{}", story(&registry));

    let registry = Registry::start(Script::new().always(Route::Patch, Fault::status(413)));
    let error = pusher.push(self::layout(65).path(), &registry).unwrap_err();
    let kib: Vec<_> = sizes(&registry).iter().map(|size| size / 1024).collect();
    assert_eq!(kib, [65_536, 61_440, 30_720, 20_480, 16_384, 8192, 5120, 4096, 1024, 512]);
    assert!(chain(&error).contains("refuses even a body of 524288 bytes"), "{}", chain(&error));
    assert!(registry.tags(REPOSITORY).is_empty());
}

#[test]
fn rule_11_a_minimum_that_forbids_less_is_explained() {
    let manners = Manners { chunk_min: Some(10 * MIB), body_limit: Some(9 * MIB), ..Manners::default() };
    let registry = Registry::start(Script::new().manners(manners));
    let error = pusher().push(layout(40).path(), &registry).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    let words = "wants chunks of at least 10485760 bytes but takes at most 8388608";
    assert!(chain(&error).contains(words), "{}", chain(&error));
    assert_eq!(error.hints(), [RAISE]);
    // Nor is there less to be had where there are no chunks.
    let mut pusher = pusher();
    let manners = Manners { body_limit: Some(100_000), ..Manners::default() };
    let registry = under_another_name(&mut pusher, Script::new().manners(manners));
    for layout in [Layout::of(&[200_000]), layout(1)] {
        let error = pusher.push_to(layout.path(), "gcr.io", &format!("{REPOSITORY}:1")).unwrap_err();
        assert!(chain(&error).contains("and takes no chunks"), "{}\n{}", chain(&error), story(&registry));
        assert_eq!(error.hints(), [RAISE]);
    }
}

#[test]
fn rule_12_resets_at_one_place_are_a_limit_on_the_size() {
    for (most, kept) in [(10 * MIB, false), (MIB, false), (10 * MIB, true)] {
        let manners = Manners { reset_over: Some(most as usize), keeps_partial: kept, ..Manners::default() };
        let registry = pushed_by(&pusher(), &layout(40), Script::new().manners(manners));
        if !kept {
            let accepted =
                registry.exchanges(Route::Patch).into_iter().find(|patch| patch.answered.is_some());
            assert!(accepted.unwrap().content_length.unwrap() as u64 <= most, "{}", story(&registry));
            assert!(registry.calls(Route::Patch) < 60, "{}", story(&registry));
        }
    }
}
