//! What the sender was told of topics and their leaders, and whom it may therefore send to.
//!
//! Rules:
//! - Metadata is always taken in, a hint in an answer (KIP-951) only sometimes: a leader may be sent to if an answer named
//!   it with an epoch at least as new as the newest of metadata.
//! - A leader that has failed four times in a row may be doubted: then any that the cluster names will do. So it is where
//!   the cluster names none, and in a topic that was made a second time, whose epochs begin again.

use std::collections::BTreeSet;

use kafka_courier_idempotent_sender::core::{PartAnswer, TopicUuid};

use crate::cluster::{PARTITIONS, topic_of};
use crate::history::History;

/// So many answers in a row must name a life that was left before it is gone back to.
const BACK_AFTER: u32 = 4;

impl ToldTopic {
    /// Whether the sender has to know that this is the topic's life.
    pub(crate) fn knows(&self, life: u32) -> bool {
        // The first is the one it began with; after a second change it may be one that was left.
        self.life == life && (self.changes <= 2 || self.in_a_row >= BACK_AFTER)
    }
}

/// What the sender was told of a topic.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ToldTopic {
    /// Its life, by the last answer that named one.
    pub(crate) life: u32,
    /// How often that was another than before.
    pub(crate) changes: u32,
    /// How many answers in a row have named it.
    pub(crate) in_a_row: u32,
    /// The fewest partitions that it was told to have.
    pub(crate) fewest: usize,
}

/// Answers that speak against the leader that gave them.
const NOT_LEADER: &[i16] = &[3, 5, 6, 56, 74, 75, 100, 103];
/// After so many failures any leader is believed in.
const DOUBTS_MAX: u32 = 4;

/// Whom the sender may take for a partition's leader.
#[derive(Clone, Debug)]
pub(crate) struct ToldLeaders {
    /// The newest leader epoch that it was told, -1 if none yet in this life of the topic.
    pub(crate) epoch: i32,
    /// The leaders that it was told since then.
    leaders: BTreeSet<usize>,
    /// The leader that it was told last.
    last: Option<usize>,
    /// Each epoch's leader; by name two lives of a topic have each their own.
    by_epoch: BTreeSet<(i32, usize)>,
    /// The newest epoch that metadata named.
    pub(crate) known: i32,
    /// Failures in a row of which the leader may be the cause.
    doubts: u32,
    /// Any leader may be believed in.
    any: bool,
    /// How often another leader or epoch was named.
    pub(crate) moves: u32,
}

impl Default for ToldLeaders {
    fn default() -> Self {
        let (leaders, by_epoch) = (BTreeSet::new(), BTreeSet::new());
        Self { epoch: -1, leaders, last: None, by_epoch, known: -1, doubts: 0, any: false, moves: 0 }
    }
}

impl ToldLeaders {
    fn told(&mut self, leader: Option<usize>, epoch: i32) {
        self.epoch = self.epoch.max(epoch);
        self.leaders.extend(leader);
        if let Some(leader) = leader {
            let is_new = self.by_epoch.insert((epoch, leader));
            self.moves += u32::from(is_new || self.last != Some(leader));
        }
        self.last = leader;
    }

    /// Metadata names a leader, or that there is none.
    pub(crate) fn metadata(&mut self, leader: Option<usize>, epoch: i32) {
        // Where a hint was as new, the sender may have taken that, and have had its doubts since.
        if epoch > self.epoch && self.by_epoch.range((epoch, 0)..).next().is_none() {
            (self.doubts, self.any) = (0, false);
        }
        self.told(leader, epoch);
        self.moves += u32::from(epoch > self.known);
        if epoch > self.known && self.known >= 0 {
            // A hint counts where the head of a partition's batches brings it. Metadata alone is certain to be taken.
            self.leaders = self.by_epoch.range((epoch, 0)..).map(|(_, leader)| *leader).collect();
        }
        self.known = self.known.max(epoch);
        self.any |= leader.is_none();
    }

    /// The answer to a batch names a leader.
    pub(crate) fn hint(&mut self, leader: usize, epoch: i32) {
        self.told(Some(leader), epoch);
    }

    /// The answer to an abandoned attempt names a leader. The sender may use it, or keep the leader that it has.
    pub(crate) fn hint_of_abandoned(&mut self, leader: usize, epoch: i32) {
        self.leaders.insert(leader);
        self.by_epoch.insert((epoch, leader));
    }

    pub(crate) fn answered(&mut self, answer: &PartAnswer) {
        match answer.code {
            0 => self.doubts = 0,
            code if NOT_LEADER.contains(&code) => self.doubt(),
            _ => {}
        }
    }

    /// It may be the leader's fault that something has failed.
    pub(crate) fn doubt(&mut self) {
        self.doubts += 1;
        self.any |= self.doubts >= DOUBTS_MAX;
    }

    /// Whether the sender may send to the broker, in a topic that was made once.
    pub(crate) fn may_be_sent_to(&self, broker: usize) -> bool {
        self.any || self.by_epoch.range((self.known, 0)..).any(|(_, leader)| *leader == broker)
    }

    fn begin_another_life(&mut self) {
        // A new life's epochs begin again; the sender may not believe in it yet.
        (self.epoch, self.known) = (-1, -1);
        self.by_epoch.clear();
        self.moves += 1;
    }
}

impl History {
    /// Whether the sender may take the broker for the partition's leader.
    pub(crate) fn may_lead(&self, partition: usize, broker: usize) -> bool {
        self.told_leaders[partition].leaders.contains(&broker)
    }

    pub(crate) fn told_life(&mut self, topic: usize, uuid: TopicUuid, partitions: usize) {
        let told = &mut self.told[topic];
        let life = u32::from_be_bytes([uuid[1], uuid[2], uuid[3], uuid[4]]);
        if told.life != life {
            told.changes += 1;
            (told.life, told.in_a_row) = (life, 0);
            let others = (0..PARTITIONS).filter(|p| topic_of(*p) == topic);
            others.for_each(|p| self.told_leaders[p].begin_another_life());
        }
        told.in_a_row += 1;
        told.fewest = if told.fewest == 0 { partitions } else { told.fewest.min(partitions) };
    }
}
