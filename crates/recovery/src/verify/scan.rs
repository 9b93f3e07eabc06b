//! Passes the batches of a Fetch response to the proof.
//!
//! Rules: only whole batches with a valid checksum are passed. A batch whose records cannot be decoded is passed by its
//! header.

use kafka_courier_batcher::{BatchView, DecodeError, DecodedRecord, Header};

use super::check::{BatchHead, PartitionCheck};
use crate::headers::{DLQ_ID, EVENT_ID};

/// The largest uncompressed size of a batch's records, in bytes. Kafka's default for a batch is 1 MiB.
const MAX_UNCOMPRESSED: usize = 128 << 20;

/// An error in a Fetch response.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum ScanError {
    #[error("the record batch at offset {0} is corrupt: checksum mismatch")]
    Checksum(i64),
    #[error("after offset {0}: {1}")]
    Batch(i64, DecodeError),
}

/// Passes every whole batch that ends after the check's next offset to the check. Returns whether there was one.
pub(super) fn scan(mut bytes: &[u8], check: &mut PartitionCheck) -> Result<bool, ScanError> {
    let before = check.next();
    loop {
        let (view, rest) = match BatchView::parse(bytes) {
            Ok(parsed) => parsed,
            Err(DecodeError::Truncated) => return Ok(check.next() > before),
            Err(error) => return Err(ScanError::Batch(check.next(), error)),
        };
        bytes = rest;
        let end = view.base_offset.saturating_add(i64::from(view.last_offset_delta)).saturating_add(1);
        if end <= check.next() {
            continue;
        }
        if !view.check_crc() {
            return Err(ScanError::Checksum(view.base_offset));
        }
        if !view.is_control() {
            pass_batch(&view, check);
        }
        check.read_up_to(end);
    }
}

fn pass_batch(view: &BatchView<'_>, check: &mut PartitionCheck) {
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

/// Returns the text of a header. Ids are ASCII, so a value that is not UTF-8 is not an id of this library.
fn header<'r>(record: &DecodedRecord<'r>, name: &str) -> Option<&'r str> {
    let found: Option<&Header<'r>> = record.headers.iter().find(|header| header.key == name);
    found?.value.and_then(|value| std::str::from_utf8(value).ok())
}
