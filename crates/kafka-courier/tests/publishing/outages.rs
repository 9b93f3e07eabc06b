//! Broker outages, leader changes and lost answers.

use std::time::{Duration, Instant};

use crate::support::{LONG, Producer, PublishedRecords, config, now_ms, producer, record};
use kafka_courier::{FailedOutcome, ProducerRecord, PublishError};
use kafka_courier_test_broker::{ApiKey, Fault, Gate, Rule, TestCluster, TopicSpec};

async fn three_brokers(partitions: i32) -> TestCluster {
    let topic = TopicSpec::new("t", partitions).replication(3).config("min.insync.replicas", "2");
    TestCluster::builder().brokers(3).topic_spec(topic).start().await.unwrap()
}

#[tokio::test]
async fn lost_answers_cause_no_duplicates() {
    let cluster = three_brokers(3).await;
    let producer = producer(&cluster);
    let mut published = PublishedRecords::default();
    for round in 0..10 {
        if round % 2 == 1 {
            cluster.apply_then_disconnect(2);
        }
        published.send_many(&producer, "t", 100, 11).await;
    }
    published.assert_delivered(&cluster, "t").await;
    assert!(producer.stats().retried > 0);
}

#[tokio::test]
async fn first_lost_answer_loses_nothing() {
    let cluster = three_brokers(1).await;
    cluster.apply_then_disconnect(1);
    let mut published = PublishedRecords::default();
    let producer = producer(&cluster);
    published.send_many(&producer, "t", 200, 11).await;
    published.assert_delivered(&cluster, "t").await;
}

/// The leader checks timestamps before duplicates, so the leader refuses a record that it has written itself.
#[tokio::test]
async fn too_old_written_record_is_delivered() {
    let cluster = three_brokers(1).await;
    let mut config = config(&cluster);
    config.retry_backoff = Duration::from_secs(1);
    config.retry_backoff_max = Duration::from_secs(1);
    let producer = Producer::build(config).unwrap();
    cluster.apply_then_disconnect(1);
    let delivery = producer.send(&record("t", "k", "v")).await.unwrap();
    let too_old = async {
        cluster.wait_for_records("t", 1).await;
        cluster.set_topic_config("t", "message.timestamp.before.max.ms", "1").unwrap();
    };
    let (delivered, ()) = tokio::join!(delivery, too_old);
    assert_eq!(delivered.unwrap().offset, Some(0));
    assert_eq!(cluster.record_count("t"), 1);
    assert_eq!(cluster.requests(ApiKey::Produce), 2, "one request without an answer, and one that was refused");
}

/// A leader that recognises a duplicate answers with the batch's latest timestamp, as if the topic had LogAppendTime.
/// The delivery reports the record's own timestamp nevertheless.
#[tokio::test]
async fn recognised_retry_reports_record_times() {
    let cluster = three_brokers(1).await;
    let producer = producer(&cluster);
    cluster.apply_then_disconnect(1);
    let timestamps: Vec<i64> = (0..3).map(|n| now_ms() - 1000 * n).collect();
    let mut deliveries = Vec::new();
    for timestamp in &timestamps {
        let record = ProducerRecord { timestamp: Some(*timestamp), ..record("t", "k", "v") };
        deliveries.push(producer.send(&record).await.unwrap());
    }
    for (delivery, timestamp) in deliveries.into_iter().zip(timestamps) {
        assert_eq!(delivery.await.unwrap().timestamp, timestamp);
    }
}

#[tokio::test]
async fn five_lost_answers_cause_no_duplicates() {
    let cluster = three_brokers(1).await;
    let producer = producer(&cluster);
    let mut published = PublishedRecords::default();
    published.send_many(&producer, "t", 10, 3).await;
    assert!(producer.flush(LONG).await);
    let gate = Gate::new();
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Hold(gate.clone())));
    cluster.inject(Rule::for_api(ApiKey::Produce).times(4).then(Fault::ApplyThenDisconnect));
    published.send_many(&producer, "t", 500, 3).await;
    gate.arrived(1).await;
    cluster.kill(1).await;
    gate.open();
    cluster.restart(1).unwrap();
    published.assert_delivered(&cluster, "t").await;
}

#[tokio::test]
async fn moving_leader_loses_nothing() {
    let cluster = three_brokers(2).await;
    let producer = producer(&cluster);
    let mut published = PublishedRecords::default();
    for round in 0..9 {
        published.send_many(&producer, "t", 60, 11).await;
        for partition in 0..2 {
            assert!(cluster.move_leader("t", partition, 1 + round % 3));
        }
    }
    published.assert_delivered(&cluster, "t").await;
}

/// Another leader takes over, and the killed broker returns.
#[tokio::test]
async fn killed_leader_loses_nothing() {
    let cluster = three_brokers(3).await;
    let producer = producer(&cluster);
    let mut published = PublishedRecords::default();
    for broker in 1..=3 {
        published.send_many(&producer, "t", 200, 11).await;
        assert!(cluster.kill(broker).await);
        published.send_many(&producer, "t", 200, 11).await;
        assert!(cluster.restart(broker).unwrap());
    }
    published.assert_delivered(&cluster, "t").await;
}

#[tokio::test]
async fn outage_of_only_broker_loses_nothing() {
    let cluster = TestCluster::builder().topic("t", 2).start().await.unwrap();
    let producer = producer(&cluster);
    let mut published = PublishedRecords::default();
    published.send_many(&producer, "t", 50, 5).await;
    assert!(cluster.kill(1).await);
    published.send_many(&producer, "t", 50, 5).await;
    assert!(cluster.restart(1).unwrap());
    published.assert_delivered(&cluster, "t").await;
}

