//! A letter in a store, and its position.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::letter::Letter;

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
    /// Whether the letter was [imported](crate::DeadLetterStore::import) and still has the data of its former producer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub imported: bool,
}

impl Held {
    /// Creates a letter that this store's own producers wrote.
    pub fn new(position: Position, letter: Letter) -> Self {
        Self { position, letter, imported: false }
    }
}
