//! The entries of a list: each one push, with what it says otherwise than the command line.
//!
//! A mistake names its line, and all mistakes are told at once.

use std::io::{Read as _, stdin};

use longshore::{
    Error, ErrorKind, Result,
    codec::Recipe,
    error::{Context as _, chain, similar},
    oci::Platform,
};

use super::node::{self, Node, Value};
use crate::cli::push::Args;

/// One push of a list.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) line: usize,
    source: String,
    pub(super) destinations: Vec<String>,
    tags: Vec<String>,
    platform: Option<Platform>,
    compression: Option<Recipe>,
}

/// What is wrong with a list, by line.
#[derive(Debug)]
pub(super) struct Problems<'a> {
    list: &'a str,
    /// The first ones.
    found: Vec<(usize, Error)>,
    count: usize,
}

impl<'a> Problems<'a> {
    pub(super) fn of(list: &'a str) -> Self {
        Self { list, found: Vec::new(), count: 0 }
    }

    /// Returns a result's value, or takes note of its error.
    pub(super) fn sift<T>(&mut self, line: usize, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.note(line, error)).ok()
    }

    fn note(&mut self, line: usize, error: Error) {
        self.count += 1;
        if self.found.len() < TOLD {
            self.found.push((line, error));
        }
    }

    /// Ends with all that was found, if anything was.
    pub(super) fn check(&mut self) -> Result<()> {
        let list = self.list.escape_debug();
        self.found.sort_by_key(|(line, _)| *line);
        match self.found.as_slice() {
            [] => Ok(()),
            [(line, error)] => Err(error.clone().while_doing(format!("`{list}`, line {line}"))),
            several @ [(_, first), ..] => {
                let error = Error::new(first.kind(), format!("`{list}` has {} mistakes", self.count));
                let error = several.iter().fold(error, |all, (line, error)| {
                    let words =
                        [chain(error)].into_iter().chain(error.hints().into_iter().map(str::to_owned));
                    all.with_hint(format!("line {line}: {}", words.collect::<Vec<_>>().join("; ")))
                });
                Err(match self.count - several.len() {
                    0 => error,
                    more => error.with_hint(format!("and {more} more")),
                })
            }
        }
    }
}

/// Reads a list; `-` is standard input.
pub(super) fn read(list: &str, problems: &mut Problems<'_>) -> Result<Vec<Entry>> {
    let reading = || format!("reading `{}`", list.escape_debug());
    let mut bytes = Vec::new();
    if list == "-" {
        stdin().take(LIMIT).read_to_end(&mut bytes).context(ErrorKind::Local, reading)?;
    } else {
        let file = fs_err::File::open(list).context(ErrorKind::Usage, reading)?;
        file.take(LIMIT).read_to_end(&mut bytes).context(ErrorKind::Local, reading)?;
    }
    if bytes.len() as u64 == LIMIT {
        return Err(Error::usage(format!("`{}` is over the limit of {LIMIT} bytes", list.escape_debug())));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::usage(format!("`{}` is no text in UTF-8", list.escape_debug())))?;
    let entries = parse(&text, problems);
    problems.check()?;
    if entries.is_empty() {
        return Err(Error::usage(format!("`{}` lists nothing", list.escape_debug())));
    }
    Ok(entries)
}

fn parse(text: &str, problems: &mut Problems<'_>) -> Vec<Entry> {
    // Windows' editors begin a text so.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let nodes = match node::parse(text) {
        Ok(nodes) => nodes,
        Err((line, error)) => {
            problems.note(line, error);
            return Vec::new();
        }
    };
    let entries = nodes.into_iter().flat_map(|node| match node.value {
        Value::List(entries) => entries,
        value => vec![Node { line: node.line, value }],
    });
    entries.filter_map(|node| entry(node, problems)).collect()
}

/// Reads one entry, as far as it can be.
fn entry(node: Node, problems: &mut Problems<'_>) -> Option<Entry> {
    let Value::Map(pairs) = node.value else {
        let error = Error::usage("an entry has keys and values");
        return problems
            .sift(node.line, Err(error.with_hint("`- source: app.tar`, and below it `destinations`")));
    };
    let mut entry = Entry { line: node.line, ..Entry::default() };
    let (mut seen, mut meant): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for (key, node) in &pairs {
        let line = node.line;
        let known = problems.sift(line, known(key, &seen));
        if known.is_none() {
            meant.extend(similar(key, KEYS));
            continue;
        }
        seen.push(key);
        match key.as_str() {
            "source" => entry.source = problems.sift(line, text(key, node)).unwrap_or_default(),
            "destinations" => entry.destinations = problems.sift(line, texts(key, node)).unwrap_or_default(),
            "tags" => entry.tags = problems.sift(line, texts(key, node)).unwrap_or_default(),
            "platform" => entry.platform = problems.sift(line, text(key, node).and_then(|text| text.parse())),
            _ => entry.compression = problems.sift(line, text(key, node).and_then(|text| text.parse())),
        }
    }
    for key in ["source", "destinations"] {
        if !seen.contains(&key) && !meant.contains(&key) {
            problems.note(entry.line, Error::usage(format!("there is no `{key}`")));
        }
    }
    if entry.source == "-" {
        let error = Error::usage("standard input cannot be a source of a list");
        problems.note(entry.line, error);
    }
    Some(entry)
}

