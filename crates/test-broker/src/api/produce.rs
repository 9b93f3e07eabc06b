//! Produce, versions 3 to 13 (KIP-98, KIP-467, KIP-516, KIP-951).
//!
//! Rules:
//! - Each partition is accepted or refused separately.
//! - A batch's bytes are checked before the lock is taken.
//! - The answer of a broker that is not the leader names the leader.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};

use super::{Call, Refuse, text};
use crate::model::{AppendTarget, ClusterModel, LogAppendInfo, ProduceError, check_batch};
use crate::shared::wall_clock_ms;

/// The first version that names topics by their ids.
const BY_TOPIC_ID: i16 = 13;

pub(super) fn answer(call: &Call<'_>, request: &ProduceRequest) -> ProduceResponse {
    let mut hinted = BTreeSet::new();
    let topics = request.topic_data.iter().map(|topic| answer_topic(call, request, topic, &mut hinted)).collect();
    ProduceResponse::default()
        .with_responses(topics)
        .with_throttle_time_ms(call.throttle_ms())
        .with_node_endpoints(endpoints(&call.shared.lock().cluster, &hinted))
}

/// Returns whether any partition was refused.
pub(super) fn has_errors(response: &ProduceResponse) -> bool {
    response
        .responses
        .iter()
        .flat_map(|topic| &topic.partition_responses)
        .any(|partition| partition.error_code != super::NO_ERROR)
}

/// Returns the topic's name, which is looked up by the topic id in version 13 and newer.
pub(super) fn topic_name(cluster: &ClusterModel, topic: &TopicProduceData, version: i16) -> Option<String> {
    match version {
        BY_TOPIC_ID.. => cluster.name_of(topic.topic_id).map(str::to_owned),
        _ => Some(topic.name.to_string()),
    }
}

fn answer_topic(
    call: &Call<'_>,
    request: &ProduceRequest,
    topic: &TopicProduceData,
    hinted: &mut BTreeSet<i32>,
) -> TopicProduceResponse {
    let name = topic_name(&call.shared.lock().cluster, topic, call.version);
    let partitions = topic.partition_data.iter().map(|data| match &name {
        Some(name) => answer_partition(call, request, name, data, hinted),
        None => refused(data.index, &ResponseError::UnknownTopicId.into()),
    });
    let partitions = partitions.collect();
    let response = TopicProduceResponse::default().with_partition_responses(partitions);
    match call.version {
        BY_TOPIC_ID.. => response.with_topic_id(topic.topic_id),
        _ => response.with_name(topic.name.clone()),
    }
}

fn answer_partition(
    call: &Call<'_>,
    request: &ProduceRequest,
    topic: &str,
    data: &PartitionProduceData,
    hinted: &mut BTreeSet<i32>,
) -> PartitionProduceResponse {
    let refuse = call.refuse.filter(|refuse| refuse.rule.applies_to(topic, data.index));
    let result = match refuse {
        Some(Refuse { code, applied: false, .. }) => Err(code.into()),
        _ => append(call, request, topic, data),
    };
    let mut response = match &result {
        Ok(appended) => accepted(data.index, appended),
        Err(refusal) => refused(data.index, refusal),
    };
    // A leader waits for its replicas up to the request's time limit. This leader answers immediately instead.
    if request.acks == -1 && result.as_ref().is_ok_and(|appended| !appended.replicated) {
        response.error_code = ResponseError::RequestTimedOut.code();
    }
    if let Some(Refuse { code, applied: true, .. }) = refuse {
        response.error_code = code.code();
    }
    if response.error_code == ResponseError::NotLeaderOrFollower.code() && call.version >= 10 {
        response.current_leader = leader_hint(&call.shared.lock().cluster, topic, data.index, hinted);
    }
    response
}

fn append(
    call: &Call<'_>,
    request: &ProduceRequest,
    topic: &str,
    data: &PartitionProduceData,
) -> Result<LogAppendInfo, ProduceError> {
    if !matches!(request.acks, -1..=1) {
        return Err(ResponseError::InvalidRequiredAcks.into());
    }
    let target = AppendTarget { topic, partition: data.index };
    let (config, filter) = {
        let state = call.shared.lock();
        if state.cluster.is_denied(topic) {
            return Err(ResponseError::TopicAuthorizationFailed.into());
        }
        let found = state.cluster.topic(topic).ok_or(ResponseError::UnknownTopicOrPartition)?;
        (found.config.clone(), state.filter.clone())
    };
    let now_ms = wall_clock_ms();
    let empty = Bytes::new();
    let records = data.records.as_ref().unwrap_or(&empty);
    let checked = check_batch(records, &config, now_ms, target, filter.as_ref());
    let mut state = call.shared.lock();
    let appended = state.cluster.append(call.broker, target, checked, request.acks, now_ms);
    appended.unwrap_or_else(|| Err(ResponseError::UnknownTopicOrPartition.into()))
}

fn accepted(index: i32, appended: &LogAppendInfo) -> PartitionProduceResponse {
    PartitionProduceResponse::default()
        .with_index(index)
        .with_base_offset(appended.base_offset)
        .with_log_append_time_ms(appended.log_append_time)
        .with_log_start_offset(appended.log_start_offset)
}

fn refused(index: i32, refusal: &ProduceError) -> PartitionProduceResponse {
    let record_error = |(index, message): &(i32, String)| {
        BatchIndexAndErrorMessage::default()
            .with_batch_index(*index)
            .with_batch_index_error_message(Some(text(&**message)))
    };
    PartitionProduceResponse::default()
        .with_index(index)
        .with_error_code(refusal.code.code())
        .with_base_offset(-1)
        .with_log_append_time_ms(-1)
        .with_log_start_offset(-1)
        .with_record_errors(refusal.record_errors.iter().map(record_error).collect())
        .with_error_message(refusal.message.as_deref().map(text))
}

fn leader_hint(cluster: &ClusterModel, topic: &str, index: i32, hinted: &mut BTreeSet<i32>) -> LeaderIdAndEpoch {
    let Some(partition) = cluster.partition(topic, index) else { return LeaderIdAndEpoch::default() };
    hinted.extend(partition.leader);
    LeaderIdAndEpoch::default()
        .with_leader_id(partition.leader.unwrap_or(-1).into())
        .with_leader_epoch(partition.leader_epoch)
}

fn endpoints(cluster: &ClusterModel, ids: &BTreeSet<i32>) -> Vec<NodeEndpoint> {
    let brokers = ids.iter().filter_map(|id| cluster.broker(*id));
    let endpoint = |broker: &crate::model::BrokerInfo| {
        NodeEndpoint::default()
            .with_node_id(broker.id.into())
            .with_host(text(&*broker.host))
            .with_port(broker.port.into())
    };
    brokers.map(endpoint).collect()
}
