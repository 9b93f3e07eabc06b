//! Entries: the facts that a frame holds. `encoding` has their bytes.

use std::sync::Arc;

use kafka_courier_batcher::Stamp;

use super::frame::FrameSequence;
use super::ids::Life;
pub use super::ids::{Ordinal, Partition, TopicNumber};
use super::inputs::{InputNumber, ItemSet};
use super::keys::RecordKey;

/// A topic as the cluster named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// The number within the spool.
    pub number: TopicNumber,
    /// The name.
    pub name: Arc<str>,
    /// Kafka's topic id (KIP-516).
    pub id: [u8; 16],
    /// The number of partitions.
    pub partitions: u32,
}

/// Everything that the journal says about a batch, apart from its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchHead {
    /// The partition.
    pub partition: Partition,
    /// The life that accepted the records.
    pub life: Life,
    /// The first record's ordinal.
    pub first: Ordinal,
    /// The number of records, at least one.
    pub count: u32,
    /// Bytes of the layer above. The journal does not read them.
    pub notes: Arc<[u8]>,
}

impl BatchHead {
    /// Returns the ordinal after the last record.
    #[must_use]
    pub fn end(&self) -> Ordinal {
        self.first.plus(u64::from(self.count))
    }
}

/// A sealed record batch without a stamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalBatch {
    /// The place of its records.
    pub head: BatchHead,
    /// The bytes of Kafka's record batch, header included. The journal does not read them.
    pub bytes: Arc<[u8]>,
}

/// One fact of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The cluster that the records are for, by Kafka's cluster id.
    Cluster(Arc<str>),
    /// A topic.
    Topic(Topic),
    /// A batch of records.
    Batch(JournalBatch),
    /// The first ordinal that a life accepted in a partition.
    Begin {
        /// The partition.
        partition: Partition,
        /// The life.
        life: Life,
        /// The ordinal.
        from: Ordinal,
    },
    /// The records from an ordinal on have this stamp and the following ones. The entry follows the batch that holds
    /// the first record. It supersedes all moves at or behind that ordinal.
    Move {
        /// The partition.
        partition: Partition,
        /// The first ordinal of the run of stamps.
        from: Ordinal,
        /// The stamp of the first record that is not skipped.
        stamp: Stamp,
        /// Records without a number: each range's first ordinal, and the one after its last.
        skips: Vec<(Ordinal, Ordinal)>,
    },
    /// The run of stamps to which the first unsettled record belongs began before that record. In a checkpoint.
    Anchor {
        /// The partition.
        partition: Partition,
        /// The stamp of the first unsettled record that is not skipped.
        stamp: Stamp,
        /// Unsettled records without a number, as in `Move`.
        skips: Vec<(Ordinal, Ordinal)>,
        /// Whether an earlier record of the run is out, although it has a number.
        has_out: bool,
    },
    /// Records that are not sent: they are dead letters, or lost. Their numbers are not given to other records.
    Out {
        /// The partition.
        partition: Partition,
        /// The first ordinal.
        first: Ordinal,
        /// The ordinal after the last.
        end: Ordinal,
        /// Why they are not sent.
        why: OutReason,
    },
    /// Every record before an ordinal is settled.
    Mark {
        /// The partition.
        partition: Partition,
        /// The ordinal after the last settled record.
        settled: Ordinal,
        /// The end offset of the log up to which the settled records are known to be, or -1.
        end_offset: i64,
    },
    /// The newest leader epoch of the partition: no process adopts a leader of an earlier one.
    Leader {
        /// The partition.
        partition: Partition,
        /// The leader epoch.
        epoch: i32,
    },
    /// The ordinal after the last accepted record, in a checkpoint.
    End {
        /// The partition.
        partition: Partition,
        /// The ordinal.
        end: Ordinal,
    },
    /// The frames of a base.
    Base(Base),
    /// An input.
    Input {
        /// The number within the spool.
        input: InputNumber,
        /// The name that the layer above gave it.
        name: Arc<str>,
    },
    /// Items of an input that are dealt with. The frame also holds the batches with their records.
    Items {
        /// The input.
        input: InputNumber,
        /// The items.
        items: ItemSet,
    },
    /// Keys of requests. The frame also holds the batches with their records.
    Keys {
        /// Keys from before this time, in milliseconds since 1970-01-01 UTC, are forgotten.
        forget_before_ms: u64,
        /// The keys, each with its record.
        keys: Vec<RecordKey>,
    },
}

/// A base: frames that hold the whole table, and the batches of all frames that may not be durable. An opening writes one.
///
/// The frames up to `resumes` are durable, and their batches count where they are. The frames between `resumes` and `first`
/// are void: they belong to the unsynced tail of an earlier life, or the base holds their entries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// The last earlier frame that is known to be durable.
    pub resumes: FrameSequence,
    /// The first frame of the base.
    pub first: FrameSequence,
    /// The last frame of the base.
    pub last: FrameSequence,
}

/// Why a record is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum OutReason {
    /// The record is settled behind one that is not: it is delivered, or a durable dead letter.
    Settled = 1,
    /// The bytes of the record were damaged on the disk.
    Lost = 2,
}
