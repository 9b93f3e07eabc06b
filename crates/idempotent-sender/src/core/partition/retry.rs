//! Why a partition waits after a failure: the backoff, and the lookup of its head batch.
//!
//! Rules:
//!  - One lookup is in progress at a time. Nothing is sent meanwhile.
//!  - An acceptance ends the backoff and its growth.

use std::time::Instant;

use kafka_courier_client::Reason;

use super::super::effects::Context;
use super::super::ids::{BatchUid, LookupId};

/// Why a head batch is in doubt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HeadDoubt {
    /// The leader expects another sequence number, and an earlier attempt is open.
    OutOfSequence,
    /// The leader refuses the batch before it looks for duplicates, and an earlier attempt is open.
    Refused,
    /// The leader knows a later epoch of the producer id, or nothing of the id, and the batch is stored. Nothing follows
    /// about earlier attempts.
    Foreign,
    /// An earlier process may have sent the batch.
    Inherited,
}

impl HeadDoubt {
    /// Returns whether the leader has refused the stamp.
    pub(super) fn is_of_stamp(self) -> bool {
        matches!(self, Self::OutOfSequence | Self::Foreign)
    }
}

/// The lookup in progress, and its batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingLookup {
    pub(super) id: LookupId,
    pub(super) batch: BatchUid,
    pub(super) doubt: HeadDoubt,
    /// The answer to the producer state lookup, during the log search.
    pub(super) state: Option<CoveringState>,
}

/// The leader's producer state, which covers the head batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct CoveringState {
    pub(super) last_sequence: i32,
    /// How many of the first batches of the window it proves to be appended.
    pub(super) proved: usize,
    pub(super) run: RunState,
}

/// What a leader's producer state says of the run of stamps of the head batch: its producer id and epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RunState {
    /// The state covers the head.
    Covered,
    /// The leader knows a later epoch: it takes no stamp of this run.
    Fenced,
    /// The leader has forgotten the run.
    Forgotten,
    /// The leader knows the run only up to a number before the head, with a gap. It may have forgotten the run in between.
    Behind,
    /// The leader knows nothing of the run, and has acknowledged no batch of it.
    Unacknowledged,
}

/// The lookup of the head batch.
#[derive(Clone, Copy, Debug)]
enum HeadLookup {
    None,
    Pending(PendingLookup),
    /// The leader has this head batch, but its log does not show the batch yet. The batch is looked up again, after the
    /// backoff, instead of being sent again.
    Again(BatchUid, HeadDoubt),
}

/// The waits of a partition.
#[derive(Debug)]
pub(super) struct RetryState {
    /// Failures in a row.
    failures: u32,
    backoff_until: Option<Instant>,
    lookup: HeadLookup,
    /// Whether batches are sent alone in their requests, after a lost answer.
    solo: bool,
    /// The last failure, for verdicts on batches that were never tried.
    last_failure: Option<Reason>,
}

impl RetryState {
    pub(super) fn new() -> Self {
        Self { failures: 0, backoff_until: None, lookup: HeadLookup::None, solo: false, last_failure: None }
    }

    pub(super) fn back_off<T>(&mut self, cx: &mut Context<'_, T>) {
        self.failures = self.failures.saturating_add(1);
        self.backoff_until = Some(cx.now + cx.config.backoff.wait(self.failures, cx.jitter));
    }

    /// Returns the end of the backoff, if it lies after `now`.
    pub(super) fn backoff_end(&self, now: Instant) -> Option<Instant> {
        self.backoff_until.filter(|until| *until > now)
    }

    pub(super) fn end_backoff(&mut self) {
        self.backoff_until = None;
    }

    /// Notes that the leader has the head batch: the next failure is the first in a row.
    pub(super) fn succeeded(&mut self) {
        (self.failures, self.backoff_until, self.last_failure) = (0, None, None);
    }

    /// Notes an acceptance.
    pub(super) fn accepted(&mut self) {
        self.succeeded();
        self.solo = false;
    }

    pub(super) fn failed(&mut self, reason: Reason) {
        self.last_failure = Some(reason);
    }

    pub(super) fn last_failure(&self) -> Option<&Reason> {
        self.last_failure.as_ref()
    }

    /// Sends batches alone in their requests until the next acceptance.
    pub(super) fn send_alone(&mut self) {
        self.solo = true;
    }

    pub(super) fn is_solo(&self) -> bool {
        self.solo
    }

    pub(super) fn is_looking_up(&self) -> bool {
        matches!(self.lookup, HeadLookup::Pending(_))
    }

    pub(super) fn start_lookup(&mut self, lookup: PendingLookup) {
        self.lookup = HeadLookup::Pending(lookup);
    }

    /// Ends the lookup with this id and returns it. `None` if another lookup is in progress, or none.
    pub(super) fn end_lookup(&mut self, id: LookupId) -> Option<PendingLookup> {
        match self.lookup {
            HeadLookup::Pending(lookup) if lookup.id == id => {
                self.lookup = HeadLookup::None;
                Some(lookup)
            }
            _ => None,
        }
    }

    /// Looks a batch up again, after the backoff.
    pub(super) fn look_up_again(&mut self, lookup: PendingLookup) {
        self.lookup = HeadLookup::Again(lookup.batch, lookup.doubt);
    }

    /// Returns the batch to look up again, once.
    pub(super) fn take_repeated_lookup(&mut self) -> Option<(BatchUid, HeadDoubt)> {
        let HeadLookup::Again(batch, doubt) = self.lookup else { return None };
        self.lookup = HeadLookup::None;
        Some((batch, doubt))
    }

    pub(super) fn forget_lookup(&mut self) {
        self.lookup = HeadLookup::None;
    }

    /// Forgets the lookup in progress, if it is for this batch.
    pub(super) fn forget_lookup_of(&mut self, batch: BatchUid) {
        if matches!(self.lookup, HeadLookup::Pending(lookup) if lookup.batch == batch) {
            self.lookup = HeadLookup::None;
        }
    }

    #[cfg(test)]
    pub(super) fn pending_lookup(&self) -> Option<LookupId> {
        match self.lookup {
            HeadLookup::Pending(lookup) => Some(lookup.id),
            _ => None,
        }
    }
}
