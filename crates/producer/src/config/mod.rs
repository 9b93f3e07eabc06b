//! The producer's settings: one table for their names, defaults, documentation and reading.
//!
//! Rules:
//! - Every option stands once, in the table below; its variable is `KAFKA_` and its name in capitals.
//! - All problems are reported at once, each with the option, the value and what is allowed.
//! - What is secret is never shown: not in a table, not in an error.

mod check;
mod duration;
#[cfg(feature = "config-file")]
mod file;
mod load;
mod names;
mod resolve;
mod security;
mod tree;
mod value;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use load::ConfigLoader;
pub use resolve::{EffectiveOption, LoadedConfig, Origin};
pub use security::{SaslMechanism, SecurityProtocol, SslRoots};
pub use value::{Compression, Endpoint};

pub(crate) use value::Value;

use kafka_courier_dlq::Overflow;
use kafka_courier_idempotent_sender::core::{Backoff, Config as CoreConfig};
use kafka_courier_idempotent_sender::{HIDDEN, Secret, may_be_content};

use crate::error::debug_as_display;

/// An option as the documentation lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
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

/// A text that an option does not take.
#[derive(Debug)]
pub(crate) struct SetError {
    /// The text, unless it is a secret.
    shown: String,
    allowed: String,
}

macro_rules! options {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ty = $default:expr;)+) => {
        /// The producer's settings. `Default` gives the documented defaults.
        #[derive(Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct KafkaConfig {
            $($(#[doc = $doc])+ pub $name: $kind,)+
        }

        /// Without secrets, those included that were written where a file's path belongs.
        impl fmt::Debug for KafkaConfig {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut shown = f.debug_struct("KafkaConfig");
                $(match is_misplaced(stringify!($name), &Value::write(&self.$name)) {
                    true => shown.field(stringify!($name), &HIDDEN),
                    false => shown.field(stringify!($name), &self.$name),
                };)+
                shown.finish()
            }
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
            /// Every option's name.
            const NAMES: &'static [&'static str] = &[$(stringify!($name)),+];

            /// Sets an option from text.
            fn set(&mut self, name: &str, text: &str) -> Result<(), SetError> {
                match name {
                    $(stringify!($name) => match Value::read(text) {
                        Ok(value) => {
                            self.$name = value;
                            Ok(())
                        }
                        Err(allowed) => Err(SetError { shown: <$kind as Value>::shown(text), allowed }),
                    },)+
                    _ => Err(SetError { shown: HIDDEN.to_owned(), allowed: "there is no such option".to_owned() }),
                }
            }

            /// Every option's value as text, and whether it is a secret, which is hidden.
            fn values(&self) -> Vec<(&'static str, String, bool)> {
                vec![$((stringify!($name), Value::write(&self.$name), <$kind as Value>::SECRET),)+]
            }

            /// Whether an option's value is never shown.
            fn is_secret(name: &str) -> bool {
                match name {
                    $(stringify!($name) => <$kind as Value>::SECRET,)+
                    _ => false,
                }
            }

            /// Every option that is a time.
            fn durations(&self) -> Vec<(&'static str, Duration)> {
                let all = [$((stringify!($name), Value::duration(&self.$name)),)+];
                all.into_iter().filter_map(|(name, time)| Some((name, time?))).collect()
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

/// Whether an option that names a file holds what the file should: its text must not be shown then.
fn is_misplaced(name: &str, text: &str) -> bool {
    name.ends_with("_location") && may_be_content(text)
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
    /// The longest wait between tries; where only `retry_backoff` is set, at least that.
    retry_backoff_max: Duration = Duration::from_secs(1);
    /// A batch is sent when it holds this many events.
    flush_messages: u32 = 100;
    /// A batch is sent when another event would make it larger than this on the wire, before compression.
    flush_bytes: usize = 1 << 20;
    /// A batch is sent when its first event is this old.
    flush_timeout: Duration = Duration::from_secs(1);
    /// Whether a batch that somebody awaits leaves without waiting for flush_timeout: as soon as nothing of its partition is on its way.
    expedite: bool = true;
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
    /// What is spoken to brokers: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.
    security_protocol: SecurityProtocol = SecurityProtocol::Plaintext;
    /// How we say who we are: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER.
    sasl_mechanism: Option<SaslMechanism> = None;
    /// The user, for PLAIN and SCRAM.
    sasl_username: String = String::new();
    /// The user's password.
    sasl_password: Option<Secret> = None;
    /// File with the token for OAUTHBEARER; it is read anew for each connection.
    sasl_oauthbearer_token_location: String = String::new();
    /// PEM file with the certificate authorities that are trusted, instead of ssl_roots.
    ssl_ca_location: String = String::new();
    /// Authorities that are trusted without ssl_ca_location: compiled-in (Mozilla's) or system (the operating system's).
    ssl_roots: SslRoots = SslRoots::CompiledIn;
    /// PEM file with the certificate that is shown to brokers, and those between it and its authority's.
    ssl_certificate_location: String = String::new();
    /// PEM file with that certificate's private key, not encrypted: PKCS#8, PKCS#1 or SEC1.
    ssl_key_location: String = String::new();
    /// Takes any broker for the right one, with a warning at each connection: whoever is in between reads and changes everything.
    insecure_skip_verify: bool = false;
    /// Where types of events go, beyond the defaults: type=topic,type=topic. user.* is each type that begins with user., * any other.
    topic_mapping: String = String::new();
    /// Dead letters that are kept in memory; beyond them the oldest goes, with an error line that holds it whole.
    dlq_buffer: usize = 1000;
    /// A file for dead letters, made if there is none; one process at a time has it. None if it is empty.
    dlq_file: String = String::new();
    /// At most so many dead letters in the file; 0 for no limit.
    dlq_max_letters: usize = 0;
    /// At most so many bytes of dead letters in the file; 0 for no limit.
    dlq_max_bytes: usize = 1 << 30;
    /// Dead letters in the file that are older are dropped, each with an error line that holds it whole; 0s for never. A topic whose retention.ms is shorter is warned of.
    dlq_max_age: Duration = Duration::ZERO;
    /// What a full file does: refuse (the letter goes to the next store) or drop_oldest (with an error line that holds it whole).
    dlq_overflow: Overflow = Overflow::Refuse;
    /// A Kafka topic for dead letters, before any other store; none if it is empty. No event may go to it. Letters of an absent cluster go to the next store. A compacted topic is refused.
    dlq_topic: String = String::new();
    /// Whether dead letters are sent again unasked, once the cluster is healthy: those that are certainly not in the log and whose cause passes.
    auto_replay: bool = false;
    /// How often it is looked whether there is something to send again.
    auto_replay_interval: Duration = Duration::from_secs(30);
    /// At most so many dead letters are sent again unasked in a second.
    auto_replay_rate: u32 = 100;
}

/// Everything that is wrong with a configuration, a line for each. Where several sources are put together
/// ([`ConfigLoader`]) their warnings follow, each of which begins with `warning: `.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<String>);

debug_as_display!(ConfigErrors);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}

impl KafkaConfig {
    /// Checks what types can't: bounds, and options against each other.
    pub fn validate(&self) -> Result<(), ConfigErrors> {
        let problems = self.problems();
        if problems.is_empty() { Ok(()) } else { Err(ConfigErrors(problems)) }
    }

    /// Where only the first wait between tries is set, the longest is no shorter.
    pub(crate) fn lift_longest_wait(&mut self) {
        self.retry_backoff_max = self.retry_backoff_max.max(self.retry_backoff);
    }

    /// The broker that is tried because no other is set.
    pub(crate) fn default_broker(&self) -> Option<(Arc<str>, u16)> {
        let defaults = Self::default().brokers;
        let broker = defaults.first().filter(|_| self.brokers == defaults)?;
        Some((broker.host.clone(), broker.port))
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

#[cfg(test)]
mod tests;
