//! Reads the state of a journal after a crash.
//!
//! Rules:
//!  - Frames are searched at every multiple of [`BLOCK`], so that one damaged frame hides no other.
//!  - The bytes of batches are not kept: the state holds their places.
//!  - Reading begins at the first frame. A checkpoint replaces the table of the frames before it, and keeps their batches.
//!  - A base that counts voids the frames that it supersedes. Later checkpoints name it again, because a segment may be
//!    unreadable. The last entry of a batch is the one that counts.
//!  - A missing frame that a later frame names as durable is damage: the frame is reported, and everything behind it counts.
//!  - Any other missing frame is the unsynced tail of a crash. That frame and all later ones are void. No event in
//!    them was reported as stored, and none was sent.
//!  - A base counts whole or not at all, unless a later frame names it as durable.
//!  - Records that are missing between accepted ones are lost, and named.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::encoding::{self, DecodedEntry, EntryDecodeError};
use super::entry::{Base, BatchHead, Entry, Ordinal, Partition};
use super::frame::{self, BLOCK, Decoded, FRAME_HEADER, Frame, FrameKind, FramePlace, FrameSequence};
use super::ids::{Life, SegmentNumber};
use super::segment::SegmentHeader;
use super::table::Table;

/// Where the journal holds a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPlace {
    /// The segment.
    pub segment: SegmentNumber,
    /// The first byte of the body of the batch's entry, in the segment's file.
    pub offset: u64,
    /// The length of the body, in bytes.
    pub length: u32,
}

/// A batch that the files hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBatch {
    /// Everything but the bytes.
    pub head: BatchHead,
    /// Where the bytes are.
    pub place: BatchPlace,
    /// The frame that holds the bytes.
    pub frame: FrameSequence,
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
    /// Everything apart from the batches. Missing records are entered as lost.
    pub table: Table,
    /// The batches with unsettled records, by partition and first ordinal.
    pub batches: BTreeMap<(Partition, Ordinal), HeldBatch>,
    /// Durable frames that can't be read. They are reported at each opening until their segment is retired.
    pub damage: Vec<Damage>,
    /// Segments that can't be read at all, or were moved away. The last rounds may be in one of them.
    pub unreadable: Vec<String>,
    /// The bases that void frames which may still be in the files.
    pub bases: Vec<Base>,
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
    /// A later version wrote a frame.
    #[error("segment {segment:?}: a later version wrote the frame at byte {offset}: use that version", segment = segment.0)]
    Frame {
        /// The segment.
        segment: SegmentNumber,
        /// The first byte of the frame.
        offset: u64,
    },
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

/// A frame without the bytes of its batches.
#[derive(Debug)]
struct FoundFrame {
    segment: SegmentNumber,
    /// The first byte of its entries, in the segment's file.
    entries_at: u64,
    kind: FrameKind,
    synced_through: FrameSequence,
    entries: Vec<DecodedEntry>,
    /// A checkpoint that the frames before it already give, and whose entries are not kept.
    is_implied: bool,
}

type Frames = BTreeMap<FrameSequence, FoundFrame>;
type Bases = BTreeMap<FrameSequence, Base>;

/// Collects the frames of all segments.
#[derive(Debug, Default)]
pub struct Recovery {
    frames: Frames,
    /// The last frame that was added, if the frames up to it give the whole table.
    whole_through: Option<FrameSequence>,
    next_frame: FrameSequence,
    /// How many numbers of frames are skipped, because frames may have them that can't be read.
    skipped: u64,
    next_segment: SegmentNumber,
    last_life: Life,
    /// The notes of the last batch.
    notes: Arc<[u8]>,
}

