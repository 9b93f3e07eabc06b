//! Which batch leaves on which connection, seen from inside.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier_batcher::{Accumulator, BufferPool, Compression, Limits, Record};

use crate::core::cluster::Conn;
use crate::core::types::{
    BrokerAddress, ClusterMetadata, Failure, PartAnswer, PartitionMetadata, ProduceAnswer, Reason, Submission, TopicId,
    TopicMetadata, Verdict,
};
use crate::core::{Action, Backoff, Config, ConnId, PartitionId, ProducePart, RequestId, Sender};

const PARTITIONS: i32 = 4;

/// A sender with one broker that leads all, and what it was told to do.
struct Bench {
    sender: Sender<u32>,
    now: Instant,
    ordinals: [u64; PARTITIONS as usize],
    connects: Vec<ConnId>,
    sent: Vec<(ConnId, RequestId, Vec<ProducePart>)>,
    settled: usize,
    failures: Vec<Arc<Failure>>,
    disconnects: usize,
}

impl Bench {
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
        let submission =
            Submission { partition, token: 0, ordinal: *ordinal, published_at: self.now, batch, aged: false };
        *ordinal += 1;
        self.sender.on_sealed(self.now, submission).unwrap();
        self.carry_out();
    }

    fn connect_next(&mut self) {
        let conn = self.connects.remove(0);
        self.sender.on_connected(self.now, conn);
        self.carry_out();
    }

    /// Answers the oldest request that is unanswered: all is well.
    fn answer_next(&mut self, throttle: Duration) {
        let (conn, request, parts) = self.sent.remove(0);
        let well = PartAnswer { code: 0, base_offset: 0, log_append_time: -1, ..PartAnswer::default() };
        let parts = parts.iter().map(|_| Some(well.clone())).collect();
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

    fn conns(&self) -> impl Iterator<Item = &Conn> {
        self.sender.conns.values()
    }
}

fn metadata() -> ClusterMetadata {
    let id = crate::core::BrokerId(1);
    let partition = |index| PartitionMetadata { index, code: 0, leader: Some(id), leader_epoch: 1 };
    let topic = TopicMetadata {
        name: "orders".into(),
        uuid: [1; 16],
        code: 0,
        partitions: (0..PARTITIONS).map(partition).collect(),
    };
    ClusterMetadata { brokers: vec![BrokerAddress { id, host: "one".into(), port: 9092 }], topics: vec![topic] }
}

#[test]
fn one_request_holds_one_batch_of_each_partition_of_a_leader() {
    let mut bench = Bench::new(Config::default());
    (0..PARTITIONS).for_each(|partition| bench.submit(partition, 1));
    bench.submit(0, 1);
    bench.connect_next();
    let (_, _, parts) = &bench.sent[0];
    let partitions: Vec<i32> = parts.iter().map(|part| part.partition.index).collect();
    assert_eq!((bench.sent.len(), partitions), (1, vec![0, 1, 2, 3]));
}

#[test]
fn a_request_ends_before_it_is_too_large_but_holds_one_batch_at_least() {
    let mut bench = Bench::new(Config { max_request_bytes: 1024, ..Config::default() });
    [5000, 600, 600, 250].into_iter().zip(0..).for_each(|(padding, partition)| bench.submit(partition, padding));
    bench.connect_next();
    let counts: Vec<usize> = bench.sent.iter().map(|(_, _, parts)| parts.len()).collect();
    assert_eq!(counts, [1, 1, 2]);
}

