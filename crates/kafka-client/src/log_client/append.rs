//! The caller's decision about the answer to an append.
//!
//! Rule: plain data. The client knows no table of outcomes.

/// What follows from a leader's answer to an append. An answer may refuse this attempt for certain: the leader then
/// wrote nothing in this attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AppendDecision {
    /// The batch is in the log.
    Written,
    /// The same bytes are sent again.
    Retry {
        /// Whether the leader certainly wrote nothing in this attempt.
        refused: bool,
    },
    /// The append fails with the code of the answer.
    Fail {
        /// Whether the leader certainly wrote nothing in this attempt.
        refused: bool,
    },
}
