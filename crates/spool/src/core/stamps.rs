//! The stamps of records.
//!
//! Rules:
//!  - The stamp follows from the durable table alone, so that every process that reads the journal computes the same one.
//!  - A life's records have its producer id, from sequence 0 of the epoch that the cluster gave. Numbers count the records
//!    that are sent.
//!  - A move gives the records from an ordinal on another stamp. It holds up to the next move or the next life's records.
//!  - A life may have moved earlier records to its id before its own began. Its numbers then continue, and are never used
//!    twice: a record has no stamp if its number is uncertain.

use std::collections::BTreeMap;

use kafka_courier_batcher::{Stamp, sequence_add};

use super::entry::Ordinal;
use super::segment::Life;
use super::table::{Binding, PartitionTable};

/// Returns the stamp of a record, or `None` where it has none: it is not sent, its life has no producer id yet, or its
/// number is uncertain.
///
/// The record itself need not be accepted yet.
#[must_use]
pub fn stamp_of(state: &PartitionTable, bindings: &BTreeMap<Life, Binding>, ordinal: Ordinal) -> Option<Stamp> {
    if state.is_out(ordinal) { None } else { stamp_at(state, bindings, ordinal) }
}

/// Returns the stamp that the next sent record from `ordinal` on has.
pub(super) fn stamp_at(state: &PartitionTable, bindings: &BTreeMap<Life, Binding>, ordinal: Ordinal) -> Option<Stamp> {
    let moved = state.moves.range(..=ordinal).next_back();
    let begun = state.begins.range(..=ordinal).next_back();
    let (from, first) = match (moved, begun) {
        (Some((at, stamp)), Some((begin, _))) if at >= begin => (*at, *stamp),
        (_, Some((begin, life))) => (*begin, first_of_life(state, bindings, *begin, *life)?),
        (Some((at, stamp)), None) => (*at, *stamp),
        (None, None) => return None,
    };
    let passed = state.count_sent(from, ordinal);
    // Sequence numbers have 31 bits, and so has any remainder.
    let passed = u32::try_from(passed % (1 << 31)).ok()?;
    Some(Stamp { base_sequence: sequence_add(first.base_sequence, passed), ..first })
}

