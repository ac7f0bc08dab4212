//! The rows of the bars, for a width: what is in flight, one short line each, and all of it together below.
//!
//! A terminal that shrinks wraps what stands there, and some tell of it a quarter of a second later (tmux). A row
//! that has been wrapped unseen leaves a piece behind when it is drawn again, so half of the width stays free: panes
//! are split.

use std::time::{Duration, Instant};

use bytesize::ByteSize;

use super::track::{Blob, LABEL, Phase, Total, Track};

/// More layers than this are counted and not shown.
const MOST: usize = 8;
/// What is over so soon is not shown.
const BRIEF: Duration = Duration::from_millis(300);
/// Rows are never wider.
const WIDEST: usize = 56;
/// So much there must be for a bar: half of a usual terminal.
const ROOMY: usize = 40;
/// Between what stands in a row.
const GAP: &str = "  ";
/// Cells of a bar.
const CELLS: u64 = 7;

/// Returns what is shown at this moment.
pub(super) fn rows(track: &Track, columns: usize, lines: usize, now: Instant) -> Vec<String> {
    let width = (columns / 2).clamp(1, WIDEST);
    let shown = track.in_flight(now).filter(|(_, blob, phase)| {
        let lasts = blob.since().is_some_and(|since| now.saturating_duration_since(since) >= BRIEF);
        lasts || matches!(phase, Phase::Waiting { .. })
    });
    let mut rows: Vec<String> = shown.map(|(_, blob, phase)| row(blob, &phase, width, now)).collect();
    let total = track.total(now);
    if total.blobs == 0 && rows.is_empty() {
        return rows;
    }
    // The line above belongs to whoever printed it, and the last one is the total's.
    let room = MOST.min(lines.saturating_sub(3)).max(1);
    if rows.len() > room {
        let more = rows.len() + 1 - room;
        rows.truncate(room - 1);
        rows.push(format!("and {more} more"));
    }
    rows.push(summary(&total, width));
    let cut = |row: &String| row.chars().take(width).collect::<String>().trim_end().to_owned();
    rows.iter().map(cut).collect()
}

/// Returns all blobs together in one line; what matters least falls away first where it is narrow.
pub(super) fn summary(total: &Total, width: usize) -> String {
    let Total { done, blobs, acknowledged, size, estimated, speed, left } = *total;
    let about = if estimated { "~" } else { "" };
    let far = |how_far: String| {
        let mut parts = vec![format!("{done}/{blobs}")];
        if size > 0 {
            parts.push(how_far);
            parts.extend((speed > 0).then(|| format!("{}/s", ByteSize(speed))));
            parts.extend(left.map(|left| format!("{} left", span(left))));
        }
        parts
    };
    let full = far(format!("{} of {about}{}", ByteSize(acknowledged), ByteSize(size))).join(GAP);
    if full.len() <= width {
        return full;
    }
    fit(far(format!("{about}{} %", share(acknowledged, size, 100))), width)
}

/// Joins what there is room for: at least the first.
fn fit(mut parts: Vec<String>, width: usize) -> String {
    while parts.len() > 1 && parts.join(GAP).len() > width {
        parts.pop();
    }
    parts.join(GAP)
}

/// Says what is being done to a blob.
pub(super) fn words(phase: &Phase, now: Instant) -> String {
    match phase {
        Phase::Closing => "closing".to_owned(),
        Phase::Encoding { percent: Some(percent) } => format!("encoding {percent} %"),
        Phase::Encoding { percent: None } => "encoding".to_owned(),
        Phase::Hashing => "hashing".to_owned(),
        Phase::Sending => "sending".to_owned(),
        Phase::Waiting { until, why } => {
            // Until the very end there is something left.
            let left = until.saturating_duration_since(now) + Duration::from_millis(999);
            format!("waiting {}: {why}", span(left))
        }
        Phase::Writing => "writing".to_owned(),
    }
}

