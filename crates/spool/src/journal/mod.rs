//! The journal: opens a spool, commits rounds, recycles segments.
//!
//! Rules:
//!  - A round is durable once [`Journal::commit`] returns. A round whose commit failed may be durable as well.
//!  - The journal keeps the places of batches, not their bytes. A batch stays in its segment until it is settled.
//!  - An opening copies the batches that only the page cache may hold into a new segment, beside the whole table, and syncs
//!    it, before anything else. Batches that a later frame names as durable stay where they are.
//!  - Each opening takes a file. Beyond its limits it copies all of the oldest segment, too, so that a process that is started
//!    again and again takes no more and more room.
//!  - A file whose write or sync failed is never written again, and the batches that were synced before stay there. The
//!    journal writes its table and the round into a new segment. If that fails too, the journal is latched and commits nothing more.
//!  - A round that does not fit is refused before anything is written, and latches nothing.
//!  - Control entries, and the numbers of records, are in two frames: one damaged frame loses records at most, by name.
//!    Batches that a mark settles pin their segment until the mark is in two frames, too.
//!  - A base is proved durable before anything that it supersedes is removed.
//!  - A segment is recycled, oldest first, once it holds no unsettled batch and two newer checkpoints are durable. A segment
//!    with damage is kept under another name instead.

mod base;
mod commit;
mod error;
mod files;
mod held;
mod round;
mod segments;
mod snapshot;
mod space;

use std::collections::BTreeSet;

use crate::core::encoding;
use crate::core::entry::{Base, BatchHead, Entry, JournalBatch, Ordinal, Partition};
use crate::core::frame::FrameSequence;
use crate::core::ids::{Life, SegmentNumber, SpoolId};
use crate::core::recover::{HeldBatch, Recovered};
use crate::core::table::Table;
use crate::disk::{Disk, ReadFolder};

pub use error::{CommitError, OpenError, ReadError};
use files::ReadFailure;
use held::HeldBatches;
use round::Round;
use segments::Segments;
pub use snapshot::{DamagedFrames, Snapshot, SnapshotError};

/// The largest round, in bytes.
pub const ROUND_BYTES_MAX: usize = 1 << 28;
/// The usual size of a segment, in bytes.
pub const SEGMENT_BYTES: u64 = 16 << 20;

/// Settings of a journal.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The size of a segment, in bytes. A larger round makes its segment grow. See [`SEGMENT_BYTES`].
    pub segment_bytes: u64,
    /// How many segments may be in use before batches are copied. The oldest segment's batches are copied to the newest one
    /// beyond this number, while more than half of the bytes in use are settled.
    pub segments_kept: usize,
    /// The most bytes that the files of all segments may have. Control entries alone may exceed it. A spool of fewer than
    /// three segments takes no batch.
    pub max_bytes: u64,
    /// The bytes of the file system that stay free.
    pub keep_free: u64,
    /// The id of the spool, where the folder holds none yet. Must be random.
    pub new_spool: SpoolId,
}

/// A durable round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The frame that holds it.
    pub frame: FrameSequence,
}

/// An open spool. Belongs to one thread.
#[derive(Debug)]
pub struct Journal<D: Disk> {
    disk: D,
    settings: Settings,
    spool: SpoolId,
    life: Life,
    table: Table,
    held: HeldBatches,
    segments: Segments<D::File>,
    /// The bases that void frames which may still be in the files. Each checkpoint names them.
    bases: Vec<Base>,
    /// Segments with a batch that can't be read. Their batches are not copied while the current segment takes rounds.
    unreadable: BTreeSet<SegmentNumber>,
    /// The bytes of batches that were copied forward.
    copied: u64,
    /// The number for the next frame.
    next: FrameSequence,
    /// The last frame that is durable.
    durable: FrameSequence,
    /// The control entries of the last frame, which the next one repeats.
    repeat: Vec<Entry>,
    /// The partitions of the last frame's marks: the next frame repeats them, and frees their batches.
    marked: Vec<Partition>,
    /// Whether a durable frame names the last round as durable.
    is_proved: bool,
    is_latched: bool,
}

