//! Random backlogs: each record is sent once and in order or is lost by name, memory is bounded, and a partition that moves
//! never stands still.

use kafka_courier_spool::core::entry::{BatchHead, OutReason, Topic, TopicNumber};
use kafka_courier_spool::core::ranges::OrdinalSet;
use kafka_courier_spool::core::table::Table;
use proptest::prelude::*;

use super::super::residence::FLOOR;
use super::super::stage::RecoveredPartition;
use super::recovered::recovered_run;
use super::*;

const PARTITIONS: i32 = 3;
/// About the bytes of six batches.
const SMALL: u64 = 600;
/// More bytes than a batch of the test has.
const LARGEST: u64 = 110;

#[derive(Clone, Debug)]
enum Step {
    Seal {
        index: i32,
        batches: usize,
        records: usize,
    },
    Commit,
    /// The next read succeeds.
    Read,
    /// The next read finds damage, or an error of the system.
    ReadFails {
        is_damaged: bool,
    },
    /// The errors of the system end.
    Retry,
    /// The sender delivers its oldest batch of a partition, or fails it and keeps its dead letter.
    Decide {
        index: i32,
        fails: bool,
    },
    /// The sender asks for more batches.
    More {
        index: i32,
    },
    Name,
}

fn step() -> impl Strategy<Value = Step> {
    let index = || 0..PARTITIONS;
    prop_oneof![
        3 => (index(), 1..8_usize, 1..4_usize).prop_map(|(index, batches, records)| Step::Seal { index, batches, records }),
        3 => Just(Step::Commit),
        3 => Just(Step::Read),
        1 => any::<bool>().prop_map(|is_damaged| Step::ReadFails { is_damaged }),
        1 => Just(Step::Retry),
        4 => (index(), any::<bool>()).prop_map(|(index, fails)| Step::Decide { index, fails }),
        1 => index().prop_map(|index| Step::More { index }),
        1 => Just(Step::Name),
    ]
}

#[derive(Default)]
struct Lane {
    next_batch: u64,
    /// The sender's number for the next batch.
    next_release: u64,
    /// Every record before was sent, is lost, or was settled before.
    next_record: u64,
    /// The last number under which stamps were requested, and the end of its last batch.
    scope: Option<(u64, u64)>,
    out: OrdinalSet,
    lost: OrdinalSet,
    sent: VecDeque<(StoredPlace, u32)>,
}

struct Model {
    stage: Stage<u64>,
    disk: TestDisk,
    table: Table,
    lanes: BTreeMap<i32, Lane>,
    loads: VecDeque<(PartitionId, StoredPlace)>,
    /// The bytes of the batches that publishers and reads charged.
    memory: usize,
    grants: u64,
    lost_records: u64,
}

fn place_of(index: i32) -> Partition {
    Partition { topic: TopicNumber(0), index }
}

impl Model {
    /// Creates a stage that follows a process which stored batches of `sizes` records in each partition. Record 1 is settled.
    fn new(sizes: &[u32]) -> Self {
        let mut stage = Stage::new(Life(2), [].into(), None, SMALL);
        let (mut disk, mut table, mut lanes) = (TestDisk::default(), Table::default(), BTreeMap::new());
        let topic = Topic { number: TopicNumber(0), name: "t".into(), id: [1; 16], partitions: PARTITIONS as u32 };
        stage.recover_topic(TOPIC, &topic);
        table.apply(&Entry::Topic(topic));
        for index in 0..PARTITIONS {
            let mut lane = Lane::default();
            let first_records = sizes.iter().map(|count| u64::from(*count)).sum::<u64>();
            if !sizes.is_empty() {
                lane.next_batch = Self::recover(&mut stage, &mut disk, &mut table, place_of(index), sizes);
                lane.out.insert(Ordinal(1), Ordinal(2.min(first_records)));
            }
            lanes.insert(index, lane);
        }
        learn(&mut stage, PARTITIONS as u32);
        let loads = VecDeque::new();
        Self { stage, disk, table, lanes, loads, memory: 0, grants: 0, lost_records: 0 }
    }

