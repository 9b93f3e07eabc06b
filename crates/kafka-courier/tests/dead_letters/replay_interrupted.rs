//! Replays that are killed at the only letter of a partition, and imported letters.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crate::support::stores::{TempFileStore, file_store, values};
use crate::support::{self, LONG, Producer, config, record};
use kafka_courier::dlq::{Bytes, DeadLetterStore, FileStore, Letter, Outcome, Timestamp};
use kafka_courier::{Doubtful, KafkaProducer, Replay, ReplayReport};
use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Gate, Rule, TestCluster};

async fn cluster() -> TestCluster {
    TestCluster::builder().topic("t", 1).start().await.unwrap()
}

fn letter(value: &'static str) -> Letter {
    let mut letter = Letter::new("t", Bytes::from_static(value.as_bytes()), "why", Timestamp::now());
    (letter.outcome, letter.key) = (Outcome::NotWritten, Some(Bytes::from_static(b"k")));
    letter
}

fn producer(cluster: &TestCluster, store: &Arc<FileStore>) -> Producer {
    let mut config = config(cluster);
    (config.request_timeout, config.delivery_timeout) = (Duration::from_millis(300), Duration::from_secs(5));
    Producer::with(|builder| builder.with_config(config).dead_letter_store(store.clone())).unwrap()
}

async fn replay(producer: &KafkaProducer, replay: &Replay) -> ReplayReport {
    producer.replay(replay, |_| ControlFlow::Continue(())).await.unwrap()
}

fn verify() -> Replay {
    Replay { doubtful: Doubtful::Verify { force: false }, ..Replay::default() }
}

/// Starts a replay and drops it once a letter is marked and its batch is at the broker, as a kill does.
async fn kill_replay(cluster: &TestCluster, store: &Arc<FileStore>, fault: Fault) {
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(fault));
    let before = cluster.requests(ApiKey::Produce);
    let producer = producer(cluster, store);
    let task = tokio::spawn(async move {
        let _ = producer.replay(&Replay::default(), |_| ControlFlow::Continue(())).await;
    });
    support::wait_until(|| cluster.requests(ApiKey::Produce) > before).await;
    task.abort();
    let _ = task.await;
    // A dropped replay releases its claim a moment later.
    support::wait_until(|| store.begin_replay().is_ok()).await;
    cluster.clear_faults();
    assert_eq!(store.scan(None, 9).unwrap()[0].letter.outcome, Outcome::Unknown);
}

#[tokio::test]
async fn next_replay_sends_unwritten_letter() {
    let (cluster, file) = (cluster().await, file_store());
    file.store.append(&[letter("only")]).unwrap();
    for _ in 0..2 {
        kill_replay(&cluster, &file.store, Fault::Swallow).await;
    }
    let report = replay(&producer(&cluster, &file.store), &Replay::default()).await;
    assert_eq!((report.delivered, report.not_found, file.store.len()), (1, 0, 0), "{report:?}");
    assert_eq!(values(&cluster, "t"), ["only"]);
}

/// The first copy of the letter reaches the log after the check of the next replay.
#[tokio::test]
async fn late_copy_is_not_written_twice() {
    let (cluster, file) = (cluster().await, file_store());
    file.store.append(&[letter("only")]).unwrap();
    let gate = Gate::new();
    kill_replay(&cluster, &file.store, Fault::Hold(gate.clone())).await;
    let report = replay(&producer(&cluster, &file.store), &verify()).await;
    assert_eq!((report.delivered, report.not_found, file.store.len()), (1, 0, 0), "{report:?}");
    gate.open();
    // The broker has handled the held request once a later request is answered.
    let later = producer(&cluster, &file.store);
    later.send(&record("t", "k", "later")).await.unwrap().await.unwrap();
    later.close(LONG).await;
    assert_eq!(values(&cluster, "t"), ["only", "later"]);
}

#[tokio::test]
async fn next_replay_finds_written_letter() {
    let (cluster, file) = (cluster().await, file_store());
    file.store.append(&[letter("only")]).unwrap();
    kill_replay(&cluster, &file.store, Fault::ApplyThenSwallow).await;
    let report = replay(&producer(&cluster, &file.store), &Replay::default()).await;
    assert_eq!((report.landed, report.delivered, file.store.len()), (1, 0, 0), "{report:?}");
    assert_eq!(values(&cluster, "t"), ["only"]);
}

