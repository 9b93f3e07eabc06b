//! What became of one record: when it left, what it was answered, and its verdict.
//!
//! Rule: what is noted here comes from what was sent and answered, never from what the sender says of itself.

use kafka_courier_idempotent_sender::core::PartAnswer;

use crate::cluster::{Micros, Partition};
use crate::failures::Search;
use crate::history::Told;
use crate::looks::LookedFor;
use crate::sending::Sends;

#[derive(Clone, Debug)]
pub(crate) struct RecordHistory {
    pub(crate) partition: usize,
    pub(crate) has_key: bool,
    pub(crate) verdict: Option<Told>,
    pub(crate) corrected: Option<Option<i64>>,
    /// How often producers had been forgotten on its partition when it was published.
    pub(crate) forgets: u32,
    /// The life of its topic of which the sender had been told when it first left under its present stamp.
    pub(crate) sent_in: Option<u32>,
    /// When its verdict came, or its correction: how often producers had been forgotten there, and the topic's life.
    pub(crate) when_told: (u32, u32),
    /// The codes that it was answered.
    pub(crate) codes: Vec<i16>,
    /// It was alone in a batch that was answered to be too large.
    pub(crate) too_large_alone: bool,
    /// Its attempts that were answered with an error of the write, or left and were never answered.
    pub(crate) write_errors: u32,
    /// How often producers had been forgotten on its partition because of old record times when it was published.
    pub(crate) expiries: u32,
    /// An attempt of it was not answered, or not clearly, before it was sent again or given up.
    pub(crate) in_doubt: bool,
    /// Its own timestamp is so old that the leader may forget the producer after its append.
    pub(crate) aged: bool,
    /// A batch of old records left behind it before it had a verdict.
    pub(crate) followed_by_old: bool,
    /// Attempts that were not answered, or not clearly.
    pub(crate) unresolved: u32,
    /// The offset at which a leader has acknowledged it to the sender.
    pub(crate) acknowledged: Option<i64>,
    /// The log append time that its verdict gave.
    pub(crate) append_time: Option<i64>,
    /// The newest timestamp of the records that were sent with it last.
    pub(crate) newest: i64,
    /// Codes that its batch was answered, and whether each was about it, or about another record of the batch.
    pub(crate) accused: Vec<(i16, bool)>,
    pub(crate) sends: Sends,
    pub(crate) looked_for: LookedFor,
    pub(crate) search: Option<Search>,
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
            when_told: (0, 0),
            codes: Vec::new(),
            too_large_alone: false,
            write_errors: 0,
            expiries: model.expiries,
            in_doubt: false,
            aged,
            followed_by_old: false,
            unresolved: 0,
            acknowledged: None,
            append_time: None,
            newest: -1,
            accused: Vec::new(),
            sends: Sends::default(),
            looked_for: LookedFor::default(),
            search: None,
        }
    }

    /// Whether an attempt of it left, and was not clearly answered.
    pub(crate) fn may_be_written(&self) -> bool {
        self.in_doubt || self.unresolved > 0
    }

    /// An attempt has left.
    pub(crate) fn sent(&mut self, now: Micros) {
        self.in_doubt |= self.unresolved > 0;
        self.unresolved += 1;
        self.sends.note(now);
    }

    /// An attempt was answered with this code for the record at this place of its batch.
    pub(crate) fn answered(&mut self, answer: &PartAnswer, position: i64) {
        if answer.code == 0 && answer.base_offset >= 0 {
            self.acknowledged = Some(answer.base_offset + position);
        }
        let is_open = answer.code != 0 && (answer.base_offset >= 0 || OPEN.contains(&answer.code));
        self.in_doubt |= is_open;
        self.unresolved -= u32::from(!is_open);
        let named = answer.record_errors.iter().any(|error| i64::from(error.0) == position);
        self.accused.push((answer.code, named || answer.record_errors.is_empty()));
        if !self.codes.contains(&answer.code) {
            self.codes.push(answer.code);
        }
    }
}

/// Codes that do not say whether the batch was appended.
const OPEN: &[i16] = &[-1, 5, 7, 13, 14, 15, 16, 20, 56, 75, 89, 999];
