//! One HTTP exchange with one registry, over connections of our own, within time limits.
//!
//! No redirects, no repeats: what an answer means is the client's business, but for what concerns everybody who speaks to the host (`restraint`,
//! `warnings`). What went wrong is said as a [`Fault`].

mod base;
mod connections;
mod fault;
mod proxy_login;
mod restraint;
mod tls;
mod warnings;

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, Version, header};
use tokio::time::timeout;
use url::Url;

pub use self::restraint::Pool;
pub(super) use self::tls::NoTls;
use self::{
    base::Base,
    connections::Connections,
    fault::fault,
    proxy_login::{introduce, is_refusal},
    restraint::Restraint,
    warnings::Warnings,
};
use super::{
    body::{Meter, Payload},
    confidential::Confidential,
    guard::Guard,
    location::{nameless, redirected},
    options::ClientOptions,
    origin::origin,
    rate_limit::RateLimit,
    registry_error::{BODY_LIMIT, RegistryError},
    session::Fault,
};
use crate::error::Result;

/// One request.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Payload,
    /// How long the answer may take once everything is sent, if not as long as any.
    pub(crate) patience: Option<Duration>,
    /// So much of the answer's body is read.
    pub(crate) limit: usize,
    /// Of a success nothing is read: its body is left to whoever asked.
    pub(crate) leaves_body: bool,
}

impl Outgoing {
    /// A request with nothing but an address, whose answer is read as far as refusals go.
    pub(crate) fn new(method: Method, url: Url) -> Self {
        let (headers, payload) = (HeaderMap::new(), Payload::Empty);
        Self { method, url, headers, payload, patience: None, limit: BODY_LIMIT, leaves_body: false }
    }

    /// Returns the request for one attempt; a body that streams is gone after the first.
    pub(crate) fn take(&mut self) -> Self {
        let (method, url, headers) = (self.method.clone(), self.url.clone(), self.headers.clone());
        Self { method, url, headers, payload: self.payload.take(), ..*self }
    }

    /// Makes what the HTTP client sends: `meter` watches a body that streams, which comes no faster than `rate_limit`.
    fn into_request(self, meter: &Meter, rate_limit: Option<&RateLimit>) -> reqwest::Request {
        let (length, body) = match self.payload {
            Payload::Empty if matches!(self.method, Method::GET | Method::HEAD) => (None, None),
            // Without it proxies answer 411, and the HTTP client leaves it out where there is no body.
            Payload::Empty => (Some(0.into()), None),
            Payload::Bytes(bytes) => (Some(bytes.len().into()), Some(bytes.into())),
            Payload::Stream(body) => {
                let length = body.size.into();
                let body = if let Some(limit) = rate_limit { limit.pace(body) } else { body };
                (Some(length), Some(reqwest::Body::wrap_stream(meter.stream(body))))
            }
        };
        let mut request = reqwest::Request::new(self.method, self.url);
        *request.headers_mut() = self.headers;
        if let Some(length) = length {
            request.headers_mut().insert(header::CONTENT_LENGTH, length);
        }
        *request.body_mut() = body;
        request
    }
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// What was asked in the end.
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The body ended by itself, within the limit.
    pub(crate) whole: bool,
    /// What can still be read, where the body was left.
    pub(crate) rest: Option<reqwest::Response>,
    pub(crate) elapsed: Duration,
    /// What it must not be shown to repeat.
    pub(super) confidential: Confidential,
}

impl Incoming {
    /// Returns whether a body ended before it was over, and before so many bytes.
    pub(crate) fn is_cut_off(&self, limit: usize) -> bool {
        self.status.is_success() && !self.whole && self.rest.is_none() && self.body.len() < limit
    }

    /// Returns where the same is to be asked again, if the answer is a redirect that its method may follow.
    pub(crate) fn redirect(&self, guard: &Guard) -> Result<Option<Url>, Fault> {
        redirected(&self.method, &self.url, self.status, &self.headers, guard).map_err(Fault::Fatal)
    }

