//! One run: lines from the reader to the publisher, and the verdicts back.
//!
//! Rules:
//! - The first signal starts the grace period: what was read is still published in its first half, and all that was
//!   published may be delivered to its end. The second ends everything.
//! - The run knows whether the input was read to its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier::KafkaProducer;

use super::desk::{Desk, End, Patience};
use super::keeping::{Advice, Keeping};
use super::lines::{Handed, Lines};
use super::position::{Place, Position};
use super::publisher::Publisher;
use super::receipts::Receipts;
use super::summary::{Left, Summary};
use super::topics::Settled;
use super::unmapped::Unmapped;
use crate::signals::Signals;

/// How long the producer may take to give verdicts at an end that waits for nothing.
const CUT: Duration = Duration::from_secs(2);
/// Longer than any delivery_timeout, which bounds what is waited for.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);
/// As long as nothing interrupts.
const UNINTERRUPTED: Patience = Patience { signals: 1, deadline: None, receipts: true };

/// What a run does with its input.
pub(super) struct Plan {
    /// The topic of all events; else each type's own.
    pub(super) topic: Option<Arc<str>>,
    pub(super) strict: bool,
    pub(super) grace: Duration,
    /// The input's name, for people.
    pub(super) input: String,
    pub(super) delivery_timeout: Duration,
    pub(super) unmapped: Unmapped,
}

/// What comes next while the input is read.
enum Next {
    Handed(Option<Handed>),
    Topic(Option<Settled>),
}

/// One run over an input.
pub(super) struct Session {
    producer: KafkaProducer,
    grace: Duration,
    input: String,
    lines: Lines,
    desk: Desk,
    publisher: Publisher,
    /// The last item that was read.
    last: Option<Position>,
    /// The input was read to its end.
    is_whole: bool,
    /// The first event that was read and not published.
    left: Option<Place>,
}

impl Session {
    pub(super) fn new(
        producer: KafkaProducer,
        plan: Plan,
        lines: Lines,
        receipts: Receipts,
        keeping: Keeping,
        signals: Signals,
    ) -> Self {
        let desk = Desk::new(producer.clone(), plan.delivery_timeout, receipts, keeping, signals);
        let publisher = Publisher::new(producer.clone(), plan.topic, plan.strict, plan.unmapped);
        let (grace, input) = (plan.grace, plan.input);
        Self { producer, grace, input, lines, desk, publisher, last: None, is_whole: false, left: None }
    }

    /// Publishes everything, and tells what became of it.
    pub(super) async fn run(mut self) -> Summary {
        let mut end = self.publish_all().await.err().unwrap_or(End::Input);
        if matches!(end, End::Strict | End::InputFailed) {
            self.finish_before_bad(UNINTERRUPTED).await;
        }
        let mut grace_ends = None;
        if end == End::Signal {
            grace_ends = Some(self.grace_begins());
            let deadline = Some(Instant::now() + self.grace / 2);
            let patience = Patience { signals: 2, deadline, receipts: true };
            match self.publish_rest(patience).await {
                Ok(()) if self.is_whole => end = End::Input,
                Err(why @ (End::Strict | End::InputFailed)) => {
                    end = why;
                    self.finish_before_bad(patience).await;
                }
                _ => {}
            }
        }
        let was_cut = self.deliver(grace_ends).await.is_err();
        if was_cut {
            // What has no verdict fails, and is kept, as far as that is a matter of a moment.
            let closed = self.producer.close(Duration::ZERO);
            let _ = tokio::time::timeout(CUT, closed).await;
        }
        // Only now: the dead letters of events that were handed over earlier come before those of events that were not.
        match end {
            End::Signal | End::NoReceipts => self.leave_rest().await,
            _ => self.leave_here().await,
        }
        self.summary(end, was_cut).await
    }

    async fn summary(mut self, end: End, was_cut: bool) -> Summary {
        self.desk.keep().await;
        self.desk.tally.note_all();
        self.desk.tally.flush();
        self.desk.progress.finish();
        let letters = self.desk.keeping.end(Advice::of(self.desk.tally.counts())).await;
        let reached = self.publisher.reached();
        Summary {
            end,
            letters,
            last: self.last,
            left: self.left.map(|place| Left { place, is_last: reached.is_none_or(|reached| reached < place) }),
            interrupted: (was_cut || end == End::Signal).then(|| self.desk.signals.exit()),
            took: self.desk.progress.elapsed(),
            unmapped: self.publisher.unmapped().line(),
            tally: self.desk.tally,
        }
    }

