//! What comes last: rules 33 to 35 and 41.

use std::sync::Arc;

use longshore::{ErrorKind, cache::Cache, error::chain, registry::Sightings};
use serde_json::Value;

use super::{
    CHUNK, Pusher, REPOSITORY, assert_arrived,
    image::{Archive, INDEX, Layout, MANIFEST, noise},
    pushed, pushed_by, story,
};
use crate::support::{
    longshore::Longshore,
    registry::{Fault, Manners, Registry, Route, Script},
};

/// Three chunks and a bit.
const LARGE: usize = 3 * CHUNK as usize + 1000;

fn old() -> Script {
    Script::new().manners(Manners { subject: false, ..Manners::default() })
}

fn fallback_tag(layout: &Layout) -> String {
    layout.root.digest.to_string().replace(':', "-")
}

fn referrers(registry: &Registry, tag: &str) -> Vec<Value> {
    let (media_type, bytes) = registry.manifest(REPOSITORY, tag).unwrap();
    assert_eq!(media_type, INDEX);
    let index: Value = serde_json::from_slice(&bytes).unwrap();
    index["manifests"].as_array().unwrap().clone()
}

#[test]
fn rule_33_the_same_blob_in_two_images_is_sent_once() {
    let (base, one, two) = (noise(1, LARGE), noise(2, 1000), noise(3, 2000));
    let images = [vec![base.clone(), one.clone(), base.clone()], vec![base, two, one]];
    let registry = pushed(&Layout::index(&[&images[0], &images[1]]), Script::new());
    // Three layers and two configs.
    assert_eq!(registry.calls(Route::Open), 5, "{}", story(&registry));
    assert_eq!(registry.bytes(Route::Patch), LARGE as u64);
}

#[test]
fn rule_33_a_blob_of_another_repository_is_mounted() {
    let mut pusher = Pusher::new();
    pusher.options.mount_from = Some("team/base".to_owned());
    let layout = Layout::of(&[LARGE, 1000]);
    let registry = Registry::honest();
    registry.seed("team/base", &layout.read(&layout.blobs[0]));
    pusher.push(layout.path(), &registry).unwrap();
    assert_arrived(&layout, &registry);
    let mounts = registry.exchanges(Route::Mount);
    assert!(mounts.iter().all(|mount| mount.target.contains("from=team%2Fbase")));
    // What is not there is sent in the session that the registry opened instead.
    assert_eq!((registry.calls(Route::Open), registry.calls(Route::Patch)), (0, 0), "{}", story(&registry));
    assert_eq!(mounts.iter().filter(|mount| mount.answered == Some(201)).count(), 1);
}

#[test]
fn rule_33_a_mounted_blob_is_there_whatever_a_head_says_of_it() {
    let layout = Layout::of(&[LARGE, 1000]);
    for may_read in [true, false] {
        let script = Script::new().manners(Manners { notes_mounts: true, ..Manners::default() });
        let script = if may_read { script } else { script.always(Route::BlobGet, Fault::status(403)) };
        let registry = Registry::start(script);
        for blob in &layout.blobs {
            registry.seed("team/base", &layout.read(blob));
        }
        let push = |tag: &str| {
            let destination = format!("{}/{REPOSITORY}:{tag}", registry.host());
            // Nobody who has seen the mounts.
            let arguments = ["push", layout.path().to_str().unwrap(), &destination, "--mount-from=team/base"];
            Longshore::new().run(arguments).pushed().unwrap();
            let sent = registry.bytes(Route::Patch) + registry.bytes(Route::Commit);
            (registry.calls(Route::Mount), sent)
        };
        assert_eq!(push("1"), (layout.blobs.len(), 0), "{}", story(&registry));
        // What cannot be read cannot be known to be there.
        let mounts = if may_read { 1 } else { 2 } * layout.blobs.len();
        assert_eq!(push("2"), (mounts, 0), "{}", story(&registry));
        assert_eq!(registry.manifest(REPOSITORY, "2").unwrap().1, layout.root.bytes);
    }
}

