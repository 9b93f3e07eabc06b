//! The log line of a failed event. A separate thread writes this line, so the test has a subscriber for its
//! whole process, which runs no other test.

use crate::support::captured_log::CapturedLog;
use crate::support::{Producer, config, process};
use kafka_courier::events::{EventBuilder, SystemAlert};
use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Rule, TestCluster};

#[tokio::test]
async fn failed_event_logs_correlation_id() {
    if !process::is_separate(concat!(module_path!(), "::failed_event_logs_correlation_id")) {
        return;
    }
    let log = CapturedLog::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false);
    subscriber.with_writer(log.clone()).init();
    let cluster = TestCluster::builder().topic("system-events", 1).start().await.unwrap();
    let producer = Producer::build(config(&cluster)).unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Refuse(ErrorCode::TopicAuthorizationFailed)));
    let event = EventBuilder::new("tests", "1.0").with_correlation_id("c-9").system_alert(SystemAlert::default());
    producer.publish_and_wait(&event).await.unwrap_err();
    let text = log.text();
    let line = text.lines().find(|line| line.contains("becomes a dead letter")).unwrap();
    for part in ["correlation_id=\"c-9\"", "event_type=\"system.alert\"", "TOPIC_AUTHORIZATION_FAILED"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let batch = text.lines().find(|line| line.contains("events failed")).unwrap();
    assert!(batch.contains("WARN") && batch.contains("correlation_ids=[\"c-9\"]"), "{batch}");
}
