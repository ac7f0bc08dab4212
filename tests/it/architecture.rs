//! The house plan holds: who may use whom, who may name which crate, and how long a file may be.
//!
//! `error ← lock ← oci ← event ← blob ← codec ← layout ← {source, cache, registry} ← {plan, bucket} ← push ← server ← cli`:
//! a module uses only what stands left of it; those in braces do not see each other.

use std::{collections::BTreeSet, path::Path};

/// The rows, left to right.
const ROWS: &[&[&str]] = &[
    // Of unit tests only.
    &["program"],
    &["error"],
    &["lock"],
    &["oci"],
    &["event"],
    &["blob"],
    &["codec"],
    &["layout"],
    &["source", "cache", "registry"],
    &["plan", "bucket"],
    &["push"],
    &["server"],
    &["cli"],
];

/// What `lib.rs` re-exports, all of it from `error`.
const RE_EXPORTS: &[&str] = &["Error", "ErrorKind", "Result"];

/// Who may name a crate; nobody else may.
const RESERVED: &[(&str, &[&str])] = &[
    ("anyhow", &["cli"]),
    ("clap", &["cli"]),
    ("indicatif", &["cli"]),
    ("object_store", &["bucket", "server"]),
    ("std::env", &["cli"]),
    ("tokio", &["registry", "bucket", "push", "server"]),
];

/// Longer files are more than one noun or verb.
const CODE_LINES: usize = 400;

#[test]
fn modules_use_only_what_stands_left_of_them() {
    assert_eq!(findings(uses), Vec::<String>::new());
}

#[test]
fn crates_are_named_only_where_they_belong() {
    assert_eq!(findings(reserved), Vec::<String>::new());
}

#[test]
fn files_are_one_noun_or_verb() {
    assert_eq!(findings(length), Vec::<String>::new());
}

#[test]
fn what_is_forbidden_is_found() {
    let file = |path: &str, text: &str| File { path: path.into(), text: text.into() };
    for (path, text) in [
        ("blob.rs", "use crate::push::Plan;"),
        ("blob.rs", "use crate::{\n    error::{Error, push::X},\n    oci::Digest, codec,\n};"),
        ("cache/mod.rs", "fn f() -> crate::registry::Client {}"),
        ("oci/digest.rs", "use super::super::blob;"),
        ("plan.rs", "use super::push;"),
        ("plan.rs", "use crate::cli;"),
        ("push/mod.rs", "use longshore::server;"),
        ("registry/mod.rs", "use crate::nowhere;"),
    ] {
        assert_eq!(uses(&file(path, text)).len(), 1, "{path}: {text}");
    }
    for (path, text) in [
        ("blob.rs", "use crate::{error::{self, Result}, oci};\n// use crate::push;\nuse super::error;"),
        ("cli/mod.rs", "use crate::cli::output;\nuse longshore::{server, push::Push};"),
        ("main.rs", "mod cli;\nuse longshore::ErrorKind;"),
        ("oci/digest.rs", "use super::Algorithm;\nuse crate::Error;"),
        ("registry/auth.rs", "let text = \"crate::push\";\n/// See [`crate::push`].\nfn f() {}"),
        (
            "registry/session.rs",
            "#[cfg(test)]\nmod tests {\n    use super::*;\n    use super::super::Client;\n}",
        ),
    ] {
        assert_eq!(uses(&file(path, text)), Vec::<String>::new(), "{path}: {text}");
    }
    for (path, text) in [
        ("cache/mod.rs", "use tokio::fs;"),
        ("push/mod.rs", "use std::{env, fs};"),
        ("push/mod.rs", "let home = std::env::var(\"HOME\");"),
        ("source/mod.rs", "fn f() -> anyhow::Result<()> {}"),
    ] {
        assert_eq!(reserved(&file(path, text)).len(), 1, "{path}: {text}");
    }
    for (path, text) in [
        ("push/mod.rs", "use tokio::sync::watch; let x = env!(\"CARGO_PKG_VERSION\");"),
        ("cli/environment.rs", "use std::env;"),
    ] {
        assert_eq!(reserved(&file(path, text)), Vec::<String>::new(), "{path}: {text}");
    }
    let long = "let x = 1;\n".repeat(CODE_LINES + 1);
    assert_eq!(length(&file("blob.rs", &long)).len(), 1);
    let mostly_words =
        format!("// why\n\n{}#[cfg(test)]\nmod tests {{{long}}}", &long["let x = 1;\n".len()..]);
    assert_eq!(length(&file("blob.rs", &mostly_words)), Vec::<String>::new());
}

