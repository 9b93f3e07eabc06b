//! The code of an application with a `MockProducer` in place of a producer.

use std::sync::Arc;
use std::time::Duration;

use crate::support::Producer;
use kafka_courier::events::{Event, EventBuilder, SystemAlert};
use kafka_courier::{
    Error, EventPublisher, FailedOutcome, Header, KafkaProducer, MockFailure, MockProducer, ProducerRecord,
    PublishError, Reason,
};
use kafka_courier_test_broker::TestCluster;

const LONG: Duration = Duration::from_secs(60);

fn alert(service: &str) -> impl Event + use<> {
    let data = SystemAlert { alert_id: "a-1".to_owned(), service: service.to_owned(), ..SystemAlert::default() };
    EventBuilder::new("tests", "1.0").with_correlation_id("c-1").system_alert(data)
}

/// Uses every method of a publisher, as an application does.
async fn run_application(publisher: Arc<dyn EventPublisher>) {
    publisher.set_topic_mapping("system.alert", "alarms").unwrap();
    assert_eq!(&*publisher.topic_for("system.alert"), "alarms");
    publisher.health_check(LONG).await.unwrap();
    let first = publisher.publish_and_wait(&alert("billing")).await.unwrap();
    assert_eq!((&*first.topic, first.partition, first.offset), ("alarms", 0, Some(0)));
    let (a, b) = (alert("billing"), alert("shipping"));
    let verdicts = publisher.publish_batch(&[&a, &b]).await.await;
    assert_eq!(verdicts.into_iter().map(|verdict| verdict.unwrap().offset).collect::<Vec<_>>(), [Some(1), Some(2)]);
    publisher.publish(&a).await.unwrap().detach();
    publisher.try_publish(&a).unwrap().detach();
    publisher.publish_to("alarms", &b).await.unwrap().detach();
    publisher.try_publish_to("alarms", &b).unwrap().detach();
    let record = ProducerRecord { topic: "alarms", value: Some(b"raw"), ..ProducerRecord::default() };
    publisher.send(&record).await.unwrap().detach();
    publisher.try_send(&record).unwrap().detach();
    assert!(publisher.flush(LONG).await);
    let stats = publisher.stats();
    assert_eq!((stats.sent, stats.failed, stats.in_flight, stats.is_closed), (9, 0, 0, false));
    let report = publisher.close(LONG).await;
    assert_eq!((report.delivered, report.failed), (9, 0));
    assert!(matches!(publisher.publish(&a).await, Err(PublishError::Closed)));
    assert!(publisher.stats().is_closed);
}

#[tokio::test]
async fn mock_behaves_like_a_producer() {
    let cluster = TestCluster::builder().topic("alarms", 1).start().await.unwrap();
    let producer = Producer::with(|builder| builder.brokers(cluster.bootstrap())).unwrap();
    run_application(Arc::new(KafkaProducer::clone(&producer))).await;
    run_application(Arc::new(MockProducer::new())).await;
}

#[tokio::test]
async fn mock_keeps_published_events() {
    let mock = MockProducer::new();
    let event = alert("billing");
    mock.publish(&event).await.unwrap().detach();
    let published = mock.take_published();
    assert_eq!((published.len(), mock.published().len()), (1, 0));
    let mut json = Vec::new();
    event.encode_into(&mut json).unwrap();
    assert_eq!(published[0].json.as_bytes(), json);
    assert_eq!((&published[0].id, &*published[0].topic), (event.id(), "system-events"));
    assert_eq!(
        (published[0].key.as_deref(), published[0].correlation_id.as_deref()),
        (Some(&b"billing"[..]), Some("c-1"))
    );
}

