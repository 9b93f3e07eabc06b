//! The rates of clients: requests and bytes a second, as token buckets.
//!
//! Rules:
//! - A bucket holds the tokens of one second, so that a client may send them at any moment of that second.
//! - A body is charged as its bytes arrive. Bytes beyond the bucket are a debt, which the client's next requests wait for.
//! - The limits are those of the request. A client keeps its level when the limits change.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The limits of a client a second. `None` is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct RateLimits {
    pub(crate) requests: Option<u32>,
    pub(crate) bytes: Option<u32>,
}

/// A rate that a client has exceeded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Exceeded {
    /// The unit of the rate.
    pub(crate) unit: RateUnit,
    /// The limit a second.
    pub(crate) limit: u32,
    /// The time after which the client has room again.
    pub(crate) wait: Duration,
}

/// The unit of a rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RateUnit {
    Requests,
    Bytes,
}

/// A bucket of tokens. A negative level is a debt.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    level: f64,
    at: Instant,
}

impl Bucket {
    fn full(limit: u32, now: Instant) -> Self {
        Self { level: f64::from(limit), at: now }
    }

    /// Adds the tokens of the time since the last call, up to those of one second.
    fn refill(&mut self, limit: u32, now: Instant) {
        let more = now.saturating_duration_since(self.at).as_secs_f64() * f64::from(limit);
        self.level = (self.level + more).min(f64::from(limit));
        self.at = self.at.max(now);
    }

    /// Returns the time until the level is `wanted`.
    fn wait_for(&self, wanted: f64, limit: u32) -> Duration {
        let missing = (wanted - self.level).max(0.0);
        Duration::try_from_secs_f64(missing / f64::from(limit.max(1))).unwrap_or(Duration::MAX)
    }
}

/// The buckets of one client.
#[derive(Clone, Copy, Debug, Default)]
struct ClientBuckets {
    requests: Option<Bucket>,
    bytes: Option<Bucket>,
}

/// The buckets of all clients. `None` is the client of a service that knows no clients.
#[derive(Debug, Default)]
pub(crate) struct Rates(HashMap<Option<String>, ClientBuckets>);

impl Rates {
    /// Counts a request.
    ///
    /// # Errors
    ///
    /// The rate that the client has exceeded. The request counts for neither rate then.
    pub(crate) fn request(&mut self, client: Option<&str>, limits: RateLimits, now: Instant) -> Result<(), Exceeded> {
        if limits == RateLimits::default() {
            return Ok(());
        }
        let buckets = self.0.entry(client.map(str::to_owned)).or_default();
        if let Some(limit) = limits.bytes {
            let bucket = buckets.bytes.get_or_insert_with(|| Bucket::full(limit, now));
            bucket.refill(limit, now);
            if bucket.level < 0.0 {
                return Err(Exceeded { unit: RateUnit::Bytes, limit, wait: bucket.wait_for(0.0, limit) });
            }
        }
        if let Some(limit) = limits.requests {
            let bucket = buckets.requests.get_or_insert_with(|| Bucket::full(limit, now));
            bucket.refill(limit, now);
            if bucket.level < 1.0 {
                return Err(Exceeded { unit: RateUnit::Requests, limit, wait: bucket.wait_for(1.0, limit) });
            }
            bucket.level -= 1.0;
        }
        Ok(())
    }

    /// Counts bytes of a body, and returns the time after which the client has paid for them.
    pub(crate) fn bytes(&mut self, client: Option<&str>, limits: RateLimits, bytes: usize, now: Instant) -> Duration {
        let Some(limit) = limits.bytes else { return Duration::ZERO };
        let buckets = self.0.entry(client.map(str::to_owned)).or_default();
        let bucket = buckets.bytes.get_or_insert_with(|| Bucket::full(limit, now));
        bucket.refill(limit, now);
        bucket.level -= bytes as f64;
        bucket.wait_for(0.0, limit)
    }

    /// Forgets the clients that no longer exist.
    pub(crate) fn retain(&mut self, mut exists: impl FnMut(&str) -> bool) {
        self.0.retain(|client, _| client.as_deref().is_none_or(&mut exists));
    }
}

impl Exceeded {
    /// Returns the whole seconds after which the client has room again, at least one.
    pub(crate) fn retry_after(&self) -> u32 {
        let seconds = self.wait.as_secs() + u64::from(self.wait.subsec_nanos() > 0);
        u32::try_from(seconds).unwrap_or(u32::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits(requests: Option<u32>, bytes: Option<u32>) -> RateLimits {
        RateLimits { requests, bytes }
    }

    #[test]
    fn second_of_requests_is_a_burst() {
        let (mut rates, now, two) = (Rates::default(), Instant::now(), limits(Some(2), None));
        assert!(rates.request(Some("a"), two, now).is_ok() && rates.request(Some("a"), two, now).is_ok());
        let exceeded = rates.request(Some("a"), two, now).unwrap_err();
        assert_eq!((exceeded.unit, exceeded.limit, exceeded.wait), (RateUnit::Requests, 2, SECOND / 2));
        assert_eq!(exceeded.retry_after(), 1);
        assert!(rates.request(Some("b"), two, now).is_ok(), "clients have their own buckets");
        assert!(rates.request(Some("a"), two, now + SECOND / 2).is_ok());
        assert!(rates.request(Some("a"), two, now + SECOND / 2).is_err());
        let later = now + SECOND * 100;
        let accepted = (0..5).filter(|_| rates.request(Some("a"), two, later).is_ok()).count();
        assert_eq!(accepted, 2, "a bucket never holds more than a second");
    }

    #[test]
    fn large_body_is_a_debt() {
        let (mut rates, now, limits) = (Rates::default(), Instant::now(), limits(None, Some(100)));
        assert!(rates.request(None, limits, now).is_ok());
        assert_eq!(rates.bytes(None, limits, 100, now), Duration::ZERO);
        assert_eq!(rates.bytes(None, limits, 250, now), SECOND * 5 / 2);
        let exceeded = rates.request(None, limits, now).unwrap_err();
        assert_eq!((exceeded.unit, exceeded.retry_after()), (RateUnit::Bytes, 3));
        assert!(rates.request(None, limits, now + SECOND * 2).is_err());
        assert!(rates.request(None, limits, now + SECOND * 3).is_ok());
    }

    #[test]
    fn refused_request_costs_nothing() {
        let (mut rates, now, limits) = (Rates::default(), Instant::now(), limits(Some(1), Some(10)));
        rates.bytes(Some("a"), limits, 20, now);
        assert_eq!(rates.request(Some("a"), limits, now).unwrap_err().unit, RateUnit::Bytes);
        assert!(rates.request(Some("a"), limits, now + SECOND).is_ok());
    }

    #[test]
    fn limits_may_change() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        assert!(rates.request(Some("a"), limits(Some(1), None), now).is_ok());
        assert!(rates.request(Some("a"), limits(Some(100), None), now).is_err());
        assert!(rates.request(Some("a"), limits(Some(100), None), now + SECOND / 10).is_ok());
        assert!(rates.request(Some("a"), RateLimits::default(), now).is_ok(), "no limit");
        rates.retain(|client| client != "a");
        assert!(rates.0.is_empty());
    }

    #[test]
    fn clock_may_stand_still() {
        let (mut rates, now) = (Rates::default(), Instant::now() + SECOND);
        let one = limits(Some(1), None);
        assert!(rates.request(None, one, now).is_ok());
        assert!(rates.request(None, one, now - SECOND).is_err(), "an earlier time adds nothing");
        assert!(rates.request(None, one, now + SECOND).is_ok());
    }
}
