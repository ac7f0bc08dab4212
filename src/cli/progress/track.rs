//! What a push has done so far, in numbers that hold: bytes count when the registry has acknowledged them.
//!
//! Fed with events; knows no terminal and has no clock. Speed is what left this machine lately, repeats included.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use longshore::event::{Event, How, PlannedBlob, Todo};

/// Speed is measured over so long.
const WINDOW: Duration = Duration::from_secs(10);
/// What left in so short a time is counted together.
const BUCKET: Duration = Duration::from_millis(250);
/// A layer whose encoder was heard of so lately is still being encoded, whatever else happens to it.
const FRESH: Duration = Duration::from_secs(1);

/// What is known of the blobs of one push to one repository.
#[derive(Debug, Default)]
pub(super) struct Track {
    blobs: HashMap<String, Blob>,
    /// In the order in which they were first heard of.
    order: Vec<String>,
    speed: Speed,
}

/// A blob on its way.
#[derive(Clone, Debug)]
pub(super) struct Blob {
    /// What it is called on one short line.
    pub(super) label: String,
    /// Its size at the registry, once known.
    pub(super) size: Option<u64>,
    /// The registry has so many bytes of it.
    pub(super) acknowledged: u64,
    source_size: Option<u64>,
    plain: u64,
    encoded: u64,
    made: Option<Instant>,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Planned,
    Busy {
        phase: Phase,
        since: Instant,
    },
    Sent,
    /// It was there, or is no business of ours.
    Settled,
}

/// What is being done to a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// All bytes are acknowledged; the registry has yet to confirm the blob.
    Closing,
    /// It is encoded, and sent as far as that has come.
    Encoding {
        /// In percent of its source, if that is known.
        percent: Option<u64>,
    },
    Hashing,
    Sending,
    Waiting {
        until: Instant,
        why: String,
    },
    /// A file of ours.
    Writing,
}

/// All blobs together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Total {
    /// So many blobs need nothing more.
    pub(super) done: usize,
    /// Of so many.
    pub(super) blobs: usize,
    pub(super) acknowledged: u64,
    /// Bytes to be acknowledged in the end, as far as anybody can tell.
    pub(super) size: u64,
    /// Some layers are still to be encoded: the size is what they will probably have.
    pub(super) estimated: bool,
    /// Bytes per second that leave.
    pub(super) speed: u64,
    pub(super) left: Option<Duration>,
}

#[derive(Debug, Default)]
struct Speed {
    /// The counter of the current upload.
    counted: u64,
    buckets: VecDeque<(Instant, u64)>,
    began: Option<Instant>,
}

impl Track {
    /// Takes note of an event.
    pub(super) fn hear(&mut self, event: &Event, now: Instant) {
        match event {
            Event::Planned { blobs, .. } => self.begin(blobs),
            Event::Hashed { blob, .. } => {
                let blob = self.busy(blob, Phase::Hashing, now);
                blob.made = Some(now);
            }
            Event::Encoded { blob, plain, encoded } => {
                let blob = self.busy(blob, Phase::Encoding { percent: None }, now);
                (blob.plain, blob.encoded, blob.made) = (*plain, *encoded, Some(now));
            }
            Event::Sent { blob, bytes } => {
                self.speed.count(*bytes, now);
                self.sending(blob, now);
            }
            Event::Acknowledged { blob, offset, size } => {
                let blob = self.sending(blob, now);
                (blob.acknowledged, blob.size) = (*offset, size.or(blob.size));
            }
            Event::Written { file, bytes, size } => {
                self.speed.count(*bytes, now);
                let file = self.busy(file, Phase::Writing, now);
                (file.acknowledged, file.size) = (*bytes, Some(*size));
            }
            Event::Waiting { blob, pause, why } => {
                self.busy(blob, Phase::Waiting { until: now + *pause, why: why.clone() }, now);
            }
            Event::Confirmed { blob, how, size, .. } => {
                let blob = self.known(blob);
                blob.size = Some(*size);
                (blob.acknowledged, blob.state) = match how {
                    How::Uploaded => (*size, State::Sent),
                    _ => (0, State::Settled),
                };
            }
            _ => {}
        }
    }

