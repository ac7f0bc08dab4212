//! A page of Markdown, as far as it names commands, in whatever form.
//!
//! What follows a prompt in a `console`, a step of a pipeline in `yaml`, and what of ours stands in code (a block, an
//! indented line, a span of prose, a table) as a whole command is there to be run. What has a placeholder (`longshore push SOURCE`),
//! or is but a verb, is a form of the command, there to be parsed.

use serde_json::Value;

use super::shape;
use crate::support::scripts;

/// How the README has its readers run us before anything is installed.
pub(super) const BUILT_BY_CARGO: &str = "cargo run --release --";

/// How cargo puts us there.
pub(super) const INSTALL: &str = "cargo install ";

/// A page.
pub(super) struct Page {
    pub(super) text: String,
    /// In their order.
    pub(super) commands: Vec<Command>,
}

/// A command on a page.
#[derive(Debug, PartialEq)]
pub(super) enum Command {
    /// One to run, and the shapes of what it prints, if the page says so.
    Whole(String, Vec<Value>),
    /// One to parse.
    Form(String),
}

impl Page {
    /// Reads a page.
    pub(super) fn read(text: &str) -> Self {
        // A pipe in a table is escaped.
        let text = text.replace(BUILT_BY_CARGO, "longshore").replace("\\|", "|");
        let mut commands = Vec::new();
        for (at, block) in text.split("```").enumerate() {
            if at % 2 == 0 {
                commands.extend(in_prose(block).filter(|code| is_ours(code)).map(Command::of));
                continue;
            }
            let (language, code) =
                block.split_once('\n').expect("a language and a line stand behind a fence");
            let whole = |code: &str| Command::Whole(code.to_owned(), shape::after(code, &text));
            let lines = || code.lines();
            match language {
                "console" => {
                    assert!(!code.contains("\\\n"), "a command is one line: {code}");
                    commands.extend(lines().filter_map(|line| line.strip_prefix("$ ")).map(whole));
                }
                "yaml" => commands.extend(scripts::of(code).iter().map(|script| whole(script))),
                _ => commands.extend(lines().map(str::trim).filter(|line| is_ours(line)).map(Command::of)),
            }
        }
        Self { text, commands }
    }

    /// Returns the options that stand in code of their own, like `--tag TAG`.
    pub(super) fn options(&self) -> impl Iterator<Item = &str> {
        let prose = self.text.split("```").step_by(2).flat_map(in_prose);
        let words = prose.filter(|code| code.starts_with("--")).flat_map(str::split_whitespace);
        words.filter_map(|word| word.split('=').next()).filter(|word| word.starts_with("--"))
    }

    /// Returns the lines that name a verb of ours and belong to no command.
    pub(super) fn missed(&self, verbs: &[String]) -> Vec<String> {
        let mut lines: Vec<_> = self.commands.iter().flat_map(|command| command.text().lines()).collect();
        // What is found first may be the beginning of another.
        lines.sort_by_key(|line| std::cmp::Reverse(line.len()));
        let rest = lines.iter().fold(self.text.clone(), |rest, line| rest.replacen(line, "", 1));
        let names_verb = |line: &&str| verbs.iter().any(|verb| line.contains(&format!("longshore {verb}")));
        rest.lines().filter(names_verb).map(str::to_owned).collect()
    }
}

impl Command {
    fn of(code: &str) -> Self {
        let words = code.split_whitespace().count();
        let is_placeholder = |word: &str| word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase());
        let has_placeholder = code.split(|c: char| !c.is_alphanumeric()).any(is_placeholder);
        if words == 2 || has_placeholder || code.contains('…') {
            Self::Form(code.to_owned())
        } else {
            Self::Whole(code.to_owned(), Vec::new())
        }
    }

    fn text(&self) -> &str {
        let (Self::Whole(text, _) | Self::Form(text)) = self;
        text
    }
}

/// Returns what is code outside of fences: indented lines, and spans.
fn in_prose(text: &str) -> impl Iterator<Item = &str> {
    text.split("\n\n").flat_map(|paragraph| {
        let is_indented = paragraph.lines().any(|line| line.starts_with("    "));
        let lines = paragraph.lines().filter(move |_| is_indented).map(str::trim);
        lines.chain(paragraph.split('`').skip(1).step_by(2))
    })
}

/// Returns whether a line of code runs us, or puts us there to be run; our name may be a user's too.
fn is_ours(code: &str) -> bool {
    if code.starts_with(INSTALL) {
        return true;
    }
    let words: Vec<_> = code.split_whitespace().collect();
    // What has no arguments is but our name.
    let end = words.len().saturating_sub(1);
    (0..end).any(|at| match words[at].strip_suffix("longshore") {
        Some("") => at == 0 || ["|", "&&", "||", ";", "exec"].contains(&words[at - 1]),
        before => before.is_some_and(|before| before.ends_with("$(")),
    })
}

#[test]
fn commands_are_found_in_every_form() {
    let page = "Text of `longshore man` and `longshore push a b`, `--user longshore --x`, `cargo install x`.\n\n    longshore push DIR\n\n\
                ```console\n$ a --b\nanswer\n\n$ cargo run --release -- c\n```\n\
                ```sh\nlongshore d e\n```\n$ f\n\n\
                | `g` | `cat h \\| longshore i j` |\n\n\
                ```yaml\n- run: |\n    k\n    longshore l\n- run: m\nscript:\n  - x=\"$(longshore n o)\"\n  - p\n```\n";
    let whole = |code: &str| Command::Whole(code.to_owned(), Vec::new());
    let form = |code: &str| Command::Form(code.to_owned());
    assert_eq!(
        Page::read(page).commands,
        [
            form("longshore man"),
            whole("longshore push a b"),
            whole("cargo install x"),
            form("longshore push DIR"),
            whole("a --b"),
            whole("longshore c"),
            whole("longshore d e"),
            whole("cat h | longshore i j"),
            whole("k\nlongshore l"),
            whole("m"),
            whole("x=\"$(longshore n o)\""),
            whole("p"),
        ]
    );
}

#[test]
fn a_command_in_another_form_is_missed() {
    let verbs = ["push".to_owned()];
    let missed = |text: &str| Page::read(text).missed(&verbs).len();
    let known = "`longshore push`\n\n```console\n$ longshore push a b\n$ longshore push a\n```\n";
    assert_eq!(missed(known), 0);
    for unknown in [
        "<code>longshore push a b</code>\n",
        "    sudo -E longshore push a\n",
        "```yaml\ncommand: longshore push a\n```\n",
        "```console\nlongshore push a\n```\n",
    ] {
        assert_eq!(missed(unknown), 1, "{unknown}");
        assert_eq!(missed(&format!("{unknown}\n{known}")), 1, "{unknown}");
    }
}
