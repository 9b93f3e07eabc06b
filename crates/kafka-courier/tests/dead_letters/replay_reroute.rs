//! Replays that send dead letters to another topic.

use std::ops::ControlFlow;
use std::time::Duration;

use crate::support::stores::{TempFileStore, file_store, values};
use crate::support::{LONG, Producer, config, record};
use kafka_courier::dlq::{Bytes, DeadLetterStore, Letter, Outcome, Timestamp};
use kafka_courier::{Doubtful, Replay, ReplayReport};
use kafka_courier_test_broker::{ApiKey, Fault, Rule, TestCluster};

async fn cluster() -> TestCluster {
    TestCluster::builder().topic("t", 1).topic("other", 3).start().await.unwrap()
}

fn producer(cluster: &TestCluster, file: &TempFileStore) -> Producer {
    let mut config = config(cluster);
    (config.request_timeout, config.delivery_timeout) = (Duration::from_millis(300), Duration::from_secs(5));
    Producer::with(|builder| builder.with_config(config).dead_letter_store(file.store.clone())).unwrap()
}

async fn reroute(producer: &Producer, replay: Replay) -> ReplayReport {
    let replay = Replay { to_topic: Some("other".to_owned()), ..replay };
    producer.replay(&replay, |_| ControlFlow::Continue(())).await.unwrap()
}

fn verify() -> Replay {
    Replay { doubtful: Doubtful::Verify { force: false }, ..Replay::default() }
}

fn letter(key: &'static str, value: &'static str) -> Letter {
    let mut letter = Letter::new("t", Bytes::from_static(value.as_bytes()), "why", Timestamp::now());
    (letter.outcome, letter.partition) = (Outcome::NotWritten, Some(0));
    letter.key = Some(Bytes::from_static(key.as_bytes()));
    letter
}

/// Publishes one record, then one that gets no answer because of `fault`. The store has the second record as a doubtful
/// letter.
async fn publish_doubtful(cluster: &TestCluster, file: &TempFileStore, fault: Fault) {
    let mut config = config(cluster);
    (config.retry_max, config.request_timeout) = (0, Duration::from_millis(300));
    let ended = Producer::with(|builder| builder.with_config(config).dead_letter_store(file.store.clone())).unwrap();
    ended.send(&record("t", "k", "first")).await.unwrap().await.unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(fault));
    ended.send(&record("t", "k", "doubtful")).await.unwrap().await.unwrap_err();
    ended.close(LONG).await;
}

#[tokio::test]
async fn rerouted_keys_keep_their_order() {
    let (cluster, file) = (cluster().await, file_store());
    let letters = ["0", "1", "2", "3", "4", "5"].map(|value| letter("k", value));
    file.store.append(&letters).unwrap();
    let report = reroute(&producer(&cluster, &file), Replay::default()).await;
    assert_eq!((report.delivered, report.by_topic["other"], file.store.len()), (6, 6, 0), "{report:?}");
    assert_eq!(values(&cluster, "other"), ["0", "1", "2", "3", "4", "5"]);
    assert_eq!(cluster.record_count("t"), 0);
}

#[tokio::test]
async fn written_record_is_not_rerouted() {
    let (cluster, file) = (cluster().await, file_store());
    publish_doubtful(&cluster, &file, Fault::ApplyThenSwallow).await;
    let report = reroute(&producer(&cluster, &file), verify()).await;
    assert_eq!((report.landed, report.delivered, file.store.len()), (1, 0, 0), "{report:?}");
    assert_eq!((values(&cluster, "t"), cluster.record_count("other")), (vec!["first".into(), "doubtful".into()], 0));
}

#[tokio::test]
async fn rerouted_letters_are_no_fences() {
    let (cluster, file) = (cluster().await, file_store());
    publish_doubtful(&cluster, &file, Fault::Swallow).await;
    // Only in the original topic would this letter prove that the doubtful record is absent.
    file.store.append(&[letter("other key", "certain")]).unwrap();
    let report = reroute(&producer(&cluster, &file), verify()).await;
    assert_eq!((report.delivered, report.not_found, file.store.len()), (1, 1, 1), "{report:?}");
    assert_eq!((values(&cluster, "t"), values(&cluster, "other")), (vec!["first".into()], vec!["certain".into()]));
}

/// A letter that fails in the other topic becomes a letter of that topic.
#[tokio::test]
async fn failed_reroute_changes_the_topic() {
    let (cluster, file) = (cluster().await, file_store());
    file.store.append(&[letter("k", "a")]).unwrap();
    cluster.reject_records(|_| Some("no".to_owned()));
    let replaying = producer(&cluster, &file);
    let report = reroute(&replaying, Replay::default()).await;
    assert_eq!(report.failed, 1, "{report:?}");
    let held = file.store.scan(None, 9).unwrap().remove(0).letter;
    assert_eq!((held.topic.as_str(), held.replay_count, held.outcome), ("other", 1, Outcome::NotWritten));
    cluster.accept_records();
    let report = replaying.replay(&Replay::default(), |_| ControlFlow::Continue(())).await.unwrap();
    assert_eq!((report.delivered, values(&cluster, "other")), (1, vec!["a".into()]), "{report:?}");
}

#[tokio::test]
async fn failed_reroute_holds_back_its_key() {
    let (cluster, file) = (cluster().await, file_store());
    file.store.append(&[letter("k", "0"), letter("k", "1"), letter("k", "2"), letter("l", "3")]).unwrap();
    cluster.reject_records(|record| (record.value.as_deref() == Some(b"0")).then(|| "no".to_owned()));
    let replaying = producer(&cluster, &file);
    let report = reroute(&replaying, Replay::default()).await;
    assert_eq!((report.failed, report.held_back, report.delivered), (1, 2, 1), "{report:?}");
    let topics: Vec<String> = file.store.scan(None, 9).unwrap().into_iter().map(|held| held.letter.topic).collect();
    assert_eq!(topics, ["other", "t", "t"], "a dead letter that was not sent keeps its topic");
    cluster.accept_records();
    let report = reroute(&replaying, Replay::default()).await;
    assert_eq!((report.delivered, values(&cluster, "t").len()), (3, 0), "{report:?}");
    let of_key: Vec<String> = values(&cluster, "other").into_iter().filter(|value| value != "3").collect();
    assert_eq!(of_key, ["0", "1", "2"]);
}
