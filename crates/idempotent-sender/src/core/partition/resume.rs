//! Batches of a durable log that may be written: those of an earlier process, and those whose answer was lost.
//!
//! Rules (docs/ARCHITECTURE.md, "Restarts"):
//!  - The leader is asked for its producer state before a batch of an earlier process is sent, and before old records are
//!    sent again. Its answer counts until the leader or its epoch changes.
//!  - A leader whose state ends before a batch has not appended the batch. If its next sequence number is the batch's, the
//!    batch is sent under its stamp, which the leader takes once. Otherwise the stamp can never enter, and the batch gets
//!    one of this process's producer id.
//!  - A leader that appended nothing of a producer id knows nothing of it. A leader that knows nothing may also have forgotten
//!    the id, after `producer.id.expiration.ms` or with its log: the log decides, and what it does not show is not written.
//!  - Without the right to read, the id counts as forgotten if a batch of it was acknowledged, if its records are old, or if
//!    records are deleted that the batch may be among. Such a batch is unknown. Other batches are sent.
//!  - A record is old by the wall clock or by the time that this process has run, whichever says so. An inherited record with a
//!    time in the future is old too.
//!  - Boundaries of batches are free, and sequence numbers are not: a batch of which the leader has a part is split there.
//!  - Without the right to read states, a refused repeat of a batch of an earlier process counts as appended once the leader
//!    accepts a later batch under the same producer id.
//!  - The batches of an earlier process may be submitted a few at a time. A batch is treated as if it had been submitted with
//!    the ones before it. If the leader has more of them than were submitted, the others are asked for: the last one that the
//!    leader has proves all, and a leader recognizes no earlier one.
//!  - Behind a batch that failed as unknown, these proofs of absence and of an append end: a request of the dead process can
//!    still fill the gap, and then those of the batches that were in flight with it can be appended.

use std::time::Duration;

use kafka_courier_batcher::{Sequence, Stamp};
use kafka_courier_client::Reason;

use super::super::effects::{Context, LookupTarget};
use super::super::failure::FOLLOWS_UNKNOWN;
use super::super::flight::{Flight, Proof};
use super::super::lookup::{CLOCK_SKEW_MS, LogSearchTarget, LoggedBatch, StateLookupAnswer};
use super::super::types::Action;
use super::PartitionSender;
use super::retry::{CoveringState, HeadDoubt, PendingLookup, RunState};
use super::stamps::EpochMove;
use super::unknown::GapReach;

/// The most batches that a process may have in flight in a partition. Leaders remember no more of a producer id.
const IN_FLIGHT_MAX: u32 = 5;
/// The most requests in a row for batches behind the same one.
const MORE_REQUESTS: u32 = 8;

impl GapReach {
    /// Marks a batch that follows if a process may have had it in flight. Returns whether it may.
    fn extend_to<T: Clone>(&mut self, flight: &mut Flight<T>) -> bool {
        let first = flight.stored.as_deref().map(|place| place.first);
        // Parts with settled records between them may be of one batch.
        let is_next = self.end.is_none_or(|end| flight.first_stored() == Some(end));
        self.in_flight += u32::from(first != self.first && is_next);
        if self.in_flight > IN_FLIGHT_MAX {
            return false;
        }
        flight.may_arrive = true;
        (self.first, self.end) = (first, flight.end_stored());
        true
    }
}

impl<T: Clone> PartitionSender<T> {
    /// Notes which stored batches have become old. The first batch of the queue was never sent under its next stamp, and is
    /// young once its timestamps are renewed.
    pub(super) fn refresh_ages(&mut self, cx: &Context<'_, T>) {
        let memory = cx.config.id_memory;
        let sent = self.unconfirmed.iter_mut().chain(&mut self.window);
        for flight in sent.chain(self.queue.front_mut()) {
            flight.refresh_age(cx.now, cx.wall_clock, memory);
        }
        if let Some(next) = self.queue.front_mut().filter(|_| cx.config.renews_timestamps) {
            next.renew_timestamps(cx.now, cx.wall_clock);
        }
    }

    /// Notes that the wall clock and the time that this process has run disagree: the machine was suspended, or its clock was
    /// set. The leader may have forgotten the producer id, and what was sent may be older than both clocks say.
    pub(crate) fn on_clock_jump(&mut self) {
        self.leader.forget_acceptance();
        let sent = self.unconfirmed.iter_mut().chain(&mut self.window);
        sent.filter(|flight| flight.stored.is_some()).for_each(Flight::count_as_old);
    }

