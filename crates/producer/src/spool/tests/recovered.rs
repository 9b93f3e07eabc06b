//! The batches of an earlier process: the decisions about them, and their order.

use std::time::Duration;

use kafka_courier_client::TopicUuid;
use kafka_courier_idempotent_sender::core::{FailedOutcome, InheritedStamp};
use kafka_courier_spool::core::entry::{BatchHead, OutReason, Topic, TopicNumber};
use kafka_courier_spool::core::table::Table;

use super::super::backlog::StoredRun;
use super::super::inherit::{Resumption, batch_of_part, inherited_stamp, resumption};
use super::super::open::{OpenSpool, SpoolSettings};
use super::super::stage::RecoveredPartition;
use super::super::view::SpoolView;
use super::*;

const OLD: TopicUuid = [1; 16];
const PLACE: Partition = Partition { topic: TopicNumber(4), index: 0 };

fn inherited() -> InheritedStamp {
    let stamp = Stamp { producer_id: 5, epoch: 0, base_sequence: 0 };
    InheritedStamp { stamp, search_from: Some(3), is_acknowledged: false, follows_unknown: false, leader_epoch: None }
}

#[test]
fn stamps_hold_for_one_topic_id() {
    let (unknown, not_written) =
        (Resumption::Fail(FailedOutcome::Unknown), Resumption::Fail(FailedOutcome::NotWritten));
    let (sent, unsent) = (true, false);
    assert_eq!(resumption(OLD, Some(OLD), true, sent), Resumption::Send);
    assert_eq!(resumption(OLD, Some([2; 16]), true, sent), unknown, "the record may be in the deleted topic");
    assert_eq!(resumption(OLD, Some([2; 16]), true, unsent), Resumption::Send);
    assert_eq!(resumption(OLD, Some([2; 16]), false, unsent), not_written);
    assert_eq!(resumption(OLD, Some(OLD), false, sent), Resumption::Wait, "a topic keeps its partitions");
    assert_eq!(resumption(OLD, Some(OLD), false, unsent), Resumption::Wait);
    assert_eq!(resumption(OLD, Some([2; 16]), false, sent), unknown);
    assert_eq!(resumption(OLD, None, true, sent), Resumption::Send, "old brokers send no topic ids");
    assert_eq!(resumption([0; 16], Some(OLD), true, sent), Resumption::Send, "the id was not known then");
}

fn table(entries: &[Entry]) -> Table {
    let mut table = Table::default();
    entries.iter().for_each(|entry| table.apply(entry));
    table
}

fn head(first: u64, count: u32) -> BatchHead {
    BatchHead { partition: PLACE, life: Life(1), first: Ordinal(first), count, notes: [].into() }
}

#[test]
fn settled_records_split_batches() {
    let end = Entry::End { partition: PLACE, end: Ordinal(20) };
    let out = Entry::Out { partition: PLACE, first: Ordinal(6), end: Ordinal(8), why: OutReason::Settled };
    let mark = Entry::Mark { partition: PLACE, settled: Ordinal(3), end_offset: 40 };
    let table = table(&[end, out, mark]);
    let state = &table.partitions[&PLACE];
    assert_eq!(unsettled_parts(state, &head(1, 9)), [2..5, 7..9]);
    assert_eq!(unsettled_parts(state, &head(0, 3)), []);
    assert_eq!(unsettled_parts(state, &head(10, 2)), std::slice::from_ref(&(0..2)));
    let moved =
        |from| Entry::Move { partition: PLACE, from: Ordinal(from), stamp: inherited().stamp, skips: Vec::new() };
    let mut table = table.clone();
    [moved(4), moved(10)].iter().for_each(|entry| table.apply(entry));
    let state = &table.partitions[&PLACE];
    assert_eq!(unsettled_parts(state, &head(3, 3)), [0..1, 1..3], "a run of stamps begins within the batch");
    assert_eq!(unsettled_parts(state, &head(8, 4)), [0..2, 2..4]);
    let whole = batch_of(9);
    let part = batch_of_part(whole.as_bytes(), 9, &(2..5)).unwrap();
    assert_eq!(part.record_count(), 3);
    assert!(batch_of_part(whole.as_bytes(), 8, &(0..8)).is_err(), "the journal and the batch disagree");
}

