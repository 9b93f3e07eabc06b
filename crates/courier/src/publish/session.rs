//! The work itself: items from the input to the producer, and the verdicts back.
//!
//! Rules:
//! - An item stays in the queue until it was dealt with: whatever interrupts, it is published later or told.
//! - Verdicts, receipts and the progress line advance whatever is waited for.
//! - The first signal starts the grace period: what was read is still published in its first half, and all that was
//!   published may be delivered to its end. The second ends everything at once.

use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier::{KafkaProducer, PublishError};
use kafka_courier_event_model::{AnyEvent, Event};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep_until};

use super::input::{Item, Items, Place};
use super::keeping::Keeping;
use super::progress::Progress;
use super::receipts::Receipts;
use super::summary::Summary;
use super::tally::Tally;
use crate::signals::Signals;

/// Items whose verdict may be noted late before reading waits for the oldest.
const LATE_VERDICTS: usize = 50_000;
/// How often verdicts are looked at while something is waited for.
const LOOK: Duration = Duration::from_millis(100);
/// How long what has no verdict at an end at once may take to be given up.
const CUT: Duration = Duration::from_secs(2);
/// Longer than any delivery_timeout, which bounds what is waited for.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// Why reading, or what was being done, ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// The input ended.
    Input,
    /// An item is no event, and that was to be the end.
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
struct Patience {
    /// So many signals.
    signals: u32,
    deadline: Option<Instant>,
    /// Whether receipts that can't be written do.
    receipts: bool,
}

/// What goes on beside all work.
struct Desk {
    tally: Tally,
    keeping: Keeping,
    progress: Progress,
    signals: Signals,
    look: Interval,
}

impl Desk {
    fn new(receipts: Receipts, keeping: Keeping, signals: Signals) -> Self {
        let progress = Progress::new();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { tally: Tally::new(receipts, progress.printer()), keeping, progress, signals, look }
    }