    /// Notes the gap behind an inherited batch that fails as unknown. The dead process may have had the batches behind it in
    /// flight.
    pub(super) fn doubt_inherited_behind(&mut self, failed: &Flight<T>) {
        if !failed.is_inherited {
            return;
        }
        self.inherited_gap.is_open = true;
        self.inherited_gap.is_old |= failed.aged;
        if failed.may_arrive {
            return;
        }
        let first = failed.stored.as_deref().map(|place| place.first);
        self.doubt_inherited(GapReach { first, end: failed.end_stored(), in_flight: 1 });
    }

    /// Takes a batch of an earlier process. Its stamp precedes every stamp of this process.
    pub(super) fn enqueue_inherited(&mut self, mut flight: Flight<T>) {
        if self.has_restamped {
            flight.forget_stamp(flight.uid);
            return self.queue.push_back(flight);
        }
        // What the leader said about the batch before holds for this one, unless this one is old.
        let shares_answer = |last: &Flight<T>| !last.needs_lookup && !flight.aged && last.is_followed_by(&flight);
        flight.needs_lookup = !self.window.back().is_some_and(shares_answer);
        let inherited = flight.stored.as_deref().and_then(|place| place.inherited);
        self.window.push_back(flight);
        if !self.inherited_gap.is_known && inherited.is_some_and(|inherited| inherited.follows_unknown) {
            (self.inherited_gap.is_known, self.inherited_gap.is_open) = (true, true);
            self.doubt_inherited(GapReach::default());
        } else if let (true, Some(last)) = (self.inherited_gap.is_open, self.window.back_mut()) {
            self.inherited_gap.reach.extend_to(last);
        }
    }

    /// Marks the first inherited batches of the window that a process may have had in flight, behind those of `reach`.
    fn doubt_inherited(&mut self, reach: GapReach) {
        self.inherited_gap.reach = reach;
        for flight in self.window.iter_mut().take_while(|flight| flight.is_inherited) {
            if !self.inherited_gap.reach.extend_to(flight) {
                break;
            }
        }
    }

    /// Asks for the batches behind the window, if the leader has some of them: it has the sequence numbers up to `last`. Returns
    /// whether it does. Batches that the durable log has lost never follow, so the requests end.
    fn asks_for_more(&mut self, last: Sequence, cx: &mut Context<'_, T>) -> bool {
        let Some(back) = self.window.back().filter(|back| back.is_inherited) else { return false };
        let Some(end) = back.last_sequence().filter(|end| *end != last && end.precedes(last)) else { return false };
        let asks = self.more.count(end) <= MORE_REQUESTS;
        if asks {
            cx.out.actions.push_back(Action::More(self.id));
            self.back_off(cx);
        }
        asks
    }

    /// Asks the leader about the head if an earlier process may have sent it, or if its records are old and were sent.
    /// Returns whether it does.
    pub(super) fn must_look_up(&mut self, cx: &mut Context<'_, T>) -> bool {
        let is_waiting = |head: &&mut Flight<T>| head.needs_lookup && head.outstanding.is_none();
        let Some(head) = self.window.front_mut().filter(is_waiting) else { return false };
        head.needs_lookup = head.has_open_attempt();
        if !head.needs_lookup {
            return false;
        }
        let Some(stamp) = head.stamp() else { return false };
        let batch = head.uid;
        cx.out.counters.state_lookups += 1;
        self.start_lookup(batch, HeadDoubt::Inherited, None, LookupTarget::Producer(stamp.producer_id), cx);
        true
    }

    /// Decides about the head by the answer of its leader.
    pub(super) fn on_state_of_stored(
        &mut self,
        lookup: PendingLookup,
        answer: StateLookupAnswer,
        cx: &mut Context<'_, T>,
    ) {
        let Some((head, stamp)) = self.window.front().and_then(|head| Some((head, head.stamp()?))) else { return };
        if self.is_switching() {
            return self.back_off(cx);
        }
        cx.out.counters.resumed += u64::from(lookup.doubt == HeadDoubt::Inherited);
        match answer {
            StateLookupAnswer::Producer { epoch, last_sequence, age } if epoch == i32::from(stamp.epoch) => {
                self.on_same_epoch(lookup, stamp, last_sequence, age, cx);
            }
            StateLookupAnswer::Producer { epoch, .. } if epoch < i32::from(stamp.epoch) => {
                // A new epoch begins at 0.
                match stamp.base_sequence {
                    0 => self.send_absent(lookup, cx),
                    _ => self.restamp_behind_gap(cx),
                }
            }
            StateLookupAnswer::NotKnown { log_start }
                if head.is_unacknowledged(log_start) && !self.may_be_forgotten() =>
            {
                match lookup.doubt {
                    // The leader knows nothing, and refuses to begin with this sequence number (KAFKA-15591). It refuses no 0.
                    doubt if doubt.is_of_stamp() && stamp.base_sequence != 0 => self.restamp_behind_gap(cx),
                    HeadDoubt::Inherited => self.search_run(lookup, RunState::Unacknowledged, cx),
                    _ => self.send_absent(lookup, cx),
                }
            }
            StateLookupAnswer::Producer { .. } => self.search_run(lookup, RunState::Fenced, cx),
            StateLookupAnswer::NotKnown { .. } => self.search_run(lookup, RunState::Forgotten, cx),
            StateLookupAnswer::Unreadable { log_start } => self.on_unreadable_state(lookup, stamp, log_start, cx),
            StateLookupAnswer::Unavailable => {}
        }
    }

