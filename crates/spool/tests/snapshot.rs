//! A spool that is read and not opened, also beside a process that writes it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::Cell;
use std::io;
use std::path::Path;

use kafka_courier_spool::core::entry::{BatchHead, Entry, JournalBatch, Ordinal, Partition, TopicNumber};
use kafka_courier_spool::core::ids::SpoolId;
use kafka_courier_spool::disk::{Folder, FolderView, ReadFolder};
use kafka_courier_spool::journal::{Journal, Settings, Snapshot, SnapshotError};

const PARTITION: Partition = Partition { topic: TopicNumber(0), index: 3 };
const SETTINGS: Settings = Settings {
    segment_bytes: 64 * 1024,
    segments_kept: 8,
    max_bytes: 1 << 20,
    keep_free: 0,
    new_spool: SpoolId([9; 16]),
};

fn open(path: &Path) -> Journal<Folder> {
    Journal::open(Folder::open(path).unwrap(), SETTINGS).unwrap().0
}

fn batch(journal: &Journal<Folder>, first: u64) -> Entry {
    let (life, first) = (journal.life(), Ordinal(first));
    let head = BatchHead { partition: PARTITION, life, first, count: 1, notes: (*b"notes").into() };
    Entry::Batch(JournalBatch { head, bytes: (*b"a record batch").into() })
}

fn mark(settled: u64) -> Entry {
    Entry::Mark { partition: PARTITION, settled: Ordinal(settled), end_offset: -1 }
}

/// A folder whose first reads miss a frame, as a read beside a writer can.
struct RacingFolder {
    folder: FolderView,
    /// How many reads of a segment miss the frame.
    misses: Cell<u32>,
    offset: usize,
}

impl ReadFolder for RacingFolder {
    fn list(&self) -> io::Result<Vec<String>> {
        self.folder.list()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = self.folder.read(name)?;
        if self.misses.get() > 0 && name.starts_with("journal-") {
            self.misses.set(self.misses.get() - 1);
            bytes[self.offset..self.offset + 4096].fill(0);
        }
        Ok(bytes)
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.folder.read_at(name, offset, length)
    }
}

/// Returns a folder with four rounds in one segment. The second of them is at `offset`.
fn racing(folder: &Path, misses: u32) -> RacingFolder {
    let mut journal = open(folder);
    for first in 0..4 {
        journal.commit(vec![batch(&journal, first)]).unwrap();
    }
    // The header, two checkpoints, the proof and the first round have one block each.
    RacingFolder { folder: FolderView::new(folder), misses: Cell::new(misses), offset: 5 * 4096 }
}

#[test]
fn snapshot_equals_an_opening() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path());
    journal.commit(vec![batch(&journal, 0), batch(&journal, 1)]).unwrap();
    journal.commit(vec![mark(1)]).unwrap();
    let snapshot = Snapshot::read(FolderView::new(folder.path())).unwrap();
    assert_eq!((snapshot.table(), snapshot.spool()), (journal.table(), journal.spool()));
    let heads: Vec<_> = snapshot.batches().map(|batch| batch.head.clone()).collect();
    assert_eq!(heads, journal.batches().collect::<Vec<_>>());
    assert_eq!(snapshot.segment_count(), journal.segment_count());
    let read = snapshot.batches().map(|batch| snapshot.read_batch(batch).unwrap().bytes);
    assert_eq!(read.collect::<Vec<_>>(), [(*b"a record batch").into()]);
}

#[test]
fn one_missed_frame_is_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = Snapshot::read(racing(folder.path(), 1)).unwrap();
    assert_eq!((snapshot.damage().count(), snapshot.lost().count(), snapshot.batches().count()), (0, 0, 4));
}

#[test]
fn lasting_damage_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = Snapshot::read(racing(folder.path(), u32::MAX)).unwrap();
    let lost: Vec<_> = snapshot.lost().collect();
    assert_eq!((snapshot.damage().count(), lost), (1, vec![(PARTITION, Ordinal(1), Ordinal(2))]));
}

#[test]
fn snapshots_beside_a_writer_are_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path());
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            for first in 0..2000 {
                journal.commit(vec![batch(&journal, first), mark(first.saturating_sub(5))]).unwrap();
            }
        });
        let (mut end, mut read) = (Ordinal(0), 0);
        while !writer.is_finished() || read == 0 {
            match Snapshot::read(FolderView::new(folder.path())) {
                Ok(snapshot) => {
                    let state = snapshot.table().partitions.get(&PARTITION).cloned().unwrap_or_default();
                    assert_eq!((snapshot.damage().count(), snapshot.lost().count()), (0, 0));
                    assert!(state.end >= end && state.end.0 - state.settled.0 <= 7, "{state:?} after {end:?}");
                    (end, read) = (state.end, read + 1);
                }
                Err(SnapshotError::Unsteady) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
}

#[test]
fn holder_is_named_while_it_lives() {
    let folder = tempfile::tempdir().unwrap();
    let view = FolderView::new(folder.path());
    assert!(!view.is_held().unwrap() && view.last_holder().is_none());
    let journal = open(folder.path());
    assert!(view.is_held().unwrap());
    assert_eq!(view.last_holder(), Some(std::process::id()));
    drop(journal);
    assert!(!view.is_held().unwrap());
}

#[test]
fn opening_since_the_snapshot_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    let snapshot = Snapshot::read(FolderView::new(folder.path())).unwrap();
    assert!(snapshot.is_unopened().unwrap());
    drop(open(folder.path()));
    assert!(!snapshot.is_unopened().unwrap());
}

#[test]
fn folder_without_segments_holds_none() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("other"), "text").unwrap();
    assert!(matches!(Snapshot::read(FolderView::new(folder.path())), Err(SnapshotError::NoSpool)));
}
