//! What a partition makes of an answer, and of its lack.
//!
//! Rules:
//! - An acceptance proves that everything before it under the same id and epoch is in the log.
//! - An error answer counts only for the head, and only if the attempt was fresh; a late one changes nothing.
//! - A batch with an open attempt is never stamped anew on a sequence error: it is looked for.
//! - DUPLICATE_SEQUENCE_NUMBER for a batch without an open attempt contradicts the refusals before it: only the log shows
//!   where the batch is. While a recreated topic is waited for the answer is a refusal: that topic has a later batch.

use std::sync::Arc;

use kafka_courier_batcher::Stamp;

use super::super::effects::Context;
use super::super::error_code::ErrorCode;
use super::super::flight::{Flight, Proof};
use super::super::outcome::{Outcome, Treatment, classify};
use super::super::types::{
    Action, FailedOutcome, Failure, PartAnswer, Reason, RecordSet, RejectedRecord, RequestId, Verdict,
};
use super::Partition;
use super::give_up::lies_before;
use super::look::Doubt;
use super::stamps::{EpochMove, FENCED_MAX};

/// The offset of the record that lies so many behind the first of an accepted attempt; -1 if none was told.
fn offset_behind(answer: &PartAnswer, behind: u32) -> i64 {
    if answer.base_offset < 0 { -1 } else { answer.base_offset + i64::from(behind) }
}

/// What the broker says of each record that it rejects, by the record's index in the batch that was handed in.
fn rejected(records: &RecordSet, answer: &PartAnswer) -> Vec<RejectedRecord> {
    let own = |(position, message): &RejectedRecord| {
        Some((records.get(*position)?, message.clone().or_else(|| answer.message.clone())))
    };
    let mut rejected: Vec<_> = answer.record_errors.iter().filter_map(own).collect();
    rejected.sort_by_key(|(index, _)| *index);
    rejected.dedup_by_key(|(index, _)| *index);
    rejected
}

impl<T: Clone> Partition<T> {
    /// The leader's answer to one attempt.
    pub(crate) fn on_answer(&mut self, request: RequestId, answer: &PartAnswer, cx: &mut Context<'_, T>) {
        let outcome = classify(answer);
        if outcome.treatment == Treatment::Delivered {
            self.on_accepted(request, answer, cx);
        } else {
            self.on_error(request, outcome, answer, cx);
        }
        self.close_gap(cx);
    }

    fn on_error(&mut self, request: RequestId, outcome: Outcome, answer: &PartAnswer, cx: &mut Context<'_, T>) {
        let reason = Reason::Broker { code: ErrorCode(answer.code), message: answer.message.clone() };
        let about_the_batch = matches!(outcome.treatment, Treatment::Reject | Treatment::Split | Treatment::Sequence);
        let is_passed = outcome.treatment == Treatment::Duplicate && self.is_turning();
        let mut current = None;
        for (position, flight) in self.window.iter_mut().enumerate() {
            let Some(ended) = flight.end_attempt(request) else { continue };
            if ended.current {
                let decides = position == 0 && flight.fresh;
                current = Some((decides, flight.has_open_attempt()));
                // What does not decide about it is not told as the reason, should its time run out.
                if decides || !about_the_batch {
                    flight.history.reason = Some(reason.clone());
                }
            }
            flight.open |= !outcome.refused && (flight.has_open_attempt() || !is_passed);
        }
        for flight in &mut self.unconfirmed {
            flight.open |= flight.end_attempt(request).is_some() && !outcome.refused;
        }
        let Some((decides, was_open)) = current else { return };
        // What is wrong with one batch is no reason for those that wait behind it.
        if !matches!(outcome.treatment, Treatment::Reject | Treatment::Split) {
            self.trouble = Some(reason);
        }
        if decides {
            cx.out.counters.answered(answer.code, outcome.treatment);
            self.on_head_failed(outcome, was_open, answer, cx);
        }
    }

