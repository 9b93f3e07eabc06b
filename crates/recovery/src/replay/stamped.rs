//! Sends letters in their own batches, each under a stamp that no other record has (`stamps`).
//!
//! Rules:
//! - The stamp is in the letter's mark before the batch leaves. The next replay after a crash repeats the letter under
//!   the same stamp, even if the first copy is in flight. The leader appends the copy that arrives first, and acknowledges the
//!   other one as a duplicate. This needs no fence and ends no producer id.
//! - Letters of a lane are repeated in order. A leader would take a letter that arrives late for a duplicate.

use std::sync::Arc;
use std::time::Instant;

use kafka_courier_batcher::{EncodedBatch, Stamp};
use kafka_courier_client::log_client::{LogClient, LogError, LogErrorKind};
use kafka_courier_dlq::{Held, Letter, Timestamp};
use kafka_courier_idempotent_sender::append_batch;
use kafka_courier_idempotent_sender::core::FailedOutcome;
use kafka_courier_producer::{SeparateResult, wall_clock_ms};
use tokio::task::JoinSet;

use super::mark::{MarkedLetter, PRODUCER_ID_TIMEOUT};
use super::order::{ReplayLane, Waves};
use super::placed::PlacedLetter;
use super::run::ReplayRun;
use super::send::{SendResults, groups_of};
use super::stamps::{MAX_IN_FLIGHT, Slots};
use super::store_io::{SharedStore, remove, update};
use super::{ReplayError, plan};

/// A letter's batch, ready to send.
struct ReadyBatch {
    letter: StampedLetter,
    partition: i32,
    batch: EncodedBatch,
}

/// A letter in its own batch.
struct StampedLetter {
    held: Held,
    /// The letter as stored while its record is in progress.
    mark: Letter,
}

type AppendResult = (StampedLetter, Result<Option<i64>, LogError>);

impl<P: FnMut(&super::ReplayReport) -> std::ops::ControlFlow<()> + Send> ReplayRun<'_, P> {
    /// Returns the letters' stamps. Obtains producer ids from the cluster if needed.
    pub(super) async fn assign_stamps(&mut self, letters: &[PlacedLetter]) -> Vec<Option<Stamp>> {
        let slots = Slots::of(letters);
        let deadline = Instant::now() + PRODUCER_ID_TIMEOUT;
        let mut requests = JoinSet::new();
        for _ in self.ids.len()..slots.needed() {
            let log = self.log.clone();
            requests.spawn(async move { log.producer_id(deadline).await });
        }
        for id in requests.join_all().await {
            match id {
                Ok(id) => self.ids.add(id),
                // Letters without a stamp leave in batches of the producer.
                Err(error) => tracing::debug!(%error, "no producer id for replayed dead letters"),
            }
        }
        self.ids.stamp(letters, &slots)
    }

    /// Sends letters under their stamps.
    pub(super) async fn send_stamped(&mut self, letters: Vec<MarkedLetter>, results: &mut SendResults) {
        let (ready, unfit) = batches(letters);
        for held in &unfit {
            self.sorter.report.failed += 1;
            self.sorter.report.count_reason(held.letter.failure_reason.clone());
            self.sorter.order.note_staying(held, held.letter.partition);
        }
        results.final_states.extend(unfit);
        for (StampedLetter { held, mark }, result) in self.append(ready).await {
            self.count_stamped(&mark.topic, result_counts(&result));
            let Err(error) = result else {
                results.delivered.insert(held.position);
                continue;
            };
            self.sorter.report.failed += 1;
            self.sorter.report.count_reason(error.to_string());
            self.sorter.order.note_staying(&held, mark.partition);
            if !error.is_open() {
                results.final_states.push(Held::new(held.position, failed_letter(&held.letter, &error)));
            } else if error.is_outage() {
                // The mark says everything else about a record that may be in the log.
                results.final_states.push(Held::new(held.position, plan::with_replay_counted(mark, false)));
            }
        }
    }

    /// Repeats letters under their stamps, one letter of each lane at a time.
    pub(super) async fn repeat(&mut self, store: &SharedStore, letters: Vec<Held>) -> Result<(), ReplayError> {
        let mut waves = Waves::new(letters, |held| ReplayLane::of(&held.letter));
        while let Some(mut wave) = waves.next() {
            wave.retain(|held| !self.sorter.is_held_back(held, held.letter.partition));
            for group in groups_of(wave, self.group_size(MAX_IN_FLIGHT)) {
                self.wait_for_rate(group.len()).await;
                self.check_claim()?;
                self.repeat_group(store, group).await?;
            }
        }
        Ok(())
    }

    async fn repeat_group(&mut self, store: &SharedStore, letters: Vec<Held>) -> Result<(), ReplayError> {
        let mut ready = Vec::with_capacity(letters.len());
        for held in letters {
            if let Some(batch) = repeat_batch(&held) {
                let (partition, mark) = (held.letter.partition.unwrap_or_default(), held.letter.clone());
                ready.push(ReadyBatch { partition, letter: StampedLetter { held, mark }, batch });
            } else {
                // The stamp has just become too old.
                self.sorter.report.not_found += 1;
                self.sorter.order.note_left_out(&held);
            }
        }
        let (mut delivered, mut stay) = (Vec::new(), Vec::new());
        for (StampedLetter { held, .. }, result) in self.append(ready).await {
            self.sorter.report.count_sent(&held.letter.topic);
            self.count_stamped(&held.letter.topic, result_counts(&result));
            match result {
                Ok(_) => delivered.push(held.position),
                Err(error) => {
                    self.sorter.report.failed += 1;
                    self.sorter.report.count_reason(error.to_string());
                    self.sorter.order.note_staying(&held, held.letter.partition);
                    // A refusal of this copy says nothing about the first one.
                    stay.push(Held { letter: plan::after_failed_repeat(&held.letter, !error.is_outage()), ..held });
                }
            }
        }
        self.sorter.report.delivered += delivered.len() as u64;
        remove(store, delivered).await?;
        update(store, stay).await.map(|_| ())
    }

    /// Appends each batch to its partition, all in parallel.
    async fn append(&self, ready: Vec<ReadyBatch>) -> Vec<AppendResult> {
        let deadline = Instant::now() + self.engine.delivery_timeout();
        let mut in_flight = JoinSet::new();
        for ready in ready {
            in_flight.spawn(append(self.log.clone(), ready, deadline));
        }
        in_flight.join_all().await
    }

    /// Counts a letter that was sent. The producer does not count it, because it did not send the letter itself.
    pub(super) fn count_stamped(&self, topic: &str, result: SeparateResult) {
        self.engine.count_separate_batch(topic, result);
    }
}

