//! What bounds a chunk: what the host's profile says, what the registry advertises in its headers, what a 413 or broken
//! connections have taught.
//!
//! How large a chunk is within these bounds is chunk.rs's to say.

use std::time::Duration;

use http::HeaderMap;

use super::Settings;
use crate::{
    error::{Error, ErrorKind, Result, counted},
    registry::{
        Lesson,
        hosts::{Profile, stricter},
    },
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Below this a chunk cannot be shortened by one and still leave a last chunk of two bytes.
pub(super) const SMALLEST: u64 = 4;

/// Whoever says that less is too large counts something else, or in another unit.
const LEAST_STATED: u64 = 64 * KIB;

/// A registry that wants larger chunks than this is broken or means harm.
const LARGEST_MINIMUM: u64 = 1 << 30;

/// Headers count too where a proxy measures requests.
pub(super) const HEADROOM: u64 = 64 * KIB;

/// What helps where smaller chunks do not: the registry wants them as large, or takes none.
pub(super) const RAISE: &str = "a proxy before the registry may limit request bodies: raise its limit";

/// What to try after a body was too large and nobody said what is not.
const LADDER: [u64; 9] = [60 * MIB, 30 * MIB, 20 * MIB, 16 * MIB, 8 * MIB, 5 * MIB, 4 * MIB, MIB, 512 * KIB];

/// Everything that bounds a chunk.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(super) profile: Profile,
    /// What the user wants.
    pub(super) wanted: Option<u64>,
    pub(super) advertised_least: Option<u64>,
    advertised_most: Option<u64>,
    pub(super) lesson: Lesson,
    pub(super) behind_cloudflare: bool,
    /// A limit that is known by good evidence, if a body within it goes through.
    unproven: Option<u64>,
    pub(super) equal_parts: bool,
}

impl Limits {
    pub(crate) const fn new(settings: &Settings) -> Self {
        Self {
            profile: settings.profile,
            wanted: settings.chunk_size,
            advertised_least: None,
            advertised_most: None,
            lesson: settings.lesson,
            behind_cloudflare: false,
            unproven: None,
            equal_parts: settings.profile.equal_parts || settings.lesson.equal_parts,
        }
    }

    /// Returns what is known about the host by now.
    pub(crate) const fn lesson(&self) -> Lesson {
        self.lesson
    }

    /// Remembers what was known before, as far as it still holds.
    pub(crate) fn recall(&mut self, earlier: Lesson) -> Result<()> {
        self.lesson = earlier.and(self.lesson);
        self.possible()
    }

    /// Takes note of limits that other uploads have met: they hold here too, unless a larger body went through.
    pub(super) fn hear(&mut self, others: Lesson) {
        self.lesson.hear(others);
    }

    /// Takes note of how long a request took that carried nothing.
    pub(crate) fn answered(&mut self, elapsed: Duration) {
        self.lesson.answered(elapsed);
    }

    /// Takes note that a chunk went through, and how long it took.
    pub(crate) fn took(&mut self, bytes: u64, elapsed: Duration) {
        self.lesson.took(bytes, elapsed);
        self.passed(bytes);
    }

    /// Takes note that a body went through.
    pub(super) fn passed(&mut self, bytes: u64) {
        self.lesson.largest_taken = self.lesson.largest_taken.max(bytes);
        // A peer that is half dead breaks all connections at one place, whatever the size.
        self.lesson.seeming_limit = self.unproven.take().or(self.lesson.seeming_limit);
    }

    /// Takes note that the registry refused a blob in one PUT, and took it in PATCHes.
    pub(super) const fn refuses_whole(&mut self) {
        self.lesson.refuses_whole = true;
    }

    /// Returns the size of the largest chunk that went through.
    pub(super) const fn largest_taken(&self) -> u64 {
        self.lesson.largest_taken
    }

    /// Takes note that a chunk was refused for being of another size than the one before.
    pub(crate) const fn insist_on_equal_parts(&mut self) {
        (self.equal_parts, self.lesson.equal_parts) = (true, true);
    }

