//! Dropped letters and failures are in the log.

use std::io;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::file::tests::on_new_disk;
use crate::letter::Letter;
use crate::limits::{Limits, Overflow};
use crate::memory::MemoryStore;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A second dispatcher. A single one would disable a log line for the whole process if another test reaches the line
/// first.
static SECOND: LazyLock<tracing::Dispatch> = LazyLock::new(|| tracing::Dispatch::new(tracing_subscriber::registry()));

fn logged(work: impl FnOnce()) -> String {
    LazyLock::force(&SECOND);
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, work);
    let bytes = log.0.lock().clone();
    String::from_utf8(bytes).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// Asserts that the first log line with the message is an error and has the whole letter.
fn assert_logged(log: &str, message: &str, letter: &Letter) {
    let line = log.lines().find(|line| line.contains(message)).unwrap_or_else(|| panic!("{message}: {log}"));
    let json = String::from_utf8(letter.to_json().unwrap()).unwrap();
    assert!(line.contains("ERROR") && line.contains(&json.escape_debug().to_string()), "{line}");
}

fn limits() -> Limits {
    Limits {
        max_letters: Some(1),
        max_age: Some(Duration::from_secs(60)),
        overflow: Overflow::DropOldest,
        ..Limits::default()
    }
}

#[test]
fn dropped_letters_are_logged_whole() {
    let letters = ["first", "second", "third"].map(|reason| Letter::new("t", None, reason, at(0)));
    let memory = MemoryStore::with_limits(limits());
    let (_disk, file) = on_new_disk(limits());
    let append = |letter: &Letter, second| {
        memory.append_at(std::slice::from_ref(letter), at(second)).unwrap();
        file.append_at(std::slice::from_ref(letter), at(second)).unwrap();
    };
    append(&letters[0], 0);
    let log = logged(|| append(&letters[1], 1));
    for store in ["memory", "/simulated"] {
        let of_store: String = log.lines().filter(|line| line.contains(store)).collect::<Vec<_>>().join("\n");
        assert_logged(&of_store, "dropped to make room", &letters[0]);
    }
    let log = logged(|| append(&letters[2], 61));
    for store in ["memory", "/simulated"] {
        let of_store: String = log.lines().filter(|line| line.contains(store)).collect::<Vec<_>>().join("\n");
        assert_logged(&of_store, "dropped because of its age", &letters[1]);
    }
}

#[test]
fn each_failed_write_is_logged() {
    let (disk, store) = on_new_disk(Limits::default());
    disk.set_full(true);
    let letter = Letter::new("t", None, "why", at(0));
    let log = logged(|| drop(store.append_at(std::slice::from_ref(&letter), at(0)).unwrap_err()));
    assert_eq!(log.matches("dead-letter file failed").count(), 1, "{log}");
    disk.set_full(false);
    let log = logged(|| assert_eq!(store.append_at(&[letter], at(0)).unwrap().taken, 1));
    assert_eq!(log.matches("dead-letter file is writable again").count(), 1, "{log}");
}
