//! The answers to the closing PUT, and to the HEAD that decides whenever it did not plainly succeed.
//!
//! A lost answer is common where a commit takes long: GHCR then has the blob while a repeated PUT gets a 404
//! (gh:GoogleContainerTools/jib#4301).

use std::mem;

use super::{Doubt, Fault, Outcome, Reply, Session, Step, Upload, Way, open::is_present, retry};
use crate::error::{Error, ErrorKind, counted, sized};

/// What to do when the blob is not there after all.
#[derive(Debug)]
pub(super) enum Missing {
    /// The registry has said why, and will say it again.
    Fail(Error),
    /// Begin anew: the session is gone, or holds nobody knows what.
    Restart(Error),
    /// Begin anew, in PATCHes: the registry may want no body in a closing PUT. `container-registry` (crates.io) answers
    /// it by 500.
    InPatches(Error),
    /// Go on with the session if it is still there.
    Resume,
    /// Begin anew, in the smaller chunks that are chosen by now.
    Smaller,
}

impl Session {
    pub(super) fn committed(
        &mut self,
        upload: Upload,
        body: Option<u64>,
        reply: &Reply,
        error: Error,
    ) -> Step {
        let error = match reply.status {
            // serverless-registry answers it by 500 (cloudflare/serverless-registry:src/registry/r2.ts).
            400 | 404..=428 | 500 if body == Some(0) => {
                error.while_doing("the registry refuses the empty blob")
            }
            _ => error,
        };
        let code = reply.error.as_ref().and_then(|error| error.code.as_deref());
        match (reply.status, body) {
            (200 | 201 | 204, _) => {
                self.limits.passed(body.unwrap_or(0));
                if self.way == Way::Patches {
                    self.limits.refuses_whole();
                }
                Step::Ended(Ok(Outcome::Uploaded))
            }
            (400, _) if code == Some("DIGEST_INVALID") => self.misassembled(&upload, body, error),
            (300..=399, Some(_)) => upload.redirected(reply, error),
            (403, _) => Step::Ended(Err(error)),
            (404, None) if !self.settings.profile.status => {
                let missing = Missing::Restart(error.clone());
                self.decided_by_head(upload, missing, error)
            }
            (_, Some(size @ 1..)) if reply.is_too_large() => self.shrink(size, reply, error),
            // Turned away before a byte was stored.
            (429, _) => self.again(Step::Send(upload), error),
            (_, Some(size)) if let Some(suspect) = self.suspect_answer(&(0..size), reply) => {
                self.dodge(size, suspect, &error);
                Step::Confirm { upload, missing: Missing::Smaller }
            }
            (status, _) if matches!(status, 202 | 404 | 416) || retry::is_transient(status) => {
                let missing = match (status, body) {
                    (500, Some(2..)) if self.way == Way::Chunks => Missing::InPatches(error.clone()),
                    _ => Missing::after(body, &error),
                };
                self.decided_by_head(upload, missing, error)
            }
            (_, Some(2..)) if self.way == Way::Chunks => {
                Step::Confirm { upload, missing: Missing::InPatches(error) }
            }
            _ => Step::Confirm { upload, missing: Missing::Fail(error) },
        }
    }

    pub(super) fn commit_broke(
        &mut self,
        upload: Upload,
        body: Option<u64>,
        fault: &Fault,
        error: Error,
    ) -> Step {
        let size = body.unwrap_or(0);
        let untouched = matches!(fault, Fault::Connect { .. }) || (size > 0 && !fault.reached());
        match self.suspect_fault(&(0..size), fault) {
            Some(suspect) => {
                self.dodge(size, suspect, &error);
                Step::Confirm { upload, missing: Missing::Smaller }
            }
            None if untouched => self.again(Step::Send(upload), error),
            None => {
                let missing = Missing::after(body, &error);
                self.decided_by_head(upload, missing, error)
            }
        }
    }

    /// Looks for the blob after a pause: the attempts may be used up, and it may be there all the same.
    fn decided_by_head(&mut self, upload: Upload, missing: Missing, error: Error) -> Step {
        let missing = match self.pause(error, None) {
            Ok(()) => missing,
            Err(error) => Missing::Fail(error),
        };
        Step::Confirm { upload, missing }
    }

