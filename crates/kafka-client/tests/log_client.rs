//! Tests of the log client against an in-process cluster: reads, appends and errors.
#![allow(clippy::unwrap_used)] // test helpers may panic
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier_batcher::{BatchView, EncodedBatch, Record, Stamp};
use kafka_courier_client::config::ClientConfig;
use kafka_courier_client::log_client::{AppendDecision, LogClient, LogErrorKind, Offsets, ReadFrom};
use kafka_courier_client::security::ConnectionSecurity;
use kafka_courier_client::{ErrorCode, PartAnswer, Reason};
use kafka_courier_test_broker::{ApiKey, ErrorCode as Fails, Fault, Gate, Rule, TestCluster, TopicSpec};

const T: &str = "t";

async fn cluster(brokers: i32) -> TestCluster {
    TestCluster::builder().brokers(brokers).topic(T, 3).start().await.unwrap()
}

fn client(cluster: &TestCluster) -> LogClient {
    client_with(cluster, Duration::from_millis(500))
}

fn client_with(cluster: &TestCluster, request_timeout: Duration) -> LogClient {
    let bootstrap = cluster.bootstrap();
    let endpoint = |address: &str| {
        let (host, port) = address.rsplit_once(':').unwrap();
        (host.into(), port.parse().unwrap())
    };
    let bootstrap = bootstrap.split(',').map(endpoint).collect();
    LogClient::new(&ClientConfig { bootstrap, request_timeout, ..config() })
}

