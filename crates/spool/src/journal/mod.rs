//! The journal: opens a spool, commits rounds, recycles segments.
//!
//! Rules:
//!  - A round is durable once [`Journal::commit`] returns. A round whose commit failed may be durable as well.
//!  - An opening copies everything that counts into a new segment, and syncs it, before anything else. Bytes that only the
//!    page cache holds are therefore never relied on.
//!  - A file whose write or sync failed is never written again. The journal writes its whole state into a new segment.
//!    If that fails too, the journal is latched and commits nothing more.
//!  - Control entries, and the numbers of records, are in two frames: one damaged frame loses records at most, by name.
//!    Records that a mark settles pin their segment until the mark is in two frames, too.
//!  - A base is proved durable before anything that it supersedes is removed.
//!  - A segment is recycled, oldest first, once it holds no unsettled record and two newer checkpoints are durable.

mod base;
mod files;
mod held;
mod segments;

use std::io;

use crate::core::entry::{Entry, Ordinal, Partition, Piece};
use crate::core::frame::{self, Frame, FrameKind, FramePlace, FrameSequence};
use crate::core::ids::{Life, SegmentNumber, SpoolId};
use crate::core::recover::{Damage, RecoverError, Recovered};
use crate::core::segment::HeaderError;
use crate::core::table::Table;
use crate::disk::Disk;

use held::HeldPieces;
use segments::Segments;

/// The largest round, in bytes.
pub const ROUND_BYTES_MAX: usize = 1 << 28;
/// Most bytes of records that a round copies to free the oldest segment, beside one run.
const COPIED_BYTES: usize = 1 << 20;

/// Settings of a journal.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The size of a segment, in bytes. A larger round makes its segment grow.
    pub segment_bytes: u64,
    /// How many segments may hold unsettled records. The oldest segment's records are copied to the newest beyond
    /// this number.
    pub segments_max: usize,
    /// The id of the spool, where the folder holds none yet. Must be random.
    pub new_spool: SpoolId,
}

/// A durable round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The frame that holds it.
    pub frame: FrameSequence,
}

/// Why a spool can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file operation failed.
    #[error("{name}: {source}")]
    Io {
        /// The file, or `.` for the folder.
        name: String,
        /// The system's error.
        source: io::Error,
    },
    /// A file has a header that this version can't read.
    #[error("{name}: {source}")]
    Header {
        /// The file.
        name: String,
        /// Why.
        source: HeaderError,
    },
    /// A later version wrote an entry of a frame.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// The folder holds files of two spools.
    #[error("{name} belongs to another spool than the other files of the folder: move it away")]
    OtherSpool {
        /// The file.
        name: String,
    },
}

/// Why a round is not durable.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Writing failed, and a new segment could not be written either. The round may be durable. Nothing more is committed
    /// until the spool is opened again.
    #[error("the journal can't be written: {0}")]
    Failed(io::Error),
    /// The round is too large. Nothing was written.
    #[error("a round of {bytes} bytes is over the limit of {ROUND_BYTES_MAX}: commit fewer records at a time")]
    TooLarge {
        /// The size of the round.
        bytes: usize,
    },
    /// A run of records is empty. Nothing was written.
    #[error("a run of no records")]
    EmptyPiece,
    /// An earlier round failed.
    #[error("the journal could not be written before, and is closed to further rounds")]
    Latched,
}

/// An open spool. Belongs to one thread.
#[derive(Debug)]
pub struct Journal<D: Disk> {
    disk: D,
    settings: Settings,
    spool: SpoolId,
    life: Life,
    table: Table,
    held: HeldPieces,
    segments: Segments<D::File>,
    /// The number for the next frame.
    next: FrameSequence,
    /// The last frame that is durable.
    durable: FrameSequence,
    /// The control entries of the last frame, which the next one repeats.
    repeat: Vec<Entry>,
    /// The partitions of the last frame's marks: the next frame repeats them, and frees their records.
    marked: Vec<Partition>,
    /// Whether a durable frame names the last round as durable.
    is_proved: bool,
    is_latched: bool,
}

