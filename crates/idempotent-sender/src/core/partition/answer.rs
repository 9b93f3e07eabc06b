//! Reactions of a partition to an answer, and to a lost answer.
//!
//! Rules:
//!  - An acceptance proves that every earlier batch under the same producer id and epoch is in the log.
//!  - An error answer counts only for the head, and only if the attempt was fresh. A late error answer changes nothing.
//!  - A sequence error never causes a new stamp for a batch with an open attempt. A lookup decides instead.
//!  - DUPLICATE_SEQUENCE_NUMBER for a batch without an open attempt contradicts the earlier refusals. Only the log
//!    shows where the batch is. The answer is a refusal during a switch to a recreated topic, which has a later batch.

use std::sync::Arc;

use kafka_courier_batcher::Stamp;
use kafka_courier_client::{ErrorCode, PartAnswer, Reason, RejectedRecord};

use super::super::effects::Context;
use super::super::failure::{FailedOutcome, Failure};
use super::super::flight::{Flight, Proof};
use super::super::ids::RequestId;
use super::super::outcome::{Classification, Treatment, classify};
use super::super::types::{Action, RecordSet, Verdict};
use super::PartitionSender;
use super::retry::HeadDoubt;
use super::stamps::EpochMove;
use super::unknown::lies_before;

/// Returns the offset of the record that follows `records_before` records of an accepted attempt, if the answer has an
/// offset.
fn offset_after(answer: &PartAnswer, records_before: u32) -> Option<i64> {
    answer.base_offset.map(|base| base + i64::from(records_before))
}

/// Returns the rejected records of an answer with their messages, by their index in the submitted batch.
fn rejected_records(records: &RecordSet, answer: &PartAnswer) -> Vec<RejectedRecord> {
    let own = |(position, message): &RejectedRecord| {
        Some((records.get(*position)?, message.clone().or_else(|| answer.message.clone())))
    };
    let mut rejected: Vec<_> = answer.record_errors.iter().filter_map(own).collect();
    rejected.sort_by_key(|(index, _)| *index);
    rejected.dedup_by_key(|(index, _)| *index);
    rejected
}

/// Returns the reason for the whole batch of a rejection. Each record has its own message.
fn rejection(answer: &PartAnswer) -> Reason {
    let message = answer.record_errors.iter().find_map(|error| error.1.clone()).or_else(|| answer.message.clone());
    Reason::Broker { code: ErrorCode(answer.code), message }
}

/// Returns whether a rejection is about the content of records. Any other one ends once a right, a setting or a clock is
/// corrected, and a stored batch waits for this. A refused timestamp is such a one, whatever records the answer names.
fn concerns_records(answer: &PartAnswer, records: u32) -> bool {
    if answer.code == ErrorCode::INVALID_TIMESTAMP.0 {
        return false;
    }
    let names_some = !answer.record_errors.is_empty() && answer.record_errors.len() < records as usize;
    answer.code == ErrorCode::INVALID_RECORD.0 || names_some
}

impl<T: Clone> PartitionSender<T> {
    /// Handles the answer of the leader to one attempt.
    pub(crate) fn on_answer(&mut self, request: RequestId, answer: &PartAnswer, cx: &mut Context<'_, T>) {
        let outcome = classify(answer);
        if outcome.treatment == Treatment::Delivered {
            self.on_accepted(request, answer, cx);
        } else {
            self.on_error(request, outcome, answer, cx);
        }
        self.close_gap(cx);
    }

