//! The id of an event.
//!
//! - New ids are UUIDv7 (RFC 9562), which sort by time.
//! - An id from JSON keeps its exact spelling, whatever its form.

use std::fmt;

use serde::{Serialize, Serializer};
use thiserror::Error;
use uuid::Uuid;

/// The id of an event: a UUID, or any non-empty text from another system.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct EventId(Repr);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Repr {
    Uuid(Uuid),
    Text(Box<str>),
}

impl EventId {
    /// Length of a UUID's text in bytes, the size of the buffer for [`EventId::as_str`].
    pub const UUID_LEN: usize = uuid::fmt::Hyphenated::LENGTH;

    /// Parses an id.
    ///
    /// # Errors
    /// Returns [`EmptyEventId`] if the text is empty.
    pub fn parse(text: &str) -> Result<Self, EmptyEventId> {
        if text.is_empty() {
            return Err(EmptyEventId);
        }
        // Only the canonical spelling becomes a UUID. Any other spelling is kept as text.
        let canonical =
            Uuid::try_parse(text).ok().filter(|uuid| uuid.hyphenated().encode_lower(&mut [0; Self::UUID_LEN]) == text);
        Ok(Self(canonical.map_or_else(|| Repr::Text(text.into()), Repr::Uuid)))
    }

    /// Returns the UUID if the id is a UUID in canonical spelling.
    pub fn as_uuid(&self) -> Option<Uuid> {
        match &self.0 {
            Repr::Uuid(uuid) => Some(*uuid),
            Repr::Text(_) => None,
        }
    }

    /// Returns the id's text without an allocation. A UUID's text is written to `buffer`.
    pub fn as_str<'a>(&'a self, buffer: &'a mut [u8; Self::UUID_LEN]) -> &'a str {
        match &self.0 {
            Repr::Uuid(uuid) => uuid.hyphenated().encode_lower(buffer),
            Repr::Text(text) => text,
        }
    }
}

impl From<Uuid> for EventId {
    fn from(uuid: Uuid) -> Self {
        Self(Repr::Uuid(uuid))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str(&mut [0; Self::UUID_LEN]))
    }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str(&mut [0; Self::UUID_LEN]))
    }
}

/// The error for an empty id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("an event id must not be empty")]
pub struct EmptyEventId;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_keeps_its_spelling() {
        for text in [
            "0190163d-8694-739b-aea5-966c26f8ad91",
            "0190163D-8694-739B-AEA5-966C26F8AD91",
            "0190163d8694739baea5966c26f8ad91",
            "order/17",
        ] {
            assert_eq!(EventId::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn only_canonical_spelling_is_uuid() {
        assert!(EventId::parse("0190163d-8694-739b-aea5-966c26f8ad91").unwrap().as_uuid().is_some());
        assert!(EventId::parse("0190163d8694739baea5966c26f8ad91").unwrap().as_uuid().is_none());
    }

    #[test]
    fn empty_id_is_refused() {
        assert_eq!(EventId::parse(""), Err(EmptyEventId));
    }
}
