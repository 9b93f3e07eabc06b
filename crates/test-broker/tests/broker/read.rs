//! Tests of Fetch, ListOffsets, Metadata, CreateTopics, DescribeConfigs, DescribeProducers,
//! OffsetForLeaderEpoch and ApiVersions.

use crate::support::{Client, batch, cluster, now_ms, stamped, text};
use bytes::Bytes;
use kafka_courier_batcher::{BatchView, Compression, Stamp};
use kafka_courier_test_broker::{ApiKey, ErrorCode, TestCluster};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, DescribeConfigsRequest, DescribeProducersRequest, FetchRequest,
    FetchResponse, ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest,
};

async fn topic_id(client: &mut Client) -> uuid::Uuid {
    client.call(&MetadataRequest::default().with_topics(None), 12).await.topics[0].topic_id
}

fn fetch(version: i16, id: uuid::Uuid, offset: i64, max_bytes: i32) -> FetchRequest {
    let partition = FetchPartition::default().with_fetch_offset(offset).with_partition_max_bytes(max_bytes);
    let topic = FetchTopic::default().with_partitions(vec![partition]);
    let topic = if version >= 13 { topic.with_topic_id(id) } else { topic.with_topic(text("t").into()) };
    FetchRequest::default().with_max_bytes(1 << 20).with_min_bytes(1).with_topics(vec![topic])
}

/// Returns the error code and the values of a Fetch answer.
fn fetched(answer: &FetchResponse) -> (i16, Vec<String>) {
    let partition = &answer.responses[0].partitions[0];
    let mut rest: &[u8] = partition.records.as_deref().unwrap_or_default();
    let mut values = Vec::new();
    while !rest.is_empty() {
        let (view, after) = BatchView::parse(rest).unwrap();
        assert!(view.check_crc());
        let records = view.records(1 << 20).unwrap();
        values.extend(records.iter().map(|r| str::from_utf8(r.unwrap().value.unwrap()).unwrap().to_owned()));
        rest = after;
    }
    (partition.error_code, values)
}

#[tokio::test]
async fn every_fetch_version_reads_whole_batches() {
    let cluster = cluster(1, 1).await;
    let mut client = Client::connect(&cluster, 1).await;
    for (sequence, values) in [(0, ["a", "b"]), (2, ["c", "d"]), (4, ["e", "f"])] {
        client.produce(0, batch(0, sequence, &values)).await;
    }
    let id = topic_id(&mut client).await;
    for version in 4..=16 {
        let answer = client.call(&fetch(version, id, 3, 1 << 20), version).await;
        assert_eq!(fetched(&answer), (0, vec!["c".into(), "d".into(), "e".into(), "f".into()]), "v{version}");
        assert_eq!(answer.responses[0].partitions[0].high_watermark, 6);
        assert_eq!(answer.session_id, 0);
    }
    let one = client.call(&fetch(12, id, 0, 1), 12).await;
    assert_eq!(fetched(&one).1, ["a", "b"]);
    let beyond = client.call(&fetch(12, id, 7, 1), 12).await;
    assert_eq!(fetched(&beyond).0, ErrorCode::OffsetOutOfRange.code());
}

#[tokio::test]
async fn fetch_waits_for_next_record() {
    let cluster = cluster(1, 1).await;
    let mut reader = Client::connect(&cluster, 1).await;
    let mut writer = Client::connect(&cluster, 1).await;
    let request = fetch(12, uuid::Uuid::nil(), 0, 1 << 20).with_max_wait_ms(60_000);
    let id = reader.send(&request, 12).await;
    cluster.wait_for_requests(ApiKey::Fetch, 1).await;
    writer.produce(0, batch(0, 0, &["a"])).await;
    let answer = reader.receive::<FetchRequest>(id, 12).await.unwrap();
    assert_eq!(fetched(&answer), (0, vec!["a".into()]));
}

#[tokio::test]
async fn expired_fetch_is_answered_empty() {
    let cluster = cluster(1, 1).await;
    let mut reader = Client::connect(&cluster, 1).await;
    let answer = reader.call(&fetch(12, uuid::Uuid::nil(), 0, 1 << 20).with_max_wait_ms(1), 12).await;
    assert_eq!(fetched(&answer), (0, vec![]));
}

#[tokio::test]
async fn repeated_partition_is_answered_once() {
    let cluster = cluster(1, 1).await;
    let mut client = Client::connect(&cluster, 1).await;
    client.produce(0, batch(0, 0, &["a"])).await;
    let mut request = fetch(12, uuid::Uuid::nil(), 0, 1 << 20);
    let partition = request.topics[0].partitions[0].clone();
    request.topics[0].partitions = vec![partition; 1000];
    let topic = request.topics[0].clone();
    request.topics.push(topic);
    let answer = client.call(&request, 12).await;
    assert_eq!(answer.responses.iter().map(|topic| topic.partitions.len()).sum::<usize>(), 1);
}

