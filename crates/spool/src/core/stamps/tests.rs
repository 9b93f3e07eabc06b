//! Stamps by examples, and against a model that keeps every entry.

use kafka_courier_batcher::Stamp;
use proptest::prelude::*;

use super::super::entry::{BatchHead, Entry, JournalBatch, OutReason, Partition, TopicNumber};
use super::super::ids::Life;
use super::super::table::Table;
use super::*;

const PARTITION: Partition = Partition { topic: TopicNumber(0), index: 0 };

fn batch(life: u64, first: u64, count: u32) -> Entry {
    let (life, first, notes) = (Life(life), Ordinal(first), [].into());
    Entry::Batch(JournalBatch { head: BatchHead { partition: PARTITION, life, first, count, notes }, bytes: [].into() })
}

fn begin(life: u64, from: u64) -> Entry {
    Entry::Begin { partition: PARTITION, life: Life(life), from: Ordinal(from) }
}

fn mark(settled: u64) -> Entry {
    Entry::Mark { partition: PARTITION, settled: Ordinal(settled), end_offset: -1 }
}

fn moved(from: u64, (producer_id, epoch, base_sequence): (i64, i16, i32), skips: &[(u64, u64)]) -> Entry {
    let stamp = Stamp { producer_id, epoch, base_sequence };
    let skips = skips.iter().map(|(first, end)| (Ordinal(*first), Ordinal(*end))).collect();
    Entry::Move { partition: PARTITION, from: Ordinal(from), stamp, skips }
}

fn out(first: u64, end: u64) -> Entry {
    Entry::Out { partition: PARTITION, first: Ordinal(first), end: Ordinal(end), why: OutReason::Settled }
}

fn table(entries: &[Entry]) -> Table {
    let mut table = Table::default();
    entries.iter().for_each(|entry| table.apply(entry));
    table
}

/// The stamp as (id, epoch, sequence).
fn stamp(table: &Table, ordinal: u64) -> Option<(i64, i16, i32)> {
    let stamp = stamp_at(table.partitions.get(&PARTITION)?, Ordinal(ordinal))?;
    Some((stamp.producer_id, stamp.epoch, stamp.base_sequence))
}

#[test]
fn each_life_needs_its_move() {
    let mut table = table(&[begin(1, 0), batch(1, 0, 5), moved(0, (10, 0, 0), &[]), begin(2, 5), batch(2, 5, 5)]);
    assert_eq!(stamp(&table, 4), Some((10, 0, 4)));
    assert_eq!(stamp(&table, 5), None, "the next life's record never takes the former one's number");
    table.apply(&moved(5, (20, 0, 0), &[]));
    assert_eq!(stamp(&table, 9), Some((20, 0, 4)));
}

#[test]
fn skipped_records_take_no_number() {
    let table = table(&[begin(1, 0), batch(1, 0, 9), moved(0, (10, 0, 0), &[(3, 5)])]);
    assert_eq!((stamp(&table, 2), stamp(&table, 3), stamp(&table, 4)), (Some((10, 0, 2)), None, None));
    assert_eq!(stamp(&table, 5), Some((10, 0, 3)));
}

#[test]
fn later_outs_keep_their_numbers() {
    let table = table(&[begin(1, 0), batch(1, 0, 9), moved(0, (10, 0, 0), &[]), out(3, 5)]);
    assert_eq!((stamp(&table, 3), stamp(&table, 5)), (Some((10, 0, 3)), Some((10, 0, 5))));
}

#[test]
fn move_supersedes_later_moves() {
    let moves = [moved(0, (10, 0, 0), &[]), moved(6, (10, 1, 0), &[]), moved(3, (10, 2, 0), &[])];
    let mut table = table(&[begin(1, 0), batch(1, 0, 9)]);
    moves.iter().for_each(|entry| table.apply(entry));
    assert_eq!(
        (stamp(&table, 2), stamp(&table, 3), stamp(&table, 7)),
        (Some((10, 0, 2)), Some((10, 2, 0)), Some((10, 2, 4)))
    );
}

#[test]
fn marks_keep_later_stamps() {
    let moves = [moved(0, (10, 0, 0), &[(2, 4), (5, 6)]), moved(7, (10, 1, 0), &[(8, 9)])];
    let mut table = table(&[begin(1, 0), batch(1, 0, 12)]);
    moves.iter().for_each(|entry| table.apply(entry));
    let before: Vec<_> = (0..14).map(|ordinal| stamp(&table, ordinal)).collect();
    for settled in 1..12 {
        table.apply(&mark(settled));
        for ordinal in settled..14 {
            assert_eq!(stamp(&table, ordinal), before[ordinal as usize], "{ordinal} after a mark at {settled}");
        }
    }
}