    /// An acceptance settles all that the attempt held, whatever has become of it since: split, found by a
    /// look, or given up.
    fn on_accepted(&mut self, request: RequestId, answer: &PartAnswer, cx: &mut Context<'_, T>) {
        let (mut current, mut accepted) = (false, None);
        for flight in self.unconfirmed.iter_mut().chain(&mut self.window) {
            let Some(ended) = flight.end_attempt(request) else { continue };
            current |= ended.current;
            accepted = flight.stamp().map(|stamp| (stamp, flight.aged));
            let time = ended.log_append_time(answer.log_append_time);
            flight.prove(Proof::At(offset_behind(answer, ended.behind), time));
        }
        let corrected = self.correct_attempt(request, answer, cx);
        let Some((stamp, aged)) = accepted.or(corrected.map(|stamp| (stamp, false))) else { return };
        cx.out.counters.answered(0, Treatment::Delivered);
        self.prove_all_before(stamp, cx);
        if current {
            self.known = !aged && !self.is_turning();
            (self.doubts, self.fenced) = (0, 0);
            self.acknowledged = self.known.then_some((stamp.producer_id, stamp.epoch, cx.now));
            self.failures = 0;
            self.backoff_until = None;
            self.solo = false;
            self.trouble = None;
        }
        self.settle_proved(cx);
    }

    /// What an acceptance says of all that was sent before it under the same id and epoch: it is in the
    /// log, if the leader knew the id. If not, nothing will ever prove it.
    fn prove_all_before(&mut self, stamp: Stamp, cx: &mut Context<'_, T>) {
        let before = |flight: &&mut Flight<T>| flight.stamp().is_some_and(|ours| lies_before(ours, stamp));
        if self.leader_knew(stamp.producer_id, cx.now) {
            let sent = self.unconfirmed.iter_mut().chain(&mut self.window);
            sent.filter(before).filter(|flight| flight.provable).for_each(|flight| flight.prove(Proof::Written));
            self.correct_epoch(stamp, cx);
        } else {
            self.window.iter_mut().filter(before).for_each(|earlier| earlier.provable = false);
            self.given_up.iter_mut().for_each(|given| given.provable = false);
        }
    }

    /// Settles from the head on whatever is known to be in the log, and where.
    pub(super) fn settle_proved(&mut self, cx: &mut Context<'_, T>) {
        for flight in std::mem::take(&mut self.unconfirmed) {
            match flight.proof {
                Proof::None => self.unconfirmed.push_back(flight),
                Proof::Written | Proof::At(..) => self.settle_delivered(flight, cx),
            }
        }
        while self.window.front().is_some_and(|head| matches!(head.proof, Proof::At(..))) {
            if let Some(head) = self.window.pop_front() {
                // Nobody needs to look for it any more.
                self.looking = self.looking.filter(|looking| looking.batch != head.uid);
                self.settle_delivered(head, cx);
            }
        }
    }

    fn on_head_failed(&mut self, outcome: Outcome, was_open: bool, answer: &PartAnswer, cx: &mut Context<'_, T>) {
        self.disturb();
        match outcome.treatment {
            Treatment::Delivered => {}
            Treatment::Duplicate => self.on_duplicate(was_open, cx),
            Treatment::Wait => self.back_off(cx),
            Treatment::WaitForLeader => self.wait_for_leader(answer, cx),
            Treatment::NewTopicId => {
                cx.out.refresh_metadata = true;
                // Another try under that id could be in doubt when the new one comes.
                self.id_denied = Some(cx.now);
                self.back_off(cx);
            }
            Treatment::Retry => self.retry_head(cx),
            Treatment::Split => self.split_head(cx),
            Treatment::Sequence => {
                let fenced = answer.code == ErrorCode::INVALID_PRODUCER_EPOCH.0;
                self.fenced = if fenced { self.fenced + 1 } else { 0 };
                self.on_sequence_refused(was_open, cx);
            }
            Treatment::Reject => self.reject_head(answer, cx),
        }
    }

    fn wait_for_leader(&mut self, answer: &PartAnswer, cx: &mut Context<'_, T>) {
        let hint = answer.leader.filter(|(_, epoch)| *epoch >= 0 && !self.is_turning());
        let hinted = hint.is_some_and(|(leader, epoch)| self.adopt_leader(Some(leader), epoch));
        if !hinted {
            self.doubt_leader();
            cx.out.refresh_metadata = true;
            self.back_off(cx);
        }
    }

    fn on_duplicate(&mut self, was_open: bool, cx: &mut Context<'_, T>) {
        if was_open {
            return self.head_is_appended(1, cx);
        }
        if self.is_turning() {
            return; // after the other answers everything that is left gets other stamps
        }
        // A later acceptance is no better proof than the refusals.
        if let Some(head) = self.window.front_mut() {
            head.provable = false;
        }
        self.look_or_give_up(Doubt::Refused, cx);
    }

