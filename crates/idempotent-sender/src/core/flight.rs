//! One batch: its bytes, its attempts, and the proofs that it is in the log.
//!
//! Rules:
//!  - An attempt is *unsent* (the socket never took the last byte), *refused* (an error that precedes the append) or
//!    *open* (everything else). One open attempt suffices for the batch to be possibly written.
//!  - A stamp always means the same records. Their timestamps alone may change while an attempt under the stamp is open: a
//!    leader compares stamps.
//!  - `fresh` means that everything before the batch was settled or undisturbed when the attempt was sent. An error
//!    answer to a fresh attempt concerns the batch itself, not the failure of a predecessor.

mod times;

use std::sync::Arc;
use std::time::Instant;

use kafka_courier_batcher::{DecodeError, EncodedBatch, Sequence, Stamp};
use kafka_courier_client::{Reason, RejectedRecord, TopicUuid};

use super::failure::{FailedOutcome, Failure};
use super::ids::{BatchUid, RequestId};
use super::types::{RecordSet, StoredBatch};
pub(crate) use times::RecordTimes;

/// Proof that a batch is in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Proof {
    /// No proof.
    None,
    /// The batch is in the log at an unknown offset.
    Written,
    /// The leader has acknowledged the batch, or the log shows it: at this offset, with this log append time, both
    /// unless the answer has none.
    At(Option<i64>, Option<i64>),
}

/// An attempt whose answer may still arrive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingAttempt {
    pub(crate) request: RequestId,
    /// The number of sent records before the first record of this batch. The batch may have been split since it was
    /// sent.
    pub(crate) records_before: u32,
    /// The latest timestamp of the sent records, in milliseconds since the Unix epoch.
    pub(crate) newest: i64,
}

/// An attempt whose answer has arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EndedAttempt {
    /// Whether the attempt is the outstanding one, not an abandoned one.
    pub(crate) current: bool,
    /// See [`PendingAttempt`].
    pub(crate) records_before: u32,
    /// See [`PendingAttempt`].
    pub(crate) newest: i64,
}

impl EndedAttempt {
    /// Returns the log append time, if the answer has one. A leader that recognizes a duplicate answers with the latest
    /// timestamp of the batch, even if the topic keeps the timestamps of the producer
    /// (`message.timestamp.type=CreateTime`).
    pub(crate) fn log_append_time(&self, answered: Option<i64>) -> Option<i64> {
        answered.filter(|time| *time != self.newest)
    }
}

/// A batch until its verdict, queued or sent.
#[derive(Debug)]
pub(crate) struct Flight<T> {
    pub(crate) uid: BatchUid,
    pub(crate) token: T,
    pub(crate) records: RecordSet,
    pub(crate) batch: Arc<EncodedBatch>,
    pub(crate) charge: usize,
    pub(crate) published_at: Instant,
    pub(crate) aged: bool,
    /// The timestamps of the records, if the batch is stored.
    pub(crate) times: Option<Box<RecordTimes>>,
    /// Whether the leader rejected the records.
    pub(crate) is_rejected: bool,
    /// Whether the batch may be written under a former stamp, and was sent again nevertheless.
    pub(crate) may_be_doubled: bool,
    /// The batch's place in the durable log that holds it. Such a batch never fails because of time or an outage.
    pub(crate) stored: Option<Box<StoredBatch>>,
    /// Whether the stamp is that of an earlier process, which may have sent the batch.
    pub(crate) is_inherited: bool,
    /// Whether the leader must be asked for its producer state before the batch is sent.
    pub(crate) needs_lookup: bool,
    /// Whether requests of an earlier process may append the batch, although the leader's state ends before it: this one
    /// and those of batches that failed as unknown.
    pub(crate) may_arrive: bool,
    /// The partition's `acknowledged_to` when the batch got its present stamp: the batch is in the log at no earlier
    /// offset. A later `acknowledged_to` could be an offset after the batch, because a leader that forgot the producer
    /// id may append another batch twice.
    pub(crate) search_from: Option<i64>,
    pub(crate) outstanding: Option<RequestId>,
    /// Attempts that no longer block the batch, but whose answers may still arrive.
    pub(crate) abandoned: Vec<PendingAttempt>,
    pub(crate) fresh: bool,
    /// Whether the result of some attempt will never be known.
    pub(crate) open: bool,
    pub(crate) proof: Proof,
    /// Whether a later acceptance proves that the batch is in the log.
    pub(crate) provable: bool,
    /// Whether the batch was sent again after a lookup found it, so that the leader recognizes the duplicate.
    pub(crate) repeated: bool,
    pub(crate) write_errors: u32,
    pub(crate) history: History,
}

/// The log to which a batch is sent, as far as a verification needs it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TargetLog {
    /// `None` if the brokers send no topic ids.
    pub(crate) topic_uuid: Option<TopicUuid>,
    /// The offset after the last acknowledged record.
    pub(crate) acknowledged_to: Option<i64>,
}

