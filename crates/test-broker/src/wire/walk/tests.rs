//! Tests of the walk with complete and damaged requests from the generated encoders.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, CreateTopicsRequest, DescribeConfigsRequest, DescribeProducersRequest, FetchRequest,
    InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest, ProduceRequest,
    SaslAuthenticateRequest, SaslHandshakeRequest, TopicName,
};
use kafka_protocol::protocol::{Encodable, StrBytes};
use uuid::Uuid;

use super::*;
use crate::api::DecodedRequest;
use crate::wire::SCHEMAS;

fn name() -> TopicName {
    StrBytes::from_static_str("orders").into()
}

fn encoded(request: &impl Encodable, version: i16) -> Bytes {
    let mut bytes = BytesMut::new();
    request.encode(&mut bytes, version).unwrap();
    bytes.freeze()
}

fn produce(version: i16) -> Bytes {
    let data = PartitionProduceData::default().with_index(3).with_records(Some(Bytes::from_static(b"batch")));
    let topic = TopicProduceData::default().with_partition_data(vec![data.clone(), data.with_records(None)]);
    let topic = if version >= 13 { topic.with_topic_id(Uuid::from_u128(9)) } else { topic.with_name(name()) };
    encoded(&ProduceRequest::default().with_transactional_id(None).with_topic_data(vec![topic.clone(), topic]), version)
}

fn fetch(version: i16) -> Bytes {
    let partition = FetchPartition::default().with_partition(1).with_fetch_offset(70);
    let topic = FetchTopic::default().with_partitions(vec![partition.clone(), partition]);
    let forgotten = ForgottenTopic::default().with_partitions(vec![4, 5]);
    let (topic, forgotten) = match version {
        13.. => (topic.with_topic_id(Uuid::from_u128(9)), forgotten.with_topic_id(Uuid::from_u128(8))),
        _ => (topic.with_topic(name()), forgotten.with_topic(name())),
    };
    let mut request = FetchRequest::default().with_topics(vec![topic]);
    if version >= 7 {
        request = request.with_forgotten_topics_data(vec![forgotten]);
    }
    if version >= 12 {
        request = request.with_cluster_id(Some(StrBytes::from_static_str("cluster")));
    }
    if version >= 15 {
        let state = ReplicaState::default().with_replica_id(7.into()).with_replica_epoch(11);
        request = request.with_replica_state(state);
    }
    encoded(&request, version)
}

fn list_offsets(version: i16) -> Bytes {
    let partition = ListOffsetsPartition::default().with_partition_index(1).with_timestamp(-1);
    let topic = ListOffsetsTopic::default().with_name(name()).with_partitions(vec![partition.clone(), partition]);
    encoded(&ListOffsetsRequest::default().with_topics(vec![topic]), version)
}

fn offset_for_leader_epoch(version: i16) -> Bytes {
    let partition = OffsetForLeaderPartition::default().with_partition(1).with_leader_epoch(3);
    let topic = OffsetForLeaderTopic::default().with_topic(name()).with_partitions(vec![partition.clone(), partition]);
    encoded(&OffsetForLeaderEpochRequest::default().with_topics(vec![topic.clone(), topic]), version)
}

fn metadata(version: i16) -> Bytes {
    let topic = MetadataRequestTopic::default().with_name(Some(name()));
    encoded(&MetadataRequest::default().with_topics(Some(vec![topic.clone(), topic])), version)
}

fn create_topics(version: i16) -> Bytes {
    let assignment = CreatableReplicaAssignment::default().with_broker_ids(vec![1.into(), 2.into()]);
    let config = CreatableTopicConfig::default().with_name(StrBytes::from_static_str("retention.bytes"));
    let topic = CreatableTopic::default()
        .with_name(name())
        .with_assignments(vec![assignment])
        .with_configs(vec![config.clone().with_value(None), config.with_value(Some(StrBytes::from_static_str("1")))]);
    encoded(&CreateTopicsRequest::default().with_topics(vec![topic.clone(), topic]), version)
}

fn describe_configs(version: i16) -> Bytes {
    let all = DescribeConfigsResource::default().with_resource_name(StrBytes::from_static_str("orders"));
    let some = all.clone().with_configuration_keys(Some(vec![StrBytes::from_static_str("retention.bytes")]));
    encoded(&DescribeConfigsRequest::default().with_resources(vec![all.with_configuration_keys(None), some]), version)
}

fn describe_producers(version: i16) -> Bytes {
    let topic = TopicRequest::default().with_name(name()).with_partition_indexes(vec![0, 1, 2]);
    encoded(&DescribeProducersRequest::default().with_topics(vec![topic]), version)
}

