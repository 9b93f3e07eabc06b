//! One batch on its way: its bytes, its attempts so far, and what they prove.
//!
//! Rules:
//! - An attempt is *unsent* (the socket never took its last byte), *refused* (an error that precedes the
//!   append) or *open* (all else). One open attempt is enough for the batch to be possibly written.
//! - A stamp stands for the same records for ever: bytes change only while no stamp of them is open.
//! - `fresh` says that all that is before the batch was settled or well when its attempt left, so that an
//!   error answer to it speaks of the batch itself and not of a predecessor's failure.

use std::sync::Arc;
use std::time::Instant;

use kafka_courier_batcher::{DecodeError, EncodedBatch, Stamp, sequence_add};

use super::types::{BatchUid, FailedOutcome, Failure, Reason, RecordSet, RejectedRecord, RequestId, TopicUuid};

/// What is known of a batch's place in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Proof {
    /// Nothing.
    None,
    /// It is there; where is not known.
    Written,
    /// It is there, at this offset, with this log append time.
    At(i64, Option<i64>),
}

/// An attempt whose answer may still come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) request: RequestId,
    /// How many records of what was sent lie before this batch's first: it may be a part of it by now.
    pub(crate) behind: u32,
    /// The latest timestamp of what was sent, milliseconds since the Unix epoch.
    pub(crate) newest: i64,
}

/// An attempt whose answer has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ended {
    /// It was the one that is waited for.
    pub(crate) current: bool,
    /// As in `Attempt`.
    pub(crate) behind: u32,
    /// As in `Attempt`.
    pub(crate) newest: i64,
}

impl Ended {
    /// The leader's own time for the records, if the answer names one. A leader that recognises a batch answers with the
    /// batch's latest timestamp, also where the topic keeps the records' own (`message.timestamp.type=CreateTime`).
    pub(crate) fn log_append_time(&self, answered: i64) -> Option<i64> {
        Some(answered).filter(|time| *time >= 0 && *time != self.newest)
    }
}

#[derive(Debug)]
pub(crate) struct Flight<T> {
    pub(crate) uid: BatchUid,
    pub(crate) token: T,
    pub(crate) records: RecordSet,
    pub(crate) batch: Arc<EncodedBatch>,
    pub(crate) charge: usize,
    pub(crate) published_at: Instant,
    pub(crate) aged: bool,
    /// The partition's `acknowledged_to` when it got its present stamp: it is in the log at no earlier offset. What is
    /// acknowledged later may lie behind it, where the leader forgot the id and took another batch a second time.
    pub(crate) search_from: Option<i64>,
    pub(crate) outstanding: Option<RequestId>,
    /// Attempts that are no longer waited for, but whose answers may still come.
    pub(crate) abandoned: Vec<Attempt>,
    pub(crate) fresh: bool,
    /// Some attempt will never have an answer that says what became of it.
    pub(crate) open: bool,
    pub(crate) proof: Proof,
    /// A later acceptance proves that it is in the log.
    pub(crate) provable: bool,
    /// A look has found it, and it was sent again so that the leader recognizes it.
    pub(crate) repeated: bool,
    pub(crate) write_errors: u32,
    pub(crate) history: History,
}

/// The log that it is meant for, as far as a later check needs to know it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    pub(crate) topic_uuid: TopicUuid,
    /// The offset behind the last record that was acknowledged.
    pub(crate) acknowledged_to: Option<i64>,
}

/// The tries so far, for the verdict.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) tries: u32,
    pub(crate) first: Option<Instant>,
    pub(crate) last: Option<Instant>,
    pub(crate) reason: Option<Reason>,
    /// As in `Failure`.
    pub(crate) rejected: Option<Arc<[RejectedRecord]>>,
}

impl History {
    /// A try at `now`, whatever becomes of it.
    pub(crate) fn tried(&mut self, now: Instant) {
        self.tries = self.tries.saturating_add(1);
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    /// A try that failed before anything could be sent.
    pub(crate) fn failed_to_reach(&mut self, now: Instant, reason: &Reason) {
        self.tried(now);
        self.reason = Some(reason.clone());
    }
}

impl<T: Clone> Flight<T> {
    /// Whether some attempt of it may have been, or may yet be, appended.
    pub(crate) fn may_be_written(&self) -> bool {
        self.has_open_attempt() || self.outstanding.is_some() || self.proof != Proof::None
    }

    /// Whether some attempt other than the outstanding one is open.
    pub(crate) fn has_open_attempt(&self) -> bool {
        self.open || !self.abandoned.is_empty()
    }

    pub(crate) fn stamp(&self) -> Option<Stamp> {
        self.batch.current_stamp()
    }

    /// Its last sequence number, if it is stamped.
    pub(crate) fn last_sequence(&self) -> Option<i32> {
        let count = self.batch.record_count().max(1);
        self.stamp().map(|stamp| sequence_add(stamp.base_sequence, count - 1))
    }

