//! Writes a file of dead letters for `tests/golden`, and the same letters as JSON. Run it once for each new format.
//!
//!     cargo run -p kafka-courier-dlq --example write_golden_letters -- crates/dlq/tests/golden/letters-2

use std::path::Path;

use kafka_courier_dlq::{
    Bytes, DeadLetterStore, FileStore, Header, Letter, LetterId, Outcome, ReplayState, Timestamp, Uuid,
};

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let name =
        std::env::args().nth(1).ok_or("no file is named: give the path of the golden files without the extension")?;
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

/// Returns a plain letter, a tombstone, a letter with every field, and the letter in each state of a replay.
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
    let stamped = ReplayState::Stamped { producer_id: 4000, producer_epoch: 3, sequence: i32::MAX };
    let reason = "no answer";
    let stamped = Letter { id: id(5), failure_reason: reason.into(), replay: stamped, ..full.clone() };
    let stampless = Letter { producer_id: None, producer_epoch: None, sequence: None, ..stamped.clone() };
    let in_progress = Letter { id: id(4), replay: ReplayState::InProgress, ..stampless.clone() };
    let absent = Letter { id: id(6), outcome: Outcome::NotWritten, replay: ReplayState::Idle, ..stampless };
    vec![plain, tombstone, full, in_progress, stamped, absent]
}

fn id(number: u128) -> LetterId {
    Uuid::from_u128(number).into()
}

fn letter(number: u128, value: Option<Bytes>) -> Letter {
    let mut letter = Letter::new("orders", value, "broker not available", Timestamp::UNIX_EPOCH);
    letter.id = id(number);
    letter.outcome = Outcome::NotWritten;
    letter
}
