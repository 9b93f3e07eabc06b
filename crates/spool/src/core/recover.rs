//! Reads the state of a journal after a crash.
//!
//! Rules:
//!  - Frames are searched at every multiple of [`BLOCK`], so that one damaged frame hides no other.
//!  - Reading begins at the last whole base, or else at the first frame. A base contains the state of all earlier frames.
//!  - A checkpoint replaces the state of the frames before it, and keeps their records.
//!  - A missing frame that a later frame names as durable is damage: the frame is reported, and everything behind it counts.
//!  - Any other missing frame is the unsynced tail of a crash. That frame and all later ones are void. No event in
//!    them was reported as stored, and none was sent.
//!  - A base counts whole or not at all, unless a later frame names it as durable.
//!  - Records that are missing between accepted ones are lost, and named.

use std::collections::BTreeMap;

use super::entry::{self, Base, Entry, EntryDecodeError, Ordinal, Partition, Piece};
use super::frame::{self, BLOCK, Frame, FrameKind, FramePlace, FrameSequence};
use super::ids::{Life, SegmentNumber};
use super::segment::SegmentHeader;
use super::table::Table;

/// A segment that was read.
#[derive(Debug)]
pub struct SegmentBytes {
    /// The header.
    pub header: SegmentHeader,
    /// The whole file.
    pub bytes: Vec<u8>,
}

/// A stretch of durable frames that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The first frame.
    pub first: FrameSequence,
    /// The last frame.
    pub last: FrameSequence,
    /// The segment of the frame before.
    pub after: SegmentNumber,
    /// The segment of the frame behind.
    pub before: SegmentNumber,
}

/// The state of a spool as its files say.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Everything apart from the records. Missing records are entered as lost.
    pub table: Table,
    /// The unsettled records, by partition and first ordinal.
    pub pieces: BTreeMap<(Partition, Ordinal), Piece>,
    /// Durable frames that can't be read.
    pub damage: Vec<Damage>,
    /// The last frame that counts, 0 if there is none.
    pub resumes: FrameSequence,
    /// The last frame that a frame names as durable.
    pub proved: FrameSequence,
    /// The number for the next frame: greater than that of every frame in the files, void ones included.
    pub next_frame: FrameSequence,
    /// The number for the next segment.
    pub next_segment: SegmentNumber,
    /// The last life that wrote a segment.
    pub last_life: Life,
}

impl Recovered {
    /// Returns the records that are lost: accepted, unsettled, and not in the files.
    pub fn lost(&self) -> impl Iterator<Item = (Partition, Ordinal, Ordinal)> {
        let lost = |(partition, state): (&Partition, &super::table::PartitionTable)| {
            let partition = *partition;
            state.lost.iter().map(move |(first, end)| (partition, first, end)).collect::<Vec<_>>()
        };
        self.table.partitions.iter().flat_map(lost)
    }
}

/// Why a journal can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// A later version wrote an entry of the frame.
    #[error("segment {segment:?}, frame {sequence:?}: {error}", segment = segment.0, sequence = sequence.0)]
    Entry {
        /// The segment.
        segment: SegmentNumber,
        /// The frame.
        sequence: FrameSequence,
        /// Why.
        error: EntryDecodeError,
    },
}

/// A frame with the segment that holds it.
struct Found<'a> {
    segment: SegmentNumber,
    frame: Frame<'a>,
}

