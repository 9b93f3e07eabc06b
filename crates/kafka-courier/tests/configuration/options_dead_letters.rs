//! The visible effect of options for dead letters that no other test shows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::{LONG, Producer, config, record};
use kafka_courier::dlq::{DeadLetterStore as _, Letter, MemoryStore, Outcome, Selection, StoreStats, Timestamp};
use kafka_courier::{KafkaConfig, KafkaProducer};
use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Rule, TestCluster};

/// Returns a producer whose cluster rejects every event permanently.
async fn rejecting_producer(change: impl FnOnce(&mut KafkaConfig)) -> (Producer, TestCluster) {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(Fault::Refuse(ErrorCode::InvalidRecord)));
    let mut config = config(&cluster);
    change(&mut config);
    (Producer::build(config).unwrap(), cluster)
}

async fn publish(producer: &KafkaProducer, value: &str) {
    producer.send(&record("t", "k", value)).await.unwrap().await.unwrap_err();
}

/// Returns the statistics of the producer's first store.
async fn first_store(producer: &KafkaProducer) -> StoreStats {
    producer.dead_letters().stats().await.unwrap()[0].stats.clone()
}

#[tokio::test]
async fn dlq_buffer_keeps_the_newest() {
    for kept in [1, 3] {
        let (producer, _cluster) = rejecting_producer(|config| config.dlq_buffer = kept).await;
        for value in ["a", "b", "c", "d"] {
            publish(&producer, value).await;
        }
        let letters = producer.dead_letters().list(&Selection::all(), 10).await.unwrap();
        let values: Vec<_> = letters.iter().map(|held| held.letter.value.clone().unwrap()).collect();
        assert_eq!(values, ["b", "c", "d"].map(|value| value.as_bytes().to_vec())[3 - kept..]);
    }
}

/// The next store keeps the letters that exceed the bound.
#[tokio::test]
async fn dlq_max_bytes_bounds_the_file() {
    for (bytes, in_file) in [(1, 0), (1 << 20, 3)] {
        let folder = tempfile::tempdir().unwrap();
        let (producer, _cluster) = rejecting_producer(|config| {
            (config.dlq_max_bytes, config.dlq_file) = (bytes, folder.path().join("f").display().to_string());
        })
        .await;
        for value in ["a", "b", "c"] {
            publish(&producer, value).await;
        }
        assert_eq!((first_store(&producer).await.letters, producer.dead_letters().len()), (in_file, 3), "{bytes}");
    }
}

#[tokio::test]
async fn dlq_max_age_drops_older_letters() {
    for (age, drops) in [(Duration::ZERO, false), (LONG, false), (Duration::from_millis(1), true)] {
        let folder = tempfile::tempdir().unwrap();
        let (producer, _cluster) = rejecting_producer(|config| {
            (config.dlq_max_age, config.dlq_file) = (age, folder.path().join("f").display().to_string());
        })
        .await;
        publish(&producer, "old").await;
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(20) || (drops && first_store(&producer).await.expired == 0) {
            publish(&producer, "new").await;
            assert!(began.elapsed() < LONG, "nothing was dropped");
        }
        assert_eq!(first_store(&producer).await.expired > 0, drops, "{age:?}");
    }
}

/// Returns a store with this number of retriable letters.
fn store(letters: usize) -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::default());
    let letter = |_| {
        let mut letter = Letter::new("t", None, "broker not available", Timestamp::now());
        (letter.outcome, letter.retriable) = (Outcome::NotWritten, true);
        letter
    };
    store.append(&(0..letters).map(letter).collect::<Vec<_>>()).unwrap();
    store
}

/// Returns the time until the five letters of a store are replayed.
async fn time_to_empty(auto_replay_rate: u32) -> Duration {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let mut config = config(&cluster);
    (config.auto_replay, config.auto_replay_interval) = (true, Duration::from_millis(1));
    config.auto_replay_rate = auto_replay_rate;
    let store = store(5);
    let began = Instant::now();
    let producer = Producer::with(|builder| builder.with_config(config).dead_letter_store(store.clone())).unwrap();
    cluster.wait_for_records("t", 5).await;
    let took = began.elapsed();
    producer.close(LONG).await;
    took
}

#[tokio::test]
async fn auto_replay_rate_bounds_replays() {
    let slow = time_to_empty(5).await;
    assert!(slow >= Duration::from_millis(500), "{slow:?}");
    let fast = time_to_empty(100_000).await;
    assert!(fast < slow, "{fast:?} {slow:?}");
}

#[tokio::test]
async fn auto_replay_interval_delays_replay() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let mut config = config(&cluster);
    (config.auto_replay, config.auto_replay_interval) = (true, Duration::from_secs(1));
    let store = store(1);
    let began = Instant::now();
    let producer = Producer::with(|builder| builder.with_config(config).dead_letter_store(store.clone())).unwrap();
    cluster.wait_for_records("t", 1).await;
    assert!((1..25).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    producer.close(LONG).await;
}
