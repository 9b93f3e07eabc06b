//! Replays of dead letters.

use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::stores::values;
use crate::support::{LONG, Producer, config, record, wait_until};
use kafka_courier::dlq::{
    AppendError, Appended, BeginReplayError, Bytes, DeadLetterStore, Held, Letter, LetterId, MemoryStore, Outcome,
    Position, ReplayGuard, Selection, StoreError, StoreStats, Timestamp,
};
use kafka_courier::{DeadLetterTopic, Doubtful, Header, KafkaProducer, ProducerRecord, Replay, ReplayError, headers};
use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Rule, TestCluster};

async fn cluster() -> TestCluster {
    TestCluster::builder().topic("t", 2).topic("other", 1).topic("dead", 2).start().await.unwrap()
}

fn producer_with_store(cluster: &TestCluster, store: Arc<dyn DeadLetterStore>) -> Producer {
    Producer::with(|builder| builder.with_config(config(cluster)).dead_letter_store(store)).unwrap()
}

/// Publishes records that fail permanently. The store keeps them in this order.
async fn publish_failing(cluster: &TestCluster, producer: &KafkaProducer, records: &[(&str, &str)]) {
    for (key, value) in records {
        cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Refuse(ErrorCode::InvalidRecord)));
        producer.send(&record("t", key, value)).await.unwrap().await.unwrap_err();
    }
}

async fn replay(producer: &KafkaProducer, replay: &Replay) -> kafka_courier::ReplayReport {
    producer.replay(replay, |_| ControlFlow::Continue(())).await.unwrap()
}

#[tokio::test]
async fn replay_keeps_order_key_and_headers() {
    let cluster = cluster().await;
    let store = Arc::new(MemoryStore::default());
    let producer = producer_with_store(&cluster, store.clone());
    let own = [Header { key: "own", value: Some(b"1") }];
    for n in 0..20 {
        cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Refuse(ErrorCode::InvalidRecord)));
        let value = n.to_string();
        let record = ProducerRecord {
            topic: "t",
            key: Some(b"k"),
            value: Some(value.as_bytes()),
            headers: &own,
            ..Default::default()
        };
        producer.send(&record).await.unwrap().await.unwrap_err();
    }
    let held = store.scan(None, 100).unwrap();
    let report = replay(&producer, &Replay::default()).await;
    assert_eq!((report.selected, report.delivered, report.failed, store.len()), (20, 20, 0, 0));
    let expected: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    assert_eq!(values(&cluster, "t"), expected);
    for (record, held) in cluster.records("t").iter().zip(held) {
        assert_eq!(record.header("own"), Some(&b"1"[..]));
        assert_eq!(record.header(headers::DLQ_ID), Some(held.letter.id.to_string().as_bytes()));
        assert_eq!(record.header(headers::DLQ_REPLAY_COUNT), Some(&b"1"[..]));
        assert!(record.header(headers::DLQ_ORIGINAL_TIMESTAMP).is_some());
        assert_eq!(record.key.as_deref(), Some(&b"k"[..]));
    }
}

#[tokio::test]
async fn failed_replay_keeps_the_position() {
    let cluster = cluster().await;
    let store = Arc::new(MemoryStore::default());
    let producer = producer_with_store(&cluster, store.clone());
    publish_failing(&cluster, &producer, &[("k", "a"), ("k", "b")]).await;
    let before = store.scan(None, 9).unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Refuse(ErrorCode::PolicyViolation)));
    let report = replay(&producer, &Replay { limit: Some(1), ..Replay::default() }).await;
    assert_eq!((report.delivered, report.failed), (0, 1));
    let after = store.scan(None, 9).unwrap();
    assert_eq!((after[0].position, after[0].letter.id), (before[0].position, before[0].letter.id));
    assert_eq!(after[0].letter.error_code.as_deref(), Some("POLICY_VIOLATION"));
    assert_eq!((after[0].letter.replay_count, after[0].letter.outcome), (1, Outcome::NotWritten));
    assert_eq!(
        (&after[0].letter.headers, after[0].letter.timestamp_ms),
        (&before[0].letter.headers, before[0].letter.timestamp_ms)
    );
    assert_eq!(after[1], before[1]);
}

