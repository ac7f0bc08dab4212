//! The answers to a PATCH: accepted, kept in part, refused, or nobody knows.
//!
//! Bytes whose fate is unknown are never sent again before the registry has said how far it is: a replay
//! into the same session doubles them (gh:GoogleContainerTools/jib#4526).

use std::ops::Range;

use super::{Doubt, Fault, Footing, Legacy, Reply, Session, Step, Upload, Way, range::Stored, retry};
use crate::error::{self, Error, ErrorKind, counted};

/// Returns whether a refusal may be that of a chunk that is larger than the one before, and not too large by itself.
fn blames_growth(reply: &Reply, start: u64) -> bool {
    match reply.status {
        _ if reply.is_too_large() => false,
        // It may wait for another byte, and say so.
        416 => {
            let elsewhere = Stored::of(&reply.headers).is_some_and(|stored| stored.count != start);
            !elsewhere && reply.expected_offset().is_none()
        }
        status => matches!(status, 400..=499) && !matches!(status, 403 | 404 | 408 | 429 | 499),
    }
}

impl Session {
    pub(super) fn patched(
        &mut self,
        mut upload: Upload,
        range: Range<u64>,
        reply: &Reply,
        error: Error,
    ) -> Step {
        let length = range.end - range.start;
        if upload.before.is_some_and(|before| before < length) && blames_growth(reply, range.start) {
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
            _ if reply.is_too_large() => self.shrink(length, reply, error),
            416 => self.misplaced(upload, &range, reply, error),
            // Turned away before a byte was stored.
            429 => self.again(Step::Send(upload), error),
            status if retry::is_transient(status) => {
                upload.follow(reply);
                let suspect = self.suspect_answer(&range, reply);
                match self.heed(&mut upload, length, suspect, &error) {
                    Some(step) => step,
                    None => self.in_doubt(upload, range, error),
                }
            }
            // A proxy that does not know the method answers 501.
            400..=499 | 501 => self.chunks_refused(error),
            _ => Step::Ended(Err(error)),
        }
    }

