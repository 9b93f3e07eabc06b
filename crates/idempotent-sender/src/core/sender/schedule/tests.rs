//! Tests of the schedule with access to its state.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier_batcher::{Accumulator, BufferPool, Compression, Limits, Record};
use kafka_courier_client::{
    BrokerAddress, ClusterMetadata, PartAnswer, PartitionId, PartitionMetadata, ProduceAnswer, ProducePart, Reason,
    TopicId, TopicMetadata,
};

use crate::core::cluster::BrokerConn;
use crate::core::failure::Failure;
use crate::core::types::{Submission, Verdict};
use crate::core::{Action, Backoff, Config, ConnId, RequestId, Sender};

const PARTITIONS: i32 = 4;

/// A sender with one broker that leads all partitions, and the actions of the sender.
struct ScheduleBench {
    sender: Sender<u32>,
    now: Instant,
    ordinals: [u64; PARTITIONS as usize],
    connects: Vec<ConnId>,
    sent: Vec<(ConnId, RequestId, Vec<ProducePart>)>,
    settled: usize,
    failures: Vec<Arc<Failure>>,
    disconnects: usize,
}

impl ScheduleBench {
    fn new(config: Config) -> Self {
        let (now, ordinals) = (Instant::now(), [0; PARTITIONS as usize]);
        let sender = Sender::new(config).unwrap();
        let mut bench = Self {
            sender,
            now,
            ordinals,
            connects: Vec::new(),
            sent: Vec::new(),
            settled: 0,
            failures: Vec::new(),
            disconnects: 0,
        };
        bench.sender.want_topic(now, "orders");
        bench.sender.on_metadata(now, metadata());
        bench.sender.on_producer_id(now, 7);
        bench.carry_out();
        bench
    }

    fn carry_out(&mut self) {
        while let Some(action) = self.sender.poll(self.now) {
            match action {
                Action::Connect { conn, .. } => self.connects.push(conn),
                Action::Send { conn, request, parts } => self.sent.push((conn, request, parts)),
                Action::Settle(settlement) => {
                    self.settled += 1;
                    if let Verdict::Failed(failure) = settlement.verdict {
                        self.failures.push(failure);
                    }
                }
                Action::Disconnect { .. } => self.disconnects += 1,
                _ => {}
            }
        }
    }

    fn submit(&mut self, index: i32, padding: usize) {
        let limits = Limits { max_records: 1, max_bytes: 1 << 20, linger: Duration::ZERO };
        let mut accumulator = Accumulator::new(limits, Compression::None);
        let value = vec![b'.'; padding];
        let record = Record { key: None, value: Some(&value), headers: &[], timestamp: 1 };
        let pushed = accumulator.push(self.now, &record, &mut |_| true, &BufferPool::new(0), || ()).unwrap();
        let batch = pushed.sealed.into_iter().flatten().next().unwrap().encode(&BufferPool::new(0)).batch;
        let ordinal = &mut self.ordinals[index as usize];
        let partition = PartitionId { topic: TopicId(0), index };
        let submission = Submission {
            partition,
            token: 0,
            ordinal: *ordinal,
            published_at: self.now,
            batch,
            aged: false,
            stored: None,
        };
        *ordinal += 1;
        self.sender.on_sealed(self.now, submission).unwrap();
        self.carry_out();
    }

    fn connect_next(&mut self) {
        let conn = self.connects.remove(0);
        self.sender.on_connected(self.now, conn);
        self.carry_out();
    }

    /// Answers the oldest unanswered request with a success.
    fn answer_next(&mut self, throttle: Duration) {
        let (conn, request, parts) = self.sent.remove(0);
        let accepted = PartAnswer { code: 0, base_offset: Some(0), ..PartAnswer::default() };
        let parts = parts.iter().map(|_| Some(accepted.clone())).collect();
        self.sender.on_answer(self.now, conn, request, ProduceAnswer { throttle, parts, ..ProduceAnswer::default() });
        self.carry_out();
    }

    fn prime(&mut self) {
        (0..PARTITIONS).for_each(|partition| self.submit(partition, 1));
        self.connect_next();
        while !self.sent.is_empty() {
            self.answer_next(Duration::ZERO);
        }
        self.settled = 0;
    }

