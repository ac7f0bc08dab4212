//! `push --list`: many pushes, of which a second run does only what is left.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    support::{
        docker_registry::DockerRegistry,
        longshore::{Longshore, Run},
        read_back::ReadBack,
        registry::{Fault, Manners, Registry, Route, Script},
    },
    wire::image::{Archive, Layout, layer, noise},
};

/// A list, and the images that it lists.
struct List {
    dir: tempfile::TempDir,
    images: Vec<Archive>,
}

impl List {
    /// A list of so many images, each `HOST/NUMBER:1`.
    fn of(count: u64, host: &str) -> Self {
        let images = (0..count).map(|seed| Archive::of_layers(vec![layer(&noise(seed + 1, 1000))], |_| {}));
        let list = Self { dir: tempfile::tempdir().unwrap(), images: images.collect() };
        let entry = |(number, image): (usize, &Archive)| {
            format!("- source: {}\n  destinations: {host}/{number}:1\n", image.path().display())
        };
        list.write(&list.images.iter().enumerate().map(entry).collect::<String>());
        list
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("list.yaml")
    }

    fn write(&self, text: &str) {
        fs_err::write(self.path(), text).unwrap();
    }

    fn text(&self) -> String {
        fs_err::read_to_string(self.path()).unwrap()
    }

    fn push(&self, longshore: &Longshore, more: &[&str]) -> Run {
        longshore.run([&["push", "--list", self.path().to_str().unwrap()], more].concat())
    }
}

/// Returns the repositories that a registry was asked about since.
fn asked(registry: &Registry, since: usize) -> Vec<String> {
    let log = registry.log();
    let repository = |path: &str| path.strip_prefix("/v2/")?.split('/').next().map(str::to_owned);
    let mut asked: Vec<_> = log[since..].iter().filter_map(|exchange| repository(&exchange.target)).collect();
    asked.retain(|name| !name.is_empty());
    asked.sort();
    asked.dedup();
    asked
}

/// Refuses the manifest of one image.
fn refusing(nth: usize) -> Registry {
    Registry::start(Script::new().on(Route::ManifestPut, nth, Fault::status(403)))
}

#[test]
fn entries_are_pushed_each_in_its_own_way() {
    let (longshore, registry) = (Longshore::new(), DockerRegistry::start());
    let host = registry.host();
    let (archive, layout) = (Archive::of(&[1000]), Layout::of(&[2000]));
    let (archive, layout) = (archive.path().display().to_string(), layout.path().display().to_string());
    let yaml = format!(
        "# what is delivered on Mondays\n\
         - source: {archive}\n  destinations: {host}/team/a\n  tags: [1.10, latest]\n  compression: zstd\n\
         - source: oci:{layout}\n  destinations: [\"{host}/team/b:1\", {host}/team/c:1]\n"
    );
    let json = [
        json!({ "source": archive, "destinations": [format!("{host}/json/a")], "tags": ["1.10", "latest"], "compression": "zstd" }),
        json!({ "source": format!("oci:{layout}"), "destinations": [format!("{host}/json/b:1"), format!("{host}/json/c:1")] }),
    ];
    let json = json.map(|line| line.to_string()).join("\n");
    let file = longshore.home().join("list");
    for (team, text) in [("team", yaml), ("json", json)] {
        fs_err::write(&file, &text).unwrap();
        let run = longshore.run_fed(&file, ["push", "--list", "-", "--json", "--tag=x"]);
        assert_eq!(run.code, Some(0), "{run:?}");
        let pushed: Value = serde_json::from_str(&run.stdout).unwrap();
        let tags = |at: usize| pushed["pushed"][at]["tags"].clone();
        assert_eq!(
            (tags(0), tags(1), tags(2)),
            (json!(["1.10", "latest"]), json!(["1", "x"]), json!(["1", "x"]))
        );
        let zstd = ReadBack::of(&format!("{host}/{team}/a:1.10")).unwrap();
        assert!(String::from_utf8_lossy(&zstd.manifest).contains("tar+zstd"));
        for (at, name) in [(1, "b:x"), (2, "c:1")] {
            let digest = ReadBack::of(&format!("{host}/{team}/{name}")).unwrap().digest();
            assert_eq!(pushed["pushed"][at]["digest"], digest);
        }
    }
}

