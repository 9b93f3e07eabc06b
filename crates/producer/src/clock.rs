//! Explains rejected timestamps by this machine's clock.
//!
//! The rules of this module:
//!  - The code is pure. The time is an argument.
//!  - A reason contains the remedy and not the time, so that equal failures have equal reasons and are counted
//!    together.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use kafka_courier_client::{ErrorCode, Reason};
use kafka_courier_idempotent_sender::core::Failure;

const INVALID_TIMESTAMP: ErrorCode = ErrorCode::INVALID_TIMESTAMP;

/// Adds the remedy to each reason, and this machine's time to the failure, if the broker rejected a timestamp.
pub(crate) fn explain(failure: Arc<Failure>, now_ms: i64) -> Arc<Failure> {
    if failure.reason.code() != Some(INVALID_TIMESTAMP) {
        return failure;
    }
    let rejected = failure
        .rejected
        .as_deref()
        .map(|records| records.iter().map(|(index, message)| (*index, Some(remedy(message.as_deref())))).collect());
    let reason = with_remedy(&failure.reason);
    Arc::new(Failure { reason, rejected, clock_ms: Some(now_ms), ..Failure::clone(&failure) })
}

/// Returns the reason with its remedy, if the broker rejected a timestamp.
pub(crate) fn with_remedy(reason: &Reason) -> Reason {
    match reason {
        Reason::Broker { code: INVALID_TIMESTAMP, message } => {
            Reason::Broker { code: INVALID_TIMESTAMP, message: Some(remedy(message.as_deref())) }
        }
        reason => reason.clone(),
    }
}

fn remedy(message: Option<&str>) -> Arc<str> {
    let why = message.unwrap_or(INVALID_TIMESTAMP.description());
    let remedy = "if this machine's clock is wrong, correct it (NTP), otherwise raise \
                  message.timestamp.before.max.ms and message.timestamp.after.max.ms of the topic";
    format!("{why}; {remedy}").into()
}

/// This machine's time when a timestamp was rejected, as text that follows a reason. Empty for other failures.
pub struct ClockOf<'a>(pub &'a Failure);

impl fmt::Display for ClockOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(clock_ms) = self.0.clock_ms else { return Ok(()) };
        let clock = Timestamp::from_millisecond(clock_ms).unwrap_or(Timestamp::UNIX_EPOCH);
        write!(f, "; the clock of this machine reads {clock}")
    }
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
        for words in ["INVALID_TIMESTAMP", "out of range", "NTP", "message.timestamp.after.max.ms"] {
            assert!(text.contains(words), "{text}");
        }
        assert_eq!(ClockOf(&explained).to_string(), "; the clock of this machine reads 1970-01-02T00:00:00Z");
        let later = explain(failure(reason(INVALID_TIMESTAMP, Some("out of range"))), 86_400_001);
        assert_eq!(later.reason, explained.reason);
        let other = failure(reason(ErrorCode::INVALID_RECORD, Some("no")));
        assert_eq!(explain(other.clone(), 0), other);
        assert_eq!(ClockOf(&other).to_string(), "");
    }
}
