//! Fetch, versions 4 to 16, as consumers use it (KIP-74, KIP-227, KIP-320, KIP-516, KIP-951).
//!
//! Rules:
//! - There are no fetch sessions. Every answer is full and has session id 0, like the answers of a broker with a full
//!   session cache.
//! - An answer contains whole batches only, and at least one if there is any.
//! - An answer ends at the high watermark.
//! - A repeated partition is answered once.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{FetchRequest, FetchResponse};

use super::Call;
use crate::model::{ClusterModel, PartitionModel};

/// The first version that names topics by their ids.
const BY_TOPIC_ID: i16 = 13;
/// The maximum bytes of records in one answer. Only the first batch may exceed this limit.
pub(crate) const MAX_ANSWER: usize = 8 << 20;

/// Returns an answer, and whether the answer should wait for more records.
pub(super) fn answer(call: &Call<'_>, request: &FetchRequest) -> (FetchResponse, bool) {
    let response = FetchResponse::default().with_throttle_time_ms(call.throttle_ms());
    if let Some(code) = call.refused() {
        return (refused(call, request, response, code), false);
    }
    let mut reading = Reading {
        left: usize::try_from(request.max_bytes).unwrap_or(0).min(MAX_ANSWER),
        read: 0,
        failed: false,
        seen: BTreeSet::new(),
    };
    let state = call.shared.lock();
    let topics = request.topics.iter().map(|topic| answer_topic(call, &state.cluster, topic, &mut reading));
    let response = response.with_responses(topics.collect());
    let enough = reading.failed || reading.read >= usize::try_from(request.min_bytes).unwrap_or(0);
    (response, !enough)
}

/// The state of an answer in progress.
struct Reading {
    left: usize,
    read: usize,
    failed: bool,
    seen: BTreeSet<(String, i32)>,
}

/// Answers with an error. Versions before 7 carry errors at the partitions only.
fn refused(call: &Call<'_>, request: &FetchRequest, mut response: FetchResponse, code: i16) -> FetchResponse {
    if call.version >= 7 {
        return response.with_error_code(code);
    }
    for topic in &request.topics {
        let partitions = topic.partitions.iter().map(|asked| failed(asked.partition, code));
        response.responses.push(
            FetchableTopicResponse::default().with_topic(topic.topic.clone()).with_partitions(partitions.collect()),
        );
    }
    response
}

fn answer_topic(
    call: &Call<'_>,
    cluster: &ClusterModel,
    topic: &FetchTopic,
    reading: &mut Reading,
) -> FetchableTopicResponse {
    let by_id = call.version >= BY_TOPIC_ID;
    let name = if by_id { cluster.name_of(topic.topic_id) } else { Some(topic.topic.as_str()) };
    let mut partitions = Vec::new();
    for asked in &topic.partitions {
        let Some(name) = name else {
            reading.failed = true;
            partitions.push(failed(asked.partition, ResponseError::UnknownTopicId.code()));
            continue;
        };
        if reading.seen.insert((name.to_owned(), asked.partition)) {
            let led = led_partition(cluster, name, asked.partition, call.broker);
            partitions.push(answer_partition(led, asked, reading));
        }
    }
    let response = FetchableTopicResponse::default().with_partitions(partitions);
    if by_id { response.with_topic_id(topic.topic_id) } else { response.with_topic(topic.topic.clone()) }
}

/// Returns a partition if this broker leads it.
pub(super) fn led_partition<'c>(
    cluster: &'c ClusterModel,
    topic: &str,
    index: i32,
    broker: i32,
) -> Result<&'c PartitionModel, ResponseError> {
    served_partition(cluster, topic, index, |partition| partition.leader == Some(broker))
}

/// Returns a partition if this broker serves it, according to `serves`.
pub(super) fn served_partition<'c>(
    cluster: &'c ClusterModel,
    topic: &str,
    index: i32,
    serves: impl FnOnce(&PartitionModel) -> bool,
) -> Result<&'c PartitionModel, ResponseError> {
    let partition = cluster.partition(topic, index).ok_or(ResponseError::UnknownTopicOrPartition)?;
    if serves(partition) { Ok(partition) } else { Err(ResponseError::NotLeaderOrFollower) }
}

fn answer_partition(
    led: Result<&PartitionModel, ResponseError>,
    asked: &FetchPartition,
    reading: &mut Reading,
) -> PartitionData {
    let result = led.and_then(|partition| {
        check_epoch(partition, asked.current_leader_epoch)?;
        let max = usize::try_from(asked.partition_max_bytes).unwrap_or(0).min(reading.left);
        let may_read = reading.read == 0 || max > 0;
        let batches = partition.read(asked.fetch_offset, max).ok_or(ResponseError::OffsetOutOfRange)?;
        // Only the first batch of an answer may exceed the requested size.
        let fits = batches.first().is_none_or(|batch| reading.read == 0 || batch.len() <= max);
        Ok((partition, if may_read && fits { join(&batches) } else { Bytes::new() }))
    });
    match result {
        Ok((partition, records)) => {
            reading.read += records.len();
            reading.left = reading.left.saturating_sub(records.len());
            described(asked.partition, partition).with_records(Some(records))
        }
        Err(error) => {
            reading.failed = true;
            failed(asked.partition, error.code())
        }
    }
}

/// Checks the leader epoch of a request against the partition's (KIP-320). The epoch -1 always passes. A client's
/// metadata may be older or newer than the leader's.
pub(super) fn check_epoch(partition: &PartitionModel, asked: i32) -> Result<(), ResponseError> {
    match asked {
        -1 => Ok(()),
        _ if asked < partition.leader_epoch => Err(ResponseError::FencedLeaderEpoch),
        _ if asked > partition.leader_epoch => Err(ResponseError::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}

fn join(batches: &[Bytes]) -> Bytes {
    let mut joined = BytesMut::with_capacity(batches.iter().map(Bytes::len).sum());
    batches.iter().for_each(|batch| joined.extend_from_slice(batch));
    joined.freeze()
}

fn described(index: i32, partition: &PartitionModel) -> PartitionData {
    PartitionData::default()
        .with_partition_index(index)
        .with_high_watermark(partition.high_watermark())
        .with_last_stable_offset(partition.high_watermark())
        .with_log_start_offset(partition.log.start_offset())
        .with_aborted_transactions(None)
}

fn failed(index: i32, code: i16) -> PartitionData {
    PartitionData::default()
        .with_partition_index(index)
        .with_error_code(code)
        .with_high_watermark(-1)
        .with_aborted_transactions(None)
        .with_records(Some(Bytes::new()))
}
