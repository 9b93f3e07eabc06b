//! [`StoredRun`]: batches of a partition, one after the other, whose bytes the disk alone has.
//!
//! Rules:
//!  - A run has the same size in memory for any number of batches. The journal knows the place of each batch.
//!  - The batches of a run were published within [`RUN_SPAN`], so that one time stands for all of them.
//!  - A ticket of the producer's ledger stands for the batches of a run that have no token. It is not newer than any of them.

use std::time::{Duration, Instant};

use kafka_courier_spool::core::entry::{Ordinal, Partition};

use super::command::{StoredPlace, Ticket};

/// The most batches of a run. A flush waits for the whole run of a batch.
const RUN_BATCHES: u64 = 1024;
/// The longest time between the publishing of a run's first and last batch. Ages are compared with hours.
const RUN_SPAN: Duration = Duration::from_secs(600);

/// When the batches of a run of this process were published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Published {
    pub(crate) first: Instant,
    pub(crate) last: Instant,
    /// Whether the application gave the records old timestamps.
    pub(crate) is_aged: bool,
}

/// Batches of a partition whose bytes the disk alone has.
#[derive(Clone, Debug)]
pub(crate) struct StoredRun {
    pub(crate) partition: Partition,
    /// The next batch begins here, or behind.
    pub(crate) next: Ordinal,
    /// The batches for the sender, of which a batch of the journal may give several.
    pub(crate) batches: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// The timestamp of the first batch, or of one before it.
    pub(crate) oldest_ms: Option<i64>,
    /// `None` if an earlier process stored the batches.
    pub(crate) published: Option<Published>,
    pub(crate) ticket: Option<Ticket>,
}

/// A batch that joins a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JoiningBatch {
    pub(crate) place: StoredPlace,
    pub(crate) records: u32,
    pub(crate) bytes: u64,
    pub(crate) timestamp_ms: i64,
    pub(crate) published_at: Instant,
    pub(crate) is_aged: bool,
}

impl StoredRun {
    /// Returns a run of one batch of this process.
    pub(crate) fn of(batch: &JoiningBatch) -> Self {
        let JoiningBatch { place, timestamp_ms, published_at: first, is_aged, .. } = *batch;
        Self {
            partition: place.partition,
            next: place.first,
            batches: 1,
            records: batch.records.into(),
            bytes: batch.bytes,
            oldest_ms: Some(timestamp_ms),
            published: Some(Published { first, last: first, is_aged }),
            ticket: None,
        }
    }

    /// Adds the next batch of the partition. Returns whether it belongs to this run.
    pub(crate) fn join(&mut self, batch: &JoiningBatch) -> bool {
        let Some(published) = &mut self.published else { return false };
        let is_near = batch.published_at.saturating_duration_since(published.first) <= RUN_SPAN;
        let is_alike = published.is_aged == batch.is_aged && self.partition == batch.place.partition;
        if !is_near || !is_alike || self.batches >= RUN_BATCHES {
            return false;
        }
        published.last = published.last.max(batch.published_at);
        self.batches += 1;
        self.records += u64::from(batch.records);
        self.bytes += batch.bytes;
        true
    }

    /// Removes the batches of the journal's next batch, which ends at `end`.
    pub(crate) fn remove(&mut self, end: Ordinal, batches: u64, records: u64, bytes: u64) {
        self.next = end;
        self.batches = self.batches.saturating_sub(batches);
        self.records = self.records.saturating_sub(records);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}
