//! The details of a failed verdict: its attempts, their times, and the search key for a later check.
//!
//! Rules:
//! - Every sending of a record counts as an attempt, and is between the first and the last attempt of the failure.
//! - A record is unknown only if it has an open attempt, or a leader answered with 46. An answer of 46 contradicts the
//!   earlier refusals if no attempt is open.
//! - The failure of a record that may be written names the record's stamp, its topic's id, and an offset that does not
//!   exceed the record's offset.

use kafka_courier_batcher::{Sequence, Stamp};
use kafka_courier_client::TopicUuid;
use kafka_courier_idempotent_sender::core::{FailedOutcome, Failure};

use crate::cluster::{topic_of, uuid};
use crate::log::LogEntry;
use crate::world::World;

/// The key by which a later check searches for a record that may be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SearchKey {
    stamp: Stamp,
    /// The record's sequence number.
    sequence: i32,
    topic_uuid: Option<TopicUuid>,
    pub(crate) from: i64,
}

impl SearchKey {
    /// Returns whether the key matches the record at `index` of a log entry in this partition and incarnation. If
    /// `is_cut`, an unclean election has truncated the log, and later records may precede an acknowledged offset.
    pub(crate) fn finds(
        &self,
        (partition, incarnation): (usize, u32),
        entry: &LogEntry,
        index: u32,
        is_cut: bool,
    ) -> bool {
        let same_stamp = self.stamp.producer_id == entry.producer_id && self.stamp.epoch == entry.epoch;
        let same_sequence = self.sequence == Sequence::wrapping(entry.first).advance(index).number();
        let same_topic = self.topic_uuid == Some(uuid(topic_of(partition), incarnation));
        let is_ahead = is_cut || self.from <= entry.base_offset + i64::from(index);
        same_stamp && same_sequence && same_topic && is_ahead
    }
}

impl World {
    /// Notes a failure. Returns an error if the failure contradicts the attempts.
    pub(crate) fn note_failure(&mut self, number: u32, position: i64, failure: &Failure) -> Result<(), String> {
        let record = &self.history.records[number as usize];
        let attempts = record.attempts;
        let (first, last) =
            (failure.first_attempt.map(|at| self.micros(at)), failure.last_attempt.map(|at| self.micros(at)));
        let counted = failure.attempts >= attempts.count && (failure.attempts > 0) == first.is_some();
        let spans = attempts.count == 0
            || (first.is_some_and(|first| first <= attempts.first) && last.is_some_and(|last| last >= attempts.last));
        if !counted || !spans || first > last {
            return Err(format!("record {number} was sent {attempts:?}, but its failure is {failure:?}"));
        }
        if failure.outcome == FailedOutcome::Unknown {
            if !record.may_be_written() && !record.codes.contains(&46) {
                return Err(format!("record {number} is unknown, but has no open attempt: {failure:?} {record:?}"));
            }
            let stamp =
                failure.stamp.ok_or_else(|| format!("record {number} is unknown, but its failure has no stamp"))?;
            let sequence = stamp.advance(position as u32).base_sequence;
            let (topic_uuid, from) = (failure.topic_uuid, failure.search_from.unwrap_or(0));
            self.history.records[number as usize].search = Some(SearchKey { stamp, sequence, topic_uuid, from });
        }
        Ok(())
    }
}
