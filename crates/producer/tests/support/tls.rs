//! Brokers and producers that speak TLS, with the certificates in `tests/tls`.
#![allow(dead_code)] // each test file uses its own part
#![allow(clippy::unwrap_used)] // helpers of tests may, as tests do
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kafka_courier::{KafkaConfig, PublishError, Reason, SecurityProtocol};
use kafka_courier_test_broker::{ApiKey, Layer, TestCluster};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::support::{LONG, Producer, config, record};

pub(crate) fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
}

pub(crate) fn text(name: &str) -> String {
    file(name).display().to_string()
}

/// A broker with that certificate, which wants one from its clients too if so asked.
pub(crate) async fn cluster(certificate: &str, wants_client: bool) -> TestCluster {
    cluster_behind(acceptor(certificate, wants_client)).await
}

/// A broker that speaks TLS by that acceptor.
pub(crate) async fn cluster_behind(acceptor: TlsAcceptor) -> TestCluster {
    let layer = Layer::new(move |tcp| {
        let acceptor = acceptor.clone();
        async move { acceptor.accept(tcp).await.map_err(io::Error::other) }
    });
    TestCluster::builder().topic("t", 2).layer(layer).start().await.unwrap()
}

pub(crate) fn acceptor(certificate: &str, wants_client: bool) -> TlsAcceptor {
    let provider = Arc::new(rustls_graviola::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("ca.pem")).unwrap()).unwrap();
    let verifier = match wants_client {
        true => WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap(),
        false => WebPkiClientVerifier::no_client_auth(),
    };
    let chain = vec![CertificateDer::from_pem_file(file(&format!("{certificate}.pem"))).unwrap()];
    let key = PrivateKeyDer::from_pem_file(file(&format!("{certificate}-key.pem"))).unwrap();
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let server = builder.with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
    TlsAcceptor::from(Arc::new(server))
}

pub(crate) fn with_tls(cluster: &TestCluster) -> KafkaConfig {
    let mut config = config(cluster);
    config.security_protocol = SecurityProtocol::Ssl;
    config.ssl_ca_location = text("ca.pem");
    config
}

pub(crate) fn as_client(mut config: KafkaConfig, certificate: &str, key: &str) -> KafkaConfig {
    config.ssl_certificate_location = text(certificate);
    config.ssl_key_location = text(key);
    config
}

/// Nothing is trusted: the health check and each event say why, at once, and nothing was said to the broker.
pub(crate) async fn refused(cluster: &TestCluster, config: KafkaConfig, why: &[&str]) {
    let producer = Producer::build(config).unwrap();
    let error = producer.health_check(LONG).await.unwrap_err();
    assert!(error.is_refusal(), "{error}");
    let event = producer.send(&record("t", "k", "v")).await.unwrap_err();
    assert!(matches!(&event, PublishError::Topic { reason: Reason::Tls(_), .. }) && !event.is_retriable(), "{event}");
    for word in why {
        assert!(error.to_string().contains(word) && event.to_string().contains(word), "{word}: {error}");
    }
    assert_eq!(cluster.requests(ApiKey::ApiVersions), 0);
}
