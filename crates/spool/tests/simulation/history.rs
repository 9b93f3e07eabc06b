//! The committed rounds, and a comparison with the state that an opening reads.
//!
//! Rules:
//!  - Every record of a committed round is there, with its bytes, unless it is settled, or damaged and named.
//!  - A round that was under way at a crash is there whole, or not at all.
//!  - Nothing else is there.
//!  - The key of a record is there if and only if the record was accepted and is not lost, until the key's time is over.

use std::collections::{BTreeMap, BTreeSet};

use kafka_courier_batcher::Stamp;

use kafka_courier_spool::core::entry::{Entry, JournalBatch, Ordinal, Partition};
use kafka_courier_spool::core::ids::Life;
use kafka_courier_spool::core::keys::Keys;
use kafka_courier_spool::core::recover::Recovered;
use kafka_courier_spool::core::stamps::stamp_at;
use kafka_courier_spool::core::table::{PartitionTable, Table};

use crate::rounds::{check_items, forget_before, keyed, time};

/// An opening: the state of the files, and the batches that the journal reads.
pub(crate) struct Opened {
    pub(crate) recovered: Recovered,
    pub(crate) batches: Vec<JournalBatch>,
}

/// The notes of the batch that begins at an ordinal. Some are empty.
pub(crate) fn notes(first: Ordinal) -> Vec<u8> {
    vec![7; (first.0 % 5) as usize]
}

/// The frames that an opening names as damaged.
pub(crate) fn damaged_frames(recovered: &Recovered) -> impl Iterator<Item = u64> {
    recovered.damage.iter().flat_map(|damage| damage.first.0..=damage.last.0)
}

/// Computes stamps from all begins and moves of a spool, one record at a time.
#[derive(Clone, Debug, Default)]
pub(crate) struct StampModel {
    begins: Vec<(Partition, Ordinal)>,
    moves: Vec<MadeMove>,
}

impl StampModel {
    fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Begin { partition, from, .. } => self.begins.push((*partition, *from)),
            Entry::Move { partition, from, stamp, skips } => {
                self.moves.retain(|(of, other, ..)| of != partition || other < from);
                self.moves.push((*partition, *from, *stamp, skips.clone()));
            }
            _ => {}
        }
    }

    fn stamp(&self, (partition, ordinal): (Partition, Ordinal)) -> Option<Stamp> {
        let is_before = |of: &Partition, from: &Ordinal| *of == partition && *from <= ordinal;
        let (_, from, stamp, skips) = self.moves.iter().rfind(|(of, from, ..)| is_before(of, from))?;
        let is_skipped = |at: Ordinal| skips.iter().any(|(first, end)| *first <= at && at < *end);
        if is_skipped(ordinal) || self.begins.iter().any(|(of, begin)| is_before(of, begin) && begin > from) {
            return None;
        }
        let passed = (from.0..ordinal.0).filter(|at| !is_skipped(Ordinal(*at))).count();
        Some(stamp.advance(passed as u32))
    }
}

/// A move: its partition, its first record, the stamp there, and the ranges of records without a number.
type MadeMove = (Partition, Ordinal, Stamp, Vec<(Ordinal, Ordinal)>);

#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// The table of all committed rounds.
    pub(crate) table: Table,
    /// Each committed record: the byte that its batch repeats.
    pub(crate) records: BTreeMap<(Partition, Ordinal), u8>,
    /// Damaged frames that an opening named. They are named again until their segment is retired.
    pub(crate) damaged: BTreeSet<u64>,
    /// Whether an opening named damage.
    pub(crate) is_damaged: bool,
    /// Every begin and every move that counts, whatever is settled.
    pub(crate) stamps: StampModel,
    /// The life that accepted each record.
    pub(crate) lives: BTreeMap<(Partition, Ordinal), Life>,
    /// The records whose keys count, with the time of each.
    pub(crate) keys: BTreeMap<(Partition, Ordinal), u64>,
}

/// Returns whether an entry may change the stamp of a record that has one.
fn changes_stamp(entry: &Entry, (of, ordinal): (Partition, Ordinal)) -> bool {
    match entry {
        Entry::Move { partition, from, .. } => *partition == of && *from <= ordinal,
        _ => false,
    }
}

/// One damaged frame loses records alone.
fn without_lost(table: &Table) -> Table {
    let mut table = table.clone();
    let empty = PartitionTable::default().lost;
    table.partitions.values_mut().for_each(|state| state.lost = empty.clone());
    table.keys = Keys::default();
    table
}

