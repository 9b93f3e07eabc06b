//! The thread that keeps dead letters, and then settles the failed records.
//!
//! Rules:
//! - A record of a spool has the same letter id in each process, so a crash between letter and settlement adds no letter.
//! - The letter of such a record has the outcome unknown until the spool has the record as settled: if this process ends
//!   before that, a later one sends the record again. A replay would otherwise send it, too.
//! - A record is settled as failed after its letter is kept. Verdicts of delivered records never wait for letters.
//! - All waiting letters are kept in one call to the store (group commit), within bounds.
//! - The writer is a thread and not a task, because stores block. It outlives its runtime until all its work is done.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SendError, Sender, channel};
use std::time::Duration;

use kafka_courier_dlq::{Letter, LetterId, Outcome};
use kafka_courier_idempotent_sender::core::FailedOutcome;
use kafka_courier_producer::{Landed, Tag, Undelivered};
use tokio::sync::oneshot;

use super::awaited::{KeepLetter, without_returned};
use super::batch_letters::{BatchLetter, Clocks, FailedBatch, letters, stored_id};
use super::chain::{PendingLetter, StoreChain, log_whole};
use crate::metrics;

/// The approximate number of records whose letters are kept in one group.
const RECORDS_AT_ONCE: u32 = 4096;
/// The approximate size of the batches whose letters are kept in one group, in bytes.
const BYTES_AT_ONCE: usize = 8 << 20;

/// The interval of expiry, and of reading the counts that other processes change.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(5);

/// Work for the writer, which does it in the order of arrival.
#[derive(Debug)]
pub(crate) enum Work {
    /// Keep the letters of failed records, then settle the records.
    Failed {
        /// The records.
        undelivered: Undelivered,
        /// The way back to the writer, for [`Work::Settled`].
        work: Sender<Work>,
    },
    /// Store these letters with their outcome. The spool has their records as settled.
    Settled(Vec<Letter>),
    /// Remove the letters of records with the outcome unknown that are in the log.
    Landed(Landed),
    /// Keep letters of the application. The answer names the letters that are lost with the process.
    Put { letters: Vec<Letter>, kept: oneshot::Sender<HashSet<LetterId>> },
    /// Notify once all earlier work is done.
    Barrier(oneshot::Sender<()>),
}

/// Starts the thread, which ends once the last sender is dropped and all work is done.
pub(crate) fn start(chain: Arc<StoreChain>) -> std::io::Result<Sender<Work>> {
    let (sender, queue) = channel();
    let writer = LetterWriter { chain };
    std::thread::Builder::new().name("dead-letters".to_owned()).spawn(move || writer.run(&queue))?;
    Ok(sender)
}

/// The number of correlation ids in the log line of a failed batch.
const CORRELATION_IDS: usize = 3;

struct LetterWriter {
    chain: Arc<StoreChain>,
}

