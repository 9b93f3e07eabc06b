//! A letter as one line of JSON, and back: byte for byte.
//!
//! - `event` is the value where that is JSON, for reading. Where embedding it changed a byte (it is no JSON, or has line
//!   breaks, or space around it, or is the word null) `event_base64` is there beside it, and that is what is read back.
//! - `event` null without `event_base64` is a tombstone. A letter without either is refused: sending a tombstone by
//!   mistake deletes.
//! - Key and header values that are UTF-8 are strings, others are base64 under `key_base64`, `value_base64`.
//! - Fields that are not known are passed over: a newer version may have written them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::letter::{Header, Letter, LetterId, Outcome};

impl Letter {
    /// The letter as JSON, on one line, without the line's end.
    pub fn to_json(&self) -> Result<Vec<u8>, LetterError> {
        serde_json::to_vec(self).map_err(|error| LetterError(error.to_string()))
    }

    /// Reads a letter from its JSON.
    pub fn from_json(json: &[u8]) -> Result<Self, LetterError> {
        serde_json::from_slice(json).map_err(|error| LetterError(error.to_string()))
    }
}

/// What keeps JSON from being a letter.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a dead letter: {0}")]
pub struct LetterError(String);

/// As JSON by `serde_json`; other formats don't know its raw values.
impl Serialize for Letter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Json::from(self).serialize(serializer)
    }
}

/// From JSON by `serde_json`; other formats don't know its raw values.
impl<'de> Deserialize<'de> for Letter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Json::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
    }
}

/// The JSON, in the order of its fields.
#[derive(Serialize, Deserialize)]
struct Json {
    id: LetterId,
    /// The outer option: whether the field is there.
    #[serde(default, deserialize_with = "there")]
    event: Option<Option<Box<RawValue>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event_base64: Option<String>,
    topic: String,
    failure_reason: String,
    attempt_count: u32,
    #[serde(deserialize_with = "time")]
    first_attempt: Timestamp,
    #[serde(deserialize_with = "time")]
    last_attempt: Timestamp,
    #[serde(default)]
    partition: Option<i32>,
    #[serde(default)]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(default)]
    headers: Vec<HeaderJson>,
    timestamp_ms: i64,
    #[serde(default)]
    error_code: Option<String>,
    outcome: Outcome,
    #[serde(default)]
    retriable: bool,
    #[serde(default)]
    event_id: Option<String>,
    #[serde(default)]
    event_type: Option<String>,
    #[serde(default)]
    correlation_id: Option<String>,
    #[serde(default)]
    replay_count: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topic_id: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    producer_id: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    producer_epoch: Option<i16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sequence: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    search_from: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct HeaderJson {
    name: String,
    #[serde(default)]
    value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

fn there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Box<RawValue>>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(deserializer)?;
    let wrong = |error| format!("{text:?} is no time (RFC 3339, such as 2024-01-15T10:00:00Z): {error}");
    text.parse().map_err(|error: jiff::Error| serde::de::Error::custom(wrong(error)))
}

impl From<&Letter> for Json {
    fn from(letter: &Letter) -> Self {
        let (event, event_base64) = embed(letter.value.as_deref());
        let (key, key_base64) = text(letter.key.as_deref());
        Self {
            id: letter.id,
            event: Some(event),
            event_base64,
            topic: letter.topic.clone(),
            failure_reason: letter.failure_reason.clone(),
            attempt_count: letter.attempt_count,
            first_attempt: letter.first_attempt,
            last_attempt: letter.last_attempt,
            partition: letter.partition,
            key,
            key_base64,
            headers: letter.headers.iter().map(HeaderJson::from).collect(),
            timestamp_ms: letter.timestamp_ms,
            error_code: letter.error_code.clone(),
            outcome: letter.outcome,
            retriable: letter.retriable,
            event_id: letter.event_id.clone(),
            event_type: letter.event_type.clone(),
            correlation_id: letter.correlation_id.clone(),
            replay_count: letter.replay_count,
            topic_id: letter.topic_id,
            producer_id: letter.producer_id,
            producer_epoch: letter.producer_epoch,
            sequence: letter.sequence,
            search_from: letter.search_from,
        }
    }
}

impl TryFrom<Json> for Letter {
    type Error = String;

