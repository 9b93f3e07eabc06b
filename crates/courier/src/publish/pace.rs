//! How much may be handed to the producer and wait for its verdict: no more than brokers take in good time.
//!
//! Rules:
//! - Pure: times come in with each call.
//! - An event's time (`delivery_timeout`) runs from its hand-over. So the window of bytes without a verdict grows while
//!   verdicts come soon, and shrinks when they come late: what is in it is delivered long before its time is up.
//! - Nothing is handed over while the oldest event without a verdict is late.
//! - A full window has to empty by half before more is handed over: batches stay large.
//! - One event is always let through, however large.

use std::time::{Duration, Instant};

/// Of `delivery_timeout`: verdicts that come within this part of it let the window grow.
const SOON: u32 = 8;
/// Of `delivery_timeout`: verdicts that take longer than this part of it make the window shrink.
const LATE: u32 = 4;
/// The window at first, in bytes for each second of `delivery_timeout`: 64 KiB for 30 s.
const FIRST_PER_SECOND: u64 = (64 << 10) / 30;
/// No window is smaller, in bytes: about one batch of a few events.
const SMALLEST: u64 = 4 << 10;
/// No window is larger at first, in bytes.
const FIRST_MAX: u64 = 64 << 10;
/// The producer's own memory bounds what is beyond this.
const LARGEST: u64 = 1 << 40;
/// What an event takes beside its JSON: key, headers, lengths.
const OVERHEAD: u64 = 100;

#[derive(Debug)]
pub(super) struct Pace {
    soon: Duration,
    late: Duration,
    /// Bytes that may wait for a verdict.
    window: u64,
    in_flight: u64,
    /// The window was full, and has not emptied by half since.
    is_full: bool,
    /// What was handed over before this moment makes the window shrink no more.
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

    /// Notes that an event of this size was handed over. Returns the bytes that it counts as.
    pub(super) fn handed_over(&mut self, bytes: usize) -> u64 {
        let bytes = bytes as u64 + OVERHEAD;
        self.in_flight += bytes;
        bytes
    }

    /// Notes the verdict on an event that counts this much, and was handed over at that time.
    pub(super) fn settled(&mut self, bytes: u64, handed_over: Instant, now: Instant) {
        let before = self.in_flight;
        self.in_flight = before.saturating_sub(bytes);
        let took = now.saturating_duration_since(handed_over);
        if took <= self.soon {
            // A window that is not used says nothing of a larger one.
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

    /// Whether another event may be handed over, where the oldest without a verdict was at that time.
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

    /// A line with a rate in bytes per second, after a first credit that it takes at once.
    struct Link {
        rate: f64,
        credit: f64,
        /// When it has taken all that was sent.
        free_at: f64,
    }

    impl Link {
        /// When an event has its verdict that is sent at this time.
        fn verdict(&mut self, bytes: f64, now: f64) -> f64 {
            let of_credit = bytes.min(self.credit);
            self.credit -= of_credit;
            self.free_at = self.free_at.max(now) + (bytes - of_credit) / self.rate;
            self.free_at + 0.002
        }
    }

    /// Hands events over as fast as the pace lets it. Returns how long all took, and the longest wait for a verdict.
    fn run(mut link: Link, events: usize) -> (f64, f64) {
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
    fn slow_lines_deliver_in_time() {
        for (rate, credit, events) in
            [(50e3, 0.0, 40_000), (50e3, 550e3, 40_000), (50e3, 2e6, 40_000), (5e3, 0.0, 2_000), (1e6, 10e6, 400_000)]
        {
            let (took, longest) = run(Link { rate, credit, free_at: 0.0 }, events);
            let bytes = events as f64 * (EVENT as f64 + OVERHEAD as f64);
            let least = (bytes - credit).max(0.0) / rate;
            assert!(longest < 25.0, "{rate} {credit}: an event waited for {longest} s");
            assert!(took < least * 1.1 + 1.0, "{rate} {credit}: {took} s instead of {least} s");
        }
    }

    #[test]
    fn a_fast_line_soon_has_no_bound() {
        let (took, _) = run(Link { rate: 200e6, credit: 0.0, free_at: 0.0 }, 1_000_000);
        assert!(took < 2.2, "{took} s instead of 2 s");
    }

    #[test]
    fn the_oldest_bounds_the_reading() {
        let mut pace = Pace::new(TIMEOUT);
        let now = Instant::now();
        pace.handed_over(1);
        assert!(pace.has_room(Some(now), now + TIMEOUT / LATE));
        assert!(!pace.has_room(Some(now), now + TIMEOUT / LATE + Duration::from_millis(1)));
        assert!(pace.has_room(None, now + TIMEOUT));
    }

    #[test]
    fn one_large_event_is_let_through() {
        let (mut pace, now) = (Pace::new(Duration::ZERO), Instant::now());
        assert!(pace.has_room(None, now));
        let bytes = pace.handed_over(64 << 20);
        assert!(!pace.has_room(Some(now), now));
        pace.settled(bytes, now, now);
        assert!(pace.has_room(None, now));
    }
}
