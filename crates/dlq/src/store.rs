//! What a dead-letter store is.
//!
//! - `append` returns once the letters are as durable as the store makes them, all of them or none.
//! - A letter of one id is kept once, however often it is appended.
//! - Every method blocks: call it from a thread that may.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::import::{self, Edited, Imported};
use crate::letter::{Letter, LetterId};
use crate::replay_guard::{BeginReplayError, ReplayGuard};
use crate::selection::Selection;

/// A page that [`DeadLetterStore::scan`] gives ends with the letter that brings it to so many bytes.
pub const SCAN_BYTES: u64 = 4 * 1024 * 1024;

/// Keeps dead letters.
pub trait DeadLetterStore: Send + Sync + fmt::Debug {
    /// Whether nobody but its holder can have letters in hand: whoever wrote here before is gone for certain. A check may end
    /// the life of such a producer's id, to prove what it can no longer write.
    fn is_exclusive(&self) -> bool {
        false
    }

    /// What it is called in messages: `memory`, or the file's path.
    fn name(&self) -> &str;

    /// Takes all of the letters, durably, or none. A letter whose id is there already is left as it is there.
    fn append(&self, letters: &[Letter]) -> Result<Appended, AppendError>;

    /// Takes letters that were written elsewhere, by producers that may live: their ids are not this store's to end. A store
    /// whose [`is_exclusive`](Self::is_exclusive) is ever true tells them apart ([`Held::imported`]). A letter whose id is
    /// there already is taken only in a newer state; one that was edited is named and left as it is here.
    fn import(&self, letters: &[Letter]) -> Result<Imported, AppendError> {
        self.import_with(letters, Edited::Leave)
    }

    /// As [`import`](Self::import), and says what to do with edited letters.
    fn import_with(&self, letters: &[Letter], edited: Edited) -> Result<Imported, AppendError> {
        import::through(self, letters, edited)
    }

    /// The letters that arrived after the one at `after`, in order of arrival: at most `limit`, and fewer once they come to
    /// [`SCAN_BYTES`]. No letter at all means that there are no more.
    fn scan(&self, after: Option<Position>, limit: usize) -> Result<Vec<Held>, StoreError>;

    /// Removes the letters at these positions, durably, and says how many there were.
    fn remove(&self, positions: &[Position]) -> Result<usize, StoreError>;

    /// Puts these letters in the place of those that are there, durably, and says how many there were. One that has
    /// gone, or whose id is another, is left out: it is never put back.
    fn update(&self, changed: &[Held]) -> Result<usize, StoreError>;

    /// Where the letters of these ids are.
    fn find(&self, ids: &[LetterId]) -> Result<Vec<Option<Position>>, StoreError>;

    /// Drops what is too old, and says how many. [`DeadLetterStore::append`] does so too.
    fn expire(&self) -> Result<usize, StoreError>;

    /// What it holds and did.
    fn stats(&self) -> Result<StoreStats, StoreError>;

    /// Takes the right to replay, which only one may have at a time.
    fn begin_replay(&self) -> Result<ReplayGuard, BeginReplayError>;
}

/// Where a letter is in its store: grows with each letter that arrives, and is never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A letter and where it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Held {
    /// Where.
    pub position: Position,
    /// The letter.
    pub letter: Letter,
    /// Whether it came by an [import](DeadLetterStore::import), and what it says of its producer is still from there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub imported: bool,
}

impl Held {
    /// A letter at this place, with what this store's own producers wrote into it.
    pub fn new(position: Position, letter: Letter) -> Self {
        Self { position, letter, imported: false }
    }
}

/// What became of letters that were appended.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Appended {
    /// So many are new here.
    pub taken: u64,
    /// So many were here already.
    pub known: u64,
    /// So many older ones were dropped to make room, or because of their age.
    pub dropped: u64,
}

/// What a store holds, and what it did since it was opened.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct StoreStats {
    /// Letters held.
    pub letters: u64,
    /// Their bytes, as the store counts them.
    pub bytes: u64,
    /// When the oldest of them arrived.
    pub oldest: Option<Timestamp>,
    /// Letters that were taken.
    pub appended: u64,
    /// Letters that were removed: delivered, settled or purged.
    pub removed: u64,
    /// Letters that were dropped to make room.
    pub dropped: u64,
    /// Letters that were dropped because of their age.
    pub expired: u64,
    /// Letters that were not taken, because the store was full or could not write.
    pub refused: u64,
    /// Why nothing can be written at present.
    pub latched: Option<String>,
}

/// Why letters were not taken: none of them was.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The store is full, and its policy is to refuse.
    #[error(
        "the dead-letter store {store} is full: {letters} letters, {bytes} bytes; replay or purge some, or raise its limits"
    )]
    Full {
        /// The store.
        store: String,
        /// Letters held.
        letters: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// One of the letters alone is over the limit of bytes. The others may well be taken without it.
    #[error(
        "letter {id} takes {bytes} bytes, more than the {limit} that the dead-letter store {store} may hold in all"
    )]
    TooLarge {
        /// The store.
        store: String,
        /// The letter.
        id: LetterId,
        /// Its bytes.
        bytes: u64,
        /// What is allowed.
        limit: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a store could not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Writing or reading failed now.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What happened.
        error: Arc<std::io::Error>,
    },
    /// An earlier failure: nothing is tried until a pause is over.
    #[error("{}: {reason} (since {since}; tried again after a pause)", path.display())]
    Latched {
        /// The file.
        path: PathBuf,
        /// The failure.
        reason: Arc<str>,
        /// When it happened.
        since: Timestamp,
    },
    /// What the file holds is not what was written.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How.
        reason: String,
    },
    /// A letter that has no JSON.
    #[error("letter {id}: {reason}")]
    Letter {
        /// The letter.
        id: LetterId,
        /// Why.
        reason: String,
    },
    /// The service that holds the store could not do it, or did not answer.
    #[error("the service that holds {store}: {reason}")]
    Service {
        /// The store.
        store: String,
        /// What it said.
        reason: String,
    },
}

/// The store's letters that are selected, in order of arrival, read in pages as they are asked for. Letters that arrive
/// meanwhile come too. After an error there are no more.
pub fn letters<'a>(store: &'a dyn DeadLetterStore, selection: &'a Selection) -> Letters<'a> {
    Letters { store, selection, page: Vec::new().into_iter(), after: None, ended: false }
}

/// See [`letters`].
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

/// Removes the store's letters that are selected, and says how many there were.
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