/// Reads the state of a spool from its segments, in any order. The `retired` ones hold nothing that counts, and only keep
/// numbers from being used twice.
///
/// # Errors
/// [`RecoverError`] where a frame is whole, and a later version wrote it.
pub fn recover(segments: &[SegmentBytes], retired: &[SegmentBytes]) -> Result<Recovered, RecoverError> {
    let mut frames = BTreeMap::new();
    for segment in segments {
        scan(segment, &mut frames);
    }
    let mut unused = BTreeMap::new();
    retired.iter().for_each(|segment| scan(segment, &mut unused));
    let headers = || segments.iter().chain(retired).map(|segment| segment.header);
    let mut recovered = Recovered {
        next_frame: frames.keys().chain(unused.keys()).max().map_or(FrameSequence(1), |sequence| sequence.next()),
        next_segment: headers().map(|header| header.number.next()).max().unwrap_or_default(),
        last_life: headers().map(|header| header.life).max().unwrap_or_default(),
        ..Recovered::default()
    };
    let mut entries = decode(&frames)?;
    let bases = bases(&entries);
    let is_void = |at: FrameSequence| bases.values().any(|base| base.resumes < at && at < base.first);
    entries.retain(|sequence, _| !is_void(*sequence));
    let oldest = oldest(&entries);
    frames.retain(|sequence, found| !is_void(*sequence) && found.segment >= oldest);
    entries.retain(|sequence, _| frames.contains_key(sequence));
    let Some(start) = start(&bases, &frames) else { return Ok(recovered) };
    read_from(start, &frames, &entries, &bases, &mut recovered);
    name_lost(&mut recovered);
    recovered.last_life = recovered.last_life.max(last_life(&recovered));
    Ok(recovered)
}

/// The last life that the entries name. The headers may be damaged.
fn last_life(recovered: &Recovered) -> Life {
    let table = &recovered.table;
    let begun = table.partitions.values().flat_map(|state| state.begins.values());
    let lives = table.bindings.keys().chain(begun).chain(recovered.pieces.values().map(|piece| &piece.life));
    lives.max().copied().unwrap_or_default()
}

fn scan<'a>(segment: &'a SegmentBytes, frames: &mut BTreeMap<FrameSequence, Found<'a>>) {
    let SegmentHeader { spool, number, .. } = segment.header;
    let mut offset = BLOCK;
    while let Some(bytes) =
        usize::try_from(offset).ok().and_then(|at| segment.bytes.get(at..)).filter(|b| !b.is_empty())
    {
        let place = FramePlace { spool, segment: number, offset };
        let found = frame::decode(place, bytes);
        offset += found.map_or(BLOCK, |frame| frame.span());
        if let Some(frame) = found {
            frames.entry(frame.sequence).or_insert(Found { segment: number, frame });
        }
    }
}

type Frames<'a> = BTreeMap<FrameSequence, Found<'a>>;
type Entries = BTreeMap<FrameSequence, Vec<Entry>>;

fn decode(frames: &Frames<'_>) -> Result<Entries, RecoverError> {
    let decode = |(sequence, found): (&FrameSequence, &Found<'_>)| match entry::decode_all(found.frame.entries) {
        Ok(entries) => Ok((*sequence, entries)),
        Err(error) => Err(RecoverError::Entry { segment: found.segment, sequence: *sequence, error }),
    };
    frames.iter().map(decode).collect()
}

/// Every base that a frame names, by its first frame.
fn bases(entries: &Entries) -> BTreeMap<FrameSequence, Base> {
    let base = |entry: &Entry| match entry {
        Entry::Base(base) => Some((base.first, *base)),
        _ => None,
    };
    entries.values().flatten().filter_map(base).collect()
}

/// The oldest segment in use. A crash may leave the beginning of an older one, in a file that is being recycled.
fn oldest(entries: &Entries) -> SegmentNumber {
    let oldest = |entry: &Entry| match entry {
        Entry::Oldest(segment) => Some(*segment),
        _ => None,
    };
    entries.values().flatten().filter_map(oldest).max().unwrap_or_default()
}

/// The frame at which reading begins: that of the last whole base, or else the first one.
fn start(bases: &BTreeMap<FrameSequence, Base>, frames: &Frames<'_>) -> Option<FrameSequence> {
    let whole = bases.values().rev().find(|base| is_whole(base, frames)).map(|base| base.first);
    let first = || {
        let (first, found) = frames.first_key_value()?;
        // The first frame of a segment is a checkpoint. It is missing otherwise, and so is that of a base.
        let base = bases.values().find(|base| base.first <= *first && *first <= base.last).map(|base| base.first);
        let is_headed = found.frame.kind == FrameKind::Checkpoint;
        Some(base.unwrap_or(if is_headed { *first } else { FrameSequence(first.0.saturating_sub(1)) }))
    };
    whole.or_else(first)
}

