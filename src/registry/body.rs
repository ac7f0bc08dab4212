//! The bytes of an upload on their way to the socket: counted, watched, and stopped when nobody wants them.
//!
//! The HTTP client's own timeouts know only whole requests: a read timeout fires in the middle of a steady
//! upload. So the body itself tells when it last moved. Too few or too many bytes for the `Content-Length`
//! that was announced are an error here, because the HTTP client would cut the rest off and say nothing.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::Stream;
use parking_lot::Mutex;

use crate::error::{Error, Result};

/// What an upload request carries: exactly `size` bytes.
pub struct UploadBody {
    /// How many bytes the frames hold together.
    pub size: u64,
    /// The bytes. An error ends the request and comes back unchanged as [`Fault::Fatal`](super::Fault).
    pub frames: Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>,
}

impl fmt::Debug for UploadBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadBody").field("size", &self.size).finish_non_exhaustive()
    }
}

/// A request's body.
#[derive(Debug, Default)]
pub(crate) enum Payload {
    Bytes(Bytes),
    #[default]
    Empty,
    Stream(UploadBody),
}

impl Payload {
    /// Returns the body for one attempt; a stream is gone after the first.
    pub(crate) fn take(&mut self) -> Self {
        match self {
            Self::Bytes(bytes) => Self::Bytes(bytes.clone()),
            _ => std::mem::take(self),
        }
    }

    pub(crate) const fn is_stream(&self) -> bool {
        matches!(self, Self::Stream(_))
    }

    /// Returns how many bytes it streams: none, where it can be sent again.
    pub(crate) const fn streamed(&self) -> u64 {
        if let Self::Stream(body) = self { body.size } else { 0 }
    }
}

/// Watches one request. Dropping it stops the body.
#[derive(Debug)]
pub(crate) struct Meter(Arc<Flow>);

#[derive(Debug)]
struct Flow {
    started: Instant,
    size: u64,
    sent: AtomicU64,
    /// When the last bytes went, or were waited for: milliseconds since `started`.
    moved: AtomicU64,
    /// It is our own side that has no bytes to give: a rate limit, a slow disk.
    starved: AtomicBool,
    over: AtomicBool,
    failure: Mutex<Option<Error>>,
}

impl Meter {
    pub(crate) fn new(size: u64) -> Self {
        Self(Arc::new(Flow {
            started: Instant::now(),
            size,
            sent: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            starved: AtomicBool::new(false),
            over: AtomicBool::new(false),
            failure: Mutex::new(None),
        }))
    }

    /// Makes the stream that the HTTP client takes the bytes from.
    pub(crate) fn stream(&self, body: UploadBody) -> impl Stream<Item = Result<Bytes>> + Send + use<> {
        Metered { frames: body.frames, flow: Arc::clone(&self.0) }
    }

    /// Waits for `answer`: `quiet` long without a byte going out, then `patience` long after the last one. `None`
    /// if it did not come.
    pub(crate) async fn watch<T>(
        &self,
        answer: impl Future<Output = T>,
        quiet: Duration,
        patience: Duration,
    ) -> Option<T> {
        tokio::pin!(answer);
        loop {
            if let Ok(answer) = tokio::time::timeout(self.0.left(quiet, patience), &mut answer).await {
                return Some(answer);
            }
            if self.0.starved.load(Ordering::Relaxed) {
                self.0.touch();
            } else if self.0.left(quiet, patience).is_zero() {
                return None;
            }
        }
    }

    /// Returns how many bytes the HTTP client has taken.
    pub(crate) fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// Returns whether there are bytes that the HTTP client has not taken.
    pub(crate) fn is_short(&self) -> bool {
        self.sent() < self.0.size
    }

