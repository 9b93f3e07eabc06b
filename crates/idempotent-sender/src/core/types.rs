//! Data that the core and its driver exchange: ids, inputs and actions.
//!
//! Rules:
//!  - The types are plain data and decide nothing.
//!  - Every id is an index or a counter that the core assigned.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier_batcher::EncodedBatch;

use super::error_code::ErrorCode;
pub use super::failure::{Failure, RejectedRecord};
use super::lookup::{LogSearch, StateLookup};
use super::version::NoCommonVersion;

/// A topic by the number that the core assigned. The number never changes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TopicId(pub u32);

/// A partition of a topic.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PartitionId {
    /// The topic.
    pub topic: TopicId,
    /// Kafka's partition index, from 0.
    pub index: i32,
}

/// A broker's node id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct BrokerId(pub i32);

/// One connection to a broker. An id is never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ConnId(pub u64);

/// One Produce request. An id is never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RequestId(pub u64);

/// One queued or stamped batch. A batch that is stamped again gets a new id, so late answers to its former stamp never
/// count for the new stamp.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct BatchUid(pub(crate) u64);

/// One lookup: of a leader's producer state, or of its log. Each lookup has its own id, so a late answer never counts
/// for a later lookup.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LookupId(pub u64);

/// Kafka's 16-byte topic id (KIP-516). All bytes are zero if the broker sent none.
pub type TopicUuid = [u8; 16];

/// The records of a submitted batch that a verdict is for, by their index in that batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecordSet {
    /// Consecutive records.
    Range(Range<u32>),
    /// These records, in order. A batch has such a list once some of its records were rejected (KIP-467).
    List(Vec<u32>),
}

impl RecordSet {
    /// Returns the number of records.
    pub fn len(&self) -> u32 {
        match self {
            Self::Range(range) => range.end.saturating_sub(range.start),
            Self::List(list) => u32::try_from(list.len()).unwrap_or(u32::MAX),
        }
    }

    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the index, in the submitted batch, of the record at `position` in this set.
    pub fn get(&self, position: u32) -> Option<u32> {
        match self {
            Self::Range(range) => range.start.checked_add(position).filter(|i| *i < range.end),
            Self::List(list) => list.get(position as usize).copied(),
        }
    }

    /// Returns all indexes, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.len()).filter_map(|position| self.get(position))
    }

    /// Returns the first `n` records and the others.
    pub(crate) fn split_at(&self, n: u32) -> (Self, Self) {
        match self {
            Self::Range(range) => {
                let middle = range.start.saturating_add(n).min(range.end);
                (Self::Range(range.start..middle), Self::Range(middle..range.end))
            }
            Self::List(list) => {
                let (a, b) = list.split_at((n as usize).min(list.len()));
                (Self::List(a.to_vec()), Self::List(b.to_vec()))
            }
        }
    }

    /// Returns the records at `positions`, which must be sorted, and the others.
    pub(crate) fn partition(&self, positions: &[u32]) -> (Self, Self) {
        let (mut named, mut others) = (Vec::new(), Vec::new());
        for position in 0..self.len() {
            let Some(index) = self.get(position) else { continue };
            if positions.binary_search(&position).is_ok() { named.push(index) } else { others.push(index) }
        }
        (Self::List(named), Self::List(others))
    }
}

/// Whether a record that was not delivered may be in the log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FailedOutcome {
    /// The record is certainly not in the log.
    NotWritten,
    /// The record may be in the log: an attempt was not answered, or its answer proves neither.
    Unknown,
}

impl FailedOutcome {
    /// Returns `not_written` or `unknown`, the values in dead letters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotWritten => "not_written",
            Self::Unknown => "unknown",
        }
    }
}

/// The text of [`Reason::NoAnswer`] for a batch that is in the leader's log, and possibly not in its replicas' logs.
pub const UNCONFIRMED: &str = "the leader has the batch, but did not confirm that its replicas have it";

/// Why an attempt, or a batch, failed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// A broker answered with an error.
    Broker {
        /// Kafka's error code.
        code: ErrorCode,
        /// The broker's message, if it sent one.
        message: Option<Arc<str>>,
    },
    /// No answer arrived: the connection ended after the whole request was sent.
    NoAnswer(Arc<str>),
    /// The request was not sent: no connection to the leader was available.
    NotAvailable(Arc<str>),
    /// The TLS handshake failed: one side does not trust the other.
    Tls(Arc<str>),
    /// The broker and kafka-courier have no version of a request in common. A retry fails the same way.
    NoCommonVersion(Arc<NoCommonVersion>),
    /// The partition has no known leader.
    NoLeader,
    /// The leader throttled this client for longer than the records could wait (a quota of the cluster).
    Throttled {
        /// The leader.
        broker: BrokerId,
        /// The throttle time in the leader's last answer (KIP-219).
        last: Duration,
    },
    /// The cluster assigned no producer id.
    NoProducerId(Arc<str>),
    /// The producer was closed before the records were delivered.
    Closed,
    /// The batch could not be decoded. This is a defect of kafka-courier.
    Corrupt(Arc<str>),
}

