//! DescribeProducers, version 0.

use kafka_protocol::messages as theirs;
use kafka_protocol::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};

use super::{decoded, encoded, read_back, tags, topic};
use crate::wire::describe_producers::{self, ActiveProducer, DescribedPartition};

#[test]
fn request_is_for_one_partition() {
    let request = describe_producers::DescribeProducersRequest { topic: "orders".into(), partition: 7 };
    let read: theirs::DescribeProducersRequest = read_back(&request, 0);
    assert_eq!(read.topics.len(), 1);
    assert_eq!((&*read.topics[0].name.0, &read.topics[0].partition_indexes[..]), ("orders", &[7][..]));
}

/// The time of a producer's last record, in ms since the Unix epoch.
const LAST_MS: i64 = 1_700_000_000_000;

fn producers(code: i16, producers: &[ActiveProducer]) -> Vec<u8> {
    let state = |producer: &ActiveProducer| {
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
fn producers_are_read_with_all_options() {
    let some = [
        ActiveProducer { id: 7, epoch: 3, last_sequence: i32::MAX, last_timestamp: LAST_MS },
        ActiveProducer { id: i64::MAX, epoch: i32::from(i16::MAX), last_sequence: -1, last_timestamp: LAST_MS },
    ];
    for (code, expected) in [(0, &some[..]), (6, &[])] {
        let bytes = producers(code, expected);
        let arrays = ["topics", "partitions", "producers"];
        let read = decoded(&bytes, &arrays, |bytes| describe_producers::decode(bytes, 0));
        let expected = DescribedPartition { topic: "orders".into(), partition: 7, code, producers: expected.to_vec() };
        assert_eq!(read, [expected]);
    }
}
