//! A dead-letter store in a file: an embedded database (redb) that one process has open at a time.
//!
//! Rules:
//! - A letter is synced to disk before `append` returns. All letters of one call are one commit.
//! - A failure latches: nothing is written until a pause is over, and the next write is the probe. Reading continues if the
//!   file can be opened again. Entries that a failed append may have left in the file are removed then, so that an append
//!   takes all letters or none. If another file is at the path, all of its letters stay, at unused positions.
//! - The totals are known without reading the entries, also after a restart.

mod entry;
mod fault;
mod kind;
mod latch;
pub(crate) mod lock;
mod medium;
mod open;
mod publisher_lock;
mod read_only;
mod regular;
mod tables;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::held::{Held, Position};
use crate::import::{Edited, Imported, runs};
use crate::letter::{Letter, LetterId};
use crate::limits::{Excess, Limits, Totals};
use crate::loss_log;
use crate::replay_guard::{BeginReplayError, ReplayGuard, ReplaySlot};
use crate::store::{Appended, DeadLetterStore, StoreStats};
use crate::store_error::{AppendError, StoreError};
use entry::EntryError;
use fault::{FileFault, catch_panics};
pub use kind::FileKind;
use latch::Latch;
use lock::{LockFile, SharedLock};
use medium::{DiskFile, Medium};
pub use open::OpenError;
pub use publisher_lock::Publishing;
use tables::{DroppedLetters, EncodedLetter, Holdings, Tables};

/// Size from which a file is compacted.
const MIN_COMPACTED_BYTES: u64 = 4 * 1024 * 1024;

/// A dead-letter store in a file.
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
    name: String,
    options: FileStoreOptions,
    medium: Box<dyn Medium>,
    state: Mutex<FileState>,
    stats: Mutex<StoreStats>,
    replay: ReplaySlot,
    /// Dropped last, so that the next holder finds the file closed.
    lock: Option<LockFile>,
    /// The shared lock of a file that was opened for reading only.
    read_only: Option<SharedLock>,
}

/// The options of a [`FileStore`].
#[derive(Clone, Debug)]
pub struct FileStoreOptions {
    /// The store's limits. A letter counts the bytes of its JSON and 13 more. The default is no limit.
    pub limits: Limits,
    /// The pause after a first failure. It doubles with each further failure, up to 32 times this pause. The default is one
    /// second.
    pub retry_pause: Duration,
}

impl Default for FileStoreOptions {
    fn default() -> Self {
        Self { limits: Limits::default(), retry_pause: Duration::from_secs(1) }
    }
}

#[derive(Debug, Default)]
struct FileState {
    /// `None` after a failure, until the file is opened again.
    tables: Option<Tables>,
    latch: Option<Latch>,
    /// The position of the next letter. Entries of a failed append have this position or a later one.
    next: u64,
    /// The identity of the file that `next` belongs to. Another file may replace it.
    identity: u64,
    /// Damaged entries that were logged.
    damaged: HashSet<Position>,
}

