//! The bytes of entries.
//!
//! ```text
//! kind u8 | length of the body u32 | body
//! ```
//!
//! | Kind | Entry | Body |
//! |---|---|---|
//! | 1 | `Cluster` | name |
//! | 2 | `Topic` | number u32, id 16 bytes, partitions u32, name |
//! | 3 | `Batch` | CRC-32C of the rest u32, partition, life u64, first u64, count u32, length of the notes u32, notes, Kafka's batch |
//! | 4 | `Begin` | partition, life u64, from u64 |
//! | 5 | `Move` | partition, from u64, stamp, ranges of skipped ordinals |
//! | 6 | `Anchor` | partition, whether an earlier record of the run is out u8, stamp, ranges of skipped ordinals |
//! | 7 | `Out` | partition, first u64, end u64, reason u8 |
//! | 8 | `Mark` | partition, settled u64, end offset i64 |
//! | 9 | `End` | partition, end u64 |
//! | 10 | `Base` | resumes u64, first u64, last u64 |
//! | 11 | `Input` | number u32, name |
//! | 12 | `Items` | number of the input u32, check u64, ranges of items |
//! | 13 | `Leader` | partition, epoch i32 |
//! | 14 | `Keys` | time of the oldest key that is kept u64, keys of records |
//!
//! A partition is topic u32, index i32. A stamp is producer id i64, epoch i16, base sequence i32. A range is first u64, end u64.
//! The key of a record is the key's digest 16 bytes, the payload's digest 16 bytes, time u64, partition, ordinal u64, index u32,
//! count u32.
//!
//! Rules:
//!  - All numbers are little-endian.
//!  - A reader skips an unknown kind from 128 on. An unknown kind below 128 refuses the journal: its meaning is needed.
//!  - A body has the length that its kind demands. Anything else refuses the frame.
//!  - A batch has a CRC, so that it can be read without the rest of its frame.

use std::ops::Range;
use std::sync::Arc;

use kafka_courier_batcher::Stamp;

use super::entry::{Base, BatchHead, Entry, JournalBatch, Ordinal, OutReason, Partition, Topic, TopicNumber};
use super::frame::FrameSequence;
use super::ids::Life;
use super::inputs::{InputNumber, ItemSet};
use super::keys::RecordKey;
use super::ranges::OrdinalSet;

/// Why the entries of a frame can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryDecodeError {
    /// A later version wrote an entry whose meaning is needed.
    #[error("entry of kind {0}, which a later version wrote")]
    UnknownKind(u8),
    /// The body does not have the form of its kind.
    #[error("entry of kind {0} with a body of another form")]
    Malformed(u8),
}

/// The first kind that a reader may skip.
const SKIPPABLE: u8 = 128;
/// The kind of a batch.
const BATCH: u8 = 3;
/// Bytes before the body of an entry.
pub const ENTRY_HEADER: usize = 5;
/// Bytes of a batch's CRC.
const BATCH_CRC: usize = 4;
/// Bytes of the time in an entry of keys.
const KEYS_HEADER: usize = 8;
/// Bytes of the key of a record.
pub const RECORD_KEY_BYTES: usize = 64;

impl Entry {
    fn kind(&self) -> u8 {
        match self {
            Self::Cluster(_) => 1,
            Self::Topic(_) => 2,
            Self::Batch(_) => BATCH,
            Self::Begin { .. } => 4,
            Self::Move { .. } => 5,
            Self::Anchor { .. } => 6,
            Self::Out { .. } => 7,
            Self::Mark { .. } => 8,
            Self::End { .. } => 9,
            Self::Base(_) => 10,
            Self::Input { .. } => 11,
            Self::Items { .. } => 12,
            Self::Leader { .. } => 13,
            Self::Keys { .. } => 14,
        }
    }

