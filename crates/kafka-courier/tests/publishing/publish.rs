//! The methods that build a producer and publish events.

use std::time::Duration;

use crate::support::{LONG, Producer, config, producer, record};
use kafka_courier::events::{Event, EventBuilder, SystemAlert, UserLoggedIn};
use kafka_courier::{Builder, ConnectError, Error, FailedOutcome, ProducerRecord, PublishError};
use kafka_courier_test_broker::{ApiKey, Fault, Gate, Rule, TestCluster};

fn alert(service: &str) -> impl Event + use<> {
    let data = SystemAlert { alert_id: "a-1".to_owned(), service: service.to_owned(), ..SystemAlert::default() };
    EventBuilder::new("tests", "1.0").system_alert(data)
}

async fn cluster() -> TestCluster {
    TestCluster::builder().topic("system-events", 3).topic("user-events", 3).topic("t", 1).start().await.unwrap()
}

#[tokio::test]
async fn connect_waits_for_the_cluster() {
    let cluster = cluster().await;
    let producer =
        Producer::connect_with(|builder| builder.brokers(cluster.bootstrap()).client_id("me")).await.unwrap();
    assert!(cluster.requests(ApiKey::Metadata) > 0);
    producer.publish_and_wait(&alert("billing")).await.unwrap();
    assert_eq!(cluster.record_count("system-events"), 1);
}

#[tokio::test]
async fn connect_reports_config_and_health_errors() {
    let wrong = Producer::connect_with(|builder| builder.max_in_flight(6)).await.unwrap_err();
    assert!(matches!(wrong, ConnectError::Config(_)), "{wrong}");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    let options = |builder: Builder| builder.brokers(silent).metadata_timeout(Duration::from_millis(50));
    let unhealthy = Producer::connect_with(options).await.unwrap_err();
    assert!(matches!(unhealthy, ConnectError::Health(_)), "{unhealthy}");
}

#[test]
fn build_without_runtime_is_an_error() {
    let error = Producer::with(|builder| builder).unwrap_err();
    assert!(error.to_string().contains("tokio runtime"), "{error}");
}

#[tokio::test]
async fn try_publish_requests_unknown_topics() {
    let cluster = cluster().await;
    let producer = producer(&cluster);
    let error = producer.try_publish(&alert("billing")).unwrap_err();
    assert!(matches!(&error, PublishError::TopicPending { topic } if &**topic == "system-events"), "{error}");
    assert!(error.is_retriable());
    let delivery = loop {
        match producer.try_publish(&alert("billing")) {
            Err(PublishError::TopicPending { .. }) => tokio::task::yield_now().await,
            other => break other.unwrap(),
        }
    };
    delivery.await.unwrap();
    let known = ProducerRecord { topic: "system-events", ..record("", "k", "v") };
    producer.try_send(&known).unwrap().await.unwrap();
    assert_eq!(cluster.record_count("system-events"), 2);
    producer.close(LONG).await;
    assert!(matches!(producer.try_send(&record("t", "k", "v")), Err(PublishError::Closed)), "a new topic too");
}

#[tokio::test]
async fn try_send_fails_without_memory() {
    let cluster = cluster().await;
    let mut config = config(&cluster);
    (config.buffer_memory, config.flush_bytes, config.max_block) = (1 << 20, 100_000, LONG);
    config.compression = kafka_courier::Compression::None;
    let producer = Producer::build(config).unwrap();
    producer.send(&record("t", "k", "v")).await.unwrap().await.unwrap();
    let gate = Gate::new();
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(Fault::Hold(gate.clone())));
    let value = "x".repeat(10_000);
    let mut accepted = Vec::new();
    let refused = loop {
        match producer.try_send(&record("t", "k", &value)) {
            Ok(delivery) => accepted.push(delivery),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, PublishError::BufferFull { waited: Duration::ZERO, .. }), "{refused}");
    gate.open();
    for delivery in accepted {
        delivery.await.unwrap();
    }
    producer.try_send(&record("t", "k", &value)).unwrap().await.unwrap();
}

