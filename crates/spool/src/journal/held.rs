//! The batches that are not settled, by partition and by the segment that holds them.
//!
//! Rules:
//!  - No round looks at all batches. The batches of each segment are listed beside the batches.
//!  - The bytes of batches are in the files alone. A batch takes 64 bytes of memory here.
//!  - The lists of segments may name batches that are settled or were moved since.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::core::entry::{BatchHead, Ordinal, Partition};
use crate::core::frame::FrameSequence;
use crate::core::ids::{Life, SegmentNumber};
use crate::core::recover::{BatchPlace, HeldBatch};

/// The key of a batch.
type BatchKey = (Partition, Ordinal);

/// A batch of a partition.
#[derive(Clone, Copy, Debug)]
struct PackedBatch {
    first: Ordinal,
    segment: SegmentNumber,
    frame: FrameSequence,
    offset: u64,
    length: u32,
    count: u32,
    /// The index of its life and notes.
    origin: u32,
}

impl PackedBatch {
    fn end(&self) -> Ordinal {
        self.first.plus(self.count.into())
    }
}

/// The batches of a segment.
#[derive(Debug, Default)]
struct SegmentBatches {
    count: u64,
    bytes: u64,
    keys: VecDeque<BatchKey>,
}

/// Batches, each with its place.
#[derive(Debug, Default)]
pub(super) struct HeldBatches {
    /// The batches of each partition, by ordinal.
    batches: BTreeMap<Partition, VecDeque<PackedBatch>>,
    segments: BTreeMap<SegmentNumber, SegmentBatches>,
    /// The lives that stored batches, each with the notes of its batches.
    origins: Vec<(Life, Arc<[u8]>)>,
    all_bytes: u64,
}

impl HeldBatches {
    /// Adds a batch, or moves it to another place.
    pub(super) fn insert(&mut self, batch: HeldBatch) {
        let HeldBatch { head, place: BatchPlace { segment, offset, length }, frame } = batch;
        let (key, count) = ((head.partition, head.first), head.count);
        let origin = self.origin(head.life, head.notes);
        let packed = PackedBatch { first: key.1, segment, frame, offset, length, count, origin };
        let batches = self.batches.entry(key.0).or_default();
        let former = match batches.binary_search_by_key(&key.1, |batch| batch.first) {
            Ok(at) => batches.get_mut(at).map(|former| std::mem::replace(former, packed)),
            Err(at) => {
                batches.insert(at, packed);
                None
            }
        };
        former.into_iter().for_each(|former| self.forget_place(key, former));
        let listed = self.segments.entry(segment).or_default();
        listed.count += 1;
        listed.bytes += u64::from(length);
        listed.keys.push_back(key);
        self.all_bytes += u64::from(length);
    }

    /// Returns the index of a life and its notes. Most batches are of the last life.
    fn origin(&mut self, life: Life, notes: Arc<[u8]>) -> u32 {
        let known = self.origins.iter().rposition(|(of, known)| *of == life && *known == notes);
        let at = known.unwrap_or_else(|| {
            self.origins.push((life, notes));
            self.origins.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    fn forget_place(&mut self, key: BatchKey, batch: PackedBatch) {
        let length = u64::from(batch.length);
        self.all_bytes = self.all_bytes.saturating_sub(length);
        let Some(listed) = self.segments.get_mut(&batch.segment) else { return };
        listed.count = listed.count.saturating_sub(1);
        listed.bytes = listed.bytes.saturating_sub(length);
        listed.keys.pop_front_if(|first| *first == key);
        if listed.count == 0 {
            self.segments.remove(&batch.segment);
        }
    }

    /// Removes the batches of a partition that end before `settled`.
    pub(super) fn drop_settled(&mut self, partition: Partition, settled: Ordinal) {
        let Some(batches) = self.batches.get_mut(&partition) else { return };
        let mut dropped = Vec::new();
        while let Some(batch) = batches.pop_front_if(|batch| batch.end() <= settled) {
            dropped.push(batch);
        }
        if batches.is_empty() {
            self.batches.remove(&partition);
        }
        dropped.into_iter().for_each(|batch| self.forget_place((partition, batch.first), batch));
    }

    fn unpacked(&self, partition: Partition, batch: &PackedBatch) -> HeldBatch {
        let PackedBatch { first, segment, frame, offset, length, count, origin } = *batch;
        let origin = usize::try_from(origin).ok().and_then(|at| self.origins.get(at));
        let (life, notes) = origin.cloned().unwrap_or_else(|| (Life::default(), Arc::default()));
        let head = BatchHead { partition, life, first, count, notes };
        HeldBatch { head, place: BatchPlace { segment, offset, length }, frame }
    }

    /// Returns the batch that begins at an ordinal.
    pub(super) fn get(&self, partition: Partition, first: Ordinal) -> Option<HeldBatch> {
        self.next(partition, first).filter(|batch| batch.head.first == first)
    }

    /// Returns the first batch of a partition that begins at an ordinal or behind.
    pub(super) fn next(&self, partition: Partition, from: Ordinal) -> Option<HeldBatch> {
        let batches = self.batches.get(&partition)?;
        let at = batches.partition_point(|batch| batch.first < from);
        batches.get(at).map(|batch| self.unpacked(partition, batch))
    }

    /// Returns all batches, by partition and ordinal.
    pub(super) fn iter(&self) -> impl Iterator<Item = HeldBatch> {
        self.batches
            .iter()
            .flat_map(move |(partition, batches)| batches.iter().map(move |batch| self.unpacked(*partition, batch)))
    }

    /// Returns the oldest segment that holds a batch.
    pub(super) fn oldest_segment(&self) -> Option<SegmentNumber> {
        self.segments.first_key_value().map(|(segment, _)| *segment)
    }

    /// Returns the bytes of the batches of a segment.
    pub(super) fn bytes_of(&self, segment: SegmentNumber) -> u64 {
        self.segments.get(&segment).map(|listed| listed.bytes).unwrap_or_default()
    }

    /// Returns the bytes of all batches.
    pub(super) fn all_bytes(&self) -> u64 {
        self.all_bytes
    }

    /// Returns batches of a segment, until they have `bytes` bytes.
    pub(super) fn some_of(&self, segment: SegmentNumber, bytes: u64) -> Vec<HeldBatch> {
        let (mut some, mut total) = (Vec::new(), 0);
        let Some(listed) = self.segments.get(&segment) else { return some };
        for (partition, first) in &listed.keys {
            if total >= bytes {
                break;
            }
            let held = self.get(*partition, *first).filter(|batch| batch.place.segment == segment);
            if let Some(batch) = held {
                total += u64::from(batch.place.length);
                some.push(batch);
            }
        }
        some
    }
}
