//! The handle that tests hold.
//!
//! Rules: every fault is in force when the call returns; readers see whole batches, and copy; waiting needs no sleeping.

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
use crate::model::{BrokerInfo, Cluster, MAX_UNCOMPRESSED, Topic};
use crate::records::{Batch, Record};
use crate::server::{Endpoint, Running};
use crate::shared::{Shared, wall_clock_ms};

const MAX_BROKERS: i32 = 100;
/// Bytes under way in an in-memory connection.
const PIPE: usize = 64 << 10;
/// How long an id is remembered (`producer.id.expiration.ms`).
const PRODUCER_ID_EXPIRATION: Duration = Duration::from_hours(24);

/// A Kafka cluster inside this process. It ends when this is dropped.
pub struct TestCluster {
    shared: Arc<Shared>,
    brokers: BTreeMap<i32, Broker>,
}

struct Broker {
    endpoint: Endpoint,
    running: Mutex<Option<Running>>,
}

impl TestCluster {
    /// Describes a cluster.
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
            endpoints.insert(id, Endpoint::reserve()?);
        }
        let infos = endpoints.iter().map(|(id, endpoint)| BrokerInfo {
            id: *id,
            host: endpoint.address().ip().to_string(),
            port: endpoint.address().port(),
            alive: true,
        });
        let mut limits = builder.model;
        limits.default_replication = i16::try_from(builder.brokers.min(3)).unwrap_or(1);
        let mut cluster = Cluster::new(infos.collect(), limits);
        for topic in &builder.topics {
            create(&mut cluster, topic)?;
        }
        let shared = Arc::new(Shared::new(cluster, builder.wire, builder.security));
        let mut brokers = BTreeMap::new();
        for (id, endpoint) in endpoints {
            let running = Running::start(&endpoint, id, Arc::clone(&shared))?;
            brokers.insert(id, Broker { endpoint, running: Mutex::new(Some(running)) });
        }
        Ok(Self { shared, brokers })
    }

    /// The addresses of all brokers as clients take them: `127.0.0.1:40001,127.0.0.1:40002`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        let addresses = self.brokers.values().map(|broker| broker.endpoint.address().to_string());
        addresses.collect::<Vec<_>>().join(",")
    }

    /// The address of a broker, alive or not.
    #[must_use]
    pub fn address(&self, broker: i32) -> Option<SocketAddr> {
        self.brokers.get(&broker).map(|broker| broker.endpoint.address())
    }

    /// A connection to a broker without a socket. `None`: there is no such broker, or it was killed.
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
    /// What a real cluster would say against it.
    pub fn create_topic(&self, topic: &TopicSpec) -> Result<(), StartError> {
        let created = create(&mut self.shared.lock().cluster, topic);
        self.shared.note_change();
        created
    }

    /// Deletes a topic with all that is in it; one that is made anew has another id. Answers whether there was one.
    pub fn delete_topic(&self, name: &str) -> bool {
        let deleted = self.shared.lock().cluster.delete(name);
        self.shared.note_change();
        deleted
    }

    /// Raises a topic's partitions to so many, as an administrator does: keys are spread over all of them from then on.
    /// Answers whether it did.
    pub fn raise_partitions(&self, topic: &str, count: usize) -> bool {
        let raised = self.shared.lock().cluster.raise_partitions(topic, count);
        self.shared.note_change();
        raised
    }

    /// Changes a setting of a topic, as [`TopicSpec::config`].
    ///
    /// # Errors
    /// There is no such topic or setting, or the value makes no sense.
    pub fn set_topic_config(&self, topic: &str, name: &str, value: &str) -> Result<(), StartError> {
        let mut state = self.shared.lock();
        let refuse = |message| StartError::Topic { topic: topic.to_owned(), message };
        let found = state.cluster.topic_mut(topic).ok_or_else(|| refuse("there is no such topic".to_owned()))?;
        found.config.set(name, value).map_err(refuse)
    }

    /// Takes the right to write a topic from everybody, or gives it back: an ACL. Reading goes on.
    pub fn deny_writes(&self, topic: &str, denied: bool) {
        self.shared.lock().cluster.deny(topic, denied);
    }

    /// Who leads a partition. `None`: nobody, or there is no such partition.
    #[must_use]
    pub fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        self.shared.lock().cluster.partition(topic, partition)?.leader
    }

    /// Makes another replica the leader. Answers whether it could be: it must be a replica and in sync.
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
    /// Adds a rule behind those that are there.
    pub fn inject(&self, rule: Rule) {
        self.shared.lock().faults.add(rule);
    }

    /// Refuses the next `n` requests of a kind with an error, without applying them.
    pub fn fail_next(&self, api: ApiKey, n: u64, error: ResponseError) {
        self.inject(Rule::on(api).times(n).then(Fault::Refuse(error)));
    }

    /// Applies the next `n` Produce requests, and ends the connection instead of answering.
    pub fn apply_then_disconnect(&self, n: u64) {
        self.inject(Rule::on(ApiKey::Produce).times(n).then(Fault::ApplyThenDisconnect));
    }

    /// Answers the next `n` requests of a kind late.
    pub fn delay_next(&self, api: ApiKey, n: u64, by: Duration) {
        self.inject(Rule::on(api).times(n).then(Fault::Delay(by)));
    }

    /// From now on a broker takes requests, does nothing and answers none, until the faults are cleared.
    pub fn blackhole(&self, broker: i32) {
        self.inject(Rule::on_any().at_broker(broker).always().then(Fault::Swallow));
    }

    /// Takes all rules away. What was swallowed stays unanswered.
    pub fn clear_faults(&self) {
        self.shared.lock().faults.clear();
    }

    /// Refuses records for which `why` gives a reason: `INVALID_RECORD`, and the guilty named (KIP-467).
    pub fn reject_records(&self, why: impl Fn(&Record) -> Option<String> + Send + Sync + 'static) {
        self.shared.lock().filter = Some(Arc::new(why));
    }

    /// Refuses records no longer.
    pub fn accept_records(&self) {
        self.shared.lock().filter = None;
    }

    /// All leaders forget all producers, as after an unclean election.
    pub fn forget_producer_ids(&self) {
        self.shared.lock().cluster.partitions_mut().for_each(|partition| partition.producers.forget_all());
    }

    /// Leaders forget the producers whose last record bears a timestamp that is a day old, as they do every ten minutes.
    pub fn expire_producer_ids(&self) {
        let day = i64::try_from(PRODUCER_ID_EXPIRATION.as_millis()).unwrap_or(i64::MAX);
        let limit = wall_clock_ms().saturating_sub(day);
        self.shared.lock().cluster.partitions_mut().for_each(|partition| partition.producers.forget_before(limit));
    }

    /// Kills a broker: its connections end, what they were doing ends, its port refuses connections, and its partitions
    /// get other leaders where other replicas are in sync. Answers whether it was alive.
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

    /// Starts a killed broker at its old address. Of producers it knows one batch each from before, as after loading a
    /// snapshot; it leads only where nobody else does. Answers whether it was away.
    ///
    /// # Errors
    /// It cannot listen.
    pub fn restart(&self, broker: i32) -> Result<bool, StartError> {
        let Some(found) = self.brokers.get(&broker) else { return Ok(false) };
        let mut running = found.running.lock();
        if running.is_some() {
            return Ok(false);
        }
        *running = Some(Running::start(&found.endpoint, broker, Arc::clone(&self.shared))?);
        self.shared.lock().cluster.broker_up(broker);
        self.shared.note_change();
        Ok(true)
    }

    /// Stops a broker without killing it, as SIGSTOP does: connections stay, nothing is read or answered, and its
    /// partitions stay its own. Answers whether it is there.
    pub fn pause(&self, broker: i32) -> bool {
        self.set_paused(broker, true)
    }

    /// Lets a paused broker go on, with all that has come meanwhile.
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
    /// All records of a topic: by partition, and by offset within each. Empty if there is no such topic.
    #[must_use]
    pub fn records(&self, topic: &str) -> Vec<Record> {
        self.each_batch(topic, |partition, view| {
            let Ok(records) = view.records(MAX_UNCOMPRESSED) else { return Vec::new() };
            let decoded = records.iter().filter_map(Result::ok);
            decoded.map(|record| Record::decoded(partition, view.base_offset, &record)).collect()
        })
    }

    /// All record batches of a topic: by partition, and by offset within each. Empty if there is no such topic.
    #[must_use]
    pub fn batches(&self, topic: &str) -> Vec<Batch> {
        self.each_batch(topic, |partition, view| vec![Batch::viewed(partition, view)])
    }

    /// How many records were ever appended to a topic; 0 if there is no such topic.
    #[must_use]
    pub fn record_count(&self, topic: &str) -> u64 {
        let state = self.shared.lock();
        let ends = |topic: &Topic| topic.partitions.iter().map(|p| p.log.end_offset().unsigned_abs()).sum();
        state.cluster.topic(topic).map_or(0, ends)
    }

    /// How many requests of a kind were taken, those that met a fault included.
    #[must_use]
    pub fn requests(&self, api: ApiKey) -> u64 {
        self.shared.lock().requests.get(&(api as i16)).copied().unwrap_or(0)
    }

    /// Waits until so many records were appended to a topic.
    ///
    /// Cancel safety: it only looks.
    pub async fn wait_for_records(&self, topic: &str, count: u64) {
        self.wait_until(|cluster| cluster.record_count(topic) >= count).await;
    }

    /// Waits until so many requests of a kind were taken.
    ///
    /// Cancel safety: it only looks.
    pub async fn wait_for_requests(&self, api: ApiKey, count: u64) {
        self.wait_until(|cluster| cluster.requests(api) >= count).await;
    }

    /// Waits until something is so; it is looked at again whenever a request was taken or applied.
    ///
    /// Cancel safety: it only looks.
    pub async fn wait_until(&self, is_so: impl Fn(&Self) -> bool) {
        let mut changes = self.shared.changes();
        while !is_so(self) {
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

fn create(cluster: &mut Cluster, topic: &TopicSpec) -> Result<(), StartError> {
    let refuse = |message| StartError::Topic { topic: topic.name().to_owned(), message };
    let new = topic.to_new().map_err(refuse)?;
    cluster.create(&new, false).map(drop).map_err(|error| refuse(error.message))
}

/// Why a cluster, broker or topic could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The system gave no port or socket.
    #[error("no port could be listened on: {0}")]
    Io(#[from] std::io::Error),
    /// There can't be so many brokers.
    #[error("a cluster has 1 to 100 brokers, not {count}")]
    Brokers {
        /// How many were asked for.
        count: i32,
    },
    /// The topic makes no sense.
    #[error("topic {topic}: {message}")]
    Topic {
        /// Its name.
        topic: String,
        /// What is wrong.
        message: String,
    },
}
