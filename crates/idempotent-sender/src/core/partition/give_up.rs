//! Giving up a batch, and what that means for those behind it.
//!
//! Rules (the reasons: docs/ARCHITECTURE.md, "Idempotence"):
//! - The head is given up *certainly not written*: nothing of its epoch can enter behind it any more.
//!   Those behind are barred; they are stamped anew at once, in order.
//! - The head is given up and *may be written*: those behind with open attempts keep their stamps and are
//!   sent on until their own verdict. The first of them without an open attempt bars all from itself on:
//!   from there the queue goes on under the next epoch, once nothing before it is left.
//! - An acceptance proves that there was no gap after all.
//! - While a topic made anew is yet to be turned to nobody is barred: what the former one can't take the new one may.

use std::time::Instant;

use kafka_courier_batcher::Stamp;

use super::super::effects::Context;
use super::super::flight::{Flight, Proof};
use super::super::types::Reason;
use super::stamps::EpochMove;
use super::{GIVEN_UP_REMEMBERED, GivenUp, Partition, unconfirmed};

/// Whether one stamp precedes the other under the same id and epoch. Sequence numbers live on a circle of
/// 2^31; half of it lies before any point.
pub(super) fn lies_before(ours: Stamp, other: Stamp) -> bool {
    let ahead = other.base_sequence.wrapping_sub(ours.base_sequence) & i32::MAX;
    ours.producer_id == other.producer_id && ours.epoch == other.epoch && ahead > 0 && ahead < 1 << 30
}

impl<T> GivenUp<T> {
    pub(super) fn is_proved_by(&self, accepted: Stamp) -> bool {
        // It must lie before the accepted one: batches that a look had found, and that another leader lacks,
        // go again behind the back of those that were given up after them.
        self.provable && self.stamp.is_some_and(|ours| lies_before(ours, accepted))
    }

    pub(super) fn same_epoch(&self, producer_id: i64, epoch: i16) -> bool {
        self.stamp.is_some_and(|stamp| stamp.producer_id == producer_id && stamp.epoch == epoch)
    }
}

impl<T: Clone> Partition<T> {
    /// Settles the head as failed (or as delivered, where that is proved).
    pub(super) fn give_up_head(&mut self, timed_out: bool, cx: &mut Context<'_, T>) {
        let Some(head) = self.window.pop_front() else { return };
        self.looking = None;
        self.backoff_until = None;
        let proved = head.proof != Proof::None;
        let maybe = head.may_be_written();
        self.settle_given_up(head, None, timed_out, cx);
        if proved {
            return;
        }
        self.disturb();
        if maybe {
            self.gap = true;
        } else if !self.is_turning() {
            self.stamp_all_anew(EpochMove::Barred, cx);
        }
    }

    /// Ends the state after a batch was given up that may be written, once that can be done safely.
    pub(super) fn close_gap(&mut self, cx: &mut Context<'_, T>) {
        if !self.gap || self.is_turning() {
            return;
        }
        let (id, epoch) = self.next.map_or((-1, -1), |next| (next.producer_id, next.epoch));
        if !self.given_up.iter().any(|given| given.same_epoch(id, epoch)) {
            self.gap = false; // all of them turned out to be written: the sequence has no gap
            return;
        }
        match self.window.front() {
            None => self.raise_epoch(EpochMove::GapEnded, cx),
            Some(head) if !head.may_be_written() => self.stamp_all_anew(EpochMove::GapBarred, cx),
            Some(_) => {}
        }
    }

    /// Takes the stamps from everything in the window and goes on under the next epoch. Only where
    /// all of it is provably not written.
    pub(super) fn stamp_all_anew(&mut self, cause: EpochMove, cx: &mut Context<'_, T>) {
        while let Some(mut flight) = self.window.pop_back() {
            if flight.proof != Proof::None {
                self.settle_delivered(flight, cx);
                continue;
            }
            flight.forget_stamp(cx.out.uid());
            self.queue.push_front(flight);
        }
        self.looking = None;
        self.raise_epoch(cause, cx);
    }

    pub(super) fn remember(&mut self, flight: &Flight<T>) {
        if self.given_up.len() == GIVEN_UP_REMEMBERED {
            self.given_up.pop_front();
        }
        self.given_up.push_back(GivenUp {
            provable: flight.provable,
            attempts: flight.attempts().collect(),
            token: flight.token.clone(),
            records: flight.records.clone(),
            stamp: flight.stamp(),
        });
    }

    /// Gives up what has waited for longer than `delivery_timeout`. Where the leader has throttled us meanwhile, until the
    /// time in `throttled`, that is why, unless a try failed for another reason.
    pub(crate) fn expire(&mut self, throttled: Option<&(Instant, Reason)>, cx: &mut Context<'_, T>) {
        while self.deadline(cx.config.delivery_timeout).is_some_and(|deadline| deadline <= cx.now) {
            if let (Some((until, reason)), Some(oldest)) = (throttled, self.oldest_mut())
                && *until > oldest.published_at
            {
                oldest.history.reason.get_or_insert_with(|| reason.clone());
            }
            self.give_up_oldest(true, cx);
        }
    }

    /// Gives up whatever waits: its leader refuses us, for `reason`.
    pub(crate) fn refuse(&mut self, reason: &Reason, cx: &mut Context<'_, T>) {
        while let Some(oldest) = self.oldest_mut() {
            oldest.history.failed_to_reach(cx.now, reason);
            self.give_up_oldest(false, cx);
        }
    }

    fn oldest_mut(&mut self) -> Option<&mut Flight<T>> {
        self.unconfirmed.front_mut().or(self.window.front_mut()).or(self.queue.front_mut())
    }

    fn give_up_oldest(&mut self, timed_out: bool, cx: &mut Context<'_, T>) {
        if let Some(flight) = self.unconfirmed.pop_front() {
            self.settle_given_up(flight, Some(unconfirmed()), timed_out, cx);
        } else if !self.window.is_empty() {
            self.give_up_head(timed_out, cx);
            self.close_gap(cx);
        } else if let Some(flight) = self.queue.pop_front() {
            self.settle_given_up(flight, None, timed_out, cx);
        }
    }

    /// Gives up everything, for `reason`.
    pub(crate) fn give_up_all(&mut self, reason: &Reason, cx: &mut Context<'_, T>) {
        self.take_back_unconfirmed();
        let early = std::mem::take(&mut self.early).into_values();
        let window = std::mem::take(&mut self.window);
        for flight in window.into_iter().chain(std::mem::take(&mut self.queue)).chain(early) {
            self.settle_given_up(flight, Some(reason.clone()), false, cx);
        }
        self.looking = None;
        if self.next.is_some() {
            self.raise_epoch(EpochMove::GivenUp, cx);
        }
    }

    /// Gives up what waits for a partition that the topic has no more; nothing of it is stamped.
    pub(crate) fn give_up_if_gone(&mut self, cx: &mut Context<'_, T>) {
        if let Some(reason) = self.gone.clone() {
            for flight in std::mem::take(&mut self.queue) {
                self.settle_given_up(flight, Some(reason.clone()), false, cx);
            }
        }
    }

    /// Gives up what was never stamped, for `reason`: no producer id is to be had.
    pub(crate) fn give_up_queue(&mut self, reason: &Reason, cx: &mut Context<'_, T>) {
        for mut flight in std::mem::take(&mut self.queue) {
            flight.history.tried(cx.now);
            self.settle_given_up(flight, Some(reason.clone()), false, cx);
        }
    }
}
