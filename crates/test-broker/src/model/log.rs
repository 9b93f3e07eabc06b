//! The log of one partition: a sequence of record batches.
//!
//! Rules:
//! - Offsets have no gaps. Retention removes batches at the start only.
//! - The log stores a batch as the bytes that readers receive.
//! - The memory charged for a batch includes its bookkeeping.

use std::collections::VecDeque;

use bytes::Bytes;
use kafka_courier_batcher::BatchView;

use super::CheckedBatch;

/// Bytes charged for the bookkeeping of one batch.
const OVERHEAD: usize = 128;
/// The position of the attributes' low byte in a batch, and the bit in that byte for LogAppendTime.
const ATTRIBUTES: usize = 22;
const LOG_APPEND_TIME: u8 = 1 << 3;

/// A batch in the log.
#[derive(Clone, Debug)]
pub(crate) struct StoredBatch {
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
    pub(crate) max_timestamp: i64,
    pub(crate) bytes: Bytes,
}

impl StoredBatch {
    fn charged(&self) -> usize {
        self.bytes.len() + OVERHEAD
    }

    /// Decodes the batch.
    pub(crate) fn view(&self) -> Option<BatchView<'_>> {
        BatchView::parse(&self.bytes).ok().map(|(view, _)| view)
    }
}

/// The log of a partition.
#[derive(Debug, Default)]
pub(crate) struct PartitionLog {
    batches: VecDeque<StoredBatch>,
    start_offset: i64,
    end_offset: i64,
    charged: usize,
}

impl PartitionLog {
    /// Returns the offset of the first record in the log.
    pub(crate) fn start_offset(&self) -> i64 {
        self.start_offset
    }

    /// Returns the offset of the next record.
    pub(crate) fn end_offset(&self) -> i64 {
        self.end_offset
    }

    /// Returns the bytes charged for the log.
    pub(crate) fn charged(&self) -> usize {
        self.charged
    }

    pub(crate) fn batches(&self) -> impl Iterator<Item = &StoredBatch> {
        self.batches.iter()
    }

    /// Returns the bytes that the append of a batch will charge.
    pub(crate) fn charge_of(batch: &CheckedBatch) -> usize {
        batch.bytes.len() + OVERHEAD
    }

    /// Appends a batch and returns the offset of its first record. `append_time` replaces the records' timestamps.
    pub(crate) fn append(&mut self, batch: &CheckedBatch, leader_epoch: i32, append_time: Option<i64>) -> i64 {
        let base_offset = self.end_offset;
        let stored = StoredBatch {
            base_offset,
            last_offset: base_offset + i64::from(batch.records) - 1,
            max_timestamp: append_time.unwrap_or(batch.max_timestamp),
            bytes: assigned(&batch.bytes, base_offset, leader_epoch, append_time),
        };
        self.end_offset = stored.last_offset + 1;
        self.charged += stored.charged();
        self.batches.push_back(stored);
        base_offset
    }

    /// Removes the oldest batches until at most `bytes` are charged. The last batch stays.
    pub(crate) fn retain(&mut self, bytes: usize) {
        while self.charged > bytes && self.batches.len() > 1 {
            let Some(dropped) = self.batches.pop_front() else { break };
            self.charged -= dropped.charged();
            self.start_offset = dropped.last_offset + 1;
        }
    }

    /// Removes the oldest batches whose timestamps all precede `since`. The last batch stays.
    pub(crate) fn expire(&mut self, since: i64) {
        while self.batches.len() > 1 && self.batches.front().is_some_and(|oldest| oldest.max_timestamp < since) {
            let Some(dropped) = self.batches.pop_front() else { break };
            self.charged -= dropped.charged();
            self.start_offset = dropped.last_offset + 1;
        }
    }

    /// Returns whole batches before `end`, starting with the batch that contains `offset`. The first batch is returned
    /// whatever its size. More batches follow up to `max` bytes in total. `None` means that the offset is out of range.
    pub(crate) fn read(&self, offset: i64, end: i64, max: usize) -> Option<Vec<Bytes>> {
        if offset < self.start_offset || offset > self.end_offset {
            return None;
        }
        let first = self.batches.partition_point(|batch| batch.last_offset < offset);
        let mut left = max;
        let mut found = Vec::new();
        for batch in self.batches.range(first..).take_while(|batch| batch.last_offset < end) {
            if !found.is_empty() && batch.bytes.len() > left {
                break;
            }
            left = left.saturating_sub(batch.bytes.len());
            found.push(batch.bytes.clone());
        }
        Some(found)
    }

    /// Returns the newest leader epoch of a batch that is at most `epoch`, if there is one, and the offset of the first
    /// batch of a newer epoch, or the end of the log.
    pub(crate) fn end_of_epoch(&self, epoch: i32) -> (Option<i32>, i64) {
        let epoch_of = |batch: &StoredBatch| batch.view().map_or(0, |view| view.partition_leader_epoch);
        let newer = self.batches.partition_point(|batch| epoch_of(batch) <= epoch);
        let last = newer.checked_sub(1).and_then(|last| self.batches.get(last));
        (last.map(epoch_of), self.batches.get(newer).map_or(self.end_offset, |batch| batch.base_offset))
    }

    /// Returns offset and timestamp of the first record at or after a timestamp.
    pub(crate) fn find_time(&self, timestamp: i64, max_uncompressed: usize) -> Option<(i64, i64)> {
        let batch = self.batches.iter().find(|batch| batch.max_timestamp >= timestamp)?;
        let records = batch.view()?.records(max_uncompressed).ok()?;
        let found = records.iter().filter_map(Result::ok).find(|record| record.timestamp >= timestamp)?;
        Some((batch.base_offset + i64::from(found.offset_delta), found.timestamp))
    }

    /// Returns offset and timestamp of the first record with the latest timestamp.
    pub(crate) fn find_latest_time(&self, max_uncompressed: usize) -> Option<(i64, i64)> {
        let latest = self.batches.iter().map(|batch| batch.max_timestamp).max()?;
        self.find_time(latest, max_uncompressed)
    }
}

/// Returns a batch's bytes with the fields that the leader assigns.
fn assigned(batch: &[u8], base_offset: i64, leader_epoch: i32, append_time: Option<i64>) -> Bytes {
    let mut bytes = batch.to_vec();
    put(&mut bytes, 0, &base_offset.to_be_bytes());
    put(&mut bytes, 12, &leader_epoch.to_be_bytes());
    if let Some(time) = append_time {
        put(&mut bytes, 35, &time.to_be_bytes());
        if let Some(attributes) = bytes.get_mut(ATTRIBUTES) {
            *attributes |= LOG_APPEND_TIME;
        }
        let crc = crc32c::crc32c(bytes.get(21..).unwrap_or_default());
        put(&mut bytes, 17, &crc.to_be_bytes());
    }
    bytes.into()
}

fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    if let Some(room) = bytes.get_mut(at..at + field.len()) {
        room.copy_from_slice(field);
    }
}
