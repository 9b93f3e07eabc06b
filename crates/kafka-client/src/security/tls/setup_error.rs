//! Errors of the settings and files of TLS.
//!
//! Rule: an error names the option, the file and the remedy. It contains no text of a file.

use std::io;

use super::keys::{KeyKind, USABLE};
use super::pem::PemError;

/// Why TLS can't be set up. The text follows the [`option`](Self::option).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(in super::super) enum TlsSetupError {
    #[error(
        " asks for TLS, but this CPU lacks features that the cryptography (graviola) needs: {}: use \
         another CPU, or build with the feature tls-ring",
        missing.join(", ")
    )]
    Cpu { missing: Vec<&'static str> },
    #[error(
        " is system, but this system has no certificate authorities{}: set ssl_ca_location, or ssl_roots to \
         compiled-in",
        reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"))
    )]
    NoSystemRoots { reason: Option<String> },
    /// rustls refuses the settings. The text is its error's.
    #[error(" asks for TLS, but its setup failed: {0}")]
    Library(String),
    #[error(": {problem}")]
    File { option: &'static str, problem: TlsFileProblem },
}

/// What is wrong with a file of certificates or of a key. The path is as errors show it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(in super::super) enum TlsFileProblem {
    #[error("{path}: {text}")]
    Unreadable { path: String, kind: io::ErrorKind, text: String },
    #[error("{path} is larger than {max} bytes: name a PEM file")]
    TooLarge { path: String, max: u64 },
    #[error("{path} holds no {}: {error}", wanted(*error, *wants_key))]
    Pem { path: String, wants_key: bool, error: PemError },
    #[error("{path} holds no private key")]
    NoKey { path: String },
    #[error("{path} holds a certificate that can't be read: copy the file again")]
    Certificate { path: String },
    #[error("the key in {path} ({kind}) is damaged: copy the file again")]
    DamagedKey { path: String, kind: KeyKind },
    #[error("the key in {path} is {}, which can't be used: use {USABLE}", named(*kind))]
    UnusableKey { path: String, kind: Option<KeyKind> },
    #[error("the key in {path} is {}, which can't sign here: use {USABLE}", named(*kind))]
    UnableToSign { path: String, kind: Option<KeyKind> },
    #[error(
        "the certificates in {path} are in the wrong order: the certificate of the key {key} is number {number}: put \
         it first, then its issuer's, and so on"
    )]
    WrongOrder { path: String, key: String, number: usize },
    #[error(
        "{path} is not the key of the certificate in {certificate}: name that certificate's key, or the key's \
         certificate"
    )]
    OtherKey { path: String, certificate: String },
}

fn named(kind: Option<KeyKind>) -> String {
    kind.map_or_else(|| "of an unknown kind".to_owned(), |kind| kind.to_string())
}

fn wanted(error: PemError, wants_key: bool) -> &'static str {
    match (error, wants_key) {
        (PemError::Encrypted, _) => "private key that can be used",
        (_, true) => "private key",
        (_, false) => "certificate",
    }
}

impl TlsSetupError {
    pub(super) fn unreadable(option: &'static str, path: String, error: &io::Error) -> Self {
        let (kind, text) = (error.kind(), error.to_string());
        Self::File { option, problem: TlsFileProblem::Unreadable { path, kind, text } }
    }

    pub(in super::super) const fn option(&self) -> &'static str {
        match self {
            Self::Cpu { .. } | Self::Library(_) => "security_protocol",
            Self::NoSystemRoots { .. } => "ssl_roots",
            Self::File { option, .. } => option,
        }
    }

    pub(in super::super) const fn is_about_file(&self) -> bool {
        matches!(self, Self::File { .. })
    }
}