    /// Returns whether a leader may have forgotten the producer id because of old records: it counts by the last batch that
    /// it has appended, which may be any of these.
    fn may_be_forgotten(&self) -> bool {
        self.inherited_gap.is_old || self.window.iter().chain(&self.unconfirmed).any(|flight| flight.aged)
    }

    /// Decides by a leader's state of the same epoch.
    fn on_same_epoch(
        &mut self,
        lookup: PendingLookup,
        stamp: Stamp,
        last_sequence: i32,
        age: Duration,
        cx: &mut Context<'_, T>,
    ) {
        let Some(last) = Sequence::new(last_sequence) else {
            return self.search_run(lookup, RunState::Forgotten, cx);
        };
        if last.precedes(stamp.sequence()) {
            return match last.advance(1) == stamp.sequence() {
                true => {
                    // Otherwise the leader may forget the producer id before the batch arrives.
                    if age < cx.config.id_memory && !self.may_be_forgotten() {
                        self.trust_state(stamp, cx);
                    }
                    self.send_absent(lookup, cx);
                }
                // A leader that forgot the id may have appended the batch before everything that its state shows.
                false if age >= cx.config.id_memory || self.may_be_forgotten() => {
                    self.search_run(lookup, RunState::Behind, cx);
                }
                false => self.restamp_behind_gap(cx),
            };
        }
        if lookup.doubt == HeadDoubt::Inherited && self.asks_for_more(last, cx) {
            return;
        }
        if let Err(why) = self.split_behind(last, cx) {
            return self.fail_corrupt(&why, cx);
        }
        let epoch = i32::from(stamp.epoch);
        let covered = self.window.iter().take_while(|flight| flight.is_covered(epoch, last_sequence)).count();
        let proves = |flight: &&Flight<T>| {
            let knew = self.leader.knew(stamp.producer_id, cx.now);
            flight.is_inherited || flight.provable && knew
        };
        // A leader that has forgotten the id meanwhile may have appended a later batch without this one.
        let covered = if self.may_be_forgotten() { 0 } else { covered };
        let proved = self.window.iter().take(covered).take_while(proves).count();
        let is_recognizable = self.window.front().is_some_and(|head| !head.repeated);
        if proved > 0 && is_recognizable && lookup.doubt != HeadDoubt::Refused && age < cx.config.id_memory {
            self.trust_state(stamp, cx);
            self.end_doubts();
            return self.settle_by_acceptance(proved, cx);
        }
        self.search(lookup, CoveringState { last_sequence, proved, run: RunState::Covered }, cx);
    }

    /// Notes that the leader knows an inherited producer id.
    fn trust_state(&mut self, stamp: Stamp, cx: &mut Context<'_, T>) {
        if self.window.front().is_some_and(|head| head.is_inherited) {
            self.leader.knows(stamp, cx.now);
        }
    }

    /// The leader has told what it has of these batches.
    fn end_doubts(&mut self) {
        self.window.iter_mut().for_each(|flight| flight.needs_lookup = false);
    }

    /// Sends the head under its stamp, unless it was rejected: the leader does not have it, and takes the stamp once.
    fn send_absent(&mut self, lookup: PendingLookup, cx: &mut Context<'_, T>) {
        self.end_doubts();
        match lookup.doubt {
            HeadDoubt::Inherited => {}
            HeadDoubt::OutOfSequence | HeadDoubt::Foreign => self.back_off(cx),
            // An attempt that can still arrive may find a leader that takes it.
            HeadDoubt::Refused => self.fail_head(false, cx),
        }
    }

