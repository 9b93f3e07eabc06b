//! Metrics of the service, and the text of all metrics of the process.
//!
//! Rules:
//! - Labels hold routes, statuses and codes of this service, never text from clients.
//! - A counter without labels exists from the start, so that alerts see its first increase.

use std::time::Duration;

use kafka_courier::METRICS as PRODUCER;
use kafka_courier::MetricKind;
use metrics::{Unit, counter, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

const DURATION: &str = "http_server_request_duration_seconds";
const ACTIVE: &str = "http_server_active_requests";
const CONNECTIONS: &str = "http_server_connections";
const BODIES: &str = "http_server_body_bytes";
const WINDOW: &str = "kafka_dedupe_window_seconds";
const SUCCEEDED: &str = "http_server_events_succeeded_total";
const FAILED: &str = "http_server_events_failed_total";
/// OpenTelemetry's buckets for durations of requests.
const BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// The text of all metrics of the process, for Prometheus.
#[derive(Clone, Default)]
pub struct MetricsText(Option<PrometheusHandle>);

impl std::fmt::Debug for MetricsText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("MetricsText").field(&self.0.is_some()).finish()
    }
}

impl MetricsText {
    /// Installs the recorder of the process. Call it before the producer is built. A process with another recorder keeps
    /// it, and the text is empty.
    pub fn install() -> Self {
        let with_buckets = |builder: PrometheusBuilder, name: &str, buckets: &[f64]| {
            // The only error is an empty list of buckets.
            builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets).unwrap_or_default()
        };
        let histograms = PRODUCER.iter().filter(|metric| !metric.buckets.is_empty());
        let own = with_buckets(PrometheusBuilder::new(), DURATION, BUCKETS);
        let builder = histograms.fold(own, |builder, metric| with_buckets(builder, metric.name, metric.buckets));
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            return Self(None);
        }
        describe();
        Self(Some(handle))
    }

    /// Returns the text.
    pub(super) fn render(&self) -> String {
        self.0.as_ref().map(PrometheusHandle::render).unwrap_or_default()
    }

    /// Does the recorder's regular work.
    pub(super) fn run_upkeep(&self) {
        self.0.iter().for_each(PrometheusHandle::run_upkeep);
    }
}

fn describe() {
    kafka_courier::describe_metrics();
    for metric in PRODUCER.iter().filter(|metric| metric.labels.is_empty() && metric.kind == MetricKind::Counter) {
        counter!(metric.name).increment(0);
    }
    metrics::describe_histogram!(
        DURATION,
        Unit::Seconds,
        "Time from a request's head to its answer, by method, route and status."
    );
    metrics::describe_gauge!(ACTIVE, Unit::Count, "Requests for events without an answer yet.");
    metrics::describe_gauge!(CONNECTIONS, Unit::Count, "Open connections for events.");
    metrics::describe_gauge!(BODIES, Unit::Bytes, "Memory held for bodies of requests.");
    metrics::describe_gauge!(
        WINDOW,
        Unit::Seconds,
        "Time for which answers to requests with an idempotency-key are repeated. A full table shortens it."
    );
    metrics::describe_counter!(SUCCEEDED, Unit::Count, "Events of requests that succeeded.");
    metrics::describe_counter!(FAILED, Unit::Count, "Events of requests that failed.");
    counter!(SUCCEEDED).increment(0);
    counter!(FAILED).increment(0);
}

/// Sets the number of open connections.
pub(super) fn connections(open: usize) {
    gauge!(CONNECTIONS).set(open as f64);
}

/// Sets the memory for bodies.
pub(super) fn body_bytes(bytes: usize) {
    gauge!(BODIES).set(bytes as f64);
}

/// Sets the time for which keys of requests are known.
pub(super) fn dedupe_window(window: Duration) {
    gauge!(WINDOW).set(window.as_secs_f64());
}

/// Changes the number of requests without an answer.
pub(super) fn active_requests(change: f64) {
    gauge!(ACTIVE).increment(change);
}

/// Records an answered request. `counts` are the events that succeeded, and that failed.
pub(super) fn answered(method: &'static str, route: &'static str, status: u16, counts: (usize, usize), took: Duration) {
    let labels = [
        ("http_request_method", method.to_owned()),
        ("http_route", route.to_owned()),
        ("http_response_status_code", status.to_string()),
    ];
    histogram!(DURATION, &labels).record(took.as_secs_f64());
    let (succeeded, failed) = counts;
    counter!(SUCCEEDED).increment(succeeded as u64);
    counter!(FAILED).increment(failed as u64);
}