#[test]
fn a_second_run_does_what_is_left() {
    let (longshore, registry) = (Longshore::new(), refusing(3));
    let list = List::of(4, &registry.host());
    let first = list.push(&longshore, &["--json"]);
    assert_eq!(first.code, Some(7), "{first:?}");
    let printed: Value = serde_json::from_str(&first.stdout).unwrap();
    assert_eq!(printed["pushed"].as_array().unwrap().len(), 3, "{printed}");
    assert_eq!(printed["failed"][0]["destination"], format!("{}/2", registry.host()));
    assert!(first.stderr.contains(&format!("pushing `{}`", list.images[2].path().display())), "{first:?}");

    let before = registry.log().len();
    let second = list.push(&longshore, &["--json"]);
    assert_eq!(second.code, Some(0), "{second:?}");
    assert!(second.stderr.contains("3 of 4 done before"), "{second:?}");
    assert_eq!(asked(&registry, before), ["2"]);
    let again: Value = serde_json::from_str(&second.stdout).unwrap();
    let digest = |printed: &Value, at: usize| printed["pushed"][at]["digest"].clone();
    assert_eq!((digest(&again, 0), digest(&again, 3)), (digest(&printed, 0), digest(&printed, 2)));
    assert_eq!(again["pushed"][3]["doneBefore"], true);
    assert_eq!(again["pushed"][2]["doneBefore"], false);
    assert_eq!(again["pushed"][2]["image"], list.images[2].path().display().to_string());

    // All is done: all is asked again.
    let before = registry.log().len();
    let third = list.push(&longshore, &[]);
    assert_eq!((third.code, third.stdout.lines().count()), (Some(0), 4), "{third:?}");
    assert_eq!(asked(&registry, before), ["0", "1", "2", "3"]);
    assert_eq!(third.stdout, list.push(&longshore, &[]).stdout);
}

#[test]
fn what_has_changed_is_done_anew() {
    let (longshore, registry) = (Longshore::new(), refusing(5));
    let list = List::of(5, &registry.host());
    assert_ne!(list.push(&longshore, &[]).code, Some(0));
    // Another image in the place of the first, another tag for the second, the third gone and not missed, and one more.
    let other = Archive::of_layers(vec![layer(&noise(99, 1000))], |_| {});
    fs_err::rename(other.path(), list.images[0].path()).unwrap();
    let host = registry.host();
    list.write(&list.text().replace(&format!("{host}/1:1"), &format!("{host}/1:2")));
    let before = registry.log().len();
    let run = list.push(&longshore, &["--dry-run"]);
    assert!(run.code == Some(0) && run.stderr.contains("2 of 5 done before"), "{run:?}");
    assert_eq!(asked(&registry, before), ["0", "1", "4"]);
    let before = registry.log().len();
    let run = list.push(&longshore, &[]);
    assert!(run.code == Some(0) && run.stderr.contains("2 of 5 done before"), "{run:?}");
    assert_eq!(asked(&registry, before), ["0", "1", "4"]);
    assert_eq!(registry.tags("1"), ["1", "2"]);
}

#[test]
fn the_journal_is_private_and_need_not_be_believed() {
    use std::os::unix::fs::PermissionsExt as _;
    let (longshore, registry) = (Longshore::new(), refusing(2));
    let list = List::of(2, &registry.host());
    assert_ne!(list.push(&longshore, &[]).code, Some(0));
    let dir = longshore.home().join(".local/state/longshore/lists");
    let files: Vec<_> = fs_err::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mode = |path: &Path| fs_err::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((files.len(), mode(&files[0]), mode(&dir)), (1, 0o600, 0o700));
    let before = registry.log().len();
    let run = list.push(&longshore, &["--no-resume"]);
    assert!(run.code == Some(0) && !run.stderr.contains("done before"), "{run:?}");
    assert_eq!(asked(&registry, before), ["0", "1"]);
    assert_eq!(fs_err::read_dir(&dir).unwrap().count(), 0);
}

