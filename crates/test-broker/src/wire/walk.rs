//! A walk over a request's lengths, before generated code decodes it.
//!
//! Rules:
//! - The generated decoders reserve memory by the length they read: a count of 2^31 in 17 bytes would end the process. So
//!   each count is proved to fit the bytes that are left, and all counts together are bounded.
//! - What is walked is what the decoder will read: the same fields, in the same order, of the same version. A tagged field
//!   that the decoder knows must end where its size says. Nothing may be left over.

use super::schema::{Field, Kind, Schema, Tag};

/// Elements of arrays and tagged fields in one request; a decoder takes up to some 200 bytes for each.
const MAX_ELEMENTS: usize = 32_768;

/// Bytes that are not what they should be; it names the part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request is malformed at {0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Walks a request's body.
pub(crate) fn walk(schema: &Schema, version: i16, body: &[u8]) -> Result<(), Malformed> {
    let mut walker = Walker::new(body, schema.is_flexible(version));
    walker.version = version;
    walker.fields(schema.fields)?;
    walker.tags(schema.tags)?;
    if walker.rest.is_empty() { Ok(()) } else { Err(Malformed("its end")) }
}

/// What is left of a request.
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

    /// Bytes that are left.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    fn skip(&mut self, bytes: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let (skipped, rest) = self.rest.split_at_checked(bytes).ok_or(Malformed(what))?;
        self.rest = rest;
        Ok(skipped)
    }

    fn fixed<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed(what))?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// An unsigned varint of at most 32 bits. One that is longer is refused: decoders differ on what it means.
    fn varint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0_u64;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.fixed::<1>("a varint")?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| Malformed("a varint"));
            }
        }
        Err(Malformed("a varint"))
    }

    /// A length or count; null counts as none. `short` lengths are 16 bits wide where they are not varints.
    fn length(&mut self, short: bool, what: &'static str) -> Result<usize, Malformed> {
        let length = if self.flexible {
            i64::from(self.varint()?) - 1
        } else if short {
            i64::from(i16::from_be_bytes(self.fixed(what)?))
        } else {
            i64::from(i32::from_be_bytes(self.fixed(what)?))
        };
        match length {
            -1 => Ok(0),
            _ => usize::try_from(length).map_err(|_| Malformed(what)),
        }
    }

    pub(crate) fn string(&mut self) -> Result<(), Malformed> {
        let length = self.length(true, "a string")?;
        self.skip(length, "a string").map(drop)
    }

    fn bytes(&mut self) -> Result<(), Malformed> {
        let length = self.length(false, "bytes")?;
        self.skip(length, "bytes").map(drop)
    }

    fn take_elements(&mut self, count: usize) -> Result<(), Malformed> {
        self.elements_left = self.elements_left.checked_sub(count).ok_or(Malformed("the number of elements"))?;
        Ok(())
    }

    /// The count of an array whose elements take at least a byte each.
    fn count(&mut self) -> Result<usize, Malformed> {
        let count = self.length(false, "an array")?;
        if count > self.rest.len() {
            return Err(Malformed("an array"));
        }
        self.take_elements(count)?;
        Ok(count)
    }

    fn fields(&mut self, fields: &[Field]) -> Result<(), Malformed> {
        let version = self.version;
        fields.iter().filter(|field| field.is_in(version)).try_for_each(|field| self.value(&field.kind))
    }

    fn value(&mut self, kind: &Kind) -> Result<(), Malformed> {
        match kind {
            Kind::Fixed(bytes) => self.skip(*bytes, "a number").map(drop),
            Kind::String => self.string(),
            Kind::Bytes => self.bytes(),
            Kind::Values(kind) => (0..self.count()?).try_for_each(|_| self.value(kind)),
            Kind::Structs(fields) => (0..self.count()?).try_for_each(|_| self.structure(fields)),
            Kind::Struct(fields) => self.structure(fields),
        }
    }

    fn structure(&mut self, fields: &[Field]) -> Result<(), Malformed> {
        self.fields(fields)?;
        self.tags(&[])
    }

    /// Tagged fields, in flexible versions.
    pub(crate) fn tags(&mut self, known: &[Tag]) -> Result<(), Malformed> {
        if !self.flexible {
            return Ok(());
        }
        let count = self.varint()? as usize;
        self.take_elements(count)?;
        for _ in 0..count {
            let number = self.varint()?;
            let size = self.varint()? as usize;
            let content = self.skip(size, "a tagged field")?;
            if let Some(tag) = known.iter().find(|tag| tag.number == number && self.version >= tag.since) {
                let outer = std::mem::replace(&mut self.rest, content);
                self.value(&tag.kind)?;
                if !self.rest.is_empty() {
                    return Err(Malformed("a tagged field"));
                }
                self.rest = outer;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
