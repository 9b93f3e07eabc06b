//! The bytes of a letter in the file: version, arrival, checksum and JSON.
//!
//! ```text
//! byte 0      1, or 2 for an imported letter
//! 1 to 8      arrival, milliseconds since 1970-01-01 UTC, little-endian
//! 9 to 12     CRC-32C of the position and all other bytes, little-endian
//! from 13     the letter's JSON
//! ```
//!
//! Rule: the checksum is verified on every read, because the database checks its pages only when it opens them after a
//! crash. The checksum includes the position, so that no letter is taken for another.

use jiff::Timestamp;

use crate::json::LetterError;
use crate::letter::Letter;

const OWN: u8 = 1;
const IMPORTED: u8 = 2;
const JSON: usize = 13;

/// A letter as stored in the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct StoredEntry {
    pub(super) letter: Letter,
    pub(super) arrived: Timestamp,
    pub(super) imported: bool,
}

/// Encodes an entry from a letter's JSON.
pub(super) fn encode(position: u64, json: &[u8], arrived: Timestamp, imported: bool) -> Vec<u8> {
    let mut entry = Vec::with_capacity(JSON + json.len());
    entry.push(if imported { IMPORTED } else { OWN });
    entry.extend(arrived.as_millisecond().to_le_bytes());
    entry.extend([0; 4]);
    entry.extend(json);
    let sum = checksum(position, &entry);
    entry[9..JSON].copy_from_slice(&sum.to_le_bytes());
    entry
}

/// Returns the length of the entry with this JSON.
pub(super) fn length(json: &[u8]) -> u64 {
    (JSON + json.len()) as u64
}

/// Why bytes are not an entry.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum EntryError {
    #[error("the entry is empty")]
    Empty,
    #[error("the entry is truncated")]
    Truncated,
    #[error("the entry has version {0}, and this version reads {own} and {imported}", own = OWN, imported = IMPORTED)]
    Version(u8),
    #[error("the time of arrival is invalid: {0}")]
    Arrival(String),
    #[error("the checksum does not match")]
    Checksum,
    #[error(transparent)]
    Letter(#[from] LetterError),
}

/// Decodes an entry.
pub(super) fn decode(position: u64, entry: &[u8]) -> Result<StoredEntry, EntryError> {
    let arrived = arrived(entry)?;
    let stored: [u8; 4] = entry[9..JSON].try_into().map_err(|_| EntryError::Truncated)?;
    if checksum(position, entry) != u32::from_le_bytes(stored) {
        return Err(EntryError::Checksum);
    }
    let letter = Letter::from_json(&entry[JSON..])?;
    Ok(StoredEntry { letter, arrived, imported: entry[0] == IMPORTED })
}

/// Returns the entry for another position. A damaged entry stays damaged.
pub(super) fn moved(from: u64, to: u64, entry: &[u8]) -> Vec<u8> {
    let mut moved = entry.to_vec();
    if decode(from, entry).is_ok() {
        let sum = checksum(to, entry);
        moved[9..JSON].copy_from_slice(&sum.to_le_bytes());
    }
    moved
}

/// Returns the arrival without decoding the letter.
pub(super) fn arrived(entry: &[u8]) -> Result<Timestamp, EntryError> {
    match entry {
        [] => Err(EntryError::Empty),
        [OWN | IMPORTED, rest @ ..] if entry.len() >= JSON => {
            let bytes = rest[..8].try_into().map_err(|_| EntryError::Truncated)?;
            Timestamp::from_millisecond(i64::from_le_bytes(bytes))
                .map_err(|error| EntryError::Arrival(error.to_string()))
        }
        [OWN | IMPORTED, ..] => Err(EntryError::Truncated),
        [version, ..] => Err(EntryError::Version(*version)),
    }
}

fn checksum(position: u64, entry: &[u8]) -> u32 {
    let sum = crc32c::crc32c(&position.to_le_bytes());
    let sum = crc32c::crc32c_append(sum, &entry[..9]);
    crc32c::crc32c_append(sum, &entry[JSON..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(imported: bool) -> (StoredEntry, Vec<u8>) {
        let arrived: Timestamp = "2024-01-15T10:00:00.123Z".parse().unwrap();
        let letter = Letter::new("t", bytes::Bytes::from_static(b"{}"), "why", arrived);
        let entry = encode(7, &letter.to_json().unwrap(), arrived, imported);
        (StoredEntry { letter, arrived, imported }, entry)
    }

    #[test]
    fn entry_round_trips() {
        for imported in [false, true] {
            let (whole, entry) = entry(imported);
            assert_eq!(decode(7, &entry), Ok(whole));
        }
    }

    #[test]
    fn every_changed_bit_is_detected() {
        let (_, entry) = entry(false);
        for bit in 0..entry.len() * 8 {
            let mut changed = entry.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(7, &changed).is_err(), "bit {bit}");
        }
        for length in 0..entry.len() {
            assert!(decode(7, &entry[..length]).is_err(), "length {length}");
        }
    }

    #[test]
    fn moved_entry_keeps_its_damage() {
        let (whole, entry) = entry(true);
        assert_eq!(decode(9, &moved(7, 9, &entry)), Ok(whole));
        assert_eq!(moved(8, 9, &entry), entry);
        assert_eq!(moved(7, 9, b"\x01rot"), b"\x01rot");
    }

    #[test]
    fn wrong_position_is_refused() {
        let (_, entry) = entry(false);
        assert_eq!(decode(8, &entry), Err(EntryError::Checksum));
    }
}
