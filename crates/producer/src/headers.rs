//! The names of record headers that are written and read here.
//!
//! Rules: names of others stand as others define them (W3C trace context; Kafka Connect's dead-letter headers).

/// The header that carries the event's id.
pub const EVENT_ID: &str = "event_id";
/// The header that carries the event's type.
pub const EVENT_TYPE: &str = "event_type";
/// The header that carries the correlation id, where the event has one.
pub const CORRELATION_ID: &str = "correlation_id";

/// The id of the dead letter that a record was, UUID text: in the dead-letter topic, and on records sent again.
pub const DLQ_ID: &str = "dlq.id";
/// How often the letter was sent again, decimal text.
pub const DLQ_REPLAY_COUNT: &str = "dlq.replay-count";
/// The timestamp that the record was published with, RFC 3339: a record that is sent again has a new one, because
/// leaders forget producer ids, and retention deletes, by record time.
pub const DLQ_ORIGINAL_TIMESTAMP: &str = "dlq.original-timestamp";
