//! Sends letters: the shell around `order` and `stamps`.
//!
//! Rules:
//! - Of each lane one letter is under way at a time: one that fails is followed by none of its lane.
//! - A topic that could not be had once is not waited for again: the letters behind it must not find it there.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier_dlq::{Held, Letter, Position, Timestamp};
use kafka_courier_idempotent_sender::driver::Command;

use super::claim::Claim;
use super::mark::Marked;
use super::order::Waves;
use super::plan;
use super::run::{Placed, Run, Store, remove};
use super::stamped::AT_ONCE;
use super::{ReplayError, ReplayReport};
use crate::dead_letters::refused::classify;
use crate::delivery::Delivery;
use crate::error::PublishError;
use crate::record::{ProducerRecord, borrowed};

/// What became of letters that were sent.
pub(super) struct Went {
    pub(super) delivered: HashSet<Position>,
    /// Those of which more is known than their marks say.
    pub(super) back: Vec<Held>,
    /// Whether the replay can go on.
    ended: Result<(), ReplayError>,
}

impl<P: FnMut(&ReplayReport) -> ControlFlow<()> + Send> Run<'_, P> {
    /// Settles which partition each letter goes to: its own, while there is such, else its key's. What is ready to be
    /// sent comes back, in order.
    pub(super) async fn place(&mut self, store: &Store, letters: Vec<Held>) -> Result<Vec<Placed>, ReplayError> {
        let (mut ready, mut refused) = (Vec::with_capacity(letters.len()), Vec::new());
        for held in letters {
            if self.desk.is_held_back(&held, held.letter.partition) {
                continue;
            }
            let letter = plan::rerouted(held.letter.clone(), &self.desk.replay);
            match self.destination(&letter).await? {
                Ok(partition) => {
                    let before = (letter.topic != held.letter.topic).then(|| Box::new(held.letter));
                    ready.push(Placed { held: Held { letter, ..held }, partition, before });
                }
                Err(error) => {
                    let partition = held.letter.partition;
                    refused.push(self.was_refused(held, partition, &error));
                }
            }
        }
        self.put_back(store, refused).await?;
        Ok(ready)
    }

    /// The partition that a letter goes to.
    async fn destination(&mut self, letter: &Letter) -> Result<Result<i32, PublishError>, ReplayError> {
        if let Some(error) = self.no_topic.get(&letter.topic) {
            return Ok(Err(error.clone()));
        }
        match self.producer.partition_count(&letter.topic).await {
            Ok(count) => Ok(Ok(plan::target_partition(letter, count, || fastrand::i32(0..count.max(1))))),
            Err(PublishError::Closed) => Err(ReplayError::Closed),
            Err(error) => {
                self.no_topic.insert(letter.topic.clone(), error.clone());
                Ok(Err(error))
            }
        }
    }

    /// A letter whose record was not accepted: it stays, with the reason.
    fn was_refused(&mut self, held: Held, partition: Option<i32>, error: &PublishError) -> Held {
        self.desk.report.failed += 1;
        self.desk.report.reason(error.to_string());
        self.desk.order.stays(&held, partition);
        // Nothing was sent where its topic could not be had.
        let counts = !matches!(error, PublishError::Topic { .. }) && !error.is_outage();
        let mut letter = plan::after_failed_attempt(&held.letter, Timestamp::now(), error.to_string(), counts);
        classify(&mut letter, error);
        Held { letter, ..held }
    }

    /// Marks letters, sends their records, and removes those that were delivered.
    pub(super) async fn send(&mut self, store: &Store, letters: Vec<Placed>) -> Result<(), ReplayError> {
        let letters = self.without_held_back(letters);
        if letters.is_empty() {
            return Ok(());
        }
        // A letter is not said to be under way while it only waits for its turn.
        self.keep_to_the_rate(0).await;
        self.still_claimed()?;
        let stamps = self.stamps(&letters).await;
        let marked = self.mark(store, letters, stamps).await?;
        self.still_claimed()?;
        let under = |marked: &Marked| Some((marked.placed.held.position, marked.stamp?.producer_id));
        let under: Vec<(Position, i64)> = marked.iter().filter_map(under).collect();
        let mut waves = Waves::new(marked, |marked| marked.placed.lane());
        let mut went = Went { delivered: HashSet::new(), back: Vec::new(), ended: Ok(()) };
        while let Some(wave) = waves.next() {
            self.wave(wave, &mut went).await;
            if went.ended.is_err() {
                // The rest stays, as it is marked.
                break;
            }
        }
        let unsettled = under.into_iter().filter(|(position, _)| !went.delivered.contains(position));
        self.ids.retire(&unsettled.map(|(_, id)| id).collect());
        self.desk.report.delivered += went.delivered.len() as u64;
        remove(store, went.delivered.into_iter().collect()).await?;
        self.put_back(store, went.back).await?;
        went.ended
    }

    /// Sends one letter of each lane, and waits for their verdicts.
    async fn wave(&mut self, mut wave: Vec<Marked>, went: &mut Went) {
        wave.retain(|Marked { placed, .. }| {
            let is_held_back = self.desk.is_held_back(&placed.held, Some(placed.partition));
            went.back.extend(is_held_back.then(|| placed.before()));
            !is_held_back
        });
        wave.iter().for_each(|marked| self.desk.report.count_sent(&marked.mark.topic));
        for some in in_groups(wave, self.together(AT_ONCE)) {
            self.keep_to_the_rate(some.len()).await;
            went.ended = self.claimed_lately();
            if went.ended.is_err() {
                return;
            }
            let (alone, others): (Vec<_>, Vec<_>) = some.into_iter().partition(|marked| marked.stamp.is_some());
            self.send_alone(alone, went).await;
            self.send_with_others(others, went).await;
        }
    }

    /// Sends letters in batches of this producer.
    async fn send_with_others(&mut self, letters: Vec<Marked>, went: &mut Went) {
        let mut under_way = Vec::with_capacity(letters.len());
        for Marked { placed, .. } in letters {
            let partition = placed.partition;
            match self.publish(&placed.held.letter, partition).await {
                Ok(delivery) => under_way.push((placed.held, partition, delivery)),
                Err(error) => {
                    if matches!(error, PublishError::Closed) {
                        went.ended = Err(ReplayError::Closed);
                    }
                    went.back.push(self.was_refused(placed.before(), Some(partition), &error));
                }
            }
        }
        if under_way.is_empty() {
            return;
        }
        self.producer.inner.intake.tell(Command::SealOpen);
        for (held, partition, delivery) in under_way {
            match delivery.await {
                Ok(_) => _ = went.delivered.insert(held.position),
                Err(error) => {
                    // Its letter says so already, in its place.
                    self.desk.order.stays(&held, Some(partition));
                    self.desk.report.failed += 1;
                    self.desk.report.reason(error.reason().to_string());
                }
            }
        }
    }

    /// As [`still_claimed`](Self::still_claimed), before each of many letters.
    fn claimed_lately(&mut self) -> Result<(), ReplayError> {
        Ok(self.claim.as_mut().map_or(Ok(()), Claim::holds_lately)?)
    }

    async fn publish(&self, letter: &Letter, partition: i32) -> Result<Delivery, PublishError> {
        let headers = plan::headers(letter);
        let record = ProducerRecord {
            topic: &letter.topic,
            partition: Some(partition),
            key: letter.key.as_deref(),
            value: letter.value.as_deref(),
            headers: &borrowed(&headers),
            timestamp: None,
        };
        self.producer.send_as(&record, Some(&Arc::new(letter.clone()))).await
    }

    /// How many may leave together: not more than may leave in a second.
    pub(super) fn together(&self, most: usize) -> usize {
        self.desk.replay.rate.and_then(|rate| usize::try_from(rate.get()).ok()).map_or(most, |rate| rate.min(most))
    }

    /// Waits until so many letters more may leave.
    pub(super) async fn keep_to_the_rate(&mut self, letters: usize) {
        let Some(rate) = self.desk.replay.rate else { return };
        let letters = u32::try_from(letters).unwrap_or(u32::MAX);
        let now = Instant::now();
        let at = self.next_at.map_or(now, |at| at.max(now));
        tokio::time::sleep_until(at.into()).await;
        self.next_at = Some(at + Duration::from_secs(1) * letters / rate.get());
    }
}

/// The items in groups of at most so many, in order.
pub(super) fn in_groups<T>(items: Vec<T>, at_most: usize) -> Vec<Vec<T>> {
    let mut groups = Vec::new();
    for item in items {
        match groups.last_mut() {
            Some(group) if Vec::len(group) < at_most => group.push(item),
            _ => groups.push(vec![item]),
        }
    }
    groups
}
