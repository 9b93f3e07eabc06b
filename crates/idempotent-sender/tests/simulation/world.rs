//! The simulated world in virtual time: the sender's actions become events, and events become the sender's inputs.
//!
//! Rules:
//! - Events are handled one at a time, in the order of their times. Between two events the sender acts until it has no action.
//! - The world does not judge the sender: `history` records, and `checker` judges.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use kafka_courier_batcher::BufferPool;
use kafka_courier_client::{ClusterMetadata, ErrorCode, PartitionId, ProduceAnswer, Reason, TopicId};
use kafka_courier_idempotent_sender::core::{
    Action, ConnId, LogSearch, RequestId, SearchAnswer, Sender, StateLookup, StateLookupAnswer, Submission,
};

use crate::cluster::{
    BROKERS, Broker, Micros, PARTITIONS, PARTITIONS_AT_FIRST, Partition, TOPICS, partition_of, topic_and_index,
    topic_name,
};
use crate::faults::Fault;
use crate::history::History;
use crate::link::Link;
use crate::lives::{LifeEnd, Lives};
use crate::machine::Machine;
use crate::plan::Plan;
use crate::produce::DelayedProduce;
use crate::rng::Rng;

/// A schedule with more events than this is regarded as endless.
const MAX_STEPS: u64 = 2_000_000;

#[derive(Debug)]
pub(crate) enum Event {
    Submit(usize),
    SubmitSealed(Box<Submission<usize>>),
    SubmitAgain(Box<Submission<usize>>),
    Fault(Fault),
    Heal,
    IdleCheck(ConnId),
    Close,
    Connected(ConnId, bool),
    Written(ConnId, RequestId),
    Arrive(ConnId, RequestId),
    Serve(ConnId),
    ProduceTimeout(u64),
    Answer(ConnId, RequestId, ProduceAnswer),
    Closed(ConnId),
    SessionOver(ConnId),
    Fetch(usize, usize),
    Update(usize, usize),
    Fence(usize, u32, u32),
    Unfence(usize, u32, u32),
    Resume(usize, u32),
    Restart(usize),
    RestoreDisk(usize, usize),
    LiftLimits(usize),
    CheckIsr(usize, usize, i32),
    ServeMetadata(usize, Vec<usize>),
    Metadata(Option<ClusterMetadata>),
    MetadataRefused,
    ProducerId(Result<i64, i16>),
    ServeLook(Box<StateLookup>),
    LookAnswered(Box<StateLookup>, StateLookupAnswer),
    CheckIds {
        again: bool,
    },
    ServeSearch(Box<LogSearch>),
    SearchAnswered(Box<LogSearch>, SearchAnswer),
    LogWritten(u64),
    /// The process's machine is suspended for this time.
    Suspend(Micros),
    /// The clock of the process's machine is corrected.
    CorrectClock(u64),
    EndLife(LifeEnd),
    StartLife,
}

impl Event {
    /// Returns whether the event waits while the machine of the process is suspended.
    pub(crate) fn is_of_machine(&self) -> bool {
        let is_local = matches!(
            self,
            Self::Submit(_) | Self::SubmitSealed(_) | Self::LogWritten(_) | Self::EndLife(_) | Self::StartLife
        );
        is_local || self.is_of_client()
    }

    /// Returns whether the event is lost with the process.
    fn is_of_client(&self) -> bool {
        matches!(
            self,
            Self::SubmitAgain(_)
                | Self::Connected(..)
                | Self::Written(..)
                | Self::Answer(..)
                | Self::Closed(_)
                | Self::ServeMetadata(..)
                | Self::Metadata(_)
                | Self::MetadataRefused
                | Self::ProducerId(_)
                | Self::ServeLook(_)
                | Self::LookAnswered(..)
                | Self::ServeSearch(_)
                | Self::SearchAnswered(..)
        )
    }
}

struct Scheduled {
    at: Micros,
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) now: Micros,
    pub(crate) rng: Rng,
    pub(crate) sender: Sender<usize>,
    pub(crate) brokers: Vec<Broker>,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) links: BTreeMap<ConnId, Link>,
    pub(crate) delayed: BTreeMap<u64, DelayedProduce>,
    pub(crate) next_delayed: u64,
    pub(crate) next_append: u64,
    /// The time at which the request was sent that is served now.
    pub(crate) served_since: Micros,
    /// The longest time that a request with a record was on its way.
    pub(crate) delays: BTreeMap<u32, Micros>,
    pub(crate) next_producer_id: i64,
    pub(crate) history: History,
    pub(crate) pool: BufferPool,
    pub(crate) submitting: bool,
    /// The number of batches that are opened but not submitted to the sender.
    pub(crate) unsubmitted: u32,
    pub(crate) healed: bool,
    pub(crate) tracing: bool,
    pub(crate) metadata_requests: u64,
    /// The processes of the schedule, if batches are stored.
    pub(crate) lives: Option<Lives>,
    pub(crate) machine: Machine,
    base: Instant,
    queue: BinaryHeap<Scheduled>,
    order: u64,
    steps: u64,
    /// The number of each topic's partitions that the sender has reported, the number before that, and the time of the
    /// change.
    pub(crate) partition_counts: [(usize, usize, Micros); TOPICS],
}

