//! What TLS's errors mean to the one who has to mend them.
//!
//! Rules:
//! - What is wrong, then the remedy; rustls' own words where there is nothing to add.
//! - Only a verdict is final: somebody has to mend something. Every other failure may be over with the next connection.

use std::error::Error;
use std::io;

use rskafka::messenger::RequestError;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, Error as TlsError, InvalidMessage, OtherError};

use super::keys::USABLE;
use super::verifier::UnusableKey;

/// As many of a certificate's names as are shown.
const NAMES_SHOWN: usize = 8;

/// TLS's own error among the causes of an error.
pub(super) fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a TlsError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<TlsError>() {
            return Some(found);
        }
        next = if let Some(RequestError::Poisoned(cause)) = error.downcast_ref::<RequestError>() {
            Some(&**cause)
        } else if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner)
        } else {
            error.source()
        };
    }
    None
}

/// Whether an error will come again until somebody mends something on either side.
pub(super) fn is_verdict(error: &TlsError) -> bool {
    use AlertDescription as Alert;
    match error {
        TlsError::InvalidCertificate(_)
        | TlsError::PeerIncompatible(_)
        | TlsError::InvalidMessage(InvalidMessage::InvalidContentType) => true,
        TlsError::AlertReceived(alert) => matches!(
            alert,
            Alert::BadCertificate
                | Alert::CertificateRequired
                | Alert::UnknownCA
                | Alert::CertificateExpired
                | Alert::CertificateRevoked
                | Alert::CertificateUnknown
                | Alert::UnsupportedCertificate
                | Alert::AccessDenied
                | Alert::HandshakeFailure
                | Alert::ProtocolVersion
                | Alert::InsufficientSecurity
                | Alert::UnrecognisedName
        ),
        _ => false,
    }
}

/// What an error means. `known`: we have a certificate of our own to show.
pub(super) fn describe(error: &TlsError, known: bool) -> String {
    match error {
        TlsError::InvalidCertificate(error) => certificate(error),
        TlsError::AlertReceived(alert) => alerted(*alert, known),
        TlsError::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the broker does not speak TLS on this port: check brokers and security_protocol".to_owned()
        }
        error => format!("TLS failed: {error}"),
    }
}

fn certificate(error: &CertificateError) -> String {
    const CLOCK: &str = "have it renewed, or set this machine's clock";
    match error {
        CertificateError::UnknownIssuer => {
            "the broker's certificate comes from an unknown issuer: set ssl_ca_location to \
             the PEM file of the authority that issued it"
                .to_owned()
        }
        CertificateError::NotValidForName => wrong_name("another name", "brokers"),
        CertificateError::NotValidForNameContext { expected, presented } => other_names(expected, presented),
        CertificateError::Expired => format!("the broker's certificate has expired: {CLOCK}"),
        CertificateError::ExpiredContext { time, not_after } => {
            let days = time.as_secs().saturating_sub(not_after.as_secs()) / 86_400;
            format!("the broker's certificate has expired, {days} days ago: {CLOCK}")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("the broker's certificate is not valid yet: {CLOCK}")
        }
        CertificateError::BadSignature
        | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => format!(
            "the broker's certificate, or its issuer's, is signed in a way that can't be verified, or is damaged: use {USABLE}, \
             with SHA-256 or longer"
        ),
        CertificateError::BadEncoding => "the broker's certificate can't be read: have it issued again".to_owned(),
        CertificateError::Other(OtherError(error)) if error.is::<UnusableKey>() => error.to_string(),
        CertificateError::Other(error) if is(error, &webpki::Error::CaUsedAsEndEntity) => {
            "the broker shows an authority's certificate (self-signed, with CA:TRUE) as its own: give it one that an \
             authority issued, or one with basicConstraints CA:FALSE, and set ssl_ca_location to who issued it"
                .to_owned()
        }
        CertificateError::Other(error) if is(error, &webpki::Error::UnsupportedCertVersion) => {
            "the broker's certificate is of X.509 version 1, which holds no host names: have it issued as version 3, with its \
             host names as subjectAltName (openssl x509 -req makes version 1 where no extensions are given)"
                .to_owned()
        }
        CertificateError::Revoked => "the broker's certificate was revoked".to_owned(),
        error => format!("the broker's certificate can't be trusted: {error}"),
    }
}

/// Whether it is this error of webpki, which rustls hands on as it is.
fn is(error: &OtherError, expected: &webpki::Error) -> bool {
    error.0.downcast_ref() == Some(expected)
}

/// A certificate without the name that is expected: without any, with the address as a name of DNS, or with others.
fn other_names(expected: &ServerName<'_>, presented: &[String]) -> String {
    let name = expected.to_str();
    if presented.is_empty() {
        return format!(
            "the broker's certificate has no names, so it is not for {name}: have it issued with {name} as subjectAltName \
             (the common name does not count)"
        );
    }
    let is_dns_name = |shown: &String| shown.starts_with("Dns") && bare(shown) == name;
    if matches!(expected, ServerName::IpAddress(_)) && presented.iter().any(is_dns_name) {
        return format!(
            "the broker's certificate has the address {name} as a DNS name: have it issued with subjectAltName=IP:{name}, or \
             give brokers a name that is in it"
        );
    }
    let mut names: Vec<&str> = presented.iter().take(NAMES_SHOWN).map(|name| bare(name)).collect();
    if presented.len() > NAMES_SHOWN {
        names.push("others");
    }
    wrong_name(&names.join(", "), &name)
}

/// A name without what rustls writes around it: `DnsName("kafka-1")`, `IpAddress(10.0.0.1)`.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"')
}

fn wrong_name(presented: &str, expected: &str) -> String {
    format!(
        "wrong host name: the broker's certificate is for {presented}, not for {expected}: give brokers, and the brokers' \
         advertised.listeners, the name that is in the certificate"
    )
}

fn alerted(alert: AlertDescription, known: bool) -> String {
    use AlertDescription as Alert;
    let what = match alert {
        // Brokers on Java say so of a certificate that is missing.
        Alert::BadCertificate if !known => "wants a client certificate",
        Alert::CertificateRequired => "wants a client certificate",
        Alert::UnknownCA => "does not trust the issuer of our client certificate",
        Alert::CertificateExpired => "says that our client certificate has expired",
        Alert::CertificateRevoked => "says that our client certificate was revoked",
        Alert::BadCertificate | Alert::CertificateUnknown | Alert::UnsupportedCertificate | Alert::AccessDenied => {
            "does not take our client certificate"
        }
        Alert::HandshakeFailure => return refused_handshake(known),
        alert => return format!("the broker refuses the connection: TLS alert {alert:?}"),
    };
    let remedy = if known { "check" } else { "set" };
    format!("the broker {what} (TLS alert {alert:?}): {remedy} ssl_certificate_location and ssl_key_location")
}

/// The alert has several causes, which it does not tell apart.
fn refused_handshake(known: bool) -> String {
    let client = match known {
        true => "it does not accept the client certificate (check ssl_certificate_location and ssl_key_location)",
        false => "it wants a client certificate (set ssl_certificate_location and ssl_key_location)",
    };
    format!(
        "the broker refuses the handshake (TLS alert HandshakeFailure): either the broker's own key is of a kind that can't be \
         verified here (use {USABLE}), or {client}, or it has no cipher of TLS 1.2 or 1.3 in common (check its \
         ssl.cipher.suites)"
    )
}
