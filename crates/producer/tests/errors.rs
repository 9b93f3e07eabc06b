//! Errors that a leader answers: what recovers, what is split, and what is given up alone.
#![allow(clippy::unwrap_used)] // helpers of tests may, as tests do
mod support;

use kafka_courier::dlq::Selection;
use kafka_courier::{FailedOutcome, KafkaProducer, ProducerRecord};
use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Rule, TestCluster, TopicSpec};
use support::{Books, LONG, Producer, config, producer, record};

/// Publishes while faults befall some requests, and expects everything in the log once and in order.
async fn recovers_from(faults: impl IntoIterator<Item = Rule>) {
    let cluster = TestCluster::builder().brokers(3).topic("t", 2).start().await.unwrap();
    let producer = producer(&cluster);
    let mut books = Books::default();
    // Known to its leaders first, so that several batches are in flight when the faults begin.
    books.send_many(&producer, "t", 20, 7).await;
    assert!(producer.flush(LONG).await);
    faults.into_iter().for_each(|fault| cluster.inject(fault));
    books.send_many(&producer, "t", 400, 7).await;
    books.all_delivered(&cluster, "t").await;
}

macro_rules! recovers {
    ($($name:ident: $code:ident;)*) => {$(
        mod $name {
            use super::*;

            #[tokio::test]
            async fn before_the_append() {
                recovers_from([Rule::for_api(ApiKey::Produce).times(3).then(Fault::Refuse(ErrorCode::$code))]).await;
            }

            #[tokio::test]
            async fn after_the_append() {
                recovers_from([Rule::for_api(ApiKey::Produce).times(3).then(Fault::ApplyThenRefuse(ErrorCode::$code))]).await;
            }

            #[tokio::test]
            async fn before_and_after_and_without_an_answer() {
                let on = || Rule::for_api(ApiKey::Produce);
                recovers_from([
                    on().then(Fault::Refuse(ErrorCode::$code)),
                    on().then(Fault::ApplyThenDisconnect),
                    on().then(Fault::ApplyThenRefuse(ErrorCode::$code)),
                    on().then(Fault::Disconnect),
                    on().then(Fault::Refuse(ErrorCode::$code)),
                ])
                .await;
            }
        }
    )*};
}

recovers! {
    unknown_server_error: UnknownServerError;
    corrupt_message: CorruptMessage;
    unknown_topic_or_partition: UnknownTopicOrPartition;
    leader_not_available: LeaderNotAvailable;
    not_leader: NotLeaderOrFollower;
    request_timed_out: RequestTimedOut;
    network_exception: NetworkException;
    coordinator_load_in_progress: CoordinatorLoadInProgress;
    not_enough_replicas: NotEnoughReplicas;
    not_enough_replicas_after_append: NotEnoughReplicasAfterAppend;
    storage_error: KafkaStorageError;
    fenced_leader_epoch: FencedLeaderEpoch;
    unknown_leader_epoch: UnknownLeaderEpoch;
}

#[tokio::test]
async fn a_coordinator_that_loads_is_asked_again() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    cluster.fail_next(ApiKey::InitProducerId, 3, ErrorCode::CoordinatorLoadInProgress);
    producer(&cluster).send(&record("t", "k", "k#0")).await.unwrap().await.unwrap();
    assert_eq!(cluster.requests(ApiKey::InitProducerId), 4);
}

#[tokio::test]
async fn forgotten_producer_ids_cost_no_record_and_no_order() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let producer = producer(&cluster);
    let mut books = Books::default();
    for _ in 0..5 {
        books.send_many(&producer, "t", 50, 3).await;
        assert!(producer.flush(LONG).await);
        cluster.forget_producer_ids();
    }
    books.all_delivered(&cluster, "t").await;
}