    /// Appends the entry's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.kind());
        let length_at = out.len();
        out.extend_from_slice(&[0; 4]);
        self.encode_body(out);
        let length = u32::try_from(out.len() - length_at - 4).unwrap_or(u32::MAX);
        if let Some(place) = out.get_mut(length_at..length_at + 4) {
            place.copy_from_slice(&length.to_le_bytes());
        }
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::Cluster(id) => out.extend_from_slice(id.as_bytes()),
            Self::Topic(topic) => {
                out.extend_from_slice(&topic.number.0.to_le_bytes());
                out.extend_from_slice(&topic.id);
                out.extend_from_slice(&topic.partitions.to_le_bytes());
                out.extend_from_slice(topic.name.as_bytes());
            }
            Self::Batch(batch) => encode_batch(batch, out),
            Self::Begin { partition, life, from } => {
                put_partition(out, *partition);
                out.extend_from_slice(&life.0.to_le_bytes());
                out.extend_from_slice(&from.0.to_le_bytes());
            }
            Self::Move { partition, from, stamp, skips } => {
                put_partition(out, *partition);
                out.extend_from_slice(&from.0.to_le_bytes());
                put_run(out, *stamp, skips);
            }
            Self::Anchor { partition, stamp, skips, has_out } => {
                put_partition(out, *partition);
                out.push(u8::from(*has_out));
                put_run(out, *stamp, skips);
            }
            Self::Out { partition, first, end, why } => {
                put_range(out, *partition, *first, *end);
                out.push(*why as u8);
            }
            Self::Mark { partition, settled, end_offset } => {
                put_partition(out, *partition);
                out.extend_from_slice(&settled.0.to_le_bytes());
                out.extend_from_slice(&end_offset.to_le_bytes());
            }
            Self::Leader { partition, epoch } => {
                put_partition(out, *partition);
                out.extend_from_slice(&epoch.to_le_bytes());
            }
            Self::End { partition, end } => {
                put_partition(out, *partition);
                out.extend_from_slice(&end.0.to_le_bytes());
            }
            Self::Base(base) => {
                for frame in [base.resumes, base.first, base.last] {
                    out.extend_from_slice(&frame.0.to_le_bytes());
                }
            }
            Self::Input { input, name } => {
                out.extend_from_slice(&input.0.to_le_bytes());
                out.extend_from_slice(name.as_bytes());
            }
            Self::Items { input, items } => {
                out.extend_from_slice(&input.0.to_le_bytes());
                out.extend_from_slice(&items.check.to_le_bytes());
                put_ranges(out, items.numbers.iter());
            }
            Self::Keys { forget_before_ms, keys } => {
                out.extend_from_slice(&forget_before_ms.to_le_bytes());
                keys.iter().for_each(|key| put_key(out, key));
            }
        }
    }
}

/// Appends the entry of a batch whose body is `body` to `out`.
pub fn encode_body(body: &[u8], out: &mut Vec<u8>) {
    out.push(BATCH);
    out.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(body);
}

/// Returns the length of a checkpoint's entry with this number of keys.
pub(crate) fn keys_len(count: usize) -> usize {
    if count == 0 { 0 } else { ENTRY_HEADER + KEYS_HEADER + count * RECORD_KEY_BYTES }
}

fn put_partition(out: &mut Vec<u8>, partition: Partition) {
    out.extend_from_slice(&partition.topic.0.to_le_bytes());
    out.extend_from_slice(&partition.index.to_le_bytes());
}

fn put_range(out: &mut Vec<u8>, partition: Partition, first: Ordinal, end: Ordinal) {
    put_partition(out, partition);
    out.extend_from_slice(&first.0.to_le_bytes());
    out.extend_from_slice(&end.0.to_le_bytes());
}

fn put_run(out: &mut Vec<u8>, stamp: Stamp, skips: &[(Ordinal, Ordinal)]) {
    out.extend_from_slice(&stamp.producer_id.to_le_bytes());
    out.extend_from_slice(&stamp.epoch.to_le_bytes());
    out.extend_from_slice(&stamp.base_sequence.to_le_bytes());
    put_ranges(out, skips.iter().copied());
}

fn put_ranges(out: &mut Vec<u8>, ranges: impl Iterator<Item = (Ordinal, Ordinal)>) {
    for (first, end) in ranges {
        out.extend_from_slice(&first.0.to_le_bytes());
        out.extend_from_slice(&end.0.to_le_bytes());
    }
}

