//! The position of an item in the input.
//!
//! Rules: lines and elements are counted from 1, bytes from 0.

use std::fmt;

/// The number of an item in messages and receipts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum InputPlace {
    /// A line of NDJSON.
    Line(u64),
    /// An element of a JSON array.
    Element(u64),
}

impl InputPlace {
    /// Returns the number of the line or element.
    pub(crate) fn number(self) -> u64 {
        match self {
            Self::Line(number) | Self::Element(number) => number,
        }
    }
}

impl fmt::Display for InputPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::Element(number) => write!(f, "element {number}"),
        }
    }
}

/// The number of an item, and its bytes in the input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct InputPosition {
    pub(crate) place: InputPlace,
    /// The offset of the first byte.
    pub(crate) start: u64,
    /// The offset after the item and after the line's end or comma that follows. Reading can resume there.
    pub(crate) end: u64,
}