impl Reason {
    /// Returns Kafka's error code, if a broker sent one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Broker { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Returns Kafka's name of the error, or the name of another cause: `MESSAGE_TOO_LARGE`, `no_leader`. Metrics and
    /// dead letters have these names.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Broker { code, .. } => code.name(),
            Self::NoAnswer(_) => "no_answer",
            Self::NotAvailable(_) => "not_available",
            Self::Tls(_) => "tls",
            Self::NoCommonVersion(_) => "no_common_version",
            Self::NoLeader => "no_leader",
            Self::Throttled { .. } => "throttled",
            Self::NoProducerId(_) => "no_producer_id",
            Self::Closed => "closed",
            Self::Corrupt(_) => "corrupt",
        }
    }

    /// Returns whether the cluster, or the leader of the partition, was unavailable to this client.
    pub fn is_absence(&self) -> bool {
        match self {
            Self::NoAnswer(_) | Self::NotAvailable(_) | Self::NoLeader | Self::NoProducerId(_) => true,
            Self::Tls(_) | Self::NoCommonVersion(_) | Self::Throttled { .. } => true,
            Self::Broker { code, .. } => code.is_client_refusal(),
            Self::Closed | Self::Corrupt(_) => false,
        }
    }

    /// Returns whether the cause is the cluster and not the records: the cluster was unavailable or accepted no records
    /// then.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Broker { code, .. } => code.is_outage(),
            Self::Closed => true,
            _ => self.is_absence(),
        }
    }

    /// Returns whether the same records may be accepted later.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Broker { code, .. } => code.is_retriable(),
            Self::Corrupt(_) | Self::Tls(_) | Self::NoCommonVersion(_) => false,
            _ => true,
        }
    }

    /// Returns whether the cluster refuses this client (authentication, authorization), or this client refuses the
    /// broker (TLS). An administrator of the cluster must fix both.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Broker { code, .. } => code.is_refusal(),
            Self::Tls(_) => true,
            _ => false,
        }
    }
}

impl std::error::Error for Reason {}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker { code, message } => {
                write!(f, "{code}: {}", message.as_deref().unwrap_or(code.description()))?;
                code.remedy().map_or(Ok(()), |remedy| write!(f, ": {remedy}"))
            }
            Self::NoAnswer(why) => write!(f, "no answer from the broker: {why}"),
            Self::NotAvailable(why) => write!(f, "broker not available: {why}"),
            Self::Tls(why) => write!(f, "TLS: {why}"),
            Self::NoCommonVersion(which) => write!(f, "{which}"),
            Self::NoLeader => f.write_str("broker not available: the partition has no leader"),
            Self::Throttled { broker, last } => write!(
                f,
                "broker {} throttles this client, most recently for {last:?}: raise its quota (producer_byte_rate), or \
                 publish more slowly",
                broker.0
            ),
            Self::NoProducerId(why) => write!(f, "broker not available: no producer id: {why}"),
            Self::Closed => f.write_str("the producer was closed before the record was delivered"),
            Self::Corrupt(why) => write!(f, "the batch could not be decoded: {why}"),
        }
    }
}

/// The verdict: exactly one for each record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The records are in the log, on every in-sync replica.
    Delivered {
        /// The offset of the first record. The other records follow without gaps. `None` if the records are proved to
        /// be in the log, but their offset is not known.
        base_offset: Option<i64>,
        /// The broker's time in milliseconds since the Unix epoch, if the topic uses LogAppendTime.
        log_append_time: Option<i64>,
    },
    /// The records failed.
    Failed(Arc<Failure>),
}

/// A sealed batch to deliver.
#[derive(Debug)]
pub struct Submission<T> {
    /// The partition of the batch.
    pub partition: PartitionId,
    /// The driver's token for the batch. The verdict returns it.
    pub token: T,
    /// The number of the batch among the batches of its partition: dense, from 0. Batches are sent in this order.
    pub ordinal: u64,
    /// The time at which the first record was published. `delivery_timeout` counts from here.
    pub published_at: Instant,
    /// The encoded records.
    pub batch: EncodedBatch,
    /// Whether the newest record is so old, by its timestamp, that a leader may forget the producer id right after the
    /// append (leaders expire producer ids by record time).
    pub aged: bool,
}

/// One batch within a Produce request.
#[derive(Clone, Debug)]
pub struct ProducePart {
    /// The partition of the batch.
    pub partition: PartitionId,
    /// The topic's name.
    pub topic: Arc<str>,
    /// The topic's id, for Produce v13.
    pub topic_uuid: TopicUuid,
    /// The stamped bytes.
    pub batch: Arc<EncodedBatch>,
}

