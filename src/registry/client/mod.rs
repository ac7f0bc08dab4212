//! One registry, and how to ask it something. The verbs are in files of their own: about being let in, about blobs that
//! may be there, about manifests, what a registry lists, what is passed on as it comes, the exchanges of an upload.
//!
//! Verbs without an upload are repeated here until they succeed or the registry has refused for good. An upload
//! is not: [`Client::exchange`] does one exchange and reports, since only its session knows what a lost answer
//! means. Both answer challenges and follow redirects, which a body that streams cannot: its redirect is an
//! answer with a location.

mod blobs;
mod download;
mod entrance;
mod listing;
mod manifests;
mod uploads;

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use url::Url;

pub(super) use self::manifests::MANIFEST_LIMIT;
pub use self::{
    download::{Download, Question},
    entrance::{Contact, Entrance},
    manifests::{MANIFEST_TYPES, Receipt},
};
use super::{
    RegistryError,
    auth::{Authenticator, Challenge, Scope, is_basic},
    location::REDIRECTS,
    options::ClientOptions,
    origin::{is_same_server, origin},
    rate_limit::RateLimit,
    retry::{Backoff, Budget, is_an_end},
    session::Fault,
    transport::{Incoming, Outgoing, Pool, Transport},
};
use crate::error::{Error, ErrorKind, Result, chain};

/// A token that is about to expire is as good as none.
const TOKEN_MARGIN: Duration = Duration::from_secs(5);

/// A token shall be good for so long when a body is begun, since nothing can be renewed in the middle of it.
const TOKEN_MARGIN_WITH_BODY: Duration = Duration::from_secs(30);

/// What a server may be that answers everything alike.
pub(crate) const NO_REGISTRY: &str = "whoever answers there may be no registry";

/// One registry.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    host: String,
    transport: Transport,
    auth: Authenticator,
    options: Arc<ClientOptions>,
    /// Bytes per second of the newest body, to guess how long the next one takes.
    speed: AtomicU64,
}

impl Client {
    /// Prepares to speak with `host`, as a reference names it. No connection is made yet.
    pub fn new(host: &str, options: ClientOptions) -> Result<Self> {
        let options = Arc::new(options);
        let transport = Transport::new(host, Arc::clone(&options))?;
        Ok(Self(Arc::new(Inner {
            host: host.to_owned(),
            transport,
            auth: Authenticator::new(host, options.credentials.clone())?,
            options,
            speed: AtomicU64::new(0),
        })))
    }

    /// Returns a client that knows nothing of who was let in and who was not, and reads again what credentials there are.
    pub fn anew(&self) -> Result<Self> {
        let mut options = ClientOptions::clone(&self.0.options);
        options.credentials = options.credentials.reread();
        Self::new(self.host(), options)
    }
}

/// What a verb asks, before it has been authenticated and redirected.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) request: Outgoing,
    scope: Scope,
    pool: Pool,
    /// Where a password would have to be shown it is not made: many at once with a wrong one lock an account.
    shows_no_password: bool,
}

impl Call {
    fn new(method: Method, repository: &str, url: Url) -> Self {
        let (request, scope) = (Outgoing::new(method, url), Scope::of(repository));
        Self { request, scope, pool: Pool::Small, shows_no_password: false }
    }
}

impl Client {
    /// Returns the host, as references name it.
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// Returns how fast blobs may be sent, if there is a limit.
    pub fn rate_limit(&self) -> Option<&RateLimit> {
        self.0.options.rate_limit.as_ref()
    }

    pub(super) fn auth(&self) -> &Authenticator {
        &self.0.auth
    }

    /// Asks once, however that ends, and leaves the body of a success to be read.
    async fn ask_once(&self, mut call: Call, doing: impl Fn() -> String) -> Result<Incoming> {
        call.request.leaves_body = true;
        let answer = self.round_trip(&mut call).await.map_err(|fault| given_up(fault, doing()))?;
        if answer.status.is_success() || answer.status == StatusCode::NOT_FOUND {
            return Ok(answer);
        }
        let repository = &call.scope.repository;
        let error = self.refusal(repository, &answer).await.into_error(doing());
        Err(self.explain(repository, error))
    }

    /// Prepares a request for what a repository has under `rest`.
    pub(super) fn call(&self, method: Method, repository: &str, rest: &str) -> Call {
        Call::new(method, repository, self.url(&format!("{repository}/{rest}")))
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.0.transport.base();
        url.set_path(&format!("/v2/{path}"));
        url
    }

