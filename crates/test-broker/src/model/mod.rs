//! A model of a Kafka cluster without sockets, tasks and clocks: topics, leaders, logs, and the leaders' memory of
//! producers.
//!
//! Rules:
//! - Methods take the time as an argument. They never wait, and report failures as results.
//! - All replicas of a partition share one log. No failover loses an appended batch. It is committed,
//!   unless replication is paused.

mod check;
mod cluster;
mod config;
mod log;
mod partition;
mod producers;
mod topic;

pub(crate) use check::{AppendTarget, CheckedBatch, MAX_UNCOMPRESSED, RecordFilter, check_batch};
pub(crate) use cluster::{BrokerInfo, ClusterLimits, ClusterModel, CreateError, CreatedTopic, TopicCreation};
pub(crate) use config::{ConfigType, TopicConfig, TopicConfigError};
pub(crate) use partition::{LogAppendInfo, PartitionModel};
pub(crate) use topic::TopicModel;

use kafka_protocol::ResponseError;

/// The reason why an append was refused, in the form of a Produce answer (KIP-467).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProduceError {
    pub(crate) code: ResponseError,
    pub(crate) message: Option<String>,
    /// The indexes of rejected records within the batch, each with its reason.
    pub(crate) record_errors: Vec<(i32, String)>,
}

impl ProduceError {
    pub(crate) fn new(code: ResponseError, message: impl Into<String>) -> Self {
        Self { code, message: Some(message.into()), record_errors: Vec::new() }
    }
}

impl From<ResponseError> for ProduceError {
    fn from(code: ResponseError) -> Self {
        Self { code, message: None, record_errors: Vec::new() }
    }
}
