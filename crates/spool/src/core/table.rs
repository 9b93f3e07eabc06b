//! The table: everything that the journal says, apart from the batches.
//!
//! Rules:
//!  - The table is a fold over entries in the order of their frames. The entries of a frame, taken in again in the same
//!    order, change nothing.
//!  - A move supersedes all moves at or behind its ordinal. A begin ends the run of the former life.
//!  - The table drops the state before a partition's mark. The run of stamps of the first unsettled record is then kept as an
//!    anchor, so that the numbers of later records stay the same. The anchor says whether a record before the mark is out.
//!  - [`Table::checkpoint`] lists the entries from which an empty table becomes this one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kafka_courier_batcher::Stamp;

use super::entry::{Entry, Ordinal, OutReason, Partition, Topic, TopicNumber};
use super::ids::Life;
use super::inputs::Inputs;
use super::keys::{Keys, RecordKey};
use super::ranges::OrdinalSet;

/// The stamps of the records from an ordinal on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StampRun {
    /// The stamp of the first record that is not skipped.
    pub stamp: Stamp,
    /// Records without a number.
    pub skips: OrdinalSet,
    /// Whether a record before the mark is out, although it has a number of the run.
    pub has_out: bool,
}

impl StampRun {
    /// Creates a run that begins at `from`.
    fn new(from: Ordinal, stamp: Stamp, skips: &[(Ordinal, Ordinal)]) -> Self {
        let mut skips = OrdinalSet::from_ranges(skips.iter().copied());
        skips.remove_before(from);
        Self { stamp, skips, has_out: false }
    }

    /// Returns the stamp of the first record from `ordinal` on that is not skipped. The run begins at `from`.
    pub(super) fn stamp_from(&self, from: Ordinal, ordinal: Ordinal) -> Option<Stamp> {
        let passed = ordinal.0.saturating_sub(from.0).saturating_sub(self.skips.count_within(from, ordinal));
        // Sequence numbers have 31 bits, and so has any remainder.
        Some(self.stamp.advance(u32::try_from(passed % (1 << 31)).ok()?))
    }

    fn skip_list(&self) -> Vec<(Ordinal, Ordinal)> {
        self.skips.iter().collect()
    }
}

/// The state of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionTable {
    /// The ordinal after the last settled record.
    pub settled: Ordinal,
    /// The end offset of the log up to which the settled records are known to be, or -1.
    pub end_offset: i64,
    /// The newest leader epoch that a process knew, if any did.
    pub leader_epoch: Option<i32>,
    /// The ordinal after the last accepted record.
    pub end: Ordinal,
    /// Each life's first ordinal.
    pub begins: BTreeMap<Ordinal, Life>,
    /// The run of stamps that began before the first unsettled record, and holds from that record on.
    pub anchor: Option<StampRun>,
    /// The runs of stamps that begin at an unsettled record, by their first ordinal.
    pub moves: BTreeMap<Ordinal, StampRun>,
    /// Unsettled records that are dead letters.
    pub done: OrdinalSet,
    /// Unsettled records that are lost.
    pub lost: OrdinalSet,
}

impl Default for PartitionTable {
    fn default() -> Self {
        Self {
            settled: Ordinal(0),
            end_offset: -1,
            leader_epoch: None,
            end: Ordinal(0),
            begins: BTreeMap::new(),
            anchor: None,
            moves: BTreeMap::new(),
            done: OrdinalSet::default(),
            lost: OrdinalSet::default(),
        }
    }
}

impl PartitionTable {
    /// Returns the run of stamps to which a record belongs, and the ordinal from which its stamp counts.
    pub(super) fn run_at(&self, ordinal: Ordinal) -> Option<(Ordinal, &StampRun)> {
        let moved = self.moves.range(..=ordinal).next_back().map(|(from, run)| (*from, run));
        let anchor = || self.anchor.as_ref().map(|run| (self.settled, run)).filter(|(from, _)| *from <= ordinal);
        let (from, run) = moved.or_else(anchor)?;
        let begin = self.begins.range(..=ordinal).next_back();
        begin.is_none_or(|(begin, _)| *begin <= from).then_some((from, run))
    }

    /// Returns whether a record is not sent: it is a dead letter, or lost.
    #[must_use]
    pub fn is_out(&self, ordinal: Ordinal) -> bool {
        self.done.contains(ordinal) || self.lost.contains(ordinal)
    }

