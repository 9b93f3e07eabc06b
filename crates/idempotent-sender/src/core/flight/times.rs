//! [`RecordTimes`]: the age of batches, and the record timestamps of stored ones.
//!
//! Rules:
//!  - A leader remembers a producer id by the timestamps of its records. A batch whose timestamps may be forgotten is old, and is
//!    looked up before it is repeated.
//!  - A stored batch waits for any time. Its timestamps move to the present when it leaves, if they are old or were refused for
//!    their age. They move before the original ones only if those are in the future, and a leader refused them.
//!  - Fresh timestamps that a leader refuses stay as they are: a clock is wrong, and a move would not help.
//!  - A batch that is not stored has no such state.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::config::is_old;
use super::Flight;

/// The age from which new timestamps may help a batch whose timestamps were refused, in milliseconds. The same distance into the
/// future counts.
const RENEWABLE_AGE_MS: i64 = 60_000;

/// The timestamps of a stored batch.
#[derive(Clone, Debug)]
pub(crate) struct RecordTimes {
    /// The time of the newest record's timestamp.
    at: Instant,
    /// The newest timestamps of former attempts, before the timestamps were moved. A leader answers a repeat with them.
    former_newest: Vec<i64>,
    /// Whether the application chose old timestamps, and the batch has not waited.
    are_own: bool,
    /// Whether the timestamps stay, because a leader refused them while they were fresh.
    are_kept: bool,
    /// Whether a leader refused the timestamps.
    are_refused: bool,
}

impl RecordTimes {
    /// Returns the timestamps of a batch that was published at `at`. `are_own` says whether the application chose old ones.
    pub(crate) fn new(at: Instant, are_own: bool) -> Self {
        Self { at, former_newest: Vec::new(), are_own, are_kept: false, are_refused: false }
    }
}

impl<T: Clone> Flight<T> {
    /// Notes whether the batch has become old, by the wall clock or by the time that this process has run.
    pub(crate) fn refresh_age(&mut self, now: Instant, wall_clock: Option<i64>, memory: Duration) {
        let timestamp = self.batch.max_timestamp();
        // The application may have given a record of this process a time in the future.
        let counts = |wall_clock: &i64| self.is_inherited || timestamp <= *wall_clock;
        let is_old = wall_clock.filter(counts).is_some_and(|now| is_old(timestamp, now, memory));
        let has_waited = now.saturating_duration_since(self.times_at()) >= memory;
        // An attempt of a young batch may be in the log, and its leader may have forgotten the id since.
        if is_old || has_waited {
            self.count_as_old();
        }
        if let Some(times) = &mut self.times {
            times.are_own &= !has_waited;
        }
    }

    /// Notes that the batch may be old, whatever the clocks say.
    pub(crate) fn count_as_old(&mut self) {
        self.needs_lookup |= !self.aged;
        self.aged = true;
    }

    /// Returns the time of the newest record's timestamp.
    fn times_at(&self) -> Instant {
        self.times.as_ref().map_or(self.published_at, |times| times.at)
    }

    /// Returns whether the timestamps were moved.
    pub(crate) fn is_renewed(&self) -> bool {
        self.times_at() != self.published_at
    }

    /// Returns whether a former attempt had this newest timestamp.
    pub(crate) fn had_newest(&self, timestamp: i64) -> bool {
        self.times.as_ref().is_some_and(|times| times.former_newest.contains(&timestamp))
    }

    /// Returns the earliest timestamp of the records in any attempt, in milliseconds since the Unix epoch.
    pub(crate) fn earliest_timestamp(&self) -> i64 {
        self.batch.first_timestamp().saturating_sub(self.batch.moved_ms().max(0))
    }

    /// Moves the records' timestamps to the present if the batch is old, or if a leader refused them for their age. A leader
    /// remembers a producer id by these times, and `message.timestamp.before.max.ms` counts from them.
    pub(crate) fn renew_timestamps(&mut self, now: Instant, wall_clock: Option<i64>) {
        let (has_open_attempt, aged) = (self.has_open_attempt(), self.aged);
        let Some(times) = self.times.as_mut().filter(|_| self.outstanding.is_none()) else { return };
        let behind = wall_clock.map_or(0, |wall_clock| wall_clock.saturating_sub(self.batch.max_timestamp()));
        // A clock that was ahead has moved the times too far, or gave the original ones. Other times never precede the original
        // ones.
        let is_ahead = times.are_refused && self.batch.moved_ms() <= 0 && behind <= -RENEWABLE_AGE_MS;
        let behind = if is_ahead { behind } else { behind.max(-self.batch.moved_ms().max(0)) };
        let is_due = !times.are_kept && (times.are_refused || aged && !times.are_own);
        if !is_due || behind == 0 {
            return;
        }
        if has_open_attempt {
            times.former_newest.push(self.batch.max_timestamp());
        }
        let batch = Arc::make_mut(&mut self.batch);
        batch.move_timestamps(behind);
        if let Some(stamp) = batch.current_stamp() {
            batch.stamp(stamp);
        }
        (times.at, times.are_refused) = (now, false);
        // An open attempt has the former timestamps, and may be appended.
        self.aged &= has_open_attempt;
        self.needs_lookup &= self.aged;
    }

    /// Notes that a leader refused the timestamps. Returns whether new ones may help.
    pub(crate) fn refuse_times(&mut self, wall_clock: Option<i64>) -> bool {
        let age = wall_clock.map_or(0, |wall_clock| wall_clock.saturating_sub(self.batch.max_timestamp()));
        let is_moved_too_far = age < 0 && self.batch.moved_ms() > 0;
        let Some(times) = &mut self.times else { return false };
        // Fresh times are refused because of a clock. Time helps if it is ahead, and a move forward would undo that. Times in the
        // future are from a clock that was corrected since.
        let is_fresh = age.abs() < RENEWABLE_AGE_MS;
        times.are_kept = (times.are_kept && age > -RENEWABLE_AGE_MS || is_fresh) && !is_moved_too_far;
        times.are_refused = !times.are_kept;
        times.are_refused
    }
}
