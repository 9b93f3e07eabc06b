//! Every metric changes by the right amount.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::{LONG, Producer, config, record};
use kafka_courier::{METRICS, MetricKind, PublishError, Reachability};
use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Gate, Rule, TestCluster};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

/// Recorded values by `name{label=value}`. A counter holds the difference to the previous snapshot.
struct MetricsSnapshot(BTreeMap<String, DebugValue>);

impl MetricsSnapshot {
    fn take(snapshotter: &Snapshotter) -> Self {
        let named = |(key, _, _, value): (metrics_util::CompositeKey, _, _, _)| {
            let key = key.key();
            let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            (format!("{}{{{}}}", key.name(), labels.join(",")), value)
        };
        Self(snapshotter.snapshot().into_vec().into_iter().map(named).collect())
    }

    fn counter(&self, name: &str) -> u64 {
        match self.0.get(name) {
            Some(DebugValue::Counter(count)) => *count,
            other => panic!("{name} is {other:?}: {:#?}", self.0.keys()),
        }
    }

    fn gauge(&self, name: &str) -> f64 {
        match self.0.get(name) {
            Some(DebugValue::Gauge(value)) => value.into_inner(),
            other => panic!("{name} is {other:?}: {:#?}", self.0.keys()),
        }
    }

    fn histogram(&self, name: &str) -> Vec<f64> {
        match self.0.get(name) {
            Some(DebugValue::Histogram(values)) => values.iter().map(|value| value.into_inner()).collect(),
            other => panic!("{name} is {other:?}: {:#?}", self.0.keys()),
        }
    }
}

/// Returns a recorder for the thread of a test. The test's producer runs on the same thread.
fn recorder() -> (DebuggingRecorder, Snapshotter) {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    (recorder, snapshotter)
}

#[tokio::test]
async fn deliveries_are_measured_by_batch() {
    let (recorder, snapshotter) = recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let mut config = config(&cluster);
    config.flush_messages = 10;
    config.flush_timeout = Duration::from_secs(20);
    let producer = Producer::build(config).unwrap();
    let value = "x".repeat(1000);
    for _ in 0..30 {
        producer.send(&record("t", "k", &value)).await.unwrap().detach();
    }
    assert!(producer.flush(LONG).await);
    let seen = MetricsSnapshot::take(&snapshotter);
    assert_eq!(seen.counter("kafka_messages_sent_total{topic=t}"), 30);
    assert_eq!(seen.histogram("kafka_batch_messages{topic=t}"), [10.0; 3]);
    let bytes = seen.histogram("kafka_batch_bytes{topic=t}");
    assert_eq!(bytes.iter().sum::<f64>(), seen.counter("kafka_message_bytes_total{topic=t}") as f64);
    assert!(bytes.iter().all(|bytes| (100.0..5000.0).contains(bytes)), "{bytes:?}");
    let ratio = seen.histogram("kafka_batch_compression_ratio{topic=t}");
    assert!(ratio.len() == 3 && ratio.iter().all(|ratio| (0.001..0.5).contains(ratio)), "{ratio:?}");
    let delivery = seen.histogram("kafka_delivery_duration_seconds{topic=t}");
    let queued = seen.histogram("kafka_message_queue_duration_seconds{topic=t}");
    assert_eq!((delivery.len(), queued.len()), (3, 3));
    assert!(delivery.iter().zip(&queued).all(|(delivery, queued)| delivery >= queued));
    assert!(!seen.histogram("kafka_request_duration_seconds{broker=1}").is_empty());
    assert_eq!(seen.gauge("kafka_buffer_limit_bytes{}"), f64::from(32 << 20));
    assert!(seen.gauge("kafka_metadata_refreshed_timestamp_seconds{}") > 1.7e9);
    assert_eq!(seen.gauge(concat!("kafka_courier_build_info{version=", env!("CARGO_PKG_VERSION"), "}")), 1.0);
    assert_eq!(producer.stats().sent, 30);
}

#[tokio::test]
async fn waiting_gauges_return_to_zero() {
    let (recorder, snapshotter) = recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let producer = Producer::build(config(&cluster)).unwrap();
    let gate = Gate::new();
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Hold(gate.clone())));
    let delivery = producer.send(&record("t", "k", "v")).await.unwrap();
    gate.arrived(1).await;
    let seen = MetricsSnapshot::take(&snapshotter);
    assert_eq!(seen.gauge("kafka_requests_in_flight{}"), 1.0);
    assert!(seen.gauge("kafka_buffer_bytes{}") > 0.0);
    assert_eq!(seen.gauge("kafka_connections{broker=1,state=open}"), 1.0);
    let stats = producer.stats();
    assert_eq!((stats.in_flight, stats.sent, stats.brokers.len()), (1, 0, 1));
    assert_eq!((stats.brokers[0].state, stats.brokers[0].connections), (Reachability::Connected, 1));
    gate.open();
    delivery.await.unwrap();
    producer.close(LONG).await;
    let seen = MetricsSnapshot::take(&snapshotter);
    assert_eq!((seen.gauge("kafka_requests_in_flight{}"), seen.gauge("kafka_buffer_bytes{}")), (0.0, 0.0));
    assert_eq!(producer.stats().in_flight, 0);
}

