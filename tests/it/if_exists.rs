//! `push --if-exists`: tags that are there already.

use serde_json::{Value, json};

use crate::{
    support::{
        docker_registry::DockerRegistry,
        longshore::{Longshore, Run},
        read_back::ReadBack,
        registry::{Exchange, Registry, Route},
    },
    wire::image::{Archive, INDEX, Layout},
};

fn push(longshore: &Longshore, source: &str, to: &str, more: &[&str]) -> Run {
    longshore.run([&["push", source, to], more].concat())
}

fn path(layout: &Layout) -> &str {
    layout.path().to_str().unwrap()
}

/// What asks and sends nothing.
fn is_question(exchange: &Exchange) -> bool {
    let questions =
        [Route::Base, Route::BlobGet, Route::BlobHead, Route::ManifestGet, Route::ManifestHead, Route::Token];
    questions.contains(&exchange.route)
}

#[test]
fn a_tag_that_is_there_is_left_alone() {
    let (longshore, registry) = (Longshore::new(), DockerRegistry::start());
    let (one, two) = (Layout::of(&[1000]), Layout::of(&[2000]));
    let to = |tag: &str| format!("{}/demo:{tag}", registry.host());
    push(&longshore, path(&one), &to("1"), &[]).pushed().unwrap();

    let run = push(&longshore, path(&two), &to("1"), &["--if-exists=skip"]);
    let reference = format!("{}/demo@{}", registry.host(), one.root.digest);
    assert_eq!(run.pushed().unwrap(), reference);
    assert!(run.stderr.contains(&format!("skipped `{}`, which is there already", to("1"))), "{run:?}");

    // Another tag is set.
    let run = push(&longshore, path(&two), &to("1"), &["--tag=2", "--if-exists=skip", "--json"]);
    let printed: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(printed["pushed"][0]["digest"], two.root.digest.to_string());
    assert_eq!(printed["pushed"][0]["tags"], json!(["2"]));
    assert_eq!(printed["pushed"][0]["skipped"], json!({ "1": one.root.digest }));
    assert_eq!(ReadBack::of(&to("1")).unwrap().digest(), one.root.digest.to_string());
    assert_eq!(ReadBack::of(&to("2")).unwrap().digest(), two.root.digest.to_string());
}

#[test]
fn an_archive_is_not_read_where_nothing_would_come_of_it() {
    let (longshore, registry) = (Longshore::new(), Registry::honest());
    let archive = Archive::of(&[200_000]);
    let to = format!("{}/demo:1", registry.host());
    push(&longshore, archive.path().to_str().unwrap(), &to, &[]).pushed().unwrap();
    let before = registry.log().len();
    // Only its beginning is one.
    let damaged = longshore.home().join("damaged.tar.gz");
    let bytes = fs_err::read(archive.compressed()).unwrap();
    fs_err::write(&damaged, &bytes[..bytes.len() / 2]).unwrap();
    let damaged = damaged.to_str().unwrap();
    push(&longshore, damaged, &to, &["--if-exists=skip"]).pushed().unwrap();
    assert!(registry.log()[before..].iter().all(is_question), "{:?}", registry.log());
    assert_eq!(push(&longshore, damaged, &to, &["--if-exists=skip", "--tag=2"]).code, Some(3));
}

#[test]
fn another_image_of_that_name_is_an_error_and_the_same_one_is_not() {
    let (longshore, registry) = (Longshore::new(), Registry::honest());
    let (one, two) = (Layout::of(&[1000]), Layout::of(&[2000]));
    let to = format!("{}/demo:1", registry.host());
    let fail = ["--if-exists=fail"];
    push(&longshore, path(&one), &to, &fail).pushed().unwrap();
    let before = registry.log().len();
    let run = push(&longshore, path(&two), &to, &fail);
    assert_eq!(run.code, Some(5), "{run:?}");
    assert!(run.stderr.contains(&format!("`{to}` is there already: {}", one.root.digest)), "{run:?}");
    assert!(run.stderr.contains(&two.root.digest.to_string()), "{run:?}");
    assert_eq!(push(&longshore, path(&two), &to, &["--if-exists=fail", "--dry-run"]).code, Some(5));
    assert!(registry.log()[before..].iter().all(is_question), "{:?}", registry.log());

    // The same image, also under one more name.
    push(&longshore, path(&one), &to, &fail).pushed().unwrap();
    push(&longshore, path(&one), &to, &["--if-exists=fail", "--tag=2"]).pushed().unwrap();
    assert_eq!(registry.tags("demo"), ["1", "2"]);
}

