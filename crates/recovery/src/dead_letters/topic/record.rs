//! The records of the dead-letter topic: letters, settled letters and claims.
//!
//! Rules:
//! - This module is pure.
//! - Key, value and headers of the original record are kept byte for byte and in order. The `dlq.` headers follow, with
//!   `dlq.id` first, and then the headers of Kafka Connect.
//! - If the original record has a header with one of these names, the added header is last. Readers use the last one.

use kafka_courier_batcher::DecodedRecord;
use kafka_courier_dlq::{Bytes, Header, LETTER_FORMAT, Letter, LetterId, Outcome, ReplayState, Timestamp};

use super::arrival::Arrival;
use super::claim::ClaimRecord;
use crate::headers::borrowed_headers;
use crate::headers::*;

/// A record of the dead-letter topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum LoggedEntry {
    /// A letter or its newer version, and the letter's arrival.
    Letter(Box<Letter>, Arrival),
    /// The letter with this id is settled, and no longer a dead letter.
    Settled(LetterId),
    /// A process claims the right to replay, or renews or releases its claim.
    Claim {
        claim: Box<ClaimRecord>,
        /// The record's timestamp.
        at_ms: i64,
    },
}

/// Returns the headers of a letter's record.
pub(crate) fn headers(letter: &Letter, client_id: &str, arrived: Option<Arrival>) -> Vec<Header> {
    let mut headers = letter.headers.clone();
    dlq_headers(letter, &mut |name, value| headers.push(header(name, value)));
    headers.extend(arrived.map(arrival_header));
    connect_headers(letter, client_id, &mut |name, value| headers.push(header(name, value)));
    headers
}

/// Returns the letter that a reader parses from the letter's record, or `None` if the record does not parse as a
/// letter.
pub(crate) fn read_back(letter: &Letter, client_id: &str) -> Option<Letter> {
    let headers = headers(letter, client_id, None);
    let read = parse_entry(&DecodedRecord {
        offset_delta: 0,
        timestamp: letter.timestamp_ms,
        key: letter.key.as_deref(),
        value: letter.value.as_deref(),
        headers: borrowed_headers(&headers),
    });
    match read {
        Some(LoggedEntry::Letter(letter, _)) => Some(*letter),
        _ => None,
    }
}

/// Returns the headers of the record that settles a letter.
pub(crate) fn settled_headers(id: LetterId) -> Vec<Header> {
    vec![header(DLQ_SETTLED, id.to_string())]
}

/// Returns the header with a letter's arrival.
fn arrival_header(arrival: Arrival) -> Header {
    match arrival {
        Arrival::First(stamp) => header(DLQ_ARRIVAL, stamp.to_string()),
        Arrival::Before(stamp) => header(DLQ_FIRST_ARRIVAL, stamp.to_string()),
    }
}

fn header(name: &str, value: String) -> Header {
    Header { name: name.to_owned(), value: Some(value.into()) }
}

