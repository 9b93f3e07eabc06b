//! The verdict on a failed batch, and the reason for each of its records.
//!
//! Rules:
//!  - The types are plain data.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use kafka_courier_client::{Reason, RejectedRecord, TopicUuid};

/// Whether a record that was not delivered may be in the log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FailedOutcome {
    /// The record is certainly not in the log.
    NotWritten,
    /// The record may be in the log: an attempt was not answered, or its answer proves neither.
    Unknown,
}

impl FailedOutcome {
    /// Returns `not_written` or `unknown`, the values in dead letters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotWritten => "not_written",
            Self::Unknown => "unknown",
        }
    }
}

/// The text of [`Reason::NoAnswer`] for a batch that is in the leader's log, and possibly not in its replicas' logs.
pub const UNCONFIRMED: &str = "the leader has the batch, but did not confirm that its replicas have it";

/// The text of [`Reason::NotAvailable`] for a batch of an earlier process behind one that failed as unknown.
pub const FOLLOWS_UNKNOWN: &str = "a request of an earlier process can still write this batch";

/// The verdict on a failed batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Whether the records may be in the log.
    pub outcome: FailedOutcome,
    /// The last error.
    pub reason: Reason,
    /// Whether `delivery_timeout` passed.
    pub timed_out: bool,
    /// The number of tries. Failed connections count.
    pub attempts: u32,
    /// The time of the first attempt, if there was one.
    pub first_attempt: Option<Instant>,
    /// The time of the last attempt, if there was one.
    pub last_attempt: Option<Instant>,
    /// The stamp of the batch, if the batch may be in the log. A later verification searches for this stamp.
    pub stamp: Option<kafka_courier_batcher::Stamp>,
    /// The id of the topic at that time. `None` if the brokers sent none.
    pub topic_uuid: Option<TopicUuid>,
    /// The offset at which a verification starts: the end of the records that were acknowledged before the first
    /// attempt. `None` if nothing was acknowledged.
    pub search_from: Option<i64>,
    /// The rejected records (KIP-467), sorted by their index in the submitted batch, each with its message.
    pub rejected: Option<Arc<[RejectedRecord]>>,
    /// The wall clock of this machine when a timestamp was rejected, in milliseconds since the Unix epoch. The core has
    /// no wall clock, so its driver sets this field.
    pub clock_ms: Option<i64>,
}

impl Failure {
    /// Returns the verdict on records that were never tried.
    pub const fn untried(outcome: FailedOutcome, reason: Reason) -> Self {
        Self {
            outcome,
            reason,
            timed_out: false,
            attempts: 0,
            first_attempt: None,
            last_attempt: None,
            stamp: None,
            topic_uuid: None,
            search_from: None,
            rejected: None,
            clock_ms: None,
        }
    }

    /// Returns the reason for the record at index `record`. A rejected record has the message of the broker for that
    /// record.
    pub fn reason_of(&self, record: u32) -> Cow<'_, Reason> {
        let rejected = self.rejected.as_deref().unwrap_or_default();
        match (rejected.binary_search_by_key(&record, |(index, _)| *index), &self.reason) {
            (Ok(found), Reason::Broker { code, .. }) => {
                let message = rejected.get(found).and_then(|(_, message)| message.clone());
                Cow::Owned(Reason::Broker { code: *code, message })
            }
            _ => Cow::Borrowed(&self.reason),
        }
    }
}
