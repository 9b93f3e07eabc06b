//! The lowest rate of a body, and its longest time.
//!
//! Rule: bytes that arrived early buy no long silence. The next part must arrive within the grace.

use std::time::{Duration, Instant};

/// The pace of one body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyPace {
    began: Instant,
    read: u64,
    grace: Duration,
    /// Bytes per second. 0 is no limit.
    min_rate: u32,
    last: Instant,
    /// The longest time of the whole body.
    longest: Option<Duration>,
}

impl BodyPace {
    pub(crate) fn new(now: Instant, grace: Duration, min_rate: u32) -> Self {
        Self { began: now, read: 0, grace, min_rate, last: now, longest: None }
    }

    /// Bounds the time of the whole body.
    #[must_use]
    pub(crate) fn within(self, longest: Duration) -> Self {
        Self { longest: Some(longest), ..self }
    }

    /// Counts bytes that were read.
    pub(crate) fn read(&mut self, bytes: usize, now: Instant) {
        self.read += bytes as u64;
        if bytes > 0 {
            self.last = now;
        }
    }

    /// Notes that the reader itself paused, because it had no room for what follows.
    pub(crate) fn paused(&mut self, time: Duration) {
        self.began += time;
        self.last += time;
    }

    /// Returns the time until which the next part must arrive.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let rate = u64::from(self.min_rate);
        let next = (rate > 0).then(|| {
            let average = self.began + Duration::from_millis(self.read.saturating_mul(1000) / rate);
            average.min(self.last) + self.grace
        });
        let end = self.longest.map(|longest| self.began + longest);
        next.into_iter().chain(end).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_buy_time() {
        let now = Instant::now();
        let mut pace = BodyPace::new(now, Duration::from_secs(10), 1000);
        assert_eq!(pace.deadline(), Some(now + Duration::from_secs(10)));
        pace.read(2500, now + Duration::from_secs(9));
        assert_eq!(pace.deadline(), Some(now + Duration::from_millis(12_500)));
        pace.paused(Duration::from_secs(5));
        assert_eq!(pace.deadline(), Some(now + Duration::from_millis(17_500)));
        assert_eq!(BodyPace::new(now, Duration::ZERO, 0).deadline(), None);
    }

    #[test]
    fn early_bytes_buy_no_silence() {
        let now = Instant::now();
        let mut pace = BodyPace::new(now, Duration::from_secs(10), 1000);
        pace.read(1 << 30, now + Duration::from_secs(1));
        pace.read(0, now + Duration::from_secs(2));
        assert_eq!(pace.deadline(), Some(now + Duration::from_secs(11)));
    }

    #[test]
    fn whole_body_has_an_end() {
        let now = Instant::now();
        let mut pace = BodyPace::new(now, Duration::from_secs(10), 1000).within(Duration::from_secs(60));
        for second in 1..60 {
            pace.read(1000, now + Duration::from_secs(second));
        }
        assert_eq!(pace.deadline(), Some(now + Duration::from_secs(60)));
    }
}
