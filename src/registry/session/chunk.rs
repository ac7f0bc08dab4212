//! How large chunks are, within their limits: what the user wants, or what suits the line; and where the next one begins
//! and ends.
//!
//! Where the registry wants parts of one size the chunk size is chosen once, when a session is opened; elsewhere
//! it follows the line. Chunks of our own choice are a little larger than that where it saves a request.

use std::ops::Range;

use super::{
    Settings,
    limits::{HEADROOM, Limits, SMALLEST},
};
use crate::{
    error::sized,
    registry::{Lesson, hosts::Profile},
};

const MIB: u64 = 1 << 20;

/// Nobody asked for larger chunks than this, and many a proxy takes no more: beyond it each may be twice as large
/// as the largest that went through.
const LARGEST_OWN: u64 = 60 * MIB;

/// A line that cannot carry this in half a minute is not served better by less.
const SMALLEST_OWN: u64 = MIB;

/// Chunks may be larger by so many tenths than is best, where that saves a request.
const STRETCH: u64 = 3;

/// A chunk takes so many round trips.
const FLUENCY: u128 = 20;

/// zot ends requests after 60 s (gh:project-zot/zot#4079).
const LONGEST_REQUEST_SECS: u64 = 30;

/// Registries with object storage underneath count parts: ECR takes 4200 of them
/// (<https://docs.aws.amazon.com/AmazonECR/latest/userguide/service-quotas.html>).
const MOST_CHUNKS: u64 = 4000;

impl Settings {
    /// Returns how much an upload will send at once, unless the registry says otherwise when it is opened.
    pub fn chunk(&self) -> u64 {
        Limits::new(self).choose(None)
    }

    /// Returns how large the chunks of an upload are before its registry has said a word, and why; no size where
    /// chunks are not to be had.
    pub fn first_chunk(&self) -> (Option<u64>, String) {
        let Profile { name, chunk_size: usual, monolithic, .. } = self.profile;
        if monolithic {
            return (None, format!("{name} takes no chunks"));
        }
        let limits = Limits::new(self);
        let chunk = limits.choose(None);
        let timely = limits.timely();
        let why = if limits.ceiling() < self.chunk_size.unwrap_or(timely) {
            limits.why_no_larger()
        } else if self.chunk_size.is_some() {
            "as was asked for".to_owned()
        } else if timely > usual {
            "the line is fast and far".to_owned()
        } else if timely < usual {
            "the line is slow".to_owned()
        } else if self.profile == Profile::ORDINARY {
            "as is usual".to_owned()
        } else {
            format!("as suits {name}")
        };
        (Some(chunk), why)
    }
}

/// Chunks are not as large as was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resized {
    /// What is sent, and why.
    pub message: String,
    /// What speaks against larger ones was learned here and may be otherwise by now: a
    /// [`Probe`](crate::registry::Probe) finds out.
    pub may_be_tried: bool,
}

impl Limits {
    /// Returns what is to be said of the chunks of an upload that are not as large as was asked for.
    pub(super) fn resized(&self, chunk: u64, size: Option<u64>) -> Option<Resized> {
        let (wanted, most) = (self.wanted?, self.ceiling());
        let why = if size.is_some_and(|size| size <= most.min(wanted)) {
            return None;
        } else if most < wanted {
            self.why_no_larger()
        } else if self.advertised_least > Some(wanted) {
            "the registry announces that it takes no smaller ones".to_owned()
        } else {
            return None;
        };
        let (chunk, asked) = (sized(chunk), sized(wanted));
        Some(Resized {
            message: format!("chunks of {chunk} and not of {asked}, as was asked for: {why}"),
            may_be_tried: most < wanted
                && ![self.profile.max_chunk, self.advertised_ceiling()].contains(&Some(most))
                && !self.equal_parts,
        })
    }

    /// Chooses the chunk size for a session.
    pub(crate) fn choose(&self, size: Option<u64>) -> u64 {
        self.choose_at(0, size)
    }

    /// Returns how much may be sent at once by now where it was this much before, in the same upload.
    pub(super) fn within(&self, chunk: u64) -> u64 {
        let most =
            if self.equal_parts { u64::MAX } else { self.ceiling().min(self.wanted.unwrap_or(u64::MAX)) };
        chunk.min(most).max(SMALLEST)
    }