impl Recovery {
    /// Adds the frames of a segment. The segments must be added in order, so that memory holds few checkpoints.
    ///
    /// # Errors
    /// [`RecoverError`] where a frame is whole, and a later version wrote it.
    pub fn add(&mut self, header: SegmentHeader, bytes: &[u8]) -> Result<(), RecoverError> {
        self.add_numbers(header);
        for (entries_at, found) in scan(header, bytes) {
            let Some(frame) = found else {
                let offset = entries_at.saturating_sub(FRAME_HEADER as u64);
                return Err(RecoverError::Frame { segment: header.number, offset });
            };
            let sequence = frame.sequence;
            let error = |error| RecoverError::Entry { segment: header.number, sequence, error };
            let mut entries = encoding::decode_all(frame.entries).map_err(error)?;
            self.share_notes(&mut entries);
            // The frames of a base that a crash interrupted must not be taken for those of the next one.
            let last = entries.iter().filter_map(as_base).map(|base| base.last).max();
            self.next_frame = self.next_frame.max(sequence.max(last.unwrap_or_default()).next());
            self.frames.entry(sequence).or_insert_with(|| FoundFrame {
                segment: header.number,
                entries_at,
                kind: frame.kind,
                synced_through: frame.synced_through,
                entries,
                is_implied: false,
            });
            self.drop_implied(sequence);
        }
        Ok(())
    }

    /// Adds a file that holds nothing that counts, so that its numbers are not used twice.
    pub fn add_retired(&mut self, header: SegmentHeader, bytes: &[u8]) {
        self.add_numbers(header);
        let last = scan(header, bytes).filter_map(|(_, frame)| Some(frame?.sequence.next())).max();
        self.next_frame = self.next_frame.max(last.unwrap_or_default());
    }

    /// Names a segment that can't be read, and that may hold `frames` frames of any number.
    pub fn skip_numbers(&mut self, number: SegmentNumber, frames: FrameSequence) {
        self.next_segment = self.next_segment.max(number.next());
        self.skipped = self.skipped.max(frames.0);
        self.whole_through = None;
    }

    /// Lets batches of the same notes share them. The batches of a life have the same.
    fn share_notes(&mut self, entries: &mut [DecodedEntry]) {
        for entry in entries {
            if let DecodedEntry::Batch { head, .. } = entry {
                match head.notes == self.notes {
                    true => head.notes = self.notes.clone(),
                    false => self.notes = head.notes.clone(),
                }
            }
        }
    }

    fn add_numbers(&mut self, header: SegmentHeader) {
        self.next_segment = self.next_segment.max(header.number.next());
        self.last_life = self.last_life.max(header.life);
    }

    /// Drops the entries of a checkpoint where the frames before it give the same table.
    fn drop_implied(&mut self, sequence: FrameSequence) {
        let Some(found) = self.frames.get_mut(&sequence) else { return };
        let follows = self.whole_through.is_some_and(|through| through.next() == sequence);
        let is_checkpoint = found.kind == FrameKind::Checkpoint;
        let is_base =
            found.entries.iter().filter_map(as_base).any(|base| base.first <= sequence && sequence <= base.last);
        if is_checkpoint && follows && !is_base {
            (found.entries, found.is_implied) = (Vec::new(), true);
        }
        self.whole_through = (follows || is_checkpoint).then_some(sequence);
    }

    /// Returns the state that the frames give.
    #[must_use]
    pub fn finish(self) -> Recovered {
        let mut frames = self.frames;
        let mut recovered = Recovered {
            next_frame: FrameSequence(self.next_frame.0.max(1).saturating_add(self.skipped)),
            next_segment: self.next_segment,
            last_life: self.last_life,
            ..Recovered::default()
        };
        let bases = bases_that_count(&frames);
        let oldest = frames.first_key_value().map(|(first, _)| *first).unwrap_or_default();
        recovered.bases = bases.values().filter(|base| base.first > oldest).copied().collect();
        frames.retain(|sequence, _| void_by(*sequence, &bases).is_none());
        if let Some(start) = start(&bases, &frames) {
            read_from(start, &frames, &bases, &mut recovered);
        }
        drop_lost(&mut recovered);
        name_lost(&mut recovered);
        recovered.last_life = recovered.last_life.max(last_life(&recovered));
        recovered
    }
}

