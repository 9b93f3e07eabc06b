//! Letters that go alone: each in a batch of its own, under a stamp that no other record has (`stamps`).
//!
//! Rules:
//! - The stamp is in the letter's mark before the batch leaves. After a crash the next replay sends the letter again under
//!   the same stamp, whether or not the first copy is under way: a leader takes one of them, whichever comes first, and
//!   acknowledges the other as that one. No fence is needed, and no producer's life is ended.
//! - Letters of a lane go again in their order only: a leader would take one that comes late for one that it has.

use std::sync::Arc;
use std::time::Instant;

use kafka_courier_batcher::{EncodedBatch, Stamp};
use kafka_courier_dlq::{Held, Letter, Timestamp};
use kafka_courier_idempotent_sender::core::FailedOutcome;
use kafka_courier_idempotent_sender::driver::{LogClient, LogError, LogErrorKind};
use tokio::task::JoinSet;

use super::mark::{IDENTITY, Marked};
use super::order::{Lane, Waves};
use super::run::{Placed, Run, Store, remove, update};
use super::send::{Went, in_groups};
use super::sort::Alone;
use super::stamps::Slots;
use super::{ReplayError, plan};
use crate::metrics;
use crate::shared::wall_clock_ms;

/// Letters under way at a time.
pub(super) const AT_ONCE: usize = 64;

/// A letter's batch, ready to leave.
struct Ready {
    going: Going,
    partition: i32,
    batch: EncodedBatch,
}

/// A letter that goes alone.
struct Going {
    held: Held,
    /// As it stands in its store meanwhile.
    mark: Letter,
}

type Appended = (Going, Result<i64, LogError>);

impl<P: FnMut(&super::ReplayReport) -> std::ops::ControlFlow<()> + Send> Run<'_, P> {
    /// The stamps under which letters leave.
    pub(super) async fn stamps(&mut self, letters: &[Placed]) -> Vec<Option<Stamp>> {
        let slots = Slots::of(letters);
        let deadline = Instant::now() + IDENTITY;
        let mut asked = JoinSet::new();
        for _ in self.ids.len()..slots.needed() {
            let log = self.log.clone();
            asked.spawn(async move { log.producer_id(deadline).await });
        }
        for id in asked.join_all().await {
            match id {
                Ok(id) => self.ids.add(id),
                // Letters without a stamp go in batches of the producer.
                Err(error) => tracing::debug!(%error, "no producer id for dead letters"),
            }
        }
        self.ids.stamp(letters, &slots)
    }

    /// Sends letters that have a stamp.
    pub(super) async fn send_alone(&mut self, letters: Vec<Marked>, went: &mut Went) {
        let (ready, unfit) = batches(letters);
        for held in &unfit {
            self.desk.report.failed += 1;
            self.desk.report.reason(held.letter.failure_reason.clone());
            self.desk.order.stays(held, held.letter.partition);
        }
        went.back.extend(unfit);
        for (Going { held, mark }, result) in self.append(ready).await {
            self.count_alone(&mark.topic, counted(&result));
            let Err(error) = result else {
                went.delivered.insert(held.position);
                continue;
            };
            self.desk.report.failed += 1;
            self.desk.report.reason(error.to_string());
            self.desk.order.stays(&held, mark.partition);
            if !error.is_open() {
                went.back.push(Held::new(held.position, failed(&held.letter, &error)));
            } else if error.is_outage() {
                // Of one that may be in the log its mark says all else.
                went.back.push(Held::new(held.position, plan::with_replay_counted(mark, false)));
            }
        }
    }

    /// Sends letters that went alone before once more, under their stamps, those of a lane one after the other.
    pub(super) async fn repeat(&mut self, store: &Store, letters: Vec<Held>) -> Result<(), ReplayError> {
        let mut waves = Waves::new(letters, |held| Lane::of(&held.letter));
        while let Some(mut wave) = waves.next() {
            wave.retain(|held| !self.desk.is_held_back(held, held.letter.partition));
            for some in in_groups(wave, self.together(AT_ONCE)) {
                self.keep_to_the_rate(some.len()).await;
                self.still_claimed()?;
                self.repeat_some(store, some).await?;
            }
        }
        Ok(())
    }

    async fn repeat_some(&mut self, store: &Store, letters: Vec<Held>) -> Result<(), ReplayError> {
        let mut ready = Vec::with_capacity(letters.len());
        for held in letters {
            if let Some(batch) = again(&held) {
                let (partition, mark) = (held.letter.partition.unwrap_or_default(), held.letter.clone());
                ready.push(Ready { partition, going: Going { held, mark }, batch });
            } else {
                // Its time has just run out.
                self.desk.report.not_found += 1;
                self.desk.order.left_out(&held);
            }
        }
        let (mut delivered, mut stay) = (Vec::new(), Vec::new());
        for (Going { held, .. }, result) in self.append(ready).await {
            self.desk.report.count_sent(&held.letter.topic);
            self.count_alone(&held.letter.topic, counted(&result));
            match result {
                Ok(_) => delivered.push(held.position),
                Err(error) => {
                    self.desk.report.failed += 1;
                    self.desk.report.reason(error.to_string());
                    self.desk.order.stays(&held, held.letter.partition);
                    // What is refused now says nothing of the copy that went before.
                    stay.push(Held { letter: plan::after_failed_repeat(&held.letter, !error.is_outage()), ..held });
                }
            }
        }
        self.desk.report.delivered += delivered.len() as u64;
        remove(store, delivered).await?;
        update(store, stay).await.map(|_| ())
    }

    /// Appends all of them, each to its own partition.
    async fn append(&self, ready: Vec<Ready>) -> Vec<Appended> {
        let deadline = Instant::now() + self.producer.inner.reach.core.delivery_timeout;
        let mut under_way = JoinSet::new();
        for ready in ready {
            under_way.spawn(append(self.log.clone(), ready, deadline));
        }
        under_way.join_all().await
    }

    /// Counts a letter that has left, for the producer has not sent it.
    pub(super) fn count_alone(&self, topic: &str, result: Alone) {
        self.producer.inner.intake.shared.counts.count_alone(result.is_ok());
        metrics::went_alone(topic, result);
    }
}

