//! The types of options: parsing from text and formatting as text.
//!
//! Rule: an error has the allowed values as data, and the value unless it may be a secret. The caller adds the option.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use kafka_courier_client::{HIDDEN, Secret};
use kafka_courier_dlq::Overflow;

use super::choices::{
    Compression, SaslMechanism, SecurityProtocol, SpoolDoubt, SpoolFull, SpoolOldTimestamps, SslRoots,
};
use super::duration;
use super::endpoint::{ADDRESS, Endpoint, EndpointError};

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

impl OptionValue for Vec<Endpoint> {
    /// Hides the user, the password and the query of URLs. A password may have a comma, so all text before the last `@`
    /// is hidden.
    fn shown(text: &str) -> Option<String> {
        let shown = text.rsplit_once('@').map_or_else(|| text.to_owned(), |it| format!("{HIDDEN}@{}", it.1));
        Some(shown.split_once('?').map_or_else(|| shown.clone(), |it| format!("{}?{HIDDEN}", it.0)))
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
        duration::parse(text).ok_or(AllowedValues::Duration)
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

impl OptionValue for u64 {
    fn read(text: &str) -> Result<Self, AllowedValues> {
        text.parse().map_err(|_| AllowedValues::WholeNumber { max: Self::MAX })
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

macro_rules! choices {
    ($($name:ty),+) => {
        $(impl OptionValue for $name {
            fn read(text: &str) -> Result<Self, AllowedValues> {
                Self::with_text(text).ok_or(AllowedValues::OneOf(Self::TEXTS))
            }

            fn write(&self) -> String {
                self.to_string()
            }
        })+
    };
}

choices!(Compression, SaslMechanism, SecurityProtocol, SpoolDoubt, SpoolFull, SpoolOldTimestamps, SslRoots);

#[cfg(test)]
mod tests {
    use super::*;

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
    fn choices_list_their_values() {
        assert_eq!(SecurityProtocol::read("sasl_ssl").map(|it| it.write()), Ok("SASL_SSL".to_owned()));
        assert_eq!(SaslMechanism::read("SCRAM-SHA-256"), Ok(SaslMechanism::ScramSha256));
        let allowed = SaslMechanism::read("GSSAPI").unwrap_err();
        assert_eq!(allowed.to_string(), "one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER");
        assert_eq!(SslRoots::read("none").unwrap_err().to_string(), "compiled-in or system");
    }

    #[test]
    fn passwords_of_addresses_are_hidden() {
        for (text, shown) in [
            ("a:1,SSL://me:hunter2@b:1", "***@b:1"),
            ("http://me:hunt,er2@b:1/", "***@b:1/"),
            ("http://b:1/?token=hunter2,c:1", "http://b:1/?***"),
            ("a:1,b", "a:1,b"),
        ] {
            assert_eq!(Vec::<Endpoint>::shown(text).as_deref(), Some(shown));
        }
    }

    #[test]
    fn broker_lists_allow_spaces_and_gaps() {
        assert_eq!(Vec::<Endpoint>::read("a:1, b:2,").unwrap().len(), 2);
        assert!(Vec::<Endpoint>::read(" , ").is_err());
    }
}
