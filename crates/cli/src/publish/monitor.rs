//! The monitor of a run: verdicts, receipts, dead letters, the progress line and signals, while other work waits.
//!
//! Rules:
//! - The monitor makes progress during every wait.
//! - Interrupted work has no effect.

use std::pin::pin;
use std::time::{Duration, Instant};

use kafka_courier::KafkaProducer;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep_until};

use super::dead_letters::RunDeadLetters;
use super::progress::{Backlog, ProgressLine};
use super::receipts::Receipts;
use super::tally::Tally;
use crate::signals::Signals;

/// Interval at which verdicts are recorded during a wait.
const TICK: Duration = Duration::from_millis(100);

/// The reason for which reading or other work ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StopReason {
    /// The input ended.
    InputEnded,
    /// An item is not an event, and `--strict` is set.
    Strict,
    /// Reading the input failed.
    InputFailed,
    /// A signal arrived.
    Signal,
    /// Writing receipts failed.
    ReceiptsFailed,
    /// The deadline passed.
    Deadline,
}

/// Conditions that interrupt work.
#[derive(Clone, Copy)]
pub(super) struct StopConditions {
    /// The number of signals that interrupts.
    pub(super) signals: u32,
    pub(super) deadline: Option<Instant>,
    /// Whether a failure to write receipts interrupts.
    pub(super) receipts: bool,
}

pub(super) struct Monitor {
    pub(super) tally: Tally,
    pub(super) dead_letters: RunDeadLetters,
    pub(super) progress: ProgressLine,
    pub(super) signals: Signals,
    producer: KafkaProducer,
    look: Interval,
}

impl Monitor {
    pub(super) fn new(
        producer: KafkaProducer,
        delivery_timeout: Duration,
        receipts: Receipts,
        dead_letters: RunDeadLetters,
        signals: Signals,
    ) -> Self {
        let progress = ProgressLine::new();
        let mut look = interval(TICK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let tally = Tally::new(receipts, delivery_timeout, progress.printer());
        Self { tally, dead_letters, progress, signals, producer, look }
    }

    /// Runs the work and monitors the run meanwhile. Work that is ready completes before anything else is polled.
    ///
    /// # Errors
    /// The condition that interrupted the work.
    pub(super) async fn run<T>(
        &mut self,
        doing: &str,
        conditions: StopConditions,
        work: impl Future<Output = T>,
    ) -> Result<T, StopReason> {
        self.check(conditions)?;
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                () = self.signals.reached(conditions.signals) => return Err(StopReason::Signal),
                () = until(conditions.deadline) => return Err(StopReason::Deadline),
                _ = self.look.tick() => {
                    self.keep().await;
                    self.update(doing);
                    self.tally.flush();
                    self.check(conditions)?;
                }
            }
        }
    }

    pub(super) fn check(&self, conditions: StopConditions) -> Result<(), StopReason> {
        if self.signals.times() >= conditions.signals {
            return Err(StopReason::Signal);
        }
        if conditions.receipts && self.tally.receipts_failed().is_some() {
            return Err(StopReason::ReceiptsFailed);
        }
        if conditions.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            Err(StopReason::Deadline)
        } else {
            Ok(())
        }
    }

    /// Stores the dead letters of events that were not accepted. Their receipts can be written afterwards.
    pub(super) async fn keep(&mut self) {
        self.dead_letters.keep().await;
        self.tally.kept();
    }

    /// Records new verdicts and updates the progress line.
    pub(super) fn update(&mut self, doing: &str) {
        self.tally.note_settled();
        if self.progress.is_due() {
            let (events, deadline) = (self.tally.in_flight() as u64, self.tally.first_deadline());
            let until_failure = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let waiting = Backlog { events, until_failure };
            self.progress.show(self.tally.counts(), waiting, &self.producer.stats().brokers, doing);
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