/// A letter that reached `max_replays` stays in the store.
#[tokio::test]
async fn max_replays_ends_replaying() {
    let cluster = cluster().await;
    let store = Arc::new(MemoryStore::default());
    let producer = producer_with_store(&cluster, store.clone());
    publish_failing(&cluster, &producer, &[("k", "a")]).await;
    let options = Replay { max_replays: 2, ..Replay::default() };
    for _ in 0..2 {
        cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Refuse(ErrorCode::InvalidRecord)));
        assert_eq!(replay(&producer, &options).await.failed, 1);
    }
    assert_eq!(replay(&producer, &options).await.too_often, 1);
    assert_eq!((store.len(), values(&cluster, "t").len()), (1, 0));
}

/// A dry run sends nothing.
#[tokio::test]
async fn replay_sends_only_the_selection() {
    let cluster = cluster().await;
    let store = Arc::new(MemoryStore::default());
    let producer = producer_with_store(&cluster, store.clone());
    publish_failing(&cluster, &producer, &[("a", "1"), ("b", "2"), ("a", "3")]).await;
    let selection = Selection { keys: vec![b"a".as_slice().into()], ..Selection::all() };
    let options = Replay { selection, ..Replay::default() };
    let report = replay(&producer, &Replay { dry_run: true, ..options.clone() }).await;
    assert_eq!((report.selected, report.delivered, report.by_topic["t"]), (2, 0, 2));
    assert_eq!((store.len(), values(&cluster, "t").len()), (3, 0));
    assert_eq!(replay(&producer, &options).await.delivered, 2);
    assert_eq!((store.len(), values(&cluster, "t")), (1, vec!["1".to_owned(), "3".to_owned()]));
}

#[tokio::test]
async fn doubtful_letters_are_skipped_by_default() {
    let cluster = cluster().await;
    let store = Arc::new(MemoryStore::default());
    let mut letter = Letter::new("t", Bytes::from_static(b"v"), "why", now());
    letter.outcome = Outcome::Unknown;
    store.append(&[letter]).unwrap();
    let producer = producer_with_store(&cluster, store.clone());
    let report = replay(&producer, &Replay::default()).await;
    assert_eq!((report.left_out, report.delivered, store.len()), (1, 0, 1));
    let report = replay(&producer, &Replay { doubtful: Doubtful::Send, ..Replay::default() }).await;
    assert_eq!((report.delivered, store.len()), (1, 0));
    assert_eq!(cluster.records("t")[0].header(headers::DLQ_POSSIBLY_WRITTEN), Some(&b"true"[..]));
}

/// A certain failure of the second sending says nothing about the first one.
#[tokio::test]
async fn failed_replay_keeps_unknown_outcome() {
    let cluster = cluster().await;
    let store = Arc::new(MemoryStore::default());
    let mut letter = Letter::new("t", None, "why", now());
    letter.outcome = Outcome::Unknown;
    store.append(&[letter]).unwrap();
    let producer = producer_with_store(&cluster, store.clone());
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Refuse(ErrorCode::InvalidRecord)));
    let report = replay(&producer, &Replay { doubtful: Doubtful::Send, ..Replay::default() }).await;
    assert_eq!(report.failed, 1);
    let held = store.scan(None, 9).unwrap();
    assert_eq!(
        (held[0].letter.outcome, held[0].letter.error_code.as_deref()),
        (Outcome::Unknown, Some("INVALID_RECORD"))
    );
}

#[tokio::test]
async fn refused_letter_stays_with_reason() {
    let cluster = cluster().await;
    let store = Arc::new(MemoryStore::default());
    let mut letter = Letter::new("no such topic!", None, "why", now());
    letter.outcome = Outcome::NotWritten;
    store.append(&[letter]).unwrap();
    let producer = producer_with_store(&cluster, store.clone());
    assert_eq!(replay(&producer, &Replay::default()).await.failed, 1);
    let held = store.scan(None, 9).unwrap();
    assert_eq!((held[0].letter.outcome, held[0].letter.replay_count), (Outcome::NotWritten, 1));
    assert!(held[0].letter.failure_reason.contains("no such topic!"), "{}", held[0].letter.failure_reason);
}