    /// Takes note that the upload has chunks of one size.
    pub(super) const fn keep_equal_parts(&mut self) {
        self.equal_parts = true;
    }

    /// Returns whether all chunks of a session but the last must have one size.
    pub(crate) const fn equal_parts(&self) -> bool {
        self.equal_parts
    }

    /// Returns what the registry advertises: the least and the most that a chunk may have.
    pub(crate) const fn advertised(&self) -> (Option<u64>, Option<u64>) {
        (self.advertised_least, self.advertised_most)
    }

    /// Returns whether a body of this size is within every known limit.
    pub(super) fn fit(&self, size: u64) -> bool {
        [self.advertised_most, self.lesson.body_limit].into_iter().flatten().all(|most| size <= most)
    }

    /// Reads what the registry advertises. `OCI-Chunk-Max-Length` is unofficial
    /// (gh:opencontainers/distribution-spec#485) and sent by serverless-registry, which also wants equal parts.
    pub(crate) fn read(&mut self, headers: &HeaderMap, warnings: &mut Vec<String>) -> Result<()> {
        self.behind_cloudflare |= headers.contains_key("cf-ray");
        for (name, limit) in [
            ("oci-chunk-min-length", &mut self.advertised_least),
            ("oci-chunk-max-length", &mut self.advertised_most),
        ] {
            let Some(value) = headers.get(name) else { continue };
            match value.to_str().ok().and_then(|value| value.trim().parse().ok()) {
                Some(bytes) if bytes >= SMALLEST => {
                    *limit = Some(bytes);
                    self.equal_parts = true;
                }
                // No lower limit at all.
                Some(0 | 1) if name == "oci-chunk-min-length" => {}
                _ => warnings.push(format!("the registry's header `{name}` makes no sense and is ignored")),
            }
        }
        match self.advertised_least {
            Some(least) if least > LARGEST_MINIMUM => Err(Error::new(
                ErrorKind::Refused,
                format!("the registry wants chunks of at least {least} bytes: more than 1 GiB"),
            )),
            _ => self.possible(),
        }
    }

    /// Takes note that a body of `sent` bytes was too large; `stated` is what the registry says is not.
    pub(crate) fn shrink(&mut self, sent: u64, stated: Option<u64>) -> Result<()> {
        let stated = stated.filter(|stated| (LEAST_STATED..sent).contains(stated));
        let taken = Some(self.lesson.largest_taken).filter(|taken| *taken < sent);
        let next = stated
            .or_else(|| rung_below(sent).max(taken.filter(|taken| *taken >= SMALLEST)))
            // Whoever wants no less has no use for a smaller one.
            .or_else(|| sent.checked_sub(1).filter(|less| self.advertised_least > Some(*less)));
        let Some(next) = next else {
            let bytes = counted(sent, "byte");
            let refused = |words| Error::new(ErrorKind::Refused, words);
            return Err(if (1..=self.lesson.largest_taken).contains(&sent) {
                refused(format!("the registry takes bodies of {bytes}, but no more of this blob"))
            } else {
                refused(format!("the registry, or a proxy before it, refuses even a body of {bytes}"))
                    .with_hint("a proxy limits request bodies: try a smaller `--chunk-size`")
            });
        };
        if stated.is_none() {
            self.lesson.refused = stricter(self.lesson.refused, sent);
        }
        self.lesson.body_limit = stricter(self.lesson.body_limit, next);
        self.lesson.largest_taken = self.lesson.largest_taken.min(next);
        self.possible()
    }

    /// Returns the size of the body to try where connections break with one of `sent` bytes as if it was too large, if
    /// the registry takes one as small.
    pub(crate) fn smaller(&self, sent: u64) -> Option<u64> {
        rung_below(sent).filter(|next| *next >= self.advertised_least.unwrap_or(0))
    }

    /// Makes do with bodies of `most` bytes, as long as nothing larger goes through; `evident` if nothing but a limit is
    /// likely.
    pub(crate) fn bear(&mut self, most: u64, evident: bool) {
        self.lesson.bearable = stricter(self.lesson.bearable, most);
        self.lesson.largest_taken = self.lesson.largest_taken.min(most);
        self.unproven = (evident || self.unproven.is_some()).then_some(most);
    }

