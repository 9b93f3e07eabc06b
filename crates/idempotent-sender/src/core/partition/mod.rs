//! The sender of one partition: its queue of batches, and the four states that decide about the next batch.
//!
//! Rules:
//!  - Batches are sent in the order of their ordinals. The window holds stamped batches in the order of their sequence
//!    numbers, and the queue holds batches without a stamp. Each unsettled batch is in exactly one list.
//!  - Several batches are in flight only while the leader is known to know the stamp: from an acceptance until any
//!    error, lost answer, change of leader, epoch or topic id, or a minute without an acceptance.
//!  - Only the answer to the head batch decides. Answers to later batches are recorded.
//!  - This module knows no connections, no other partitions, and no clock.
//!
//! # States
//!
//! Each state is a struct with private fields, and its methods are the only transitions:
//!
//! | struct | states |
//! |---|---|
//! | [`KnownLeader`] | no leader, or a leader. Its trust: *none*, *shown* (its state or a refusal shows the id), *accepted* (an acceptance proves earlier batches), *pipelining* |
//! | [`TopicLife`] | *present*, *recreated* (a switch is pending) or *missing*. Beside it: the leader denied the topic id |
//! | [`RetryState`] | *ready* or *backing off*. Beside it: *looking up* the head, or *looking up again* after the backoff |
//! | [`PartitionStamps`] | *unassigned*, or *assigned*: with or without a gap, and the number of fences |
//!
//! ```text
//!                metadata, hint                 acceptance
//!   no leader ─────────────────► one in flight ────────────► pipelining
//!       ▲                          │  ▲    ▲                     │
//!       │ metadata: no leader      │  │    └─────────────────────┤ new leader, epoch or topic id,
//!       └──────────────────────────┤  │                          │ old records, a minute
//!                                  │  │ end of the backoff       │
//!            error, lost answer    │  │                          │ error, lost answer
//!                                  ▼  │                          │
//!                                backing off ◄───────────────────┤
//!                                     ▲                          │
//!                   result is unclear │                          │ refused, and an earlier attempt is open
//!                                looking up ◄────────────────────┘
//!
//!               all answered                 metadata: recreated
//!   present ◄────────────────── recreated ◄──────────────────────── present, missing
//!                                   │
//!                                   └─────► missing, if the new topic has fewer partitions
//!
//!              first batch                    batch failed as unknown
//!   unassigned ───────────► assigned, no gap ◄───────────────────────► assigned, gap
//!       ▲                       │      epoch raised, or an acceptance       │
//!       └───────────────────────┴───────────────────────────────────────────┘
//!       a quiet moment near the last epoch, the last epoch, or fenced too often
//! ```
//!
//! Each row is a state, and what the others may then be. [`PartitionSender::inconsistency`] checks the rows except gap.
//!
//! | state | leader | topic | retry | stamps | batches |
//! |---|---|---|---|---|---|
//! | no leader | not pipelining | any | not looking up | any | none is outstanding |
//! | pipelining | known | present | any | assigned | any |
//! | recreated | no trust | | any | assigned | an attempt is outstanding. The valid records of a rejected batch wait in the window without a stamp |
//! | missing | no trust | no denied id | not looking up | any | none, except those that wait for earlier ordinals |
//! | unassigned | not pipelining | any | not looking up | | window and unconfirmed are empty |
//! | assigned | any | any | any | | window and unconfirmed have its id and epoch, in the order of their sequences |
//! | gap | any | any | any | assigned | nothing new is stamped |
//!
//! The types exclude: a gap or a fence without a producer id, pipelining without an acceptance, two lookups, and a topic
//! that is both recreated and missing.

mod answer;
mod consistency;
mod doubt;
mod failing;
mod leader;
mod lookup;
mod resume;
mod retry;
mod sending;
mod stamps;
mod switching;
#[cfg(test)]
mod tests;
mod topic;
mod unknown;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier_batcher::EncodedBatch;
use kafka_courier_client::{BrokerId, PartitionId, Reason, TopicUuid};

