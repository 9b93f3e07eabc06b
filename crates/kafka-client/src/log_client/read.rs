//! The question and the answer of a read.
//!
//! Rule: plain data.

use std::time::Duration;

/// The readable range of a partition's log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offsets {
    /// The first offset that is still in the log.
    pub log_start: i64,
    /// The offset after the last record that is on every in-sync replica. Consumers read up to here.
    pub high_watermark: i64,
}

/// The result of one Fetch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchedBatches {
    /// The offset after the last record that is on every in-sync replica.
    pub high_watermark: i64,
    /// The first offset that is still in the log.
    pub log_start: i64,
    /// Record batches in the log's format, for [`BatchView`](kafka_courier_batcher::BatchView). The first batch may
    /// begin before the requested offset, the last may be cut off. Empty: no record arrived within `max_wait`.
    pub bytes: Vec<u8>,
}

/// The position and size of a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadFrom {
    /// The first wanted offset.
    pub offset: i64,
    /// The approximate number of bytes, at most 4 MiB. At least one batch is complete, whatever its size.
    pub max_bytes: u32,
    /// How long the leader may wait for a first record.
    pub max_wait: Duration,
}
