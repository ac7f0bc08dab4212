//! How a blob is cut into requests, and what a success looks like: rules 1 to 7, 13 to 15 and 40.

use std::{sync::Arc, time::Duration};

use longshore::{ErrorKind, error::chain, event::Event};

use super::{
    CHUNK, Pusher, REPOSITORY, assert_arrived, assert_holds,
    image::{Archive, Layout, noise},
    pushed, pushed_by, story, upload_story,
};
use crate::support::registry::{Exchange, Fault, Lie, Manners, Registry, Route, Script};

const MIB: u64 = 1 << 20;

/// Three chunks and a bit.
const LARGE: usize = 3 * CHUNK as usize + 1000;

fn mannered(manners: Manners) -> Script {
    Script::new().manners(manners)
}

/// Returns first and last byte of every chunk.
fn ranges(registry: &Registry) -> Vec<(u64, u64)> {
    let range = |exchange: Exchange| {
        let range = exchange.content_range.unwrap();
        let (first, last) = range.split_once('-').unwrap();
        (first.parse().unwrap(), last.parse().unwrap())
    };
    registry.exchanges(Route::Patch).into_iter().map(range).collect()
}

fn sizes(registry: &Registry) -> Vec<u64> {
    ranges(registry).into_iter().map(|(first, last)| last + 1 - first).collect()
}

#[test]
fn rule_01_every_patch_states_its_length_and_its_place() {
    let registry = pushed(&Layout::of(&[LARGE, LARGE + 77]), Script::new());
    let patches = registry.exchanges(Route::Patch);
    assert_eq!(patches.len(), 8);
    for (patch, (first, last)) in patches.iter().zip(ranges(&registry)) {
        assert_eq!(patch.content_length, Some((last + 1 - first) as usize));
        assert_eq!(patch.received, last + 1 - first);
        assert_eq!(patch.header("Content-Type"), Some("application/octet-stream"));
        assert!(!patch.chunked);
    }
}

#[test]
fn rule_01_no_request_at_all_is_sent_in_pieces_of_unstated_number() {
    let registry = pushed(&Layout::of(&[LARGE, 500]), Script::new());
    for exchange in registry.log() {
        let carries = !matches!(exchange.method.as_str(), "GET" | "HEAD");
        assert!(!exchange.chunked && (!carries || exchange.content_length.is_some()), "{exchange:?}");
    }
}

#[test]
fn rule_02_an_advertised_limit_means_equal_parts_and_a_smaller_last_one() {
    let manners = Manners { chunk_max: Some(100_000), equal_parts: true, ..Manners::default() };
    let registry = pushed(&Layout::of(&[450_000]), mannered(manners));
    let sizes = sizes(&registry);
    let (last, equal) = sizes.split_last().unwrap();
    assert!(equal.iter().all(|size| *size == CHUNK) && *last < CHUNK, "{sizes:?}");
}

#[test]
fn rule_02_equal_parts_survive_a_chunk_that_broke() {
    // Nothing of the broken one is kept, so all sessions have parts of one size.
    let manners =
        Manners { chunk_min: Some(50_000), equal_parts: true, keeps_partial: false, ..Manners::default() };
    let script = mannered(manners).on(Route::Patch, 3, Fault::Cut { after: 10_000 });
    let registry = pushed(&Layout::of(&[450_000]), script);
    let sizes = sizes(&registry);
    let (last, equal) = sizes.split_last().unwrap();
    assert!(equal.iter().all(|size| *size == CHUNK) && *last < CHUNK, "{sizes:?}");
}

#[test]
fn rule_03_the_last_chunk_is_never_one_byte() {
    let registry = pushed(&Layout::of(&[3 * CHUNK as usize + 1]), Script::new());
    let sizes = sizes(&registry);
    assert!(sizes.iter().all(|size| *size > 1), "{sizes:?}");
    assert!(sizes.windows(3).all(|three| three[0] == three[1]), "all but the last are equal: {sizes:?}");
}

