//! Metadata, versions 4 to 13 (KIP-320, 482, 516).
//!
//! Rules:
//! - Topics are asked for by name; who publishes lets the broker create them, who only reads does not.
//! - Memory is kept for each partition up to the highest, and for each broker: so a partition counts only among about as
//!   many as are listed, and there are no more brokers than any cluster has.

use std::sync::Arc;

use super::reader::{Reader, WireError};
use super::writer::Writer;
use crate::core::{BrokerAddress, BrokerId, ClusterMetadata, PartitionMetadata, TopicMetadata};

pub(crate) const FIRST_FLEXIBLE: i16 = 9;
pub(crate) const VERSIONS: (i16, i16) = (4, 13);

/// Far more than any cluster has.
const MOST_BROKERS: usize = 10_000;

/// Partitions that may be missing from a list: brokers list them all, and what stands in between may leave some out.
const MISSING: usize = 1000;

#[derive(Clone, Debug)]
pub(crate) struct MetadataRequest {
    pub(crate) topics: Vec<Arc<str>>,
    /// Whether a topic that is not there may be made, where the broker is set to.
    pub(crate) auto_create: bool,
    /// Whether to tell what we may do with the topics (KIP-430).
    pub(crate) operations: bool,
}

/// What is told of what we may do with a topic, as a bit field of Kafka's numbers of operations.
pub(crate) type Operations = (Arc<str>, i32);

/// In the place of operations that were not asked for, or can't be told.
pub(crate) const NOT_TOLD: i32 = i32::MIN;

impl MetadataRequest {
    pub(crate) fn encode(&self, out: &mut Vec<u8>, version: i16) {
        let mut writer = Writer::new(out, version >= FIRST_FLEXIBLE);
        writer.count(self.topics.len());
        for topic in &self.topics {
            if version >= 10 {
                writer.out.extend_from_slice(&[0; 16]);
            }
            writer.string(topic);
            writer.no_tags();
        }
        writer.i8(self.auto_create.into());
        if (8..=10).contains(&version) {
            writer.i8(0); // cluster's authorised operations
        }
        if version >= 8 {
            writer.i8(self.operations.into());
        }
        writer.no_tags();
    }
}

/// A Metadata answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MetadataAnswer {
    pub(crate) cluster: ClusterMetadata,
    /// A top-level error (v13), else 0.
    pub(crate) code: i16,
    /// What we may do with the topics, where that is told.
    pub(crate) operations: Vec<Operations>,
}

/// Decodes a Metadata answer.
pub(crate) fn decode(bytes: &[u8], version: i16) -> Result<MetadataAnswer, WireError> {
    let mut reader = Reader::new(bytes, version >= FIRST_FLEXIBLE);
    reader.i32("throttle time")?;
    let brokers = reader.vec("brokers", 10, broker)?;
    if brokers.len() > MOST_BROKERS {
        return Err(WireError::Malformed { what: "number of brokers" });
    }
    reader.nullable_string("cluster id")?;
    reader.i32("controller id")?;
    let topics = reader.vec("topics", 8, |reader| topic(reader, version))?;
    if (8..=10).contains(&version) {
        reader.i32("authorised operations")?;
    }
    let code = if version >= 13 { reader.i16("error code")? } else { 0 };
    reader.skip_tags()?;
    reader.end("Metadata");
    let (topics, operations): (Vec<_>, Vec<_>) = topics.into_iter().flatten().unzip();
    let operations = operations.into_iter().filter(|(_, bits)| *bits != NOT_TOLD).collect();
    Ok(MetadataAnswer { cluster: ClusterMetadata { brokers, topics }, code, operations })
}

fn broker(reader: &mut Reader<'_>) -> Result<BrokerAddress, WireError> {
    let id = BrokerId(reader.i32("node id")?);
    let host = reader.words("host")?.ok_or(WireError::Malformed { what: "host" })?;
    let port = super::port(reader.i32("port")?)?;
    reader.nullable_string("rack")?;
    reader.skip_tags()?;
    Ok(BrokerAddress { id, host, port })
}

/// A topic, unless it came without a name (which only a question by id brings about), and what we may do with it.
fn topic(reader: &mut Reader<'_>, version: i16) -> Result<Option<(TopicMetadata, Operations)>, WireError> {
    let code = reader.i16("topic error code")?;
    let name = reader.nullable_string("topic name")?;
    let uuid = if version >= 10 { reader.uuid("topic id")? } else { [0; 16] };
    reader.i8("is internal")?;
    let partitions = reader.vec("partitions", 18, |reader| partition(reader, version))?;
    let end = partitions.len() + MISSING;
    if partitions.iter().any(|partition| usize::try_from(partition.index).is_ok_and(|index| index >= end)) {
        return Err(WireError::Malformed { what: "partition index" });
    }
    let operations = if version >= 8 { reader.i32("authorised operations")? } else { NOT_TOLD };
    reader.skip_tags()?;
    Ok(name.map(|name| (TopicMetadata { name: name.clone(), uuid, code, partitions }, (name, operations))))
}

fn partition(reader: &mut Reader<'_>, version: i16) -> Result<PartitionMetadata, WireError> {
    let code = reader.i16("partition error code")?;
    let index = reader.i32("partition index")?;
    let leader = reader.i32("leader id")?;
    let leader_epoch = if version >= 7 { reader.i32("leader epoch")? } else { -1 };
    reader.skip_i32s("replicas")?;
    reader.skip_i32s("in-sync replicas")?;
    if version >= 5 {
        reader.skip_i32s("offline replicas")?;
    }
    reader.skip_tags()?;
    if index < 0 {
        return Err(WireError::Malformed { what: "partition index" });
    }
    let leader = (leader >= 0).then_some(BrokerId(leader));
    Ok(PartitionMetadata { index, code, leader, leader_epoch })
}
