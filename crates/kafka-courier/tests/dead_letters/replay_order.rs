//! A replay sends the letters of one key in the order of their arrival in the store, whatever was replayed before.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crate::support::stores::{file_store, values};
use crate::support::{self, LONG, Producer, config, record};
use kafka_courier::dlq::{
    BeginReplayError, Bytes, DeadLetterStore, Letter, LetterId, Limits, MemoryStore, Outcome, Overflow, Selection,
    Timestamp,
};
use kafka_courier::{DeadLetterTopic, Doubtful, Replay, ReplayError, ReplayReport};
use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Rule, TestCluster, TopicSpec};

async fn cluster() -> TestCluster {
    TestCluster::builder().topic("t", 1).topic("dead", 1).start().await.unwrap()
}

fn letter(topic: &str, key: &'static str, value: impl ToString) -> Letter {
    let mut letter = Letter::new(topic, Bytes::from(value.to_string()), "why", Timestamp::now());
    (letter.outcome, letter.key) = (Outcome::NotWritten, Some(Bytes::from_static(key.as_bytes())));
    letter
}

fn numbered(topic: &str, numbers: std::ops::Range<u32>) -> Vec<Letter> {
    numbers.map(|number| letter(topic, "k", number)).collect()
}

/// Replays with a new producer.
async fn replay(cluster: &TestCluster, store: Arc<dyn DeadLetterStore>, replay: &Replay) -> ReplayReport {
    let mut config = config(cluster);
    config.metadata_timeout = Duration::from_millis(100);
    let producer = Producer::with(|builder| builder.with_config(config).dead_letter_store(store)).unwrap();
    let report = producer.replay(replay, |_| ControlFlow::Continue(())).await.unwrap();
    producer.close(LONG).await;
    report
}

fn with_limit(limit: u64) -> Replay {
    Replay { limit: Some(limit), ..Replay::default() }
}

fn with_selection(selection: Selection) -> Replay {
    Replay { selection, ..Replay::default() }
}

fn open(cluster: &TestCluster) -> Arc<DeadLetterTopic> {
    Arc::new(DeadLetterTopic::open(&config(cluster), "dead").unwrap())
}

async fn spawn_blocking<R: Send + 'static>(call: impl FnOnce() -> R + Send + 'static) -> R {
    tokio::task::spawn_blocking(call).await.unwrap()
}

async fn append_letters(cluster: &TestCluster, letters: Vec<Letter>) {
    let topic = open(cluster);
    spawn_blocking(move || topic.append(&letters).unwrap()).await;
}