/// The answer to one batch of a Produce request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartAnswer {
    /// Kafka's error code. 0 is success.
    pub code: i16,
    /// The offset of the first record, or -1. [`classify`](super::classify) decides for which errors an offset proves
    /// the append.
    pub base_offset: i64,
    /// Milliseconds since the Unix epoch, or -1. The leader's time if the topic uses LogAppendTime. A leader that
    /// recognizes a duplicate sends the latest timestamp of the batch, whatever the topic uses.
    pub log_append_time: i64,
    /// The rejected records by index in the batch, each with its message (KIP-467).
    pub record_errors: Vec<RejectedRecord>,
    /// The broker's message for the whole batch.
    pub message: Option<Arc<str>>,
    /// The leader that the broker knows, and its epoch (KIP-951).
    pub leader: Option<(BrokerId, i32)>,
}

/// The address of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAddress {
    /// Node id.
    pub id: BrokerId,
    /// Host name or address.
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
}

/// The answer to a Produce request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProduceAnswer {
    /// How long the broker asks this client to pause (KIP-219).
    pub throttle: Duration,
    /// One answer for each batch, in the order of the request. `None` if the broker left the batch out.
    pub parts: Vec<Option<PartAnswer>>,
    /// Addresses of the leaders that `parts` name (KIP-951).
    pub brokers: Vec<BrokerAddress>,
}

/// A partition in a Metadata answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// Partition index, from 0.
    pub index: i32,
    /// The error code. 0 is none.
    pub code: i16,
    /// The leader, if there is one.
    pub leader: Option<BrokerId>,
    /// The leader epoch, or -1.
    pub leader_epoch: i32,
}

/// A topic in a Metadata answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicMetadata {
    /// The name.
    pub name: Arc<str>,
    /// The topic id. All bytes are zero if the broker sent none.
    pub uuid: TopicUuid,
    /// The error code. 0 is none.
    pub code: i16,
    /// The partitions, in any order.
    pub partitions: Vec<PartitionMetadata>,
}

/// A Metadata answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterMetadata {
    /// Every live broker.
    pub brokers: Vec<BrokerAddress>,
    /// The requested topics.
    pub topics: Vec<TopicMetadata>,
}

/// An instruction to the driver.
#[derive(Debug)]
pub enum Action<T> {
    /// Opens a connection. The driver answers with `on_connected`, `on_disconnected` or `on_refused`.
    Connect {
        /// The connection's id.
        conn: ConnId,
        /// The broker to connect to.
        address: BrokerAddress,
    },
    /// Closes a connection and drops its requests. No answer follows.
    Disconnect {
        /// The connection.
        conn: ConnId,
    },
    /// Writes this Produce request after all earlier requests of the connection.
    Send {
        /// The connection.
        conn: ConnId,
        /// The request's id.
        request: RequestId,
        /// The batches of the request, at most one for each partition.
        parts: Vec<ProducePart>,
    },
    /// Requests the metadata of these topics from any broker. The driver answers with `on_metadata`,
    /// `on_metadata_failed` or `on_metadata_refused`.
    RefreshMetadata {
        /// The names of the topics.
        topics: Vec<Arc<str>>,
    },
    /// Requests a producer id from any broker. The driver answers with `on_producer_id`, `on_producer_id_failed` or
    /// `on_producer_id_refused`.
    InitProducerId,
    /// Requests the producer state of the partition's leader. The driver answers with `on_state_lookup`.
    LookUpState(StateLookup),
    /// Searches the partition's log for batches of this producer. The driver answers with `on_log_search`.
    SearchLog(LogSearch),
    /// Reports the verdict on these records. Each record gets exactly one.
    Settle(Settlement<T>),
    /// Reports that records with the outcome `Unknown` are in the log.
    Correct {
        /// The driver's token for the batch.
        token: T,
        /// The records.
        records: RecordSet,
        /// The offset of the first record, if known.
        base_offset: Option<i64>,
    },
    /// Reports that the topic is ready, or that its partitions or leaders have changed.
    TopicReady {
        /// The topic.
        topic: TopicId,
        /// Whether each present partition has a leader. A recreated topic may have fewer partitions than before.
        available: Vec<bool>,
    },
    /// Reports that the topic was not found in time, or that this client may not use it.
    TopicFailed {
        /// The topic.
        topic: TopicId,
        /// The cause.
        reason: Reason,
    },
}

/// The verdict on records of a batch, with their bytes and the memory to release.
#[derive(Debug)]
pub struct Settlement<T> {
    /// The driver's token for the batch.
    pub token: T,
    /// The partition of the batch.
    pub partition: PartitionId,
    /// The records of the batch that have this verdict.
    pub records: RecordSet,
    /// The verdict.
    pub verdict: Verdict,
    /// The time at which the first record was published.
    pub published_at: Instant,
    /// The time of the first attempt, if there was one.
    pub first_attempt: Option<Instant>,
    /// The encoded records, for dead letters and for reuse of the buffer.
    pub batch: Arc<EncodedBatch>,
    /// Bytes of memory that were charged for the batch and are now free.
    pub charge: usize,
}
