//! Letters in memory: a bounded ring. What it holds ends with the process.
//!
//! - At most so many letters and so many bytes, from the first one on: letters have memory of their own.
//! - What is dropped to make room is counted, and said whole in an error log line: nothing goes in silence.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::letter::{Letter, LetterId};
use crate::limits::{Limits, Overflow, Totals};
use crate::lost;
use crate::replay_guard::{BeginReplayError, ReplayGuard, ReplaySlot};
use crate::store::{AppendError, Appended, DeadLetterStore, Held, Position, SCAN_BYTES, StoreError, StoreStats};

/// Dead letters in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    limits: Limits,
    ring: Mutex<Ring>,
    replay: ReplaySlot,
}

impl MemoryStore {
    /// How many letters it holds unless told otherwise.
    pub const DEFAULT_LETTERS: u64 = 1000;
    /// How many bytes of memory its letters may take unless told otherwise.
    pub const DEFAULT_BYTES: u64 = 64 * 1024 * 1024;

    /// A ring of so many letters, and of [`MemoryStore::DEFAULT_BYTES`]; the oldest go when it is full.
    pub fn new(letters: u64) -> Self {
        let max_bytes = Some(Self::DEFAULT_BYTES);
        Self::with_limits(Limits {
            max_letters: Some(letters),
            max_bytes,
            max_age: None,
            overflow: Overflow::DropOldest,
        })
    }

