//! The index of the topic's letters, in the order of their arrival.
//!
//! Rules:
//! - This module is pure. The first record of a letter determines the letter's place in the order, and newer versions
//!   do not change the place.
//! - Letters of one partition arrived in the order of their offsets, independent of their stamps. Letters of different
//!   partitions are in the order of their stamps: UUIDv7s, which grow within a process and with the clocks of all
//!   processes.
//! - Each version contains the arrival of its letter, because retention may have deleted the letter's first record.
//! - A letter keeps its position while the order allows it. Former positions stay valid until the next change of the
//!   order.

use std::collections::{BTreeMap, HashMap, VecDeque};

use kafka_courier_dlq::{LetterId, Position, Uuid};

use super::arrival::{Arrival, LogPosition};
use super::record::LoggedEntry;

/// The number of this process's letters with the outcome unknown that stay in the index for a correction.
const REMEMBERED: usize = 4096;

/// The letters that a scan of the topic found.
#[derive(Debug, Default)]
pub(crate) struct FoundLetters {
    letters: HashMap<LetterId, SeenLetter>,
    /// The latest arrival in each partition.
    latest: HashMap<i32, Uuid>,
}

#[derive(Clone, Copy, Debug)]
struct SeenLetter {
    arrived: Uuid,
    first: LogPosition,
    newest: LogPosition,
}

impl FoundLetters {
    /// Adds a record of the topic. Records of a partition must be added in the order of their offsets.
    pub(crate) fn add_entry(&mut self, at: LogPosition, entry: &LoggedEntry) {
        match entry {
            LoggedEntry::Letter(letter, arrival) => self.add_letter(letter.id, at, *arrival),
            LoggedEntry::Settled(id) => self.remove(*id),
            LoggedEntry::Claim { .. } => {}
        }
    }

    /// Adds a letter's record. Records of a partition must be added in the order of their offsets.
    pub(crate) fn add_letter(&mut self, id: LetterId, at: LogPosition, arrival: Arrival) {
        if let Some(seen) = self.letters.get_mut(&id) {
            seen.newest = at;
            return;
        }
        let arrived = match arrival {
            Arrival::Before(stamp) => stamp,
            Arrival::First(stamp) => {
                let next = self.latest.get(&at.0).map(|latest| latest.as_u128().saturating_add(1));
                let arrived = Uuid::from_u128(next.map_or(stamp.as_u128(), |next| next.max(stamp.as_u128())));
                self.latest.insert(at.0, arrived);
                arrived
            }
        };
        self.letters.insert(id, SeenLetter { arrived, first: at, newest: at });
    }

    /// Removes a settled letter.
    pub(crate) fn remove(&mut self, id: LetterId) {
        self.letters.remove(&id);
    }

    /// Returns the position of the letter's newest version, and the letter's arrival.
    pub(crate) fn newest(&self, id: LetterId) -> Option<(LogPosition, Uuid)> {
        self.letters.get(&id).map(|seen| (seen.newest, seen.arrived))
    }

    /// Returns the arrival of the last letter.
    pub(crate) fn last_arrival(&self) -> Option<Uuid> {
        self.letters.values().map(|seen| seen.arrived).max()
    }

    /// Removes the letters that arrived after `last`.
    pub(crate) fn retain_until(&mut self, last: Option<Uuid>) {
        self.letters.retain(|_, seen| Some(seen.arrived) <= last);
    }

    /// Returns all letters in the order of their arrival.
    fn in_order(self) -> Vec<(LetterId, SeenLetter)> {
        let mut letters: Vec<(LetterId, SeenLetter)> = self.letters.into_iter().collect();
        letters.sort_by_key(|(_, seen)| (seen.arrived, seen.first));
        letters
    }
}

