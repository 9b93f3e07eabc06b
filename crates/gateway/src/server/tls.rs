//! TLS of the address for events.
//!
//! Rules:
//! - Changed files are loaded as a whole or not at all. Files that are invalid, or do not fit each other yet, change nothing.
//! - Files are read again until they are valid, also if they have not changed. One warning stands for equal failures.
//! - Open connections keep their certificates.
//! - An error names the file, and shows no part of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use zeroize::Zeroizing;

use super::ServeError;
use crate::options::GatewayConfig;
use crate::shapes::certificate::CertificateNames;

/// The TLS of a listener.
pub(super) struct ServerTls {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    /// The TLS of new connections.
    acceptor: RwLock<TlsAcceptor>,
    /// The last reads.
    seen: Mutex<Seen>,
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls").field("files", &self.files).finish_non_exhaustive()
    }
}

/// The files of a listener's TLS.
#[derive(Debug)]
struct TlsFiles {
    certificate: PathBuf,
    key: PathBuf,
    clients: Option<ClientAuthority>,
}

/// The authorities of clients' certificates.
#[derive(Debug)]
struct ClientAuthority {
    file: PathBuf,
    /// Whether a client without a certificate may connect, because it may have a token.
    is_optional: bool,
}

#[derive(Debug)]
struct Seen {
    /// The files of the current certificate.
    states: FileStates,
    /// The last failure since then.
    error: Option<String>,
}

type FileStates = [Option<(SystemTime, u64)>; 3];

impl ServerTls {
    /// Reads the files. `None` if the options name none.
    pub(super) fn open(config: &GatewayConfig) -> Result<Option<Arc<Self>>, ServeError> {
        if config.tls_certificate.is_empty() {
            return Ok(None);
        }
        let failed = |why| ServeError::File { option: "tls_certificate, tls_key, tls_client_ca", why };
        let provider = kafka_courier::tls_provider().map_err(failed)?;
        let clients = (!config.tls_client_ca.is_empty()).then(|| ClientAuthority {
            file: PathBuf::from(&config.tls_client_ca),
            is_optional: !config.tokens_file.is_empty(),
        });
        let files = TlsFiles {
            certificate: PathBuf::from(&config.tls_certificate),
            key: PathBuf::from(&config.tls_key),
            clients,
        };
        let seen = Mutex::new(Seen { states: files.states(), error: None });
        let acceptor = RwLock::new(files.read(&provider).map_err(failed)?);
        Ok(Some(Arc::new(Self { files, provider, acceptor, seen })))
    }

    /// Does the handshake of a connection.
    pub(super) async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let acceptor = self.acceptor.read().clone();
        acceptor.accept(stream).await
    }

    /// Reads the files again if they have changed. Blocks.
    pub(super) fn reload(&self) {
        let now = self.files.states();
        let mut seen = self.seen.lock();
        if seen.states == now {
            seen.error = None;
            return;
        }
        match self.files.read(&self.provider) {
            Ok(changed) => {
                *self.acceptor.write() = changed;
                *seen = Seen { states: now, error: None };
                tracing::info!(certificate = %self.files.certificate.display(), "certificates changed");
            }
            Err(error) if seen.error.as_ref() == Some(&error) => {}
            Err(error) => {
                tracing::warn!(error, "the files of TLS are invalid, and the former certificates stay");
                seen.error = Some(error);
            }
        }
    }
}

impl TlsFiles {
    fn states(&self) -> FileStates {
        let clients = self.clients.as_ref().map(|clients| &clients.file);
        [Some(&self.certificate), Some(&self.key), clients].map(|path| {
            let metadata = fs::metadata(path?).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
    }

    /// Reads all files, and checks that certificate and key fit each other. No session of the former files is resumed.
    fn read(&self, provider: &Arc<CryptoProvider>) -> Result<TlsAcceptor, String> {
        let pair = read_pair(&self.certificate, &self.key, provider)?;
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let roots = Arc::new(read_roots(&clients.file)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
                let verifier = if clients.is_optional { verifier.allow_unauthenticated() } else { verifier };
                let built = verifier.build().map_err(|error| format!("{}: {error}", clients.file.display()));
                builder.with_client_cert_verifier(built?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// Returns the names in the verified certificate of a client, if it has shown one.
pub(super) fn client_names(stream: &TlsStream<TcpStream>) -> Option<Arc<CertificateNames>> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    CertificateNames::read(certificate).map(Arc::new)
}

fn bytes_of(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Reads the certificates of a file.
fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes_of(path)?).collect();
    let read = read.ok().filter(|read| !read.is_empty());
    read.ok_or_else(|| format!("{}: holds no certificate in PEM", path.display()))
}

fn read_roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        let added = roots.add(certificate);
        added.map_err(|_| format!("{}: holds a certificate that is no authority's", path.display()))?;
    }
    Ok(roots)
}

/// Reads certificate and key, and checks that they fit each other.
fn read_pair(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let chain = read_certificates(certificate)?;
    let pem = Zeroizing::new(bytes_of(key)?);
    let no_key = || format!("{}: holds no private key in PEM that is not encrypted", key.display());
    let private = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| no_key())?;
    // The error of rustls may show a part of the key.
    let pair = CertifiedKey::from_der(chain, private, provider);
    pair.map_err(|_| format!("{}: the key is unusable, or is not that of {}", key.display(), certificate.display()))
}
