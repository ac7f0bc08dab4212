//! Which of several images is pushed.

use serde_json::json;

use super::{
    Pusher, REPOSITORY,
    image::{Layout, noise},
};
use crate::support::registry::{Registry, Route};

/// Tools that do not write indexes list the images for each platform on their own, all by one name.
#[test]
fn of_images_with_one_name_the_one_for_the_platform_is_pushed() {
    let images = [vec![noise(1, 1000)], vec![noise(2, 1000)]];
    let layout = Layout::index(&[&images[0], &images[1]]);
    let entries: Vec<_> = layout
        .children
        .iter()
        .zip(["amd64", "arm64"])
        .map(|(child, architecture)| {
            let mut entry = child.descriptor();
            entry["platform"] = json!({ "os": "linux", "architecture": architecture });
            entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "app:1" });
            entry
        })
        .collect();
    let index = json!({ "schemaVersion": 2, "manifests": entries });
    fs_err::write(layout.path().join("index.json"), index.to_string()).unwrap();
    let registry = Registry::honest();
    let mut pusher = Pusher::new();
    let error = pusher.push(layout.path(), &registry).unwrap_err();
    assert_eq!(error.kind().exit_code(), 2, "{error:?}");
    assert!(error.hints().join("\n").contains("@1: app:1, linux/arm64, sha256:"), "{error:?}");
    assert_eq!(registry.calls(Route::Open), 0);
    pusher.options.platform = Some("linux/arm64".parse().unwrap());
    let named = format!("{}:app:1", layout.path().display());
    for path in [layout.path(), named.as_ref()] {
        let pushed = pusher.push(path, &registry).unwrap();
        assert_eq!(pushed.digest, layout.children[1].digest);
    }
    assert!(registry.manifest(REPOSITORY, "1").is_some());
    assert_eq!(registry.calls(Route::Commit), 2);
}
