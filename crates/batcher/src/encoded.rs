//! A batch in its wire format.
//!
//! Rules:
//!  - Only the stamp and the timestamps can change.
//!  - Stamping computes the CRC, and nothing else does.

use crate::decode::BatchView;
use crate::decode_error::DecodeError;
use crate::header::{self, HEADER_LEN, HeaderFields};
use crate::limits::Compression;
use crate::snappy;
use crate::stamp::Stamp;

/// A sealed, encoded record batch v2 with base offset 0 and leader epoch -1. Immutable apart from its stamp and the moment
/// that its timestamps count from.
#[derive(Clone, Debug)]
pub struct EncodedBatch {
    buf: Vec<u8>,
    compression: Compression,
    uncompressed_len: usize,
    records: u32,
    max_timestamp: i64,
    /// The milliseconds by which the records' timestamps were moved.
    moved_ms: i64,
    stamp: Option<Stamp>,
}

impl EncodedBatch {
    pub(crate) fn new(buf: Vec<u8>, compression: Compression, uncompressed_len: usize, fields: &HeaderFields) -> Self {
        Self {
            buf,
            compression,
            uncompressed_len,
            records: fields.records,
            max_timestamp: fields.max_timestamp,
            moved_ms: 0,
            stamp: None,
        }
    }

    /// Reads a batch back that [`as_bytes`](Self::as_bytes) returned, without its stamp. The bytes come from the caller's own
    /// storage, which has checked them: the records are not decoded, and the CRC is not checked.
    ///
    /// # Errors
    /// Returns an error if the bytes are not exactly one batch of this crate.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, DecodeError> {
        let (view, rest) = BatchView::parse(&bytes)?;
        if !rest.is_empty() {
            return Err(DecodeError::TrailingBytes);
        }
        if view.record_count == 0 {
            return Err(DecodeError::BadCount);
        }
        let (compression, uncompressed_len) = match view.codec() {
            0 => (Compression::None, bytes.len()),
            2 => (Compression::Snappy, HEADER_LEN + snappy::decompressed_len(view.body)?),
            other => return Err(DecodeError::UnsupportedCodec(other)),
        };
        let (records, max_timestamp) = (view.record_count, view.max_timestamp);
        let (moved_ms, stamp) = (0, None);
        Ok(Self { buf: bytes, compression, uncompressed_len, records, max_timestamp, moved_ms, stamp })
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
        header::first_timestamp(&self.buf)
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

    /// Moves every record's timestamp by `ms` milliseconds. Records have their timestamps relative to the header's, so they
    /// are not decoded. The CRC is valid after the next [`stamp`](Self::stamp).
    pub fn move_timestamps(&mut self, ms: i64) {
        let first = self.first_timestamp().saturating_add(ms);
        self.max_timestamp = self.max_timestamp.saturating_add(ms);
        self.moved_ms = self.moved_ms.saturating_add(ms);
        header::write_timestamps(&mut self.buf, first, self.max_timestamp);
    }

    /// Returns by how many milliseconds the records' timestamps were moved since the batch was sealed or read.
    #[must_use]
    pub fn moved_ms(&self) -> i64 {
        self.moved_ms
    }

    /// Returns the batch with this note of an earlier move.
    pub(crate) fn with_moved_ms(mut self, ms: i64) -> Self {
        self.moved_ms = ms;
        self
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer_pool::BufferPool;
    use crate::raw::RawBatch;
    use crate::record::{Layout, Record};

    fn batch(compression: Compression, values: &[&[u8]]) -> EncodedBatch {
        let mut raw = RawBatch::new(Vec::new());
        for (at, value) in (0..).zip(values) {
            let record = Record { key: Some(b"k"), value: Some(value), headers: &[], timestamp: 1000 + at };
            let layout: Layout = raw.layout(record.payload_len(), record.timestamp);
            raw.append(&record, layout);
        }
        raw.finish(compression, &BufferPool::new(0))
    }

    #[test]
    fn stored_bytes_are_the_batch() {
        let long = vec![b'v'; 100_000];
        for compression in [Compression::None, Compression::Snappy] {
            let mut before = batch(compression, &[&long, b"w", &long]);
            let mut after = EncodedBatch::from_bytes(before.as_bytes().to_vec()).unwrap();
            assert_eq!((after.record_count(), after.uncompressed_len()), (3, before.uncompressed_len()));
            assert_eq!((after.first_timestamp(), after.max_timestamp()), (1000, 1002));
            assert_eq!((after.compression(), after.current_stamp()), (before.compression(), None));
            let stamp = Stamp { producer_id: 7, epoch: 1, base_sequence: 40 };
            before.stamp(stamp);
            after.stamp(stamp);
            assert_eq!(before.as_bytes(), after.as_bytes());
        }
    }

    #[test]
    fn timestamps_move_without_decoding() {
        let long = vec![b'v'; 10_000];
        for compression in [Compression::None, Compression::Snappy] {
            let mut moved = batch(compression, &[&long, b"w", &long]);
            moved.move_timestamps(5_000);
            assert_eq!((moved.first_timestamp(), moved.max_timestamp(), moved.moved_ms()), (6000, 6002, 5000));
            moved.stamp(Stamp { producer_id: 7, epoch: 1, base_sequence: 40 });
            let (front, back) = moved.split_at(1).unwrap().unwrap();
            let without = moved.without(&[0]).unwrap().unwrap();
            for (batch, expected) in [(&moved, &[6000, 6001, 6002][..]), (&front, &[6000]), (&back, &[6001, 6002])] {
                let (view, _) = BatchView::parse(batch.as_bytes()).unwrap();
                assert!(batch.current_stamp().is_none() || view.check_crc());
                let records = view.records(usize::MAX).unwrap();
                let times: Vec<_> = (&records).into_iter().map(|record| record.unwrap().timestamp).collect();
                assert_eq!((&times[..], batch.moved_ms()), (expected, 5000));
            }
            assert_eq!((without.first_timestamp(), without.moved_ms()), (6001, 5000));
        }
    }

    #[test]
    fn other_bytes_are_no_batch() {
        let bytes = batch(Compression::None, &[b"v"]).as_bytes().to_vec();
        assert_eq!(EncodedBatch::from_bytes(bytes[..69].to_vec()).unwrap_err(), DecodeError::Truncated);
        assert_eq!(EncodedBatch::from_bytes([&bytes[..], b"x"].concat()).unwrap_err(), DecodeError::TrailingBytes);
    }
}
