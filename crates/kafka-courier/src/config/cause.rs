//! What is wrong with a configuration.
//!
//! Rules:
//! - A cause is data. Its text continues the sentence that begins with the place or the name of its
//!   [`option`](ProblemCause::option), such as ` is 6, but must be 1 to 5`. A cause without an option is a sentence.
//! - Values are formatted, and secrets are hidden, before they become part of a cause.

use std::sync::Arc;

use kafka_courier_client::HIDDEN;
use kafka_courier_client::security::SecurityError;
use kafka_courier_dlq::OpenError;
use kafka_courier_event_model::{TopicMappingError, TopicMappingProblem, TopicNameError};
use kafka_courier_idempotent_sender::core::ConfigError as CoreError;
use kafka_courier_producer::SpoolOpenError;

use super::choices::{SaslMechanism, SecurityProtocol, SslRoots};
use super::duration;
#[cfg(feature = "config-file")]
use super::file::SettingsFileError;
use super::names::OPTIONS_HINT;
use super::source::{SettingValueError, SystemError};
use super::value::InvalidValue;

/// The kind of a [`ConfigProblem`](crate::ConfigProblem).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ConfigProblemKind {
    /// A source sets an option that does not exist, or that kafka-courier does not support.
    UnknownOption,
    /// The option does not allow the value.
    InvalidValue,
    /// Two settings or two options contradict each other.
    Contradiction,
    /// Another option requires an option that is not set.
    MissingValue,
    /// A file of settings, of one value, of a certificate or of a key cannot be used.
    UnreadableFile,
    /// A command-line argument contains a secret, which every user of the machine can read.
    SecretArgument,
    /// The file of dead letters cannot be opened.
    DeadLetterStore,
    /// The spool cannot be opened: another process has it, or its files cannot be used.
    Spool,
    /// The process lacks a tokio runtime, a thread, or support for TLS.
    Environment,
}

/// The error of opening the file of dead letters. Clones of one error are equal.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct DlqFileError(pub(super) Arc<OpenError>);