/// The letters of the topic, as of the last scan.
#[derive(Debug, Default)]
pub(crate) struct Index {
    live: BTreeMap<Position, LetterId>,
    letters: HashMap<LetterId, IndexedLetter>,
    /// The positions before the last change of the order. Callers may still use them.
    former: HashMap<Position, LetterId>,
    /// Letters of this process that may need a correction.
    recent: VecDeque<LetterId>,
    /// The last assigned position. Positions start at 1, because a caller may need a position before the first letter.
    last: u64,
}

/// A letter in the index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IndexedLetter {
    pub(crate) position: Position,
    pub(crate) arrived: Uuid,
    /// The position of the letter's newest version.
    pub(crate) newest: LogPosition,
}

impl Index {
    /// Replaces the index by the result of a scan of the whole topic.
    pub(crate) fn replace(&mut self, found: FoundLetters) {
        let letters = found.in_order();
        let known: Vec<Option<Position>> =
            letters.iter().map(|(id, _)| self.letters.get(id).map(|known| known.position)).collect();
        // The order is unchanged if the known letters come first, in their known order.
        let as_before = known.is_sorted_by(|a, b| match (a, b) {
            (Some(a), Some(b)) => a < b,
            (_, None) => true,
            (None, Some(_)) => false,
        });
        if !as_before {
            self.former = self.live.iter().map(|(position, id)| (*position, *id)).collect();
        }
        (self.live, self.letters, self.recent) = (BTreeMap::new(), HashMap::new(), VecDeque::new());
        for ((id, seen), known) in letters.into_iter().zip(known) {
            let position = known.filter(|_| as_before).unwrap_or_else(|| self.next());
            self.insert(id, IndexedLetter { position, arrived: seen.arrived, newest: seen.newest });
        }
    }

    fn next(&mut self) -> Position {
        self.last += 1;
        Position(self.last)
    }

    fn insert(&mut self, id: LetterId, known: IndexedLetter) {
        self.live.insert(known.position, id);
        self.letters.insert(id, known);
    }

    /// Records the position of a newer version of the letter.
    pub(crate) fn update(&mut self, id: LetterId, at: LogPosition) {
        if let Some(known) = self.letters.get_mut(&id) {
            known.newest = at;
        }
    }

    /// Removes a settled letter. Returns whether the index contained it.
    pub(crate) fn remove(&mut self, id: LetterId) -> bool {
        self.letters.remove(&id).is_some_and(|known| self.live.remove(&known.position).is_some())
    }

    /// Returns the letter at a present or former position.
    pub(crate) fn get(&self, position: Position) -> Option<(LetterId, IndexedLetter)> {
        let id = self.live.get(&position).or_else(|| self.former.get(&position))?;
        Some((*id, *self.letters.get(id)?))
    }

    pub(crate) fn position(&self, id: LetterId) -> Option<Position> {
        self.letters.get(&id).map(|known| known.position)
    }

    /// Returns up to `limit` letters after a position.
    pub(crate) fn after(&self, after: Option<Position>, limit: usize) -> Vec<(LetterId, IndexedLetter)> {
        let from = after.map_or(0, |after| after.0.saturating_add(1));
        let ids = self.live.range(Position(from)..).take(limit).map(|(_, id)| id);
        ids.filter_map(|id| Some((*id, *self.letters.get(id)?))).collect()
    }

    pub(crate) fn len(&self) -> u64 {
        self.live.len() as u64
    }

