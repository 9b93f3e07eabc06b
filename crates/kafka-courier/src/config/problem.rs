//! The problems of a merged configuration.
//!
//! Rules: the text of a problem begins with the name of its [`option`](ConfigProblem::option). The other options in the
//! text are [`related`](ConfigProblem::related).

use kafka_courier_event_model::{TopicMappingError, TopicMappingProblem, TopicNameError};
use kafka_courier_idempotent_sender::core::ConfigError as CoreProblem;

/// A problem with the value of an option, or between two options. Values are formatted, and secrets are hidden.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ConfigProblem {
    /// A problem that the core of the sender reports.
    #[error("{problem}")]
    Core { problem: CoreProblem, related: Option<&'static str> },
    #[error("{option} is {value}, but must be {allowed}")]
    NotAllowed { option: &'static str, value: String, allowed: &'static str },
    #[error("auto_replay_rate is 0, but must be at least 1: set auto_replay=false for no replay")]
    NoReplayRate,
    #[error(
        "buffer_memory is {memory}, less than one batch of flush_bytes ({batch}): raise buffer_memory or lower \
         flush_bytes"
    )]
    BatchExceedsMemory { memory: usize, batch: usize },
    #[error(
        "delivery_timeout is {delivery}, less than flush_timeout ({flush}), and events would fail before they are \
         sent: raise delivery_timeout or lower flush_timeout"
    )]
    FlushExceedsDelivery { delivery: String, flush: String },
    #[error("topic_mapping: {0}")]
    TopicMapping(TopicMappingError),
    #[error("dlq_topic: {0}")]
    DlqTopicName(TopicNameError),
    #[error(
        "dlq_topic is {topic:?}, which is also the topic of events of type {event_type}: set dlq_topic to another \
         topic, or map the type to another topic in topic_mapping"
    )]
    DlqTopicHasEvents { topic: String, event_type: String },
    #[error("{option} is set, but security_protocol is {protocol}, without {feature}: {remedy}")]
    WithoutEffect { option: &'static str, protocol: String, feature: &'static str, remedy: &'static str },
    #[error("ssl_roots is {roots}, but ssl_ca_location is {file:?}: set only one of them")]
    TwoRoots { roots: String, file: String },
    #[error("{option} is {file:?}, but {missing} is not set: set both the certificate and its key")]
    HalfCertificate { option: &'static str, file: String, missing: &'static str },
    #[error(
        "sasl_mechanism is not set, but security_protocol is {protocol}: set it to PLAIN, SCRAM-SHA-256, \
         SCRAM-SHA-512 or OAUTHBEARER"
    )]
    NoMechanism { protocol: String },
    #[error("{option} is set, but sasl_mechanism is {mechanism}, which uses a {credential}: unset it")]
    UnusedCredential { option: &'static str, mechanism: String, credential: &'static str },
    #[error("sasl_username is {username:?}, but {mechanism} needs a user name")]
    NoUsername { username: String, mechanism: String },
    #[error("sasl_password is unset or empty, but {mechanism} needs a password")]
    NoPassword { mechanism: String },
    #[error("sasl_password contains a NUL character, which SASL does not allow")]
    PasswordWithNul,
}

impl ConfigProblem {
    /// Returns the option with which the problem's text begins.
    pub(super) fn option(&self) -> &'static str {
        match self {
            Self::Core { problem, .. } => problem.name,
            Self::NotAllowed { option, .. }
            | Self::WithoutEffect { option, .. }
            | Self::HalfCertificate { option, .. }
            | Self::UnusedCredential { option, .. } => option,
            Self::NoReplayRate => "auto_replay_rate",
            Self::BatchExceedsMemory { .. } => "buffer_memory",
            Self::FlushExceedsDelivery { .. } => "delivery_timeout",
            Self::TopicMapping(_) => "topic_mapping",
            Self::DlqTopicName(_) | Self::DlqTopicHasEvents { .. } => "dlq_topic",
            Self::TwoRoots { .. } => "ssl_roots",
            Self::NoMechanism { .. } => "sasl_mechanism",
            Self::NoUsername { .. } => "sasl_username",
            Self::NoPassword { .. } | Self::PasswordWithNul => "sasl_password",
        }
    }

    /// Returns the other option in the problem's text.
    pub(super) fn related(&self) -> Option<&'static str> {
        match self {
            Self::Core { related, .. } => *related,
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
            Self::NotAllowed { .. }
            | Self::DlqTopicName(_)
            | Self::NoUsername { .. }
            | Self::NoPassword { .. }
            | Self::PasswordWithNul => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_begin_with_their_option() {
        let value = || "x".to_owned();
        let core = CoreProblem { name: "retry_backoff", value: value(), allowed: "y" };
        for problem in [
            ConfigProblem::Core { problem: core, related: None },
            ConfigProblem::NotAllowed { option: "brokers", value: value(), allowed: "y" },
            ConfigProblem::NoReplayRate,
            ConfigProblem::BatchExceedsMemory { memory: 1, batch: 2 },
            ConfigProblem::FlushExceedsDelivery { delivery: value(), flush: value() },
            ConfigProblem::TopicMapping(TopicMappingProblem::Twice { event_type: value() }.into()),
            ConfigProblem::DlqTopicHasEvents { topic: value(), event_type: value() },
            ConfigProblem::WithoutEffect { option: "ssl_roots", protocol: value(), feature: "TLS", remedy: "y" },
            ConfigProblem::TwoRoots { roots: value(), file: value() },
            ConfigProblem::HalfCertificate { option: "ssl_key_location", file: value(), missing: "z" },
            ConfigProblem::NoMechanism { protocol: value() },
            ConfigProblem::UnusedCredential { option: "sasl_username", mechanism: value(), credential: "token" },
            ConfigProblem::NoUsername { username: value(), mechanism: value() },
            ConfigProblem::NoPassword { mechanism: value() },
            ConfigProblem::PasswordWithNul,
        ] {
            let text = problem.to_string();
            assert!(text.starts_with(problem.option()), "{text}");
            assert!(problem.related().is_none_or(|related| text.contains(related)), "{text}");
        }
    }
}
