//! What a leader remembers of producers, as Kafka's `ProducerStateManager` and `ProducerAppendInfo` do (KIP-98, KIP-360).
//!
//! Rules:
//! - The last five batches of an id are told from new ones by their first and last sequence, within one epoch.
//! - A replica that was restarted knows of an id only its last batch from before, and all that came since.
//! - An epoch begins at sequence 0; an id that is not known may begin anywhere.
//! - A bounded number of ids is remembered: the one that wrote longest ago is forgotten first.

use std::collections::{BTreeMap, HashMap, VecDeque};

use kafka_courier_batcher::{Stamp, sequence_add};
use kafka_protocol::ResponseError;

use super::Refusal;

/// `ProducerStateEntry.NUM_BATCHES_TO_RETAIN`.
const BATCHES_KEPT: usize = 5;

/// A batch that a leader can tell from a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownBatch {
    pub(crate) base_sequence: i32,
    pub(crate) last_sequence: i32,
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
    /// The batch's latest timestamp, milliseconds.
    pub(crate) timestamp: i64,
}

/// What is remembered of one producer id.
#[derive(Clone, Debug)]
pub(crate) struct ProducerEntry {
    pub(crate) epoch: i16,
    batches: VecDeque<KnownBatch>,
}

impl ProducerEntry {
    /// The last batch that was appended.
    pub(crate) fn last(&self) -> Option<&KnownBatch> {
        self.batches.back()
    }

    /// The batches known to a replica that was restarted when the log ended at `reloaded_at`.
    fn known_since(&self, reloaded_at: i64) -> impl Iterator<Item = &KnownBatch> {
        let before = self.batches.iter().filter(|batch| batch.last_offset < reloaded_at).count();
        self.batches.iter().skip(before.saturating_sub(1))
    }
}

/// What a stamped batch is to a leader that knows the producers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It follows what was written.
    New,
    /// It was written before: this is it.
    Duplicate(KnownBatch),
}

/// All producers that a partition's leader remembers.
#[derive(Debug)]
pub(crate) struct Producers {
    by_id: HashMap<i64, ProducerEntry>,
    by_age: BTreeMap<i64, i64>,
    limit: usize,
}

impl Producers {
    /// Remembers at most `limit` ids.
    pub(crate) fn new(limit: usize) -> Self {
        Self { by_id: HashMap::new(), by_age: BTreeMap::new(), limit: limit.max(1) }
    }

