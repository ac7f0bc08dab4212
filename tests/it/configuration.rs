//! Where options have their values from, as a user sees it: `config.toml`, variables, and `longshore config show`.

use std::{os::unix::fs::PermissionsExt, path::PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    support::{
        longshore::{Longshore, Run},
        registry::Registry,
    },
    wire::image::{Archive, Layout},
};

/// A user who has a `config.toml`.
struct User {
    longshore: Longshore,
    dir: TempDir,
    archive: Archive,
}

impl User {
    fn with(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        fs_err::write(&file, config).unwrap();
        let longshore = Longshore::new().with_env("LONGSHORE_CONFIG", file.to_str().unwrap());
        Self { longshore, dir, archive: Archive::of(&[100]) }
    }

    fn and_variable(mut self, name: &str, value: &str) -> Self {
        self.longshore = self.longshore.with_env(name, value);
        self
    }

    /// Pushes through the embedded registry; returns how the layer is encoded there.
    fn push(&self, options: &[&str]) -> String {
        let into: PathBuf = self.dir.path().join("into");
        let (source, into) = (self.archive.path(), into.to_str().unwrap());
        let run = self
            .longshore
            .run([&["push", source.to_str().unwrap(), "demo", "--into", into], options].concat());
        run.pushed().unwrap();
        let run = self.longshore.run(["inspect", &format!("oci:{into}/demo:latest"), "--json"]);
        let found: Value = serde_json::from_str(&run.stdout).unwrap();
        found["images"][0]["documents"][0]["layers"][0]["encoding"].as_str().unwrap().to_owned()
    }

    /// Returns a line of `config show`, without the spaces.
    fn shown(&self, option: &str, registry: &[&str]) -> String {
        let run = self.longshore.run([&["config", "show"], registry].concat());
        assert_eq!(run.code, Some(0), "{run:?}");
        let line = run.stdout.lines().find(|line| line.split(' ').next() == Some(option)).unwrap();
        let line = line.replace(self.dir.path().to_str().unwrap(), "HOME");
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn refused(&self) -> Run {
        let run = self.longshore.run(["config", "show"]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(8), ""), "{run:?}");
        run
    }
}

#[test]
fn the_command_line_comes_before_variables_before_the_file() {
    let config = "compression = \"zstd\"\n";
    assert_eq!(User::with(config).push(&[]), "zstd");
    assert_eq!(User::with(config).push(&["--compression", "gzip"]), "gzip");
    let user = User::with(config).and_variable("LONGSHORE_COMPRESSION", "none");
    assert_eq!(user.push(&[]), "none");
    assert_eq!(user.push(&["--compression", "gzip"]), "gzip");
}

#[test]
fn what_is_typed_counts_against_what_cannot_stand_beside_it() {
    let list = "LONGSHORE_LIST";
    for (variable, value, config) in [
        ("LONGSHORE_QUIET", "1", "quiet = true"),
        ("LONGSHORE_REMOVE_SIGNATURES", "yes", "remove-signatures = true"),
        (list, "no-such.yaml", "list = \"no-such.yaml\""),
    ] {
        for user in [User::with("").and_variable(variable, value), User::with(config)] {
            user.push(&["-v", "--referrers"]);
            let source = user.archive.path();
            let push =
                ["push", source.to_str().unwrap(), "demo", "--into", user.dir.path().to_str().unwrap()];
            let run = user.longshore.run([&push[..], &["-v"]].concat());
            run.pushed().unwrap();
            assert!(run.stderr.contains("blobs: "), "{variable}: {run:?}");
            // Where nothing speaks against them they count.
            let run = user.longshore.run(push);
            assert!(
                run.code == Some(0) && (variable != "LONGSHORE_QUIET" || run.stderr.is_empty()),
                "{run:?}"
            );
        }
    }
    for user in [User::with("").and_variable("LONGSHORE_ALL", "1"), User::with("all = true")] {
        let run = user.longshore.run(["logout", "r.example"]);
        assert!(run.code == Some(2) && run.stderr.contains("holds no login for `r.example`"), "{run:?}");
        // Nobody is logged out everywhere who has not asked for that.
        let run = user.longshore.run(["logout"]);
        assert!(run.code == Some(2) && run.stderr.contains("<REGISTRY>"), "{run:?}");
    }
}

