//! Bases: the whole table of a spool, and the batches of one round at most, in one run of frames.
//!
//! Rule: a base has its checkpoint twice, and counts for the two newer checkpoints without which no segment is recycled.

use std::io;

use super::Journal;
use super::round::{Round, WrittenFrame};
use crate::core::entry::Base;
use crate::core::frame::{self, BLOCK, FrameKind, FrameSequence};
use crate::disk::Disk;

/// A frame of a base takes batches until it has this many bytes.
pub(super) const FRAME_BYTES: usize = 1 << 20;

impl<D: Disk> Journal<D> {
    /// Writes a base into a new segment: the table, and the batches of `rounds`. All other batches stay where they are.
    pub(super) fn write_base(&mut self, rounds: Vec<Round>) -> io::Result<()> {
        let first = self.next;
        let last = FrameSequence(first.0 + 1 + rounds.len() as u64);
        self.bases.push(Base { resumes: self.durable, first, last });
        let control = self.encode_checkpoint();
        let batches: u64 = rounds.iter().map(|round| frame::span(round.bytes.len())).sum();
        let size = BLOCK + 2 * frame::span(control.len()) + batches + frame::span(0);
        let mut draft = self.segments.draft(&self.disk, (self.spool, self.life), size)?;
        for _ in 0..2 {
            self.encode(draft.place(), FrameKind::Checkpoint, &control, &mut draft.bytes);
        }
        let mut written = Vec::new();
        for round in &rounds {
            let place = draft.place();
            let sequence = self.encode(place, FrameKind::Round, &round.bytes, &mut draft.bytes);
            written.push(WrittenFrame { place, sequence });
        }
        self.segments.begin(&self.disk, draft, 2)?;
        self.durable = last;
        self.repeat.clear();
        // A crash may have torn a base that no frame proves, and segments that it supersedes are removed.
        self.write_round(FrameKind::Proof, &[]).map_err(io::Error::from)?;
        self.is_proved = true;
        rounds.into_iter().zip(written).for_each(|(round, frame)| self.hold(round, frame));
        self.free_marked();
        Ok(())
    }
}
