//! Sending: which batch of the partition leaves next, and under which stamp.
//!
//! Rules:
//!  - Nothing is sent during a backoff, a lookup, a switch to a recreated topic, or after the leader denied the topic id.
//!  - A batch that must be sent again leaves before any new batch is stamped.
//!  - A batch is stamped when it first leaves.
//!  - A stored batch leaves once the durable log has its stamp, and the epoch of the leader that it is sent to.
//!  - A stored batch that has waited for long gets new timestamps when it leaves (`Config::renews_timestamps`).

use super::super::effects::Context;
use super::super::flight::Flight;
use super::super::ids::{MoveId, RequestId};
use super::super::types::{Action, LeaderMove, StampMove};
use super::OutgoingBatch;
use super::PartitionSender;
use super::stamps::RunScope;

impl<T: Clone> PartitionSender<T> {
    /// Returns the next batch that may be sent now, recorded as sent in `request`.
    pub(crate) fn next_outgoing(&mut self, request: RequestId, cx: &mut Context<'_, T>) -> Option<OutgoingBatch> {
        let is_blocked = self.retry.is_looking_up() || self.topic.lacks_id() || self.topic.is_switching();
        if self.backoff_end(cx.now).is_some() || is_blocked {
            return None;
        }
        if let Some((batch, doubt)) = self.retry.take_repeated_lookup()
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
            if last.as_ref().is_some_and(|last| last.is_inherited) {
                // A later batch of the earlier process could prove them.
                cx.out.actions.push_back(Action::More(self.id));
            }
            self.window.extend(last.map(|last| Flight { repeated: true, ..last }));
        }
        if self.has_stored {
            self.refresh_ages(cx);
            if self.must_look_up(cx) || !self.may_resend(cx) {
                return None;
            }
        }
        let window_size = self.window_size(cx);
        let solo = self.is_solo();
        for flight in self.window.iter_mut().take(window_size) {
            match flight.outstanding {
                Some(_) if flight.fresh => {}
                Some(_) => return None,
                None if flight.needs_lookup => return None,
                None => {
                    if flight.history.tries > 0 {
                        cx.out.counters.batch_retries += 1;
                        cx.out.counters.record_retries += u64::from(flight.records.len());
                    }
                    if cx.config.renews_timestamps {
                        flight.renew_timestamps(cx.now, cx.wall_clock);
                    }
                    flight.mark_sent(request, cx.now);
                    let outgoing = OutgoingBatch { batch: flight.batch.clone(), solo };
                    if flight.aged {
                        // The leader may forget the producer id once old records are appended.
                        self.leader.forget_acceptance();
                    }
                    return Some(outgoing);
                }
            }
        }
        if self.stamps.has_gap() || self.window.len() >= window_size {
            return None;
        }
        self.stamp_next(request, cx)
    }

    /// Returns whether the last unconfirmed batch must be sent before any other.
    pub(super) fn waits_for_unconfirmed(&self) -> bool {
        // A batch under this process's producer id proves nothing about those of an earlier process.
        let is_inherited = self.unconfirmed.back().is_some_and(|last| last.is_inherited);
        self.window.is_empty() && (is_inherited || self.queue.front().is_none_or(|next| next.aged))
    }

    /// Returns how many of the first batches of the window may be in flight.
    fn window_size(&self, cx: &Context<'_, T>) -> usize {
        // The leader may forget the producer id once old records are written, and then append the batches before them a
        // second time.
        let aged = self.window.iter().chain(self.queue.front()).any(|flight| flight.aged);
        // The leader may know the id of an earlier process, and nothing of this one.
        let is_of_another = self.has_resumed && self.leader.trusts_another_id(self.next_producer_id());
        let is_pipelining = self.leader.is_pipelining(cx.now) && !is_of_another;
        if is_pipelining && !aged { cx.config.max_in_flight as usize } else { 1 }
    }

    /// Returns the producer id of the next batch.
    fn next_producer_id(&self) -> Option<i64> {
        let sent = self.window.front().and_then(Flight::stamp).map(|stamp| stamp.producer_id);
        sent.or(self.stamps.id_and_epoch().map(|(producer_id, _)| producer_id))
    }

    /// Stamps the first batch of the queue and moves it to the window, as sent in `request`.
    fn stamp_next(&mut self, request: RequestId, cx: &mut Context<'_, T>) -> Option<OutgoingBatch> {
        self.queue.front()?;
        self.retire_id(cx);
        if !self.stamps.assign(cx.producer_id, cx.config) {
            return None;
        }
        if !self.has_durable_stamp(cx) {
            return None;
        }
        let mut flight = self.queue.pop_front()?;
        let (stamp, wraps) = self.stamps.take(flight.batch.record_count())?;
        cx.out.counters.sequence_wraps += u64::from(wraps);
        flight.search_from = self.log().acknowledged_to;
        flight.set_stamp(stamp);
        if flight.history.tries > 0 {
            cx.out.counters.batch_retries += 1;
            cx.out.counters.record_retries += u64::from(flight.records.len());
        }
        flight.mark_sent(request, cx.now);
        if flight.aged {
            self.leader.forget_acceptance();
        }
        let outgoing = OutgoingBatch { batch: flight.batch.clone(), solo: self.is_solo() };
        self.window.push_back(flight);
        Some(outgoing)
    }

    /// Returns whether the first batch of the queue may be stamped. A batch of a durable log waits until the log has its
    /// stamp, so that every later process computes the same one.
    fn has_durable_stamp(&mut self, cx: &mut Context<'_, T>) -> bool {
        if !self.has_stored {
            return true;
        }
        let next = self.queue.front().and_then(|next| Some((*next.stored.as_deref()?, next.first_stored()?)));
        let Some((place, from)) = next else { return true };
        // A new producer id fences nothing, so every batch of an earlier process has its verdict first.
        if self.window.iter().chain(&self.unconfirmed).any(|flight| flight.is_inherited) {
            return false;
        }
        let scope = RunScope::of(&place);
        if self.stamps.is_durable(scope) {
            return self.has_durable_leader(cx);
        }
        if !self.stamps.is_move_requested(scope) {
            let id = cx.out.new_move_id();
            let stamp = self.stamps.request_move(id, scope);
            let (partition, leader_epoch) = (self.id, self.leader.request_epoch(id));
            let stamps = stamp.map(|stamp| StampMove { partition, id, from, stamp, leader_epoch });
            cx.out.actions.extend(stamps.map(Action::Persist));
        }
        false
    }

    /// Returns whether stored batches of the window may be sent again to this leader.
    fn may_resend(&mut self, cx: &mut Context<'_, T>) -> bool {
        self.window.iter().all(|flight| flight.outstanding.is_some()) || self.has_durable_leader(cx)
    }

    /// Returns whether the durable log has the leader's epoch. Otherwise it is requested.
    fn has_durable_leader(&mut self, cx: &mut Context<'_, T>) -> bool {
        let has_epoch = self.leader.has_durable_epoch();
        if !has_epoch && !self.leader.is_epoch_requested() {
            let (partition, id) = (self.id, cx.out.new_move_id());
            let epoch = self.leader.request_epoch(id);
            let leader = epoch.map(|leader_epoch| LeaderMove { partition, id, leader_epoch });
            cx.out.actions.extend(leader.map(Action::PersistLeader));
        }
        has_epoch
    }

    /// Notes that requested stamps, or a requested leader epoch, are durable.
    pub(crate) fn on_persisted(&mut self, id: MoveId) {
        self.stamps.persisted(id);
        self.leader.epoch_persisted(id);
    }

    /// Changes the producer id well before its epochs are used up. A new id fences nothing, and batches in flight under
    /// the old id can still be appended. The change therefore happens only if every batch has a verdict, and an
    /// acceptance under the present epoch fences the batches that may not be in the log yet.
    fn retire_id(&mut self, cx: &mut Context<'_, T>) {
        let Some((producer_id, epoch)) = self.stamps.retiring() else { return };
        let nothing_sent = self.window.is_empty() && self.unconfirmed.is_empty();
        let fenced = self.leader.has_accepted(producer_id, epoch);
        let has_unknown = self.unknown_batches.any_of((producer_id, epoch));
        if !nothing_sent || !fenced || has_unknown {
            return;
        }
        match cx.producer_id {
            Some(id) if id != producer_id => {
                cx.out.counters.ids_exhausted += 1;
                self.stamps.leave_id();
                self.leader.stop_pipelining();
            }
            Some(_) => cx.out.retiring_id = Some(producer_id),
            None => {}
        }
    }
}