#[test]
fn a_list_needs_no_source_wherever_it_is_named() {
    let user = User::with("");
    let file = user.dir.path().join("list.yaml");
    let source = user.archive.path();
    fs_err::write(&file, format!("source: {}\ndestinations: demo\n", source.display())).unwrap();
    let (list, into) = (file.to_str().unwrap(), user.dir.path().join("into"));
    let arguments = ["push", "--into", into.to_str().unwrap()];
    let typed = [&arguments[..], &["--list", list]].concat();
    for (user, arguments) in [
        (User::with(""), &typed[..]),
        (User::with("").and_variable("LONGSHORE_LIST", list), &arguments),
        (User::with(&format!("list = \"{list}\"")), &arguments),
        // Another one does not count beside the list.
        (User::with("all = true").and_variable("LONGSHORE_INDEX", "1"), &typed),
    ] {
        user.longshore.run(arguments).pushed().unwrap();
    }
    let run = User::with("").longshore.run(arguments);
    assert!(run.code == Some(2) && run.stderr.contains("<SOURCE>"), "{run:?}");
}

#[test]
fn every_value_says_where_it_comes_from() {
    let config = r#"
jobs = 4
insecure = true
reuse-from = ["a.example/b:1", "a.example/c:1"]
[registry."a.example:5000"]
jobs = 2
chunk-size = "8MiB"
"#;
    let user = User::with(config)
        .and_variable("LONGSHORE_RETRIES", "7")
        .and_variable("LONGSHORE_QUIET", "no")
        .and_variable("LONGSHORE_CREDS", "me:s3cret");
    let here = &["a.example:5000"][..];
    for (option, registry, expected) in [
        ("jobs", &[][..], "jobs 4 HOME/config.toml"),
        ("jobs", here, "jobs 2 HOME/config.toml, [registry.\"a.example:5000\"]"),
        ("jobs", &["b.example"], "jobs 4 HOME/config.toml"),
        ("chunk-size", &[], "chunk-size - default"),
        ("chunk-size", here, "chunk-size 8MiB HOME/config.toml, [registry.\"a.example:5000\"]"),
        ("retries", here, "retries 7 LONGSHORE_RETRIES"),
        ("quiet", here, "quiet false LONGSHORE_QUIET"),
        ("insecure", here, "insecure true HOME/config.toml"),
        ("reuse-from", &[], "reuse-from a.example/b:1, a.example/c:1 HOME/config.toml"),
        ("timeout", &[], "timeout 60s default"),
        // A password is no part of it, and not for logs.
        ("creds", &[], "creds me LONGSHORE_CREDS"),
    ] {
        assert_eq!(user.shown(option, registry), expected);
    }
    let run = user.longshore.run(["config", "show", "--json"]);
    let jobs = run.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let jobs = jobs.into_iter().find(|line| line["option"] == "jobs").unwrap();
    assert_eq!(jobs["value"], "4");
}

#[test]
fn a_section_counts_for_its_registry_alone() {
    let user = User::with("[registry.\"127.0.0.1:1\"]\nplatform = \"plan9/mips\"\n");
    let source = user.archive.path();
    let push = |to: &[&str]| {
        user.longshore.run([&["push", source.to_str().unwrap(), "--retries", "0"], to].concat())
    };
    // Nothing listens at either; only for the first one is the platform another.
    let run = push(&["docker://127.0.0.1:1/demo"]);
    assert!(run.code == Some(2) || run.stderr.contains("plan9"), "{run:?}");
    // However its name is written.
    let user = User::with("[registry.\"Index.Docker.io\"]\njobs = 3\n");
    for host in ["docker.io", "DOCKER.IO", "registry-1.docker.io"] {
        let run = user.longshore.run(["config", "show", host]);
        assert!(run.stdout.contains("[registry.\"docker.io\"]"), "{host}: {run:?}");
    }
    assert_eq!(user.longshore.run(["config", "show", "docker"]).code, Some(2));
    let run = push(&["127.0.0.1:2/demo"]);
    assert!(run.code == Some(6) && !run.stderr.contains("plan9"), "{run:?}");
    let run = push(&["127.0.0.1:1/demo", "127.0.0.1:2/demo"]);
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("another `platform` for each"), "{run:?}");
}

