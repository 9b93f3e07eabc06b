//! The stage against a model, and its single decisions.

mod items;
mod keys;
mod model;
mod recovered;
mod residence;
mod thread;

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use kafka_courier_batcher::{EncodedBatch, Record, Stamp};
use kafka_courier_client::{PartitionId, TopicId};
use kafka_courier_idempotent_sender::core::{LeaderMove, MoveId, RecordSet, StampMove, Submission};
use kafka_courier_spool::core::entry::{Entry, JournalBatch, Ordinal, Partition};
use kafka_courier_spool::core::ids::Life;
use kafka_courier_spool::core::inputs::{InputNumber, ItemSet};

use super::command::{
    BatchSource, BatchToken, Effect, ReadBatch, SettledNotice, SpoolCommand, StoredPlace, Ticket, TopicIdentity,
};
use super::fault::SpoolFault;
use super::inherit::unsettled_parts;
use super::request_key::RequestKey;
use super::stage::{FoundBatch, ReadTime, Stage, UnreadableBatch};

const TOPIC: TopicId = TopicId(0);
/// More memory than any test's batches have.
const BUDGET: u64 = 1 << 40;

/// The second record of a batch with a greater token has a key.
const KEYED: u64 = 1000;

impl BatchToken for u64 {
    fn items(&self) -> Vec<(InputNumber, ItemSet)> {
        Vec::new()
    }

    fn keys(&self) -> Vec<(u32, RequestKey)> {
        let key = |forget_before_ms| {
            let (digest, payload) = ([1; 16], [2; 16]);
            RequestKey { digest, payload, at_ms: *self, forget_before_ms, index: 0, count: 1 }
        };
        self.checked_sub(KEYED).map(|forget_before_ms| (1, key(forget_before_ms))).into_iter().collect()
    }

    fn retire(&self, ticket: Option<Ticket>) -> Option<Ticket> {
        ticket.or(Some(Ticket(*self)))
    }
}

/// Batches on the disk, for a stage that reads them back.
#[derive(Default)]
struct TestDisk {
    batches: BTreeMap<(Partition, Ordinal), JournalBatch>,
    /// The bytes of all batches that were read back.
    charged: Cell<usize>,
}

impl BatchSource<u64> for TestDisk {
    /// Returns the number of the first record as the token.
    fn token(&self, batch: &ReadBatch<'_>) -> u64 {
        batch.place.first.0
    }

    fn charge(&self, _: PartitionId, bytes: usize) {
        self.charged.set(self.charged.get() + bytes);
    }
}

impl TestDisk {
    /// Stores the batches of a round.
    fn write(&mut self, entries: &[Entry]) {
        for entry in entries {
            if let Entry::Batch(batch) = entry {
                self.batches.insert((batch.head.partition, batch.head.first), batch.clone());
            }
        }
    }

    fn find(&self, from: StoredPlace) -> Option<FoundBatch> {
        let next = self.batches.range((from.partition, from.first)..).next();
        let (_, batch) = next.filter(|((of, _), _)| *of == from.partition)?;
        Some(FoundBatch { head: batch.head.clone(), bytes: Ok(batch.bytes.clone()) })
    }

    /// Returns the effects of a stage, whose reads succeed.
    fn effects(&self, stage: &mut Stage<u64>) -> Vec<Effect<u64>> {
        let (mut effects, mut due) = (Vec::new(), VecDeque::from(stage.take_effects()));
        while let Some(effect) = due.pop_front() {
            match effect {
                Effect::Load { partition, from } => {
                    stage.take_read(partition, self.find(from), READ_TIME.with(|time| *time), self);
                    due.extend(stage.take_effects());
                }
                effect => effects.push(effect),
            }
        }
        effects
    }
}

thread_local! {
    /// The time of each read: the records' timestamps.
    static READ_TIME: ReadTime = ReadTime { now: Instant::now(), wall_clock_ms: 7 };
}

fn partition(index: i32) -> PartitionId {
    PartitionId { topic: TOPIC, index }
}

