//! What other systems install and run us by: the GitHub Action, the Debian package, and all shell scripts.

use std::{path::Path, process::Command};

use longshore::oci::Digest;

use crate::support::{longshore::Longshore, program, registry::Registry, scripts, tool};

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    fs_err::read_to_string(project().join(file)).unwrap()
}

#[test]
fn scripts_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let mut scripts: Vec<_> = [".ci/run", "fuzz/run", "packaging/action.sh", "packaging/deb", "tests/run"]
        .map(|script| project().join(script))
        .into();
    for (at, step) in scripts::of(&read("packaging/action.yml")).iter().enumerate() {
        let script = dir.path().join(format!("step{at}"));
        // As GitHub runs them.
        fs_err::write(&script, format!("#!/usr/bin/env bash\nset -eo pipefail\n{step}")).unwrap();
        scripts.push(script);
    }
    assert!(scripts.len() > 6, "{scripts:?}");
    tool::output(Command::new("shellcheck").args(&scripts)).unwrap();
}

#[test]
fn the_action_hands_over_every_input() {
    let action = read("packaging/action.yml");
    let (inputs, rest) = action.split_once("outputs:").unwrap();
    let (_, inputs) = inputs.split_once("inputs:").unwrap();
    let names = inputs.lines().filter_map(|line| line.strip_prefix("  ")?.strip_suffix(':'));
    let names: Vec<_> = names.filter(|name| !name.starts_with(' ')).collect();
    assert_eq!(names.len(), 6, "{names:?}");
    let script = read("packaging/action.sh");
    for name in names {
        let variable = name.to_uppercase();
        assert!(rest.contains(&format!("        {variable}: ${{{{ inputs.{name} }}}}\n")), "{name}");
        assert!(script.contains(&format!("${{{variable}:")), "{name}");
    }
}

#[test]
fn the_action_pushes() {
    let registry = Registry::honest();
    let destination = |name: &str| format!("{}/{name}", registry.host());
    let [digest, metadata] = act(&[
        ("SOURCE", &sample()),
        ("DESTINATION", &format!("{}\n{}\n", destination("team/a:1"), destination("b:1"))),
        ("TAGS", "2\nlatest"),
        ("OPTIONS", "--compression=zstd\n--jobs=2"),
        ("USERNAME", "me"),
        ("PASSWORD", "it's \"$(secret)\""),
    ]);
    for name in ["team/a", "b"] {
        for tag in ["1", "2", "latest"] {
            let (_, manifest) = registry.manifest(name, tag).unwrap();
            assert_eq!(Digest::of(&manifest).to_string(), digest, "{name}:{tag}");
        }
    }
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    assert_eq!(metadata["containerimage.digest"], *digest);
}

#[test]
fn the_action_of_the_documents_pushes() {
    let (page, action, registry) = (read("docs/ci.md"), read("packaging/action.yml"), Registry::honest());
    let step = page.split("- uses: OWNER/longshore/packaging@REF\n").nth(1).unwrap();
    let (step, _) = step.split_once("\n- run: ").unwrap();
    let (_, with) = step.split_once("  with:\n").unwrap();
    let mut values = vec![
        ("ghcr.io", registry.host()),
        ("${{ github.actor }}", "me".to_owned()),
        ("${{ github.repository }}", "owner/app".to_owned()),
        ("${{ github.sha }}", "8843d7f9".to_owned()),
        ("${{ secrets.GITHUB_TOKEN }}", "secret".to_owned()),
        ("app.tar", sample()),
    ];
    let inputs: Vec<_> = with
        .lines()
        .map(|line| {
            let (name, value) = line.trim().split_once(": ").unwrap();
            assert!(action.contains(&format!("\n  {name}:\n")), "{name} is no input");
            (name.to_uppercase(), filled(value, &values))
        })
        .collect();
    let inputs: Vec<_> = inputs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let [digest, _] = act(&inputs);
    for tag in ["8843d7f9", "latest"] {
        let (_, manifest) = registry.manifest("owner/app", tag).unwrap();
        assert_eq!(Digest::of(&manifest).to_string(), digest);
    }
    // What the steps behind it sign is what was pushed, by what can never be anything else.
    values.push(("${{ steps.push.outputs.digest }}", digest.clone()));
    let dir = tempfile::tempdir().unwrap();
    let signed = dir.path().join("signed");
    let cosign = format!("printf '%s\\n' \"$@\" >>'{}'", signed.display());
    program::install(&dir.path().join("cosign"), &cosign);
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    for script in scripts::of(&page).iter().filter(|script| scripts::is_for_github(script)) {
        let script = filled(script, &values);
        assert!(!scripts::is_for_github(&script), "{script}");
        tool::output(Command::new("bash").args(["-euo", "pipefail", "-c", &script]).env("PATH", &path))
            .unwrap();
    }
    let reference = format!("{}/owner/app@{digest}", registry.host());
    assert_eq!(fs_err::read_to_string(signed).unwrap(), format!("sign\n{reference}\n"));
    assert!(registry.manifest("owner/app", &digest).is_some());
}

