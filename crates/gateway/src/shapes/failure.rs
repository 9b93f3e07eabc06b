//! [`Failure`], why an event or a request failed, and the table from the producer's errors to problems.
//!
//! Rules:
//! - The cause decides: the event (4xx), room or Kafka (503), or doubt (504).
//! - An event that is possibly written is never reported with a problem that asks for a retry.

use kafka_courier::{
    AwaitedError, DeliveryError, DeliveryErrorKind, ErrorCode, FailedOutcome, PublishError, Reason, StoreError,
};

use super::problem::Problem;

/// Why an event or a request failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The problem.
    pub problem: Problem,
    /// What failed, the value and the remedy.
    pub detail: String,
    /// The id of the event's dead letter.
    pub dead_letter: Option<String>,
    /// The place of the event in the request, from 0.
    pub index: Option<usize>,
    /// The line of the event in a body of NDJSON, from 1.
    pub line: Option<usize>,
    /// Whether an earlier request with the same key may have written the event.
    pub is_undecided: bool,
    /// The seconds after which a retry may help, if they differ from those of the problem.
    pub retry_seconds: Option<u32>,
}

impl Failure {
    /// Creates a failure without a dead letter.
    pub fn new(problem: Problem, detail: impl Into<String>) -> Self {
        Self {
            problem,
            detail: detail.into(),
            dead_letter: None,
            index: None,
            line: None,
            is_undecided: false,
            retry_seconds: None,
        }
    }

    /// Notes that an earlier request with the same key may have written the event.
    #[must_use]
    pub fn undecided(mut self) -> Self {
        self.is_undecided = true;
        self
    }

    /// Sets the seconds after which a retry may help.
    #[must_use]
    pub fn retry_in(mut self, seconds: u32) -> Self {
        self.retry_seconds = Some(seconds);
        self
    }

    /// Returns the seconds after which a retry may help, for a problem with such a time.
    pub fn retry_after(&self) -> Option<u32> {
        self.retry_seconds.or(self.problem.retry_after())
    }

    /// Sets the place of the event in the request.
    #[must_use]
    pub fn at(mut self, index: usize) -> Self {
        self.index = Some(index);
        self
    }

    /// Sets the line of the event in a body of NDJSON. The parser has seen this line alone, and calls it line 1.
    #[must_use]
    pub fn at_line(mut self, line: usize) -> Self {
        self.line = Some(line);
        self.detail = format!("line {line}: {}", self.detail.replace(" at line 1 column ", " at column "));
        self
    }

    /// Sets the id of the event's dead letter.
    #[must_use]
    pub fn with_letter(mut self, letter: Option<impl ToString>) -> Self {
        self.dead_letter = letter.map(|letter| letter.to_string());
        self
    }

    /// Returns the failure of an event that has no verdict when its time is over.
    pub fn no_verdict() -> Self {
        let why = "the event was accepted, and has no verdict yet: it may still be written. Its dead letter has the result if \
                   it fails";
        Self::new(Problem::Unknown, why)
    }

    /// Returns the failure of an event that is certainly not written, before the reason is known.
    pub fn no_reason() -> Self {
        let why = "the event failed and is not written, and the reason is not known in time: send the event again";
        Self::new(Problem::NotWritten, why)
    }
}

/// Facts of a failed delivery that decide its problem.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FailedFacts {
    pub(crate) outcome: FailedOutcome,
    pub(crate) code: Option<ErrorCode>,
    pub(crate) is_refusal: bool,
    pub(crate) is_retriable: bool,
    pub(crate) has_letter: bool,
}

impl FailedFacts {
    fn of(error: &DeliveryError, has_letter: bool) -> Self {
        Self {
            outcome: error.outcome(),
            code: error.code(),
            is_refusal: error.is_refusal(),
            is_retriable: error.is_retriable(),
            has_letter,
        }
    }
}

/// Returns the problem of a failed delivery.
pub(crate) fn problem_of(facts: FailedFacts) -> Problem {
    if facts.outcome == FailedOutcome::Unknown {
        return Problem::Unknown;
    }
    match facts.code.and_then(named_problem) {
        Some(problem) => problem,
        // A dead letter keeps the event, so that a retry and a replay would write it twice.
        None if facts.has_letter => Problem::Rejected,
        None if facts.is_refusal => Problem::KafkaRefuses,
        None if facts.is_retriable => Problem::NotWritten,
        None => Problem::Rejected,
    }
}

/// Returns the problem of an error that names the event or its topic as the cause.
fn named_problem(code: ErrorCode) -> Option<Problem> {
    match code {
        ErrorCode::MESSAGE_TOO_LARGE | ErrorCode::RECORD_LIST_TOO_LARGE => Some(Problem::EventTooLarge),
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => Some(Problem::TopicUnknown),
        ErrorCode::TOPIC_AUTHORIZATION_FAILED => Some(Problem::TopicForbidden),
        ErrorCode::INVALID_TOPIC_EXCEPTION => Some(Problem::TopicName),
        _ => None,
    }
}

