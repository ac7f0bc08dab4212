//! What a person sees of a push while it runs, and what a program reads.

use std::process::{Command, Stdio};

use longshore::event::{Event, How};
use serde::Deserialize as _;
use serde_json::Value;

use crate::{
    support::{
        log::Log,
        longshore::{Longshore, Run},
        registry::{Fault, Registry, Route, Script},
        tmux::Terminal,
    },
    wire::image::Layout,
};

const CHUNK: usize = 64 << 10;
/// Three layers of three chunks; the config is the fourth blob.
const LAYERS: [usize; 3] = [3 * CHUNK - 100, 3 * CHUNK - 10, 3 * CHUNK - 1];

/// A registry that takes the first chunk of each layer, once all have come, and the others when it is told to.
fn slow() -> Registry {
    let until = |calls| Fault::Await { route: Route::Patch, calls };
    let held = Script::new().always(Route::Patch, until(usize::MAX));
    let first = 1..=LAYERS.len();
    Registry::start(first.fold(held, |script, call| script.on(Route::Patch, call, until(LAYERS.len()))))
}

fn arguments(layout: &Layout, registry: &Registry, more: &[&str]) -> Vec<String> {
    let (source, destination) = (layout.path().display().to_string(), format!("{}/demo:1", registry.host()));
    let chunk = format!("--chunk-size={CHUNK}");
    // What is held back is no stall, however long a busy machine takes to look at it.
    ["push", "--no-resume", "--timeout=10m", &chunk, &source, &destination]
        .iter()
        .chain(more)
        .map(ToString::to_string)
        .collect()
}

/// Returns what a layer's row begins with.
fn labels(layout: &Layout) -> Vec<String> {
    layout.blobs.iter().map(|digest| digest.hex()[..10].to_owned()).collect()
}

