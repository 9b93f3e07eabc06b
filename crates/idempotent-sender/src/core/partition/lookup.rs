//! Lookups of a partition: of the leader's producer state, and of the log.
//!
//! Rules:
//!  - The producer state proves that a batch was appended if two conditions hold: it has the batch's epoch and a
//!    sequence number at or past the batch's last one, and the leader knew the producer id all the time. The state
//!    never proves that a batch was not appended.
//!  - A batch that the state covers is sent again only if the answer to the repeat settles it: the leader refused only
//!    the sequence number, and the producer id is young. An old id may be forgotten meanwhile, and the repeat would be
//!    appended a second time. The batch is sent again once, because a leader recognizes only the batch as written, and
//!    the batch may have been split since.
//!  - A log search decides about every other batch that the state covers. A leader checks size, record times,
//!    permissions and in-sync replicas before it looks for duplicates, so it also refuses batches that are written.
//!  - A batch that the log shows up to its high watermark is delivered. A batch that the log does not show yet is
//!    looked up again.

use std::time::Duration;

use super::super::effects::{Context, LookupRequest, LookupTarget};
use super::super::flight::{Flight, Proof};
use super::super::ids::{BatchUid, LookupId};
use super::super::lookup::{CLOCK_SKEW_MS, LogSearchTarget, LoggedBatch, SearchAnswer, StateLookupAnswer};
use super::PartitionSender;
use super::retry::{CoveringState, HeadDoubt, PendingLookup, RunState};

impl<T: Clone> PartitionSender<T> {
    /// Looks up the producer state if an attempt of the head is open. Otherwise the head certainly is not written, and
    /// fails.
    pub(super) fn lookup_or_fail(&mut self, doubt: HeadDoubt, cx: &mut Context<'_, T>) {
        let Some(head) = self.window.front() else { return };
        if head.proof == Proof::Written {
            return self.settle_written_head(cx);
        }
        match head.stamp() {
            // The state may be that of either topic.
            Some(_) if head.has_open_attempt() && self.is_switching() => self.back_off(cx),
            Some(stamp) if head.has_open_attempt() => {
                cx.out.counters.state_lookups += 1;
                self.start_lookup(head.uid, doubt, None, LookupTarget::Producer(stamp.producer_id), cx);
            }
            _ => self.fail_head(false, cx),
        }
    }

    pub(super) fn start_lookup(
        &mut self,
        batch: BatchUid,
        doubt: HeadDoubt,
        state: Option<CoveringState>,
        target: LookupTarget,
        cx: &mut Context<'_, T>,
    ) {
        let id = cx.out.new_lookup_id();
        self.retry.start_lookup(PendingLookup { id, batch, doubt, state });
        cx.out.lookups.push(LookupRequest { partition: self.id, id, target });
    }

    /// Sends the head again, searches the log, backs off or fails the head, by the leader's producer state. A result for a
    /// head that is settled changes nothing.
    pub(crate) fn on_state_lookup(&mut self, look: LookupId, answer: StateLookupAnswer, cx: &mut Context<'_, T>) {
        let Some(lookup) = self.end_lookup(look, cx) else { return };
        match answer {
            StateLookupAnswer::Unavailable => self.back_off(cx),
            _ if self.window.front().is_some_and(|head| head.stored.is_some()) => {
                self.on_state_of_stored(lookup, answer, cx);
            }
            StateLookupAnswer::Producer { epoch, last_sequence, age } => {
                self.on_state(lookup, epoch, last_sequence, age, cx);
            }
            StateLookupAnswer::NotKnown { .. } | StateLookupAnswer::Unreadable { .. } => self.fail_head(false, cx),
        }
        self.close_gap(cx);
    }

    /// Ends the lookup and returns it, if its batch is still in doubt.
    fn end_lookup(&mut self, look: LookupId, cx: &mut Context<'_, T>) -> Option<PendingLookup> {
        let lookup = self.retry.end_lookup(look)?;
        match self.window.front().filter(|head| head.uid == lookup.batch).map(Flight::may_be_written) {
            Some(true) => return Some(lookup),
            // The last open attempt was refused meanwhile, so nothing is uncertain. The leader decides again, and names
            // the rejected records again if there are some.
            Some(false) => self.back_off(cx),
            None => {} // the batch was settled meanwhile, and the result says nothing about the new head
        }
        self.close_gap(cx);
        None
    }

