//! One schedule: lives of one spool on one disk.

use std::collections::BTreeMap;

use kafka_courier_batcher::Stamp;
use kafka_courier_spool::core::entry::{Entry, Ordinal, OutReason, Partition, Piece, Topic, TopicNumber};
use kafka_courier_spool::core::ids::{Life, SpoolId};
use kafka_courier_spool::disk::Disk;
use kafka_courier_spool::journal::{CommitError, Journal, OpenError, Settings};

use crate::disk::ModelDisk;
use crate::history::History;
use crate::rng::Rng;

/// Events that some schedule of two thousand must have.
pub(crate) const MUST_OCCUR: &[&str] = &[
    "death in an opening",
    "death in a round",
    "loss of power",
    "round under way survived",
    "round under way gone",
    "new segment",
    "recycled segment",
    "failed over",
    "latched",
    "damage named",
    "damage to the last round named",
    "record lost and named",
];

const PARTITIONS: usize = 3;

struct World<'a> {
    rng: Rng,
    disk: ModelDisk,
    settings: Settings,
    history: History,
    /// A round that may be durable.
    under_way: Option<Vec<Entry>>,
    seen: &'a mut BTreeMap<&'static str, u64>,
}

pub(crate) fn run(seed: u64, seen: &mut BTreeMap<&'static str, u64>) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let settings = Settings {
        segment_bytes: rng.pick(&[20_480, 40_960, 131_072]),
        segments_max: rng.pick(&[3, 4, 8]),
        new_spool: SpoolId([seed as u8; 16]),
    };
    let disk = ModelDisk::new(seed);
    let mut world = World { rng, disk, settings, history: History::default(), under_way: None, seen };
    let lives = 2 + world.rng.index(5);
    for _ in 0..lives {
        world.live()?;
        world.end()?;
    }
    world.disk.crash_after(None);
    world.disk.fail(0);
    world.open().map(|_| ())
}

