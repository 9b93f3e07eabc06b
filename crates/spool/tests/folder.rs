//! The journal in a folder of the operating system, and its format.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kafka_courier_batcher::Stamp;
use kafka_courier_spool::core::entry::{BatchHead, Entry, JournalBatch, Ordinal, Partition, Topic, TopicNumber};
use kafka_courier_spool::core::ids::SpoolId;
use kafka_courier_spool::core::keys::RecordKey;
use kafka_courier_spool::core::recover::Recovered;
use kafka_courier_spool::disk::Folder;
use kafka_courier_spool::journal::{CommitError, Journal, OpenError, ReadError, Settings};

const PARTITION: Partition = Partition { topic: TopicNumber(0), index: 3 };
const SETTINGS: Settings = Settings {
    segment_bytes: 64 * 1024,
    segments_kept: 8,
    max_bytes: 1 << 20,
    keep_free: 0,
    new_spool: SpoolId([9; 16]),
};

fn open(path: &Path) -> Result<(Journal<Folder>, Recovered), OpenError> {
    Journal::open(Folder::open(path).unwrap(), SETTINGS)
}

fn batch(journal: &Journal<Folder>, first: u64, count: u32, bytes: &[u8]) -> Entry {
    let (life, first) = (journal.life(), Ordinal(first));
    let head = BatchHead { partition: PARTITION, life, first, count, notes: (*b"line 2").into() };
    Entry::Batch(JournalBatch { head, bytes: bytes.into() })
}

/// The rounds of a first life: a topic, a batch, and the stamps of its records.
fn first_rounds(journal: &mut Journal<Folder>) {
    let (life, from) = (journal.life(), Ordinal(0));
    let topic = Topic { number: TopicNumber(0), name: "orders".into(), id: [5; 16], partitions: 4 };
    let begin = Entry::Begin { partition: PARTITION, life, from };
    journal.commit(vec![Entry::Topic(topic), begin, batch(journal, 0, 2, b"a record batch")]).unwrap();
    let stamp = Stamp { producer_id: 4001, epoch: 0, base_sequence: 0 };
    let moved = Entry::Move { partition: PARTITION, from, stamp, skips: vec![(Ordinal(1), Ordinal(2))] };
    journal.commit(vec![moved]).unwrap();
}

#[test]
fn rounds_survive_an_opening() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, recovered) = open(folder.path()).unwrap();
    assert!(recovered.batches.is_empty() && recovered.damage.is_empty());
    first_rounds(&mut journal);
    let table = journal.table().clone();
    drop(journal);
    let (journal, recovered) = open(folder.path()).unwrap();
    assert_eq!((recovered.table, recovered.damage), (table, vec![]));
    let heads: Vec<_> = journal.batches().collect();
    assert_eq!((heads.len(), &*heads[0].notes), (1, b"line 2".as_slice()));
    let batch = journal.read(PARTITION, Ordinal(0)).unwrap();
    assert_eq!((&batch.head, &*batch.bytes), (&heads[0], b"a record batch".as_slice()));
    assert!(matches!(journal.read(PARTITION, Ordinal(1)), Err(ReadError::NotHeld)));
    assert_eq!(journal.life().0, 2);
}

#[test]
fn settled_segments_are_recycled() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path()).unwrap();
    for round in 0..100 {
        let mark = Entry::Mark { partition: PARTITION, settled: Ordinal(round), end_offset: round as i64 };
        journal.commit(vec![batch(&journal, round, 1, &[7; 10_000]), mark]).unwrap();
    }
    // A megabyte was written.
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap()).collect();
    let bytes: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(bytes <= 5 * SETTINGS.segment_bytes, "{bytes} in {files:?}");
}

/// Commits batches of one record until the spool is full.
fn fill(journal: &mut Journal<Folder>) -> u64 {
    for first in 0.. {
        match journal.commit(vec![batch(journal, first, 1, &[7; 10_000])]) {
            Ok(_) => {}
            Err(CommitError::Full { needed }) => {
                assert!(needed > 10_000 && journal.room() < 10_000);
                return first;
            }
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!()
}

#[test]
fn full_spool_takes_marks_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path()).unwrap();
    let count = fill(&mut journal);
    assert!(journal.file_bytes() <= SETTINGS.max_bytes);
    for settled in 1..=count {
        let mark = Entry::Mark { partition: PARTITION, settled: Ordinal(settled), end_offset: 0 };
        journal.commit(vec![mark]).unwrap();
    }
    assert!(!journal.is_latched() && journal.file_bytes() <= SETTINGS.max_bytes);
    journal.prove().unwrap();
    journal.prepare().unwrap();
    assert!(journal.room() > SETTINGS.max_bytes / 2, "{} bytes of room", journal.room());
    journal.commit(vec![batch(&journal, count, 1, &[7; 10_000])]).unwrap();
}

