//! What the options of dead letters do, seen from outside: where no other test shows it already.
#![allow(clippy::unwrap_used)] // helpers of tests may, as tests do
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier::dlq::{DeadLetterStore as _, Letter, MemoryStore, Outcome, Selection, StoreStats, Timestamp};
use kafka_courier::{KafkaConfig, KafkaProducer};
use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Rule, TestCluster};
use support::{LONG, Producer, config, record};

/// A producer whose every event is refused for good.
async fn refused(change: impl FnOnce(&mut KafkaConfig)) -> (Producer, TestCluster) {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(Fault::Refuse(ErrorCode::InvalidRecord)));
    let mut config = config(&cluster);
    change(&mut config);
    (Producer::build(config).unwrap(), cluster)
}

async fn publish(producer: &KafkaProducer, value: &str) {
    producer.send(&record("t", "k", value)).await.unwrap().await.unwrap_err();
}

/// What the first store of the producer holds and did.
async fn first_store(producer: &KafkaProducer) -> StoreStats {
    producer.dead_letters().stats().await.unwrap()[0].stats.clone()
}

#[tokio::test]
async fn dlq_buffer_is_how_many_letters_memory_keeps_the_newest() {
    for kept in [1, 3] {
        let (producer, _cluster) = refused(|config| config.dlq_buffer = kept).await;
        for value in ["a", "b", "c", "d"] {
            publish(&producer, value).await;
        }
        let letters = producer.dead_letters().list(&Selection::all(), 10).await.unwrap();
        let values: Vec<_> = letters.iter().map(|held| held.letter.value.clone().unwrap()).collect();
        assert_eq!(values, ["b", "c", "d"].map(|value| value.as_bytes().to_vec())[3 - kept..]);
    }
}

#[tokio::test]
async fn dlq_max_bytes_bounds_the_file_and_the_rest_goes_to_the_next_store() {
    for (bytes, in_file) in [(1, 0), (1 << 20, 3)] {
        let folder = tempfile::tempdir().unwrap();
        let (producer, _cluster) = refused(|config| {
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
async fn dlq_max_age_drops_letters_that_have_been_there_for_longer() {
    for (age, drops) in [(Duration::ZERO, false), (LONG, false), (Duration::from_millis(1), true)] {
        let folder = tempfile::tempdir().unwrap();
        let (producer, _cluster) = refused(|config| {
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

/// A store with so many letters that may be sent again.
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

/// How long it takes until a store of five letters is empty.
async fn emptied(auto_replay_rate: u32) -> Duration {
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
async fn auto_replay_rate_bounds_how_many_letters_go_again_in_a_second() {
    let slow = emptied(5).await;
    assert!(slow >= Duration::from_millis(500), "{slow:?}");
    let fast = emptied(100_000).await;
    assert!(fast < slow, "{fast:?} {slow:?}");
}

#[tokio::test]
async fn auto_replay_interval_is_waited_for_before_letters_go_again() {
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