    /// Gives every batch of the window another stamp, because the leader lacks one before the head. The head fails instead
    /// if a request of an earlier process can still bring that one.
    fn restamp_behind_gap(&mut self, cx: &mut Context<'_, T>) {
        let Some(head) = self.window.front_mut().filter(|head| head.may_arrive) else { return self.restamp_absent(cx) };
        head.history.reason = Some(Reason::NotAvailable(FOLLOWS_UNKNOWN.into()));
        self.fail_head(false, cx);
    }

    /// Gives every batch of the window another stamp: none of them is in the log, and their stamps can't enter it.
    fn restamp_absent(&mut self, cx: &mut Context<'_, T>) {
        cx.out.counters.acknowledged_lost += 1;
        self.topic.forget_acknowledged();
        self.restamp_all(EpochMove::AcknowledgedLost, cx);
        self.back_off(cx);
    }

    /// Searches the log for the run of stamps of the head: the leader's state does not show it.
    fn search_run(&mut self, lookup: PendingLookup, run: RunState, cx: &mut Context<'_, T>) {
        let Some(last) = self.window.back().and_then(Flight::last_sequence) else { return };
        let state = CoveringState { last_sequence: last.number(), proved: 0, run };
        self.search(lookup, state, cx);
    }

    fn search(&mut self, lookup: PendingLookup, state: CoveringState, cx: &mut Context<'_, T>) {
        let Some((head, stamp)) = self.window.front().and_then(|head| Some((head, head.stamp()?))) else { return };
        let since = head.earliest_timestamp().saturating_sub(CLOCK_SKEW_MS).max(0);
        let wanted = LogSearchTarget {
            producer_id: stamp.producer_id,
            epoch: stamp.epoch,
            last_sequence: state.last_sequence,
            from: head.search_from,
            since,
            whole_log: state.run != RunState::Covered,
        };
        cx.out.counters.searches += 1;
        let batch = head.uid;
        self.start_lookup(batch, lookup.doubt, Some(state), LookupTarget::Log(wanted), cx);
    }

    /// Notes that the log can't be read. A leader that knows nothing of a run without acknowledgements has appended nothing of
    /// it, or has a short `producer.id.expiration.ms`, which only the log would show.
    pub(super) fn on_unreadable_log(&mut self, lookup: PendingLookup, run: RunState, cx: &mut Context<'_, T>) {
        match run {
            RunState::Unacknowledged => self.send_absent(lookup, cx),
            _ => self.fail_head(false, cx),
        }
    }

    /// Settles the batches that the log shows, and gives the others another stamp if they are absent.
    pub(super) fn on_log_read_of_stored(
        &mut self,
        lookup: PendingLookup,
        state: CoveringState,
        batches: &[LoggedBatch],
        cx: &mut Context<'_, T>,
    ) {
        if let Err(why) = self.prove_logged(batches, cx) {
            return self.fail_corrupt(&why, cx);
        }
        let is_whole = batches.iter().any(|batch| batch.offset_of(state.last_sequence, 1).is_some());
        if self.window.front().is_some_and(|head| head.proof != Proof::None) {
            self.retry.succeeded();
        }
        self.settle_proved(cx);
        // The answer to an attempt in flight decides about the next batch.
        let Some(head) = self.window.front().filter(|head| head.outstanding.is_none()) else { return };
        let lookup = PendingLookup { batch: head.uid, ..lookup };
        let begins = head.stamp().is_some_and(|stamp| stamp.base_sequence == 0);
        match state.run {
            // A request of an earlier process can still arrive. Under the same stamps, the leader takes one of both.
            RunState::Forgotten | RunState::Behind if !lookup.doubt.is_of_stamp() => self.send_absent(lookup, cx),
            // A leader that knows nothing of an id takes the number 0. A number that has wrapped to 0 begins nothing.
            RunState::Forgotten if begins => self.send_absent(lookup, cx),
            RunState::Forgotten | RunState::Behind => self.restamp_behind_gap(cx),
            RunState::Fenced => self.restamp_absent(cx),
            // The leader has appended later batches without this one, which can't enter any more.
            RunState::Covered if is_whole && head.is_before(state.last_sequence) => self.restamp_absent(cx),
            RunState::Covered if is_whole => self.end_doubts(),
            RunState::Covered => {
                self.retry.look_up_again(lookup);
                self.back_off(cx);
            }
            RunState::Unacknowledged => self.send_absent(lookup, cx),
        }
    }

