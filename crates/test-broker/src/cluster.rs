//! The handle to a running cluster.
//!
//! Rules:
//! - A fault is in force when the call that injects it returns.
//! - Readers see whole batches and return copies.
//! - Waiting needs no sleeping.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use parking_lot::Mutex;
use tokio::io::DuplexStream;

use crate::builder::{Builder, TopicSpec};
use crate::fault::{Fault, Rule};
use crate::model::{BrokerInfo, ClusterModel, MAX_UNCOMPRESSED, TopicModel};
use crate::records::{Batch, Record};
use crate::server::{BrokerTasks, ReservedAddress};
use crate::shared::{SharedState, wall_clock_ms};

const MAX_BROKERS: i32 = 100;
/// Bytes that an in-memory connection buffers in each direction.
const PIPE: usize = 64 << 10;
/// Time after which a leader forgets an idle producer id (`producer.id.expiration.ms`).
const PRODUCER_ID_EXPIRATION: Duration = Duration::from_hours(24);

/// A Kafka cluster inside this process. Dropping the handle ends the cluster.
pub struct TestCluster {
    shared: Arc<SharedState>,
    brokers: BTreeMap<i32, BrokerHandle>,
}

struct BrokerHandle {
    endpoint: ReservedAddress,
    running: Mutex<Option<BrokerTasks>>,
}

impl Builder {
    /// Starts the brokers on ports of the loopback address, on the current tokio runtime.
    ///
    /// # Errors
    /// Returns [`StartError`] if no port is free, or the description is invalid.
    pub async fn start(self) -> Result<TestCluster, StartError> {
        TestCluster::start(self).await
    }
}

impl TestCluster {
    /// Returns a builder for a cluster.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) async fn start(builder: Builder) -> Result<Self, StartError> {
        if !(1..=MAX_BROKERS).contains(&builder.brokers) {
            return Err(StartError::Brokers { count: builder.brokers });
        }
        let mut endpoints = BTreeMap::new();
        for id in 1..=builder.brokers {
            endpoints.insert(id, ReservedAddress::reserve()?);
        }
        let infos = endpoints.iter().map(|(id, endpoint)| BrokerInfo {
            id: *id,
            host: endpoint.address().ip().to_string(),
            port: endpoint.address().port(),
            alive: true,
        });
        let mut limits = builder.model;
        limits.default_replication = i16::try_from(builder.brokers.min(3)).unwrap_or(1);
        let mut cluster = ClusterModel::new(infos.collect(), limits);
        for topic in &builder.topics {
            create(&mut cluster, topic)?;
        }
        let shared = Arc::new(SharedState::new(cluster, builder.wire, builder.security));
        let mut brokers = BTreeMap::new();
        for (id, endpoint) in endpoints {
            let running = BrokerTasks::start(&endpoint, id, Arc::clone(&shared))?;
            brokers.insert(id, BrokerHandle { endpoint, running: Mutex::new(Some(running)) });
        }
        Ok(Self { shared, brokers })
    }

    /// Returns the addresses of all brokers in the form of `bootstrap.servers`: `127.0.0.1:40001,127.0.0.1:40002`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        let addresses = self.brokers.values().map(|broker| broker.endpoint.address().to_string());
        addresses.collect::<Vec<_>>().join(",")
    }

    /// Returns the address of a broker, alive or not. `None` means that the broker does not exist.
    #[must_use]
    pub fn address(&self, broker: i32) -> Option<SocketAddr> {
        self.brokers.get(&broker).map(|broker| broker.endpoint.address())
    }

    /// Opens a connection to a broker without a socket. `None` means that the broker does not exist or was killed.
    #[must_use]
    pub fn connect_in_memory(&self, broker: i32) -> Option<DuplexStream> {
        let running = self.brokers.get(&broker)?.running.lock();
        let (ours, theirs) = tokio::io::duplex(PIPE);
        running.as_ref()?.streams.send(ours).ok()?;
        Some(theirs)
    }
}

