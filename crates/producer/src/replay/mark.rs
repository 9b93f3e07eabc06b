//! Says in the store, before letters leave, what a later check has to know of them.
//!
//! Rules: a letter that is not there any more does not leave; what can't be had in time is left out of the mark, which
//! then proves less.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kafka_courier_batcher::Stamp;
use kafka_courier_dlq::{Held, Letter, LetterId, Timestamp, Uuid};
use kafka_courier_idempotent_sender::driver::Command;

use super::run::{Placed, Run, Store, blocking};
use super::{ReplayError, plan};
use crate::producer::KafkaProducer;
use crate::sync::Ordering;

/// How long a producer id is waited for before letters are marked without one.
pub(super) const IDENTITY: Duration = Duration::from_secs(5);
/// How long the end of a log is asked for.
const LOG_END: Duration = Duration::from_secs(5);

/// A letter as it was, and as it stands in its store while its record is under way.
pub(super) struct Marked {
    pub(super) placed: Placed,
    pub(super) mark: Letter,
    /// Where it goes in a batch of its own.
    pub(super) stamp: Option<Stamp>,
}

impl<P> Run<'_, P> {
    /// Marks letters durably; returns those that are still there. Those without a stamp go in batches of this producer.
    pub(super) async fn mark(
        &mut self,
        store: &Store,
        letters: Vec<Placed>,
        stamps: Vec<Option<Stamp>>,
    ) -> Result<Vec<Marked>, ReplayError> {
        let producer_id =
            if stamps.iter().any(Option::is_none) { self.producer.identity(IDENTITY).await } else { None };
        let ends = self.log_ends(&letters).await;
        let ids = self.topic_ids(&letters).await;
        let now = Timestamp::now();
        let mark = |(Placed { held, partition, .. }, stamp): (&Placed, &Option<Stamp>)| {
            let topic = held.letter.topic.as_str();
            let attempt = plan::ReplayAttempt {
                now,
                partition: *partition,
                topic_id: ids.get(topic).copied(),
                producer_id,
                log_end: ends.get(&(topic, *partition)).copied(),
            };
            match stamp {
                None => plan::in_progress(&held.letter, &attempt),
                Some(stamp) => plan::in_progress_stamped(&held.letter, &attempt, *stamp),
            }
        };
        let marks: Vec<Letter> = letters.iter().zip(&stamps).map(mark).collect();
        let all = letters.into_iter().zip(marks).zip(stamps);
        let mut marked: Vec<Marked> = all.map(|((placed, mark), stamp)| Marked { placed, mark, stamp }).collect();
        let in_hand: Vec<Held> =
            marked.iter().map(|marked| Held::new(marked.placed.held.position, marked.mark.clone())).collect();
        let marking = store.clone();
        let found = blocking(move || {
            if marking.update(&in_hand)? == in_hand.len() {
                return Ok(None);
            }
            let ids: Vec<LetterId> = in_hand.iter().map(|held| held.letter.id).collect();
            marking.find(&ids).map(Some)
        });
        // Somebody else removed letters meanwhile: they were purged, or turned out to be in the log.
        if let Some(found) = found.await? {
            let mut found = found.into_iter();
            marked.retain(|_| found.next().flatten().is_some());
        }
        Ok(marked)
    }

    /// Where the partitions' logs end now: what is sent from now on is not before that. Where that can't be had (it
    /// takes the right to describe), a later check reads from the log's start.
    async fn log_ends<'l>(&self, letters: &'l [Placed]) -> BTreeMap<(&'l str, i32), i64> {
        let mut ends = BTreeMap::new();
        let deadline = Instant::now() + LOG_END;
        for Placed { held, partition, .. } in letters {
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