#[tokio::test]
async fn failures_and_retries_are_counted() {
    let (recorder, snapshotter) = recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let producer = Producer::build(config(&cluster)).unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Refuse(ErrorCode::TopicAuthorizationFailed)));
    producer.send(&record("t", "k", "a")).await.unwrap().await.unwrap_err();
    cluster.inject(Rule::for_api(ApiKey::Produce).times(2).then(Fault::ApplyThenRefuse(ErrorCode::RequestTimedOut)));
    producer.send(&record("t", "k", "b")).await.unwrap().await.unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Throttle(Duration::from_millis(20))));
    producer.send(&record("t", "k", "c")).await.unwrap().await.unwrap();
    let seen = MetricsSnapshot::take(&snapshotter);
    let failed = "kafka_messages_failed_total{topic=t,error=TOPIC_AUTHORIZATION_FAILED,outcome=not_written}";
    assert_eq!(seen.counter(failed), 1);
    assert_eq!(seen.counter("kafka_messages_sent_total{topic=t}"), 2);
    assert_eq!(seen.counter("kafka_retry_attempts_total{}"), 2);
    assert_eq!(seen.histogram("kafka_throttle_duration_seconds{broker=1}"), [0.02]);
    let stats = producer.stats();
    assert_eq!((stats.sent, stats.failed, stats.retried, stats.in_flight), (2, 1, 2, 0));
}

#[tokio::test]
async fn refusals_are_counted_by_reason() {
    let (recorder, snapshotter) = recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let mut config = config(&cluster);
    config.metadata_timeout = Duration::from_secs(1);
    let producer = Producer::build(config).unwrap();
    producer.try_send(&record("t", "k", "v")).unwrap_err();
    producer.send(&record("no/name", "k", "v")).await.unwrap_err();
    producer.send(&record("nowhere", "k", "v")).await.unwrap_err();
    producer.send(&record("t", "k", "v")).await.unwrap().await.unwrap();
    producer.try_send(&kafka_courier::ProducerRecord { partition: Some(9), ..record("t", "k", "v") }).unwrap_err();
    let large = "x".repeat(2 << 20);
    for _ in 0..2 {
        producer.send(&record("t", "k", &large)).await.unwrap_err();
    }
    producer.close(LONG).await;
    producer.send(&record("t", "k", "v")).await.unwrap_err();
    let seen = MetricsSnapshot::take(&snapshotter);
    for (reason, count) in
        [("topic_pending", 1), ("topic_name", 1), ("topic", 1), ("partition", 1), ("too_large", 2), ("closed", 1)]
    {
        assert_eq!(seen.counter(&format!("kafka_messages_refused_total{{reason={reason}}}")), count, "{reason}");
    }
    assert_eq!(producer.stats().refused, 7);
}

#[tokio::test]
async fn splits_and_epoch_raises_are_counted() {
    let (recorder, snapshotter) = recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let mut config = config(&cluster);
    config.flush_messages = 2;
    config.flush_timeout = Duration::from_secs(20);
    let producer = Producer::build(config).unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Refuse(ErrorCode::MessageTooLarge)));
    for _ in 0..2 {
        producer.send(&record("t", "k", "v")).await.unwrap().detach();
    }
    assert!(producer.flush(LONG).await);
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Refuse(ErrorCode::OutOfOrderSequenceNumber)));
    for _ in 0..2 {
        producer.send(&record("t", "k", "v")).await.unwrap().detach();
    }
    assert!(producer.flush(LONG).await);
    let seen = MetricsSnapshot::take(&snapshotter);
    assert_eq!(seen.counter("kafka_batch_splits_total{}"), 1);
    assert_eq!(seen.counter("kafka_producer_epoch_raises_total{}"), 1);
    assert_eq!(seen.counter("kafka_acknowledged_lost_total{}"), 1);
    assert_eq!(seen.counter("kafka_messages_sent_total{topic=t}"), 4);
}

#[tokio::test]
async fn unreachable_broker_shows_in_stats() {
    let (recorder, snapshotter) = recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let producer = Producer::build(config(&cluster)).unwrap();
    producer.send(&record("t", "k", "v")).await.unwrap().await.unwrap();
    assert!(cluster.kill(1).await);
    let delivery = producer.send(&record("t", "k", "v")).await.unwrap();
    let unreachable = async {
        while producer.stats().brokers[0].state != Reachability::Unreachable {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, unreachable).await.unwrap();
    assert_eq!(MetricsSnapshot::take(&snapshotter).gauge("kafka_connections{broker=1,state=open}"), 0.0);
    assert!(cluster.restart(1).unwrap());
    delivery.await.unwrap();
    assert_eq!(producer.stats().brokers[0].state, Reachability::Connected);
}

#[tokio::test]
async fn stats_serialize_with_metric_names() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let producer = Producer::build(config(&cluster)).unwrap();
    producer.send(&record("t", "k", "v")).await.unwrap().await.unwrap();
    producer.close(LONG).await;
    assert!(matches!(producer.send(&record("t", "k", "v")).await, Err(PublishError::Closed)));
    let json = serde_json::to_value(producer.stats()).unwrap();
    for (name, value) in [("sent", "1"), ("failed", "0"), ("dead_letter_queue_size", "0"), ("is_closed", "true")] {
        assert_eq!(json[name].to_string(), value, "{name}");
    }
    assert_eq!(json["brokers"][0]["id"], 1);
}

#[test]
fn every_metric_has_a_test() {
    let tests =
        concat!(include_str!("metrics.rs"), include_str!("metrics_dead_letters.rs"), include_str!("metrics_spool.rs"));
    for metric in METRICS {
        assert!(tests.contains(&format!("{}{{", metric.name)), "{}", metric.name);
    }
}

#[test]
fn metric_names_follow_prometheus_conventions() {
    for metric in METRICS {
        let name = metric.name;
        assert!(name.starts_with("kafka_") && name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
        assert_eq!(name.ends_with("_total"), metric.kind == MetricKind::Counter, "{name}");
        assert_eq!(metric.buckets.is_empty(), metric.kind != MetricKind::Histogram, "{name}");
        assert!(metric.buckets.is_sorted() && !metric.help.is_empty(), "{name}");
    }
}
