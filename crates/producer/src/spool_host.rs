//! [`EngineHost`]: the producer as its spool's thread sees it.
//!
//! Rules:
//!  - A batch is reported as stored before the sender gets it.
//!  - A stored batch that the sender no longer takes is left to a later process.
//!  - Memory of a batch that leaves it returns to publishers. A batch that is read back is charged, beyond the bound where
//!    needed: the residence bounds these batches.

use std::sync::Arc;
use std::time::Duration;

use kafka_courier_client::{ErrorCode, PartitionId, Reason};
use kafka_courier_idempotent_sender::core::{FailedOutcome, Failure, RecordSet, Submission, Verdict};
use kafka_courier_idempotent_sender::driver::DriverCommand;
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::mpsc::error::SendError;

use crate::delivery::{StoredIdentity, Token};
use crate::failure_sink::{FailureSink, fail_batch, fail_unstored};
use crate::metrics;
use crate::shared::{Shared, wall_clock_ms};
use crate::spool::{
    BatchSource, Effect, KeptToken, ReadBatch, SpoolFault, SpoolHost, SpoolLevel, Ticket, UnreadBatches,
};
use crate::sync::Ordering;

/// Acts for the spool's thread.
pub(crate) struct EngineHost {
    pub(crate) shared: Arc<Shared>,
    pub(crate) sink: Option<Arc<dyn FailureSink>>,
    /// The sender's commands. The sender ends by a command, so this end may stay open.
    pub(crate) commands: UnboundedSender<DriverCommand<Token>>,
    /// The id of the spool.
    pub(crate) spool: [u8; 16],
    /// The random bytes of this life.
    pub(crate) nonce: Arc<[u8]>,
    pub(crate) is_metered: bool,
    pub(crate) runtime: Handle,
}

impl EngineHost {
    fn send(&self, command: DriverCommand<Token>) {
        if let Err(SendError(DriverCommand::Sealed(submission))) = self.commands.send(command) {
            self.shared.settle_stored(submission);
        }
    }

    /// Returns room that a batch reserved on its way to the disk.
    fn release_room(&self, bytes: usize) {
        if let Some(spool) = &self.shared.spool {
            spool.status.space.release(bytes);
        }
    }

    /// Wakes a closing sender's task, which waits until each batch has a verdict.
    fn wake_closing_sender(&self) {
        if self.shared.closed.load(Ordering::SeqCst) {
            self.send(DriverCommand::SealOpen);
        }
    }

    fn fail(&self, submission: Submission<Token>, failure: Failure) {
        // The sink and the metrics recorder are called from the runtime's threads otherwise.
        let _entered = self.runtime.enter();
        fail_batch(&self.shared, self.sink.as_ref(), submission, failure);
        self.wake_closing_sender();
    }

    fn fail_unstored(&self, submission: Submission<Token>, failure: Failure) {
        let _entered = self.runtime.enter();
        fail_unstored(&self.shared, self.sink.as_ref(), submission, failure);
        self.wake_closing_sender();
    }
}

impl EngineHost {
    /// Gives stored batches their verdict whose bytes the disk alone has.
    fn settle_unread(&self, unread: UnreadBatches, tokens: Vec<KeptToken<Token>>, verdict: &Verdict) {
        let UnreadBatches { partition, batches, records, ticket, .. } = unread;
        let Some(topic) = self.shared.topics.name(partition) else { return };
        // The metrics recorder is called from the runtime's threads otherwise.
        let _entered = self.runtime.enter();
        self.shared.counts.count_verdict(&topic, records, verdict);
        if let Some(Ticket(number)) = ticket {
            self.shared.ledger.decide_many(batches);
            self.shared.ledger.remove_many(number, batches);
        }
        for KeptToken { token, records } in tokens {
            let progress = token.state().settle(RecordSet::Range(0..records), verdict.clone());
            self.shared.update_ledger(&token, progress);
        }
        self.wake_closing_sender();
    }

    fn note_loss(&self, lost: UnreadBatches, tokens: Vec<KeptToken<Token>>) {
        let (topic, partition) = (self.shared.topics.name(lost.partition), lost.partition.index);
        let records = lost.records;
        tracing::error!(?topic, partition, records, "stored events were damaged on the disk and are lost");
        if let Some(spool) = &self.shared.spool {
            spool.status.lost.fetch_add(records, Ordering::Relaxed);
        }
        // An earlier process may have sent its batches. The sender never had those of this process.
        let outcome = if lost.is_inherited { FailedOutcome::Unknown } else { FailedOutcome::NotWritten };
        let reason = Reason::NotStored("the stored event is damaged on the disk".into());
        self.settle_unread(lost, tokens, &Verdict::Failed(Arc::new(Failure::untried(outcome, reason))));
    }

