//! What pushes teach about a host: how large a body it takes, how fast its line is.
//!
//! A lesson is carried from blob to blob, and by [`Learned`](super::Learned) from process to process. What two pushes
//! have learned is one lesson, whichever was first.

use std::time::Duration;

use serde::{Deserialize, Serialize};

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

    /// Takes over the limits that others have met: they hold here too, unless a larger body went through.
    pub(crate) fn hear(&mut self, others: Self) {
        let unless_passed = |limit: Option<u64>| limit.filter(|limit| self.largest_taken <= *limit);
        self.body_limit = stricter(self.body_limit, unless_passed(others.body_limit));
        self.seeming_limit = stricter(self.seeming_limit, unless_passed(others.seeming_limit));
        self.bearable = stricter(self.bearable, unless_passed(others.bearable));
    }

    /// What a registry has told.
    pub(super) const fn limits(&self) -> (Option<u64>, bool) {
        (self.body_limit, self.equal_parts)
    }

    /// Returns the same for a line that carries at most so many bytes a second, since we want it so.
    #[must_use]
    pub fn no_faster(self, bytes_per_second: u64) -> Self {
        let most = bytes_per_second.max(1);
        Self { rate: stricter(self.rate, most), ..self }
    }

    /// Takes note of how long a request took that carried nothing.
    pub(crate) fn answered(&mut self, elapsed: Duration) {
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).max(1);
        self.round_trip = stricter(self.round_trip, micros);
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

/// Returns the smaller of two limits, as far as there are any.
pub(crate) fn stricter(known: Option<u64>, other: impl Into<Option<u64>>) -> Option<u64> {
    known.into_iter().chain(other.into()).min()
}

/// So much, or what took so long, shows how fast a line is.
const SAMPLE: u64 = 256 << 10;
const SAMPLE_TIME: Duration = Duration::from_secs(1);

#[cfg(test)]
pub(super) const LESSON: Lesson = Lesson {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_of_two_knows_is_known() {
        let other = Lesson { refuses_whole: true, ..Lesson::default() };
        let both = Lesson { refuses_whole: true, ..LESSON };
        assert_eq!((LESSON.and(other), other.and(LESSON)), (both, both));
    }

    #[test]
    fn a_line_is_no_faster_than_we_want_it() {
        for (most, rate) in [(2_000_000, 1_000_000), (500_000, 500_000), (0, 1)] {
            assert_eq!(LESSON.no_faster(most).rate, Some(rate));
        }
        assert_eq!(Lesson::default().no_faster(5).rate, Some(5));
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