    fn on_error(&mut self, request: RequestId, outcome: Classification, answer: &PartAnswer, cx: &mut Context<'_, T>) {
        let reason = Reason::Broker { code: ErrorCode(answer.code), message: answer.message.clone() };
        let about_the_batch = matches!(outcome.treatment, Treatment::Reject | Treatment::Split | Treatment::Sequence);
        let means_refusal = outcome.treatment == Treatment::Duplicate && self.is_switching();
        let mut current = None;
        for (position, flight) in self.window.iter_mut().enumerate() {
            let Some(ended) = flight.end_attempt(request) else { continue };
            if ended.current {
                let decides = position == 0 && flight.fresh;
                current = Some((decides, flight.has_open_attempt()));
                // An answer that does not decide about the batch is not reported as its reason if the batch times out.
                if decides || !about_the_batch {
                    flight.history.reason = Some(reason.clone());
                }
            }
            flight.open |= !outcome.refused && (flight.has_open_attempt() || !means_refusal);
        }
        for flight in &mut self.unconfirmed {
            flight.open |= flight.end_attempt(request).is_some() && !outcome.refused;
        }
        let Some((decides, was_open)) = current else { return };
        // A rejection of one batch is no reason for the batches that wait after it.
        if !matches!(outcome.treatment, Treatment::Reject | Treatment::Split) {
            self.retry.failed(reason);
        }
        if decides {
            cx.out.counters.answered(answer.code, outcome.treatment);
            self.on_head_failed(outcome, was_open, answer, cx);
        }
    }

    /// Handles an acceptance. It settles all records of the attempt, even if the batch was split, found by a lookup, or
    /// failed meanwhile.
    fn on_accepted(&mut self, request: RequestId, answer: &PartAnswer, cx: &mut Context<'_, T>) {
        let (mut current, mut accepted) = (false, None);
        for flight in self.unconfirmed.iter_mut().chain(&mut self.window) {
            let Some(ended) = flight.end_attempt(request) else { continue };
            current |= ended.current;
            accepted = flight.stamp().map(|stamp| (stamp, flight.aged));
            let time = ended.log_append_time(answer.log_append_time).filter(|time| !flight.had_newest(*time));
            flight.prove(Proof::At(offset_after(answer, ended.records_before), time));
        }
        let corrected = self.correct_attempt(request, answer, cx);
        let Some((stamp, aged)) = accepted.or(corrected.map(|stamp| (stamp, false))) else { return };
        cx.out.counters.answered(0, Treatment::Delivered);
        self.prove_all_before(stamp, cx);
        if current {
            self.leader.accepted(stamp, !aged && !self.is_switching(), cx.now);
            self.stamps.reset_fenced_answers();
            self.retry.accepted();
        }
        self.settle_proved(cx);
    }

    /// Applies the proof of an acceptance to all earlier batches under the same producer id and epoch. They are in the
    /// log if the leader knew the id. Otherwise nothing will ever prove them.
    fn prove_all_before(&mut self, stamp: Stamp, cx: &mut Context<'_, T>) {
        let before = |flight: &&mut Flight<T>| flight.stamp().is_some_and(|ours| lies_before(ours, stamp));
        if self.leader.knew(stamp.producer_id, cx.now) {
            let sent = self.unconfirmed.iter_mut().chain(&mut self.window);
            sent.filter(before).filter(|flight| flight.provable).for_each(|flight| flight.prove(Proof::Written));
        } else {
            self.window.iter_mut().filter(before).for_each(|earlier| earlier.provable = false);
        }
        // A leader that did not know the id may have begun with a later batch than the failed ones, before it showed its state.
        if self.leader.knew_at_acceptance(stamp.producer_id, cx.now) {
            self.correct_epoch(stamp, cx);
        } else {
            self.unknown_batches.forget_proofs();
        }
    }

    /// Settles the unconfirmed batches that are proved, and the first batches of the window that are in the log at a
    /// known offset.
    pub(super) fn settle_proved(&mut self, cx: &mut Context<'_, T>) {
        for flight in std::mem::take(&mut self.unconfirmed) {
            match flight.proof {
                Proof::None => self.unconfirmed.push_back(flight),
                Proof::Written | Proof::At(..) => self.settle_delivered(flight, cx),
            }
        }
        while self.window.front().is_some_and(|head| matches!(head.proof, Proof::At(..))) {
            if let Some(head) = self.window.pop_front() {
                // No lookup is needed any more.
                self.retry.forget_lookup_of(head.uid);
                self.settle_delivered(head, cx);
            }
        }
    }

