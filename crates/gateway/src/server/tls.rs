//! TLS of the address for events.
//!
//! Rules:
//! - Changed files are loaded as a whole or not at all. Files that are invalid, or do not fit each other yet, change nothing.
//! - Files are read again until they are valid, also if they have not changed. One warning stands for equal failures.
//! - Open connections keep their certificate.
//! - An error names the file, and shows no part of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use zeroize::Zeroizing;

use super::ServeError;
use crate::options::GatewayConfig;

/// The TLS of a listener.
pub(super) struct ServerTls {
    acceptor: TlsAcceptor,
    files: Arc<CertificateFiles>,
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls").field("files", &self.files).finish_non_exhaustive()
    }
}

/// The files of the certificate, and the certificate that new connections get.
#[derive(Debug)]
struct CertificateFiles {
    certificate: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<CertifiedKey>>,
    /// The last reads.
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    /// The files of the current certificate.
    states: FileStates,
    /// The last failure since then.
    error: Option<String>,
}

type FileStates = [Option<(SystemTime, u64)>; 2];

impl ResolvesServerCert for CertificateFiles {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().clone())
    }
}

impl ServerTls {
    /// Reads the files. `None` if the options name none.
    pub(super) fn open(config: &GatewayConfig) -> Result<Option<Arc<Self>>, ServeError> {
        if config.tls_certificate.is_empty() {
            return Ok(None);
        }
        let failed = |why| ServeError::File { option: "tls_certificate, tls_key", why };
        let provider = kafka_courier::tls_provider().map_err(failed)?;
        let (certificate, key) = (PathBuf::from(&config.tls_certificate), PathBuf::from(&config.tls_key));
        let seen = Mutex::new(Seen { states: states(&certificate, &key), error: None });
        let current = RwLock::new(Arc::new(read(&certificate, &key, &provider).map_err(failed)?));
        let files = Arc::new(CertificateFiles { certificate, key, provider: provider.clone(), current, seen });
        let builder = ServerConfig::builder_with_provider(provider);
        let versions = builder.with_safe_default_protocol_versions().map_err(|error| failed(error.to_string()))?;
        let mut server = versions.with_no_client_auth().with_cert_resolver(files.clone());
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Some(Arc::new(Self { acceptor: TlsAcceptor::from(Arc::new(server)), files })))
    }

    /// Does the handshake of a connection.
    pub(super) async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        self.acceptor.accept(stream).await
    }

    /// Reads the files again if they have changed. Blocks.
    pub(super) fn reload(&self) {
        let CertificateFiles { certificate, key, provider, current, seen } = &*self.files;
        let now = states(certificate, key);
        let mut seen = seen.lock();
        if seen.states == now {
            seen.error = None;
            return;
        }
        match read(certificate, key, provider) {
            Ok(changed) => {
                *current.write() = Arc::new(changed);
                *seen = Seen { states: now, error: None };
                tracing::info!(certificate = %certificate.display(), "certificate changed");
            }
            Err(error) if seen.error.as_ref() == Some(&error) => {}
            Err(error) => {
                tracing::warn!(error, "tls_certificate is invalid, and the former certificate stays");
                seen.error = Some(error);
            }
        }
    }
}

fn states(certificate: &Path, key: &Path) -> FileStates {
    [certificate, key].map(|path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}

/// Reads certificate and key, and checks that they fit each other.
fn read(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let bytes = |path: &Path| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(&bytes(certificate)?).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let chain = chain.ok_or_else(|| format!("{}: holds no certificate in PEM", certificate.display()))?;
    let pem = Zeroizing::new(bytes(key)?);
    let no_key = || format!("{}: holds no private key in PEM that is not encrypted", key.display());
    let private = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| no_key())?;
    // The error of rustls may show a part of the key.
    let pair = CertifiedKey::from_der(chain, private, provider);
    pair.map_err(|_| format!("{}: the key is unusable, or is not that of {}", key.display(), certificate.display()))
}
