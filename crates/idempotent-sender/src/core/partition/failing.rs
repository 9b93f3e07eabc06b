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

use kafka_courier_client::Reason;

use super::super::effects::Context;
use super::super::failure::UNCONFIRMED;
use super::super::flight::{Flight, Proof};
use super::PartitionSender;
use super::stamps::EpochMove;

/// Returns the reason for a batch that a lookup found, but no acceptance confirmed.
fn unconfirmed() -> Reason {
    Reason::NoAnswer(UNCONFIRMED.into())
}

impl<T: Clone> PartitionSender<T> {
    /// Fails the head, or settles it as delivered if it is proved.
    pub(super) fn fail_head(&mut self, timed_out: bool, cx: &mut Context<'_, T>) {
        if self.settle_doubt(cx) {
            return;
        }
        let Some(head) = self.window.pop_front() else { return };
        self.retry.forget_lookup();
        self.retry.end_backoff();
        let proved = head.proof != Proof::None;
        let may_be_written = head.may_be_written();
        if may_be_written && !proved {
            self.doubt_inherited_behind(&head);
        }
        self.settle_failed(head, None, timed_out, cx);
        if proved {
            return;
        }
        self.stop_pipelining();
        if may_be_written {
            self.stamps.open_gap();
        } else if !self.is_switching() {
            self.restamp_all(EpochMove::Blocked, cx);
        }
    }

    /// Ends the gap after a batch failed as unknown, once this is safe.
    pub(super) fn close_gap(&mut self, cx: &mut Context<'_, T>) {
        if !self.stamps.has_gap() || self.is_switching() {
            return;
        }
        if !self.stamps.id_and_epoch().is_some_and(|stamps| self.unknown_batches.any_of(stamps)) {
            return self.stamps.close_gap(); // all failed batches proved to be written
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
        self.has_restamped |= self.has_resumed;
        while let Some(mut flight) = self.window.pop_back() {
            if flight.proof != Proof::None {
                self.settle_delivered(flight, cx);
                continue;
            }
            flight.forget_stamp(cx.out.new_uid());
            self.queue.push_front(flight);
        }
        self.retry.forget_lookup();
        self.raise_epoch(cause, cx);
    }

    /// Raises the epoch and restarts the sequence at 0. Takes another producer id after the last epoch, and if the id
    /// was fenced. An acceptance proves nothing about batches of the former epoch any more.
    pub(super) fn raise_epoch(&mut self, cause: EpochMove, cx: &mut Context<'_, T>) {
        self.leader.stop_pipelining();
        for flight in std::mem::take(&mut self.unconfirmed) {
            self.settle_failed(flight, Some(unconfirmed()), false, cx);
        }
        self.stamps.raise_epoch(cause, &mut cx.out.counters);
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

    /// Fails all waiting batches, because the leader refuses this client, with `reason`. Stored batches wait.
    pub(crate) fn refuse(&mut self, reason: &Reason, cx: &mut Context<'_, T>) {
        while let Some(oldest) = self.oldest_mut() {
            oldest.history.record_unreachable(cx.now, reason);
            if oldest.stored.is_some() {
                self.retry.failed(reason.clone());
                return self.back_off(cx);
            }
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
            if flight.stored.is_some() {
                self.settle_stored(flight, cx);
            } else {
                self.settle_failed(flight, Some(reason.clone()), false, cx);
            }
        }
        self.retry.forget_lookup();
        if self.stamps.is_assigned() {
            self.raise_epoch(EpochMove::AllFailed, cx);
        }
    }

    /// Fails the queue if the topic no longer has this partition. No queued batch has a stamp. Stored batches wait.
    pub(crate) fn fail_if_removed(&mut self, cx: &mut Context<'_, T>) {
        let Some(reason) = self.topic.missing().cloned() else { return };
        if self.queues_stored() {
            return self.retry.failed(reason);
        }
        for flight in std::mem::take(&mut self.queue) {
            self.settle_failed(flight, Some(reason.clone()), false, cx);
        }
    }

    /// Returns whether stored batches are queued. All batches of a partition are stored, or none is.
    pub(super) fn queues_stored(&self) -> bool {
        self.queue.front().is_some_and(|flight| flight.stored.is_some())
    }

    /// Notes that no producer id is available. Batches of the window have one, so the reason is not theirs.
    pub(crate) fn on_no_producer_id(&mut self, now: Instant, reason: &Reason) {
        self.retry.failed(reason.clone());
        if let Some(next) = self.queue.front_mut() {
            next.history.record_unreachable(now, reason);
        }
    }

    /// Fails the queue, with `reason`, because no producer id is available. Stored batches wait.
    pub(crate) fn fail_queue(&mut self, reason: &Reason, cx: &mut Context<'_, T>) {
        if self.queues_stored() {
            return self.on_no_producer_id(cx.now, reason);
        }
        for mut flight in std::mem::take(&mut self.queue) {
            flight.history.record_try(cx.now);
            self.settle_failed(flight, Some(reason.clone()), false, cx);
        }
    }
}
