//! Metadata: when it is asked for, and what is believed of the answer.
//!
//! Rules:
//! - One request at a time. A refresh of all topics waits for the backoff; old metadata is refreshed automatically.
//! - A topic that nothing is known of is asked for as soon as no request is on its way, whatever the backoff of the refresh.
//!   All topics that are unknown then share the request. A topic that is not there has its own backoff and delays no other.
//! - While no broker answers nothing is asked before the backoff is over.
//! - A leader counts only if its epoch is newer than the one known (KIP-320): answers can be stale.
//! - A topic with another id is another topic. A partition turns to it once the answers to what is under way have come: what
//!   may be written to the old one is given up as unknown. It may have fewer partitions; what waits for one that is no more
//!   is given up then.
//! - An id that was left is not gone back to, unless answer after answer names it.

#[cfg(test)]
pub(super) mod tests;

use std::sync::Arc;
use std::time::Instant;

use super::cluster::{Broker, Lane};
use super::connections::REFUSED_PAUSE;
use super::error_code::ErrorCode;
use super::partition::NewTopic;
use super::sender::Sender;
use super::timers::Timer;
use super::topics::{Asking, Life, Topic, TopicState};
use super::types::{Action, BrokerAddress, ClusterMetadata, PartitionId, Reason, TopicId, TopicMetadata};

/// A request that is on its way.
#[derive(Clone, Copy, Debug)]
struct Asked {
    at: Instant,
    /// It names every topic, not only those that are unknown.
    all: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Metadata {
    /// A refresh of all topics is wanted.
    wanted: bool,
    in_flight: Option<Asked>,
    /// The earliest time of the next refresh of all topics.
    not_before: Option<Instant>,
    failures: u32,
    /// No broker answered, or none takes us: until then nothing is asked.
    held_until: Option<Instant>,
    /// Requests in a row that no broker answered.
    unanswered: u32,
    /// The earliest time at which an unknown topic is asked for.
    next_topic: Option<Instant>,
    stale_at: Option<Instant>,
    /// Why nobody could be asked, the last time.
    last_failure: Option<Arc<str>>,
}

fn earlier(one: Option<Instant>, other: Instant) -> Option<Instant> {
    Some(one.map_or(other, |one| one.min(other)))
}

impl<T: Clone> Sender<T> {
    /// Has all topics asked for again, when the backoff is over.
    pub(super) fn want_metadata(&mut self, now: Instant) {
        if !self.metadata.wanted {
            self.metadata.wanted = true;
            if let Some(at) = self.metadata.not_before.filter(|at| *at > now) {
                self.timers.set(at, Timer::Metadata);
            }
        }
    }

    /// Has a topic asked for that nothing is known of, with the next request.
    pub(super) fn want_unknown(&mut self, now: Instant, id: TopicId) {
        if let Some(topic) = self.topics.get_mut(id) {
            topic.asking = Asking { next: now, failures: 0, named: false };
            self.metadata.next_topic = earlier(self.metadata.next_topic, now);
        }
    }

    pub(super) fn on_metadata_timer(&mut self, now: Instant) {
        if self.metadata.stale_at.is_some_and(|at| at <= now) {
            self.metadata.stale_at = None;
            self.metadata.wanted = true;
        }
    }

    /// Asks for metadata, if that is due. Called once all that came in is taken in, so that what was wanted together is
    /// asked for together.
    pub(super) fn ask_metadata(&mut self, now: Instant) -> bool {
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
            topic.asking.named = matches!(topic.state, TopicState::Pending(_));
            if topic.asking.named || (all && topic.state == TopicState::Ready) {
                topics.push(topic.name.clone());
            }
        }
        if topics.is_empty() {
            return false;
        }
        metadata.in_flight = Some(Asked { at: now, all });
        self.out.actions.push_back(Action::RefreshMetadata { topics });
        true
    }

    /// Has the topics that were asked for, and are still unknown, asked for again: after their own backoff, if a broker has
    /// `answered`.
    fn pause_unknown(&mut self, now: Instant, answered: bool) {
        let asked_at = self.metadata.in_flight.map_or(now, |asked| asked.at);
        for topic in self.topics.iter_mut() {
            if !std::mem::take(&mut topic.asking.named) || !matches!(topic.state, TopicState::Pending(_)) {
                continue;
            }
            topic.asking.next = if answered {
                // Where the request was made for another topic this one's backoff does not grow.
                topic.asking.failures += u32::from(topic.asking.next <= asked_at);
                now + self.config.backoff.wait(topic.asking.failures.max(1), &mut self.chance)
            } else {
                now
            };
            self.metadata.next_topic = earlier(self.metadata.next_topic, topic.asking.next);
            self.timers.set(topic.asking.next, Timer::Metadata);
        }
    }

