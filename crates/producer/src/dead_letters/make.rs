//! Dead letters of a batch that was given up.
//!
//! Rules: pure; one letter for each record, in the records' order, with the record's own bytes; a letter that was
//! being replayed stays the same one, whatever headers say: who sent it is known from within.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use kafka_courier_batcher::{BatchView, DecodeError, DecodedRecord, EncodedBatch, sequence_add};
use kafka_courier_dlq::{Bytes, Header, Letter, Outcome, Timestamp, Uuid};
use kafka_courier_idempotent_sender::core::{FailedOutcome, Failure, RecordSet};

use crate::clock::ClockOf;
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

/// A letter, its record's index in the batch that was handed in, and whether it was a letter before.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) index: u32,
    pub(crate) letter: Letter,
    pub(crate) again: bool,
}

/// The letters; `replayed` are the records that were letters before.
pub(crate) fn letters(given_up: &GivenUp<'_>, clocks: Clocks, replayed: &[(u32, Arc<Letter>)]) -> Vec<Made> {
    match decode(given_up, clocks, replayed) {
        Ok(letters) => letters,
        Err(error) => {
            // A defect of ours; the bytes are kept whole rather than lost.
            tracing::error!(topic = given_up.topic, %error, "a batch that was given up could not be decoded");
            let mut letter = letter(given_up, clocks, 0);
            letter.value = Some(Bytes::copy_from_slice(given_up.batch.as_bytes()));
            letter.failure_reason = format!("{}; the batch could not be decoded: {error}", letter.failure_reason);
            vec![Made { index: given_up.records.get(0).unwrap_or(0), letter, again: false }]
        }
    }
}

fn decode(given_up: &GivenUp<'_>, clocks: Clocks, replayed: &[(u32, Arc<Letter>)]) -> Result<Vec<Made>, DecodeError> {
    let before: HashMap<u32, &Letter> = replayed.iter().map(|(index, letter)| (*index, &**letter)).collect();
    let (view, _) = BatchView::parse(given_up.batch.as_bytes())?;
    let records = view.records(usize::MAX)?;
    let mut letters = Vec::new();
    for (position, record) in (0..).zip(&records) {
        let mut letter = letter(given_up, clocks, position);
        fill(&mut letter, &record?);
        let index = given_up.records.get(position).unwrap_or(position);
        letters.push(match before.get(&index) {
            Some(before) => {
                let counts = !given_up.failure.reason.is_outage();
                Made { index, letter: again(before, letter, counts), again: true }
            }
            None => Made { index, letter, again: false },
        });
    }
    Ok(letters)
}

/// What the letters of a batch have in common.
fn letter(given_up: &GivenUp<'_>, clocks: Clocks, position: u32) -> Letter {
    let failure = given_up.failure;
    let (first, last) = (clocks.at(failure.first_attempt), clocks.at(failure.last_attempt));
    let index = given_up.records.get(position).unwrap_or(position);
    let mut letter = Letter::new(given_up.topic, None, reason(failure, index), first);
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

fn reason(failure: &Failure, index: u32) -> String {
    let late = if failure.timed_out { "; delivery_timeout ran out" } else { "" };
    format!("{}{}{late}", failure.reason_of(index), ClockOf(failure))
}

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

/// The letter of a record that was a letter before: the same one, with what became of it now. A doubt of before stays
/// one, and nothing that belongs to one attempt alone can settle it. `counts` says whether that was a replay: not if the
/// cluster is the cause.
fn again(before: &Letter, now: Letter, counts: bool) -> Letter {
    let mut letter = before.clone();
    letter.partition = now.partition;
    letter.failure_reason = now.failure_reason;
    letter.replay = now.replay;
    letter.error_code = now.error_code;
    letter.retriable = now.retriable;
    letter.attempt_count = before.attempt_count.saturating_add(now.attempt_count);
    letter.first_attempt = before.first_attempt.min(now.first_attempt);
    letter.last_attempt = now.last_attempt;
    letter.replay_count = before.replay_count.saturating_add(counts.into());
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
    fn a_second_doubt_does_not_hide_the_first_one() {
        let merged = again(&letter(Outcome::Unknown, 1, 100), letter(Outcome::Unknown, 2, 200), true);
        assert_eq!((merged.outcome, merged.search_from), (Outcome::Unknown, Some(100)));
        assert_eq!((merged.producer_id, merged.producer_epoch, merged.sequence), (None, None, None));
        let certain = again(&letter(Outcome::Unknown, 1, 100), letter(Outcome::NotWritten, 2, 200), true);
        assert_eq!(certain.outcome, Outcome::Unknown);
    }

    #[test]
    fn the_attempts_of_all_times_are_counted_from_the_first_one_on() {
        let (mut before, mut now) = (letter(Outcome::NotWritten, 1, 1), letter(Outcome::NotWritten, 2, 2));
        (before.attempt_count, now.attempt_count) = (4, 3);
        now.first_attempt = Timestamp::from_second(60).unwrap_or_default();
        now.last_attempt = now.first_attempt;
        let merged = again(&before, now.clone(), true);
        assert_eq!((merged.attempt_count, merged.replay_count, merged.id), (7, 1, before.id));
        assert_eq!(again(&before, now.clone(), false).replay_count, 0, "the cluster was the cause");
        assert_eq!((merged.first_attempt, merged.last_attempt), (before.first_attempt, now.last_attempt));
    }
}
