//! A replica's log and its producer state, as Apache Kafka's `ProducerStateManager` keeps it.
//!
//! Rules:
//! - Five batches of a producer are remembered; after a start or a load from a snapshot only the last.
//! - A duplicate is a batch with exactly the first and last sequence of a remembered one, of the same epoch.
//! - An unknown producer may begin anywhere (from Kafka 4.5 on a never-written partition: only at 0).
//! - A producer is forgotten when the newest record of its last batch is too old by its own timestamp: at the next check,
//!   and at a start.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// The number of a record that is not the sender's.
pub(crate) const FOREIGN: u32 = u32::MAX;

/// A batch in a log.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) base_offset: i64,
    /// Which append it was; the copies on other replicas have the same.
    pub(crate) append: u64,
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) first: i32,
    pub(crate) last: i32,
    /// The newest record's timestamp; where the topic has LogAppendTime, that of the append.
    pub(crate) max_timestamp: i64,
    pub(crate) records: Rc<[u32]>,
    /// How often unclean elections had made the partition's leader forget producers.
    pub(crate) forgets: u32,
    /// How often a producer had been forgotten on this partition because of old record times.
    pub(crate) expiries: u32,
}

impl Entry {
    pub(crate) fn end(&self) -> i64 {
        self.base_offset + self.records.len() as i64
    }
}

#[derive(Clone, Debug)]
struct Remembered {
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
    batches: VecDeque<Remembered>,
}

/// What the brokers' versions make different.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SequenceRules {
    /// Kafka 4.5: a partition that was never written takes only sequence 0 from a producer it does not know.
    pub(crate) first_must_be_zero: bool,
    /// Before Kafka 2.5: 46 for an old duplicate, 59 for an unknown producer that does not begin at 0.
    pub(crate) old_codes: bool,
}

pub(crate) enum Admission {
    Append,
    /// The batch's offset, how many records it has, and the time that the answer gives.
    Duplicate(i64, usize, i64),
    Refuse(i16),
}

/// What a replica knows of the producers that wrote to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Producers(BTreeMap<i64, Producer>);

impl Producers {
    pub(crate) fn get(&self, id: i64) -> Option<&Producer> {
        self.0.get(&id)
    }

    /// Whether a batch may be appended: the duplicate first, then epoch, then sequence.
    pub(crate) fn admit(&self, entry: &Entry, never_written: bool, rules: SequenceRules) -> Admission {
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
        let expected = if entry.epoch == known.epoch { following(known.last_sequence) } else { 0 };
        if entry.first == expected {
            return Admission::Append;
        }
        let behind = known.last_sequence.wrapping_sub(entry.last) & i32::MAX;
        let old = entry.epoch == known.epoch && behind < 1 << 30;
        Admission::Refuse(if old && rules.old_codes { 46 } else { 45 })
    }

    pub(crate) fn learn(&mut self, entry: &Entry) {
        let known = self.0.entry(entry.producer_id).or_insert_with(|| Producer {
            epoch: entry.epoch,
            last_sequence: 0,
            last_timestamp: 0,
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
        let Entry { first, last, base_offset, max_timestamp: timestamp, .. } = *entry;
        known.batches.push_back(Remembered { first, last, base_offset, timestamp });
    }

    /// As loaded from a snapshot of the first `snapshot` batches, and then from the rest of the log.
    pub(crate) fn rebuild(log: &[Entry], snapshot: usize) -> Self {
        let mut producers = Self::default();
        for (index, entry) in log.iter().enumerate() {
            if index == snapshot {
                producers.forget_all_but_the_last_batches();
            }
            producers.learn(entry);
        }
        if snapshot >= log.len() {
            producers.forget_all_but_the_last_batches();
        }
        producers
    }

    fn forget_all_but_the_last_batches(&mut self) {
        for producer in self.0.values_mut() {
            producer.batches.drain(..producer.batches.len().saturating_sub(1));
        }
    }

    /// Forgets whoever has written nothing newer than `oldest`. Returns whether the time of a batch that
    /// was old already when it was appended (before `started`) is the cause.
    pub(crate) fn expire(&mut self, oldest: i64, started: i64) -> bool {
        let before = self.0.len();
        let aged = self.0.values().any(|p| p.last_timestamp <= oldest && p.last_timestamp < started);
        self.0.retain(|_, producer| producer.last_timestamp > oldest);
        aged && self.0.len() < before
    }
}

/// The sequence number after this one.
pub(crate) fn following(sequence: i32) -> i32 {
    if sequence == i32::MAX { 0 } else { sequence + 1 }
}