    /// Does this work, and the rest beside it. An error says why it was left alone.
    ///
    /// Work that is ready at once is done without a look at anything else.
    async fn work<T>(&mut self, doing: &str, patience: Patience, work: impl Future<Output = T>) -> Result<T, End> {
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

    fn check(&self, patience: Patience) -> Result<(), End> {
        if self.signals.times() >= patience.signals {
            return Err(End::Signal);
        }
        if patience.receipts && self.tally.receipts_failed().is_some() {
            return Err(End::NoReceipts);
        }
        if patience.deadline.is_some_and(|deadline| deadline <= Instant::now()) { Err(End::Late) } else { Ok(()) }
    }

    /// Keeps the letters of events that were not accepted: their receipts may be written then.
    async fn keep(&mut self) {
        self.keeping.keep().await;
        self.tally.kept();
    }

    fn note(&mut self, doing: &str) {
        self.tally.note_settled();
        self.progress.show(&self.tally, doing);
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// What is to be done with the input.
pub(super) struct Plan {
    /// The topic of all events; else each type's own.
    pub(super) topic: Option<Arc<str>>,
    pub(super) strict: bool,
    pub(super) grace: Duration,
    /// The input's name, for people.
    pub(super) input: String,
}

/// One run over an input.
pub(super) struct Session {
    producer: KafkaProducer,
    plan: Plan,
    items: Items,
    desk: Desk,
    /// Read, and not dealt with yet.
    waiting: VecDeque<Item>,
    /// The last item that was read.
    last: Option<Place>,
    /// The first that was left alone.
    left: Option<Place>,
}

impl Session {
    pub(super) fn new(
        producer: KafkaProducer,
        plan: Plan,
        items: Items,
        receipts: Receipts,
        keeping: Keeping,
        signals: Signals,
    ) -> Self {
        let desk = Desk::new(receipts, keeping, signals);
        Self { producer, plan, items, desk, waiting: VecDeque::new(), last: None, left: None }
    }

    /// Publishes everything, and tells what became of it.
    pub(super) async fn run(mut self) -> Summary {
        let mut end = self.publish_all().await.err().unwrap_or(End::Input);
        let mut grace_ends = None;
        if end == End::Signal {
            grace_ends = Some(self.grace_begins());
            if let Err(why @ (End::Strict | End::InputFailed)) = self.publish_rest().await {
                end = why;
            }
        }
        if matches!(end, End::Signal | End::NoReceipts) {
            self.leave_rest().await;
        }
        let was_cut = self.deliver(grace_ends).await.is_err();
        if was_cut {
            // Whatever has no verdict is given up, and kept, as far as that is a matter of a moment.
            let given_up = self.producer.close(Duration::ZERO);
            let _ = tokio::time::timeout(CUT, given_up).await;
        }
        self.desk.keep().await;
        self.desk.tally.note_all();
        self.desk.tally.flush();
        self.desk.progress.finish();
        let letters = self.desk.keeping.end(self.desk.tally.counts().unknown > 0).await;
        Summary {
            end,
            letters,
            last: self.last,
            left: self.left,
            cut: was_cut.then(|| self.desk.signals.exit()),
            took: self.desk.progress.elapsed(),
            tally: self.desk.tally,
        }
    }

    /// Publishes the input's events as they come, until it ends.
    async fn publish_all(&mut self) -> Result<(), End> {
        let patience = Patience { signals: 1, deadline: None, receipts: true };
        while let Some(chunk) = self.desk.work("publishing", patience, self.items.next()).await? {
            self.take(chunk)?;
            self.publish_waiting(patience).await?;
        }
        Ok(())
    }

    /// Publishes what was read before the signal.
    async fn publish_rest(&mut self) -> Result<(), End> {
        let deadline = Some(Instant::now() + self.plan.grace / 2);
        let patience = Patience { signals: 2, deadline, receipts: true };
        self.publish_waiting(patience).await?;
        while let Some(chunk) = self.items.rest().await {
            self.take(chunk)?;
            self.publish_waiting(patience).await?;
        }
        Ok(())
    }

    fn take(&mut self, chunk: io::Result<Vec<Item>>) -> Result<(), End> {
        match chunk {
            Ok(items) => {
                self.last = items.last().map(|item| item.place).or(self.last);
                self.waiting.extend(items);
                Ok(())
            }
            Err(error) => {
                self.desk.progress.say(&format!("{}: {error}", self.plan.input));
                Err(End::InputFailed)
            }
        }
    }

    async fn publish_waiting(&mut self, patience: Patience) -> Result<(), End> {
        while let Some(Item { place, event }) = self.waiting.front() {
            while self.desk.tally.in_flight() >= LATE_VERDICTS {
                self.desk.keep().await;
                if let Some(oldest) = self.desk.tally.oldest() {
                    // Its verdict is noted with the others'.
                    let _ = self.desk.work("publishing", patience, oldest).await?;
                }
                self.desk.tally.note_settled();
            }
            let place = *place;
            match event {
                Err(why) => {
                    self.desk.tally.bad(place, why.clone());
                    if self.plan.strict {
                        self.last = Some(place);
                        return Err(End::Strict);
                    }
                }
                Ok(event) => {
                    let topic = topic_of(&self.plan, &self.producer, event);
                    let published = self.producer.publish_to(&topic, event);
                    match self.desk.work("publishing", patience, published).await? {
                        Ok(delivery) => self.desk.tally.accepted(place, event.id().clone(), delivery),
                        Err(error) => {
                            self.desk.keeping.refused(&topic, event, &error);
                            self.desk.tally.refused(place, event.id().clone(), topic, &error);
                        }
                    }
                }
            }
            self.waiting.pop_front();
            if self.desk.keeping.is_full() {
                self.desk.keep().await;
            }
        }
        self.desk.note("publishing");
        Ok(())
    }

    /// Tells of what was read that it is left alone.
    async fn leave_rest(&mut self) {
        loop {
            for Item { place, event } in std::mem::take(&mut self.waiting) {
                match event {
                    Ok(event) => {
                        let topic = topic_of(&self.plan, &self.producer, &event);
                        self.left.get_or_insert(place);
                        self.desk.keeping.refused(&topic, &event, &PublishError::Closed);
                        self.desk.tally.unpublished(place, event.id().clone(), topic);
                    }
                    Err(why) => self.desk.tally.bad(place, why),
                }
            }
            self.desk.keep().await;
            match self.items.rest().await {
                // What it says was said, and nothing follows it.
                Some(chunk) => drop(self.take(chunk)),
                None => return,
            }
        }
    }

    /// Waits for the verdicts that are still to come. An error says that it was cut short.
    async fn deliver(&mut self, grace_ends: Option<Instant>) -> Result<(), End> {
        let doing = "delivering";
        let patience = Patience { signals: 1, deadline: None, receipts: false };
        let all = self.desk.work(doing, patience, self.producer.flush(FOREVER)).await;
        let grace = match (all, grace_ends) {
            (Ok(_), _) => self.plan.grace,
            (Err(_), Some(ends)) => ends.saturating_duration_since(Instant::now()),
            (Err(_), None) => self.grace_begins().saturating_duration_since(Instant::now()),
        };
        let patience = Patience { signals: 2, ..patience };
        self.desk.work(doing, patience, self.producer.close(grace)).await.map(|_| ())
    }

    /// Says that the grace period begins. Returns when it ends.
    fn grace_begins(&self) -> Instant {
        let grace = self.plan.grace;
        self.desk.progress.say(&format!(
            "interrupted: delivering what was read, for at most {} s; once more to stop at once",
            grace.as_secs()
        ));
        Instant::now() + grace
    }
}

fn topic_of(plan: &Plan, producer: &KafkaProducer, event: &AnyEvent) -> Arc<str> {
    plan.topic.clone().unwrap_or_else(|| producer.topic_for(event.event_type()))
}
