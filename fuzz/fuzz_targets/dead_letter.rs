//! Reads arbitrary bytes as a dead letter's JSON, and stores them as a dead letter's value, key and header.
//!
//! Rules: no input panics. A dead letter is written on one line and reads back the same, whatever bytes it holds.
#![no_main]

use kafka_courier_dlq::{Bytes, Header, Letter, LetterId, Outcome, Timestamp, Uuid};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(letter) = Letter::from_json(data) {
        survives(&letter);
    }
    let bytes = Bytes::copy_from_slice(data);
    let mut letter = Letter::new("orders", bytes.clone(), "reason", Timestamp::UNIX_EPOCH);
    letter.id = LetterId::from(Uuid::nil());
    letter.outcome = Outcome::NotWritten;
    letter.headers.push(Header { name: String::from_utf8_lossy(data).into_owned(), value: Some(bytes.clone()) });
    letter.key = Some(bytes);
    survives(&letter);
});

fn survives(letter: &Letter) {
    let json = letter.to_json().expect("a decoded dead letter can be written");
    assert!(!json.contains(&b'\n') && !json.contains(&b'\r'));
    let again = Letter::from_json(&json).expect("our own dead letter can be read");
    assert_eq!(&again, letter);
    assert_eq!(again.to_json().expect("once more"), json);
}
