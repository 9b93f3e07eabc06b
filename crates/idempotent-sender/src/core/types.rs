//! The words that the core speaks with its shell: ids, answers in, actions out.
//!
//! Rules: plain data only; every id is an index or a counter that the core gave out; nothing here decides.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier_batcher::EncodedBatch;

use super::error_code::ErrorCode;
pub use super::failure::{Failure, RejectedRecord};
use super::look::{LogSearch, Look};
use super::version::NoCommonVersion;

/// A topic, as the core numbers it; stays the same for the core's life.
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

/// One connection to a broker; never given out twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ConnId(pub u64);

/// One Produce request; never given out twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RequestId(pub u64);

/// One stamped or queued batch. A batch that is stamped anew gets a new one, so that late answers to
/// its former stamp can't be taken for answers to the new.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct BatchUid(pub(crate) u64);

/// One look at a leader's producer state: each asking has its own, so that a late answer is never taken for a later look's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LookId(pub u64);

/// Kafka's 16-byte topic id (KIP-516); all zero where the broker gave none.
pub type TopicUuid = [u8; 16];

/// Which records of the batch that was handed in a verdict speaks of, by their index in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecordSet {
    /// A run of them.
    Range(Range<u32>),
    /// These, in order (after some of their batch were singled out, KIP-467).
    List(Vec<u32>),
}

impl RecordSet {
    /// How many records.
    pub fn len(&self) -> u32 {
        match self {
            Self::Range(range) => range.end.saturating_sub(range.start),
            Self::List(list) => u32::try_from(list.len()).unwrap_or(u32::MAX),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `position`-th record's index in the batch that was handed in.
    pub fn get(&self, position: u32) -> Option<u32> {
        match self {
            Self::Range(range) => range.start.checked_add(position).filter(|i| *i < range.end),
            Self::List(list) => list.get(position as usize).copied(),
        }
    }

    /// All indexes, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.len()).filter_map(|position| self.get(position))
    }

    /// The first `n` records, and the rest.
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

    /// The records at these positions, which come in rising order, and all the others.
    pub(crate) fn partition(&self, positions: &[u32]) -> (Self, Self) {
        let (mut named, mut others) = (Vec::new(), Vec::new());
        for position in 0..self.len() {
            let Some(index) = self.get(position) else { continue };
            if positions.binary_search(&position).is_ok() { named.push(index) } else { others.push(index) }
        }
        (Self::List(named), Self::List(others))
    }
}

/// What is known of a record that was not delivered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FailedOutcome {
    /// It is certainly not in the log.
    NotWritten,
    /// It may be in the log: an attempt went unanswered, or was answered in a way that proves neither.
    Unknown,
}

impl FailedOutcome {
    /// `not_written` or `unknown`, as dead letters say it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotWritten => "not_written",
            Self::Unknown => "unknown",
        }
    }
}

/// Why an attempt, or a batch, failed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// A broker answered with an error.
    Broker {
        /// Kafka's code.
        code: ErrorCode,
        /// The broker's own words, where it gave some.
        message: Option<Arc<str>>,
    },
    /// No answer: the connection ended after the request had left.
    NoAnswer(Arc<str>),
    /// The request could not be sent: no connection to the partition's leader.
    NotAvailable(Arc<str>),
    /// The broker, or its certificate, is not to be trusted, or it does not trust ours.
    Tls(Arc<str>),
    /// The broker speaks no version of a request that kafka-courier speaks; asking again can't help.
    NoCommonVersion(Arc<NoCommonVersion>),
    /// The partition has no known leader.
    NoLeader,
    /// The leader throttled this client for longer than the records could wait, by a quota of the cluster.
    Throttled {
        /// The leader.
        broker: BrokerId,
        /// The throttle time of its last answer (KIP-219).
        last: Duration,
    },
    /// No producer id could be had.
    NoProducerId(Arc<str>),
    /// The producer was closed before the records could be delivered.
    Closed,
    /// The batch's own bytes could not be taken apart; a defect, reported rather than hidden.
    Corrupt(Arc<str>),
}

