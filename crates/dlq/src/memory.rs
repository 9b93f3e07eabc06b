//! A dead-letter store in memory: a bounded ring, lost when the process ends.
//!
//! Rules:
//! - The store has limits on letters and bytes. Letters have memory separate from the producer's buffers.
//! - A letter that is dropped to make room is counted, and logged whole as an error.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::held::{Held, Position};
use crate::letter::{Letter, LetterId};
use crate::limits::{Limits, Overflow, Totals};
use crate::loss_log;
use crate::replay_guard::{BeginReplayError, ReplayGuard, ReplaySlot};
use crate::store::{Appended, DeadLetterStore, SCAN_BYTES, StoreStats};
use crate::store_error::{AppendError, StoreError};

/// Dead letters in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    limits: Limits,
    ring: Mutex<Ring>,
    replay: ReplaySlot,
}

impl MemoryStore {
    /// Default limit of letters.
    pub const DEFAULT_LETTERS: u64 = 1000;
    /// Default limit of the letters' memory, in bytes.
    pub const DEFAULT_BYTES: u64 = 64 * 1024 * 1024;

    /// Creates a ring of at most `letters` letters and [`MemoryStore::DEFAULT_BYTES`]. A full ring drops its oldest letters.
    pub fn new(letters: u64) -> Self {
        let max_bytes = Some(Self::DEFAULT_BYTES);
        Self::with_limits(Limits {
            max_letters: Some(letters),
            max_bytes,
            max_age: None,
            overflow: Overflow::DropOldest,
        })
    }

    /// Creates a store with these limits. Bytes are those of [`Letter::memory_bytes`].
    pub fn with_limits(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Returns the number of letters.
    pub fn len(&self) -> u64 {
        self.ring.lock().totals.letters
    }

    /// Returns whether the store has no letters.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn append_at(&self, letters: &[Letter], now: Timestamp) -> Result<Appended, AppendError> {
        let (taken, expired, dropped) = {
            let mut ring = self.ring.lock();
            let expired = ring.expire(&self.limits, now);
            let taken = ring.take(self.name(), &self.limits, letters, now);
            // Letters that are refused make no room: they would drop others for nothing.
            let dropped = if taken.is_ok() { ring.drop_excess(&self.limits) } else { Vec::new() };
            (taken, expired, dropped)
        };
        loss_log::expired(self.name(), &expired);
        loss_log::dropped(self.name(), &dropped);
        let dropped = (expired.len() + dropped.len()) as u64;
        taken.map(|taken| Appended { taken, known: letters.len() as u64 - taken, dropped })
    }

    pub(crate) fn expire_at(&self, now: Timestamp) -> usize {
        let expired = self.ring.lock().expire(&self.limits, now);
        loss_log::expired(self.name(), &expired);
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
    letters: BTreeMap<Position, StoredLetter>,
    by_id: HashMap<LetterId, Position>,
    totals: Totals,
    next: u64,
    stats: StoreStats,
}

#[derive(Debug)]
struct StoredLetter {
    letter: Letter,
    bytes: u64,
    arrived: Timestamp,
}

impl Ring {
    /// Takes the letters that are new, and returns their number.
    fn take(&mut self, store: &str, limits: &Limits, letters: &[Letter], now: Timestamp) -> Result<u64, AppendError> {
        let mut ids = HashSet::new();
        let fresh: Vec<&Letter> =
            letters.iter().filter(|l| !self.by_id.contains_key(&l.id) && ids.insert(l.id)).collect();
        if let Err(excess) = limits.admit(self.totals, fresh.iter().map(|letter| (letter.id, letter.memory_bytes()))) {
            self.stats.refused += letters.len() as u64;
            return Err(excess.explain(store, self.totals));
        }
        // A clock that is set back makes no letter older than an earlier one.
        let arrived = self.letters.values().next_back().map_or(now, |last| now.max(last.arrived));
        for letter in &fresh {
            let (position, bytes) = (Position(self.next), letter.memory_bytes());
            self.next += 1;
            self.totals.add(bytes);
            self.by_id.insert(letter.id, position);
            self.letters.insert(position, StoredLetter { letter: (*letter).clone(), bytes, arrived });
        }
        self.stats.appended += fresh.len() as u64;
        Ok(fresh.len() as u64)
    }