/// Topics.
impl TestCluster {
    /// Creates a topic.
    ///
    /// # Errors
    /// Returns [`StartError::Topic`] if a real cluster would refuse the topic.
    pub fn create_topic(&self, topic: &TopicSpec) -> Result<(), StartError> {
        let created = create(&mut self.shared.lock().cluster, topic);
        self.shared.note_change();
        created
    }

    /// Deletes a topic and its records. A recreated topic has another id. Returns whether the topic existed.
    pub fn delete_topic(&self, name: &str) -> bool {
        let deleted = self.shared.lock().cluster.delete(name);
        self.shared.note_change();
        deleted
    }

    /// Raises the number of a topic's partitions, as an administrator does. Producers then spread keys over all
    /// partitions. Returns whether the number was raised.
    pub fn raise_partitions(&self, topic: &str, count: usize) -> bool {
        let raised = self.shared.lock().cluster.raise_partitions(topic, count);
        self.shared.note_change();
        raised
    }

    /// Changes a topic setting. [`TopicSpec::config`] lists the names.
    ///
    /// # Errors
    /// Returns [`StartError::Topic`] if the topic or the setting does not exist, or the value is invalid.
    pub fn set_topic_config(&self, topic: &str, name: &str, value: &str) -> Result<(), StartError> {
        let mut state = self.shared.lock();
        let refuse = |message| StartError::Topic { topic: topic.to_owned(), message };
        let found = state.cluster.topic_mut(topic).ok_or_else(|| refuse("the topic does not exist".to_owned()))?;
        found.config.set(name, value).map_err(|error| refuse(error.to_string()))
    }

    /// Denies every client the right to write a topic, or allows it again, as an ACL does. Reading stays allowed.
    pub fn deny_writes(&self, topic: &str, denied: bool) {
        self.shared.lock().cluster.deny(topic, denied);
    }

    /// Returns the id of a partition's leader. `None` means that the partition has no leader or does not exist.
    #[must_use]
    pub fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        self.shared.lock().cluster.partition(topic, partition)?.leader
    }

    /// Makes an in-sync replica the leader of a partition. Returns whether `to` is such a replica.
    pub fn move_leader(&self, topic: &str, partition: i32, to: i32) -> bool {
        let mut state = self.shared.lock();
        let found = state.cluster.topic_mut(topic).and_then(|topic| topic.partition_mut(partition));
        let moved = found.is_some_and(|partition| partition.move_leader(to));
        drop(state);
        self.shared.note_change();
        moved
    }
}

/// Faults.
impl TestCluster {
    /// Adds a rule after all rules in force.
    pub fn inject(&self, rule: Rule) {
        self.shared.lock().faults.add(rule);
    }

    /// Refuses the next `n` requests of a kind with an error, without applying them.
    pub fn fail_next(&self, api: ApiKey, n: u64, error: ResponseError) {
        self.inject(Rule::for_api(api).times(n).then(Fault::Refuse(error)));
    }

    /// Applies the next `n` Produce requests and ends their connections instead of answering.
    pub fn apply_then_disconnect(&self, n: u64) {
        self.inject(Rule::for_api(ApiKey::Produce).times(n).then(Fault::ApplyThenDisconnect));
    }

    /// Applies the next `n` requests of a kind and delays their answers.
    pub fn delay_next(&self, api: ApiKey, n: u64, by: Duration) {
        self.inject(Rule::for_api(api).times(n).then(Fault::Delay(by)));
    }

    /// Makes a broker ignore all requests until the faults are cleared: it reads them and neither applies nor answers
    /// them.
    pub fn blackhole(&self, broker: i32) {
        self.inject(Rule::for_any_api().at_broker(broker).always().then(Fault::Swallow));
    }

    /// Removes all rules. Swallowed requests stay unanswered.
    pub fn clear_faults(&self) {
        self.shared.lock().faults.clear();
    }

    /// Refuses records for which `why` returns a reason. The answer is `INVALID_RECORD (87)` and names those records
    /// (KIP-467).
    pub fn reject_records(&self, why: impl Fn(&Record) -> Option<String> + Send + Sync + 'static) {
        self.shared.lock().filter = Some(Arc::new(why));
    }

