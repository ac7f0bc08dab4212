//! Trying again: which answers deserve it, after how long a pause, and how often without progress.
//!
//! Pure arithmetic over what a registry said; who waits is the caller. Pauses go through a [`Pace`], so that
//! a test can take the time and the dice away. A blob has one [`Budget`] over all its sessions.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};

/// Nobody gets a longer pause from us than this without having asked for it by `Retry-After`.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// Traefik says 0 where it means half a second (traefik/traefik:pkg/middlewares/ratelimiter/rate_limiter.go): at once
/// all attempts would be gone.
const SHORTEST: Duration = Duration::from_millis(500);

/// Who asks for a longer pause than this has closed for today.
const CLOSED: Duration = Duration::from_secs(3600);

/// Whoever comes so far is getting on.
const STRIDE: u64 = 1 << 20;

/// Returns whether a request may do better when it is tried again.
///
/// 499 is nginx's word for a client that left; 520 to 524 are Cloudflare's for an origin that misbehaves, 530 for a
/// tunnel that is down.
pub const fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 429 | 499 | 500 | 502 | 503 | 504 | 520..=524 | 530)
}

/// Reads `Retry-After`: seconds, or an HTTP date measured from the answer's own `Date`.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let date = headers.get(header::DATE).and_then(|date| date.to_str().ok());
    let now = date.and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or_else(SystemTime::now);
    Some(until.duration_since(now).unwrap_or_default())
}

/// Returns whether a pause that is asked for is none to wait for, but the end: a limit per day, say.
pub fn is_an_end(asked: Duration) -> bool {
    asked > CLOSED
}

/// How pauses are taken: in earnest, or by a test.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Pauses are multiplied by this.
    pub scale: f64,
    /// No pause is longer, whatever `Retry-After` demands.
    pub longest: Duration,
    /// Where the jitter comes from: a number from 0 to 1.
    pub random: fn() -> f64,
}

impl Pace {
    /// No pauses at all, and no dice: for tests.
    pub const INSTANT: Self = Self { scale: 0.0, longest: Duration::ZERO, random: || 1.0 };

    /// Returns how long to wait in fact when `pause` is asked for.
    pub fn pause(&self, pause: Duration) -> Duration {
        pause.min(self.longest).mul_f64(self.scale)
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self { scale: 1.0, longest: Duration::from_secs(600), random: rand::random::<f64> }
    }
}

/// Pauses that grow from one second to sixty, with full jitter: a crowd of clients that failed together
/// does not come back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    pace: Pace,
    ceiling: Duration,
}

impl Backoff {
    /// Starts at one second.
    pub const fn new(pace: Pace) -> Self {
        Self { pace, ceiling: Duration::from_secs(1) }
    }

    /// Returns how long to wait: what the registry asked for, or the next of our own pauses.
    pub fn pause(&mut self, retry_after: Option<Duration>) -> Duration {
        let own = self.ceiling.mul_f64((self.pace.random)());
        self.ceiling = (self.ceiling * 2).min(LONGEST_BACKOFF);
        self.pace.pause(retry_after.map_or(own, |asked| asked.max(SHORTEST)))
    }

    /// Starts over: something went well.
    pub const fn reset(&mut self) {
        self.ceiling = Duration::from_secs(1);
    }
}

/// How many failures a blob may still have before it has made progress.
///
/// Only a real stride renews it: a registry that drips a byte per attempt does not keep us for ever.
#[derive(Clone, Debug)]
pub struct Budget {
    attempts: u32,
    left: u32,
    mark: u64,
}

impl Budget {
    /// Allows so many failures without progress.
    pub const fn new(attempts: u32) -> Self {
        Self { attempts, left: attempts, mark: 0 }
    }

    /// Takes one attempt, if one is left.
    #[must_use]
    pub const fn spend(&mut self) -> bool {
        let Some(left) = self.left.checked_sub(1) else { return false };
        self.left = left;
        true
    }

