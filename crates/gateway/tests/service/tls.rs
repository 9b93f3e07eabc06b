//! TLS of the address for events, with the certificates of the facade's tests.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{Client, JSON, LOGIN, Reply, SECRET, Service, cluster};
use kafka_courier_gateway::GatewayConfig;

fn pem(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../kafka-courier/tests/tls").join(name)
}

/// Connects as a client that trusts the tests' authority, and expects a certificate for `name`.
async fn connect(address: SocketAddr, name: &'static str, protocol: &str) -> std::io::Result<TlsStream<TcpStream>> {
    connect_as(None, address, name, protocol).await
}

/// Connects with the certificate and the key of these files.
async fn connect_as(
    own: Option<(&str, &str)>,
    address: SocketAddr,
    name: &'static str,
    protocol: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pem("ca.pem")).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls_graviola::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_file(pem(certificate)).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(pem(key)).unwrap()).unwrap()
        }
    };
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

const CLIENT: Option<(&str, &str)> = Some(("client.pem", "client-pkcs8.pem"));
/// A certificate that its owner has signed.
const SELF_SIGNED: Option<(&str, &str)> = Some(("self-signed.pem", "self-signed-key.pem"));

fn with_server_certificate(config: &mut GatewayConfig) {
    config.tls_certificate = pem("server.pem").display().to_string();
    config.tls_key = pem("server-key.pem").display().to_string();
    config.tls_client_ca = pem("ca.pem").display().to_string();
}

/// Posts an event on a new connection. `None` if the service refuses the connection.
async fn post_as(service: &Service, own: Option<(&str, &str)>, headers: &str) -> Option<Reply> {
    let stream = connect_as(own, service.server.address(), RENEWED, "http/1.1").await.ok()?;
    let mut client = Client::over(stream);
    // The refusal of a certificate follows the handshake of the client (TLS 1.3).
    client.try_post("/v1/events", &format!("{JSON}{headers}"), LOGIN).await
}

#[tokio::test]
async fn certificate_is_required_without_tokens() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, with_server_certificate).await;
    post_as(&service, CLIENT, "").await.unwrap().expect(200);
    assert!(post_as(&service, None, "").await.is_none(), "no certificate");
    assert!(post_as(&service, SELF_SIGNED, "").await.is_none(), "another authority");
    assert_eq!(cluster.records("user-events").len(), 1);
}

#[tokio::test]
async fn certificate_or_token_names_the_client() {
    let cluster = cluster().await;
    let tokens = format!("cert certificate=client topics=none\nbilling {SECRET}\n");
    let (service, _folder) = Service::with_tokens(&cluster, &tokens, with_server_certificate).await;
    post_as(&service, CLIENT, "").await.unwrap().expect_problem(403, "topic-not-allowed");
    post_as(&service, None, "").await.unwrap().expect_problem(401, "unauthenticated");
    let token = "authorization: Bearer secret\r\n";
    post_as(&service, None, token).await.unwrap().expect(200);
    post_as(&service, CLIENT, token).await.unwrap().expect(200);
    assert!(post_as(&service, SELF_SIGNED, token).await.is_none(), "a certificate is checked if there is one");
}

#[tokio::test]
async fn authority_of_clients_is_replaced() {
    let cluster = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("ca.pem");
    std::fs::copy(pem("other-ca.pem"), &authority).unwrap();
    let service = Service::start(&cluster, |config| {
        with_server_certificate(config);
        config.tls_client_ca = authority.display().to_string();
    })
    .await;
    assert!(post_as(&service, CLIENT, "").await.is_none());
    std::fs::copy(pem("ca.pem"), &authority).unwrap();
    let accepted = async { while post_as(&service, CLIENT, "").await.is_none() {} };
    tokio::time::timeout(crate::support::LONG, accepted).await.unwrap();
}
