//! [`Lane`]: the batches of one partition on their way through the spool, in their order.
//!
//! Rules:
//!  - Batches are accepted in the order of their numbers, in whatever order they are sealed.
//!  - The batches of earlier processes precede all new ones.
//!  - Batches of a deleted topic and of the one that follows it are never with the sender together.
//!  - Batches in memory precede those whose bytes the disk alone has.

use std::collections::{BTreeMap, VecDeque};

use kafka_courier_idempotent_sender::core::{InheritedStamp, Submission};
use kafka_courier_spool::core::entry::{Ordinal, Partition};

use super::backlog::StoredRun;
use super::command::{KeptToken, StoredPlace};

/// A durable batch in memory that the sender does not have yet.
#[derive(Debug)]
pub(crate) struct DurableBatch<T> {
    pub(crate) place: StoredPlace,
    pub(crate) submission: Submission<T>,
    /// The stamp under which an earlier process may have sent the batch.
    pub(crate) inherited: Option<InheritedStamp>,
}

/// The batches of one partition.
#[derive(Debug)]
pub(crate) struct Lane<T> {
    /// The partition of the spool that takes new batches.
    pub(crate) accepting: Partition,
    /// The partition of the spool whose batches the sender has.
    pub(crate) sending: Partition,
    /// Batches that were sealed before their turn.
    early: BTreeMap<u64, Submission<T>>,
    next_batch: u64,
    /// The sender's number for the next batch.
    released: u64,
    /// How often batches of the lane were lost.
    pub(crate) losses: u64,
    /// Durable batches in memory.
    pub(crate) resident: VecDeque<DurableBatch<T>>,
    /// The durable batches behind those.
    pub(crate) runs: VecDeque<StoredRun>,
    /// The tokens of batches of the runs that a caller may still ask.
    pub(crate) kept: BTreeMap<(Partition, Ordinal), KeptToken<T>>,
    /// Whether the next batch of the runs is being read.
    pub(crate) is_loading: bool,
}

impl<T> Lane<T> {
    /// Creates a lane whose first batch has the number `first_batch`.
    pub(crate) fn new(partition: Partition, first_batch: u64) -> Self {
        Self {
            accepting: partition,
            sending: partition,
            early: BTreeMap::new(),
            next_batch: first_batch,
            released: 0,
            losses: 0,
            resident: VecDeque::new(),
            runs: VecDeque::new(),
            kept: BTreeMap::new(),
            is_loading: false,
        }
    }

    /// Takes a sealed batch. Returns the batches whose turn it is.
    pub(crate) fn take(&mut self, submission: Submission<T>) -> Vec<Submission<T>> {
        self.early.insert(submission.ordinal, submission);
        let mut ready = Vec::new();
        while let Some(next) = self.early.remove(&self.next_batch) {
            self.next_batch += 1;
            ready.push(next);
        }
        ready
    }

    /// Returns the batches that wait for an earlier one.
    pub(crate) fn take_early(&mut self) -> Vec<Submission<T>> {
        std::mem::take(&mut self.early).into_values().collect()
    }

    /// Returns the batch with its number for the sender, whose numbers have no gaps.
    pub(crate) fn numbered(&mut self, mut submission: Submission<T>) -> Submission<T> {
        submission.ordinal = self.released;
        self.released += 1;
        submission
    }
}