impl LetterWriter {
    fn run(&self, queue: &Receiver<Work>) {
        loop {
            let first = match queue.recv_timeout(EXPIRY_INTERVAL) {
                Ok(first) => first,
                Err(RecvTimeoutError::Timeout) => {
                    self.chain.expire();
                    metrics::dead_letters(self.chain.held());
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut failed = Vec::new();
            let (mut records, mut bytes) = (0, 0);
            let mut next = Some(first);
            while let Some(work) = next.take() {
                match work {
                    Work::Failed { undelivered: more, work } => {
                        records += more.records().len();
                        bytes += more.uncompressed_len();
                        failed.push((more, work));
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
            Work::Failed { undelivered, work } => self.keep(vec![(undelivered, work)]),
            Work::Settled(letters) => self.chain.store_outcomes(&letters),
            Work::Landed(landed) => self.remove_written(&landed),
            Work::Put { letters, kept } => {
                let pending = |letter| PendingLetter { letter, is_replayed: false, is_cluster_absent: false };
                let volatile = self.chain.keep(letters.into_iter().map(pending).collect());
                metrics::dead_letters(self.chain.held());
                // The caller may have dropped its future.
                let _ = kept.send(volatile);
            }
            Work::Barrier(reached) => {
                let _ = reached.send(());
            }
        }
    }

    /// Keeps the letters of failed records, then settles the records.
    fn keep(&self, failed: Vec<(Undelivered, Sender<Work>)>) {
        if failed.is_empty() {
            return;
        }
        let clocks = Clocks::read();
        let (mut all, mut ids) = (Vec::new(), Vec::new());
        for (failed, work) in &failed {
            let mut letters = letters_of(failed, clocks, &keep_later(work));
            let provisional = make_provisional(failed, &mut letters);
            if failed.failure().outcome == FailedOutcome::Unknown {
                failed.leave_notes(letters.iter().map(|one| (one.index, Arc::new(one.letter.id) as Tag)));
            }
            log_failure(failed, &letters);
            letters.iter().for_each(|one| log_dead_letter(&one.letter));
            let is_cluster_absent = failed.failure().reason.is_absence();
            let pending =
                |BatchLetter { letter, is_replayed, .. }| PendingLetter { letter, is_replayed, is_cluster_absent };
            ids.push((letters.iter().map(|one| one.letter.id).collect::<Vec<LetterId>>(), provisional));
            all.extend(letters.into_iter().map(pending));
        }
        let volatile = self.chain.keep(all);
        metrics::dead_letters(self.chain.held());
        for ((failed, work), (ids, provisional)) in failed.into_iter().zip(ids) {
            match ids.iter().any(|id| volatile.contains(id)) {
                true => failed.settle_not_durable(),
                false if provisional.is_empty() => failed.settle(|| ()),
                false => failed.settle(move || {
                    // The writer lives as long as this sender.
                    let _ = work.send(Work::Settled(provisional));
                }),
            }
        }
    }

    fn remove_written(&self, landed: &Landed) {
        let notes = landed.take_notes().into_iter();
        let letters: Vec<LetterId> = notes.filter_map(|(_, note)| note.downcast_ref().copied()).collect();
        if letters.is_empty() {
            return;
        }
        let removed = self.chain.remove_written(&letters);
        metrics::dead_letters(self.chain.held());
        let base_offset = landed.base_offset();
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

/// Returns the way to keep the letter of a record whose caller leaves later: the writer's thread, else the log.
fn keep_later(work: &Sender<Work>) -> KeepLetter {
    let work = work.clone();
    Arc::new(move |letter| {
        // The result has no reader.
        let put = Work::Put { letters: vec![letter], kept: oneshot::channel().0 };
        if let Err(SendError(Work::Put { letters, .. })) = work.send(put) {
            letters.iter().for_each(log_whole);
        }
    })
}

/// Returns the letters of failed records. A record whose failure returns to its caller has none. `keep` keeps the
/// letter of a record whose caller leaves.
fn letters_of(failed: &Undelivered, clocks: Clocks, keep: &KeepLetter) -> Vec<BatchLetter> {
    let tags = failed.tags().into_iter();
    let replayed: Vec<(u32, Arc<Letter>)> =
        tags.filter_map(|(index, tag)| tag.downcast().ok().map(|letter| (index, letter))).collect();
    let batch = FailedBatch {
        topic: failed.topic(),
        partition: failed.partition(),
        records: failed.records(),
        failure: failed.failure(),
        batch: failed.batch(),
        moved_ms: failed.moved_ms(),
    };
    let mut letters = letters(&batch, clocks, &replayed);
    for one in letters.iter_mut().filter(|one| !one.is_replayed) {
        if let Some(record) = failed.stored_record(one.index) {
            one.letter.id = stored_id(&record, one.letter.timestamp_ms);
        }
    }
    without_returned(failed, letters, keep)
}

/// Makes the outcome of a spool's records unknown, until the spool has them as settled. Returns the changed letters as they
/// were.
fn make_provisional(failed: &Undelivered, letters: &mut [BatchLetter]) -> Vec<Letter> {
    let mut provisional = Vec::new();
    for BatchLetter { index, letter, is_replayed } in letters {
        let is_stored = !*is_replayed && failed.stored_record(*index).is_some();
        if is_stored && letter.outcome == Outcome::NotWritten {
            provisional.push(letter.clone());
            letter.outcome = Outcome::Unknown;
        }
    }
    provisional
}

/// Logs one warning for a failed batch, with some correlation ids of its events. Each event has its own line at debug
/// level.
fn log_failure(failed: &Undelivered, letters: &[BatchLetter]) {
    let mut correlation_ids: Vec<&str> = Vec::new();
    for id in letters.iter().filter_map(|one| one.letter.correlation_id.as_deref()) {
        if correlation_ids.len() == CORRELATION_IDS {
            break;
        }
        if !correlation_ids.contains(&id) {
            correlation_ids.push(id);
        }
    }
    failed.log_failure(&correlation_ids);
}

/// Writes the letters of failed records to the log and settles the records, because no writer is left to keep them.
pub(crate) fn log_and_settle(failed: Undelivered) {
    failed.log_failure(&[]);
    let keep: KeepLetter = Arc::new(|letter| log_whole(&letter));
    letters_of(&failed, Clocks::read(), &keep).iter().for_each(|one| log_whole(&one.letter));
    failed.settle_not_durable();
}
