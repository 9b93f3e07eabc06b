//! What a producer has done so far, and how it stands with the cluster.
//!
//! Rules: looking changes nothing and waits for nobody but, for a moment, those who copy into an open batch.

use kafka_courier_idempotent_sender::core::BrokerView;
use serde::Serialize;

use crate::shared::Shared;
use crate::sync::Ordering;

/// What a producer has done so far, and how it stands with the cluster.
///
/// As JSON it has these names, so that a status page needs nothing more.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Stats {
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
    /// `idle` (no connection was needed, or it was closed for being idle), `connecting`, `connected`, or `unreachable`
    /// (the last connection was lost or could not be opened).
    pub state: &'static str,
    /// Connections that are open.
    pub connections: u32,
}

impl BrokerStats {
    pub(crate) fn of(view: &BrokerView) -> Self {
        let (host, port) = (&view.address.host, view.address.port);
        Self {
            id: view.address.id.0,
            address: if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") },
            state: view.reachability.as_str(),
            connections: view.open,
        }
    }
}

impl Stats {
    pub(crate) fn of(shared: &Shared, dead_letter_queue_size: u64) -> Self {
        let counts = &shared.counts;
        // Those that are decided come first, so that none that is counted as decided is missed among the sealed.
        let (sent, failed) = (counts.sent.load(Ordering::Relaxed), counts.failed.load(Ordering::Relaxed));
        let open: u64 = shared.topics.all_slots().iter().map(|slot| slot.open_records()).sum();
        let sealed = counts.sealed.load(Ordering::Relaxed);
        let (all_sent, all_failed) = counts.settled();
        Self {
            sent: all_sent,
            failed: all_failed,
            refused: counts.refused.load(Ordering::Relaxed),
            retried: counts.retried.load(Ordering::Relaxed),
            in_flight: (open + sealed).saturating_sub(sent + failed),
            buffered_bytes: shared.memory.used(),
            dead_letter_queue_size,
            is_closed: shared.closed.load(Ordering::Relaxed),
            brokers: shared.brokers.lock().clone(),
        }
    }
}
