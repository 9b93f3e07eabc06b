//! Metadata: which answers the core believes.
//!
//! Rules:
//!  - A leader is adopted only if its epoch is newer than the known epoch (KIP-320), because answers can be stale.
//!  - A topic with another id is another topic. A partition switches to it once every attempt in flight is answered.
//!    Batches that may be written to the former topic fail as unknown. The new topic may have fewer partitions, and
//!    batches for a removed partition fail.
//!  - A former id is not adopted again, unless several answers in a row name it.

#[cfg(test)]
pub(super) mod tests;

use std::sync::Arc;
use std::time::Instant;

use kafka_courier_client::refusals::REFUSED_PAUSE;
use kafka_courier_client::{BrokerAddress, ClusterMetadata, ErrorCode, PartitionId, Reason, TopicId, TopicMetadata};

use super::super::metadata::InFlightMetadata;
use super::super::partition::{LatestMetadata, RecreatedTopic};
use super::super::timers::Timer;
use super::super::topics::{TopicDiscovery, TopicIdChange, TopicState};
use super::super::types::Action;
use super::Sender;

impl<T: Clone> Sender<T> {
    /// Requests a refresh of all topics, after the backoff.
    pub(super) fn want_metadata(&mut self, now: Instant) {
        if let Some(at) = self.metadata.want(now) {
            self.timers.set(at, Timer::Metadata);
        }
    }

    /// Requests an unknown topic, with the next request.
    pub(super) fn want_unknown_topic(&mut self, now: Instant, id: TopicId) {
        if let Some(topic) = self.topics.get_mut(id) {
            topic.discovery = TopicDiscovery { next: now, failures: 0, named: false };
            self.metadata.want_topic(now);
        }
    }

    /// Requests metadata if a request is due.
    pub(super) fn request_metadata(&mut self, now: Instant) -> bool {
        let Some(request) = self.metadata.take_due(now) else { return false };
        let mut topics = Vec::new();
        for topic in self.topics.iter_mut() {
            topic.discovery.named = matches!(topic.state, TopicState::Pending(_));
            if topic.discovery.named || (request.all && topic.state == TopicState::Ready) {
                topics.push(topic.name.clone());
            }
        }
        if topics.is_empty() {
            return false;
        }
        self.metadata.sent(request);
        self.out.actions.push_back(Action::RefreshMetadata { topics });
        true
    }

    /// Schedules the next request for topics that are still unknown: after their own backoff if a broker `answered`,
    /// immediately otherwise.
    fn pause_unknown_topics(&mut self, now: Instant, answered: bool) {
        let requested_at = self.metadata.in_flight().map_or(now, |request| request.at);
        for topic in self.topics.iter_mut() {
            if !std::mem::take(&mut topic.discovery.named) || !matches!(topic.state, TopicState::Pending(_)) {
                continue;
            }
            topic.discovery.next = if answered {
                // The backoff of a topic does not grow if the request was made for another topic.
                topic.discovery.failures += u32::from(topic.discovery.next <= requested_at);
                now + self.config.backoff.wait(topic.discovery.failures.max(1), &mut self.jitter)
            } else {
                now
            };
            self.metadata.want_topic(topic.discovery.next);
            self.timers.set(topic.discovery.next, Timer::Metadata);
        }
    }

    /// Handles a Metadata answer.
    pub fn on_metadata(&mut self, now: Instant, cluster: ClusterMetadata) {
        self.metadata.answered();
        self.learn_brokers(now, &cluster.brokers, true);
        let request = self.metadata.in_flight().unwrap_or(InFlightMetadata { at: now, all: true });
        for topic in cluster.topics {
            self.learn_topic(now, request.at, topic);
        }
        self.forget_failures();
        self.pause_unknown_topics(now, true);
        if let Some(stale_at) = self.metadata.end(request, now, self.config.metadata_max_age) {
            self.timers.set(stale_at, Timer::Metadata);
        }
        if request.all {
            let failures = self.metadata.refreshed(self.lacks_metadata());
            self.pause_metadata(now, failures);
        }
    }

    /// Returns whether some partition is blocked until metadata arrives.
    fn lacks_metadata(&self) -> bool {
        self.topics.iter().any(|topic| topic.lanes().iter().any(|lane| lane.partition.wants_metadata()))
    }

    /// Handles a request that no broker answered.
    pub fn on_metadata_failed(&mut self, now: Instant, why: &str) {
        self.pause_unknown_topics(now, false);
        let why: Arc<str> = why.into();
        let unanswered = self.metadata.unanswered(why.clone());
        let held_until = now + self.config.backoff.wait(unanswered, &mut self.jitter);
        self.metadata.hold(held_until);
        self.timers.set(held_until, Timer::Metadata);
        let reason = Reason::NotAvailable(why);
        for id in self.topics.partitions() {
            if let Some(lane) = self.topics.lane_mut(id)
                && lane.partition.leader().is_none()
            {
                lane.partition.on_unreachable(now, &reason);
            }
        }
    }

