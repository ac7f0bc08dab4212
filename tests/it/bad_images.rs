//! Broken and hostile inputs: each gives its exit code and says what is wrong with which file, in little
//! memory, and tags nothing.

use std::{process::Command, time::Duration};

use serde_json::{Value, json};

use crate::support::{
    capability,
    longshore::{Longshore, Run},
    registry::Registry,
    samples::{self, Bad, Sample},
    tool,
};

/// No input may cost more memory (KiB), whatever it claims to be.
const PEAK: u64 = 64 << 10;

/// Root reads everything: this one is pushed by somebody else.
const UNREADABLE: &str = "oci-blob-unreadable";

/// What the names of most samples begin with: what they are packed as.
const PACKAGINGS: [&str; 4] = ["cs-", "da-", "dir-", "oci-"];

#[test]
fn storages_with_defects_give_their_exit_code() {
    push_all("cs-");
}

#[test]
fn docker_archives_with_defects_give_their_exit_code() {
    push_all("da-");
}

#[test]
fn docker_dirs_with_defects_give_their_exit_code() {
    push_all("dir-");
}

#[test]
fn layouts_with_defects_give_their_exit_code() {
    push_all("oci-");
}

#[test]
fn damaged_tars_and_compressed_files_give_their_exit_code() {
    push_all("");
}

/// Pushes the bad samples of one packaging, or of none; all that went wrong is said together.
#[expect(clippy::print_stdout, reason = "`cargo test -- --show-output` shows which was slowest")]
fn push_all(packaging: &str) {
    let is_meant = |sample: &str| {
        let found = PACKAGINGS.iter().find(|packaging| sample.starts_with(**packaging));
        found.copied().unwrap_or_default() == packaging
    };
    let can_run = |sample: &str| sample != UNREADABLE || !capability::is_unavailable("unprivileged");
    let all = samples::bad().into_iter();
    let meant: Vec<_> = all.filter(|bad| is_meant(&bad.sample) && can_run(&bad.sample)).collect();
    assert!(!meant.is_empty(), "no samples in {}", samples::folder().display());
    let mut slowest = (Duration::ZERO, String::new());
    let mut problems = Vec::new();
    for bad in &meant {
        let registry = Registry::honest();
        let run = push(bad, &registry);
        slowest = slowest.max((run.wall, bad.sample.clone()));
        let found = problems_of(bad, &run, &registry.tags("demo"));
        if !found.is_empty() {
            problems.push(format!(
                "{}: {}; it said: {}",
                bad.sample,
                found.join(", "),
                run.stderr.trim_end()
            ));
        }
    }
    println!("slowest of {}: {:?}", meant.len(), slowest);
    assert!(problems.is_empty(), "{} of {}:\n{}", problems.len(), meant.len(), problems.join("\n"));
}

fn push(bad: &Bad, registry: &Registry) -> Run {
    let sample = Sample::open(&format!("bad/{}", bad.sample));
    let mut longshore = Longshore::new();
    if bad.sample == UNREADABLE {
        longshore = longshore.by_nobody();
    }
    longshore.run(["push".as_ref(), sample.path.as_os_str(), format!("{}/demo:1", registry.host()).as_ref()])
}

fn problems_of(bad: &Bad, run: &Run, tags: &[String]) -> Vec<String> {
    let mut problems = Vec::new();
    if run.code != Some(bad.exit) {
        problems.push(format!("exit code {:?} instead of {}", run.code, bad.exit));
    }
    if !run.stderr.contains(&bad.message) {
        problems.push(format!("`{}` is not said", bad.message));
    }
    if bad.exit != 0 && !run.stderr.contains(&bad.sample) {
        problems.push("the file is not named".to_owned());
    }
    if run.stderr.contains("panicked") {
        problems.push("it panicked".to_owned());
    }
    if !(1..=PEAK).contains(&run.peak) {
        problems.push(format!("peak memory {} KiB", run.peak));
    }
    let expected: &[&str] = if bad.exit == 0 { &["1"] } else { &[] };
    if tags != expected {
        problems.push(format!("tagged: {tags:?}"));
    }
    problems
}

#[test]
fn an_item_that_cannot_be_read_hides_no_other() {
    let (folder, registry) = (tempfile::tempdir().unwrap(), Registry::honest());
    let archive = samples::folder().join("docker-archive/podman-save.tar");
    tool::output(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(folder.path())).unwrap();
    let list = folder.path().join("manifest.json");
    let mut items: Vec<Value> = serde_json::from_slice(&fs_err::read(&list).unwrap()).unwrap();
    let good = items.remove(0);
    // Of the same config, so that nothing but its error tells it from the good one.
    let [mut renamed, mut short] = [good.clone(), good];
    renamed["RepoTags"] = json!(["good:1"]);
    short["RepoTags"] = json!(["short:1"]);
    short["Layers"] = json!([]);
    items = vec![json!({"Config": "gone.json", "RepoTags": ["gone:1"], "Layers": []}), renamed, short];
    fs_err::write(&list, json!(items).to_string()).unwrap();
    let push = |words: &[&str]| Longshore::new().run([&["push"], words].concat());
    let (path, host) = (folder.path().display().to_string(), registry.host());
    for (name, wrong) in [("gone", "`gone.json` is missing"), ("short", "0 layers and ")] {
        let run = push(&[&format!("{path}:{name}:1"), &format!("{host}/demo:1")]);
        assert!(run.code == Some(3) && run.stderr.contains(wrong), "{run:?}");
    }
    push(&[&format!("{path}:good:1"), &format!("{host}/demo:1")]).pushed().unwrap();
    let run = push(&["--all", &path, &format!("{host}/all")]);
    assert!(run.code == Some(7) && run.stderr.contains("2 failed"), "{run:?}");
    assert_eq!(["good", "gone", "short"].map(|name| registry.tags(&format!("all/{name}")).len()), [1, 0, 0]);
}
