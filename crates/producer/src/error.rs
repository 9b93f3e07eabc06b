//! Errors before an event is accepted ([`PublishError`]) and after ([`DeliveryError`]). [`Error`] is either of them.
//!
//! The rules of this module:
//!  - An event with a `PublishError` was not accepted. The producer keeps nothing of it.
//!  - An accepted event gets a verdict. Its `DeliveryError` says whether the event may be in the log.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kafka_courier_client::{ErrorCode, Reason};
use kafka_courier_event_model::{EncodeError, TopicNameError};
use kafka_courier_idempotent_sender::core::{FailedOutcome, Failure};

use crate::clock::ClockOf;
use crate::spool::SpoolFault;

/// Why an event was not accepted.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The event can't be encoded as JSON.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The topic's name is invalid.
    #[error(transparent)]
    TopicName(#[from] TopicNameError),
    /// The event is too large for a batch.
    #[error("the event needs a batch of {size} bytes, and {what} allows {limit}: make it smaller, or raise the limit")]
    TooLarge {
        /// Bytes of a batch that holds only this event, uncompressed.
        size: usize,
        /// The largest allowed size in bytes.
        limit: usize,
        /// The setting that limits the size.
        what: &'static str,
    },
    /// No memory became free within `max_block`.
    #[error(
        "buffer_memory has no room for {needed} bytes after {waited:?}: events are published faster than the cluster takes them"
    )]
    BufferFull {
        /// Bytes that the event needs.
        needed: usize,
        /// How long `publish` waited.
        waited: Duration,
    },
    /// The topic is unavailable.
    #[error("topic {topic}: {reason}")]
    Topic {
        /// The topic.
        topic: Arc<str>,
        /// The cause.
        #[source]
        reason: Reason,
    },
    /// The topic's partitions are not known yet, and the call does not wait. The producer has requested the metadata.
    #[error("topic {topic}: partitions not known yet, metadata was requested: try again later")]
    TopicPending {
        /// The topic.
        topic: Arc<str>,
    },
    /// The topic has no such partition.
    #[error("partition {partition} does not exist: topic {topic} has partitions 0 to {highest}")]
    Partition {
        /// The topic.
        topic: Arc<str>,
        /// The requested partition.
        partition: i32,
        /// The topic's highest partition.
        highest: i32,
    },
    /// The spool has no room for the event, and got none within `max_block` if `spool_full` is `block`.
    #[error(
        "the spool has no room for {needed} bytes after {waited:?}: raise spool_max_bytes, free the disk, or publish again \
         when the cluster has taken stored events"
    )]
    SpoolFull {
        /// Bytes that the event needs.
        needed: usize,
        /// How long `publish` waited.
        waited: Duration,
    },
    /// The spool accepts no events.
    #[error(transparent)]
    Spool(#[from] SpoolFault),
    /// The producer was closed.
    #[error("the producer is closed")]
    Closed,
}

impl PublishError {
    /// Returns the name of the variant, such as `too_large`: the label `reason` of `kafka_messages_refused_total`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Encode(_) => "encode",
            Self::TopicName(_) => "topic_name",
            Self::TooLarge { .. } => "too_large",
            Self::BufferFull { .. } => "buffer_full",
            Self::Topic { .. } => "topic",
            Self::TopicPending { .. } => "topic_pending",
            Self::Partition { .. } => "partition",
            Self::SpoolFull { .. } => "spool_full",
            Self::Spool(_) => "spool",
            Self::Closed => "closed",
        }
    }

    /// Returns whether the same event may be accepted later.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::BufferFull { .. } | Self::TopicPending { .. } | Self::SpoolFull { .. } => true,
            Self::Topic { reason, .. } => reason.is_retriable(),
            _ => false,
        }
    }

    /// Returns whether the cause is the cluster or the producer's end, not the event.
    #[doc(hidden)]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::BufferFull { .. } | Self::TopicPending { .. } | Self::Closed => true,
            Self::SpoolFull { .. } | Self::Spool(_) => true,
            Self::Topic { reason, .. } => reason.is_outage(),
            _ => false,
        }
    }

    /// Returns whether the cluster refuses the client: authorization, authentication, or a certificate that is not
    /// trusted.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Topic { reason, .. } if reason.is_refusal())
    }
}

/// The state of an accepted event that was not delivered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum DeliveryErrorKind {
    /// The event failed. It becomes a dead letter.
    Failed,
    /// The spool could not be written, so the event was not sent. It becomes a dead letter. The disk may have the event
    /// all the same, and a later process delivers it then: the outcome is unknown.
    NotStored,
    /// The producer was closed, and the spool has the event: the next process that opens the spool delivers it. The event
    /// did not fail.
    StillStored,
}

/// Why an accepted event failed, or was not delivered before its producer was closed.
#[derive(Clone, PartialEq, Eq)]
pub struct DeliveryError {
    topic: Arc<str>,
    partition: i32,
    failure: Arc<Failure>,
    /// The broker's error for this event, where the broker names one (KIP-467).
    own: Option<Box<Reason>>,
    /// Whether the spool has the event for a later process.
    is_stored: bool,
}

