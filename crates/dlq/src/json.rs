//! A letter as one line of JSON, byte for byte in both directions.
//!
//! Rules:
//! - `event` is the value if that is JSON, for readers. `event_base64` is present as well if embedding changed a byte: the
//!   value is not JSON, has line breaks or surrounding space, or is the word null. `event_base64` takes precedence.
//! - A tombstone has `event` null and no `event_base64`. A letter without either field is refused, because a tombstone
//!   that is sent by mistake deletes data.
//! - Key and header values that are UTF-8 are strings. Others are base64 in `key_base64` and `value_base64`.
//! - Unknown fields are ignored, because a newer version may have written them. A newer `format` is refused: its fields may
//!   have another meaning.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::letter::{Header, Letter, LetterId, Outcome};
use crate::replay_state::{LETTER_FORMAT, ReplayState};

impl Letter {
    /// Returns the letter as JSON: one line, without a line break at the end.
    ///
    /// # Errors
    /// Returns an error if the letter cannot be serialized.
    pub fn to_json(&self) -> Result<Vec<u8>, LetterError> {
        serde_json::to_vec(self).map_err(|error| LetterError(error.to_string()))
    }

    /// Reads a letter from JSON of this format or an earlier one.
    ///
    /// # Errors
    /// Returns an error that names the field if the JSON is not a letter, and for the format of a newer version.
    pub fn from_json(json: &[u8]) -> Result<Self, LetterError> {
        serde_json::from_slice(json).map_err(|error| LetterError(error.to_string()))
    }
}

/// Why JSON is not a letter.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a dead letter: {0}")]
pub struct LetterError(String);

/// A field that is missing, contradicts another one, or cannot be read.
#[derive(Debug, thiserror::Error)]
enum FieldError {
    #[error("`format` is {0}, and this version reads up to {newest}: use a newer version", newest = LETTER_FORMAT)]
    Format(u32),
    #[error("neither `event` nor `event_base64` is set: a tombstone has `event` null")]
    NoEvent,
    #[error("both `{0}` and `{0}_base64` are set: remove one")]
    Both(&'static str),
    #[error("`{field}_base64`: {error}")]
    Base64 { field: &'static str, error: base64::DecodeError },
}

/// Supports only `serde_json`, because other formats have no raw values.
impl Serialize for Letter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        LetterJson::from(self).serialize(serializer)
    }
}

/// Supports only `serde_json`, because other formats have no raw values.
impl<'de> Deserialize<'de> for Letter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        LetterJson::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
    }
}

/// The JSON object. The order of the fields is the order in the output.
#[derive(Serialize, Deserialize)]
struct LetterJson {
    id: LetterId,
    /// The outer option says whether the field is present.
    #[serde(default, deserialize_with = "present")]
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replay: Option<ReplayState>,
    #[serde(default)]
    format: Option<u32>,
}

#[derive(Serialize, Deserialize)]
struct HeaderJson {
    name: String,
    #[serde(default)]
    value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Box<RawValue>>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|error: jiff::Error| {
        let reason = format!("{text:?} is not a time: use RFC 3339, such as 2024-01-15T10:00:00Z ({error})");
        serde::de::Error::custom(reason)
    })
}

impl From<&Letter> for LetterJson {
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
            replay: (!letter.replay.is_idle()).then_some(letter.replay),
            format: Some(LETTER_FORMAT),
        }
    }
}

impl TryFrom<LetterJson> for Letter {
    type Error = FieldError;

    fn try_from(json: LetterJson) -> Result<Self, FieldError> {
        // Letters of format 1 have no such field.
        let format = json.format.unwrap_or(1);
        if format > LETTER_FORMAT {
            return Err(FieldError::Format(format));
        }
        let headers: Result<_, FieldError> = json.headers.into_iter().map(Header::try_from).collect();
        let mut letter = Self {
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
            replay: json.replay.unwrap_or_default(),
        };
        if format == 1 {
            letter.upgrade_format_1();
        }
        Ok(letter)
    }
}

impl From<&Header> for HeaderJson {
    fn from(header: &Header) -> Self {
        let (value, value_base64) = text(header.value.as_deref());
        Self { name: header.name.clone(), value, value_base64 }
    }
}

impl TryFrom<HeaderJson> for Header {
    type Error = FieldError;

    fn try_from(json: HeaderJson) -> Result<Self, FieldError> {
        Ok(Self { value: bytes(json.value, json.value_base64, "value")?, name: json.name })
    }
}

/// Returns the value as JSON if possible, and as base64 if the JSON does not keep every byte.
fn embed(value: Option<&[u8]>) -> (Option<Box<RawValue>>, Option<String>) {
    let Some(value) = value else { return (None, None) };
    let raw = str::from_utf8(value).ok().and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
    // Line breaks occur only between tokens: JSON escapes them in strings.
    let raw = raw.and_then(|raw| match raw.get().contains(['\n', '\r']) {
        true => RawValue::from_string(raw.get().replace(['\n', '\r'], " ")).ok(),
        false => Some(raw.to_owned()),
    });
    let raw = raw.filter(|raw| raw.get() != "null");
    let exact = raw.as_ref().is_some_and(|raw| raw.get().as_bytes() == value);
    (raw, (!exact).then(|| STANDARD.encode(value)))
}

fn value(event: Option<Option<Box<RawValue>>>, base64: Option<String>) -> Result<Option<Bytes>, FieldError> {
    match (event, base64) {
        (_, Some(base64)) => decode(&base64, "event").map(Some),
        (Some(Some(raw)), None) => Ok(Some(Bytes::from(String::from(Box::<str>::from(raw))))),
        (Some(None), None) => Ok(None),
        (None, None) => Err(FieldError::NoEvent),
    }
}

/// Returns UTF-8 as text, and other bytes as base64.
fn text(bytes: Option<&[u8]>) -> (Option<String>, Option<String>) {
    match bytes.map(|bytes| (str::from_utf8(bytes), bytes)) {
        None => (None, None),
        Some((Ok(text), _)) => (Some(text.to_owned()), None),
        Some((Err(_), bytes)) => (None, Some(STANDARD.encode(bytes))),
    }
}

fn bytes(text: Option<String>, base64: Option<String>, field: &'static str) -> Result<Option<Bytes>, FieldError> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(FieldError::Both(field)),
        (_, Some(base64)) => decode(&base64, field).map(Some),
        (text, None) => Ok(text.map(Bytes::from)),
    }
}

fn decode(base64: &str, field: &'static str) -> Result<Bytes, FieldError> {
    STANDARD.decode(base64).map(Bytes::from).map_err(|error| FieldError::Base64 { field, error })
}
