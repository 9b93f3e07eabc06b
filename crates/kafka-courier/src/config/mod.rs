//! The producer's options: one table of names, defaults and documentation, and the sources that set them.
//!
//! Rules:
//! - The table below lists every option once. An option's environment variable is `KAFKA_` and its name in capitals.
//! - All problems are reported together. Each problem names the option, the value and the allowed values.
//! - No table and no error shows a secret.

mod cause;
mod check;
mod choices;
mod duration;
mod endpoint;
#[cfg(feature = "config-file")]
mod file;
mod load;
mod names;
mod origin;
mod problem;
mod resolve;
mod security;
mod source;
mod tree;
mod value;
mod warning;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use cause::ConfigProblemKind;
pub use choices::{Compression, SaslMechanism, SecurityProtocol, SpoolDoubt, SpoolFull, SpoolOldTimestamps, SslRoots};
pub use endpoint::{Endpoint, EndpointError};
pub use load::ConfigLoader;
pub use origin::Origin;
pub use problem::{ConfigErrors, ConfigProblem};
pub use resolve::{EffectiveOption, LoadedConfig};
pub use value::{AllowedValues, InvalidValue};
pub use warning::ConfigWarning;

pub(crate) use value::OptionValue;

use kafka_courier_client::{HIDDEN, Secret, may_be_content};
use kafka_courier_dlq::Overflow;
use kafka_courier_idempotent_sender::core::{Backoff, Config as CoreConfig, DoubtPolicy};

/// The documentation of an option.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct OptionDoc {
    /// The option's name, as in a file.
    pub name: &'static str,
    /// The option's environment variable.
    pub variable: String,
    /// The option's default, as text.
    pub default: String,
    /// The option's meaning.
    pub help: String,
    /// Whether the option's value is never shown.
    pub secret: bool,
}

