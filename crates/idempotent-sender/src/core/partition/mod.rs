//! One partition: its queue, its window of stamped batches, and its own (id, epoch, next sequence).
//!
//! Rules:
//! - Batches leave in the order of their ordinals. The window holds the stamped ones, in sequence order;
//!   the queue holds those without a stamp. What is not settled stands in exactly one of them.
//! - Several batches are in flight only while the leader is known to know the stamp: from an acceptance
//!   until any error, lost answer, change of leader, epoch or topic id, or a minute's idleness.
//! - Only the head batch decides; answers to those behind it are noted.
//! - Nothing here knows connections, other partitions, or the clock.

mod answer;
mod give_up;
mod look;
mod stamps;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier_batcher::{EncodedBatch, Stamp};

use self::look::{Doubt, Looking};
use self::stamps::{EpochMove, NextStamp};
use super::effects::Context;
use super::flight::{Attempt, Flight, History, Place, Proof};
use super::types::{
    Action, BatchUid, BrokerId, PartitionId, Reason, RecordSet, RequestId, Settlement, Submission, TopicUuid, Verdict,
};

/// A leader that heard nothing of us for this long may have forgotten our id.
const IDLE_REARM: Duration = Duration::from_secs(60);
/// After so many failures at the leader that we believe in, any leader that the cluster names is believed.
const DOUBTS_MAX: u32 = 4;
/// How many given-up batches are remembered, for a correction.
const GIVEN_UP_REMEMBERED: usize = 256;

/// A batch that was given up though it may be written.
#[derive(Debug)]
struct GivenUp<T> {
    /// A later acceptance proves that it is in the log.
    provable: bool,
    attempts: Vec<Attempt>,
    token: T,
    records: RecordSet,
    stamp: Option<Stamp>,
}

#[derive(Debug)]
pub(crate) struct Partition<T> {
    pub(crate) id: PartitionId,
    pub(crate) leader: Option<BrokerId>,
    leader_epoch: i32,
    /// The log that it is, for later checks.
    pub(crate) place: Place,
    /// Why the topic has no such partition any more, if it has not.
    pub(crate) gone: Option<Reason>,
    /// Failures in a row that speak against the leader that we know.
    doubts: u32,
    next: Option<NextStamp>,
    /// The id whose epochs are used up here; it is never taken again.
    exhausted: Option<i64>,
    window: VecDeque<Flight<T>>,
    queue: VecDeque<Flight<T>>,
    /// Handed in before their turn: sealing finishes on many threads.
    early: BTreeMap<u64, Flight<T>>,
    next_ordinal: u64,
    /// The leader knows the stamp.
    known: bool,
    /// The producer id and epoch of the last batch that the leader has accepted, and when that was.
    acknowledged: Option<(i64, i16, Instant)>,
    /// The leader has them, which a look at its state has shown; whether its replicas do, is not known
    /// yet. They stand before the window.
    unconfirmed: VecDeque<Flight<T>>,
    /// A batch of this epoch was given up that may be written: nothing new is stamped until it is
    /// clear what became of those behind it.
    gap: bool,
    given_up: VecDeque<GivenUp<T>>,
    failures: u32,
    backoff_until: Option<Instant>,
    /// After a lost answer batches go one partition per request.
    solo: bool,
    looking: Option<Looking>,
    /// The leader has this head, and its log does not show it yet: it is looked for again instead of being sent again.
    look_again: Option<(BatchUid, Doubt)>,
    /// The leader knows no topic of the id that we have: nothing is sent before the cluster, asked
    /// after this moment, has told it again.
    id_denied: Option<Instant>,
    /// The topic was made anew while attempts were under way: their answers are waited for, and nothing is sent.
    turning: Option<NewTopic>,
    /// Answers in a row that the id was fenced by somebody else.
    fenced: u32,
    /// The last thing that went wrong, for the verdicts of those that were never tried.
    trouble: Option<Reason>,
}

/// What a topic that was made anew means for a partition.
#[derive(Clone, Debug)]
pub(crate) struct NewTopic {
    /// The verdict on what may be written to the former one.
    pub(crate) reason: Reason,
    /// Why the new one has no such partition, if it has not.
    pub(crate) gone: Option<Reason>,
    /// The new one's id, leader and leader epoch, as the cluster told them last.
    pub(crate) told: Option<(TopicUuid, Option<BrokerId>, i32)>,
}

/// Why a batch is unknown that a look has found.
fn unconfirmed() -> Reason {
    Reason::NoAnswer("the leader has it, but whether its replicas do was not answered any more".into())
}

