//! Brokers and producers that use TLS, with the certificates in `tests/tls`.
#![allow(dead_code, reason = "each test binary uses a part of this module")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
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

use super::{LONG, Producer, config, record};

pub(crate) fn pem_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
}

pub(crate) fn pem_path_text(name: &str) -> String {
    pem_path(name).display().to_string()
}

/// Starts a broker with this certificate. `wants_client` makes the broker require a client certificate.
pub(crate) async fn cluster(certificate: &str, wants_client: bool) -> TestCluster {
    cluster_with_acceptor(acceptor(certificate, wants_client)).await
}

/// Starts a broker that accepts TLS connections with `acceptor`.
pub(crate) async fn cluster_with_acceptor(acceptor: TlsAcceptor) -> TestCluster {
    let layer = Layer::new(move |tcp| {
        let acceptor = acceptor.clone();
        async move { acceptor.accept(tcp).await.map_err(io::Error::other) }
    });
    TestCluster::builder().topic("t", 2).layer(layer).start().await.unwrap()
}

pub(crate) fn acceptor(certificate: &str, wants_client: bool) -> TlsAcceptor {
    let provider = Arc::new(rustls_graviola::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pem_path("ca.pem")).unwrap()).unwrap();
    let verifier = match wants_client {
        true => WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap(),
        false => WebPkiClientVerifier::no_client_auth(),
    };
    let chain = vec![CertificateDer::from_pem_file(pem_path(&format!("{certificate}.pem"))).unwrap()];
    let key = PrivateKeyDer::from_pem_file(pem_path(&format!("{certificate}-key.pem"))).unwrap();
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let server = builder.with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
    TlsAcceptor::from(Arc::new(server))
}

pub(crate) fn tls_config(cluster: &TestCluster) -> KafkaConfig {
    let mut config = config(cluster);
    config.security_protocol = SecurityProtocol::Ssl;
    config.ssl_ca_location = pem_path_text("ca.pem");
    config
}

pub(crate) fn with_client_certificate(mut config: KafkaConfig, certificate: &str, key: &str) -> KafkaConfig {
    config.ssl_certificate_location = pem_path_text(certificate);
    config.ssl_key_location = pem_path_text(key);
    config
}

/// Asserts that the producer refuses the broker: health check and event fail immediately with `why`, and the broker
/// receives no request.
pub(crate) async fn assert_refused(cluster: &TestCluster, config: KafkaConfig, why: &[&str]) {
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
