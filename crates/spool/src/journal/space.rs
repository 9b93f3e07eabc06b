//! How much the spool may still take.
//!
//! Rules:
//!  - The files of all segments have `max_bytes` bytes at most, and leave `keep_free` bytes to other users of the file system.
//!  - A reserve of one segment is for control entries alone. Marks therefore fit a full spool, and free it.
//!  - Batches are copied forward where more than half of the bytes in use are settled.

use super::Journal;
use crate::core::frame::{self, BLOCK, FrameSequence};
use crate::core::ids::SegmentNumber;
use crate::core::recover::HeldBatch;
use crate::disk::Disk;

/// Most bytes of batches that a round copies to free the oldest segment, beside one batch.
pub(super) const COPIED_BYTES: u64 = 1 << 20;

impl<D: Disk> Journal<D> {
    /// Returns how many bytes of entries the next round may have. It walks the table: to be called once a round at most.
    #[must_use]
    pub fn room(&self) -> u64 {
        let beyond = self.bytes_beyond_reserve();
        let segments = beyond / self.settings.segment_bytes.max(1);
        let taken = if segments > 0 {
            (segments * self.settings.segment_bytes).saturating_sub(self.segment_overhead())
        } else {
            self.segments.rest().saturating_sub(self.reserve_deficit())
        };
        // A frame takes whole blocks. Its header and the control entries of the last frame are in it, too.
        let taken = taken / BLOCK * BLOCK;
        taken.saturating_sub(frame::FRAME_HEADER as u64 + self.encode_repeat().bytes.len() as u64)
    }

    /// Returns the bytes of the round that do not fit, or `None` where a round with `length` bytes of entries fits.
    pub(super) fn exceeding(&self, length: usize) -> Option<u64> {
        let span = frame::span(length);
        let (needed, room) = if self.segments.has_room(span) {
            (span, self.segments.rest().saturating_sub(self.reserve_deficit()))
        } else {
            let size = (span + self.segment_overhead()).max(self.settings.segment_bytes);
            (size, self.bytes_beyond_reserve())
        };
        (needed > room).then_some(needed)
    }

    /// The bytes before the first round of a segment.
    fn segment_overhead(&self) -> u64 {
        BLOCK + frame::span(self.checkpoint_len())
    }

    /// The bytes that files of further segments may have: those of the spare file, and those of files that may be created.
    fn bytes_for_files(&self) -> u64 {
        self.segments.spare_bytes().saturating_add(self.creatable_bytes())
    }

    /// The bytes that new files may have.
    pub(super) fn creatable_bytes(&self) -> u64 {
        let total = self.segments.used_bytes() + self.segments.spare_bytes();
        // A file system that does not answer refuses the file itself.
        let free = self.disk.free().unwrap_or(u64::MAX);
        self.settings.max_bytes.saturating_sub(total).min(free.saturating_sub(self.settings.keep_free))
    }

    fn bytes_beyond_reserve(&self) -> u64 {
        self.bytes_for_files().saturating_sub(self.settings.segment_bytes)
    }

    /// The bytes that the reserve lacks, and the current segment keeps for it.
    fn reserve_deficit(&self) -> u64 {
        match self.segments.spare_bytes() {
            spare if spare >= self.settings.segment_bytes => 0,
            _ => self.settings.segment_bytes.saturating_sub(self.bytes_for_files()),
        }
    }

    fn is_mostly_settled(&self) -> bool {
        self.held.all_bytes().saturating_mul(2) < self.segments.used_bytes()
    }

    /// The proved batches that an opening copies, so that the files do not grow with it: those of the oldest segment.
    pub(super) fn copied_at_opening(&self, proved: FrameSequence) -> Vec<HeldBatch> {
        let bytes = self.segments.used_bytes() + self.segments.spare_bytes() + self.settings.segment_bytes;
        let is_too_large = self.is_mostly_settled() || bytes > self.settings.max_bytes;
        let Some(oldest) = self.held.oldest_segment().filter(|_| is_too_large) else { return Vec::new() };
        // A file system that does not answer refuses the file itself. The opening must fit then without the copies.
        let free = self.disk.free().unwrap_or(u64::MAX).saturating_sub(self.settings.keep_free);
        let needed = self.settings.segment_bytes + 2 * self.held.bytes_of(oldest);
        if self.segments.len() <= self.settings.segments_kept || needed > free {
            return Vec::new();
        }
        let batches = self.held.some_of(oldest, u64::MAX).into_iter();
        batches.filter(|batch| batch.frame <= proved).collect()
    }

    /// The segment whose batches must be copied, so that it can be removed.
    pub(super) fn segment_to_copy(&self) -> Option<SegmentNumber> {
        if self.segments.len() <= self.settings.segments_kept || !self.is_mostly_settled() {
            return None;
        }
        let oldest = self.held.oldest_segment()?;
        (oldest < self.segments.current() && !self.unreadable.contains(&oldest)).then_some(oldest)
    }

    /// The largest frame that a round may have which copies batches of a segment. The round has `length` bytes without them.
    pub(super) fn copied_round_max(&self, segment: SegmentNumber, length: usize) -> u64 {
        let (beyond, rest) = (self.bytes_beyond_reserve(), self.segments.rest());
        if beyond >= self.settings.segment_bytes {
            return rest.max(beyond.saturating_sub(self.segment_overhead()));
        }
        // All batches of the segment must fit: the reserve would be used up before the segment is free.
        let copies = self.held.bytes_of(segment);
        let needed = frame::span(length) + copies + copies / 2 + 4 * BLOCK;
        let begun = self.settings.segment_bytes.saturating_sub(self.segment_overhead());
        match self.segments.has_room(frame::span(length)) {
            true if needed <= rest => rest,
            // The round begins a segment in any case.
            false if needed <= begun => begun,
            _ => 0,
        }
    }
}
