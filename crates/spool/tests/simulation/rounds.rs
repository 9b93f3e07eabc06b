//! The entries of rounds.
//!
//! Rule: each partition has an input, and each record is an item of it. The first and the last record of a batch have keys of
//! requests. The items and the keys of a batch are in its round.

use kafka_courier_batcher::Stamp;
use kafka_courier_spool::core::entry::{
    BatchHead, Entry, JournalBatch, Ordinal, OutReason, Partition, Topic, TopicNumber,
};
use kafka_courier_spool::core::ids::Life;
use kafka_courier_spool::core::inputs::{InputNumber, ItemSet};
use kafka_courier_spool::core::keys::RecordKey;
use kafka_courier_spool::core::ranges::OrdinalSet;
use kafka_courier_spool::core::table::Table;

use crate::history::notes;
use crate::rng::Rng;

const PARTITIONS: usize = 3;

/// The partitions in which a life has begun.
pub(crate) type Begun = [bool; PARTITIONS];

/// The entries of one round of a life.
pub(crate) fn round(rng: &mut Rng, table: &Table, life: Life, begun: &mut Begun, settles: bool) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut table = table.clone();
    for _ in 0..1 + rng.index(4) {
        let before = entries.len();
        if let Some(entry) = entry(rng, &table, life, begun, &mut entries) {
            entries.push(entry);
        }
        if !settles && matches!(entries.last(), Some(Entry::Mark { .. })) {
            entries.pop();
        }
        entries.iter().skip(before).for_each(|entry| table.apply(entry));
    }
    entries
}

/// The input of a partition.
fn input_of(partition: Partition) -> InputNumber {
    InputNumber(1 + partition.index as u32)
}

/// Adds the items of a batch. The items of two records are swapped, so that a batch can leave a gap.
fn push_items(entries: &mut Vec<Entry>, head: &BatchHead) {
    let input = input_of(head.partition);
    let mut items = ItemSet::default();
    (head.first.0..head.end().0).for_each(|ordinal| items.insert(Ordinal(ordinal ^ 1), ordinal));
    entries.push(Entry::Input { input, name: format!("input-{}", input.0).into() });
    entries.push(Entry::Items { input, items });
}

/// The number of records, over all partitions, for which keys are kept.
const KEYS_WINDOW: u64 = 300;

/// The time of the next request: the number of records that were accepted before.
pub(crate) fn time(table: &Table) -> u64 {
    table.partitions.values().map(|state| state.end.0).sum()
}

/// The time before which keys are forgotten.
pub(crate) fn forget_before(at_ms: u64) -> u64 {
    at_ms.saturating_sub(KEYS_WINDOW)
}

/// The records of a batch that have a key.
pub(crate) fn keyed(head: &BatchHead) -> impl Iterator<Item = Ordinal> {
    let last = Ordinal(head.end().0 - 1);
    [head.first, last].into_iter().take(head.count.min(2) as usize)
}

/// Adds the keys of a batch.
fn push_keys(entries: &mut Vec<Entry>, table: &Table, head: &BatchHead) {
    let (partition, at_ms) = (head.partition, time(table));
    let key = |ordinal: Ordinal| {
        let mut key = [partition.index as u8; 16];
        key[..8].copy_from_slice(&ordinal.0.to_le_bytes());
        RecordKey { key, payload: [7; 16], at_ms, partition, ordinal, index: 0, count: 1 }
    };
    entries.push(Entry::Keys { forget_before_ms: forget_before(at_ms), keys: keyed(head).map(key).collect() });
}

/// Compares the items of all inputs with the records that were accepted: each record's item is dealt with, and no other.
pub(crate) fn check_items(table: &Table) -> Result<(), String> {
    for (partition, state) in table.partitions.iter().filter(|(_, state)| state.end.0 > 0) {
        let end = state.end.0;
        let (even, odd) = (end - end % 2, end % 2);
        let expected = OrdinalSet::from_ranges([(Ordinal(0), Ordinal(even)), (Ordinal(end), Ordinal(end + odd))]);
        let check = (0..end).sum();
        let input = table.inputs.iter().find(|(number, _)| *number == input_of(*partition));
        let items = input.map(|(_, input)| &input.items);
        if items != Some(&ItemSet { numbers: expected, check }) {
            return Err(format!("{end} records of {partition:?}, and the items {items:?}"));
        }
    }
    Ok(())
}

