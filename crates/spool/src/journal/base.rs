//! Bases: the whole state of a spool in one run of frames.
//!
//! Rule: a base has its checkpoint twice. Later segments are recycled once two newer checkpoints are durable, and a
//! base supersedes all earlier segments by itself.

use std::io;

use super::Journal;
use crate::core::entry::{Base, Entry, Piece};
use crate::core::frame::{FrameKind, FrameSequence};
use crate::disk::Disk;

/// A frame of a base takes pieces until it has this many bytes.
const FRAME_BYTES: usize = 1 << 20;

impl<D: Disk> Journal<D> {
    /// Writes a base into a new segment: the table and the pieces. `proved` is the last frame that is known to be durable
    /// where it was written.
    pub(super) fn write_base(&mut self, proved: FrameSequence, pieces: &[Piece]) -> io::Result<()> {
        let mut rounds: Vec<Vec<u8>> = Vec::new();
        for piece in pieces {
            if rounds.last().is_none_or(|round| round.len() >= FRAME_BYTES) {
                rounds.push(Vec::new());
            }
            if let Some(round) = rounds.last_mut() {
                Entry::Piece(piece.clone()).encode(round);
            }
        }
        let first = self.next;
        let last = FrameSequence(first.0 + 1 + rounds.len() as u64);
        let base = Entry::Base(Base { resumes: self.durable, first, last });
        let mut draft = self.segments.draft(self.spool, self.life);
        let mut control = Vec::new();
        base.encode(&mut control);
        self.table.checkpoint().iter().for_each(|entry| entry.encode(&mut control));

        let resumes = std::mem::replace(&mut self.durable, proved);
        for _ in 0..2 {
            self.encode(draft.place(), FrameKind::Checkpoint, &control, &mut draft.bytes);
        }
        for round in &rounds {
            self.encode(draft.place(), FrameKind::Round, round, &mut draft.bytes);
        }
        if let Err(error) = self.segments.begin(&self.disk, draft, self.settings.segment_bytes) {
            self.durable = resumes;
            return Err(error);
        }
        self.durable = last;
        self.repeat.clear();
        self.marked.clear();
        self.held.clear();
        let segment = self.segments.current();
        pieces.iter().for_each(|piece| self.hold(piece.clone(), segment));
        // A crash may have torn a base that no frame proves, and its predecessors are removed.
        self.write_round(FrameKind::Proof, &[])?;
        self.is_proved = true;
        Ok(())
    }
}
