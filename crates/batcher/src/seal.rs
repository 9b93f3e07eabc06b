//! Decides when a batch is sealed.
//!
//! Rule: a full batch is sealed at every event. Linger applies only to a tick, and a request always seals.

use crate::limits::Limits;
use std::time::Instant;

/// Bytes of the smallest record: null key, null value, no headers.
const MIN_RECORD: usize = 7;

/// How full an open batch is. The batch has at least one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Number of records.
    pub records: u32,
    /// Bytes of the whole batch before compression, header included.
    pub bytes: usize,
    /// Time of the first push.
    pub opened_at: Instant,
}

/// The event at which a batch may be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealEvent {
    /// A record of this many bytes is about to join.
    Incoming(usize),
    /// A record has joined.
    Joined,
    /// The time is now this instant.
    Tick(Instant),
    /// The caller wants the batch now: for a flush, a close, a waiting delivery, or because memory is short.
    Asked,
}

/// Why a batch is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SealReason {
    /// The batch has `max_records`.
    Count,
    /// The next record, or the smallest record, would exceed `max_bytes`.
    Bytes,
    /// The first record has waited for `linger`.
    Linger,
    /// The caller asked for the batch.
    Asked,
}

/// Returns why a batch must be sealed now, or `None` if it stays open.
#[must_use]
pub fn seal_reason(fill: &Fill, limits: &Limits, event: SealEvent) -> Option<SealReason> {
    let incoming = match event {
        SealEvent::Incoming(bytes) => bytes,
        _ => MIN_RECORD,
    };
    if fill.records >= limits.max_records {
        return Some(SealReason::Count);
    }
    if fill.bytes.saturating_add(incoming) > limits.max_bytes {
        return Some(SealReason::Bytes);
    }
    match event {
        SealEvent::Tick(now) if now >= limits.deadline(fill.opened_at) => Some(SealReason::Linger),
        SealEvent::Asked => Some(SealReason::Asked),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LIMITS: Limits = Limits { max_records: 10, max_bytes: 1000, linger: Duration::from_millis(5) };

    fn fill(records: u32, bytes: usize) -> Fill {
        Fill { records, bytes, opened_at: Instant::now() }
    }

    #[test]
    fn batch_is_full_at_max_records() {
        assert_eq!(seal_reason(&fill(9, 100), &LIMITS, SealEvent::Joined), None);
        assert_eq!(seal_reason(&fill(10, 100), &LIMITS, SealEvent::Joined), Some(SealReason::Count));
    }

    #[test]
    fn record_may_fill_last_byte() {
        assert_eq!(seal_reason(&fill(1, 900), &LIMITS, SealEvent::Incoming(100)), None);
        assert_eq!(seal_reason(&fill(1, 900), &LIMITS, SealEvent::Incoming(101)), Some(SealReason::Bytes));
        assert_eq!(seal_reason(&fill(1, 900), &LIMITS, SealEvent::Incoming(usize::MAX)), Some(SealReason::Bytes));
    }

    #[test]
    fn batch_without_minimum_room_is_full() {
        assert_eq!(seal_reason(&fill(1, 993), &LIMITS, SealEvent::Joined), None);
        assert_eq!(seal_reason(&fill(1, 994), &LIMITS, SealEvent::Joined), Some(SealReason::Bytes));
    }

    #[test]
    fn linger_ends_at_its_deadline() {
        let fill = fill(1, 100);
        let deadline = fill.opened_at + LIMITS.linger;
        let before = deadline - Duration::from_nanos(1);
        assert_eq!(seal_reason(&fill, &LIMITS, SealEvent::Tick(before)), None);
        assert_eq!(seal_reason(&fill, &LIMITS, SealEvent::Tick(deadline)), Some(SealReason::Linger));
        assert_eq!(seal_reason(&fill, &LIMITS, SealEvent::Joined), None);
    }

    #[test]
    fn request_seals_any_batch() {
        assert_eq!(seal_reason(&fill(1, 100), &LIMITS, SealEvent::Asked), Some(SealReason::Asked));
    }
}