async fn append(log: Arc<LogClient>, ready: Ready, deadline: Instant) -> Appended {
    let Ready { going, partition, batch } = ready;
    let result = log.append(&going.mark.topic, partition, Arc::new(batch), deadline).await;
    (going, result)
}

/// The batch of a letter that goes once more under its stamp, while it may.
fn again(held: &Held) -> Option<EncodedBatch> {
    held.letter.partition?;
    let stamp = plan::stamp_to_repeat(&held.letter, wall_clock_ms())?;
    let mut batch = plan::single_record_batch(&held.letter).ok()?;
    batch.stamp(stamp);
    Some(batch)
}

/// A result as it is counted.
fn counted(result: &Result<i64, LogError>) -> Alone {
    let outcome = |error: &LogError| if error.is_open() { FailedOutcome::Unknown } else { FailedOutcome::NotWritten };
    result.as_ref().map(|_| ()).map_err(|error| (error.code(), outcome(error)))
}

/// The batches of letters, and the letters that no batch can hold, put back as letters of their own topics: none has left.
fn batches(letters: Vec<Marked>) -> (Vec<Ready>, Vec<Held>) {
    let (mut ready, mut unfit) = (Vec::new(), Vec::new());
    for Marked { placed, mark, stamp } in letters {
        match (plan::single_record_batch(&placed.held.letter), stamp) {
            (Ok(mut batch), Some(stamp)) => {
                batch.stamp(stamp);
                let Placed { held, partition, .. } = placed;
                ready.push(Ready { going: Going { held, mark }, partition, batch });
            }
            // Without a stamp it was not meant to go so, and stays as it was.
            (Ok(_), None) => unfit.push(placed.before()),
            (Err(error), _) => {
                let held = placed.before();
                let letter = plan::after_failed_attempt(&held.letter, Timestamp::now(), error.to_string(), true);
                unfit.push(Held { letter, ..held });
            }
        }
    }
    (ready, unfit)
}

/// A letter of which it is certain that it was not written this time either.
fn failed(letter: &Letter, error: &LogError) -> Letter {
    let mut failed = plan::after_failed_attempt(letter, Timestamp::now(), error.to_string(), !error.is_outage());
    failed.error_code = error.code().map(|code| code.name().to_owned());
    failed.retriable = match error.kind() {
        LogErrorKind::Refused(code) => code.is_retriable(),
        _ => true,
    };
    plan::proved_absent(failed)
}

#[cfg(test)]
mod tests {
    use kafka_courier_dlq::Position;

    use super::*;

    #[test]
    fn unfit_letter_keeps_its_topic() {
        let before = Letter::new("t", None, "why", Timestamp::UNIX_EPOCH);
        let held = Held::new(Position(1), Letter { topic: "other".to_owned(), ..before.clone() });
        let mark = held.letter.clone();
        let placed = Placed { held, partition: 0, before: Some(Box::new(before)) };
        let (ready, unfit) = batches(vec![Marked { placed, mark, stamp: None }]);
        assert_eq!((ready.len(), unfit.len(), unfit[0].letter.topic.as_str()), (0, 1, "t"));
    }
}