impl World<'_> {
    fn saw(&mut self, name: &'static str) {
        *self.seen.entry(name).or_default() += 1;
    }

    /// Opens the spool, and compares.
    fn open(&mut self) -> Result<Option<Journal<ModelDisk>>, String> {
        // Each process draws another id, which counts for a new spool alone.
        self.settings.new_spool = SpoolId(self.rng.next().to_le_bytes().repeat(2).try_into().unwrap_or([0; 16]));
        let (journal, recovered) = match Journal::open(self.disk.clone(), self.settings) {
            Ok(opened) => opened,
            Err(OpenError::Io { .. }) => {
                self.saw("death in an opening");
                return Ok(None);
            }
            Err(error) => return Err(format!("{error:?}")),
        };
        self.settle_under_way(&recovered)?;
        if journal.table() != &recovered.table {
            return Err("the journal has another table than the files".to_owned());
        }
        Ok(Some(journal))
    }

    /// The round that was under way is there or not.
    fn settle_under_way(&mut self, recovered: &kafka_courier_spool::core::recover::Recovered) -> Result<(), String> {
        let Some(entries) = self.under_way.take() else { return self.history.compare(recovered) };
        let mut with = self.history.clone();
        with.apply(&entries)?;
        if with.compare(recovered).is_ok() {
            self.saw("round under way survived");
            self.history = with;
            return Ok(());
        }
        self.saw("round under way gone");
        self.history.compare(recovered)
    }

    fn live(&mut self) -> Result<(), String> {
        let budget = 1 + self.rng.range(0..120);
        let dies = self.rng.percent(80);
        let failing = if self.rng.percent(25) { 1 + self.rng.range(0..12) } else { 0 };
        self.disk.fail(failing);
        self.disk.crash_after(dies.then_some(budget));
        let Some(mut journal) = self.open()? else { return Ok(()) };
        let mut begun = [false; PARTITIONS];
        let before = self.disk.operations();
        while self.disk.operations() < before + budget {
            let entries = self.round(journal.life(), &mut begun);
            let segments = journal.segment_count();
            match journal.commit(entries.clone()) {
                Ok(_) => self.history.apply(&entries)?,
                Err(error) => {
                    let latched = matches!(error, CommitError::Latched);
                    if !latched {
                        self.under_way = Some(entries);
                    }
                    self.saw(if dies { "death in a round" } else { "latched" });
                    return self.refuses(&mut journal);
                }
            }
            match journal.segment_count().cmp(&segments) {
                std::cmp::Ordering::Greater => self.saw("new segment"),
                std::cmp::Ordering::Less => self.saw("recycled segment"),
                std::cmp::Ordering::Equal => {}
            }
            if failing > 0 {
                self.saw("failed over");
            }
            self.check(&journal)?;
            let idle = self.rng.percent(20);
            if idle && journal.prove().is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A latched journal commits nothing.
    fn refuses(&mut self, journal: &mut Journal<ModelDisk>) -> Result<(), String> {
        match journal.commit(Vec::new()) {
            Err(CommitError::Latched) => Ok(()),
            other => Err(format!("a journal that failed commits again: {other:?}")),
        }
    }

    fn check(&self, journal: &Journal<ModelDisk>) -> Result<(), String> {
        if self.disk.has_violation() {
            return Err("a file was written again after its sync failed".to_owned());
        }
        if journal.table() != &self.history.table {
            return Err(format!("another table\n{:?}\n{:?}", journal.table(), self.history.table));
        }
        // A round may begin a segment before the oldest one is free, and so may each segment that fails.
        let bound = self.settings.segments_max + 5;
        if journal.segment_count() > bound {
            return Err(format!("{} segments in use, at most {bound} are needed", journal.segment_count()));
        }
        Ok(())
    }

    /// The process ends: it dies, the power fails, or a bit flips before the next opening.
    fn end(&mut self) -> Result<(), String> {
        self.disk.crash_after(None);
        self.disk.fail(0);
        if self.rng.percent(60) {
            self.saw("loss of power");
            self.disk.lose_power();
        }
        if self.rng.percent(15) { self.damage() } else { Ok(()) }
    }

    /// Opens, so that everything is durable and proved, flips a bit, and opens again.
    fn damage(&mut self) -> Result<(), String> {
        let Some(mut journal) = self.open()? else { return Err("no opening without faults".to_owned()) };
        let mut begun = [false; PARTITIONS];
        for _ in 0..self.rng.pick(&[0, 1, 2, 4, 12, 40]) {
            let entries = self.round(journal.life(), &mut begun);
            journal.commit(entries.clone()).map_err(|error| format!("{error:?}"))?;
            self.history.apply(&entries)?;
        }
        journal.prove().map_err(|error| format!("{error:?}"))?;
        drop(journal);
        self.disk.lose_power();
        let names = self.disk.list().map_err(|error| error.to_string())?;
        let names: Vec<_> = names.into_iter().filter(|name| name.starts_with("journal-")).collect();
        let name = names[self.rng.index(names.len())].clone();
        // A bit of a header or a frame, mostly of its first bytes. Most blocks of a file hold none.
        let bytes = self.disk.read(&name).map_err(|error| error.to_string())?;
        let used: Vec<usize> = (0..bytes.len() / 4096).filter(|block| bytes[block * 4096..][..32] != [0; 32]).collect();
        let block = used.get(self.rng.index(used.len())).copied().unwrap_or(0);
        let offset = block * 4096 + self.rng.pick(&[0, 9, 25, 30, 60, 200]);
        let bit = self.rng.index(8) as u8;
        self.disk.flip(&name, offset, bit);
        let (_, recovered) = Journal::open(self.disk.clone(), self.settings).map_err(|error| format!("{error:?}"))?;
        self.history.compare_damaged(&recovered)?;
        if !recovered.damage.is_empty() {
            self.saw("damage named");
        }
        if recovered.damage.iter().any(|damage| damage.last.next() >= recovered.resumes) {
            self.saw("damage to the last round named");
        }
        if recovered.lost().next().is_some() {
            self.saw("record lost and named");
        }
        // The history continues with the state of the files.
        let mut history = History { table: recovered.table.clone(), ..History::default() };
        let pieces: Vec<Entry> = recovered.pieces.into_values().map(Entry::Piece).collect();
        history.apply(&pieces)?;
        let settled = |partition: &Partition| history.table.partitions[partition].settled;
        let records = history.records.clone();
        history.records = records.into_iter().filter(|((of, at), _)| *at >= settled(of)).collect();
        self.history = history;
        Ok(())
    }

    fn partition(&mut self) -> (usize, Partition) {
        let index = self.rng.index(PARTITIONS);
        (index, Partition { topic: TopicNumber(1), index: index as i32 })
    }

    /// The entries of one round.
    fn round(&mut self, life: Life, begun: &mut [bool; PARTITIONS]) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut table = self.history.table.clone();
        for _ in 0..1 + self.rng.index(4) {
            let entry = self.entry(&table, life, begun, &mut entries);
            if let Some(entry) = entry {
                table.apply(&entry);
                entries.push(entry);
            }
            entries.iter().for_each(|entry| table.apply(entry));
        }
        entries
    }

    fn entry(
        &mut self,
        table: &kafka_courier_spool::core::table::Table,
        life: Life,
        begun: &mut [bool; PARTITIONS],
        entries: &mut Vec<Entry>,
    ) -> Option<Entry> {
        let (index, partition) = self.partition();
        let state = table.partitions.get(&partition).cloned().unwrap_or_default();
        let (settled, end) = (state.settled, state.end);
        let unsettled = end.0 - settled.0;
        match self.rng.range(0..100) {
            0..50 => {
                if !std::mem::replace(&mut begun[index], true) {
                    entries.push(Entry::Begin { partition, life, from: end });
                }
                let most = if self.rng.percent(10) { 250 } else { 9 };
                let count = 1 + self.rng.range(0..most) as u32;
                let byte = 1 + self.rng.index(250) as u8;
                let records = vec![byte; count as usize * 40].into();
                Some(Entry::Piece(Piece { partition, life, first: end, count, base_timestamp: 7, records }))
            }
            50..70 if unsettled > 0 => {
                let settled = Ordinal(settled.0 + 1 + self.rng.range(0..unsettled));
                Some(Entry::Mark { partition, settled, end_offset: settled.0 as i64 })
            }
            70..78 if unsettled > 0 => {
                let first = Ordinal(settled.0 + self.rng.range(0..unsettled));
                Some(Entry::Cut { partition, first, end })
            }
            78..84 if unsettled > 0 => {
                let first = Ordinal(settled.0 + self.rng.range(0..unsettled));
                let end = Ordinal((first.0 + 1 + self.rng.range(0..3)).min(end.0));
                Some(Entry::Out { partition, first, end, why: OutReason::DeadLetter })
            }
            84..88 => Some(Entry::Bind { life, producer_id: 4000 + life.0 as i64, epoch: 0 }),
            88..92 if unsettled > 0 => {
                let stamp = Stamp { producer_id: 4000 + life.0 as i64, epoch: 1, base_sequence: 0 };
                let from = Ordinal(settled.0 + self.rng.range(0..unsettled));
                Some(Entry::Move { partition, from, stamp })
            }
            92..95 => {
                let name = format!("topic-{}", self.rng.index(5)).into();
                Some(Entry::Topic(Topic { number: TopicNumber(1), name, id: [1; 16], partitions: 3 }))
            }
            95..97 => Some(Entry::Cluster("cluster".into())),
            _ => None,
        }
    }
}