/// Returns the byte that a batch repeats.
fn whole(batch: &JournalBatch) -> Result<u8, String> {
    let (head, byte) = (&batch.head, batch.bytes[0]);
    if batch.bytes.len() != head.count as usize * 40 || batch.bytes.iter().any(|other| *other != byte) {
        return Err(format!("other bytes than written: {batch:?}"));
    }
    if *head.notes != *notes(head.first) {
        return Err(format!("other notes than written: {head:?}"));
    }
    Ok(byte)
}

impl History {
    /// Compares a batch that the journal read with the records that were committed.
    pub(crate) fn check_batch(&self, batch: &JournalBatch) -> Result<(), String> {
        let byte = whole(batch)?;
        let settled = self.table.partitions.get(&batch.head.partition).map(|state| state.settled).unwrap_or_default();
        for n in 0..u64::from(batch.head.count) {
            let key = (batch.head.partition, batch.head.first.plus(n));
            let is_known = self.records.contains_key(&key) || !self.is_needless(&key);
            if key.1 >= settled && is_known && self.records.get(&key) != Some(&byte) {
                return Err(format!("{key:?} is read as {byte}, and was {:?}", self.records.get(&key)));
            }
        }
        Ok(())
    }

    /// Returns whether a record may be there or not: a batch of dead letters alone is not named as lost where its file can't be
    /// read, and is there again later.
    fn is_needless(&self, (partition, ordinal): &(Partition, Ordinal)) -> bool {
        let state = self.table.partitions.get(partition);
        self.is_damaged && state.is_some_and(|state| state.done.contains(*ordinal))
    }

    /// Takes in a committed round.
    pub(crate) fn apply(&mut self, entries: &[Entry]) -> Result<(), String> {
        let before = self.stamps();
        self.apply_entries(entries);
        let after = self.stamps();
        let expected = |key: &(Partition, Ordinal)| self.stamps.stamp(*key);
        if let Some(key) = self.records.keys().find(|key| after.get(key).copied() != expected(key)) {
            return Err(format!("{key:?} must have {:?}, and has {:?}", expected(key), after.get(key)));
        }
        // The producer id of life n is 4000 + n. Only the life that got an id extends its numbers.
        if let Some((key, stamp)) =
            after.iter().find(|(key, stamp)| stamp.producer_id < 4000 + self.lives[key].0 as i64)
        {
            return Err(format!("{key:?} of {:?} extends the numbers of an earlier life: {stamp:?}", self.lives[key]));
        }
        for (key, stamp) in &before {
            let is_changed = entries.iter().any(|entry| changes_stamp(entry, *key));
            if self.records.contains_key(key) && after.get(key) != Some(stamp) && !is_changed {
                return Err(format!("{key:?} had {stamp:?}, and has {:?}", after.get(key)));
            }
        }
        Ok(())
    }

    /// The stamps of all unsettled records that have one.
    fn stamps(&self) -> BTreeMap<(Partition, Ordinal), Stamp> {
        let stamp = |key: &(Partition, Ordinal)| Some((*key, stamp_at(self.table.partitions.get(&key.0)?, key.1)?));
        self.records.keys().filter_map(stamp).collect()
    }

    pub(crate) fn apply_entries(&mut self, entries: &[Entry]) {
        for entry in entries {
            if let Entry::Batch(batch) = entry {
                let at_ms = time(&self.table);
                self.keys.retain(|_, at| *at >= forget_before(at_ms));
                self.keys.extend(keyed(&batch.head).map(|ordinal| ((batch.head.partition, ordinal), at_ms)));
            }
            self.table.apply(entry);
            self.stamps.apply(entry);
            match entry {
                Entry::Batch(batch) => {
                    for n in 0..u64::from(batch.head.count) {
                        let key = (batch.head.partition, batch.head.first.plus(n));
                        self.records.insert(key, batch.bytes[0]);
                        self.lives.insert(key, batch.head.life);
                    }
                }
                Entry::Mark { partition, settled, .. } => {
                    self.records.retain(|(of, ordinal), _| of != partition || ordinal >= settled);
                }
                _ => {}
            }
        }
    }

    /// Returns the records whose keys an opening must have: those that it has lost have none.
    pub(crate) fn keys_without_lost(&self, table: &Table) -> BTreeMap<(Partition, Ordinal), u64> {
        let is_lost = |(of, ordinal): &(Partition, Ordinal)| {
            table.partitions.get(of).is_some_and(|state| state.lost.contains(*ordinal))
        };
        self.keys.iter().filter(|(key, _)| !is_lost(key)).map(|(key, at)| (*key, *at)).collect()
    }

