//! The line of an event that was given up: it is written on a thread of its own, so this test has a process for itself.
#![allow(clippy::unwrap_used)] // helpers of tests may, as tests do
mod support;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use kafka_courier::events::{EventBuilder, SystemAlert};
use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Rule, TestCluster};
use support::{Producer, config};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn an_event_that_is_given_up_has_a_line_with_its_correlation_id_and_its_reason() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false);
    subscriber.with_writer(move || writer.clone()).init();
    let cluster = TestCluster::builder().topic("system-events", 1).start().await.unwrap();
    let producer = Producer::build(config(&cluster)).unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Refuse(ErrorCode::TopicAuthorizationFailed)));
    let event = EventBuilder::new("tests", "1.0").with_correlation_id("c-9").system_alert(SystemAlert::default());
    producer.publish_and_wait(&event).await.unwrap_err();
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let line = text.lines().find(|line| line.contains("becomes a dead letter")).unwrap();
    for part in ["correlation_id=\"c-9\"", "event_type=\"system.alert\"", "TOPIC_AUTHORIZATION_FAILED"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let batch = text.lines().find(|line| line.contains("events failed")).unwrap();
    assert!(batch.contains("WARN") && batch.contains("correlation_ids=[\"c-9\"]"), "{batch}");
}