    fn retry_head(&mut self, cx: &mut Context<'_, T>) {
        let Some(head) = self.window.front_mut() else { return };
        head.write_errors += 1;
        if head.write_errors > cx.config.retry_max {
            self.give_up_head(false, cx);
        } else {
            self.back_off(cx);
        }
    }

    fn split_head(&mut self, cx: &mut Context<'_, T>) {
        let uids = [cx.out.uid(), cx.out.uid()];
        match self.window.front().map(|head| head.split(uids)) {
            Some(Ok(Some([mut first, mut second]))) => {
                cx.out.counters.splits += 1;
                (first.history.reason, second.history.reason) = (None, None);
                self.window.pop_front();
                self.window.push_front(second);
                self.window.push_front(first);
            }
            Some(Ok(None)) => self.look_or_give_up(Doubt::Refused, cx),
            Some(Err(error)) => self.give_up_corrupt(&error.to_string(), cx),
            None => {}
        }
    }

    fn on_sequence_refused(&mut self, was_open: bool, cx: &mut Context<'_, T>) {
        let proved = self.window.front().is_some_and(|head| head.proof == Proof::Written);
        if proved {
            return self.head_is_written(cx);
        }
        // The leader may have lost what it acknowledged (an unclean election): what comes may land at an earlier offset.
        self.place.acknowledged_to = None;
        if was_open {
            self.look_or_give_up(Doubt::OutOfSequence, cx);
        } else {
            self.go_on_anew(cx);
        }
    }

    /// The leader expects other stamps, and nothing that has ours is written: the next epoch, or another id.
    fn go_on_anew(&mut self, cx: &mut Context<'_, T>) {
        let (climbs, leaves) = (self.fenced > 0, self.fenced > FENCED_MAX);
        if self.is_turning() {
            return; // once the other answers have come all that is left is stamped anew
        }
        cx.out.counters.acknowledged_lost += u64::from(!leaves);
        self.stamp_all_anew(if leaves { EpochMove::Fenced } else { EpochMove::AcknowledgedLost }, cx);
        // The few steps up, until the id is left, are taken at once: a batch must not run out of time on them.
        if leaves || !climbs {
            self.back_off(cx);
        }
    }

    fn reject_head(&mut self, answer: &PartAnswer, cx: &mut Context<'_, T>) {
        let Some(head) = self.window.front_mut() else { return };
        if head.may_be_written() {
            return self.look_or_give_up(Doubt::Refused, cx);
        }
        let count = head.batch.record_count();
        let rejected = rejected(&head.records, answer);
        if !rejected.is_empty() {
            head.history.rejected = Some(rejected.into());
        }
        let mut guilty: Vec<u32> = answer.record_errors.iter().map(|e| e.0).filter(|i| *i < count).collect();
        guilty.sort_unstable();
        guilty.dedup();
        if guilty.is_empty() || guilty.len() == count as usize {
            return self.give_up_head(false, cx);
        }
        let uids = [cx.out.uid(), cx.out.uid()];
        match head.single_out(&guilty, uids) {
            Ok(Some(parts)) => self.give_up_guilty(parts, answer, cx),
            Ok(None) => self.give_up_head(false, cx),
            Err(error) => self.give_up_corrupt(&error.to_string(), cx),
        }
    }

    /// The guilty records are certainly not written: everything behind them is barred, and goes again
    /// in order under the next epoch, the innocent of their batch first.
    fn give_up_guilty(&mut self, [guilty, mut rest]: [Flight<T>; 2], answer: &PartAnswer, cx: &mut Context<'_, T>) {
        cx.out.counters.singled_out += 1;
        self.window.pop_front();
        // Of the batch as a whole; each record has its own.
        let message = answer.record_errors.iter().find_map(|e| e.1.clone()).or_else(|| answer.message.clone());
        let reason = Reason::Broker { code: ErrorCode(answer.code), message };
        self.settle_given_up(guilty, Some(reason), false, cx);
        (rest.history.reason, rest.history.rejected) = (None, None);
        if self.is_turning() {
            return self.window.push_front(rest); // the others' own answers are to come
        }
        self.stamp_all_anew(EpochMove::SingledOut, cx);
        self.queue.push_front(rest);
    }

    /// The head is in the log, and nobody can say where any more.
    pub(super) fn head_is_written(&mut self, cx: &mut Context<'_, T>) {
        if let Some(head) = self.window.pop_front() {
            self.settle_delivered(head, cx);
            self.settle_proved(cx);
        }
    }

