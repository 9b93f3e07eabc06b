//! The sender: what comes in, what is to be done, and when to look again.
//!
//! Rules:
//! - Every method takes `now`; nothing here sleeps, spawns, reads a clock or touches a socket.
//! - `poll` is called until it says `None`, after every input and at `next_deadline`.
//! - Every record that was handed in settles exactly once.

use std::sync::Arc;
use std::time::Instant;

use super::backoff::Chance;
use super::cluster::{Brokers, Conns, Lane};
use super::config::{Config, ConfigError};
use super::connections::REFUSED_PAUSE;
use super::effects::{Context, Counters, Effects, LookAt, WantedLook};
use super::error_code::ErrorCode;
use super::look::{LogSearch, Look, LookAnswer, SearchAnswer};
use super::metadata::Metadata;
use super::outage::BrokerNews;
use super::timers::{Timer, Timers};
use super::topics::{TopicState, Topics};
use super::types::{Action, BrokerId, LookId, PartitionId, Reason, Submission, TopicId};

/// Where the producer id stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Identity {
    None,
    Asked,
    Waiting(Instant),
    Have(i64),
}

/// The pure core. `T` is the shell's own word for a batch.
#[derive(Debug)]
pub struct Sender<T> {
    pub(super) config: Config,
    pub(super) chance: Chance,
    pub(super) out: Effects<T>,
    pub(super) topics: Topics<T>,
    pub(super) brokers: Brokers,
    pub(super) conns: Conns,
    pub(super) metadata: Metadata,
    pub(super) timers: Timers,
    pub(super) next_conn: u64,
    pub(super) next_request: u64,
    pub(super) dirty: Vec<BrokerId>,
    pub(super) news: Vec<BrokerNews>,
    identity: Identity,
    identity_failures: u32,
    accepted: u64,
}