    fn conns(&self) -> impl Iterator<Item = &BrokerConn> {
        self.sender.cluster.conns()
    }
}

fn metadata() -> ClusterMetadata {
    let id = kafka_courier_client::BrokerId(1);
    let partition = |index| PartitionMetadata { index, code: 0, leader: Some(id), leader_epoch: Some(1) };
    let topic = TopicMetadata {
        name: "orders".into(),
        uuid: Some([1; 16]),
        code: 0,
        partitions: (0..PARTITIONS).map(partition).collect(),
    };
    ClusterMetadata { brokers: vec![BrokerAddress { id, host: "one".into(), port: 9092 }], topics: vec![topic] }
}

#[test]
fn request_holds_one_batch_each() {
    let mut bench = ScheduleBench::new(Config::default());
    (0..PARTITIONS).for_each(|partition| bench.submit(partition, 1));
    bench.submit(0, 1);
    bench.connect_next();
    let (_, _, parts) = &bench.sent[0];
    let partitions: Vec<i32> = parts.iter().map(|part| part.partition.index).collect();
    assert_eq!((bench.sent.len(), partitions), (1, vec![0, 1, 2, 3]));
}

#[test]
fn request_size_is_bounded() {
    let mut bench = ScheduleBench::new(Config { max_request_bytes: 1024, ..Config::default() });
    [5000, 600, 600, 250].into_iter().zip(0..).for_each(|(padding, partition)| bench.submit(partition, padding));
    bench.connect_next();
    let counts: Vec<usize> = bench.sent.iter().map(|(_, _, parts)| parts.len()).collect();
    assert_eq!(counts, [1, 1, 2]);
}

#[test]
fn busy_broker_gets_more_connections() {
    let mut bench =
        ScheduleBench::new(Config { max_request_bytes: 1024, connections_per_broker: 2, ..Config::default() });
    bench.prime();
    for round in 0..4 {
        (0..PARTITIONS).for_each(|partition| bench.submit(partition, 900));
        assert!(bench.connects.len() <= usize::from(round == 0));
        if !bench.connects.is_empty() {
            bench.connect_next();
        }
    }
    assert_eq!(bench.conns().count(), 2);
}

#[test]
fn unanswered_requests_open_more_connections() {
    for allowed in [1, 2, 3, 4] {
        let config = Config { max_in_flight: 1, max_request_bytes: 1024, ..Config::default() };
        let config = Config { connections_per_broker: allowed, ..config };
        let mut bench = ScheduleBench::new(config);
        bench.prime();
        (0..PARTITIONS).for_each(|partition| bench.submit(partition, 2000));
        while !bench.connects.is_empty() {
            bench.connect_next();
        }
        let on: BTreeSet<ConnId> = bench.sent.iter().map(|(conn, ..)| *conn).collect();
        assert_eq!((bench.conns().count(), on.len()), (allowed as usize, allowed as usize), "nothing was answered");
        while !bench.sent.is_empty() {
            bench.answer_next(Duration::ZERO);
        }
        assert_eq!(bench.settled, PARTITIONS as usize);
        bench.now += Config::default().idle_timeout;
        bench.carry_out();
        assert_eq!((bench.conns().count(), bench.disconnects), (0, allowed as usize), "all are closed");
    }
}

#[test]
fn reconnection_backoff_doubles() {
    let (base, cap) = (Duration::from_millis(100), Duration::from_millis(400));
    let mut bench = ScheduleBench::new(Config { backoff: Backoff { base, cap }, ..Config::default() });
    bench.submit(0, 1);
    for step in [100, 200, 400, 400] {
        let conn = bench.connects.remove(0);
        bench.sender.on_disconnected(bench.now, conn, "connection refused");
        for (wait, dials) in [(0, 0), (step / 2 - 1, 0), (step / 2 + 1, 1)] {
            bench.now += Duration::from_millis(wait);
            bench.carry_out();
            assert_eq!(bench.connects.len(), dials, "{wait} ms of {step}");
        }
    }
    bench.connect_next();
    bench.answer_next(Duration::ZERO);
    assert_eq!(bench.settled, 1);
}