    /// The connection that an attempt was on ended without an answer to it. Returns whether it was the one
    /// that is waited for.
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
            self.solo = true;
            Reason::NoAnswer(why.clone())
        } else {
            Reason::NotAvailable(why.clone())
        };
        flight.history.reason = Some(reason.clone());
        self.trouble = Some(reason);
        true
    }

    /// After all that was lost with a connection is noted. Where only attempts were lost that are not waited
    /// for any more, what is under way at another leader goes on undisturbed.
    pub(crate) fn after_loss(&mut self, current: bool, cx: &mut Context<'_, T>) {
        if !current {
            return self.close_gap(cx);
        }
        self.disturb();
        let spent = self
            .window
            .front()
            .is_some_and(|head| head.outstanding.is_none() && head.write_errors > cx.config.retry_max);
        if spent {
            self.give_up_head(false, cx);
        } else if self.waits_until(cx.now).is_none() && !self.window.is_empty() {
            self.back_off(cx);
        }
        self.close_gap(cx);
    }

    /// What the attempt held of given-up batches turns out to be in the log. Returns the last one's stamp.
    fn correct_attempt(&mut self, request: RequestId, answer: &PartAnswer, cx: &mut Context<'_, T>) -> Option<Stamp> {
        let mut last = None;
        for given in std::mem::take(&mut self.given_up) {
            let Some(attempt) = given.attempts.iter().find(|attempt| attempt.request == request) else {
                self.given_up.push_back(given);
                continue;
            };
            let base_offset = Some(offset_behind(answer, attempt.behind)).filter(|offset| *offset >= 0);
            last = given.stamp;
            cx.out.counters.corrections += 1;
            cx.out.actions.push_back(Action::Correct { token: given.token, records: given.records, base_offset });
        }
        last
    }

    /// An acceptance under this id and epoch proves every given-up batch of it, for all of them lie before.
    fn correct_epoch(&mut self, stamp: Stamp, cx: &mut Context<'_, T>) {
        if self.given_up.is_empty() {
            return;
        }
        let all: Vec<_> = (0..self.given_up.len()).filter(|i| self.given_up[*i].is_proved_by(stamp)).collect();
        self.correct_positions(&all, cx);
    }

    fn correct_positions(&mut self, positions: &[usize], cx: &mut Context<'_, T>) {
        for position in positions.iter().rev() {
            let Some(given) = self.given_up.remove(*position) else { continue };
            cx.out.counters.corrections += 1;
            cx.out.actions.push_back(Action::Correct { token: given.token, records: given.records, base_offset: None });
        }
    }

    /// The batch's own bytes can't be taken apart: a defect of ours, told instead of hidden.
    fn give_up_corrupt(&mut self, why: &str, cx: &mut Context<'_, T>) {
        if let Some(head) = self.window.front_mut() {
            head.history.reason = Some(Reason::Corrupt(why.into()));
        }
        self.give_up_head(false, cx);
    }

    /// The verdict of a batch that is given up: delivered, where that is proved.
    pub(super) fn settle_given_up(
        &mut self,
        flight: Flight<T>,
        reason: Option<Reason>,
        timed_out: bool,
        cx: &mut Context<'_, T>,
    ) {
        if flight.proof != Proof::None {
            return self.settle_delivered(flight, cx);
        }
        // A throttled broker answers late: the throttling is the cause then.
        let throttled = flight.history.reason.clone().filter(|reason| matches!(reason, Reason::Throttled { .. }));
        let unanswered = flight.outstanding.map(|_| Reason::NoAnswer("none had come by then".into()));
        let reason = reason
            .or(throttled)
            .or(unanswered)
            .or_else(|| flight.history.reason.clone())
            .or_else(|| self.trouble.clone());
        let reason = reason.unwrap_or_else(|| match self.leader {
            None => Reason::NoLeader,
            Some(_) => Reason::NotAvailable("nothing could be sent to the leader in time".into()),
        });
        let failure: Failure = flight.failure(reason, timed_out, &self.place);
        if failure.outcome == FailedOutcome::Unknown {
            self.remember(&flight);
        }
        cx.out.counters.records_failed += u64::from(flight.records.len());
        self.settle(flight, Verdict::Failed(Arc::new(failure)), cx);
    }
}
