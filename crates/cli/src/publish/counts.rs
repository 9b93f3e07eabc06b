//! Counts of the input's items by outcome.

/// Counts of the input's items by outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct InputCounts {
    pub(super) delivered: u64,
    /// Events that the spool has, delivered ones included. 0 without a spool.
    pub(super) stored: u64,
    /// Events that failed, or were not accepted, and are certainly not in the log.
    pub(super) not_written: u64,
    /// Events that failed and may be in the log.
    pub(super) unknown: u64,
    /// Failed events that the cluster refused (authorization, trust).
    pub(super) refusals: u64,
    /// Failed events that may be delivered later without a change.
    pub(super) retriable: u64,
    /// Events that were read and not published, because the command ended.
    pub(super) unpublished: u64,
    /// Items that are not events.
    pub(super) bad: u64,
}

impl InputCounts {
    pub(super) fn total(&self) -> u64 {
        self.delivered + self.stored + self.failed() + self.bad
    }

    /// Returns the number of events without the verdict delivered.
    pub(super) fn failed(&self) -> u64 {
        self.not_written + self.unknown + self.unpublished
    }
}
