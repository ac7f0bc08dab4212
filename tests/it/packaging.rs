//! What other systems install and run us by: the GitHub Action, the Debian package, and all shell scripts.

use std::{path::Path, process::Command};

use longshore::oci::Digest;

use crate::support::{longshore::Longshore, registry::Registry, tool};

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
    for (at, step) in steps(&read("packaging/action.yml")).iter().enumerate() {
        let script = dir.path().join(format!("step{at}"));
        // As GitHub runs them.
        fs_err::write(&script, format!("#!/usr/bin/env bash\nset -eo pipefail\n{step}")).unwrap();
        scripts.push(script);
    }
    assert!(scripts.len() > 6, "{scripts:?}");
    tool::output(Command::new("shellcheck").args(&scripts)).unwrap();
}

/// Returns the scripts of an action's steps.
fn steps(action: &str) -> Vec<String> {
    let mut steps: Vec<String> = Vec::new();
    let mut inside = false;
    for line in action.lines() {
        let text = line.trim_start();
        match (text.strip_prefix("run: "), inside) {
            (Some("|"), _) => {
                steps.push(String::new());
                inside = true;
            }
            (Some(run), _) => {
                steps.push(run.to_owned());
                inside = false;
            }
            (None, true) if line.starts_with("        ") => {
                let step = steps.last_mut().unwrap();
                step.push_str(text);
                step.push('\n');
            }
            _ => inside = false,
        }
    }
    steps
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
    let (dir, longshore, registry) = (tempfile::tempdir().unwrap(), Longshore::new(), Registry::honest());
    let binary = Path::new(env!("CARGO_BIN_EXE_longshore")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let outputs = dir.path().join("outputs");
    let destination = |name: &str| format!("{}/{name}", registry.host());
    tool::output(
        Command::new(project().join("packaging/action.sh"))
            .envs([("HOME", longshore.home().to_str().unwrap()), ("PATH", &path)])
            .env("SOURCE", project().join("fixtures/docker-archive/podman-save.tar"))
            .env("DESTINATION", format!("{}\n{}\n", destination("team/a:1"), destination("b:1")))
            .envs([("TAGS", "2\nlatest"), ("OPTIONS", "--compression=zstd\n--jobs=2")])
            .envs([("USERNAME", "me"), ("PASSWORD", "it's \"$(secret)\"")])
            .env("GITHUB_OUTPUT", &outputs),
    )
    .unwrap();
    let outputs = fs_err::read_to_string(outputs).unwrap();
    let (digest, metadata) = outputs.split_once('\n').unwrap();
    let digest = digest.strip_prefix("digest=").unwrap();
    for name in ["team/a", "b"] {
        for tag in ["1", "2", "latest"] {
            let (_, manifest) = registry.manifest(name, tag).unwrap();
            assert_eq!(Digest::of(&manifest).to_string(), digest, "{name}:{tag}");
        }
    }
    let metadata: serde_json::Value =
        serde_json::from_str(metadata.strip_prefix("metadata=").unwrap().trim_end()).unwrap();
    assert_eq!(metadata["containerimage.digest"], digest);
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
