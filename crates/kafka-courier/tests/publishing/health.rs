//! A health check names the part of the connection that failed.

use std::time::Duration;

use crate::support::{LONG, Producer, config, record};
use kafka_courier::{
    HealthError, HealthPart, KafkaConfig, ProducerRecord, PublishError, SaslMechanism, SecurityProtocol,
};
use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Rule, TestCluster};
use tokio::net::TcpListener;

async fn cluster() -> TestCluster {
    TestCluster::builder().topic("t", 1).start().await.unwrap()
}

async fn failure(config: KafkaConfig) -> HealthError {
    Producer::build(config).unwrap().health_check(LONG).await.unwrap_err()
}

async fn unreachable(broker: &str) -> HealthError {
    failure(KafkaConfig::builder().brokers(broker).connect_timeout("5s").config().unwrap()).await
}

#[tokio::test]
async fn unresolvable_name_fails_as_dns() {
    let error = unreachable("kafka.invalid:9092").await;
    assert_eq!(error.part(), HealthPart::Dns, "{error}");
    assert!(error.to_string().starts_with("DNS: kafka.invalid:9092: "), "{error}");
}

#[tokio::test]
async fn closed_port_fails_as_connect() {
    let closed_port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = unreachable(&closed_port.to_string()).await;
    assert_eq!(error.part(), HealthPart::Connect, "{error}");
    assert!(!error.is_refusal());
}

#[tokio::test]
async fn closed_connection_fails_as_api_versions() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let broker = listener.local_addr().unwrap().to_string();
    let hang_up = tokio::spawn(async move {
        loop {
            drop(listener.accept().await);
        }
    });
    assert_eq!(unreachable(&broker).await.part(), HealthPart::ApiVersions);
    hang_up.abort();
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn plaintext_broker_fails_as_tls() {
    let cluster = cluster().await;
    let mut config = config(&cluster);
    config.security_protocol = SecurityProtocol::Ssl;
    config.connect_timeout = Duration::from_secs(5);
    let error = failure(config).await;
    assert_eq!(error.part(), HealthPart::Tls, "{error}");
}

#[tokio::test]
async fn wrong_password_fails_as_sasl() {
    let cluster = TestCluster::builder().user("alice", "right").start().await.unwrap();
    let mut config = config(&cluster);
    config.security_protocol = SecurityProtocol::SaslPlaintext;
    config.sasl_mechanism = Some(SaslMechanism::Plain);
    config.sasl_username = "alice".to_owned();
    config.sasl_password = Some("wrong-secret".into());
    let error = failure(config).await;
    assert_eq!((error.part(), error.is_refusal()), (HealthPart::Sasl, true), "{error}");
    assert!(!format!("{error} {error:?}").contains("wrong-secret"));
}

