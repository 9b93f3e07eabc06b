//! The deadlines of a connection.
//!
//! Rules:
//! - A connection without a request is closed after the idle time.
//! - From the first byte of a head, the head must be complete within the time for heads. An HTTP/2 connection has no such
//!   bytes: its frames are not heads, and hyper bounds them.
//! - A connection with a request has no deadline here: body and answer have their own.

use std::time::{Duration, Instant};

/// The deadlines of one connection.
#[derive(Debug)]
pub(crate) struct ConnectionClock {
    idle_timeout: Duration,
    head_timeout: Duration,
    is_multiplexed: bool,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Idle { since: Instant },
    Head { since: Instant },
    Busy { requests: usize },
}

impl ConnectionClock {
    pub(crate) fn new(now: Instant, idle_timeout: Duration, head_timeout: Duration) -> Self {
        // A client that connects has something to send.
        Self { idle_timeout, head_timeout, is_multiplexed: false, phase: Phase::Head { since: now } }
    }

    /// Notes that the connection speaks HTTP/2.
    pub(crate) fn multiplexed(&mut self, now: Instant) {
        self.is_multiplexed = true;
        if let Phase::Head { .. } = self.phase {
            self.phase = Phase::Idle { since: now };
        }
    }

    /// Notes that bytes arrived.
    pub(crate) fn bytes(&mut self, now: Instant) {
        if !self.is_multiplexed && matches!(self.phase, Phase::Idle { .. }) {
            self.phase = Phase::Head { since: now };
        }
    }

    /// Notes that the head of a request is complete.
    pub(crate) fn request_began(&mut self) {
        let requests = match self.phase {
            Phase::Busy { requests } => requests + 1,
            _ => 1,
        };
        self.phase = Phase::Busy { requests };
    }

    /// Notes that a request has its answer.
    pub(crate) fn request_ended(&mut self, now: Instant) {
        self.phase = match self.phase {
            Phase::Busy { requests } if requests > 1 => Phase::Busy { requests: requests - 1 },
            _ => Phase::Idle { since: now },
        };
    }

    /// Returns the time at which the connection is closed, unless something happens before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Idle { since } => Some(since + self.idle_timeout),
            Phase::Head { since } => Some(since + self.head_timeout),
            Phase::Busy { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(75);
    const HEAD: Duration = Duration::from_secs(10);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn slow_head_is_not_prolonged() {
        let now = Instant::now();
        let mut clock = ConnectionClock::new(now, IDLE, HEAD);
        clock.bytes(now + SECOND);
        clock.bytes(now + SECOND * 9);
        assert_eq!(clock.deadline(), Some(now + HEAD));
    }

    #[test]
    fn requests_have_no_deadline() {
        let now = Instant::now();
        let mut clock = ConnectionClock::new(now, IDLE, HEAD);
        clock.request_began();
        clock.request_began();
        clock.request_ended(now);
        clock.bytes(now);
        assert_eq!(clock.deadline(), None);
        clock.request_ended(now + SECOND);
        assert_eq!(clock.deadline(), Some(now + SECOND + IDLE));
        clock.bytes(now + SECOND * 2);
        assert_eq!(clock.deadline(), Some(now + SECOND * 2 + HEAD));
    }

    #[test]
    fn frames_are_no_heads() {
        let now = Instant::now();
        let mut clock = ConnectionClock::new(now, IDLE, HEAD);
        clock.multiplexed(now);
        clock.bytes(now + SECOND);
        assert_eq!(clock.deadline(), Some(now + IDLE));
    }
}
