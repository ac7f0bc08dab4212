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
fn what_umoci_made_comes_back_through_skopeo() {
    if ["umoci", "skopeo", "root"].into_iter().any(is_unavailable) {
        return;
    }
    let (dir, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let serve = Serve::start(dir.path());
    let umoci = |arguments: &[&str]| tool::output(Command::new("umoci").args(arguments)).unwrap();
    let layout = work.path().join("made").display().to_string();
    let image = format!("{layout}:1");
    umoci(&["init", "--layout", &layout]);
    umoci(&["new", "--image", &image]);
    let file = work.path().join("file");
    for (seed, path) in [(1, "/etc/one"), (2, "/usr/bin/two")] {
        fs_err::write(&file, noise(seed, MIB)).unwrap();
        umoci(&["insert", "--image", &image, file.to_str().unwrap(), path]);
    }
    let reference = format!("{}/a/umoci:1", serve.host());
    skopeo::push(&format!("oci:{image}"), &reference).unwrap();

    // Out of the registry, and out of its folder.
    let copied = skopeo::unpack(&reference, work.path()).unwrap();
    let direct = work.path().join("direct");
    let served = format!("{}:1", dir.path().join("a/umoci").display());
    umoci(&["unpack", "--image", &served, direct.to_str().unwrap()]);
    for root in [copied, direct.join("rootfs")] {
        assert!(fs_err::read(root.join("etc/one")).unwrap() == noise(1, MIB));
        assert!(fs_err::read(root.join("usr/bin/two")).unwrap() == noise(2, MIB));
    }
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