    /// Returns whether bodies of `most` bytes will do instead of such of `sent`.
    pub(super) fn may_bear(&self, most: u64, sent: u64) -> bool {
        (LADDER[LADDER.len() - 1].max(self.advertised_least.unwrap_or(0))..sent).contains(&most)
    }

    /// Returns the size of the largest chunk that may be sent.
    pub(super) fn ceiling(&self) -> u64 {
        let known = [self.profile.max_chunk, self.advertised_ceiling(), self.lesson.body_limit];
        // What is only suspected gives way to what the registry says.
        let seeming = stricter(self.lesson.seeming_limit, self.lesson.bearable);
        let seeming = seeming.map(|most| most.max(self.advertised_least.unwrap_or(0)));
        known.into_iter().chain([seeming]).flatten().min().unwrap_or(u64::MAX).max(SMALLEST)
    }

    pub(super) fn advertised_ceiling(&self) -> Option<u64> {
        let most = self.advertised_most?;
        let roomy = most - HEADROOM.min(most / 16);
        // Where least and most are one number, that is the size.
        Some(roomy.max(self.advertised_least.unwrap_or(0).min(most)))
    }

    /// Says what holds chunks to the ceiling.
    pub(super) fn why_no_larger(&self) -> String {
        let most = Some(self.ceiling());
        if self.profile.max_chunk == most {
            format!("{} takes no larger ones", self.profile.name)
        } else if self.advertised_ceiling() == most {
            "the registry announces that it takes no larger ones".to_owned()
        } else if self.lesson.body_limit == most {
            "larger ones have been refused here".to_owned()
        } else {
            "larger ones have broken connections here".to_owned()
        }
    }

    fn possible(&self) -> Result<()> {
        match (self.advertised_least, self.lesson.body_limit) {
            (Some(least), Some(most)) if least > most => Err(Error::new(
                ErrorKind::Refused,
                format!("the registry wants chunks of at least {least} bytes but takes at most {most}"),
            )
            .with_hint(RAISE)),
            _ => Ok(()),
        }
    }
}

