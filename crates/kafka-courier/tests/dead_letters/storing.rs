//! A record that fails permanently is stored as a dead letter before its delivery completes.

use std::sync::Arc;
use std::time::Duration;

use crate::gated_store::gated_store;
use crate::support::{LONG, Producer, config, producer, record};
use kafka_courier::dlq::{DeadLetterStore, Letter, Limits, MemoryStore, Outcome, Overflow, Selection};
use kafka_courier::events::{Event, EventBuilder, UserLoggedIn};
use kafka_courier::{FailedOutcome, Header, KafkaProducer, ProducerRecord};
use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Gate, Rule, TestCluster};

async fn cluster_with_topic() -> TestCluster {
    TestCluster::builder().topic("t", 1).start().await.unwrap()
}

fn producer_with_store(cluster: &TestCluster, store: Arc<dyn DeadLetterStore>) -> Producer {
    Producer::with(|builder| builder.with_config(config(cluster)).dead_letter_store(store)).unwrap()
}

async fn letters(producer: &KafkaProducer) -> Vec<Letter> {
    let held = producer.dead_letters().list(&Selection::all(), 1000).await.unwrap();
    held.into_iter().map(|held| held.letter).collect()
}

#[tokio::test]
async fn dead_letter_holds_record_and_reason() {
    let cluster = cluster_with_topic().await;
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Refuse(ErrorCode::InvalidRecord)));
    let producer = producer(&cluster);
    let headers = [Header { key: "h", value: Some(b"\xff") }, Header { key: "n", value: None }];
    let record = ProducerRecord { topic: "t", key: Some(b"k"), headers: &headers, ..ProducerRecord::default() };
    let error = producer.send(&record).await.unwrap().await.unwrap_err();
    assert_eq!(error.attempts(), 1);
    let [letter] = &letters(&producer).await[..] else { panic!("expected one dead letter") };
    assert_eq!((&*letter.topic, letter.partition, letter.key.as_deref()), ("t", Some(0), Some(&b"k"[..])));
    assert_eq!((&letter.value, letter.outcome, letter.attempt_count), (&None, Outcome::NotWritten, 1));
    assert_eq!(letter.error_code.as_deref(), Some("INVALID_RECORD"));
    assert!(letter.first_attempt <= letter.last_attempt && !letter.retriable);
    let kept: Vec<_> = letter.headers.iter().map(|h| (h.name.as_str(), h.value.as_deref())).collect();
    assert_eq!(kept, [("h", Some(&b"\xff"[..])), ("n", None)]);
}

#[tokio::test]
async fn dead_letter_names_typed_event() {
    let cluster = TestCluster::builder().topic("user-events", 1).start().await.unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Refuse(ErrorCode::InvalidRecord)));
    let producer = producer(&cluster);
    let builder = EventBuilder::new("auth-service", "1.0").with_correlation_id("req-7");
    let event = builder.user_logged_in(UserLoggedIn { user_id: "u-1".into(), ..Default::default() });
    producer.publish_to("user-events", &event).await.unwrap().await.unwrap_err();
    let [letter] = &letters(&producer).await[..] else { panic!("expected one dead letter") };
    assert_eq!(letter.event_id.clone(), Some(event.id().to_string()));
    assert_eq!(letter.event_type.as_deref(), Some(event.event_type()));
    assert_eq!(letter.correlation_id.as_deref(), Some("req-7"));
    let mut json = Vec::new();
    event.encode_into(&mut json).unwrap();
    assert_eq!(letter.value.as_deref(), Some(&json[..]));
}

#[tokio::test]
async fn unknown_outcome_keeps_verification_data() {
    let cluster = cluster_with_topic().await;
    let mut config = config(&cluster);
    config.retry_max = 0;
    let producer = Producer::build(config).unwrap();
    producer.send(&record("t", "k", "v0")).await.unwrap().await.unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::ApplyThenDisconnect));
    let error = producer.send(&record("t", "k", "v1")).await.unwrap().await.unwrap_err();
    assert_eq!(error.outcome(), FailedOutcome::Unknown);
    let [letter] = &letters(&producer).await[..] else { panic!("expected one dead letter") };
    assert_eq!((letter.outcome, letter.search_from, letter.sequence), (Outcome::Unknown, Some(1), Some(1)));
    assert!(letter.producer_id.is_some() && letter.producer_epoch.is_some() && letter.topic_id.is_some());
}

/// Successful deliveries do not wait for the store.
#[tokio::test]
async fn failure_waits_for_stored_dead_letter() {
    let cluster = cluster_with_topic().await;
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Refuse(ErrorCode::InvalidRecord)));
    let (store, open, _) = gated_store();
    let producer = producer_with_store(&cluster, store.clone());
    let failing = producer.send(&record("t", "k", "bad")).await.unwrap();
    producer.flush(Duration::from_millis(50)).await;
    producer.send(&record("t", "k", "good")).await.unwrap().await.unwrap();
    assert!(failing.now().is_none());
    open.send(()).unwrap();
    failing.await.unwrap_err();
    assert_eq!(store.stats().unwrap().letters, 1);
}

#[tokio::test]
async fn close_waits_for_dead_letters() {
    let cluster = cluster_with_topic().await;
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Refuse(ErrorCode::InvalidRecord)));
    let (store, open, _) = gated_store();
    let producer = producer_with_store(&cluster, store.clone());
    let failing = producer.send(&record("t", "k", "bad")).await.unwrap();
    let closing = tokio::spawn(async move { producer.close(LONG).await });
    tokio::task::yield_now().await;
    open.send(()).unwrap();
    let report = closing.await.unwrap();
    assert_eq!((report.failed, report.dead_lettered), (1, 1));
    assert!(failing.now().unwrap().is_err());
    assert_eq!(store.stats().unwrap().letters, 1);
}

