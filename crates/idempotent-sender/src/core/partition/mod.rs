//! The sender of one partition: its queue, its window of stamped batches, and its producer id, epoch and next sequence
//! number.
//!
//! Rules:
//!  - Batches are sent in the order of their ordinals. The window holds stamped batches in the order of their sequence
//!    numbers, and the queue holds batches without a stamp. Each unsettled batch is in exactly one list.
//!  - Several batches are in flight only while the leader is known to know the stamp: from an acceptance until any
//!    error, lost answer, change of leader, epoch or topic id, or a minute without an acceptance.
//!  - Only the answer to the head batch decides. Answers to later batches are recorded.
//!  - This module knows no connections, no other partitions, and no clock.

mod answer;
mod failing;
mod lookup;
mod stamps;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier_batcher::{EncodedBatch, Stamp};
use kafka_courier_client::{BrokerId, PartitionId, Reason, TopicUuid};

use self::lookup::{HeadDoubt, PendingLookup};
use self::stamps::{EpochMove, NextStamp};
use super::effects::Context;
use super::flight::{Flight, History, PendingAttempt, Proof, TargetLog};
use super::types::{Action, BatchUid, RecordSet, RequestId, Settlement, Submission, UNCONFIRMED, Verdict};

/// A leader that received nothing for this long may have forgotten the producer id.
const IDLE_REARM: Duration = Duration::from_secs(60);
/// The number of failures of the known leader after which any leader in metadata is adopted.
const DOUBTS_MAX: u32 = 4;
/// The number of failed batches with the outcome unknown that are kept for a correction.
const UNKNOWN_BATCHES_MAX: usize = 256;

/// A failed batch with the outcome unknown.
#[derive(Debug)]
struct UnknownBatch<T> {
    /// Whether a later acceptance proves that the batch is in the log.
    provable: bool,
    attempts: Vec<PendingAttempt>,
    token: T,
    records: RecordSet,
    stamp: Option<Stamp>,
}

/// The batches of one partition, and the state of its stamps.
#[derive(Debug)]
pub(crate) struct PartitionSender<T> {
    pub(crate) id: PartitionId,
    pub(crate) leader: Option<BrokerId>,
    leader_epoch: i32,
    /// The log of the partition, for verifications.
    pub(crate) log: TargetLog,
    /// Why the topic no longer has this partition, if it does not.
    pub(crate) removed: Option<Reason>,
    /// Failures in a row of the known leader.
    doubts: u32,
    next: Option<NextStamp>,
    /// The producer id whose epochs are used up here. It is never used again.
    exhausted: Option<i64>,
    window: VecDeque<Flight<T>>,
    queue: VecDeque<Flight<T>>,
    /// Batches that were submitted before their turn, because batches are sealed on many threads.
    early: BTreeMap<u64, Flight<T>>,
    next_ordinal: u64,
    /// Whether the leader is known to know the stamp.
    stamp_known: bool,
    /// The producer id and epoch of the last accepted batch, and the time of the acceptance.
    acknowledged: Option<(i64, i16, Instant)>,
    /// Batches that a lookup found in the leader's producer state. The replicas may not have them yet. They precede the
    /// window.
    unconfirmed: VecDeque<Flight<T>>,
    /// Whether a batch of this epoch failed as unknown. Nothing new is stamped until the result of the later batches is
    /// clear.
    gap: bool,
    unknown_batches: VecDeque<UnknownBatch<T>>,
    failures: u32,
    backoff_until: Option<Instant>,
    /// Whether batches are sent alone in their requests, after a lost answer.
    solo: bool,
    lookup: Option<PendingLookup>,
    /// The head batch that the leader has, but its log does not show yet. It is looked up again instead of being sent
    /// again.
    lookup_retry: Option<(BatchUid, HeadDoubt)>,
    /// The time at which the leader denied the topic id. Nothing is sent until metadata that was requested later names
    /// the id.
    id_denied: Option<Instant>,
    /// The recreated topic, while attempts for the former topic are in flight. Nothing is sent until they are answered.
    switching: Option<RecreatedTopic>,
    /// Answers in a row that another process fenced the producer id.
    fenced: u32,
    /// The last failure, for verdicts on batches that were never tried.
    last_failure: Option<Reason>,
}

