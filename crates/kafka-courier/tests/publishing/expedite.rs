//! Awaited deliveries, and deliveries that are not awaited.
//!
//! Rule: `flush_timeout` is longer than a test may take, so a batch that is sent did not wait for `flush_timeout`.

use std::time::{Duration, Instant};

use crate::support::{self, LONG, Producer, record};
use kafka_courier::{Delivery, KafkaConfig, KafkaProducer};
use kafka_courier_test_broker::{ApiKey, Fault, Gate, Rule, TestCluster};

async fn cluster() -> TestCluster {
    TestCluster::builder().topic("t", 1).start().await.unwrap()
}

fn config(cluster: &TestCluster) -> KafkaConfig {
    let mut config = support::config(cluster);
    (config.flush_timeout, config.delivery_timeout) = (Duration::from_secs(600), Duration::from_secs(600));
    config.flush_messages = 1000;
    config
}

async fn send(producer: &KafkaProducer, count: usize) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for _ in 0..count {
        deliveries.push(producer.send(&record("t", "k", "v")).await.unwrap());
    }
    deliveries
}

#[tokio::test]
async fn awaited_delivery_skips_flush_timeout() {
    let cluster = cluster().await;
    let producer = Producer::build(config(&cluster)).unwrap();
    for offset in 0..20 {
        let delivery = producer.send(&record("t", "k", "v")).await.unwrap();
        assert_eq!(delivery.await.unwrap().offset, Some(offset));
    }
}

#[tokio::test]
async fn events_during_flight_share_next_batch() {
    let cluster = cluster().await;
    let producer = Producer::build(config(&cluster)).unwrap();
    send(&producer, 1).await.remove(0).await.unwrap();
    let gate = Gate::new();
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Hold(gate.clone())));
    let mut waiting = Vec::new();
    for number in 0..50 {
        waiting.extend(send(&producer, 1).await.into_iter().map(tokio::spawn));
        if number == 0 {
            cluster.wait_for_requests(ApiKey::Produce, 2).await;
        }
        tokio::task::yield_now().await;
    }
    gate.open();
    for delivery in waiting {
        delivery.await.unwrap().unwrap();
    }
    let sizes: Vec<_> = cluster.batches("t").iter().map(|batch| batch.record_count).collect();
    assert_eq!(sizes, [1, 1, 49]);
}

/// Awaited events fill batches as large as those of events that are not awaited.
#[tokio::test]
async fn many_awaited_deliveries_fill_batches() {
    let cluster = cluster().await;
    let producer = Producer::build(config(&cluster)).unwrap();
    for delivery in send(&producer, 10_000).await {
        delivery.await.unwrap();
    }
    let events = vec![kafka_courier::events::EventBuilder::new("s", "1").system_alert(Default::default()); 2500];
    producer.set_topic_mapping("system.alert", "t").unwrap();
    assert!(producer.publish_batch(&events).await.await.iter().all(Result::is_ok));
    let batches = cluster.batches("t").len();
    assert!(batches <= 14, "{batches} batches of up to 1000");
}

#[tokio::test]
async fn unawaited_events_wait_for_full_batch() {
    let cluster = cluster().await;
    let producer = Producer::build(config(&cluster)).unwrap();
    send(&producer, 999).await.into_iter().for_each(Delivery::detach);
    producer.health_check(LONG).await.unwrap();
    assert_eq!(cluster.record_count("t"), 0);
    send(&producer, 1).await.remove(0).await.unwrap();
    assert_eq!(cluster.batches("t").len(), 1);
}

#[tokio::test]
async fn awaited_events_wait_without_expedite() {
    let cluster = cluster().await;
    let mut config = config(&cluster);
    (config.expedite, config.flush_timeout) = (false, Duration::from_millis(1300)); // the default is a second
    let producer = Producer::build(config).unwrap();
    let began = Instant::now();
    send(&producer, 1).await.remove(0).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(1300), "{:?}", began.elapsed());
}

#[tokio::test]
async fn dropped_producer_completes_awaited_delivery() {
    let cluster = cluster().await;
    let producer = Producer::build(config(&cluster)).unwrap();
    let delivery = send(&producer, 1).await.remove(0);
    drop(producer);
    delivery.await.unwrap();
}
