//! Validation of a request's lengths, before generated code decodes the request.
//!
//! Rules:
//! - The generated decoders reserve memory by the length that they read, and a count of 2^31 in 17 bytes would end the
//!   process. The walk therefore checks each count against the remaining bytes, and bounds the sum of all counts.
//! - The walk visits the fields that the decoder reads, in the same order and version. A tagged field that the decoder
//!   knows must have exactly its stated size. No bytes may remain at the end.

use super::schema::{Field, FieldType, Schema, Tag};

/// The maximum number of array elements and tagged fields in one request. A decoder allocates up to about 200 bytes for
/// each.
const MAX_ELEMENTS: usize = 32_768;

/// A request with an invalid part, or an answer that is too large to encode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Validates the lengths of a request's body.
pub(crate) fn walk(schema: &Schema, version: i16, body: &[u8]) -> Result<(), Malformed> {
    let mut walker = Walker::new(body, schema.is_flexible(version));
    walker.version = version;
    walker.fields(schema.fields)?;
    walker.tags(schema.tags)?;
    if walker.rest.is_empty() { Ok(()) } else { Err(Malformed("length")) }
}

/// The remaining bytes of a request.
pub(crate) struct Walker<'a> {
    rest: &'a [u8],
    flexible: bool,
    version: i16,
    elements_left: usize,
}

impl<'a> Walker<'a> {
    pub(crate) fn new(rest: &'a [u8], flexible: bool) -> Self {
        Self { rest, flexible, version: 0, elements_left: MAX_ELEMENTS }
    }

    pub(crate) fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    /// Returns the number of remaining bytes.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn skip(&mut self, bytes: usize, part: &'static str) -> Result<&'a [u8], Malformed> {
        let (skipped, rest) = self.rest.split_at_checked(bytes).ok_or(Malformed(part))?;
        self.rest = rest;
        Ok(skipped)
    }

    fn fixed<const N: usize>(&mut self, part: &'static str) -> Result<[u8; N], Malformed> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed(part))?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// Reads an unsigned varint of at most 32 bits. A longer varint is refused, because decoders disagree on its value.
    fn varint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0_u64;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.fixed::<1>("varint")?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| Malformed("varint"));
            }
        }
        Err(Malformed("varint"))
    }

    /// Reads a length or count. Null is 0. A `short` length has 16 bits in versions without varints, any other 32.
    fn length(&mut self, short: bool, part: &'static str) -> Result<usize, Malformed> {
        let length = if self.flexible {
            i64::from(self.varint()?) - 1
        } else if short {
            i64::from(i16::from_be_bytes(self.fixed(part)?))
        } else {
            i64::from(i32::from_be_bytes(self.fixed(part)?))
        };
        match length {
            -1 => Ok(0),
            _ => usize::try_from(length).map_err(|_| Malformed(part)),
        }
    }

    pub(crate) fn string(&mut self) -> Result<(), Malformed> {
        let length = self.length(true, "string")?;
        self.skip(length, "string").map(drop)
    }

    fn bytes(&mut self) -> Result<(), Malformed> {
        let length = self.length(false, "bytes")?;
        self.skip(length, "bytes").map(drop)
    }

    fn count_elements(&mut self, count: usize) -> Result<(), Malformed> {
        self.elements_left = self.elements_left.checked_sub(count).ok_or(Malformed("element count"))?;
        Ok(())
    }

    /// Reads the count of an array. Every element has at least one byte.
    fn count(&mut self) -> Result<usize, Malformed> {
        let count = self.length(false, "array")?;
        if count > self.rest.len() {
            return Err(Malformed("array"));
        }
        self.count_elements(count)?;
        Ok(count)
    }

    fn fields(&mut self, fields: &[Field]) -> Result<(), Malformed> {
        let version = self.version;
        fields.iter().filter(|field| field.is_in(version)).try_for_each(|field| self.value(&field.kind))
    }

    fn value(&mut self, kind: &FieldType) -> Result<(), Malformed> {
        match kind {
            FieldType::Fixed(bytes) => self.skip(*bytes, "number").map(drop),
            FieldType::String => self.string(),
            FieldType::Bytes => self.bytes(),
            FieldType::Values(kind) => (0..self.count()?).try_for_each(|_| self.value(kind)),
            FieldType::Structs(fields) => (0..self.count()?).try_for_each(|_| self.structure(fields)),
            FieldType::Struct(fields) => self.structure(fields),
        }
    }

    fn structure(&mut self, fields: &[Field]) -> Result<(), Malformed> {
        self.fields(fields)?;
        self.tags(&[])
    }

    /// Reads the tagged fields of a flexible version.
    pub(crate) fn tags(&mut self, known: &[Tag]) -> Result<(), Malformed> {
        if !self.flexible {
            return Ok(());
        }
        let count = self.varint()? as usize;
        self.count_elements(count)?;
        for _ in 0..count {
            let number = self.varint()?;
            let size = self.varint()? as usize;
            let content = self.skip(size, "tagged field")?;
            if let Some(tag) = known.iter().find(|tag| tag.number == number && self.version >= tag.since) {
                let outer = std::mem::replace(&mut self.rest, content);
                self.value(&tag.kind)?;
                if !self.rest.is_empty() {
                    return Err(Malformed("tagged field"));
                }
                self.rest = outer;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
