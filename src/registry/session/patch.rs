//! The answers to a PATCH: accepted, kept in part, refused, or nobody knows.
//!
//! Bytes whose fate is unknown are never sent again before the registry has said how far it is: a replay
//! into the same session doubles them (gh:GoogleContainerTools/jib#4526).

use std::{ops::Range, time::Duration};

use super::{
    Doubt, Fault, Footing, Legacy, Reply, Request, Session, Step, Upload, Way,
    range::Stored,
    recovery::{SETTLE, answered},
    retry, words,
};
use crate::error::{self, Error, ErrorKind, counted};

/// Two breaks within this many bytes are at the same place: sockets and proxies buffer so much.
const SAME_PLACE: u64 = 64 << 10;

/// The kernels at both ends of a line take so much more than whoever cut it has read, now more and now less
/// (`tcp_wmem` and `tcp_rmem` of Linux).
const BUFFERED: u64 = 8 << 20;

/// Shorter requests are cut by accident, not by a deadline.
const SHORTEST_DEADLINE: Duration = Duration::from_secs(10);

/// What two breaks in a row look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Suspect {
    /// A request may last only so long.
    Deadline,
    /// A body may not be so large; evidently, if both broke after the same number of bytes.
    Size { evident: bool },
    /// Of a larger body no more comes through.
    Passage { most: u64 },
}

/// How a request with a body broke.
#[derive(Clone, Copy, Debug)]
pub(super) struct Break {
    /// Where in the blob the body began.
    start: u64,
    sent: u64,
    elapsed: Duration,
    /// Nothing was kept since the one before it.
    stuck: bool,
    /// So many bytes were kept of the body that broke before, if it broke behind a gateway as this one did.
    kept: Option<u64>,
    suspect: Option<Suspect>,
}

/// Returns whether a refusal may be about the size of a chunk, which is larger than the one before.
fn blames_size(reply: &Reply, start: u64) -> bool {
    match reply.status {
        416 => {
            // It may wait for another byte, and say so.
            let elsewhere = Stored::of(&reply.headers).is_some_and(|stored| stored.count != start);
            !elsewhere
                && words::expected_offset(reply.words()).is_none()
                && !words::says_too_large(reply.words())
        }
        status => matches!(status, 400..=499) && !matches!(status, 401 | 403 | 404 | 408 | 413 | 429 | 499),
    }
}

/// Returns whether a gateway lost the registry behind it.
pub(crate) const fn is_lost_behind(status: u16) -> bool {
    matches!(status, 502 | 504)
}

impl Session {
    pub(super) fn patched(
        &mut self,
        mut upload: Upload,
        range: Range<u64>,
        reply: &Reply,
        error: Error,
    ) -> Step {
        let retry_after = retry::retry_after(&reply.headers);
        let length = range.end - range.start;
        if upload.before.is_some_and(|before| before < length) && blames_size(reply, range.start) {
            // R2 wants parts of one size, and whoever stands before it may not say so:
            // gh:balena-io/open-balena-registry#251.
            self.limits.insist_on_equal_parts();
            return self.restart(error);
        }
        match reply.status {
            // ECR answers 201: gh:openai/tart#273.
            200 | 201 | 202 | 204 => self.accepted(upload, &range, reply),
            300..=399 => upload.redirected(reply, error),
            403 => Step::Ended(Err(error)),
            404 if self.settings.profile.status => {
                let step = Step::Ask { upload, doubt: Doubt::Lost, missed: true };
                self.soon(step, &error)
            }
            404 => self.restart(error),
            413 => self.shrink(length, words::body_limit(reply.words()), error),
            416 if words::says_too_large(reply.words()) => {
                self.shrink(length, words::body_limit(reply.words()), error)
            }
            416 => self.misplaced(upload, &range, reply, error),
            // Turned away before a byte was stored.
            429 => self.again(Step::Send(upload), error, retry_after),
            status if retry::is_transient(status) => {
                upload.follow(reply);
                let suspect = self.suspect_answer(&range, reply);
                match self.heed(&mut upload, length, suspect, &error) {
                    Some(step) => step,
                    None => self.in_doubt(upload, range, error, retry_after),
                }
            }
            // A proxy that does not know the method answers 501.
            400..=499 | 501 => self.chunks_refused(error),
            _ => Step::Ended(Err(error)),
        }
    }

    pub(super) fn patch_broke(&mut self, mut upload: Upload, range: Range<u64>, fault: Fault) -> Step {
        let length = range.end - range.start;
        let reached = fault.reached();
        let suspect = self.suspect_fault(&range, &fault);
        let doing = Request::Patch { location: upload.location.clone(), range: range.clone() }.doing();
        let error = fault.failure(doing);
        if let Some(step) = self.heed(&mut upload, length, suspect, &error) {
            return step;
        }
        if reached {
            self.in_doubt(upload, range, error, None)
        } else {
            self.again(Step::Send(upload), error, None)
        }
    }

