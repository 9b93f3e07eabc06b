//! Damage: bits that flip in durable bytes, and files that can't be read.

use kafka_courier_spool::core::entry::{Entry, Partition};
use kafka_courier_spool::core::frame::{BLOCK, Decoded, FramePlace, FrameSequence, decode};
use kafka_courier_spool::core::segment::SegmentHeader;
use kafka_courier_spool::disk::Disk;
use kafka_courier_spool::journal::{Journal, OpenError};

use crate::disk::ModelDisk;
use crate::history::{History, Opened, damaged_frames};
use crate::rounds::{self, Begun};
use crate::world::{World, opened, trace_of};

impl World<'_> {
    /// Opens, so that everything is durable and proved, flips a bit, and opens again.
    pub(crate) fn damage(&mut self) -> Result<(), String> {
        let Some(journal) = self.proved()? else { return Ok(()) };
        let names = self.segments()?;
        let name = names[self.rng.index(names.len())].clone();
        // A bit of a header or a frame, mostly of its first bytes. Most blocks of a file hold none.
        let bytes = self.disk.read(&name).map_err(|error| error.to_string())?;
        let used: Vec<usize> = (0..bytes.len() / 4096).filter(|block| bytes[block * 4096..][..32] != [0; 32]).collect();
        let block = used.get(self.rng.index(used.len())).copied().unwrap_or(0);
        let offset = block * 4096 + self.rng.pick(&[0, 9, 25, 29, 40, 60, 100, 200]);
        let bit = self.rng.index(8) as u8;
        self.trace(|| format!("flip {name} {offset}"));
        self.disk.flip(&name, offset, bit);
        self.check_damaged_reads(&journal)?;
        drop(journal);
        self.disk.lose_power();
        self.open_damaged()
    }

    /// Opens, so that everything is durable and proved. A segment then can't be read, and no opening does without it: it is
    /// readable again later, or moved away.
    pub(crate) fn break_segment(&mut self) -> Result<(), String> {
        if self.proved()?.is_none() {
            return Ok(());
        }
        self.disk.lose_power();
        let mut names = self.segments()?;
        // Without the last frames nothing names the end of the journal.
        names.sort_by_key(|name| self.frames(name).into_iter().map(|(_, sequence)| sequence).max());
        names.pop();
        if names.is_empty() {
            return Ok(());
        }
        let name = names[self.rng.index(names.len())].clone();
        self.trace(|| format!("break {name}"));
        self.disk.break_file(Some(&name));
        let refused = Journal::open(self.disk.clone(), self.settings);
        self.disk.break_file(None);
        match refused {
            Err(OpenError::Unreadable { name: named, .. }) if named == name => self.saw("unreadable segment"),
            Err(error) => return Err(format!("{name} can't be read, and the opening fails with {error}")),
            Ok(_) => return Err(format!("{name} can't be read, and is opened")),
        }
        if self.rng.percent(50) {
            return Ok(());
        }
        let frames = self.frames(&name).into_iter().map(|(_, sequence)| sequence.0);
        self.history.damaged.extend(frames);
        let moved = self.disk.rename(&name, &name.replacen("journal-", "damaged-", 1));
        moved.map_err(|error| error.to_string())?;
        self.saw("segment moved away");
        self.open_damaged()
    }

    /// Flips a bit of a frame that the last round names as durable, whatever became of the round behind it.
    pub(crate) fn flip_under_way(&mut self) -> Result<(), String> {
        let [Some(last), _] = self.committed else { return Ok(()) };
        // Damage to two neighbouring frames may take control entries.
        if self.is_flipped {
            return Ok(());
        }
        let names = self.segments()?;
        let name = names[self.rng.index(names.len())].clone();
        let frames: Vec<_> = self.frames(&name).into_iter().filter(|(_, sequence)| *sequence <= last).collect();
        let Some((offset, sequence)) = frames.get(self.rng.index(frames.len())).copied() else { return Ok(()) };
        let offset = offset + self.rng.pick(&[0, 9, 25, 29, 34, 60]);
        let bit = self.rng.index(8) as u8;
        self.trace(|| format!("flip {name} {offset}, frame {}", sequence.0));
        self.disk.flip(&name, offset, bit);
        self.history.damaged.insert(sequence.0);
        self.is_flipped = true;
        if self.under_way.is_some() {
            self.saw("damage with a round under way");
        }
        Ok(())
    }

    /// Opens without faults, and commits rounds that are all named as durable. Returns nothing if the disk is full.
    fn proved(&mut self) -> Result<Option<Journal<ModelDisk>>, String> {
        let Some(mut journal) = self.open()? else { return Ok(None) };
        let mut begun = Begun::default();
        for _ in 0..self.rng.pick(&[0, 1, 2, 4, 12, 40]) {
            let begun_before = begun;
            let entries = rounds::round(&mut self.rng, &self.history.table, journal.life(), &mut begun, true);
            match journal.commit(entries.clone()) {
                Ok(_) => self.history.apply(&entries)?,
                Err(_) => begun = begun_before,
            }
        }
        Ok(journal.prove().is_ok().then_some(journal))
    }

    fn segments(&self) -> Result<Vec<String>, String> {
        let names = self.disk.list().map_err(|error| error.to_string())?;
        Ok(names.into_iter().filter(|name| name.starts_with("journal-")).collect())
    }

    /// The frames of a file, each with its first byte.
    fn frames(&self, name: &str) -> Vec<(usize, FrameSequence)> {
        let Ok(bytes) = self.disk.read(name) else { return Vec::new() };
        let Ok(header) = SegmentHeader::decode(&bytes) else { return Vec::new() };
        let frame = |block: usize| {
            let offset = block * BLOCK as usize;
            let place = FramePlace { spool: header.spool, segment: header.number, offset: offset as u64 };
            match decode(place, &bytes[offset..]) {
                Decoded::Frame(frame) => Some((offset, frame.sequence)),
                _ => None,
            }
        };
        (1..bytes.len() / BLOCK as usize).filter_map(frame).collect()
    }

    /// A batch is read as it was written, or not at all.
    fn check_damaged_reads(&mut self, journal: &Journal<ModelDisk>) -> Result<(), String> {
        for head in journal.batches() {
            match journal.read(head.partition, head.first) {
                Ok(batch) => self.history.check_batch(&batch)?,
                Err(_) => self.saw("damaged batch not read"),
            }
        }
        Ok(())
    }

    fn open_damaged(&mut self) -> Result<(), String> {
        let (journal, recovered) = match Journal::open(self.disk.clone(), self.settings) {
            Ok(opened) => opened,
            // The disk may be full.
            Err(_) if self.disk.free().is_ok_and(|free| free < 3 * self.settings.segment_bytes) => {
                self.is_flipped = true;
                return Ok(());
            }
            Err(error) => return Err(format!("{error:?}")),
        };
        self.trace(|| trace_of(&journal, &recovered));
        let opened = opened(&journal, recovered)?;
        if opened.recovered.damage.iter().any(|damage| damage.last.next() >= opened.recovered.resumes) {
            self.saw("damage to the last round named");
        }
        self.settle_flip(opened)
    }

    /// Compares an opening after damage. The history continues with the state of the files.
    pub(crate) fn settle_flip(&mut self, opened: Opened) -> Result<(), String> {
        if let Some(entries) = self.under_way.take() {
            let mut with = self.history.clone();
            with.apply(&entries)?;
            if with.compare_damaged(&opened).is_ok() {
                self.history = with;
            }
        }
        self.history.compare_damaged(&opened)?;
        let Opened { recovered, batches } = opened;
        if !recovered.damage.is_empty() {
            self.saw("damage named");
        }
        if recovered.lost().next().is_some() {
            self.saw("record lost and named");
        }
        let damaged = self.history.damaged.iter().copied().chain(damaged_frames(&recovered)).collect();
        let (table, stamps, is_damaged) = (recovered.table.clone(), self.history.stamps.clone(), true);
        let mut history = History { table, damaged, stamps, is_damaged, ..History::default() };
        let batches: Vec<Entry> = batches.into_iter().map(Entry::Batch).collect();
        history.apply_entries(&batches);
        history.keys = self.history.keys_without_lost(&history.table);
        let settled = |partition: &Partition| history.table.partitions[partition].settled;
        let records = history.records.clone();
        history.records = records.into_iter().filter(|((of, at), _)| *at >= settled(of)).collect();
        self.history = history;
        Ok(())
    }
}
