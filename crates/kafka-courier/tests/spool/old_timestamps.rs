//! Events that have waited in a spool for long. Records with timestamps of the past stand for them.

use std::time::Duration;

use crate::spool_folder::SpoolFolder;
use crate::support::{LONG, now_ms, record, wait_until};
use kafka_courier::{KafkaConfig, ProducerRecord, SpoolOldTimestamps};
use kafka_courier_test_broker::{ApiKey, Fault, Gate, Rule, TestCluster, TopicSpec};

const HOUR_MS: i64 = 60 * 60 * 1000;

/// Stores an event of this age, which meets the fault on its way to the broker, and ends the process.
async fn store_old(cluster: &TestCluster, config: &KafkaConfig, folder: &SpoolFolder, age_ms: i64, fault: Fault) {
    let producer = folder.next_producer(config.clone()).await;
    producer.health_check_topics(&["t"], LONG).await.unwrap();
    let before = cluster.requests(ApiKey::Produce);
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(fault));
    let old = ProducerRecord { timestamp: Some(now_ms() - age_ms), ..record("t", "k", "old") };
    producer.send(&old).await.unwrap().stored().await.unwrap();
    wait_until(|| cluster.requests(ApiKey::Produce) > before).await;
    producer.close(Duration::ZERO).await;
    cluster.clear_faults();
}

fn ages_ms(cluster: &TestCluster) -> Vec<i64> {
    cluster.records("t").iter().map(|record| now_ms() - record.timestamp).collect()
}

#[tokio::test]
async fn old_events_get_new_timestamps() {
    for (choice, is_renewed) in [(SpoolOldTimestamps::Renew, true), (SpoolOldTimestamps::Keep, false)] {
        let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
        let folder = SpoolFolder::new();
        let mut config = folder.config(&cluster);
        config.spool_old_timestamps = choice;
        store_old(&cluster, &config, &folder, 48 * HOUR_MS, Fault::Disconnect).await;
        let next = folder.next_producer(config).await;
        assert!(next.flush(LONG).await);
        let ages = ages_ms(&cluster);
        assert_eq!((ages.len(), ages[0] < HOUR_MS), (1, is_renewed), "{choice}: {ages:?}");
    }
}

/// The leader forgets the producer id by the record's time, and then a request of the dead process arrives.
#[tokio::test]
async fn late_request_meets_renewed_event() {
    for (choice, written) in [(SpoolOldTimestamps::Renew, 1), (SpoolOldTimestamps::Keep, 2)] {
        let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
        let (folder, gate) = (SpoolFolder::new(), Gate::new());
        let mut config = folder.config(&cluster);
        config.spool_old_timestamps = choice;
        store_old(&cluster, &config, &folder, 48 * HOUR_MS, Fault::Hold(gate.clone())).await;
        let next = folder.next_producer(config).await;
        assert!(next.flush(LONG).await);
        assert_eq!(cluster.record_count("t"), 1);
        cluster.expire_producer_ids();
        gate.open();
        next.send(&record("t", "k", "later")).await.unwrap().await.unwrap();
        assert_eq!(cluster.record_count("t"), written + 1, "{choice}");
    }
}

#[tokio::test]
async fn refused_timestamps_are_renewed() {
    let spec = TopicSpec::new("t", 1).config("message.timestamp.before.max.ms", &HOUR_MS.to_string());
    let cluster = TestCluster::builder().topic_spec(spec).start().await.unwrap();
    let folder = SpoolFolder::new();
    let config = folder.config(&cluster);
    store_old(&cluster, &config, &folder, 2 * HOUR_MS, Fault::Disconnect).await;
    let next = folder.next_producer(config).await;
    assert!(next.flush(LONG).await);
    let ages = ages_ms(&cluster);
    assert!(ages.len() == 1 && ages[0] < HOUR_MS, "{ages:?}");
    assert_eq!(next.stats().failed, 0);
}