/// A batch that leaves now.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) batch: Arc<EncodedBatch>,
    pub(crate) solo: bool,
}

impl<T: Clone> Partition<T> {
    pub(crate) fn new(id: PartitionId) -> Self {
        Self {
            id,
            leader: None,
            leader_epoch: -1,
            place: Place::default(),
            gone: None,
            doubts: 0,
            next: None,
            exhausted: None,
            window: VecDeque::new(),
            queue: VecDeque::new(),
            early: BTreeMap::new(),
            next_ordinal: 0,
            known: false,
            acknowledged: None,
            unconfirmed: VecDeque::new(),
            gap: false,
            given_up: VecDeque::new(),
            failures: 0,
            backoff_until: None,
            solo: false,
            looking: None,
            look_again: None,
            id_denied: None,
            turning: None,
            fenced: 0,
            trouble: None,
        }
    }

    /// Takes a batch in; it is queued when its turn has come.
    pub(crate) fn enqueue(&mut self, submission: Submission<T>, uid: BatchUid) {
        let ordinal = submission.ordinal;
        let flight = Flight {
            uid,
            token: submission.token,
            records: RecordSet::Range(0..submission.batch.record_count()),
            charge: submission.batch.capacity(),
            batch: Arc::new(submission.batch),
            published_at: submission.published_at,
            aged: submission.aged,
            search_from: None,
            outstanding: None,
            abandoned: Vec::new(),
            fresh: false,
            open: false,
            proof: Proof::None,
            provable: true,
            repeated: false,
            write_errors: 0,
            history: History::default(),
        };
        self.early.insert(ordinal, flight);
        while let Some(flight) = self.early.remove(&self.next_ordinal) {
            self.queue.push_back(flight);
            self.next_ordinal += 1;
        }
    }

    /// Whether anything waits for a verdict.
    pub(crate) fn is_idle(&self) -> bool {
        let nothing_sent = self.window.is_empty() && self.unconfirmed.is_empty();
        nothing_sent && self.queue.is_empty() && self.early.is_empty()
    }

    /// Records that wait for a verdict.
    pub(crate) fn unsettled(&self) -> u64 {
        let sent = self.unconfirmed.iter().chain(&self.window);
        let all = sent.chain(&self.queue).chain(self.early.values());
        all.map(|flight| u64::from(flight.records.len())).sum()
    }

    /// Whether nothing waits for a verdict and the batch of this ordinal is the next.
    pub(crate) fn is_free_for(&self, ordinal: u64) -> bool {
        self.is_idle() && self.next_ordinal == ordinal
    }

    /// Whether some batch could be sent, were everything else ready.
    pub(crate) fn has_unsent(&self) -> bool {
        let waits_for_nothing_else = self.window.is_empty() && !self.unconfirmed.is_empty();
        let unsent = self.window.iter().any(|flight| flight.outstanding.is_none());
        unsent || waits_for_nothing_else || !self.queue.is_empty()
    }

    /// Whether its next batch has to travel alone.
    pub(crate) fn is_solo(&self) -> bool {
        self.solo
    }

    /// Wire bytes of the batch that would go next; 0 if there is none.
    pub(crate) fn next_len(&self) -> usize {
        let resend = self.window.iter().find(|flight| flight.outstanding.is_none());
        resend.or(self.queue.front()).map_or(0, |flight| flight.batch.len())
    }

    /// When a wait of this partition ends, if it is waiting at `now`.
    pub(crate) fn waits_until(&self, now: Instant) -> Option<Instant> {
        self.backoff_until.filter(|until| *until > now)
    }

    /// Whether it stands still for want of a producer id.
    pub(crate) fn wants_producer_id(&self) -> bool {
        self.next.is_none() && !self.queue.is_empty()
    }

    /// Whether it stands still until the cluster tells who leads it, or the topic's id.
    pub(crate) fn wants_metadata(&self) -> bool {
        (self.leader.is_none() || self.id_denied.is_some()) && !self.is_idle()
    }

    /// The cluster has told the topic's id. What was asked before the leader denied the id may be older than that: it clears
    /// up nothing, unless it names another.
    pub(crate) fn on_topic_id(&mut self, uuid: TopicUuid, asked_at: Instant) {
        let is_another = self.place.topic_uuid != uuid;
        self.place.topic_uuid = uuid;
        self.id_denied = self.id_denied.filter(|denied_at| asked_at < *denied_at && !is_another);
    }

    /// Whether it has used up all epochs of this id.
    pub(crate) fn has_used_up(&self, producer_id: i64) -> bool {
        self.exhausted == Some(producer_id)
    }

