//! The counts of events, in the statistics and the metrics.
//!
//! Rule: an event is counted before its publisher is notified.

use std::sync::Arc;

use kafka_courier_idempotent_sender::core::Verdict;

use crate::metrics;
use crate::sync::{AtomicU64, Ordering};

/// The counts of [`Stats`](crate::Stats), read without a lock. Each verdict is counted once, in `count_verdict`.
#[derive(Debug, Default)]
pub(crate) struct EventCounts {
    /// Whether the metrics count the events too. An engine that serves another one is not counted.
    is_metered: bool,
    pub(crate) sent: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) retried: AtomicU64,
    /// Events that a durable log holds for a later process.
    pub(crate) stored: AtomicU64,
    /// Events that were not accepted.
    pub(crate) refused: AtomicU64,
    /// Records that were sent in separate batches, not through the sender: delivered and failed.
    separate: [AtomicU64; 2],
}

impl EventCounts {
    pub(crate) fn new(is_metered: bool) -> Self {
        Self { is_metered, ..Self::default() }
    }

    /// Counts a verdict in the statistics and the metrics, before the publisher is notified.
    pub(crate) fn count_verdict(&self, topic: &Arc<str>, records: impl Into<u64>, verdict: &Verdict) {
        let records = records.into();
        let count = match verdict {
            Verdict::Delivered { .. } => &self.sent,
            Verdict::Failed(_) => &self.failed,
            Verdict::Stored => &self.stored,
        };
        count.fetch_add(records, Ordering::Release);
        if self.is_metered {
            metrics::count_verdict(topic, records, verdict);
        }
    }

    /// Counts a record that was sent in a separate batch.
    pub(crate) fn count_separate_batch(&self, delivered: bool) {
        let [sent, failed] = &self.separate;
        if delivered { sent } else { failed }.fetch_add(1, Ordering::Release);
    }

    /// Returns the delivered and failed events, separately sent records included.
    pub(crate) fn settled(&self) -> (u64, u64) {
        let [sent, failed] = &self.separate;
        let both =
            |own: &AtomicU64, separate: &AtomicU64| own.load(Ordering::Acquire) + separate.load(Ordering::Acquire);
        (both(&self.sent, sent), both(&self.failed, failed))
    }

    /// Returns the number of records that were sent in separate batches.
    pub(crate) fn sent_separately(&self) -> u64 {
        self.separate.iter().map(|count| count.load(Ordering::Acquire)).sum()
    }
}
