//! Produce, versions 3 to 13.

use std::io::Cursor;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier_batcher::{Accumulator, BufferPool, Compression, EncodedBatch, Limits, Record, Stamp};
use kafka_protocol::messages as theirs;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use rskafka::protocol::api_version::ApiVersion;
use rskafka::protocol::messages::{ReadVersionedType, WriteVersionedError, WriteVersionedType};
use rskafka::protocol::primitives::Int16;

use super::{UUIDS, decoded, encoded, read_back, tags, topic, versions};
use crate::ids::{BrokerAddress, BrokerId, PartitionId, TopicId};
use crate::wire::messenger::Produced;
use crate::wire::produce::{PartAnswer, PartKey, ProduceAnswer, ProducePart, ProduceRequest, ProduceResponse};
use crate::wire::splice::CorrelationId;
use crate::wire::splice::tests::whole;

const NAMES: [&str; 3] = ["orders", "payments", "refunds"];

fn batch(value: &str) -> Arc<EncodedBatch> {
    let limits = Limits { max_records: 10, max_bytes: 1 << 20, linger: Duration::ZERO };
    let pool = BufferPool::new(0);
    let mut accumulator = Accumulator::new(limits, Compression::None);
    let record = Record { key: None, value: Some(value.as_bytes()), headers: &[], timestamp: 1_700_000_000_000 };
    accumulator.push(Instant::now(), &record, &mut |_| true, &pool, || ()).unwrap();
    let mut batch = accumulator.seal().unwrap().encode(&pool).batch;
    batch.stamp(Stamp { producer_id: 7, epoch: 0, base_sequence: 3 });
    Arc::new(batch)
}

fn part(topic: usize, index: i32) -> ProducePart {
    ProducePart {
        partition: PartitionId { topic: TopicId(u32::try_from(topic).unwrap()), index },
        topic: NAMES[topic].into(),
        topic_uuid: Some(UUIDS[topic]),
        // More than 128 bytes, so that the compact length takes two bytes.
        batch: batch(&format!("{topic}/{index}").repeat(60)),
    }
}

fn keys(parts: &[(usize, i32)]) -> Vec<PartKey> {
    parts.iter().map(|(topic, index)| PartKey::of(&part(*topic, *index))).collect()
}

fn request(timeout: Duration, parts: Vec<ProducePart>) -> Whole {
    Whole(ProduceRequest { timeout, parts, pending: Arc::default() })
}

/// A request with its batches in their places, as on the wire.
struct Whole(ProduceRequest);

impl WriteVersionedType<Vec<u8>> for Whole {
    fn write_versioned(&self, out: &mut Vec<u8>, version: ApiVersion) -> Result<(), WriteVersionedError> {
        let mut without = Vec::new();
        self.0.write_versioned(&mut without, version)?;
        out.extend(whole(&without, &self.0.pending.take(CorrelationId::default())));
        Ok(())
    }
}

#[test]
fn request_groups_parts_by_topic() {
    let parts = [(1, 0), (0, 5), (1, 2), (0, 1), (2, 0)].map(|(topic, index)| part(topic, index)).to_vec();
    let request = request(Duration::from_millis(8_000), parts);
    for version in versions::<ProduceRequest>() {
        let read: theirs::ProduceRequest = read_back(&request, version);
        assert_eq!((read.transactional_id, read.acks, read.timeout_ms), (None, -1, 8_000));
        let expected = [(0, &[1, 5][..]), (1, &[0, 2]), (2, &[0])];
        assert_eq!(read.topic_data.len(), expected.len());
        for (read, (topic, indexes)) in read.topic_data.iter().zip(expected) {
            if version >= 13 {
                assert_eq!(read.topic_id.as_bytes(), &UUIDS[topic]);
            } else {
                assert_eq!(&*read.name.0, NAMES[topic]);
            }
            let found: Vec<i32> = read.partition_data.iter().map(|data| data.index).collect();
            assert_eq!(found, indexes);
            for data in &read.partition_data {
                assert_eq!(data.records.as_deref().unwrap(), part(topic, data.index).batch.as_bytes());
            }
        }
    }
}

