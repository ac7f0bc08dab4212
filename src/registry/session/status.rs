//! The answers to a status GET: how many bytes does the registry hold, and may that be believed?

use std::ops::Range;

use super::{Footing, Reply, Session, Step, Upload, range::Stored, retry};
use crate::error::{Error, ErrorKind, counted, sized};

/// Why the registry is asked.
#[derive(Debug)]
pub(super) enum Doubt {
    /// A chunk was refused because there is no such upload.
    Lost,
    /// A chunk that began at `start` was refused as out of order; `moved` if by another Location.
    Misplaced { start: u64, moved: bool },
    /// A chunk up to `end` was refused for want of a fresh token.
    Refused { end: u64 },
    /// The session is an earlier process's.
    Resumed,
    /// All was sent, but the closing PUT did not make a blob of it.
    Uncommitted,
    /// A chunk was sent and nobody knows how much of it was kept.
    Unknown { range: Range<u64> },
    /// The same, and the registry has said once that it holds so much.
    Unsettled { range: Range<u64>, before: Option<u64> },
}

impl Session {
    pub(super) fn told(
        &mut self,
        mut upload: Upload,
        doubt: Doubt,
        missed: bool,
        reply: &Reply,
        error: Error,
    ) -> Step {
        match reply.status {
            200..=204 => {
                upload.follow(reply);
                if let Err(impossible) = self.limits.read(&reply.headers, &mut self.news.warnings) {
                    return Step::Ended(Err(impossible));
                }
                let rest = self.size().map_or(u64::MAX, |size| size.saturating_sub(upload.offset));
                if self.limits.advertised().1.is_some_and(|most| upload.chunk.min(rest) > most) {
                    // Parts of one size: smaller ones take another session.
                    let words = format!("the registry takes no chunks of {} any more", sized(upload.chunk));
                    return self.restart(Error::new(ErrorKind::Refused, words));
                }
                self.placed(upload, doubt, Stored::of(&reply.headers).map(Stored::in_status))
            }
            // A new session tells what is the matter, if it still is.
            400..=499 if matches!(doubt, Doubt::Resumed) && !retry::is_transient(reply.status) => Step::Open,
            403 => Step::Ended(Err(error)),
            404 | 405 => match doubt {
                Doubt::Uncommitted => self.restart(error),
                doubt if !missed => {
                    let step = Step::Ask { upload, doubt, missed: true };
                    self.soon(step, &error)
                }
                // The chunk itself will tell.
                Doubt::Refused { .. } => Step::Send(upload),
                _ => self.restart(error),
            },
            status if retry::is_transient(status) => {
                let step = Step::Ask { upload, doubt, missed };
                self.again(step, error)
            }
            _ => self.restart(error),
        }
    }

