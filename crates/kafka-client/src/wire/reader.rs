//! Reads Kafka's primitive types, and the address of a broker, from untrusted bytes.
//!
//! Rules:
//! - A length is checked against the remaining bytes before memory is reserved for it.
//! - Missing bytes are an error, never a panic.
//! - Encodings: "Protocol Primitive Types" of the Kafka protocol guide. Compact forms and tags: KIP-482.

use crate::ids::{BrokerAddress, BrokerId, NO_UUID, TopicUuid};
use std::sync::Arc;

/// Why an answer can't be decoded.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WireError {
    /// The bytes end before the announced length.
    #[error("the answer ends {missing} bytes too early, in {what}")]
    Truncated {
        /// The field.
        what: &'static str,
        /// The least number of missing bytes.
        missing: u64,
    },
    /// A number, length or text is invalid.
    #[error("the answer has an invalid {what}")]
    Malformed {
        /// The field.
        what: &'static str,
    },
}

/// A cursor over an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WireReader<'a> {
    rest: &'a [u8],
    /// Whether this version has compact lengths and tags.
    pub(crate) flexible: bool,
}

impl<'a> WireReader<'a> {
    pub(crate) fn new(rest: &'a [u8], flexible: bool) -> Self {
        Self { rest, flexible }
    }