impl FileStore {
    /// Opens the file at `path`. Creates the file (mode 0600) and its folder (mode 0700) if needed.
    ///
    /// # Errors
    /// Returns an error if another process has the file open, or it is not a readable file of dead letters.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with(path, FileStoreOptions::default())
    }

    /// Opens the file as [`FileStore::open`] does, with options.
    ///
    /// # Errors
    /// See [`FileStore::open`].
    pub fn open_with(path: impl AsRef<Path>, options: FileStoreOptions) -> Result<Self, OpenError> {
        let path = open::resolve(path.as_ref())?;
        let lock = open::lock(&path)?;
        let medium = Box::new(DiskFile::new(path.clone()));
        Self::open_medium(path, medium, Some(lock), options)
    }

    fn open_medium(
        path: PathBuf,
        medium: Box<dyn Medium>,
        lock: Option<LockFile>,
        options: FileStoreOptions,
    ) -> Result<Self, OpenError> {
        // A file that cannot be compacted for lack of space is used as it is.
        let opened = open_compact(&*medium).or_else(|_| {
            catch_panics(|| {
                let tables = Tables::new(medium.open()?)?;
                let holdings = tables.holdings()?;
                Ok((tables, holdings))
            })
        });
        let (tables, holdings) = opened.map_err(|fault| OpenError::from_fault(&path, fault))?;
        let store = Self {
            name: path.display().to_string(),
            path,
            options,
            medium,
            state: Mutex::default(),
            stats: Mutex::default(),
            replay: ReplaySlot::default(),
            lock,
            read_only: None,
        };
        let mut state = FileState { tables: Some(tables), ..FileState::default() };
        store.set_holdings(&mut state, holdings);
        *store.state.lock() = state;
        Ok(store)
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the service's socket into the lock file.
    #[cfg(unix)]
    pub(crate) fn announce(&self, service: Option<&Path>) -> std::io::Result<()> {
        self.lock.as_ref().map_or(Ok(()), |lock| lock.announce(service))
    }

    /// Returns the number of letters.
    pub fn len(&self) -> u64 {
        self.stats.lock().letters
    }

    /// Returns whether the store has no letters.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn append_at(&self, letters: &[Letter], now: Timestamp) -> Result<Appended, AppendError> {
        let encoded = encode(letters.iter().map(|letter| (letter, false)));
        let appended = encoded.map_err(AppendError::from).and_then(|encoded| self.append_encoded(&encoded, now));
        if appended.is_err() {
            self.stats.lock().refused += letters.len() as u64;
        }
        appended
    }

    fn append_encoded(&self, letters: &[EncodedLetter], now: Timestamp) -> Result<Appended, AppendError> {
        let (taken, dropped) = self.admit(|tables, limits, dropped| tables.append(letters, limits, now, dropped))?;
        self.stats.lock().appended += taken;
        Ok(Appended { taken, known: letters.len() as u64 - taken, dropped })
    }

    /// Imports letters without a repeated id.
    fn import_run(&self, letters: &[Letter], edited: Edited, now: Timestamp) -> Result<Imported, AppendError> {
        let encoded = encode(letters.iter().map(|letter| (letter, true)))?;
        let (mut imported, dropped) =
            self.admit(|tables, limits, dropped| tables.import(letters, &encoded, edited, (limits, now), dropped))?;
        imported.dropped = dropped;
        self.stats.lock().appended += imported.taken;
        Ok(imported)
    }

    /// Takes letters within the limits, and returns the number of dropped letters.
    fn admit<R>(
        &self,
        take: impl FnOnce(&Tables, &Limits, &mut DroppedLetters) -> Result<(Result<R, Excess>, Holdings), FileFault>,
    ) -> Result<(R, u64), AppendError> {
        let mut state = self.state.lock();
        let mut dropped = DroppedLetters::default();
        let taken = self.write(&mut state, |tables| take(tables, &self.options.limits, &mut dropped));
        drop(state);
        if taken.is_err() {
            // It is not known whether a failed change dropped the letters.
            self.log_dropped(&dropped);
        }
        let taken = taken?;
        self.count_dropped(&dropped);
        taken.map(|taken| (taken, dropped.len())).map_err(|excess| {
            let stats = self.stats.lock();
            excess.explain(&self.name, Totals { letters: stats.letters, bytes: stats.bytes })
        })
    }

    pub(crate) fn expire_at(&self, now: Timestamp) -> Result<usize, StoreError> {
        let mut dropped = DroppedLetters::default();
        let written =
            self.write(&mut self.state.lock(), |tables| tables.expire(&self.options.limits, now, &mut dropped));
        if written.is_err() {
            self.log_dropped(&dropped);
        }
        written?;
        self.count_dropped(&dropped);
        Ok(dropped.len() as usize)
    }

    /// Counts and logs the letters that a committed change dropped.
    fn count_dropped(&self, dropped: &DroppedLetters) {
        let mut stats = self.stats.lock();
        stats.expired += dropped.expired.len() as u64;
        stats.dropped += dropped.dropped.len() as u64;
        drop(stats);
        self.log_dropped(dropped);
    }

    fn log_dropped(&self, dropped: &DroppedLetters) {
        loss_log::expired(&self.name, dropped.expired.iter().filter_map(|letter| letter.as_ref().ok()));
        loss_log::dropped(&self.name, dropped.dropped.iter().filter_map(|letter| letter.as_ref().ok()));
        for damaged in dropped.expired.iter().chain(&dropped.dropped).filter_map(|letter| letter.as_ref().err()) {
            let entry = String::from_utf8_lossy(&damaged.entry);
            let (store, position) = (&self.name, damaged.position);
            tracing::error!(store, position, reason = %damaged.reason, %entry, "damaged dead letter dropped");
        }
    }

    /// Changes the file. A successful write ends a latch.
    fn write<R>(
        &self,
        state: &mut FileState,
        work: impl FnOnce(&Tables) -> Result<(R, Holdings), FileFault>,
    ) -> Result<R, StoreError> {
        self.check_writable()?;
        if let Some(latch) = state.latch.as_ref().filter(|latch| !latch.is_over()) {
            return Err(latch.error(&self.path));
        }
        let (result, holdings) = self.with_tables(state, |tables| {
            self.medium.check_in_place()?;
            work(tables)
        })?;
        self.set_holdings(state, holdings);
        if holdings.written && state.latch.take().is_some() {
            self.stats.lock().latched = None;
            tracing::info!(store = self.name, "dead-letter file is writable again");
        }
        Ok(result)
    }

    /// Compacts a large file without letters. The letters stay removed if this fails.
    fn shrink_if_empty(&self, state: &mut FileState) {
        if !self.is_empty() || !is_mostly_free(self.medium.bytes(), Holdings::default()) {
            return;
        }
        let Some(mut tables) = state.tables.take() else { return };
        match catch_panics(|| tables.compact()) {
            Ok(()) => state.tables = Some(tables),
            Err(fault) => {
                close(tables);
                self.fail(state, fault, false);
            }
        }
    }

    fn with_tables<R>(
        &self,
        state: &mut FileState,
        work: impl FnOnce(&Tables) -> Result<R, FileFault>,
    ) -> Result<R, StoreError> {
        let tables = match state.tables.take() {
            Some(tables) => tables,
            None => self.reopen(state)?,
        };
        let result = catch_panics(|| work(&tables));
        match result {
            Ok(result) => {
                state.tables = Some(tables);
                Ok(result)
            }
            Err(fault) => {
                close(tables);
                Err(self.fail(state, fault, false))
            }
        }
    }

    /// Opens the file again after a failure: immediately, or after the pause if the file could not be opened.
    fn reopen(&self, state: &mut FileState) -> Result<Tables, StoreError> {
        if let Some(latch) = state.latch.as_ref().filter(|latch| latch.cannot_open && !latch.is_over()) {
            return Err(latch.error(&self.path));
        }
        let opened = catch_panics(|| {
            let tables = Tables::new(self.medium.open()?)?;
            let ((), holdings) = tables.resume(state.identity, state.next)?;
            Ok((tables, holdings))
        });
        match opened {
            Ok((tables, holdings)) => {
                if holdings.identity != state.identity {
                    let letters = holdings.totals.letters;
                    tracing::warn!(store = self.name, letters, "another file replaced the dead-letter file");
                    state.damaged.clear();
                }
                self.set_holdings(state, holdings);
                Ok(tables)
            }
            Err(fault) => Err(self.fail(state, fault, true)),
        }
    }

    fn fail(&self, state: &mut FileState, fault: FileFault, cannot_open: bool) -> StoreError {
        let latch = Latch::after(state.latch.take(), fault.to_string(), self.options.retry_pause, cannot_open);
        let pause = latch.pause();
        tracing::error!(store = self.name, reason = %fault, ?pause, "dead-letter file failed");
        self.stats.lock().latched = Some(fault.to_string());
        state.latch = Some(latch);
        let path = self.path.clone();
        match fault {
            FileFault::Io(error) => StoreError::Io { path, error: Arc::new(error) },
            other => StoreError::Damaged { path, reason: other.to_string() },
        }
    }

    fn set_holdings(&self, state: &mut FileState, holdings: Holdings) {
        (state.identity, state.next) = (holdings.identity, holdings.next);
        let mut stats = self.stats.lock();
        (stats.letters, stats.bytes) = (holdings.totals.letters, holdings.totals.bytes);
        stats.oldest = holdings.oldest;
    }

    fn log_damaged(&self, state: &mut FileState, damaged: Vec<(Position, EntryError)>) {
        for (position, reason) in damaged {
            if state.damaged.insert(position) {
                tracing::error!(store = self.name, %position, %reason, "damaged dead letter skipped");
            }
        }
    }
}