/// Returns a batch of `records` records, with its number as the token.
fn submission(index: i32, number: u64, records: usize) -> Submission<u64> {
    let one = EncodedBatch::single(&Record { key: None, value: Some(b"v"), headers: &[], timestamp: 7 }).unwrap();
    let batch = if records == 1 { one } else { batch_of(records) };
    let partition = partition(index);
    Submission {
        partition,
        token: number,
        ordinal: number,
        published_at: Instant::now(),
        batch,
        aged: false,
        stored: None,
    }
}

fn batch_of(records: usize) -> EncodedBatch {
    use kafka_courier_batcher::{Accumulator, BufferPool, Compression, Limits};
    let limits = Limits { max_records: 10_000, max_bytes: 1 << 20, linger: std::time::Duration::ZERO };
    let (mut accumulator, pool) = (Accumulator::new(limits, Compression::None), BufferPool::new(0));
    for _ in 0..records {
        let record = Record { key: None, value: Some(b"v"), headers: &[], timestamp: 7 };
        accumulator.push(Instant::now(), &record, &mut |_| true, &pool, || ()).unwrap();
    }
    accumulator.seal().unwrap().encode(&pool).batch
}

fn stage() -> Stage<u64> {
    Stage::new(Life(1), (*b"nonce").into(), None, BUDGET)
}

fn learn(stage: &mut Stage<u64>, partitions: u32) {
    stage.handle(SpoolCommand::Topic { topic: TOPIC, name: "t".into(), partitions });
}

fn identity(uuid: u8, partitions: u32, cluster: &str) -> SpoolCommand<u64> {
    let (uuid, cluster) = (Some([uuid; 16]), Some(cluster.into()));
    SpoolCommand::Identity(TopicIdentity { topic: TOPIC, uuid, partitions, cluster, outdated: None })
}

/// Returns a stage whose topic is known.
fn ready_stage() -> Stage<u64> {
    let mut stage = stage();
    learn(&mut stage, 2);
    stage.handle(identity(1, 2, "c"));
    stage
}

fn kept(place: StoredPlace, records: RecordSet) -> SpoolCommand<u64> {
    SpoolCommand::Kept { place, records, notice: SettledNotice::new(|| ()) }
}

/// Commits a round. Returns its entries.
fn commit(stage: &mut Stage<u64>) -> Vec<Entry> {
    let entries = stage.round(u64::MAX, u64::MAX);
    stage.committed();
    entries
}

fn move_of(index: i32, id: u64, from: u64) -> StampMove {
    let stamp = Stamp { producer_id: 9, epoch: 0, base_sequence: 0 };
    StampMove { partition: partition(index), id: MoveId(id), from, stamp, leader_epoch: None }
}

/// Returns the numbers of the batches that the sender got, and the places of durable ones.
fn released(effects: &[Effect<u64>]) -> Vec<u64> {
    let number = |effect: &Effect<u64>| match effect {
        Effect::Release(submission) => Some(submission.ordinal),
        _ => None,
    };
    effects.iter().filter_map(number).collect()
}

fn places(effects: &[Effect<u64>]) -> Vec<StoredPlace> {
    let place = |effect: &Effect<u64>| match effect {
        Effect::Durable { place, .. } => Some(*place),
        _ => None,
    };
    effects.iter().filter_map(place).collect()
}

#[test]
fn batches_leave_once_durable_in_order() {
    let mut stage = ready_stage();
    stage.submit(submission(0, 1, 2));
    assert!(!stage.is_round_due(), "an earlier batch is still being sealed");
    stage.submit(submission(0, 0, 3));
    assert!(stage.is_round_due());
    let entries = stage.round(u64::MAX, u64::MAX);
    assert!(stage.take_effects().is_empty(), "nothing leaves before it is durable");
    let kinds: Vec<&str> = entries
        .iter()
        .map(|entry| match entry {
            Entry::Cluster(_) => "cluster",
            Entry::Topic(_) => "topic",
            Entry::Begin { .. } => "begin",
            Entry::Batch(_) => "batch",
            _ => "other",
        })
        .collect();
    assert_eq!(kinds, ["cluster", "topic", "begin", "batch", "batch"]);
    stage.committed();
    let effects = stage.take_effects();
    assert_eq!(released(&effects), [0, 1]);
    let firsts: Vec<u64> = places(&effects).iter().map(|place| place.first.0).collect();
    assert_eq!(firsts, [0, 3]);
}

