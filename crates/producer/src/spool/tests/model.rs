//! Random histories: the journal agrees with the history, and each batch has one end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kafka_courier_spool::core::entry::{Ordinal, Partition};
use kafka_courier_spool::core::stamps::stamp_at;
use kafka_courier_spool::core::table::Table;
use proptest::prelude::*;

use super::*;

const PARTITIONS: i32 = 2;

#[derive(Clone, Debug)]
enum Step {
    /// Seals the next batches of a partition, in the reverse order of their numbers if `swapped`.
    Seal {
        index: i32,
        records: usize,
        swapped: bool,
    },
    Commit,
    /// A round has no room.
    Refuse,
    /// The sender decides about its oldest batch: delivered, or failed from this record on.
    Decide {
        index: i32,
        failed_from: Option<u32>,
    },
    /// The oldest failed records become durable dead letters.
    Keep {
        index: i32,
    },
    /// The sender requests stamps for its oldest batch without a verdict.
    Move {
        index: i32,
    },
    Name,
}

fn step() -> impl Strategy<Value = Step> {
    let index = || 0..PARTITIONS;
    prop_oneof![
        4 => (index(), 1..4_usize, any::<bool>()).prop_map(|(index, records, swapped)| Step::Seal { index, records, swapped }),
        4 => Just(Step::Commit),
        1 => Just(Step::Refuse),
        4 => (index(), proptest::option::weighted(0.4, 0..3_u32))
            .prop_map(|(index, failed_from)| Step::Decide { index, failed_from }),
        3 => index().prop_map(|index| Step::Keep { index }),
        3 => index().prop_map(|index| Step::Move { index }),
        1 => Just(Step::Name),
    ]
}

/// A batch that the sender has.
#[derive(Clone, Copy, Debug)]
struct SentBatch {
    place: StoredPlace,
    count: u32,
}

#[derive(Default)]
struct Lane {
    next_batch: u64,
    next_release: u64,
    durable: BTreeMap<u64, SentBatch>,
    /// Batches with the sender, without a verdict.
    sent: VecDeque<SentBatch>,
    failing: VecDeque<(StoredPlace, RecordSet)>,
    settled: BTreeSet<u64>,
    letters: BTreeSet<u64>,
    requested: Option<StampMove>,
}

struct Model {
    stage: Stage<u64>,
    table: Table,
    lanes: BTreeMap<i32, Lane>,
    counts: BTreeMap<(i32, u64), u32>,
    moves: u64,
    is_named: bool,
}

impl Model {
    fn new() -> Self {
        let mut stage = stage();
        learn(&mut stage, PARTITIONS as u32);
        let lanes = (0..PARTITIONS).map(|index| (index, Lane::default())).collect();
        Self { stage, table: Table::default(), lanes, counts: BTreeMap::new(), moves: 0, is_named: false }
    }