/// Returns the stamp of a life's first record in a partition.
fn first_of_life(
    state: &PartitionTable,
    bindings: &BTreeMap<Life, Binding>,
    begin: Ordinal,
    life: Life,
) -> Option<Stamp> {
    let Binding { producer_id, epoch } = *bindings.get(&life)?;
    let earlier = begin.0.checked_sub(1).map(Ordinal);
    let is_used = state.moves.range(..begin).any(|(_, stamp)| stamp.producer_id == producer_id);
    if !is_used {
        return Some(Stamp { producer_id, epoch, base_sequence: 0 });
    }
    let last = stamp_at(state, bindings, earlier?)?;
    let passed = u32::from(!state.is_out(earlier?));
    (last.producer_id == producer_id).then(|| Stamp { base_sequence: sequence_add(last.base_sequence, passed), ..last })
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Entry, OutReason, Partition, Piece};
    use super::super::table::Table;
    use super::*;

    const PARTITION: Partition = Partition { topic: super::super::entry::TopicNumber(0), index: 0 };

    fn piece(life: u64, first: u64, count: u32) -> Entry {
        let (life, first) = (Life(life), Ordinal(first));
        Entry::Piece(Piece { partition: PARTITION, life, first, count, base_timestamp: 0, records: [].into() })
    }

    fn begin(life: u64, from: u64) -> Entry {
        Entry::Begin { partition: PARTITION, life: Life(life), from: Ordinal(from) }
    }

    fn bind(life: u64, producer_id: i64) -> Entry {
        Entry::Bind { life: Life(life), producer_id, epoch: 0 }
    }

    fn mark(settled: u64) -> Entry {
        Entry::Mark { partition: PARTITION, settled: Ordinal(settled), end_offset: -1 }
    }

    fn moved(from: u64, producer_id: i64, epoch: i16, base_sequence: i32) -> Entry {
        let stamp = Stamp { producer_id, epoch, base_sequence };
        Entry::Move { partition: PARTITION, from: Ordinal(from), stamp }
    }

    fn table(entries: &[Entry]) -> Table {
        let mut table = Table::default();
        entries.iter().for_each(|entry| table.apply(entry));
        table
    }

    /// The stamp as (id, epoch, sequence).
    fn stamp(table: &Table, ordinal: u64) -> Option<(i64, i16, i32)> {
        let stamp = stamp_of(&table.partitions[&PARTITION], &table.bindings, Ordinal(ordinal))?;
        Some((stamp.producer_id, stamp.epoch, stamp.base_sequence))
    }

    #[test]
    fn each_life_counts_from_zero() {
        let table = table(&[bind(1, 10), begin(1, 0), piece(1, 0, 5), bind(2, 20), begin(2, 5), piece(2, 5, 5)]);
        assert_eq!(stamp(&table, 4), Some((10, 0, 4)));
        assert_eq!(stamp(&table, 5), Some((20, 0, 0)));
        assert_eq!(stamp(&table, 9), Some((20, 0, 4)));
    }

    #[test]
    fn an_unbound_life_has_no_stamp() {
        let table = table(&[bind(1, 10), begin(1, 0), piece(1, 0, 5), begin(2, 5), piece(2, 5, 5)]);
        assert_eq!(stamp(&table, 4), Some((10, 0, 4)));
        assert_eq!(stamp(&table, 5), None);
    }

    #[test]
    fn unsent_records_take_no_number() {
        let out = Entry::Out { partition: PARTITION, first: Ordinal(3), end: Ordinal(5), why: OutReason::DeadLetter };
        let table = table(&[bind(1, 10), begin(1, 0), piece(1, 0, 9), out]);
        assert_eq!(stamp(&table, 3), None);
        assert_eq!(stamp(&table, 5), Some((10, 0, 3)));
    }

    #[test]
    fn a_mark_keeps_later_stamps() {
        let out = Entry::Out { partition: PARTITION, first: Ordinal(3), end: Ordinal(5), why: OutReason::DeadLetter };
        let mut table = table(&[bind(1, 10), begin(1, 0), piece(1, 0, 9), out, moved(6, 10, 1, 0)]);
        let before: Vec<_> = (0..12).map(|ordinal| stamp(&table, ordinal)).collect();
        for settled in 1..9 {
            table.apply(&mark(settled));
            for ordinal in settled..12 {
                assert_eq!(stamp(&table, ordinal), before[ordinal as usize], "{ordinal} after a mark at {settled}");
            }
        }
    }

    #[test]
    fn a_moved_id_continues() {
        let mut table =
            table(&[bind(1, 10), begin(1, 0), piece(1, 0, 5), bind(2, 20), moved(3, 20, 0, 0), begin(2, 5)]);
        assert_eq!(stamp(&table, 4), Some((20, 0, 1)));
        assert_eq!(stamp(&table, 5), Some((20, 0, 2)));
        table.apply(&piece(2, 5, 2));
        table.apply(&mark(4));
        assert_eq!(stamp(&table, 6), Some((20, 0, 3)));
        table.apply(&mark(6));
        assert_eq!(stamp(&table, 7), Some((20, 0, 4)));
    }

    #[test]
    fn no_number_is_used_twice() {
        // Life 3 moved a record of life 1 to its id, and life 2's records lie between it and its own.
        let entries = [bind(1, 10), begin(1, 0), piece(1, 0, 1), bind(2, 20), begin(2, 1), piece(2, 1, 1), bind(3, 30)];
        let mut table = table(&entries);
        table.apply(&moved(0, 30, 0, 0));
        table.apply(&mark(1));
        table.apply(&mark(2));
        table.apply(&begin(3, 2));
        assert_eq!(stamp(&table, 2), None, "the id's number 0 is used");
        table.apply(&moved(2, 30, 0, 1));
        assert_eq!(stamp(&table, 2), Some((30, 0, 1)));
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let table = table(&[bind(1, 10), begin(1, 0), moved(0, 10, 0, i32::MAX - 1), piece(1, 0, 4)]);
        assert_eq!(stamp(&table, 1), Some((10, 0, i32::MAX)));
        assert_eq!(stamp(&table, 2), Some((10, 0, 0)));
    }
}
