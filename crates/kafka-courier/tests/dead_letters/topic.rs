//! A producer's topic for dead letters. A topic that would lose dead letters receives none.

use std::sync::Arc;
use std::time::Duration;

use crate::support::{LONG, Producer, config, record};
use kafka_courier::dlq::{DeadLetterStore, Letter, Selection, StoreError, Timestamp};
use kafka_courier::{DeadLetterTopic, KafkaConfig, TopicWarning, UnfitTopic};
use kafka_courier_test_broker::{ApiKey, Fault, Rule, TestCluster, TopicSpec};

async fn cluster(policy: &str) -> (TestCluster, KafkaConfig) {
    let dead = TopicSpec::new("dead", 1).config("cleanup.policy", policy);
    let cluster = TestCluster::builder().topic("t", 1).topic_spec(dead).start().await.unwrap();
    cluster.reject_records(|record| record.header("dlq.id").is_none().then(|| "no".to_owned()));
    let mut config = config(&cluster);
    config.dlq_topic = "dead".to_owned();
    (cluster, config)
}

#[tokio::test]
async fn compacted_topic_is_skipped() {
    for (policy, in_topic) in [("compact", 0), ("compact,delete", 0), ("delete", 2)] {
        let (cluster, config) = cluster(policy).await;
        let producer = Producer::build(config).unwrap();
        let letters = producer.dead_letters();
        let checked = letters.check_topic().await;
        assert_eq!(checked.is_err(), in_topic == 0, "{checked:?}");
        for value in ["a", "b"] {
            producer.send(&record("t", "k", value)).await.unwrap().await.unwrap_err();
        }
        let in_memory = letters.list(&Selection::all(), 9).await.unwrap();
        assert_eq!((cluster.record_count("dead"), in_memory.len()), (in_topic, 2 - in_topic as usize), "{policy}");
        producer.close(LONG).await;
    }
}

#[tokio::test]
async fn compacted_topic_refuses_every_change() {
    let (cluster, config) = cluster("delete").await;
    let open = || Arc::new(DeadLetterTopic::open(&config, "dead").unwrap());
    let store = open();
    let letter = Letter::new("t", None, "why", Timestamp::now());
    let appended = letter.clone();
    tokio::task::spawn_blocking(move || store.append(&[appended]).unwrap()).await.unwrap();
    cluster.set_topic_config("dead", "cleanup.policy", "compact").unwrap();
    let store = open();
    let refused = tokio::task::spawn_blocking(move || {
        let unfit = store.check().unwrap_err();
        assert!(matches!(unfit, UnfitTopic::Compacted { .. }), "{unfit}");
        let held = store.scan(None, 9).unwrap();
        assert_eq!(held.len(), 1);
        let assert_names_policy =
            |error: StoreError| assert!(error.to_string().contains("cleanup.policy=compact"), "{error}");
        assert_names_policy(store.update(&held).unwrap_err());
        assert_names_policy(store.remove(&[held[0].position]).unwrap_err());
        store.import(&[Letter::new("t", None, "why", Timestamp::now())]).unwrap_err();
    });
    refused.await.unwrap();
    assert_eq!(cluster.record_count("dead"), 1);
}

#[tokio::test]
async fn opening_creates_no_topic() {
    let cluster = TestCluster::builder().topic("t", 1).auto_create_topics(1).start().await.unwrap();
    let config = config(&cluster);
    let store = Arc::new(DeadLetterTopic::open(&config, "dead").unwrap());
    let checking = store.clone();
    let checked = tokio::task::spawn_blocking(move || checking.check()).await.unwrap();
    assert_eq!(checked, Ok(Vec::new()));
    let before = cluster.requests(ApiKey::DescribeConfigs);
    assert_eq!(cluster.leader("dead", 0), None);
    let letter = Letter::new("t", None, "why", Timestamp::now());
    tokio::task::spawn_blocking(move || store.append(&[letter]).unwrap()).await.unwrap();
    // The store checks the created topic before it writes the letter.
    assert!(cluster.requests(ApiKey::DescribeConfigs) > before);
    assert_eq!(cluster.record_count("dead"), 1);
}

#[tokio::test]
async fn silent_broker_causes_a_warning() {
    let (cluster, mut config) = cluster("delete").await;
    (config.request_timeout, config.metadata_timeout) = (Duration::from_millis(300), Duration::from_millis(500));
    cluster.inject(Rule::for_api(ApiKey::DescribeConfigs).always().then(Fault::Swallow));
    let store = Arc::new(DeadLetterTopic::open(&config, "dead").unwrap());
    let letter = Letter::new("t", None, "why", Timestamp::now());
    let kept = tokio::task::spawn_blocking(move || {
        let warnings = store.check().unwrap();
        store.append(&[letter]).unwrap();
        warnings
    });
    let warnings = kept.await.unwrap();
    assert!(matches!(&warnings[..], [TopicWarning::Unknown { topic, .. }] if topic == "dead"), "{warnings:?}");
    assert_eq!(cluster.record_count("dead"), 1);
}
