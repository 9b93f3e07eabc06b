//! What bounds a batch, and how it is compressed.
//!
//! Rule: limits are made safe once, when an accumulator takes them, and not looked at again.

use std::time::{Duration, Instant};

/// The biggest batch that can be asked for, bytes: its length is an `i32` on the wire and its buffer a power of two.
pub(crate) const MAX_BYTES: usize = 1 << 30;
/// The longest linger that can be asked for; beyond it a deadline might not be a point in time any more.
const MAX_LINGER: Duration = Duration::from_hours(24 * 365);

/// When a batch is full or has waited long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Records in a batch; 0 counts as 1.
    pub max_records: u32,
    /// Bytes of a whole batch on the wire before compression, its 61-byte header included; at most 1 GiB.
    pub max_bytes: usize,
    /// How long a batch may wait after its first record; at most a year.
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

    /// When a batch that was opened at `opened_at` has waited for `linger`.
    #[must_use]
    pub fn deadline(&self, opened_at: Instant) -> Instant {
        opened_at.checked_add(self.linger.min(MAX_LINGER)).unwrap_or(opened_at)
    }
}

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Snappy in the framing of snappy-java, which is what Kafka's clients read.
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
