//! The options of the gateway: one table of names, defaults and documentation.
//!
//! Rules:
//! - The table below lists every option once. The arguments of `courier serve`, their variables and docs/HTTP.md are made
//!   from it.
//! - An error names the option and the allowed values, and not the value.

use std::net::SocketAddr;
use std::time::Duration;

use crate::shapes::ack::{Ack, TopicAcks};
use crate::shapes::principal::OperatorToken;

/// The documentation of an option.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct GatewayOption {
    /// The option's name.
    pub name: &'static str,
    /// The option's default, as text.
    pub default: String,
    /// The option's meaning.
    pub help: String,
    /// Whether the option is true or false.
    pub is_switch: bool,
    /// The group of the option in a help.
    pub group: OptionGroup,
}

/// A group of options.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum OptionGroup {
    /// Addresses and the end of the service.
    Service,
    /// Who may publish and manage.
    Clients,
    /// The meaning of answers.
    Answers,
    /// Limits of requests and connections.
    Limits,
}

impl OptionGroup {
    /// Returns the heading of the group in a help.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Clients => "Service: clients",
            Self::Answers => "Service: answers",
            Self::Limits => "Service: limits",
        }
    }

    fn of(option: &str) -> Self {
        match option {
            "listen" | "management" | "drain_delay" | "grace" => Self::Service,
            "management_token" | "tokens_file" | "insecure_no_auth" => Self::Clients,
            "ack" | "ack_floor" | "topic_acks" => Self::Answers,
            _ if option.starts_with("tls_") || option.starts_with("rate_") => Self::Clients,
            _ if option.starts_with("answer_") || option.starts_with("dedupe") => Self::Answers,
            _ => Self::Limits,
        }
    }
}

/// Why a value of an option is invalid.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{option}: expected {expected}")]
pub struct OptionError {
    /// The option.
    pub option: &'static str,
    /// The allowed values.
    pub expected: &'static str,
}

/// The text of an option's value.
trait OptionText: Sized {
    /// The allowed values, in words.
    const EXPECTED: &'static str;
    fn read(text: &str) -> Option<Self>;
    fn write(&self) -> String;
    fn is_switch() -> bool {
        false
    }
}

