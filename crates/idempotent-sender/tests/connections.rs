//! The connections to a broker, seen from above the driver: how many there are under load, and when there is none.
#![allow(clippy::unwrap_used)] // helpers of tests may, as tests do
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier_batcher::{EncodedBatch, Record};
use kafka_courier_idempotent_sender::core::{
    Config, Counters, PartitionId, Reachability, Reason, RecordSet, Settlement, Submission, TopicId,
};
use kafka_courier_idempotent_sender::driver::security::Security;
use kafka_courier_idempotent_sender::driver::{Command, DriverConfig, Observation, Upcalls, driver};
use kafka_courier_test_broker::{ApiKey, Fault, Gate, Rule, TestCluster};
use tokio::sync::{mpsc, watch};

const T: &str = "t";
const PARTITIONS: i32 = 8;

/// What the driver told last.
#[derive(Default)]
struct Told {
    topic: Option<TopicId>,
    settled: usize,
    /// How it stands with the broker, and how many connections there are.
    broker: Option<(Reachability, u32)>,
}

struct Listener(watch::Sender<Told>);

impl Upcalls<()> for Listener {
    fn settled(&mut self, _: Settlement<()>) {
        self.0.send_modify(|told| told.settled += 1);
    }
    fn topic_ready(&mut self, topic: TopicId, _: &Arc<str>, _: &[bool]) {
        self.0.send_modify(|told| told.topic = Some(topic));
    }
    fn observed(&mut self, observation: Observation<'_>) {
        if let Observation::Brokers([broker]) = observation {
            self.0.send_modify(|told| told.broker = Some((broker.reachability, broker.open)));
        }
    }
    fn lingered(&mut self, _: PartitionId, _: u64) -> Option<Submission<()>> {
        None
    }
    fn is_idle(&self) -> bool {
        true
    }
    fn corrected(&mut self, (): (), _: RecordSet, _: Option<i64>) {}
    fn topic_limit(&mut self, _: &Arc<str>, _: usize) {}
    fn topic_failed(&mut self, _: TopicId, _: &Arc<str>, _: &Reason) {}
    fn ending(&mut self) {}
    fn producer_id(&mut self, _: i64) {}
    fn counted(&mut self, _: &Counters, _: usize) {}
}

/// A driver on a cluster of one broker.
struct Bench {
    cluster: TestCluster,
    commands: mpsc::UnboundedSender<Command<()>>,
    told: watch::Receiver<Told>,
}

impl Bench {
    async fn new(core: Config) -> Self {
        let cluster = TestCluster::builder().topic(T, PARTITIONS).start().await.unwrap();
        let (listener, told) = watch::channel(Told::default());
        let address = cluster.address(1).unwrap();
        let config = DriverConfig {
            core,
            bootstrap: vec![(address.ip().to_string().into(), address.port())],
            client_id: "connections".into(),
            connect_timeout: Duration::from_secs(60),
            security: Security::default(),
            default_broker: None,
        };
        let (commands, task) = driver(config, Listener(listener)).unwrap();
        tokio::spawn(task.run());
        commands.send(Command::WantTopic(T.into())).unwrap();
        let mut bench = Self { cluster, commands, told };
        bench.until(|told| told.topic.is_some()).await;
        bench
    }

    /// Waits until the driver has told this. Fails when it has not within a minute.
    async fn until(&mut self, is_so: impl FnMut(&Told) -> bool) {
        let wait = self.told.wait_for(is_so);
        tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap().unwrap();
    }

    /// Has each partition's next batch sent.
    fn submit(&self, ordinal: u64) {
        let topic = self.told.borrow().topic.unwrap();
        for index in 0..PARTITIONS {
            let record = Record { key: None, value: Some(&[b'v'; 2000]), headers: &[], timestamp: 1_700_000_000_000 };
            let submission = Submission {
                partition: PartitionId { topic, index },
                token: (),
                ordinal,
                published_at: Instant::now(),
                batch: EncodedBatch::single(&record).unwrap(),
                aged: false,
            };
            self.commands.send(Command::Sealed(submission)).unwrap();
        }
    }
}

#[tokio::test]
async fn connections_grow_to_the_number_allowed_are_all_closed_when_idle_and_opened_again_when_needed() {
    for allowed in [1, 2, 4] {
        let mut bench = Bench::new(Config {
            connections_per_broker: allowed,
            max_in_flight: 1,
            max_request_bytes: 1024,
            idle_timeout: Duration::from_millis(50),
            ..Config::default()
        })
        .await;
        for round in 0..2 {
            let gate = Gate::new();
            bench.cluster.inject(Rule::on(ApiKey::Produce).times(allowed.into()).then(Fault::Hold(gate.clone())));
            bench.submit(round);
            let arrived = gate.arrived(allowed as usize);
            tokio::time::timeout(Duration::from_secs(60), arrived).await.unwrap();
            bench.until(|told| told.broker == Some((Reachability::Connected, allowed))).await;
            gate.open();
            let settled = PARTITIONS as usize * (round as usize + 1);
            bench.until(|told| told.settled == settled).await;
            bench.until(|told| told.broker == Some((Reachability::Idle, 0))).await;
        }
        assert_eq!(bench.cluster.record_count(T), 2 * PARTITIONS as u64);
    }
}
