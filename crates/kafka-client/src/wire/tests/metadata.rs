//! Metadata, versions 4 to 13.

use kafka_protocol::messages as theirs;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};

use super::{UUIDS, decoded, encoded, read_back, tags, topic, versions};
use crate::ids::{BrokerAddress, BrokerId};
use crate::wire::WireError;
use crate::wire::metadata::{
    ClusterMetadata, MetadataAnswer, MetadataRequest, PartitionMetadata, TopicMetadata, decode,
};

#[test]
fn request_controls_topic_creation() {
    let topics = vec!["orders".into(), "p".repeat(249).into()];
    let request = |(auto_create, operations)| MetadataRequest { topics: topics.clone(), auto_create, operations };
    let both = [(true, false), (false, true)].map(request);
    for (request, version) in both.iter().flat_map(|r| versions::<MetadataRequest>().map(move |v| (r, v))) {
        let read: theirs::MetadataRequest = read_back(request, version);
        assert_eq!(read.allow_auto_topic_creation, request.auto_create);
        assert!(!read.include_cluster_authorized_operations);
        assert_eq!(read.include_topic_authorized_operations, request.operations && version >= 8);
        let topics = read.topics.unwrap();
        let names: Vec<&str> = topics.iter().map(|topic| &*topic.name.as_ref().unwrap().0).collect();
        assert_eq!(names, [&*request.topics[0], &*request.topics[1]]);
        assert!(topics.iter().all(|topic| topic.topic_id.as_bytes() == &[0; 16]));
    }
}

#[test]
fn empty_request_is_not_for_all() {
    for version in versions::<MetadataRequest>() {
        let read: theirs::MetadataRequest =
            read_back(&MetadataRequest { topics: Vec::new(), auto_create: true, operations: false }, version);
        assert_eq!(read.topics, Some(Vec::new()));
    }
}

fn broker(id: i32, host: &'static str, port: i32) -> MetadataResponseBroker {
    let broker = MetadataResponseBroker::default().with_node_id(id.into()).with_host(host.into()).with_port(port);
    broker.with_unknown_tagged_fields(tags())
}

fn partition(version: i16, index: i32, leader: i32, epoch: i32) -> MetadataResponsePartition {
    let nodes = |ids: &[i32]| ids.iter().map(|id| theirs::BrokerId(*id)).collect::<Vec<_>>();
    let partition = MetadataResponsePartition::default().with_partition_index(index).with_leader_id(leader.into());
    let partition = partition.with_error_code(if leader < 0 { 5 } else { 0 }).with_unknown_tagged_fields(tags());
    let partition = partition.with_replica_nodes(nodes(&[1, 2, 3])).with_isr_nodes(nodes(&[1]));
    let partition = if version >= 7 { partition.with_leader_epoch(epoch) } else { partition };
    if version >= 5 { partition.with_offline_replicas(nodes(&[3])) } else { partition }
}

fn topic_answer(version: i16, code: i16, partitions: Vec<MetadataResponsePartition>) -> MetadataResponseTopic {
    let answer = MetadataResponseTopic::default().with_error_code(code).with_partitions(partitions);
    let answer = answer.with_is_internal(true).with_unknown_tagged_fields(tags());
    let answer = if version >= 8 { answer.with_topic_authorized_operations(1_234) } else { answer };
    if version >= 10 { answer.with_topic_id(UUIDS[0].to_vec().try_into().unwrap()) } else { answer }
}

/// An answer with each option of its version. One topic has no name in version 12 and newer.
fn full_answer(version: i16) -> theirs::MetadataResponse {
    let partitions = vec![partition(version, 1, 2, 8), partition(version, 0, -1, -1)];
    let mut topics = vec![
        topic_answer(version, 0, partitions).with_name(Some(topic("orders"))),
        topic_answer(version, 3, Vec::new()).with_name(Some(topic("none"))),
    ];
    if version >= 12 {
        topics.push(topic_answer(version, 100, vec![partition(version, 0, 1, 1)]).with_name(None));
    }
    let brokers = vec![broker(1, "kafka-1", 9092).with_rack(Some("a".into())), broker(2, "::1", 0).with_rack(None)];
    let answer = theirs::MetadataResponse::default().with_throttle_time_ms(7).with_brokers(brokers).with_topics(topics);
    let answer =
        answer.with_cluster_id(Some("c".into())).with_controller_id(1.into()).with_unknown_tagged_fields(tags());
    match version {
        8..=10 => answer.with_cluster_authorized_operations(5_678),
        13.. => answer.with_error_code(129),
        _ => answer,
    }
}

