//! What is believed of metadata that is out of date, or that tells of another life of a topic.

use std::time::{Duration, Instant};

use kafka_courier_batcher::{Accumulator, BufferPool, Compression, Limits, Record};

use crate::core::types::{
    BrokerAddress, BrokerId, ClusterMetadata, FailedOutcome, PartAnswer, PartitionMetadata, ProduceAnswer, Submission,
    TopicId, TopicMetadata, TopicUuid, Verdict,
};
use crate::core::{Action, Config, ConnId, ErrorCode, PartitionId, ProducePart, Reason, RequestId, Sender};

/// A batch of so many records for a partition of the first topic.
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
    Submission { partition, token: 0, ordinal, published_at: now, batch, aged: false }
}

/// A sender whose topic one broker leads, and what it said.
struct Bench {
    sender: Sender<u32>,
    now: Instant,
    ordinals: [u64; 8],
    sent: Vec<(ConnId, RequestId, Vec<ProducePart>)>,
    verdicts: Vec<(i32, Verdict)>,
    available: Vec<bool>,
    /// How often metadata was asked for.
    asked: usize,
}

impl Bench {
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

    /// Metadata that names this id and so many partitions.
    fn learn(&mut self, uuid: TopicUuid, partitions: i32) {
        self.learn_with(uuid, partitions, Some(BrokerId(1)));
    }