fn unavailable_topic(reason: &Reason) -> Problem {
    match reason.code().and_then(named_problem) {
        Some(problem) => problem,
        None if reason.is_refusal() => Problem::KafkaRefuses,
        None => Problem::KafkaUnavailable,
    }
}

/// Returns the failure of an event that was not accepted.
pub(crate) fn refused(error: &PublishError) -> Failure {
    let problem = match error {
        PublishError::Encode(_) => Problem::NotAnEvent,
        PublishError::TopicName(_) => Problem::TopicName,
        PublishError::TooLarge { .. } => Problem::EventTooLarge,
        PublishError::BufferFull { .. } => Problem::MemoryFull,
        PublishError::Topic { reason, .. } => unavailable_topic(reason),
        PublishError::TopicPending { .. } => Problem::KafkaUnavailable,
        PublishError::Partition { .. } => Problem::PartitionUnknown,
        PublishError::SpoolFull { .. } => Problem::SpoolFull,
        PublishError::Spool(_) => Problem::SpoolFault,
        PublishError::Closed => Problem::Closing,
        // A kind of error that this version does not know. The event was not accepted.
        _ => Problem::KafkaUnavailable,
    };
    Failure::new(problem, error.to_string())
}

/// Returns the failure of an accepted event, or `None` if the spool has the event for a later process.
pub(crate) fn failed(failed: &AwaitedError) -> Option<Failure> {
    let AwaitedError { error, dead_letter, .. } = failed;
    match error.kind() {
        DeliveryErrorKind::StillStored => None,
        DeliveryErrorKind::NotStored => {
            Some(Failure::new(Problem::Unknown, error.to_string()).with_letter(dead_letter.as_ref()))
        }
        _ => {
            let problem = problem_of(FailedFacts::of(error, dead_letter.is_some()));
            Some(Failure::new(problem, error.to_string()).with_letter(dead_letter.as_ref()))
        }
    }
}

/// Returns the failure of an event that is not in the spool.
pub(crate) fn not_stored(error: &StoreError) -> Failure {
    match error {
        StoreError::NoSpool => Failure::new(Problem::AckUnavailable, error.to_string()),
        _ => Failure::new(Problem::Unknown, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn facts(outcome: FailedOutcome, code: Option<ErrorCode>) -> FailedFacts {
        FailedFacts { outcome, code, is_refusal: false, is_retriable: true, has_letter: false }
    }

    #[test]
    fn doubt_precedes_every_cause() {
        for code in [None, Some(ErrorCode::MESSAGE_TOO_LARGE), Some(ErrorCode::TOPIC_AUTHORIZATION_FAILED)] {
            assert_eq!(problem_of(facts(FailedOutcome::Unknown, code)), Problem::Unknown);
        }
    }

    #[test]
    fn certain_failures_name_their_cause() {
        let certain = facts(FailedOutcome::NotWritten, None);
        assert_eq!(problem_of(certain), Problem::NotWritten);
        assert_eq!(problem_of(FailedFacts { is_retriable: false, ..certain }), Problem::Rejected);
        assert_eq!(problem_of(FailedFacts { is_refusal: true, ..certain }), Problem::KafkaRefuses);
        for (code, problem) in [
            (ErrorCode::MESSAGE_TOO_LARGE, Problem::EventTooLarge),
            (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, Problem::TopicUnknown),
            (ErrorCode::TOPIC_AUTHORIZATION_FAILED, Problem::TopicForbidden),
        ] {
            assert_eq!(problem_of(FailedFacts { code: Some(code), ..certain }), problem);
        }
    }

    #[test]
    fn kept_event_asks_for_no_retry() {
        for is_refusal in [false, true] {
            let kept = FailedFacts { has_letter: true, is_refusal, ..facts(FailedOutcome::NotWritten, None) };
            assert!(!problem_of(kept).is_retriable());
        }
    }

    #[test]
    fn refusals_name_their_cause() {
        let broker = |code| PublishError::Topic { topic: "t".into(), reason: Reason::Broker { code, message: None } };
        let waited = Duration::ZERO;
        for (error, problem) in [
            (PublishError::BufferFull { needed: 1, waited }, Problem::MemoryFull),
            (PublishError::SpoolFull { needed: 1, waited }, Problem::SpoolFull),
            (PublishError::Closed, Problem::Closing),
            (PublishError::TooLarge { size: 2, limit: 1, what: "x" }, Problem::EventTooLarge),
            (PublishError::Partition { topic: "t".into(), partition: 9, highest: 1 }, Problem::PartitionUnknown),
            (broker(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION), Problem::TopicUnknown),
            (broker(ErrorCode::TOPIC_AUTHORIZATION_FAILED), Problem::TopicForbidden),
            (broker(ErrorCode::SASL_AUTHENTICATION_FAILED), Problem::KafkaRefuses),
            (PublishError::Topic { topic: "t".into(), reason: Reason::NoLeader }, Problem::KafkaUnavailable),
        ] {
            assert_eq!(refused(&error).problem, problem, "{error}");
        }
    }
}
