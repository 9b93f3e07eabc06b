//! The interface of a dead-letter store.
//!
//! Rules:
//! - `append` returns once all letters are as durable as the store makes them, or none of them is taken.
//! - A letter of one id is kept once, even if it is appended several times.
//! - Every method may block its thread.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::import::{self, Edited, Imported};
use crate::letter::{Letter, LetterId};
use crate::replay_guard::{BeginReplayError, ReplayGuard};
use crate::selection::Selection;

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
        import::import_with_other_methods(self, letters, edited)
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

/// A letter's position in its store. Positions grow in the order of arrival and are never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A letter in a store.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Held {
    /// The letter's position.
    pub position: Position,
    /// The letter.
    pub letter: Letter,
    /// Whether the letter was [imported](DeadLetterStore::import) and still has the data of its former producer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub imported: bool,
}

impl Held {
    /// Creates a letter that this store's own producers wrote.
    pub fn new(position: Position, letter: Letter) -> Self {
        Self { position, letter, imported: false }
    }
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

/// Why letters were refused. No letter was taken.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The store is full, and its policy is to refuse letters.
    #[error(
        "the dead-letter store {store} is full with {letters} dead letters of {bytes} bytes: replay or purge some, or raise its limits"
    )]
    Full {
        /// The store.
        store: String,
        /// Letters in the store.
        letters: u64,
        /// Bytes of the letters.
        bytes: u64,
    },
    /// One letter alone exceeds the limit of bytes. The store may take the others without it.
    #[error(
        "dead letter {id} takes {bytes} bytes, over the limit of {limit} of the dead-letter store {store}: raise the limit"
    )]
    TooLarge {
        /// The store.
        store: String,
        /// The letter.
        id: LetterId,
        /// The letter's bytes.
        bytes: u64,
        /// The store's limit, in bytes.
        limit: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an operation of a store failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Reading or writing failed.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        error: Arc<std::io::Error>,
    },
    /// An earlier attempt failed, and the store pauses before the next one.
    #[error("{}: {reason} (since {since}): the store tries again after a pause", path.display())]
    Latched {
        /// The file.
        path: PathBuf,
        /// The failure.
        reason: Arc<str>,
        /// Time of the first failure.
        since: Timestamp,
    },
    /// The file's content was altered.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The damage.
        reason: String,
    },
    /// A letter cannot be encoded as JSON.
    #[error("dead letter {id}: {reason}")]
    Letter {
        /// The letter.
        id: LetterId,
        /// The reason.
        reason: String,
    },
    /// The service that holds the store failed, or did not answer.
    #[error("the service that holds {store}: {reason}")]
    Service {
        /// The store.
        store: String,
        /// The service's error, or the connection's.
        reason: String,
    },
}

/// Returns the store's selected letters in the order of arrival, read in pages. Letters that arrive during the iteration are
/// included. The iteration ends after an error.
pub fn letters<'a>(store: &'a dyn DeadLetterStore, selection: &'a Selection) -> Letters<'a> {
    Letters { store, selection, page: Vec::new().into_iter(), after: None, ended: false }
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
