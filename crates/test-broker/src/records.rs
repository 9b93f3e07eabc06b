//! Records and batches of the log, as tests read them.
//!
//! Rules: all data is owned and outlives the cluster. Null and empty differ.

use kafka_courier_batcher::{BatchView, DecodedRecord};

/// A record in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// The record's partition.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
    /// The record's key. `None` is null.
    pub key: Option<Vec<u8>>,
    /// The record's value. `None` is null.
    pub value: Option<Vec<u8>>,
    /// The record's headers, in order. A value of `None` is null.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    pub(crate) fn decoded(partition: i32, base_offset: i64, record: &DecodedRecord<'_>) -> Self {
        let header =
            |header: &kafka_courier_batcher::Header<'_>| (header.key.to_owned(), header.value.map(<[u8]>::to_vec));
        Self {
            partition,
            offset: base_offset + i64::from(record.offset_delta),
            timestamp: record.timestamp,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers.iter().map(header).collect(),
        }
    }

    /// Returns the value of the first header with this name. `None` if there is no such header, or its value is null.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(key, _)| key == name)?.1.as_deref()
    }

    /// Returns the key as text. `None` if the key is null or not UTF-8.
    #[must_use]
    pub fn key_text(&self) -> Option<&str> {
        self.key.as_deref().and_then(|key| str::from_utf8(key).ok())
    }

    /// Returns the value as text. `None` if the value is null or not UTF-8.
    #[must_use]
    pub fn value_text(&self) -> Option<&str> {
        self.value.as_deref().and_then(|value| str::from_utf8(value).ok())
    }
}

/// A record batch in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Batch {
    /// The batch's partition.
    pub partition: i32,
    /// The offset of the first record.
    pub base_offset: i64,
    /// The number of records.
    pub record_count: u32,
    /// The epoch of the leader that appended the batch.
    pub leader_epoch: i32,
    /// The producer's id, or -1 without idempotence.
    pub producer_id: i64,
    /// The producer's epoch, or -1 without idempotence.
    pub producer_epoch: i16,
    /// The sequence number of the first record, or -1 without idempotence.
    pub base_sequence: i32,
    /// Kafka's number of the compression: 0 is none, 2 is snappy.
    pub codec: u8,
    /// The size in bytes, including the 61 bytes of the batch header.
    pub size_bytes: usize,
}

impl Batch {
    pub(crate) fn viewed(partition: i32, view: &BatchView<'_>) -> Self {
        Self {
            partition,
            base_offset: view.base_offset,
            record_count: view.record_count,
            leader_epoch: view.partition_leader_epoch,
            producer_id: view.producer_id,
            producer_epoch: view.producer_epoch,
            base_sequence: view.base_sequence,
            codec: view.codec(),
            size_bytes: view.as_bytes().len(),
        }
    }
}
