//! Why an event was not accepted, as far as the next step depends on it.
//!
//! Rules:
//! - The code does no IO.
//! - An outage fails an event, unless there is a spool: the event then waits. Only an event that is wrong itself, or whose
//!   client the brokers refuse, becomes a dead letter.

use kafka_courier::PublishError;

/// The cause of a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// The topic's partitions are not known.
    Topic,
    /// Memory or disk has no room.
    Room,
    /// The spool or the producer accepts no event any more.
    Ended,
    /// The event can't be accepted.
    Event,
}

impl Refusal {
    pub(super) fn of(error: &PublishError, is_spooled: bool) -> Self {
        match error {
            PublishError::TopicPending { .. } => Self::Topic,
            _ if !is_spooled => Self::Event,
            PublishError::BufferFull { .. } | PublishError::SpoolFull { .. } => Self::Room,
            PublishError::Spool(_) | PublishError::Closed => Self::Ended,
            error if error.is_outage() && !error.is_refusal() => Self::Topic,
            _ => Self::Event,
        }
    }
}

#[cfg(test)]
mod tests {
    use kafka_courier::{ErrorCode, Reason};

    use super::*;

    fn topic(code: ErrorCode) -> PublishError {
        PublishError::Topic { topic: "t".into(), reason: Reason::Broker { code, message: None } }
    }

    #[test]
    fn spooled_events_outlast_outages() {
        let (away, missing) = (topic(ErrorCode::BROKER_NOT_AVAILABLE), topic(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
        assert_eq!([true, false].map(|spool| Refusal::of(&away, spool)), [Refusal::Topic, Refusal::Event]);
        assert_eq!([true, false].map(|spool| Refusal::of(&missing, spool)), [Refusal::Event; 2]);
        assert_eq!(Refusal::of(&topic(ErrorCode::TOPIC_AUTHORIZATION_FAILED), true), Refusal::Event);
    }

    #[test]
    fn ended_producer_ends_the_run() {
        assert_eq!(
            [true, false].map(|spool| Refusal::of(&PublishError::Closed, spool)),
            [Refusal::Ended, Refusal::Event]
        );
    }
}
