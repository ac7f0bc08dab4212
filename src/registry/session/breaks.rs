//! What requests that broke have in common: where there is a limit that nobody tells of, all bodies break at one place
//! or after one time, be it by a reset or by the answer of a gateway.

use std::{ops::Range, time::Duration};

use super::{Fault, Reply, Session, Step, Upload, Way, recovery::whoever_answered};
use crate::{
    error::{Error, sized},
    registry::RegistryError,
};

/// Two breaks within this many bytes are at the same place: sockets and proxies buffer so much.
const SAME_PLACE: u64 = 64 << 10;

/// The kernels at both ends of a line take so much more than whoever cut it has read, now more and now less
/// (`tcp_wmem` and `tcp_rmem` of Linux).
const BUFFERED: u64 = 8 << 20;

/// Shorter requests are cut by accident, not by a deadline.
const SHORTEST_DEADLINE: Duration = Duration::from_secs(10);

/// So many breaks in a row with nothing kept in between may be accidents.
const MOST_ACCIDENTS: u32 = 3;

/// What two breaks in a row look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suspect {
    cause: Cause,
    /// Bodies of so many bytes may come through.
    most: u64,
    /// Nothing else is likely: both broke after the same number of bytes, say, or too many have.
    evident: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// A request may last only so long.
    Deadline { after: Duration },
    /// Of a larger body no more comes through.
    Passage,
    /// A body may not be so large.
    Size,
}

/// How a request with a body broke.
#[derive(Clone, Copy, Debug)]
pub(super) struct Break {
    /// Where in the blob the body began.
    start: u64,
    sent: u64,
    elapsed: Duration,
    /// So many broke before it since anything was kept.
    stuck: u32,
    /// So many bytes were kept of the body that broke before.
    kept: Option<u64>,
}

/// Returns whether a gateway lost the registry behind it.
pub(crate) const fn is_lost_behind(status: u16) -> bool {
    matches!(status, 502 | 504 | 520..=524 | 530)
}

impl Session {
    /// Makes chunks smaller as two breaks suggest; returns how to go on where this session is of no more use.
    pub(super) fn heed(
        &mut self,
        upload: &mut Upload,
        length: u64,
        suspect: Option<Suspect>,
        error: &Error,
    ) -> Option<Step> {
        let suspect = suspect?;
        self.dodge(length, suspect, error);
        // What the registry holds is no less good for it, if it is asked how much that is.
        let is_lost = suspect.cause == Cause::Size && (upload.offset == 0 || !self.settings.profile.status);
        if is_lost || self.limits.equal_parts() {
            return Some(Step::Open);
        }
        upload.chunk = upload.chunk.min(self.limits.choose(self.size()));
        None
    }

    /// Compares an answer to a body with the break before it. What a gateway says that has lost the registry tells no
    /// more than a reset: Caddy 2.6 answers 502 for a body that is larger than its `request_body` allows. By 408 it is
    /// said that the request took too long, as Envoy does after its `request_timeout`.
    pub(super) fn suspect_answer(&mut self, range: &Range<u64>, reply: &Reply) -> Option<Suspect> {
        if reply.status != 408 && !is_lost_behind(reply.status) {
            return None;
        }
        self.suspect(range, range.end - range.start, reply.elapsed, reply.status == 408)
    }

    /// Compares a fault with the break before it.
    pub(super) fn suspect_fault(&mut self, range: &Range<u64>, fault: &Fault) -> Option<Suspect> {
        let Fault::Reset { sent, elapsed, .. } = *fault else { return None };
        self.suspect(range, sent, elapsed, false)
    }

    /// Compares a break with the one before: twice at the same place is a limit on the size, twice after the
    /// same time a deadline (zot's is 60 s: gh:project-zot/zot#4079), as is what `is_late` by the registry's own words; and
    /// where as much was kept of each body, no more gets through.
    fn suspect(
        &mut self,
        range: &Range<u64>,
        sent: u64,
        elapsed: Duration,
        is_late: bool,
    ) -> Option<Suspect> {
        let (start, length) = (range.start, range.end - range.start);
        let before = self.last_break;
        let kept = before.and_then(|before| start.checked_sub(before.start));
        let stuck = before.filter(|_| kept == Some(0) && sent > 0).map_or(0, |before| before.stuck + 1);
        self.last_break = Some(Break { start, sent, elapsed, stuck, kept });
        let before = before?;
        let near = |distance| sent.abs_diff(before.sent) <= distance;
        let evident = 0 < sent && sent < length && (near(SAME_PLACE) || stuck >= MOST_ACCIDENTS);
        // Where nothing was kept in between, the place is as vague as the kernels make it.
        let vague = match length {
            // The kernels may have taken all of it, however much was read: a third time is no accident.
            ..=BUFFERED => before.stuck > 0,
            _ => near(BUFFERED),
        };
        let cut = !is_late && (evident || stuck > 0 && vague);
        // A line that is bad, or a registry that is away for a while, keeps now more and now less.
        let passage = kept.filter(|kept| before.kept == Some(*kept) && self.limits.may_bear(*kept, length));
        // Proxies refuse by Content-Length, and what they say is lost in the reset: the size is wrong, not the
        // place. Unless one of that size went through; and a suspicion is no reason to give up.
        let smaller = self.limits.smaller(length).filter(|_| self.way != Way::Whole);
        let suspect = |cause, most, evident| Suspect { cause, most, evident };
        let of_size = match passage {
            _ if length <= self.limits.largest_taken() => None,
            Some(most) => Some(suspect(Cause::Passage, most, true)),
            None => smaller.filter(|_| cut).map(|most| suspect(Cause::Size, most, evident)),
        };
        let same_time = elapsed.abs_diff(before.elapsed) <= elapsed / 10;
        let late = same_time && (is_late || elapsed >= SHORTEST_DEADLINE);
        let deadline = Cause::Deadline { after: elapsed };
        of_size.or(smaller.filter(|_| late).map(|most| suspect(deadline, most, true)))
    }

