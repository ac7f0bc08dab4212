//! The README's commands do what it says: in blocks of ```` ```console ```` every line after `$ ` is run.
//!
//! They run in a folder of their own that looks like the project, and `registry.example.com` is a registry. Two things
//! are not repeated: building (`cargo run --release --` becomes the binary under test), and this very run of the tests
//! (`tests/run`). In `docs`, what stands in a table as a whole `longshore` command is run too. Where a block of
//! ```` ```json ```` follows, what the command prints has that shape: the same keys, with values of the same kind. What
//! serves goes on until the document ends, on a port of its own that stands for `localhost:5000`.

use std::{
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    support::{capability::is_unavailable, registry::Registry, serve::Serve},
    wire::image::{Archive, Layout, layer},
};

const BUILT_BY_CARGO: &str = "cargo run --release --";
const TESTS: &str = "tests/run";
const REGISTRY: &str = "registry.example.com";
const SERVED: &str = "localhost:5000";

#[test]
fn the_commands_of_the_readme_work() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs_err::read_to_string(project.join("README.md")).unwrap();
    let commands = commands_of(&readme);
    assert!(commands.iter().any(|command| command.starts_with(BUILT_BY_CARGO)), "{commands:?}");
    assert!(commands.contains(&TESTS), "{commands:?}");
    let mode = fs_err::metadata(project.join(TESTS)).unwrap().permissions().mode();
    assert_eq!(mode & 0o111, 0o111, "{TESTS} is executable");

    let folder = tempfile::tempdir().unwrap();
    symlink(project.join("fixtures"), folder.path().join("fixtures")).unwrap();
    let registry = Registry::honest();
    for command in commands.into_iter().filter(|&command| command != TESTS) {
        let output = Command::new("bash")
            .args([
                "-euo",
                "pipefail",
                "-c",
                &command
                    .replace(BUILT_BY_CARGO, env!("CARGO_BIN_EXE_longshore"))
                    .replace(REGISTRY, &registry.host()),
            ])
            .current_dir(folder.path())
            .env("HOME", folder.path())
            .env_remove("XDG_CACHE_HOME")
            .output()
            .unwrap();
        assert!(output.status.success(), "`{command}`: {}", String::from_utf8_lossy(&output.stderr));
        if command.contains(" push ") && !command.contains(" --dry-run") && !command.contains(" --all") {
            let stdout = String::from_utf8_lossy(&output.stdout);
            assert!(stdout.trim_end().contains("/demo@sha256:"), "`{command}`: {stdout}");
        }
    }
}

#[test]
fn the_commands_of_the_documents_work() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    for (fixture, name) in [
        ("docker-archive/podman-save.tar", "app.tar"),
        ("oci-archive/podman-save.tar", "app.oci.tar"),
        ("docker-archive/docker28-save-multi.tar", "images.tar"),
    ] {
        fs_err::copy(project.join("fixtures").join(fixture), home.join(name)).unwrap();
    }
    for architecture in ["amd64", "arm64"] {
        let platform = json!({ "os": "linux", "architecture": architecture });
        let image = Archive::on(platform, vec![layer(architecture.as_bytes())]);
        fs_err::copy(image.path(), home.join(format!("{architecture}.tar"))).unwrap();
    }
    let layout = Layout::of(&[1000]);
    let copied = Command::new("cp").arg("-r").arg(layout.path()).arg(home.join("layout")).status().unwrap();
    assert!(copied.success());
    let mut image = layout.root.descriptor();
    image["annotations"] = json!({ "org.opencontainers.image.ref.name": "v1" });
    let index = json!({ "schemaVersion": 2, "manifests": [image] });
    fs_err::write(home.join("layout/index.json"), index.to_string()).unwrap();
    let registry = Registry::honest();
    let page = fs_err::read_to_string(project.join("docs/air-gap.md")).unwrap();
    let list = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    fs_err::write(home.join("images.yaml"), list.replace(REGISTRY, &registry.host())).unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_longshore"));
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut ran = 0;
    for document in fs_err::read_dir(project.join("docs")).unwrap() {
        let text = fs_err::read_to_string(document.unwrap().path()).unwrap();
        let spans = text
            .lines()
            .filter(|line| line.starts_with('|'))
            .flat_map(|line| line.split('`').skip(1).step_by(2));
        let whole = |span: &&str| span.contains("longshore push ") || span.contains("longshore inspect ");
        let spans = spans.filter(|span| whole(span) && !span.contains('…'));
        let commands = commands_of(&text).into_iter().map(|command| (command, shape_after(command, &text)));
        let mut serving: Option<Serve> = None;
        for (command, shape) in commands.chain(spans.map(|span| (span, Vec::new()))) {
            let lacks = |tool| command.starts_with(tool) && is_unavailable(tool);
            let is_missing = command.contains(" --cache ") && !cfg!(feature = "buckets");
            if is_missing || ["podman", "skopeo"].into_iter().any(lacks) {
                continue;
            }
            let command = command.replace("\\|", "|").replace(REGISTRY, &registry.host());
            let run = |command: &str| {
                let mut bash = Command::new("bash");
                bash.args(["-euo", "pipefail", "-c", command])
                    .current_dir(home)
                    .env("HOME", home)
                    .env("PATH", &path)
                    .env("REGISTRY_AUTH_FILE", home.join("auth.json"))
                    .env_remove("XDG_CACHE_HOME");
                bash
            };
            if command.starts_with("longshore serve ") {
                serving =
                    Some(Serve::run(&mut run(&format!("exec {command} --listen 127.0.0.1:0"))).unwrap());
                ran += 1;
                continue;
            }
            let served = serving.as_ref().map_or(SERVED, Serve::host);
            let output = run(&command.replace(SERVED, served)).output().unwrap();
            assert!(output.status.success(), "`{command}`: {}", String::from_utf8_lossy(&output.stderr));
            if !shape.is_empty() {
                let stdout = String::from_utf8_lossy(&output.stdout);
                let found =
                    documents(&stdout).unwrap_or_else(|error| panic!("`{command}`: {error}: {stdout}"));
                assert!(!found.is_empty(), "`{command}` prints nothing");
                let odd = found.iter().find(|found| !shape.iter().any(|shape| fits(found, shape)));
                assert!(odd.is_none(), "`{command}` prints {}", odd.unwrap());
            }
            ran += 1;
        }
    }
    assert!(ran > 20, "{ran}");
}

