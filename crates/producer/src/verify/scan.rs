//! From the bytes of a Fetch answer to what the proof needs.
//!
//! Rules: a batch counts whole, its checksum right, or not at all; a batch whose records can't be read still counts by its
//! header.

use kafka_courier_batcher::{BatchView, DecodeError, DecodedRecord, Header};

use super::check::{BatchHead, PartitionCheck};
use crate::headers::{DLQ_ID, EVENT_ID};

/// The most that one batch's records may take uncompressed, bytes; Kafka's own default for a batch is 1 MiB.
const MAX_UNCOMPRESSED: usize = 128 << 20;

/// Why an answer could not be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum ScanError {
    #[error("the record batch at offset {0} is damaged: its checksum is wrong")]
    Checksum(i64),
    #[error("behind offset {0}: {1}")]
    Batch(i64, DecodeError),
}

/// Shows the check every whole batch that reaches past what it has read. Answers whether there was any.
pub(super) fn scan(mut bytes: &[u8], check: &mut PartitionCheck) -> Result<bool, ScanError> {
    let before = check.next();
    loop {
        let (view, rest) = match BatchView::parse(bytes) {
            Ok(parsed) => parsed,
            Err(DecodeError::Truncated) => return Ok(check.next() > before),
            Err(error) => return Err(ScanError::Batch(check.next(), error)),
        };
        bytes = rest;
        let behind = view.base_offset.saturating_add(i64::from(view.last_offset_delta)).saturating_add(1);
        if behind <= check.next() {
            continue;
        }
        if !view.check_crc() {
            return Err(ScanError::Checksum(view.base_offset));
        }
        if !view.is_control() {
            show(&view, check);
        }
        check.read_up_to(behind);
    }
}

fn show(view: &BatchView<'_>, check: &mut PartitionCheck) {
    let head = BatchHead {
        base_offset: view.base_offset,
        last_offset_delta: view.last_offset_delta,
        stamp: view.stamp(),
        max_timestamp: view.max_timestamp,
    };
    check.on_batch(&head);
    let Ok(records) = view.records(MAX_UNCOMPRESSED) else { return check.on_unreadable(&head) };
    for record in &records {
        let Ok(record) = record else { return check.on_unreadable(&head) };
        let offset = view.base_offset.saturating_add(i64::from(record.offset_delta));
        let event_id = header(&record, EVENT_ID);
        check.on_event(offset, event_id);
        if !view.is_transactional() {
            check.on_record(offset, event_id, header(&record, DLQ_ID));
        }
    }
}

/// The header's text. Ids are ASCII; what is not UTF-8 is none of ours.
fn header<'r>(record: &DecodedRecord<'r>, name: &str) -> Option<&'r str> {
    let found: Option<&Header<'r>> = record.headers.iter().find(|header| header.key == name);
    found?.value.and_then(|value| std::str::from_utf8(value).ok())
}
