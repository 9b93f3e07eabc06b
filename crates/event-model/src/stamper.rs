//! The source of ids and timestamps, which tests and samples replace by a deterministic one.
//!
//! - The id's time and the event's timestamp are the same reading of the clock.
//! - An id takes no lock and no system call: counter and random generator belong to the thread.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use uuid::{ContextV7, Uuid};

/// Gives each new event its id and its timestamp.
pub trait Stamper: Send + Sync {
    /// Returns the id and the timestamp of one new event.
    fn stamp(&self) -> (Uuid, Timestamp);
}

impl<F: Fn() -> (Uuid, Timestamp) + Send + Sync> Stamper for F {
    fn stamp(&self) -> (Uuid, Timestamp) {
        self()
    }
}

/// The default stamper: UUIDv7 ids (RFC 9562) and the system's clock in microseconds.
///
/// Ids from one thread increase, even within a millisecond and when the clock is set back.
#[derive(Clone, Copy, Default, Debug)]
pub struct SystemStamper;

thread_local! {
    static CONTEXT: ContextV7 = const { ContextV7::new() };
}

impl Stamper for SystemStamper {
    fn stamp(&self) -> (Uuid, Timestamp) {
        // A clock before 1970 is wrong. Its events carry 1970.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        (new_id(now), timestamp(now))
    }
}

fn new_id(now: Duration) -> Uuid {
    let with = |context: &ContextV7| uuid::Timestamp::from_unix(context, now.as_secs(), now.subsec_nanos());
    // The context is gone while the thread exits. A fresh one makes the last ids.
    let timestamp = CONTEXT.try_with(with).unwrap_or_else(|_| with(&ContextV7::new()));
    Uuid::new_v7(timestamp)
}

fn timestamp(now: Duration) -> Timestamp {
    let nanos = i32::try_from(now.subsec_micros() * 1000).unwrap_or(0);
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    Timestamp::new(seconds, nanos).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_one_thread_increase() {
        let ids: Vec<_> = (0..100_000).map(|_| SystemStamper.stamp().0).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn id_is_version_7_with_time() {
        let (id, timestamp) = SystemStamper.stamp();
        assert_eq!(id.get_version_num(), 7);
        let (secs, nanos) = id.get_timestamp().unwrap().to_unix();
        let id_ms = i64::try_from(secs).unwrap() * 1000 + i64::from(nanos / 1_000_000);
        assert_eq!(id_ms, timestamp.as_millisecond());
    }

    #[test]
    fn time_beyond_calendars_never_panics() {
        assert_eq!(timestamp(Duration::MAX), Timestamp::MAX);
    }
}