#[test]
fn settled_part_of_run_is_known() {
    let mut table = table(&[begin(1, 0), batch(1, 0, 9), moved(0, (10, 0, 0), &[]), moved(6, (10, 1, 0), &[])]);
    let run = |table: &Table, ordinal| {
        let run = run_of(&table.partitions[&PARTITION], Ordinal(ordinal)).unwrap();
        (run.from.0, run.stamp.epoch, run.stamp.base_sequence, run.has_settled)
    };
    assert_eq!((run(&table, 4), run(&table, 6)), ((0, 0, 0, false), (6, 1, 0, false)));
    table.apply(&mark(4));
    assert_eq!((run(&table, 4), run(&table, 6)), ((4, 0, 4, true), (6, 1, 0, false)));
    table.apply(&mark(6));
    assert_eq!(run(&table, 6), (6, 1, 0, false), "a run begins at the mark");
    table.apply(&mark(7));
    table.apply(&mark(8));
    assert_eq!(run(&table, 8), (8, 1, 2, true));
}

#[test]
fn outs_are_known_behind_marks() {
    let mut table = table(&[begin(1, 0), batch(1, 0, 9), moved(0, (10, 0, 0), &[(0, 2)]), out(0, 2)]);
    let has_out = |table: &Table, ordinal| run_of(&table.partitions[&PARTITION], Ordinal(ordinal)).unwrap().has_out;
    assert!(!has_out(&table, 5), "the run skips the records");
    table.apply(&out(3, 4));
    assert_eq!((has_out(&table, 3), has_out(&table, 4)), (false, true));
    for settled in [4, 6] {
        table.apply(&mark(settled));
        assert!(has_out(&table, 7), "a mark at {settled}");
    }
    table.apply(&moved(7, (10, 1, 0), &[]));
    assert!(!has_out(&table, 8), "another run");
    table.apply(&Entry::Out { partition: PARTITION, first: Ordinal(7), end: Ordinal(8), why: OutReason::Lost });
    assert!(has_out(&table, 8), "a lost record may have been sent");
}

#[test]
fn life_ends_the_anchor() {
    let mut table = table(&[begin(1, 0), batch(1, 0, 5), moved(0, (10, 0, 0), &[]), mark(5)]);
    assert_eq!(stamp(&table, 5), Some((10, 0, 5)));
    table.apply(&begin(2, 5));
    assert_eq!(stamp(&table, 5), None);
    table.apply(&moved(5, (20, 0, 0), &[]));
    table.apply(&begin(2, 5));
    assert_eq!(stamp(&table, 5), Some((20, 0, 0)), "a repeated entry changes nothing");
}

#[test]
fn superseded_move_is_repeated() {
    let mut table = table(&[begin(1, 0), batch(1, 0, 9)]);
    let frame = [moved(6, (10, 1, 0), &[]), moved(4, (10, 2, 0), &[]), mark(6)];
    for _ in 0..2 {
        frame.iter().for_each(|entry| table.apply(entry));
        assert_eq!(stamp(&table, 6), Some((10, 2, 2)));
    }
}

#[test]
fn sequences_wrap_to_zero() {
    let table = table(&[begin(1, 0), batch(1, 0, 4), moved(0, (10, 0, i32::MAX - 1), &[])]);
    assert_eq!(stamp(&table, 1), Some((10, 0, i32::MAX)));
    assert_eq!(stamp(&table, 2), Some((10, 0, 0)));
}

/// Keeps every begin and move that counts, and computes each stamp from all of them.
#[derive(Default)]
struct Model {
    begins: Vec<u64>,
    moves: Vec<ModelMove>,
}

/// A move's first ordinal, its stamp, and the ranges that it skips.
type ModelMove = (u64, Stamp, Vec<(u64, u64)>);

impl Model {
    fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Begin { from, .. } => self.begins.push(from.0),
            Entry::Move { from, stamp, skips, .. } => {
                self.moves.retain(|(other, ..)| *other < from.0);
                self.moves.push((from.0, *stamp, skips.iter().map(|(first, end)| (first.0, end.0)).collect()));
            }
            _ => {}
        }
    }

    fn stamp(&self, ordinal: u64) -> Option<(i64, i16, i32)> {
        let (from, stamp, skips) = self.moves.iter().rfind(|(from, ..)| *from <= ordinal)?;
        let is_skipped = |at: u64| skips.iter().any(|(first, end)| (*first..*end).contains(&at));
        if is_skipped(ordinal) || self.begins.iter().any(|begin| from < begin && *begin <= ordinal) {
            return None;
        }
        let stamp = (*from..ordinal).filter(|at| !is_skipped(*at)).fold(*stamp, |stamp, _| stamp.advance(1));
        Some((stamp.producer_id, stamp.epoch, stamp.base_sequence))
    }
}

