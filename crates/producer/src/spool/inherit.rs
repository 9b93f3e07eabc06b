//! The batches of earlier processes: which of their records are still to be sent, and under which stamp.
//!
//! Rules:
//!  - A settled record is not sent again. The parts between settled records become separate batches, and so do the parts of
//!    separate runs of stamps.
//!  - A record keeps the stamp under which an earlier process may have sent it.
//!  - A stamp holds for one topic id. Records that may be in a deleted topic are unknown. The others are sent to the topic
//!    that has its name now.

use std::collections::BTreeSet;
use std::ops::Range;

use kafka_courier_batcher::{DecodeError, EncodedBatch};
use kafka_courier_client::TopicUuid;
use kafka_courier_idempotent_sender::core::{FailedOutcome, InheritedStamp};
use kafka_courier_spool::core::entry::{BatchHead, Ordinal};
use kafka_courier_spool::core::stamps::{run_of, stamp_at};
use kafka_courier_spool::core::table::{PartitionTable, Table};

/// The id of a topic whose brokers send none.
pub(crate) const NO_TOPIC_ID: TopicUuid = [0; 16];

/// The decision about a batch of an earlier process, once the cluster has named its topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Resumption {
    /// The batch is sent.
    Send,
    /// The batch waits: the cluster's answer is older than the topic's partition.
    Wait,
    /// The batch fails.
    Fail(FailedOutcome),
}

/// Returns the decision about a batch: `stored_for` is the topic's id when the batch was stored, `present` its id now,
/// `has_partition` whether the topic has the batch's partition now, and `is_inherited` whether an earlier process may have sent
/// the batch. Kafka removes no partition of a topic.
pub(crate) fn resumption(
    stored_for: TopicUuid,
    present: Option<TopicUuid>,
    has_partition: bool,
    is_inherited: bool,
) -> Resumption {
    let is_other = present.is_some_and(|present| stored_for != NO_TOPIC_ID && stored_for != present);
    let is_same = !is_other && present == Some(stored_for);
    match (has_partition, is_inherited) {
        (false, _) if is_same => Resumption::Wait,
        (false, true) => Resumption::Fail(FailedOutcome::Unknown),
        (false, false) => Resumption::Fail(FailedOutcome::NotWritten),
        (true, true) if is_other => Resumption::Fail(FailedOutcome::Unknown),
        (true, _) => Resumption::Send,
    }
}

/// Returns the parts of a batch whose records are unsettled, have no gap between them, and belong to one run of stamps. The
/// parts are ranges of the records' indexes in the batch.
pub(crate) fn unsettled_parts(state: &PartitionTable, head: &BatchHead) -> Vec<Range<u32>> {
    if is_one_part(state, head) {
        return std::iter::once(0..head.count).collect();
    }
    let mut parts: Vec<Range<u32>> = Vec::new();
    let mut part_run = None;
    for index in 0..head.count {
        let ordinal = head.first.plus(index.into());
        if ordinal < state.settled || state.is_out(ordinal) {
            continue;
        }
        let run = run_of(state, ordinal).map(|run| run.from);
        match parts.last_mut() {
            Some(part) if part.end == index && run == part_run => part.end += 1,
            _ => parts.push(index..index + 1),
        }
        part_run = run;
    }
    parts
}

/// Returns whether nothing divides the records of a batch, and all of them are unsettled.
fn is_one_part(state: &PartitionTable, head: &BatchHead) -> bool {
    let (first, end) = (head.first, head.end());
    let is_unsettled =
        first >= state.settled && state.done.count_within(first, end) == 0 && state.lost.count_within(first, end) == 0;
    let within = first.plus(1)..end.max(first.plus(1));
    is_unsettled && state.moves.range(within.clone()).next().is_none() && state.begins.range(within).next().is_none()
}

/// Returns the batch of the records of a part alone.
///
/// # Errors
///
/// The bytes are no batch, or the batch has no such records.
pub(crate) fn batch_of_part(bytes: &[u8], count: u32, part: &Range<u32>) -> Result<EncodedBatch, DecodeError> {
    let whole = EncodedBatch::from_bytes(bytes.to_vec())?;
    if whole.record_count() != count {
        return Err(DecodeError::BadCount);
    }
    if *part == (0..count) {
        return Ok(whole);
    }
    let others: Vec<u32> = (0..count).filter(|index| !part.contains(index)).collect();
    whole.without(&others)?.ok_or(DecodeError::BadCount)
}

/// Returns the producer ids of the partitions with unsettled records, or of all partitions while a process publishes.
pub(crate) fn held_producer_ids(table: &Table, has_publisher: bool) -> BTreeSet<i64> {
    let partitions = table.partitions.values().filter(|state| has_publisher || !state.is_drained());
    partitions.flat_map(PartitionTable::producer_ids).collect()
}

/// Returns the stamp under which an earlier process may have sent the record `first` and those after it.
pub(crate) fn inherited_stamp(state: &PartitionTable, first: Ordinal) -> Option<InheritedStamp> {
    let (stamp, run) = (stamp_at(state, first)?, run_of(state, first)?);
    let search_from = Some(state.end_offset).filter(|offset| *offset >= 0);
    // Records that the move did not skip failed under its stamps, and no later move followed: they are unknown.
    let follows_unknown = run.has_out;
    // An epoch begins at 0, so that a run with another first number continues a run that is settled or in doubt before it.
    let is_acknowledged = run.has_settled || run.stamp.base_sequence != 0;
    let leader_epoch = state.leader_epoch;
    Some(InheritedStamp { stamp, search_from, is_acknowledged, follows_unknown, leader_epoch })
}
