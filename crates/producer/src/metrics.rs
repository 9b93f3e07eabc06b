//! What is counted and measured, for Prometheus and its like, through the facade `metrics`.
//!
//! Rules:
//! - Every metric stands once, in the table below; names follow Prometheus: base units, plural, counters end in `_total`.
//! - Nothing is recorded per event, but for those that are refused: a batch, a request or a round of the sender's task is
//!   the least.
//! - Labels hold topics, broker ids and Kafka's error names, never what users wrote.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::PublishError;
use kafka_courier_dlq::Letter;
use kafka_courier_idempotent_sender::core::{BrokerView, Counters, ErrorCode, FailedOutcome, Settlement, Verdict};
use kafka_courier_idempotent_sender::driver::Observation;
use metrics::{Unit, counter, gauge, histogram};

/// What kind of metric it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

impl MetricKind {
    /// `counter`, `gauge` or `histogram`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric as the documentation lists it.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub struct MetricDoc {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: MetricKind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it tells.
    pub help: &'static str,
    /// The upper bounds of a histogram's buckets that fit it; none for counters and gauges.
    pub buckets: &'static [f64],
    unit: Unit,
}

/// OpenTelemetry's bounds for durations in seconds.
const SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const BYTES: &[f64] = &[256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0];
const MESSAGES: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 5000.0];
const RATIO: &[f64] = &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];

macro_rules! catalogue {
    ($($constant:ident = $name:literal, $kind:ident, $unit:ident, [$($label:literal),*], $buckets:expr, $help:literal;)+) => {
        $(const $constant: &str = $name;)+

        /// Every metric, in the documentation's order.
        pub const METRICS: &[MetricDoc] = &[$(MetricDoc {
            name: $name,
            kind: MetricKind::$kind,
            labels: &[$($label),*],
            help: $help,
            buckets: $buckets,
            unit: Unit::$unit,
        },)+];
    };
}

catalogue! {
    SENT = "kafka_messages_sent_total", Counter, Count, ["topic"], &[], "Events acknowledged by every in-sync replica.";
    FAILED = "kafka_messages_failed_total", Counter, Count, ["topic", "error", "outcome"], &[],
        "Events given up, by Kafka's error name or what else stood in the way, and whether they may be in the log (unknown) or certainly are not (not_written).";
    REFUSED = "kafka_messages_refused_total", Counter, Count, ["reason"], &[],
        "Events that were not accepted, by why: encode, topic_name, too_large, buffer_full, topic, topic_pending, partition, closed. Nothing of them is kept.";
    RETRIES = "kafka_retry_attempts_total", Counter, Count, [], &[], "Events in batches that were sent again.";
    LETTERS = "kafka_dead_letter_queue_size", Gauge, Count, [], &[], "Dead letters held now.";
    KEPT = "kafka_dlq_records_total", Counter, Count, ["store", "reason"], &[],
        "Dead letters by what took them (topic, file, memory, custom; log where nothing did) and by Kafka's error name, none where no broker gave one.";
    REPLAYED = "kafka_replay_records_total", Counter, Count, ["result"], &[],
        "Dead letters that a replay has dealt with: delivered, landed (found in the log), failed, left_out, not_found, too_often, held_back (behind an earlier one of its key that stays).";
    SENT_BYTES = "kafka_message_bytes_total", Counter, Bytes, ["topic"], &[], "Bytes of acknowledged batches, as they were on the wire.";
    DELIVERY = "kafka_delivery_duration_seconds", Histogram, Seconds, ["topic"], SECONDS,
        "From the publishing of a batch's first event to the batch's acknowledgement.";
    QUEUE = "kafka_message_queue_duration_seconds", Histogram, Seconds, ["topic"], SECONDS,
        "From the publishing of a batch's first event to the first try to send it.";
    REQUEST = "kafka_request_duration_seconds", Histogram, Seconds, ["broker"], SECONDS, "From a Produce request's leaving to its answer.";
    THROTTLE = "kafka_throttle_duration_seconds", Histogram, Seconds, ["broker"], SECONDS,
        "How long brokers wanted to be left alone (KIP-219); its sum is all time throttled.";
    BATCH_MESSAGES = "kafka_batch_messages", Histogram, Count, ["topic"], MESSAGES, "Events in an acknowledged batch.";
    BATCH_BYTES = "kafka_batch_bytes", Histogram, Bytes, ["topic"], BYTES, "Bytes of an acknowledged batch, as it was on the wire.";
    COMPRESSION = "kafka_batch_compression_ratio", Histogram, Count, ["topic"], RATIO,
        "Bytes of an acknowledged batch on the wire to its bytes before compression.";
    SPLITS = "kafka_batch_splits_total", Counter, Count, [], &[], "Batches split because the broker found them too large.";
    EPOCHS = "kafka_producer_epoch_raises_total", Counter, Count, [], &[], "Epochs raised in a partition, after something was given up or lost.";
    LOST = "kafka_acknowledged_lost_total", Counter, Count, [], &[],
        "Times that a leader had lost acknowledged events: look at unclean elections and min.insync.replicas.";
    REQUESTS = "kafka_requests_in_flight", Gauge, Count, [], &[], "Produce requests that wait for their answer.";
    BUFFER = "kafka_buffer_bytes", Gauge, Bytes, [], &[], "Memory held for events that have no verdict yet.";
    BUFFER_LIMIT = "kafka_buffer_limit_bytes", Gauge, Bytes, [], &[], "What buffer_memory allows.";
    CONNECTIONS = "kafka_connections", Gauge, Count, ["broker", "state"], &[],
        "Connections for Produce requests, by the broker's node id; state is open or opening.";
    METADATA = "kafka_metadata_refreshed_timestamp_seconds", Gauge, Seconds, [], &[], "When the cluster last told its topics and leaders, as Unix time.";
    BUILD = "kafka_courier_build_info", Gauge, Count, ["version"], &[], "Always 1; the label tells the version.";
}

