//! The entries of one frame, encoded.

use std::ops::Range;

use crate::core::encoding::{self, ENTRY_HEADER};
use crate::core::entry::{BatchHead, Entry};
use crate::core::frame::{FRAME_HEADER, FramePlace, FrameSequence};
use crate::core::recover::{BatchPlace, HeldBatch};

/// The entries of one frame, encoded, with the ranges of its batches.
#[derive(Debug, Default)]
pub(super) struct Round {
    pub(super) bytes: Vec<u8>,
    batches: Vec<(BatchHead, Range<usize>)>,
}

impl Round {
    pub(super) fn push(&mut self, entry: &Entry) {
        let body = self.bytes.len() + ENTRY_HEADER;
        entry.encode(&mut self.bytes);
        if let Entry::Batch(batch) = entry {
            self.batches.push((batch.head.clone(), body..self.bytes.len()));
        }
    }

    /// Appends a batch that was read from its file.
    pub(super) fn push_body(&mut self, head: BatchHead, body: &[u8]) {
        let start = self.bytes.len() + ENTRY_HEADER;
        encoding::encode_body(body, &mut self.bytes);
        self.batches.push((head, start..self.bytes.len()));
    }

    pub(super) fn has_batches(&self) -> bool {
        !self.batches.is_empty()
    }

    /// Returns the batches with their places, once the frame is written.
    pub(super) fn held(self, frame: WrittenFrame) -> impl Iterator<Item = HeldBatch> {
        self.batches.into_iter().map(move |(head, body)| {
            let offset = frame.place.offset + FRAME_HEADER as u64 + body.start as u64;
            let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
            let place = BatchPlace { segment: frame.place.segment, offset, length };
            HeldBatch { head, place, frame: frame.sequence }
        })
    }
}

/// Where a frame was written.
#[derive(Clone, Copy, Debug)]
pub(super) struct WrittenFrame {
    pub(super) place: FramePlace,
    pub(super) sequence: FrameSequence,
}
