//! Timers: the objects to check again, and the times of the checks.
//!
//! Rules:
//!  - A timer only triggers a check. The check decides from the state at that time.
//!  - An obsolete timer is harmless, so timers are never searched for and removed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use kafka_courier_client::{BrokerId, PartitionId, TopicId};

use super::ids::ConnId;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Timer {
    Partition(PartitionId),
    Conn(ConnId),
    Broker(BrokerId),
    Topic(TopicId),
    Metadata,
    Identity,
}

#[derive(Debug, Default)]
pub(crate) struct Timers(BinaryHeap<Reverse<(Instant, Timer)>>);

impl Timers {
    pub(crate) fn set(&mut self, at: Instant, timer: Timer) {
        self.0.push(Reverse((at, timer)));
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    /// Removes and returns the earliest timer, if it is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        let Reverse((at, timer)) = *self.0.peek()?;
        if at > now {
            return None;
        }
        self.0.pop();
        Some(timer)
    }
}