#[test]
fn a_busy_broker_gets_more_connections_up_to_the_number_allowed() {
    let mut bench = Bench::new(Config { max_request_bytes: 1024, connections_per_broker: 2, ..Config::default() });
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
fn what_waits_behind_answers_that_do_not_come_goes_to_more_connections_and_those_are_closed_when_idle() {
    for allowed in [1, 2, 3, 4] {
        let config = Config { max_in_flight: 1, max_request_bytes: 1024, ..Config::default() };
        let config = Config { connections_per_broker: allowed, ..config };
        let mut bench = Bench::new(config);
        bench.prime();
        (0..PARTITIONS).for_each(|partition| bench.submit(partition, 2000));
        while !bench.connects.is_empty() {
            bench.connect_next();
        }
        let on: BTreeSet<ConnId> = bench.sent.iter().map(|(conn, ..)| *conn).collect();
        assert_eq!((bench.conns().count(), on.len()), (allowed as usize, allowed as usize), "none was answered");
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
fn a_broker_that_is_lost_is_dialled_again_after_waits_that_double_up_to_their_bound() {
    let (base, cap) = (Duration::from_millis(100), Duration::from_millis(400));
    let mut bench = Bench::new(Config { backoff: Backoff { base, cap }, ..Config::default() });
    bench.submit(0, 1);
    for step in [100, 200, 400, 400] {
        let conn = bench.connects.remove(0);
        bench.sender.on_disconnected(bench.now, conn, "nobody listens");
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
fn a_partition_stays_on_one_connection_while_anything_of_it_is_unanswered() {
    let mut bench = Bench::new(Config { max_request_bytes: 1024, ..Config::default() });
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
fn a_connection_carries_nothing_once_everything_is_answered() {
    let mut bench = Bench::new(Config { max_request_bytes: 1024, ..Config::default() });
    bench.prime();
    for round in 0..20 {
        bench.submit(round % PARTITIONS, 300 * round as usize);
    }
    while !bench.sent.is_empty() {
        bench.answer_next(Duration::ZERO);
    }
    assert_eq!(bench.settled, 20);
    assert!(bench.conns().all(|conn| conn.load == 0), "{:?}", bench.sender.conns);
}

#[test]
fn a_partition_that_waits_on_a_connection_that_is_closed_for_idleness_waits_on() {
    let config = Config { idle_timeout: Duration::from_secs(1), max_in_flight: 2, ..Config::default() };
    let mut bench = Bench::new(config);
    bench.prime();
    (0..3).for_each(|_| bench.submit(0, 1));
    bench.answer_next(Duration::from_secs(5));
    bench.answer_next(Duration::from_secs(5));
    assert!(bench.sent.is_empty() && bench.conns().any(|conn| !conn.ready.is_empty()), "throttled, and one waits");
    for _ in 0..10 {
        bench.now += Duration::from_secs(1);
        bench.carry_out();
    }
    assert_eq!(bench.conns().filter(|conn| conn.up).count(), 0, "the idle connection was closed");
    bench.connect_next();
    bench.answer_next(Duration::ZERO);
    assert_eq!(bench.settled, 3);
}

#[test]
fn a_failure_under_throttling_names_it() {
    let mut bench = Bench::new(Config { max_in_flight: 2, ..Config::default() });
    bench.prime();
    (0..3).for_each(|_| bench.submit(0, 1));
    bench.answer_next(Duration::from_secs(40));
    // One waits for its answer, one to be sent.
    assert_eq!((bench.sent.len(), bench.settled), (1, 1));
    bench.now += Duration::from_secs(30);
    bench.carry_out();
    let throttled = Reason::Throttled { broker: crate::core::BrokerId(1), last: Duration::from_secs(40) };
    let reasons: Vec<_> = bench.failures.iter().map(|failure| (failure.reason.clone(), failure.timed_out)).collect();
    assert_eq!(reasons, [(throttled.clone(), true), (throttled, true)]);
}

#[test]
fn throttling_of_former_days_is_no_cause() {
    let mut bench = Bench::new(Config::default());
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
fn a_partition_is_free_for_its_next_batch_once_all_before_it_have_their_verdict() {
    let mut bench = Bench::new(Config::default());
    let partition = |index| PartitionId { topic: TopicId(0), index };
    assert!(bench.sender.is_free_for(partition(0), 0) && !bench.sender.is_free_for(partition(0), 1));
    bench.submit(0, 1);
    bench.connect_next();
    assert!(!bench.sender.is_free_for(partition(0), 1), "one is on its way");
    assert!(bench.sender.is_free_for(partition(1), 0), "other partitions do not matter");
    bench.answer_next(Duration::ZERO);
    assert!(bench.sender.is_free_for(partition(0), 1));
    assert!(!bench.sender.is_free_for(partition(PARTITIONS), 0), "there is no such partition");
}
