//! Work beside the task that waits for it, and what is said when it breaks down.

use tokio::task::{JoinError, spawn_blocking};

use super::protocol::Refusal;
use crate::error::Error;

/// Runs what waits for the disk or computes for long on a thread that may.
pub(super) async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Error::internal(BROKEN_DOWN).because(error).into()),
    }
}

/// What a client hears of a task that panicked.
pub(super) fn broken_down(error: JoinError) -> Refusal {
    Error::internal(BROKEN_DOWN).because(error).into()
}

const BROKEN_DOWN: &str = "a task of the registry broke down";
