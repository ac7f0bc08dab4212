//! Before any byte: is the blob there, can it be mounted, and where may it be sent to?

use super::{Fault, Legacy, Outcome, Reply, Session, Step, Upload, retry};
use crate::{
    error::{Error, ErrorKind},
    oci::Digest,
    registry::{
        hosts::{self, Profile},
        is_something_else,
    },
};

/// A registry that is away comes back; one that fails so often cannot mount.
const MOST_FAILED_MOUNTS: u32 = 3;

/// Returns whether a POST may fail so because of the repository that the blob should be mounted from.
pub(super) const fn blames_mount(status: u16) -> bool {
    matches!(status, 400..=499) && !retry::is_transient(status)
}

/// Returns whether a HEAD says that this blob is there.
pub(super) fn is_present(reply: &Reply, blob: Option<&(Digest, u64)>) -> bool {
    let Some((digest, size)) = blob else { return false };
    let stated = reply.headers.get(http::header::CONTENT_LENGTH);
    let stated = stated.and_then(|length| length.to_str().ok()?.trim().parse().ok());
    reply.status == 200
        && stated.is_none_or(|stated: u64| stated == *size)
        && !is_something_else(&reply.headers, digest)
}

impl Session {
    /// The answer to the HEAD before anything else.
    pub(super) fn looked(&mut self, reply: &Reply, error: Error) -> Step {
        if is_present(reply, self.sealed.as_ref()) {
            return Step::Ended(Ok(Outcome::Present));
        }
        if retry::is_transient(reply.status) {
            return self.again(Step::Open, error);
        }
        // Missing, or we may not know: send it.
        self.settings.look_first = false;
        Step::Open
    }

    /// The answer to the POST.
    pub(super) fn opened(&mut self, mounting: bool, reply: &Reply, error: Error) -> Step {
        match reply.status {
            201 if mounting => Step::Ended(Ok(Outcome::Mounted)),
            200..=204 => self.begun(reply),
            status if retry::is_transient(status) => {
                if mounting && !matches!(status, 429 | 503) {
                    self.failed_mounts += 1;
                    if self.failed_mounts == MOST_FAILED_MOUNTS {
                        self.settings.mount_from = None;
                    }
                }
                self.again(Step::Open, error)
            }
            _ => Step::Ended(Err(error)),
        }
    }

    pub(super) fn open_broke(&mut self, fault: &Fault, mut error: Error) -> Step {
        let Profile { name, cuts_unknown, .. } = self.settings.profile;
        if cuts_unknown && matches!(fault, Fault::Reset { .. }) {
            error = error.with_hint(format!(
                "{name} cuts the connection where there is no such repository: create it first"
            ));
        }
        self.again(Step::Open, error)
    }

    fn begun(&mut self, reply: &Reply) -> Step {
        let Some(location) = reply.location.clone() else {
            let message = "the registry opened an upload without a `Location` to send it to";
            return Step::Ended(Err(Error::new(ErrorKind::Refused, message)));
        };
        if let Err(impossible) = self.limits.read(&reply.headers, &mut self.news.warnings) {
            return Step::Ended(Err(impossible));
        }
        self.attempts.let_in();
        self.legacy = Legacy::None;
        self.settings.mount_from = None;
        if let (Profile::ORDINARY, Some(known)) = (self.settings.profile, hosts::recognise(&reply.headers)) {
            self.settings.profile = known;
        }
        Step::Send(Upload::new(location, self.limits.choose(self.size())))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Action, Fault, Session, Settings, script::*};
    use crate::{
        error::{Error, ErrorKind},
        registry::{RegistryError, hosts},
    };

    #[test]
    fn it_looks_first_where_nobody_has() {
        let look = || Settings { look_first: true, ..settings() };
        let present = status(200).header("content-length", "15");
        assert_eq!(play_with(look(), &blob(15), vec![present]).1, "HEAD, present");
        let answers = vec![status(404), opened(), status(201)];
        assert_eq!(play_with(look(), &blob(5), answers).1, "HEAD, POST, PUT 5, uploaded");
        // Not ours, if the size is another.
        let answers = vec![status(200).header("content-length", "16"), opened(), status(201)];
        assert_eq!(play_with(look(), &blob(5), answers).1, "HEAD, POST, PUT 5, uploaded");
    }

    #[test]
    fn a_failed_look_is_repeated_and_not_read_as_missing() {
        let look = || Settings { look_first: true, ..settings() };
        let answers = vec![status(503), reset(0), status(200)];
        assert_eq!(play_with(look(), &blob(15), answers).1, "HEAD, wait, HEAD, wait, HEAD, present");
        // A redirect that is not followed leaves it open: send.
        let fatal = Answer::Fault(Fault::Fatal(Error::new(ErrorKind::Refused, "a redirect to http")));
        let (mut session, done) = play_with(look(), &blob(5), vec![fatal, opened(), status(201)]);
        assert_eq!(done, "HEAD, POST, PUT 5, uploaded");
        assert_eq!(session.take_news().warnings.len(), 1);
        assert!(session.take_news().warnings.is_empty());
    }

    #[test]
    fn a_mount_is_tried_first_and_its_session_used() {
        let mount = || Settings { mount_from: Some("base".to_owned()), ..settings() };
        assert_eq!(play_with(mount(), &blob(5), vec![status(201)]).1, "POST from base, mounted");
        let answers = vec![opened(), status(201)];
        assert_eq!(play_with(mount(), &blob(5), answers).1, "POST from base, PUT 5, uploaded");
    }