#[tokio::test]
async fn memory_keeps_overflow_of_first_store() {
    let cluster = cluster_with_topic().await;
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Refuse(ErrorCode::InvalidRecord)));
    let limits = Limits { max_letters: Some(1), overflow: Overflow::Refuse, ..Limits::default() };
    let full = Arc::new(MemoryStore::with_limits(limits));
    let producer = producer_with_store(&cluster, full.clone());
    let deliveries =
        [producer.send(&record("t", "k", "1")).await.unwrap(), producer.send(&record("t", "k", "2")).await.unwrap()];
    for delivery in deliveries {
        delivery.await.unwrap_err();
    }
    assert_eq!(letters(&producer).await.len(), 2);
    assert_eq!(full.len(), 0, "an append is stored as a whole or not at all");
}

/// A leader that accepts a later sequence number proves that the earlier record is in the log.
#[tokio::test]
async fn later_acknowledgement_removes_dead_letter() {
    let cluster = cluster_with_topic().await;
    let mut config = config(&cluster);
    (config.retry_max, config.request_timeout) = (0, Duration::from_millis(300));
    let producer = Producer::build(config).unwrap();
    producer.send(&record("t", "k", "v0")).await.unwrap().await.unwrap();
    let gate = Gate::new();
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::ApplyThenSwallow));
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::ApplyThenHold(gate.clone())));
    let first = producer.send(&record("t", "k", "v1")).await.unwrap();
    producer.flush(Duration::from_millis(20)).await;
    let second = producer.send(&record("t", "k", "v2")).await.unwrap();
    gate.arrived(1).await;
    assert_eq!(first.await.unwrap_err().outcome(), FailedOutcome::Unknown);
    gate.open();
    second.await.unwrap();
    producer.close(LONG).await;
    assert_eq!(letters(&producer).await, []);
}

#[tokio::test]
async fn dead_letter_file_outlives_producer() {
    let cluster = cluster_with_topic().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/letters.redb").to_str().unwrap().to_owned();
    let build = || Producer::with(|builder| builder.with_config(config(&cluster)).dlq_file(path.clone()));
    let producer = build().unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Refuse(ErrorCode::InvalidRecord)));
    producer.send(&record("t", "k", "v")).await.unwrap().await.unwrap_err();
    let held = build().unwrap_err().to_string();
    assert!(held.contains("dlq_file") && held.contains(&std::process::id().to_string()), "{held}");
    producer.close(LONG).await;
    drop(producer);
    let again = loop {
        // The store's thread releases the file once the last other reference to the producer is dropped.
        match build() {
            Ok(producer) => break producer,
            Err(error) => assert!(error.to_string().contains("held"), "{error}"),
        }
        tokio::task::yield_now().await;
    };
    let kept = letters(&again).await;
    assert_eq!((kept.len(), kept[0].value.as_deref(), again.dead_letters().len()), (1, Some(&b"v"[..]), 1));
}

#[tokio::test]
async fn full_file_follows_overflow_option() {
    for (overflow, expected) in [("refuse", ["b", "a"]), ("drop_oldest", ["b", ""])] {
        let cluster = cluster_with_topic().await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters.redb").to_str().unwrap().to_owned();
        let variables = [("KAFKA_DLQ_MAX_LETTERS", "1"), ("KAFKA_DLQ_OVERFLOW", overflow), ("KAFKA_DLQ_FILE", &path)];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let limits = kafka_courier::KafkaConfig::from_variables(variables).unwrap();
        let mut config = config(&cluster);
        (config.dlq_max_letters, config.dlq_overflow, config.dlq_file) =
            (limits.dlq_max_letters, limits.dlq_overflow, limits.dlq_file);
        let producer = Producer::build(config).unwrap();
        for value in ["a", "b"] {
            cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Refuse(ErrorCode::InvalidRecord)));
            producer.send(&record("t", "k", value)).await.unwrap().await.unwrap_err();
        }
        let mut values: Vec<String> = letters(&producer).await.iter().map(value_of).collect();
        values.sort();
        let mut expected: Vec<&str> = expected.into_iter().filter(|value| !value.is_empty()).collect();
        expected.sort_unstable();
        assert_eq!(values, expected, "{overflow}");
    }
}

fn value_of(letter: &Letter) -> String {
    String::from_utf8_lossy(letter.value.as_deref().unwrap_or_default()).into_owned()
}

#[cfg(unix)]
#[tokio::test]
async fn running_producer_shares_its_file() {
    let cluster = cluster_with_topic().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters.redb").to_str().unwrap().to_owned();
    let producer = Producer::with(|builder| builder.with_config(config(&cluster)).dlq_file(path.clone())).unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Refuse(ErrorCode::InvalidRecord)));
    producer.send(&record("t", "k", "v")).await.unwrap().await.unwrap_err();
    let removed = tokio::task::spawn_blocking(move || {
        let store = kafka_courier::dlq::open_or_reach(path, Default::default()).unwrap();
        assert!(!store.is_exclusive());
        kafka_courier::dlq::purge(&*store, &Selection::all()).unwrap()
    });
    assert_eq!((removed.await.unwrap(), producer.dead_letters().len()), (1, 0));
}
