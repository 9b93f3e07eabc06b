//! [`Stage`]: every decision between a sealed batch and the sender. Pure.
//!
//! Rules:
//!  - A batch gets its numbers in the spool in the order of its partition's batches. It leaves once its round is durable.
//!  - A life's first batch in a partition follows the entry that begins the life there, and a topic's first batch the
//!    topic's entry.
//!  - No batch leaves before the cluster has named its topic and itself.
//!  - A stamp is reported durable once its move is. Its move follows everything that was settled before it.
//!  - A round that has no room is repeated, its facts first and alone. Marks and moves fit a full spool, and free it.
//!  - The items and the keys of a batch's records are in the batch's round.
//!  - Nothing more is stored after a failed round. Batches that were durable before are still delivered.

mod backlog;
mod round;

pub(crate) use backlog::{FoundBatch, ReadTime, UnreadableBatch};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use kafka_courier_client::{PartitionId, TopicId, TopicUuid};
use kafka_courier_idempotent_sender::core::{MoveId, StoredBatch, Submission};
use kafka_courier_spool::core::entry::{Entry, Ordinal, Partition, Topic, TopicNumber};
use kafka_courier_spool::core::ids::Life;
use kafka_courier_spool::core::inputs::{InputNumber, ItemSet};
use kafka_courier_spool::core::table::PartitionTable;

use super::command::{BatchToken, Effect, SettledNotice, SpoolCommand, SpoolLevel, StoredPlace, TopicIdentity};
use super::fault::SpoolFault;
use super::inherit::{NO_TOPIC_ID, Resumption, resumption};
use super::lane::{DurableBatch, Lane};
use super::log::PartitionLog;
use super::residence::Residence;

/// A partition as the journal has it.
#[derive(Debug)]
pub(crate) struct RecoveredPartition {
    pub(crate) partition: Partition,
    pub(crate) settled: Ordinal,
    pub(crate) end: Ordinal,
    pub(crate) end_offset: i64,
    /// Ranges of records behind `settled` that are dead letters.
    pub(crate) done: Vec<(Ordinal, Ordinal)>,
    /// Ranges of records behind `settled` that are lost.
    pub(crate) lost: Vec<(Ordinal, Ordinal)>,
    /// The state from which the stamps of the unsettled records follow.
    pub(crate) origin: PartitionTable,
}

/// A topic of the spool.
#[derive(Debug)]
struct StagedTopic {
    name: Arc<str>,
    /// The topic's numbers in the spool, with the topic id of each. The last one takes new batches.
    numbers: Vec<(TopicNumber, TopicUuid)>,
    partitions: u32,
    /// The number of partitions that the sender knows.
    ready: u32,
    /// The topic as the cluster named it last.
    identity: Option<TopicIdentity>,
    /// Whether the journal lacks the topic as it is now.
    is_changed: bool,
}

/// A batch that waits for its round.
#[derive(Debug)]
struct AcceptedBatch<T> {
    partition: PartitionId,
    place: StoredPlace,
    submission: Submission<T>,
}