async fn append(log: Arc<LogClient>, ready: ReadyBatch, deadline: Instant) -> AppendResult {
    let ReadyBatch { letter, partition, batch } = ready;
    let result = append_batch(&log, &letter.mark.topic, partition, Arc::new(batch), deadline).await;
    (letter, result)
}

/// Returns the batch of a letter that is repeated under its stamp. `None` if the stamp is too old.
fn repeat_batch(held: &Held) -> Option<EncodedBatch> {
    held.letter.partition?;
    let stamp = plan::stamp_to_repeat(&held.letter, wall_clock_ms())?;
    let mut batch = plan::single_record_batch(&held.letter).ok()?;
    batch.stamp(stamp);
    Some(batch)
}

/// Returns a result as statistics count it.
fn result_counts(result: &Result<Option<i64>, LogError>) -> SeparateResult {
    let outcome = |error: &LogError| if error.is_open() { FailedOutcome::Unknown } else { FailedOutcome::NotWritten };
    result.as_ref().map(|_| ()).map_err(|error| (error.code(), outcome(error)))
}

/// Returns the letters' batches, and the letters that no batch can hold. The latter are returned
/// as stored, with the reason: none of them has left.
fn batches(letters: Vec<MarkedLetter>) -> (Vec<ReadyBatch>, Vec<Held>) {
    let (mut ready, mut unfit) = (Vec::new(), Vec::new());
    for MarkedLetter { placed, mark, stamp } in letters {
        match (plan::single_record_batch(&placed.held.letter), stamp) {
            (Ok(mut batch), Some(stamp)) => {
                batch.stamp(stamp);
                let PlacedLetter { held, partition, .. } = placed;
                ready.push(ReadyBatch { letter: StampedLetter { held, mark }, partition, batch });
            }
            // A letter without a stamp does not belong here, and stays as stored.
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

/// Returns the letter after a failure that certainly did not write its record.
fn failed_letter(letter: &Letter, error: &LogError) -> Letter {
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
        let placed = PlacedLetter { held, partition: 0, before: Some(Box::new(before)) };
        let (ready, unfit) = batches(vec![MarkedLetter { placed, mark, stamp: None }]);
        assert_eq!((ready.len(), unfit.len(), unfit[0].letter.topic.as_str()), (0, 1, "t"));
    }
}
