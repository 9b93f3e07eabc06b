//! The committed rounds, and a comparison with the state that an opening reads.
//!
//! Rules:
//!  - Every record of a committed round is there, with its bytes, unless it is settled, or damaged and named.
//!  - A round that was under way at a crash is there whole, or not at all.
//!  - Nothing else is there.

use std::collections::BTreeMap;

use kafka_courier_batcher::Stamp;

use kafka_courier_spool::core::entry::{Entry, Ordinal, Partition};
use kafka_courier_spool::core::ids::Life;
use kafka_courier_spool::core::recover::Recovered;
use kafka_courier_spool::core::stamps::stamp_of;
use kafka_courier_spool::core::table::{PartitionTable, Table};

#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// The table of all committed rounds.
    pub(crate) table: Table,
    /// Each committed record: the byte that its piece repeats.
    pub(crate) records: BTreeMap<(Partition, Ordinal), u8>,
    /// The life that accepted each record.
    pub(crate) lives: BTreeMap<(Partition, Ordinal), Life>,
}

/// Returns whether an entry may change the stamp of a record that has one.
fn changes_stamp(entry: &Entry, (of, ordinal): (Partition, Ordinal)) -> bool {
    match entry {
        Entry::Move { partition, from, .. } => *partition == of && *from <= ordinal,
        Entry::Out { partition, first, .. } => *partition == of && *first <= ordinal,
        _ => false,
    }
}

/// One damaged frame loses records alone.
fn without_lost(table: &Table) -> Table {
    let mut table = table.clone();
    let empty = PartitionTable::default().lost;
    table.partitions.values_mut().for_each(|state| state.lost = empty.clone());
    table
}

impl History {
    /// Takes in a committed round.
    pub(crate) fn apply(&mut self, entries: &[Entry]) -> Result<(), String> {
        let before = self.stamps();
        self.apply_entries(entries);
        let after = self.stamps();
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
        let stamp = |key: &(Partition, Ordinal)| Some((*key, stamp_of(self.table.partitions.get(&key.0)?, key.1)?));
        self.records.keys().filter_map(stamp).collect()
    }

    fn apply_entries(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.table.apply(entry);
            match entry {
                Entry::Piece(piece) => {
                    for n in 0..u64::from(piece.count) {
                        self.records.insert((piece.partition, piece.first.plus(n)), piece.records[0]);
                        self.lives.insert((piece.partition, piece.first.plus(n)), piece.life);
                    }
                }
                Entry::Mark { partition, settled, .. } => {
                    self.records.retain(|(of, ordinal), _| of != partition || ordinal >= settled);
                }
                _ => {}
            }
        }
    }

    /// The records that the files hold.
    fn held(recovered: &Recovered) -> Result<BTreeMap<(Partition, Ordinal), u8>, String> {
        let mut held = BTreeMap::new();
        for piece in recovered.pieces.values() {
            let byte = piece.records[0];
            if piece.records.len() != piece.count as usize * 40 || piece.records.iter().any(|other| *other != byte) {
                return Err(format!("other bytes than written: {piece:?}"));
            }
            let settled = recovered.table.partitions[&piece.partition].settled;
            for n in 0..u64::from(piece.count) {
                let ordinal = piece.first.plus(n);
                if ordinal >= settled && held.insert((piece.partition, ordinal), byte).is_some() {
                    return Err(format!("record {ordinal:?} of {:?} is there twice", piece.partition));
                }
            }
        }
        Ok(held)
    }

    /// Compares an opening without damage.
    pub(crate) fn compare(&self, recovered: &Recovered) -> Result<(), String> {
        if !recovered.damage.is_empty() {
            return Err(format!("damage where there is none: {:?}", recovered.damage));
        }
        if recovered.table != self.table {
            return Err(format!("another table\n{:?}\n{:?}", recovered.table, self.table));
        }
        let held = Self::held(recovered)?;
        if held != self.records {
            let missing: Vec<_> = self.records.keys().filter(|key| !held.contains_key(key)).collect();
            let more: Vec<_> = held.keys().filter(|key| !self.records.contains_key(key)).collect();
            return Err(format!("missing {missing:?}, more {more:?}"));
        }
        Ok(())
    }

    /// Compares an opening with damage: missing records are named, and all others are right.
    pub(crate) fn compare_damaged(&self, recovered: &Recovered) -> Result<(), String> {
        let held = Self::held(recovered)?;
        let lost = recovered.lost().flat_map(|(of, first, end)| (first.0..end.0).map(move |at| (of, Ordinal(at))));
        for key in lost {
            let is_known = self.table.partitions.get(&key.0).is_some_and(|state| state.lost.contains(key.1));
            if !is_known && (held.contains_key(&key) || !self.records.contains_key(&key)) {
                return Err(format!("{key:?} is named as lost, and is not"));
            }
            if !is_known && recovered.damage.is_empty() {
                return Err(format!("{key:?} is lost without damage"));
            }
        }
        for (key, stamp) in self.stamps().iter().filter(|(key, _)| held.contains_key(*key)) {
            let state = &recovered.table.partitions[&key.0];
            if stamp_of(state, key.1) != Some(*stamp) {
                return Err(format!("{key:?} had {stamp:?} before the damage, and has {:?}", stamp_of(state, key.1)));
            }
        }
        if without_lost(&recovered.table) != without_lost(&self.table) {
            return Err(format!("another table after damage\n{:?}\n{:?}", recovered.table, self.table));
        }
        for (key, byte) in &held {
            let settled = self.table.partitions.get(&key.0).map(|state| state.settled).unwrap_or_default();
            match self.records.get(key) {
                Some(known) if known == byte => {}
                None if key.1 < settled => {} // its mark is damaged
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