fn dlq_headers(letter: &Letter, put: &mut impl FnMut(&'static str, String)) {
    put(DLQ_ID, letter.id.to_string());
    put(DLQ_TOPIC, letter.topic.clone());
    put(DLQ_REASON, letter.failure_reason.clone());
    put(DLQ_FAILED_AT, letter.last_attempt.to_string());
    put(DLQ_FIRST_ATTEMPT, letter.first_attempt.to_string());
    put(DLQ_ATTEMPTS, letter.attempt_count.to_string());
    put(DLQ_REPLAY_COUNT, letter.replay_count.to_string());
    put(DLQ_POSSIBLY_WRITTEN, (letter.outcome == Outcome::Unknown).to_string());
    put(DLQ_REASON_CLASS, if letter.retriable { "retriable" } else { "poison" }.to_owned());
    let published = Timestamp::from_millisecond(letter.timestamp_ms);
    let optional: [(&'static str, Option<String>); 9] = [
        (DLQ_ORIGINAL_TIMESTAMP, published.ok().map(|at| at.to_string())),
        (DLQ_PARTITION, letter.partition.map(|partition| partition.to_string())),
        (DLQ_ERROR_CODE, letter.error_code.clone()),
        (DLQ_TOPIC_ID, letter.topic_id.map(|id| id.to_string())),
        (DLQ_PRODUCER_ID, letter.producer_id.map(|id| id.to_string())),
        (DLQ_PRODUCER_EPOCH, letter.producer_epoch.map(|epoch| epoch.to_string())),
        (DLQ_SEQUENCE, letter.sequence.map(|sequence| sequence.to_string())),
        (DLQ_SEARCH_FROM, letter.search_from.map(|offset| offset.to_string())),
        (DLQ_REPLAY, replay_text(letter.replay)),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            put(name, value);
        }
    }
    put(DLQ_FORMAT, LETTER_FORMAT.to_string());
}

/// The state as in the letter's JSON. `None` if no replay is sending the record.
fn replay_text(replay: ReplayState) -> Option<String> {
    (!replay.is_idle()).then(|| serde_json::to_string(&replay).unwrap_or_default())
}

/// Reads the state. A text of a newer version means that a replay is in progress, and that no stamp is known.
fn replay_state(text: &str) -> ReplayState {
    serde_json::from_str(text).unwrap_or(ReplayState::InProgress)
}

fn connect_headers(letter: &Letter, client_id: &str, put: &mut impl FnMut(&'static str, String)) {
    let error = letter.error_code.clone().unwrap_or_else(|| "NETWORK_EXCEPTION".to_owned());
    put(CONNECT_TOPIC, letter.topic.clone());
    put(CONNECT_PARTITION, letter.partition.unwrap_or(-1).to_string());
    put(CONNECT_OFFSET, "-1".to_owned());
    put(CONNECT_CONNECTOR_NAME, client_id.to_owned());
    put(CONNECT_TASK_ID, "0".to_owned());
    put(CONNECT_STAGE, "KAFKA_PRODUCE".to_owned());
    put(CONNECT_CLASS_NAME, "kafka_courier::KafkaProducer".to_owned());
    put(CONNECT_EXCEPTION_CLASS_NAME, error);
    put(CONNECT_EXCEPTION_MESSAGE, letter.failure_reason.clone());
}

/// Parses a record of the topic. Returns `None` for a record that this library did not write.
pub(crate) fn parse_entry(record: &DecodedRecord<'_>) -> Option<LoggedEntry> {
    let last = record.headers.last()?;
    if last.key == DLQ_SETTLED && record.value.is_none() {
        return text(last.value)?.parse().ok().map(LoggedEntry::Settled);
    }
    if last.key == DLQ_CLAIM {
        let claim = serde_json::from_slice(record.value?).ok()?;
        return Some(LoggedEntry::Claim { claim: Box::new(claim), at_ms: record.timestamp });
    }
    let dlq_id = record.headers.iter().rposition(|header| header.key == DLQ_ID)?;
    let (original, added) = record.headers.split_at(dlq_id);
    let find = |name: &str| added.iter().find(|header| header.key == name).and_then(|header| text(header.value));
    let failed_at: Timestamp = find(DLQ_FAILED_AT)?.parse().ok()?;
    let value = record.value.map(Bytes::copy_from_slice);
    let mut letter = Letter::new(find(DLQ_TOPIC)?, value, find(DLQ_REASON).unwrap_or_default(), failed_at);
    letter.id = find(DLQ_ID)?.parse().ok()?;
    letter.key = record.key.map(Bytes::copy_from_slice);
    letter.headers = original
        .iter()
        .map(|header| Header { name: header.key.to_owned(), value: header.value.map(Bytes::copy_from_slice) })
        .collect();
    letter.partition = find(DLQ_PARTITION).and_then(parse);
    letter.first_attempt = find(DLQ_FIRST_ATTEMPT).and_then(parse).unwrap_or(failed_at);
    letter.attempt_count = find(DLQ_ATTEMPTS).and_then(parse).unwrap_or(1);
    letter.replay_count = find(DLQ_REPLAY_COUNT).and_then(parse).unwrap_or(0);
    // The outcome is unknown unless the header states otherwise.
    let certain = find(DLQ_POSSIBLY_WRITTEN) == Some("false");
    letter.outcome = if certain { Outcome::NotWritten } else { Outcome::Unknown };
    letter.retriable = find(DLQ_REASON_CLASS) == Some("retriable");
    letter.timestamp_ms =
        find(DLQ_ORIGINAL_TIMESTAMP).and_then(parse::<Timestamp>).map_or(record.timestamp, Timestamp::as_millisecond);
    letter.error_code = find(DLQ_ERROR_CODE).map(str::to_owned);
    letter.topic_id = find(DLQ_TOPIC_ID).and_then(parse);
    letter.producer_id = find(DLQ_PRODUCER_ID).and_then(parse);
    letter.producer_epoch = find(DLQ_PRODUCER_EPOCH).and_then(parse);
    letter.sequence = find(DLQ_SEQUENCE).and_then(parse);
    letter.search_from = find(DLQ_SEARCH_FROM).and_then(parse);
    letter.replay = find(DLQ_REPLAY).map(replay_state).unwrap_or_default();
    if find(DLQ_FORMAT).is_none() {
        letter.upgrade_format_1();
    }
    let named =
        |name: &str| original.iter().rev().find(|h| h.key == name).and_then(|h| text(h.value)).map(str::to_owned);
    letter.event_id = named(EVENT_ID);
    letter.event_type = named(EVENT_TYPE);
    letter.correlation_id = named(CORRELATION_ID);
    let first = find(DLQ_ARRIVAL).and_then(parse).map(Arrival::First);
    let before = find(DLQ_FIRST_ARRIVAL).and_then(parse).map(Arrival::Before);
    let arrival = before.or(first).unwrap_or_else(|| Arrival::unstamped(record.timestamp, letter.id));
    Some(LoggedEntry::Letter(Box::new(letter), arrival))
}

fn text(value: Option<&[u8]>) -> Option<&str> {
    value.and_then(|value| std::str::from_utf8(value).ok())
}

fn parse<N: std::str::FromStr>(text: &str) -> Option<N> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> Letter {
        let at = "2024-01-15T10:01:30.000000123Z".parse().unwrap();
        let mut letter = Letter::new("orders", Bytes::from_static(b"{}"), "no answer", at);
        letter.key = Some(Bytes::from_static(b"k"));
        letter.partition = Some(3);
        letter.first_attempt = "2024-01-15T10:00:00Z".parse().unwrap();
        letter.headers = vec![
            Header { name: EVENT_ID.into(), value: Some(Bytes::from_static(b"e-1")) },
            Header { name: "raw".into(), value: Some(Bytes::from_static(b"\xff")) },
            Header { name: "null".into(), value: None },
        ];
        letter.event_id = Some("e-1".into());
        (letter.timestamp_ms, letter.attempt_count, letter.replay_count, letter.retriable) = (1234, 4, 1, true);
        letter.error_code = Some("NOT_ENOUGH_REPLICAS".into());
        letter.topic_id = Some(kafka_courier_dlq::Uuid::from_u128(7));
        (letter.producer_id, letter.producer_epoch) = (Some(9000), Some(3));
        (letter.sequence, letter.search_from) = (Some(i32::MAX), Some(1 << 40));
        letter
    }

    fn read(letter: &Letter, headers: &[Header]) -> Option<LoggedEntry> {
        parse_entry(&DecodedRecord {
            offset_delta: 0,
            timestamp: 99,
            key: letter.key.as_deref(),
            value: letter.value.as_deref(),
            headers: borrowed_headers(headers),
        })
    }

    #[test]
    fn letters_read_back_whole() {
        let letter = letter();
        let arrival = Arrival::unstamped(99, letter.id);
        assert_eq!(read(&letter, &headers(&letter, "me", None)), Some(LoggedEntry::Letter(Box::new(letter), arrival)));
    }

    #[test]
    fn replay_state_is_read_back() {
        let stamped = ReplayState::Stamped { producer_id: 9000, producer_epoch: 3, sequence: i32::MAX };
        for replay in [ReplayState::InProgress, stamped] {
            let letter = Letter { replay, ..letter() };
            assert_eq!(read_back(&letter, "me"), Some(letter));
        }
    }

    /// Records of format 1 have neither `dlq.format` nor `dlq.replay`: the text of the reason says that a replay began.
    #[test]
    fn format_1_record_is_upgraded() {
        let mut old = letter();
        old.failure_reason = "a replay of it was interrupted while it went alone; before: no answer".into();
        let mut headers = headers(&old, "me", None);
        headers.retain(|header| header.name != DLQ_FORMAT);
        let replay = ReplayState::Stamped { producer_id: 9000, producer_epoch: 3, sequence: i32::MAX };
        let upgraded = Letter { replay, failure_reason: "no answer".into(), ..old.clone() };
        let arrival = Arrival::unstamped(99, upgraded.id);
        assert_eq!(read(&old, &headers), Some(LoggedEntry::Letter(Box::new(upgraded), arrival)));
    }

    #[test]
    fn format_2_reason_is_not_read() {
        let mut letter = letter();
        letter.failure_reason = "a replay of it was interrupted; before: no answer".into();
        assert_eq!(read_back(&letter, "me"), Some(letter));
    }

    #[test]
    fn unknown_replay_state_is_in_progress() {
        let mut headers = headers(&letter(), "me", None);
        let at = headers.iter().position(|header| header.name == DLQ_FORMAT).unwrap();
        headers.insert(at, header(DLQ_REPLAY, "{\"state\":\"later\"}".to_owned()));
        let read = read(&letter(), &headers);
        assert!(matches!(read, Some(LoggedEntry::Letter(letter, _)) if letter.replay == ReplayState::InProgress));
    }

    #[test]
    fn bare_letters_read_back_whole() {
        let mut letter = Letter::new("t", None, "why", "2024-01-15T10:00:00Z".parse().unwrap());
        letter.outcome = Outcome::NotWritten;
        let arrival = Arrival::unstamped(99, letter.id);
        assert_eq!(read(&letter, &headers(&letter, "me", None)), Some(LoggedEntry::Letter(Box::new(letter), arrival)));
    }

    #[test]
    fn added_connect_headers_are_last() {
        let mut letter = letter();
        letter.headers.push(Header { name: CONNECT_STAGE.into(), value: Some(Bytes::from_static(b"THEIRS")) });
        let headers = headers(&letter, "me", None);
        let stages: Vec<_> = headers.iter().filter(|header| header.name == CONNECT_STAGE).collect();
        let values: Vec<_> = stages.iter().map(|header| header.value.as_deref().unwrap()).collect();
        assert_eq!(values, [&b"THEIRS"[..], b"KAFKA_PRODUCE"]);
        assert_eq!(
            read(&letter, &headers),
            Some(LoggedEntry::Letter(Box::new(letter.clone()), Arrival::unstamped(99, letter.id)))
        );
    }

    #[test]
    fn read_back_returns_the_letter() {
        let letter = letter();
        assert_eq!(read_back(&letter, "me"), Some(letter));
    }

    #[test]
    fn nested_letters_keep_original_headers() {
        let first = letter();
        let mut second = first.clone();
        second.headers = headers(&first, "me", None).into_iter().filter(|h| !h.name.starts_with("__connect")).collect();
        second.id = LetterId::new();
        let arrival = Arrival::unstamped(99, second.id);
        assert_eq!(read(&second, &headers(&second, "me", None)), Some(LoggedEntry::Letter(Box::new(second), arrival)));
    }

    #[test]
    fn arrivals_read_back() {
        let letter = letter();
        for wanted in [Arrival::First(Arrival::now()), Arrival::Before(Arrival::now())] {
            let current = headers(&letter, "me", Some(wanted));
            let mut former = headers(&letter, "me", None);
            // Earlier versions of this library wrote the arrival after all other headers.
            former.push(arrival_header(wanted));
            for headers in [current, former] {
                assert_eq!(read(&letter, &headers), Some(LoggedEntry::Letter(Box::new(letter.clone()), wanted)));
            }
        }
    }

    #[test]
    fn dlq_headers_precede_connect_headers() {
        let letter = letter();
        for wanted in [Arrival::First(Arrival::now()), Arrival::Before(Arrival::now())] {
            let headers = headers(&letter, "me", Some(wanted));
            let names = headers.iter().map(|header| header.name.as_str());
            let kinds: Vec<u8> = names
                .map(|name| if name.starts_with("dlq.") { 1 } else { u8::from(name.starts_with("__connect")) * 2 })
                .collect();
            assert!(kinds.is_sorted() && kinds.contains(&0) && kinds.contains(&2), "{headers:?}");
        }
    }

    #[test]
    fn settled_records_differ_from_letters() {
        let mut tombstone = letter();
        tombstone.value = None;
        let id = tombstone.id;
        assert_eq!(read(&tombstone, &settled_headers(id)), Some(LoggedEntry::Settled(id)));
        assert!(matches!(read(&tombstone, &headers(&tombstone, "me", None)), Some(LoggedEntry::Letter(..))));
    }

    #[test]
    fn claims_read_back_whole() {
        use super::super::claim::{ClaimAction, ClaimPosition};
        let id = kafka_courier_dlq::Uuid::from_u128(9);
        let over = Some(ClaimPosition { id, offset: 4 });
        let claim = ClaimRecord { act: ClaimAction::Claim, id, host: "h".into(), pid: 1, lease_ms: 30_000, over };
        let record = |value: Vec<u8>| {
            let mut letter = Letter::new("t", Bytes::from(value), "", Timestamp::UNIX_EPOCH);
            letter.headers = vec![header(DLQ_CLAIM, id.to_string())];
            read(&letter, &letter.headers)
        };
        let read = record(serde_json::to_vec(&claim).unwrap());
        assert_eq!(read, Some(LoggedEntry::Claim { claim: Box::new(claim), at_ms: 99 }));
        assert_eq!(record(b"{}".to_vec()), None);
    }

    #[test]
    fn foreign_records_are_ignored() {
        let letter = letter();
        assert_eq!(read(&letter, &letter.headers), None);
    }
}
