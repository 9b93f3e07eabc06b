//! Requests with a key, and the events of such requests that an earlier process stored.
//!
//! Rule: the events of a request have the time of its first attempt, in each process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kafka_courier::{KafkaProducer, RequestKey, StoredRequestEvent};
use tokio::sync::watch;

use crate::limits::dedupe::{DedupeKey, DedupeTable, PayloadDigest, StoredEvents};
use crate::options::{Dedupe, GatewayConfig};
use crate::shapes::answer::Answer;

/// The means to wait for the answer to another request.
pub(super) type Waiter = watch::Receiver<Option<Arc<Answer>>>;

/// A request with a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keyed {
    pub(super) key: DedupeKey,
    pub(super) payload: PayloadDigest,
    /// The time of the request's first attempt, in milliseconds since 1970-01-01 UTC.
    pub(super) at_ms: u64,
}

/// The events of a request that an earlier process stored.
#[derive(Debug)]
pub(super) struct StoredRequest {
    pub(super) at_ms: u64,
    events: BTreeMap<u32, StoredRequestEvent>,
}

/// The keys of requests.
pub(super) type RequestTable = DedupeTable<Waiter, Arc<StoredRequest>>;

/// A request with a key that is published now.
#[derive(Debug)]
pub(super) struct KeyedRequest {
    pub(super) keyed: Keyed,
    /// The time before which keys are of no use.
    pub(super) forget_before_ms: u64,
    pub(super) stored: Option<Arc<StoredRequest>>,
}

impl KeyedRequest {
    /// Returns an event that an earlier process stored.
    pub(super) fn stored(&self, index: usize) -> Option<&StoredRequestEvent> {
        self.stored.as_ref()?.events.get(&u32::try_from(index).ok()?)
    }

    /// Returns whether an earlier process stored all of the request's events.
    pub(super) fn is_stored(&self, count: usize) -> bool {
        self.stored.as_ref().is_some_and(|stored| stored.events.len() == count)
    }

    /// Returns the key of an event, for the spool.
    pub(super) fn key(&self, index: usize, count: usize) -> Option<RequestKey> {
        let Keyed { key: DedupeKey(digest), payload, at_ms } = self.keyed;
        let (index, count) = (u32::try_from(index).ok()?, u32::try_from(count).ok()?);
        Some(RequestKey { digest, payload, at_ms, forget_before_ms: self.forget_before_ms, index, count })
    }
}

/// Returns the time in milliseconds since 1970-01-01 UTC.
pub(super) fn now_ms() -> u64 {
    // A clock before 1970 is wrong. Its requests have the time 0.
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Adds the requests whose events earlier processes stored. The spool forgets the others.
pub(super) fn recover(table: &mut RequestTable, producer: &KafkaProducer, config: &GatewayConfig) {
    let (now, now_ms) = (Instant::now(), now_ms());
    let stored = producer.take_stored_requests();
    if config.deduped() == Dedupe::Off {
        return producer.forget_request_keys(u64::MAX);
    }
    let oldest = now_ms.saturating_sub(millis(config.dedupe_window));
    producer.forget_request_keys(oldest);
    for (at_ms, key, payload, events) in requests(stored, oldest) {
        let count = events.values().map(|event| event.count as usize).max().unwrap_or(0);
        let age = Duration::from_millis(now_ms.saturating_sub(at_ms));
        let stored = StoredEvents {
            // A monotonic clock may not reach back to a time before the machine's start.
            at: now.checked_sub(age).unwrap_or(now),
            count: events.len(),
            is_whole: events.len() == count,
            events: Arc::new(StoredRequest { at_ms, events }),
        };
        table.recover(key, payload, stored);
    }
}

/// A request: time, key, payload, and its stored events by their places.
type FoundRequest = (u64, DedupeKey, PayloadDigest, BTreeMap<u32, StoredRequestEvent>);

/// Returns the requests of stored events, the oldest first. Of several requests with one key the last one counts.
fn requests(stored: Vec<StoredRequestEvent>, oldest: u64) -> Vec<FoundRequest> {
    let mut by_key: BTreeMap<DedupeKey, FoundRequest> = BTreeMap::new();
    for event in stored.into_iter().filter(|event| event.at_ms >= oldest) {
        let key = DedupeKey(event.digest);
        let new = || (event.at_ms, key, event.payload, BTreeMap::new());
        let request = by_key.entry(key).or_insert_with(new);
        if event.at_ms > request.0 {
            *request = new();
        }
        if event.at_ms == request.0 {
            request.3.insert(event.index, event);
        }
    }
    let mut requests: Vec<FoundRequest> = by_key.into_values().collect();
    requests.sort_by_key(|(at_ms, key, ..)| (*at_ms, *key));
    requests
}