    /// Reads the answer as a refusal.
    pub(crate) fn refusal(&self) -> RegistryError {
        let Self { method, url, status, headers, body, confidential, .. } = self;
        RegistryError::new(method, url, *status, headers, body, confidential)
    }
}

/// The way to one registry.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) guard: Guard,
    base: Base,
    connections: Connections,
    options: Arc<ClientOptions>,
    pub(crate) restraint: Restraint,
    warnings: Warnings,
}

impl Transport {
    pub(crate) fn new(host: &str, options: Arc<ClientOptions>) -> Result<Self> {
        let base = Base::new(host, &options)?;
        options.proxies.check()?;
        let guard = Guard::new(&base.url(), options.proxies.clone());
        Ok(Self {
            connections: Connections::new(&base.url(), &guard, Arc::clone(&options))?,
            guard,
            base,
            restraint: Restraint::new(options.pace),
            warnings: Warnings::default(),
            options,
        })
    }

    /// Returns the registry's root.
    pub(crate) fn base(&self) -> Url {
        self.base.url()
    }

    /// Changes a URL of the registry's that was made before it was known whether that speaks TLS.
    pub(crate) fn catch_up(&self, url: &mut Url) {
        self.base.catch_up(url);
    }

    /// Does one exchange. The first with a host of unknown protocol may take two.
    pub(crate) async fn send(&self, mut request: Outgoing) -> Result<Incoming, Fault> {
        if !self.base.is_guessed() || request.payload.is_stream() {
            return self.exchange(request).await;
        }
        let mut again = request.take();
        let other = if request.url.scheme() == "http" { "https" } else { "http" };
        again.url.set_scheme(other).expect("https and http are alike");
        let first = self.exchange(request).await;
        if !may_be_other_protocol(&first) {
            if first.is_ok() {
                self.base.settle();
            }
            return first;
        }
        let second = self.exchange(again).await;
        // Whoever says nothing may be waiting for the rest of a line of its own protocol.
        if may_be_other_protocol(&second) || matches!(second, Err(Fault::Stalled { .. })) {
            return first;
        }
        self.base.correct(other);
        second
    }

    /// Does one exchange, unless a proxy on its way has refused our login.
    async fn exchange(&self, outgoing: Outgoing) -> Result<Incoming, Fault> {
        let url = outgoing.url.clone();
        let refused = |outcome: &Result<Incoming, Fault>| {
            is_refusal(&url, outcome.as_ref().map(|answer| answer.status))
        };
        introduce(&self.options.proxies, &url, Box::pin(self.pass(outgoing)), refused, || self.place(&url))
            .await
    }

    async fn pass(&self, outgoing: Outgoing) -> Result<Incoming, Fault> {
        let Outgoing { patience, limit, leaves_body, .. } = outgoing;
        let (method, url) = (outgoing.method.clone(), outgoing.url.clone());
        let client = self.connections.to(&url).map_err(Fault::Fatal)?;
        let line = format!("{method} {}{}", origin(&url), nameless(url.path()));
        let proxy = self.options.proxies.of(&url);
        let confidential = Confidential::of(&url, &outgoing.headers, &outgoing.payload, proxy);
        let meter = Meter::new(outgoing.payload.streamed());
        let request = outgoing.into_request(&meter, self.options.rate_limit.as_ref());
        let quiet = self.options.timeout;
        let answer = meter.watch(client.execute(request), quiet, patience.unwrap_or(quiet));
        let response = match answer.await {
            Some(response) => {
                response.map_err(|error| fault(error, &meter, &url, &self.base(), &self.place(&url)))
            }
            None => Err(Fault::Stalled { sent: meter.sent(), elapsed: meter.elapsed() }),
        };
        let mut response = response.inspect_err(|fault| tracing::debug!(?fault, "{line}"))?;
        let leaves_body = leaves_body && response.status().is_success();
        let (body, whole) =
            if leaves_body { (Bytes::new(), false) } else { read(&mut response, limit, quiet).await };
        let (status, version, headers) = (response.status(), response.version(), response.headers().clone());
        tracing::debug!("{line}: {status} after {:?}", meter.elapsed());
        self.restraint.heed(status, &headers);
        self.warnings.tell(&headers, &confidential);
        if status.is_success() && meter.is_short() {
            let why = format!("it was answered {} before all was sent", status.as_u16());
            return Err(Fault::Reset { sent: meter.sent(), elapsed: meter.elapsed(), why });
        }
        let rest = leaves_body.then_some(response);
        let elapsed = meter.elapsed();
        Ok(Incoming { method, url, status, version, headers, body, whole, rest, elapsed, confidential })
    }

