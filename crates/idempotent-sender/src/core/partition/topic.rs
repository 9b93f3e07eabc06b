//! The life of the topic of a partition: present, recreated, or without this partition.
//!
//! Rules:
//!  - A partition switches to a recreated topic once every attempt in flight is answered. An answer before the switch
//!    proves nothing about other batches, because a write by topic name may reach either topic.
//!  - Nothing is sent after the leader denied the topic id, until metadata that was requested later names the id.
//!  - A partition that the topic does not have accepts nothing.

use std::time::Instant;

use kafka_courier_client::{BrokerId, Reason, TopicUuid};

use super::super::flight::TargetLog;

/// A recreated topic, as far as it concerns a partition.
#[derive(Clone, Debug)]
pub(crate) struct RecreatedTopic {
    /// The reason for batches that may be written to the former topic.
    pub(crate) reason: Reason,
    /// Why the recreated topic does not have this partition, if it does not.
    pub(crate) removed: Option<Reason>,
    /// The recreated topic in the latest metadata.
    pub(crate) latest_metadata: Option<LatestMetadata>,
}

/// The partition in the latest metadata.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct LatestMetadata {
    pub(crate) uuid: Option<TopicUuid>,
    pub(crate) leader: Option<BrokerId>,
    pub(crate) leader_epoch: Option<i32>,
}

/// Whether the topic has the partition.
#[derive(Debug)]
enum TopicPresence {
    /// The topic has the partition.
    Present,
    /// The topic was recreated, and attempts for the former topic are in flight.
    Recreated(RecreatedTopic),
    /// The topic does not have the partition, for this reason.
    Missing(Reason),
}

/// The topic of a partition, and the log in it.
#[derive(Debug)]
pub(super) struct TopicLife {
    presence: TopicPresence,
    /// The time at which the leader denied the topic id.
    id_denied: Option<Instant>,
    log: TargetLog,
}

impl TopicLife {
    pub(super) fn new() -> Self {
        Self { presence: TopicPresence::Present, id_denied: None, log: TargetLog::default() }
    }

    /// Returns the log to which batches are sent, for verifications.
    pub(super) fn log(&self) -> &TargetLog {
        &self.log
    }

    /// Returns why the topic does not have this partition, if it does not.
    pub(super) fn missing(&self) -> Option<&Reason> {
        match &self.presence {
            TopicPresence::Missing(reason) => Some(reason),
            TopicPresence::Present | TopicPresence::Recreated(_) => None,
        }
    }

    /// Returns whether the topic was recreated and answers for the former topic are awaited.
    pub(super) fn is_switching(&self) -> bool {
        matches!(self.presence, TopicPresence::Recreated(_))
    }

    /// Returns whether the partition waits for metadata to name the topic id.
    pub(super) fn lacks_id(&self) -> bool {
        self.id_denied.is_some()
    }

    /// Notes that the leader denied the topic id.
    pub(super) fn deny_id(&mut self, now: Instant) {
        self.id_denied = Some(now);
    }

    /// Adopts the topic id in metadata that was requested at `requested_at`. Metadata that was requested before the
    /// leader denied the id may be out of date, so it ends the block only if it names another id.
    pub(super) fn learn_id(&mut self, uuid: Option<TopicUuid>, requested_at: Instant) {
        let is_another = self.log.topic_uuid != uuid;
        self.log.topic_uuid = uuid;
        self.id_denied = self.id_denied.filter(|denied_at| requested_at < *denied_at && !is_another);
    }

    /// Notes that the topic was recreated.
    pub(super) fn recreated(&mut self, new: RecreatedTopic) {
        self.presence = TopicPresence::Recreated(new);
    }

    /// Notes that the topic has this partition again.
    pub(super) fn restored(&mut self) {
        match &mut self.presence {
            TopicPresence::Present => {}
            TopicPresence::Recreated(new) => new.removed = None,
            TopicPresence::Missing(_) => self.presence = TopicPresence::Present,
        }
    }

    /// Stores the metadata of a recreated topic until the switch. Returns whether a switch is pending.
    pub(super) fn note_metadata(&mut self, latest: LatestMetadata) -> bool {
        if let TopicPresence::Recreated(new) = &mut self.presence {
            new.latest_metadata = Some(latest);
        }
        self.is_switching()
    }

    /// Takes the recreated topic for the switch to it.
    pub(super) fn take_recreated(&mut self) -> Option<RecreatedTopic> {
        match std::mem::replace(&mut self.presence, TopicPresence::Present) {
            TopicPresence::Recreated(new) => Some(new),
            other => {
                self.presence = other;
                None
            }
        }
    }

    /// Starts the life of the recreated topic. `missing` is why it does not have this partition, if it does not.
    pub(super) fn start(&mut self, uuid: Option<TopicUuid>, missing: Option<Reason>) {
        self.presence = missing.map_or(TopicPresence::Present, TopicPresence::Missing);
        self.id_denied = None;
        self.log = TargetLog { topic_uuid: uuid, acknowledged_to: None };
    }

    /// Notes that the records before the offset `end` are acknowledged.
    pub(super) fn acknowledge(&mut self, end: i64) {
        self.log.acknowledged_to = self.log.acknowledged_to.max(Some(end));
    }

    /// Forgets which records are acknowledged: the leader may have lost some of them (an unclean election), so new
    /// records may be written at a lower offset.
    pub(super) fn forget_acknowledged(&mut self) {
        self.log.acknowledged_to = None;
    }
}