    /// Compares the keys with the records that were accepted.
    fn check_keys(&self, table: &Table) -> Result<(), String> {
        let found: BTreeMap<_, _> = table.keys.iter().map(|key| ((key.partition, key.ordinal), key.at_ms)).collect();
        let expected = self.keys_without_lost(table);
        if found != expected {
            let missing: Vec<_> = expected.iter().filter(|(key, _)| !found.contains_key(*key)).collect();
            let more: Vec<_> = found.iter().filter(|(key, _)| !expected.contains_key(*key)).collect();
            return Err(format!("missing keys of {missing:?}, more keys of {more:?}"));
        }
        Ok(())
    }

    /// The records that the files hold.
    fn held(opened: &Opened) -> Result<BTreeMap<(Partition, Ordinal), u8>, String> {
        let mut held = BTreeMap::new();
        for batch in &opened.batches {
            let (head, byte) = (&batch.head, whole(batch)?);
            let settled = opened.recovered.table.partitions[&head.partition].settled;
            for n in 0..u64::from(head.count) {
                let ordinal = head.first.plus(n);
                if ordinal >= settled && held.insert((head.partition, ordinal), byte).is_some() {
                    return Err(format!("record {ordinal:?} of {:?} is there twice", head.partition));
                }
            }
        }
        Ok(held)
    }

    /// Compares an opening without damage.
    pub(crate) fn compare(&self, opened: &Opened) -> Result<(), String> {
        let recovered = &opened.recovered;
        check_items(&recovered.table)?;
        self.check_keys(&recovered.table)?;
        if damaged_frames(recovered).any(|frame| !self.damaged.contains(&frame)) {
            return Err(format!("damage where there is none: {:?}", recovered.damage));
        }
        if recovered.table != self.table {
            return Err(format!("another table\n{:?}\n{:?}", recovered.table, self.table));
        }
        let mut held = Self::held(opened)?;
        if self.is_damaged {
            held.retain(|key, _| self.records.contains_key(key) || !self.is_needless(key));
        }
        if held != self.records {
            let missing: Vec<_> = self.records.keys().filter(|key| !held.contains_key(key)).collect();
            let more: Vec<_> = held.keys().filter(|key| !self.records.contains_key(key)).collect();
            return Err(format!("missing {missing:?}, more {more:?}"));
        }
        Ok(())
    }

    /// Compares an opening with damage: missing records are named, and all others are right.
    pub(crate) fn compare_damaged(&self, opened: &Opened) -> Result<(), String> {
        let recovered = &opened.recovered;
        check_items(&recovered.table)?;
        self.check_keys(&recovered.table)?;
        let held = Self::held(opened)?;
        let lost = recovered.lost().flat_map(|(of, first, end)| (first.0..end.0).map(move |at| (of, Ordinal(at))));
        for key in lost {
            let is_known = self.table.partitions.get(&key.0).is_some_and(|state| state.lost.contains(key.1));
            if !is_known && (held.contains_key(&key) || !self.records.contains_key(&key)) {
                return Err(format!("{key:?} is named as lost, and is not"));
            }
            if !is_known && recovered.damage.is_empty() && recovered.unreadable.is_empty() && self.damaged.is_empty() {
                return Err(format!("{key:?} is lost without damage"));
            }
        }
        for (key, stamp) in self.stamps().iter().filter(|(key, _)| held.contains_key(*key)) {
            let state = &recovered.table.partitions[&key.0];
            if stamp_at(state, key.1) != Some(*stamp) {
                return Err(format!("{key:?} had {stamp:?} before the damage, and has {:?}", stamp_at(state, key.1)));
            }
        }
        if without_lost(&recovered.table) != without_lost(&self.table) {
            return Err(format!("another table after damage\n{:?}\n{:?}", recovered.table, self.table));
        }
        for (key, byte) in &held {
            let settled = self.table.partitions.get(&key.0).map(|state| state.settled).unwrap_or_default();
            match self.records.get(key) {
                Some(known) if known == byte => {}
                None if key.1 < settled || self.is_needless(key) => {}
                other => return Err(format!("{key:?} is {byte}, and was {other:?}")),
            }
        }
        for key in self.records.keys().filter(|key| !held.contains_key(key)) {
            let state = recovered.table.partitions.get(&key.0);
            // A dead letter is kept elsewhere.
            if !state.is_some_and(|state| state.is_out(key.1)) {
                return Err(format!("{key:?} is missing, and not named as lost: {state:?} {:?}", recovered.damage));
            }
        }
        Ok(())
    }
}