    /// Proves the batches that the log shows. A batch is split where a logged batch ends.
    fn prove_logged(&mut self, batches: &[LoggedBatch], cx: &mut Context<'_, T>) -> Result<(), String> {
        let mut position = 0;
        while let Some(flight) = self.window.get(position) {
            let (Some(ours), count) = (flight.stamp(), flight.batch.record_count()) else { break };
            let first = batches.iter().find_map(|batch| Some((batch, batch.offset_of(ours.base_sequence, 1)?)));
            if let Some((batch, offset)) = first {
                let logged = batch.records_from(ours.base_sequence);
                if logged < count {
                    self.split_window(position, logged, cx)?;
                }
                if let Some(flight) = self.window.get_mut(position) {
                    cx.out.counters.found_in_log += u64::from(flight.proof == Proof::None);
                    flight.prove(Proof::At(Some(offset), batch.log_append_time));
                }
            }
            position += 1;
        }
        Ok(())
    }

    /// Splits the batch of the window that contains this sequence number, if the number is not the batch's last one.
    fn split_behind(&mut self, last: Sequence, cx: &mut Context<'_, T>) -> Result<(), String> {
        let contains = |flight: &Flight<T>| {
            let first = flight.stamp()?.sequence();
            let count = first.distance(last).saturating_add(1);
            (!last.precedes(first) && count < flight.batch.record_count()).then_some(count)
        };
        let found = self.window.iter().enumerate().find_map(|(position, flight)| Some((position, contains(flight)?)));
        match found {
            Some((position, count)) => self.split_window(position, count, cx),
            None => Ok(()),
        }
    }

    /// Splits a batch of the window before the record at `index`.
    fn split_window(&mut self, position: usize, index: u32, cx: &mut Context<'_, T>) -> Result<(), String> {
        let uids = [cx.out.new_uid(), cx.out.new_uid()];
        let Some(parts) = self.window.get(position).map(|flight| flight.split_at(index, uids)) else { return Ok(()) };
        if let Some([first, second]) = parts.map_err(|error| error.to_string())? {
            cx.out.counters.splits += 1;
            self.window.remove(position);
            self.window.insert(position, second);
            self.window.insert(position, first);
        }
        Ok(())
    }

    /// Decides about the head if the leader's state can't be read.
    fn on_unreadable_state(
        &mut self,
        lookup: PendingLookup,
        stamp: Stamp,
        log_start: Option<i64>,
        cx: &mut Context<'_, T>,
    ) {
        let Some(head) = self.window.front() else { return };
        let is_whole = log_start.is_some_and(|log_start| head.is_behind(log_start));
        // A leader that remembers the id recognizes a repeat, or refuses it.
        match lookup.doubt {
            HeadDoubt::Inherited if is_whole && !self.may_be_forgotten() => self.end_doubts(),
            HeadDoubt::OutOfSequence
                if head.is_inherited && !head.repeated && !self.may_be_forgotten() && !self.inherited_gap.is_open =>
            {
                self.leader.knows(stamp, cx.now);
                self.mark_appended(1, cx);
            }
            _ => self.fail_head(false, cx),
        }
    }
}

impl<T: Clone> Flight<T> {
    /// Returns whether `next` is a batch of the same earlier process, with the next sequence number.
    fn is_followed_by(&self, next: &Self) -> bool {
        let (Some(ours), Some(next_stamp), Some(last)) = (self.stamp(), next.stamp(), self.last_sequence()) else {
            return false;
        };
        let is_same = (ours.producer_id, ours.epoch) == (next_stamp.producer_id, next_stamp.epoch);
        self.is_inherited && is_same && last.advance(1) == next_stamp.sequence()
    }

    /// Returns whether no batch of the inherited producer id and epoch was acknowledged, and none of them can be among the
    /// records that the log no longer has.
    fn is_unacknowledged(&self, log_start: i64) -> bool {
        let inherited = self.stored.as_deref().and_then(|place| place.inherited).filter(|_| self.is_inherited);
        self.is_behind(log_start) && inherited.is_some_and(|inherited| !inherited.is_acknowledged)
    }

    /// Returns whether the batch can't be among the records that the log no longer has.
    fn is_behind(&self, log_start: i64) -> bool {
        log_start <= self.search_from.unwrap_or(0)
    }

    /// Returns whether the batch begins at or before a sequence number.
    fn is_before(&self, last_sequence: i32) -> bool {
        let first = self.stamp().map(Stamp::sequence);
        let last = Sequence::new(last_sequence);
        first.zip(last).is_some_and(|(first, last)| first == last || first.precedes(last))
    }
}
