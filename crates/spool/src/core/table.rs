//! The table: everything that the journal says, apart from the records.
//!
//! Rules:
//!  - The table is a fold over entries in the order of their frames. A repeated entry changes nothing.
//!  - The table drops the state before a partition's mark. The stamp of the first unsettled record is then kept as a move, so
//!    that the numbers of later records stay the same.
//!  - [`Table::checkpoint`] lists the entries from which an empty table becomes this one.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_courier_batcher::Stamp;

use super::entry::{Entry, Ordinal, OutReason, Partition, Topic, TopicNumber};
use super::ids::Life;
use super::ranges::OrdinalSet;

/// A life's producer id and the epoch that the cluster gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The producer id.
    pub producer_id: i64,
    /// The epoch.
    pub epoch: i16,
}

/// The state of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionTable {
    /// The ordinal after the last settled record.
    pub settled: Ordinal,
    /// The end offset of the log up to which the settled records are known to be, or -1.
    pub end_offset: i64,
    /// The ordinal after the last accepted record.
    pub end: Ordinal,
    /// Each life's first ordinal.
    pub begins: BTreeMap<Ordinal, Life>,
    /// The unsettled batches: first ordinal, and the ordinal after the last.
    pub cuts: BTreeMap<Ordinal, Ordinal>,
    /// The stamps that begin at an ordinal.
    pub moves: BTreeMap<Ordinal, Stamp>,
    /// Unsettled records that are dead letters.
    pub dead_letters: OrdinalSet,
    /// Unsettled records that are lost.
    pub lost: OrdinalSet,
}

impl Default for PartitionTable {
    fn default() -> Self {
        Self {
            settled: Ordinal(0),
            end_offset: -1,
            end: Ordinal(0),
            begins: BTreeMap::new(),
            cuts: BTreeMap::new(),
            moves: BTreeMap::new(),
            dead_letters: OrdinalSet::default(),
            lost: OrdinalSet::default(),
        }
    }
}

impl PartitionTable {
    /// Returns the stamp that the next sent record from `ordinal` on has.
    pub(super) fn stamp_at(&self, ordinal: Ordinal) -> Option<Stamp> {
        let (from, first) = self.moves.range(..=ordinal).next_back()?;
        if self.begins.range(..=ordinal).next_back().is_some_and(|(begin, _)| begin > from) {
            return None;
        }
        // Sequence numbers have 31 bits, and so has any remainder.
        let passed = u32::try_from(self.count_sent(*from, ordinal) % (1 << 31)).ok()?;
        Some(first.advance(passed))
    }

    /// Returns whether a record is not sent: it is a dead letter, or lost.
    #[must_use]
    pub fn is_out(&self, ordinal: Ordinal) -> bool {
        self.dead_letters.contains(ordinal) || self.lost.contains(ordinal)
    }

    /// Returns how many records from `first` up to `end` have a number. Lost records keep theirs: they may be sent.
    #[must_use]
    pub fn count_sent(&self, first: Ordinal, end: Ordinal) -> u64 {
        end.0.saturating_sub(first.0).saturating_sub(self.dead_letters.count_within(first, end))
    }

    fn begin(&mut self, from: Ordinal, life: Life) {
        // A repeated entry can follow the mark that dropped its begin.
        let is_dropped = self.begins.range(from..=self.settled.max(from)).any(|(later, _)| *later > from);
        if !is_dropped && self.begins.insert(from, life) != Some(life) {
            // A mark left the stamp that the former life's next record would have had.
            self.moves.remove(&from);
        }
    }

    fn take_out(&mut self, first: Ordinal, end: Ordinal, why: OutReason) {
        let first = first.max(self.settled);
        match why {
            // A dead letter of a lost record changes no number.
            OutReason::DeadLetter => {
                let lost: Vec<_> = self.lost.iter().collect();
                let mut next = first;
                for (lost_first, lost_end) in lost {
                    self.dead_letters.insert(next, lost_first.min(end));
                    next = next.max(lost_end);
                }
                self.dead_letters.insert(next, end);
            }
            OutReason::Lost => self.lost.insert(first, end),
        }
    }