    /// Makes chunks smaller as two breaks suggest; returns how to go on where this session is of no more use.
    fn heed(
        &mut self,
        upload: &mut Upload,
        length: u64,
        suspect: Option<Suspect>,
        error: &Error,
    ) -> Option<Step> {
        match suspect? {
            Suspect::Size { evident } => {
                let anew = self.dodge(length, evident, error);
                // What the registry holds is no less good for it, if it is asked how much that is.
                let holds = upload.offset > 0 && self.settings.profile.status;
                if !holds || self.limits.equal_parts() {
                    return Some(anew);
                }
            }
            Suspect::Deadline => {
                self.limits.suspect(length, true);
            }
            Suspect::Passage { most } => {
                self.limits.bear(most, true);
                self.tell_smaller(&answered(length, error));
            }
        }
        if self.limits.equal_parts() {
            return Some(self.restart(error.clone()));
        }
        upload.chunk = upload.chunk.min(self.limits.choose(self.size()));
        None
    }

    /// Compares an answer to a body with the break before it. What a gateway says that has lost the registry tells no
    /// more than a reset: Caddy 2.6 answers 502 for a body that is larger than its `request_body` allows.
    pub(super) fn suspect_answer(&mut self, range: &Range<u64>, reply: &Reply) -> Option<Suspect> {
        if !is_lost_behind(reply.status) {
            return None;
        }
        let before = self.last_break;
        let suspect = self.suspect(range, range.end - range.start, reply.elapsed);
        let kept = before.and_then(|before| range.start.checked_sub(before.start));
        let last = self.last_break.as_mut()?;
        last.kept = kept;
        // A registry that is away for a while keeps nothing, or now more and now less.
        let passage = kept.filter(|kept| before.is_some_and(|before| before.kept == Some(*kept)));
        let length = range.end - range.start;
        match passage.filter(|most| self.limits.may_bear(*most, length)) {
            Some(most) if length > self.limits.largest_taken() => Some(Suspect::Passage { most }),
            _ => suspect,
        }
    }

    /// Compares a fault with the break before it.
    pub(super) fn suspect_fault(&mut self, range: &Range<u64>, fault: &Fault) -> Option<Suspect> {
        let Fault::Reset { sent, elapsed, .. } = *fault else { return None };
        self.suspect(range, sent, elapsed)
    }

    /// Compares a break with the one before: twice at the same place is a limit on the size, twice after the
    /// same time a deadline (zot's is 60 s: gh:project-zot/zot#4079).
    fn suspect(&mut self, range: &Range<u64>, sent: u64, elapsed: Duration) -> Option<Suspect> {
        let (start, length) = (range.start, range.end - range.start);
        let first = Break { start, sent, elapsed, stuck: false, kept: None, suspect: None };
        let before = self.last_break.replace(first)?;
        // Where nothing was kept in between, the place is as vague as the kernels make it.
        let stuck = start == before.start && sent > 0;
        let near = |distance| sent.abs_diff(before.sent) <= distance;
        let evident = 0 < sent && sent < length && near(SAME_PLACE);
        let vague = match length {
            // The kernels may have taken all of it, however much was read: a third time is no accident.
            ..=BUFFERED => before.stuck || matches!(before.suspect, Some(Suspect::Size { .. })),
            _ => near(BUFFERED),
        };
        let cut = evident || stuck && vague;
        // Proxies refuse by Content-Length, and what they say is lost in the reset: the size is wrong, not the
        // place. Unless one of that size went through; and a suspicion is no reason to give up.
        let helps = self.way != Way::Whole && self.limits.clone().suspect(length, evident);
        let same_time = elapsed.abs_diff(before.elapsed) <= elapsed / 10;
        let suspect = if cut && helps && length > self.limits.largest_taken() {
            Some(Suspect::Size { evident })
        } else {
            (elapsed >= SHORTEST_DEADLINE && same_time).then_some(Suspect::Deadline)
        };
        self.last_break = Some(Break { stuck, suspect, ..first });
        suspect
    }

    /// Goes on where the registry seems to be, after it refused a chunk that began at `start`.
    pub(super) fn correct(
        &mut self,
        mut upload: Upload,
        start: u64,
        held: u64,
        moved: bool,
        error: Error,
    ) -> Step {
        let before = match upload.footing {
            Footing::Corrected { refused } => Some(refused),
            _ => None,
        };
        let offset = match before {
            _ if held != start => (before != Some(held)).then_some(held),
            // serverless-registry refuses a stale `_stateHash` and hands out the right one
            // (cloudflare/serverless-registry:src/registry/r2.ts).
            None => moved.then_some(held),
            // Quay's 416 counts one too many (quay/quay:endpoints/v2/blob.py).
            Some(before) => held.checked_sub(1).filter(|held| *held != before),
        };
        match offset {
            // At 0 the session would begin again, and it may hold bytes; beyond what was sent is a lie.
            Some(offset) if 0 < offset && offset <= upload.sent => {
                upload.footing = Footing::Corrected { refused: start };
                self.stand(&mut upload, offset);
                self.again(Step::Send(upload), error, None)
            }
            _ => self.restart(error),
        }
    }

