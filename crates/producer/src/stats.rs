//! What a producer has done so far, and how it stands with the cluster.
//!
//! Rules: looking changes nothing and waits for nobody but, for a moment, those who copy into an open batch.

use std::time::{Duration, Instant};

use kafka_courier_idempotent_sender::core::{BrokerView, OutageView, Reachability};
use serde::{Serialize, Serializer};

use crate::shared::Shared;
use crate::sync::Ordering;

/// What a producer has done so far, and how it stands with the cluster.
///
/// # The books
///
/// At any time `accepted = sent + failed + in_flight`. Every event that was accepted is counted once, when it gets its
/// verdict, as `sent` or as `failed`; a verdict that is corrected later (an event that failed as `unknown` and is in the log)
/// stays counted as it was. What was refused was never accepted. A dead letter that is replayed is accepted again.
/// The metrics are the same counts: `kafka_messages_sent_total` over all topics is `sent`, `kafka_messages_failed_total` is
/// `failed`, `kafka_messages_refused_total` is `refused` (summed over the producers of a process).
/// After [`close`](crate::KafkaProducer::close) `in_flight` is 0, and its report has the same `delivered` and `failed`.
///
/// As JSON it has these names, so that a status page needs nothing more.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Events that were accepted.
    pub accepted: u64,
    /// Events acknowledged by every in-sync replica.
    pub sent: u64,
    /// Events given up.
    pub failed: u64,
    /// Events that were not accepted: who published them has the [`PublishError`](crate::PublishError), and nothing of
    /// them is kept.
    pub refused: u64,
    /// Events in batches that were sent again.
    pub retried: u64,
    /// Events that were accepted and neither acknowledged nor given up yet.
    pub in_flight: u64,
    /// Bytes of memory held for events without a verdict.
    pub buffered_bytes: usize,
    /// Dead letters held now.
    pub dead_letter_queue_size: u64,
    /// Whether it was closed.
    pub is_closed: bool,
    /// Every broker that the cluster has named, by node id.
    pub brokers: Vec<BrokerStats>,
}

/// A broker and the connections for events that there are to it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct BrokerStats {
    /// Its node id.
    pub id: i32,
    /// Where it listens, as host:port.
    pub address: String,
    /// How it stands with it; as JSON `idle`, `connecting`, `connected` or `unreachable`.
    #[serde(serialize_with = "as_name")]
    pub state: Reachability,
    /// Connections that are open.
    pub connections: u32,
    /// Its absence, while it is away.
    pub outage: Option<BrokerOutage>,
}

/// The absence of a broker: a connection to it can't be opened, a request went unanswered, or its connection was lost and
/// the cluster does not name it any more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct BrokerOutage {
    /// How long it has lasted; as JSON in milliseconds.
    #[serde(rename = "lasts_ms", serialize_with = "as_millis")]
    pub lasts: Duration,
    /// Events in sealed batches for partitions that it leads, as they were at the last attempt to reach it.
    pub events_waiting: u64,
    /// How long until the first of them fails, unless the broker is back before; as JSON in milliseconds.
    #[serde(rename = "first_fails_in_ms", serialize_with = "as_millis_if_any")]
    pub first_fails_in: Option<Duration>,
}

fn as_name<S: Serializer>(state: &Reachability, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(state.as_str())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn as_millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(millis(*duration))
}

fn as_millis_if_any<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(millis).serialize(serializer)
}

impl BrokerOutage {
    fn of(view: &OutageView, now: Instant) -> Self {
        Self {
            lasts: now.saturating_duration_since(view.since),
            events_waiting: view.waiting.events,
            first_fails_in: view.waiting.first_fails_at.map(|at| at.saturating_duration_since(now)),
        }
    }
}

impl BrokerStats {
    pub(crate) fn of(view: &BrokerView, now: Instant) -> Self {
        let (host, port) = (&view.address.host, view.address.port);
        Self {
            id: view.address.id.0,
            address: if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") },
            state: view.reachability,
            connections: view.open,
            outage: view.outage.as_ref().map(|outage| BrokerOutage::of(outage, now)),
        }
    }
}

impl Stats {
    pub(crate) fn of(shared: &Shared, dead_letter_queue_size: u64) -> Self {
        let (counts, now) = (&shared.counts, Instant::now());
        // The verdicts are read first, so that none is counted of an event that is not yet counted as accepted.
        let (sent, failed) = counts.settled();
        let published: u64 = shared.topics.all_slots().iter().map(|slot| slot.accepted()).sum();
        let accepted = published + counts.went_alone();
        Self {
            accepted,
            sent,
            failed,
            refused: counts.refused.load(Ordering::Relaxed),
            retried: counts.retried.load(Ordering::Relaxed),
            in_flight: accepted.saturating_sub(sent + failed),
            buffered_bytes: shared.memory.used(),
            dead_letter_queue_size,
            is_closed: shared.closed.load(Ordering::Relaxed),
            brokers: shared.brokers.lock().iter().map(|view| BrokerStats::of(view, now)).collect(),
        }
    }
}
