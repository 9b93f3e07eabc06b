//! Commands to the spool's thread, and its decisions for the [`SpoolHost`].
//!
//! Rule: plain data and one trait. Nothing here decides.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{SendError, Sender};
use std::time::{Duration, Instant};

use kafka_courier_batcher::EncodedBatch;
use kafka_courier_client::{PartitionId, TopicId, TopicUuid};
use kafka_courier_idempotent_sender::core::{FailedOutcome, LeaderMove, MoveId, RecordSet, StampMove, Submission};
use kafka_courier_spool::core::entry::{Ordinal, Partition};
use kafka_courier_spool::core::inputs::{InputNumber, ItemSet};

use super::fault::SpoolFault;
use super::request_key::RequestKey;
use super::status::SpoolStatus;

/// The place of a batch in the spool: its partition there, and the number of its first record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StoredPlace {
    pub(crate) partition: Partition,
    pub(crate) first: Ordinal,
}

impl StoredPlace {
    /// Returns the number of the record at `index` of the batch.
    pub(crate) fn ordinal(&self, index: u32) -> Ordinal {
        self.first.plus(index.into())
    }
}

/// A topic as the cluster names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TopicIdentity {
    pub(crate) topic: TopicId,
    /// The id, if the brokers send one.
    pub(crate) uuid: Option<TopicUuid>,
    pub(crate) partitions: u32,
    /// The id of the cluster, if the brokers send one.
    pub(crate) cluster: Option<Arc<str>>,
    /// Why the brokers can't show their producer states, if they can't.
    pub(crate) outdated: Option<Arc<str>>,
}

/// A call that follows once the journal has failed records as settled. It is not made if the journal can't be written.
pub(crate) struct SettledNotice(Box<dyn FnOnce() + Send>);

impl SettledNotice {
    pub(crate) fn new(call: impl FnOnce() + Send + 'static) -> Self {
        Self(Box::new(call))
    }

    pub(crate) fn call(self) {
        (self.0)();
    }
}

impl fmt::Debug for SettledNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SettledNotice")
    }
}

/// A request to the spool's thread.
#[derive(Debug)]
pub(crate) enum SpoolCommand<T> {
    /// Store a batch, then hand it to the sender.
    Sealed(Submission<T>),
    /// Seal this open batch at the start of the next round, because a caller waits until it is stored.
    Awaited {
        partition: PartitionId,
        /// The batch's number in its partition.
        batch: u64,
    },
    /// The sender knows this topic, with this number of partitions.
    Topic { topic: TopicId, name: Arc<str>, partitions: u32 },
    /// The cluster has named a topic that the sender knows.
    Identity(TopicIdentity),
    /// Records are in the log.
    Delivered { place: StoredPlace, records: RecordSet, base_offset: Option<i64> },
    /// Records failed, and their dead letters are not durable yet.
    Failed { place: StoredPlace, records: RecordSet },
    /// The dead letters of failed records are durable.
    Kept { place: StoredPlace, records: RecordSet, notice: SettledNotice },
    /// No durable store took the dead letters of failed records.
    NotKept { place: StoredPlace, records: RecordSet },
    /// Make the stamps of records durable.
    Persist(StampMove),
    /// The sender can't decide about the batches of an earlier process that it has, without the ones behind them.
    More(PartitionId),
    /// Make a leader epoch durable.
    PersistLeader(LeaderMove),
    /// An input begins.
    Input { input: InputNumber, name: Arc<str> },
    /// Items of an input have no record.
    Skipped { input: InputNumber, items: ItemSet },
    /// Forget the keys of requests from before this time, in milliseconds since 1970-01-01 UTC.
    ForgetKeys { before_ms: u64 },
    /// Send nothing more after this time. Stored batches stay stored.
    Close { deadline: Instant },
    /// Store all accepted batches, and end.
    Finish,
}

/// The token of a stored batch whose bytes the disk alone has.
#[derive(Debug)]
pub(crate) struct KeptToken<T> {
    pub(crate) token: T,
    pub(crate) records: u32,
}

/// A number that stands in the producer's ledger for stored batches without a token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Ticket(pub(crate) u64);

/// The token of a batch.
pub(crate) trait BatchToken {
    /// Returns the items of the batch's records, for each input.
    fn items(&self) -> Vec<(InputNumber, ItemSet)>;

    /// Returns the keys of the batch's records, each with the record's index.
    fn keys(&self) -> Vec<(u32, RequestKey)>;

    /// Retires the token of a stored batch for which no caller can ask any more. Returns the ticket that stands for the batch
    /// from now on: `ticket` if there is one, else another. Returns `None`, and changes nothing, if the token is still needed.
    fn retire(&self, ticket: Option<Ticket>) -> Option<Ticket>;
}

