//! `--limit-rate`: so many bytes a second, and no more, over all uploads that share one limit.
//!
//! One bucket of tokens, a byte each. Whoever sends takes its tokens in advance and waits until they are there, so
//! that uploads are served in the order in which they ask. Only bodies of blobs are slowed down: everything else
//! is small, and somebody waits for it.

use std::{num::NonZero, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::body::UploadBody;

/// So many bytes go at once after a pause: small blobs are not held up.
const BURST: u64 = 256 << 10;

/// Timers tick once a millisecond: a fast line must be able to make up for a few of them.
const BURST_TIME: Duration = Duration::from_millis(4);

/// Bytes go in pieces of a tenth of a second's worth, so that a slow upload moves steadily: servers cut those off
/// that stand still.
const PIECES_PER_SECOND: u64 = 10;

/// Smaller pieces are more work than they are worth, larger ones are no steadier.
const PIECE: (u64, u64) = (1 << 10, 64 << 10);

/// A limit on the bytes of uploads a second. Clones share it.
#[derive(Clone, Debug)]
pub struct RateLimit(Arc<Bucket>);

#[derive(Debug)]
struct Bucket {
    rate: NonZero<u64>,
    /// When the bucket will be full again if nobody takes more.
    full_at: Mutex<Option<Instant>>,
}

impl RateLimit {
    /// Allows so many bytes a second.
    pub fn new(bytes_per_second: NonZero<u64>) -> Self {
        Self(Arc::new(Bucket { rate: bytes_per_second, full_at: Mutex::default() }))
    }

    /// Returns how many bytes a second are allowed.
    pub fn bytes_per_second(&self) -> u64 {
        self.0.rate.get()
    }

    /// Slows a body down.
    pub(crate) fn pace(&self, body: UploadBody) -> UploadBody {
        let state = (body.frames, Bytes::new(), self.clone());
        let frames = stream::unfold(state, |(mut frames, mut frame, limit)| async move {
            if frame.is_empty() {
                match frames.next().await? {
                    Ok(next) => frame = next,
                    error => return Some((error, (frames, frame, limit))),
                }
            }
            let piece = frame.split_to(frame.len().min(limit.piece()));
            let wait = limit.take(piece.len() as u64);
            if !wait.is_zero() {
                sleep(wait).await;
            }
            Some((Ok(piece), (frames, frame, limit)))
        });
        UploadBody { size: body.size, frames: Box::pin(frames) }
    }

    /// Takes tokens; returns how long to wait until they are there.
    fn take(&self, tokens: u64) -> Duration {
        let now = Instant::now();
        let mut full_at = self.0.full_at.lock();
        let full = full_at.unwrap_or(now).max(now) + self.time(tokens);
        *full_at = Some(full);
        (full - now).saturating_sub(self.time(BURST).max(BURST_TIME))
    }

    /// Returns how long it takes to fill in so many tokens.
    fn time(&self, tokens: u64) -> Duration {
        let nanos = u128::from(tokens) * 1_000_000_000 / u128::from(self.0.rate.get());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn piece(&self) -> usize {
        (self.bytes_per_second() / PIECES_PER_SECOND).clamp(PIECE.0, PIECE.1) as usize
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;
    use crate::error::{Error, Result};

    const KIB: u64 = 1 << 10;

    fn limit(rate: u64) -> RateLimit {
        RateLimit::new(NonZero::new(rate).unwrap())
    }

    fn body(frames: Vec<Result<Bytes>>) -> UploadBody {
        UploadBody { size: 0, frames: Box::pin(stream::iter(frames)) }
    }

    fn frames(count: usize) -> Vec<Result<Bytes>> {
        vec![Ok(Bytes::from(vec![b'x'; 128 << 10])); count]
    }

    /// Sends a body; returns its pieces, and how long it took by the paused clock.
    async fn send(limit: &RateLimit, frames: Vec<Result<Bytes>>) -> (Vec<Result<Bytes>>, Duration) {
        let started = Instant::now();
        let pieces = limit.pace(body(frames)).frames.collect().await;
        (pieces, started.elapsed())
    }

    fn bytes(pieces: &[Result<Bytes>]) -> usize {
        pieces.iter().map(|piece| piece.as_ref().unwrap().len()).sum()
    }

    /// Timers are exact to a millisecond.
    #[track_caller]
    fn assert_took(elapsed: Duration, expected: Duration) {
        assert!(elapsed.abs_diff(expected) <= Duration::from_millis(2), "{elapsed:?}, not {expected:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_burst_bytes_go_at_the_rate() {
        // 1280 KiB, of which 256 go at once.
        for (rate, seconds) in [(128 * KIB, 8), (1024 * KIB, 1), (KIB, 1024)] {
            let (pieces, elapsed) = send(&limit(rate), frames(10)).await;
            assert_eq!(bytes(&pieces), 1280 << 10);
            assert_took(elapsed, Duration::from_secs(seconds));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_limit_is_reached_in_spite_of_coarse_timers() {
        let rate = 1 << 30;
        let (pieces, elapsed) = send(&limit(rate), frames(8 * 1024)).await;
        assert_eq!(bytes(&pieces) as u64, rate);
        assert_took(elapsed, Duration::from_millis(996));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_small_or_rare_goes_at_once() {
        let limit = limit(64 * KIB);
        for _ in 0..3 {
            let (_, elapsed) = send(&limit, frames(2)).await;
            assert_eq!(elapsed, Duration::ZERO);
            sleep(Duration::from_secs(4)).await;
        }
        // A long rest saves up no more.
        sleep(Duration::from_secs(3600)).await;
        let (_, elapsed) = send(&limit, frames(3)).await;
        assert_took(elapsed, Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn all_uploads_share_one_bucket() {
        let limit = limit(256 * KIB);
        let started = Instant::now();
        let sent = join_all((0..4).map(|_| send(&limit, frames(10)))).await;
        // 5120 KiB, of which 256 go at once.
        assert_took(started.elapsed(), Duration::from_secs(19));
        // Side by side, but for the burst that the first has all of: one after the other they would end after 4 s, 9 s…
        for (pieces, elapsed) in sent {
            assert_eq!(bytes(&pieces), 1280 << 10);
            assert!(elapsed >= Duration::from_secs(15), "{elapsed:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_upload_moves_steadily() {
        let mut pieces = limit(10 * KIB).pace(body(frames(4))).frames;
        let mut last = Instant::now();
        while let Some(piece) = pieces.next().await {
            assert!(piece.unwrap().len() as u64 <= KIB);
            assert!(last.elapsed() <= Duration::from_millis(101), "{:?}", last.elapsed());
            last = Instant::now();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_of_the_source_is_not_delayed() {
        let broken = vec![Ok(Bytes::from_static(b"x")), Err(Error::source("damaged"))];
        let (pieces, elapsed) = send(&limit(1), broken).await;
        assert_eq!(pieces.len(), 2);
        assert_eq!((pieces[1].as_ref().unwrap_err().message(), elapsed), ("damaged", Duration::ZERO));
    }
}
