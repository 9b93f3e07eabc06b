//! Failing a batch, and the consequences for later batches.
//!
//! Rules (docs/ARCHITECTURE.md, "Idempotence", has the reasons):
//!  - If the head fails as *not written*, no later batch of its epoch can be appended. The later batches are blocked
//!    and are restamped immediately, in order.
//!  - If the head fails as *unknown*, later batches with open attempts keep their stamps and are sent until their own
//!    verdict. The first batch without an open attempt blocks itself and all later batches. Those continue under the
//!    next epoch once no batch precedes them.
//!  - An acceptance proves that there was no gap.
//!  - No batch is blocked during a switch to a recreated topic, which may accept batches that the former topic refused.

use std::time::Instant;

use kafka_courier_batcher::Stamp;
use kafka_courier_client::Reason;

use super::super::effects::Context;
use super::super::flight::{Flight, Proof};
use super::stamps::EpochMove;
use super::{PartitionSender, UNKNOWN_BATCHES_MAX, UnknownBatch, unconfirmed};

/// Returns whether `ours` precedes `other` under the same producer id and epoch. Sequence numbers wrap at 2^31, and
/// half of them precede any number.
pub(super) fn lies_before(ours: Stamp, other: Stamp) -> bool {
    let ahead = other.base_sequence.wrapping_sub(ours.base_sequence) & i32::MAX;
    ours.producer_id == other.producer_id && ours.epoch == other.epoch && ahead > 0 && ahead < 1 << 30
}

impl<T> UnknownBatch<T> {
    pub(super) fn is_proved_by(&self, accepted: Stamp) -> bool {
        // The batch must precede the accepted one. Batches that a lookup found, and that another leader lacks, are sent
        // again after later batches have failed.
        self.provable && self.stamp.is_some_and(|ours| lies_before(ours, accepted))
    }

    pub(super) fn same_epoch(&self, producer_id: i64, epoch: i16) -> bool {
        self.stamp.is_some_and(|stamp| stamp.producer_id == producer_id && stamp.epoch == epoch)
    }
}

impl<T: Clone> PartitionSender<T> {
    /// Fails the head, or settles it as delivered if it is proved.
    pub(super) fn fail_head(&mut self, timed_out: bool, cx: &mut Context<'_, T>) {
        let Some(head) = self.window.pop_front() else { return };
        self.lookup = None;
        self.backoff_until = None;
        let proved = head.proof != Proof::None;
        let may_be_written = head.may_be_written();
        self.settle_failed(head, None, timed_out, cx);
        if proved {
            return;
        }
        self.stop_pipelining();
        if may_be_written {
            self.gap = true;
        } else if !self.is_switching() {
            self.restamp_all(EpochMove::Blocked, cx);
        }
    }

    /// Ends the gap after a batch failed as unknown, once this is safe.
    pub(super) fn close_gap(&mut self, cx: &mut Context<'_, T>) {
        if !self.gap || self.is_switching() {
            return;
        }
        let (id, epoch) = self.next.map_or((-1, -1), |next| (next.producer_id, next.epoch));
        if !self.unknown_batches.iter().any(|failed| failed.same_epoch(id, epoch)) {
            self.gap = false; // all failed batches proved to be written
            return;
        }
        match self.window.front() {
            None => self.raise_epoch(EpochMove::GapEnded, cx),
            Some(head) if !head.may_be_written() => self.restamp_all(EpochMove::GapBlocked, cx),
            Some(_) => {}
        }
    }

    /// Removes all stamps in the window and continues under the next epoch. All batches in the window must be provably
    /// not written, or proved to be in the log.
    pub(super) fn restamp_all(&mut self, cause: EpochMove, cx: &mut Context<'_, T>) {
        while let Some(mut flight) = self.window.pop_back() {
            if flight.proof != Proof::None {
                self.settle_delivered(flight, cx);
                continue;
            }
            flight.forget_stamp(cx.out.new_uid());
            self.queue.push_front(flight);
        }
        self.lookup = None;
        self.raise_epoch(cause, cx);
    }

    /// Keeps a failed batch for a correction.
    pub(super) fn remember(&mut self, flight: &Flight<T>) {
        if self.unknown_batches.len() == UNKNOWN_BATCHES_MAX {
            self.unknown_batches.pop_front();
        }
        self.unknown_batches.push_back(UnknownBatch {
            provable: flight.provable,
            attempts: flight.attempts().collect(),
            token: flight.token.clone(),
            records: flight.records.clone(),
            stamp: flight.stamp(),
        });
    }

    /// Fails batches older than `delivery_timeout`. `throttled` is the end and the reason of the last throttling. If it
    /// overlaps the wait of a batch, it is the reason, unless a try failed for another reason.
    pub(crate) fn expire(&mut self, throttled: Option<&(Instant, Reason)>, cx: &mut Context<'_, T>) {
        while self.deadline(cx.config.delivery_timeout).is_some_and(|deadline| deadline <= cx.now) {
            if let (Some((until, reason)), Some(oldest)) = (throttled, self.oldest_mut())
                && *until > oldest.published_at
            {
                oldest.history.reason.get_or_insert_with(|| reason.clone());
            }
            self.fail_oldest(true, cx);
        }
    }

    /// Fails all waiting batches, because the leader refuses this client, with `reason`.
    pub(crate) fn refuse(&mut self, reason: &Reason, cx: &mut Context<'_, T>) {
        while let Some(oldest) = self.oldest_mut() {
            oldest.history.record_unreachable(cx.now, reason);
            self.fail_oldest(false, cx);
        }
    }

    fn oldest_mut(&mut self) -> Option<&mut Flight<T>> {
        self.unconfirmed.front_mut().or(self.window.front_mut()).or(self.queue.front_mut())
    }

    fn fail_oldest(&mut self, timed_out: bool, cx: &mut Context<'_, T>) {
        if let Some(flight) = self.unconfirmed.pop_front() {
            self.settle_failed(flight, Some(unconfirmed()), timed_out, cx);
        } else if !self.window.is_empty() {
            self.fail_head(timed_out, cx);
            self.close_gap(cx);
        } else if let Some(flight) = self.queue.pop_front() {
            self.settle_failed(flight, None, timed_out, cx);
        }
    }

    /// Fails all batches, with `reason`.
    pub(crate) fn fail_all(&mut self, reason: &Reason, cx: &mut Context<'_, T>) {
        self.take_back_unconfirmed();
        let early = std::mem::take(&mut self.early).into_values();
        let window = std::mem::take(&mut self.window);
        for flight in window.into_iter().chain(std::mem::take(&mut self.queue)).chain(early) {
            self.settle_failed(flight, Some(reason.clone()), false, cx);
        }
        self.lookup = None;
        if self.next.is_some() {
            self.raise_epoch(EpochMove::AllFailed, cx);
        }
    }

    /// Fails the queue if the topic no longer has this partition. No queued batch has a stamp.
    pub(crate) fn fail_if_removed(&mut self, cx: &mut Context<'_, T>) {
        if let Some(reason) = self.removed.clone() {
            for flight in std::mem::take(&mut self.queue) {
                self.settle_failed(flight, Some(reason.clone()), false, cx);
            }
        }
    }

    /// Fails the queue, with `reason`, because no producer id is available.
    pub(crate) fn fail_queue(&mut self, reason: &Reason, cx: &mut Context<'_, T>) {
        for mut flight in std::mem::take(&mut self.queue) {
            flight.history.record_try(cx.now);
            self.settle_failed(flight, Some(reason.clone()), false, cx);
        }
    }
}