    /// A store with these limits. Bytes are those of [`Letter::memory_bytes`].
    pub fn with_limits(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// How many letters it holds.
    pub fn len(&self) -> u64 {
        self.ring.lock().totals.letters
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn append_at(&self, letters: &[Letter], now: Timestamp) -> Result<Appended, AppendError> {
        let (taken, expired, dropped) = {
            let mut ring = self.ring.lock();
            let expired = ring.expire(&self.limits, now);
            let taken = ring.take(self.name(), &self.limits, letters, now);
            let dropped = ring.drop_excess(&self.limits);
            (taken, expired, dropped)
        };
        lost::expired(self.name(), &expired);
        lost::dropped(self.name(), &dropped);
        let gone = (expired.len() + dropped.len()) as u64;
        taken.map(|taken| Appended { taken, known: letters.len() as u64 - taken, dropped: gone })
    }

    pub(crate) fn expire_at(&self, now: Timestamp) -> usize {
        let expired = self.ring.lock().expire(&self.limits, now);
        lost::expired(self.name(), &expired);
        expired.len()
    }
}

impl DeadLetterStore for MemoryStore {
    fn name(&self) -> &str {
        "memory"
    }

    fn append(&self, letters: &[Letter]) -> Result<Appended, AppendError> {
        self.append_at(letters, Timestamp::now())
    }

    fn scan(&self, after: Option<Position>, limit: usize) -> Result<Vec<Held>, StoreError> {
        Ok(self.ring.lock().scan(after, limit))
    }

    fn remove(&self, positions: &[Position]) -> Result<usize, StoreError> {
        let mut ring = self.ring.lock();
        let removed = positions.iter().filter(|position| ring.remove(**position).is_some()).count();
        ring.stats.removed += removed as u64;
        Ok(removed)
    }

    fn update(&self, changed: &[Held]) -> Result<usize, StoreError> {
        let mut ring = self.ring.lock();
        Ok(changed.iter().filter(|held| ring.replace(held)).count())
    }

    fn find(&self, ids: &[LetterId]) -> Result<Vec<Option<Position>>, StoreError> {
        let ring = self.ring.lock();
        Ok(ids.iter().map(|id| ring.by_id.get(id).copied()).collect())
    }

    fn expire(&self) -> Result<usize, StoreError> {
        Ok(self.expire_at(Timestamp::now()))
    }

    fn stats(&self) -> Result<StoreStats, StoreError> {
        let ring = self.ring.lock();
        let oldest = ring.letters.values().next().map(|slot| slot.arrived);
        Ok(StoreStats { letters: ring.totals.letters, bytes: ring.totals.bytes, oldest, ..ring.stats.clone() })
    }

    fn begin_replay(&self) -> Result<ReplayGuard, BeginReplayError> {
        self.replay.claim(self.name())
    }
}

#[derive(Debug, Default)]
struct Ring {
    letters: BTreeMap<Position, Slot>,
    by_id: HashMap<LetterId, Position>,
    totals: Totals,
    next: u64,
    stats: StoreStats,
}

#[derive(Debug)]
struct Slot {
    letter: Letter,
    bytes: u64,
    arrived: Timestamp,
}

impl Ring {
    /// How many letters were new.
    fn take(&mut self, store: &str, limits: &Limits, letters: &[Letter], now: Timestamp) -> Result<u64, AppendError> {
        let mut ids = HashSet::new();
        let fresh: Vec<&Letter> =
            letters.iter().filter(|l| !self.by_id.contains_key(&l.id) && ids.insert(l.id)).collect();
        if let Err(excess) = limits.admit(self.totals, fresh.iter().map(|letter| (letter.id, letter.memory_bytes()))) {
            self.stats.refused += letters.len() as u64;
            return Err(excess.explain(store, self.totals));
        }
        // A clock that is set back makes no letter older than one before it.
        let arrived = self.letters.values().next_back().map_or(now, |last| now.max(last.arrived));
        for letter in &fresh {
            let (position, bytes) = (Position(self.next), letter.memory_bytes());
            self.next += 1;
            self.totals.add(bytes);
            self.by_id.insert(letter.id, position);
            self.letters.insert(position, Slot { letter: (*letter).clone(), bytes, arrived });
        }
        self.stats.appended += fresh.len() as u64;
        Ok(fresh.len() as u64)
    }

    fn expire(&mut self, limits: &Limits, now: Timestamp) -> Vec<Letter> {
        let Some(oldest) = limits.expired_at(now) else { return Vec::new() };
        let gone = self.pop_while(|ring| ring.letters.values().next().is_some_and(|slot| slot.arrived <= oldest));
        self.stats.expired += gone.len() as u64;
        gone
    }

    fn drop_excess(&mut self, limits: &Limits) -> Vec<Letter> {
        if limits.overflow == Overflow::Refuse {
            return Vec::new();
        }
        let gone = self.pop_while(|ring| limits.exceeded(ring.totals));
        self.stats.dropped += gone.len() as u64;
        gone
    }

    fn pop_while(&mut self, more: impl Fn(&Self) -> bool) -> Vec<Letter> {
        let mut gone = Vec::new();
        while more(self) {
            let Some(first) = self.letters.keys().next().copied() else { break };
            gone.extend(self.remove(first));
        }
        gone
    }

    fn remove(&mut self, position: Position) -> Option<Letter> {
        let slot = self.letters.remove(&position)?;
        self.by_id.remove(&slot.letter.id);
        self.totals.take(slot.bytes);
        Some(slot.letter)
    }

    fn replace(&mut self, held: &Held) -> bool {
        let Some(slot) = self.letters.get_mut(&held.position) else { return false };
        if slot.letter.id != held.letter.id {
            return false;
        }
        let bytes = held.letter.memory_bytes();
        self.totals.bytes = self.totals.bytes - slot.bytes + bytes;
        (slot.letter, slot.bytes) = (held.letter.clone(), bytes);
        true
    }

    fn scan(&self, after: Option<Position>, limit: usize) -> Vec<Held> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut page = Vec::new();
        let mut bytes = 0;
        for (position, slot) in self.letters.range((from, Bound::Unbounded)).take(limit) {
            page.push(Held::new(*position, slot.letter.clone()));
            bytes += slot.bytes;
            if bytes >= SCAN_BYTES {
                break;
            }
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::selection::Selection;
    use crate::store::letters;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn letter(reason: &str) -> Letter {
        Letter::new("t", bytes::Bytes::from_static(b"{}"), reason, at(0))
    }

    fn reasons(store: &MemoryStore) -> Vec<String> {
        store.scan(None, usize::MAX).unwrap().into_iter().map(|held| held.letter.failure_reason).collect()
    }

    #[test]
    fn a_full_ring_drops_its_oldest_and_counts_them() {
        let store = MemoryStore::new(2);
        assert_eq!(store.append(&["a", "b", "c"].map(letter)).unwrap(), Appended { taken: 3, known: 0, dropped: 1 });
        assert_eq!(store.append(&[letter("d")]).unwrap().dropped, 1);
        assert_eq!(reasons(&store), ["c", "d"]);
        let stats = store.stats().unwrap();
        assert_eq!((stats.letters, stats.appended, stats.dropped), (2, 4, 2));
    }

    #[test]
    fn a_store_that_refuses_takes_all_or_none() {
        let store = MemoryStore::with_limits(Limits { max_letters: Some(2), ..Limits::default() });
        store.append(&[letter("a")]).unwrap();
        let error = store.append(&["b", "c"].map(letter)).unwrap_err();
        assert!(matches!(error, AppendError::Full { letters: 1, .. }), "{error}");
        assert_eq!(reasons(&store), ["a"]);
        assert_eq!(store.stats().unwrap().refused, 2);
    }

    #[test]
    fn the_letter_that_is_too_large_is_named() {
        let small = letter("small");
        let mut large = letter("large");
        large.value = Some(vec![b'x'; 10_000].into());
        let store = MemoryStore::with_limits(Limits { max_bytes: Some(5_000), ..Limits::default() });
        let error = store.append(&[small.clone(), large.clone()]).unwrap_err();
        assert!(matches!(error, AppendError::TooLarge { id, .. } if id == large.id), "{error}");
        store.append(&[small]).unwrap();
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn a_letter_appended_twice_is_there_once() {
        let (store, letter) = (MemoryStore::default(), letter("a"));
        let twice = [letter.clone(), letter.clone()];
        assert_eq!(store.append(&twice).unwrap(), Appended { taken: 1, known: 1, dropped: 0 });
        assert_eq!(store.append(&twice).unwrap(), Appended { taken: 0, known: 2, dropped: 0 });
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn letters_too_old_go_also_when_none_arrive() {
        let limits = Limits { max_age: Some(Duration::from_secs(60)), ..Limits::default() };
        let store = MemoryStore::with_limits(limits);
        store.append_at(&[letter("a")], at(0)).unwrap();
        store.append_at(&[letter("b")], at(30)).unwrap();
        assert_eq!(store.expire_at(at(59)), 0);
        assert_eq!(store.expire_at(at(60)), 1);
        assert_eq!(reasons(&store), ["b"]);
        assert_eq!(store.append_at(&[letter("c")], at(90)).unwrap().dropped, 1);
        assert_eq!((reasons(&store), store.stats().unwrap().expired), (vec!["c".to_owned()], 2));
    }

    #[test]
    fn a_letter_is_changed_in_place_but_never_put_back() {
        let store = MemoryStore::default();
        store.append(&["a", "b"].map(letter)).unwrap();
        let mut held = store.scan(None, 1).unwrap();
        held[0].letter.replay_count = 1;
        assert_eq!(store.update(&held).unwrap(), 1);
        assert_eq!(store.scan(None, 1).unwrap(), held);
        assert_eq!(store.remove(&[held[0].position, held[0].position]).unwrap(), 1);
        assert_eq!(store.update(&held).unwrap(), 0);
        let other = Held::new(Position(1), letter("c"));
        assert_eq!(store.update(&[other]).unwrap(), 0, "another id");
        assert_eq!(reasons(&store), ["b"]);
    }

    #[test]
    fn letters_are_found_by_id_until_they_go() {
        let (store, letter) = (MemoryStore::default(), letter("a"));
        store.append(std::slice::from_ref(&letter)).unwrap();
        let position = store.find(&[letter.id, LetterId::new()]).unwrap();
        assert_eq!(position, [Some(Position(0)), None]);
        store.remove(&[Position(0)]).unwrap();
        assert_eq!(store.find(&[letter.id]).unwrap(), [None]);
    }

    #[test]
    fn one_replay_runs_at_a_time() {
        let store = MemoryStore::default();
        let guard = store.begin_replay().unwrap();
        assert!(matches!(store.begin_replay(), Err(BeginReplayError::Busy { .. })));
        drop(guard);
        drop(store.begin_replay().unwrap());
    }

    #[test]
    fn the_selected_letters_come_in_order_over_many_pages() {
        let store = MemoryStore::new(10_000);
        let all: Vec<Letter> = (0..5_000).map(|n| letter(if n % 2 == 0 { "even" } else { "odd" })).collect();
        store.append(&all).unwrap();
        let selection = Selection { reason: Some("odd".into()), ..Selection::default() };
        let ids: Vec<LetterId> = letters(&store, &selection).map(|held| held.unwrap().letter.id).collect();
        assert_eq!(ids, all.iter().skip(1).step_by(2).map(|letter| letter.id).collect::<Vec<_>>());
    }

    #[test]
    fn a_page_ends_once_it_has_its_bytes() {
        let store = MemoryStore::with_limits(Limits::default());
        for _ in 0..5 {
            let mut large = letter("large");
            large.value = Some(vec![b'x'; SCAN_BYTES as usize / 2].into());
            store.append(&[large]).unwrap();
        }
        assert_eq!(store.scan(None, 100).unwrap().len(), 2);
        assert_eq!(store.scan(Some(Position(3)), 100).unwrap().len(), 1);
        assert_eq!(store.scan(Some(Position(4)), 100).unwrap().len(), 0);
    }
}
