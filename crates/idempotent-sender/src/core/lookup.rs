//! Lookups: questions of the core to a leader's producer state and to its log, and the answers.
//!
//! Rules:
//!  - The types are plain data.
//!  - An answer counts only if the broker is confirmed as the leader under the epoch in the question. Followers answer
//!    DescribeProducers too, with older state.

use std::sync::Arc;
use std::time::Duration;

use kafka_courier_batcher::Sequence;
use kafka_courier_client::{BrokerAddress, PartitionId, TopicUuid};

use super::ids::LookupId;

/// How far the leader's clock may be behind this machine's, in milliseconds. A topic with LogAppendTime has the times
/// of the leader.
pub(crate) const CLOCK_SKEW_MS: i64 = 60_000;

/// A question to a partition's leader: its producer state (DescribeProducers, KIP-664).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StateLookup {
    /// The partition.
    pub partition: PartitionId,
    /// The topic's name.
    pub topic: Arc<str>,
    /// The leader's address.
    pub leader: BrokerAddress,
    /// The leader epoch. `None` if it is unknown.
    pub leader_epoch: Option<i32>,
    /// The id of this lookup.
    pub look: LookupId,
    /// The producer id to look up.
    pub producer_id: i64,
}

/// The leader's state of this client's producer id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StateLookupAnswer {
    /// The leader knows the id. These are the newest epoch and its last appended sequence number.
    Producer {
        /// The newest epoch.
        epoch: i32,
        /// The last sequence number that was appended under that epoch.
        last_sequence: i32,
        /// The age of the last batch of the id, by its timestamp. Leaders expire ids by record time
        /// (`producer.id.expiration.ms`).
        age: Duration,
    },
    /// The leader does not know the id.
    NotKnown {
        /// The offset of the first record that the log still has.
        log_start: i64,
    },
    /// The question has no answer: the permission is missing, or no version of the request is in common.
    Unreadable {
        /// The offset of the first record that the log still has. `None` if this has no answer either.
        log_start: Option<i64>,
    },
    /// The leader was unavailable, or the broker is not confirmed as the leader.
    Unavailable,
}

/// A question to a partition's log: this producer's batches, up to the high watermark.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogSearch {
    /// The partition.
    pub partition: PartitionId,
    /// The topic's name.
    pub topic: Arc<str>,
    /// The topic id, for brokers that identify topics by id. `None` if the brokers sent none.
    pub topic_uuid: Option<TopicUuid>,
    /// The leader's address.
    pub leader: BrokerAddress,
    /// The leader epoch. `None` if it is unknown.
    pub leader_epoch: Option<i32>,
    /// The id of this search.
    pub look: LookupId,
    /// The batches to search for, and the part of the log to read.
    pub wanted: LogSearchTarget,
}

/// The batches to search for in a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogSearchTarget {
    /// The producer id of the batches.
    pub producer_id: i64,
    /// The epoch of the batches.
    pub epoch: i16,
    /// The search ends at the batch with this sequence number.
    pub last_sequence: i32,
    /// The lowest possible offset. `None` if the search starts at the time `since`.
    pub from: Option<i64>,
    /// The earliest possible timestamp, in milliseconds since the Unix epoch.
    pub since: i64,
    /// Whether the result must cover the whole log of the leader. It is unavailable while records are behind the high
    /// watermark: no client can read them, and the wanted batches may be among them.
    pub whole_log: bool,
}

/// A batch of this producer in the log, on every in-sync replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoggedBatch {
    /// The first sequence number.
    pub base_sequence: i32,
    /// The number of sequence numbers.
    pub records: u32,
    /// The offset of the first record.
    pub base_offset: i64,
    /// The time of the leader in milliseconds since the Unix epoch, if the topic uses LogAppendTime.
    pub log_append_time: Option<i64>,
}

/// The result of a log search.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SearchAnswer {
    /// The log was read up to its high watermark, or up to the wanted sequence number.
    Read(Vec<LoggedBatch>),
    /// The log was unavailable.
    Unavailable,
    /// The log is unreadable: the permission is missing, or no version of a request is in common.
    Unreadable,
}

impl LoggedBatch {
    /// Returns the offset of `base_sequence`, if this batch has all `records` records from `base_sequence` on.
    pub(crate) fn offset_of(&self, base_sequence: i32, records: u32) -> Option<i64> {
        let skipped = Sequence::wrapping(self.base_sequence).distance(Sequence::wrapping(base_sequence));
        let end = i64::from(skipped) + i64::from(records);
        (end <= i64::from(self.records)).then(|| self.base_offset + i64::from(skipped))
    }

    /// Returns how many records of this batch have the sequence number `base_sequence` or a later one. `base_sequence` is
    /// one of this batch.
    pub(crate) fn records_from(&self, base_sequence: i32) -> u32 {
        let skipped = Sequence::wrapping(self.base_sequence).distance(Sequence::wrapping(base_sequence));
        self.records.saturating_sub(skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_of_contained_records() {
        let logged = LoggedBatch { base_sequence: i32::MAX - 1, records: 5, base_offset: 40, log_append_time: None };
        assert_eq!(logged.offset_of(i32::MAX - 1, 5), Some(40));
        assert_eq!(logged.offset_of(0, 3), Some(42), "after the wrap");
        assert_eq!(logged.offset_of(0, 4), None, "one record too many");
        assert_eq!(logged.offset_of(i32::MAX - 2, 1), None);
        assert_eq!(logged.offset_of(4, 1), None);
    }
}