    fn on_head_failed(
        &mut self,
        outcome: Classification,
        was_open: bool,
        answer: &PartAnswer,
        cx: &mut Context<'_, T>,
    ) {
        self.stop_pipelining();
        match outcome.treatment {
            Treatment::Delivered => {}
            Treatment::Duplicate => self.on_duplicate(was_open, cx),
            Treatment::Wait => self.back_off(cx),
            Treatment::WaitForLeader => self.wait_for_leader(answer, cx),
            Treatment::NewTopicId => {
                cx.out.refresh_metadata = true;
                // Another attempt under this topic id could be in doubt when the new id arrives.
                self.topic.deny_id(cx.now);
                self.back_off(cx);
            }
            Treatment::Retry => self.retry_head(cx),
            Treatment::Split => self.split_head(cx),
            Treatment::Sequence => {
                let is_fenced = answer.code == ErrorCode::INVALID_PRODUCER_EPOCH.0;
                match is_fenced {
                    true => self.stamps.count_fenced_answer(),
                    false => self.stamps.reset_fenced_answers(),
                }
                let is_stored = self.window.front().is_some_and(|head| head.stored.is_some());
                let is_foreign = is_fenced || answer.code == ErrorCode::UNKNOWN_PRODUCER_ID.0;
                let doubt = if is_foreign && is_stored { HeadDoubt::Foreign } else { HeadDoubt::OutOfSequence };
                self.on_sequence_refused(was_open, doubt, cx);
            }
            Treatment::Reject => self.reject_head(answer, cx),
        }
    }

    fn wait_for_leader(&mut self, answer: &PartAnswer, cx: &mut Context<'_, T>) {
        let hint = answer.leader.filter(|(_, epoch)| *epoch >= 0 && !self.is_switching());
        let hinted = hint.is_some_and(|(leader, epoch)| self.adopt_leader(Some(leader), Some(epoch)));
        if !hinted {
            self.doubt_leader();
            cx.out.refresh_metadata = true;
            self.back_off(cx);
        }
    }

    fn on_duplicate(&mut self, was_open: bool, cx: &mut Context<'_, T>) {
        if was_open && self.is_repeated_in_vain() {
            return self.fail_head(false, cx);
        }
        if was_open {
            return self.mark_appended(1, cx);
        }
        if self.is_switching() {
            return; // the remaining batches get new stamps once the other answers have arrived
        }
        // A later acceptance proves no more than the refusals.
        if let Some(head) = self.window.front_mut() {
            head.provable = false;
        }
        self.lookup_or_fail(HeadDoubt::Refused, cx);
    }

    fn retry_head(&mut self, cx: &mut Context<'_, T>) {
        let Some(head) = self.window.front_mut() else { return };
        head.write_errors += 1;
        if head.write_errors > cx.config.retry_max && head.stored.is_none() {
            self.fail_head(false, cx);
        } else {
            self.back_off(cx);
        }
    }

    fn split_head(&mut self, cx: &mut Context<'_, T>) {
        let uids = [cx.out.new_uid(), cx.out.new_uid()];
        match self.window.front().map(|head| head.split(uids)) {
            Some(Ok(Some([mut first, mut second]))) => {
                cx.out.counters.splits += 1;
                (first.history.reason, second.history.reason) = (None, None);
                self.window.pop_front();
                self.window.push_front(second);
                self.window.push_front(first);
            }
            Some(Ok(None)) => {
                self.window.iter_mut().take(1).for_each(|head| head.is_rejected = true);
                self.lookup_or_fail(HeadDoubt::Refused, cx);
            }
            Some(Err(error)) => self.fail_corrupt(&error.to_string(), cx),
            None => {}
        }
    }

    fn on_sequence_refused(&mut self, was_open: bool, doubt: HeadDoubt, cx: &mut Context<'_, T>) {
        let proved = self.window.front().is_some_and(|head| head.proof == Proof::Written);
        if proved {
            return self.settle_written_head(cx);
        }
        self.topic.forget_acknowledged();
        // A request of an earlier process can still arrive, so an inherited batch is never certain to be absent.
        if was_open || self.window.front().is_some_and(|head| head.is_inherited) {
            self.lookup_or_fail(doubt, cx);
        } else {
            self.restamp_after_sequence_error(cx);
        }
    }