/// A batch that was read back from the journal, before it has a token.
#[derive(Debug)]
pub(crate) struct ReadBatch<'a> {
    pub(crate) partition: PartitionId,
    pub(crate) place: StoredPlace,
    /// The bytes of the life that stored the batch.
    pub(crate) notes: &'a Arc<[u8]>,
    pub(crate) records: u32,
    pub(crate) ticket: Option<Ticket>,
}

/// The source of tokens and memory for batches that were read back.
pub(crate) trait BatchSource<T> {
    /// Returns a token for a batch.
    fn token(&self, batch: &ReadBatch<'_>) -> T;
    /// Charges the memory of a batch.
    fn charge(&self, partition: PartitionId, bytes: usize);
}

/// Stored batches that are lost, or left to a later process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct UnreadBatches {
    pub(crate) partition: PartitionId,
    pub(crate) batches: u64,
    pub(crate) records: u64,
    pub(crate) ticket: Option<Ticket>,
    /// Whether an earlier process stored the batches.
    pub(crate) is_inherited: bool,
}

/// A decision of the spool. The order of decisions counts.
#[derive(Debug)]
pub(crate) enum Effect<T> {
    /// The batch is durable. Its deliveries report that.
    Durable { token: T, place: StoredPlace, reserved: usize },
    /// The sender may have the batch.
    Release(Submission<T>),
    /// The journal has the failed records as settled. No process sends them again.
    Settled(SettledNotice),
    /// The stamps or the leader epoch of this request are durable.
    Persisted { partition: PartitionId, id: MoveId },
    /// The batch is not stored, and is not sent.
    NotStored(Submission<T>, SpoolFault),
    /// The disk alone has the bytes of the durable batch from now on.
    Unloaded(PartitionId, EncodedBatch),
    /// Read the next batch of the spool's partition that begins at an ordinal, or behind.
    Load { partition: PartitionId, from: StoredPlace },
    /// Stored records are damaged on the disk, and lost. Tokens are those of batches that callers may ask for.
    Lost(UnreadBatches, Vec<KeptToken<T>>),
    /// A stored batch can't be read now. The partition waits.
    Unreadable(PartitionId, Arc<str>),
    /// The sender ends before it got the batch. A later process delivers the batch.
    LeftStored(Submission<T>),
    /// The sender ends before these batches were read back.
    LeftOnDisk(UnreadBatches, Vec<KeptToken<T>>),
    /// The batch was for a topic that was deleted since, or for a partition that it no longer has. The topic has its id in
    /// the journal.
    Orphaned(Submission<T>, FailedOutcome, Option<TopicUuid>),
    /// The partition sends nothing under new stamps, because no durable store took a dead letter.
    Held(Partition),
}

/// The counts that the metrics show.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SpoolLevel {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// Bytes of durable batches in memory.
    pub(crate) resident_bytes: u64,
    /// The timestamp of the oldest unsettled record, in milliseconds since 1970-01-01 UTC.
    pub(crate) oldest_ms: Option<i64>,
}

/// The producer around the spool's thread. The thread calls each method, so no method waits.
pub(crate) trait SpoolHost<T>: BatchSource<T> + Send + 'static {
    /// Seals the open batch of a partition, if it still has this number.
    fn seal(&self, partition: PartitionId, batch: u64) -> Option<Submission<T>>;
    /// Carries out a decision.
    fn apply(&self, effect: Effect<T>);
    /// Returns the time in milliseconds since 1970-01-01 UTC.
    fn wall_clock_ms(&self) -> i64;
    /// Notes a durable round, and how long its write took.
    fn round_durable(&self, took: Duration);
    /// Notes the counts.
    fn note_level(&self, level: SpoolLevel);
}

/// The way to the spool's thread.
#[derive(Debug)]
pub(crate) struct SpoolSender<T> {
    pub(crate) commands: Sender<SpoolCommand<T>>,
    pub(crate) status: Arc<SpoolStatus>,
}

impl<T> Clone for SpoolSender<T> {
    fn clone(&self) -> Self {
        Self { commands: self.commands.clone(), status: self.status.clone() }
    }
}

impl<T> SpoolSender<T> {
    /// Sends a command. Returns the batch of a command that finds no thread.
    pub(crate) fn send(&self, command: SpoolCommand<T>) -> Option<Submission<T>> {
        match self.commands.send(command) {
            Err(SendError(SpoolCommand::Sealed(submission))) => Some(submission),
            _ => None,
        }
    }
}