#[test]
fn unanswered_partition_keeps_its_connection() {
    let mut bench = ScheduleBench::new(Config { max_request_bytes: 1024, ..Config::default() });
    bench.prime();
    bench.submit(0, 2000);
    bench.connect_next();
    (0..3).for_each(|_| bench.submit(0, 2000));
    while !bench.sent.is_empty() {
        let of_partition: Vec<ConnId> = bench.sent.iter().map(|sent| sent.0).collect();
        assert!(of_partition.iter().all(|conn| *conn == of_partition[0]), "{of_partition:?}");
        bench.answer_next(Duration::ZERO);
    }
    assert_eq!(bench.settled, 4);
}

#[test]
fn answered_connection_has_no_load() {
    let mut bench = ScheduleBench::new(Config { max_request_bytes: 1024, ..Config::default() });
    bench.prime();
    for round in 0..20 {
        bench.submit(round % PARTITIONS, 300 * round as usize);
    }
    while !bench.sent.is_empty() {
        bench.answer_next(Duration::ZERO);
    }
    assert_eq!(bench.settled, 20);
    assert!(bench.conns().all(|conn| conn.load() == 0), "{:?}", bench.sender.cluster);
}

#[test]
fn closing_idle_connection_keeps_batches() {
    let config = Config { idle_timeout: Duration::from_secs(1), max_in_flight: 2, ..Config::default() };
    let mut bench = ScheduleBench::new(config);
    bench.prime();
    (0..3).for_each(|_| bench.submit(0, 1));
    bench.answer_next(Duration::from_secs(5));
    bench.answer_next(Duration::from_secs(5));
    assert!(
        bench.sent.is_empty() && bench.conns().any(|conn| !conn.ready().is_empty()),
        "throttled, and one batch waits"
    );
    for _ in 0..10 {
        bench.now += Duration::from_secs(1);
        bench.carry_out();
    }
    assert_eq!(bench.conns().filter(|conn| conn.is_up()).count(), 0, "the idle connection was closed");
    bench.connect_next();
    bench.answer_next(Duration::ZERO);
    assert_eq!(bench.settled, 3);
}

#[test]
fn timeout_names_the_throttling() {
    let mut bench = ScheduleBench::new(Config { max_in_flight: 2, ..Config::default() });
    bench.prime();
    (0..3).for_each(|_| bench.submit(0, 1));
    bench.answer_next(Duration::from_secs(40));
    // One batch waits for its answer, one is queued.
    assert_eq!((bench.sent.len(), bench.settled), (1, 1));
    bench.now += Duration::from_secs(30);
    bench.carry_out();
    let throttled = Reason::Throttled { broker: kafka_courier_client::BrokerId(1), last: Duration::from_secs(40) };
    let reasons: Vec<_> = bench.failures.iter().map(|failure| (failure.reason.clone(), failure.timed_out)).collect();
    assert_eq!(reasons, [(throttled.clone(), true), (throttled, true)]);
}

#[test]
fn past_throttling_is_no_reason() {
    let mut bench = ScheduleBench::new(Config::default());
    bench.prime();
    bench.submit(0, 1);
    bench.answer_next(Duration::from_secs(1));
    bench.now += Duration::from_secs(2);
    bench.submit(0, 1);
    bench.now += Duration::from_secs(30);
    bench.carry_out();
    let named = |failure: &Arc<Failure>| matches!(failure.reason, Reason::Throttled { .. });
    assert!(bench.failures.len() == 1 && !named(&bench.failures[0]), "{:?}", bench.failures);
}

#[test]
fn settled_partition_is_free() {
    let mut bench = ScheduleBench::new(Config::default());
    let partition = |index| PartitionId { topic: TopicId(0), index };
    assert!(bench.sender.is_free_for(partition(0), 0) && !bench.sender.is_free_for(partition(0), 1));
    bench.submit(0, 1);
    bench.connect_next();
    assert!(!bench.sender.is_free_for(partition(0), 1), "one batch is in flight");
    assert!(bench.sender.is_free_for(partition(1), 0), "other partitions do not matter");
    bench.answer_next(Duration::ZERO);
    assert!(bench.sender.is_free_for(partition(0), 1));
    assert!(!bench.sender.is_free_for(partition(PARTITIONS), 0), "the partition does not exist");
}
