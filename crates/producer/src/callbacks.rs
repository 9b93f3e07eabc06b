//! [`Callbacks`], what the sender's task calls.
//!
//! The rules of this module:
//!  - Nothing here blocks.
//!  - Memory is released before a verdict is given, so that a woken publisher finds room.
//!  - Once the task has ended, nothing more is accepted, and open batches fail. A spool stores them instead.

use std::sync::Arc;

use kafka_courier_client::{PartitionId, Reason, TopicId};
use kafka_courier_idempotent_sender::core::{
    Counters, Failure, LeaderMove, RecordSet, Settlement, StampMove, Submission, Verdict,
};
use kafka_courier_idempotent_sender::driver::{Observation, Upcalls};
use tokio::sync::mpsc::UnboundedSender;

use crate::clock;
use crate::delivery::Token;
use crate::failure_sink::{FailedPart, FailureSink, Landed, fail_records, fail_unsent};
use crate::metrics::{self, Meter};
use crate::shared::{Shared, wall_clock_ms};
use crate::spool::{SpoolCommand, TopicNews};
use crate::sync::Ordering;

/// The callbacks of the sender's task.
pub(crate) struct Callbacks {
    pub(crate) shared: Arc<Shared>,
    /// The sink of failed records. A failure is settled immediately if there is none.
    pub(crate) sink: Option<Arc<dyn FailureSink>>,
    /// The recorder of metrics. An engine that serves another one has none.
    pub(crate) meter: Option<Meter>,
    /// The task that learns the ids of topics, for the spool.
    pub(crate) topic_news: Option<UnboundedSender<TopicNews>>,
}

/// Runs when the task has ended or its runtime was dropped. Nothing more is accepted, and open batches fail.
impl Drop for Callbacks {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        for slot in self.shared.topics.all_slots() {
            let filled = slot.accumulator.lock().seal();
            let submission = filled.map(|filled| self.shared.submission(&slot, filled));
            if let Some(unsent) = submission.and_then(|submission| store(&self.shared, submission)) {
                fail_unsent(&self.shared, self.sink.as_ref(), unsent);
            }
        }
    }
}

/// Hands a batch to the spool. Returns the batch if there is no spool, or its thread has ended.
fn store(shared: &Shared, submission: Submission<Token>) -> Option<Submission<Token>> {
    match &shared.spool {
        Some(spool) => spool.send(SpoolCommand::Sealed(submission)),
        None => Some(submission),
    }
}

impl Callbacks {
    /// Passes news of a topic to the task of the spool, if there is one.
    fn pass_on(&self, news: impl FnOnce() -> TopicNews) {
        if let Some(watch) = &self.topic_news {
            // The task may have ended with its runtime.
            let _ = watch.send(news());
        }
    }

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
        if let Some(spool) = &self.shared.spool {
            spool.status.waits.end(settlement.partition);
        }
        self.shared.counts.count_verdict(topic, settlement.records.len(), &settlement.verdict);
        if self.meter.is_some() {
            metrics::record_settlement(topic, &settlement);
        }
        if let Verdict::Failed(failure) = &settlement.verdict {
            let failure = clock::explain(failure.clone(), wall_clock_ms());
            return self.fail_settlement(settlement, failure);
        }
        let Settlement { token, partition, records, verdict, batch, charge, .. } = settlement;
        if let (Verdict::Delivered { base_offset, .. }, Some(spool)) = (&verdict, &self.shared.spool)
            && let Some(stored) = token.state().stored()
        {
            let (place, records, base_offset) = (stored.place, records.clone(), *base_offset);
            spool.send(SpoolCommand::Delivered { place, records, base_offset });
        }
        self.shared.recycle(batch);
        self.shared.release(partition, charge);
        let progress = token.state().settle(records, verdict);
        self.shared.update_ledger(&token, progress);
    }

    fn persist(&mut self, stamps: StampMove) {
        if let Some(spool) = &self.shared.spool {
            spool.send(SpoolCommand::Persist(stamps));
        }
    }

    fn needs_more(&mut self, partition: PartitionId) {
        if let Some(spool) = &self.shared.spool {
            spool.send(SpoolCommand::More(partition));
        }
    }

    fn persist_leader(&mut self, leader: LeaderMove) {
        if let Some(spool) = &self.shared.spool {
            spool.send(SpoolCommand::PersistLeader(leader));
        }
    }

    fn waits(&mut self, partition: PartitionId, topic: &Arc<str>, reason: &Reason) {
        if let Some(spool) = &self.shared.spool {
            spool.status.waits.note(partition, topic, &clock::with_remedy(reason));
        }
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
        if let Some(spool) = &self.shared.spool {
            let partitions = u32::try_from(available.len()).unwrap_or(u32::MAX);
            // The spool knows a topic before it gets the topic's first batch.
            spool.send(SpoolCommand::Topic { topic, name: name.clone(), partitions });
        }
        self.shared.topics.on_ready(topic, name, available);
        self.pass_on(|| TopicNews::Ready(topic, name.clone()));
    }

    fn topic_limit(&mut self, name: &Arc<str>, bytes: usize) {
        self.shared.topics.on_limit(name, bytes);
    }

    fn topic_failed(&mut self, _topic: TopicId, name: &Arc<str>, reason: &Reason) {
        self.shared.topics.on_failed(name, reason);
        if self.shared.topics.get(name).is_some_and(|topic| topic.partitions.is_some()) {
            self.pass_on(|| TopicNews::Failed(name.clone()));
        }
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
        store(&self.shared, self.shared.submission(&slot, filled))
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
