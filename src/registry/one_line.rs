//! Foreign words, on their way into a message of ours.

use crate::error::printable;

/// They are cut here: enough for the longest seen, and one paragraph on a terminal.
pub(super) const WORDS_LIMIT: usize = 400;

/// Makes foreign text one short line, or nothing.
pub(crate) fn one_line(text: &str) -> Option<String> {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut line = printable(&line).into_owned();
    if line.len() > WORDS_LIMIT {
        let end = (0..=WORDS_LIMIT).rev().find(|&end| line.is_char_boundary(end)).unwrap_or_default();
        line.truncate(end);
        line.push('…');
    }
    (!line.is_empty()).then_some(line)
}
