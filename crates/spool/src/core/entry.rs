//! Entries: the facts that a frame holds.
//!
//! ```text
//! kind u8 | length of the body u32 | body
//! ```
//!
//! Rules:
//!  - All numbers are little-endian.
//!  - A reader skips an unknown kind from 128 on. An unknown kind below 128 refuses the journal: its meaning is needed.
//!  - A body has the length that its kind demands. Anything else refuses the frame.

use std::sync::Arc;

use kafka_courier_batcher::Stamp;

use super::frame::FrameSequence;
use super::ids::{Life, SegmentNumber};

/// The number of a record among all records that a spool ever took for a partition, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ordinal(pub u64);

impl Ordinal {
    /// Returns the ordinal `n` records later.
    #[must_use]
    pub fn plus(self, n: u64) -> Self {
        Self(self.0.saturating_add(n))
    }
}

/// A topic's number within a spool. A topic that is deleted and created again has another number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicNumber(pub u32);

/// A partition of a topic of the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    /// The topic.
    pub topic: TopicNumber,
    /// Kafka's index of the partition.
    pub index: i32,
}

/// A topic as the cluster named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// The number within the spool.
    pub number: TopicNumber,
    /// The name.
    pub name: Arc<str>,
    /// Kafka's topic id (KIP-516).
    pub id: [u8; 16],
    /// The number of partitions.
    pub partitions: u32,
}

/// A run of records of a partition as they were accepted, encoded as in a Kafka record batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The partition.
    pub partition: Partition,
    /// The life that accepted the records.
    pub life: Life,
    /// The first record's ordinal.
    pub first: Ordinal,
    /// The number of records, at least one.
    pub count: u32,
    /// The timestamp to which the records' deltas refer, in milliseconds since the Unix epoch.
    pub base_timestamp: i64,
    /// The encoded records.
    pub records: Arc<[u8]>,
}

impl Piece {
    /// Returns the ordinal after the last record.
    #[must_use]
    pub fn end(&self) -> Ordinal {
        self.first.plus(u64::from(self.count))
    }
}

/// One fact of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The cluster that the records are for, by Kafka's cluster id.
    Cluster(Arc<str>),
    /// A topic.
    Topic(Topic),
    /// A life's producer id, with the epoch that the cluster gave.
    Bind {
        /// The life.
        life: Life,
        /// The producer id.
        producer_id: i64,
        /// The epoch.
        epoch: i16,
    },
    /// Records.
    Piece(Piece),
    /// The first ordinal that a life accepted in a partition.
    Begin {
        /// The partition.
        partition: Partition,
        /// The life.
        life: Life,
        /// The ordinal.
        from: Ordinal,
    },
    /// A batch holds the ordinals from `first` up to `end`, which is not included.
    Cut {
        /// The partition.
        partition: Partition,
        /// The first ordinal.
        first: Ordinal,
        /// The ordinal after the last.
        end: Ordinal,
    },
    /// The records from an ordinal on have this stamp. The entry follows the entries that accept that record
    /// and bind its producer id.
    Move {
        /// The partition.
        partition: Partition,
        /// The first ordinal of the stamp.
        from: Ordinal,
        /// The stamp of that record.
        stamp: Stamp,
    },
    /// Records that are not sent: they are dead letters, or lost.
    Out {
        /// The partition.
        partition: Partition,
        /// The first ordinal.
        first: Ordinal,
        /// The ordinal after the last.
        end: Ordinal,
        /// Why they are not sent.
        why: OutReason,
    },
    /// Every record before an ordinal is settled.
    Mark {
        /// The partition.
        partition: Partition,
        /// The ordinal after the last settled record.
        settled: Ordinal,
        /// The end offset of the log up to which the settled records are known to be, or -1.
        end_offset: i64,
    },
    /// The ordinal after the last accepted record, in a checkpoint.
    End {
        /// The partition.
        partition: Partition,
        /// The ordinal.
        end: Ordinal,
    },
    /// The frames of a base.
    Base(Base),
    /// The oldest segment in use when a checkpoint was written. Older ones are recycled.
    Oldest(SegmentNumber),
}

