//! The monitor of a run: verdicts, receipts, dead letters, the progress line and signals, while other work waits.
//!
//! Rules:
//! - The monitor makes progress during every wait.
//! - Interrupted work has no effect.

use std::pin::pin;
use std::time::{Duration, Instant};

use kafka_courier::dlq::LetterId;
use kafka_courier::spool::InputItem;
use kafka_courier::{KafkaProducer, Stats};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep_until};

use super::dead_letters::RunDeadLetters;
use super::progress::{Backlog, ProgressLine};
use super::receipts::Receipts;
use super::tally::Tally;
use crate::signals::Signals;

/// Interval at which verdicts are recorded during a wait.
const TICK: Duration = Duration::from_millis(100);
/// Items without an event that are noted in one call.
const SKIPPED: usize = 500;

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
    /// The spool accepts no events.
    SpoolFailed,
}

impl StopReason {
    /// Returns the name of the reason in JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::InputEnded => "input_ended",
            Self::Strict => "strict",
            Self::InputFailed => "input_failed",
            Self::Signal => "signal",
            Self::ReceiptsFailed => "receipts_failed",
            Self::Deadline => "deadline",
            Self::SpoolFailed => "spool_failed",
        }
    }
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
    /// Items of the input without an event, whose reports are not durable yet, and the dead letter of each.
    skipped: Vec<(InputItem, Option<LetterId>)>,
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
        let is_spooled = producer.stats().spool.is_some();
        let tally = Tally::new(receipts, delivery_timeout, is_spooled, progress.printer());
        Self { tally, dead_letters, progress, signals, producer, skipped: Vec::new(), look }
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

    /// Returns the counts of the producer.
    pub(super) fn producer_stats(&self) -> Stats {
        self.producer.stats()
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

    /// Stores the dead letters of events that were not accepted. Their receipts can be written afterwards, and the spool
    /// counts their items as dealt with. An item whose dead letter only memory has is published again by the next run.
    pub(super) async fn keep(&mut self) {
        // If the future is dropped, the items are not dealt with, and the next run makes the same dead letters of them.
        let skipped = std::mem::take(&mut self.skipped);
        let volatile = self.dead_letters.keep().await;
        self.tally.kept();
        let durable = |(_, letter): &(InputItem, Option<LetterId>)| letter.is_none_or(|id| !volatile.contains(&id));
        let items: Vec<_> = skipped.into_iter().filter(durable).map(|(item, _)| item).collect();
        self.producer.skip_items(&items);
    }

    /// Adds an item that is dealt with without an event. An event that was not accepted has a dead letter.
    pub(super) fn skip(&mut self, item: Option<InputItem>, letter: Option<LetterId>) {
        self.skipped.extend(item.map(|item| (item, letter)));
    }

    /// Whether [`keep`](Self::keep) must be called.
    pub(super) fn is_full(&self) -> bool {
        self.dead_letters.is_full() || self.skipped.len() >= SKIPPED
    }

    /// Records new verdicts and updates the progress line.
    pub(super) fn update(&mut self, doing: &str) {
        self.tally.note_settled();
        if self.progress.is_due() {
            let (events, deadline) = (self.tally.in_flight() as u64, self.tally.first_deadline());
            let until_failure = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let stats = self.producer.stats();
            let waiting = match &stats.spool {
                Some(spool) => Backlog { events: spool.records, until_failure: None, is_stored: true },
                None => Backlog { events, until_failure, is_stored: false },
            };
            self.progress.show(self.tally.counts(), waiting, &stats.brokers, doing);
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
