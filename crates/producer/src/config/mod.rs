//! The producer's settings: one table for their names, defaults, documentation and reading.
//!
//! Rules:
//! - Every option stands once, in the table below; its variable is `KAFKA_` and its name in capitals.
//! - All problems are reported at once, each with the option, the value and what is allowed.
//! - A variable with a known prefix and an unknown name is a warning, never an error: Kubernetes sets
//!   `KAFKA_PORT` and `KAFKA_SERVICE_HOST` for a service named kafka.

mod duration;
mod value;

use std::fmt;
use std::time::Duration;

pub use value::{Compression, Endpoint};

use value::Value;

use kafka_courier_event_model::TopicMapping;
use kafka_courier_idempotent_sender::core::{Backoff, Config as CoreConfig};

/// An option as the documentation lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OptionDoc {
    /// Its name, as in a file.
    pub name: &'static str,
    /// Its environment variable.
    pub variable: String,
    /// Its default, as text.
    pub default: String,
    /// What it does.
    pub help: String,
    /// Whether its value is never shown.
    pub secret: bool,
}

macro_rules! options {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ty = $default:expr;)+) => {
        /// The producer's settings. `Default` gives the documented defaults.
        #[derive(Clone, PartialEq, Eq, Debug)]
        #[non_exhaustive]
        pub struct KafkaConfig {
            $($(#[doc = $doc])+ pub $name: $kind,)+
        }

        impl Default for KafkaConfig {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }

        impl crate::Builder {
            $($(#[doc = $doc])+ pub fn $name(self, $name: impl crate::Setting<$kind>) -> Self {
                self.set(stringify!($name), $name, |config, value| config.$name = value)
            })+
        }

        impl KafkaConfig {
            /// Sets an option from text. `None`: there is no option of that name.
            fn set(&mut self, name: &str, text: &str) -> Option<Result<(), String>> {
                match name {
                    $(stringify!($name) => Some(Value::read(text).map(|value| self.$name = value)),)+
                    _ => None,
                }
            }

            /// Every option with its variable, default and meaning, in the documentation's order.
            pub fn options() -> Vec<OptionDoc> {
                let defaults = Self::default();
                vec![$(OptionDoc {
                    name: stringify!($name),
                    variable: format!("KAFKA_{}", stringify!($name).to_uppercase()),
                    default: Value::write(&defaults.$name),
                    help: concat!($($doc),+).trim().to_owned(),
                    secret: <$kind as Value>::SECRET,
                },)+]
            }
        }
    };
}

options! {
    /// Where to begin: host:port of some brokers, separated by commas.
    brokers: Vec<Endpoint> = vec![Endpoint { host: "localhost".into(), port: 9092 }];
    /// The name that the brokers log for this client.
    client_id: String = "kafka-courier".to_owned();
    /// Errors of the write itself that a batch survives. Waiting for the cluster is bounded by delivery_timeout instead.
    retry_max: u32 = 3;
    /// The first wait between tries; it doubles with each, and is jittered.
    retry_backoff: Duration = Duration::from_millis(100);
    /// The longest wait between tries.
    retry_backoff_max: Duration = Duration::from_secs(1);
    /// A batch is sent when it holds this many events.
    flush_messages: u32 = 100;
    /// A batch is sent when another event would make it larger than this on the wire, before compression.
    flush_bytes: usize = 1 << 20;
    /// A batch is sent when its first event is this old.
    flush_timeout: Duration = Duration::from_secs(1);
    /// From publish to verdict: how long an outage may last before events are given up.
    delivery_timeout: Duration = Duration::from_secs(30);
    /// How long an answer may take.
    request_timeout: Duration = Duration::from_secs(10);
    /// How long opening a connection may take.
    connect_timeout: Duration = Duration::from_secs(3);
    /// How long a topic may be unknown to the cluster.
    metadata_timeout: Duration = Duration::from_secs(10);
    /// How old metadata may become before it is refreshed unasked.
    metadata_max_age: Duration = Duration::from_secs(300);
    /// Memory for events that have no verdict yet, in bytes.
    buffer_memory: usize = 32 << 20;
    /// How long publishing waits for memory before it fails.
    max_block: Duration = Duration::from_secs(10);
    /// Batches of a partition that may be unanswered at once, 1 to 5.
    max_in_flight: u32 = 5;
    /// The most bytes of batches in one request.
    max_request_bytes: usize = 8 << 20;
    /// Connections to one broker, opened as the load asks for them.
    connections_per_broker: u32 = 4;
    /// How batches are compressed: none or snappy.
    compression: Compression = Compression::Snappy;
    /// Where types of events go, beyond the defaults: type=topic,type=topic; type * is any other.
    topic_mapping: String = String::new();
    /// Dead letters that are kept in memory; beyond them the oldest goes, with an error line that holds it whole.
    dlq_buffer: usize = 1000;
}

/// Everything that is wrong with a configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<String>);

/// The longest time that an option may be set to: beyond it a deadline might not be a point in time.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// As people read it: `main` prints errors so.
impl fmt::Debug for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}

