//! Bounded memory, closing, and futures that are dropped before they complete.

use std::time::{Duration, Instant};

use crate::support::{LONG, Producer, PublishedRecords, assert_in_order, config, producer, record};
use kafka_courier::{FailedOutcome, ProducerRecord, PublishError};
use kafka_courier_test_broker::{ApiKey, Fault, Gate, Rule, TestCluster};

/// Events are accepted again once memory is free.
#[tokio::test]
async fn full_buffer_refuses_after_max_block() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let mut config = config(&cluster);
    config.buffer_memory = 1 << 20;
    config.flush_bytes = 100_000;
    config.max_block = Duration::from_millis(50);
    config.compression = kafka_courier::Compression::None;
    let producer = Producer::build(config).unwrap();
    let gate = Gate::new();
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(Fault::Hold(gate.clone())));
    let value = vec![b'x'; 10_000];
    let big = ProducerRecord { topic: "t", value: Some(&value), ..ProducerRecord::default() };
    let mut accepted = Vec::new();
    let (refused, waited) = loop {
        let began = Instant::now();
        match producer.send(&big).await {
            Ok(delivery) => accepted.push(delivery),
            Err(error) => break (error, began.elapsed()),
        }
    };
    assert!(matches!(refused, PublishError::BufferFull { .. }) && refused.is_retriable(), "{refused}");
    assert!((50..9_000).contains(&waited.as_millis()), "{waited:?}: the default is 10 s");
    assert!(accepted.len() >= 50 && producer.stats().buffered_bytes <= 1 << 20, "{} accepted", accepted.len());
    gate.open();
    let count = accepted.len();
    for delivery in accepted {
        delivery.await.unwrap();
    }
    producer.send(&big).await.unwrap().await.unwrap();
    assert_eq!((cluster.records("t").len(), producer.stats().buffered_bytes), (count + 1, 0));
}

#[tokio::test]
async fn blocked_publish_resumes_when_memory_frees() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let mut config = config(&cluster);
    config.buffer_memory = 1 << 20;
    config.flush_bytes = 100_000;
    config.max_block = LONG;
    config.compression = kafka_courier::Compression::None;
    let producer = Producer::build(config).unwrap();
    let value = vec![b'x'; 20_000];
    let big = ProducerRecord { topic: "t", value: Some(&value), ..ProducerRecord::default() };
    for _ in 0..1000 {
        producer.send(&big).await.unwrap().detach();
    }
    assert!(producer.flush(LONG).await);
    assert_eq!(cluster.records("t").len(), 1000);
}

#[tokio::test]
async fn event_larger_than_memory_is_refused() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let producer = producer(&cluster);
    let value = vec![b'x'; 40 << 20];
    let huge = ProducerRecord { topic: "t", value: Some(&value), ..ProducerRecord::default() };
    assert!(matches!(producer.send(&huge).await, Err(PublishError::TooLarge { .. })));
    assert_eq!(producer.stats().buffered_bytes, 0);
}

/// A closed producer accepts no event.
#[tokio::test]
async fn close_delivers_accepted_events() {
    let cluster = TestCluster::builder().brokers(3).topic("t", 6).start().await.unwrap();
    let mut config = config(&cluster);
    config.flush_timeout = Duration::from_secs(30);
    let producer = Producer::build(config).unwrap();
    let mut published = PublishedRecords::default();
    published.send_many(&producer, "t", 500, 23).await;
    let report = producer.close(LONG).await;
    assert_eq!((report.delivered, report.failed), (500, 0));
    assert!(matches!(producer.send(&record("t", "k", "v")).await, Err(PublishError::Closed)));
    assert!(producer.stats().is_closed);
    published.assert_delivered(&cluster, "t").await;
}

#[tokio::test]
async fn close_settles_events_of_silent_brokers() {
    let cluster = TestCluster::builder().topic("t", 4).start().await.unwrap();
    let producer = producer(&cluster);
    producer.send(&record("t", "k", "k#0")).await.unwrap().await.unwrap();
    cluster.blackhole(1);
    let mut deliveries = Vec::new();
    for index in 0..200 {
        deliveries.push(producer.send(&record("t", &index.to_string(), "v")).await.unwrap());
    }
    cluster.wait_for_requests(ApiKey::Produce, 2).await;
    let report = producer.close(Duration::from_millis(100)).await;
    assert_eq!((report.delivered, report.failed), (1, 200));
    let verdicts: Vec<_> = deliveries.iter().map(|delivery| delivery.now().unwrap().unwrap_err().outcome()).collect();
    assert!(verdicts.contains(&FailedOutcome::Unknown), "one request was sent");
}

/// A detached delivery loses no event.
#[tokio::test]
async fn cancelled_publish_accepts_nothing() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let producer = producer(&cluster);
    let gate = Gate::new();
    cluster.inject(Rule::for_api(ApiKey::Metadata).then(Fault::Hold(gate.clone())));
    let waiting = record("t", "k", "lost");
    let cancelled = tokio::time::timeout(Duration::from_millis(20), producer.send(&waiting)).await;
    assert!(cancelled.is_err(), "the publish waits for the topic");
    gate.open();
    for number in 0..100 {
        producer.send(&record("t", "k", &format!("k#{number}"))).await.unwrap().detach();
    }
    assert!(producer.flush(LONG).await);
    let log = cluster.records("t");
    assert_in_order(&log);
    assert_eq!(log.len(), 100);
}

#[tokio::test]
async fn dropped_producer_delivers_accepted_events() {
    let cluster = TestCluster::builder().topic("t", 2).start().await.unwrap();
    let producer = producer(&cluster);
    let mut published = PublishedRecords::default();
    published.send_many(&producer, "t", 300, 7).await;
    drop(producer);
    published.assert_delivered(&cluster, "t").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_tasks_keep_their_order() {
    let cluster = TestCluster::builder().brokers(3).topic("t", 6).start().await.unwrap();
    let producer = producer(&cluster);
    let publisher = |task: usize| {
        let producer = producer.clone();
        async move {
            for number in 0..500 {
                let key = format!("task-{task}");
                producer.send(&record("t", &key, &format!("{key}#{number}"))).await.unwrap().detach();
            }
        }
    };
    let tasks: Vec<_> = (0..8).map(|task| tokio::spawn(publisher(task))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(producer.flush(LONG).await);
    let log = cluster.records("t");
    assert_in_order(&log);
    assert_eq!(log.len(), 4000);
}

/// The batches of 36 partitions together fill the memory long before one batch is full or `flush_timeout` has passed.
#[tokio::test]
async fn memory_pressure_seals_unfilled_batches() {
    let cluster = TestCluster::builder().topic("t", 36).start().await.unwrap();
    let mut config = config(&cluster);
    (config.buffer_memory, config.flush_bytes, config.flush_messages) = (4 << 20, 1 << 20, 1_000_000);
    (config.flush_timeout, config.delivery_timeout) = (Duration::from_secs(600), Duration::from_secs(600));
    let producer = Producer::build(config).unwrap();
    let value = "x".repeat(1000);
    for index in 0..20_000 {
        producer.send(&record("t", &format!("key-{}", index % 997), &value)).await.unwrap().detach();
    }
    assert!(producer.flush(LONG).await);
    let batches = cluster.batches("t").len();
    assert_eq!(cluster.record_count("t"), 20_000);
    assert!(batches < 20_000 / 20, "{batches} batches");
}
