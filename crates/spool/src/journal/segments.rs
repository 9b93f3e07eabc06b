//! The segments in use.
//!
//! Rules:
//!  - A file that could not be written stays in order with the others, and is removed in its turn.
//!  - A new segment's header and first frames are one write. Its name is durable before its frames count.
//!  - A segment is removed once the removal of the one before is durable: the segments that a crash leaves have no gap.
//!  - A file is recycled once its new name is durable. A crash otherwise leaves it under the name of its former segment, in
//!    part written again.
//!  - A recycled file keeps its bytes. The seed of the CRCs keeps old frames from passing.

use std::collections::VecDeque;
use std::io;

use super::files::{self, UsedSegment};
use crate::core::frame::{BLOCK, FramePlace};
use crate::core::ids::{Life, SegmentNumber, SpoolId};
use crate::core::segment::SegmentHeader;
use crate::disk::Disk;

/// A segment that is being composed, with its file.
#[derive(Debug)]
pub(super) struct Draft<F> {
    file: F,
    number: SegmentNumber,
    spool: SpoolId,
    size: u64,
    pub(super) bytes: Vec<u8>,
}

impl<F> Draft<F> {
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
    /// The offset of the next frame.
    offset: u64,
    size: u64,
}

/// A file for the next segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spare {
    size: u64,
    /// Whether its name is durable.
    is_ready: bool,
}

/// The segments in use, and a file for the next one.
#[derive(Debug)]
pub(super) struct Segments<F> {
    current: Option<Current<F>>,
    /// All segments whose file may exist, oldest first.
    used: VecDeque<UsedSegment>,
    /// The sizes of all used files.
    used_bytes: u64,
    next: SegmentNumber,
    spare: Option<Spare>,
    common_size: u64,
    /// Whether the last removal may not be durable.
    is_removing: bool,
    /// Files that are kept for inspection.
    quarantined: usize,
}

impl<F> Segments<F> {
    /// The segments of earlier lives. `spare` is the size of a file for the next segment that they left.
    pub(super) fn new(old: files::OldFiles, next: SegmentNumber, common_size: u64) -> Self {
        let used_bytes = old.segments.iter().map(|used| used.size).sum();
        Self {
            current: None,
            used: old.segments.into(),
            used_bytes,
            next,
            spare: old.spare.map(|size| Spare { size, is_ready: false }),
            common_size,
            is_removing: true,
            quarantined: old.quarantined,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.used.len()
    }

    /// Returns the bytes of the files of all segments.
    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// Returns the bytes of the file for the next segment.
    pub(super) fn spare_bytes(&self) -> u64 {
        self.spare.map_or(0, |spare| spare.size)
    }

    pub(super) fn quarantined(&self) -> usize {
        self.quarantined
    }

    /// Returns the segment that takes the next frame.
    pub(super) fn current(&self) -> SegmentNumber {
        self.current.as_ref().map(|current| current.number).unwrap_or_default()
    }

    /// Returns the bytes that the current segment can still take.
    pub(super) fn rest(&self) -> u64 {
        self.current.as_ref().map_or(0, |current| current.size.saturating_sub(current.offset))
    }

    pub(super) fn has_room(&self, span: u64) -> bool {
        self.current.is_some() && span <= self.rest()
    }

    /// Returns the place of the next frame in the current segment.
    pub(super) fn place(&self, spool: SpoolId) -> FramePlace {
        let offset = self.current.as_ref().map_or(BLOCK, |current| current.offset);
        FramePlace { spool, segment: self.current(), offset }
    }

    fn push_used(&mut self, number: SegmentNumber, size: u64) {
        self.used_bytes += size;
        let (checkpoints, is_reusable, is_damaged) = (0, false, false);
        self.used.push_back(UsedSegment { number, size, checkpoints, is_reusable, is_damaged });
    }

    fn used_mut(&mut self, number: SegmentNumber) -> Option<&mut UsedSegment> {
        self.used.iter_mut().rev().find(|used| used.number == number)
    }

    /// Obtains a file of at least `size` bytes for the next segment, and begins to compose the segment. After an error the
    /// current segment is as before.
    pub(super) fn draft<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        (spool, life): (SpoolId, Life),
        size: u64,
    ) -> io::Result<Draft<F>> {
        let number = self.next;
        self.next = number.next();
        let name = files::name(number);
        let size = size.max(self.common_size);
        let (file, size) = match self.spare.filter(|spare| spare.size >= size) {
            Some(spare) if self.make_ready(disk).is_ok() => {
                disk.rename(files::SPARE, &name)?;
                self.spare = None;
                self.push_used(number, spare.size);
                (disk.open(&name)?, spare.size)
            }
            _ => {
                let file = disk.create(&name, size).inspect_err(|_| self.remove_part(disk, number, size))?;
                self.push_used(number, size);
                (file, size)
            }
        };
        let mut bytes = Vec::new();
        SegmentHeader { spool, number, life }.encode(&mut bytes);
        Ok(Draft { file, number, spool, size, bytes })
    }

