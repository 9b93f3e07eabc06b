//! Whether a replay is sending a dead letter's record, and how both formats of a letter say so.
//!
//! Rules:
//! - A replay stores the state before the record leaves. A process that finds the state after a crash knows that the
//!   record may be in the log.
//! - Format 2 has the field `replay`. Nothing is decided by the text of `failure_reason`.
//! - Format 1 has no such field: `format_1` turns its text into the state.

use serde::{Deserialize, Serialize};

/// Format of the letters that this version writes, in the JSON field `format`. A letter without that field has format 1.
pub const LETTER_FORMAT: u32 = 2;

/// Whether a replay is sending the record of a letter.
///
/// The state counts only while the letter's outcome is [`Outcome::Unknown`](crate::Outcome::Unknown).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ReplayState {
    /// No replay is sending the record.
    #[default]
    Idle,
    /// A replay is sending the record, or ended before the outcome was known.
    InProgress,
    /// The same, in a batch of this record alone. No other record has this stamp, so that a leader that remembers the
    /// stamp appends the record once. A repeat must use the same stamp.
    Stamped {
        /// The producer id of the batch.
        producer_id: i64,
        /// The producer epoch of the batch.
        producer_epoch: i16,
        /// The base sequence of the batch.
        sequence: i32,
    },
}

impl ReplayState {
    /// Returns whether no replay is sending the record.
    pub const fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }
}