/// Everything between the sealed batches and the sender.
#[derive(Debug)]
pub(crate) struct Stage<T> {
    life: Life,
    /// Bytes that each batch of this life has in the journal.
    notes: Arc<[u8]>,
    cluster: Option<Arc<str>>,
    is_cluster_changed: bool,
    topics: BTreeMap<TopicId, StagedTopic>,
    next_number: u32,
    lanes: BTreeMap<PartitionId, Lane<T>>,
    /// Which durable batches are in memory.
    residence: Residence,
    /// The tokens that lanes keep, in the order in which they are looked at.
    unloaded: VecDeque<(PartitionId, StoredPlace)>,
    /// Partitions whose next batch could not be read.
    unreadable: BTreeSet<PartitionId>,
    /// The partitions of earlier processes, as they were at the opening.
    origins: BTreeMap<Partition, PartitionTable>,
    logs: BTreeMap<Partition, PartitionLog>,
    /// The partitions where this life has begun.
    begun: BTreeSet<Partition>,
    /// The partitions of which the journal lacks something.
    changed: BTreeSet<Partition>,
    /// Batches that wait for a round, in their order.
    accepted: VecDeque<AcceptedBatch<T>>,
    /// Batches of the round that is being written.
    written: Vec<AcceptedBatch<T>>,
    /// The requests that the round answers.
    requests: Vec<(PartitionId, MoveId)>,
    /// Notices of records that the journal does not have as settled yet.
    notices: Vec<SettledNotice>,
    /// Those of the round that is being written.
    written_notices: Vec<SettledNotice>,
    /// The entries of that round apart from batches.
    facts: Vec<Entry>,
    /// Inputs that the journal lacks.
    inputs: Vec<Entry>,
    /// Items without a record that the journal lacks, and those of the round that is being written.
    skipped: BTreeMap<InputNumber, ItemSet>,
    /// The time before which the journal must forget keys, if no round says so yet.
    forget_keys_before: Option<u64>,
    written_skipped: BTreeMap<InputNumber, ItemSet>,
    /// Whether the last round had no room for the next batch.
    is_full: bool,
    /// Whether the next round has no batch, because the last one had no room for its facts beside batches.
    is_facts_turn: bool,
    /// Why nothing more is stored.
    write_fault: Option<SpoolFault>,
    /// Why nothing is sent: the brokers belong to another cluster.
    send_fault: Option<SpoolFault>,
    /// Whether the sender gets nothing more.
    is_ending: bool,
    effects: Vec<Effect<T>>,
}

impl<T: Clone + BatchToken> Stage<T> {
    /// Creates the stage of a life. `notes` are the bytes that each of its batches has in the journal, and its durable batches
    /// in memory share `budget` bytes.
    pub(crate) fn new(life: Life, notes: Arc<[u8]>, cluster: Option<Arc<str>>, budget: u64) -> Self {
        Self {
            life,
            notes,
            cluster,
            is_cluster_changed: false,
            topics: BTreeMap::new(),
            next_number: 0,
            lanes: BTreeMap::new(),
            residence: Residence::new(budget),
            unloaded: VecDeque::new(),
            unreadable: BTreeSet::new(),
            origins: BTreeMap::new(),
            logs: BTreeMap::new(),
            begun: BTreeSet::new(),
            changed: BTreeSet::new(),
            accepted: VecDeque::new(),
            written: Vec::new(),
            requests: Vec::new(),
            notices: Vec::new(),
            written_notices: Vec::new(),
            facts: Vec::new(),
            inputs: Vec::new(),
            skipped: BTreeMap::new(),
            forget_keys_before: None,
            written_skipped: BTreeMap::new(),
            is_full: false,
            is_facts_turn: false,
            write_fault: None,
            send_fault: None,
            is_ending: false,
            effects: Vec::new(),
        }
    }

    /// Adds a topic of the journal, in the order of the topics' numbers. `topic` is the sender's number of its name.
    pub(crate) fn recover_topic(&mut self, topic: TopicId, stored: &Topic) {
        self.next_number = self.next_number.max(stored.number.0.saturating_add(1));
        let staged = self.topics.entry(topic).or_insert_with(|| StagedTopic {
            name: stored.name.clone(),
            numbers: Vec::new(),
            partitions: stored.partitions,
            ready: 0,
            identity: None,
            is_changed: false,
        });
        staged.numbers.push((stored.number, stored.id));
        staged.partitions = stored.partitions;
    }

    /// Adds a partition of the journal.
    pub(crate) fn recover_partition(&mut self, recovered: &RecoveredPartition) {
        let RecoveredPartition { partition, settled, end, end_offset, done, lost, origin } = recovered;
        let mut log = PartitionLog::new(*partition, *settled, *end, *end_offset);
        done.iter().chain(lost).for_each(|(first, end)| log.note_settled(*first, *end));
        self.logs.insert(*partition, log);
        self.origins.insert(*partition, origin.clone());
        self.changed.insert(*partition);
    }

    /// Returns the partition of the spool that takes new batches.
    fn latest(&self, id: PartitionId) -> Option<Partition> {
        let (number, _) = self.topics.get(&id.topic)?.numbers.last()?;
        Some(Partition { topic: *number, index: id.index })
    }

