//! The stamp by which a leader identifies records (KIP-98).
//!
//! Rule: each record of a batch has its own stamp: that of the batch, advanced by the record's index.

use crate::sequence::Sequence;

/// Producer id, epoch and the sequence number of a batch's first record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// The id from `InitProducerId`.
    pub producer_id: i64,
    /// The producer epoch, 0 to `i16::MAX`.
    pub epoch: i16,
    /// The sequence number of the first record, 0 to `i32::MAX`.
    pub base_sequence: i32,
}

impl Stamp {
    /// Returns the sequence number of the first record.
    #[must_use]
    pub const fn sequence(self) -> Sequence {
        Sequence::wrapping(self.base_sequence)
    }

    /// Returns the stamp of the record that follows `records` records.
    #[must_use]
    pub const fn advance(self, records: u32) -> Self {
        Self { base_sequence: self.sequence().advance(records).number(), ..self }
    }
}
