//! What a push leaves for a pipeline: JSON on standard output, and the files it asked for.

use std::{
    os::unix::fs::{PermissionsExt as _, symlink},
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    support::{
        longshore::Longshore,
        registry::{Fault, Registry, Route, Script},
        samples::Sample,
    },
    wire::image::Layout,
};

#[test]
fn the_result_is_printed_and_written_down() {
    let (registry, layout, dir) = (Registry::honest(), Layout::of(&[1000]), tempfile::tempdir().unwrap());
    let (digest_file, metadata_file) = (dir.path().join("digest"), dir.path().join("metadata.json"));
    fs_err::write(&digest_file, "of another push, much longer than what comes").unwrap();
    let (one, two) = (format!("{}/a:1", registry.host()), format!("{}/b", registry.host()));
    let run = Longshore::new().run([
        "push",
        "--json",
        "--tag=x",
        &format!("--digest-file={}", digest_file.display()),
        &format!("--metadata-file={}", metadata_file.display()),
        &layout.path().display().to_string(),
        &one,
        &two,
    ]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let (digest, size) = (layout.root.digest.to_string(), layout.root.bytes.len());
    let sent: usize = layout.blobs.iter().map(|blob| layout.read(blob).len()).sum();
    let arrival = |repository: &str, tags: &[&str], how: &str, sent: usize| {
        let repository = format!("{}/{repository}", registry.host());
        json!({
            "image": layout.path(),
            "repository": repository,
            "reference": format!("{repository}@{digest}"),
            "digest": digest,
            "mediaType": layout.root.media_type,
            "size": size,
            "tags": tags,
            "referrers": [],
            "skipped": {},
            "how": how,
            "bytesSent": sent,
            "doneBefore": false,
        })
    };
    let pushed = json!([arrival("a", &["1", "x"], "uploaded", sent), arrival("b", &["x"], "mounted", 0)]);
    let printed: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(printed, json!({ "pushed": pushed, "failed": [], "leftOut": [] }));
    assert_eq!(fs_err::read_to_string(&digest_file).unwrap(), digest);
    let metadata: Value = serde_json::from_str(&fs_err::read_to_string(&metadata_file).unwrap()).unwrap();
    let host = registry.host();
    let expected = json!({
        "containerimage.digest": digest,
        "containerimage.descriptor": { "mediaType": layout.root.media_type, "digest": digest, "size": size },
        "image.name": format!("{host}/a:1,{host}/a:x,{host}/b:x"),
        "pushed": pushed,
    });
    assert_eq!(metadata, expected);
    let mode = fs_err::metadata(&metadata_file).unwrap().permissions().mode();
    assert_eq!(mode & 0o600, 0o600);
    assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 2, "nothing else is left");
}

#[test]
fn what_was_sent_while_an_archive_passed_by_counts_too() {
    let (registry, archive) = (Registry::honest(), Sample::open("docker-archive/podman-save.tar.gz"));
    let destination = format!("{}/a:1", registry.host());
    let run = Longshore::new().run(["push", "--json", archive.path.to_str().unwrap(), &destination]);
    let printed: Value = serde_json::from_str(&run.stdout).unwrap();
    let received = [Route::Open, Route::Patch, Route::Commit].map(|route| registry.bytes(route));
    assert_eq!(printed["pushed"][0]["bytesSent"], received.iter().sum::<u64>(), "{run:?}");
}

#[test]
fn a_failure_leaves_files_as_they_were() {
    let refusal = Fault::status(400);
    let registry = Registry::start(Script::new().on(Route::ManifestPut, 2, refusal));
    let (layout, dir) = (Layout::of(&[1000]), tempfile::tempdir().unwrap());
    let digest_file = dir.path().join("digest");
    fs_err::write(&digest_file, "before").unwrap();
    let (one, two) = (format!("{}/a:1", registry.host()), format!("{}/b:1", registry.host()));
    let run = Longshore::new().run([
        "push",
        "--json",
        &format!("--digest-file={}", digest_file.display()),
        &layout.path().display().to_string(),
        &one,
        &two,
    ]);
    assert_eq!(run.code, Some(7), "{run:?}");
    let printed: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(printed["pushed"].as_array().unwrap().len(), 1);
    assert_eq!(printed["failed"][0]["destination"], format!("{}/b", registry.host()));
    assert!(printed["failed"][0]["error"].as_str().is_some_and(|words| words.contains("400")), "{printed}");
    assert_eq!(fs_err::read_to_string(&digest_file).unwrap(), "before");
}

