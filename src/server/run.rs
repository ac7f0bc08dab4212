//! A registry as a process of its own: until a signal ends it, and then not in the middle of a request.

use std::net::SocketAddr;

use tokio::runtime::Builder;

use super::{Options, Server};
use crate::{
    error::{Context as _, ErrorKind, Result},
    push::runtime::Signals,
};

/// Threads that hash and wait for the disk. Many blobs that are synced at once cost it little more than one.
const BLOCKING_THREADS: usize = 32;

/// Runs a registry until SIGINT, SIGTERM or SIGHUP; says where it listens once it does. Requests in flight are finished, unless
/// a second signal comes.
pub fn run(options: Options, listening: impl FnOnce(SocketAddr) -> Result<()>) -> Result<()> {
    let starting = || "starting the runtime".to_owned();
    let runtime = Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .context(ErrorKind::Local, starting)?;
    let ended = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let server = Server::start(options).await?;
        listening(server.address())?;
        signals.next().await;
        tracing::info!("requests in flight are finished");
        tokio::select! {
            () = server.stop() => {}
            _ = signals.next() => {}
        }
        Ok(())
    });
    // A disk that does not answer is nothing to wait for.
    runtime.shutdown_background();
    ended
}
