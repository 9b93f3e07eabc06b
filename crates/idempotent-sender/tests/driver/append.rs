//! Appends of single batches against an in-process cluster: each outcome that the table of the core decides.
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier_batcher::{EncodedBatch, Record, Stamp};
use kafka_courier_client::ErrorCode;
use kafka_courier_client::config::ClientConfig;
use kafka_courier_client::log_client::{LogClient, LogErrorKind};
use kafka_courier_client::security::ConnectionSecurity;
use kafka_courier_idempotent_sender::append_batch;
use kafka_courier_test_broker::{ApiKey, ErrorCode as Fails, Fault, Rule, TestCluster};

const T: &str = "t";

async fn cluster(brokers: i32) -> TestCluster {
    TestCluster::builder().brokers(brokers).topic(T, 3).start().await.unwrap()
}

fn client(cluster: &TestCluster) -> LogClient {
    let bootstrap = cluster.bootstrap();
    let endpoint = |address: &str| {
        let (host, port) = address.rsplit_once(':').unwrap();
        (host.into(), port.parse().unwrap())
    };
    LogClient::new(&ClientConfig {
        bootstrap: bootstrap.split(',').map(endpoint).collect(),
        client_id: "append".into(),
        connect_timeout: Duration::from_secs(5),
        request_timeout: Duration::from_millis(500),
        retry_backoff: Duration::from_millis(2),
        retry_backoff_max: Duration::from_millis(20),
        security: ConnectionSecurity::default(),
        default_broker: None,
    })
}

fn far_deadline() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn near_deadline() -> Instant {
    Instant::now() + Duration::from_secs(1)
}

fn batch(epoch: i16, sequence: i32, value: &str) -> Arc<EncodedBatch> {
    let record = Record { key: None, value: Some(value.as_bytes()), headers: &[], timestamp: 1_700_000_000_000 };
    let mut batch = EncodedBatch::single(&record).unwrap();
    batch.stamp(Stamp { producer_id: 7, epoch, base_sequence: sequence });
    Arc::new(batch)
}

#[tokio::test]
async fn lost_answers_append_once() {
    let cluster = cluster(3).await;
    let client = client(&cluster);
    cluster.apply_then_disconnect(3);
    assert_eq!(append_batch(&client, T, 0, batch(0, 0, "a"), far_deadline()).await.unwrap(), Some(0));
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::ApplyThenRefuse(Fails::NotEnoughReplicasAfterAppend)));
    assert_eq!(append_batch(&client, T, 0, batch(0, 1, "b"), far_deadline()).await.unwrap(), Some(1));
    assert_eq!(cluster.records(T).len(), 2);
}

#[tokio::test]
async fn fenced_append_is_not_open() {
    let cluster = cluster(1).await;
    let client = client(&cluster);
    append_batch(&client, T, 0, batch(5, 0, "fence"), far_deadline()).await.unwrap();
    let error = append_batch(&client, T, 0, batch(4, 0, "late"), far_deadline()).await.unwrap_err();
    assert_eq!((error.code(), error.is_open()), (Some(ErrorCode::INVALID_PRODUCER_EPOCH), false));
    assert_eq!(cluster.records(T).len(), 1);
}

#[tokio::test]
async fn unanswered_append_is_open() {
    let cluster = cluster(1).await;
    let client = client(&cluster);
    client.offsets(T, 0, far_deadline()).await.unwrap();
    // A final refusal ends the append before the deadline. No refusal is in flight at the deadline.
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Refuse(Fails::NotEnoughReplicas)));
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Refuse(Fails::TopicAuthorizationFailed)));
    let error = append_batch(&client, T, 0, batch(0, 0, "a"), far_deadline()).await.unwrap_err();
    assert!(!error.is_open(), "{error}");
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(Fault::Swallow));
    let error = append_batch(&client, T, 0, batch(0, 0, "a"), near_deadline()).await.unwrap_err();
    assert!(error.is_open(), "{error}");
    cluster.clear_faults();
    // The refusal of a later attempt says nothing about an earlier attempt.
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::ApplyThenDisconnect));
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Refuse(Fails::TopicAuthorizationFailed)));
    let error = append_batch(&client, T, 0, batch(0, 0, "a"), far_deadline()).await.unwrap_err();
    assert!(error.is_open() && error.code().is_some(), "{error}");
    assert_eq!(cluster.records(T).len(), 1);
}

#[tokio::test]
async fn unreachable_cluster_leaves_nothing_open() {
    let cluster = cluster(1).await;
    let client = client(&cluster);
    assert!(cluster.kill(1).await);
    let error = append_batch(&client, T, 0, batch(0, 0, "a"), near_deadline()).await.unwrap_err();
    assert!(!error.is_open(), "{error}");
    assert!(matches!(error.kind(), LogErrorKind::Unavailable(_)), "{error:?}");
}

#[tokio::test]
async fn append_future_is_send() {
    fn is_send<T: Send>(_: &T) {}
    let cluster = cluster(1).await;
    is_send(&append_batch(&client(&cluster), T, 0, batch(0, 0, "a"), far_deadline()));
}