#[test]
fn a_file_may_be_a_pipe_and_its_folder_must_be_there() {
    let (registry, layout) = (Registry::honest(), Layout::of(&[10]));
    let (source, destination) = (layout.path().display().to_string(), format!("{}/a:1", registry.host()));
    let run = Longshore::new().run(["push", "--digest-file=/dev/stdout", &source, &destination]);
    assert!(run.stdout.starts_with(&layout.root.digest.to_string()), "{run:?}");
    let run = Longshore::new().run(["push", "--digest-file=/nowhere/digest", &source, &destination]);
    assert_eq!(run.code, Some(8), "{run:?}");
    assert!(run.stderr.contains("there is no folder for `/nowhere/digest`"), "{run:?}");
    let pushed = registry.log().len();
    for (place, words) in [("/", "`/` is a folder"), ("/proc/digest", "writing `/proc/digest`")] {
        let run = Longshore::new().run(["push", "--digest-file", place, &source, &destination]);
        assert_eq!(run.code, Some(8), "{run:?}");
        assert!(run.stderr.contains(words), "{run:?}");
    }
    assert_eq!(registry.log().len(), pushed, "that is known before anything is sent");
}

#[test]
fn one_file_does_not_hold_both_results() {
    let (registry, layout, dir) = (Registry::honest(), Layout::of(&[10]), tempfile::tempdir().unwrap());
    let (source, destination) = (layout.path().display().to_string(), format!("{}/a:1", registry.host()));
    let (file, link) = (dir.path().join("result"), dir.path().join("folder"));
    symlink(dir.path(), &link).unwrap();
    let digest_file = format!("--digest-file={}", file.display());
    let metadata_file = format!("--metadata-file={}", link.join("result").display());
    let run = Longshore::new().run(["push", &digest_file, &metadata_file, &source, &destination]);
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("cannot be the same file"), "{run:?}");
    assert!(!file.exists() && registry.log().is_empty(), "that is known before anything is sent");
}

#[test]
fn a_link_stays_and_what_it_leads_to_is_written() {
    let (registry, layout, dir) = (Registry::honest(), Layout::of(&[10]), tempfile::tempdir().unwrap());
    let (source, destination) = (layout.path().display().to_string(), format!("{}/a:1", registry.host()));
    let [file, link, stream, log] = ["file", "link", "stream", "log"].map(|name| dir.path().join(name));
    fs_err::write(&file, "before").unwrap();
    symlink("file", &link).unwrap();
    let digest_file = format!("--digest-file={}", link.display());
    assert_eq!(Longshore::new().run(["push", &digest_file, &source, &destination]).code, Some(0));
    assert_eq!(fs_err::read_to_string(&file).unwrap(), layout.root.digest.to_string());
    assert!(link.is_symlink());

    // As `/dev/stdout` is one, which this must not put at risk.
    symlink("/proc/self/fd/1", &stream).unwrap();
    fs_err::write(&log, "a log\n").unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_longshore"))
        .args(["push", "--quiet", "--digest-file", stream.to_str().unwrap(), &source, &destination])
        .env("HOME", dir.path())
        .stdout(fs_err::OpenOptions::new().append(true).open(&log).unwrap().into_parts().0)
        .status()
        .unwrap();
    let (digest, told) = (&layout.root.digest, fs_err::read_to_string(&log).unwrap());
    assert!(status.success() && stream.is_symlink(), "{status}");
    assert_eq!(told, format!("a log\n{digest}{}/a@{digest}\n", registry.host()));
}