    /// The session is alive and holds so many bytes, if it says.
    fn placed(&mut self, mut upload: Upload, doubt: Doubt, held: Option<u64>) -> Step {
        let surprise = || {
            let message = match held {
                // `0-0` stands for both.
                Some(1) => "the registry says that it holds nothing of the upload, or 1 byte".to_owned(),
                Some(held) => {
                    format!("the registry says that it holds {} of the upload", counted(held, "byte"))
                }
                None => "the registry does not say how much of the upload it holds".to_owned(),
            };
            Error::new(ErrorKind::Refused, message)
        };
        match doubt {
            Doubt::Lost => self.again(Step::Send(upload), surprise()),
            Doubt::Misplaced { start, moved } => match held {
                Some(held) => self.correct(upload, start, held, moved, surprise()),
                None => self.restart(surprise()),
            },
            Doubt::Refused { end } => {
                // It was not to be taken, but may have been.
                let taken = held.filter(|held| self.trust_range && (upload.offset..=end).contains(held));
                if let Some(held) = taken {
                    self.stand(&mut upload, held);
                }
                Step::Send(upload)
            }
            Doubt::Resumed => match held {
                // `0-0` stands for nothing as well.
                Some(held) if held > 1 && self.size().is_none_or(|size| held <= size) => {
                    upload.sent = upload.sent.max(held);
                    upload.chunk = self.limits.within(upload.chunk);
                    // What the earlier process sent at last may still be on its way.
                    let doubt = Doubt::Unsettled { range: 0..upload.sent, before: Some(held) };
                    self.soon(Step::ask(upload, doubt), &surprise())
                }
                _ => Step::Open,
            },
            // There is no blob yet, so to commit once more does no harm.
            Doubt::Uncommitted if !self.trust_range || held.is_none_or(|held| held == upload.offset) => {
                Step::Send(upload)
            }
            Doubt::Uncommitted => self.restart(surprise()),
            // A server may still be swallowing what it was sent before the connection broke: only an answer
            // that stays the same is one.
            Doubt::Unknown { range } => {
                let doubt = Doubt::Unsettled { range, before: held };
                self.soon(Step::ask(upload, doubt), &surprise())
            }
            Doubt::Unsettled { range, before } if before != held => {
                if let Some(held) = held.filter(|held| (range.start..=range.end).contains(held)) {
                    self.attempts.get_on(held, upload.chunk, self.size());
                }
                let doubt = Doubt::Unsettled { range, before: held };
                self.again_settled(Step::ask(upload, doubt), surprise())
            }
            Doubt::Unsettled { range, .. } => match held {
                // `0-0` stands for nothing as well, and what was sent may still arrive: gone for good is
                // the only safe beginning at 0.
                Some(held) if held > 1 && (range.start..=range.end).contains(&held) => {
                    upload.footing = Footing::Acknowledged;
                    self.stand(&mut upload, held);
                    Step::Send(upload)
                }
                _ => self.restart(surprise()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Action, Fault, Held, Lesson, Pace, Session, Settings, Spool, script::*};
    use crate::{
        error::{Error, ErrorKind},
        registry::hosts,
    };

    #[test]
    fn an_earlier_process_may_still_be_heard() {
        let play = |answers| {
            let held = Held { location: place("a"), offset: 10, chunk: 10, equal_parts: false };
            play_on(Session::resume(settings(), held), &blob(27), answers).1
        };
        assert_eq!(play(vec![holds(10), holds(10)]), "GET, wait, GET, 10..20");
        let late = vec![holds(10), holds(15), holds(17), holds(17)];
        assert_eq!(play(late), "GET, wait, GET, wait, GET, wait, GET, 17..27");
        // Lost, or as good as that.
        for nothing in [status(404), status(204), status(204).range("0-0"), holds(28)] {
            assert_eq!(play(vec![nothing, status(404), opened().at("b")]), "GET, HEAD, POST, 0..10 @b");
        }
        // Not by a registry that is busy.
        assert_eq!(play(vec![status(429), holds(10), holds(10)]), "GET, wait, GET, wait, GET, 10..20");
        // Closed, when it was killed already or while we ask.
        assert_eq!(play(vec![status(404), status(200)]), "GET, HEAD, present");
        let closing = vec![holds(27), status(404), status(404), status(200)];
        assert_eq!(play(closing), "GET, wait, GET, wait, GET, HEAD, present");
        // Whoever does not answer, or takes no chunks, is not asked.
        for host in ["1.dkr.ecr.eu-west-1.amazonaws.com", "gcr.io"] {
            let settings = Settings { profile: hosts::profile(host), ..settings() };
            let held = Held { location: place("a"), offset: 10, chunk: 10, equal_parts: false };
            assert_eq!(play_on(Session::resume(settings, held), &blob(27), vec![]).1, "POST");
        }
        // What turns out to be no larger than a chunk is not sent in one piece behind what is there.
        let held = Held { location: place("a"), offset: 10, chunk: 30, equal_parts: true };
        let answers = vec![holds(10), holds(10)];
        let done = play_on(Session::resume(settings(), held), &blob(27), answers).1;
        assert_eq!(done, "GET, wait, GET, 10..27");
    }

    #[test]
    fn an_earlier_upload_that_cannot_be_asked_about_begins_anew() {
        let play = |answers| {
            let held = Held { location: place("a"), offset: 10, chunk: 10, equal_parts: false };
            play_on(Session::resume(settings(), held), &blob(27), answers).1
        };
        let five = |answer: fn() -> Answer| (0..5).map(|_| answer()).collect::<Vec<_>>();
        let fatal = || {
            Answer::Fault(Fault::Fatal(Error::new(
                ErrorKind::Refused,
                "a certificate that nobody vouches for",
            )))
        };
        let asked = "GET, wait, GET, wait, GET, wait, GET, wait, GET";
        for (answers, asked) in [
            (vec![status(401), status(401)], "GET, authenticate, GET"),
            (vec![fatal()], "GET"),
            // The node that had it is gone; or does not know what to say.
            (five(no_connection), asked),
            (vec![holds(10), holds(10), status(403)], "GET, wait, GET, 10..20"),
            (vec![holds(27), holds(27), status(400), status(404)], "GET, wait, GET, PUT, HEAD"),
            (five(|| status(500)), asked),
        ] {
            let answers = answers.into_iter().chain([status(404), opened().at("b")]).collect();
            assert_eq!(play(answers), format!("{asked}, HEAD, POST, 0..10 @b"));
        }
        // Who is not there at all is not waited for twice, and what is held there not forgotten.
        let held = || Held { location: place("a"), offset: 10, chunk: 10, equal_parts: false };
        let (session, done) = play_on(Session::resume(settings(), held()), &blob(27), five(no_connection));
        assert_eq!(done, format!("{asked}, HEAD"));
        assert_eq!(session.held().map(|held| held.offset), Some(10));
        let (session, done) = play_on(session, &blob(27), vec![no_connection()]);
        assert!(done.starts_with("HEAD, network: giving up after 4 attempts"), "{done}");
        assert_eq!(session.acknowledged(), 0);
        // Nor is a new one opened twice.
        let done = play(vec![status(404), status(404), status(403)]);
        assert!(done.starts_with("GET, HEAD, POST, denied: "), "{done}");
        // What is too large is too large elsewhere.
        let done = play(vec![holds(10), holds(10), status(413)]);
        assert!(done.starts_with("GET, wait, GET, 10..20, refused: "), "{done}");
        // Once something was accepted, it is the registry that fails.
        let answers = vec![holds(10), holds(10), kept(20), status(403)];
        let done = play(answers);
        assert!(done.starts_with("GET, wait, GET, 10..20, 20..27, denied: "), "{done}");
    }

    #[test]
    fn a_registry_that_swallows_slowly_is_waited_for() {
        let large = || Settings { chunk_size: Some(16 * MIB), ..settings() };
        let mut answers = vec![opened(), reset(16 * MIB)];
        answers.extend((1..12).map(|mib| holds(mib * MIB)));
        answers.extend([holds(11 * MIB), kept(27 * MIB)]);
        let done = play_with(large(), &blob(40 * MIB), answers).1;
        assert!(
            done.ends_with(&format!("GET, {}..{}, {}..{}", 11 * MIB, 27 * MIB, 27 * MIB, 40 * MIB)),
            "{done}"
        );
        // Not for drips, nor for one that says now this and now that, or more than it was sent.
        let beyond = [17, 18, 19, 20].map(|mib| mib * MIB);
        for held in [[1, 2, 3, 4].as_slice(), &[MIB, 2, MIB, 3, MIB, 4], &beyond] {
            let answers =
                [opened(), reset(16 * MIB)].into_iter().chain(held.iter().map(|more| holds(2 + more)));
            let done = play_with(Settings { retries: 3, ..large() }, &blob(40 * MIB), answers.collect()).1;
            assert!(done.contains("giving up after 3 attempts"), "{done}");
        }
    }

    #[test]
    fn what_a_status_announces_holds_for_the_chunks_that_follow() {
        let most = |answer: Answer| answer.header("oci-chunk-max-length", "8");
        let held = || Held { location: place("a"), offset: 20, chunk: 20, equal_parts: true };
        let answers = vec![most(holds(20)), status(404), most(opened().at("b"))];
        let done = play_on(Session::resume(settings(), held()), &blob(100), answers).1;
        assert_eq!(done, "GET, HEAD, POST, 0..8 @b");
        let answers = vec![opened(), kept(10), reset(5), most(holds(10)), most(opened().at("b"))];
        assert_eq!(play(100, answers), "POST, 0..10, 10..20, wait, GET, POST, 0..8 @b");
        // What is left is no more than that.
        let answers = vec![opened(), kept(10), reset(8), most(holds(10)), most(holds(10))];
        assert_eq!(play(18, answers), "POST, 0..10, 10..18, wait, GET, wait, GET, 10..18");
        // Nobody has so much to send at once.
        let least = status(204).header("oci-chunk-min-length", "2147483648");
        let done = play(100, vec![opened(), kept(10), reset(5), least]);
        assert!(done.starts_with("POST, 0..10, 10..20, wait, GET, refused: "), "{done}");
    }

    #[test]
    fn chunks_of_an_earlier_process_are_no_larger_than_they_may_be_now() {
        let known = Lesson { body_limit: Some(8), ..Lesson::default() };
        for (now, equal_parts, expected) in [
            (settings(), false, "20..30"),
            (Settings { chunk_size: Some(30), ..settings() }, false, "20..40"),
            (Settings { chunk_size: None, lesson: known, ..settings() }, false, "20..28"),
            (Settings { lesson: Lesson { equal_parts: true, ..known }, ..settings() }, false, "20..40"),
            (settings(), true, "20..40"),
        ] {
            let held = Held { location: place("a"), offset: 20, chunk: 20, equal_parts };
            let answers = vec![holds(20), holds(20)];
            let done = play_on(Session::resume(now, held), &blob(100), answers).1;
            assert_eq!(done, format!("GET, wait, GET, {expected}"));
        }
    }

    #[test]
    fn a_registry_that_holds_more_than_there_is_begins_anew() {
        let held = || Held { location: place("a"), offset: 10, chunk: 10, equal_parts: false };
        let growing = Spool { written: 5, ..Spool::default() };
        let (session, done) =
            play_on(Session::resume(settings(), held()), &growing, vec![holds(100), holds(100)]);
        assert_eq!(done, "GET, wait, GET, more");
        assert_eq!(
            play_on(session, &blob(27), vec![status(404), opened().at("b")]).1,
            "HEAD, POST, 0..10 @b"
        );
    }

    #[test]
    fn a_broken_chunk_is_never_replayed_blindly() {
        for broken in [reset(5), status(500), status(502), status(524), status(408)] {
            let answers = vec![opened(), kept(10), broken, holds(14), holds(14), kept(24)];
            assert_eq!(play(26, answers), "POST, 0..10, 10..20, wait, GET, wait, GET, 14..24, 24..26");
        }
    }

    #[test]
    fn a_status_counts_when_it_stays_the_same() {
        let answers =
            vec![opened(), kept(10), reset(9), holds(12), holds(15), holds(17), holds(17), kept(27)];
        assert_eq!(
            play(29, answers),
            "POST, 0..10, 10..20, wait, GET, wait, GET, wait, GET, wait, GET, 17..27, 27..29"
        );
    }

    #[test]
    fn a_chunk_that_arrived_in_full_is_not_sent_again() {
        let answers = vec![opened(), kept(10), reset(10), holds(20), holds(20)];
        assert_eq!(play(26, answers), "POST, 0..10, 10..20, wait, GET, wait, GET, 20..26");
    }

    #[test]
    fn a_session_that_may_hold_bytes_is_never_begun_again_at_0() {
        for nothing in ["0-0", "0--1", "bytes=0--1", ""] {
            let nothing = || if nothing.is_empty() { status(204) } else { status(204).range(nothing) };
            let answers = vec![opened(), reset(5), nothing(), nothing(), opened().at("b")];
            assert_eq!(play(25, answers), "POST, 0..10, wait, GET, wait, GET, POST, 0..10 @b");
        }
    }

    #[test]
    fn a_byte_that_may_be_none_is_not_claimed() {
        let (session, _) = play_with(settings(), &blob(25), vec![opened(), reset(5)]);
        let R(reply) = status(204).range("0-0") else { unreachable!() };
        let Action::Wait { why, .. } = session.on_reply(reply).next(&blob(25)) else { panic!("no pause") };
        assert_eq!(why, "the registry says that it holds nothing of the upload, or 1 byte");
    }

    #[test]
    fn what_never_left_is_sent_again_at_once() {
        for unsent in [no_connection(), reset(0)] {
            let answers = vec![opened(), unsent, kept(10), no_connection(), kept(15), status(201)];
            assert_eq!(play(15, answers), "POST, 0..10, wait, 0..10, 10..15, wait, 10..15, PUT, uploaded");
        }
    }

    #[test]
    fn a_status_out_of_bounds_begins_anew() {
        for count in [9, 21] {
            let answers = vec![opened(), kept(10), reset(5), holds(count), holds(count), opened().at("b")];
            assert_eq!(
                play(30, answers),
                "POST, 0..10, 10..20, wait, GET, wait, GET, POST, 0..10 @b",
                "{count}"
            );
        }
    }

    #[test]
    fn what_broke_goes_on_at_the_newest_location() {
        for broken in [reset(5), status(500)] {
            let answers = vec![opened(), kept(10), broken, holds(14).at("b"), holds(14).at("c")];
            assert_eq!(play(27, answers), "POST, 0..10, 10..20, wait, GET, wait, GET @b, 14..24 @c");
        }
        let answers = vec![opened(), kept(10), status(500).at("b")];
        assert_eq!(play(27, answers), "POST, 0..10, 10..20, wait, GET @b");
    }

    #[test]
    fn what_is_settled_is_no_longer_the_end_of_a_short_chunk() {
        let answers = vec![opened(), kept(5), reset(5), holds(8), holds(8), status(416)];
        assert_eq!(play(27, answers), "POST, 0..10, wait, 5..15, wait, GET, wait, GET, 8..18, wait, GET");
    }

    #[test]
    fn what_must_settle_is_given_time_whatever_the_dice_say() {
        let settings = Settings { pace: Pace { random: || 0.0, ..Pace::default() }, ..settings() };
        let answers = vec![opened(), reset(5), holds(2), holds(3), holds(3)];
        let done = play_with(settings, &blob(25), answers).1;
        assert_eq!(done, "POST, 0..10, wait, GET, wait 1, GET, wait 1, GET, 3..13");
    }

    #[test]
    fn a_status_of_404_is_asked_for_once_more() {
        let answers = vec![opened(), kept(10), reset(5), status(404), holds(15), holds(15)];
        assert_eq!(play(27, answers), "POST, 0..10, 10..20, wait, GET, wait, GET, wait, GET, 15..25");
        // Each time that it is a surprise.
        let asked = "POST, 0..10, 10..20, wait, GET, wait, GET, wait, GET";
        for before in [vec![holds(15)], vec![holds(14), holds(15)]] {
            let count = before.len() - 1;
            let answers = [opened(), kept(10), reset(5)].into_iter().chain(before);
            let done = play(27, answers.chain([status(404), holds(15)]).collect());
            assert_eq!(done, format!("{asked}{}, 15..25", ", wait, GET".repeat(count)));
        }
        let answers = vec![opened(), kept(10), status(416), status(404), holds(5)];
        assert_eq!(play(27, answers), "POST, 0..10, 10..20, wait, GET, wait, GET, wait, 5..15");
        for code in [404, 405] {
            let answers = vec![opened(), kept(10), reset(5), status(code), status(code), opened().at("b")];
            assert_eq!(
                play(26, answers),
                "POST, 0..10, 10..20, wait, GET, wait, GET, POST, 0..10 @b",
                "{code}"
            );
        }
    }

    #[test]
    fn a_status_that_is_refused_is_not_repeated() {
        let answers = |refusal| vec![opened(), kept(10), reset(5), refusal];
        let anew = answers(status(400)).into_iter().chain([opened().at("b")]).collect();
        assert_eq!(play(27, anew), "POST, 0..10, 10..20, wait, GET, POST, 0..10 @b");
        // Who may not ask may come back: what is held there is not given up.
        let done = play(27, answers(status(403)));
        assert!(done.starts_with("POST, 0..10, 10..20, wait, GET, denied: "), "{done}");
    }

    #[test]
    fn a_status_that_fails_is_repeated() {
        let answers = vec![opened(), kept(10), reset(5), status(503), reset(0), holds(15), holds(15)];
        assert_eq!(
            play(27, answers),
            "POST, 0..10, 10..20, wait, GET, wait, GET, wait, GET, wait, GET, 15..25"
        );
    }

    #[test]
    fn an_upload_that_nobody_answers_for_begins_anew() {
        let asked = "POST, 0..10, 10..20, wait, GET, wait, GET, wait, GET, wait, GET";
        for silent in [|| status(500), no_connection] {
            let answers =
                || [opened(), kept(10), reset(5), silent(), silent(), silent(), silent()].into_iter();
            let again = answers().chain([opened().at("b"), kept(10), kept(20)]).collect();
            assert_eq!(play(25, again), format!("{asked}, POST, 0..10 @b, 10..20 @b, 20..25 @b"));
            let (session, _) =
                play_with(settings(), &blob(25), answers().chain([opened().at("b")]).collect());
            assert!(session.held().is_none());
            // There is no attempt left for another break, and what is held is not forgotten where there is no new upload.
            let again = answers().chain([opened().at("b"), reset(5)]).collect();
            assert!(play(25, again).contains(&format!("{asked}, POST, 0..10 @b, network: giving up")));
            let (mut session, done) = play_with(settings(), &blob(25), answers().chain([silent()]).collect());
            assert!(done.starts_with(&format!("{asked}, POST, network: giving up")), "{done}");
            assert_eq!(session.held().map(|held| held.offset), Some(10));
            assert_eq!(session.take_news().warnings.len(), 1);
            // Five times at most, however far it comes in between.
            let session = |number: u64| {
                let kept = (1..=number).map(|count| kept(count * 10));
                [opened()].into_iter().chain(kept).chain([reset(5), silent(), silent(), silent(), silent()])
            };
            let done = play(100, (1..=6).flat_map(session).collect());
            assert!(done.matches("POST").count() == 6 && done.contains("GET, network: giving up"), "{done}");
        }
    }

    #[test]
    fn a_lost_session_is_looked_for_once_and_then_replaced() {
        let answers = vec![opened(), kept(10), status(404), status(404), opened().at("b")];
        assert_eq!(play(25, answers), "POST, 0..10, 10..20, wait, GET, POST, 0..10 @b");
        let answers = vec![opened(), kept(10), status(404), holds(10), kept(20)];
        assert_eq!(play(25, answers), "POST, 0..10, 10..20, wait, GET, wait, 10..20, 20..25");
    }
}