fn read_from(
    start: FrameSequence,
    frames: &Frames<'_>,
    entries: &Entries,
    bases: &BTreeMap<FrameSequence, Base>,
    recovered: &mut Recovered,
) {
    let mut expected = start;
    let mut near = frames.range(start..).next().map(|(_, found)| found.segment).unwrap_or_default();
    for (&sequence, found) in frames.range(start..) {
        if sequence > expected && !cross_gap(expected, (sequence, found.segment), near, frames, bases, recovered) {
            return;
        }
        if bases.get(&sequence).is_some_and(|base| is_torn(base, frames)) {
            return;
        }
        if found.frame.kind == FrameKind::Checkpoint {
            recovered.table = Table::default();
        }
        entries.get(&sequence).into_iter().flatten().for_each(|entry| take_in(entry, recovered));
        recovered.resumes = sequence;
        recovered.proved = recovered.proved.max(found.frame.synced_through);
        near = found.segment;
        expected = skip_void(sequence.next(), bases);
    }
}

/// Records the durable frames that are missing from `expected` up to the next one that was read as damage. Returns whether
/// the next one counts.
fn cross_gap(
    expected: FrameSequence,
    (sequence, segment): (FrameSequence, SegmentNumber),
    near: SegmentNumber,
    frames: &Frames<'_>,
    bases: &BTreeMap<FrameSequence, Base>,
    recovered: &mut Recovered,
) -> bool {
    // Frames that a base does not resume are void, not missing.
    let before = FrameSequence(sequence.0.saturating_sub(1));
    let missing = bases.get(&sequence).map_or(before, |base| base.resumes);
    if missing < expected {
        return true;
    }
    let proved = frames.range(sequence..).map(|(_, later)| later.frame.synced_through).max().unwrap_or_default();
    let last = missing.min(proved);
    if last >= expected {
        recovered.damage.push(Damage { first: expected, last, after: near, before: segment });
        recovered.resumes = last;
    }
    last == missing
}

/// Returns whether a crash interrupted the writing of a base: a frame of it is missing, and none names it as durable.
fn is_torn(base: &Base, frames: &Frames<'_>) -> bool {
    let proved = frames.range(base.first..).map(|(_, later)| later.frame.synced_through).max().unwrap_or_default();
    proved < base.last && !is_whole(base, frames)
}

fn is_whole(base: &Base, frames: &Frames<'_>) -> bool {
    let found = frames.range(base.first..=base.last).count() as u64;
    found == base.last.0.saturating_sub(base.first.0).saturating_add(1)
}

/// The frame that follows: where a base resumes the frame before, its first one.
fn skip_void(next: FrameSequence, bases: &BTreeMap<FrameSequence, Base>) -> FrameSequence {
    bases.values().find(|base| base.resumes.next() == next && base.first > next).map_or(next, |base| base.first)
}

fn take_in(entry: &Entry, recovered: &mut Recovered) {
    recovered.table.apply(entry);
    match entry {
        Entry::Piece(piece) => {
            let settled = recovered.table.partitions.get(&piece.partition).map(|state| state.settled);
            if settled.is_none_or(|settled| piece.end() > settled) {
                recovered.pieces.entry((piece.partition, piece.first)).or_insert_with(|| piece.clone());
            }
        }
        Entry::Mark { partition, .. } => {
            let settled = recovered.table.partitions.get(partition).map(|state| state.settled).unwrap_or_default();
            while let Some((&key, _)) = recovered
                .pieces
                .range((*partition, Ordinal(0))..)
                .next()
                .filter(|((of, _), piece)| of == partition && piece.end() <= settled)
            {
                recovered.pieces.remove(&key);
            }
        }
        _ => {}
    }
}

/// Enters unsettled ordinals without records as lost. A dead letter needs no records here.
fn name_lost(recovered: &mut Recovered) {
    for (partition, state) in &mut recovered.table.partitions {
        let mut held = state.dead_letters.clone();
        let own = recovered.pieces.range((*partition, Ordinal(0))..).take_while(|((of, _), _)| of == partition);
        own.for_each(|((_, first), piece)| held.insert(*first, piece.end()));
        let mut next = state.settled;
        for (first, end) in held.iter() {
            // A record that was lost before is in neither.
            state.lost.insert(next, first);
            next = next.max(end);
        }
        state.lost.insert(next, state.end);
    }
}
