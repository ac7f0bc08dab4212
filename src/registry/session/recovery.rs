//! The ways back when something went wrong: the same again, another token, another place, another session,
//! smaller chunks.
//!
//! However a registry behaves, the machine ends: every way back spends an attempt of the budget, loses one of
//! [`MOST_LOSSES`] sessions, makes the chunks smaller, or may be gone only so often without progress.

use std::time::Duration;

use super::{
    Doubt, Held, Pending, Reply, Request, Session, Step, Way, attempts::MOST_LOSSES, limits::RAISE, retry,
};
use crate::{
    error::{self, Error, ErrorKind, counted, sized},
    registry::RegistryError,
};

/// Whoever loses uploads may be several.
const REPLICAS: &str = "replicas behind a load balancer lose uploads unless they share storage and secret, or sessions stick to one";

/// Before 3.0 distribution cancels an upload that holds other bytes than its `_state` says, whatever is asked of it
/// (distribution/distribution:registry/handlers/blobupload.go of 2.8, `ResumeBlobUpload`): a chunk that was cut off
/// costs all chunks before it.
const BREAKS: &str = "distribution before 3.0 loses an upload when the connection breaks in the middle of a chunk: there each layer needs an unbroken connection from its first byte to its last, so a steadier line, smaller layers or a newer registry would help";

/// How long a registry gets to make up its mind: between two status requests, and before an upload that seems
/// lost is looked for once more (replicas take a moment to agree: gh:distribution/distribution#2225).
pub(super) const SETTLE: Duration = Duration::from_secs(1);

/// What becomes of a session that may be of no use: one that an earlier process has left, or about which nobody answers.
#[derive(Debug)]
pub(super) enum Legacy {
    /// It was of none. Until another one is open, a later process may still have more luck with it.
    Forsaken(Held),
    /// There is none, or it is lost, or has shown that it is good.
    None,
    /// Nothing was accepted in it yet.
    TakenUp,
}

impl Session {
    /// Begins anew where a failure may be that of an upload, which held this, and no other one need have: it was left by
    /// an earlier process, or nobody has answered when it was `asked_about`.
    pub(super) fn forsake(&mut self, held: Option<Held>, asked_about: bool) {
        let Step::Ended(Err(error)) = &self.step else { return };
        let sender = match (&self.legacy, error.kind()) {
            // Otherwise it would fail time and again, for as long as its record lasts.
            (Legacy::TakenUp, ErrorKind::Denied | ErrorKind::Network | ErrorKind::Refused) => {
                "an earlier push has sent"
            }
            // The replica that has it may be away, and others there.
            (_, ErrorKind::Network) if asked_about && !self.attempts.is_last_session() => {
                self.attempts.lose_session();
                "was sent"
            }
            _ => return,
        };
        self.news.warnings.push(format!("what {sender} is sent again: {}", error::chain(error)));
        (self.step, self.legacy) = (Step::Open, held.map_or(Legacy::None, Legacy::Forsaken));
    }

    pub(super) fn unauthorized(&mut self, step: Step, asked: &Request, error: Error) -> Step {
        if !self.attempts.take_token() {
            return Step::Ended(Err(error));
        }
        self.pending = Pending::Authenticate;
        match (step, asked) {
            (Step::Send(upload), Request::Patch { range, .. })
                if upload.offset > 0 && self.settings.profile.status =>
            {
                Step::ask(upload, Doubt::Refused { end: range.end })
            }
            (step, _) => step,
        }
    }

    /// Goes on with `step` after a pause, unless the attempts are used up.
    pub(super) fn again(&mut self, step: Step, error: Error) -> Step {
        self.pause(error, None).map_or_else(|error| Step::Ended(Err(error)), |()| step)
    }

    /// Goes on with `step` when the registry has had a moment, unless the attempts are used up.
    pub(super) fn again_settled(&mut self, step: Step, error: Error) -> Step {
        self.pause(error, Some(SETTLE)).map_or_else(|error| Step::Ended(Err(error)), |()| step)
    }

