//! Marks letters in the store before their records leave: a later check needs the mark to find the records.
//!
//! Rules:
//! - A letter that is not in the store any more does not leave.
//! - Data that is unavailable within its timeout is left out of the mark. The mark then proves less.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kafka_courier_batcher::Stamp;
use kafka_courier_dlq::{Held, Letter, LetterId, Timestamp, Uuid};

use super::placed::PlacedLetter;
use super::run::ReplayRun;
use super::store_io::{SharedStore, blocking};
use super::{ReplayError, plan};

/// Timeout for a producer id. Letters are marked without one afterwards.
pub(super) const PRODUCER_ID_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout for the ends of the logs, and for the ids of the topics.
const LOG_END_TIMEOUT: Duration = Duration::from_secs(5);

/// A letter, and its mark: the letter as stored while its record is in progress.
pub(super) struct MarkedLetter {
    pub(super) placed: PlacedLetter,
    pub(super) mark: Letter,
    /// The stamp of a letter in its own batch. `None` for a letter in a batch of the producer.
    pub(super) stamp: Option<Stamp>,
}

impl<P> ReplayRun<'_, P> {
    /// Marks letters durably, and returns the letters that are still in the store.
    pub(super) async fn mark(
        &mut self,
        store: &SharedStore,
        letters: Vec<PlacedLetter>,
        stamps: Vec<Option<Stamp>>,
    ) -> Result<Vec<MarkedLetter>, ReplayError> {
        let producer_id =
            if stamps.iter().any(Option::is_none) { self.engine.producer_id(PRODUCER_ID_TIMEOUT).await } else { None };
        let ends = self.log_ends(&letters).await;
        let ids = self.topic_ids(&letters).await;
        let now = Timestamp::now();
        let mark = |(PlacedLetter { held, partition, .. }, stamp): (&PlacedLetter, &Option<Stamp>)| {
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
        let mut marked: Vec<MarkedLetter> =
            all.map(|((placed, mark), stamp)| MarkedLetter { placed, mark, stamp }).collect();
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
        // Another process removed letters: they were purged, or found in the log.
        if let Some(found) = found.await? {
            let mut found = found.into_iter();
            marked.retain(|_| found.next().flatten().is_some());
        }
        Ok(marked)
    }

    /// Returns the partitions' high watermarks. Records that are sent from now on have no lower offset. A later check
    /// reads from the log's start if the watermark is missing, for instance because the right to describe is missing.
    async fn log_ends<'l>(&self, letters: &'l [PlacedLetter]) -> BTreeMap<(&'l str, i32), i64> {
        let mut ends = BTreeMap::new();
        let deadline = Instant::now() + LOG_END_TIMEOUT;
        for PlacedLetter { held, partition, .. } in letters {
            let key = (held.letter.topic.as_str(), *partition);
            if !ends.contains_key(&key)
                && let Ok(offsets) = self.log.offsets(key.0, key.1, deadline).await
            {
                ends.insert(key, offsets.high_watermark);
            }
        }
        ends
    }

    /// Returns the present ids of the topics.
    async fn topic_ids<'l>(&self, letters: &'l [PlacedLetter]) -> BTreeMap<&'l str, Uuid> {
        let mut ids = BTreeMap::new();
        let deadline = Instant::now() + LOG_END_TIMEOUT;
        for PlacedLetter { held, .. } in letters {
            let topic = held.letter.topic.as_str();
            if !ids.contains_key(topic)
                && let Ok(info) = self.log.topic(topic, deadline).await
                && let Some(uuid) = info.uuid
            {
                ids.insert(topic, Uuid::from_bytes(uuid));
            }
        }
        ids
    }
}
