//! What a test reads back: records and batches as they stand in the log.
//!
//! Rules: everything is owned, so that it outlives the cluster; null and empty are told apart.

use kafka_courier_batcher::{BatchView, DecodedRecord};

/// A record in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// The partition that it is in.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
    /// Its key; `None` is null.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` is null.
    pub value: Option<Vec<u8>>,
    /// Its headers, in order; a value that is `None` is null.
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

    /// The value of the first header of that name; `None` if there is none, or it is null.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(key, _)| key == name)?.1.as_deref()
    }

    /// The key as text; `None` if it is null or not UTF-8.
    #[must_use]
    pub fn key_text(&self) -> Option<&str> {
        self.key.as_deref().and_then(|key| str::from_utf8(key).ok())
    }

    /// The value as text; `None` if it is null or not UTF-8.
    #[must_use]
    pub fn value_text(&self) -> Option<&str> {
        self.value.as_deref().and_then(|value| str::from_utf8(value).ok())
    }
}

/// A record batch in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Batch {
    /// The partition that it is in.
    pub partition: i32,
    /// Offset of its first record.
    pub base_offset: i64,
    /// How many records it has.
    pub record_count: u32,
    /// Epoch of the leader that appended it.
    pub leader_epoch: i32,
    /// The producer's id; -1 if it was not idempotent.
    pub producer_id: i64,
    /// The producer's epoch; -1 if it was not idempotent.
    pub producer_epoch: i16,
    /// Sequence number of its first record; -1 if the producer was not idempotent.
    pub base_sequence: i32,
    /// How it is compressed, by Kafka's number: 0 not at all, 2 snappy.
    pub codec: u8,
    /// Bytes that it takes, its header of 61 included.
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
