//! Files that earlier versions wrote are read by this one.
#![allow(clippy::unwrap_used)] // helpers of tests may, as tests do

use std::fs;
use std::path::Path;

use kafka_courier_dlq::{DeadLetterStore, FileStore, Letter, Position, Selection, Timestamp, letters};

/// The file, as it was written, and the lines of JSON that it was written from.
fn reads(format: &str) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters");
    fs::copy(golden.with_extension("redb"), &path).unwrap();
    let store = FileStore::open(&path).unwrap();
    let lines: Vec<String> = letters(&store, &Selection::all())
        .map(|held| String::from_utf8(held.unwrap().letter.to_json().unwrap()).unwrap() + "\n")
        .collect();
    assert_eq!(lines.concat(), fs::read_to_string(golden.with_extension("ndjson")).unwrap());
    assert_eq!(store.len(), lines.len() as u64);
    let new = Letter::new("t", None, "why", Timestamp::UNIX_EPOCH);
    store.append(&[new]).unwrap();
    assert_eq!(store.scan(None, 10).unwrap().last().unwrap().position, Position(lines.len() as u64));
}

#[test]
fn a_file_of_format_1_is_read_and_written_on() {
    reads("format-1");
}
