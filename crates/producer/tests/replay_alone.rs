//! What a replay that was killed leaves of the last letter of a partition, and letters that were imported.
#![allow(clippy::unwrap_used)] // helpers of tests may, as tests do
mod support;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use kafka_courier::dlq::{Bytes, DeadLetterStore, FileStore, Letter, Outcome, Timestamp};
use kafka_courier::{Doubtful, KafkaProducer, Replay, ReplayReport};
use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Gate, Rule, TestCluster};
use support::letters::{File, file, values};
use support::{LONG, Producer, config, record};

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

/// Replays until a letter is marked and its batch is at the broker, and drops the replay there, as a kill does.
async fn killed(cluster: &TestCluster, store: &Arc<FileStore>, fault: Fault) {
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(fault));
    let before = cluster.requests(ApiKey::Produce);
    let producer = producer(cluster, store);
    let task = tokio::spawn(async move {
        let _ = producer.replay(&Replay::default(), |_| ControlFlow::Continue(())).await;
    });
    support::until(|| cluster.requests(ApiKey::Produce) > before).await;
    task.abort();
    let _ = task.await;
    // A replay that was dropped gives its claim back a moment later.
    support::until(|| store.begin_replay().is_ok()).await;
    cluster.clear_faults();
    assert_eq!(store.scan(None, 9).unwrap()[0].letter.outcome, Outcome::Unknown);
}

#[tokio::test]
async fn the_only_letter_of_a_replay_that_was_killed_before_it_was_written_is_sent_by_the_next_one() {
    let (cluster, file) = (cluster().await, file());
    file.store.append(&[letter("only")]).unwrap();
    for _ in 0..2 {
        killed(&cluster, &file.store, Fault::Swallow).await;
    }
    let report = replay(&producer(&cluster, &file.store), &Replay::default()).await;
    assert_eq!((report.delivered, report.not_found, file.store.len()), (1, 0, 0), "{report:?}");
    assert_eq!(values(&cluster, "t"), ["only"]);
}

#[tokio::test]
async fn the_only_letter_of_a_replay_that_was_killed_is_written_once_though_its_first_copy_lands_behind_the_check() {
    let (cluster, file) = (cluster().await, file());
    file.store.append(&[letter("only")]).unwrap();
    let gate = Gate::new();
    killed(&cluster, &file.store, Fault::Hold(gate.clone())).await;
    let report = replay(&producer(&cluster, &file.store), &verify()).await;
    assert_eq!((report.delivered, report.not_found, file.store.len()), (1, 0, 0), "{report:?}");
    gate.open();
    // What stood at the gate is through once something that came later is.
    let later = producer(&cluster, &file.store);
    later.send(&record("t", "k", "later")).await.unwrap().await.unwrap();
    later.close(LONG).await;
    assert_eq!(values(&cluster, "t"), ["only", "later"]);
}

#[tokio::test]
async fn the_only_letter_of_a_replay_that_was_killed_after_it_was_written_is_found() {
    let (cluster, file) = (cluster().await, file());
    file.store.append(&[letter("only")]).unwrap();
    killed(&cluster, &file.store, Fault::ApplyThenSwallow).await;
    let report = replay(&producer(&cluster, &file.store), &Replay::default()).await;
    assert_eq!((report.landed, report.delivered, file.store.len()), (1, 0, 0), "{report:?}");
    assert_eq!(values(&cluster, "t"), ["only"]);
}

#[tokio::test]
async fn a_letter_whose_second_copy_is_refused_stays_in_doubt() {
    let (cluster, file) = (cluster().await, file());
    file.store.append(&[letter("only")]).unwrap();
    killed(&cluster, &file.store, Fault::Swallow).await;
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Refuse(ErrorCode::InvalidRecord)));
    let report = replay(&producer(&cluster, &file.store), &Replay::default()).await;
    assert_eq!((report.failed, report.delivered), (1, 0), "{report:?}");
    let held = file.store.scan(None, 9).unwrap();
    assert_eq!((held[0].letter.outcome, held[0].letter.replay_count), (Outcome::Unknown, 2));
    let report = replay(&producer(&cluster, &file.store), &Replay::default()).await;
    assert_eq!((report.delivered, file.store.len()), (1, 0), "{report:?}");
    assert_eq!(values(&cluster, "t"), ["only"]);
}

/// A letter in doubt of a producer that lives, exported from its store.
async fn of_a_living_one(cluster: &TestCluster) -> (Producer, File, Letter) {
    let theirs = file();
    let mut config = config(cluster);
    (config.retry_max, config.request_timeout) = (0, Duration::from_millis(300));
    let living = Producer::with(|builder| builder.with_config(config).dead_letter_store(theirs.store.clone())).unwrap();
    living.send(&record("t", "k", "first")).await.unwrap().await.unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Swallow));
    living.send(&record("t", "k", "doubtful")).await.unwrap().await.unwrap_err();
    let doubtful = theirs.store.scan(None, 9).unwrap().remove(0).letter;
    (living, theirs, doubtful)
}

#[tokio::test]
async fn the_producer_of_an_imported_letter_lives_on_and_the_letter_is_not_found_unless_told() {
    let (cluster, ours) = (cluster().await, file());
    let (living, _theirs, doubtful) = of_a_living_one(&cluster).await;
    ours.store.import(std::slice::from_ref(&doubtful)).unwrap();
    let mut certain = letter("certain");
    (certain.partition, certain.key) = (Some(0), Some(Bytes::from_static(b"other")));
    ours.store.append(&[certain.clone()]).unwrap();
    let replaying = producer(&cluster, &ours.store);
    let report = replay(&replaying, &verify()).await;
    assert_eq!((report.not_found, report.delivered), (1, 1), "{report:?}");
    assert!(report.reasons.keys().any(|why| why.contains("was imported")), "{report:?}");
    living.close(LONG).await;
    // Told that it has ended:
    certain.id = kafka_courier::dlq::LetterId::new();
    ours.store.append(&[certain]).unwrap();
    let report = replay(&replaying, &Replay { fence_imported: true, ..verify() }).await;
    assert_eq!((report.not_found, report.delivered, ours.store.len()), (0, 2, 0), "{report:?}");
    assert_eq!(values(&cluster, "t"), ["first", "certain", "certain", "doubtful"]);
}

#[tokio::test]
async fn letters_of_many_producers_that_are_gone_are_all_proved_in_one_partition() {
    const GONE: usize = 20;
    let (cluster, ours) = (cluster().await, file());
    for number in 0..GONE {
        let (gone, _theirs, doubtful) = of_a_living_one(&cluster).await;
        gone.close(LONG).await;
        let mut certain = letter("certain");
        // Another key each: it may go first.
        (certain.partition, certain.key) = (Some(0), Some(format!("other-{number}").into()));
        ours.store.append(&[doubtful, certain]).unwrap();
    }
    let report = replay(&producer(&cluster, &ours.store), &verify()).await;
    assert_eq!((report.not_found, report.delivered), (0, 2 * GONE as u64), "{report:?}");
    let sent = values(&cluster, "t");
    assert_eq!(sent.iter().filter(|value| *value == "doubtful").count(), GONE);
}

#[tokio::test]
async fn the_last_letter_does_not_overtake_one_of_its_key_that_stays() {
    let (cluster, file) = (cluster().await, file());
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