    /// When the oldest batch's time is up.
    pub(crate) fn deadline(&self, timeout: Duration) -> Option<Instant> {
        let oldest = self.unconfirmed.front().or(self.window.front()).or(self.queue.front());
        oldest.map(|flight| flight.published_at + timeout)
    }

    /// The next batch that may leave now, noted as sent in `request`.
    pub(crate) fn next_outgoing(&mut self, request: RequestId, cx: &mut Context<'_, T>) -> Option<Outgoing> {
        let stands_still = self.looking.is_some() || self.id_denied.is_some() || self.turning.is_some();
        if self.waits_until(cx.now).is_some() || stands_still {
            return None;
        }
        if let Some((batch, doubt)) = self.look_again.take()
            && self.window.front().is_some_and(|head| head.uid == batch)
        {
            self.look_or_give_up(doubt, cx);
            return None;
        }
        if self.waits_for_unconfirmed() {
            // Nothing is left whose acceptance could prove them: the last goes again, so that we hear at
            // least of another leader. Old records wait for that: once they are written the leader may forget these.
            let last = self.unconfirmed.pop_back();
            self.window.extend(last.map(|last| Flight { repeated: true, ..last }));
        }
        let room = self.room(cx);
        let solo = self.solo;
        for flight in self.window.iter_mut().take(room) {
            match flight.outstanding {
                Some(_) if flight.fresh => {}
                Some(_) => return None,
                None => {
                    if flight.history.tries > 0 {
                        cx.out.counters.batch_retries += 1;
                        cx.out.counters.record_retries += u64::from(flight.records.len());
                    }
                    flight.sent(request, cx.now);
                    let outgoing = Outgoing { batch: flight.batch.clone(), solo };
                    // Once old records are appended the leader may forget the id.
                    self.acknowledged = self.acknowledged.filter(|_| !flight.aged);
                    return Some(outgoing);
                }
            }
        }
        if self.gap || self.window.len() >= room {
            return None;
        }
        self.stamp_next(request, cx)
    }

    /// Whether nothing else may leave before the last of the unconfirmed has.
    fn waits_for_unconfirmed(&self) -> bool {
        self.window.is_empty() && self.queue.front().is_none_or(|next| next.aged)
    }

    /// How many of the window's first batches may be in flight.
    fn room(&self, cx: &Context<'_, T>) -> usize {
        let recent = self.acknowledged.is_some_and(|(_, _, at)| cx.now.saturating_duration_since(at) < IDLE_REARM);
        // Once old records are written the leader may forget the id, and take what is before them a second time.
        let aged = self.window.iter().chain(self.queue.front()).any(|flight| flight.aged);
        if self.known && recent && !aged { cx.config.max_in_flight as usize } else { 1 }
    }

    /// Takes a leader from metadata or from a hint, if it is newer than the one known. Answers of a
    /// former leader are not waited for: what is in flight there goes again, under the same stamps.
    /// Returns whether the leader is another broker now.
    pub(crate) fn adopt_leader(&mut self, leader: Option<BrokerId>, epoch: i32) -> bool {
        // Without a leader any is better: if it is a former one, it will say so.
        let newer = epoch > self.leader_epoch
            || (self.leader.is_none() && leader.is_some())
            || (epoch < 0 && self.leader_epoch < 0);
        if !newer || (leader == self.leader && epoch == self.leader_epoch) {
            return false;
        }
        let moved = leader != self.leader;
        self.leader = leader;
        self.leader_epoch = epoch;
        self.doubts = 0;
        self.known = false;
        self.take_back_unconfirmed();
        if moved {
            self.window.iter_mut().for_each(Flight::abandon);
            (self.looking, self.look_again) = (None, None);
            self.backoff_until = None;
        }
        moved
    }

    /// The epoch under which the leader leads, or -1 if it is unknown or in doubt.
    pub(crate) fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    /// Another leader may not have what the former one had.
    fn take_back_unconfirmed(&mut self) {
        while let Some(flight) = self.unconfirmed.pop_back() {
            self.window.push_front(flight);
        }
    }

    /// Whether the leader knew this producer id before: then it takes only the sequence number that it
    /// expects, so that what it has taken proves all before it. From an id that it does not know, or has
    /// forgotten while we were silent, it takes any.
    fn leader_knew(&self, producer_id: i64, now: Instant) -> bool {
        self.acknowledged.is_some_and(|(id, _, at)| id == producer_id && now.saturating_duration_since(at) < IDLE_REARM)
    }