/// Brokers from text. The error says what is allowed.
pub(crate) fn read_brokers(text: &str) -> Result<Vec<Endpoint>, String> {
    Value::read(text)
}

impl KafkaConfig {
    /// The defaults, changed by the environment's `KAFKA_*` variables, and what in it is not understood.
    /// An empty variable counts as not set.
    pub fn from_env() -> Result<(Self, Vec<String>), ConfigErrors> {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            Some((name, value.to_string_lossy().into_owned()))
        });
        Self::from_variables(variables)
    }

    /// As [`from_env`](Self::from_env), with these variables.
    pub fn from_variables(
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(Self, Vec<String>), ConfigErrors> {
        let mut config = Self::default();
        let (mut warnings, mut problems) = (Vec::new(), Vec::new());
        for (variable, value) in variables {
            let Some(name) = variable.strip_prefix("KAFKA_") else { continue };
            if value.is_empty() {
                continue;
            }
            match config.set(&name.to_lowercase(), &value) {
                Some(Ok(())) => {}
                Some(Err(allowed)) => {
                    problems.push(format!("{variable} is {value:?}, which is not allowed: {allowed}"))
                }
                None => warnings.push(format!("{variable} is no option of kafka-courier and is ignored")),
            }
        }
        problems.extend(config.problems().iter().map(|problem| name_variable(problem)));
        warnings.sort();
        if problems.is_empty() { Ok((config, warnings)) } else { Err(ConfigErrors(problems)) }
    }

    /// Checks what types can't: bounds, and options against each other.
    pub fn validate(&self) -> Result<(), ConfigErrors> {
        let problems = self.problems();
        if problems.is_empty() { Ok(()) } else { Err(ConfigErrors(problems)) }
    }

    fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.core().problems().iter().map(ToString::to_string).collect();
        if self.brokers.is_empty() {
            problems.push("brokers is empty: name at least one, such as localhost:9092".to_owned());
        }
        if self.flush_messages == 0 {
            problems.push("flush_messages is 0, but must be at least 1".to_owned());
        }
        if self.flush_bytes < 128 {
            problems.push(format!("flush_bytes is {}, but must be at least 128", self.flush_bytes));
        }
        if self.buffer_memory < self.flush_bytes.min(1 << 20) {
            problems.push(format!(
                "buffer_memory is {}, less than one batch of flush_bytes ({}): raise it or lower flush_bytes",
                self.buffer_memory, self.flush_bytes
            ));
        }
        if self.retry_backoff_max < self.retry_backoff {
            problems.push(format!(
                "retry_backoff_max is {}, less than retry_backoff ({})",
                duration::format(self.retry_backoff_max),
                duration::format(self.retry_backoff)
            ));
        }
        if self.connect_timeout.is_zero() {
            problems.push("connect_timeout is 0s, but must be more than zero".to_owned());
        }
        for (name, value) in self.durations() {
            if value > A_YEAR {
                problems.push(format!("{name} is {}, but must be at most a year (8760h)", duration::format(value)));
            }
        }
        if self.delivery_timeout < self.flush_timeout {
            problems.push(format!(
                "delivery_timeout is {}, less than flush_timeout ({}): events would be given up before they are sent",
                duration::format(self.delivery_timeout),
                duration::format(self.flush_timeout)
            ));
        }
        if let Err(error) = TopicMapping::new().apply(&self.topic_mapping) {
            problems.push(format!("topic_mapping: {error}"));
        }
        problems
    }

    fn durations(&self) -> [(&'static str, Duration); 9] {
        [
            ("retry_backoff", self.retry_backoff),
            ("retry_backoff_max", self.retry_backoff_max),
            ("flush_timeout", self.flush_timeout),
            ("delivery_timeout", self.delivery_timeout),
            ("request_timeout", self.request_timeout),
            ("connect_timeout", self.connect_timeout),
            ("metadata_timeout", self.metadata_timeout),
            ("metadata_max_age", self.metadata_max_age),
            ("max_block", self.max_block),
        ]
    }

    pub(crate) fn core(&self) -> CoreConfig {
        CoreConfig {
            max_in_flight: self.max_in_flight,
            max_request_bytes: self.max_request_bytes,
            retry_max: self.retry_max,
            backoff: Backoff { base: self.retry_backoff, cap: self.retry_backoff_max },
            delivery_timeout: self.delivery_timeout,
            request_timeout: self.request_timeout,
            metadata_timeout: self.metadata_timeout,
            metadata_max_age: self.metadata_max_age,
            connections_per_broker: self.connections_per_broker,
            seed: fastrand::u64(..),
            ..CoreConfig::default()
        }
    }
}