    /// Handles a command. `Awaited`, `Close` and `Finish` are the thread's.
    pub(crate) fn handle(&mut self, command: SpoolCommand<T>) {
        match command {
            SpoolCommand::Sealed(submission) => self.submit(submission),
            SpoolCommand::Topic { topic, name, partitions } => self.learn_topic(topic, &name, partitions),
            SpoolCommand::Identity(identity) => self.identify(identity),
            SpoolCommand::Delivered { place, records, base_offset } => {
                self.with_log(place.partition, |log| log.deliver(place, &records, base_offset));
                self.release_after(place.partition);
                self.settle_resident(place, records.len());
            }
            SpoolCommand::Failed { place, records } => self.with_log(place.partition, |log| log.fail(&records)),
            SpoolCommand::Kept { place, records, notice } => {
                self.notices.extend(Some(notice).filter(|_| self.write_fault.is_none()));
                self.with_log(place.partition, |log| log.keep(place, &records));
                self.release_after(place.partition);
                self.settle_resident(place, records.len());
            }
            SpoolCommand::NotKept { place, records } => {
                self.hold(place.partition);
                self.settle_resident(place, records.len());
            }
            SpoolCommand::More(partition) => self.grant(partition),
            SpoolCommand::Persist(stamps) => {
                if let Some(sending) = self.lanes.get(&stamps.partition).map(|lane| lane.sending) {
                    self.with_log(sending, |log| log.request_move(stamps));
                }
            }
            SpoolCommand::PersistLeader(leader) => {
                if let Some(sending) = self.lanes.get(&leader.partition).map(|lane| lane.sending) {
                    self.with_log(sending, |log| log.request_leader(leader));
                }
            }
            SpoolCommand::Input { input, name } => self.inputs.push(Entry::Input { input, name }),
            SpoolCommand::Skipped { input, items } => self.skipped.entry(input).or_default().merge(&items),
            SpoolCommand::ForgetKeys { before_ms } => self.forget_keys_before = Some(before_ms),
            SpoolCommand::Awaited { .. } | SpoolCommand::Close { .. } | SpoolCommand::Finish => {}
        }
    }

    fn with_log(&mut self, partition: Partition, change: impl FnOnce(&mut PartitionLog)) {
        if let Some(log) = self.logs.get_mut(&partition) {
            change(log);
            self.changed.insert(partition);
        }
    }

    fn hold(&mut self, partition: Partition) {
        if let Some(log) = self.logs.get_mut(&partition).filter(|log| !log.is_held) {
            log.is_held = true;
            self.effects.push(Effect::Held(partition));
        }
    }

    /// Takes a sealed batch.
    pub(crate) fn submit(&mut self, submission: Submission<T>) {
        let id = submission.partition;
        if let Some(fault) = &self.write_fault {
            return self.effects.push(Effect::NotStored(submission, fault.clone()));
        }
        let Some(latest) = self.latest(id) else {
            // A topic is learnt before its partitions accept events.
            let fault = SpoolFault::Write(format!("{id:?} is not known to the spool").into());
            return self.effects.push(Effect::NotStored(submission, fault));
        };
        let lane = self.lanes.entry(id).or_insert_with(|| Lane::new(latest, 0));
        for submission in lane.take(submission) {
            self.accept(id, submission);
        }
    }

    fn accept(&mut self, id: PartitionId, mut submission: Submission<T>) {
        let Some(partition) = self.lanes.get(&id).map(|lane| lane.accepting) else { return };
        let log =
            self.logs.entry(partition).or_insert_with(|| PartitionLog::new(partition, Ordinal(0), Ordinal(0), -1));
        let place = log.accept(submission.batch.record_count());
        let (topic, life) = (partition.topic.0, self.life.0);
        submission.stored = Some(Box::new(StoredBatch { first: place.first.0, topic, life, inherited: None }));
        self.accepted.push_back(AcceptedBatch { partition: id, place, submission });
    }

