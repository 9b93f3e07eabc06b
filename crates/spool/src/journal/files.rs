//! The files of a spool's folder.
//!
//! | Name | Contents |
//! |---|---|
//! | `journal-` and 16 hex digits | a segment |
//! | `spare` | a file for the next segment: zeros, or a former segment |
//! | `damaged-` and 16 hex digits | a segment with damage, kept for inspection |
//!
//! Rules:
//!  - A segment counts if its name and its header agree. A file that is being recycled has the one before the other.
//!  - An opening is refused if the system returns an error for a file. It may be able to read the file later, and an opening
//!    names what it can't read as lost. Only bytes that were read and are wrong are damage.
//!  - A segment that was moved away is damage. Its numbers are not used again.
//!  - Memory holds the bytes of one segment at a time.

use std::io;

use super::OpenError;
use crate::core::frame::{BLOCK, FrameSequence};
use crate::core::ids::{Life, SegmentNumber, SpoolId};
use crate::core::recover::{Damage, Recovered, Recovery};
use crate::core::segment::{HeaderError, SegmentHeader};
use crate::disk::ReadFolder;

/// The name of the file for the next segment.
pub(super) const SPARE: &str = "spare";
const SEGMENT: &str = "journal-";
const DAMAGED: &str = "damaged-";
/// More frames than any segment has.
const FRAMES_MAX: u64 = 1 << 32;

/// A segment whose file may exist.
#[derive(Clone, Copy, Debug)]
pub(super) struct UsedSegment {
    pub(super) number: SegmentNumber,
    pub(super) size: u64,
    /// How many durable checkpoints it has.
    pub(super) checkpoints: u8,
    /// Whether the file can be recycled: writing never failed, and it has the common size.
    pub(super) is_reusable: bool,
    /// Whether the file is kept for inspection.
    pub(super) is_damaged: bool,
}

/// The files of earlier lives.
#[derive(Debug, Default)]
pub(super) struct OldFiles {
    /// The segments, oldest first.
    pub(super) segments: Vec<UsedSegment>,
    /// The size of the spare file, if it can be used.
    pub(super) spare: Option<u64>,
    /// Whether there is a spare file that can't be used.
    pub(super) has_useless_spare: bool,
    /// Files that are kept for inspection.
    pub(super) quarantined: usize,
}

/// A folder that was read.
#[derive(Debug)]
pub(super) struct FolderState {
    pub(super) recovered: Recovered,
    pub(super) spool: SpoolId,
    pub(super) old: OldFiles,
}

/// Returns a segment's file name.
pub(super) fn name(number: SegmentNumber) -> String {
    format!("{SEGMENT}{:016x}", number.0)
}

/// Returns the name under which a damaged segment is kept.
pub(super) fn quarantined(name: &str) -> String {
    name.replacen(SEGMENT, DAMAGED, 1)
}

/// Returns whether a name is that of a segment that is kept for inspection.
pub(super) fn is_quarantined(name: &str) -> bool {
    name.starts_with(DAMAGED)
}

/// Returns the number of the segment with this file name.
pub(super) fn number(name: &str) -> Option<SegmentNumber> {
    let digits = name.strip_prefix(SEGMENT).filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok().map(SegmentNumber)
}

/// What follows if the system returns an error for a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ReadFailure {
    /// The folder is not read.
    Refuses,
    /// The file is named as unreadable.
    IsNamed,
}