/// Makes sure that a key is one, and the first of its name.
fn known(key: &str, seen: &[&str]) -> Result<()> {
    if seen.contains(&key) {
        return Err(Error::usage(format!("`{key}` is there twice")));
    }
    if KEYS.contains(&key) {
        return Ok(());
    }
    let error = Error::usage(format!("there is no key `{}`", key.escape_debug()));
    Err(match similar(key, KEYS) {
        Some(meant) => error.with_hint(format!("did you mean `{meant}`?")),
        None => error.with_hint(format!("there are {}", KEYS.map(|key| format!("`{key}`")).join(", "))),
    })
}

/// What an entry may say.
const KEYS: [&str; 5] = ["compression", "destinations", "platform", "source", "tags"];
/// More mistakes are counted, and not told.
const TOLD: usize = 20;
/// A list of 100,000 images has less.
const LIMIT: u64 = 64 << 20;

fn text(key: &str, node: &Node) -> Result<String> {
    match &node.value {
        Value::Text(text) if text.is_empty() => Err(Error::usage(format!("`{key}` is empty"))),
        Value::Text(text) => Ok(text.clone()),
        Value::List(_) | Value::Map(_) => Err(Error::usage(format!("`{key}` is one text"))),
    }
}

/// Reads one text, or a list of them.
fn texts(key: &str, node: &Node) -> Result<Vec<String>> {
    match &node.value {
        Value::List(nodes) if nodes.is_empty() => Err(Error::usage(format!("`{key}` is empty"))),
        Value::List(nodes) => nodes.iter().map(|node| text(key, node)).collect(),
        _ => Ok(vec![text(key, node)?]),
    }
}

impl Entry {
    /// Puts what the entry says in the place of what the command line does.
    pub(super) fn over(self, mut args: Args) -> Args {
        args.source = Some(self.source);
        args.destinations = self.destinations;
        if !self.tags.is_empty() {
            args.tags = self.tags;
        }
        args.platform = self.platform.or(args.platform);
        args.recipe.compression = self.compression.unwrap_or(args.recipe.compression);
        args
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_is_written() {
        let mut problems = Problems::of("list.yaml");
        let entries = parse(
            "- source: a.tar\n  destinations: r.example/a:1\n- {source: b.tar, tags: [1.10], platform: linux/arm64, \
             destinations: [r.example/b, r.example/c], compression: zstd}\n",
            &mut problems,
        );
        problems.check().unwrap();
        let [a, b] = entries.as_slice() else { panic!("{entries:?}") };
        assert_eq!((a.line, a.source.as_str(), a.destinations.len()), (1, "a.tar", 1));
        assert_eq!((b.line, b.tags.as_slice(), b.destinations.len()), (3, &["1.10".to_owned()][..], 2));
        assert_eq!(b.platform.as_ref().unwrap().to_string(), "linux/arm64");
        assert_eq!(b.compression.unwrap().to_string(), "zstd:3");
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let mut problems = Problems::of("list.yaml");
        parse("- sorce: a.tar\n  tags:\n- b.tar\n- source: c.tar\n  source: d.tar\n", &mut problems);
        let error = problems.check().unwrap_err();
        assert_eq!(error.message(), "`list.yaml` has 6 mistakes");
        insta::assert_snapshot!(error.hints().join("\n"), @r"
        line 1: there is no key `sorce`; did you mean `source`?
        line 1: there is no `destinations`
        line 2: `tags` is empty
        line 3: an entry has keys and values; `- source: app.tar`, and below it `destinations`
        line 4: there is no `destinations`
        line 5: `source` is there twice
        ");
        let mut problems = Problems::of("list.json");
        parse(r#"{"source":"c.tar","destinations":"r.example/a","source":"d.tar"}"#, &mut problems);
        insta::assert_snapshot!(chain(&problems.check().unwrap_err()), @"`list.json`, line 1: `source` is there twice");
        let mut problems = Problems::of("list.yaml");
        parse("- source: a.tar\n  destination: r.example/a\n  destinations: r.example/a\n", &mut problems);
        insta::assert_snapshot!(chain(&problems.check().unwrap_err()), @"`list.yaml`, line 2: there is no key `destination`");
    }

    #[test]
    fn of_many_mistakes_the_first_are_told() {
        let mut problems = Problems::of("list.yaml");
        parse(&"- a.tar\n".repeat(1000), &mut problems);
        let error = problems.check().unwrap_err();
        assert_eq!(error.message(), "`list.yaml` has 1000 mistakes");
        assert_eq!(error.hints().len(), TOLD + 1);
        assert_eq!(error.hints().last(), Some(&"and 980 more"));
    }

    #[test]
    fn a_mark_of_byte_order_is_passed_over() {
        for line in
            ["- source: a\n  destinations: r.example/a", r#"{"source":"a","destinations":["r.example/a"]}"#]
        {
            let mut problems = Problems::of("list");
            assert_eq!(parse(&format!("\u{feff}{line}\n"), &mut problems).len(), 1);
            problems.check().unwrap();
        }
    }

    #[test]
    fn what_is_no_text_is_no_list() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(file.path(), [0xff, 0xfe, b'-']).unwrap();
        let list = file.path().to_str().unwrap();
        let error = read(list, &mut Problems::of(list)).unwrap_err();
        assert!(error.kind() == ErrorKind::Usage && error.message().contains("UTF-8"), "{error}");
    }
}
