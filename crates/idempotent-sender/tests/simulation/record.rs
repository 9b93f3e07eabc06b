//! The history of one record: its attempts, their answers, and its verdict.
//!
//! Rule: requests and answers are the only sources of the history. The sender's own state is none.

use kafka_courier_client::PartAnswer;

use crate::cluster::{Micros, Partition};
use crate::failures::SearchKey;
use crate::history::RecordVerdict;
use crate::lookups::LookResults;
use crate::sending::Attempts;

#[derive(Clone, Debug)]
pub(crate) struct RecordHistory {
    pub(crate) partition: usize,
    pub(crate) has_key: bool,
    pub(crate) verdict: Option<RecordVerdict>,
    pub(crate) corrected: Option<Option<i64>>,
    /// The partition's `forgets` when the record was published.
    pub(crate) forgets: u32,
    /// The topic's incarnation that the sender knew when it first sent the record's present stamp.
    pub(crate) sent_in: Option<u32>,
    /// The partition's `forgets` and the topic's incarnation at the record's verdict or correction.
    pub(crate) settled_in: (u32, u32),
    /// The distinct codes of the record's answers.
    pub(crate) codes: Vec<i16>,
    /// A batch with this record alone was answered as too large.
    pub(crate) too_large_alone: bool,
    /// Attempts that were answered with a write error, or sent and never answered.
    pub(crate) write_errors: u32,
    /// The partition's `expiries` when the record was published.
    pub(crate) expiries: u32,
    /// The partition's `purges` when the record was published.
    pub(crate) purges: u32,
    /// An attempt was open when the record was sent again or failed.
    pub(crate) in_doubt: bool,
    /// The record's timestamp is old enough for the leader to forget the producer after the append.
    pub(crate) aged: bool,
    /// A batch of old records was sent after this record and before its verdict.
    pub(crate) followed_by_old: bool,
    /// The number of open attempts.
    pub(crate) unresolved: u32,
    /// The offset that a leader has acknowledged to the sender.
    pub(crate) acknowledged: Option<i64>,
    /// The log append time in the record's verdict.
    pub(crate) append_time: Option<i64>,
    /// The newest timestamp of the record's last batch.
    pub(crate) newest: i64,
    /// The codes of the record's answers. The flag is true if the answer names this record, or no record at all.
    pub(crate) answers: Vec<(i16, bool)>,
    pub(crate) attempts: Attempts,
    pub(crate) look_results: LookResults,
    pub(crate) search: Option<SearchKey>,
}

impl RecordHistory {
    pub(crate) fn new(partition: usize, has_key: bool, aged: bool, model: &Partition) -> Self {
        Self {
            partition,
            has_key,
            verdict: None,
            corrected: None,
            forgets: model.forgets,
            sent_in: None,
            settled_in: (0, 0),
            codes: Vec::new(),
            too_large_alone: false,
            write_errors: 0,
            expiries: model.expiries,
            purges: model.purges,
            in_doubt: false,
            aged,
            followed_by_old: false,
            unresolved: 0,
            acknowledged: None,
            append_time: None,
            newest: -1,
            answers: Vec::new(),
            attempts: Attempts::default(),
            look_results: LookResults::default(),
            search: None,
        }
    }

    /// Notes that another process continues.
    pub(crate) fn note_new_life(&mut self) {
        self.attempts = Attempts::default();
        self.in_doubt |= self.unresolved > 0;
        self.unresolved = 0;
    }

    /// Returns whether the record may be in the log without an acknowledgement.
    pub(crate) fn may_be_written(&self) -> bool {
        self.in_doubt || self.unresolved > 0
    }

    /// Notes that an attempt was sent.
    pub(crate) fn note_attempt(&mut self, now: Micros) {
        self.in_doubt |= self.unresolved > 0;
        self.unresolved += 1;
        self.attempts.note(now);
    }

    /// Notes the answer to an attempt. `position` is the record's index in its batch.
    pub(crate) fn note_answer(&mut self, answer: &PartAnswer, position: i64) {
        if let (0, Some(base_offset)) = (answer.code, answer.base_offset) {
            self.acknowledged = Some(base_offset + position);
        }
        let is_open = answer.code != 0 && (answer.base_offset.is_some() || OPEN.contains(&answer.code));
        self.in_doubt |= is_open;
        self.unresolved -= u32::from(!is_open);
        let named = answer.record_errors.iter().any(|error| i64::from(error.0) == position);
        self.answers.push((answer.code, named || answer.record_errors.is_empty()));
        if !self.codes.contains(&answer.code) {
            self.codes.push(answer.code);
        }
    }
}

/// Codes after which the batch may have been appended.
const OPEN: &[i16] = &[-1, 5, 7, 13, 14, 15, 16, 20, 56, 75, 89, 999];