fn put_key(out: &mut Vec<u8>, key: &RecordKey) {
    out.extend_from_slice(&key.key);
    out.extend_from_slice(&key.payload);
    out.extend_from_slice(&key.at_ms.to_le_bytes());
    put_partition(out, key.partition);
    out.extend_from_slice(&key.ordinal.0.to_le_bytes());
    out.extend_from_slice(&key.index.to_le_bytes());
    out.extend_from_slice(&key.count.to_le_bytes());
}

fn encode_batch(batch: &JournalBatch, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; BATCH_CRC]);
    let BatchHead { partition, life, first, count, notes } = &batch.head;
    put_partition(out, *partition);
    out.extend_from_slice(&life.0.to_le_bytes());
    out.extend_from_slice(&first.0.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&u32::try_from(notes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(notes);
    out.extend_from_slice(&batch.bytes);
    let crc = crc32c::crc32c(out.get(start + BATCH_CRC..).unwrap_or_default());
    if let Some(place) = out.get_mut(start..start + BATCH_CRC) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}

/// An entry of a frame that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodedEntry {
    /// Any entry but a batch.
    Control(Entry),
    /// A batch, whose bytes stay where they are.
    Batch {
        /// The place of its records.
        head: BatchHead,
        /// The range of the entry's body in the bytes of all entries.
        body: Range<usize>,
    },
}

/// Reads the entries of a frame, in order.
///
/// # Errors
/// [`EntryDecodeError`] at the first entry that this version can't read.
pub fn decode_all(bytes: &[u8]) -> Result<Vec<DecodedEntry>, EntryDecodeError> {
    let (mut entries, mut rest) = (Vec::new(), bytes);
    while let Some((&kind, after)) = rest.split_first() {
        let malformed = EntryDecodeError::Malformed(kind);
        let (length, after) = after.split_first_chunk::<4>().ok_or(malformed)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| malformed)?;
        let (body, after) = after.split_at_checked(length).ok_or(malformed)?;
        let end = bytes.len() - after.len();
        rest = after;
        match kind {
            BATCH => {
                let head = EntryFields(body).batch_head().ok_or(malformed)?;
                entries.push(DecodedEntry::Batch { head, body: end - length..end });
            }
            1..=14 => entries.push(DecodedEntry::Control(EntryFields(body).entry(kind).ok_or(malformed)?)),
            SKIPPABLE.. => {}
            _ => return Err(EntryDecodeError::UnknownKind(kind)),
        }
    }
    Ok(entries)
}

/// Reads a batch from the body of its entry, or returns `None` where its CRC does not match.
#[must_use]
pub fn decode_batch(body: &[u8]) -> Option<JournalBatch> {
    let (head, bytes) = checked_batch(body)?;
    Some(JournalBatch { head, bytes: bytes.into() })
}

/// Reads everything but the bytes of a batch, or returns `None` where the CRC of the whole body does not match.
#[must_use]
pub fn decode_head(body: &[u8]) -> Option<BatchHead> {
    checked_batch(body).map(|(head, _)| head)
}

fn checked_batch(body: &[u8]) -> Option<(BatchHead, &[u8])> {
    let (crc, rest) = body.split_first_chunk::<BATCH_CRC>()?;
    if u32::from_le_bytes(*crc) != crc32c::crc32c(rest) {
        return None;
    }
    let mut fields = EntryFields(body);
    Some((fields.batch_head()?, fields.0))
}

/// The bytes of a body that are not read yet.
struct EntryFields<'a>(&'a [u8]);