/// The last life that the entries name. The headers may be damaged.
fn last_life(recovered: &Recovered) -> Life {
    let begun = recovered.table.partitions.values().flat_map(|state| state.begins.values());
    let lives = begun.chain(recovered.batches.values().map(|batch| &batch.head.life));
    lives.max().copied().unwrap_or_default()
}

/// The frames of a segment, each with the first byte of its entries. A frame of a later version is `None`.
fn scan(header: SegmentHeader, bytes: &[u8]) -> impl Iterator<Item = (u64, Option<Frame<'_>>)> {
    let mut offset = BLOCK;
    std::iter::from_fn(move || {
        loop {
            let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).filter(|rest| !rest.is_empty())?;
            let entries_at = offset + FRAME_HEADER as u64;
            let place = FramePlace { spool: header.spool, segment: header.number, offset };
            match frame::decode(place, rest) {
                Decoded::Frame(frame) => {
                    offset += frame.span();
                    return Some((entries_at, Some(frame)));
                }
                Decoded::TooNew => {
                    offset += BLOCK;
                    return Some((entries_at, None));
                }
                Decoded::Damaged { span } => offset += span,
                Decoded::Nothing => offset += BLOCK,
            }
        }
    })
}

fn as_base(entry: &DecodedEntry) -> Option<&Base> {
    match entry {
        DecodedEntry::Control(Entry::Base(base)) => Some(base),
        _ => None,
    }
}

/// The bases that count, by their first frame.
fn bases_that_count(frames: &Frames) -> Bases {
    let entries = frames.values().flat_map(|found| &found.entries);
    let named: Bases = entries.filter_map(as_base).map(|base| (base.first, *base)).collect();
    let mut count = Bases::new();
    for (first, base) in named.into_iter().rev() {
        if void_by(first, &count).is_none() && !is_torn(&base, frames) {
            count.insert(first, base);
        }
    }
    count
}

/// The base that voids a frame.
fn void_by(sequence: FrameSequence, bases: &Bases) -> Option<&Base> {
    let (_, base) = bases.range(sequence.next()..).next()?;
    (base.resumes < sequence).then_some(base)
}

/// Returns whether a crash interrupted the writing of a base: a frame of it is missing, and none names it as durable.
fn is_torn(base: &Base, frames: &Frames) -> bool {
    let found = frames.range(base.first..=base.last).count() as u64;
    let is_whole = found == base.last.0.saturating_sub(base.first.0).saturating_add(1);
    !is_whole && proved_from(base.first, frames) < base.last
}

/// The last frame that the frames from `first` on name as durable.
fn proved_from(first: FrameSequence, frames: &Frames) -> FrameSequence {
    frames.range(first..).map(|(_, found)| found.synced_through).max().unwrap_or_default()
}

/// The first frame that must be there.
fn start(bases: &Bases, frames: &Frames) -> Option<FrameSequence> {
    let (first, found) = frames.first_key_value()?;
    // The first frame of a segment is a checkpoint. It is missing otherwise, and so is that of a base.
    let base = bases.values().find(|base| base.first <= *first && *first <= base.last).map(|base| base.first);
    let is_headed = found.kind == FrameKind::Checkpoint;
    Some(base.unwrap_or(if is_headed { *first } else { FrameSequence(first.0.saturating_sub(1)) }))
}

fn read_from(start: FrameSequence, frames: &Frames, bases: &Bases, recovered: &mut Recovered) {
    let mut expected = start;
    let mut near = frames.range(start..).next().map(|(_, found)| found.segment).unwrap_or_default();
    for (&sequence, found) in frames.range(start..) {
        let gap = Gap { first: expected, end: sequence, after: near, before: found.segment };
        if sequence > expected && !gap.cross(frames, bases, recovered) {
            return;
        }
        if is_in_torn_base(sequence, found, bases) {
            return;
        }
        if found.kind == FrameKind::Checkpoint && !found.is_implied {
            recovered.table = Table::default();
        }
        found.entries.iter().for_each(|entry| take_in(entry, sequence, found, recovered));
        recovered.resumes = sequence;
        recovered.proved = recovered.proved.max(found.synced_through);
        near = found.segment;
        expected = sequence.next();
    }
}

