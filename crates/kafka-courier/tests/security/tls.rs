//! TLS: trusted and refused brokers, client certificates, and files that change.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::tls::{
    acceptor, assert_refused, cluster, pem_path, pem_path_text, tls_config, with_client_certificate,
};
use crate::support::{LONG, Producer, PublishedRecords, process, record};
use kafka_courier::{Builder, DeliveryError, KafkaConfig, Reason, SslRoots};
use kafka_courier_test_broker::{Layer, TestCluster};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn assert_delivers(cluster: &TestCluster, config: KafkaConfig) {
    let producer = Producer::build(config).unwrap();
    let mut published = PublishedRecords::default();
    published.send_many(&producer, "t", 200, 5).await;
    published.assert_delivered(cluster, "t").await;
}

#[tokio::test]
async fn trusted_authority_is_accepted() {
    let cluster = cluster("server", false).await;
    assert_delivers(&cluster, tls_config(&cluster)).await;
}

#[tokio::test]
async fn each_client_key_kind_is_accepted() {
    for (certificate, key) in [
        ("client.pem", "client-pkcs8.pem"),
        ("client.pem", "client-sec1.pem"),
        ("client-rsa.pem", "client-rsa-pkcs1.pem"),
    ] {
        let cluster = cluster("server", true).await;
        assert_delivers(&cluster, with_client_certificate(tls_config(&cluster), certificate, key)).await;
    }
}

#[tokio::test]
async fn unknown_issuer_is_refused() {
    let cluster = cluster("server", false).await;
    let mut other = tls_config(&cluster);
    other.ssl_ca_location = pem_path_text("other-ca.pem");
    assert_refused(&cluster, other, &["127.0.0.1:", "unknown issuer", "ssl_ca_location"]).await;
    let mut compiled_in = tls_config(&cluster);
    compiled_in.ssl_ca_location = String::new();
    assert_refused(&cluster, compiled_in, &["127.0.0.1:", "unknown issuer", "ssl_ca_location"]).await;
}

#[tokio::test]
async fn wrong_host_name_is_refused() {
    let cluster = cluster("wrong-name", false).await;
    assert_refused(
        &cluster,
        tls_config(&cluster),
        &["wrong host name", "kafka.example", "127.0.0.1", "advertised.listeners"],
    )
    .await;
}

/// The broker shows the certificate of an authority as its own.
#[tokio::test]
async fn authority_certificate_as_server_is_refused() {
    let cluster = cluster("self-signed", false).await;
    let mut config = tls_config(&cluster);
    config.ssl_ca_location = pem_path_text("self-signed.pem");
    assert_refused(&cluster, config, &["CA:TRUE", "ssl_ca_location"]).await;
}

#[tokio::test]
async fn expired_certificate_is_refused() {
    let cluster = cluster("expired", false).await;
    assert_refused(&cluster, tls_config(&cluster), &["has expired", "days ago", "clock"]).await;
}

#[tokio::test]
async fn missing_client_certificate_is_explained() {
    let cluster = cluster("server", true).await;
    assert_refused(&cluster, tls_config(&cluster), &["wants a client certificate", "ssl_certificate_location"]).await;
}

