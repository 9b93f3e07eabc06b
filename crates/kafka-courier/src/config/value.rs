//! The types of options: parsing from text and formatting as text.
//!
//! Rules: an error states the allowed values. The caller adds the option's name and the value.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use kafka_courier_client::{HIDDEN, Secret};
use kafka_courier_dlq::Overflow;

use super::{SecurityProtocol, duration};

/// The error of a text that is not a value of an option: a statement of the allowed values, such as `must be true or
/// false`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(Cow<'static, str>);

impl From<&'static str> for InvalidValue {
    fn from(allowed: &'static str) -> Self {
        Self(allowed.into())
    }
}

impl From<String> for InvalidValue {
    fn from(allowed: String) -> Self {
        Self(allowed.into())
    }
}

/// A type of options.
///
/// The trait is public only as a bound of [`Setting`](crate::Setting), and is not exported.
pub trait OptionValue: Sized {
    /// Whether the text of this type is never shown.
    const SECRET: bool = false;

    /// Parses a value.
    ///
    /// # Errors
    /// Returns the allowed values.
    fn read(text: &str) -> Result<Self, InvalidValue>;

    /// Returns a rejected text as problems show it.
    fn shown(text: &str) -> String {
        if Self::SECRET { HIDDEN.to_owned() } else { format!("{text:?}") }
    }

    /// Returns the text that [`read`](Self::read) parses, or the placeholder of a secret.
    fn write(&self) -> String;

    /// Returns the value if it is a duration.
    fn duration(&self) -> Option<Duration> {
        None
    }
}

/// An option that may be unset. The text of an unset option is empty.
impl<T: OptionValue> OptionValue for Option<T> {
    const SECRET: bool = T::SECRET;

    fn read(text: &str) -> Result<Self, InvalidValue> {
        if text.is_empty() { Ok(None) } else { T::read(text).map(Some) }
    }

    fn shown(text: &str) -> String {
        T::shown(text)
    }

    fn write(&self) -> String {
        self.as_ref().map_or_else(String::new, OptionValue::write)
    }

    fn duration(&self) -> Option<Duration> {
        self.as_ref().and_then(OptionValue::duration)
    }
}

impl OptionValue for Secret {
    const SECRET: bool = true;

    fn read(text: &str) -> Result<Self, InvalidValue> {
        Ok(Self::new(text))
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

/// The address of a broker.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Endpoint {
    /// Host name or IP address.
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
}

impl FromStr for Endpoint {
    type Err = String;

    /// Parses `host:port`, `host` (port 9092) or `[::1]:9092`.
    fn from_str(text: &str) -> Result<Self, String> {
        const HELP: &str = "a broker is host:port, such as kafka-1:9092 or [::1]:9092";
        if let Some(protocol) = scheme(text) {
            return Err(format!("{HELP}: remove {protocol}://, and set security_protocol to {protocol}"));
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or(HELP)?;
                (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or(HELP)?) })
            }
            None => match text.rsplit_once(':') {
                Some((host, _)) if host.contains(':') => {
                    return Err(format!("{HELP}: put the IPv6 address in brackets"));
                }
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let known = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
        if host.is_empty() || !host.chars().all(known) {
            return Err(HELP.to_owned());
        }
        let port = port.map_or(Some(9092), |port| port.parse().ok().filter(|port| *port > 0));
        Ok(Self { host: host.into(), port: port.ok_or(HELP)? })
    }
}