    /// Renews the attempts when `offset` is a stride, or all that is left of `size`, beyond the highest offset
    /// at which they were renewed before; returns whether it is. A chunk is one, and so is a good part of a large one: a
    /// bad line may carry no whole chunk.
    pub fn acknowledge(&mut self, offset: u64, chunk: u64, size: Option<u64>) -> bool {
        let left = size.map_or(u64::MAX, |size| size.saturating_sub(self.mark));
        let stride = chunk.min(STRIDE).min(left).max(1);
        let renewed = offset >= self.mark.saturating_add(stride);
        if renewed {
            self.mark = offset;
            self.left = self.attempts;
        }
        renewed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        for (pairs, expected) in [
            (vec![("Retry-After", "120")], Some(120)),
            (vec![("retry-after", " 0 ")], Some(0)),
            (vec![("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT"), date], Some(30)),
            (vec![("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT"), date], Some(0)),
            // Without a `Date` our own clock decides: long past.
            (vec![("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")], Some(0)),
            (vec![("retry-after", "-1")], None),
            (vec![("retry-after", "soon")], None),
            (vec![("retry-after", "99999999999999999999999")], None),
            (vec![], None),
        ] {
            assert_eq!(retry_after(&headers(&pairs)), expected.map(Duration::from_secs), "{pairs:?}");
        }
    }

    #[test]
    fn an_hour_may_be_waited_for_and_a_day_is_an_end() {
        assert!(!is_an_end(Duration::from_secs(3600)));
        assert!(is_an_end(Duration::from_secs(86_400)));
    }

    #[test]
    fn what_is_transient_is_not_a_refusal() {
        for status in [408, 429, 499, 500, 502, 503, 504, 520, 524, 530] {
            assert!(is_transient(status), "{status}");
        }
        for status in [200, 202, 400, 401, 403, 404, 405, 413, 416, 501, 505, 519, 525] {
            assert!(!is_transient(status), "{status}");
        }
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_start_over() {
        let pace = Pace { random: || 1.0, ..Pace::default() };
        let mut backoff = Backoff::new(pace);
        let seconds: Vec<_> = (0..8).map(|_| backoff.pause(None).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
        backoff.reset();
        assert_eq!(backoff.pause(None).as_secs(), 1);
    }

    #[test]
    fn jitter_takes_the_whole_interval() {
        let half = Pace { random: || 0.5, ..Pace::default() };
        assert_eq!(Backoff::new(half).pause(None), Duration::from_millis(500));
        let none = Pace { random: || 0.0, ..Pace::default() };
        assert_eq!(Backoff::new(none).pause(None), Duration::ZERO);
    }

    #[test]
    fn a_registry_may_ask_for_a_pause_but_not_for_an_eternity() {
        let mut backoff = Backoff::new(Pace::default());
        assert_eq!(backoff.pause(Some(Duration::from_secs(90))).as_secs(), 90);
        assert_eq!(backoff.pause(Some(Duration::from_secs(86_400))).as_secs(), 600);
        assert_eq!(backoff.pause(Some(Duration::ZERO)), Duration::from_millis(500));
        assert_eq!(Backoff::new(Pace::INSTANT).pause(Some(Duration::from_secs(90))), Duration::ZERO);
    }

    #[test]
    fn a_budget_is_renewed_by_a_stride_and_not_by_drips() {
        let mut budget = Budget::new(2);
        assert!(budget.spend());
        assert!(!budget.acknowledge(9, 10, Some(15)));
        assert!(budget.spend());
        assert!(!budget.spend());
        assert!(budget.acknowledge(10, 10, Some(15)));
        assert!(budget.spend() && budget.spend() && !budget.spend());
        // The last five bytes are a stride; being acknowledged twice is none.
        assert!(!budget.acknowledge(14, 10, Some(15)));
        assert!(!budget.spend());
        assert!(budget.acknowledge(15, 10, Some(15)));
        assert!(budget.spend() && budget.spend());
        assert!(!budget.acknowledge(15, 10, Some(15)));
        assert!(!budget.spend());
        // A part of a chunk that is large.
        let mut budget = Budget::new(2);
        assert!(!budget.acknowledge(STRIDE - 1, 16 * STRIDE, None));
        assert!(budget.acknowledge(STRIDE, 16 * STRIDE, None));
    }
}
