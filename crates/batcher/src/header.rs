//! The 61 bytes before the records of a batch v2 (KIP-98).
//!
//! Rules:
//!  - All numbers are big-endian.
//!  - The CRC-32C covers all bytes after its own field and is written last.

use crate::stamp::Stamp;

/// Bytes of a record batch v2 before its records.
pub const HEADER_LEN: usize = 61;
/// End of the length field, which counts only the bytes after itself.
pub(crate) const LENGTH_END: usize = 12;
/// Start of the bytes that the CRC covers.
pub(crate) const CRC_END: usize = 21;
/// The only supported batch format.
pub(crate) const MAGIC: i8 = 2;

/// Header fields that differ between batches before they are stamped.
pub(crate) struct HeaderFields {
    pub(crate) batch_len: usize,
    pub(crate) attributes: i16,
    pub(crate) records: u32,
    pub(crate) base_timestamp: i64,
    pub(crate) max_timestamp: i64,
}

/// Returns a header without a stamp: base offset 0, no leader epoch, no producer, no CRC.
pub(crate) fn unstamped(fields: &HeaderFields) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    let length = fields.batch_len.saturating_sub(LENGTH_END) as i32;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[12..16].copy_from_slice(&(-1_i32).to_be_bytes());
    bytes[16..17].copy_from_slice(&MAGIC.to_be_bytes());
    bytes[21..23].copy_from_slice(&fields.attributes.to_be_bytes());
    let last_offset_delta = fields.records.saturating_sub(1);
    bytes[23..27].copy_from_slice(&last_offset_delta.to_be_bytes());
    bytes[27..35].copy_from_slice(&fields.base_timestamp.to_be_bytes());
    bytes[35..43].copy_from_slice(&fields.max_timestamp.to_be_bytes());
    bytes[43..51].copy_from_slice(&(-1_i64).to_be_bytes());
    bytes[51..53].copy_from_slice(&(-1_i16).to_be_bytes());
    bytes[53..57].copy_from_slice(&(-1_i32).to_be_bytes());
    bytes[57..61].copy_from_slice(&fields.records.to_be_bytes());
    bytes
}

/// Returns the timestamp of the first record of a whole batch.
pub(crate) fn first_timestamp(batch: &[u8]) -> i64 {
    let field = batch.get(27..).and_then(|rest| rest.first_chunk());
    field.map_or(0, |bytes| i64::from_be_bytes(*bytes))
}

/// Writes the timestamps of the first record and the newest one into a whole batch, and no CRC.
pub(crate) fn write_timestamps(batch: &mut [u8], first: i64, max: i64) {
    if let Some(header) = batch.first_chunk_mut::<HEADER_LEN>() {
        header[27..35].copy_from_slice(&first.to_be_bytes());
        header[35..43].copy_from_slice(&max.to_be_bytes());
    }
}

/// Writes the stamp into a whole batch, then the CRC.
pub(crate) fn write_stamp(batch: &mut [u8], stamp: Stamp) {
    if let Some(header) = batch.first_chunk_mut::<HEADER_LEN>() {
        header[43..51].copy_from_slice(&stamp.producer_id.to_be_bytes());
        header[51..53].copy_from_slice(&stamp.epoch.to_be_bytes());
        header[53..57].copy_from_slice(&stamp.base_sequence.to_be_bytes());
    }
    let crc = crc32c::crc32c(batch.get(CRC_END..).unwrap_or_default());
    if let Some(header) = batch.first_chunk_mut::<HEADER_LEN>() {
        header[17..21].copy_from_slice(&crc.to_be_bytes());
    }
}
