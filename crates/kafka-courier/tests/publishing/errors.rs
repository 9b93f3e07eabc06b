//! Errors in the answers of a leader: the producer retries, splits the batch, or fails single records.

use crate::support::{LONG, Producer, PublishedRecords, config, producer, record};
use kafka_courier::dlq::Selection;
use kafka_courier::{FailedOutcome, ProducerRecord};
use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Rule, TestCluster, TopicSpec};

/// Publishes while faults hit some requests, and asserts that the log has every record once and in order.
async fn recovers_from(faults: impl IntoIterator<Item = Rule>) {
    let cluster = TestCluster::builder().brokers(3).topic("t", 2).start().await.unwrap();
    let producer = producer(&cluster);
    let mut published = PublishedRecords::default();
    // The leaders know the producer id, so several batches are in flight when the faults begin.
    published.send_many(&producer, "t", 20, 7).await;
    assert!(producer.flush(LONG).await);
    faults.into_iter().for_each(|fault| cluster.inject(fault));
    published.send_many(&producer, "t", 400, 7).await;
    published.assert_delivered(&cluster, "t").await;
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
            async fn before_after_and_without_answer() {
                let produce = || Rule::for_api(ApiKey::Produce);
                recovers_from([
                    produce().then(Fault::Refuse(ErrorCode::$code)),
                    produce().then(Fault::ApplyThenDisconnect),
                    produce().then(Fault::ApplyThenRefuse(ErrorCode::$code)),
                    produce().then(Fault::Disconnect),
                    produce().then(Fault::Refuse(ErrorCode::$code)),
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
async fn loading_coordinator_is_asked_again() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    cluster.fail_next(ApiKey::InitProducerId, 3, ErrorCode::CoordinatorLoadInProgress);
    producer(&cluster).send(&record("t", "k", "k#0")).await.unwrap().await.unwrap();
    assert_eq!(cluster.requests(ApiKey::InitProducerId), 4);
}

/// The cluster forgets producer ids between batches. No record is lost, and the order is kept.
#[tokio::test]
async fn forgotten_producer_ids_lose_nothing() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let producer = producer(&cluster);
    let mut published = PublishedRecords::default();
    for _ in 0..5 {
        published.send_many(&producer, "t", 50, 3).await;
        assert!(producer.flush(LONG).await);
        cluster.forget_producer_ids();
    }
    published.assert_delivered(&cluster, "t").await;
}

/// Returns a producer that has published five records and learned the topic's limit on batches, which is lowered then.
/// The producer does not read it again.
async fn producer_above_limit(cluster: &TestCluster, published: &mut PublishedRecords) -> Producer {
    let mut config = config(cluster);
    config.compression = kafka_courier::Compression::None;
    config.flush_timeout = std::time::Duration::from_millis(50);
    let producer = Producer::build(config).unwrap();
    published.send_many(&producer, "t", 5, 5).await;
    cluster.wait_for_records("t", 5).await;
    cluster.set_topic_config("t", "max.message.bytes", "400").unwrap();
    producer
}

#[tokio::test]
async fn oversized_batch_is_split_until_fitting() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let mut published = PublishedRecords::default();
    let producer = producer_above_limit(&cluster, &mut published).await;
    published.send_many(&producer, "t", 300, 5).await;
    published.assert_delivered(&cluster, "t").await;
    let batches = cluster.batches("t");
    assert!(batches.iter().all(|batch| batch.size_bytes <= 400) && batches.len() > 10);
}

#[tokio::test]
async fn oversized_record_fails_alone() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let mut published = PublishedRecords::default();
    let producer = producer_above_limit(&cluster, &mut published).await;
    published.send_many(&producer, "t", 50, 5).await;
    let long = "x".repeat(1000);
    let large = producer.send(&record("t", "large", &long)).await.unwrap();
    published.send_many(&producer, "t", 50, 5).await;
    let error = large.await.unwrap_err();
    assert_eq!(error.outcome(), FailedOutcome::NotWritten);
    assert_eq!(error.code(), Some(kafka_courier::ErrorCode::MESSAGE_TOO_LARGE));
    published.assert_delivered(&cluster, "t").await;
}

