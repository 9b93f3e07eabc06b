//! The topics and leaders that answers have named, and the leaders to which the sender may send.
//!
//! Rules:
//! - The sender must apply metadata, and may apply a leader hint in an answer (KIP-951). It may send to a leader if an
//!   answer named that leader with an epoch not older than the newest epoch of metadata.
//! - The sender may doubt a leader after four failures in a row, and may send to any leader that the cluster has named.
//!   The same holds without a leader in metadata, and in a recreated topic, whose epochs begin again.

use std::collections::BTreeSet;

use kafka_courier_client::{PartAnswer, TopicUuid};

use crate::cluster::{PARTITIONS, topic_of};
use crate::history::History;

/// The number of answers in a row that must name a former incarnation before the sender returns to it.
const RETURN_AFTER: u32 = 4;

impl KnownTopic {
    /// Returns whether the sender must know that this is the topic's incarnation.
    pub(crate) fn knows(&self, incarnation: u32) -> bool {
        // The first change is the sender's first metadata. The incarnation may be a former one after a third change.
        self.incarnation == incarnation && (self.changes <= 2 || self.in_a_row >= RETURN_AFTER)
    }
}

/// The state of a topic according to the answers that the sender received.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KnownTopic {
    /// The incarnation that was named last.
    pub(crate) incarnation: u32,
    /// The number of changes of the named incarnation.
    pub(crate) changes: u32,
    /// The number of answers in a row that have named this incarnation.
    pub(crate) in_a_row: u32,
    /// The smallest number of partitions that was named.
    pub(crate) fewest: usize,
}

/// Codes that mean that the broker is not the leader, or cannot act as such.
const NOT_LEADER: &[i16] = &[3, 5, 6, 56, 74, 75, 100, 103];
/// The number of failures in a row after which the sender may believe in any leader.
const MAX_DOUBTS: u32 = 4;

/// The leaders of a partition according to the answers that the sender received.
#[derive(Clone, Debug)]
pub(crate) struct KnownLeaders {
    /// The newest leader epoch that was named, or -1 if none was named for this incarnation of the topic.
    pub(crate) epoch: i32,
    /// The leaders that were named with that epoch or later.
    leaders: BTreeSet<usize>,
    /// The leader that was named last.
    last: Option<usize>,
    /// The leader of each epoch. Two incarnations of a topic under the same name have separate entries.
    by_epoch: BTreeSet<(i32, usize)>,
    /// The newest epoch that metadata named.
    pub(crate) metadata_epoch: i32,
    /// The failures in a row that the leader may have caused.
    doubts: u32,
    /// The sender may believe in any leader.
    any: bool,
    /// The number of changes of leader or epoch.
    pub(crate) moves: u32,
}

impl Default for KnownLeaders {
    fn default() -> Self {
        let (leaders, by_epoch) = (BTreeSet::new(), BTreeSet::new());
        Self { epoch: -1, leaders, last: None, by_epoch, metadata_epoch: -1, doubts: 0, any: false, moves: 0 }
    }
}

impl KnownLeaders {
    fn learn(&mut self, leader: Option<usize>, epoch: i32) {
        self.epoch = self.epoch.max(epoch);
        self.leaders.extend(leader);
        if let Some(leader) = leader {
            let is_new = self.by_epoch.insert((epoch, leader));
            self.moves += u32::from(is_new || self.last != Some(leader));
        }
        self.last = leader;
    }

    /// Notes a partition's leader in metadata. `None` means that the partition has no leader.
    pub(crate) fn note_metadata(&mut self, leader: Option<usize>, epoch: i32) {
        // The sender may have followed a hint with that epoch earlier, and may have doubted that leader since.
        if epoch > self.epoch && self.by_epoch.range((epoch, 0)..).next().is_none() {
            (self.doubts, self.any) = (0, false);
        }
        self.learn(leader, epoch);
        self.moves += u32::from(epoch > self.metadata_epoch);
        if epoch > self.metadata_epoch && self.metadata_epoch >= 0 {
            // The sender follows every newer metadata, but only the hints in answers to the first batch in flight.
            self.leaders = self.by_epoch.range((epoch, 0)..).map(|(_, leader)| *leader).collect();
        }
        self.metadata_epoch = self.metadata_epoch.max(epoch);
        self.any |= leader.is_none();
    }

    /// Notes the leader hint in the answer to a batch.
    pub(crate) fn hint(&mut self, leader: usize, epoch: i32) {
        self.learn(Some(leader), epoch);
    }

    /// Notes the leader hint in the answer to an abandoned attempt. The sender may follow it, or keep the leader it has.
    pub(crate) fn hint_of_abandoned(&mut self, leader: usize, epoch: i32) {
        self.leaders.insert(leader);
        self.by_epoch.insert((epoch, leader));
    }

    pub(crate) fn note_answer(&mut self, answer: &PartAnswer) {
        match answer.code {
            0 => self.doubts = 0,
            code if NOT_LEADER.contains(&code) => self.doubt(),
            _ => {}
        }
    }

    /// Notes a failure that the leader may have caused.
    pub(crate) fn doubt(&mut self) {
        self.doubts += 1;
        self.any |= self.doubts >= MAX_DOUBTS;
    }

    /// Returns whether the sender may send to the broker, in a topic that was never recreated.
    pub(crate) fn may_be_sent_to(&self, broker: usize) -> bool {
        self.any || self.by_epoch.range((self.metadata_epoch, 0)..).any(|(_, leader)| *leader == broker)
    }

    fn start_incarnation(&mut self) {
        // The epochs of a new incarnation begin again, possibly before the sender accepts that incarnation.
        (self.epoch, self.metadata_epoch) = (-1, -1);
        self.by_epoch.clear();
        self.moves += 1;
    }
}

impl History {
    /// Returns whether the sender may regard the broker as the partition's leader.
    pub(crate) fn may_lead(&self, partition: usize, broker: usize) -> bool {
        self.known_leaders[partition].leaders.contains(&broker)
    }

    pub(crate) fn learn_incarnation(&mut self, topic: usize, uuid: TopicUuid, partitions: usize) {
        let known = &mut self.known_topics[topic];
        let incarnation = u32::from_be_bytes([uuid[1], uuid[2], uuid[3], uuid[4]]);
        if known.incarnation != incarnation {
            known.changes += 1;
            (known.incarnation, known.in_a_row) = (incarnation, 0);
            let others = (0..PARTITIONS).filter(|p| topic_of(*p) == topic);
            others.for_each(|p| self.known_leaders[p].start_incarnation());
        }
        known.in_a_row += 1;
        known.fewest = if known.fewest == 0 { partitions } else { known.fewest.min(partitions) };
    }
}
