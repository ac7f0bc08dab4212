//! An upload session as a state machine: it says what to send next and is told what came of it.
//!
//! No socket, no clock, no buffer. The driver (push/upload) asks [`Session::next`], does what the
//! [`Action`] says, and hands the outcome back by [`Session::on_reply`], [`Session::on_fault`] or
//! [`Session::on_waited`]; each consumes the session, so that a dead one cannot be used.
//!
//! | step | asks by | goes on with | answers are read in |
//! |---|---|---|---|
//! | `Open` | HEAD, POST | `Send` | `open` |
//! | `Send` | PATCH, PATCH, … | `Send`; `Ask`, if nobody knows what was kept; `Open`, if the session is lost | `patch` |
//! | | PUT | the end; `Confirm`, if it did not plainly succeed | `commit` |
//! | `Ask` | GET | `Send`, or `Open` | `status` |
//! | `Confirm` | HEAD | the end, if the blob is there; else `Ask`, `Send` or `Open` | `commit` |
//!
//! Between any two there may be a pause or a new token (`Pending`). `upload` is what is known of one session, `recovery` has
//! the ways back and `attempts` counts them, and `breaks` is what broken requests have in common; `chunk` knows how much to
//! send within its `limits`, [`range`] and `words` read what registries say.

mod attempts;
mod breaks;
mod chunk;
mod commit;
mod exchange;
mod limits;
mod open;
mod patch;
pub mod range;
mod recovery;
mod status;
mod upload;
mod words;

use std::{mem, time::Duration};

use self::{
    attempts::Attempts,
    breaks::Break,
    commit::Missing,
    recovery::Legacy,
    status::Doubt,
    upload::{Footing, Upload},
};
pub(crate) use self::{breaks::is_lost_behind, limits::Limits, range::Stored};
pub use self::{
    chunk::Resized,
    exchange::{Action, Fault, Mount, News, Outcome, Reply, Request},
    upload::Held,
};
use super::{
    Lesson, Location,
    hosts::Profile,
    retry::{self, Pace},
};
use crate::{
    codec::Spool,
    error::{self, Error},
    oci::{Algorithm, Digest},
};

/// What a session has to know when it begins.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What is known about the host.
    pub profile: Profile,
    /// `--chunk-size`.
    pub chunk_size: Option<u64>,
    /// `--retries`: attempts without progress before giving up.
    pub retries: u32,
    /// Look (HEAD) before opening a session. False where the survey has just looked.
    pub look_first: bool,
    /// Where the blob could be mounted from.
    pub mount_from: Option<String>,
    /// How pauses are taken.
    pub pace: Pace,
    /// What earlier uploads have taught about the host.
    pub lesson: Lesson,
}

/// The upload of one blob, over as many sessions at the registry as it takes.
#[derive(Debug)]
#[must_use]
pub struct Session {
    settings: Settings,
    step: Step,
    /// What must happen before the step's request may be sent.
    pending: Pending,
    /// The request that is on its way.
    asked: Option<Request>,
    /// The blob's digest and size, once known.
    sealed: Option<(Digest, u64)>,
    limits: Limits,
    attempts: Attempts,
    /// The registry has once said that it knows no such upload.
    disowned: bool,
    way: Way,
    /// The `Range` of a success is believed.
    trust_range: bool,
    /// So many POSTs that asked to mount the blob have failed.
    failed_mounts: u32,
    /// The registry has once put the bytes together wrongly.
    misassembled: bool,
    /// How the last request with a body broke.
    last_break: Option<Break>,
    acknowledged: u64,
    legacy: Legacy,
    location: Option<Location>,
    news: News,
}

/// Where the upload stands, and so what is asked next.
#[derive(Debug, Default)]
enum Step {
    /// No session is open: look for the blob, then open one.
    #[default]
    Open,
    /// The next bytes, or the closing PUT.
    Send(Upload),
    /// How many bytes does the registry hold?
    Ask {
        upload: Upload,
        doubt: Doubt,
        /// The registry has once said that it knows no such upload.
        missed: bool,
    },
    /// The closing PUT did not succeed: is the blob there all the same?
    Confirm { upload: Upload, missing: Missing },
    /// Over.
    Ended(Result<Outcome, Error>),
}

