//! A run of `courier publish`: it moves lines from the reader to the publisher, and records the verdicts.
//!
//! Rules:
//! - The first signal starts the grace period. Events that were read are published in its first half, and delivered until
//!   its end. The second signal ends the run.
//! - The run knows whether the input was read to its end.

mod spooled;

use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier::KafkaProducer;

use super::dead_letters::{Advice, RunDeadLetters};
use super::line_channel::{Handover, LineReceiver};
use super::monitor::{Monitor, StopConditions, StopReason};
use super::position::{InputPlace, InputPosition};
use super::publisher::{Publisher, SpooledLines};
use super::receipts::Receipts;
use super::spool_run::SpoolRun;
use super::summary::{FirstUnpublished, Summary};
use super::topic_waits::ResolvedTopic;
use super::unmapped::Unmapped;
use crate::signals::Signals;

/// Time for the last verdicts of the producer after an interruption.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Longer than any `delivery_timeout`, which bounds each wait.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);
/// The conditions before any interruption.
const UNINTERRUPTED: StopConditions = StopConditions { signals: 1, deadline: None, receipts: true };

/// The options of a run.
pub(super) struct SessionOptions {
    /// The topic of all events. `None`: each type has its own topic.
    pub(super) topic: Option<Arc<str>>,
    pub(super) strict: bool,
    pub(super) grace: Duration,
    /// The input's name in messages.
    pub(super) input: String,
    pub(super) delivery_timeout: Duration,
    pub(super) unmapped: Unmapped,
    pub(super) spool: Option<SpoolRun>,
}

/// The next input of a run.
enum NextInput {
    Handover(Option<Handover>),
    Topic(Option<ResolvedTopic>),
}

/// A run over an input.
pub(super) struct PublishSession {
    producer: KafkaProducer,
    grace: Duration,
    input: String,
    lines: LineReceiver,
    monitor: Monitor,
    publisher: Publisher,
    spool: Option<SpoolRun>,
    /// The time in which a group of lines must be published.
    patience: Option<Duration>,
    /// The last item that was read.
    last: Option<InputPosition>,
    /// The input was read to its end.
    is_whole: bool,
    /// The first event that was read and not published.
    left: Option<InputPlace>,
}

impl PublishSession {
    pub(super) fn new(
        producer: KafkaProducer,
        options: SessionOptions,
        lines: LineReceiver,
        receipts: Receipts,
        dead_letters: RunDeadLetters,
        signals: Signals,
    ) -> Self {
        let monitor = Monitor::new(producer.clone(), options.delivery_timeout, receipts, dead_letters, signals);
        let SessionOptions { topic, strict, grace, input, unmapped, spool, .. } = options;
        let lines_of = spool.as_ref().map(|spool| SpooledLines(spool.input));
        let publisher = Publisher::new(producer.clone(), topic, strict, unmapped, lines_of);
        let patience = spool.as_ref().filter(|spool| !spool.waits).map(|spool| spool.patience);
        let (last, is_whole, left) = (None, false, None);
        Self { producer, grace, input, lines, monitor, publisher, spool, patience, last, is_whole, left }
    }

