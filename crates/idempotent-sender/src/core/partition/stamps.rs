//! Stamps of a partition: the next stamp, the next epoch, and the change to another producer id.
//!
//! Rules:
//!  - A stamp always means the same records. An epoch is raised only if every batch without a verdict has lost its
//!    stamp.
//!  - A new producer id fences nothing, so it is taken only if no batch of the former id can be appended any more. This
//!    holds in two cases: every batch is settled and fenced by an acceptance, or the leader answered that the id is
//!    fenced (INVALID_PRODUCER_EPOCH). Such a leader knows an epoch above all epochs of this client and appends none of
//!    its batches.

use kafka_courier_batcher::{Stamp, sequence_add};

use super::super::effects::Context;
use super::super::types::RequestId;
use super::{OutgoingBatch, PartitionSender, unconfirmed};

/// The first epoch at which a partition changes to another producer id as soon as this is safe.
const RETIRING_EPOCH: i16 = i16::MAX - 1000;
/// The number of answers in a row that the id is fenced to which the partition reacts with the next epoch. A proof of
/// absence fences an id a thousand epochs above all epochs it saw. Raising the epoch that far takes longer than
/// `delivery_timeout`.
pub(super) const FENCED_MAX: u32 = 5;

/// The next stamp.
#[derive(Clone, Copy, Debug)]
pub(super) struct NextStamp {
    pub(super) producer_id: i64,
    pub(super) epoch: i16,
    pub(super) sequence: i32,
}

/// Why a partition raises its epoch or changes its producer id.
#[derive(Clone, Copy, Debug)]
pub(super) enum EpochMove {
    /// A batch failed as not written, which blocks later batches.
    Blocked,
    /// Some records of a batch were rejected.
    SingledOut,
    /// No batch in the window follows a batch that failed as unknown.
    GapEnded,
    /// The batch after one that failed as unknown is certainly not written.
    GapBlocked,
    /// The leader lost acknowledged records, or forgot the id.
    AcknowledgedLost,
    /// The leader repeatedly answered with a higher epoch: another process uses the id, or fenced it.
    Fenced,
    /// The topic was recreated.
    TopicRecreated,
    /// All batches failed.
    AllFailed,
}

impl EpochMove {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::SingledOut => "singled_out",
            Self::GapEnded => "gap_ended",
            Self::GapBlocked => "gap_blocked",
            Self::AcknowledgedLost => "acknowledged_lost",
            Self::Fenced => "fenced",
            Self::TopicRecreated => "topic_recreated",
            Self::AllFailed => "all_failed",
        }
    }
}

impl<T: Clone> PartitionSender<T> {
    /// Stamps the first batch of the queue and moves it to the window, as sent in `request`.
    pub(super) fn stamp_next(&mut self, request: RequestId, cx: &mut Context<'_, T>) -> Option<OutgoingBatch> {
        self.queue.front()?;
        self.retire_id(cx);
        let next = match &mut self.next {
            Some(next) => next,
            None => {
                let producer_id = cx.producer_id.filter(|id| Some(*id) != self.exhausted)?;
                let (epoch, sequence) = match self.exhausted {
                    None => (cx.config.first_epoch, cx.config.first_sequence),
                    Some(_) => (0, 0),
                };
                self.next.insert(NextStamp { producer_id, epoch, sequence })
            }
        };
        let mut flight = self.queue.pop_front()?;
        flight.search_from = self.log.acknowledged_to;
        flight.set_stamp(Stamp { producer_id: next.producer_id, epoch: next.epoch, base_sequence: next.sequence });
        let after = sequence_add(next.sequence, flight.batch.record_count());
        if after < next.sequence {
            cx.out.counters.sequence_wraps += 1;
        }
        next.sequence = after;
        if flight.history.tries > 0 {
            cx.out.counters.batch_retries += 1;
            cx.out.counters.record_retries += u64::from(flight.records.len());
        }
        flight.mark_sent(request, cx.now);
        self.acknowledged = self.acknowledged.filter(|_| !flight.aged);
        let outgoing = OutgoingBatch { batch: flight.batch.clone(), solo: self.solo };
        self.window.push_back(flight);
        Some(outgoing)
    }

    /// Changes the producer id well before its epochs are used up. A new id fences nothing, and batches in flight under
    /// the old id can still be appended. The change therefore happens only if every batch has a verdict, and an
    /// acceptance under the present epoch fences the batches that may not be in the log yet.
    fn retire_id(&mut self, cx: &mut Context<'_, T>) {
        let Some(next) = self.next.filter(|next| next.epoch >= RETIRING_EPOCH) else { return };
        let nothing_sent = self.window.is_empty() && self.unconfirmed.is_empty();
        let fenced = self.acknowledged.is_some_and(|(id, epoch, _)| id == next.producer_id && epoch == next.epoch);
        let has_unknown = self.unknown_batches.iter().any(|failed| failed.same_epoch(next.producer_id, next.epoch));
        if !nothing_sent || !fenced || has_unknown {
            return;
        }
        match cx.producer_id {
            Some(id) if id != next.producer_id => {
                cx.out.counters.ids_exhausted += 1;
                self.leave_id(next.producer_id);
            }
            Some(_) => cx.out.retiring_id = Some(next.producer_id),
            None => {}
        }
    }

    fn leave_id(&mut self, producer_id: i64) {
        self.fenced = 0;
        self.exhausted = Some(producer_id);
        self.next = None;
        self.stamp_known = false;
    }

    /// Raises the epoch and restarts the sequence at 0. Takes another producer id after the last epoch, and if the id
    /// was fenced. An acceptance proves nothing about batches of the former epoch any more.
    pub(super) fn raise_epoch(&mut self, cause: EpochMove, cx: &mut Context<'_, T>) {
        *cx.out.counters.epoch_moves.entry(cause.as_str()).or_default() += u64::from(self.next.is_some());
        self.stamp_known = false;
        self.gap = false;
        for flight in std::mem::take(&mut self.unconfirmed) {
            self.settle_failed(flight, Some(unconfirmed()), false, cx);
        }
        match &mut self.next {
            Some(NextStamp { producer_id, .. }) if matches!(cause, EpochMove::Fenced) => {
                let fenced = *producer_id;
                cx.out.counters.fenced_ids_left += 1;
                self.leave_id(fenced);
            }
            // The partition had no quiet moment during a thousand epochs, or its id would have changed. The order of
            // batches that failed as unknown cannot be kept here. Everything else can.
            Some(NextStamp { producer_id, epoch: i16::MAX, .. }) => {
                let used_up = *producer_id;
                cx.out.counters.ids_exhausted += 1;
                self.leave_id(used_up);
            }
            Some(next) => {
                cx.out.counters.epoch_raises += 1;
                next.epoch += 1;
                next.sequence = 0;
            }
            None => {}
        }
    }
}