/// The producer asks a topic for its limit when it first hears of it; from here on the topic takes less.
async fn limit_after_the_producer_asked(producer: &KafkaProducer, cluster: &TestCluster, books: &mut Books) {
    books.send_many(producer, "t", 5, 5).await;
    cluster.wait_for_records("t", 5).await;
    cluster.set_topic_config("t", "max.message.bytes", "400").unwrap();
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_split_until_it_fits() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let mut config = config(&cluster);
    config.compression = kafka_courier::Compression::None;
    config.flush_timeout = std::time::Duration::from_millis(50);
    let producer = Producer::build(config).unwrap();
    let mut books = Books::default();
    limit_after_the_producer_asked(&producer, &cluster, &mut books).await;
    books.send_many(&producer, "t", 300, 5).await;
    books.all_delivered(&cluster, "t").await;
    let batches = cluster.batches("t");
    assert!(batches.iter().all(|batch| batch.size_bytes <= 400) && batches.len() > 10);
}

#[tokio::test]
async fn a_record_that_is_too_large_by_itself_is_given_up_alone() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let mut config = config(&cluster);
    config.compression = kafka_courier::Compression::None;
    config.flush_timeout = std::time::Duration::from_millis(50);
    let producer = Producer::build(config).unwrap();
    let mut books = Books::default();
    limit_after_the_producer_asked(&producer, &cluster, &mut books).await;
    books.send_many(&producer, "t", 50, 5).await;
    let long = "x".repeat(1000);
    let large = producer.send(&record("t", "large", &long)).await.unwrap();
    books.send_many(&producer, "t", 50, 5).await;
    let error = large.await.unwrap_err();
    assert_eq!(error.outcome(), FailedOutcome::NotWritten);
    assert_eq!(error.code(), Some(kafka_courier::ErrorCode::MESSAGE_TOO_LARGE));
    books.all_delivered(&cluster, "t").await;
}

#[tokio::test]
async fn a_guilty_record_is_given_up_alone_with_the_brokers_words() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    cluster.reject_records(|record| (record.key_text() == Some("bad")).then(|| "bad keys are refused".to_owned()));
    let mut config = config(&cluster);
    config.flush_timeout = std::time::Duration::from_millis(50);
    let producer = Producer::build(config).unwrap();
    let mut books = Books::default();
    books.send_many(&producer, "t", 10, 3).await;
    let mut guilty = Vec::new();
    for value in ["bad#0", "bad#1"] {
        guilty.push(producer.send(&record("t", "bad", value)).await.unwrap());
        books.send_many(&producer, "t", 10, 3).await;
    }
    for delivery in guilty {
        let error = delivery.await.unwrap_err();
        assert_eq!((error.outcome(), error.is_retriable()), (FailedOutcome::NotWritten, false));
        assert_eq!(error.code(), Some(kafka_courier::ErrorCode::INVALID_RECORD));
        assert!(error.to_string().contains("bad keys are refused"), "{error}");
    }
    books.all_delivered(&cluster, "t").await;
    assert_eq!(producer.stats().failed, 2);
}

#[tokio::test]
async fn a_record_without_key_is_refused_alone_by_a_compacted_topic() {
    let topic = TopicSpec::new("t", 1).config("cleanup.policy", "compact");
    let cluster = TestCluster::builder().topic_spec(topic).start().await.unwrap();
    let producer = producer(&cluster);
    let mut books = Books::default();
    books.send_many(&producer, "t", 10, 3).await;
    let keyless = ProducerRecord { key: None, ..record("t", "", "v") };
    let keyless = producer.send(&keyless).await.unwrap();
    books.send_many(&producer, "t", 10, 3).await;
    assert_eq!(keyless.await.unwrap_err().outcome(), FailedOutcome::NotWritten);
    books.all_delivered(&cluster, "t").await;
}

