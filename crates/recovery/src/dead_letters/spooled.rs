//! The records of a spool that is read and not opened, in the form of dead letters.
//!
//! Rules:
//! - The letter of a record has the id that the record's dead letter has in every process.
//! - A record has the outcome `not_written` if no process has sent it, and `unknown` otherwise.

use kafka_courier_batcher::{BatchView, DecodeError};
use kafka_courier_dlq::{Letter, Outcome, Timestamp, Uuid};
use kafka_courier_producer::StoredPart;

use super::batch_letters::{fill, stored_id};

/// A record of a spool that is neither delivered nor a dead letter.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct UnsettledRecord {
    /// The number of the record in its partition of the spool.
    pub number: u64,
    /// The record as a dead letter.
    pub letter: Letter,
}

impl UnsettledRecord {
    /// Returns the bytes of the record's key, value and headers.
    pub fn size(&self) -> u64 {
        let Letter { key, value, headers, .. } = &self.letter;
        let bytes = |bytes: &Option<kafka_courier_dlq::Bytes>| bytes.as_ref().map_or(0, |bytes| bytes.len());
        let headers: usize = headers.iter().map(|header| header.name.len() + bytes(&header.value)).sum();
        (bytes(key) + bytes(value) + headers) as u64
    }
}

/// Returns the records of a part of a spool, in order.
///
/// # Errors
///
/// The bytes are no batch.
pub fn unsettled_records(part: &StoredPart) -> Result<Vec<UnsettledRecord>, DecodeError> {
    let (view, _) = BatchView::parse(part.batch.as_bytes())?;
    let records = view.records(usize::MAX)?;
    let mut unsettled = Vec::new();
    for (index, record) in (0..).zip(&records) {
        let record = record?;
        let identity = part.record(index);
        let reason = if part.stamp.is_some() { MAYBE_SENT } else { NOT_SENT };
        let at = Timestamp::from_millisecond(record.timestamp).unwrap_or_default();
        let mut letter = Letter::new(&*part.topic, None, reason, at);
        fill(&mut letter, &record);
        letter.id = stored_id(&identity, record.timestamp);
        letter.partition = Some(part.partition);
        letter.topic_id = part.topic_id.map(Uuid::from_bytes);
        (letter.retriable, letter.attempt_count) = (true, 0);
        match part.stamp {
            None => letter.outcome = Outcome::NotWritten,
            Some(stamp) => {
                letter.producer_id = Some(stamp.producer_id);
                letter.producer_epoch = Some(stamp.epoch);
                letter.sequence = Some(stamp.advance(index).base_sequence);
                letter.search_from = part.search_from;
            }
        }
        unsettled.push(UnsettledRecord { number: identity.ordinal, letter });
    }
    Ok(unsettled)
}

const NOT_SENT: &str = "exported from the spool: no process has sent the record";
const MAYBE_SENT: &str = "exported from the spool: a process may have sent the record";
