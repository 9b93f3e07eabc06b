//! A dead-letter topic has one replay at a time, across all processes.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::support::{LONG, Producer, config};
use kafka_courier::dlq::{BeginReplayError, Bytes, DeadLetterStore, Edited, Letter, Outcome, ReplayGuard, Timestamp};
use kafka_courier::{Builder, DeadLetterTopic, Replay, ReplayError};
use kafka_courier_test_broker::TestCluster;

async fn cluster() -> TestCluster {
    TestCluster::builder().topic("t", 1).topic("dead", 2).start().await.unwrap()
}

/// Opens the topic as a separate process does.
fn open(cluster: &TestCluster) -> Arc<DeadLetterTopic> {
    Arc::new(DeadLetterTopic::open(&config(cluster), "dead").unwrap())
}

async fn spawn_blocking<R: Send + 'static>(call: impl FnOnce() -> R + Send + 'static) -> R {
    tokio::task::spawn_blocking(call).await.unwrap()
}

async fn claim(topic: &Arc<DeadLetterTopic>) -> Result<ReplayGuard, BeginReplayError> {
    let topic = topic.clone();
    spawn_blocking(move || topic.begin_replay()).await
}

async fn append_letters(cluster: &TestCluster, count: usize) {
    let letters: Vec<Letter> = (0..count)
        .map(|n| {
            let mut letter = Letter::new("t", Bytes::from(n.to_string()), "why", Timestamp::now());
            letter.outcome = Outcome::NotWritten;
            letter
        })
        .collect();
    let topic = open(cluster);
    spawn_blocking(move || topic.append(&letters).unwrap()).await;
}

/// The error names the process and the end of its claim. The claim is free once its holder drops the claim.
#[tokio::test]
async fn second_claim_names_the_holder() {
    let cluster = cluster().await;
    let (one, other) = (open(&cluster), open(&cluster));
    let guard = claim(&one).await.unwrap();
    guard.holds().unwrap();
    let before = Timestamp::now();
    match claim(&other).await {
        Err(error @ BeginReplayError::Claimed { until, .. }) => {
            assert!(until > before, "{until}");
            let message = error.to_string();
            assert!(
                message.contains(&format!("process {}", std::process::id())) && message.contains("dead"),
                "{message}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(claim(&one).await, Err(BeginReplayError::Busy { .. })));
    spawn_blocking(move || drop(guard)).await;
    let guard = claim(&other).await.unwrap();
    assert!(matches!(claim(&one).await, Err(BeginReplayError::Claimed { .. })));
    spawn_blocking(move || drop(guard)).await;
}

#[tokio::test]
async fn imports_keep_the_settled_state() {
    let marked = Letter { replay_count: 1, partition: Some(0), ..Letter::new("t", None, "why", Timestamp::now()) };
    let absent = Letter { outcome: Outcome::NotWritten, ..marked.clone() };
    let back = Letter { replay_count: 0, attempt_count: 2, ..absent.clone() };
    for newer in [absent, back] {
        for marked_first in [false, true] {
            let cluster = cluster().await;
            let (topic, marked, newer) = (open(&cluster), marked.clone(), newer.clone());
            spawn_blocking(move || {
                let import =
                    |letter: &Letter| topic.import_with(std::slice::from_ref(letter), Edited::Replace).unwrap();
                let (first, second) = if marked_first { (&marked, &newer) } else { (&newer, &marked) };
                assert_eq!(import(first).taken, 1);
                let done = import(second);
                assert_eq!((done.updated, done.replaced), (u64::from(marked_first), 0), "{newer:?}");
                assert_eq!(import(&newer).known, 1);
                let _guard = topic.begin_replay().unwrap();
                let held = topic.scan(None, 9).unwrap();
                assert_eq!((held.len(), held[0].letter.outcome), (1, Outcome::NotWritten));
                assert_eq!(held[0].letter.replay_count, newer.replay_count);
            })
            .await;
        }
    }
}

#[tokio::test]
async fn failed_append_leaves_no_letter() {
    let cluster = TestCluster::builder().topic("dead", 8).start().await.unwrap();
    let topic = open(&cluster);
    spawn_blocking(move || {
        // Records without a key may be in different partitions.
        for _ in 0..20 {
            let small = Letter::new("t", Bytes::from_static(b"small"), "why", Timestamp::now());
            let large = Letter::new("t", Bytes::from(vec![b'x'; 3 << 20]), "why", Timestamp::now());
            topic.append(&[small, large]).unwrap_err();
        }
        let _guard = topic.begin_replay().unwrap();
        assert_eq!(topic.scan(None, 99).unwrap().len(), 0);
    })
    .await;
}

#[tokio::test]
async fn concurrent_claims_have_one_winner() {
    let cluster = cluster().await;
    let topics: Vec<_> = (0..5).map(|_| open(&cluster)).collect();
    let claims = topics.iter().map(|topic| {
        let topic = topic.clone();
        tokio::task::spawn_blocking(move || topic.begin_replay())
    });
    let mut guards = Vec::new();
    for claim in claims.collect::<Vec<_>>() {
        guards.extend(claim.await.unwrap());
    }
    assert_eq!(guards.len(), 1);
    spawn_blocking(move || drop(guards)).await;
}

#[tokio::test]
async fn concurrent_replays_deliver_each_letter_once() {
    let cluster = cluster().await;
    append_letters(&cluster, 50).await;
    let replays = (0..2).map(|_| {
        let options = |builder: Builder| builder.with_config(config(&cluster)).dead_letter_store(open(&cluster));
        let producer = Producer::with(options).unwrap();
        tokio::spawn(async move {
            let done = producer.replay(&Replay::default(), |_| ControlFlow::Continue(())).await;
            producer.close(LONG).await;
            done
        })
    });
    let mut delivered = 0;
    for replay in replays.collect::<Vec<_>>() {
        match replay.await.unwrap() {
            Ok(report) => delivered += report.delivered,
            Err(error) => assert!(matches!(error, ReplayError::Begin(BeginReplayError::Claimed { .. })), "{error}"),
        }
    }
    assert_eq!((delivered, cluster.record_count("t")), (50, 50));
    // A scan skips claims.
    let reader = open(&cluster);
    assert!(spawn_blocking(move || reader.scan(None, 9).unwrap()).await.is_empty());
}

#[tokio::test]
async fn dropped_replay_releases_its_claim() {
    let cluster = cluster().await;
    append_letters(&cluster, 3).await;
    let options = |builder: Builder| builder.with_config(config(&cluster)).dead_letter_store(open(&cluster));
    let producer = Producer::with(options).unwrap();
    let other = open(&cluster);
    let (claimed, is_claimed) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(async move {
        let mut claimed = Some(claimed);
        let progress = |_: &_| {
            claimed.take().map(|claimed| claimed.send(()));
            ControlFlow::Continue(())
        };
        producer.replay(&Replay::default(), progress).await
    });
    is_claimed.await.unwrap();
    task.abort();
    let _ = task.await;
    let guard = loop {
        match claim(&other).await {
            Ok(guard) => break guard,
            Err(error) => assert!(matches!(error, BeginReplayError::Claimed { .. }), "{error}"),
        }
    };
    spawn_blocking(move || drop(guard)).await;
}
