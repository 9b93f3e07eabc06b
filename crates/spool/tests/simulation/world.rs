//! One schedule: lives of one spool on one disk.

use std::collections::BTreeMap;

use kafka_courier_spool::core::entry::{BatchHead, Entry, Ordinal, Partition};
use kafka_courier_spool::core::frame::FrameSequence;
use kafka_courier_spool::core::ids::SpoolId;
use kafka_courier_spool::core::recover::{HeldBatch, Recovered};
use kafka_courier_spool::journal::{CommitError, Journal, OpenError, ReadError, Settings};

use crate::disk::ModelDisk;
use crate::history::{History, Opened};
use crate::rng::Rng;
use crate::rounds::{self, Begun};

/// Events that some schedule of two thousand must have.
pub(crate) const MUST_OCCUR: &[&str] = &[
    "death in an opening",
    "error in an opening",
    "death in a round",
    "loss of power",
    "round under way survived",
    "round under way gone",
    "new segment",
    "recycled segment",
    "failed over",
    "latched",
    "read in a latched journal",
    "damage named",
    "damage to the last round named",
    "record lost and named",
    "damage with a round under way",
    "damage and death in an opening",
    "unreadable segment",
    "segment moved away",
    "damaged batch not read",
    "full",
    "full without room on the disk",
    "freed after full",
    "batches copied forward",
    "round larger than a segment",
    "hundred segments",
    "many openings",
    "failed: create in part",
    "failed: read",
    "failed: rename",
    "failed: remove",
    "failed: sync",
    "failed: sync of the folder",
];

pub(crate) struct World<'a> {
    pub(crate) rng: Rng,
    pub(crate) disk: ModelDisk,
    pub(crate) settings: Settings,
    pub(crate) history: History,
    /// A round that may be durable.
    pub(crate) under_way: Option<Vec<Entry>>,
    /// The last two committed rounds of the last life, older first. The newer one names the older one as durable.
    pub(crate) committed: [Option<FrameSequence>; 2],
    /// A bit was flipped, and no opening has reported it.
    pub(crate) is_flipped: bool,
    /// Whether the disk has a limit.
    is_limited: bool,
    /// Whether records are settled.
    settles: bool,
    seen: &'a mut BTreeMap<String, u64>,
}

pub(crate) fn run(seed: u64, seen: &mut BTreeMap<String, u64>) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let segment_bytes = rng.pick(&[12_288, 20_480, 40_960, 131_072]);
    let settings = Settings {
        segment_bytes,
        segments_kept: rng.pick(&[3, 4, 8]),
        // A small segment holds one round, and no copies beside it.
        max_bytes: if segment_bytes < 40_960 { u64::MAX } else { rng.pick(&[u64::MAX, 6 * segment_bytes]) },
        keep_free: rng.pick(&[0, segment_bytes]),
        new_spool: SpoolId([seed as u8; 16]),
    };
    let disk = ModelDisk::new(seed);
    let is_limited = rng.percent(25);
    if is_limited {
        disk.limit(20 * segment_bytes);
    }
    let settles = !rng.percent(6);
    let history = History::default();
    let (under_way, committed, is_flipped) = (None, [None; 2], false);
    let mut world = World { rng, disk, settings, history, under_way, committed, is_flipped, is_limited, settles, seen };
    let lives = 2 + world.rng.index(5);
    for _ in 0..lives {
        world.live()?;
        world.end()?;
    }
    world.disk.limit(u64::MAX);
    world.open()?.ok_or("no opening without faults")?;
    for (operation, count) in world.disk.failed() {
        *world.seen.entry(format!("failed: {operation}")).or_default() += count;
    }
    Ok(())
}

/// Reads every batch of an opening, which the journal and the files must name alike.
pub(crate) fn opened(journal: &Journal<ModelDisk>, recovered: Recovered) -> Result<Opened, String> {
    let heads: Vec<_> = recovered.batches.values().map(|held| held.head.clone()).collect();
    if journal.batches().collect::<Vec<_>>() != heads {
        return Err("the journal has other batches than the files".to_owned());
    }
    let read =
        |head: &BatchHead| journal.read(head.partition, head.first).map_err(|error| format!("{head:?}: {error}"));
    let batches = heads.iter().map(read).collect::<Result<_, _>>()?;
    Ok(Opened { recovered, batches })
}

