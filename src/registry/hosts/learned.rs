//! What pushes teach about a host: how large a body it takes, how fast its line is.
//!
//! A [`Lesson`] is carried from blob to blob, and by [`Learned`] from process to process: one small file per host
//! in the state folder. A limit that a registry has told is believed for two weeks, since proxies are mended; one that
//! only broken connections speak for, and a speed, for a day. Losing all of it costs a refused chunk.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::host_files::HostFiles;
use crate::error::{Result, chain};

/// What a push has found out about a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Lesson {
    /// The largest body it takes, once it has refused a larger one.
    pub body_limit: Option<u64>,
    /// The smallest body that was refused without a word of how large one may be, if this process has met with one:
    /// then the limit is a guess.
    #[serde(skip)]
    pub refused: Option<u64>,
    /// The largest body it takes, it seems: connections broke with a larger one at the same place or after the same
    /// time, more than once, and this one went through.
    pub seeming_limit: Option<u64>,
    /// The same by less good evidence, for this process alone.
    #[serde(skip)]
    pub bearable: Option<u64>,
    /// It refused a chunk of another size than the one before.
    pub equal_parts: bool,
    /// It refused a blob in one PUT, and took it in PATCHes.
    #[serde(skip)]
    pub refuses_whole: bool,
    /// Bytes per second of one upload.
    pub rate: Option<u64>,
    /// The shortest time in which a request without a body was answered, in microseconds.
    pub round_trip: Option<u64>,
    /// The largest chunk that this process got through.
    #[serde(skip)]
    pub largest_taken: u64,
}

impl Lesson {
    /// Returns what is known from both: what is newer counts for speed, what is stricter for limits. What a larger
    /// body went through is none: connections that break by chance look like one. A limit that was guessed too low is as
    /// large as that body.
    #[must_use]
    pub fn and(self, newer: Self) -> Self {
        let stricter = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        let largest_taken = self.largest_taken.max(newer.largest_taken);
        let limit = |a, b| stricter(a, b).filter(|limit| largest_taken <= *limit);
        let (refused, told) =
            (stricter(self.refused, newer.refused), stricter(self.body_limit, newer.body_limit));
        let guessed = told.and(refused).filter(|refused| largest_taken < *refused).map(|_| largest_taken);
        Self {
            body_limit: told.filter(|limit| largest_taken <= *limit).or(guessed),
            refused,
            seeming_limit: limit(self.seeming_limit, newer.seeming_limit),
            bearable: limit(self.bearable, newer.bearable),
            equal_parts: self.equal_parts || newer.equal_parts,
            refuses_whole: self.refuses_whole || newer.refuses_whole,
            rate: newer.rate.or(self.rate),
            round_trip: stricter(self.round_trip, newer.round_trip),
            largest_taken,
        }
    }

    /// What a registry has told.
    const fn limits(&self) -> (Option<u64>, bool) {
        (self.body_limit, self.equal_parts)
    }

    /// Returns the same for a line that carries at most so many bytes a second, since we want it so.
    #[must_use]
    pub fn no_faster(self, bytes_per_second: u64) -> Self {
        let most = bytes_per_second.max(1);
        Self { rate: Some(self.rate.map_or(most, |rate| rate.min(most))), ..self }
    }

    /// Takes note of how long a request took that carried nothing.
    pub(crate) fn answered(&mut self, elapsed: Duration) {
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).max(1);
        self.round_trip = Some(self.round_trip.map_or(micros, |known| known.min(micros)));
    }

    /// Takes note that a chunk went through, and how long that took, the answer to it included.
    pub(crate) fn took(&mut self, bytes: u64, elapsed: Duration) {
        let wait = Duration::from_micros(self.round_trip.unwrap_or(0)).min(elapsed / 2);
        let micros = elapsed.saturating_sub(wait).as_micros().max(1);
        self.largest_taken = self.largest_taken.max(bytes);
        // The little that is left of a blob takes as long as the registry does.
        if bytes < SAMPLE && elapsed < SAMPLE_TIME {
            return;
        }
        let rate = u128::from(bytes) * 1_000_000 / micros;
        self.rate = Some(u64::try_from(rate).unwrap_or(u64::MAX).max(1));
    }
}

