//! Metrics, through the facade `metrics`.
//!
//! The rules of this module:
//!  - Each metric is defined once, in a table made by `metric_table!`. Names follow Prometheus: base units, plural,
//!    `_total` for counters.
//!  - Only refused events are recorded singly. Otherwise a record covers at least a batch, a request or a round of the
//!    sender's task.
//!  - Labels hold topics, broker ids and Kafka's error names, never text from users.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::PublishError;
use kafka_courier_client::ErrorCode;
use kafka_courier_idempotent_sender::core::{BrokerView, Counters, FailedOutcome, Settlement, Verdict};
use kafka_courier_idempotent_sender::driver::Observation;
pub use metrics::Unit;
use metrics::{counter, gauge, histogram};

/// The kind of a metric.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum MetricKind {
    /// A value that only grows.
    Counter,
    /// A value that rises and falls.
    Gauge,
    /// A distribution.
    Histogram,
}

impl MetricKind {
    /// Returns `counter`, `gauge` or `histogram`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The documentation of one metric.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub struct MetricDoc {
    /// The name.
    pub name: &'static str,
    /// The kind.
    pub kind: MetricKind,
    /// The names of the labels.
    pub labels: &'static [&'static str],
    /// The help text.
    pub help: &'static str,
    /// Suggested upper bounds of a histogram's buckets. Empty for counters and gauges.
    pub buckets: &'static [f64],
    #[doc(hidden)]
    pub unit: Unit,
}

impl MetricDoc {
    /// Creates the documentation of a metric. `metric_table!` calls it.
    #[doc(hidden)]
    pub const fn new(
        name: &'static str,
        kind: MetricKind,
        unit: Unit,
        labels: &'static [&'static str],
        buckets: &'static [f64],
        help: &'static str,
    ) -> Self {
        Self { name, kind, labels, help, buckets, unit }
    }
}

/// OpenTelemetry's bounds for durations in seconds.
const SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Bounds for the duration of a sync, which takes well under a millisecond on a fast disk.
const SYNC_SECONDS: &[f64] = &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];
const BYTES: &[f64] = &[256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0];
const MESSAGES: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 5000.0];
const RATIO: &[f64] = &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];

/// Defines a table of metrics: a constant for each name, and `METRICS`, their documentation.
#[doc(hidden)]
#[macro_export]
macro_rules! metric_table {
    ($($constant:ident = $name:literal, $kind:ident, $unit:ident, [$($label:literal),*], $buckets:expr, $help:literal;)+) => {
        $(const $constant: &str = $name;)+

        /// The metrics of this crate, in the order of the documentation.
        pub const METRICS: &[$crate::metrics::MetricDoc] = &[$($crate::metrics::MetricDoc::new(
            $name,
            $crate::metrics::MetricKind::$kind,
            $crate::metrics::Unit::$unit,
            &[$($label),*],
            $buckets,
            $help,
        ),)+];
    };
}

