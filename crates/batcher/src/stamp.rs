//! The stamp by which a leader identifies records (KIP-98).
//!
//! Rule: sequence numbers count records from 0 to `i32::MAX`, then from 0 again.

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

/// Returns the sequence number `n` records after `seq`. The number 0 follows `i32::MAX`, as in the Java client's
/// `DefaultRecordBatch.incrementSequence`.
#[must_use]
pub fn sequence_add(seq: i32, n: u32) -> i32 {
    let period = i64::from(i32::MAX) + 1;
    (i64::from(seq) + i64::from(n)).rem_euclid(period) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_wraps_to_zero() {
        assert_eq!(sequence_add(0, 0), 0);
        assert_eq!(sequence_add(41, 1), 42);
        assert_eq!(sequence_add(i32::MAX, 1), 0);
        assert_eq!(sequence_add(i32::MAX - 1, 5), 3);
        assert_eq!(sequence_add(i32::MAX, u32::MAX), i32::MAX - 1);
    }
}
