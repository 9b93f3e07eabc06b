//! Which letters of the topic there are, and in which order they arrived.
//!
//! Rules:
//! - Pure. A letter's place in the order is its first record's; a newer version of it changes nothing there.
//! - Within a partition letters arrived in the order of their offsets, whatever their stamps say. Letters of different
//!   partitions are in the order of their stamps: UUIDv7s, which grow within a process and with the clocks of all.
//! - A version says when its letter arrived, for retention may have deleted the letter's first record.
//! - A letter keeps its position as long as the order allows that. What a position was is known until the next change.

use std::collections::{BTreeMap, HashMap, VecDeque};

use kafka_courier_dlq::{LetterId, Position, Uuid};

use super::record::Entry;
use super::task::Place;

/// Unknown letters of this process that are remembered, for a correction.
const REMEMBERED: usize = 4096;
/// Below the milliseconds of a UUIDv7.
const STAMP_BITS: u32 = 80;

/// When a letter arrived, as a record of it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arrival {
    /// The letter's first record, with this stamp.
    First(Uuid),
    /// A newer version of a letter that arrived then.
    Before(Uuid),
}

impl Arrival {
    /// A stamp for a letter that arrives now.
    pub(crate) fn now() -> Uuid {
        LetterId::new().as_uuid()
    }

    /// The stamp of a letter whose record bears none: by its timestamp, and by its id where that was made then.
    pub(crate) fn unstamped(timestamp_ms: i64, id: LetterId) -> Self {
        let millis = u128::try_from(timestamp_ms).unwrap_or(0) << STAMP_BITS;
        Self::First(Uuid::from_u128(millis | (id.as_uuid().as_u128() & ((1 << STAMP_BITS) - 1))))
    }
}

/// What a reading of the topic finds.
#[derive(Debug, Default)]
pub(crate) struct Found {
    letters: HashMap<LetterId, Seen>,
    /// The latest arrival in each partition.
    latest: HashMap<i32, Uuid>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    arrived: Uuid,
    first: Place,
    newest: Place,
}

impl Found {
    /// A record of the topic; those of a partition come in the order of their offsets.
    pub(crate) fn entry(&mut self, at: Place, entry: &Entry) {
        match entry {
            Entry::Letter(letter, arrival) => self.letter(letter.id, at, *arrival),
            Entry::Settled(id) => self.settled(*id),
            Entry::Claim { .. } => {}
        }
    }

    /// A letter's record; those of a partition come in the order of their offsets.
    pub(crate) fn letter(&mut self, id: LetterId, at: Place, arrival: Arrival) {
        if let Some(seen) = self.letters.get_mut(&id) {
            seen.newest = at;
            return;
        }
        let arrived = match arrival {
            Arrival::Before(stamp) => stamp,
            Arrival::First(stamp) => {
                let behind = self.latest.get(&at.0).map(|latest| latest.as_u128().saturating_add(1));
                let arrived = Uuid::from_u128(behind.map_or(stamp.as_u128(), |behind| behind.max(stamp.as_u128())));
                self.latest.insert(at.0, arrived);
                arrived
            }
        };
        self.letters.insert(id, Seen { arrived, first: at, newest: at });
    }

    /// The letter of this id is one no more.
    pub(crate) fn settled(&mut self, id: LetterId) {
        self.letters.remove(&id);
    }

    /// Where the letter's newest version is, and when the letter arrived.
    pub(crate) fn newest(&self, id: LetterId) -> Option<(Place, Uuid)> {
        self.letters.get(&id).map(|seen| (seen.newest, seen.arrived))
    }

    /// When the last of them arrived.
    pub(crate) fn last(&self) -> Option<Uuid> {
        self.letters.values().map(|seen| seen.arrived).max()
    }

    /// Leaves out what arrived later than this.
    pub(crate) fn until(&mut self, last: Option<Uuid>) {
        self.letters.retain(|_, seen| Some(seen.arrived) <= last);
    }

    /// All of them, in the order in which they arrived.
    fn in_order(self) -> Vec<(LetterId, Seen)> {
        let mut letters: Vec<(LetterId, Seen)> = self.letters.into_iter().collect();
        letters.sort_by_key(|(_, seen)| (seen.arrived, seen.first));
        letters
    }
}

/// Which letters there are, as far as it was read.
#[derive(Debug, Default)]
pub(crate) struct Index {
    live: BTreeMap<Position, LetterId>,
    letters: HashMap<LetterId, Known>,
    /// What positions were before the order changed: whoever read them speaks of them so.
    former: HashMap<Position, LetterId>,
    /// Letters that were written by this process and may have to be corrected.
    recent: VecDeque<LetterId>,
    /// The last position that was given. The first is 1, so that there is one before it.
    last: u64,
}

