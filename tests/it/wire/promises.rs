//! Promises 1 to 5: no tag moves early, what arrives is what was described, the same input is the same digest,
//! nothing is encoded twice.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{Arc, Once},
};

use longshore::{ErrorKind, cache::Cache, error::chain, event::Event, oci::Digest};

use super::{
    CHUNK, Pusher, REPOSITORY, assert_arrived, assert_holds,
    image::{Archive, Layout, gzip, layer, noise},
    pushed_by, story,
};
use crate::support::registry::{Exchange, Fault, Registry, Route, Script};

/// Three chunks and a bit.
const LARGE: usize = 3 * CHUNK as usize + 1000;

/// Changes one byte of a file.
fn flip(path: &Path, at: usize) {
    let mut bytes = fs_err::read(path).unwrap();
    bytes[at] ^= 1;
    fs_err::write(path, bytes).unwrap();
}

/// Pushes what is damaged: refused as the source's fault, without a manifest. Returns the message.
fn refused(pusher: &Pusher, path: &Path, registry: &Registry) -> String {
    let error = pusher.push(path, registry).unwrap_err();
    let said = chain(&error);
    assert_eq!(error.kind(), ErrorKind::Source, "{said}");
    assert_eq!(
        (registry.calls(Route::ManifestPut), registry.tags(REPOSITORY)),
        (0, vec![]),
        "{}",
        story(registry)
    );
    said
}

#[test]
fn promise_1_a_manifest_goes_after_every_blob() {
    let images = [vec![noise(1, LARGE), noise(2, 10)], vec![noise(3, 2 * LARGE), noise(4, 20)]];
    let layout = Layout::index(&[&images[0], &images[1]]);
    let archive = Archive::of(&[LARGE, 10, 2 * LARGE]);
    for path in [layout.path().to_owned(), archive.path(), archive.compressed()] {
        let registry = Registry::honest();
        Pusher::new().push(&path, &registry).unwrap();
        let log = registry.log();
        let first = log.iter().position(|exchange| exchange.route == Route::ManifestPut).unwrap();
        let confirmed =
            |exchange: &&Exchange| exchange.route == Route::Commit && exchange.answered == Some(201);
        assert!(log[..first].iter().filter(confirmed).count() >= 4, "{}", story(&registry));
        assert!(
            log[first..].iter().all(|exchange| exchange.route == Route::ManifestPut),
            "{}",
            story(&registry)
        );
    }
}

#[test]
fn promise_1_a_blob_that_cannot_be_sent_leaves_everything_untagged() {
    let layout = Layout::of(&[LARGE, 1000, 2000]);
    let archive = Archive::of(&[LARGE, 1000, 2000]);
    for path in [layout.path().to_owned(), archive.path()] {
        for nth in 1..=4 {
            let registry = Registry::start(Script::new().on(Route::Open, nth, Fault::status(403)));
            let error = Pusher::new().push(&path, &registry).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{}", chain(&error));
            assert_eq!((registry.calls(Route::ManifestPut), registry.tags(REPOSITORY)), (0, vec![]));
        }
    }
}

#[test]
fn promise_1_a_child_that_is_refused_leaves_its_index_unsent() {
    let images = [vec![noise(1, 1000)], vec![noise(2, 1000)]];
    let layout = Layout::index(&[&images[0], &images[1]]);
    let registry = Registry::start(Script::new().on(Route::ManifestPut, 2, Fault::status(400)));
    let error = Pusher::new().push(layout.path(), &registry).unwrap_err();
    assert_eq!((error.kind(), registry.calls(Route::ManifestPut)), (ErrorKind::Refused, 2));
    assert!(registry.tags(REPOSITORY).is_empty());
}

#[test]
fn promise_2_a_flipped_byte_in_a_stored_blob_is_never_committed() {
    for (size, at) in [(LARGE, 0), (LARGE, LARGE / 2), (LARGE, LARGE - 1), (1000, 500), (CHUNK as usize, 7)] {
        let layout = Layout::of(&[size]);
        let digest = &layout.blobs[0];
        flip(&layout.blob(digest), at);
        let registry = Registry::honest();
        let said = refused(&Pusher::new(), layout.path(), &registry);
        let found = Digest::of(&layout.read(digest));
        assert!(said.contains(&digest.to_string()) && said.contains(&found.to_string()), "{said}");
        assert!(said.contains("digest mismatch"), "{said}");
        // Not even all of its bytes have left, and no request has closed its session.
        let sent = registry.bytes(Route::Patch) + registry.bytes(Route::Commit);
        let config = layout.read(&layout.blobs[1]).len() as u64;
        assert!(sent < size as u64 + config, "{}", story(&registry));
        let named = |exchange: &Exchange| exchange.target.contains(digest.hex());
        let closed = registry.exchanges(Route::Commit).into_iter().filter(named);
        assert!(closed.into_iter().all(|put| put.answered.is_none()), "{}", story(&registry));
    }
}