    /// Returns how long the request has been going on.
    pub(crate) fn elapsed(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// Returns the error of our own side that ended the body, if there was one.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.0.failure.lock().clone()
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

impl Flow {
    fn touch(&self) {
        self.moved.store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Returns how much longer the request may stand still.
    fn left(&self, quiet: Duration, patience: Duration) -> Duration {
        let moved = Duration::from_millis(self.moved.load(Ordering::Relaxed));
        let deadline = if self.sent.load(Ordering::Relaxed) < self.size {
            moved.saturating_add(quiet)
        } else {
            // The kernel still holds some of the bytes, and sends them no faster than those before.
            moved.saturating_mul(2).saturating_add(patience)
        };
        deadline.saturating_sub(self.started.elapsed())
    }

    fn fail(&self, error: Error) -> Poll<Option<Result<Bytes>>> {
        *self.failure.lock() = Some(error.clone());
        Poll::Ready(Some(Err(error)))
    }
}

struct Metered {
    frames: Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>,
    flow: Arc<Flow>,
}

impl Stream for Metered {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let size = self.flow.size;
        if self.flow.over.load(Ordering::Relaxed) {
            // The answer came first: without this the HTTP client would send the rest to a closed ear.
            return self.flow.fail(Error::internal("the request is over"));
        }
        self.flow.touch();
        let frame = self.frames.as_mut().poll_next(context);
        self.flow.starved.store(frame.is_pending(), Ordering::Relaxed);
        match frame {
            Poll::Ready(Some(Ok(frame))) => {
                let sent =
                    self.flow.sent.fetch_add(frame.len() as u64, Ordering::Relaxed) + frame.len() as u64;
                if sent > size {
                    return self
                        .flow
                        .fail(Error::internal(format!("a body of {size} bytes has more than that")));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => self.flow.fail(error),
            Poll::Ready(None) if self.flow.sent.load(Ordering::Relaxed) < size => {
                let sent = self.flow.sent.load(Ordering::Relaxed);
                self.flow.fail(Error::internal(format!("a body of {size} bytes ended after {sent}")))
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, future, stream};

    use super::*;
    use crate::error::ErrorKind;

    async fn collect(size: u64, frames: Vec<Result<Bytes>>) -> (Result<u64>, Meter) {
        let meter = Meter::new(size);
        let mut body = meter.stream(UploadBody { size, frames: Box::pin(stream::iter(frames)) });
        let mut taken = 0;
        while let Some(frame) = body.next().await {
            match frame {
                Ok(frame) => taken += frame.len() as u64,
                Err(error) => return (Err(error), meter),
            }
        }
        (Ok(taken), meter)
    }

    fn frame(size: usize) -> Bytes {
        Bytes::from(vec![0; size])
    }

    #[tokio::test]
    async fn the_announced_number_of_bytes_goes_out_or_an_error() {
        let (taken, meter) = collect(5, vec![Ok(frame(2)), Ok(frame(3))]).await;
        assert_eq!((taken.unwrap(), meter.sent()), (5, 5));
        for (frames, words) in [
            (vec![Ok(frame(2))], "a body of 5 bytes ended after 2"),
            (vec![Ok(frame(2)), Ok(frame(4))], "a body of 5 bytes has more than that"),
        ] {
            let (taken, meter) = collect(5, frames).await;
            assert_eq!(taken.unwrap_err().message(), words);
            assert_eq!(meter.failure().unwrap().message(), words);
        }
    }

    #[tokio::test]
    async fn an_error_of_the_source_stays_what_it_is() {
        let (taken, meter) = collect(5, vec![Ok(frame(2)), Err(Error::source("changed under us"))]).await;
        assert!(taken.is_err());
        assert_eq!(meter.failure().unwrap().kind(), ErrorKind::Source);
    }

    #[tokio::test]
    async fn nothing_is_given_after_the_answer() {
        let meter = Meter::new(5);
        let mut body = meter.stream(UploadBody { size: 5, frames: Box::pin(stream::iter([Ok(frame(5))])) });
        drop(meter);
        assert!(body.next().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn only_our_own_slowness_is_no_stall() {
        let meter = Meter::new(5);
        let never = future::pending::<()>();
        assert_eq!(meter.watch(never, Duration::ZERO, Duration::ZERO).await, None);

        let mut body = meter.stream(UploadBody { size: 5, frames: Box::pin(stream::pending()) });
        assert!(future::poll_immediate(body.next()).await.is_none());
        // Comes long after a deadline of zero has passed.
        let late = tokio::time::sleep(Duration::from_millis(50));
        assert_eq!(meter.watch(late, Duration::ZERO, Duration::ZERO).await, Some(()));
    }
}