#[test]
fn a_run_that_is_killed_goes_on_where_it_was() {
    let registry = Registry::start(Script::new().on(Route::ManifestPut, 3, Fault::Stall { after: 0 }));
    let (longshore, list) = (Longshore::new(), List::of(4, &registry.host()));
    let running = longshore.start(["push", "--list", list.path().to_str().unwrap()]);
    registry.wait_for(Route::ManifestPut, 3);
    running.kill();
    let before = registry.log().len();
    let run = list.push(&longshore, &[]);
    assert!(run.code == Some(0) && run.stderr.contains("2 of 4 done before"), "{run:?}");
    assert_eq!(run.stderr.lines().filter(|line| line.starts_with("done before  ")).count(), 2, "{run:?}");
    assert!(run.stderr.contains("total: 2 pushed, 2 done before; "), "{run:?}");
    assert_eq!(run.stdout.lines().count(), 4, "{run:?}");
    assert_eq!(asked(&registry, before), ["2", "3"]);
}

#[test]
fn all_mistakes_are_told_before_anything_is_sent() {
    let (longshore, registry) = (Longshore::new(), Registry::honest());
    let host = registry.host();
    let list = List::of(1, &host);
    let image = list.images[0].path().display().to_string();
    let said = |text: &str, more: &[&str]| {
        list.write(text);
        let run = list.push(&longshore, more);
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{run:?}");
        let names = [
            (list.dir.path().display().to_string(), "DIR"),
            (image.clone(), "IMAGE"),
            (host.clone(), "HOST"),
        ];
        names.iter().fold(run.stderr, |text, (what, name)| text.replace(what, name))
    };
    let good = format!("- source: {image}\n  destinations: {host}/good:1\n");
    let keys = format!("{good}- source: {image}\n  destination: {host}/a:1\n  compression: zst\n");
    insta::assert_snapshot!(said(&keys, &[]), @r"
    error: `DIR/list.yaml` has 2 mistakes
    hint: line 4: there is no key `destination`; did you mean `destinations`?
    hint: line 5: not a compression: `zst`; `keep`, `gzip`, `zstd` and `none` are, and `gzip:6` or `zstd:19` with a level
    ");
    let places = format!(
        "{good}- source: {image}\n  destinations: demo:1\n- source: {image}\n  destinations: {host}/a:b:c\n"
    );
    insta::assert_snapshot!(said(&places, &[]), @r"
    error: `DIR/list.yaml` has 2 mistakes
    hint: line 3: `demo:1` names no registry; write the host first, for Docker Hub `docker.io/USER/demo:1`
    hint: line 5: invalid repository name: `a:b`; lower-case letters, digits and single `.`, `_`, `__` or dashes between them, `/` between parts
    ");
    let sources = format!("{good}- source: nowhere.tar\n  destinations: {host}/a:1\n");
    insta::assert_snapshot!(said(&sources, &[]), @r"
    error: `DIR/list.yaml`, line 3
      caused by: `nowhere.tar` does not exist
    ");
    let images = format!("- source: {image}:dmo:1\n  destinations: {host}/a:1\n{good}");
    insta::assert_snapshot!(said(&images, &[]), @r"
    error: `DIR/list.yaml`, line 1
      caused by: docker archive `IMAGE` holds nothing called `dmo:1`
    hint: did you mean `demo:1`?
    hint: choose by name (`PATH:NAME`), position (`PATH:@N`) or digest (`PATH@DIGEST`)
    hint: @0: demo:1, linux/amd64, sha256:e0431bb50447c7d04c4c8cd393b584353c52f56dabbf914bc74ca688db109ee5
    ");
    insta::assert_snapshot!(said(&format!("- source: '-'\n  destinations: {host}/a:1\n"), &[]), @r"
    error: `DIR/list.yaml`, line 1
      caused by: standard input cannot be a source of a list
    ");
    let twice = format!(
        "{good}- source: {image}\n  destinations: {host}/good:2\n  tags: [1, 2]\n\
         - source: {image}\n  destinations: oci-archive:a.tar:1\n- source: {image}\n  destinations: oci-archive:a.tar:2\n\
         - source: {image}\n  destinations: [oci:a]\n- source: {image}\n  destinations: oci:a:latest\n"
    );
    let said_twice = said(&twice, &[]).replace(std::env::current_dir().unwrap().to_str().unwrap(), "HERE");
    insta::assert_snapshot!(said_twice, @r"
    error: `DIR/list.yaml` has 3 mistakes
    hint: line 3: `HOST/good:1` is where the entry of line 1 goes too
    hint: line 8: `oci-archive:HERE/a.tar` is where the entry of line 6 goes too
    hint: line 12: `oci:HERE/a:latest` is where the entry of line 10 goes too
    ");
    insta::assert_snapshot!(said("# nothing\n", &[]), @"error: `DIR/list.yaml` lists nothing");
    insta::assert_snapshot!(said(&good, &["--all"]), @r"
    error: the argument '--list <FILE>' cannot be used with '--all'

    Usage: longshore push [OPTIONS] <SOURCE> <DEST>... | --list <FILE>

    For more information, try '--help'.
    ");
    assert!(registry.log().is_empty(), "{:?}", registry.log());
}

#[test]
fn a_folder_of_layouts_can_be_filled_from_a_list() {
    let (longshore, dir) = (Longshore::new(), tempfile::tempdir().unwrap());
    let list = List::of(2, "x");
    list.write(&list.text().replace("x/0:1", &format!("oci:{}:v1", dir.path().join("layout").display())));
    let into = dir.path().join("registry");
    let run = list.push(&longshore, &["--into", into.to_str().unwrap()]);
    assert_eq!(run.code, Some(2), "a place on disk is none in a registry: {run:?}");
    list.write(
        &list
            .text()
            .replace("oci:", "")
            .replace(&dir.path().join("layout:v1").display().to_string(), "zero:1"),
    );
    for _ in 0..2 {
        let run = list.push(&longshore, &["--into", into.to_str().unwrap()]);
        assert_eq!(run.code, Some(0), "{run:?}");
        ReadBack::of_layout(into.join("zero"), "1").unwrap();
        ReadBack::of_layout(into.join("x/1"), "1").unwrap();
    }
}

#[test]
fn the_configuration_of_each_registry_holds_for_its_entries() {
    let (longshore, one, other) = (Longshore::new(), Registry::honest(), Registry::honest());
    let config = longshore.home().join("config/longshore");
    fs_err::create_dir_all(&config).unwrap();
    let text = format!("compression = \"zstd\"\n[registry.\"{}\"]\ncompression = \"none\"\n", other.host());
    fs_err::write(config.join("config.toml"), text).unwrap();
    let list = List::of(2, &one.host());
    list.write(&list.text().replace(&format!("{}/1:1", one.host()), &format!("{}/1:1", other.host())));
    assert_eq!(list.push(&longshore, &[]).code, Some(0));
    let manifest =
        |registry: &Registry, name: &str| String::from_utf8(registry.manifest(name, "1").unwrap().1).unwrap();
    assert!(manifest(&one, "0").contains("layer.v1.tar+zstd"));
    assert!(manifest(&other, "1").contains("layer.v1.tar\""));
}

#[test]
fn what_is_done_otherwise_than_was_asked_for_is_said_once() {
    let manners = Manners { chunk_max: Some((1 << 20) + (64 << 10)), ..Manners::default() };
    let (longshore, registry) = (Longshore::new(), Registry::start(Script::new().manners(manners)));
    let (list, host) = (List::of(0, ""), registry.host());
    let images = [1, 2].map(|seed| Layout::of_layers(&[noise(seed, 3 << 20)]));
    let entry = |image: &Layout| {
        let source = image.path().display();
        format!(
            "- source: {source}\n  destinations: [{host}/a:{0}, {host}/b:{0}]\n",
            image.root.digest.short()
        )
    };
    list.write(&images.each_ref().map(entry).concat());
    let run = list.push(&longshore, &["--chunk-size=2MiB", "--progress=json"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(
        run.stderr.matches("chunks of 1 MiB and not of 2 MiB, as was asked for").count(),
        1,
        "{run:?}"
    );
}

#[test]
fn a_list_may_lie_in_a_folder_of_any_name() {
    let (longshore, registry) = (Longshore::new(), Registry::honest());
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join(OsStr::from_bytes(b"odd\xff"));
    fs_err::create_dir(&folder).unwrap();
    let image = Archive::of_layers(vec![layer(&noise(1, 1000))], |_| {});
    fs_err::copy(image.path(), folder.join("a.tar")).unwrap();
    let list = format!("- source: a.tar\n  destinations: {}/a:1\n", registry.host());
    fs_err::write(folder.join("list.yaml"), list).unwrap();
    let mut push = longshore.prepare(["push", "--list", "list.yaml"]);
    let output = push.current_dir(&folder).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(registry.tags("a"), ["1"]);
}