impl<D: Disk> Journal<D> {
    /// Opens the spool of a folder, or creates one. Returns the journal, and the state of the files: damage and lost records
    /// are reported there, once.
    ///
    /// # Errors
    /// [`OpenError`]. No file is then changed, apart from a new segment that may be incomplete.
    pub fn open(disk: D, settings: Settings) -> Result<(Self, Recovered), OpenError> {
        let (recovered, spool, old) = files::read(&disk, settings.new_spool)?;
        let mut journal = Self {
            disk,
            settings,
            spool,
            life: Life(recovered.last_life.0.saturating_add(1)),
            table: recovered.table.clone(),
            held: HeldPieces::default(),
            segments: Segments::new(recovered.next_segment),
            next: recovered.next_frame,
            durable: recovered.resumes,
            repeat: Vec::new(),
            marked: Vec::new(),
            is_proved: true,
            is_latched: false,
        };
        let pieces: Vec<Piece> = recovered.pieces.values().cloned().collect();
        journal.write_base(recovered.proved, &pieces).map_err(|source| OpenError::Io { name: ".".into(), source })?;
        journal.clear_away(old, &recovered.damage);
        Ok((journal, recovered))
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

    /// Returns the durable state, apart from the records.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Returns the durable unsettled records, by partition and ordinal.
    pub fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.held.iter().filter(|piece| piece.end() > self.settled(piece.partition))
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

    /// Writes the entries as one round, and returns once they are durable.
    ///
    /// # Errors
    /// [`CommitError`]. The round may be durable all the same, and the next opening says so.
    pub fn commit(&mut self, entries: Vec<Entry>) -> Result<Committed, CommitError> {
        if self.is_latched {
            return Err(CommitError::Latched);
        }
        if entries.iter().any(|entry| matches!(entry, Entry::Piece(piece) if piece.count == 0)) {
            return Err(CommitError::EmptyPiece);
        }
        let copies = self.oldest_pieces();
        let mut bytes = self.encode_repeat();
        entries.iter().for_each(|entry| entry.encode(&mut bytes));
        if bytes.len() > ROUND_BYTES_MAX {
            return Err(CommitError::TooLarge { bytes: bytes.len() });
        }
        copies.iter().for_each(|piece| Entry::Piece(piece.clone()).encode(&mut bytes));
        match self.write_round(FrameKind::Round, &bytes) {
            Ok(()) => self.take_in(entries, copies),
            Err(error) => self.fail_over(entries, error)?,
        }
        self.recycle();
        Ok(Committed { frame: self.durable })
    }

    /// Writes a frame that names the last round as durable, if no later frame does. Damage to the last round then differs
    /// from the unsynced tail of a crash. To be called once the journal is idle.
    ///
    /// # Errors
    /// [`CommitError`].
    pub fn prove(&mut self) -> Result<(), CommitError> {
        if self.is_latched {
            return Err(CommitError::Latched);
        }
        if self.is_proved {
            return Ok(());
        }
        match self.write_round(FrameKind::Proof, &self.encode_repeat()) {
            Ok(()) => {
                self.is_proved = true;
                self.free_marked();
                self.recycle();
            }
            Err(error) => self.fail_over(Vec::new(), error)?,
        }
        Ok(())
    }

    fn encode_repeat(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.repeat.iter().for_each(|entry| entry.encode(&mut bytes));
        bytes
    }

    /// Writes one frame, in a new segment where the current one has no room.
    fn write_round(&mut self, kind: FrameKind, entries: &[u8]) -> io::Result<()> {
        if !self.segments.has_room(frame::span(entries.len())) {
            return self.begin_segment(kind, entries);
        }
        let mut bytes = Vec::new();
        let place = self.segments.place(self.spool);
        let sequence = self.encode(place, kind, entries, &mut bytes);
        self.segments.write(&self.disk, &bytes)?;
        self.durable = sequence;
        Ok(())
    }

    /// Appends a frame with the next number to `out`.
    fn encode(&mut self, place: FramePlace, kind: FrameKind, entries: &[u8], out: &mut Vec<u8>) -> FrameSequence {
        let sequence = self.next;
        self.next = sequence.next();
        frame::encode(place, &Frame { kind, sequence, synced_through: self.durable, entries }, out);
        sequence
    }

    /// Writes a frame into a new segment, behind a checkpoint.
    fn begin_segment(&mut self, kind: FrameKind, entries: &[u8]) -> io::Result<()> {
        let mut control = Vec::new();
        self.segments.oldest().map(Entry::Oldest).iter().for_each(|entry| entry.encode(&mut control));
        self.table.checkpoint().iter().for_each(|entry| entry.encode(&mut control));
        let mut draft = self.segments.draft(self.spool, self.life);
        self.encode(draft.place(), FrameKind::Checkpoint, &control, &mut draft.bytes);
        let sequence = self.encode(draft.place(), kind, entries, &mut draft.bytes);
        self.segments.begin(&self.disk, draft, self.settings.segment_bytes)?;
        self.durable = sequence;
        Ok(())
    }

    /// Enters a durable round.
    fn take_in(&mut self, entries: Vec<Entry>, copies: Vec<Piece>) {
        self.free_marked();
        let segment = self.segments.current();
        for piece in copies {
            self.hold(piece, segment);
        }
        for entry in &entries {
            self.table.apply(entry);
            match entry {
                Entry::Piece(piece) => self.hold(piece.clone(), segment),
                Entry::Mark { partition, .. } => self.marked.push(*partition),
                _ => {}
            }
        }
        self.repeat = entries.into_iter().filter_map(repeated).collect();
        self.is_proved = false;
    }

    /// Drops the records that the marks of the frame before the last one settle.
    fn free_marked(&mut self) {
        for partition in std::mem::take(&mut self.marked) {
            self.held.drop_settled(partition, self.settled(partition));
        }
    }

    fn hold(&mut self, piece: Piece, segment: SegmentNumber) {
        if piece.end() > self.settled(piece.partition) {
            self.held.insert(piece, segment);
        }
    }

    /// Writes everything that counts, and the round, into a new segment: the current one's file failed.
    fn fail_over(&mut self, entries: Vec<Entry>, error: io::Error) -> Result<(), CommitError> {
        let (durable, before) = (self.durable, self.table.clone());
        entries.iter().for_each(|entry| self.table.apply(entry));
        let new = entries.iter().filter_map(|entry| match entry {
            Entry::Piece(piece) => Some(piece.clone()),
            _ => None,
        });
        let pieces: Vec<Piece> = self.pieces().cloned().chain(new).collect();
        if self.write_base(durable, &pieces).is_err() {
            (self.table, self.is_latched) = (before, true);
            return Err(CommitError::Failed(error));
        }
        Ok(())
    }

    /// The records that pin the oldest segment, where too many segments are in use.
    fn oldest_pieces(&self) -> Vec<Piece> {
        if self.segments.len() <= self.settings.segments_max {
            return Vec::new();
        }
        let oldest = self.held.oldest_segment().filter(|oldest| *oldest != self.segments.current());
        oldest.map_or_else(Vec::new, |oldest| self.held.some_of(oldest, COPIED_BYTES))
    }

    fn recycle(&mut self) {
        self.segments.recycle(&self.disk, self.held.oldest_segment());
    }

    /// Removes the files that a base supersedes. Damaged ones are kept under another name.
    fn clear_away(&mut self, old: Vec<files::OldFile>, damage: &[Damage]) {
        for file in old {
            let is_near = |number| damage.iter().any(|damage| damage.after <= number && number <= damage.before);
            let is_damaged = file.is_unreadable || file.number.is_some_and(is_near);
            // A file that stays is read again at the next opening, and superseded again.
            let _ = match is_damaged {
                true => self.disk.rename(&file.name, &files::quarantined(&file.name)),
                false => self.disk.remove(&file.name),
            };
        }
    }
}

/// Returns the part of an entry that the next frame repeats. It repeats the numbers of records, so that recovery names lost
/// ones.
fn repeated(entry: Entry) -> Option<Entry> {
    match entry {
        Entry::Piece(piece) => Some(Entry::End { partition: piece.partition, end: piece.end() }),
        control => Some(control),
    }
}
