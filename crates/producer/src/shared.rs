//! State shared by publishers and the sender's task.
//!
//! The rules of this module:
//!  - Nothing here blocks.
//!  - Memory is released before a verdict is given, so that a woken publisher finds room.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use kafka_courier_batcher::{BufferPool, Compression, EncodedBatch, Limits, SealedBatch};
use kafka_courier_client::PartitionId;
use kafka_courier_idempotent_sender::core::{ID_MEMORY, RecordSet, Submission, Verdict};

use crate::cluster_view::ClusterView;
use crate::counts::EventCounts;
use crate::delivery::{BatchProgress, Token};
use crate::ledger::BatchLedger;
use crate::memory::{Memory, MemoryShare};
use crate::recovered_keys::RecoveredKey;
use crate::spool::SpoolSender;
use crate::sync::{AtomicBool, Mutex};
use crate::topics::{PartitionSlot, TopicTable};
use crate::trace::SpanOrigin;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) topics: TopicTable,
    pub(crate) memory: Memory,
    pub(crate) pool: BufferPool,
    pub(crate) ledger: Arc<BatchLedger>,
    /// The attributes of every span of this producer.
    pub(crate) origin: SpanOrigin,
    pub(crate) closed: AtomicBool,
    pub(crate) counts: EventCounts,
    pub(crate) cluster: ClusterView,
    /// Memory of failed batches that the failure sink holds. It is separate from `buffer_memory`, so that a slow sink
    /// does not block deliverable events.
    pub(crate) failed_memory: Memory,
    /// The way to the spool, if the producer has one.
    pub(crate) spool: Option<SpoolSender<Token>>,
    /// The keys of requests that the spool had when it was opened, until they are taken.
    pub(crate) recovered_keys: Mutex<Vec<RecoveredKey>>,
}

/// The memory to which a failed batch is charged until the failure sink settles it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Charge {
    /// The memory for failed batches.
    Failed(usize),
    /// `buffer_memory`, if the memory for failed batches is full.
    Publishers(usize),
}

/// Returns the time in milliseconds since 1970-01-01 UTC.
pub fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = since.as_secs().saturating_mul(1000).saturating_add(since.subsec_millis().into());
    i64::try_from(millis).unwrap_or(i64::MAX)
}

/// Returns whether a leader may forget the producer id right after it has appended the batch.
pub(crate) fn is_aged(batch: &EncodedBatch) -> bool {
    batch.max_timestamp() < wall_clock_ms() - i64::try_from(ID_MEMORY.as_millis()).unwrap_or(0)
}

impl Shared {
    pub(crate) fn new(limits: Limits, compression: Compression, buffer_memory: usize) -> Self {
        Self {
            topics: TopicTable::new(limits, compression),
            memory: Memory::new(buffer_memory),
            pool: BufferPool::new(buffer_memory / 4),
            ledger: Arc::default(),
            origin: SpanOrigin::default(),
            closed: false.into(),
            counts: EventCounts::default(),
            cluster: ClusterView::default(),
            failed_memory: Memory::new(buffer_memory / 4),
            spool: None,
            recovered_keys: Mutex::default(),
        }
    }

    /// Encodes a full or due batch for the sender.
    pub(crate) fn submission(&self, slot: &PartitionSlot, filled: SealedBatch<Token>) -> Submission<Token> {
        filled.token.state().set_record_count(filled.record_count());
        let sealed = filled.encode(&self.pool);
        slot.release(&self.memory, sealed.released);
        if let Some(spool) = &self.spool {
            spool.status.space.release(sealed.released);
        }
        Submission {
            partition: slot.id,
            token: sealed.token,
            ordinal: sealed.ordinal,
            published_at: sealed.opened_at,
            aged: is_aged(&sealed.batch),
            stored: None,
            batch: sealed.batch,
        }
    }

    pub(crate) fn release(&self, partition: PartitionId, bytes: usize) {
        match self.topics.slot(partition) {
            Some(slot) => slot.release(&self.memory, bytes),
            None => self.memory.release(bytes),
        }
    }

    pub(crate) fn recycle(&self, batch: Arc<EncodedBatch>) {
        if let Some(batch) = Arc::into_inner(batch) {
            self.pool.put(batch.into_buffer());
        }
    }

    /// Charges a failed batch to the memory for failed batches, if there is room.
    pub(crate) fn charge_failed(&self, partition: PartitionId, bytes: usize) -> Charge {
        if self.failed_memory.reserve(bytes, MemoryShare::Within) {
            self.release(partition, bytes);
            return Charge::Failed(bytes);
        }
        Charge::Publishers(bytes)
    }

    /// Gives failed records their verdict, and releases their memory.
    pub(crate) fn settle_failed(
        &self,
        token: &Token,
        partition: PartitionId,
        records: RecordSet,
        charge: Charge,
        verdict: Verdict,
    ) {
        match charge {
            Charge::Failed(bytes) => self.failed_memory.release(bytes),
            Charge::Publishers(bytes) => self.release(partition, bytes),
        }
        let progress = token.state().settle_decided(records, verdict);
        self.update_ledger(token, progress);
    }

    /// Gives a batch that the spool has the verdict that this process does not deliver it.
    pub(crate) fn settle_stored(&self, submission: Submission<Token>) {
        let Submission { token, partition, batch, .. } = submission;
        let (records, charge) = (RecordSet::Range(0..batch.record_count()), batch.capacity());
        self.counts.count_verdict(token.state().topic(), records.len(), &Verdict::Stored);
        self.pool.put(batch.into_buffer());
        self.release(partition, charge);
        let progress = token.state().settle(records, Verdict::Stored);
        self.update_ledger(&token, progress);
    }

    /// Updates the ledger after a verdict.
    pub(crate) fn update_ledger(&self, token: &Token, progress: BatchProgress) {
        if progress.decided {
            self.ledger.decide();
        }
        if progress.settled {
            self.ledger.remove(token.state().number);
        }
    }
}