#[test]
fn rule_03_nor_where_the_size_is_known_only_at_the_end() {
    // An image, and a size of chunks of which one byte would be left.
    let badly_divided = |size| {
        let archive = Archive::of(&[size]);
        let registry = Registry::honest();
        Pusher::new().push(&archive.path(), &registry).unwrap();
        let encoded = registry.bytes(Route::Patch);
        (10_000..MIB).find(|chunk| encoded % chunk == 1).map(|chunk| (archive, encoded, chunk))
    };
    let (archive, encoded, chunk) = (8 << 20..).find_map(badly_divided).unwrap();

    // Where a minimum is advertised, the size of the chunks is not chosen anew on the way.
    for chunk_min in [None, Some(5000)] {
        let registry = Arc::new(Registry::start(mannered(Manners { chunk_min, ..Manners::default() })));
        let opened = Arc::clone(&registry);
        // The encoder goes on when the upload has begun: that of the config, and that of the layer.
        let mut pusher = Pusher::new().acting(move |event| {
            if matches!(event, Event::Encoded { plain, .. } if *plain > 3 * MIB) {
                opened.wait_for(Route::Open, 2);
            }
        });
        pusher.options.chunk_size = Some(chunk);
        pusher.push(&archive.path(), &registry).unwrap();
        assert_holds(&registry, &archive.layers);
        let sizes = sizes(&registry);
        assert!(sizes.iter().all(|size| *size > 1), "{sizes:?}");
        assert_eq!(sizes.iter().sum::<u64>(), encoded);
    }
}

#[test]
fn rule_03_a_blob_of_one_byte_is_one_put_without_a_range() {
    let registry = pushed(&Layout::of(&[1]), Script::new());
    let puts = registry.exchanges(Route::Commit);
    assert!(puts.iter().any(|put| put.content_length == Some(1)), "{}", story(&registry));
    assert!(puts.iter().all(|put| put.content_range.is_none()));
    assert_eq!(registry.calls(Route::Patch), 0);
}

#[test]
fn rule_04_the_closing_put_has_no_body_after_a_patch() {
    // Such a body would be dropped.
    let manners = Manners { keeps_closing_body: false, ..Manners::default() };
    let registry = pushed(&Layout::of_layers(&[noise(1, LARGE)]), mannered(manners));
    let puts: Vec<_> = registry.exchanges(Route::Commit).iter().map(|put| put.content_length).collect();
    let config = puts.iter().flatten().filter(|length| **length > 0).count();
    assert_eq!((puts.len(), config), (2, 1), "{}", story(&registry));
}

#[test]
fn rule_04_nor_where_chunks_have_outgrown_the_blob() {
    // On a line so far the second chunk could be as large as the whole blob.
    let mut pusher = Pusher::new();
    pusher.options.chunk_size = None;
    let far = Manners { latency: Duration::from_millis(200), ..Manners::default() };
    let registry = pushed_by(&pusher, &Layout::of(&[20 * MIB as usize]), mannered(far));
    assert_eq!(sizes(&registry), [16 * MIB, 4 * MIB], "{}", story(&registry));
}

#[test]
fn rule_04_a_blob_of_one_chunk_is_one_put() {
    let registry = pushed(&Layout::of(&[CHUNK as usize]), Script::new());
    let story = upload_story(&registry);
    assert!(story.contains(&format!("Commit {CHUNK} 201")), "{story:?}");
    assert_eq!(registry.calls(Route::Patch), 0);
}

#[test]
fn a_blob_of_one_chunk_that_is_refused_in_one_put_goes_in_a_patch() {
    for refusal in [500, 405] {
        let manners = Manners { refuses_whole: Some(refusal), ..Manners::default() };
        let layout = Layout::of(&[CHUNK as usize, 1000, LARGE]);
        let registry = pushed(&layout, mannered(manners));
        let puts = registry.exchanges(Route::Commit);
        let refused = puts.iter().filter(|put| put.answered == Some(refusal)).count();
        // The config too: all small ones go at once, and each is refused once.
        assert!((1..=3).contains(&refused) && puts.len() == 4 + refused, "{}", story(&registry));
        assert!([CHUNK, 1000].iter().all(|size| sizes(&registry).contains(size)), "{}", story(&registry));
    }
}

#[test]
fn rule_05_the_minimum_beats_our_size_and_the_maximum_beats_all() {
    for (wanted, chunk_min, chunk_max, expected) in [
        (CHUNK, Some(100_000), None, 100_000),
        (CHUNK, None, Some(50_000), 50_000 - 50_000 / 16),
        (10 * MIB, Some(1000), Some(MIB), MIB - (64 << 10)),
        (10 * MIB, Some(MIB), Some(MIB), MIB),
    ] {
        let mut pusher = Pusher::new();
        pusher.options.chunk_size = Some(wanted);
        let manners = Manners { chunk_min, chunk_max, ..Manners::default() };
        let registry = pushed_by(&pusher, &Layout::of(&[3 * MIB as usize]), mannered(manners));
        let sizes = sizes(&registry);
        assert_eq!(sizes.iter().max(), Some(&expected), "{wanted} {chunk_min:?} {chunk_max:?}");
    }
    // Even the minimum.
    let manners = Manners { chunk_max: Some(MIB), ..Manners::default() };
    let script = mannered(manners).always(Route::Open, Fault::Header("OCI-Chunk-Min-Length", "2097152"));
    assert_eq!(sizes(&pushed(&Layout::of(&[3 * MIB as usize]), script)), [MIB; 3]);
}

