//! A leader's memory of producers, as in Kafka's `ProducerStateManager` and `ProducerAppendInfo` (KIP-98, KIP-360).
//!
//! Rules:
//! - A leader recognizes the last five batches of an id by their first and last sequence, within one epoch.
//! - A restarted replica remembers the last batch of each id from before the restart, and all later batches.
//! - An epoch begins at sequence 0. An unknown id may begin at any sequence.
//! - The number of remembered ids is bounded. The leader forgets the id with the oldest last write first.

use std::collections::{BTreeMap, HashMap, VecDeque};

use kafka_courier_batcher::{Sequence, Stamp};
use kafka_protocol::ResponseError;

use super::ProduceError;

/// `ProducerStateEntry.NUM_BATCHES_TO_RETAIN`.
const BATCHES_KEPT: usize = 5;

/// A batch that a leader recognizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownBatch {
    pub(crate) base_sequence: i32,
    pub(crate) last_sequence: i32,
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
    /// The batch's latest timestamp, in milliseconds.
    pub(crate) timestamp: i64,
}

/// A leader's memory of one producer id.
#[derive(Clone, Debug)]
pub(crate) struct ProducerEntry {
    pub(crate) epoch: i16,
    batches: VecDeque<KnownBatch>,
}

impl ProducerEntry {
    /// Returns the batch that was appended last.
    pub(crate) fn last(&self) -> Option<&KnownBatch> {
        self.batches.back()
    }

    /// Returns the batches that a replica remembers after a restart at the log end offset `reloaded_at`.
    fn known_since(&self, reloaded_at: i64) -> impl Iterator<Item = &KnownBatch> {
        let before = self.batches.iter().filter(|batch| batch.last_offset < reloaded_at).count();
        self.batches.iter().skip(before.saturating_sub(1))
    }
}

/// The result of checking a stamp against a leader's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SequenceCheck {
    /// The batch follows the last written one.
    New,
    /// The batch is already in the log.
    Duplicate(KnownBatch),
}

/// The producers that a partition's leader remembers.
#[derive(Debug)]
pub(crate) struct Producers {
    by_id: HashMap<i64, ProducerEntry>,
    /// Producer ids by the last offset of their last batch.
    by_age: BTreeMap<i64, i64>,
    limit: usize,
}

impl Producers {
    /// Creates an empty memory of at most `limit` ids.
    pub(crate) fn new(limit: usize) -> Self {
        Self { by_id: HashMap::new(), by_age: BTreeMap::new(), limit: limit.max(1) }
    }

    /// Checks the sequences of a batch. `reloaded_at` is the log end offset at the leader's last restart, 0 without a
    /// restart. An unknown id must begin at sequence 0 under `strict_first` (KAFKA-15591).
    pub(crate) fn check_sequence(
        &self,
        stamp: Stamp,
        records: u32,
        reloaded_at: i64,
        strict_first: bool,
    ) -> Result<SequenceCheck, ProduceError> {
        let Some(entry) = self.by_id.get(&stamp.producer_id) else {
            return if strict_first && stamp.base_sequence != 0 {
                Err(out_of_order(stamp, None))
            } else {
                Ok(SequenceCheck::New)
            };
        };
        if stamp.epoch < entry.epoch {
            let message = format!(
                "Epoch of producer {} is {}, which is smaller than the last seen epoch {}",
                stamp.producer_id, stamp.epoch, entry.epoch
            );
            return Err(ProduceError::new(ResponseError::InvalidProducerEpoch, message));
        }
        if stamp.epoch > entry.epoch {
            return if stamp.base_sequence == 0 { Ok(SequenceCheck::New) } else { Err(out_of_order(stamp, None)) };
        }
        let last_sequence = stamp.advance(records.saturating_sub(1)).base_sequence;
        let same =
            |batch: &&KnownBatch| batch.base_sequence == stamp.base_sequence && batch.last_sequence == last_sequence;
        if let Some(known) = entry.known_since(reloaded_at).find(same) {
            return Ok(SequenceCheck::Duplicate(*known));
        }
        match entry.last() {
            Some(last) if Sequence::wrapping(last.last_sequence).advance(1).number() != stamp.base_sequence => {
                Err(out_of_order(stamp, Some(last.last_sequence)))
            }
            _ => Ok(SequenceCheck::New),
        }
    }

