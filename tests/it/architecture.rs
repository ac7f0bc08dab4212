//! The house plan holds: who may use whom, who may name which crate, and how long a file may be.
//!
//! In a room files may use one another, but never in a circle: each can be read before those that use it. What a room
//! hands on belongs to the file that it comes from.
//!
//! `error ← lock ← oci ← event ← blob ← codec ← layout ← {source, cache, registry} ← {plan, bucket} ← push ← server ← cli`:
//! a module uses only what stands left of it; those in braces do not see each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

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
fn files_do_not_use_one_another_in_circles() {
    assert_eq!(circles(&sources()), Vec::<String>::new());
    let file = |path: &str, text: &str| File { path: path.into(), text: text.into() };
    let room = [
        file("push/mod.rs", "mod a;\npub use a::A;"),
        file("push/a.rs", "use super::{Options, deep::{self, one::One}};"),
        file("push/deep/mod.rs", "use super::b;"),
        file("push/deep/one.rs", "use super::{super::{c::C, Options}, two};"),
        file("push/b.rs", "use crate::{error, push::d};"),
        file("push/c.rs", "#[cfg(test)]\nmod tests {\n    use super::super::a;\n}"),
    ];
    assert_eq!(circles(&room), Vec::<String>::new());
    for (path, text, expected) in [
        ("push/d.rs", "use super::a::A;", "push: a → deep → b → d → a"),
        ("push/d.rs", "use super::A;", "push: a → deep → b → d → a"),
        ("push/c.rs", "use crate::push::deep::two::Two;", "push: c → deep → c"),
        ("push/deep/two.rs", "use super::{One, one::{Two, Three}};", "push/deep: one → two → one"),
    ] {
        let mut room = room.iter().map(|each| file(&each.path, &each.text)).collect::<Vec<_>>();
        room.push(file(path, text));
        assert_eq!(circles(&room), [expected], "{path}: {text}");
    }
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

    /// Returns the names of the modules that lead to the file from the crate's root.
    fn names(&self) -> Vec<String> {
        let path = self.path.strip_suffix("/mod.rs").or(self.path.strip_suffix(".rs")).unwrap_or(&self.path);
        path.split('/').map(str::to_owned).collect()
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
    sources().iter().flat_map(check).collect()
}

fn sources() -> Vec<File> {
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
    files
}

/// Returns for each folder one of the circles in which its files and folders use one another.
fn circles(files: &[File]) -> Vec<String> {
    let re_exports: BTreeMap<_, _> = files.iter().flat_map(re_exports).collect();
    let mut folders: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for file in files {
        let own = file.names();
        for mut used in imports(file) {
            while let Some(origin) = re_exports.get(&used) {
                used.clone_from(origin);
            }
            let shared = own.iter().zip(&used).take_while(|(own, used)| own == used).count();
            if let (Some(user), Some(used)) = (own.get(shared), used.get(shared)) {
                let folder = folders.entry(own[..shared].join("/")).or_default();
                folder.entry(user.clone()).or_default().insert(used.clone());
            }
        }
    }
    let circle = |(folder, uses): (String, BTreeMap<String, BTreeSet<String>>)| {
        let circle = uses.keys().find_map(|first| way_back(&uses, &mut vec![first], &mut BTreeSet::new()))?;
        Some(format!("{folder}: {}", circle.join(" → ")))
    };
    folders.into_iter().filter_map(circle).collect()
}

/// Returns a way from the last file of `way` to the first one.
fn way_back<'a>(
    uses: &'a BTreeMap<String, BTreeSet<String>>,
    way: &mut Vec<&'a str>,
    seen: &mut BTreeSet<&'a str>,
) -> Option<Vec<&'a str>> {
    let used = uses.get(*way.last()?)?;
    for used in used {
        way.push(used);
        if used == way[0] {
            return Some(way.clone());
        }
        if seen.insert(used)
            && let Some(found) = way_back(uses, way, seen)
        {
            return Some(found);
        }
        way.pop();
    }
    None
}

/// Returns what a folder hands on of what its files define: under which path, and where it comes from.
fn re_exports(file: &File) -> Vec<(Vec<String>, Vec<String>)> {
    let own = file.names();
    if !file.path.ends_with("/mod.rs") {
        return Vec::new();
    }
    let within =
        imports(file).into_iter().filter(|path| path.len() > own.len() + 1 && path.starts_with(&own));
    within.filter_map(|path| Some(([&own[..], &[path.last()?.clone()]].concat(), path))).collect()
}

/// Returns what a file imports of this crate outside its tests, each as a path from the root.
fn imports(file: &File) -> Vec<Vec<String>> {
    let code = file.code();
    let code = code.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let statements =
        code.split(';').filter_map(|statement| statement.rsplit_once("use ").map(|(_, tree)| tree));
    let mut paths = Vec::new();
    for tree in statements {
        let tree: String = tree.split_whitespace().collect();
        expand(&tree, &mut Vec::new(), &mut paths);
    }
    let own = file.names();
    let absolute = |path: Vec<String>| {
        let supers = path.iter().take_while(|name| *name == "super").count();
        match path.first()?.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([&own, &path[1..]].concat()),
            "super" => Some([&own[..own.len().checked_sub(supers)?], &path[supers..]].concat()),
            name if code.contains(&format!("mod {name};")) => Some([&own, &path[..]].concat()),
            _ => None,
        }
    };
    paths.into_iter().filter_map(absolute).collect()
}

/// Adds all paths of an import.
fn expand(tree: &str, before: &mut Vec<String>, paths: &mut Vec<Vec<String>>) {
    if let Some(group) = tree.strip_prefix('{').and_then(|group| group.strip_suffix('}')) {
        let (mut depth, mut start) = (0, 0);
        for (at, c) in group.char_indices().chain([(group.len(), ',')]) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    expand(&group[start..at], before, paths);
                    start = at + 1;
                }
                _ => {}
            }
        }
        return;
    }
    let (name, rest) = tree.split_once("::").unwrap_or((tree, ""));
    // `a::{self}` is `a`.
    if name.is_empty() || name == "self" && !before.is_empty() {
        return paths.push(before.clone());
    }
    before.push(name.to_owned());
    expand(rest, before, paths);
    before.pop();
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
        heads_after(outside_tests, &"super::".repeat(file.names().len()))
            .difference(&BTreeSet::from(["super"])),
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
