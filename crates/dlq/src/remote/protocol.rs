//! The protocol of the socket: one line of JSON for each request, and one for each answer.
//!
//! Rules:
//! - The server sends its hello first. Every request has one answer, in order.
//! - No line is longer than [`MAX_LINE`]. A longer line is refused before it is read.

use std::io::{self, BufRead, Write};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::held::{Held, Position};
use crate::import::{Edited, Imported};
use crate::letter::{Letter, LetterId};
use crate::replay_guard::BeginReplayError;
use crate::store::{Appended, StoreStats};
use crate::store_error::{AppendError, StoreError};

/// The protocol's version. It changes with the meaning of a letter: a service of another version would drop new fields.
pub(super) const VERSION: u32 = 5;

/// Most bytes of a line.
pub(super) const MAX_LINE: u64 = 64 * 1024 * 1024;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ServiceRequest {
    Append { letters: Vec<Letter> },
    Import { letters: Vec<Letter>, edited: Edited },
    Scan { after: Option<Position>, limit: usize },
    Remove { positions: Vec<Position> },
    Update { changed: Vec<Held> },
    Find { ids: Vec<LetterId> },
    Expire,
    Stats,
    ClaimReplay,
    ReleaseReplay,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ServiceAnswer {
    Hello { version: u32, store: String },
    Appended(Appended),
    Imported(Imported),
    Letters(Vec<Held>),
    Count(usize),
    Positions(Vec<Option<Position>>),
    Stats(Box<StoreStats>),
    Done,
    Refused(ServiceRefusal),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ServiceRefusal {
    Full {
        letters: u64,
        bytes: u64,
    },
    TooLarge {
        id: LetterId,
        bytes: u64,
        limit: u64,
    },
    Busy,
    Claimed {
        holder: String,
        until: Timestamp,
    },
    /// Another error, as text.
    Failed(String),
}

impl From<AppendError> for ServiceRefusal {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Full { letters, bytes, .. } => Self::Full { letters, bytes },
            AppendError::TooLarge { id, bytes, limit, .. } => Self::TooLarge { id, bytes, limit },
            AppendError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for ServiceRefusal {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<BeginReplayError> for ServiceRefusal {
    fn from(error: BeginReplayError) -> Self {
        match error {
            BeginReplayError::Busy { .. } => Self::Busy,
            BeginReplayError::Claimed { holder, until, .. } => Self::Claimed { holder, until },
            BeginReplayError::Store(error) => error.into(),
        }
    }
}

/// Writes one line.
pub(super) fn send(mut stream: impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    if line.len() as u64 >= MAX_LINE {
        let reason = format!(
            "a line of {} bytes exceeds the limit of {MAX_LINE}: send fewer dead letters at a time",
            line.len()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    line.push(b'\n');
    stream.write_all(&line)
}

/// Reads one line. `None` at the end of the stream.
pub(super) fn receive<T: DeserializeOwned>(stream: impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    if stream.take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        let reason = if line.len() as u64 == MAX_LINE { "the line is too long" } else { "the line is truncated" };
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    Ok(Some(serde_json::from_slice(&line)?))
}