metric_table! {
    SENT = "kafka_messages_sent_total", Counter, Count, ["topic"], &[], "Events acknowledged by all in-sync replicas.";
    FAILED = "kafka_messages_failed_total", Counter, Count, ["topic", "error", "outcome"], &[],
        "Events that failed, by Kafka's error name or another cause, and by outcome: unknown (possibly in the log) or not_written (certainly not).";
    REFUSED = "kafka_messages_refused_total", Counter, Count, ["reason"], &[],
        "Events that were not accepted, by reason: encode, topic_name, too_large, buffer_full, topic, topic_pending, partition, spool_full, spool, closed. The producer keeps nothing of them.";
    RETRIES = "kafka_retry_attempts_total", Counter, Count, [], &[], "Events in batches that were sent again.";
    SENT_BYTES = "kafka_message_bytes_total", Counter, Bytes, ["topic"], &[], "Bytes of acknowledged batches on the wire.";
    DELIVERY = "kafka_delivery_duration_seconds", Histogram, Seconds, ["topic"], SECONDS,
        "Time from the publishing of a batch's first event to the batch's acknowledgement.";
    QUEUE = "kafka_message_queue_duration_seconds", Histogram, Seconds, ["topic"], SECONDS,
        "Time from the publishing of a batch's first event to the batch's first attempt.";
    REQUEST = "kafka_request_duration_seconds", Histogram, Seconds, ["broker"], SECONDS, "Time from sending a Produce request to its response.";
    THROTTLE = "kafka_throttle_duration_seconds", Histogram, Seconds, ["broker"], SECONDS,
        "Throttle times that brokers demanded (KIP-219). The sum is the total throttled time.";
    BATCH_MESSAGES = "kafka_batch_messages", Histogram, Count, ["topic"], MESSAGES, "Events in an acknowledged batch.";
    BATCH_BYTES = "kafka_batch_bytes", Histogram, Bytes, ["topic"], BYTES, "Bytes of an acknowledged batch on the wire.";
    COMPRESSION = "kafka_batch_compression_ratio", Histogram, Count, ["topic"], RATIO,
        "Ratio of an acknowledged batch's bytes on the wire to its bytes before compression.";
    SPLITS = "kafka_batch_splits_total", Counter, Count, [], &[], "Batches split because a broker refused them as too large.";
    EPOCHS = "kafka_producer_epoch_raises_total", Counter, Count, [], &[], "Raises of a partition's producer epoch, after failed or lost events.";
    LOST = "kafka_acknowledged_lost_total", Counter, Count, [], &[],
        "Losses of acknowledged events by a leader. Check unclean leader elections and min.insync.replicas.";
    REQUESTS = "kafka_requests_in_flight", Gauge, Count, [], &[], "Produce requests without a response yet.";
    BUFFER = "kafka_buffer_bytes", Gauge, Bytes, [], &[], "Memory held for events without a verdict.";
    BUFFER_LIMIT = "kafka_buffer_limit_bytes", Gauge, Bytes, [], &[], "The limit on that memory, buffer_memory.";
    CONNECTIONS = "kafka_connections", Gauge, Count, ["broker", "state"], &[],
        "Connections for Produce requests, by the broker's node id and by state: open or opening.";
    SPOOL_RECORDS = "kafka_spool_records", Gauge, Count, [], &[],
        "Events in the spool that are neither delivered nor durable dead letters.";
    SPOOL_BYTES = "kafka_spool_bytes", Gauge, Bytes, [], &[], "Bytes of the stored batches with such events.";
    SPOOL_OLDEST = "kafka_spool_oldest_record_timestamp_seconds", Gauge, Seconds, [], &[],
        "Unix time of the oldest such event's record, 0 if there is none.";
    SPOOL_SYNC = "kafka_spool_sync_duration_seconds", Histogram, Seconds, [], SYNC_SECONDS,
        "Time to write and sync one round of the spool.";
    SPOOL_ROUNDS = "kafka_spool_rounds_total", Counter, Count, [], &[], "Durable rounds of the spool. A round holds all batches that waited for it.";
    METADATA = "kafka_metadata_refreshed_timestamp_seconds", Gauge, Seconds, [], &[], "Unix time of the last metadata response.";
    BUILD = "kafka_courier_build_info", Gauge, Count, ["version"], &[], "Always 1. The label has the version.";
}

