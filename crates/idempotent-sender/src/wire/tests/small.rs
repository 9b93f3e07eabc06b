//! ApiVersions (0 to 3), InitProducerId (0 to 5), DescribeProducers (0) and DescribeConfigs (1 to 4).

use std::time::Duration;

use kafka_protocol::messages as theirs;
use kafka_protocol::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};

use super::{decoded, encoded, read_back, tags, topic, versions};
use crate::core::LookAnswer;
use crate::wire::WireError;
use crate::wire::messenger::{ApiVersionsRequest, InitProducerIdRequest};
use crate::wire::small::describe_producers::{Described, Producer, judge};
use crate::wire::small::{api_versions, describe_configs, describe_producers, init_producer_id};

#[test]
fn api_versions_is_asked_with_our_name_where_the_version_has_it() {
    for version in versions::<ApiVersionsRequest>() {
        let read: theirs::ApiVersionsRequest = read_back(&ApiVersionsRequest, version);
        let name = (&*read.client_software_name, &*read.client_software_version);
        let expected = if version >= 3 { ("kafka-courier", env!("CARGO_PKG_VERSION")) } else { ("", "") };
        assert_eq!(name, expected, "version {version}");
    }
}

fn api(key: i16, lowest: i16, highest: i16) -> ApiVersion {
    let api = ApiVersion::default().with_api_key(key).with_min_version(lowest).with_max_version(highest);
    api.with_unknown_tagged_fields(tags())
}

#[test]
fn api_versions_are_read_with_every_option_of_their_version() {
    for version in versions::<ApiVersionsRequest>() {
        let apis = vec![api(0, 3, 13), api(i16::MAX, 0, 0)];
        let mut answer = theirs::ApiVersionsResponse::default().with_error_code(3).with_api_keys(apis);
        if version >= 1 {
            answer = answer.with_throttle_time_ms(9);
        }
        if version >= 3 {
            let supported = SupportedFeatureKey::default().with_name("transaction.version".into()).with_max_version(2);
            let finalized = FinalizedFeatureKey::default().with_name("kraft.version".into()).with_max_version_level(1);
            answer = answer.with_supported_features(vec![supported]).with_finalized_features(vec![finalized]);
            answer = answer.with_finalized_features_epoch(5).with_zk_migration_ready(true);
            answer = answer.with_unknown_tagged_fields(tags());
        }
        let read = decoded(&encoded(&answer, version), &["api keys"], |bytes| api_versions::decode(bytes, version));
        assert_eq!(read, (3, vec![(0, 3, 13), (i16::MAX, 0, 0)]), "version {version}");
    }
}

#[test]
fn unsupported_version_is_understood_by_its_code() {
    let told = theirs::ApiVersionsResponse::default().with_error_code(35).with_api_keys(vec![api(18, 0, 2)]);
    let kafkas = encoded(&told, 0);
    // librdkafka's mock cluster answers with compact lengths and no tags.
    let mocks = [0, 35, 2, 0, 18, 0, 0, 0, 2, 0, 0, 0, 0];
    for version in versions::<ApiVersionsRequest>() {
        for bytes in [&kafkas[..], &mocks, &[0, 35]] {
            assert_eq!(api_versions::decode(bytes, version), Ok((35, vec![])), "version {version}");
        }
    }
}

#[test]
fn a_producer_id_is_asked_for_anew_and_without_a_transaction() {
    for version in versions::<InitProducerIdRequest>() {
        let read: theirs::InitProducerIdRequest = read_back(&InitProducerIdRequest, version);
        assert_eq!((read.transactional_id, read.transaction_timeout_ms), (None, i32::MAX));
        assert_eq!((read.producer_id.0, read.producer_epoch), (-1, -1));
    }
}

fn producer_id(code: i16, id: i64) -> theirs::InitProducerIdResponse {
    let answer = theirs::InitProducerIdResponse::default().with_error_code(code).with_producer_id(id.into());
    answer.with_throttle_time_ms(3).with_producer_epoch(0).with_unknown_tagged_fields(tags())
}