impl PartialEq for DlqFileError {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for DlqFileError {}

/// The error of opening the spool. Clones of one error are equal.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct SpoolError(pub(super) Arc<SpoolOpenError>);

impl PartialEq for SpoolError {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for SpoolError {}

/// What is wrong with a setting, with two options, or with the producer's process.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum ProblemCause {
    #[cfg(feature = "config-file")]
    #[error(": {0}")]
    SettingsFile(SettingsFileError),
    #[error(": name and value are swapped: write the name first, then the value")]
    NameAndValueSwapped,
    #[error(" is not an option of kafka-courier{}", remedy(*suggestion))]
    UnknownOption { key: String, suggestion: Option<&'static str> },
    #[error(" is not an option of kafka-courier: {instead}")]
    UnsupportedOption { key: String, instead: &'static str },
    #[error(" sets {option}, and {other} sets it too: remove one of them")]
    SetTwice { option: &'static str, other: String },
    #[error(" is set twice: remove one of them")]
    Repeated { option: &'static str },
    #[error(": {error}")]
    NoValue { option: &'static str, error: SettingValueError },
    #[error(
        " is a secret, and every user of this machine can read the arguments of a process: set KAFKA_{}, or set \
         {option}_file to a file with the secret",
        option.to_uppercase()
    )]
    SecretArgument { option: &'static str },
    #[error(" is {}, which is not allowed: must be {}", error.shown(), error.allowed())]
    InvalidValue { option: &'static str, error: InvalidValue },
    #[error(" is {value}, but must be {allowed}")]
    OutOfBounds { option: &'static str, value: String, allowed: &'static str },
    #[error(" is {value}, more than {limit} ({limit_value}): lower {option}, or raise {limit}")]
    AboveOption { option: &'static str, value: String, limit: &'static str, limit_value: String },
    #[error(" is 0, but must be at least 1: set auto_replay=false for no replay")]
    NoReplayRate,
    #[error(" is {memory}, less than one batch of flush_bytes ({batch}): raise buffer_memory or lower flush_bytes")]
    BatchExceedsMemory { memory: usize, batch: usize },
    #[error(
        " is {delivery}, less than flush_timeout ({flush}), and events would fail before they are sent: raise \
         delivery_timeout or lower flush_timeout"
    )]
    FlushExceedsDelivery { delivery: String, flush: String },
    #[error(": {0}")]
    TopicMapping(TopicMappingError),
    #[error(": {error}")]
    DlqTopicName { topic: String, error: TopicNameError },
    #[error(
        " is {topic:?}, which is also the topic of events of type {event_type}: set dlq_topic to another topic, or map \
         the type to another topic in topic_mapping"
    )]
    DlqTopicHasEvents { topic: String, event_type: String },
    #[error(" is set, but security_protocol is {protocol}, without {feature}: {remedy}")]
    WithoutEffect { option: &'static str, protocol: SecurityProtocol, feature: &'static str, remedy: &'static str },
    #[error(" is {roots}, but ssl_ca_location is {file:?}: set only one of them")]
    TwoRoots { roots: SslRoots, file: String },
    #[error(" is {file:?}, but {missing} is not set: set both the certificate and its key")]
    HalfCertificate { option: &'static str, file: String, missing: &'static str },
    #[error(
        " is not set, but security_protocol is {protocol}: set it to PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"
    )]
    NoMechanism { protocol: SecurityProtocol },
    #[error(" is set, but sasl_mechanism is {mechanism}, which uses a {credential}: unset it")]
    UnusedCredential { option: &'static str, mechanism: SaslMechanism, credential: &'static str },
    #[error(" is {username:?}, but {mechanism} needs a user name")]
    NoUsername { username: String, mechanism: SaslMechanism },
    #[error(" is unset or empty, but {mechanism} needs a password")]
    NoPassword { mechanism: SaslMechanism },
    #[error(" contains a NUL character, which SASL does not allow")]
    PasswordWithNul,
    #[error(" is {protocol}, without SASL, but a token_source is given: set it to SASL_SSL")]
    TokensWithoutSasl { protocol: SecurityProtocol },
    #[error(" is not OAUTHBEARER, but a token_source is given: set it to OAUTHBEARER")]
    TokensWithoutMechanism,
    #[error(" is {file:?}, but a token_source is given: remove one of them")]
    TwoTokenSources { file: String },
    #[error(
        " is OAUTHBEARER, but no token is given: set sasl_oauthbearer_token_location, or call token_source of the \
         builder"
    )]
    NoToken,
    #[error("{}", .0.detail())]
    Security(SecurityError),
    #[error("no tokio runtime here: build the producer inside one, such as in #[tokio::main]")]
    NoRuntime,
    #[error(": {0}")]
    DlqFile(DlqFileError),
    #[error("starting the dead-letter thread failed: {0}")]
    DeadLetterThread(SystemError),
    #[error(": {0}")]
    Spool(SpoolError),
    #[error("starting the spool's thread failed: {0}")]
    SpoolThread(SystemError),
}

fn remedy(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(|| OPTIONS_HINT.to_owned(), |near| format!(": did you mean {near}?"))
}

impl From<CoreError> for ProblemCause {
    fn from(error: CoreError) -> Self {
        match error {
            CoreError::OutOfBounds { name, value, allowed } => Self::OutOfBounds { option: name, value, allowed },
            CoreError::AboveLimit { name, value, limit, limit_value } => {
                let (value, limit_value) = (duration::format(value), duration::format(limit_value));
                Self::AboveOption { option: name, value, limit, limit_value }
            }
        }
    }
}

impl ProblemCause {
    /// Returns whether the text is a sentence of its own.
    pub(super) const fn is_sentence(&self) -> bool {
        matches!(self, Self::NoRuntime | Self::DeadLetterThread(_) | Self::SpoolThread(_))
    }