impl<T: Clone> Sender<T> {
    /// A sender with nothing to do. Errors: every setting out of its bounds.
    pub fn new(config: Config) -> Result<Self, Vec<ConfigError>> {
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            chance: Chance::new(config.seed),
            config,
            out: Effects::new(),
            topics: Topics::new(),
            brokers: Brokers::new(),
            conns: Conns::new(),
            metadata: Metadata::default(),
            timers: Timers::default(),
            next_conn: 0,
            next_request: 0,
            dirty: Vec::new(),
            news: Vec::new(),
            identity: Identity::None,
            identity_failures: 0,
            accepted: 0,
        })
    }

    /// Asks for a topic. Answered by `TopicReady` or `TopicFailed`; a topic that failed is asked for anew.
    pub fn want_topic(&mut self, now: Instant, name: &str) -> TopicId {
        let pending = TopicState::Pending(now + self.config.metadata_timeout);
        let id = self.topics.id(name).unwrap_or_else(|| self.topics.add(now, name));
        match self.topics.get(id).map(|topic| topic.state) {
            Some(TopicState::Ready) => self.announce(id),
            Some(TopicState::Failed) => {
                if let Some(topic) = self.topics.get_mut(id) {
                    topic.state = pending;
                    topic.code = 0;
                }
                self.timers.set(now + self.config.metadata_timeout, Timer::Topic(id));
                self.want_unknown(now, id);
            }
            Some(TopicState::Pending(_)) | None => {}
        }
        id
    }

    /// Takes a batch over. Its partition must have been announced by `TopicReady`; otherwise it comes back.
    pub fn on_sealed(&mut self, now: Instant, submission: Submission<T>) -> Result<(), Submission<T>> {
        let id = submission.partition;
        let uid = self.out.uid();
        let Some(lane) = self.topics.lane_mut(id) else { return Err(submission) };
        self.accepted += u64::from(submission.batch.record_count());
        lane.partition.enqueue(submission, uid);
        self.with_lane(id, now, |lane, cx| lane.partition.give_up_if_gone(cx));
        Ok(())
    }

    /// A producer id was given.
    pub fn on_producer_id(&mut self, now: Instant, producer_id: i64) {
        self.identity = Identity::Have(producer_id);
        self.identity_failures = 0;
        for id in self.topics.partitions() {
            if self.topics.lane(id).is_some_and(|lane| lane.partition.wants_producer_id()) {
                self.after_lane(id, now);
            }
        }
    }

    /// No producer id could be had. `code` is the broker's answer; without one nobody could be asked.
    pub fn on_producer_id_failed(&mut self, now: Instant, code: Option<ErrorCode>, why: &str) {
        self.identity_failures = self.identity_failures.saturating_add(1);
        let until = now + self.config.backoff.wait(self.identity_failures, &mut self.chance);
        self.pause_identity(until);
        let reason = match code {
            Some(code) => Reason::Broker { code, message: Some(format!("no producer id: {why}").into()) },
            None => Reason::NoProducerId(why.into()),
        };
        let is_final = code.is_some_and(|code| !code.is_retriable() && code != ErrorCode::UNKNOWN_SERVER_ERROR);
        for id in self.topics.partitions() {
            self.with_lane(id, now, |lane, cx| match lane.partition.wants_producer_id() {
                true if is_final => lane.partition.give_up_queue(&reason, cx),
                true => lane.partition.on_unreachable(cx.now, &reason),
                false => {}
            });
        }
    }

    /// No broker takes us, or none is to be trusted: what waits for a producer id fails at once, for `reason`.
    pub fn on_producer_id_refused(&mut self, now: Instant, reason: &Reason) {
        self.pause_identity(now + REFUSED_PAUSE);
        for id in self.topics.partitions() {
            self.with_lane(id, now, |lane, cx| {
                if lane.partition.wants_producer_id() {
                    lane.partition.give_up_queue(reason, cx);
                }
            });
        }
    }

    fn pause_identity(&mut self, until: Instant) {
        self.identity = Identity::Waiting(until);
        self.timers.set(until, Timer::Identity);
    }

    /// What the look at a leader's producer state found.
    pub fn on_looked(&mut self, now: Instant, partition: PartitionId, look: LookId, answer: LookAnswer) {
        self.with_lane(partition, now, |lane, cx| lane.partition.on_looked(look, answer, cx));
    }

    /// What the search of a partition's log found.
    pub fn on_searched(&mut self, now: Instant, partition: PartitionId, look: LookId, answer: &SearchAnswer) {
        self.with_lane(partition, now, |lane, cx| lane.partition.on_searched(look, answer, cx));
    }

    /// Gives up everything that is left, for `reason`.
    pub fn give_up_all(&mut self, now: Instant, reason: &Reason) {
        for id in self.topics.partitions() {
            self.with_lane(id, now, |lane, cx| lane.partition.give_up_all(reason, cx));
        }
    }

    /// Whether nothing of the partition is on its way, and the batch of this ordinal would be its next: sealed now, it
    /// would wait for no other.
    pub fn is_free_for(&self, id: PartitionId, ordinal: u64) -> bool {
        self.topics.lane(id).is_some_and(|lane| lane.partition.is_free_for(ordinal))
    }

    /// Records that have no verdict yet.
    pub fn unsettled(&self) -> u64 {
        self.accepted - self.out.counters.records_delivered - self.out.counters.records_failed
    }

    /// Whether there is a producer id.
    pub fn has_producer_id(&self) -> bool {
        self.producer_id().is_some()
    }

    /// How often things happened.
    pub fn counters(&self) -> &Counters {
        &self.out.counters
    }

    /// When `poll` is to be called again, if nothing comes in before.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// What is to be done now.
    pub fn poll(&mut self, now: Instant) -> Option<Action<T>> {
        loop {
            if let Some(action) = self.out.actions.pop_front() {
                return Some(action);
            }
            if let Some(timer) = self.timers.pop_due(now) {
                self.on_timer(now, timer);
            } else if self.out.has_wishes() {
                self.absorb(now);
            } else if let Some(broker) = self.dirty.pop() {
                self.pump(broker, now);
            } else if !self.ask_metadata(now) {
                return None;
            }
        }
    }

    fn on_timer(&mut self, now: Instant, timer: Timer) {
        match timer {
            Timer::Partition(id) => {
                if let Some(lane) = self.topics.lane_mut(id) {
                    lane.armed = lane.armed.filter(|at| *at > now);
                }
                let throttled = self.throttled(id);
                self.with_lane(id, now, |lane, cx| lane.partition.expire(throttled.as_ref(), cx));
            }
            Timer::Conn(id) => self.check_conn(now, id),
            Timer::Broker(id) => self.mark_dirty(id),
            Timer::Topic(id) => self.check_topic(now, id),
            Timer::Metadata => self.on_metadata_timer(now),
            Timer::Identity => {
                if matches!(self.identity, Identity::Waiting(until) if until <= now) {
                    self.identity = Identity::None;
                    if self.topics.iter().any(|t| t.lanes.iter().any(|l| l.partition.wants_producer_id())) {
                        self.ask_identity();
                    }
                }
            }
        }
    }

    /// Until when, and how, a partition's leader has throttled us, if it ever has.
    fn throttled(&self, id: PartitionId) -> Option<(Instant, Reason)> {
        let leader = self.topics.lane(id)?.partition.leader?;
        let broker = self.brokers.get(&leader)?;
        let reason = Reason::Throttled { broker: leader, last: broker.last_throttle };
        broker.throttled_until.map(|until| (until, reason))
    }

    /// Has a producer id asked for now, before the first batch needs it. While a failed request is waited for,
    /// nothing is asked.
    pub fn want_producer_id(&mut self) {
        self.ask_identity();
    }

    fn ask_identity(&mut self) {
        if self.identity == Identity::None {
            self.identity = Identity::Asked;
            self.out.actions.push_back(Action::InitProducerId);
        }
    }

    /// Runs a decision of one partition, then sees to what follows from its new state.
    pub(super) fn with_lane<R>(
        &mut self,
        id: PartitionId,
        now: Instant,
        decide: impl FnOnce(&mut Lane<T>, &mut Context<'_, T>) -> R,
    ) -> Option<R> {
        let producer_id = self.producer_id();
        let lane = self.topics.lane_mut(id)?;
        let mut cx = Context { now, config: &self.config, chance: &mut self.chance, out: &mut self.out, producer_id };
        let (was_turning, had_leader) = (lane.partition.is_turning(), lane.partition.leader.is_some());
        let result = decide(lane, &mut cx);
        let mut news = false;
        if lane.partition.turn(&mut cx) {
            lane.unbind();
            // Where it turns at once, whoever told of the new topic announces all of it.
            news = was_turning && had_leader != lane.partition.leader.is_some();
        }
        self.after_lane(id, now);
        if news {
            self.announce(id.topic);
        }
        Some(result)
    }

    pub(super) fn producer_id(&self) -> Option<i64> {
        match self.identity {
            Identity::Have(id) => Some(id),
            _ => None,
        }
    }

    /// Sees to timers, a producer id, a leader and a place in a ready list, as the partition's state asks.
    pub(super) fn after_lane(&mut self, id: PartitionId, now: Instant) {
        let delivery_timeout = self.config.delivery_timeout;
        let Some(lane) = self.topics.lane_mut(id) else { return };
        let waits = lane.partition.waits_until(now);
        let look_at = [waits, lane.partition.deadline(delivery_timeout)].into_iter().flatten().min();
        if let Some(at) = look_at.filter(|at| lane.armed.is_none_or(|armed| *at < armed)) {
            lane.armed = Some(at);
            self.timers.set(at, Timer::Partition(id));
        }
        let can_send = lane.partition.has_unsent() && waits.is_none() && !lane.queued;
        let wants_metadata = lane.partition.wants_metadata();
        let no_id = lane.partition.wants_producer_id();
        let used_up = no_id && matches!(self.identity, Identity::Have(id) if lane.partition.has_used_up(id));
        if used_up {
            self.identity = Identity::None;
        }
        if no_id {
            self.ask_identity();
        }
        if wants_metadata {
            self.want_metadata(now);
        } else if can_send {
            self.make_ready(id);
        }
    }

    /// Acts on what partitions asked for beyond themselves.
    fn absorb(&mut self, now: Instant) {
        if std::mem::take(&mut self.out.refresh_metadata) {
            self.want_metadata(now);
        }
        if self.out.retiring_id.take().is_some_and(|id| self.identity == Identity::Have(id)) {
            self.identity = Identity::None;
            self.ask_identity();
        }
        for wanted in std::mem::take(&mut self.out.looks) {
            self.look(now, wanted);
        }
    }

    /// Has a look made at the partition's leader, if there is one.
    fn look(&mut self, now: Instant, WantedLook { partition, look, at }: WantedLook) {
        let topic = self.topics.get(partition.topic).map(|topic| topic.name.clone());
        let lane = self.topics.lane(partition).map(|lane| &lane.partition);
        let led = lane.and_then(|known| Some((known.leader?, known.leader_epoch(), known.place.topic_uuid)));
        let (Some(topic), Some((id, leader_epoch, topic_uuid))) = (topic, led) else {
            return self.on_not_looked(now, partition, look, &at);
        };
        let Some(leader) = self.brokers.get(&id).map(|broker| broker.address.clone()) else {
            return self.on_not_looked(now, partition, look, &at);
        };
        self.out.actions.push_back(match at {
            LookAt::Producer(producer_id) => {
                Action::Look(Look { partition, topic, leader, leader_epoch, look, producer_id })
            }
            LookAt::Log(wanted) => {
                Action::SearchLog(LogSearch { partition, topic, topic_uuid, leader, leader_epoch, look, wanted })
            }
        });
    }

    fn on_not_looked(&mut self, now: Instant, partition: PartitionId, look: LookId, at: &LookAt) {
        match at {
            LookAt::Producer(_) => self.on_looked(now, partition, look, LookAnswer::Unavailable),
            LookAt::Log(_) => self.on_searched(now, partition, look, &SearchAnswer::Unavailable),
        }
    }

    pub(super) fn announce(&mut self, id: TopicId) {
        let Some(topic) = self.topics.get(id) else { return };
        let available = topic.lanes.iter().take(topic.count).map(|lane| lane.partition.leader.is_some()).collect();
        self.out.actions.push_back(Action::TopicReady { topic: id, available });
    }

    /// A topic's name.
    pub fn topic_name(&self, id: TopicId) -> Option<Arc<str>> {
        self.topics.get(id).map(|topic| topic.name.clone())
    }
}