    /// Restamps the window after a sequence error: the leader expects other stamps, and no batch of the window is
    /// written. The partition raises the epoch or takes another producer id.
    fn restamp_after_sequence_error(&mut self, cx: &mut Context<'_, T>) {
        let (climbs, leaves) = (self.stamps.is_fenced(), self.stamps.must_leave_id());
        if self.is_switching() {
            return; // the remaining batches are restamped once the other answers have arrived
        }
        cx.out.counters.acknowledged_lost += u64::from(!leaves);
        self.restamp_all(if leaves { EpochMove::Fenced } else { EpochMove::AcknowledgedLost }, cx);
        // The few epoch raises before the id is left take no backoff: a batch must not time out on them.
        if leaves || !climbs {
            self.back_off(cx);
        }
    }

    fn reject_head(&mut self, answer: &PartAnswer, cx: &mut Context<'_, T>) {
        let Some(head) = self.window.front_mut() else { return };
        let is_of_time = answer.code == ErrorCode::INVALID_TIMESTAMP.0 && cx.config.renews_timestamps;
        if is_of_time && head.refuse_times(cx.wall_clock) {
            return self.back_off(cx);
        }
        if head.stored.is_some() && !concerns_records(answer, head.batch.record_count()) {
            let (partition, reason) = (self.id, rejection(answer));
            cx.out.actions.push_back(Action::Waits { partition, reason });
            return self.back_off(cx);
        }
        if head.may_be_written() {
            head.is_rejected = true;
            return self.lookup_or_fail(HeadDoubt::Refused, cx);
        }
        let count = head.batch.record_count();
        let rejected = rejected_records(&head.records, answer);
        if !rejected.is_empty() {
            head.history.rejected = Some(rejected.into());
        }
        let mut positions: Vec<u32> = answer.record_errors.iter().map(|e| e.0).filter(|i| *i < count).collect();
        positions.sort_unstable();
        positions.dedup();
        if positions.is_empty() || positions.len() == count as usize {
            return self.fail_head(false, cx);
        }
        let uids = [cx.out.new_uid(), cx.out.new_uid()];
        match head.single_out(&positions, uids) {
            Ok(Some(parts)) => self.fail_rejected(parts, answer, cx),
            Ok(None) => self.fail_head(false, cx),
            Err(error) => self.fail_corrupt(&error.to_string(), cx),
        }
    }

    /// Fails the rejected records, which are certainly not written. All later batches are blocked. They are sent again
    /// in order under the next epoch, after the valid records of the rejected batch.
    fn fail_rejected(&mut self, [rejected, mut rest]: [Flight<T>; 2], answer: &PartAnswer, cx: &mut Context<'_, T>) {
        cx.out.counters.singled_out += 1;
        self.window.pop_front();
        self.settle_failed(rejected, Some(rejection(answer)), false, cx);
        (rest.history.reason, rest.history.rejected) = (None, None);
        if self.is_switching() {
            return self.window.push_front(rest); // the answers to the other batches will follow
        }
        self.restamp_all(EpochMove::SingledOut, cx);
        self.queue.push_front(rest);
    }

    /// Settles the head, which is in the log at an unknown offset.
    pub(super) fn settle_written_head(&mut self, cx: &mut Context<'_, T>) {
        if let Some(head) = self.window.pop_front() {
            self.settle_delivered(head, cx);
            self.settle_proved(cx);
        }
    }

