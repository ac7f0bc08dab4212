//! What is said in passing, a line at a time: above the bars where there are some, and instead of them where not.

use std::{
    collections::{HashMap, HashSet},
    fmt, mem,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use longshore::{
    error::counted,
    event::{Event, How, Reporter},
};
use parking_lot::Mutex;

use super::{
    rows::{rows, summary, words},
    screen::{self, Screen},
    track::{Phase, Track},
};
use crate::cli::{
    output::{self, Printer},
    report::dry_run::sum,
};

/// Bars are drawn so often a second.
const HZ: u8 = 10;
/// Plain lines look for a change of phase so often.
const LOOK: Duration = Duration::from_secs(1);
/// So many looks pass between two lines about everything.
const LOOKS: u32 = 5;
/// A shorter pause is nobody's business.
const NOTABLE: Duration = Duration::from_millis(500);

/// Turns events into lines.
pub(super) struct Lines {
    printer: Printer,
    track: Arc<Mutex<Track>>,
    /// What was warned of already: six blobs may meet the same trouble.
    warned: Mutex<HashSet<String>>,
    beside: Mutex<Beside>,
}

/// What goes on beside the lines.
enum Beside {
    Bars(ProgressBar),
    /// Ends when the sender is dropped.
    Ticker(mpsc::Sender<()>, thread::JoinHandle<()>),
    Nothing,
}

impl Lines {
    /// Creates a reporter that shows bars and says above them what is done.
    pub(super) fn with_bars(printer: Printer) -> Self {
        let track = Arc::default();
        let bars = bars(Arc::clone(&track));
        output::keep_below(Some(bars.clone()));
        Self::new(printer, track, Beside::Bars(bars))
    }

    /// Creates a reporter that says every few seconds how far everything is, and in what phase each blob.
    pub(super) fn plain(printer: Printer) -> Self {
        let track: Arc<Mutex<Track>> = Arc::default();
        let (sender, ended) = mpsc::channel();
        let seen = Arc::clone(&track);
        let ticker = thread::Builder::new().name("progress".to_owned());
        let beside = match ticker.spawn(move || tick(printer, &seen, &ended)) {
            Ok(ticker) => Beside::Ticker(sender, ticker),
            // The lines themselves say enough.
            Err(_) => Beside::Nothing,
        };
        Self::new(printer, track, beside)
    }

    /// Creates a reporter that only warns.
    pub(super) fn warnings_only(printer: Printer) -> Self {
        Self::new(printer.quiet(), Arc::default(), Beside::Nothing)
    }

    fn new(printer: Printer, track: Arc<Mutex<Track>>, beside: Beside) -> Self {
        Self { printer, track, warned: Mutex::default(), beside: Mutex::new(beside) }
    }

    /// Takes the bars away.
    pub(super) fn end(&self) {
        match mem::replace(&mut *self.beside.lock(), Beside::Nothing) {
            Beside::Bars(bars) => {
                output::keep_below(None);
                bars.finish_and_clear();
            }
            Beside::Ticker(sender, ticker) => {
                drop(sender);
                // It has nothing left to say.
                ticker.join().unwrap_or_default();
            }
            Beside::Nothing => {}
        }
    }

    fn has_bars(&self) -> bool {
        matches!(*self.beside.lock(), Beside::Bars(_))
    }

    fn warn(&self, message: &str) {
        if self.warned.lock().insert(message.to_owned()) {
            self.printer.warning(message);
        }
    }

    fn waiting(&self, blob: &str, pause: Duration, why: &str) {
        // The bars say it, and count down.
        if pause < NOTABLE || self.has_bars() {
            self.printer.detail(&format!("again: {blob}: {why}"));
        } else {
            let pause = humantime::format_duration(Duration::from_secs(pause.as_secs().max(1)));
            self.printer.status(&format!("waiting {pause} before going on with {blob}: {why}"));
        }
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").finish_non_exhaustive()
    }
}

impl Reporter for Lines {
    fn event(&self, event: Event) {
        // Not held while something is printed: the bars want it then.
        self.track.lock().hear(&event, Instant::now());
        match event {
            Event::Planned { reuse, blobs, .. } => {
                self.printer.status(&format!("blobs: {}", sum(&blobs)));
                if reuse > 0 {
                    let layers = counted(reuse, "layer");
                    self.printer.status(&format!("reused {layers} of the image that is there"));
                }
            }
            Event::Confirmed { digest, how, size, .. } => {
                let how = match how {
                    How::Mounted => "mounted",
                    How::Present => "present",
                    How::Reused => "reused",
                    _ => "sent",
                };
                self.printer.status(&format!("{how:8} {digest} {}", ByteSize(size)));
            }
            Event::Manifest { reference, digest } => {
                self.printer.status(&format!("manifest {digest} as `{reference}`"));
            }
            Event::Waiting { blob, pause, why } => self.waiting(&blob, pause, &why),
            Event::Warning { message } => self.warn(&message),
            Event::Acknowledged { blob, offset, size } => {
                let of = size.map_or_else(String::new, |size| format!(" of {}", ByteSize(size)));
                self.printer.detail(&format!("{blob}: {}{of} acknowledged", ByteSize(offset)));
            }
            _ => {}
        }
    }
}

/// Draws what is in flight, again and again.
fn bars(track: Arc<Mutex<Track>>) -> ProgressBar {
    let draw = move |_: &ProgressState, to: &mut dyn fmt::Write| {
        let (columns, lines) = screen::size();
        let rows = rows(&track.lock(), usize::from(columns), usize::from(lines), Instant::now());
        // Nobody hears of what cannot be drawn.
        to.write_str(&rows.join("\n")).unwrap_or_default();
    };
    let target = ProgressDrawTarget::term_like_with_hz(Box::new(Screen::new()), HZ);
    let bars = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template("{rows}") {
        bars.set_style(style.with_key("rows", draw));
    }
    bars.enable_steady_tick(Duration::from_secs(1) / u32::from(HZ));
    bars
}

/// Tells of phases that last, and every few seconds of everything.
fn tick(printer: Printer, track: &Mutex<Track>, ended: &mpsc::Receiver<()>) {
    let mut told: HashMap<String, mem::Discriminant<Phase>> = HashMap::new();
    let mut looks = 0;
    while let Err(mpsc::RecvTimeoutError::Timeout) = ended.recv_timeout(LOOK) {
        looks += 1;
        let lines = news(&track.lock(), &mut told, looks % LOOKS == 0, Instant::now());
        for line in lines {
            printer.status(&line);
        }
    }
}

/// Returns what a look finds that was not told of yet, and everything together if that is wanted.
fn news(
    track: &Track,
    told: &mut HashMap<String, mem::Discriminant<Phase>>,
    summed_up: bool,
    now: Instant,
) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, _, phase) in track.in_flight(now) {
        let kind = mem::discriminant(&phase);
        let is_new = told.insert(name.to_owned(), kind) != Some(kind);
        // Pauses are told of when they begin.
        if is_new && !matches!(phase, Phase::Waiting { .. }) {
            lines.push(format!("{:8} {name}", words(&phase, now)));
        }
    }
    // Before anything is planned there is nothing to sum up.
    let total = Some(track.total(now)).filter(|total| summed_up && total.blobs > 0);
    lines.extend(total.map(|total| summary(&total, usize::MAX)));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_summed_up_before_it_is_planned() {
        let (mut track, now) = (Track::default(), Instant::now());
        let look = |track: &Track, summed_up| news(track, &mut HashMap::new(), summed_up, now);
        assert_eq!(look(&track, true), [""; 0]);
        let blob = serde_json::json!({
            "blob": "a", "digest": null, "size": 5, "sourceSize": null, "step": "send", "encoding": null,
            "from": null,
        });
        let blobs = vec![serde_json::from_value(blob).unwrap()];
        let (present, upload, bytes) = (0, 1, 5);
        let planned =
            Event::Planned { present, reuse: 0, fetch: 0, mount: 0, upload, transcode: 0, bytes, blobs };
        track.hear(&planned, now);
        assert_eq!(look(&track, true), ["0/1  0 B of 5 B"]);
        assert_eq!(look(&track, false), [""; 0]);
    }
}
