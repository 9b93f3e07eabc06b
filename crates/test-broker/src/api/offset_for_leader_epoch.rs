//! OffsetForLeaderEpoch, versions 2 to 4 (KIP-101, KIP-320).
//!
//! Rules: only the leader answers, and only under its own epoch. The current epoch ends at the end of the log, which may
//! be behind the high watermark.

use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::Call;
use crate::model::ClusterModel;

pub(super) fn answer(call: &Call<'_>, request: &OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
    let state = call.shared.lock();
    let topics = request.topics.iter().map(|topic| {
        let partitions =
            topic.partitions.iter().map(|asked| answer_partition(call, &state.cluster, &topic.topic, asked));
        OffsetForLeaderTopicResult::default().with_topic(topic.topic.clone()).with_partitions(partitions.collect())
    });
    OffsetForLeaderEpochResponse::default().with_throttle_time_ms(call.throttle_ms()).with_topics(topics.collect())
}

fn answer_partition(
    call: &Call<'_>,
    cluster: &ClusterModel,
    topic: &str,
    asked: &OffsetForLeaderPartition,
) -> EpochEndOffset {
    let response = EpochEndOffset::default().with_partition(asked.partition);
    if let Some(code) = call.refused() {
        return response.with_error_code(code);
    }
    let led = super::fetch::led_partition(cluster, topic, asked.partition, call.broker);
    let found = led.and_then(|partition| {
        super::fetch::check_epoch(partition, asked.current_leader_epoch)?;
        Ok(partition.end_of_epoch(asked.leader_epoch))
    });
    match found {
        Ok(Some((epoch, end))) => response.with_leader_epoch(epoch).with_end_offset(end),
        Ok(None) => response,
        Err(error) => response.with_error_code(error.code()),
    }
}