    fn note_unreadable(&self, partition: PartitionId, why: Arc<str>) {
        if let (Some(topic), Some(spool)) = (self.shared.topics.name(partition), &self.shared.spool) {
            let reason = Reason::NotAvailable(format!("a stored batch can't be read: {why}").into());
            spool.status.waits.note(partition, &topic, &reason);
        }
    }
}

impl BatchSource<Token> for EngineHost {
    fn token(&self, batch: &ReadBatch<'_>) -> Token {
        let ReadBatch { partition, place, notes, records, ticket } = *batch;
        let shared = &self.shared;
        let topic = shared.topics.name(partition).unwrap_or_default();
        // The ledger entered a batch with its ticket.
        let number = ticket.map_or_else(|| shared.ledger.enter(), |Ticket(number)| number);
        let token = Token::with_number(&topic, partition.index, &shared.ledger, &shared.origin, number);
        token.state().set_record_count(records);
        token.state().set_stored(StoredIdentity { place, spool: self.spool, nonce: notes.clone() });
        token
    }

    fn charge(&self, partition: PartitionId, bytes: usize) {
        match self.shared.topics.slot(partition) {
            Some(slot) => slot.charge(&self.shared.memory, bytes),
            None => self.shared.memory.charge(bytes),
        }
    }
}

impl SpoolHost<Token> for EngineHost {
    fn seal(&self, partition: PartitionId, batch: u64) -> Option<Submission<Token>> {
        let slot = self.shared.topics.slot(partition)?;
        let filled = {
            let mut accumulator = slot.accumulator.lock();
            if accumulator.open_ordinal() != Some(batch) {
                return None;
            }
            accumulator.seal()?
        };
        Some(self.shared.submission(&slot, filled))
    }

    fn apply(&self, effect: Effect<Token>) {
        match effect {
            Effect::Durable { token, place, reserved } => {
                self.release_room(reserved);
                let (spool, nonce) = (self.spool, self.nonce.clone());
                token.state().set_stored(StoredIdentity { place, spool, nonce });
            }
            Effect::Release(submission) => self.send(DriverCommand::Sealed(submission)),
            Effect::Settled(notice) => notice.call(),
            Effect::Persisted { partition, id } => self.send(DriverCommand::Persisted { partition, id }),
            Effect::NotStored(submission, fault) => {
                self.release_room(submission.batch.capacity());
                let outcome = match fault {
                    SpoolFault::Full => FailedOutcome::NotWritten,
                    // The failed write may have reached the disk, and a later process then delivers the batch.
                    _ => FailedOutcome::Unknown,
                };
                let failure = Failure::untried(outcome, Reason::NotStored(fault.to_string().into()));
                self.fail_unstored(submission, failure);
            }
            Effect::Unloaded(partition, batch) => {
                let charge = batch.capacity();
                self.shared.pool.put(batch.into_buffer());
                self.shared.release(partition, charge);
            }
            Effect::Lost(lost, tokens) => self.note_loss(lost, tokens),
            Effect::Unreadable(partition, why) => self.note_unreadable(partition, why),
            // The thread reads.
            Effect::Load { .. } => {}
            Effect::LeftStored(submission) => {
                self.shared.settle_stored(submission);
                self.wake_closing_sender();
            }
            Effect::LeftOnDisk(left, tokens) => self.settle_unread(left, tokens, &Verdict::Stored),
            Effect::Orphaned(submission, outcome, topic_uuid) => {
                let message = "the topic was deleted and created again since an earlier process stored the event";
                let code = ErrorCode::UNKNOWN_TOPIC_ID;
                let reason = Reason::Broker { code, message: Some(message.into()) };
                // A verification searches for the stamp.
                let inherited = submission.stored.as_deref().and_then(|stored| stored.inherited);
                let (stamp, search_from) = inherited.map(|sent| (sent.stamp, sent.search_from)).unzip();
                let search_from = search_from.flatten();
                let failure = Failure { stamp, search_from, topic_uuid, ..Failure::untried(outcome, reason) };
                self.fail(submission, failure);
            }
            Effect::Held(partition) => tracing::warn!(
                partition = partition.index,
                "no durable store takes dead letters of stored events, the partition waits: check dlq_file and dlq_topic"
            ),
        }
    }

    fn wall_clock_ms(&self) -> i64 {
        wall_clock_ms()
    }

    fn round_durable(&self, took: Duration) {
        if self.is_metered {
            metrics::record_spool_round(took);
        }
    }

    fn note_level(&self, level: SpoolLevel) {
        if self.is_metered {
            metrics::record_spool_level(level.records, level.bytes, level.oldest_ms);
        }
    }
}