#[test]
fn inherited_stamp_follows_the_table() {
    let stamp = Stamp { producer_id: 5, epoch: 2, base_sequence: 0 };
    let begin = Entry::Begin { partition: PLACE, life: Life(1), from: Ordinal(0) };
    let end = Entry::End { partition: PLACE, end: Ordinal(20) };
    let skips = vec![(Ordinal(4), Ordinal(5))];
    let moved = Entry::Move { partition: PLACE, from: Ordinal(2), stamp, skips };
    let mut table = table(&[begin, end, moved]);
    let of = |table: &Table, first| inherited_stamp(&table.partitions[&PLACE], Ordinal(first));
    assert_eq!(of(&table, 0), None, "no process could send the record");
    let found = of(&table, 6).unwrap();
    assert_eq!((found.stamp.base_sequence, found.search_from, found.is_acknowledged), (3, None, false));
    table.apply(&Entry::Mark { partition: PLACE, settled: Ordinal(3), end_offset: 40 });
    let found = of(&table, 6).unwrap();
    assert_eq!((found.stamp.base_sequence, found.search_from, found.is_acknowledged), (3, Some(40), true));
}

#[test]
fn unknown_batch_is_known_behind_mark() {
    let stamp = Stamp { producer_id: 5, epoch: 2, base_sequence: 0 };
    let moved = Entry::Move { partition: PLACE, from: Ordinal(0), stamp, skips: Vec::new() };
    let end = Entry::End { partition: PLACE, end: Ordinal(20) };
    let out = Entry::Out { partition: PLACE, first: Ordinal(0), end: Ordinal(4), why: OutReason::Settled };
    let mark = Entry::Mark { partition: PLACE, settled: Ordinal(4), end_offset: -1 };
    let table = table(&[end, moved, out, mark]);
    assert!(inherited_stamp(&table.partitions[&PLACE], Ordinal(4)).unwrap().follows_unknown);
}

#[test]
fn continued_run_is_acknowledged() {
    let moved = |from, base_sequence| {
        let stamp = Stamp { producer_id: 5, epoch: 2, base_sequence };
        Entry::Move { partition: PLACE, from: Ordinal(from), stamp, skips: Vec::new() }
    };
    let end = Entry::End { partition: PLACE, end: Ordinal(20) };
    let mark = Entry::Mark { partition: PLACE, settled: Ordinal(6), end_offset: 40 };
    let table = table(&[end, moved(0, 0), moved(6, 6), mark]);
    let found = inherited_stamp(&table.partitions[&PLACE], Ordinal(6)).unwrap();
    assert!(found.is_acknowledged, "records 0 to 5 have the same producer id and epoch");
}

/// Returns a stage with a topic and two unsettled batches of earlier processes, the first of them sent. The disk has them.
fn recovered_stage() -> (Stage<u64>, TestDisk) {
    let begin = |life, from| Entry::Begin { partition: PLACE, life: Life(life), from: Ordinal(from) };
    let mark = Entry::Mark { partition: PLACE, settled: Ordinal(10), end_offset: 3 };
    let moved = Entry::Move { partition: PLACE, from: Ordinal(10), stamp: inherited().stamp, skips: Vec::new() };
    let end = Entry::End { partition: PLACE, end: Ordinal(14) };
    let origin = table(&[begin(1, 0), mark, moved, begin(2, 12), end]).partitions.remove(&PLACE).unwrap();
    let mut stage = Stage::new(Life(3), [].into(), Some("c".into()), BUDGET);
    stage.recover_topic(TOPIC, &Topic { number: PLACE.topic, name: "t".into(), id: OLD, partitions: 1 });
    let (done, lost) = (Vec::new(), Vec::new());
    let (settled, end) = (Ordinal(10), Ordinal(14));
    stage.recover_partition(&RecoveredPartition { partition: PLACE, settled, end, end_offset: 3, done, lost, origin });
    let mut disk = TestDisk::default();
    for (life, first) in [(1, 10), (2, 12)] {
        let head = BatchHead { life: Life(life), ..head(first, 2) };
        disk.write(&[Entry::Batch(JournalBatch { head, bytes: batch_of(2).as_bytes().into() })]);
    }
    stage.recover_runs(partition(0), vec![recovered_run(PLACE, 10, 2, 4)]);
    (stage, disk)
}

/// Returns the run of earlier batches in a partition.
pub(super) fn recovered_run(partition: Partition, first: u64, batches: u64, records: u64) -> StoredRun {
    let (bytes, oldest_ms, ticket) = (records * 40, Some(7), Some(Ticket(0)));
    StoredRun { partition, next: Ordinal(first), batches, records, bytes, oldest_ms, published: None, ticket }
}

