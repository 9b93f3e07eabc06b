//! Why some JSON is no event: which field, which value, and what to do about it.

use thiserror::Error;

/// Longest part of a refused value that an error shows, in bytes.
const SHOWN: usize = 80;

/// Why some JSON is no event.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Bytes that are no UTF-8.
    #[error("not UTF-8 at byte {at}: JSON is written in UTF-8 (RFC 8259)")]
    NotUtf8 {
        /// Where the first wrong byte is, counted from 0.
        at: usize,
    },
    /// Something else than one JSON value.
    #[error("not JSON: {reason}")]
    Syntax {
        /// What is wrong, with line and column.
        reason: String,
    },
    /// JSON, but not an object.
    #[error("an event is a JSON object {{\"type\": ..}}, not {found}")]
    NotAnObject {
        /// What it is.
        found: &'static str,
    },
    /// Arrays and objects within each other beyond what common readers take.
    #[error("nested deeper than {limit} levels: flatten the data, or carry it as a string")]
    TooDeep {
        /// Deepest level that is taken.
        limit: usize,
    },
    /// A field that is needed is not there.
    #[error("field \"{field}\" is missing: add it, {expected}")]
    Missing {
        /// The field.
        field: &'static str,
        /// What it would be.
        expected: &'static str,
    },
    /// A field of the envelope twice: readers disagree on which one counts.
    #[error("field \"{field}\" is there twice: leave one")]
    Duplicate {
        /// The field.
        field: &'static str,
    },
    /// A field of the envelope with a value that it can't have.
    #[error("field \"{field}\" is {value}, expected {expected}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// Its value as JSON, cut short if long.
        value: String,
        /// What it would be.
        expected: String,
    },
    /// Data that does not fit its type.
    #[error("field \"data\" does not fit type {event_type}: {reason}")]
    Data {
        /// The event's type.
        event_type: &'static str,
        /// Which field, and what is wrong with it.
        reason: String,
    },
}

impl ParseError {
    pub(crate) fn invalid(field: &'static str, value: &str, expected: impl Into<String>) -> Self {
        let value = match value.char_indices().map(|(at, _)| at).find(|at| *at >= SHOWN) {
            Some(end) => format!("{}...", &value[..end]),
            None => value.to_owned(),
        };
        let expected = expected.into();
        Self::Invalid { field, value, expected }
    }

    pub(crate) fn syntax(error: &serde_json::Error) -> Self {
        Self::Syntax { reason: error.to_string() }
    }
}
