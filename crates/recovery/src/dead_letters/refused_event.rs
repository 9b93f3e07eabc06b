//! The dead letter of a refused event.
//!
//! Rules: the letter contains the record that would have been published, so a replay publishes the event. The letter
//! has no attempt and the outcome not written.

use kafka_courier_batcher::DecodedRecord;
use kafka_courier_client::ErrorCode;
use kafka_courier_dlq::{Letter, Outcome, Timestamp};
use kafka_courier_event_model::{EncodeError, Event};
use kafka_courier_producer::{PublishError, with_record};

use super::batch_letters::fill;

/// Sets the letter's error code and `retriable` from the error of the refusal.
pub(crate) fn classify(letter: &mut Letter, error: &PublishError) {
    letter.retriable = error.is_retriable() || matches!(error, PublishError::Closed);
    letter.error_code = match error {
        PublishError::Topic { reason, .. } => reason.code(),
        // Brokers would answer with this code.
        PublishError::TooLarge { .. } => Some(ErrorCode::MESSAGE_TOO_LARGE),
        _ => None,
    }
    .map(|code| code.name().to_owned());
}

/// Returns the dead letter of an event that was refused for `topic`.
pub(super) fn letter(topic: &str, event: &dyn Event, error: &PublishError) -> Result<Letter, EncodeError> {
    let mut json = Vec::new();
    event.encode_into(&mut json)?;
    let mut letter = Letter::new(topic, None, error.to_string(), Timestamp::now());
    letter.outcome = Outcome::NotWritten;
    letter.attempt_count = 0;
    classify(&mut letter, error);
    with_record(event, &json, None, |record| {
        let headers = record.headers.to_vec();
        let (key, value, timestamp) = (record.key, record.value, record.timestamp);
        fill(&mut letter, &DecodedRecord { offset_delta: 0, timestamp, key, value, headers });
    });
    Ok(letter)
}

#[cfg(test)]
mod tests {
    use kafka_courier_event_model::{EventBuilder, UserLoggedIn};

    use super::*;

    #[test]
    fn refused_events_become_their_records() {
        let data = UserLoggedIn { user_id: "u-1".into(), ..Default::default() };
        let event = EventBuilder::new("s", "1").with_correlation_id("c").user_logged_in(data);
        let letter = letter("t", &event, &PublishError::Closed).unwrap();
        assert_eq!((letter.topic.as_str(), letter.key.as_deref()), ("t", Some(&b"u-1"[..])));
        assert_eq!((letter.outcome, letter.attempt_count, letter.retriable), (Outcome::NotWritten, 0, true));
        assert_eq!(letter.event_id, Some(event.id().to_string()));
        assert_eq!(letter.event_type.as_deref(), Some("user.logged_in"));
        assert_eq!(letter.correlation_id.as_deref(), Some("c"));
        let names: Vec<&str> = letter.headers.iter().map(|header| header.name.as_str()).collect();
        assert_eq!(names, ["event_id", "event_type", "correlation_id"]);
        let mut json = Vec::new();
        event.encode_into(&mut json).unwrap();
        assert_eq!(letter.value.as_deref(), Some(&*json));
        let too_large = PublishError::TooLarge { size: 9, limit: 8, what: "flush_bytes" };
        let letter = super::letter("t", &event, &too_large).unwrap();
        assert_eq!((letter.error_code.as_deref(), letter.retriable), (Some("MESSAGE_TOO_LARGE"), false));
    }
}
