//! What a partition makes of a look at its leader: at the producer state, and at the log.
//!
//! Rules:
//! - The producer state proves that a batch was appended if it stands at the batch's epoch and at or past its last sequence
//!   number, and if the leader knew the id all the time. It never proves that a batch was not appended.
//! - A batch that the state covers is sent again only where that settles it: where the leader refused the sequence number
//!   alone, and where the id is young. An old id may be forgotten in between, and the repeat appended a second time. It is
//!   sent again once: a leader recognizes only what was sent as it is now, and the batch may have been split since.
//! - Everything else that the state covers is searched for in the log. A leader checks size, record times, rights and
//!   in-sync replicas before it looks for duplicates, so it refuses what is written, too.
//! - What the log shows up to its high watermark is delivered. What it does not show yet is looked for again.

use std::time::Duration;

use super::super::effects::{Context, LookAt, WantedLook};
use super::super::flight::{Flight, Proof};
use super::super::look::{LoggedBatch, LookAnswer, SearchAnswer, Wanted};
use super::super::types::{BatchUid, LookId};
use super::Partition;

/// A leader remembers an id whose last record is younger than this: half of `producer.id.expiration.ms`' default.
const YOUNG: Duration = Duration::from_secs(12 * 60 * 60);
/// How far a leader's clock may be behind ours, ms: a topic with LogAppendTime has the leader's times.
const CLOCKS_APART: i64 = 60_000;

/// Why a head batch is in doubt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Doubt {
    /// The leader expects another sequence number, and an earlier attempt is open.
    OutOfSequence,
    /// The leader refuses the batch before it looks for duplicates, and an earlier attempt is open.
    Refused,
}

/// A look that is waited for, and the batch that it is made for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Looking {
    pub(super) look: LookId,
    pub(super) batch: BatchUid,
    doubt: Doubt,
    /// What the leader's state said, once the log is searched.
    state: Option<State>,
}

/// What a leader's producer state said.
#[derive(Clone, Copy, Debug)]
struct State {
    last_sequence: i32,
    /// How many of the window's first batches it proves to be appended.
    proved: usize,
}

impl<T: Clone> Partition<T> {
    /// Where an attempt is open the leader's state is looked at first; the rest is certain.
    pub(super) fn look_or_give_up(&mut self, doubt: Doubt, cx: &mut Context<'_, T>) {
        let Some(head) = self.window.front() else { return };
        if head.proof == Proof::Written {
            return self.head_is_written(cx);
        }
        match head.stamp() {
            // The leader's state may be that of either topic.
            Some(_) if head.has_open_attempt() && self.is_turning() => self.back_off(cx),
            Some(stamp) if head.has_open_attempt() => {
                cx.out.counters.looks += 1;
                self.look(head.uid, doubt, None, LookAt::Producer(stamp.producer_id), cx);
            }
            _ => self.give_up_head(false, cx),
        }
    }

    fn look(&mut self, batch: BatchUid, doubt: Doubt, state: Option<State>, at: LookAt, cx: &mut Context<'_, T>) {
        let look = cx.out.look_id();
        self.looking = Some(Looking { look, batch, doubt, state });
        cx.out.looks.push(WantedLook { partition: self.id, look, at });
    }

    /// What the look at the leader's state found.
    pub(crate) fn on_looked(&mut self, look: LookId, answer: LookAnswer, cx: &mut Context<'_, T>) {
        let Some(looking) = self.end_look(look, cx) else { return };
        match answer {
            LookAnswer::Producer { epoch, last_sequence, age } => {
                self.on_state(looking, epoch, last_sequence, age, cx);
            }
            LookAnswer::Nothing => self.give_up_head(false, cx),
            LookAnswer::Unavailable => self.back_off(cx),
        }
        self.close_gap(cx);
    }

    /// The look that has ended, if its batch is still in doubt.
    fn end_look(&mut self, look: LookId, cx: &mut Context<'_, T>) -> Option<Looking> {
        let looking = self.looking.filter(|looking| looking.look == look)?;
        self.looking = None;
        match self.window.front().filter(|head| head.uid == looking.batch).map(Flight::may_be_written) {
            Some(true) => return Some(looking),
            // Its last open attempt has been refused meanwhile: nothing is uncertain any more, so the leader
            // decides afresh (and names the guilty again, where there are some).
            Some(false) => self.back_off(cx),
            None => {} // it was settled meanwhile; what the look found is not of the new head
        }
        self.close_gap(cx);
        None
    }

