//! The switch of a partition to a recreated topic.
//!
//! Rules:
//!  - The switch waits for the answers to all attempts in flight.
//!  - Batches that may be written to the former topic fail as unknown. The others are sent to the recreated topic.

use std::collections::VecDeque;

use super::super::effects::Context;
use super::PartitionSender;
use super::stamps::EpochMove;
use super::topic::{LatestMetadata, RecreatedTopic};

impl<T: Clone> PartitionSender<T> {
    /// Notes that the topic was recreated. The partition switches once every attempt in flight is answered. An answer
    /// before the switch proves nothing about other batches, because a write by topic name may reach either topic.
    pub(crate) fn on_topic_recreated(&mut self, new: RecreatedTopic) {
        self.topic.recreated(new);
        self.leader.forget_acceptance();
    }

    /// Returns whether the topic was recreated and answers for the former topic are awaited.
    pub(crate) fn is_switching(&self) -> bool {
        self.topic.is_switching()
    }

    /// Notes that the topic has this partition again.
    pub(crate) fn on_partition_restored(&mut self) {
        self.topic.restored();
    }

    /// Stores the metadata of a recreated topic until the switch. Returns whether a switch is pending.
    pub(crate) fn note_recreated_topic(&mut self, latest: LatestMetadata) -> bool {
        self.topic.note_metadata(latest)
    }

    /// Switches to the recreated topic once nothing is in flight. Batches that may be written to the former topic fail
    /// as unknown. The others are sent to the new topic, or fail if the new topic does not have this partition. Returns
    /// whether the partition switched.
    pub(crate) fn switch_topic(&mut self, cx: &mut Context<'_, T>) -> bool {
        if self.window.iter().chain(&self.unconfirmed).any(|flight| flight.outstanding.is_some()) {
            return false;
        }
        let Some(RecreatedTopic { reason, removed, latest_metadata }) = self.topic.take_recreated() else {
            return false;
        };
        self.take_back_unconfirmed();
        self.unknown_batches.forget_proofs();
        self.has_restamped |= self.has_resumed;
        let window = std::mem::take(&mut self.window);
        let mut rest = VecDeque::new();
        for mut flight in window {
            if flight.may_be_written() {
                self.settle_failed(flight, Some(reason.clone()), false, cx);
            } else {
                flight.forget_stamp(cx.out.new_uid());
                rest.push_back(flight);
            }
        }
        rest.append(&mut self.queue);
        self.queue = rest;
        let latest = latest_metadata.unwrap_or_default();
        self.leader.replace(latest.leader, latest.leader_epoch);
        self.retry.forget_lookup();
        self.retry.end_backoff();
        self.stamps.reset_fenced_answers();
        self.raise_epoch(EpochMove::TopicRecreated, cx);
        self.topic.start(latest.uuid, removed);
        self.fail_if_removed(cx);
        true
    }
}