#[tokio::test]
async fn concurrent_replays_are_refused() {
    let cluster = cluster().await;
    let store = Arc::new(MemoryStore::default());
    let producer = producer_with_store(&cluster, store.clone());
    let _guard = store.begin_replay().unwrap();
    assert!(matches!(
        producer.replay(&Replay::default(), |_| ControlFlow::Continue(())).await,
        Err(ReplayError::Begin(_))
    ));
}

#[tokio::test]
async fn replay_keeps_its_rate() {
    let cluster = cluster().await;
    let store = Arc::new(MemoryStore::default());
    let producer = producer_with_store(&cluster, store.clone());
    publish_failing(&cluster, &producer, &[("a", "1"), ("a", "2"), ("a", "3")]).await;
    let began = Instant::now();
    let report = replay(&producer, &Replay { rate: NonZeroU32::new(20), ..Replay::default() }).await;
    assert_eq!(report.delivered, 3);
    assert!(began.elapsed() >= Duration::from_millis(100), "{:?}", began.elapsed());
}

#[tokio::test]
async fn topic_letters_are_replayed_and_settled() {
    let cluster = cluster().await;
    let mut with_topic = config(&cluster);
    with_topic.dlq_topic = "dead".to_owned();
    let producer = Producer::build(with_topic).unwrap();
    let refused = |cluster: &TestCluster| {
        let rule = Rule::for_api(ApiKey::Produce).partition("t", 0).times(1);
        cluster.inject(rule.then(Fault::Refuse(ErrorCode::InvalidRecord)));
    };
    for n in 0..3 {
        refused(&cluster);
        let value = n.to_string();
        let record =
            ProducerRecord { topic: "t", partition: Some(0), value: Some(value.as_bytes()), ..Default::default() };
        producer.send(&record).await.unwrap().await.unwrap_err();
    }
    assert_eq!(cluster.records("dead").len(), 3);
    let first = &cluster.records("dead")[0];
    assert_eq!(first.header(headers::CONNECT_TOPIC), Some(&b"t"[..]));
    assert_eq!(first.header(headers::CONNECT_EXCEPTION_CLASS_NAME), Some(&b"INVALID_RECORD"[..]));
    producer.close(LONG).await;
    let config = config(&cluster);
    let topic = Arc::new(DeadLetterTopic::open(&config, "dead").unwrap());
    let again = producer_with_store(&cluster, topic.clone());
    let report = replay(&again, &Replay { limit: Some(2), ..Replay::default() }).await;
    assert_eq!((report.selected, report.delivered), (2, 2), "{report:?}");
    again.close(LONG).await;
    let reader = Arc::new(DeadLetterTopic::open(&config, "dead").unwrap());
    let left = tokio::task::spawn_blocking(move || reader.scan(None, 9)).await.unwrap().unwrap();
    assert_eq!((left.len(), values(&cluster, "t").len()), (1, 2));
}

#[tokio::test]
async fn auto_replay_runs_when_healthy() {
    let cluster = cluster().await;
    let store = Arc::new(MemoryStore::default());
    let mut letter = Letter::new("t", None, "broker not available", now());
    (letter.outcome, letter.retriable) = (Outcome::NotWritten, true);
    let mut poison = Letter::new("t", None, "invalid", now());
    poison.outcome = Outcome::NotWritten;
    store.append(&[letter, poison]).unwrap();
    let mut config = config(&cluster);
    (config.auto_replay, config.auto_replay_interval) = (true, Duration::from_millis(10));
    let producer = Producer::with(|builder| builder.with_config(config).dead_letter_store(store.clone())).unwrap();
    wait_until(|| store.len() == 1).await;
    producer.close(LONG).await;
    assert_eq!((cluster.records("t").len(), store.len()), (1, 1));
}

