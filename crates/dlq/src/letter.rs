//! The dead letter: a record that was given up, why, and what it takes to send it again or to look for it.
//!
//! - Key, header values and value are kept byte for byte; null and empty are told apart.
//! - The outcome is the truth at the time of writing: a later acceptance or a check corrects it in the store.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One dead letter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Letter {
    /// Its id, its own for ever: stores keep a letter of one id once.
    pub id: LetterId,
    /// The topic that the record was for.
    pub topic: String,
    /// The partition, once one was chosen.
    pub partition: Option<i32>,
    /// The record's key.
    pub key: Option<Bytes>,
    /// The record's headers, in order. Names may repeat.
    pub headers: Vec<Header>,
    /// The record's value; none is a tombstone.
    pub value: Option<Bytes>,
    /// The record's own timestamp, in milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: i64,
    /// The event's id, where the record has one.
    pub event_id: Option<String>,
    /// The event's type, where the record has one.
    pub event_type: Option<String>,
    /// What ties the event to others, where the record has one.
    pub correlation_id: Option<String>,
    /// Why it was given up, in words.
    pub failure_reason: String,
    /// Kafka's name of the last error, where a broker gave one: `MESSAGE_TOO_LARGE`.
    pub error_code: Option<String>,
    /// Whether the record is certainly not in the log.
    pub outcome: Outcome,
    /// Whether the same record may well be delivered later.
    pub retriable: bool,
    /// How often it was tried, failed connections included.
    pub attempt_count: u32,
    /// When it was first tried.
    pub first_attempt: Timestamp,
    /// When it was last tried.
    pub last_attempt: Timestamp,
    /// How often it was sent again from a dead-letter store.
    pub replay_count: u32,
    /// The topic's id (KIP-516) at the time: one made anew under the same name has another.
    pub topic_id: Option<Uuid>,
    /// The producer id under which it may be in the log.
    pub producer_id: Option<i64>,
    /// The producer epoch under which it may be in the log.
    pub producer_epoch: Option<i16>,
    /// The record's own sequence number (not its batch's first).
    pub sequence: Option<i32>,
    /// The first offset at which it can be: nothing before that has to be searched.
    pub search_from: Option<i64>,
}

impl Letter {
    /// A letter with a new id, given up at its first attempt `at`. Its outcome is unknown until the caller knows better;
    /// all else is absent, zero or false.
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
            topic_id: None,
            producer_id: None,
            producer_epoch: None,
            sequence: None,
            search_from: None,
        }
    }

    /// Forgets where the record may be in a log: for a letter whose record goes to another topic.
    pub fn forget_place(&mut self) {
        (self.partition, self.topic_id, self.search_from) = (None, None, None);
        (self.producer_id, self.producer_epoch, self.sequence) = (None, None, None);
    }

    /// About how many bytes of memory it takes.
    pub fn memory_bytes(&self) -> u64 {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let bytes = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers = self.headers.iter().map(|h| size_of::<Header>() + h.name.len() + bytes(&h.value));
        let heap = self.topic.len() + self.failure_reason.len() + bytes(&self.key) + bytes(&self.value);
        let named = text(&self.event_id) + text(&self.event_type) + text(&self.correlation_id) + text(&self.error_code);
        (size_of::<Self>() + heap + named + headers.sum::<usize>()) as u64
    }
}

/// A record's header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value; Kafka allows null.
    pub value: Option<Bytes>,
}

/// Whether a record that was given up can be in the log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is certainly not in the log: sending it again cannot make a duplicate.
    NotWritten,
    /// It may be in the log.
    Unknown,
}

impl Outcome {
    /// `not_written` or `unknown`, as the JSON says it.
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

/// No outcome has that name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("outcome {0:?}: it is `not_written` or `unknown`")]
pub struct UnknownOutcome(String);

/// The id of a letter: a UUIDv7 (RFC 9562), so that ids sort by the time of their making.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LetterId(Uuid);

impl LetterId {
    /// A new id. Those made by one process grow.
    #[allow(clippy::new_without_default)] // a default is the same each time
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// The UUID.
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

/// That is no letter's id.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("letter id {0:?}: it is a whole UUID of 36 characters, as a list of letters has it")]
pub struct NotALetterId(String);