    fn lane(&mut self, index: i32) -> &mut Lane {
        self.lanes.get_mut(&index).unwrap()
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Seal { index, records, swapped } => self.seal(*index, *records, *swapped),
            Step::Commit => self.commit(),
            Step::Refuse => {
                if !self.stage.round(200, u64::MAX).is_empty() {
                    self.stage.refused();
                }
            }
            Step::Decide { index, failed_from } => self.decide(*index, *failed_from),
            Step::Keep { index } => self.keep(*index),
            Step::Move { index } => self.request(*index),
            Step::Name => {
                self.is_named = true;
                self.stage.handle(identity(1, PARTITIONS as u32, "c"));
                self.check_effects();
            }
        }
    }

    fn seal(&mut self, index: i32, records: usize, swapped: bool) {
        let first = self.lane(index).next_batch;
        self.lane(index).next_batch += 2;
        let order = if swapped { [first + 1, first] } else { [first, first + 1] };
        for number in order {
            self.counts.insert((index, number), records as u32);
            self.stage.submit(submission(index, number, records));
        }
    }

    fn commit(&mut self) {
        let entries = self.stage.round(600, u64::MAX);
        for entry in &entries {
            if let Entry::Batch(batch) = entry {
                let Partition { topic, .. } = batch.head.partition;
                assert!(self.table.topics.contains_key(&topic), "the topic is known before its batches");
                let begun = self.table.partitions.get(&batch.head.partition).map(|state| state.begins.len());
                assert_eq!(begun, Some(1), "the life has begun before its batches");
                assert_eq!(self.table.partitions[&batch.head.partition].end, batch.head.first, "numbers are dense");
            }
            self.table.apply(entry);
        }
        self.stage.committed();
        self.check_effects();
        self.check_marks();
    }

    fn check_effects(&mut self) {
        for effect in self.stage.take_effects() {
            match effect {
                Effect::Durable { token, place, .. } => {
                    let index = place.partition.index;
                    let sent = SentBatch { place, count: self.counts[&(index, token)] };
                    assert!(self.table.partitions[&place.partition].end > place.first, "the batch is in the journal");
                    self.lane(index).durable.insert(token, sent);
                }
                Effect::Release(batch) => {
                    assert!(self.is_named);
                    let lane = self.lane(batch.partition.index);
                    assert_eq!(batch.ordinal, lane.next_release, "batches leave in order, without a gap");
                    lane.next_release += 1;
                    let sent = lane.durable.remove(&batch.token).unwrap();
                    assert_eq!(batch.stored.unwrap().first, sent.place.first.0);
                    lane.sent.push_back(sent);
                }
                Effect::Persisted { partition, id } => self.check_move(partition.index, id),
                Effect::Settled(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The journal has the requested stamp, and everything that was decided before.
    fn check_move(&mut self, index: i32, id: MoveId) {
        let lane = &self.lanes[&index];
        let Some(requested) = lane.requested else { panic!("{id:?} was not requested") };
        if requested.id != id {
            // The sender has requested other stamps since.
            return;
        }
        assert!(lane.failing.is_empty(), "a failed record has no durable dead letter");
        let state = self.table.partitions.iter().find(|(partition, _)| partition.index == index).unwrap().1;
        let first = (requested.from..).find(|ordinal| !lane.letters.contains(ordinal)).unwrap();
        assert_eq!(stamp_at(state, Ordinal(first)), Some(requested.stamp), "from {}", requested.from);
        for letter in lane.letters.iter().filter(|letter| Ordinal(**letter) >= state.settled) {
            assert!(state.done.contains(Ordinal(*letter)), "{letter} is a durable dead letter");
        }
        self.lane(index).requested = None;
    }

    fn decide(&mut self, index: i32, failed_from: Option<u32>) {
        let lane = self.lanes.get_mut(&index).unwrap();
        // The requested stamps begin at the first batch, which does not leave before they are durable.
        if lane.requested.is_some() {
            return;
        }
        let Some(SentBatch { place, count }) = lane.sent.pop_front() else { return };
        let failed_from = failed_from.unwrap_or(count).min(count);
        let (delivered, failed) = (RecordSet::Range(0..failed_from), RecordSet::Range(failed_from..count));
        if !delivered.is_empty() {
            lane.settled.extend(delivered.iter().map(|index| place.ordinal(index).0));
            let base_offset = Some(place.first.0 as i64);
            self.stage.handle(SpoolCommand::Delivered { place, records: delivered, base_offset });
        }
        if !failed.is_empty() {
            lane.failing.push_back((place, failed.clone()));
            self.stage.handle(SpoolCommand::Failed { place, records: failed });
        }
    }

    fn keep(&mut self, index: i32) {
        let lane = self.lanes.get_mut(&index).unwrap();
        let Some((place, records)) = lane.failing.pop_front() else { return };
        let ordinals: Vec<u64> = records.iter().map(|index| place.ordinal(index).0).collect();
        lane.settled.extend(&ordinals);
        lane.letters.extend(&ordinals);
        self.stage.handle(kept(place, records));
    }

    fn request(&mut self, index: i32) {
        self.moves += 1;
        let id = self.moves;
        let lane = self.lanes.get_mut(&index).unwrap();
        let Some(next) = lane.sent.front() else { return };
        let stamps = move_of(index, id, next.place.first.0);
        lane.requested = Some(stamps);
        self.stage.handle(SpoolCommand::Persist(stamps));
    }

    /// A mark covers settled records alone.
    fn check_marks(&self) {
        for (partition, state) in &self.table.partitions {
            let lane = &self.lanes[&partition.index];
            let prefix = (0..).find(|ordinal| !lane.settled.contains(ordinal)).unwrap();
            assert!(state.settled.0 <= prefix, "{} of {prefix} records are marked", state.settled.0);
            let delivered = |end: u64| (0..end).rev().find(|ordinal| !lane.letters.contains(ordinal));
            let end_offset = delivered(state.settled.0).map_or(-1, |last| last as i64 + 1);
            assert_eq!(state.end_offset, end_offset, "the end of the delivered records before the mark");
        }
    }

    /// Settles everything, and checks that the journal knows.
    fn finish(mut self) {
        self.run(&Step::Name);
        for _ in 0..1000 {
            self.commit();
            for index in 0..PARTITIONS {
                self.decide(index, None);
                self.keep(index);
            }
        }
        for lane in self.lanes.values() {
            assert_eq!(lane.next_release, lane.next_batch, "the sender got each batch");
        }
        for state in self.table.partitions.values() {
            assert_eq!(state.settled, state.end);
        }
        assert_eq!(self.stage.level().records, 0);
        assert_eq!(self.stage.level().bytes, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn journal_follows_every_history(steps in prop::collection::vec(step(), 0..80)) {
        let mut model = Model::new();
        steps.iter().for_each(|step| model.run(step));
        model.finish();
    }
}