/// Returns a request with a value in every field.
fn sample(key: ApiKey, version: i16) -> Bytes {
    let text = StrBytes::from_static_str;
    match key {
        ApiKey::Produce => produce(version),
        ApiKey::Fetch => fetch(version),
        ApiKey::ListOffsets => list_offsets(version),
        ApiKey::Metadata => metadata(version),
        ApiKey::OffsetForLeaderEpoch => offset_for_leader_epoch(version),
        ApiKey::SaslHandshake => encoded(&SaslHandshakeRequest::default().with_mechanism(text("PLAIN")), version),
        ApiKey::ApiVersions if version < 3 => Bytes::new(),
        ApiKey::ApiVersions => {
            let request = ApiVersionsRequest::default().with_client_software_name(text("test"));
            encoded(&request.with_client_software_version(text("1")), version)
        }
        ApiKey::CreateTopics => create_topics(version),
        ApiKey::InitProducerId => {
            encoded(&InitProducerIdRequest::default().with_transactional_id(Some(text("tx").into())), version)
        }
        ApiKey::DescribeConfigs => describe_configs(version),
        ApiKey::SaslAuthenticate => {
            encoded(&SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(b"\0u\0p")), version)
        }
        ApiKey::DescribeProducers => describe_producers(version),
        other => panic!("no sample of {other:?}"),
    }
}

/// Returns every request in every version.
fn samples() -> impl Iterator<Item = (&'static Schema, i16, Bytes)> {
    SCHEMAS
        .iter()
        .flat_map(|schema| (schema.min..=schema.max).map(move |version| (schema, version, sample(schema.key, version))))
}

#[test]
fn every_version_passes_and_decodes() {
    for (schema, version, body) in samples() {
        assert_eq!(walk(schema, version, &body), Ok(()), "{:?} v{version}", schema.key);
        assert!(DecodedRequest::decode(schema, version, body).is_ok(), "{:?} v{version}", schema.key);
    }
}

#[test]
fn wrong_lengths_are_refused() {
    for (schema, version, body) in samples() {
        for end in 0..body.len() {
            assert!(walk(schema, version, &body[..end]).is_err(), "{:?} v{version} cut at {end}", schema.key);
        }
        let longer = [&body[..], b"x"].concat();
        assert!(walk(schema, version, &longer).is_err(), "{:?} v{version}", schema.key);
    }
}

/// A decoder that reserved memory by these lengths would end the process.
#[test]
fn huge_lengths_reserve_no_memory() {
    let hostile: [&[u8]; 3] = [&[0x7f, 0xff, 0xff, 0xff], &[0xff, 0xff, 0xff, 0xff, 0x0f], &[0xff; 5]];
    for (schema, version, body) in samples() {
        for bytes in hostile {
            for at in 0..body.len() {
                let mut damaged = body.to_vec();
                let end = damaged.len().min(at + bytes.len());
                damaged.splice(at..end, bytes.iter().copied());
                let _ = DecodedRequest::decode(schema, version, damaged.into());
            }
        }
    }
}

#[test]
fn count_beyond_remaining_bytes_is_refused() {
    let metadata = Schema::of(ApiKey::Metadata as i16).unwrap();
    assert_eq!(walk(metadata, 1, &[0x7f, 0xff, 0xff, 0xff]), Err(Malformed("array")));
    assert_eq!(walk(metadata, 9, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0]), Err(Malformed("array")));
    assert_eq!(walk(metadata, 1, &(-2_i32).to_be_bytes()), Err(Malformed("array")));
}

#[test]
fn element_limit_spans_the_request() {
    let producers = Schema::of(ApiKey::DescribeProducers as i16).unwrap();
    let request = |partitions: usize| {
        let topic = TopicRequest::default().with_name(name()).with_partition_indexes(vec![0; partitions]);
        encoded(&DescribeProducersRequest::default().with_topics(vec![topic.clone(), topic]), 0)
    };
    assert_eq!(walk(producers, 0, &request(MAX_ELEMENTS / 2 - 1)), Ok(()));
    assert_eq!(walk(producers, 0, &request(MAX_ELEMENTS / 2)), Err(Malformed("element count")));
}

#[test]
fn known_tag_must_match_its_size() {
    let schema = Schema::of(ApiKey::Fetch as i16).unwrap();
    let whole = encoded(&FetchRequest::default().with_cluster_id(Some(StrBytes::from_static_str("abc"))), 12);
    assert_eq!(walk(schema, 12, &whole), Ok(()));
    // The field has number 0 and size 4, and contains "abc" after its length + 1.
    let at = whole.len() - 5;
    assert_eq!(whole[at..], [4, 4, b'a', b'b', b'c']);
    let mut shorter = whole.to_vec();
    shorter[at + 1] = 3;
    assert_eq!(walk(schema, 12, &shorter), Err(Malformed("tagged field")));
}

#[test]
fn unknown_tagged_fields_are_skipped() {
    let schema = Schema::of(ApiKey::SaslAuthenticate as i16).unwrap();
    // One byte of authentication, and one tagged field: number 5, size 2.
    assert_eq!(walk(schema, 2, &[2, b'x', 1, 5, 2, 0xff, 0xff]), Ok(()));
    assert_eq!(walk(schema, 2, &[2, b'x', 1, 5, 3, 0xff, 0xff]), Err(Malformed("tagged field")));
}