#[test]
fn promise_2_a_blob_that_changes_under_us_is_found_out() {
    // A byte that was sent already and is sent again, and one that was not.
    for at in [10, LARGE - 10] {
        let layout = Layout::of(&[LARGE]);
        let (file, changed) = (layout.blob(&layout.blobs[0]), Once::new());
        let pusher = Pusher::new().acting(move |event| {
            if matches!(event, Event::Acknowledged { offset: CHUNK, .. }) {
                changed.call_once(|| flip(&file, at));
            }
        });
        let registry = Registry::start(Script::new().on(Route::Patch, 2, Fault::LoseSession));
        let said = refused(&pusher, layout.path(), &registry);
        assert!(said.contains("digest mismatch"), "{said}");
        assert!(registry.blob(REPOSITORY, &layout.blobs[0]).is_none());
    }
}

#[test]
fn promise_2_a_blob_of_the_wrong_size_is_refused_before_a_byte_leaves() {
    for size in [LARGE - 1, LARGE + 1, 0] {
        let layout = Layout::of(&[LARGE]);
        let mut bytes = layout.read(&layout.blobs[0]);
        bytes.resize(size, 0);
        fs_err::write(layout.blob(&layout.blobs[0]), bytes).unwrap();
        let registry = Registry::honest();
        let said = refused(&Pusher::new(), layout.path(), &registry);
        assert!(said.contains("size mismatch"), "{said}");
        assert_eq!((registry.calls(Route::Open), registry.calls(Route::Patch)), (0, 0));
    }
}

/// Puts a blob elsewhere and a symlink in its place.
fn link(layout: &Layout, digest: &Digest) -> PathBuf {
    let elsewhere = layout.path().join("elsewhere");
    fs_err::rename(layout.blob(digest), &elsewhere).unwrap();
    fs_err::os::unix::fs::symlink(&elsewhere, layout.blob(digest)).unwrap();
    elsewhere
}

#[test]
fn promise_2_no_byte_of_a_linked_blob_leaves_before_its_hash_is_right() {
    // Somebody's private key, linked into a layout that was downloaded.
    let layout = Layout::of(&[LARGE]);
    let elsewhere = link(&layout, &layout.blobs[0]);
    flip(&elsewhere, LARGE - 1);
    let registry = Registry::honest();
    let said = refused(&Pusher::new(), layout.path(), &registry);
    assert!(said.contains("digest mismatch"), "{said}");
    assert_eq!((registry.calls(Route::Open), registry.bytes(Route::Patch)), (0, 0), "{}", story(&registry));
}

#[test]
fn promise_2_a_linked_blob_that_is_right_is_pushed() {
    let layout = Layout::of(&[LARGE]);
    link(&layout, &layout.blobs[0]);
    let registry = Registry::honest();
    Pusher::new().push(layout.path(), &registry).unwrap();
    assert_arrived(&layout, &registry);
}

#[test]
fn promise_2_a_docker_archive_is_held_to_its_diff_ids() {
    let plain = || vec![layer(&noise(1, LARGE)), layer(&noise(2, 1000))];
    let packed = || plain().iter().map(|layer| gzip(layer)).collect::<Vec<_>>();
    // A byte of the file's content; a byte that only the gzip trailer covers; another layer in its place.
    let content = |layer: &mut Vec<u8>| layer[600] ^= 1;
    let trailer = |layer: &mut Vec<u8>| *layer.last_mut().unwrap() ^= 1;
    let other = |layer: &mut Vec<u8>| *layer = gzip(&self::layer(&noise(9, 500)));
    for (archive, words) in [
        (Archive::of_layers(plain(), content), "diff ID mismatch"),
        (Archive::of_layers(packed(), content), ""),
        (Archive::of_layers(packed(), trailer), ""),
        (Archive::of_layers(packed(), other), "diff ID mismatch"),
    ] {
        let registry = Registry::honest();
        let said = refused(&Pusher::new(), &archive.path(), &registry);
        assert!(said.contains(words) && said.contains("/layer.tar"), "{said}");
        for layer in &archive.layers {
            assert!(registry.blob(REPOSITORY, &Digest::of(layer)).is_none(), "a damaged layer was committed");
        }
        let committed =
            registry.exchanges(Route::Commit).iter().filter(|put| put.answered == Some(201)).count();
        assert!(committed <= 1, "only the config may be: {}", story(&registry));
    }
}

