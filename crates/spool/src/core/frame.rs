//! Frames: the unit of a write to the journal.
//!
//! ```text
//! offset  size  field
//!      0     4  length of the entries, in bytes
//!      4     1  kind: 1 round, 2 checkpoint, 3 proof
//!      5     3  zero
//!      8     8  sequence of the frame, dense over all segments of a spool
//!     16     8  sequence of the last frame that was durable when this one was written
//!     24     4  CRC-32C of the seed and bytes 0..24
//!     28     4  CRC-32C of the seed, bytes 0..28 and the entries
//!     32        entries
//! ```
//!
//! Rules:
//!  - All numbers are little-endian.
//!  - A frame begins at a multiple of [`BLOCK`]. Two frames never share a block, so that a torn write damages one frame.
//!  - The CRCs are seeded with the spool, the segment's number and the frame's offset. Bytes that an earlier use of a
//!    recycled file left behind never pass.
//!  - The header has a separate CRC. A reader therefore knows the length of a frame whose entries are damaged, and computes
//!    the CRC of a few bytes alone where payload looks like a header.

use super::ids::{SegmentNumber, SpoolId};

/// The alignment of frames, in bytes. A torn write damages whole blocks of this size.
pub const BLOCK: u64 = 4096;
/// Bytes before a frame's entries.
pub const FRAME_HEADER: usize = 32;
/// Bytes of the header that its CRC covers.
const HEAD: usize = 24;

/// A frame's number, dense over all segments of a spool. The first frame has 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameSequence(pub u64);

impl FrameSequence {
    /// Returns the number of the frame after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// The contents of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// The entries of one group commit.
    Round = 1,
    /// The whole control state. The first frame of each segment.
    Checkpoint = 2,
    /// Repeated entries alone. Its [`Frame::synced_through`] proves that the frames before it are durable.
    Proof = 3,
}

/// The place of a frame: seed of its CRC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramePlace {
    /// The spool.
    pub spool: SpoolId,
    /// The segment.
    pub segment: SegmentNumber,
    /// The frame's first byte in the segment's file, a multiple of [`BLOCK`].
    pub offset: u64,
}

/// A frame that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The kind of its contents.
    pub kind: FrameKind,
    /// Its number.
    pub sequence: FrameSequence,
    /// The last frame that was durable when this one was written.
    pub synced_through: FrameSequence,
    /// Its entries, encoded.
    pub entries: &'a [u8],
}

impl Frame<'_> {
    /// Returns the bytes from this frame to the next, a multiple of [`BLOCK`].
    #[must_use]
    pub fn span(&self) -> u64 {
        span(self.entries.len())
    }
}

/// Returns the bytes that a frame with `entries` bytes of entries takes, a multiple of [`BLOCK`].
#[must_use]
pub fn span(entries: usize) -> u64 {
    (FRAME_HEADER as u64 + entries as u64).next_multiple_of(BLOCK)
}

fn crc(place: FramePlace, bytes: &[u8]) -> u32 {
    let mut crc = crc32c::crc32c(&place.spool.0);
    crc = crc32c::crc32c_append(crc, &place.segment.0.to_le_bytes());
    crc = crc32c::crc32c_append(crc, &place.offset.to_le_bytes());
    crc32c::crc32c_append(crc, bytes)
}

/// Appends a frame to `out`, and zeros up to the next multiple of [`BLOCK`].
///
/// Entries of 4 GiB and more do not fit a frame. The journal's limit on rounds excludes them.
pub fn encode(place: FramePlace, frame: &Frame<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    let length = u32::try_from(frame.entries.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&[frame.kind as u8, 0, 0, 0]);
    out.extend_from_slice(&frame.sequence.0.to_le_bytes());
    out.extend_from_slice(&frame.synced_through.0.to_le_bytes());
    let head_crc = crc(place, out.get(start..).unwrap_or_default());
    out.extend_from_slice(&head_crc.to_le_bytes());
    let crc = crc32c::crc32c_append(crc(place, out.get(start..).unwrap_or_default()), frame.entries);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(frame.entries);
    let end = start as u64 + span(frame.entries.len());
    out.resize(usize::try_from(end).unwrap_or(usize::MAX), 0);
}

/// The bytes at the start of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A frame.
    Frame(Frame<'a>),
    /// A frame of this place whose entries are damaged, or were written in part.
    Damaged {
        /// The bytes from this frame to the next.
        span: u64,
    },
    /// A frame of this place with a header that a later version wrote.
    TooNew,
    /// No frame of this place.
    Nothing,
}