use self::leader::KnownLeader;
use self::retry::RetryState;
use self::stamps::PartitionStamps;
use self::topic::TopicLife;
pub(crate) use self::topic::{LatestMetadata, RecreatedTopic};
use self::unknown::{InheritedGap, MoreRequests, UnknownBatches};
use super::effects::Context;
use super::flight::{Flight, History, Proof, RecordTimes, TargetLog};
use super::ids::BatchUid;
use super::types::{Action, RecordSet, Settlement, Submission, Verdict};

/// The batches of one partition, and the states that decide about the next one.
#[derive(Debug)]
pub(crate) struct PartitionSender<T> {
    pub(crate) id: PartitionId,
    leader: KnownLeader,
    topic: TopicLife,
    retry: RetryState,
    stamps: PartitionStamps,
    window: VecDeque<Flight<T>>,
    queue: VecDeque<Flight<T>>,
    /// Batches that were submitted before their turn, because batches are sealed on many threads.
    early: BTreeMap<u64, Flight<T>>,
    next_ordinal: u64,
    /// Batches that a lookup found in the leader's producer state. The replicas may not have them yet. They precede the
    /// window.
    unconfirmed: VecDeque<Flight<T>>,
    unknown_batches: UnknownBatches<T>,
    /// Whether the partition had a batch of a durable log.
    has_stored: bool,
    /// Whether the partition had a batch of an earlier process.
    has_resumed: bool,
    /// Whether batches of an earlier process have lost their stamps. So do those behind them, because new stamps of this process
    /// supersede all later ones in the durable log.
    has_restamped: bool,
    /// The batches of an earlier process that failed as unknown.
    inherited_gap: InheritedGap,
    /// The requests for more batches of an earlier process.
    more: MoreRequests,
}

/// A batch to send now.
#[derive(Debug)]
pub(crate) struct OutgoingBatch {
    pub(crate) batch: Arc<EncodedBatch>,
    pub(crate) solo: bool,
}

impl<T: Clone> PartitionSender<T> {
    pub(crate) fn new(id: PartitionId) -> Self {
        Self {
            id,
            leader: KnownLeader::new(),
            topic: TopicLife::new(),
            retry: RetryState::new(),
            stamps: PartitionStamps::new(),
            window: VecDeque::new(),
            queue: VecDeque::new(),
            early: BTreeMap::new(),
            next_ordinal: 0,
            unconfirmed: VecDeque::new(),
            unknown_batches: UnknownBatches::new(),
            has_stored: false,
            has_resumed: false,
            has_restamped: false,
            inherited_gap: InheritedGap::default(),
            more: MoreRequests::default(),
        }
    }

    /// Takes a batch. The batch is queued once all earlier ordinals are queued.
    pub(crate) fn enqueue(&mut self, submission: Submission<T>, uid: BatchUid) {
        let ordinal = submission.ordinal;
        let inherited = submission.stored.as_deref().and_then(|place| place.inherited);
        self.has_stored |= submission.stored.is_some();
        let is_own = submission.aged && inherited.is_none();
        let times = submission.stored.is_some().then(|| Box::new(RecordTimes::new(submission.published_at, is_own)));
        let mut flight = Flight {
            uid,
            token: submission.token,
            records: RecordSet::Range(0..submission.batch.record_count()),
            charge: submission.batch.capacity(),
            batch: Arc::new(submission.batch),
            published_at: submission.published_at,
            aged: submission.aged,
            times,
            is_rejected: false,
            may_be_doubled: false,
            stored: submission.stored,
            is_inherited: inherited.is_some(),
            needs_lookup: inherited.is_some(),
            may_arrive: false,
            search_from: inherited.and_then(|inherited| inherited.search_from),
            outstanding: None,
            abandoned: Vec::new(),
            fresh: false,
            open: inherited.is_some(),
            proof: Proof::None,
            provable: true,
            repeated: false,
            write_errors: 0,
            history: History::default(),
        };
        if let Some(inherited) = inherited {
            flight.set_stamp(inherited.stamp);
            self.has_resumed = true;
            self.leader.inherit_epoch(inherited.leader_epoch);
        }
        self.early.insert(ordinal, flight);
        while let Some(flight) = self.early.remove(&self.next_ordinal) {
            if flight.is_inherited {
                self.enqueue_inherited(flight);
            } else {
                self.queue.push_back(flight)
            }
            self.next_ordinal += 1;
        }
    }

