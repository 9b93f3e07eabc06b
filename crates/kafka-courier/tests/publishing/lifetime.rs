//! Events of a producer that is dropped, or whose runtime is shut down.

use std::time::{Duration, Instant};

use crate::support::Producer;
use kafka_courier::{KafkaConfig, ProducerRecord, PublishError};
use kafka_courier_test_broker::{ApiKey, TestCluster};
use tokio::runtime::{Builder, Runtime};

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

async fn cluster() -> TestCluster {
    TestCluster::builder().topic("t", 1).start().await.unwrap()
}

fn config(cluster: &TestCluster) -> KafkaConfig {
    let mut config = KafkaConfig::default();
    config.brokers = cluster.bootstrap().split(',').map(|broker| broker.parse().unwrap()).collect();
    config.flush_timeout = Duration::from_millis(10);
    config
}

const RECORD: ProducerRecord<'static> =
    ProducerRecord { topic: "t", partition: None, key: None, value: Some(b"v"), headers: &[], timestamp: None };

#[test]
fn runtime_shutdown_settles_every_event() {
    let (test_runtime, producer_runtime) = (runtime(), runtime());
    let cluster = test_runtime.block_on(cluster());
    let producer = producer_runtime.block_on(async { Producer::build(config(&cluster)) }).unwrap();
    let first = test_runtime.block_on(producer.send(&RECORD)).unwrap();
    test_runtime.block_on(first).unwrap();
    cluster.blackhole(1);
    let (sent, open) = test_runtime.block_on(async {
        let sent = producer.send(&RECORD).await.unwrap();
        cluster.wait_for_requests(ApiKey::Produce, 1).await;
        (sent, producer.send(&RECORD).await.unwrap())
    });
    producer_runtime.shutdown_background();
    // The threads decide whether the batches were sent before the shutdown.
    for delivery in [sent, open] {
        assert!(test_runtime.block_on(delivery).is_err());
    }
    assert_eq!(producer.dead_letters().len(), 2, "each event is a dead letter");
    let stats = producer.stats();
    assert_eq!((stats.accepted, stats.sent, stats.failed, stats.in_flight), (3, 1, 2, 0), "{stats:?}");
    assert!(matches!(test_runtime.block_on(producer.send(&RECORD)), Err(PublishError::Closed)));
    assert!(producer.stats().is_closed);
    assert!(test_runtime.block_on(producer.flush(Duration::from_secs(60))));
    let report = test_runtime.block_on(producer.close(Duration::from_secs(60)));
    assert_eq!((report.delivered, report.failed), (1, 2));
}

#[test]
fn dropped_producer_delivers_and_ends() {
    let (test_runtime, producer_runtime) = (runtime(), runtime());
    let cluster = test_runtime.block_on(cluster());
    let before = producer_runtime.metrics().num_alive_tasks();
    for flushed in [false, true] {
        let producer = producer_runtime.block_on(async { Producer::build(config(&cluster)) }).unwrap();
        let delivery = test_runtime.block_on(producer.send(&RECORD)).unwrap();
        if flushed {
            assert!(test_runtime.block_on(producer.flush(Duration::from_secs(10))));
        }
        drop(producer);
        test_runtime.block_on(delivery).unwrap();
        let ended = async {
            while producer_runtime.metrics().num_alive_tasks() > before {
                tokio::task::yield_now().await;
            }
        };
        test_runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), ended).await }).unwrap();
    }
    assert_eq!(cluster.record_count("t"), 2);
}

#[test]
fn waits_of_any_length_are_accepted() {
    let test_runtime = runtime();
    let cluster = test_runtime.block_on(cluster());
    test_runtime.block_on(async {
        let producer = Producer::build(config(&cluster)).unwrap();
        producer.send(&RECORD).await.unwrap().detach();
        assert!(producer.flush(Duration::MAX).await);
        producer.health_check(Duration::MAX).await.unwrap();
        assert_eq!(producer.close(Duration::MAX).await.delivered, 1);
    });
}

#[test]
fn missing_topic_is_awaited_once() {
    let test_runtime = runtime();
    let cluster = test_runtime.block_on(cluster());
    test_runtime.block_on(async {
        let mut config = config(&cluster);
        config.metadata_timeout = Duration::from_secs(1);
        let producer = Producer::build(config).unwrap();
        let record = ProducerRecord { topic: "absent", ..RECORD };
        let began = Instant::now();
        for _ in 0..1000 {
            assert!(matches!(producer.send(&record).await, Err(PublishError::Topic { .. })));
        }
        assert!((1..9).contains(&began.elapsed().as_secs()), "{:?}: the default is 10 s", began.elapsed());
        producer.send(&RECORD).await.unwrap().await.unwrap();
        producer.close(Duration::from_secs(10)).await;
    });
}
