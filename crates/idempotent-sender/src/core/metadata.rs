//! Metadata: when the core requests it, and which answers it believes.
//!
//! Rules:
//!  - One request is in flight at a time. A refresh of all topics waits for the backoff. Old metadata is refreshed
//!    automatically.
//!  - An unknown topic is requested as soon as no request is in flight, whatever the backoff of the refresh. All
//!    unknown topics share the request. A missing topic has its own backoff and delays no other topic.
//!  - While no broker answers, nothing is requested before the backoff ends.
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

use super::cluster::{KnownBroker, PartitionLane};
use super::partition::{RecreatedMetadata, RecreatedTopic};
use super::sender::Sender;
use super::timers::Timer;
use super::topics::{KnownTopic, TopicDiscovery, TopicIdChange, TopicState};
use super::types::Action;

/// The request in flight.
#[derive(Clone, Copy, Debug)]
struct InFlightMetadata {
    at: Instant,
    /// Whether the request names every topic, not only the unknown ones.
    all: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Metadata {
    /// Whether a refresh of all topics is wanted.
    wanted: bool,
    in_flight: Option<InFlightMetadata>,
    /// The earliest time of the next refresh of all topics.
    not_before: Option<Instant>,
    failures: u32,
    /// The end of the pause after no broker answered, or after a refusal. Nothing is requested before.
    held_until: Option<Instant>,
    /// Requests in a row that no broker answered.
    unanswered: u32,
    /// The earliest time of the next request for an unknown topic.
    next_topic: Option<Instant>,
    stale_at: Option<Instant>,
    /// Why the last request failed.
    last_failure: Option<Arc<str>>,
}

fn earlier(one: Option<Instant>, other: Instant) -> Option<Instant> {
    Some(one.map_or(other, |one| one.min(other)))
}

impl<T: Clone> Sender<T> {
    /// Requests a refresh of all topics, after the backoff.
    pub(super) fn want_metadata(&mut self, now: Instant) {
        if !self.metadata.wanted {
            self.metadata.wanted = true;
            if let Some(at) = self.metadata.not_before.filter(|at| *at > now) {
                self.timers.set(at, Timer::Metadata);
            }
        }
    }

    /// Requests an unknown topic, with the next request.
    pub(super) fn want_unknown_topic(&mut self, now: Instant, id: TopicId) {
        if let Some(topic) = self.topics.get_mut(id) {
            topic.discovery = TopicDiscovery { next: now, failures: 0, named: false };
            self.metadata.next_topic = earlier(self.metadata.next_topic, now);
        }
    }

    pub(super) fn on_metadata_timer(&mut self, now: Instant) {
        if self.metadata.stale_at.is_some_and(|at| at <= now) {
            self.metadata.stale_at = None;
            self.metadata.wanted = true;
        }
    }

    /// Requests metadata if a request is due. The caller handles all other inputs first, so topics that are wanted
    /// together share a request.
    pub(super) fn request_metadata(&mut self, now: Instant) -> bool {
        let metadata = &mut self.metadata;
        if metadata.in_flight.is_some() || metadata.held_until.is_some_and(|at| at > now) {
            return false;
        }
        let all = metadata.wanted && metadata.not_before.is_none_or(|at| at <= now);
        if !all && metadata.next_topic.is_none_or(|at| at > now) {
            return false;
        }
        metadata.wanted &= !all;
        metadata.next_topic = None;
        let mut topics = Vec::new();
        for topic in self.topics.iter_mut() {
            topic.discovery.named = matches!(topic.state, TopicState::Pending(_));
            if topic.discovery.named || (all && topic.state == TopicState::Ready) {
                topics.push(topic.name.clone());
            }
        }
        if topics.is_empty() {
            return false;
        }
        metadata.in_flight = Some(InFlightMetadata { at: now, all });
        self.out.actions.push_back(Action::RefreshMetadata { topics });
        true
    }

    /// Schedules the next request for topics that are still unknown: after their own backoff if a broker `answered`,
    /// immediately otherwise.
    fn pause_unknown_topics(&mut self, now: Instant, answered: bool) {
        let requested_at = self.metadata.in_flight.map_or(now, |asked| asked.at);
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
            self.metadata.next_topic = earlier(self.metadata.next_topic, topic.discovery.next);
            self.timers.set(topic.discovery.next, Timer::Metadata);
        }
    }

