//! The batches that are not settled, by partition and by the segment that holds them.
//!
//! Rules:
//!  - No round looks at all batches. The batches of each segment are kept in order beside the batches.
//!  - The bytes of batches are in the files alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::entry::{Ordinal, Partition, TopicNumber};
use crate::core::ids::SegmentNumber;
use crate::core::recover::HeldBatch;

/// The key of a batch.
type BatchKey = (Partition, Ordinal);

/// The least key.
const LEAST: BatchKey = (Partition { topic: TopicNumber(0), index: i32::MIN }, Ordinal(0));

/// Batches, each with its place.
#[derive(Debug, Default)]
pub(super) struct HeldBatches {
    batches: BTreeMap<BatchKey, HeldBatch>,
    by_segment: BTreeSet<(SegmentNumber, BatchKey)>,
    /// The bytes of the batches of each segment.
    bytes: BTreeMap<SegmentNumber, u64>,
    all_bytes: u64,
}

impl HeldBatches {
    /// Adds a batch, or moves it to another place.
    pub(super) fn insert(&mut self, batch: HeldBatch) {
        let key = (batch.head.partition, batch.head.first);
        let (segment, length) = (batch.place.segment, u64::from(batch.place.length));
        if let Some(former) = self.batches.insert(key, batch) {
            self.forget_place(key, &former);
        }
        self.by_segment.insert((segment, key));
        *self.bytes.entry(segment).or_default() += length;
        self.all_bytes += length;
    }

    fn forget_place(&mut self, key: BatchKey, batch: &HeldBatch) {
        let (segment, length) = (batch.place.segment, u64::from(batch.place.length));
        self.by_segment.remove(&(segment, key));
        self.all_bytes = self.all_bytes.saturating_sub(length);
        if let Some(bytes) = self.bytes.get_mut(&segment) {
            *bytes = bytes.saturating_sub(length);
            if *bytes == 0 {
                self.bytes.remove(&segment);
            }
        }
    }

    /// Removes the batches of a partition that end before `settled`.
    pub(super) fn drop_settled(&mut self, partition: Partition, settled: Ordinal) {
        while let Some((&key, batch)) = self
            .batches
            .range((partition, Ordinal(0))..)
            .next()
            .filter(|((of, _), batch)| *of == partition && batch.head.end() <= settled)
        {
            let batch = batch.clone();
            self.batches.remove(&key);
            self.forget_place(key, &batch);
        }
    }

    /// Returns the batch that begins at an ordinal.
    pub(super) fn get(&self, partition: Partition, first: Ordinal) -> Option<&HeldBatch> {
        self.batches.get(&(partition, first))
    }

    /// Returns all batches, by partition and ordinal.
    pub(super) fn iter(&self) -> impl Iterator<Item = &HeldBatch> {
        self.batches.values()
    }

    /// Returns the oldest segment that holds a batch.
    pub(super) fn oldest_segment(&self) -> Option<SegmentNumber> {
        self.by_segment.first().map(|(segment, _)| *segment)
    }

    /// Returns the bytes of the batches of a segment.
    pub(super) fn bytes_of(&self, segment: SegmentNumber) -> u64 {
        self.bytes.get(&segment).copied().unwrap_or_default()
    }

    /// Returns the bytes of all batches.
    pub(super) fn all_bytes(&self) -> u64 {
        self.all_bytes
    }

    /// Returns batches of a segment, until they have `bytes` bytes.
    pub(super) fn some_of(&self, segment: SegmentNumber, bytes: u64) -> Vec<HeldBatch> {
        let (mut some, mut total) = (Vec::new(), 0);
        let keys = self.by_segment.range((segment, LEAST)..);
        for (_, key) in keys.take_while(|(other, _)| *other == segment) {
            let Some(batch) = self.batches.get(key).filter(|_| total < bytes) else { break };
            total += u64::from(batch.place.length);
            some.push(batch.clone());
        }
        some
    }
}
