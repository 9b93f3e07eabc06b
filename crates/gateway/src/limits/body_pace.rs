//! The lowest rate of a body.

use std::time::{Duration, Instant};

/// The pace of one body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyPace {
    began: Instant,
    read: u64,
    grace: Duration,
    /// Bytes per second. 0 is no limit.
    min_rate: u32,
}

impl BodyPace {
    pub(crate) fn new(now: Instant, grace: Duration, min_rate: u32) -> Self {
        Self { began: now, read: 0, grace, min_rate }
    }

    /// Counts bytes that were read.
    pub(crate) fn read(&mut self, bytes: usize) {
        self.read += bytes as u64;
    }

    /// Notes that the reader itself paused, because it had no room for what follows.
    pub(crate) fn paused(&mut self, time: Duration) {
        self.began += time;
    }

    /// Returns the time until which the next part must arrive.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let rate = u64::from(self.min_rate);
        (rate > 0).then(|| self.began + self.grace + Duration::from_millis(self.read.saturating_mul(1000) / rate))
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
        pace.read(2500);
        assert_eq!(pace.deadline(), Some(now + Duration::from_millis(12_500)));
        pace.paused(Duration::from_secs(5));
        assert_eq!(pace.deadline(), Some(now + Duration::from_millis(17_500)));
        assert_eq!(BodyPace::new(now, Duration::ZERO, 0).deadline(), None);
    }
}