impl<D: Disk> Journal<D> {
    /// Opens the spool of a folder, or creates one. Returns the journal, and the state of the files, with damage and lost
    /// records.
    ///
    /// # Errors
    /// [`OpenError`]. No file is then changed, apart from a new segment that may be incomplete.
    pub fn open(disk: D, settings: Settings) -> Result<(Self, Recovered), OpenError> {
        let files::FolderState { mut recovered, spool, old } =
            files::read(&disk, settings.new_spool, settings.segment_bytes, ReadFailure::Refuses)?;
        recovered.table.drop_replaced();
        let has_useless_spare = old.has_useless_spare;
        let mut journal = Self {
            disk,
            settings,
            spool,
            life: Life(recovered.last_life.0.saturating_add(1)),
            table: recovered.table.clone(),
            held: HeldBatches::default(),
            segments: Segments::new(old, recovered.next_segment, settings.segment_bytes),
            bases: recovered.bases.clone(),
            unreadable: BTreeSet::new(),
            copied: 0,
            next: recovered.next_frame,
            durable: recovered.proved,
            repeat: Vec::new(),
            marked: Vec::new(),
            is_proved: true,
            is_latched: false,
        };
        recovered.batches.values().for_each(|batch| journal.held.insert(batch.clone()));
        let unproved = recovered.batches.values().filter(|batch| batch.frame > recovered.proved);
        let mut rounds = journal.rounds(unproved)?;
        // A batch that can't be read stays where it is.
        rounds.extend(journal.rounds(journal.copied_at_opening(recovered.proved).iter()).unwrap_or_default());
        journal.write_base(rounds).map_err(|source| OpenError::Io { name: ".".into(), source })?;
        if has_useless_spare {
            // A part of a file takes room. If it stays, the next file for a segment replaces it.
            let _ = journal.disk.remove(files::SPARE);
        }
        journal.recycle();
        Ok((journal, recovered))
    }

    /// Reads batches into rounds.
    fn rounds<'a>(&self, batches: impl Iterator<Item = &'a HeldBatch>) -> Result<Vec<Round>, OpenError> {
        let mut rounds: Vec<Round> = Vec::new();
        for batch in batches {
            if rounds.last().is_none_or(|round| round.bytes.len() >= base::FRAME_BYTES) {
                rounds.push(Round::default());
            }
            let body = self.read_body(batch)?;
            if let Some(round) = rounds.last_mut() {
                round.push_body(batch.head.clone(), &body);
            }
        }
        Ok(rounds)
    }

    /// Returns the spool's id.
    #[must_use]
    pub fn spool(&self) -> SpoolId {
        self.spool
    }

    /// Returns the number of this opening.
    #[must_use]
    pub fn life(&self) -> Life {
        self.life
    }

    /// Returns the durable state, apart from the batches.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Returns the durable batches with unsettled records, by partition and ordinal.
    pub fn batches(&self) -> impl Iterator<Item = BatchHead> {
        self.batch_sizes().map(|(head, _)| head)
    }

    /// Returns these batches, each with the bytes of its entry.
    pub fn batch_sizes(&self) -> impl Iterator<Item = (BatchHead, u32)> {
        let unsettled = |batch: &HeldBatch| batch.head.end() > self.settled(batch.head.partition);
        self.held.iter().filter(unsettled).map(|batch| (batch.head, batch.place.length))
    }

    /// Returns the first batch of a partition that begins at an ordinal or behind.
    #[must_use]
    pub fn next_batch(&self, partition: Partition, from: Ordinal) -> Option<BatchHead> {
        self.held.next(partition, from).map(|batch| batch.head)
    }

    /// Reads the batch that begins at an ordinal from its file.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(&self, partition: Partition, first: Ordinal) -> Result<JournalBatch, ReadError> {
        let batch = self.held.get(partition, first).ok_or(ReadError::NotHeld)?;
        let body = self.read_body(&batch)?;
        encoding::decode_batch(&body).ok_or_else(|| damaged(&batch))
    }

    fn read_body(&self, batch: &HeldBatch) -> Result<Vec<u8>, ReadError> {
        read_body(&self.disk, batch)
    }

    fn settled(&self, partition: Partition) -> Ordinal {
        self.table.partitions.get(&partition).map(|state| state.settled).unwrap_or_default()
    }

    /// Returns whether the journal commits nothing more, because writing failed.
    #[must_use]
    pub fn is_latched(&self) -> bool {
        self.is_latched
    }

    /// Returns the number of segments in use.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Returns the bytes of all files of segments, the one for the next segment included.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.segments.used_bytes() + self.segments.spare_bytes()
    }

    /// Returns the bytes of the batches that are held, without those of settled ones.
    #[must_use]
    pub fn batch_bytes(&self) -> u64 {
        self.held.all_bytes()
    }

    /// Returns how many bytes of batches were copied forward since the opening.
    #[must_use]
    pub fn copied_bytes(&self) -> u64 {
        self.copied
    }

    /// Returns the number of files that are kept because of damage.
    #[must_use]
    pub fn quarantined_count(&self) -> usize {
        self.segments.quarantined()
    }
}

/// Reads the body of a batch's entry, and checks it.
fn read_body<R: ReadFolder>(folder: &R, batch: &HeldBatch) -> Result<Vec<u8>, ReadError> {
    let name = files::name(batch.place.segment);
    let length = batch.place.length as usize;
    let body = match folder.read_at(&name, batch.place.offset, length) {
        Ok(body) => body,
        Err(source) => return Err(ReadError::Io { name, source }),
    };
    let is_whole = body.len() == length && encoding::decode_head(&body).is_some_and(|head| head == batch.head);
    if is_whole { Ok(body) } else { Err(damaged(batch)) }
}

fn damaged(batch: &HeldBatch) -> ReadError {
    ReadError::Damaged { name: files::name(batch.place.segment), offset: batch.place.offset }
}