#[test]
fn rule_05_a_large_blob_has_at_most_four_thousand_chunks() {
    let mut pusher = Pusher::new();
    pusher.options.chunk_size = Some(100);
    let registry = pushed_by(&pusher, &Layout::of(&[450_000]), Script::new());
    assert_eq!(sizes(&registry).into_iter().max(), Some(113));
    assert!(registry.calls(Route::Patch) <= 4000);
}

#[test]
fn rule_05_limits_are_read_from_a_status_too() {
    let script = Script::new()
        .on(Route::Patch, 2, Fault::Cut { after: 5000 })
        .on(Route::Status, 1, Fault::Header("OCI-Chunk-Max-Length", "32000"))
        .on(Route::Status, 2, Fault::Header("OCI-Chunk-Max-Length", "32000"))
        .on(Route::Patch, 3, Fault::LoseSession);
    let registry = pushed(&Layout::of(&[LARGE]), script);
    // The session after the next one obeys it.
    assert!(sizes(&registry)[3..].iter().all(|size| *size <= 32_000), "{}", story(&registry));
}

#[test]
fn rule_05_garbage_is_told_and_an_absurd_minimum_refused() {
    for (name, value) in [("oci-chunk-min-length", "lots"), ("oci-chunk-max-length", "-5")] {
        let pusher = Pusher::new();
        let script = Script::new().always(Route::Open, Fault::Header(name, value));
        let registry = pushed_by(&pusher, &Layout::of(&[LARGE]), script);
        assert_eq!(sizes(&registry)[0], CHUNK);
        assert!(pusher.warnings().iter().any(|text| text.contains(name)), "{:?}", pusher.warnings());
    }

    let script = Script::new().always(Route::Open, Fault::Header("OCI-Chunk-Min-Length", "2000000000"));
    let registry = Registry::start(script);
    let error = Pusher::new().push(Layout::of(&[LARGE]).path(), &registry).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(chain(&error).contains("more than 1 GiB"), "{}", chain(&error));
    assert_eq!((registry.calls(Route::Patch), registry.tags(REPOSITORY)), (0, vec![]));
}

#[test]
fn rule_06_the_maximum_is_honoured_in_any_case_of_its_name() {
    for name in ["OCI-Chunk-Max-Length", "oci-chunk-max-length", "Oci-CHUNK-max-Length"] {
        let script = Script::new().always(Route::Open, Fault::Header(name, "40000"));
        let registry = pushed(&Layout::of(&[LARGE]), script);
        assert!(sizes(&registry).iter().all(|size| *size <= 40_000), "{name}");
    }
}

#[test]
fn rule_07_chunks_suit_distribution_on_s3() {
    for (chunk_max, expected) in [
        // No small rest is left.
        (None, [16 * MIB, 19 * MIB].as_slice()),
        // 13 MiB would be a part of 10 and one of 3.
        (Some(13 * MIB), &[10 * MIB, 10 * MIB, 10 * MIB, 5 * MIB]),
    ] {
        let mut pusher = Pusher::new();
        pusher.options.chunk_size = None;
        let manners = Manners { chunk_max, ..Manners::default() };
        let registry = pushed_by(&pusher, &Layout::of(&[35 * MIB as usize]), mannered(manners));
        assert_eq!(sizes(&registry), expected);
    }
}

#[test]
fn rule_13_an_early_success_is_none() {
    let mut pusher = Pusher::new();
    pusher.options.chunk_size = Some(32 * MIB);
    let script = Script::new().on(Route::Patch, 1, Fault::early_and_linger(202, 64 << 10));
    let registry = pushed_by(&pusher, &Layout::of(&[33 * MIB as usize]), script);
    assert!(registry.calls(Route::Status) > 0, "{:?}", ranges(&registry));
}

