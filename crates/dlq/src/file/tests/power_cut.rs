//! A power cut at every step of a workload, and of the recovery from a cut: each reported letter is in the file once.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::disk::Disk;
use super::{all, at, letter, open_disk, without_pause};
use crate::file::FileStore;
use crate::held::Held;
use crate::letter::{Letter, LetterId};
use crate::store::DeadLetterStore;

/// The reported content, and the content after a change that a power cut left unreported.
#[derive(Default)]
struct ExpectedLetters {
    certain: BTreeMap<LetterId, Letter>,
    maybe: Option<BTreeMap<LetterId, Letter>>,
}

impl ExpectedLetters {
    /// Makes a change, and returns whether it was reported.
    fn change<E>(
        &mut self,
        change: impl FnOnce(&mut BTreeMap<LetterId, Letter>),
        apply: impl FnOnce() -> Result<(), E>,
    ) -> bool {
        let mut after = self.certain.clone();
        change(&mut after);
        match apply() {
            Ok(()) => self.certain = after,
            Err(_) => self.maybe = Some(after),
        }
        self.maybe.is_none()
    }

    fn check(&self, store: &FileStore, context: &str) {
        let letters = all(store);
        assert_eq!(letters.len() as u64, store.len(), "{context}");
        let found: BTreeMap<LetterId, Letter> = letters.iter().map(|letter| (letter.id, letter.clone())).collect();
        assert_eq!(found.len(), letters.len(), "found twice: {context}");
        let allowed = found == self.certain || self.maybe.as_ref() == Some(&found);
        assert!(allowed, "{context}: {} dead letters found, {} reported", found.len(), self.certain.len());
    }
}

/// Appends, updates and removes letters until the power is cut.
fn work(disk: &Arc<Disk>) -> ExpectedLetters {
    let mut expected = ExpectedLetters::default();
    let Ok(store) = open_disk(disk, without_pause()) else { return expected };
    for round in 0..5_usize {
        let letters: Vec<Letter> = (0..=round * 3).map(|n| letter(format!("{round}-{n}"), round * 400)).collect();
        let appended = expected.change(
            |held| held.extend(letters.iter().map(|letter| (letter.id, letter.clone()))),
            || store.append_at(&letters, at(round as i64)).map(drop),
        );
        if !appended || !update_and_remove(&store, &mut expected, round) {
            break;
        }
    }
    expected
}

fn update_and_remove(store: &FileStore, expected: &mut ExpectedLetters, round: usize) -> bool {
    let Ok(mut page) = store.scan(None, round) else { return false };
    page.iter_mut().for_each(|held| held.letter.replay_count += 1);
    let changed = page.iter().map(|held| (held.letter.id, held.letter.clone()));
    if !expected.change(|held| held.extend(changed), || store.update(&page).map(drop)) {
        return false;
    }
    let removed: Vec<&Held> = page.iter().step_by(2).collect();
    let positions: Vec<_> = removed.iter().map(|held| held.position).collect();
    expected.change(
        |held| held.retain(|id, _| removed.iter().all(|removed| removed.letter.id != *id)),
        || store.remove(&positions).map(drop),
    )
}

/// Returns a disk with an empty store. A file has no name before.
fn new_disk() -> Arc<Disk> {
    let disk = Arc::new(Disk::default());
    drop(open_disk(&disk, without_pause()).unwrap());
    Disk::of(disk.image())
}

#[test]
fn power_cut_keeps_reported_letters() {
    let whole = new_disk();
    work(&whole).check(&open_disk(&whole, without_pause()).unwrap(), "no cut");
    let steps = whole.steps();
    assert!(steps > 80, "{steps} steps");
    for cut in 1..=steps {
        let disk = new_disk();
        disk.cut_at(cut);
        let expected = work(&disk);
        for seed in 0..3 {
            let context = format!("cut at step {cut} of {steps}, seed {seed}");
            let store =
                open_disk(&disk.after_cut(seed), without_pause()).unwrap_or_else(|error| panic!("{context}: {error}"));
            expected.check(&store, &context);
            store.append(&[letter("after", 1)]).unwrap();
            assert_eq!(all(&store).last().unwrap().failure_reason, "after", "{context}");
        }
    }
}

#[test]
fn power_cut_in_recovery_loses_nothing() {
    let (mut cuts, whole) = (0, new_disk());
    work(&whole);
    for cut in (1..=whole.steps()).step_by(9) {
        let disk = new_disk();
        disk.cut_at(cut);
        let expected = work(&disk);
        for step in 1.. {
            let recovering = disk.after_cut(cut);
            recovering.cut_at(step);
            if open_disk(&recovering, without_pause())
                .is_ok_and(|store| !all(&store).is_empty() || expected.certain.is_empty())
            {
                break;
            }
            cuts += 1;
            let context = format!("cut at step {cut}, then at step {step} of the recovery");
            let store = open_disk(&recovering.after_cut(step), without_pause())
                .unwrap_or_else(|error| panic!("{context}: {error}"));
            expected.check(&store, &context);
        }
    }
    assert!(cuts > 20, "{cuts}");
}

#[test]
fn power_cut_in_compaction_loses_nothing() {
    let whole = Arc::new(Disk::default());
    let (small, large) = (letter("small", 10), (0..6).map(|n| letter(n, 1_000_000)).collect::<Vec<_>>());
    let store = open_disk(&whole, without_pause()).unwrap();
    store.append(&large).unwrap();
    store.append(std::slice::from_ref(&small)).unwrap();
    let ids: Vec<LetterId> = large.iter().map(|letter| letter.id).collect();
    let positions: Vec<_> = store.find(&ids).unwrap().into_iter().flatten().collect();
    assert_eq!(store.remove(&positions).unwrap(), 6);
    // The state after a kill: closing the store would compact the file.
    let before = whole.image();
    assert!(before.len() > 4 * 1024 * 1024);
    let mut cuts = 0;
    for step in (1..).step_by(3) {
        let disk = Disk::of(before.clone());
        disk.cut_at(step);
        drop(open_disk(&disk, without_pause()));
        let store =
            open_disk(&disk.after_cut(step), without_pause()).unwrap_or_else(|error| panic!("step {step}: {error}"));
        assert_eq!(all(&store), std::slice::from_ref(&small), "step {step}");
        if disk.steps() < step {
            assert!(disk.image().len() < before.len() / 2, "{} of {} bytes, {cuts}", disk.image().len(), before.len());
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 3, "{cuts}");
}