    /// Handles the refusal of this client by the brokers, or of the brokers by this client. Batches without a leader
    /// fail immediately with `reason`. Partitions with a leader continue, or request the topic id again if it is
    /// missing.
    pub fn on_metadata_refused(&mut self, now: Instant, reason: &Reason) {
        let (retry_at, stale_at) = (now + REFUSED_PAUSE, now + self.config.metadata_max_age.max(REFUSED_PAUSE));
        self.metadata.refused(retry_at, stale_at);
        self.timers.set(retry_at, Timer::Metadata);
        self.timers.set(stale_at, Timer::Metadata);
        for id in self.topics.pending() {
            self.fail_topic_for(id, reason.clone());
        }
        for id in self.topics.partitions() {
            if self.topics.lane(id).is_some_and(|lane| lane.partition.leader().is_none() && !lane.partition.is_idle()) {
                self.refuse_lane(id, reason, now);
            }
        }
        // A partition with a leader that only lacks the topic id may have answers in flight, so the metadata is
        // requested again.
        self.metadata.set_wanted(self.lacks_metadata());
    }

    fn pause_metadata(&mut self, now: Instant, failures: u32) {
        let at = now + self.config.backoff.wait(failures.max(1), &mut self.jitter);
        self.metadata.pause(at);
        self.timers.set(at, Timer::Metadata);
    }

    /// Adopts addresses. If `all` is true, a broker that is not named is forgotten, unless it has a connection or
    /// refused this client a moment ago.
    pub(super) fn learn_brokers(&mut self, now: Instant, addresses: &[BrokerAddress], all: bool) {
        addresses.iter().for_each(|address| self.cluster.learn(address));
        if all {
            self.note_named(now, addresses);
            self.cluster.forget_unnamed(now, addresses);
        }
    }

    fn learn_topic(&mut self, now: Instant, requested_at: Instant, found: TopicMetadata) {
        let Some(id) = self.topics.id(&found.name) else { return };
        let Some(topic) = self.topics.get_mut(id) else { return };
        topic.error = Some(ErrorCode(found.code)).filter(|code| *code != ErrorCode::NONE);
        if let Some(code) = topic.error {
            if matches!(topic.state, TopicState::Pending(_)) && !code.is_retriable() {
                self.fail_topic(id);
            }
            return;
        }
        if found.partitions.is_empty() {
            return; // equals a missing topic: it is requested again
        }
        let id_change = topic.learn_uuid(found.uuid);
        if id_change == TopicIdChange::Former {
            return;
        }
        let uuid = topic.uuid();
        let mut must_announce = topic.state != TopicState::Ready;
        topic.state = TopicState::Ready;
        let count = found.partitions.iter().map(|p| p.index).max().and_then(|index| usize::try_from(index).ok());
        let count = count.map_or(0, |index| index + 1);
        if id_change == TopicIdChange::Recreated {
            must_announce = true;
            self.recreate_topic(id, count, now);
        }
        must_announce |= self.topics.get_mut(id).is_some_and(|topic| topic.grow(id, count));
        for partition in &found.partitions {
            let partition_id = PartitionId { topic: id, index: partition.index };
            let latest = LatestMetadata { uuid, leader: partition.leader, leader_epoch: partition.leader_epoch };
            must_announce |= self.learn_partition(now, requested_at, partition_id, latest);
        }
        if must_announce {
            self.announce(id);
        }
    }

    /// Adopts the metadata of a partition. Returns whether the partition got or lost its leader.
    fn learn_partition(
        &mut self,
        now: Instant,
        requested_at: Instant,
        id: PartitionId,
        latest: LatestMetadata,
    ) -> bool {
        let changed = self.with_lane(id, now, |lane, _| {
            if lane.partition.note_recreated_topic(latest) {
                return false;
            }
            lane.partition.on_topic_id(latest.uuid, requested_at);
            let had_leader = lane.partition.leader().is_some();
            if lane.partition.adopt_leader(latest.leader, latest.leader_epoch) {
                lane.unbind();
            }
            had_leader != lane.partition.leader().is_some()
        });
        changed.unwrap_or(false)
    }

    /// Switches the partitions to a recreated topic with `count` partitions.
    fn recreate_topic(&mut self, id: TopicId, count: usize, now: Instant) {
        let Some(topic) = self.topics.get_mut(id) else { return };
        topic.shrink(count);
        let lanes: Vec<PartitionId> = topic.lanes().iter().map(|lane| lane.partition.id).collect();
        let reason = Reason::Broker {
            code: ErrorCode::INCONSISTENT_TOPIC_ID,
            message: Some("the topic was deleted and recreated".into()),
        };
        let partition_removed = Reason::Broker {
            code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            message: Some(format!("the topic was recreated with {count} partitions").into()),
        };
        for (index, lane) in lanes.into_iter().enumerate() {
            let removed = (index >= count).then(|| partition_removed.clone());
            let new = RecreatedTopic { reason: reason.clone(), removed, latest_metadata: None };
            self.with_lane(lane, now, |lane, _| lane.partition.on_topic_recreated(new));
        }
    }

    pub(super) fn check_topic(&mut self, now: Instant, id: TopicId) {
        let pending = self.topics.get(id).map(|topic| topic.state);
        if matches!(pending, Some(TopicState::Pending(until)) if until <= now) {
            self.fail_topic(id);
        }
    }

    fn fail_topic(&mut self, id: TopicId) {
        let Some(topic) = self.topics.get(id) else { return };
        let reason = match topic.error {
            None => {
                let why = self.metadata.last_failure().cloned();
                Reason::NotAvailable(why.unwrap_or_else(|| "no broker answered for the topic in time".into()))
            }
            Some(code) => Reason::Broker { code, message: None },
        };
        self.fail_topic_for(id, reason);
    }

    fn fail_topic_for(&mut self, id: TopicId, reason: Reason) {
        let Some(topic) = self.topics.get_mut(id) else { return };
        topic.state = TopicState::Failed;
        self.out.actions.push_back(Action::TopicFailed { topic: id, reason });
    }
}