    /// Adds a topic that the sender knows, or notes that it has more partitions.
    fn learn_topic(&mut self, topic: TopicId, name: &Arc<str>, partitions: u32) {
        let next = TopicNumber(self.next_number);
        let staged = self.topics.entry(topic).or_insert_with(|| {
            self.next_number += 1;
            let numbers = vec![(next, NO_TOPIC_ID)];
            StagedTopic { name: name.clone(), numbers, partitions, ready: 0, identity: None, is_changed: true }
        });
        staged.ready = partitions;
        // The cluster names the topic again, because the topic may have been created again.
        staged.identity = staged.identity.take().filter(|identity| identity.partitions == partitions);
        if staged.partitions != partitions {
            (staged.partitions, staged.is_changed) = (partitions, true);
        }
        self.release_topic(topic);
    }

    fn release_topic(&mut self, topic: TopicId) {
        for id in self.lanes_of(topic) {
            self.release(id);
        }
    }

    /// Notes how the cluster names itself and a topic. Batches of the topic may leave then.
    fn identify(&mut self, identity: TopicIdentity) {
        if self.is_unfit_cluster(&identity) {
            return;
        }
        let Some(staged) = self.topics.get_mut(&identity.topic) else { return };
        let partitions = identity.partitions.max(staged.ready);
        if staged.partitions != partitions {
            (staged.partitions, staged.is_changed) = (partitions, true);
        }
        let topic = identity.topic;
        let present = identity.uuid.unwrap_or(NO_TOPIC_ID);
        staged.identity = Some(identity);
        if let Some((_, stored)) = staged.numbers.last_mut().filter(|(_, stored)| *stored != present)
            && present != NO_TOPIC_ID
        {
            staged.is_changed = true;
            if *stored == NO_TOPIC_ID {
                *stored = present;
            } else {
                // Another topic with the same name has its own numbers and offsets.
                staged.numbers.push((TopicNumber(self.next_number), present));
                self.next_number += 1;
            }
        }
        self.renumber(topic);
        self.release_topic(topic);
    }

    fn is_unfit_cluster(&mut self, identity: &TopicIdentity) -> bool {
        if let Some(why) = &identity.outdated {
            self.send_fault = Some(SpoolFault::OutdatedBrokers(why.clone()));
            return true;
        }
        match (&self.cluster, &identity.cluster) {
            (Some(spool), Some(cluster)) if spool != cluster => {
                self.send_fault = Some(SpoolFault::OtherCluster { spool: spool.clone(), cluster: cluster.clone() });
                true
            }
            (None, Some(cluster)) => {
                (self.cluster, self.is_cluster_changed) = (Some(cluster.clone()), true);
                false
            }
            _ => self.send_fault.is_some(),
        }
    }

    /// Returns why the spool should accept no more events.
    pub(crate) fn fault(&self) -> Option<&SpoolFault> {
        self.write_fault.as_ref().or(self.send_fault.as_ref())
    }

    /// Returns whether nothing more is stored.
    pub(crate) fn has_failed(&self) -> bool {
        self.write_fault.is_some()
    }

    /// Makes the lanes of a topic accept new batches under its latest number.
    fn renumber(&mut self, topic: TopicId) {
        for id in self.lanes_of(topic) {
            if let (Some(latest), Some(lane)) = (self.latest(id), self.lanes.get_mut(&id)) {
                lane.accepting = latest;
            }
        }
    }

    fn lanes_of(&self, topic: TopicId) -> Vec<PartitionId> {
        let (first, last) = (PartitionId { topic, index: i32::MIN }, PartitionId { topic, index: i32::MAX });
        self.lanes.range(first..=last).map(|(id, _)| *id).collect()
    }

    /// Returns whether the cluster has named the topic of a partition, and the sender knows the partition if the topic has it.
    fn is_open(&self, id: PartitionId) -> bool {
        let Some(staged) = self.topics.get(&id.topic) else { return false };
        let Some(identity) = staged.identity.as_ref().filter(|_| self.send_fault.is_none()) else { return false };
        let index = u32::try_from(id.index).unwrap_or(u32::MAX);
        // One of the two answers may be older than the partition.
        index < staged.ready || index >= identity.partitions
    }