    /// Publishes all events and returns the summary.
    pub(super) async fn run(mut self) -> Summary {
        if let Some(spool) = self.spool.take() {
            return self.run_spooled(spool).await;
        }
        let mut end = self.publish_all().await.err().unwrap_or(StopReason::InputEnded);
        if matches!(end, StopReason::Strict | StopReason::InputFailed) {
            self.finish_before_bad(UNINTERRUPTED).await;
        }
        let mut grace_ends = None;
        if end == StopReason::Signal {
            grace_ends = Some(self.grace_begins());
            let deadline = Some(Instant::now() + self.grace / 2);
            let conditions = StopConditions { signals: 2, deadline, receipts: true };
            match self.publish_rest(conditions).await {
                Ok(()) if self.is_whole => end = StopReason::InputEnded,
                Err(why @ (StopReason::Strict | StopReason::InputFailed)) => {
                    end = why;
                    self.finish_before_bad(conditions).await;
                }
                _ => {}
            }
        }
        let was_cut = self.deliver(grace_ends).await.is_err();
        if was_cut {
            // Events without a verdict fail and become dead letters, within `CLOSE_TIMEOUT`.
            let closed = self.producer.close(Duration::ZERO);
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, closed).await;
        }
        // This order puts the dead letters of published events before those of unpublished ones.
        match end {
            StopReason::Signal | StopReason::ReceiptsFailed => self.report_rest().await,
            _ => self.report_queue().await,
        }
        self.summary(end, was_cut).await
    }

    async fn summary(mut self, end: StopReason, was_cut: bool) -> Summary {
        self.monitor.keep().await;
        self.monitor.tally.note_all();
        self.monitor.tally.flush();
        self.monitor.progress.finish();
        let letters = self.monitor.dead_letters.end(Advice::of(self.monitor.tally.counts())).await;
        let reached = self.publisher.reached();
        Summary {
            end,
            letters,
            last: self.last,
            left: self
                .left
                .map(|place| FirstUnpublished { place, is_last: reached.is_none_or(|reached| reached < place) }),
            interrupted: (was_cut || end == StopReason::Signal).then(|| self.monitor.signals.exit()),
            took: self.monitor.progress.elapsed(),
            unmapped: self.publisher.unmapped().line(),
            tally: self.monitor.tally,
            spool: None,
        }
    }

    /// Publishes the input's events as they arrive, until the input ends and no topic is pending.
    async fn publish_all(&mut self) -> Result<(), StopReason> {
        while !self.is_whole {
            let (lines, publisher) = (&mut self.lines, &mut self.publisher);
            let waits = publisher.waits_for_topics();
            let next = async {
                tokio::select! {
                    biased;
                    settled = publisher.next_topic(), if waits => NextInput::Topic(settled),
                    handed = lines.next() => NextInput::Handover(handed),
                }
            };
            match self.monitor.run("publishing", UNINTERRUPTED, next).await? {
                NextInput::Topic(settled) => {
                    settled.into_iter().try_for_each(|s| self.publisher.topic_resolved(&mut self.monitor, s))?
                }
                NextInput::Handover(Some(handed)) => self.take(handed)?,
                NextInput::Handover(None) => self.is_whole = true,
            }
            self.publish_waiting(self.patience()).await?;
        }
        let conditions = self.patience();
        self.publisher.finish(&mut self.monitor, conditions).await
    }

    async fn publish_waiting(&mut self, conditions: StopConditions) -> Result<(), StopReason> {
        let published = self.publisher.publish_waiting(&mut self.monitor, conditions).await;
        if published == Err(StopReason::Strict) {
            self.last = self.publisher.bad().or(self.last);
        }
        published
    }

    /// Publishes the events that were read before the signal.
    async fn publish_rest(&mut self, conditions: StopConditions) -> Result<(), StopReason> {
        self.publish_waiting(conditions).await?;
        while let Some(handed) = self.lines.rest().await {
            self.take(handed)?;
            self.publish_waiting(conditions).await?;
        }
        self.publisher.finish(&mut self.monitor, conditions).await
    }

    /// Publishes the events before the item that ended reading, which still wait for their topics.
    async fn finish_before_bad(&mut self, conditions: StopConditions) {
        self.publisher.forget_waiting();
        // Unpublished events are reported after the last verdict.
        let _ = self.publisher.finish(&mut self.monitor, conditions).await;
    }

    fn take(&mut self, handed: Handover) -> Result<(), StopReason> {
        match handed {
            Handover::Lines(lines) => {
                self.last = lines.last().map(|line| line.position).or(self.last);
                self.publisher.take(lines);
                Ok(())
            }
            Handover::End => {
                self.is_whole = true;
                Ok(())
            }
            Handover::Failed(error) => {
                let input = if self.input == "-" { "standard input" } else { &self.input };
                self.monitor.progress.say(&format!("cannot read {input}: {error}"));
                Err(StopReason::InputFailed)
            }
        }
    }

    /// Reports all events that were read and not published.
    async fn report_rest(&mut self) {
        loop {
            self.report_queue().await;
            match self.lines.rest().await {
                // `take` has reported a failure, and no line follows one.
                Some(handed) => drop(self.take(handed)),
                None => return,
            }
        }
    }

    async fn report_queue(&mut self) {
        let left = self.publisher.report_unpublished(&mut self.monitor);
        self.left = [self.left, left].into_iter().flatten().min();
        self.monitor.keep().await;
    }

    /// Waits for the remaining verdicts.
    ///
    /// # Errors
    /// The condition that interrupted the wait.
    async fn deliver(&mut self, grace_ends: Option<Instant>) -> Result<(), StopReason> {
        let doing = "delivering";
        let conditions = StopConditions { receipts: false, ..UNINTERRUPTED };
        let all = self.monitor.run(doing, conditions, self.producer.flush(FOREVER)).await;
        let grace = match (all, grace_ends) {
            (Ok(_), _) => self.grace,
            (Err(_), Some(ends)) => ends.saturating_duration_since(Instant::now()),
            (Err(_), None) => self.grace_begins().saturating_duration_since(Instant::now()),
        };
        let conditions = StopConditions { signals: 2, ..conditions };
        self.monitor.run(doing, conditions, self.producer.close(grace)).await.map(|_| ())
    }

    /// Prints that the grace period begins, and returns its end.
    fn grace_begins(&self) -> Instant {
        self.monitor.progress.say(&format!(
            "interrupted: delivering the events that were read for up to {} s: signal again to stop immediately",
            self.grace.as_secs()
        ));
        Instant::now() + self.grace
    }
}