/// The tries of a batch, for its verdict.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) tries: u32,
    pub(crate) first: Option<Instant>,
    pub(crate) last: Option<Instant>,
    pub(crate) reason: Option<Reason>,
    /// See [`Failure`].
    pub(crate) rejected: Option<Arc<[RejectedRecord]>>,
}

impl History {
    /// Records a try, whatever its result.
    pub(crate) fn record_try(&mut self, now: Instant) {
        self.tries = self.tries.saturating_add(1);
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    /// Records a try that failed before anything was sent.
    pub(crate) fn record_unreachable(&mut self, now: Instant, reason: &Reason) {
        self.record_try(now);
        self.reason = Some(reason.clone());
    }
}

impl<T: Clone> Flight<T> {
    /// Returns whether some attempt may have been appended, or may still be.
    pub(crate) fn may_be_written(&self) -> bool {
        self.has_open_attempt() || self.outstanding.is_some() || self.proof != Proof::None
    }

    /// Returns whether some attempt other than the outstanding one is open.
    pub(crate) fn has_open_attempt(&self) -> bool {
        self.open || !self.abandoned.is_empty()
    }

    /// Returns the number of the first record in the durable log that holds the batch.
    pub(crate) fn first_stored(&self) -> Option<u64> {
        let place = self.stored.as_deref()?;
        self.records.get(0).map(|index| place.first + u64::from(index))
    }

    /// Returns the number after the last record in the durable log that holds the batch.
    pub(crate) fn end_stored(&self) -> Option<u64> {
        let place = self.stored.as_deref()?;
        self.records.iter().last().map(|index| place.first + u64::from(index) + 1)
    }

    /// Returns whether no attempt is outstanding and no retry is left. A stored batch is retried without end.
    pub(crate) fn has_spent_retries(&self, retry_max: u32) -> bool {
        self.outstanding.is_none() && self.write_errors > retry_max && self.stored.is_none()
    }

    pub(crate) fn stamp(&self) -> Option<Stamp> {
        self.batch.current_stamp()
    }

    /// Returns the last sequence number of a stamped batch.
    pub(crate) fn last_sequence(&self) -> Option<Sequence> {
        let count = self.batch.record_count().max(1);
        self.stamp().map(|stamp| stamp.sequence().advance(count - 1))
    }

    /// Returns whether a leader with this epoch and last sequence number has the batch, if the leader knew the producer id
    /// all the time.
    pub(crate) fn is_covered(&self, epoch: i32, last_sequence: i32) -> bool {
        let (Some(stamp), Some(ours)) = (self.stamp(), self.last_sequence()) else { return false };
        let has_passed = |last: Sequence| ours == last || ours.precedes(last);
        i32::from(stamp.epoch) == epoch && Sequence::new(last_sequence).is_some_and(has_passed)
    }

    /// Writes a stamp into the batch and updates the CRC.
    pub(crate) fn set_stamp(&mut self, stamp: Stamp) {
        Arc::make_mut(&mut self.batch).stamp(stamp);
    }

    /// Notes that the batch is sent in `request`.
    pub(crate) fn mark_sent(&mut self, request: RequestId, now: Instant) {
        self.outstanding = Some(request);
        self.fresh = true;
        self.is_rejected = false;
        // The leader may forget old records at once, and would append a repeat.
        self.needs_lookup = self.aged && self.stored.is_some();
        self.history.record_try(now);
    }

    /// Stops waiting for the outstanding attempt. The attempt is open until its answer says otherwise.
    pub(crate) fn abandon(&mut self) {
        let newest = self.batch.max_timestamp();
        self.abandoned.extend(self.outstanding.take().map(|request| PendingAttempt {
            request,
            records_before: 0,
            newest,
        }));
    }

    /// Returns every attempt whose answer may still arrive.
    pub(crate) fn attempts(&self) -> impl Iterator<Item = PendingAttempt> {
        let newest = self.batch.max_timestamp();
        let current = self.outstanding.map(|request| PendingAttempt { request, records_before: 0, newest });
        self.abandoned.iter().copied().chain(current)
    }

    /// Ends the attempt that was sent in `request` and returns it, if its answer was still possible.
    pub(crate) fn end_attempt(&mut self, request: RequestId) -> Option<EndedAttempt> {
        if self.outstanding == Some(request) {
            self.outstanding = None;
            return Some(EndedAttempt { current: true, records_before: 0, newest: self.batch.max_timestamp() });
        }
        let position = self.abandoned.iter().position(|attempt| attempt.request == request)?;
        let PendingAttempt { records_before, newest, .. } = self.abandoned.remove(position);
        Some(EndedAttempt { current: false, records_before, newest })
    }