    /// Returns whether the place of the setting is followed by the option's name. Other texts contain the name, or are
    /// about the setting's file.
    pub(super) const fn names_option(&self) -> bool {
        !matches!(
            self,
            Self::UnknownOption { .. }
                | Self::UnsupportedOption { .. }
                | Self::SetTwice { .. }
                | Self::NoValue { .. }
                | Self::SecretArgument { .. }
        )
    }

    /// Returns the option, or the name that is no option.
    pub(super) fn option(&self) -> Option<&str> {
        Some(match self {
            #[cfg(feature = "config-file")]
            Self::SettingsFile(_) => return None,
            Self::NameAndValueSwapped | Self::NoRuntime => return None,
            Self::DeadLetterThread(_) | Self::SpoolThread(_) => return None,
            Self::UnknownOption { key, .. } | Self::UnsupportedOption { key, .. } => key,
            Self::SetTwice { option, .. }
            | Self::Repeated { option }
            | Self::NoValue { option, .. }
            | Self::SecretArgument { option }
            | Self::InvalidValue { option, .. }
            | Self::OutOfBounds { option, .. }
            | Self::AboveOption { option, .. }
            | Self::WithoutEffect { option, .. }
            | Self::HalfCertificate { option, .. }
            | Self::UnusedCredential { option, .. } => option,
            Self::NoReplayRate => "auto_replay_rate",
            Self::BatchExceedsMemory { .. } => "buffer_memory",
            Self::FlushExceedsDelivery { .. } => "delivery_timeout",
            Self::TopicMapping(_) => "topic_mapping",
            Self::DlqTopicName { .. } | Self::DlqTopicHasEvents { .. } => "dlq_topic",
            Self::TwoRoots { .. } => "ssl_roots",
            Self::TokensWithoutSasl { .. } => "security_protocol",
            Self::NoMechanism { .. } | Self::TokensWithoutMechanism | Self::NoToken => "sasl_mechanism",
            Self::NoUsername { .. } => "sasl_username",
            Self::NoPassword { .. } | Self::PasswordWithNul => "sasl_password",
            Self::TwoTokenSources { .. } => "sasl_oauthbearer_token_location",
            Self::Security(error) => error.option(),
            Self::DlqFile(_) => "dlq_file",
            Self::Spool(_) => "spool_dir",
        })
    }

