//! Virtual time: the sender's actions become events, events become the sender's inputs.
//!
//! Rules:
//! - One event at a time, in the order of their times; between two events the sender is polled until it
//!   has nothing to do, as its shell does.
//! - Nothing here decides whether the sender was right: `history` notes, `checker` judges.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use kafka_courier_batcher::BufferPool;
use kafka_courier_idempotent_sender::core::{
    Action, ClusterMetadata, ConnId, ErrorCode, LogSearch, Look, LookAnswer, PartitionId, ProduceAnswer, Reason,
    RequestId, SearchAnswer, Sender, Submission, TopicId,
};

use crate::cluster::{
    BROKERS, Broker, Micros, PARTITIONS, PARTITIONS_AT_FIRST, Partition, TOPICS, partition_of, place_of, topic_name,
};
use crate::faults::Fault;
use crate::history::History;
use crate::link::Link;
use crate::plan::Plan;
use crate::produce::Delayed;
use crate::rng::Rng;

/// A schedule that takes more events than this does not end.
const MAX_STEPS: u64 = 2_000_000;

#[derive(Debug)]
pub(crate) enum Event {
    Submit(usize),
    HandOver(Box<Submission<usize>>),
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
    News(usize, usize),
    Fence(usize, u32, u32),
    Unfence(usize, u32, u32),
    Resume(usize, u32),
    Restart(usize),
    DiskBack(usize, usize),
    Lift(usize),
    WatchIsr(usize, usize, i32),
    AskMetadata(usize, Vec<usize>),
    Metadata(Option<ClusterMetadata>),
    MetadataRefused,
    ProducerId(Result<i64, i16>),
    AskLook(Box<Look>),
    Looked(Box<Look>, LookAnswer),
    CheckIds { again: bool },
    AskSearch(Box<LogSearch>),
    Searched(Box<LogSearch>, SearchAnswer),
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
    pub(crate) delayed: BTreeMap<u64, Delayed>,
    pub(crate) next_delayed: u64,
    pub(crate) next_append: u64,
    pub(crate) next_producer_id: i64,
    pub(crate) history: History,
    pub(crate) pool: BufferPool,
    pub(crate) submitting: bool,
    /// Batches that are opened and not handed to the sender yet.
    pub(crate) held: u32,
    pub(crate) healed: bool,
    pub(crate) tracing: bool,
    pub(crate) metadata_asked: u64,
    base: Instant,
    queue: BinaryHeap<Scheduled>,
    order: u64,
    steps: u64,
    /// How many partitions the sender has said that each topic has, and how many before that, and since when.
    counts: [(usize, usize, Micros); TOPICS],
}