/// Publishes one record, then one that gets no answer because of `fault`. The store has the second record as a doubtful
/// letter.
async fn publish_doubtful(cluster: &TestCluster, store: &Arc<MemoryStore>, fault: Fault) -> Producer {
    let mut config = config(cluster);
    (config.retry_max, config.request_timeout) = (0, Duration::from_millis(300));
    let producer = Producer::with(|builder| builder.with_config(config).dead_letter_store(store.clone())).unwrap();
    producer.send(&record("t", "k", "first")).await.unwrap().await.unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(fault));
    producer.send(&record("t", "k", "doubtful")).await.unwrap().await.unwrap_err();
    producer
}

fn verify() -> Replay {
    Replay { doubtful: Doubtful::Verify { force: false }, ..Replay::default() }
}

#[tokio::test]
async fn written_doubtful_record_is_not_sent() {
    let cluster = cluster().await;
    let store = Arc::new(MemoryStore::default());
    let producer = publish_doubtful(&cluster, &store, Fault::ApplyThenSwallow).await;
    let report = replay(&producer, &verify()).await;
    assert_eq!((report.landed, report.delivered, store.len()), (1, 0, 0), "{report:?}");
    assert_eq!(values(&cluster, "t"), ["first", "doubtful"]);
}

#[tokio::test]
async fn doubtful_record_is_sent_after_proof() {
    let cluster = cluster().await;
    let store = Arc::new(MemoryStore::default());
    let producer = publish_doubtful(&cluster, &store, Fault::Swallow).await;
    let report = replay(&producer, &verify()).await;
    assert_eq!((report.not_found, report.delivered, store.len()), (1, 0, 1), "{report:?}");
    producer.send(&record("t", "k", "later")).await.unwrap().await.unwrap();
    let report = replay(&producer, &verify()).await;
    assert_eq!((report.not_found, report.delivered, store.len()), (0, 1, 0), "{report:?}");
    assert_eq!(values(&cluster, "t"), ["first", "later", "doubtful"]);
}

/// A store that reports exclusive access.
#[derive(Debug)]
struct ExclusiveStore(MemoryStore);

/// The producer of the doubtful letter has ended, so a letter that is sent anyway is the fence.
#[tokio::test]
async fn certain_letter_serves_as_fence() {
    let cluster = cluster().await;
    let first = Arc::new(MemoryStore::default());
    let ended = publish_doubtful(&cluster, &first, Fault::Swallow).await;
    ended.close(LONG).await;
    let store = Arc::new(ExclusiveStore(MemoryStore::default()));
    let mut letters: Vec<Letter> = first.scan(None, 9).unwrap().into_iter().map(|held| held.letter).collect();
    let mut certain = Letter::new("t", Bytes::from_static(b"certain"), "why", now());
    // Letters of another key may be sent first.
    (certain.outcome, certain.partition) = (Outcome::NotWritten, letters[0].partition);
    certain.key = Some(Bytes::from_static(b"other"));
    letters.push(certain);
    store.append(&letters).unwrap();
    let producer = producer_with_store(&cluster, store.clone());
    let report = replay(&producer, &verify()).await;
    assert_eq!((report.selected, report.delivered, report.not_found, store.0.len()), (2, 2, 0, 0), "{report:?}");
    assert_eq!(values(&cluster, "t"), ["first", "certain", "doubtful"]);
}

#[tokio::test]
async fn fence_counts_though_replay_ends() {
    let cluster = cluster().await;
    let first = Arc::new(MemoryStore::default());
    publish_doubtful(&cluster, &first, Fault::Swallow).await.close(LONG).await;
    let store = Arc::new(ExclusiveStore(MemoryStore::default()));
    let mut letters: Vec<Letter> = first.scan(None, 9).unwrap().into_iter().map(|held| held.letter).collect();
    let doubtful = letters[0].clone();
    // These letters fill the first page. The fence is on the second page.
    letters.extend((0..500).map(|_| Letter { replay_count: 99, ..Letter::new("u", None, "why", now()) }));
    let mut fence = Letter::new("t", Bytes::from_static(b"fence"), "why", now());
    (fence.outcome, fence.partition, fence.key) =
        (Outcome::NotWritten, doubtful.partition, Some(Bytes::from_static(b"other")));
    letters.push(fence);
    store.append(&letters).unwrap();
    let producer = producer_with_store(&cluster, store.clone());
    let report = producer.replay(&verify(), |_| ControlFlow::Break(())).await.unwrap();
    assert_eq!((report.delivered, producer.stats().sent), (1, 2), "{report:?}");
    assert_eq!(values(&cluster, "t"), ["first", "fence", "doubtful"]);
    let report = replay(&producer, &verify()).await;
    assert_eq!((report.landed, producer.stats().sent), (1, 2), "{report:?}");
}