#[tokio::test]
async fn refused_second_copy_stays_doubtful() {
    let (cluster, file) = (cluster().await, file_store());
    file.store.append(&[letter("only")]).unwrap();
    kill_replay(&cluster, &file.store, Fault::Swallow).await;
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Refuse(ErrorCode::InvalidRecord)));
    let report = replay(&producer(&cluster, &file.store), &Replay::default()).await;
    assert_eq!((report.failed, report.delivered), (1, 0), "{report:?}");
    let held = file.store.scan(None, 9).unwrap();
    assert_eq!((held[0].letter.outcome, held[0].letter.replay_count), (Outcome::Unknown, 2));
    let report = replay(&producer(&cluster, &file.store), &Replay::default()).await;
    assert_eq!((report.delivered, file.store.len()), (1, 0), "{report:?}");
    assert_eq!(values(&cluster, "t"), ["only"]);
}

/// Returns a producer that still runs, its store, and a copy of the doubtful letter in the store.
async fn doubtful_letter_of_live_producer(cluster: &TestCluster) -> (Producer, TempFileStore, Letter) {
    let file = file_store();
    let mut config = config(cluster);
    (config.retry_max, config.request_timeout) = (0, Duration::from_millis(300));
    let live = Producer::with(|builder| builder.with_config(config).dead_letter_store(file.store.clone())).unwrap();
    live.send(&record("t", "k", "first")).await.unwrap().await.unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Swallow));
    live.send(&record("t", "k", "doubtful")).await.unwrap().await.unwrap_err();
    let doubtful = file.store.scan(None, 9).unwrap().remove(0).letter;
    (live, file, doubtful)
}

/// The producer of an imported letter may still run, so a replay fences its id only with `fence_imported`.
#[tokio::test]
async fn imported_letter_is_fenced_on_request() {
    let (cluster, file) = (cluster().await, file_store());
    let (live, _file, doubtful) = doubtful_letter_of_live_producer(&cluster).await;
    file.store.import(std::slice::from_ref(&doubtful)).unwrap();
    let mut certain = letter("certain");
    (certain.partition, certain.key) = (Some(0), Some(Bytes::from_static(b"other")));
    file.store.append(&[certain.clone()]).unwrap();
    let replaying = producer(&cluster, &file.store);
    let report = replay(&replaying, &verify()).await;
    assert_eq!((report.not_found, report.delivered), (1, 1), "{report:?}");
    assert!(report.reasons.keys().any(|why| why.contains("was imported")), "{report:?}");
    live.close(LONG).await;
    // `fence_imported` states that the producer has ended.
    certain.id = kafka_courier::dlq::LetterId::new();
    file.store.append(&[certain]).unwrap();
    let report = replay(&replaying, &Replay { fence_imported: true, ..verify() }).await;
    assert_eq!((report.not_found, report.delivered, file.store.len()), (0, 2, 0), "{report:?}");
    assert_eq!(values(&cluster, "t"), ["first", "certain", "certain", "doubtful"]);
}

#[tokio::test]
async fn letters_of_ended_producers_are_proved() {
    const GONE: usize = 20;
    let (cluster, file) = (cluster().await, file_store());
    for number in 0..GONE {
        let (ended, _file, doubtful) = doubtful_letter_of_live_producer(&cluster).await;
        ended.close(LONG).await;
        let mut certain = letter("certain");
        // Each letter has another key and may be sent first.
        (certain.partition, certain.key) = (Some(0), Some(format!("other-{number}").into()));
        file.store.append(&[doubtful, certain]).unwrap();
    }
    let report = replay(&producer(&cluster, &file.store), &verify()).await;
    assert_eq!((report.not_found, report.delivered), (0, 2 * GONE as u64), "{report:?}");
    let sent = values(&cluster, "t");
    assert_eq!(sent.iter().filter(|value| *value == "doubtful").count(), GONE);
}

/// Both letters have the same key.
#[tokio::test]
async fn failed_letter_holds_back_last_letter() {
    let (cluster, file) = (cluster().await, file_store());
    file.store.append(&["a", "b"].map(letter)).unwrap();
    cluster.reject_records(|record| (record.value_text() == Some("a")).then(|| "no".to_owned()));
    let producer = producer(&cluster, &file.store);
    let report = replay(&producer, &Replay::default()).await;
    assert_eq!((report.delivered, report.failed, report.held_back), (0, 1, 1), "{report:?}");
    assert!(values(&cluster, "t").is_empty());
    cluster.accept_records();
    let report = replay(&producer, &Replay::default()).await;
    assert_eq!((report.delivered, report.failed), (2, 0), "{report:?}");
    assert_eq!(values(&cluster, "t"), ["a", "b"]);
}