#[test]
fn full_spool_opens_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path()).unwrap();
    let count = fill(&mut journal);
    journal.prepare().unwrap();
    drop(journal);
    let (journal, recovered) = open(folder.path()).unwrap();
    assert_eq!(recovered.batches.len() as u64, count);
    for first in 0..count {
        assert_eq!(*journal.read(PARTITION, Ordinal(first)).unwrap().bytes, [7; 10_000]);
    }
}

/// Returns the bytes of all files after many openings of processes that then store nothing.
fn bytes_after_openings(folder: &Path, held: usize) -> u64 {
    for _ in 0..40 {
        let (_, recovered) = open(folder).unwrap();
        assert_eq!((recovered.batches.len(), recovered.lost().count()), (held, 0));
    }
    let files = std::fs::read_dir(folder).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn openings_take_bounded_room() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path()).unwrap();
    journal.commit(vec![batch(&journal, 0, 1, b"a record batch")]).unwrap();
    drop(journal);
    let bytes = bytes_after_openings(folder.path(), 1);
    assert!(bytes <= 10 * SETTINGS.segment_bytes, "{bytes}");
}

#[test]
fn openings_of_full_spool_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path()).unwrap();
    let count = fill(&mut journal);
    drop(journal);
    let bytes = bytes_after_openings(folder.path(), count as usize);
    // A segment with copies is larger than others.
    assert!(bytes <= SETTINGS.max_bytes * 5 / 4, "{bytes}");
    let (journal, _) = open(folder.path()).unwrap();
    for first in 0..count {
        assert_eq!(*journal.read(PARTITION, Ordinal(first)).unwrap().bytes, [7; 10_000]);
    }
}

#[test]
fn free_bytes_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { keep_free: u64::MAX, ..SETTINGS };
    let (mut journal, _) = Journal::open(Folder::open(folder.path()).unwrap(), settings).unwrap();
    assert_eq!(journal.room(), 0);
    let error = journal.commit(vec![batch(&journal, 0, 1, b"a record batch")]).unwrap_err();
    assert!(matches!(error, CommitError::Full { .. }), "{error}");
    journal.commit(vec![Entry::Mark { partition: PARTITION, settled: Ordinal(0), end_offset: 0 }]).unwrap();
}

#[test]
fn opening_keeps_batches_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path()).unwrap();
    let count = fill(&mut journal);
    journal.prove().unwrap();
    drop(journal);
    let before = std::fs::read(folder.path().join("journal-0000000000000001")).unwrap();
    let (journal, recovered) = open(folder.path()).unwrap();
    assert_eq!((recovered.batches.len() as u64, journal.copied_bytes()), (count, 0));
    let written = std::fs::metadata(folder.path().join("journal-0000000000000000")).unwrap().len();
    assert_eq!(written, SETTINGS.segment_bytes);
    assert_eq!(std::fs::read(folder.path().join("journal-0000000000000001")).unwrap(), before);
}

#[test]
fn recreated_topics_are_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path()).unwrap();
    let topic = |number, name: &str| {
        Entry::Topic(Topic { number: TopicNumber(number), name: name.into(), id: [number as u8; 16], partitions: 4 })
    };
    let mark = Entry::Mark { partition: PARTITION, settled: Ordinal(1), end_offset: 0 };
    let topics = vec![topic(0, "orders"), topic(1, "users"), topic(2, "orders")];
    journal.commit(topics).unwrap();
    journal.commit(vec![batch(&journal, 0, 1, b"a record batch")]).unwrap();
    drop(journal);
    let (mut journal, _) = open(folder.path()).unwrap();
    assert_eq!(journal.table().topics.len(), 3, "a record of the former topic is not settled");
    journal.commit(vec![mark]).unwrap();
    drop(journal);
    let (journal, _) = open(folder.path()).unwrap();
    assert_eq!(journal.table().topics.keys().map(|number| number.0).collect::<Vec<_>>(), [1, 2]);
    assert!(journal.table().partitions.is_empty());
}

#[test]
fn second_opening_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _journal = open(folder.path()).unwrap();
    let error = Folder::open(folder.path()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ResourceBusy, "{error}");
}

#[test]
fn unreadable_files_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    let path = folder.path().join("journal-0000000000000000");
    let mut bytes = std::fs::read(&path).unwrap();
    (bytes[20], bytes[2068]) = (!bytes[20], !bytes[2068]);
    std::fs::write(&path, &bytes).unwrap();
    drop(open(folder.path()).unwrap());
    assert_eq!(std::fs::read(folder.path().join("damaged-0000000000000000")).unwrap(), bytes);
}