    /// Notes that the connection of an attempt ended without an answer. Returns whether the attempt was the outstanding
    /// one.
    pub(crate) fn on_lost(&mut self, request: RequestId, written: bool, why: &Arc<str>) -> bool {
        for flight in &mut self.unconfirmed {
            flight.open |= flight.end_attempt(request).is_some() && written;
        }
        let mut current = None;
        for flight in &mut self.window {
            let Some(ended) = flight.end_attempt(request) else { continue };
            flight.open |= written;
            if ended.current {
                current = Some(flight);
            }
        }
        let Some(flight) = current else { return false };
        let reason = if written {
            flight.write_errors += 1;
            self.retry.send_alone();
            Reason::NoAnswer(why.clone())
        } else {
            Reason::NotAvailable(why.clone())
        };
        flight.history.reason = Some(reason.clone());
        self.retry.failed(reason);
        true
    }

    /// Reacts to a lost connection, once all its attempts are noted. If only abandoned attempts were lost, batches in
    /// flight at another leader continue undisturbed.
    pub(crate) fn after_loss(&mut self, current: bool, cx: &mut Context<'_, T>) {
        if !current {
            return self.close_gap(cx);
        }
        self.stop_pipelining();
        let spent = self.window.front().is_some_and(|head| head.has_spent_retries(cx.config.retry_max));
        if spent {
            self.fail_head(false, cx);
        } else if self.backoff_end(cx.now).is_none() && !self.window.is_empty() {
            self.back_off(cx);
        }
        self.close_gap(cx);
    }

    /// Reports that failed batches of the accepted attempt are in the log. Returns the stamp of the last one.
    fn correct_attempt(&mut self, request: RequestId, answer: &PartAnswer, cx: &mut Context<'_, T>) -> Option<Stamp> {
        let mut last = None;
        for (failed, attempt) in self.unknown_batches.take_attempted(request) {
            let base_offset = offset_after(answer, attempt.records_before);
            last = failed.stamp;
            cx.out.counters.corrections += 1;
            cx.out.actions.push_back(Action::Correct { token: failed.token, records: failed.records, base_offset });
        }
        last
    }

    /// Reports that failed batches of this producer id and epoch are in the log, if they precede the accepted stamp.
    fn correct_epoch(&mut self, stamp: Stamp, cx: &mut Context<'_, T>) {
        for failed in self.unknown_batches.take_proved(stamp) {
            cx.out.counters.corrections += 1;
            cx.out.actions.push_back(Action::Correct {
                token: failed.token,
                records: failed.records,
                base_offset: None,
            });
        }
    }

    /// Fails the head because it could not be decoded. This is a defect of kafka-courier, so the reason reports it.
    pub(super) fn fail_corrupt(&mut self, why: &str, cx: &mut Context<'_, T>) {
        if let Some(head) = self.window.front_mut() {
            head.history.reason = Some(Reason::Corrupt(why.into()));
        }
        self.fail_head(false, cx);
    }

    /// Settles a failed batch. The batch is delivered instead if a proof shows that it is in the log.
    pub(super) fn settle_failed(
        &mut self,
        flight: Flight<T>,
        reason: Option<Reason>,
        timed_out: bool,
        cx: &mut Context<'_, T>,
    ) {
        if flight.proof != Proof::None {
            return self.settle_delivered(flight, cx);
        }
        // A throttled broker answers late, so throttling is the cause of a timeout.
        let throttled = flight.history.reason.clone().filter(|reason| matches!(reason, Reason::Throttled { .. }));
        let unanswered = flight.outstanding.map(|_| Reason::NoAnswer("none arrived in time".into()));
        let reason = reason
            .or(throttled)
            .or(unanswered)
            .or_else(|| flight.history.reason.clone())
            .or_else(|| self.retry.last_failure().cloned());
        let reason = reason.unwrap_or_else(|| match self.leader() {
            None => Reason::NoLeader,
            Some(_) => Reason::NotAvailable("nothing could be sent to the leader in time".into()),
        });
        let failure: Failure = flight.failure(reason, timed_out, self.log());
        if failure.outcome == FailedOutcome::Unknown {
            self.unknown_batches.remember(&flight);
        }
        cx.out.counters.records_failed += u64::from(flight.records.len());
        self.settle(flight, Verdict::Failed(Arc::new(failure)), cx);
    }
}