    /// Drops the state before the mark, and keeps the stamp of the first unsettled record.
    fn settle(&mut self, settled: Ordinal) {
        let anchor = self.stamp_at(settled);
        self.settled = settled;
        self.end = self.end.max(settled);
        self.cuts.retain(|_, end| *end > settled);
        self.dead_letters.remove_before(settled);
        self.lost.remove_before(settled);
        self.moves.retain(|from, _| *from >= settled);
        if let Some(stamp) = anchor {
            self.moves.insert(settled, stamp);
        }
        let current = self.begins.range(..=settled).next_back().map(|(from, _)| *from);
        self.begins.retain(|from, _| *from > settled || Some(*from) == current);
    }
}

/// The durable state of a spool, apart from the records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Kafka's id of the cluster, once it is known.
    pub cluster: Option<Arc<str>>,
    /// The topics.
    pub topics: BTreeMap<TopicNumber, Topic>,
    /// Each life's producer id. The last binding of a life counts.
    pub bindings: BTreeMap<Life, Binding>,
    /// The partitions.
    pub partitions: BTreeMap<Partition, PartitionTable>,
}

impl Table {
    /// Takes in an entry.
    pub fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Cluster(id) => self.cluster = Some(Arc::clone(id)),
            Entry::Topic(topic) => {
                self.topics.insert(topic.number, topic.clone());
            }
            Entry::Bind { life, producer_id, epoch } => {
                self.bindings.insert(*life, Binding { producer_id: *producer_id, epoch: *epoch });
            }
            Entry::Piece(piece) => {
                let state = self.partition(piece.partition);
                state.end = state.end.max(piece.end());
            }
            Entry::Begin { partition, life, from } => {
                self.partition(*partition).begin(*from, *life);
            }
            Entry::Cut { partition, first, end } => {
                let state = self.partition(*partition);
                if *end > state.settled {
                    state.cuts.insert(*first, *end);
                }
            }
            Entry::Move { partition, from, stamp } => self.apply_move(*partition, *from, *stamp),
            Entry::Out { partition, first, end, why } => self.partition(*partition).take_out(*first, *end, *why),
            Entry::Mark { partition, settled, end_offset } => self.settle(*partition, *settled, *end_offset),
            Entry::End { partition, end } => {
                let state = self.partition(*partition);
                state.end = state.end.max(*end);
            }
            Entry::Base(_) | Entry::Oldest(_) => {}
        }
    }

    fn partition(&mut self, partition: Partition) -> &mut PartitionTable {
        self.partitions.entry(partition).or_default()
    }

    fn settle(&mut self, partition: Partition, settled: Ordinal, end_offset: i64) {
        let state = self.partitions.entry(partition).or_default();
        state.end_offset = state.end_offset.max(end_offset);
        if settled <= state.settled {
            return;
        }
        state.settle(settled);
    }

    fn apply_move(&mut self, partition: Partition, from: Ordinal, stamp: Stamp) {
        let state = self.partitions.entry(partition).or_default();
        // A repeated entry can follow the mark that dropped its move.
        if from >= state.settled {
            state.moves.insert(from, stamp);
        }
    }

    /// Returns the entries from which an empty table becomes this one.
    #[must_use]
    pub fn checkpoint(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = self.cluster.iter().cloned().map(Entry::Cluster).collect();
        entries.extend(self.topics.values().cloned().map(Entry::Topic));
        entries.extend(self.bindings.iter().map(|(life, binding)| Entry::Bind {
            life: *life,
            producer_id: binding.producer_id,
            epoch: binding.epoch,
        }));
        for (partition, state) in &self.partitions {
            checkpoint_partition(*partition, state, &mut entries);
        }
        entries
    }
}

fn checkpoint_partition(partition: Partition, state: &PartitionTable, entries: &mut Vec<Entry>) {
    entries.push(Entry::Mark { partition, settled: state.settled, end_offset: state.end_offset });
    entries.push(Entry::End { partition, end: state.end });
    entries.extend(state.begins.iter().map(|(from, life)| Entry::Begin { partition, life: *life, from: *from }));
    entries.extend(state.moves.iter().map(|(from, stamp)| Entry::Move { partition, from: *from, stamp: *stamp }));
    entries.extend(state.cuts.iter().map(|(first, end)| Entry::Cut { partition, first: *first, end: *end }));
    let out = |why| move |(first, end)| Entry::Out { partition, first, end, why };
    entries.extend(state.dead_letters.iter().map(out(OutReason::DeadLetter)));
    entries.extend(state.lost.iter().map(out(OutReason::Lost)));
}
