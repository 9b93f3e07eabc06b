//! Metrics of dead letters. A separate thread stores dead letters, so the test has a recorder for its whole process,
//! which runs no other test.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::support::{Producer, config, process, record};
use kafka_courier::Replay;
use kafka_courier::dlq::Selection;
use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Rule, TestCluster};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

/// Returns the metrics of dead letters that are not zero. A counter holds the difference to the previous snapshot.
fn snapshot(snapshotter: &Snapshotter) -> BTreeMap<String, f64> {
    let recorded = snapshotter.snapshot().into_vec().into_iter().filter_map(|(key, _, _, value)| {
        let labels: Vec<_> = key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = format!("{}{{{}}}", key.key().name(), labels.join(","));
        let value = match value {
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Counter(count) => count as f64,
            DebugValue::Histogram(_) => return None,
        };
        let names = ["kafka_dead_letter_queue_size", "kafka_dlq_records_total", "kafka_replay_records_total"];
        names.contains(&key.key().name()).then_some((name, value))
    });
    recorded.filter(|(_, value)| *value != 0.0).collect()
}

fn expected_metrics<const N: usize>(expected: [(&str, f64); N]) -> BTreeMap<String, f64> {
    expected.map(|(name, value)| (name.to_owned(), value)).into()
}

/// The counters count by store and reason. The gauge falls when letters are replayed or purged.
#[tokio::test]
async fn dead_letter_metrics_follow_the_stores() {
    if !process::is_separate(concat!(module_path!(), "::dead_letter_metrics_follow_the_stores")) {
        return;
    }
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let producer = Producer::build(config(&cluster)).unwrap();
    assert_eq!(snapshot(&snapshotter), expected_metrics([]));
    // Each error has its own key, so that the letters of one error do not hold back those of the other.
    for (times, error, key) in [(2, ErrorCode::TopicAuthorizationFailed, "a"), (1, ErrorCode::InvalidRecord, "b")] {
        cluster.inject(Rule::for_api(ApiKey::Produce).times(times).then(Fault::Refuse(error)));
        for _ in 0..times {
            producer.send(&record("t", key, "v")).await.unwrap().await.unwrap_err();
        }
    }
    let expected = expected_metrics([
        ("kafka_dead_letter_queue_size{}", 3.0),
        ("kafka_dlq_records_total{store=memory,reason=TOPIC_AUTHORIZATION_FAILED}", 2.0),
        ("kafka_dlq_records_total{store=memory,reason=INVALID_RECORD}", 1.0),
    ]);
    assert_eq!((snapshot(&snapshotter), producer.stats().dead_letter_queue_size), (expected, 3));

    let mut replay = Replay::default();
    replay.selection.error_codes = vec!["INVALID_RECORD".to_owned()];
    producer.replay(&replay, |_| ControlFlow::Continue(())).await.unwrap();
    let expected = expected_metrics([
        ("kafka_dead_letter_queue_size{}", 2.0),
        ("kafka_replay_records_total{result=delivered}", 1.0),
    ]);
    assert_eq!(snapshot(&snapshotter), expected);

    assert_eq!(producer.dead_letters().purge(&Selection::default()).await.unwrap(), 2);
    assert_eq!((snapshot(&snapshotter), producer.stats().dead_letter_queue_size), (expected_metrics([]), 0));
}
