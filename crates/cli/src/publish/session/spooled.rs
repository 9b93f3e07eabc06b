//! A run with a spool: it ends when everything is delivered, or when its time is over.
//!
//! Rules:
//! - An event is done for the run once it is stored. The spool delivers it, in this run or a later one.
//! - Lines of a file that were not published stay in the file. Events of a pipe that were not published become dead letters.
//! - Unreachable brokers end the run only after the grace period, and not at all with `--wait`.

use std::time::{Duration, Instant};

use kafka_courier::SpoolStats;
use kafka_courier::spool::SpoolView;

use super::{CLOSE_TIMEOUT, PublishSession, StopConditions, StopReason, Summary, UNINTERRUPTED};
use crate::exit::{CommandError, Exit};
use crate::publish::spool_run::SpoolRun;
use crate::publish::summary::SpoolEnd;
use crate::spool::events;
use crate::spool_errors::fault;

/// Interval between two looks at the producer.
const TICK: Duration = Duration::from_millis(100);

/// Why the delivery ended.
enum DeliveryEnd {
    Settled,
    /// Events are left.
    Left,
    Failed(CommandError),
}

impl PublishSession {
    pub(super) async fn run_spooled(mut self, spool: SpoolRun) -> Summary {
        let is_file = spool.input.is_some();
        let (end, ends) = self.publish_spooled(is_file).await;
        let delivered = self.deliver_spooled(&spool, ends, end).await;
        self.close_spooled(&delivered).await;
        let stats = self.monitor.producer_stats();
        let (left, unread) = match left(&spool).await {
            Ok(left) => (left, None),
            Err(error) => (stats.stored, Some(error)),
        };
        let error = if let DeliveryEnd::Failed(error) = delivered { Some(error) } else { unread };
        let error = error.or_else(|| lost(stats.spool.as_ref()?));
        let was_cut = self.monitor.signals.times() > 0 && (left > 0 || end == StopReason::Signal);
        let (dir, fault) = (spool.shown(), error.map(|CommandError(exit, why)| (exit, why)));
        let (delivered, failed) = (stats.sent, stats.failed);
        let spool_end = SpoolEnd { dir, delivered, failed, left, is_file, fault };
        let mut summary = self.summary(end, was_cut).await;
        summary.spool = Some(spool_end);
        summary
    }

    /// Publishes the input. Returns why reading ended, and the end of the grace period if a signal ended it.
    async fn publish_spooled(&mut self, is_file: bool) -> (StopReason, Option<Instant>) {
        let mut end = self.publish_all().await.err().unwrap_or(StopReason::InputEnded);
        let mut ends = None;
        match end {
            StopReason::Strict | StopReason::InputFailed => self.finish_before_bad(self.patience()).await,
            StopReason::Signal => {
                ends = Some(self.grace_begins());
                let conditions = self.rest_conditions();
                if !is_file && self.publish_rest(conditions).await.is_ok() && self.is_whole {
                    end = StopReason::InputEnded;
                }
            }
            _ => {}
        }
        if is_file {
            self.publisher.forget_unpublished(&mut self.monitor);
        } else {
            self.report_rest().await;
        }
        self.monitor.keep().await;
        (end, ends)
    }

    /// Delivers what the spool has, until all is delivered, the grace period is over, or a signal ends the run. `end` is why
    /// reading ended.
    async fn deliver_spooled(&mut self, spool: &SpoolRun, ends: Option<Instant>, end: StopReason) -> DeliveryEnd {
        // Everything that was accepted is stored now, and not after flush_timeout.
        self.producer.flush(Duration::ZERO).await;
        let grace_ends = Instant::now() + self.grace;
        let mut deadline = ends.or((!spool.waits).then_some(grace_ends));
        let mut signals = 1 + self.monitor.signals.times().min(1);
        loop {
            let stats = self.monitor.producer_stats();
            let spooled = stats.spool.clone().unwrap_or_default();
            if let Some(error) = fault(&spooled, stats.in_flight) {
                return DeliveryEnd::Failed(error);
            }
            if end == StopReason::SpoolFailed {
                let why = "the producer has ended: the spool has the events that it did not deliver".to_owned();
                return DeliveryEnd::Failed(CommandError(Exit::Io, why));
            }
            if stats.in_flight == 0 && spooled.records == 0 {
                return DeliveryEnd::Settled;
            }
            let conditions = StopConditions { signals, deadline, receipts: false };
            match self.monitor.run("delivering", conditions, tokio::time::sleep(TICK)).await {
                Err(StopReason::Signal) if signals == 1 => {
                    let ends = self.grace_begins();
                    (signals, deadline) = (2, Some(deadline.map_or(ends, |deadline| deadline.min(ends))));
                }
                Err(_) => return DeliveryEnd::Left,
                Ok(()) => {}
            }
        }
    }

    /// Closes the producer. Everything that it has not delivered stays in the spool.
    async fn close_spooled(&mut self, delivered: &DeliveryEnd) {
        let timeout = match delivered {
            DeliveryEnd::Settled => self.grace,
            _ => Duration::ZERO,
        };
        let closed = async {
            self.producer.close(timeout).await;
        };
        // A thread that waits for the disk ends with the process.
        let _ = tokio::time::timeout(timeout + 5 * CLOSE_TIMEOUT, closed).await;
    }

    /// Returns the conditions that interrupt the publishing of lines that were read. A group of lines must be published in
    /// time, unless the run waits.
    pub(super) fn patience(&self) -> StopConditions {
        let deadline = self.patience.map(|patience| Instant::now() + patience);
        StopConditions { deadline, ..UNINTERRUPTED }
    }

    /// Returns the conditions after the first signal.
    fn rest_conditions(&self) -> StopConditions {
        StopConditions { signals: 2, deadline: Some(Instant::now() + self.grace / 2), receipts: true }
    }
}

/// Returns the error for events of earlier runs that the disk has lost.
fn lost(spool: &SpoolStats) -> Option<CommandError> {
    let why = format!(
        "{} of earlier runs were damaged on the disk and are lost: courier spool check names the damage",
        events(spool.lost)
    );
    (spool.lost > 0).then_some(CommandError(Exit::SomeFailed, why))
}

/// Returns the number of events in the folder.
async fn left(spool: &SpoolRun) -> Result<u64, CommandError> {
    let dir = spool.dir.clone();
    let read = tokio::task::spawn_blocking(move || SpoolView::read(&dir)).await;
    let view = read.map_err(|error| CommandError(Exit::Io, error.to_string()))?;
    view.map(|view| view.records()).map_err(|error| CommandError(Exit::Io, error.to_string()))
}
