//! The dead letters of a failed batch.
//!
//! Rules:
//! - This module is pure.
//! - Each record has one letter with the record's own bytes. The letters are in the records' order.
//! - A replayed letter that fails again keeps its identity. The record's tag, not a header, identifies replayed letters.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use kafka_courier_batcher::{BatchView, DecodeError, DecodedRecord};
use kafka_courier_dlq::{Bytes, Header, Letter, LetterId, Outcome, Timestamp, Uuid};
use kafka_courier_idempotent_sender::core::{FailedOutcome, Failure, RecordSet};
use kafka_courier_producer::{ClockOf, StoredRecord};
use sha2::{Digest, Sha256};

use crate::headers;

/// A failed batch, or the failed part of a batch.
#[derive(Debug)]
pub(crate) struct FailedBatch<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) records: &'a RecordSet,
    pub(crate) failure: &'a Failure,
    /// The encoded batch of exactly these records.
    pub(crate) batch: &'a [u8],
    /// The milliseconds by which the sender moved the records' timestamps.
    pub(crate) moved_ms: i64,
}

/// The wall clock and the monotonic clock, read together. Letters contain wall-clock times, and attempts have monotonic
/// times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    pub(crate) wall: SystemTime,
    pub(crate) steady: Instant,
}

impl Clocks {
    pub(crate) fn read() -> Self {
        Self { wall: SystemTime::now(), steady: Instant::now() }
    }