/// Returns what to try after a body of `sent` bytes.
fn rung_below(sent: u64) -> Option<u64> {
    LADDER.into_iter().find(|rung| *rung < sent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::session::script::{advertised, limits, wanting};

    #[test]
    fn garbage_in_headers_is_told_and_ignored() {
        for (least, most) in [("x", ""), ("-1", ""), ("", "0"), ("", "99999999999999999999999"), ("", "1e6")]
        {
            let mut limits = limits(None, Profile::ORDINARY);
            assert_eq!(advertised(&mut limits, least, most).unwrap().len(), 1, "{least} {most}");
            assert_eq!(limits.choose(None), 16 * MIB);
            assert!(!limits.equal_parts());
        }
    }

    #[test]
    fn a_minimum_over_a_gibibyte_is_refused() {
        let error = advertised(&mut limits(None, Profile::ORDINARY), "1073741825", "").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.message().contains("1 GiB"));
    }

    #[test]
    fn the_ladder_ends_with_an_explanation() {
        let mut limits = limits(Some(64 * MIB), Profile::ORDINARY);
        let mut sizes = Vec::new();
        let error = loop {
            let chunk = limits.choose(None);
            sizes.push(chunk / KIB);
            if let Err(error) = limits.shrink(chunk, None) {
                break error;
            }
        };
        assert_eq!(sizes, [65_536, 61_440, 30_720, 20_480, 16_384, 8_192, 5_120, 4_096, 1_024, 512]);
        assert!(error.message().contains("refuses even a body of 524288 bytes"));
        // Where as much went through it is not the body that is too large.
        limits.passed(512 * KIB);
        let error = limits.shrink(512 * KIB, None).unwrap_err();
        assert_eq!(error.message(), "the registry takes bodies of 524288 bytes, but no more of this blob");
        assert!(error.hints().is_empty());
    }

    #[test]
    fn a_stated_limit_is_believed_when_it_is_smaller() {
        let mut limits = limits(None, Profile::ORDINARY);
        limits.shrink(16 * MIB, Some(10_000_000)).unwrap();
        assert_eq!(limits.lesson().body_limit, Some(10_000_000));
        limits.shrink(10_000_000, Some(100_000_000)).unwrap();
        assert_eq!(limits.lesson().body_limit, Some(8 * MIB));
        // Whoever says 5 means something else by it.
        limits.shrink(8 * MIB, Some(5)).unwrap();
        assert_eq!(limits.lesson().body_limit, Some(5 * MIB));
    }

    #[test]
    fn a_minimum_above_the_learned_limit_is_explained() {
        let mut limits = limits(None, Profile::ORDINARY);
        advertised(&mut limits, "5242880", "").unwrap();
        assert_eq!(limits.shrink(5 * MIB, None).unwrap_err().hints(), [RAISE]);
    }

    #[test]
    fn a_minimum_below_the_ladder_is_explained() {
        for (sent, words) in [
            (80_000, "wants chunks of at least 80000 bytes but takes at most 79999"),
            (5, "wants chunks of at least 80000 bytes but takes at most 4"),
            (80_001, "refuses even a body of 80001 bytes"),
            (0, "refuses even a body of 0 bytes"),
        ] {
            let mut limits = limits(None, Profile::ORDINARY);
            advertised(&mut limits, "80000", "").unwrap();
            let error = limits.shrink(sent, None).unwrap_err();
            assert!(error.message().contains(words), "{}", error.message());
        }
    }

    #[test]
    fn what_others_have_met_holds_unless_more_went_through() {
        let others = Lesson { body_limit: Some(5 * MIB), bearable: Some(4 * MIB), ..Lesson::default() };
        for (taken, known, most) in [
            (0, None, 4 * MIB),
            (4 * MIB, None, 4 * MIB),
            (5 * MIB, None, 5 * MIB),
            (5 * MIB + 1, None, u64::MAX),
            (0, Some(MIB), MIB),
            (5 * MIB + 1, Some(8 * MIB), 8 * MIB),
        ] {
            let mut limits = limits(None, Profile::ORDINARY);
            (limits.lesson.largest_taken, limits.lesson.body_limit) = (taken, known);
            limits.hear(others);
            assert_eq!(limits.ceiling(), most, "{taken} {known:?}");
        }
    }

    #[test]
    fn what_was_refused_may_be_more_than_went_through_and_less_than_was_guessed() {
        // 10 MiB went through, and 16 did not: between the two nobody knows, and 8 is a guess.
        let (mut small, mut large) = (limits(None, Profile::ORDINARY), limits(None, Profile::ORDINARY));
        small.passed(10 * MIB);
        large.shrink(16 * MIB, None).unwrap();
        assert_eq!(large.ceiling(), 8 * MIB);
        for host in [small.lesson().and(large.lesson()), large.lesson().and(small.lesson())] {
            assert_eq!(host.body_limit, Some(10 * MIB));
            let mut next = Limits::new(&Settings { lesson: host, ..wanting(None, Profile::ORDINARY) });
            assert_eq!(next.choose(Some(40 * MIB)), 10 * MIB);
            // Until that is refused too: then it goes down as ever.
            next.shrink(10 * MIB, None).unwrap();
            assert_eq!(next.ceiling(), 8 * MIB);
            next.shrink(8 * MIB, None).unwrap();
            assert_eq!(next.ceiling(), 5 * MIB);
        }
        // Whoever knows it in time does not guess.
        small.shrink(16 * MIB, None).unwrap();
        assert_eq!(small.ceiling(), 10 * MIB);
        // What went through in the end was no limit, and what is stated is no guess.
        let mut lucky = limits(None, Profile::ORDINARY);
        lucky.passed(16 * MIB);
        assert_eq!(large.lesson().and(lucky.lesson()).body_limit, None);
        large.shrink(8 * MIB, Some(4 * MIB)).unwrap();
        assert_eq!(large.ceiling(), 4 * MIB);
    }
}
