//! `push --dry-run` says what would be done, and asks the registry only what it has.

use serde_json::Value;

use crate::{
    support::{
        longshore::{Longshore, Run},
        registry::{Registry, Route},
        samples::Sample,
    },
    wire::image::{Archive, Layout},
};

/// What a registry may be asked without anything being done there.
const QUESTIONS: [Route; 6] =
    [Route::Base, Route::BlobGet, Route::BlobHead, Route::ManifestGet, Route::ManifestHead, Route::Token];

fn forecast(longshore: &Longshore, source: &str, registry: &Registry, more: &[&str]) -> Run {
    let destination = format!("{}/team/demo:1", registry.host());
    let run = longshore.run([&["push", "--dry-run", source, &destination], more].concat());
    for exchange in registry.log() {
        assert!(QUESTIONS.contains(&exchange.route), "{exchange:?}");
    }
    run
}

/// Puts names in the place of what differs from run to run.
fn shown(run: &Run, registry: &Registry, blobs: &[(String, &str)]) -> String {
    assert_eq!(run.code, Some(0), "{run:?}");
    let text = run.stdout.replace(&registry.host(), "HOST");
    blobs.iter().fold(text, |text, (blob, name)| text.replace(blob, name))
}

#[test]
fn rule_39_each_blob_has_its_row_and_no_session_is_opened() {
    let (registry, layout) = (Registry::honest(), Layout::of(&[300_000, 200_000, 100_000]));
    registry.seed("team/demo", &layout.read(&layout.blobs[1]));
    let source = layout.path().display().to_string();
    let mut names: Vec<_> =
        layout.blobs.iter().map(ToString::to_string).zip(["L1", "L2", "L3", "CONFIG"]).collect();
    names.push((layout.root.digest.to_string(), "ROOT"));
    let run = forecast(&Longshore::new(), &source, &registry, &["--tag=2", "--chunk-size=1MiB"]);
    insta::assert_snapshot!(shown(&run, &registry, &names), @r"
    HOST/team/demo@ROOT as 1, 2
      send     293.0 KiB  L1
      present  195.3 KiB  L2
      send      97.7 KiB  L3
      send         318 B  CONFIG
    total: 1 present (195.3 KiB), 3 to send (390.9 KiB)
    chunks of 1.0 MiB, as was asked for
    ");
    let run = forecast(&Longshore::new(), &source, &registry, &["--mount-from=base"]);
    insta::assert_snapshot!(shown(&run, &registry, &names), @r"
    HOST/team/demo@ROOT as 1
      mount from base, or send  293.0 KiB  L1
      present                   195.3 KiB  L2
      mount from base, or send   97.7 KiB  L3
      mount from base, or send      318 B  CONFIG
    total: 1 present (195.3 KiB), 3 to mount (390.9 KiB)
    chunks of 16.0 MiB, as is usual
    ");
    assert_eq!(run.stderr, "");
    assert!(registry.tags("team/demo").is_empty());
}

#[test]
fn layers_to_be_encoded_may_be_at_other_repositories() {
    let (registry, longshore) = (Registry::honest(), Longshore::new());
    let archive = Archive::of(&[200_000, 100_000]);
    let source = archive.path().display().to_string();
    let run = forecast(&longshore, &source, &registry, &[]);
    let config = run.stdout.split_whitespace().find(|word| word.starts_with("sha256:"));
    let names = [(config.unwrap_or_default().to_owned(), "CONFIG")];
    insta::assert_snapshot!(shown(&run, &registry, &names), @r"
    HOST/team/demo (its digest is known when all is encoded) as 1
      encode gzip:1  197.0 KiB  0/layer.tar
      encode gzip:1   99.5 KiB  1/layer.tar
      send               225 B  CONFIG
    total: 1 to send (225 B), 2 to encode and send (296.5 KiB)
    chunks of 16.0 MiB, as is usual
    ");

    // Somebody else has pushed them to another repository.
    let other = format!("{}/team/other:1", registry.host());
    let run = Longshore::new().run(["push", &source, &other]);
    assert!(
        run.stderr.starts_with("blobs: 1 to send (225 B), 2 to encode and send (296.5 KiB)\n"),
        "what is foreseen and what is done are told by the same words: {run:?}"
    );
    run.pushed().unwrap();
    let before = registry.log().len();
    let destination = format!("{}/team/demo:1", registry.host());
    let reuse = format!("--reuse-from={other}");
    let run = longshore.run(["push", "--dry-run", &source, &destination, &reuse]);
    assert!(registry.log()[before..].iter().all(|exchange| QUESTIONS.contains(&exchange.route)));
    assert_eq!(run.stdout.matches("mount from team/other, or encode gzip:1").count(), 2, "{run:?}");
}

#[test]
fn a_pulled_image_keeps_its_manifest_only_where_all_of_it_is_to_be_had() {
    let (registry, pulled_from) = (Registry::honest(), Sample::open("oci/skopeo"));
    for blob in fs_err::read_dir(pulled_from.path.join("blobs/sha256")).unwrap() {
        registry.seed("base/image", &fs_err::read(blob.unwrap().path()).unwrap());
    }
    let sample = Sample::open("stores/containers-storage-pulled-gz.tar.gz");
    let store = sample.path.display().to_string();
    for (from, named, instead) in [
        ("base/image", "@sha256:0c3dbe6979c0c03af9e9600ce43da43e1ad9cc357241d42ed253f0e9b76e099a", "send"),
        ("no/image", " (its digest is known when all is encoded)", "encode"),
    ] {
        let run = forecast(&Longshore::new(), &store, &registry, &[&format!("--mount-from={from}")]);
        let words = format!("{}/team/demo{named} as 1\n  mount from {from}, or {instead}", registry.host());
        assert!(run.stdout.starts_with(&words), "{run:?}");
    }
}

#[test]
fn a_place_that_is_not_there_yet_is_foreseen_empty() {
    let (layout, longshore, dir) = (Layout::of(&[1000]), Longshore::new(), tempfile::tempdir().unwrap());
    let (source, new) = (layout.path().display().to_string(), dir.path().join("new").display().to_string());
    let (folder, file) = (format!("oci:{new}"), format!("oci-archive:{new}"));
    for (to, name) in [
        (vec!["demo:1", "--into", &new], format!("{new}/demo")),
        (vec![&format!("{folder}/deep:1")], format!("{folder}/deep")),
        (vec![&format!("{file}:1")], file),
    ] {
        let run = longshore.run([&["push", "--dry-run", &source], &to[..]].concat());
        assert_eq!(run.code, Some(0), "{run:?}");
        let digest = &layout.root.digest;
        assert_eq!(run.stdout.lines().next(), Some(&*format!("{name}@{digest} as 1")), "{run:?}");
        assert!(run.stdout.contains("\ntotal: 2 to send ("), "{run:?}");
    }
    assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 0, "nothing is made");
}

#[test]
fn what_is_foreseen_is_done() {
    let (registry, layout) = (Registry::honest(), Layout::of(&[300_000, 200_000]));
    registry.seed("team/demo", &layout.read(&layout.blobs[0]));
    let source = layout.path().display().to_string();
    let longshore = Longshore::new();
    let run = forecast(&longshore, &source, &registry, &["--json"]);
    let foreseen: Value = serde_json::from_str(&run.stdout).unwrap();
    let foreseen = &foreseen["destinations"][0];
    assert_eq!(foreseen["isThere"], false);
    assert_eq!(foreseen["tags"], serde_json::json!(["1"]));
    let to_send = foreseen["blobs"].as_array().unwrap().iter().filter(|blob| blob["step"] == "send");
    let bytes: u64 = to_send.map(|blob| blob["size"].as_u64().unwrap()).sum();
    assert_eq!(foreseen["bytes"], bytes);

    let destination = format!("{}/team/demo:1", registry.host());
    let pushed = longshore.run(["push", &source, &destination]);
    let digest = foreseen["digest"].as_str().unwrap();
    assert!(pushed.pushed().unwrap().ends_with(&format!("/team/demo@{digest}")));
    let sent: u64 =
        [Route::Open, Route::Patch, Route::Commit].map(|route| registry.bytes(route)).iter().sum();
    assert_eq!(sent, bytes);

    let again = longshore.run(["push", "--dry-run", &source, &destination]);
    assert!(again.stdout.contains("it is there: nothing would be done"), "{again:?}");
}

#[test]
fn an_archive_that_passes_once_is_not_sent_ahead() {
    let (registry, longshore, archive) = (Registry::honest(), Longshore::new(), Archive::of(&[200_000]));
    let source = archive.compressed().display().to_string();
    let run = forecast(&longshore, &source, &registry, &[]);
    assert!(run.stdout.contains("total: 2 to send"), "{run:?}");
    let destination = format!("{}/team/demo:1", registry.host());
    let pushed = longshore.run(["push", &source, &destination]);
    let digest = pushed.pushed().unwrap().split_once('@').unwrap().1;
    assert!(run.stdout.contains(digest), "{run:?}");
}

#[test]
fn what_would_fail_fails() {
    let (registry, layout) = (Registry::honest(), Layout::of(&[1000]));
    fs_err::remove_file(layout.blob(&layout.blobs[0])).unwrap();
    let run = forecast(&Longshore::new(), &layout.path().display().to_string(), &registry, &[]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(3), ""), "{run:?}");
}
