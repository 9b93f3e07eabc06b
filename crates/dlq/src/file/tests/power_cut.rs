//! Power goes at every single step of a day's work, and of the recovery after it: what was reported is there, once.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::disk::Disk;
use super::{all, at, eager, letter, on};
use crate::file::FileStore;
use crate::letter::{Letter, LetterId};
use crate::store::{DeadLetterStore, Held};

/// What is there for certain, and what may be instead, because the power went before it was reported.
#[derive(Default)]
struct Ledger {
    certain: BTreeMap<LetterId, Letter>,
    maybe: Option<BTreeMap<LetterId, Letter>>,
}

impl Ledger {
    /// Whether the change was reported.
    fn change<E>(
        &mut self,
        change: impl FnOnce(&mut BTreeMap<LetterId, Letter>),
        does: impl FnOnce() -> Result<(), E>,
    ) -> bool {
        let mut after = self.certain.clone();
        change(&mut after);
        match does() {
            Ok(()) => self.certain = after,
            Err(_) => self.maybe = Some(after),
        }
        self.maybe.is_none()
    }

    fn check(&self, store: &FileStore, context: &str) {
        let letters = all(store);
        assert_eq!(letters.len() as u64, store.len(), "{context}");
        let found: BTreeMap<LetterId, Letter> = letters.iter().map(|letter| (letter.id, letter.clone())).collect();
        assert_eq!(found.len(), letters.len(), "twice: {context}");
        let allowed = found == self.certain || self.maybe.as_ref() == Some(&found);
        assert!(allowed, "{context}: {} letters found, {} reported", found.len(), self.certain.len());
    }
}

/// Appends of many sizes, corrections, removals: until the power goes.
fn work(disk: &Arc<Disk>) -> Ledger {
    let mut ledger = Ledger::default();
    let Ok(store) = on(disk, eager()) else { return ledger };
    for round in 0..5_usize {
        let letters: Vec<Letter> = (0..=round * 3).map(|n| letter(format!("{round}-{n}"), round * 400)).collect();
        let appended = ledger.change(
            |held| held.extend(letters.iter().map(|letter| (letter.id, letter.clone()))),
            || store.append_at(&letters, at(round as i64)).map(drop),
        );
        if !appended || !correct(&store, &mut ledger, round) {
            break;
        }
    }
    ledger
}

fn correct(store: &FileStore, ledger: &mut Ledger, round: usize) -> bool {
    let Ok(mut page) = store.scan(None, round) else { return false };
    page.iter_mut().for_each(|held| held.letter.replay_count += 1);
    let changed = page.iter().map(|held| (held.letter.id, held.letter.clone()));
    if !ledger.change(|held| held.extend(changed), || store.update(&page).map(drop)) {
        return false;
    }
    let gone: Vec<&Held> = page.iter().step_by(2).collect();
    let positions: Vec<_> = gone.iter().map(|held| held.position).collect();
    ledger.change(
        |held| held.retain(|id, _| gone.iter().all(|gone| gone.letter.id != *id)),
        || store.remove(&positions).map(drop),
    )
}

/// A disk with an empty store on it: a file gets its name no earlier.
fn new_disk() -> Arc<Disk> {
    let disk = Arc::new(Disk::default());
    drop(on(&disk, eager()).unwrap());
    Disk::of(disk.image())
}

#[test]
fn what_was_reported_survives_a_power_cut_at_any_step() {
    let whole = new_disk();
    work(&whole).check(&on(&whole, eager()).unwrap(), "no cut");
    let steps = whole.steps();
    assert!(steps > 80, "{steps} steps");
    for cut in 1..=steps {
        let disk = new_disk();
        disk.cut_at(cut);
        let ledger = work(&disk);
        for seed in 0..3 {
            let context = format!("cut at step {cut} of {steps}, seed {seed}");
            let store = on(&disk.after_cut(seed), eager()).unwrap_or_else(|error| panic!("{context}: {error}"));
            ledger.check(&store, &context);
            store.append(&[letter("after", 1)]).unwrap();
            assert_eq!(all(&store).last().unwrap().failure_reason, "after", "{context}");
        }
    }
}

#[test]
fn what_was_reported_survives_a_power_cut_during_the_recovery_from_one() {
    let (mut cuts, whole) = (0, new_disk());
    work(&whole);
    for cut in (1..=whole.steps()).step_by(9) {
        let disk = new_disk();
        disk.cut_at(cut);
        let ledger = work(&disk);
        for step in 1.. {
            let recovering = disk.after_cut(cut);
            recovering.cut_at(step);
            if on(&recovering, eager()).is_ok_and(|store| !all(&store).is_empty() || ledger.certain.is_empty()) {
                break;
            }
            cuts += 1;
            let context = format!("cut at step {cut}, then at step {step} of the recovery");
            let store = on(&recovering.after_cut(step), eager()).unwrap_or_else(|error| panic!("{context}: {error}"));
            ledger.check(&store, &context);
        }
    }
    assert!(cuts > 20, "{cuts}");
}

#[test]
fn a_power_cut_while_the_file_is_made_small_loses_nothing() {
    let whole = Arc::new(Disk::default());
    let (small, large) = (letter("small", 10), (0..6).map(|n| letter(n, 1_000_000)).collect::<Vec<_>>());
    let store = on(&whole, eager()).unwrap();
    store.append(&large).unwrap();
    store.append(std::slice::from_ref(&small)).unwrap();
    let ids: Vec<LetterId> = large.iter().map(|letter| letter.id).collect();
    let positions: Vec<_> = store.find(&ids).unwrap().into_iter().flatten().collect();
    assert_eq!(store.remove(&positions).unwrap(), 6);
    // As a kill leaves it: closing makes it smaller too.
    let before = whole.image();
    assert!(before.len() > 4 * 1024 * 1024);
    let mut cuts = 0;
    for step in (1..).step_by(3) {
        let disk = Disk::of(before.clone());
        disk.cut_at(step);
        drop(on(&disk, eager()));
        let store = on(&disk.after_cut(step), eager()).unwrap_or_else(|error| panic!("step {step}: {error}"));
        assert_eq!(all(&store), std::slice::from_ref(&small), "step {step}");
        if disk.steps() < step {
            assert!(disk.image().len() < before.len() / 2, "{} of {} bytes, {cuts}", disk.image().len(), before.len());
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 3, "{cuts}");
}
