//! Metadata that is out of date, or that names a recreated topic.

use std::time::{Duration, Instant};

use kafka_courier_batcher::{Accumulator, BufferPool, Compression, Limits, Record};
use kafka_courier_client::{
    BrokerAddress, BrokerId, ClusterMetadata, ErrorCode, PartAnswer, PartitionId, PartitionMetadata, ProduceAnswer,
    ProducePart, Reason, TopicId, TopicMetadata, TopicUuid,
};

use crate::core::types::{Submission, Verdict};
use crate::core::{Action, Config, ConnId, FailedOutcome, RequestId, Sender};

mod unknown_topics;

/// Returns a batch of `records` records for a partition of the first topic.
pub(in crate::core) fn submission(now: Instant, index: i32, ordinal: u64, records: u32) -> Submission<u32> {
    let limits = Limits { max_records: records, max_bytes: 1 << 20, linger: Duration::ZERO };
    let mut accumulator = Accumulator::new(limits, Compression::None);
    let record = Record { key: None, value: Some(b"value"), headers: &[], timestamp: 1 };
    let mut sealed = Vec::new();
    for _ in 0..records {
        let pushed = accumulator.push(now, &record, &mut |_| true, &BufferPool::new(0), || ()).unwrap();
        sealed.extend(pushed.sealed.into_iter().flatten());
    }
    let batch = sealed.remove(0).encode(&BufferPool::new(0)).batch;
    let partition = PartitionId { topic: TopicId(0), index };
    Submission { partition, token: 0, ordinal, published_at: now, batch, aged: false, stored: None }
}

/// A sender, one broker that leads its topic, and the actions of the sender.
struct MetadataBench {
    sender: Sender<u32>,
    now: Instant,
    ordinals: [u64; 8],
    sent: Vec<(ConnId, RequestId, Vec<ProducePart>)>,
    verdicts: Vec<(i32, Verdict)>,
    available: Vec<bool>,
    /// The number of metadata requests.
    asked: usize,
}

impl MetadataBench {
    fn new() -> Self {
        let now = Instant::now();
        let sender = Sender::new(Config::default()).unwrap();
        let (sent, verdicts, available) = (Vec::new(), Vec::new(), Vec::new());
        let mut bench = Self { sender, now, ordinals: [0; 8], sent, verdicts, available, asked: 0 };
        bench.sender.want_topic(now, "orders");
        bench.sender.on_producer_id(now, 7);
        bench.carry_out();
        bench
    }

    fn carry_out(&mut self) {
        while let Some(action) = self.sender.poll(self.now) {
            match action {
                Action::Connect { conn, .. } => self.sender.on_connected(self.now, conn),
                Action::Send { conn, request, parts } => self.sent.push((conn, request, parts)),
                Action::Settle(settlement) => self.verdicts.push((settlement.partition.index, settlement.verdict)),
                Action::RefreshMetadata { .. } => self.asked += 1,
                Action::TopicReady { available, .. } => self.available = available,
                _ => {}
            }
        }
    }

    /// Delivers metadata with this topic id and number of partitions.
    fn learn(&mut self, uuid: TopicUuid, partitions: i32) {
        self.learn_with(Some(uuid), partitions, Some(BrokerId(1)));
    }

    /// Delivers the same metadata with this leader for all partitions.
    fn learn_with(&mut self, uuid: Option<TopicUuid>, partitions: i32, leader: Option<BrokerId>) {
        let id = BrokerId(1);
        let partition = |index| PartitionMetadata { index, code: 0, leader, leader_epoch: Some(1) };
        let partitions = (0..partitions).map(partition).collect();
        let topic = TopicMetadata { name: "orders".into(), uuid, code: 0, partitions };
        let brokers = vec![BrokerAddress { id, host: "one".into(), port: 9092 }];
        self.sender.on_metadata(self.now, ClusterMetadata { brokers, topics: vec![topic] });
        self.carry_out();
    }

    fn submit(&mut self, index: i32) {
        let ordinal = self.ordinals[index as usize];
        self.ordinals[index as usize] += 1;
        self.sender.on_sealed(self.now, submission(self.now, index, ordinal, 1)).unwrap();
        self.carry_out();
    }

    /// Answers the oldest request with a success.
    fn accept(&mut self) {
        self.answer(0);
    }