#[tokio::test]
async fn publishing_starts_after_initial_outage() {
    let cluster = TestCluster::builder().topic("t", 2).start().await.unwrap();
    let mut config = config(&cluster);
    config.metadata_timeout = Duration::from_millis(300);
    assert!(cluster.kill(1).await);
    let producer = Producer::build(config).unwrap();
    let first = producer.send(&record("t", "k", "v")).await.unwrap_err();
    assert!(matches!(first, PublishError::Topic { .. }) && first.is_retriable(), "{first}");
    assert!(std::error::Error::source(&first).is_some());
    assert!(cluster.restart(1).unwrap());
    producer.health_check(LONG).await.unwrap();
    // The producer reports the failed lookup again for one second. A later publish waits for new metadata and succeeds.
    let mut refused = 1;
    let delivery = loop {
        match producer.send(&record("t", "k", "v")).await {
            Ok(delivery) => break delivery,
            Err(error) => {
                refused += 1;
                assert!(matches!(error, PublishError::Topic { .. }) && refused <= 12, "{refused}: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    delivery.await.unwrap();
    assert_eq!((producer.stats().refused, producer.stats().sent), (refused, 1));
}

#[tokio::test]
async fn paused_broker_loses_nothing() {
    let cluster = three_brokers(3).await;
    let producer = producer(&cluster);
    let mut published = PublishedRecords::default();
    published.send_many(&producer, "t", 100, 11).await;
    assert!(cluster.pause(2));
    published.send_many(&producer, "t", 100, 11).await;
    assert!(cluster.resume(2));
    published.assert_delivered(&cluster, "t").await;
}

/// The leader swallows requests, and has written one of them.
#[tokio::test]
async fn request_timeout_causes_no_duplicates() {
    let cluster = three_brokers(1).await;
    let mut config = config(&cluster);
    config.request_timeout = Duration::from_millis(200);
    let producer = Producer::build(config).unwrap();
    let mut published = PublishedRecords::default();
    published.send_many(&producer, "t", 20, 3).await;
    assert!(producer.flush(LONG).await);
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::ApplyThenSwallow));
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Swallow));
    let began = Instant::now();
    published.send_many(&producer, "t", 100, 3).await;
    published.assert_delivered(&cluster, "t").await;
    assert!((200..9_000).contains(&began.elapsed().as_millis()), "{:?}: the default is 10 s", began.elapsed());
}

#[tokio::test]
async fn delivery_timeout_fails_events_not_written() {
    let cluster = TestCluster::builder().topic("t", 2).start().await.unwrap();
    let mut config = config(&cluster);
    config.delivery_timeout = Duration::from_secs(1);
    let producer = Producer::build(config).unwrap();
    producer.send(&record("t", "k", "first")).await.unwrap().await.unwrap();
    assert!(cluster.kill(1).await);
    let (began, mut deliveries) = (Instant::now(), Vec::new());
    for key in 0..20 {
        deliveries.push(producer.send(&record("t", &key.to_string(), "lost")).await.unwrap());
    }
    for delivery in deliveries {
        let error = delivery.await.unwrap_err();
        assert_eq!(error.outcome(), FailedOutcome::NotWritten, "{error}");
        assert!(error.timed_out() && error.to_string().starts_with("broker not available"), "{error}");
    }
    assert!((1000..29_000).contains(&began.elapsed().as_millis()), "{:?}: the default is 30 s", began.elapsed());
    assert!(cluster.restart(1).unwrap());
    producer.send(&record("t", "k", "last")).await.unwrap().await.unwrap();
    let values: Vec<_> = cluster.records("t").iter().map(|r| r.value_text().unwrap().to_owned()).collect();
    assert_eq!(values, ["first", "last"]);
}

#[tokio::test]
async fn recreated_topic_is_written() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let producer = producer(&cluster);
    producer.send(&record("t", "k", "k#0")).await.unwrap().await.unwrap();
    assert!(cluster.delete_topic("t"));
    cluster.create_topic(&TopicSpec::new("t", 1)).unwrap();
    let mut published = PublishedRecords::default();
    published.send_many(&producer, "t", 30, 3).await;
    published.assert_delivered(&cluster, "t").await;
}

/// Events for partitions that no longer exist fail. Later events use the new number of partitions.
#[tokio::test]
async fn recreated_topic_may_have_fewer_partitions() {
    let cluster = TestCluster::builder().topic("t", 12).start().await.unwrap();
    let producer = producer(&cluster);
    for key in 0..40 {
        producer.send(&record("t", &format!("k{key}"), "before")).await.unwrap().await.unwrap();
    }
    assert!(cluster.delete_topic("t"));
    cluster.create_topic(&TopicSpec::new("t", 2)).unwrap();
    let mut early = Vec::new();
    for key in 0..40 {
        early.push(producer.send(&record("t", &format!("k{key}"), &format!("k{key}#0"))).await.unwrap());
    }
    let mut failed = 0;
    for delivery in early {
        if let Err(error) = delivery.await {
            assert_eq!(error.outcome(), FailedOutcome::NotWritten, "{error}");
            assert!(error.to_string().contains("recreated with 2 partitions") && !error.timed_out(), "{error}");
            failed += 1;
        }
    }
    assert!(failed > 0, "40 keys are in more than two of twelve partitions");
    let mut published = PublishedRecords::default();
    published.send_many(&producer, "t", 100, 40).await;
    assert!(producer.flush(LONG).await);
    let log = cluster.records("t");
    assert_eq!(log.len(), 100 + 40 - failed);
    assert!(log.iter().all(|record| record.partition < 2));
}
