//! What can go wrong: before an event is accepted ([`PublishError`]), and after ([`DeliveryError`]); [`Error`] is either.
//!
//! Rules: an event with a `PublishError` was never accepted, and nothing of it is kept; an accepted one
//! gets a verdict, and `DeliveryError` says whether it may be in the log all the same.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kafka_courier_event_model::{EncodeError, TopicNameError};
use kafka_courier_idempotent_sender::core::{ErrorCode, FailedOutcome, Failure, Reason};

use crate::clock::ClockOf;

/// Why an event was not accepted.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The event has no JSON.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The topic's name is not allowed.
    #[error(transparent)]
    TopicName(#[from] TopicNameError),
    /// The event is larger than a batch may be.
    #[error("the event takes {size} bytes as a batch of its own, more than the {limit} that {what} allows")]
    TooLarge {
        /// What it would take on the wire.
        size: usize,
        /// What is allowed.
        limit: usize,
        /// What allows no more.
        what: &'static str,
    },
    /// No memory became free in time.
    #[error(
        "no room in buffer_memory for {needed} bytes within {waited:?}: the cluster takes events more slowly than they are published"
    )]
    BufferFull {
        /// How much was wanted.
        needed: usize,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The topic can't be had.
    #[error("topic {topic}: {reason}")]
    Topic {
        /// The topic.
        topic: Arc<str>,
        /// Why.
        #[source]
        reason: Reason,
    },
    /// The topic's partitions are not known yet, and waiting for them was not wanted. It was asked for.
    #[error("topic {topic}: its partitions are not known yet; it was asked for")]
    TopicPending {
        /// The topic.
        topic: Arc<str>,
    },
    /// The topic has no such partition.
    #[error("topic {topic} has partitions 0 to {highest}, not {partition}")]
    Partition {
        /// The topic.
        topic: Arc<str>,
        /// What was asked for.
        partition: i32,
        /// The highest there is.
        highest: i32,
    },
    /// The producer was closed.
    #[error("the producer is closed")]
    Closed,
}

impl PublishError {
    /// The name of its kind, such as `too_large`: the label `reason` of the metric of refused events.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Encode(_) => "encode",
            Self::TopicName(_) => "topic_name",
            Self::TooLarge { .. } => "too_large",
            Self::BufferFull { .. } => "buffer_full",
            Self::Topic { .. } => "topic",
            Self::TopicPending { .. } => "topic_pending",
            Self::Partition { .. } => "partition",
            Self::Closed => "closed",
        }
    }

    /// Whether the same event may well be accepted later.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::BufferFull { .. } | Self::TopicPending { .. } => true,
            Self::Topic { reason, .. } => reason.is_retriable(),
            _ => false,
        }
    }

    /// Whether the cluster, or the producer's end, is the cause, and not the event.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            Self::BufferFull { .. } | Self::TopicPending { .. } | Self::Closed => true,
            Self::Topic { reason, .. } => reason.is_outage(),
            _ => false,
        }
    }

    /// Whether the cluster refuses us: rights are missing, we are not who we say, or it is not to be trusted.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Topic { reason, .. } if reason.is_refusal())
    }
}

/// Why an accepted event was given up.
#[derive(Clone, PartialEq, Eq)]
pub struct DeliveryError {
    topic: Arc<str>,
    partition: i32,
    failure: Arc<Failure>,
    /// What is wrong with this event alone, where the broker says so.
    own: Option<Box<Reason>>,
}

impl DeliveryError {
    /// The topic that the event was for.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The partition that it was for.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// The error of the record of this index in its batch.
    pub(crate) fn new(topic: Arc<str>, partition: i32, failure: Arc<Failure>, index: u32) -> Self {
        let own = match failure.reason_of(index) {
            Cow::Owned(own) => Some(Box::new(own)),
            Cow::Borrowed(_) => None,
        };
        Self { topic, partition, failure, own }
    }

    /// Whether the event is certainly not in the log, or may be.
    pub fn outcome(&self) -> FailedOutcome {
        self.failure.outcome
    }

    /// The last error.
    pub fn reason(&self) -> &Reason {
        self.own.as_deref().unwrap_or(&self.failure.reason)
    }

    /// Kafka's error code, where a broker gave one.
    pub fn code(&self) -> Option<ErrorCode> {
        self.failure.reason.code()
    }

    /// How often it was tried, failed connections included.
    pub fn attempts(&self) -> u32 {
        self.failure.attempts
    }

    /// Whether the same event may well be delivered later.
    pub fn is_retriable(&self) -> bool {
        self.failure.reason.is_retriable()
    }

    /// Whether the cluster refuses us: rights are missing, we are not who we say, or it is not to be trusted.
    pub fn is_refusal(&self) -> bool {
        self.failure.reason.is_refusal()
    }

    /// Whether `delivery_timeout` ran out.
    pub fn timed_out(&self) -> bool {
        self.failure.timed_out
    }
}

impl fmt::Display for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (reason, Failure { outcome, attempts, timed_out, .. }) = (self.reason(), &*self.failure);
        let late = if *timed_out { ", delivery_timeout ran out" } else { "" };
        let tries = if *attempts == 1 { "try" } else { "tries" };
        write!(
            f,
            "{reason}{} (topic {}, partition {}, {attempts} {tries}{late}, {})",
            ClockOf(&self.failure),
            self.topic,
            self.partition,
            outcome.as_str()
        )
    }
}

/// Errors show themselves as people read them: what `main` returns is printed by `Debug`.
macro_rules! debug_as_display {
    ($($error:ty),*) => {
        $(impl std::fmt::Debug for $error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        })*
    };
}
pub(crate) use debug_as_display;

debug_as_display!(PublishError, DeliveryError, Error);

impl std::error::Error for DeliveryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.reason())
    }
}

/// Why an event is not in the log, or not certainly so: it was not accepted, or it was given up.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It was not accepted, and nothing of it is kept.
    #[error(transparent)]
    NotAccepted(#[from] PublishError),
    /// It was accepted, and given up.
    #[error(transparent)]
    Failed(#[from] DeliveryError),
}

impl Error {
    /// Whether the cluster refuses us: rights are missing, we are not who we say, or it is not to be trusted.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::NotAccepted(error) => error.is_refusal(),
            Self::Failed(error) => error.is_refusal(),
        }
    }

    /// Whether the event is certainly not in the log, or may be. What was not accepted is not.
    pub fn outcome(&self) -> FailedOutcome {
        match self {
            Self::NotAccepted(_) => FailedOutcome::NotWritten,
            Self::Failed(error) => error.outcome(),
        }
    }

    /// Whether the same event may well be accepted and delivered later.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::NotAccepted(error) => error.is_retriable(),
            Self::Failed(error) => error.is_retriable(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_main_returns_is_printed_as_people_read_it() {
        let reason = Reason::Broker { code: ErrorCode(3), message: None };
        let error = Error::from(PublishError::Topic { topic: "orders".into(), reason });
        let text = format!("{error:?}");
        assert!(text.starts_with("topic orders: ") && text.contains("UNKNOWN_TOPIC_OR_PARTITION"), "{text}");
    }
}
