//! What leaves a store for good stands whole in the log.

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

/// With a single dispatcher a line counts as unwanted for the whole process if another test's thread reaches it first.
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

/// In the first log line that says so: whole, and an error.
fn says(log: &str, what: &str, letter: &Letter) {
    let line = log.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}: {log}"));
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
fn a_letter_dropped_from_memory_or_file_stands_whole_in_the_log() {
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
        says(&of_store, "dropped to make room", &letters[0]);
    }
    let log = logged(|| append(&letters[2], 61));
    for store in ["memory", "/simulated"] {
        let of_store: String = log.lines().filter(|line| line.contains(store)).collect::<Vec<_>>().join("\n");
        says(&of_store, "dropped because of its age", &letters[1]);
    }
}

#[test]
fn a_failure_to_write_is_said_once_for_each_try() {
    let (disk, store) = on_new_disk(Limits::default());
    disk.set_full(true);
    let letter = Letter::new("t", None, "why", at(0));
    let log = logged(|| drop(store.append_at(std::slice::from_ref(&letter), at(0)).unwrap_err()));
    assert_eq!(log.matches("dead letters can't be kept in the file").count(), 1, "{log}");
    disk.set_full(false);
    let log = logged(|| assert_eq!(store.append_at(&[letter], at(0)).unwrap().taken, 1));
    assert_eq!(log.matches("dead letters can be written again").count(), 1, "{log}");
}
