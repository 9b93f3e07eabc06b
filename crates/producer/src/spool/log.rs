//! [`PartitionLog`]: the settled records of one partition of the spool, and the facts that the journal still lacks.
//!
//! Rules:
//!  - A record is settled once it is delivered, or once its dead letter is durable.
//!  - A mark covers the records before the first unsettled one, and the end offset of the delivered ones among them.
//!  - A move waits until every failed record of its partition has a durable dead letter. It skips all settled records, and
//!    the journal has them as settled.
//!  - A leader epoch waits for nothing.

use std::collections::{BTreeMap, BTreeSet};

use kafka_courier_client::PartitionId;
use kafka_courier_idempotent_sender::core::{LeaderMove, MoveId, RecordSet, StampMove};
use kafka_courier_spool::core::entry::{Entry, Ordinal, OutReason, Partition};
use kafka_courier_spool::core::ranges::OrdinalSet;

use super::command::StoredPlace;

/// A durable batch in memory with unsettled records.
#[derive(Clone, Copy, Debug)]
struct HeldBatch {
    end: Ordinal,
    bytes: u64,
    timestamp_ms: i64,
}

/// The state of one partition of the spool.
#[derive(Debug)]
pub(crate) struct PartitionLog {
    partition: Partition,
    /// Every record before is settled.
    settled: Ordinal,
    /// The number for the next record.
    end: Ordinal,
    /// Settled records behind `settled`.
    done: OrdinalSet,
    /// The end offset of each run of delivered records behind the last mark, by the ordinal after its last record.
    ends: BTreeMap<Ordinal, i64>,
    /// The end offset of the settled records, or -1.
    end_offset: i64,
    /// Failed records without a durable dead letter.
    failing: u64,
    /// Whether no durable store took a dead letter.
    pub(crate) is_held: bool,
    /// Dead letters that the journal does not have yet.
    outs: OrdinalSet,
    /// Lost records that the journal does not have as lost yet.
    lost: OrdinalSet,
    /// The mark that the journal has, or will have with the next round.
    marked: Ordinal,
    moves: Vec<StampMove>,
    leader: Option<LeaderMove>,
    batches: BTreeMap<Ordinal, HeldBatch>,
}

impl PartitionLog {
    /// Creates the state of a partition whose records before `settled` are settled. The next record gets the number `end`.
    pub(crate) fn new(partition: Partition, settled: Ordinal, end: Ordinal, end_offset: i64) -> Self {
        Self {
            partition,
            settled,
            end,
            done: OrdinalSet::default(),
            ends: BTreeMap::new(),
            end_offset,
            failing: 0,
            is_held: false,
            outs: OrdinalSet::default(),
            lost: OrdinalSet::default(),
            marked: settled,
            moves: Vec::new(),
            leader: None,
            batches: BTreeMap::new(),
        }
    }

    /// Notes records that the journal has as settled, behind its mark.
    pub(crate) fn note_settled(&mut self, first: Ordinal, end: Ordinal) {
        self.settle(first, end);
    }

    /// Takes the next `count` records. Returns the place of the first one.
    pub(crate) fn accept(&mut self, count: u32) -> StoredPlace {
        let place = StoredPlace { partition: self.partition, first: self.end };
        self.end = self.end.plus(count.into());
        place
    }

    /// Notes a durable batch in memory.
    pub(crate) fn hold(&mut self, first: Ordinal, count: u32, bytes: u64, timestamp_ms: i64) {
        self.batches.insert(first, HeldBatch { end: first.plus(count.into()), bytes, timestamp_ms });
    }

    /// Notes delivered records.
    pub(crate) fn deliver(&mut self, place: StoredPlace, records: &RecordSet, base_offset: Option<i64>) {
        let mut delivered = 0;
        for (first, end) in ranges(place, records) {
            delivered += end.0.saturating_sub(first.0);
            if let Some(base) = base_offset {
                let offset = base.saturating_add(i64::try_from(delivered).unwrap_or(i64::MAX));
                self.ends.insert(end, offset);
            }
            self.settle(first, end);
        }
    }

    /// Notes failed records, whose dead letters are not durable yet.
    pub(crate) fn fail(&mut self, records: &RecordSet) {
        self.failing += u64::from(records.len());
    }

    /// Notes that the dead letters of failed records are durable.
    pub(crate) fn keep(&mut self, place: StoredPlace, records: &RecordSet) {
        self.failing = self.failing.saturating_sub(records.len().into());
        for (first, end) in ranges(place, records) {
            self.outs.insert(first, end);
            self.settle(first, end);
        }
    }

    /// Notes that records are damaged on the disk, and lost.
    pub(crate) fn lose(&mut self, first: Ordinal, end: Ordinal) {
        self.lost.insert(first, end);
        self.settle(first, end);
    }

