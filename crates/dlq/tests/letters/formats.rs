//! Letters of every format are read, from files and from lines of JSON.
//!
//! `letters-1` and `letters-2` hold the same six letters, each as written by a version of that format: the fourth is in
//! progress, the fifth is in progress under its own stamp, and the sixth is a fifth that was proved absent.

use std::fs;
use std::path::{Path, PathBuf};

use kafka_courier_dlq::{DeadLetterStore, FileStore, Letter, Position, Selection, Timestamp, letters};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn letters_of(name: &str) -> Vec<Letter> {
    let lines = fs::read_to_string(golden(name)).unwrap();
    lines.lines().map(|line| Letter::from_json(line.as_bytes()).unwrap()).collect()
}

/// Opens a copy of the file `name`.redb, and compares its letters with the lines of `name`.ndjson.
fn assert_file_is_read(name: &str) {
    let expected = letters_of(&format!("{name}.ndjson"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters");
    fs::copy(golden(&format!("{name}.redb")), &path).unwrap();
    let store = FileStore::open(&path).unwrap();
    let read: Vec<Letter> = letters(&store, &Selection::all()).map(|held| held.unwrap().letter).collect();
    assert_eq!(read, expected);
    assert_eq!(store.len(), expected.len() as u64);
    store.append(&[Letter::new("t", None, "why", Timestamp::UNIX_EPOCH)]).unwrap();
    assert_eq!(store.scan(None, 10).unwrap().last().unwrap().position, Position(expected.len() as u64));
}

#[test]
fn old_files_are_read_and_extended() {
    for name in ["format-1", "letters-1", "letters-2"] {
        assert_file_is_read(name);
    }
}

#[test]
fn format_1_becomes_format_2() {
    let written: Vec<String> = letters_of("letters-1.ndjson")
        .iter()
        .map(|letter| String::from_utf8(letter.to_json().unwrap()).unwrap() + "\n")
        .collect();
    assert_eq!(written.concat(), fs::read_to_string(golden("letters-2.ndjson")).unwrap());
}

#[test]
fn format_2_survives_unchanged() {
    let lines = fs::read_to_string(golden("letters-2.ndjson")).unwrap();
    for line in lines.lines() {
        let letter = Letter::from_json(line.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(letter.to_json().unwrap()).unwrap(), line);
    }
}

/// Tools that rebuild a line of JSON write absent fields as null.
#[test]
fn null_replay_fields_are_absent() {
    let lines = fs::read_to_string(golden("letters-1.ndjson")).unwrap();
    for line in lines.lines() {
        let with_nulls = format!("{},\"replay\":null,\"format\":null}}", line.strip_suffix('}').unwrap());
        let read = Letter::from_json(with_nulls.as_bytes()).unwrap();
        assert_eq!(read, Letter::from_json(line.as_bytes()).unwrap());
    }
}
