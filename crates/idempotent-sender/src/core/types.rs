//! Data that the core and its driver exchange: inputs and actions.
//!
//! Rule: the types are plain data and decide nothing.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use kafka_courier_batcher::{EncodedBatch, Stamp};
use kafka_courier_client::{BrokerAddress, PartitionId, ProducePart, Reason, TopicId};

use super::failure::Failure;
use super::ids::{ConnId, MoveId, RequestId};
use super::lookup::{LogSearch, StateLookup};

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
    /// The sender ends without a verdict, and a durable log holds the records: a later process delivers them.
    Stored,
}

/// The place of a batch in a durable log, which holds its records until their verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoredBatch {
    /// The number of the first record among all records that the log took for the partition. The other records follow
    /// without gaps.
    pub first: u64,
    /// The number of the topic in the log. A topic that is deleted and created again has another number, and the records of
    /// each number have separate stamps in the log.
    pub topic: u32,
    /// The process that the log took the batch from, as a number that grows with each process.
    pub life: u64,
    /// The stamp that an earlier process gave to the batch, and under which it may have sent it.
    pub inherited: Option<InheritedStamp>,
}

/// The stamp of a batch of an earlier process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InheritedStamp {
    /// The stamp of the first record.
    pub stamp: Stamp,
    /// The end offset of the records that were acknowledged before: the batch is at no earlier offset. `None` if it is
    /// not known.
    pub search_from: Option<i64>,
    /// Whether an earlier batch of this producer id and epoch was acknowledged. Its leader then knew the producer id.
    pub is_acknowledged: bool,
    /// Whether an earlier batch of this producer id and epoch failed as unknown. A late request can still append that batch,
    /// and then this one.
    pub follows_unknown: bool,
    /// The newest leader epoch of the partition that an earlier process made durable. `None` if there is none.
    pub leader_epoch: Option<i32>,
}

/// The stamps of the records of a partition from one record on, to be made durable before any of them leaves.
///
/// Records that failed before have no number: their failure must be durable too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StampMove {
    /// The partition.
    pub partition: PartitionId,
    /// The id of this request.
    pub id: MoveId,
    /// The number of the first record, as in [`StoredBatch::first`].
    pub from: u64,
    /// The stamp of the first record.
    pub stamp: Stamp,
    /// The leader epoch that becomes durable with the stamps, as in [`LeaderMove`]. `None` if it is unknown.
    pub leader_epoch: Option<i32>,
}

/// The epoch of a partition's leader, to be made durable before a stored batch is sent to this leader.
///
/// A later process adopts no leader of an earlier epoch (KIP-320). The log of such a leader may lack acknowledged records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaderMove {
    /// The partition.
    pub partition: PartitionId,
    /// The id of this request.
    pub id: MoveId,
    /// The leader epoch.
    pub leader_epoch: i32,
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
    /// The batch's place in a durable log. Such a batch never fails because of time or an outage: it fails only if it is
    /// rejected, or if its outcome can't be determined.
    pub stored: Option<Box<StoredBatch>>,
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
    /// Makes the stamps of records durable. Verdicts that were reported before must be durable first. The driver answers
    /// with `on_persisted` once they are. Nothing leaves under these stamps before.
    Persist(StampMove),
    /// Asks for the stored batches of an earlier process behind those that were submitted, because those alone can't be decided.
    /// The request may be repeated, and nothing waits for an answer: the durable log may have none.
    More(PartitionId),
    /// Makes a leader epoch durable. The driver answers with `on_persisted` once it is. No stored batch is sent to this
    /// leader before.
    PersistLeader(LeaderMove),
    /// Reports that stored records wait: the broker refuses them until a right, a setting or a clock is corrected. The next
    /// verdict in the partition ends the wait.
    Waits {
        /// The partition.
        partition: PartitionId,
        /// The broker's refusal.
        reason: Reason,
    },
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
