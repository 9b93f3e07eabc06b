//! The sender: inputs from the driver, actions for the driver, and the next deadline.
//!
//! Rules:
//!  - Every method takes `now`. Nothing here sleeps, spawns, reads a clock or touches a socket.
//!  - The driver calls `poll` until it returns `None`: after every input, and at `next_deadline`.
//!  - Every submitted record is settled exactly once.

mod connections;
mod lookups;
mod metadata;
mod outages;
mod producer_id;
mod schedule;
mod views;

use std::sync::Arc;
use std::time::Instant;

use kafka_courier_client::{PartitionId, Reason, TopicId};

use super::backoff::JitterRng;
use super::cluster::KnownCluster;
use super::config::{Config, ConfigError};
use super::effects::{Context, Counters, Effects};
use super::ids::MoveId;
use super::lane::PartitionLane;
use super::metadata::MetadataRequests;
use super::outage::OutageReport;
use super::producer_ids::ProducerIds;
use super::timers::{Timer, Timers};
use super::topics::{KnownTopics, TopicState};
use super::types::{Action, Submission};

/// The pure core. `T` is the token that the driver gives to a batch.
#[derive(Debug)]
pub struct Sender<T> {
    config: Config,
    jitter: JitterRng,
    out: Effects<T>,
    topics: KnownTopics<T>,
    cluster: KnownCluster,
    metadata: MetadataRequests,
    producer_ids: ProducerIds,
    timers: Timers,
    outage_reports: Vec<OutageReport>,
    accepted: u64,
    /// Whether some batch was stored.
    has_stored: bool,
    /// The wall clock in milliseconds since the Unix epoch, as the driver read it last.
    wall_clock: Option<i64>,
    /// When that was.
    wall_clock_at: Option<Instant>,
}