macro_rules! options {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ty = $default:expr;)+) => {
        /// The options of a gateway. `Default` returns the documented defaults.
        #[derive(Clone, PartialEq, Debug)]
        #[non_exhaustive]
        pub struct GatewayConfig {
            $($(#[doc = $doc])+ pub $name: $kind,)+
        }

        impl Default for GatewayConfig {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }

        impl GatewayConfig {
            /// Sets the option `name` from text.
            ///
            /// # Errors
            ///
            /// [`OptionError`] if there is no such option, or if the value is invalid.
            pub fn set(&mut self, name: &str, text: &str) -> Result<(), OptionError> {
                match name {
                    $(stringify!($name) => {
                        let expected = <$kind as OptionText>::EXPECTED;
                        let invalid = OptionError { option: stringify!($name), expected };
                        self.$name = OptionText::read(text.trim()).ok_or(invalid)?;
                    })+
                    _ => return Err(OptionError { option: "an option", expected: "the name of an option" }),
                }
                Ok(())
            }

            /// Returns the documentation of every option, in the order of the table.
            pub fn options() -> Vec<GatewayOption> {
                let defaults = Self::default();
                vec![$(GatewayOption {
                    name: stringify!($name),
                    default: OptionText::write(&defaults.$name),
                    help: concat!($($doc),+).trim().to_owned(),
                    is_switch: <$kind as OptionText>::is_switch(),
                    group: OptionGroup::of(stringify!($name)),
                },)+]
            }
        }
    };
}

options! {
    /// The address for events.
    listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8080));
    /// The address for probes, metrics, statistics, dead letters and the spool.
    management: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 9090));
    /// The SHA-256 of a token in hex. An operator with the token reads statistics, dead letters and the spool from other machines,
    /// and replays and removes dead letters. Empty for none.
    management_token: OperatorToken = OperatorToken::default();
    /// A file of clients with tokens or certificates, read again when it changes. Empty for no authentication.
    tokens_file: String = String::new();
    /// A PEM file with the certificate of the service and its intermediate certificates, read again when it changes. The
    /// address for events then takes TLS only. Empty for no TLS.
    tls_certificate: String = String::new();
    /// A PEM file with the certificate's private key, not encrypted.
    tls_key: String = String::new();
    /// A PEM file with the authorities of clients' certificates, read again when it changes. Without tokens_file, each client needs
    /// a certificate. With it, a client has a certificate or a token. Empty for no certificates.
    tls_client_ca: String = String::new();
    /// The most requests of a client a second, 0 for no limit. A client of tokens_file may have its own limit. All clients share
    /// one limit if the service does not know them.
    rate_requests: u32 = 0;
    /// The most bytes of bodies of a client a second, as they arrive, 0 for no limit.
    rate_bytes: u32 = 0;
    /// Whether any client may publish on an address that other machines reach. Such an address needs tokens_file
    /// or tls_client_ca otherwise.
    insecure_no_auth: bool = false;
    /// The acknowledgement if a request asks for none: broker, disk or memory.
    ack: Ack = Ack::Broker;
    /// The weakest acknowledgement that a request may ask for: memory, disk or broker.
    ack_floor: Ack = Ack::Memory;
    /// Acknowledgements of single topics, as topic=default or topic=default:floor, separated by commas. A topic that ends
    /// in * is a prefix, and the longest one counts.
    topic_acks: TopicAcks = TopicAcks::default();
    /// The time from the end of a request's body to its answer, if the request asks for none. Each line of NDJSON may wait for
    /// room for this time.
    answer_timeout: Duration = Duration::from_secs(30);
    /// The longest time that a request may ask for.
    answer_timeout_max: Duration = Duration::from_secs(300);
    /// The largest head of a request in bytes, at least 8192. HTTP/1.1 answers a larger one with 431.
    max_head_bytes: u32 = 16 << 10;
    /// The longest time for a request's head, the time that a body has beyond min_body_rate, and the longest time between two
    /// parts of a body.
    head_timeout: Duration = Duration::from_secs(10);
    /// The lowest average rate of a body in bytes per second, 0 for none.
    min_body_rate: u32 = 1024;
    /// The longest time for a body that is read whole. NDJSON without a key has no such time.
    body_timeout: Duration = Duration::from_secs(300);
    /// The largest body in bytes, compressed or not. For NDJSON it bounds each line.
    max_body_bytes: usize = 16 << 20;
    /// The largest body in bytes after decompression. For NDJSON it bounds nothing beyond max_body_bytes.
    max_decompressed_bytes: usize = 16 << 20;
    /// The maximum number of events in a request, or of events without a result for stream=true.
    max_events: usize = 10_000;
    /// The maximum number of topics that requests name with /v1/topics/{topic}, existing or not, until the service ends. The
    /// producer keeps a state for each of them.
    max_topics: usize = 10_000;
    /// The deepest nesting of JSON, up to 127.
    max_json_depth: usize = 64;
    /// Memory for the bodies of all requests and their answers, in bytes. A request without room gets 503.
    max_inflight_bytes: usize = 64 << 20;
    /// Memory for results that a client of stream=true has not read, in bytes. Beyond it the connection is reset.
    max_result_bytes: usize = 1 << 20;
    /// The maximum number of connections for events. Further clients wait until a connection ends.
    max_connections: usize = 10_000;
    /// The maximum number of concurrent requests of an HTTP/2 connection.
    max_streams: u32 = 100;
    /// The time after which a connection without a request is closed.
    idle_timeout: Duration = Duration::from_secs(75);
    /// Which requests are published once: off, key (those with an idempotency-key), or event_id (also those with one event whose
    /// client gave it a source and an id). Each instance knows its own requests.
    dedupe: Dedupe = Dedupe::Key;
    /// The time for which a repeated request gets the first answer again. With a spool, also from a later process. 0s is
    /// dedupe=off.
    dedupe_window: Duration = Duration::from_secs(600);
    /// The maximum number of keys. A full table forgets the oldest, which shortens the window.
    dedupe_max_keys: usize = 100_000;
    /// Memory for keys and their answers, in bytes. A full table forgets the oldest.
    dedupe_max_bytes: usize = 64 << 20;
    /// The time from a signal to the end of accepting connections. The gateway is not ready then, and serves requests.
    drain_delay: Duration = Duration::from_secs(5);
    /// The time for requests and events that are under way when the gateway ends.
    grace: Duration = Duration::from_secs(30);
}

