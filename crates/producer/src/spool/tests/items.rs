//! Inputs whose process dies at random moments: after the last restart, each item is in exactly one durable batch.
//!
//! The items go to several partitions, whose batches are sealed and become durable in any order. Some items have no record.
//! Each process publishes the items that the journal of its predecessors does not name.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use kafka_courier_spool::core::entry::Ordinal;
use kafka_courier_spool::core::table::Table;
use proptest::prelude::*;

use super::*;

const PARTITIONS: i32 = 3;
const INPUTS: u32 = 2;

/// A batch: its partition, and the item of each record with the item's input.
#[derive(Clone, Debug)]
struct ItemBatch(Arc<(i32, Vec<(u32, u64)>)>);

impl BatchToken for ItemBatch {
    fn keys(&self) -> Vec<(u32, RequestKey)> {
        Vec::new()
    }

    fn retire(&self, _: Option<Ticket>) -> Option<Ticket> {
        None
    }

    fn items(&self) -> Vec<(InputNumber, ItemSet)> {
        let mut items: BTreeMap<InputNumber, ItemSet> = BTreeMap::new();
        for (input, number) in &self.0.1 {
            items.entry(InputNumber(*input)).or_default().insert(Ordinal(*number), check_of(*number));
        }
        items.into_iter().collect()
    }
}

