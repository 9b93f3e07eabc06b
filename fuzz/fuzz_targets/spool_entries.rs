//! Reads arbitrary bytes as the entries of a frame of a spool, takes them into a table, and writes its checkpoint.
//!
//! Rules:
//!  - No input panics or reserves more memory than its bound.
//!  - An entry that was read survives another encoding.
//!  - A checkpoint gives the table that it was made of.
#![no_main]

use kafka_courier_spool::core::encoding::{DecodedEntry, decode_all};
use kafka_courier_spool::core::entry::Entry;
use kafka_courier_spool::core::table::Table;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(decoded) = decode_all(data) else { return };
    let control: Vec<Entry> = decoded
        .into_iter()
        .filter_map(|entry| match entry {
            DecodedEntry::Control(entry) => Some(entry),
            DecodedEntry::Batch { .. } => None,
        })
        .collect();
    assert_eq!(read(&control), control);
    // Keys of requests alone: other entries of arbitrary order need not be those of one table.
    let mut table = Table::default();
    control.iter().filter(|entry| matches!(entry, Entry::Keys { .. })).for_each(|entry| table.apply(entry));
    let mut again = Table::default();
    table.checkpoint().iter().for_each(|entry| again.apply(entry));
    assert_eq!(again, table);
});

fn read(entries: &[Entry]) -> Vec<Entry> {
    let mut bytes = Vec::new();
    entries.iter().for_each(|entry| entry.encode(&mut bytes));
    let decoded = decode_all(&bytes).expect("our own entries can be read");
    let control = |entry| match entry {
        DecodedEntry::Control(entry) => entry,
        DecodedEntry::Batch { .. } => panic!("a control entry is read as a batch"),
    };
    decoded.into_iter().map(control).collect()
}