#[test]
fn only_what_follows_a_prompt_in_a_console_is_a_command() {
    let text = "```console\n$ a --b\nanswer\n\n$ c\n```\n```sh\n$ d\n```\n$ e\n```console\n$ f\n```\n";
    assert_eq!(commands_of(text), ["a --b", "c", "f"]);
}

#[test]
fn only_the_same_keys_and_kinds_fit() {
    let shape = json!({ "a": 1, "b": [{ "event": "x" }, { "event": "y", "more": "" }], "c": null });
    for (found, expected) in [
        (json!({ "a": 2, "b": [], "c": "" }), true),
        (json!({ "a": null, "b": [{ "event": "y", "more": "m" }], "c": 3 }), true),
        (json!({ "a": "2", "b": [], "c": "" }), false),
        (json!({ "a": 2, "b": [] }), false),
        (json!({ "a": 2, "b": [], "c": "", "d": 1 }), false),
        (json!({ "a": 2, "b": [{ "event": "x", "more": "m" }], "c": 1 }), false),
    ] {
        assert_eq!(fits(&found, &shape), expected, "{found}");
    }
}

/// Returns whether one has the keys and the kinds of values of the other; `null` is of every kind.
fn fits(found: &Value, shape: &Value) -> bool {
    match (found, shape) {
        (Value::Array(found), Value::Array(shapes)) => {
            shapes.is_empty() || found.iter().all(|found| shapes.iter().any(|shape| fits(found, shape)))
        }
        (Value::Object(found), Value::Object(shape)) => {
            found.keys().eq(shape.keys())
                && found.iter().all(|(key, found)| fits(found, &shape[key]))
                && found.get("event") == shape.get("event")
        }
        (found, shape) => {
            let same_kind = std::mem::discriminant(found) == std::mem::discriminant(shape);
            same_kind || found.is_null() || shape.is_null()
        }
    }
}

fn documents(text: &str) -> serde_json::Result<Vec<Value>> {
    serde_json::Deserializer::from_str(text).into_iter().collect()
}

/// Returns the documents of the `json` block that follows a command.
fn shape_after(command: &str, text: &str) -> Vec<Value> {
    let console = format!("```console\n$ {command}\n```\n\n```json\n");
    let Some((_, block)) = text.split_once(&console) else { return Vec::new() };
    documents(block.split("```").next().unwrap()).unwrap()
}

fn commands_of(readme: &str) -> Vec<&str> {
    let consoles = readme.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next());
    consoles.flat_map(str::lines).filter_map(|line| line.strip_prefix("$ ")).collect()
}
