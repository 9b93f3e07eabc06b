//! [`ProducerRecord`], a record with the application's own bytes.

use kafka_courier_batcher::Header;

/// A record to send, with its topic.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProducerRecord<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition. `None` chooses it by the key.
    pub partition: Option<i32>,
    /// The key. Records of one key stay in order. An empty key is a key.
    pub key: Option<&'a [u8]>,
    /// The value. `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers, in order.
    pub headers: &'a [Header<'a>],
    /// The timestamp in milliseconds since 1970-01-01 UTC. `None` is now.
    pub timestamp: Option<i64>,
}
