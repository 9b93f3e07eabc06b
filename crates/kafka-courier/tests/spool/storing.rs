//! The time at which an event is stored, and the news for its publisher. The options are `spool_dir` and `spool_idle_sync`.

use std::time::Duration;

use crate::spool_folder::SpoolFolder;
use crate::support::{LONG, Producer, config, record};
use kafka_courier::events::{EventBuilder, UserLoggedIn};
use kafka_courier::{DeliveryErrorKind, Error, SpoolOpenError, StoreError};
use kafka_courier_test_broker::TestCluster;

async fn cluster() -> TestCluster {
    TestCluster::builder().topic("t", 1).topic("user-events", 1).start().await.unwrap()
}

#[tokio::test]
async fn stored_events_are_delivered() {
    let (cluster, folder) = (cluster().await, SpoolFolder::new());
    let producer = folder.producer(&cluster);
    let delivery = producer.send(&record("t", "k", "v")).await.unwrap();
    delivery.stored().await.unwrap();
    assert_eq!(delivery.await.unwrap().offset, Some(0));
    let event = EventBuilder::new("s", "1").user_logged_in(UserLoggedIn::default());
    producer.publish_stored(&event).await.unwrap().await.unwrap();
    assert_eq!(producer.stats().spool.unwrap().fault, None);
    let report = producer.close(LONG).await;
    assert_eq!((report.delivered, report.failed, report.stored), (2, 0, 0));
    assert_eq!(producer.stats().spool.unwrap().records, 0);
}

#[tokio::test]
async fn storing_waits_for_no_linger() {
    let (cluster, folder) = (cluster().await, SpoolFolder::new());
    let mut config = folder.config(&cluster);
    (config.flush_timeout, config.expedite, config.spool_idle_sync) = (LONG, false, LONG);
    let producer = Producer::build(config).unwrap();
    let deliveries: Vec<_> = {
        let records = ["0", "1", "2"].map(|value| record("t", "k", value));
        let mut deliveries = Vec::new();
        for record in &records {
            deliveries.push(producer.send(record).await.unwrap());
        }
        deliveries
    };
    deliveries[1].stored().await.unwrap();
    for delivery in deliveries {
        delivery.stored().await.unwrap();
        delivery.await.unwrap();
    }
    assert_eq!(cluster.batches("t").len(), 1, "the events share a batch");
}

#[tokio::test]
async fn producer_without_spool_stores_nothing() {
    let cluster = cluster().await;
    let producer = Producer::build(config(&cluster)).unwrap();
    let delivery = producer.send(&record("t", "k", "v")).await.unwrap();
    assert!(matches!(delivery.stored().await, Err(StoreError::NoSpool)));
    delivery.await.unwrap();
    let event = EventBuilder::new("s", "1").user_logged_in(UserLoggedIn::default());
    let error = producer.publish_stored(&event).await.unwrap_err();
    assert!(matches!(error, Error::NotStored(StoreError::NoSpool)), "{error}");
    assert!(error.to_string().contains("spool_dir"), "{error}");
    assert_eq!(cluster.record_count("user-events"), 0);
}

#[tokio::test]
async fn close_leaves_events_stored() {
    let (cluster, folder) = (cluster().await, SpoolFolder::new());
    let producer = folder.producer(&cluster);
    producer.send(&record("t", "k", "0")).await.unwrap().await.unwrap();
    cluster.kill(1).await;
    let deliveries =
        [producer.send(&record("t", "k", "1")).await.unwrap(), producer.send(&record("t", "k", "2")).await.unwrap()];
    for delivery in &deliveries {
        delivery.stored().await.unwrap();
    }
    let report = producer.close(Duration::from_millis(50)).await;
    assert_eq!((report.delivered, report.failed, report.stored, report.dead_lettered), (1, 0, 2, 0));
    for delivery in deliveries {
        let error = delivery.await.unwrap_err();
        assert_eq!(error.kind(), DeliveryErrorKind::StillStored);
        assert!(!error.is_retriable() && error.to_string().contains("next process"), "{error}");
    }
    assert!(cluster.restart(1).unwrap());
    drop(producer);
    let next = folder.next_producer(folder.config(&cluster)).await;
    assert_eq!(next.stats().spool.unwrap().recovered, 2);
    cluster.wait_for_records("t", 3).await;
    assert!(next.flush(LONG).await);
    let values: Vec<_> = cluster.records("t").iter().map(|r| r.value_text().unwrap().to_owned()).collect();
    assert_eq!(values, ["0", "1", "2"]);
    let report = next.close(LONG).await;
    assert_eq!(
        (report.delivered, report.stored),
        (2, 0),
        "recovered events are counted by the process that delivers them"
    );
}

