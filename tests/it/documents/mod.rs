//! What the README and the documents show works: every command in them is run, in whatever form it stands.
//!
//! Each page has a machine of its own (`machine.rs`), with the files that it names and a registry. What is not repeated
//! is building for speed (`cargo run --release --` becomes the binary under test, until `cargo install` has put one
//! there), and this very run of the tests (`tests/run`). What has a placeholder is parsed, so that verbs and options are
//! real. Steps that need what GitHub's runner knows are run beside the Action (`packaging.rs`), and so is what builds
//! packages.

mod machine;
mod page;
mod shape;

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use self::{
    machine::Machine,
    page::{BUILT_BY_CARGO, Page},
};
use crate::support::{longshore::Longshore, scripts, tool};

const TESTS: &str = "tests/run";

#[test]
fn the_commands_of_the_documents_work() {
    std::thread::scope(|scope| {
        for path in pages() {
            scope.spawn(move || work(&path));
        }
    });
}

/// Runs what is on a page, in its order.
fn work(path: &Path) {
    let name = path.file_name().unwrap().display();
    let page = Page::read(&fs_err::read_to_string(path).unwrap());
    let mut machine = Machine::for_page(&page.text);
    for command in &page.commands {
        let (text, shape) = match command {
            page::Command::Whole(text, _) if text == TESTS || scripts::is_for_github(text) => continue,
            page::Command::Whole(text, shape) => (text, shape),
            page::Command::Form(form) => {
                let parsed = parse(form);
                assert!(parsed.is_ok(), "{name}: `{form}`: {}", parsed.unwrap_err());
                continue;
            }
        };
        let stdout = match machine.run(text) {
            Some(Ok(stdout)) => stdout,
            Some(Err(stderr)) => panic!("{name}: `{text}`: {stderr}"),
            None => continue,
        };
        if !shape.is_empty() {
            let found = shape::documents(&stdout);
            let found = found.unwrap_or_else(|error| panic!("{name}: `{text}`: {error}: {stdout}"));
            assert!(!found.is_empty(), "{name}: `{text}` prints nothing");
            let odd = found.iter().find(|found| !shape.iter().any(|shape| shape::fits(found, shape)));
            assert!(odd.is_none(), "{name}: `{text}` prints {}", odd.unwrap());
        } else if text.starts_with("longshore push ") && !OTHERWISE.iter().any(|word| text.contains(word)) {
            let (reference, rest) = stdout.split_once('\n').expect("a line is printed");
            let is_digest = |digest: &str| digest.starts_with("sha256:") && digest.len() == 71;
            let is_pinned = reference.rsplit_once('@').is_some_and(|(_, digest)| is_digest(digest));
            assert!(is_pinned && rest.is_empty(), "{name}: `{text}` prints {stdout}");
        }
    }
}

/// Has the form of a command parsed: placeholders are values like others, and `--help` ends it before they count.
fn parse(form: &str) -> Result<(), String> {
    let words = form.split_whitespace().skip(1).map(|word| word.replace(['[', ']', '…'], ""));
    let mut longshore = Command::new(env!("CARGO_BIN_EXE_longshore"));
    longshore.args(words.filter(|word| !word.is_empty())).arg("--help").env_clear();
    tool::output(&mut longshore).map(drop)
}

/// What prints something else than the one image that was pushed.
const OTHERWISE: [&str; 5] = [" --all", " --dry-run", " --json", " --list", " >"];

#[test]
fn no_command_of_a_document_is_passed_over() {
    let help = Longshore::new().run(["-h"]).stdout;
    let list = help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    let verbs: Vec<_> = list.lines().map(|line| line.split_whitespace().next().unwrap().to_owned()).collect();
    assert!(["bundle", "man", "push"].iter().all(|verb| verbs.contains(&(*verb).to_owned())), "{verbs:?}");
    for path in pages() {
        let missed = Page::read(&fs_err::read_to_string(&path).unwrap()).missed(&verbs);
        assert!(missed.is_empty(), "{}: no test runs {missed:#?}", path.display());
    }
}

#[test]
fn every_option_of_the_documents_exists() {
    let completions = Longshore::new().run(["completions", "bash"]).stdout;
    let options: Vec<_> = completions.split([' ', '"', '\'', ')', '|', '\n']).collect();
    for path in pages() {
        let page = Page::read(&fs_err::read_to_string(&path).unwrap());
        for option in page.options().filter(|option| !OF_OTHERS.contains(option)) {
            assert!(options.contains(&option), "{}: there is no `{option}`", path.display());
        }
    }
}

/// Options of cargo, skopeo and regctl.
const OF_OTHERS: [&str; 6] = [
    "--features",
    "--blob-chunk",
    "--dest-compress-format",
    "--dest-creds",
    "--dest-tls-verify",
    "--digestfile",
];

#[test]
fn the_first_command_needs_nothing_but_the_build() {
    let readme = fs_err::read_to_string(project().join("README.md")).unwrap();
    let first = readme.split("```console\n$ ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
    let arguments = first.strip_prefix(BUILT_BY_CARGO).expect("the first command builds");
    // It is clear what cargo runs: there is one binary, and what it takes is on by default.
    let manifest: toml::Table =
        fs_err::read_to_string(project().join("Cargo.toml")).unwrap().parse().unwrap();
    let [binary] = &manifest["bin"].as_array().unwrap()[..] else { panic!("one binary: {manifest}") };
    let needed = binary["required-features"].as_array().unwrap();
    let default = manifest["features"]["default"].as_array().unwrap();
    assert!(needed.iter().all(|feature| default.contains(feature)), "{needed:?} of {default:?}");

    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(project().join("fixtures"), folder.path().join("fixtures")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
    let command = command.args(arguments.split_whitespace()).current_dir(folder.path());
    let output = command.env_clear().env("HOME", folder.path()).output().unwrap();
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    let (_, digest) = stdout.trim_end().split_once("/demo@sha256:").expect("what was pushed is printed");
    // The folder that it names is the registry, and the repository there a layout.
    let repository = folder.path().join("registry/demo");
    assert!(repository.join("blobs/sha256").join(digest).exists(), "{stdout}");
    let index = fs_err::read_to_string(repository.join("index.json")).unwrap();
    assert!(index.contains(digest), "{index}");
}

#[test]
fn the_tests_are_run_by_a_program() {
    let readme = fs_err::read_to_string(project().join("README.md")).unwrap();
    assert!(readme.contains(&format!("$ {TESTS}\n")));
    let mode = fs_err::metadata(project().join(TESTS)).unwrap().permissions().mode();
    assert_eq!(mode & 0o111, 0o111, "{TESTS} is executable");
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the README and all documents.
fn pages() -> Vec<PathBuf> {
    let documents = fs_err::read_dir(project().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages: Vec<_> = documents.chain([project().join("README.md")]).collect();
    assert!(
        pages.iter().all(|page| page.extension().is_some_and(|extension| extension == "md")),
        "{pages:?}"
    );
    pages
}