    /// Requests that stamps become durable. A later request of the same partition supersedes an earlier one.
    pub(crate) fn request_move(&mut self, stamps: StampMove) {
        self.moves.clear();
        self.moves.push(stamps);
    }

    /// Requests that a leader epoch becomes durable. A later request supersedes an earlier one.
    pub(crate) fn request_leader(&mut self, leader: LeaderMove) {
        self.leader = Some(leader);
    }

    fn settle(&mut self, first: Ordinal, end: Ordinal) {
        self.done.insert(first.max(self.settled), end);
        let prefix = self.done.iter().next().filter(|(begin, _)| *begin <= self.settled).map(|(_, stop)| stop);
        if let Some(stop) = prefix.filter(|stop| *stop > self.settled) {
            self.settled = stop;
            self.done.remove_before(stop);
            let later = self.ends.split_off(&stop.plus(1));
            let covered = std::mem::replace(&mut self.ends, later);
            self.end_offset = covered.into_values().fold(self.end_offset, i64::max);
        }
        while let Some(batch) = self.batches.first_entry().filter(|batch| batch.get().end <= self.settled) {
            batch.remove();
        }
    }

    /// Returns whether every record is settled.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled == self.end
    }

    /// Returns the number for the next record.
    pub(crate) fn end(&self) -> Ordinal {
        self.end
    }

    /// Returns whether the sender waits for what may be written now.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.leader.is_some() || self.is_move_due()
    }

    /// Returns whether a requested move may be written.
    fn is_move_due(&self) -> bool {
        !self.moves.is_empty() && self.failing == 0
    }

    /// Adds the facts that the journal lacks to a round. Returns the requests that they answer.
    pub(crate) fn write(&mut self, entries: &mut Vec<Entry>) -> Vec<(PartitionId, MoveId)> {
        let partition = self.partition;
        let mut outs = std::mem::take(&mut self.outs);
        if self.is_move_due() {
            // A later process sends them under no stamp, so the move gives them none.
            self.done.iter().for_each(|(first, end)| outs.insert(first, end));
        }
        let out = |why| move |(first, end)| Entry::Out { partition, first, end, why };
        entries.extend(std::mem::take(&mut self.lost).iter().map(out(OutReason::Lost)));
        entries.extend(outs.iter().map(out(OutReason::Settled)));
        if self.settled > self.marked {
            self.marked = self.settled;
            entries.push(Entry::Mark { partition, settled: self.settled, end_offset: self.end_offset });
        }
        let mut answered = Vec::new();
        if let Some(LeaderMove { partition: id, id: request, leader_epoch }) = self.leader.take() {
            entries.push(Entry::Leader { partition, epoch: leader_epoch });
            answered.push((id, request));
        }
        if self.is_move_due() {
            self.write_moves(entries, &mut answered);
        }
        answered
    }

    fn write_moves(&mut self, entries: &mut Vec<Entry>, answered: &mut Vec<(PartitionId, MoveId)>) {
        let partition = self.partition;
        for StampMove { partition: id, id: request, from, stamp, leader_epoch } in std::mem::take(&mut self.moves) {
            let from = Ordinal(from);
            let skips = self.done.iter().filter(|(_, end)| *end > from);
            let skips = skips.map(|(first, end)| (first.max(from), end)).collect();
            entries.extend(leader_epoch.map(|epoch| Entry::Leader { partition, epoch }));
            entries.push(Entry::Move { partition, from, stamp, skips });
            answered.push((id, request));
        }
    }

    /// Returns the number of unsettled records.
    pub(crate) fn unsettled(&self) -> u64 {
        let behind = self.done.count_within(self.settled, self.end);
        self.end.0.saturating_sub(self.settled.0).saturating_sub(behind)
    }

    /// Returns the bytes of the batches in memory with unsettled records.
    pub(crate) fn bytes(&self) -> u64 {
        self.batches.values().map(|batch| batch.bytes).sum()
    }

    /// Returns the timestamp of the oldest of these batches.
    pub(crate) fn oldest_ms(&self) -> Option<i64> {
        self.batches.values().map(|batch| batch.timestamp_ms).min()
    }
}

/// Returns the consecutive ranges of a batch's records, each with the ordinal after its last.
fn ranges(place: StoredPlace, records: &RecordSet) -> Vec<(Ordinal, Ordinal)> {
    if let RecordSet::Range(range) = records {
        return if range.is_empty() {
            Vec::new()
        } else {
            vec![(place.ordinal(range.start), place.ordinal(range.end))]
        };
    }
    let mut found: Vec<(Ordinal, Ordinal)> = Vec::new();
    let ordinals: BTreeSet<Ordinal> = records.iter().map(|index| place.ordinal(index)).collect();
    for ordinal in ordinals {
        match found.last_mut() {
            Some((_, end)) if *end == ordinal => *end = ordinal.plus(1),
            _ => found.push((ordinal, ordinal.plus(1))),
        }
    }
    found
}