    /// Returns whether no batch waits for a verdict.
    pub(crate) fn is_idle(&self) -> bool {
        let nothing_sent = self.window.is_empty() && self.unconfirmed.is_empty();
        nothing_sent && self.queue.is_empty() && self.early.is_empty()
    }

    /// Returns the number of records without a verdict.
    pub(crate) fn unsettled(&self) -> u64 {
        let sent = self.unconfirmed.iter().chain(&self.window);
        let all = sent.chain(&self.queue).chain(self.early.values());
        all.map(|flight| u64::from(flight.records.len())).sum()
    }

    /// Returns whether no batch waits for a verdict and the batch with this ordinal is the next.
    pub(crate) fn is_free_for(&self, ordinal: u64) -> bool {
        self.is_idle() && self.next_ordinal == ordinal
    }

    /// Returns whether some batch could be sent, if nothing blocked the partition.
    pub(crate) fn has_unsent(&self) -> bool {
        let waits_for_nothing_else = self.window.is_empty() && !self.unconfirmed.is_empty();
        let unsent = self.window.iter().any(|flight| flight.outstanding.is_none());
        unsent || waits_for_nothing_else || !self.queue.is_empty()
    }

    /// Returns whether the next batch must be alone in its request.
    pub(crate) fn is_solo(&self) -> bool {
        self.retry.is_solo()
    }

    /// Returns the bytes of the next batch on the wire, or 0.
    pub(crate) fn next_len(&self) -> usize {
        let resend = self.window.iter().find(|flight| flight.outstanding.is_none());
        let repeat = self.unconfirmed.back().filter(|_| self.waits_for_unconfirmed());
        resend.or(repeat).or(self.queue.front()).map_or(0, |flight| flight.batch.len())
    }

    /// Returns the end of the backoff, if it lies after `now`.
    pub(crate) fn backoff_end(&self, now: Instant) -> Option<Instant> {
        self.retry.backoff_end(now)
    }

    /// Returns whether the partition is blocked until a producer id is assigned.
    pub(crate) fn wants_producer_id(&self) -> bool {
        !self.stamps.is_assigned() && !self.queue.is_empty()
    }

    /// Returns whether the partition is blocked until metadata names its leader or the topic id.
    pub(crate) fn wants_metadata(&self) -> bool {
        (self.leader.broker().is_none() || self.topic.lacks_id()) && !self.is_idle()
    }

    /// Returns the leader, if there is one.
    pub(crate) fn leader(&self) -> Option<BrokerId> {
        self.leader.broker()
    }

    /// Returns the leader epoch. `None` if it is unknown or in doubt.
    pub(crate) fn leader_epoch(&self) -> Option<i32> {
        self.leader.epoch()
    }

    /// Returns the log of the partition, for verifications.
    pub(crate) fn log(&self) -> &TargetLog {
        self.topic.log()
    }

    /// Adopts the topic id in metadata that was requested at `requested_at`.
    pub(crate) fn on_topic_id(&mut self, uuid: Option<TopicUuid>, requested_at: Instant) {
        self.topic.learn_id(uuid, requested_at);
    }

    /// Returns whether all epochs of this producer id are used up.
    pub(crate) fn has_used_up(&self, producer_id: i64) -> bool {
        self.stamps.has_used_up(producer_id)
    }

