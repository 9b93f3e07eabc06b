//! Warnings about a valid configuration.
//!
//! Rule: a warning stops nothing. Everything that prevents a producer is a problem ([`ConfigErrors`](super::ConfigErrors)).

/// A warning about a valid configuration. `Display` names the setting and the remedy.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigWarning {
    /// A `KAFKA_*` variable names no option. It is ignored, because Kubernetes sets `KAFKA_PORT` for a service named kafka.
    #[error("{variable} is not an option of kafka-courier and is ignored{}", question(suggestion.as_deref()))]
    UnknownVariable {
        /// The variable, or `KAFKA_***` if the name may be a secret.
        variable: String,
        /// A variable with a similar name.
        suggestion: Option<String>,
    },
    /// A `KAFKA_*` variable names a setting of another client that kafka-courier does not have. It is ignored.
    #[error("{variable} is not an option of kafka-courier and is ignored: {instead}")]
    UnsupportedVariable {
        /// The variable.
        variable: String,
        /// The behaviour of kafka-courier, or the option to use.
        instead: &'static str,
    },
    /// A variable is ignored, because another one with the same meaning is set.
    #[error("{variable} is ignored: {preferred} is set too")]
    IgnoredVariable {
        /// The ignored variable.
        variable: &'static str,
        /// The variable that takes precedence.
        preferred: &'static str,
    },
    /// The certificates of brokers are not verified.
    #[error(
        "insecure_skip_verify is set: certificates of brokers are not verified, and any server may act as a broker"
    )]
    UnverifiedBrokers,
    /// The password crosses the network in clear text.
    #[error(
        "sasl_mechanism is PLAIN, but security_protocol is SASL_PLAINTEXT, and the password crosses the network in clear \
         text: set security_protocol to SASL_SSL, or sasl_mechanism to a SCRAM mechanism"
    )]
    ReadablePassword,
}

fn question(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |name| format!(": did you mean {name}?"))
}

/// Logs each warning.
pub(super) fn log(warnings: &[ConfigWarning]) {
    for warning in warnings {
        tracing::warn!(%warning, "configuration warning");
    }
}
