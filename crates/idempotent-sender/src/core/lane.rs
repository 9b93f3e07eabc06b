//! A partition and its binding to a connection.
//!
//! Rules:
//!  - A partition is bound to one connection while any of its batches is unanswered there. This keeps their order.
//!  - Entries and answers of an older generation do not count.

use std::time::Instant;

use kafka_courier_client::PartitionId;

use super::ids::ConnId;
use super::partition::PartitionSender;

/// An entry of a partition in a ready list. The entry is valid only while the generation of the partition is the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadyPartition {
    pub(crate) partition: PartitionId,
    pub(crate) generation: u32,
    /// Bytes of the next batch when the entry was made. The entry adds these bytes to the load of a connection.
    pub(crate) len: usize,
}

/// A partition and its binding to a connection.
#[derive(Debug)]
pub(crate) struct PartitionLane<T> {
    pub(crate) partition: PartitionSender<T>,
    /// The connection to which the partition is bound while any of its batches is unanswered there.
    conn: Option<ConnId>,
    /// A counter that grows when the leader moves or the connection ends.
    generation: u32,
    /// Unanswered batches on the bound connection.
    unanswered: u32,
    /// Whether the partition is in a ready list.
    queued: bool,
    /// Whether the partition sends nothing until all its batches are answered, to move to another connection.
    drain: bool,
    /// The earliest timer that is set.
    armed: Option<Instant>,
}

impl<T: Clone> PartitionLane<T> {
    pub(crate) fn new(id: PartitionId) -> Self {
        Self {
            partition: PartitionSender::new(id),
            conn: None,
            generation: 0,
            unanswered: 0,
            queued: false,
            drain: false,
            armed: None,
        }
    }

    /// Returns whether an entry or a batch in flight counts.
    pub(crate) fn is_current(&self, ready: &ReadyPartition) -> bool {
        self.generation == ready.generation
    }

    pub(crate) fn conn(&self) -> Option<ConnId> {
        self.conn
    }

    pub(crate) fn bind(&mut self, conn: ConnId) {
        self.conn = Some(conn);
    }

    /// Unbinds the partition from its connection. Unanswered batches there no longer count.
    pub(crate) fn unbind(&mut self) {
        self.conn = None;
        self.generation = self.generation.wrapping_add(1);
        self.unanswered = 0;
        self.queued = false;
        self.drain = false;
    }

    /// Leaves the connection, if no batch is unanswered there. The entry in the ready list stays valid. Returns whether
    /// the partition left.
    pub(crate) fn leave_conn(&mut self) -> bool {
        if self.unanswered == 0 {
            (self.conn, self.drain) = (None, false);
        }
        self.unanswered == 0
    }

    /// Notes that the bound connection does not exist any more.
    pub(crate) fn forget_conn(&mut self) {
        self.conn = None;
    }

    /// Sends nothing until all batches are answered, if `drain` is true.
    pub(crate) fn set_drain(&mut self, drain: bool) {
        self.drain = drain;
    }

    /// Returns whether nothing may be sent now: too many batches are unanswered, or the partition drains.
    pub(crate) fn is_held(&self, max_in_flight: u32) -> bool {
        self.unanswered >= max_in_flight || (self.drain && self.unanswered > 0)
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.unanswered == 0
    }

    pub(crate) fn sent(&mut self) {
        self.unanswered += 1;
    }

    pub(crate) fn answered(&mut self) {
        self.unanswered = self.unanswered.saturating_sub(1);
    }

    pub(crate) fn is_queued(&self) -> bool {
        self.queued
    }

    pub(crate) fn set_queued(&mut self, queued: bool) {
        self.queued = queued;
    }

    pub(crate) fn ready(&self) -> ReadyPartition {
        ReadyPartition { partition: self.partition.id, generation: self.generation, len: self.partition.next_len() }
    }

    /// Returns the time for a new timer, if no earlier timer is set.
    pub(crate) fn arm(&mut self, at: Option<Instant>) -> Option<Instant> {
        let at = at.filter(|at| self.armed.is_none_or(|armed| *at < armed))?;
        self.armed = Some(at);
        Some(at)
    }

    /// Notes that a timer fired.
    pub(crate) fn disarm(&mut self, now: Instant) {
        self.armed = self.armed.filter(|at| *at > now);
    }
}
