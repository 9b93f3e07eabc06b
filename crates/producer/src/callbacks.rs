//! [`Callbacks`], what the sender's task calls.
//!
//! The rules of this module:
//!  - Nothing here blocks.
//!  - Memory is released before a verdict is given, so that a woken publisher finds room.
//!  - Once the task has ended, nothing more is accepted, and open batches fail.

use std::sync::Arc;

use kafka_courier_client::{PartitionId, Reason, TopicId};
use kafka_courier_idempotent_sender::core::{Counters, Failure, RecordSet, Settlement, Submission, Verdict};
use kafka_courier_idempotent_sender::driver::{Observation, Upcalls};

use crate::clock;
use crate::delivery::Token;
use crate::failure_sink::{FailedPart, FailureSink, Landed, fail_records, fail_unsent};
use crate::metrics::{self, Meter};
use crate::shared::{Shared, wall_clock_ms};
use crate::sync::Ordering;

/// The callbacks of the sender's task.
pub(crate) struct Callbacks {
    pub(crate) shared: Arc<Shared>,
    /// The sink of failed records. A failure is settled immediately if there is none.
    pub(crate) sink: Option<Arc<dyn FailureSink>>,
    /// The recorder of metrics. An engine that serves another one has none.
    pub(crate) meter: Option<Meter>,
}

/// Runs when the task has ended or its runtime was dropped. Nothing more is accepted, and open batches fail.
impl Drop for Callbacks {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        for slot in self.shared.topics.all_slots() {
            let filled = slot.accumulator.lock().seal();
            if let Some(filled) = filled {
                fail_unsent(&self.shared, self.sink.as_ref(), self.shared.submission(&slot, filled));
            }
        }
    }
}

impl Callbacks {
    /// Fails the records of a settlement.
    fn fail_settlement(&self, settlement: Settlement<Token>, failure: Arc<Failure>) {
        let Settlement { token, partition, records, batch, charge, .. } = settlement;
        let failed = FailedPart { token, partition, records, batch, charge };
        fail_records(&self.shared, self.sink.as_ref(), failed, failure);
    }
}

impl Upcalls<Token> for Callbacks {
    fn settled(&mut self, settlement: Settlement<Token>) {
        let topic = settlement.token.state().topic();
        self.shared.counts.count_verdict(topic, settlement.records.len(), &settlement.verdict);
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
        // A settled `Delivery` keeps its verdict. Only the sink is notified.
        tracing::warn!(
            batch = token.state().number,
            events = records.len(),
            ?base_offset,
            "events that failed as unknown are in the log"
        );
        if let Some(sink) = &self.sink {
            sink.landed(Landed { token, records, base_offset });
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
        self.shared.cluster.add_producer_id(id);
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
            self.shared.cluster.set_brokers(brokers);
        }
    }
}
