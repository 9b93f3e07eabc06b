//! The thread that owns the journal: it collects commands into rounds, commits them, and passes the decisions on.
//!
//! Rules:
//!  - One round is one write and one sync, for all that waits. Commands gather while a round is written.
//!  - The thread ends although the last facts have no room. The spool is then as after a crash.
//!  - A round starts immediately for a batch or a move, and after `idle_sync` for anything else.
//!  - Batches are read back between rounds, about [`READ_BYTES`] at a time.
//!  - Nothing is decided here. The stage decides, and the host acts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use kafka_courier_client::PartitionId;
use kafka_courier_spool::disk::Disk;
use kafka_courier_spool::journal::{CommitError, Journal, ReadError, SEGMENT_BYTES};

use super::command::{BatchToken, Effect, SpoolCommand, SpoolHost, StoredPlace};
use super::fault::SpoolFault;
use super::stage::{FoundBatch, ReadTime, Stage, UnreadableBatch};
use super::status::SpoolStatus;
use crate::sync::Ordering;

/// The bytes of batches in one round. An opening writes the last round again, and fits the reserve of a full disk.
const ROUND_BYTES: u64 = SEGMENT_BYTES / 2;
/// The pause between rounds without room.
const ROOM_PAUSE: Duration = Duration::from_millis(20);
/// The time between two reports of the counts.
const LEVEL_INTERVAL: Duration = Duration::from_millis(250);
/// The bytes that are read back between two rounds.
const READ_BYTES: u64 = 1 << 20;
/// The time until a batch is read again that the system did not return.
const READ_PAUSE: Duration = Duration::from_secs(1);
/// The tokens of stored batches that are looked at between two rounds.
const TOKENS: usize = 64;
/// Those that are looked at before each report of the counts.
const TOKENS_AT_REPORT: usize = 10_000;
/// How long an idle thread waits for a command.
const IDLE_WAIT: Duration = Duration::from_secs(60);

/// Everything that the thread owns.
pub(crate) struct SpoolThread<T, H, D: Disk> {
    pub(crate) journal: Journal<D>,
    pub(crate) stage: Stage<T>,
    pub(crate) host: H,
    pub(crate) commands: Receiver<SpoolCommand<T>>,
    pub(crate) status: Arc<SpoolStatus>,
    pub(crate) idle_sync: Duration,
}

/// The thread's timers.
struct Progress {
    /// Since when the journal lacks something for which no caller waits, or its last round is not proved.
    idle_since: Option<Instant>,
    close_at: Option<Instant>,
    /// The end of the pause after a round without room.
    room_at: Option<Instant>,
    is_finishing: bool,
    /// Whether the last facts have no room. A later process finds the same facts from the leaders.
    is_cut_short: bool,
    /// The time of the next report of the counts, if they may have changed since the last one.
    level_at: Option<Instant>,
    /// The batches to read back, each with its partition.
    loads: VecDeque<(PartitionId, StoredPlace)>,
    /// The end of the pause after a batch that could not be read.
    read_at: Option<Instant>,
}

/// Starts the thread, which ends after [`SpoolCommand::Finish`]. The returned receiver is notified then.
///
/// # Errors
///
/// The operating system's error, if it starts no thread.
pub(crate) fn start<T, H, D>(thread: SpoolThread<T, H, D>) -> std::io::Result<tokio::sync::oneshot::Receiver<()>>
where
    T: Clone + BatchToken + Send + 'static,
    H: SpoolHost<T>,
    D: Disk + Send + 'static,
    D::File: Send,
{
    let (ended, is_ended) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("spool".to_owned()).spawn(move || {
        thread.run();
        // The producer may be gone.
        let _ = ended.send(());
    })?;
    Ok(is_ended)
}

/// Returns whether a later round may have room. It has none if the folder is gone or may not be written, or the journal is
/// latched.
fn is_temporary(error: &CommitError) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
    match error {
        CommitError::Full { .. } => true,
        CommitError::NoSegment(error) => {
            !matches!(error.kind(), NotFound | NotADirectory | PermissionDenied | ReadOnlyFilesystem)
        }
        _ => false,
    }
}

