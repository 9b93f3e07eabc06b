//! Describes TLS errors, with the remedy.
//!
//! Rules:
//! - The cause, then the remedy. Other errors keep rustls' text.
//! - Only an error that needs a fix on either side is permanent. Other failures may pass with the next connection.

use std::error::Error;
use std::io;

use rskafka::messenger::RequestError;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, Error as TlsError, InvalidMessage, OtherError};

use super::keys::USABLE;
use super::verifier::UnusableKey;

/// The largest number of a certificate's names in an error.
const NAMES_SHOWN: usize = 8;

/// Returns the TLS error among the causes of an error.
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

/// Returns whether an error repeats until one side is fixed.
pub(super) fn is_permanent(error: &TlsError) -> bool {
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

/// Describes an error. `has_certificate`: the client has a certificate.
pub(super) fn describe(error: &TlsError, has_certificate: bool) -> String {
    match error {
        TlsError::InvalidCertificate(error) => describe_certificate(error),
        TlsError::AlertReceived(alert) => describe_alert(*alert, has_certificate),
        TlsError::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the broker does not speak TLS on this port: check brokers and security_protocol".to_owned()
        }
        error => format!("TLS failed: {error}"),
    }
}

fn describe_certificate(error: &CertificateError) -> String {
    const CLOCK: &str = "have it renewed, or set this machine's clock";
    match error {
        CertificateError::UnknownIssuer => {
            "the broker's certificate has an unknown issuer: set ssl_ca_location to the PEM file of the \
             authority that issued it"
                .to_owned()
        }
        CertificateError::NotValidForName => wrong_name("another name", "brokers"),
        CertificateError::NotValidForNameContext { expected, presented } => wrong_names(expected, presented),
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
            "the broker's certificate, or its issuer's, has a signature that can't be verified, or is damaged: use \
             {USABLE}, with SHA-256 or longer"
        ),
        CertificateError::BadEncoding => "the broker's certificate can't be read: have it issued again".to_owned(),
        CertificateError::Other(OtherError(error)) if error.is::<UnusableKey>() => error.to_string(),
        CertificateError::Other(error) if is_webpki(error, &webpki::Error::CaUsedAsEndEntity) => {
            "the broker shows an authority's certificate (self-signed, with CA:TRUE) as its own: give it one that an \
             authority issued, or one with basicConstraints CA:FALSE, and set ssl_ca_location to the issuer's"
                .to_owned()
        }
        CertificateError::Other(error) if is_webpki(error, &webpki::Error::UnsupportedCertVersion) => {
            "the broker's certificate is of X.509 version 1, which holds no host names: have it issued as version 3, \
             with its host names as subjectAltName (openssl x509 -req makes version 1 where no extensions are given)"
                .to_owned()
        }
        CertificateError::Revoked => "the broker's certificate was revoked".to_owned(),
        error => format!("the broker's certificate can't be trusted: {error}"),
    }
}

/// Returns whether this is the given error of webpki, which rustls passes on.
fn is_webpki(error: &OtherError, expected: &webpki::Error) -> bool {
    error.0.downcast_ref() == Some(expected)
}

/// Describes a certificate without the expected name. The certificate has no names, or the address as a DNS name, or
/// other names.
fn wrong_names(expected: &ServerName<'_>, presented: &[String]) -> String {
    let name = expected.to_str();
    if presented.is_empty() {
        return format!(
            "the broker's certificate has no names, so it is not for {name}: have it issued with {name} as \
             subjectAltName (the common name does not count)"
        );
    }
    let is_dns_name = |shown: &String| shown.starts_with("Dns") && unwrapped_name(shown) == name;
    if matches!(expected, ServerName::IpAddress(_)) && presented.iter().any(is_dns_name) {
        return format!(
            "the broker's certificate has the address {name} as a DNS name: have it issued with \
             subjectAltName=IP:{name}, or give brokers a name that is in it"
        );
    }
    let mut names: Vec<&str> = presented.iter().take(NAMES_SHOWN).map(|name| unwrapped_name(name)).collect();
    if presented.len() > NAMES_SHOWN {
        names.push("others");
    }
    wrong_name(&names.join(", "), &name)
}

/// Removes rustls' debug format around a name: `DnsName("kafka-1")`, `IpAddress(10.0.0.1)`.
fn unwrapped_name(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"')
}

fn wrong_name(presented: &str, expected: &str) -> String {
    format!(
        "wrong host name: the broker's certificate is for {presented}, not for {expected}: give brokers, and the \
         brokers' advertised.listeners, the name that is in the certificate"
    )
}

fn describe_alert(alert: AlertDescription, has_certificate: bool) -> String {
    use AlertDescription as Alert;
    let problem = match alert {
        // Brokers on Java send this alert when the client's certificate is missing.
        Alert::BadCertificate if !has_certificate => "wants a client certificate",
        Alert::CertificateRequired => "wants a client certificate",
        Alert::UnknownCA => "does not trust the issuer of the client certificate",
        Alert::CertificateExpired => "reports that the client certificate has expired",
        Alert::CertificateRevoked => "reports that the client certificate was revoked",
        Alert::BadCertificate | Alert::CertificateUnknown | Alert::UnsupportedCertificate | Alert::AccessDenied => {
            "does not accept the client certificate"
        }
        Alert::HandshakeFailure => return refused_handshake(has_certificate),
        alert => return format!("the broker refuses the connection: TLS alert {alert:?}"),
    };
    let remedy = if has_certificate { "check" } else { "set" };
    format!("the broker {problem} (TLS alert {alert:?}): {remedy} ssl_certificate_location and ssl_key_location")
}

/// Describes the alert HandshakeFailure, which has several causes.
fn refused_handshake(has_certificate: bool) -> String {
    let client = match has_certificate {
        true => "it does not accept the client certificate (check ssl_certificate_location and ssl_key_location)",
        false => "it wants a client certificate (set ssl_certificate_location and ssl_key_location)",
    };
    format!(
        "the broker refuses the handshake (TLS alert HandshakeFailure): either the broker's own key is of a kind \
         that can't be verified here (use {USABLE}), or {client}, or it has no cipher of TLS 1.2 or 1.3 in common \
         (check its ssl.cipher.suites)"
    )
}