/// The state that an opening reads, in one line.
pub(crate) fn trace_of(journal: &Journal<ModelDisk>, recovered: &Recovered) -> String {
    let Recovered { damage, unreadable, bases, resumes, proved, next_frame, batches, .. } = recovered;
    let place = |((of, first), held): (&(Partition, Ordinal), &HeldBatch)| {
        format!("{}:{}..{} in {}/{}", of.index, first.0, held.head.end().0, held.place.segment.0, held.frame.0)
    };
    let places: Vec<_> = batches.iter().map(place).collect();
    let bases: Vec<_> = bases.iter().map(|base| (base.resumes.0, base.first.0, base.last.0)).collect();
    let life = journal.life().0;
    let frames = (resumes.0, proved.0, next_frame.0);
    let lost: Vec<_> = recovered.lost().map(|(of, first, end)| (of.index, first.0, end.0)).collect();
    format!("life {life}, {frames:?}, {damage:?} {unreadable:?} {lost:?}, bases {bases:?}, {places:?}")
}

impl World<'_> {
    /// Prints a step of a replayed schedule.
    pub(crate) fn trace(&self, step: impl FnOnce() -> String) {
        if std::env::var_os("SIM_SEED").is_some() {
            println!("{}", step());
        }
    }

    pub(crate) fn saw(&mut self, name: &str) {
        *self.seen.entry(name.to_owned()).or_default() += 1;
    }

    /// Opens the spool, and compares.
    pub(crate) fn open(&mut self) -> Result<Option<Journal<ModelDisk>>, String> {
        // Each process draws another id, which counts for a new spool alone.
        self.settings.new_spool = SpoolId(self.rng.next().to_le_bytes().repeat(2).try_into().unwrap_or([0; 16]));
        let (journal, recovered) = match Journal::open(self.disk.clone(), self.settings) {
            Ok(opened) => opened,
            Err(
                error @ (OpenError::Io { .. } | OpenError::Unreadable { .. } | OpenError::Read(ReadError::Io { .. })),
            ) => {
                self.trace(|| format!("not opened: {error}"));
                self.saw(if self.disk.is_dead() { "death in an opening" } else { "error in an opening" });
                if self.is_flipped {
                    self.saw("damage and death in an opening");
                }
                return Ok(None);
            }
            Err(error) => return Err(format!("{error:?}")),
        };
        self.trace(|| trace_of(&journal, &recovered));
        if journal.table() != &recovered.table {
            return Err("the journal has another table than the files".to_owned());
        }
        let opened = self.disk.without_faults(|| opened(&journal, recovered))?;
        if std::mem::take(&mut self.is_flipped) {
            self.settle_flip(opened)?;
        } else {
            self.settle_under_way(&opened)?;
        }
        self.committed = [None; 2];
        Ok(Some(journal))
    }

    /// The round that was under way is there or not.
    fn settle_under_way(&mut self, opened: &Opened) -> Result<(), String> {
        let Some(entries) = self.under_way.take() else { return self.history.compare(opened) };
        let mut with = self.history.clone();
        with.apply(&entries)?;
        if with.compare(opened).is_ok() {
            self.saw("round under way survived");
            self.history = with;
            return Ok(());
        }
        self.saw("round under way gone");
        self.history.compare(opened)
    }

    fn live(&mut self) -> Result<(), String> {
        let is_long = self.rng.percent(if self.settles { 2 } else { 30 });
        let factor = if self.settles { 12 } else { 30 };
        let budget = 1 + self.rng.range(0..120) * if is_long { factor } else { 1 };
        let dies = self.rng.percent(80);
        let failing = if self.rng.percent(25) { 1 + self.rng.range(0..12) } else { 0 };
        self.disk.fail(failing);
        self.disk.crash_after(dies.then_some(budget));
        self.disk.fail_reads(if self.rng.percent(5) { 10 } else { 0 });
        let Some(mut journal) = self.open()? else { return Ok(()) };
        self.disk.fail_reads(if self.rng.percent(20) { 20 } else { 0 });
        let mut begun = Begun::default();
        let before = self.disk.operations();
        while self.disk.operations() < before + budget {
            if !self.commit(&mut journal, &mut begun, failing > 0)? {
                return Ok(());
            }
            self.check(&journal)?;
            if self.rng.percent(20) && !self.idle(&mut journal)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The journal is idle. Returns whether the life continues.
    fn idle(&mut self, journal: &mut Journal<ModelDisk>) -> Result<bool, String> {
        for result in [journal.prove(), journal.prepare()] {
            if let Err(CommitError::Failed(_) | CommitError::Latched) = result {
                self.check_latched(journal)?;
                return Ok(false);
            }
        }
        Ok(!self.disk.is_dead())
    }

    /// Commits a round. Returns whether the life continues.
    fn commit(&mut self, journal: &mut Journal<ModelDisk>, begun: &mut Begun, fails: bool) -> Result<bool, String> {
        let begun_before = *begun;
        let entries = rounds::round(&mut self.rng, &self.history.table, journal.life(), begun, self.settles);
        let (segments, bytes, room) = (journal.segment_count(), journal.file_bytes(), journal.room());
        match journal.commit(entries.clone()) {
            Ok(committed) => {
                self.trace(|| format!("  frame {}: {}", committed.frame.0, rounds::trace_of(&entries)));
                self.committed = [self.committed[1], Some(committed.frame)];
                self.history.apply(&entries)?;
                let has_batches = entries.iter().any(|entry| matches!(entry, Entry::Batch(_)));
                let has_grown = journal.file_bytes() > bytes && journal.file_bytes() > self.settings.max_bytes;
                if has_batches && has_grown && !fails {
                    return Err(format!("batches took {} bytes in {:?}", journal.file_bytes(), self.settings));
                }
                if rounds::length(&entries) > self.settings.segment_bytes {
                    self.saw("round larger than a segment");
                }
            }
            Err(CommitError::Full { .. } | CommitError::NoSegment(_)) if self.disk.is_dead() => {
                self.saw("death in a round");
                return Ok(false);
            }
            Err(error @ (CommitError::Full { .. } | CommitError::NoSegment(_))) => {
                *begun = begun_before;
                return self.refused(journal, &entries, (room, fails), &error);
            }
            // A life ends with the round that latches the journal.
            Err(CommitError::Latched) => return Err("the journal is latched, and no round failed".to_owned()),
            Err(error) => {
                self.trace(|| format!("  {error}: {}", rounds::trace_of(&entries)));
                self.under_way = Some(entries);
                self.saw(if self.disk.is_dead() { "death in a round" } else { "latched" });
                self.check_latched(journal)?;
                return Ok(false);
            }
        }
        match journal.segment_count().cmp(&segments) {
            std::cmp::Ordering::Greater => self.saw("new segment"),
            std::cmp::Ordering::Less => self.saw("recycled segment"),
            std::cmp::Ordering::Equal => {}
        }
        if journal.segment_count() >= 100 {
            self.saw("hundred segments");
        }
        if fails {
            self.saw("failed over");
        }
        Ok(true)
    }

    /// A round was refused. Nothing of it is there, control entries are refused by the disk alone, and the journal frees
    /// itself once records are settled. Returns whether the life continues.
    fn refused(
        &mut self,
        journal: &mut Journal<ModelDisk>,
        entries: &[Entry],
        (room, fails): (u64, bool),
        error: &CommitError,
    ) -> Result<bool, String> {
        if fails {
            return Ok(true);
        }
        let has_batches = entries.iter().any(|entry| matches!(entry, Entry::Batch(_)));
        if !has_batches && !self.is_limited {
            return Err(format!("control entries do not fit: {error}"));
        }
        if has_batches && rounds::length(entries) <= room {
            return Err(format!("{} bytes do not fit a room of {room}: {error}", rounds::length(entries)));
        }
        self.saw(if self.is_limited { "full without room on the disk" } else { "full" });
        if self.rng.percent(30) { self.free(journal) } else { Ok(true) }
    }

    /// Settles everything. The journal then has room again.
    fn free(&mut self, journal: &mut Journal<ModelDisk>) -> Result<bool, String> {
        for _ in 0..6 {
            let marks = rounds::marks(&self.history.table);
            match journal.commit(marks.clone()) {
                Ok(committed) => self.committed = [self.committed[1], Some(committed.frame)],
                Err(CommitError::Failed(_)) if self.disk.is_dead() => {
                    self.under_way = Some(marks);
                    return Ok(false);
                }
                Err(_) if self.disk.is_dead() => return Ok(false),
                Err(CommitError::Full { .. }) if self.is_limited => return Ok(true),
                Err(error) => return Err(format!("marks do not fit: {error}")),
            }
            self.history.apply(&marks)?;
            if !self.idle(journal)? {
                return Ok(false);
            }
        }
        if journal.room() < self.settings.segment_bytes / 2 && !self.is_limited {
            return Err(format!("{} bytes of room, and everything is settled", journal.room()));
        }
        self.saw("freed after full");
        Ok(true)
    }

    /// A latched journal commits nothing, and reads durable batches.
    fn check_latched(&mut self, journal: &mut Journal<ModelDisk>) -> Result<(), String> {
        match (journal.commit(Vec::new()), journal.prove(), journal.prepare()) {
            (Err(CommitError::Latched), Err(CommitError::Latched), Err(CommitError::Latched)) => {}
            other => return Err(format!("a journal that failed continues: {other:?}")),
        }
        self.check_reads(journal)?;
        self.saw("read in a latched journal");
        Ok(())
    }

    /// Every unsettled batch can be read.
    fn check_reads(&self, journal: &Journal<ModelDisk>) -> Result<(), String> {
        for head in journal.batches() {
            let read = self.disk.without_faults(|| journal.read(head.partition, head.first));
            self.history.check_batch(&read.map_err(|error| format!("{head:?}: {error}"))?)?;
        }
        Ok(())
    }

    fn check(&mut self, journal: &Journal<ModelDisk>) -> Result<(), String> {
        if self.disk.has_violation() {
            return Err("a file was written again after its sync failed".to_owned());
        }
        if journal.table() != &self.history.table {
            return Err(format!("another table\n{:?}\n{:?}", journal.table(), self.history.table));
        }
        if journal.copied_bytes() > 0 {
            self.saw("batches copied forward");
        }
        if self.rng.percent(10) {
            self.check_reads(journal)?;
        }
        // A round may begin a segment before the oldest one is free, and so may each segment that fails.
        let segment = self.settings.segment_bytes.max(65_536);
        let needed = (self.settings.segments_kept as u64 + 12) * segment + 4 * journal.batch_bytes();
        if self.settings.max_bytes == u64::MAX && !self.is_limited && journal.file_bytes() > needed && self.settles {
            return Err(format!(
                "{} bytes of {} segments in use for {}, copied {}, at most {needed} are needed with {:?}",
                journal.file_bytes(),
                journal.segment_count(),
                journal.batch_bytes(),
                journal.copied_bytes(),
                self.settings,
            ));
        }
        Ok(())
    }

    /// The process ends: it dies, the power fails, or bytes are damaged before the next opening.
    fn end(&mut self) -> Result<(), String> {
        self.disk.crash_after(None);
        self.disk.fail(0);
        self.disk.fail_reads(0);
        if self.rng.percent(60) {
            self.saw("loss of power");
            self.trace(|| "loss of power".to_owned());
            self.disk.lose_power();
        }
        match self.rng.range(0..100) {
            0..15 => self.damage(),
            15..30 => self.flip_under_way(),
            30..36 => self.break_segment(),
            36..38 => self.open_often(),
            _ => Ok(()),
        }
    }

    /// Processes open the spool and store nothing. The files do not grow with their number.
    fn open_often(&mut self) -> Result<(), String> {
        let Some(first) = self.open()?.filter(|_| !self.is_limited) else { return Ok(()) };
        let before = first.file_bytes();
        drop(first);
        for _ in 0..30 {
            drop(self.open()?);
        }
        let Some(last) = self.open()? else { return Err("no opening without faults".to_owned()) };
        let segment = self.settings.segment_bytes.max(65_536);
        let most = before.max(2 * last.batch_bytes()) + (self.settings.segments_kept as u64 + 4) * segment;
        if last.file_bytes() > most {
            return Err(format!("{} bytes after many openings, {before} before", last.file_bytes()));
        }
        self.saw("many openings");
        Ok(())
    }
}
