//! TLS by rustls, with a provider of cryptography that needs no C compiler.
//!
//! Rules:
//! - Files are looked at whenever a connection is made and metadata is asked for; what has changed is taken over whole,
//!   or not at all: a file that is broken, or does not fit the others yet, leaves what was there, and is told of as an error
//!   once.
//! - Connections that are open go on with what they were made with.

mod errors;
mod files;
mod keys;
mod pem;
mod provider;
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

use self::files::{Files, Stamp};
use self::verifier::{AnyServer, Verifying};
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
    let files = Files::read(settings, provider)?;
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| vec![error.to_string()])?
        .dangerous();
    let builder = match settings.insecure_skip_verify {
        true => builder.with_custom_certificate_verifier(Arc::new(AnyServer(provider.clone()))),
        false => {
            let verifier = Verifying::new(files.roots, provider).map_err(|why| vec![why])?;
            builder.with_custom_certificate_verifier(Arc::new(verifier))
        }
    };
    let config = match files.client {
        None => builder.with_no_client_auth(),
        Some(client) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(client))),
    };
    Ok(Arc::new(config))
}