impl DeliveryError {
    /// Returns the state of the event.
    pub fn kind(&self) -> DeliveryErrorKind {
        match &self.failure.reason {
            _ if self.is_stored => DeliveryErrorKind::StillStored,
            Reason::NotStored(_) => DeliveryErrorKind::NotStored,
            _ => DeliveryErrorKind::Failed,
        }
    }

    /// Returns the event's topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Returns the event's partition.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// Creates the error of the record at `index` of its batch.
    pub(crate) fn new(topic: Arc<str>, partition: i32, failure: Arc<Failure>, index: u32) -> Self {
        let own = match failure.reason_of(index) {
            Cow::Owned(own) => Some(Box::new(own)),
            Cow::Borrowed(_) => None,
        };
        Self { topic, partition, failure, own, is_stored: false }
    }

    /// Creates the error of a record that the spool has for a later process.
    pub(crate) fn still_stored(topic: Arc<str>, partition: i32) -> Self {
        let failure = Arc::new(Failure::untried(FailedOutcome::Unknown, Reason::Closed));
        Self { topic, partition, failure, own: None, is_stored: true }
    }

    /// Returns whether the event is certainly not in the log, or possibly.
    pub fn outcome(&self) -> FailedOutcome {
        self.failure.outcome
    }

    /// Returns the last error.
    pub fn reason(&self) -> &Reason {
        self.own.as_deref().unwrap_or(&self.failure.reason)
    }

    /// Returns Kafka's error code, where a broker sent one.
    pub fn code(&self) -> Option<ErrorCode> {
        self.failure.reason.code()
    }

    /// Returns the number of attempts, failed connections included.
    pub fn attempts(&self) -> u32 {
        self.failure.attempts
    }

    /// Returns whether the same event may be delivered later, if it is published again. Not if a later process delivers it
    /// anyway.
    pub fn is_retriable(&self) -> bool {
        !self.is_stored && self.failure.reason.is_retriable()
    }

    /// Returns whether the cluster refuses the client: authorization, authentication, or a certificate that is not
    /// trusted.
    pub fn is_refusal(&self) -> bool {
        self.failure.reason.is_refusal()
    }

    /// Returns whether `delivery_timeout` expired.
    pub fn timed_out(&self) -> bool {
        self.failure.timed_out
    }
}

impl fmt::Display for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_stored {
            let Self { topic, partition, .. } = self;
            return write!(
                f,
                "the producer was closed, and the next process with its spool delivers the event (topic {topic}, partition \
                 {partition})"
            );
        }
        let (reason, Failure { outcome, attempts, timed_out, .. }) = (self.reason(), &*self.failure);
        let late = if *timed_out { ", delivery_timeout expired" } else { "" };
        let tries = if *attempts == 1 { "attempt" } else { "attempts" };
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

/// Implements `Debug` by `Display`: `main` prints a returned error by `Debug`, and people read that text.
#[doc(hidden)]
#[macro_export]
macro_rules! debug_as_display {
    ($($error:ty),*) => {
        $(impl std::fmt::Debug for $error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        })*
    };
}
pub(crate) use crate::debug_as_display;

/// Why an event is not in the producer's spool.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The producer has no spool.
    #[error("the producer has no spool: set spool_dir")]
    NoSpool,
    /// The spool could not be written.
    #[error(transparent)]
    NotStored(DeliveryError),
}

debug_as_display!(PublishError, DeliveryError, StoreError, Error);

impl std::error::Error for DeliveryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.reason())
    }
}

/// Why an event is not in the log, or possibly not.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The event was not accepted. The producer keeps nothing of it.
    #[error(transparent)]
    NotAccepted(#[from] PublishError),
    /// The event was accepted, and failed.
    #[error(transparent)]
    Failed(#[from] DeliveryError),
    /// The event is not in the spool. It was not accepted if the producer has none.
    #[error(transparent)]
    NotStored(#[from] StoreError),
}

impl Error {
    /// Returns whether the cluster refuses the client: authorization, authentication, or a certificate that is not
    /// trusted.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::NotAccepted(error) => error.is_refusal(),
            Self::Failed(error) | Self::NotStored(StoreError::NotStored(error)) => error.is_refusal(),
            Self::NotStored(StoreError::NoSpool) => false,
        }
    }

    /// Returns whether the event is certainly not in the log, or possibly. An event that was not accepted is not in the
    /// log.
    pub fn outcome(&self) -> FailedOutcome {
        match self {
            Self::NotAccepted(_) => FailedOutcome::NotWritten,
            Self::Failed(error) | Self::NotStored(StoreError::NotStored(error)) => error.outcome(),
            Self::NotStored(StoreError::NoSpool) => FailedOutcome::NotWritten,
        }
    }

    /// Returns whether the same event may be accepted and delivered later.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::NotAccepted(error) => error.is_retriable(),
            Self::Failed(error) | Self::NotStored(StoreError::NotStored(error)) => error.is_retriable(),
            Self::NotStored(StoreError::NoSpool) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_is_readable() {
        let reason = Reason::Broker { code: ErrorCode(3), message: None };
        let error = Error::from(PublishError::Topic { topic: "orders".into(), reason });
        let text = format!("{error:?}");
        assert!(text.starts_with("topic orders: ") && text.contains("UNKNOWN_TOPIC_OR_PARTITION"), "{text}");
    }
}
