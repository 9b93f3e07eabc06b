//! Failed batches with the outcome unknown, which a later answer may correct.
//!
//! Rules:
//!  - The list is bounded. The oldest batch is forgotten first.
//!  - An acceptance proves a batch only if the batch precedes it under the same producer id and epoch.

use std::collections::VecDeque;

use kafka_courier_batcher::{Sequence, Stamp};

use super::super::flight::{Flight, PendingAttempt};
use super::super::ids::RequestId;
use super::super::types::RecordSet;

/// The number of failed batches that are kept.
pub(super) const UNKNOWN_BATCHES_MAX: usize = 256;

/// What the batches of an earlier process that failed as unknown mean for those behind them.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct InheritedGap {
    /// A refused repeat may follow from the gap.
    pub(super) is_open: bool,
    /// A leader forgets the producer id once it appends one of them, because of its old records.
    pub(super) is_old: bool,
    /// Whether a batch was submitted that follows one which an earlier process failed as unknown.
    pub(super) is_known: bool,
    /// The last batch that a process may have had in flight behind the gap.
    pub(super) reach: GapReach,
}

/// How far the batches reach that a process may have had in flight behind a gap.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct GapReach {
    /// The first record of the last of them.
    pub(super) first: Option<u64>,
    /// The record after its last one.
    pub(super) end: Option<u64>,
    /// Their number.
    pub(super) in_flight: u32,
}

/// The requests for more batches of an earlier process.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct MoreRequests {
    /// The last sequence number of the batches that were submitted.
    end: Option<Sequence>,
    count: u32,
}

impl MoreRequests {
    /// Counts a request for the batches behind this sequence number. Returns the number of such requests in a row.
    pub(super) fn count(&mut self, end: Sequence) -> u32 {
        if self.end != Some(end) {
            *self = Self { end: Some(end), count: 0 };
        }
        self.count += 1;
        self.count
    }
}

/// Returns whether `ours` precedes `other` under the same producer id and epoch.
pub(super) fn lies_before(ours: Stamp, other: Stamp) -> bool {
    let same_epoch = ours.producer_id == other.producer_id && ours.epoch == other.epoch;
    same_epoch && ours.sequence().precedes(other.sequence())
}

/// A failed batch with the outcome unknown.
#[derive(Debug)]
pub(super) struct UnknownBatch<T> {
    /// Whether a later acceptance proves that the batch is in the log.
    provable: bool,
    attempts: Vec<PendingAttempt>,
    pub(super) token: T,
    pub(super) records: RecordSet,
    pub(super) stamp: Option<Stamp>,
}

impl<T> UnknownBatch<T> {
    fn is_proved_by(&self, accepted: Stamp) -> bool {
        // The batch must precede the accepted one. Batches that a lookup found, and that another leader lacks, are sent
        // again after later batches have failed.
        self.provable && self.stamp.is_some_and(|ours| lies_before(ours, accepted))
    }
}

/// The failed batches of a partition with the outcome unknown.
#[derive(Debug)]
pub(super) struct UnknownBatches<T> {
    list: VecDeque<UnknownBatch<T>>,
}

impl<T: Clone> UnknownBatches<T> {
    pub(super) fn new() -> Self {
        Self { list: VecDeque::new() }
    }

    /// Keeps a failed batch for a correction.
    pub(super) fn remember(&mut self, flight: &Flight<T>) {
        if self.list.len() == UNKNOWN_BATCHES_MAX {
            self.list.pop_front();
        }
        self.list.push_back(UnknownBatch {
            provable: flight.provable,
            attempts: flight.attempts().collect(),
            token: flight.token.clone(),
            records: flight.records.clone(),
            stamp: flight.stamp(),
        });
    }

    /// Notes that no acceptance proves any of these batches.
    pub(super) fn forget_proofs(&mut self) {
        self.list.iter_mut().for_each(|failed| failed.provable = false);
    }

    /// Returns whether a batch was stamped under this producer id and epoch.
    pub(super) fn any_of(&self, (producer_id, epoch): (i64, i16)) -> bool {
        let is_of = |stamp: Stamp| stamp.producer_id == producer_id && stamp.epoch == epoch;
        self.list.iter().any(|failed| failed.stamp.is_some_and(is_of))
    }

    /// Removes the batches that were sent in `request`. Returns each with its attempt.
    pub(super) fn take_attempted(&mut self, request: RequestId) -> Vec<(UnknownBatch<T>, PendingAttempt)> {
        let mut taken = Vec::new();
        for failed in std::mem::take(&mut self.list) {
            match failed.attempts.iter().find(|attempt| attempt.request == request).copied() {
                Some(attempt) => taken.push((failed, attempt)),
                None => self.list.push_back(failed),
            }
        }
        taken
    }

    /// Removes the batches that the acceptance of `stamp` proves to be in the log.
    pub(super) fn take_proved(&mut self, stamp: Stamp) -> Vec<UnknownBatch<T>> {
        let mut taken = Vec::new();
        for position in (0..self.list.len()).rev() {
            if self.list[position].is_proved_by(stamp) {
                taken.extend(self.list.remove(position));
            }
        }
        taken
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }
}