#[test]
fn rule_33_a_blob_that_was_seen_at_another_repository_is_mounted() {
    let layout = Layout::of(&[LARGE, 1000]);
    let (registry, user) = (Registry::honest(), Longshore::new());
    let push = |repository: &str| {
        let destination = format!("{}/{repository}:1", registry.host());
        let arguments = ["push", layout.path().to_str().unwrap(), &destination, "--chunk-size=64KiB"];
        user.run(arguments).pushed().unwrap();
    };
    push("team/first");
    let sent = registry.bytes(Route::Patch) + registry.bytes(Route::Commit);
    push(REPOSITORY);
    assert_arrived(&layout, &registry);
    let mounts = registry.exchanges(Route::Mount);
    assert_eq!(mounts.len(), layout.blobs.len(), "{}", story(&registry));
    assert!(mounts.iter().all(|mount| mount.answered == Some(201)), "{}", story(&registry));
    assert_eq!(registry.bytes(Route::Patch) + registry.bytes(Route::Commit), sent);
}

#[test]
fn rule_33_a_blob_that_is_no_longer_where_it_was_seen_is_sent() {
    let layout = Layout::of(&[LARGE, 1000]);
    let (registry, state) = (Registry::honest(), tempfile::tempdir().unwrap());
    let sightings = Sightings::new(state.path());
    sightings.note(&registry.host(), "team/gone", layout.blobs.clone());
    let mut pusher = Pusher::new();
    pusher.options.sightings = Some(sightings.clone());
    pusher.push(layout.path(), &registry).unwrap();
    assert_arrived(&layout, &registry);
    // In the sessions that were opened instead.
    assert_eq!((registry.calls(Route::Mount), registry.calls(Route::Open)), (layout.blobs.len(), 0));
    assert!(sightings.at(&registry.host()).values().all(|seen| seen == REPOSITORY));
}

#[test]
fn rule_34_children_go_before_their_index_and_tags_last() {
    let images = [vec![noise(1, LARGE)], vec![noise(2, 1000)]];
    let layout = Layout::index(&[&images[0], &images[1]]);
    let mut pusher = Pusher::new();
    pusher.tags = vec!["2".to_owned(), "latest".to_owned()];
    let registry = pushed_by(&pusher, &layout, Script::new());
    let log = registry.log();
    let puts: Vec<_> = log.iter().filter(|exchange| exchange.route == Route::ManifestPut).collect();
    let names: Vec<_> = puts.iter().map(|put| put.target.rsplit('/').next().unwrap()).collect();
    let children: Vec<_> = layout.children.iter().map(|child| child.digest.to_string()).collect();
    assert_eq!(names, [&*children[0], &children[1], "1", "2", "latest"]);
    assert_eq!(registry.tags(REPOSITORY), ["1", "2", "latest"]);
    // And nothing but manifests goes after the first of them.
    let first = log.iter().position(|exchange| exchange.route == Route::ManifestPut).unwrap();
    assert!(log[first..].iter().all(|exchange| exchange.route == Route::ManifestPut), "{}", story(&registry));
}

#[test]
fn rule_34_an_image_goes_before_what_refers_to_it() {
    let layout = Layout::index_with_referrer();
    let registry = pushed(&layout, Script::new());
    let puts = registry.exchanges(Route::ManifestPut);
    let names: Vec<_> = puts.iter().map(|put| put.target.rsplit('/').next().unwrap()).collect();
    let [referrer, image] = [0, 1].map(|child: usize| layout.children[child].digest.to_string());
    assert_eq!(names, [&*image, &referrer, "1"]);
}

