//! A record whose caller waits returns to the caller if it is certainly not written, and has a dead letter otherwise.

use std::time::Duration;

use crate::gated_store::gated_store;
use crate::support::{LONG, Producer, config, producer, record};
use kafka_courier::dlq::{Letter, Outcome, Selection};
use kafka_courier::{FailedOutcome, KafkaProducer};
use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Gate, Rule, TestCluster};

async fn cluster_with_topic() -> TestCluster {
    TestCluster::builder().topic("t", 1).start().await.unwrap()
}

async fn letters(producer: &KafkaProducer) -> Vec<Letter> {
    let held = producer.dead_letters().list(&Selection::all(), 1000).await.unwrap();
    held.into_iter().map(|held| held.letter).collect()
}

#[tokio::test]
async fn rejected_record_returns_to_caller() {
    let cluster = cluster_with_topic().await;
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Refuse(ErrorCode::InvalidRecord)));
    let producer = producer(&cluster);
    let awaited = producer.send_awaited(&record("t", "k", "k#0")).await.unwrap();
    let failed = awaited.await.unwrap_err();
    assert_eq!((failed.error.outcome(), failed.dead_letter), (FailedOutcome::NotWritten, None));
    assert!(letters(&producer).await.is_empty(), "the caller has the record");
    let report = producer.close(LONG).await;
    assert_eq!((report.failed, report.dead_lettered), (1, 0));
}

#[tokio::test]
async fn other_records_keep_dead_letters() {
    let cluster = cluster_with_topic().await;
    cluster.reject_records(|_| Some("rejected".to_owned()));
    let mut config = config(&cluster);
    (config.flush_messages, config.flush_timeout, config.expedite) = (2, LONG, false);
    let producer = Producer::build(config).unwrap();
    let plain = producer.send(&record("t", "k", "k#0")).await.unwrap();
    let awaited = producer.send_awaited(&record("t", "k", "k#1")).await.unwrap();
    assert_eq!(awaited.await.unwrap_err().dead_letter, None);
    plain.await.unwrap_err();
    let [letter] = &letters(&producer).await[..] else { panic!("expected one dead letter") };
    assert_eq!(letter.value.as_deref(), Some(&b"k#0"[..]));
}

#[tokio::test]
async fn detached_record_has_promised_letter() {
    let cluster = cluster_with_topic().await;
    let gate = Gate::new();
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Hold(gate.clone())));
    cluster.reject_records(|_| Some("rejected".to_owned()));
    let producer = producer(&cluster);
    let awaited = producer.send_awaited(&record("t", "k", "k#0")).await.unwrap();
    gate.arrived(1).await;
    let promised = awaited.detach().unwrap();
    gate.open();
    producer.close(LONG).await;
    let [letter] = &letters(&producer).await[..] else { panic!("expected one dead letter") };
    assert_eq!(Some(letter.id), promised);
}

#[tokio::test]
async fn unknown_record_names_its_letter() {
    let cluster = cluster_with_topic().await;
    let mut config = config(&cluster);
    config.delivery_timeout = Duration::from_millis(400);
    config.request_timeout = Duration::from_millis(200);
    let producer = Producer::build(config).unwrap();
    producer.send_awaited(&record("t", "k", "k#0")).await.unwrap().await.unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(Fault::ApplyThenDisconnect));
    let failed = producer.send_awaited(&record("t", "k", "k#1")).await.unwrap().await.unwrap_err();
    assert_eq!(failed.error.outcome(), FailedOutcome::Unknown);
    let [letter] = &letters(&producer).await[..] else { panic!("expected one dead letter") };
    assert_eq!((Some(letter.id), letter.outcome), (failed.dead_letter, Outcome::Unknown));
}

/// The dead letter of another record of the batch is being kept when the caller leaves. The failure is on its way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_left_before_verdict_has_letter() {
    let cluster = cluster_with_topic().await;
    cluster.reject_records(|_| Some("rejected".to_owned()));
    let (store, open, appends) = gated_store();
    let mut config = config(&cluster);
    (config.flush_messages, config.flush_timeout, config.expedite) = (2, LONG, false);
    let producer = Producer::with(|builder| builder.with_config(config).dead_letter_store(store)).unwrap();
    producer.send(&record("t", "k", "k#0")).await.unwrap().detach();
    let awaited = producer.send_awaited(&record("t", "k", "k#1")).await.unwrap();
    tokio::task::spawn_blocking(move || appends.recv_timeout(LONG).map(|()| appends)).await.unwrap().unwrap();
    drop(awaited);
    open.send(()).unwrap();
    open.send(()).unwrap();
    producer.close(LONG).await;
    let values: Vec<_> = letters(&producer).await.into_iter().filter_map(|letter| letter.value).collect();
    assert_eq!(values, ["k#0", "k#1"]);
}

#[tokio::test]
async fn returned_record_may_be_left_later() {
    let cluster = cluster_with_topic().await;
    cluster.reject_records(|_| Some("rejected".to_owned()));
    let producer = producer(&cluster);
    let failed = producer.send_awaited(&record("t", "k", "k#0")).await.unwrap().await.unwrap_err();
    assert_eq!(failed.dead_letter, None);
    let left = failed.leave_to_dead_letters();
    producer.close(LONG).await;
    let [letter] = &letters(&producer).await[..] else { panic!("expected one dead letter") };
    assert_eq!(Some(letter.id), left);
}
