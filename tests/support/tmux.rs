//! A terminal to look at and to pull at: a program runs in it, and what stands on it can be read.

use std::{
    ffi::OsStr,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{tool, until::PATIENCE};

/// Between two looks.
const BLINK: Duration = Duration::from_millis(20);

/// A terminal in a tmux of its own; it is closed when dropped.
pub(crate) struct Terminal {
    dir: TempDir,
}

impl Terminal {
    /// Opens a terminal of this size in which the command is run, between lines that say `before` and, with its
    /// exit code, `after`.
    pub(crate) fn run(columns: u16, lines: u16, command: &Command) -> Self {
        let terminal = Self { dir: tempfile::tempdir().unwrap() };
        let vars = command.get_envs().filter_map(|(key, value)| Some((key, value?)));
        let vars = vars.map(|(key, value)| [quoted(key), quoted(value)].join("="));
        let words = [command.get_program()].into_iter().chain(command.get_args()).map(quoted);
        let line: Vec<_> = vars.chain(words).collect();
        // What has no more to say keeps the terminal open.
        let script = format!("echo before; env {}; echo after $?; exec sleep 1000", line.join(" "));
        let (columns, lines) = (columns.to_string(), lines.to_string());
        terminal.tmux(&["new-session", "-d", "-x", &columns, "-y", &lines, "sh", "-c", &script]);
        terminal
    }

    /// Makes it wider or narrower.
    pub(crate) fn resize(&self, columns: u16) {
        self.tmux(&["resize-window", "-x", &columns.to_string()]);
    }

    /// Presses a key, as tmux calls it.
    pub(crate) fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Returns the lines that are not empty, what has scrolled away included, once they are as expected.
    #[track_caller]
    pub(crate) fn until(&self, expected: impl Fn(&[String]) -> bool) -> Vec<String> {
        let start = Instant::now();
        loop {
            let screen = self.tmux(&["capture-pane", "-p", "-S", "-"]);
            let lines = screen.lines().map(str::trim_end).filter(|line| !line.is_empty());
            let lines: Vec<String> = lines.map(str::to_owned).collect();
            if expected(&lines) {
                return lines;
            }
            assert!(start.elapsed() < PATIENCE, "this does not come right:\n{}", lines.join("\n"));
            thread::sleep(BLINK);
        }
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.dir.path().join("socket")).args(["-f", "/dev/null"]).args(arguments);
        String::from_utf8(tool::output(&mut command).unwrap()).unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

fn quoted(word: &OsStr) -> String {
    format!("'{}'", word.to_str().unwrap().replace('\'', r"'\''"))
}