#[test]
fn unnamed_topic_keeps_durable_batches() {
    let mut stage = stage();
    learn(&mut stage, 1);
    stage.submit(submission(0, 0, 1));
    commit(&mut stage);
    let effects = stage.take_effects();
    assert_eq!((released(&effects).len(), places(&effects).len()), (0, 1), "stored, and not sent");
    stage.handle(identity(1, 1, "c"));
    assert_eq!(released(&stage.take_effects()), [0]);
    let written = commit(&mut stage);
    assert!(matches!(&written[..], [Entry::Cluster(_), Entry::Topic(topic)] if topic.id == [1; 16]), "{written:?}");
}

#[test]
fn added_partition_takes_batches() {
    let mut stage = ready_stage();
    learn(&mut stage, 6);
    stage.submit(submission(5, 0, 1));
    commit(&mut stage);
    let effects = stage.take_effects();
    assert!(matches!(effects[..], [Effect::Durable { .. }]), "the cluster has named fewer partitions: {effects:?}");
    stage.handle(identity(1, 2, "c"));
    assert_eq!(released(&stage.take_effects()), [0], "the sender knows more than the last answer");
}

#[test]
fn batch_waits_for_its_partition() {
    let mut stage = ready_stage();
    learn(&mut stage, 6);
    stage.submit(submission(5, 0, 1));
    learn(&mut stage, 2);
    stage.handle(identity(1, 2, "c"));
    commit(&mut stage);
    let effects = stage.take_effects();
    assert!(matches!(effects[..], [Effect::Durable { .. }]), "both answers are old: {effects:?}");
    learn(&mut stage, 6);
    stage.handle(identity(1, 6, "c"));
    assert_eq!(released(&stage.take_effects()), [0]);
}

#[test]
fn round_has_bounded_bytes() {
    let mut stage = ready_stage();
    (0..3).for_each(|number| stage.submit(submission(0, number, 1)));
    let batches = |entries: &[Entry]| entries.iter().filter(|entry| matches!(entry, Entry::Batch(_))).count();
    let first = stage.round(1, u64::MAX);
    stage.committed();
    assert_eq!(batches(&first), 1);
    assert!(stage.is_round_due());
    assert_eq!(batches(&commit(&mut stage)), 2);
}

#[test]
fn move_waits_for_durable_letters() {
    let mut stage = ready_stage();
    stage.submit(submission(0, 0, 4));
    commit(&mut stage);
    let place = places(&stage.take_effects())[0];
    let records = RecordSet::List(vec![1]);
    stage.handle(SpoolCommand::Failed { place, records: records.clone() });
    stage.handle(SpoolCommand::Persist(move_of(0, 7, 0)));
    assert!(!stage.is_round_due());
    assert_eq!(commit(&mut stage), []);
    stage.handle(kept(place, records));
    assert!(stage.is_round_due());
    let written = commit(&mut stage);
    let [Entry::Out { first, end, .. }, Entry::Move { from, skips, .. }] = &written[..] else { panic!("{written:?}") };
    assert_eq!((first.0, end.0, from.0), (1, 2, 0));
    assert_eq!(skips[..], [(*first, *end)], "the dead letter has no number");
    assert!(matches!(stage.take_effects()[..], [Effect::Settled(_), Effect::Persisted { id: MoveId(7), .. }]));
}

