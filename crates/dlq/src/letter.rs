//! The dead letter: a record that failed, the reason, and the data for sending the record again or finding it in the log.
//!
//! Rules:
//! - Key, header values and value are kept byte for byte. Null and empty differ.
//! - The outcome is the truth at the time of writing. A later acknowledgement or a check corrects the outcome in the store.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::replay_state::ReplayState;

/// A dead letter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Letter {
    /// The letter's id. A store keeps a letter of one id once.
    pub id: LetterId,
    /// The record's topic.
    pub topic: String,
    /// The record's partition, if one was chosen.
    pub partition: Option<i32>,
    /// The record's key.
    pub key: Option<Bytes>,
    /// The record's headers, in order. Names may repeat.
    pub headers: Vec<Header>,
    /// The record's value. `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The record's timestamp, in milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: i64,
    /// The event's id, if the record has one.
    pub event_id: Option<String>,
    /// The event's type, if the record has one.
    pub event_type: Option<String>,
    /// The event's correlation id, if the record has one.
    pub correlation_id: Option<String>,
    /// Why the record failed, for people. Nothing is decided by this text.
    pub failure_reason: String,
    /// Kafka's name of the last error, if a broker returned one: `MESSAGE_TOO_LARGE`.
    pub error_code: Option<String>,
    /// Whether the record is certainly not in the log.
    pub outcome: Outcome,
    /// Whether the same record may be delivered later.
    pub retriable: bool,
    /// Number of attempts, failed connections included.
    pub attempt_count: u32,
    /// Time of the first attempt.
    pub first_attempt: Timestamp,
    /// Time of the last attempt.
    pub last_attempt: Timestamp,
    /// Number of times that a replay sent the record.
    pub replay_count: u32,
    /// Whether a replay is sending the record.
    pub replay: ReplayState,
    /// The topic's id (KIP-516) at the time. A topic that is recreated under the same name has another id.
    pub topic_id: Option<Uuid>,
    /// The producer id under which the record may be in the log.
    pub producer_id: Option<i64>,
    /// The producer epoch under which the record may be in the log.
    pub producer_epoch: Option<i16>,
    /// The record's own sequence number (not the first of its batch).
    pub sequence: Option<i32>,
    /// The first offset that the record can have. A search starts here.
    pub search_from: Option<i64>,
}

impl Letter {
    /// Creates a letter with a new id, for a record that failed at its first attempt `at`. The outcome is unknown, and all
    /// other fields are absent, zero or false.
    pub fn new(
        topic: impl Into<String>,
        value: impl Into<Option<Bytes>>,
        failure_reason: impl Into<String>,
        at: Timestamp,
    ) -> Self {
        Self {
            id: LetterId::new(),
            topic: topic.into(),
            partition: None,
            key: None,
            headers: Vec::new(),
            value: value.into(),
            timestamp_ms: at.as_millisecond(),
            event_id: None,
            event_type: None,
            correlation_id: None,
            failure_reason: failure_reason.into(),
            error_code: None,
            outcome: Outcome::Unknown,
            retriable: false,
            attempt_count: 1,
            first_attempt: at,
            last_attempt: at,
            replay_count: 0,
            replay: ReplayState::Idle,
            topic_id: None,
            producer_id: None,
            producer_epoch: None,
            sequence: None,
            search_from: None,
        }
    }

    /// Removes all data about the record's position in a log, for a letter of another topic.
    pub fn forget_place(&mut self) {
        (self.partition, self.topic_id, self.search_from) = (None, None, None);
        (self.producer_id, self.producer_epoch, self.sequence) = (None, None, None);
        if !self.replay.is_idle() {
            self.replay = ReplayState::InProgress;
        }
    }

    /// Returns roughly the bytes of memory that the letter takes.
    pub fn memory_bytes(&self) -> u64 {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let bytes = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers = self.headers.iter().map(|h| size_of::<Header>() + h.name.len() + bytes(&h.value));
        let heap = self.topic.len() + self.failure_reason.len() + bytes(&self.key) + bytes(&self.value);
        let named = text(&self.event_id) + text(&self.event_type) + text(&self.correlation_id) + text(&self.error_code);
        (size_of::<Self>() + heap + named + headers.sum::<usize>()) as u64
    }
}

/// A header of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// The header's name.
    pub name: String,
    /// The header's value. Kafka allows null.
    pub value: Option<Bytes>,
}

/// Whether a record that failed can be in the log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The record is certainly not in the log. Sending the record again cannot create a duplicate.
    NotWritten,
    /// The record may be in the log.
    Unknown,
}

impl Outcome {
    /// Returns the outcome as in JSON: `not_written` or `unknown`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotWritten => "not_written",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Outcome {
    type Err = UnknownOutcome;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::NotWritten, Self::Unknown]
            .into_iter()
            .find(|o| o.as_str() == text)
            .ok_or_else(|| UnknownOutcome(text.into()))
    }
}

/// A text that names no outcome.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("outcome {0:?} does not exist: use `not_written` or `unknown`")]
pub struct UnknownOutcome(String);

/// The id of a letter: a UUIDv7 (RFC 9562), so that ids sort by creation time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LetterId(Uuid);

impl LetterId {
    /// Creates an id. Each id of a process is greater than the previous one.
    #[allow(clippy::new_without_default)] // a default is the same each time
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// Returns the id as a UUID.
    pub const fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for LetterId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for LetterId {
    type Err = NotALetterId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::from_str(text).map(Self).map_err(|_| NotALetterId(text.to_owned()))
    }
}

/// A text that is not the id of a letter.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not the id of a dead letter: use a whole UUID of 36 characters, as `courier dlq list` prints it")]
pub struct NotALetterId(String);