    /// Returns whether every record is delivered, a dead letter, or lost.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        let out = self.done.count_within(self.settled, self.end) + self.lost.count_within(self.settled, self.end);
        self.end.0.saturating_sub(self.settled.0) <= out
    }

    /// Returns the producer ids of the stamps that unsettled and next records have.
    pub fn producer_ids(&self) -> impl Iterator<Item = i64> {
        self.anchor.iter().chain(self.moves.values()).map(|run| run.stamp.producer_id)
    }

    /// Returns whether a record before `end` is out, although it has a number of the run. The run counts from `from` on.
    pub(super) fn has_out_before(&self, end: Ordinal, from: Ordinal, run: &StampRun) -> bool {
        let has_number = |(first, stop): (Ordinal, Ordinal)| {
            let (first, stop) = (first.max(from), stop.min(end));
            run.skips.count_within(first, stop) < stop.0.saturating_sub(first.0)
        };
        run.has_out || self.done.iter().chain(self.lost.iter()).any(has_number)
    }

    fn begin(&mut self, from: Ordinal, life: Life) {
        // A repeated entry can follow the mark that dropped its begin.
        let is_dropped = self.begins.range(from..=self.settled.max(from)).any(|(later, _)| *later > from);
        if !is_dropped && self.begins.insert(from, life) != Some(life) && from == self.settled {
            // The anchor would give the former life's next record a stamp.
            self.anchor = None;
        }
    }

    fn apply_move(&mut self, from: Ordinal, run: StampRun) {
        self.moves.split_off(&from);
        // A repeated entry can follow the mark that dropped its move. A move at the mark takes precedence over the anchor, and
        // keeps it: a repeated move may supersede the former one again.
        if from >= self.settled {
            self.moves.insert(from, run);
        }
    }

    fn take_out(&mut self, first: Ordinal, end: Ordinal, why: OutReason) {
        let first = first.max(self.settled);
        match why {
            OutReason::Settled => self.done.insert(first, end),
            OutReason::Lost => self.lost.insert(first, end),
        }
    }

    /// Drops the state before the mark, and keeps the run of the first unsettled record.
    fn settle(&mut self, settled: Ordinal) {
        let run = self.run_at(settled).filter(|(from, _)| *from < settled);
        self.anchor = run.and_then(|(from, run)| {
            let mut skips = run.skips.clone();
            skips.remove_before(settled);
            let has_out = self.has_out_before(settled, from, run);
            Some(StampRun { stamp: run.stamp_from(from, settled)?, skips, has_out })
        });
        self.settled = settled;
        self.end = self.end.max(settled);
        self.done.remove_before(settled);
        self.lost.remove_before(settled);
        self.moves = self.moves.split_off(&settled);
        let current = self.begins.range(..=settled).next_back().map(|(from, _)| *from);
        self.begins.retain(|from, _| *from > settled || Some(*from) == current);
    }
}

/// The durable state of a spool, apart from the batches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Kafka's id of the cluster, once it is known.
    pub cluster: Option<Arc<str>>,
    /// The topics.
    pub topics: BTreeMap<TopicNumber, Topic>,
    /// The partitions.
    pub partitions: BTreeMap<Partition, PartitionTable>,
    /// The inputs.
    pub inputs: Inputs,
    /// The keys of requests.
    pub keys: Keys,
}