/// The bytes of a round's entries.
pub(crate) fn length(entries: &[Entry]) -> u64 {
    let mut bytes = Vec::new();
    entries.iter().for_each(|entry| entry.encode(&mut bytes));
    bytes.len() as u64
}

/// The batches and marks of a round, in one line.
pub(crate) fn trace_of(entries: &[Entry]) -> String {
    let traced = |entry: &Entry| match entry {
        Entry::Batch(batch) => {
            Some(format!("{}:{}..{}", batch.head.partition.index, batch.head.first.0, batch.head.end().0))
        }
        Entry::Mark { partition, settled, .. } => Some(format!("mark {}:{}", partition.index, settled.0)),
        _ => None,
    };
    entries.iter().filter_map(traced).collect::<Vec<_>>().join(", ")
}

/// Marks that settle everything.
pub(crate) fn marks(table: &Table) -> Vec<Entry> {
    let mark = |(partition, state): (&Partition, &kafka_courier_spool::core::table::PartitionTable)| Entry::Mark {
        partition: *partition,
        settled: state.end,
        end_offset: state.end.0 as i64,
    };
    table.partitions.iter().map(mark).collect()
}

fn entry(rng: &mut Rng, table: &Table, life: Life, begun: &mut Begun, entries: &mut Vec<Entry>) -> Option<Entry> {
    let index = rng.index(PARTITIONS);
    let partition = Partition { topic: TopicNumber(1), index: index as i32 };
    let state = table.partitions.get(&partition).cloned().unwrap_or_default();
    let (settled, end) = (state.settled, state.end);
    let unsettled = end.0 - settled.0;
    match rng.range(0..100) {
        0..50 => {
            if !std::mem::replace(&mut begun[index], true) {
                entries.push(Entry::Begin { partition, life, from: end });
            }
            let most = if rng.percent(10) { 400 } else { 9 };
            let count = 1 + rng.range(0..most) as u32;
            let byte = 1 + rng.index(250) as u8;
            let head = BatchHead { partition, life, first: end, count, notes: notes(end).into() };
            push_items(entries, &head);
            push_keys(entries, table, &head);
            Some(Entry::Batch(JournalBatch { head, bytes: vec![byte; count as usize * 40].into() }))
        }
        // One partition is slow, so that its batches pin segments.
        50..70 if unsettled > 0 && (index > 0 || rng.percent(10)) => {
            let settled = Ordinal(settled.0 + 1 + rng.range(0..unsettled));
            Some(Entry::Mark { partition, settled, end_offset: settled.0 as i64 })
        }
        70..78 if unsettled > 0 => {
            let first = Ordinal(settled.0 + rng.range(0..unsettled));
            let end = Ordinal((first.0 + 1 + rng.range(0..3)).min(end.0));
            Some(Entry::Out { partition, first, end, why: OutReason::Settled })
        }
        78..92 if unsettled > 0 => {
            let (producer_id, epoch) = (4000 + life.0 as i64, rng.index(4) as i16);
            let stamp = Stamp { producer_id, epoch, base_sequence: rng.pick(&[0, 5, i32::MAX - 3]) };
            let from = Ordinal(settled.0 + rng.range(0..unsettled));
            let skipped = |rng: &mut Rng| (from.plus(rng.range(0..9)), from.plus(rng.range(0..12)));
            let skips = (0..rng.index(3)).map(|_| skipped(rng)).collect();
            Some(Entry::Move { partition, from, stamp, skips })
        }
        92..95 => {
            let name = format!("topic-{}", rng.index(5)).into();
            Some(Entry::Topic(Topic { number: TopicNumber(1), name, id: [1; 16], partitions: 3 }))
        }
        95..97 => Some(Entry::Cluster("cluster".into())),
        97..99 => Some(Entry::Leader { partition, epoch: rng.index(9) as i32 }),
        _ => None,
    }
}