impl Reason {
    /// Kafka's error code, where a broker gave one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Broker { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Kafka's name of the error, or a word for what else stood in the way, as metrics and dead letters have it:
    /// `MESSAGE_TOO_LARGE`, `no_leader`.
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

    /// Whether the cluster, or the partition's leader, was unavailable to this client.
    pub fn is_absence(&self) -> bool {
        match self {
            Self::NoAnswer(_) | Self::NotAvailable(_) | Self::NoLeader | Self::NoProducerId(_) => true,
            Self::Tls(_) | Self::NoCommonVersion(_) | Self::Throttled { .. } => true,
            Self::Broker { code, .. } => code.is_client_refusal(),
            Self::Closed | Self::Corrupt(_) => false,
        }
    }

    /// Whether the cluster is the cause and not the records: it was not there, or could take none at that time.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Broker { code, .. } => code.is_outage(),
            Self::Closed => true,
            _ => self.is_absence(),
        }
    }

    /// Whether the same records may well be taken later.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Broker { code, .. } => code.is_retriable(),
            Self::Corrupt(_) | Self::Tls(_) | Self::NoCommonVersion(_) => false,
            _ => true,
        }
    }

    /// Whether the cluster refuses us (authentication, rights), or we it (TLS): who is to mend that administers the cluster.
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
                "broker {} throttles this client, for {last:?} the last time: raise its quota (producer_byte_rate), or \
                 publish more slowly",
                broker.0
            ),
            Self::NoProducerId(why) => write!(f, "broker not available: no producer id: {why}"),
            Self::Closed => f.write_str("the producer was closed before the record was delivered"),
            Self::Corrupt(why) => write!(f, "the batch could not be decoded: {why}"),
        }
    }
}

/// The one verdict that every record gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// In the log, on every in-sync replica.
    Delivered {
        /// The offset of the first record of the set; the others follow densely. `None` where it
        /// is proved that they are in the log, but not where.
        base_offset: Option<i64>,
        /// The broker's time in ms since the epoch, where the topic uses LogAppendTime.
        log_append_time: Option<i64>,
    },
    /// Given up.
    Failed(Arc<Failure>),
}

/// A batch to be delivered, as the accumulator sealed it.
#[derive(Debug)]
pub struct Submission<T> {
    /// Where it goes.
    pub partition: PartitionId,
    /// The shell's own word for it; returned with the verdict.
    pub token: T,
    /// Its place among its partition's batches, dense from 0; they are sent in this order.
    pub ordinal: u64,
    /// When its first record was published: `delivery_timeout` runs from here.
    pub published_at: Instant,
    /// Its encoded records.
    pub batch: EncodedBatch,
    /// Its newest record is so old by its own timestamp that a leader may forget our producer id
    /// right after the append (leaders expire ids by record time).
    pub aged: bool,
}

/// One batch within a Produce request.
#[derive(Clone, Debug)]
pub struct ProducePart {
    /// Where it goes.
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
    /// Kafka's error code; 0 is success.
    pub code: i16,
    /// The first record's offset; -1 where the broker has none. [`classify`](super::classify) says in which errors 0 or
    /// more says that the records were appended.
    pub base_offset: i64,
    /// Milliseconds since the Unix epoch, or -1: the leader's time where the topic uses LogAppendTime; for a batch that the
    /// leader recognises the latest timestamp of the batch, whatever the topic uses.
    pub log_append_time: i64,
    /// KIP-467: the records that made the batch fail, by index in the batch, with what the broker says of each.
    pub record_errors: Vec<RejectedRecord>,
    /// The broker's words for the whole batch.
    pub message: Option<Arc<str>>,
    /// KIP-951: the leader that the broker knows, and its epoch.
    pub leader: Option<(BrokerId, i32)>,
}