#[test]
fn numbers_of_moved_segment_are_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path()).unwrap();
    first_rounds(&mut journal);
    drop(journal);
    let (mut journal, before) = open(folder.path()).unwrap();
    let committed = journal.commit(vec![batch(&journal, 2, 1, b"a record batch")]).unwrap();
    drop(journal);
    let (kept, moved) = ("journal-0000000000000001", "damaged-0000000000000001");
    std::fs::rename(folder.path().join(kept), folder.path().join(moved)).unwrap();
    let (journal, recovered) = open(folder.path()).unwrap();
    assert_eq!((recovered.unreadable, recovered.table), (vec![moved.to_owned()], before.table));
    assert!(recovered.next_frame > committed.frame, "the segment may have frames of these numbers");
    assert!(!folder.path().join(kept).exists() && folder.path().join("journal-0000000000000002").exists());
    drop(journal);
    let (_, recovered) = open(folder.path()).unwrap();
    assert_eq!(recovered.unreadable, [""; 0], "the loss was named");
}

#[test]
fn files_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool");
    let _journal = open(&path).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for file in std::fs::read_dir(&path).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
}

#[test]
fn two_spools_are_refused() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(open(one.path()).unwrap());
    let settings = Settings { new_spool: SpoolId([8; 16]), ..SETTINGS };
    let (mut journal, _) = Journal::open(Folder::open(other.path()).unwrap(), settings).unwrap();
    journal.commit(Vec::new()).unwrap();
    drop(journal);
    std::fs::copy(other.path().join("journal-0000000000000000"), one.path().join("journal-00000000000000ff")).unwrap();
    // The copy has another number than its name, and holds another spool all the same.
    let error = open(one.path()).unwrap_err();
    assert!(matches!(&error, OpenError::OtherSpool { name } if name == "journal-00000000000000ff"), "{error}");
}

#[test]
fn newer_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    let path = folder.path().join("journal-0000000000000000");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8..12].copy_from_slice(&[2, 0, 2, 0]);
    let crc = crc32c::crc32c(&bytes[..48]);
    bytes[48..52].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&path, &bytes).unwrap();
    let error = open(folder.path()).unwrap_err();
    let text = "journal-0000000000000000: format 2 needs a reader of format 2 or newer, and this version reads up to 1";
    assert_eq!(error.to_string(), text);
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "the file is not touched");
}

/// Compares the first segment of a folder with a file, byte by byte. `UPDATE_GOLDEN=1` writes the file again.
fn assert_golden(folder: &Path, name: &str) {
    let written = std::fs::read(folder.join("journal-0000000000000000")).unwrap();
    // Everything behind the frames is zero.
    let end = written.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &written[..end]).unwrap();
    }
    assert_eq!(std::fs::read(&golden).unwrap(), &written[..end]);
}

/// The format of version 0.1.
#[test]
fn format_1_is_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path()).unwrap();
    first_rounds(&mut journal);
    assert_golden(folder.path(), "journal-1");
}

/// The rounds of a request with two events.
fn keyed_rounds(journal: &mut Journal<Folder>) {
    let key = |index: u32| RecordKey {
        key: [0xaa; 16],
        payload: [0xbb; 16],
        at_ms: 1_700_000_000_000,
        partition: PARTITION,
        ordinal: Ordinal(index.into()),
        index,
        count: 2,
    };
    let keys = Entry::Keys { forget_before_ms: 1_699_999_400_000, keys: vec![key(0), key(1)] };
    journal.commit(vec![batch(journal, 0, 2, b"a record batch"), keys]).unwrap();
}

#[test]
fn format_of_keys_is_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path()).unwrap();
    keyed_rounds(&mut journal);
    assert_golden(folder.path(), "journal-1-keys");
}

#[test]
fn keys_outlive_their_segment() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path()).unwrap();
    keyed_rounds(&mut journal);
    let mark = Entry::Mark { partition: PARTITION, settled: Ordinal(2), end_offset: 2 };
    journal.commit(vec![mark]).unwrap();
    drop(journal);
    for _ in 0..5 {
        drop(open(folder.path()).unwrap());
    }
    assert!(!folder.path().join("journal-0000000000000000").exists(), "the segment of the records is gone");
    let (mut journal, recovered) = open(folder.path()).unwrap();
    assert_eq!(recovered.table.keys.iter().map(|key| key.index).collect::<Vec<_>>(), [0, 1]);
    journal.commit(vec![Entry::Keys { forget_before_ms: 1_700_000_000_001, keys: Vec::new() }]).unwrap();
    drop(journal);
    let (_, recovered) = open(folder.path()).unwrap();
    assert!(recovered.table.keys.is_empty());
}