    /// The leader that we know denies it, or can't be reached. Epochs only grow while a topic lives, but
    /// a topic made anew begins again, and not every broker tells the two apart: so that a former life's
    /// epoch can't hide the leader for ever, an epoch in doubt counts no more.
    pub(crate) fn doubt_leader(&mut self) {
        self.doubts += 1;
        if self.doubts >= DOUBTS_MAX {
            self.doubts = 0;
            self.leader_epoch = -1;
        }
    }

    /// Something failed before anything could be sent: a connection to the leader, or a request for metadata or a producer id.
    pub(crate) fn on_unreachable(&mut self, now: Instant, reason: &Reason) {
        self.trouble = Some(reason.clone());
        if let Some(head) = self.window.front_mut().or(self.queue.front_mut())
            && head.outstanding.is_none()
        {
            head.history.failed_to_reach(now, reason);
        }
    }

    /// The topic was made anew: once the answers to what is under way have come, it is turned to.
    /// Until then nothing is concluded from one answer about another batch: by name a write may go to either topic.
    pub(crate) fn on_new_topic(&mut self, new: NewTopic) {
        self.turning = Some(new);
        (self.acknowledged, self.known) = (None, false);
    }

    /// Whether the topic was made anew, and answers of the former one are waited for.
    pub(crate) fn is_turning(&self) -> bool {
        self.turning.is_some()
    }

    /// The topic has such a partition again.
    pub(crate) fn on_again(&mut self) {
        self.gone = None;
        if let Some(new) = &mut self.turning {
            new.gone = None;
        }
    }

    /// Keeps what the cluster tells of a topic made anew for when it is turned to. Returns whether it is yet to be.
    pub(crate) fn note_new_topic(&mut self, uuid: TopicUuid, leader: Option<BrokerId>, epoch: i32) -> bool {
        if let Some(new) = &mut self.turning {
            new.told = Some((uuid, leader, epoch));
        }
        self.turning.is_some()
    }

    /// Turns to a topic made anew, if nothing is under way: what may be written to the old one is unknown for ever, the
    /// rest goes on, unless the new topic has no such partition. Returns whether it did.
    pub(crate) fn turn(&mut self, cx: &mut Context<'_, T>) -> bool {
        if self.window.iter().chain(&self.unconfirmed).any(|flight| flight.outstanding.is_some()) {
            return false;
        }
        let Some(NewTopic { reason, gone, told }) = self.turning.take() else { return false };
        self.take_back_unconfirmed();
        self.acknowledged = None;
        self.given_up.iter_mut().for_each(|given| given.provable = false);
        let window = std::mem::take(&mut self.window);
        let mut rest = VecDeque::new();
        for mut flight in window {
            if flight.may_be_written() {
                self.settle_given_up(flight, Some(reason.clone()), false, cx);
            } else {
                flight.forget_stamp(cx.out.uid());
                rest.push_back(flight);
            }
        }
        rest.append(&mut self.queue);
        self.queue = rest;
        self.place = Place::default();
        (self.looking, self.id_denied) = (None, None);
        (self.place.topic_uuid, self.leader, self.leader_epoch) = told.unwrap_or(([0; 16], None, -1));
        self.backoff_until = None;
        (self.fenced, self.doubts) = (0, 0);
        self.raise_epoch(EpochMove::NewTopic, cx);
        self.gone = gone;
        self.give_up_if_gone(cx);
        true
    }

    fn back_off(&mut self, cx: &mut Context<'_, T>) {
        self.failures = self.failures.saturating_add(1);
        self.backoff_until = Some(cx.now + cx.config.backoff.wait(self.failures, cx.chance));
    }

    /// Any error or lost answer: one batch in flight again, and what is under way behind the head is
    /// no longer fresh.
    fn disturb(&mut self) {
        self.known = false;
        for flight in &mut self.window {
            flight.fresh = false;
        }
    }

    fn settle_delivered(&mut self, flight: Flight<T>, cx: &mut Context<'_, T>) {
        let (base_offset, log_append_time) = match flight.proof {
            Proof::At(offset, time) => (Some(offset).filter(|offset| *offset >= 0), time),
            Proof::None | Proof::Written => (None, None),
        };
        if let Some(base) = base_offset {
            let behind = base.saturating_add(flight.records.len().into());
            self.place.acknowledged_to = self.place.acknowledged_to.max(Some(behind));
        }
        cx.out.counters.records_delivered += u64::from(flight.records.len());
        self.settle(flight, Verdict::Delivered { base_offset, log_append_time }, cx);
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