async fn offset_at(client: &mut Client, version: i16, timestamp: i64) -> (i16, i64) {
    let partition = ListOffsetsPartition::default().with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default().with_name(text("t").into()).with_partitions(vec![partition]);
    let answer = client.call(&ListOffsetsRequest::default().with_topics(vec![topic]), version).await;
    let partition = &answer.topics[0].partitions[0];
    (partition.error_code, partition.offset)
}

#[tokio::test]
async fn offsets_by_end_start_and_time() {
    let cluster = cluster(2, 1).await;
    let mut client = Client::connect(&cluster, 1).await;
    let records = [(None, "a", 1000), (None, "b", 3000), (None, "c", 2000)];
    client.produce(0, stamped(None, &records, Compression::None)).await;
    for version in 1..=9 {
        let mut found = Vec::new();
        for timestamp in [-1, -2, 0, 1001, 3000, 3001, -3] {
            found.push(offset_at(&mut client, version, timestamp).await);
        }
        assert_eq!(found, [(0, 3), (0, 0), (0, 0), (0, 1), (0, 1), (0, -1), (0, 1)], "v{version}");
    }
    let mut other = Client::connect(&cluster, 2).await;
    assert_eq!(offset_at(&mut other, 5, -1).await, (ErrorCode::NotLeaderOrFollower.code(), -1));
}

#[tokio::test]
async fn every_metadata_version_names_leaders() {
    let cluster = cluster(3, 4).await;
    let mut client = Client::connect(&cluster, 2).await;
    for version in 0..=13 {
        let topic = MetadataRequestTopic::default().with_name(Some(text("t").into()));
        let answer = client.call(&MetadataRequest::default().with_topics(Some(vec![topic])), version).await;
        assert_eq!(answer.brokers.iter().map(|broker| broker.node_id.0).collect::<Vec<_>>(), [1, 2, 3]);
        let leaders: Vec<i32> = answer.topics[0].partitions.iter().map(|p| p.leader_id.0).collect();
        assert_eq!(leaders, [1, 2, 3, 1], "v{version}");
        assert_eq!(answer.topics[0].partitions[1].replica_nodes, [2, 3, 1]);
    }
}

#[tokio::test]
async fn recreated_topic_has_another_id() {
    let cluster = cluster(1, 1).await;
    let mut client = Client::connect(&cluster, 1).await;
    let id = topic_id(&mut client).await;
    let by_id = MetadataRequestTopic::default().with_name(None).with_topic_id(id);
    let by_id = MetadataRequest::default().with_topics(Some(vec![by_id]));
    assert_eq!(client.call(&by_id, 12).await.topics[0].name.as_ref().map(|name| name.as_str()), Some("t"));
    assert!(cluster.delete_topic("t"));
    cluster.create_topic(&kafka_courier_test_broker::TopicSpec::new("t", 1)).unwrap();
    assert_eq!(client.call(&by_id, 12).await.topics[0].error_code, ErrorCode::UnknownTopicId.code());
    assert_ne!(topic_id(&mut client).await, id);
}

#[tokio::test]
async fn topic_auto_creation_needs_both_sides() {
    for (create, allow, expected) in [(false, true, 0), (true, false, 0), (true, true, 5)] {
        let builder = TestCluster::builder();
        let builder = if create { builder.auto_create_topics(5) } else { builder };
        let cluster = builder.start().await.unwrap();
        let mut client = Client::connect(&cluster, 1).await;
        let topic = MetadataRequestTopic::default().with_name(Some(text("new").into()));
        let request = MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(allow);
        let first = client.call(&request, 12).await;
        assert_eq!(first.topics[0].error_code, ErrorCode::UnknownTopicOrPartition.code());
        assert_eq!(client.call(&request, 12).await.topics[0].partitions.len(), expected);
    }
}

