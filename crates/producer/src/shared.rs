//! What the publishing side and the sender's task have in common, and what the task calls back.
//!
//! Rules: nothing here blocks; memory goes back before a verdict is told, so that whoever is told finds room.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kafka_courier_batcher::{BufferPool, Filled};
use kafka_courier_idempotent_sender::core::{
    Counters, PartitionId, Reason, RecordSet, Settlement, Submission, TopicId, Verdict,
};
use kafka_courier_idempotent_sender::driver::Upcalls;

use crate::delivery::Token;
use crate::ledger::Ledger;
use crate::memory::Memory;
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::topics::{Slot, Topics};

/// A leader may forget a producer id a day after the newest record's own timestamp; half of that is old.
const AGED: Duration = Duration::from_secs(12 * 60 * 60);

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) topics: Topics,
    pub(crate) memory: Memory,
    pub(crate) pool: BufferPool,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) closed: AtomicBool,
    pub(crate) counts: Counts,
    /// Sealed batches without their last verdict.
    pub(crate) on_their_way: AtomicUsize,
}

/// What has happened so far; read without a lock.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sent: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) retried: AtomicU64,
}

/// Milliseconds since 1970-01-01 UTC.
pub(crate) fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Shared {
    /// Encodes a batch that is full or due, for the sender.
    pub(crate) fn submission(&self, slot: &Slot, filled: Filled<Token>) -> Submission<Token> {
        filled.token.state().sealed(filled.record_count());
        let sealed = filled.encode(&self.pool);
        self.on_their_way.fetch_add(1, Ordering::Relaxed);
        slot.release(&self.memory, sealed.released);
        let old = wall_clock_ms() - i64::try_from(AGED.as_millis()).unwrap_or(0);
        Submission {
            partition: slot.id,
            token: sealed.token,
            ordinal: sealed.ordinal,
            published_at: sealed.opened_at,
            aged: sealed.batch.max_timestamp() < old,
            batch: sealed.batch,
        }
    }
}

/// The sender's task calls these.
pub(crate) struct Callbacks(pub(crate) Arc<Shared>);

/// The task has ended, or was taken away with its runtime: nothing more is accepted, and what is still open
/// settles with its owners' going.
impl Drop for Callbacks {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::SeqCst);
        for slot in self.0.topics.all_slots() {
            drop(slot.accumulator.lock().seal());
        }
    }
}

impl Upcalls<Token> for Callbacks {
    fn settled(&mut self, settlement: Settlement<Token>) {
        let Settlement { token, partition, records, verdict, batch, charge } = settlement;
        if let Some(batch) = Arc::into_inner(batch) {
            self.0.pool.put(batch.into_buffer());
        }
        match self.0.topics.slot(partition) {
            Some(slot) => slot.release(&self.0.memory, charge),
            None => self.0.memory.release(charge),
        }
        if let Verdict::Failed(failure) = &verdict {
            let topic = self.0.topics.topic(partition.topic);
            tracing::warn!(
                topic = topic.as_ref().map_or("?", |topic| &*topic.name),
                partition = partition.index,
                events = records.len(),
                outcome = failure.outcome.as_str(),
                attempts = failure.attempts,
                reason = %failure.reason,
                "events were given up"
            );
        }
        if token.state().settle(records, verdict) {
            self.0.on_their_way.fetch_sub(1, Ordering::Relaxed);
            self.0.ledger.strike(token.state().number);
        }
    }

    fn corrected(&mut self, token: Token, records: RecordSet, base_offset: Option<i64>) {
        // A Delivery that was settled stays as it was told.
        tracing::warn!(
            batch = token.state().number,
            events = records.len(),
            ?base_offset,
            "events that were given up as unknown are in the log"
        );
    }

    fn topic_ready(&mut self, topic: TopicId, name: &Arc<str>, available: &[bool]) {
        self.0.topics.on_ready(topic, name, available);
    }

    fn topic_limit(&mut self, name: &Arc<str>, bytes: usize) {
        self.0.topics.on_limit(name, bytes);
    }

    fn topic_failed(&mut self, _topic: TopicId, name: &Arc<str>, reason: &Reason) {
        self.0.topics.on_failed(name, reason);
    }

    fn lingered(&mut self, partition: PartitionId, ordinal: u64) -> Option<Submission<Token>> {
        let slot = self.0.topics.slot(partition)?;
        let filled = {
            let mut accumulator = slot.accumulator.lock();
            if accumulator.open_ordinal() != Some(ordinal) {
                return None;
            }
            accumulator.seal()?
        };
        Some(self.0.submission(&slot, filled))
    }

    fn is_idle(&self) -> bool {
        self.0.ledger.is_empty()
    }

    fn counted(&mut self, counters: &Counters) {
        self.0.counts.sent.store(counters.records_delivered, Ordering::Relaxed);
        self.0.counts.failed.store(counters.records_failed, Ordering::Relaxed);
        self.0.counts.retried.store(counters.record_retries, Ordering::Relaxed);
    }
}