#[test]
fn leader_epoch_waits_for_no_letter() {
    let mut stage = ready_stage();
    stage.submit(submission(0, 0, 4));
    commit(&mut stage);
    let place = places(&stage.take_effects())[0];
    stage.handle(SpoolCommand::Failed { place, records: RecordSet::List(vec![1]) });
    for (id, leader_epoch) in [(3, 6), (4, 7)] {
        let leader = LeaderMove { partition: partition(0), id: MoveId(id), leader_epoch };
        stage.handle(SpoolCommand::PersistLeader(leader));
        assert!(stage.is_round_due());
        assert_eq!(commit(&mut stage), [Entry::Leader { partition: place.partition, epoch: leader_epoch }]);
        let [Effect::Persisted { id: persisted, .. }] = stage.take_effects()[..] else { panic!() };
        assert_eq!(persisted, MoveId(id));
    }
}

#[test]
fn move_brings_its_leader_epoch() {
    let mut stage = ready_stage();
    stage.submit(submission(0, 0, 1));
    commit(&mut stage);
    stage.handle(SpoolCommand::Persist(StampMove { leader_epoch: Some(6), ..move_of(0, 7, 0) }));
    let written = commit(&mut stage);
    assert!(matches!(written[..], [Entry::Leader { epoch: 6, .. }, Entry::Move { .. }]), "{written:?}");
}

#[test]
fn notice_follows_a_durable_round() {
    let mut stage = ready_stage();
    stage.submit(submission(0, 0, 2));
    commit(&mut stage);
    let place = places(&stage.take_effects())[0];
    stage.handle(SpoolCommand::Failed { place, records: RecordSet::Range(0..1) });
    stage.handle(kept(place, RecordSet::Range(0..1)));
    assert!(!stage.round(u64::MAX, u64::MAX).is_empty());
    stage.refused();
    assert!(stage.take_effects().is_empty(), "the journal does not have the dead letter");
    commit(&mut stage);
    assert!(matches!(stage.take_effects()[..], [Effect::Settled(_)]));
    stage.handle(kept(place, RecordSet::Range(1..2)));
    stage.round(u64::MAX, u64::MAX);
    stage.failed(&SpoolFault::Write("full".into()));
    assert!(stage.take_effects().is_empty());
}

#[test]
fn letter_in_memory_holds_moves() {
    let mut stage = ready_stage();
    stage.submit(submission(0, 0, 1));
    stage.submit(submission(1, 0, 1));
    commit(&mut stage);
    let place = places(&stage.take_effects())[0];
    stage.handle(SpoolCommand::Failed { place, records: RecordSet::Range(0..1) });
    stage.handle(SpoolCommand::NotKept { place, records: RecordSet::Range(0..1) });
    stage.handle(SpoolCommand::NotKept { place, records: RecordSet::Range(0..1) });
    assert!(matches!(stage.take_effects()[..], [Effect::Held(_)]), "the partition is reported once");
    assert_eq!(stage.held_partitions(), 1);
    stage.handle(SpoolCommand::Persist(move_of(0, 1, 1)));
    stage.handle(SpoolCommand::Persist(move_of(1, 2, 0)));
    let written = commit(&mut stage);
    assert!(matches!(written[..], [Entry::Move { .. }]), "{written:?}");
    assert!(matches!(stage.take_effects()[..], [Effect::Persisted { id: MoveId(2), .. }]));
}

#[test]
fn failed_round_stores_nothing_more() {
    let mut stage = ready_stage();
    stage.submit(submission(0, 0, 1));
    commit(&mut stage);
    stage.take_effects();
    stage.submit(submission(0, 1, 1));
    stage.submit(submission(0, 3, 1));
    assert!(!stage.round(u64::MAX, u64::MAX).is_empty());
    stage.submit(submission(1, 0, 1));
    let fault = SpoolFault::Write("full".into());
    stage.failed(&fault);
    stage.submit(submission(1, 1, 1));
    let effects = stage.take_effects();
    assert!(effects.iter().all(|effect| matches!(effect, Effect::NotStored(_, why) if *why == fault)), "{effects:?}");
    assert_eq!(effects.len(), 4);
    assert!(!stage.is_round_due() && !stage.has_changes() && stage.round(u64::MAX, u64::MAX).is_empty());
    assert_eq!(stage.fault(), Some(&fault));
}