    /// Repeats a call until there is a definite answer: a success, or for a question "not there".
    pub(super) async fn insist(&self, mut call: Call, doing: impl Fn() -> String) -> Result<Incoming> {
        let mut backoff = Backoff::new(self.0.options.pace);
        let mut budget = Budget::new(self.0.options.retries);
        let mut may_be_lost = matches!(call.request.method, Method::GET | Method::HEAD);
        loop {
            let error = match self.round_trip(&mut call).await {
                // Some close a connection behind an answer without saying so (jlsalvador/simple-registry): the next
                // question gets lost with it, and nothing is wrong.
                Err(Fault::Reset { .. }) if std::mem::take(&mut may_be_lost) => continue,
                // Who asked to read something gets all of it, or another try.
                Ok(answer) if answer.method == Method::GET && answer.is_cut_off(call.request.limit) => {
                    let why = format!("{} broke its answer off", origin(&answer.url));
                    given_up(Fault::Connect { why }, doing())
                }
                Ok(answer) if answer.status.is_success() => return Ok(answer),
                Ok(answer) if answer.status == StatusCode::NOT_FOUND && answer.method != Method::PUT => {
                    return Ok(answer);
                }
                Ok(answer) => {
                    let repository = &call.scope.repository;
                    let refusal = self.refusal(repository, &answer).await;
                    let is_transient = refusal.is_transient();
                    let error = refusal.into_error(doing());
                    if !is_transient {
                        return Err(self.explain(repository, error));
                    }
                    error
                }
                Err(fault @ Fault::Fatal(_)) => return Err(given_up(fault, doing())),
                Err(fault) => given_up(fault, doing()),
            };
            let wanted = RegistryError::pause(&error);
            if wanted.is_some_and(is_an_end) || !budget.spend() {
                return Err(error);
            }
            let pause = backoff.pause(wanted);
            tracing::warn!("{}; trying again in {:.1} s", chain(&error), pause.as_secs_f64());
            tokio::time::sleep(pause).await;
        }
    }

    /// Insists on a question, and returns the answer if what is asked for is there.
    async fn find(&self, question: Call, doing: impl Fn() -> String) -> Result<Option<Incoming>> {
        let answer = self.insist(question, doing).await?;
        Ok((answer.status != StatusCode::NOT_FOUND).then_some(answer))
    }

    /// Makes one call, answering a challenge once, a refusal once, and following redirects where the body allows it.
    async fn round_trip(&self, call: &mut Call) -> Result<Incoming, Fault> {
        let Inner { transport, auth, .. } = &*self.0;
        let size = call.request.payload.streamed();
        let outlive = self.outlive(size);
        let mut url = call.request.url.clone();
        let (mut redirects, mut challenged, mut refused) = (0, false, false);
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
                && self.may_show_more(&call.scope, shown.as_ref(), &answer).await;
            if size > 0 {
                self.note_speed(size, &answer);
                return Ok(answer);
            }
            let before = if shown.is_some() { &mut refused } else { &mut challenged };
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
    async fn may_show_more(&self, scope: &Scope, shown: Option<&HeaderValue>, answer: &Incoming) -> bool {
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

    /// The registry itself, or itself with TLS; beside its own paths there somebody else may be.
    pub(super) fn may_see_credentials(&self, url: &Url) -> bool {
        let base = self.0.transport.base();
        is_same_server(url, &base) && (url.scheme() == base.scheme() || url.path().starts_with("/v2/"))
    }

    /// Reads a refusal. That of a HEAD has no words: where they matter most, GET asks for them.
    async fn refusal(&self, repository: &str, answer: &Incoming) -> RegistryError {
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

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.0.host).finish()
    }
}

/// Returns whether a question about a repository was answered, by the registry itself.
fn answers_about(repository: &str, answer: &Incoming) -> bool {
    matches!(answer.method, Method::GET | Method::HEAD)
        && (answer.status.is_success() || answer.status == StatusCode::NOT_FOUND)
        && answer.url.path().starts_with(&format!("/v2/{repository}/"))
}

/// Says what a server does that no registry would do.
pub(super) fn no_registry(url: &Url, does: &str) -> Error {
    Error::new(ErrorKind::Refused, format!("{} {does}", origin(url))).with_hint(NO_REGISTRY)
}

fn given_up(fault: Fault, doing: String) -> Error {
    let why = match fault {
        Fault::Connect { why } => why,
        Fault::Reset { why, .. } => format!("the connection broke: {why}"),
        Fault::Stalled { elapsed, .. } => format!("no answer within {elapsed:.0?}"),
        Fault::Fatal(error) => return error.while_doing(doing),
    };
    Error::new(ErrorKind::Network, doing).because(io::Error::other(why))
}

#[cfg(test)]
mod tests;
