//! Letters in a file: an embedded database (redb), one process at a time.
//!
//! - A letter is on disk, synced, before `append` returns; all letters of one call are one commit.
//! - A failure latches: nothing is written until a pause is over; the next write is the probe. Reading goes on, if the file
//!   can be opened anew. What an append that failed may have left in the file is taken out then: all or nothing. If it is
//!   another file by then, all of its letters stay, at positions that no letter had before.
//! - What is held is known without looking at the file, also after a restart.

mod entry;
mod fault;
mod kind;
mod latch;
pub(crate) mod lock;
mod medium;
mod open;
mod publishing;
mod read_only;
mod tables;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::import::{Edited, Imported, runs};
use crate::letter::{Letter, LetterId};
use crate::limits::{Excess, Limits, Totals};
use crate::lost;
use crate::replay_guard::{BeginReplayError, ReplayGuard, ReplaySlot};
use crate::store::{AppendError, Appended, DeadLetterStore, Held, Position, StoreError, StoreStats};
use fault::{Fault, guarded};
pub use kind::FileKind;
use latch::Latch;
use lock::{LockFile, SharedLock};
use medium::{DiskFile, Medium};
pub use open::OpenError;
pub use publishing::Publishing;
use tables::{Encoded, Gone, Holdings, Tables};

/// A smaller file is left as it is.
const WORTH_COMPACTING: u64 = 4 * 1024 * 1024;

/// Dead letters in a file.
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
    name: String,
    options: FileStoreOptions,
    medium: Box<dyn Medium>,
    state: Mutex<State>,
    stats: Mutex<StoreStats>,
    replay: ReplaySlot,
    /// Dropped last: whoever takes the lock next finds the file closed.
    lock: Option<LockFile>,
    /// It was opened for reading only, with a share of the lock if there is one.
    read_only: Option<SharedLock>,
}

/// How a file of dead letters is kept.
#[derive(Clone, Debug)]
pub struct FileStoreOptions {
    /// How much it may hold. Bytes are those of the letters' JSON and 13 for each. By default there is no limit.
    pub limits: Limits,
    /// How long nothing is tried after a first failure. It doubles with each further one, up to 32 times this. By default a
    /// second.
    pub retry_pause: Duration,
}

impl Default for FileStoreOptions {
    fn default() -> Self {
        Self { limits: Limits::default(), retry_pause: Duration::from_secs(1) }
    }
}

#[derive(Debug, Default)]
struct State {
    /// None after a failure, until it is opened anew.
    tables: Option<Tables>,
    latch: Option<Latch>,
    /// Where the next letter goes. What a failed append left in the file stands there or behind.
    next: u64,
    /// The file that `next` is of: another may be put in its place.
    identity: u64,
    /// Entries that are no letters, and were said so.
    damaged: HashSet<Position>,
}