    /// Records a proof. A proof with an offset is never replaced.
    pub(crate) fn prove(&mut self, proof: Proof) {
        if !matches!(self.proof, Proof::At(..)) {
            self.proof = proof;
        }
    }

    /// Turns the batch into one that was never sent. Call this only if the batch is provably not written.
    pub(crate) fn forget_stamp(&mut self, uid: BatchUid) {
        self.uid = uid;
        self.outstanding = None;
        self.abandoned.clear();
        self.open = false;
        (self.is_inherited, self.needs_lookup, self.may_arrive) = (false, false, false);
        self.fresh = false;
        self.proof = Proof::None;
        self.provable = true;
        self.repeated = false;
        self.aged &= !self.is_renewed();
    }

    /// Returns the verdict for a failure now.
    pub(crate) fn failure(&self, reason: Reason, timed_out: bool, log: &TargetLog) -> Failure {
        let is_unknown = self.may_be_written() || self.may_be_doubled;
        let outcome = if is_unknown { FailedOutcome::Unknown } else { FailedOutcome::NotWritten };
        Failure {
            outcome,
            reason,
            timed_out,
            attempts: self.history.tries,
            first_attempt: self.history.first,
            last_attempt: self.history.last,
            // The absence of one stamp proves nothing if the batch had two.
            stamp: (self.may_be_written() && !self.may_be_doubled).then(|| self.stamp()).flatten(),
            topic_uuid: log.topic_uuid,
            search_from: if outcome == FailedOutcome::Unknown { self.search_from } else { log.acknowledged_to },
            rejected: self.history.rejected.clone(),
            clock_ms: None,
        }
    }

    /// Splits a batch into two halves whose records keep their sequence numbers (KIP-126). Returns `None` if the batch
    /// has only one record.
    pub(crate) fn split(&self, uids: [BatchUid; 2]) -> Result<Option<[Self; 2]>, DecodeError> {
        Ok(self.batch.split()?.map(|parts| self.parts(parts, uids)))
    }

    /// Splits a batch before the record at `index`, as [`split`](Self::split) does. Returns `None` if one part would be
    /// empty.
    pub(crate) fn split_at(&self, index: u32, uids: [BatchUid; 2]) -> Result<Option<[Self; 2]>, DecodeError> {
        Ok(self.batch.split_at(index)?.map(|parts| self.parts(parts, uids)))
    }

    fn parts(&self, (mut first, mut second): (EncodedBatch, EncodedBatch), uids: [BatchUid; 2]) -> [Self; 2] {
        if let Some(stamp) = self.stamp() {
            first.stamp(stamp);
            second.stamp(stamp.advance(first.record_count()));
        }
        let (records_1, records_2) = self.records.split_at(first.record_count());
        let half = self.charge / 2;
        let skipped = first.record_count();
        let front = self.part(uids[0], first, records_1, half);
        let mut back = self.part(uids[1], second, records_2, self.charge - half);
        back.abandoned.iter_mut().for_each(|attempt| attempt.records_before += skipped);
        if let Proof::At(Some(offset), _) = &mut back.proof {
            *offset += i64::from(skipped);
        }
        [front, back]
    }

    /// Splits a batch into the `rejected` records (sorted positions) and the others, both unstamped. Returns `None` if
    /// one part would be empty.
    pub(crate) fn single_out(&self, rejected: &[u32], uids: [BatchUid; 2]) -> Result<Option<[Self; 2]>, DecodeError> {
        let valid: Vec<u32> = (0..self.batch.record_count()).filter(|i| rejected.binary_search(i).is_err()).collect();
        let (Some(rejected_batch), Some(rest)) = (self.batch.without(&valid)?, self.batch.without(rejected)?) else {
            return Ok(None);
        };
        let (records_rejected, records_rest) = self.records.partition(rejected);
        let half = self.charge / 2;
        Ok(Some([
            self.part(uids[0], rejected_batch, records_rejected, half),
            self.part(uids[1], rest, records_rest, self.charge - half),
        ]))
    }

    fn part(&self, uid: BatchUid, batch: EncodedBatch, records: RecordSet, charge: usize) -> Self {
        Self {
            uid,
            token: self.token.clone(),
            records,
            batch: Arc::new(batch),
            charge,
            published_at: self.published_at,
            aged: self.aged,
            times: self.times.clone(),
            is_rejected: self.is_rejected,
            may_be_doubled: self.may_be_doubled,
            stored: self.stored.clone(),
            is_inherited: self.is_inherited,
            needs_lookup: self.needs_lookup,
            may_arrive: self.may_arrive,
            search_from: self.search_from,
            outstanding: None,
            fresh: false,
            abandoned: self.abandoned.clone(),
            open: self.open,
            proof: self.proof,
            provable: self.provable,
            repeated: self.repeated,
            write_errors: self.write_errors,
            history: self.history.clone(),
        }
    }
}