    /// Chooses the size of the chunks that follow the first `offset` bytes.
    pub(super) fn choose_at(&self, offset: u64, size: Option<u64>) -> u64 {
        let ceiling = self.ceiling();
        let floor = size.map_or(0, |size| size.div_ceil(MOST_CHUNKS));
        let floor = floor.max(self.advertised_least.unwrap_or(0)).max(SMALLEST).min(ceiling);
        let chunk = self.wanted.unwrap_or_else(|| self.timely()).clamp(floor, ceiling);
        let unit = if chunk > 2 * HEADROOM { HEADROOM } else { 1 };
        let suits = |chunk: &u64| {
            size.is_none_or(|size| size <= *chunk || size % chunk != 1)
                && (self.wanted.is_some() || suits_s3(*chunk))
        };
        if let Some(larger) =
            size.and_then(|size| self.stretched(chunk, ceiling, size.saturating_sub(offset)))
        {
            return larger;
        }
        let smaller = (0..).map_while(|n| chunk.checked_sub(n * unit)).take_while(|chunk| *chunk >= floor);
        // What the user wants may be all that a proxy takes; without equal parts a chunk in the middle can
        // give way instead.
        let free = self.equal_parts || self.wanted.is_none_or(|wanted| wanted < floor);
        let most = if free { ceiling } else { chunk };
        let larger = (1..).map_while(|n| chunk.checked_add(n * unit)).take_while(|chunk| *chunk <= most);
        // The farthest a multiple of 64 KiB can be from one that suits is 5 MiB.
        smaller.take(81).chain(larger.take(81)).find(suits).unwrap_or(chunk)
    }

    /// Returns a chunk that is a little larger, where that leaves fewer on a line that is known: a small rest costs as
    /// many round trips as a chunk.
    fn stretched(&self, chunk: u64, ceiling: u64, rest: u64) -> Option<u64> {
        let rate = self.lesson.rate.filter(|_| self.wanted.is_none() && self.profile.may_grow)?;
        let stretched = (chunk + chunk / 10 * STRETCH).min(rate.saturating_mul(LONGEST_REQUEST_SECS));
        let most = stretched.min(ceiling);
        let parts = rest.div_ceil(most.max(1));
        if parts >= rest.div_ceil(chunk) {
            return None;
        }
        if parts == 1 {
            return Some(rest);
        }
        let even = rest.div_ceil(parts).next_multiple_of(HEADROOM);
        let larger = (0..).map(|n| even + n * HEADROOM).take_while(|chunk| *chunk <= most);
        larger.filter(|chunk| suits_s3(*chunk)).find(|chunk| rest % chunk != 1)
    }

    /// Returns how much to send at once on a line like this one: so much that waiting for the answers costs a
    /// twentieth, and no more than is sent in half a minute, since proxies and zot cut longer requests.
    fn timely(&self) -> u64 {
        let Profile { chunk_size: usual, may_grow, .. } = self.profile;
        let Lesson { rate: Some(rate), round_trip, largest_taken, .. } = self.lesson else { return usual };
        let wait = u128::from(round_trip.unwrap_or(0));
        let fluent =
            u64::try_from(u128::from(rate).saturating_mul(FLUENCY * wait) / 1_000_000).unwrap_or(u64::MAX);
        // Cloudflare refuses bodies of more than 100 MB, unless it is paid not to
        // (<https://developers.cloudflare.com/workers/platform/limits/>): to find out costs the upload.
        let proven = if self.behind_cloudflare { 0 } else { 2 * largest_taken };
        let most = if may_grow { LARGEST_OWN.max(proven) } else { 0 }.max(usual);
        let fluent = fluent.clamp(usual, most) / MIB * MIB;
        fluent.min(rate.saturating_mul(LONGEST_REQUEST_SECS)).max(SMALLEST_OWN.min(usual))
    }
}

/// distribution on S3 cuts a PATCH into parts of 10 MiB; a remainder under 5 MiB makes it copy all bytes so
/// far on the server (distribution/distribution:registry/storage/driver/s3-aws/s3.go, `Write`).
const fn suits_s3(chunk: u64) -> bool {
    let remainder = chunk % (10 * MIB);
    chunk < 5 * MIB || remainder == 0 || remainder >= 5 * MIB
}