/// A source file, by its path below `src/`.
struct File {
    path: String,
    text: String,
}

impl File {
    /// Returns the top-level module that the file belongs to; `lib.rs` belongs to none.
    fn module(&self) -> Option<&str> {
        match self.path.split('/').next().unwrap_or_default() {
            "lib.rs" => None,
            "main.rs" => Some("cli"),
            first => Some(first.strip_suffix(".rs").unwrap_or(first)),
        }
    }

    /// Returns how many modules the file is below the crate's root.
    fn depth(&self) -> usize {
        let path = self.path.strip_suffix("/mod.rs").or(self.path.strip_suffix(".rs")).unwrap_or(&self.path);
        path.split('/').count()
    }

    /// Returns the code without comments and without the text of strings.
    fn code(&self) -> String {
        self.text.lines().map(|line| code_of(line) + "\n").collect()
    }
}

fn code_of(line: &str) -> String {
    let (mut code, mut in_string) = (String::new(), false);
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => drop(rest.next()),
            '"' if !code.ends_with('\'') => in_string = !in_string,
            '/' if !in_string && rest.as_str().starts_with('/') => break,
            _ if in_string => {}
            _ => code.push(c),
        }
    }
    code
}

fn findings(check: fn(&File) -> Vec<String>) -> Vec<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = walkdir::WalkDir::new(&source).sort_by_file_name().into_iter().map(Result::unwrap);
    let files = files.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "rs"));
    let files: Vec<_> = files
        .map(|entry| File {
            path: entry.path().strip_prefix(&source).unwrap().display().to_string(),
            text: fs_err::read_to_string(entry.path()).unwrap(),
        })
        .collect();
    assert!(files.len() > 10, "the sources were not found");
    files.iter().flat_map(check).collect()
}

fn row(module: &str) -> Option<usize> {
    let module = if RE_EXPORTS.contains(&module) { "error" } else { module };
    ROWS.iter().position(|row| row.contains(&module))
}

fn uses(file: &File) -> Vec<String> {
    let Some(own) = file.module() else { return Vec::new() };
    let code = file.code();
    let mut used = heads_after(&code, "longshore::");
    // In the binary, `crate` is the binary: `crate::cli` is no edge, and it has no other modules.
    used.extend(heads_after(&code, "crate::"));
    // From an inline module one `super` more is needed; those are the tests.
    let outside_tests = code.split("#[cfg(test)]").next().unwrap_or_default();
    used.extend(
        heads_after(outside_tests, &"super::".repeat(file.depth())).difference(&BTreeSet::from(["super"])),
    );
    let forbidden =
        used.into_iter().filter(|&used| used != own && row(used).is_none_or(|used| Some(used) >= row(own)));
    forbidden
        .map(|used| format!("{} uses `{used}`, which does not stand left of `{own}`", file.path))
        .collect()
}

/// Returns the first names of all paths that begin with `root`, those in braces too.
fn heads_after<'a>(code: &'a str, root: &str) -> BTreeSet<&'a str> {
    let mut heads = BTreeSet::new();
    for (at, _) in code.match_indices(root) {
        // `some_crate::` is not `crate::`.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + root.len()..];
        match rest.strip_prefix('{') {
            Some(group) => heads.extend(heads_in_group(group)),
            None => heads.extend([identifier(rest)]),
        }
    }
    heads.remove("");
    heads
}

fn heads_in_group(group: &str) -> BTreeSet<&str> {
    let (mut depth, mut start, mut heads) = (1, 0, BTreeSet::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || depth == 1 && c == ',' {
            heads.insert(identifier(group[start..at].trim_start()));
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

fn reserved(file: &File) -> Vec<String> {
    let Some(own) = file.module() else { return Vec::new() };
    let code = file.code();
    let named = |name: &str| match name.split_once("::") {
        Some((root, child)) => heads_after(&code, &format!("{root}::")).contains(child),
        None => {
            code.match_indices(&format!("{name}::"))
                .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | ':')))
                || heads_after(&code, "use ").contains(name)
        }
    };
    let forbidden = RESERVED.iter().filter(|(name, allowed)| !allowed.contains(&own) && named(name));
    forbidden
        .map(|(name, allowed)| format!("{} names `{name}`, which only {allowed:?} may", file.path))
        .collect()
}

fn length(file: &File) -> Vec<String> {
    if file.path.ends_with("/tests.rs") {
        return Vec::new();
    }
    let code = file.code();
    let code = code.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim().is_empty()).count();
    let too_long = lines > CODE_LINES;
    too_long.then(|| format!("{} has {lines} lines of code", file.path)).into_iter().collect()
}