/// Opens the file, and compacts it if most of it is free, for instance after an outage.
fn open_compact(medium: &dyn Medium) -> Result<(Tables, Holdings), FileFault> {
    catch_panics(|| {
        let mut tables = Tables::new(medium.open()?)?;
        let holdings = tables.holdings()?;
        if is_mostly_free(medium.bytes(), holdings) {
            tables.compact()?;
        }
        Ok((tables, holdings))
    })
}

/// Returns whether the file is large and mostly free.
fn is_mostly_free(file_bytes: u64, holdings: Holdings) -> bool {
    file_bytes > MIN_COMPACTED_BYTES && file_bytes / 8 > holdings.totals.bytes
}

/// Closes the database. It writes when it is closed, and may panic on a damaged file. All letters are written before.
fn close(tables: Tables) {
    let _ = catch_panics(|| {
        drop(tables);
        Ok(())
    });
}

impl Drop for FileStore {
    fn drop(&mut self) {
        if let Some(tables) = self.state.get_mut().tables.take() {
            close(tables);
        }
    }
}

/// Encodes letters. The flag says whether a letter is imported.
fn encode<'l>(letters: impl IntoIterator<Item = (&'l Letter, bool)>) -> Result<Vec<EncodedLetter>, StoreError> {
    let encoded = letters.into_iter().map(|(letter, imported)| match letter.to_json() {
        Ok(json) => Ok(EncodedLetter { id: letter.id, json, imported }),
        Err(error) => Err(StoreError::Letter { id: letter.id, reason: error.to_string() }),
    });
    encoded.collect()
}

