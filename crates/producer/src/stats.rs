//! [`Stats`], the counts of a producer and its view of the brokers.
//!
//! Reading the statistics changes nothing. A read locks each open batch briefly.

use std::time::{Duration, Instant};

use kafka_courier_idempotent_sender::core::{BrokerView, OutageView, Reachability};
use serde::{Serialize, Serializer};

use crate::shared::Shared;
use crate::sync::Ordering;

/// The counts of a producer and its view of the brokers.
///
/// # Equations
///
/// The equation `accepted = sent + failed + in_flight` holds at any time. Each accepted event is counted once, with its
/// verdict, as `sent` or as `failed`. A later correction (an event that failed as `unknown` is found in the log) does
/// not change the counts. A refused event was never accepted. A dead letter that is replayed is accepted again.
///
/// The metrics have the same values, summed over the producers of a process: `kafka_messages_sent_total` over all
/// topics is `sent`, `kafka_messages_failed_total` is `failed`, and `kafka_messages_refused_total` is `refused`.
///
/// `in_flight` is 0 after `close`. `delivered` and `failed` of its report are `sent` and
/// `failed`.
///
/// # JSON
///
/// `Stats` serializes with the names of its fields, for a status page.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Events that were accepted.
    pub accepted: u64,
    /// Events acknowledged by all in-sync replicas.
    pub sent: u64,
    /// Events that failed.
    pub failed: u64,
    /// Events that were not accepted. Their publishers got a [`PublishError`](crate::PublishError), and the producer
    /// keeps nothing of them.
    pub refused: u64,
    /// Events in batches that were sent again.
    pub retried: u64,
    /// Accepted events without a verdict.
    pub in_flight: u64,
    /// Bytes of memory held for events without a verdict.
    pub buffered_bytes: usize,
    /// Dead letters held now. The engine knows none: the holder of the dead letters sets the field.
    pub dead_letter_queue_size: u64,
    /// Whether the producer is closed.
    pub is_closed: bool,
    /// Every broker that the cluster has named, by node id.
    pub brokers: Vec<BrokerStats>,
}

/// A broker, with the connections for Produce requests.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct BrokerStats {
    /// The node id.
    pub id: i32,
    /// The address, as host:port.
    pub address: String,
    /// Whether the broker is reachable. JSON has `idle`, `connecting`, `connected` or `unreachable`.
    #[serde(serialize_with = "as_name")]
    pub state: Reachability,
    /// The number of open connections.
    pub connections: u32,
    /// The broker's outage, while it lasts.
    pub outage: Option<BrokerOutage>,
}

/// The outage of a broker: a connection attempt failed, a request timed out, or a connection was lost and the cluster
/// no longer names the broker.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct BrokerOutage {
    /// The duration until now. JSON has milliseconds.
    #[serde(rename = "lasts_ms", serialize_with = "as_millis")]
    pub lasts: Duration,
    /// Events in sealed batches for partitions that the broker leads, as of the last connection attempt.
    pub events_waiting: u64,
    /// The time until the first of these events fails, unless the broker returns earlier. JSON has milliseconds.
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
    pub(crate) fn of(shared: &Shared) -> Self {
        let (counts, now) = (&shared.counts, Instant::now());
        // The verdicts are read first, so that no verdict is counted for an event that is not yet counted as accepted.
        let (sent, failed) = counts.settled();
        let published: u64 = shared.topics.all_slots().iter().map(|slot| slot.accepted()).sum();
        let accepted = published + counts.sent_separately();
        Self {
            accepted,
            sent,
            failed,
            refused: counts.refused.load(Ordering::Relaxed),
            retried: counts.retried.load(Ordering::Relaxed),
            in_flight: accepted.saturating_sub(sent + failed),
            buffered_bytes: shared.memory.used(),
            dead_letter_queue_size: 0,
            is_closed: shared.closed.load(Ordering::Relaxed),
            brokers: shared.cluster.brokers().iter().map(|view| BrokerStats::of(view, now)).collect(),
        }
    }
}
