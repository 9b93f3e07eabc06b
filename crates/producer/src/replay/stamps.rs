//! The stamps under which letters leave, each in a batch of its own.
//!
//! Rules:
//! - Pure. The letters of one lane that are under way in a partition share a producer id, under rising sequence numbers, and
//!   no letter of another lane has that id there until they are all acknowledged.
//! - So whichever of them a process that dies leaves behind, they can go again in their order under the same stamps: a leader
//!   takes each once.
//! - An id of which a letter was not acknowledged is not used any more: its next sequence number may not be the leader's.

use std::collections::{HashMap, HashSet};

use kafka_courier_batcher::{Stamp, sequence_add};
use kafka_courier_dlq::Outcome;

use super::order::Lane;
use super::run::Placed;

/// A partition of a topic.
type Place = (String, i32);

/// The producer ids of a replay.
#[derive(Debug, Default)]
pub(super) struct Ids(Vec<Id>);

#[derive(Debug)]
struct Id {
    producer_id: i64,
    /// The next sequence number in each partition.
    next: HashMap<Place, i32>,
}

/// Which of the ids each letter goes under; none where it can't go alone: two doubts of one letter can't be settled by one
/// stamp.
#[derive(Debug)]
pub(super) struct Slots(Vec<Option<usize>>);

impl Slots {
    pub(super) fn of(letters: &[Placed]) -> Self {
        let mut lanes: HashMap<Place, HashMap<Option<Lane>, usize>> = HashMap::new();
        let slot = |placed: &Placed| {
            let letter = &placed.held.letter;
            if letter.outcome != Outcome::NotWritten {
                return None;
            }
            let there = lanes.entry((letter.topic.clone(), placed.partition)).or_default();
            let next = there.len();
            Some(*there.entry(placed.lane()).or_insert(next))
        };
        Self(letters.iter().map(slot).collect())
    }

    /// How many ids that takes.
    pub(super) fn needed(&self) -> usize {
        self.0.iter().flatten().max().map_or(0, |last| last + 1)
    }
}

impl Ids {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// One that nobody had before.
    pub(super) fn add(&mut self, producer_id: i64) {
        self.0.push(Id { producer_id, next: HashMap::new() });
    }

    /// The stamps of these letters; none where there is no id.
    pub(super) fn stamp(&mut self, letters: &[Placed], slots: &Slots) -> Vec<Option<Stamp>> {
        let stamps = letters.iter().zip(&slots.0).map(|(placed, slot)| {
            let id = self.0.get_mut((*slot)?)?;
            let next = id.next.entry((placed.held.letter.topic.clone(), placed.partition)).or_default();
            let base_sequence = *next;
            *next = sequence_add(base_sequence, 1);
            Some(Stamp { producer_id: id.producer_id, epoch: 0, base_sequence })
        });
        stamps.collect()
    }

    /// Of these ids letters were not acknowledged.
    pub(super) fn retire(&mut self, ids: &HashSet<i64>) {
        self.0.retain(|id| !ids.contains(&id.producer_id));
    }
}

#[cfg(test)]
mod tests {
    use kafka_courier_dlq::{Bytes, Held, Letter, Position, Timestamp};

    use super::*;

    fn placed(key: &'static str, partition: i32, outcome: Outcome) -> Placed {
        let mut letter = Letter::new("t", None, "why", Timestamp::UNIX_EPOCH);
        (letter.key, letter.outcome) = (Some(Bytes::from_static(key.as_bytes())), outcome);
        Placed { held: Held::new(Position(0), letter), partition, before: None }
    }

    fn stamps(ids: &mut Ids, letters: &[Placed]) -> Vec<Option<(i64, i32)>> {
        let slots = Slots::of(letters);
        let stamps = ids.stamp(letters, &slots);
        stamps.into_iter().map(|stamp| stamp.map(|stamp| (stamp.producer_id, stamp.base_sequence))).collect()
    }

    #[test]
    fn lanes_of_a_partition_share_no_id() {
        let certain = |key, partition| placed(key, partition, Outcome::NotWritten);
        let letters = [certain("a", 0), certain("b", 0), certain("a", 0), certain("c", 1)];
        assert_eq!(Slots::of(&letters).needed(), 2);
        let mut ids = Ids::default();
        [7, 8].into_iter().for_each(|id| ids.add(id));
        assert_eq!(stamps(&mut ids, &letters), [Some((7, 0)), Some((8, 0)), Some((7, 1)), Some((7, 0))]);
        assert_eq!(stamps(&mut ids, &letters[..1]), [Some((7, 2))], "once those before are acknowledged");
        ids.retire(&HashSet::from([7]));
        assert_eq!((ids.len(), stamps(&mut ids, &letters[..1])), (1, vec![Some((8, 1))]));
    }

    #[test]
    fn doubtful_letters_get_no_stamp() {
        let mut ids = Ids::default();
        ids.add(7);
        assert_eq!(stamps(&mut ids, &[placed("a", 0, Outcome::Unknown)]), [None]);
    }
}