    /// Removes the filter that [`reject_records`](Self::reject_records) set.
    pub fn accept_records(&self) {
        self.shared.lock().filter = None;
    }

    /// Makes all leaders forget all producers, as an unclean election does.
    pub fn forget_producer_ids(&self) {
        self.shared.lock().cluster.partitions_mut().for_each(|partition| partition.producers.forget_all());
    }

    /// Makes leaders forget the producers whose last batch has a timestamp of at least a day ago. Kafka's leaders check
    /// every ten minutes.
    pub fn expire_producer_ids(&self) {
        let day = i64::try_from(PRODUCER_ID_EXPIRATION.as_millis()).unwrap_or(i64::MAX);
        let limit = wall_clock_ms().saturating_sub(day);
        self.shared.lock().cluster.partitions_mut().for_each(|partition| partition.producers.forget_before(limit));
    }

    /// Pauses the replication of a partition. Appended records stay behind the high watermark, where no client reads
    /// them, and the leader answers `acks=all` with `REQUEST_TIMED_OUT (7)` and the offset. A change of leader resumes
    /// replication, and so does [`resume_replication`](Self::resume_replication). Returns whether the partition exists.
    pub fn pause_replication(&self, topic: &str, partition: i32) -> bool {
        self.hold_replication(topic, partition, true)
    }

    /// Resumes the replication of a partition. Returns whether the partition exists.
    pub fn resume_replication(&self, topic: &str, partition: i32) -> bool {
        self.hold_replication(topic, partition, false)
    }

    fn hold_replication(&self, topic: &str, partition: i32, held: bool) -> bool {
        let mut state = self.shared.lock();
        let found = state.cluster.topic_mut(topic).and_then(|topic| topic.partition_mut(partition));
        let exists = found.map(|partition| partition.hold_replication(held)).is_some();
        drop(state);
        self.shared.note_change();
        exists
    }

    /// Kills a broker and waits until its connections and their requests have ended. Its port refuses connections from
    /// then on. Other in-sync replicas take over its partitions. Returns whether the broker was alive.
    pub async fn kill(&self, broker: i32) -> bool {
        let Some(found) = self.brokers.get(&broker) else { return false };
        self.shared.lock().cluster.broker_down(broker);
        self.shared.note_change();
        let running = found.running.lock().take();
        match running {
            Some(running) => {
                running.kill().await;
                true
            }
            None => false,
        }
    }

    /// Starts a killed broker at its old address. The broker remembers one earlier batch of each producer id, as after
    /// loading a snapshot. It leads only partitions without another leader. Returns whether the broker was down.
    ///
    /// # Errors
    /// Returns [`StartError::Io`] if the broker cannot listen on its port.
    pub fn restart(&self, broker: i32) -> Result<bool, StartError> {
        let Some(found) = self.brokers.get(&broker) else { return Ok(false) };
        let mut running = found.running.lock();
        if running.is_some() {
            return Ok(false);
        }
        *running = Some(BrokerTasks::start(&found.endpoint, broker, Arc::clone(&self.shared))?);
        self.shared.lock().cluster.broker_up(broker);
        self.shared.note_change();
        Ok(true)
    }

    /// Pauses a broker, as SIGSTOP does. Its connections stay open, it reads and answers nothing, and it keeps its
    /// partitions. Returns whether the broker is alive.
    pub fn pause(&self, broker: i32) -> bool {
        self.set_paused(broker, true)
    }

    /// Resumes a paused broker, which then serves the requests that have arrived meanwhile. Returns whether the broker
    /// is alive.
    pub fn resume(&self, broker: i32) -> bool {
        self.set_paused(broker, false)
    }

    fn set_paused(&self, broker: i32, paused: bool) -> bool {
        let Some(found) = self.brokers.get(&broker) else { return false };
        let running = found.running.lock();
        running.as_ref().is_some_and(|running| {
            running.paused.send_replace(paused);
            true
        })
    }
}