    /// The answer to the HEAD after a closing PUT.
    pub(super) fn confirmed(
        &mut self,
        upload: Upload,
        missing: Missing,
        reply: &Reply,
        error: Error,
    ) -> Step {
        if is_present(reply, self.sealed.as_ref()) {
            return Step::Ended(Ok(Outcome::Uploaded));
        }
        if retry::is_transient(reply.status) {
            let step = Step::Confirm { upload, missing };
            return self.again(step, error);
        }
        match missing {
            Missing::Fail(error) => Step::Ended(Err(error)),
            Missing::Restart(error) => self.restart(error),
            Missing::InPatches(error) => {
                self.way = Way::Patches;
                self.restart(error)
            }
            Missing::Resume if self.settings.profile.status => Step::ask(upload, Doubt::Uncommitted),
            Missing::Resume => Step::Send(upload),
            Missing::Smaller => Step::Open,
        }
    }

    /// The registry computed another digest: chunks were lost or doubled on the way.
    fn misassembled(&mut self, upload: &Upload, body: Option<u64>, error: Error) -> Step {
        if mem::replace(&mut self.misassembled, true) {
            if self.may_go_whole() {
                // ECR Public cannot put chunks together: gh:dotnet/sdk-container-builds#472.
                self.way = Way::Whole;
                return self.restart(error);
            }
            let name = self.settings.profile.name;
            let sent = body.unwrap_or(upload.offset);
            let how = match body {
                Some(_) => "in one piece".to_owned(),
                None => format!("in chunks of {}", sized(upload.chunk)),
            };
            let message =
                format!("{name} assembled different bytes than we sent ({} {how})", counted(sent, "byte"));
            return Step::Ended(Err(Error::new(ErrorKind::Refused, message).because(error)));
        }
        self.trust_range = false;
        if body.is_some() && self.way == Way::Chunks {
            self.way = Way::Patches;
        }
        self.restart(error)
    }
}

impl Missing {
    /// A session that was sent chunks may be committed again; one that was sent a whole blob may hold a part
    /// of it.
    fn after(body: Option<u64>, error: &Error) -> Self {
        if body.is_some() { Self::Restart(error.clone()) } else { Self::Resume }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Fault, Settings, script::*};
    use crate::{oci::Digest, registry::hosts};

    #[test]
    fn the_empty_blob_is_a_put_and_its_refusal_is_explained() {
        assert_eq!(play(0, vec![opened(), status(201)]), "POST, PUT 0, uploaded");
        for code in [400, 405, 500] {
            let once = Settings { retries: 0, ..settings() };
            let done = play_with(once, &blob(0), vec![opened(), status(code), status(404)]).1;
            assert!(
                done.starts_with("POST, PUT 0, HEAD, ")
                    && done.contains(": the registry refuses the empty blob"),
                "{done}"
            );
        }
        let done = play(1, vec![opened(), status(400), status(404)]);
        assert!(done.starts_with("POST, PUT 1, HEAD, refused: sending the blob in one piece"), "{done}");
    }

    #[test]
    fn a_commit_that_is_not_plainly_one_is_decided_by_head() {
        for unclear in
            [status(202), status(500), status(404), status(416), status(400), reset(0), no_connection()]
        {
            let connected = !matches!(unclear, Answer::Fault(Fault::Connect { .. }));
            let answers = vec![opened(), kept(10), kept(15), unclear, status(200)];
            let done = play(15, answers);
            let decided = if connected { "HEAD, uploaded" } else { "PUT, uploaded" };
            assert!(done.starts_with("POST, 0..10, 10..15, PUT, ") && done.ends_with(decided), "{done}");
        }
    }

    #[test]
    fn a_commit_that_failed_is_repeated_where_the_session_lives() {
        let size = || status(200).header("content-length", "14");
        for failed in [503, 202] {
            let answers = vec![opened(), kept(10), kept(15), status(failed), size(), holds(15), status(201)];
            assert_eq!(play(15, answers), "POST, 0..10, 10..15, PUT, wait, HEAD, GET, PUT, uploaded");
        }
        // Where it does not say how much it holds, or is known to say what is not so, there is no telling.
        for (odd, unclear) in [(kept(15), status(204)), (status(202), holds(10))] {
            let answers = vec![opened(), kept(10), odd, status(503), status(404), unclear, status(201)];
            assert_eq!(play(15, answers), "POST, 0..10, 10..15, PUT, wait, HEAD, GET, PUT, uploaded");
        }
        // Or begun anew where it does not: one status request is enough.
        let answers =
            vec![opened(), kept(10), kept(15), reset(0), status(404), status(404), opened().at("b")];
        assert_eq!(play(15, answers), "POST, 0..10, 10..15, PUT, wait, HEAD, GET, POST, 0..10 @b");
        // Or does not hold all.
        let answers = vec![opened(), kept(10), kept(15), reset(0), status(404), holds(10), opened().at("b")];
        assert_eq!(play(15, answers), "POST, 0..10, 10..15, PUT, wait, HEAD, GET, POST, 0..10 @b");
    }

