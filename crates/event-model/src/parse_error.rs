//! Why JSON is not an event: the field, its value and the remedy.

use thiserror::Error;

/// Longest part of a refused value in an error, in bytes.
const SHOWN: usize = 80;

/// Why JSON is not an event.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The bytes are not UTF-8.
    #[error("not UTF-8 at byte {at}: JSON is written in UTF-8 (RFC 8259)")]
    NotUtf8 {
        /// Position of the first invalid byte, counted from 0.
        at: usize,
    },
    /// The bytes are not one JSON value.
    #[error("not JSON: {reason}")]
    Syntax {
        /// The parser's message, with line and column.
        reason: String,
        /// Whether the text ends where more JSON is expected.
        is_truncated: bool,
    },
    /// The JSON is not an object.
    #[error("an event is a JSON object {{\"type\": ..}}, not {found}")]
    NotAnObject {
        /// The kind of JSON value.
        found: &'static str,
    },
    /// Arrays and objects are nested deeper than common readers accept.
    #[error("nested deeper than {limit} levels: flatten the data, or carry it as a string")]
    TooDeep {
        /// Deepest accepted level.
        limit: usize,
    },
    /// A required field is missing.
    #[error("field \"{field}\" is missing: add it, {expected}")]
    Missing {
        /// The field.
        field: &'static str,
        /// The expected value.
        expected: &'static str,
    },
    /// An envelope field appears twice, and readers disagree on which one counts.
    #[error("field \"{field}\" appears twice: keep one")]
    Duplicate {
        /// The field.
        field: &'static str,
    },
    /// An envelope field has an invalid value.
    #[error("field \"{field}\" is {value}, expected {expected}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// The value as JSON, truncated if long.
        value: String,
        /// The expected value.
        expected: String,
    },
    /// The data does not fit its type.
    #[error("field \"data\" does not fit type {event_type}: {reason}")]
    Data {
        /// The event's type.
        event_type: &'static str,
        /// The field, and its fault.
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
        Self::Syntax { reason: error.to_string(), is_truncated: error.is_eof() }
    }
}
