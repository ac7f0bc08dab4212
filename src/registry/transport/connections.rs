//! Which connections lead where: plain ones, and those with TLS to the registry and to whomever it names.
//!
//! Each is a pool of the HTTP client's. HTTP/1.1, one connection per exchange under way, or by option HTTP/2; through
//! proxies where there are some, to addresses that pass the guard; no cookies, no redirects, no repeats.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use reqwest::{Client, ClientBuilder, Proxy, redirect, retry};
use url::Url;

use super::tls;
use crate::{
    error::{Error, Result},
    registry::{certificates::Identity, guard::Guard, options::ClientOptions},
};

/// Idle connections are dropped before the usual 60 s of load balancers: a body sent into one that is just
/// being closed is lost.
const IDLE: Duration = Duration::from_secs(25);

/// A host that does not even take the connection is not there.
const CONNECT: Duration = Duration::from_secs(30);

/// The HTTP client takes 16 KiB by HTTP/2 otherwise, and many times that by HTTP/1.1.
const HTTP2_HEADERS: u32 = 128 << 10;

/// The connections of one registry.
#[derive(Debug)]
pub(super) struct Connections {
    /// Whose host counts: the scheme may be a guess.
    registry: Url,
    options: Arc<ClientOptions>,
    guard: Guard,
    plain: Client,
    tls: OnceLock<Client>,
    /// To others than the registry, where that is told who we are: it is not their business.
    tls_elsewhere: OnceLock<Client>,
}

impl Connections {
    pub(super) fn new(registry: &Url, guard: &Guard, options: Arc<ClientOptions>) -> Result<Self> {
        Ok(Self {
            registry: registry.clone(),
            // Certificates are read only when they are needed: it takes longer than a push to loopback.
            plain: build(builder(&options, guard).http1_only().tls_certs_only([]))?,
            options,
            guard: guard.clone(),
            tls: OnceLock::new(),
            tls_elsewhere: OnceLock::new(),
        })
    }

    /// Returns those that lead to `url`.
    pub(super) fn to(&self, url: &Url) -> Result<&Client> {
        // A proxy may want TLS for itself.
        if url.scheme() == "http" && self.options.proxies.of(url).is_none() {
            return Ok(&self.plain);
        }
        let (client, identity) = match &self.options.certificates.identity {
            Some(_) if url.host() != self.registry.host() => (&self.tls_elsewhere, None),
            identity => (&self.tls, identity.as_ref()),
        };
        if client.get().is_none() {
            // Somebody else may be faster: then theirs is used.
            client.set(self.with_tls(identity)?).unwrap_or_default();
        }
        client.get().ok_or_else(|| Error::internal("the TLS client has just been set"))
    }

    fn with_tls(&self, identity: Option<&Identity>) -> Result<Client> {
        let tls = tls::config(&self.options, identity)?;
        let builder = builder(&self.options, &self.guard).tls_backend_preconfigured(tls);
        let is_http2 = self.options.http2;
        build(if is_http2 { builder.http2_max_header_list_size(HTTP2_HEADERS) } else { builder.http1_only() })
    }
}

fn builder(options: &ClientOptions, guard: &Guard) -> ClientBuilder {
    let proxies = options.proxies.clone();
    let builder = Client::builder()
        .user_agent(&options.user_agent)
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false)
        // Neither the system's proxies nor the HTTP client's own opinion of who is exempt.
        .no_proxy()
        .proxy(Proxy::custom(move |url| proxies.of(url).cloned()))
        .dns_resolver(guard.clone())
        .tcp_nodelay(true)
        .connect_timeout(options.timeout.min(CONNECT))
        .pool_idle_timeout(IDLE);
    #[cfg(target_os = "linux")]
    let builder = builder.tcp_user_timeout(options.timeout);
    builder
}

fn build(builder: ClientBuilder) -> Result<Client> {
    builder.build().map_err(|error| Error::local("setting up the HTTP client").because(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tls_client_can_be_made() {
        let registry = "https://r.example.com".parse().unwrap();
        let guard = Guard::new(&registry, crate::registry::Proxies::default());
        Connections::new(&registry, &guard, Arc::default()).unwrap().to(&registry).unwrap();
    }
}
