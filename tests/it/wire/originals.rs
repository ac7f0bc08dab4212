//! Pulled images: the manifest they were pulled with goes out, if the registry has what it names.

use std::path::Path;

use super::{Pusher, REPOSITORY, story};
use crate::support::{
    registry::{Fault, Registry, Route, Script},
    samples::Sample,
};

/// What the store's image was pulled as, by its manifest.
const ORIGINAL: &str = "sha256:0c3dbe6979c0c03af9e9600ce43da43e1ad9cc357241d42ed253f0e9b76e099a";

#[test]
fn an_image_whose_blobs_are_there_keeps_its_manifest_and_sends_nothing() {
    let (registry, layout, store) = (Registry::honest(), Sample::open("oci/skopeo"), store());
    let pusher = Pusher::new();
    push(&pusher, &layout.path, &registry, &format!("{REPOSITORY}:1"));
    let sent = registry.calls(Route::Commit);
    assert_eq!(push(&pusher, &store.path, &registry, &format!("{REPOSITORY}:2")), ORIGINAL);
    assert_eq!(registry.calls(Route::Commit), sent, "{}", story(&registry));
    assert_eq!(registry.tags(REPOSITORY), ["1", "2"]);
}

#[test]
fn blobs_of_another_repository_are_mounted_for_it() {
    let (registry, layout, store) = (Registry::honest(), Sample::open("oci/skopeo"), store());
    let mut pusher = Pusher::new();
    push(&pusher, &layout.path, &registry, "base/image:1");
    let sent = registry.calls(Route::Commit);
    pusher.options.mount_from = Some("base/image".to_owned());
    assert_eq!(push(&pusher, &store.path, &registry, &format!("{REPOSITORY}:2")), ORIGINAL);
    assert_eq!(registry.calls(Route::Commit), sent, "{}", story(&registry));
}

#[test]
fn elsewhere_its_layers_are_encoded_again_and_its_config_stays() {
    let (registry, store) = (Registry::honest(), store());
    let digest = push(&Pusher::new(), &store.path, &registry, &format!("{REPOSITORY}:1"));
    assert_ne!(digest, ORIGINAL);
    // What the image says besides stays, too.
    let (_, manifest) = registry.manifest(REPOSITORY, &digest).unwrap();
    let manifest = String::from_utf8(manifest).unwrap();
    assert!(manifest.contains("org.opencontainers.image.base.name"), "{manifest}");
    let config = "sha256:b0f4100048823624503753a11b867f67cfe9399842a3ff7602ac58f338d94d53";
    assert!(registry.blob(REPOSITORY, &config.parse().unwrap()).is_some(), "{}", story(&registry));
}

#[test]
fn a_registry_that_lacks_what_it_said_it_has_gets_the_layers() {
    let refusal = Fault::status(404).body(
        "application/json",
        r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#,
    );
    let registry = Registry::start(Script::new().on(Route::ManifestPut, 2, refusal));
    let (layout, store) = (Sample::open("oci/skopeo"), store());
    let pusher = Pusher::new();
    push(&pusher, &layout.path, &registry, &format!("{REPOSITORY}:1"));
    // What is there after all is named again.
    assert_eq!(push(&pusher, &store.path, &registry, &format!("{REPOSITORY}:2")), ORIGINAL);
    assert!(pusher.warnings()[0].contains("encoding the layers instead"), "{:?}", pusher.warnings());
    assert_eq!(registry.tags(REPOSITORY), ["1", "2"]);
}

fn store() -> Sample {
    Sample::open("stores/containers-storage-pulled-gz.tar.gz")
}

fn push(pusher: &Pusher, path: &Path, registry: &Registry, destination: &str) -> String {
    match pusher.push_to(path, &registry.host(), destination) {
        Ok(pushed) => pushed.digest.to_string(),
        Err(error) => panic!("{error:?}\n{}", story(registry)),
    }
}
