//! ListOffsets, versions 1 to 9 (KIP-79, KIP-734).
//!
//! Rules: only the leader answers, and only under its own epoch (KIP-320). Both isolation levels have the same end
//! offset, because there are no transactions. Records behind the high watermark have no offset.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};

use super::Call;
use crate::model::{ClusterModel, MAX_UNCOMPRESSED, PartitionModel};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// The offset of the record with the latest timestamp (KIP-734).
const MAX_TIMESTAMP: i64 = -3;
/// The first offset on the leader's own disk (KIP-405). The leader stores the whole log.
const EARLIEST_LOCAL: i64 = -4;

pub(super) fn answer(call: &Call<'_>, request: &ListOffsetsRequest) -> ListOffsetsResponse {
    let state = call.shared.lock();
    let topics = request.topics.iter().map(|topic| {
        let partitions =
            topic.partitions.iter().map(|asked| answer_partition(call, &state.cluster, &topic.name, asked));
        ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
    });
    ListOffsetsResponse::default().with_throttle_time_ms(call.throttle_ms()).with_topics(topics.collect())
}

fn answer_partition(
    call: &Call<'_>,
    cluster: &ClusterModel,
    topic: &str,
    asked: &ListOffsetsPartition,
) -> ListOffsetsPartitionResponse {
    let response = ListOffsetsPartitionResponse::default().with_partition_index(asked.partition_index);
    let partition = match super::fetch::led_partition(cluster, topic, asked.partition_index, call.broker) {
        Ok(partition) => partition,
        Err(error) => return response.with_error_code(error.code()),
    };
    if let Some(code) = call.refused() {
        return response.with_error_code(code);
    }
    // Versions before 4 have no epoch field, and the decoder's default is -1.
    let found = super::fetch::check_epoch(partition, asked.current_leader_epoch);
    match found.and_then(|()| find(partition, asked.timestamp)) {
        Ok(Some((offset, timestamp))) => {
            response.with_offset(offset).with_timestamp(timestamp).with_leader_epoch(leader_epoch(call, partition))
        }
        Ok(None) => response,
        Err(error) => response.with_error_code(error.code()),
    }
}

fn leader_epoch(call: &Call<'_>, partition: &PartitionModel) -> i32 {
    if call.version >= 4 { partition.leader_epoch } else { -1 }
}

fn find(partition: &PartitionModel, timestamp: i64) -> Result<Option<(i64, i64)>, ResponseError> {
    let log = &partition.log;
    let is_readable = |(offset, _): &(i64, i64)| *offset < partition.high_watermark();
    match timestamp {
        LATEST => Ok(Some((partition.high_watermark(), -1))),
        EARLIEST | EARLIEST_LOCAL => Ok(Some((log.start_offset(), -1))),
        MAX_TIMESTAMP => Ok(log.find_latest_time(MAX_UNCOMPRESSED).filter(is_readable)),
        0.. => Ok(log.find_time(timestamp, MAX_UNCOMPRESSED).filter(is_readable)),
        _ => Err(ResponseError::UnsupportedVersion),
    }
}
