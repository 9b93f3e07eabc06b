//! Dead letters of a batch that was given up.
//!
//! Rules: pure; one letter for each record, in the records' order, with the record's own bytes; a letter that was
//! being replayed keeps its identity, so that it is found again and put in its own place.

use std::time::{Duration, Instant, SystemTime};

use kafka_courier_batcher::{BatchView, DecodeError, DecodedRecord, EncodedBatch, sequence_add};
use kafka_courier_dlq::{Bytes, Header, Letter, LetterId, Outcome, Timestamp, Uuid};
use kafka_courier_idempotent_sender::core::{FailedOutcome, Failure, RecordSet};

use crate::headers;

/// A batch, or a part of one, that was given up.
#[derive(Debug)]
pub(crate) struct GivenUp<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) records: &'a RecordSet,
    pub(crate) failure: &'a Failure,
    pub(crate) batch: &'a EncodedBatch,
}

/// The wall clock and the monotonic one, read together: letters speak of the former, attempts of the latter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    pub(crate) wall: SystemTime,
    pub(crate) steady: Instant,
}

impl Clocks {
    pub(crate) fn read() -> Self {
        Self { wall: SystemTime::now(), steady: Instant::now() }
    }

    /// The wall clock's time of an instant.
    fn at(&self, instant: Option<Instant>) -> Timestamp {
        let ago = instant.map_or(Duration::ZERO, |instant| self.steady.saturating_duration_since(instant));
        let wall = self.wall.checked_sub(ago).unwrap_or(self.wall);
        Timestamp::try_from(wall).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// The letters, each with its record's index in the batch that was handed in.
pub(crate) fn letters(given_up: &GivenUp<'_>, clocks: Clocks) -> Vec<(u32, Letter)> {
    match decode(given_up, clocks) {
        Ok(letters) => letters,
        Err(error) => {
            // A defect of ours; the bytes are kept whole rather than lost.
            tracing::error!(topic = given_up.topic, %error, "a batch that was given up could not be decoded");
            let mut letter = letter(given_up, clocks, 0);
            letter.value = Some(Bytes::copy_from_slice(given_up.batch.as_bytes()));
            letter.failure_reason = format!("{}; the batch could not be decoded: {error}", letter.failure_reason);
            vec![(given_up.records.get(0).unwrap_or(0), letter)]
        }
    }
}

fn decode(given_up: &GivenUp<'_>, clocks: Clocks) -> Result<Vec<(u32, Letter)>, DecodeError> {
    let (view, _) = BatchView::parse(given_up.batch.as_bytes())?;
    let records = view.records(usize::MAX)?;
    let mut letters = Vec::new();
    for (position, record) in (0..).zip(&records) {
        let mut letter = letter(given_up, clocks, position);
        fill(&mut letter, &record?);
        letters.push((given_up.records.get(position).unwrap_or(position), letter));
    }
    Ok(letters)
}

/// What the letters of a batch have in common.
fn letter(given_up: &GivenUp<'_>, clocks: Clocks, position: u32) -> Letter {
    let failure = given_up.failure;
    let (first, last) = (clocks.at(failure.first_attempt), clocks.at(failure.last_attempt));
    let mut letter = Letter::new(given_up.topic, None, reason(failure), first);
    letter.last_attempt = last;
    letter.partition = Some(given_up.partition);
    letter.error_code = failure.reason.code().map(|code| code.name().to_owned());
    letter.outcome = match failure.outcome {
        FailedOutcome::NotWritten => Outcome::NotWritten,
        FailedOutcome::Unknown => Outcome::Unknown,
    };
    letter.retriable = failure.reason.is_retriable();
    letter.attempt_count = failure.attempts;
    letter.topic_id = (failure.topic_uuid != [0; 16]).then(|| Uuid::from_bytes(failure.topic_uuid));
    letter.search_from = failure.search_from;
    if let Some(stamp) = failure.stamp {
        letter.producer_id = Some(stamp.producer_id);
        letter.producer_epoch = Some(stamp.epoch);
        letter.sequence = Some(sequence_add(stamp.base_sequence, position));
    }
    letter
}

fn reason(failure: &Failure) -> String {
    let late = if failure.timed_out { "; delivery_timeout ran out" } else { "" };
    format!("{}{late}", failure.reason)
}

pub(super) fn fill(letter: &mut Letter, record: &DecodedRecord<'_>) {
    letter.key = record.key.map(Bytes::copy_from_slice);
    letter.value = record.value.map(Bytes::copy_from_slice);
    letter.timestamp_ms = record.timestamp;
    for header in &record.headers {
        let text = header.value.and_then(|value| std::str::from_utf8(value).ok());
        match (header.key, text) {
            (headers::DLQ_ID, Some(id)) => letter.id = id.parse().unwrap_or_else(|_| LetterId::new()),
            (headers::DLQ_REPLAY_COUNT, Some(count)) => letter.replay_count = count.parse().unwrap_or(0),
            // Whatever became of it this time: an earlier attempt may be in the log.
            (headers::DLQ_POSSIBLY_WRITTEN, Some("true")) => letter.outcome = Outcome::Unknown,
            (headers::DLQ_ORIGINAL_TIMESTAMP, Some(at)) => {
                letter.timestamp_ms = at.parse().map_or(record.timestamp, Timestamp::as_millisecond);
            }
            _ => {
                match header.key {
                    headers::EVENT_ID => letter.event_id = text.map(Into::into),
                    headers::EVENT_TYPE => letter.event_type = text.map(Into::into),
                    headers::CORRELATION_ID => letter.correlation_id = text.map(Into::into),
                    _ => {}
                }
                let value = header.value.map(Bytes::copy_from_slice);
                letter.headers.push(Header { name: header.key.into(), value });
            }
        }
    }
}