#[tokio::test]
async fn limited_replay_of_topic_keeps_order() {
    let cluster = cluster().await;
    append_letters(&cluster, numbered("late", 0..6)).await;
    let report = replay(&cluster, open(&cluster), &with_limit(2)).await;
    assert_eq!((report.selected, report.delivered), (2, 0), "{report:?}");
    cluster.create_topic(&TopicSpec::new("late", 1)).unwrap();
    let report = replay(&cluster, open(&cluster), &Replay::default()).await;
    assert_eq!(report.delivered, 6, "{report:?}");
    assert_eq!(values(&cluster, "late"), ["0", "1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn refused_letter_holds_back_its_key() {
    let (cluster, file) = (cluster().await, file_store());
    let mut letters = numbered("t", 0..3);
    // The record is larger than any batch, so the producer refuses it.
    letters[0].value = Some(Bytes::from(vec![b'x'; 3 << 20]));
    letters.push(letter("t", "other", "other"));
    file.store.append(&letters).unwrap();
    let report = replay(&cluster, file.store.clone(), &Replay::default()).await;
    assert_eq!((report.delivered, report.failed, report.held_back), (1, 1, 2), "{report:?}");
    assert_eq!(values(&cluster, "t"), ["other"]);
}

#[tokio::test]
async fn missing_topic_holds_back_its_key() {
    let (cluster, file) = (cluster().await, file_store());
    file.store.append(&numbered("late", 0..3)).unwrap();
    let report = replay(&cluster, file.store.clone(), &Replay::default()).await;
    assert_eq!((report.delivered, report.failed, report.held_back), (0, 1, 2), "{report:?}");
}

#[tokio::test]
async fn missing_topic_counts_no_replay() {
    let (cluster, file) = (cluster().await, file_store());
    file.store.append(&numbered("late", 0..2)).unwrap();
    for _ in 0..=Replay::default().max_replays {
        let report = replay(&cluster, file.store.clone(), &Replay::default()).await;
        assert_eq!((report.failed, report.too_often), (1, 0), "{report:?}");
    }
    cluster.create_topic(&TopicSpec::new("late", 1)).unwrap();
    replay(&cluster, file.store.clone(), &Replay::default()).await;
    assert_eq!(values(&cluster, "late"), ["0", "1"]);
}

#[tokio::test]
async fn failed_letter_holds_back_its_page() {
    let (cluster, file) = (cluster().await, file_store());
    file.store.append(&numbered("t", 0..5)).unwrap();
    cluster.reject_records(|record| (record.value_text() == Some("1")).then(|| "no".to_owned()));
    let report = replay(&cluster, file.store.clone(), &Replay::default()).await;
    assert_eq!((report.delivered, report.failed, report.held_back), (1, 1, 3), "{report:?}");
    cluster.accept_records();
    replay(&cluster, file.store.clone(), &Replay::default()).await;
    assert_eq!(values(&cluster, "t"), ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn selection_does_not_overtake_earlier_letters() {
    let (cluster, file) = (cluster().await, file_store());
    let mut letters = numbered("t", 0..4);
    letters[1].error_code = Some("INVALID_RECORD".to_owned());
    letters[2].outcome = Outcome::Unknown;
    file.store.append(&letters).unwrap();
    let by_id = |id: LetterId| with_selection(Selection { ids: vec![id], ..Selection::all() });
    let by_code = with_selection(Selection { error_codes: vec!["INVALID_RECORD".to_owned()], ..Selection::all() });
    for selected in [by_id(letters[3].id), by_code.clone()] {
        let report = replay(&cluster, file.store.clone(), &selected).await;
        assert_eq!((report.selected, report.delivered, report.held_back), (1, 0, 1), "{report:?}");
    }
    // The third record may be in the log. A replay sends the letters before it, and none after it.
    let report = replay(&cluster, file.store.clone(), &Replay::default()).await;
    assert_eq!((report.delivered, report.left_out, report.held_back), (2, 1, 1), "{report:?}");
    let out_of_order = Replay { out_of_order: true, ..by_id(letters[3].id) };
    assert_eq!(replay(&cluster, file.store.clone(), &out_of_order).await.delivered, 1);
    assert_eq!(values(&cluster, "t"), ["0", "1", "3"]);
}

#[tokio::test]
async fn max_replays_hold_back_the_key() {
    let (cluster, file) = (cluster().await, file_store());
    let mut letters = numbered("t", 0..2);
    letters[0].replay_count = 5;
    file.store.append(&letters).unwrap();
    let report = replay(&cluster, file.store.clone(), &Replay::default()).await;
    assert_eq!((report.too_often, report.held_back, report.delivered), (1, 1, 0), "{report:?}");
    let report = replay(&cluster, file.store.clone(), &Replay { max_replays: 6, ..Replay::default() }).await;
    assert_eq!(report.delivered, 2, "{report:?}");
    assert_eq!(values(&cluster, "t"), ["0", "1"]);
}

#[tokio::test]
async fn raised_partition_count_keeps_order() {
    let cluster = cluster().await;
    // The topic has one partition with all letters. New partitions then receive the letters of most keys.
    const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    let of_all = |number: u32| KEYS.map(|key| letter("late", key, number)).to_vec();
    append_letters(&cluster, [of_all(0), of_all(1)].concat()).await;
    assert!(cluster.raise_partitions("dead", 3));
    append_letters(&cluster, [of_all(2), of_all(3)].concat()).await;
    let spread: std::collections::BTreeSet<i32> =
        cluster.records("dead").iter().map(|record| record.partition).collect();
    assert_eq!(spread.len(), 3);
    let report = replay(&cluster, open(&cluster), &with_limit(7)).await;
    assert_eq!((report.selected, report.delivered), (7, 0), "{report:?}");
    cluster.create_topic(&TopicSpec::new("late", 1)).unwrap();
    let report = replay(&cluster, open(&cluster), &Replay::default()).await;
    assert_eq!(report.delivered, 24, "{report:?}");
    for key in KEYS {
        let records = cluster.records("late");
        let of_key = records.iter().filter(|record| record.key_text() == Some(key));
        assert_eq!(of_key.filter_map(|record| record.value_text()).collect::<Vec<_>>(), ["0", "1", "2", "3"], "{key}");
    }
}

/// Returns a store with room for one letter. Memory keeps the letters that follow.
fn full_with_one() -> Arc<MemoryStore> {
    let limits = Limits { max_letters: Some(1), overflow: Overflow::Refuse, ..Limits::default() };
    Arc::new(MemoryStore::with_limits(limits))
}

#[tokio::test]
async fn earlier_letter_in_memory_is_first() {
    let (cluster, first) = (cluster().await, full_with_one());
    let producer =
        Producer::with(|builder| builder.with_config(config(&cluster)).dead_letter_store(first.clone())).unwrap();
    let letters = numbered("t", 0..2);
    producer.dead_letters().put(vec![letter("t", "other", "other")]).await;
    producer.dead_letters().put(vec![letters[0].clone()]).await;
    first.remove(&[first.scan(None, 1).unwrap()[0].position]).unwrap();
    producer.dead_letters().put(vec![letters[1].clone()]).await;
    for (delivered, held_back) in [(1, 1), (1, 0)] {
        let report = producer.replay(&Replay::default(), |_| ControlFlow::Continue(())).await.unwrap();
        assert_eq!((report.delivered, report.held_back), (delivered, held_back), "{report:?}");
    }
    assert_eq!(values(&cluster, "t"), ["0", "1"]);
}

/// Returns a doubtful letter whose producer has ended.
async fn doubtful_letter(cluster: &TestCluster, key: &'static str) -> Letter {
    let file = file_store();
    let mut config = config(cluster);
    (config.retry_max, config.request_timeout) = (0, Duration::from_millis(300));
    let ended = Producer::with(|builder| builder.with_config(config).dead_letter_store(file.store.clone())).unwrap();
    ended.send(&record("t", key, "first")).await.unwrap().await.unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Swallow));
    ended.send(&record("t", key, "doubtful")).await.unwrap().await.unwrap_err();
    ended.close(LONG).await;
    file.store.scan(None, 9).unwrap().remove(0).letter
}

fn verify() -> Replay {
    Replay { doubtful: Doubtful::Verify { force: false }, ..Replay::default() }
}

fn placed(key: &'static str, value: &str) -> Letter {
    Letter { partition: Some(0), ..letter("t", key, value) }
}

#[tokio::test]
async fn rejected_fence_holds_back_its_key() {
    let (cluster, file) = (cluster().await, file_store());
    let doubtful = doubtful_letter(&cluster, "doubt").await;
    file.store.append(&[doubtful, placed("a", "bad"), placed("a", "behind"), placed("b", "good")]).unwrap();
    cluster.reject_records(|record| (record.value_text() == Some("bad")).then(|| "no".to_owned()));
    let report = replay(&cluster, file.store.clone(), &verify()).await;
    assert_eq!((report.delivered, report.failed, report.held_back, report.not_found), (2, 1, 1, 0), "{report:?}");
    assert_eq!(values(&cluster, "t"), ["first", "good", "doubtful"], "the dead letter of key b is the fence");
    cluster.accept_records();
    replay(&cluster, file.store.clone(), &verify()).await;
    assert_eq!(values(&cluster, "t"), ["first", "good", "doubtful", "bad", "behind"]);
}

#[tokio::test]
async fn not_found_holds_back_its_key() {
    let (cluster, file) = (cluster().await, file_store());
    let doubtful = doubtful_letter(&cluster, "k").await;
    file.store.append(&[doubtful, placed("k", "behind")]).unwrap();
    let report = replay(&cluster, file.store.clone(), &verify()).await;
    assert_eq!((report.not_found, report.held_back, report.delivered), (1, 1, 0), "{report:?}");
    let out_of_order = Replay { out_of_order: true, ..verify() };
    let report = replay(&cluster, file.store.clone(), &out_of_order).await;
    assert_eq!((report.not_found, report.held_back, report.delivered), (0, 0, 2), "{report:?}");
    assert_eq!(values(&cluster, "t"), ["first", "behind", "doubtful"], "the later dead letter is the fence");
}

#[tokio::test]
async fn held_back_letter_is_no_fence() {
    let (cluster, file) = (cluster().await, file_store());
    let doubtful = doubtful_letter(&cluster, "doubt").await;
    let letters = [doubtful.clone(), placed("a", "0"), placed("a", "1")];
    file.store.append(&letters).unwrap();
    // Only the last letter could be the fence, and an earlier letter of its key is not selected.
    let selection = Selection { ids: vec![doubtful.id, letters[2].id], ..Selection::all() };
    let report = replay(&cluster, file.store.clone(), &Replay { selection, ..verify() }).await;
    assert_eq!((report.not_found, report.held_back, report.delivered), (1, 1, 0), "{report:?}");
    assert_eq!(values(&cluster, "t"), ["first"]);
}

#[tokio::test]
async fn killed_replay_of_topic_is_completed() {
    let cluster = cluster().await;
    append_letters(&cluster, numbered("t", 0..4)).await;
    cluster.inject(Rule::for_api(ApiKey::Produce).partition("t", 0).times(1).then(Fault::ApplyThenSwallow));
    let producer =
        Producer::with(|builder| builder.with_config(config(&cluster)).dead_letter_store(open(&cluster))).unwrap();
    let killed = tokio::spawn(async move { producer.replay(&Replay::default(), |_| ControlFlow::Continue(())).await });
    support::wait_until(|| cluster.record_count("t") == 1).await;
    killed.abort();
    let _ = killed.await;
    // A dropped replay releases its claim a moment later.
    let report = loop {
        let producer =
            Producer::with(|builder| builder.with_config(config(&cluster)).dead_letter_store(open(&cluster))).unwrap();
        match producer.replay(&Replay::default(), |_| ControlFlow::Continue(())).await {
            Ok(report) => break report,
            Err(error) => assert!(matches!(error, ReplayError::Begin(BeginReplayError::Claimed { .. })), "{error}"),
        }
    };
    assert_eq!((report.landed, report.delivered, report.not_found), (1, 3, 0), "{report:?}");
    assert_eq!(values(&cluster, "t"), ["0", "1", "2", "3"]);
}

#[tokio::test]
async fn outage_counts_no_replay() {
    let (cluster, file) = (cluster().await, file_store());
    let mut letters = numbered("t", 0..3);
    letters.iter_mut().for_each(|letter| letter.retriable = true);
    file.store.append(&letters).unwrap();
    let mut config = config(&cluster);
    (config.auto_replay, config.auto_replay_interval) = (true, Duration::from_millis(5));
    config.delivery_timeout = Duration::from_millis(30);
    config.retry_backoff_max = Duration::from_millis(5);
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(Fault::Refuse(ErrorCode::NotEnoughReplicas)));
    let producer = Producer::with(|builder| builder.with_config(config).dead_letter_store(file.store.clone())).unwrap();
    // 100 requests are far more rounds than a letter may have replays.
    support::wait_until(|| cluster.requests(ApiKey::Produce) > 100).await;
    let counts: Vec<u32> = file.store.scan(None, 9).unwrap().iter().map(|held| held.letter.replay_count).collect();
    assert!(counts.iter().all(|count| *count <= 1), "a replay in progress may count one: {counts:?}");
    cluster.clear_faults();
    support::wait_until(|| file.store.is_empty()).await;
    producer.close(LONG).await;
    assert_eq!(values(&cluster, "t"), ["0", "1", "2"]);
}

#[tokio::test]
async fn every_replayed_letter_is_counted() {
    let cluster = TestCluster::builder().topic("t", 6).start().await.unwrap();
    let file = file_store();
    let letters = (0..100).map(|number| Letter { partition: Some(number % 6), ..letter("t", "k", number) });
    file.store.append(&letters.collect::<Vec<_>>()).unwrap();
    let producer =
        Producer::with(|builder| builder.with_config(config(&cluster)).dead_letter_store(file.store.clone())).unwrap();
    let report = producer.replay(&Replay::default(), |_| ControlFlow::Continue(())).await.unwrap();
    let stats = producer.stats();
    assert_eq!((report.delivered, stats.sent, stats.failed, stats.in_flight), (100, 100, 0, 0));
    let rejected = letter("t", "k", "rejected");
    file.store.append(&[rejected]).unwrap();
    cluster.reject_records(|record| (record.value_text() == Some("rejected")).then(|| "no".to_owned()));
    producer.replay(&Replay::default(), |_| ControlFlow::Continue(())).await.unwrap();
    let closed = producer.close(LONG).await;
    assert_eq!((closed.delivered, closed.failed), (100, 1));
}
