//! One registry, and how to ask it something. The verbs are in files of their own: about being let in, about blobs that
//! may be there, about manifests, what a registry lists, what is passed on as it comes, the exchanges of an upload.
//!
//! Verbs without an upload are repeated here until they succeed or the registry has refused for good. An upload
//! is not: [`Client::exchange`] does one exchange and reports, since only its session knows what a lost answer
//! means. Both answer challenges and follow redirects (`round_trip`).

mod blobs;
mod download;
mod entrance;
mod listing;
mod manifests;
mod round_trip;
mod uploads;

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
};

use http::Method;
use url::Url;

pub(super) use self::manifests::MANIFEST_LIMIT;
use self::round_trip::Call;
pub use self::{
    download::{Download, Question},
    entrance::{Contact, Entrance},
    manifests::{MANIFEST_TYPES, Receipt},
};
use super::{
    RegistryError,
    auth::Authenticator,
    options::ClientOptions,
    origin::origin,
    rate_limit::RateLimit,
    retry::{Backoff, Budget, is_an_end},
    session::Fault,
    transport::{Incoming, Transport},
};
use crate::error::{Error, ErrorKind, Result, chain};

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
                    Fault::Connect { why }.failure(doing())
                }
                Ok(answer) if answer.status.is_success() || answer.is_absence() => return Ok(answer),
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
                Err(fault @ Fault::Fatal(_)) => return Err(fault.failure(doing())),
                Err(fault) => fault.failure(doing()),
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
        Ok((!answer.is_absence()).then_some(answer))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.0.host).finish()
    }
}

/// Says what a server does that no registry would do.
pub(super) fn no_registry(url: &Url, does: &str) -> Error {
    Error::new(ErrorKind::Refused, format!("{} {does}", origin(url))).with_hint(NO_REGISTRY)
}

#[cfg(test)]
mod tests;
