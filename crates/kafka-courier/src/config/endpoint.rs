//! The addresses of brokers.
//!
//! Rule: an error does not contain the text, which may be a secret.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::sync::Arc;

use super::choices::SecurityProtocol;

/// The address of a broker.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Endpoint {
    /// Host name or IP address.
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
}

/// The form of a broker's address.
pub(super) const ADDRESS: &str = "host:port, such as kafka-1:9092 or [::1]:9092";

/// The error of a text that is not the address of a broker. It does not contain the text, which may be a secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum EndpointError {
    /// The text is not `host:port`.
    NotAnAddress,
    /// The address begins with a protocol, as in the listeners of a broker's own configuration.
    Protocol(SecurityProtocol),
    /// The IPv6 address has no brackets.
    NoBrackets,
    /// The text is a URL of another protocol, or has a path or a query.
    Url,
    /// The text has a user name or a password.
    Credentials,
}

impl EndpointError {
    /// Returns the remedy, which follows the form of an address.
    pub(super) fn remedy(self) -> String {
        match self {
            Self::NotAnAddress => String::new(),
            Self::Protocol(protocol) => format!(": remove {protocol}://, and set security_protocol to {protocol}"),
            Self::NoBrackets => ": put the IPv6 address in brackets".to_owned(),
            Self::Url => ": a URL is not allowed, so name only its host and port".to_owned(),
            Self::Credentials => {
                ": remove the user name and the password, and set sasl_username and sasl_password".to_owned()
            }
        }
    }
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a broker is {ADDRESS}{}", self.remedy())
    }
}

impl std::error::Error for EndpointError {}

impl FromStr for Endpoint {
    type Err = EndpointError;

    /// Parses `host:port`, `host` (port 9092) or `[::1]:9092`.
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        const WRONG: EndpointError = EndpointError::NotAnAddress;
        if let Some(protocol) = scheme(text) {
            return Err(EndpointError::Protocol(protocol));
        }
        if text.contains(['/', '?', '#']) {
            return Err(EndpointError::Url);
        }
        if text.contains('@') {
            return Err(EndpointError::Credentials);
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or(WRONG)?;
                (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or(WRONG)?) })
            }
            None => match text.rsplit_once(':') {
                Some((host, _)) if host.contains(':') => return Err(without_brackets(text)),
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let known = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
        if host.is_empty() || !host.chars().all(known) {
            return Err(WRONG);
        }
        let port = port.map_or(Some(9092), |port| port.parse().ok().filter(|port| *port > 0));
        Ok(Self { host: host.into(), port: port.ok_or(WRONG)? })
    }
}

/// Returns the error of a text with several colons and no brackets.
fn without_brackets(text: &str) -> EndpointError {
    let is_ipv6 = |text: &str| text.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
    if is_ipv6(text) || is_ipv6(host) { EndpointError::NoBrackets } else { EndpointError::NotAnAddress }
}

/// Returns the protocol before a broker's address, as in the listeners of a broker's own configuration.
fn scheme(text: &str) -> Option<SecurityProtocol> {
    let (scheme, _) = text.split_once("://")?;
    SecurityProtocol::with_text(scheme)
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broker_addresses_are_parsed() {
        for (text, host, port) in [
            ("kafka-1:9093", "kafka-1", 9093),
            ("localhost", "localhost", 9092),
            ("[::1]:19092", "::1", 19092),
            ("[::1]", "::1", 9092),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!((&*endpoint.host, endpoint.port), (host, port));
            assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
        }
    }

    #[test]
    fn invalid_broker_addresses_are_errors() {
        for text in
            ["", ":9092", "host:", "host:0", "host:99999", "::1:9092", "http://kafka:9092", "a b:1", "[::1", "[::1]9"]
        {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn each_form_has_its_error() {
        for (text, expected) in [
            ("::1:9092", EndpointError::NoBrackets),
            ("fe80::1", EndpointError::NoBrackets),
            ("fe80::1%eth0:9092", EndpointError::NoBrackets),
            ("2001:db8::7:19092", EndpointError::NoBrackets),
            ("kafka:9092:9093", EndpointError::NotAnAddress),
            ("http://user:hunter2@kafka:9092/", EndpointError::Url),
            ("kafka:9092/path", EndpointError::Url),
            ("http://[::1]:9092", EndpointError::Url),
            ("user:hunter2@kafka:9092", EndpointError::Credentials),
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(expected), "{text}");
        }
    }

    #[test]
    fn listener_form_names_the_remedy() {
        for (text, protocol) in [
            ("PLAINTEXT://kafka:9092", "PLAINTEXT"),
            ("ssl://kafka:9093", "SSL"),
            ("SASL_SSL://[::1]:9093", "SASL_SSL"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(
                error.contains(&format!("remove {protocol}://, and set security_protocol to {protocol}")),
                "{error}"
            );
        }
    }
}