/// The wall clock at the schedule's start, in milliseconds since the Unix epoch.
pub(crate) const STARTED_MS: i64 = 1_700_000_000_000;

impl World {
    pub(crate) fn new(plan: Plan, tracing: bool) -> Result<Self, String> {
        let sender = Sender::new(plan.config.clone()).map_err(|problems| format!("{problems:?}"))?;
        let leader = |p| (p < TOPICS * PARTITIONS_AT_FIRST).then_some(p % BROKERS);
        let partitions: Vec<Partition> = (0..PARTITIONS).map(|p| Partition::new(leader(p))).collect();
        let views = std::array::from_fn(|p| partitions[p].truth);
        let mut world = Self {
            now: 0,
            rng: Rng::new(plan.seed),
            sender,
            brokers: (0..BROKERS).map(|_| Broker::new(views)).collect(),
            partitions,
            links: BTreeMap::new(),
            delayed: BTreeMap::new(),
            next_delayed: 0,
            next_append: 0,
            served_since: 0,
            delays: BTreeMap::new(),
            next_producer_id: 4000,
            history: History::default(),
            pool: BufferPool::new(1 << 20),
            submitting: false,
            unsubmitted: 0,
            healed: false,
            tracing,
            metadata_requests: 0,
            lives: (!plan.lives.is_empty()).then(Lives::default),
            machine: Machine::default(),
            base: Instant::now(),
            queue: BinaryHeap::new(),
            order: 0,
            steps: 0,
            partition_counts: [(0, 0, 0); TOPICS],
            plan,
        };
        world.begin();
        Ok(world)
    }

    fn begin(&mut self) {
        for (at, fault) in std::mem::take(&mut self.plan.faults) {
            self.schedule_at(at, Event::Fault(fault));
        }
        self.schedule_at(self.plan.heal_at, Event::Heal);
        for (at, time) in std::mem::take(&mut self.plan.suspensions) {
            self.schedule_at(at, Event::Suspend(time));
        }
        for end in std::mem::take(&mut self.plan.lives) {
            self.schedule_at(end.at, Event::EndLife(end));
        }
        if let Some(close_at) = self.plan.close_at {
            self.schedule_at(close_at, Event::Close);
        }
        if self.plan.rules.id_expiration_ms.is_some() {
            self.schedule_after(self.plan.rules.id_check, Event::CheckIds { again: true });
        }
        for partition in 0..PARTITIONS {
            if let Some(leader) = self.partitions[partition].truth.leader {
                self.schedule_after(self.plan.rules.replica_lag_max, Event::CheckIsr(leader, partition, 1));
            }
        }
        for topic in 0..TOPICS {
            self.sender.want_topic(self.base, topic_name(topic));
        }
    }

    pub(crate) fn instant(&self) -> Instant {
        self.base + Duration::from_micros(self.now.max(self.machine.suspended_until) - self.machine.stopped)
    }

    /// Converts an instant to virtual time. The result is rounded up, so a deadline has passed at that time.
    pub(crate) fn micros(&self, instant: Instant) -> Micros {
        instant.saturating_duration_since(self.base).as_nanos().div_ceil(1000) as Micros + self.machine.stopped
    }

    pub(crate) fn schedule_at(&mut self, at: Micros, event: Event) {
        self.order += 1;
        self.queue.push(Scheduled { at: at.max(self.now), order: self.order, event });
    }

    pub(crate) fn schedule_after(&mut self, wait: Micros, event: Event) {
        self.schedule_at(self.now + wait, event);
    }

    pub(crate) fn trace(&self, message: impl FnOnce() -> String) {
        if self.tracing {
            eprintln!("{:>12.6} {}", self.now as f64 / 1e6, message());
        }
    }

    /// Runs until `until`, or returns the first violation.
    pub(crate) fn run_until(&mut self, until: Micros) -> Result<(), String> {
        self.perform_actions()?;
        while let Some(at) = self.next_time().filter(|at| *at <= until) {
            self.step(at)?;
        }
        self.now = self.now.max(until);
        Ok(())
    }

    pub(crate) fn run_for(&mut self, time: Micros) -> Result<(), String> {
        self.run_until(self.now + time)
    }

