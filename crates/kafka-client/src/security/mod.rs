//! The security of connections: TLS below, SASL above.
//!
//! Rules:
//! - [`ConnectionSecurity::new`] finds errors in settings and files, before anything is sent.
//! - A refusal by the cluster is permanent. Its error names the broker and the mechanism, and never contains a
//!   secret.
//! - Brokers' certificates are verified, unless verification is off. Each connection then logs a warning.
//! - This parent imports its children. A child imports other children, never this parent.

#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
mod tls;
#[cfg(feature = "tls")]
mod tls;

mod sasl;
mod scram;
mod settings;
mod token;

use std::sync::Arc;

use tokio::net::TcpStream;

pub(crate) use self::sasl::ReplaceAt;
pub use self::scram::ScramHash;
pub use self::settings::{ClientCertificate, Roots, SaslSettings, TlsSettings};
pub use self::token::{TokenError, TokenSource};
use crate::reason::Reason;
use crate::stream::ByteStream;

/// Returns the cryptography provider of this build, for servers of the project.
///
/// # Errors
///
/// The reason, if the provider does not run on this CPU.
#[cfg(feature = "tls")]
#[doc(hidden)]
pub fn tls_provider() -> Result<Arc<rustls::crypto::CryptoProvider>, String> {
    tls::provider().map_err(|error| error.to_string())
}

/// A problem of the settings or the files of connections. Its text begins with the [`option`](Self::option), and has the
/// remedy.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}{}", .0.option(), .0)]
pub struct SecurityError(tls::TlsSetupError);

impl SecurityError {
    /// Returns the option at fault.
    pub const fn option(&self) -> &'static str {
        self.0.option()
    }

    /// Returns the text without the option, for a caller that names the setting instead.
    pub fn detail(&self) -> String {
        self.0.to_string()
    }

    /// Returns whether a file is at fault.
    pub const fn is_about_file(&self) -> bool {
        self.0.is_about_file()
    }
}

/// The security of connections. Cheap to clone. Clones share the loaded certificates.
#[derive(Clone, Debug, Default)]
pub struct ConnectionSecurity {
    tls: Option<Arc<tls::Tls>>,
    sasl: Option<Arc<SaslSettings>>,
}

impl ConnectionSecurity {
    /// Checks the CPU, and loads the certificates.
    ///
    /// # Errors
    ///
    /// Returns each error with its remedy.
    pub fn new(tls: Option<TlsSettings>, sasl: Option<SaslSettings>) -> Result<Self, Vec<SecurityError>> {
        let tls = tls.map(tls::Tls::load).transpose();
        let tls = tls.map_err(|errors| errors.into_iter().map(SecurityError).collect::<Vec<_>>())?;
        Ok(Self { tls: tls.map(Arc::new), sasl: sasl.map(Arc::new) })
    }

    /// Reloads certificates that changed on disk, or logs an error if they are invalid.
    pub(crate) fn refresh(&self) {
        if let Some(tls) = &self.tls {
            tls.refresh();
        }
    }

    /// Opens TLS to `host` on a connection, if TLS is on.
    pub(crate) async fn wrap(&self, host: &str, port: u16, tcp: TcpStream) -> Result<Box<dyn ByteStream>, Reason> {
        match &self.tls {
            Some(tls) => tls.connect(host, port, tcp).await,
            None => Ok(Box::new(tcp)),
        }
    }

    /// Returns why TLS failed, if a later error on the connection contains a TLS error.
    pub(crate) fn tls_failure(
        &self,
        host: &str,
        port: u16,
        error: &(dyn std::error::Error + 'static),
    ) -> Option<Reason> {
        self.tls.as_ref()?.failure(host, port, error)
    }

    pub(crate) fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    pub(crate) fn sasl(&self) -> Option<&SaslSettings> {
        self.sasl.as_deref()
    }

    /// Returns the probable cause when a broker closes a connection without an answer.
    pub(crate) fn hint(&self) -> &'static str {
        match (&self.tls, &self.sasl) {
            (None, None) => ": if the broker requires TLS or SASL, set security_protocol",
            (None, Some(_)) => ": if the broker requires TLS, set security_protocol",
            (Some(_), None) => {
                ": if the broker requires SASL, set security_protocol; if it requires a client certificate, set \
                                  ssl_certificate_location and ssl_key_location"
            }
            (Some(_), Some(_)) => "",
        }
    }
}