/// Returns whether a frame begins a base that does not count.
fn is_in_torn_base(sequence: FrameSequence, found: &FoundFrame, bases: &Bases) -> bool {
    let mut named = found.entries.iter().filter_map(as_base);
    named.any(|base| base.first == sequence && !bases.contains_key(&base.first))
}

/// Frames that were not read, between two that were.
struct Gap {
    first: FrameSequence,
    /// The frame that was read behind them.
    end: FrameSequence,
    after: SegmentNumber,
    before: SegmentNumber,
}

impl Gap {
    /// Records the durable frames of the gap as damage. Returns whether the frame behind it counts.
    fn cross(&self, frames: &Frames, bases: &Bases, recovered: &mut Recovered) -> bool {
        let proved = proved_from(self.end, frames);
        let mut first = self.first;
        while first < self.end {
            if let Some(base) = void_by(first, bases) {
                first = base.first;
                continue;
            }
            // The frames that a base voids are not missing.
            let next = bases.range(first.next()..).next().map(|(_, base)| base.resumes.next());
            let end = next.filter(|next| *next > first).map_or(self.end, |next| next.min(self.end));
            let missing = FrameSequence(end.0.saturating_sub(1));
            let last = missing.min(proved);
            if last >= first {
                recovered.damage.push(Damage { first, last, after: self.after, before: self.before });
                recovered.resumes = last;
            }
            if last != missing {
                return false;
            }
            first = end;
        }
        true
    }
}

fn take_in(entry: &DecodedEntry, frame: FrameSequence, found: &FoundFrame, recovered: &mut Recovered) {
    match entry {
        DecodedEntry::Batch { head, body } => {
            recovered.table.accept(head.partition, head.end());
            let settled = recovered.table.partitions.get(&head.partition).map(|state| state.settled);
            if settled.is_none_or(|settled| head.end() > settled) {
                let offset = found.entries_at + body.start as u64;
                let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
                let place = BatchPlace { segment: found.segment, offset, length };
                let held = HeldBatch { head: head.clone(), place, frame };
                recovered.batches.insert((head.partition, head.first), held);
            }
        }
        DecodedEntry::Control(entry) => {
            recovered.table.apply(entry);
            if let Entry::Mark { partition, .. } = entry {
                drop_settled(*partition, recovered);
            }
        }
    }
}

fn drop_settled(partition: Partition, recovered: &mut Recovered) {
    let settled = recovered.table.partitions.get(&partition).map(|state| state.settled).unwrap_or_default();
    while let Some((&key, _)) = recovered
        .batches
        .range((partition, Ordinal(0))..)
        .next()
        .filter(|((of, _), batch)| *of == partition && batch.head.end() <= settled)
    {
        recovered.batches.remove(&key);
    }
}

/// Drops batches that an earlier opening named as lost: their file could not be read then.
fn drop_lost(recovered: &mut Recovered) {
    let partitions = &recovered.table.partitions;
    recovered.batches.retain(|(partition, first), batch| {
        partitions.get(partition).is_none_or(|state| state.lost.count_within(*first, batch.head.end()) == 0)
    });
}

/// Enters unsettled ordinals without batches as lost, and drops their keys. A dead letter needs no batch here.
fn name_lost(recovered: &mut Recovered) {
    for (partition, state) in &mut recovered.table.partitions {
        let mut held = state.done.clone();
        let own = recovered.batches.range((*partition, Ordinal(0))..).take_while(|((of, _), _)| of == partition);
        own.for_each(|((_, first), batch)| held.insert(*first, batch.head.end()));
        let mut next = state.settled;
        for (first, end) in held.iter() {
            // A record that was lost before is in neither.
            state.lost.insert(next, first);
            next = next.max(end);
        }
        state.lost.insert(next, state.end);
    }
    recovered.table.drop_lost_keys();
}
