//! The ids of topics, partitions and brokers, and the address of a broker.
//!
//! Rule: plain data. Nothing here decides.

use std::sync::Arc;

/// A topic by the number that this process assigned. The number never changes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TopicId(pub u32);

/// A partition of a topic.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PartitionId {
    /// The topic.
    pub topic: TopicId,
    /// Kafka's partition index, from 0.
    pub index: i32,
}

/// A broker's node id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct BrokerId(pub i32);

/// Kafka's 16-byte topic id (KIP-516). A broker without topic ids sends zeros, which are read as `None`.
pub type TopicUuid = [u8; 16];

/// How the wire says that there is no topic id.
pub(crate) const NO_UUID: TopicUuid = [0; 16];

/// The address of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAddress {
    /// Node id.
    pub id: BrokerId,
    /// Host name or address.
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
}
