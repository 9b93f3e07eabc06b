//! What a rejected timestamp has to do with this machine's clock.
//!
//! Rules: pure; the time comes from the caller.

use std::sync::Arc;

use kafka_courier_dlq::Timestamp;
use kafka_courier_idempotent_sender::core::{ErrorCode, Failure, Reason};

/// Kafka's code for a record whose timestamp the topic does not take.
const INVALID_TIMESTAMP: ErrorCode = ErrorCode(32);

/// The failure, with this machine's time and the remedy in each reason, if the broker rejected a timestamp.
pub(crate) fn explain(failure: Arc<Failure>, now_ms: i64) -> Arc<Failure> {
    let Reason::Broker { code: INVALID_TIMESTAMP, message } = &failure.reason else { return failure };
    let clock = Timestamp::from_millisecond(now_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    let explain = |message: &Option<Arc<str>>| -> Option<Arc<str>> {
        let why = message.as_deref().unwrap_or(INVALID_TIMESTAMP.description());
        let remedy = "if that is wrong, set it right (NTP); else widen message.timestamp.before.max.ms and \
                      message.timestamp.after.max.ms of the topic";
        Some(format!("{why}; the clock of this machine reads {clock}: {remedy}").into())
    };
    let rejected = failure
        .rejected
        .as_deref()
        .map(|records| records.iter().map(|(index, message)| (*index, explain(message))).collect());
    let reason = Reason::Broker { code: INVALID_TIMESTAMP, message: explain(message) };
    Arc::new(Failure { reason, rejected, ..Failure::clone(&failure) })
}

#[cfg(test)]
mod tests {
    use kafka_courier_idempotent_sender::core::FailedOutcome;

    use super::*;

    #[test]
    fn rejected_timestamp_names_the_clock() {
        let reason = |code, message: Option<&str>| Reason::Broker { code, message: message.map(Into::into) };
        let failure = |reason| Arc::new(Failure::untried(FailedOutcome::NotWritten, reason));
        let explained = explain(failure(reason(INVALID_TIMESTAMP, Some("out of range"))), 86_400_000);
        let text = explained.reason.to_string();
        for words in ["INVALID_TIMESTAMP", "out of range", "1970-01-02T00:00:00Z", "message.timestamp.after.max.ms"] {
            assert!(text.contains(words), "{text}");
        }
        let other = failure(reason(ErrorCode::INVALID_RECORD, Some("no")));
        assert_eq!(explain(other.clone(), 0), other);
    }
}
