//! A letter with the partition that a replay sends it to.

use kafka_courier_dlq::{Held, Letter};

use super::order::ReplayLane;

/// A letter, and the partition for its record.
pub(super) struct PlacedLetter {
    /// The letter as it is sent. If the replay sends it to another topic, a letter of that topic.
    pub(super) held: Held,
    pub(super) partition: i32,
    /// The letter as stored, if that is a letter of another topic.
    pub(super) before: Option<Box<Letter>>,
}

impl PlacedLetter {
    /// Returns the letter as stored.
    pub(super) fn before(&self) -> Held {
        let before = self.before.as_deref();
        before.map_or_else(|| self.held.clone(), |letter| Held { letter: letter.clone(), ..self.held })
    }

    pub(super) fn lane(&self) -> Option<ReplayLane> {
        ReplayLane::at(&self.held.letter, Some(self.partition))
    }
}
