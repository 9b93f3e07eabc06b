//! The thread that keeps dead letters, and then settles the failed records.
//!
//! Rules:
//! - A record is settled as failed after its letter is kept. Verdicts of delivered records never wait for letters.
//! - All waiting letters are kept in one call to the store (group commit), within bounds.
//! - The writer is a thread and not a task, because stores block. It outlives its runtime until all its work is done.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use kafka_courier_batcher::EncodedBatch;
use kafka_courier_client::PartitionId;
use kafka_courier_dlq::Letter;
use kafka_courier_idempotent_sender::core::{FailedOutcome, Failure, RecordSet, Verdict};
use tokio::sync::oneshot;

use super::batch_letters::{BatchLetter, Clocks, FailedBatch, letters};
use super::chain::{PendingLetter, StoreChain, log_whole};
use crate::delivery::Token;
use crate::shared::{Charge, Shared};

/// The approximate number of records whose letters are kept in one group.
const RECORDS_AT_ONCE: u32 = 4096;
/// The approximate size of the batches whose letters are kept in one group, in bytes.
const BYTES_AT_ONCE: usize = 8 << 20;

/// The interval of expiry, and of reading the counts that other processes change.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(5);

/// Failed records, with the resources that they hold until their letters are kept.
#[derive(Debug)]
pub(crate) struct FailedRecords {
    pub(crate) token: Token,
    pub(crate) topic: Arc<str>,
    pub(crate) partition: PartitionId,
    pub(crate) records: RecordSet,
    pub(crate) failure: Arc<Failure>,
    pub(crate) batch: Arc<EncodedBatch>,
    pub(crate) charge: Charge,
}

/// Work for the writer, which does it in the order of arrival.
#[derive(Debug)]
pub(crate) enum Work {
    /// Keep the letters of failed records, then settle the records.
    Failed(FailedRecords),
    /// Remove the letters of records with the outcome unknown that are in the log.
    Landed { token: Token, records: RecordSet, base_offset: Option<i64> },
    /// Keep letters of the application.
    Put { letters: Vec<Letter>, kept: oneshot::Sender<()> },
    /// Notify once all earlier work is done.
    Barrier(oneshot::Sender<()>),
}

/// Starts the thread, which ends once the last sender is dropped and all work is done.
pub(crate) fn start(chain: Arc<StoreChain>, shared: Arc<Shared>) -> std::io::Result<Sender<Work>> {
    let (sender, queue) = channel();
    let writer = LetterWriter { chain, shared };
    std::thread::Builder::new().name("dead-letters".to_owned()).spawn(move || writer.run(&queue))?;
    Ok(sender)
}

/// The number of correlation ids in the log line of a failed batch.
const CORRELATION_IDS: usize = 3;

struct LetterWriter {
    chain: Arc<StoreChain>,
    shared: Arc<Shared>,
}

