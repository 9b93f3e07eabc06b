//! A batch as it goes on the wire.
//!
//! Rules: nothing of it changes but its stamp; the CRC is computed when it is stamped, and only then.

use crate::header::{self, HeaderFields};
use crate::limits::Compression;
use crate::stamp::Stamp;

/// A sealed, encoded record batch v2: base offset 0, leader epoch -1, immutable but for its stamp.
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

    /// The whole batch, header included. Its CRC is right from the first [`stamp`](Self::stamp) on.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.buf
    }

    /// Bytes on the wire, header included.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a batch has at least a header and one record")]
    pub fn len(&self) -> usize {
        self.buf.len()
    }

    /// How many records it holds; at least one.
    #[must_use]
    pub fn record_count(&self) -> u32 {
        self.records
    }

    /// Bytes that it would take on the wire uncompressed, header included.
    #[must_use]
    pub fn uncompressed_len(&self) -> usize {
        self.uncompressed_len
    }

    /// How it is compressed: not always as was asked for, since what does not get smaller is left as it is.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// The first record's timestamp, milliseconds since the Unix epoch.
    #[must_use]
    pub fn first_timestamp(&self) -> i64 {
        self.first_timestamp
    }

    /// The latest timestamp among the records, milliseconds since the Unix epoch.
    #[must_use]
    pub fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    /// Writes producer id, epoch and base sequence, and computes the CRC-32C over all of the batch.
    pub fn stamp(&mut self, stamp: Stamp) {
        header::write_stamp(&mut self.buf, stamp);
        self.stamp = Some(stamp);
    }

    /// The stamp that it carries, if it was ever stamped.
    #[must_use]
    pub fn current_stamp(&self) -> Option<Stamp> {
        self.stamp
    }

    /// Bytes of memory that it holds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.buf.capacity()
    }

    /// Its buffer, to be given back to a [`BufferPool`](crate::BufferPool).
    #[must_use]
    pub fn into_buffer(self) -> Vec<u8> {
        self.buf
    }

    pub(crate) fn shrink_to_fit(&mut self) {
        self.buf.shrink_to_fit();
    }
}
