//! The types of options: parsing from text and formatting as text.
//!
//! Rule: an error has the allowed values as data, and the value unless it may be a secret. The caller adds the option.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use kafka_courier_dlq::Overflow;
use kafka_courier_idempotent_sender::{HIDDEN, Secret};

use super::{SecurityProtocol, duration};

/// The values that an option allows. `Display` returns a phrase that follows "must be", such as `true or false`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AllowedValues {
    /// One of these texts, in upper or lower case.
    OneOf(&'static [&'static str]),
    /// One of these texts, because kafka-courier always behaves so.
    Only {
        /// The texts.
        values: &'static [&'static str],
        /// The reason.
        reason: &'static str,
    },
    /// A whole number up to `max`.
    WholeNumber {
        /// The largest number.
        max: u64,
    },
    /// A duration with units, such as `1m30s`.
    Duration,
    /// A whole number of milliseconds, in a property of the Java client.
    Milliseconds,
    /// At least one broker.
    Brokers,
    /// The addresses of brokers. One of them is invalid.
    Broker(EndpointError),
    /// The path of a file.
    FilePath,
    /// Other values.
    Other(String),
}

impl From<EndpointError> for AllowedValues {
    fn from(error: EndpointError) -> Self {
        Self::Broker(error)
    }
}

impl fmt::Display for AllowedValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneOf([one, other]) => write!(f, "{one} or {other}"),
            Self::OneOf(values) => write!(f, "one of {}", values.join(", ")),
            Self::Only { values, reason } => write!(f, "{}: {reason}", values.first().unwrap_or(&"unset")),
            Self::WholeNumber { max } => write!(f, "a whole number, at most {max}"),
            Self::Duration => f.write_str("a duration with units, such as 500ms, 1s or 1m30s (units: ns us ms s m h)"),
            Self::Milliseconds => f.write_str("whole milliseconds, such as 500"),
            Self::Brokers => f.write_str("at least one broker, such as localhost:9092"),
            Self::Broker(error) => write!(f, "{ADDRESS}{}", error.remedy()),
            Self::FilePath => {
                f.write_str("the path of a file: write the present value to a file, and set the option to its path")
            }
            Self::Other(phrase) => f.write_str(phrase),
        }
    }
}

/// The error of a text that is not a value of an option.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{} is not allowed: must be {allowed}", self.shown())]
pub struct InvalidValue {
    /// The text. `None` if the text may be a secret.
    value: Option<String>,
    allowed: AllowedValues,
}

impl InvalidValue {
    /// Creates the error of a value that is shown. `allowed` is a phrase that follows "must be".
    pub fn new(value: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self::shown_as(value.into(), AllowedValues::Other(allowed.into()))
    }

    pub(super) const fn shown_as(value: String, allowed: AllowedValues) -> Self {
        Self { value: Some(value), allowed }
    }

    /// Returns the error of a value that may be a secret.
    pub(super) const fn hidden(allowed: AllowedValues) -> Self {
        Self { value: None, allowed }
    }

    /// Returns the value, or `***` if it may be a secret.
    pub fn value(&self) -> &str {
        self.value.as_deref().unwrap_or(HIDDEN)
    }

    /// Returns the values that the option allows.
    pub const fn allowed(&self) -> &AllowedValues {
        &self.allowed
    }

    /// Returns the value in quotes, or `***` if it may be a secret.
    pub(super) fn shown(&self) -> String {
        self.value.as_ref().map_or_else(|| HIDDEN.to_owned(), |value| format!("{value:?}"))
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
    fn read(text: &str) -> Result<Self, AllowedValues>;

    /// Parses a value as [`read`](Self::read) does.
    ///
    /// # Errors
    /// Returns the text, unless it may be a secret, and the allowed values.
    fn parse(text: &str) -> Result<Self, InvalidValue> {
        Self::read(text).map_err(|allowed| InvalidValue { value: Self::shown(text), allowed })
    }

    /// Returns a rejected text as problems show it, without quotes. Returns `None` if the text may be a secret.
    fn shown(text: &str) -> Option<String> {
        (!Self::SECRET).then(|| text.to_owned())
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

    fn read(text: &str) -> Result<Self, AllowedValues> {
        if text.is_empty() { Ok(None) } else { T::read(text).map(Some) }
    }

    fn shown(text: &str) -> Option<String> {
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

    fn read(text: &str) -> Result<Self, AllowedValues> {
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

/// The form of a broker's address.
const ADDRESS: &str = "host:port, such as kafka-1:9092 or [::1]:9092";

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
}

impl EndpointError {
    /// Returns the remedy, which follows the form of an address.
    fn remedy(self) -> String {
        match self {
            Self::NotAnAddress => String::new(),
            Self::Protocol(protocol) => format!(": remove {protocol}://, and set security_protocol to {protocol}"),
            Self::NoBrackets => ": put the IPv6 address in brackets".to_owned(),
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
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or(WRONG)?;
                (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or(WRONG)?) })
            }
            None => match text.rsplit_once(':') {
                Some((host, _)) if host.contains(':') => return Err(EndpointError::NoBrackets),
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

/// Returns the protocol before a broker's address, as in the listeners of a broker's own configuration.
fn scheme(text: &str) -> Option<SecurityProtocol> {
    let (scheme, _) = text.split_once("://")?;
    SecurityProtocol::read(scheme).ok()
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
    fn shown(text: &str) -> Option<String> {
        let part =
            |part: &str| part.rsplit_once('@').map_or_else(|| part.to_owned(), |it| format!("{HIDDEN}@{}", it.1));
        Some(text.split(',').map(part).collect::<Vec<_>>().join(","))
    }

    fn read(text: &str) -> Result<Self, AllowedValues> {
        let endpoints: Result<Self, <Endpoint as FromStr>::Err> =
            text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::parse).collect();
        match endpoints? {
            list if list.is_empty() => Err(AllowedValues::Brokers),
            list => Ok(list),
        }
    }

    fn write(&self) -> String {
        self.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

impl OptionValue for Duration {
    fn read(text: &str) -> Result<Self, AllowedValues> {
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
    fn read(text: &str) -> Result<Self, AllowedValues> {
        text.parse().map_err(|_| AllowedValues::WholeNumber { max: Self::MAX.into() })
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl OptionValue for usize {
    fn read(text: &str) -> Result<Self, AllowedValues> {
        text.parse().map_err(|_| AllowedValues::WholeNumber { max: Self::MAX as u64 })
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl OptionValue for bool {
    fn read(text: &str) -> Result<Self, AllowedValues> {
        text.to_ascii_lowercase().parse().map_err(|_| AllowedValues::OneOf(&["true", "false"]))
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl OptionValue for String {
    fn read(text: &str) -> Result<Self, AllowedValues> {
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
    fn read(text: &str) -> Result<Self, AllowedValues> {
        match &*text.to_ascii_lowercase() {
            "refuse" => Ok(Self::Refuse),
            "drop_oldest" => Ok(Self::DropOldest),
            _ => Err(AllowedValues::OneOf(&["refuse", "drop_oldest"])),
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
    fn read(text: &str) -> Result<Self, AllowedValues> {
        match &*text.to_ascii_lowercase() {
            "none" => Ok(Self::None),
            "snappy" => Ok(Self::Snappy),
            _ => Err(AllowedValues::OneOf(&["none", "snappy"])),
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
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(
                error.contains(&format!("remove {protocol}://, and set security_protocol to {protocol}")),
                "{error}"
            );
        }
        assert_eq!(Vec::<Endpoint>::shown("a:1,SSL://me:hunter2@b:1").as_deref(), Some("a:1,***@b:1"));
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