#[test]
fn other_cluster_gets_nothing() {
    let mut stage = Stage::new(Life(1), [].into(), Some("mine".into()), BUDGET);
    learn(&mut stage, 1);
    stage.submit(submission(0, 0, 1));
    commit(&mut stage);
    stage.handle(identity(1, 1, "other"));
    assert!(matches!(stage.fault(), Some(SpoolFault::OtherCluster { .. })));
    assert_eq!(released(&stage.take_effects()), [0; 0]);
    stage.end();
    assert!(matches!(stage.take_effects()[..], [Effect::LeftStored(_)]));
}

#[test]
fn ended_stage_leaves_batches_stored() {
    let mut stage = ready_stage();
    stage.end();
    stage.submit(submission(0, 0, 1));
    commit(&mut stage);
    let effects = stage.take_effects();
    assert!(matches!(effects[..], [Effect::Durable { .. }, Effect::LeftStored(_)]), "{effects:?}");
}

#[test]
fn round_without_room_is_repeated() {
    let mut stage = ready_stage();
    stage.submit(submission(0, 0, 1));
    let first = stage.round(u64::MAX, u64::MAX);
    stage.refused();
    assert!(stage.is_full() && !stage.is_round_due() && stage.has_changes());
    let facts = commit(&mut stage);
    assert!(facts.len() == 2 && facts.iter().all(|fact| first.contains(fact)), "facts fit a full spool: {facts:?}");
    assert!(!stage.is_full() && stage.is_round_due() && !stage.has_changes());
    assert_eq!(stage.round(u64::MAX, 0), []);
    stage.committed();
    assert!(stage.is_full() && !stage.is_round_due(), "the batch has no room");
    let rest = commit(&mut stage);
    assert!(matches!(rest[..], [Entry::Begin { .. }, Entry::Batch(_)]), "{rest:?}");
    assert_eq!(released(&stage.take_effects()), [0]);
    assert!(!stage.is_full());
}

#[test]
fn refused_items_precede_a_batch() {
    let mut stage = ready_stage();
    commit(&mut stage);
    let mut items = ItemSet::default();
    items.insert(Ordinal(1), 7);
    stage.handle(SpoolCommand::Skipped { input: InputNumber(1), items });
    stage.submit(submission(0, 0, 1));
    assert!(stage.round(u64::MAX, u64::MAX).iter().any(|entry| matches!(entry, Entry::Batch(_))));
    stage.refused();
    let alone = stage.round(u64::MAX, u64::MAX);
    assert!(matches!(alone.as_slice(), [Entry::Items { .. }]), "{alone:?}");
    stage.committed();
    assert!(commit(&mut stage).iter().any(|entry| matches!(entry, Entry::Batch(_))));
}

#[test]
fn waiting_batches_fail_at_the_end() {
    let mut stage = ready_stage();
    stage.submit(submission(0, 0, 1));
    stage.round(u64::MAX, 0);
    stage.committed();
    stage.end();
    stage.abandon_waiting();
    assert!(matches!(stage.take_effects()[..], [Effect::NotStored(_, SpoolFault::Full)]));
}

#[test]
fn level_counts_unsettled_records() {
    let mut stage = ready_stage();
    stage.submit(submission(0, 0, 3));
    stage.submit(submission(0, 1, 2));
    commit(&mut stage);
    let place = places(&stage.take_effects())[0];
    assert_eq!((stage.level().records, stage.level().oldest_ms), (5, Some(7)));
    let before = stage.level().bytes;
    stage.handle(SpoolCommand::Delivered { place, records: RecordSet::Range(0..3), base_offset: Some(0) });
    let level = stage.level();
    assert!(level.records == 2 && level.bytes < before, "{level:?}");
}