    /// Answers the oldest request with an error.
    fn fail(&mut self, code: ErrorCode) {
        self.answer(code.0);
    }

    fn answer(&mut self, code: i16) {
        let (conn, request, parts) = self.sent.remove(0);
        let answer = PartAnswer { code, base_offset: (code == 0).then_some(0), ..PartAnswer::default() };
        let parts = parts.iter().map(|_| Some(answer.clone())).collect();
        self.sender.on_answer(self.now, conn, request, ProduceAnswer { parts, ..ProduceAnswer::default() });
        self.carry_out();
    }

    /// Returns the topic id in a Produce request for the first partition.
    fn uuid_in_use(&mut self) -> TopicUuid {
        self.submit(0);
        let uuid = self.sent[0].2[0].topic_uuid.unwrap();
        self.accept();
        uuid
    }

    fn not_written(&self) -> Vec<i32> {
        let failed =
            |verdict: &Verdict| matches!(verdict, Verdict::Failed(f) if f.outcome == FailedOutcome::NotWritten);
        self.verdicts.iter().filter(|(_, verdict)| failed(verdict)).map(|(index, _)| *index).collect()
    }
}

const FORMER: TopicUuid = [1; 16];
const PRESENT: TopicUuid = [2; 16];

#[test]
fn former_topic_id_is_ignored() {
    let mut bench = MetadataBench::new();
    bench.learn(FORMER, 3);
    bench.learn(PRESENT, 2);
    bench.learn(FORMER, 3);
    assert_eq!(bench.uuid_in_use(), PRESENT);
    assert_eq!(bench.available, [true; 2]);
}

#[test]
fn missing_topic_id_changes_nothing() {
    let mut bench = MetadataBench::new();
    bench.learn(PRESENT, 2);
    bench.learn_with(None, 2, Some(BrokerId(1)));
    assert_eq!(bench.uuid_in_use(), PRESENT);
}

#[test]
fn four_answers_restore_former_id() {
    let mut bench = MetadataBench::new();
    bench.learn(PRESENT, 1);
    bench.learn(FORMER, 1);
    for _ in 0..3 {
        bench.learn(PRESENT, 1);
    }
    assert_eq!(bench.uuid_in_use(), FORMER);
    bench.learn(FORMER, 1);
    for _ in 0..3 {
        bench.learn(PRESENT, 1);
    }
    assert_eq!(bench.uuid_in_use(), FORMER, "three answers, and three more");
    bench.learn(PRESENT, 1);
    assert_eq!(bench.uuid_in_use(), PRESENT);
}

#[test]
fn only_leaders_are_kept_as_brokers() {
    let mut bench = MetadataBench::new();
    bench.learn(PRESENT, 1);
    bench.submit(0);
    let (conn, request, _) = bench.sent.remove(0);
    let brokers = (2..5000).map(|id| BrokerAddress { id: BrokerId(id), host: "far".into(), port: 9092 }).collect();
    let moved = PartAnswer {
        code: ErrorCode::NOT_LEADER_OR_FOLLOWER.0,
        base_offset: None,
        leader: Some((BrokerId(77), 2)),
        ..PartAnswer::default()
    };
    let answer = ProduceAnswer { parts: vec![Some(moved)], brokers, ..ProduceAnswer::default() };
    bench.sender.on_answer(bench.now, conn, request, answer);
    let mut known: Vec<i32> = bench.sender.broker_views().iter().map(|broker| broker.address.id.0).collect();
    known.sort_unstable();
    assert_eq!(known, [1, 77]);
}

#[test]
fn removed_partition_fails_its_batches() {
    let mut bench = MetadataBench::new();
    bench.learn(FORMER, 4);
    bench.submit(3);
    bench.fail(ErrorCode::UNKNOWN_TOPIC_ID);
    (0..3).for_each(|_| bench.submit(3));
    bench.learn(PRESENT, 2);
    assert_eq!(bench.available, [true; 2]);
    assert_eq!(bench.not_written(), [3; 4]);
    bench.submit(3);
    assert_eq!(bench.not_written(), [3; 5], "later batches fail too");
    let Verdict::Failed(failure) = &bench.verdicts[4].1 else { panic!("{:?}", bench.verdicts) };
    assert!(failure.reason.to_string().contains("recreated with 2 partitions"), "{}", failure.reason);
    assert!(failure.reason.is_retriable(), "its key belongs to another partition now");
}

