//! Tests of the driver's connections to a broker, under load and when idle.
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier_batcher::{EncodedBatch, Record};
use kafka_courier_client::config::ClientConfig;
use kafka_courier_client::security::ConnectionSecurity;
use kafka_courier_client::{PartitionId, Reason, TopicId};
use kafka_courier_idempotent_sender::core::{
    Config, Counters, LeaderMove, Reachability, RecordSet, Settlement, StampMove, Submission,
};
use kafka_courier_idempotent_sender::driver::{DriverCommand, DriverConfig, Observation, Upcalls, driver};
use kafka_courier_test_broker::{ApiKey, Fault, Gate, Rule, TestCluster};
use tokio::sync::{mpsc, watch};

const T: &str = "t";
const PARTITIONS: i32 = 8;

/// The state that the driver reported last.
#[derive(Default)]
struct ReportedState {
    topic: Option<TopicId>,
    settled: usize,
    /// The broker's reachability, and the number of open connections.
    broker: Option<(Reachability, u32)>,
}

struct Listener(watch::Sender<ReportedState>);

impl Upcalls<()> for Listener {
    fn settled(&mut self, _: Settlement<()>) {
        self.0.send_modify(|state| state.settled += 1);
    }
    fn topic_ready(&mut self, topic: TopicId, _: &Arc<str>, _: &[bool]) {
        self.0.send_modify(|state| state.topic = Some(topic));
    }
    fn observed(&mut self, observation: Observation<'_>) {
        if let Observation::Brokers([broker]) = observation {
            self.0.send_modify(|state| state.broker = Some((broker.reachability, broker.open)));
        }
    }
    fn lingered(&mut self, _: PartitionId, _: u64) -> Option<Submission<()>> {
        None
    }
    fn is_idle(&self) -> bool {
        true
    }
    fn persist(&mut self, _: StampMove) {}
    fn needs_more(&mut self, _: PartitionId) {}
    fn persist_leader(&mut self, _: LeaderMove) {}
    fn waits(&mut self, _: PartitionId, _: &Arc<str>, _: &Reason) {}
    fn corrected(&mut self, (): (), _: RecordSet, _: Option<i64>) {}
    fn topic_limit(&mut self, _: &Arc<str>, _: usize) {}
    fn topic_failed(&mut self, _: TopicId, _: &Arc<str>, _: &Reason) {}
    fn ending(&mut self) {}
    fn producer_id(&mut self, _: i64) {}
    fn counted(&mut self, _: &Counters, _: usize) {}
}

/// A driver on a cluster of one broker.
struct DriverHarness {
    cluster: TestCluster,
    commands: mpsc::UnboundedSender<DriverCommand<()>>,
    reported: watch::Receiver<ReportedState>,
}

impl DriverHarness {
    async fn new(core: Config) -> Self {
        let cluster = TestCluster::builder().topic(T, PARTITIONS).start().await.unwrap();
        let (listener, reported) = watch::channel(ReportedState::default());
        let address = cluster.address(1).unwrap();
        let config = DriverConfig {
            client: ClientConfig {
                bootstrap: vec![(address.ip().to_string().into(), address.port())],
                client_id: "connections".into(),
                connect_timeout: Duration::from_secs(60),
                request_timeout: core.request_timeout,
                retry_backoff: core.backoff.base,
                retry_backoff_max: core.backoff.cap,
                security: ConnectionSecurity::default(),
                default_broker: None,
            },
            core,
        };
        let (commands, task) = driver(config, Listener(listener)).unwrap();
        tokio::spawn(task.run());
        commands.send(DriverCommand::WantTopic(T.into())).unwrap();
        let mut harness = Self { cluster, commands, reported };
        harness.wait_until(|state| state.topic.is_some()).await;
        harness
    }

    /// Waits until the reported state satisfies a condition. Panics after a minute.
    async fn wait_until(&mut self, condition: impl FnMut(&ReportedState) -> bool) {
        let wait = self.reported.wait_for(condition);
        tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap().unwrap();
    }

    /// Submits the next batch of each partition.
    fn submit(&self, ordinal: u64) {
        let topic = self.reported.borrow().topic.unwrap();
        for index in 0..PARTITIONS {
            let record = Record { key: None, value: Some(&[b'v'; 2000]), headers: &[], timestamp: 1_700_000_000_000 };
            let submission = Submission {
                partition: PartitionId { topic, index },
                token: (),
                ordinal,
                published_at: Instant::now(),
                batch: EncodedBatch::single(&record).unwrap(),
                aged: false,
                stored: None,
            };
            self.commands.send(DriverCommand::Sealed(submission)).unwrap();
        }
    }
}

/// Connections grow to the allowed number, close when idle, and open again on demand.
#[tokio::test]
async fn connections_grow_close_and_reopen() {
    for allowed in [1, 2, 4] {
        let mut harness = DriverHarness::new(Config {
            connections_per_broker: allowed,
            max_in_flight: 1,
            max_request_bytes: 1024,
            idle_timeout: Duration::from_millis(50),
            ..Config::default()
        })
        .await;
        for round in 0..2 {
            let gate = Gate::new();
            harness
                .cluster
                .inject(Rule::for_api(ApiKey::Produce).times(allowed.into()).then(Fault::Hold(gate.clone())));
            harness.submit(round);
            let arrived = gate.arrived(allowed as usize);
            tokio::time::timeout(Duration::from_secs(60), arrived).await.unwrap();
            harness.wait_until(|state| state.broker == Some((Reachability::Connected, allowed))).await;
            gate.open();
            let settled = PARTITIONS as usize * (round as usize + 1);
            harness.wait_until(|state| state.settled == settled).await;
            harness.wait_until(|state| state.broker == Some((Reachability::Idle, 0))).await;
        }
        assert_eq!(harness.cluster.record_count(T), 2 * PARTITIONS as u64);
    }
}
