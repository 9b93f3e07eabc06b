//! TLS: whom we trust, whom we don't and why, what we show of ourselves, and files that change.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests may, as tests do
#[path = "support/tls.rs"]
mod secured;
mod support;

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use kafka_courier::{Builder, DeliveryError, KafkaConfig, Reason, SslRoots};
use kafka_courier_test_broker::{Layer, TestCluster};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secured::{acceptor, as_client, cluster, file, refused, text, with_tls};
use support::{Books, LONG, Producer, record};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn delivers(cluster: &TestCluster, config: KafkaConfig) {
    let producer = Producer::build(config).unwrap();
    let mut books = Books::default();
    books.send_many(&producer, "t", 200, 5).await;
    books.all_delivered(cluster, "t").await;
}

#[tokio::test]
async fn a_broker_whose_authority_is_trusted_gets_the_events() {
    let cluster = cluster("server", false).await;
    delivers(&cluster, with_tls(&cluster)).await;
}

#[tokio::test]
async fn a_certificate_of_our_own_is_shown_with_a_key_of_each_kind() {
    for (certificate, key) in [
        ("client.pem", "client-pkcs8.pem"),
        ("client.pem", "client-sec1.pem"),
        ("client-rsa.pem", "client-rsa-pkcs1.pem"),
    ] {
        let cluster = cluster("server", true).await;
        delivers(&cluster, as_client(with_tls(&cluster), certificate, key)).await;
    }
}

#[tokio::test]
async fn an_unknown_issuer_is_refused_with_the_remedy() {
    let cluster = cluster("server", false).await;
    let mut other = with_tls(&cluster);
    other.ssl_ca_location = text("other-ca.pem");
    refused(&cluster, other, &["127.0.0.1:", "unknown issuer", "ssl_ca_location"]).await;
    let mut compiled_in = with_tls(&cluster);
    compiled_in.ssl_ca_location = String::new();
    refused(&cluster, compiled_in, &["127.0.0.1:", "unknown issuer", "ssl_ca_location"]).await;
}

#[tokio::test]
async fn a_wrong_host_name_is_refused_with_both_names() {
    let cluster = cluster("wrong-name", false).await;
    refused(&cluster, with_tls(&cluster), &["wrong host name", "kafka.example", "127.0.0.1", "advertised.listeners"])
        .await;
}

#[tokio::test]
async fn an_authority_s_certificate_that_a_broker_shows_as_its_own_is_refused_with_the_remedy() {
    let cluster = cluster("self-signed", false).await;
    let mut config = with_tls(&cluster);
    config.ssl_ca_location = text("self-signed.pem");
    refused(&cluster, config, &["CA:TRUE", "ssl_ca_location"]).await;
}

#[tokio::test]
async fn an_expired_certificate_is_refused_and_how_long_ago_it_expired() {
    let cluster = cluster("expired", false).await;
    refused(&cluster, with_tls(&cluster), &["has expired", "days ago", "clock"]).await;
}

#[tokio::test]
async fn a_broker_that_wants_a_certificate_of_ours_says_so() {
    let cluster = cluster("server", true).await;
    refused(&cluster, with_tls(&cluster), &["wants a client certificate", "ssl_certificate_location"]).await;
}

