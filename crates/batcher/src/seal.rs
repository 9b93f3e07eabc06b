//! When a batch is sealed: decided here and nowhere else.
//!
//! Rule: a full batch is full whatever the occasion; linger and asking count only when time or the caller comes.

use crate::limits::Limits;
use std::time::Instant;

/// Bytes of the smallest record there is: null key, null value, no headers.
const MIN_RECORD: usize = 7;

/// How full a batch is. It has at least one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Records in it.
    pub records: u32,
    /// Bytes of the whole batch, header included, uncompressed.
    pub bytes: usize,
    /// When its first record came.
    pub opened_at: Instant,
}

/// The occasion on which it is asked whether to seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealEvent {
    /// A record that takes this many bytes wants to join.
    Incoming(usize),
    /// A record has joined.
    Joined,
    /// Time has come to this instant.
    Tick(Instant),
    /// The caller wants the batch now: flush, close, somebody waits for it, or memory is short.
    Asked,
}

/// Why a batch is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SealReason {
    /// It has `max_records`.
    Count,
    /// The next record, or any, would take it over `max_bytes`.
    Bytes,
    /// Its first record has waited for `linger`.
    Linger,
    /// The caller asked.
    Asked,
}

/// Whether, and why, a batch is to be sealed.
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
    fn a_batch_is_full_at_max_records_and_not_before() {
        assert_eq!(seal_reason(&fill(9, 100), &LIMITS, SealEvent::Joined), None);
        assert_eq!(seal_reason(&fill(10, 100), &LIMITS, SealEvent::Joined), Some(SealReason::Count));
    }

    #[test]
    fn a_record_may_fill_a_batch_to_the_last_byte_and_no_further() {
        assert_eq!(seal_reason(&fill(1, 900), &LIMITS, SealEvent::Incoming(100)), None);
        assert_eq!(seal_reason(&fill(1, 900), &LIMITS, SealEvent::Incoming(101)), Some(SealReason::Bytes));
        assert_eq!(seal_reason(&fill(1, 900), &LIMITS, SealEvent::Incoming(usize::MAX)), Some(SealReason::Bytes));
    }

    #[test]
    fn a_batch_that_can_take_no_record_at_all_is_full() {
        assert_eq!(seal_reason(&fill(1, 993), &LIMITS, SealEvent::Joined), None);
        assert_eq!(seal_reason(&fill(1, 994), &LIMITS, SealEvent::Joined), Some(SealReason::Bytes));
    }

    #[test]
    fn linger_is_over_at_its_deadline_and_counts_only_when_time_comes() {
        let fill = fill(1, 100);
        let deadline = fill.opened_at + LIMITS.linger;
        let before = deadline - Duration::from_nanos(1);
        assert_eq!(seal_reason(&fill, &LIMITS, SealEvent::Tick(before)), None);
        assert_eq!(seal_reason(&fill, &LIMITS, SealEvent::Tick(deadline)), Some(SealReason::Linger));
        assert_eq!(seal_reason(&fill, &LIMITS, SealEvent::Joined), None);
    }

    #[test]
    fn whoever_asks_gets_the_batch() {
        assert_eq!(seal_reason(&fill(1, 100), &LIMITS, SealEvent::Asked), Some(SealReason::Asked));
    }
}
