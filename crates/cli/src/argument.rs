//! Errors of values on the command line.
//!
//! Rule: clap prints the argument before the error, so the error names only what is expected. It contains no part of the
//! value, which may be a secret.

use kafka_courier::{EndpointError, events::TopicNameError};

/// Why a value on the command line is invalid.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ArgumentError {
    #[error("topic: {0}")]
    TopicName(TopicNameError),
    /// The name may be a secret.
    #[error("topic: only a-z, A-Z, 0-9, '.', '_' and '-' are allowed, up to 249 characters")]
    HiddenTopicName,
    /// `--topic` could mean the store or, as in `courier publish`, the destination.
    #[error(
        "use --store-topic for the topic that holds the dead letters, or `dlq replay --to-topic` for their destination"
    )]
    FormerTopicOption,
    #[error("expected a whole number, such as 100")]
    NotANumber,
    #[error("the number is too large: use a smaller one")]
    NumberTooLarge,
    #[error("must be at least 1")]
    Zero,
    #[error("expected a number of events, 0 or more")]
    NotACount,
    #[error("expected a number of events from 1 to {max}")]
    NoEventCount { max: u64 },
    #[error("unknown Kafka error{}", similar_names(similar))]
    UnknownErrorName { similar: Vec<&'static str> },
    #[error(
        "expected a time such as 2024-01-15T10:00:00Z, a day such as 2024-01-15, or an age such as 15m, 1h30m or 2d"
    )]
    NotATime,
    #[error("the age is too large")]
    AgeTooLarge,
    #[error("the day is out of range")]
    DayOutOfRange,
    #[error("expected OPTION=VALUE, such as flush_timeout=5ms")]
    NotASetting,
    #[error("expected the address of a probe, such as http://127.0.0.1:9090/readyz")]
    NotAProbe,
    #[error("not UTF-8")]
    NotUtf8,
    #[error(transparent)]
    Broker(#[from] EndpointError),
}

fn similar_names(names: &[&str]) -> String {
    if names.is_empty() { String::new() } else { format!(", similar names: {}", names.join(", ")) }
}