    /// Lists the blobs that something is being done to, and what.
    pub(super) fn in_flight(&self, now: Instant) -> impl Iterator<Item = (&str, &Blob, Phase)> {
        self.order.iter().filter_map(move |name| {
            let blob = self.blobs.get(name)?;
            Some((name.as_str(), blob, blob.phase(now)?))
        })
    }

    /// Sums up.
    pub(super) fn total(&self, now: Instant) -> Total {
        let mut total = Total { blobs: self.blobs.len(), speed: self.speed.at(now), ..Total::default() };
        let (plain, encoded) = self
            .blobs
            .values()
            .fold((0, 0), |(plain, encoded), blob| (plain + blob.plain, encoded + blob.encoded));
        for blob in self.blobs.values() {
            total.done += usize::from(matches!(blob.state, State::Sent | State::Settled));
            if blob.state == State::Settled {
                continue;
            }
            total.acknowledged += blob.acknowledged;
            total.size = total.size.saturating_add(blob.size.unwrap_or_else(|| {
                total.estimated = true;
                let source = blob.source_size.unwrap_or(0).max(blob.plain);
                // Until something was encoded, nothing is known of how much smaller it gets.
                let guess = u128::from(source) * u128::from(encoded) / u128::from(plain.max(1));
                let guess = if plain == 0 { source } else { u64::try_from(guess).unwrap_or(u64::MAX) };
                guess.max(blob.acknowledged)
            }));
        }
        let missing = total.size - total.acknowledged.min(total.size);
        let seconds = missing.checked_div(total.speed);
        total.left = seconds.filter(|_| missing > 0).map(Duration::from_secs);
        total
    }

    fn begin(&mut self, planned: &[PlannedBlob]) {
        self.blobs.clear();
        self.order.clear();
        for planned in planned.iter().filter(|planned| planned.step != Todo::Leave) {
            let blob = self.known(&planned.blob);
            (blob.size, blob.source_size) = (planned.size, planned.source_size);
            if matches!(planned.step, Todo::Check | Todo::Present | Todo::Reuse) {
                blob.state = State::Settled;
            }
        }
    }

    fn known(&mut self, name: &str) -> &mut Blob {
        if !self.blobs.contains_key(name) {
            self.order.push(name.to_owned());
        }
        self.blobs.entry(name.to_owned()).or_insert_with(|| Blob {
            label: label(name),
            size: None,
            acknowledged: 0,
            source_size: None,
            plain: 0,
            encoded: 0,
            made: None,
            state: State::Planned,
        })
    }

    fn busy(&mut self, name: &str, phase: Phase, now: Instant) -> &mut Blob {
        let blob = self.known(name);
        let since = if let State::Busy { since, .. } = blob.state { since } else { now };
        blob.state = State::Busy { phase, since };
        blob
    }

    /// An upload follows the encoder: while that is at work, it is what there is to say.
    fn sending(&mut self, name: &str, now: Instant) -> &mut Blob {
        let phase = match self.known(name).phase(now) {
            Some(phase @ (Phase::Encoding { .. } | Phase::Hashing)) => phase,
            _ => Phase::Sending,
        };
        self.busy(name, phase, now)
    }
}

impl Blob {
    /// Returns since when something is being done to it.
    pub(super) fn since(&self) -> Option<Instant> {
        if let State::Busy { since, .. } = self.state { Some(since) } else { None }
    }

    fn phase(&self, now: Instant) -> Option<Phase> {
        let State::Busy { phase, .. } = &self.state else { return None };
        let fresh = self.made.is_some_and(|made| now.saturating_duration_since(made) < FRESH);
        Some(match phase {
            Phase::Waiting { until, .. } if *until > now => phase.clone(),
            Phase::Writing => Phase::Writing,
            _ if self.size.is_some_and(|size| self.acknowledged >= size && size > 0) => Phase::Closing,
            Phase::Encoding { .. } if fresh => {
                let of = |source: u64| (self.plain * 100 / source.max(1)).min(100);
                Phase::Encoding { percent: self.source_size.map(of) }
            }
            Phase::Hashing if fresh => Phase::Hashing,
            _ => Phase::Sending,
        })
    }
}