    /// Takes note that the registry holds the bytes before `offset`.
    pub(super) fn stand(&mut self, upload: &mut Upload, offset: u64) {
        upload.offset = offset;
        self.gets_on(upload, offset);
    }

    /// Takes note that the registry has come so far.
    pub(super) fn gets_on(&mut self, upload: &Upload, offset: u64) {
        if self.budget.acknowledge(offset, upload.chunk, self.size()) {
            self.backoff.reset();
        }
    }

    fn accepted(&mut self, mut upload: Upload, range: &Range<u64>, reply: &Reply) -> Step {
        upload.follow(reply);
        upload.sent = upload.sent.max(range.end);
        upload.redirects = 0;
        self.reauthenticated = false;
        self.legacy = Legacy::None;
        self.last_break = None;
        let length = range.end - range.start;
        self.backoff.reset();
        self.limits.took(length, reply.elapsed);
        upload.before = Some(length);
        if !self.limits.equal_parts() {
            upload.chunk = self.limits.choose_at(range.end, self.size());
        }
        let kept = Stored::of(&reply.headers).map(|stored| stored.count);
        match kept {
            // `0-0` stands for nothing at all as well: gh:opencontainers/distribution-spec#578.
            Some(kept) if self.trust_range && range.start.max(1) < kept && kept < range.end => {
                upload.footing = Footing::Short { end: range.end };
                self.stand(&mut upload, kept);
                let message = format!("the registry kept {kept} of {}", counted(range.end, "byte"));
                self.again(Step::Send(upload), Error::new(ErrorKind::Refused, message), None)
            }
            kept => {
                self.trust_range &= kept == Some(range.end);
                upload.footing = Footing::Acknowledged;
                self.stand(&mut upload, range.end);
                Step::Send(upload)
            }
        }
    }

    /// A 416: the registry waits for another offset.
    fn misplaced(&mut self, mut upload: Upload, range: &Range<u64>, reply: &Reply, error: Error) -> Step {
        let moved = upload.follow(reply);
        if let Some(held) = words::expected_offset(reply.words()) {
            return self.correct(upload, range.start, held, moved, error);
        }
        if let Footing::Short { end } = upload.footing {
            // It had kept everything after all.
            self.trust_range = false;
            upload.footing = Footing::Acknowledged;
            self.stand(&mut upload, end);
            return self.again(Step::Send(upload), error, None);
        }
        match Stored::of(&reply.headers) {
            Some(stored) if self.trust_range => {
                self.correct(upload, range.start, stored.in_status(), moved, error)
            }
            _ if self.settings.profile.status => {
                let doubt = Doubt::Misplaced { start: range.start, moved };
                self.again(Step::Ask { upload, doubt, missed: false }, error, None)
            }
            _ => self.restart(error),
        }
    }

    /// The registry may hold any part of `range`.
    fn in_doubt(
        &mut self,
        mut upload: Upload,
        range: Range<u64>,
        error: Error,
        retry_after: Option<Duration>,
    ) -> Step {
        upload.sent = upload.sent.max(range.end);
        if self.settings.profile.status {
            let step = Step::Ask { upload, doubt: Doubt::Unknown { range }, missed: false };
            return self.again(step, error, retry_after);
        }
        // ECR tells only by refusing a chunk which byte it waits for, and 0 is what it waits for in the
        // beginning.
        if range.start == 0 || upload.footing == Footing::Probing {
            return match self.restart(error.clone()) {
                Step::Open => self.again(Step::Open, error, retry_after),
                ended => ended,
            };
        }
        upload.footing = Footing::Probing;
        self.again(Step::Send(upload), error, retry_after.or(Some(SETTLE)))
    }

    /// The registry wants no such PATCH at all: everything in one PUT, if that may be.
    fn chunks_refused(&mut self, error: Error) -> Step {
        if self.way != Way::Chunks || !self.fits_whole() {
            return Step::Ended(Err(error));
        }
        self.way = Way::Whole;
        self.warnings.push(format!("going on with the blob in one piece: {}", error::chain(&error)));
        self.restart(error)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Fault, Settings, script::*};
    use crate::registry::{Lesson, hosts};

    #[test]
    fn a_body_too_large_begins_anew_with_less() {
        let large = || Settings { chunk_size: None, ..settings() };
        let answers = vec![opened(), status(413), opened().at("b")];
        let (mut session, done) = play_with(large(), &blob(40 * MIB), answers);
        assert_eq!(done, format!("POST, 0..{}, POST, 0..{} @b", 16 * MIB, 8 * MIB));
        assert_eq!(session.lesson().body_limit, Some(8 * MIB));
        assert!(session.take_shrunk().is_some() && session.most() == 8 * MIB);
        // A blob of one chunk as well.
        let answers = vec![opened(), status(413), opened()];
        assert_eq!(
            play_with(large(), &blob(10 * MIB), answers).1,
            format!("POST, PUT {}, POST, 0..{}", 10 * MIB, 8 * MIB)
        );
        // GHCR says it by 416, and how much it takes.
        let words = "chunk exceeds the maximum permissible limit of 4.00MiB";
        let answers = vec![opened(), status(416).words(words), opened()];
        assert_eq!(
            play_with(large(), &blob(40 * MIB), answers).1,
            format!("POST, 0..{}, POST, 0..{}", 16 * MIB, 4 * MIB)
        );
    }