#[tokio::test]
async fn out_of_order_overtakes_doubtful_letters() {
    let cluster = cluster().await;
    let first = Arc::new(MemoryStore::default());
    publish_doubtful(&cluster, &first, Fault::Swallow).await.close(LONG).await;
    let store = Arc::new(ExclusiveStore(MemoryStore::default()));
    let mut letters: Vec<Letter> = first.scan(None, 9).unwrap().into_iter().map(|held| held.letter).collect();
    let mut certain = Letter::new("t", Bytes::from_static(b"certain"), "why", now());
    (certain.outcome, certain.partition, certain.key) =
        (Outcome::NotWritten, letters[0].partition, letters[0].key.clone());
    letters.push(certain);
    store.append(&letters).unwrap();
    let producer = producer_with_store(&cluster, store.clone());
    let report = replay(&producer, &verify()).await;
    assert_eq!((report.not_found, report.held_back, report.delivered), (1, 1, 0), "{report:?}");
    let report = replay(&producer, &Replay { out_of_order: true, ..verify() }).await;
    assert_eq!((report.not_found, report.delivered), (0, 2), "{report:?}");
    assert_eq!(values(&cluster, "t"), ["first", "certain", "doubtful"]);
}

/// An application may forward the headers of a replayed record. A record with these headers that fails is a new letter.
#[tokio::test]
async fn forwarded_headers_give_no_identity() {
    let cluster = cluster().await;
    let store = Arc::new(MemoryStore::default());
    let producer = producer_with_store(&cluster, store.clone());
    publish_failing(&cluster, &producer, &[("k", "original")]).await;
    let original = store.scan(None, 9).unwrap().remove(0).letter;
    let id = original.id.to_string();
    let forwarded = [
        Header { key: headers::DLQ_ID, value: Some(id.as_bytes()) },
        Header { key: headers::DLQ_REPLAY_COUNT, value: Some(b"1") },
    ];
    for value in ["one", "two"] {
        cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Refuse(ErrorCode::InvalidRecord)));
        let record = ProducerRecord { headers: &forwarded, ..record("t", "k", value) };
        producer.send(&record).await.unwrap().await.unwrap_err();
    }
    let kept: Vec<_> = store.scan(None, 9).unwrap().into_iter().map(|held| held.letter.value).collect();
    assert_eq!(kept, ["original", "one", "two"].map(|value| Some(Bytes::from_static(value.as_bytes()))));
}

#[tokio::test]
async fn replay_keeps_the_partition() {
    let cluster = cluster().await;
    let store = Arc::new(MemoryStore::default());
    let producer = producer_with_store(&cluster, store.clone());
    for partition in [0, 1] {
        cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Refuse(ErrorCode::InvalidRecord)));
        let record = ProducerRecord { partition: Some(partition), ..record("t", "k", "v") };
        producer.send(&record).await.unwrap().await.unwrap_err();
    }
    assert_eq!(replay(&producer, &Replay::default()).await.delivered, 2);
    let mut partitions: Vec<i32> = cluster.records("t").iter().map(|record| record.partition).collect();
    partitions.sort_unstable();
    assert_eq!(partitions, [0, 1]);
}