#[tokio::test]
async fn unanswered_metadata_fails_as_metadata() {
    let cluster = cluster().await;
    cluster.inject(Rule::for_api(ApiKey::Metadata).always().then(Fault::Swallow));
    let producer = Producer::build(config(&cluster)).unwrap();
    let error = producer.health_check(Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(error.part(), HealthPart::Metadata, "{error}");
    assert_eq!(error.to_string(), "metadata: no answer within 300ms");
}

#[tokio::test]
async fn checked_topic_needs_no_wait() {
    let cluster = cluster().await;
    let producer = Producer::build(config(&cluster)).unwrap();
    let record = ProducerRecord { topic: "t", value: Some(b"v"), ..ProducerRecord::default() };
    assert!(matches!(producer.try_send(&record), Err(PublishError::TopicPending { .. })));
    producer.health_check_topics(&["t"], LONG).await.unwrap();
    producer.try_send(&record).unwrap().await.unwrap();
}

/// The cluster creates topics on demand, and the check does not cause this.
#[tokio::test]
async fn missing_topic_is_not_created() {
    let cluster = TestCluster::builder().auto_create_topics(1).start().await.unwrap();
    let producer = Producer::build(config(&cluster)).unwrap();
    for _ in 0..2 {
        let error = producer.health_check_topics(&["absent"], LONG).await.unwrap_err();
        assert_eq!(error.part(), HealthPart::Metadata, "{error}");
        assert!(error.to_string().contains("topic absent"), "{error}");
    }
    assert!(producer.health_check_topics(&["no such name"], LONG).await.is_err());
    producer.health_check(LONG).await.unwrap();
}

/// The check fails before the first event, and again when the right to write is withdrawn later.
#[tokio::test]
async fn denied_topic_fails_as_write_authorization() {
    let cluster = cluster().await;
    let producer = Producer::build(config(&cluster)).unwrap();
    producer.health_check_topics(&["t"], LONG).await.unwrap();
    cluster.deny_writes("t", true);
    let error = producer.health_check_topics(&["t"], LONG).await.unwrap_err();
    assert_eq!((error.part(), error.is_refusal()), (HealthPart::WriteAuthorization, true), "{error}");
    assert!(error.to_string().contains("topic t: the client has no right to write"), "{error}");
    cluster.deny_writes("t", false);
    producer.send(&record("t", "k", "v")).await.unwrap().await.unwrap();
    cluster.deny_writes("t", true);
    let error = producer.health_check(LONG).await.unwrap_err();
    assert_eq!(error.part(), HealthPart::WriteAuthorization, "{error}");
    let error = producer.send(&record("t", "k", "v")).await.unwrap().await.unwrap_err();
    assert_eq!(error.code().map(|code| code.name()), Some("TOPIC_AUTHORIZATION_FAILED"));
}

#[tokio::test]
async fn denied_cluster_write_fails_first_check() {
    let cluster = cluster().await;
    cluster.inject(Rule::for_api(ApiKey::InitProducerId).then(Fault::Refuse(ErrorCode::ClusterAuthorizationFailed)));
    let producer = Producer::build(config(&cluster)).unwrap();
    let error = producer.health_check(LONG).await.unwrap_err();
    assert_eq!((error.part(), error.is_refusal()), (HealthPart::WriteAuthorization, true), "{error}");
    producer.health_check(LONG).await.unwrap();
}

/// A broker that has just started gives out no producer ids yet.
#[tokio::test]
async fn loading_coordinator_is_retried() {
    let cluster = cluster().await;
    let loading = Fault::Refuse(ErrorCode::CoordinatorLoadInProgress);
    cluster.inject(Rule::for_api(ApiKey::InitProducerId).times(2).then(loading));
    Producer::build(config(&cluster)).unwrap().health_check(LONG).await.unwrap();
    assert_eq!(cluster.requests(ApiKey::InitProducerId), 3);
}

#[tokio::test]
async fn checks_reuse_connection_and_producer_id() {
    let cluster = cluster().await;
    let producer = Producer::build(config(&cluster)).unwrap();
    producer.send(&record("t", "k", "v")).await.unwrap().await.unwrap();
    let (ids, handshakes) = (cluster.requests(ApiKey::InitProducerId), cluster.requests(ApiKey::ApiVersions));
    for _ in 0..3 {
        producer.health_check(LONG).await.unwrap();
    }
    assert_eq!((cluster.requests(ApiKey::InitProducerId), cluster.requests(ApiKey::ApiVersions)), (ids, handshakes));
}

#[tokio::test]
async fn dead_connection_is_replaced() {
    let cluster = cluster().await;
    let producer = Producer::build(config(&cluster)).unwrap();
    producer.health_check(LONG).await.unwrap();
    assert!(cluster.kill(1).await);
    assert_eq!(producer.health_check(LONG).await.unwrap_err().part(), HealthPart::Connect);
    assert!(cluster.restart(1).unwrap());
    producer.health_check(LONG).await.unwrap();
    producer.close(LONG).await;
    assert_eq!(producer.health_check(LONG).await.unwrap_err().part(), HealthPart::Producer);
}
