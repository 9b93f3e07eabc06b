//! Segments: the files of the journal.
//!
//! The first block of each file has the header twice, at 0 and in the middle. Frames follow.
//!
//! ```text
//! offset  size  field
//!      0     8  "KCSPOOL1"
//!      8     2  format of the file
//!     10     2  oldest format whose readers can read the file
//!     12     4  zero
//!     16    16  spool
//!     32     8  number of the segment
//!     40     8  life that wrote the segment
//!     48     4  CRC-32C of bytes 0..48
//! ```
//!
//! Rules:
//!  - The header names the segment, and the seed of its frames' CRCs.
//!  - A damaged sector leaves one header whole.

use super::frame::BLOCK;
use super::ids::{Life, SegmentNumber, SpoolId};

/// The format that this version writes.
pub const FORMAT: u16 = 1;
const MAGIC: &[u8; 8] = b"KCSPOOL1";
const HEADER_LEN: usize = 52;
/// The offset of the second header.
const SECOND: usize = 2048;

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The spool.
    pub spool: SpoolId,
    /// The segment's number.
    pub number: SegmentNumber,
    /// The life that wrote the segment.
    pub life: Life,
}

/// Why the first block of a file is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The file is none of a spool, was never used, or its header is damaged.
    #[error("no header of a spool's segment")]
    Unrecognised,
    /// A later version wrote the file.
    #[error("format {format} needs a reader of format {oldest_reader} or newer, and this version reads up to {FORMAT}")]
    TooNew {
        /// The file's format.
        format: u16,
        /// The oldest format whose readers can read the file.
        oldest_reader: u16,
    },
}

impl SegmentHeader {
    /// Appends the header's block to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        for _ in 0..2 {
            let header = out.len();
            out.extend_from_slice(MAGIC);
            out.extend_from_slice(&FORMAT.to_le_bytes());
            out.extend_from_slice(&FORMAT.to_le_bytes());
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&self.spool.0);
            out.extend_from_slice(&self.number.0.to_le_bytes());
            out.extend_from_slice(&self.life.0.to_le_bytes());
            let crc = crc32c::crc32c(out.get(header..).unwrap_or_default());
            out.extend_from_slice(&crc.to_le_bytes());
            out.resize(header + SECOND, 0);
        }
        out.resize(start + BLOCK as usize, 0);
    }

    /// Reads a header from the first bytes of a file.
    ///
    /// # Errors
    /// [`HeaderError`] where the bytes are no header that this version can read.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let second = || Self::read(bytes.get(SECOND..)?);
        Self::read(bytes).or_else(second).ok_or(HeaderError::Unrecognised)?
    }

    fn read(bytes: &[u8]) -> Option<Result<Self, HeaderError>> {
        let head = bytes.first_chunk::<HEADER_LEN>()?;
        if head.first_chunk() != Some(MAGIC)
            || u32::from_le_bytes(*head.last_chunk()?) != crc32c::crc32c(head.get(..48)?)
        {
            return None;
        }
        let number = |at: usize| Some(u64::from_le_bytes(*head.get(at..)?.first_chunk()?));
        let format = u16::from_le_bytes(*head.get(8..)?.first_chunk()?);
        let oldest_reader = u16::from_le_bytes(*head.get(10..)?.first_chunk()?);
        if oldest_reader > FORMAT {
            return Some(Err(HeaderError::TooNew { format, oldest_reader }));
        }
        let spool = SpoolId(*head.get(16..)?.first_chunk()?);
        Some(Ok(Self { spool, number: SegmentNumber(number(32)?), life: Life(number(40)?) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader = SegmentHeader { spool: SpoolId([3; 16]), number: SegmentNumber(12), life: Life(2) };

    #[test]
    fn header_reads_back() {
        let mut bytes = Vec::new();
        HEADER.encode(&mut bytes);
        assert_eq!(bytes.len() as u64, BLOCK);
        assert_eq!(SegmentHeader::decode(&bytes), Ok(HEADER));
    }

    #[test]
    fn damaged_header_is_unrecognised() {
        let mut bytes = Vec::new();
        HEADER.encode(&mut bytes);
        for bit in 0..HEADER_LEN * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&damaged), Ok(HEADER), "the second header counts");
            damaged[SECOND + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&damaged), Err(HeaderError::Unrecognised), "bit {bit}");
        }
        assert_eq!(SegmentHeader::decode(&bytes[..51]), Err(HeaderError::Unrecognised));
        assert_eq!(SegmentHeader::decode(&[]), Err(HeaderError::Unrecognised));
    }

    #[test]
    fn newer_format_is_named() {
        let mut bytes = Vec::new();
        HEADER.encode(&mut bytes);
        bytes[8..12].copy_from_slice(&[5, 0, 4, 0]);
        let crc = crc32c::crc32c(&bytes[..48]);
        bytes[48..52].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::TooNew { format: 5, oldest_reader: 4 }));
    }
}
