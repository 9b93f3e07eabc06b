//! Unusable certificates and keys. Each message names the cause and the remedy.

use std::io;
use std::sync::Arc;

use crate::support::tls::{
    assert_refused, cluster, cluster_with_acceptor, pem_path, tls_config, with_client_certificate,
};
use crate::support::{LONG, Producer, PublishedRecords};
use kafka_courier_test_broker::{Layer, TestCluster};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{ServerConfig, SignatureAlgorithm, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

#[tokio::test]
async fn nameless_certificate_is_explained() {
    let cluster = cluster("unnamed", false).await;
    assert_refused(&cluster, tls_config(&cluster), &["has no names", "not for 127.0.0.1", "subjectAltName"]).await;
}

#[tokio::test]
async fn address_as_dns_name_is_explained() {
    let cluster = cluster("ip-as-dns", false).await;
    assert_refused(&cluster, tls_config(&cluster), &["address 127.0.0.1 as a DNS name", "subjectAltName=IP:127.0.0.1"])
        .await;
}

/// A key whose signatures are invalid. The client checks the certificate first.
#[derive(Clone, Copy, Debug)]
struct FakeKey(SignatureScheme);

impl Signer for FakeKey {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(vec![0; 70])
    }

    fn scheme(&self) -> SignatureScheme {
        self.0
    }
}

impl SigningKey for FakeKey {
    fn choose_scheme(&self, _: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(*self))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

/// Shows the same certificate to every client.
#[derive(Debug)]
struct FixedCertificate(Arc<CertifiedKey>);

impl ResolvesServerCert for FixedCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// Starts a broker with a certificate whose key graviola cannot use for signing.
async fn cluster_showing(certificate: &str) -> TestCluster {
    let provider = Arc::new(rustls_graviola::default_provider());
    let chain = vec![CertificateDer::from_pem_file(pem_path(certificate)).unwrap()];
    let shown = CertifiedKey::new(chain, Arc::new(FakeKey(SignatureScheme::ECDSA_NISTP256_SHA256)));
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let server = builder.with_no_client_auth().with_cert_resolver(Arc::new(FixedCertificate(Arc::new(shown))));
    cluster_with_acceptor(TlsAcceptor::from(Arc::new(server))).await
}

#[tokio::test]
async fn unusable_broker_key_is_named() {
    for (certificate, kind) in [("server-p521.pem", "ECDSA on P-521"), ("server-rsa1024.pem", "RSA of 1024 bits")] {
        let cluster = cluster_showing(certificate).await;
        assert_refused(&cluster, tls_config(&cluster), &[kind, "can't be verified here", "RSA of 2048"]).await;
    }
}

#[tokio::test]
async fn version_one_certificate_is_explained() {
    let cluster = cluster_showing("server-v1.pem").await;
    let why = ["X.509 version 1", "have it issued", "subjectAltName"];
    assert_refused(&cluster, tls_config(&cluster), &why).await;
}

/// Starts a broker that answers each ClientHello with the alert `handshake_failure`, as a broker whose only key is on
/// P-521 does.
async fn cluster_refusing_handshakes() -> TestCluster {
    let layer = Layer::new(|mut tcp: TcpStream| async move {
        let mut header = [0; 5];
        tcp.read_exact(&mut header).await?;
        let mut greeting = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
        tcp.read_exact(&mut greeting).await?;
        tcp.write_all(b"\x15\x03\x03\x00\x02\x02\x28").await?; // fatal, handshake_failure (RFC 8446, 6)
        Err::<TcpStream, _>(io::Error::other("refused"))
    });
    TestCluster::builder().topic("t", 2).layer(layer).start().await.unwrap()
}

#[tokio::test]
async fn refused_handshake_names_all_causes() {
    let cluster = cluster_refusing_handshakes().await;
    let causes = ["the broker's own key", "ECDSA on P-256 or P-384", "TLS 1.2 or 1.3", "HandshakeFailure"];
    assert_refused(&cluster, tls_config(&cluster), &[&causes[..], &["set ssl_certificate_location"]].concat()).await;
    let known = with_client_certificate(tls_config(&cluster), "client.pem", "client-pkcs8.pem");
    assert_refused(&cluster, known, &[&causes[..], &["check ssl_certificate_location"]].concat()).await;
}

#[tokio::test]
async fn unusable_client_keys_are_refused() {
    let cluster = cluster("server", true).await;
    for (name, kind) in [
        ("client-p521", "ECDSA on P-521"),
        ("client-rsa1024", "RSA of 1024 bits"),
        ("client-rsa2200", "RSA of 2200 bits"),
        ("client-rsa3000", "RSA of 3000 bits"),
        ("client-rsa4000", "RSA of 4000 bits"),
    ] {
        let config = with_client_certificate(tls_config(&cluster), &format!("{name}.pem"), &format!("{name}-key.pem"));
        let error = Producer::build(config).unwrap_err().to_string();
        for word in ["ssl_key_location", &format!("{name}-key.pem"), kind, "2048, 3072 or 4096"] {
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}

#[tokio::test]
async fn chain_in_wrong_order_is_explained() {
    let cluster = cluster("server", true).await;
    let folder = tempfile::tempdir().unwrap();
    let chain = folder.path().join("chain.pem");
    let certificate = |name: &str| std::fs::read_to_string(pem_path(name)).unwrap();
    let config = || {
        let mut config = with_client_certificate(tls_config(&cluster), "client.pem", "client-pkcs8.pem");
        config.ssl_certificate_location = chain.display().to_string();
        config
    };
    std::fs::write(&chain, certificate("ca.pem") + &certificate("client.pem")).unwrap();
    let error = Producer::build(config()).unwrap_err().to_string();
    for word in ["chain.pem", "wrong order", "number 2", "put it first"] {
        assert!(error.contains(word), "{word}: {error}");
    }
    std::fs::write(&chain, certificate("client.pem") + &certificate("ca.pem")).unwrap();
    let producer = Producer::build(config()).unwrap();
    producer.health_check(LONG).await.unwrap();
}

#[tokio::test]
async fn byte_order_marks_are_skipped() {
    let cluster = cluster("server", true).await;
    let folder = tempfile::tempdir().unwrap();
    let marked = |name: &str| {
        let path = folder.path().join(name);
        let text = std::fs::read_to_string(pem_path(name)).unwrap().replace('\n', "\r\n");
        std::fs::write(&path, format!("\u{feff}{text}")).unwrap();
        path.display().to_string()
    };
    let mut config = tls_config(&cluster);
    config.ssl_ca_location = marked("ca.pem");
    config.ssl_certificate_location = marked("client.pem");
    config.ssl_key_location = marked("client-pkcs8.pem");
    let producer = Producer::build(config).unwrap();
    let mut published = PublishedRecords::default();
    published.send_many(&producer, "t", 20, 3).await;
    published.assert_delivered(&cluster, "t").await;
}
