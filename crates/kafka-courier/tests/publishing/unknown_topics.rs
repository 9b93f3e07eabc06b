//! Topics without metadata: existing topics and missing ones.

use std::time::{Duration, Instant};

use crate::support::{LONG, Producer, config, record};
use kafka_courier::events::{AnyEvent, EventBuilder};
use kafka_courier::{Error, KafkaConfig, PublishError};
use kafka_courier_test_broker::{ApiKey, TestCluster, TopicSpec};
use tokio::task::JoinSet;

const TOPICS: u64 = 40;

/// Returns a cluster with `TOPICS` topics, and settings with a backoff that is too long for any test.
async fn cluster_of_many_topics() -> (TestCluster, KafkaConfig) {
    let mut builder = TestCluster::builder();
    for topic in 0..TOPICS {
        builder = builder.topic(&format!("m{topic}"), 1);
    }
    let cluster = builder.start().await.unwrap();
    let mut config = config(&cluster);
    (config.retry_backoff, config.retry_backoff_max) = (LONG, LONG);
    (cluster, config)
}

#[tokio::test]
async fn existing_topics_wait_for_no_backoff() {
    let (cluster, config) = cluster_of_many_topics().await;
    let producer = Producer::build(config).unwrap();
    let begun = Instant::now();
    for topic in 0..TOPICS {
        producer.send(&record(&format!("m{topic}"), "k", "v")).await.unwrap().detach();
    }
    assert!(producer.flush(LONG).await);
    assert!(begun.elapsed() < LONG / 2, "{:?}: more than half of one backoff", begun.elapsed());
    assert_eq!((producer.close(LONG).await.delivered, cluster.record_count("m39")), (TOPICS, 1));
}

#[tokio::test]
async fn topics_wanted_together_share_a_request() {
    let (cluster, config) = cluster_of_many_topics().await;
    let producer = Producer::build(config).unwrap();
    let mut publishing = JoinSet::new();
    for topic in 0..TOPICS {
        let producer = producer.clone();
        publishing.spawn(async move { producer.send(&record(&format!("m{topic}"), "k", "v")).await.unwrap().await });
    }
    assert!(publishing.join_all().await.iter().all(Result::is_ok));
    assert_eq!(cluster.requests(ApiKey::Metadata), 1);
}

#[tokio::test]
async fn missing_topic_delays_no_other() {
    let (cluster, mut config) = cluster_of_many_topics().await;
    config.metadata_timeout = LONG;
    let producer = Producer::build(config).unwrap();
    let missing = tokio::spawn({
        let producer = producer.clone();
        async move { producer.send(&record("missing", "k", "v")).await.map(|delivery| delivery.detach()) }
    });
    cluster.wait_for_requests(ApiKey::Metadata, 1).await;
    let there = async {
        for topic in 0..TOPICS {
            producer.send(&record(&format!("m{topic}"), "k", "v")).await.unwrap().await.unwrap();
        }
    };
    tokio::time::timeout(LONG / 2, there).await.unwrap();
    assert!(!missing.is_finished());
    cluster.create_topic(&TopicSpec::new("missing", 1)).unwrap();
    // A request for any other topic asks for the missing one too.
    assert!(producer.try_send(&record("m-too", "k", "v")).is_err());
    tokio::time::timeout(LONG / 2, missing).await.unwrap().unwrap().unwrap();
}

fn event(event_type: &str) -> AnyEvent {
    EventBuilder::new("tests", "1.0").untyped(event_type, serde_json::json!({"n": 1})).unwrap()
}

#[tokio::test]
async fn missing_topics_are_awaited_concurrently() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let mut config = config(&cluster);
    config.metadata_timeout = Duration::from_secs(2);
    let timeout = config.metadata_timeout;
    let producer = Producer::build(config).unwrap();
    let mut events = Vec::new();
    producer.set_topic_mapping("good", "t").unwrap();
    for number in 0..30 {
        events.push(event("good"));
        if number % 5 == 0 {
            let missing = format!("missing-{number}");
            producer.set_topic_mapping(&missing, &missing).unwrap();
            events.push(event(&missing));
        }
    }
    let begun = Instant::now();
    let publishing = tokio::spawn({
        let producer = producer.clone();
        async move { producer.publish_batch(&events).await.await }
    });
    cluster.wait_for_records("t", 30).await;
    assert!(!publishing.is_finished(), "events of the existing topic do not wait for missing topics");
    let verdicts = publishing.await.unwrap();
    assert!(begun.elapsed() < timeout * 4, "{:?} for 6 missing topics", begun.elapsed());
    let not_accepted = |error: &Error| matches!(error, Error::NotAccepted(PublishError::Topic { .. }));
    assert_eq!(verdicts.iter().filter(|verdict| verdict.is_ok()).count(), 30);
    assert_eq!(verdicts.iter().filter(|verdict| verdict.as_ref().is_err_and(not_accepted)).count(), 6);
    let offsets: Vec<_> = verdicts.iter().flatten().map(|written| written.offset.unwrap()).collect();
    assert_eq!(offsets, (0..30).collect::<Vec<_>>(), "the order of the events");
}