/// The error has the broker's message, and the rest of the batch is delivered.
#[tokio::test]
async fn rejected_record_fails_alone() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    cluster.reject_records(|record| (record.key_text() == Some("bad")).then(|| "bad keys are refused".to_owned()));
    let mut config = config(&cluster);
    config.flush_timeout = std::time::Duration::from_millis(50);
    let producer = Producer::build(config).unwrap();
    let mut published = PublishedRecords::default();
    published.send_many(&producer, "t", 10, 3).await;
    let mut rejected = Vec::new();
    for value in ["bad#0", "bad#1"] {
        rejected.push(producer.send(&record("t", "bad", value)).await.unwrap());
        published.send_many(&producer, "t", 10, 3).await;
    }
    for delivery in rejected {
        let error = delivery.await.unwrap_err();
        assert_eq!((error.outcome(), error.is_retriable()), (FailedOutcome::NotWritten, false));
        assert_eq!(error.code(), Some(kafka_courier::ErrorCode::INVALID_RECORD));
        assert!(error.to_string().contains("bad keys are refused"), "{error}");
    }
    published.assert_delivered(&cluster, "t").await;
    assert_eq!(producer.stats().failed, 2);
}

#[tokio::test]
async fn keyless_record_in_compacted_topic_fails() {
    let topic = TopicSpec::new("t", 1).config("cleanup.policy", "compact");
    let cluster = TestCluster::builder().topic_spec(topic).start().await.unwrap();
    let producer = producer(&cluster);
    let mut published = PublishedRecords::default();
    published.send_many(&producer, "t", 10, 3).await;
    let keyless = ProducerRecord { key: None, ..record("t", "", "v") };
    let keyless = producer.send(&keyless).await.unwrap();
    published.send_many(&producer, "t", 10, 3).await;
    assert_eq!(keyless.await.unwrap_err().outcome(), FailedOutcome::NotWritten);
    published.assert_delivered(&cluster, "t").await;
}

#[tokio::test]
async fn unauthorized_topic_fails_alone() {
    let cluster = TestCluster::builder().topic("secret", 1).topic("t", 1).start().await.unwrap();
    let producer = producer(&cluster);
    producer.send(&record("secret", "k", "k#0")).await.unwrap().await.unwrap();
    let rule = Rule::for_api(ApiKey::Produce).partition("secret", 0).always();
    cluster.inject(rule.then(Fault::Refuse(ErrorCode::TopicAuthorizationFailed)));
    let mut published = PublishedRecords::default();
    published.send_many(&producer, "t", 20, 3).await;
    let error = producer.send(&record("secret", "k", "k#1")).await.unwrap().await.unwrap_err();
    assert_eq!(error.code(), Some(kafka_courier::ErrorCode::TOPIC_AUTHORIZATION_FAILED));
    assert_eq!((error.outcome(), error.attempts()), (FailedOutcome::NotWritten, 1));
    published.send_many(&producer, "t", 20, 3).await;
    published.assert_delivered(&cluster, "t").await;
    cluster.clear_faults();
    producer.send(&record("secret", "k", "k#2")).await.unwrap().await.unwrap();
}

#[tokio::test]
async fn exhausted_retries_leave_unknown_outcome() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let mut config = config(&cluster);
    config.retry_max = 2;
    let producer = Producer::build(config).unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(Fault::Refuse(ErrorCode::RequestTimedOut)));
    let error = producer.send(&record("t", "k", "v")).await.unwrap().await.unwrap_err();
    assert_eq!((error.outcome(), error.attempts()), (FailedOutcome::Unknown, 3));
    assert!(error.is_retriable() && !error.timed_out());
}

/// Publishes these values in one batch. The broker rejects each value that begins with `bad`, with a separate message.
/// Asserts that every error and dead letter has its own message.
async fn assert_own_messages(values: &[&str]) {
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
async fn each_rejected_record_has_own_message() {
    assert_own_messages(&["good-1", "bad-1", "good-2", "bad-2", "bad-3"]).await;
    assert_own_messages(&["bad-1", "bad-2", "bad-3"]).await;
}

/// The error and the dead letter of a rejected timestamp show the clock. The reason does not, because failures are
/// grouped by their reason.
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