    #[test]
    fn who_answers_no_questions_is_asked_none_after_a_commit() {
        let profile = hosts::profile("1.dkr.ecr.eu-west-1.amazonaws.com");
        let silent = || Settings { profile, ..settings() };
        let answers = |failed| vec![opened(), kept(10), kept(15), failed, status(404)];
        let done = play_with(silent(), &blob(15), answers(status(500))).1;
        assert_eq!(done, "POST, 0..10, 10..15, PUT, wait, HEAD, PUT");
        // That it is gone is believed, and asked about elsewhere.
        let done = play_with(silent(), &blob(15), answers(status(404))).1;
        assert_eq!(done, "POST, 0..10, 10..15, PUT, wait, HEAD, POST");
        assert_eq!(play(15, answers(status(404))), "POST, 0..10, 10..15, PUT, wait, HEAD, GET");
    }

    #[test]
    fn who_takes_whole_blobs_only_is_sent_no_chunks_after_a_failure() {
        let profile = hosts::profile("europe-docker.pkg.dev");
        let whole = || Settings { profile, ..settings() };
        let answers = vec![opened(), status(500), status(404), opened().at("b"), status(201)];
        let done = play_with(whole(), &blob(15), answers).1;
        assert_eq!(done, "POST, PUT 15, wait, HEAD, POST, PUT 15 @b, uploaded");
        let invalid = status(400).code("DIGEST_INVALID");
        let done = play_with(whole(), &blob(15), vec![opened(), invalid, opened(), status(201)]).1;
        assert_eq!(done, "POST, PUT 15, POST, PUT 15, uploaded");
        let done = play_with(whole(), &blob(15), vec![opened(), status(501), status(404)]).1;
        assert!(done.starts_with("POST, PUT 15, HEAD, refused: "), "{done}");
    }

    #[test]
    fn a_whole_blob_that_is_out_of_range_is_too_large_only_where_that_is_said() {
        let large = || Settings { chunk_size: Some(16 * MIB), ..settings() };
        let play = |answers| play_with(large(), &blob(10 * MIB), answers).1;
        let put = format!("POST, PUT {}", 10 * MIB);
        let answers = vec![opened(), status(416).words("blob too large"), opened().at("b")];
        assert_eq!(play(answers), format!("{put}, POST, 0..{} @b", 8 * MIB));
        let answers = vec![opened(), status(416).words("no such range"), status(404), opened().at("b")];
        assert_eq!(play(answers), format!("{put}, wait, HEAD, POST, PUT {} @b", 10 * MIB));
    }

    #[test]
    fn a_whole_blob_that_went_through_says_how_much_may_be_sent() {
        let lesson = play_with(settings(), &blob(5), vec![opened(), status(201)]).0.lesson();
        assert_eq!((lesson.largest_taken, lesson.refuses_whole), (5, false));
    }

    #[test]
    fn a_whole_blob_that_broke_begins_anew() {
        for broken in [reset(3), status(503)] {
            let answers = vec![opened(), broken, status(404), opened().at("b"), status(201)];
            assert_eq!(play(5, answers), "POST, PUT 5, wait, HEAD, POST, PUT 5 @b, uploaded");
        }
        // Unless nothing of it arrived.
        for unsent in [reset(0), no_connection(), status(429)] {
            assert_eq!(play(5, vec![opened(), unsent, status(201)]), "POST, PUT 5, wait, PUT 5, uploaded");
        }
    }

    #[test]
    fn a_head_after_a_commit_is_repeated_until_it_answers() {
        let answers = vec![opened(), status(500), status(503), reset(0), status(200)];
        assert_eq!(play(5, answers), "POST, PUT 5, wait, HEAD, wait, HEAD, wait, HEAD, uploaded");
    }

    #[test]
    fn a_head_decides_when_no_attempt_is_left_too() {
        let once = || Settings { retries: 0, ..settings() };
        let play = |size, answers| play_with(once(), &blob(size), answers).1;
        for lost in [reset(3), status(500), status(404), status(202)] {
            assert_eq!(play(5, vec![opened(), lost, status(200)]), "POST, PUT 5, HEAD, uploaded");
        }
        let answers = vec![opened(), kept(10), kept(15), reset(0), status(200)];
        assert_eq!(play(15, answers), "POST, 0..10, 10..15, PUT, HEAD, uploaded");
        let done = play(5, vec![opened(), reset(3), status(404)]);
        assert!(done.starts_with("POST, PUT 5, HEAD, network: sending the blob in one piece"), "{done}");
    }

