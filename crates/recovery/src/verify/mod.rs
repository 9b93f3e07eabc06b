//! The search for records with the outcome unknown in the log.
//!
//! Rules:
//! - `Landed` and `Absent` are proofs. A search without a proof ends with `NotFound` and a reason, never with a guess.
//! - Elapsed time proves nothing, because a leader writes a late request as long as it accepts the request's epoch. A
//!   proof of absence therefore needs a *fence*, and a read of the log up to the fence. The fence is a batch of the
//!   same producer id under a higher epoch. A leader refuses the earlier epochs from then on.
//! - The proof is pure (`check`). The [`Verifier`] reads and fences.

mod check;
#[cfg(test)]
mod model;
mod scan;
#[cfg(test)]
mod scenarios;
mod verifier;

use std::fmt;
use std::sync::Arc;

use kafka_courier_client::TopicUuid;

pub(crate) use check::oldest_remembered_ms;
pub use verifier::{
    Answer, FenceLetter, FenceOutcome, FencePlace, Fences, Findings, NoFences, NotFenced, Progress, Question, Verifier,
};

/// A record with the outcome unknown.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Doubt {
    /// The dead letter's id. Replayed copies have the id in the header [`DLQ_ID`](crate::headers::DLQ_ID).
    pub letter_id: String,
    /// The event's id. All copies have the id in the header [`EVENT_ID`](crate::headers::EVENT_ID).
    pub event_id: Option<String>,
    /// The id of the topic to which the record was sent. A recreated topic of the same name has another id.
    pub topic_id: Option<TopicUuid>,
    /// The producer id of the record. If it is `None`, the record can be found, and its absence cannot be proved.
    pub producer_id: Option<i64>,
    /// The producer epoch, if known. It is unknown for a record whose replay was interrupted by a crash.
    pub producer_epoch: Option<i16>,
    /// The record's own sequence number, if known.
    pub sequence: Option<i32>,
    /// The first possible offset of the record. `None` for any offset.
    pub search_from: Option<i64>,
}

/// The result of the search for a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The record is in the log.
    Landed {
        /// The record's offset.
        offset: i64,
    },
    /// The record is not in the log, and can no longer be written. A replay makes no duplicate.
    Absent,
    /// The record was not found, but may be in the log or may still be written. A replay may make a duplicate.
    NotFound {
        /// The reason for the missing proof.
        why: WhyNot,
    },
}

/// The reason why the absence of a record is not proved.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum WhyNot {
    /// The record's producer id is unknown.
    NoStamp,
    /// The log has no batch of the record's producer id under a higher epoch, so a late request may still be written.
    NoFence,
    /// The log has a fence after the high watermark, up to which consumers can read.
    WatermarkBehindFence,
    /// Offsets at which the record may have been were deleted.
    LogStartPast {
        /// The first readable offset.
        log_start: i64,
    },
    /// The topic was deleted, or recreated under the same name.
    TopicRecreated,
    /// A topic id is unknown (brokers before Kafka 2.8), so the topic may have been recreated.
    TopicIdUnknown,
    /// The topic is compacted, and compaction removes records from the middle of the log.
    Compacted,
    /// The topic's cleanup policy is unavailable without `DescribeConfigs` on the topic, so the topic may be compacted.
    CleanupPolicyUnknown,
    /// A batch of the record's producer id could not be decoded.
    UnreadableBatch {
        /// The batch's first offset.
        offset: i64,
    },
    /// Another record has the record's stamp.
    StampTaken {
        /// The other record's offset.
        offset: i64,
    },
    /// The log could not be read to its end, with the reason.
    NotRead(Arc<str>),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Landed { offset } => write!(f, "found in the log at offset {offset}"),
            Self::Absent => f.write_str("proved absent from the log"),
            Self::NotFound { why } => write!(f, "neither found nor proved absent: {why}"),
        }
    }
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoStamp => f.write_str("its producer id is unknown"),
            Self::NoFence => {
                f.write_str("the log has no batch of its producer id with a higher epoch, so it may still be written")
            }
            Self::WatermarkBehindFence => f.write_str("the replicas have not yet confirmed the log up to the fence"),
            Self::LogStartPast { log_start } => {
                write!(f, "offsets where it may have been were deleted: the log begins at offset {log_start}")
            }
            Self::TopicRecreated => f.write_str("the topic has since been deleted or recreated"),
            Self::TopicIdUnknown => f.write_str("the topic's id is unknown, so the topic may have been recreated"),
            Self::Compacted => f.write_str("the topic is compacted, and compaction may have removed it"),
            Self::CleanupPolicyUnknown => {
                f.write_str("the topic's cleanup policy is unknown: grant DescribeConfigs on the topic")
            }
            Self::UnreadableBatch { offset } => {
                write!(f, "the batch of its producer id at offset {offset} could not be decoded")
            }
            Self::StampTaken { offset } => write!(f, "another record has its stamp, at offset {offset}"),
            Self::NotRead(why) => write!(f, "the log could not be read: {why}"),
        }
    }
}
