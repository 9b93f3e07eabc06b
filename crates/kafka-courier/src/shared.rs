//! State shared by publishers and the sender's task, and the callbacks of that task.
//!
//! The rules of this module:
//!  - Nothing here blocks.
//!  - Memory is released before a verdict is given, so that a woken publisher finds room.

use std::sync::Arc;
use std::sync::mpsc::{SendError, Sender};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kafka_courier_batcher::{BufferPool, Compression, EncodedBatch, Filled, Limits};
use kafka_courier_client::{PartitionId, Reason, TopicId};
use kafka_courier_idempotent_sender::core::{
    BrokerView, Counters, FailedOutcome, Failure, RecordSet, Settlement, Submission, Verdict,
};
use kafka_courier_idempotent_sender::driver::{Observation, Upcalls};

use crate::clock;
use crate::dead_letters::writer::{FailedRecords, Work};
use crate::delivery::{BatchProgress, Token};
use crate::ledger::BatchLedger;
use crate::memory::{Memory, MemoryShare};
use crate::metrics::{self, Meter};
use crate::sync::{AtomicBool, AtomicI64, AtomicU64, Mutex, Ordering};
use crate::topics::{PartitionSlot, TopicTable};
use crate::trace::SpanOrigin;

/// A batch is aged once its newest record is this old. A leader may forget a producer id a day after that record's
/// timestamp. The limit is half of that day.
const AGED: Duration = Duration::from_secs(12 * 60 * 60);

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
    /// Whether the metrics count this producer's events. A producer that serves another one is not counted.
    pub(crate) metered: bool,
    /// Memory of batches whose dead letters are being stored. It is separate from `buffer_memory`, so that a slow store
    /// does not block deliverable events.
    pub(crate) letters_memory: Memory,
    /// The producer id, or -1 if there is none yet.
    pub(crate) producer_id: AtomicI64,
    /// All producer ids that this producer ever had. Batches of earlier ids may be in flight.
    pub(crate) producer_ids: Mutex<Vec<i64>>,
    /// The brokers as of the sender's last report.
    pub(crate) brokers: Mutex<Vec<BrokerView>>,
}

/// The memory to which a failed batch is charged until its dead letters are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Charge {
    /// The memory for dead letters.
    Letters(usize),
    /// `buffer_memory`, if the memory for dead letters is full.
    Publishers(usize),
}

/// The counts of [`Stats`](crate::Stats), read without a lock. Each verdict is counted once, in `Shared::count`.
#[derive(Debug, Default)]
pub(crate) struct EventCounts {
    pub(crate) sent: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) retried: AtomicU64,
    /// Events that were not accepted.
    pub(crate) refused: AtomicU64,
    /// Dead letters that a replay sent in separate batches, not through the sender: delivered and failed.
    separate: [AtomicU64; 2],
}

impl EventCounts {
    /// Counts a dead letter that was sent in a separate batch.
    pub(crate) fn count_separate_batch(&self, delivered: bool) {
        let [sent, failed] = &self.separate;
        if delivered { sent } else { failed }.fetch_add(1, Ordering::Release);
    }

    /// Returns the delivered and failed events, separately sent dead letters included.
    pub(crate) fn settled(&self) -> (u64, u64) {
        let [sent, failed] = &self.separate;
        let both =
            |own: &AtomicU64, separate: &AtomicU64| own.load(Ordering::Acquire) + separate.load(Ordering::Acquire);
        (both(&self.sent, sent), both(&self.failed, failed))
    }

    /// Returns the number of dead letters that were sent in separate batches.
    pub(crate) fn sent_separately(&self) -> u64 {
        self.separate.iter().map(|count| count.load(Ordering::Acquire)).sum()
    }
}

