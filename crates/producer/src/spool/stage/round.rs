//! The rounds of a [`Stage`]: their entries, and the decisions that follow their end.
//!
//! Rules:
//!  - The entries of a round are in the order of their dependence: cluster, topics, batches, items, keys, dead letters, marks,
//!    leader epochs, moves.
//!  - A refused round is repeated: its facts first and alone, then its batches as soon as they have room, with their items
//!    and keys.
//!    The facts may be what had no room, and they may free it.
//!  - A round names the items of an input in one entry, so that a reader has all of them or none.

use std::collections::BTreeMap;

use kafka_courier_spool::core::encoding::RECORD_KEY_BYTES;
use kafka_courier_spool::core::entry::{BatchHead, Entry, JournalBatch, Topic};
use kafka_courier_spool::core::inputs::{InputNumber, ItemSet};
use kafka_courier_spool::core::keys::RecordKey;

use super::super::command::{BatchToken, Effect, StoredPlace};
use super::super::fault::SpoolFault;
use super::super::lane::{DurableBatch, Lane};
use super::super::log::PartitionLog;
use super::super::request_key::RequestKey;
use super::{AcceptedBatch, Stage};

/// More bytes than an entry of the journal has beside its batch, notes and entry of its partition.
const BATCH_OVERHEAD: u64 = 256;
/// Bytes of a range of items.
const RANGE_BYTES: u64 = 16;

impl<T: Clone + BatchToken> Stage<T> {
    /// Returns whether a round should start now.
    pub(crate) fn is_round_due(&self) -> bool {
        let is_waited_for = || self.changed.iter().any(|of| self.logs.get(of).is_some_and(PartitionLog::is_waited_for));
        let has_batch = !self.accepted.is_empty() && !self.is_full;
        self.write_fault.is_none() && (has_batch || is_waited_for())
    }

    /// Returns whether the journal lacks something, for which no caller waits.
    pub(crate) fn has_changes(&self) -> bool {
        let is_new = self.is_cluster_changed || self.topics.values().any(|topic| topic.is_changed);
        let has_inputs = !self.inputs.is_empty() || !self.skipped.is_empty() || self.forget_keys_before.is_some();
        self.write_fault.is_none() && (is_new || has_inputs || !self.changed.is_empty() || !self.facts.is_empty())
    }

    /// Returns the entries of the next round: one batch or more, while they have `bytes` bytes, and `room` bytes at most. The
    /// round after a refused one has the facts alone.
    /// [`committed`](Self::committed), [`refused`](Self::refused) or [`failed`](Self::failed) must follow.
    pub(crate) fn round(&mut self, bytes: u64, room: u64) -> Vec<Entry> {
        if self.write_fault.is_some() {
            return Vec::new();
        }
        // The facts of a refused round precede the later ones.
        let mut entries = std::mem::take(&mut self.facts);
        if std::mem::take(&mut self.is_cluster_changed) {
            entries.extend(self.cluster.clone().map(Entry::Cluster));
        }
        for staged in self.topics.values_mut() {
            if let (true, Some((number, id))) = (std::mem::take(&mut staged.is_changed), staged.numbers.last()) {
                let (name, partitions) = (staged.name.clone(), staged.partitions);
                entries.push(Entry::Topic(Topic { number: *number, name, id: *id, partitions }));
            }
        }
        entries.append(&mut self.inputs);
        self.written_skipped = std::mem::take(&mut self.skipped);
        let mut round_items = self.written_skipped.clone();
        let mut total =
            round_items.values().map(|items| items.numbers.iter().count() as u64 * RANGE_BYTES).sum::<u64>();
        let mut keys = RoundKeys { forget_before_ms: self.forget_keys_before.take(), keys: Vec::new() };
        self.is_full = false;
        let takes_batches = !std::mem::take(&mut self.is_facts_turn);
        while let Some(batch) = self.accepted.pop_front_if(|_| takes_batches) {
            let (items, batch_keys) = (batch.submission.token.items(), batch.submission.token.keys());
            let ranges: usize = items.iter().map(|(_, items)| items.numbers.iter().count()).sum();
            total += (batch.submission.batch.len() + self.notes.len()) as u64 + BATCH_OVERHEAD;
            total += ranges as u64 * RANGE_BYTES + (batch_keys.len() * RECORD_KEY_BYTES) as u64;
            let is_first = self.written.is_empty();
            if total > room || (total > bytes && !is_first) {
                self.is_full = is_first;
                self.accepted.push_front(batch);
                break;
            }
            self.write_batch(&batch, &mut entries);
            keys.add(batch.place, &batch_keys);
            self.written.push(batch);
            add_items(&mut round_items, &items);
        }
        entries.extend(round_items.into_iter().map(|(input, items)| Entry::Items { input, items }));
        entries.extend(keys.entry());
        for partition in std::mem::take(&mut self.changed) {
            let Some(log) = self.logs.get_mut(&partition) else { continue };
            self.requests.extend(log.write(&mut entries));
        }
        self.written_notices.append(&mut self.notices);
        self.facts = entries.iter().filter(|entry| !matches!(entry, Entry::Batch(_))).cloned().collect();
        entries
    }

