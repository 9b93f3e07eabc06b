//! TLS by rustls, with a provider of cryptography that needs no C compiler.
//!
//! Rules:
//! - Files are looked at whenever a connection is made and metadata is asked for; what has changed is taken over whole,
//!   or not at all: a file that is broken, or does not fit the others yet, leaves what was there, and is told of as an error
//!   once.
//! - Connections that are open go on with what they were made with.

mod errors;
mod files;
mod provider;

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use self::files::{Files, Stamp};
use super::TlsSettings;
use crate::core::Reason;
use crate::driver::stream::Io;

/// Settings, and what was made of them.
pub(super) struct Tls {
    settings: TlsSettings,
    provider: Arc<CryptoProvider>,
    loaded: Mutex<Loaded>,
}

struct Loaded {
    config: Arc<ClientConfig>,
    /// The files' state when they were last read, well or not.
    seen: Stamp,
}

impl Tls {
    /// Checks the CPU and reads the files.
    pub(super) fn load(settings: TlsSettings) -> Result<Self, Vec<String>> {
        let provider = provider::provider().map_err(|why| vec![why])?;
        let seen = Stamp::of(&settings);
        let config = configure(&settings, &provider)?;
        Ok(Self { settings, provider, loaded: Mutex::new(Loaded { config, seen }) })
    }

    /// Reads the files again, if they have changed.
    pub(super) fn refresh(&self) {
        let mut loaded = self.loaded.lock();
        let seen = Stamp::of(&self.settings);
        if loaded.seen == seen {
            return;
        }
        loaded.seen = seen;
        match configure(&self.settings, &self.provider) {
            Ok(config) => {
                loaded.config = config;
                tracing::info!("the certificates were read again: new connections use them");
            }
            Err(problems) => {
                let why = problems.join("; ");
                tracing::error!(why, "the certificates have changed and can't be used: those from before stay");
            }
        }
    }

    /// Opens TLS to `host` on a connection.
    pub(super) async fn connect(&self, host: &str, port: u16, tcp: TcpStream) -> Result<Box<dyn Io>, Reason> {
        self.refresh();
        let config = self.loaded.lock().config.clone();
        if self.settings.insecure_skip_verify {
            tracing::warn!(
                broker = %format_args!("{host}:{port}"),
                "insecure_skip_verify: the broker's certificate is not verified; anyone in between can read and change events"
            );
        }
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Reason::Tls(format!("{host}:{port}: a certificate can't bear such a name").into()))?;
        match TlsConnector::from(config).connect(name, tcp).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(self.failure(host, port, &error).unwrap_or_else(|| {
                Reason::NotAvailable(format!("{host}:{port}: the TLS handshake: {error}; does it speak TLS?").into())
            })),
        }
    }

    /// What TLS has against a connection, if that is why `error` came up.
    pub(super) fn failure(&self, host: &str, port: u16, error: &(dyn Error + 'static)) -> Option<Reason> {
        let error = errors::find(error)?;
        let why = format!("{host}:{port}: {}", errors::describe(error, self.settings.client.is_some())).into();
        Some(if errors::is_verdict(error) { Reason::Tls(why) } else { Reason::NotAvailable(why) })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn configure(settings: &TlsSettings, provider: &Arc<CryptoProvider>) -> Result<Arc<ClientConfig>, Vec<String>> {
    let files = Files::read(settings)?;
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| vec![error.to_string()])?;
    let builder = match settings.insecure_skip_verify {
        true => builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider.clone()))),
        false => builder.with_root_certificates(files.roots),
    };
    let config = match files.client {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| {
            let key = settings.client.as_ref().map(|client| client.key.display().to_string()).unwrap_or_default();
            vec![format!(
                "ssl_key_location: {key} can't be used with the certificate: {error} (it must be that certificate's key: \
                 RSA, ECDSA on P-256 or P-384, or Ed25519)"
            )]
        })?,
    };
    Ok(Arc::new(config))
}

/// Takes any server for the right one; that its key signs the handshake is checked all the same.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
