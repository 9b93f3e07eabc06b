//! The journal in a folder of the operating system, and its format.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kafka_courier_spool::core::entry::{Entry, Ordinal, Partition, Piece, Topic, TopicNumber};
use kafka_courier_spool::core::ids::SpoolId;
use kafka_courier_spool::core::recover::Recovered;
use kafka_courier_spool::disk::Folder;
use kafka_courier_spool::journal::{Journal, OpenError, Settings};

const PARTITION: Partition = Partition { topic: TopicNumber(0), index: 3 };
const SETTINGS: Settings = Settings { segment_bytes: 64 * 1024, segments_max: 8, new_spool: SpoolId([9; 16]) };

fn open(path: &Path) -> Result<(Journal<Folder>, Recovered), OpenError> {
    Journal::open(Folder::open(path).unwrap(), SETTINGS)
}

/// The rounds of a first life: a topic, a producer id, and records.
fn first_rounds(journal: &mut Journal<Folder>) {
    let life = journal.life();
    let topic = Topic { number: TopicNumber(0), name: "orders".into(), id: [5; 16], partitions: 4 };
    journal.commit(vec![Entry::Topic(topic), Entry::Bind { life, producer_id: 4001, epoch: 0 }]).unwrap();
    let piece = Piece {
        partition: PARTITION,
        life,
        first: Ordinal(0),
        count: 2,
        base_timestamp: 1_700_000_000_000,
        records: (*b"two encoded records").into(),
    };
    journal.commit(vec![Entry::Begin { partition: PARTITION, life, from: Ordinal(0) }, Entry::Piece(piece)]).unwrap();
}

#[test]
fn rounds_survive_an_opening() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, recovered) = open(folder.path()).unwrap();
    assert!(recovered.pieces.is_empty() && recovered.damage.is_empty());
    first_rounds(&mut journal);
    let table = journal.table().clone();
    drop(journal);
    let (journal, recovered) = open(folder.path()).unwrap();
    assert_eq!((recovered.table, recovered.damage), (table, vec![]));
    let records: Vec<_> = journal.pieces().map(|piece| piece.records.to_vec()).collect();
    assert_eq!(records, [b"two encoded records"]);
    assert_eq!(journal.life().0, 2);
}

#[test]
fn settled_segments_are_recycled() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path()).unwrap();
    let life = journal.life();
    for round in 0..100 {
        let first = Ordinal(round);
        let records = vec![7; 10_000].into();
        let piece = Piece { partition: PARTITION, life, first, count: 1, base_timestamp: 0, records };
        let mark = Entry::Mark { partition: PARTITION, settled: first, end_offset: round as i64 };
        journal.commit(vec![Entry::Piece(piece), mark]).unwrap();
    }
    // A megabyte was written.
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap()).collect();
    let bytes: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(bytes <= 5 * SETTINGS.segment_bytes, "{bytes} in {files:?}");
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

/// The format of version 0.1, byte by byte. `UPDATE_GOLDEN=1` writes the file again.
#[test]
fn format_1_is_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path()).unwrap();
    first_rounds(&mut journal);
    let written = std::fs::read(folder.path().join("journal-0000000000000000")).unwrap();
    // Everything behind the frames is zero.
    let end = written.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/journal-1");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &written[..end]).unwrap();
    }
    assert_eq!(std::fs::read(&golden).unwrap(), &written[..end]);
}
