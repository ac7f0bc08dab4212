//! The runtime a push runs on, for callers that have none of their own, the signals that end it, and its threads for what
//! may block.

use std::{
    future::{Future, pending},
    time::Duration,
};

use rustix::process::{Resource, getrlimit};
use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
    task::spawn_blocking,
};

use crate::error::{Context as _, Error, ErrorKind, Result};

/// Threads that read and hash: more would only queue up for two cores or a disk.
const BLOCKING_THREADS: usize = 8;

/// With fewer files than that nobody gets a connection, and everybody waits for others to let go of theirs.
const LEAST_FILES: u64 = 64;

/// Whoever says stop does not wait longer.
const FAREWELL: Duration = Duration::from_secs(3);

/// How a run came to its end.
#[derive(Debug)]
#[must_use = "an interrupted run has its own exit code"]
pub enum Ending<T> {
    /// By itself.
    Finished(T),
    /// By this signal: 1 (SIGHUP), 2 (SIGINT) or 15 (SIGTERM).
    Interrupted(u8),
}

/// Runs a future to its end, or until SIGINT, SIGTERM or SIGHUP, which drop it.
pub fn block_on<T>(future: impl Future<Output = T>) -> Result<Ending<T>> {
    block_on_with_farewell(future, async {})
}

/// Does the same; when it was a signal, `farewell` follows for a moment.
pub fn block_on_with_farewell<T>(
    future: impl Future<Output = T>,
    farewell: impl Future<Output = ()>,
) -> Result<Ending<T>> {
    let starting = || "starting the runtime".to_owned();
    if let Some(most @ ..LEAST_FILES) = getrlimit(Resource::Nofile).current {
        return Err(Error::local(format!("so few files may be open at once: {most}"))
            .with_hint(format!("at least {LEAST_FILES} are needed: `ulimit -n`")));
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .context(ErrorKind::Local, starting)?;
    let ending = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let ending = tokio::select! {
            output = future => Ending::Finished(output),
            signal = signals.next() => Ending::Interrupted(signal),
        };
        if matches!(ending, Ending::Interrupted(_)) {
            tokio::select! {
                () = farewell => {}
                () = tokio::time::sleep(FAREWELL) => {}
                _ = signals.next() => {}
            }
        }
        Ok(ending)
    });
    // A disk that is being read at this moment is nothing to wait for: it may never answer.
    runtime.shutdown_background();
    ending
}

/// Runs disk work where it may block.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    spawn_blocking(work).await.map_err(|error| Error::internal("a worker thread failed").because(error))?
}

/// The signals that end a run, but for those that whoever started this process has ignored: under `nohup`, or behind the
/// `&` of a script.
pub(crate) struct Signals {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hangup: Option<Signal>,
}

impl Signals {
    /// Takes them over from the system, which would end the process at once.
    pub(crate) fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context(ErrorKind::Local, || "listening for signals".to_owned());
        let unless_ignored = |kind| (!is_ignored(kind)).then(|| listen(kind)).transpose();
        let signals = Self {
            interrupt: unless_ignored(SignalKind::interrupt())?,
            terminate: unless_ignored(SignalKind::terminate())?,
            hangup: unless_ignored(SignalKind::hangup())?,
        };
        // So a write beyond `ulimit -f` is an error, and not the end of the process; tokio keeps the signal.
        drop(listen(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?);
        Ok(signals)
    }

    /// Waits for one; returns its number.
    pub(crate) async fn next(&mut self) -> u8 {
        let Self { interrupt, terminate, hangup } = self;
        tokio::select! {
            () = arrival(interrupt) => 2,
            () = arrival(terminate) => 15,
            () = arrival(hangup) => {
                // The shell and the kernel both tell that a terminal is gone.
                self.hangup = None;
                1
            }
        }
    }
}

/// Waits for a signal, if anybody listens for it.
async fn arrival(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => pending().await,
    }
}

/// Returns whether whoever started this process has a signal ignored, as far as the system says so.
fn is_ignored(signal: SignalKind) -> bool {
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask >> (signal.as_raw_value() - 1) & 1 == 1)
}
