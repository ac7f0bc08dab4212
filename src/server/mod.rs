//! The embedded registry: an OCI distribution server over a folder or a bucket, spoken to over HTTP/1.1.
//!
//! `push --into` and `serve` run it. A request comes in by `connections`, `endpoints` do what it asks for in the words
//! of `protocol`, and `storage`, a folder or a bucket, is all that they know of where things lie. Before them stand
//! `access` and `gate` (who may come in, and by which name), and where there is an upstream, `gateway`.

mod access;
mod connections;
mod endpoints;
mod gate;
mod gateway;
mod metrics;
mod protocol;
mod run;
mod storage;
mod tasks;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinHandle,
};

pub use self::{access::Access, connections::Tls, gateway::Upstream, run::run, storage::Place};
use self::{
    connections::accept, endpoints::MOST_LARGE, gate::Gate, gateway::Gateway, metrics::Metrics,
    storage::Storage,
};
use crate::error::{Context as _, ErrorKind, Result};

/// How long [`Server::stop`] waits for requests in flight.
const GRACE: Duration = Duration::from_secs(30);
/// How often stale uploads are looked for.
const CLEARING: Duration = Duration::from_secs(60 * 60);

/// What a registry is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it keeps what it has.
    pub place: Place,
    /// The address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Who may use it.
    pub access: Access,
    /// What clients may call it besides `localhost` and its address. Other names are refused where it listens on
    /// loopback, has an upstream or has names: web pages reach it by these.
    pub names: Vec<String>,
    /// Announced to clients: chunks but the last should not be smaller.
    pub chunk_min: Option<u64>,
    /// Announced and enforced: bodies of uploads may not be larger.
    pub chunk_max: Option<u64>,
    /// So many uploads may be open.
    pub most_uploads: usize,
    /// How long to wait for a client that sends less than 4 KiB of a body, or takes nothing of an answer.
    pub patience: Duration,
    /// Speaks TLS with this certificate.
    pub tls: Option<Tls>,
    /// Passes pushes on to another registry, and pulls from there what the folder does not hold. Whoever may use this
    /// registry uses that one by our credentials.
    pub upstream: Option<Upstream>,
    /// An upload that nobody has touched for so long is given up.
    pub upload_lifetime: Duration,
}

impl Options {
    /// Serves a place to everybody on this machine, on a free port.
    pub fn new(place: impl Into<Place>) -> Self {
        Self {
            place: place.into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            access: Access::default(),
            names: Vec::new(),
            chunk_min: None,
            chunk_max: None,
            most_uploads: 1000,
            patience: Duration::from_secs(60),
            tls: None,
            upstream: None,
            upload_lifetime: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// A running registry. Dropping it cuts every connection; [`Server::stop`] is the polite way.
#[derive(Debug)]
#[must_use = "a dropped server stops"]
pub struct Server {
    address: SocketAddr,
    stopping: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Opens the place, binds the address and begins to answer.
    pub async fn start(mut options: Options) -> Result<Self> {
        let (listen, lifetime, upstream) = (options.listen, options.upload_lifetime, options.upstream.take());
        let binding = || format!("listening on `{listen}`");
        let storage = Storage::open(options.place.clone()).await?;
        let gateway = upstream.map(|upstream| Gateway::new(upstream, &storage)).transpose()?.map(Arc::new);
        let is_picky =
            listen.ip().to_canonical().is_loopback() || gateway.is_some() || !options.names.is_empty();
        let gate = is_picky.then(|| Gate::new(listen.ip(), &options.names));
        storage.clear(lifetime).await?;
        let listener = TcpListener::bind(listen).await.context(ErrorKind::Local, binding)?;
        let address = listener.local_addr().context(ErrorKind::Local, binding)?;
        let registry = Arc::new(Registry {
            options,
            storage,
            gate,
            gateway,
            large_manifests: Semaphore::new(MOST_LARGE),
            metrics: Metrics::default(),
        });
        let (stopping, stopped) = watch::channel(false);
        let accepting = tokio::spawn(async move {
            tokio::select! {
                () = accept(listener, Arc::clone(&registry), stopped) => {}
                never = clear(&registry.storage, lifetime) => match never {},
            }
        });
        Ok(Self { address, stopping, accepting })
    }

    /// Returns the address it listens on.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, lets requests in flight finish (for at most half a minute), and ends.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        if tokio::time::timeout(GRACE, &mut self.accepting).await.is_err() {
            tracing::warn!("requests were cut off: they took more than {GRACE:?} to finish");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What every request sees.
struct Registry {
    /// But for the upstream, which the gateway has.
    options: Options,
    storage: Storage,
    /// Where names matter.
    gate: Option<Gate>,
    /// Where there is an upstream.
    gateway: Option<Arc<Gateway>>,
    /// Leave to take a large manifest.
    large_manifests: Semaphore,
    metrics: Metrics,
}

/// Clears the place now and then.
async fn clear(storage: &Storage, lifetime: Duration) -> Infallible {
    loop {
        tokio::time::sleep(CLEARING).await;
        if let Err(error) = storage.clear(lifetime).await {
            tracing::warn!("{}", crate::error::chain(&error));
        }
    }
}

#[cfg(test)]
mod tests;
