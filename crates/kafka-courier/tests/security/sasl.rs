//! Authentication: brokers that require SASL, refuse credentials and end sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::captured_log::CapturedLog;
use crate::support::{LONG, Producer, PublishedRecords, config, leak, record};
use kafka_courier::{
    Builder, ErrorCode, KafkaConfig, PublishError, SaslMechanism, Secret, SecurityProtocol, TokenSource,
};
use kafka_courier_test_broker::{ApiKey, Fault, Rule, TestCluster};

async fn cluster() -> TestCluster {
    TestCluster::builder().brokers(2).topic("t", 2).user("alice", "correct horse").start().await.unwrap()
}

fn config_as_alice(cluster: &TestCluster, password: &str) -> KafkaConfig {
    let mut config = config(cluster);
    config.security_protocol = SecurityProtocol::SaslPlaintext;
    config.sasl_mechanism = Some(SaslMechanism::Plain);
    config.sasl_username = "alice".to_owned();
    config.sasl_password = Some(Secret::new(password));
    config
}

#[tokio::test]
async fn right_password_delivers_events() {
    let cluster = cluster().await;
    let producer = Producer::build(config_as_alice(&cluster, "correct horse")).unwrap();
    let mut published = PublishedRecords::default();
    published.send_many(&producer, "t", 100, 7).await;
    published.assert_delivered(&cluster, "t").await;
}

/// The refusal is immediate, and no text shows the password.
#[tokio::test]
async fn wrong_password_is_tried_once() {
    let cluster = cluster().await;
    let config = config_as_alice(&cluster, "battery staple");
    let shown = format!("{config:?}");
    let producer = Producer::build(config).unwrap();
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
    // Only the health check has authenticated. The events fail with its refusal.
    assert_eq!(cluster.requests(ApiKey::SaslAuthenticate), 1);
    let text = format!("{error} {error:?} {producer:?} {shown}");
    for word in ["127.0.0.1:", "PLAIN", "alice"] {
        assert!(error.to_string().contains(word), "{error}");
    }
    assert!(!text.contains("battery"), "{text}");
}

#[tokio::test]
async fn echoed_password_is_masked_in_errors() {
    let cluster = cluster().await;
    // SASL_AUTHENTICATION_FAILED (58), with the password as the message.
    let mut answer = vec![0, 0, 58, 14];
    answer.extend_from_slice(b"correct horse");
    answer.extend_from_slice(b"\x01\0\0\0\0\0\0\0\0\0");
    cluster.inject(Rule::for_api(ApiKey::SaslAuthenticate).always().then(Fault::ApplyThenAnswer(answer)));
    let producer = Producer::build(config_as_alice(&cluster, "correct horse")).unwrap();
    let error = producer.health_check(LONG).await.unwrap_err();
    assert!(error.is_refusal(), "{error}");
    assert!(error.to_string().contains("***") && !error.to_string().contains("correct"), "{error}");
}

#[tokio::test]
async fn unknown_mechanism_lists_offered_ones() {
    let cluster = cluster().await;
    let mut config = config_as_alice(&cluster, "correct horse");
    config.sasl_mechanism = Some(SaslMechanism::ScramSha512);
    let producer = Producer::build(config).unwrap();
    let error = producer.health_check(LONG).await.unwrap_err();
    assert!(error.is_refusal());
    let text = error.to_string();
    assert!(
        text.contains("SCRAM-SHA-512") && text.contains("it offers PLAIN") && text.contains("sasl_mechanism"),
        "{text}"
    );
}

