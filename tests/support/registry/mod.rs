//! The fault registry: honest about ranges and digests, except where its script says otherwise.
//!
//! It lives in memory on a loopback port, speaks HTTP/1.1 by hand (so that it can cut, stall and answer early),
//! counts calls and bytes, and keeps a log of what it was asked:
//!
//! ```ignore
//! let registry = Registry::start(Script::new().on(Route::Patch, 2, Fault::status(503)));
//! // … push to registry.host() …
//! assert_eq!(registry.calls(Route::Patch), 4);
//! ```
//!
//! `script` says what goes wrong, `store` is the honest part, `auth` lets callers in, `http` is the wire,
//! `serve` joins them.

mod auth;
mod http;
mod script;
mod serve;
mod store;

use std::{
    net::SocketAddr,
    sync::{Arc, MutexGuard},
};

use longshore::oci::Digest;
use tokio::{net::TcpListener, runtime::Runtime, time::timeout};

use self::serve::{Shared, State};
pub(crate) use self::{
    auth::Auth,
    script::{Fault, Lie, Manners, Route, Script},
    serve::Exchange,
};
use super::until::PATIENCE;

/// A running registry; it stops when dropped.
pub(crate) struct Registry {
    address: SocketAddr,
    certificate: Option<String>,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

impl Registry {
    /// Starts a registry that follows `script`.
    pub(crate) fn start(script: Script) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("fault registry")
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let tls = script.manners.tls.then(http::self_signed);
        let scheme = if tls.is_some() { "https" } else { "http" };
        let shared = Arc::new(Shared::new(script, format!("{scheme}://{address}")));
        let (acceptor, certificate) = tls.unzip();
        {
            let _in_runtime = runtime.enter();
            let listener = TcpListener::from_std(listener).unwrap();
            runtime.spawn(serve::accept(listener, acceptor, Arc::clone(&shared)));
        }
        Self { address, certificate, shared, runtime: Some(runtime) }
    }

    /// Starts one without faults.
    pub(crate) fn honest() -> Self {
        Self::start(Script::new())
    }

    /// Returns `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Returns the certificate to trust (PEM), where the script asked for TLS.
    pub(crate) fn certificate(&self) -> &str {
        self.certificate.as_deref().expect("the script asked for TLS")
    }

    /// Returns how often a route was called.
    pub(crate) fn calls(&self, route: Route) -> usize {
        self.exchanges(route).len()
    }

    /// Returns how many bytes of bodies were read on a route.
    pub(crate) fn bytes(&self, route: Route) -> u64 {
        self.exchanges(route).iter().map(|exchange| exchange.received).sum()
    }

    /// Returns what was asked of a route, in order.
    pub(crate) fn exchanges(&self, route: Route) -> Vec<Exchange> {
        let mut log = self.log();
        log.retain(|exchange| exchange.route == route);
        log
    }

    /// Returns everything that was asked, in order.
    pub(crate) fn log(&self) -> Vec<Exchange> {
        self.state().log.clone()
    }

    /// Returns a blob that the repository has.
    pub(crate) fn blob(&self, repository: &str, digest: &Digest) -> Option<Vec<u8>> {
        self.state().store.blob(repository, digest).cloned()
    }

    /// Returns the media type and the bytes of a manifest, by tag or digest.
    pub(crate) fn manifest(&self, repository: &str, reference: &str) -> Option<(String, Vec<u8>)> {
        self.state().store.manifest(repository, reference).cloned()
    }

    /// Returns the tags of a repository, sorted.
    pub(crate) fn tags(&self, repository: &str) -> Vec<String> {
        self.state().store.tags(repository)
    }

    /// Puts a blob into a repository, as if it had been pushed before.
    pub(crate) fn seed(&self, repository: &str, bytes: &[u8]) -> Digest {
        self.state().store.seed(repository, bytes)
    }

    /// Loses every upload that is open.
    pub(crate) fn forget_uploads(&self) {
        self.state().store.forget_uploads();
    }

    /// Waits until a route was called so often.
    #[track_caller]
    pub(crate) fn wait_for(&self, route: Route, calls: usize) {
        let called =
            self.runtime().block_on(async { timeout(PATIENCE, self.shared.wait_for(route, calls)).await });
        assert!(called.is_ok(), "{route:?} is not called {calls} times: {:#?}", self.log());
    }

    /// Waits until so many calls of a route were answered, whether or not anybody was there to hear it.
    #[track_caller]
    pub(crate) fn wait_for_answers(&self, route: Route, answers: usize) {
        let waiting = async { timeout(PATIENCE, self.shared.wait_for_answers(route, answers)).await };
        let answered = self.runtime().block_on(waiting);
        assert!(answered.is_ok(), "{route:?} is not answered {answers} times: {:#?}", self.log());
    }

    /// Lets go on what waits by [`Fault::Await`], now and from now on.
    pub(crate) fn release(&self) {
        self.state().released = true;
        self.shared.moved.notify_waiters();
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it runs until it is dropped")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Stalled connections never end by themselves; and a test may be asynchronous.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
