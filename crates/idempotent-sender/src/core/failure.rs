//! The verdict on a batch that failed, and the reason as each of its records has it.
//!
//! Rules: plain data; nothing here decides.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use super::types::{FailedOutcome, Reason, TopicUuid};

/// A record that the broker rejected by itself: its index, and what the broker says of it.
pub type RejectedRecord = (u32, Option<Arc<str>>);

/// A failed batch's verdict.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Whether the records may be in the log.
    pub outcome: FailedOutcome,
    /// The last error.
    pub reason: Reason,
    /// Whether the time allowed (`delivery_timeout`) ran out.
    pub timed_out: bool,
    /// Every try, failed connections included.
    pub attempts: u32,
    /// When it was first tried, if ever.
    pub first_attempt: Option<Instant>,
    /// When it was last tried, if ever.
    pub last_attempt: Option<Instant>,
    /// The stamp it went out under, if any attempt left: what a later check looks for.
    pub stamp: Option<kafka_courier_batcher::Stamp>,
    /// The id of the topic that it was meant for; all zero where the brokers tell none.
    pub topic_uuid: TopicUuid,
    /// Where in the partition such a check begins: behind the last record that was acknowledged there before the first
    /// attempt. `None`: nothing was yet.
    pub search_from: Option<i64>,
    /// The records that the broker rejected one by one (KIP-467), by their index in the batch that was handed in, in rising
    /// order, with what it says of each.
    pub rejected: Option<Arc<[RejectedRecord]>>,
    /// Where a timestamp was rejected: this machine's wall clock then, in milliseconds since the Unix epoch. The core has no
    /// wall clock; its shell fills this in.
    pub clock_ms: Option<i64>,
}

impl Failure {
    /// The verdict on what was never tried.
    pub const fn untried(outcome: FailedOutcome, reason: Reason) -> Self {
        Self {
            outcome,
            reason,
            timed_out: false,
            attempts: 0,
            first_attempt: None,
            last_attempt: None,
            stamp: None,
            topic_uuid: [0; 16],
            search_from: None,
            rejected: None,
            clock_ms: None,
        }
    }

    /// The reason as the record of this index has it: with what the broker says of that record, where it was rejected
    /// itself.
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