    /// Adds a letter that this process has written.
    pub(crate) fn insert_written(&mut self, id: LetterId, at: LogPosition, arrived: Uuid) {
        if self.letters.contains_key(&id) {
            return self.update(id, at);
        }
        let position = self.next();
        self.insert(id, IndexedLetter { position, arrived, newest: at });
        self.recent.push_back(id);
        if self.recent.len() > REMEMBERED
            && let Some(oldest) = self.recent.pop_front()
        {
            self.remove(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> LetterId {
        Uuid::from_u128(number).into()
    }

    fn first(stamp: u128) -> Arrival {
        Arrival::First(Uuid::from_u128(stamp))
    }

    fn order(index: &Index) -> Vec<u128> {
        index.after(None, 99).into_iter().map(|(id, _)| id.as_uuid().as_u128()).collect()
    }

    fn read(records: &[(u128, LogPosition, Arrival)]) -> FoundLetters {
        let mut found = FoundLetters::default();
        records.iter().for_each(|(number, at, arrival)| found.add_letter(id(*number), *at, *arrival));
        found
    }

    fn indexed(records: &[(u128, LogPosition, Arrival)]) -> Index {
        let mut index = Index::default();
        index.replace(read(records));
        index
    }

    #[test]
    fn newer_version_keeps_its_place() {
        let again = Arrival::Before(Uuid::from_u128(10));
        let index = indexed(&[(1, (0, 0), first(10)), (2, (0, 1), first(20)), (1, (0, 2), again)]);
        assert_eq!(order(&index), [1, 2]);
        assert_eq!(index.after(None, 1)[0].1.newest, (0, 2));
    }

    #[test]
    fn version_alone_keeps_its_place() {
        let again = Arrival::Before(Uuid::from_u128(10));
        assert_eq!(order(&indexed(&[(2, (0, 1), first(20)), (1, (0, 2), again)])), [1, 2]);
    }

    #[test]
    fn stamps_order_letters_across_partitions() {
        let index = indexed(&[(1, (0, 0), first(10)), (3, (0, 1), first(30)), (2, (1, 0), first(20))]);
        assert_eq!(order(&index), [1, 2, 3]);
    }

    #[test]
    fn offsets_win_within_a_partition() {
        let index = indexed(&[(1, (0, 0), first(30)), (2, (0, 1), first(10)), (3, (1, 0), first(20))]);
        assert_eq!(order(&index), [3, 1, 2]);
    }

    #[test]
    fn unstamped_letters_go_by_timestamp() {
        let old = |ms, number| (number, (0, 0), Arrival::unstamped(ms, id(number)));
        let (mut a, mut b) = (old(2, 1), old(1, 2));
        (a.1, b.1) = ((0, 0), (1, 0));
        assert_eq!(order(&indexed(&[a, b])), [2, 1]);
        let (mut a, mut b) = (old(1, 2), old(1, 1));
        (a.1, b.1) = ((0, 0), (1, 0));
        assert_eq!(order(&indexed(&[a, b])), [1, 2], "ids order equal timestamps");
    }

    #[test]
    fn positions_stay_while_order_does() {
        let mut index = indexed(&[(1, (0, 0), first(10)), (2, (0, 1), first(20))]);
        let before = index.after(None, 9)[1].1.position;
        index.replace(read(&[(2, (0, 1), first(20)), (3, (0, 2), first(30))]));
        assert_eq!(index.position(id(2)), Some(before));
        index.replace(read(&[(2, (0, 1), first(20)), (3, (0, 2), first(30)), (4, (1, 0), first(15))]));
        assert_eq!(order(&index), [4, 2, 3]);
        assert!(index.position(id(2)) > Some(before));
        assert_eq!(index.get(before).map(|(id, _)| id), Some(id(2)), "the former position is valid");
    }

    #[test]
    fn late_arrivals_wait_for_next_scan() {
        let mut found = read(&[(1, (0, 0), first(10)), (3, (1, 0), first(30))]);
        let last = found.last_arrival();
        found.add_letter(id(2), (0, 1), first(20));
        found.add_letter(id(4), (1, 1), first(40));
        found.retain_until(last);
        let mut index = Index::default();
        index.replace(found);
        assert_eq!(order(&index), [1, 2, 3]);
    }

    #[test]
    fn settled_letters_are_gone() {
        let mut index = indexed(&[(1, (0, 0), first(10)), (2, (0, 1), first(20))]);
        assert!(index.remove(id(1)) && !index.remove(id(1)));
        assert_eq!((order(&index), index.len()), (vec![2], 1));
    }
}