impl Speed {
    fn count(&mut self, counter: u64, now: Instant) {
        // Each destination counts from nothing.
        let bytes = counter.checked_sub(self.counted).unwrap_or(counter);
        self.counted = counter;
        self.began.get_or_insert(now);
        match self.buckets.back_mut() {
            Some((start, sum)) if now.saturating_duration_since(*start) < BUCKET => *sum += bytes,
            _ => self.buckets.push_back((now, bytes)),
        }
        while self.buckets.front().is_some_and(|(start, _)| now.saturating_duration_since(*start) > WINDOW) {
            self.buckets.pop_front();
        }
    }

    fn at(&self, now: Instant) -> u64 {
        let Some(began) = self.began else { return 0 };
        let recent = self.buckets.iter().filter(|(start, _)| now.saturating_duration_since(*start) <= WINDOW);
        let bytes: u64 = recent.map(|(_, bytes)| bytes).sum();
        let span = now.saturating_duration_since(began).clamp(Duration::from_secs(1), WINDOW);
        u64::try_from(u128::from(bytes) * 1000 / span.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Returns what a blob is called on one short line: the beginning of a digest in its name, or the end of its last part.
fn label(name: &str) -> String {
    let runs = name.split(|c: char| !c.is_ascii_hexdigit());
    if let Some(hex) = runs.filter(|run| run.len() >= 32).max_by_key(|run| run.len()) {
        return hex[..LABEL].to_owned();
    }
    let last = name.rsplit('/').find(|part| !part.is_empty()).unwrap_or(name);
    let graphic: Vec<char> = last.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect();
    graphic[graphic.len().saturating_sub(LABEL)..].iter().collect()
}

/// Columns of a label.
pub(super) const LABEL: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn planned(blob: &str, step: &str, size: Option<u64>, source_size: Option<u64>) -> PlannedBlob {
        let json = serde_json::json!({
            "blob": blob, "digest": null, "size": size, "sourceSize": source_size, "step": step,
            "encoding": null, "from": null,
        });
        serde_json::from_value(json).unwrap()
    }

    fn plan(blobs: Vec<PlannedBlob>) -> Event {
        Event::Planned { present: 0, reuse: 0, fetch: 0, mount: 0, upload: 0, transcode: 0, bytes: 0, blobs }
    }

    fn confirmed(blob: &str, how: How, size: u64) -> Event {
        Event::Confirmed { blob: blob.into(), digest: "sha256:d".into(), how, size }
    }

    fn phases(track: &Track, now: Instant) -> Vec<(&str, Phase)> {
        track.in_flight(now).map(|(name, _, phase)| (name, phase)).collect()
    }

    #[test]
    fn a_file_grows_until_it_is_whole() {
        let (mut track, start) = (Track::default(), Instant::now());
        for (second, bytes) in [(1, 10 * MIB), (2, 40 * MIB)] {
            let written = Event::Written { file: "b.tar".into(), bytes, size: 100 * MIB };
            track.hear(&written, start + Duration::from_secs(second));
        }
        let now = start + Duration::from_secs(3);
        assert_eq!(phases(&track, now), [("b.tar", Phase::Writing)]);
        let total = track.total(now);
        assert_eq!((total.acknowledged, total.size, total.speed), (40 * MIB, 100 * MIB, 20 * MIB));
    }

    #[test]
    fn only_what_is_acknowledged_counts() {
        let (mut track, start) = (Track::default(), Instant::now());
        let blobs = vec![
            planned("a", "send", Some(100 * MIB), None),
            planned("b", "present", Some(7), None),
            planned("c", "mount", Some(50 * MIB), None),
        ];
        track.hear(&plan(blobs), start);
        let seconds = |n| start + Duration::from_secs(n);
        for n in 1..=4 {
            track.hear(&Event::Sent { blob: "a".into(), bytes: n * 10 * MIB }, seconds(n));
        }
        let total = track.total(seconds(5));
        assert_eq!((total.done, total.blobs, total.acknowledged, total.size), (1, 3, 0, 150 * MIB));
        assert_eq!(total.speed, 10 * MIB);
        assert_eq!(total.left, Some(Duration::from_secs(15)));
        track.hear(
            &Event::Acknowledged { blob: "a".into(), offset: 40 * MIB, size: Some(100 * MIB) },
            seconds(5),
        );
        assert_eq!(track.total(seconds(5)).acknowledged, 40 * MIB);
        // A session was lost.
        track.hear(&Event::Acknowledged { blob: "a".into(), offset: 0, size: Some(100 * MIB) }, seconds(6));
        assert_eq!(track.total(seconds(6)).acknowledged, 0);
        track.hear(&confirmed("c", How::Mounted, 50 * MIB), seconds(6));
        track.hear(&confirmed("a", How::Uploaded, 100 * MIB), seconds(7));
        let total = track.total(seconds(30));
        assert_eq!((total.done, total.acknowledged, total.size), (3, 100 * MIB, 100 * MIB));
        assert_eq!((total.speed, total.left), (0, None), "nothing has left for a long time");
    }

    #[test]
    fn a_layer_that_is_encoded_is_estimated_by_what_was_encoded() {
        let (mut track, now) = (Track::default(), Instant::now());
        let blobs = vec![planned("a", "encode", None, Some(80)), planned("b", "encode", None, Some(20))];
        track.hear(&plan(blobs), now);
        assert_eq!(track.total(now).size, 100);
        track.hear(&Event::Encoded { blob: "a".into(), plain: 40, encoded: 10 }, now);
        let total = track.total(now);
        assert_eq!((total.size, total.estimated), (25, true));
        assert_eq!(phases(&track, now), [("a", Phase::Encoding { percent: Some(50) })]);
        track.hear(&confirmed("a", How::Uploaded, 21), now);
        track.hear(&confirmed("b", How::Uploaded, 4), now);
        assert_eq!((track.total(now).size, track.total(now).estimated), (25, false));
    }

    #[test]
    fn each_phase_is_told_while_it_lasts() {
        let (mut track, start) = (Track::default(), Instant::now());
        let later = |millis| start + Duration::from_millis(millis);
        let sent = Event::Sent { blob: "a".into(), bytes: 1 };
        track.hear(&Event::Hashed { blob: "a".into(), bytes: 5 }, start);
        track.hear(&sent, later(500));
        assert_eq!(phases(&track, later(900)), [("a", Phase::Hashing)]);
        track.hear(&sent, later(1100));
        assert_eq!(phases(&track, later(1100)), [("a", Phase::Sending)]);
        let (pause, why) = (Duration::from_secs(12), "rate limited".to_owned());
        track.hear(&Event::Waiting { blob: "a".into(), pause, why: why.clone() }, later(1200));
        assert_eq!(phases(&track, later(1300)), [("a", Phase::Waiting { until: later(13200), why })]);
        assert_eq!(phases(&track, later(14000)), [("a", Phase::Sending)], "the pause is over");
        track.hear(&Event::Acknowledged { blob: "a".into(), offset: 9, size: Some(9) }, later(14000));
        assert_eq!(phases(&track, later(14000)), [("a", Phase::Closing)]);
        track.hear(&confirmed("a", How::Uploaded, 9), later(14100));
        assert_eq!(phases(&track, later(14100)), []);
    }

    #[test]
    fn another_destination_begins_anew() {
        let (mut track, now) = (Track::default(), Instant::now());
        track.hear(&plan(vec![planned("a", "send", Some(9), None)]), now);
        track.hear(&Event::Sent { blob: "a".into(), bytes: 9 }, now);
        track.hear(&confirmed("a", How::Uploaded, 9), now);
        track.hear(&plan(vec![planned("a", "send", Some(9), None)]), now);
        track.hear(&Event::Sent { blob: "a".into(), bytes: 4 }, now);
        let total = track.total(now + Duration::from_secs(1));
        assert_eq!((total.done, total.acknowledged, total.speed), (0, 0, 13));
    }

    #[test]
    fn labels_are_short_and_harmless() {
        let hex = "0123456789abcdef".repeat(4);
        for (name, expected) in [
            (format!("sha256:{hex}"), "0123456789"),
            (format!("{hex}/layer.tar"), "0123456789"),
            ("layers/3/rootfs.tar".to_owned(), "rootfs.tar"),
            ("a\u{1b}[2J".to_owned(), "a?[2J"),
        ] {
            assert_eq!(label(&name), expected);
        }
    }
}
