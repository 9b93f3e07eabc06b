//! DescribeProducers, version 0 (KIP-664).
//!
//! Rules: every replica answers, as in Kafka, and clients must find the leader themselves. A repeated partition is
//! answered once.

use std::collections::BTreeSet;

use kafka_protocol::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse};

use super::Call;
use super::fetch::served_partition;
use crate::model::{ClusterModel, PartitionModel};

pub(super) fn answer(call: &Call<'_>, request: &DescribeProducersRequest) -> DescribeProducersResponse {
    let state = call.shared.lock();
    let mut seen = BTreeSet::new();
    let topics = request.topics.iter().map(|topic| {
        let first = topic.partition_indexes.iter().filter(|index| seen.insert((topic.name.as_str(), **index)));
        let partitions = first.map(|index| describe(call, &state.cluster, &topic.name, *index)).collect();
        TopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions)
    });
    DescribeProducersResponse::default().with_throttle_time_ms(call.throttle_ms()).with_topics(topics.collect())
}

fn describe(call: &Call<'_>, cluster: &ClusterModel, topic: &str, index: i32) -> PartitionResponse {
    let response = PartitionResponse::default().with_partition_index(index).with_error_message(None);
    let held = match call.refuse {
        Some(refuse) => Err(refuse.code),
        None => served_partition(cluster, topic, index, |partition| partition.replicas.contains(&call.broker)),
    };
    match held {
        Ok(partition) => response.with_active_producers(producers(partition)),
        Err(error) => response.with_error_code(error.code()),
    }
}

fn producers(partition: &PartitionModel) -> Vec<ProducerState> {
    let described = partition.producers.iter().map(|(id, entry)| {
        let last = entry.last();
        ProducerState::default()
            .with_producer_id(id.into())
            .with_producer_epoch(entry.epoch.into())
            .with_last_sequence(last.map_or(-1, |batch| batch.last_sequence))
            .with_last_timestamp(last.map_or(-1, |batch| batch.timestamp))
            .with_coordinator_epoch(-1)
            .with_current_txn_start_offset(-1)
    });
    described.collect()
}