#[tokio::test]
async fn topics_are_created_or_refused() {
    let cluster = cluster(2, 1).await;
    let mut client = Client::connect(&cluster, 1).await;
    let config = |value: &str| {
        CreatableTopicConfig::default().with_name(text("max.message.bytes")).with_value(Some(text(value)))
    };
    let topic = |name: &str, partitions, replication| {
        let topic = CreatableTopic::default().with_name(text(name).into()).with_num_partitions(partitions);
        topic.with_replication_factor(replication)
    };
    let topics = vec![
        topic("new", 3, 2).with_configs(vec![config("77")]),
        topic("t", 1, 1),
        topic("many replicas", 1, 1),
        topic("replicated", 1, 3),
        topic("none", 0, 1),
        topic("strange", 1, 1).with_configs(vec![config("x")]),
    ];
    for version in 2..=7 {
        let answer = client.call(&CreateTopicsRequest::default().with_topics(topics.clone()), version).await;
        let codes: Vec<i16> = answer.topics.iter().map(|topic| topic.error_code).collect();
        let first = if version == 2 { 0 } else { ErrorCode::TopicAlreadyExists.code() };
        assert_eq!(codes, [first, 36, 17, 38, 37, 40], "v{version}");
    }
    let resource = DescribeConfigsResource::default().with_resource_type(2).with_resource_name(text("new"));
    let asked = resource.with_configuration_keys(Some(vec![text("max.message.bytes"), text("retention.bytes")]));
    for version in 1..=4 {
        let answer = client.call(&DescribeConfigsRequest::default().with_resources(vec![asked.clone()]), version).await;
        let configs = &answer.results[0].configs;
        let seen: Vec<_> = configs.iter().map(|c| (c.name.as_str(), c.value.as_deref(), c.config_source)).collect();
        assert_eq!(seen, [("max.message.bytes", Some("77"), 1), ("retention.bytes", Some("-1"), 5)], "v{version}");
    }
}

#[tokio::test]
async fn describe_producers_returns_last_sequence() {
    let cluster = cluster(1, 1).await;
    let mut client = Client::connect(&cluster, 1).await;
    client.produce(0, batch(4, 0, &["a", "b"])).await;
    let topic = TopicRequest::default().with_name(text("t").into()).with_partition_indexes(vec![0, 0, 1]);
    let answer = client.call(&DescribeProducersRequest::default().with_topics(vec![topic]), 0).await;
    let partitions = &answer.topics[0].partitions;
    assert_eq!(partitions.len(), 2);
    let producer = &partitions[0].active_producers[0];
    assert_eq!((producer.producer_id.0, producer.producer_epoch, producer.last_sequence), (7, 4, 1));
    assert_eq!(partitions[1].error_code, ErrorCode::UnknownTopicOrPartition.code());
}

#[tokio::test]
async fn followers_describe_producers_only() {
    let cluster = cluster(2, 1).await;
    let mut follower = Client::connect(&cluster, 2).await;
    let topic = TopicRequest::default().with_name(text("t").into()).with_partition_indexes(vec![0]);
    let answer = follower.call(&DescribeProducersRequest::default().with_topics(vec![topic]), 0).await;
    assert_eq!(answer.topics[0].partitions[0].error_code, 0);
    let mut leader = Client::connect(&cluster, 1).await;
    let list = |epoch| {
        let partition = ListOffsetsPartition::default().with_timestamp(-1).with_current_leader_epoch(epoch);
        let topic = ListOffsetsTopic::default().with_name(text("t").into()).with_partitions(vec![partition]);
        ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic])
    };
    assert_eq!(follower.call(&list(-1), 7).await.topics[0].partitions[0].error_code, 6);
    for (epoch, code) in [(-1, 0), (0, 0), (1, 75)] {
        assert_eq!(leader.call(&list(epoch), 7).await.topics[0].partitions[0].error_code, code, "epoch {epoch}");
    }
    assert!(cluster.move_leader("t", 0, 2) && cluster.move_leader("t", 0, 1));
    assert_eq!(leader.call(&list(0), 7).await.topics[0].partitions[0].error_code, 74);
}

/// Returns the error code, the epoch and the end offset of a leader epoch.
async fn epoch_end(client: &mut Client, version: i16, current: i32, epoch: i32) -> (i16, i32, i64) {
    let partition = OffsetForLeaderPartition::default().with_current_leader_epoch(current).with_leader_epoch(epoch);
    let topic = OffsetForLeaderTopic::default().with_topic(text("t").into()).with_partitions(vec![partition]);
    let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
    let answer = client.call(&request, version).await;
    let partition = &answer.topics[0].partitions[0];
    (partition.error_code, partition.leader_epoch, partition.end_offset)
}