    #[test]
    fn a_head_that_describes_something_else_confirms_nothing() {
        let other = Digest::of(b"other").to_string();
        let something_else = || status(200).header("docker-content-digest", &other);
        let answers = vec![opened(), status(500), something_else(), opened().at("b")];
        assert_eq!(play(5, answers), "POST, PUT 5, wait, HEAD, POST, 0..5 @b");
        let right = Digest::of(b"blob").to_string();
        let answers = vec![opened(), status(500), status(200).header("docker-content-digest", &right)];
        assert_eq!(play(5, answers), "POST, PUT 5, wait, HEAD, uploaded");
    }

    #[test]
    fn wrongly_assembled_bytes_are_sent_once_more() {
        let invalid = || status(400).code("DIGEST_INVALID");
        let answers =
            vec![opened(), kept(10), kept(15), invalid(), opened().at("b"), kept(4), kept(4), status(201)];
        assert_eq!(
            play(15, answers),
            "POST, 0..10, 10..15, PUT, POST, 0..10 @b, 10..15 @b, PUT @b, uploaded"
        );
        let answers = vec![opened(), invalid(), opened().at("b"), kept(5), invalid()];
        let done = play(5, answers);
        let twice =
            "refused: the registry assembled different bytes than we sent (5 bytes in chunks of 10 bytes)";
        assert!(done.starts_with("POST, PUT 5, POST, 0..5 @b, PUT @b, ") && done.contains(twice), "{done}");
        // Who cannot put chunks together gets it in one piece, unless that is too large.
        let chunks = |name| [opened().at(name), kept(10), kept(15), invalid()];
        let answers = || chunks("a").into_iter().chain(chunks("b"));
        let done = play(15, answers().chain([opened().at("c"), status(201)]).collect());
        assert!(
            done.ends_with("PUT, POST, 0..10 @b, 10..15 @b, PUT @b, POST, PUT 15 @c, uploaded"),
            "{done}"
        );
        let done = play(15, answers().chain([opened(), invalid()]).collect());
        assert!(
            done.contains("POST, PUT 15, refused: ") && done.contains("(15 bytes in one piece)"),
            "{done}"
        );
        let small = || opened().header("oci-chunk-max-length", "14");
        let chunks = || [small(), kept(10), kept(15), invalid()];
        let done = play(15, chunks().into_iter().chain(chunks()).collect());
        assert!(done.contains("(15 bytes in chunks of 10 bytes)"), "{done}");
    }

    #[test]
    fn a_commit_refused_for_a_reason_is_not_repeated() {
        let small = || status(400).words("part too small");
        let answers = vec![opened(), kept(10), kept(15), small(), status(404)];
        let done = play(15, answers);
        assert!(done.ends_with("part too small") && done.contains("PUT, HEAD, refused: "), "{done}");
        // A blob in one PUT is sent once more, in another way.
        let done = play(5, vec![opened(), small(), status(404), opened(), kept(5), small(), status(404)]);
        assert!(done.starts_with("POST, PUT 5, HEAD, POST, 0..5, PUT, HEAD, refused: "), "{done}");
    }

    #[test]
    fn a_blob_refused_in_one_put_goes_in_patches() {
        for (refused, pause) in [(500, "wait, "), (501, ""), (405, ""), (411, ""), (415, "")] {
            let answers =
                vec![opened(), status(refused), status(404), opened().at("b"), kept(5), status(201)];
            let (session, done) = play_with(settings(), &blob(5), answers);
            assert_eq!(done, format!("POST, PUT 5, {pause}HEAD, POST, 0..5 @b, PUT @b, uploaded"));
            // And so do the next ones, but for a byte: nobody is sent that as a chunk.
            let taught = || Settings { lesson: session.lesson(), ..settings() };
            let answers = vec![opened(), kept(9), status(201)];
            assert_eq!(play_with(taught(), &blob(9), answers).1, "POST, 0..9, PUT, uploaded");
            assert_eq!(play_with(taught(), &blob(1), vec![opened(), status(201)]).1, "POST, PUT 1, uploaded");
        }
        // Who takes neither is not asked for ever.
        let answers = vec![opened(), status(405), status(404), opened(), status(405)];
        assert!(play(5, answers).starts_with("POST, PUT 5, HEAD, POST, 0..5, refused: sending bytes 0 to 5"));
    }
}