#[test]
fn rule_34_a_registry_without_referrers_is_given_the_fallback_tag() {
    let subject = Layout::of(&[1000]);
    let registry = pushed(&subject, old());
    let tag = fallback_tag(&subject);
    for (seed, name) in [(2, "a"), (3, "b"), (2, "a")] {
        let referrer = Layout::referrer(&noise(seed, 500), &subject.root);
        Pusher::new().push_to(referrer.path(), &registry.host(), &format!("{REPOSITORY}:{name}")).unwrap();
    }
    // The first was kept when the second came, and is not listed twice.
    let listed = referrers(&registry, &tag);
    assert_eq!(listed.len(), 2);
    assert_eq!((&listed[0]["mediaType"], listed[0]["size"].as_u64().is_some()), (&MANIFEST.into(), true));
    assert_eq!(registry.tags(REPOSITORY), ["1", "a", "b", tag.as_str()]);
}

#[test]
fn rule_34_a_registry_with_referrers_is_left_alone() {
    let subject = Layout::of(&[1000]);
    let registry = pushed(&subject, Script::new());
    let referrer = Layout::referrer(&noise(2, 500), &subject.root);
    Pusher::new().push_to(referrer.path(), &registry.host(), &format!("{REPOSITORY}:a")).unwrap();
    assert_eq!(registry.tags(REPOSITORY), ["1", "a"]);
}

#[test]
fn rule_34_the_list_is_read_again_before_it_is_written() {
    let subject = Layout::of(&[1000]);
    let registry = pushed(&subject, old());
    let referrer = Layout::referrer(&noise(2, 500), &subject.root);
    Pusher::new().push_to(referrer.path(), &registry.host(), &format!("{REPOSITORY}:a")).unwrap();
    let log = registry.log();
    let [.., read, written, _] = &log[..] else { panic!("{}", story(&registry)) };
    assert_eq!((read.route, written.route), (Route::ManifestGet, Route::ManifestPut));
    assert_eq!(read.target, written.target);
}

#[test]
fn rule_34_a_list_that_somebody_else_overwrites_is_written_again() {
    let subject = Layout::of(&[1000]);
    // The image, what refers to it, and the list, which is lost.
    let registry = pushed(&subject, old().on(Route::ManifestPut, 3, Fault::status(201)));
    let referrer = Layout::referrer(&noise(2, 500), &subject.root);
    Pusher::new().push_to(referrer.path(), &registry.host(), &format!("{REPOSITORY}:a")).unwrap();
    assert_eq!(referrers(&registry, &fallback_tag(&subject)).len(), 1, "{}", story(&registry));
}

#[test]
fn rule_34_what_is_there_and_not_in_the_list_is_added_to_it() {
    let subject = Layout::of(&[1000]);
    let registry = pushed(&subject, old().on(Route::ManifestPut, 3, Fault::status(403)));
    let referrer = Layout::referrer(&noise(2, 500), &subject.root);
    let push = || Pusher::new().push_to(referrer.path(), &registry.host(), &format!("{REPOSITORY}:a"));
    push().unwrap_err();
    assert_eq!(registry.tags(REPOSITORY), ["1", "a"]);
    push().unwrap();
    assert_eq!(referrers(&registry, &fallback_tag(&subject)).len(), 1, "{}", story(&registry));
}

#[test]
fn rule_35_manifests_go_byte_for_byte_with_their_own_type() {
    let images = [vec![noise(1, 1000)]];
    let layout = Layout::index(&[&images[0]]);
    let registry = pushed(&layout, Script::new());
    let puts = registry.exchanges(Route::ManifestPut);
    for (put, document) in puts.iter().zip([&layout.children[0], &layout.root]) {
        assert_eq!(put.header("Content-Type"), Some(document.media_type));
        assert_eq!(put.content_length, Some(document.bytes.len()));
        assert!(!put.chunked);
    }
}

#[test]
fn rule_35_a_manifest_that_no_registry_need_take_is_refused_before_anything_is_sent() {
    let most = 4 << 20;
    // Its other fields are about a kilobyte.
    pushed(&Layout::with_long_manifest(most - 2000), Script::new());
    let registry = Registry::honest();
    let error = Pusher::new().push(Layout::with_long_manifest(most).path(), &registry).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Source);
    assert!(chain(&error).contains("over the limit of 4 MiB"), "{}", chain(&error));
    assert!(registry.log().is_empty(), "{}", story(&registry));
}

