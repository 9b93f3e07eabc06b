//! Names of the record headers that kafka-courier writes and reads.
//!
//! Foreign names keep their definitions: W3C Trace Context, and Kafka Connect's dead-letter headers (KIP-298).

use kafka_courier_batcher::Header;
use kafka_courier_dlq::Header as OwnedHeader;
#[doc(inline)]
pub use kafka_courier_producer::headers::{CORRELATION_ID, EVENT_ID, EVENT_TYPE};

/// The id of the record's dead letter, UUID text: in the dead-letter topic, and on replayed records.
pub const DLQ_ID: &str = "dlq.id";
/// The number of replays of the dead letter, decimal text.
pub const DLQ_REPLAY_COUNT: &str = "dlq.replay-count";
/// The timestamp that the record was first published with, RFC 3339. A replayed record has a new timestamp, because
/// leaders forget producer ids, and retention deletes records, by record time.
pub const DLQ_ORIGINAL_TIMESTAMP: &str = "dlq.original-timestamp";
/// `true` if the record may be in the log already.
pub const DLQ_POSSIBLY_WRITTEN: &str = "dlq.possibly-written";
/// The record's topic.
pub const DLQ_TOPIC: &str = "dlq.topic";
/// The record's partition in that topic, decimal text.
pub const DLQ_PARTITION: &str = "dlq.partition";
/// Why the record failed, as text.
pub const DLQ_REASON: &str = "dlq.reason";
/// The time of the last attempt, RFC 3339.
pub const DLQ_FAILED_AT: &str = "dlq.failed-at";
/// The time of the first attempt, RFC 3339.
pub const DLQ_FIRST_ATTEMPT: &str = "dlq.first-attempt";
/// The number of attempts, decimal text.
pub const DLQ_ATTEMPTS: &str = "dlq.attempts";
/// Kafka's name of the last error, if a broker sent one.
pub const DLQ_ERROR_CODE: &str = "dlq.error-code";
/// `retriable` if the same record may be accepted later, else `poison`.
pub const DLQ_REASON_CLASS: &str = "dlq.reason-class";
/// The id of the record's topic, UUID text.
pub const DLQ_TOPIC_ID: &str = "dlq.topic-id";
/// The producer id under which the record may be in the log, decimal text.
pub const DLQ_PRODUCER_ID: &str = "dlq.producer-id";
/// The epoch of that producer id, decimal text.
pub const DLQ_PRODUCER_EPOCH: &str = "dlq.producer-epoch";
/// The record's sequence number, decimal text.
pub const DLQ_SEQUENCE: &str = "dlq.sequence";
/// The lowest possible offset of the record in the log, decimal text.
pub const DLQ_SEARCH_FROM: &str = "dlq.search-from";
/// Whether a replay is sending the record, as JSON. Absent if no replay is.
pub const DLQ_REPLAY: &str = "dlq.replay";
/// The format of the letter, decimal text. Absent in format 1, which has no `dlq.replay`.
pub const DLQ_FORMAT: &str = "dlq.format";
/// The arrival of a dead letter in the dead-letter topic, a UUIDv7. It orders dead letters of different partitions.
pub const DLQ_ARRIVAL: &str = "dlq.arrival";
/// The arrival of the dead letter's first version, on a newer version in the dead-letter topic.
pub const DLQ_FIRST_ARRIVAL: &str = "dlq.first-arrival";
/// The id of a dead letter that was delivered, found in its log, or purged. Tombstones in the dead-letter topic have
/// it.
pub const DLQ_SETTLED: &str = "dlq.settled";
/// The id of a claim, on records of the dead-letter topic that are no dead letters. A claim gives one process the right
/// to replay the topic. The record's JSON has the details.
pub const DLQ_CLAIM: &str = "dlq.replay-claim";

/// Kafka Connect's header for the topic of a failed record (KIP-298). All of Connect's headers are UTF-8 text.
pub const CONNECT_TOPIC: &str = "__connect.errors.topic";
/// The record's partition, `-1` if none was chosen.
pub const CONNECT_PARTITION: &str = "__connect.errors.partition";
/// The record's offset, always `-1`: a failed record has none.
pub const CONNECT_OFFSET: &str = "__connect.errors.offset";
/// The name of the failed connector. Here the producer's client id.
pub const CONNECT_CONNECTOR_NAME: &str = "__connect.errors.connector.name";
/// The id of the failed task, always `0`.
pub const CONNECT_TASK_ID: &str = "__connect.errors.task.id";
/// The failed stage. Here `KAFKA_PRODUCE`, Connect's name of the stage that writes to Kafka.
pub const CONNECT_STAGE: &str = "__connect.errors.stage";
/// The class that failed. Here the producer's type.
pub const CONNECT_CLASS_NAME: &str = "__connect.errors.class.name";
/// The class of the exception. Here Kafka's name of the error.
pub const CONNECT_EXCEPTION_CLASS_NAME: &str = "__connect.errors.exception.class.name";
/// The message of the exception. Here the failure as text.
pub const CONNECT_EXCEPTION_MESSAGE: &str = "__connect.errors.exception.message";

/// Borrows a dead letter's headers as record headers.
pub(crate) fn borrowed_headers(headers: &[OwnedHeader]) -> Vec<Header<'_>> {
    headers.iter().map(|header| Header { key: &header.name, value: header.value.as_deref() }).collect()
}
