//! Each outage is reported once when it starts and once when it ends.

use kafka_courier_client::{ClusterMetadata, PartitionMetadata, TopicMetadata};

use std::time::Duration;

use super::*;
use crate::core::{Action, Config, ConnId, Reachability};

struct OutageBench {
    sender: Sender<u32>,
    now: Instant,
    connects: Vec<ConnId>,
}

fn address(id: i32) -> BrokerAddress {
    BrokerAddress { id: BrokerId(id), host: "one".into(), port: 9092 }
}

impl OutageBench {
    fn new() -> Self {
        let now = Instant::now();
        let mut bench = Self { sender: Sender::new(Config::default()).unwrap(), now, connects: Vec::new() };
        bench.sender.want_topic(now, "orders");
        bench.sender.on_producer_id(now, 7);
        bench.carry_out();
        bench
    }

    /// A bench whose first broker has a connection, and `records` records to send.
    fn connected(brokers: &[i32], records: u32) -> Self {
        let mut bench = Self::new();
        bench.learn(brokers);
        bench.submit(0, records);
        bench.sender.on_connected(bench.now, bench.connects[0]);
        bench.carry_out();
        bench
    }

    fn carry_out(&mut self) {
        while let Some(action) = self.sender.poll(self.now) {
            if let Action::Connect { conn, .. } = action {
                self.connects.push(conn);
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.carry_out();
    }

    /// Delivers metadata with these brokers. The first one leads.
    fn learn(&mut self, brokers: &[i32]) {
        let leader = brokers.first().map(|id| BrokerId(*id));
        let partitions = vec![PartitionMetadata { index: 0, code: 0, leader, leader_epoch: None }];
        let topic = TopicMetadata { name: "orders".into(), uuid: Some([1; 16]), code: 0, partitions };
        let brokers = brokers.iter().map(|id| address(*id)).collect();
        self.sender.on_metadata(self.now, ClusterMetadata { brokers, topics: vec![topic] });
        self.carry_out();
    }

    /// Submits a batch of `records` records that were published now.
    fn submit(&mut self, ordinal: u64, records: u32) {
        let submission = crate::core::sender::metadata::tests::submission(self.now, 0, ordinal, records);
        self.sender.on_sealed(self.now, submission).unwrap();
        self.carry_out();
    }

    /// Answers the oldest request of a connection.
    fn answer(&mut self, conn: ConnId) {
        let request = self.sender.cluster.conn(conn).unwrap().inflight()[0].id;
        let part = kafka_courier_client::PartAnswer { base_offset: Some(0), ..Default::default() };
        let answer = kafka_courier_client::ProduceAnswer { parts: vec![Some(part)], ..Default::default() };
        self.sender.on_answer(self.now, conn, request, answer);
        self.carry_out();
    }

    fn outage(&self) -> Option<crate::core::OutageView> {
        self.sender.broker_views().first().and_then(|view| view.outage)
    }
}

#[test]
fn outage_is_reported_twice() {
    let mut bench = OutageBench::connected(&[1], 3);
    let lost_at = bench.now;
    bench.sender.on_disconnected(bench.now, bench.connects[0], "reset");
    assert_eq!(bench.sender.take_outage_reports(), [], "a lost connection is no outage yet");
    for attempt in 1..10 {
        bench.pass(Duration::from_secs(2));
        bench.sender.on_disconnected(bench.now, bench.connects[attempt], "connection refused");
        bench.carry_out();
        match &bench.sender.take_outage_reports()[..] {
            [OutageReport::Lost { broker, why, waiting }] if attempt == 1 => {
                assert_eq!((broker, &**why, waiting.events), (&address(1), "connection refused", 3));
                assert_eq!(waiting.first_fails_at, Some(lost_at + Config::default().delivery_timeout));
            }
            news => assert!(attempt > 1 && news.is_empty(), "{attempt}: {news:?}"),
        }
        assert_eq!(bench.outage().map(|outage| (outage.since, outage.waiting.events)), Some((lost_at, 3)));
        assert_eq!(bench.sender.broker_views()[0].reachability, Reachability::Unreachable);
    }
    bench.pass(Duration::from_secs(2));
    bench.sender.on_connected(bench.now, bench.connects[10]);
    assert_eq!(
        bench.sender.take_outage_reports(),
        [OutageReport::Back { broker: address(1), lasted: bench.now - lost_at }]
    );
    assert_eq!(bench.outage(), None);
}

#[test]
fn unnamed_lost_broker_has_outage() {
    let mut bench = OutageBench::new();
    bench.learn(&[1, 2]);
    bench.submit(0, 1);
    bench.sender.on_connected(bench.now, bench.connects[0]);
    bench.sender.on_disconnected(bench.now, bench.connects[0], "reset");
    bench.carry_out();
    bench.learn(&[2]);
    let news = bench.sender.take_outage_reports();
    assert!(matches!(&news[..], [OutageReport::Lost { broker, .. }] if *broker == address(1)), "{news:?}");
    bench.learn(&[2]);
    assert_eq!(bench.sender.take_outage_reports(), []);
    bench.learn(&[2, 1]);
    assert!(matches!(bench.sender.take_outage_reports()[..], [OutageReport::Back { .. }]));
}

#[test]
fn answer_ends_silent_outage() {
    let mut bench = OutageBench::connected(&[1], 1);
    bench.pass(Config::default().request_timeout);
    assert!(matches!(bench.sender.take_outage_reports()[..], [OutageReport::Lost { .. }]));
    bench.pass(Duration::from_secs(2));
    bench.sender.on_connected(bench.now, bench.connects[1]);
    bench.carry_out();
    assert_eq!(bench.sender.take_outage_reports(), [], "the broker takes connections and answers nothing");
    bench.answer(bench.connects[1]);
    assert!(matches!(bench.sender.take_outage_reports()[..], [OutageReport::Back { .. }]));
}

#[test]
fn ended_idle_connection_starts_no_outage() {
    let mut bench = OutageBench::connected(&[1], 1);
    bench.answer(bench.connects[0]);
    bench.sender.on_disconnected(bench.now, bench.connects[0], "closed by the broker");
    bench.pass(Duration::from_secs(5 * 60 * 60));
    bench.submit(1, 3);
    bench.pass(Duration::from_millis(10));
    bench.sender.on_disconnected(bench.now, bench.connects[1], "connection refused");
    let failed_at = bench.now;
    assert_eq!(bench.outage().map(|outage| outage.since), Some(failed_at));
    bench.pass(Duration::from_secs(60));
    bench.sender.on_connected(bench.now, bench.connects[2]);
    let back = OutageReport::Back { broker: address(1), lasted: bench.now - failed_at };
    assert_eq!(bench.sender.take_outage_reports().last(), Some(&back));
}

#[test]
fn failed_second_connection_starts_no_outage() {
    let mut bench = OutageBench::connected(&[1], 1);
    let second = ConnId(1_000);
    bench.sender.cluster.add_second_conn(BrokerId(1), second, bench.now);
    bench.sender.on_disconnected(bench.now, second, "connection refused");
    bench.answer(bench.connects[0]);
    bench.sender.on_disconnected(bench.now, bench.connects[0], "closed by the broker");
    bench.pass(Duration::from_secs(60 * 60));
    bench.submit(1, 1);
    bench.pass(Duration::from_millis(10));
    bench.sender.on_disconnected(bench.now, bench.connects[1], "connection refused");
    assert_eq!(bench.outage().map(|outage| outage.since), Some(bench.now));
}

#[test]
fn outage_counts_from_last_loss() {
    let mut bench = OutageBench::connected(&[1], 1);
    let second = ConnId(1_000);
    bench.sender.cluster.add_second_conn(BrokerId(1), second, bench.now);
    bench.sender.on_connected(bench.now, second);
    bench.sender.on_disconnected(bench.now, bench.connects[0], "reset");
    bench.now += Duration::from_millis(3);
    bench.sender.on_disconnected(bench.now, second, "reset");
    let lost_at = bench.now;
    bench.pass(Duration::from_secs(2));
    bench.sender.on_disconnected(bench.now, bench.connects[1], "connection refused");
    assert_eq!(bench.outage().map(|outage| outage.since), Some(lost_at), "the records wait since then");
}

#[test]
fn moved_leader_ends_the_wait() {
    let mut bench = OutageBench::connected(&[1, 2], 1);
    bench.sender.on_disconnected(bench.now, bench.connects[0], "reset");
    bench.carry_out();
    bench.learn(&[2, 1]);
    bench.pass(Duration::from_secs(30 * 60));
    bench.learn(&[2]);
    let since = bench.sender.broker_views()[0].outage.map(|outage| outage.since);
    assert_eq!(since, Some(bench.now), "nothing waited for broker 1 meanwhile");
}