impl EntryFields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_le_bytes)
    }

    fn ordinal(&mut self) -> Option<Ordinal> {
        self.u64().map(Ordinal)
    }

    fn life(&mut self) -> Option<Life> {
        self.u64().map(Life)
    }

    fn partition(&mut self) -> Option<Partition> {
        let topic = TopicNumber(self.u32()?);
        Some(Partition { topic, index: self.take().map(i32::from_le_bytes)? })
    }

    fn stamp(&mut self) -> Option<Stamp> {
        let producer_id = self.i64()?;
        let epoch = self.take().map(i16::from_le_bytes)?;
        Some(Stamp { producer_id, epoch, base_sequence: self.take().map(i32::from_le_bytes)? })
    }

    fn text(&mut self) -> Option<Arc<str>> {
        let text = std::str::from_utf8(self.0).ok()?;
        self.0 = &[];
        Some(text.into())
    }

    fn topic(&mut self) -> Option<Topic> {
        let number = TopicNumber(self.u32()?);
        let id = self.take()?;
        let partitions = self.u32()?;
        Some(Topic { number, id, partitions, name: self.text()? })
    }

    fn ranges(&mut self) -> Option<Vec<(Ordinal, Ordinal)>> {
        let mut ranges = Vec::new();
        while !self.0.is_empty() {
            ranges.push((self.ordinal()?, self.ordinal()?));
        }
        Some(ranges)
    }

    fn key(&mut self) -> Option<RecordKey> {
        let (key, payload, at_ms) = (self.take()?, self.take()?, self.u64()?);
        let (partition, ordinal) = (self.partition()?, self.ordinal()?);
        let (index, count) = (self.u32()?, self.u32()?);
        (index < count).then_some(RecordKey { key, payload, at_ms, partition, ordinal, index, count })
    }

    fn keys(&mut self) -> Option<Vec<RecordKey>> {
        let mut keys = Vec::with_capacity(self.0.len() / RECORD_KEY_BYTES);
        while !self.0.is_empty() {
            keys.push(self.key()?);
        }
        Some(keys)
    }

    /// Reads up to the bytes of the batch.
    fn batch_head(&mut self) -> Option<BatchHead> {
        self.take::<BATCH_CRC>()?;
        let partition = self.partition()?;
        let life = self.life()?;
        let first = self.ordinal()?;
        let count = self.u32().filter(|count| *count > 0)?;
        let length = usize::try_from(self.u32()?).ok()?;
        let (notes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(BatchHead { partition, life, first, count, notes: notes.into() })
    }

    fn entry(mut self, kind: u8) -> Option<Entry> {
        let entry = match kind {
            1 => Entry::Cluster(self.text()?),
            2 => Entry::Topic(self.topic()?),
            4 => Entry::Begin { partition: self.partition()?, life: self.life()?, from: self.ordinal()? },
            5 => {
                let (partition, from, stamp) = (self.partition()?, self.ordinal()?, self.stamp()?);
                Entry::Move { partition, from, stamp, skips: self.ranges()? }
            }
            6 => {
                let partition = self.partition()?;
                let has_out = match self.take()? {
                    [0] => false,
                    [1] => true,
                    _ => return None,
                };
                Entry::Anchor { partition, stamp: self.stamp()?, skips: self.ranges()?, has_out }
            }
            7 => {
                let (partition, first, end) = (self.partition()?, self.ordinal()?, self.ordinal()?);
                let why = match self.take()? {
                    [1] => OutReason::Settled,
                    [2] => OutReason::Lost,
                    _ => return None,
                };
                Entry::Out { partition, first, end, why }
            }
            8 => Entry::Mark { partition: self.partition()?, settled: self.ordinal()?, end_offset: self.i64()? },
            10 => {
                let mut frame = || self.u64().map(FrameSequence);
                Entry::Base(Base { resumes: frame()?, first: frame()?, last: frame()? })
            }
            9 => Entry::End { partition: self.partition()?, end: self.ordinal()? },
            11 => Entry::Input { input: InputNumber(self.u32()?), name: self.text()? },
            12 => {
                let (input, check) = (InputNumber(self.u32()?), self.u64()?);
                let numbers = OrdinalSet::from_ranges(self.ranges()?);
                Entry::Items { input, items: ItemSet { numbers, check } }
            }
            13 => {
                let (partition, epoch) = (self.partition()?, i32::from_le_bytes(self.take()?));
                Entry::Leader { partition, epoch }
            }
            14 => Entry::Keys { forget_before_ms: self.u64()?, keys: self.keys()? },
            _ => return None,
        };
        self.0.is_empty().then_some(entry)
    }
}

#[cfg(test)]
mod tests;