/// A broker and where it listens.
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
    /// How long the broker asks us to send it nothing (KIP-219).
    pub throttle: Duration,
    /// One for each batch of the request, in the request's order; `None` where the broker left it out.
    pub parts: Vec<Option<PartAnswer>>,
    /// KIP-951: addresses of the leaders that the parts name.
    pub brokers: Vec<BrokerAddress>,
}

/// What a Metadata answer says of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// Partition index.
    pub index: i32,
    /// Its error code; 0 is none.
    pub code: i16,
    /// Its leader, or `None`.
    pub leader: Option<BrokerId>,
    /// The leader's epoch, or -1.
    pub leader_epoch: i32,
}

/// What a Metadata answer says of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicMetadata {
    /// Its name.
    pub name: Arc<str>,
    /// Its id; all zero where the broker gave none.
    pub uuid: TopicUuid,
    /// Its error code; 0 is none.
    pub code: i16,
    /// Its partitions, in any order.
    pub partitions: Vec<PartitionMetadata>,
}

/// A Metadata answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterMetadata {
    /// Every live broker.
    pub brokers: Vec<BrokerAddress>,
    /// The topics that were asked for.
    pub topics: Vec<TopicMetadata>,
}

/// What the shell is to do.
#[derive(Debug)]
pub enum Action<T> {
    /// Open a connection; answer with `on_connected` or `on_disconnected`.
    Connect {
        /// The connection's id.
        conn: ConnId,
        /// Where to.
        address: BrokerAddress,
    },
    /// Close a connection and forget its requests; no answer is wanted.
    Disconnect {
        /// The connection.
        conn: ConnId,
    },
    /// Write this Produce request, after all earlier ones of the connection.
    Send {
        /// The connection.
        conn: ConnId,
        /// The request's id.
        request: RequestId,
        /// What it holds; one batch for each partition.
        parts: Vec<ProducePart>,
    },
    /// Ask any broker for these topics; answer with `on_metadata` or `on_metadata_failed`.
    RefreshMetadata {
        /// Their names.
        topics: Vec<Arc<str>>,
    },
    /// Ask any broker for a producer id; answer with `on_producer_id` or `on_producer_id_failed`.
    InitProducerId,
    /// Ask the partition's leader for its producer state; answer with `on_looked`.
    Look(Look),
    /// Search the partition's log for batches of ours; answer with `on_searched`.
    SearchLog(LogSearch),
    /// A verdict for these records. Each record gets exactly one.
    Settle(Settlement<T>),
    /// Records that were given up as `Unknown` turn out to be in the log.
    Correct {
        /// The shell's word for the batch.
        token: T,
        /// Which records.
        records: RecordSet,
        /// The offset of the first, where known.
        base_offset: Option<i64>,
    },
    /// The topic can be published to, or its partitions or leaders have changed.
    TopicReady {
        /// The topic.
        topic: TopicId,
        /// For each partition that it has now, whether it has a leader. A topic that was made anew may have
        /// fewer than before.
        available: Vec<bool>,
    },
    /// The topic could not be found in time, or may not be used.
    TopicFailed {
        /// The topic.
        topic: TopicId,
        /// Why.
        reason: Reason,
    },
}

/// The verdict on some records of a batch, with the bytes and the memory that are now free.
#[derive(Debug)]
pub struct Settlement<T> {
    /// The shell's word for the batch.
    pub token: T,
    /// Where it was to go.
    pub partition: PartitionId,
    /// Which records of it.
    pub records: RecordSet,
    /// The verdict.
    pub verdict: Verdict,
    /// When its first record was published.
    pub published_at: Instant,
    /// When it was first tried, if ever.
    pub first_attempt: Option<Instant>,
    /// The records' bytes: dead letters are made of them, and the buffer is reused.
    pub batch: Arc<EncodedBatch>,
    /// Bytes of memory that the batch was charged with, to be given back.
    pub charge: usize,
}
