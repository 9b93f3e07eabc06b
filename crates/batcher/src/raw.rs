//! An open batch: room for the header, then the records in their wire format.
//!
//! Rules:
//!  - Every record is written once, after the room for the header, so that an uncompressed batch is never copied.
//!  - The exact size of a record is known before the record is written.

use crate::buffer_pool::BufferPool;
use crate::encoded::EncodedBatch;
use crate::header::{self, HEADER_LEN, HeaderFields};
use crate::limits::Compression;
use crate::record::{Layout, Record};
use crate::snappy;

/// Uncompressed records of a batch, and the values for its header.
#[derive(Debug)]
pub(crate) struct RawBatch {
    buf: Vec<u8>,
    records: u32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl RawBatch {
    pub(crate) fn new(mut buf: Vec<u8>) -> Self {
        buf.clear();
        buf.extend_from_slice(&[0; HEADER_LEN]);
        Self { buf, records: 0, base_timestamp: 0, max_timestamp: i64::MIN }
    }

    /// Returns the bytes of the whole batch before compression.
    pub(crate) fn len(&self) -> usize {
        self.buf.len()
    }

    pub(crate) fn records(&self) -> u32 {
        self.records
    }

    pub(crate) fn capacity(&self) -> usize {
        self.buf.capacity()
    }

    /// Returns the layout of a record that is appended next.
    pub(crate) fn layout(&self, payload: usize, timestamp: i64) -> Layout {
        let timestamp_delta = match self.records {
            0 => 0,
            // Wraps as in Java, whose readers add the delta with the same wrap-around.
            _ => timestamp.wrapping_sub(self.base_timestamp),
        };
        Layout::new(payload, self.records, timestamp_delta)
    }

    /// Moves the batch into a buffer of another capacity and returns the old buffer to the pool.
    pub(crate) fn grow(&mut self, capacity: usize, pool: &BufferPool) {
        let mut bigger = pool.get(capacity);
        bigger.extend_from_slice(&self.buf);
        pool.put(std::mem::replace(&mut self.buf, bigger));
    }

    /// Appends a record with the layout from [`RawBatch::layout`]. Returns the record's index.
    pub(crate) fn append(&mut self, record: &Record<'_>, layout: Layout) -> u32 {
        if self.records == 0 {
            self.base_timestamp = record.timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        record.write(layout, &mut self.buf);
        self.records += 1;
        layout.offset_delta
    }

    /// Compresses the records if that shrinks them, then writes the header. The result holds no more memory than
    /// before.
    pub(crate) fn finish(self, compression: Compression, pool: &BufferPool) -> EncodedBatch {
        let uncompressed_len = self.buf.len();
        let compressed = match compression {
            Compression::None => None,
            Compression::Snappy => snappy::compress_batch(&self.buf, pool),
        };
        let (mut buf, codec) = match compressed {
            Some(smaller) => {
                pool.put(self.buf);
                (pool.fit(smaller, 1), compression)
            }
            // A copy is worth its cost only if it frees at least three quarters.
            None => (pool.fit(self.buf, 2), Compression::None),
        };
        let fields = HeaderFields {
            batch_len: buf.len(),
            attributes: codec.bits(),
            records: self.records,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
        };
        if let Some(room) = buf.first_chunk_mut::<HEADER_LEN>() {
            *room = header::unstamped(&fields);
        }
        EncodedBatch::new(buf, codec, uncompressed_len, &fields)
    }
}
