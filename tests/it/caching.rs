//! The cache and the recipes as a user sees them: through the binary, with a real registry and foreign readers.

use std::{
    ffi::OsStr,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use serde_json::Value;

use crate::{
    support::{docker_registry::DockerRegistry, longshore::Longshore, read_back::ReadBack, samples::Sample},
    wire::image::{Archive, layer},
};

fn archive() -> Sample {
    Sample::open("docker-archive/podman-save.tar")
}

/// Runs one of the cache's commands, which prints JSON.
fn cache(longshore: &Longshore, command: &[&str]) -> Vec<Value> {
    let run = longshore.run([&["cache"], command, &["--json"]].concat());
    assert_eq!(run.code, Some(0), "{run:?}");
    run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn blobs(layout: &Path) -> Vec<PathBuf> {
    let entries = fs_err::read_dir(layout.join("blobs/sha256")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn every_recipe_is_read_back_by_others() {
    let (longshore, registry, archive) = (Longshore::new(), DockerRegistry::start(), archive());
    let path = archive.path.to_str().unwrap();
    let mut seen = Vec::new();
    for recipe in ["keep", "gzip:9", "zstd", "none"] {
        let to = format!("{}/demo:{}", registry.host(), recipe.replace(':', "-"));
        let run = longshore.run(["push", path, &to, "--compression", recipe]);
        run.pushed().unwrap();
        let back = ReadBack::of(&to).unwrap();
        let contents = back.contents(&back.manifest).unwrap();
        let plain: Vec<_> = contents.layers.into_iter().map(|layer| layer.unwrap().plain).collect();
        seen.push((contents.config, plain));
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:?}");
}

#[test]
fn what_is_encoded_is_taken_by_every_common_tool() {
    let longshore = Longshore::new();
    let dir = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..3_000_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
    let archive = Archive::of_layers(vec![layer(&content)], |_| {});
    for (recipe, tools) in
        [("gzip", &[&["gzip", "-dc"][..], &["pigz", "-dc"], &["zcat"]][..]), ("zstd", &[&["zstd", "-dc"]])]
    {
        let store = dir.path().join(recipe);
        let source = archive.path();
        let arguments = ["push", source.to_str().unwrap(), "demo:1", "--compression", recipe, "--into"];
        let run = longshore.run(arguments.iter().map(Path::new).chain([store.as_path()]));
        run.pushed().unwrap();
        let largest =
            blobs(&store.join("demo")).into_iter().max_by_key(|path| path.metadata().unwrap().len());
        let encoded = largest.unwrap();
        for tool in tools {
            let plain = Command::new(tool[0])
                .args(&tool[1..])
                .stdin(fs_err::File::open(&encoded).unwrap().into_file())
                .output()
                .unwrap();
            assert!(plain.status.success(), "{tool:?}: {}", String::from_utf8_lossy(&plain.stderr));
            assert!(plain.stdout == archive.layers[0], "{tool:?}");
        }
    }
}

#[test]
fn umoci_unpacks_what_was_made_gzip() {
    let (longshore, archive) = (Longshore::new(), archive());
    let dir = tempfile::tempdir().unwrap();
    let run = longshore.run([
        "push",
        archive.path.to_str().unwrap(),
        "demo:1",
        "--compression",
        "gzip:6",
        "--into",
        dir.path().to_str().unwrap(),
    ]);
    run.pushed().unwrap();
    let image = format!("{}:1", dir.path().join("demo").display());
    let bundle = dir.path().join("bundle");
    let umoci = Command::new("umoci")
        .args(["unpack", "--rootless", "--image", &image])
        .arg(&bundle)
        .output()
        .unwrap();
    assert!(umoci.status.success(), "{}", String::from_utf8_lossy(&umoci.stderr));
    assert!(fs_err::read_dir(bundle.join("rootfs")).unwrap().count() > 0);
}

#[test]
fn the_cache_is_listed_checked_pruned_and_cleared() {
    let (longshore, registry, archive) = (Longshore::new(), DockerRegistry::start(), archive());
    let push = |tag: &str| {
        let to = format!("{}/demo:{tag}", registry.host());
        longshore.run(["push", archive.path.to_str().unwrap(), &to, "--no-reuse"]).pushed().map(str::to_owned)
    };
    let first = push("1").unwrap();
    let listed = cache(&longshore, &["list"]);
    assert!(listed.len() >= 3 && listed.iter().all(|layer| layer["encoding"] == "gzip:1"), "{listed:?}");
    let [info] = &cache(&longshore, &["info"])[..] else { panic!("one line") };
    assert_eq!(info["layers"], listed.len());
    let dir = PathBuf::from(info["dir"].as_str().unwrap());

    // Other tools take it for the layout it is.
    let umoci = Command::new("umoci").arg("ls").arg("--layout").arg(&dir).output().unwrap();
    assert!(umoci.status.success(), "{}", String::from_utf8_lossy(&umoci.stderr));

    let damaged = dir.join("blobs/sha256").join(&listed[0]["digest"].as_str().unwrap()["sha256:".len()..]);
    let mut bytes = fs_err::read(&damaged).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs_err::write(&damaged, bytes).unwrap();
    let [verdict] = &cache(&longshore, &["verify"])[..] else { panic!("one line") };
    assert_eq!((&verdict["dropped"], &verdict["good"]), (&1.into(), &(listed.len() - 1).into()));
    assert!(!damaged.exists());
    assert_eq!(push("2").unwrap(), first, "made again");
    assert_eq!(cache(&longshore, &["list"]).len(), listed.len());

    cache(&longshore, &["prune", "--max-size", "1B"]);
    assert!(blobs(&dir).is_empty());
    assert_eq!(push("3").unwrap(), first);
    let [cleared] = &cache(&longshore, &["clear"])[..] else { panic!("one line") };
    assert_eq!(cleared["layers"], listed.len());
    assert_eq!(push("4").unwrap(), first);
}

#[test]
fn no_cache_is_made_by_looking_for_one() {
    let longshore = Longshore::new();
    let [typo, others] = ["typo", "others"].map(|name| longshore.home().join(name));
    fs_err::create_dir(&others).unwrap();
    fs_err::write(others.join("letter"), b"").unwrap();
    for command in ["info", "list", "verify", "prune", "clear"] {
        for dir in [&typo, &others] {
            let run = longshore.run(["cache", command, "--cache-dir", dir.to_str().unwrap()]);
            assert_eq!((run.code, run.stdout.as_str()), (Some(8), ""), "{run:?}");
            let words = format!("error: there is no cache in `{}`\nhint: ", dir.display());
            assert!(run.stderr.starts_with(&words), "{run:?}");
        }
    }
    assert!(!typo.exists());
    assert_eq!(fs_err::read_dir(&others).unwrap().count(), 1);

    // Before the first push the usual place is empty, and stays so.
    let [info] = &cache(&longshore, &["info"])[..] else { panic!("one line") };
    assert_eq!((&info["layers"], &info["bytes"]), (&0.into(), &0.into()));
    assert_eq!(cache(&longshore, &["verify"])[0]["good"], 0);
    assert_eq!(cache(&longshore, &["prune"])[0]["layers"], 0);
    assert_eq!(cache(&longshore, &["clear"])[0]["layers"], 0);
    assert!(cache(&longshore, &["list"]).is_empty());
    assert!(!Path::new(info["dir"].as_str().unwrap()).exists());
}

#[test]
fn however_much_of_the_cache_is_damaged_the_push_arrives() {
    let longshore = Longshore::new();
    let archive = Archive::of(&[300_000, 20_000, 3_000_000, 70_000]);
    let (dir, store) = (longshore.home().join("cache"), longshore.home().join("store"));
    let push = |_| {
        let source = archive.path();
        let arguments = [Path::new("push"), &source, Path::new("demo:1"), Path::new("--into"), &store];
        let run = longshore.run(arguments.into_iter().chain([Path::new("--cache-dir"), &dir]));
        let pushed = run.pushed().map(str::to_owned);
        fs_err::remove_dir_all(&store).unwrap();
        pushed.unwrap()
    };
    let first = push("cold");
    for blob in blobs(&dir) {
        let mut bytes = fs_err::read(&blob).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs_err::write(&blob, bytes).unwrap();
    }
    assert_eq!(push("all blobs are damaged"), first);
    let [verdict] = &cache(&longshore, &["verify", "--cache-dir", dir.to_str().unwrap()])[..] else {
        panic!("one line")
    };
    assert_eq!((&verdict["dropped"], &verdict["good"]), (&0.into(), &4.into()));
    let entries = dir.join("longshore/encoded");
    fs_err::remove_dir_all(&entries).unwrap();
    fs_err::write(&entries, "a file where a folder was").unwrap();
    assert_eq!(push("nothing can be kept"), first);
}

#[test]
fn a_shared_cache_that_cannot_be_is_a_usage_error() {
    let (longshore, archive) = (Longshore::new(), archive());
    let dir = tempfile::tempdir().unwrap();
    let into = dir.path().to_str().unwrap();
    let run = longshore.run([
        "push",
        archive.path.to_str().unwrap(),
        "demo:1",
        "--into",
        into,
        "--cache",
        "ftp://x",
    ]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""));
    let why = if cfg!(feature = "buckets") {
        "error: the address of the bucket begins with `ftp:`\nhint: write `s3://"
    } else {
        "error: this longshore was built without object storage\nhint: "
    };
    assert!(run.stderr.starts_with(why), "{}", run.stderr);
    assert!(!dir.path().join("demo").exists());
}

#[test]
fn a_push_keeps_the_cache_as_small_as_it_shall_be() {
    let (longshore, archive) = (Longshore::new(), archive());
    let dir = tempfile::tempdir().unwrap();
    let path = archive.path.to_str().unwrap();
    let into = dir.path().to_str().unwrap();
    longshore.run(["push", path, "demo:1", "--into", into, "--cache-size", "20KiB"]).pushed().unwrap();
    let bytes: u64 = cache(&longshore, &["list"]).iter().map(|layer| layer["size"].as_u64().unwrap()).sum();
    assert!((1..=20 << 10).contains(&bytes), "{bytes}");
}

#[test]
fn a_folder_into_which_others_may_write_is_no_cache() {
    let (longshore, archive) = (Longshore::new(), archive());
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    fs_err::create_dir(&cache).unwrap();
    fs_err::set_permissions(&cache, PermissionsExt::from_mode(0o777)).unwrap();
    let into = dir.path().join("registry");
    let run = longshore.run([
        "push".as_ref(),
        archive.path.as_path(),
        "demo:1".as_ref(),
        "--into".as_ref(),
        into.as_path(),
        "--cache-dir".as_ref(),
        cache.as_path(),
    ]);
    run.pushed().unwrap();
    assert!(run.stderr.contains("others may write to the cache folder"), "{}", run.stderr);
    assert_eq!(fs_err::read_dir(&cache).unwrap().count(), 0);
}

#[test]
fn who_wants_no_cache_needs_no_folder_for_it() {
    let (longshore, archive, registry) = (Longshore::new(), archive(), DockerRegistry::start());
    let (path, to) = (archive.path.to_str().unwrap(), format!("{}/demo:1", registry.host()));
    let no_folder = longshore.home().join("cache");
    fs_err::write(&no_folder, b"").unwrap();
    longshore.run(["push", path, &to, "--no-cache"]).pushed().unwrap();
    // One that is asked for must do.
    let asked = ["push", path, &to, "--cache-dir", no_folder.to_str().unwrap()];
    let run = longshore.run(asked.iter().chain(&["--no-cache"]));
    assert_eq!(run.code, Some(8), "{run:?}");
    let run = longshore.run(asked);
    assert!(run.code == Some(8) && run.stderr.contains("hint: `--no-cache` does without"), "{run:?}");
}

#[test]
fn several_destinations_are_encoded_for_once_and_mounted_between() {
    let (longshore, registry, archive) = (Longshore::new(), DockerRegistry::start(), archive());
    let to = |name: &str| format!("{}/{name}", registry.host());
    let path = archive.path.to_str().unwrap();
    let run = longshore.run(["push", path, &to("one:1"), &to("two:1"), "--tag", "2", "--no-cache"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0].replace("/one@", "/two@"), lines[1]);
    for name in ["one:1", "one:2", "two:1", "two:2"] {
        ReadBack::of(&to(name)).unwrap();
    }
    let mounted = run.stderr.lines().filter(|line| line.starts_with("mounted")).count();
    assert!(mounted >= 4, "{}", run.stderr);

    let run = longshore.run(["push", path, &to("three:1"), "127.0.0.1:1/closed:1", "--retries", "0"]);
    assert_eq!(run.code, Some(7), "{run:?}");
    assert!(run.stdout.contains("/three@sha256:") && run.stderr.contains("127.0.0.1:1/closed"), "{run:?}");
}

#[test]
fn two_processes_at_once_share_the_work() {
    let (longshore, registry, archive) = (Longshore::new(), DockerRegistry::start(), archive());
    let path = archive.path.to_str().unwrap();
    let pushed: Vec<String> = thread::scope(|scope| {
        let push = |name: &'static str| {
            let to = format!("{}/{name}:1", registry.host());
            let longshore = &longshore;
            scope.spawn(move || longshore.run(["push", path, &to]).pushed().map(str::to_owned).unwrap())
        };
        let both = [push("one"), push("two")];
        both.map(|push| push.join().unwrap()).into()
    });
    assert_eq!(pushed[0].replace("/one@", "/two@"), pushed[1]);
    assert!(cache(&longshore, &["verify"])[0]["dropped"] == 0);
}

#[test]
fn what_cannot_be_is_said_before_anything_is_read() {
    let longshore = Longshore::new();
    for (options, words) in [
        (&["--compression", "lzma"][..], "not a compression"),
        (&["--compression", "zstd:23"], "levels 1 to 22"),
        (&["--force-compression"], "does not say how"),
        (&["--format", "docker", "--compression", "zstd"], "no zstd layers"),
        (&["--format", "v1"], "not a format"),
        (&["--reuse-from", "other.example.com/base:1"], "destination's registry"),
    ] {
        let run = longshore.run([&["push", "missing.tar", "127.0.0.1:1/demo:1"], options].concat());
        assert_eq!(run.code, Some(2), "{run:?}");
        assert!(run.stderr.contains(words), "{run:?}");
    }
}

#[test]
fn a_cache_may_be_called_anything() {
    let (longshore, archive) = (Longshore::new(), archive());
    // A control character of C1, one that turns writing round, and what is no UTF-8.
    for (name, shown) in [(&b"c\xc2\x9bd\xe2\x80\xae"[..], "c\u{9b}d\u{202e}"), (b"c\xffd", "c\u{fffd}d")] {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join(OsStr::from_bytes(name));
        let run = |words: &[&OsStr]| {
            let run = longshore.run(words.iter().copied().chain(["--cache-dir".as_ref(), place.as_os_str()]));
            assert_eq!(run.code, Some(0), "{run:?}");
            run.stdout
        };
        let into = dir.path().join("layout");
        run(&["push", archive.path.to_str().unwrap(), "it:1", "--into", into.to_str().unwrap()]
            .map(OsStr::new));
        let info: Value = serde_json::from_str(&run(&["cache", "info", "--json"].map(OsStr::new))).unwrap();
        assert_eq!(info["dir"], dir.path().join(shown).to_str().unwrap());
        assert_eq!(info["layers"], 4);
    }
}