    fn try_from(json: Json) -> Result<Self, String> {
        let headers: Result<_, String> = json.headers.into_iter().map(Header::try_from).collect();
        Ok(Self {
            id: json.id,
            value: value(json.event, json.event_base64)?,
            topic: json.topic,
            failure_reason: json.failure_reason,
            attempt_count: json.attempt_count,
            first_attempt: json.first_attempt,
            last_attempt: json.last_attempt,
            partition: json.partition,
            key: bytes(json.key, json.key_base64, "key")?,
            headers: headers?,
            timestamp_ms: json.timestamp_ms,
            error_code: json.error_code,
            outcome: json.outcome,
            retriable: json.retriable,
            event_id: json.event_id,
            event_type: json.event_type,
            correlation_id: json.correlation_id,
            replay_count: json.replay_count,
            topic_id: json.topic_id,
            producer_id: json.producer_id,
            producer_epoch: json.producer_epoch,
            sequence: json.sequence,
            search_from: json.search_from,
        })
    }
}

impl From<&Header> for HeaderJson {
    fn from(header: &Header) -> Self {
        let (value, value_base64) = text(header.value.as_deref());
        Self { name: header.name.clone(), value, value_base64 }
    }
}

impl TryFrom<HeaderJson> for Header {
    type Error = String;

    fn try_from(json: HeaderJson) -> Result<Self, String> {
        Ok(Self { value: bytes(json.value, json.value_base64, "value")?, name: json.name })
    }
}

/// The value as JSON, as far as it is, and as base64 if that alone does not give every byte back.
fn embed(value: Option<&[u8]>) -> (Option<Box<RawValue>>, Option<String>) {
    let Some(value) = value else { return (None, None) };
    let raw = str::from_utf8(value).ok().and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
    // Line breaks stand between tokens alone: within strings JSON has them escaped.
    let raw = raw.and_then(|raw| match raw.get().contains(['\n', '\r']) {
        true => RawValue::from_string(raw.get().replace(['\n', '\r'], " ")).ok(),
        false => Some(raw.to_owned()),
    });
    let raw = raw.filter(|raw| raw.get() != "null");
    let exact = raw.as_ref().is_some_and(|raw| raw.get().as_bytes() == value);
    (raw, (!exact).then(|| STANDARD.encode(value)))
}

fn value(event: Option<Option<Box<RawValue>>>, base64: Option<String>) -> Result<Option<Bytes>, String> {
    match (event, base64) {
        (_, Some(base64)) => decode(&base64, "event_base64").map(Some),
        (Some(Some(raw)), None) => Ok(Some(Bytes::from(String::from(Box::<str>::from(raw))))),
        (Some(None), None) => Ok(None),
        (None, None) => Err("neither `event` nor `event_base64` (a tombstone has `event` null)".into()),
    }
}

/// UTF-8 as it is, other bytes as base64.
fn text(bytes: Option<&[u8]>) -> (Option<String>, Option<String>) {
    match bytes.map(|bytes| (str::from_utf8(bytes), bytes)) {
        None => (None, None),
        Some((Ok(text), _)) => (Some(text.to_owned()), None),
        Some((Err(_), bytes)) => (None, Some(STANDARD.encode(bytes))),
    }
}

fn bytes(text: Option<String>, base64: Option<String>, field: &str) -> Result<Option<Bytes>, String> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(format!("both `{field}` and `{field}_base64`")),
        (_, Some(base64)) => decode(&base64, &format!("{field}_base64")).map(Some),
        (text, None) => Ok(text.map(Bytes::from)),
    }
}

fn decode(base64: &str, field: &str) -> Result<Bytes, String> {
    STANDARD.decode(base64).map(Bytes::from).map_err(|error| format!("`{field}`: {error}"))
}
