//! The results of the driver's IO.
//!
//! Rule: plain data. Each spawned operation ends in one event.

use std::time::Instant;

use kafka_courier_client::connection::{BrokerConnection, NoAnswer};
use kafka_courier_client::control::{ProducerIdError, TopicLimit};
use kafka_courier_client::{ClusterMetadata, PartitionId, ProduceAnswer, Reason, TopicId};

use crate::core::{ConnId, LookupId, RequestId, SearchAnswer, StateLookupAnswer};

/// A completed IO operation.
pub(super) enum IoEvent {
    Dialed(ConnId, Result<BrokerConnection, Reason>),
    Answered(ConnId, RequestId, Instant, Result<ProduceAnswer, NoAnswer>),
    Metadata(Result<ClusterMetadata, Reason>),
    ProducerId(Result<i64, ProducerIdError>),
    Looked(PartitionId, LookupId, StateLookupAnswer),
    Searched(PartitionId, LookupId, SearchAnswer),
    Limit(TopicId, TopicLimit),
    HealthChecked,
}
