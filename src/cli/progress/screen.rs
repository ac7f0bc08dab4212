//! Where the bars are drawn: a terminal that may change its width at any time.
//!
//! indicatif pads rows to the full width and counts on the terminal to wrap them, so that a terminal that shrinks
//! keeps pieces of the rows before (<https://github.com/console-rs/indicatif/issues/182>). Here only the text of a
//! row is written, and the height that the old rows have is computed anew at the present width before they are
//! overwritten. Whoever stopped us had the terminal meanwhile: what stands above is no longer ours then.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use indicatif::TermLike;
use parking_lot::Mutex;
use signal_hook::{consts::SIGCONT, flag};

/// Standard error, as far as it is a terminal.
#[derive(Debug)]
pub(super) struct Screen {
    drawn: Mutex<Drawn>,
    /// Whether we were stopped, and go on.
    continued: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct Drawn {
    /// The columns of each row that stands there.
    shown: Vec<usize>,
    /// The rows that come.
    next: Vec<String>,
}

/// Returns the columns and lines of the terminal.
pub(super) fn size() -> (u16, u16) {
    let size = rustix::termios::tcgetwinsize(io::stderr());
    match size {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col, size.ws_row),
        _ => (80, 24),
    }
}

impl Screen {
    /// Begins to draw where the cursor is.
    pub(super) fn new() -> Self {
        let continued = Arc::default();
        if let Err(error) = flag::register(SIGCONT, Arc::clone(&continued)) {
            tracing::debug!("nobody says that we go on after Ctrl-Z: {error}");
        }
        Self { drawn: Mutex::default(), continued }
    }
}

impl Drawn {
    /// Returns what has to be written to replace the old rows by the new ones.
    fn replace(&mut self, columns: usize) -> String {
        let next = std::mem::take(&mut self.next);
        let stood: usize = self.shown.iter().map(|row| row.div_ceil(columns).max(1)).sum();
        let mut text = String::from("\r");
        up(&mut text, stood.saturating_sub(1));
        for (at, row) in next.iter().enumerate() {
            text.push_str(if at > 0 { "\r\n" } else { "" });
            // Erased from its first column, or tmux wraps what the row once was and not what it is.
            text.push_str(ERASE_LINE);
            text.push_str(row);
        }
        if next.is_empty() {
            // Erasing to the end from the screen's first cell makes tmux keep the old screen in its history.
            for at in 0..stood {
                text.push_str(if at > 0 { "\r\n" } else { "" });
                text.push_str(ERASE_LINE);
            }
            up(&mut text, stood.saturating_sub(1));
            text.push('\r');
        } else {
            text.push_str(ERASE_BELOW);
        }
        self.shown = next.iter().map(|row| row.chars().count()).collect();
        text
    }
}

fn up(text: &mut String, lines: usize) {
    if lines > 0 {
        // Writing to a String cannot fail.
        write!(text, "\u{1b}[{lines}A").unwrap_or_default();
    }
}

const ERASE_LINE: &str = "\u{1b}[K";
const ERASE_BELOW: &str = "\u{1b}[J";

impl TermLike for Screen {
    fn width(&self) -> u16 {
        size().0
    }

    fn height(&self) -> u16 {
        size().1
    }

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.write_str(text)
    }

    /// Takes a row. What is blank fills a row up, or moves the cursor.
    fn write_str(&self, text: &str) -> io::Result<()> {
        if !text.trim().is_empty() {
            self.drawn.lock().next.push(text.to_owned());
        }
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let mut drawn = self.drawn.lock();
        if self.continued.swap(false, Relaxed) {
            drawn.shown.clear();
        }
        let text = drawn.replace(usize::from(self.width()));
        let mut stderr = io::stderr().lock();
        stderr.write_all(text.as_bytes())?;
        stderr.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(drawn: &mut Drawn, rows: &[&str], columns: usize) -> String {
        drawn.next = rows.iter().map(|row| (*row).to_owned()).collect();
        drawn.replace(columns).replace('\u{1b}', "^")
    }

    #[test]
    fn rows_are_overwritten_where_they_stand_by_now() {
        let mut drawn = Drawn::default();
        assert_eq!(replaced(&mut drawn, &["abcdefgh", "xy"], 20), "\r^[Kabcdefgh\r\n^[Kxy^[J");
        assert_eq!(replaced(&mut drawn, &["a", "b"], 20), "\r^[1A^[Ka\r\n^[Kb^[J");
        assert_eq!(replaced(&mut drawn, &["abcdefgh", "xy"], 20), "\r^[1A^[Kabcdefgh\r\n^[Kxy^[J");
        assert_eq!(replaced(&mut drawn, &["a"], 3), "\r^[3A^[Ka^[J", "the first row has been wrapped twice");
        assert_eq!(replaced(&mut drawn, &[], 20), "\r^[K\r");
        assert_eq!(replaced(&mut drawn, &[], 20), "\r\r");
    }
}