    #[test]
    fn who_does_not_know_the_method_gets_the_blob_in_one_piece() {
        for code in [400, 405, 501] {
            let answers = vec![opened(), status(code), opened(), status(201)];
            assert_eq!(play(25, answers), "POST, 0..10, POST, PUT 25, uploaded", "{code}");
        }
        assert!(play(25, vec![opened(), status(507)]).contains("0..10, refused: "));
    }

    /// A line on which 16 MiB are too little: 200 ms and 125 MB/s.
    fn far(answer: Answer, size: u64) -> Answer {
        answer.after(Duration::from_millis(200) + Duration::from_micros(size / 125))
    }

    #[test]
    fn on_a_far_line_chunks_grow() {
        let large = || Settings { chunk_size: None, ..settings() };
        let answers = || vec![far(opened(), 0), far(holds(16 * MIB), 16 * MIB)];
        // 60 MiB, and a little more so that three are enough for the rest.
        let grown = format!("POST, 0..{}, {}..{}", 16 * MIB, 16 * MIB, 81 * MIB);
        let (session, done) = play_with(large(), &blob(200 * MIB), answers());
        assert_eq!(done, grown);
        // Still larger ones are for a registry that has taken these.
        let proven = answers().into_iter().chain([far(holds(81 * MIB), 65 * MIB)]).collect();
        let done = play_with(large(), &blob(200 * MIB), proven).1;
        assert_eq!(done, format!("{grown}, {}..{}", 81 * MIB, 200 * MIB));
        // The next blob begins so.
        let settings = || Settings { lesson: session.lesson(), ..large() };
        for (size, first) in [(236 * MIB, "POST, 0..62914560"), (64 * MIB, "POST, PUT 67108864")] {
            assert_eq!(play_with(settings(), &blob(size), vec![far(opened(), 0)]).1, first);
        }
        // Not in the middle of a session where the registry speaks of parts.
        let minimum = far(opened().header("oci-chunk-min-length", "5242880"), 0);
        let answers = vec![minimum, far(holds(16 * MIB), 16 * MIB)];
        let done = play_with(large(), &blob(200 * MIB), answers).1;
        assert_eq!(done, format!("POST, 0..{}, {}..{}", 16 * MIB, 16 * MIB, 32 * MIB));
    }

    #[test]
    fn on_a_slow_line_chunks_shrink() {
        let large = || Settings { chunk_size: None, ..settings() };
        // A minute for 16 MiB: half of that is sent in half a minute.
        let minute = Duration::from_secs(60);
        let answers = vec![opened().after(Duration::ZERO), holds(16 * MIB).after(minute)];
        let ends_at = |done: &str, expected: u64| {
            let end: u64 = done.rsplit("..").next().unwrap().parse().unwrap();
            assert!(end.abs_diff(expected) < 64, "{done}");
        };
        let (session, done) = play_with(large(), &blob(200 * MIB), answers);
        ends_at(&done, 24 * MIB);
        // Parts of one size shrink in the next session, and never below what the registry wants.
        let equal = |least| opened().header("oci-chunk-min-length", least);
        let answers = vec![equal("1048576"), holds(16 * MIB).after(minute)];
        let done = play_with(large(), &blob(200 * MIB), answers).1;
        assert_eq!(done, format!("POST, 0..{}, {}..{}", 16 * MIB, 16 * MIB, 32 * MIB));
        let next = || Settings { lesson: session.lesson(), ..large() };
        for (least, chunk) in [("1048576", 8 * MIB), ("10485760", 10 * MIB)] {
            ends_at(&play_with(next(), &blob(200 * MIB), vec![equal(least)]).1, chunk);
        }
    }

    #[test]
    fn a_refusal_right_after_growth_means_that_parts_must_be_equal() {
        let large = Settings { chunk_size: None, ..settings() };
        for refusal in [status(416), status(400)] {
            let answers = vec![
                far(opened(), 0),
                far(holds(16 * MIB), 16 * MIB),
                refusal,
                far(opened().at("b"), 0),
                far(holds(60 * MIB).at("b"), 60 * MIB),
                far(holds(120 * MIB).at("b"), 60 * MIB),
            ];
            let (session, done) = play_with(large.clone(), &blob(178 * MIB), answers);
            let parts = format!(
                "POST, 0..{a}, {a}..{b}, POST, 0..{c} @b, {c}..{d} @b, {d}..{e} @b",
                a = 16 * MIB,
                b = 76 * MIB,
                c = 60 * MIB,
                d = 120 * MIB,
                e = 178 * MIB,
            );
            assert_eq!(done, parts);
            assert!(session.lesson().equal_parts);
        }
    }

    #[test]
    fn a_refusal_right_after_growth_that_names_another_byte_is_about_the_place() {
        let large = Settings { chunk_size: None, ..settings() };
        let elsewhere = status(416).range(&format!("0-{}", 16 * MIB - 11));
        let answers = vec![far(opened(), 0), far(holds(16 * MIB), 16 * MIB), elsewhere, opened()];
        let (session, _) = play_with(large, &blob(40 * MIB), answers);
        assert!(!session.lesson().equal_parts);
    }

