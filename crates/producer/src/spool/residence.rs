//! [`Residence`]: how much of a spool's backlog is in memory. Pure.
//!
//! Rules:
//!  - A durable batch is in memory from its admission until the sender or the failure sink has settled its records. The disk
//!    alone has the bytes of all others.
//!  - A partition always gets up to [`FLOOR`] batches, so that a partition that moves never waits for another one.
//!  - Beyond them, all partitions share a budget. A partition beyond an eighth of it leaves the last quarter to the others.
//!  - The sender may ask for more: batches of an earlier process prove each other. Such a grant exceeds the budget.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kafka_courier_client::PartitionId;
use kafka_courier_spool::core::entry::{Ordinal, Partition};

use super::command::StoredPlace;

/// The number of batches that a partition gets, whatever the others have.
pub(super) const FLOOR: u32 = 2;
/// The divisor of the budget that gives a partition's share.
const SHARE: u64 = 8;
/// The number of waiting partitions that continue after a batch is settled.
const RESUMED: usize = 4;

/// A batch in memory.
#[derive(Clone, Copy, Debug)]
struct ResidentBatch {
    lane: PartitionId,
    bytes: u64,
    /// Records that are not settled.
    open: u32,
}

/// The batches of one partition in memory.
#[derive(Clone, Copy, Debug, Default)]
struct LaneShare {
    batches: u32,
    bytes: u64,
    /// Batches that the sender has asked for beyond the budget.
    granted: u32,
}

/// The durable batches in memory, and the partitions that wait for their turn.
#[derive(Debug)]
pub(super) struct Residence {
    budget: u64,
    bytes: u64,
    lanes: BTreeMap<PartitionId, LaneShare>,
    batches: BTreeMap<(Partition, Ordinal), ResidentBatch>,
    /// Partitions that the budget stopped, in the order of their turns, and the same as a set.
    turns: VecDeque<PartitionId>,
    waiting: BTreeSet<PartitionId>,
}

impl Residence {
    /// Creates the state of a spool whose batches in memory share `budget` bytes.
    pub(super) fn new(budget: u64) -> Self {
        Self {
            budget,
            bytes: 0,
            lanes: BTreeMap::new(),
            batches: BTreeMap::new(),
            turns: VecDeque::new(),
            waiting: BTreeSet::new(),
        }
    }

    /// Returns the bytes of the batches in memory.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns whether a partition's next batch may be in memory now. The partition waits for its turn otherwise.
    pub(super) fn admits(&mut self, lane: PartitionId) -> bool {
        let share = self.lanes.get(&lane).copied().unwrap_or_default();
        let is_beyond = share.bytes > self.budget / SHARE;
        let ceiling = if is_beyond { self.budget - self.budget / 4 } else { self.budget };
        let is_admitted = share.batches < FLOOR || share.granted > 0 || self.bytes < ceiling;
        if !is_admitted && self.waiting.insert(lane) {
            self.turns.push_back(lane);
        }
        is_admitted
    }

    /// Adds an admitted batch.
    pub(super) fn add(&mut self, lane: PartitionId, place: StoredPlace, records: u32, bytes: u64) {
        let share = self.lanes.entry(lane).or_default();
        share.granted = share.granted.saturating_sub(1);
        share.batches += 1;
        share.bytes += bytes;
        self.bytes += bytes;
        self.batches.insert((place.partition, place.first), ResidentBatch { lane, bytes, open: records });
    }

    /// Notes that records of a batch are settled. Returns the partitions that may continue.
    pub(super) fn settle(&mut self, place: StoredPlace, records: u32) -> Vec<PartitionId> {
        let key = (place.partition, place.first);
        let Some(batch) = self.batches.get_mut(&key) else { return Vec::new() };
        batch.open = batch.open.saturating_sub(records);
        if batch.open > 0 {
            return Vec::new();
        }
        let ResidentBatch { lane, bytes, .. } = *batch;
        self.batches.remove(&key);
        self.bytes = self.bytes.saturating_sub(bytes);
        if let Some(share) = self.lanes.get_mut(&lane) {
            share.batches = share.batches.saturating_sub(1);
            share.bytes = share.bytes.saturating_sub(bytes);
        }
        let resumed: Vec<_> = self.turns.drain(..self.turns.len().min(RESUMED)).collect();
        resumed.iter().for_each(|next| _ = self.waiting.remove(next));
        std::iter::once(lane).chain(resumed.into_iter().filter(|next| *next != lane)).collect()
    }

    /// Lets a partition have more batches than the budget allows, because the sender can't decide without them: as many as it
    /// has, so that few requests suffice.
    pub(super) fn grant(&mut self, lane: PartitionId) {
        let share = self.lanes.entry(lane).or_default();
        share.granted = share.batches.max(1);
    }
}
