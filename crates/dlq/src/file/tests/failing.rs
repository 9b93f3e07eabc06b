//! Failing disks: the file has exactly the letters that were reported, and nothing is written during a pause.

use std::sync::Arc;
use std::time::Duration;

use super::disk::Disk;
use super::{all, at, letter, on_new_disk, open_disk, without_pause};
use crate::file::{FileStore, FileStoreOptions};
use crate::letter::Letter;
use crate::limits::Limits;
use crate::store::DeadLetterStore;
use crate::store_error::{AppendError, StoreError};

/// Appends ten times, and returns the letters that were reported as taken.
fn appends(store: &FileStore) -> Vec<Letter> {
    let mut taken = Vec::new();
    for round in 0..10 {
        let letters: Vec<Letter> = (0..=round * 2).map(|n| letter(format!("{round}-{n}"), 300)).collect();
        if store.append_at(&letters, at(round)).is_ok() {
            taken.extend(letters);
        }
    }
    taken
}

#[test]
fn failed_step_keeps_reported_letters() {
    let (whole, store) = on_new_disk(Limits::default());
    let begun = whole.steps();
    let every = appends(&store).len();
    let (steps, mut failed) = (whole.steps(), 0);
    drop(store);
    for step in begun + 1..=steps {
        let (disk, store) = on_new_disk(Limits::default());
        disk.fail_at(step);
        let taken = appends(&store);
        assert_eq!(all(&store), taken, "step {step}");
        assert_eq!(store.len(), taken.len() as u64, "step {step}");
        failed += usize::from(taken.len() < every);
        drop(store);
        assert_eq!(all(&open_disk(&disk, without_pause()).unwrap()), taken, "step {step}, opened again");
    }
    assert!(failed > 20, "{failed} of {steps} steps made an append fail");
}

#[test]
fn failed_append_keeps_earlier_letter() {
    let (disk, store) = on_new_disk(Limits::default());
    let (old, new) = (letter("old", 10), letter("new", 10));
    store.append(std::slice::from_ref(&old)).unwrap();
    disk.fail_at(disk.steps() + 1);
    store.append(&[old.clone(), new.clone()]).unwrap_err();
    assert_eq!(all(&store), [old]);
}

/// Opens a store whose pause never ends.
fn open_without_retry(disk: &Arc<Disk>) -> FileStore {
    let options = FileStoreOptions { retry_pause: Duration::MAX, ..FileStoreOptions::default() };
    open_disk(disk, options).unwrap()
}

#[test]
fn pause_spares_the_full_disk() {
    let disk = Arc::new(Disk::default());
    let store = open_without_retry(&disk);
    store.append(&[letter("kept", 10)]).unwrap();
    disk.set_full(true);
    let error = store.append(&[letter("refused", 10)]).unwrap_err();
    assert!(matches!(error, AppendError::Store(StoreError::Io { .. })), "{error}");
    disk.set_full(false);
    let steps = disk.steps();
    let error = store.append(&[letter("refused", 10), letter("too", 10)]).unwrap_err();
    assert!(matches!(error, AppendError::Store(StoreError::Latched { .. })), "{error}");
    assert_eq!(disk.steps(), steps, "the disk was not touched");
    let stats = store.stats().unwrap();
    assert_eq!((stats.letters, stats.refused), (1, 3));
    assert_eq!(stats.latched.as_deref(), Some("no storage space"));
    drop(store);
    assert_eq!(all(&open_without_retry(&disk)).len(), 1);
}

#[test]
fn latched_store_is_readable() {
    let disk = Arc::new(Disk::default());
    let store = open_without_retry(&disk);
    let kept = letter("kept", 10);
    store.append(std::slice::from_ref(&kept)).unwrap();
    disk.fail_at(disk.steps() + 1);
    store.append(&[letter("refused", 10)]).unwrap_err();
    assert_eq!(all(&store), std::slice::from_ref(&kept));
    assert_eq!(store.find(&[kept.id]).unwrap().len(), 1);
    let steps = disk.steps();
    let error = store.append(&[letter("refused", 10)]).unwrap_err();
    assert!(matches!(error, AppendError::Store(StoreError::Latched { .. })), "{error}");
    assert_eq!(disk.steps(), steps, "opened for reading, and not written");
}

#[test]
fn next_write_ends_the_latch() {
    let disk = Arc::new(Disk::default());
    let store = open_disk(&disk, without_pause()).unwrap();
    store.append(&[letter("first", 10)]).unwrap();
    disk.set_full(true);
    for _ in 0..3 {
        store.append(&[letter("refused", 10)]).unwrap_err();
    }
    assert!(store.stats().unwrap().latched.is_some());
    disk.set_full(false);
    store.remove(&[]).unwrap();
    assert!(store.stats().unwrap().latched.is_some(), "nothing was written yet");
    store.append(&[letter("second", 10)]).unwrap();
    assert_eq!(store.stats().unwrap().latched, None);
    assert_eq!(all(&store).len(), 2);
}
