//! The thread that keeps dead letters and only then tells of the failure.
//!
//! Rules:
//! - A verdict of failure is told once its letters are kept; deliveries never wait for that.
//! - All that waits is kept at once (group commit), within bounds.
//! - It is a thread, not a task: stores block, and it outlives its runtime until everything that was handed to it is kept.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use kafka_courier_batcher::EncodedBatch;
use kafka_courier_dlq::Letter;
use kafka_courier_idempotent_sender::core::{FailedOutcome, Failure, PartitionId, RecordSet, Verdict};
use tokio::sync::oneshot;

use super::chain::{Chain, ToKeep, log_whole};
use super::make::{Clocks, GivenUp, Made, letters};
use crate::delivery::Token;
use crate::shared::{Charge, Shared};

/// Records whose letters are kept at once, about.
const RECORDS_AT_ONCE: u32 = 4096;
/// Bytes of batches whose letters are kept at once, about.
const BYTES_AT_ONCE: usize = 8 << 20;

/// How often what is too old is dropped, and what others did to the stores is noticed.
const ROUND: Duration = Duration::from_secs(5);

/// Records that were given up, with what they hold until their letters are kept.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) token: Token,
    pub(crate) topic: Arc<str>,
    pub(crate) partition: PartitionId,
    pub(crate) records: RecordSet,
    pub(crate) failure: Arc<Failure>,
    pub(crate) batch: Arc<EncodedBatch>,
    pub(crate) charge: Charge,
}

/// What the writer is given to do; it is done in this order.
#[derive(Debug)]
pub(crate) enum Work {
    /// Records that were given up.
    Failed(Failed),
    /// Records that were given up as unknown are in the log.
    Landed { token: Token, records: RecordSet, base_offset: Option<i64> },
    /// Letters that were written by hand.
    Put { letters: Vec<Letter>, kept: oneshot::Sender<()> },
    /// Tells when all that was given before is done.
    Barrier(oneshot::Sender<()>),
}

/// Starts the thread. It ends when the last sender is gone and all is done.
pub(crate) fn start(chain: Arc<Chain>, shared: Arc<Shared>) -> std::io::Result<Sender<Work>> {
    let (sender, works) = channel();
    let writer = Writer { chain, shared };
    std::thread::Builder::new().name("dead-letters".to_owned()).spawn(move || writer.run(&works))?;
    Ok(sender)
}

/// In the line of a batch that was given up.
const CORRELATION_IDS: usize = 3;

struct Writer {
    chain: Arc<Chain>,
    shared: Arc<Shared>,
}

impl Writer {
    fn run(&self, works: &Receiver<Work>) {
        loop {
            let first = match works.recv_timeout(ROUND) {
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
                        self.do_other(other);
                    }
                }
                if records < RECORDS_AT_ONCE && bytes < BYTES_AT_ONCE {
                    next = works.try_recv().ok();
                }
            }
            self.keep(failed);
        }
    }

    fn do_other(&self, work: Work) {
        match work {
            Work::Failed(failed) => self.keep(vec![failed]),
            Work::Landed { token, records, base_offset } => self.landed(&token, &records, base_offset),
            Work::Put { letters, kept } => {
                let keep = |letter| ToKeep { letter, again: false, cluster_absent: false };
                self.chain.keep(letters.into_iter().map(keep).collect());
                crate::metrics::dead_letters(self.chain.held());
                // Whoever asked may have gone.
                let _ = kept.send(());
            }
            Work::Barrier(reached) => {
                let _ = reached.send(());
            }
        }
    }

    /// Keeps the letters of what failed, then tells the verdicts.
    fn keep(&self, failed: Vec<Failed>) {
        if failed.is_empty() {
            return;
        }
        let clocks = Clocks::read();
        let mut all = Vec::new();
        for failed in &failed {
            let letters = failed.letters(clocks);
            if failed.failure.outcome == FailedOutcome::Unknown {
                failed.token.state().keep_letters(letters.iter().map(|made| (made.index, made.letter.id)));
            }
            failed.warn(&letters);
            letters.iter().for_each(|made| explain(&made.letter));
            let cluster_absent = failed.failure.reason.is_absence();
            let keep = |made: Made| ToKeep { letter: made.letter, again: made.again, cluster_absent };
            all.extend(letters.into_iter().map(keep));
        }
        self.chain.keep(all);
        crate::metrics::dead_letters(self.chain.held());
        for failed in failed {
            self.shared.settle_failed(failed);
        }
    }

    fn landed(&self, token: &Token, records: &RecordSet, base_offset: Option<i64>) {
        let letters: Vec<_> = token.state().take_letters(records).into_iter().map(|(_, id)| id).collect();
        if letters.is_empty() {
            return;
        }
        let removed = self.chain.landed(&letters);
        crate::metrics::dead_letters(self.chain.held());
        tracing::info!(
            letters = letters.len(),
            removed,
            ?base_offset,
            "records with dead letters are in the log after all"
        );
    }
}

/// One line for each event that was given up, by which it is found again wherever its correlation id is known.
fn explain(letter: &Letter) {
    tracing::debug!(
        dead_letter = %letter.id,
        event_id = letter.event_id,
        event_type = letter.event_type,
        correlation_id = letter.correlation_id,
        topic = letter.topic,
        reason = letter.failure_reason,
        "an event was given up and is a dead letter now"
    );
}

impl Failed {
    fn letters(&self, clocks: Clocks) -> Vec<Made> {
        letters(&self.given_up(), clocks, &self.token.state().replayed())
    }

    /// One line for a batch, with some of its events' correlation ids; each event's own line is for those who debug.
    pub(crate) fn warn(&self, letters: &[Made]) {
        let mut correlation_ids: Vec<&str> = Vec::new();
        for id in letters.iter().filter_map(|made| made.letter.correlation_id.as_deref()) {
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
            "events were given up"
        );
    }

    /// Nobody is left to keep letters: they stand in the log.
    pub(crate) fn log_letters(&self) {
        self.letters(Clocks::read()).iter().for_each(|made| log_whole(&made.letter));
    }

    fn given_up(&self) -> GivenUp<'_> {
        GivenUp {
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
