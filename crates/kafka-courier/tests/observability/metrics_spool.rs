//! Metrics of the spool. Its thread records them, so the test has a recorder for its whole process, which runs no other
//! test.

use crate::support::{LONG, Producer, config, now_ms, process, record, wait_until};
use kafka_courier_test_broker::TestCluster;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

/// Returns the new values of metrics without labels. A histogram is the number of its values.
fn values<const N: usize>(snapshotter: &Snapshotter, names: [&str; N]) -> [f64; N] {
    let recorded = snapshotter.snapshot().into_vec();
    names.map(|name| {
        let found = recorded.iter().find(|(key, ..)| format!("{}{{}}", key.key().name()) == name);
        match found.map(|(.., value)| value) {
            Some(DebugValue::Gauge(value)) => value.into_inner(),
            Some(DebugValue::Counter(count)) => *count as f64,
            Some(DebugValue::Histogram(values)) => values.len() as f64,
            None => 0.0,
        }
    })
}

#[tokio::test]
async fn spool_metrics_follow_its_events() {
    if !process::is_separate(concat!(module_path!(), "::spool_metrics_follow_its_events")) {
        return;
    }
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    let (cluster, folder) = (TestCluster::builder().topic("t", 1).start().await.unwrap(), tempfile::tempdir().unwrap());
    let mut config = config(&cluster);
    config.spool_dir = folder.path().to_str().unwrap().to_owned();
    config.spool_any_filesystem = true;
    let producer = Producer::build(config).unwrap();
    producer.send(&record("t", "k", "v")).await.unwrap().await.unwrap();
    let rounds = values(&snapshotter, ["kafka_spool_rounds_total{}", "kafka_spool_sync_duration_seconds{}"]);
    assert!(rounds[0] >= 1.0 && rounds[0] == rounds[1], "{rounds:?}");
    cluster.kill(1).await;
    let before = now_ms() as f64 / 1000.0;
    producer.send(&record("t", "k", "v")).await.unwrap().stored().await.unwrap();
    let level = || {
        let names = ["kafka_spool_records{}", "kafka_spool_bytes{}", "kafka_spool_oldest_record_timestamp_seconds{}"];
        values(&snapshotter, names)
    };
    wait_until(|| {
        let [records, bytes, oldest] = level();
        records == 1.0 && (70.0..1000.0).contains(&bytes) && (before..before + 60.0).contains(&oldest)
    })
    .await;
    assert!(cluster.restart(1).unwrap());
    assert!(producer.flush(LONG).await);
    producer.close(LONG).await;
    assert_eq!(level(), [0.0; 3]);
}