#[tokio::test]
async fn excessive_scram_iterations_are_refused() {
    let cluster = cluster().await;
    // The broker supports SCRAM, and requires 2^32 - 1 iterations, which take more than an hour.
    cluster.inject(Rule::for_api(ApiKey::SaslHandshake).always().then(Fault::ApplyThenAnswer(vec![0; 6])));
    let first = b"r=any,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4294967295";
    let answer = [&[0, 0, 0, 0, u8::try_from(first.len() + 1).unwrap()], &first[..], &[0; 9]].concat();
    cluster.inject(Rule::for_api(ApiKey::SaslAuthenticate).always().then(Fault::ApplyThenAnswer(answer)));
    let mut config = config_as_alice(&cluster, "correct horse");
    config.sasl_mechanism = Some(SaslMechanism::ScramSha512);
    let began = Instant::now();
    let error = Producer::build(config).unwrap().health_check(LONG).await.unwrap_err();
    assert!(error.is_refusal() && began.elapsed() < Duration::from_secs(5), "{error} after {:?}", began.elapsed());
    for word in ["127.0.0.1:", "alice", "SCRAM-SHA-512", "4294967295 iterations", "4096 to 1000000"] {
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
    assert_eq!(cluster.requests(ApiKey::SaslAuthenticate), 1, "the client sends no proof");
}

#[tokio::test]
async fn missing_authentication_names_security_protocol() {
    let cluster = cluster().await;
    let producer = Producer::build(config(&cluster)).unwrap();
    let error = producer.health_check(LONG).await.unwrap_err();
    assert!(!error.is_refusal());
    assert!(error.to_string().contains("security_protocol"), "{error}");
}

#[tokio::test]
async fn listener_without_sasl_names_remedy() {
    let cluster = cluster().await;
    // ILLEGAL_SASL_STATE (34), and no mechanisms.
    cluster.inject(Rule::for_api(ApiKey::SaslHandshake).always().then(Fault::ApplyThenAnswer(vec![0, 34, 0, 0, 0, 0])));
    let producer = Producer::build(config_as_alice(&cluster, "correct horse")).unwrap();
    let error = producer.health_check(LONG).await.unwrap_err();
    assert!(error.is_refusal(), "{error}");
    for word in ["ILLEGAL_SASL_STATE (34)", "set security_protocol to PLAINTEXT or SSL"] {
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
}

#[tokio::test]
async fn damaged_tokens_are_never_shown() {
    const SECRET: &str = "Zq7xVr2mKw9pLt4nHs6bJd8fQc3gYy5eXu1aRv0o";
    let cluster = cluster().await;
    // The broker supports the mechanism.
    cluster.inject(Rule::for_api(ApiKey::SaslHandshake).always().then(Fault::ApplyThenAnswer(vec![0; 6])));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let token = format!("eyJhbGciOiJub25lIn0.{SECRET}.x");
    let utf16: Vec<u8> = token.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let forms: [Vec<u8>; 8] = [
        format!("\"{token}\"").into(),
        format!("Bearer {token}").into(),
        format!("{{\"access_token\": \"{token}\"}}").into(),
        token.replace('.', "\n").into(),
        utf16,
        [token.as_bytes(), b"\xff\xfe"].concat(),
        token.repeat(30_000).into(),
        Vec::new(),
    ];
    let (log, _guard) = CapturedLog::capture();
    for bytes in forms {
        std::fs::write(&path, "a").unwrap();
        let mut config = config(&cluster);
        config.security_protocol = SecurityProtocol::SaslPlaintext;
        config.sasl_mechanism = Some(SaslMechanism::OAuthBearer);
        config.sasl_oauthbearer_token_location = path.display().to_string();
        let producer = Producer::build(config.clone()).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        let error = producer.health_check(LONG).await.unwrap_err();
        let built = Producer::build(config).err().map(|error| leak::all_of(&error)).unwrap_or_default();
        let messages = leak::all_of(&error) + &built + &log.text();
        assert_eq!(leak::find(SECRET.as_bytes(), &messages), None, "{messages}");
        assert!(error.to_string().contains("the token "), "{error}");
    }
}

/// No request is sent twice.
#[tokio::test]
async fn connections_are_replaced_before_session_end() {
    let lifetime = Duration::from_millis(400);
    let builder = TestCluster::builder().topic("t", 2).user("alice", "correct horse").session_lifetime(lifetime);
    let cluster = builder.start().await.unwrap();
    let producer = Producer::build(config_as_alice(&cluster, "correct horse")).unwrap();
    let mut published = PublishedRecords::default();
    while cluster.requests(ApiKey::SaslAuthenticate) < 8 {
        published.send(&producer, "t", "k").await;
        assert!(producer.flush(LONG).await);
    }
    published.assert_delivered(&cluster, "t").await;
    assert_eq!(producer.stats().retried, 0, "the broker ended no connection");
}

#[tokio::test]
async fn token_file_is_read_per_connection() {
    let cluster =
        TestCluster::builder().topic("t", 2).token("first.token").token("second.token").start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "first.token\n").unwrap();
    let mut config = config(&cluster);
    config.security_protocol = SecurityProtocol::SaslPlaintext;
    config.sasl_mechanism = Some(SaslMechanism::OAuthBearer);
    config.sasl_oauthbearer_token_location = file.display().to_string();
    let producer = Producer::build(config.clone()).unwrap();
    let mut published = PublishedRecords::default();
    published.send_many(&producer, "t", 20, 3).await;
    assert!(producer.flush(LONG).await);

    std::fs::write(&file, "second.token").unwrap();
    cluster.kill(1).await;
    cluster.restart(1).unwrap();
    published.send_many(&producer, "t", 20, 3).await;
    published.assert_delivered(&cluster, "t").await;

    std::fs::write(&file, "no.token").unwrap();
    let error = Producer::build(config).unwrap().health_check(LONG).await.unwrap_err();
    assert!(error.is_refusal(), "{error}");
    assert!(!format!("{error} {error:?}").contains("no.token"), "{error:?}");
}

#[tokio::test]
async fn token_refusal_survives_early_disconnect() {
    let cluster = TestCluster::builder().topic("t", 2).token("right.token").start().await.unwrap();
    // The refusal arrives. The broker does not answer the client's acknowledgement.
    cluster.inject(Rule::for_api(ApiKey::SaslAuthenticate).times(1).then(Fault::Delay(Duration::ZERO)));
    cluster.inject(Rule::for_api(ApiKey::SaslAuthenticate).always().then(Fault::Disconnect));
    let producer = Producer::with(|_| with_token_source(config(&cluster), "wrong.token")).unwrap();
    let error = producer.health_check(LONG).await.unwrap_err();
    assert!(error.is_refusal() && error.to_string().contains("OAUTHBEARER"), "{error}");
}

fn with_token_source(mut config: KafkaConfig, token: &'static str) -> Builder {
    config.security_protocol = SecurityProtocol::SaslPlaintext;
    config.sasl_mechanism = Some(SaslMechanism::OAuthBearer);
    Builder::default().with_config(config).token_source(TokenSource::new(move || async move { Ok(Secret::new(token)) }))
}

#[tokio::test]
async fn panicking_token_source_is_retried() {
    let cluster = TestCluster::builder().topic("t", 2).token("right.token").start().await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let source = asked.clone();
    let tokens = TokenSource::new(move || {
        let first = source.fetch_add(1, Ordering::Relaxed) == 0;
        async move { if first { panic!("no token yet") } else { Ok(Secret::new("right.token")) } }
    });
    let producer = Producer::with(|_| with_token_source(config(&cluster), "").token_source(tokens)).unwrap();
    let mut published = PublishedRecords::default();
    published.send_many(&producer, "t", 20, 3).await;
    published.assert_delivered(&cluster, "t").await;
    assert!(asked.load(Ordering::Relaxed) > 1);
}

/// A token source that is never called, and a token file that does not exist, are errors.
#[tokio::test]
async fn unusable_token_options_fail_at_build() {
    let cluster = TestCluster::builder().topic("t", 2).start().await.unwrap();
    let build_error = |change: fn(&mut KafkaConfig), source: bool| {
        let mut config = config(&cluster);
        config.security_protocol = SecurityProtocol::SaslPlaintext;
        config.sasl_mechanism = Some(SaslMechanism::OAuthBearer);
        change(&mut config);
        let mut builder = Builder::default().with_config(config);
        if source {
            builder = builder.token_source(TokenSource::new(|| async { Ok(Secret::new("a")) }));
        }
        builder.build().unwrap_err().to_string()
    };
    let plain = |config: &mut KafkaConfig| {
        config.sasl_mechanism = Some(SaslMechanism::Plain);
        config.sasl_username = "alice".to_owned();
        config.sasl_password = Some(Secret::new("correct horse"));
    };
    let no_sasl = |config: &mut KafkaConfig| {
        config.security_protocol = SecurityProtocol::Plaintext;
        config.sasl_mechanism = None;
    };
    assert!(build_error(plain, true).contains("sasl_mechanism is not OAUTHBEARER"));
    assert!(build_error(no_sasl, true).contains("security_protocol is PLAINTEXT"));
    let beside = build_error(|config| config.sasl_oauthbearer_token_location = "token".to_owned(), true);
    assert!(beside.contains("remove one of them"), "{beside}");
    let missing = build_error(|config| config.sasl_oauthbearer_token_location = "/tmp/nowhere/token".to_owned(), false);
    assert!(missing.contains("/tmp/nowhere/token: No such file"), "{missing}");
    let token = build_error(|config| config.sasl_oauthbearer_token_location = "a-token-itself".to_owned(), false);
    assert!(token.contains("the value is not the path of a file") && !token.contains("itself"), "{token}");
}

#[tokio::test]
async fn debug_and_stats_hide_password() {
    let cluster = cluster().await;
    let config = config_as_alice(&cluster, "correct horse");
    let shown = format!("{config:?}");
    let producer = Producer::build(config).unwrap();
    producer.health_check(LONG).await.unwrap();
    let stats = producer.stats();
    let shown = format!("{shown} {producer:?} {stats:?} {}", serde_json::to_string(&stats).unwrap());
    assert!(shown.contains("alice") && !shown.contains("correct") && !shown.contains("horse"), "{shown}");
}

/// The runtime of a test has one thread, so the log of this thread has every connection.
#[tokio::test]
async fn trace_log_hides_secrets() {
    let (log, _guard) = CapturedLog::capture();
    let cluster = cluster().await;
    let tokens = TestCluster::builder().topic("t", 2).token("right.token").start().await.unwrap();
    for password in ["correct horse", "battery staple"] {
        let producer = Producer::build(config_as_alice(&cluster, password)).unwrap();
        assert_eq!(producer.health_check(LONG).await.is_ok(), password == "correct horse");
        producer.close(LONG).await;
    }
    for token in ["right.token", "wrong.token"] {
        let producer = Producer::with(|_| with_token_source(config(&tokens), token)).unwrap();
        assert_eq!(producer.health_check(LONG).await.is_ok(), token == "right.token");
        producer.close(LONG).await;
    }
    let log = log.text();
    assert!(log.contains("step=SASL"), "the log has debug lines: {log}");
    for secret in ["correct horse", "battery staple", "right.token", "wrong.token"] {
        // The log has neither the text nor the list of bytes.
        let bytes = format!("{:?}", secret.as_bytes());
        assert!(!log.contains(secret) && !log.contains(bytes.trim_matches(['[', ']'])), "{secret} is in {log}");
    }
}
