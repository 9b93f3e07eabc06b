//! Why an item of the input is not an event.

use std::fmt;

use kafka_courier_event_model::ParseError;

use super::position::InputPlace;

/// Approximate longest error about an item, in bytes.
pub(super) const LONGEST_ERROR: usize = 500;

/// Why an item of the input is not an event.
#[derive(Debug)]
pub(crate) enum ItemError {
    /// The item is not the JSON of an event.
    Parse {
        place: InputPlace,
        error: ParseError,
    },
    Array(ArrayError),
    LineTooLong {
        max: usize,
    },
}

impl fmt::Display for ItemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parse { place, error } => f.write_str(&describe_error(*place, error)),
            Self::Array(error) => error.fmt(f),
            Self::LineTooLong { max } => write!(f, "longer than {max} bytes"),
        }
    }
}

/// An error of the array itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ArrayError {
    #[error("the input ends inside the array")]
    NoEnd,
    #[error("longer than {max} bytes: the rest of the input is not read")]
    TooLong { max: usize },
    #[error("an element is missing beside a comma")]
    NoElement,
    #[error("{0:?} follows the array: the rest of the input is not read")]
    TextAfterEnd(char),
}

/// Returns the error about text that is not an event.
pub(super) fn describe_error(place: InputPlace, error: &ParseError) -> String {
    let mut text = error.to_string();
    // The parser's line is always 1, because it parses one line. `place` has the line of the input.
    if let Some(at) = text.rfind(" at line 1 column ") {
        text.replace_range(at.." at line 1".len() + at, " at");
    }
    if let Some((end, _)) = text.char_indices().find(|(at, _)| *at >= LONGEST_ERROR) {
        text.replace_range(end.., "...");
    }
    if let (InputPlace::Line(_), ParseError::Syntax { is_truncated: true, .. }) = (place, error) {
        text.push_str(": write one event per line (`jq -c` does)");
    }
    text
}
