//! [`Stats`], the counts of a producer and its view of the brokers.
//!
//! Reading the statistics changes nothing. A read locks each open batch briefly.

use std::time::{Duration, Instant};

use kafka_courier_idempotent_sender::core::{BrokerView, OutageView, Reachability};
use serde::{Serialize, Serializer};

use crate::shared::Shared;
use crate::spool::{SpoolFault, SpoolStatus};
use crate::sync::{AtomicU64, Ordering};

/// The counts of a producer and its view of the brokers.
///
/// # Equations
///
/// The equation `accepted = sent + failed + stored + in_flight` holds at any time. Each accepted event is counted once, with
/// its verdict, as `sent` or as `failed`, or as `stored` if a closed producer leaves it to a later process. Events that an
/// earlier process left in the spool count as accepted by this one. A later correction (an event that failed as `unknown` is found in the log) does
/// not change the counts. A refused event was never accepted. A dead letter that is replayed is accepted again.
///
/// The metrics have the same values, summed over the producers of a process: `kafka_messages_sent_total` over all
/// topics is `sent`, `kafka_messages_failed_total` is `failed`, and `kafka_messages_refused_total` is `refused`.
///
/// `in_flight` is 0 after `close`. `delivered`, `failed` and `stored` of its report are `sent`, `failed` and `stored`.
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
    /// Events that a closed producer left in its spool for a later process. They did not fail. 0 without a spool.
    pub stored: u64,
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
    /// The spool, if the producer has one.
    pub spool: Option<SpoolStats>,
    /// Every broker that the cluster has named, by node id.
    pub brokers: Vec<BrokerStats>,
}

/// The spool of a producer. The counts are at most a quarter of a second old.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct SpoolStats {
    /// Stored events that are neither delivered nor durable dead letters.
    pub records: u64,
    /// Bytes of the batches with such events.
    pub bytes: u64,
    /// Bytes of stored batches that are in memory: they are being sent, or leave next. The disk alone has the others.
    pub resident_bytes: u64,
    /// Events that earlier processes left in the spool and that this process took over.
    pub recovered: u64,
    /// Stored events that were damaged on the disk and are lost.
    pub lost: u64,
    /// Partitions that wait, because no durable store takes their dead letters.
    pub held_partitions: u64,
    /// Why the spool accepts no events, if it accepts none.
    pub fault: Option<String>,
    /// Whether the cause is that the brokers belong to another cluster than the stored events.
    pub is_other_cluster: bool,
    /// Whether the cause is that the brokers are older than Kafka 2.8.
    pub has_outdated_brokers: bool,
}

impl SpoolStats {
    fn of(status: &SpoolStatus) -> Self {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Self {
            records: read(&status.records),
            bytes: read(&status.bytes),
            resident_bytes: read(&status.resident_bytes),
            recovered: read(&status.recovered),
            lost: read(&status.lost),
            held_partitions: read(&status.held_partitions),
            fault: status.fault().map(ToString::to_string),
            is_other_cluster: matches!(status.fault(), Some(SpoolFault::OtherCluster { .. })),
            has_outdated_brokers: matches!(status.fault(), Some(SpoolFault::OutdatedBrokers(_))),
        }
    }

    /// Returns whether the spool accepts no events, because it could not be written or belongs to another cluster.
    pub fn is_latched(&self) -> bool {
        self.fault.is_some()
    }
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
        let spool = shared.spool.as_ref().map(|spool| SpoolStats::of(&spool.status));
        let stored = counts.stored.load(Ordering::Acquire);
        let recovered = spool.as_ref().map_or(0, |spool| spool.recovered);
        let accepted = published + counts.sent_separately() + recovered;
        Self {
            accepted,
            sent,
            failed,
            stored,
            refused: counts.refused.load(Ordering::Relaxed),
            retried: counts.retried.load(Ordering::Relaxed),
            in_flight: accepted.saturating_sub(sent + failed + stored),
            buffered_bytes: shared.memory.used(),
            dead_letter_queue_size: 0,
            is_closed: shared.closed.load(Ordering::Relaxed),
            spool,
            brokers: shared.cluster.brokers().iter().map(|view| BrokerStats::of(view, now)).collect(),
        }
    }
}
