//! Who we are: brokers that ask for a password, take it or don't, and end sessions.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests may, as tests do
mod support;

use std::time::{Duration, Instant};

use kafka_courier::{ErrorCode, KafkaConfig, KafkaProducer, PublishError, SaslMechanism, Secret, SecurityProtocol};
use kafka_courier_test_broker::{ApiKey, Fault, Rule, TestCluster};
use support::{Books, LONG, config, record};

async fn cluster() -> TestCluster {
    TestCluster::builder().brokers(2).topic("t", 2).user("alice", "correct horse").start().await.unwrap()
}

fn as_alice(cluster: &TestCluster, password: &str) -> KafkaConfig {
    let mut config = config(cluster);
    config.security_protocol = SecurityProtocol::SaslPlaintext;
    config.sasl_mechanism = Some(SaslMechanism::Plain);
    config.sasl_username = "alice".to_owned();
    config.sasl_password = Some(Secret::new(password));
    config
}

#[tokio::test]
async fn with_the_right_password_everything_is_delivered() {
    let cluster = cluster().await;
    let producer = KafkaProducer::build(as_alice(&cluster, "correct horse")).unwrap();
    let mut books = Books::default();
    books.send_many(&producer, "t", 100, 7).await;
    books.all_delivered(&cluster, "t").await;
}

#[tokio::test]
async fn a_wrong_password_fails_at_once_is_not_tried_again_and_again_and_is_never_shown() {
    let cluster = cluster().await;
    let config = as_alice(&cluster, "battery staple");
    let shown = format!("{config:?}");
    let producer = KafkaProducer::build(config).unwrap();
    let began = Instant::now();
    let error = producer.health_check(LONG).await.unwrap_err();
    assert!(error.is_refusal());
    assert_eq!(error.code(), Some(ErrorCode::SASL_AUTHENTICATION_FAILED));
    for _ in 0..20 {
        let error = producer.send(&record("t", "k", "v")).await.unwrap_err();
        let PublishError::Topic { reason, .. } = &error else { panic!("{error:?}") };
        assert_eq!(reason.code(), Some(ErrorCode::SASL_AUTHENTICATION_FAILED));
        assert!(!error.is_retriable());
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // The health check's: the others were told of that.
    assert_eq!(cluster.requests(ApiKey::SaslAuthenticate), 1);
    let text = format!("{error} {error:?} {producer:?} {shown}");
    for word in ["127.0.0.1:", "PLAIN", "alice"] {
        assert!(error.to_string().contains(word), "{error}");
    }
    assert!(!text.contains("battery"), "{text}");
}

#[tokio::test]
async fn a_broker_that_sends_the_password_back_does_not_get_it_into_our_errors() {
    let cluster = cluster().await;
    // An error 58 with the password as its message.
    let mut answer = vec![0, 0, 58, 14];
    answer.extend_from_slice(b"correct horse");
    answer.extend_from_slice(b"\x01\0\0\0\0\0\0\0\0\0");
    cluster.inject(Rule::on(ApiKey::SaslAuthenticate).always().then(Fault::ApplyThenAnswer(answer)));
    let producer = KafkaProducer::build(as_alice(&cluster, "correct horse")).unwrap();
    let error = producer.health_check(LONG).await.unwrap_err();
    assert!(error.is_refusal(), "{error}");
    assert!(error.to_string().contains("***") && !error.to_string().contains("correct"), "{error}");
}

#[tokio::test]
async fn a_mechanism_that_the_broker_does_not_know_is_an_error_that_names_those_that_it_knows() {
    let cluster = cluster().await;
    let mut config = as_alice(&cluster, "correct horse");
    config.sasl_mechanism = Some(SaslMechanism::ScramSha512);
    let producer = KafkaProducer::build(config).unwrap();
    let error = producer.health_check(LONG).await.unwrap_err();
    assert!(error.is_refusal());
    let text = error.to_string();
    assert!(
        text.contains("SCRAM-SHA-512") && text.contains("it knows PLAIN") && text.contains("sasl_mechanism"),
        "{text}"
    );
}

#[tokio::test]
async fn who_does_not_say_who_he_is_is_told_what_may_be_the_matter() {
    let cluster = cluster().await;
    let producer = KafkaProducer::build(config(&cluster)).unwrap();
    let error = producer.health_check(LONG).await.unwrap_err();
    assert!(!error.is_refusal());
    assert!(error.to_string().contains("security_protocol"), "{error}");
}

#[tokio::test]
async fn connections_are_replaced_before_their_sessions_end_and_nothing_is_sent_twice() {
    let lifetime = Duration::from_millis(400);
    let builder = TestCluster::builder().topic("t", 2).user("alice", "correct horse").session_lifetime(lifetime);
    let cluster = builder.start().await.unwrap();
    let producer = KafkaProducer::build(as_alice(&cluster, "correct horse")).unwrap();
    let mut books = Books::default();
    while cluster.requests(ApiKey::SaslAuthenticate) < 8 {
        books.send(&producer, "t", "k").await;
        assert!(producer.flush(LONG).await);
    }
    books.all_delivered(&cluster, "t").await;
    assert_eq!(producer.stats().retried, 0, "no connection was ended by the broker");
}

#[tokio::test]
async fn a_token_is_read_from_its_file_for_each_connection() {
    let cluster =
        TestCluster::builder().topic("t", 2).token("first.token").token("second.token").start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "first.token\n").unwrap();
    let mut config = config(&cluster);
    config.security_protocol = SecurityProtocol::SaslPlaintext;
    config.sasl_mechanism = Some(SaslMechanism::OAuthBearer);
    config.sasl_oauthbearer_token_location = file.display().to_string();
    let producer = KafkaProducer::build(config.clone()).unwrap();
    let mut books = Books::default();
    books.send_many(&producer, "t", 20, 3).await;
    assert!(producer.flush(LONG).await);

    std::fs::write(&file, "second.token").unwrap();
    cluster.kill(1).await;
    cluster.restart(1).unwrap();
    books.send_many(&producer, "t", 20, 3).await;
    books.all_delivered(&cluster, "t").await;

    std::fs::write(&file, "no.token").unwrap();
    let error = KafkaProducer::build(config).unwrap().health_check(LONG).await.unwrap_err();
    assert!(error.is_refusal(), "{error}");
    assert!(!format!("{error} {error:?}").contains("no.token"), "{error:?}");
}