    /// Runs while `condition` holds, at most until `until`. Returns whether the condition has ended.
    pub(crate) fn run_while(&mut self, until: Micros, condition: impl Fn(&Self) -> bool) -> Result<bool, String> {
        self.perform_actions()?;
        while condition(self) {
            match self.next_time().filter(|at| *at <= until) {
                Some(at) => self.step(at)?,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    fn next_time(&self) -> Option<Micros> {
        let event = self.queue.peek().map(|scheduled| scheduled.at);
        let deadline = self.sender.next_deadline().map(|at| self.micros(at).max(self.now));
        [event, deadline].into_iter().flatten().min()
    }

    fn step(&mut self, at: Micros) -> Result<(), String> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(format!("the schedule does not end after {MAX_STEPS} events"));
        }
        self.now = self.now.max(at);
        if self.queue.peek().is_some_and(|scheduled| scheduled.at <= at)
            && let Some(Scheduled { event, .. }) = self.queue.pop()
        {
            self.handle(event)?;
        }
        self.perform_actions()
    }

    fn handle(&mut self, event: Event) -> Result<(), String> {
        if self.waits_for_machine(&event) {
            self.schedule_at(self.machine.suspended_until, event);
            return Ok(());
        }
        let now = self.instant();
        match event {
            Event::Submit(batch) => self.submit_from_plan(batch)?,
            Event::SubmitSealed(submission) => {
                self.unsubmitted -= 1;
                self.submit_sealed(*submission)?;
            }
            Event::SubmitAgain(submission) => {
                self.unsubmitted -= 1;
                self.submit_to_sender(*submission)?;
            }
            Event::Fault(fault) => self.inject(fault),
            Event::Heal => self.heal_after_enough_faults(),
            Event::Close => {
                self.history.closed_at = Some(self.now);
                self.sender.fail_all(now, &Reason::Closed);
            }
            Event::IdleCheck(conn) => self.close_if_idle(conn),
            Event::Connected(conn, ok) => self.finish_connect(conn, ok),
            Event::Written(conn, request) => self.finish_write(conn, request),
            Event::Arrive(conn, request) => self.arrive(conn, request)?,
            Event::Serve(conn) => self.serve(conn)?,
            Event::ProduceTimeout(id) => self.time_out_produce(id),
            Event::Answer(conn, request, answer) => self.deliver_answer(conn, request, answer),
            Event::Closed(conn) => self.finish_close(conn),
            Event::SessionOver(conn) => self.end_session(conn),
            Event::Fetch(partition, follower) => self.fetch(partition, follower),
            Event::Update(broker, partition) => self.apply_update(broker, partition),
            Event::Fence(broker, incarnation, pauses) => self.fence_if_unchanged(broker, incarnation, pauses),
            Event::Unfence(broker, incarnation, pauses) => self.unfence_if_unchanged(broker, incarnation, pauses),
            Event::Resume(broker, pauses) => self.resume(broker, pauses),
            Event::Restart(broker) => self.restart(broker),
            Event::RestoreDisk(broker, partition) => self.restore_disk(broker, partition),
            Event::LiftLimits(partition) => self.lift_limits(partition),
            Event::CheckIsr(broker, partition, epoch) => self.check_isr(broker, partition, epoch),
            Event::ServeMetadata(broker, topics) => self.serve_metadata(broker, &topics),
            Event::Metadata(Some(cluster)) => self.deliver_metadata(cluster),
            Event::Metadata(None) => {
                self.history.pace.metadata.note_failure(self.now);
                self.sender.on_metadata_failed(now, "no broker is reachable");
            }
            Event::MetadataRefused => self.refuse_metadata(),
            Event::ProducerId(Ok(id)) => {
                self.history.pace.producer_id.note_answer(self.now, false);
                self.sender.on_producer_id(now, id);
            }
            Event::ProducerId(Err(58)) => self.refuse_producer_id(),
            Event::ProducerId(Err(code)) => {
                self.history.pace.producer_id.note_answer(self.now, true);
                let code = (code != 0).then_some(ErrorCode(code));
                self.sender.on_producer_id_failed(now, code, "injected fault");
            }
            Event::ServeLook(look) => self.serve_look(*look),
            Event::LookAnswered(look, answer) => {
                let StateLookup { partition, look, leader, leader_epoch, .. } = *look;
                let confirmed = self.confirms_leader(&leader, partition, leader_epoch);
                let answer = if confirmed { answer } else { StateLookupAnswer::Unavailable };
                self.history.note_look(partition, look, answer);
                self.sender.on_state_lookup(now, partition, look, answer);
            }
            Event::CheckIds { again } => {
                self.check_ids();
                if again && (!self.healed || self.sender.unsettled() > 0) {
                    self.schedule_after(self.plan.rules.id_check, Event::CheckIds { again });
                }
            }
            Event::ServeSearch(search) => self.serve_search(*search),
            Event::SearchAnswered(search, answer) => {
                let answer = if self.confirms_leader(&search.leader, search.partition, search.leader_epoch) {
                    answer
                } else {
                    SearchAnswer::Unavailable
                };
                self.history.note_search(search.partition);
                self.sender.on_log_search(now, search.partition, search.look, &answer);
            }
            Event::LogWritten(life) => self.log_written(life)?,
            Event::Suspend(time) => self.suspend(time),
            Event::CorrectClock(life) => self.correct_clock(life),
            Event::EndLife(end) => self.end_life(end)?,
            Event::StartLife => self.start_life(),
        }
        Ok(())
    }

    /// Drops the events of a process that has ended.
    pub(crate) fn forget_client_events(&mut self) {
        self.queue.retain(|scheduled| !scheduled.event.is_of_client());
    }

    pub(crate) fn perform_actions(&mut self) -> Result<(), String> {
        if self.machine.is_suspended(self.now) {
            return Ok(());
        }
        if self.sender.needs_wall_clock() {
            self.sender.set_wall_clock(self.instant(), self.machine_clock_ms());
        }
        while let Some(action) = self.sender.poll(self.instant()) {
            self.perform(action)?;
        }
        // The check after every step would take a third of the time.
        let check = if self.steps.is_multiple_of(8) { self.sender.inconsistency() } else { None };
        match check {
            Some((partition, why)) => Err(format!("the states of {partition:?} contradict each other: {why}")),
            None => Ok(()),
        }
    }

    pub(crate) fn perform(&mut self, action: Action<usize>) -> Result<(), String> {
        match action {
            Action::Connect { conn, address } => self.connect(conn, address.id.0 as usize - 1)?,
            Action::Disconnect { conn } => self.disconnect(conn),
            Action::Send { conn, request, parts } => {
                self.note_sent(conn, request, &parts)?;
                self.send(conn, request, parts);
            }
            Action::RefreshMetadata { topics } => self.refresh_metadata(&topics)?,
            Action::InitProducerId => self.init_producer_id()?,
            Action::LookUpState(look) => self.request_look(look),
            Action::SearchLog(search) => self.request_search(search),
            Action::Persist(stamps) => self.persist(stamps)?,
            Action::PersistLeader(leader) => self.persist_leader(leader)?,
            Action::More(partition) => self.give_more(model_partition(partition))?,
            Action::Waits { partition, reason } => self.trace(|| format!("{partition:?} waits: {reason}")),
            Action::Settle(settlement) => {
                self.trace(|| format!("settle {settlement:?}").chars().take(400).collect());
                self.note_settlement(settlement)?;
            }
            Action::Correct { token, records, base_offset } => {
                self.trace(|| format!("correct {token} {records:?} {base_offset:?}"));
                self.note_correction(token, &records, base_offset)?;
            }
            Action::TopicReady { topic, available } => {
                self.history.pace.metadata.note_known(topic.0 as usize);
                self.topic_ready(topic, available.len())?;
            }
            Action::TopicFailed { topic, .. } => {
                let name = topic_name(topic.0 as usize);
                self.history.pace.metadata.note_wanted(topic.0 as usize);
                self.sender.want_topic(self.instant(), name);
            }
        }
        Ok(())
    }

    /// Notes a topic's number of partitions, and schedules the plan's batches once every topic is known.
    fn topic_ready(&mut self, topic: TopicId, count: usize) -> Result<(), String> {
        let known = &mut self.partition_counts[topic.0 as usize];
        if known.0 != count {
            *known = (count, known.0.max(1), self.now);
        }
        if self.partition_counts.iter().any(|count| count.0 == 0) {
            return Ok(());
        }
        self.resume_life()?;
        if self.submitting {
            return Ok(());
        }
        self.submitting = true;
        for index in 0..self.plan.batches.len() {
            let at = self.plan.batches[index].at;
            self.schedule_at(at, Event::Submit(index));
        }
        Ok(())
    }
}

impl World {
    /// Returns the partition of a batch that was opened at `opened_at`. The partitioner spreads keys over the
    /// partitions that were known at that time.
    pub(crate) fn partition_by_count(&self, wanted: usize, opened_at: Micros) -> usize {
        let (topic, index) = topic_and_index(wanted);
        let (count, before, since) = self.partition_counts[topic];
        partition_of(topic, index % if opened_at < since { before } else { count })
    }
}

pub(crate) fn core_partition(partition: usize) -> PartitionId {
    let (topic, index) = topic_and_index(partition);
    PartitionId { topic: TopicId(topic as u32), index: index as i32 }
}

pub(crate) fn model_partition(id: PartitionId) -> usize {
    partition_of(id.topic.0 as usize, id.index as usize)
}