    /// Remembers an appended batch.
    pub(crate) fn record(&mut self, producer_id: i64, epoch: i16, batch: KnownBatch) {
        let entry = self.by_id.entry(producer_id).or_insert_with(|| ProducerEntry { epoch, batches: VecDeque::new() });
        if let Some(last) = entry.batches.back() {
            self.by_age.remove(&last.last_offset);
        }
        if entry.epoch != epoch {
            (entry.epoch, entry.batches) = (epoch, VecDeque::new());
        }
        if entry.batches.len() == BATCHES_KEPT {
            entry.batches.pop_front();
        }
        entry.batches.push_back(batch);
        self.by_age.insert(batch.last_offset, producer_id);
        while self.by_id.len() > self.limit {
            let Some((_, oldest)) = self.by_age.pop_first() else { break };
            self.by_id.remove(&oldest);
        }
    }

    /// Forgets every id.
    pub(crate) fn forget_all(&mut self) {
        self.by_id.clear();
        self.by_age.clear();
    }

    /// Forgets the ids whose last batch has only timestamps before `limit`, as `producer.id.expiration.ms` does.
    pub(crate) fn forget_before(&mut self, limit: i64) {
        let by_age = &mut self.by_age;
        self.by_id.retain(|_, entry| match entry.last() {
            Some(last) if last.timestamp <= limit => by_age.remove(&last.last_offset).is_none(),
            _ => true,
        });
    }

    /// Returns every remembered id, the id with the oldest last write first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, &ProducerEntry)> {
        self.by_age.values().filter_map(|id| self.by_id.get(id).map(|entry| (*id, entry)))
    }
}