#[tokio::test]
async fn a_broker_without_tls_is_told_apart_from_one_that_is_away() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let mut config = with_tls(&cluster);
    config.connect_timeout = std::time::Duration::from_millis(200);
    let producer = Producer::build(config).unwrap();
    let error = producer.health_check(LONG).await.unwrap_err();
    assert!(error.to_string().contains("TLS") || error.to_string().contains("no connection within"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_fails_inside_the_broker_is_tried_again() {
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
    delivers(&cluster, with_tls(&cluster)).await;
    assert!(connections.load(Ordering::Relaxed) > 3);
}

#[tokio::test]
async fn insecure_skip_verify_takes_any_broker() {
    let cluster = cluster("expired", false).await;
    let mut config = with_tls(&cluster);
    config.ssl_ca_location = text("other-ca.pem");
    config.insecure_skip_verify = true;
    delivers(&cluster, config).await;
}

#[tokio::test]
async fn files_that_can_t_be_used_are_errors_that_name_the_option_the_file_and_the_remedy() {
    let cluster = cluster("server", false).await;
    let config = || with_tls(&cluster);
    let with_ca = |name: &str| {
        let mut config = config();
        config.ssl_ca_location = text(name);
        config
    };
    for (config, words) in [
        (with_ca("nowhere.pem"), ["ssl_ca_location", "nowhere.pem"]),
        (with_ca("client-pkcs8.pem"), ["ssl_ca_location", "holds no certificate"]),
        (as_client(config(), "client.pem", "client-encrypted.pem"), ["ssl_key_location", "openssl pkey"]),
        (as_client(config(), "client.pem", "client.pem"), ["ssl_key_location", "holds no private key"]),
        (as_client(config(), "client.pem", "server-key.pem"), ["ssl_key_location", "that certificate's key"]),
    ] {
        let error = Producer::build(config).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
}

#[tokio::test]
async fn files_that_change_are_read_again_and_broken_ones_leave_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let put = |contents: &[u8]| {
        let next = folder.path().join("next");
        std::fs::write(&next, contents).unwrap();
        std::fs::rename(&next, &ca).unwrap();
    };
    let cluster = cluster("server", false).await;
    put(&std::fs::read(file("ca.pem")).unwrap());
    let mut config = with_tls(&cluster);
    config.ssl_ca_location = ca.display().to_string();
    let producer = Producer::build(config).unwrap();
    let mut books = Books::default();
    books.send_many(&producer, "t", 20, 3).await;
    assert!(producer.flush(LONG).await);

    put(b"half a certifica");
    cluster.kill(1).await;
    books.send_many(&producer, "t", 20, 3).await;
    cluster.restart(1).unwrap();
    assert!(producer.flush(LONG).await, "what was there goes on");
    books.all_delivered(&cluster, "t").await;

    put(&std::fs::read(file("other-ca.pem")).unwrap());
    cluster.kill(1).await;
    cluster.restart(1).unwrap();
    let error: DeliveryError = producer.send(&record("t", "k", "v")).await.unwrap().await.unwrap_err();
    assert!(matches!(error.reason(), Reason::Tls(why) if why.contains("unknown issuer")), "{error}");
}

/// The certificates that clients showed, in the order of their connections.
type Shown = Arc<Mutex<Vec<CertificateDer<'static>>>>;

async fn cluster_that_notes(shown: Shown) -> TestCluster {
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

#[tokio::test]
async fn a_certificate_of_our_own_that_changes_while_events_flow_is_shown_by_the_next_connection_and_costs_no_event() {
    let shown = Shown::default();
    let cluster = cluster_that_notes(shown.clone()).await;
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, from: &str| {
        std::fs::copy(file(from), folder.path().join("next")).unwrap();
        std::fs::rename(folder.path().join("next"), folder.path().join(name)).unwrap();
    };
    put("me.pem", "client.pem");
    put("me.key", "client-pkcs8.pem");
    let mut config = with_tls(&cluster);
    config.ssl_certificate_location = folder.path().join("me.pem").display().to_string();
    config.ssl_key_location = folder.path().join("me.key").display().to_string();
    let producer = Producer::build(config).unwrap();
    let mut books = Books::default();
    books.send_many(&producer, "t", 50, 3).await;
    assert!(producer.flush(LONG).await);

    // Half of the change, then all of it: connections end while events are on their way.
    let [former, latter] = ["client.pem", "client-rsa.pem"].map(|it| CertificateDer::from_pem_file(file(it)).unwrap());
    for (name, from, expected) in [("me.pem", "client-rsa.pem", &former), ("me.key", "client-rsa-pkcs1.pem", &latter)] {
        books.send_many(&producer, "t", 50, 3).await;
        put(name, from);
        shown.lock().unwrap().clear();
        cluster.kill(1).await;
        books.send_many(&producer, "t", 50, 3).await;
        cluster.restart(1).unwrap();
        books.send_many(&producer, "t", 50, 3).await;
        assert!(producer.flush(LONG).await);
        let shown = shown.lock().unwrap();
        assert!(!shown.is_empty() && shown.iter().all(|it| it == expected), "{name}: {} connections", shown.len());
    }
    books.all_delivered(&cluster, "t").await;
}

/// The authorities of an operating system are a process's environment: this one runs itself with another.
#[test]
fn ssl_roots_trusts_the_systems_authorities_if_so_asked() {
    const ITSELF: &str = "ssl_roots_trusts_the_systems_authorities_if_so_asked";
    if std::env::var_os("SSL_CERT_FILE").is_none_or(|roots| roots != *text("ca.pem")) {
        let itself = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", ITSELF, "--test-threads", "1"])
            .env("SSL_CERT_FILE", text("ca.pem"))
            .env_remove("SSL_CERT_DIR")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&itself.stdout).into_owned();
        assert!(itself.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let cluster = cluster("server", false).await;
        let mut config = with_tls(&cluster);
        config.ssl_ca_location = String::new();
        refused(&cluster, config.clone(), &["unknown issuer"]).await;
        config.ssl_roots = SslRoots::System;
        delivers(&cluster, config).await;
    });
}

#[test]
fn what_is_wrong_with_options_with_files_and_with_the_place_is_told_together() {
    let secured = Builder::default()
        .flush_messages("many")
        .max_in_flight(6)
        .security_protocol("SASL_SSL")
        .sasl_mechanism("OAUTHBEARER")
        .sasl_oauthbearer_token_location("/tmp/nowhere/token")
        .ssl_ca_location("/nowhere/ca.pem");
    let found = secured.build().unwrap_err().0;
    let expected = [
        "flush_messages is \"many\"",
        "max_in_flight is 6",
        "sasl_oauthbearer_token_location: /tmp/nowhere/token",
        "ssl_ca_location: /nowhere/ca.pem",
        "no tokio runtime here",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    assert!(found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected)), "{found:#?}");
}
