//! Compares the memory store and the file store with a plain model: a list that is searched from the front.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;

use crate::file::tests::{Disk, on_new_disk, reopen_disk};
use crate::held::{Held, Position};
use crate::letter::{Letter, LetterId};
use crate::limits::{Limits, Overflow};
use crate::memory::MemoryStore;
use crate::store::{Appended, DeadLetterStore};
use crate::store_error::{AppendError, StoreError};
use crate::{FileStore, Uuid};

#[derive(Clone, Debug)]
enum StoreStep {
    /// The letters by number, with the bytes of their values.
    Append(Vec<(u8, u16)>),
    /// The n-th letters modulo the store's size, and one that does not exist.
    Remove(Vec<usize>),
    Update(Vec<usize>, u32),
    Expire,
    /// The wall clock moves forward or back.
    Clock(i8),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<StoreStep>> {
    let some = || prop::collection::vec(0..20_usize, 0..4);
    let step = prop_oneof![
        4 => prop::collection::vec((any::<u8>(), 0..2000_u16), 0..6).prop_map(StoreStep::Append),
        2 => some().prop_map(StoreStep::Remove),
        2 => (some(), any::<u32>()).prop_map(|(which, count)| StoreStep::Update(which, count)),
        1 => Just(StoreStep::Expire),
        2 => any::<i8>().prop_map(StoreStep::Clock),
        1 => Just(StoreStep::Reopen),
    ];
    prop::collection::vec(step, 0..40)
}

fn limits() -> impl Strategy<Value = Limits> {
    let letters = prop::option::of(0..12_u64);
    let bytes = prop::option::of(500..15_000_u64);
    let age = prop::option::of((0..100_u64).prop_map(Duration::from_secs));
    (letters, bytes, age, any::<bool>()).prop_map(|(max_letters, max_bytes, max_age, refuse)| Limits {
        max_letters,
        max_bytes,
        max_age,
        overflow: if refuse { Overflow::Refuse } else { Overflow::DropOldest },
    })
}

fn letter(number: u8, bytes: u16) -> Letter {
    let value = bytes::Bytes::from(vec![b'1'; bytes.into()]);
    let mut letter = Letter::new("t", value, number.to_string(), Timestamp::UNIX_EPOCH);
    letter.id = LetterId::from(Uuid::from_u128(number.into()));
    letter
}

/// The bytes that a letter takes in a file.
fn file_bytes(letter: &Letter) -> u64 {
    letter.to_json().unwrap().len() as u64 + 13
}

/// The plain model of a store.
struct Model {
    limits: Limits,
    size: fn(&Letter) -> u64,
    held: Vec<(Held, Timestamp)>,
    next: u64,
}

impl Model {
    fn bytes(&self) -> u64 {
        self.held.iter().map(|(held, _)| (self.size)(&held.letter)).sum()
    }

    fn over(&self) -> bool {
        self.limits.max_letters.is_some_and(|most| self.held.len() as u64 > most)
            || self.limits.max_bytes.is_some_and(|most| self.bytes() > most)
    }

    fn expire(&mut self, now: Timestamp) -> usize {
        let Some(age) = self.limits.max_age else { return 0 };
        let before = self.held.len();
        self.held.retain(|(_, arrived)| now.duration_since(*arrived) < jiff::SignedDuration::try_from(age).unwrap());
        before - self.held.len()
    }

    /// Returns `None` if the letters are refused.
    fn append(&mut self, letters: &[Letter], now: Timestamp) -> Option<Appended> {
        let mut dropped = self.expire(now);
        let before = (self.held.clone(), self.next);
        let mut ids: HashSet<_> = self.held.iter().map(|(held, _)| held.letter.id).collect();
        let arrived = self.held.last().map_or(now, |(_, last)| now.max(*last));
        let fresh: Vec<Letter> = letters.iter().filter(|letter| ids.insert(letter.id)).cloned().collect();
        let too_large = fresh.iter().any(|letter| self.limits.max_bytes.is_some_and(|most| (self.size)(letter) > most));
        let taken = fresh.len();
        for letter in fresh {
            self.held.push((Held::new(Position(self.next), letter), arrived));
            self.next += 1;
        }
        if too_large || self.limits.overflow == Overflow::Refuse && taken > 0 && self.over() {
            (self.held, self.next) = before;
            return None;
        }
        while self.limits.overflow == Overflow::DropOldest && self.over() {
            self.held.remove(0);
            dropped += 1;
        }
        Some(Appended { taken: taken as u64, known: (letters.len() - taken) as u64, dropped: dropped as u64 })
    }

    fn at(&self, which: &[usize]) -> Vec<Held> {
        let known = which.iter().filter_map(|n| self.held.get(n % self.held.len().max(1)));
        known.map(|(held, _)| held.clone()).collect()
    }
}

/// A store with a clock that the test sets.
trait Timed: DeadLetterStore {
    fn append_when(&self, letters: &[Letter], now: Timestamp) -> Result<Appended, AppendError>;
    fn expire_when(&self, now: Timestamp) -> Result<usize, StoreError>;
}

impl Timed for MemoryStore {
    fn append_when(&self, letters: &[Letter], now: Timestamp) -> Result<Appended, AppendError> {
        self.append_at(letters, now)
    }

