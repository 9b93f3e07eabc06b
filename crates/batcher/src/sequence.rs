//! Sequence numbers, by which a leader orders the batches of a producer id (KIP-98).
//!
//! Rules:
//!  - Sequence numbers count records from 0 to `i32::MAX`, then from 0 again, as in the Java client's
//!    `DefaultRecordBatch.incrementSequence`. All arithmetic is therefore modulo 2^31.
//!  - Of two different numbers, one precedes the other by less than half of the period. A leader keeps the last five
//!    batches of a producer id, and a partition stamps nothing new behind a batch that failed as unknown, so compared
//!    numbers are never further apart.

/// The number of sequence numbers.
const PERIOD: u32 = 1 << 31;

/// The sequence number of a record, 0 to `i32::MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Sequence(u32);

impl Sequence {
    /// The first sequence number of an epoch.
    pub const FIRST: Self = Self(0);

    /// Returns a sequence number from the wire. `None` if it is negative: Kafka writes -1 for "none".
    #[must_use]
    pub fn new(number: i32) -> Option<Self> {
        u32::try_from(number).ok().map(Self)
    }

    /// Returns the sequence number that equals `number` modulo 2^31.
    #[must_use]
    pub const fn wrapping(number: i32) -> Self {
        Self((number & i32::MAX).unsigned_abs())
    }

    /// Returns the number, as on the wire.
    #[must_use]
    #[allow(clippy::cast_possible_wrap, reason = "the number is less than 2^31")]
    pub const fn number(self) -> i32 {
        self.0 as i32
    }

    /// Returns the sequence number `records` records later. The number 0 follows `i32::MAX`.
    #[must_use]
    pub const fn advance(self, records: u32) -> Self {
        Self(self.0.wrapping_add(records) % PERIOD)
    }

    /// Returns how many records later `later` is: 0 to `i32::MAX`.
    #[must_use]
    pub const fn distance(self, later: Self) -> u32 {
        later.0.wrapping_sub(self.0) % PERIOD
    }

    /// Returns whether this number precedes another one by less than half of the period.
    #[must_use]
    pub const fn precedes(self, other: Self) -> bool {
        let distance = self.distance(other);
        distance > 0 && distance < PERIOD / 2
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(number: i32) -> Sequence {
        Sequence::new(number).unwrap()
    }

    fn any_sequence() -> impl Strategy<Value = Sequence> {
        prop_oneof![0..=i32::MAX, 0..10, i32::MAX - 10..=i32::MAX].prop_map(at)
    }

    #[test]
    fn sequence_wraps_to_zero() {
        assert_eq!(at(0).advance(0), at(0));
        assert_eq!(at(41).advance(1), at(42));
        assert_eq!(at(i32::MAX).advance(1), Sequence::FIRST);
        assert_eq!(at(i32::MAX - 1).advance(5), at(3));
        assert_eq!(at(i32::MAX).advance(u32::MAX), at(i32::MAX - 1));
    }

    #[test]
    fn negative_number_is_no_sequence() {
        assert_eq!(Sequence::new(-1), None);
        assert_eq!(Sequence::wrapping(-1), at(i32::MAX));
    }

    #[test]
    fn order_survives_the_wrap() {
        assert!(at(i32::MAX).precedes(at(0)) && !at(0).precedes(at(i32::MAX)));
        assert!(!at(7).precedes(at(7)));
        assert_eq!(at(i32::MAX - 1).distance(at(2)), 4);
    }

    proptest! {
        #[test]
        fn advance_is_additive(first in any_sequence(), a in 0_u32..1 << 31, b in 0_u32..1 << 31) {
            prop_assert_eq!(first.advance(a).advance(b), first.advance(a + b));
            prop_assert!(first.advance(a).number() >= 0);
        }

        #[test]
        fn distance_undoes_advance(first in any_sequence(), records in 0_u32..1 << 31) {
            prop_assert_eq!(first.distance(first.advance(records)), records);
        }

        #[test]
        fn advance_equals_wide_arithmetic(first in any_sequence(), records in any::<u32>()) {
            let wide = (i64::from(first.number()) + i64::from(records)).rem_euclid(1 << 31);
            prop_assert_eq!(i64::from(first.advance(records).number()), wide);
        }

        #[test]
        fn one_of_two_precedes(one in any_sequence(), other in any_sequence()) {
            let is_opposite = one.distance(other) == 1 << 30;
            prop_assert_eq!(one.precedes(other) ^ other.precedes(one), one != other && !is_opposite);
        }
    }
}
