//! What a failed verdict says beside its outcome: tries, times, and where a later check has to look.
//!
//! Rules:
//! - Each time that a record left counts as a try, and lies between the first and the last.
//! - Unknown is only what has an attempt that is not clearly answered, or what a leader called a duplicate (46): without
//!   an open attempt that contradicts the refusals before it.
//! - What may be written names the stamp that it left under, its topic's id, and an offset that the record is not before.

use kafka_courier_batcher::{Stamp, sequence_add};
use kafka_courier_idempotent_sender::core::{FailedOutcome, Failure, TopicUuid};

use crate::cluster::{topic_of, uuid};
use crate::log::Entry;
use crate::world::World;

/// Where a record that may be written is to be searched for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Search {
    stamp: Stamp,
    /// Its own sequence number.
    sequence: i32,
    topic_uuid: TopicUuid,
    pub(crate) from: i64,
}

impl Search {
    /// Whether the search finds it in that entry, at that offset of a topic in that life. `is_cut`: an unclean election has cut
    /// the log, so that what follows may lie before an offset that was acknowledged.
    pub(crate) fn finds(&self, (partition, life): (usize, u32), entry: &Entry, index: u32, is_cut: bool) -> bool {
        let same_stamp = self.stamp.producer_id == entry.producer_id && self.stamp.epoch == entry.epoch;
        let same_sequence = self.sequence == sequence_add(entry.first, index);
        let same_topic = self.topic_uuid == uuid(topic_of(partition), life);
        let is_ahead = is_cut || self.from <= entry.base_offset + i64::from(index);
        same_stamp && same_sequence && same_topic && is_ahead
    }
}

impl World {
    /// Errors: the failure is not true to what was sent.
    pub(crate) fn note_failure(&mut self, number: u32, position: i64, failure: &Failure) -> Result<(), String> {
        let record = &self.history.records[number as usize];
        let sends = record.sends;
        let (first, last) =
            (failure.first_attempt.map(|at| self.micros(at)), failure.last_attempt.map(|at| self.micros(at)));
        let counted = failure.attempts >= sends.count && (failure.attempts > 0) == first.is_some();
        let spans = sends.count == 0
            || (first.is_some_and(|first| first <= sends.first) && last.is_some_and(|last| last >= sends.last));
        if !counted || !spans || first > last {
            return Err(format!("record {number} left {sends:?}, and its failure says {failure:?}"));
        }
        if failure.outcome == FailedOutcome::Unknown {
            if !record.may_be_written() && !record.codes.contains(&46) {
                return Err(format!(
                    "record {number} is unknown, and no attempt of it is open: {failure:?} {record:?}"
                ));
            }
            let stamp = failure.stamp.ok_or_else(|| format!("record {number} may be written, under no stamp"))?;
            let sequence = sequence_add(stamp.base_sequence, position as u32);
            let (topic_uuid, from) = (failure.topic_uuid, failure.search_from.unwrap_or(0));
            self.history.records[number as usize].search = Some(Search { stamp, sequence, topic_uuid, from });
        }
        Ok(())
    }
}