/// Returns a bench with one batch in flight and one queued for each of two partitions, when the topic is recreated with
/// one partition.
fn recreated_with_batches_in_flight() -> MetadataBench {
    let mut bench = MetadataBench::new();
    bench.learn(FORMER, 2);
    [0, 1, 0, 1].into_iter().for_each(|index| bench.submit(index));
    bench.learn(PRESENT, 1);
    assert_eq!((bench.sent.len(), bench.verdicts.len()), (2, 0), "the answers are awaited");
    bench
}

#[test]
fn refused_batches_reach_recreated_topic() {
    let mut bench = recreated_with_batches_in_flight();
    bench.fail(ErrorCode::UNKNOWN_TOPIC_ID);
    bench.fail(ErrorCode::UNKNOWN_TOPIC_ID);
    assert_eq!(bench.not_written(), [1, 1], "the recreated topic has no such partition");
    for _ in 0..2 {
        assert_eq!(bench.sent[0].2[0].topic_uuid, Some(PRESENT));
        bench.accept();
    }
    assert!(matches!(bench.verdicts[2..], [(0, Verdict::Delivered { .. }), (0, Verdict::Delivered { .. })]));
}

#[test]
fn recreated_topic_leaves_open_batch_unknown() {
    let mut bench = recreated_with_batches_in_flight();
    bench.accept();
    assert!(matches!(bench.verdicts[..], [(0, Verdict::Delivered { .. })]), "{:?}", bench.verdicts);
    let (conn, request, _) = bench.sent.remove(0);
    bench.sender.on_written(bench.now, conn, request);
    bench.sender.on_disconnected(bench.now, conn, "cut");
    bench.carry_out();
    let Verdict::Failed(failure) = &bench.verdicts[1].1 else { panic!("{:?}", bench.verdicts) };
    assert_eq!((failure.outcome, bench.not_written()), (FailedOutcome::Unknown, vec![1]));
}

#[test]
fn restored_partition_is_written_again() {
    let mut bench = MetadataBench::new();
    bench.learn(FORMER, 4);
    bench.learn(PRESENT, 2);
    bench.submit(3);
    bench.learn(PRESENT, 4);
    assert_eq!(bench.available, [true; 4]);
    bench.submit(3);
    bench.accept();
    assert_eq!(bench.verdicts.len(), 2);
    assert!(matches!(bench.verdicts[1], (3, Verdict::Delivered { .. })), "{:?}", bench.verdicts);
}

#[test]
fn denied_id_waits_for_metadata() {
    let mut bench = MetadataBench::new();
    bench.learn(FORMER, 1);
    bench.submit(0);
    bench.fail(ErrorCode::UNKNOWN_TOPIC_ID);
    for _ in 0..5 {
        bench.now += Duration::from_secs(1);
        bench.carry_out();
    }
    assert!(
        bench.sent.is_empty() && bench.asked == 2,
        "metadata is slow, and an attempt under this id would be in doubt"
    );
    bench.learn(PRESENT, 1);
    assert_eq!(bench.sent[0].2[0].topic_uuid, Some(PRESENT));
    bench.accept();
    assert!(matches!(bench.verdicts[..], [(0, Verdict::Delivered { .. })]), "{:?}", bench.verdicts);
}

#[test]
fn older_metadata_keeps_id_denied() {
    let mut bench = MetadataBench::new();
    bench.learn(FORMER, 1);
    let before = Duration::from_secs(1);
    bench.now += Config::default().metadata_max_age - before;
    bench.submit(0);
    bench.now += before;
    bench.carry_out();
    assert_eq!((bench.asked, bench.sent.len()), (2, 1), "the metadata is old");
    bench.now += Duration::from_millis(1);
    bench.fail(ErrorCode::UNKNOWN_TOPIC_ID);
    bench.learn(FORMER, 1);
    bench.now += Duration::from_secs(2);
    bench.carry_out();
    assert!(bench.sent.is_empty() && bench.asked == 3, "an attempt under this id would be in doubt: {}", bench.asked);
    bench.learn(FORMER, 1);
    assert_eq!(bench.sent[0].2[0].topic_uuid, Some(FORMER), "the leader was out of date");
}

