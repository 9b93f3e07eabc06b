//! The settings of TLS and SASL.
//!
//! Rule: plain data. `ConnectionSecurity::new` checks it.

use std::path::PathBuf;

use super::scram::ScramHash;
use super::token::TokenSource;
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
