//! The sender: inputs from the driver, actions for the driver, and the next deadline.
//!
//! Rules:
//!  - Every method takes `now`. Nothing here sleeps, spawns, reads a clock or touches a socket.
//!  - The driver calls `poll` until it returns `None`: after every input, and at `next_deadline`.
//!  - Every submitted record is settled exactly once.

use std::sync::Arc;
use std::time::Instant;

use kafka_courier_client::refusals::REFUSED_PAUSE;
use kafka_courier_client::{BrokerId, ErrorCode, PartitionId, Reason, TopicId};

use super::backoff::JitterRng;
use super::cluster::{BrokerConns, KnownBrokers, PartitionLane};
use super::config::{Config, ConfigError};
use super::effects::{Context, Counters, Effects, LookupRequest, LookupTarget};
use super::lookup::{LogSearch, SearchAnswer, StateLookup, StateLookupAnswer};
use super::metadata::Metadata;
use super::outage::OutageReport;
use super::timers::{Timer, Timers};
use super::topics::{KnownTopics, TopicState};
use super::types::{Action, LookupId, Submission};

/// The state of the producer id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ProducerIdState {
    None,
    Requested,
    Paused(Instant),
    Assigned(i64),
}

/// The pure core. `T` is the token that the driver gives to a batch.
#[derive(Debug)]
pub struct Sender<T> {
    pub(super) config: Config,
    pub(super) jitter: JitterRng,
    pub(super) out: Effects<T>,
    pub(super) topics: KnownTopics<T>,
    pub(super) brokers: KnownBrokers,
    pub(super) conns: BrokerConns,
    pub(super) metadata: Metadata,
    pub(super) timers: Timers,
    pub(super) next_conn: u64,
    pub(super) next_request: u64,
    pub(super) dirty: Vec<BrokerId>,
    pub(super) news: Vec<OutageReport>,
    producer_id_state: ProducerIdState,
    producer_id_failures: u32,
    accepted: u64,
}

