//! What a push of several images says at its end: a row for each, for people; and the same for programs.

use std::path::Path;

use serde_json::Value;

use crate::{
    support::{
        longshore::Longshore,
        registry::{Registry, Route},
        samples::Sample,
        tmux::Terminal,
    },
    wire::image::{Document, Layout, noise},
};

const HOSTILE: &str = "r.example/\u{1b}[31mteam/c:1";
const LONG: &str = "r.example/a-group/with-rather-many-words/in-the-name-of-the-project/component:v1.2.3";

/// Three images: one with a long name, one whose name is none and would colour a terminal, and one that lacks its layer.
fn trio() -> Layout {
    let layers: Vec<_> = (1..4).map(|seed| vec![noise(seed, 2000 * seed as usize)]).collect();
    let layout = Layout::index(&layers.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let entries: Vec<_> = layout.children.iter().map(Document::descriptor).collect();
    let names = [LONG, HOSTILE, "r.example/team/b:1"];
    layout.list(&entries.iter().zip(names.map(Some)).collect::<Vec<_>>());
    fs_err::remove_file(layout.blob(&layout.blobs[2])).unwrap();
    layout
}

fn arguments(layout: &Layout, registry: &Registry, more: &[&str]) -> Vec<String> {
    let (source, to) = (layout.path().display().to_string(), format!("{}/m", registry.host()));
    let words = ["push", "--all", &source, &to];
    words.iter().chain(more).map(ToString::to_string).collect()
}

/// Returns the cells of the table's rows and its sum, without what differs from run to run.
fn table(text: &str, names: &[(&str, &str)]) -> String {
    let lines: Vec<_> = text.lines().collect();
    let sum = lines.iter().position(|line| line.starts_with("total: ")).unwrap_or_else(|| panic!("{text}"));
    let is_row = |line: &&&str| FATES.iter().any(|fate| line.starts_with(&format!("{fate}  ")));
    let rows: Vec<_> = lines[..sum].iter().rev().take_while(is_row).collect();
    let cells = |line: &&str| {
        let cells: Vec<_> = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        cells.join(" | ")
    };
    let text: Vec<_> = rows.into_iter().rev().chain([&lines[sum]]).map(cells).collect();
    names.iter().fold(text.join("\n"), |text, (what, name)| text.replace(what, name))
}

const FATES: [&str; 7] = ["pushed", "mounted", "present", "skipped", "done before", "left out", "failed"];

#[test]
fn what_became_of_each_stands_in_a_table() {
    let (registry, layout, longshore) = (Registry::honest(), trio(), Longshore::new());
    let run = longshore.run(arguments(&layout, &registry, &[]));
    assert_eq!((run.code, run.stdout.lines().count()), (Some(7), 1), "{run:?}");
    let (host, path) = (registry.host(), layout.path().display().to_string());
    let names = [
        (host.as_str(), "HOST"),
        (&layout.blobs[2].to_string(), "BLOB"),
        (&layout.children[0].digest.hex()[..12], "DIGEST"),
    ];
    insta::assert_snapshot!(table(&run.stderr, &names), @r"
    pushed | r.example/a-group/with-rather-many-words/in-the-name-of-the-project/component:v1.2.3 | HOST/m/a-group/with-rather-many-words/in-the-name-of-the-project/component:v1.2.3 | 2.1 KiB | DIGEST
    failed | r.example/\u{1b}[31mteam/c:1 | invalid repository name: `m/\u{1b}[31mteam/c`
    failed | r.example/team/b:1 | HOST/m/team/b:1 | blob `BLOB` is missing in the source, and the registry does not have it: the source does not hold it
    total: 1 pushed, 2 failed; 2.1 KiB sent
    ");
    assert!(!run.stderr.contains('\u{1b}'), "{run:?}");
    let again = longshore.run(arguments(&layout, &registry, &[]));
    insta::assert_snapshot!(table(&again.stderr, &names), @r"
    present | r.example/a-group/with-rather-many-words/in-the-name-of-the-project/component:v1.2.3 | HOST/m/a-group/with-rather-many-words/in-the-name-of-the-project/component:v1.2.3 | 0 B | DIGEST
    failed | r.example/\u{1b}[31mteam/c:1 | invalid repository name: `m/\u{1b}[31mteam/c`
    failed | r.example/team/b:1 | HOST/m/team/b:1 | blob `BLOB` is missing in the source, and the registry does not have it: the source does not hold it
    total: 1 present, 2 failed; 0 B sent
    ");
    let to = format!("{host}/n");
    let other = longshore.run(["push", "--all", &path, &to]);
    assert!(other.stderr.contains("blobs: 2 to mount ("), "{other:?}");
    insta::assert_snapshot!(table(&other.stderr, &names), @r"
    mounted | r.example/a-group/with-rather-many-words/in-the-name-of-the-project/component:v1.2.3 | HOST/n/a-group/with-rather-many-words/in-the-name-of-the-project/component:v1.2.3 | 0 B | DIGEST
    failed | r.example/\u{1b}[31mteam/c:1 | invalid repository name: `n/\u{1b}[31mteam/c`
    failed | r.example/team/b:1 | HOST/n/team/b:1 | blob `BLOB` is missing in the source, and the registry does not have it: the source does not hold it
    total: 1 mounted, 2 failed; 0 B sent
    ");
}

#[test]
fn who_wants_no_table_gets_none() {
    let (registry, layout, longshore) = (Registry::honest(), trio(), Longshore::new());
    for more in [&["--quiet"][..], &["--json"], &["--progress=json"]] {
        let run = longshore.run(arguments(&layout, &registry, more));
        assert_eq!(run.code, Some(7), "{run:?}");
        assert!(!run.stderr.contains("total: "), "{run:?}");
    }
}

#[test]
fn programs_are_told_of_each_image() {
    let (registry, layout, longshore) = (Registry::honest(), trio(), Longshore::new());
    let told = |more: &[&str]| -> Value {
        let run = longshore.run(arguments(&layout, &registry, &[more, &["--json"]].concat()));
        serde_json::from_str(&run.stdout).unwrap()
    };
    let first = told(&[]);
    let image = &first["pushed"][0];
    let sent: u64 =
        [Route::Open, Route::Patch, Route::Commit].map(|route| registry.bytes(route)).iter().sum();
    assert_eq!(
        (&image["image"], &image["how"], &image["bytesSent"]),
        (&LONG.into(), &"uploaded".into(), &sent.into())
    );
    let second = told(&["--if-exists=skip"]);
    let image = &second["pushed"][0];
    assert_eq!((&image["how"], &image["bytesSent"]), (&"present".into(), &0.into()));
    let failed: Vec<_> = first["failed"].as_array().unwrap().iter().map(|one| &one["image"]).collect();
    assert_eq!(failed, [HOSTILE, "r.example/team/b:1"]);
}

#[test]
fn a_table_fits_its_terminal() {
    let (registry, layout, longshore) = (Registry::honest(), trio(), Longshore::new());
    for columns in [400, 80, 50] {
        let terminal = Terminal::run(columns, 50, &longshore.prepare(arguments(&layout, &registry, &[])));
        let lines = terminal.until(|lines| lines.last().is_some_and(|line| line == "after 7"));
        let sum = lines.iter().position(|line| line.starts_with("total: ")).unwrap();
        let rows = &lines[sum - 3..sum];
        assert!(rows.iter().all(|row| FATES.iter().any(|fate| row.starts_with(fate))), "{lines:#?}");
        assert!(rows.iter().any(|row| row.contains(":v1.2.3  ")), "{lines:#?}");
        // Nothing is wrapped, and nothing is cut where there is room.
        assert!(rows.iter().all(|row| row.chars().count() <= usize::from(columns)), "{lines:#?}");
        assert_eq!(rows[0].contains(LONG), columns == 400, "{lines:#?}");
    }
}

#[test]
fn the_table_in_the_documents_is_the_one_that_is_printed() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/air-gap.md");
    let page = fs_err::read_to_string(page).unwrap();
    let (registry, longshore) = (Registry::honest(), Longshore::new());
    let images = Sample::open("docker-archive/docker28-save-multi.tar");
    let to = format!("{}/mirror", registry.host());
    let run = longshore.run(["push", "--all", images.path.to_str().unwrap(), &to]);
    // A blob that two images share is sent for the first of them that comes.
    let sizeless = |text: String| {
        let lines = text.lines().map(|line| line.split(" | ").filter(|cell| !cell.ends_with('B')).collect());
        lines.collect::<Vec<Vec<_>>>().iter().map(|line| line.join(" | ")).collect::<Vec<_>>()
    };
    let printed = sizeless(table(&run.stderr, &[(&registry.host(), "registry.example.com")]));
    assert_eq!(sizeless(table(&page, &[])), printed);
}
