//! The segments in use.
//!
//! Rules:
//!  - A file that could not be written stays in order with the others, and is removed in its turn.
//!  - A new segment's header and first frames are one write. Its name is durable before its frames count.
//!  - A segment is removed once the removal of the one before is durable: the segments that a crash leaves have no gap.
//!  - A file is recycled once a durable checkpoint names a newer segment as the oldest one.
//!  - A recycled file keeps its bytes. The seed of the CRC keeps old frames from passing.

use std::collections::VecDeque;
use std::io;

use super::files;
use crate::core::frame::{BLOCK, FramePlace};
use crate::core::ids::{Life, SegmentNumber, SpoolId};
use crate::core::segment::SegmentHeader;
use crate::disk::Disk;

/// A segment that is being composed.
#[derive(Debug)]
pub(super) struct Draft {
    number: SegmentNumber,
    spool: SpoolId,
    pub(super) bytes: Vec<u8>,
}

impl Draft {
    /// Returns the place of the next frame.
    pub(super) fn place(&self) -> FramePlace {
        FramePlace { spool: self.spool, segment: self.number, offset: self.bytes.len() as u64 }
    }
}

/// The segment that takes the next frame.
#[derive(Debug)]
struct Current<F> {
    file: F,
    number: SegmentNumber,
    /// Where the next frame begins.
    offset: u64,
    size: u64,
}

/// The file of a former segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spare {
    /// The last durable checkpoint counts the segment as in use.
    Retired,
    /// The file can be recycled.
    Ready,
}

/// A segment whose file may exist.
#[derive(Clone, Copy, Debug)]
struct UsedSegment {
    number: SegmentNumber,
    /// Whether its checkpoint is durable.
    is_durable: bool,
    /// Whether the file can be recycled: writing never failed, and it has the common size.
    is_reusable: bool,
}

/// The segments in use, and a file to recycle.
#[derive(Debug)]
pub(super) struct Segments<F> {
    current: Option<Current<F>>,
    /// All segments whose file may exist, oldest first.
    used: VecDeque<UsedSegment>,
    next: SegmentNumber,
    /// The file of a former segment, if there is one.
    spare: Option<Spare>,
    /// Whether the last removal may not be durable.
    is_removing: bool,
}

impl<F> Segments<F> {
    pub(super) fn new(next: SegmentNumber) -> Self {
        Self { current: None, used: VecDeque::new(), next, spare: None, is_removing: false }
    }

    pub(super) fn len(&self) -> usize {
        self.used.len()
    }

    /// Returns the segment that takes the next frame.
    pub(super) fn current(&self) -> SegmentNumber {
        self.current.as_ref().map(|current| current.number).unwrap_or_default()
    }

    pub(super) fn has_room(&self, span: u64) -> bool {
        self.current.as_ref().is_some_and(|current| current.offset.saturating_add(span) <= current.size)
    }

    /// Returns the oldest segment in use.
    pub(super) fn oldest(&self) -> Option<SegmentNumber> {
        self.used.front().map(|used| used.number)
    }

    /// Returns the place of the next frame in the current segment.
    pub(super) fn place(&self, spool: SpoolId) -> FramePlace {
        let offset = self.current.as_ref().map_or(BLOCK, |current| current.offset);
        FramePlace { spool, segment: self.current(), offset }
    }

    /// Begins to compose a segment. Its number is used up.
    pub(super) fn draft(&mut self, spool: SpoolId, life: Life) -> Draft {
        let number = self.next;
        self.next = number.next();
        let mut bytes = Vec::new();
        SegmentHeader { spool, number, life }.encode(&mut bytes);
        Draft { number, spool, bytes }
    }

    /// Appends bytes to the current segment, and syncs it. After an error the file is not used again.
    pub(super) fn write<D: Disk<File = F>>(&mut self, disk: &D, bytes: &[u8]) -> io::Result<()> {
        let Some(current) = &mut self.current else { return Err(io::ErrorKind::NotFound.into()) };
        let written = disk.write_at(&current.file, current.offset, bytes).and_then(|()| disk.sync(&current.file));
        if written.is_err()
            && let Some(used) = self.used.back_mut()
        {
            used.is_reusable = false;
        }
        written?;
        current.offset += bytes.len() as u64;
        Ok(())
    }

    /// Makes a composed segment the current one.
    pub(super) fn begin<D: Disk<File = F>>(&mut self, disk: &D, draft: Draft, size: u64) -> io::Result<()> {
        let name = files::name(draft.number);
        let common_size = size;
        let size = size.max(draft.bytes.len() as u64);
        self.used.push_back(UsedSegment { number: draft.number, is_durable: false, is_reusable: false });
        let file = if self.spare == Some(Spare::Ready) {
            self.spare = None;
            disk.rename(files::SPARE, &name)?;
            disk.open(&name)?
        } else {
            disk.create(&name, size)?
        };
        disk.write_at(&file, 0, &draft.bytes)?;
        disk.sync(&file)?;
        disk.sync_folder()?;
        self.is_removing = false;
        self.spare = self.spare.map(|_| Spare::Ready);
        if let Some(used) = self.used.back_mut() {
            (used.is_durable, used.is_reusable) = (true, draft.bytes.len() as u64 <= common_size);
        }
        self.current = Some(Current { file, number: draft.number, offset: draft.bytes.len() as u64, size });
        Ok(())
    }

    /// Takes segments out of use that hold nothing unsettled. `oldest` is the oldest segment that does.
    pub(super) fn recycle<D: Disk<File = F>>(&mut self, disk: &D, oldest: Option<SegmentNumber>) {
        while let Some(used) = self.used.front().copied()
            && oldest.is_none_or(|oldest| used.number < oldest)
            && self.used.iter().skip(1).filter(|newer| newer.is_durable).count() >= 2
        {
            if self.is_removing && disk.sync_folder().is_err() {
                return;
            }
            let name = files::name(used.number);
            if used.is_reusable && self.spare.is_none() && disk.rename(&name, files::SPARE).is_ok() {
                self.spare = Some(Spare::Retired);
            } else if disk.remove(&name).is_err_and(|error| error.kind() != io::ErrorKind::NotFound) {
                return;
            }
            self.is_removing = true;
            self.used.pop_front();
        }
    }
}
