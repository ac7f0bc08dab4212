//! What Docker, podman and containerd remember of registries: layers that these have are neither encoded nor sent.

use std::path::{Path, PathBuf};

use longshore::{
    event::{Event, How},
    oci::Digest,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Pusher, REPOSITORY, story};
use crate::support::{
    longshore::Longshore,
    registry::{Fault, Registry, Route, Script},
    samples::Sample,
};

/// The sample image as it was pulled: its four different layers, encoded and plain.
const LAYERS: [(&str, &str); 4] = [
    (
        "sha256:d2fd77eae45375b4db129e2a81fa56e395c000ef536ddd996b63354448302874",
        "d51ba923b1fabee3715e63a7c97555dbae88e782f4ffbc2441e83aa9db9e6abd",
    ),
    (
        "sha256:012075a25df0be69b58ad54971bcd7b0d9223cc9186c18ca9c01e49d479b9f96",
        "3ba33f4087d225d29539dd9857f510477503bf4c66dcbd4e5afee21a23b6b9f9",
    ),
    (
        "sha256:f33c2a8593a853312bceea4e30a2fb93d76d2982b5e3543f5a3b360d25ffdd3e",
        "c3885b7db1ab6b064f940874cb0678893fade4fc7284db0312ce276efb7725e6",
    ),
    (
        "sha256:bd9ddc54bea929a22b334e73e026d4136e5b73f5cc29942896c72e4ece69b13d",
        "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
    ),
];

/// Its manifest.
const MANIFEST: &str = "sha256:0c3dbe6979c0c03af9e9600ce43da43e1ad9cc357241d42ed253f0e9b76e099a";

#[test]
fn layers_that_docker_pulled_are_mounted_from_where_they_came_from() {
    let registry = with_base();
    let docker = docker(&format!("{}/base/image", registry.host()));
    let pusher = Pusher::new();
    push(&pusher, &docker, &registry);
    // Only the config is sent.
    assert_eq!(registry.calls(Route::Commit), 1, "{}", story(&registry));
    assert_eq!(registry.calls(Route::Mount), LAYERS.len());
    assert_eq!(arrived(&registry), pulled());
    let planned = |event: &Event| matches!(event, Event::Planned { reuse, .. } if *reuse == LAYERS.len());
    assert!(pusher.events().iter().any(planned), "{:?}", pusher.events());
    // The next one finds them there.
    let before =
        (registry.calls(Route::Mount), registry.calls(Route::Open), registry.calls(Route::ManifestPut));
    push(&pusher, &docker, &registry);
    let after =
        (registry.calls(Route::Mount), registry.calls(Route::Open), registry.calls(Route::ManifestPut));
    assert_eq!(before, after, "{}", story(&registry));
}

#[test]
fn an_image_that_docker_pulled_keeps_its_manifest() {
    let (registry, store) = (with_base(), Sample::open("stores/docker28-overlay2-root.tar.gz"));
    // As Docker has it: a name with the digest, and the manifest among containerd's blobs.
    let path = store.path.join("image/overlay2/repositories.json");
    let mut list: Value = serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
    let names = &mut list["Repositories"]["localhost/sample"];
    names[format!("{}/base/image@{MANIFEST}", registry.host())] = names["localhost/sample:1"].clone();
    fs_err::write(&path, list.to_string()).unwrap();
    let content = store.path.join("containerd/daemon/io.containerd.content.v1.content");
    let hex = &MANIFEST["sha256:".len()..];
    fs_err::create_dir_all(content.join("blobs/sha256")).unwrap();
    let pulled = Sample::open("oci/skopeo");
    fs_err::copy(pulled.path.join("blobs/sha256").join(hex), content.join("blobs/sha256").join(hex)).unwrap();
    push(&Pusher::new(), &store, &registry);
    let (_, manifest) = registry.manifest(REPOSITORY, "1").unwrap();
    assert_eq!(Digest::of(&manifest).to_string(), MANIFEST, "{}", story(&registry));
    assert_eq!((registry.calls(Route::Mount), registry.calls(Route::Commit)), (LAYERS.len() + 1, 0));
}

#[test]
fn layers_that_docker_pushed_somewhere_are_looked_for_here() {
    let registry = Registry::honest();
    seed(&registry, REPOSITORY);
    push(&Pusher::new(), &docker("elsewhere.example.com/base/image"), &registry);
    assert_eq!((registry.calls(Route::Commit), registry.calls(Route::Mount)), (0, 0), "{}", story(&registry));
    assert_eq!(arrived(&registry), pulled());
}

