//! What the publishing side and the sender's task have in common, and what the task calls back.
//!
//! Rules: nothing here blocks; memory goes back before a verdict is told, so that whoever is told finds room.

use std::sync::Arc;
use std::sync::mpsc::{SendError, Sender};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kafka_courier_batcher::{BufferPool, Compression, EncodedBatch, Filled, Limits};
use kafka_courier_idempotent_sender::core::{
    BrokerView, Counters, FailedOutcome, Failure, PartitionId, Reason, RecordSet, Settlement, Submission, TopicId,
    Verdict,
};
use kafka_courier_idempotent_sender::driver::{Observation, Upcalls};

use crate::clock;
use crate::dead_letters::writer::{FailedRecords, Work};
use crate::delivery::{Ended, Token};
use crate::ledger::Ledger;
use crate::memory::{Asker, Memory};
use crate::metrics::{self, Meter};
use crate::sync::{AtomicBool, AtomicI64, AtomicU64, Mutex, Ordering};
use crate::topics::{Slot, Topics};
use crate::trace::Origin;

/// A leader may forget a producer id a day after the newest record's own timestamp; half of that is old.
const AGED: Duration = Duration::from_secs(12 * 60 * 60);

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) topics: Topics,
    pub(crate) memory: Memory,
    pub(crate) pool: BufferPool,
    pub(crate) ledger: Arc<Ledger>,
    /// What spans say of this producer.
    pub(crate) origin: Origin,
    pub(crate) closed: AtomicBool,
    pub(crate) counts: Counts,
    /// Whether its events are counted in the metrics: not those of a producer within another.
    pub(crate) metered: bool,
    /// Memory of batches whose dead letters are being written: beside `buffer_memory`, so that a slow store does not
    /// hold up what can be delivered.
    pub(crate) letters_memory: Memory,
    /// The producer id, or -1 as long as there is none.
    pub(crate) producer_id: AtomicI64,
    /// All that this producer ever had: batches of the former ones may be under way.
    pub(crate) producer_ids: Mutex<Vec<i64>>,
    /// The brokers, as the sender's task saw them last.
    pub(crate) brokers: Mutex<Vec<BrokerView>>,
}

/// Whose memory a batch that was given up is counted with, until its letters are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Charge {
    /// The letters' own.
    Letters(usize),
    /// The publishers', when the letters' own is used up.
    Publishers(usize),
}

/// What has happened so far; read without a lock. Every verdict is counted once, in `Shared::count`.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sent: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) retried: AtomicU64,
    /// Events that were not accepted.
    pub(crate) refused: AtomicU64,
    /// Dead letters that a replay has sent in batches of their own, past the sender: delivered, and failed.
    alone: [AtomicU64; 2],
}

impl Counts {
    /// Counts a dead letter that went in a batch of its own.
    pub(crate) fn count_alone(&self, delivered: bool) {
        let [sent, failed] = &self.alone;
        if delivered { sent } else { failed }.fetch_add(1, Ordering::Release);
    }

    /// Events that were acknowledged and given up, dead letters that went alone included.
    pub(crate) fn settled(&self) -> (u64, u64) {
        let [sent, failed] = &self.alone;
        let both = |own: &AtomicU64, alone: &AtomicU64| own.load(Ordering::Acquire) + alone.load(Ordering::Acquire);
        (both(&self.sent, sent), both(&self.failed, failed))
    }

    /// Dead letters that went in batches of their own, whatever became of them.
    pub(crate) fn went_alone(&self) -> u64 {
        self.alone.iter().map(|count| count.load(Ordering::Acquire)).sum()
    }
}

/// Milliseconds since 1970-01-01 UTC.
pub(crate) fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = since.as_secs().saturating_mul(1000).saturating_add(since.subsec_millis().into());
    i64::try_from(millis).unwrap_or(i64::MAX)
}

impl Shared {
    pub(crate) fn new(limits: Limits, compression: Compression, buffer_memory: usize) -> Self {
        Self {
            topics: Topics::new(limits, compression),
            memory: Memory::new(buffer_memory),
            pool: BufferPool::new(buffer_memory / 4),
            ledger: Arc::default(),
            origin: Origin::default(),
            closed: false.into(),
            counts: Counts::default(),
            metered: false,
            producer_id: (-1).into(),
            producer_ids: Mutex::default(),
            letters_memory: Memory::new(buffer_memory / 4),
            brokers: Mutex::default(),
        }
    }

