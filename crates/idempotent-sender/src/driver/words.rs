//! The words that the driver speaks with the layer above: what it is told, and what it tells.
//!
//! Rules: plain data and one trait; nothing here decides.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::Dialer;
use super::health::Probe;
use super::refusals::Refusals;
use super::security::Security;
use crate::core::{
    BrokerId, BrokerView, Config, Counters, PartitionId, Reason, RecordSet, Settlement, Submission, TopicId,
};

/// What the driver tells the layer above. Called from the driver's task; must not block.
pub trait Upcalls<T>: Send + 'static {
    /// A verdict.
    fn settled(&mut self, settlement: Settlement<T>);
    /// Records that were given up as unknown are in the log after all.
    fn corrected(&mut self, token: T, records: RecordSet, base_offset: Option<i64>);
    /// A topic can be published to, or its partitions or leaders have changed.
    fn topic_ready(&mut self, topic: TopicId, name: &Arc<str>, available: &[bool]);
    /// The largest batch that a topic takes (`max.message.bytes`); told before the topic is ready, where it can be had.
    fn topic_limit(&mut self, name: &Arc<str>, bytes: usize);
    /// A topic can't be had.
    fn topic_failed(&mut self, topic: TopicId, name: &Arc<str>, reason: &Reason);
    /// The task is being taken away: nothing more is to be accepted.
    fn ending(&mut self);
    /// New batches are stamped with this producer id from now on.
    fn producer_id(&mut self, id: i64);
    /// The linger of this open batch is over. Returns it sealed, unless it was sealed meanwhile.
    fn lingered(&mut self, partition: PartitionId, ordinal: u64) -> Option<Submission<T>>;
    /// Whether nothing that was accepted is without a verdict: nothing open, nothing being sealed.
    fn is_idle(&self) -> bool;
    /// Called after each round with what has happened so far, and how many Produce requests wait for their answer.
    fn counted(&mut self, counters: &Counters, requests_in_flight: usize);
    /// Something was seen that only those care for who watch.
    fn observed(&mut self, observation: Observation<'_>);
}

/// What the driver sees of the cluster.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Observation<'a> {
    /// A Produce request was answered.
    Answered {
        /// By whom.
        broker: BrokerId,
        /// Since it was handed to its connection.
        took: Duration,
        /// How long the broker wants to be left alone (KIP-219).
        throttle: Duration,
    },
    /// Brokers or connections have changed: all of them, as they are now.
    Brokers(&'a [BrokerView]),
    /// Fresh metadata came.
    Metadata,
}

/// What the layer above tells the driver.
#[derive(Debug)]
pub enum Command<T> {
    /// A topic is wanted.
    WantTopic(Arc<str>),
    /// A producer id is wanted, before there is anything to send.
    WantProducerId,
    /// A batch was opened, and is to be sealed at its deadline if it is still open.
    Opened {
        /// Its partition.
        partition: PartitionId,
        /// Its ordinal.
        ordinal: u64,
        /// When its linger is over.
        deadline: Instant,
    },
    /// A batch to deliver.
    Sealed(Submission<T>),
    /// Somebody waits for a verdict on this batch, which is still open.
    Expedite {
        /// Its partition.
        partition: PartitionId,
        /// Its ordinal.
        ordinal: u64,
    },
    /// Seal every batch that is open: somebody waits for memory, or for everything.
    SealOpen,
    /// Prove that the cluster can be reached and written.
    Probe(Probe),
    /// Finish: whatever has no verdict at `deadline` is given up.
    Close {
        /// When patience ends.
        deadline: Instant,
    },
}

/// How the driver reaches the cluster.
#[derive(Clone, Debug)]
pub struct DriverConfig {
    /// The core's settings.
    pub core: Config,
    /// Where to begin: host and port of some brokers.
    pub bootstrap: Vec<(Arc<str>, u16)>,
    /// The client id, sent with every request.
    pub client_id: Arc<str>,
    /// How long opening a connection may take, all addresses of the name included.
    pub connect_timeout: Duration,
    /// How connections are secured.
    pub security: Security,
    /// The broker that is tried because none was configured: errors say so.
    pub default_broker: Option<(Arc<str>, u16)>,
}

impl DriverConfig {
    pub(super) fn dialer(&self) -> Dialer {
        Dialer {
            client_id: self.client_id.clone(),
            timeout: self.connect_timeout,
            security: self.security.clone(),
            refusals: Refusals::default(),
            default_broker: self.default_broker.clone(),
        }
    }
}
