//! What lessons are kept from process to process: one small file per host in the state folder.
//!
//! A limit that a registry has told is believed for two weeks, since proxies are mended; one that
//! only broken connections speak for, and a speed, for a day. Losing all of it costs a refused chunk.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::host_files::HostFiles;
pub use super::lesson::Lesson;
use crate::error::{Result, chain};

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
        let _one_at_a_time = ADDING.lock();
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
    use crate::registry::hosts::lesson::LESSON;

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
}