    #[test]
    fn a_bad_line_that_gets_on_is_not_given_up() {
        let profile = hosts::Profile { may_grow: false, ..hosts::Profile::ORDINARY };
        let large = Settings { chunk_size: None, profile, ..settings() };
        let mut answers = vec![opened(), holds(16 * MIB)];
        for count in 17..32 {
            answers.extend([reset(2 * MIB), holds(count * MIB), holds(count * MIB)]);
        }
        let done = play_with(large, &blob(40 * MIB), answers).1;
        assert!(done.ends_with(&format!("{}..{}", 31 * MIB, 40 * MIB)), "{done}");
    }

    #[test]
    fn a_size_below_which_nothing_goes_is_explained() {
        let done = play(25, vec![opened(), status(413)]);
        assert!(done.contains("refused: the registry, or a proxy before it, refuses even a body"), "{done}");
        let large = Settings { chunk_size: None, ..settings() };
        let minimum = opened().header("oci-chunk-min-length", "10485760");
        let done = play_with(large, &blob(40 * MIB), vec![minimum, status(413)]).1;
        assert!(done.contains("wants chunks of at least 10485760 bytes but takes at most 8388608"), "{done}");
        let profile = hosts::profile("gcr.io");
        let whole = Settings { profile, ..settings() };
        let done = play_with(whole, &blob(40 * MIB), vec![opened(), status(413)]).1;
        assert!(done.contains("takes no chunks"), "{done}");
    }

    #[test]
    fn two_breaks_at_the_same_place_are_a_limit() {
        let profile = hosts::Profile { may_grow: false, ..hosts::Profile::ORDINARY };
        let large = || Settings { chunk_size: None, profile, ..settings() };
        let nothing = || status(204).range("0--1");
        let answers = vec![
            opened(),
            reset(70_000),
            nothing(),
            nothing(),
            opened(),
            reset(90_000),
            opened(),
            reset(80_000),
            opened(),
        ];
        let first = format!("0..{}", 16 * MIB);
        assert_eq!(
            play_with(large(), &blob(40 * MIB), answers).1,
            format!(
                "POST, {first}, wait, GET, wait, GET, POST, {first}, POST, 0..{}, POST, 0..{}",
                8 * MIB,
                5 * MIB
            )
        );
        // Not where a chunk of that size went through.
        let held = || holds(16 * MIB);
        let answers = vec![opened(), held(), reset(70_000), held(), held(), reset(70_000), held(), held()];
        let done = play_with(large(), &blob(40 * MIB), answers).1;
        assert!(done.ends_with(&format!("{}..{}", 16 * MIB, 32 * MIB)), "{done}");
    }

    #[test]
    fn what_the_registry_holds_when_bodies_break_at_one_place_is_not_sent_again() {
        let profile = hosts::Profile { may_grow: false, ..hosts::Profile::ORDINARY };
        let large = |profile| Settings { chunk_size: None, profile, ..settings() };
        let held = |count: u64| [holds(count * MIB), holds(count * MIB)];
        let twice = |then: [Answer; 2]| {
            let first = [opened(), reset(5 * MIB)].into_iter().chain(held(5));
            first.chain([reset(5 * MIB + 9)]).chain(then).collect()
        };
        let second = format!("{}..{}", 5 * MIB, 21 * MIB);
        for kept in [5, 10] {
            let (session, done) = play_with(large(profile), &blob(40 * MIB), twice(held(kept)));
            let third = format!("{}..{}", kept * MIB, (kept + 8) * MIB);
            assert!(done.ends_with(&format!("{second}, wait, GET, wait, GET, {third}")), "{done}");
            assert_eq!(session.lesson().bearable, Some(8 * MIB));
        }
        // Where parts are to be equal an upload has no smaller ones.
        let equal = hosts::Profile { equal_parts: true, ..profile };
        let done = play_with(large(equal), &blob(40 * MIB), twice([opened(), opened()])).1;
        assert!(done.contains(&format!("{second}, POST, 0..{}", 8 * MIB)), "{done}");
    }

    #[test]
    fn breaks_are_at_one_place_within_what_kernels_hold_if_nothing_was_kept() {
        let profile = hosts::Profile { may_grow: false, ..hosts::Profile::ORDINARY };
        let large = || Settings { chunk_size: None, profile, ..settings() };
        let nothing = || status(204).range("0--1");
        // A proxy that cut each after 10 MiB; then one more at once, since a limit is suspected already.
        let answers = vec![
            opened(),
            reset(15 * MIB),
            nothing(),
            nothing(),
            opened(),
            reset(16 * MIB),
            opened(),
            reset(8 * MIB),
            opened(),
        ];
        let (session, done) = play_with(large(), &blob(40 * MIB), answers);
        let first = format!("0..{}", 16 * MIB);
        assert_eq!(
            done,
            format!(
                "POST, {first}, wait, GET, wait, GET, POST, {first}, POST, 0..{}, POST, 0..{}",
                8 * MIB,
                5 * MIB
            )
        );
        assert_eq!(session.lesson().bearable, Some(5 * MIB));
        // What was kept shows that it is the line.
        let held = |bytes| holds(bytes * MIB);
        let answers = vec![opened(), reset(9 * MIB), held(7), held(7), reset(10 * MIB), held(12), held(12)];
        let (session, done) = play_with(large(), &blob(40 * MIB), answers);
        assert!(done.ends_with(&format!("{}..{}", 12 * MIB, 28 * MIB)), "{done}");
        assert_eq!(session.lesson().bearable, None);
    }

