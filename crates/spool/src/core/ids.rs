//! The identity of a spool, its segments, its lives, its topics and its records.

/// The identity of a spool, drawn at its creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpoolId(pub [u8; 16]);

/// A segment's number. Numbers are never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentNumber(pub u64);

impl SegmentNumber {
    /// Returns the number of the segment after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// One opening of a spool by one process. The first has the number 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Life(pub u64);

/// The number of a record among all records that a spool ever took for a partition, from 0. Also the number of an item in
/// its input.
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