    /// Makes chunks smaller as two breaks suggest, of which the last was that of a body of `sent` bytes: before the
    /// registry, or behind whoever answers for it.
    pub(super) fn dodge(&mut self, sent: u64, suspect: Suspect, error: &Error) {
        self.limits.bear(suspect.most, suspect.evident);
        let answer = error.find::<RegistryError>();
        self.tell_smaller(&match (suspect.cause, answer) {
            (Cause::Deadline { after }, Some(answer)) => {
                format!("{} answers requests of {after:.0?} by {}", whoever_answered(answer), answer.status)
            }
            (Cause::Deadline { after }, None) => format!("connections break after {after:.0?}"),
            (_, Some(answer)) => {
                format!("{} answers bodies of {} by {}", whoever_answered(answer), sized(sent), answer.status)
            }
            (_, None) => format!("connections break at bodies of {}", sized(sent)),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Fault, Settings, script::*};
    use crate::registry::{Lesson, hosts};

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
    fn connections_that_break_before_a_body_say_nothing_about_its_size() {
        let large = || Settings { chunk_size: None, ..settings() };
        let first = format!("0..{}", 16 * MIB);
        let answers = vec![opened(), reset(0), reset(0), reset(0)];
        let done = play_with(large(), &blob(40 * MIB), answers).1;
        assert_eq!(done, format!("POST, {first}, wait, {first}, wait, {first}, wait, {first}"));
    }

    #[test]
    fn a_small_body_that_breaks_for_the_third_time_is_cut() {
        // What the kernels took says nothing about what was read.
        let large = || Settings { chunk_size: None, ..settings() };
        let broken = |sent| vec![opened(), reset(sent), status(404)];
        let answers = [MIB, 3 * MIB, 2 * MIB].into_iter().flat_map(broken);
        let answers = answers.chain([opened(), holds(MIB)]).collect();
        let (session, done) = play_with(large(), &blob(3 * MIB), answers);
        let whole = format!("POST, PUT {}", 3 * MIB);
        let missed = format!("{whole}, wait, HEAD");
        assert_eq!(done, format!("{missed}, {missed}, {whole}, HEAD, POST, 0..{MIB}, {MIB}..{}", 2 * MIB));
        assert_eq!((session.lesson().bearable, session.lesson().seeming_limit), (Some(MIB), None));
        // Not while the registry gets on.
        let profile = hosts::Profile { chunk_size: 8 * MIB, may_grow: false, ..hosts::Profile::ORDINARY };
        let mut answers = vec![opened()];
        for (sent, held) in [(2, 1), (5, 3), (3, 4), (6, 6)] {
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
        for code in [502, 504, 522, 524, 530] {
            let once = || vec![opened(), status(code), nothing(), nothing()];
            let answers =
                once().into_iter().chain([opened(), status(code), opened(), status(code), opened()]);
            let (mut session, done) = play_with(large(), &blob(40 * MIB), answers.collect());
            let then = format!("POST, 0..{}, POST, 0..{}, POST, 0..{}", 16 * MIB, 8 * MIB, 5 * MIB);
            assert_eq!(done, format!("{first}, {then}"), "{code}");
            let words =
                format!("the registry answers bodies of 8 MiB by {code}; going on with chunks of 5 MiB");
            assert_eq!(session.take_news().shrunk, Some(words));
            // It may have been an accident each time: the next push begins as large again.
            assert_eq!((session.lesson().body_limit, session.lesson().seeming_limit), (None, None));
        }
        // A blob of one chunk as well.
        let once = || vec![opened(), status(502), nothing()];
        let twice = || once().into_iter().chain([opened(), status(502)]);
        let whole = format!("POST, PUT {}", 10 * MIB);
        let done = play_with(large(), &blob(10 * MIB), twice().chain([nothing(), opened()]).collect()).1;
        assert_eq!(done, format!("{whole}, wait, HEAD, {whole}, HEAD, POST, 0..{}", 8 * MIB));
        // Unless it was only the answer that took too long.
        let there = status(200).header("content-length", &(10 * MIB).to_string());
        let done = play_with(large(), &blob(10 * MIB), twice().chain([there]).collect()).1;
        assert_eq!(done, format!("{whole}, wait, HEAD, {whole}, HEAD, uploaded"));
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
        // Four in a row are no accident, wherever the kernels say that they broke.
        for (more, size, seeming) in
            [(&[6 * MIB][..], 5 * MIB, None), (&[6 * MIB, 4 * MIB], 4 * MIB, Some(4 * MIB))]
        {
            let mut answers = vec![opened(), reset(3 * MIB), nothing(), nothing(), opened(), reset(9 * MIB)];
            answers.extend(more.iter().flat_map(|sent| [opened(), reset(*sent)]));
            answers.extend([opened(), holds(size)]);
            let (session, done) = play_with(large.clone(), &blob(40 * MIB), answers);
            assert_eq!(session.lesson().seeming_limit, seeming, "{done}");
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
        let twice = |seconds: [u64; 2]| {
            let first = [opened(), broken(9 * MIB, seconds[0]), holds(5 * MIB), holds(5 * MIB)];
            first.into_iter().chain([broken(11 * MIB, seconds[1]), holds(6 * MIB), holds(6 * MIB)])
        };
        let answers = twice([60, 61]).chain([holds(14 * MIB).after(Duration::from_secs(40))]);
        let (session, done) = play_with(large.clone(), &blob(40 * MIB), answers.collect());
        assert!(done.contains(&format!(", {}..{}, ", 6 * MIB, 14 * MIB)), "{done}");
        assert_eq!(session.lesson().seeming_limit, Some(8 * MIB));
        for accidents in [[60, 70], [5, 5]] {
            let done = play_with(large.clone(), &blob(40 * MIB), twice(accidents).collect()).1;
            assert!(done.ends_with(&format!(", {}..{}", 6 * MIB, 22 * MIB)), "{done}");
        }
    }

    #[test]
    fn who_says_that_a_request_took_too_long_gets_smaller_ones() {
        let large = || Settings { chunk_size: None, ..settings() };
        let late = || status(408).after(Duration::from_secs(3));
        let held = |count: u64| [holds(count * MIB), holds(count * MIB)];
        let first = [opened(), late()].into_iter().chain(held(5));
        let answers = first.chain([late()]).chain(held(7)).collect();
        let (mut session, done) = play_with(large(), &blob(40 * MIB), answers);
        assert!(done.ends_with(&format!("GET, {}..{}", 7 * MIB, 15 * MIB)), "{done}");
        let words = "the registry answers requests of 3s by 408; going on with chunks of 8 MiB";
        assert_eq!(session.take_news().shrunk.as_deref(), Some(words));
        // Not those whose kind came through in between.
        let first = [opened(), late()].into_iter().chain(held(5));
        let answers = first.chain([holds(21 * MIB), late()]).chain(held(22)).collect();
        assert_eq!(play_with(large(), &blob(100 * MIB), answers).0.take_news().shrunk, None);
    }

    #[test]
    fn a_blob_in_one_piece_that_takes_too_long_goes_in_chunks() {
        let large = || Settings { chunk_size: None, ..settings() };
        let late = || status(408).after(Duration::from_secs(3));
        let cut = |sent| {
            let why = "connection reset".to_owned();
            Answer::Fault(Fault::Reset { sent, elapsed: Duration::from_secs(15), why })
        };
        for ([first, second], words) in [
            ([cut(11 * MIB), cut(2 * MIB)], "connections break after 15s"),
            ([late(), late()], "the registry answers requests of 3s by 408"),
        ] {
            let answers = vec![opened(), first, status(404), opened(), second, status(404), opened()];
            let (mut session, done) = play_with(large(), &blob(12 * MIB), answers);
            let whole = format!("POST, PUT {}", 12 * MIB);
            assert_eq!(done, format!("{whole}, wait, HEAD, {whole}, HEAD, POST, 0..{}", 8 * MIB));
            let words = format!("{words}; going on with chunks of 8 MiB");
            assert_eq!(session.take_news().shrunk, Some(words));
        }
        // Not at a registry that takes none.
        let whole = Settings { profile: hosts::profile("gcr.io"), ..large() };
        let answers = vec![opened(), late(), status(404), opened(), late(), status(404)];
        assert_eq!(play_with(whole, &blob(12 * MIB), answers).0.take_news().shrunk, None);
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
        assert_eq!(same.take_news().shrunk.as_deref(), Some(words));
        assert_eq!(same.lesson().seeming_limit, Some(10_000_000));
        // Whoever cuts bodies there by a reset is taken at that as well.
        let cut = |held: [u64; 3]| {
            let broken = |held| [reset(held + 8 * MIB), holds(held), holds(held)];
            let answers = [opened()].into_iter().chain(held.into_iter().flat_map(broken));
            let answers = answers.chain([kept(held[2] + 900_000)]).collect();
            play_with(large(), &blob(100 * MIB), answers)
        };
        let (taught, done) = cut([900_000, 1_800_000, 2_700_000]);
        assert!(done.ends_with("2700000..3600000, 3600000..4500000"), "{done}");
        assert_eq!(taught.lesson().seeming_limit, Some(900_000));
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
}
