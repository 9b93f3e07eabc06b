//! What is told of dead letters, which are kept on a thread of their own: this test has a process and a recorder for itself.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests may, as tests do
mod support;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use kafka_courier::Replay;
use kafka_courier::dlq::Selection;
use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Rule, TestCluster};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use support::{Producer, config, record};

/// What was recorded of dead letters, without what is zero; counters are as they were since the last look.
fn look(snapshotter: &Snapshotter) -> BTreeMap<String, f64> {
    let recorded = snapshotter.snapshot().into_vec().into_iter().filter_map(|(key, _, _, value)| {
        let labels: Vec<_> = key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = format!("{}{{{}}}", key.key().name(), labels.join(","));
        let value = match value {
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Counter(count) => count as f64,
            DebugValue::Histogram(_) => return None,
        };
        let of_letters = ["kafka_dead_letter_queue_size", "kafka_dlq_records_total", "kafka_replay_records_total"];
        of_letters.contains(&key.key().name()).then_some((name, value))
    });
    recorded.filter(|(_, value)| *value != 0.0).collect()
}

fn told<const N: usize>(expected: [(&str, f64); N]) -> BTreeMap<String, f64> {
    expected.map(|(name, value)| (name.to_owned(), value)).into()
}

#[tokio::test]
async fn dead_letters_are_counted_by_store_and_reason_and_are_a_gauge_that_falls_when_they_are_sent_again_or_purged() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let producer = Producer::build(config(&cluster)).unwrap();
    assert_eq!(look(&snapshotter), told([]));
    // A key for each error: the letters of one hold back none of the other.
    for (times, error, key) in [(2, ErrorCode::TopicAuthorizationFailed, "a"), (1, ErrorCode::InvalidRecord, "b")] {
        cluster.inject(Rule::for_api(ApiKey::Produce).times(times).then(Fault::Refuse(error)));
        for _ in 0..times {
            producer.send(&record("t", key, "v")).await.unwrap().await.unwrap_err();
        }
    }
    let expected = told([
        ("kafka_dead_letter_queue_size{}", 3.0),
        ("kafka_dlq_records_total{store=memory,reason=TOPIC_AUTHORIZATION_FAILED}", 2.0),
        ("kafka_dlq_records_total{store=memory,reason=INVALID_RECORD}", 1.0),
    ]);
    assert_eq!((look(&snapshotter), producer.stats().dead_letter_queue_size), (expected, 3));

    let mut replay = Replay::default();
    replay.selection.error_codes = vec!["INVALID_RECORD".to_owned()];
    producer.replay(&replay, |_| ControlFlow::Continue(())).await.unwrap();
    let expected =
        told([("kafka_dead_letter_queue_size{}", 2.0), ("kafka_replay_records_total{result=delivered}", 1.0)]);
    assert_eq!(look(&snapshotter), expected);

    assert_eq!(producer.dead_letters().purge(&Selection::default()).await.unwrap(), 2);
    assert_eq!((look(&snapshotter), producer.stats().dead_letter_queue_size), (told([]), 0));
}