/// Names the variable too, where a problem begins with an option's name.
fn name_variable(problem: &str) -> String {
    let end = problem.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(problem.len());
    let (name, rest) = problem.split_at(end);
    format!("KAFKA_{} ({name}){rest}", name.to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<(KafkaConfig, Vec<String>), ConfigErrors> {
        KafkaConfig::from_variables(variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
    }

    #[test]
    fn the_seeds_settings_are_understood() {
        let (config, warnings) = read(&[
            ("KAFKA_BROKERS", "kafka-1:9092,kafka-2:9092"),
            ("KAFKA_CLIENT_ID", "go-api-gateway"),
            ("KAFKA_RETRY_MAX", "5"),
            ("KAFKA_RETRY_BACKOFF", "100ms"),
            ("KAFKA_FLUSH_MESSAGES", "1000"),
            ("KAFKA_FLUSH_BYTES", "10485760"),
            ("KAFKA_FLUSH_TIMEOUT", "1m30s"),
            ("KAFKA_DELIVERY_TIMEOUT", "2m"),
            ("PATH", "/bin"),
        ])
        .unwrap();
        assert_eq!(config.brokers.len(), 2);
        assert_eq!((config.retry_max, config.flush_messages, config.flush_bytes), (5, 1000, 10 << 20));
        assert_eq!(config.flush_timeout, Duration::from_secs(90));
        assert!(warnings.is_empty());
    }

    #[test]
    fn what_kubernetes_sets_for_a_service_named_kafka_is_a_warning() {
        let (config, warnings) =
            read(&[("KAFKA_PORT", "tcp://10.0.0.1:9092"), ("KAFKA_SERVICE_HOST", "10.0.0.1")]).unwrap();
        assert_eq!(config, KafkaConfig::default());
        assert_eq!(warnings.len(), 2);
    }

    #[test]
    fn all_problems_are_reported_at_once_each_with_its_variable_and_value() {
        let error =
            read(&[("KAFKA_FLUSH_TIMEOUT", "5"), ("KAFKA_MAX_IN_FLIGHT", "6"), ("KAFKA_BROKERS", "::")]).unwrap_err();
        assert_eq!(error.0.len(), 3, "{error}");
        assert!(error.to_string().contains("KAFKA_FLUSH_TIMEOUT is \"5\""), "{error}");
        assert!(error.to_string().contains("KAFKA_MAX_IN_FLIGHT (max_in_flight) is 6"), "{error}");
    }

    #[test]
    fn every_default_is_read_back_from_its_own_text() {
        let variables = KafkaConfig::options().into_iter().map(|option| (option.variable, option.default));
        let (config, warnings) = KafkaConfig::from_variables(variables).unwrap();
        assert_eq!(config, KafkaConfig::default());
        assert!(warnings.is_empty());
    }

    #[test]
    fn a_time_beyond_a_year_is_an_error_and_no_panic_later() {
        let config = KafkaConfig { max_block: Duration::MAX, ..Default::default() };
        assert!(config.validate().unwrap_err().to_string().contains("max_block"));
    }

    #[test]
    fn options_that_contradict_each_other_name_both() {
        let config =
            KafkaConfig { buffer_memory: 1000, delivery_timeout: Duration::from_millis(1), ..Default::default() };
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains("buffer_memory is 1000") && error.contains("flush_bytes (1048576)"), "{error}");
        assert!(error.contains("delivery_timeout is 1ms, less than flush_timeout (1s)"), "{error}");
    }
}