#[tokio::test]
async fn a_topic_that_is_not_allowed_fails_at_once_and_alone() {
    let cluster = TestCluster::builder().topic("secret", 1).topic("t", 1).start().await.unwrap();
    let producer = producer(&cluster);
    producer.send(&record("secret", "k", "k#0")).await.unwrap().await.unwrap();
    let rule = Rule::for_api(ApiKey::Produce).partition("secret", 0).always();
    cluster.inject(rule.then(Fault::Refuse(ErrorCode::TopicAuthorizationFailed)));
    let mut books = Books::default();
    books.send_many(&producer, "t", 20, 3).await;
    let error = producer.send(&record("secret", "k", "k#1")).await.unwrap().await.unwrap_err();
    assert_eq!(error.code(), Some(kafka_courier::ErrorCode::TOPIC_AUTHORIZATION_FAILED));
    assert_eq!((error.outcome(), error.attempts()), (FailedOutcome::NotWritten, 1));
    books.send_many(&producer, "t", 20, 3).await;
    books.all_delivered(&cluster, "t").await;
    cluster.clear_faults();
    producer.send(&record("secret", "k", "k#2")).await.unwrap().await.unwrap();
}

#[tokio::test]
async fn retries_end_after_retry_max_and_what_may_be_written_is_unknown() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let mut config = config(&cluster);
    config.retry_max = 2;
    let producer = Producer::build(config).unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(Fault::Refuse(ErrorCode::RequestTimedOut)));
    let error = producer.send(&record("t", "k", "v")).await.unwrap().await.unwrap_err();
    assert_eq!((error.outcome(), error.attempts()), (FailedOutcome::Unknown, 3));
    assert!(error.is_retriable() && !error.timed_out());
}

/// Publishes these values in one batch, of which the broker rejects those that begin with `bad`, each with words of its own.
async fn each_rejected_has_its_own_text(values: &[&str]) {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    cluster.reject_records(|record| {
        let value = record.value_text().unwrap_or_default();
        value.starts_with("bad").then(|| format!("no {value} today"))
    });
    let mut config = config(&cluster);
    config.flush_timeout = std::time::Duration::from_millis(50);
    let producer = Producer::build(config).unwrap();
    let mut deliveries = Vec::new();
    for value in values {
        deliveries.push((*value, producer.send(&record("t", "k", value)).await.unwrap()));
    }
    for (value, delivery) in deliveries {
        let result = delivery.await;
        assert_eq!(result.is_err(), value.starts_with("bad"), "{value}");
        if let Err(error) = result {
            assert!(error.to_string().contains(&format!("no {value} today")), "{value}: {error}");
        }
    }
    let letters = producer.dead_letters().list(&Selection::all(), 100).await.unwrap();
    assert_eq!(letters.len(), values.iter().filter(|value| value.starts_with("bad")).count());
    for held in letters {
        let value = String::from_utf8(held.letter.value.unwrap().to_vec()).unwrap();
        assert!(held.letter.failure_reason.contains(&format!("no {value} today")), "{}", held.letter.failure_reason);
    }
}

#[tokio::test]
async fn each_rejected_record_has_its_own_text() {
    each_rejected_has_its_own_text(&["good-1", "bad-1", "good-2", "bad-2", "bad-3"]).await;
    each_rejected_has_its_own_text(&["bad-1", "bad-2", "bad-3"]).await;
}

/// Error and letter of an event whose timestamp is rejected show the clock; the reason, by which failures are grouped, does not.
#[tokio::test]
async fn rejected_timestamp_names_the_clock() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let producer = producer(&cluster);
    let mut reasons = Vec::new();
    for value in ["a", "b"] {
        cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Refuse(ErrorCode::InvalidTimestamp)));
        let error = producer.send(&record("t", "k", value)).await.unwrap().await.unwrap_err();
        let letters = producer.dead_letters().list(&Selection::all(), 100).await.unwrap();
        let letter = &letters.last().unwrap().letter;
        for text in [error.to_string(), letter.failure_reason.clone()] {
            let clock = "the clock of this machine reads 20";
            for words in ["INVALID_TIMESTAMP", clock, "message.timestamp.after.max.ms"] {
                assert!(text.contains(words), "{text}");
            }
        }
        reasons.push(error.reason().to_string());
    }
    assert_eq!(reasons[0], reasons[1], "equal failures have one reason");
    assert!(reasons[0].contains("NTP") && !reasons[0].contains("reads 20"), "{}", reasons[0]);
}
