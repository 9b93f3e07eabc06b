//! Rounds: composing, writing, and the new segment that follows a failure.

use std::io;

use super::round::{Round, WrittenFrame};
use super::space::COPIED_BYTES;
use super::{CommitError, Committed, Journal, ROUND_BYTES_MAX};
use crate::core::encoding::{self, ENTRY_HEADER};
use crate::core::entry::Entry;
use crate::core::frame::{self, BLOCK, Frame, FrameKind, FramePlace, FrameSequence};
use crate::disk::Disk;

/// Why a frame is not durable.
#[derive(Debug)]
pub(super) enum WriteError {
    /// There is no file for a new segment. Nothing was written.
    NoFile(io::Error, u64),
    /// The frame may be in the file, in part or whole.
    Failed(io::Error),
}

impl From<WriteError> for io::Error {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::NoFile(error, _) | WriteError::Failed(error) => error,
        }
    }
}

impl<D: Disk> Journal<D> {
    /// Writes the entries as one round, and returns once they are durable.
    ///
    /// # Errors
    /// [`CommitError`]. After [`CommitError::Failed`] the round may be durable all the same, and the next opening says so.
    /// After all other errors nothing was written.
    pub fn commit(&mut self, entries: Vec<Entry>) -> Result<Committed, CommitError> {
        if self.is_latched {
            return Err(CommitError::Latched);
        }
        if entries.iter().any(|entry| matches!(entry, Entry::Batch(batch) if batch.head.count == 0)) {
            return Err(CommitError::EmptyBatch);
        }
        let mut round = self.encode_repeat();
        entries.iter().for_each(|entry| round.push(entry));
        if round.bytes.len() > ROUND_BYTES_MAX {
            return Err(CommitError::TooLarge { bytes: round.bytes.len() });
        }
        if round.has_batches()
            && let Some(needed) = self.exceeding(round.bytes.len())
        {
            return Err(CommitError::Full { needed });
        }
        self.push_copies(&mut round);
        self.write_entries(FrameKind::Round, entries, round)
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
        if !self.is_proved {
            let round = self.encode_repeat();
            self.write_entries(FrameKind::Proof, Vec::new(), round)?;
            self.is_proved = true;
        }
        Ok(())
    }

    /// Copies batches out of a segment that is mostly settled, and creates the file for the next segment. A round then waits
    /// for neither. To be called while the journal is idle, and after [`CommitError::Full`].
    ///
    /// # Errors
    /// [`CommitError`].
    pub fn prepare(&mut self) -> Result<(), CommitError> {
        if self.is_latched {
            return Err(CommitError::Latched);
        }
        if self.segment_to_copy().is_some() {
            let mut round = self.encode_repeat();
            if self.push_copies(&mut round) {
                self.write_entries(FrameKind::Round, Vec::new(), round)?;
            }
        }
        let size = self.settings.segment_bytes;
        let may_create = self.creatable_bytes() >= size;
        self.segments.prepare(&self.disk, may_create).map_err(|error| no_file(error, size))
    }

    pub(super) fn encode_repeat(&self) -> Round {
        let mut round = Round::default();
        self.repeat.iter().for_each(|entry| round.push(entry));
        round
    }

    /// The entries of a checkpoint.
    pub(super) fn encode_checkpoint(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.bases.iter().for_each(|base| Entry::Base(*base).encode(&mut bytes));
        self.table.checkpoint().iter().for_each(|entry| entry.encode(&mut bytes));
        bytes
    }

    /// Returns the length of a checkpoint. The keys, which are many, are not encoded.
    pub(super) fn checkpoint_len(&self) -> usize {
        let mut bytes = Vec::new();
        self.bases.iter().for_each(|base| Entry::Base(*base).encode(&mut bytes));
        self.table.checkpoint_without_keys().iter().for_each(|entry| entry.encode(&mut bytes));
        bytes.len() + encoding::keys_len(self.table.keys.len())
    }

    /// Appends batches of the segment that must be copied. Returns whether there are any.
    fn push_copies(&mut self, round: &mut Round) -> bool {
        let Some(segment) = self.segment_to_copy() else { return false };
        let most = self.copied_round_max(segment, round.bytes.len());
        let mut has_copies = false;
        for batch in self.held.some_of(segment, COPIED_BYTES) {
            let length = round.bytes.len() + ENTRY_HEADER + batch.place.length as usize;
            if frame::span(length) > most {
                break;
            }
            if batch.head.end() <= self.settled(batch.head.partition) {
                continue;
            }
            let Ok(body) = self.read_body(&batch) else {
                self.unreadable.insert(segment);
                return has_copies;
            };
            self.copied += body.len() as u64;
            round.push_body(batch.head, &body);
            has_copies = true;
        }
        has_copies
    }

