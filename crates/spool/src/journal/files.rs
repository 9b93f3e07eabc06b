//! The files of a spool's folder.
//!
//! | Name | Contents |
//! |---|---|
//! | `journal-` and 16 hex digits | a segment |
//! | `spare` | a file of a former segment, to be recycled |
//! | `damaged-` and 16 hex digits | a segment with damage, kept for inspection |
//!
//! Rule: a segment counts if its name and its header agree. A file that is being recycled has the one before the other.

use crate::core::ids::{Life, SegmentNumber, SpoolId};
use crate::core::recover::{self, Recovered, SegmentBytes};
use crate::core::segment::{HeaderError, SegmentHeader};
use crate::disk::Disk;

use super::OpenError;

/// The name of the file to be recycled.
pub(super) const SPARE: &str = "spare";
const SEGMENT: &str = "journal-";
const DAMAGED: &str = "damaged-";

/// A file of an earlier life.
#[derive(Debug)]
pub(super) struct OldFile {
    pub(super) name: String,
    pub(super) number: Option<SegmentNumber>,
    /// Neither header can be read, and the file is not empty.
    pub(super) is_unreadable: bool,
}

/// Returns a segment's file name.
pub(super) fn name(number: SegmentNumber) -> String {
    format!("{SEGMENT}{:016x}", number.0)
}

/// Returns the name under which a damaged segment is kept.
pub(super) fn quarantined(name: &str) -> String {
    name.replacen(SEGMENT, DAMAGED, 1)
}

fn number(name: &str) -> Option<SegmentNumber> {
    let digits = name.strip_prefix(SEGMENT).filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok().map(SegmentNumber)
}

/// Reads a folder: its state, the spool's id, and the files of earlier lives.
pub(super) fn read<D: Disk>(disk: &D, new: SpoolId) -> Result<(Recovered, SpoolId, Vec<OldFile>), OpenError> {
    let io = |name: &str, source| OpenError::Io { name: name.to_owned(), source };
    let (mut segments, mut retired, mut headless) = (Vec::new(), Vec::new(), Vec::new());
    let (mut old, mut spool) = (Vec::new(), None);
    for name in disk.list().map_err(|source| io(".", source))? {
        if number(&name).is_none() && name != SPARE {
            continue;
        }
        let bytes = disk.read(&name).map_err(|source| io(&name, source))?;
        let header = match SegmentHeader::decode(&bytes) {
            Ok(header) => Some(header),
            Err(HeaderError::Unrecognised) => None,
            Err(source @ HeaderError::TooNew { .. }) => return Err(OpenError::Header { name, source }),
        };
        let is_unreadable = header.is_none() && bytes.iter().any(|byte| *byte != 0);
        let of = header.map(|header| header.number).or(number(&name));
        old.push(OldFile { number: of, is_unreadable, name: name.clone() });
        match header {
            Some(header) if *spool.get_or_insert(header.spool) != header.spool => {
                return Err(OpenError::OtherSpool { name });
            }
            Some(header) if number(&name) != Some(header.number) => retired.push(SegmentBytes { header, bytes }),
            Some(header) => segments.push(SegmentBytes { header, bytes }),
            None => headless.extend(number(&name).map(|number| (number, bytes))),
        }
    }
    let spool = spool.unwrap_or(new);
    // The name gives the number if the header is damaged. A file that was never used holds no frame of that number.
    segments.extend(headless.into_iter().map(|(number, bytes)| {
        let header = SegmentHeader { spool, number, life: Life(0) };
        SegmentBytes { header, bytes }
    }));
    let mut recovered = recover::recover(&segments, &retired)?;
    // A file that was about to be recycled has the name of the next segment, and the header of its former one.
    let named = old.iter().filter_map(|file| number(&file.name)).map(SegmentNumber::next).max().unwrap_or_default();
    recovered.next_segment = recovered.next_segment.max(named);
    Ok((recovered, spool, old))
}
