//! Every security mode of a real Kafka: valid credentials deliver events, and invalid ones are refused with the right
//! reason.
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kafka_courier::{
    Builder, Delivery, ErrorCode, HealthError, HealthPart, KafkaProducer, ProducerRecord, SaslMechanism, Secret,
    SecurityProtocol, TokenSource,
};
use kafka_courier_tests::audited::Producer;
use kafka_courier_tests::cluster::Cluster;

pub(crate) const TOPIC: &str = "secured";
const RECORDS: u64 = 500;
const PATIENCE: Duration = Duration::from_secs(60);

/// A security mode of a cluster, for the arguments of `kafka up` and the settings of the producer.
#[derive(Clone, Copy)]
struct SecurityMode {
    sasl: Option<(&'static str, SaslMechanism)>,
    tls: bool,
    client_certificate: bool,
}

const MECHANISMS: [(&str, SaslMechanism); 4] = [
    ("plain", SaslMechanism::Plain),
    ("scram-256", SaslMechanism::ScramSha256),
    ("scram-512", SaslMechanism::ScramSha512),
    ("oauthbearer", SaslMechanism::OAuthBearer),
];

fn mechanism_name(mechanism: SaslMechanism) -> &'static str {
    match mechanism {
        SaslMechanism::Plain => "PLAIN",
        SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
        SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
        _ => "OAUTHBEARER",
    }
}