/// The difference between the clocks from which on the time of the last acceptance counts no longer, in milliseconds.
const CLOCK_JUMP_MS: u64 = 10_000;

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
            cluster: KnownCluster::new(),
            metadata: MetadataRequests::default(),
            producer_ids: ProducerIds::new(),
            timers: Timers::default(),
            outage_reports: Vec::new(),
            accepted: 0,
            has_stored: false,
            wall_clock: None,
            wall_clock_at: None,
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
                    topic.error = None;
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
        self.has_stored |= submission.stored.is_some();
        lane.partition.enqueue(submission, uid);
        self.with_lane(id, now, |lane, cx| lane.partition.fail_if_removed(cx));
        Ok(())
    }

    /// Returns whether the sender needs the wall clock: some batch was stored, and stored batches wait for any time.
    pub fn needs_wall_clock(&self) -> bool {
        self.has_stored
    }

    /// Notes the wall clock, in milliseconds since the Unix epoch. `now` stops while the machine is suspended, and leaders
    /// forget producer ids meanwhile.
    pub fn set_wall_clock(&mut self, now: Instant, wall_clock: i64) {
        let before = self.wall_clock.replace(wall_clock).zip(self.wall_clock_at.replace(now));
        let Some((wall_clock_before, at)) = before else { return };
        let passed = i64::try_from(now.saturating_duration_since(at).as_millis()).unwrap_or(i64::MAX);
        let jump = wall_clock.saturating_sub(wall_clock_before).saturating_sub(passed);
        if jump.unsigned_abs() >= CLOCK_JUMP_MS {
            for id in self.topics.partitions() {
                self.with_lane(id, now, |lane, _| lane.partition.on_clock_jump());
            }
        }
    }

    /// Handles the news that requested stamps, or a requested leader epoch, are durable.
    pub fn on_persisted(&mut self, now: Instant, partition: PartitionId, id: MoveId) {
        self.with_lane(partition, now, |lane, _| lane.partition.on_persisted(id));
    }

    /// Fails all batches without a verdict, with `reason`. Stored batches return to their log.
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

    /// Returns the epoch of the leader to which the partition's batches are sent. `None` if it is unknown or in doubt.
    pub fn leader_epoch(&self, id: PartitionId) -> Option<i32> {
        self.topics.lane(id)?.partition.leader_epoch()
    }

    /// Returns the number of records without a verdict.
    pub fn unsettled(&self) -> u64 {
        let counters = &self.out.counters;
        self.accepted - counters.records_delivered - counters.records_failed - counters.records_stored
    }

    /// Returns whether the sender has a producer id.
    pub fn has_producer_id(&self) -> bool {
        self.producer_ids.assigned().is_some()
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
            } else if let Some(broker) = self.cluster.pop_dirty() {
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
                    lane.disarm(now);
                }
                let throttled = self.throttled(id);
                self.with_lane(id, now, |lane, cx| lane.partition.expire(throttled.as_ref(), cx));
            }
            Timer::Conn(id) => self.check_conn(now, id),
            Timer::Broker(id) => self.cluster.mark_dirty(id),
            Timer::Topic(id) => self.check_topic(now, id),
            Timer::Metadata => self.metadata.on_timer(now),
            Timer::Identity => self.on_producer_id_timer(now),
        }
    }

    /// Returns the end of the last throttling by the leader of a partition, and the reason for verdicts. `None` if the
    /// leader never throttled this client.
    fn throttled(&self, id: PartitionId) -> Option<(Instant, Reason)> {
        let leader = self.topics.lane(id)?.partition.leader()?;
        let broker = self.cluster.broker(leader)?;
        let reason = Reason::Throttled { broker: leader, last: broker.last_throttle() };
        broker.throttled_until().map(|until| (until, reason))
    }

    /// Runs a decision of one partition and applies the consequences of its new state.
    fn with_lane<R>(
        &mut self,
        id: PartitionId,
        now: Instant,
        decide: impl FnOnce(&mut PartitionLane<T>, &mut Context<'_, T>) -> R,
    ) -> Option<R> {
        let producer_id = self.producer_ids.assigned();
        let lane = self.topics.lane_mut(id)?;
        let (config, jitter, out) = (&self.config, &mut self.jitter, &mut self.out);
        let mut cx = Context { now, wall_clock: self.wall_clock, config, jitter, out, producer_id };
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

    /// Sets the timer of a partition, and requests a producer id, metadata or a place in a ready list, as its state
    /// requires.
    fn after_lane(&mut self, id: PartitionId, now: Instant) {
        let delivery_timeout = self.config.delivery_timeout;
        let Some(lane) = self.topics.lane_mut(id) else { return };
        let waits = lane.partition.backoff_end(now);
        let look_at = [waits, lane.partition.deadline(delivery_timeout)].into_iter().flatten().min();
        if let Some(at) = lane.arm(look_at) {
            self.timers.set(at, Timer::Partition(id));
        }
        let can_send = lane.partition.has_unsent() && waits.is_none() && !lane.is_queued();
        let wants_metadata = lane.partition.wants_metadata();
        let no_id = lane.partition.wants_producer_id();
        let used_up = self.producer_ids.assigned().filter(|id| no_id && lane.partition.has_used_up(*id));
        if let Some(id) = used_up {
            self.producer_ids.forget(id);
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
        if self.out.retiring_id.take().is_some_and(|id| self.producer_ids.forget(id)) {
            self.request_producer_id();
        }
        for request in std::mem::take(&mut self.out.lookups) {
            self.start_lookup(now, request);
        }
    }

    fn announce(&mut self, id: TopicId) {
        let Some(topic) = self.topics.get(id) else { return };
        let available = topic.available();
        self.out.actions.push_back(Action::TopicReady { topic: id, available });
    }

    /// Begins all ids of this sender at `first`. The senders of a simulation with several processes share the ids of one
    /// network.
    #[doc(hidden)]
    pub fn start_ids_at(&mut self, first: u64) {
        self.out.start_ids_at(first);
        self.cluster.start_ids_at(first);
    }

    /// Returns the first partition whose states contradict each other, and how. The driver never calls this
    /// method, and a simulation does.
    #[doc(hidden)]
    pub fn inconsistency(&self) -> Option<(PartitionId, &'static str)> {
        let lanes = self.topics.iter().flat_map(|topic| topic.lanes());
        lanes.map(|lane| &lane.partition).find_map(|partition| Some((partition.id, partition.inconsistency()?)))
    }

    /// Returns the name of a topic.
    pub fn topic_name(&self, id: TopicId) -> Option<Arc<str>> {
        self.topics.get(id).map(|topic| topic.name.clone())
    }
}