#[test]
fn a_terminal_that_changes_its_width_keeps_no_ghosts() {
    let (layout, registry, longshore) = (Layout::of(&LAYERS), slow(), Longshore::new());
    let labels = labels(&layout);
    let terminal = Terminal::run(110, 24, &longshore.prepare(arguments(&layout, &registry, &[])));
    let is_row = |line: &&String| labels.iter().any(|label| line.starts_with(label.as_str()));
    for (columns, row) in [
        (110, "[==     ]   64.0 KiB  sending"),
        (80, "[==     ]   64.0 KiB  sending"),
        (60, "   33 %  sending"),
        (110, "[==     ]   64.0 KiB  sending"),
        // As when a pane is split.
        (55, "   33 %  sending"),
        (28, ""),
        (80, "[==     ]   64.0 KiB  sending"),
        (40, "   33 %"),
        (110, "[==     ]   64.0 KiB  sending"),
    ] {
        terminal.resize(columns);
        // What was there before, and each row once, at the bottom. Only rows that were drawn for this width leave
        // half of it free, and may be wrapped by the next.
        terminal.until(|lines| {
            let rows = &lines[lines.len().saturating_sub(4)..];
            lines.first().is_some_and(|line| line == "before")
                && lines.iter().filter(is_row).count() == 3
                && rows.iter().filter(is_row).all(|line| line.ends_with(row))
                && rows.iter().all(|line| line.len() <= usize::from(columns) / 2)
                && lines.iter().filter(|line| line.starts_with("1/4")).count() == 1
                && rows.last().is_some_and(|line| line.starts_with("1/4  "))
                // The plan and the config that has arrived, which wrap where it is narrow.
                && (columns < 88 || lines.len() == 7)
        });
    }
    registry.release();
    let lines = terminal.until(|lines| lines.last().is_some_and(|line| line == "after 0"));
    let sent = lines.iter().filter(|line| line.starts_with("sent     sha256:")).count();
    assert_eq!(sent, 4, "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("sending") || line.starts_with("1/4")), "{lines:#?}");
    // Nothing else was written than that, the manifest and the result.
    assert_eq!(lines.len(), 1 + 1 + 4 + 1 + 1 + 1, "{lines:#?}");
}

#[test]
fn what_stands_above_is_left_alone_after_a_pause() {
    let (layout, registry, longshore) = (Layout::of(&LAYERS), slow(), Longshore::new());
    let push = longshore.prepare(arguments(&layout, &registry, &[]));
    let mut shell = Command::new("bash");
    // A shell that has jobs: Ctrl-Z stops the push, and what comes next is done.
    shell.args(["-c", "set -m; \"$@\"; printf 'one\\ntwo\\n'; read; fg >/dev/null", "bash"]);
    shell.arg(push.get_program()).args(push.get_args());
    shell.envs(push.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let terminal = Terminal::run(110, 40, &shell);
    let is_total = |line: &String| line.starts_with("1/4  ");
    let is_row = |line: &String| line.ends_with("64.0 KiB  sending");
    terminal.until(|lines| {
        lines.last().is_some_and(is_total) && lines.iter().filter(|line| is_row(line)).count() == 3
    });
    terminal.press("C-z");
    let above = terminal.until(|lines| lines.last().is_some_and(|line| line == "two"));
    terminal.press("Enter");
    let lines = terminal.until(|lines| lines.len() > above.len() && lines.last().is_some_and(is_total));
    assert_eq!(lines[..above.len()], above, "{lines:#?}");
    assert_eq!(lines[above.len()..].iter().filter(|line| is_row(line)).count(), 3, "{lines:#?}");
    registry.release();
    let lines = terminal.until(|lines| lines.last().is_some_and(|line| line == "after 0"));
    assert_eq!(lines[..above.len()], above, "{lines:#?}");
    assert!(!lines[above.len()..].iter().any(|line| is_row(line) || is_total(line)), "{lines:#?}");
}

#[test]
fn bars_count_down_a_pause_below_what_is_said() {
    let refusal = Fault::status(429).header("Retry-After", "100");
    let registry = Registry::start(Script::new().always(Route::Patch, refusal));
    let (layout, longshore) = (Layout::of(&LAYERS[..1]), Longshore::new());
    let command = longshore.prepare(arguments(&layout, &registry, &["-v"]));
    let terminal = Terminal::run(80, 24, &command);
    let label = &labels(&layout)[0];
    let waits = |line: &String| line.starts_with(&format!("{label}  waiting 1 min 3"));
    let lines = terminal.until(|lines| lines.iter().any(waits));
    // What -v says stands above the bars.
    assert!(lines.iter().any(|line| line.starts_with("again: ")), "{lines:#?}");
    assert!(lines.last().unwrap().contains("/2  "), "{lines:#?}");
}

#[test]
fn bars_are_gone_after_a_failure() {
    let refusal = Fault::Await { route: Route::Patch, calls: LAYERS.len() };
    let script =
        (1..=LAYERS.len()).fold(Script::new(), |script, call| script.on(Route::Patch, call, refusal.clone()));
    let registry = Registry::start(script.always(Route::ManifestPut, Fault::status(400)));
    let (layout, longshore) = (Layout::of(&LAYERS), Longshore::new());
    let terminal = Terminal::run(80, 40, &longshore.prepare(arguments(&layout, &registry, &[])));
    let lines = terminal.until(|lines| lines.last().is_some_and(|line| line == "after 5"));
    assert!(lines.iter().any(|line| line.starts_with("error: ")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("sending") || line.contains("/4  ")), "{lines:#?}");
}

#[test]
fn without_a_terminal_phases_are_plain_lines() {
    let (layout, registry, longshore) = (Layout::of(&LAYERS), slow(), Longshore::new());
    let mut command = longshore.prepare(arguments(&layout, &registry, &[]));
    let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let log = Log::follow(process.stderr.take().unwrap());
    let mut seen = Vec::new();
    let next = |seen: &mut Vec<String>, begin: &str| {
        log.find(|line| {
            seen.push(line.to_owned());
            line.starts_with(begin).then_some(())
        })
        .unwrap_or_else(|| panic!("`{begin}` is missing: {seen:#?}"));
    };
    for digest in &layout.blobs[..LAYERS.len()] {
        next(&mut seen, &format!("sending  {digest}"));
    }
    next(&mut seen, "1/4  192.3 KiB of 576.2 KiB");
    registry.release();
    assert!(process.wait().unwrap().success());
    next(&mut seen, "manifest sha256:");
    for line in &seen {
        assert!(!line.is_empty() && !line.contains(char::is_control), "{line:?}");
    }
}

#[test]
fn a_pause_is_told_and_quiet_is_quiet() {
    let refusal = || Fault::status(429).header("Retry-After", "1");
    for (more, expected) in [
        (&["--progress=plain"][..], "waiting 1s before going on with sha256:"),
        (&["--progress=none"], ""),
        (&["--progress=bars", "--quiet"], ""),
    ] {
        let registry = Registry::start(Script::new().on(Route::Patch, 1, refusal()));
        let layout = Layout::of(&LAYERS[..1]);
        let run = Longshore::new().run(arguments(&layout, &registry, more));
        run.pushed().unwrap();
        assert!(run.stderr.contains(expected) && run.stderr.is_empty() == expected.is_empty(), "{run:?}");
    }
}

#[test]
fn every_line_of_json_is_an_event_as_documented() {
    let script = Script::new().on(Route::Patch, 2, Fault::status(503));
    let (layout, registry) = (Layout::of(&LAYERS), Registry::start(script));
    let run = Longshore::new().run(arguments(&layout, &registry, &["--progress=json", "-vv"]));
    run.pushed().unwrap();
    let lines = json_lines(&run);
    let mut events = Vec::new();
    for mut line in lines {
        let at = line.as_object_mut().unwrap().remove("seconds").unwrap().as_f64().unwrap();
        assert!((0.0..=run.wall.as_secs_f64()).contains(&at), "{at}");
        if line["event"] == "log" {
            assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
            continue;
        }
        let event = Event::deserialize(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(serde_json::to_value(&event).unwrap(), line, "every field is part of the schema");
        events.push(event);
    }
    let count = |is: fn(&Event) -> bool| events.iter().filter(|event| is(event)).count();
    assert_eq!(count(|event| matches!(event, Event::Planned { upload: 4, .. })), 1);
    assert_eq!(count(|event| matches!(event, Event::Confirmed { how: How::Uploaded, .. })), 4);
    assert!(count(|event| matches!(event, Event::Waiting { .. })) > 0);
    assert_eq!(count(|event| matches!(event, Event::Manifest { .. })), 1);
    for digest in &layout.blobs[..LAYERS.len()] {
        let mut acknowledged = events.iter().filter_map(|event| match event {
            Event::Acknowledged { blob, offset, size } if *blob == digest.to_string() => {
                Some((*offset, *size))
            }
            _ => None,
        });
        let size = layout.read(digest).len() as u64;
        assert!(
            acknowledged.next_back().is_some_and(|last| last.0 <= size && last.1 == Some(size)),
            "{events:?}"
        );
    }
}

#[test]
fn json_says_why_it_failed() {
    let registry = Registry::start(Script::new().always(Route::ManifestPut, Fault::status(400)));
    let layout = Layout::of(&[10]);
    let run = Longshore::new().run(arguments(&layout, &registry, &["--progress=json"]));
    assert_eq!(run.code, Some(5), "{run:?}");
    let failed = json_lines(&run).pop().unwrap();
    assert_eq!((&failed["event"], &failed["exitCode"]), (&"failed".into(), &5.into()));
    assert!(failed["message"].is_string() && failed["causes"].is_array() && failed["hints"].is_array());
}

#[test]
fn json_says_that_a_signal_ended_it() {
    let (layout, registry, longshore) = (Layout::of(&LAYERS), slow(), Longshore::new());
    let running = longshore.start(arguments(&layout, &registry, &["--progress=json"]));
    registry.wait_for(Route::Patch, LAYERS.len());
    running.interrupt();
    let run = running.finish();
    assert_eq!(run.code, Some(130), "{run:?}");
    assert_eq!(json_lines(&run).pop().unwrap()["event"], "interrupted");
}

fn json_lines(run: &Run) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    run.stderr.lines().map(parse).collect()
}