/// A lesson as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The lesson, without what is too old.
    pub lesson: Lesson,
    /// For how much longer its limits are believed.
    pub limits_left: Duration,
    /// For how much longer the one is that only seems to be.
    pub seeming_left: Duration,
    /// For how much longer its speed is.
    pub speed_left: Duration,
}

/// The lessons of this machine's pushes, by host.
#[derive(Clone, Debug)]
pub struct Learned {
    files: HostFiles,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    /// Seconds since 1970.
    limits_at: u64,
    #[serde(default)]
    seeming_at: u64,
    speed_at: u64,
    #[serde(flatten)]
    lesson: Lesson,
}

impl Learned {
    /// Keeps lessons in `dir`, a folder of their own, which is made when there is one.
    pub fn new(dir: &Path) -> Self {
        Self { files: HostFiles::new(dir) }
    }

    /// Returns what is known about a host. What cannot be read is not known.
    pub fn lesson(&self, host: &str) -> Lesson {
        self.kept(host).map_or_else(Lesson::default, |kept| kept.lesson)
    }

    /// Returns what is known about a host, and for how much longer. What cannot be read is not known.
    pub fn kept(&self, host: &str) -> Option<Kept> {
        let Record { mut lesson, limits_at, seeming_at, speed_at } = self.read(host)?;
        // What is from the future was noted by a clock that was wrong: nobody knows how old it is.
        let left = |at: u64, lasts: Duration| {
            now().checked_sub(at).map_or(Duration::ZERO, |age| lasts.saturating_sub(Duration::from_secs(age)))
        };
        let (limits_left, speed_left) = (left(limits_at, LIMITS_LAST), left(speed_at, SPEED_LASTS));
        let seeming_left = left(seeming_at, SEEMING_LASTS);
        if limits_left.is_zero() {
            (lesson.body_limit, lesson.equal_parts) = (None, false);
        }
        if seeming_left.is_zero() {
            lesson.seeming_limit = None;
        }
        if speed_left.is_zero() {
            (lesson.rate, lesson.round_trip) = (None, None);
        }
        Some(Kept { lesson, limits_left, seeming_left, speed_left })
    }

    /// Remembers what a push has found out besides what is known: one that met with no limit has not looked for it.
    pub fn add(&self, host: &str, lesson: Lesson) {
        // Nothing is behind the lock that could be half done.
        let _one_at_a_time = ADDING.lock().unwrap_or_else(PoisonError::into_inner);
        self.teach(host, self.lesson(host).and(lesson));
    }

    /// Remembers what was found out instead of what is known. If that fails the next push finds it out again.
    pub fn teach(&self, host: &str, lesson: Lesson) {
        let known = self.lesson(host);
        let news = |new: Option<u64>, known: Option<u64>| match (new, known) {
            (Some(new), Some(known)) => new / 2 > known || known / 2 > new,
            (new, _) => new.is_some(),
        };
        if lesson.limits() == known.limits()
            && lesson.seeming_limit == known.seeming_limit
            && !news(lesson.rate, known.rate)
            && !news(lesson.round_trip, known.round_trip)
        {
            return;
        }
        if let Err(error) = self.write(host, lesson, known) {
            tracing::debug!("what was learned about `{host}` is not kept: {}", chain(&error));
        }
    }

