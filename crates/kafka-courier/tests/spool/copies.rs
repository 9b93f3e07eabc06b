//! Copies of a spool's folder.

use std::path::Path;
use std::time::Duration;

use crate::spool_folder::SpoolFolder;
use crate::support::stores::values;
use crate::support::{LONG, Producer, record};
use kafka_courier::{SpoolOpenError, spool};
use kafka_courier_test_broker::{ApiKey, Fault, Rule, TestCluster};

/// Leaves an event in a spool, and copies all files of the folder.
async fn copy_with_event(cluster: &TestCluster) -> (SpoolFolder, SpoolFolder) {
    let (original, copy) = (SpoolFolder::new(), SpoolFolder::new());
    let producer = original.producer(cluster);
    producer.send(&record("t", "k", "0")).await.unwrap().await.unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(Fault::Disconnect));
    producer.send(&record("t", "k", "1")).await.unwrap().stored().await.unwrap();
    producer.close(Duration::ZERO).await;
    cluster.clear_faults();
    copy_files(&original.path(), &copy.path());
    (original, copy)
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let path = file.unwrap().path();
        if !path.display().to_string().contains("dead-letters") {
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

#[tokio::test]
async fn copy_is_refused_until_adopted() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let (original, copy) = copy_with_event(&cluster).await;
    let errors = Producer::build(copy.config(&cluster)).unwrap_err();
    let error = errors.problems()[0].spool_error().unwrap();
    assert!(matches!(error, SpoolOpenError::Copied { dir } if *dir == copy.path()), "{error}");
    assert!(error.to_string().contains("courier spool adopt"), "{error}");
    spool::adopt(&copy.path()).unwrap();
    let adopted = copy.next_producer(copy.config(&cluster)).await;
    assert!(adopted.flush(LONG).await);
    assert_eq!(values(&cluster, "t"), ["0", "1"]);
    // The event has one stamp in both copies.
    let first = original.next_producer(original.config(&cluster)).await;
    assert!(first.flush(LONG).await);
    assert_eq!(values(&cluster, "t"), ["0", "1"]);
}

#[tokio::test]
async fn copy_without_mark_is_refused() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let (_original, copy) = copy_with_event(&cluster).await;
    std::fs::remove_file(copy.path().join("identity")).unwrap();
    let errors = Producer::build(copy.config(&cluster)).unwrap_err();
    assert!(matches!(errors.problems()[0].spool_error(), Some(SpoolOpenError::Copied { .. })), "{errors}");
}

#[tokio::test]
async fn renamed_folder_is_the_original() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let (original, _) = copy_with_event(&cluster).await;
    let moved = SpoolFolder::new();
    std::fs::rename(original.path(), moved.path()).unwrap();
    let producer = moved.next_producer(moved.config(&cluster)).await;
    assert!(producer.flush(LONG).await);
    assert_eq!(values(&cluster, "t"), ["0", "1"]);
}

#[tokio::test]
async fn drained_copy_is_adopted_automatically() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let (original, copy) = (SpoolFolder::new(), SpoolFolder::new());
    let producer = original.producer(&cluster);
    producer.send(&record("t", "k", "0")).await.unwrap().await.unwrap();
    producer.close(LONG).await;
    drop(producer);
    copy_files(&original.path(), &copy.path());
    for folder in [&copy, &original] {
        let producer = folder.next_producer(folder.config(&cluster)).await;
        producer.send(&record("t", "k", "1")).await.unwrap().await.unwrap();
        producer.close(LONG).await;
    }
    assert_eq!(values(&cluster, "t"), ["0", "1", "1"]);
}