fn expected(version: i16) -> MetadataAnswer {
    let uuid = (version >= 10).then_some(UUIDS[0]);
    let epoch = |epoch| (version >= 7).then_some(epoch);
    let partitions = vec![
        PartitionMetadata { index: 1, code: 0, leader: Some(BrokerId(2)), leader_epoch: epoch(8) },
        PartitionMetadata { index: 0, code: 5, leader: None, leader_epoch: None },
    ];
    let brokers = vec![
        BrokerAddress { id: BrokerId(1), host: "kafka-1".into(), port: 9092 },
        BrokerAddress { id: BrokerId(2), host: "::1".into(), port: 0 },
    ];
    let topics = vec![
        TopicMetadata { name: "orders".into(), uuid, code: 0, partitions },
        TopicMetadata { name: "none".into(), uuid, code: 3, partitions: Vec::new() },
    ];
    let told = if version >= 8 { vec![("orders".into(), 1_234), ("none".into(), 1_234)] } else { Vec::new() };
    let code = if version >= 13 { 129 } else { 0 };
    let cluster_id = Some("c".into());
    MetadataAnswer { cluster: ClusterMetadata { brokers, topics }, cluster_id, code, operations: told }
}

#[test]
fn answer_is_read_with_all_options() {
    for version in versions::<MetadataRequest>() {
        let bytes = encoded(&full_answer(version), version);
        let arrays: &[&str] = match version {
            5.. => &["brokers", "topics", "partitions", "replicas", "in-sync replicas", "offline replicas"],
            _ => &["brokers", "topics", "partitions", "replicas", "in-sync replicas"],
        };
        assert_eq!(decoded(&bytes, arrays, |bytes| decode(bytes, version)), expected(version), "version {version}");
    }
}

#[test]
fn answer_is_read_without_options() {
    for version in versions::<MetadataRequest>() {
        let bytes = encoded(&theirs::MetadataResponse::default().with_cluster_id(None), version);
        let read = decoded(&bytes, &["brokers", "topics"], |bytes| decode(bytes, version));
        let cluster = ClusterMetadata::default();
        let empty = MetadataAnswer { cluster, cluster_id: None, code: 0, operations: Vec::new() };
        assert_eq!(read, empty, "version {version}");
    }
}

#[test]
fn invalid_ports_and_partitions_are_malformed() {
    for version in versions::<MetadataRequest>() {
        for port in [-1, 65_536, i32::MAX] {
            let answer = theirs::MetadataResponse::default().with_brokers(vec![broker(1, "kafka-1", port)]);
            let read = decode(&encoded(&answer, version), version);
            assert_eq!(read, Err(WireError::Malformed { what: "port" }));
        }
        for index in [-1, i32::MAX] {
            let malformed = Err(WireError::Malformed { what: "partition index" });
            assert_eq!(read_with_partitions(version, [index]), malformed);
        }
    }
}

fn read_with_partitions(version: i16, indexes: impl IntoIterator<Item = i32>) -> Result<MetadataAnswer, WireError> {
    let partitions = indexes.into_iter().map(|index| partition(version, index, 1, 1)).collect();
    let topics = vec![topic_answer(version, 0, partitions).with_name(Some(topic("orders")))];
    decode(&encoded(&theirs::MetadataResponse::default().with_topics(topics), version), version)
}

#[test]
fn partition_gaps_are_bounded() {
    for version in versions::<MetadataRequest>() {
        assert!(read_with_partitions(version, [0, 1001]).is_ok());
        assert!(read_with_partitions(version, (0..2000).rev()).is_ok());
        for indexes in [vec![1001], vec![0, 1002], vec![999_999]] {
            let malformed = Err(WireError::Malformed { what: "partition index" });
            assert_eq!(read_with_partitions(version, indexes), malformed);
        }
    }
}

#[test]
fn broker_count_is_bounded() {
    let read = |count| {
        let brokers = (0..count).map(|id| broker(id, "kafka", 9092)).collect();
        decode(&encoded(&theirs::MetadataResponse::default().with_brokers(brokers), 9), 9)
    };
    assert_eq!(read(10_000).unwrap().cluster.brokers.len(), 10_000);
    assert_eq!(read(10_001), Err(WireError::Malformed { what: "number of brokers" }));
}
