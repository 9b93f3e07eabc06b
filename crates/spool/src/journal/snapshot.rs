//! The state of a spool that is read and not opened.
//!
//! Rules:
//!  - Reading creates, writes and locks nothing, and is no life of the spool.
//!  - Another process may write the spool meanwhile. It writes to the newest segment alone, so a read during which no segment
//!    began or ended has the state of one moment, apart from the last frames.
//!  - A read of the newest segment may miss a frame that is written meanwhile, and see the next one. It looks like damage.
//!    Damage therefore counts if two consecutive reads agree on it.

use std::io;

use super::files::{self, FolderState, ReadFailure};
use super::{OpenError, ReadError, read_body};
use crate::core::encoding;
use crate::core::entry::{JournalBatch, Ordinal, Partition};
use crate::core::frame::FrameSequence;
use crate::core::ids::SpoolId;
use crate::core::recover::{HeldBatch, Recovered};
use crate::core::table::Table;
use crate::disk::ReadFolder;

/// How often a spool is read until no other process has disturbed the read.
const ATTEMPTS: usize = 8;

/// Why a spool can't be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The folder holds no segment.
    #[error("the folder holds no spool")]
    NoSpool,
    /// A process began or removed segments during each read.
    #[error("a process writes the spool faster than it can be read")]
    Unsteady,
    /// The files can't be read.
    #[error(transparent)]
    Files(#[from] OpenError),
}

/// Durable frames that can't be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DamagedFrames {
    /// The first frame.
    pub first: FrameSequence,
    /// The last frame.
    pub last: FrameSequence,
    /// The file of the frame before, and the one of the frame behind.
    pub files: (String, String),
}

/// The state of a spool at one moment.
#[derive(Debug)]
pub struct Snapshot<R> {
    folder: R,
    spool: SpoolId,
    recovered: Recovered,
    segments: Vec<String>,
    file_bytes: u64,
    quarantined: Vec<String>,
}

impl<R: ReadFolder> Snapshot<R> {
    /// Reads the spool of a folder.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn read(folder: R) -> Result<Self, SnapshotError> {
        let mut former: Option<FolderState> = None;
        for _ in 0..ATTEMPTS {
            let before = segments(&folder)?;
            if before.is_empty() {
                return Err(SnapshotError::NoSpool);
            }
            check_rights(&folder, &before)?;
            let state = files::read(&folder, SpoolId([0; 16]), super::SEGMENT_BYTES, ReadFailure::IsNamed);
            if before != segments(&folder)? {
                former = None;
                continue;
            }
            let state = state?;
            if is_whole(&state) || former.is_some_and(|former| has_same_damage(&former, &state)) {
                return Self::of(folder, before, state);
            }
            former = Some(state);
        }
        Err(SnapshotError::Unsteady)
    }

    fn of(folder: R, segments: Vec<String>, state: FolderState) -> Result<Self, SnapshotError> {
        let FolderState { mut recovered, spool, old } = state;
        recovered.table.drop_replaced();
        let quarantined = names(&folder)?.into_iter().filter(|name| files::is_quarantined(name)).collect();
        let used: u64 = old.segments.iter().map(|segment| segment.size).sum();
        let file_bytes = used + old.spare.unwrap_or_default();
        Ok(Self { folder, spool, recovered, segments, file_bytes, quarantined })
    }

    /// Returns the folder.
    pub fn folder(&self) -> &R {
        &self.folder
    }

    /// Returns the spool's id.
    pub fn spool(&self) -> SpoolId {
        self.spool
    }

    /// Returns the state, apart from the batches.
    pub fn table(&self) -> &Table {
        &self.recovered.table
    }

    /// Returns the batches with unsettled records, by partition and ordinal.
    pub fn batches(&self) -> impl Iterator<Item = &HeldBatch> {
        self.recovered.batches.values()
    }

    /// Reads a batch from its file.
    ///
    /// # Errors
    /// [`ReadError`]. A process that writes the spool may have moved the batch.
    pub fn read_batch(&self, batch: &HeldBatch) -> Result<JournalBatch, ReadError> {
        let body = read_body(&self.folder, batch)?;
        encoding::decode_batch(&body).ok_or_else(|| super::damaged(batch))
    }

    /// Returns the records that are lost: each partition, the first ordinal, and the one after the last.
    pub fn lost(&self) -> impl Iterator<Item = (Partition, Ordinal, Ordinal)> {
        self.recovered.lost()
    }

    /// Returns the durable frames that can't be read.
    pub fn damage(&self) -> impl Iterator<Item = DamagedFrames> {
        self.recovered.damage.iter().map(|damage| DamagedFrames {
            first: damage.first,
            last: damage.last,
            files: (files::name(damage.after), files::name(damage.before)),
        })
    }

    /// Returns the names of segments that can't be read at all.
    pub fn unreadable(&self) -> &[String] {
        &self.recovered.unreadable
    }

    /// Returns the names of files that are kept because of damage.
    pub fn quarantined(&self) -> &[String] {
        &self.quarantined
    }

    /// Returns the number of segments.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Returns whether no process has opened the spool since the snapshot was read. Each opening begins a segment.
    ///
    /// # Errors
    /// [`OpenError`] if the folder can't be read.
    pub fn is_unopened(&self) -> Result<bool, OpenError> {
        Ok(segments(&self.folder)? == self.segments)
    }

    /// Returns the bytes of the files of all segments, the one for the next segment included.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }
}

fn names<R: ReadFolder>(folder: &R) -> Result<Vec<String>, OpenError> {
    folder.list().map_err(|source: io::Error| OpenError::Io { name: ".".to_owned(), source })
}

fn segments<R: ReadFolder>(folder: &R) -> Result<Vec<String>, OpenError> {
    let mut names = names(folder)?;
    names.retain(|name| files::number(name).is_some());
    names.sort_unstable();
    Ok(names)
}

/// Fails if this process may not read a segment. The segment would look damaged.
fn check_rights<R: ReadFolder>(folder: &R, names: &[String]) -> Result<(), OpenError> {
    for name in names {
        if let Err(source) = folder.read_at(name, 0, 1)
            && source.kind() == io::ErrorKind::PermissionDenied
        {
            return Err(OpenError::Unreadable { name: name.clone(), source });
        }
    }
    Ok(())
}

fn is_whole(state: &FolderState) -> bool {
    state.recovered.damage.is_empty() && state.recovered.unreadable.is_empty()
}

fn has_same_damage(one: &FolderState, other: &FolderState) -> bool {
    let (one, other) = (&one.recovered, &other.recovered);
    one.damage == other.damage && one.unreadable == other.unreadable && one.lost().eq(other.lost())
}