    /// Returns whether batches wait for a round.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.accepted.is_empty()
    }

    /// Returns whether the next batch waits for room.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Notes that nothing of the round was written, because it does not fit. The next round repeats it.
    pub(crate) fn refused(&mut self) {
        self.is_full = true;
        self.skipped = std::mem::take(&mut self.written_skipped);
        let begun = &mut self.begun;
        self.facts.retain(|fact| match fact {
            // The begin of a life rides with the life's first batch.
            Entry::Begin { partition, .. } => {
                begun.remove(partition);
                false
            }
            // Items and keys ride with their batches.
            Entry::Items { .. } => false,
            Entry::Keys { keys, .. } => keys.is_empty(),
            _ => true,
        });
        let written = std::mem::take(&mut self.written);
        self.is_facts_turn = !written.is_empty() && (!self.facts.is_empty() || !self.skipped.is_empty());
        written.into_iter().rev().for_each(|batch| self.accepted.push_front(batch));
    }

    /// Fails the batches that wait for room, because no later round will have any.
    pub(crate) fn abandon_waiting(&mut self) {
        let waiting = std::mem::take(&mut self.accepted);
        self.effects.extend(waiting.into_iter().map(|batch| Effect::NotStored(batch.submission, SpoolFault::Full)));
        self.is_full = false;
    }

    fn write_batch(&mut self, batch: &AcceptedBatch<T>, entries: &mut Vec<Entry>) {
        let StoredPlace { partition, first } = batch.place;
        if self.begun.insert(partition) {
            entries.push(Entry::Begin { partition, life: self.life, from: first });
        }
        let encoded = &batch.submission.batch;
        let (life, count, notes) = (self.life, encoded.record_count(), self.notes.clone());
        let head = BatchHead { partition, life, first, count, notes };
        entries.push(Entry::Batch(JournalBatch { head, bytes: encoded.as_bytes().into() }));
    }

    /// Notes that the round is durable.
    pub(crate) fn committed(&mut self) {
        self.facts.clear();
        self.written_skipped.clear();
        for AcceptedBatch { partition, place, submission } in std::mem::take(&mut self.written) {
            let reserved = submission.batch.capacity();
            self.effects.push(Effect::Durable { token: submission.token.clone(), place, reserved });
            self.store(partition, DurableBatch { place, submission, inherited: None });
            self.release(partition);
        }
        self.effects.extend(std::mem::take(&mut self.written_notices).into_iter().map(Effect::Settled));
        let answered = std::mem::take(&mut self.requests);
        self.effects.extend(answered.into_iter().map(|(partition, id)| Effect::Persisted { partition, id }));
    }

    /// Notes that the round failed. Nothing more is stored.
    pub(crate) fn failed(&mut self, fault: &SpoolFault) {
        self.write_fault = Some(fault.clone());
        self.is_full = false;
        self.requests.clear();
        self.notices.clear();
        self.written_notices.clear();
        let waiting = std::mem::take(&mut self.written).into_iter().chain(std::mem::take(&mut self.accepted));
        let waiting: Vec<_> = waiting.map(|batch| batch.submission).collect();
        let early = self.lanes.values_mut().flat_map(Lane::take_early);
        let lost = waiting.into_iter().chain(early).map(|submission| Effect::NotStored(submission, fault.clone()));
        self.effects.extend(lost);
    }
}

/// The keys of a round's records.
struct RoundKeys {
    forget_before_ms: Option<u64>,
    keys: Vec<RecordKey>,
}

impl RoundKeys {
    /// Adds the keys of the batch at `place`, each with the index of its record.
    fn add(&mut self, place: StoredPlace, keys: &[(u32, RequestKey)]) {
        let before = keys.iter().map(|(_, key)| key.forget_before_ms).max();
        self.forget_before_ms = self.forget_before_ms.max(before);
        self.keys.extend(keys.iter().map(|(index, key)| key_of_record(place, *index, key)));
    }

    fn entry(self) -> Option<Entry> {
        let forget_before_ms = self.forget_before_ms?;
        Some(Entry::Keys { forget_before_ms, keys: self.keys })
    }
}

/// Returns a key with the record at `index` of the batch at `place`.
fn key_of_record(place: StoredPlace, index: u32, key: &RequestKey) -> RecordKey {
    RecordKey {
        key: key.digest,
        payload: key.payload,
        at_ms: key.at_ms,
        partition: place.partition,
        ordinal: place.ordinal(index),
        index: key.index,
        count: key.count,
    }
}

/// Adds the items of a batch to those of its round.
fn add_items(round: &mut BTreeMap<InputNumber, ItemSet>, items: &[(InputNumber, ItemSet)]) {
    items.iter().for_each(|(input, items)| round.entry(*input).or_default().merge(items));
}
