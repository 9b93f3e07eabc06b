//! Assigns the stamps of letters that leave in their own batches.
//!
//! Rules:
//! - Pure. The letters of one lane that are in progress in a partition share a producer id, with consecutive sequence
//!   numbers. No letter of another lane has that id in the partition until all of them are acknowledged.
//! - The letters of a process that crashed can therefore be repeated in order under the same stamps. A leader appends each
//!   record once.
//! - A producer id is not used any more once a letter was not acknowledged: the leader may expect another sequence number.

use std::collections::{HashMap, HashSet};

use kafka_courier_batcher::{Sequence, Stamp};
use kafka_courier_dlq::Outcome;

use super::order::{ReplayLane, TopicPartition};
use super::placed::PlacedLetter;

/// Most letters in flight at a time.
pub(super) const MAX_IN_FLIGHT: usize = 64;

/// The producer ids of a replay's stamps.
#[derive(Debug, Default)]
pub(super) struct StampIds(Vec<StampId>);

#[derive(Debug)]
struct StampId {
    producer_id: i64,
    /// The next sequence number by partition.
    next: HashMap<TopicPartition, Sequence>,
}

/// The index of each letter's producer id. `None` for a letter with an unknown outcome: one stamp cannot settle two open
/// attempts.
#[derive(Debug)]
pub(super) struct Slots(Vec<Option<usize>>);

impl Slots {
    /// Gives each lane of a partition its own producer id.
    pub(super) fn of(letters: &[PlacedLetter]) -> Self {
        let mut lanes: HashMap<TopicPartition, HashMap<Option<ReplayLane>, usize>> = HashMap::new();
        let slot = |placed: &PlacedLetter| {
            let letter = &placed.held.letter;
            if letter.outcome != Outcome::NotWritten {
                return None;
            }
            let slots = lanes.entry((letter.topic.clone(), placed.partition)).or_default();
            let next = slots.len();
            Some(*slots.entry(placed.lane()).or_insert(next))
        };
        Self(letters.iter().map(slot).collect())
    }

    /// Returns the number of producer ids that the slots need.
    pub(super) fn needed(&self) -> usize {
        self.0.iter().flatten().max().map_or(0, |last| last + 1)
    }
}

impl StampIds {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds a producer id that no producer has used.
    pub(super) fn add(&mut self, producer_id: i64) {
        self.0.push(StampId { producer_id, next: HashMap::new() });
    }

    /// Returns the letters' stamps. `None` for a letter without a slot or a producer id.
    pub(super) fn stamp(&mut self, letters: &[PlacedLetter], slots: &Slots) -> Vec<Option<Stamp>> {
        let stamps = letters.iter().zip(&slots.0).map(|(placed, slot)| {
            let id = self.0.get_mut((*slot)?)?;
            let next = id.next.entry((placed.held.letter.topic.clone(), placed.partition)).or_default();
            let first = *next;
            *next = first.advance(1);
            Some(Stamp { producer_id: id.producer_id, epoch: 0, base_sequence: first.number() })
        });
        stamps.collect()
    }

    /// Removes producer ids of letters that were not acknowledged.
    pub(super) fn retire(&mut self, ids: &HashSet<i64>) {
        self.0.retain(|id| !ids.contains(&id.producer_id));
    }
}

#[cfg(test)]
mod tests {
    use kafka_courier_dlq::{Bytes, Held, Letter, Position, Timestamp};

    use super::*;

    fn placed(key: &'static str, partition: i32, outcome: Outcome) -> PlacedLetter {
        let mut letter = Letter::new("t", None, "why", Timestamp::UNIX_EPOCH);
        (letter.key, letter.outcome) = (Some(Bytes::from_static(key.as_bytes())), outcome);
        PlacedLetter { held: Held::new(Position(0), letter), partition, before: None }
    }

    fn stamps(ids: &mut StampIds, letters: &[PlacedLetter]) -> Vec<Option<(i64, i32)>> {
        let slots = Slots::of(letters);
        let stamps = ids.stamp(letters, &slots);
        stamps.into_iter().map(|stamp| stamp.map(|stamp| (stamp.producer_id, stamp.base_sequence))).collect()
    }

    #[test]
    fn lanes_share_no_producer_id() {
        let certain = |key, partition| placed(key, partition, Outcome::NotWritten);
        let letters = [certain("a", 0), certain("b", 0), certain("a", 0), certain("c", 1)];
        assert_eq!(Slots::of(&letters).needed(), 2);
        let mut ids = StampIds::default();
        [7, 8].into_iter().for_each(|id| ids.add(id));
        assert_eq!(stamps(&mut ids, &letters), [Some((7, 0)), Some((8, 0)), Some((7, 1)), Some((7, 0))]);
        assert_eq!(stamps(&mut ids, &letters[..1]), [Some((7, 2))], "after the first ones are acknowledged");
        ids.retire(&HashSet::from([7]));
        assert_eq!((ids.len(), stamps(&mut ids, &letters[..1])), (1, vec![Some((8, 1))]));
    }

    #[test]
    fn doubtful_letters_get_no_stamp() {
        let mut ids = StampIds::default();
        ids.add(7);
        assert_eq!(stamps(&mut ids, &[placed("a", 0, Outcome::Unknown)]), [None]);
    }
}