    fn expire(&mut self, limits: &Limits, now: Timestamp) -> Vec<Letter> {
        let Some(oldest) = limits.expired_at(now) else { return Vec::new() };
        let dropped = self.pop_while(|ring| ring.letters.values().next().is_some_and(|slot| slot.arrived <= oldest));
        self.stats.expired += dropped.len() as u64;
        dropped
    }

    fn drop_excess(&mut self, limits: &Limits) -> Vec<Letter> {
        if limits.overflow == Overflow::Refuse {
            return Vec::new();
        }
        let dropped = self.pop_while(|ring| limits.exceeded(ring.totals));
        self.stats.dropped += dropped.len() as u64;
        dropped
    }

    fn pop_while(&mut self, more: impl Fn(&Self) -> bool) -> Vec<Letter> {
        let mut dropped = Vec::new();
        while more(self) {
            let Some(first) = self.letters.keys().next().copied() else { break };
            dropped.extend(self.remove(first));
        }
        dropped
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
    fn full_ring_drops_the_oldest() {
        let store = MemoryStore::new(2);
        assert_eq!(store.append(&["a", "b", "c"].map(letter)).unwrap(), Appended { taken: 3, known: 0, dropped: 1 });
        assert_eq!(store.append(&[letter("d")]).unwrap().dropped, 1);
        assert_eq!(reasons(&store), ["c", "d"]);
        let stats = store.stats().unwrap();
        assert_eq!((stats.letters, stats.appended, stats.dropped), (2, 4, 2));
    }

    #[test]
    fn refusing_store_is_atomic() {
        let store = MemoryStore::with_limits(Limits { max_letters: Some(2), ..Limits::default() });
        store.append(&[letter("a")]).unwrap();
        let error = store.append(&["b", "c"].map(letter)).unwrap_err();
        assert!(matches!(error, AppendError::Full { letters: 1, .. }), "{error}");
        assert_eq!(reasons(&store), ["a"]);
        assert_eq!(store.stats().unwrap().refused, 2);
    }

    #[test]
    fn oversized_letter_is_named() {
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
    fn repeated_append_keeps_one_letter() {
        let (store, letter) = (MemoryStore::default(), letter("a"));
        let twice = [letter.clone(), letter.clone()];
        assert_eq!(store.append(&twice).unwrap(), Appended { taken: 1, known: 1, dropped: 0 });
        assert_eq!(store.append(&twice).unwrap(), Appended { taken: 0, known: 2, dropped: 0 });
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn old_letters_expire_without_appends() {
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
    fn update_never_inserts() {
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
    fn removed_letters_are_not_found() {
        let (store, letter) = (MemoryStore::default(), letter("a"));
        store.append(std::slice::from_ref(&letter)).unwrap();
        let position = store.find(&[letter.id, LetterId::new()]).unwrap();
        assert_eq!(position, [Some(Position(0)), None]);
        store.remove(&[Position(0)]).unwrap();
        assert_eq!(store.find(&[letter.id]).unwrap(), [None]);
    }

    #[test]
    fn one_replay_at_a_time() {
        let store = MemoryStore::default();
        let guard = store.begin_replay().unwrap();
        assert!(matches!(store.begin_replay(), Err(BeginReplayError::Busy { .. })));
        drop(guard);
        drop(store.begin_replay().unwrap());
    }

    #[test]
    fn selection_keeps_order_across_pages() {
        let store = MemoryStore::new(10_000);
        let all: Vec<Letter> = (0..5_000).map(|n| letter(if n % 2 == 0 { "even" } else { "odd" })).collect();
        store.append(&all).unwrap();
        let selection = Selection { reason: Some("odd".into()), ..Selection::default() };
        let ids: Vec<LetterId> = letters(&store, &selection).map(|held| held.unwrap().letter.id).collect();
        assert_eq!(ids, all.iter().skip(1).step_by(2).map(|letter| letter.id).collect::<Vec<_>>());
    }

    #[test]
    fn page_ends_at_its_bytes() {
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