#[tokio::test]
async fn known_topics_need_no_kafka() {
    let (cluster, folder) = (cluster().await, SpoolFolder::new());
    let first = folder.producer(&cluster);
    first.send(&record("t", "k", "0")).await.unwrap().await.unwrap();
    first.close(LONG).await;
    drop(first);
    cluster.kill(1).await;
    let second = folder.next_producer(folder.config(&cluster)).await;
    let delivery = second.send(&record("t", "k", "1")).await.unwrap();
    delivery.stored().await.unwrap();
    assert!(delivery.now().is_none(), "Kafka is away");
    assert_eq!(second.stats().spool.unwrap().held_partitions, 0);
    assert!(cluster.restart(1).unwrap());
    assert_eq!(delivery.await.unwrap().offset, Some(1));
}

/// Returns how many events a process would take over if this one ended now.
async fn unsettled(folder: &SpoolFolder, cluster: &TestCluster) -> u64 {
    let copy = SpoolFolder::new();
    std::fs::create_dir(copy.path()).unwrap();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let path = file.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("journal-") {
            std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    kafka_courier::spool::adopt(&copy.path()).unwrap();
    let producer = copy.producer(cluster);
    let recovered = producer.stats().spool.unwrap().recovered;
    producer.close(Duration::ZERO).await;
    recovered
}

#[tokio::test]
async fn spool_idle_sync_delays_marks() {
    let (cluster, folder) = (cluster().await, SpoolFolder::new());
    let mut config = folder.config(&cluster);
    config.spool_idle_sync = LONG;
    let producer = folder.next_producer(config).await;
    producer.send(&record("t", "k", "v")).await.unwrap().await.unwrap();
    assert_eq!(unsettled(&folder, &cluster).await, 1, "the delivery is not stored yet");
    producer.close(LONG).await;
    drop(producer);
    let producer = folder.next_producer(folder.config(&cluster)).await;
    producer.send(&record("t", "k", "v")).await.unwrap().await.unwrap();
    while unsettled(&folder, &cluster).await > 0 {}
    producer.close(LONG).await;
}

#[tokio::test]
async fn second_process_is_refused() {
    let (cluster, folder) = (cluster().await, SpoolFolder::new());
    let first = folder.producer(&cluster);
    let errors = Producer::build(folder.config(&cluster)).unwrap_err();
    let error = errors.problems()[0].spool_error().unwrap();
    assert!(matches!(error, SpoolOpenError::Locked { dir, .. } if *dir == folder.path()), "{error}");
    assert!(errors.to_string().contains("spool_dir"), "{errors}");
    first.close(LONG).await;
    drop(first);
    folder.next_producer(folder.config(&cluster)).await.close(LONG).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn memory_file_system_is_refused() {
    let cluster = cluster().await;
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut config = config(&cluster);
    config.spool_dir = folder.path().join("spool").to_str().unwrap().to_owned();
    let errors = Producer::build(config.clone()).unwrap_err();
    let error = errors.problems()[0].spool_error().unwrap();
    assert!(matches!(error, SpoolOpenError::FileSystem { .. }), "{error}");
    for part in ["tmpfs is in memory", "set spool_any_filesystem=true"] {
        assert!(errors.to_string().contains(part), "{errors}");
    }
    config.spool_any_filesystem = true;
    let producer = Producer::build(config).unwrap();
    producer.send(&record("t", "k", "v")).await.unwrap().stored().await.unwrap();
    producer.close(LONG).await;
}