/// Replaces what a runner would.
fn filled(text: &str, values: &[(&str, String)]) -> String {
    values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
}

fn sample() -> String {
    project().join("fixtures/docker-archive/podman-save.tar").display().to_string()
}

/// Runs what the action runs at last; returns its outputs `digest` and `metadata`.
fn act(inputs: &[(&str, &str)]) -> [String; 2] {
    let (dir, longshore) = (tempfile::tempdir().unwrap(), Longshore::new());
    let binary = Path::new(env!("CARGO_BIN_EXE_longshore")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let outputs = dir.path().join("outputs");
    let mut script = Command::new(project().join("packaging/action.sh"));
    script.envs([("HOME", longshore.home().to_str().unwrap()), ("PATH", &path)]).envs(inputs.iter().copied());
    tool::output(script.env("GITHUB_OUTPUT", &outputs)).unwrap();
    let outputs = fs_err::read_to_string(outputs).unwrap();
    let (digest, metadata) = outputs.trim_end().split_once('\n').unwrap();
    [(digest, "digest="), (metadata, "metadata=")]
        .map(|(line, name)| line.strip_prefix(name).unwrap().to_owned())
}

#[test]
fn the_package_holds_what_there_is() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().unwrap();
    assert!(assets.len() > 5, "{assets:?}");
    let built = "target/";
    for asset in assets {
        let file = asset[0].as_str().unwrap();
        let folder = file.strip_suffix("/*").unwrap_or(file);
        assert!(file.starts_with(built) || project().join(folder).exists(), "{file}");
    }
}

/// The image is built where its base can be had; here, that what its steps name is there.
#[test]
fn the_container_file_names_what_there_is() {
    let file = read("packaging/Containerfile");
    let steps: Vec<Vec<&str>> = file
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split(' ').collect())
        .collect();
    let [build, run] = &steps.split(|step| step[0] == "FROM").skip(1).collect::<Vec<_>>()[..] else {
        panic!("two stages: {file}");
    };
    assert!(file.contains("\nFROM docker.io/library/rust:1-alpine AS build\n"), "musl, and thus static");
    assert!(file.contains("\nFROM scratch\n"));

    let ignored = read(".containerignore");
    let ignored: Vec<_> = ignored.lines().map(|line| line.trim_start_matches('/')).collect();
    assert!(
        ["src", "Cargo.toml", "Cargo.lock", "tests", "benches"].iter().all(|name| !ignored.contains(name))
    );
    assert!(build.contains(&vec!["COPY", ".", "."]));

    let cargo = build.iter().find_map(|step| step.strip_prefix(&["RUN", "cargo"])).unwrap();
    let [command, release, locked, features, names] = cargo else { panic!("{cargo:?}") };
    assert_eq!([*command, *release, *locked, *features], ["build", "--release", "--locked", "--features"]);
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    for name in names.split(',') {
        assert!(manifest["features"].get(name).is_some(), "there is no feature `{name}`");
    }
    let binary = manifest["bin"][0]["name"].as_str().unwrap();
    assert!(file.contains(&format!("&& cp target/release/{binary} /root/image/\n")), "{build:?}");
    assert!(run.contains(&vec!["COPY", "--from=build", "/root/image", "/"]), "{run:?}");
    assert!(run.contains(&vec!["ENTRYPOINT", "[\"/longshore\"]"]), "{run:?}");
    // Caches need a place, whoever runs it.
    assert!(
        file.contains("RUN mkdir -p -m 1777 /root/image/tmp &&") && run.contains(&vec!["ENV", "HOME=/tmp"])
    );
}