fn out_of_order(stamp: Stamp, last: Option<i32>) -> ProduceError {
    let current = last.map_or_else(|| "no sequence".to_owned(), |last| last.to_string());
    let message = format!(
        "Out of order sequence number for producer {}: {} (incoming sequence), {current} (current end sequence)",
        stamp.producer_id, stamp.base_sequence
    );
    ProduceError::new(ResponseError::OutOfOrderSequenceNumber, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(epoch: i16, base_sequence: i32) -> Stamp {
        Stamp { producer_id: 7, epoch, base_sequence }
    }

    /// A leader whose batches have one record each, at offsets 0, 1, 2 and so on.
    struct LeaderMemory {
        producers: Producers,
        end: i64,
        reloaded_at: i64,
    }

    impl LeaderMemory {
        fn new() -> Self {
            Self { producers: Producers::new(100), end: 0, reloaded_at: 0 }
        }

        fn check(&self, epoch: i16, sequence: i32) -> Result<SequenceCheck, ResponseError> {
            let checked = self.producers.check_sequence(stamp(epoch, sequence), 1, self.reloaded_at, false);
            checked.map_err(|refusal| refusal.code)
        }

        fn write(&mut self, epoch: i16, sequence: i32) -> Result<SequenceCheck, ResponseError> {
            let checked = self.check(epoch, sequence)?;
            if checked == SequenceCheck::New {
                let (at, timestamp) = (self.end, 1000 + self.end);
                let batch = KnownBatch {
                    base_sequence: sequence,
                    last_sequence: sequence,
                    base_offset: at,
                    last_offset: at,
                    timestamp,
                };
                self.producers.record(7, epoch, batch);
                self.end += 1;
            }
            Ok(checked)
        }

        fn found_at(&self, epoch: i16, sequence: i32) -> Option<i64> {
            match self.check(epoch, sequence) {
                Ok(SequenceCheck::Duplicate(batch)) => Some(batch.base_offset),
                _ => None,
            }
        }
    }

    #[test]
    fn last_five_batches_are_recognized() {
        let mut leader = LeaderMemory::new();
        for sequence in 0..6 {
            assert_eq!(leader.write(0, sequence), Ok(SequenceCheck::New));
        }
        assert_eq!((1..6).filter_map(|s| leader.found_at(0, s)).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert_eq!(leader.check(0, 0), Err(ResponseError::OutOfOrderSequenceNumber));
    }

    #[test]
    fn sequence_gap_is_refused() {
        let mut leader = LeaderMemory::new();
        leader.write(0, 0).unwrap();
        assert_eq!(leader.write(0, 2), Err(ResponseError::OutOfOrderSequenceNumber));
        assert_eq!(leader.write(0, 1), Ok(SequenceCheck::New));
    }

    #[test]
    fn strict_first_sequence_must_be_zero() {
        let leader = LeaderMemory::new();
        assert_eq!(leader.check(0, 41), Ok(SequenceCheck::New));
        let strict = leader.producers.check_sequence(stamp(0, 41), 1, 0, true).map_err(|refusal| refusal.code);
        assert_eq!(strict, Err(ResponseError::OutOfOrderSequenceNumber));
        assert_eq!(leader.producers.check_sequence(stamp(0, 0), 1, 0, true), Ok(SequenceCheck::New));
    }

    #[test]
    fn new_epoch_fences_the_old() {
        let mut leader = LeaderMemory::new();
        leader.write(0, 0).unwrap();
        assert_eq!(leader.write(1, 1), Err(ResponseError::OutOfOrderSequenceNumber));
        assert_eq!(leader.write(1, 0), Ok(SequenceCheck::New));
        assert_eq!(leader.write(0, 1), Err(ResponseError::InvalidProducerEpoch));
        assert_eq!(leader.found_at(1, 0), Some(1));
    }

    #[test]
    fn sequence_wraps_to_zero() {
        let mut leader = LeaderMemory::new();
        leader.write(0, i32::MAX).unwrap();
        assert_eq!(leader.write(0, 0), Ok(SequenceCheck::New));
        assert_eq!(leader.found_at(0, i32::MAX), Some(0));
    }

    #[test]
    fn restarted_replica_remembers_one_batch() {
        let mut leader = LeaderMemory::new();
        (0..4).for_each(|sequence| assert_eq!(leader.write(0, sequence), Ok(SequenceCheck::New)));
        leader.reloaded_at = leader.end;
        assert_eq!(leader.found_at(0, 3), Some(3));
        assert_eq!(leader.check(0, 2), Err(ResponseError::OutOfOrderSequenceNumber));
        leader.write(0, 4).unwrap();
        assert_eq!((leader.found_at(0, 3), leader.found_at(0, 4)), (Some(3), Some(4)));
    }

    #[test]
    fn other_length_is_no_duplicate() {
        let mut leader = LeaderMemory::new();
        leader.write(0, 0).unwrap();
        let longer = leader.producers.check_sequence(stamp(0, 0), 2, 0, false).map_err(|refusal| refusal.code);
        assert_eq!(longer, Err(ResponseError::OutOfOrderSequenceNumber));
    }

    #[test]
    fn ids_expire_by_last_timestamp() {
        let mut leader = LeaderMemory::new();
        leader.write(0, 0).unwrap();
        leader.producers.forget_before(999);
        assert_eq!(leader.found_at(0, 0), Some(0));
        leader.producers.forget_before(1000);
        assert_eq!(leader.check(0, 17), Ok(SequenceCheck::New));
        assert_eq!(leader.producers.iter().count(), 0);
    }

    #[test]
    fn limit_forgets_the_oldest_id() {
        let mut producers = Producers::new(2);
        for (offset, id) in [(0, 1), (1, 2), (2, 1), (3, 3)] {
            let batch = KnownBatch {
                base_sequence: 0,
                last_sequence: 0,
                base_offset: offset,
                last_offset: offset,
                timestamp: 0,
            };
            producers.record(id, 0, batch);
        }
        assert_eq!(producers.iter().map(|(id, _)| id).collect::<Vec<_>>(), [1, 3]);
    }
}
