//! A partition's stamps: the next one, the next epoch, and when it takes another producer id.
//!
//! Rules:
//! - A stamp stands for the same records for ever; an epoch is only raised where all that has no verdict lost its stamp.
//! - A new id fences nothing: it is taken where nothing of the former can land any more. That is so where all is settled and
//!   fenced by an acceptance, and where the leader has said that the id is fenced (INVALID_PRODUCER_EPOCH): it then knows of
//!   an epoch above all of ours, and takes nothing of them.

use kafka_courier_batcher::{Stamp, sequence_add};

use super::super::effects::Context;
use super::super::types::RequestId;
use super::{Outgoing, Partition, unconfirmed};

/// From this epoch on a partition changes to another producer id as soon as that is safe.
const RETIRING_EPOCH: i16 = i16::MAX - 1000;
/// So many answers in a row that the id is fenced are met with the next epoch. Who looks for lost records fences an id a
/// thousand epochs above all that it has seen: to climb there would take longer than any record is given.
pub(super) const FENCED_MAX: u32 = 5;

/// Where the next stamp continues.
#[derive(Clone, Copy, Debug)]
pub(super) struct NextStamp {
    pub(super) producer_id: i64,
    pub(super) epoch: i16,
    pub(super) sequence: i32,
}

/// Why a partition goes on under another epoch.
#[derive(Clone, Copy, Debug)]
pub(super) enum EpochMove {
    /// A batch was given up that is certainly not written: those behind it are barred.
    Barred,
    /// Some records of a batch were singled out as guilty.
    SingledOut,
    /// Behind what may be written nothing is open any more.
    GapEnded,
    /// Behind what may be written the next is certainly not.
    GapBarred,
    /// The leader had lost what it acknowledged, or the id.
    AcknowledgedLost,
    /// The leader knows of an epoch that is not ours, again and again: somebody else uses the id, or has fenced it.
    Fenced,
    /// The topic was made anew.
    NewTopic,
    /// Everything was given up.
    GivenUp,
}

impl EpochMove {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Barred => "barred",
            Self::SingledOut => "singled_out",
            Self::GapEnded => "gap_ended",
            Self::GapBarred => "gap_barred",
            Self::AcknowledgedLost => "acknowledged_lost",
            Self::Fenced => "fenced",
            Self::NewTopic => "new_topic",
            Self::GivenUp => "given_up",
        }
    }
}

impl<T: Clone> Partition<T> {
    /// Stamps the queue's first batch and sends it.
    pub(super) fn stamp_next(&mut self, request: RequestId, cx: &mut Context<'_, T>) -> Option<Outgoing> {
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
        flight.search_from = self.place.acknowledged_to;
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
        flight.sent(request, cx.now);
        self.acknowledged = self.acknowledged.filter(|_| !flight.aged);
        let outgoing = Outgoing { batch: flight.batch.clone(), solo: self.solo };
        self.window.push_back(flight);
        Some(outgoing)
    }

    /// A new id fences nothing: what is still under way under the old one can land at any time. So it is
    /// taken where nothing is, well before the epochs are used up: everything has a verdict, and what
    /// may have none in the log yet is fenced by an acceptance under the present epoch.
    fn retire_id(&mut self, cx: &mut Context<'_, T>) {
        let Some(next) = self.next.filter(|next| next.epoch >= RETIRING_EPOCH) else { return };
        let nothing_sent = self.window.is_empty() && self.unconfirmed.is_empty();
        let fenced = self.acknowledged.is_some_and(|(id, epoch, _)| id == next.producer_id && epoch == next.epoch);
        let doubtful = self.given_up.iter().any(|given| given.same_epoch(next.producer_id, next.epoch));
        if !nothing_sent || !fenced || doubtful {
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
        self.known = false;
    }

    /// The same stamp no more: the next epoch, from 0; after the last epoch, and where the id was fenced, another id.
    /// Nothing of the former epoch can be proved by an acceptance any more.
    pub(super) fn raise_epoch(&mut self, cause: EpochMove, cx: &mut Context<'_, T>) {
        *cx.out.counters.epoch_moves.entry(cause.as_str()).or_default() += u64::from(self.next.is_some());
        self.known = false;
        self.gap = false;
        for flight in std::mem::take(&mut self.unconfirmed) {
            self.settle_given_up(flight, Some(unconfirmed()), false, cx);
        }
        match &mut self.next {
            Some(NextStamp { producer_id, .. }) if matches!(cause, EpochMove::Fenced) => {
                let fenced = *producer_id;
                cx.out.counters.fenced_ids_left += 1;
                self.leave_id(fenced);
            }
            // Whoever has come so far has not had one quiet moment in a thousand epochs: the order of
            // what was given up as unknown can't be kept, everything else can.
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
