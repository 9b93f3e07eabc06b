//! The interface of a dead-letter store.
//!
//! Rules:
//! - `append` returns once all letters are as durable as the store makes them, or none of them is taken.
//! - A letter of one id is kept once, even if it is appended several times.
//! - Every method may block its thread.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::held::{Held, Position};
use crate::import::{self, Edited, Imported};
use crate::letter::{Letter, LetterId};
use crate::replay_guard::{BeginReplayError, ReplayGuard};
use crate::selection::Selection;
use crate::store_error::{AppendError, StoreError};

/// Bytes that end a page of [`DeadLetterStore::scan`]. The letter that reaches them is the last one of the page.
pub const SCAN_BYTES: u64 = 4 * 1024 * 1024;

/// Keeps dead letters.
pub trait DeadLetterStore: Send + Sync + fmt::Debug {
    /// Returns whether no other process writes letters here: every producer that wrote letters earlier has ended. A check may
    /// then fence their producer ids to prove that a record is absent.
    fn is_exclusive(&self) -> bool {
        false
    }

    /// Returns the store's name for messages: `memory`, or the file's path.
    fn name(&self) -> &str;

    /// Appends all letters durably, or none. A letter whose id is in the store already is ignored.
    ///
    /// # Errors
    /// Returns an error if the store is full, a letter is too large, or the store failed. No letter is taken then.
    fn append(&self, letters: &[Letter]) -> Result<Appended, AppendError>;

    /// Imports letters of another store, whose producers may still be running: a check must not fence their producer ids. A
    /// store whose [`is_exclusive`](Self::is_exclusive) can be true marks such letters ([`Held::imported`]). A letter whose
    /// id is in the store already is taken only in a newer state. An edited letter is reported, and the store's one stays.
    ///
    /// # Errors
    /// See [`append`](Self::append).
    fn import(&self, letters: &[Letter]) -> Result<Imported, AppendError> {
        self.import_with(letters, Edited::Leave)
    }

    /// Imports letters as [`import`](Self::import) does, with a choice for edited letters.
    ///
    /// # Errors
    /// See [`append`](Self::append).
    fn import_with(&self, letters: &[Letter], edited: Edited) -> Result<Imported, AppendError> {
        import_with_other_methods(self, letters, edited)
    }

    /// Returns the letters after the position `after` in the order of arrival: at most `limit`, and fewer if they reach
    /// [`SCAN_BYTES`]. An empty page is the end.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    fn scan(&self, after: Option<Position>, limit: usize) -> Result<Vec<Held>, StoreError>;

    /// Removes the letters at these positions durably, and returns the number of removed letters.
    ///
    /// # Errors
    /// Returns an error if the store cannot be written.
    fn remove(&self, positions: &[Position]) -> Result<usize, StoreError>;

    /// Replaces the letters at these positions durably, and returns the number of replaced letters. A letter that was removed,
    /// or has another id, is not replaced and never inserted.
    ///
    /// # Errors
    /// Returns an error if the store cannot be written.
    fn update(&self, changed: &[Held]) -> Result<usize, StoreError>;

    /// Returns the positions of the letters with these ids.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    fn find(&self, ids: &[LetterId]) -> Result<Vec<Option<Position>>, StoreError>;

    /// Drops letters that are too old, and returns their number. [`DeadLetterStore::append`] drops them as well.
    ///
    /// # Errors
    /// Returns an error if the store cannot be written.
    fn expire(&self) -> Result<usize, StoreError>;

    /// Returns the store's content and counts.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    fn stats(&self) -> Result<StoreStats, StoreError>;

    /// Claims the store for a replay. One replay can have the claim at a time.
    ///
    /// # Errors
    /// Returns an error if another replay has the claim, or the store failed.
    fn begin_replay(&self) -> Result<ReplayGuard, BeginReplayError>;
}

/// The result of an append.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Appended {
    /// Letters that are new in the store.
    pub taken: u64,
    /// Letters that were in the store already.
    pub known: u64,
    /// Older letters that were dropped to make room, or because of their age.
    pub dropped: u64,
}

