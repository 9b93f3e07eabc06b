//! OffsetForLeaderEpoch, versions 2 to 4.

use kafka_protocol::messages as theirs;
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};

use super::{decoded, encoded, read_back, tags, topic, versions};
use crate::wire::offset_for_leader_epoch::{self, EpochEnd, EpochEndRequest};

#[test]
fn request_names_current_epoch_twice() {
    let request = EpochEndRequest { topic: "orders".into(), partition: 7, leader_epoch: 3 };
    for version in versions::<EpochEndRequest>() {
        let read: theirs::OffsetForLeaderEpochRequest = read_back(&request, version);
        // kafka-protocol's default for versions without the field is -2.
        let replica = if version >= 3 { -1 } else { -2 };
        assert_eq!((read.replica_id.0, read.topics.len()), (replica, 1), "version {version}");
        assert_eq!(&*read.topics[0].topic.0, "orders");
        let [part] = &read.topics[0].partitions[..] else { panic!("one partition is requested") };
        assert_eq!((part.partition, part.current_leader_epoch, part.leader_epoch), (7, 3, 3), "version {version}");
    }
}

#[test]
fn end_offsets_with_all_options() {
    for version in versions::<EpochEndRequest>() {
        for (code, leader_epoch, end_offset) in [(0, 3, i64::MAX), (0, 2, 40), (74, -1, -1)] {
            let part = EpochEndOffset::default().with_partition(7).with_error_code(code);
            let part = part.with_leader_epoch(leader_epoch).with_end_offset(end_offset);
            let part = if version >= 4 { part.with_unknown_tagged_fields(tags()) } else { part };
            let topic_answer = OffsetForLeaderTopicResult::default().with_topic(topic("orders"));
            let topic_answer = topic_answer.with_partitions(vec![part]).with_unknown_tagged_fields(tags());
            let answer = theirs::OffsetForLeaderEpochResponse::default().with_throttle_time_ms(4);
            let answer = answer.with_topics(vec![topic_answer]).with_unknown_tagged_fields(tags());
            let bytes = encoded(&answer, version);
            let decode = |bytes: &[u8]| offset_for_leader_epoch::decode(bytes, version);
            let read = decoded(&bytes, &["topics", "partitions"], decode);
            let expected = EpochEnd { topic: "orders".into(), partition: 7, code, leader_epoch, end_offset };
            assert_eq!(read, [expected], "version {version}");
        }
    }
}