    /// Writes a frame, and enters it.
    fn write_entries(&mut self, kind: FrameKind, entries: Vec<Entry>, round: Round) -> Result<Committed, CommitError> {
        match self.write_round(kind, &round.bytes) {
            Ok(frame) => self.enter(entries, round, frame),
            Err(WriteError::NoFile(error, size)) => return Err(no_file(error, size)),
            Err(WriteError::Failed(error)) => self.fail_over(&entries, error)?,
        }
        self.recycle();
        Ok(Committed { frame: self.durable })
    }

    /// Writes one frame, in a new segment where the current one has no room.
    pub(super) fn write_round(&mut self, kind: FrameKind, entries: &[u8]) -> Result<WrittenFrame, WriteError> {
        if !self.segments.has_room(frame::span(entries.len())) {
            return self.begin_segment(kind, entries);
        }
        let mut bytes = Vec::new();
        let place = self.segments.place(self.spool);
        let sequence = self.encode(place, kind, entries, &mut bytes);
        self.segments.write(&self.disk, &bytes).map_err(WriteError::Failed)?;
        self.durable = sequence;
        Ok(WrittenFrame { place, sequence })
    }

    /// Appends a frame with the next number to `out`.
    pub(super) fn encode(
        &mut self,
        place: FramePlace,
        kind: FrameKind,
        entries: &[u8],
        out: &mut Vec<u8>,
    ) -> FrameSequence {
        let sequence = self.next;
        self.next = sequence.next();
        frame::encode(place, &Frame { kind, sequence, synced_through: self.durable, entries }, out);
        sequence
    }

    /// Writes a frame into a new segment, behind a checkpoint.
    fn begin_segment(&mut self, kind: FrameKind, entries: &[u8]) -> Result<WrittenFrame, WriteError> {
        let control = self.encode_checkpoint();
        let size = BLOCK + frame::span(control.len()) + frame::span(entries.len());
        let draft = self.segments.draft(&self.disk, (self.spool, self.life), size);
        let mut draft = draft.map_err(|error| WriteError::NoFile(error, size))?;
        self.encode(draft.place(), FrameKind::Checkpoint, &control, &mut draft.bytes);
        let place = draft.place();
        let sequence = self.encode(place, kind, entries, &mut draft.bytes);
        self.segments.begin(&self.disk, draft, 1).map_err(WriteError::Failed)?;
        self.durable = sequence;
        // The next copies try again: a read may fail once.
        self.unreadable.clear();
        Ok(WrittenFrame { place, sequence })
    }

    /// Enters a durable round.
    fn enter(&mut self, entries: Vec<Entry>, round: Round, frame: WrittenFrame) {
        self.free_marked();
        self.apply(&entries);
        self.hold(round, frame);
        self.repeat = entries.into_iter().filter_map(repeated).collect();
        self.is_proved = false;
    }

    fn apply(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.table.apply(entry);
            if let Entry::Mark { partition, .. } = entry {
                self.marked.push(*partition);
            }
        }
    }

    /// Drops the batches that the marks of the frame before the last one settle.
    pub(super) fn free_marked(&mut self) {
        for partition in std::mem::take(&mut self.marked) {
            self.held.drop_settled(partition, self.settled(partition));
        }
    }

    /// Enters the places of a durable round's batches.
    pub(super) fn hold(&mut self, round: Round, frame: WrittenFrame) {
        for batch in round.held(frame) {
            if batch.head.end() > self.settled(batch.head.partition) {
                self.held.insert(batch);
            }
        }
    }

    /// Writes the table and the round into a new segment: the current one's file failed.
    fn fail_over(&mut self, entries: &[Entry], error: io::Error) -> Result<(), CommitError> {
        let before = self.table.clone();
        self.apply(entries);
        let mut round = Round::default();
        entries.iter().filter(|entry| matches!(entry, Entry::Batch(_))).for_each(|entry| round.push(entry));
        let rounds = if round.has_batches() { vec![round] } else { Vec::new() };
        if self.write_base(rounds).is_err() {
            (self.table, self.is_latched) = (before, true);
            return Err(CommitError::Failed(error));
        }
        Ok(())
    }

    pub(super) fn recycle(&mut self) {
        self.segments.recycle(&self.disk, self.held.oldest_segment());
    }
}

/// Returns the error of a round for which there is no new segment.
fn no_file(error: io::Error, needed: u64) -> CommitError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => CommitError::Full { needed },
        _ => CommitError::NoSegment(error),
    }
}

/// Returns the part of an entry that the next frame repeats. It repeats the numbers of records, so that recovery names lost
/// ones.
fn repeated(entry: Entry) -> Option<Entry> {
    match entry {
        Entry::Batch(batch) => Some(Entry::End { partition: batch.head.partition, end: batch.head.end() }),
        control => Some(control),
    }
}
