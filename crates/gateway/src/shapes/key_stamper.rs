//! [`KeyStamper`], the ids of events whose request has a key.
//!
//! Rule: a request with the same key, time and body gives its events the same ids, in each process.

use std::sync::atomic::{AtomicU64, Ordering};

use kafka_courier::events::{Stamper, Timestamp};
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

/// Gives the events of one request ids of UUID version 7, and the time of the request.
#[derive(Debug)]
pub(crate) struct KeyStamper {
    digest: [u8; 16],
    at_ms: u64,
    next: AtomicU64,
}

impl KeyStamper {
    /// Creates a stamper for the request whose key has this digest, at a time in milliseconds since 1970-01-01 UTC.
    pub(crate) fn new(digest: [u8; 16], at_ms: u64) -> Self {
        Self { digest, at_ms, next: AtomicU64::new(0) }
    }
}

impl Stamper for KeyStamper {
    fn stamp(&self) -> (Uuid, Timestamp) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut hash = Sha256::new();
        hash.update(self.digest);
        hash.update(self.at_ms.to_be_bytes());
        hash.update(number.to_be_bytes());
        let mut random = [0; 10];
        random.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
        let millis = i64::try_from(self.at_ms).unwrap_or(i64::MAX);
        let time = Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX);
        (Builder::from_unix_timestamp_millis(self.at_ms, &random).into_uuid(), time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamps(digest: u8, at_ms: u64) -> Vec<(Uuid, Timestamp)> {
        let stamper = KeyStamper::new([digest; 16], at_ms);
        (0..3).map(|_| stamper.stamp()).collect()
    }

    #[test]
    fn same_request_has_same_ids() {
        let first = stamps(1, 1_700_000_000_123);
        assert_eq!(first, stamps(1, 1_700_000_000_123));
        let ids: std::collections::BTreeSet<Uuid> = first
            .iter()
            .chain(&stamps(2, 1_700_000_000_123))
            .chain(&stamps(1, 1_700_000_000_124))
            .map(|(id, _)| *id)
            .collect();
        assert_eq!(ids.len(), 9);
        let (id, time) = first[0];
        assert_eq!((id.get_version_num(), time.as_millisecond()), (7, 1_700_000_000_123));
    }

    #[test]
    fn time_beyond_calendars_never_panics() {
        assert_eq!(stamps(1, u64::MAX)[0].1, Timestamp::MAX);
    }
}