    /// Converts an instant to wall-clock time.
    fn at(&self, instant: Option<Instant>) -> Timestamp {
        let ago = instant.map_or(Duration::ZERO, |instant| self.steady.saturating_duration_since(instant));
        let wall = self.wall.checked_sub(ago).unwrap_or(self.wall);
        Timestamp::try_from(wall).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// A letter of a failed batch.
#[derive(Debug)]
pub(crate) struct BatchLetter {
    /// The record's index in the batch as it was accepted.
    pub(crate) index: u32,
    pub(crate) letter: Letter,
    /// Whether the record was a dead letter before, and its replay failed.
    pub(crate) is_replayed: bool,
}

/// Returns the letters of a failed batch. `replayed` are the letters whose replay is in the batch, by record index.
pub(crate) fn letters(failed: &FailedBatch<'_>, clocks: Clocks, replayed: &[(u32, Arc<Letter>)]) -> Vec<BatchLetter> {
    match decode(failed, clocks, replayed) {
        Ok(letters) => letters,
        Err(error) => {
            // This is a bug of this library. A letter with the bytes of the whole batch avoids losing the records.
            tracing::error!(topic = failed.topic, %error, "failed batch is not decodable");
            let mut letter = letter(failed, clocks, 0);
            letter.value = Some(Bytes::copy_from_slice(failed.batch));
            letter.failure_reason = format!("{}; the batch could not be decoded: {error}", letter.failure_reason);
            vec![BatchLetter { index: failed.records.get(0).unwrap_or(0), letter, is_replayed: false }]
        }
    }
}

fn decode(
    failed: &FailedBatch<'_>,
    clocks: Clocks,
    replayed: &[(u32, Arc<Letter>)],
) -> Result<Vec<BatchLetter>, DecodeError> {
    let before: HashMap<u32, &Letter> = replayed.iter().map(|(index, letter)| (*index, &**letter)).collect();
    let (view, _) = BatchView::parse(failed.batch)?;
    let records = view.records(usize::MAX)?;
    let mut letters = Vec::new();
    for (position, record) in (0..).zip(&records) {
        let mut letter = letter(failed, clocks, position);
        fill(&mut letter, &record?);
        // The id of a stored record's letter contains the time, and each process may move the times otherwise.
        letter.timestamp_ms = letter.timestamp_ms.saturating_sub(failed.moved_ms);
        let index = failed.records.get(position).unwrap_or(position);
        letters.push(match before.get(&index) {
            Some(before) => {
                let is_counted = !failed.failure.reason.is_outage();
                BatchLetter { index, letter: merge_replayed(before, letter, is_counted), is_replayed: true }
            }
            None => BatchLetter { index, letter, is_replayed: false },
        });
    }
    Ok(letters)
}

/// Returns a letter with the fields that are the same for each record of the batch, and the sequence number of the
/// record at `position`.
fn letter(failed: &FailedBatch<'_>, clocks: Clocks, position: u32) -> Letter {
    let failure = failed.failure;
    let (first, last) = (clocks.at(failure.first_attempt), clocks.at(failure.last_attempt));
    let index = failed.records.get(position).unwrap_or(position);
    let mut letter = Letter::new(failed.topic, None, reason(failure, index), first);
    letter.last_attempt = last;
    letter.partition = Some(failed.partition);
    letter.error_code = failure.reason.code().map(|code| code.name().to_owned());
    letter.outcome = match failure.outcome {
        FailedOutcome::NotWritten => Outcome::NotWritten,
        FailedOutcome::Unknown => Outcome::Unknown,
    };
    letter.retriable = failure.reason.is_retriable();
    letter.attempt_count = failure.attempts;
    letter.topic_id = failure.topic_uuid.map(Uuid::from_bytes);
    letter.search_from = failure.search_from;
    if let Some(stamp) = failure.stamp {
        letter.producer_id = Some(stamp.producer_id);
        letter.producer_epoch = Some(stamp.epoch);
        letter.sequence = Some(stamp.advance(position).base_sequence);
    }
    letter
}

fn reason(failure: &Failure, index: u32) -> String {
    let late = if failure.timed_out { "; delivery_timeout ran out" } else { "" };
    format!("{}{}{late}", failure.reason_of(index), ClockOf(failure))
}

/// Sets key, value, headers and timestamp of a letter from its record.
pub(super) fn fill(letter: &mut Letter, record: &DecodedRecord<'_>) {
    letter.key = record.key.map(Bytes::copy_from_slice);
    letter.value = record.value.map(Bytes::copy_from_slice);
    letter.timestamp_ms = record.timestamp;
    for header in &record.headers {
        let text = header.value.and_then(|value| std::str::from_utf8(value).ok());
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

/// Returns the id of the letter of a record in a spool: a UUIDv8 (RFC 9562) that begins with the record's timestamp, as a
/// UUIDv7 does, and continues with a hash of the record's identity.
pub(super) fn stored_id(record: &StoredRecord, timestamp_ms: i64) -> LetterId {
    let mut hash = Sha256::new();
    hash.update(record.spool);
    hash.update(u64::try_from(record.nonce.len()).unwrap_or(u64::MAX).to_be_bytes());
    hash.update(&*record.nonce);
    hash.update(record.topic.to_be_bytes());
    hash.update(record.partition.to_be_bytes());
    hash.update(record.ordinal.to_be_bytes());
    let digest = hash.finalize();
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(digest).for_each(|(byte, of_hash)| *byte = of_hash);
    let [_, _, time @ ..] = timestamp_ms.to_be_bytes();
    bytes[..6].copy_from_slice(&time);
    bytes[6] = bytes[6] & 0x0f | 0x80; // version 8
    bytes[8] = bytes[8] & 0x3f | 0x80; // variant of RFC 9562
    Uuid::from_bytes(bytes).into()
}

/// Merges the result of a failed replay into the replayed letter.
///
/// An unknown outcome stays unknown, because no field of a single attempt can settle it. `is_counted` adds the attempt
/// to the replay count. Replays that the cluster made fail are not counted.
fn merge_replayed(before: &Letter, now: Letter, is_counted: bool) -> Letter {
    let mut letter = before.clone();
    letter.partition = now.partition;
    letter.failure_reason = now.failure_reason;
    letter.replay = now.replay;
    letter.error_code = now.error_code;
    letter.retriable = now.retriable;
    letter.attempt_count = before.attempt_count.saturating_add(now.attempt_count);
    letter.first_attempt = before.first_attempt.min(now.first_attempt);
    letter.last_attempt = now.last_attempt;
    letter.replay_count = before.replay_count.saturating_add(is_counted.into());
    if before.outcome == Outcome::Unknown {
        (letter.producer_id, letter.producer_epoch, letter.sequence) = (None, None, None);
        let both = before.partition == now.partition && before.topic_id == now.topic_id;
        letter.search_from = before.search_from.filter(|_| both);
    } else {
        letter.outcome = now.outcome;
        letter.topic_id = now.topic_id;
        letter.search_from = now.search_from;
        (letter.producer_id, letter.producer_epoch, letter.sequence) =
            (now.producer_id, now.producer_epoch, now.sequence);
    }
    letter
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(outcome: Outcome, producer_id: i64, search_from: i64) -> Letter {
        let mut letter = Letter::new("t", None, "why", Timestamp::UNIX_EPOCH);
        (letter.outcome, letter.producer_id, letter.search_from) = (outcome, Some(producer_id), Some(search_from));
        (letter.producer_epoch, letter.sequence, letter.partition) = (Some(1), Some(2), Some(0));
        letter
    }

    #[test]
    fn unknown_outcomes_stay_unknown() {
        let merged = merge_replayed(&letter(Outcome::Unknown, 1, 100), letter(Outcome::Unknown, 2, 200), true);
        assert_eq!((merged.outcome, merged.search_from), (Outcome::Unknown, Some(100)));
        assert_eq!((merged.producer_id, merged.producer_epoch, merged.sequence), (None, None, None));
        let certain = merge_replayed(&letter(Outcome::Unknown, 1, 100), letter(Outcome::NotWritten, 2, 200), true);
        assert_eq!(certain.outcome, Outcome::Unknown);
    }

    #[test]
    fn attempts_of_all_replays_add_up() {
        let (mut before, mut now) = (letter(Outcome::NotWritten, 1, 1), letter(Outcome::NotWritten, 2, 2));
        (before.attempt_count, now.attempt_count) = (4, 3);
        now.first_attempt = Timestamp::from_second(60).unwrap_or_default();
        now.last_attempt = now.first_attempt;
        let merged = merge_replayed(&before, now.clone(), true);
        assert_eq!((merged.attempt_count, merged.replay_count, merged.id), (7, 1, before.id));
        assert_eq!(merge_replayed(&before, now.clone(), false).replay_count, 0, "the cluster was the cause");
        assert_eq!((merged.first_attempt, merged.last_attempt), (before.first_attempt, now.last_attempt));
    }
}