    /// Hands the batches of a lane in memory to the sender, as far as they may leave, and requests the next ones.
    fn release(&mut self, id: PartitionId) {
        if self.is_ending {
            return self.leave(id);
        }
        if self.is_open(id) {
            self.hand_over(id);
            self.fill(id);
        }
    }

    fn hand_over(&mut self, id: PartitionId) {
        let Some(staged) = self.topics.get(&id.topic) else { return };
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let Some(identity) = &staged.identity else { return };
        let index = u32::try_from(id.index).unwrap_or(u32::MAX);
        let has_partition = index < identity.partitions.max(staged.ready);
        while let Some(next) = lane.resident.front() {
            let to = next.place.partition;
            if to != lane.sending {
                if self.logs.get(&lane.sending).is_some_and(|log| !log.is_settled()) {
                    return;
                }
                lane.sending = to;
            }
            let number = staged.numbers.iter().find(|(number, _)| *number == to.topic);
            let stored_for = number.map_or(NO_TOPIC_ID, |(_, id)| *id);
            let failed = match resumption(stored_for, identity.uuid, has_partition, next.inherited.is_some()) {
                Resumption::Wait => return,
                Resumption::Send => None,
                Resumption::Fail(outcome) => Some(outcome),
            };
            let Some(DurableBatch { mut submission, inherited, .. }) = lane.resident.pop_front() else { return };
            submission.stored = submission.stored.map(|stored| Box::new(StoredBatch { inherited, ..*stored }));
            self.effects.push(match failed {
                None => Effect::Release(lane.numbered(submission)),
                Some(outcome) => {
                    Effect::Orphaned(submission, outcome, Some(stored_for).filter(|id| *id != NO_TOPIC_ID))
                }
            });
        }
    }

    /// Hands out batches that waited until everything in `partition` is settled.
    fn release_after(&mut self, partition: Partition) {
        if self.logs.get(&partition).is_none_or(|log| !log.is_settled()) {
            return;
        }
        let topic = self.topics.iter().find(|(_, staged)| staged.numbers.iter().any(|(n, _)| *n == partition.topic));
        if let Some((topic, staged)) = topic
            && staged.numbers.len() > 1
        {
            self.release(PartitionId { topic: *topic, index: partition.index });
        }
    }

    /// Notes that the sender gets nothing more. Durable batches stay stored.
    pub(crate) fn end(&mut self) {
        self.is_ending = true;
        let lanes: Vec<PartitionId> = self.lanes.keys().copied().collect();
        lanes.into_iter().for_each(|id| self.release(id));
    }

    /// Returns whether the sender gets nothing more.
    pub(crate) fn is_ending(&self) -> bool {
        self.is_ending
    }

    /// Returns the decisions since the last call, in order.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect<T>> {
        std::mem::take(&mut self.effects)
    }

    /// Returns the number of partitions that wait for a durable dead letter.
    pub(crate) fn held_partitions(&self) -> u64 {
        self.logs.values().filter(|log| log.is_held).count() as u64
    }

    /// Returns the counts for the metrics.
    pub(crate) fn level(&self) -> SpoolLevel {
        let mut level = SpoolLevel { resident_bytes: self.residence.bytes(), ..SpoolLevel::default() };
        let mut oldest: Option<i64> = None;
        let mut note = |bytes: u64, oldest_ms: Option<i64>| {
            level.bytes += bytes;
            oldest = oldest.into_iter().chain(oldest_ms).min();
        };
        for batch in self.written.iter().chain(&self.accepted).map(|accepted| &accepted.submission.batch) {
            note(batch.len() as u64, Some(batch.first_timestamp()));
        }
        self.lanes.values().flat_map(|lane| &lane.runs).for_each(|run| note(run.bytes, run.oldest_ms));
        self.logs.values().for_each(|log| note(log.bytes(), log.oldest_ms()));
        level.oldest_ms = oldest;
        level.records = self.logs.values().map(PartitionLog::unsettled).sum();
        level
    }
}
