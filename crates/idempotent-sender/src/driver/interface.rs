//! The interface between the driver and the layer above: commands, callbacks and settings.
//!
//! Rule: plain data and one trait. Nothing here decides.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier_client::config::ClientConfig;
use kafka_courier_client::health_check::Unhealthy;
use kafka_courier_client::health_part::HealthProgress;
use kafka_courier_client::{BrokerId, PartitionId, Reason, TopicId};
use tokio::sync::oneshot;

use crate::core::{BrokerView, Config, Counters, LeaderMove, MoveId, RecordSet, Settlement, StampMove, Submission};

/// Callbacks of the driver to the layer above. The driver's task calls them, so they must not block.
pub trait Upcalls<T>: Send + 'static {
    /// Reports a verdict.
    fn settled(&mut self, settlement: Settlement<T>);
    /// Makes the stamps of records durable, after the verdicts that were reported before. The layer above answers with
    /// [`DriverCommand::Persisted`]. Never called for batches that are not [stored](Submission::stored).
    fn persist(&mut self, stamps: StampMove);
    /// Asks for the [stored](Submission::stored) batches of an earlier process behind those that were submitted. Those alone
    /// can't be decided.
    fn needs_more(&mut self, partition: PartitionId);
    /// Makes a leader epoch durable. The layer above answers with [`DriverCommand::Persisted`]. Never called for batches that are
    /// not [stored](Submission::stored).
    fn persist_leader(&mut self, leader: LeaderMove);
    /// Reports that [stored](Submission::stored) records wait, because the broker refuses them until a right, a setting or a
    /// clock is corrected. The next verdict in the partition ends the wait. Called for each refusal.
    fn waits(&mut self, partition: PartitionId, topic: &Arc<str>, reason: &Reason);
    /// Reports that records with the outcome `unknown` are in the log.
    fn corrected(&mut self, token: T, records: RecordSet, base_offset: Option<i64>);
    /// Reports that a topic can be published to, or that its partitions or leaders have changed.
    fn topic_ready(&mut self, topic: TopicId, name: &Arc<str>, available: &[bool]);
    /// Reports the largest batch that a topic accepts (`max.message.bytes`). Called before `topic_ready`, where a
    /// broker reports the limit.
    fn topic_limit(&mut self, name: &Arc<str>, bytes: usize);
    /// Reports that a topic is unavailable.
    fn topic_failed(&mut self, topic: TopicId, name: &Arc<str>, reason: &Reason);
    /// Reports that the driver's task ends. The layer above must accept no further record.
    fn ending(&mut self);
    /// Reports the producer id that stamps new batches from now on.
    fn producer_id(&mut self, id: i64);
    /// Returns the open batch of this partition, sealed, because its linger is over. `None` if it was sealed
    /// meanwhile.
    fn lingered(&mut self, partition: PartitionId, ordinal: u64) -> Option<Submission<T>>;
    /// Returns whether each accepted record has a verdict: no batch is open, and no batch is being sealed.
    fn is_idle(&self) -> bool;
    /// Reports the counters and the number of Produce requests in flight. Called after each round.
    fn counted(&mut self, counters: &Counters, requests_in_flight: usize);
    /// Reports an observation for metrics.
    fn observed(&mut self, observation: Observation<'_>);
}

/// Something that the driver observed in the cluster.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Observation<'a> {
    /// A broker answered a Produce request.
    Answered {
        /// The broker.
        broker: BrokerId,
        /// The time from the request's handover to its connection until the answer.
        took: Duration,
        /// How long the broker wants no requests (KIP-219).
        throttle: Duration,
    },
    /// Brokers or connections have changed. The list holds all of them in their current state.
    Brokers(&'a [BrokerView]),
    /// Fresh metadata arrived.
    Metadata,
}

/// A command from the layer above to the driver.
#[derive(Debug)]
pub enum DriverCommand<T> {
    /// Request metadata of a topic.
    WantTopic(Arc<str>),
    /// Request a producer id before there is anything to send.
    WantProducerId,
    /// A batch was opened. The driver seals it at its deadline if it is still open.
    Opened {
        /// The partition.
        partition: PartitionId,
        /// The batch's ordinal in its partition.
        ordinal: u64,
        /// The end of the batch's linger.
        deadline: Instant,
    },
    /// Deliver a batch.
    Sealed(Submission<T>),
    /// The stamps of this request are durable.
    Persisted {
        /// The partition.
        partition: PartitionId,
        /// The request's id.
        id: MoveId,
    },
    /// Expedite this open batch, because a caller awaits a delivery of it.
    Expedite {
        /// The partition.
        partition: PartitionId,
        /// The batch's ordinal in its partition.
        ordinal: u64,
    },
    /// Seal each open batch, because a caller waits for memory or for a flush.
    SealOpen,
    /// Check that the cluster is reachable and writable.
    Probe(Probe),
    /// Close. Batches without a verdict fail at `deadline`.
    Close {
        /// The time at which the remaining batches fail.
        deadline: Instant,
    },
}

/// A request for a health check.
#[derive(Debug)]
pub struct Probe {
    /// Topics that must exist and be writable, in addition to the topics that were published to.
    pub topics: Vec<Arc<str>>,
    /// The current part of this check.
    pub progress: Arc<HealthProgress>,
    /// The receiver of the result.
    pub answer: oneshot::Sender<Result<(), Unhealthy>>,
}

/// The settings of a driver.
///
/// `request_timeout` and the backoff are in both parts, for Produce requests and for all others. They have the same values.
#[derive(Clone, Debug)]
pub struct DriverConfig {
    /// The core's settings.
    pub core: Config,
    /// The settings of connections, and of the requests that any broker can answer.
    pub client: ClientConfig,
}