/// Readers.
impl TestCluster {
    /// Returns all records of a topic, ordered by partition and offset. Empty if the topic does not exist.
    #[must_use]
    pub fn records(&self, topic: &str) -> Vec<Record> {
        self.each_batch(topic, |partition, view| {
            let Ok(records) = view.records(MAX_UNCOMPRESSED) else { return Vec::new() };
            let decoded = records.iter().filter_map(Result::ok);
            decoded.map(|record| Record::decoded(partition, view.base_offset, &record)).collect()
        })
    }

    /// Returns all record batches of a topic, ordered by partition and offset. Empty if the topic does not exist.
    #[must_use]
    pub fn batches(&self, topic: &str) -> Vec<Batch> {
        self.each_batch(topic, |partition, view| vec![Batch::viewed(partition, view)])
    }

    /// Returns the number of records ever appended to a topic. 0 if the topic does not exist.
    #[must_use]
    pub fn record_count(&self, topic: &str) -> u64 {
        let state = self.shared.lock();
        let ends = |topic: &TopicModel| topic.partitions.iter().map(|p| p.log.end_offset().unsigned_abs()).sum();
        state.cluster.topic(topic).map_or(0, ends)
    }

    /// Returns the number of requests of a kind that were read, including the ones that met a fault.
    #[must_use]
    pub fn requests(&self, api: ApiKey) -> u64 {
        self.shared.lock().requests.get(&(api as i16)).copied().unwrap_or(0)
    }

    /// Waits until `count` records were appended to a topic.
    ///
    /// # Cancel safety
    /// Cancel safe: the method only reads.
    pub async fn wait_for_records(&self, topic: &str, count: u64) {
        self.wait_until(|cluster| cluster.record_count(topic) >= count).await;
    }

    /// Waits until `count` requests of a kind were read.
    ///
    /// # Cancel safety
    /// Cancel safe: the method only reads.
    pub async fn wait_for_requests(&self, api: ApiKey, count: u64) {
        self.wait_until(|cluster| cluster.requests(api) >= count).await;
    }

    /// Waits until a condition holds. It is checked again whenever a request was read or applied.
    ///
    /// # Cancel safety
    /// Cancel safe: the method only reads.
    pub async fn wait_until(&self, condition: impl Fn(&Self) -> bool) {
        let mut changes = self.shared.changes();
        while !condition(self) {
            // The sender lives in `self`.
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn each_batch<T>(
        &self,
        topic: &str,
        read: impl Fn(i32, &kafka_courier_batcher::BatchView<'_>) -> Vec<T>,
    ) -> Vec<T> {
        let batches: Vec<_> = {
            let state = self.shared.lock();
            let Some(topic) = state.cluster.topic(topic) else { return Vec::new() };
            let logs = (0..).zip(&topic.partitions);
            logs.flat_map(|(index, partition)| partition.log.batches().map(move |batch| (index, batch.clone())))
                .collect()
        };
        batches.iter().filter_map(|(index, batch)| Some(read(*index, &batch.view()?))).flatten().collect()
    }
}

fn create(cluster: &mut ClusterModel, topic: &TopicSpec) -> Result<(), StartError> {
    let refuse = |message| StartError::Topic { topic: topic.name().to_owned(), message };
    let new = topic.to_creation().map_err(|error| refuse(error.to_string()))?;
    cluster.create(&new, false).map(drop).map_err(|error| refuse(error.message))
}

/// Why a cluster or broker could not start, or a topic could not be created or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The operating system refused a socket.
    #[error("cannot listen on a loopback port: {0}")]
    Io(#[from] std::io::Error),
    /// The number of brokers is out of range.
    #[error("a cluster has 1 to 100 brokers, not {count}")]
    Brokers {
        /// The requested number.
        count: i32,
    },
    /// The topic's description or setting is invalid.
    #[error("topic {topic}: {message}")]
    Topic {
        /// The topic's name.
        topic: String,
        /// The reason.
        message: String,
    },
}
