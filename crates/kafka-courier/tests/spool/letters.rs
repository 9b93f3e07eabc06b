//! Rejected events of a spool, and their dead letters.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use crate::spool_folder::SpoolFolder;
use crate::support::{LONG, Producer, record, wait_until};
use kafka_courier::dlq::{Letter, Outcome, Selection};
use kafka_courier::{Doubtful, Header, HealthPart, KafkaProducer, ProducerRecord, Replay, ReplayReport, headers};
use kafka_courier_test_broker::{Record, TestCluster};

/// The file of dead letters in the folder of a spool.
const LETTERS: &str = "dead-letters.redb";

async fn cluster() -> TestCluster {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let is_bad = |record: &Record| record.value_text() == Some("bad");
    cluster.reject_records(move |record| is_bad(record).then(|| "bad".to_owned()));
    cluster
}

async fn letters(producer: &KafkaProducer) -> Vec<Letter> {
    let held = producer.dead_letters().list(&Selection::all(), 1000).await.unwrap();
    held.into_iter().map(|held| held.letter).collect()
}

#[tokio::test]
async fn rejected_events_are_letters_once() {
    let (cluster, folder) = (cluster().await, SpoolFolder::new());
    let producer = folder.producer(&cluster);
    for value in ["0", "bad", "1", "bad", "2"] {
        producer.send(&record("t", "k", value)).await.unwrap().detach();
    }
    assert!(producer.flush(LONG).await);
    let report = producer.close(LONG).await;
    assert_eq!((report.delivered, report.failed, report.dead_lettered, report.in_memory), (3, 2, 2, 0));
    drop(producer);
    let next = folder.next_producer(folder.config(&cluster)).await;
    assert_eq!(next.stats().spool.unwrap().recovered, 0, "the journal has the dead letters");
    let outcomes: Vec<_> = letters(&next).await.iter().map(|letter| letter.outcome).collect();
    assert_eq!(outcomes, [Outcome::NotWritten; 2]);
    let values: Vec<_> = cluster.records("t").iter().map(|r| r.value_text().unwrap().to_owned()).collect();
    assert_eq!(values, ["0", "1", "2"]);
}

#[tokio::test]
async fn repeated_failure_keeps_one_letter() {
    let (cluster, folder) = (cluster().await, SpoolFolder::new());
    let mut config = folder.config(&cluster);
    // No process stores that the dead letter is durable.
    config.spool_idle_sync = LONG;
    let mut ids = BTreeSet::new();
    for life in 0..3 {
        let before = tempfile::tempdir().unwrap();
        let producer = folder.next_producer(config.clone()).await;
        if life == 0 {
            producer.send(&record("t", "k", "bad")).await.unwrap().stored().await.unwrap();
        }
        wait_until(|| producer.dead_letters().len() == 1).await;
        copy(&folder, before.path());
        ids.extend(letters(&producer).await.iter().map(|letter| letter.id));
        assert_eq!(letters(&producer).await.len(), 1, "the store keeps a dead letter once");
        producer.close(LONG).await;
        drop(producer);
        // The state after a crash before the journal learnt of the dead letter.
        restore(before.path(), &folder);
    }
    assert_eq!(ids.len(), 1, "each process gives the record's letter the same id");
}

/// Copies the files of a running spool, as a crash leaves them.
fn crash(folder: &SpoolFolder, to: &SpoolFolder) {
    std::fs::create_dir(to.path()).unwrap();
    copy(folder, &to.path());
    std::fs::copy(folder.path().join(LETTERS), to.path().join(LETTERS)).unwrap();
    kafka_courier::spool::adopt(&to.path()).unwrap();
}

async fn replay(producer: &KafkaProducer, doubtful: Doubtful) -> ReplayReport {
    let replay = Replay { doubtful, ..Replay::default() };
    producer.replay(&replay, |_| ControlFlow::Continue(())).await.unwrap()
}

