//! CreateTopics, versions 2 to 7 (KIP-4, KIP-464, KIP-525).
//!
//! Rules: each topic is created or refused separately. An unknown setting is refused.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};

use super::describe_configs::{ConfigEntry, topic_entries};
use super::{Call, text};
use crate::model::{ClusterModel, CreateError, CreatedTopic, TopicConfig, TopicCreation};

pub(super) fn answer(call: &Call<'_>, request: &CreateTopicsRequest) -> CreateTopicsResponse {
    let mut state = call.shared.lock();
    let topics = request.topics.iter().map(|topic| {
        let created = match call.refuse {
            Some(refuse) => Err(CreateError { code: refuse.code, message: "injected fault".to_owned() }),
            None => create(&mut state.cluster, topic, request.validate_only),
        };
        result(topic, created)
    });
    let topics = topics.collect();
    CreateTopicsResponse::default().with_throttle_time_ms(call.throttle_ms()).with_topics(topics)
}

fn create(
    cluster: &mut ClusterModel,
    topic: &CreatableTopic,
    validate_only: bool,
) -> Result<(CreatedTopic, TopicConfig), CreateError> {
    let mut config = TopicConfig::default();
    for entry in &topic.configs {
        let value = entry.value.as_deref().unwrap_or_default();
        config
            .set(&entry.name, value)
            .map_err(|error| CreateError { code: ResponseError::InvalidConfig, message: error.to_string() })?;
    }
    let new = TopicCreation {
        name: topic.name.to_string(),
        partitions: (topic.num_partitions != -1).then_some(topic.num_partitions),
        replication: (topic.replication_factor != -1).then_some(topic.replication_factor),
        assignment: assignment(topic)?,
        config,
    };
    cluster.create(&new, validate_only).map(|created| (created, new.config))
}

/// Returns the replicas of each partition. The partition indexes must count from 0 without gaps.
fn assignment(topic: &CreatableTopic) -> Result<Vec<Vec<i32>>, CreateError> {
    let mut assigned: Vec<_> = topic.assignments.iter().collect();
    assigned.sort_by_key(|assignment| assignment.partition_index);
    if !(0..).zip(&assigned).all(|(index, assignment): (i32, _)| assignment.partition_index == index) {
        let message = "The partitions must be numbered from 0 without gaps".to_owned();
        return Err(CreateError { code: ResponseError::InvalidReplicaAssignment, message });
    }
    Ok(assigned.into_iter().map(|one| one.broker_ids.iter().map(|id| id.0).collect()).collect())
}

fn result(topic: &CreatableTopic, created: Result<(CreatedTopic, TopicConfig), CreateError>) -> CreatableTopicResult {
    let result = CreatableTopicResult::default().with_name(topic.name.clone()).with_configs(None);
    match created {
        Err(error) => result.with_error_code(error.code.code()).with_error_message(Some(text(error.message))),
        Ok((created, config)) => result
            .with_error_message(None)
            .with_topic_id(created.id)
            .with_num_partitions(i32::try_from(created.partitions).unwrap_or(i32::MAX))
            .with_replication_factor(i16::try_from(created.replication).unwrap_or(i16::MAX))
            .with_configs(Some(topic_entries(&config).into_iter().map(setting).collect())),
    }
}

fn setting((name, value, source, _): ConfigEntry) -> CreatableTopicConfigs {
    CreatableTopicConfigs::default().with_name(text(name)).with_value(Some(text(value))).with_config_source(source)
}