#[test]
fn rule_35_what_the_source_knows_by_sha512_is_named_as_the_registry_knows_it() {
    let layout = Layout::of(&[1000]).by_sha512();
    let registry = Registry::honest();
    let pushed = Pusher::new().push(layout.path(), &registry).unwrap();
    assert_arrived(&layout, &registry);
    let named = registry.manifest(REPOSITORY, &pushed.digest.to_string());
    assert_eq!(named, registry.manifest(REPOSITORY, "1"), "{}", story(&registry));
}

#[test]
fn rule_35_who_asks_for_sha512_gets_it_and_the_tags_besides() {
    let layout = Layout::of(&[1000]).by_sha512();
    let registry = Registry::honest();
    let path = layout.path().display().to_string();
    let destination = format!("{}/demo:1@{}", registry.host(), layout.root.digest);
    let run = Longshore::new().run(["push", &path, &destination, "--tag=2"]);
    assert_eq!(run.pushed(), Ok(&*format!("{}/demo@{}", registry.host(), layout.root.digest)));
    for reference in ["1", "2", &layout.root.digest.to_string()] {
        assert_eq!(registry.manifest("demo", reference).unwrap().1, layout.root.bytes, "{reference}");
    }
}

#[test]
fn rule_35_a_missing_location_is_fine() {
    pushed(&Layout::of(&[1000]), Script::new().always(Route::ManifestPut, Fault::Location(None)));
}

