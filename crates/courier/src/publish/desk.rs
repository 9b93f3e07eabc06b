//! What goes on beside all work: verdicts, receipts, dead letters, the progress line, signals.
//!
//! Rules: it advances whatever is waited for; work that is interrupted was not done.

use std::pin::pin;
use std::time::{Duration, Instant};

use kafka_courier::KafkaProducer;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep_until};

use super::keeping::Keeping;
use super::progress::{Progress, Waiting};
use super::receipts::Receipts;
use super::tally::Tally;
use crate::signals::Signals;

/// How often verdicts are looked at while something is waited for.
const LOOK: Duration = Duration::from_millis(100);

/// Why reading, or other work, ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// The input ended.
    Input,
    /// An item is no event, and reading ends at the first of them.
    Strict,
    /// The input could not be read on.
    InputFailed,
    /// A signal came.
    Signal,
    /// Receipts can't be written any more.
    NoReceipts,
    /// The time for it was over.
    Late,
}

/// What cuts work short.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// Up to this many signals.
    pub(super) signals: u32,
    pub(super) deadline: Option<Instant>,
    /// Whether receipts that can't be written do.
    pub(super) receipts: bool,
}

pub(super) struct Desk {
    pub(super) tally: Tally,
    pub(super) keeping: Keeping,
    pub(super) progress: Progress,
    pub(super) signals: Signals,
    producer: KafkaProducer,
    look: Interval,
}

impl Desk {
    pub(super) fn new(
        producer: KafkaProducer,
        delivery_timeout: Duration,
        receipts: Receipts,
        keeping: Keeping,
        signals: Signals,
    ) -> Self {
        let progress = Progress::new();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let tally = Tally::new(receipts, delivery_timeout, progress.printer());
        Self { tally, keeping, progress, signals, producer, look }
    }

    /// Does this work, and the rest beside it. An error says why the work was not done.
    ///
    /// Work that is ready is done without a look at anything else.
    pub(super) async fn work<T>(
        &mut self,
        doing: &str,
        patience: Patience,
        work: impl Future<Output = T>,
    ) -> Result<T, End> {
        self.check(patience)?;
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                () = self.signals.reached(patience.signals) => return Err(End::Signal),
                () = until(patience.deadline) => return Err(End::Late),
                _ = self.look.tick() => {
                    self.keep().await;
                    self.note(doing);
                    self.tally.flush();
                    self.check(patience)?;
                }
            }
        }
    }

    pub(super) fn check(&self, patience: Patience) -> Result<(), End> {
        if self.signals.times() >= patience.signals {
            return Err(End::Signal);
        }
        if patience.receipts && self.tally.receipts_failed().is_some() {
            return Err(End::NoReceipts);
        }
        if patience.deadline.is_some_and(|deadline| deadline <= Instant::now()) { Err(End::Late) } else { Ok(()) }
    }

    /// Keeps the letters of events that were not accepted: their receipts may be written then.
    pub(super) async fn keep(&mut self) {
        self.keeping.keep().await;
        self.tally.kept();
    }

    /// Notes the verdicts that are there, and shows where things are.
    pub(super) fn note(&mut self, doing: &str) {
        self.tally.note_settled();
        if self.progress.is_due() {
            let (events, deadline) = (self.tally.in_flight() as u64, self.tally.first_deadline());
            let until_failure = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let waiting = Waiting { events, until_failure };
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