    #[test]
    fn a_small_body_that_breaks_for_the_third_time_is_cut() {
        // What the kernels took says nothing about what was read.
        let large = || Settings { chunk_size: None, ..settings() };
        let broken = |sent| vec![opened(), reset(sent), status(404)];
        let answers = [MIB, 3 * MIB, 2 * MIB].into_iter().flat_map(broken).collect::<Vec<_>>();
        let last = answers.len() - 1;
        let answers = answers.into_iter().take(last).chain([opened(), holds(MIB)]).collect();
        let (session, done) = play_with(large(), &blob(3 * MIB), answers);
        let whole = format!("POST, PUT {}", 3 * MIB);
        let missed = format!("{whole}, wait, HEAD");
        assert_eq!(done, format!("{missed}, {missed}, {whole}, POST, 0..{MIB}, {MIB}..{}", 2 * MIB));
        assert_eq!((session.lesson().bearable, session.lesson().seeming_limit), (Some(MIB), None));
        // Not while the registry gets on.
        let profile = hosts::Profile { chunk_size: 8 * MIB, may_grow: false, ..hosts::Profile::ORDINARY };
        let mut answers = vec![opened()];
        for (sent, held) in [(2, 1), (5, 2), (3, 3), (6, 4)] {
            answers.extend([reset(sent * MIB), holds(held * MIB), holds(held * MIB)]);
        }
        let (session, _) = play_with(Settings { profile, ..large() }, &blob(40 * MIB), answers);
        assert_eq!(session.lesson().bearable, None);
    }

    #[test]
    fn a_gateway_that_loses_the_registry_at_one_body_twice_is_tried_with_less() {
        let profile = hosts::Profile { may_grow: false, ..hosts::Profile::ORDINARY };
        let large = || Settings { chunk_size: None, profile, ..settings() };
        let nothing = || status(404);
        let first = format!("POST, 0..{}, wait, GET, wait, GET", 16 * MIB);
        for code in [502, 504] {
            let once = || vec![opened(), status(code), nothing(), nothing()];
            let answers =
                once().into_iter().chain([opened(), status(code), opened(), status(code), opened()]);
            let (mut session, done) = play_with(large(), &blob(40 * MIB), answers.collect());
            let then = format!("POST, 0..{}, POST, 0..{}, POST, 0..{}", 16 * MIB, 8 * MIB, 5 * MIB);
            assert_eq!(done, format!("{first}, {then}"), "{code}");
            let words =
                format!("the registry answers bodies of 8 MiB by {code}; going on with chunks of 5 MiB");
            assert_eq!(session.take_shrunk(), Some(words));
            // It may have been an accident each time: the next push begins as large again.
            assert_eq!((session.lesson().body_limit, session.lesson().seeming_limit), (None, None));
        }
        // A blob of one chunk as well.
        let once = || vec![opened(), status(502), nothing()];
        let answers = once().into_iter().chain([opened(), status(502), opened()]).collect();
        let whole = format!("POST, PUT {}", 10 * MIB);
        let done = play_with(large(), &blob(10 * MIB), answers).1;
        assert_eq!(done, format!("{whole}, wait, HEAD, {whole}, POST, 0..{}", 8 * MIB));
        // What a registry itself is troubled by is no matter of size.
        for code in [500, 503] {
            let answers = [opened(), status(code), nothing(), nothing(), opened(), status(code)];
            let (session, _) = play_with(large(), &blob(40 * MIB), answers.into());
            assert_eq!(session.lesson().bearable, None, "{code}");
        }
        // Nor is a registry that is away in between.
        let held = || holds(16 * MIB);
        let answers = vec![opened(), held(), status(502), held(), held(), status(502), held(), held()];
        let (session, _) = play_with(large(), &blob(40 * MIB), answers);
        assert_eq!(session.lesson().bearable, None);
    }

    #[test]
    fn what_breaks_suggest_is_kept_if_it_is_evident_and_less_goes_through() {
        let profile = hosts::Profile { may_grow: false, ..hosts::Profile::ORDINARY };
        let large = Settings { chunk_size: None, profile, ..settings() };
        let nothing = || status(204).range("0--1");
        for (first, second, seeming) in
            [(5 * MIB, 5 * MIB + 9, Some(8 * MIB)), (3 * MIB, 9 * MIB, None), (16 * MIB, 16 * MIB, None)]
        {
            let broken = || vec![opened(), reset(first), nothing(), nothing(), opened(), reset(second)];
            let lesson = |answers| {
                let (session, _) = play_with(large.clone(), &blob(40 * MIB), answers);
                let lesson = session.lesson();
                (lesson.body_limit, lesson.bearable, lesson.seeming_limit)
            };
            assert_eq!(lesson(broken()), (None, Some(8 * MIB), None));
            let through = broken().into_iter().chain([opened(), holds(8 * MIB)]).collect();
            assert_eq!(lesson(through), (None, Some(8 * MIB), seeming), "{first} {second}");
        }
    }

