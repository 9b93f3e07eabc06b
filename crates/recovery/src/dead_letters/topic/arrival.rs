//! When a letter arrived in the topic, and where its records are.

use kafka_courier_dlq::{LetterId, Uuid};

/// The number of bits of a UUIDv7 below its milliseconds.
const STAMP_BITS: u32 = 80;

/// A partition and an offset.
pub(crate) type LogPosition = (i32, i64);

/// The arrival of a letter according to one of its records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arrival {
    /// The stamp of the letter's first record.
    First(Uuid),
    /// The arrival in the record of a newer version.
    Before(Uuid),
}

impl Arrival {
    /// Returns the stamp of a letter that arrives now.
    pub(crate) fn now() -> Uuid {
        LetterId::new().as_uuid()
    }

    /// Returns the arrival of a letter whose record has no stamp. The record's timestamp orders such letters, and the
    /// letter's id orders letters of the same millisecond.
    pub(crate) fn unstamped(timestamp_ms: i64, id: LetterId) -> Self {
        let millis = u128::try_from(timestamp_ms).unwrap_or(0) << STAMP_BITS;
        Self::First(Uuid::from_u128(millis | (id.as_uuid().as_u128() & ((1 << STAMP_BITS) - 1))))
    }
}
