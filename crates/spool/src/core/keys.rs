//! Keys of requests: which records belong to a request, so that a repeated request publishes none of them again.
//!
//! Rules:
//!  - The frame that holds a batch also holds the keys of the batch's records. A key and its record are durable together, or
//!    neither is.
//!  - A lost record has no key: a repeated request publishes it again.
//!  - Keys are forgotten by their time, when an entry says so. The table keeps the newest [`KEYS_KEPT`] keys.
//!  - The entries of a frame, taken in again, change nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::ids::{Ordinal, Partition};
use super::ranges::OrdinalSet;

/// The number of keys that a table keeps. Each checkpoint holds all of them.
pub const KEYS_KEPT: usize = 100_000;

/// The key of a request, with one record of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordKey {
    /// A digest of the key and its client. The layer above defines it.
    pub key: [u8; 16],
    /// A digest of the request's payload.
    pub payload: [u8; 16],
    /// The time of the request, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// The partition of the record.
    pub partition: Partition,
    /// The record.
    pub ordinal: Ordinal,
    /// The place of the record's event in the request, from 0.
    pub index: u32,
    /// The number of events in the request.
    pub count: u32,
}

impl RecordKey {
    fn place(&self) -> KeyPlace {
        (self.key, self.index)
    }
}

/// A key, and the place of an event in its request.
type KeyPlace = ([u8; 16], u32);

/// The keys of a spool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    keys: BTreeMap<KeyPlace, RecordKey>,
    /// The same keys, the oldest first.
    by_age: BTreeSet<(u64, KeyPlace)>,
}

impl Keys {
    /// Returns the keys, by key and place.
    pub fn iter(&self) -> impl Iterator<Item = &RecordKey> {
        self.keys.values()
    }

    /// Returns the number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Returns whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Forgets the keys from before a time.
    pub(super) fn forget_before(&mut self, at_ms: u64) {
        while let Some((at, place)) = self.by_age.first().copied().filter(|(at, _)| *at < at_ms) {
            self.by_age.remove(&(at, place));
            self.keys.remove(&place);
        }
    }

    /// Adds a key. A later request with the same key replaces the earlier one.
    pub(super) fn insert(&mut self, key: RecordKey) {
        if let Some(known) = self.keys.get(&key.place()) {
            if known.at_ms > key.at_ms {
                return;
            }
            self.by_age.remove(&(known.at_ms, key.place()));
        }
        self.keys.insert(key.place(), key);
        self.by_age.insert((key.at_ms, key.place()));
        while self.keys.len() > KEYS_KEPT
            && let Some((_, place)) = self.by_age.pop_first()
        {
            self.keys.remove(&place);
        }
    }

    /// Removes the keys of records that are lost.
    pub(super) fn remove_lost(&mut self, lost: impl Fn(Partition) -> Option<OrdinalSet>) {
        let mut sets: BTreeMap<Partition, Option<OrdinalSet>> = BTreeMap::new();
        let (keys, by_age) = (&mut self.keys, &mut self.by_age);
        keys.retain(|place, key| {
            let set = sets.entry(key.partition).or_insert_with(|| lost(key.partition));
            let is_lost = set.as_ref().is_some_and(|set| set.contains(key.ordinal));
            if is_lost {
                by_age.remove(&(key.at_ms, *place));
            }
            !is_lost
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: u8, index: u32, at_ms: u64) -> RecordKey {
        let (partition, ordinal) = (Partition::default(), Ordinal(at_ms));
        RecordKey { key: [name; 16], payload: [0; 16], at_ms, partition, ordinal, index, count: 4 }
    }

    fn times(keys: &Keys) -> Vec<u64> {
        keys.iter().map(|key| key.at_ms).collect()
    }

    #[test]
    fn repeats_change_nothing() {
        let mut keys = Keys::default();
        let all = [key(1, 0, 10), key(1, 3, 10), key(2, 0, 7)];
        all.iter().chain(&all).for_each(|key| keys.insert(*key));
        assert_eq!(times(&keys), [10, 10, 7]);
    }

    #[test]
    fn later_request_replaces_its_key() {
        let mut keys = Keys::default();
        [key(1, 0, 10), key(1, 0, 30), key(1, 0, 20)].iter().for_each(|key| keys.insert(*key));
        assert_eq!(times(&keys), [30]);
        keys.forget_before(30);
        assert_eq!(times(&keys), [30]);
        keys.forget_before(31);
        assert_eq!(keys, Keys::default());
    }

    #[test]
    fn oldest_keys_are_dropped() {
        let mut keys = Keys::default();
        for index in 0..=KEYS_KEPT as u32 {
            keys.insert(key(1, index, u64::from(index)));
        }
        assert_eq!((keys.len(), times(&keys)[0]), (KEYS_KEPT, 1));
        keys.insert(key(1, 0, 0));
        assert_eq!(times(&keys)[0], 1, "an old key does not displace newer ones");
    }

    #[test]
    fn lost_record_has_no_key() {
        let mut keys = Keys::default();
        (0..5).for_each(|index| keys.insert(key(1, index, u64::from(index))));
        let lost = OrdinalSet::from_ranges([(Ordinal(1), Ordinal(3))]);
        keys.remove_lost(|_| Some(lost.clone()));
        assert_eq!(times(&keys), [0, 3, 4]);
        keys.forget_before(4);
        assert_eq!(times(&keys), [4]);
    }
}
