//! Counts of what became of the input.

/// Counts of what became of the input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) delivered: u64,
    /// Accepted and failed, or never accepted: certainly not in the log.
    pub(super) not_written: u64,
    /// Failed, but may be in the log.
    pub(super) unknown: u64,
    /// Of the last two: those that the cluster refuses, for want of rights or trust.
    pub(super) refusals: u64,
    /// Of all that failed: those that may be delivered later, as they are.
    pub(super) retriable: u64,
    /// Read, and not published, for the command had to end.
    pub(super) unpublished: u64,
    /// Items that are no event.
    pub(super) bad: u64,
}

impl Counts {
    pub(super) fn total(&self) -> u64 {
        self.delivered + self.failed() + self.bad
    }

    /// Events that were not delivered, or not for sure.
    pub(super) fn failed(&self) -> u64 {
        self.not_written + self.unknown + self.unpublished
    }
}