    /// Handles a Metadata answer.
    pub fn on_metadata(&mut self, now: Instant, cluster: ClusterMetadata) {
        self.metadata.last_failure = None;
        (self.metadata.unanswered, self.metadata.held_until) = (0, None);
        self.learn_brokers(now, &cluster.brokers, true);
        let asked = self.metadata.in_flight.unwrap_or(InFlightMetadata { at: now, all: true });
        for topic in cluster.topics {
            self.learn_topic(now, asked.at, topic);
        }
        self.forget_failures();
        self.pause_unknown_topics(now, true);
        self.metadata.in_flight = None;
        if asked.all || self.metadata.stale_at.is_none() {
            let stale_at = now + self.config.metadata_max_age;
            self.metadata.stale_at = Some(stale_at);
            self.timers.set(stale_at, Timer::Metadata);
        }
        if asked.all {
            let unresolved = self.lacks_metadata();
            self.metadata.failures = if unresolved { self.metadata.failures.saturating_add(1) } else { 0 };
            self.metadata.wanted |= unresolved;
            self.pause_metadata(now);
        }
    }

    /// Returns whether some partition is blocked until metadata arrives.
    fn lacks_metadata(&self) -> bool {
        self.topics.iter().any(|topic| topic.lanes.iter().any(|lane| lane.partition.wants_metadata()))
    }

    /// Handles a request that no broker answered.
    pub fn on_metadata_failed(&mut self, now: Instant, why: &str) {
        self.pause_unknown_topics(now, false);
        self.metadata.wanted |= self.metadata.in_flight.take().is_none_or(|asked| asked.all);
        self.metadata.unanswered = self.metadata.unanswered.saturating_add(1);
        let held_until = now + self.config.backoff.wait(self.metadata.unanswered, &mut self.jitter);
        self.metadata.held_until = Some(held_until);
        self.timers.set(held_until, Timer::Metadata);
        let why: Arc<str> = why.into();
        self.metadata.last_failure = Some(why.clone());
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
        self.metadata.in_flight = None;
        self.metadata.failures = self.metadata.failures.saturating_add(1);
        let (retry_at, stale_at) = (now + REFUSED_PAUSE, now + self.config.metadata_max_age.max(REFUSED_PAUSE));
        (self.metadata.held_until, self.metadata.stale_at) = (Some(retry_at), Some(stale_at));
        self.timers.set(retry_at, Timer::Metadata);
        self.timers.set(stale_at, Timer::Metadata);
        let pending = |topic: &&KnownTopic<T>| matches!(topic.state, TopicState::Pending(_));
        let names: Vec<Arc<str>> = self.topics.iter().filter(pending).map(|topic| topic.name.clone()).collect();
        for id in names.iter().filter_map(|name| self.topics.id(name)).collect::<Vec<_>>() {
            self.fail_topic_for(id, reason.clone());
        }
        for id in self.topics.partitions() {
            if self.topics.lane(id).is_some_and(|lane| lane.partition.leader().is_none() && !lane.partition.is_idle()) {
                self.refuse_lane(id, reason, now);
            }
        }
        // A partition with a leader that only lacks the topic id may have answers in flight, so the metadata is
        // requested again.
        self.metadata.wanted = self.lacks_metadata();
    }

    fn pause_metadata(&mut self, now: Instant) {
        let at = now + self.config.backoff.wait(self.metadata.failures.max(1), &mut self.jitter);
        self.metadata.not_before = Some(at);
        self.timers.set(at, Timer::Metadata);
    }