    /// Has a pause taken, unless the attempts are used up: what the registry asks for, or else `otherwise`, or else one
    /// that grows.
    pub(super) fn pause(&mut self, error: Error, otherwise: Option<Duration>) -> Result<(), Error> {
        let asked = RegistryError::pause(&error);
        if asked.is_some_and(retry::is_an_end) {
            return Err(error);
        }
        let Some(pause) = self.attempts.pause(asked.or(otherwise)) else { return Err(self.used_up(error)) };
        self.pending = Pending::Pause { pause, why: error::chain(&error) };
        Ok(())
    }

    /// Adds to the last of many errors that there were as many as may be.
    fn used_up(&self, error: Error) -> Error {
        let retries = self.settings.retries;
        let doing = format!("giving up after {} without progress", counted(retries, "attempt"));
        match retries {
            0 => error,
            _ if self.disowned => {
                let doing = format!("{doing} at a registry that loses uploads");
                self.lost(error.while_doing(doing))
            }
            _ => error.while_doing(doing),
        }
    }

    /// Goes on with `step` when the registry has had a moment.
    pub(super) fn soon(&mut self, step: Step, error: &Error) -> Step {
        self.pending = Pending::Pause { pause: self.settings.pace.pause(SETTLE), why: error::chain(error) };
        step
    }

    /// Begins anew in another session: this one is lost.
    pub(super) fn restart(&mut self, error: Error) -> Step {
        if self.attempts.is_last_session() {
            let error = error.while_doing(format!("giving up after {MOST_LOSSES} lost uploads"));
            return Step::Ended(Err(self.lost(error)));
        }
        self.attempts.lose_session();
        if self.attempts.is_last_session() && self.may_go_whole() {
            self.way = Way::Whole;
        }
        Step::Open
    }

    /// Adds to an error why a registry may lose uploads.
    fn lost(&self, error: Error) -> Error {
        let error = error.with_hint(REPLICAS);
        if self.last_break.is_some() { error.with_hint(BREAKS) } else { error }
    }

    /// Begins anew with smaller chunks: a body of `sent` bytes was too large.
    pub(super) fn shrink(&mut self, sent: u64, reply: &Reply, error: Error) -> Step {
        // The size is wrong, wherever it is sent.
        self.legacy = Legacy::None;
        let shrunk = self.limits.shrink(sent, reply.body_limit());
        if self.way == Way::Whole {
            let message =
                format!("the registry refuses a body of {} and takes no chunks", counted(sent, "byte"));
            return Step::Ended(Err(Error::new(ErrorKind::Refused, message).because(error).with_hint(RAISE)));
        }
        if let Err(explanation) = shrunk {
            return Step::Ended(Err(explanation.because(error)));
        }
        let registry = error.find().map_or_else(|| "the registry".to_owned(), whoever_answered);
        self.tell_smaller(&format!("{registry} takes no body of {}", sized(sent)));
        Step::Open
    }

    /// Has the user know that smaller chunks are chosen by now.
    pub(super) fn tell_smaller(&mut self, why: &str) {
        let chunk = sized(self.limits.choose(self.size()));
        self.news.shrunk = Some(format!("{why}; going on with chunks of {chunk}"));
    }

    /// Returns whether chunks that do not work can give way to one PUT.
    pub(super) fn may_go_whole(&self) -> bool {
        self.way == Way::Chunks && self.size().is_none_or(|size| self.limits.fit(size))
    }
}