impl Step {
    /// Asks about an upload that the registry has not disowned.
    const fn ask(upload: Upload, doubt: Doubt) -> Self {
        Self::Ask { upload, doubt, missed: false }
    }

    /// Returns the session that is open at the registry, as far as we know.
    const fn upload(&self) -> Option<&Upload> {
        match self {
            Self::Send(upload) | Self::Ask { upload, .. } | Self::Confirm { upload, .. } => Some(upload),
            Self::Open | Self::Ended(_) => None,
        }
    }
}

/// How the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// In one PUT where they fit into a chunk, else in as many PATCHes as it takes.
    Chunks,
    /// In PATCHes, even if it is only one: a closing PUT with a body was refused.
    Patches,
    /// In one PUT, however many they are.
    Whole,
}

impl Way {
    const fn first(settings: &Settings) -> Self {
        if settings.profile.monolithic {
            Self::Whole
        } else if settings.lesson.refuses_whole {
            Self::Patches
        } else {
            Self::Chunks
        }
    }
}

#[derive(Debug)]
enum Pending {
    Authenticate,
    Nothing,
    Pause { pause: Duration, why: String },
}

impl Session {
    /// Begins the upload of a blob.
    pub fn new(settings: Settings) -> Self {
        Self {
            step: Step::Open,
            pending: Pending::Nothing,
            asked: None,
            sealed: None,
            limits: Limits::new(&settings),
            attempts: Attempts::new(&settings),
            disowned: false,
            way: Way::first(&settings),
            trust_range: settings.profile.trust_range,
            failed_mounts: 0,
            misassembled: false,
            last_break: None,
            acknowledged: 0,
            legacy: Legacy::None,
            location: None,
            news: News::default(),
            settings,
        }
    }

    /// Goes on with a session that is open at the registry, once that has said how far it is; where it does not
    /// know it any more, begins a new one.
    pub fn resume(settings: Settings, held: Held) -> Self {
        let mut session = Self::new(settings);
        if session.settings.profile.status && session.way != Way::Whole {
            // If it is gone, that may be because the earlier process had it closed.
            session.settings.look_first = true;
            if held.equal_parts {
                session.limits.keep_equal_parts();
            }
            session.step = Step::ask(Upload::taken_up(held), Doubt::Resumed);
            session.legacy = Legacy::TakenUp;
        }
        session
    }

    /// Returns what a later process needs to go on where this one is; nothing while there is nothing to gain.
    pub fn held(&self) -> Option<Held> {
        let held = self.step.upload().and_then(|upload| upload.held(self.limits.equal_parts()));
        held.or_else(|| match &self.legacy {
            Legacy::Forsaken(held) => Some(held.clone()),
            Legacy::None | Legacy::TakenUp => None,
        })
    }

    /// Returns what to do now. Asked again without an answer in between, it may say the same with more bytes.
    pub fn next(&mut self, spool: &Spool) -> Action {
        match &self.step {
            Step::Ended(Ok(outcome)) => return Action::Done(*outcome),
            Step::Ended(Err(error)) => return Action::Fail(error.clone()),
            _ => {}
        }
        if let Some(Err(error)) = &spool.end {
            return Action::Fail(error.clone());
        }
        self.sealed = spool.sealed().cloned();
        // What an earlier process has left was longer than the blob turns out to be.
        if matches!((&self.step, self.size()), (Step::Send(upload), Some(size)) if upload.offset > size) {
            (self.step, self.legacy) = (Step::Open, Legacy::None);
        }
        match &self.pending {
            Pending::Authenticate => Action::Authenticate,
            Pending::Pause { pause, why } => Action::Wait { pause: *pause, why: why.clone() },
            Pending::Nothing => {
                self.asked = self.request(spool.written);
                self.asked.clone().map_or(Action::More, Action::Send)
            }
        }
    }

    /// Takes note of an answer to the request that [`Session::next`] wanted sent.
    #[expect(clippy::needless_pass_by_value, reason = "an answer is used up")]
    pub fn on_reply(self, reply: Reply) -> Self {
        self.on_outcome(|session, step, asked| session.replied(step, asked, &reply))
    }

    /// Takes note that no answer came to the request that [`Session::next`] wanted sent.
    #[expect(clippy::needless_pass_by_value, reason = "a fault is used up")]
    pub fn on_fault(self, fault: Fault) -> Self {
        self.on_outcome(|session, step, asked| session.broke(step, asked, &fault))
    }