#[test]
fn what_is_wrong_in_the_file_is_named() {
    for (config, words) in [
        ("jbs = 3", "there is no option `jbs`\nhint: did you mean `jobs`?"),
        ("xyzzy = 3", "there is no option `xyzzy`\nhint: `longshore config show` lists all"),
        (
            "[registry.\"a.example\"]\nchunksize = 3",
            "there is no option `chunksize`\nhint: did you mean `chunk-size`?",
        ),
        (
            "[registries.\"a.example\"]\njobs = 3",
            "there is no option `registries`\nhint: what counts for one registry stands in `[registry.\"HOST\"]`",
        ),
        (
            "progress = \"jsn\"",
            "`progress` cannot be `jsn`: there are `auto`, `bars`, `json`, `none`, `plain`\nhint: did you mean `json`?",
        ),
        ("jobs = \"many\"", "`jobs` cannot be `many`: invalid digit found in string"),
        ("compression = \"zip\"", "`compression` cannot be `zip`: not a compression: `zip`"),
        ("insecure = \"maybe\"", "`insecure` cannot be `maybe`: it is true or false"),
        ("jobs = [1, 2]", "`jobs` cannot be a table or a list"),
        ("registry = 1", "`registry` is no section"),
        ("[registry]\n\"a.example\" = 1", "`a.example` is no section"),
        (
            "[registry.\"a.example/team\"]",
            "`a.example/team` is no section\nhint: a section of a registry begins",
        ),
        ("[registry.\"https://a.example\"]", "`https://a.example` is no section"),
        ("[registry.\"docker.io\"]\n[registry.\"index.docker.io\"]", "`docker.io` has two sections"),
        ("jobs = 1\nretries =\n", "line 2: "),
    ] {
        let run = User::with(config).refused();
        assert!(run.stderr.replace("  caused by: ", "").contains(words), "{config}: {}", run.stderr);
        assert!(run.stderr.starts_with("error: reading `"), "{config}: {}", run.stderr);
    }
    let run = Longshore::new().with_env("LONGSHORE_CONFIG", "/not/there").run(["config", "show"]);
    assert_eq!(run.code, Some(8), "{run:?}");
}

#[test]
fn what_is_wrong_in_a_variable_is_named() {
    for (variable, value, words) in [
        ("LONGSHORE_JOBS", "x", "`LONGSHORE_JOBS` cannot be `x`: invalid digit found in string"),
        ("LONGSHORE_JOBS", "0", "`LONGSHORE_JOBS` cannot be `0`: it has to be more than nothing"),
        ("LONGSHORE_TIMEOUT", "soon", "`LONGSHORE_TIMEOUT` cannot be `soon`: "),
        ("LONGSHORE_INSECURE", "flase", "it is true or false"),
        ("LONGSHORE_PROGRESS", "plan", "hint: did you mean `plain`?"),
        ("LONGSHORE_IF_EXISTS", "skp", "hint: did you mean `skip`?"),
    ] {
        let run = User::with("").and_variable(variable, value).refused();
        assert!(run.stderr.starts_with(&format!("error: `{variable}` cannot be `{value}`: ")), "{run:?}");
        assert!(run.stderr.contains(words), "{run:?}");
    }
    let user = User::with("jobs = 3").and_variable("LONGSHORE_JOBS", "");
    assert_eq!(user.shown("jobs", &[]), "jobs 3 HOME/config.toml");
    user.push(&[]);
}