/// Returns the time in milliseconds since 1970-01-01 UTC.
pub(crate) fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = since.as_secs().saturating_mul(1000).saturating_add(since.subsec_millis().into());
    i64::try_from(millis).unwrap_or(i64::MAX)
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
            metered: false,
            producer_id: (-1).into(),
            producer_ids: Mutex::default(),
            letters_memory: Memory::new(buffer_memory / 4),
            brokers: Mutex::default(),
        }
    }

    /// Encodes a full or due batch for the sender.
    pub(crate) fn submission(&self, slot: &PartitionSlot, filled: Filled<Token>) -> Submission<Token> {
        filled.token.state().set_record_count(filled.record_count());
        let sealed = filled.encode(&self.pool);
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

impl Shared {
    /// Counts a verdict in the statistics and the metrics, before the publisher is notified.
    fn count(&self, topic: &Arc<str>, records: u32, verdict: &Verdict) {
        let (count, records) = match verdict {
            Verdict::Delivered { .. } => (&self.counts.sent, u64::from(records)),
            Verdict::Failed(_) => (&self.counts.failed, u64::from(records)),
        };
        count.fetch_add(records, Ordering::Release);
        if self.metered {
            metrics::count_verdict(topic, records, verdict);
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

    /// Charges a failed batch to the memory for dead letters, if there is room.
    fn charge_letters(&self, partition: PartitionId, bytes: usize) -> Charge {
        if self.letters_memory.reserve(bytes, MemoryShare::Within) {
            self.release(partition, bytes);
            return Charge::Letters(bytes);
        }
        Charge::Publishers(bytes)
    }

    /// Gives records their verdict, after their dead letters are stored.
    pub(crate) fn settle_failed(&self, failed: FailedRecords) {
        let verdict = failed.verdict();
        self.recycle(failed.batch);
        match failed.charge {
            Charge::Letters(bytes) => self.letters_memory.release(bytes),
            Charge::Publishers(bytes) => self.release(failed.partition, bytes),
        }
        let progress = failed.token.state().settle_decided(failed.records, verdict);
        self.update_ledger(&failed.token, progress);
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

/// Failed records, with the batch and memory that they hold.
#[derive(Debug)]
pub(crate) struct UndeliveredRecords {
    pub(crate) token: Token,
    pub(crate) partition: PartitionId,
    pub(crate) records: RecordSet,
    pub(crate) batch: Arc<EncodedBatch>,
    pub(crate) charge: usize,
}

impl Shared {
    /// Has the dead letters of failed records stored, and then gives the records their verdict. The verdict
    /// follows immediately if there is no writer of dead letters.
    pub(crate) fn fail_records(
        &self,
        letters: Option<&Sender<Work>>,
        failed: UndeliveredRecords,
        failure: Arc<Failure>,
    ) {
        let UndeliveredRecords { token, partition, records, batch, charge } = failed;
        let topic = token.state().topic().clone();
        if token.state().decide(records.len()) {
            self.ledger.decide();
        }
        let charge = self.charge_letters(partition, charge);
        let failed = FailedRecords { token, topic, partition, records, failure, batch, charge };
        let Some(letters) = letters else {
            failed.warn(&[]);
            return self.settle_failed(failed);
        };
        if let Err(SendError(Work::Failed(failed))) = letters.send(Work::Failed(failed)) {
            failed.warn(&[]);
            failed.log_letters();
            self.settle_failed(failed);
        }
    }

    /// Fails a batch that the sender's task did not take because the task has ended. The batch was never sent.
    pub(crate) fn fail_unsent(&self, letters: Option<&Sender<Work>>, submission: Submission<Token>) {
        let Submission { token, partition, batch, .. } = submission;
        let failure = Failure::untried(FailedOutcome::NotWritten, Reason::Closed);
        let records = RecordSet::Range(0..batch.record_count());
        let charge = batch.capacity();
        let failure = Arc::new(failure);
        self.count(token.state().topic(), records.len(), &Verdict::Failed(failure.clone()));
        let failed = UndeliveredRecords { token, partition, records, batch: Arc::new(batch), charge };
        self.fail_records(letters, failed, failure);
    }
}

/// The callbacks of the sender's task.
pub(crate) struct Callbacks {
    pub(crate) shared: Arc<Shared>,
    /// The writer of dead letters. A failure is settled immediately if there is none.
    pub(crate) letters: Option<Sender<Work>>,
    /// The recorder of metrics. A producer that serves another one has none.
    pub(crate) meter: Option<Meter>,
}

/// Runs when the task has ended or its runtime was dropped. Nothing more is accepted, and open batches fail.
impl Drop for Callbacks {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        for slot in self.shared.topics.all_slots() {
            let filled = slot.accumulator.lock().seal();
            if let Some(filled) = filled {
                self.shared.fail_unsent(self.letters.as_ref(), self.shared.submission(&slot, filled));
            }
        }
    }
}

impl Callbacks {
    /// Fails the records of a settlement.
    fn fail_settlement(&self, settlement: Settlement<Token>, failure: Arc<Failure>) {
        let Settlement { token, partition, records, batch, charge, .. } = settlement;
        let failed = UndeliveredRecords { token, partition, records, batch, charge };
        self.shared.fail_records(self.letters.as_ref(), failed, failure);
    }
}

impl Upcalls<Token> for Callbacks {
    fn settled(&mut self, settlement: Settlement<Token>) {
        let topic = settlement.token.state().topic();
        self.shared.count(topic, settlement.records.len(), &settlement.verdict);
        if self.meter.is_some() {
            metrics::record_settlement(topic, &settlement);
        }
        if let Verdict::Failed(failure) = &settlement.verdict {
            let failure = clock::explain(failure.clone(), wall_clock_ms());
            return self.fail_settlement(settlement, failure);
        }
        let Settlement { token, partition, records, verdict, batch, charge, .. } = settlement;
        self.shared.recycle(batch);
        self.shared.release(partition, charge);
        let progress = token.state().settle(records, verdict);
        self.shared.update_ledger(&token, progress);
    }

    fn corrected(&mut self, token: Token, records: RecordSet, base_offset: Option<i64>) {
        // A settled `Delivery` keeps its verdict. Only the dead letter is removed.
        tracing::warn!(
            batch = token.state().number,
            events = records.len(),
            ?base_offset,
            "events that failed as unknown are in the log"
        );
        if let Some(letters) = &self.letters {
            let _ = letters.send(Work::Landed { token, records, base_offset });
        }
    }

    fn topic_ready(&mut self, topic: TopicId, name: &Arc<str>, available: &[bool]) {
        self.shared.topics.on_ready(topic, name, available);
    }

    fn topic_limit(&mut self, name: &Arc<str>, bytes: usize) {
        self.shared.topics.on_limit(name, bytes);
    }

    fn topic_failed(&mut self, _topic: TopicId, name: &Arc<str>, reason: &Reason) {
        self.shared.topics.on_failed(name, reason);
    }

    fn ending(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        for slot in self.shared.topics.all_slots() {
            // A publisher that held this lock has sent its `Opened` command by the time the lock is free.
            drop(slot.accumulator.lock());
        }
    }

    fn producer_id(&mut self, id: i64) {
        self.shared.producer_ids.lock().push(id);
        self.shared.producer_id.store(id, Ordering::Relaxed);
    }

    fn lingered(&mut self, partition: PartitionId, ordinal: u64) -> Option<Submission<Token>> {
        let slot = self.shared.topics.slot(partition)?;
        let filled = {
            let mut accumulator = slot.accumulator.lock();
            if accumulator.open_ordinal() != Some(ordinal) {
                return None;
            }
            accumulator.seal()?
        };
        self.shared.topics.on_lingered(partition);
        Some(self.shared.submission(&slot, filled))
    }

    fn is_idle(&self) -> bool {
        self.shared.ledger.is_decided()
    }

    fn counted(&mut self, counters: &Counters, requests_in_flight: usize) {
        if let Some(meter) = &mut self.meter {
            meter.counted(counters, requests_in_flight, self.shared.memory.used());
        }
        self.shared.counts.retried.store(counters.record_retries, Ordering::Relaxed);
    }

    fn observed(&mut self, observation: Observation<'_>) {
        if let Some(meter) = &mut self.meter {
            meter.observed(&observation);
        }
        if let Observation::Brokers(brokers) = observation {
            *self.shared.brokers.lock() = brokers.to_vec();
        }
    }
}
