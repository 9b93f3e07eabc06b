//! Fetch, versions 5 to 13, and ListOffsets, versions 1 to 7.

use std::time::Duration;

use kafka_protocol::messages as theirs;
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, PartitionData, SnapshotId,
};
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};

use super::{UUIDS, decoded, encoded, read_back, tags, topic, versions};
use crate::wire::fetch::{self, FetchRequest, FetchedPart};
use crate::wire::list_offsets::{self, EARLIEST, LATEST, ListOffsetsRequest, ListedOffset};

#[test]
fn fetch_request_has_no_session() {
    let request = FetchRequest {
        topic: "orders".into(),
        topic_uuid: Some(UUIDS[2]),
        partition: 7,
        leader_epoch: Some(3),
        offset: 1 << 40,
        max_bytes: 1 << 20,
        max_wait: Duration::from_millis(500),
    };
    for version in versions::<FetchRequest>() {
        let read: theirs::FetchRequest = read_back(&request, version);
        assert_eq!((read.replica_id.0, read.max_wait_ms, read.min_bytes, read.max_bytes), (-1, 500, 1, 1 << 20));
        assert_eq!((read.isolation_level, read.session_id, read.session_epoch), (0, 0, -1));
        assert_eq!((read.topics.len(), read.forgotten_topics_data.len(), &*read.rack_id), (1, 0, ""));
        let asked = &read.topics[0];
        let name = if version >= 13 { ("", UUIDS[2]) } else { ("orders", [0; 16]) };
        assert_eq!((&*asked.topic.0, *asked.topic_id.as_bytes()), name, "version {version}");
        let epoch = if version >= 9 { 3 } else { -1 };
        let part = &asked.partitions[0];
        assert_eq!((part.partition, part.current_leader_epoch, part.fetch_offset), (7, epoch, 1 << 40));
        assert_eq!((part.last_fetched_epoch, part.log_start_offset, part.partition_max_bytes), (-1, -1, 1 << 20));
    }
}

fn part(version: i16, code: i16, records: Option<&'static [u8]>) -> PartitionData {
    let part = PartitionData::default().with_partition_index(7).with_error_code(code).with_high_watermark(90);
    let part = part.with_last_stable_offset(80).with_log_start_offset(40).with_records(records.map(Into::into));
    let aborted = AbortedTransaction::default().with_producer_id(5.into()).with_first_offset(50);
    let part = part.with_aborted_transactions(Some(vec![aborted.with_unknown_tagged_fields(tags())]));
    let part = if version >= 11 { part.with_preferred_read_replica(3.into()) } else { part };
    if version < 12 {
        return part;
    }
    let part = part.with_diverging_epoch(EpochEndOffset::default().with_epoch(2).with_end_offset(60));
    let part = part.with_current_leader(LeaderIdAndEpoch::default().with_leader_id(2.into()).with_leader_epoch(9));
    let part = part.with_snapshot_id(SnapshotId::default().with_epoch(1).with_end_offset(2));
    part.with_unknown_tagged_fields(tags())
}

fn answer(version: i16, code: i16, parts: Vec<PartitionData>) -> Vec<u8> {
    let mut topic_answer = FetchableTopicResponse::default().with_partitions(parts);
    if version >= 13 {
        topic_answer = topic_answer.with_topic_id(UUIDS[2].to_vec().try_into().unwrap());
    } else {
        topic_answer = topic_answer.with_topic(topic("orders"));
    }
    let answer = theirs::FetchResponse::default().with_throttle_time_ms(4);
    let answer = answer.with_responses(vec![topic_answer.with_unknown_tagged_fields(tags())]);
    let answer = if version >= 7 { answer.with_error_code(code).with_session_id(11) } else { answer };
    encoded(&answer.with_unknown_tagged_fields(tags()), version)
}

#[test]
fn fetch_answer_with_all_options() {
    for version in versions::<FetchRequest>() {
        for (code, records) in [(0, Some(&b"batches"[..])), (0, Some(&[])), (1, None)] {
            let bytes = answer(version, 0, vec![part(version, code, records)]);
            let arrays = ["topics", "partitions", "aborted transactions", "records"];
            let read = decoded(&bytes, &arrays, |bytes| fetch::decode(bytes, version));
            let records = records.unwrap_or_default().to_vec();
            let expected = FetchedPart { index: 7, code, high_watermark: 90, log_start: 40, records };
            assert_eq!(read, (0, vec![expected]), "version {version}");
        }
    }
}

#[test]
fn top_level_fetch_error_is_read() {
    for version in versions::<FetchRequest>().filter(|version| *version >= 7) {
        let read = fetch::decode(&answer(version, 100, Vec::new()), version);
        assert_eq!(read, Ok((100, Vec::new())), "version {version}");
    }
}

#[test]
fn offset_request_for_start_and_end() {
    for (timestamp, expected) in [(LATEST, -1), (EARLIEST, -2)] {
        let request = ListOffsetsRequest { topic: "orders".into(), partition: 7, leader_epoch: Some(3), timestamp };
        for version in versions::<ListOffsetsRequest>() {
            let read: theirs::ListOffsetsRequest = read_back(&request, version);
            assert_eq!((read.replica_id.0, read.isolation_level, read.topics.len()), (-1, 0, 1));
            assert_eq!(&*read.topics[0].name.0, "orders");
            let part = &read.topics[0].partitions[0];
            let epoch = if version >= 4 { 3 } else { -1 };
            assert_eq!((part.partition_index, part.current_leader_epoch, part.timestamp), (7, epoch, expected));
        }
    }
}

#[test]
fn offsets_are_read_with_all_options() {
    for version in versions::<ListOffsetsRequest>() {
        for (code, offset) in [(0, i64::MAX), (78, -1)] {
            let part = ListOffsetsPartitionResponse::default().with_partition_index(7).with_error_code(code);
            let part = part.with_timestamp(-1).with_offset(offset).with_unknown_tagged_fields(tags());
            let part = if version >= 4 { part.with_leader_epoch(9) } else { part };
            let topic_answer = ListOffsetsTopicResponse::default().with_name(topic("orders"));
            let topic_answer = topic_answer.with_partitions(vec![part]).with_unknown_tagged_fields(tags());
            let answer = theirs::ListOffsetsResponse::default().with_topics(vec![topic_answer]);
            let answer = if version >= 2 { answer.with_throttle_time_ms(4) } else { answer };
            let bytes = encoded(&answer.with_unknown_tagged_fields(tags()), version);
            let read = decoded(&bytes, &["topics", "partitions"], |bytes| list_offsets::decode(bytes, version));
            let expected = ListedOffset { topic: "orders".into(), partition: 7, code, offset };
            assert_eq!(read, [expected], "version {version}");
        }
    }
}
