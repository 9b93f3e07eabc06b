//! A record as it is, for those who bring their own bytes.

use kafka_courier_batcher::Header;
use kafka_courier_dlq::Header as OwnedHeader;

/// A record to send: where to, and what.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProducerRecord<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition, instead of the one that the key gives.
    pub partition: Option<i32>,
    /// The key: records of one key stay in order. An empty key is a key.
    pub key: Option<&'a [u8]>,
    /// The value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers, in order.
    pub headers: &'a [Header<'a>],
    /// Milliseconds since 1970-01-01 UTC, instead of now.
    pub timestamp: Option<i64>,
}

/// A letter's headers, as a record has them.
pub(crate) fn borrowed(headers: &[OwnedHeader]) -> Vec<Header<'_>> {
    headers.iter().map(|header| Header { key: &header.name, value: header.value.as_deref() }).collect()
}