#[test]
fn layers_that_are_nowhere_are_encoded_and_refused_mounts_given_back() {
    let registry = Registry::honest();
    let docker = docker(&format!("{}/base/image", registry.host()));
    push(&Pusher::new(), &docker, &registry);
    assert_eq!(registry.calls(Route::Mount), LAYERS.len(), "{}", story(&registry));
    assert_eq!(registry.calls(Route::Cancel), LAYERS.len());
    assert_eq!(registry.calls(Route::Commit), LAYERS.len() + 1);
    assert!(arrived(&registry).iter().all(|digest| !pulled().contains(digest)));
}

#[test]
fn without_reuse_the_same_bytes_come_out_whatever_the_registry_has() {
    let (empty, full) = (Registry::honest(), with_base());
    let mut pusher = Pusher::new();
    pusher.options.reuse = false;
    push(&pusher, &docker("elsewhere.example.com/base/image"), &empty);
    push(&pusher, &docker(&format!("{}/base/image", full.host())), &full);
    assert_eq!(arrived(&empty), arrived(&full));
}

#[test]
fn a_form_that_is_not_encoded_as_ours_is_not_described_as_ours() {
    let registry = Registry::honest();
    let store = Sample::open("stores/docker28-overlay2-root.tar.gz");
    let zstd = registry.seed(REPOSITORY, &zstd::encode_all(&b"a layer"[..], 1).unwrap());
    note(&store, LAYERS[0].1, &zstd.to_string(), &format!("{}/{REPOSITORY}", registry.host()));
    push(&Pusher::new(), &store, &registry);
    assert!(!arrived(&registry).contains(&zstd.to_string()), "{}", story(&registry));
}

#[test]
fn a_registry_that_lacks_what_it_said_it_has_gets_the_layers() {
    let refusal = Fault::status(400).body(
        "application/json",
        r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#,
    );
    let registry = Registry::start(Script::new().on(Route::ManifestPut, 1, refusal));
    seed(&registry, REPOSITORY);
    let pusher = Pusher::new();
    push(&pusher, &docker("elsewhere.example.com/base/image"), &registry);
    assert!(pusher.warnings()[0].contains("using no layer again"), "{:?}", pusher.warnings());
    assert!(arrived(&registry).iter().all(|digest| !pulled().contains(digest)), "{}", story(&registry));
}

#[test]
fn an_image_built_upon_one_that_podman_pulled_reuses_its_layers() {
    let registry = with_base();
    let store = Sample::open("stores/containers-storage-pulled-gz.tar.gz");
    let images = store.path.join("overlay-images/images.json");
    let mut records: Value = serde_json::from_slice(&fs_err::read(&images).unwrap()).unwrap();
    records[0]["names"] = json!([format!("{}/base/image:1", registry.host())]);
    // An image of our own upon the same layers: it has another config, and no manifest of a registry.
    let id = records[0]["id"].as_str().unwrap().to_owned();
    let config = format!("={}", base64(&format!("sha256:{id}")));
    let config = fs_err::read(store.path.join("overlay-images").join(&id).join(config)).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config["author"] = json!("me");
    let config = config.to_string();
    let own = Digest::of(config.as_bytes());
    let folder = store.path.join("overlay-images").join(own.hex());
    fs_err::create_dir(&folder).unwrap();
    fs_err::write(folder.join(format!("={}", base64(&own.to_string()))), &config).unwrap();
    let mut record = records[0].clone();
    record["id"] = json!(own.hex());
    record["names"] = json!(["localhost/sample:1"]);
    records.as_array_mut().unwrap().push(record);
    fs_err::write(&images, records.to_string()).unwrap();
    push(&Pusher::new(), &store, &registry);
    assert_eq!(registry.calls(Route::Commit), 1, "{}", story(&registry));
    assert_eq!(arrived(&registry), pulled());
}

#[test]
fn blobs_that_containerd_fetched_are_mounted_and_the_manifest_stays() {
    let registry = with_base();
    let root = containerd();
    let pusher = Pusher::new();
    push_from(&pusher, &fetched(&root), &registry);
    assert_eq!(registry.calls(Route::Commit), 0, "{}", story(&registry));
    let events = pusher.events();
    let mounted = |event: &&Event| matches!(event, Event::Confirmed { how: How::Mounted, .. });
    assert_eq!(events.iter().filter(mounted).count(), LAYERS.len() + 1);
    let (_, manifest) = registry.manifest(REPOSITORY, "1").unwrap();
    assert_eq!(Digest::of(&manifest).to_string(), MANIFEST);
}

#[test]
fn a_layer_that_containerd_dropped_is_mounted_or_its_absence_explained() {
    let root = containerd();
    let hex = &LAYERS[0].0["sha256:".len()..];
    fs_err::remove_file(root.path().join("io.containerd.content.v1.content/blobs/sha256").join(hex)).unwrap();
    push_from(&Pusher::new(), &fetched(&root), &with_base());
    let empty = Registry::honest();
    let error = Pusher::new().push(&fetched(&root), &empty).unwrap_err();
    assert_eq!(error.kind().exit_code(), 3, "{error:?}");
    assert!(error.hints().join(" ").contains("discard_unpacked_layers"), "{error:?}");
    assert!(empty.tags(REPOSITORY).is_empty());
}

