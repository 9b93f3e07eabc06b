//! A topic as the log client reports it: its id, its partitions, and the settings that remove records.
//!
//! Rule: plain data.

use crate::ids::TopicUuid;

/// A topic's current state in the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicInfo {
    /// The topic id. `None` if the brokers have none (before Kafka 2.8).
    pub uuid: Option<TopicUuid>,
    /// The number of partitions, numbered from 0.
    pub partitions: usize,
}

/// The settings of a topic that decide which records are removed from its log, and when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cleanup {
    /// `cleanup.policy`: `delete`, `compact`, both separated by a comma, or empty.
    pub policy: Box<str>,
    /// `retention.ms`, if the broker reports it. Negative: no limit.
    pub retention_ms: Option<i64>,
    /// `retention.bytes` of a partition, if the broker reports it. Negative: no limit.
    pub retention_bytes: Option<i64>,
}

impl Cleanup {
    /// Returns whether compaction removes records that have a later record with the same key.
    pub fn is_compacted(&self) -> bool {
        self.policy.contains("compact")
    }

    /// Returns whether retention deletes old records.
    pub fn deletes(&self) -> bool {
        self.policy.contains("delete")
    }
}