    /// The cluster's answer.
    pub fn on_metadata(&mut self, now: Instant, cluster: ClusterMetadata) {
        self.metadata.last_failure = None;
        (self.metadata.unanswered, self.metadata.held_until) = (0, None);
        self.learn_brokers(now, &cluster.brokers, true);
        let asked = self.metadata.in_flight.unwrap_or(Asked { at: now, all: true });
        for topic in cluster.topics {
            self.learn_topic(now, asked.at, topic);
        }
        self.forget_failures();
        self.pause_unknown(now, true);
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

    /// Whether some partition stands still for want of metadata.
    fn lacks_metadata(&self) -> bool {
        self.topics.iter().any(|topic| topic.lanes.iter().any(|lane| lane.partition.wants_metadata()))
    }

    /// No broker could be asked.
    pub fn on_metadata_failed(&mut self, now: Instant, why: &str) {
        self.pause_unknown(now, false);
        self.metadata.wanted |= self.metadata.in_flight.take().is_none_or(|asked| asked.all);
        self.metadata.unanswered = self.metadata.unanswered.saturating_add(1);
        let held_until = now + self.config.backoff.wait(self.metadata.unanswered, &mut self.chance);
        self.metadata.held_until = Some(held_until);
        self.timers.set(held_until, Timer::Metadata);
        let why: Arc<str> = why.into();
        self.metadata.last_failure = Some(why.clone());
        let reason = Reason::NotAvailable(why);
        for id in self.topics.partitions() {
            if let Some(lane) = self.topics.lane_mut(id)
                && lane.partition.leader.is_none()
            {
                lane.partition.on_unreachable(now, &reason);
            }
        }
    }

    /// No broker takes us, or none is to be trusted: what has no leader fails at once, for `reason`. Who has one
    /// goes on, or asks again where the topic's id is lacking.
    pub fn on_metadata_refused(&mut self, now: Instant, reason: &Reason) {
        self.metadata.in_flight = None;
        self.metadata.failures = self.metadata.failures.saturating_add(1);
        let (retry_at, stale_at) = (now + REFUSED_PAUSE, now + self.config.metadata_max_age.max(REFUSED_PAUSE));
        (self.metadata.held_until, self.metadata.stale_at) = (Some(retry_at), Some(stale_at));
        self.timers.set(retry_at, Timer::Metadata);
        self.timers.set(stale_at, Timer::Metadata);
        let pending = |topic: &&Topic<T>| matches!(topic.state, TopicState::Pending(_));
        let names: Vec<Arc<str>> = self.topics.iter().filter(pending).map(|topic| topic.name.clone()).collect();
        for id in names.iter().filter_map(|name| self.topics.id(name)).collect::<Vec<_>>() {
            self.fail_topic_for(id, reason.clone());
        }
        for id in self.topics.partitions() {
            if self.topics.lane(id).is_some_and(|lane| lane.partition.leader.is_none() && !lane.partition.is_idle()) {
                self.refuse_lane(id, reason, now);
            }
        }
        // Who has a leader and only lacks the topic's id may have answers to come: it is asked for again.
        self.metadata.wanted = self.lacks_metadata();
    }

    fn pause_metadata(&mut self, now: Instant) {
        let at = now + self.config.backoff.wait(self.metadata.failures.max(1), &mut self.chance);
        self.metadata.not_before = Some(at);
        self.timers.set(at, Timer::Metadata);
    }

    /// Takes addresses in. With `all`, brokers that are not named and have no connection are forgotten, but for those that
    /// have just refused us.
    pub(super) fn learn_brokers(&mut self, now: Instant, addresses: &[BrokerAddress], all: bool) {
        for address in addresses {
            let broker = self.brokers.entry(address.id).or_insert_with(|| Broker::new(address.clone()));
            if broker.address != *address {
                // It listens elsewhere now: a wait for the old place is pointless.
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

    fn learn_topic(&mut self, now: Instant, asked_at: Instant, found: TopicMetadata) {
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
            return; // as good as not there: it is asked for again
        }
        let life = topic.learn_uuid(found.uuid);
        if life == Life::Former {
            return;
        }
        let uuid = topic.uuid;
        let mut news = topic.state != TopicState::Ready;
        topic.state = TopicState::Ready;
        let count = found.partitions.iter().map(|p| p.index).max().and_then(|index| usize::try_from(index).ok());
        let count = count.map_or(0, |index| index + 1);
        if life == Life::Anew {
            news = true;
            self.make_anew(id, count, now);
        }
        news |= self.grow(id, count);
        for partition in &found.partitions {
            let partition_id = PartitionId { topic: id, index: partition.index };
            let changed = self.with_lane(partition_id, now, |lane, _| {
                if lane.partition.note_new_topic(uuid, partition.leader, partition.leader_epoch) {
                    return false;
                }
                lane.partition.on_topic_id(uuid, asked_at);
                let had_leader = lane.partition.leader.is_some();
                if lane.partition.adopt_leader(partition.leader, partition.leader_epoch) {
                    lane.unbind();
                }
                had_leader != lane.partition.leader.is_some()
            });
            news |= changed.unwrap_or(false);
        }
        if news {
            self.announce(id);
        }
    }

    /// A topic that was made anew has so many partitions; none of them has anything to do with the former.
    fn make_anew(&mut self, id: TopicId, count: usize, now: Instant) {
        let Some(topic) = self.topics.get_mut(id) else { return };
        topic.count = count.min(topic.lanes.len());
        let lanes: Vec<PartitionId> = topic.lanes.iter().map(|lane| lane.partition.id).collect();
        let reason = Reason::Broker {
            code: ErrorCode::INCONSISTENT_TOPIC_ID,
            message: Some("the topic was deleted and made anew".into()),
        };
        let no_more = Reason::Broker {
            code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            message: Some(format!("the topic was made anew with {count} partitions").into()),
        };
        for (index, lane) in lanes.into_iter().enumerate() {
            let gone = (index >= count).then(|| no_more.clone());
            let new = NewTopic { reason: reason.clone(), gone, told: None };
            self.with_lane(lane, now, |lane, _| lane.partition.on_new_topic(new));
        }
    }

    /// Gives a topic as many partitions as it has in the cluster; while it lives they never become fewer.
    fn grow(&mut self, id: TopicId, count: usize) -> bool {
        let Some(topic) = self.topics.get_mut(id) else { return false };
        for index in topic.lanes.len()..count {
            topic.lanes.push(Lane::new(PartitionId { topic: id, index: i32::try_from(index).unwrap_or(i32::MAX) }));
        }
        for lane in topic.lanes.iter_mut().take(count).skip(topic.count) {
            lane.partition.on_again();
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
                Reason::NotAvailable(why.unwrap_or_else(|| "nobody told of the topic in time".into()))
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