    fn on_state(&mut self, looking: Looking, epoch: i32, last_sequence: i32, age: Duration, cx: &mut Context<'_, T>) {
        let covered = self.window.iter().take_while(|flight| is_covered(flight, epoch, last_sequence)).count();
        let proves = |flight: &&Flight<T>| {
            flight.provable && flight.stamp().is_some_and(|stamp| self.leader_knew(stamp.producer_id, cx.now))
        };
        let proved = self.window.iter().take(covered).take_while(proves).count();
        let head =
            self.window.front().and_then(|head| Some((head.stamp()?, head.search_from, head.batch.first_timestamp())));
        let recognizable = self.window.front().is_some_and(|head| !head.repeated);
        match head {
            _ if self.is_turning() => self.back_off(cx),
            Some(_) if proved > 0 && recognizable && looking.doubt == Doubt::OutOfSequence && age < YOUNG => {
                self.repeat_last_of(proved, cx);
            }
            Some((stamp, search_from, first_timestamp)) if covered > 0 => {
                cx.out.counters.searches += 1;
                let wanted = Wanted {
                    producer_id: stamp.producer_id,
                    epoch: stamp.epoch,
                    last_sequence,
                    from: search_from,
                    since: first_timestamp.saturating_sub(CLOCKS_APART).max(0),
                };
                let state = Some(State { last_sequence, proved });
                self.look(looking.batch, looking.doubt, state, LookAt::Log(wanted), cx);
            }
            _ => self.give_up_head(false, cx),
        }
    }

    /// What the search of the log found.
    pub(crate) fn on_searched(&mut self, look: LookId, answer: &SearchAnswer, cx: &mut Context<'_, T>) {
        let Some(looking) = self.end_look(look, cx) else { return };
        let Some(State { last_sequence, proved }) = looking.state else { return };
        match answer {
            _ if self.is_turning() => self.back_off(cx),
            SearchAnswer::Read(batches) => {
                let is_whole = batches.iter().any(|batch| batch.offset_of(last_sequence, 1).is_some());
                self.on_log_read(looking, batches, is_whole, cx);
            }
            SearchAnswer::Unavailable => self.back_off(cx),
            SearchAnswer::Unreadable if proved > 0 => self.repeat_last_of(proved, cx),
            SearchAnswer::Unreadable => self.give_up_head(false, cx),
        }
        self.close_gap(cx);
    }

    /// The log was read. `is_whole` says that it shows all that the leader's state covers.
    fn on_log_read(&mut self, looking: Looking, batches: &[LoggedBatch], is_whole: bool, cx: &mut Context<'_, T>) {
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
                flight.prove(Proof::At(offset, time));
            }
        }
        if self.window.front().is_some_and(|head| head.proof != Proof::None) {
            (self.failures, self.backoff_until, self.trouble) = (0, None, None);
        } else if is_whole {
            // Later batches of ours are in the log and this one is not: the leader had forgotten the id in between.
            self.give_up_head(false, cx);
        } else {
            self.look_again = Some((looking.batch, looking.doubt));
            self.back_off(cx);
        }
        self.settle_proved(cx);
    }

    /// The leader has the window's first batches, and remembers the last of them at least: sent again, that one proves
    /// itself and all before it.
    fn repeat_last_of(&mut self, proved: usize, cx: &mut Context<'_, T>) {
        self.head_is_appended(proved.max(2) - 1, cx);
    }

    /// The leader has the window's first batches, but maybe not yet its replicas: the next acceptance
    /// proves that. So there is no gap behind them either.
    pub(super) fn head_is_appended(&mut self, batches: usize, cx: &mut Context<'_, T>) {
        for _ in 0..batches {
            let Some(mut flight) = self.window.pop_front() else { break };
            if flight.proof == Proof::None {
                flight.abandon();
                self.unconfirmed.push_back(flight);
            } else {
                self.settle_delivered(flight, cx);
            }
        }
        self.gap = false;
        self.settle_proved(cx);
        if self.waits_for_unconfirmed() {
            self.back_off(cx);
        }
    }
}

/// Whether a leader whose state stands at this epoch and sequence number has this batch, if it knew the id all the time.
fn is_covered<T: Clone>(flight: &Flight<T>, epoch: i32, last_sequence: i32) -> bool {
    let (Some(stamp), Some(ours)) = (flight.stamp(), flight.last_sequence()) else { return false };
    // Sequence numbers live on a circle of 2^31; half of it lies before any point.
    let ahead = last_sequence.wrapping_sub(ours) & i32::MAX;
    i32::from(stamp.epoch) == epoch && last_sequence >= 0 && ahead < 1 << 30
}