    /// Publishes the input's events as they come, until it ends and no topic is waited for.
    async fn publish_all(&mut self) -> Result<(), End> {
        while !self.is_whole {
            let (lines, publisher) = (&mut self.lines, &mut self.publisher);
            let waits = publisher.waits_for_topics();
            let next = async {
                tokio::select! {
                    biased;
                    settled = publisher.next_topic(), if waits => Next::Topic(settled),
                    handed = lines.next() => Next::Handed(handed),
                }
            };
            match self.desk.work("publishing", UNINTERRUPTED, next).await? {
                Next::Topic(settled) => settled.into_iter().for_each(|s| self.publisher.on_topic(&mut self.desk, s)),
                Next::Handed(Some(handed)) => self.take(handed)?,
                Next::Handed(None) => self.is_whole = true,
            }
            self.publish_waiting(UNINTERRUPTED).await?;
        }
        self.publisher.finish(&mut self.desk, UNINTERRUPTED).await
    }

    async fn publish_waiting(&mut self, patience: Patience) -> Result<(), End> {
        let published = self.publisher.publish_waiting(&mut self.desk, patience).await;
        if published == Err(End::Strict) {
            self.last = self.publisher.bad().or(self.last);
        }
        published
    }

    /// Publishes what was read before the signal.
    async fn publish_rest(&mut self, patience: Patience) -> Result<(), End> {
        self.publish_waiting(patience).await?;
        while let Some(handed) = self.lines.rest().await {
            self.take(handed)?;
            self.publish_waiting(patience).await?;
        }
        self.publisher.finish(&mut self.desk, patience).await
    }

    /// Publishes what comes before the item that ended the reading, and still waits for its topics.
    async fn finish_before_bad(&mut self, patience: Patience) {
        self.publisher.forget_waiting();
        // What is not published is told once all verdicts are there.
        let _ = self.publisher.finish(&mut self.desk, patience).await;
    }

    fn take(&mut self, handed: Handed) -> Result<(), End> {
        match handed {
            Handed::Lines(lines) => {
                self.last = lines.last().map(|line| line.position).or(self.last);
                self.publisher.take(lines);
                Ok(())
            }
            Handed::End => {
                self.is_whole = true;
                Ok(())
            }
            Handed::Failed(error) => {
                self.desk.progress.say(&format!("{}: {error}", self.input));
                Err(End::InputFailed)
            }
        }
    }

    /// Tells of what was read that it is not published.
    async fn leave_rest(&mut self) {
        loop {
            self.leave_here().await;
            match self.lines.rest().await {
                // What it says was said, and nothing follows it.
                Some(handed) => drop(self.take(handed)),
                None => return,
            }
        }
    }

    async fn leave_here(&mut self) {
        let left = self.publisher.leave_all(&mut self.desk);
        self.left = [self.left, left].into_iter().flatten().min();
        self.desk.keep().await;
    }

    /// Waits for the verdicts that are still to come. An error says that it was cut short.
    async fn deliver(&mut self, grace_ends: Option<Instant>) -> Result<(), End> {
        let doing = "delivering";
        let patience = Patience { receipts: false, ..UNINTERRUPTED };
        let all = self.desk.work(doing, patience, self.producer.flush(FOREVER)).await;
        let grace = match (all, grace_ends) {
            (Ok(_), _) => self.grace,
            (Err(_), Some(ends)) => ends.saturating_duration_since(Instant::now()),
            (Err(_), None) => self.grace_begins().saturating_duration_since(Instant::now()),
        };
        let patience = Patience { signals: 2, ..patience };
        self.desk.work(doing, patience, self.producer.close(grace)).await.map(|_| ())
    }

    /// Says that the grace period begins. Returns when it ends.
    fn grace_begins(&self) -> Instant {
        self.desk.progress.say(&format!(
            "interrupted: delivering what was read, for at most {} s; once more to stop at once",
            self.grace.as_secs()
        ));
        Instant::now() + self.grace
    }
}