impl FileStore {
    /// Opens the file at `path`, or makes it (mode 0600) and its folder (mode 0700).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with(path, FileStoreOptions::default())
    }

    /// As [`FileStore::open`], with options.
    pub fn open_with(path: impl AsRef<Path>, options: FileStoreOptions) -> Result<Self, OpenError> {
        let path = open::resolve(path.as_ref())?;
        let lock = open::lock(&path)?;
        let medium = Box::new(DiskFile::new(path.clone()));
        Self::on(path, medium, Some(lock), options)
    }

    fn on(
        path: PathBuf,
        medium: Box<dyn Medium>,
        lock: Option<LockFile>,
        options: FileStoreOptions,
    ) -> Result<Self, OpenError> {
        // A file that can't be compacted, for want of space, is good as it is.
        let opened = open_compact(&*medium).or_else(|_| {
            guarded(|| {
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
        let mut state = State { tables: Some(tables), ..State::default() };
        store.now_holds(&mut state, holdings);
        *store.state.lock() = state;
        Ok(store)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Says in the lock file where the letters are served.
    #[cfg(unix)]
    pub(crate) fn announce(&self, service: Option<&Path>) -> std::io::Result<()> {
        self.lock.as_ref().map_or(Ok(()), |lock| lock.announce(service))
    }

    /// How many letters it holds.
    pub fn len(&self) -> u64 {
        self.stats.lock().letters
    }

    /// Whether it holds none.
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

    fn append_encoded(&self, letters: &[Encoded], now: Timestamp) -> Result<Appended, AppendError> {
        let (taken, dropped) = self.admit(|tables, limits, gone| tables.append(letters, limits, now, gone))?;
        self.stats.lock().appended += taken;
        Ok(Appended { taken, known: letters.len() as u64 - taken, dropped })
    }

    /// Letters within which no id repeats.
    fn import_run(&self, letters: &[Letter], edited: Edited, now: Timestamp) -> Result<Imported, AppendError> {
        let encoded = encode(letters.iter().map(|letter| (letter, true)))?;
        let (mut imported, dropped) =
            self.admit(|tables, limits, gone| tables.import(letters, &encoded, edited, (limits, now), gone))?;
        imported.dropped = dropped;
        self.stats.lock().appended += imported.taken;
        Ok(imported)
    }

    /// Takes letters within the limits; says how many others were dropped.
    fn admit<R>(
        &self,
        take: impl FnOnce(&Tables, &Limits, &mut Gone) -> Result<(Result<R, Excess>, Holdings), Fault>,
    ) -> Result<(R, u64), AppendError> {
        let mut state = self.state.lock();
        let mut gone = Gone::default();
        let taken = self.write(&mut state, |tables| take(tables, &self.options.limits, &mut gone));
        drop(state);
        if taken.is_err() {
            // The failure leaves open whether they are still there.
            self.say(&gone);
        }
        let taken = taken?;
        self.went(&gone);
        taken.map(|taken| (taken, gone.len())).map_err(|excess| {
            let stats = self.stats.lock();
            excess.explain(&self.name, Totals { letters: stats.letters, bytes: stats.bytes })
        })
    }

    pub(crate) fn expire_at(&self, now: Timestamp) -> Result<usize, StoreError> {
        let mut gone = Gone::default();
        let written = self.write(&mut self.state.lock(), |tables| tables.expire(&self.options.limits, now, &mut gone));
        if written.is_err() {
            self.say(&gone);
        }
        written?;
        self.went(&gone);
        Ok(gone.len() as usize)
    }

    /// Counts and says what is gone for good.
    fn went(&self, gone: &Gone) {
        let mut stats = self.stats.lock();
        stats.expired += gone.expired.len() as u64;
        stats.dropped += gone.dropped.len() as u64;
        drop(stats);
        self.say(gone);
    }

    fn say(&self, gone: &Gone) {
        lost::expired(&self.name, gone.expired.iter().filter_map(|letter| letter.as_ref().ok()));
        lost::dropped(&self.name, gone.dropped.iter().filter_map(|letter| letter.as_ref().ok()));
        for damaged in gone.expired.iter().chain(&gone.dropped).filter_map(|letter| letter.as_ref().err()) {
            let entry = String::from_utf8_lossy(&damaged.entry);
            let (store, position) = (&self.name, damaged.position);
            tracing::error!(store, position, reason = damaged.reason, %entry, "a damaged dead letter was dropped");
        }
    }

    /// Changes the file. Success ends a latch: it was the probe.
    fn write<R>(
        &self,
        state: &mut State,
        work: impl FnOnce(&Tables) -> Result<(R, Holdings), Fault>,
    ) -> Result<R, StoreError> {
        self.check_writable()?;
        if let Some(latch) = state.latch.as_ref().filter(|latch| !latch.is_over()) {
            return Err(latch.error(&self.path));
        }
        let (result, holdings) = self.with_tables(state, |tables| {
            self.medium.intact()?;
            work(tables)
        })?;
        self.now_holds(state, holdings);
        if holdings.written && state.latch.take().is_some() {
            self.stats.lock().latched = None;
            tracing::info!(store = self.name, "dead letters can be written again");
        }
        Ok(result)
    }

    /// Once the last letter has gone, so has the reason for a large file. What is removed is removed, whatever comes of it.
    fn shrink_if_empty(&self, state: &mut State) {
        if !self.is_empty() || !mostly_free(self.medium.bytes(), Holdings::default()) {
            return;
        }
        let Some(mut tables) = state.tables.take() else { return };
        match guarded(|| tables.compact()) {
            Ok(()) => state.tables = Some(tables),
            Err(fault) => {
                close(tables);
                self.fail(state, fault, false);
            }
        }
    }

    fn with_tables<R>(
        &self,
        state: &mut State,
        work: impl FnOnce(&Tables) -> Result<R, Fault>,
    ) -> Result<R, StoreError> {
        let tables = match state.tables.take() {
            Some(tables) => tables,
            None => self.reopen(state)?,
        };
        let result = guarded(|| work(&tables));
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

    /// Opens the file anew after a failure: at once, but if that failed too, not before the pause is over.
    fn reopen(&self, state: &mut State) -> Result<Tables, StoreError> {
        if let Some(latch) = state.latch.as_ref().filter(|latch| latch.cannot_open && !latch.is_over()) {
            return Err(latch.error(&self.path));
        }
        let opened = guarded(|| {
            let tables = Tables::new(self.medium.open()?)?;
            let ((), holdings) = tables.go_on(state.identity, state.next)?;
            Ok((tables, holdings))
        });
        match opened {
            Ok((tables, holdings)) => {
                if holdings.identity != state.identity {
                    let letters = holdings.totals.letters;
                    tracing::warn!(
                        store = self.name,
                        letters,
                        "another file is in the place of the dead letters' file"
                    );
                    state.damaged.clear();
                }
                self.now_holds(state, holdings);
                Ok(tables)
            }
            Err(fault) => Err(self.fail(state, fault, true)),
        }
    }

    fn fail(&self, state: &mut State, fault: Fault, cannot_open: bool) -> StoreError {
        let latch = Latch::after(state.latch.take(), fault.to_string(), self.options.retry_pause, cannot_open);
        let pause = latch.pause();
        tracing::error!(store = self.name, reason = %fault, ?pause, "dead letters can't be kept in the file");
        self.stats.lock().latched = Some(fault.to_string());
        state.latch = Some(latch);
        let path = self.path.clone();
        match fault {
            Fault::Io(error) => StoreError::Io { path, error: Arc::new(error) },
            other => StoreError::Damaged { path, reason: other.to_string() },
        }
    }

    fn now_holds(&self, state: &mut State, holdings: Holdings) {
        (state.identity, state.next) = (holdings.identity, holdings.next);
        let mut stats = self.stats.lock();
        (stats.letters, stats.bytes) = (holdings.totals.letters, holdings.totals.bytes);
        stats.oldest = holdings.oldest;
    }

    fn say_damaged(&self, state: &mut State, damaged: Vec<(Position, String)>) {
        for (position, reason) in damaged {
            if state.damaged.insert(position) {
                tracing::error!(store = self.name, %position, reason, "a dead letter is damaged and passed over");
            }
        }
    }
}

/// Opens the file, and gives back to the disk what an outage long ago took.
fn open_compact(medium: &dyn Medium) -> Result<(Tables, Holdings), Fault> {
    guarded(|| {
        let mut tables = Tables::new(medium.open()?)?;
        let holdings = tables.holdings()?;
        if mostly_free(medium.bytes(), holdings) {
            tables.compact()?;
        }
        Ok((tables, holdings))
    })
}

/// Whether the file is worth making smaller.
fn mostly_free(file_bytes: u64, holdings: Holdings) -> bool {
    file_bytes > WORTH_COMPACTING && file_bytes / 8 > holdings.totals.bytes
}

/// The database writes when it is closed, and may give up on a damaged file; what counts is written by then.
fn close(tables: Tables) {
    let _ = guarded(|| {
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

/// Letters, and whether they were imported.
fn encode<'l>(letters: impl IntoIterator<Item = (&'l Letter, bool)>) -> Result<Vec<Encoded>, StoreError> {
    let encoded = letters.into_iter().map(|(letter, imported)| match letter.to_json() {
        Ok(json) => Ok(Encoded { id: letter.id, json, imported }),
        Err(error) => Err(StoreError::Letter { id: letter.id, reason: error.to_string() }),
    });
    encoded.collect()
}

impl DeadLetterStore for FileStore {
    /// The locks say so: whoever held the file before has ended or let go of it, and nobody publishes who keeps its
    /// letters here through others.
    fn is_exclusive(&self) -> bool {
        self.lock.is_some() && Publishing::nobody_is(&self.path)
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
        self.say_damaged(&mut state, damaged);
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

    /// An error if the file was removed or replaced: its letters are not where its name says.
    fn stats(&self) -> Result<StoreStats, StoreError> {
        self.medium.intact().map_err(|error| StoreError::Io { path: self.path.clone(), error: Arc::new(error) })?;
        Ok(self.stats.lock().clone())
    }

    fn begin_replay(&self) -> Result<ReplayGuard, BeginReplayError> {
        self.replay.claim(&self.name)
    }
}
