//! Decodes record batches from untrusted bytes, strictly.
//!
//! Rules:
//!  - Every length is checked against the remaining bytes before use.
//!  - No memory is reserved by a length from the input.
//!  - Inconsistent input is an error.

use crate::decode_error::DecodeError;
use crate::header::{CRC_END, HEADER_LEN, LENGTH_END, MAGIC};
use crate::stamp::Stamp;

const CODEC_MASK: i16 = 0b111;
const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// One record batch v2 with its header decoded. Records are decoded by [`records`](Self::records).
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    /// Offset of the first record. Producers send 0.
    pub base_offset: i64,
    /// Epoch of the leader that appended the batch. Producers send -1.
    pub partition_leader_epoch: i32,
    /// Batch format, always 2.
    pub magic: i8,
    /// CRC-32C of the bytes after this field. See [`check_crc`](Self::check_crc).
    pub crc: u32,
    /// Codec (bits 0 to 2), timestamp type (3), transactional (4), control (5).
    pub attributes: i16,
    /// Offset of the last record minus the base offset. At least `record_count - 1`.
    pub last_offset_delta: i32,
    /// Base of the records' timestamp deltas, in milliseconds since the Unix epoch.
    pub base_timestamp: i64,
    /// Latest timestamp, in milliseconds since the Unix epoch.
    pub max_timestamp: i64,
    /// Producer id, -1 if the producer is not idempotent.
    pub producer_id: i64,
    /// Producer epoch, -1 if the producer is not idempotent.
    pub producer_epoch: i16,
    /// Sequence number of the first record, -1 if the producer is not idempotent.
    pub base_sequence: i32,
    /// Record count in the header.
    pub record_count: u32,
    bytes: &'a [u8],
    pub(crate) body: &'a [u8],
}

fn at<const N: usize>(header: &[u8; HEADER_LEN], start: usize) -> [u8; N] {
    let field = header.get(start..).and_then(|rest| rest.first_chunk());
    field.copied().unwrap_or([0; N])
}

impl<'a> BatchView<'a> {
    /// Decodes the header of the batch at the start of `bytes`. Returns the batch and the remaining bytes.
    ///
    /// # Errors
    /// Returns [`DecodeError::Truncated`] if the batch is incomplete (as at the end of a Fetch response), and another
    /// error if the bytes are no batch v2 or the header contradicts itself.
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

    /// Returns whether the CRC in the header matches the bytes.
    #[must_use]
    pub fn check_crc(&self) -> bool {
        crc32c::crc32c(self.bytes.get(CRC_END..).unwrap_or_default()) == self.crc
    }

    /// Returns the whole batch, header included.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the codec's number: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
    #[must_use]
    pub fn codec(&self) -> u8 {
        (self.attributes & CODEC_MASK) as u8
    }

    /// Returns whether the leader set the timestamps. Every record then has [`max_timestamp`](Self::max_timestamp).
    #[must_use]
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    /// Returns whether the batch belongs to a transaction.
    #[must_use]
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Returns whether the batch holds control records (commit and abort markers).
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Returns the producer's stamp if an idempotent producer wrote the batch.
    #[must_use]
    pub fn stamp(&self) -> Option<Stamp> {
        (self.producer_id >= 0).then_some(Stamp {
            producer_id: self.producer_id,
            epoch: self.producer_epoch,
            base_sequence: self.base_sequence,
        })
    }
}