    fn write(&self, host: &str, lesson: Lesson, known: Lesson) -> Result<()> {
        let (now, record) = (now(), self.read(host));
        // An old limit is no younger because it was met with again, unless it was forgotten.
        let since =
            |is_known: bool, at: fn(&Record) -> u64| record.as_ref().filter(|_| is_known).map_or(now, at);
        let limits_at = since(lesson.limits() == known.limits(), |record| record.limits_at);
        let seeming_at = since(lesson.seeming_limit == known.seeming_limit, |record| record.seeming_at);
        self.files.write(host, Record { limits_at, seeming_at, speed_at: now, lesson })
    }

    fn read(&self, host: &str) -> Option<Record> {
        self.files.read(host)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// So much, or what took so long, shows how fast a line is.
const SAMPLE: u64 = 256 << 10;
const SAMPLE_TIME: Duration = Duration::from_secs(1);
/// Pushes of one process run side by side.
static ADDING: Mutex<()> = Mutex::new(());
/// Proxies are reconfigured.
const LIMITS_LAST: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// Lines are mended sooner.
const SEEMING_LASTS: Duration = Duration::from_secs(24 * 60 * 60);
/// Machines move.
const SPEED_LASTS: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    const LESSON: Lesson = Lesson {
        body_limit: Some(10_000_000),
        refused: None,
        seeming_limit: Some(8_000_000),
        bearable: None,
        equal_parts: true,
        refuses_whole: false,
        rate: Some(1_000_000),
        round_trip: Some(50_000),
        largest_taken: 0,
    };

    #[test]
    fn a_lesson_outlives_its_process_and_is_its_hosts_alone() {
        let dir = tempfile::tempdir().unwrap();
        let learned = Learned::new(&dir.path().join("hosts"));
        assert_eq!(learned.lesson("a.example:5000"), Lesson::default());
        learned.teach("a.example:5000", LESSON);
        assert_eq!(Learned::new(&dir.path().join("hosts")).lesson("a.example:5000"), LESSON);
        for other in ["a.example", "a.example_5000", "../hosts/a.example:5000"] {
            assert_eq!(learned.lesson(other), Lesson::default(), "{other}");
        }
        fs_err::write(learned.files.path("a.example:5000"), "{").unwrap();
        assert_eq!(learned.lesson("a.example:5000"), Lesson::default());
    }

    #[test]
    fn who_met_with_no_limit_forgets_none() {
        let dir = tempfile::tempdir().unwrap();
        let learned = Learned::new(dir.path());
        learned.add("h", LESSON);
        learned.add("h", Lesson::default());
        assert_eq!(learned.lesson("h"), LESSON);
        learned.teach("h", Lesson::default());
        assert_eq!(learned.lesson("h"), Lesson::default());
    }

    #[test]
    fn what_one_of_two_knows_is_known() {
        let other = Lesson { refuses_whole: true, ..Lesson::default() };
        let both = Lesson { refuses_whole: true, ..LESSON };
        assert_eq!((LESSON.and(other), other.and(LESSON)), (both, both));
    }

    #[test]
    fn a_speed_is_news_when_it_has_doubled() {
        let dir = tempfile::tempdir().unwrap();
        let learned = Learned::new(dir.path());
        let speed = |rate, round_trip| Lesson { rate, round_trip, ..LESSON };
        for (taught, kept) in [
            (speed(Some(100), Some(100)), speed(Some(100), Some(100))),
            (speed(Some(150), Some(150)), speed(Some(100), Some(100))),
            (speed(Some(60), Some(60)), speed(Some(100), Some(100))),
            (speed(None, None), speed(Some(100), Some(100))),
            (speed(Some(202), Some(100)), speed(Some(202), Some(100))),
            (speed(Some(202), Some(202)), speed(Some(202), Some(202))),
            (speed(Some(100), Some(202)), speed(Some(100), Some(202))),
        ] {
            learned.teach("h", taught);
            assert_eq!(learned.lesson("h"), kept);
        }
    }

    #[test]
    fn a_line_is_no_faster_than_we_want_it() {
        for (most, rate) in [(2_000_000, 1_000_000), (500_000, 500_000), (0, 1)] {
            assert_eq!(LESSON.no_faster(most).rate, Some(rate));
        }
        assert_eq!(Lesson::default().no_faster(5).rate, Some(5));
    }

    #[test]
    fn what_a_larger_body_went_through_is_no_limit() {
        let dir = tempfile::tempdir().unwrap();
        let learned = Learned::new(dir.path());
        learned.add("h", LESSON);
        for (bytes, told, seeming) in [
            (8_000_000, LESSON.body_limit, LESSON.seeming_limit),
            (8_000_001, LESSON.body_limit, None),
            (10_000_000, LESSON.body_limit, None),
            (10_000_001, None, None),
        ] {
            let mut lesson = LESSON;
            lesson.took(bytes, Duration::from_secs(10));
            learned.add("h", lesson);
            for lesson in [LESSON.and(lesson), lesson.and(LESSON), learned.lesson("h")] {
                assert_eq!((lesson.body_limit, lesson.seeming_limit), (told, seeming));
            }
        }
    }

    #[test]
    fn what_is_old_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let learned = Learned::new(dir.path());
        let write = |limits_age: u64, speed_age: u64| {
            let (limits_at, speed_at) = (now() - limits_age, now() - speed_age);
            let record = Record { limits_at, seeming_at: limits_at, speed_at, lesson: LESSON };
            learned.files.write("h", record).unwrap();
        };
        let day = SPEED_LASTS.as_secs();
        write(13 * day, day + 10);
        let lesson = learned.lesson("h");
        assert_eq!((lesson.body_limit, lesson.seeming_limit, lesson.rate), (LESSON.body_limit, None, None));
        let kept = learned.kept("h").unwrap();
        assert!(kept.limits_left.as_secs().abs_diff(day) < 60 && kept.speed_left.is_zero(), "{kept:?}");
        // Taught again, the limit is no younger.
        learned.teach("h", LESSON);
        assert_eq!(learned.lesson("h"), LESSON);
        assert!(now() - learned.read("h").unwrap().limits_at >= 13 * day);
        write(15 * day, 0);
        let lesson = learned.lesson("h");
        assert_eq!((lesson.body_limit, lesson.equal_parts, lesson.rate), (None, false, LESSON.rate));
        // By a clock that was put back since, nobody knows how old it is.
        let later = now() + 30 * day;
        let record = Record { limits_at: later, seeming_at: later, speed_at: later, lesson: LESSON };
        learned.files.write("h", record).unwrap();
        assert_eq!(learned.lesson("h"), Lesson::default());
        // Met with anew after it was forgotten, it is.
        learned.add("h", LESSON);
        assert_eq!(learned.lesson("h"), LESSON);
    }

    #[test]
    fn the_wait_for_an_answer_is_no_part_of_the_speed() {
        let mut lesson = Lesson::default();
        lesson.answered(Duration::from_millis(300));
        lesson.answered(Duration::from_millis(200));
        lesson.answered(Duration::from_millis(250));
        lesson.took(10_000_000, Duration::from_millis(1200));
        assert_eq!((lesson.round_trip, lesson.rate), (Some(200_000), Some(10_000_000)));
        // Nor does the little that is left of a blob show any.
        lesson.took(3, Duration::from_millis(250));
        assert_eq!(lesson.rate, Some(10_000_000));
        lesson.took(100_000, Duration::from_secs(10));
        assert_eq!(lesson.rate.map(|rate| rate / 100), Some(102));
        // Who answers sooner than ever was half as fast as that, for all that is known.
        lesson.took(1_000_000, Duration::from_millis(200));
        assert_eq!(lesson.rate, Some(10_000_000));
        // Something goes through, and takes time.
        lesson.took(0, Duration::from_secs(10));
        lesson.answered(Duration::ZERO);
        assert_eq!((lesson.rate, lesson.round_trip), (Some(1), Some(1)));
    }
}