    /// Returns the other option in the text.
    pub(super) fn related(&self) -> Option<&'static str> {
        match self {
            Self::AboveOption { limit, .. } => Some(limit),
            Self::NoReplayRate => Some("auto_replay"),
            Self::BatchExceedsMemory { .. } => Some("flush_bytes"),
            Self::FlushExceedsDelivery { .. } => Some("flush_timeout"),
            Self::TopicMapping(error) => {
                let is_reserved =
                    |problem: &TopicMappingProblem| matches!(problem, TopicMappingProblem::Reserved { .. });
                error.problems.iter().any(is_reserved).then_some("dlq_topic")
            }
            Self::DlqTopicHasEvents { .. } => Some("topic_mapping"),
            Self::WithoutEffect { .. } | Self::NoMechanism { .. } => Some("security_protocol"),
            Self::TwoRoots { .. } => Some("ssl_ca_location"),
            Self::HalfCertificate { missing, .. } => Some(missing),
            Self::UnusedCredential { .. } => Some("sasl_mechanism"),
            _ => None,
        }
    }

    /// Returns the rejected value. A secret is [`HIDDEN`].
    pub(super) fn value(&self) -> Option<String> {
        match self {
            Self::InvalidValue { error, .. } => Some(error.value().to_owned()),
            Self::OutOfBounds { value, .. } | Self::AboveOption { value, .. } => Some(value.clone()),
            Self::NoReplayRate => Some("0".to_owned()),
            Self::BatchExceedsMemory { memory, .. } => Some(memory.to_string()),
            Self::FlushExceedsDelivery { delivery, .. } => Some(delivery.clone()),
            Self::DlqTopicName { topic, .. } | Self::DlqTopicHasEvents { topic, .. } => Some(topic.clone()),
            Self::TwoRoots { roots, .. } => Some(roots.to_string()),
            Self::HalfCertificate { file, .. } | Self::TwoTokenSources { file } => Some(file.clone()),
            Self::NoUsername { username, .. } => Some(username.clone()),
            Self::TokensWithoutSasl { protocol } => Some(protocol.to_string()),
            Self::NoToken => Some(SaslMechanism::OAuthBearer.to_string()),
            Self::SecretArgument { .. } | Self::PasswordWithNul => Some(HIDDEN.to_owned()),
            _ => None,
        }
    }

    /// Returns the values that the option allows, as a phrase after "must be".
    pub(super) fn allowed(&self) -> Option<String> {
        match self {
            Self::InvalidValue { error, .. } => Some(error.allowed().to_string()),
            Self::OutOfBounds { allowed, .. } => Some((*allowed).to_owned()),
            Self::AboveOption { limit_value, .. } => Some(format!("at most {limit_value}")),
            Self::NoReplayRate => Some("at least 1".to_owned()),
            Self::BatchExceedsMemory { batch, .. } => Some(format!("at least {batch}")),
            Self::FlushExceedsDelivery { flush, .. } => Some(format!("at least {flush}")),
            Self::NoMechanism { .. } => Some("PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER".to_owned()),
            Self::TokensWithoutMechanism => Some(SaslMechanism::OAuthBearer.to_string()),
            Self::TokensWithoutSasl { .. } => Some(SecurityProtocol::SaslSsl.to_string()),
            _ => None,
        }
    }

    /// Returns the kind of the problem.
    pub(super) fn kind(&self) -> ConfigProblemKind {
        match self {
            #[cfg(feature = "config-file")]
            Self::SettingsFile(_) => ConfigProblemKind::UnreadableFile,
            Self::NameAndValueSwapped | Self::UnknownOption { .. } | Self::UnsupportedOption { .. } => {
                ConfigProblemKind::UnknownOption
            }
            Self::NoValue { error: SettingValueError::Unreadable { .. }, .. } => ConfigProblemKind::UnreadableFile,
            Self::NoUsername { username, .. } if username.is_empty() => ConfigProblemKind::MissingValue,
            Self::NoValue { .. }
            | Self::InvalidValue { .. }
            | Self::OutOfBounds { .. }
            | Self::NoReplayRate
            | Self::TopicMapping(_)
            | Self::DlqTopicName { .. }
            | Self::NoUsername { .. }
            | Self::PasswordWithNul => ConfigProblemKind::InvalidValue,
            Self::SecretArgument { .. } => ConfigProblemKind::SecretArgument,
            Self::SetTwice { .. }
            | Self::Repeated { .. }
            | Self::AboveOption { .. }
            | Self::BatchExceedsMemory { .. }
            | Self::FlushExceedsDelivery { .. }
            | Self::DlqTopicHasEvents { .. }
            | Self::WithoutEffect { .. }
            | Self::TwoRoots { .. }
            | Self::UnusedCredential { .. }
            | Self::TokensWithoutSasl { .. }
            | Self::TokensWithoutMechanism
            | Self::TwoTokenSources { .. } => ConfigProblemKind::Contradiction,
            Self::HalfCertificate { .. } | Self::NoMechanism { .. } | Self::NoPassword { .. } | Self::NoToken => {
                ConfigProblemKind::MissingValue
            }
            Self::Security(error) if error.is_about_file() => ConfigProblemKind::UnreadableFile,
            Self::Security(_) | Self::NoRuntime | Self::DeadLetterThread(_) | Self::SpoolThread(_) => {
                ConfigProblemKind::Environment
            }
            Self::DlqFile(_) => ConfigProblemKind::DeadLetterStore,
            Self::Spool(_) => ConfigProblemKind::Spool,
        }
    }
}
