//! The runtime a push runs on, for callers that have none of their own, and the signals that end it.

use std::{future::Future, time::Duration};

use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};

use crate::error::{Context as _, ErrorKind, Result};

/// Threads that read and hash: more would only queue up for two cores or a disk.
const BLOCKING_THREADS: usize = 8;

/// Whoever says stop does not wait longer.
const FAREWELL: Duration = Duration::from_secs(3);

/// How a run came to its end.
#[derive(Debug)]
#[must_use = "an interrupted run has its own exit code"]
pub enum Ending<T> {
    /// By itself.
    Finished(T),
    /// By this signal: 2 (SIGINT) or 15 (SIGTERM).
    Interrupted(u8),
}

/// Runs a future to its end, or until SIGINT or SIGTERM, which drop it.
pub fn block_on<T>(future: impl Future<Output = T>) -> Result<Ending<T>> {
    block_on_with_farewell(future, async {})
}

/// Does the same; when it was a signal, `farewell` follows for a moment.
pub fn block_on_with_farewell<T>(
    future: impl Future<Output = T>,
    farewell: impl Future<Output = ()>,
) -> Result<Ending<T>> {
    let starting = || "starting the runtime".to_owned();
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .context(ErrorKind::Local, starting)?;
    let ending = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).context(ErrorKind::Local, starting)?;
        let mut terminate = signal(SignalKind::terminate()).context(ErrorKind::Local, starting)?;
        let ending = tokio::select! {
            output = future => Ok(Ending::Finished(output)),
            _ = interrupt.recv() => Ok(Ending::Interrupted(2)),
            _ = terminate.recv() => Ok(Ending::Interrupted(15)),
        };
        if matches!(ending, Ok(Ending::Interrupted(_))) {
            tokio::select! {
                () = farewell => {}
                () = tokio::time::sleep(FAREWELL) => {}
                _ = interrupt.recv() => {}
            }
        }
        ending
    });
    // A disk that is being read at this moment is nothing to wait for: it may never answer.
    runtime.shutdown_background();
    ending
}
