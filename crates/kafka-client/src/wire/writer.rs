//! Writes Kafka's primitive types.
//!
//! Rule: lengths fit by construction, because the sender's own data is written. The callers' limits are far below
//! strings of 32,767 bytes and arrays of `i32::MAX` elements.

use crate::ids::{NO_UUID, TopicUuid};

/// Appends to a request's bytes.
pub(crate) struct WireWriter<'a> {
    pub(crate) out: &'a mut Vec<u8>,
    flexible: bool,
}

impl<'a> WireWriter<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>, flexible: bool) -> Self {
        Self { out, flexible }
    }

    pub(crate) fn i8(&mut self, value: i8) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn i16(&mut self, value: i16) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn i32(&mut self, value: i32) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// Writes a topic id, which is all zeros where there is none.
    pub(crate) fn uuid(&mut self, uuid: Option<TopicUuid>) {
        self.out.extend_from_slice(&uuid.unwrap_or(NO_UUID));
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    fn unsigned_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.out.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.out.push(value.to_le_bytes()[0]);
    }

    fn length(&mut self, length: Option<usize>, long: bool) {
        let length = length.map(|n| i32::try_from(n).unwrap_or(i32::MAX));
        match (self.flexible, long) {
            (true, _) => self.unsigned_varint(length.map_or(0, |n| n.cast_unsigned() + 1)),
            (false, true) => self.i32(length.unwrap_or(-1)),
            (false, false) => self.i16(length.map_or(-1, |n| i16::try_from(n).unwrap_or(i16::MAX))),
        }
    }

    pub(crate) fn string(&mut self, text: &str) {
        self.length(Some(text.len()), false);
        self.out.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn null_string(&mut self) {
        self.length(None, false);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.bytes_len(bytes.len());
        self.out.extend_from_slice(bytes);
    }

    /// Writes the length of bytes that are written elsewhere.
    pub(crate) fn bytes_len(&mut self, len: usize) {
        self.length(Some(len), true);
    }

    /// Writes the element count of an array.
    pub(crate) fn count(&mut self, count: usize) {
        self.length(Some(count), true);
    }

    /// Writes an empty list of tagged fields, if the version has tags.
    pub(crate) fn no_tags(&mut self) {
        if self.flexible {
            self.out.push(0);
        }
    }
}
