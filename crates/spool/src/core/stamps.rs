//! The stamps of records.
//!
//! Rules:
//!  - The stamp follows from the durable table alone, so that every process that reads the journal computes the same one.
//!  - A move gives the records from an ordinal on a stamp. Numbers count the records that are no dead letters.
//!  - A move holds up to the next move, and for records of one life. A life's first records in a partition have no stamp
//!    before the life's own move. A life that repeats the records of an earlier one therefore never extends its numbers.

use kafka_courier_batcher::Stamp;

use super::entry::Ordinal;
use super::table::PartitionTable;

/// Returns the stamp of a record, or `None` where it has none: it is not sent, or no move gives it one.
///
/// The record itself need not be accepted yet.
#[must_use]
pub fn stamp_of(state: &PartitionTable, ordinal: Ordinal) -> Option<Stamp> {
    if state.is_out(ordinal) { None } else { state.stamp_at(ordinal) }
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Entry, OutReason, Partition, Piece, TopicNumber};
    use super::super::ids::Life;
    use super::super::table::Table;
    use super::*;

    const PARTITION: Partition = Partition { topic: TopicNumber(0), index: 0 };

    fn piece(life: u64, first: u64, count: u32) -> Entry {
        let (life, first) = (Life(life), Ordinal(first));
        Entry::Piece(Piece { partition: PARTITION, life, first, count, base_timestamp: 0, records: [].into() })
    }

    fn begin(life: u64, from: u64) -> Entry {
        Entry::Begin { partition: PARTITION, life: Life(life), from: Ordinal(from) }
    }

    fn mark(settled: u64) -> Entry {
        Entry::Mark { partition: PARTITION, settled: Ordinal(settled), end_offset: -1 }
    }

    fn moved(from: u64, producer_id: i64, epoch: i16, base_sequence: i32) -> Entry {
        let stamp = Stamp { producer_id, epoch, base_sequence };
        Entry::Move { partition: PARTITION, from: Ordinal(from), stamp }
    }

    fn out(first: u64, end: u64, why: OutReason) -> Entry {
        Entry::Out { partition: PARTITION, first: Ordinal(first), end: Ordinal(end), why }
    }

    fn table(entries: &[Entry]) -> Table {
        let mut table = Table::default();
        entries.iter().for_each(|entry| table.apply(entry));
        table
    }

    /// The stamp as (id, epoch, sequence).
    fn stamp(table: &Table, ordinal: u64) -> Option<(i64, i16, i32)> {
        let stamp = stamp_of(&table.partitions[&PARTITION], Ordinal(ordinal))?;
        Some((stamp.producer_id, stamp.epoch, stamp.base_sequence))
    }

    #[test]
    fn each_life_needs_its_move() {
        let mut table = table(&[begin(1, 0), moved(0, 10, 0, 0), piece(1, 0, 5), begin(2, 5), piece(2, 5, 5)]);
        assert_eq!(stamp(&table, 4), Some((10, 0, 4)));
        assert_eq!(stamp(&table, 5), None, "the next life's record never takes the former one's number");
        table.apply(&moved(5, 20, 0, 0));
        assert_eq!(stamp(&table, 9), Some((20, 0, 4)));
    }

    #[test]
    fn dead_letters_take_no_number() {
        let table = table(&[begin(1, 0), moved(0, 10, 0, 0), piece(1, 0, 9), out(3, 5, OutReason::DeadLetter)]);
        assert_eq!(stamp(&table, 3), None);
        assert_eq!(stamp(&table, 5), Some((10, 0, 3)));
    }

    #[test]
    fn lost_records_keep_their_numbers() {
        let mut table = table(&[begin(1, 0), moved(0, 10, 0, 0), piece(1, 0, 9), out(3, 5, OutReason::Lost)]);
        assert_eq!((stamp(&table, 3), stamp(&table, 5)), (None, Some((10, 0, 5))));
        table.apply(&out(2, 5, OutReason::DeadLetter));
        assert_eq!(stamp(&table, 5), Some((10, 0, 4)), "one dead letter was not lost");
    }

    #[test]
    fn marks_keep_later_stamps() {
        let dead_letters = out(3, 5, OutReason::DeadLetter);
        let mut table = table(&[begin(1, 0), moved(0, 10, 0, 0), piece(1, 0, 9), dead_letters, moved(6, 10, 1, 0)]);
        let before: Vec<_> = (0..12).map(|ordinal| stamp(&table, ordinal)).collect();
        for settled in 1..9 {
            table.apply(&mark(settled));
            for ordinal in settled..12 {
                assert_eq!(stamp(&table, ordinal), before[ordinal as usize], "{ordinal} after a mark at {settled}");
            }
        }
    }

    #[test]
    fn a_life_begins_at_a_mark() {
        let mut table = table(&[begin(1, 0), moved(0, 10, 0, 0), piece(1, 0, 5), mark(5)]);
        assert_eq!(stamp(&table, 5), Some((10, 0, 5)));
        table.apply(&begin(2, 5));
        assert_eq!(stamp(&table, 5), None);
        table.apply(&moved(5, 20, 0, 0));
        table.apply(&begin(2, 5));
        assert_eq!(stamp(&table, 5), Some((20, 0, 0)), "a repeated entry changes nothing");
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let table = table(&[begin(1, 0), moved(0, 10, 0, i32::MAX - 1), piece(1, 0, 4)]);
        assert_eq!(stamp(&table, 1), Some((10, 0, i32::MAX)));
        assert_eq!(stamp(&table, 2), Some((10, 0, 0)));
    }
}