#[test]
fn long_timeout_is_capped() {
    let request = request(Duration::MAX, vec![part(0, 0)]);
    assert_eq!(read_back::<theirs::ProduceRequest>(&request, 13).timeout_ms, i32::MAX);
}

/// A success, a refusal with each option of the version, and an error with null options.
fn partitions(version: i16) -> [(PartitionProduceResponse, PartAnswer); 3] {
    let theirs = |index, code, offset, time| {
        let response = PartitionProduceResponse::default().with_index(index).with_error_code(code);
        let response =
            response.with_base_offset(offset).with_log_append_time_ms(time).with_unknown_tagged_fields(tags());
        if version >= 5 { response.with_log_start_offset(9) } else { response }
    };
    let ours =
        |code, base_offset, log_append_time| PartAnswer { code, base_offset, log_append_time, ..Default::default() };
    let (mut full, mut expected) = (theirs(1, 87, -1, -1), ours(87, None, None));
    let mut none = theirs(2, 6, i64::MAX, -1);
    if version >= 8 {
        let rejected = BatchIndexAndErrorMessage::default().with_batch_index(3).with_unknown_tagged_fields(tags());
        let silent = rejected.clone().with_batch_index(i32::MAX).with_batch_index_error_message(None);
        let rejected = rejected.with_batch_index_error_message(Some("no key".into()));
        full = full.with_record_errors(vec![rejected, silent]).with_error_message(Some("bad records".into()));
        expected.record_errors = vec![(3, Some("no key".into())), (i32::MAX.cast_unsigned(), None)];
        expected.message = Some("bad records".into());
        none = none.with_error_message(None);
    }
    if version >= 10 {
        let leader = LeaderIdAndEpoch::default().with_leader_id(4.into()).with_leader_epoch(11);
        full = full.with_current_leader(leader.with_unknown_tagged_fields(tags()));
        expected.leader = Some((BrokerId(4), 11));
        none = none.with_current_leader(LeaderIdAndEpoch::default().with_leader_epoch(12));
    }
    [
        (theirs(0, 0, 42, 1_700_000_000_123), ours(0, Some(42), Some(1_700_000_000_123))),
        (full, expected),
        (none, ours(6, Some(i64::MAX), None)),
    ]
}

fn topic_answer(at: usize, version: i16, partitions: Vec<PartitionProduceResponse>) -> TopicProduceResponse {
    let answer =
        TopicProduceResponse::default().with_partition_responses(partitions).with_unknown_tagged_fields(tags());
    if version >= 13 {
        answer.with_topic_id(UUIDS[at].to_vec().try_into().unwrap())
    } else {
        answer.with_name(topic(NAMES[at]))
    }
}

fn endpoints() -> (Vec<NodeEndpoint>, Vec<BrokerAddress>) {
    let theirs = |id: i32, host: &'static str, port| {
        NodeEndpoint::default().with_node_id(id.into()).with_host(host.into()).with_port(port)
    };
    let full = theirs(4, "kafka-4.example.org", 65_535).with_rack(Some("b".into())).with_unknown_tagged_fields(tags());
    let ours = |id, host: &str, port| BrokerAddress { id: BrokerId(id), host: host.into(), port };
    let expected = vec![ours(4, "kafka-4.example.org", 65_535), ours(5, "::1", 1)];
    (vec![full, theirs(5, "::1", 1).with_rack(None)], expected)
}

/// Returns an answer with each option of its version, and its decoded form.
fn full_answer(version: i16) -> (Vec<u8>, ProduceAnswer) {
    let ([a, b, c], [(_, success), (_, refusal), (_, error)]) = (partitions(version), partitions(version));
    let topics = vec![topic_answer(1, version, vec![a.0, b.0]), topic_answer(0, version, vec![c.0])];
    let mut response = theirs::ProduceResponse::default().with_responses(topics).with_throttle_time_ms(250);
    response = response.with_unknown_tagged_fields(tags());
    let parts = vec![Some(error), Some(success), Some(refusal)];
    let mut expected = ProduceAnswer { throttle: Duration::from_millis(250), parts, brokers: Vec::new() };
    if version >= 10 {
        let (theirs, ours) = endpoints();
        response = response.with_node_endpoints(theirs);
        expected.brokers = ours;
    }
    (encoded(&response, version), expected)
}

