//! Rows under each other in aligned columns, no wider than the terminal on which they are read.
//!
//! What has no room is cut: names at their beginning, since their ends tell them apart, and the last column at its end.

use longshore::error::printable;

/// How a column is written. The last one ends where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Column {
    /// Words, at the left.
    Words,
    /// A number or size, at the right.
    Number,
    /// A name, at the left; where there is no room for all of it, its end.
    Name,
}

/// Returns a line for each row: cells two blanks apart, the first behind `indent`, none of it wider than `width` where
/// there is one.
pub(in crate::cli) fn lines<const N: usize>(
    indent: &str,
    columns: [Column; N],
    rows: &[[String; N]],
    width: Option<usize>,
) -> Vec<String> {
    let safe = rows.iter().map(|row| row.each_ref().map(|cell| printable(cell).into_owned()));
    let rows: Vec<[String; N]> = safe.collect();
    let width = width.unwrap_or(usize::MAX);
    let mut widths: [usize; N] =
        std::array::from_fn(|at| rows.iter().map(|row| length(&row[at])).max().unwrap_or_default());
    let can_shrink = |at: usize| columns[at] == Column::Name || at + 1 == N;
    let fixed: usize = (0..N).filter(|at| !can_shrink(*at)).map(|at| widths[at]).sum();
    let room = width.saturating_sub(fixed + length(indent) + GAP.len() * N.saturating_sub(1));
    let shrinking: Vec<usize> = (0..N).filter(|at| can_shrink(*at)).collect();
    let fair = fair(&shrinking.iter().map(|at| widths[*at]).collect::<Vec<_>>(), room);
    for at in shrinking {
        widths[at] = widths[at].min(fair);
    }
    let line = |row: &[String; N]| {
        let cells = (0..N).map(|at| {
            let (cell, width) = (row[at].as_str(), widths[at]);
            match columns[at] {
                Column::Number => format!("{cell:>width$}"),
                Column::Name => format!("{:width$}", end(cell, width)),
                Column::Words if at + 1 == N => cell.to_owned(),
                Column::Words => format!("{cell:width$}"),
            }
        });
        let line = format!("{indent}{}", cells.collect::<Vec<_>>().join(GAP));
        beginning(line.trim_end(), width)
    };
    rows.iter().map(line).collect()
}

/// Returns how wide a column may be, so that all of them have room together and none is cut needlessly.
fn fair(widths: &[usize], room: usize) -> usize {
    let mut widths = widths.to_vec();
    widths.sort_unstable();
    let mut room = room;
    for (at, width) in widths.iter().enumerate() {
        let share = room / (widths.len() - at);
        if *width > share {
            return share;
        }
        room -= width;
    }
    usize::MAX
}

/// Cuts off what is too much at the end.
fn beginning(text: &str, width: usize) -> String {
    if length(text) <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// Cuts off what is too much at the beginning.
fn end(text: &str, width: usize) -> String {
    let length = length(text);
    if length <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().skip(length - width.saturating_sub(1)).collect();
    format!("…{kept}")
}

fn length(text: &str) -> usize {
    text.chars().count()
}

const GAP: &str = "  ";

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [Column::Words, Column::Name, Column::Number, Column::Words];

    fn rows() -> Vec<[String; 4]> {
        [
            ["pushed", "registry.example.com/team/app:1.2.3", "1.2 MiB", "0c3dbe6979c0"],
            ["failed", "a", "", "403 Forbidden: not in this\u{1b}[31m registry, nor in any other one"],
        ]
        .map(|row| row.map(str::to_owned))
        .to_vec()
    }

    #[test]
    fn columns_are_aligned_and_what_is_foreign_is_harmless() {
        let found = lines("  ", COLUMNS, &rows(), None);
        assert_eq!(found[0], "  pushed  registry.example.com/team/app:1.2.3  1.2 MiB  0c3dbe6979c0");
        assert_eq!(
            found[1],
            "  failed  a                                             403 Forbidden: not in this\\u{1b}[31m registry, nor in any other one"
        );
    }

    #[test]
    fn no_line_is_wider_than_there_is_room() {
        for width in 0..120 {
            for line in lines("", COLUMNS, &rows(), Some(width)) {
                assert!(length(&line) <= width.max(1), "{width}: {line}");
            }
        }
        let found = lines("", COLUMNS, &rows(), Some(60));
        assert_eq!(found[0], "pushed  ….com/team/app:1.2.3  1.2 MiB  0c3dbe6979c0");
        assert_eq!(found[1], "failed  a                              403 Forbidden: not i…");
    }

    #[test]
    fn only_what_is_too_wide_is_cut() {
        for (widths, room, expected) in [
            (&[5, 10, 30][..], 45, usize::MAX),
            (&[5, 10, 30], 35, 20),
            (&[30, 5, 30], 35, 15),
            (&[30, 30], 7, 3),
            (&[], 0, usize::MAX),
        ] {
            assert_eq!(fair(widths, room), expected, "{widths:?} in {room}");
        }
    }
}
