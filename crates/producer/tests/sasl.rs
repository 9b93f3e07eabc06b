//! Who we are: brokers that ask for a password, take it or don't, and end sessions.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests may, as tests do
#[path = "support/heard.rs"]
mod heard;
#[path = "support/leak.rs"]
mod leak;
mod support;

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kafka_courier::{
    Builder, ErrorCode, KafkaConfig, PublishError, SaslMechanism, Secret, SecurityProtocol, TokenSource,
};
use kafka_courier_test_broker::{ApiKey, Fault, Rule, TestCluster};
use support::{Books, LONG, Producer, config, record};

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
    let producer = Producer::build(as_alice(&cluster, "correct horse")).unwrap();
    let mut books = Books::default();
    books.send_many(&producer, "t", 100, 7).await;
    books.all_delivered(&cluster, "t").await;
}

#[tokio::test]
async fn a_wrong_password_fails_at_once_is_not_tried_again_and_again_and_is_never_shown() {
    let cluster = cluster().await;
    let config = as_alice(&cluster, "battery staple");
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
    cluster.inject(Rule::for_api(ApiKey::SaslAuthenticate).always().then(Fault::ApplyThenAnswer(answer)));
    let producer = Producer::build(as_alice(&cluster, "correct horse")).unwrap();
    let error = producer.health_check(LONG).await.unwrap_err();
    assert!(error.is_refusal(), "{error}");
    assert!(error.to_string().contains("***") && !error.to_string().contains("correct"), "{error}");
}