    /// Names a place for messages: it is not always the user who has named it.
    fn place(&self, url: &Url) -> String {
        let sent = if url.host() == self.base().host() { "" } else { " (where the registry sends us)" };
        // Which of both does not answer, only who has asked for the proxy can tell.
        let proxy = self.options.proxies.of(url).map(|proxy| format!(" through the proxy {}", origin(proxy)));
        format!("{}{sent}{}", origin(url), proxy.unwrap_or_default())
    }
}

/// Reads so much of an answer's body, and says whether that is all of it. A 413 is often followed by a reset. The head
/// says most: whoever drags out the rest is not waited for as for the answer.
async fn read(response: &mut reqwest::Response, limit: usize, patience: Duration) -> (Bytes, bool) {
    let mut body = BytesMut::new();
    let reading = async {
        while let Ok(chunk) = response.chunk().await {
            let Some(bytes) = chunk else { return true };
            let room = limit - body.len();
            body.extend_from_slice(&bytes[..bytes.len().min(room)]);
            if bytes.len() > room {
                return false;
            }
        }
        false
    };
    let whole = timeout(patience, reading).await.unwrap_or(false);
    (body.freeze(), whole)
}

/// A server that speaks TLS answers plain HTTP with 400 (Go, nginx) or with a TLS alert; one that does not
/// answers TLS with nonsense. The connection is refused where another port is meant. A certificate, good or bad,
/// only a TLS server has.
fn may_be_other_protocol(outcome: &Result<Incoming, Fault>) -> bool {
    match outcome {
        Ok(answer) => answer.status == StatusCode::BAD_REQUEST,
        Err(Fault::Fatal(error)) => matches!(error.find(), Some(NoTls::Protocol(_))),
        Err(Fault::Stalled { .. }) => false,
        Err(Fault::Connect { .. } | Fault::Reset { .. }) => true,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn transport(host: &str) -> Transport {
        Transport::new(host, Arc::default()).unwrap()
    }

    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_is_not_connected_to() {
        let registry = transport("203.0.113.5");
        for scheme in ["http", "https"] {
            let url = format!("{scheme}://localhost:1/").parse().unwrap();
            let Err(Fault::Fatal(error)) = registry.send(Outgoing::new(Method::GET, url)).await else {
                panic!("{scheme}")
            };
            assert!(error.message().contains("sends us to `localhost`"), "{error}");
        }
    }

    #[tokio::test]
    async fn silence_is_not_taken_for_the_other_protocol() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry = transport(&listener.local_addr().unwrap().to_string());
        // The answer to the first question is lost, and to TLS there is none.
        tokio::spawn(async move {
            drop(listener.accept().await);
            let _silent = listener.accept().await;
            std::future::pending::<()>().await;
        });
        let patience = Some(Duration::from_millis(300));
        let question = Outgoing { patience, ..Outgoing::new(Method::GET, registry.base()) };
        registry.send(question).await.unwrap_err();
        assert_eq!(registry.base().scheme(), "http");
    }

    #[tokio::test]
    async fn who_speaks_no_http_is_named_for_it() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry = transport(&listener.local_addr().unwrap().to_string());
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                // What is not read would be answered by a reset.
                if stream.read(&mut [0; 8192]).await.is_ok_and(|read| read > 0) {
                    stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await.unwrap();
                }
            }
        });
        let question = Outgoing::new(Method::GET, registry.base());
        let Err(Fault::Reset { why, .. }) = registry.send(question).await else { panic!() };
        assert_eq!(why, "what it answers is no HTTP");
    }
}
