//! Iterates over the records of a decoded batch.
//!
//! Rules:
//!  - A record is exactly as long as its length field says.
//!  - Iteration ends after the first error.
//!  - Headers are collected one by one, so that a header count reserves no memory.

use crate::decode::BatchView;
use crate::decode_error::DecodeError;
use crate::record::{Header, Record};
use crate::snappy;
use crate::varint::{self, VarintError};
use std::borrow::Cow;

/// The uncompressed records of one batch: borrowed, or owned after decompression.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    body: Cow<'a, [u8]>,
    count: u32,
    base_timestamp: i64,
    append_time: Option<i64>,
    last_offset_delta: i32,
}

impl<'a> BatchView<'a> {
    /// Decompresses the records to at most `max_uncompressed` bytes. Uncompressed records are borrowed.
    ///
    /// # Errors
    /// Returns [`DecodeError::UnsupportedCodec`], [`DecodeError::Snappy`] or [`DecodeError::TooLarge`]. The iterator
    /// reports errors within records.
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

impl<'a> Records<'a> {
    pub(crate) fn new(batch: &BatchView<'a>, body: Cow<'a, [u8]>) -> Self {
        Self {
            body,
            count: batch.record_count,
            base_timestamp: batch.base_timestamp,
            append_time: batch.is_log_append_time().then_some(batch.max_timestamp),
            last_offset_delta: batch.last_offset_delta,
        }
    }

    /// Iterates over the records in order. Yields as many as the header states, or ends with an error.
    #[must_use]
    pub fn iter(&self) -> RecordIter<'_> {
        RecordIter { records: self, rest: &self.body, left: self.count, last_offset: -1, done: false }
    }
}

impl<'r> IntoIterator for &'r Records<'_> {
    type Item = Result<DecodedRecord<'r>, DecodeError>;
    type IntoIter = RecordIter<'r>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// A decoded record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodedRecord<'r> {
    /// The record's offset minus the batch's base offset.
    pub offset_delta: i32,
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
    /// The key. `None` is null.
    pub key: Option<&'r [u8]>,
    /// The value. `None` is null.
    pub value: Option<&'r [u8]>,
    /// The headers, in order.
    pub headers: Vec<Header<'r>>,
}

impl DecodedRecord<'_> {
    /// Returns the record in the form that a batch accepts.
    #[must_use]
    pub fn as_record(&self) -> Record<'_> {
        Record { key: self.key, value: self.value, headers: &self.headers, timestamp: self.timestamp }
    }
}

/// An iterator over [`Records`].
#[derive(Clone, Debug)]
pub struct RecordIter<'r> {
    records: &'r Records<'r>,
    rest: &'r [u8],
    left: u32,
    last_offset: i32,
    done: bool,
}

impl<'r> Iterator for RecordIter<'r> {
    type Item = Result<DecodedRecord<'r>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        if self.left == 0 {
            self.done = true;
            return (!self.rest.is_empty()).then_some(Err(DecodeError::TrailingBytes));
        }
        self.left -= 1;
        let record = self.read();
        self.done = record.is_err();
        Some(record)
    }
}

impl<'r> RecordIter<'r> {
    fn read(&mut self) -> Result<DecodedRecord<'r>, DecodeError> {
        let mut outer = RecordFields { rest: self.rest };
        let length = outer.varint()?;
        let mut fields = RecordFields { rest: outer.bytes(length)? };
        self.rest = outer.rest;
        // Attributes: none are defined, and Java's readers ignore them.
        fields.bytes(1)?;
        let timestamp_delta = fields.varlong()?;
        let offset_delta = self.offset(fields.varint()?)?;
        let record = DecodedRecord {
            offset_delta,
            timestamp: self.timestamp(timestamp_delta),
            key: fields.sized()?,
            value: fields.sized()?,
            headers: fields.headers()?,
        };
        match fields.rest {
            [] => Ok(record),
            _ => Err(DecodeError::TrailingBytes),
        }
    }

    fn timestamp(&self, delta: i64) -> i64 {
        let created = self.records.base_timestamp.wrapping_add(delta);
        self.records.append_time.unwrap_or(created)
    }

    fn offset(&mut self, delta: i64) -> Result<i32, DecodeError> {
        let delta = i32::try_from(delta).map_err(|_| DecodeError::BadOffset)?;
        if delta <= self.last_offset || delta > self.records.last_offset_delta {
            return Err(DecodeError::BadOffset);
        }
        self.last_offset = delta;
        Ok(delta)
    }
}

/// The unread bytes of a record.
struct RecordFields<'r> {
    rest: &'r [u8],
}

impl<'r> RecordFields<'r> {
    fn varint(&mut self) -> Result<i64, DecodeError> {
        self.number(32)
    }

    fn varlong(&mut self) -> Result<i64, DecodeError> {
        self.number(64)
    }

    fn number(&mut self, bits: u32) -> Result<i64, DecodeError> {
        let (value, rest) = varint::read(self.rest, bits).map_err(|error| match error {
            VarintError::Truncated => DecodeError::BadRecord,
            VarintError::TooBig => DecodeError::BadVarint,
        })?;
        self.rest = rest;
        Ok(value)
    }

    fn bytes(&mut self, length: i64) -> Result<&'r [u8], DecodeError> {
        let length = usize::try_from(length).map_err(|_| DecodeError::BadRecord)?;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::BadRecord)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Reads a length, of which -1 is null, and that number of bytes.
    fn sized(&mut self) -> Result<Option<&'r [u8]>, DecodeError> {
        match self.varint()? {
            -1 => Ok(None),
            length => self.bytes(length).map(Some),
        }
    }

    fn headers(&mut self) -> Result<Vec<Header<'r>>, DecodeError> {
        let count = self.varint()?;
        if count < 0 {
            return Err(DecodeError::BadRecord);
        }
        (0..count).map(|_| self.header()).collect()
    }

    fn header(&mut self) -> Result<Header<'r>, DecodeError> {
        let length = self.varint()?;
        let key = std::str::from_utf8(self.bytes(length)?).map_err(|_| DecodeError::BadHeaderKey)?;
        let value = self.sized()?;
        Ok(Header { key, value })
    }
}