fn row(blob: &Blob, phase: &Phase, width: usize, now: Instant) -> String {
    let Blob { label, size, acknowledged, .. } = blob;
    let words = words(phase, now);
    match size {
        // Why is more than how far, and needs the room.
        _ if matches!(phase, Phase::Waiting { .. }) => format!("{label:LABEL$}  {words}"),
        _ if width >= ROOMY => {
            let cells = "=".repeat(size.map_or(0, |size| share(*acknowledged, size, CELLS)) as usize);
            let bar = format!("{label:LABEL$} [{cells:room$}]", room = CELLS as usize);
            let full = format!("{bar} {:>10}{GAP}{words}", ByteSize(*acknowledged).to_string());
            if full.len() <= width { full } else { format!("{bar}{GAP}{words}") }
        }
        _ => {
            let percent = size.map_or(String::new(), |size| format!("{} %", share(*acknowledged, size, 100)));
            fit(vec![format!("{label:LABEL$}"), format!("{percent:>5}"), words], width)
        }
    }
}

/// Returns how many of `of` equal shares of the whole a part is.
fn share(part: u64, whole: u64, of: u64) -> u64 {
    let shares = u128::from(part) * u128::from(of) / u128::from(whole.max(1));
    u64::try_from(shares).unwrap_or(of).min(of)
}

/// Writes a duration in its two largest units.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use longshore::event::Event;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn track(start: Instant) -> Track {
        let mut track = Track::default();
        let mut hear = |event: Event| track.hear(&event, start);
        for (name, offset) in [("1", 0), ("2", 300 * MIB), ("3", 1100 * MIB)] {
            let blob = name.repeat(64);
            hear(Event::Sent { blob: blob.clone(), bytes: offset });
            hear(Event::Acknowledged { blob, offset, size: Some(1200 * MIB) });
        }
        hear(Event::Encoded { blob: "layers/4.tar".into(), plain: 5 * MIB, encoded: 2 * MIB });
        let (pause, why) =
            (Duration::from_millis(11_500), "the registry answered 429 Too Many Requests".into());
        hear(Event::Waiting { blob: "5".repeat(64), pause, why });
        track
    }

    fn shown(columns: usize, lines: usize) -> String {
        let start = Instant::now();
        rows(&track(start), columns, lines, start + BRIEF).join("\n")
    }

    #[test]
    fn rows_fit_their_width() {
        insta::assert_snapshot!(shown(120, 24), @r"
        1111111111 [       ]        0 B  sending
        2222222222 [=      ]  300.0 MiB  sending
        3333333333 [====== ]    1.1 GiB  sending
        4.tar      [       ]        0 B  encoding
        5555555555  waiting 12 s: the registry answered 429 Too
        0/5  1.4 GiB of ~3.5 GiB  1.1 GiB/s  2 s left
        ");
        insta::assert_snapshot!(shown(80, 24), @r"
        1111111111 [       ]        0 B  sending
        2222222222 [=      ]  300.0 MiB  sending
        3333333333 [====== ]    1.1 GiB  sending
        4.tar      [       ]  encoding
        5555555555  waiting 12 s: the registry a
        0/5  ~38 %  1.1 GiB/s  2 s left
        ");
        insta::assert_snapshot!(shown(60, 24), @r"
        1111111111    0 %  sending
        2222222222   25 %  sending
        3333333333   91 %  sending
        4.tar              encoding
        5555555555  waiting 12 s: the
        0/5  ~38 %  1.1 GiB/s
        ");
        insta::assert_snapshot!(shown(16, 24), @r"
        11111111
        22222222
        33333333
        4.tar
        55555555
        0/5
        ");
        for columns in 1..200 {
            for row in shown(columns, 24).lines() {
                assert!(row.len() <= (columns / 2).clamp(1, WIDEST), "{columns}: {row}");
            }
        }
    }

    #[test]
    fn what_has_no_room_is_counted() {
        insta::assert_snapshot!(shown(80, 6), @r"
        1111111111 [       ]        0 B  sending
        2222222222 [=      ]  300.0 MiB  sending
        and 3 more
        0/5  ~38 %  1.1 GiB/s  2 s left
        ");
        insta::assert_snapshot!(shown(80, 1), @r"
        and 5 more
        0/5  ~38 %  1.1 GiB/s  2 s left
        ");
    }

    #[test]
    fn nothing_is_shown_of_nothing() {
        assert_eq!(rows(&Track::default(), 80, 24, Instant::now()), [""; 0]);
    }

    #[test]
    fn spans_have_two_units() {
        for (seconds, expected) in [(0, "0 s"), (59, "59 s"), (100, "1 min 40 s"), (7380, "2 h 3 min")] {
            assert_eq!(span(Duration::from_secs(seconds)), expected);
        }
    }
}