#[tokio::test]
async fn a_mechanism_that_the_broker_does_not_know_is_an_error_that_names_those_that_it_knows() {
    let cluster = cluster().await;
    let mut config = as_alice(&cluster, "correct horse");
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
async fn a_broker_that_asks_for_iterations_without_end_is_refused_before_any_is_done() {
    let cluster = cluster().await;
    // SCRAM is known here, and asks for 2^32 - 1 of them: an hour and more.
    cluster.inject(Rule::for_api(ApiKey::SaslHandshake).always().then(Fault::ApplyThenAnswer(vec![0; 6])));
    let first = b"r=any,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4294967295";
    let answer = [&[0, 0, 0, 0, u8::try_from(first.len() + 1).unwrap()], &first[..], &[0; 9]].concat();
    cluster.inject(Rule::for_api(ApiKey::SaslAuthenticate).always().then(Fault::ApplyThenAnswer(answer)));
    let mut config = as_alice(&cluster, "correct horse");
    config.sasl_mechanism = Some(SaslMechanism::ScramSha512);
    let began = Instant::now();
    let error = Producer::build(config).unwrap().health_check(LONG).await.unwrap_err();
    assert!(error.is_refusal() && began.elapsed() < Duration::from_secs(5), "{error} after {:?}", began.elapsed());
    for word in ["127.0.0.1:", "alice", "SCRAM-SHA-512", "4294967295 iterations", "4096 to 1000000"] {
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
    assert_eq!(cluster.requests(ApiKey::SaslAuthenticate), 1, "nothing is proved to it");
}

#[tokio::test]
async fn who_does_not_say_who_he_is_is_told_what_may_be_the_matter() {
    let cluster = cluster().await;
    let producer = Producer::build(config(&cluster)).unwrap();
    let error = producer.health_check(LONG).await.unwrap_err();
    assert!(!error.is_refusal());
    assert!(error.to_string().contains("security_protocol"), "{error}");
}

#[tokio::test]
async fn listener_without_sasl_names_remedy() {
    let cluster = cluster().await;
    // An error 34, and no mechanisms.
    cluster.inject(Rule::for_api(ApiKey::SaslHandshake).always().then(Fault::ApplyThenAnswer(vec![0, 34, 0, 0, 0, 0])));
    let producer = Producer::build(as_alice(&cluster, "correct horse")).unwrap();
    let error = producer.health_check(LONG).await.unwrap_err();
    assert!(error.is_refusal(), "{error}");
    for word in ["ILLEGAL_SASL_STATE (34)", "set security_protocol to PLAINTEXT or SSL"] {
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
}

#[tokio::test]
async fn a_damaged_token_is_never_shown() {
    const SECRET: &str = "Zq7xVr2mKw9pLt4nHs6bJd8fQc3gYy5eXu1aRv0o";
    let cluster = cluster().await;
    // The mechanism is known here.
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
    let (heard, _listening) = heard::Heard::listen();
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
        let said = leak::all_of(&error) + &built + &heard.text();
        assert_eq!(leak::find(SECRET.as_bytes(), &said), None, "{said}");
        assert!(error.to_string().contains("the token "), "{error}");
    }
}

#[tokio::test]
async fn connections_are_replaced_before_their_sessions_end_and_nothing_is_sent_twice() {
    let lifetime = Duration::from_millis(400);
    let builder = TestCluster::builder().topic("t", 2).user("alice", "correct horse").session_lifetime(lifetime);
    let cluster = builder.start().await.unwrap();
    let producer = Producer::build(as_alice(&cluster, "correct horse")).unwrap();
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
    let producer = Producer::build(config.clone()).unwrap();
    let mut books = Books::default();
    books.send_many(&producer, "t", 20, 3).await;
    assert!(producer.flush(LONG).await);

    std::fs::write(&file, "second.token").unwrap();
    cluster.kill(1).await;
    cluster.restart(1).unwrap();
    books.send_many(&producer, "t", 20, 3).await;
    books.all_delivered(&cluster, "t").await;

    std::fs::write(&file, "no.token").unwrap();
    let error = Producer::build(config).unwrap().health_check(LONG).await.unwrap_err();
    assert!(error.is_refusal(), "{error}");
    assert!(!format!("{error} {error:?}").contains("no.token"), "{error:?}");
}

#[tokio::test]
async fn a_token_that_is_refused_is_so_also_where_the_broker_ends_the_connection_at_once() {
    let cluster = TestCluster::builder().topic("t", 2).token("right.token").start().await.unwrap();
    // The refusal itself arrives; what acknowledges it is not answered.
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
async fn a_source_of_tokens_that_panics_takes_nothing_with_it() {
    let cluster = TestCluster::builder().topic("t", 2).token("right.token").start().await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let source = asked.clone();
    let tokens = TokenSource::new(move || {
        let first = source.fetch_add(1, Ordering::Relaxed) == 0;
        async move { if first { panic!("no token yet") } else { Ok(Secret::new("right.token")) } }
    });
    let producer = Producer::with(|_| with_token_source(config(&cluster), "").token_source(tokens)).unwrap();
    let mut books = Books::default();
    books.send_many(&producer, "t", 20, 3).await;
    books.all_delivered(&cluster, "t").await;
    assert!(asked.load(Ordering::Relaxed) > 1);
}

#[tokio::test]
async fn tokens_that_would_never_be_asked_for_and_files_that_are_not_there_are_errors_at_the_start() {
    let cluster = TestCluster::builder().topic("t", 2).start().await.unwrap();
    let said = |change: fn(&mut KafkaConfig), source: bool| {
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
    assert!(said(plain, true).contains("sasl_mechanism is not OAUTHBEARER"));
    assert!(said(no_sasl, true).contains("security_protocol is PLAINTEXT"));
    let beside = said(|config| config.sasl_oauthbearer_token_location = "token".to_owned(), true);
    assert!(beside.contains("remove one of them"), "{beside}");
    let missing = said(|config| config.sasl_oauthbearer_token_location = "/tmp/nowhere/token".to_owned(), false);
    assert!(missing.contains("/tmp/nowhere/token: No such file"), "{missing}");
    let token = said(|config| config.sasl_oauthbearer_token_location = "a-token-itself".to_owned(), false);
    assert!(token.contains("the value is not the path of a file") && !token.contains("itself"), "{token}");
}

#[tokio::test]
async fn neither_what_is_shown_of_a_producer_nor_its_statistics_have_the_password() {
    let cluster = cluster().await;
    let config = as_alice(&cluster, "correct horse");
    let shown = format!("{config:?}");
    let producer = Producer::build(config).unwrap();
    producer.health_check(LONG).await.unwrap();
    let stats = producer.stats();
    let shown = format!("{shown} {producer:?} {stats:?} {}", serde_json::to_string(&stats).unwrap());
    assert!(shown.contains("alice") && !shown.contains("correct") && !shown.contains("horse"), "{shown}");
}

/// All that is logged by this thread: the runtime of a test has no other that knows of connections.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_at_its_most_talkative_has_neither_passwords_nor_tokens() {
    let logged = Logged::default();
    let writer = logged.clone();
    support::keep_lines_wanted();
    let told = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
    let _guard = tracing::subscriber::set_default(told.with_writer(move || writer.clone()).finish());
    let cluster = cluster().await;
    let tokens = TestCluster::builder().topic("t", 2).token("right.token").start().await.unwrap();
    for password in ["correct horse", "battery staple"] {
        let producer = Producer::build(as_alice(&cluster, password)).unwrap();
        assert_eq!(producer.health_check(LONG).await.is_ok(), password == "correct horse");
        producer.close(LONG).await;
    }
    for token in ["right.token", "wrong.token"] {
        let producer = Producer::with(|_| with_token_source(config(&tokens), token)).unwrap();
        assert_eq!(producer.health_check(LONG).await.is_ok(), token == "right.token");
        producer.close(LONG).await;
    }
    let log = String::from_utf8(logged.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("step=SASL"), "the log has debug lines: {log}");
    for secret in ["correct horse", "battery staple", "right.token", "wrong.token"] {
        // As text, and as a list of bytes.
        let bytes = format!("{:?}", secret.as_bytes());
        assert!(!log.contains(secret) && !log.contains(bytes.trim_matches(['[', ']'])), "{secret} is in {log}");
    }
}