impl LetterWriter {
    fn run(&self, queue: &Receiver<Work>) {
        loop {
            let first = match queue.recv_timeout(EXPIRY_INTERVAL) {
                Ok(first) => first,
                Err(RecvTimeoutError::Timeout) => {
                    self.chain.expire();
                    crate::metrics::dead_letters(self.chain.held());
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut failed = Vec::new();
            let (mut records, mut bytes) = (0, 0);
            let mut next = Some(first);
            while let Some(work) = next.take() {
                match work {
                    Work::Failed(more) => {
                        records += more.records.len();
                        bytes += more.batch.uncompressed_len();
                        failed.push(more);
                    }
                    other => {
                        self.keep(std::mem::take(&mut failed));
                        self.handle(other);
                    }
                }
                if records < RECORDS_AT_ONCE && bytes < BYTES_AT_ONCE {
                    next = queue.try_recv().ok();
                }
            }
            self.keep(failed);
        }
    }

    fn handle(&self, work: Work) {
        match work {
            Work::Failed(failed) => self.keep(vec![failed]),
            Work::Landed { token, records, base_offset } => self.remove_written(&token, &records, base_offset),
            Work::Put { letters, kept } => {
                let pending = |letter| PendingLetter { letter, is_replayed: false, is_cluster_absent: false };
                self.chain.keep(letters.into_iter().map(pending).collect());
                crate::metrics::dead_letters(self.chain.held());
                // The caller may have dropped its future.
                let _ = kept.send(());
            }
            Work::Barrier(reached) => {
                let _ = reached.send(());
            }
        }
    }

    /// Keeps the letters of failed records, then settles the records.
    fn keep(&self, failed: Vec<FailedRecords>) {
        if failed.is_empty() {
            return;
        }
        let clocks = Clocks::read();
        let mut all = Vec::new();
        for failed in &failed {
            let letters = failed.letters(clocks);
            if failed.failure.outcome == FailedOutcome::Unknown {
                failed.token.state().keep_letters(letters.iter().map(|one| (one.index, one.letter.id)));
            }
            failed.warn(&letters);
            letters.iter().for_each(|one| log_dead_letter(&one.letter));
            let is_cluster_absent = failed.failure.reason.is_absence();
            let pending =
                |BatchLetter { letter, is_replayed, .. }| PendingLetter { letter, is_replayed, is_cluster_absent };
            all.extend(letters.into_iter().map(pending));
        }
        self.chain.keep(all);
        crate::metrics::dead_letters(self.chain.held());
        for failed in failed {
            self.shared.settle_failed(failed);
        }
    }

    fn remove_written(&self, token: &Token, records: &RecordSet, base_offset: Option<i64>) {
        let letters: Vec<_> = token.state().take_letters(records).into_iter().map(|(_, id)| id).collect();
        if letters.is_empty() {
            return;
        }
        let removed = self.chain.remove_written(&letters);
        crate::metrics::dead_letters(self.chain.held());
        tracing::info!(letters = letters.len(), removed, ?base_offset, "records with dead letters are in the log");
    }
}

/// Logs one line for a failed event, to find it by its correlation id.
fn log_dead_letter(letter: &Letter) {
    tracing::debug!(
        dead_letter = %letter.id,
        event_id = letter.event_id,
        event_type = letter.event_type,
        correlation_id = letter.correlation_id,
        topic = letter.topic,
        reason = letter.failure_reason,
        "event failed and becomes a dead letter"
    );
}

impl FailedRecords {
    fn letters(&self, clocks: Clocks) -> Vec<BatchLetter> {
        letters(&self.failed_batch(), clocks, &self.token.state().replayed())
    }

    /// Logs one warning for the batch, with some correlation ids of its events. Each event has its own line at debug
    /// level.
    pub(crate) fn warn(&self, letters: &[BatchLetter]) {
        let mut correlation_ids: Vec<&str> = Vec::new();
        for id in letters.iter().filter_map(|one| one.letter.correlation_id.as_deref()) {
            if correlation_ids.len() == CORRELATION_IDS {
                break;
            }
            if !correlation_ids.contains(&id) {
                correlation_ids.push(id);
            }
        }
        tracing::warn!(
            topic = &*self.topic,
            partition = self.partition.index,
            events = self.records.len(),
            outcome = self.failure.outcome.as_str(),
            attempts = self.failure.attempts,
            reason = %self.failure.reason,
            ?correlation_ids,
            "events failed"
        );
    }

    /// Writes the letters to the log, because no writer is left to keep them.
    pub(crate) fn log_letters(&self) {
        self.letters(Clocks::read()).iter().for_each(|one| log_whole(&one.letter));
    }

    fn failed_batch(&self) -> FailedBatch<'_> {
        FailedBatch {
            topic: &self.topic,
            partition: self.partition.index,
            records: &self.records,
            failure: &self.failure,
            batch: &self.batch,
        }
    }

    pub(crate) fn verdict(&self) -> Verdict {
        Verdict::Failed(self.failure.clone())
    }
}