    #[test]
    fn nothing_is_mounted_that_nobody_wanted_mounted() {
        for code in [200, 201, 204] {
            assert_eq!(play(5, vec![status(code).at("a"), status(201)]), "POST, PUT 5, uploaded", "{code}");
        }
    }

    #[test]
    fn a_refused_mount_is_a_plain_upload_once() {
        for code in [400, 401, 403, 404, 405] {
            let mount = Settings { mount_from: Some("base".to_owned()), ..settings() };
            let answers = vec![status(code), opened(), status(201)];
            let done = play_with(mount, &blob(5), answers).1;
            assert_eq!(done, "POST from base, POST, PUT 5, uploaded", "{code}");
        }
        let mount = Settings { mount_from: Some("base".to_owned()), ..settings() };
        let done = play_with(mount, &blob(5), vec![status(403), status(403)]).1;
        assert!(done.starts_with("POST from base, POST, denied: "), "{done}");
    }

    #[test]
    fn a_mount_that_fails_time_and_again_is_a_plain_upload() {
        let mount = || Settings { mount_from: Some("base".to_owned()), ..settings() };
        let failed = "POST from base, wait, ".repeat(3);
        let answers = vec![status(500), status(502), status(504), opened(), status(201)];
        assert_eq!(play_with(mount(), &blob(5), answers).1, format!("{failed}POST, PUT 5, uploaded"));
        // Whoever is only busy may mount it later.
        for busy in [429, 503] {
            let answers = vec![status(busy), status(busy), status(busy), status(201)];
            assert_eq!(play_with(mount(), &blob(5), answers).1, format!("{failed}POST from base, mounted"));
        }
        // An upload was opened instead: there is nothing to mount.
        let answers = vec![opened(), kept(10), status(404), status(404), opened()];
        let done = play_with(mount(), &blob(25), answers).1;
        assert_eq!(done, "POST from base, 0..10, 10..20, wait, GET, POST, 0..10");
    }

    #[test]
    fn advertised_limits_are_obeyed() {
        let minimum = opened().header("oci-chunk-min-length", "20");
        let answers = vec![minimum, kept(20), kept(30), status(201)];
        assert_eq!(play(30, answers), "POST, 0..20, 20..30, PUT, uploaded");
        let maximum = opened().header("oci-chunk-max-length", "8");
        let answers = vec![maximum, kept(8), kept(15), status(201)];
        assert_eq!(play(15, answers), "POST, 0..8, 8..15, PUT, uploaded");
        // A blob that fits the raised chunk is one PUT after all.
        let minimum = opened().header("oci-chunk-min-length", "20");
        assert_eq!(play(15, vec![minimum, status(201)]), "POST, PUT 15, uploaded");
    }

    #[test]
    fn an_absurd_minimum_is_refused_and_garbage_only_told() {
        let done = play(15, vec![opened().header("oci-chunk-min-length", "2000000000")]);
        assert!(done.contains("refused: the registry wants chunks of at least 2000000000 bytes"), "{done}");
        let garbage = opened().header("oci-chunk-min-length", "many");
        let (mut session, done) =
            play_with(settings(), &blob(15), vec![garbage, kept(10), kept(15), status(201)]);
        assert_eq!(done, "POST, 0..10, 10..15, PUT, uploaded");
        assert!(session.take_news().warnings[0].contains("oci-chunk-min-length"));
    }

    #[test]
    fn refusals_are_final_and_helpful() {
        for (code, kind) in
            [(403, "denied"), (404, "refused"), (405, "refused"), (400, "refused"), (501, "refused")]
        {
            let done = play(5, vec![status(code).words("because")]);
            assert!(done.starts_with(&format!("POST, {kind}: ")) && done.contains("because"), "{done}");
        }
        let answers = vec![opened(), status(403)];
        assert!(play(25, answers).starts_with("POST, 0..10, denied: "));
        assert!(play(5, vec![opened(), status(403)]).starts_with("POST, PUT 5, denied: "));
        let mut session = Session::new(settings());
        assert!(matches!(session.next(&blob(5)), Action::Send(_)));
        let R(reply) = status(404).code("NAME_UNKNOWN") else { unreachable!() };
        let Action::Fail(error) = session.on_reply(reply).next(&blob(5)) else { panic!("no failure") };
        assert_eq!(error.hints(), ["create the repository or project at the registry first"]);
        assert!(error.find::<RegistryError>().is_some());
    }

    #[test]
    fn a_repository_that_is_told_to_be_missing_by_a_reset_is_one_to_create() {
        let amazons = hosts::profile("1.dkr.ecr.eu-west-1.amazonaws.com");
        for (profile, fault, hinted) in [
            (amazons, reset(0), true),
            (amazons, no_connection(), false),
            (hosts::Profile::ORDINARY, reset(0), false),
        ] {
            let once = Settings { profile, retries: 0, ..settings() };
            let mut session = Session::new(once);
            assert!(matches!(session.next(&blob(5)), Action::Send(_)));
            let Answer::Fault(fault) = fault else { unreachable!() };
            let Action::Fail(error) = session.on_fault(fault).next(&blob(5)) else { panic!("no failure") };
            assert_eq!(
                error.hints().iter().any(|hint| hint.contains("create it first")),
                hinted,
                "{error:?}"
            );
        }
    }

    #[test]
    fn an_upload_without_an_address_is_refused() {
        assert!(play(5, vec![status(202)]).contains("without a `location`"));
    }
}