/// A process dies between the dead letter and the journal. An operator then corrects the topic, replays, and starts the next
/// process.
#[tokio::test]
async fn unsettled_letter_is_not_replayed() {
    let (cluster, folder, crashed) = (cluster().await, SpoolFolder::new(), SpoolFolder::new());
    let mut config = folder.config(&cluster);
    // No process stores that the dead letter is durable.
    config.spool_idle_sync = LONG;
    let producer = Producer::build(config).unwrap();
    // A dead letter that is certain has no stamp, so the check finds the event by its id.
    let id = [Header { key: headers::EVENT_ID, value: Some(b"event-1") }];
    let event = ProducerRecord { headers: &id, ..record("t", "k", "bad") };
    producer.send(&event).await.unwrap().stored().await.unwrap();
    wait_until(|| producer.dead_letters().len() == 1).await;
    crash(&folder, &crashed);
    cluster.accept_records();
    let mut config = crate::support::config(&cluster);
    config.dlq_file = crashed.path().join(LETTERS).to_str().unwrap().to_owned();
    let operator = Producer::build(config).unwrap();
    let report = replay(&operator, Doubtful::LeaveOut).await;
    assert_eq!((report.delivered, report.left_out), (0, 1), "the spool still has the event");
    operator.close(LONG).await;
    drop(operator);
    let next = crashed.next_producer(crashed.config(&cluster)).await;
    assert!(next.flush(LONG).await);
    let report = replay(&next, Doubtful::Verify { force: false }).await;
    assert_eq!((report.delivered, report.landed), (0, 1), "the check finds the event");
    let values: Vec<_> = cluster.records("t").iter().map(|r| r.value_text().unwrap().to_owned()).collect();
    assert_eq!(values, ["bad"]);
}

#[tokio::test]
async fn settled_letter_is_replayed() {
    let (cluster, folder) = (cluster().await, SpoolFolder::new());
    let producer = folder.producer(&cluster);
    producer.send(&record("t", "k", "bad")).await.unwrap().await.unwrap_err();
    let is_certain = async {
        while letters(&producer).await[0].outcome != Outcome::NotWritten {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LONG, is_certain).await.unwrap();
    cluster.accept_records();
    let report = replay(&producer, Doubtful::LeaveOut).await;
    assert_eq!((report.delivered, producer.dead_letters().len()), (1, 0));
    assert_eq!(cluster.records("t").len(), 1);
}

/// Copies the files of the journal.
fn copy(folder: &SpoolFolder, to: &std::path::Path) {
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_owned();
        if name.to_str().unwrap().starts_with("journal-") {
            std::fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

/// Replaces the files of the journal by copies.
fn restore(from: &std::path::Path, folder: &SpoolFolder) {
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.starts_with("journal-") || name == "spare" {
            std::fs::remove_file(path).unwrap();
        }
    }
    for file in std::fs::read_dir(from).unwrap() {
        let path = file.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
}

#[tokio::test]
async fn letters_in_memory_hold_the_partition() {
    let (cluster, folder) = (cluster().await, SpoolFolder::new());
    let mut config = folder.config(&cluster);
    (config.dlq_max_letters, config.flush_messages) = (1, 1);
    let producer = Producer::build(config.clone()).unwrap();
    for value in ["0", "bad", "1"] {
        producer.send(&record("t", "k", value)).await.unwrap().detach();
    }
    assert!(producer.flush(LONG).await);
    producer.health_check(LONG).await.unwrap();
    // The file is full, so only memory takes the next dead letter.
    let held = producer.send(&record("t", "k", "bad")).await.unwrap();
    held.await.unwrap_err();
    wait_until(|| producer.stats().spool.unwrap().held_partitions == 1).await;
    let error = producer.health_check(LONG).await.unwrap_err();
    assert_eq!(error.part(), HealthPart::Producer);
    assert!(error.to_string().contains("dlq_file"), "{error}");
    let waiting = producer.send(&record("t", "k", "2")).await.unwrap();
    waiting.stored().await.unwrap();
    let report = producer.close(Duration::from_millis(100)).await;
    assert_eq!((report.delivered, report.failed, report.stored, report.in_memory), (2, 2, 1, 1));
    drop(producer);
    config.dlq_max_letters = 0;
    let next = folder.next_producer(config).await;
    assert!(next.flush(LONG).await);
    let report = next.close(LONG).await;
    // A request of the first process could still bring the rejected event, and then the one behind it.
    assert_eq!((report.delivered, report.failed), (0, 2), "the next process has room for the dead letters");
    let values: Vec<_> = cluster.records("t").iter().map(|r| r.value_text().unwrap().to_owned()).collect();
    assert_eq!(values, ["0", "1"]);
}