/// The verdicts include refused events.
#[tokio::test]
async fn batch_verdicts_keep_event_order() {
    let cluster = cluster().await;
    let mut config = config(&cluster);
    config.metadata_timeout = Duration::from_secs(1);
    let producer = Producer::build(config).unwrap();
    let builder = EventBuilder::new("tests", "1.0");
    let login = || UserLoggedIn { user_id: "u".into(), ..UserLoggedIn::default() };
    producer.set_topic_mapping("system.alert", "nowhere").unwrap();
    let events: Vec<Box<dyn Event>> = vec![
        Box::new(builder.user_logged_in(login())),
        Box::new(alert("billing")),
        Box::new(builder.user_logged_in(login())),
    ];
    let verdicts = producer.publish_batch(&events).await.await;
    assert_eq!(verdicts.len(), 3);
    let offset = |index: usize| verdicts[index].as_ref().unwrap().offset;
    assert_eq!((offset(0), offset(2)), (Some(0), Some(1)));
    let refused = verdicts[1].as_ref().unwrap_err();
    assert!(matches!(refused, Error::NotAccepted(PublishError::Topic { .. })), "{refused}");
    assert_eq!(refused.outcome(), FailedOutcome::NotWritten);
    assert!(producer.publish_batch::<Box<dyn Event>>(&[]).await.await.is_empty());
}

#[tokio::test]
async fn batch_deliveries_can_be_iterated() {
    let cluster = cluster().await;
    let producer = producer(&cluster);
    let events: Vec<_> = (0..250).map(|_| alert("billing")).collect();
    let deliveries = producer.publish_batch(&events).await;
    assert_eq!((deliveries.len(), deliveries.iter().filter(|outcome| outcome.is_ok()).count()), (250, 250));
    for (offset, outcome) in (0..).zip(deliveries) {
        assert_eq!(outcome.unwrap().await.unwrap().offset, Some(offset));
    }
}

#[tokio::test(start_paused = true)]
async fn batch_waits_once_for_memory() {
    let cluster = cluster().await;
    let mut config = config(&cluster);
    (config.buffer_memory, config.flush_bytes) = (1 << 20, 100_000);
    (config.max_block, config.flush_timeout) = (Duration::from_secs(5), Duration::from_secs(1));
    config.request_timeout = LONG;
    config.compression = kafka_courier::Compression::None;
    let producer = Producer::build(config).unwrap();
    producer.send(&record("system-events", "k", "v")).await.unwrap().await.unwrap();
    let gate = Gate::new();
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(Fault::Hold(gate.clone())));
    let big = "x".repeat(50_000);
    let events: Vec<_> = (0..100).map(|_| alert(&big)).collect();
    let began = tokio::time::Instant::now();
    let deliveries = producer.publish_batch(&events).await;
    let waited = began.elapsed();
    // The batch waits once for 5 s. The deadline is on the real clock, so real time shortens the paused wait.
    assert!((1..10).contains(&waited.as_secs()), "{waited:?}");
    let refused = deliveries.iter().filter(|outcome| matches!(outcome, Err(PublishError::BufferFull { .. }))).count();
    assert!((50..100).contains(&refused), "{refused}");
    gate.open();
    let verdicts = deliveries.await;
    assert_eq!(verdicts.iter().filter(|verdict| verdict.is_ok()).count(), 100 - refused);
}

#[tokio::test]
async fn detached_deliveries_are_completed() {
    let cluster = cluster().await;
    let producer = producer(&cluster);
    producer.publish(&alert("billing")).await.unwrap().detach();
    producer.publish_batch(&[alert("a"), alert("b")]).await.detach();
    let report = producer.close(LONG).await;
    assert_eq!((report.delivered, cluster.record_count("system-events")), (3, 3));
}