    /// Takes the next step, after whatever came of the request that was asked for.
    fn on_outcome(mut self, next: impl FnOnce(&mut Self, Step, Request) -> Step) -> Self {
        let Some(asked) = self.asked.take() else { return self.ended(unasked()) };
        let (before, asked_about) = (self.held(), matches!(asked, Request::Status { .. }));
        let step = mem::take(&mut self.step);
        self.step = next(&mut self, step, asked);
        self.forsake(before, asked_about);
        self.observed()
    }

    fn replied(&mut self, step: Step, asked: Request, reply: &Reply) -> Step {
        let error = reply.refusal(asked.doing());
        if asked.is_bare() {
            self.limits.answered(reply.elapsed);
        }
        if let (404, Request::Commit { .. } | Request::Patch { .. } | Request::Status { .. }) =
            (reply.status, &asked)
        {
            self.disowned = true;
        }
        match (step, asked) {
            // A mount from a repository that we may not read is answered by 401 and worse instead of 202:
            // gh:google/go-containerregistry#1741, #1404. The transport has tried a fresh token already.
            (Step::Open, Request::Open { mount: Some(_), .. }) if open::blames_mount(reply.status) => {
                self.settings.mount_from = None;
                Step::Open
            }
            (step, asked) if reply.status == 401 => self.unauthorized(step, &asked, error),
            (Step::Open, Request::Exists { .. }) => self.looked(reply, error),
            (Step::Open, Request::Open { mount, .. }) => self.opened(mount.is_some(), reply, error),
            (Step::Send(upload), Request::Patch { range, .. }) => self.patched(upload, range, reply, error),
            (Step::Send(upload), Request::Commit { body, .. }) => self.committed(upload, body, reply, error),
            (Step::Ask { upload, doubt, missed }, Request::Status { .. }) => {
                self.told(upload, doubt, missed, reply, error)
            }
            (Step::Confirm { upload, missing }, Request::Exists { .. }) => {
                self.confirmed(upload, missing, reply, error)
            }
            _ => Step::Ended(Err(unasked())),
        }
    }

    fn broke(&mut self, step: Step, asked: Request, fault: &Fault) -> Step {
        let error = fault.failure(asked.doing());
        match (step, asked, fault) {
            (Step::Open, Request::Exists { .. }, Fault::Fatal(_)) => {
                // Whether it is there is unknown: send it.
                self.settings.look_first = false;
                self.news.warnings.push(error::chain(&error));
                Step::Open
            }
            (_, _, Fault::Fatal(_)) => Step::Ended(Err(error)),
            (Step::Open, Request::Open { .. }, fault) => self.open_broke(fault, error),
            (Step::Send(upload), Request::Patch { range, .. }, fault) => {
                self.patch_broke(upload, range, fault, error)
            }
            (Step::Send(upload), Request::Commit { body, .. }, fault) => {
                self.commit_broke(upload, body, fault, error)
            }
            // Nothing changes at the registry by being asked twice.
            (step, ..) => self.again(step, error),
        }
    }

    /// Takes note of the limits that others have met at this host.
    pub fn hear(&mut self, others: Lesson) {
        self.limits.hear(others);
        let most = self.most();
        if let Step::Send(upload) | Step::Ask { upload, .. } = &mut self.step
            && !self.limits.equal_parts()
        {
            upload.chunk = upload.chunk.min(most);
        }
    }

    /// Takes note that the pause is over, or another token at hand.
    pub fn on_waited(mut self) -> Self {
        self.pending = Pending::Nothing;
        self
    }

    /// Returns how many bytes the registry has acknowledged: less than before when a session was lost.
    pub const fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Returns where the registry has an unfinished upload of ours, if it has one, for a `Cancel`.
    pub const fn location(&self) -> Option<&Location> {
        self.location.as_ref()
    }

    /// Returns what is known about the host by now.
    pub const fn lesson(&self) -> Lesson {
        self.limits.lesson()
    }

    /// Returns what has come to light since it was asked last.
    pub fn take_news(&mut self) -> News {
        mem::take(&mut self.news)
    }

