//! Applies plan, check results and order to the letters of a page, and counts the results.
//!
//! Rules:
//! - Pure. Letters are visited in the store's order.
//! - A letter that stays holds back the later ones of its lane (`order`), whatever the reason.

use std::collections::HashSet;

use kafka_courier_dlq::{Held, Position};
use kafka_courier_idempotent_sender::core::FailedOutcome;

use super::check::CheckResults;
use super::order::{Order, ReplayLane};
use super::plan::{self, Decision};
use super::spools::HeldIds;
use super::{Doubtful, Replay, ReplayReport};
use crate::verify::{FenceOutcome, Verdict, WhyNot};

/// Sorts letters by the action of the replay, and counts the results.
#[derive(Debug)]
pub(super) struct Sorter {
    pub(super) replay: Replay,
    pub(super) report: ReplayReport,
    /// The lanes that are held back.
    pub(super) order: Order,
    /// The check of the present store's doubtful letters.
    pub(super) checked: CheckResults,
    /// The producer ids that spools held before that check.
    pub(super) held_ids: HeldIds,
}

impl Sorter {
    pub(super) fn new(replay: Replay) -> Self {
        let order = Order::new(replay.clone());
        let (report, checked, held_ids) = Default::default();
        Self { replay, order, report, checked, held_ids }
    }

    /// Returns how many more letters may be selected.
    pub(super) fn remaining(&self) -> u64 {
        self.replay.limit.unwrap_or(u64::MAX).saturating_sub(self.report.selected)
    }

    /// Decides on each letter of a page.
    pub(super) fn sort(&mut self, page: Vec<Held>, now_ms: i64) -> Sorted {
        let mut sorted = Sorted::default();
        for held in page {
            if let Some(outcome) = self.checked.fences.remove(&held.letter.id) {
                self.report.selected += 1;
                self.apply_fence_outcome(held, outcome, &mut sorted);
                continue;
            }
            if self.remaining() == 0 || !self.replay.selection.matches(&held.letter) {
                self.order.note_not_selected(&held);
                continue;
            }
            self.report.selected += 1;
            match plan::decide(&held.letter, &self.replay) {
                Decision::Send => self.send_or_hold_back(held, &mut sorted),
                Decision::Check => self.apply_verdict(held, now_ms, &mut sorted),
                Decision::LeaveOut => {
                    self.report.left_out += 1;
                    self.order.note_left_out(&held);
                }
                Decision::TooOften => {
                    self.report.too_often += 1;
                    self.order.note_left_out(&held);
                }
            }
        }
        sorted
    }

    fn send_or_hold_back(&mut self, held: Held, sorted: &mut Sorted) {
        if self.is_held_back(&held, held.letter.partition) {
            return;
        }
        sorted.pending.extend(ReplayLane::all(&held.letter, held.letter.partition, &self.replay));
        sorted.send.push(held);
    }

    fn apply_verdict(&mut self, held: Held, now_ms: i64, sorted: &mut Sorted) {
        let force = matches!(self.replay.doubtful, Doubtful::Verify { force: true });
        let why = match self.checked.verdicts.remove(&held.letter.id) {
            Some(Verdict::Landed { offset }) => {
                tracing::debug!(letter = %held.letter.id, offset, "a dead letter's record is in the log");
                self.report.landed += 1;
                return sorted.settled.push(held.position);
            }
            Some(Verdict::Absent) => return self.send_absent(held, sorted),
            Some(Verdict::NotFound { why }) if self.is_repeatable(&why, &held, now_ms) => {
                return self.repeat_or_hold_back(held, sorted);
            }
            Some(Verdict::NotFound { why: WhyNot::NoFence }) => self.no_fence(&held),
            Some(Verdict::NotFound { why }) => why.to_string(),
            None => "the check did not search for the record".to_owned(),
        };
        if force {
            return self.send_or_hold_back(held, sorted);
        }
        self.report.not_found += 1;
        self.report.count_reason(why);
        self.order.note_left_out(&held);
    }