#[test]
fn promise_2_a_damaged_cache_is_encoded_anew() {
    let archive = Archive::of(&[LARGE]);
    let pusher = Pusher::new();
    let digest = pusher.push(&archive.path(), &Registry::honest()).unwrap().digest;
    let blobs = pusher.cache.dir().join("blobs/sha256");
    for blob in fs_err::read_dir(blobs).unwrap() {
        flip(&blob.unwrap().path(), 5000);
    }
    let registry = Registry::honest();
    assert_eq!(pusher.push(&archive.path(), &registry).unwrap().digest, digest);
    assert_holds(&registry, &archive.layers);
    assert!(pusher.warnings().iter().any(|warning| warning.contains("damaged")), "{:?}", pusher.warnings());
}

#[test]
fn promise_3_the_same_input_is_the_same_digest() {
    let archive = Archive::of(&[LARGE, 3 << 20, 1000]);
    let mut digests = HashSet::new();
    for workers in 1..=4 {
        for path in [archive.path(), archive.compressed()] {
            let mut pusher = Pusher::new();
            pusher.workers = workers;
            // With nothing in the cache, everything, and no cache at all.
            for _ in 0..2 {
                digests.insert(pusher.push(&path, &Registry::honest()).unwrap().digest);
            }
            pusher.cache = Arc::new(Cache::scratch(archive.dir()));
            let registry = Registry::honest();
            digests.insert(pusher.push(&path, &registry).unwrap().digest);
            assert_holds(&registry, &archive.layers);
        }
    }
    assert_eq!(digests.len(), 1, "{digests:?}");
}

#[test]
fn promise_3_an_interrupted_push_ends_with_the_same_digest() {
    let archive = Archive::of(&[LARGE, 3 << 20, 1000]);
    let digest = Pusher::new().push(&archive.path(), &Registry::honest()).unwrap().digest;
    for (route, nth) in [(Route::Open, 1), (Route::Patch, 3), (Route::Commit, 2), (Route::ManifestPut, 1)] {
        let pusher = Pusher::new();
        let registry = Registry::start(Script::new().on(route, nth, Fault::status(403)));
        pusher.push(&archive.path(), &registry).unwrap_err();
        assert!(registry.tags(REPOSITORY).is_empty());
        assert_eq!(pusher.push(&archive.path(), &registry).unwrap().digest, digest);
        assert_holds(&registry, &archive.layers);
    }
}

#[test]
fn promise_4_a_second_push_is_one_question() {
    let (layout, archive) = (Layout::of(&[LARGE, 1000]), Archive::of(&[LARGE, 1000]));
    for path in [layout.path().to_owned(), archive.path()] {
        let (pusher, registry) = (Pusher::new(), Registry::honest());
        pusher.push(&path, &registry).unwrap();
        let before = registry.log().len();
        pusher.push(&path, &registry).unwrap();
        let routes: Vec<_> = registry.log()[before..].iter().map(|exchange| exchange.route).collect();
        assert_eq!(routes, [Route::ManifestHead]);
    }
}

#[test]
fn promise_5_a_layer_is_encoded_once() {
    let archive = Archive::of(&[LARGE, 1000]);
    let pusher = Pusher::new();
    let encodings = || pusher.events().iter().filter(|event| matches!(event, Event::Encoded { .. })).count();
    pusher.push(&archive.path(), &Registry::honest()).unwrap();
    let once = encodings();
    assert!(once > 0);
    let registry = Registry::honest();
    pusher.push(&archive.path(), &registry).unwrap();
    assert_eq!(encodings(), once);
    assert_holds(&registry, &archive.layers);
}

#[test]
fn the_same_layer_twice_is_encoded_and_sent_once() {
    let twice = layer(&noise(1, LARGE));
    let archive = Archive::of_layers(vec![twice.clone(), layer(&noise(2, 100)), twice], |_| {});
    let registry = Registry::honest();
    Pusher::new().push(&archive.path(), &registry).unwrap();
    assert_eq!(registry.calls(Route::Open), 3, "{}", story(&registry));
    assert_holds(&registry, &archive.layers);
}

#[test]
fn a_digest_that_was_asked_for_is_held_to() {
    let layout = Layout::of(&[1000]);
    let registry = Registry::honest();
    let by_digest = format!("{REPOSITORY}@{}", layout.root.digest);
    Pusher::new().push_to(layout.path(), &registry.host(), &by_digest).unwrap();
    assert!(registry.manifest(REPOSITORY, &layout.root.digest.to_string()).is_some());
    assert!(registry.tags(REPOSITORY).is_empty());

    let registry = Registry::honest();
    let other = format!("{REPOSITORY}@{}", Digest::of(b"other"));
    let error = Pusher::new().push_to(layout.path(), &registry.host(), &other).unwrap_err();
    assert_eq!((error.kind(), registry.calls(Route::Open)), (ErrorKind::Usage, 0));
    pushed_by(&Pusher::new(), &layout, Script::new());
}
