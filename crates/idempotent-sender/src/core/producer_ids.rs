//! The producer id: when the core requests one.
//!
//! Rules:
//!  - One request is in flight at a time. Nothing is requested during the pause after a failure.
//!  - An id that a partition has used up, or nearly used up, is requested again for all partitions.

use std::time::Instant;

/// The state of the producer id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ProducerIdState {
    None,
    Requested,
    Paused(Instant),
    Assigned(i64),
}

/// The producer id, and the requests for it.
#[derive(Debug)]
pub(crate) struct ProducerIds {
    state: ProducerIdState,
    /// Failed requests in a row.
    failures: u32,
}

impl ProducerIds {
    pub(crate) fn new() -> Self {
        Self { state: ProducerIdState::None, failures: 0 }
    }

    /// Returns the id, if the cluster assigned one.
    pub(crate) fn assigned(&self) -> Option<i64> {
        match self.state {
            ProducerIdState::Assigned(id) => Some(id),
            _ => None,
        }
    }

    pub(crate) fn assign(&mut self, id: i64) {
        *self = Self { state: ProducerIdState::Assigned(id), failures: 0 };
    }

    /// Counts a failed request. Returns the number of failures in a row.
    pub(crate) fn failed(&mut self) -> u32 {
        self.failures = self.failures.saturating_add(1);
        self.failures
    }

    /// Requests nothing before `until`.
    pub(crate) fn pause(&mut self, until: Instant) {
        self.state = ProducerIdState::Paused(until);
    }

    /// Ends the pause, if it is over. Returns whether it ended now.
    pub(crate) fn end_pause(&mut self, now: Instant) -> bool {
        let is_over = matches!(self.state, ProducerIdState::Paused(until) if until <= now);
        if is_over {
            self.state = ProducerIdState::None;
        }
        is_over
    }

    /// Returns whether a request must be sent now, and notes that it is.
    pub(crate) fn request(&mut self) -> bool {
        let is_needed = self.state == ProducerIdState::None;
        if is_needed {
            self.state = ProducerIdState::Requested;
        }
        is_needed
    }

    /// Forgets the assigned id, if it is this one. Returns whether it was.
    pub(crate) fn forget(&mut self, id: i64) -> bool {
        let is_assigned = self.state == ProducerIdState::Assigned(id);
        if is_assigned {
            self.state = ProducerIdState::None;
        }
        is_assigned
    }
}
