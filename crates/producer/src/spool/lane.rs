//! [`Lane`]: the batches of one partition on their way through the spool, in their order.
//!
//! Rules:
//!  - Batches are accepted in the order of their numbers, in whatever order they are sealed.
//!  - The batches of earlier processes precede all new ones.
//!  - Batches of a deleted topic and of the one that follows it are never with the sender together.

use std::collections::{BTreeMap, VecDeque};

use kafka_courier_idempotent_sender::core::{InheritedStamp, Submission};
use kafka_courier_spool::core::entry::Partition;

use super::command::StoredPlace;

/// A durable batch that the sender does not have yet.
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
    /// The number of batches that the sender never gets. The numbers of later ones are reduced by it.
    skipped: u64,
    pub(crate) durable: VecDeque<DurableBatch<T>>,
}

impl<T> Lane<T> {
    /// Creates a lane whose first batch has the number `first_batch`.
    pub(crate) fn new(partition: Partition, first_batch: u64) -> Self {
        Self {
            accepting: partition,
            sending: partition,
            early: BTreeMap::new(),
            next_batch: first_batch,
            skipped: 0,
            durable: VecDeque::new(),
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

    /// Notes that the sender never gets the next batch.
    pub(crate) fn skip_one(&mut self) {
        self.skipped += 1;
    }

    /// Returns the batch with its number for the sender, whose numbers have no gaps.
    pub(crate) fn numbered(&self, mut submission: Submission<T>) -> Submission<T> {
        submission.ordinal = submission.ordinal.saturating_sub(self.skipped);
        submission
    }
}
