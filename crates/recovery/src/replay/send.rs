//! Sends letters: the IO around `order` and `stamps`.
//!
//! Rules:
//! - One letter of each lane is in progress at a time. If it fails, no other of its lane follows.
//! - A topic that was unavailable once is not awaited again: a later letter must not find the topic after an earlier one
//!   failed.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier_client::Reason;
use kafka_courier_dlq::{Held, Letter, Position, Timestamp};
use kafka_courier_producer::{Delivery, ProducerRecord, PublishError, Tag};

use super::claim::Claim;
use super::mark::MarkedLetter;
use super::order::Waves;
use super::placed::PlacedLetter;
use super::plan;
use super::run::ReplayRun;
use super::stamps::MAX_IN_FLIGHT;
use super::store_io::{SharedStore, remove};
use super::{ReplayError, ReplayReport};
use crate::dead_letters::refused_event::classify;
use crate::headers::borrowed_headers;

/// The results of letters that were sent.
pub(super) struct SendResults {
    pub(super) delivered: HashSet<Position>,
    /// Letters with a final state to store instead of their marks.
    pub(super) final_states: Vec<Held>,
    /// The error that ends the replay, if there is one.
    ended: Result<(), ReplayError>,
}

impl<P: FnMut(&ReplayReport) -> ControlFlow<()> + Send> ReplayRun<'_, P> {
    /// Chooses each letter's partition: its own while the topic has it, else its key's. Returns the letters that can be sent,
    /// in order.
    pub(super) async fn place(
        &mut self,
        store: &SharedStore,
        letters: Vec<Held>,
    ) -> Result<Vec<PlacedLetter>, ReplayError> {
        let (mut ready, mut refused) = (Vec::with_capacity(letters.len()), Vec::new());
        for held in letters {
            if self.sorter.is_held_back(&held, held.letter.partition) {
                continue;
            }
            let letter = plan::rerouted(held.letter.clone(), &self.sorter.replay);
            match self.destination(&letter).await? {
                Ok(partition) => {
                    let before = (letter.topic != held.letter.topic).then(|| Box::new(held.letter));
                    ready.push(PlacedLetter { held: Held { letter, ..held }, partition, before });
                }
                Err(error) => {
                    let partition = held.letter.partition;
                    refused.push(self.refused_letter(held, partition, &error));
                }
            }
        }
        self.update_if_claimed(store, refused).await?;
        Ok(ready)
    }

    /// Returns the partition for a letter, or the error of its topic.
    async fn destination(&mut self, letter: &Letter) -> Result<Result<i32, PublishError>, ReplayError> {
        if let Some(error) = self.no_topic.get(&letter.topic) {
            return Ok(Err(error.clone()));
        }
        match self.engine.partition_count(&letter.topic).await {
            Ok(count) => Ok(Ok(plan::target_partition(letter, count, || fastrand::i32(0..count.max(1))))),
            Err(PublishError::Closed) => Err(ReplayError::Closed),
            Err(error) => {
                self.no_topic.insert(letter.topic.clone(), error.clone());
                Ok(Err(error))
            }
        }
    }

    /// Counts a letter whose record was refused, and returns its new state: it stays with the reason.
    fn refused_letter(&mut self, held: Held, partition: Option<i32>, error: &PublishError) -> Held {
        self.sorter.report.failed += 1;
        self.sorter.report.count_reason(error.to_string());
        self.sorter.order.note_staying(&held, partition);
        // An attempt without a topic sent nothing.
        let counts = !matches!(error, PublishError::Topic { .. }) && !error.is_outage();
        let mut letter = plan::after_failed_attempt(&held.letter, Timestamp::now(), error.to_string(), counts);
        classify(&mut letter, error);
        Held { letter, ..held }
    }

    /// Marks letters, sends their records, and removes delivered letters.
    pub(super) async fn send(&mut self, store: &SharedStore, letters: Vec<PlacedLetter>) -> Result<(), ReplayError> {
        let letters = self.without_held_back(letters);
        if letters.is_empty() {
            return Ok(());
        }
        // A letter that only waits for the rate is not marked yet.
        self.wait_for_rate(0).await;
        self.check_claim()?;
        let stamps = self.assign_stamps(&letters).await;
        let marked = self.mark(store, letters, stamps).await?;
        self.check_claim()?;
        let stamped = |marked: &MarkedLetter| Some((marked.placed.held.position, marked.stamp?.producer_id));
        let stamped: Vec<(Position, i64)> = marked.iter().filter_map(stamped).collect();
        let mut waves = Waves::new(marked, |marked| marked.placed.lane());
        let mut results = SendResults { delivered: HashSet::new(), final_states: Vec::new(), ended: Ok(()) };
        while let Some(wave) = waves.next() {
            self.send_wave(wave, &mut results).await;
            if results.ended.is_err() {
                // The other letters keep their marks.
                break;
            }
        }
        let unsettled = stamped.into_iter().filter(|(position, _)| !results.delivered.contains(position));
        self.ids.retire(&unsettled.map(|(_, id)| id).collect());
        self.sorter.report.delivered += results.delivered.len() as u64;
        remove(store, results.delivered.into_iter().collect()).await?;
        self.update_if_claimed(store, results.final_states).await?;
        results.ended
    }

    /// Sends one letter of each lane, and waits for the verdicts.
    async fn send_wave(&mut self, mut wave: Vec<MarkedLetter>, results: &mut SendResults) {
        wave.retain(|MarkedLetter { placed, .. }| {
            let is_held_back = self.sorter.is_held_back(&placed.held, Some(placed.partition));
            results.final_states.extend(is_held_back.then(|| placed.before()));
            !is_held_back
        });
        wave.iter().for_each(|marked| self.sorter.report.count_sent(&marked.mark.topic));
        for group in groups_of(wave, self.group_size(MAX_IN_FLIGHT)) {
            self.wait_for_rate(group.len()).await;
            results.ended = self.check_claim_recently();
            if results.ended.is_err() {
                return;
            }
            let (stamped, batched): (Vec<_>, Vec<_>) = group.into_iter().partition(|marked| marked.stamp.is_some());
            self.send_stamped(stamped, results).await;
            self.send_batched(batched, results).await;
        }
    }

    /// Sends letters in batches of this producer.
    async fn send_batched(&mut self, letters: Vec<MarkedLetter>, results: &mut SendResults) {
        let mut in_flight = Vec::with_capacity(letters.len());
        for MarkedLetter { placed, .. } in letters {
            let partition = placed.partition;
            match self.publish(&placed.held.letter, partition).await {
                Ok(delivery) => in_flight.push((placed.held, partition, delivery)),
                Err(error) => {
                    if matches!(error, PublishError::Closed) {
                        results.ended = Err(ReplayError::Closed);
                    }
                    results.final_states.push(self.refused_letter(placed.before(), Some(partition), &error));
                }
            }
        }
        if in_flight.is_empty() {
            return;
        }
        self.engine.seal_open();
        for (held, partition, delivery) in in_flight {
            match delivery.await {
                Ok(_) => _ = results.delivered.insert(held.position),
                Err(error) => {
                    // The chain of stores has updated the letter already.
                    self.sorter.order.note_staying(&held, Some(partition));
                    self.sorter.report.failed += 1;
                    self.sorter.report.count_reason(error.reason().to_string());
                }
            }
        }
    }

    /// Does the same as [`check_claim`](Self::check_claim), for a check before each group of letters.
    fn check_claim_recently(&mut self) -> Result<(), ReplayError> {
        Ok(self.claim.as_mut().map_or(Ok(()), Claim::check_recently)?)
    }

    async fn publish(&self, letter: &Letter, partition: i32) -> Result<Delivery, PublishError> {
        if self.engine.has_spool() {
            // A later process would deliver the stored record, and the next replay the letter.
            let reason = Reason::NoProducerId("a dead letter needs its own, because the producer has a spool".into());
            return Err(PublishError::Topic { topic: letter.topic.as_str().into(), reason });
        }
        let headers = plan::headers(letter);
        let record = ProducerRecord {
            topic: &letter.topic,
            partition: Some(partition),
            key: letter.key.as_deref(),
            value: letter.value.as_deref(),
            headers: &borrowed_headers(&headers),
            timestamp: None,
        };
        let tag: Tag = Arc::new(letter.clone());
        self.engine.send_tagged(&record, Some(&tag)).await
    }

    /// Returns how many letters may leave as one group: `most`, or the letters of one second if there is a rate.
    pub(super) fn group_size(&self, most: usize) -> usize {
        self.sorter.replay.rate.and_then(|rate| usize::try_from(rate.get()).ok()).map_or(most, |rate| rate.min(most))
    }

    /// Waits until this number of letters may leave.
    pub(super) async fn wait_for_rate(&mut self, letters: usize) {
        let Some(rate) = self.sorter.replay.rate else { return };
        let letters = u32::try_from(letters).unwrap_or(u32::MAX);
        let now = Instant::now();
        let at = self.next_at.map_or(now, |at| at.max(now));
        tokio::time::sleep_until(at.into()).await;
        self.next_at = Some(at + Duration::from_secs(1) * letters / rate.get());
    }
}

/// Splits the items into groups of at most `at_most`, in order.
pub(super) fn groups_of<T>(items: Vec<T>, at_most: usize) -> Vec<Vec<T>> {
    let mut groups = Vec::new();
    for item in items {
        match groups.last_mut() {
            Some(group) if Vec::len(group) < at_most => group.push(item),
            _ => groups.push(vec![item]),
        }
    }
    groups
}
