//! What a user is told: help, completions, manual pages, and why something failed.

use crate::{
    support::{
        longshore::{Longshore, Run},
        registry::{Fault, Registry, Route, Script},
        tool,
    },
    wire::image::{Archive, Layout},
};

fn run(arguments: &[&str]) -> Run {
    Longshore::new().run(arguments)
}

/// Returns what was said, with names in the place of what differs from run to run.
fn said(run: &Run, code: i32, names: &[(&str, &str)]) -> String {
    assert_eq!((run.code, run.stdout.as_str()), (Some(code), ""), "{run:?}");
    names.iter().fold(run.stderr.clone(), |text, (what, name)| text.replace(what, name))
}

#[test]
fn a_mistake_in_the_command_is_asked_back() {
    insta::assert_snapshot!(said(&run(&["inspect", "oci-archiv:x.tar"]), 2, &[]), @r"
    error: there is no transport `oci-archiv:`
    hint: did you mean `oci-archive:`? There are `containerd:`, `containers-storage:`, `dir:`, `docker-archive:`, `docker-storage:`, `oci:`, `oci-archive:`
    ");
    insta::assert_snapshot!(said(&run(&["push", "x.tar", "r.example.com/a", "--compresion=zstd"]), 2, &[]), @r"
    error: unexpected argument '--compresion' found

      tip: a similar argument exists: '--compression'

    Usage: longshore push [OPTIONS] <SOURCE> <DEST>... | --list <FILE>

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(said(&run(&["push", "x.tar", "r.example.com/a", "--compression=zst"]), 2, &[]), @r"
    error: invalid value 'zst' for '--compression <HOW>': not a compression: `zst`; `keep`, `gzip`, `zstd` and `none` are, and `gzip:6` or `zstd:19` with a level

      tip: a similar value exists: 'zstd'

    For more information, try '--help'.
    ");
    let mount = run(&["push", "x.tar", "r.example.com/a", "--mount-from=Base"]);
    assert!(mount.code == Some(2) && mount.stderr.contains("invalid repository name"), "{mount:?}");
    for (option, meant) in [
        ("--compression=gzp:6", Some("gzip")),
        ("--compression=gzip:99", None),
        ("--compression=brotli", None),
        ("--if-exists=skp", Some("skip")),
        ("--format=dokcer", Some("docker")),
        ("--progress=plan", Some("plain")),
    ] {
        let said = said(&run(&["push", "x.tar", "r.example.com/a", option]), 2, &[]);
        let tip = said.lines().find_map(|line| line.strip_prefix("  tip: a similar value exists: "));
        assert_eq!(tip.map(|tip| tip.trim_matches('\'')), meant, "{said}");
    }
    let archive = Archive::of(&[10]);
    let path = archive.path().display().to_string();
    let asked = said(&run(&["inspect", &format!("{path}:localhost/dmo:1")]), 2, &[(&path, "PATH")]);
    insta::assert_snapshot!(asked, @r"
    error: docker archive `PATH` holds nothing called `localhost/dmo:1`
    hint: did you mean `demo:1`?
    hint: choose by name (`PATH:NAME`), position (`PATH:@N`) or digest (`PATH@DIGEST`)
    hint: @0: demo:1, linux/amd64, sha256:eec86d15dd366df776e14e24f03904331fdeceb49a86225f9bc7302333ab1cc0
    ");
}

#[test]
fn who_comes_from_another_tool_is_told_what_it_is_called_here() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("app.tar");
    fs_err::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    let to = "r.example.com/demo:1";
    for (arguments, words) in [
        (vec!["push", to, file], "SOURCE comes first"),
        (vec!["push", file, "./out"], "`oci:DIR`"),
        (vec!["push", file, "dir:out"], "images are written to `oci:` and `oci-archive:`"),
        (vec!["push", "docker://r.example.com/a", to], "skopeo and crane copy from registries"),
        (vec!["push", "docker-daemon:app:1", to], "`docker-storage:NAME`"),
        (vec!["push", "ocidir://layout", to], "`oci:PATH[:TAG]`"),
        (vec!["push", "app:1", to], "`containers-storage:app:1`, of Docker's `docker-storage:app:1`"),
        (vec!["push", "localhost/team/app", to], "`containers-storage:localhost/team/app`"),
        (vec!["push", "~/app.tar", to], "`~` only where it begins a word"),
        (vec!["push", "containers-storage:[/no/where]app", to], "`/no/where` holds no images"),
        (vec!["push", file, to, "-t", "latest"], "tip: `longshore push` has `--tag TAG`"),
        (vec!["push", file, to, "--dest-compress-format=zstd"], "`--compression gzip` and `zstd`"),
        (vec!["copy", "oci:a", "docker://r.example.com/a"], "tip: `longshore push SOURCE DEST`"),
        (vec!["manifest", "push"], "tip: `longshore push --index"),
    ] {
        let run = run(&arguments);
        assert!(run.code == Some(2) && run.stderr.contains(words), "{arguments:?}: {run:?}");
        let guesses = ["'man'", "'--dest-creds'", "as a value"];
        assert!(!guesses.iter().any(|guess| run.stderr.contains(guess)), "{run:?}");
    }
    // A file's name is no image's.
    assert!(!run(&["push", "none.tar", to]).stderr.contains("hint"));
    let odd = std::os::unix::ffi::OsStrExt::from_bytes(b"odd\xff.tar");
    let run = Longshore::new().run(["push".as_ref(), odd, std::ffi::OsStr::new(to)]);
    assert!(run.code == Some(2) && run.stderr.contains("no text in UTF-8: `odd\u{fffd}.tar`"), "{run:?}");
}

#[test]
fn each_fault_is_put_where_it_belongs() {
    let (layout, registry) = (Layout::of(&[10]), Registry::honest());
    let (source, host) = (layout.path().display().to_string(), registry.host());
    let destination = format!("{host}/demo:1");

    let file = "--digest-file=/nowhere/digest";
    insta::assert_snapshot!(said(&run(&["push", file, &source, &destination]), 8, &[]), @"error: there is no folder for `/nowhere/digest`");

    // No file can have such a name.
    let long = "a".repeat(300);
    assert_eq!(
        said(&run(&["push", &long, &destination]), 2, &[(&long, "LONG")]),
        "error: `LONG` does not exist\n"
    );

    let blob = &layout.blobs[0];
    fs_err::remove_file(layout.blob(blob)).unwrap();
    let names = [(source.as_str(), "SOURCE"), (blob.hex(), "HEX")];
    insta::assert_snapshot!(said(&run(&["push", "-q", &source, &destination]), 3, &names), @r"
    error: reading OCI layout `SOURCE`
      caused by: blob `sha256:HEX` is missing in the source, and the registry does not have it
      caused by: the source does not hold it
    ");
}

/// What registries and networks say is told elsewhere; here, that it is told and who is at fault.
#[test]
fn what_comes_from_outside_is_told_with_its_host() {
    let layout = Layout::of(&[10]);
    let source = layout.path().display().to_string();
    let push = |host: &str| run(&["push", "-q", "--retries=0", &source, &format!("{host}/demo:1")]);
    let refusing = |route, status| Registry::start(Script::new().always(route, Fault::status(status)));
    let (denying, refusing) = (refusing(Route::Open, 403), refusing(Route::ManifestPut, 400));
    for (code, host) in [(4, denying.host()), (5, refusing.host()), (6, "127.0.0.1:1".to_owned())] {
        let run = push(&host);
        let told = said(&run, code, &[]);
        assert!(told.starts_with("error: ") && told.contains(&host), "{told}");
        assert!(!told.contains("this is a bug"), "{told}");
    }
}

#[test]
fn one_of_several_that_fails_is_named() {
    let (layout, registry) = (Layout::of(&[10]), Registry::honest());
    let (source, host) = (layout.path().display().to_string(), registry.host());
    let run = run(&["push", "-q", "--retries=0", &source, &format!("{host}/a:1"), "127.0.0.1:1/b:1"]);
    assert_eq!(run.code, Some(7), "{run:?}");
    assert!(run.stdout.starts_with(&format!("{host}/a@sha256:")), "{run:?}");
    assert!(run.stderr.ends_with("error: not pushed to `127.0.0.1:1/b:1`\n"), "{run:?}");
}

#[test]
fn short_help_fits_a_screen_and_long_help_has_everything() {
    let help = |arguments: &[&str]| Longshore::new().with_env("COLUMNS", "80").run(arguments).stdout;
    let overview = help(&["-h"]);
    let list = overview.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    assert!(list.lines().count() > 10 && list.lines().all(|line| !line.starts_with("    ")), "{list}");
    let commands: Vec<_> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    for help in commands.iter().map(|command| help(&[command, "-h"])).chain([overview.clone()]) {
        assert!(help.lines().count() <= 44, "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
        // What can be copied stands on one line.
        let examples = help.split("Examples:\n").nth(1).unwrap_or_default();
        for example in examples.lines() {
            let (_, command) = example.split_once("longshore ").expect("an example is one line");
            let command = command.split(['|', '<', '>', ')']).next().unwrap();
            let parsed = run(&command.split_whitespace().chain(["--help"]).collect::<Vec<_>>());
            assert_eq!(parsed.code, Some(0), "{example}: {parsed:?}");
        }
    }
    let (short, long) = (run(&["push", "-h"]).stdout, run(&["push", "--help"]).stdout);
    for option in ["--tag", "--dry-run", "--chunk-size", "--help"] {
        assert!(short.contains(option) && long.contains(option), "{option}");
    }
    for option in
        ["--reuse-from", "--cache-dir", "--metadata-file", "--from-command", "--cert-dir", "--progress"]
    {
        assert!(!short.contains(option) && long.contains(option), "{option}");
    }
    assert!(short.contains("Examples:") && long.contains("Examples:"));
}

#[test]
fn help_that_cannot_be_written_is_a_failure() {
    for arguments in [&["--help"][..], &["--version"], &["push", "--help"]] {
        let full = fs_err::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = Longshore::new().prepare(arguments).stdout(full.into_parts().0).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(8), "{stderr}");
        assert!(stderr.contains("writing to standard output"), "{stderr}");
    }
}

#[test]
fn colours_are_for_those_who_want_them() {
    let coloured = |longshore: Longshore| longshore.run(["push", "--no-such"]).stderr.contains('\u{1b}');
    let forced = || Longshore::new().with_env("CLICOLOR_FORCE", "1");
    assert!(!coloured(Longshore::new()));
    assert!(coloured(forced()));
    assert!(!coloured(forced().with_env("NO_COLOR", "1")));
}

#[test]
fn a_shell_completes_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("longshore.bash");
    fs_err::write(&script, run(&["completions", "bash"]).stdout).unwrap();
    let closed: [(&str, &str, &[&str]); 5] = [
        ("push", "--compression", &["keep", "gzip", "zstd", "none"]),
        ("push", "--format", &["auto", "oci", "docker"]),
        ("push", "--if-exists", &["overwrite", "skip", "fail"]),
        ("push", "--progress", &["auto", "bars", "json", "none", "plain"]),
        ("bundle", "--compression", &["keep", "gzip", "zstd", "none"]),
    ];
    let complete = |verb: &str, before: &str, word: &str| {
        let complete = format!(
            "source {}; COMP_WORDS=(longshore {verb} {before} '{word}'); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _longshore longshore '{word}' {}; echo \"${{COMPREPLY[*]}}\"",
            script.display(),
            if before.is_empty() { verb } else { before },
        );
        let reply = tool::output(std::process::Command::new("bash").args(["-c", &complete])).unwrap();
        String::from_utf8(reply).unwrap()
    };
    assert_eq!(complete("push", "", "--dry"), "--dry-run\n");
    for (verb, option, values) in closed {
        assert_eq!(complete(verb, option, ""), format!("{}\n", values.join(" ")), "{verb} {option}");
    }
    for (shell, begin, end) in [("zsh", ":(", ")"), ("fish", " -r -f -a \"", "\\t''\"")] {
        let script = run(&["completions", shell]);
        assert!(script.code == Some(0) && script.stdout.contains("metadata-file"), "{script:?}");
        for (_, _, values) in closed {
            let values = values.join(if shell == "zsh" { " " } else { "\\t''\n" });
            assert!(script.stdout.contains(&format!("{begin}{values}{end}")), "{shell}: {values}");
        }
        // By `*::` zsh takes what follows for a line of its own, which has no options.
        assert!(!script.stdout.contains("'*::"), "{shell}: {}", script.stdout);
    }
}

#[test]
fn each_command_has_a_manual_page() {
    let dir = tempfile::tempdir().unwrap();
    let man = dir.path().join("man1");
    assert_eq!(run(&["man", man.to_str().unwrap()]).code, Some(0));
    for (page, words) in [("longshore.1", "completions"), ("longshore-push.1", r"\-\-dry\-run")] {
        let text = fs_err::read_to_string(man.join(page)).unwrap();
        assert!(text.starts_with(".ie") && text.contains(words), "{page}: {text}");
        // An option's words stand between its name and the next paragraph.
        let silent = |part: &&str| part.lines().nth(1).is_none_or(str::is_empty);
        let mute: Vec<&str> = text.split(".TP\n").skip(1).filter(silent).collect();
        assert_eq!(mute, [""; 0], "{page}");
    }
    assert!(run(&["man"]).stdout.contains(".SH NAME"));
}