/// The time of the wall clock at the schedule's start, milliseconds since the Unix epoch.
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
            next_producer_id: 4000,
            history: History::default(),
            pool: BufferPool::new(1 << 20),
            submitting: false,
            held: 0,
            healed: false,
            tracing,
            metadata_asked: 0,
            base: Instant::now(),
            queue: BinaryHeap::new(),
            order: 0,
            steps: 0,
            counts: [(0, 0, 0); TOPICS],
            plan,
        };
        world.begin();
        Ok(world)
    }

    fn begin(&mut self) {
        for (at, fault) in std::mem::take(&mut self.plan.faults) {
            self.at(at, Event::Fault(fault));
        }
        self.at(self.plan.heal_at, Event::Heal);
        if let Some(close_at) = self.plan.close_at {
            self.at(close_at, Event::Close);
        }
        if self.plan.rules.id_expiration_ms.is_some() {
            self.after(self.plan.rules.id_check, Event::CheckIds { again: true });
        }
        for partition in 0..PARTITIONS {
            if let Some(leader) = self.partitions[partition].truth.leader {
                self.after(self.plan.rules.replica_lag_max, Event::WatchIsr(leader, partition, 1));
            }
        }
        for topic in 0..TOPICS {
            self.sender.want_topic(self.base, topic_name(topic));
        }
    }

    pub(crate) fn instant(&self) -> Instant {
        self.base + Duration::from_micros(self.now)
    }

    /// Rounded up, so that a deadline is over at the time that is answered.
    pub(crate) fn micros(&self, instant: Instant) -> Micros {
        instant.saturating_duration_since(self.base).as_nanos().div_ceil(1000) as Micros
    }

    pub(crate) fn at(&mut self, at: Micros, event: Event) {
        self.order += 1;
        self.queue.push(Scheduled { at: at.max(self.now), order: self.order, event });
    }

    pub(crate) fn after(&mut self, wait: Micros, event: Event) {
        self.at(self.now + wait, event);
    }

    pub(crate) fn trace(&self, words: impl FnOnce() -> String) {
        if self.tracing {
            eprintln!("{:>12.6} {}", self.now as f64 / 1e6, words());
        }
    }

    /// Runs until `until`, or until something was found wrong.
    pub(crate) fn run_until(&mut self, until: Micros) -> Result<(), String> {
        self.carry_out()?;
        while let Some(at) = self.next_time().filter(|at| *at <= until) {
            self.step(at)?;
        }
        self.now = self.now.max(until);
        Ok(())
    }

    pub(crate) fn run_for(&mut self, time: Micros) -> Result<(), String> {
        self.run_until(self.now + time)
    }

    /// Runs until `done`, at most until `until`. Returns whether it came to be.
    pub(crate) fn run_while(&mut self, until: Micros, goes_on: impl Fn(&Self) -> bool) -> Result<bool, String> {
        self.carry_out()?;
        while goes_on(self) {
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
            return Err("the schedule does not end: the sender keeps itself busy".into());
        }
        self.now = self.now.max(at);
        if self.queue.peek().is_some_and(|scheduled| scheduled.at <= at)
            && let Some(Scheduled { event, .. }) = self.queue.pop()
        {
            self.happen(event)?;
        }
        self.carry_out()
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        let now = self.instant();
        match event {
            Event::Submit(batch) => self.submit_planned(batch)?,
            Event::HandOver(submission) => {
                self.held -= 1;
                self.hand_over(*submission)?;
            }
            Event::Fault(fault) => self.strike(fault),
            Event::Heal => self.heal_once_enough_was_felt(),
            Event::Close => {
                self.history.closed_at = Some(self.now);
                self.sender.give_up_all(now, &Reason::Closed);
            }
            Event::IdleCheck(conn) => self.close_if_idle(conn),
            Event::Connected(conn, ok) => self.connected(conn, ok),
            Event::Written(conn, request) => self.written(conn, request),
            Event::Arrive(conn, request) => self.arrive(conn, request)?,
            Event::Serve(conn) => self.serve(conn)?,
            Event::ProduceTimeout(id) => self.produce_timed_out(id),
            Event::Answer(conn, request, answer) => self.answered(conn, request, answer),
            Event::Closed(conn) => self.closed(conn),
            Event::SessionOver(conn) => self.session_over(conn),
            Event::Fetch(partition, follower) => self.fetch(partition, follower),
            Event::News(broker, partition) => self.learn_news(broker, partition),
            Event::Fence(broker, incarnation, pauses) => self.fence_if_still(broker, incarnation, pauses),
            Event::Unfence(broker, incarnation, pauses) => self.unfence_if_still(broker, incarnation, pauses),
            Event::Resume(broker, pauses) => self.resume(broker, pauses),
            Event::Restart(broker) => self.restart(broker),
            Event::DiskBack(broker, partition) => self.disk_back(broker, partition),
            Event::Lift(partition) => self.lift(partition),
            Event::WatchIsr(broker, partition, epoch) => self.watch_isr(broker, partition, epoch),
            Event::AskMetadata(broker, topics) => self.ask_metadata(broker, &topics),
            Event::Metadata(Some(cluster)) => self.tell_metadata(cluster),
            Event::Metadata(None) => {
                self.history.pace.metadata.failed(self.now);
                self.sender.on_metadata_failed(now, "no broker could be asked");
            }
            Event::MetadataRefused => self.metadata_refused(),
            Event::ProducerId(Ok(id)) => {
                self.history.pace.producer_id.answered(self.now, false);
                self.sender.on_producer_id(now, id);
            }
            Event::ProducerId(Err(58)) => self.producer_id_refused(),
            Event::ProducerId(Err(code)) => {
                self.history.pace.producer_id.answered(self.now, true);
                let code = (code != 0).then_some(ErrorCode(code));
                self.sender.on_producer_id_failed(now, code, "so the model");
            }
            Event::AskLook(look) => self.ask_look(*look),
            Event::Looked(look, answer) => {
                let Look { partition, look, leader, leader_epoch, .. } = *look;
                let confirmed = self.confirms(&leader, partition, leader_epoch);
                let answer = if confirmed { answer } else { LookAnswer::Unavailable };
                self.history.looked(partition, look, answer);
                self.sender.on_looked(now, partition, look, answer);
            }
            Event::CheckIds { again } => {
                self.check_ids();
                if again && (!self.healed || self.sender.unsettled() > 0) {
                    self.after(self.plan.rules.id_check, Event::CheckIds { again });
                }
            }
            Event::AskSearch(search) => self.ask_search(*search),
            Event::Searched(search, answer) => {
                let answer = if self.confirms(&search.leader, search.partition, search.leader_epoch) {
                    answer
                } else {
                    SearchAnswer::Unavailable
                };
                self.history.searched(search.partition);
                self.sender.on_searched(now, search.partition, search.look, &answer);
            }
        }
        Ok(())
    }

    fn carry_out(&mut self) -> Result<(), String> {
        while let Some(action) = self.sender.poll(self.instant()) {
            self.act(action)?;
        }
        Ok(())
    }

    pub(crate) fn act(&mut self, action: Action<usize>) -> Result<(), String> {
        match action {
            Action::Connect { conn, address } => self.connect(conn, address.id.0 as usize - 1)?,
            Action::Disconnect { conn } => self.disconnect(conn),
            Action::Send { conn, request, parts } => {
                self.note_sent(conn, request, &parts)?;
                self.send(conn, request, parts);
            }
            Action::RefreshMetadata { topics } => self.refresh_metadata(&topics)?,
            Action::InitProducerId => self.init_producer_id()?,
            Action::Look(look) => self.look(look),
            Action::SearchLog(search) => self.search(search),
            Action::Settle(settlement) => {
                self.trace(|| format!("settle {settlement:?}").chars().take(400).collect());
                self.settled(settlement)?;
            }
            Action::Correct { token, records, base_offset } => {
                self.trace(|| format!("correct {token} {records:?} {base_offset:?}"));
                self.corrected(token, &records, base_offset)?;
            }
            Action::TopicReady { topic, available } => {
                self.history.pace.metadata.found(topic.0 as usize);
                self.topic_ready(topic, available.len());
            }
            Action::TopicFailed { topic, .. } => {
                let name = topic_name(topic.0 as usize);
                self.history.pace.metadata.wanted(topic.0 as usize);
                self.sender.want_topic(self.instant(), name);
            }
        }
        Ok(())
    }

    /// Once every topic is known the plan's batches come.
    fn topic_ready(&mut self, topic: TopicId, count: usize) {
        let known = &mut self.counts[topic.0 as usize];
        if known.0 != count {
            *known = (count, known.0.max(1), self.now);
        }
        if self.counts.iter().any(|count| count.0 == 0) || self.submitting {
            return;
        }
        self.submitting = true;
        for index in 0..self.plan.batches.len() {
            let at = self.plan.batches[index].at;
            self.at(at, Event::Submit(index));
        }
    }
}

impl World {
    /// Where a batch goes that was opened then: keys are spread over as many partitions as the topic was known
    /// to have.
    pub(crate) fn partition_by_count(&self, wanted: usize, opened_at: Micros) -> usize {
        let (topic, index) = place_of(wanted);
        let (count, before, since) = self.counts[topic];
        partition_of(topic, index % if opened_at < since { before } else { count })
    }
}

pub(crate) fn core_partition(partition: usize) -> PartitionId {
    let (topic, index) = place_of(partition);
    PartitionId { topic: TopicId(topic as u32), index: index as i32 }
}

pub(crate) fn model_partition(id: PartitionId) -> usize {
    partition_of(id.topic.0 as usize, id.index as usize)
}
