//! Other people's tools, at the registry and at the folder it leaves.

use std::process::Command;

use super::MIB;
use crate::{
    support::{
        capability::is_unavailable, longshore::Longshore, read_back::ReadBack, serve::Serve, skopeo, tool,
    },
    wire::image::{Layout, gzip, layer, noise},
};

#[test]
fn skopeo_copies_in_out_and_from_the_folder() {
    if is_unavailable("skopeo") {
        return;
    }
    let (dir, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let serve = Serve::start(dir.path());
    let layers = [MIB, 1000].map(|size| gzip(&layer(&noise(size as u64, size))));
    let layout = Layout::of_layers(&layers);
    let source = format!("oci:{}", layout.path().display());
    let reference = format!("{}/a/demo:1", serve.host());
    skopeo::push(&source, &reference).unwrap();
    let there = ReadBack::of(&reference).unwrap();
    assert_eq!(there.digest(), layout.root.digest.to_string());
    let layers = there.contents(&there.manifest).unwrap().layers;
    assert!(layers.len() == 2 && layers.iter().all(Option::is_some), "{layers:?}");

    // With the registry running, and without.
    let from = format!("oci:{}/a/demo:1", dir.path().display());
    skopeo::repackage(&from, &format!("oci:{}:1", work.path().join("one").display())).unwrap();
    serve.kill();
    skopeo::repackage(&from, &format!("dir:{}", work.path().join("two").display())).unwrap();
    assert_eq!(fs_err::read(work.path().join("two/manifest.json")).unwrap(), layout.root.bytes);
}

#[test]
fn podman_pushes_and_pulls() {
    if is_unavailable("podman") {
        return;
    }
    let (dir, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let serve = Serve::start(dir.path());
    let podman = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        command.arg("--root").arg(store.path().join("root")).arg("--runroot").arg(store.path().join("run"));
        tool::output(command.args(["--storage-driver=vfs", "--cgroup-manager=cgroupfs"]).args(arguments))
    };
    let archive = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/docker-archive/podman-save.tar");
    let loaded = String::from_utf8(podman(&["load", "--quiet", "--input", archive]).unwrap()).unwrap();
    let image = loaded.trim().rsplit(' ').next().unwrap().to_owned();
    let reference = format!("{}/a/demo:1", serve.host());
    podman(&["push", "--quiet", "--tls-verify=false", &image, &reference]).unwrap();
    podman(&["rmi", "--all", "--force"]).unwrap();
    podman(&["pull", "--quiet", "--tls-verify=false", &reference]).unwrap();
    let id = |name: &str| podman(&["image", "inspect", "--format={{.Id}}", name]).unwrap();
    let pulled = id(&reference);
    podman(&["load", "--quiet", "--input", archive]).unwrap();
    assert_eq!(pulled, id(&image));
}

#[test]
fn longshore_reads_the_folder_it_serves() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start(dir.path());
    let layout = Layout::of(&[MIB]);
    let source = layout.path().display().to_string();
    let user = Longshore::new();
    user.run(["push", &source, &format!("{}/a:1", serve.host())]).pushed().unwrap();
    let from = format!("{}:1", dir.path().join("a").display());
    let run = user.run(["push", &from, &format!("{}/b:1", serve.host())]);
    assert_eq!(run.pushed(), Ok(&*format!("{}/b@{}", serve.host(), layout.root.digest)));
}