    /// Sends a letter that is proved absent. If the letter is held back, the proof is stored: a later check may have none.
    fn send_absent(&mut self, held: Held, sorted: &mut Sorted) {
        let held = Held { letter: plan::proved_absent(held.letter), ..held };
        if self.order.is_held_back(&held, held.letter.partition) {
            sorted.changed.push(held.clone());
        }
        self.send_or_hold_back(held, sorted);
    }

    /// Repeats a letter under its stamp, in the order of its lane: the leader would take an earlier letter of the same
    /// producer id, sent later, for a duplicate. Repeats leave before the other letters of the page. The letter is therefore
    /// held back if an earlier one of its lane is among those.
    fn repeat_or_hold_back(&mut self, held: Held, sorted: &mut Sorted) {
        let note_later_store = ReplayLane::of(&held.letter).is_some_and(|lane| sorted.pending.contains(&lane));
        if note_later_store {
            self.hold_back(&held, held.letter.partition);
        } else if !self.is_held_back(&held, held.letter.partition) {
            sorted.repeat.push(held);
        }
    }

    /// Settles a letter that was sent as a fence. Its record is counted already.
    fn apply_fence_outcome(&mut self, held: Held, outcome: FenceOutcome, sorted: &mut Sorted) {
        self.report.count_sent(&held.letter.topic);
        let (failure, outcome) = match outcome {
            FenceOutcome::Written { .. } => {
                self.report.delivered += 1;
                return sorted.settled.push(held.position);
            }
            FenceOutcome::NotWritten(failure) => (failure, FailedOutcome::NotWritten),
            FenceOutcome::Unknown(failure) => (failure, FailedOutcome::Unknown),
        };
        self.report.failed += 1;
        self.report.count_reason(failure.why.to_string());
        self.order.note_staying(&held, held.letter.partition);
        // The mark has counted this replay.
        let mut letter = plan::with_replay_counted(held.letter, !failure.by_outage);
        if outcome == FailedOutcome::NotWritten {
            letter = plan::proved_absent(letter);
            letter.failure_reason = plan::fence_failure_reason(&failure.why);
        }
        sorted.changed.push(Held { letter, ..held });
    }

    /// Returns whether a letter can be repeated under its stamp: it is sent to the same topic, and nothing indicates that its
    /// record was written and deleted, or that the topic was recreated.
    fn is_repeatable(&self, why: &WhyNot, held: &Held, now_ms: i64) -> bool {
        let harmless =
            matches!(why, WhyNot::NoFence | WhyNot::Compacted | WhyNot::CleanupPolicyUnknown | WhyNot::TopicIdUnknown);
        let is_same_target = !self.replay.out_of_order && !self.replay.reroutes(&held.letter);
        harmless && is_same_target && plan::stamp_to_repeat(&held.letter, now_ms).is_some()
    }

    /// Returns whether an earlier letter of its lane stays, and counts this letter as held back in that case.
    pub(super) fn is_held_back(&mut self, held: &Held, partition: Option<i32>) -> bool {
        let is_held_back = self.order.is_held_back(held, partition);
        if is_held_back {
            self.hold_back(held, partition);
        }
        is_held_back
    }

    /// Returns the reason for a letter that was not found and lacks a fence.
    fn no_fence(&self, held: &Held) -> String {
        let why = WhyNot::NoFence;
        match held.letter.producer_id.and_then(|id| self.held_ids.reason(id)) {
            Some(reason) => format!("{why} ({reason})"),
            None if held.imported => {
                format!("{why} (the dead letter was imported: its producer may still be running)")
            }
            None => why.to_string(),
        }
    }

    fn hold_back(&mut self, held: &Held, partition: Option<i32>) {
        self.report.held_back += 1;
        self.order.note_staying(held, partition);
    }
}

/// The letters of a page by the replay's action.
#[derive(Default)]
pub(super) struct Sorted {
    /// Letters to send.
    pub(super) send: Vec<Held>,
    /// Letters that were delivered, or found in the log.
    pub(super) settled: Vec<Position>,
    /// Letters with a new state to store.
    pub(super) changed: Vec<Held>,
    /// Letters to repeat under their stamps.
    pub(super) repeat: Vec<Held>,
    /// Lanes of the letters to send.
    pending: HashSet<ReplayLane>,
}