macro_rules! options {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ty = $default:expr;)+) => {
        /// The producer's options. `Default` returns the documented defaults.
        #[derive(Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct KafkaConfig {
            $($(#[doc = $doc])+ pub $name: $kind,)+
        }

        /// Hides secrets, including secrets that were given instead of a file's path.
        impl fmt::Debug for KafkaConfig {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut shown = f.debug_struct("KafkaConfig");
                $(match is_misplaced(stringify!($name), &OptionValue::write(&self.$name)) {
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
            /// The name of every option.
            const NAMES: &'static [&'static str] = &[$(stringify!($name)),+];

            /// Sets the option `name` from text.
            fn set(&mut self, name: &str, text: &str) -> Result<(), InvalidValue> {
                match name {
                    $(stringify!($name) => self.$name = OptionValue::parse(text)?,)+
                    _ => return Err(InvalidValue::hidden(AllowedValues::Other("a value of an option".to_owned()))),
                }
                Ok(())
            }

            /// Returns the name and value of every option, and whether the value is a secret. Secrets are hidden.
            fn values(&self) -> Vec<(&'static str, String, bool)> {
                vec![$((stringify!($name), OptionValue::write(&self.$name), <$kind as OptionValue>::SECRET),)+]
            }

            /// Returns whether the value of the option `name` is never shown.
            fn is_secret(name: &str) -> bool {
                match name {
                    $(stringify!($name) => <$kind as OptionValue>::SECRET,)+
                    _ => false,
                }
            }

            /// Returns every option that is a duration.
            fn durations(&self) -> Vec<(&'static str, Duration)> {
                let all = [$((stringify!($name), OptionValue::duration(&self.$name)),)+];
                all.into_iter().filter_map(|(name, time)| Some((name, time?))).collect()
            }

            /// Returns the documentation of every option, in the order of the table.
            pub fn options() -> Vec<OptionDoc> {
                let defaults = Self::default();
                vec![$(OptionDoc {
                    name: stringify!($name),
                    variable: format!("KAFKA_{}", stringify!($name).to_uppercase()),
                    default: OptionValue::write(&defaults.$name),
                    help: concat!($($doc),+).trim().to_owned(),
                    secret: <$kind as OptionValue>::SECRET,
                },)+]
            }
        }

    };
}

/// Returns whether an option that takes a file's path contains the file's content instead. Such a text is not shown.
fn is_misplaced(name: &str, text: &str) -> bool {
    name.ends_with("_location") && may_be_content(text)
}

options! {
    /// The addresses of one or more bootstrap brokers, as host:port, separated by commas.
    brokers: Vec<Endpoint> = vec![Endpoint { host: "localhost".into(), port: 9092 }];
    /// The client id, which brokers write to their logs.
    client_id: String = "kafka-courier".to_owned();
    /// The maximum number of retries of a batch after errors of the write itself. The time spent waiting for the
    /// cluster is bounded by delivery_timeout instead.
    retry_max: u32 = 3;
    /// The wait before the first retry. The wait doubles with each further retry, with jitter.
    retry_backoff: Duration = Duration::from_millis(100);
    /// The longest wait between retries. If only `retry_backoff` is set, the longest wait is at least `retry_backoff`.
    retry_backoff_max: Duration = Duration::from_secs(1);
    /// A batch is sent when it holds this many events.
    flush_messages: u32 = 100;
    /// A batch is sent when another event would make it larger than this number of bytes on the wire, before
    /// compression.
    flush_bytes: usize = 1 << 20;
    /// A batch is sent when its first event is this old.
    flush_timeout: Duration = Duration::from_secs(1);
    /// Whether a batch with an awaited delivery leaves without waiting for flush_timeout, once no earlier batch of its
    /// partition is in flight.
    expedite: bool = true;
    /// The longest time from publish to verdict. Events fail if an outage lasts longer.
    delivery_timeout: Duration = Duration::from_secs(30);
    /// How long a broker may take to answer a request.
    request_timeout: Duration = Duration::from_secs(10);
    /// How long opening a connection may take.
    connect_timeout: Duration = Duration::from_secs(3);
    /// How long a topic may be unknown to the cluster before its events fail.
    metadata_timeout: Duration = Duration::from_secs(10);
    /// The age at which metadata is refreshed automatically.
    metadata_max_age: Duration = Duration::from_secs(300);
    /// Memory for events that have no verdict yet, in bytes. With a spool, a quarter of it is for stored events on their way
    /// to Kafka. The disk alone has the others.
    buffer_memory: usize = 32 << 20;
    /// How long publishing waits for memory before it fails.
    max_block: Duration = Duration::from_secs(10);
    /// The maximum number of unanswered batches of a partition, 1 to 5.
    max_in_flight: u32 = 5;
    /// The maximum total size of the batches in one request, in bytes.
    max_request_bytes: usize = 8 << 20;
    /// The maximum number of connections to one broker. The producer opens them as the load requires.
    connections_per_broker: u32 = 4;
    /// The compression of batches: none or snappy.
    compression: Compression = Compression::Snappy;
    /// The protocol of connections to brokers: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.
    security_protocol: SecurityProtocol = SecurityProtocol::Plaintext;
    /// The SASL mechanism: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER.
    sasl_mechanism: Option<SaslMechanism> = None;
    /// The user name for PLAIN and SCRAM.
    sasl_username: String = String::new();
    /// The user's password.
    sasl_password: Option<Secret> = None;
    /// A file with the token for OAUTHBEARER. The producer reads the file again for each connection.
    sasl_oauthbearer_token_location: String = String::new();
    /// A PEM file with the trusted certificate authorities, instead of ssl_roots.
    ssl_ca_location: String = String::new();
    /// The trusted certificate authorities if ssl_ca_location is empty: compiled-in (Mozilla's) or system (the
    /// operating system's).
    ssl_roots: SslRoots = SslRoots::CompiledIn;
    /// A PEM file with the client certificate and its intermediate certificates.
    ssl_certificate_location: String = String::new();
    /// A PEM file with the client certificate's private key, not encrypted: PKCS#8, PKCS#1 or SEC1.
    ssl_key_location: String = String::new();
    /// Whether any broker certificate is accepted, with a warning at each connection. An attacker on the network path
    /// can then read and change everything.
    insecure_skip_verify: bool = false;
    /// Topics of event types, beyond the defaults: type=topic,type=topic. user.* matches each type that begins with
    /// user., and * matches any other type.
    topic_mapping: String = String::new();
    /// The maximum number of dead letters in memory. A further dead letter drops the oldest, with an error line that
    /// contains the oldest whole.
    dlq_buffer: usize = 1000;
    /// A file for dead letters, created if it is missing. One process at a time holds the file. Empty for no file.
    dlq_file: String = String::new();
    /// The maximum number of dead letters in the file, 0 for no limit.
    dlq_max_letters: usize = 0;
    /// The maximum size of the dead letters in the file, in bytes, 0 for no limit.
    dlq_max_bytes: usize = 1 << 30;
    /// The age at which dead letters in the file are dropped, each with an error line that contains it whole, 0s for
    /// never. A dead-letter topic with a shorter retention.ms causes a warning.
    dlq_max_age: Duration = Duration::ZERO;
    /// The behaviour of a full file: refuse (the next store takes the dead letter) or drop_oldest (an error line
    /// contains the dropped dead letter whole).
    dlq_overflow: Overflow = Overflow::Refuse;
    /// A Kafka topic for dead letters, tried before any other store. Empty for no topic. No event may be mapped to it.
    /// Dead letters that an unreachable cluster causes skip the topic. A compacted topic is refused.
    dlq_topic: String = String::new();
    /// A folder for accepted events, created if it is missing. Events are on disk before they are sent, and a later
    /// process with the same folder delivers the events that this process left. One process at a time holds the folder.
    /// Dead letters are in dead-letters.redb in this folder if neither dlq_file nor dlq_topic is set. Empty for no spool.
    spool_dir: String = String::new();
    /// The maximum size of the spool's files, in bytes, at least 64 MiB.
    spool_max_bytes: u64 = 10 << 30;
    /// The bytes that the spool leaves free on its file system. Empty for the smaller of 1 GiB and a tenth of the file
    /// system.
    spool_keep_free: Option<u64> = None;
    /// The behaviour of a full spool: refuse (publishing fails, and nothing of the event is kept) or block (publishing
    /// waits for room, up to max_block).
    spool_full: SpoolFull = SpoolFull::Refuse;
    /// The time after which the spool stores facts that no caller waits for, such as deliveries. Events are stored
    /// immediately.
    spool_idle_sync: Duration = Duration::from_millis(100);
    /// Whether the spool may be on a file system whose syncs promise nothing. A folder in memory or on a network file
    /// system (tmpfs, ramfs, NFS, SMB, Ceph, 9P and others) is otherwise refused, and a container's layer (overlay) and
    /// FUSE cause a warning. File systems are checked on Linux alone.
    spool_any_filesystem: bool = false;
    /// The record timestamps of stored events that have waited for 12 hours: renew (they move to the time of sending, so
    /// that leaders remember the producer id, and topics with a limit on age take the events) or keep. Events that a leader
    /// refuses because of their timestamps are renewed, too. The event's own time stays.
    spool_old_timestamps: SpoolOldTimestamps = SpoolOldTimestamps::Renew;
    /// The fate of stored events that an earlier process may have sent, if nothing can show whether Kafka has them:
    /// dead_letter (a dead letter with the outcome unknown), hold (their partition waits, for example for the right to read
    /// the topic) or resend (they are sent again, and may be in the log twice). Events that a broker rejects are dead
    /// letters in each case.
    spool_doubt: SpoolDoubt = SpoolDoubt::DeadLetter;
    /// Whether dead letters are replayed automatically once the cluster is healthy, if they are certainly not in the
    /// log and their cause is temporary.
    auto_replay: bool = false;
    /// The interval between checks for dead letters to replay automatically.
    auto_replay_interval: Duration = Duration::from_secs(30);
    /// The maximum number of dead letters that are replayed automatically per second.
    auto_replay_rate: u32 = 100;
}

impl KafkaConfig {
    /// Checks the bounds of options, and options that depend on each other.
    ///
    /// # Errors
    /// Returns all problems.
    pub fn validate(&self) -> Result<(), ConfigErrors> {
        let problems = self.problems();
        if problems.is_empty() { Ok(()) } else { Err(problems.into()) }
    }

    /// Raises `retry_backoff_max` to `retry_backoff`, for sources that set only `retry_backoff`.
    pub(crate) fn raise_backoff_max(&mut self) {
        self.retry_backoff_max = self.retry_backoff_max.max(self.retry_backoff);
    }

    /// Returns the default broker if no other broker is set.
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
            doubt: match self.spool_doubt {
                SpoolDoubt::DeadLetter => DoubtPolicy::Fail,
                SpoolDoubt::Hold => DoubtPolicy::Hold,
                SpoolDoubt::Resend => DoubtPolicy::Resend,
            },
            renews_timestamps: self.spool_old_timestamps == SpoolOldTimestamps::Renew,
            seed: fastrand::u64(..),
            ..CoreConfig::default()
        }
    }
}

#[cfg(test)]
mod tests;