#[test]
fn rule_35_another_digest_than_ours_is_refused() {
    let wrong = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
    let script = Script::new().always(Route::ManifestPut, Fault::Header("Docker-Content-Digest", wrong));
    let error = Pusher::new().push(Layout::of(&[1000]).path(), &Registry::start(script)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(chain(&error).contains("instead of"), "{}", chain(&error));
}

#[test]
fn rule_35_transient_answers_are_waited_out() {
    for fault in [Fault::status(503), Fault::status(429), Fault::LoseAnswer, Fault::reset()] {
        let script = Script::new().on(Route::ManifestPut, 1, fault.clone()).on(Route::ManifestPut, 2, fault);
        let registry = pushed(&Layout::of(&[1000]), script);
        assert_eq!(registry.calls(Route::ManifestPut), 3);
    }
}

/// A registry that says it has a blob, which it has not.
fn lying(layout: &Layout, times: usize) -> Script {
    let size = layout.read(&layout.blobs[0]).len().to_string();
    let mut script = Script::new();
    for nth in 1..=times {
        script = script.on(Route::BlobHead, nth, Fault::status(200).header("Content-Length", &size));
    }
    script
}

#[test]
fn rule_41_a_blob_that_was_said_to_be_there_is_sent_after_all() {
    // One layer that is its own config, so that there is one question only.
    let layout = Layout::of_layers(&[]);
    for believed in [1, 2] {
        let registry = pushed(&layout, lying(&layout, believed));
        assert_eq!(registry.calls(Route::ManifestPut), 2, "{}", story(&registry));
        assert_eq!((registry.calls(Route::BlobHead), registry.calls(Route::Open)), (2, 1));
    }
}

#[test]
fn a_manifest_that_is_said_to_have_another_digest_is_put_again() {
    let body = r#"{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match uploaded content"}]}"#;
    let doubt = || Fault::status(400).body("application/json", body);
    let registry = pushed(&Layout::of(&[1000]), Script::new().on(Route::ManifestPut, 1, doubt()));
    assert_eq!((registry.calls(Route::ManifestPut), registry.calls(Route::Open)), (2, 2));
    // Not for ever.
    let registry = Registry::start(Script::new().always(Route::ManifestPut, doubt()));
    let error = Pusher::new().push(Layout::of(&[1000]).path(), &registry).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(chain(&error).contains("DIGEST_INVALID"), "{}", chain(&error));
    assert!(registry.tags(REPOSITORY).is_empty());
}

#[test]
fn rule_41_only_what_the_error_names_is_sent_again() {
    let layout = Layout::of(&[LARGE, 1000]);
    let named = &layout.blobs[0];
    let body = format!(
        r#"{{"errors":[{{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown","detail":{{"digest":"{named}"}}}}]}}"#
    );
    let fault = Fault::status(404).body("application/json", &body);
    let registry = pushed(&layout, Script::new().on(Route::ManifestPut, 1, fault));
    assert_eq!(registry.bytes(Route::Patch), 2 * LARGE as u64, "{}", story(&registry));
    assert_eq!(registry.calls(Route::Open), 4);
}

#[test]
fn rule_41_an_error_that_names_nothing_has_everything_sent_again() {
    for code in ["MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"] {
        let body = format!(r#"{{"errors":[{{"code":"{code}"}}]}}"#);
        let fault = Fault::status(404).body("application/json", &body);
        let registry = pushed(&Layout::of(&[LARGE, 1000]), Script::new().on(Route::ManifestPut, 1, fault));
        assert_eq!(registry.calls(Route::Open), 6, "{}", story(&registry));
    }
}

#[test]
fn rule_41_once_is_enough() {
    let body = r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown"}]}"#;
    let fault = Fault::status(404).body("application/json", body);
    let registry = Registry::start(Script::new().always(Route::ManifestPut, fault));
    let error = Pusher::new().push(Layout::of(&[1000]).path(), &registry).unwrap_err();
    assert_eq!((error.kind(), registry.calls(Route::ManifestPut)), (ErrorKind::Refused, 2));
    assert!(registry.tags(REPOSITORY).is_empty());
}

#[test]
fn rule_41_what_only_other_repositories_have_is_sent_however_little_of_it_is_named() {
    let layout = Layout::of(&[LARGE, 1000, 2000]);
    let manners = Manners { shows_all_blobs: true, ..Manners::default() };
    let registry = Registry::start(Script::new().manners(manners));
    for blob in &layout.blobs {
        registry.seed("team/other", &layout.read(blob));
    }
    if let Err(error) = Pusher::new().push(layout.path(), &registry) {
        panic!("{}\n{}", chain(&error), story(&registry));
    }
    assert_arrived(&layout, &registry);
    assert_eq!((registry.calls(Route::ManifestPut), registry.calls(Route::Open)), (2, 4));
}

#[test]
fn rule_41_layers_that_no_cache_kept_are_encoded_again() {
    let body = r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown"}]}"#;
    let fault = Fault::status(404).body("application/json", body);
    let registry = Registry::start(Script::new().on(Route::ManifestPut, 1, fault));
    let archive = Archive::of(&[LARGE, 1000]);
    let pusher = Pusher { cache: Arc::new(Cache::scratch(archive.dir())), ..Pusher::new() };
    if let Err(error) = pusher.push(&archive.path(), &registry) {
        panic!("{}\n{}", chain(&error), story(&registry));
    }
    assert_eq!(registry.calls(Route::ManifestPut), 2);
    assert_eq!(registry.tags(REPOSITORY), ["1"]);
}

#[test]
fn of_several_tags_those_before_a_refused_one_have_moved() {
    let fault = Fault::status(400).body("application/json", r#"{"errors":[{"code":"TAG_INVALID"}]}"#);
    let registry = Registry::start(Script::new().on(Route::ManifestPut, 2, fault));
    let pusher = Pusher { tags: vec!["2".to_owned(), "3".to_owned()], ..Pusher::new() };
    let error = pusher.push(Layout::of(&[1000]).path(), &registry).unwrap_err();
    assert_eq!((error.kind(), registry.tags(REPOSITORY)), (ErrorKind::Refused, vec!["1".to_owned()]));
}
