//! Writes a file of dead letters for `tests/golden`, and the letters' JSON beside it: once for each format.
//!
//!     cargo run -p kafka-courier-dlq --example write_golden_letters -- crates/dlq/tests/golden/format-1

use std::path::Path;

use kafka_courier_dlq::{Bytes, DeadLetterStore, FileStore, Header, Letter, Outcome, Timestamp, Uuid};

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let name = std::env::args().nth(1).ok_or("name the file, without its ending")?;
    let folder = std::env::temp_dir().join(format!("golden-{}", std::process::id()));
    let letters = letters();
    let store = FileStore::open(folder.join("letters"))?;
    store.append(&letters)?;
    drop(store);
    std::fs::copy(folder.join("letters"), Path::new(&name).with_extension("redb"))?;
    std::fs::remove_dir_all(&folder)?;
    let mut lines = Vec::new();
    for letter in &letters {
        lines.extend(letter.to_json()?);
        lines.push(b'\n');
    }
    std::fs::write(Path::new(&name).with_extension("ndjson"), lines)?;
    Ok(())
}

/// A plain one, a tombstone, and one that has everything.
fn letters() -> Vec<Letter> {
    let plain = letter(1, Some(Bytes::from_static(br#"{"id":1,"amount":1.50}"#)));
    let tombstone = letter(2, None);
    let mut full = letter(3, Some(Bytes::from_static(b"\xff not JSON")));
    full.partition = Some(5);
    full.key = Some(Bytes::from_static(b"\xfe"));
    full.headers = vec![
        Header { name: "event-type".into(), value: Some(Bytes::from_static(b"order.placed")) },
        Header { name: String::new(), value: None },
    ];
    (full.event_id, full.event_type) = (Some("e-1".into()), Some("order.placed".into()));
    (full.correlation_id, full.error_code) = (Some("c-1".into()), Some("REQUEST_TIMED_OUT".into()));
    (full.outcome, full.retriable, full.attempt_count, full.replay_count) = (Outcome::Unknown, true, 4, 2);
    (full.topic_id, full.search_from) = (Some(Uuid::from_u128(7)), Some(1 << 40));
    (full.producer_id, full.producer_epoch, full.sequence) = (Some(4000), Some(3), Some(i32::MAX));
    vec![plain, tombstone, full]
}

fn letter(number: u128, value: Option<Bytes>) -> Letter {
    let mut letter = Letter::new("orders", value, "broker not available", Timestamp::UNIX_EPOCH);
    letter.id = Uuid::from_u128(number).into();
    letter.outcome = Outcome::NotWritten;
    letter
}
