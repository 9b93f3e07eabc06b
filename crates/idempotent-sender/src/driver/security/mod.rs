//! How connections are secured: TLS beneath, SASL on top.
//!
//! Rules:
//! - What is wrong with a setting or a file is found when [`Security`] is made, before anything is sent.
//! - What the cluster refuses is final at once, names broker and mechanism, and never shows a secret.
//! - Servers are verified, unless that was switched off; then every connection says so in the log.

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

pub(super) use sasl::Session;
pub use scram::ScramHash;
pub use token::{TokenError, TokenSource};

use tokio::net::TcpStream;

use super::stream::Io;
use crate::core::Reason;
use crate::secret::Secret;

/// Which certificate authorities are trusted.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Roots {
    /// Mozilla's, as they were when this was built.
    CompiledIn,
    /// Those of the operating system (`SSL_CERT_FILE` and `SSL_CERT_DIR` are followed).
    System,
    /// Those in this PEM file.
    File(PathBuf),
}

/// What we show to brokers that want to know who we are (mutual TLS).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientCertificate {
    /// PEM file with our certificate, and those between it and the authority's.
    pub certificate: PathBuf,
    /// PEM file with its private key, not encrypted: PKCS#8, PKCS#1 (RSA) or SEC1 (EC).
    pub key: PathBuf,
}

/// How TLS is spoken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsSettings {
    /// Whom to trust.
    pub roots: Roots,
    /// Who we are.
    pub client: Option<ClientCertificate>,
    /// Takes any certificate of any server: then whoever is in between reads and changes everything.
    pub insecure_skip_verify: bool,
}

/// How we say who we are.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SaslSettings {
    /// PLAIN (RFC 4616): the password itself is sent.
    Plain {
        /// Who.
        username: String,
        /// The proof.
        password: Secret,
    },
    /// SCRAM-SHA-256 or SCRAM-SHA-512 (RFC 5802, RFC 7677): each side proves that it knows the password.
    Scram {
        /// On which hash.
        hash: ScramHash,
        /// Who.
        username: String,
        /// What is not sent.
        password: Secret,
    },
    /// OAUTHBEARER (RFC 7628, KIP-255): a token, asked for anew for each connection.
    OAuthBearer(TokenSource),
}

/// How connections are secured. Cheap to clone; clones share what they have loaded.
#[derive(Clone, Debug, Default)]
pub struct Security {
    tls: Option<Arc<tls::Tls>>,
    sasl: Option<Arc<SaslSettings>>,
}

impl Security {
    /// Checks the CPU, and loads the certificates. Errors: everything that is wrong, each with its remedy.
    pub fn new(tls: Option<TlsSettings>, sasl: Option<SaslSettings>) -> Result<Self, Vec<String>> {
        let tls = tls.map(tls::Tls::load).transpose()?;
        Ok(Self { tls: tls.map(Arc::new), sasl: sasl.map(Arc::new) })
    }

    /// Takes over what has changed in the files of certificates, or warns that it can't be.
    pub(super) fn refresh(&self) {
        if let Some(tls) = &self.tls {
            tls.refresh();
        }
    }

    /// Makes a connection to `host` secret, where that is wanted.
    pub(super) async fn wrap(&self, host: &str, port: u16, tcp: TcpStream) -> Result<Box<dyn Io>, Reason> {
        match &self.tls {
            Some(tls) => tls.connect(host, port, tcp).await,
            None => Ok(Box::new(tcp)),
        }
    }

    /// Why TLS failed, if an error that came up later tells of it.
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

    /// What may be the matter when a broker ends a connection without a word.
    pub(super) fn hint(&self) -> &'static str {
        match (&self.tls, &self.sasl) {
            (None, None) => "; does it want TLS or SASL (security_protocol)?",
            (None, Some(_)) => "; does it want TLS (security_protocol)?",
            (Some(_), None) => "; does it want SASL (security_protocol), or a client certificate?",
            (Some(_), Some(_)) => "",
        }
    }
}