/// Reads the frame at the start of `bytes`.
#[must_use]
pub fn decode(place: FramePlace, bytes: &[u8]) -> Decoded<'_> {
    let Some(head) = bytes.first_chunk::<FRAME_HEADER>() else { return Decoded::Nothing };
    let (length, mut frame) = match decode_head(place, head) {
        Some(Some(known)) => known,
        Some(None) => return Decoded::TooNew,
        None => return Decoded::Nothing,
    };
    let entries = FRAME_HEADER.checked_add(length).and_then(|end| bytes.get(FRAME_HEADER..end));
    let (covered, stored) = head.split_at(HEAD + 4);
    match entries {
        Some(entries) if crc32c::crc32c_append(crc(place, covered), entries).to_le_bytes() == stored => {
            frame.entries = entries;
            Decoded::Frame(frame)
        }
        _ => Decoded::Damaged { span: span(length) },
    }
}

/// Reads a header: the length of the entries, and the frame without them. The inner option is empty if the header is whole,
/// and has another kind than this version knows.
fn decode_head(place: FramePlace, head: &[u8; FRAME_HEADER]) -> Option<Option<(usize, Frame<'static>)>> {
    let (covered, rest) = head.split_at_checked(HEAD)?;
    if crc(place, covered).to_le_bytes() != rest.get(..4)? {
        return None;
    }
    let length = usize::try_from(u32::from_le_bytes(*covered.first_chunk()?)).ok()?;
    let kind = match covered.get(4..8)? {
        [1, 0, 0, 0] => FrameKind::Round,
        [2, 0, 0, 0] => FrameKind::Checkpoint,
        [3, 0, 0, 0] => FrameKind::Proof,
        _ => return Some(None),
    };
    let sequence = FrameSequence(u64::from_le_bytes(*covered.get(8..16)?.first_chunk()?));
    let synced_through = FrameSequence(u64::from_le_bytes(*covered.get(16..24)?.first_chunk()?));
    Some(Some((length, Frame { kind, sequence, synced_through, entries: &[] })))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: FramePlace = FramePlace { spool: SpoolId([7; 16]), segment: SegmentNumber(3), offset: 8192 };

    fn frame(entries: &[u8]) -> Frame<'_> {
        let (sequence, synced_through) = (FrameSequence(9), FrameSequence(8));
        Frame { kind: FrameKind::Round, sequence, synced_through, entries }
    }

    #[test]
    fn frame_reads_back() {
        for length in [0, 1, 4063, 4064, 4065, 9000] {
            let entries = vec![5; length];
            let mut bytes = Vec::new();
            encode(PLACE, &frame(&entries), &mut bytes);
            assert_eq!(bytes.len() as u64, span(length));
            assert_eq!(bytes.len() as u64 % BLOCK, 0);
            assert_eq!(decode(PLACE, &bytes), Decoded::Frame(frame(&entries)));
        }
    }

    #[test]
    fn frame_belongs_to_its_place() {
        let mut bytes = Vec::new();
        encode(PLACE, &frame(b"entries"), &mut bytes);
        assert_eq!(decode(FramePlace { offset: 4096, ..PLACE }, &bytes), Decoded::Nothing);
        assert_eq!(decode(FramePlace { segment: SegmentNumber(4), ..PLACE }, &bytes), Decoded::Nothing);
        assert_eq!(decode(FramePlace { spool: SpoolId([8; 16]), ..PLACE }, &bytes), Decoded::Nothing);
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let mut bytes = Vec::new();
        encode(PLACE, &frame(b"entries"), &mut bytes);
        for bit in 0..(FRAME_HEADER + 7) * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let expected = if bit < 28 * 8 { Decoded::Nothing } else { Decoded::Damaged { span: 4096 } };
            assert_eq!(decode(PLACE, &damaged), expected, "bit {bit}");
        }
    }

    #[test]
    fn unknown_kind_is_too_new() {
        for (byte, value) in [(4, 4), (5, 1), (7, 1)] {
            let mut bytes = Vec::new();
            encode(PLACE, &frame(b"entries"), &mut bytes);
            bytes[byte] = value;
            let sum = crc(PLACE, &bytes[..HEAD]).to_le_bytes();
            bytes[HEAD..HEAD + 4].copy_from_slice(&sum);
            assert_eq!(decode(PLACE, &bytes), Decoded::TooNew, "byte {byte}");
        }
    }

    #[test]
    fn short_bytes_are_no_frame() {
        let mut bytes = Vec::new();
        encode(PLACE, &frame(b"entries"), &mut bytes);
        for length in 0..FRAME_HEADER + 7 {
            let expected = if length < FRAME_HEADER { Decoded::Nothing } else { Decoded::Damaged { span: 4096 } };
            assert_eq!(decode(PLACE, &bytes[..length]), expected);
        }
    }

    #[test]
    fn zeros_are_no_frame() {
        assert_eq!(decode(PLACE, &[0; 4096]), Decoded::Nothing);
    }
}