/// Which requests are published once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dedupe {
    /// None.
    Off,
    /// Requests with the header `idempotency-key`.
    Key,
    /// Also requests with one event to which the client gave a source and an id.
    EventId,
}

impl OptionText for Dedupe {
    const EXPECTED: &'static str = "off, key or event_id";

    fn read(text: &str) -> Option<Self> {
        match text {
            "off" => Some(Self::Off),
            "key" => Some(Self::Key),
            "event_id" => Some(Self::EventId),
            _ => None,
        }
    }

    fn write(&self) -> String {
        let text = match self {
            Self::Off => "off",
            Self::Key => "key",
            Self::EventId => "event_id",
        };
        text.to_owned()
    }
}

/// The maximum number of connections for probes, metrics and statistics.
pub const MANAGEMENT_CONNECTIONS: usize = 256;
/// The limits of these connections: idle ones must not keep a probe waiting.
const MANAGEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest time of an option. A clock can't add much longer ones.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

impl GatewayConfig {
    /// Returns the options of the listener for probes, metrics and statistics.
    pub(crate) fn for_management(&self) -> Self {
        Self {
            max_connections: MANAGEMENT_CONNECTIONS,
            head_timeout: MANAGEMENT_TIMEOUT,
            idle_timeout: MANAGEMENT_TIMEOUT,
            ..self.clone()
        }
    }

    /// Returns whether each client proves its name.
    pub(crate) fn knows_clients(&self) -> bool {
        !self.tokens_file.is_empty() || !self.tls_client_ca.is_empty()
    }

    /// Returns which requests are published once.
    pub(crate) fn deduped(&self) -> Dedupe {
        if self.dedupe_window.is_zero() { Dedupe::Off } else { self.dedupe }
    }

    fn times(&self) -> [(&'static str, Duration); 8] {
        [
            ("answer_timeout", self.answer_timeout),
            ("answer_timeout_max", self.answer_timeout_max),
            ("head_timeout", self.head_timeout),
            ("body_timeout", self.body_timeout),
            ("idle_timeout", self.idle_timeout),
            ("dedupe_window", self.dedupe_window),
            ("drain_delay", self.drain_delay),
            ("grace", self.grace),
        ]
    }

    /// Checks the bounds of options, and options that depend on each other.
    ///
    /// # Errors
    ///
    /// All problems, one a line.
    pub fn validate(&self) -> Result<(), String> {
        let mut problems = Vec::new();
        let mut require = |is_valid: bool, problem: &str| {
            if !is_valid {
                problems.push(problem.to_owned());
            }
        };
        require(self.max_head_bytes >= 8192, "max_head_bytes: expected 8192 or more");
        require((1..=127).contains(&self.max_json_depth), "max_json_depth: expected 1 to 127");
        require(self.max_connections > 0, "max_connections: expected 1 or more");
        require(self.max_streams > 0, "max_streams: expected 1 or more");
        require(self.max_events > 0, "max_events: expected 1 or more");
        require(
            self.max_inflight_bytes >= self.max_body_bytes.max(self.max_decompressed_bytes),
            "max_inflight_bytes: expected max_body_bytes and max_decompressed_bytes or more",
        );
        require(
            self.deduped() == Dedupe::Off || (self.dedupe_max_keys > 0 && self.dedupe_max_bytes > 0),
            "dedupe_max_keys, dedupe_max_bytes: expected 1 or more, or dedupe=off",
        );
        require(
            self.answer_timeout <= self.answer_timeout_max,
            "answer_timeout: expected answer_timeout_max or a shorter time",
        );
        for (name, time) in self.times() {
            require(time <= LONGEST, &format!("{name}: expected at most 365 days"));
        }
        require(
            self.tls_certificate.is_empty() == self.tls_key.is_empty(),
            "tls_certificate, tls_key: set both, or none of them",
        );
        require(
            self.tls_client_ca.is_empty() || !self.tls_certificate.is_empty(),
            "tls_client_ca: expected tls_certificate and tls_key, too",
        );
        require(self.ack >= self.ack_floor, "ack: expected ack_floor or a stronger acknowledgement");
        require(
            self.listen.ip().is_loopback() || self.knows_clients() || self.insecure_no_auth,
            "listen: other machines reach this address, and any of their clients could publish: set tokens_file or \
             tls_client_ca, or insecure_no_auth behind a proxy that authenticates",
        );
        if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
    }
}

impl OptionText for SocketAddr {
    const EXPECTED: &'static str = "an address such as 127.0.0.1:8080 or [::1]:8080";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl OptionText for String {
    const EXPECTED: &'static str = "text";

