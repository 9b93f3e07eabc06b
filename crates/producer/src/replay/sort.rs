//! What becomes of each letter of a page.
//!
//! Rules: pure; letters are passed in the store's order; what stays holds back what is behind it (`order`), whatever the
//! reason for which it stays.

use std::collections::HashSet;

use kafka_courier_dlq::{Held, Position};
use kafka_courier_idempotent_sender::core::{ErrorCode, FailedOutcome};

use super::check::Checked;
use super::order::{Lane, Order};
use super::plan::{self, Decision};
use super::{Doubtful, Replay, ReplayReport};
use crate::verify::{FenceOutcome, Verdict, WhyNot};

/// What became of a letter that went in a batch of its own.
pub(super) type Alone = Result<(), (Option<ErrorCode>, FailedOutcome)>;

/// What a replay decides by.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) replay: Replay,
    pub(super) report: ReplayReport,
    /// Which letters are held back.
    pub(super) order: Order,
    /// What was found of the present store's doubtful letters.
    pub(super) checked: Checked,
}

impl Desk {
    pub(super) fn new(replay: Replay) -> Self {
        let order = Order::new(replay.clone());
        Self { replay, order, report: ReplayReport::default(), checked: Checked::default() }
    }

    /// How many more may be selected.
    pub(super) fn left(&self) -> u64 {
        self.replay.limit.unwrap_or(u64::MAX).saturating_sub(self.report.selected)
    }

    /// What becomes of each letter of a page.
    pub(super) fn sort(&mut self, page: Vec<Held>, now_ms: i64) -> Sorted {
        let mut sorted = Sorted::default();
        for held in page {
            if let Some(outcome) = self.checked.fences.remove(&held.letter.id) {
                self.report.selected += 1;
                self.was_fence(held, outcome, &mut sorted);
                continue;
            }
            if self.left() == 0 || !self.replay.selection.matches(&held.letter) {
                self.order.not_selected(&held);
                continue;
            }
            self.report.selected += 1;
            match plan::decide(&held.letter, &self.replay) {
                Decision::Send => self.may_leave(held, &mut sorted),
                Decision::Check => self.was_looked_for(held, now_ms, &mut sorted),
                Decision::LeaveOut => {
                    self.report.left_out += 1;
                    self.order.left_out(&held);
                }
                Decision::TooOften => {
                    self.report.too_often += 1;
                    self.order.left_out(&held);
                }
            }
        }
        sorted
    }

    fn may_leave(&mut self, held: Held, sorted: &mut Sorted) {
        if self.is_held_back(&held, held.letter.partition) {
            return;
        }
        sorted.pending.extend(Lane::all(&held.letter, held.letter.partition, &self.replay));
        sorted.send.push(held);
    }

    fn was_looked_for(&mut self, held: Held, now_ms: i64, sorted: &mut Sorted) {
        let force = matches!(self.replay.doubtful, Doubtful::Verify { force: true });
        let why = match self.checked.verdicts.remove(&held.letter.id) {
            Some(Verdict::Landed { offset }) => {
                tracing::debug!(letter = %held.letter.id, offset, "a dead letter's record is in the log");
                self.report.landed += 1;
                return sorted.gone.push(held.position);
            }
            Some(Verdict::Absent) => return self.is_absent(held, sorted),
            Some(Verdict::NotFound { why }) if self.is_repeatable(&why, &held, now_ms) => {
                return self.may_repeat(held, sorted);
            }
            Some(Verdict::NotFound { why: WhyNot::NoFence }) => no_fence(held.imported),
            Some(Verdict::NotFound { why }) => why.to_string(),
            None => "it was not looked for".to_owned(),
        };
        if force {
            return self.may_leave(held, sorted);
        }
        self.report.not_found += 1;
        self.report.reason(why);
        self.order.left_out(&held);
    }

    /// A letter that is proved not to be in the log. The proof is kept where the letter is held back: a later look may have
    /// none.
    fn is_absent(&mut self, held: Held, sorted: &mut Sorted) {
        let held = Held { letter: plan::proved_absent(held.letter), ..held };
        if self.order.is_held_back(&held, held.letter.partition) {
            sorted.changed.push(held.clone());
        }
        self.may_leave(held, sorted);
    }

    /// A letter that may go once more under its stamp, in its turn: an earlier one of its producer id would be taken for one
    /// that was written before. It goes before the others of its page, so not if an earlier one of its lane is among them.
    fn may_repeat(&mut self, held: Held, sorted: &mut Sorted) {
        let is_behind = Lane::of(&held.letter).is_some_and(|lane| sorted.pending.contains(&lane));
        if is_behind {
            self.hold_back(&held, held.letter.partition);
        } else if !self.is_held_back(&held, held.letter.partition) {
            sorted.repeat.push(held);
        }
    }

    /// A letter that has been sent as a fence already, and is counted.
    fn was_fence(&mut self, held: Held, outcome: FenceOutcome, sorted: &mut Sorted) {
        self.report.count_sent(&held.letter.topic);
        let (failure, left) = match outcome {
            FenceOutcome::Written { .. } => {
                self.report.delivered += 1;
                return sorted.gone.push(held.position);
            }
            FenceOutcome::NotWritten(failure) => (failure, FailedOutcome::NotWritten),
            FenceOutcome::Unknown(failure) => (failure, FailedOutcome::Unknown),
        };
        self.report.failed += 1;
        self.report.reason(failure.why.to_string());
        self.order.stays(&held, held.letter.partition);
        // Its mark has counted this replay already.
        let mut letter = plan::with_replay_counted(held.letter, !failure.by_outage);
        if left == FailedOutcome::NotWritten {
            letter = plan::proved_absent(letter);
            letter.failure_reason = plan::fence_failure_reason(&failure.why);
        }
        sorted.changed.push(Held { letter, ..held });
    }

    /// Whether a letter can go once more under its stamp, to where it went: where nothing says that its record was written
    /// and deleted since, or belongs to another topic.
    fn is_repeatable(&self, why: &WhyNot, held: &Held, now_ms: i64) -> bool {
        let harmless =
            matches!(why, WhyNot::NoFence | WhyNot::Compacted | WhyNot::CleanupPolicyUnknown | WhyNot::TopicIdUnknown);
        let goes_there = !self.replay.out_of_order && !self.replay.reroutes(&held.letter);
        harmless && goes_there && plan::stamp_to_repeat(&held.letter, now_ms).is_some()
    }

    /// Whether an earlier letter of its lane stays: one more that stays is counted.
    pub(super) fn is_held_back(&mut self, held: &Held, partition: Option<i32>) -> bool {
        let is_held_back = self.order.is_held_back(held, partition);
        if is_held_back {
            self.hold_back(held, partition);
        }
        is_held_back
    }

    fn hold_back(&mut self, held: &Held, partition: Option<i32>) {
        self.report.held_back += 1;
        self.order.stays(held, partition);
    }
}

/// Why an imported letter, or one of this store's own, is neither found nor proved absent.
fn no_fence(imported: bool) -> String {
    let why = WhyNot::NoFence;
    if imported { format!("{why}; it was imported, so its producer may live elsewhere") } else { why.to_string() }
}

/// What becomes of a page's letters.
#[derive(Default)]
pub(super) struct Sorted {
    pub(super) send: Vec<Held>,
    /// Delivered, or found in the log.
    pub(super) gone: Vec<Position>,
    pub(super) changed: Vec<Held>,
    /// Goes once more under the stamp that it went alone with.
    pub(super) repeat: Vec<Held>,
    /// Lanes of letters that are to leave.
    pending: HashSet<Lane>,
}