    #[test]
    fn a_suspicion_gives_way_to_what_the_registry_wants() {
        let lesson = Lesson { seeming_limit: Some(4 * MIB), ..Lesson::default() };
        let large = || Settings { chunk_size: None, lesson, ..settings() };
        let done = play_with(large(), &blob(40 * MIB), vec![opened()]).1;
        assert_eq!(done, format!("POST, 0..{}", 4 * MIB));
        let minimum = opened().header("oci-chunk-min-length", "5242880");
        let done = play_with(large(), &blob(40 * MIB), vec![minimum]).1;
        assert_eq!(done, format!("POST, 0..{}", 5 * MIB));
    }

    #[test]
    fn two_breaks_after_the_same_time_make_chunks_smaller() {
        let large = Settings { chunk_size: None, ..settings() };
        let broken = |sent, seconds| {
            let why = "connection reset".to_owned();
            Answer::Fault(Fault::Reset { sent, elapsed: Duration::from_secs(seconds), why })
        };
        let answers = vec![
            opened(),
            broken(9 * MIB, 60),
            holds(5 * MIB),
            holds(5 * MIB),
            broken(11 * MIB, 61),
            holds(6 * MIB),
            holds(6 * MIB),
        ];
        let mut answers = answers;
        answers.push(holds(14 * MIB).after(Duration::from_secs(40)));
        let (session, done) = play_with(large, &blob(40 * MIB), answers);
        assert!(done.contains(&format!(", {}..{}, ", 6 * MIB, 14 * MIB)), "{done}");
        assert_eq!(session.lesson().seeming_limit, Some(8 * MIB));
    }

    #[test]
    fn a_gateway_that_lets_as_much_of_each_body_through_is_taken_at_that() {
        let profile = hosts::Profile { may_grow: false, ..hosts::Profile::ORDINARY };
        let large = || Settings { chunk_size: None, profile, ..settings() };
        let session = |held: &[u64], code| {
            let mut answers = vec![opened()];
            for held in held {
                answers.extend([status(code), holds(*held), holds(*held)]);
            }
            answers.push(kept(held.last().unwrap() + 10_000_000));
            play_with(large(), &blob(100 * MIB), answers)
        };
        let (mut same, done) = session(&[10_000_000, 20_000_000, 30_000_000], 502);
        assert!(done.ends_with("30000000..40000000, 40000000..50000000"), "{done}");
        let words = "the registry answers bodies of 16 MiB by 502; going on with chunks of 10000000 bytes";
        assert_eq!(same.take_shrunk().as_deref(), Some(words));
        assert_eq!(same.lesson().seeming_limit, Some(10_000_000));
        // A registry that is away for a while teaches nothing, nor one that has troubles of its own.
        for (held, code) in [
            ([10_000_000, 20_000_001, 30_000_000].as_slice(), 502),
            (&[10_000_000, 20_000_000], 502),
            (&[10_000_000, 20_000_000, 30_000_000], 500),
            (&[10_000, 20_000, 30_000], 502),
        ] {
            let (session, done) = session(held, code);
            let lesson = session.lesson();
            assert_eq!((lesson.seeming_limit, lesson.bearable), (None, None), "{held:?} {code}: {done}");
        }
    }

    #[test]
    fn a_short_accept_is_resent_from_there() {
        let answers = vec![opened(), kept(4), kept(14), kept(16), status(201)];
        assert_eq!(play(16, answers), "POST, 0..10, wait, 4..14, 14..16, PUT, uploaded");
    }

    #[test]
    fn a_short_accept_that_was_a_lie_is_found_out() {
        let answers = vec![opened(), kept(10), kept(14), status(416), kept(3), status(201)];
        assert_eq!(play(28, answers), "POST, 0..10, 10..20, wait, 14..24, wait, 20..28, PUT, uploaded");
    }

    #[test]
    fn a_range_that_cannot_be_is_ignored_for_good() {
        for range in ["0-9", "0-0", "0-99", "nonsense", "0--1", ""] {
            let odd = if range.is_empty() { status(202) } else { status(202).range(range) };
            // Once untrusted, a short one is ignored as well.
            let answers = vec![opened(), kept(10), odd, kept(23), kept(35), status(201)];
            assert_eq!(play(35, answers), "POST, 0..10, 10..20, 20..30, 30..35, PUT, uploaded", "{range}");
        }
    }

