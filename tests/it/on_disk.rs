//! Destinations on disk: layouts as folders and as files, read back by others.

use std::{
    os::unix::fs::{FileTypeExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use longshore::layout::REF_NAME;
use rustix::fs::{CWD, FileType, mknodat};
use serde_json::Value;

use crate::{
    support::{longshore::Longshore, samples::Sample, small_disk::SmallDisk},
    wire::image::{Archive, Layout},
};

/// Returns the digest that skopeo finds.
fn found(reference: &str) -> String {
    let output =
        Command::new("skopeo").args(["inspect", "--format", "{{.Digest}}", reference]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Returns what lies in a folder, without what begins with a dot.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs_err::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_layout_takes_one_image_beside_the_other() {
    let (longshore, dir) = (Longshore::new(), tempfile::tempdir().unwrap());
    let layout = dir.path().join("layout");
    for (size, tag) in [(1000, "a"), (2000, "b"), (3000, "a")] {
        let source = Archive::of(&[size]);
        let to = format!("oci:{}:{tag}", layout.display());
        let run = longshore.run(["push", source.path().to_str().unwrap(), &to]);
        let digest = found(&to);
        assert_eq!(run.pushed().unwrap(), format!("oci:{}@{digest}", layout.display()));
        assert_eq!(longshore.run(["inspect", run.pushed().unwrap(), "--verify"]).code, Some(0));
    }
    assert_eq!(names(&layout), ["blobs", "index.json", "oci-layout"]);
    assert_ne!(found(&format!("oci:{}:a", layout.display())), found(&format!("oci:{}:b", layout.display())));
}

#[test]
fn a_registry_of_many_tags_can_be_read_as_a_layout() {
    let (longshore, dir) = (Longshore::new(), tempfile::tempdir().unwrap());
    let (source, index) = (Archive::of(&[1000]), dir.path().join("demo/index.json"));
    let push = |tag: &str| {
        let destination = format!("demo:{tag}");
        let source = source.path();
        longshore.run([
            "push",
            source.to_str().unwrap(),
            &destination,
            "--into",
            dir.path().to_str().unwrap(),
        ])
    };
    push("0").pushed().unwrap();
    let mut listed: Value = serde_json::from_slice(&fs_err::read(&index).unwrap()).unwrap();
    let entry = listed["manifests"][0].clone();
    let entries = (0..25_000).map(|tag| {
        let mut entry = entry.clone();
        entry["annotations"][REF_NAME] = tag.to_string().into();
        entry
    });
    listed["manifests"] = entries.collect();
    fs_err::write(&index, listed.to_string()).unwrap();
    push("new").pushed().unwrap();
    let layout = format!("oci:{}:new", index.parent().unwrap().display());
    assert_eq!(longshore.run(["inspect", &layout]).code, Some(0));
}

#[test]
fn nothing_is_remembered_of_a_registry_that_is_gone_with_the_push() {
    let (longshore, dir) = (Longshore::new(), tempfile::tempdir().unwrap());
    let source = Archive::of(&[1000]);
    let to = format!("oci:{}", dir.path().join("layout").display());
    longshore.run(["push", source.path().to_str().unwrap(), &to]).pushed().unwrap();
    let state = longshore.home().join(".local/state/longshore");
    let kept = walkdir::WalkDir::new(state).into_iter().flatten().filter(|entry| entry.file_type().is_file());
    assert_eq!(kept.map(walkdir::DirEntry::into_path).collect::<Vec<_>>(), Vec::<PathBuf>::new());
}

#[test]
fn an_archive_is_the_same_whenever_it_is_written() {
    let (longshore, dir) = (Longshore::new(), tempfile::tempdir().unwrap());
    let sample = Sample::open("docker-archive/podman-save.tar");
    let archives = ["one.tar", "two.tar"].map(|name| {
        let file = dir.path().join(name);
        let to = format!("oci-archive:{}:v1", file.display());
        let run = longshore.run(["push", sample.path.to_str().unwrap(), &to, "--compression", "zstd"]);
        assert!(run.pushed().unwrap().ends_with(&found(&to)), "{run:?}");
        fs_err::read(file).unwrap()
    });
    assert!(archives[0] == archives[1]);
    assert_eq!(names(dir.path()), ["one.tar", "two.tar"]);
}

#[test]
fn what_a_killed_push_has_left_goes_with_the_next() {
    let (longshore, dir) = (Longshore::new(), tempfile::tempdir().unwrap());
    let source = Archive::of(&[1000]);
    let layout = dir.path().join("layout");
    // Beside the layout before there is one, in it, and beside it again.
    for (to, place) in [
        ("oci:layout", dir.path()),
        ("oci:layout", &layout),
        ("oci:layout", dir.path()),
        ("oci-archive:file", dir.path()),
    ] {
        let (left, other) = (place.join(".longshore-abcDEF"), place.join(".longshore-mine"));
        fs_err::create_dir_all(left.join("image/blobs")).unwrap();
        fs_err::create_dir_all(&other).unwrap();
        let to = to.replace(':', &format!(":{}/", dir.path().display()));
        longshore.run(["push", source.path().to_str().unwrap(), &to]).pushed().unwrap();
        assert!(!left.exists() && other.exists(), "{to}");
    }
}

#[test]
fn what_fails_leaves_the_place_as_it_was() {
    let (longshore, dir) = (Longshore::new(), tempfile::tempdir().unwrap());
    let broken = Layout::of(&[1000, 2000]);
    fs_err::remove_file(broken.blob(&broken.blobs[0])).unwrap();
    let source = broken.path().to_str().unwrap().to_owned();
    for to in ["oci:new:1", "oci-archive:new.tar:1"] {
        let to = to.replace("new", dir.path().join("new").to_str().unwrap());
        assert_eq!(longshore.run(["push", &source, &to]).code, Some(3));
    }
    assert!(names(dir.path()).is_empty(), "{:?}", names(dir.path()));
    let (here, pipe) = (dir.path().display(), dir.path().join("pipe"));
    mknodat(CWD, &pipe, FileType::Fifo, 0o600.into(), 0).unwrap();
    for (arguments, words) in [
        (vec![format!("oci:{here}/x:1"), format!("oci:{here}/y:1")], "stands alone"),
        (vec![format!("oci:{here}/x:1"), "--all".into()], "takes one image"),
        (vec!["oci:".into()], "names no place"),
        (vec![format!("oci:{here}/x:not a tag")], "invalid tag"),
        (vec![format!("oci-archive:{here}")], "is a folder"),
        (vec!["oci:/dev/null:1".into()], "is no folder"),
        (vec![format!("oci-archive:{}:1", pipe.display())], "is no file"),
        (vec!["oci-archive:-".into()], "standard output takes no file"),
        (vec!["127.0.0.1:1/demo".into(), "--digest-file=-".into()], "standard output takes no file"),
    ] {
        let run = longshore.run([vec!["push".to_owned(), source.clone()], arguments].concat());
        assert_eq!(run.code, Some(2), "{run:?}");
        assert!(run.stderr.contains(words), "{words}: {}", run.stderr);
    }
    let run = longshore.run(["push", &source, "demo:1", "--into", "s3://bucket/registry"]);
    assert!(run.code == Some(2) && run.stderr.contains("takes a folder"), "{run:?}");
    let whole = Layout::of(&[1000]);
    let run = longshore.run(["bundle", "-o", pipe.to_str().unwrap(), whole.path().to_str().unwrap()]);
    assert!(run.code == Some(2) && run.stderr.contains("is no file"), "{run:?}");
    assert!(fs_err::metadata(&pipe).unwrap().file_type().is_fifo());
    let run = longshore.run(["bundle", "-o", "-", &source]);
    assert!(run.code == Some(2) && run.stderr.contains("standard output takes no file"), "{run:?}");
    let run = longshore.run(["push", &source, &format!("oci:{here}/no/where:1")]);
    assert_eq!(run.code, Some(8), "{run:?}");
    // Before the source is read, which is broken.
    for nowhere in
        [vec!["push", &source, "oci-archive:/no/where:1"], vec!["bundle", "-o", "/no/where", &source]]
    {
        let run = longshore.run(&nowhere);
        assert!(run.code == Some(8) && run.stderr.contains("there is no folder for `/no/where`"), "{run:?}");
    }
}

#[test]
fn an_archive_is_not_replaced_by_one_of_its_images() {
    let (longshore, dir) = (Longshore::new(), tempfile::tempdir().unwrap());
    let (file, link) = (dir.path().join("images.tar"), dir.path().join("link"));
    let sources = [Layout::of(&[1000]), Layout::of(&[2000])].map(|layout| (layout.path().to_owned(), layout));
    let bundle = ["bundle".as_ref(), "-o".as_ref(), file.as_os_str()];
    let run = longshore.run(bundle.into_iter().chain(sources.iter().map(|(path, _)| path.as_os_str())));
    assert_eq!(run.code, Some(0), "{run:?}");
    let before = fs_err::read(&file).unwrap();
    symlink(&file, &link).unwrap();
    let (file_name, link) = (file.display(), link.display());
    for (source, to) in [
        (format!("{file_name}:@0"), format!("oci-archive:{link}:1")),
        (format!("oci-archive:{link}:@0"), format!("oci-archive:{file_name}:1")),
    ] {
        let run = longshore.run(["push", &source, &to]);
        assert!(run.code == Some(2) && run.stderr.contains("is the source"), "{run:?}");
    }
    assert!(fs_err::read(&file).unwrap() == before);
}

#[test]
fn what_a_link_leads_to_is_written_and_the_link_stays() {
    let (longshore, dir) = (Longshore::new(), tempfile::tempdir().unwrap());
    let (source, file, link) = (Layout::of(&[1000]), dir.path().join("file"), dir.path().join("link"));
    let (source, place) = (source.path().to_str().unwrap().to_owned(), link.display().to_string());
    symlink("file", &link).unwrap();
    let runs = [
        vec!["push".to_owned(), source.clone(), format!("oci-archive:{place}")],
        vec!["bundle".into(), source, "-o".into(), place],
    ];
    for run in &runs {
        let run = longshore.run(run);
        assert_eq!(run.code, Some(8), "it leads nowhere: {run:?}");
    }
    for run in &runs {
        fs_err::write(&file, "before").unwrap();
        let run = longshore.run(run);
        assert_eq!(run.code, Some(0), "{run:?}");
        assert!(link.is_symlink() && fs_err::metadata(&file).unwrap().len() > 1000);
    }
}

#[test]
fn a_disk_that_is_full_is_this_machines() {
    let Some(disk) = SmallDisk::new() else { return };
    let layout = Layout::of(&[8 << 20]);
    let place = |name: &str| format!("{name}:{}/image", disk.path().display());
    for to in [place("oci"), place("oci-archive")] {
        let run = Longshore::new().run(["push", layout.path().to_str().unwrap(), &to]);
        assert_eq!(run.code, Some(8), "{run:?}");
        assert!(run.stderr.contains("there is no room left for"), "{run:?}");
        assert_eq!(fs_err::read_dir(disk.path()).unwrap().count(), 0, "{to}");
    }
    // There is room for what is put together, and none for the archive of it.
    let (half, to) = (Layout::of(&[5 << 19]), place("oci-archive"));
    let run = Longshore::new().run(["push", half.path().to_str().unwrap(), &to]);
    assert_eq!(run.code, Some(8), "{run:?}");
    let words = format!("no space left in `{}`: `image` needs", disk.path().display());
    assert!(run.stderr.contains(&words) && run.stderr.contains("hint: "), "{run:?}");
    assert_eq!(fs_err::read_dir(disk.path()).unwrap().count(), 0);
    // What is open at once is given back, that which fails and those beside it: nobody else could go on with them.
    let (many, longshore) = (Layout::of(&[3 << 20; 4]), Longshore::new());
    let into = disk.path().join("registry");
    let push = ["push", many.path().to_str().unwrap(), "demo", "--into", into.to_str().unwrap()];
    let run = longshore.run(push.into_iter().chain(["--chunk-size=256KiB"]));
    assert_eq!(run.code, Some(8), "{run:?}");
    let left = names(&into.join("_uploads"));
    let bytes =
        |name: &String| fs_err::metadata(into.join("_uploads").join(name).join("data")).unwrap().len();
    assert_eq!(left.iter().map(bytes).sum::<u64>(), 0, "{run:?}");
}

#[test]
fn who_may_open_hardly_a_file_is_told_so_at_once() {
    let (dir, source) = (tempfile::tempdir().unwrap(), Archive::of(&[1000]));
    let script = r#"ulimit -n "$1" && exec timeout 60 "$0" push "$2" demo:1 --into "$3" --no-cache"#;
    for (files, code) in [("8", 8), ("13", 8), ("63", 8), ("64", 0)] {
        let output = Command::new("sh")
            .args(["-c", script, env!("CARGO_BIN_EXE_longshore"), files])
            .arg(source.path())
            .arg(dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert_eq!(said.contains("so few files may be open at once"), code == 8, "{said}");
    }
}