#[tokio::test]
async fn mock_fails_and_recovers() {
    let mock = MockProducer::new();
    mock.fail_next(MockFailure::Refuse(PublishError::BufferFull { needed: 1, waited: LONG }));
    mock.fail_next(MockFailure::GiveUp(FailedOutcome::NotWritten, Reason::NoLeader));
    mock.fail_next(MockFailure::GiveUp(FailedOutcome::Unknown, Reason::NoAnswer("cut".into())));
    let event = alert("billing");
    let error = |verdict: Result<_, Error>| verdict.unwrap_err();
    let refused = error(mock.publish_and_wait(&event).await);
    assert!(matches!(refused, Error::NotAccepted(PublishError::BufferFull { .. })), "{refused}");
    assert_eq!(error(mock.publish_and_wait(&event).await).outcome(), FailedOutcome::NotWritten);
    let unknown = error(mock.publish_and_wait(&event).await);
    assert_eq!((unknown.outcome(), unknown.is_retriable()), (FailedOutcome::Unknown, true));
    assert_eq!(mock.publish_and_wait(&event).await.unwrap().offset, Some(0), "a failed event has no offset");
    assert_eq!(mock.published()[1].given_up, Some(FailedOutcome::Unknown));
    mock.fail_all(MockFailure::GiveUp(FailedOutcome::NotWritten, Reason::NoLeader));
    mock.set_unhealthy("no broker");
    assert!(mock.publish_and_wait(&event).await.is_err() && mock.publish_and_wait(&event).await.is_err());
    assert!(mock.health_check(LONG).await.unwrap_err().to_string().contains("no broker"));
    mock.recover();
    mock.publish_and_wait(&event).await.unwrap();
    mock.health_check(LONG).await.unwrap();
    let stats = mock.stats();
    assert_eq!((stats.sent, stats.failed, stats.dead_letter_queue_size), (2, 4, 4));
}

#[tokio::test(start_paused = true)]
async fn mock_delays_its_answers() {
    let mock = MockProducer::new();
    mock.set_delay(Duration::from_secs(30));
    let delivery = mock.publish(&alert("billing")).await.unwrap();
    assert!(delivery.now().is_none() && mock.stats().in_flight == 1);
    assert!(!mock.flush(Duration::from_secs(1)).await);
    let began = tokio::time::Instant::now();
    delivery.await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 29);
    assert!(mock.flush(Duration::ZERO).await);
}

#[test]
fn mock_works_without_a_runtime() {
    let mock = MockProducer::new();
    mock.set_delay(LONG);
    assert!(mock.try_publish(&alert("billing")).unwrap().now().unwrap().is_ok());
}

#[tokio::test]
async fn mock_keeps_records_for_named_topics() {
    let mock = MockProducer::new();
    let publisher: &dyn EventPublisher = &mock;
    let headers = [Header { key: "tenant", value: Some(b"acme") }, Header { key: "empty", value: None }];
    let record = ProducerRecord { topic: "orders", key: Some(b"o-7"), headers: &headers, ..ProducerRecord::default() };
    let placed = publisher.send(&record).await.unwrap().await.unwrap();
    assert_eq!((&*placed.topic, placed.offset), ("orders", Some(0)));
    mock.fail_next(MockFailure::GiveUp(FailedOutcome::Unknown, Reason::NoLeader));
    assert_eq!(publisher.try_send(&record).unwrap().await.unwrap_err().outcome(), FailedOutcome::Unknown);

    let sent = mock.take_sent();
    assert_eq!((sent.len(), sent[0].given_up, sent[1].given_up), (2, None, Some(FailedOutcome::Unknown)));
    assert_eq!(
        (&*sent[0].topic, sent[0].key.as_deref(), sent[0].value.as_deref()),
        ("orders", Some(&b"o-7"[..]), None)
    );
    assert_eq!(sent[0].headers, [("tenant".to_owned(), Some(b"acme".to_vec())), ("empty".to_owned(), None)]);
    assert!(mock.sent().is_empty() && mock.published().is_empty());

    publisher.publish_to("logins", &alert("billing")).await.unwrap().await.unwrap();
    publisher.try_publish_to("logins", &alert("shipping")).unwrap().await.unwrap();
    assert_eq!(mock.published().iter().map(|event| &*event.topic).collect::<Vec<_>>(), ["logins", "logins"]);

    for topic in ["", "no/slash", ".."] {
        assert!(
            matches!(publisher.try_publish_to(topic, &alert("billing")), Err(PublishError::TopicName(_))),
            "{topic}"
        );
        let record = ProducerRecord { topic, ..record };
        assert!(matches!(publisher.try_send(&record), Err(PublishError::TopicName(_))), "{topic}");
    }
}