/// A store's content, and its counts since it was opened.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct StoreStats {
    /// Letters in the store.
    pub letters: u64,
    /// Bytes of the letters, as the store counts them.
    pub bytes: u64,
    /// Arrival of the oldest letter.
    pub oldest: Option<Timestamp>,
    /// Letters that were taken.
    pub appended: u64,
    /// Letters that were removed: delivered, settled or purged.
    pub removed: u64,
    /// Letters that were dropped to make room.
    pub dropped: u64,
    /// Letters that were dropped because of their age.
    pub expired: u64,
    /// Letters that were refused because the store was full or could not be written.
    pub refused: u64,
    /// Why the store cannot be written at present.
    pub latched: Option<String>,
}

/// Returns the store's selected letters in the order of arrival, read in pages. Letters that arrive during the iteration are
/// included. The iteration ends after an error.
pub fn letters<'a>(store: &'a dyn DeadLetterStore, selection: &'a Selection) -> Letters<'a> {
    letters_after(store, selection, None)
}

/// Returns the letters that [`letters`] returns, behind a position.
pub fn letters_after<'a>(
    store: &'a dyn DeadLetterStore,
    selection: &'a Selection,
    after: Option<Position>,
) -> Letters<'a> {
    Letters { store, selection, page: Vec::new().into_iter(), after, ended: false }
}

/// The iterator of [`letters`].
#[derive(Debug)]
pub struct Letters<'a> {
    store: &'a dyn DeadLetterStore,
    selection: &'a Selection,
    page: std::vec::IntoIter<Held>,
    after: Option<Position>,
    ended: bool,
}

impl Letters<'_> {
    const PAGE: usize = 1000;

    fn next_held(&mut self) -> Result<Option<Held>, StoreError> {
        if let Some(held) = self.page.next() {
            return Ok(Some(held));
        }
        self.page = self.store.scan(self.after, Self::PAGE)?.into_iter();
        Ok(self.page.next())
    }
}

impl Iterator for Letters<'_> {
    type Item = Result<Held, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            match self.next_held() {
                Ok(Some(held)) => {
                    self.after = Some(held.position);
                    if self.selection.matches(&held.letter) {
                        return Some(Ok(held));
                    }
                }
                Ok(None) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

/// Removes the store's selected letters, and returns their number.
///
/// # Errors
/// Returns an error if the store cannot be read or written. Letters that were removed until then stay removed.
pub fn purge(store: &dyn DeadLetterStore, selection: &Selection) -> Result<usize, StoreError> {
    let mut removed = 0;
    let mut selected = letters(store, selection);
    loop {
        let page: Vec<Position> = selected
            .by_ref()
            .take(Letters::PAGE)
            .map(|held| held.map(|held| held.position))
            .collect::<Result<_, _>>()?;
        if page.is_empty() {
            return Ok(removed);
        }
        removed += store.remove(&page)?;
    }
}

/// Imports letters by a store's other methods.
fn import_with_other_methods(
    store: &(impl DeadLetterStore + ?Sized),
    letters: &[Letter],
    treatment: Edited,
) -> Result<Imported, AppendError> {
    let mut imported = Imported::default();
    for run in import::runs(letters) {
        let ids: Vec<LetterId> = run.iter().map(|letter| letter.id).collect();
        let (mut fresh, mut changed) = (Vec::new(), Vec::new());
        for (letter, position) in run.iter().zip(store.find(&ids)?) {
            let stored = match position {
                Some(position) => store.scan(position.0.checked_sub(1).map(Position), 1)?,
                None => Vec::new(),
            };
            let Some(stored) = stored.into_iter().find(|held| held.letter.id == letter.id) else {
                fresh.push(letter.clone());
                continue;
            };
            let taken = imported.count(letter.id, import::decide(&stored.letter, letter, treatment));
            changed.extend(taken.map(|(letter, has_own_state)| Held {
                letter,
                imported: has_own_state || stored.imported,
                ..stored
            }));
        }
        if !changed.is_empty() {
            store.update(&changed)?;
        }
        let appended = store.append(&fresh)?;
        imported.taken += appended.taken;
        imported.known += appended.known;
        imported.dropped += appended.dropped;
    }
    Ok(imported)
}