    #[test]
    fn ecr_is_not_believed_a_word() {
        let profile = hosts::profile("1.dkr.ecr.eu-west-1.amazonaws.com");
        let ecr = Settings { profile, ..settings() };
        let stuck = || status(201).range("0-3");
        let answers = vec![opened(), stuck(), stuck(), status(201)];
        assert_eq!(play_with(ecr, &blob(15), answers).1, "POST, 0..10, 10..15, PUT, uploaded");
    }

    #[test]
    fn a_416_that_says_where_is_followed() {
        // By its Range, after a broken chunk of which the status said too little.
        let answers = vec![
            opened(),
            kept(10),
            reset(5),
            holds(10),
            holds(10),
            status(416).range("0-13").at("b"),
            kept(24),
            kept(27),
            status(201),
        ];
        assert_eq!(
            play(27, answers),
            "POST, 0..10, 10..20, wait, GET, wait, GET, 10..20, wait, 14..24 @b, 24..27 @b, PUT @b, uploaded"
        );
    }

    #[test]
    fn a_416_that_says_nothing_is_followed_by_a_status() {
        let answers =
            vec![opened(), kept(10), reset(5), holds(10), holds(10), status(416), holds(13), kept(23)];
        assert_eq!(
            play(25, answers),
            "POST, 0..10, 10..20, wait, GET, wait, GET, 10..20, wait, GET, wait, 13..23, 23..25"
        );
    }

    #[test]
    fn a_416_by_which_nobody_knows_begins_anew() {
        let answers = vec![opened(), kept(10), status(416), status(204), opened().at("b")];
        assert_eq!(play(25, answers), "POST, 0..10, 10..20, wait, GET, POST, 0..10 @b");
        // Neither 0 nor what was never sent is an offset to go on at.
        for range in ["0--1", "0-99"] {
            let answers = vec![opened(), kept(10), status(416).range(range), opened().at("b")];
            assert_eq!(play(25, answers), "POST, 0..10, 10..20, POST, 0..10 @b", "{range}");
        }
    }

    #[test]
    fn a_stale_location_is_replaced_by_the_right_one() {
        let answers = vec![opened(), kept(10), status(416).range("0-9").at("b"), kept(20)];
        assert_eq!(play(25, answers), "POST, 0..10, 10..20, wait, 10..20 @b, 20..25 @b");
        // The same answer at the same place helps nobody.
        let answers = vec![opened(), kept(10), status(416).range("0-9"), opened().at("b")];
        assert_eq!(play(25, answers), "POST, 0..10, 10..20, POST, 0..10 @b");
    }

    #[test]
    fn quay_counts_one_too_many() {
        // In a status, written `bytes=`.
        let status_of_13 = || status(204).range("bytes=0-13");
        let answers = vec![opened(), kept(10), reset(5), status_of_13(), status_of_13(), kept(23)];
        assert_eq!(play(27, answers), "POST, 0..10, 10..20, wait, GET, wait, GET, 13..23, 23..27");
        // In a 416, without.
        let refused = || status(416).range("0-13");
        let answers =
            vec![opened(), kept(10), reset(5), holds(10), holds(10), refused(), refused(), kept(23)];
        assert_eq!(
            play(27, answers),
            "POST, 0..10, 10..20, wait, GET, wait, GET, 10..20, wait, 14..24, wait, 13..23, 23..27"
        );
    }

    #[test]
    fn where_no_status_is_to_be_had_one_chunk_probes() {
        let profile = hosts::profile("1.dkr.ecr.eu-west-1.amazonaws.com");
        let ecr = || Settings { profile, ..settings() };
        let patched = || status(201).range("0-9");
        let words = "First byte of the layer part is 10 instead of 16";
        let answers = vec![opened(), patched(), status(500), status(416).words(words), patched(), patched()];
        assert_eq!(
            play_with(ecr(), &blob(28), answers).1,
            "POST, 0..10, 10..20, wait, 10..20, wait, 16..26, 26..28, PUT"
        );
        // It was not kept: the probe is the repetition.
        let answers = vec![opened(), patched(), reset(5), patched()];
        assert_eq!(play_with(ecr(), &blob(25), answers).1, "POST, 0..10, 10..20, wait, 10..20, 20..25");
        // One, and never at 0.
        let answers = vec![opened(), patched(), reset(5), reset(5), opened().at("b")];
        assert_eq!(
            play_with(ecr(), &blob(25), answers).1,
            "POST, 0..10, 10..20, wait, 10..20, wait, POST, 0..10 @b"
        );
        let answers = vec![opened(), reset(5), opened().at("b")];
        assert_eq!(play_with(ecr(), &blob(25), answers).1, "POST, 0..10, wait, POST, 0..10 @b");
    }

    #[test]
    fn a_host_that_refuses_chunks_gets_the_blob_whole() {
        let answers = vec![opened(), kept(10), status(400), opened().at("b"), status(201)];
        assert_eq!(play(25, answers), "POST, 0..10, 10..20, POST, PUT 25 @b, uploaded");
        // Not beyond what it takes.
        let answers = vec![opened().header("oci-chunk-max-length", "20"), kept(10), status(400)];
        assert!(play(25, answers).starts_with("POST, 0..10, 10..20, refused: "));
    }
}