/// Returns the protocol before a broker's address, as in the listeners of a broker's own configuration.
fn scheme(text: &str) -> Option<String> {
    let (scheme, _) = text.split_once("://")?;
    SecurityProtocol::read(scheme).ok().map(|protocol| protocol.write())
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

impl OptionValue for Vec<Endpoint> {
    /// Hides the user and password of a URL.
    fn shown(text: &str) -> String {
        let part =
            |part: &str| part.rsplit_once('@').map_or_else(|| part.to_owned(), |it| format!("{HIDDEN}@{}", it.1));
        format!("{:?}", text.split(',').map(part).collect::<Vec<_>>().join(","))
    }

    fn read(text: &str) -> Result<Self, InvalidValue> {
        let endpoints: Result<Self, <Endpoint as FromStr>::Err> =
            text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::parse).collect();
        match endpoints? {
            list if list.is_empty() => Err("must have at least one broker, such as localhost:9092".into()),
            list => Ok(list),
        }
    }

    fn write(&self) -> String {
        self.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

impl OptionValue for Duration {
    fn read(text: &str) -> Result<Self, InvalidValue> {
        duration::parse(text)
    }

    fn write(&self) -> String {
        duration::format(*self)
    }

    fn duration(&self) -> Option<Duration> {
        Some(*self)
    }
}

impl OptionValue for u32 {
    fn read(text: &str) -> Result<Self, InvalidValue> {
        text.parse().map_err(|_| format!("must be a whole number, at most {}", Self::MAX).into())
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl OptionValue for usize {
    fn read(text: &str) -> Result<Self, InvalidValue> {
        text.parse().map_err(|_| format!("must be a whole number, at most {}", Self::MAX).into())
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl OptionValue for bool {
    fn read(text: &str) -> Result<Self, InvalidValue> {
        text.to_ascii_lowercase().parse().map_err(|_| "must be true or false".into())
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl OptionValue for String {
    fn read(text: &str) -> Result<Self, InvalidValue> {
        Ok(text.to_owned())
    }

    fn write(&self) -> String {
        self.clone()
    }
}

/// The compression of batches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Compression {
    /// No compression.
    None,
    /// Snappy.
    #[default]
    Snappy,
}

impl OptionValue for Overflow {
    fn read(text: &str) -> Result<Self, InvalidValue> {
        match &*text.to_ascii_lowercase() {
            "refuse" => Ok(Self::Refuse),
            "drop_oldest" => Ok(Self::DropOldest),
            _ => Err("must be refuse or drop_oldest".into()),
        }
    }

    fn write(&self) -> String {
        match self {
            Self::Refuse => "refuse".to_owned(),
            Self::DropOldest => "drop_oldest".to_owned(),
        }
    }
}

impl OptionValue for Compression {
    fn read(text: &str) -> Result<Self, InvalidValue> {
        match &*text.to_ascii_lowercase() {
            "none" => Ok(Self::None),
            "snappy" => Ok(Self::Snappy),
            _ => Err("must be none or snappy".into()),
        }
    }

    fn write(&self) -> String {
        match self {
            Self::None => "none".to_owned(),
            Self::Snappy => "snappy".to_owned(),
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
    fn listener_form_names_the_remedy() {
        for (text, protocol) in [
            ("PLAINTEXT://kafka:9092", "PLAINTEXT"),
            ("ssl://kafka:9093", "SSL"),
            ("SASL_SSL://[::1]:9093", "SASL_SSL"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert!(
                error.contains(&format!("remove {protocol}://, and set security_protocol to {protocol}")),
                "{error}"
            );
        }
        assert_eq!(Vec::<Endpoint>::shown("a:1,SSL://me:hunter2@b:1"), "\"a:1,***@b:1\"");
    }

    #[test]
    fn names_and_booleans_ignore_case() {
        assert_eq!(Compression::read("SNAPPY"), Ok(Compression::Snappy));
        assert_eq!(Compression::read("None"), Ok(Compression::None));
        assert_eq!(Overflow::read("DROP_OLDEST"), Ok(Overflow::DropOldest));
        assert_eq!((bool::read("TRUE"), bool::read("False")), (Ok(true), Ok(false)));
        assert!(bool::read("yes").is_err() && Compression::read("gzip").is_err());
    }

    #[test]
    fn secrets_are_never_written() {
        let secret = Option::<Secret>::read("s3cret").unwrap().unwrap();
        assert_eq!((secret.expose(), OptionValue::write(&secret)), ("s3cret", "***".to_owned()));
        assert_eq!(Option::<Secret>::read("").unwrap(), None);
    }

    #[test]
    fn broker_lists_allow_spaces_and_gaps() {
        assert_eq!(Vec::<Endpoint>::read("a:1, b:2,").unwrap().len(), 2);
        assert!(Vec::<Endpoint>::read(" , ").is_err());
    }
}