    fn read(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }

    fn write(&self) -> String {
        self.clone()
    }
}

impl OptionText for bool {
    const EXPECTED: &'static str = "true or false";

    fn read(text: &str) -> Option<Self> {
        text.to_ascii_lowercase().parse().ok()
    }

    fn write(&self) -> String {
        self.to_string()
    }

    fn is_switch() -> bool {
        true
    }
}

macro_rules! numbers {
    ($($kind:ty),+) => {$(
        impl OptionText for $kind {
            const EXPECTED: &'static str = "a whole number";

            fn read(text: &str) -> Option<Self> {
                text.parse().ok()
            }

            fn write(&self) -> String {
                self.to_string()
            }
        }
    )+};
}

numbers!(u32, usize);

impl OptionText for Duration {
    const EXPECTED: &'static str = "a time such as 500ms, 10s or 5m";

    fn read(text: &str) -> Option<Self> {
        crate::shapes::query::duration(text)
    }

    fn write(&self) -> String {
        match self.subsec_millis() {
            0 => format!("{}s", self.as_secs()),
            _ => format!("{}ms", self.as_millis()),
        }
    }
}

impl OptionText for Ack {
    const EXPECTED: &'static str = "broker, disk or memory";

    fn read(text: &str) -> Option<Self> {
        Self::parse(text)
    }

    fn write(&self) -> String {
        self.as_str().to_owned()
    }
}

impl OptionText for OperatorToken {
    const EXPECTED: &'static str = "the SHA-256 of a token as 64 hex digits, or nothing";

    fn read(text: &str) -> Option<Self> {
        Self::parse(text)
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl OptionText for TopicAcks {
    const EXPECTED: &'static str =
        "topic=ack or topic=ack:floor, separated by commas, such as orders=disk:disk,logs.*=memory";

    fn read(text: &str) -> Option<Self> {
        Self::parse(text)
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_text() {
        let mut config = GatewayConfig::default();
        for option in GatewayConfig::options() {
            config.set(option.name, &option.default).unwrap();
        }
        assert_eq!(config, GatewayConfig::default());
        config.validate().unwrap();
    }

    #[test]
    fn errors_name_option_and_values() {
        let mut config = GatewayConfig::default();
        let error = config.set("idle_timeout", "soon").unwrap_err();
        assert_eq!(error.to_string(), "idle_timeout: expected a time such as 500ms, 10s or 5m");
        assert!(config.set("idle", "1s").is_err());
    }

    #[test]
    fn related_options_share_a_group() {
        let all = GatewayConfig::options();
        let group = |name: &str| all.iter().find(|option| option.name == name).unwrap().group;
        assert_eq!((group("dedupe"), group("answer_timeout")), (group("dedupe_window"), OptionGroup::Answers));
        assert_eq!((group("tls_key"), group("max_topics")), (OptionGroup::Clients, OptionGroup::Limits));
    }

    #[test]
    fn bounds_are_checked_together() {
        let mut config = GatewayConfig::default();
        (config.max_head_bytes, config.ack_floor, config.ack) = (100, Ack::Broker, Ack::Memory);
        config.listen = SocketAddr::from(([0, 0, 0, 0], 8080));
        let problems = config.validate().unwrap_err();
        let named: Vec<&str> = problems.lines().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(named, ["max_head_bytes", "ack", "listen"]);
        let defaults = GatewayConfig::default();
        config = GatewayConfig { listen: config.listen, dedupe_max_keys: 0, grace: Duration::MAX, ..defaults };
        config.answer_timeout = config.answer_timeout_max + Duration::from_secs(1);
        let problems = config.validate().unwrap_err();
        let named: Vec<&str> = problems.lines().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(named, ["dedupe_max_keys, dedupe_max_bytes", "answer_timeout", "grace", "listen"]);
        config.insecure_no_auth = true;
        config.tls_client_ca = "ca.pem".to_owned();
        let problems = config.validate().unwrap_err();
        assert!(!problems.contains("listen") && problems.contains("tls_client_ca: "), "{problems}");
    }
}
