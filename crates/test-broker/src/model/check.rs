//! The checks of a Produce request's bytes that precede the check of the producer: `ProduceRequest.validateRecords`,
//! `UnifiedLog.analyzeAndValidateRecords` and `LogValidator`, in this order.
//!
//! Rules:
//! - Size precedes CRC, and CRC precedes content.
//! - The answer names every rejected record (KIP-467).
//! - The result depends on the bytes, the topic's configuration and the time only, and is computed before the partition
//!   is locked.

use std::sync::Arc;

use bytes::Bytes;
use kafka_courier_batcher::{BatchView, DecodeError, DecodedRecord, Stamp};
use kafka_protocol::ResponseError;

use super::{ProduceError, TopicConfig};
use crate::records::Record;

/// The maximum uncompressed size of a batch's records, in bytes.
pub(crate) const MAX_UNCOMPRESSED: usize = 128 << 20;

/// Returns the reason to refuse a record, or `None` to accept it.
pub(crate) type RecordFilter = Arc<dyn Fn(&Record) -> Option<String> + Send + Sync>;

/// A batch whose bytes passed all checks.
#[derive(Clone, Debug)]
pub(crate) struct CheckedBatch {
    pub(crate) bytes: Bytes,
    pub(crate) records: u32,
    pub(crate) stamp: Option<Stamp>,
    pub(crate) max_timestamp: i64,
}

/// The partition of a batch, as error messages and record filters need it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AppendTarget<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
}

/// Checks the records field of a partition in a Produce request.
pub(crate) fn check_batch(
    bytes: &Bytes,
    config: &TopicConfig,
    now_ms: i64,
    target: AppendTarget<'_>,
    filter: Option<&RecordFilter>,
) -> Result<CheckedBatch, ProduceError> {
    let (view, rest) = BatchView::parse(bytes).map_err(|error| malformed(error, bytes))?;
    if !rest.is_empty() {
        return Err(invalid("Produce requests are only allowed to contain exactly one record batch"));
    }
    if view.base_offset != 0 {
        return Err(invalid("The baseOffset of the record batch is not 0"));
    }
    if bytes.len() > usize::try_from(config.max_message_bytes).unwrap_or(0) {
        let message = format!(
            "The record batch size in the append to {}-{} is {} bytes which exceeds the maximum configured value of {}.",
            target.topic,
            target.partition,
            bytes.len(),
            config.max_message_bytes
        );
        return Err(ProduceError::new(ResponseError::MessageTooLarge, message));
    }
    if !view.check_crc() {
        return Err(ProduceError::new(
            ResponseError::CorruptMessage,
            "Record is corrupt (stored and computed CRC differ)",
        ));
    }
    check_header(&view)?;
    check_records(&view, config, now_ms, target, filter)?;
    if bytes.len() > usize::try_from(config.segment_bytes).unwrap_or(0) {
        let message = "Message batch size exceeds the maximum configured segment size";
        return Err(ProduceError::new(ResponseError::RecordListTooLarge, message));
    }
    Ok(CheckedBatch {
        bytes: bytes.clone(),
        records: view.record_count,
        stamp: view.stamp(),
        max_timestamp: view.max_timestamp,
    })
}

fn invalid(message: impl Into<String>) -> ProduceError {
    ProduceError::new(ResponseError::InvalidRecord, message)
}

fn malformed(error: DecodeError, bytes: &[u8]) -> ProduceError {
    let code = match error {
        // Kafka's formats are 0 to 2. Any other number means damage.
        DecodeError::UnsupportedMagic(0 | 1) | DecodeError::Truncated => ResponseError::InvalidRecord,
        DecodeError::BadCount if crc_matches(bytes) => ResponseError::InvalidRecord,
        _ => ResponseError::CorruptMessage,
    };
    ProduceError::new(code, error.to_string())
}

fn crc_matches(bytes: &[u8]) -> bool {
    let stored = bytes.get(17..21).and_then(|field| field.first_chunk()).map(|field| u32::from_be_bytes(*field));
    stored == bytes.get(21..).map(crc32c::crc32c)
}

fn check_header(view: &BatchView<'_>) -> Result<(), ProduceError> {
    if view.is_control() {
        return Err(invalid("Clients are not allowed to write control records"));
    }
    if view.is_transactional() {
        let message = "This broker does not support transactions";
        return Err(ProduceError::new(ResponseError::InvalidTxnState, message));
    }
    if view.record_count == 0 || i64::from(view.record_count) != i64::from(view.last_offset_delta) + 1 {
        return Err(invalid("The record count and the offsets of the batch do not match"));
    }
    if view.stamp().is_some_and(|stamp| stamp.base_sequence < 0 || stamp.epoch < 0) {
        return Err(invalid("The batch has a producer id but no valid sequence or epoch"));
    }
    if !matches!(view.codec(), 0 | 2) {
        let message = "This broker supports uncompressed and snappy batches only";
        return Err(ProduceError::new(ResponseError::UnsupportedCompressionType, message));
    }
    Ok(())
}

fn check_records(
    view: &BatchView<'_>,
    config: &TopicConfig,
    now_ms: i64,
    target: AppendTarget<'_>,
    filter: Option<&RecordFilter>,
) -> Result<(), ProduceError> {
    let records = view.records(MAX_UNCOMPRESSED).map_err(|error| invalid(error.to_string()))?;
    let mut rejected = RejectedRecords::default();
    for (index, record) in (0_i32..).zip(&records) {
        let record = record.map_err(|error| invalid(error.to_string()))?;
        if record.offset_delta != index {
            rejected.invalid(index, "the record's offset does not follow the previous record's".to_owned());
        } else if config.compacted && record.key.is_none() {
            let AppendTarget { topic, partition } = target;
            let why =
                format!("Compacted topic cannot accept message without key in topic partition {topic}-{partition}.");
            rejected.invalid(index, why);
        } else if !config.log_append_time && !timestamp_is_allowed(&record, config, now_ms) {
            rejected.timestamp(index, record.timestamp);
        } else if let Some(why) = filter.and_then(|filter| filter(&Record::decoded(target.partition, 0, &record))) {
            rejected.invalid(index, why);
        }
    }
    rejected.into_result()
}

fn timestamp_is_allowed(record: &DecodedRecord<'_>, config: &TopicConfig, now_ms: i64) -> bool {
    let ahead = record.timestamp.saturating_sub(now_ms);
    ahead <= config.timestamp_after_max_ms && ahead.saturating_neg() <= config.timestamp_before_max_ms
}

/// The records because of which a batch is refused.
#[derive(Default)]
struct RejectedRecords {
    errors: Vec<(i32, String)>,
    any_timestamp: bool,
}

impl RejectedRecords {
    fn invalid(&mut self, index: i32, why: String) {
        self.errors.push((index, why));
    }

    fn timestamp(&mut self, index: i32, timestamp: i64) {
        self.any_timestamp = true;
        self.errors.push((index, format!("Timestamp {timestamp} of message is out of range")));
    }

    fn into_result(self) -> Result<(), ProduceError> {
        let (code, message) = match self.errors.len() {
            0 => return Ok(()),
            _ if self.any_timestamp => (
                ResponseError::InvalidTimestamp,
                "One or more records have been rejected due to invalid timestamp".to_owned(),
            ),
            count => (
                ResponseError::InvalidRecord,
                format!("One or more records have been rejected due to {count} record errors in total"),
            ),
        };
        Err(ProduceError { code, message: Some(message), record_errors: self.errors })
    }
}
