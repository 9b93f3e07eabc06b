//! TLS by rustls, with a cryptography provider that needs no C compiler.
//!
//! Rules:
//! - Files are checked for changes at each new connection and each metadata request. Changed files are loaded as a
//!   whole or not at all. An invalid file, or one that does not match the others yet, keeps the loaded files in use,
//!   and is logged once as an error.
//! - Open connections keep the files that they were opened with.

mod errors;
mod files;
mod keys;
mod pem;
mod provider;
mod setup_error;
mod verifier;

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use self::files::{FileStates, TlsFiles};
pub(super) use self::provider::provider;
pub(super) use self::setup_error::TlsSetupError;
use self::verifier::{AcceptAnyServer, BrokerVerifier};
use super::settings::TlsSettings;
use crate::reason::Reason;
use crate::stream::ByteStream;

/// The settings, and the configuration that was loaded from them.
pub(super) struct Tls {
    settings: TlsSettings,
    provider: Arc<CryptoProvider>,
    loaded: Mutex<Loaded>,
}

struct Loaded {
    config: Arc<ClientConfig>,
    /// The files' state at the last read, successful or not.
    seen: FileStates,
}

impl Tls {
    /// Checks the CPU, and reads the files.
    pub(super) fn load(settings: TlsSettings) -> Result<Self, Vec<TlsSetupError>> {
        let provider = provider().map_err(|error| vec![error])?;
        let seen = FileStates::of(&settings);
        let config = configure(&settings, &provider)?;
        Ok(Self { settings, provider, loaded: Mutex::new(Loaded { config, seen }) })
    }

    /// Reads the files again if they have changed.
    pub(super) fn refresh(&self) {
        let mut loaded = self.loaded.lock();
        let seen = FileStates::of(&self.settings);
        if loaded.seen == seen {
            return;
        }
        loaded.seen = seen;
        match configure(&self.settings, &self.provider) {
            Ok(config) => {
                loaded.config = config;
                tracing::info!("certificates reloaded");
            }
            Err(problems) => {
                let why = problems
                    .iter()
                    .map(|problem| format!("{}{problem}", problem.option()))
                    .collect::<Vec<_>>()
                    .join("; ");
                tracing::error!(why, "certificate reload failed, the earlier certificates stay in use");
            }
        }
    }

    /// Performs the TLS handshake with `host` on a connection.
    pub(super) async fn connect(&self, host: &str, port: u16, tcp: TcpStream) -> Result<Box<dyn ByteStream>, Reason> {
        self.refresh();
        let config = self.loaded.lock().config.clone();
        if self.settings.insecure_skip_verify {
            tracing::warn!(
                broker = %format_args!("{host}:{port}"),
                "broker certificate not verified: insecure_skip_verify is on, traffic can be read and changed"
            );
        }
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Reason::Tls(format!("{host}:{port}: not a valid host name for a certificate").into()))?;
        match TlsConnector::from(config).connect(name, tcp).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(self.failure(host, port, &error).unwrap_or_else(|| {
                let remedy = "check that this port has TLS, and security_protocol";
                Reason::NotAvailable(format!("{host}:{port}: the TLS handshake failed: {error}: {remedy}").into())
            })),
        }
    }

    /// Returns why TLS failed, if a TLS error is among the causes of `error`.
    pub(super) fn failure(&self, host: &str, port: u16, error: &(dyn Error + 'static)) -> Option<Reason> {
        let error = errors::find(error)?;
        let why = format!("{host}:{port}: {}", errors::describe(error, self.settings.client.is_some())).into();
        Some(if errors::is_permanent(error) { Reason::Tls(why) } else { Reason::NotAvailable(why) })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn configure(settings: &TlsSettings, provider: &Arc<CryptoProvider>) -> Result<Arc<ClientConfig>, Vec<TlsSetupError>> {
    let files = TlsFiles::read(settings, provider)?;
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| vec![TlsSetupError::Library(error.to_string())])?
        .dangerous();
    let builder = match settings.insecure_skip_verify {
        true => builder.with_custom_certificate_verifier(Arc::new(AcceptAnyServer(provider.clone()))),
        false => {
            let verifier = BrokerVerifier::new(files.roots, provider)
                .map_err(|error| vec![TlsSetupError::Library(error.to_string())])?;
            builder.with_custom_certificate_verifier(Arc::new(verifier))
        }
    };
    let config = match files.client {
        None => builder.with_no_client_auth(),
        Some(client) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(client))),
    };
    Ok(Arc::new(config))
}
