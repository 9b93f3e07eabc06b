//! Applies arbitrary edits to a valid file of dead letters and uses the file.
//!
//! - Input: up to 64 edits of 8 bytes each: an offset (a third of them in the header), an operation, a value.
//! - Rules: no panic leaves the store. Every dead letter that is read was written. An error names the file. Lengths in
//!   altered bytes grow neither memory (libFuzzer's limits) nor the file.
//! - Files are in the temporary folder. `TMPDIR=/dev/shm` avoids the disk.
#![no_main]

use std::fs;
use std::panic::{catch_unwind, set_hook};
use std::path::Path;
use std::sync::{LazyLock, Mutex};

use kafka_courier_dlq::{DeadLetterStore, FileStore, Letter};
use libfuzzer_sys::fuzz_target;

const WRITTEN: &[u8] = include_bytes!("../../crates/dlq/tests/golden/format-1.redb");
const LETTERS: &str = include_str!("../../crates/dlq/tests/golden/format-1.ndjson");
/// Far more than a few dead letters need.
const LARGEST_FILE: u64 = 16 * 1024 * 1024;

struct Place {
    /// Removed when the process exits normally.
    folder: tempfile::TempDir,
    letters: Vec<Letter>,
}

/// The message of the last panic. The store catches panics of the database, and libFuzzer's hook would abort at each.
static SAID: Mutex<String> = Mutex::new(String::new());

static PLACE: LazyLock<Place> = LazyLock::new(|| {
    set_hook(Box::new(|panic| *SAID.lock().expect("the hook never panics") = panic.to_string()));
    let letters = LETTERS.lines().map(|line| Letter::from_json(line.as_bytes()).expect("the golden dead letters"));
    Place { folder: tempfile::tempdir().expect("a folder"), letters: letters.collect() }
});

fuzz_target!(|data: &[u8]| {
    let place = &*PLACE;
    let path = place.folder.path().join("letters");
    fs::write(&path, altered(data)).expect("a file");
    if catch_unwind(|| used(&path, &place.letters)).is_err() {
        eprintln!("{}", SAID.lock().expect("the hook never panics"));
        std::process::abort();
    }
});

fn altered(edits: &[u8]) -> Vec<u8> {
    let mut bytes = WRITTEN.to_vec();
    for edit in edits.chunks_exact(8).take(64) {
        let number = u32::from_le_bytes([edit[0], edit[1], edit[2], 0]) as usize;
        let value = u32::from_le_bytes([edit[4], edit[5], edit[6], edit[7]]);
        if bytes.is_empty() {
            break;
        }
        let length = bytes.len();
        let long = length.min(64);
        let from = value as usize % (length - long + 1);
        let at = if edit[3] % 3 == 0 { number % length.min(512) } else { number % length };
        match edit[3] / 3 % 6 {
            0 => bytes[at] ^= 1 << (value % 8),
            1 => bytes[at] = value.to_le_bytes()[0],
            2 => bytes.iter_mut().skip(at).zip(value.to_le_bytes()).for_each(|(byte, new)| *byte = new),
            3 => bytes.iter_mut().skip(at).take(value as usize % 4097).for_each(|byte| *byte = edit[7]),
            4 => bytes.copy_within(from..from + long, at.min(length - long)),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// Opens, reads and writes the file, then repeats all of it.
fn used(path: &Path, written: &[Letter]) {
    for _ in 0..2 {
        match FileStore::open(path) {
            Ok(store) => {
                let page = store.scan(None, 1000).unwrap_or_default();
                assert!(page.iter().all(|held| written.contains(&held.letter)), "a dead letter was never written");
                let _ = store.find(&[written[0].id]);
                let _ = store.append(&written[..1]);
                let _ = store.remove(&page.iter().take(1).map(|held| held.position).collect::<Vec<_>>());
            }
            Err(error) => assert!(error.to_string().contains("letters"), "{error}"),
        }
        let bytes = fs::metadata(path).map_or(0, |data| data.len());
        assert!(bytes <= LARGEST_FILE, "the file has {bytes} bytes");
    }
}