    /// Stores batches of an earlier process. Returns the number of batches that the stage makes of them.
    fn recover(stage: &mut Stage<u64>, disk: &mut TestDisk, table: &mut Table, of: Partition, sizes: &[u32]) -> u64 {
        table.apply(&Entry::Begin { partition: of, life: Life(1), from: Ordinal(0) });
        let mut first = Ordinal(0);
        for &count in sizes {
            let head = BatchHead { partition: of, life: Life(1), first, count, notes: [].into() };
            first = head.end();
            let batch = Entry::Batch(JournalBatch { head, bytes: batch_of(count as usize).as_bytes().into() });
            table.apply(&batch);
            disk.write(&[batch]);
        }
        let (done_from, done_end) = (Ordinal(1), Ordinal(2.min(first.0)));
        table.apply(&Entry::Out { partition: of, first: done_from, end: done_end, why: OutReason::Settled });
        let origin = table.partitions[&of].clone();
        let parts = |batch: &JournalBatch| unsettled_parts(&origin, &batch.head);
        let parts: Vec<_> = disk.batches.values().filter(|batch| batch.head.partition == of).flat_map(parts).collect();
        let records = parts.iter().map(|part| u64::from(part.end - part.start)).sum();
        let done = origin.done.iter().collect();
        let (settled, end, lost) = (Ordinal(0), first, Vec::new());
        stage.recover_partition(&RecoveredPartition {
            partition: of,
            settled,
            end,
            end_offset: -1,
            done,
            lost,
            origin,
        });
        let run = recovered_run(of, 0, parts.len() as u64, records);
        stage.recover_runs(partition(of.index), vec![run]);
        parts.len() as u64
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Seal { index, batches, records } => self.seal(*index, *batches, *records),
            Step::Commit => self.commit(),
            Step::Read => self.read(None),
            Step::ReadFails { is_damaged: true } => self.read(Some(UnreadableBatch::Damaged)),
            Step::ReadFails { is_damaged: false } => self.read(Some(UnreadableBatch::NotNow("busy".into()))),
            Step::Retry => self.stage.retry_reads(),
            Step::Decide { index, fails } => self.decide(*index, *fails),
            Step::More { index } => {
                self.grants += u64::from(FLOOR).max(self.lanes[index].sent.len() as u64 * 2);
                self.stage.handle(SpoolCommand::More(partition(*index)));
            }
            Step::Name => self.stage.handle(identity(1, PARTITIONS as u32, "c")),
        }
        self.stage.retire_tokens(2);
        self.act();
    }

    fn seal(&mut self, index: i32, batches: usize, records: usize) {
        for _ in 0..batches {
            let lane = self.lanes.get_mut(&index).unwrap();
            let sealed = submission(index, lane.next_batch, records);
            lane.next_batch += 1;
            self.memory += sealed.batch.capacity();
            self.stage.submit(sealed);
        }
    }

    fn commit(&mut self) {
        let entries = self.stage.round(600, u64::MAX);
        entries.iter().for_each(|entry| self.table.apply(entry));
        self.disk.write(&entries);
        self.stage.committed();
    }

    fn read(&mut self, fault: Option<UnreadableBatch>) {
        let Some((id, from)) = self.loads.pop_front() else { return };
        let mut found = self.disk.find(from).unwrap();
        if let Some(fault) = fault {
            if fault == UnreadableBatch::Damaged {
                let lane = self.lanes.get_mut(&id.index).unwrap();
                let (first, end) = (found.head.first, found.head.end());
                lane.lost.insert(first, end);
            }
            found.bytes = Err(fault);
        }
        let before = self.disk.charged.get();
        self.stage.take_read(id, Some(found), READ_TIME.with(|time| *time), &self.disk);
        self.memory += self.disk.charged.get() - before;
    }

    fn decide(&mut self, index: i32, fails: bool) {
        let Some((place, count)) = self.lanes.get_mut(&index).unwrap().sent.pop_front() else { return };
        let records = RecordSet::Range(0..count);
        if fails {
            self.stage.handle(SpoolCommand::Failed { place, records: records.clone() });
            self.stage.handle(kept(place, records));
        } else {
            self.stage.handle(SpoolCommand::Delivered { place, records, base_offset: None });
        }
    }

    fn act(&mut self) {
        for effect in self.stage.take_effects() {
            match effect {
                Effect::Durable { .. } | Effect::Settled(_) | Effect::Unreadable(..) => {}
                Effect::Unloaded(_, batch) => self.memory -= batch.capacity(),
                Effect::Load { partition, from } => self.loads.push_back((partition, from)),
                Effect::Lost(lost, _) => self.lost_records += lost.records,
                Effect::Release(batch) => self.release(batch),
                other => panic!("{other:?}"),
            }
        }
        let resident = self.stage.level().resident_bytes;
        let bound = SMALL + (u64::from(FLOOR) * PARTITIONS as u64 + 1 + self.grants) * LARGEST;
        assert!(resident <= bound, "{resident} bytes are in memory");
    }

    fn release(&mut self, batch: Submission<u64>) {
        let lane = self.lanes.get_mut(&batch.partition.index).unwrap();
        assert_eq!(batch.ordinal, lane.next_release, "the sender's numbers have no gap");
        lane.next_release += 1;
        let stored = batch.stored.unwrap();
        let is_missing = |ordinal: u64| !lane.out.contains(Ordinal(ordinal)) && !lane.lost.contains(Ordinal(ordinal));
        let missing: Vec<u64> = (lane.next_record..stored.first).filter(|ordinal| is_missing(*ordinal)).collect();
        assert_eq!(missing, [0; 0], "records are neither sent nor lost");
        assert!(stored.first >= lane.next_record, "records leave once, in order");
        let (count, end) = (batch.batch.record_count(), stored.first + u64::from(batch.batch.record_count()));
        // The move of earlier records names the ones that were settled before it.
        let has_hole = (lane.scope.map_or(stored.first, |(_, end)| end)..stored.first)
            .any(|hole| !lane.out.contains(Ordinal(hole)));
        assert!(!has_hole || lane.scope.is_some_and(|(scope, _)| scope != stored.life), "the run of stamps has a hole");
        (lane.scope, lane.next_record) = (Some((stored.life, end)), end);
        self.memory -= batch.batch.capacity();
        lane.sent.push_back((
            StoredPlace { partition: place_of(batch.partition.index), first: Ordinal(stored.first) },
            count,
        ));
    }

    /// Settles everything. Each turn has a read, a verdict or a round to wait for.
    fn finish(mut self) {
        self.run(&Step::Name);
        for _ in 0..100_000 {
            self.run(&Step::Commit);
            self.run(&Step::Retry);
            let is_moving = !self.loads.is_empty() || self.lanes.values().any(|lane| !lane.sent.is_empty());
            if !is_moving && !self.stage.has_waiting() {
                break;
            }
            self.run(&Step::Read);
            (0..PARTITIONS).for_each(|index| self.run(&Step::Decide { index, fails: false }));
        }
        self.run(&Step::Commit);
        let level = self.stage.level();
        assert_eq!((level.records, level.bytes, level.resident_bytes), (0, 0, 0), "nothing is left");
        assert_eq!(self.memory, 0, "all memory is returned");
        let lost = |lane: &Lane| lane.lost.count_within(Ordinal(0), Ordinal(u64::MAX));
        let named: u64 = self.lanes.values().map(lost).sum();
        let done_in_lost: u64 = self
            .lanes
            .values()
            .map(|lane| u64::from(lane.lost.contains(Ordinal(1)) && lane.out.contains(Ordinal(1))))
            .sum();
        assert_eq!(self.lost_records, named - done_in_lost, "each lost record is named once");
        for state in self.table.partitions.values() {
            assert_eq!(state.settled, state.end);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn backlog_leaves_in_order_within_bounds(
        sizes in prop::collection::vec(1..4_u32, 0..12),
        steps in prop::collection::vec(step(), 0..150),
    ) {
        let mut model = Model::new(&sizes);
        steps.iter().for_each(|step| model.run(step));
        model.finish();
    }
}

/// Returns the numbers of the first records that the sender got.
fn firsts(effects: &[Effect<u64>]) -> Vec<u64> {
    let first = |effect: &Effect<u64>| match effect {
        Effect::Release(batch) => Some(batch.stored.as_ref().unwrap().first),
        _ => None,
    };
    effects.iter().filter_map(first).collect()
}

/// Returns a stage whose partition has more batches of one record than memory takes. The sender has the first ones.
fn overfull_stage() -> (Stage<u64>, TestDisk, usize) {
    let mut stage = Stage::new(Life(1), [].into(), None, SMALL);
    learn(&mut stage, 2);
    stage.handle(identity(1, 2, "c"));
    (0..20).for_each(|number| stage.submit(submission(0, number, 1)));
    let mut disk = TestDisk::default();
    disk.write(&commit(&mut stage));
    let effects = disk.effects(&mut stage);
    let (sent, unloaded) = (firsts(&effects), effects.iter().filter(|effect| matches!(effect, Effect::Unloaded(..))));
    assert_eq!(unloaded.count(), 20 - sent.len());
    assert!((2..10).contains(&sent.len()), "{sent:?}");
    (stage, disk, sent.len())
}

fn deliver(stage: &mut Stage<u64>, first: u64) {
    let place = StoredPlace { partition: place_of(0), first: Ordinal(first) };
    stage.handle(SpoolCommand::Delivered { place, records: RecordSet::Range(0..1), base_offset: None });
}

#[test]
fn verdict_brings_next_batch() {
    let (mut stage, disk, sent) = overfull_stage();
    for first in 0..20 {
        let next = sent as u64 + first;
        deliver(&mut stage, first);
        let expected = if next < 20 { vec![next] } else { Vec::new() };
        assert_eq!(firsts(&disk.effects(&mut stage)), expected);
    }
}

#[test]
fn partition_beside_a_full_one_moves() {
    let (mut stage, mut disk, _) = overfull_stage();
    (0..9).for_each(|number| stage.submit(submission(1, number, 1)));
    disk.write(&commit(&mut stage));
    let sent = firsts(&disk.effects(&mut stage));
    assert!(sent.len() >= FLOOR as usize && sent.len() < 9, "{sent:?}");
}

#[test]
fn sender_gets_more_on_request() {
    let (mut stage, disk, sent) = overfull_stage();
    stage.handle(SpoolCommand::More(partition(0)));
    assert_eq!(firsts(&disk.effects(&mut stage)).len(), sent, "as many as the sender has");
}

#[test]
fn damaged_batch_is_lost_by_name() {
    let (mut stage, disk, sent) = overfull_stage();
    deliver(&mut stage, 0);
    let Some(Effect::Load { partition, from }) = stage.take_effects().pop() else { panic!("nothing is read") };
    let damaged = disk.find(from).map(|found| FoundBatch { bytes: Err(UnreadableBatch::Damaged), ..found });
    stage.take_read(partition, damaged, READ_TIME.with(|time| *time), &disk);
    let effects = disk.effects(&mut stage);
    let Some(Effect::Lost(lost, tokens)) = effects.iter().find(|effect| matches!(effect, Effect::Lost(..))) else {
        panic!("{effects:?}")
    };
    assert_eq!((lost.records, tokens.len(), lost.batches), (1, 1, 0), "its caller is notified");
    assert_eq!(firsts(&effects), [sent as u64 + 1], "the partition continues");
    let written = commit(&mut stage);
    let is_named =
        |entry: &Entry| matches!(entry, Entry::Out { first, why: OutReason::Lost, .. } if first.0 == sent as u64);
    assert!(written.iter().any(is_named), "{written:?}");
}

#[test]
fn ended_stage_leaves_unread_batches() {
    let (mut stage, _, sent) = overfull_stage();
    stage.retire_tokens(5);
    stage.end();
    let effects = stage.take_effects();
    let [Effect::LeftOnDisk(left, tokens)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((left.records, left.batches, tokens.len()), (20 - sent as u64, 5, 15 - sent), "each batch has one end");
}
