//! Says in the store, before letters leave, what a later check has to know of them.
//!
//! Rules: a letter that is not there any more does not leave; what can't be had in time is left out of the mark, which
//! then proves less.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kafka_courier_batcher::Stamp;
use kafka_courier_dlq::{Held, LetterId, Timestamp, Uuid};
use kafka_courier_idempotent_sender::driver::Command;

use super::run::{Placed, Run, Store, blocking};
use super::{ReplayError, plan};
use crate::producer::KafkaProducer;
use crate::sync::Ordering;

/// How long a producer id is waited for before letters are marked without one.
pub(super) const IDENTITY: Duration = Duration::from_secs(5);
/// How long the end of a log is asked for.
const LOG_END: Duration = Duration::from_secs(5);

/// How letters go.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goes {
    /// In batches of this producer, with others.
    WithOthers,
    /// Each in a batch of its own, under this stamp.
    Alone(Stamp),
}

impl<P> Run<'_, P> {
    /// Marks letters durably; returns those that are still there.
    pub(super) async fn mark(
        &mut self,
        store: &Store,
        mut letters: Vec<Placed>,
        goes: Goes,
    ) -> Result<Vec<Placed>, ReplayError> {
        let producer_id = match goes {
            Goes::WithOthers => self.producer.identity(IDENTITY).await,
            Goes::Alone(stamp) => Some(stamp.producer_id),
        };
        let ends = self.log_ends(&letters).await;
        let ids = self.topic_ids(&letters).await;
        let now = Timestamp::now();
        let marked = letters.iter().map(|Placed { held, partition }| {
            let topic = held.letter.topic.as_str();
            let attempt = plan::Attempt {
                now,
                partition: *partition,
                topic_id: ids.get(topic).copied(),
                producer_id,
                log_end: ends.get(&(topic, *partition)).copied(),
            };
            let letter = match goes {
                Goes::WithOthers => plan::in_hand(&held.letter, &attempt),
                Goes::Alone(stamp) => plan::in_hand_alone(&held.letter, &attempt, stamp),
            };
            Held::new(held.position, letter)
        });
        let (marked, marking) = (marked.collect::<Vec<_>>(), store.clone());
        let ids: Vec<LetterId> = letters.iter().map(|placed| placed.held.letter.id).collect();
        let found = blocking(move || {
            let there = marking.update(&marked)?;
            if there == marked.len() { Ok(None) } else { marking.find(&ids).map(Some) }
        });
        // Somebody else removed letters meanwhile: they were purged, or turned out to be in the log.
        if let Some(found) = found.await? {
            let mut found = found.into_iter();
            letters.retain(|_| found.next().flatten().is_some());
        }
        Ok(letters)
    }

    /// Where the partitions' logs end now: what is sent from now on is not before that. Where that can't be had (it
    /// takes the right to describe), a later check reads from the log's start.
    async fn log_ends<'l>(&self, letters: &'l [Placed]) -> BTreeMap<(&'l str, i32), i64> {
        let mut ends = BTreeMap::new();
        let deadline = Instant::now() + LOG_END;
        for Placed { held, partition } in letters {
            let place = (held.letter.topic.as_str(), *partition);
            if !ends.contains_key(&place)
                && let Ok(offsets) = self.log.offsets(place.0, place.1, deadline).await
            {
                ends.insert(place, offsets.high_watermark);
            }
        }
        ends
    }

    /// The ids of the topics as they are now.
    async fn topic_ids<'l>(&self, letters: &'l [Placed]) -> BTreeMap<&'l str, Uuid> {
        let mut ids = BTreeMap::new();
        let deadline = Instant::now() + LOG_END;
        for Placed { held, .. } in letters {
            let topic = held.letter.topic.as_str();
            if !ids.contains_key(topic)
                && let Ok(info) = self.log.topic(topic, deadline).await
                && info.uuid != [0; 16]
            {
                ids.insert(topic, Uuid::from_bytes(info.uuid));
            }
        }
        ids
    }
}

impl KafkaProducer {
    /// All producer ids that this producer had in its life.
    pub(super) fn identities(&self) -> Vec<i64> {
        self.inner.intake.shared.producer_ids.lock().clone()
    }

    /// The producer id that new batches are stamped with, if it comes in time.
    async fn identity(&self, patience: Duration) -> Option<i64> {
        let deadline = Instant::now() + patience;
        let mut pause = Duration::from_millis(1);
        loop {
            let id = self.inner.intake.shared.producer_id.load(Ordering::Relaxed);
            if id >= 0 {
                return Some(id);
            }
            if Instant::now() >= deadline {
                return None;
            }
            self.inner.intake.tell(Command::WantProducerId);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }
}