    /// The same; all partitions have this leader.
    fn learn_with(&mut self, uuid: TopicUuid, partitions: i32, leader: Option<BrokerId>) {
        let id = BrokerId(1);
        let partition = |index| PartitionMetadata { index, code: 0, leader, leader_epoch: 1 };
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

    /// Answers the oldest request so.
    fn answer(&mut self, code: i16) {
        let (conn, request, parts) = self.sent.remove(0);
        let answer = PartAnswer { code, base_offset: if code == 0 { 0 } else { -1 }, ..PartAnswer::default() };
        let parts = parts.iter().map(|_| Some(answer.clone())).collect();
        self.sender.on_answer(self.now, conn, request, ProduceAnswer { parts, ..ProduceAnswer::default() });
        self.carry_out();
    }

    /// The topic id that a batch for the first partition is sent with.
    fn uuid_in_use(&mut self) -> TopicUuid {
        self.submit(0);
        let uuid = self.sent[0].2[0].topic_uuid;
        self.answer(0);
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
fn an_answer_that_names_a_former_id_of_the_topic_is_out_of_date() {
    let mut bench = Bench::new();
    bench.learn(FORMER, 3);
    bench.learn(PRESENT, 2);
    bench.learn(FORMER, 3);
    assert_eq!(bench.uuid_in_use(), PRESENT);
    assert_eq!(bench.available, [true; 2]);
}

#[test]
fn an_answer_without_an_id_leaves_the_one_that_is_known() {
    let mut bench = Bench::new();
    bench.learn(PRESENT, 2);
    bench.learn([0; 16], 2);
    assert_eq!(bench.uuid_in_use(), PRESENT);
}

#[test]
fn a_former_id_is_believed_once_four_answers_in_a_row_have_named_it() {
    let mut bench = Bench::new();
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
    assert_eq!(bench.uuid_in_use(), FORMER, "three, and three more");
    bench.learn(PRESENT, 1);
    assert_eq!(bench.uuid_in_use(), PRESENT);
}

#[test]
fn of_brokers_that_an_answer_lists_those_alone_are_kept_that_it_names_as_leaders() {
    let mut bench = Bench::new();
    bench.learn(PRESENT, 1);
    bench.submit(0);
    let (conn, request, _) = bench.sent.remove(0);
    let brokers = (2..5000).map(|id| BrokerAddress { id: BrokerId(id), host: "far".into(), port: 9092 }).collect();
    let moved = PartAnswer { code: 6, base_offset: -1, leader: Some((BrokerId(77), 2)), ..PartAnswer::default() };
    let answer = ProduceAnswer { parts: vec![Some(moved)], brokers, ..ProduceAnswer::default() };
    bench.sender.on_answer(bench.now, conn, request, answer);
    let mut known: Vec<i32> = bench.sender.broker_views().iter().map(|broker| broker.address.id.0).collect();
    known.sort_unstable();
    assert_eq!(known, [1, 77]);
}

#[test]
fn what_waits_for_a_partition_that_the_topic_made_anew_has_no_more_is_given_up_at_once() {
    let mut bench = Bench::new();
    bench.learn(FORMER, 4);
    bench.submit(3);
    bench.answer(100);
    (0..3).for_each(|_| bench.submit(3));
    bench.learn(PRESENT, 2);
    assert_eq!(bench.available, [true; 2]);
    assert_eq!(bench.not_written(), [3; 4]);
    bench.submit(3);
    assert_eq!(bench.not_written(), [3; 5], "and so is what comes later");
    let Verdict::Failed(failure) = &bench.verdicts[4].1 else { panic!("{:?}", bench.verdicts) };
    assert!(failure.reason.to_string().contains("made anew with 2 partitions"), "{}", failure.reason);
    assert!(failure.reason.is_retriable(), "its key has another partition now");
}

/// One batch each is under way to two partitions, and one waits behind each, when the topic is made anew with one.
fn made_anew_meanwhile() -> Bench {
    let mut bench = Bench::new();
    bench.learn(FORMER, 2);
    [0, 1, 0, 1].into_iter().for_each(|index| bench.submit(index));
    bench.learn(PRESENT, 1);
    assert_eq!((bench.sent.len(), bench.verdicts.len()), (2, 0), "the answers are waited for");
    bench
}

#[test]
fn what_a_former_topic_refused_goes_to_the_one_made_anew_whenever_the_answer_comes() {
    let mut bench = made_anew_meanwhile();
    bench.answer(100);
    bench.answer(100);
    assert_eq!(bench.not_written(), [1, 1], "the new one has no such partition");
    for _ in 0..2 {
        assert_eq!(bench.sent[0].2[0].topic_uuid, PRESENT);
        bench.answer(0);
    }
    assert!(matches!(bench.verdicts[2..], [(0, Verdict::Delivered { .. }), (0, Verdict::Delivered { .. })]));
}

#[test]
fn what_a_former_topic_took_is_delivered_and_what_it_may_have_taken_is_unknown() {
    let mut bench = made_anew_meanwhile();
    bench.answer(0);
    assert!(matches!(bench.verdicts[..], [(0, Verdict::Delivered { .. })]), "{:?}", bench.verdicts);
    let (conn, request, _) = bench.sent.remove(0);
    bench.sender.on_written(bench.now, conn, request);
    bench.sender.on_disconnected(bench.now, conn, "cut");
    bench.carry_out();
    let Verdict::Failed(failure) = &bench.verdicts[1].1 else { panic!("{:?}", bench.verdicts) };
    assert_eq!((failure.outcome, bench.not_written()), (FailedOutcome::Unknown, vec![1]));
}

#[test]
fn a_partition_that_comes_again_is_written_to_again() {
    let mut bench = Bench::new();
    bench.learn(FORMER, 4);
    bench.learn(PRESENT, 2);
    bench.submit(3);
    bench.learn(PRESENT, 4);
    assert_eq!(bench.available, [true; 4]);
    bench.submit(3);
    bench.answer(0);
    assert_eq!(bench.verdicts.len(), 2);
    assert!(matches!(bench.verdicts[1], (3, Verdict::Delivered { .. })), "{:?}", bench.verdicts);
}

#[test]
fn an_id_that_the_leader_does_not_know_is_not_sent_again_before_the_cluster_has_told_the_topics_id() {
    let mut bench = Bench::new();
    bench.learn(FORMER, 1);
    bench.submit(0);
    bench.answer(100);
    for _ in 0..5 {
        bench.now += Duration::from_secs(1);
        bench.carry_out();
    }
    assert!(bench.sent.is_empty() && bench.asked == 2, "metadata is slow, and a try under the id would be in doubt");
    bench.learn(PRESENT, 1);
    assert_eq!(bench.sent[0].2[0].topic_uuid, PRESENT);
    bench.answer(0);
    assert!(matches!(bench.verdicts[..], [(0, Verdict::Delivered { .. })]), "{:?}", bench.verdicts);
}

#[test]
fn an_answer_that_was_asked_for_before_the_leader_denied_the_id_does_not_bring_the_id_back() {
    let mut bench = Bench::new();
    bench.learn(FORMER, 1);
    let before = Duration::from_secs(1);
    bench.now += Config::default().metadata_max_age - before;
    bench.submit(0);
    bench.now += before;
    bench.carry_out();
    assert_eq!((bench.asked, bench.sent.len()), (2, 1), "because of its age");
    bench.now += Duration::from_millis(1);
    bench.answer(100);
    bench.learn(FORMER, 1);
    bench.now += Duration::from_secs(2);
    bench.carry_out();
    assert!(bench.sent.is_empty() && bench.asked == 3, "a try under the id would be in doubt: {}", bench.asked);
    bench.learn(FORMER, 1);
    assert_eq!(bench.sent[0].2[0].topic_uuid, FORMER, "then it was the leader that was behind");
}

#[test]
fn while_a_topic_is_away_its_id_is_asked_for_again_and_the_same_one_is_used_again() {
    let mut bench = Bench::new();
    bench.learn(FORMER, 1);
    bench.submit(0);
    bench.answer(100);
    bench.now += Config::default().delivery_timeout;
    bench.carry_out();
    assert_eq!(bench.not_written(), [0]);
    bench.submit(0);
    for _ in 0..3 {
        let (asked, brokers) = (bench.asked, vec![BrokerAddress { id: BrokerId(1), host: "one".into(), port: 9092 }]);
        let gone = TopicMetadata { name: "orders".into(), uuid: FORMER, code: 3, partitions: Vec::new() };
        bench.sender.on_metadata(bench.now, ClusterMetadata { brokers, topics: vec![gone] });
        bench.now += Duration::from_secs(1);
        bench.carry_out();
        assert!(bench.sent.is_empty() && bench.asked > asked);
    }
    bench.learn(FORMER, 1);
    bench.answer(0);
    assert!(matches!(bench.verdicts[..], [_, (0, Verdict::Delivered { .. })]), "{:?}", bench.verdicts);
}

#[test]
fn where_metadata_is_refused_it_is_asked_for_again_for_what_stands_still_for_an_id() {
    let mut bench = Bench::new();
    bench.learn(FORMER, 1);
    bench.submit(0);
    bench.answer(100);
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
    assert_eq!(bench.sent[0].2[0].topic_uuid, PRESENT);
}

/// Three batches of one partition are under way when the topic is made anew; the brokers take names, so that a write may
/// go to either topic.
fn several_under_way_when_made_anew() -> Bench {
    let mut bench = Bench::new();
    bench.learn(FORMER, 1);
    bench.submit(0);
    bench.answer(0);
    (0..3).for_each(|_| bench.submit(0));
    assert_eq!(bench.sent.len(), 3);
    bench.learn(PRESENT, 1);
    bench
}

#[test]
fn an_acceptance_after_a_topic_was_made_anew_proves_nothing_of_those_before_it() {
    let mut bench = several_under_way_when_made_anew();
    bench.answer(3);
    bench.answer(0);
    bench.answer(3);
    assert_eq!(bench.verdicts.len(), 2, "the first was refused, and goes to the new topic: {:?}", bench.verdicts);
    assert!(matches!(bench.verdicts[1], (0, Verdict::Delivered { base_offset: Some(_), .. })));
    assert_eq!(bench.sent[0].2[0].topic_uuid, PRESENT);
}

#[test]
fn a_refusal_after_a_topic_was_made_anew_bars_none_of_those_behind_it() {
    let mut bench = several_under_way_when_made_anew();
    bench.answer(3);
    bench.now += Config::default().delivery_timeout;
    bench.carry_out();
    let outcome = |(_, verdict): &(i32, Verdict)| match verdict {
        Verdict::Failed(failure) => failure.outcome,
        Verdict::Delivered { .. } => panic!("{verdict:?}"),
    };
    let outcomes: Vec<_> = bench.verdicts[1..].iter().map(outcome).collect();
    assert_eq!(outcomes, [FailedOutcome::NotWritten, FailedOutcome::Unknown, FailedOutcome::Unknown]);
}

#[test]
fn a_partition_that_turns_to_a_topic_without_a_leader_is_said_to_have_none() {
    let mut bench = Bench::new();
    bench.learn(FORMER, 1);
    bench.submit(0);
    bench.learn_with(PRESENT, 1, None);
    assert_eq!(bench.available, [true]);
    bench.answer(100);
    assert_eq!(bench.available, [false]);
}

/// A sender, and the topics that each request for metadata named.
struct Asker {
    sender: Sender<u32>,
    now: Instant,
    asked: Vec<Vec<String>>,
    failed: Vec<TopicId>,
}

impl Asker {
    fn new() -> Self {
        let sender = Sender::new(Config::default()).unwrap();
        Self { sender, now: Instant::now(), asked: Vec::new(), failed: Vec::new() }
    }

    fn carry_out(&mut self) {
        while let Some(action) = self.sender.poll(self.now) {
            match action {
                Action::RefreshMetadata { topics } => {
                    self.asked.push(topics.iter().map(ToString::to_string).collect());
                }
                Action::TopicFailed { topic, .. } => self.failed.push(topic),
                _ => {}
            }
        }
    }

    fn want(&mut self, topics: &[&str]) {
        topics.iter().for_each(|topic| {
            let _ = self.sender.want_topic(self.now, topic);
        });
        self.carry_out();
    }

    /// Answers the request on its way: the topics that are not among these are not there.
    fn answer(&mut self, there: &[&str]) {
        let topic = |name: &String| {
            let code = if there.contains(&name.as_str()) { 0 } else { 3 };
            let partition = PartitionMetadata { index: 0, code: 0, leader: Some(BrokerId(1)), leader_epoch: 1 };
            let partitions = if code == 0 { vec![partition] } else { Vec::new() };
            TopicMetadata { name: name.as_str().into(), uuid: [1; 16], code, partitions }
        };
        let topics = self.asked.last().unwrap().iter().map(topic).collect();
        let brokers = vec![BrokerAddress { id: BrokerId(1), host: "one".into(), port: 9092 }];
        self.sender.on_metadata(self.now, ClusterMetadata { brokers, topics });
        self.carry_out();
    }
}

#[test]
fn unknown_topics_share_one_request() {
    let mut asker = Asker::new();
    asker.want(&["a", "b", "c"]);
    assert_eq!(asker.asked, [["a", "b", "c"]]);
    asker.want(&["d"]);
    asker.want(&["e"]);
    asker.answer(&["a", "b", "c"]);
    assert_eq!(asker.asked[1..], [["d", "e"]], "they were wanted while the first request was on its way");
}

#[test]
fn unknown_topic_does_not_wait_for_the_backoff() {
    let mut asker = Asker::new();
    for topic in ["a", "b", "c", "d"] {
        asker.want(&[topic]);
        assert_eq!(asker.asked.pop().unwrap(), [topic], "no time has passed");
        asker.asked = vec![vec![topic.to_owned()]];
        asker.answer(&[topic]);
    }
}

#[test]
fn missing_topic_delays_no_other() {
    let mut asker = Asker::new();
    asker.want(&["missing"]);
    for _ in 0..8 {
        asker.answer(&[]);
        asker.now += Duration::from_millis(1000); // the longest backoff
        asker.carry_out();
    }
    assert_eq!(asker.asked.len(), 9, "it is asked for after each backoff");
    asker.answer(&[]);
    asker.want(&["there"]);
    assert_eq!(asker.asked.last().unwrap()[..], ["missing", "there"]);
    asker.answer(&["there"]);
    asker.want(&["other"]);
    assert_eq!(asker.asked.len(), 11);
}

#[test]
fn missing_topics_fail_side_by_side() {
    let mut asker = Asker::new();
    let timeout = Config::default().metadata_timeout;
    let begun = asker.now;
    asker.want(&["a", "b", "c", "d", "e", "f"]);
    while asker.failed.len() < 6 {
        asker.answer(&[]);
        asker.now = asker.sender.next_deadline().unwrap().max(asker.now);
        asker.carry_out();
        assert!(asker.now <= begun + timeout, "{:?}", asker.failed);
    }
    assert_eq!(asker.now, begun + timeout);
    assert!(asker.asked.len() < 40, "{} requests: they share them", asker.asked.len());
}

#[test]
fn unanswered_requests_wait_for_the_backoff() {
    let mut asker = Asker::new();
    asker.want(&["a"]);
    asker.sender.on_metadata_failed(asker.now, "nobody is there");
    asker.want(&["b"]);
    assert_eq!(asker.asked.len(), 1, "no broker answers");
    asker.now += Duration::from_millis(100);
    asker.carry_out();
    assert_eq!(asker.asked[1..], [["a", "b"]]);
}
