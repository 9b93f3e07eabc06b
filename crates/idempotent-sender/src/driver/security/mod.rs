//! The security of connections: TLS below, SASL above.
//!
//! Rules:
//! - [`ConnectionSecurity::new`] finds errors in settings and files, before anything is sent.
//! - A refusal by the cluster is permanent. Its error names the broker and the mechanism, and never contains a
//!   secret.
//! - Brokers' certificates are verified, unless verification is off. Each connection then logs a warning.

#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
mod tls;
#[cfg(feature = "tls")]
mod tls;

mod sasl;
mod scram;
mod token;

use std::path::PathBuf;
use std::sync::Arc;

pub(super) use sasl::ReplaceAt;
pub use scram::ScramHash;
pub use token::{TokenError, TokenSource};

use tokio::net::TcpStream;

use super::stream::ByteStream;
use crate::core::Reason;
use crate::secret::Secret;

/// The trusted certificate authorities.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Roots {
    /// Mozilla's, as of the build.
    CompiledIn,
    /// The operating system's (`SSL_CERT_FILE` and `SSL_CERT_DIR` apply).
    System,
    /// The authorities in this PEM file.
    File(PathBuf),
}

/// The client's certificate for mutual TLS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientCertificate {
    /// PEM file with the client's certificate, followed by the intermediate certificates.
    pub certificate: PathBuf,
    /// PEM file with its private key, not encrypted: PKCS#8, PKCS#1 (RSA) or SEC1 (EC).
    pub key: PathBuf,
}

/// The settings of TLS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsSettings {
    /// The trusted authorities.
    pub roots: Roots,
    /// The client's certificate, if brokers want one.
    pub client: Option<ClientCertificate>,
    /// Accepts any certificate of any server. A man in the middle can then read and change all traffic.
    pub insecure_skip_verify: bool,
}

/// The mechanism and credentials of SASL.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SaslSettings {
    /// PLAIN (RFC 4616): the password itself is sent.
    Plain {
        /// The user.
        username: String,
        /// The password.
        password: Secret,
    },
    /// SCRAM-SHA-256 or SCRAM-SHA-512 (RFC 5802, RFC 7677): each side proves that it knows the password.
    Scram {
        /// The hash of the mechanism.
        hash: ScramHash,
        /// The user.
        username: String,
        /// The password, which is not sent.
        password: Secret,
    },
    /// OAUTHBEARER (RFC 7628, KIP-255): a token, requested for each connection.
    OAuthBearer(TokenSource),
}

/// A problem of the settings or the files of connections. Its text begins with the [`option`](Self::option), and has the
/// remedy.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(transparent)]
pub struct SecurityError(tls::TlsSetupError);

impl SecurityError {
    /// Returns the option at fault.
    pub const fn option(&self) -> &'static str {
        self.0.option()
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
    pub(super) fn refresh(&self) {
        if let Some(tls) = &self.tls {
            tls.refresh();
        }
    }

    /// Opens TLS to `host` on a connection, if TLS is on.
    pub(super) async fn wrap(&self, host: &str, port: u16, tcp: TcpStream) -> Result<Box<dyn ByteStream>, Reason> {
        match &self.tls {
            Some(tls) => tls.connect(host, port, tcp).await,
            None => Ok(Box::new(tcp)),
        }
    }

    /// Returns why TLS failed, if a later error on the connection contains a TLS error.
    pub(super) fn tls_failure(
        &self,
        host: &str,
        port: u16,
        error: &(dyn std::error::Error + 'static),
    ) -> Option<Reason> {
        self.tls.as_ref()?.failure(host, port, error)
    }

    pub(super) fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    pub(super) fn sasl(&self) -> Option<&SaslSettings> {
        self.sasl.as_deref()
    }

    /// Returns the probable cause when a broker closes a connection without an answer.
    pub(super) fn hint(&self) -> &'static str {
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
