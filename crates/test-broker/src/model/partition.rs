//! One partition: its replicas, who leads, its log, and what its leader remembers of producers.
//!
//! Rules: checks come in a broker's order: leader, in-sync replicas, the batch's bytes, and only then whether it is a
//! duplicate; every change of leader raises the leader epoch, and so does having none.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;

use super::log::PartitionLog;
use super::producers::{KnownBatch, Producers, Verdict};
use super::{CheckedBatch, Refusal, TopicConfig};

/// A partition of a topic.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) replicas: Vec<i32>,
    pub(crate) in_sync: Vec<i32>,
    pub(crate) leader: Option<i32>,
    pub(crate) leader_epoch: i32,
    pub(crate) log: PartitionLog,
    pub(crate) producers: Producers,
    /// Where the log ended when a replica went down: what it knows of producers from before is one batch each.
    reloaded_at: BTreeMap<i32, i64>,
}

/// A batch is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) base_offset: i64,
    /// The leader's time, where the topic wants it; for a duplicate its latest timestamp, as Kafka answers. Else -1.
    pub(crate) log_append_time: i64,
    pub(crate) log_start_offset: i64,
    /// Bytes that the log has grown by; negative if retention took more.
    pub(crate) grown: i64,
}

/// What an append depends on besides partition and batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AppendContext<'a> {
    pub(crate) broker: i32,
    pub(crate) acks: i16,
    pub(crate) now_ms: i64,
    pub(crate) config: &'a TopicConfig,
    pub(crate) strict_first_sequence: bool,
    /// Bytes that all logs may still grow by.
    pub(crate) room: usize,
}

impl Partition {
    pub(crate) fn new(replicas: Vec<i32>, producer_limit: usize) -> Self {
        Self {
            in_sync: replicas.clone(),
            leader: replicas.first().copied(),
            replicas,
            leader_epoch: 0,
            log: PartitionLog::default(),
            producers: Producers::new(producer_limit),
            reloaded_at: BTreeMap::new(),
        }
    }

    /// Appends a batch, or finds it in the log, or says why not.
    pub(crate) fn append(
        &mut self,
        checked: Result<CheckedBatch, Refusal>,
        at: AppendContext<'_>,
    ) -> Result<Appended, Refusal> {
        if self.leader != Some(at.broker) {
            return Err(ResponseError::NotLeaderOrFollower.into());
        }
        if at.acks == -1 && self.in_sync.len() < usize::try_from(at.config.min_insync_replicas).unwrap_or(0) {
            return Err(ResponseError::NotEnoughReplicas.into());
        }
        let batch = checked?;
        if let Some(known) = self.find_duplicate(&batch, at)? {
            return Ok(Appended {
                base_offset: known.base_offset,
                log_append_time: known.timestamp,
                log_start_offset: self.log.start_offset(),
                grown: 0,
            });
        }
        if PartitionLog::charge_of(&batch) > at.room {
            tracing::warn!("the logs are full: raise max_log_bytes or set retention.bytes");
            return Err(Refusal::new(ResponseError::KafkaStorageError, "the logs are full"));
        }
        Ok(self.write(&batch, at))
    }

    fn find_duplicate(&self, batch: &CheckedBatch, at: AppendContext<'_>) -> Result<Option<KnownBatch>, Refusal> {
        let Some(stamp) = batch.stamp else { return Ok(None) };
        let reloaded_at = self.reloaded_at.get(&at.broker).copied().unwrap_or(0);
        let strict = at.strict_first_sequence && self.log.end_offset() == 0;
        Ok(match self.producers.judge(stamp, batch.records, reloaded_at, strict)? {
            Verdict::Duplicate(known) => Some(known),
            Verdict::New => None,
        })
    }

    fn write(&mut self, batch: &CheckedBatch, at: AppendContext<'_>) -> Appended {
        let before = self.log.charged();
        let append_time = at.config.log_append_time.then_some(at.now_ms);
        let base_offset = self.log.append(batch, self.leader_epoch, append_time);
        if let Some(stamp) = batch.stamp {
            let known = KnownBatch {
                base_sequence: stamp.base_sequence,
                last_sequence: kafka_courier_batcher::sequence_add(
                    stamp.base_sequence,
                    batch.records.saturating_sub(1),
                ),
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
        Appended {
            base_offset,
            log_append_time: append_time.unwrap_or(-1),
            log_start_offset: self.log.start_offset(),
            grown: self.log.charged() as i64 - before as i64,
        }
    }

    /// Makes a replica leader; it must be in sync.
    pub(crate) fn move_leader(&mut self, to: i32) -> bool {
        let fit = self.in_sync.contains(&to);
        if fit && self.leader != Some(to) {
            self.leader = Some(to);
            self.leader_epoch += 1;
        }
        fit
    }

    /// Takes a broker that died out of the partition; the next replica in sync leads.
    pub(crate) fn broker_down(&mut self, broker: i32) {
        if !self.replicas.contains(&broker) {
            return;
        }
        self.reloaded_at.insert(broker, self.log.end_offset());
        // The last one in sync stays so: no other may lead before it is back (no unclean election).
        if self.in_sync.len() > 1 {
            self.in_sync.retain(|id| *id != broker);
        }
        if self.leader == Some(broker) {
            self.leader = self.in_sync.iter().copied().find(|id| *id != broker);
            self.leader_epoch += 1;
        }
    }

    /// Takes a broker back that was away. `alive` are all that are there now, itself included.
    pub(crate) fn broker_up(&mut self, broker: i32, alive: &[i32]) {
        if self.leader.is_none() && self.in_sync == [broker] {
            self.leader = Some(broker);
            self.leader_epoch += 1;
        }
        if self.leader.is_some() {
            let back = self.replicas.iter().filter(|id| alive.contains(id) && !self.in_sync.contains(id));
            let back: Vec<i32> = back.copied().collect();
            self.in_sync.extend(back);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition() -> Partition {
        Partition::new(vec![1, 2, 3], 10)
    }

    #[test]
    fn the_next_replica_in_sync_leads_when_the_leader_dies() {
        let mut partition = partition();
        partition.broker_down(1);
        assert_eq!((partition.leader, partition.leader_epoch), (Some(2), 1));
        partition.broker_up(1, &[1, 2, 3]);
        assert_eq!((partition.leader, partition.leader_epoch), (Some(2), 1));
        assert_eq!(partition.in_sync, [2, 3, 1]);
    }

    #[test]
    fn only_the_last_replica_in_sync_may_lead_again() {
        let mut partition = partition();
        (1..=3).for_each(|broker| partition.broker_down(broker));
        assert_eq!((partition.leader, partition.in_sync.clone()), (None, vec![3]));
        partition.broker_up(1, &[1]);
        assert_eq!(partition.leader, None);
        partition.broker_up(3, &[1, 3]);
        assert_eq!((partition.leader, partition.in_sync.clone()), (Some(3), vec![3, 1]));
    }

    #[test]
    fn a_replica_out_of_sync_is_not_made_leader() {
        let mut partition = partition();
        partition.broker_down(2);
        assert!(!partition.move_leader(2));
        assert!(partition.move_leader(3));
        assert_eq!((partition.leader, partition.leader_epoch), (Some(3), 1));
    }
}
