//! One HTTP exchange with one registry, over connections of our own, within time limits.
//!
//! No redirects, no repeats: what an answer means is the client's business, but for what concerns everybody who speaks
//! to the host (`restraint`, `warnings`). What went wrong is said as a [`Fault`].

mod base;
mod connections;
mod fault;
mod incoming;
mod no_tls;
mod outgoing;
mod proxy_login;
mod restraint;
mod tls;
mod warnings;

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use url::Url;

pub use self::restraint::Pool;
use self::{
    base::Base,
    connections::Connections,
    fault::fault,
    incoming::read,
    proxy_login::{introduce, is_refusal},
    restraint::Restraint,
    warnings::Warnings,
};
pub(super) use self::{incoming::Incoming, no_tls::NoTls, outgoing::Outgoing};
use super::{
    body::Meter, confidential::Confidential, guard::Guard, location::nameless, options::ClientOptions,
    origin::origin, session::Fault,
};
use crate::error::Result;

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

    /// Makes the request, and reads its answer.
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
    use std::time::Duration;

    use http::Method;
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
