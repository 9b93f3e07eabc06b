//! A spool without room.

use std::time::Duration;

use crate::spool_folder::SpoolFolder;
use crate::support::{LONG, Producer, record};
use kafka_courier::{Compression, Delivery, KafkaConfig, PublishError, SpoolFull};
use kafka_courier_test_broker::TestCluster;

/// The smallest spool, in bytes.
const SMALLEST: u64 = 64 << 20;

/// Returns settings for a small spool, whose topic is known.
async fn small_spool(cluster: &TestCluster, folder: &SpoolFolder) -> KafkaConfig {
    let mut config = folder.config(cluster);
    (config.spool_max_bytes, config.spool_keep_free) = (SMALLEST, Some(0));
    (config.compression, config.buffer_memory) = (Compression::None, 1 << 28);
    let first = Producer::build(config.clone()).unwrap();
    first.send(&record("t", "k", "v")).await.unwrap().await.unwrap();
    first.close(LONG).await;
    config
}

/// Publishes events while the spool takes them. Returns their deliveries, and the error of the last one.
async fn fill(producer: &Producer, value: &str) -> (Vec<Delivery>, PublishError) {
    let mut deliveries = Vec::new();
    loop {
        match producer.send(&record("t", "k", value)).await {
            Ok(delivery) => {
                delivery.stored().await.unwrap();
                deliveries.push(delivery);
            }
            Err(error) => return (deliveries, error),
        }
    }
}

#[tokio::test]
async fn full_spool_follows_spool_full() {
    for spool_full in [SpoolFull::Refuse, SpoolFull::Block] {
        let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
        let (folder, value) = (SpoolFolder::new(), "x".repeat(400_000));
        let mut config = small_spool(&cluster, &folder).await;
        (config.spool_full, config.max_block) = (spool_full, Duration::from_millis(200));
        cluster.kill(1).await;
        let producer = folder.next_producer(config).await;
        let (deliveries, error) = fill(&producer, &value).await;
        let waited = match spool_full {
            SpoolFull::Block => Duration::from_millis(200),
            _ => Duration::ZERO,
        };
        assert!(matches!(error, PublishError::SpoolFull { waited: found, .. } if found == waited), "{error}");
        assert!(error.is_retriable() && deliveries.len() > 20, "{} events fit", deliveries.len());
        assert!(matches!(producer.try_send(&record("t", "k", &value)), Err(PublishError::SpoolFull { .. })));
        assert_eq!(producer.stats().accepted, deliveries.len() as u64, "a refused event is not accepted");
        assert!(cluster.restart(1).unwrap());
        for delivery in deliveries {
            delivery.await.unwrap();
        }
        // Delivered events leave the spool.
        let accepted = async {
            loop {
                match producer.send(&record("t", "k", &value)).await {
                    Ok(delivery) => return delivery.await.unwrap(),
                    Err(error) => assert!(matches!(error, PublishError::SpoolFull { .. }), "{error}"),
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG, accepted).await.unwrap();
        producer.close(LONG).await;
    }
}

#[tokio::test]
async fn spool_keep_free_leaves_disk_free() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let folder = SpoolFolder::new();
    let mut config = small_spool(&cluster, &folder).await;
    config.spool_keep_free = Some(1 << 60);
    let producer = folder.next_producer(config.clone()).await;
    let refused = producer.send(&record("t", "k", "v")).await.map(drop).unwrap_err();
    assert!(matches!(refused, PublishError::SpoolFull { .. }), "{refused}");
    producer.close(LONG).await;
    drop(producer);
    config.spool_keep_free = None;
    let producer = folder.next_producer(config).await;
    producer.send(&record("t", "k", "v")).await.unwrap().await.unwrap();
}
