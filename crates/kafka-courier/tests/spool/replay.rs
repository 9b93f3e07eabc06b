//! Replays beside a spool: no producer id of the spool is fenced.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::spool_folder::SpoolFolder;
use crate::support::{LONG, Producer, config, record, wait_until};
use kafka_courier::dlq::{Bytes, DeadLetterStore, FileStore, Letter, LetterId, Outcome, Timestamp};
use kafka_courier::spool::{SpoolView, unsettled_records};
use kafka_courier::{Doubtful, KafkaConfig, KafkaProducer, Replay, ReplayReport};
use kafka_courier_test_broker::{ApiKey, Fault, Rule, TestCluster};

/// Delivers an event, and stores a second one that no leader takes.
async fn store_unsent(cluster: &TestCluster, folder: &SpoolFolder) -> Producer {
    let producer = folder.producer(cluster);
    producer.send(&record("t", "k", "0")).await.unwrap().await.unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(Fault::Disconnect));
    let before = cluster.requests(ApiKey::Produce);
    producer.send(&record("t", "k", "1")).await.unwrap().stored().await.unwrap();
    wait_until(|| cluster.requests(ApiKey::Produce) > before).await;
    producer
}

/// Returns a dead letter under the spool's producer id whose record no process ever sent, and one of another key that can
/// serve as a fence.
fn letters(spool: &Path) -> [Letter; 2] {
    let view = SpoolView::read(spool).unwrap();
    let part = view.parts().next().unwrap().unwrap();
    let mut doubtful = unsettled_records(&part).unwrap().remove(0).letter;
    assert_eq!(doubtful.outcome, Outcome::Unknown);
    (doubtful.id, doubtful.sequence) = (LetterId::new(), doubtful.sequence.map(|sequence| sequence + 100));
    doubtful.value = Some(Bytes::from_static(b"doubtful"));
    let mut certain = Letter::new("t", Bytes::from_static(b"certain"), "why", Timestamp::now());
    (certain.outcome, certain.partition) = (Outcome::NotWritten, doubtful.partition);
    certain.key = Some(Bytes::from_static(b"other"));
    [doubtful, certain]
}

fn replaying(config: KafkaConfig, folder: &tempfile::TempDir, letters: &[Letter]) -> Producer {
    let store = FileStore::open(folder.path().join("letters")).unwrap();
    store.append(letters).unwrap();
    Producer::with(|builder| builder.with_config(config).dead_letter_store(Arc::new(store))).unwrap()
}

async fn verify(producer: &KafkaProducer, spools: Vec<std::path::PathBuf>) -> ReplayReport {
    let replay = Replay { doubtful: Doubtful::Verify { force: false }, spools, ..Replay::default() };
    producer.replay(&replay, |_| ControlFlow::Continue(())).await.unwrap()
}

fn assert_not_fenced(report: &ReplayReport, reason: &str) {
    assert_eq!((report.not_found, report.delivered), (1, 1), "{report:?}");
    assert!(report.reasons.keys().any(|why| why.contains(reason)), "{report:?}");
}

#[tokio::test]
async fn undelivered_id_is_not_fenced() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let (folder, store) = (SpoolFolder::new(), tempfile::tempdir().unwrap());
    store_unsent(&cluster, &folder).await.close(Duration::ZERO).await;
    let letters = letters(&folder.path());
    cluster.clear_faults();
    let producer = replaying(config(&cluster), &store, &letters);
    let reason = format!("run courier spool drain {}", folder.path().display());
    assert_not_fenced(&verify(&producer, vec![folder.path()]).await, &reason);
    let last = folder.next_producer(folder.config(&cluster)).await;
    assert!(last.flush(LONG).await);
    let report = last.close(LONG).await;
    assert_eq!((report.delivered, report.failed), (1, 0), "the spool's event keeps its certainty");
    drop(last);
    // A drained spool holds no id.
    producer.dead_letters().put(vec![Letter { id: LetterId::new(), ..letters[1].clone() }]).await;
    let report = verify(&producer, vec![folder.path()]).await;
    assert_eq!((report.not_found, report.delivered), (0, 2), "{report:?}");
}

#[tokio::test]
async fn running_process_is_not_fenced() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let (folder, store) = (SpoolFolder::new(), tempfile::tempdir().unwrap());
    let running = store_unsent(&cluster, &folder).await;
    let letters = letters(&folder.path());
    cluster.clear_faults();
    assert!(running.flush(LONG).await);
    let producer = replaying(config(&cluster), &store, &letters);
    let reason = format!("process {} has the spool", std::process::id());
    assert_not_fenced(&verify(&producer, vec![folder.path()]).await, &reason);
    running.send(&record("t", "k", "2")).await.unwrap().await.unwrap();
    let ids: Vec<_> = cluster.batches("t").iter().map(|batch| (batch.producer_id, batch.producer_epoch)).collect();
    assert_eq!(ids.iter().filter(|id| **id == ids[0]).count(), 3, "{ids:?}");
}

#[tokio::test]
async fn own_inherited_id_is_not_fenced() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let (folder, store) = (SpoolFolder::new(), tempfile::tempdir().unwrap());
    store_unsent(&cluster, &folder).await.close(Duration::ZERO).await;
    let letters = letters(&folder.path());
    cluster.clear_faults();
    let producer = replaying(folder.config(&cluster), &store, &letters);
    assert_not_fenced(&verify(&producer, Vec::new()).await, "this producer's spool");
    assert!(producer.flush(LONG).await);
    assert_eq!(producer.stats().failed, 0);
}