    /// Returns the size of the largest chunk that may be sent, as far as is known by now.
    pub fn most(&self) -> u64 {
        self.limits.ceiling()
    }

    /// Returns what is to be said of chunks that are not as large as was asked for, each time: once is enough.
    pub fn resized(&self) -> Option<Resized> {
        match &self.step {
            Step::Send(upload) if self.way != Way::Whole => self.limits.resized(upload.chunk, self.size()),
            _ => None,
        }
    }

    /// Returns the request that the step wants, once there are bytes enough for it.
    fn request(&self, written: u64) -> Option<Request> {
        match &self.step {
            Step::Open => self.first_request(written),
            Step::Send(upload) => self.next_body(upload, written),
            Step::Ask { upload, .. } => Some(Request::Status { location: upload.location.clone() }),
            Step::Confirm { .. } => {
                self.sealed.as_ref().map(|(digest, _)| Request::Exists { digest: digest.clone() })
            }
            Step::Ended(_) => None,
        }
    }

    fn first_request(&self, written: u64) -> Option<Request> {
        match &self.sealed {
            Some((digest, _)) if self.settings.look_first => Some(Request::Exists { digest: digest.clone() }),
            Some((digest, _)) => {
                let mount = self.settings.mount_from.clone();
                let mount = mount.map(|from| Mount { digest: digest.clone(), from });
                Some(Request::Open { mount, algorithm: digest.algorithm() })
            }
            // A session that waits for its first bytes may die of old age.
            None => (self.way != Way::Whole && written > self.limits.choose(None))
                .then_some(Request::Open { mount: None, algorithm: Algorithm::Sha256 }),
        }
    }

    fn next_body(&self, upload: &Upload, written: u64) -> Option<Request> {
        let location = upload.location.clone();
        match &self.sealed {
            Some((digest, size)) if upload.sent == 0 && self.goes_whole(*size, upload.chunk) => {
                Some(Request::Commit { location, digest: digest.clone(), body: Some(*size) })
                    .filter(|_| *size <= written)
            }
            Some((digest, size)) if upload.offset == *size => {
                Some(Request::Commit { location, digest: digest.clone(), body: None })
            }
            None if self.way == Way::Whole => None,
            sealed => {
                let size = sealed.as_ref().map(|(_, size)| *size);
                chunk::next(upload.offset, upload.chunk, written, size)
                    .map(|range| Request::Patch { location, range })
            }
        }
    }

    /// Returns whether a blob goes in one PUT.
    const fn goes_whole(&self, size: u64, chunk: u64) -> bool {
        match self.way {
            Way::Chunks => size <= chunk,
            // A chunk of one byte is refused by some, and there is none without a byte.
            Way::Patches => size < 2,
            Way::Whole => true,
        }
    }

    fn size(&self) -> Option<u64> {
        self.sealed.as_ref().map(|(_, size)| *size)
    }

    fn ended(mut self, error: Error) -> Self {
        self.step = Step::Ended(Err(error));
        self
    }

    /// Keeps what the driver may want to know of the step.
    fn observed(mut self) -> Self {
        match &self.step {
            Step::Open => {
                if let Legacy::TakenUp = self.legacy {
                    self.legacy = Legacy::None;
                }
                self.acknowledged = 0;
                self.news.given_up = self.location.take();
            }
            Step::Send(upload) | Step::Ask { upload, .. } | Step::Confirm { upload, .. } => {
                self.acknowledged = upload.offset;
                self.location = Some(upload.location.clone());
            }
            Step::Ended(Ok(_)) => {
                self.acknowledged = self.size().unwrap_or(self.acknowledged);
                self.location = None;
            }
            Step::Ended(Err(_)) => {}
        }
        self
    }
}