#[test]
fn rule_13_an_early_answer_stops_the_body() {
    let mut pusher = Pusher::new();
    pusher.options.chunk_size = Some(32 * MIB);
    let layout = Layout::of(&[33 * MIB as usize]);
    let script = Script::new().on(Route::Patch, 1, Fault::early_and_linger(413, 64 << 10));
    let registry = pushed_by(&pusher, &layout, script);
    let patches = registry.exchanges(Route::Patch);
    assert!(patches[0].received + patches[0].late < 32 * MIB, "all was sent in spite of the answer");
    // And the answer was used: a new session with less.
    assert_eq!(ranges(&registry)[1], (0, 30 * MIB - 1));
    assert_eq!(registry.calls(Route::Status), 0);
}

#[test]
fn rule_13_a_reset_after_the_answer_does_no_harm() {
    // Whether the answer arrives before the reset is up to the kernel; both ways lead to the end.
    let mut pusher = Pusher::new();
    pusher.options.chunk_size = Some(4 * MIB);
    let script = Script::new().on(Route::Patch, 1, Fault::early(413, 64 << 10));
    pushed_by(&pusher, &Layout::of(&[9 * MIB as usize]), script);
}

#[test]
fn rule_14_every_success_of_a_patch_is_one() {
    for patch_status in [200, 201, 202, 204] {
        let manners = Manners { patch_status, ..Manners::default() };
        let registry = pushed(&Layout::of(&[LARGE]), mannered(manners));
        assert_eq!((registry.calls(Route::Patch), registry.calls(Route::Status)), (4, 0), "{patch_status}");
    }
}

#[test]
fn rule_14_a_put_answered_by_202_is_checked() {
    let layout = Layout::of(&[LARGE]);
    // Nothing is done, whatever it says: the HEAD finds that out.
    let registry = pushed(&layout, Script::new().on(Route::Commit, 1, Fault::status(202)));
    let seen = [Route::Commit, Route::ManifestPut].map(|route| registry.calls(route));
    assert_eq!(seen, [3, 1], "{}", story(&registry));
}

#[test]
fn rule_15_every_spelling_of_a_range_is_understood() {
    for lie in [
        Lie::Absent,
        Lie::BytesUnit,
        Lie::Constant("0--1"),
        Lie::Constant("0-10485759"),
        Lie::Constant("bytes 0-5/*"),
        Lie::Constant("\u{7f}=0-99999999999999999999999"),
        Lie::Constant(""),
        Lie::LastChunkOnly,
        Lie::OffByOne,
    ] {
        let manners = Manners { range: Some(lie.clone()), ..Manners::default() };
        let registry = pushed(&Layout::of(&[LARGE]), mannered(manners));
        let twice = registry.bytes(Route::Patch) - LARGE as u64;
        assert!(twice <= 2 * CHUNK, "{lie:?}: {twice} bytes were sent again\n{}", story(&registry));
    }
}

#[test]
fn rule_15_a_chunk_kept_in_part_is_completed() {
    let layout = Layout::of(&[LARGE]);
    let registry = pushed(&layout, Script::new().on(Route::Patch, 2, Fault::AcceptOnly(1000)));
    assert_eq!(ranges(&registry)[2].0, CHUNK + 1000);
    assert_arrived(&layout, &registry);
}

#[test]
fn rule_15_a_short_range_that_is_a_lie_costs_one_refused_chunk() {
    // It kept everything, and says half; the 416 at the half reveals it.
    let lie = Lie::Constant("0-99999");
    let script = Script::new().on(Route::Patch, 2, Fault::Range(lie));
    let registry = pushed(&Layout::of(&[LARGE]), script);
    let starts: Vec<_> = ranges(&registry).iter().map(|(first, _)| *first).collect();
    assert_eq!(starts[..4], [0, CHUNK, 100_000, 2 * CHUNK], "{}", story(&registry));
}

#[test]
fn rule_40_the_empty_blob_is_an_empty_put() {
    let registry = pushed(&Layout::of_layers(&[Vec::new(), noise(1, 100)]), Script::new());
    let empty: Vec<_> = registry.exchanges(Route::Commit);
    assert!(empty.iter().any(|put| put.content_length == Some(0)), "{}", story(&registry));
    assert_eq!(registry.calls(Route::Patch), 0);
}

#[test]
fn rule_40_a_host_that_refuses_the_empty_blob_is_told_of() {
    let layout = Layout::of_layers(&[Vec::new()]);
    let registry = Registry::start(Script::new().always(Route::Commit, Fault::status(400)));
    registry.seed(REPOSITORY, &layout.read(&layout.blobs[1]));
    let error = Pusher::new().push(layout.path(), &registry).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(chain(&error).contains("refuses the empty blob"), "{}", chain(&error));
    assert!(registry.tags(REPOSITORY).is_empty());
}