#[tokio::test]
async fn leader_epochs_have_end_offsets() {
    let cluster = cluster(2, 1).await;
    let (mut first, mut second) = (Client::connect(&cluster, 1).await, Client::connect(&cluster, 2).await);
    first.produce(0, batch(0, 0, &["a", "b"])).await;
    assert!(cluster.move_leader("t", 0, 2) && cluster.move_leader("t", 0, 1));
    first.produce(0, batch(0, 2, &["c"])).await;
    for version in 2..=4 {
        let mut ends = Vec::new();
        for epoch in [2, 1, 0, 3, -1] {
            ends.push(epoch_end(&mut first, version, 2, epoch).await);
        }
        assert_eq!(ends, [(0, 2, 3), (0, 0, 2), (0, 0, 2), (0, -1, -1), (0, -1, -1)], "v{version}");
        assert_eq!(epoch_end(&mut first, version, 1, 1).await, (ErrorCode::FencedLeaderEpoch.code(), -1, -1));
        assert_eq!(epoch_end(&mut first, version, 3, 3).await, (ErrorCode::UnknownLeaderEpoch.code(), -1, -1));
        assert_eq!(epoch_end(&mut second, version, 2, 2).await, (ErrorCode::NotLeaderOrFollower.code(), -1, -1));
    }
}

#[tokio::test]
async fn paused_replication_hides_appended_records() {
    let cluster = cluster(1, 1).await;
    let mut client = Client::connect(&cluster, 1).await;
    client.produce(0, batch(0, 0, &["a"])).await;
    assert!(cluster.pause_replication("t", 0) && !cluster.pause_replication("t", 1));
    let stamp = Stamp { producer_id: 7, epoch: 0, base_sequence: 1 };
    let later = now_ms() + 60_000;
    let unreplicated = stamped(Some(stamp), &[(None, "b", later), (None, "c", later)], Compression::None);
    for _ in 0..2 {
        // The second answer is to a duplicate.
        let late = client.produce(0, unreplicated.clone()).await;
        assert_eq!((late.error_code, late.base_offset), (ErrorCode::RequestTimedOut.code(), 1));
    }
    let known = client.produce(0, batch(0, 0, &["a"])).await;
    assert_eq!((known.error_code, known.base_offset), (0, 0), "the batch was replicated before");
    let id = topic_id(&mut client).await;
    assert_eq!(fetched(&client.call(&fetch(12, id, 0, 1 << 20), 12).await), (0, vec!["a".into()]));
    assert_eq!(fetched(&client.call(&fetch(12, id, 1, 1 << 20), 12).await), (0, vec![]));
    for (timestamp, offset) in [(-1, 1), (-3, -1), (later, -1), (0, 0)] {
        assert_eq!(offset_at(&mut client, 7, timestamp).await, (0, offset), "time {timestamp}");
    }
    assert_eq!(epoch_end(&mut client, 4, 0, 0).await, (0, 0, 3), "the log ends behind the high watermark");
    let waiting = client.send(&fetch(12, id, 1, 1 << 20).with_max_wait_ms(60_000), 12).await;
    cluster.wait_for_requests(ApiKey::Fetch, 3).await;
    assert!(cluster.resume_replication("t", 0));
    let answer = client.receive::<FetchRequest>(waiting, 12).await.unwrap();
    assert_eq!(fetched(&answer), (0, vec!["b".into(), "c".into()]));
    for (timestamp, offset) in [(-1, 3), (-3, 1), (later, 1)] {
        assert_eq!(offset_at(&mut client, 7, timestamp).await, (0, offset), "time {timestamp}");
    }
}

#[tokio::test]
async fn unknown_version_is_answered_in_zero() {
    let cluster = cluster(1, 1).await;
    let mut client = Client::connect(&cluster, 1).await;
    for version in 0..=4 {
        let answer = client.call(&ApiVersionsRequest::default(), version).await;
        let produce = answer.api_keys.iter().find(|key| key.api_key == ApiKey::Produce as i16).unwrap();
        assert_eq!((produce.min_version, produce.max_version), (0, 13));
    }
    // The request has version 99 and correlation id 5. The answer has version 0.
    client.send_frame(&[0, 18, 0, 99, 0, 0, 0, 5, 0xff, 0xff]).await;
    let answer: Bytes = client.frame().await.unwrap();
    assert_eq!(answer[..6], [0, 0, 0, 5, 0, 35]);
}

#[tokio::test]
async fn validated_topic_is_not_created() {
    let cluster = cluster(2, 1).await;
    let mut client = Client::connect(&cluster, 1).await;
    let topic =
        CreatableTopic::default().with_name(text("new").into()).with_num_partitions(-1).with_replication_factor(-1);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_validate_only(true);
    for version in 5..=7 {
        let answer = client.call(&request, version).await;
        let made = &answer.topics[0];
        assert_eq!((made.error_code, made.num_partitions, made.replication_factor), (0, 1, 2), "v{version}");
        let settings = made.configs.as_ref().unwrap();
        assert!(
            settings.iter().any(|s| s.name.as_str() == "max.message.bytes" && s.value.as_deref() == Some("1048588"))
        );
    }
    assert!(client.call(&request.with_validate_only(false), 7).await.topics[0].error_code == 0);
    assert_eq!(cluster.leader("new", 0), Some(1));
}