#[test]
fn a_producer_id_is_read_in_every_version_and_an_error_has_none() {
    for version in versions::<InitProducerIdRequest>() {
        for (code, id) in [(0, 0), (0, i64::MAX), (14, -1)] {
            let bytes = encoded(&producer_id(code, id), version);
            let read = decoded(&bytes, &[], |bytes| init_producer_id::decode(bytes, version));
            assert_eq!(read, (code, id), "version {version}");
        }
        let read = init_producer_id::decode(&encoded(&producer_id(0, -1), version), version);
        assert_eq!(read, Err(WireError::Malformed { what: "producer id" }));
    }
}

#[test]
fn producers_are_asked_for_by_one_partition() {
    let request = describe_producers::Request { topic: "orders".into(), partition: 7 };
    let read: theirs::DescribeProducersRequest = read_back(&request, 0);
    assert_eq!(read.topics.len(), 1);
    assert_eq!((&*read.topics[0].name.0, &read.topics[0].partition_indexes[..]), ("orders", &[7][..]));
}

/// When a producer's last record was made, ms since the Unix epoch.
const LAST_MS: i64 = 1_700_000_000_000;

fn producers(code: i16, producers: &[Producer]) -> Vec<u8> {
    let state = |producer: &Producer| {
        let state = ProducerState::default().with_producer_id(producer.id.into()).with_producer_epoch(producer.epoch);
        let state = state.with_last_sequence(producer.last_sequence).with_last_timestamp(LAST_MS);
        state.with_coordinator_epoch(4).with_current_txn_start_offset(5).with_unknown_tagged_fields(tags())
    };
    let partition = PartitionResponse::default().with_partition_index(7).with_error_code(code);
    let partition = partition.with_error_message((code != 0).then(|| "no".into())).with_unknown_tagged_fields(tags());
    let partition = partition.with_active_producers(producers.iter().map(state).collect());
    let answer = TopicResponse::default().with_name(topic("orders")).with_partitions(vec![partition]);
    let answer =
        theirs::DescribeProducersResponse::default().with_topics(vec![answer.with_unknown_tagged_fields(tags())]);
    encoded(&answer.with_throttle_time_ms(1).with_unknown_tagged_fields(tags()), 0)
}

#[test]
fn producers_are_read_with_every_option() {
    let some = [
        Producer { id: 7, epoch: 3, last_sequence: i32::MAX, last_timestamp: LAST_MS },
        Producer { id: i64::MAX, epoch: i32::from(i16::MAX), last_sequence: -1, last_timestamp: LAST_MS },
    ];
    for (code, expected) in [(0, &some[..]), (6, &[])] {
        let bytes = producers(code, expected);
        let arrays = ["topics", "partitions", "producers"];
        let read = decoded(&bytes, &arrays, |bytes| describe_producers::decode(bytes, 0));
        let expected = Described { topic: "orders".into(), partition: 7, code, producers: expected.to_vec() };
        assert_eq!(read, [expected]);
    }
}

#[test]
fn a_look_tells_a_producer_that_is_there_from_one_that_is_not_and_from_a_leader_that_cannot_say() {
    let ours = Producer { id: 7, epoch: 3, last_sequence: 12, last_timestamp: LAST_MS };
    let found = LookAnswer::Producer { epoch: 3, last_sequence: 12, age: Duration::from_millis(5) };
    let look = |code, producers: &[Producer], id| {
        let answer = Described { topic: "orders".into(), partition: 7, code, producers: producers.to_vec() };
        judge(&[Described { partition: 6, ..answer.clone() }, answer], "orders", 7, id, LAST_MS + 5)
    };
    assert_eq!(look(0, &[Producer { id: 8, ..ours }, ours], 7), found);
    assert_eq!(look(0, &[ours], 9), LookAnswer::Nothing);
    assert_eq!(look(0, &[], 7), LookAnswer::Nothing);
    assert_eq!(look(6, &[], 7), LookAnswer::Unavailable);
    assert_eq!(look(29, &[], 7), LookAnswer::Nothing);
}