impl<T: Clone + BatchToken, H: SpoolHost<T>, D: Disk> SpoolThread<T, H, D> {
    fn run(mut self) {
        let now = Instant::now();
        let mut progress = Progress {
            idle_since: Some(now),
            close_at: None,
            room_at: None,
            is_finishing: false,
            is_cut_short: false,
            level_at: None,
            loads: VecDeque::new(),
            read_at: None,
        };
        self.note_room();
        self.report_level();
        while !self.is_over(&progress) {
            self.receive(&mut progress);
            self.end_in_time(&mut progress);
            let is_idle_over = progress.idle_since.is_some_and(|since| since.elapsed() >= self.idle_sync);
            let is_pause_over = progress.room_at.take_if(|at| *at <= Instant::now()).is_some();
            if self.stage.is_round_due() || is_idle_over || is_pause_over || progress.is_finishing {
                self.write_round(&mut progress);
            } else if self.stage.has_changes() {
                progress.idle_since.get_or_insert_with(Instant::now);
            }
            self.make_room(&mut progress);
            self.stage.retire_tokens(TOKENS);
            if progress.read_at.take_if(|at| *at <= Instant::now()).is_some() {
                self.stage.retry_reads();
            }
            self.act(&mut progress);
            self.read_back(&mut progress);
            if progress.level_at.take_if(|at| *at <= Instant::now()).is_some() {
                self.stage.retire_tokens(TOKENS_AT_REPORT);
                self.report_level();
                if self.stage.has_tokens() {
                    progress.level_at = Some(Instant::now() + LEVEL_INTERVAL);
                }
            }
        }
        // An error leaves the last round unproved, as a crash does.
        let _ = self.journal.prove();
        self.report_level();
    }

    /// Returns whether the thread ends: nothing more comes, and everything is written or has no room.
    fn is_over(&self, progress: &Progress) -> bool {
        let is_written = progress.is_finishing && !self.stage.is_round_due() && !self.stage.has_changes();
        is_written || progress.is_cut_short
    }

    /// Waits for a command if nothing is due, and takes all commands that are there.
    fn receive(&mut self, progress: &mut Progress) {
        let mut next = match self.wait(progress) {
            Duration::ZERO => self.commands.try_recv().ok(),
            wait => {
                let received = self.commands.recv_timeout(wait);
                progress.is_finishing |= received.as_ref().is_err_and(|error| *error == RecvTimeoutError::Disconnected);
                received.ok()
            }
        };
        if next.is_some() {
            progress.level_at.get_or_insert_with(|| Instant::now() + LEVEL_INTERVAL);
        }
        let mut awaited = Vec::new();
        while let Some(command) = next {
            match command {
                SpoolCommand::Awaited { partition, batch } => awaited.push((partition, batch)),
                SpoolCommand::Close { deadline } => {
                    progress.close_at = Some(progress.close_at.map_or(deadline, |at| at.min(deadline)));
                }
                SpoolCommand::Finish => {
                    progress.is_finishing = true;
                    self.stage.end();
                }
                command => self.stage.handle(command),
            }
            next = self.commands.try_recv().ok();
        }
        // Sealed last: a record that was published meanwhile shares the batch.
        for (partition, batch) in awaited {
            self.host.seal(partition, batch).into_iter().for_each(|submission| self.stage.submit(submission));
        }
    }

    /// Returns how long nothing is due.
    fn wait(&self, progress: &Progress) -> Duration {
        if progress.is_finishing || self.stage.is_round_due() || !progress.loads.is_empty() {
            return Duration::ZERO;
        }
        let idle = progress.idle_since.map(|since| self.idle_sync.saturating_sub(since.elapsed()));
        let timers = [progress.close_at, progress.room_at, progress.level_at, progress.read_at];
        let timers = timers.into_iter().flatten().min();
        let timers = timers.map(|at| at.saturating_duration_since(Instant::now()));
        idle.into_iter().chain(timers).min().unwrap_or(IDLE_WAIT)
    }

    /// Ends the hand-over to the sender at the deadline of a close.
    fn end_in_time(&mut self, progress: &mut Progress) {
        if progress.close_at.take_if(|at| *at <= Instant::now()).is_some() {
            self.stage.end();
        }
    }

