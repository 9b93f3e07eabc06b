//! Events of which nothing shows whether Kafka has them.

use std::time::Duration;

use crate::spool_folder::SpoolFolder;
use crate::support::stores::values;
use crate::support::{LONG, Producer, now_ms, record};
use kafka_courier::dlq::{Outcome, Selection};
use kafka_courier::{HealthPart, KafkaConfig, ProducerRecord, SpoolDoubt};
use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Rule, TestCluster};

/// Leaves an old event whose write has no answer, and starts the next process. No state of a leader can be read.
async fn process_in_doubt(cluster: &TestCluster, folder: &SpoolFolder, config: &KafkaConfig) -> Producer {
    let first = folder.producer(cluster);
    first.health_check_topics(&["t"], LONG).await.unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(Fault::ApplyThenSwallow));
    let two_days = 48 * 60 * 60 * 1000;
    let old = ProducerRecord { timestamp: Some(now_ms() - two_days), ..record("t", "k", "old") };
    first.send(&old).await.unwrap().stored().await.unwrap();
    cluster.wait_for_records("t", 1).await;
    first.close(Duration::ZERO).await;
    drop(first);
    cluster.clear_faults();
    let refusal = Fault::Refuse(ErrorCode::TopicAuthorizationFailed);
    cluster.inject(Rule::for_api(ApiKey::DescribeProducers).always().then(refusal));
    let next = folder.next_producer(config.clone()).await;
    next.send(&record("t", "k", "new")).await.unwrap().stored().await.unwrap();
    next
}

#[tokio::test]
async fn unreadable_log_follows_spool_doubt() {
    for (choice, expected) in
        [(SpoolDoubt::DeadLetter, &["old", "new"][..]), (SpoolDoubt::Resend, &["old", "old", "new"])]
    {
        let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
        let folder = SpoolFolder::new();
        let mut config = folder.config(&cluster);
        config.spool_doubt = choice;
        let next = process_in_doubt(&cluster, &folder, &config).await;
        assert!(next.flush(LONG).await);
        assert_eq!(values(&cluster, "t"), expected, "{choice}");
        let letters = next.dead_letters().list(&Selection::all(), 9).await.unwrap();
        let outcomes: Vec<_> = letters.iter().map(|held| held.letter.outcome).collect();
        let is_letter = choice == SpoolDoubt::DeadLetter;
        assert_eq!(outcomes, vec![Outcome::Unknown; usize::from(is_letter)], "{choice}");
    }
}

#[tokio::test]
async fn held_event_is_settled_once_readable() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let folder = SpoolFolder::new();
    let mut config = folder.config(&cluster);
    config.spool_doubt = SpoolDoubt::Hold;
    let next = process_in_doubt(&cluster, &folder, &config).await;
    let error = loop {
        match next.health_check(LONG).await {
            Ok(()) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => break error,
        }
    };
    assert_eq!(error.part(), HealthPart::Producer);
    assert!(error.to_string().contains("t-0 waits") && error.to_string().contains("spool_doubt"), "{error}");
    assert_eq!(values(&cluster, "t"), ["old"], "the next event keeps its place");
    cluster.clear_faults();
    assert!(next.flush(LONG).await);
    assert_eq!(values(&cluster, "t"), ["old", "new"]);
    next.health_check(LONG).await.unwrap();
}