    /// Adopts addresses. If `all` is true, a broker that is not named is forgotten, unless it has a connection or
    /// refused this client a moment ago.
    pub(super) fn learn_brokers(&mut self, now: Instant, addresses: &[BrokerAddress], all: bool) {
        for address in addresses {
            let broker = self.brokers.entry(address.id).or_insert_with(|| KnownBroker::new(address.clone()));
            if broker.address != *address {
                // The broker listens on another address now. Waiting for the old one is pointless.
                broker.address = address.clone();
                broker.retry_at = None;
                broker.failures = 0;
            }
        }
        if all {
            self.note_named(now, addresses);
            self.brokers.retain(|id, broker| {
                let in_use = !broker.conns.is_empty() || !broker.ready.is_empty() || broker.refusal_at(now).is_some();
                let is_remembered = broker.outage.as_ref().is_some_and(|outage| outage.is_remembered(now));
                in_use || is_remembered || addresses.iter().any(|a| a.id == *id)
            });
        }
    }

    fn learn_topic(&mut self, now: Instant, requested_at: Instant, found: TopicMetadata) {
        let Some(id) = self.topics.id(&found.name) else { return };
        let Some(topic) = self.topics.get_mut(id) else { return };
        topic.code = found.code;
        if found.code != 0 {
            let code = ErrorCode(found.code);
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
        let uuid = topic.uuid;
        let mut must_announce = topic.state != TopicState::Ready;
        topic.state = TopicState::Ready;
        let count = found.partitions.iter().map(|p| p.index).max().and_then(|index| usize::try_from(index).ok());
        let count = count.map_or(0, |index| index + 1);
        if id_change == TopicIdChange::Recreated {
            must_announce = true;
            self.recreate_topic(id, count, now);
        }
        must_announce |= self.grow(id, count);
        for partition in &found.partitions {
            let partition_id = PartitionId { topic: id, index: partition.index };
            let leader_epoch = Some(partition.leader_epoch).filter(|epoch| *epoch >= 0);
            let latest = RecreatedMetadata { uuid, leader: partition.leader, leader_epoch };
            let changed = self.with_lane(partition_id, now, |lane, _| {
                if lane.partition.note_recreated_topic(latest) {
                    return false;
                }
                lane.partition.on_topic_id(uuid, requested_at);
                let had_leader = lane.partition.leader().is_some();
                if lane.partition.adopt_leader(partition.leader, leader_epoch) {
                    lane.unbind();
                }
                had_leader != lane.partition.leader().is_some()
            });
            must_announce |= changed.unwrap_or(false);
        }
        if must_announce {
            self.announce(id);
        }
    }

    /// Switches the partitions to a recreated topic with `count` partitions.
    fn recreate_topic(&mut self, id: TopicId, count: usize, now: Instant) {
        let Some(topic) = self.topics.get_mut(id) else { return };
        topic.count = count.min(topic.lanes.len());
        let lanes: Vec<PartitionId> = topic.lanes.iter().map(|lane| lane.partition.id).collect();
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

    /// Adds partitions up to `count`. A topic never loses partitions unless it is recreated.
    fn grow(&mut self, id: TopicId, count: usize) -> bool {
        let Some(topic) = self.topics.get_mut(id) else { return false };
        for index in topic.lanes.len()..count {
            topic
                .lanes
                .push(PartitionLane::new(PartitionId { topic: id, index: i32::try_from(index).unwrap_or(i32::MAX) }));
        }
        for lane in topic.lanes.iter_mut().take(count).skip(topic.count) {
            lane.partition.on_partition_restored();
        }
        let more = count > topic.count;
        topic.count = topic.count.max(count);
        more
    }

    pub(super) fn check_topic(&mut self, now: Instant, id: TopicId) {
        let pending = self.topics.get(id).map(|topic| topic.state);
        if matches!(pending, Some(TopicState::Pending(until)) if until <= now) {
            self.fail_topic(id);
        }
    }

    fn fail_topic(&mut self, id: TopicId) {
        let Some(topic) = self.topics.get(id) else { return };
        let reason = match topic.code {
            0 => {
                let why = self.metadata.last_failure.clone();
                Reason::NotAvailable(why.unwrap_or_else(|| "no broker answered for the topic in time".into()))
            }
            code => Reason::Broker { code: ErrorCode(code), message: None },
        };
        self.fail_topic_for(id, reason);
    }

    fn fail_topic_for(&mut self, id: TopicId, reason: Reason) {
        let Some(topic) = self.topics.get_mut(id) else { return };
        topic.state = TopicState::Failed;
        self.out.actions.push_back(Action::TopicFailed { topic: id, reason });
    }
}