/// The letters have no partition.
#[tokio::test]
async fn unplaced_letters_are_sent_in_order() {
    let cluster = cluster().await;
    let store = Arc::new(MemoryStore::default());
    let mut letters = Vec::new();
    for n in 0..5 {
        let mut letter = Letter::new("t", Bytes::from(n.to_string()), "never sent", now());
        (letter.outcome, letter.key) = (Outcome::NotWritten, Some(Bytes::from_static(b"k")));
        letters.push(letter);
    }
    store.append(&letters).unwrap();
    let producer = producer_with_store(&cluster, store.clone());
    let report = replay(&producer, &Replay { rate: NonZeroU32::new(100), ..Replay::default() }).await;
    assert_eq!((report.delivered, store.len()), (5, 0));
    assert_eq!(values(&cluster, "t"), ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn interrupted_replay_is_completed() {
    let cluster = cluster().await;
    let store = Arc::new(MemoryStore::default());
    let first = producer_with_store(&cluster, store.clone());
    publish_failing(&cluster, &first, &[("k", "1"), ("k", "2")]).await;
    let letters = store.scan(None, 9).unwrap();
    // The replay ends between acknowledgement and removal, as in a killed process. The store keeps the marked letters.
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::ApplyThenSwallow));
    let task = tokio::spawn({
        let first = first.clone();
        async move { first.replay(&Replay::default(), |_| ControlFlow::Continue(())).await }
    });
    wait_until(|| !cluster.records("t").is_empty()).await;
    task.abort();
    let _ = task.await;
    let marked = store.scan(None, 9).unwrap();
    let outcomes: Vec<_> = marked.iter().map(|held| (held.letter.outcome, held.letter.producer_id.is_some())).collect();
    assert_eq!(outcomes, [(Outcome::Unknown, true), (Outcome::Unknown, true)]);
    let later = Arc::new(MemoryStore::default());
    later.append(&marked.into_iter().map(|held| held.letter).collect::<Vec<_>>()).unwrap();
    let second = producer_with_store(&cluster, later.clone());
    let report = replay(&second, &Replay::default()).await;
    assert_eq!((report.landed, report.delivered, later.len()), (1, 1, 0), "{report:?}");
    assert_eq!((values(&cluster, "t").len(), letters.len()), (2, 2));
}

fn now() -> Timestamp {
    Timestamp::now()
}

impl DeadLetterStore for ExclusiveStore {
    fn is_exclusive(&self) -> bool {
        true
    }
    fn name(&self) -> &str {
        self.0.name()
    }
    fn append(&self, letters: &[Letter]) -> Result<Appended, AppendError> {
        self.0.append(letters)
    }
    fn scan(&self, after: Option<Position>, limit: usize) -> Result<Vec<Held>, StoreError> {
        self.0.scan(after, limit)
    }
    fn remove(&self, positions: &[Position]) -> Result<usize, StoreError> {
        self.0.remove(positions)
    }
    fn update(&self, changed: &[Held]) -> Result<usize, StoreError> {
        self.0.update(changed)
    }
    fn find(&self, ids: &[LetterId]) -> Result<Vec<Option<Position>>, StoreError> {
        self.0.find(ids)
    }
    fn expire(&self) -> Result<usize, StoreError> {
        self.0.expire()
    }
    fn stats(&self) -> Result<StoreStats, StoreError> {
        self.0.stats()
    }
    fn begin_replay(&self) -> Result<ReplayGuard, BeginReplayError> {
        self.0.begin_replay()
    }
}

/// A replay that is stopped sends no further group of letters.
#[tokio::test]
async fn stopped_replay_leaves_remaining_letters() {
    let cluster = cluster().await;
    let store = Arc::new(MemoryStore::default());
    let letters: Vec<Letter> = (0..600)
        .map(|n| {
            let mut letter = Letter::new("t", Bytes::from(n.to_string()), "why", Timestamp::UNIX_EPOCH);
            letter.outcome = Outcome::NotWritten;
            letter
        })
        .collect();
    store.append(&letters).unwrap();
    let producer = producer_with_store(&cluster, store.clone());
    let slowly = Replay { rate: NonZeroU32::new(100), ..Replay::default() };
    let report = producer.replay(&slowly, |_| ControlFlow::Break(())).await.unwrap();
    assert_eq!((report.selected, report.delivered), (100, 100));
    assert_eq!((cluster.record_count("t"), store.len()), (100, 500));
    let left = store.scan(None, 1).unwrap();
    assert_eq!((left[0].letter.outcome, left[0].letter.replay_count), (Outcome::NotWritten, 0));
    let report = replay(&producer, &Replay::default()).await;
    assert_eq!((report.delivered, cluster.record_count("t"), store.len()), (500, 600, 0));
}
