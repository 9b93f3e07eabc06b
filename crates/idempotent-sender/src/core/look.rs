//! Looks: what the core asks of a leader's producer state and of its log, and what comes back.
//!
//! Rules: plain values. An answer counts only if the broker that gave it is confirmed as the leader under the epoch that
//! the question names: followers answer DescribeProducers too, with older state.

use std::sync::Arc;
use std::time::Duration;

use super::types::{BrokerAddress, LookId, PartitionId, TopicUuid};

/// Asks a partition's leader for its producer state (DescribeProducers, KIP-664).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Look {
    /// The partition.
    pub partition: PartitionId,
    /// The topic's name.
    pub topic: Arc<str>,
    /// The leader's address.
    pub leader: BrokerAddress,
    /// The epoch under which it leads, or -1 if that is unknown.
    pub leader_epoch: i32,
    /// This look.
    pub look: LookId,
    /// The producer id to look for.
    pub producer_id: i64,
}

/// What the leader's producer state says of our producer id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LookAnswer {
    /// The leader knows the id: the newest epoch and the last sequence number that it appended.
    Producer {
        /// Its epoch there.
        epoch: i32,
        /// The last sequence number appended under that epoch.
        last_sequence: i32,
        /// How old the id's last batch is by its timestamp: leaders forget ids by record time
        /// (`producer.id.expiration.ms`).
        age: Duration,
    },
    /// The leader does not know the id, or may not tell us.
    Nothing,
    /// The leader could not be asked now, or the broker is not confirmed as the leader.
    Unavailable,
}

/// Asks for batches of ours in a partition's log, up to its high watermark.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogSearch {
    /// The partition.
    pub partition: PartitionId,
    /// The topic's name.
    pub topic: Arc<str>,
    /// The topic's id, for brokers that name topics by it.
    pub topic_uuid: TopicUuid,
    /// The leader's address.
    pub leader: BrokerAddress,
    /// The epoch under which it leads, or -1 if that is unknown.
    pub leader_epoch: i32,
    /// This search.
    pub look: LookId,
    /// What to search for, and where.
    pub wanted: Wanted,
}

/// What to search for in a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Batches of this producer id,
    pub producer_id: i64,
    /// and of this epoch.
    pub epoch: i16,
    /// The search ends where this sequence number is found.
    pub last_sequence: i32,
    /// The first offset at which they can be. `None`: wherever `since` is.
    pub from: Option<i64>,
    /// No record of theirs is older, milliseconds since the Unix epoch.
    pub since: i64,
}

/// A batch of ours that is in the log, on every in-sync replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoggedBatch {
    /// Its first sequence number.
    pub base_sequence: i32,
    /// How many sequence numbers it spans.
    pub records: u32,
    /// Its first record's offset.
    pub base_offset: i64,
    /// The leader's time in ms since the Unix epoch, where the topic uses LogAppendTime.
    pub log_append_time: Option<i64>,
}

/// What a search found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SearchAnswer {
    /// The log was read, up to its high watermark or to the last sequence number wanted.
    Read(Vec<LoggedBatch>),
    /// The log could not be read now.
    Unavailable,
    /// The log can't be read: the right is missing, or no version of a request is in common.
    Unreadable,
}

impl LoggedBatch {
    /// The offset of the first of `records` records from `base_sequence` on, if all of them are in this batch.
    pub(crate) fn offset_of(&self, base_sequence: i32, records: u32) -> Option<i64> {
        // Sequence numbers live on a circle of 2^31.
        let behind = base_sequence.wrapping_sub(self.base_sequence) & i32::MAX;
        let end = i64::from(behind) + i64::from(records);
        (end <= i64::from(self.records)).then(|| self.base_offset + i64::from(behind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_is_told_for_contained_records() {
        let logged = LoggedBatch { base_sequence: i32::MAX - 1, records: 5, base_offset: 40, log_append_time: None };
        assert_eq!(logged.offset_of(i32::MAX - 1, 5), Some(40));
        assert_eq!(logged.offset_of(0, 3), Some(42), "behind the wrap");
        assert_eq!(logged.offset_of(0, 4), None, "one record too many");
        assert_eq!(logged.offset_of(i32::MAX - 2, 1), None);
        assert_eq!(logged.offset_of(4, 1), None);
    }
}