pub(super) fn whoever_answered(answer: &RegistryError) -> String {
    let by = answer.answered_by.as_ref().map(|by| format!(" ({by})")).unwrap_or_default();
    format!("the registry{by}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::{Action, Lesson, Pace, Session, Settings, script::*},
        BREAKS, REPLICAS,
    };
    use crate::{
        error::{ErrorKind, chain},
        registry::hosts,
    };

    #[test]
    fn a_redirected_body_is_sent_there() {
        let redirect = |name| status(307).at(name);
        let answers = vec![opened(), redirect("b"), kept(10), kept(15).at("c"), status(201)];
        assert_eq!(play(15, answers), "POST, 0..10, 0..10 @b, 10..15 @b, PUT @c, uploaded");
        assert_eq!(play(5, vec![opened(), redirect("b"), status(201)]), "POST, PUT 5, PUT 5 @b, uploaded");
        // Each time.
        let answers = (1..=6).flat_map(|count| [redirect("b"), kept(count * 10).at("a")]);
        let done = play(60, [opened()].into_iter().chain(answers).chain([status(201)]).collect());
        assert!(done.ends_with("50..60, 50..60 @b, PUT, uploaded"), "{done}");
        // In a circle, or nowhere.
        let mut answers = vec![opened()];
        answers.extend(["b", "c", "b", "c", "b", "c"].map(redirect));
        assert!(play(5, answers).contains("PUT 5 @b, refused: "));
        assert!(play(5, vec![opened(), status(307)]).starts_with("POST, PUT 5, refused: "));
    }

    #[test]
    fn five_sessions_may_be_lost_and_the_last_one_is_one_put() {
        let mut answers = Vec::new();
        for _ in 0..5 {
            answers.extend([opened(), status(404), status(404)]);
        }
        answers.extend([opened(), status(404), status(404)]);
        let done = play(25, answers);
        assert_eq!(done.matches("POST").count(), 6);
        assert!(done.contains("POST, PUT 25, wait, HEAD, refused: "), "{done}");
        // Not where that is too large, or was refused before.
        let limited = Lesson { body_limit: Some(10), ..Lesson::default() };
        let refused = Lesson { refuses_whole: true, ..Lesson::default() };
        for lesson in [limited, refused] {
            let answers =
                (0..5).flat_map(|_| [opened(), status(404), status(404)]).chain([opened()]).collect();
            let done = play_with(Settings { lesson, ..settings() }, &blob(25), answers).1;
            assert!(done.ends_with("POST, 0..10"), "{done}");
        }
    }

    #[test]
    fn uploads_lost_by_broken_connections_are_told_from_others() {
        let disowned = || vec![opened(), status(404), status(404)];
        let broken = || vec![opened(), reset(5), status(404), status(404)];
        for (answers, breaks) in [
            ((0..6).flat_map(|_| disowned()).collect(), false),
            ((0..4).flat_map(|_| broken()).chain([opened(), reset(5)]).collect(), true),
        ] {
            let (mut session, done) = play_with(settings(), &blob(25), answers);
            let Action::Fail(error) = session.next(&blob(25)) else { panic!("no failure: {done}") };
            let hints = error.hints();
            assert!(hints.contains(&REPLICAS) && hints.contains(&BREAKS) == breaks, "{done}: {hints:?}");
        }
    }

    #[test]
    fn a_registry_that_knows_an_upload_by_turns_is_named_for_it() {
        let mut answers = vec![opened(), kept(10)];
        for _ in 0..5 {
            answers.extend([status(404), holds(10)]);
        }
        let done = play(25, answers);
        assert!(
            done.contains("giving up after 4 attempts without progress at a registry that loses uploads: "),
            "{done}"
        );
        // Others that fail are not suspected of it.
        let mut answers = vec![opened(), kept(10)];
        answers.extend([429; 5].map(status));
        let done = play(25, answers);
        assert!(done.contains("giving up after 4 attempts without progress: "), "{done}");
    }

    #[test]
    fn an_expired_token_costs_no_bytes() {
        let answers = vec![opened(), kept(10), status(401), holds(10), kept(20)];
        assert_eq!(play(25, answers), "POST, 0..10, 10..20, authenticate, GET, 10..20, 20..25");
        // What was taken all the same is not sent again; nor is a registry believed that says more.
        for (held, from) in [(15, "15..25"), (20, "20..25"), (9, "10..20"), (21, "10..20")] {
            let answers = vec![opened(), kept(10), status(401), holds(held)];
            let done = play(25, answers);
            assert_eq!(done, format!("POST, 0..10, 10..20, authenticate, GET, {from}"), "{held}");
        }
        // Nor one that is known to say what is not so.
        let answers = vec![opened(), status(202).range("0-99"), status(401), holds(15)];
        assert_eq!(play(25, answers), "POST, 0..10, 10..20, authenticate, GET, 10..20");
        // Who does not answer is told by the chunk itself.
        let answers = vec![opened(), kept(10), status(401), status(404), status(404), kept(20)];
        assert_eq!(play(25, answers), "POST, 0..10, 10..20, authenticate, GET, wait, GET, 10..20, 20..25");
        let profile = hosts::profile("1.dkr.ecr.eu-west-1.amazonaws.com");
        let answers = vec![opened(), kept(10), status(401), kept(20)];
        let done = play_with(Settings { profile, ..settings() }, &blob(25), answers).1;
        assert_eq!(done, "POST, 0..10, 10..20, authenticate, 10..20, 20..25");
        // Nothing is there to be asked about: again.
        let answers = vec![status(401), opened(), status(401), kept(10), kept(15), status(401), status(201)];
        assert_eq!(
            play(15, answers),
            "POST, authenticate, POST, 0..10, authenticate, 0..10, 10..15, PUT, authenticate, PUT, uploaded"
        );
    }

    #[test]
    fn a_second_401_in_a_row_is_final() {
        let done = play(5, vec![status(401), status(401).words("no such user")]);
        assert!(done.starts_with("POST, authenticate, POST, denied: opening an upload: "), "{done}");
        assert!(done.contains("no such user"), "{done}");
        // A status request that is let through proves nothing about the next chunk.
        let answers = vec![opened(), kept(10), status(401), holds(10), status(401)];
        let done = play(25, answers);
        assert!(done.contains("authenticate, GET, 10..20, denied: "), "{done}");
    }

    #[test]
    fn a_rate_limit_is_waited_for_and_the_same_sent_again() {
        let answers = vec![status(429), opened(), status(429), kept(10), kept(15), status(429), status(201)];
        assert_eq!(
            play(15, answers),
            "POST, wait, POST, 0..10, wait, 0..10, 10..15, PUT, wait, PUT, uploaded"
        );
    }

    #[test]
    fn a_registry_says_how_long_to_wait() {
        let pace = Pace { random: || 1.0, ..Pace::default() };
        let mut session = Session::new(Settings { pace, ..settings() });
        let refused = |mut session: Session, seconds: Option<u64>| {
            assert!(matches!(session.next(&blob(5)), Action::Send(_)));
            let R(mut reply) = status(429) else { unreachable!() };
            if let Some(error) = &mut reply.error {
                error.retry_after = seconds.map(Duration::from_secs);
            }
            session.on_reply(reply)
        };
        for (asked, seconds) in [(Some(7), 7), (None, 2), (Some(3600), 600)] {
            session = refused(session, asked);
            let Action::Wait { pause, why } = session.next(&blob(5)) else { panic!("no pause") };
            assert_eq!(pause.as_secs(), seconds);
            assert!(why.starts_with("opening an upload: "), "{why}");
            session = session.on_waited();
        }
        // Nobody waits for tomorrow.
        let Action::Fail(error) = refused(session, Some(86_400)).next(&blob(5)) else { panic!("no end") };
        assert_eq!(error.kind(), ErrorKind::Network);
        assert!(!chain(&error).contains("giving up"), "{error:?}");
    }

    #[test]
    fn attempts_without_progress_are_counted() {
        let answers = (0..5).map(|_| status(503)).collect();
        let done = play(5, answers);
        assert_eq!(done.matches("POST").count(), 5);
        assert!(done.contains("network: giving up after 4 attempts without progress: "), "{done}");
        let answers = (0..5).map(|_| no_connection()).collect();
        assert!(play(5, answers).contains("network: giving up after 4 attempts"));
    }

    #[test]
    fn progress_renews_the_attempts_and_drips_do_not() {
        let mut answers = vec![opened()];
        for count in 1..=4 {
            answers.extend([status(429), status(429), status(429), status(429), kept(count * 10)]);
        }
        answers.push(status(201));
        assert!(play(40, answers).ends_with("uploaded"));
        let mut answers = vec![opened()];
        answers.extend((2..=6).map(kept));
        assert!(play(40, answers).contains("giving up after 4 attempts"));
    }

    #[test]
    fn without_retries_the_first_failure_is_final() {
        let once = Settings { retries: 0, ..settings() };
        let done = play_with(once, &blob(5), vec![status(503)]).1;
        assert!(done.starts_with("POST, network: opening an upload: "), "{done}");
    }

    #[test]
    fn an_outcome_nobody_asked_for_is_our_own_fault() {
        let R(reply) = status(200) else { unreachable!() };
        let mut session = Session::new(settings()).on_reply(reply);
        let Action::Fail(error) = session.next(&blob(5)) else { panic!("no failure") };
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}