#[test]
fn an_answer_for_another_partition_or_topic_is_no_proof() {
    let producers = vec![Producer { id: 7, epoch: 3, last_sequence: 12, last_timestamp: LAST_MS }];
    let answer = [Described { topic: "orders".into(), partition: 6, code: 0, producers }];
    assert_eq!(judge(&answer, "orders", 7, 7, LAST_MS), LookAnswer::Unavailable);
    assert_eq!(judge(&answer, "other", 6, 7, LAST_MS), LookAnswer::Unavailable);
    assert_eq!(judge(&[], "orders", 7, 7, LAST_MS), LookAnswer::Unavailable);
}

#[test]
fn configs_of_one_topic_by_name() {
    let settings = &[describe_configs::CLEANUP_POLICY, describe_configs::RETENTION_MS];
    let request = describe_configs::Request { topic: "orders".into(), settings };
    for version in versions::<describe_configs::Request>() {
        let read: theirs::DescribeConfigsRequest = read_back(&request, version);
        assert!(!read.include_synonyms && !read.include_documentation);
        assert_eq!(read.resources.len(), 1);
        assert_eq!((read.resources[0].resource_type, &*read.resources[0].resource_name), (2, "orders"));
        assert_eq!(read.resources[0].configuration_keys, Some(vec!["cleanup.policy".into(), "retention.ms".into()]));
    }
}

fn config(version: i16, name: &'static str, value: Option<&'static str>) -> DescribeConfigsResourceResult {
    let synonym = DescribeConfigsSynonym::default().with_name("message.max.bytes".into()).with_value(None);
    let synonyms = vec![synonym.clone().with_source(5), synonym.with_value(Some("1".into()))];
    let config = DescribeConfigsResourceResult::default().with_name(name.into()).with_value(value.map(Into::into));
    let config = config.with_synonyms(synonyms).with_config_source(5).with_read_only(true).with_is_sensitive(true);
    let config = config.with_unknown_tagged_fields(tags());
    if version >= 3 { config.with_config_type(3).with_documentation(Some("most bytes".into())) } else { config }
}

fn configs(version: i16, code: i16, configs: Vec<DescribeConfigsResourceResult>) -> Vec<u8> {
    let result = DescribeConfigsResult::default().with_error_code(code).with_configs(configs).with_resource_type(2);
    let result = result.with_resource_name("orders".into()).with_error_message((code != 0).then(|| "no".into()));
    let result = vec![result.with_unknown_tagged_fields(tags())];
    let answer = theirs::DescribeConfigsResponse::default().with_results(result).with_throttle_time_ms(2);
    encoded(&answer.with_unknown_tagged_fields(tags()), version)
}

#[test]
fn a_topics_setting_is_read_with_every_option_of_its_version() {
    for version in versions::<describe_configs::Request>() {
        let other = config(version, "retention.ms", Some("604800000"));
        let bytes =
            configs(version, 0, vec![other.clone(), config(version, "max.message.bytes", Some("1048588")), other]);
        let read =
            decoded(&bytes, &["results", "configs", "synonyms"], |bytes| describe_configs::decode(bytes, version));
        assert_eq!(read.value("max.message.bytes"), Some("1048588"), "version {version}");
        assert_eq!((read.code, read.settings.len(), read.value("retention.bytes")), (0, 3, None));
    }
}

#[test]
fn a_topics_setting_that_is_null_has_no_value_and_a_refusal_says_so() {
    for version in versions::<describe_configs::Request>() {
        let bytes = configs(version, 0, vec![config(version, "max.message.bytes", None)]);
        let read = describe_configs::decode(&bytes, version).unwrap();
        assert_eq!((read.code, read.value("max.message.bytes")), (0, None));
        let refused = configs(version, 29, Vec::new());
        let read = decoded(&refused, &["results", "configs"], |bytes| describe_configs::decode(bytes, version));
        assert_eq!((read.code, read.settings.len()), (29, 0));
    }
}
