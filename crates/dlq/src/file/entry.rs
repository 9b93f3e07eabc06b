//! What stands in the file for a letter: version, time of arrival, checksum, JSON.
//!
//! ```text
//! byte 0      1, or 2: a letter that was imported
//! 1 to 8      arrival, milliseconds since 1970-01-01 UTC, little-endian
//! 9 to 12     CRC-32C of the position and everything else, little-endian
//! 13 on       the letter's JSON
//! ```
//!
//! - The database checks its pages only when it opens them after a crash; the checksum here is looked at on every read,
//!   and counts the position, so that a letter is never taken for another.

use jiff::Timestamp;

use crate::letter::Letter;

const OWN: u8 = 1;
const IMPORTED: u8 = 2;
const JSON: usize = 13;

/// A letter as it stands in the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) letter: Letter,
    pub(super) arrived: Timestamp,
    pub(super) imported: bool,
}

/// The bytes for a letter's JSON.
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

/// The entry's length for JSON of this length.
pub(super) fn length(json: &[u8]) -> u64 {
    (JSON + json.len()) as u64
}

/// The letter, and what stands with it.
pub(super) fn decode(position: u64, entry: &[u8]) -> Result<Entry, String> {
    let arrived = arrived(entry)?;
    let stored: [u8; 4] = entry[9..JSON].try_into().map_err(|_| "cut off".to_owned())?;
    if checksum(position, entry) != u32::from_le_bytes(stored) {
        return Err("its checksum does not match".into());
    }
    let letter = Letter::from_json(&entry[JSON..]).map_err(|error| error.to_string())?;
    Ok(Entry { letter, arrived, imported: entry[0] == IMPORTED })
}

/// The entry for another position. One that is damaged stays so.
pub(super) fn moved(from: u64, to: u64, entry: &[u8]) -> Vec<u8> {
    let mut moved = entry.to_vec();
    if decode(from, entry).is_ok() {
        let sum = checksum(to, entry);
        moved[9..JSON].copy_from_slice(&sum.to_le_bytes());
    }
    moved
}

/// When it arrived, without looking at the letter.
pub(super) fn arrived(entry: &[u8]) -> Result<Timestamp, String> {
    match entry {
        [] => Err("empty".into()),
        [OWN | IMPORTED, rest @ ..] if entry.len() >= JSON => {
            let bytes = rest[..8].try_into().map_err(|_| "cut off".to_owned())?;
            Timestamp::from_millisecond(i64::from_le_bytes(bytes))
                .map_err(|error| format!("its time of arrival: {error}"))
        }
        [OWN | IMPORTED, ..] => Err("cut off".into()),
        [version, ..] => Err(format!("version {version} of a letter's entry; known are {OWN} and {IMPORTED}")),
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

    fn entry(imported: bool) -> (Entry, Vec<u8>) {
        let arrived: Timestamp = "2024-01-15T10:00:00.123Z".parse().unwrap();
        let letter = Letter::new("t", bytes::Bytes::from_static(b"{}"), "why", arrived);
        let entry = encode(7, &letter.to_json().unwrap(), arrived, imported);
        (Entry { letter, arrived, imported }, entry)
    }

    #[test]
    fn an_entry_gives_its_letter_back_and_says_whether_it_was_imported() {
        for imported in [false, true] {
            let (whole, entry) = entry(imported);
            assert_eq!(decode(7, &entry), Ok(whole));
        }
    }

    #[test]
    fn no_changed_bit_goes_unnoticed() {
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
    fn an_entry_can_be_moved_and_a_damaged_one_stays_damaged() {
        let (whole, entry) = entry(true);
        assert_eq!(decode(9, &moved(7, 9, &entry)), Ok(whole));
        assert_eq!(moved(8, 9, &entry), entry);
        assert_eq!(moved(7, 9, b"\x01rot"), b"\x01rot");
    }

    #[test]
    fn an_entry_at_another_position_is_refused() {
        let (_, entry) = entry(false);
        assert_eq!(decode(8, &entry), Err("its checksum does not match".into()));
    }
}