/// Tells the recorder what each metric is, as its `# HELP`. Called by `KafkaProducer::build`; an application that installs
/// its recorder later calls it then.
pub fn describe_metrics() {
    for metric in METRICS {
        match metric.kind {
            MetricKind::Counter => metrics::describe_counter!(metric.name, metric.unit, metric.help),
            MetricKind::Gauge => metrics::describe_gauge!(metric.name, metric.unit, metric.help),
            MetricKind::Histogram => metrics::describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
}

/// Dead letters held now.
pub(crate) fn dead_letters(held: u64) {
    gauge!(LETTERS).set(held as f64);
}

/// An event that was not accepted.
pub(crate) fn refused(error: &PublishError) {
    counter!(REFUSED, "reason" => error.name()).increment(1);
}

/// Letters that a store took.
pub(crate) fn letters_kept(store: &'static str, letters: &[Letter]) {
    for letter in letters {
        let reason = letter.error_code.clone().unwrap_or_else(|| "none".to_owned());
        counter!(KEPT, "store" => store, "reason" => reason).increment(1);
    }
}

/// Letters that a replay dealt with.
pub(crate) fn replayed(result: &'static str, letters: u64) {
    if letters > 0 {
        counter!(REPLAYED, "result" => result).increment(letters);
    }
}

/// Counts a dead letter that a replay has sent in a batch of its own.
pub(crate) fn went_alone(topic: &str, result: Result<(), (Option<ErrorCode>, FailedOutcome)>) {
    match result {
        Ok(()) => counter!(SENT, "topic" => topic.to_owned()).increment(1),
        Err((code, outcome)) => {
            let error = code.map_or("not_available", ErrorCode::name);
            let labels = [("topic", topic.to_owned()), ("error", error.into()), ("outcome", outcome.as_str().into())];
            counter!(FAILED, &labels).increment(1);
        }
    }
}

/// A verdict on so many events.
pub(crate) fn verdict(topic: &Arc<str>, records: u64, verdict: &Verdict) {
    match verdict {
        Verdict::Delivered { .. } => counter!(SENT, "topic" => topic.clone()).increment(records),
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

/// How long a batch took and how large it was.
pub(crate) fn settled<T>(topic: &Arc<str>, settlement: &Settlement<T>) {
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

/// Records what the sender's task tells.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Counters as they were told last, in the order of `counted`.
    told: [u64; 4],
    buffered: Option<usize>,
    in_flight: Option<usize>,
    /// What was last told of each broker's connections.
    brokers: Vec<(i32, [u32; 2])>,
}

impl Meter {
    /// What stays as it is.
    pub(crate) fn begin(buffer_limit: usize, letters: u64) -> Self {
        describe_metrics();
        gauge!(BUFFER_LIMIT).set(buffer_limit as f64);
        dead_letters(letters);
        gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Self::default()
    }

    /// What has happened so far, after each round.
    pub(crate) fn counted(&mut self, counters: &Counters, in_flight: usize, buffered: usize) {
        let now = [counters.record_retries, counters.splits, counters.epoch_raises, counters.acknowledged_lost];
        for ((name, now), told) in [RETRIES, SPLITS, EPOCHS, LOST].into_iter().zip(now).zip(&mut self.told) {
            let before = std::mem::replace(told, now);
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

    /// What was seen of the cluster.
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
