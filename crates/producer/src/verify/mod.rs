//! Whether records whose delivery is in doubt are in the log.
//!
//! Rules:
//! - *Landed* and *absent* are proofs; whatever proves neither is *not found*, with the reason, never a guess.
//! - Nothing can be concluded from time: a request that was sent once can be written as long as its leader takes its epoch.
//!   So absence takes a *fence*: a batch of the same producer id under a higher epoch, after which a leader refuses the
//!   old one, and everything before it read.
//! - The proof is pure (`check`); reading and fencing are the [`Verifier`]'s.

mod check;
#[cfg(test)]
mod model;
mod scan;
#[cfg(test)]
mod scenarios;
mod verifier;

use std::fmt;
use std::sync::Arc;

use kafka_courier_idempotent_sender::core::TopicUuid;

pub(crate) use check::young;
pub use verifier::{
    Answer, FenceLetter, FenceOutcome, FencePlace, Fences, Findings, NoFences, NotFenced, Progress, Question, Verifier,
};

/// A record of which nobody knows whether it is in the log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Doubt {
    /// The letter's id; a copy that was sent again carries it in the header [`DLQ_ID`](crate::headers::DLQ_ID).
    pub letter_id: String,
    /// The event's id, which every copy carries in the header [`EVENT_ID`](crate::headers::EVENT_ID).
    pub event_id: Option<String>,
    /// The id of the topic that it was sent to; a topic made anew under the same name has another.
    pub topic_id: Option<TopicUuid>,
    /// The producer id that it was sent under. Without one it can be found but its absence can't be proved.
    pub producer_id: Option<i64>,
    /// The producer epoch, where it is known: not of a record that somebody was sending again when he died.
    pub producer_epoch: Option<i16>,
    /// The record's own sequence number, likewise.
    pub sequence: Option<i32>,
    /// The first offset at which it can be; `None`: anywhere.
    pub search_from: Option<i64>,
}

/// What is known of a doubtful record now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is in the log.
    Landed {
        /// Where.
        offset: i64,
    },
    /// It is not in the log and can't get there any more: sending it again makes no duplicate.
    Absent,
    /// It was not found, and may be or get there all the same: sending it again may make a duplicate.
    NotFound {
        /// Why nothing is proved.
        why: WhyNot,
    },
}

/// Why the absence of a record is not proved.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum WhyNot {
    /// Nothing says under which producer id it was sent.
    NoStamp,
    /// No batch of its producer id under a higher epoch is in the log, so a request under way may still be written.
    NoFence,
    /// There is one, but replicas have not confirmed the log up to it: consumers see no further.
    WatermarkBehindFence,
    /// Records from where it may be were deleted.
    LogStartPast {
        /// The first offset that could be read.
        log_start: i64,
    },
    /// The topic is another one by the same name.
    TopicMadeAnew,
    /// The topic's id then or now is unknown (brokers before Kafka 2.8), so it may be another one by the same name.
    TopicIdUnknown,
    /// The topic is compacted: records vanish from the middle of its log.
    Compacted,
    /// The topic's cleanup policy could not be had (it takes `DescribeConfigs` on the topic), so it may be compacted.
    CleanupPolicyUnknown,
    /// A batch of its producer id could not be looked into.
    UnreadableBatch {
        /// The batch's first offset.
        offset: i64,
    },
    /// Another record has its stamp.
    StampTaken {
        /// That record's offset.
        offset: i64,
    },
    /// The log could not be read to its end; why.
    NotRead(Arc<str>),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Landed { offset } => write!(f, "landed at offset {offset}"),
            Self::Absent => f.write_str("absent"),
            Self::NotFound { why } => write!(f, "not found, but not proved absent: {why}"),
        }
    }
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoStamp => f.write_str("nothing says under which producer id it was sent"),
            Self::NoFence => {
                f.write_str("nothing of its producer id with a higher epoch is in the log, so it may still be written")
            }
            Self::WatermarkBehindFence => f.write_str("the replicas have not yet confirmed the log up to the fence"),
            Self::LogStartPast { log_start } => {
                write!(f, "records from where it may be were deleted: the log begins at offset {log_start}")
            }
            Self::TopicMadeAnew => f.write_str("the topic was deleted, or made anew, since"),
            Self::TopicIdUnknown => f.write_str("the topic's id is unknown, so it may have been made anew since"),
            Self::Compacted => f.write_str("the topic is compacted, so it may have been there and vanished"),
            Self::CleanupPolicyUnknown => f.write_str(
                "whether the topic is compacted could not be had (it takes the right DescribeConfigs on it)",
            ),
            Self::UnreadableBatch { offset } => {
                write!(f, "the batch of its producer at offset {offset} could not be looked into")
            }
            Self::StampTaken { offset } => write!(f, "another record has its sequence number, at offset {offset}"),
            Self::NotRead(why) => write!(f, "the log could not be read: {why}"),
        }
    }
}
