//! `longshore serve DIR IMAGE…`: archives are served by one command.

use serde_json::{Value, json};

use super::{MIB, send};
use crate::{
    support::serve::Serve,
    wire::image::{Archive, Layout, noise},
};

const SAVED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/docker-archive/podman-save.tar");

fn tags(serve: &Serve, name: &str) -> Vec<String> {
    let reply = send(serve.host(), "GET", &format!("/v2/{name}/tags/list"), &[], b"");
    assert_eq!(reply.status, 200, "{reply:?}");
    let list: Value = serde_json::from_slice(&reply.body).unwrap();
    list["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()).collect()
}

#[test]
fn images_are_there_when_the_registry_opens() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::of(&[MIB, 1000]);
    let named = format!("team/other:2={}", layout.path().display());
    for _ in 0..2 {
        let serve = Serve::start_with(dir.path(), &[SAVED, &named]);
        let repositories: Vec<_> = names_in(SAVED).iter().map(|name| tags(&serve, name)).collect();
        assert!(!repositories.is_empty() && repositories.iter().all(|tags| !tags.is_empty()));
        assert_eq!(tags(&serve, "team/other"), ["2"]);
        let manifest = send(serve.host(), "GET", "/v2/team/other/manifests/2", &[], b"");
        assert_eq!(manifest.body, layout.root.bytes);
    }
    // Without them they are still there.
    assert_eq!(tags(&Serve::start(dir.path()), "team/other"), ["2"]);
}

/// Returns the repositories of a docker archive, as they are served.
fn names_in(archive: &str) -> Vec<String> {
    let output = std::process::Command::new("tar").args(["-xOf", archive, "manifest.json"]).output().unwrap();
    let manifest: Value = serde_json::from_slice(&output.stdout).unwrap();
    let images = manifest.as_array().unwrap().iter();
    let names = images.flat_map(|image| image["RepoTags"].as_array().unwrap());
    names
        .map(|name| {
            let name = name.as_str().unwrap().rsplit_once(':').unwrap().0;
            name.split_once('/')
                .filter(|(host, _)| host.contains('.') || *host == "localhost")
                .map_or(name, |n| n.1)
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_image_of_a_source_is_served_under_its_own_name() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["localhost/a:1", "docker.io/library/b:2", "team/c:3"];
    let layers: Vec<_> = (0..3).map(|seed| vec![noise(seed, 1000)]).collect();
    let layout = Layout::index(&layers.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let named = layout.children.iter().zip(names).map(|(image, name)| {
        let mut descriptor = image.descriptor();
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        descriptor
    });
    let index = json!({ "schemaVersion": 2, "manifests": named.collect::<Vec<_>>() });
    fs_err::write(layout.path().join("index.json"), index.to_string()).unwrap();

    let source = layout.path().display().to_string();
    let serve = Serve::start_with(dir.path(), &[&source]);
    for (image, (name, tag)) in layout.children.iter().zip([("a", "1"), ("library/b", "2"), ("team/c", "3")])
    {
        let manifest = send(serve.host(), "GET", &format!("/v2/{name}/manifests/{tag}"), &[], b"");
        assert_eq!(manifest.body, image.bytes, "{name}");
        assert_eq!(tags(&serve, name), [tag]);
    }
    drop(serve);
    // One of them alone.
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start_with(dir.path(), &[&format!("{source}:team/c:3")]);
    assert_eq!(tags(&serve, "team/c"), ["3"]);
    assert!(!dir.path().join("a").exists());
}

#[test]
fn a_compressed_archive_is_served_too() {
    let dir = tempfile::tempdir().unwrap();
    let archive = Archive::of(&[1000]);
    let serve = Serve::start_with(dir.path(), &[&archive.compressed().display().to_string()]);
    assert_eq!(tags(&serve, "demo"), ["1"]);
}

#[test]
fn what_has_no_name_is_refused_with_the_way_to_give_it_one() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::of(&[1000]);
    let source = layout.path().display().to_string();
    let stderr = Serve::fail(dir.path(), &[&source]);
    assert!(stderr.contains(&format!("hint: give it one: `NAME:TAG={source}`")), "{stderr}");
    let chosen = format!("{source}:@0");
    let stderr = Serve::fail(dir.path(), &[&chosen]);
    assert!(stderr.contains(&format!("hint: give it one: `NAME:TAG={chosen}`")), "{stderr}");
    let stderr = Serve::fail(dir.path(), &["/nowhere/x.tar"]);
    assert!(stderr.contains("`/nowhere/x.tar` does not exist"), "{stderr}");
}