#[test]
fn answer_is_read_with_all_options() {
    for version in versions::<ProduceRequest>() {
        let (bytes, expected) = full_answer(version);
        let arrays: &[&str] = match version {
            10.. => &["topics", "partitions", "record errors", "node endpoints"],
            8.. => &["topics", "partitions", "record errors"],
            _ => &["topics", "partitions"],
        };
        let request = keys(&[(0, 2), (1, 0), (1, 1)]);
        let decode = |bytes: &[u8]| Ok(ProduceResponse::decode(bytes, version)?.into_answer(&request));
        assert_eq!(decoded(&bytes, arrays, decode), expected, "version {version}");
    }
}

#[test]
fn answer_is_read_without_options() {
    for version in versions::<ProduceRequest>() {
        let bytes = encoded(&theirs::ProduceResponse::default(), version);
        let decode = |bytes: &[u8]| Ok(ProduceResponse::decode(bytes, version)?.into_answer(&keys(&[(0, 0)])));
        let expected = ProduceAnswer { parts: vec![None], ..Default::default() };
        assert_eq!(decoded(&bytes, &["topics"], decode), expected, "version {version}");
    }
}

#[test]
fn answer_follows_its_header() {
    for version in versions::<ProduceRequest>() {
        let (bytes, expected) = full_answer(version);
        let mut cursor = Cursor::new([b"header", bytes.as_slice()].concat());
        cursor.set_position(6);
        let answer = Produced::read_versioned(&mut cursor, ApiVersion(Int16(version))).unwrap().0;
        assert_eq!(cursor.position(), cursor.get_ref().len() as u64);
        assert_eq!(answer.into_answer(&keys(&[(0, 2), (1, 0), (1, 1)])), expected);
        assert!(Produced::read_versioned(&mut cursor, ApiVersion(Int16(version))).is_err());
        cursor.set_position(u64::MAX);
        assert!(Produced::read_versioned(&mut cursor, ApiVersion(Int16(version))).is_err());
    }
}

/// Returns the offsets that `into_answer` assigns to the parts of `request`, for an answer of (topic, partition,
/// offset).
fn offsets(version: i16, request: &[(usize, i32)], answer: &[(usize, i32, i64)]) -> Vec<Option<i64>> {
    let partition = |index, offset| PartitionProduceResponse::default().with_index(index).with_base_offset(offset);
    let topics = answer.iter().map(|(at, index, offset)| topic_answer(*at, version, vec![partition(*index, *offset)]));
    let bytes = encoded(&theirs::ProduceResponse::default().with_responses(topics.collect()), version);
    let answer = ProduceResponse::decode(&bytes, version).unwrap().into_answer(&keys(request));
    answer.parts.into_iter().map(|part| part.and_then(|part| part.base_offset)).collect()
}

#[test]
fn answers_follow_the_request_order() {
    for version in versions::<ProduceRequest>() {
        let found = offsets(version, &[(1, 0), (0, 5), (1, 2)], &[(0, 5, 50), (1, 2, 12), (1, 0, 10)]);
        assert_eq!(found, [Some(10), Some(50), Some(12)], "version {version}");
    }
}

#[test]
fn missing_and_strange_parts_are_none() {
    for version in versions::<ProduceRequest>() {
        let strange = [(2, 0, 20), (1, 7, 17), (0, -1, 1), (1, 0, 10)];
        assert_eq!(offsets(version, &[(0, 0), (1, 0)], &strange), [None, Some(10)], "version {version}");
        assert_eq!(offsets(version, &[], &strange), []);
    }
}

#[test]
fn first_of_two_answers_counts() {
    for version in versions::<ProduceRequest>() {
        assert_eq!(offsets(version, &[(0, 0)], &[(0, 0, 1), (0, 0, 2)]), [Some(1)], "version {version}");
    }
}

#[test]
fn negative_throttle_time_is_zero() {
    for version in versions::<ProduceRequest>() {
        let bytes = encoded(&theirs::ProduceResponse::default().with_throttle_time_ms(-1), version);
        let answer = ProduceResponse::decode(&bytes, version).unwrap().into_answer(&[]);
        assert_eq!(answer.throttle, Duration::ZERO);
    }
}