    /// Removes a part of a file, which takes room. If it stays, it is removed in its turn.
    fn remove_part<D: Disk<File = F>>(&mut self, disk: &D, number: SegmentNumber, size: u64) {
        if disk.remove(&files::name(number)).is_err_and(|error| error.kind() != io::ErrorKind::NotFound) {
            self.push_used(number, size);
        }
    }

    /// Makes the name of the spare file durable.
    fn make_ready<D: Disk<File = F>>(&mut self, disk: &D) -> io::Result<()> {
        if self.spare.is_some_and(|spare| !spare.is_ready) {
            disk.sync_folder()?;
            self.names_are_durable();
        }
        Ok(())
    }

    fn names_are_durable(&mut self) {
        self.is_removing = false;
        self.spare = self.spare.map(|spare| Spare { is_ready: true, ..spare });
    }

    /// Creates the file for the next segment if there is none, and makes its name durable. `may_create` allows a new file.
    pub(super) fn prepare<D: Disk<File = F>>(&mut self, disk: &D, may_create: bool) -> io::Result<()> {
        if self.spare.is_none() && may_create {
            let size = self.common_size;
            let created = match disk.create(files::SPARE, size) {
                // A part of a file that could not be removed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    disk.remove(files::SPARE).and_then(|()| disk.create(files::SPARE, size))
                }
                created => created,
            };
            if let Err(error) = created {
                // The next attempt removes a part that stays.
                let _ = disk.remove(files::SPARE);
                return Err(error);
            }
            self.spare = Some(Spare { size, is_ready: false });
        }
        self.make_ready(disk)
    }

    /// Appends bytes to the current segment, and syncs it. After an error the file is not used again.
    pub(super) fn write<D: Disk<File = F>>(&mut self, disk: &D, bytes: &[u8]) -> io::Result<()> {
        let Some(current) = &mut self.current else { return Err(io::ErrorKind::NotFound.into()) };
        let written = disk.write_at(&current.file, current.offset, bytes).and_then(|()| disk.sync(&current.file));
        if written.is_err() {
            let number = current.number;
            if let Some(used) = self.used_mut(number) {
                used.is_reusable = false;
            }
        } else {
            current.offset += bytes.len() as u64;
        }
        written
    }

    /// Makes a composed segment with `checkpoints` checkpoints the current one.
    pub(super) fn begin<D: Disk<File = F>>(&mut self, disk: &D, draft: Draft<F>, checkpoints: u8) -> io::Result<()> {
        disk.write_at(&draft.file, 0, &draft.bytes)?;
        disk.sync(&draft.file)?;
        disk.sync_folder()?;
        self.names_are_durable();
        let is_reusable = draft.size == self.common_size;
        if let Some(used) = self.used_mut(draft.number) {
            (used.checkpoints, used.is_reusable) = (checkpoints, is_reusable);
        }
        let (file, number, offset, size) = (draft.file, draft.number, draft.bytes.len() as u64, draft.size);
        self.current = Some(Current { file, number, offset, size });
        Ok(())
    }

    /// Takes segments out of use that hold nothing unsettled. `oldest` is the oldest segment that does.
    pub(super) fn recycle<D: Disk<File = F>>(&mut self, disk: &D, oldest: Option<SegmentNumber>) {
        while let Some(used) = self.used.front().copied()
            && oldest.is_none_or(|oldest| used.number < oldest)
            && self.used.iter().skip(1).map(|newer| u32::from(newer.checkpoints)).sum::<u32>() >= 2
        {
            if self.is_removing {
                if disk.sync_folder().is_err() {
                    return;
                }
                self.names_are_durable();
            }
            if self.retire(disk, used).is_err_and(|error| error.kind() != io::ErrorKind::NotFound) {
                return;
            }
            self.is_removing = true;
            self.used_bytes = self.used_bytes.saturating_sub(used.size);
            self.used.pop_front();
        }
    }

    /// Recycles, keeps or removes the file of a segment.
    fn retire<D: Disk<File = F>>(&mut self, disk: &D, used: UsedSegment) -> io::Result<()> {
        let name = files::name(used.number);
        if used.is_damaged {
            disk.rename(&name, &files::quarantined(&name))?;
            self.quarantined += 1;
        } else if used.is_reusable && self.spare.is_none() && disk.rename(&name, files::SPARE).is_ok() {
            self.spare = Some(Spare { size: used.size, is_ready: false });
        } else {
            disk.remove(&name)?;
        }
        Ok(())
    }
}
