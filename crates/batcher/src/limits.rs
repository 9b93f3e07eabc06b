//! The bounds of a batch, and its compression.
//!
//! Rule: an accumulator clamps its limits once, on arrival. Other code relies on the clamped values.

use std::time::{Duration, Instant};

/// Largest batch, in bytes. A batch's length is an `i32` on the wire, and its buffer's capacity is a power of two.
pub(crate) const MAX_BYTES: usize = 1 << 30;
/// Longest linger. A longer one could overflow a deadline.
const MAX_LINGER: Duration = Duration::from_hours(24 * 365);

/// Bounds that make a batch full or due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Records in a batch. 0 counts as 1.
    pub max_records: u32,
    /// Bytes of a whole batch on the wire before compression, its 61-byte header included. At most 1 GiB.
    pub max_bytes: usize,
    /// How long a batch may wait after its first record. At most a year.
    pub linger: Duration,
}

impl Limits {
    pub(crate) fn bounded(self) -> Self {
        Self {
            max_records: self.max_records.clamp(1, i32::MAX as u32),
            max_bytes: self.max_bytes.min(MAX_BYTES),
            linger: self.linger.min(MAX_LINGER),
        }
    }

    /// Returns the linger deadline of a batch that was opened at `opened_at`.
    #[must_use]
    pub fn deadline(&self, opened_at: Instant) -> Instant {
        opened_at.checked_add(self.linger.min(MAX_LINGER)).unwrap_or(opened_at)
    }
}

/// Compression of a batch's records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// No compression.
    #[default]
    None,
    /// Snappy with snappy-java's framing, which Kafka's Java clients read.
    Snappy,
}

impl Compression {
    /// The codec bits of a batch's attributes.
    pub(crate) const fn bits(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Snappy => 2,
        }
    }
}
