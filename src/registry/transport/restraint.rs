//! What a host has everybody do who speaks to it: pause, or come with fewer at once.
//!
//! Uploads in chunks are as many as there are jobs; all else shares a limited number of connections, which the first 429
//! halves for good. `Retry-After` pauses whatever has not begun.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::registry::retry::{Pace, is_an_end, retry_after};

/// Small requests are round trips and little else: many at once hide the latency.
const SMALL_CONNECTIONS: usize = 24;

/// Which connections an exchange uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Blobs in chunks: the caller limits how many at once.
    Chunked,
    /// Questions, manifests and blobs of at most one chunk: limited here, to half after the first 429.
    Small,
}

/// What one host wants by now.
#[derive(Debug)]
pub(crate) struct Restraint {
    pace: Pace,
    small: Arc<Semaphore>,
    halved: AtomicBool,
    paused: Mutex<Option<Instant>>,
}

impl Restraint {
    pub(super) fn new(pace: Pace) -> Self {
        Self {
            pace,
            small: Arc::new(Semaphore::new(SMALL_CONNECTIONS)),
            halved: AtomicBool::new(false),
            paused: Mutex::default(),
        }
    }

    /// Waits until there is a connection to spare.
    pub(crate) async fn permit(&self, pool: Pool) -> Option<SemaphorePermit<'_>> {
        match pool {
            Pool::Chunked => None,
            Pool::Small => self.small.acquire().await.ok(),
        }
    }

    /// Waits while the host is paused.
    pub(crate) async fn unpaused(&self) {
        loop {
            let until = *self.paused.lock();
            match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(left) if !left.is_zero() => tokio::time::sleep(left).await,
                _ => return,
            }
        }
    }

    /// Takes note of what an answer wants of everybody.
    pub(super) fn heed(&self, status: StatusCode, headers: &HeaderMap) {
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
            && let Some(pause) = retry_after(headers)
            && !is_an_end(pause)
        {
            let until = Instant::now().checked_add(self.pace.pause(pause));
            let mut paused = self.paused.lock();
            *paused = (*paused).max(until);
        }
        if status == StatusCode::TOO_MANY_REQUESTS && !self.halved.swap(true, Ordering::Relaxed) {
            let small = Arc::clone(&self.small);
            tokio::spawn(async move {
                if let Ok(half) = small.acquire_many(SMALL_CONNECTIONS as u32 / 2).await {
                    half.forget();
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::poll_immediate;
    use http::header;

    use super::*;

    #[tokio::test]
    async fn retry_after_pauses_everybody_and_the_first_429_halves_the_small_pool() {
        let restraint = Restraint::new(Pace::default());
        let hour = HeaderMap::from_iter([(header::RETRY_AFTER, 3600.into())]);
        restraint.heed(StatusCode::OK, &hour);
        restraint.heed(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new());
        assert!(poll_immediate(restraint.unpaused()).await.is_some());
        restraint.heed(StatusCode::SERVICE_UNAVAILABLE, &hour);
        assert!(poll_immediate(restraint.unpaused()).await.is_none());

        restraint.heed(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new());
        while restraint.small.available_permits() == SMALL_CONNECTIONS {
            tokio::task::yield_now().await;
        }
        assert_eq!(restraint.small.available_permits(), SMALL_CONNECTIONS / 2);
    }
}
