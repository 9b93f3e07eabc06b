//! The durable log of one partition, which the processes of a schedule share.
//!
//! Rules:
//! - The stamps of an earlier process follow from the log alone.
//! - A mark drops everything before it. The run of stamps at the mark keeps whether one of its records is out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kafka_courier_batcher::{EncodedBatch, Stamp};
use kafka_courier_idempotent_sender::core::{StoredBatch, Submission};

use crate::cluster::Micros;

/// A batch in the log.
#[derive(Clone, Debug)]
pub(crate) struct LoggedSubmission {
    pub(crate) first: u64,
    /// The number of the topic.
    pub(crate) topic: u32,
    pub(crate) life: u64,
    /// The number of the first record in the history.
    pub(crate) number: u32,
    pub(crate) published_at: Micros,
    pub(crate) is_aged: bool,
    pub(crate) batch: EncodedBatch,
}

/// The stamps from an ordinal on.
#[derive(Clone, Debug)]
pub(crate) struct StampRun {
    pub(crate) stamp: Stamp,
    pub(crate) skips: BTreeSet<u64>,
    /// Whether a record before the mark is out, although it has a stamp of the run.
    pub(crate) has_out: bool,
}

/// What the log has of a partition.
#[derive(Debug, Default)]
pub(crate) struct StoredPartition {
    pub(crate) batches: Vec<LoggedSubmission>,
    /// The first ordinal of each life.
    pub(crate) begins: BTreeMap<u64, u64>,
    /// The first ordinals of the topic's numbers after the first one.
    pub(crate) numbers: BTreeSet<u64>,
    /// The ordinal after the last settled one.
    pub(crate) mark: u64,
    pub(crate) end_offset: Option<i64>,
    /// The newest leader epoch of each number of the topic.
    pub(crate) leader_epochs: BTreeMap<u32, i32>,
    /// Records behind the mark that are settled.
    pub(crate) done: BTreeSet<u64>,
    pub(crate) runs: BTreeMap<u64, StampRun>,
    /// What the process knows beyond it: the next ordinal, the next batch's number, settled records, the mark.
    pub(crate) next: u64,
    pub(crate) submitted: u64,
    pub(crate) known: BTreeSet<u64>,
    pub(crate) known_mark: u64,
    pub(crate) known_end: Option<i64>,
    /// The number of the topic that new batches get, and the one that the sender's batches have.
    pub(crate) accepting: u32,
    pub(crate) sending: u32,
    /// The records that the sender has without a verdict, and those that it may have because it asked for more.
    pub(crate) with_sender: u64,
    pub(crate) granted: u64,
    /// Batches that wait until all of the former number are settled, or until the sender has fewer records.
    pub(crate) held: VecDeque<Submission<usize>>,
}

impl StoredPartition {
    /// Returns the run of stamps of a record, and its first ordinal.
    pub(crate) fn run_of(&self, ordinal: u64) -> Option<(u64, &StampRun)> {
        let (from, run) = self.runs.range(..=ordinal).next_back()?;
        let begun = self.begins.range(..=ordinal).next_back().map_or(0, |(begin, _)| *begin);
        let begun = begun.max(self.number_begin(ordinal));
        (begun <= *from && !run.skips.contains(&ordinal)).then_some((*from, run))
    }

    /// Returns whether a record of the producer id and epoch of this run is settled before the mark.
    pub(crate) fn is_acknowledged(&self, from: u64) -> bool {
        let Some(run) = self.runs.get(&from) else { return false };
        let is_same =
            |other: &StampRun| (other.stamp.producer_id, other.stamp.epoch) == (run.stamp.producer_id, run.stamp.epoch);
        self.runs.range(..self.mark).any(|(_, other)| is_same(other))
    }

    /// Returns the first ordinal that has the same number of the topic.
    pub(crate) fn number_begin(&self, ordinal: u64) -> u64 {
        self.numbers.range(..=ordinal).next_back().copied().unwrap_or(0)
    }

    /// Takes the next batch for the sender. Returns whether the sender may have it now.
    pub(crate) fn may_send(&mut self, place: &StoredBatch) -> bool {
        if place.topic != self.sending && self.known_mark < place.first {
            return false;
        }
        self.sending = place.topic;
        true
    }

    pub(crate) fn stamp_of(&self, ordinal: u64) -> Option<Stamp> {
        let (from, run) = self.run_of(ordinal)?;
        let passed = ordinal - from - run.skips.range(from..ordinal).count() as u64;
        Some(run.stamp.advance(passed as u32))
    }

    /// Returns whether a record before `end` is out, although it has a stamp of the run that begins at `from`. A mark drops the
    /// records before it.
    pub(crate) fn has_out_before(&self, end: u64, from: u64) -> bool {
        let has_stamp = |run: &StampRun| self.done.range(from..end.max(from)).any(|out| !run.skips.contains(out));
        self.runs.get(&from).is_some_and(|run| run.has_out || has_stamp(run))
    }

    /// Notes a leader epoch for a number of the topic.
    pub(crate) fn note_leader(&mut self, number: u32, epoch: Option<i32>) {
        if let Some(epoch) = epoch {
            let newest = self.leader_epochs.entry(number).or_insert(epoch);
            *newest = (*newest).max(epoch);
        }
    }

    /// Notes a mark. It drops the records before it.
    pub(crate) fn settle(&mut self, mark: u64) {
        if mark <= self.mark {
            return;
        }
        // The log keeps of them whether one is out.
        if let Some((from, _)) = self.runs.range(..mark).next_back() {
            let from = *from;
            let has_out = self.has_out_before(mark, from);
            if let Some(run) = self.runs.get_mut(&from) {
                run.has_out = has_out;
            }
        }
        self.mark = mark;
        self.done = self.done.split_off(&mark);
    }

    pub(crate) fn is_settled(&self, ordinal: u64) -> bool {
        ordinal < self.mark || self.done.contains(&ordinal)
    }

    /// Forgets everything that only the dead process knew.
    pub(crate) fn reopen(&mut self) {
        self.next = self.batches.last().map_or(0, |last| last.first + u64::from(last.batch.record_count()));
        (self.submitted, self.known_mark, self.known_end) = (0, self.mark, self.end_offset);
        self.known = self.done.clone();
        self.accepting = self.batches.last().map_or(0, |last| last.topic);
        self.sending = 0;
        self.held.clear();
        (self.with_sender, self.granted) = (0, 0);
    }
}