#[test]
fn recovered_batches_precede_new_ones() {
    let (mut stage, mut disk) = recovered_stage();
    stage.submit(submission(0, 2, 1));
    disk.write(&commit(&mut stage));
    assert_eq!(released(&disk.effects(&mut stage)), [0; 0], "the sender does not know the topic");
    learn(&mut stage, 1);
    stage.handle(SpoolCommand::Identity(TopicIdentity {
        topic: TOPIC,
        uuid: Some(OLD),
        partitions: 1,
        cluster: Some("c".into()),
        outdated: None,
    }));
    let effects = disk.effects(&mut stage);
    assert_eq!(released(&effects), [0, 1, 2]);
    let Effect::Release(first) = &effects[0] else { panic!("{effects:?}") };
    assert_eq!(first.stored.as_ref().unwrap().inherited, Some(inherited()));
    let Effect::Release(new) = &effects[2] else { panic!("{effects:?}") };
    assert_eq!((new.stored.as_ref().unwrap().first, new.stored.as_ref().unwrap().life), (14, 3));
}

#[test]
fn recreated_topic_fails_sent_batches() {
    let (mut stage, mut disk) = recovered_stage();
    stage.submit(submission(0, 2, 1));
    disk.write(&commit(&mut stage));
    learn(&mut stage, 1);
    stage.handle(identity(2, 1, "c"));
    let effects = disk.effects(&mut stage);
    let orphaned = effects.iter().find_map(|effect| match effect {
        Effect::Orphaned(batch, FailedOutcome::Unknown, Some(OLD)) => Some(batch),
        _ => None,
    });
    let batch = orphaned.unwrap();
    let stamp = batch.stored.as_ref().unwrap().inherited;
    assert_eq!((batch.token, stamp), (10, Some(inherited())), "a verification needs the stamp");
    assert_eq!(released(&effects), [0, 1], "the sender's numbers have no gap");
    stage.submit(submission(0, 3, 1));
    let written = commit(&mut stage);
    disk.write(&written);
    let Some(Entry::Topic(topic)) = written.first() else { panic!("{written:?}") };
    assert_eq!((topic.number, topic.id), (TopicNumber(5), [2; 16]), "the new topic has its own offsets");
    let effects = disk.effects(&mut stage);
    assert_eq!(
        places(&effects)[0],
        StoredPlace { partition: Partition { topic: topic.number, index: 0 }, first: Ordinal(0) }
    );
    assert_eq!(released(&effects), [0; 0], "records of the old topic are unsettled");
}

#[test]
fn later_number_follows_settled_one() {
    let (mut stage, mut disk) = recovered_stage();
    learn(&mut stage, 1);
    stage.handle(identity(2, 1, "c"));
    stage.submit(submission(0, 2, 1));
    disk.write(&commit(&mut stage));
    assert_eq!(released(&disk.effects(&mut stage)), [0]);
    let place = |first| StoredPlace { partition: PLACE, first: Ordinal(first) };
    let records = RecordSet::Range(0..2);
    stage.handle(SpoolCommand::Failed { place: place(10), records: records.clone() });
    stage.handle(SpoolCommand::Delivered { place: place(12), records: records.clone(), base_offset: Some(0) });
    assert_eq!(released(&disk.effects(&mut stage)), [0; 0]);
    stage.handle(kept(place(10), records));
    assert_eq!(released(&disk.effects(&mut stage)), [1]);
    stage.handle(SpoolCommand::Persist(move_of(0, 1, 0)));
    let written = commit(&mut stage);
    disk.write(&written);
    let is_new = |entry: &Entry| matches!(entry, Entry::Move { partition, .. } if partition.topic == TopicNumber(5));
    assert!(written.iter().any(is_new), "{written:?}");
}

#[test]
fn batch_without_topic_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let settings = SpoolSettings {
        dir: folder.path().to_owned(),
        max_bytes: 1 << 30,
        keep_free: Some(0),
        blocks: false,
        idle_sync: Duration::from_millis(1),
        any_filesystem: true,
    };
    let mut open = OpenSpool::open(&settings).unwrap();
    let batch = JournalBatch { head: head(0, 1), bytes: submission(0, 0, 1).batch.as_bytes().into() };
    open.journal.commit(vec![Entry::Batch(batch)]).unwrap();
    let recovered = open.recover();
    assert!(recovered.partitions.is_empty() && recovered.runs.is_empty(), "nothing waits for the topic");
    drop(open);
    let view = SpoolView::read(folder.path()).unwrap();
    assert_eq!(view.parts().map(|part| part.unwrap().topic.to_string()).collect::<Vec<_>>(), ["topic number 4"]);
}