/// A base: frames that hold the whole state of a spool, records included. An opening writes one.
///
/// A reader begins at the last base of which it has every frame. The frames between `resumes` and `first` are void: they
/// belong to the unsynced tail of an earlier life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// The last earlier frame that the base takes in.
    pub resumes: FrameSequence,
    /// The first frame of the base.
    pub first: FrameSequence,
    /// The last frame of the base.
    pub last: FrameSequence,
}

/// Why a record is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum OutReason {
    /// The record is a durable dead letter.
    DeadLetter = 1,
    /// The bytes of the record were damaged on the disk.
    Lost = 2,
}

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

impl Entry {
    fn kind(&self) -> u8 {
        match self {
            Self::Cluster(_) => 1,
            Self::Topic(_) => 2,
            Self::Bind { .. } => 3,
            Self::Piece(_) => 4,
            Self::Begin { .. } => 5,
            Self::Cut { .. } => 6,
            Self::Move { .. } => 7,
            Self::Out { .. } => 8,
            Self::Mark { .. } => 9,
            Self::Base(_) => 10,
            Self::Oldest(_) => 11,
            Self::End { .. } => 12,
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
            Self::Bind { life, producer_id, epoch } => {
                out.extend_from_slice(&life.0.to_le_bytes());
                out.extend_from_slice(&producer_id.to_le_bytes());
                out.extend_from_slice(&epoch.to_le_bytes());
            }
            Self::Piece(piece) => {
                put_partition(out, piece.partition);
                out.extend_from_slice(&piece.life.0.to_le_bytes());
                out.extend_from_slice(&piece.first.0.to_le_bytes());
                out.extend_from_slice(&piece.count.to_le_bytes());
                out.extend_from_slice(&piece.base_timestamp.to_le_bytes());
                out.extend_from_slice(&piece.records);
            }
            Self::Begin { partition, life, from } => {
                put_partition(out, *partition);
                out.extend_from_slice(&life.0.to_le_bytes());
                out.extend_from_slice(&from.0.to_le_bytes());
            }
            Self::Cut { partition, first, end } => put_range(out, *partition, *first, *end),
            Self::Move { partition, from, stamp } => {
                put_partition(out, *partition);
                out.extend_from_slice(&from.0.to_le_bytes());
                out.extend_from_slice(&stamp.producer_id.to_le_bytes());
                out.extend_from_slice(&stamp.epoch.to_le_bytes());
                out.extend_from_slice(&stamp.base_sequence.to_le_bytes());
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
            Self::End { partition, end } => {
                put_partition(out, *partition);
                out.extend_from_slice(&end.0.to_le_bytes());
            }
            Self::Oldest(segment) => out.extend_from_slice(&segment.0.to_le_bytes()),
            Self::Base(base) => {
                for frame in [base.resumes, base.first, base.last] {
                    out.extend_from_slice(&frame.0.to_le_bytes());
                }
            }
        }
    }
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

/// Reads the entries of a frame, in order.
///
/// # Errors
/// [`EntryDecodeError`] at the first entry that this version can't read.
pub fn decode_all(mut bytes: &[u8]) -> Result<Vec<Entry>, EntryDecodeError> {
    let mut entries = Vec::new();
    while let Some((&kind, rest)) = bytes.split_first() {
        let malformed = EntryDecodeError::Malformed(kind);
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(malformed)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| malformed)?;
        let (body, rest) = rest.split_at_checked(length).ok_or(malformed)?;
        bytes = rest;
        match kind {
            1..=12 => entries.push(EntryFields(body).entry(kind).ok_or(malformed)?),
            SKIPPABLE.. => {}
            _ => return Err(EntryDecodeError::UnknownKind(kind)),
        }
    }
    Ok(entries)
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

    fn piece(&mut self) -> Option<Piece> {
        let partition = self.partition()?;
        let life = self.life()?;
        let first = self.ordinal()?;
        let count = self.u32().filter(|count| *count > 0)?;
        let base_timestamp = self.i64()?;
        let records = std::mem::take(&mut self.0).into();
        Some(Piece { partition, life, first, count, base_timestamp, records })
    }

    fn entry(mut self, kind: u8) -> Option<Entry> {
        let entry = match kind {
            1 => Entry::Cluster(self.text()?),
            2 => Entry::Topic(self.topic()?),
            3 => {
                let (life, producer_id) = (self.life()?, self.i64()?);
                Entry::Bind { life, producer_id, epoch: self.take().map(i16::from_le_bytes)? }
            }
            4 => Entry::Piece(self.piece()?),
            5 => Entry::Begin { partition: self.partition()?, life: self.life()?, from: self.ordinal()? },
            6 => Entry::Cut { partition: self.partition()?, first: self.ordinal()?, end: self.ordinal()? },
            7 => Entry::Move { partition: self.partition()?, from: self.ordinal()?, stamp: self.stamp()? },
            8 => {
                let (partition, first, end) = (self.partition()?, self.ordinal()?, self.ordinal()?);
                let why = match self.take()? {
                    [1] => OutReason::DeadLetter,
                    [2] => OutReason::Lost,
                    _ => return None,
                };
                Entry::Out { partition, first, end, why }
            }
            9 => Entry::Mark { partition: self.partition()?, settled: self.ordinal()?, end_offset: self.i64()? },
            10 => {
                let mut frame = || self.u64().map(FrameSequence);
                Entry::Base(Base { resumes: frame()?, first: frame()?, last: frame()? })
            }
            12 => Entry::End { partition: self.partition()?, end: self.ordinal()? },
            11 => Entry::Oldest(SegmentNumber(self.u64()?)),
            _ => return None,
        };
        self.0.is_empty().then_some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_of_each() -> Vec<Entry> {
        let partition = Partition { topic: TopicNumber(2), index: 7 };
        let (first, end) = (Ordinal(3), Ordinal(9));
        let piece =
            Piece { partition, life: Life(1), first, count: 6, base_timestamp: -5, records: (*b"records").into() };
        let topic = Topic { number: TopicNumber(2), name: "orders".into(), id: [4; 16], partitions: 12 };
        vec![
            Entry::Cluster("cluster".into()),
            Entry::Topic(topic),
            Entry::Bind { life: Life(1), producer_id: 4001, epoch: 2 },
            Entry::Piece(piece),
            Entry::Begin { partition, life: Life(1), from: first },
            Entry::Cut { partition, first, end },
            Entry::Move { partition, from: first, stamp: Stamp { producer_id: 5, epoch: 1, base_sequence: 17 } },
            Entry::Out { partition, first, end, why: OutReason::Lost },
            Entry::Mark { partition, settled: end, end_offset: -1 },
            Entry::Base(Base { resumes: FrameSequence(3), first: FrameSequence(7), last: FrameSequence(8) }),
            Entry::Oldest(SegmentNumber(4)),
            Entry::End { partition, end },
        ]
    }

    fn encoded(entries: &[Entry]) -> Vec<u8> {
        let mut bytes = Vec::new();
        entries.iter().for_each(|entry| entry.encode(&mut bytes));
        bytes
    }

    #[test]
    fn entries_read_back() {
        let entries = one_of_each();
        assert_eq!(decode_all(&encoded(&entries)), Ok(entries));
    }

    #[test]
    fn every_shorter_body_is_malformed() {
        for entry in one_of_each() {
            // A text and the records of a piece may end anywhere.
            let fixed = match &entry {
                Entry::Cluster(_) => continue,
                Entry::Topic(topic) => topic.name.len(),
                Entry::Piece(piece) => piece.records.len(),
                _ => 0,
            };
            let whole = encoded(&[entry]);
            for length in 5..whole.len() - fixed {
                let mut bytes = whole[..length].to_vec();
                bytes[1..5].copy_from_slice(&(length as u32 - 5).to_le_bytes());
                assert_eq!(decode_all(&bytes), Err(EntryDecodeError::Malformed(whole[0])));
            }
        }
    }

    #[test]
    fn unknown_kinds_skip_or_refuse() {
        let skipped = [200, 2, 0, 0, 0, 1, 2];
        assert_eq!(decode_all(&skipped), Ok(vec![]));
        assert_eq!(decode_all(&[100, 0, 0, 0, 0]), Err(EntryDecodeError::UnknownKind(100)));
    }
}