impl Table {
    /// Takes in an entry.
    pub fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Cluster(id) => self.cluster = Some(Arc::clone(id)),
            Entry::Topic(topic) => {
                self.topics.insert(topic.number, topic.clone());
            }
            Entry::Batch(batch) => self.accept(batch.head.partition, batch.head.end()),
            Entry::End { partition, end } => self.accept(*partition, *end),
            Entry::Begin { partition, life, from } => {
                self.partition(*partition).begin(*from, *life);
            }
            Entry::Move { partition, from, stamp, skips } => {
                self.partition(*partition).apply_move(*from, StampRun::new(*from, *stamp, skips));
            }
            Entry::Anchor { partition, stamp, skips, has_out } => {
                let state = self.partition(*partition);
                state.anchor = Some(StampRun { has_out: *has_out, ..StampRun::new(state.settled, *stamp, skips) });
            }
            Entry::Out { partition, first, end, why } => {
                self.partition(*partition).take_out(*first, *end, *why);
                if *why == OutReason::Lost {
                    self.drop_lost_keys();
                }
            }
            Entry::Mark { partition, settled, end_offset } => self.settle(*partition, *settled, *end_offset),
            Entry::Leader { partition, epoch } => {
                let state = self.partition(*partition);
                state.leader_epoch = state.leader_epoch.max(Some(*epoch));
            }
            Entry::Base(_) => {}
            Entry::Input { input, name } => self.inputs.begin(*input, name),
            Entry::Items { input, items } => self.inputs.deal(*input, items),
            Entry::Keys { forget_before_ms, keys } => {
                self.keys.forget_before(*forget_before_ms);
                keys.iter().for_each(|key| self.take_key(*key));
            }
        }
    }

    fn take_key(&mut self, key: RecordKey) {
        // A repeated entry can follow the loss of its record.
        let is_lost = self.partitions.get(&key.partition).is_some_and(|state| state.lost.contains(key.ordinal));
        if !is_lost {
            self.keys.insert(key);
        }
    }

    /// Drops the keys of lost records.
    pub(super) fn drop_lost_keys(&mut self) {
        let partitions = &self.partitions;
        self.keys.remove_lost(|partition| Some(partitions.get(&partition)?.lost.clone()));
    }

    fn partition(&mut self, partition: Partition) -> &mut PartitionTable {
        self.partitions.entry(partition).or_default()
    }

    /// Takes in that records up to `end` are accepted.
    pub(super) fn accept(&mut self, partition: Partition, end: Ordinal) {
        let state = self.partition(partition);
        state.end = state.end.max(end);
    }

    fn settle(&mut self, partition: Partition, settled: Ordinal, end_offset: i64) {
        let state = self.partitions.entry(partition).or_default();
        state.end_offset = state.end_offset.max(end_offset);
        if settled <= state.settled {
            return;
        }
        state.settle(settled);
    }

    /// Drops topics that were recreated, once all their records are settled. Another topic has their name, and a greater number.
    pub fn drop_replaced(&mut self) {
        let replaced = |topic: &Topic| {
            self.topics.values().any(|other| other.name == topic.name && other.number > topic.number)
                && self.partitions.iter().all(|(of, state)| of.topic != topic.number || state.end <= state.settled)
        };
        let dropped: BTreeSet<_> =
            self.topics.values().filter(|topic| replaced(topic)).map(|topic| topic.number).collect();
        self.topics.retain(|number, _| !dropped.contains(number));
        self.partitions.retain(|partition, _| !dropped.contains(&partition.topic));
    }

    /// Returns the entries from which an empty table becomes this one.
    #[must_use]
    pub fn checkpoint(&self) -> Vec<Entry> {
        let mut entries = self.checkpoint_without_keys();
        if !self.keys.is_empty() {
            entries.push(Entry::Keys { forget_before_ms: 0, keys: self.keys.iter().copied().collect() });
        }
        entries
    }

    /// Returns the entries of [`checkpoint`](Self::checkpoint), apart from the keys.
    pub(crate) fn checkpoint_without_keys(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = self.cluster.iter().cloned().map(Entry::Cluster).collect();
        entries.extend(self.topics.values().cloned().map(Entry::Topic));
        for (partition, state) in &self.partitions {
            checkpoint_partition(*partition, state, &mut entries);
        }
        for (number, table) in self.inputs.iter() {
            entries.push(Entry::Input { input: number, name: table.name.clone() });
            if !table.items.is_empty() {
                entries.push(Entry::Items { input: number, items: table.items.clone() });
            }
        }
        entries
    }
}

fn checkpoint_partition(partition: Partition, state: &PartitionTable, entries: &mut Vec<Entry>) {
    entries.push(Entry::Mark { partition, settled: state.settled, end_offset: state.end_offset });
    entries.extend(state.leader_epoch.map(|epoch| Entry::Leader { partition, epoch }));
    entries.push(Entry::End { partition, end: state.end });
    entries.extend(state.begins.iter().map(|(from, life)| Entry::Begin { partition, life: *life, from: *from }));
    entries.extend(state.anchor.iter().map(|run| Entry::Anchor {
        partition,
        stamp: run.stamp,
        skips: run.skip_list(),
        has_out: run.has_out,
    }));
    let moved = |(from, run): (&Ordinal, &StampRun)| {
        let (from, stamp, skips) = (*from, run.stamp, run.skip_list());
        Entry::Move { partition, from, stamp, skips }
    };
    entries.extend(state.moves.iter().map(moved));
    let out = |why| move |(first, end)| Entry::Out { partition, first, end, why };
    entries.extend(state.done.iter().map(out(OutReason::Settled)));
    entries.extend(state.lost.iter().map(out(OutReason::Lost)));
}