    pub(super) fn patch_broke(
        &mut self,
        mut upload: Upload,
        range: Range<u64>,
        fault: &Fault,
        error: Error,
    ) -> Step {
        let suspect = self.suspect_fault(&range, fault);
        match self.heed(&mut upload, range.end - range.start, suspect, &error) {
            Some(step) => step,
            None if fault.reached() => self.in_doubt(upload, range, error),
            None => self.again(Step::Send(upload), error),
        }
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
                self.again(Step::Send(upload), error)
            }
            _ => self.restart(error),
        }
    }

    /// Takes note that the registry holds the bytes before `offset`.
    pub(super) fn stand(&mut self, upload: &mut Upload, offset: u64) {
        upload.offset = offset;
        self.attempts.get_on(offset, upload.chunk, self.size());
    }

    fn accepted(&mut self, mut upload: Upload, range: &Range<u64>, reply: &Reply) -> Step {
        upload.follow(reply);
        upload.sent = upload.sent.max(range.end);
        upload.redirects = 0;
        self.attempts.let_in();
        self.legacy = Legacy::None;
        self.last_break = None;
        let length = range.end - range.start;
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
                self.again(Step::Send(upload), Error::new(ErrorKind::Refused, message))
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
        if let Some(held) = reply.expected_offset() {
            return self.correct(upload, range.start, held, moved, error);
        }
        if let Footing::Short { end } = upload.footing {
            // It had kept everything after all.
            self.trust_range = false;
            upload.footing = Footing::Acknowledged;
            self.stand(&mut upload, end);
            return self.again(Step::Send(upload), error);
        }
        match Stored::of(&reply.headers) {
            Some(stored) if self.trust_range => {
                self.correct(upload, range.start, stored.in_status(), moved, error)
            }
            _ if self.settings.profile.status => {
                let doubt = Doubt::Misplaced { start: range.start, moved };
                self.again(Step::ask(upload, doubt), error)
            }
            _ => self.restart(error),
        }
    }

    /// The registry may hold any part of `range`.
    fn in_doubt(&mut self, mut upload: Upload, range: Range<u64>, error: Error) -> Step {
        upload.sent = upload.sent.max(range.end);
        if self.settings.profile.status {
            let step = Step::ask(upload, Doubt::Unknown { range });
            return self.again(step, error);
        }
        // ECR tells only by refusing a chunk which byte it waits for, and 0 is what it waits for in the
        // beginning.
        if range.start == 0 || upload.footing == Footing::Probing {
            return match self.restart(error.clone()) {
                Step::Open => self.again(Step::Open, error),
                ended => ended,
            };
        }
        upload.footing = Footing::Probing;
        self.again_settled(Step::Send(upload), error)
    }

    /// The registry wants no such PATCH at all: everything in one PUT, if that may be.
    fn chunks_refused(&mut self, error: Error) -> Step {
        if !self.may_go_whole() {
            return Step::Ended(Err(error));
        }
        self.way = Way::Whole;
        self.news.warnings.push(format!("going on with the blob in one piece: {}", error::chain(&error)));
        self.restart(error)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Lesson, Pace, Session, Settings, Spool, script::*};
    use crate::registry::hosts;

    #[test]
    fn a_body_too_large_begins_anew_with_less() {
        let large = || Settings { chunk_size: None, ..settings() };
        let answers = vec![opened(), status(413), opened().at("b")];
        let (mut session, done) = play_with(large(), &blob(40 * MIB), answers);
        assert_eq!(done, format!("POST, 0..{}, POST, 0..{} @b", 16 * MIB, 8 * MIB));
        assert_eq!(session.lesson().body_limit, Some(8 * MIB));
        assert!(session.take_news().shrunk.is_some() && session.most() == 8 * MIB);
        // Even if one of that size went through before.
        let asked = Settings { chunk_size: Some(16 * MIB), ..settings() };
        let answers = vec![opened(), holds(16 * MIB), status(413), opened()];
        let lesson = play_with(asked, &blob(40 * MIB), answers).0.lesson();
        assert_eq!(Lesson::default().and(lesson).body_limit, Some(8 * MIB));
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
        // Once it is known how much that is.
        let growing = Spool { written: 25, ..Spool::default() };
        let done = play_on(Session::new(settings()), &growing, vec![opened(), status(405)]).1;
        assert_eq!(done, "POST, 0..10, more");
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
    fn a_refusal_right_after_growth_that_says_what_it_is_about_is_believed() {
        let large = || Settings { chunk_size: None, ..settings() };
        let words = |words| status(416).words(words);
        for (refusal, goes_on) in [
            (
                words("First byte of the layer part is 16777216 instead of 10"),
                format!("wait, 10..{}", 65 * MIB + 10),
            ),
            (
                words("chunk exceeds the maximum permissible limit of 4.00MiB"),
                format!("POST, 0..{}", 4 * MIB),
            ),
            (status(403), "denied: ".to_owned()),
            (status(404), "wait, GET".to_owned()),
            (status(408), "wait, GET".to_owned()),
            (status(413), format!("POST, 0..{}", 60 * MIB)),
            (status(429), format!("wait, {}..{}", 16 * MIB, 81 * MIB)),
            (status(499), "wait, GET".to_owned()),
        ] {
            let mut answers = vec![far(opened(), 0), far(holds(16 * MIB), 16 * MIB), refusal];
            if goes_on.starts_with("POST") {
                answers.push(far(opened(), 0));
            }
            let (session, done) = play_with(large(), &blob(200 * MIB), answers);
            let grown = format!("POST, 0..{}, {}..{}, {goes_on}", 16 * MIB, 16 * MIB, 81 * MIB);
            assert!(done.starts_with(&grown) && !session.lesson().equal_parts, "{grown}: {done}");
        }
    }

    #[test]
    fn a_bad_line_that_gets_on_is_not_given_up() {
        let profile = hosts::Profile { may_grow: false, ..hosts::Profile::ORDINARY };
        let pace = Pace { random: || 1.0, ..Pace::default() };
        let large = Settings { chunk_size: None, profile, pace, ..settings() };
        let mut answers = vec![opened(), holds(16 * MIB)];
        for count in 17..32 {
            answers.extend([reset(2 * MIB), holds(count * MIB), holds(count * MIB)]);
        }
        let done = play_with(large, &blob(40 * MIB), answers).1;
        assert!(done.ends_with(&format!("{}..{}", 31 * MIB, 40 * MIB)), "{done}");
        // Nor is it waited for ever longer.
        assert!(!done.contains("wait 2"), "{done}");
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
    fn what_went_through_is_as_large_as_its_body() {
        let (session, _) = play_with(settings(), &blob(30), vec![opened(), kept(10), kept(20)]);
        assert_eq!(session.lesson().largest_taken, 10);
        // Which takes no limit back that is larger.
        let lesson = Lesson { seeming_limit: Some(30), ..Lesson::default() };
        let (session, _) = play_with(Settings { lesson, ..settings() }, &blob(30), vec![opened(), kept(10)]);
        assert_eq!(session.lesson().seeming_limit, Some(30));
    }

    #[test]
    fn a_short_accept_is_resent_from_there() {
        let answers = vec![opened(), kept(4), kept(14), kept(16), status(201)];
        assert_eq!(play(16, answers), "POST, 0..10, wait, 4..14, 14..16, PUT, uploaded");
        // What is refused after that has nothing to do with it.
        let answers = vec![opened(), kept(4), kept(14), status(416)];
        assert_eq!(play(27, answers), "POST, 0..10, wait, 4..14, 14..24, wait, GET");
    }

    #[test]
    fn a_short_accept_that_was_a_lie_is_found_out() {
        // Nor is it believed again.
        let answers = vec![opened(), kept(10), kept(14), status(416), kept(23), status(201)];
        assert_eq!(play(28, answers), "POST, 0..10, 10..20, wait, 14..24, wait, 20..28, PUT, uploaded");
        let answers = vec![opened(), kept(10), kept(14), status(416), status(416)];
        assert_eq!(play(28, answers), "POST, 0..10, 10..20, wait, 14..24, wait, 20..28, wait, GET");
    }

    #[test]
    fn a_range_that_cannot_be_is_ignored_for_good() {
        for range in ["0-9", "0-0", "0-99", "nonsense", "0--1", ""] {
            let odd = if range.is_empty() { status(202) } else { status(202).range(range) };
            // Once untrusted, a short one is ignored as well.
            let answers = vec![opened(), kept(10), odd, kept(23), kept(35), status(201)];
            assert_eq!(play(35, answers), "POST, 0..10, 10..20, 20..30, 30..35, PUT, uploaded", "{range}");
        }
        let answers = vec![opened(), status(202).range("0-0")];
        assert_eq!(play(25, answers), "POST, 0..10, 10..20");
        // Nor is it believed when a chunk is refused.
        let answers = vec![opened(), status(202), status(416).range("0-4")];
        assert_eq!(play(25, answers), "POST, 0..10, 10..20, wait, GET");
    }

    #[test]
    fn ecr_is_not_believed_a_word() {
        let profile = hosts::profile("1.dkr.ecr.eu-west-1.amazonaws.com");
        let ecr = || Settings { profile, ..settings() };
        let stuck = || status(201).range("0-3");
        let answers = vec![opened(), stuck(), stuck(), status(201)];
        assert_eq!(play_with(ecr(), &blob(15), answers).1, "POST, 0..10, 10..15, PUT, uploaded");
        // Nor is it asked whether an upload is gone that it says is.
        let answers = vec![opened(), stuck(), status(404), opened().at("b")];
        assert_eq!(play_with(ecr(), &blob(15), answers).1, "POST, 0..10, 10..15, POST, 0..10 @b");
        let answers = vec![opened(), stuck(), status(416), opened().at("b")];
        assert_eq!(play_with(ecr(), &blob(15), answers).1, "POST, 0..10, 10..15, POST, 0..10 @b");
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
        // Not if it has refused that byte as well.
        let refused = || status(416).range("0-10");
        let answers =
            vec![opened(), kept(10), reset(5), holds(10), holds(10), refused(), refused(), opened()];
        assert_eq!(
            play(27, answers),
            "POST, 0..10, 10..20, wait, GET, wait, GET, 10..20, wait, 11..21, POST, 0..10"
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
