//! One record from a caller, and its bytes in a record batch v2.
//!
//! Rules:
//!  - Null and empty always differ.
//!  - The length is known before the first byte is written, and equals the bytes that are written.

use crate::varint;

/// A record header: a key and a value that may be null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The header's key. Keys may repeat, and their order is kept.
    pub key: &'a str,
    /// The header's value. `None` is null, which differs from empty.
    pub value: Option<&'a [u8]>,
}

/// A borrowed record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The key. `None` is null, which differs from empty.
    pub key: Option<&'a [u8]>,
    /// The value. `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers, in order.
    pub headers: &'a [Header<'a>],
    /// Milliseconds since the Unix epoch (Kafka's `CreateTime`).
    pub timestamp: i64,
}

/// A record's position in its batch, and the record's length at that position.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) offset_delta: u32,
    pub(crate) timestamp_delta: i64,
    /// Bytes after the length varint.
    body: usize,
}

impl Layout {
    /// Computes the layout. `payload` is the record's [`Record::payload_len`].
    pub(crate) fn new(payload: usize, offset_delta: u32, timestamp_delta: i64) -> Self {
        let deltas = varint::len(timestamp_delta) + varint::len(i64::from(offset_delta));
        Self { offset_delta, timestamp_delta, body: payload.saturating_add(1 + deltas) }
    }

    /// Returns the number of bytes that the record adds to its batch.
    pub(crate) fn len(&self) -> usize {
        self.body.saturating_add(varint::len(self.body as i64))
    }
}

fn sized_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varint::len(bytes.len() as i64).saturating_add(bytes.len()))
}

impl Record<'_> {
    /// Returns the bytes of key, value and headers with their lengths. They do not depend on the position in the batch.
    pub(crate) fn payload_len(&self) -> usize {
        let count = varint::len(self.headers.len() as i64);
        let plain = sized_len(self.key).saturating_add(sized_len(self.value)).saturating_add(count);
        self.headers.iter().fold(plain, |sum, header| {
            sum.saturating_add(sized_len(Some(header.key.as_bytes()))).saturating_add(sized_len(header.value))
        })
    }

    /// Appends the record with its layout in this batch.
    pub(crate) fn write(&self, layout: Layout, out: &mut Vec<u8>) {
        varint::put(layout.body as i64, out);
        out.push(0);
        varint::put(layout.timestamp_delta, out);
        varint::put(i64::from(layout.offset_delta), out);
        varint::put_sized(self.key, out);
        varint::put_sized(self.value, out);
        varint::put(self.headers.len() as i64, out);
        for header in self.headers {
            varint::put_sized(Some(header.key.as_bytes()), out);
            varint::put_sized(header.value, out);
        }
    }
}
