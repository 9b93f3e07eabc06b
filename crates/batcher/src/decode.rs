//! A strict decoder of record batches from untrusted bytes.
//!
//! Rules: every length is checked against the bytes that are there before it is used; nothing is reserved by a length
//! that was read; what does not add up is an error, never a guess.

use crate::header::{CRC_END, HEADER_LEN, LENGTH_END, MAGIC};
use crate::records::Records;
use crate::snappy;
use crate::stamp::Stamp;
use std::borrow::Cow;

const CODEC_MASK: i16 = 0b111;
const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// One record batch v2, its header read, its records not yet looked at.
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    /// Offset of the first record; 0 on the way to a leader.
    pub base_offset: i64,
    /// Epoch of the leader that appended it; -1 on the way to a leader.
    pub partition_leader_epoch: i32,
    /// The format; always 2.
    pub magic: i8,
    /// CRC-32C over everything behind itself. See [`check_crc`](Self::check_crc).
    pub crc: u32,
    /// Codec (bits 0 to 2), timestamp type (3), transactional (4), control (5).
    pub attributes: i16,
    /// Offset of the last record, less the base offset. Not below `record_count - 1`.
    pub last_offset_delta: i32,
    /// What the records' timestamps are relative to, milliseconds since the Unix epoch.
    pub base_timestamp: i64,
    /// The latest timestamp, milliseconds since the Unix epoch.
    pub max_timestamp: i64,
    /// The producer's id; -1 without one.
    pub producer_id: i64,
    /// The producer's epoch; -1 without one.
    pub producer_epoch: i16,
    /// The first record's sequence number; -1 without one.
    pub base_sequence: i32,
    /// How many records it says to have.
    pub record_count: u32,
    bytes: &'a [u8],
    body: &'a [u8],
}

fn at<const N: usize>(header: &[u8; HEADER_LEN], start: usize) -> [u8; N] {
    let field = header.get(start..).and_then(|rest| rest.first_chunk());
    field.copied().unwrap_or([0; N])
}

impl<'a> BatchView<'a> {
    /// Reads the batch at the start of `bytes`; answers it and what follows it.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if the batch is not all there (as at the end of a Fetch answer), others if it is not a
    /// batch v2 or its header contradicts itself.
    pub fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), DecodeError> {
        let header: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(DecodeError::Truncated)?;
        let [magic] = at::<1>(header, 16).map(|byte| byte as i8);
        if magic != MAGIC {
            return Err(DecodeError::UnsupportedMagic(magic));
        }
        let length = i32::from_be_bytes(at(header, 8));
        let length = usize::try_from(length).ok().and_then(|length| length.checked_add(LENGTH_END));
        let length = length.filter(|&length| length >= HEADER_LEN).ok_or(DecodeError::BadLength)?;
        let (whole, rest) = bytes.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        let count = i32::from_be_bytes(at(header, 57));
        let last_offset_delta = i32::from_be_bytes(at(header, 23));
        if count < 0 || i64::from(count) > i64::from(last_offset_delta) + 1 {
            return Err(DecodeError::BadCount);
        }
        let view = Self {
            base_offset: i64::from_be_bytes(at(header, 0)),
            partition_leader_epoch: i32::from_be_bytes(at(header, 12)),
            magic,
            crc: u32::from_be_bytes(at(header, 17)),
            attributes: i16::from_be_bytes(at(header, 21)),
            last_offset_delta,
            base_timestamp: i64::from_be_bytes(at(header, 27)),
            max_timestamp: i64::from_be_bytes(at(header, 35)),
            producer_id: i64::from_be_bytes(at(header, 43)),
            producer_epoch: i16::from_be_bytes(at(header, 51)),
            base_sequence: i32::from_be_bytes(at(header, 53)),
            record_count: count.unsigned_abs(),
            bytes: whole,
            body: whole.get(HEADER_LEN..).unwrap_or_default(),
        };
        Ok((view, rest))
    }

    /// Whether the CRC in the header is that of the bytes.
    #[must_use]
    pub fn check_crc(&self) -> bool {
        crc32c::crc32c(self.bytes.get(CRC_END..).unwrap_or_default()) == self.crc
    }

    /// The whole batch, header included.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The codec's number: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
    #[must_use]
    pub fn codec(&self) -> u8 {
        (self.attributes & CODEC_MASK) as u8
    }

    /// Whether the leader set the timestamps: then every record has [`max_timestamp`](Self::max_timestamp).
    #[must_use]
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    /// Whether it belongs to a transaction.
    #[must_use]
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether its records are control records (commit and abort markers).
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// The producer's stamp, if an idempotent producer wrote the batch.
    #[must_use]
    pub fn stamp(&self) -> Option<Stamp> {
        (self.producer_id >= 0).then_some(Stamp {
            producer_id: self.producer_id,
            epoch: self.producer_epoch,
            base_sequence: self.base_sequence,
        })
    }

    /// The records, decompressed to at most `max_uncompressed` bytes; without compression they are borrowed as they are.
    ///
    /// # Errors
    /// [`DecodeError::UnsupportedCodec`], [`DecodeError::Snappy`] or [`DecodeError::TooLarge`]. Errors within records
    /// come from iterating.
    pub fn records(&self, max_uncompressed: usize) -> Result<Records<'a>, DecodeError> {
        let body = match self.codec() {
            _ if self.record_count == 0 && self.body.is_empty() => Cow::Borrowed(self.body),
            0 if self.body.len() > max_uncompressed => {
                return Err(DecodeError::TooLarge { max: max_uncompressed });
            }
            0 => Cow::Borrowed(self.body),
            2 => Cow::Owned(snappy::decompress(self.body, max_uncompressed)?),
            other => return Err(DecodeError::UnsupportedCodec(other)),
        };
        Ok(Records::new(self, body))
    }
}

/// Why bytes are not a record batch that can be read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end before the batch does.
    #[error("the bytes end before the record batch does")]
    Truncated,
    /// The batch's length is less than its header's.
    #[error("the record batch's length is impossible")]
    BadLength,
    /// Another format than record batch v2.
    #[error("record batch format {0} is not supported, only 2 is")]
    UnsupportedMagic(i8),
    /// Compressed by something else than snappy.
    #[error("compression codec {0} is not supported")]
    UnsupportedCodec(u8),
    /// The record count is negative or more than the offsets that the batch spans.
    #[error("the record batch's count of records is impossible")]
    BadCount,
    /// The records take more bytes than were allowed, uncompressed.
    #[error("the records take more than {max} bytes uncompressed")]
    TooLarge {
        /// The bound that was given, bytes.
        max: usize,
    },
    /// The compressed bytes are not snappy, neither framed nor raw.
    #[error("the records are not valid snappy")]
    Snappy,
    /// A varint is too big for its type.
    #[error("a varint in a record is too big")]
    BadVarint,
    /// A length or count within a record is negative, or beyond the record's end.
    #[error("a length within a record is impossible")]
    BadRecord,
    /// Bytes are left over behind the last field of a record, or behind the last record.
    #[error("bytes are left over behind a record")]
    TrailingBytes,
    /// Offsets within the batch do not rise, or go beyond its last one.
    #[error("the offsets within the record batch are out of order")]
    BadOffset,
    /// A header's key is not UTF-8.
    #[error("a record header's key is not UTF-8")]
    BadHeaderKey,
}
