//! One partition: its replicas, leader and log, and its leader's memory of producers.
//!
//! Rules:
//! - Checks run in a broker's order: leader, in-sync replicas, the batch's bytes, duplicates.
//! - Every change of leader raises the leader epoch, and so does the loss of a leader.
//! - Appends raise the high watermark, unless replication is paused. A change of leader resumes replication, because the
//!   new leader has all records.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::ResponseError;

use super::log::PartitionLog;
use super::producers::{KnownBatch, Producers, SequenceCheck};
use super::{CheckedBatch, ProduceError, TopicConfig};

/// A partition of a topic.
#[derive(Debug)]
pub(crate) struct PartitionModel {
    pub(crate) replicas: Vec<i32>,
    pub(crate) in_sync: Vec<i32>,
    pub(crate) leader: Option<i32>,
    pub(crate) leader_epoch: i32,
    pub(crate) log: PartitionLog,
    pub(crate) producers: Producers,
    /// The high watermark while replication is paused.
    held_at: Option<i64>,
    /// The end of the log when a replica last went down. The replica remembers one earlier batch of each producer id.
    reloaded_at: BTreeMap<i32, i64>,
}

/// The result of an append, or of finding the batch in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogAppendInfo {
    pub(crate) base_offset: i64,
    /// The leader's time under LogAppendTime, else -1. A duplicate has its own latest timestamp, as in Kafka's answer.
    pub(crate) log_append_time: i64,
    pub(crate) log_start_offset: i64,
    /// Whether the batch is before the high watermark.
    pub(crate) replicated: bool,
    /// The change of the log's charged bytes. Negative if retention removed more.
    pub(crate) grown: i64,
}

/// The inputs of an append besides partition and batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AppendContext<'a> {
    pub(crate) broker: i32,
    pub(crate) acks: i16,
    pub(crate) now_ms: i64,
    pub(crate) config: &'a TopicConfig,
    pub(crate) strict_first_sequence: bool,
    /// The bytes by which all logs together may still grow.
    pub(crate) room: usize,
}

impl PartitionModel {
    pub(crate) fn new(replicas: Vec<i32>, producer_limit: usize) -> Self {
        Self {
            in_sync: replicas.clone(),
            leader: replicas.first().copied(),
            replicas,
            leader_epoch: 0,
            log: PartitionLog::default(),
            producers: Producers::new(producer_limit),
            held_at: None,
            reloaded_at: BTreeMap::new(),
        }
    }

    /// Returns the end of the records that readers see.
    pub(crate) fn high_watermark(&self) -> i64 {
        self.held_at.map_or(self.log.end_offset(), |held| held.max(self.log.start_offset()))
    }

    /// Stops the high watermark, or lets it reach the end of the log again.
    pub(crate) fn hold_replication(&mut self, held: bool) {
        self.held_at = held.then(|| self.high_watermark());
    }

    /// Returns whole batches before the high watermark, as [`PartitionLog::read`].
    pub(crate) fn read(&self, offset: i64, max: usize) -> Option<Vec<Bytes>> {
        self.log.read(offset, self.high_watermark(), max)
    }