fn unasked() -> Error {
    Error::internal("an upload session was told the outcome of a request it had not made")
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod script;
#[cfg(test)]
mod tests {
    use super::{script::*, *};
    use crate::{error::ErrorKind, registry::hosts};

    #[test]
    fn a_blob_of_one_chunk_is_one_put() {
        for size in [1, 9, 10] {
            assert_eq!(play(size, vec![opened(), status(201)]), format!("POST, PUT {size}, uploaded"));
        }
    }

    #[test]
    fn a_larger_blob_goes_in_chunks_and_the_closing_put_is_empty() {
        let answers = vec![opened(), kept(10), kept(20), kept(25), status(201)];
        assert_eq!(play(25, answers), "POST, 0..10, 10..20, 20..25, PUT, uploaded");
    }

    #[test]
    fn every_success_is_one() {
        for code in [200, 201, 202, 204] {
            let patch = || status(code).range("0-9");
            let answers = vec![opened(), patch(), status(code).range("0-14"), status(201)];
            assert_eq!(play(15, answers), "POST, 0..10, 10..15, PUT, uploaded", "{code}");
        }
        for code in [200, 201, 204] {
            assert_eq!(play(5, vec![opened(), status(code)]), "POST, PUT 5, uploaded", "{code}");
        }
    }

    #[test]
    fn the_newest_location_is_always_used() {
        let answers = vec![opened(), kept(10).at("b"), kept(15).at("c"), status(201)];
        assert_eq!(play(15, answers), "POST, 0..10, 10..15 @b, PUT @c, uploaded");
    }

    #[test]
    fn the_last_chunk_is_never_one_byte() {
        // Chunks of 9, since 21 = 10 + 10 + 1.
        let answers = vec![opened(), kept(9), kept(18), kept(21), status(201)];
        assert_eq!(play(21, answers), "POST, 0..9, 9..18, 18..21, PUT, uploaded");
        // Nor is any larger than was asked for, unless all have one size.
        let least = |lesson| Settings { chunk_size: Some(4), lesson, ..settings() };
        let done = play_with(least(Lesson::default()), &blob(9), vec![opened(), kept(4), kept(7)]).1;
        assert_eq!(done, "POST, 0..4, 4..7, 7..9");
        let equal = Lesson { equal_parts: true, ..Lesson::default() };
        assert_eq!(play_with(least(equal), &blob(9), vec![opened(), kept(5)]).1, "POST, 0..5, 5..9");
    }

    #[test]
    fn a_fatal_fault_ends_it() {
        let fatal = || Answer::Fault(Fault::Fatal(Error::new(ErrorKind::Network, "certificate unknown")));
        let failure = "network: opening an upload: certificate unknown";
        assert_eq!(play(5, vec![fatal()]), format!("POST, {failure}"));
        assert!(play(25, vec![opened(), fatal()]).ends_with("sending bytes 0 to 10: certificate unknown"));
    }

    #[test]
    fn nothing_is_sent_that_is_not_written() {
        let growing = |written| Spool { written, ..Spool::default() };
        let mut session = Session::new(Settings { look_first: true, ..settings() });
        assert!(matches!(session.next(&growing(10)), Action::More));
        let Action::Send(request) = session.next(&growing(11)) else { panic!("no request") };
        assert_eq!(in_short(&request), "POST");
        let R(reply) = opened() else { unreachable!() };
        session = session.on_reply(reply);
        // Two more than a chunk, so that the last one is never a byte.
        assert!(matches!(session.next(&growing(11)), Action::More));
        let Action::Send(request) = session.next(&growing(12)) else { panic!("no request") };
        assert_eq!(in_short(&request), "0..10");
        let R(reply) = kept(10) else { unreachable!() };
        session = session.on_reply(reply);
        assert!(matches!(session.next(&growing(12)), Action::More));
        let Action::Send(request) = session.next(&blob(21)) else { panic!("no request") };
        assert_eq!(in_short(&request), "10..19");
        let R(reply) = kept(19) else { unreachable!() };
        session = session.on_reply(reply);
        let Action::Send(request) = session.next(&blob(21)) else { panic!("no request") };
        assert_eq!(in_short(&request), "19..21");
    }

    #[test]
    fn a_small_blob_in_the_making_waits_for_its_digest() {
        let mut session = Session::new(Settings { look_first: true, ..settings() });
        assert!(matches!(session.next(&Spool { written: 10, ..Spool::default() }), Action::More));
        let Action::Send(request) = session.next(&blob(10)) else { panic!("no request") };
        assert_eq!(in_short(&request), "HEAD");
    }

    #[test]
    fn a_host_that_takes_only_whole_blobs_waits_for_the_end() {
        let profile = hosts::profile("europe-docker.pkg.dev");
        let whole = || Settings { profile, ..settings() };
        let (_, done) = play_with(whole(), &Spool { written: 1000, ..Spool::default() }, vec![]);
        assert_eq!(done, "more");
        let promised = Spool { written: 999, ..blob(1000) };
        assert_eq!(play_with(whole(), &promised, vec![opened()]).1, "POST, more");
        let answers = vec![opened(), status(201)];
        assert_eq!(play_with(whole(), &blob(1000), answers).1, "POST, PUT 1000, uploaded");
    }

    #[test]
    fn a_broken_source_ends_it() {
        let broken =
            Spool { written: 100, end: Some(Err(Error::source("layer is damaged"))), ..Spool::default() };
        assert_eq!(play_with(settings(), &broken, vec![]).1, "source: layer is damaged");
    }

    #[test]
    fn acknowledged_falls_with_a_lost_session() {
        let answers = vec![opened(), kept(10), kept(20)];
        let (session, _) = play_with(settings(), &blob(25), answers);
        assert_eq!(session.acknowledged(), 20);
        assert_eq!(session.location(), Some(&place("a")));
        let answers = vec![opened(), kept(10), status(404), status(404)];
        let (session, _) = play_with(settings(), &blob(25), answers);
        assert_eq!(session.acknowledged(), 0);
        assert_eq!(session.location(), None);
        let (session, _) = play_with(settings(), &blob(5), vec![opened(), status(201)]);
        assert_eq!(session.acknowledged(), 5);
        assert_eq!(session.location(), None);
    }

    #[test]
    fn what_is_acknowledged_is_held_until_the_blob_is_there() {
        let held = |answers| {
            let (session, _) = play_with(settings(), &blob(15), answers);
            session.held().map(|held| held.offset)
        };
        let all = || [opened(), kept(10), kept(15)].into_iter();
        assert_eq!(held(all().take(1).collect()), None);
        assert_eq!(held(all().take(2).collect()), Some(10));
        assert_eq!(held(all().chain([status(500)]).collect()), Some(15));
        assert_eq!(held(all().chain([status(201)]).collect()), None);
    }

    #[test]
    fn limits_that_others_have_met_hold_for_the_next_chunk() {
        let others = Lesson { body_limit: Some(4), ..Lesson::default() };
        let (mut session, _) = play_with(settings(), &blob(100), vec![opened()]);
        session.hear(others);
        assert_eq!(play_on(session, &blob(100), vec![]).1, "0..4");
        // Chunks of one size stay so.
        let equal = vec![opened().header("oci-chunk-min-length", "4")];
        let (mut session, _) = play_with(settings(), &blob(100), equal);
        session.hear(others);
        assert_eq!(play_on(session, &blob(100), vec![]).1, "0..10");
    }

    #[test]
    fn chunks_of_another_size_than_was_asked_for_are_spoken_of_where_there_are_any() {
        let between = || opened().header("oci-chunk-min-length", "4").header("oci-chunk-max-length", "8");
        let (session, done) = play_with(settings(), &blob(100), vec![between()]);
        assert_eq!(done, "POST, 0..8");
        assert!(session.resized().is_some());
        // A limit above the least is none to give up for.
        let lesson = Lesson { body_limit: Some(6), ..Lesson::default() };
        let known = Settings { lesson, ..settings() };
        assert_eq!(play_with(known, &blob(100), vec![between()]).1, "POST, 0..6");
        let whole = Settings { profile: hosts::profile("gcr.io"), ..settings() };
        assert!(play_with(whole, &blob(100), vec![between()]).0.resized().is_none());
    }

    #[test]
    fn a_round_trip_is_that_of_a_request_without_a_body() {
        let second = Duration::from_secs(1);
        let round_trip =
            |session: Session, answers| play_on(session, &blob(25), answers).0.lesson().round_trip;
        let look = Settings { look_first: true, ..settings() };
        assert_eq!(round_trip(Session::new(look), vec![status(404).after(second)]), Some(1_000_000));
        let answers = vec![opened().after(2 * second), kept(10).after(second)];
        assert_eq!(round_trip(Session::new(settings()), answers), Some(2_000_000));
        let held = Held { location: place("a"), offset: 10, chunk: 10, equal_parts: false };
        let resumed = Session::resume(settings(), held);
        assert_eq!(round_trip(resumed, vec![holds(10).after(second)]), Some(1_000_000));
    }
}