impl DeadLetterStore for FileStore {
    /// Returns true while this process has the file open for writing, and no process keeps letters in it through others.
    fn is_exclusive(&self) -> bool {
        self.lock.is_some() && Publishing::is_unused(&self.path)
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn append(&self, letters: &[Letter]) -> Result<Appended, AppendError> {
        self.append_at(letters, Timestamp::now())
    }

    fn import_with(&self, letters: &[Letter], edited: Edited) -> Result<Imported, AppendError> {
        let mut imported = Imported::default();
        for run in runs(letters) {
            let done = self.import_run(run, edited, Timestamp::now());
            if done.is_err() {
                self.stats.lock().refused += run.len() as u64;
            }
            imported.add(done?);
        }
        Ok(imported)
    }

    fn scan(&self, after: Option<Position>, limit: usize) -> Result<Vec<Held>, StoreError> {
        let mut state = self.state.lock();
        let (page, damaged) = self.with_tables(&mut state, |tables| tables.scan(after, limit))?;
        self.log_damaged(&mut state, damaged);
        Ok(page)
    }

    fn remove(&self, positions: &[Position]) -> Result<usize, StoreError> {
        let mut state = self.state.lock();
        let removed = self.write(&mut state, |tables| tables.remove(positions))?;
        self.shrink_if_empty(&mut state);
        drop(state);
        self.stats.lock().removed += removed as u64;
        Ok(removed)
    }

    fn update(&self, changed: &[Held]) -> Result<usize, StoreError> {
        let encoded = encode(changed.iter().map(|held| (&held.letter, held.imported)))?;
        let changed: Vec<_> = changed.iter().map(|held| held.position).zip(encoded).collect();
        self.write(&mut self.state.lock(), |tables| tables.update(&changed))
    }

    fn find(&self, ids: &[LetterId]) -> Result<Vec<Option<Position>>, StoreError> {
        self.with_tables(&mut self.state.lock(), |tables| tables.find(ids))
    }

    fn expire(&self) -> Result<usize, StoreError> {
        self.expire_at(Timestamp::now())
    }

    /// Returns an error if the file was removed or replaced.
    fn stats(&self) -> Result<StoreStats, StoreError> {
        self.medium
            .check_in_place()
            .map_err(|error| StoreError::Io { path: self.path.clone(), error: Arc::new(error) })?;
        Ok(self.stats.lock().clone())
    }

    fn begin_replay(&self) -> Result<ReplayGuard, BeginReplayError> {
        self.replay.claim(&self.name)
    }
}
