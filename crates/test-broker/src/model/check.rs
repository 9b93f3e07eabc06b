//! What a leader checks in the bytes of a Produce request before it looks at the producer: `ProduceRequest.validateRecords`,
//! `UnifiedLog.analyzeAndValidateRecords` and `LogValidator`, in their order.
//!
//! Rules: size before CRC, CRC before content; guilty records are all named (KIP-467); an answer depends on the bytes, the
//! topic's configuration and the time alone, so it can be computed before the partition is locked.

use std::sync::Arc;

use bytes::Bytes;
use kafka_courier_batcher::{BatchView, DecodeError, DecodedRecord, Stamp};
use kafka_protocol::ResponseError;

use super::{Refusal, TopicConfig};
use crate::records::Record;

/// The most bytes that the records of one batch may take uncompressed.
pub(crate) const MAX_UNCOMPRESSED: usize = 128 << 20;

/// Says why a record is to be refused.
pub(crate) type RecordFilter = Arc<dyn Fn(&Record) -> Option<String> + Send + Sync>;

/// A batch that may be appended, as far as its bytes go.
#[derive(Clone, Debug)]
pub(crate) struct CheckedBatch {
    pub(crate) bytes: Bytes,
    pub(crate) records: u32,
    pub(crate) stamp: Option<Stamp>,
    pub(crate) max_timestamp: i64,
}

/// Where the batch is going, as error messages and record filters want it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
}

/// Checks the records field of a partition in a Produce request.
pub(crate) fn check_batch(
    bytes: &Bytes,
    config: &TopicConfig,
    now_ms: i64,
    target: Target<'_>,
    filter: Option<&RecordFilter>,
) -> Result<CheckedBatch, Refusal> {
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
        return Err(Refusal::new(ResponseError::MessageTooLarge, message));
    }
    if !view.check_crc() {
        return Err(Refusal::new(ResponseError::CorruptMessage, "Record is corrupt: its CRC is another"));
    }
    check_header(&view)?;
    check_records(&view, config, now_ms, target, filter)?;
    if bytes.len() > usize::try_from(config.segment_bytes).unwrap_or(0) {
        let message = "Message batch size exceeds the maximum configured segment size";
        return Err(Refusal::new(ResponseError::RecordListTooLarge, message));
    }
    Ok(CheckedBatch {
        bytes: bytes.clone(),
        records: view.record_count,
        stamp: view.stamp(),
        max_timestamp: view.max_timestamp,
    })
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(ResponseError::InvalidRecord, message)
}

fn malformed(error: DecodeError, bytes: &[u8]) -> Refusal {
    let code = match error {
        // Kafka knows formats 0 to 2; whatever else stands there is damage.
        DecodeError::UnsupportedMagic(0 | 1) | DecodeError::Truncated => ResponseError::InvalidRecord,
        DecodeError::BadCount if crc_matches(bytes) => ResponseError::InvalidRecord,
        _ => ResponseError::CorruptMessage,
    };
    Refusal::new(code, error.to_string())
}

fn crc_matches(bytes: &[u8]) -> bool {
    let stored = bytes.get(17..21).and_then(|field| field.first_chunk()).map(|field| u32::from_be_bytes(*field));
    stored == bytes.get(21..).map(crc32c::crc32c)
}

fn check_header(view: &BatchView<'_>) -> Result<(), Refusal> {
    if view.is_control() {
        return Err(invalid("Clients are not allowed to write control records"));
    }
    if view.is_transactional() {
        let message = "This broker has no transactions";
        return Err(Refusal::new(ResponseError::InvalidTxnState, message));
    }
    if view.record_count == 0 || i64::from(view.record_count) != i64::from(view.last_offset_delta) + 1 {
        return Err(invalid("The count of records and the offsets of the batch do not agree"));
    }
    if view.stamp().is_some_and(|stamp| stamp.base_sequence < 0 || stamp.epoch < 0) {
        return Err(invalid("The batch has a producer id, but no valid sequence or epoch"));
    }
    if !matches!(view.codec(), 0 | 2) {
        let message = "This broker reads uncompressed and snappy batches only";
        return Err(Refusal::new(ResponseError::UnsupportedCompressionType, message));
    }
    Ok(())
}

fn check_records(
    view: &BatchView<'_>,
    config: &TopicConfig,
    now_ms: i64,
    target: Target<'_>,
    filter: Option<&RecordFilter>,
) -> Result<(), Refusal> {
    let records = view.records(MAX_UNCOMPRESSED).map_err(|error| invalid(error.to_string()))?;
    let mut guilty = Guilty::default();
    for (index, record) in (0_i32..).zip(&records) {
        let record = record.map_err(|error| invalid(error.to_string()))?;
        if record.offset_delta != index {
            guilty.invalid(index, "its offset does not follow the one before".to_owned());
        } else if config.compacted && record.key.is_none() {
            let Target { topic, partition } = target;
            let why =
                format!("Compacted topic cannot accept message without key in topic partition {topic}-{partition}.");
            guilty.invalid(index, why);
        } else if !config.log_append_time && !timestamp_is_allowed(&record, config, now_ms) {
            guilty.timestamp(index, record.timestamp);
        } else if let Some(why) = filter.and_then(|filter| filter(&Record::decoded(target.partition, 0, &record))) {
            guilty.invalid(index, why);
        }
    }
    guilty.verdict()
}

fn timestamp_is_allowed(record: &DecodedRecord<'_>, config: &TopicConfig, now_ms: i64) -> bool {
    let ahead = record.timestamp.saturating_sub(now_ms);
    ahead <= config.timestamp_after_max_ms && ahead.saturating_neg() <= config.timestamp_before_max_ms
}

/// The records that a batch is refused for.
#[derive(Default)]
struct Guilty {
    errors: Vec<(i32, String)>,
    any_timestamp: bool,
}

impl Guilty {
    fn invalid(&mut self, index: i32, why: String) {
        self.errors.push((index, why));
    }

    fn timestamp(&mut self, index: i32, timestamp: i64) {
        self.any_timestamp = true;
        self.errors.push((index, format!("Timestamp {timestamp} of message is out of range")));
    }

    fn verdict(self) -> Result<(), Refusal> {
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
        Err(Refusal { code, message: Some(message), record_errors: self.errors })
    }
}