#[test]
fn an_image_is_the_same_as_far_as_that_is_known() {
    let (longshore, registry) = (Longshore::new(), Registry::honest());
    let archive = Archive::of(&[200_000]);
    let to = format!("{}/demo:1", registry.host());
    let fail = ["--if-exists=fail"];
    for source in [archive.path(), archive.compressed()] {
        push(&longshore, source.to_str().unwrap(), &to, &fail).pushed().unwrap();
    }
    let before = registry.log().len();
    let stranger = ["--if-exists=fail", "--no-reuse", "--no-cache"];
    let run = push(&longshore, archive.path().to_str().unwrap(), &to, &stranger);
    assert_eq!(run.code, Some(5), "{run:?}");
    assert!(run.stderr.contains("has no digest before its layers are encoded"), "{run:?}");
    // What passes once is not sent ahead.
    let other = Archive::of(&[300_000]);
    assert_eq!(push(&longshore, other.compressed().to_str().unwrap(), &to, &stranger).code, Some(5));
    assert!(registry.log()[before..].iter().all(is_question), "{:?}", registry.log());
}

#[test]
fn of_many_images_those_that_are_there_are_left() {
    let (longshore, registry) = (Longshore::new(), Registry::honest());
    let layout = Layout::index(&[&[vec![1; 100]], &[vec![2; 100]]]);
    let [a, b] = [0, 1].map(|at: usize| layout.children[at].clone());
    let signature = Layout::referrer(b"a signature", &a);
    for blob in signature.blobs.iter().chain([&signature.root.digest]) {
        fs_err::copy(signature.blob(blob), layout.blob(blob)).unwrap();
    }
    let list = |a: &Value, b: &Value| {
        let mut entries = [a.clone(), b.clone(), signature.root.descriptor()];
        for (entry, name) in entries.iter_mut().zip(["r.example/a:1", "r.example/b:1"]) {
            entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        }
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
        fs_err::write(layout.path().join("index.json"), index.to_string()).unwrap();
    };
    let run = |more: &[&str]| {
        let to = format!("{}/m", registry.host());
        longshore.run([&["push", "--all", path(&layout), &to, "--json"], more].concat())
    };
    // `a:1` is what `b:1` shall be.
    push(&longshore, path(&Layout::of_layers(&[vec![2; 100]])), &format!("{}/m/a:1", registry.host()), &[])
        .pushed()
        .unwrap();
    let there = registry.manifest("m/a", "1").unwrap().1;
    list(&a.descriptor(), &b.descriptor());
    let failed = run(&["--if-exists=fail"]);
    assert_eq!(failed.code, Some(7), "{failed:?}");
    assert_eq!(registry.tags("m/b"), ["1"]);
    let skipped = run(&["--if-exists=skip"]);
    assert_eq!(skipped.code, Some(0), "{skipped:?}");
    let printed: Value = serde_json::from_str(&skipped.stdout).unwrap();
    assert_eq!(printed["pushed"].as_array().unwrap().len(), 2, "{printed}");
    assert_eq!(printed["leftOut"], json!([{ "image": signature.root.digest }]), "{printed}");
    assert_eq!(registry.manifest("m/a", "1").unwrap().1, there);
    // What is said of an image that was not pushed is not pushed.
    assert!(skipped.stderr.contains("what it is about was skipped"), "{skipped:?}");
    assert_eq!(registry.manifest("m/a", &signature.root.digest.to_string()), None);
}

#[test]
fn what_cannot_be_asked_is_no_destination() {
    let (longshore, layout) = (Longshore::new(), Layout::of(&[1000]));
    let to = format!("oci:{}:1", longshore.home().join("copy").display());
    let run = push(&longshore, path(&layout), &to, &["--if-exists=skip"]);
    assert!(run.code == Some(2) && run.stderr.contains("asks a registry"), "{run:?}");
    let run = push(&longshore, path(&layout), "demo:1", &["--if-exists=ask"]);
    assert!(run.code == Some(2) && run.stderr.contains("not a way to treat tags: `ask`"), "{run:?}");
    // A folder that becomes a registry can be asked.
    let into = longshore.home().join("registry");
    let into = ["--into", into.to_str().unwrap(), "--if-exists=skip"];
    push(&longshore, path(&layout), "demo:1", &into).pushed().unwrap();
    let other = Layout::of(&[2000]);
    let run = push(&longshore, path(&other), "demo:1", &into);
    assert!(run.pushed().unwrap().ends_with(&layout.root.digest.to_string()), "{run:?}");
}