impl<T: Clone> Sender<T> {
    /// Creates a sender without topics and batches.
    ///
    /// # Errors
    /// Returns every setting that is out of bounds.
    pub fn new(config: Config) -> Result<Self, Vec<ConfigError>> {
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            jitter: JitterRng::new(config.seed),
            config,
            out: Effects::new(),
            topics: KnownTopics::new(),
            brokers: KnownBrokers::new(),
            conns: BrokerConns::new(),
            metadata: Metadata::default(),
            timers: Timers::default(),
            next_conn: 0,
            next_request: 0,
            dirty: Vec::new(),
            news: Vec::new(),
            producer_id_state: ProducerIdState::None,
            producer_id_failures: 0,
            accepted: 0,
        })
    }

    /// Requests a topic. `TopicReady` or `TopicFailed` follows. A topic that failed is requested again.
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
                self.want_unknown_topic(now, id);
            }
            Some(TopicState::Pending(_)) | None => {}
        }
        id
    }

    /// Takes a batch for delivery.
    ///
    /// # Errors
    /// Returns the batch if `TopicReady` has not announced its partition.
    pub fn on_sealed(&mut self, now: Instant, submission: Submission<T>) -> Result<(), Submission<T>> {
        let id = submission.partition;
        let uid = self.out.new_uid();
        let Some(lane) = self.topics.lane_mut(id) else { return Err(submission) };
        self.accepted += u64::from(submission.batch.record_count());
        lane.partition.enqueue(submission, uid);
        self.with_lane(id, now, |lane, cx| lane.partition.fail_if_removed(cx));
        Ok(())
    }

    /// Handles the producer id that the cluster assigned.
    pub fn on_producer_id(&mut self, now: Instant, producer_id: i64) {
        self.producer_id_state = ProducerIdState::Assigned(producer_id);
        self.producer_id_failures = 0;
        for id in self.topics.partitions() {
            if self.topics.lane(id).is_some_and(|lane| lane.partition.wants_producer_id()) {
                self.after_lane(id, now);
            }
        }
    }

    /// Handles a failed request for a producer id. `code` is the error of the broker, or `None` if no broker answered.
    pub fn on_producer_id_failed(&mut self, now: Instant, code: Option<ErrorCode>, why: &str) {
        self.producer_id_failures = self.producer_id_failures.saturating_add(1);
        let until = now + self.config.backoff.wait(self.producer_id_failures, &mut self.jitter);
        self.pause_producer_id(until);
        let reason = match code {
            Some(code) => Reason::Broker { code, message: Some(format!("no producer id: {why}").into()) },
            None => Reason::NoProducerId(why.into()),
        };
        let is_final = code.is_some_and(|code| !code.is_retriable() && code != ErrorCode::UNKNOWN_SERVER_ERROR);
        for id in self.topics.partitions() {
            self.with_lane(id, now, |lane, cx| match lane.partition.wants_producer_id() {
                true if is_final => lane.partition.fail_queue(&reason, cx),
                true => lane.partition.on_unreachable(cx.now, &reason),
                false => {}
            });
        }
    }

    /// Handles the refusal of this client by the brokers, or of the brokers by this client. Batches that wait for a
    /// producer id fail immediately with `reason`.
    pub fn on_producer_id_refused(&mut self, now: Instant, reason: &Reason) {
        self.pause_producer_id(now + REFUSED_PAUSE);
        for id in self.topics.partitions() {
            self.with_lane(id, now, |lane, cx| {
                if lane.partition.wants_producer_id() {
                    lane.partition.fail_queue(reason, cx);
                }
            });
        }
    }

    fn pause_producer_id(&mut self, until: Instant) {
        self.producer_id_state = ProducerIdState::Paused(until);
        self.timers.set(until, Timer::Identity);
    }

    /// Handles the result of a producer state lookup.
    pub fn on_state_lookup(&mut self, now: Instant, partition: PartitionId, look: LookupId, answer: StateLookupAnswer) {
        self.with_lane(partition, now, |lane, cx| lane.partition.on_state_lookup(look, answer, cx));
    }

    /// Handles the result of a log search.
    pub fn on_log_search(&mut self, now: Instant, partition: PartitionId, look: LookupId, answer: &SearchAnswer) {
        self.with_lane(partition, now, |lane, cx| lane.partition.on_log_search(look, answer, cx));
    }

    /// Fails all batches without a verdict, with `reason`.
    pub fn fail_all(&mut self, now: Instant, reason: &Reason) {
        for id in self.topics.partitions() {
            self.with_lane(id, now, |lane, cx| lane.partition.fail_all(reason, cx));
        }
    }

    /// Returns whether the partition has no batch without a verdict, and the batch with this ordinal is its next. If
    /// that batch were sealed now, it would wait for no other batch.
    pub fn is_free_for(&self, id: PartitionId, ordinal: u64) -> bool {
        self.topics.lane(id).is_some_and(|lane| lane.partition.is_free_for(ordinal))
    }

    /// Returns the number of records without a verdict.
    pub fn unsettled(&self) -> u64 {
        self.accepted - self.out.counters.records_delivered - self.out.counters.records_failed
    }

    /// Returns whether the sender has a producer id.
    pub fn has_producer_id(&self) -> bool {
        self.producer_id().is_some()
    }

    /// Returns the counters.
    pub fn counters(&self) -> &Counters {
        &self.out.counters
    }

    /// Returns the time of the next `poll`, if no input arrives earlier.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Returns the next action.
    pub fn poll(&mut self, now: Instant) -> Option<Action<T>> {
        loop {
            if let Some(action) = self.out.actions.pop_front() {
                return Some(action);
            }
            if let Some(timer) = self.timers.pop_due(now) {
                self.on_timer(now, timer);
            } else if self.out.has_requests() {
                self.apply_effects(now);
            } else if let Some(broker) = self.dirty.pop() {
                self.pump(broker, now);
            } else if !self.request_metadata(now) {
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
                if matches!(self.producer_id_state, ProducerIdState::Paused(until) if until <= now) {
                    self.producer_id_state = ProducerIdState::None;
                    if self.topics.iter().any(|t| t.lanes.iter().any(|l| l.partition.wants_producer_id())) {
                        self.request_producer_id();
                    }
                }
            }
        }
    }

    /// Returns the end of the last throttling by the leader of a partition, and the reason for verdicts. `None` if the
    /// leader never throttled this client.
    fn throttled(&self, id: PartitionId) -> Option<(Instant, Reason)> {
        let leader = self.topics.lane(id)?.partition.leader()?;
        let broker = self.brokers.get(&leader)?;
        let reason = Reason::Throttled { broker: leader, last: broker.last_throttle };
        broker.throttled_until.map(|until| (until, reason))
    }

    /// Requests a producer id before the first batch needs one. Does nothing during the pause after a failed request.
    pub fn want_producer_id(&mut self) {
        self.request_producer_id();
    }

    fn request_producer_id(&mut self) {
        if self.producer_id_state == ProducerIdState::None {
            self.producer_id_state = ProducerIdState::Requested;
            self.out.actions.push_back(Action::InitProducerId);
        }
    }

    /// Runs a decision of one partition and applies the consequences of its new state.
    pub(super) fn with_lane<R>(
        &mut self,
        id: PartitionId,
        now: Instant,
        decide: impl FnOnce(&mut PartitionLane<T>, &mut Context<'_, T>) -> R,
    ) -> Option<R> {
        let producer_id = self.producer_id();
        let lane = self.topics.lane_mut(id)?;
        let mut cx = Context { now, config: &self.config, jitter: &mut self.jitter, out: &mut self.out, producer_id };
        let (was_switching, had_leader) = (lane.partition.is_switching(), lane.partition.leader().is_some());
        let result = decide(lane, &mut cx);
        let mut must_announce = false;
        if lane.partition.switch_topic(&mut cx) {
            lane.unbind();
            // If the partition switches immediately, the caller announces the whole topic.
            must_announce = was_switching && had_leader != lane.partition.leader().is_some();
        }
        self.after_lane(id, now);
        if must_announce {
            self.announce(id.topic);
        }
        Some(result)
    }

    pub(super) fn producer_id(&self) -> Option<i64> {
        match self.producer_id_state {
            ProducerIdState::Assigned(id) => Some(id),
            _ => None,
        }
    }

    /// Sets the timer of a partition, and requests a producer id, metadata or a place in a ready list, as its state
    /// requires.
    pub(super) fn after_lane(&mut self, id: PartitionId, now: Instant) {
        let delivery_timeout = self.config.delivery_timeout;
        let Some(lane) = self.topics.lane_mut(id) else { return };
        let waits = lane.partition.backoff_end(now);
        let look_at = [waits, lane.partition.deadline(delivery_timeout)].into_iter().flatten().min();
        if let Some(at) = look_at.filter(|at| lane.armed.is_none_or(|armed| *at < armed)) {
            lane.armed = Some(at);
            self.timers.set(at, Timer::Partition(id));
        }
        let can_send = lane.partition.has_unsent() && waits.is_none() && !lane.queued;
        let wants_metadata = lane.partition.wants_metadata();
        let no_id = lane.partition.wants_producer_id();
        let used_up =
            no_id && matches!(self.producer_id_state, ProducerIdState::Assigned(id) if lane.partition.has_used_up(id));
        if used_up {
            self.producer_id_state = ProducerIdState::None;
        }
        if no_id {
            self.request_producer_id();
        }
        if wants_metadata {
            self.want_metadata(now);
        } else if can_send {
            self.make_ready(id);
        }
    }

    /// Applies the effects that partitions recorded.
    fn apply_effects(&mut self, now: Instant) {
        if std::mem::take(&mut self.out.refresh_metadata) {
            self.want_metadata(now);
        }
        if self.out.retiring_id.take().is_some_and(|id| self.producer_id_state == ProducerIdState::Assigned(id)) {
            self.producer_id_state = ProducerIdState::None;
            self.request_producer_id();
        }
        for request in std::mem::take(&mut self.out.lookups) {
            self.start_lookup(now, request);
        }
    }

    /// Starts a lookup at the leader of the partition, if there is one.
    fn start_lookup(&mut self, now: Instant, LookupRequest { partition, id: look, target }: LookupRequest) {
        let topic = self.topics.get(partition.topic).map(|topic| topic.name.clone());
        let lane = self.topics.lane(partition).map(|lane| &lane.partition);
        let led = lane.and_then(|known| Some((known.leader()?, known.leader_epoch(), known.log().topic_uuid)));
        let (Some(topic), Some((id, leader_epoch, topic_uuid))) = (topic, led) else {
            return self.fail_lookup(now, partition, look, &target);
        };
        let Some(leader) = self.brokers.get(&id).map(|broker| broker.address.clone()) else {
            return self.fail_lookup(now, partition, look, &target);
        };
        let leader_epoch = leader_epoch.unwrap_or(-1);
        self.out.actions.push_back(match target {
            LookupTarget::Producer(producer_id) => {
                Action::LookUpState(StateLookup { partition, topic, leader, leader_epoch, look, producer_id })
            }
            LookupTarget::Log(wanted) => {
                Action::SearchLog(LogSearch { partition, topic, topic_uuid, leader, leader_epoch, look, wanted })
            }
        });
    }

    fn fail_lookup(&mut self, now: Instant, partition: PartitionId, look: LookupId, target: &LookupTarget) {
        match target {
            LookupTarget::Producer(_) => self.on_state_lookup(now, partition, look, StateLookupAnswer::Unavailable),
            LookupTarget::Log(_) => self.on_log_search(now, partition, look, &SearchAnswer::Unavailable),
        }
    }

    pub(super) fn announce(&mut self, id: TopicId) {
        let Some(topic) = self.topics.get(id) else { return };
        let available = topic.lanes.iter().take(topic.count).map(|lane| lane.partition.leader().is_some()).collect();
        self.out.actions.push_back(Action::TopicReady { topic: id, available });
    }

    /// Returns the first partition whose states contradict each other, and how. The driver never calls this
    /// method, and a simulation does.
    #[doc(hidden)]
    pub fn inconsistency(&self) -> Option<(PartitionId, &'static str)> {
        let lanes = self.topics.iter().flat_map(|topic| &topic.lanes);
        lanes.map(|lane| &lane.partition).find_map(|partition| Some((partition.id, partition.inconsistency()?)))
    }

    /// Returns the name of a topic.
    pub fn topic_name(&self, id: TopicId) -> Option<Arc<str>> {
        self.topics.get(id).map(|topic| topic.name.clone())
    }
}