    /// Gives it a stamp, with the CRC over it.
    pub(crate) fn set_stamp(&mut self, stamp: Stamp) {
        Arc::make_mut(&mut self.batch).stamp(stamp);
    }

    /// Notes that its bytes leave in `request`.
    pub(crate) fn sent(&mut self, request: RequestId, now: Instant) {
        self.outstanding = Some(request);
        self.fresh = true;
        self.history.tried(now);
    }

    /// Stops waiting for the attempt that is under way: it is open until its answer says otherwise.
    pub(crate) fn abandon(&mut self) {
        let newest = self.batch.max_timestamp();
        self.abandoned.extend(self.outstanding.take().map(|request| Attempt { request, behind: 0, newest }));
    }

    /// Every attempt whose answer may still come.
    pub(crate) fn attempts(&self) -> impl Iterator<Item = Attempt> {
        let newest = self.batch.max_timestamp();
        let current = self.outstanding.map(|request| Attempt { request, behind: 0, newest });
        self.abandoned.iter().copied().chain(current)
    }

    /// The attempt that left in `request`, if its answer may still come; from now on it has come.
    pub(crate) fn end_attempt(&mut self, request: RequestId) -> Option<Ended> {
        if self.outstanding == Some(request) {
            self.outstanding = None;
            return Some(Ended { current: true, behind: 0, newest: self.batch.max_timestamp() });
        }
        let position = self.abandoned.iter().position(|attempt| attempt.request == request)?;
        let Attempt { behind, newest, .. } = self.abandoned.remove(position);
        Some(Ended { current: false, behind, newest })
    }

    /// Notes what an acceptance proves; what is known better stays.
    pub(crate) fn prove(&mut self, proof: Proof) {
        if !matches!(self.proof, Proof::At(..)) {
            self.proof = proof;
        }
    }

    /// Makes it a batch that was never sent. Only for batches that are provably not written.
    pub(crate) fn forget_stamp(&mut self, uid: BatchUid) {
        self.uid = uid;
        self.outstanding = None;
        self.abandoned.clear();
        self.open = false;
        self.fresh = false;
        self.proof = Proof::None;
        self.provable = true;
        self.repeated = false;
    }

    /// The verdict, if it is given up now.
    pub(crate) fn failure(&self, reason: Reason, timed_out: bool, place: &Place) -> Failure {
        let outcome = if self.may_be_written() { FailedOutcome::Unknown } else { FailedOutcome::NotWritten };
        Failure {
            outcome,
            reason,
            timed_out,
            attempts: self.history.tries,
            first_attempt: self.history.first,
            last_attempt: self.history.last,
            stamp: self.may_be_written().then(|| self.stamp()).flatten(),
            topic_uuid: place.topic_uuid,
            search_from: if outcome == FailedOutcome::Unknown { self.search_from } else { place.acknowledged_to },
            rejected: self.history.rejected.clone(),
            clock_ms: None,
        }
    }

    /// The two halves of a stamped batch, with the records' own sequences (KIP-126), or `None` if it
    /// has only one record.
    pub(crate) fn split(&self, uids: [BatchUid; 2]) -> Result<Option<[Self; 2]>, DecodeError> {
        let Some((mut first, mut second)) = self.batch.split()? else { return Ok(None) };
        if let Some(stamp) = self.stamp() {
            first.stamp(stamp);
            let base_sequence = sequence_add(stamp.base_sequence, first.record_count());
            second.stamp(Stamp { base_sequence, ..stamp });
        }
        let (records_1, records_2) = self.records.split_at(first.record_count());
        let half = self.charge / 2;
        let skipped = first.record_count();
        let front = self.part(uids[0], first, records_1, half);
        let mut back = self.part(uids[1], second, records_2, self.charge - half);
        back.abandoned.iter_mut().for_each(|attempt| attempt.behind += skipped);
        if let Proof::At(offset, _) = &mut back.proof {
            *offset += i64::from(skipped);
        }
        Ok(Some([front, back]))
    }

    /// The records at these positions, in rising order, and the rest, both unstamped; `None` if no record is left over.
    pub(crate) fn single_out(&self, guilty: &[u32], uids: [BatchUid; 2]) -> Result<Option<[Self; 2]>, DecodeError> {
        let innocent: Vec<u32> = (0..self.batch.record_count()).filter(|i| guilty.binary_search(i).is_err()).collect();
        let (Some(condemned), Some(rest)) = (self.batch.without(&innocent)?, self.batch.without(guilty)?) else {
            return Ok(None);
        };
        let (records_guilty, records_rest) = self.records.partition(guilty);
        let half = self.charge / 2;
        Ok(Some([
            self.part(uids[0], condemned, records_guilty, half),
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
