//! DescribeConfigs for topics and brokers, versions 1 to 4 (KIP-133, KIP-226).
//!
//! Rules: the answer lists the settings that this broker implements. The source of an unset topic setting is the
//! default.

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use super::{Call, text};
use crate::model::{ClusterModel, ConfigType, TopicConfig};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SET_AT_TOPIC: i8 = 1;
const DEFAULT: i8 = 5;

pub(super) fn answer(call: &Call<'_>, request: &DescribeConfigsRequest) -> DescribeConfigsResponse {
    let state = call.shared.lock();
    let mut seen = BTreeSet::new();
    let first =
        request.resources.iter().filter(|asked| seen.insert((asked.resource_type, asked.resource_name.as_str())));
    let results = first.map(|asked| describe(call, &state.cluster, asked)).collect();
    DescribeConfigsResponse::default().with_throttle_time_ms(call.throttle_ms()).with_results(results)
}

fn describe(call: &Call<'_>, cluster: &ClusterModel, resource: &DescribeConfigsResource) -> DescribeConfigsResult {
    let result = DescribeConfigsResult::default()
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name.clone())
        .with_error_message(None);
    let found = match (call.refuse, resource.resource_type) {
        (Some(refuse), _) => Err(refuse.code),
        (None, TOPIC) => {
            let topic = cluster.topic(&resource.resource_name);
            topic.map(|topic| topic_entries(&topic.config)).ok_or(ResponseError::UnknownTopicOrPartition)
        }
        (None, BROKER) => Ok(broker_entries(cluster)),
        _ => Err(ResponseError::InvalidRequest),
    };
    match found {
        Ok(entries) => result.with_configs(asked_for(entries, resource)),
        Err(error) => result.with_error_code(error.code()),
    }
}

/// A setting: name, value, source and type.
pub(super) type ConfigEntry = (&'static str, String, i8, ConfigType);

pub(super) fn topic_entries(config: &TopicConfig) -> Vec<ConfigEntry> {
    let defaults = TopicConfig::default().entries();
    let source = |(name, value): (&str, &str)| {
        let is_default = defaults.iter().any(|(known, default, _)| *known == name && default == value);
        if is_default { DEFAULT } else { SET_AT_TOPIC }
    };
    let entries = config.entries().into_iter();
    entries.map(|(name, value, kind)| (name, value.clone(), source((name, &value)), kind)).collect()
}

fn broker_entries(cluster: &ClusterModel) -> Vec<ConfigEntry> {
    let limits = &cluster.limits;
    vec![
        ("auto.create.topics.enable", limits.auto_create.to_string(), DEFAULT, ConfigType::Boolean),
        ("default.replication.factor", limits.default_replication.to_string(), DEFAULT, ConfigType::Int),
        ("message.max.bytes", TopicConfig::default().max_message_bytes.to_string(), DEFAULT, ConfigType::Int),
        ("num.partitions", limits.default_partitions.to_string(), DEFAULT, ConfigType::Int),
    ]
}

fn asked_for(entries: Vec<ConfigEntry>, resource: &DescribeConfigsResource) -> Vec<DescribeConfigsResourceResult> {
    let keys = resource.configuration_keys.as_ref();
    let wanted = |entry: &ConfigEntry| keys.is_none_or(|keys| keys.iter().any(|key| key.as_str() == entry.0));
    let result = |(name, value, source, kind): ConfigEntry| {
        DescribeConfigsResourceResult::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
            .with_config_source(source)
            .with_config_type(kind as i8)
            .with_documentation(None)
    };
    entries.into_iter().filter(wanted).map(result).collect()
}
