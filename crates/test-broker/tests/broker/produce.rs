//! Tests of Produce over the wire.

use crate::support::{self, Client, batch, cluster, now_ms, produce_request, stamped};
use bytes::{Bytes, BytesMut};
use kafka_courier_batcher::{Compression, Stamp};
use kafka_courier_test_broker::{ErrorCode, TestCluster, TopicSpec};
use kafka_protocol::messages::{InitProducerIdRequest, MetadataRequest};

fn values(cluster: &TestCluster) -> Vec<String> {
    cluster.records("t").iter().map(|record| record.value_text().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn produced_records_are_readable() {
    let cluster = cluster(1, 2).await;
    let mut client = Client::connect(&cluster, 1).await;
    let now = now_ms();
    let records = stamped(None, &[(Some("k"), "v", now), (None, "w", now + 1)], Compression::None);
    let answer = client.produce(1, records).await;
    assert_eq!((answer.error_code, answer.base_offset, answer.log_append_time_ms), (0, 0, -1));
    let records = cluster.records("t");
    assert_eq!((records[0].partition, records[0].offset, records[0].timestamp), (1, 0, now));
    assert_eq!((records[0].key_text(), records[0].value_text()), (Some("k"), Some("v")));
    assert_eq!(records[0].headers, [("h".to_owned(), None)]);
    assert_eq!((records[1].offset, records[1].key.clone(), records[1].timestamp), (1, None, now + 1));
}

#[tokio::test]
async fn every_produce_version_is_answered() {
    let cluster = cluster(1, 1).await;
    let mut client = Client::connect(&cluster, 1).await;
    let metadata = client.call(&MetadataRequest::default().with_topics(None), 12).await;
    for (sequence, version) in (0..).zip(3..=13) {
        let mut request = produce_request(0, batch(0, sequence, &["v"]));
        if version >= 13 {
            request.topic_data[0].topic_id = metadata.topics[0].topic_id;
            request.topic_data[0].name = Default::default();
        }
        let answer = client.call(&request, version).await;
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (0, i64::from(sequence)), "v{version}");
    }
}

#[tokio::test]
async fn duplicate_batch_is_written_once() {
    let cluster = cluster(1, 1).await;
    let mut client = Client::connect(&cluster, 1).await;
    let first = client.produce(0, batch(0, 0, &["a", "b"])).await;
    client.produce(0, batch(0, 2, &["c"])).await;
    let again = client.produce(0, batch(0, 0, &["a", "b"])).await;
    assert_eq!((first.error_code, again.error_code, again.base_offset), (0, 0, 0));
    assert_eq!(values(&cluster), ["a", "b", "c"]);
}

#[tokio::test]
async fn gaps_and_old_epochs_are_refused() {
    let cluster = cluster(1, 1).await;
    let mut client = Client::connect(&cluster, 1).await;
    assert_eq!(client.produce(0, batch(1, 0, &["a"])).await.error_code, 0);
    let gap = client.produce(0, batch(1, 2, &["c"])).await;
    assert_eq!((gap.error_code, gap.base_offset), (ErrorCode::OutOfOrderSequenceNumber.code(), -1));
    assert_eq!(client.produce(0, batch(0, 1, &["b"])).await.error_code, ErrorCode::InvalidProducerEpoch.code());
    cluster.forget_producer_ids();
    assert_eq!(client.produce(0, batch(0, 9, &["j"])).await.error_code, 0);
}

#[tokio::test]
async fn strict_first_sequence_must_be_zero() {
    let cluster = TestCluster::builder().topic("t", 1).strict_first_sequence().start().await.unwrap();
    let mut client = Client::connect(&cluster, 1).await;
    assert_eq!(client.produce(0, batch(0, 1, &["b"])).await.error_code, ErrorCode::OutOfOrderSequenceNumber.code());
    assert_eq!(client.produce(0, batch(0, 0, &["a"])).await.error_code, 0);
}

#[tokio::test]
async fn size_precedes_crc_and_sequence() {
    let topic = TopicSpec::new("t", 1).config("max.message.bytes", "200");
    let cluster = TestCluster::builder().topic_spec(topic).start().await.unwrap();
    let mut client = Client::connect(&cluster, 1).await;
    assert_eq!(client.produce(0, batch(0, 0, &["a"])).await.error_code, 0);
    let damage = |bytes: Bytes| {
        let mut bytes = BytesMut::from(bytes);
        *bytes.last_mut().unwrap() ^= 1;
        bytes.freeze()
    };
    let long = "x".repeat(300);
    let large = client.produce(0, damage(batch(0, 77, &[&long]))).await;
    assert_eq!(large.error_code, ErrorCode::MessageTooLarge.code());
    let corrupt = client.produce(0, damage(batch(0, 77, &["a"]))).await;
    assert_eq!(corrupt.error_code, ErrorCode::CorruptMessage.code());
    // The first batch is already written. Its duplicate exceeds the lowered limit, so a refusal proves nothing about an
    // earlier attempt.
    cluster.set_topic_config("t", "max.message.bytes", "10").unwrap();
    assert_eq!(client.produce(0, batch(0, 0, &["a"])).await.error_code, ErrorCode::MessageTooLarge.code());
}

#[tokio::test]
async fn batch_over_segment_size_is_refused() {
    let topic = TopicSpec::new("t", 1).config("segment.bytes", "60");
    let cluster = TestCluster::builder().topic_spec(topic).start().await.unwrap();
    let mut client = Client::connect(&cluster, 1).await;
    assert_eq!(client.produce(0, batch(0, 0, &["a"])).await.error_code, ErrorCode::RecordListTooLarge.code());
}

#[tokio::test]
async fn rejected_records_are_named_by_index() {
    let topic = TopicSpec::new("t", 1).config("cleanup.policy", "compact");
    let cluster = TestCluster::builder().topic_spec(topic).start().await.unwrap();
    let mut client = Client::connect(&cluster, 1).await;
    let now = now_ms();
    let records = [(Some("k"), "a", now), (None, "b", now), (Some("k"), "c", now), (None, "d", now)];
    let answer = client.produce(0, stamped(None, &records, Compression::None)).await;
    assert_eq!(answer.error_code, ErrorCode::InvalidRecord.code());
    assert_eq!(answer.record_errors.iter().map(|error| error.batch_index).collect::<Vec<_>>(), [1, 3]);
    assert!(cluster.records("t").is_empty());
}

#[tokio::test]
async fn retention_deletes_old_records() {
    for (policy, left) in [("delete", 1), ("compact,delete", 1), ("compact", 2)] {
        let topic = TopicSpec::new("t", 1).config("cleanup.policy", policy).config("retention.ms", "60000");
        let cluster = TestCluster::builder().topic_spec(topic).start().await.unwrap();
        let mut client = Client::connect(&cluster, 1).await;
        for at in [now_ms() - 120_000, now_ms()] {
            let answer = client.produce(0, stamped(None, &[(Some("k"), "v", at)], Compression::None)).await;
            assert_eq!(answer.error_code, 0);
        }
        assert_eq!(cluster.records("t").len(), left, "{policy}");
    }
}

#[tokio::test]
async fn future_timestamps_are_refused() {
    let cluster = cluster(1, 1).await;
    let mut client = Client::connect(&cluster, 1).await;
    let now = now_ms();
    let records = [(None, "a", now), (None, "b", now + 7_200_000)];
    let answer = client.produce(0, stamped(None, &records, Compression::None)).await;
    assert_eq!(answer.error_code, ErrorCode::InvalidTimestamp.code());
    assert_eq!(answer.record_errors[0].batch_index, 1);
}

#[tokio::test]
async fn filter_refuses_records_with_reason() {
    let cluster = cluster(1, 1).await;
    cluster.reject_records(|record| (record.value_text() == Some("bad")).then(|| "it is bad".to_owned()));
    let mut client = Client::connect(&cluster, 1).await;
    let answer = client.produce(0, batch(0, 0, &["good", "bad"])).await;
    assert_eq!(answer.record_errors[0].batch_index, 1);
    assert_eq!(answer.record_errors[0].batch_index_error_message.as_deref(), Some("it is bad"));
    cluster.accept_records();
    assert_eq!(client.produce(0, batch(0, 0, &["good", "bad"])).await.error_code, 0);
}

#[tokio::test]
async fn log_append_time_replaces_timestamps() {
    let topic = TopicSpec::new("t", 1).config("message.timestamp.type", "LogAppendTime");
    let cluster = TestCluster::builder().topic_spec(topic).start().await.unwrap();
    let mut client = Client::connect(&cluster, 1).await;
    let records = stamped(None, &[(None, "old", 1), (None, "older", 0)], Compression::Snappy);
    let answer = client.produce(0, records).await;
    assert_eq!(answer.error_code, 0);
    let times: Vec<i64> = cluster.records("t").iter().map(|record| record.timestamp).collect();
    assert_eq!(times, [answer.log_append_time_ms; 2]);
    assert!(answer.log_append_time_ms > 1_700_000_000_000);
}

#[tokio::test]
async fn batches_keep_stamp_and_codec() {
    let cluster = cluster(1, 1).await;
    let mut client = Client::connect(&cluster, 1).await;
    let text = "again and again and ".repeat(50);
    let records: Vec<_> = (0..20).map(|_| (None, text.as_str(), now_ms())).collect();
    let stamp = Stamp { producer_id: 9, epoch: 3, base_sequence: 0 };
    client.produce(0, stamped(Some(stamp), &records, Compression::Snappy)).await;
    let batch = cluster.batches("t")[0];
    assert_eq!((batch.producer_id, batch.producer_epoch, batch.base_sequence), (9, 3, 0));
    assert_eq!((batch.record_count, batch.codec, batch.leader_epoch), (20, 2, 0));
    assert!(batch.size_bytes < text.len() * 20);
    assert_eq!(cluster.record_count("t"), 20);
}

#[tokio::test]
async fn follower_answers_with_the_leader() {
    let cluster = cluster(3, 1).await;
    assert_eq!(cluster.leader("t", 0), Some(1));
    assert!(cluster.move_leader("t", 0, 3));
    let mut client = Client::connect(&cluster, 1).await;
    let answer = client.call(&produce_request(0, batch(0, 0, &["a"])), 12).await;
    let partition = &answer.responses[0].partition_responses[0];
    assert_eq!(partition.error_code, ErrorCode::NotLeaderOrFollower.code());
    assert_eq!((partition.current_leader.leader_id.0, partition.current_leader.leader_epoch), (3, 1));
    assert_eq!(answer.node_endpoints[0].port, i32::from(cluster.address(3).unwrap().port()));
    let mut client = Client::connect(&cluster, 3).await;
    assert_eq!(client.produce(0, batch(0, 0, &["a"])).await.error_code, 0);
}

#[tokio::test]
async fn missing_replicas_prevent_the_append() {
    let topic = TopicSpec::new("t", 1).replication(2).config("min.insync.replicas", "2");
    let cluster = TestCluster::builder().brokers(2).topic_spec(topic).start().await.unwrap();
    assert!(cluster.kill(2).await);
    let mut client = Client::connect(&cluster, 1).await;
    assert_eq!(client.produce(0, batch(0, 0, &["a"])).await.error_code, ErrorCode::NotEnoughReplicas.code());
    assert!(cluster.restart(2).unwrap());
    assert_eq!(client.produce(0, batch(0, 0, &["a"])).await.error_code, 0);
}

#[tokio::test]
async fn retention_frees_full_logs() {
    let keep = TopicSpec::new("t", 1).config("retention.bytes", "1000");
    let cluster = TestCluster::builder().topic_spec(keep).max_log_bytes(2000).start().await.unwrap();
    let mut client = Client::connect(&cluster, 1).await;
    for sequence in 0..50 {
        assert_eq!(client.produce(0, batch(0, sequence, &["a"])).await.error_code, 0);
    }
    assert_eq!(cluster.record_count("t"), 50);
    assert!(cluster.records("t").len() < 10);
    cluster.set_topic_config("t", "retention.bytes", "-1").unwrap();
    let codes = async |client: &mut Client| {
        let mut codes = Vec::new();
        for sequence in 50..70 {
            codes.push(client.produce(0, batch(0, sequence, &["a"])).await.error_code);
        }
        codes
    };
    let codes = codes(&mut client).await;
    assert_eq!(codes[0], 0);
    assert!(codes.contains(&ErrorCode::KafkaStorageError.code()), "{codes:?}");
}

#[tokio::test]
async fn malformed_batch_is_refused() {
    let cluster = cluster(1, 1).await;
    let mut client = Client::connect(&cluster, 1).await;
    let twice = [batch(0, 0, &["a"]), batch(0, 1, &["b"])].concat();
    for (bytes, code) in [
        (Bytes::new(), ErrorCode::InvalidRecord),
        (Bytes::from_static(b"not a batch"), ErrorCode::InvalidRecord),
        (twice.into(), ErrorCode::InvalidRecord),
        (vec![0xff; 200].into(), ErrorCode::CorruptMessage),
    ] {
        assert_eq!(client.produce(0, bytes).await.error_code, code.code());
    }
    assert_eq!(client.produce(7, batch(0, 0, &["a"])).await.error_code, ErrorCode::UnknownTopicOrPartition.code());
    assert!(cluster.records("t").is_empty());
}

#[tokio::test]
async fn every_producer_id_is_new() {
    let cluster = cluster(1, 1).await;
    let mut client = Client::connect(&cluster, 1).await;
    let mut ids = Vec::new();
    for version in 0..=5 {
        let request = InitProducerIdRequest::default().with_transactional_id(None);
        let answer = client.call(&request.with_producer_id((-1).into()).with_producer_epoch(-1), version).await;
        assert_eq!((answer.error_code, answer.producer_epoch), (0, 0));
        ids.push(answer.producer_id.0);
    }
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    let transactional = InitProducerIdRequest::default().with_transactional_id(Some(support::text("tx").into()));
    assert_eq!(client.call(&transactional, 2).await.error_code, ErrorCode::InvalidRequest.code());
}