impl SecurityMode {
    fn start_cluster(self, more: &[&'static str]) -> Result<Cluster> {
        let mut arguments = more.to_vec();
        if let Some((name, _)) = self.sasl {
            arguments.extend(["--sasl", name]);
        }
        if self.tls {
            arguments.extend(["--tls", "--client-auth", if self.client_certificate { "required" } else { "none" }]);
        }
        let cluster = Cluster::start_with(1, &arguments)?;
        cluster.create_topic(TOPIC, 3, 1, &[])?;
        Ok(cluster)
    }

    fn protocol(self) -> SecurityProtocol {
        match (self.sasl.is_some(), self.tls) {
            (false, false) => SecurityProtocol::Plaintext,
            (false, true) => SecurityProtocol::Ssl,
            (true, false) => SecurityProtocol::SaslPlaintext,
            (true, true) => SecurityProtocol::SaslSsl,
        }
    }

    fn producer(self, cluster: &Cluster) -> Builder {
        let mut builder = Builder::default().brokers(cluster.bootstrap()).security_protocol(self.protocol());
        builder = builder.metadata_timeout(PATIENCE).delivery_timeout(PATIENCE);
        if let Some((_, mechanism)) = self.sasl {
            builder = builder.sasl_mechanism(mechanism);
            builder = match mechanism {
                SaslMechanism::OAuthBearer => {
                    builder.token_source(TokenSource::new(|| async { Ok(token("alice", 600)) }))
                }
                _ => builder.sasl_username("alice").sasl_password("alice-secret"),
            };
        }
        if self.tls {
            builder = builder.ssl_ca_location(path(cluster, "ca.pem"));
        }
        if self.client_certificate {
            let (certificate, key) = (path(cluster, "client.pem"), path(cluster, "client.key"));
            builder = builder.ssl_certificate_location(certificate).ssl_key_location(key);
        }
        builder
    }
}

fn path(cluster: &Cluster, name: &str) -> String {
    cluster.file(name).display().to_string()
}

/// Returns an unsigned token for Kafka's default validator, valid for `seconds`. A negative number makes an expired
/// token.
fn token(subject: &str, seconds: i64) -> Secret {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(since.as_secs()).unwrap_or(0);
    let claims = format!(r#"{{"sub":"{subject}","iat":{},"exp":{}}}"#, now - 60, now + seconds);
    Secret::new(format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode(claims)))
}

/// Publishes records, and checks that a Java consumer reads as many as were reported delivered.
async fn check_delivery(cluster: &Cluster, builder: Builder) -> Result<()> {
    let producer = Producer::with(|_| builder)?;
    let mut deliveries = Vec::new();
    for number in 0..RECORDS {
        let value = number.to_string();
        let record = ProducerRecord { topic: TOPIC, value: Some(value.as_bytes()), ..ProducerRecord::default() };
        deliveries.push(producer.send(&record).await?);
    }
    for delivery in deliveries {
        delivery.await?;
    }
    let found = cluster.dump(TOPIC, |_| Ok(()))?;
    ensure!(found == RECORDS, "{RECORDS} records were delivered, {found} are in the log");
    Ok(())
}

/// Checks that the cluster refuses the producer: permanently, within 10 s, and with a reason that contains these words.
async fn check_refusal(builder: Builder, words: &[&str]) -> Result<HealthError> {
    let producer = Producer::with(|_| builder)?;
    let began = Instant::now();
    let error = producer.health_check(PATIENCE).await.err().context("the cluster did not refuse the producer")?;
    ensure!(error.is_refusal(), "{error}");
    ensure!(began.elapsed() < Duration::from_secs(10), "{error}: after {:?}", began.elapsed());
    for word in words {
        ensure!(error.to_string().contains(word), "{word:?} is not in: {error}");
    }
    ensure!(!error.to_string().contains("wrong-secret"), "{error}");
    eprintln!("refused as expected: {error}");
    Ok(error)
}

async fn check_wrong_password_refused(mode: SecurityMode, cluster: &Cluster) -> Result<()> {
    let Some((_, mechanism)) = mode.sasl else { return Ok(()) };
    let builder = match mechanism {
        SaslMechanism::OAuthBearer => {
            mode.producer(cluster).token_source(TokenSource::new(|| async { Ok(token("alice", -300)) }))
        }
        _ => mode.producer(cluster).sasl_password("wrong-secret"),
    };
    let mechanism = mechanism_name(mechanism);
    let mut words = vec!["127.0.0.1:", mechanism];
    words.extend((mechanism != "OAUTHBEARER").then_some("user alice"));
    let error = check_refusal(builder, &words).await?;
    ensure!(error.code() == Some(ErrorCode::SASL_AUTHENTICATION_FAILED), "{error}");
    Ok(())
}

async fn check_strangers_refused(mode: SecurityMode, cluster: &Cluster) -> Result<()> {
    if mode.tls {
        // Mozilla's authorities, and a file with an authority other than the cluster's.
        let other = path(cluster, "other-client.pem");
        for authority in ["", &other] {
            check_refusal(mode.producer(cluster).ssl_ca_location(authority), &["unknown issuer", "ssl_ca_location"])
                .await?;
        }
    }
    if mode.client_certificate {
        let without_certificate = mode.producer(cluster).ssl_certificate_location("").ssl_key_location("");
        check_refusal(without_certificate, &["wants a client certificate", "ssl_certificate_location"]).await?;
    }
    Ok(())
}

async fn check_mode(mode: SecurityMode) -> Result<()> {
    let cluster = mode.start_cluster(&[])?;
    check_delivery(&cluster, mode.producer(&cluster)).await?;
    check_wrong_password_refused(mode, &cluster).await?;
    check_strangers_refused(mode, &cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_delivers_events() {
    check_mode(SecurityMode { sasl: None, tls: false, client_certificate: false }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_refuses_unknown_issuer() {
    check_mode(SecurityMode { sasl: None, tls: true, client_certificate: false }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn mutual_tls_requires_certificate() {
    check_mode(SecurityMode { sasl: None, tls: true, client_certificate: true }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sasl_plaintext_refuses_wrong_password() {
    for mechanism in MECHANISMS {
        let mode = SecurityMode { sasl: Some(mechanism), tls: false, client_certificate: false };
        check_mode(mode).await.context(mechanism.0).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sasl_over_tls_refuses_wrong_password() {
    for mechanism in MECHANISMS {
        let mode = SecurityMode { sasl: Some(mechanism), tls: true, client_certificate: false };
        check_mode(mode).await.context(mechanism.0).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_broker_certificates_are_named() {
    async fn run() -> Result<()> {
        let mode = SecurityMode { sasl: None, tls: true, client_certificate: false };
        let cluster = mode.start_cluster(&["--certificate", "wrong-name"])?;
        check_refusal(mode.producer(&cluster), &["wrong host name", "kafka.example", "127.0.0.1"]).await?;
        drop(cluster);
        let cluster = mode.start_cluster(&["--certificate", "expired"])?;
        check_refusal(mode.producer(&cluster), &["has expired", "days ago"]).await?;
        check_delivery(&cluster, mode.producer(&cluster).insecure_skip_verify(true)).await
    }
    run().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_security_protocol_gets_hint() {
    async fn run() -> Result<()> {
        let secured = SecurityMode { sasl: Some(MECHANISMS[0]), tls: true, client_certificate: false };
        let cluster = secured.start_cluster(&[])?;
        for (sasl, tls) in [(None, false), (secured.sasl, false), (None, true)] {
            let producer =
                Producer::with(|_| SecurityMode { sasl, tls, client_certificate: false }.producer(&cluster))?;
            let error = producer
                .health_check(PATIENCE)
                .await
                .err()
                .context("the health check passed with the wrong protocol")?;
            ensure!(!error.is_refusal() && error.to_string().contains("security_protocol"), "{error}");
            eprintln!("failed as expected: {error}");
        }
        Ok(())
    }
    run().await.unwrap();
}

/// Denies everything that `change_acl` does not allow. Only the users of the internal listener have all rights.
pub(crate) const AUTHORIZER: [&str; 4] = [
    "--set",
    "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "--set",
    "super.users=User:ANONYMOUS",
];

/// Adds (`--add`) or removes (`--remove`) a principal's right to an operation on the topic.
pub(crate) fn change_acl(cluster: &Cluster, change: &str, principal: &str, operation: &str) -> Result<()> {
    let internal = cluster.internal_bootstrap()?;
    let mut words = vec!["--bootstrap-server", &internal, change, "--allow-principal", principal];
    words.extend(["--operation", operation, "--topic", TOPIC]);
    words.extend((change == "--remove").then_some("--force"));
    cluster.java("org.apache.kafka.tools.AclCommand", &words, std::process::Stdio::null()).map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_rights_fail_by_code() {
    async fn run() -> Result<()> {
        let mode = SecurityMode { sasl: Some(MECHANISMS[1]), tls: false, client_certificate: false };
        let cluster = mode.start_cluster(&AUTHORIZER)?;
        let record = ProducerRecord { topic: TOPIC, value: Some(b"no"), ..ProducerRecord::default() };
        let unseen = Producer::with(|_| mode.producer(&cluster))?
            .send(&record)
            .await
            .err()
            .context("the topic is visible without a right")?;
        ensure!(unseen.to_string().contains("TOPIC_AUTHORIZATION_FAILED (29)"), "{unseen}");
        let unhealthy = async |producer: &KafkaProducer| {
            let error = producer
                .health_check_topics(&[TOPIC], PATIENCE)
                .await
                .err()
                .context("the health check passed without a right to write")?;
            ensure!(error.part() == HealthPart::WriteAuthorization && error.is_refusal(), "{error}");
            eprintln!("reported as expected: {error}");
            Ok(())
        };
        let unauthorized = Producer::with(|_| mode.producer(&cluster))?;
        unhealthy(&unauthorized).await?;
        let allow = |operation| change_acl(&cluster, "--add", "User:alice", operation);
        allow("Describe")?;
        let producer = Producer::with(|_| mode.producer(&cluster))?;
        unhealthy(&producer).await?;
        let began = Instant::now();
        let error = producer.send(&record).await?.await.err().context("the record was written without a right")?;
        // A principal without a right to write to any topic gets no producer id either.
        let code = error.code().context("the error has no code of a broker")?;
        ensure!(
            [ErrorCode::CLUSTER_AUTHORIZATION_FAILED, ErrorCode::TOPIC_AUTHORIZATION_FAILED].contains(&code),
            "{error}"
        );
        ensure!(!error.is_retriable() && began.elapsed() < Duration::from_secs(10), "{error}");
        eprintln!("refused as expected: {error}");
        allow("Write")?;
        producer.health_check_topics(&[TOPIC], PATIENCE).await?;
        producer.send(&record).await?.await?;
        Ok(())
    }
    run().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_sessions_are_renewed_without_retries() {
    async fn run() -> Result<()> {
        let mode = SecurityMode { sasl: Some(MECHANISMS[2]), tls: true, client_certificate: false };
        let cluster = mode.start_cluster(&["--set", "connections.max.reauth.ms=5000"])?;
        let producer = Producer::with(|_| mode.producer(&cluster).flush_timeout(Duration::from_millis(20)))?;
        let record = ProducerRecord { topic: TOPIC, value: Some(b"first"), ..ProducerRecord::default() };
        let mut deliveries = vec![producer.send(&record).await?];
        ensure!(producer.flush(PATIENCE).await);
        // The leader of a new topic may not know the topic yet, so that the first record may need a retry.
        let retried = producer.stats().retried;
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(15) {
            let record = ProducerRecord { topic: TOPIC, value: Some(b"again"), ..ProducerRecord::default() };
            deliveries.push(producer.send(&record).await?);
            ensure!(producer.flush(PATIENCE).await);
        }
        let count = u64::try_from(deliveries.len())?;
        for delivery in deliveries {
            delivery.await?;
        }
        ensure!(producer.stats().retried == retried, "{retried} retries before, now {:?}", producer.stats());
        let found = cluster.dump(TOPIC, |_| Ok(()))?;
        ensure!(found == count, "{count} records were delivered, {found} are in the log");
        Ok(())
    }
    run().await.unwrap();
}

/// Publishes `RECORDS` events, and cuts all connections after half of them.
async fn publish_through_a_cut(cluster: &Cluster, producer: &KafkaProducer) -> Result<Vec<Delivery>> {
    let mut deliveries = Vec::new();
    for number in 0..RECORDS {
        let value = number.to_string();
        let record = ProducerRecord { topic: TOPIC, value: Some(value.as_bytes()), ..ProducerRecord::default() };
        deliveries.push(producer.send(&record).await?);
        if number == RECORDS / 2 {
            cluster.fault(&["cut"])?;
        }
    }
    Ok(deliveries)
}

/// Bob's certificate replaces alice's during the traffic, and the file of the key follows a little later. Then alice
/// loses her rights.
#[tokio::test(flavor = "multi_thread")]
async fn changed_client_certificate_loses_no_event() {
    async fn run() -> Result<()> {
        let mode = SecurityMode { sasl: None, tls: true, client_certificate: true };
        let cluster = mode.start_cluster(&[&AUTHORIZER[..], &["--proxied"]].concat())?;
        for principal in ["User:CN=alice", "User:CN=bob"] {
            change_acl(&cluster, "--add", principal, "Write")?;
        }
        let [certificate, key] = ["me.pem", "me.key"].map(|name| path(&cluster, name));
        let put = |from: &str, to: &str| -> Result<()> {
            let next = format!("{to}.next");
            std::fs::copy(cluster.file(from), &next)?;
            Ok(std::fs::rename(next, to)?)
        };
        put("client.pem", &certificate)?;
        put("client.key", &key)?;
        let producer = mode.producer(&cluster).ssl_certificate_location(&*certificate).ssl_key_location(&*key);
        let producer = Producer::with(|_| producer.flush_timeout(Duration::from_millis(5)))?;
        let mut deliveries = publish_through_a_cut(&cluster, &producer).await?;
        put("other-client.pem", &certificate)?;
        deliveries.extend(publish_through_a_cut(&cluster, &producer).await?);
        put("other-client.key", &key)?;
        deliveries.extend(publish_through_a_cut(&cluster, &producer).await?);
        ensure!(producer.flush(PATIENCE).await);
        change_acl(&cluster, "--remove", "User:CN=alice", "Write")?;
        deliveries.extend(publish_through_a_cut(&cluster, &producer).await?);
        let published = u64::try_from(deliveries.len())?;
        for delivery in deliveries {
            delivery.await?;
        }
        let found = cluster.dump(TOPIC, |_| Ok(()))?;
        ensure!(found == published, "{published} records were delivered, {found} are in the log");
        // Alice's certificate no longer gives the right to write.
        let error = Producer::with(|_| mode.producer(&cluster))?.health_check_topics(&[TOPIC], PATIENCE).await.err();
        ensure!(error.as_ref().is_some_and(HealthError::is_refusal), "{error:?}");
        Ok(())
    }
    run().await.unwrap();
}