    /// What a batch with these sequences is. `reloaded_at` is the offset at which the leader was restarted, 0 if never;
    /// `strict_first` makes an unknown id begin at 0 (KAFKA-15591).
    pub(crate) fn judge(
        &self,
        stamp: Stamp,
        records: u32,
        reloaded_at: i64,
        strict_first: bool,
    ) -> Result<Verdict, Refusal> {
        let Some(entry) = self.by_id.get(&stamp.producer_id) else {
            return if strict_first && stamp.base_sequence != 0 {
                Err(out_of_order(stamp, None))
            } else {
                Ok(Verdict::New)
            };
        };
        if stamp.epoch < entry.epoch {
            let message = format!(
                "Epoch of producer {} is {}, which is smaller than the last seen epoch {}",
                stamp.producer_id, stamp.epoch, entry.epoch
            );
            return Err(Refusal::new(ResponseError::InvalidProducerEpoch, message));
        }
        if stamp.epoch > entry.epoch {
            return if stamp.base_sequence == 0 { Ok(Verdict::New) } else { Err(out_of_order(stamp, None)) };
        }
        let last_sequence = sequence_add(stamp.base_sequence, records.saturating_sub(1));
        let same =
            |batch: &&KnownBatch| batch.base_sequence == stamp.base_sequence && batch.last_sequence == last_sequence;
        if let Some(known) = entry.known_since(reloaded_at).find(same) {
            return Ok(Verdict::Duplicate(*known));
        }
        match entry.last() {
            Some(last) if sequence_add(last.last_sequence, 1) != stamp.base_sequence => {
                Err(out_of_order(stamp, Some(last.last_sequence)))
            }
            _ => Ok(Verdict::New),
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

    /// Every id that is remembered, the one that wrote longest ago first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, &ProducerEntry)> {
        self.by_age.values().filter_map(|id| self.by_id.get(id).map(|entry| (*id, entry)))
    }
}

fn out_of_order(stamp: Stamp, last: Option<i32>) -> Refusal {
    let current = last.map_or_else(|| "no sequence".to_owned(), |last| last.to_string());
    let message = format!(
        "Out of order sequence number for producer {}: {} (incoming sequence), {current} (current end sequence)",
        stamp.producer_id, stamp.base_sequence
    );
    Refusal::new(ResponseError::OutOfOrderSequenceNumber, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(epoch: i16, base_sequence: i32) -> Stamp {
        Stamp { producer_id: 7, epoch, base_sequence }
    }

    /// Judges and records batches of one record each at offsets 0, 1, 2 ..
    struct Leader {
        producers: Producers,
        end: i64,
        reloaded_at: i64,
    }

    impl Leader {
        fn new() -> Self {
            Self { producers: Producers::new(100), end: 0, reloaded_at: 0 }
        }

        fn judge(&self, epoch: i16, sequence: i32) -> Result<Verdict, ResponseError> {
            self.producers.judge(stamp(epoch, sequence), 1, self.reloaded_at, false).map_err(|refusal| refusal.code)
        }

        fn write(&mut self, epoch: i16, sequence: i32) -> Result<Verdict, ResponseError> {
            let verdict = self.judge(epoch, sequence)?;
            if verdict == Verdict::New {
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
            Ok(verdict)
        }

        fn found_at(&self, epoch: i16, sequence: i32) -> Option<i64> {
            match self.judge(epoch, sequence) {
                Ok(Verdict::Duplicate(batch)) => Some(batch.base_offset),
                _ => None,
            }
        }
    }

    #[test]
    fn the_last_five_batches_are_known_again_and_the_sixth_is_out_of_order() {
        let mut leader = Leader::new();
        for sequence in 0..6 {
            assert_eq!(leader.write(0, sequence), Ok(Verdict::New));
        }
        assert_eq!((1..6).filter_map(|s| leader.found_at(0, s)).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert_eq!(leader.judge(0, 0), Err(ResponseError::OutOfOrderSequenceNumber));
    }

    #[test]
    fn a_gap_is_refused_and_what_follows_is_taken() {
        let mut leader = Leader::new();
        leader.write(0, 0).unwrap();
        assert_eq!(leader.write(0, 2), Err(ResponseError::OutOfOrderSequenceNumber));
        assert_eq!(leader.write(0, 1), Ok(Verdict::New));
    }

    #[test]
    fn an_unknown_id_may_begin_anywhere_unless_the_first_sequence_must_be_zero() {
        let leader = Leader::new();
        assert_eq!(leader.judge(0, 41), Ok(Verdict::New));
        let strict = leader.producers.judge(stamp(0, 41), 1, 0, true).map_err(|refusal| refusal.code);
        assert_eq!(strict, Err(ResponseError::OutOfOrderSequenceNumber));
        assert_eq!(leader.producers.judge(stamp(0, 0), 1, 0, true), Ok(Verdict::New));
    }

    #[test]
    fn a_new_epoch_begins_at_zero_and_fences_the_old_one() {
        let mut leader = Leader::new();
        leader.write(0, 0).unwrap();
        assert_eq!(leader.write(1, 1), Err(ResponseError::OutOfOrderSequenceNumber));
        assert_eq!(leader.write(1, 0), Ok(Verdict::New));
        assert_eq!(leader.write(0, 1), Err(ResponseError::InvalidProducerEpoch));
        assert_eq!(leader.found_at(1, 0), Some(1));
    }

    #[test]
    fn sequences_go_on_from_zero_behind_the_last() {
        let mut leader = Leader::new();
        leader.write(0, i32::MAX).unwrap();
        assert_eq!(leader.write(0, 0), Ok(Verdict::New));
        assert_eq!(leader.found_at(0, i32::MAX), Some(0));
    }

    #[test]
    fn a_restarted_replica_knows_one_batch_from_before_and_all_since() {
        let mut leader = Leader::new();
        (0..4).for_each(|sequence| assert_eq!(leader.write(0, sequence), Ok(Verdict::New)));
        leader.reloaded_at = leader.end;
        assert_eq!(leader.found_at(0, 3), Some(3));
        assert_eq!(leader.judge(0, 2), Err(ResponseError::OutOfOrderSequenceNumber));
        leader.write(0, 4).unwrap();
        assert_eq!((leader.found_at(0, 3), leader.found_at(0, 4)), (Some(3), Some(4)));
    }

    #[test]
    fn a_batch_of_other_length_is_no_duplicate() {
        let mut leader = Leader::new();
        leader.write(0, 0).unwrap();
        let longer = leader.producers.judge(stamp(0, 0), 2, 0, false).map_err(|refusal| refusal.code);
        assert_eq!(longer, Err(ResponseError::OutOfOrderSequenceNumber));
    }

    #[test]
    fn ids_are_forgotten_by_the_time_of_their_last_record() {
        let mut leader = Leader::new();
        leader.write(0, 0).unwrap();
        leader.producers.forget_before(999);
        assert_eq!(leader.found_at(0, 0), Some(0));
        leader.producers.forget_before(1000);
        assert_eq!(leader.judge(0, 17), Ok(Verdict::New));
        assert_eq!(leader.producers.iter().count(), 0);
    }

    #[test]
    fn beyond_the_limit_the_id_that_wrote_longest_ago_is_forgotten() {
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