/// A recreated topic, as far as it concerns a partition.
#[derive(Clone, Debug)]
pub(crate) struct RecreatedTopic {
    /// The reason for batches that may be written to the former topic.
    pub(crate) reason: Reason,
    /// Why the recreated topic does not have this partition, if it does not.
    pub(crate) removed: Option<Reason>,
    /// The id, leader and leader epoch of the recreated topic in the latest metadata.
    pub(crate) latest_metadata: Option<(TopicUuid, Option<BrokerId>, i32)>,
}

/// Returns the reason for a batch that a lookup found, but no acceptance confirmed.
fn unconfirmed() -> Reason {
    Reason::NoAnswer(UNCONFIRMED.into())
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
            leader: None,
            leader_epoch: -1,
            log: TargetLog::default(),
            removed: None,
            doubts: 0,
            next: None,
            exhausted: None,
            window: VecDeque::new(),
            queue: VecDeque::new(),
            early: BTreeMap::new(),
            next_ordinal: 0,
            stamp_known: false,
            acknowledged: None,
            unconfirmed: VecDeque::new(),
            gap: false,
            unknown_batches: VecDeque::new(),
            failures: 0,
            backoff_until: None,
            solo: false,
            lookup: None,
            lookup_retry: None,
            id_denied: None,
            switching: None,
            fenced: 0,
            last_failure: None,
        }
    }

    /// Takes a batch. The batch is queued once all earlier ordinals are queued.
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
        self.solo
    }

    /// Returns the bytes of the next batch on the wire, or 0.
    pub(crate) fn next_len(&self) -> usize {
        let resend = self.window.iter().find(|flight| flight.outstanding.is_none());
        resend.or(self.queue.front()).map_or(0, |flight| flight.batch.len())
    }

    /// Returns the end of the backoff, if it lies after `now`.
    pub(crate) fn backoff_end(&self, now: Instant) -> Option<Instant> {
        self.backoff_until.filter(|until| *until > now)
    }

    /// Returns whether the partition is blocked until a producer id is assigned.
    pub(crate) fn wants_producer_id(&self) -> bool {
        self.next.is_none() && !self.queue.is_empty()
    }

    /// Returns whether the partition is blocked until metadata names its leader or the topic id.
    pub(crate) fn wants_metadata(&self) -> bool {
        (self.leader.is_none() || self.id_denied.is_some()) && !self.is_idle()
    }

    /// Adopts the topic id in metadata that was requested at `requested_at`. Metadata that was requested before the
    /// leader denied the id may be out of date, so it ends the block only if it names another id.
    pub(crate) fn on_topic_id(&mut self, uuid: TopicUuid, requested_at: Instant) {
        let is_another = self.log.topic_uuid != uuid;
        self.log.topic_uuid = uuid;
        self.id_denied = self.id_denied.filter(|denied_at| requested_at < *denied_at && !is_another);
    }

    /// Returns whether all epochs of this producer id are used up.
    pub(crate) fn has_used_up(&self, producer_id: i64) -> bool {
        self.exhausted == Some(producer_id)
    }

    /// Returns when the oldest batch reaches `timeout`.
    pub(crate) fn deadline(&self, timeout: Duration) -> Option<Instant> {
        let oldest = self.unconfirmed.front().or(self.window.front()).or(self.queue.front());
        oldest.map(|flight| flight.published_at + timeout)
    }

    /// Returns the next batch that may be sent now, recorded as sent in `request`.
    pub(crate) fn next_outgoing(&mut self, request: RequestId, cx: &mut Context<'_, T>) -> Option<OutgoingBatch> {
        let is_blocked = self.lookup.is_some() || self.id_denied.is_some() || self.switching.is_some();
        if self.backoff_end(cx.now).is_some() || is_blocked {
            return None;
        }
        if let Some((batch, doubt)) = self.lookup_retry.take()
            && self.window.front().is_some_and(|head| head.uid == batch)
        {
            self.lookup_or_fail(doubt, cx);
            return None;
        }
        if self.waits_for_unconfirmed() {
            // No other batch can prove the unconfirmed ones, so the last of them is sent again. Its answer also reveals
            // a change of the leader. Old records wait for it: once they are written, the leader may forget the
            // unconfirmed batches.
            let last = self.unconfirmed.pop_back();
            self.window.extend(last.map(|last| Flight { repeated: true, ..last }));
        }
        let window_size = self.window_size(cx);
        let solo = self.solo;
        for flight in self.window.iter_mut().take(window_size) {
            match flight.outstanding {
                Some(_) if flight.fresh => {}
                Some(_) => return None,
                None => {
                    if flight.history.tries > 0 {
                        cx.out.counters.batch_retries += 1;
                        cx.out.counters.record_retries += u64::from(flight.records.len());
                    }
                    flight.mark_sent(request, cx.now);
                    let outgoing = OutgoingBatch { batch: flight.batch.clone(), solo };
                    // The leader may forget the producer id once old records are appended.
                    self.acknowledged = self.acknowledged.filter(|_| !flight.aged);
                    return Some(outgoing);
                }
            }
        }
        if self.gap || self.window.len() >= window_size {
            return None;
        }
        self.stamp_next(request, cx)
    }

    /// Returns whether the last unconfirmed batch must be sent before any other.
    fn waits_for_unconfirmed(&self) -> bool {
        self.window.is_empty() && self.queue.front().is_none_or(|next| next.aged)
    }

    /// Returns how many of the first batches of the window may be in flight.
    fn window_size(&self, cx: &Context<'_, T>) -> usize {
        let recent = self.acknowledged.is_some_and(|(_, _, at)| cx.now.saturating_duration_since(at) < IDLE_REARM);
        // The leader may forget the producer id once old records are written, and then append the batches before them a
        // second time.
        let aged = self.window.iter().chain(self.queue.front()).any(|flight| flight.aged);
        if self.stamp_known && recent && !aged { cx.config.max_in_flight as usize } else { 1 }
    }

    /// Adopts a leader from metadata or from a hint, if it is newer than the known leader. Batches in flight at the
    /// former leader are sent again under the same stamps, without waiting for its answers. Returns whether the leader
    /// is another broker now.
    pub(crate) fn adopt_leader(&mut self, leader: Option<BrokerId>, epoch: i32) -> bool {
        // Any leader is better than none. A former leader denies its leadership.
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
        self.stamp_known = false;
        self.take_back_unconfirmed();
        if moved {
            self.window.iter_mut().for_each(Flight::abandon);
            (self.lookup, self.lookup_retry) = (None, None);
            self.backoff_until = None;
        }
        moved
    }

    /// Returns the leader epoch, or -1 if it is unknown or in doubt.
    pub(crate) fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    /// Moves the unconfirmed batches back to the window: another leader may not have them.
    fn take_back_unconfirmed(&mut self) {
        while let Some(flight) = self.unconfirmed.pop_back() {
            self.window.push_front(flight);
        }
    }

    /// Returns whether the leader knew this producer id before. It then accepts only the expected sequence number, so
    /// an acceptance proves all earlier batches. A leader that does not know the id, or forgot it while nothing was
    /// sent, accepts any sequence number.
    fn leader_knew(&self, producer_id: i64, now: Instant) -> bool {
        self.acknowledged.is_some_and(|(id, _, at)| id == producer_id && now.saturating_duration_since(at) < IDLE_REARM)
    }

    /// Counts a failure of the known leader: it denied its leadership or could not be reached. Epochs only grow during
    /// the life of a topic. A recreated topic starts again at 0, and some brokers send no topic ids. The epoch of a
    /// former topic must not hide the leader permanently, so a doubted epoch is dropped after some failures.
    pub(crate) fn doubt_leader(&mut self) {
        self.doubts += 1;
        if self.doubts >= DOUBTS_MAX {
            self.doubts = 0;
            self.leader_epoch = -1;
        }
    }

    /// Notes a failure before anything was sent: of a connection to the leader, or of a request for metadata or a
    /// producer id.
    pub(crate) fn on_unreachable(&mut self, now: Instant, reason: &Reason) {
        self.last_failure = Some(reason.clone());
        if let Some(head) = self.window.front_mut().or(self.queue.front_mut())
            && head.outstanding.is_none()
        {
            head.history.record_unreachable(now, reason);
        }
    }

    /// Notes that the topic was recreated. The partition switches once every attempt in flight is answered. An answer
    /// before the switch proves nothing about other batches, because a write by topic name may reach either topic.
    pub(crate) fn on_topic_recreated(&mut self, new: RecreatedTopic) {
        self.switching = Some(new);
        (self.acknowledged, self.stamp_known) = (None, false);
    }

    /// Returns whether the topic was recreated and answers for the former topic are awaited.
    pub(crate) fn is_switching(&self) -> bool {
        self.switching.is_some()
    }

    /// Notes that the topic has this partition again.
    pub(crate) fn on_partition_restored(&mut self) {
        self.removed = None;
        if let Some(new) = &mut self.switching {
            new.removed = None;
        }
    }

    /// Stores the metadata of a recreated topic until the switch. Returns whether a switch is pending.
    pub(crate) fn note_recreated_topic(&mut self, uuid: TopicUuid, leader: Option<BrokerId>, epoch: i32) -> bool {
        if let Some(new) = &mut self.switching {
            new.latest_metadata = Some((uuid, leader, epoch));
        }
        self.switching.is_some()
    }

    /// Switches to the recreated topic once nothing is in flight. Batches that may be written to the former topic fail
    /// as unknown. The others are sent to the new topic, or fail if the new topic does not have this partition. Returns
    /// whether the partition switched.
    pub(crate) fn switch_topic(&mut self, cx: &mut Context<'_, T>) -> bool {
        if self.window.iter().chain(&self.unconfirmed).any(|flight| flight.outstanding.is_some()) {
            return false;
        }
        let Some(RecreatedTopic { reason, removed, latest_metadata }) = self.switching.take() else { return false };
        self.take_back_unconfirmed();
        self.acknowledged = None;
        self.unknown_batches.iter_mut().for_each(|failed| failed.provable = false);
        let window = std::mem::take(&mut self.window);
        let mut rest = VecDeque::new();
        for mut flight in window {
            if flight.may_be_written() {
                self.settle_failed(flight, Some(reason.clone()), false, cx);
            } else {
                flight.forget_stamp(cx.out.new_uid());
                rest.push_back(flight);
            }
        }
        rest.append(&mut self.queue);
        self.queue = rest;
        self.log = TargetLog::default();
        (self.lookup, self.id_denied) = (None, None);
        (self.log.topic_uuid, self.leader, self.leader_epoch) = latest_metadata.unwrap_or(([0; 16], None, -1));
        self.backoff_until = None;
        (self.fenced, self.doubts) = (0, 0);
        self.raise_epoch(EpochMove::TopicRecreated, cx);
        self.removed = removed;
        self.fail_if_removed(cx);
        true
    }

    fn back_off(&mut self, cx: &mut Context<'_, T>) {
        self.failures = self.failures.saturating_add(1);
        self.backoff_until = Some(cx.now + cx.config.backoff.wait(self.failures, cx.jitter));
    }

    /// Returns to one batch in flight after an error or a lost answer. Attempts in flight after the head are no longer
    /// fresh.
    fn stop_pipelining(&mut self) {
        self.stamp_known = false;
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
            let end = base.saturating_add(flight.records.len().into());
            self.log.acknowledged_to = self.log.acknowledged_to.max(Some(end));
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