    fn take(&mut self, n: usize, what: &'static str) -> Result<&'a [u8], WireError> {
        match self.rest.split_at_checked(n) {
            Some((head, rest)) => {
                self.rest = rest;
                Ok(head)
            }
            None => Err(WireError::Truncated { what, missing: (n - self.rest.len()) as u64 }),
        }
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], WireError> {
        let bytes = self.take(N, what)?;
        bytes.try_into().map_err(|_| WireError::Malformed { what })
    }

    pub(crate) fn i8(&mut self, what: &'static str) -> Result<i8, WireError> {
        Ok(i8::from_be_bytes(self.array(what)?))
    }

    pub(crate) fn i16(&mut self, what: &'static str) -> Result<i16, WireError> {
        Ok(i16::from_be_bytes(self.array(what)?))
    }

    pub(crate) fn i32(&mut self, what: &'static str) -> Result<i32, WireError> {
        Ok(i32::from_be_bytes(self.array(what)?))
    }

    pub(crate) fn i64(&mut self, what: &'static str) -> Result<i64, WireError> {
        Ok(i64::from_be_bytes(self.array(what)?))
    }

    /// Reads a number that is negative where there is none.
    pub(crate) fn optional_i64(&mut self, what: &'static str) -> Result<Option<i64>, WireError> {
        Ok(Some(self.i64(what)?).filter(|value| *value >= 0))
    }

    /// Reads a broker's id, host, port and rack, with the tags behind them. Kafka sends the port as a 32-bit number.
    pub(crate) fn broker_address(&mut self) -> Result<BrokerAddress, WireError> {
        let id = BrokerId(self.i32("node id")?);
        let host = self.display_text("host")?.ok_or(WireError::Malformed { what: "host" })?;
        let port = u16::try_from(self.i32("port")?).map_err(|_| WireError::Malformed { what: "port" })?;
        self.nullable_string("rack")?;
        self.skip_tags()?;
        Ok(BrokerAddress { id, host, port })
    }

    /// Reads a topic id, which is all zeros where there is none.
    pub(crate) fn uuid(&mut self, what: &'static str) -> Result<Option<TopicUuid>, WireError> {
        Ok(Some(self.array(what)?).filter(|uuid| *uuid != NO_UUID))
    }

    fn unsigned_varint(&mut self, what: &'static str) -> Result<u32, WireError> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array(what)?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0xf {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::Malformed { what })
    }

    /// Reads a length, `None` for null.
    fn length(&mut self, long: bool, what: &'static str) -> Result<Option<usize>, WireError> {
        let length = if self.flexible {
            i64::from(self.unsigned_varint(what)?) - 1
        } else if long {
            i64::from(self.i32(what)?)
        } else {
            i64::from(self.i16(what)?)
        };
        match length {
            -1 => Ok(None),
            n => usize::try_from(n).map(Some).map_err(|_| WireError::Malformed { what }),
        }
    }

    pub(crate) fn nullable_string(&mut self, what: &'static str) -> Result<Option<Arc<str>>, WireError> {
        let Some(length) = self.length(false, what)? else { return Ok(None) };
        let text = std::str::from_utf8(self.take(length, what)?).map_err(|_| WireError::Malformed { what })?;
        Ok(Some(text.into()))
    }

    pub(crate) fn string(&mut self, what: &'static str) -> Result<Arc<str>, WireError> {
        self.nullable_string(what)?.ok_or(WireError::Malformed { what })
    }

    /// Reads text that is only displayed to people. See [`displayable`].
    pub(crate) fn display_text(&mut self, what: &'static str) -> Result<Option<Arc<str>>, WireError> {
        Ok(self.nullable_string(what)?.map(|text| displayable(&text)))
    }

    /// Reads bytes, `None` for null.
    pub(crate) fn nullable_bytes(&mut self, what: &'static str) -> Result<Option<&'a [u8]>, WireError> {
        let Some(length) = self.length(true, what)? else { return Ok(None) };
        self.take(length, what).map(Some)
    }

    /// Reads an array whose elements take at least `min_size` bytes each. Null reads as empty.
    pub(crate) fn vec<E>(
        &mut self,
        what: &'static str,
        min_size: usize,
        mut element: impl FnMut(&mut Self) -> Result<E, WireError>,
    ) -> Result<Vec<E>, WireError> {
        let count = self.length(true, what)?.unwrap_or(0);
        let needed = count as u64 * min_size.max(1) as u64;
        if needed > self.rest.len() as u64 {
            return Err(WireError::Truncated { what, missing: needed - self.rest.len() as u64 });
        }
        let mut list = Vec::with_capacity(count);
        for _ in 0..count {
            list.push(element(self)?);
        }
        Ok(list)
    }

    /// Skips an array of 32-bit integers.
    pub(crate) fn skip_i32s(&mut self, what: &'static str) -> Result<(), WireError> {
        let count = self.length(true, what)?.unwrap_or(0);
        self.take(count.checked_mul(4).ok_or(WireError::Malformed { what })?, what).map(|_| ())
    }

    /// Reads the tagged fields, if the version has any. Unknown fields are skipped (KIP-482).
    pub(crate) fn tags(
        &mut self,
        mut known: impl FnMut(u32, &mut WireReader<'a>) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        if !self.flexible {
            return Ok(());
        }
        let count = self.unsigned_varint("tag count")?;
        for _ in 0..count {
            let tag = self.unsigned_varint("tag")?;
            let size = self.unsigned_varint("tag size")? as usize;
            let mut field = WireReader::new(self.take(size, "tagged field")?, true);
            known(tag, &mut field)?;
        }
        Ok(())
    }

    pub(crate) fn skip_tags(&mut self) -> Result<(), WireError> {
        self.tags(|_, _| Ok(()))
    }

    /// Ends the answer. Further bytes are ignored, as in Kafka's own clients: some brokers send more than the
    /// protocol says.
    pub(crate) fn finish(self, answer: &'static str) {
        if !self.rest.is_empty() {
            tracing::debug!(answer, bytes = self.rest.len(), "bytes after answer ignored");
        }
    }
}

/// The longest displayed text of a broker, in characters.
const MAX_DISPLAYED: usize = 300;

/// Returns a broker's text for logs, errors and dead letters: shortened, in one line, without control characters,
/// which a terminal would interpret.
pub(crate) fn displayable(text: &str) -> Arc<str> {
    let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    line.take(MAX_DISPLAYED).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_array_reserves_no_memory() {
        let bytes = i32::MAX.to_be_bytes();
        let result = WireReader::new(&bytes, false).vec("topics", 1, |r| r.i8("x"));
        assert_eq!(result, Err(WireError::Truncated { what: "topics", missing: i32::MAX as u64 }));
    }

    #[test]
    fn varint_over_32_bits_is_malformed() {
        for bytes in [[0xff, 0xff, 0xff, 0xff, 0x1f], [0xff, 0xff, 0xff, 0xff, 0xff]] {
            assert_eq!(WireReader::new(&bytes, true).unsigned_varint("n"), Err(WireError::Malformed { what: "n" }));
        }
        assert_eq!(WireReader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f], true).unsigned_varint("n"), Ok(u32::MAX));
    }

    #[test]
    fn negative_length_is_malformed() {
        assert_eq!(WireReader::new(&(-2i16).to_be_bytes(), false).string("s"), Err(WireError::Malformed { what: "s" }));
        assert_eq!(WireReader::new(&(-1i16).to_be_bytes(), false).nullable_string("s"), Ok(None));
    }

    #[test]
    fn unknown_tags_are_skipped() {
        let mut reader = WireReader::new(&[1, 9, 2, 0xaa, 0xbb, 7], true);
        reader.skip_tags().unwrap();
        assert_eq!(reader.i8("next"), Ok(7));
    }

    #[test]
    fn displayed_text_is_short_and_safe() {
        let said = format!("no\x1b[31m\nway{}", "!".repeat(10_000));
        let mut bytes = i16::try_from(said.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend_from_slice(said.as_bytes());
        let display_text = WireReader::new(&bytes, false).display_text("s").unwrap().unwrap();
        assert!(
            display_text.starts_with("no [31m way!") && display_text.chars().count() == MAX_DISPLAYED,
            "{display_text}"
        );
    }
}