    /// Writes a round, or proves the last one if there is nothing to write.
    fn write_round(&mut self, progress: &mut Progress) {
        let entries = self.stage.round(ROUND_BYTES, self.journal.room());
        let is_proof = entries.is_empty();
        let since = Instant::now();
        let written = if is_proof {
            self.journal.prove().and_then(|()| self.journal.prepare())
        } else {
            self.journal.commit(entries).map(drop)
        };
        progress.idle_since = (!is_proof).then(Instant::now);
        match written {
            Ok(()) => {
                if !is_proof {
                    self.host.round_durable(since.elapsed());
                }
                self.note_room();
                self.stage.committed();
            }
            Err(error) if is_proof && is_temporary(&error) => self.note_room(),
            Err(error) if is_temporary(&error) => {
                tracing::debug!(%error, "round of the spool has no room");
                self.stage.refused();
                if progress.is_finishing && !self.stage.has_waiting() {
                    tracing::warn!(%error, "spool has no room for its last facts: the next process asks the leaders again");
                    progress.is_cut_short = true;
                }
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Stores nothing more after an error that no later round survives. The first such error is reported.
    fn fail(&mut self, error: &CommitError) {
        if self.stage.has_failed() {
            return;
        }
        tracing::error!(%error, "spool write failed, no more events are accepted");
        self.stage.failed(&SpoolFault::Write(error.to_string().into()));
    }

    /// Frees room for the batches that wait for it, or fails them if the thread ends.
    fn make_room(&mut self, progress: &mut Progress) {
        let is_full = self.stage.is_full();
        let was_full = self.status.is_full.load(Ordering::Relaxed);
        if is_full && !was_full {
            tracing::warn!("spool is full, events wait: raise spool_max_bytes, or free the disk");
        }
        self.status.is_full.store(is_full || (was_full && self.stage.has_waiting()), Ordering::Relaxed);
        if !is_full {
            return;
        }
        if self.stage.is_ending() {
            return self.stage.abandon_waiting();
        }
        // The want of a file leaves the room as it is, and the next round tries again.
        if let Err(error) = self.journal.prepare()
            && !is_temporary(&error)
        {
            return self.fail(&error);
        }
        self.note_room();
        progress.room_at.get_or_insert_with(|| Instant::now() + ROOM_PAUSE);
    }

    fn note_room(&self) {
        self.status.space.set_room(self.journal.room());
    }

    /// Reads batches back that the stage has requested.
    fn read_back(&mut self, progress: &mut Progress) {
        let mut bytes = 0;
        while let Some((partition, from)) = progress.loads.pop_front_if(|_| bytes < READ_BYTES) {
            let found = self.find(from);
            bytes += found.as_ref().and_then(|found| found.bytes.as_ref().ok()).map_or(0, |bytes| bytes.len() as u64);
            let time = ReadTime { now: Instant::now(), wall_clock_ms: self.host.wall_clock_ms() };
            self.stage.take_read(partition, found, time, &self.host);
            self.act(progress);
        }
        if self.stage.has_unreadable() {
            progress.read_at.get_or_insert_with(|| Instant::now() + READ_PAUSE);
        }
    }

    /// Reads the next batch of a partition. A damaged batch is read twice.
    fn find(&self, from: StoredPlace) -> Option<FoundBatch> {
        let head = self.journal.next_batch(from.partition, from.first)?;
        let read = || self.journal.read(head.partition, head.first);
        let bytes = read().or_else(|_| read()).map(|batch| batch.bytes).map_err(|error| match error {
            ReadError::Damaged { .. } => UnreadableBatch::Damaged,
            error => UnreadableBatch::NotNow(error.to_string().into()),
        });
        Some(FoundBatch { head, bytes })
    }

    /// Carries out the stage's decisions.
    fn act(&mut self, progress: &mut Progress) {
        if let Some(fault) = self.stage.fault()
            && self.status.fault().is_none()
        {
            self.status.set_fault(fault.clone());
        }
        for effect in self.stage.take_effects() {
            match effect {
                Effect::Load { partition, from } => progress.loads.push_back((partition, from)),
                effect => {
                    if let Effect::Held(_) = effect {
                        self.status.held_partitions.store(self.stage.held_partitions(), Ordering::Relaxed);
                    }
                    self.host.apply(effect);
                }
            }
        }
    }

    fn report_level(&self) {
        let level = self.stage.level();
        self.status.records.store(level.records, Ordering::Relaxed);
        self.status.bytes.store(level.bytes, Ordering::Relaxed);
        self.status.resident_bytes.store(level.resident_bytes, Ordering::Relaxed);
        self.host.note_level(level);
    }
}
