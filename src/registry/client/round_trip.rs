//! One call and its answer: who we are is shown where the registry asks for it, and redirects are followed.
//!
//! A body that streams is gone after the first attempt: what it meets is an answer, a 401 and a redirect too.

use std::{sync::atomic::Ordering, time::Duration};

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use url::Url;

use super::{Client, Inner};
use crate::{
    error::{Error, ErrorKind},
    registry::{
        RegistryError,
        auth::{Challenge, Scope, is_basic},
        location::REDIRECTS,
        origin::{is_same_server, origin},
        session::Fault,
        transport::{Incoming, Outgoing, Pool},
    },
};

/// A token that is about to expire is as good as none.
pub(super) const TOKEN_MARGIN: Duration = Duration::from_secs(5);

/// A token shall be good for so long when a body is begun, since nothing can be renewed in the middle of it.
const TOKEN_MARGIN_WITH_BODY: Duration = Duration::from_secs(30);

/// What a verb asks, before it has been authenticated and redirected.
#[derive(Debug)]
pub(in crate::registry) struct Call {
    pub(in crate::registry) request: Outgoing,
    pub(super) scope: Scope,
    pub(super) pool: Pool,
    /// Where a password would have to be shown it is not made: many at once with a wrong one lock an account.
    pub(super) shows_no_password: bool,
}

impl Call {
    pub(super) fn new(method: Method, repository: &str, url: Url) -> Self {
        let (request, scope) = (Outgoing::new(method, url), Scope::of(repository));
        Self { request, scope, pool: Pool::Small, shows_no_password: false }
    }
}

impl Client {
    /// Makes one call, answering a challenge once, a refusal once, and following redirects where the body allows it.
    pub(super) async fn round_trip(&self, call: &mut Call) -> Result<Incoming, Fault> {
        let Inner { transport, auth, .. } = &*self.0;
        let size = call.request.payload.streamed();
        let outlive = self.outlive(size);
        let mut url = call.request.url.clone();
        let (mut redirects, mut was_asked, mut was_refused) = (0, false, false);
        let _permit = transport.restraint.permit(call.pool).await;
        loop {
            transport.restraint.unpaused().await;
            if redirects == 0 {
                transport.catch_up(&mut url);
            }
            let ours = self.may_see_credentials(&url);
            let shown = if ours { auth.authorization(transport, &call.scope, outlive).await? } else { None };
            if call.shows_no_password && shown.as_ref().is_some_and(is_basic) {
                let words = "the registry wants a password first";
                return Err(Fault::Fatal(Error::new(ErrorKind::Denied, words)));
            }
            let mut request = Outgoing { url, ..call.request.take() };
            request.headers.extend(shown.iter().map(|shown| (header::AUTHORIZATION, shown.clone())));
            let answer = transport.send(request).await?;
            let may_show_more = ours
                && answer.status == StatusCode::UNAUTHORIZED
                && self.unauthorized(&call.scope, shown.as_ref(), &answer).await;
            if size > 0 {
                self.note_speed(size, &answer);
                return Ok(answer);
            }
            let before = if shown.is_some() { &mut was_refused } else { &mut was_asked };
            if may_show_more && !std::mem::replace(before, true) {
                url = answer.url;
                continue;
            }
            if shown.is_some() && answers_about(&call.scope.repository, &answer) {
                auth.answered(&call.scope.repository);
            }
            let Some(target) = answer.redirect(&transport.guard)? else { return Ok(answer) };
            redirects += 1;
            if redirects > REDIRECTS {
                let words = format!("more than {REDIRECTS} redirects, the last to {}", origin(&target));
                return Err(Fault::Fatal(Error::new(ErrorKind::Refused, words)));
            }
            url = target;
        }
    }

    /// Takes note of a 401; returns whether there is now something else to show.
    async fn unauthorized(&self, scope: &Scope, shown: Option<&HeaderValue>, answer: &Incoming) -> bool {
        let at_base = self.challenge_at_base(answer, shown.is_some()).await;
        self.0.auth.refused(scope, shown, at_base.as_ref().unwrap_or(&answer.headers)).await
    }

    /// Asks `/v2/` for the challenge that a 401 has not brought: other clients begin there, and so there are registries
    /// that say it nowhere else (`container-registry` 0.3 of crates.io).
    async fn challenge_at_base(&self, answer: &Incoming, shown: bool) -> Option<HeaderMap> {
        if shown || self.0.auth.challenge().is_some() || Challenge::read(&answer.headers).is_some() {
            return None;
        }
        let mut url = answer.url.clone();
        url.set_path("/v2/");
        url.set_query(None);
        let base = self.0.transport.send(Outgoing::new(Method::GET, url)).await.ok()?;
        (base.status == StatusCode::UNAUTHORIZED).then_some(base.headers)
    }

    /// Returns how long a token has to live for a body of this size: twice what it should take.
    fn outlive(&self, size: u64) -> Duration {
        if size == 0 {
            return TOKEN_MARGIN;
        }
        let expected = size.checked_div(self.0.speed.load(Ordering::Relaxed)).unwrap_or(0);
        Duration::from_secs(expected.saturating_mul(2)).max(TOKEN_MARGIN_WITH_BODY)
    }

    /// Takes note of how fast a body was taken.
    fn note_speed(&self, size: u64, answer: &Incoming) {
        if answer.status.is_success() {
            let speed = u128::from(size) * 1000 / answer.elapsed.as_millis().max(1);
            self.0.speed.store(u64::try_from(speed).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// Returns whether a URL leads to the registry, or to it with TLS: there somebody else may be beside its own paths.
    pub(super) fn may_see_credentials(&self, url: &Url) -> bool {
        let base = self.0.transport.base();
        is_same_server(url, &base) && (url.scheme() == base.scheme() || url.path().starts_with("/v2/"))
    }

    /// Reads a refusal. That of a HEAD has no words: where they matter most, GET asks for them.
    pub(super) async fn refusal(&self, repository: &str, answer: &Incoming) -> RegistryError {
        let denied = matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if denied && answer.method == Method::HEAD {
            let mut question = Call::new(Method::GET, repository, answer.url.clone());
            match self.round_trip(&mut question).await {
                Ok(told) if told.status == answer.status => {
                    return Incoming { method: Method::HEAD, ..told }.refusal();
                }
                _ => {}
            }
        }
        answer.refusal()
    }
}

/// Returns whether a question about a repository was answered, by the registry itself.
fn answers_about(repository: &str, answer: &Incoming) -> bool {
    matches!(answer.method, Method::GET | Method::HEAD)
        && (answer.status.is_success() || answer.is_absence())
        && answer.url.path().starts_with(&format!("/v2/{repository}/"))
}
