//! Where in the input an item stands.
//!
//! Rules: places are counted from 1, as people count; bytes from 0, as files do.

use std::fmt;

/// An item's number, as it is named to people.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Place {
    /// The line.
    Line(u64),
    /// The element of the array.
    Element(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::Element(number) => write!(f, "element {number}"),
        }
    }
}

/// An item's place and bytes in the input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Position {
    pub(crate) place: Place,
    /// The offset of its first byte.
    pub(crate) start: u64,
    /// The offset behind its last byte, and behind the line's end or the comma after it: reading can begin there.
    pub(crate) end: u64,
}
