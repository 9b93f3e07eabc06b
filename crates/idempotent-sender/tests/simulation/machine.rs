//! The machine of the process: its clocks.
//!
//! Rules:
//! - The monotonic clock stops while the machine is suspended. Nothing of the process happens meanwhile.
//! - The wall clock may be wrong when a process starts, and is corrected soon after. The timestamps of new records are right.

use crate::cluster::{MS, Micros};
use crate::world::{Event, World};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

#[derive(Debug, Default)]
pub(crate) struct Machine {
    /// The end of the last suspension.
    pub(crate) suspended_until: Micros,
    /// The time of all suspensions.
    pub(crate) stopped: Micros,
    /// How far the wall clock is ahead, in milliseconds.
    ahead_ms: i64,
}

impl Machine {
    pub(crate) fn is_suspended(&self, now: Micros) -> bool {
        now < self.suspended_until
    }
}

impl World {
    /// Returns whether an event waits for the end of a suspension. The machine writes nothing meanwhile.
    pub(crate) fn waits_for_machine(&self, event: &Event) -> bool {
        let is_unwritten = || matches!(event, Event::Arrive(conn, request) if !self.is_written(*conn, *request));
        self.machine.is_suspended(self.now) && (event.is_of_machine() || is_unwritten())
    }

    pub(crate) fn suspend(&mut self, time: Micros) {
        if self.lives.is_none() || self.machine.is_suspended(self.now) {
            return;
        }
        self.trace(|| format!("the machine is suspended for {} s", time / 1_000_000));
        self.machine.suspended_until = self.now + time;
        self.machine.stopped += time;
    }

    /// Sets the clock that a new process finds. A clock without a battery begins at a fixed time.
    pub(crate) fn start_clock(&mut self, life: u64) {
        if self.plan.starts_with_wrong_clock {
            self.machine.ahead_ms = self.rng.pick(&[-DAY_MS, -DAY_MS, DAY_MS]);
            let wait = self.rng.range(1..20) * 100 * MS;
            self.schedule_after(wait, Event::CorrectClock(life));
        }
    }

    /// Corrects the clock that this life found.
    pub(crate) fn correct_clock(&mut self, life: u64) {
        if self.lives.as_ref().is_some_and(|lives| lives.life == life) {
            self.machine.ahead_ms = 0;
        }
    }

    /// Returns the wall clock of the machine.
    pub(crate) fn machine_clock_ms(&self) -> i64 {
        self.clock_ms() + self.machine.ahead_ms
    }
}
