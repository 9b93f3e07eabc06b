//! TLS of the address for events, with the certificates of the facade's tests.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{Client, JSON, LOGIN, Service, cluster};

fn pem(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../kafka-courier/tests/tls").join(name)
}

/// Connects as a client that trusts the tests' authority, and expects a certificate for `name`.
async fn connect(address: SocketAddr, name: &'static str, protocol: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pem("ca.pem")).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls_graviola::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let tcp = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name).unwrap(), tcp).await
}

const FIRST: &str = "kafka.example";
const RENEWED: &str = "localhost";

#[tokio::test]
async fn certificate_is_replaced_while_serving() {
    let cluster = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("tls.pem"), folder.path().join("key.pem"));
    let copy = |from: &str, to: &Path| _ = std::fs::copy(pem(from), to).unwrap();
    copy("wrong-name.pem", &certificate);
    copy("wrong-name-key.pem", &key);
    let service = Service::start(&cluster, |config| {
        config.tls_certificate = certificate.display().to_string();
        config.tls_key = key.display().to_string();
    })
    .await;
    let address = service.server.address();
    let mut old = Client::over(connect(address, FIRST, "http/1.1").await.unwrap());
    old.post("/v1/events", JSON, LOGIN).await.expect(200);
    let http2 = connect(address, FIRST, "h2").await.unwrap();
    assert_eq!(http2.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    copy("server-key.pem", &key); // the certificate does not fit yet
    copy("server.pem", &certificate);
    let renewed = async {
        loop {
            if let Ok(stream) = connect(address, RENEWED, "http/1.1").await {
                return stream;
            }
            let former = connect(address, FIRST, "http/1.1").await;
            if let Ok(stream) = former {
                Client::over(stream).post("/v1/events", JSON, LOGIN).await.expect(200);
            }
        }
    };
    let stream = tokio::time::timeout(crate::support::LONG, renewed).await.unwrap();
    Client::over(stream).post("/v1/events", JSON, LOGIN).await.expect(200);
    old.post("/v1/events", JSON, LOGIN).await.expect(200);
}

#[tokio::test]
async fn plain_clients_are_cut() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |config| {
        config.tls_certificate = pem("server.pem").display().to_string();
        config.tls_key = pem("server-key.pem").display().to_string();
    })
    .await;
    let mut client = service.connect().await;
    client.send("GET / HTTP/1.1\r\n\r\n").await;
    let _ = client.closed_bytes().await;
    assert!(cluster.records("user-events").is_empty());
}
