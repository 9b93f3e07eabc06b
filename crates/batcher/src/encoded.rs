//! A batch in its wire format.
//!
//! Rules:
//!  - Only the stamp can change.
//!  - Stamping computes the CRC, and nothing else does.

use crate::header::{self, HeaderFields};
use crate::limits::Compression;
use crate::stamp::Stamp;

/// A sealed, encoded record batch v2 with base offset 0 and leader epoch -1. Immutable apart from its stamp.
#[derive(Clone, Debug)]
pub struct EncodedBatch {
    buf: Vec<u8>,
    compression: Compression,
    uncompressed_len: usize,
    records: u32,
    first_timestamp: i64,
    max_timestamp: i64,
    stamp: Option<Stamp>,
}

impl EncodedBatch {
    pub(crate) fn new(buf: Vec<u8>, compression: Compression, uncompressed_len: usize, fields: &HeaderFields) -> Self {
        Self {
            buf,
            compression,
            uncompressed_len,
            records: fields.records,
            first_timestamp: fields.base_timestamp,
            max_timestamp: fields.max_timestamp,
            stamp: None,
        }
    }

    /// Returns the whole batch, header included. The CRC is valid after the first [`stamp`](Self::stamp).
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.buf
    }

    /// Returns the bytes on the wire, header included.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a batch has at least a header and one record")]
    pub fn len(&self) -> usize {
        self.buf.len()
    }

    /// Returns the number of records, at least one.
    #[must_use]
    pub fn record_count(&self) -> u32 {
        self.records
    }

    /// Returns the bytes on the wire before compression, header included.
    #[must_use]
    pub fn uncompressed_len(&self) -> usize {
        self.uncompressed_len
    }

    /// Returns the codec. Records that compression does not shrink are sent uncompressed, whatever the producer's
    /// setting.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Returns the first record's timestamp, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn first_timestamp(&self) -> i64 {
        self.first_timestamp
    }

    /// Returns the latest timestamp of the records, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    /// Writes producer id, epoch and base sequence, then computes the CRC-32C of the batch.
    pub fn stamp(&mut self, stamp: Stamp) {
        header::write_stamp(&mut self.buf, stamp);
        self.stamp = Some(stamp);
    }

    /// Returns the batch's stamp, or `None` before the first [`stamp`](Self::stamp).
    #[must_use]
    pub fn current_stamp(&self) -> Option<Stamp> {
        self.stamp
    }

    /// Returns the memory that the batch holds, in bytes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.buf.capacity()
    }

    /// Returns the batch's buffer, for a [`BufferPool`](crate::BufferPool).
    #[must_use]
    pub fn into_buffer(self) -> Vec<u8> {
        self.buf
    }

    pub(crate) fn shrink_to_fit(&mut self) {
        self.buf.shrink_to_fit();
    }
}