#[test]
fn missing_topic_is_requested_until_back() {
    let mut bench = MetadataBench::new();
    bench.learn(FORMER, 1);
    bench.submit(0);
    bench.fail(ErrorCode::UNKNOWN_TOPIC_ID);
    bench.now += Config::default().delivery_timeout;
    bench.carry_out();
    assert_eq!(bench.not_written(), [0]);
    bench.submit(0);
    for _ in 0..3 {
        let (asked, brokers) = (bench.asked, vec![BrokerAddress { id: BrokerId(1), host: "one".into(), port: 9092 }]);
        let removed = TopicMetadata {
            name: "orders".into(),
            uuid: Some(FORMER),
            code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0,
            partitions: Vec::new(),
        };
        bench.sender.on_metadata(bench.now, ClusterMetadata { brokers, topics: vec![removed] });
        bench.now += Duration::from_secs(1);
        bench.carry_out();
        assert!(bench.sent.is_empty() && bench.asked > asked);
    }
    bench.learn(FORMER, 1);
    bench.accept();
    assert!(matches!(bench.verdicts[..], [_, (0, Verdict::Delivered { .. })]), "{:?}", bench.verdicts);
}

#[test]
fn refused_metadata_is_requested_again() {
    let mut bench = MetadataBench::new();
    bench.learn(FORMER, 1);
    bench.submit(0);
    bench.fail(ErrorCode::UNKNOWN_TOPIC_ID);
    bench.now += Duration::from_secs(2);
    bench.carry_out();
    let refused = Reason::Broker { code: ErrorCode::SASL_AUTHENTICATION_FAILED, message: None };
    bench.sender.on_metadata_refused(bench.now, &refused);
    bench.carry_out();
    let asked = bench.asked;
    bench.now += Duration::from_secs(6);
    bench.carry_out();
    assert_eq!((bench.asked, bench.verdicts.len()), (asked + 1, 0));
    bench.learn(PRESENT, 1);
    assert_eq!(bench.sent[0].2[0].topic_uuid, Some(PRESENT));
}

/// Returns a bench with three batches of one partition in flight when the topic is recreated. The brokers take topic
/// names, so a write may reach either topic.
fn recreated_with_three_in_flight() -> MetadataBench {
    let mut bench = MetadataBench::new();
    bench.learn(FORMER, 1);
    bench.submit(0);
    bench.accept();
    (0..3).for_each(|_| bench.submit(0));
    assert_eq!(bench.sent.len(), 3);
    bench.learn(PRESENT, 1);
    bench
}

#[test]
fn acceptance_while_switching_proves_nothing_else() {
    let mut bench = recreated_with_three_in_flight();
    bench.fail(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    bench.accept();
    bench.fail(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(
        bench.verdicts.len(),
        2,
        "the first batch was refused and is sent to the recreated topic: {:?}",
        bench.verdicts
    );
    assert!(matches!(bench.verdicts[1], (0, Verdict::Delivered { base_offset: Some(_), .. })));
    assert_eq!(bench.sent[0].2[0].topic_uuid, Some(PRESENT));
}

#[test]
fn refusal_while_switching_blocks_nothing() {
    let mut bench = recreated_with_three_in_flight();
    bench.fail(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    bench.now += Config::default().delivery_timeout;
    bench.carry_out();
    let outcome = |(_, verdict): &(i32, Verdict)| match verdict {
        Verdict::Failed(failure) => failure.outcome,
        verdict => panic!("{verdict:?}"),
    };
    let outcomes: Vec<_> = bench.verdicts[1..].iter().map(outcome).collect();
    assert_eq!(outcomes, [FailedOutcome::NotWritten, FailedOutcome::Unknown, FailedOutcome::Unknown]);
}

#[test]
fn switch_without_leader_is_announced() {
    let mut bench = MetadataBench::new();
    bench.learn(FORMER, 1);
    bench.submit(0);
    bench.learn_with(Some(PRESENT), 1, None);
    assert_eq!(bench.available, [true]);
    bench.fail(ErrorCode::UNKNOWN_TOPIC_ID);
    assert_eq!(bench.available, [false]);
}