    /// Encodes a batch that is full or due, for the sender.
    pub(crate) fn submission(&self, slot: &Slot, filled: Filled<Token>) -> Submission<Token> {
        filled.token.state().sealed(filled.record_count());
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
    /// Counts a verdict, in the statistics and the metrics alike, before the publisher is notified.
    fn count(&self, topic: &Arc<str>, records: u32, verdict: &Verdict) {
        let (count, records) = match verdict {
            Verdict::Delivered { .. } => (&self.counts.sent, u64::from(records)),
            Verdict::Failed(_) => (&self.counts.failed, u64::from(records)),
        };
        count.fetch_add(records, Ordering::Release);
        if self.metered {
            metrics::verdict(topic, records, verdict);
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

    /// Moves a batch that was given up to the letters' memory, as long as there is some.
    fn charge_letters(&self, partition: PartitionId, bytes: usize) -> Charge {
        if self.letters_memory.reserve(bytes, Asker::Within) {
            self.release(partition, bytes);
            return Charge::Letters(bytes);
        }
        Charge::Publishers(bytes)
    }

    /// Tells the verdict on records whose letters are kept.
    pub(crate) fn settle_failed(&self, failed: FailedRecords) {
        let verdict = failed.verdict();
        self.recycle(failed.batch);
        match failed.charge {
            Charge::Letters(bytes) => self.letters_memory.release(bytes),
            Charge::Publishers(bytes) => self.release(failed.partition, bytes),
        }
        let ended = failed.token.state().settle_decided(failed.records, verdict);
        self.ended(&failed.token, ended);
    }

    pub(crate) fn ended(&self, token: &Token, ended: Ended) {
        if ended.decided {
            self.ledger.decide();
        }
        if ended.settled {
            self.ledger.strike(token.state().number);
        }
    }
}

/// Records that were given up, with what they hold.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) token: Token,
    pub(crate) partition: PartitionId,
    pub(crate) records: RecordSet,
    pub(crate) batch: Arc<EncodedBatch>,
    pub(crate) charge: usize,
}

impl Shared {
    /// Records that failed for good: their letters come first, then their verdict. Without anybody to keep letters the
    /// verdict is told at once.
    pub(crate) fn give_up(&self, letters: Option<&Sender<Work>>, given: Given, failure: Arc<Failure>) {
        let Given { token, partition, records, batch, charge } = given;
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

    /// A batch that the sender's task did not take any more, because it has ended: it never left.
    pub(crate) fn orphaned(&self, letters: Option<&Sender<Work>>, submission: Submission<Token>) {
        let Submission { token, partition, batch, .. } = submission;
        let failure = Failure::untried(FailedOutcome::NotWritten, Reason::Closed);
        let records = RecordSet::Range(0..batch.record_count());
        let charge = batch.capacity();
        let failure = Arc::new(failure);
        self.count(token.state().topic(), records.len(), &Verdict::Failed(failure.clone()));
        let given = Given { token, partition, records, batch: Arc::new(batch), charge };
        self.give_up(letters, given, failure);
    }
}

/// The sender's task calls these.
pub(crate) struct Callbacks {
    pub(crate) shared: Arc<Shared>,
    /// Who keeps dead letters; without one a failure is told at once.
    pub(crate) letters: Option<Sender<Work>>,
    /// Who measures; none for a producer within another.
    pub(crate) meter: Option<Meter>,
}

/// The task has ended, or its runtime was dropped: nothing more is accepted, and what is still open fails.
impl Drop for Callbacks {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        for slot in self.shared.topics.all_slots() {
            let filled = slot.accumulator.lock().seal();
            if let Some(filled) = filled {
                self.shared.orphaned(self.letters.as_ref(), self.shared.submission(&slot, filled));
            }
        }
    }
}

impl Callbacks {
    /// Records that failed for good: their letters come first, then their verdict.
    fn given_up(&self, settlement: Settlement<Token>, failure: Arc<Failure>) {
        let Settlement { token, partition, records, batch, charge, .. } = settlement;
        let given = Given { token, partition, records, batch, charge };
        self.shared.give_up(self.letters.as_ref(), given, failure);
    }
}

impl Upcalls<Token> for Callbacks {
    fn settled(&mut self, settlement: Settlement<Token>) {
        let topic = settlement.token.state().topic();
        self.shared.count(topic, settlement.records.len(), &settlement.verdict);
        if self.meter.is_some() {
            metrics::settled(topic, &settlement);
        }
        if let Verdict::Failed(failure) = &settlement.verdict {
            let failure = clock::explain(failure.clone(), wall_clock_ms());
            return self.given_up(settlement, failure);
        }
        let Settlement { token, partition, records, verdict, batch, charge, .. } = settlement;
        self.shared.recycle(batch);
        self.shared.release(partition, charge);
        let ended = token.state().settle(records, verdict);
        self.shared.ended(&token, ended);
    }

    fn corrected(&mut self, token: Token, records: RecordSet, base_offset: Option<i64>) {
        // A Delivery that was settled stays as it was told; its dead letter is one no more.
        tracing::warn!(
            batch = token.state().number,
            events = records.len(),
            ?base_offset,
            "events that were given up as unknown are in the log"
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
            // Whoever was still inside has told the task of what it opened once this lock was free.
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
        self.shared.topics.aged(partition);
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