/// Registers the help texts and units of `table` with the recorder.
pub fn describe(table: &[MetricDoc]) {
    for metric in table {
        match metric.kind {
            MetricKind::Counter => metrics::describe_counter!(metric.name, metric.unit, metric.help),
            MetricKind::Gauge => metrics::describe_gauge!(metric.name, metric.unit, metric.help),
            MetricKind::Histogram => metrics::describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
}

/// Counts an event that was not accepted.
pub(crate) fn count_refused(error: &PublishError) {
    counter!(REFUSED, "reason" => error.name()).increment(1);
}

/// Counts a record that was sent in a separate batch.
pub(crate) fn count_separate_batch(topic: &str, result: Result<(), (Option<ErrorCode>, FailedOutcome)>) {
    match result {
        Ok(()) => counter!(SENT, "topic" => topic.to_owned()).increment(1),
        Err((code, outcome)) => {
            let error = code.map_or("not_available", ErrorCode::name);
            let labels = [("topic", topic.to_owned()), ("error", error.into()), ("outcome", outcome.as_str().into())];
            counter!(FAILED, &labels).increment(1);
        }
    }
}

/// Counts the verdict of `records` events.
pub(crate) fn count_verdict(topic: &Arc<str>, records: u64, verdict: &Verdict) {
    match verdict {
        Verdict::Delivered { .. } => counter!(SENT, "topic" => topic.clone()).increment(records),
        Verdict::Stored => {}
        Verdict::Failed(failure) => {
            let labels = [
                ("topic", topic.clone()),
                ("error", failure.reason.name().into()),
                ("outcome", failure.outcome.as_str().into()),
            ];
            counter!(FAILED, &labels).increment(records);
        }
    }
}

/// Records the duration and size of a batch.
pub(crate) fn record_settlement<T>(topic: &Arc<str>, settlement: &Settlement<T>) {
    let topic = || topic.clone();
    if let Some(tried) = settlement.first_attempt {
        let queued = tried.saturating_duration_since(settlement.published_at);
        histogram!(QUEUE, "topic" => topic()).record(queued);
    }
    if let Verdict::Delivered { .. } = &settlement.verdict {
        let (bytes, before) = (settlement.batch.len(), settlement.batch.uncompressed_len());
        counter!(SENT_BYTES, "topic" => topic()).increment(bytes as u64);
        histogram!(DELIVERY, "topic" => topic()).record(settlement.published_at.elapsed());
        histogram!(BATCH_MESSAGES, "topic" => topic()).record(settlement.records.len());
        histogram!(BATCH_BYTES, "topic" => topic()).record(bytes as f64);
        histogram!(COMPRESSION, "topic" => topic()).record(bytes as f64 / before.max(1) as f64);
    }
}

/// Records a durable round of the spool.
pub(crate) fn record_spool_round(took: Duration) {
    histogram!(SPOOL_SYNC).record(took);
    counter!(SPOOL_ROUNDS).increment(1);
}

/// Records the counts of the spool.
pub(crate) fn record_spool_level(records: u64, bytes: u64, oldest_ms: Option<i64>) {
    gauge!(SPOOL_BYTES).set(bytes as f64);
    gauge!(SPOOL_RECORDS).set(records as f64);
    gauge!(SPOOL_OLDEST).set(oldest_ms.unwrap_or(0) as f64 / 1000.0);
}

/// Records the reports of the sender's task.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// The counters as of the last report, in the order of `counted`.
    reported: [u64; 4],
    buffered: Option<usize>,
    in_flight: Option<usize>,
    /// The open and opening connections of each broker as of the last report.
    brokers: Vec<(i32, [u32; 2])>,
}

impl Meter {
    /// Records the constant metrics.
    pub(crate) fn start(buffer_limit: usize) -> Self {
        describe(METRICS);
        gauge!(BUFFER_LIMIT).set(buffer_limit as f64);
        gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Self::default()
    }

    /// Records the sender's counters, after each round.
    pub(crate) fn counted(&mut self, counters: &Counters, in_flight: usize, buffered: usize) {
        let now = [counters.record_retries, counters.splits, counters.epoch_raises, counters.acknowledged_lost];
        for ((name, now), reported) in [RETRIES, SPLITS, EPOCHS, LOST].into_iter().zip(now).zip(&mut self.reported) {
            let before = std::mem::replace(reported, now);
            if now > before {
                counter!(name).increment(now - before);
            }
        }
        if self.buffered.replace(buffered) != Some(buffered) {
            gauge!(BUFFER).set(buffered as f64);
        }
        if self.in_flight.replace(in_flight) != Some(in_flight) {
            gauge!(REQUESTS).set(in_flight as f64);
        }
    }

    /// Records an observation of the cluster.
    pub(crate) fn observed(&mut self, observation: &Observation<'_>) {
        match observation {
            Observation::Answered { broker, took, throttle } => {
                histogram!(REQUEST, "broker" => broker.0.to_string()).record(*took);
                if *throttle > Duration::ZERO {
                    histogram!(THROTTLE, "broker" => broker.0.to_string()).record(*throttle);
                }
            }
            Observation::Brokers(brokers) => self.connections(brokers),
            Observation::Metadata => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                gauge!(METADATA).set(since.as_secs_f64());
            }
            _ => {}
        }
    }

    fn connections(&mut self, brokers: &[BrokerView]) {
        let now: Vec<_> = brokers.iter().map(|view| (view.address.id.0, [view.open, view.opening])).collect();
        let gone = self.brokers.iter().filter(|(id, _)| !now.iter().any(|(other, _)| other == id));
        let gone: Vec<_> = gone.map(|(id, _)| (*id, [0, 0])).collect();
        for (id, counts) in now.iter().chain(&gone) {
            for (state, count) in ["open", "opening"].into_iter().zip(counts) {
                gauge!(CONNECTIONS, "broker" => id.to_string(), "state" => state).set(*count);
            }
        }
        self.brokers = now;
    }
}
