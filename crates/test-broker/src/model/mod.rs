//! What a Kafka cluster is, without sockets, tasks and clocks: topics, leaders, logs and what leaders remember of
//! producers.
//!
//! Rules: methods take the time and give answers; nothing here waits or fails but by an answer. The log of a partition
//! is one, shared by its replicas: whatever was appended is committed, and no failover loses it.

mod check;
mod cluster;
mod config;
mod log;
mod partition;
mod producers;
mod topic;

pub(crate) use check::{CheckedBatch, MAX_UNCOMPRESSED, RecordFilter, Target, check_batch};
pub(crate) use cluster::{BrokerInfo, Cluster, CreateError, Created, Limits, NewTopic};
pub(crate) use config::{Kind as ConfigKind, TopicConfig};
pub(crate) use partition::{Appended, Partition};
pub(crate) use topic::Topic;

use kafka_protocol::ResponseError;

/// Why an append was refused, as a Produce answer says it (KIP-467).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ResponseError,
    pub(crate) message: Option<String>,
    /// Indexes of guilty records within the batch, each with its reason.
    pub(crate) record_errors: Vec<(i32, String)>,
}

impl Refusal {
    pub(crate) fn new(code: ResponseError, message: impl Into<String>) -> Self {
        Self { code, message: Some(message.into()), record_errors: Vec::new() }
    }
}

impl From<ResponseError> for Refusal {
    fn from(code: ResponseError) -> Self {
        Self { code, message: None, record_errors: Vec::new() }
    }
}
