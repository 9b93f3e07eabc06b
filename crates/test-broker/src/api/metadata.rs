//! Metadata, versions 0 to 13 (KIP-320, KIP-516).
//!
//! Rules: a change of the cluster is visible on every broker immediately. The first answer about an automatically
//! created topic is an error, as in a real cluster.

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{MetadataRequest, MetadataResponse};
use uuid::Uuid;

use super::{Call, text};
use crate::model::{ClusterModel, PartitionModel, TopicCreation, TopicModel};

/// The value of authorised operations that the client did not request.
const NOT_REQUESTED: i32 = i32::MIN;
/// The bits of all topic operations (KIP-430): read, write, create, delete, alter, describe, and describe and alter
/// configs.
const ALL: i32 = 0b1101_1111_1000;
/// The bit of WRITE.
const WRITE: i32 = 1 << 4;

pub(super) fn answer(call: &Call<'_>, request: &MetadataRequest) -> MetadataResponse {
    let mut state = call.shared.lock();
    let cluster = &mut state.cluster;
    let topics = match requested_topics(request, call.version) {
        RequestedTopics::All => {
            cluster.topics().map(|(name, topic)| described(cluster, name, topic)).collect::<Vec<_>>()
        }
        RequestedTopics::These(names, ids) => {
            let create = request.allow_auto_topic_creation && cluster.limits.auto_create;
            let by_name = names.into_iter().map(|name| by_name(cluster, name, create)).collect::<Vec<_>>();
            by_name.into_iter().chain(ids.into_iter().map(|id| by_id(cluster, id))).collect()
        }
    };
    let topics = match request.include_topic_authorized_operations {
        true => topics.into_iter().map(|topic| authorised(cluster, topic)).collect(),
        false => topics,
    };
    let response = MetadataResponse::default()
        .with_throttle_time_ms(call.throttle_ms())
        .with_brokers(brokers(cluster))
        .with_cluster_id(Some(text("kafka-courier-test-broker")))
        .with_controller_id(cluster.alive().first().copied().unwrap_or(-1).into())
        .with_topics(topics);
    match call.refused() {
        Some(code) => refused(response, code, call.version),
        None => response,
    }
}

fn authorised(cluster: &ClusterModel, topic: MetadataResponseTopic) -> MetadataResponseTopic {
    let denied = topic.name.as_ref().is_some_and(|name| cluster.is_denied(name.as_str()));
    let exists = topic.error_code == super::NO_ERROR;
    let operations = if denied { ALL & !WRITE } else { ALL };
    topic.with_topic_authorized_operations(if exists { operations } else { NOT_REQUESTED })
}

/// Answers with an error at every topic. Version 13 adds an error for the whole answer.
fn refused(mut response: MetadataResponse, code: i16, version: i16) -> MetadataResponse {
    if version >= 13 {
        response.error_code = code;
    }
    for topic in &mut response.topics {
        topic.error_code = code;
        topic.partitions.clear();
    }
    response
}

enum RequestedTopics<'a> {
    All,
    These(BTreeSet<&'a str>, BTreeSet<Uuid>),
}

fn requested_topics(request: &MetadataRequest, version: i16) -> RequestedTopics<'_> {
    match &request.topics {
        None => RequestedTopics::All,
        Some(topics) if topics.is_empty() && version == 0 => RequestedTopics::All,
        Some(topics) => {
            let has_name = |topic: &'_ MetadataRequestTopic| topic.name.is_some();
            let names = topics.iter().filter_map(|topic| topic.name.as_ref()).map(|name| name.as_str()).collect();
            let ids = topics.iter().filter(|topic| !has_name(topic)).map(|topic| topic.topic_id).collect();
            RequestedTopics::These(names, ids)
        }
    }
}

fn brokers(cluster: &ClusterModel) -> Vec<MetadataResponseBroker> {
    let alive = cluster.brokers.iter().filter(|broker| broker.alive);
    let described = alive.map(|broker| {
        MetadataResponseBroker::default()
            .with_node_id(broker.id.into())
            .with_host(text(&*broker.host))
            .with_port(broker.port.into())
    });
    described.collect()
}

fn by_name(cluster: &mut ClusterModel, name: &str, create: bool) -> MetadataResponseTopic {
    if let Some(topic) = cluster.topic(name) {
        return described(cluster, name, topic);
    }
    let mut code = ResponseError::UnknownTopicOrPartition;
    if create {
        let new = TopicCreation { name: name.to_owned(), ..TopicCreation::default() };
        if let Err(error) = cluster.create(&new, false) {
            code = error.code;
        }
    }
    unknown(code).with_name(Some(text(name).into()))
}

fn by_id(cluster: &ClusterModel, id: Uuid) -> MetadataResponseTopic {
    match cluster.name_of(id).and_then(|name| Some((name, cluster.topic(name)?))) {
        Some((name, topic)) => described(cluster, name, topic),
        None => unknown(ResponseError::UnknownTopicId).with_topic_id(id),
    }
}

fn unknown(code: ResponseError) -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_error_code(code.code())
        .with_name(None)
        .with_topic_authorized_operations(NOT_REQUESTED)
}

fn described(cluster: &ClusterModel, name: &str, topic: &TopicModel) -> MetadataResponseTopic {
    let alive = cluster.alive();
    let partitions =
        (0..).zip(&topic.partitions).map(|(index, partition)| described_partition(index, partition, &alive));
    MetadataResponseTopic::default()
        .with_name(Some(text(name).into()))
        .with_topic_id(topic.id)
        .with_partitions(partitions.collect())
        .with_topic_authorized_operations(NOT_REQUESTED)
}

fn described_partition(index: i32, partition: &PartitionModel, alive: &[i32]) -> MetadataResponsePartition {
    let ids = |ids: &[i32]| ids.iter().map(|id| (*id).into()).collect();
    let offline: Vec<i32> = partition.replicas.iter().copied().filter(|id| !alive.contains(id)).collect();
    let code = if partition.leader.is_some() { 0 } else { ResponseError::LeaderNotAvailable.code() };
    MetadataResponsePartition::default()
        .with_error_code(code)
        .with_partition_index(index)
        .with_leader_id(partition.leader.unwrap_or(-1).into())
        .with_leader_epoch(partition.leader_epoch)
        .with_replica_nodes(ids(&partition.replicas))
        .with_isr_nodes(ids(&partition.in_sync))
        .with_offline_replicas(ids(&offline))
}
