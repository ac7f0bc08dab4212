//! The destination as a cache: layers that are there already are neither encoded nor sent.

use longshore::{
    codec::Recipe,
    event::{Event, How},
    push::Pushed,
};

use super::{
    Pusher, REPOSITORY, assert_holds,
    image::{Archive, layer, noise},
    story,
};
use crate::support::registry::{Fault, Registry, Route, Script};

fn archive(seeds: &[u64]) -> Archive {
    Archive::of_layers(seeds.iter().map(|seed| layer(&noise(*seed, 200_000))).collect(), |_| {})
}

/// The layers that a push encoded.
pub(super) fn encoded(pusher: &Pusher) -> usize {
    let layer = |event| if let Event::Encoded { blob, .. } = event { Some(blob) } else { None };
    pusher.events().into_iter().filter_map(layer).collect::<std::collections::HashSet<_>>().len()
}

#[test]
fn a_fresh_machine_reads_and_sends_no_layer_of_an_image_that_is_there() {
    let (archive, registry) = (archive(&[1, 2, 3]), Registry::honest());
    let first = Pusher::new().push(&archive.path(), &registry).unwrap();
    let sent = registry.calls(Route::Commit);
    let fresh = Pusher::new();
    let again = fresh.push(&archive.path(), &registry).unwrap();
    assert_eq!(again, Pushed { how: How::Present, bytes_sent: 0, ..first });
    assert_eq!((encoded(&fresh), registry.calls(Route::Commit)), (0, sent), "{}", story(&registry));
}

#[test]
fn only_the_layer_that_changed_is_encoded_and_sent() {
    let registry = Registry::honest();
    Pusher::new().push(&archive(&[1, 2, 3]).path(), &registry).unwrap();
    let sent = registry.calls(Route::Commit);
    let (fresh, changed) = (Pusher::new(), archive(&[1, 9, 3]));
    fresh.push(&changed.path(), &registry).unwrap();
    assert_holds(&registry, &changed.layers);
    // It and the config.
    assert_eq!((encoded(&fresh), registry.calls(Route::Commit)), (1, sent + 2), "{}", story(&registry));
}

#[test]
fn latest_is_asked_where_the_tag_is_new() {
    let (archive, registry) = (archive(&[1, 2]), Registry::honest());
    let destination = |tag: &str| format!("{REPOSITORY}:{tag}");
    Pusher::new().push_to(&archive.path(), &registry.host(), &destination("latest")).unwrap();
    let fresh = Pusher::new();
    fresh.push_to(&archive.path(), &registry.host(), &destination("new")).unwrap();
    assert_eq!(encoded(&fresh), 0, "{}", story(&registry));
    assert_eq!(registry.tags(REPOSITORY), ["latest", "new"]);
}

#[test]
fn other_repositories_are_asked_when_they_are_named_and_mounted_from() {
    let (archive, registry) = (archive(&[1, 2]), Registry::honest());
    Pusher::new().push_to(&archive.path(), &registry.host(), "team/base:7").unwrap();
    let unnamed = Pusher::new();
    unnamed.push_to(&archive.path(), &registry.host(), "team/one:1").unwrap();
    assert_eq!(encoded(&unnamed), 2);
    let mut fresh = Pusher::new();
    fresh.options.reuse_from = vec![format!("{}/team/base:7", registry.host()).parse().unwrap()];
    let bytes = registry.bytes(Route::Commit) + registry.bytes(Route::Patch);
    fresh.push_to(&archive.path(), &registry.host(), &format!("{REPOSITORY}:1")).unwrap();
    assert_holds(&registry, &archive.layers);
    assert_eq!(encoded(&fresh), 0);
    let more = registry.bytes(Route::Commit) + registry.bytes(Route::Patch) - bytes;
    assert!(more < 1000, "the config alone: {more}");
}

#[test]
fn no_reuse_and_another_encoding_reuse_nothing() {
    let (archive, registry) = (archive(&[1, 2]), Registry::honest());
    let first = Pusher::new().push(&archive.path(), &registry).unwrap();
    let mut fresh = Pusher::new();
    fresh.options.reuse = false;
    assert_eq!(fresh.push(&archive.path(), &registry).unwrap().digest, first.digest);
    assert_eq!(encoded(&fresh), 2);
    let mut zstd = Pusher::new();
    zstd.options.recipe = "zstd".parse::<Recipe>().unwrap();
    zstd.push(&archive.path(), &registry).unwrap();
    assert_eq!(encoded(&zstd), 2);
    assert_holds(&registry, &archive.layers);
}

#[test]
fn an_image_that_cannot_be_read_offers_nothing() {
    let archive = archive(&[1, 2]);
    let script = Script::new().always(Route::ManifestGet, Fault::status(403));
    let registry = Registry::start(script);
    Pusher::new().push(&archive.path(), &registry).unwrap();
    assert_holds(&registry, &archive.layers);
}

#[test]
fn a_registry_that_promised_a_layer_it_has_not_gets_it() {
    let (old, new) = (archive(&[1, 2]), archive(&[1, 3]));
    // The one manifest it refuses is that which names a layer it had offered.
    let refusal = Fault::status(400).body(
        "application/json",
        r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown"}]}"#,
    );
    let registry = Registry::start(Script::new().on(Route::ManifestPut, 2, refusal));
    Pusher::new().push(&old.path(), &registry).unwrap();
    let fresh = Pusher::new();
    fresh.push(&new.path(), &registry).unwrap();
    assert_holds(&registry, &new.layers);
    assert_eq!(encoded(&fresh), 2, "{}", story(&registry));
}