    /// Returns the end offset of a leader epoch, and the newest epoch with batches up to there. The current epoch ends
    /// at the end of the log. `None` means that the epoch is newer, or none.
    pub(crate) fn end_of_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        if epoch == self.leader_epoch {
            return Some((epoch, self.log.end_offset()));
        }
        let is_earlier = (0..self.leader_epoch).contains(&epoch);
        is_earlier.then(|| {
            let (newest, end) = self.log.end_of_epoch(epoch);
            (newest.unwrap_or(epoch), end)
        })
    }

    /// Appends a batch, or finds the batch in the log.
    pub(crate) fn append(
        &mut self,
        checked: Result<CheckedBatch, ProduceError>,
        at: AppendContext<'_>,
    ) -> Result<LogAppendInfo, ProduceError> {
        if self.leader != Some(at.broker) {
            return Err(ResponseError::NotLeaderOrFollower.into());
        }
        if at.acks == -1 && self.in_sync.len() < usize::try_from(at.config.min_insync_replicas).unwrap_or(0) {
            return Err(ResponseError::NotEnoughReplicas.into());
        }
        let batch = checked?;
        if let Some(known) = self.find_duplicate(&batch, at)? {
            return Ok(LogAppendInfo {
                base_offset: known.base_offset,
                log_append_time: known.timestamp,
                log_start_offset: self.log.start_offset(),
                replicated: known.last_offset < self.high_watermark(),
                grown: 0,
            });
        }
        if PartitionLog::charge_of(&batch) > at.room {
            tracing::warn!("log memory full: raise max_log_bytes or set retention.bytes");
            return Err(ProduceError::new(ResponseError::KafkaStorageError, "The limit max_log_bytes is reached"));
        }
        Ok(self.write(&batch, at))
    }

    fn find_duplicate(&self, batch: &CheckedBatch, at: AppendContext<'_>) -> Result<Option<KnownBatch>, ProduceError> {
        let Some(stamp) = batch.stamp else { return Ok(None) };
        let reloaded_at = self.reloaded_at.get(&at.broker).copied().unwrap_or(0);
        let strict = at.strict_first_sequence && self.log.end_offset() == 0;
        Ok(match self.producers.check_sequence(stamp, batch.records, reloaded_at, strict)? {
            SequenceCheck::Duplicate(known) => Some(known),
            SequenceCheck::New => None,
        })
    }

    fn write(&mut self, batch: &CheckedBatch, at: AppendContext<'_>) -> LogAppendInfo {
        let before = self.log.charged();
        let append_time = at.config.log_append_time.then_some(at.now_ms);
        let base_offset = self.log.append(batch, self.leader_epoch, append_time);
        if let Some(stamp) = batch.stamp {
            let known = KnownBatch {
                base_sequence: stamp.base_sequence,
                last_sequence: stamp.advance(batch.records.saturating_sub(1)).base_sequence,
                base_offset,
                last_offset: self.log.end_offset() - 1,
                timestamp: append_time.unwrap_or(batch.max_timestamp),
            };
            self.producers.record(stamp.producer_id, stamp.epoch, known);
        }
        if let Ok(bytes) = usize::try_from(at.config.retention_bytes) {
            self.log.retain(bytes);
        }
        if at.config.deletes && at.config.retention_ms >= 0 {
            self.log.expire(at.now_ms.saturating_sub(at.config.retention_ms));
        }
        LogAppendInfo {
            base_offset,
            log_append_time: append_time.unwrap_or(-1),
            log_start_offset: self.log.start_offset(),
            replicated: base_offset < self.high_watermark(),
            grown: self.log.charged() as i64 - before as i64,
        }
    }

    /// Makes an in-sync replica the leader. Returns whether the replica is in sync.
    pub(crate) fn move_leader(&mut self, to: i32) -> bool {
        let is_in_sync = self.in_sync.contains(&to);
        if is_in_sync && self.leader != Some(to) {
            self.change_leader(Some(to));
        }
        is_in_sync
    }

    /// Removes a dead broker from the in-sync replicas. The next in-sync replica takes over the leadership.
    pub(crate) fn broker_down(&mut self, broker: i32) {
        if !self.replicas.contains(&broker) {
            return;
        }
        self.reloaded_at.insert(broker, self.log.end_offset());
        // The last in-sync replica stays in the list, and no other replica leads before its return (no unclean
        // election).
        if self.in_sync.len() > 1 {
            self.in_sync.retain(|id| *id != broker);
        }
        if self.leader == Some(broker) {
            self.change_leader(self.in_sync.iter().copied().find(|id| *id != broker));
        }
    }

    fn change_leader(&mut self, to: Option<i32>) {
        self.leader = to;
        self.leader_epoch += 1;
        self.held_at = None;
    }

    /// Adds a restarted broker to the in-sync replicas. `alive` lists all live brokers, the restarted one included.
    pub(crate) fn broker_up(&mut self, broker: i32, alive: &[i32]) {
        if self.leader.is_none() && self.in_sync == [broker] {
            self.change_leader(Some(broker));
        }
        if self.leader.is_some() {
            let returned = self.replicas.iter().filter(|id| alive.contains(id) && !self.in_sync.contains(id));
            let returned: Vec<i32> = returned.copied().collect();
            self.in_sync.extend(returned);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition() -> PartitionModel {
        PartitionModel::new(vec![1, 2, 3], 10)
    }

    #[test]
    fn next_in_sync_replica_takes_over() {
        let mut partition = partition();
        partition.broker_down(1);
        assert_eq!((partition.leader, partition.leader_epoch), (Some(2), 1));
        partition.broker_up(1, &[1, 2, 3]);
        assert_eq!((partition.leader, partition.leader_epoch), (Some(2), 1));
        assert_eq!(partition.in_sync, [2, 3, 1]);
    }

    #[test]
    fn last_in_sync_replica_leads_again() {
        let mut partition = partition();
        (1..=3).for_each(|broker| partition.broker_down(broker));
        assert_eq!((partition.leader, partition.in_sync.clone()), (None, vec![3]));
        partition.broker_up(1, &[1]);
        assert_eq!(partition.leader, None);
        partition.broker_up(3, &[1, 3]);
        assert_eq!((partition.leader, partition.in_sync.clone()), (Some(3), vec![3, 1]));
    }

    #[test]
    fn new_leader_resumes_replication() {
        let mut partition = partition();
        partition.hold_replication(true);
        assert!(partition.held_at.is_some() && partition.move_leader(1));
        assert!(partition.held_at.is_some(), "the leader is the same");
        assert!(partition.move_leader(2));
        assert_eq!(partition.held_at, None);
    }

    #[test]
    fn epochs_end_where_newer_begin() {
        let mut partition = partition();
        partition.leader_epoch = 2;
        assert_eq!([-1, 0, 2, 3].map(|epoch| partition.end_of_epoch(epoch)), [None, Some((0, 0)), Some((2, 0)), None]);
    }

    #[test]
    fn out_of_sync_replica_never_leads() {
        let mut partition = partition();
        partition.broker_down(2);
        assert!(!partition.move_leader(2));
        assert!(partition.move_leader(3));
        assert_eq!((partition.leader, partition.leader_epoch), (Some(3), 1));
    }
}