    fn on_state(
        &mut self,
        lookup: PendingLookup,
        epoch: i32,
        last_sequence: i32,
        age: Duration,
        cx: &mut Context<'_, T>,
    ) {
        let covered = self.window.iter().take_while(|flight| flight.is_covered(epoch, last_sequence)).count();
        let proves = |flight: &&Flight<T>| {
            flight.provable && flight.stamp().is_some_and(|stamp| self.leader.knew(stamp.producer_id, cx.now))
        };
        let proved = self.window.iter().take(covered).take_while(proves).count();
        let head =
            self.window.front().and_then(|head| Some((head.stamp()?, head.search_from, head.batch.first_timestamp())));
        let recognizable = self.window.front().is_some_and(|head| !head.repeated);
        match head {
            _ if self.is_switching() => self.back_off(cx),
            Some(_)
                if proved > 0
                    && recognizable
                    && lookup.doubt == HeadDoubt::OutOfSequence
                    && age < cx.config.id_memory =>
            {
                self.settle_by_acceptance(proved, cx);
            }
            Some((stamp, search_from, first_timestamp)) if covered > 0 => {
                cx.out.counters.searches += 1;
                let wanted = LogSearchTarget {
                    producer_id: stamp.producer_id,
                    epoch: stamp.epoch,
                    last_sequence,
                    from: search_from,
                    since: first_timestamp.saturating_sub(CLOCK_SKEW_MS).max(0),
                    whole_log: false,
                };
                let state = Some(CoveringState { last_sequence, proved, run: RunState::Covered });
                self.start_lookup(lookup.batch, lookup.doubt, state, LookupTarget::Log(wanted), cx);
            }
            _ => self.fail_head(false, cx),
        }
    }

    /// Handles the result of a log search.
    pub(crate) fn on_log_search(&mut self, look: LookupId, answer: &SearchAnswer, cx: &mut Context<'_, T>) {
        let Some(lookup) = self.end_lookup(look, cx) else { return };
        let Some(state @ CoveringState { last_sequence, proved, .. }) = lookup.state else { return };
        match answer {
            _ if self.is_switching() => self.back_off(cx),
            SearchAnswer::Read(batches) if self.window.front().is_some_and(|head| head.stored.is_some()) => {
                self.on_log_read_of_stored(lookup, state, batches, cx);
            }
            SearchAnswer::Read(batches) => {
                let is_whole = batches.iter().any(|batch| batch.offset_of(last_sequence, 1).is_some());
                self.on_log_read(lookup, batches, is_whole, cx);
            }
            SearchAnswer::Unavailable => self.back_off(cx),
            SearchAnswer::Unreadable if proved > 0 && !self.is_repeated_in_vain() => {
                self.settle_by_acceptance(proved, cx)
            }
            SearchAnswer::Unreadable => self.on_unreadable_log(lookup, state.run, cx),
        }
        self.close_gap(cx);
    }

    /// Returns whether the head is a stored batch whose repeat the leader did not recognize. Nothing else can confirm it, and
    /// time does not end the wait.
    pub(super) fn is_repeated_in_vain(&self) -> bool {
        self.window.front().is_some_and(|head| head.stored.is_some() && head.repeated)
    }

    /// Settles batches from the log. `is_whole` means that the log shows everything that the state covers.
    fn on_log_read(&mut self, lookup: PendingLookup, batches: &[LoggedBatch], is_whole: bool, cx: &mut Context<'_, T>) {
        let Some(stamp) = self.window.front().and_then(Flight::stamp) else { return };
        for flight in self.unconfirmed.iter_mut().chain(&mut self.window) {
            let Some(ours) =
                flight.stamp().filter(|ours| ours.producer_id == stamp.producer_id && ours.epoch == stamp.epoch)
            else {
                continue;
            };
            let count = flight.batch.record_count();
            let found =
                |batch: &LoggedBatch| Some((batch.offset_of(ours.base_sequence, count)?, batch.log_append_time));
            if let Some((offset, time)) = batches.iter().find_map(found) {
                cx.out.counters.found_in_log += u64::from(flight.proof == Proof::None);
                flight.prove(Proof::At(Some(offset), time));
            }
        }
        if self.window.front().is_some_and(|head| head.proof != Proof::None) {
            self.retry.succeeded();
        } else if is_whole {
            // The log has later batches of this producer but not this one, so the leader had forgotten the producer id
            // meanwhile.
            self.fail_head(false, cx);
        } else {
            self.retry.look_up_again(lookup);
            self.back_off(cx);
        }
        self.settle_proved(cx);
    }

    /// Leaves the proof of the proved batches to the next acceptance. All but the last of several are unconfirmed from now
    /// on, and the last one is sent again: the leader remembers at least this batch. A single one is unconfirmed too, and
    /// the batch behind it is sent.
    pub(super) fn settle_by_acceptance(&mut self, proved: usize, cx: &mut Context<'_, T>) {
        self.mark_appended(proved.max(2) - 1, cx);
    }

    /// Moves the first `batches` batches of the window to the unconfirmed ones: the leader has them, but its replicas
    /// may not. The next acceptance proves them, so there is no gap either.
    pub(super) fn mark_appended(&mut self, batches: usize, cx: &mut Context<'_, T>) {
        for _ in 0..batches {
            let Some(mut flight) = self.window.pop_front() else { break };
            if flight.proof == Proof::None {
                flight.abandon();
                self.unconfirmed.push_back(flight);
            } else {
                self.settle_delivered(flight, cx);
            }
        }
        self.stamps.close_gap();
        self.settle_proved(cx);
        if self.waits_for_unconfirmed() {
            self.back_off(cx);
        }
    }
}