#[tokio::test]
async fn plaintext_broker_is_explained() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let mut config = tls_config(&cluster);
    config.connect_timeout = std::time::Duration::from_millis(200);
    let producer = Producer::build(config).unwrap();
    let error = producer.health_check(LONG).await.unwrap_err();
    assert!(error.to_string().contains("TLS") || error.to_string().contains("no connection within"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn internal_handshake_failure_is_retried() {
    const INTERNAL_ERROR: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 80];
    let acceptor = acceptor("server", false);
    let connections = Arc::new(AtomicUsize::new(0));
    let seen = connections.clone();
    let layer = Layer::new(move |mut tcp: TcpStream| {
        let acceptor = acceptor.clone();
        let broken = seen.fetch_add(1, Ordering::Relaxed) < 3;
        async move {
            if broken {
                let mut hello = [0; 4096];
                let _ = tcp.read(&mut hello).await?;
                tcp.write_all(&INTERNAL_ERROR).await?;
                return Err(io::Error::other("internal error"));
            }
            acceptor.accept(tcp).await.map_err(io::Error::other)
        }
    });
    let cluster = TestCluster::builder().topic("t", 2).layer(layer).start().await.unwrap();
    assert_delivers(&cluster, tls_config(&cluster)).await;
    assert!(connections.load(Ordering::Relaxed) > 3);
}

#[tokio::test]
async fn insecure_skip_verify_accepts_any_broker() {
    let cluster = cluster("expired", false).await;
    let mut config = tls_config(&cluster);
    config.ssl_ca_location = pem_path_text("other-ca.pem");
    config.insecure_skip_verify = true;
    assert_delivers(&cluster, config).await;
}

#[tokio::test]
async fn unusable_files_are_named() {
    let cluster = cluster("server", false).await;
    let config = || tls_config(&cluster);
    let with_ca = |name: &str| {
        let mut config = config();
        config.ssl_ca_location = pem_path_text(name);
        config
    };
    for (config, words) in [
        (with_ca("nowhere.pem"), ["ssl_ca_location", "nowhere.pem"]),
        (with_ca("client-pkcs8.pem"), ["ssl_ca_location", "holds no certificate"]),
        (with_client_certificate(config(), "client.pem", "client-encrypted.pem"), ["ssl_key_location", "openssl pkey"]),
        (with_client_certificate(config(), "client.pem", "client.pem"), ["ssl_key_location", "holds no private key"]),
        (
            with_client_certificate(config(), "client.pem", "server-key.pem"),
            ["ssl_key_location", "that certificate's key"],
        ),
    ] {
        let error = Producer::build(config).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
}

/// A broken file leaves the former certificates in use.
#[tokio::test]
async fn changed_files_are_reloaded() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let replace_file = |contents: &[u8]| {
        let next = folder.path().join("next");
        std::fs::write(&next, contents).unwrap();
        std::fs::rename(&next, &ca).unwrap();
    };
    let cluster = cluster("server", false).await;
    replace_file(&std::fs::read(pem_path("ca.pem")).unwrap());
    let mut config = tls_config(&cluster);
    config.ssl_ca_location = ca.display().to_string();
    let producer = Producer::build(config).unwrap();
    let mut published = PublishedRecords::default();
    published.send_many(&producer, "t", 20, 3).await;
    assert!(producer.flush(LONG).await);

    replace_file(b"half a certifica");
    cluster.kill(1).await;
    published.send_many(&producer, "t", 20, 3).await;
    cluster.restart(1).unwrap();
    assert!(producer.flush(LONG).await, "the former certificates stay in use");
    published.assert_delivered(&cluster, "t").await;

    replace_file(&std::fs::read(pem_path("other-ca.pem")).unwrap());
    cluster.kill(1).await;
    cluster.restart(1).unwrap();
    let error: DeliveryError = producer.send(&record("t", "k", "v")).await.unwrap().await.unwrap_err();
    assert!(matches!(error.reason(), Reason::Tls(why) if why.contains("unknown issuer")), "{error}");
}

/// The certificates of clients, in the order of their connections.
type ShownCertificates = Arc<Mutex<Vec<CertificateDer<'static>>>>;

async fn cluster_recording_certificates(shown: ShownCertificates) -> TestCluster {
    let acceptor = acceptor("server", true);
    let layer = Layer::new(move |tcp| {
        let (acceptor, shown) = (acceptor.clone(), shown.clone());
        async move {
            let stream = acceptor.accept(tcp).await.map_err(io::Error::other)?;
            let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
            shown.lock().unwrap().extend(certificates.first().map(|it| it.clone().into_owned()));
            Ok(stream)
        }
    });
    TestCluster::builder().topic("t", 2).layer(layer).start().await.unwrap()
}

/// The next connection shows the new certificate.
#[tokio::test]
async fn changed_client_certificate_loses_no_event() {
    let shown = ShownCertificates::default();
    let cluster = cluster_recording_certificates(shown.clone()).await;
    let folder = tempfile::tempdir().unwrap();
    let replace_file = |name: &str, from: &str| {
        std::fs::copy(pem_path(from), folder.path().join("next")).unwrap();
        std::fs::rename(folder.path().join("next"), folder.path().join(name)).unwrap();
    };
    replace_file("me.pem", "client.pem");
    replace_file("me.key", "client-pkcs8.pem");
    let mut config = tls_config(&cluster);
    config.ssl_certificate_location = folder.path().join("me.pem").display().to_string();
    config.ssl_key_location = folder.path().join("me.key").display().to_string();
    let producer = Producer::build(config).unwrap();
    let mut published = PublishedRecords::default();
    published.send_many(&producer, "t", 50, 3).await;
    assert!(producer.flush(LONG).await);

    // The certificate changes first, then the key. Connections end while events are in flight.
    let [former, latter] =
        ["client.pem", "client-rsa.pem"].map(|it| CertificateDer::from_pem_file(pem_path(it)).unwrap());
    for (name, from, expected) in [("me.pem", "client-rsa.pem", &former), ("me.key", "client-rsa-pkcs1.pem", &latter)] {
        published.send_many(&producer, "t", 50, 3).await;
        replace_file(name, from);
        shown.lock().unwrap().clear();
        cluster.kill(1).await;
        published.send_many(&producer, "t", 50, 3).await;
        cluster.restart(1).unwrap();
        published.send_many(&producer, "t", 50, 3).await;
        assert!(producer.flush(LONG).await);
        let shown = shown.lock().unwrap();
        assert!(!shown.is_empty() && shown.iter().all(|it| it == expected), "{name}: {} connections", shown.len());
    }
    published.assert_delivered(&cluster, "t").await;
}

/// The environment of a process names the system's authorities, so the test runs itself with another environment.
#[test]
fn ssl_roots_trusts_system_authorities() {
    const ITSELF: &str = concat!(module_path!(), "::ssl_roots_trusts_system_authorities");
    if !process::runs_only(ITSELF) {
        let roots = pem_path_text("ca.pem");
        process::assert_passes(process::only(ITSELF).env("SSL_CERT_FILE", roots).env_remove("SSL_CERT_DIR"));
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let cluster = cluster("server", false).await;
        let mut config = tls_config(&cluster);
        config.ssl_ca_location = String::new();
        assert_refused(&cluster, config.clone(), &["unknown issuer"]).await;
        config.ssl_roots = SslRoots::System;
        assert_delivers(&cluster, config).await;
    });
}

/// One error lists wrong options, missing files and the missing runtime.
#[test]
fn all_build_errors_are_collected() {
    let secured = Builder::default()
        .flush_messages("many")
        .max_in_flight(6)
        .security_protocol("SASL_SSL")
        .sasl_mechanism("OAUTHBEARER")
        .sasl_oauthbearer_token_location("/tmp/nowhere/token")
        .ssl_ca_location("/nowhere/ca.pem")
        .ssl_certificate_location("/nowhere/me.pem")
        .ssl_key_location("/nowhere/me.key");
    let error = secured.build().unwrap_err();
    let found: Vec<String> = error.problems().iter().map(ToString::to_string).collect();
    let expected = [
        "flush_messages is \"many\"",
        "max_in_flight is 6",
        "sasl_oauthbearer_token_location: /tmp/nowhere/token",
        "ssl_ca_location: /nowhere/ca.pem",
        "ssl_certificate_location: /nowhere/me.pem",
        "ssl_key_location: /nowhere/me.key",
        "no tokio runtime here",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    assert!(found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected)), "{found:#?}");
}