/// A registry whose `base/image` has the blobs of the sample image.
fn with_base() -> Registry {
    let registry = Registry::honest();
    seed(&registry, "base/image");
    registry
}

fn seed(registry: &Registry, repository: &str) {
    let layout = Sample::open("oci/skopeo");
    for blob in fs_err::read_dir(layout.path.join("blobs/sha256")).unwrap() {
        registry.seed(repository, &fs_err::read(blob.unwrap().path()).unwrap());
    }
}

/// Docker's storage as a pull of the sample image from `repository` leaves it.
fn docker(repository: &str) -> Sample {
    let store = Sample::open("stores/docker28-overlay2-root.tar.gz");
    for (digest, diff_id) in LAYERS {
        note(&store, diff_id, digest, repository);
    }
    store
}

fn note(store: &Sample, diff_id: &str, digest: &str, repository: &str) {
    let folder = store.path.join("image/overlay2/distribution/v2metadata-by-diffid/sha256");
    fs_err::create_dir_all(&folder).unwrap();
    let note = json!([{ "Digest": digest, "SourceRepository": repository, "HMAC": "" }]);
    fs_err::write(folder.join(diff_id), note.to_string()).unwrap();
}

/// containerd's root after `ctr content fetch` of the sample image.
fn containerd() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let layout = Sample::open("oci/skopeo");
    let content = dir.path().join("io.containerd.content.v1.content");
    fs_err::create_dir_all(content.join("ingest")).unwrap();
    fs_err::rename(layout.path.join("blobs"), content.join("blobs")).unwrap();
    let packed = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/stores/containerd16-fetched.meta.db.gz");
    let folder = dir.path().join("io.containerd.metadata.v1.bolt");
    fs_err::create_dir(&folder).unwrap();
    let mut database = fs_err::File::create(folder.join("meta.db")).unwrap();
    let mut unpacked = flate2::read::GzDecoder::new(fs_err::File::open(packed).unwrap());
    std::io::copy(&mut unpacked, &mut database).unwrap();
    dir
}

fn base64(text: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.encode(text)
}

/// Returns the layers of the image that arrived.
fn arrived(registry: &Registry) -> Vec<String> {
    let (_, manifest) = registry.manifest(REPOSITORY, "1").unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    layers.iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
}

/// Returns the layers of the image that was pulled, of which the last one is there twice.
fn pulled() -> Vec<String> {
    LAYERS.iter().chain(&LAYERS[3..]).map(|(digest, _)| (*digest).to_owned()).collect()
}

/// Pushes the sample image out of a store, by a name that says nothing of registries.
fn push(pusher: &Pusher, store: &Sample, registry: &Registry) {
    push_from(pusher, format!("{}:localhost/sample:1", store.path.display()).as_ref(), registry);
}

/// Returns what a user writes for the image that containerd has fetched.
fn fetched(root: &TempDir) -> PathBuf {
    format!("{}:127.0.0.1:5931/base/image:1", root.path().display()).into()
}

fn push_from(pusher: &Pusher, path: &Path, registry: &Registry) {
    if let Err(error) = pusher.push(path, registry) {
        panic!("{error:?}\n{}", story(registry));
    }
}

#[test]
fn signatures_that_podman_keeps_are_counted_for_the_image_that_is_pushed() {
    let registry = Registry::honest();
    let store = Sample::open("stores/containers-storage-pulled-gz.tar.gz");
    let images = store.path.join("overlay-images/images.json");
    let mut records: Value = serde_json::from_slice(&fs_err::read(&images).unwrap()).unwrap();
    let metadata = json!({ "signatures-sizes": { MANIFEST: [560, 561] }, "signature-sizes": [560, 561] });
    records[0]["metadata"] = json!(metadata.to_string());
    records[0]["names"] = json!(["localhost/sample:1"]);
    fs_err::write(&images, records.to_string()).unwrap();
    let pusher = Pusher::new();
    push(&pusher, &store, &registry);
    let told = pusher.warnings();
    assert!(told.iter().any(|warning| warning.ends_with("not pushed: 2")), "{told:?}");
    let (source, to) =
        (format!("{}:localhost/sample:1", store.path.display()), format!("{}/team/index:1", registry.host()));
    let run = Longshore::new().run(["push", "--index", &source, &to]);
    assert!(run.code == Some(0) && run.stderr.matches("not pushed: 2\n").count() == 1, "{run:?}");
}