/// Reads a folder. `new` is the id of the spool if the folder holds none.
pub(super) fn read<R: ReadFolder>(
    disk: &R,
    new: SpoolId,
    segment_bytes: u64,
    failure: ReadFailure,
) -> Result<FolderState, OpenError> {
    let mut names = disk.list().map_err(|source| OpenError::Io { name: ".".to_owned(), source })?;
    names.sort_unstable();
    let moved_away = moved_away(&names);
    let mut old =
        OldFiles { quarantined: names.iter().filter(|name| is_quarantined(name)).count(), ..OldFiles::default() };
    names.retain(|name| number(name).is_some() || name == SPARE);
    let spool = spool_of(disk, &names, failure)?.unwrap_or(new);
    let (mut recovery, mut unreadable) = (Recovery::default(), Vec::new());
    for name in names {
        let bytes = match disk.read(&name) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) if failure == ReadFailure::Refuses => return Err(OpenError::Unreadable { name, source }),
            Err(_) => None,
        };
        let header = bytes.as_deref().map(SegmentHeader::decode);
        match (number(&name), &bytes, header) {
            (None, Some(bytes), header) => {
                if let Some(Ok(header)) = header {
                    recovery.add_retired(header, bytes);
                }
                let size = bytes.len() as u64;
                (old.spare, old.has_useless_spare) =
                    if size >= segment_bytes { (Some(size), false) } else { (None, true) };
            }
            (None, None, _) => old.has_useless_spare = true,
            (Some(number), Some(bytes), Some(header)) => {
                let is_damaged = add(number, header, bytes, spool, &mut recovery)?;
                old.segments.push(used(number, bytes.len() as u64, is_damaged));
            }
            (Some(number), ..) => {
                recovery.skip_numbers(number, FrameSequence(FRAMES_MAX));
                old.segments.push(used(number, segment_bytes, true));
                unreadable.push(name);
            }
        }
    }
    for (number, name) in moved_away {
        recovery.skip_numbers(number, FrameSequence(FRAMES_MAX));
        unreadable.push(name);
    }
    let mut recovered = recovery.finish();
    recovered.unreadable = unreadable;
    name_damaged(&mut old, &recovered.damage);
    Ok(FolderState { recovered, spool, old })
}

/// Returns the segments that were moved away, and are newer than all others. No later frame names their frames.
fn moved_away(names: &[String]) -> Vec<(SegmentNumber, String)> {
    let newest = names.iter().filter_map(|name| number(name)).max();
    let kept = names.iter().filter_map(|name| Some((number(&name.replacen(DAMAGED, SEGMENT, 1))?, name.clone())));
    kept.filter(|(number, name)| is_quarantined(name) && newest.is_none_or(|newest| *number > newest)).collect()
}

/// Adds a segment. Returns whether both of its headers are damaged.
fn add(
    number: SegmentNumber,
    header: Result<SegmentHeader, HeaderError>,
    bytes: &[u8],
    spool: SpoolId,
    recovery: &mut Recovery,
) -> Result<bool, OpenError> {
    match header {
        Ok(header) if header.number != number => {
            recovery.add_retired(header, bytes);
            recovery.add_retired(SegmentHeader { spool, number, life: Life(0) }, &[]);
            Ok(false)
        }
        Ok(header) => Ok(recovery.add(header, bytes).map(|()| false)?),
        // The name gives the number if the header is damaged. A file that was never used holds no frame of that number.
        Err(_) => {
            recovery.add(SegmentHeader { spool, number, life: Life(0) }, bytes)?;
            Ok(bytes.iter().any(|byte| *byte != 0))
        }
    }
}

/// A segment of an earlier life. Its file is not recycled: it may have failed.
fn used(number: SegmentNumber, size: u64, is_damaged: bool) -> UsedSegment {
    UsedSegment { number, size, checkpoints: 0, is_reusable: false, is_damaged }
}

/// Returns the spool of the files, by their headers.
fn spool_of<R: ReadFolder>(disk: &R, names: &[String], failure: ReadFailure) -> Result<Option<SpoolId>, OpenError> {
    let mut spool = None;
    for name in names {
        let bytes = match disk.read_at(name, 0, BLOCK as usize) {
            Ok(bytes) => bytes,
            Err(source) if failure == ReadFailure::Refuses && source.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::Unreadable { name: name.clone(), source });
            }
            // A file that can't be read names no spool.
            Err(_) => continue,
        };
        match SegmentHeader::decode(&bytes) {
            Ok(header) if *spool.get_or_insert(header.spool) != header.spool => {
                return Err(OpenError::OtherSpool { name: name.clone() });
            }
            Err(source @ HeaderError::TooNew { .. }) => return Err(OpenError::Header { name: name.clone(), source }),
            Ok(_) | Err(HeaderError::Unrecognised) => {}
        }
    }
    Ok(spool)
}

/// Marks the segments in which frames may be damaged.
fn name_damaged(old: &mut OldFiles, damage: &[Damage]) {
    for segment in &mut old.segments {
        let is_near = |damage: &Damage| (damage.after..=damage.before).contains(&segment.number);
        segment.is_damaged = segment.is_damaged || damage.iter().any(is_near);
    }
}