/// What is known of a letter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) position: Position,
    pub(crate) arrived: Uuid,
    /// Where its newest version is.
    pub(crate) newest: Place,
}

impl Index {
    /// Takes what a reading of the whole topic found.
    pub(crate) fn take(&mut self, found: Found) {
        let letters = found.in_order();
        let known: Vec<Option<Position>> =
            letters.iter().map(|(id, _)| self.letters.get(id).map(|known| known.position)).collect();
        // Those that are known come first, in the order in which they are known.
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
            self.put(id, Known { position, arrived: seen.arrived, newest: seen.newest });
        }
    }

    fn next(&mut self) -> Position {
        self.last += 1;
        Position(self.last)
    }

    fn put(&mut self, id: LetterId, known: Known) {
        self.live.insert(known.position, id);
        self.letters.insert(id, known);
    }

    /// A newer version of the letter is there.
    pub(crate) fn updated(&mut self, id: LetterId, at: Place) {
        if let Some(known) = self.letters.get_mut(&id) {
            known.newest = at;
        }
    }

    /// The letter is one no more.
    pub(crate) fn settled(&mut self, id: LetterId) -> bool {
        self.letters.remove(&id).is_some_and(|known| self.live.remove(&known.position).is_some())
    }

    /// The letter at this position.
    pub(crate) fn at(&self, position: Position) -> Option<(LetterId, Known)> {
        let id = self.live.get(&position).or_else(|| self.former.get(&position))?;
        Some((*id, *self.letters.get(id)?))
    }

    pub(crate) fn find(&self, id: LetterId) -> Option<Position> {
        self.letters.get(&id).map(|known| known.position)
    }

    /// The letters behind this position, at most so many.
    pub(crate) fn after(&self, after: Option<Position>, limit: usize) -> Vec<(LetterId, Known)> {
        let from = after.map_or(0, |after| after.0.saturating_add(1));
        let ids = self.live.range(Position(from)..).take(limit).map(|(_, id)| id);
        ids.filter_map(|id| Some((*id, *self.letters.get(id)?))).collect()
    }

    pub(crate) fn len(&self) -> u64 {
        self.live.len() as u64
    }

    /// A letter that this process has written.
    pub(crate) fn remember(&mut self, id: LetterId, at: Place, arrived: Uuid) {
        if self.letters.contains_key(&id) {
            return self.updated(id, at);
        }
        let position = self.next();
        self.put(id, Known { position, arrived, newest: at });
        self.recent.push_back(id);
        if self.recent.len() > REMEMBERED
            && let Some(oldest) = self.recent.pop_front()
        {
            self.settled(oldest);
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

    fn read(records: &[(u128, Place, Arrival)]) -> Found {
        let mut found = Found::default();
        records.iter().for_each(|(number, at, arrival)| found.letter(id(*number), *at, *arrival));
        found
    }

    fn indexed(records: &[(u128, Place, Arrival)]) -> Index {
        let mut index = Index::default();
        index.take(read(records));
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
        assert_eq!(order(&indexed(&[a, b])), [1, 2], "of one moment, by their ids");
    }

    #[test]
    fn positions_stay_while_order_does() {
        let mut index = indexed(&[(1, (0, 0), first(10)), (2, (0, 1), first(20))]);
        let before = index.after(None, 9)[1].1.position;
        index.take(read(&[(2, (0, 1), first(20)), (3, (0, 2), first(30))]));
        assert_eq!(index.find(id(2)), Some(before));
        index.take(read(&[(2, (0, 1), first(20)), (3, (0, 2), first(30)), (4, (1, 0), first(15))]));
        assert_eq!(order(&index), [4, 2, 3]);
        assert!(index.find(id(2)) > Some(before));
        assert_eq!(index.at(before).map(|(id, _)| id), Some(id(2)), "as whoever read it before calls it");
    }

    #[test]
    fn late_arrivals_wait_for_the_next_reading() {
        let mut found = read(&[(1, (0, 0), first(10)), (3, (1, 0), first(30))]);
        let last = found.last();
        found.letter(id(2), (0, 1), first(20));
        found.letter(id(4), (1, 1), first(40));
        found.until(last);
        let mut index = Index::default();
        index.take(found);
        assert_eq!(order(&index), [1, 2, 3]);
    }

    #[test]
    fn settled_letters_are_gone() {
        let mut index = indexed(&[(1, (0, 0), first(10)), (2, (0, 1), first(20))]);
        assert!(index.settled(id(1)) && !index.settled(id(1)));
        assert_eq!((order(&index), index.len()), (vec![2], 1));
    }
}
