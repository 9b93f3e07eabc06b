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
/// `true` where the record may be in the log already.
pub const DLQ_POSSIBLY_WRITTEN: &str = "dlq.possibly-written";
/// The topic that the record was for.
pub const DLQ_TOPIC: &str = "dlq.topic";
/// Its partition there, decimal text.
pub const DLQ_PARTITION: &str = "dlq.partition";
/// Why it was given up, in words.
pub const DLQ_REASON: &str = "dlq.reason";
/// When the record was last tried, RFC 3339.
pub const DLQ_FAILED_AT: &str = "dlq.failed-at";
/// When it was first tried, RFC 3339.
pub const DLQ_FIRST_ATTEMPT: &str = "dlq.first-attempt";
/// How often it was tried, decimal text.
pub const DLQ_ATTEMPTS: &str = "dlq.attempts";
/// Kafka's name of the last error, where a broker gave one.
pub const DLQ_ERROR_CODE: &str = "dlq.error-code";
/// `retriable` where the same record may well be taken later, else `poison`.
pub const DLQ_REASON_CLASS: &str = "dlq.reason-class";
/// The id of the topic that the record was for, UUID text.
pub const DLQ_TOPIC_ID: &str = "dlq.topic-id";
/// The producer id under which the record may be in its log, decimal text.
pub const DLQ_PRODUCER_ID: &str = "dlq.producer-id";
/// The producer epoch, decimal text.
pub const DLQ_PRODUCER_EPOCH: &str = "dlq.producer-epoch";
/// The record's sequence number, decimal text.
pub const DLQ_SEQUENCE: &str = "dlq.sequence";
/// The first offset at which it can be, decimal text.
pub const DLQ_SEARCH_FROM: &str = "dlq.search-from";
/// Whether a replay is sending the record, as JSON. Absent if no replay is.
pub const DLQ_REPLAY: &str = "dlq.replay";
/// The format of the letter, decimal text. Absent in format 1, which has no `dlq.replay`.
pub const DLQ_FORMAT: &str = "dlq.format";
/// When a letter arrived in the dead-letter topic, as a UUIDv7: what orders the letters of different partitions.
pub const DLQ_ARRIVAL: &str = "dlq.arrival";
/// On a newer version of a letter in the dead-letter topic: when the letter itself arrived.
pub const DLQ_FIRST_ARRIVAL: &str = "dlq.first-arrival";
/// On a record without a value in the dead-letter topic: the letter of this id was delivered, found in its log, or purged.
pub const DLQ_SETTLED: &str = "dlq.settled";
/// Of a record of the dead-letter topic that is no letter: who replays them. Its value is a claim's id, the record's JSON
/// says the rest.
pub const DLQ_CLAIM: &str = "dlq.replay-claim";

/// Kafka Connect's header for the topic of a record that failed (KIP-298), as all of these UTF-8 text.
pub const CONNECT_TOPIC: &str = "__connect.errors.topic";
/// Its partition; `-1` where none was chosen.
pub const CONNECT_PARTITION: &str = "__connect.errors.partition";
/// Its offset; always `-1`: it has none.
pub const CONNECT_OFFSET: &str = "__connect.errors.offset";
/// Who failed; here the producer's client id.
pub const CONNECT_CONNECTOR_NAME: &str = "__connect.errors.connector.name";
/// Which task failed; always `0`.
pub const CONNECT_TASK_ID: &str = "__connect.errors.task.id";
/// At what stage; here `KAFKA_PRODUCE`, Connect's name of the stage that writes to Kafka.
pub const CONNECT_STAGE: &str = "__connect.errors.stage";
/// What failed.
pub const CONNECT_CLASS_NAME: &str = "__connect.errors.class.name";
/// The kind of failure; here Kafka's name of the error.
pub const CONNECT_EXCEPTION_CLASS_NAME: &str = "__connect.errors.exception.class.name";
/// The failure in words.
pub const CONNECT_EXCEPTION_MESSAGE: &str = "__connect.errors.exception.message";