fn config() -> ClientConfig {
    ClientConfig {
        bootstrap: Vec::new(),
        client_id: "log".into(),
        connect_timeout: Duration::from_secs(5),
        request_timeout: Duration::from_secs(10),
        retry_backoff: Duration::from_millis(2),
        retry_backoff_max: Duration::from_millis(20),
        security: ConnectionSecurity::default(),
        default_broker: None,
    }
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

/// Accepts success, and retries every error.
fn decide(answer: &PartAnswer) -> AppendDecision {
    if answer.code == 0 { AppendDecision::Written } else { AppendDecision::Retry { refused: true } }
}

fn read_from(offset: i64, max_bytes: u32) -> ReadFrom {
    ReadFrom { offset, max_bytes, max_wait: Duration::ZERO }
}

/// Returns the values of all whole batches.
fn values(mut bytes: &[u8]) -> Vec<String> {
    let mut values = Vec::new();
    while let Ok((view, rest)) = BatchView::parse(bytes) {
        let records = view.records(1 << 20).unwrap();
        values.extend(records.iter().map(|r| String::from_utf8(r.unwrap().value.unwrap().to_vec()).unwrap()));
        bytes = rest;
    }
    values
}

#[tokio::test]
async fn appended_batches_are_read_back() {
    let cluster = cluster(3).await;
    let client = client(&cluster);
    assert_eq!(client.topic(T, far_deadline()).await.unwrap().partitions, 3);
    assert!(client.topic(T, far_deadline()).await.unwrap().uuid.is_some());
    for (sequence, value) in [(0, "a"), (1, "b")] {
        let offset = client.append(T, 1, batch(0, sequence, value), decide, far_deadline()).await.unwrap();
        assert_eq!(offset, Some(i64::from(sequence)));
    }
    let offsets = client.offsets(T, 1, far_deadline()).await.unwrap();
    assert_eq!(offsets, Offsets { log_start: 0, high_watermark: 2 });
    let fetched = client.fetch(T, 1, read_from(0, 1 << 20), far_deadline()).await.unwrap();
    assert_eq!((fetched.high_watermark, fetched.log_start), (2, 0));
    assert_eq!(values(&fetched.bytes), ["a", "b"]);
    assert_eq!(values(&client.fetch(T, 1, read_from(1, 1 << 20), far_deadline()).await.unwrap().bytes), ["b"]);
}

#[tokio::test]
async fn first_batch_may_exceed_max_bytes() {
    let cluster = cluster(1).await;
    let client = client(&cluster);
    let large = "x".repeat(100_000);
    client.append(T, 0, batch(0, 0, &large), decide, far_deadline()).await.unwrap();
    assert_eq!(values(&client.fetch(T, 0, read_from(0, 1), far_deadline()).await.unwrap().bytes), [large]);
}

#[tokio::test]
async fn offset_beyond_the_end_fails() {
    let cluster = cluster(1).await;
    let client = client(&cluster);
    let fetched = client.fetch(T, 0, read_from(0, 1 << 20), far_deadline()).await.unwrap();
    assert_eq!((fetched.high_watermark, fetched.bytes.len()), (0, 0));
    let error = client.fetch(T, 0, read_from(5, 1 << 20), far_deadline()).await.unwrap_err();
    assert_eq!(error.kind(), &LogErrorKind::OutOfRange);
    assert!(error.to_string().starts_with("reading t-0 from offset 5: the offset is not in the log"), "{error}");
}

#[tokio::test]
async fn missing_topic_fails_without_creation() {
    let cluster = TestCluster::builder().auto_create_topics(1).start().await.unwrap();
    let client = client(&cluster);
    let error = client.topic("none", far_deadline()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    assert!(error.to_string().starts_with("requesting metadata of topic none: UNKNOWN_TOPIC_OR_PARTITION"), "{error}");
    assert_eq!(cluster.leader("none", 0), None);
}

#[tokio::test]
async fn missing_partition_fails_immediately() {
    let cluster = cluster(1).await;
    let error = client(&cluster).offsets(T, 3, far_deadline()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
}

#[tokio::test]
async fn moved_leader_is_found() {
    let cluster = cluster(3).await;
    let client = client(&cluster);
    for sequence in 0..6 {
        client.append(T, 0, batch(0, sequence, &sequence.to_string()), decide, far_deadline()).await.unwrap();
        assert!(cluster.move_leader(T, 0, sequence % 3 + 1));
        assert_eq!(client.offsets(T, 0, far_deadline()).await.unwrap().high_watermark, i64::from(sequence) + 1);
        assert!(cluster.move_leader(T, 0, (sequence + 1) % 3 + 1));
    }
    let fetched = client.fetch(T, 0, read_from(0, 1 << 20), far_deadline()).await.unwrap();
    assert_eq!(values(&fetched.bytes), ["0", "1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn transient_errors_are_retried() {
    for fault in [Fault::Refuse(Fails::OffsetNotAvailable), Fault::Disconnect, Fault::Swallow] {
        let cluster = cluster(1).await;
        let client = client(&cluster);
        client.append(T, 0, batch(0, 0, "a"), decide, far_deadline()).await.unwrap();
        for api in [ApiKey::ListOffsets, ApiKey::Fetch, ApiKey::DescribeConfigs] {
            cluster.inject(Rule::for_api(api).then(fault.clone()));
        }
        assert_eq!(client.offsets(T, 0, far_deadline()).await.unwrap().high_watermark, 1, "{fault:?}");
        assert_eq!(
            values(&client.fetch(T, 0, read_from(0, 9), far_deadline()).await.unwrap().bytes),
            ["a"],
            "{fault:?}"
        );
        assert!(!client.is_compacted(T, far_deadline()).await.unwrap());
        assert!(cluster.requests(ApiKey::Fetch) >= 2 && cluster.requests(ApiKey::DescribeConfigs) >= 2);
    }
}

#[tokio::test]
async fn timed_out_fetch_names_the_step() {
    let cluster = cluster(1).await;
    let client = client(&cluster);
    cluster.inject(Rule::for_api(ApiKey::Fetch).always().then(Fault::Refuse(Fails::NotLeaderOrFollower)));
    let error = client.fetch(T, 0, read_from(0, 9), near_deadline()).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("reading t-0 from offset 0: broker not available in time: NOT_LEADER_OR_FOLLOWER"),
        "{text}"
    );
}

#[tokio::test]
async fn timeout_reports_the_earlier_error() {
    let cluster = cluster(1).await;
    let client = client_with(&cluster, Duration::from_secs(60));
    cluster.inject(Rule::for_api(ApiKey::Fetch).then(Fault::Refuse(Fails::NotLeaderOrFollower)));
    cluster.inject(Rule::for_api(ApiKey::Fetch).always().then(Fault::Swallow));
    let error = client.fetch(T, 0, read_from(0, 9), near_deadline()).await.unwrap_err();
    assert!(error.to_string().contains("in time: NOT_LEADER_OR_FOLLOWER"), "{error}");
}

#[tokio::test]
async fn compacted_topic_is_recognized() {
    let spec = TopicSpec::new("compact", 1).config("cleanup.policy", "compact,delete");
    let cluster = TestCluster::builder().topic_spec(spec).topic(T, 1).start().await.unwrap();
    let client = client(&cluster);
    assert!(client.is_compacted("compact", far_deadline()).await.unwrap());
    assert!(!client.is_compacted(T, far_deadline()).await.unwrap());
    cluster.fail_next(ApiKey::DescribeConfigs, 1, Fails::TopicAuthorizationFailed);
    let error = client.is_compacted(T, far_deadline()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::TOPIC_AUTHORIZATION_FAILED));
    cluster.set_topic_config("compact", "retention.ms", "5000").unwrap();
    let cleanup = client.cleanup("compact", far_deadline()).await.unwrap();
    assert_eq!((&*cleanup.policy, cleanup.deletes()), ("compact,delete", true));
    assert_eq!((cleanup.retention_ms, cleanup.retention_bytes), (Some(5000), Some(-1)));
}

#[tokio::test]
async fn dropped_request_leaves_client_usable() {
    let cluster = cluster(1).await;
    let client = client(&cluster);
    client.append(T, 0, batch(0, 0, "a"), decide, far_deadline()).await.unwrap();
    let gate = Gate::new();
    cluster.inject(Rule::for_api(ApiKey::Fetch).then(Fault::Hold(gate.clone())));
    tokio::select! {
        _ = client.fetch(T, 0, read_from(0, 9), far_deadline()) => unreachable!("the gate is closed"),
        () = gate.arrived(1) => {}
    }
    assert_eq!(client.offsets(T, 0, far_deadline()).await.unwrap().high_watermark, 1);
}

#[test]
fn futures_are_send() {
    fn is_send<T: Send>(_: &T) {}
    let client = LogClient::new(&config());
    is_send(&client.topic(T, far_deadline()));
    is_send(&client.offsets(T, 0, far_deadline()));
    is_send(&client.fetch(T, 0, read_from(0, 1), far_deadline()));
    is_send(&client.append(T, 0, batch(0, 0, "a"), decide, far_deadline()));
}

#[tokio::test]
async fn a_default_broker_is_named() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let broker: (Arc<str>, u16) = ("127.0.0.1".into(), port);
    for (default_broker, is_named) in [(Some(broker.clone()), true), (None, false), (Some(("b".into(), port)), false)] {
        let bootstrap = vec![broker.clone()];
        let client = LogClient::new(&ClientConfig { bootstrap, default_broker, ..config() });
        let error = client.topic(T, Instant::now() + Duration::from_millis(100)).await.unwrap_err().to_string();
        assert_eq!(error.contains("this is the default broker: set brokers"), is_named, "{error}");
    }
}

#[tokio::test]
async fn missing_version_is_permanent() {
    let cluster = cluster(1).await;
    // ApiVersions v3: the requests of delivery, and DescribeConfigs of Kafka 0.11.
    let ranges = [(0_i16, 3_i16, 3_i16), (3, 4, 4), (22, 0, 0), (32, 0, 0)];
    let mut answer = vec![0, 0, ranges.len() as u8 + 1];
    for (key, lowest, highest) in ranges {
        answer.extend([key, lowest, highest].iter().flat_map(|field| field.to_be_bytes()));
        answer.push(0);
    }
    answer.extend([0; 5]);
    let rule = Rule::for_api(ApiKey::ApiVersions).always();
    cluster.inject(rule.then(Fault::ApplyThenAnswer(answer)));
    let began = Instant::now();
    let error = client(&cluster).is_compacted(T, began + Duration::from_secs(60)).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(20), "the client must not retry");
    let LogErrorKind::ClusterRefused(Reason::NoCommonVersion(none)) = error.kind() else { panic!("{error}") };
    assert_eq!((none.api, none.ours, none.theirs), ("DescribeConfigs", (1, 4), Some((0, 0))));
}

#[tokio::test]
async fn caller_decides_about_append() {
    let cluster = cluster(1).await;
    let client = client(&cluster);
    for refused in [true, false] {
        cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Refuse(Fails::NotEnoughReplicas)));
        let fail = |answer: &PartAnswer| match answer.code {
            0 => AppendDecision::Written,
            _ => AppendDecision::Fail { refused },
        };
        let error = client.append(T, 0, batch(0, 0, "a"), fail, far_deadline()).await.unwrap_err();
        assert_eq!((error.code(), error.is_open()), (Some(ErrorCode::NOT_ENOUGH_REPLICAS), !refused));
    }
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Refuse(Fails::NotEnoughReplicas)));
    assert_eq!(client.append(T, 0, batch(0, 0, "a"), decide, far_deadline()).await.unwrap(), Some(0));
}