/// Returns the next chunk, once all its bytes are written.
///
/// It never leaves a last chunk of one byte, which serverless-registry refuses
/// (cloudflare/serverless-registry:src/registry/r2.ts); while the size is unknown two more bytes must be
/// there.
pub(super) fn next(offset: u64, chunk: u64, written: u64, size: Option<u64>) -> Option<Range<u64>> {
    let end = offset.saturating_add(chunk);
    let (end, needed) = match size {
        Some(size) if size <= end => (size, size),
        Some(size) if size == end + 1 => (end - 1, end - 1),
        Some(_) => (end, end),
        None => (end, end.saturating_add(2)),
    };
    (needed <= written).then_some(offset..end)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::registry::{
        Lesson, hosts,
        session::script::{advertised, limits, wanting},
    };

    const KIB: u64 = 1 << 10;

    #[test]
    fn minimum_beats_default_and_maximum_beats_all() {
        for (wanted, least, most, expected) in [
            (None, "", "", 16 * MIB),
            (Some(3 * MIB), "", "", 3 * MIB),
            (Some(3 * MIB), "5242880", "", 5 * MIB),
            (None, "20971520", "", 20 * MIB),
            (None, "5242880", "100000000", 16 * MIB),
            (Some(200 * MIB), "5242880", "100000000", 100_000_000 - 64 * KIB),
            (Some(MIB), "5242880", "5242880", 5 * MIB),
            (Some(20 * MIB), "10485760", "8388608", 8 * MIB),
            (None, "0", "", 16 * MIB),
        ] {
            let mut limits = limits(wanted, Profile::ORDINARY);
            assert!(advertised(&mut limits, least, most).unwrap().is_empty());
            assert_eq!(limits.choose(None), expected, "{wanted:?} {least} {most}");
        }
    }

    #[test]
    fn ghcr_never_gets_more_than_four_mebibytes() {
        let ghcr = hosts::profile("ghcr.io");
        assert_eq!(limits(None, ghcr).choose(Some(1 << 40)), 4 * MIB);
        assert_eq!(limits(Some(64 * MIB), ghcr).choose(None), 4 * MIB);
    }

    #[test]
    fn a_huge_blob_gets_larger_chunks_that_suit_s3() {
        let chunk = limits(None, Profile::ORDINARY).choose(Some(80_000 * MIB));
        assert_eq!(chunk, 20 * MIB);
        let chunk = limits(None, Profile::ORDINARY).choose(Some(84_000 * MIB));
        assert_eq!(chunk, 25 * MIB);
    }

    #[test]
    fn chunks_follow_the_line() {
        for (host, round_trip, rate, expected) in [
            ("r.example", 50_000, 5_000_000, 16 * MIB),
            ("r.example", 50_000, 25_000_000, 20 * MIB),
            ("r.example", 200_000, 125_000_000, 60 * MIB),
            ("r.example", 1, u64::MAX, 60 * MIB),
            ("r.example", u64::MAX, u64::MAX, 60 * MIB),
            ("r.example", 300_000, 300_000, 9_000_000),
            ("r.example", 300_000, 1, MIB),
            ("ghcr.io", 200_000, 125_000_000, 4 * MIB),
            ("1.dkr.ecr.eu.amazonaws.com", 200_000, 125_000_000, 10 * MIB),
        ] {
            let mut limits = limits(None, hosts::profile(host));
            limits.lesson.rate = Some(rate);
            limits.lesson.round_trip = Some(round_trip);
            let chunk = limits.choose(None);
            assert!(chunk.abs_diff(expected) < 64 * KIB, "{host} {round_trip} {rate}: {chunk}");
        }
        let mut limits = limits(Some(3 * MIB), Profile::ORDINARY);
        limits.answered(Duration::from_millis(200));
        limits.took(3 * MIB, Duration::from_millis(300));
        assert_eq!(limits.choose(None), 3 * MIB, "what the user wants does not change");
    }

    #[test]
    fn the_largest_chunks_are_twice_what_went_through() {
        let wait = Duration::from_millis(200);
        for (host, ray, expected) in [
            // At last waiting costs a twentieth.
            ("r.example", None, [60, 120, 240, 476, 476]),
            ("r.example", Some("8c2-FRA"), [60; 5]),
            ("ghcr.io", None, [4; 5]),
        ] {
            let mut limits = limits(None, hosts::profile(host));
            let headers = ray.map(|ray| (http::HeaderName::from_static("cf-ray"), ray.parse().unwrap()));
            limits.read(&headers.into_iter().collect(), &mut Vec::new()).unwrap();
            limits.answered(wait);
            let grown = [(); 5].map(|()| {
                let chunk = limits.choose(None);
                limits.took(chunk, wait + Duration::from_micros(chunk / 125));
                limits.choose(None) / MIB
            });
            assert_eq!(grown, expected, "{host} {ray:?}");
        }
    }

    #[test]
    fn no_small_rest_costs_a_round_trip() {
        let line = Lesson { rate: Some(125_000_000), round_trip: Some(200_000), ..Lesson::default() };
        let limited = Lesson { body_limit: Some(64 * MIB), ..line };
        for (host, wanted, lesson, offset, size, expected) in [
            ("r.example", None, line, 0, 64 * MIB, 64 * MIB),
            ("r.example", None, line, 0, 75_000_000, 75_000_000),
            ("r.example", None, line, 0, 79 * MIB, 60 * MIB),
            // Two of 67 MiB and not three; and of 61 MiB distribution would copy what it has.
            ("r.example", None, line, 0, 134 * MIB, 67 * MIB),
            ("r.example", None, line, 0, 122 * MIB, 65 * MIB),
            ("r.example", None, line, 16 * MIB, 80 * MIB, 64 * MIB),
            ("r.example", None, limited, 0, 75_000_000, 60 * MIB),
            ("r.example", Some(60 * MIB), line, 0, 64 * MIB, 60 * MIB),
            ("r.example", None, Lesson::default(), 0, 18 * MIB, 16 * MIB),
            ("ghcr.io", None, line, 0, 5 * MIB, 4 * MIB),
            ("public.ecr.aws", None, line, 0, 11 * MIB, 10 * MIB),
        ] {
            let limits = Limits::new(&Settings { lesson, ..wanting(wanted, hosts::profile(host)) });
            assert_eq!(limits.choose_at(offset, Some(size)), expected, "{host} {wanted:?} {offset} {size}");
        }
        // Nor where parts are equal, within what the registry says.
        for (most, expected) in [("100000000", 75_000_000), ("70000000", 60 * MIB)] {
            let mut limits = Limits::new(&Settings { lesson: line, ..wanting(None, Profile::ORDINARY) });
            advertised(&mut limits, "5242880", most).unwrap();
            assert_eq!(limits.choose(Some(75_000_000)), expected, "{most}");
        }
    }

    proptest! {
        #[test]
        fn chunks_tile_a_blob_of_any_size(
            size in 1..50_000_000_u64,
            wanted in proptest::option::of(10_000..60_000_000_u64),
            late in any::<bool>(),
        ) {
            let limits = limits(wanted, Profile::ORDINARY);
            let chunk = limits.choose((!late).then_some(size));
            prop_assert!(wanted.is_some() || suits_s3(chunk));
            let mut offset = 0;
            let mut count = 0;
            while offset < size {
                // A late size is known when the encoder has ended: at the worst with the last byte.
                let known = (!late || next(offset, chunk, size, None).is_none()).then_some(size);
                let range = next(offset, chunk, size, known).expect("all bytes are written");
                prop_assert_eq!(range.start, offset);
                prop_assert!(range.end <= size && range.end - range.start <= chunk);
                prop_assert!(range.end - range.start > 1 || size == 1);
                // Known from the beginning, all chunks but the last are equal.
                prop_assert!(late || range.end == size || range.end - range.start == chunk);
                offset = range.end;
                count += 1;
            }
            prop_assert!(late || count <= MOST_CHUNKS);
        }
    }

    #[test]
    fn chunks_that_are_not_as_large_as_was_asked_for_are_told_of() {
        let learned = Lesson { body_limit: Some(5 * MIB), ..Lesson::default() };
        let ghcr = hosts::profile("ghcr.io");
        for (profile, wanted, most, lesson, size, expected) in [
            (Profile::ORDINARY, Some(8 * MIB), "", learned, None, Some(("been refused here", true))),
            (Profile::ORDINARY, Some(8 * MIB), "", learned, Some(6 * MIB), Some(("been refused here", true))),
            (
                ghcr,
                Some(8 * MIB),
                "",
                learned,
                None,
                Some(("Container Registry takes no larger ones", false)),
            ),
            (
                Profile::ORDINARY,
                Some(8 * MIB),
                "5000000",
                learned,
                None,
                Some(("takes no larger ones", false)),
            ),
            // Nothing is sent that is smaller than was asked for, or nobody has asked.
            (Profile::ORDINARY, Some(8 * MIB), "", learned, Some(5 * MIB), None),
            (Profile::ORDINARY, Some(5 * MIB), "", learned, None, None),
            (Profile::ORDINARY, None, "", learned, None, None),
            (Profile::ORDINARY, Some(8 * MIB), "", Lesson::default(), None, None),
        ] {
            let mut limits = Limits::new(&Settings { lesson, ..wanting(wanted, profile) });
            advertised(&mut limits, "", most).unwrap();
            let resized = limits.resized(limits.choose(size), size);
            let found = resized.as_ref().map(|resized| (resized.message.as_str(), resized.may_be_tried));
            match (found, expected) {
                (Some((message, tried)), Some((why, may_be_tried))) => {
                    assert!(message.ends_with(why) && tried == may_be_tried, "{resized:?}");
                }
                (found, expected) => assert_eq!(found, expected),
            }
        }
        for (wanted, size, said) in [(MIB, None, true), (MIB, Some(MIB), false), (5 * MIB, None, false)] {
            let mut limits = limits(Some(wanted), Profile::ORDINARY);
            advertised(&mut limits, "5242880", "").unwrap();
            let message = "chunks of 5 MiB and not of 1 MiB, as was asked for: the registry announces that it takes no \
                           smaller ones";
            let expected = Resized { message: message.to_owned(), may_be_tried: false };
            assert_eq!(limits.resized(limits.choose(size), size), said.then_some(expected));
        }
    }

    #[test]
    fn the_first_chunk_has_its_reason() {
        let (ghcr, google) = (hosts::profile("ghcr.io"), hosts::profile("gcr.io"));
        let line = |rate| Lesson { rate: Some(rate), round_trip: Some(20_000), ..Lesson::default() };
        let (fast, slow) = (line(100 * MIB), line(100 * KIB));
        let refused = Lesson { body_limit: Some(5 * MIB), ..Lesson::default() };
        let broken = Lesson { seeming_limit: Some(5 * MIB), ..Lesson::default() };
        for (profile, wanted, lesson, expected) in [
            (Profile::ORDINARY, None, Lesson::default(), (Some(16 * MIB), "as is usual")),
            (Profile::ORDINARY, Some(MIB), Lesson::default(), (Some(MIB), "as was asked for")),
            (Profile::ORDINARY, None, fast, (Some(40 * MIB), "the line is fast and far")),
            (Profile::ORDINARY, None, slow, (Some(3000 * KIB), "the line is slow")),
            (Profile::ORDINARY, None, refused, (Some(5 * MIB), "larger ones have been refused here")),
            (Profile::ORDINARY, None, broken, (Some(5 * MIB), "larger ones have broken connections here")),
            (
                Profile::ORDINARY,
                Some(8 * MIB),
                refused,
                (Some(5 * MIB), "larger ones have been refused here"),
            ),
            (ghcr, None, Lesson::default(), (Some(4 * MIB), "as suits GitHub Container Registry")),
            (ghcr, Some(8 * MIB), fast, (Some(4 * MIB), "GitHub Container Registry takes no larger ones")),
            (google, Some(8 * MIB), fast, (None, "Google Artifact Registry takes no chunks")),
        ] {
            let (chunk, why) = Settings { lesson, ..wanting(wanted, profile) }.first_chunk();
            assert_eq!((chunk, why.as_str()), expected);
        }
    }
}