/// A choice of the next entry: a kind, and two numbers that select ordinals.
type Choice = (u8, u64, u64);

/// Returns the entry of a choice that is legal after the entries of a table: a batch is at the end, and a move begins at
/// an accepted unsettled record.
fn legal(table: &Table, life: u64, (kind, one, other): Choice) -> Option<Entry> {
    let state = table.partitions.get(&PARTITION).cloned().unwrap_or_default();
    let unsettled = state.end.0 - state.settled.0;
    let at = state.settled.0 + one % unsettled.max(1);
    match kind {
        0..4 => Some(batch(life, state.end.0, 1 + (one % 5) as u32)),
        4..7 if unsettled > 0 => {
            let skips = [(at + other % 3, at + other % 7), (at + one % 11, at + one % 13)];
            Some(moved(at, (4000 + life as i64, (other % 9) as i16, (other % 100) as i32), &skips))
        }
        7..9 if unsettled > 0 => Some(mark(at + 1)),
        9 if unsettled > 0 => Some(out(at, at + 1 + other % 3)),
        _ => None,
    }
}

/// The part of an entry that the next frame repeats.
fn repeated(entry: &Entry) -> Entry {
    match entry {
        Entry::Batch(batch) => Entry::End { partition: PARTITION, end: batch.head.end() },
        control => control.clone(),
    }
}

proptest! {
    #[test]
    fn stamps_equal_the_model(lives in prop::collection::vec(prop::collection::vec((0_u8..10, 0_u64..60, 0_u64..60), 0..25), 1..5)) {
        let (mut table, mut model) = (Table::default(), Model::default());
        for (life, choices) in (1..).zip(lives) {
            let mut has_begun = false;
            for choice in choices {
                let Some(entry) = legal(&table, life, choice) else { continue };
                let end = table.partitions.get(&PARTITION).map_or(0, |state| state.end.0);
                if matches!(entry, Entry::Batch(_)) && !std::mem::replace(&mut has_begun, true) {
                    table.apply(&begin(life, end));
                    model.apply(&begin(life, end));
                }
                table.apply(&entry);
                model.apply(&entry);
                let state = &table.partitions[&PARTITION];
                for ordinal in state.settled.0..state.end.0 + 2 {
                    prop_assert_eq!(stamp(&table, ordinal), model.stamp(ordinal), "{} after {:?}", ordinal, &entry);
                }
                let mut copy = Table::default();
                table.checkpoint().iter().for_each(|entry| copy.apply(entry));
                prop_assert_eq!(&copy, &table);
            }
        }
    }
}

#[test]
fn checkpoint_keeps_the_newest_leader() {
    let leader = |epoch| Entry::Leader { partition: PARTITION, epoch };
    let newest = table(&[leader(3), leader(5), leader(4), mark(2)]);
    assert_eq!(newest.partitions[&PARTITION].leader_epoch, Some(5));
    assert_eq!(table(&newest.checkpoint()), newest);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// Frames of any entries, legal or not.
    #[test]
    fn repeated_frames_change_nothing(frames in prop::collection::vec(prop::collection::vec((0_u8..6, 0_u64..8, 0_u64..8), 0..6), 1..4)) {
        let mut table = Table::default();
        for frame in frames {
            let entries: Vec<Entry> = frame.into_iter().map(|(kind, one, other)| match kind {
                0 => batch(1, one, 1 + other as u32 % 4),
                1 => moved(one, (4000, 0, other as i32), &[(one + other % 3, one + other % 5)]),
                2 => mark(one),
                3 => begin(other % 3, one),
                4 => out(one, one + other % 4),
                _ => Entry::Out { partition: PARTITION, first: Ordinal(one), end: Ordinal(other), why: OutReason::Lost },
            }).collect();
            entries.iter().for_each(|entry| table.apply(entry));
            let before = table.clone();
            entries.iter().for_each(|entry| table.apply(&repeated(entry)));
            prop_assert_eq!(&before, &table, "{:?}", entries);
        }
    }
}