#[test]
fn what_the_file_says_is_not_half_of_it() {
    for (config, arguments, words) in [
        ("tls-cert = \"x\"", &["serve", "x", "--listen=127.0.0.1:0"][..], "belong together"),
        ("tls-key = \"x\"", &["serve", "x", "--listen=127.0.0.1:0"], "belong together"),
        ("chunk-min = \"2MB\"", &["serve", "x", "--chunk-max=1MB"], "nobody could push"),
        ("allow-anonymous = true", &["serve", "x", "--listen=127.0.0.1:0"], "is for gateways"),
        (
            "upstream = \"127.0.0.1:1\"\nallow-anonymous = true\npassword-file = \"p\"",
            &["serve", "x", "--listen=127.0.0.1:0"],
            "no password is made up",
        ),
    ] {
        let run = User::with(config).longshore.run(arguments);
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{config}: {run:?}");
        assert!(run.stderr.contains(words), "{config}: {run:?}");
    }
    // Nor is what variables say, and one may name what the other lacks.
    let push = ["push", "a.tar", "127.0.0.1:1/a"];
    for (variable, value, more, words) in [
        ("LONGSHORE_CREDS", "me", "-q", "`--creds` has no password"),
        ("LONGSHORE_CREDS", "me", "--password-stdin", "the password on standard input is empty"),
        ("LONGSHORE_PASSWORD_STDIN", "1", "-q", "`--password-stdin` has no user"),
        ("LONGSHORE_PASSWORD_STDIN", "1", "--creds=me", "the password on standard input is empty"),
    ] {
        let run = User::with("").and_variable(variable, value).longshore.run([&push[..], &[more]].concat());
        assert!(run.stderr.contains(words), "{variable} {more}: {run:?}");
    }
}

#[test]
fn nothing_can_be_done_with_nothing() {
    for arguments in [
        &["push", "a.tar", "127.0.0.1:1/a", "--jobs=0"][..],
        &["push", "a.tar", "127.0.0.1:1/a", "--chunk-size=0"],
        &["push", "a.tar", "127.0.0.1:1/a", "--timeout=0s"],
        &["doctor", "127.0.0.1:1", "--jobs=0"],
        &["serve", "x", "--most-uploads=0"],
        &["serve", "x", "--chunk-max=0"],
        &["serve", "x", "--patience=0s"],
        &["serve", "x", "--upload-lifetime=0s"],
    ] {
        let run = Longshore::new().run(arguments);
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{run:?}");
        assert!(run.stderr.contains(": it has to be more than nothing\n"), "{arguments:?}: {run:?}");
    }
}

#[test]
fn help_is_had_with_a_broken_file() {
    let user = User::with("jbs = 3");
    for arguments in [&["--help"][..], &["--version"], &["push", "--help"]] {
        assert_eq!(user.longshore.run(arguments).code, Some(0));
    }
    assert_eq!(user.longshore.run(["cache", "info"]).code, Some(8));
}

#[test]
fn folders_of_others_are_as_good_as_none() {
    let (registry, layout, home) = (Registry::honest(), Layout::of(&[10]), tempfile::tempdir().unwrap());
    fs_err::set_permissions(layout.path(), PermissionsExt::from_mode(0o755)).unwrap();
    fs_err::set_permissions(home.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let (source, destination) = (layout.path().to_str().unwrap(), format!("{}/demo:1", registry.host()));
    for variables in [
        &["HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"][..],
        // As `/run/containers` is, once root has logged in.
        &["XDG_RUNTIME_DIR"],
    ] {
        let mut longshore = Longshore::new().by_nobody();
        for variable in variables {
            let closed = if variable.ends_with("_HOME") { "" } else { home.path().to_str().unwrap() };
            longshore = longshore.with_env(variable, closed);
        }
        let run = longshore.run(["push", source, &destination]);
        assert_eq!(run.code, Some(0), "{run:?}");
    }
}
