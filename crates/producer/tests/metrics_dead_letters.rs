//! The gauge of dead letters, which are kept on a thread of their own: this test has a process and a recorder for itself.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests may, as tests do
mod support;

use kafka_courier::KafkaProducer;
use kafka_courier::dlq::Selection;
use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Rule, TestCluster};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use support::{config, record};

fn gauge(snapshotter: &Snapshotter) -> f64 {
    let mut recorded = snapshotter.snapshot().into_vec().into_iter();
    let found = recorded.find(|(key, ..)| key.key().name() == "kafka_dead_letter_queue_size");
    match found.unwrap().3 {
        DebugValue::Gauge(value) => value.into_inner(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn dead_letters_are_a_gauge_that_falls_when_they_are_purged() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let producer = KafkaProducer::build(config(&cluster)).unwrap();
    assert_eq!(gauge(&snapshotter), 0.0);
    cluster.inject(Rule::on(ApiKey::Produce).times(2).then(Fault::Refuse(ErrorCode::TopicAuthorizationFailed)));
    for _ in 0..2 {
        producer.send(&record("t", "k", "v")).await.unwrap().await.unwrap_err();
    }
    assert_eq!((gauge(&snapshotter), producer.stats().dead_letter_queue_size), (2.0, 2));
    assert_eq!(producer.dead_letters().purge(&Selection::default()).await.unwrap(), 2);
    assert_eq!((gauge(&snapshotter), producer.stats().dead_letter_queue_size), (0.0, 0));
}