fn check_of(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[derive(Clone, Debug)]
enum Step {
    /// The next items of an input are published.
    Publish {
        input: u32,
        items: usize,
    },
    Seal {
        index: i32,
    },
    /// A round of up to `bytes` bytes. `ends` says how.
    Round {
        bytes: u64,
        ends: RoundEnd,
    },
}

#[derive(Clone, Copy, Debug)]
enum RoundEnd {
    Durable,
    /// The round has no room.
    Refused,
    /// The process dies, and the round is on the disk or not.
    Dies {
        is_durable: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let ends = prop_oneof![
        6 => Just(RoundEnd::Durable),
        1 => Just(RoundEnd::Refused),
        1 => any::<bool>().prop_map(|is_durable| RoundEnd::Dies { is_durable }),
    ];
    prop_oneof![
        4 => (1..=INPUTS, 1..12_usize).prop_map(|(input, items)| Step::Publish { input, items }),
        3 => (0..PARTITIONS).prop_map(|index| Step::Seal { index }),
        3 => (prop_oneof![Just(100), Just(600), Just(u64::MAX)], ends).prop_map(|(bytes, ends)| Step::Round { bytes, ends }),
    ]
}

/// A process.
struct Process {
    stage: Stage<ItemBatch>,
    /// The items that the process still has to publish.
    rest: BTreeMap<u32, VecDeque<u64>>,
    open: BTreeMap<i32, Vec<(u32, u64)>>,
    next_batch: BTreeMap<i32, u64>,
}

/// The disk, and what it must hold.
#[derive(Default)]
struct Disk {
    table: Table,
    /// The items of all durable records.
    stored: Vec<(u32, u64)>,
    items: u64,
    lives: u64,
}

/// Items whose number is a multiple of this one have no record.
const SKIPPED: u64 = 5;

impl Disk {
    fn start(&mut self) -> Process {
        self.lives += 1;
        let mut stage = Stage::new(Life(self.lives), (*b"nonce").into(), None, BUDGET);
        stage.handle(SpoolCommand::Topic { topic: TOPIC, name: "t".into(), partitions: PARTITIONS as u32 });
        let mut rest = BTreeMap::new();
        for input in 1..=INPUTS {
            let table = self.table.inputs.iter().find(|(number, _)| number.0 == input).map(|(_, table)| table.clone());
            if table.is_none() {
                stage.handle(SpoolCommand::Input { input: InputNumber(input), name: input.to_string().into() });
            }
            let has = |item: &u64| table.as_ref().is_some_and(|table| table.items.numbers.contains(Ordinal(*item)));
            rest.insert(input, (1..=self.items).filter(|item| !has(item)).collect());
        }
        Process { stage, rest, open: BTreeMap::new(), next_batch: BTreeMap::new() }
    }

    /// Writes the entries of a round.
    fn write(&mut self, entries: &[Entry], tokens: &[ItemBatch]) {
        entries.iter().for_each(|entry| self.table.apply(entry));
        let records: usize = entries
            .iter()
            .map(|entry| if let Entry::Batch(batch) = entry { batch.head.count as usize } else { 0 })
            .sum();
        let items: Vec<_> = tokens.iter().flat_map(|token| token.0.1.clone()).collect();
        assert_eq!(records, items.len(), "the round has these batches");
        self.stored.extend(items);
    }

    fn check(&self) {
        let mut stored = self.stored.clone();
        stored.sort_unstable();
        let all: Vec<_> = (1..=INPUTS)
            .flat_map(|input| (1..=self.items).filter(|item| item % SKIPPED != 0).map(move |item| (input, item)))
            .collect();
        assert_eq!(stored, all, "each item has one durable record");
        for (_, input) in self.table.inputs.iter() {
            let sum = (1..=self.items).fold(0, |sum: u64, item| sum.wrapping_add(check_of(item)));
            assert_eq!((input.items.numbers.iter().count(), input.items.check), (1, sum));
        }
    }
}

impl Process {
    fn publish(&mut self, input: u32, items: usize) {
        for _ in 0..items {
            let Some(item) = self.rest.get_mut(&input).and_then(VecDeque::pop_front) else { return };
            if item % SKIPPED == 0 {
                let mut items = ItemSet::default();
                items.insert(Ordinal(item), check_of(item));
                self.stage.handle(SpoolCommand::Skipped { input: InputNumber(input), items });
            } else {
                let index = (item % PARTITIONS as u64) as i32;
                self.open.entry(index).or_default().push((input, item));
            }
        }
    }

    fn seal(&mut self, index: i32) {
        let Some(records) = self.open.remove(&index) else { return };
        let number = self.next_batch.entry(index).or_default();
        let Submission { partition, ordinal, published_at, batch, aged, stored, .. } =
            submission(index, *number, records.len());
        *number += 1;
        let token = ItemBatch(Arc::new((index, records)));
        self.stage.submit(Submission { partition, token, ordinal, published_at, batch, aged, stored });
    }

    /// Runs a round. Returns whether the process lives on.
    fn round(&mut self, disk: &mut Disk, bytes: u64, ends: RoundEnd) -> bool {
        let entries = self.stage.round(bytes, u64::MAX);
        if entries.is_empty() {
            self.stage.committed();
            return true;
        }
        match ends {
            RoundEnd::Refused => {
                self.stage.refused();
                return true;
            }
            RoundEnd::Dies { is_durable: false } => return false,
            RoundEnd::Durable | RoundEnd::Dies { is_durable: true } => {}
        }
        self.stage.committed();
        let durable = |effect| match effect {
            Effect::Durable { token, .. } => Some(token),
            _ => None,
        };
        let tokens: Vec<_> = self.stage.take_effects().into_iter().filter_map(durable).collect();
        disk.write(&entries, &tokens);
        matches!(ends, RoundEnd::Durable)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn killed_input_is_stored_once(steps in prop::collection::vec(step(), 0..120), items in 1..150_u64) {
        let mut disk = Disk { items, ..Disk::default() };
        let mut life = disk.start();
        for step in &steps {
            let lives = match step {
                Step::Publish { input, items } => {
                    life.publish(*input, *items);
                    true
                }
                Step::Seal { index } => {
                    life.seal(*index);
                    true
                }
                Step::Round { bytes, ends } => life.round(&mut disk, *bytes, *ends),
            };
            if !lives {
                life = disk.start();
            }
        }
        (1..=INPUTS).for_each(|input| life.publish(input, usize::MAX));
        (0..PARTITIONS).for_each(|index| life.seal(index));
        while life.stage.has_waiting() || life.stage.has_changes() {
            assert!(life.round(&mut disk, u64::MAX, RoundEnd::Durable));
        }
        disk.check();
    }
}