    fn expire_when(&self, now: Timestamp) -> Result<usize, StoreError> {
        Ok(self.expire_at(now))
    }
}

impl Timed for FileStore {
    fn append_when(&self, letters: &[Letter], now: Timestamp) -> Result<Appended, AppendError> {
        self.append_at(letters, now)
    }

    fn expire_when(&self, now: Timestamp) -> Result<usize, StoreError> {
        self.expire_at(now)
    }
}

fn run<S: Timed>(
    mut store: S,
    reopen: impl Fn(S) -> S,
    mut model: Model,
    steps: Vec<StoreStep>,
) -> Result<(), TestCaseError> {
    let mut now = Timestamp::from_second(1_700_000_000).unwrap();
    for step in steps {
        match step {
            StoreStep::Append(numbers) => {
                let letters: Vec<Letter> = numbers.iter().map(|(number, bytes)| letter(*number, *bytes)).collect();
                prop_assert_eq!(store.append_when(&letters, now).ok(), model.append(&letters, now));
            }
            StoreStep::Remove(which) => {
                let mut positions: Vec<Position> = model.at(&which).iter().map(|held| held.position).collect();
                let before = model.held.len();
                model.held.retain(|(held, _)| !positions.contains(&held.position));
                positions.push(Position(model.next));
                prop_assert_eq!(store.remove(&positions).unwrap(), before - model.held.len());
            }
            StoreStep::Update(which, count) => {
                let mut changed = model.at(&which);
                changed.iter_mut().for_each(|held| held.letter.replay_count = count);
                for (held, _) in &mut model.held {
                    held.letter = changed.iter().find(|c| c.position == held.position).unwrap_or(held).letter.clone();
                }
                let all = changed.len();
                changed.push(Held::new(Position(model.next), letter(0, 0)));
                prop_assert_eq!(store.update(&changed).unwrap(), all);
            }
            StoreStep::Expire => prop_assert_eq!(store.expire_when(now).unwrap(), model.expire(now)),
            StoreStep::Clock(seconds) => now += jiff::SignedDuration::from_secs(seconds.into()),
            StoreStep::Reopen => store = reopen(store),
        }
        compare(&store, &model)?;
    }
    Ok(())
}

fn compare(store: &dyn DeadLetterStore, model: &Model) -> Result<(), TestCaseError> {
    let held: Vec<Held> = model.held.iter().map(|(held, _)| held.clone()).collect();
    prop_assert_eq!(&store.scan(None, usize::MAX).unwrap(), &held);
    let ids: Vec<LetterId> = (0..=255_u128).map(|number| LetterId::from(Uuid::from_u128(number))).collect();
    let found: Vec<Position> = store.find(&ids).unwrap().into_iter().flatten().collect();
    prop_assert_eq!(found.len(), held.len());
    prop_assert!(held.iter().all(|held| found.contains(&held.position)));
    let stats = store.stats().unwrap();
    prop_assert_eq!((stats.letters, stats.bytes), (held.len() as u64, model.bytes()));
    prop_assert_eq!(stats.oldest, model.held.first().map(|(_, arrived)| *arrived));
    Ok(())
}

/// Updates make a store larger than its limit, and then a letter is refused because it alone exceeds the limit.
fn refused_after_growth(store: &dyn DeadLetterStore, limit: u64) {
    store.append(&[letter(0, 400), letter(1, 400)]).unwrap();
    let mut held = store.scan(None, usize::MAX).unwrap();
    for held in &mut held {
        held.letter.failure_reason = "r".repeat(200);
    }
    assert_eq!(store.update(&held).unwrap(), 2);
    assert!(store.stats().unwrap().bytes > limit);
    assert!(matches!(store.append(&[letter(2, 2000)]), Err(AppendError::TooLarge { .. })));
    assert_eq!(store.scan(None, usize::MAX).unwrap(), held, "no letter made room for one that was not taken");
    assert_eq!(store.stats().unwrap().dropped, 0);
}

#[test]
fn refused_letter_drops_no_other() {
    let ring = |max_bytes| Limits { max_bytes: Some(max_bytes), ..Limits::default() };
    let memory = letter(0, 400).memory_bytes() * 2;
    refused_after_growth(&MemoryStore::with_limits(Limits { overflow: Overflow::DropOldest, ..ring(memory) }), memory);
    let file = file_bytes(&letter(0, 400)) * 2;
    let (_disk, store) = on_new_disk(Limits { overflow: Overflow::DropOldest, ..ring(file) });
    refused_after_growth(&store, file);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn memory_store_matches_the_model(limits in limits(), steps in steps()) {
        let model = Model { limits: limits.clone(), size: Letter::memory_bytes, held: Vec::new(), next: 0 };
        run(MemoryStore::with_limits(limits), |store| store, model, steps)?;
    }

    #[test]
    fn file_store_matches_the_model(limits in limits(), steps in steps()) {
        let model = Model { limits: limits.clone(), size: file_bytes, held: Vec::new(), next: 0 };
        let (disk, store): (Arc<Disk>, FileStore) = on_new_disk(limits.clone());
        let reopen = |store: FileStore| {
            drop(store);
            reopen_disk(&disk, limits.clone())
        };
        run(store, reopen, model, steps)?;
    }
}