    /// Returns when the oldest batch reaches `timeout`. A stored batch has no deadline.
    pub(crate) fn deadline(&self, timeout: Duration) -> Option<Instant> {
        let oldest = self.unconfirmed.front().or(self.window.front()).or(self.queue.front());
        oldest.filter(|flight| flight.stored.is_none()).map(|flight| flight.published_at + timeout)
    }

    /// Adopts a leader from metadata or from a hint, if it is newer than the known leader. Batches in flight at the
    /// former leader are sent again under the same stamps, without waiting for its answers. Returns whether the leader
    /// is another broker now.
    pub(crate) fn adopt_leader(&mut self, leader: Option<BrokerId>, epoch: Option<i32>) -> bool {
        let before = self.leader.broker();
        if !self.leader.adopt(leader, epoch) {
            return false;
        }
        self.take_back_unconfirmed();
        // What another leader said about them counts no longer.
        self.window.iter_mut().for_each(|flight| flight.needs_lookup |= flight.is_inherited);
        let moved = leader != before;
        if moved {
            self.window.iter_mut().for_each(Flight::abandon);
            self.retry.forget_lookup();
            self.retry.end_backoff();
        }
        moved
    }

    /// Moves the unconfirmed batches back to the window: another leader may not have them.
    fn take_back_unconfirmed(&mut self) {
        while let Some(flight) = self.unconfirmed.pop_back() {
            self.window.push_front(flight);
        }
    }

    /// Counts a failure of the known leader: it denied its leadership or could not be reached.
    pub(crate) fn doubt_leader(&mut self) {
        self.leader.doubt();
    }

    /// Notes a failure before anything was sent: of a connection to the leader, or of a request for metadata.
    pub(crate) fn on_unreachable(&mut self, now: Instant, reason: &Reason) {
        self.retry.failed(reason.clone());
        if let Some(head) = self.window.front_mut().or(self.queue.front_mut())
            && head.outstanding.is_none()
        {
            head.history.record_unreachable(now, reason);
        }
    }

    fn back_off(&mut self, cx: &mut Context<'_, T>) {
        self.retry.back_off(cx);
    }

    /// Returns to one batch in flight after an error or a lost answer. Attempts in flight after the head are no longer
    /// fresh.
    fn stop_pipelining(&mut self) {
        self.leader.stop_pipelining();
        for flight in &mut self.window {
            flight.fresh = false;
        }
    }

    fn settle_delivered(&mut self, flight: Flight<T>, cx: &mut Context<'_, T>) {
        let (base_offset, log_append_time) = match flight.proof {
            Proof::At(offset, time) => (offset, time),
            Proof::None | Proof::Written => (None, None),
        };
        if let Some(base) = base_offset {
            let end = base.saturating_add(flight.records.len().into());
            self.topic.acknowledge(end);
        }
        cx.out.counters.records_delivered += u64::from(flight.records.len());
        self.settle(flight, Verdict::Delivered { base_offset, log_append_time }, cx);
    }

    /// Returns a batch to the durable log: a later process delivers it. The batch is delivered instead if a proof shows
    /// that it is in the log of the leader.
    fn settle_stored(&mut self, flight: Flight<T>, cx: &mut Context<'_, T>) {
        if flight.proof != Proof::None {
            return self.settle_delivered(flight, cx);
        }
        cx.out.counters.records_stored += u64::from(flight.records.len());
        self.settle(flight, Verdict::Stored, cx);
    }

    fn settle(&self, flight: Flight<T>, verdict: Verdict, cx: &mut Context<'_, T>) {
        cx.out.actions.push_back(Action::Settle(Settlement {
            token: flight.token,
            partition: self.id,
            records: flight.records,
            verdict,
            published_at: flight.published_at,
            first_attempt: flight.history.first,
            batch: flight.batch,
            charge: flight.charge,
        }));
    }
}
