//! A replica's log and its producer state, after Apache Kafka's `ProducerStateManager`.
//!
//! Rules:
//! - A replica remembers five batches of a producer, but only one after a start or the load of a snapshot.
//! - A duplicate has the epoch and exactly the first and last sequence of a remembered batch.
//! - An unknown producer may begin at any sequence. Kafka 4.5 and newer accept only sequence 0 in a partition that was
//!   never written.
//! - A replica forgets a producer when the newest timestamp of the producer's last batch is too old. The replica checks
//!   periodically and at its start.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// The number of a record from another producer.
pub(crate) const FOREIGN: u32 = u32::MAX;

/// A batch in a log.
#[derive(Clone, Debug)]
pub(crate) struct LogEntry {
    pub(crate) base_offset: i64,
    /// The number of the append. The copies on other replicas have the same number.
    pub(crate) append: u64,
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) first: i32,
    pub(crate) last: i32,
    /// The newest record's timestamp, or the time of the append under LogAppendTime.
    pub(crate) max_timestamp: i64,
    pub(crate) records: Rc<[u32]>,
    /// The partition's `forgets` at the append.
    pub(crate) forgets: u32,
    /// The partition's `expiries` at the append.
    pub(crate) expiries: u32,
    /// The partition's `purges` at the append.
    pub(crate) purges: u32,
    /// Whether half of the time until the producer id expires had passed at the append.
    pub(crate) is_old: bool,
}

impl LogEntry {
    pub(crate) fn end(&self) -> i64 {
        self.base_offset + self.records.len() as i64
    }
}

#[derive(Clone, Debug)]
struct RememberedBatch {
    first: i32,
    last: i32,
    base_offset: i64,
    timestamp: i64,
}

#[derive(Clone, Debug)]
pub(crate) struct Producer {
    pub(crate) epoch: i16,
    pub(crate) last_sequence: i32,
    pub(crate) last_timestamp: i64,
    is_old: bool,
    batches: VecDeque<RememberedBatch>,
}

/// The sequence rules that depend on the brokers' version.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SequenceRules {
    /// A partition that was never written accepts only sequence 0 from an unknown producer (Kafka 4.5).
    pub(crate) first_must_be_zero: bool,
    /// The answer to an old duplicate is 46, and to an unknown producer's first sequence other than 0 is 59 (before
    /// Kafka 2.5).
    pub(crate) old_codes: bool,
}

pub(crate) enum Admission {
    Append,
    /// The batch's offset, its number of records, and the time in the answer.
    Duplicate(i64, usize, i64),
    Refuse(i16),
}

/// A replica's memory of the producers that wrote to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Producers(BTreeMap<i64, Producer>);

impl Producers {
    pub(crate) fn get(&self, id: i64) -> Option<&Producer> {
        self.0.get(&id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Decides whether a batch is appended. The check for duplicates precedes epoch and sequence.
    pub(crate) fn admit(&self, entry: &LogEntry, never_written: bool, rules: SequenceRules) -> Admission {
        let Some(known) = self.0.get(&entry.producer_id) else {
            let refused = entry.first != 0 && (rules.first_must_be_zero && never_written);
            return match refused {
                true => Admission::Refuse(45),
                false if rules.old_codes && entry.first != 0 && !never_written => Admission::Refuse(59),
                false => Admission::Append,
            };
        };
        if entry.epoch == known.epoch {
            let found = known.batches.iter().find(|b| b.first == entry.first && b.last == entry.last);
            if let Some(found) = found {
                return Admission::Duplicate(found.base_offset, entry.records.len(), found.timestamp);
            }
        }
        if entry.epoch < known.epoch {
            return Admission::Refuse(47);
        }
        let expected = if entry.epoch == known.epoch { next_sequence(known.last_sequence) } else { 0 };
        if entry.first == expected {
            return Admission::Append;
        }
        let behind = known.last_sequence.wrapping_sub(entry.last) & i32::MAX;
        let old = entry.epoch == known.epoch && behind < 1 << 30;
        Admission::Refuse(if old && rules.old_codes { 46 } else { 45 })
    }

    pub(crate) fn learn(&mut self, entry: &LogEntry) {
        let known = self.0.entry(entry.producer_id).or_insert_with(|| Producer {
            epoch: entry.epoch,
            last_sequence: 0,
            last_timestamp: 0,
            is_old: false,
            batches: VecDeque::new(),
        });
        if known.epoch != entry.epoch {
            known.epoch = entry.epoch;
            known.batches.clear();
        }
        if known.batches.len() == 5 {
            known.batches.pop_front();
        }
        known.last_sequence = entry.last;
        known.last_timestamp = entry.max_timestamp;
        known.is_old = entry.is_old;
        let LogEntry { first, last, base_offset, max_timestamp: timestamp, .. } = *entry;
        known.batches.push_back(RememberedBatch { first, last, base_offset, timestamp });
    }

    /// Returns the state after loading a snapshot of the first `snapshot` batches and reading the rest of the log.
    pub(crate) fn rebuild(log: &[LogEntry], snapshot: usize) -> Self {
        let mut producers = Self::default();
        for (index, entry) in log.iter().enumerate() {
            if index == snapshot {
                producers.keep_last_batches();
            }
            producers.learn(entry);
        }
        if snapshot >= log.len() {
            producers.keep_last_batches();
        }
        producers
    }

    fn keep_last_batches(&mut self) {
        for producer in self.0.values_mut() {
            producer.batches.drain(..producer.batches.len().saturating_sub(1));
        }
    }

    /// Forgets the producers whose last batch is not newer than `oldest`. Returns whether one of those batches had an
    /// old timestamp already at its append.
    pub(crate) fn expire(&mut self, oldest: i64) -> bool {
        let before = self.0.len();
        let aged = self.0.values().any(|p| p.last_timestamp <= oldest && p.is_old);
        self.0.retain(|_, producer| producer.last_timestamp > oldest);
        aged && self.0.len() < before
    }
}

/// Returns the next sequence number.
pub(crate) fn next_sequence(sequence: i32) -> i32 {
    if sequence == i32::MAX { 0 } else { sequence + 1 }
}
