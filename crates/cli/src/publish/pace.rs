//! The window of bytes that may wait for a verdict. It follows the speed of the brokers.
//!
//! Rules:
//! - The code reads no clock: times are arguments.
//! - An event's `delivery_timeout` starts when the producer accepts the event. The window grows while verdicts are early
//!   and shrinks when they are late, so events are delivered long before their timeout.
//! - No event is published while the oldest event without a verdict is late.
//! - A full window must empty by half before more events are published, which keeps batches large.
//! - A single event of any size is always published.

use std::time::{Duration, Instant};

/// A verdict within `delivery_timeout` divided by this number is early: the window grows.
const SOON: u32 = 8;
/// A verdict after `delivery_timeout` divided by this number is late: the window shrinks.
const LATE: u32 = 4;
/// Initial window in bytes for each second of `delivery_timeout`: 64 KiB for 30 s.
const FIRST_PER_SECOND: u64 = (64 << 10) / 30;
/// Smallest window in bytes: about one batch of a few events.
const SMALLEST: u64 = 4 << 10;
/// Largest initial window in bytes.
const FIRST_MAX: u64 = 64 << 10;
/// Largest window in bytes. The producer's memory limit is lower.
const LARGEST: u64 = 1 << 40;
/// Bytes that an event needs in addition to its JSON: key, headers, lengths.
const OVERHEAD: u64 = 100;

#[derive(Debug)]
pub(super) struct Pace {
    soon: Duration,
    late: Duration,
    /// Bytes that may wait for a verdict.
    window: u64,
    in_flight: u64,
    /// The window was full and has not emptied by half yet.
    is_full: bool,
    /// Events published before this moment no longer shrink the window.
    shrunk_at: Option<Instant>,
}

impl Pace {
    pub(super) fn new(delivery_timeout: Duration) -> Self {
        let first = delivery_timeout.as_secs().saturating_mul(FIRST_PER_SECOND);
        Self {
            soon: delivery_timeout / SOON,
            late: delivery_timeout / LATE,
            window: first.clamp(SMALLEST, FIRST_MAX),
            in_flight: 0,
            is_full: false,
            shrunk_at: None,
        }
    }

    /// Records that an event of this size was published. Returns the bytes that the window counts for it.
    pub(super) fn handed_over(&mut self, bytes: usize) -> u64 {
        let bytes = bytes as u64 + OVERHEAD;
        self.in_flight += bytes;
        bytes
    }

    /// Records the verdict on an event, with the bytes that the window counts for it and the time of its publishing.
    pub(super) fn settled(&mut self, bytes: u64, handed_over: Instant, now: Instant) {
        let before = self.in_flight;
        self.in_flight = before.saturating_sub(bytes);
        let took = now.saturating_duration_since(handed_over);
        if took <= self.soon {
            // An unused window is no evidence for a larger one.
            if before > self.window / 2 {
                self.window = (self.window + bytes).min(LARGEST);
            }
        } else if took > self.late && self.shrunk_at.is_none_or(|at| at < handed_over) {
            let used = self.window.min(before) as f64;
            let fits = used * self.soon.as_secs_f64() / took.as_secs_f64();
            self.window = (fits as u64).max(SMALLEST);
            self.shrunk_at = Some(now);
        }
    }

    /// Whether another event may be published. `oldest` is the time of the oldest event without a verdict.
    pub(super) fn has_room(&mut self, oldest: Option<Instant>, now: Instant) -> bool {
        let Some(oldest) = oldest else {
            self.is_full = false;
            return true;
        };
        if self.in_flight >= self.window {
            self.is_full = true;
        } else if self.in_flight <= self.window / 2 {
            self.is_full = false;
        }
        !self.is_full && now.saturating_duration_since(oldest) <= self.late
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);
    const EVENT: usize = 300;

    /// A connection with a rate in bytes per second, after an initial credit without delay.
    struct SlowLink {
        rate: f64,
        credit: f64,
        /// The time at which all sent bytes are through.
        free_at: f64,
    }

    impl SlowLink {
        /// Returns the time of the verdict on an event that is sent at `now`.
        fn verdict(&mut self, bytes: f64, now: f64) -> f64 {
            let of_credit = bytes.min(self.credit);
            self.credit -= of_credit;
            self.free_at = self.free_at.max(now) + (bytes - of_credit) / self.rate;
            self.free_at + 0.002
        }
    }

    /// Publishes events as fast as the window allows. Returns the total time and the longest wait for a verdict.
    fn run(mut link: SlowLink, events: usize) -> (f64, f64) {
        let begun = Instant::now();
        let at = |seconds: f64| begun + Duration::from_secs_f64(seconds);
        let (mut pace, mut waiting) = (Pace::new(TIMEOUT), VecDeque::new());
        let (mut now, mut longest, mut left) = (0.0_f64, 0.0_f64, events);
        while left > 0 || !waiting.is_empty() {
            while let Some((sent, verdict, bytes)) = waiting.front().copied().filter(|(_, verdict, _)| *verdict <= now)
            {
                waiting.pop_front();
                longest = longest.max(verdict - sent);
                pace.settled(bytes, at(sent), at(now));
            }
            let oldest = waiting.front().map(|(sent, ..)| at(*sent));
            if left > 0 && pace.has_room(oldest, at(now)) {
                let bytes = pace.handed_over(EVENT);
                waiting.push_back((now, link.verdict(bytes as f64, now), bytes));
                left -= 1;
                now += 1e-6;
            } else if let Some((_, verdict, _)) = waiting.front() {
                now = now.max(*verdict);
            }
        }
        (now, longest)
    }

    #[test]
    fn slow_links_deliver_in_time() {
        for (rate, credit, events) in
            [(50e3, 0.0, 40_000), (50e3, 550e3, 40_000), (50e3, 2e6, 40_000), (5e3, 0.0, 2_000), (1e6, 10e6, 400_000)]
        {
            let (took, longest) = run(SlowLink { rate, credit, free_at: 0.0 }, events);
            let bytes = events as f64 * (EVENT as f64 + OVERHEAD as f64);
            let least = (bytes - credit).max(0.0) / rate;
            assert!(longest < 25.0, "{rate} {credit}: an event waited for {longest} s");
            assert!(took < least * 1.1 + 1.0, "{rate} {credit}: {took} s instead of {least} s");
        }
    }

    #[test]
    fn fast_link_is_not_limited() {
        let (took, _) = run(SlowLink { rate: 200e6, credit: 0.0, free_at: 0.0 }, 1_000_000);
        assert!(took < 2.2, "{took} s instead of 2 s");
    }

    #[test]
    fn late_oldest_event_stops_publishing() {
        let mut pace = Pace::new(TIMEOUT);
        let now = Instant::now();
        pace.handed_over(1);
        assert!(pace.has_room(Some(now), now + TIMEOUT / LATE));
        assert!(!pace.has_room(Some(now), now + TIMEOUT / LATE + Duration::from_millis(1)));
        assert!(pace.has_room(None, now + TIMEOUT));
    }

    #[test]
    fn one_large_event_is_published() {
        let (mut pace, now) = (Pace::new(Duration::ZERO), Instant::now());
        assert!(pace.has_room(None, now));
        let bytes = pace.handed_over(64 << 20);
        assert!(!pace.has_room(Some(now), now));
        pace.settled(bytes, now, now);
        assert!(pace.has_room(None, now));
    }
}
