//! Letters that go alone: each in a batch of its own, under a stamp that no other record ever has.
//!
//! Rules:
//! - The stamp is in the letter's mark before the batch leaves. Whoever comes after a crash may send the letter again under
//!   the same stamp, at once and whether or not the first copy is under way: a leader takes one of them, whichever comes
//!   first, and acknowledges the other as that one. No fence is needed, and no life of a producer's is ended.
//! - A producer id serves one letter of a partition, and not a second time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use kafka_courier_batcher::{EncodedBatch, Stamp};
use kafka_courier_dlq::{Held, Letter, Outcome, Timestamp};
use kafka_courier_idempotent_sender::driver::{LogClient, LogError, LogErrorKind};
use tokio::task::JoinSet;

use super::mark::{Goes, IDENTITY};
use super::run::{Placed, Run, Store, remove, update};
use super::{ReplayError, plan};
use crate::shared::wall_clock_ms;

/// Letters under way at a time.
const AT_ONCE: usize = 64;

/// A letter's batch, ready to leave.
struct Ready {
    held: Held,
    partition: i32,
    batch: EncodedBatch,
}

type Went = (Held, Result<i64, LogError>);

impl<P: FnMut(&super::ReplayReport) -> std::ops::ControlFlow<()> + Send> Run<'_, P> {
    /// Sends letters alone; those that can't go so, with others.
    pub(super) async fn send_alone(&mut self, store: &Store, letters: Vec<Placed>) -> Result<(), ReplayError> {
        let Ok(producer_id) = self.log.producer_id(Instant::now() + IDENTITY).await else {
            return self.send(store, letters).await;
        };
        let stamp = Stamp { producer_id, epoch: 0, base_sequence: 0 };
        let mut places = HashSet::new();
        // Two doubts of one letter can't be settled by one stamp.
        let (alone, others): (Vec<_>, Vec<_>) = letters.into_iter().partition(|placed| {
            placed.held.letter.outcome == Outcome::NotWritten
                && places.insert((placed.held.letter.topic.clone(), placed.partition))
        });
        for some in in_groups(alone, self.together(AT_ONCE)) {
            self.keep_to_the_rate(some.len()).await;
            self.still_claimed()?;
            let marked = self.mark(store, some, Goes::Alone(stamp)).await?;
            self.still_claimed()?;
            let (ready, unfit) = batches(marked, stamp);
            let went = self.append(ready).await;
            self.settle(store, went, unfit).await?;
        }
        if others.is_empty() { Ok(()) } else { self.send(store, others).await }
    }

    /// What became of letters that went alone.
    async fn settle(&mut self, store: &Store, went: Vec<Went>, mut changed: Vec<Held>) -> Result<(), ReplayError> {
        self.report.failed += changed.len() as u64;
        changed.iter().for_each(|held| self.report.reason(held.letter.failure_reason.clone()));
        let mut delivered = Vec::new();
        for (held, result) in went {
            let Err(error) = result else {
                delivered.push(held.position);
                continue;
            };
            self.report.failed += 1;
            self.report.reason(error.to_string());
            // Of one that may be in the log its mark says all.
            if !error.is_open() {
                changed.push(Held::new(held.position, failed(&held.letter, &error)));
            }
        }
        self.report.delivered += delivered.len() as u64;
        remove(store, delivered).await?;
        self.put_back(store, changed).await
    }

    /// Sends letters that went alone before once more, under their stamps.
    pub(super) async fn repeat(&mut self, store: &Store, letters: Vec<Held>) -> Result<(), ReplayError> {
        for some in in_groups(letters, self.together(AT_ONCE)) {
            self.keep_to_the_rate(some.len()).await;
            self.still_claimed()?;
            let ready = some.into_iter().filter_map(|held| {
                let stamp = plan::stamp_to_repeat(&held.letter, wall_clock_ms())?;
                let mut batch = plan::single(&held.letter).ok()?;
                batch.stamp(stamp);
                Some(Ready { partition: held.letter.partition?, held, batch })
            });
            let ready = ready.collect();
            let (mut delivered, mut stay) = (Vec::new(), Vec::new());
            for (held, result) in self.append(ready).await {
                match result {
                    Ok(_) => delivered.push(held.position),
                    Err(error) => {
                        self.report.failed += 1;
                        self.report.reason(error.to_string());
                        // What is refused now says nothing of the copy that went before.
                        stay.push(Held { letter: plan::still_alone(&held.letter), ..held });
                    }
                }
            }
            self.report.delivered += delivered.len() as u64;
            remove(store, delivered).await?;
            update(store, stay).await?;
        }
        Ok(())
    }

    /// Appends all of them, each to its own partition.
    async fn append(&self, ready: Vec<Ready>) -> Vec<Went> {
        let deadline = Instant::now() + self.producer.inner.reach.core.delivery_timeout;
        let mut under_way = JoinSet::new();
        for Ready { held, partition, batch } in ready {
            under_way.spawn(append(self.log.clone(), held, partition, batch, deadline));
        }
        under_way.join_all().await
    }
}

async fn append(log: Arc<LogClient>, held: Held, partition: i32, batch: EncodedBatch, deadline: Instant) -> Went {
    let result = log.append(&held.letter.topic, partition, Arc::new(batch), deadline).await;
    (held, result)
}

/// The batches of letters, and the letters that no batch can hold, put back.
fn batches(letters: Vec<Placed>, stamp: Stamp) -> (Vec<Ready>, Vec<Held>) {
    let (mut ready, mut unfit) = (Vec::new(), Vec::new());
    for Placed { held, partition } in letters {
        match plan::single(&held.letter) {
            Ok(mut batch) => {
                batch.stamp(stamp);
                ready.push(Ready { held, partition, batch });
            }
            Err(error) => {
                let letter = plan::put_back(&held.letter, Timestamp::now(), error.to_string());
                unfit.push(Held { letter, ..held });
            }
        }
    }
    (ready, unfit)
}

/// A letter of which it is certain that it was not written this time either.
fn failed(letter: &Letter, error: &LogError) -> Letter {
    let mut failed = plan::put_back(letter, Timestamp::now(), error.to_string());
    failed.error_code = error.code().map(|code| code.name().to_owned());
    failed.retriable = match error.kind() {
        LogErrorKind::Refused(code) => code.is_retriable(),
        _ => true,
    };
    plan::certain(failed)
}

/// The items in groups of at most so many, in order.
fn in_groups<T>(items: Vec<T>, at_most: usize) -> Vec<Vec<T>> {
    let mut groups = Vec::new();
    for item in items {
        match groups.last_mut() {
            Some(group) if Vec::len(group) < at_most => group.push(item),
            _ => groups.push(vec![item]),
        }
    }
    groups
}
