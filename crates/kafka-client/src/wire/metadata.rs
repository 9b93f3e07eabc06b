//! Metadata, versions 4 to 13 (KIP-320, 482, 516).
//!
//! Rules:
//! - Topics are requested by name. A producer lets the broker create them, a reader does not.
//! - The client keeps memory for each broker, and for each partition up to the highest index. A decoded answer is
//!   therefore bounded: a limit on the brokers, and a limit on the partitions missing between the listed ones.

use std::sync::Arc;

use super::reader::{WireError, WireReader};
use super::writer::WireWriter;
use crate::ids::{BrokerAddress, BrokerId, TopicUuid};

pub(crate) const FIRST_FLEXIBLE: i16 = 9;
pub(crate) const VERSIONS: (i16, i16) = (4, 13);

/// The largest number of brokers, far above any cluster's.
const MAX_BROKERS: usize = 10_000;

/// The largest number of partitions missing from a list. Brokers list all partitions, but proxies may leave some out.
const MAX_GAPS: usize = 1000;

/// A partition in a Metadata answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// Partition index, from 0.
    pub index: i32,
    /// The error code. 0 is none.
    pub code: i16,
    /// The leader, if there is one.
    pub leader: Option<BrokerId>,
    /// The leader epoch, if the broker sent one.
    pub leader_epoch: Option<i32>,
}

/// A topic in a Metadata answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicMetadata {
    /// The name.
    pub name: Arc<str>,
    /// The topic id, if the broker sent one.
    pub uuid: Option<TopicUuid>,
    /// The error code. 0 is none.
    pub code: i16,
    /// The partitions, in any order.
    pub partitions: Vec<PartitionMetadata>,
}

/// A Metadata answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterMetadata {
    /// Every live broker.
    pub brokers: Vec<BrokerAddress>,
    /// The requested topics.
    pub topics: Vec<TopicMetadata>,
}

/// Requests the brokers, and the metadata of these topics.
#[derive(Clone, Debug)]
pub(crate) struct MetadataRequest {
    pub(crate) topics: Vec<Arc<str>>,
    /// Whether the broker may create a missing topic, if its settings allow that.
    pub(crate) auto_create: bool,
    /// Whether to request the client's authorized operations on the topics (KIP-430).
    pub(crate) operations: bool,
}

/// The client's authorized operations on a topic: a bit field over Kafka's operation numbers.
pub(crate) type Operations = (Arc<str>, i32);

/// The bit field of operations that were not requested, or that the broker does not know.
pub(crate) const UNKNOWN_OPERATIONS: i32 = i32::MIN;

impl MetadataRequest {
    pub(crate) fn encode(&self, out: &mut Vec<u8>, version: i16) {
        let mut writer = WireWriter::new(out, version >= FIRST_FLEXIBLE);
        writer.count(self.topics.len());
        for topic in &self.topics {
            if version >= 10 {
                writer.uuid(None);
            }
            writer.string(topic);
            writer.no_tags();
        }
        writer.i8(self.auto_create.into());
        if (8..=10).contains(&version) {
            writer.i8(0); // authorized operations on the cluster
        }
        if version >= 8 {
            writer.i8(self.operations.into());
        }
        writer.no_tags();
    }
}

/// A decoded Metadata answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MetadataAnswer {
    pub(crate) cluster: ClusterMetadata,
    /// The id of the cluster, if the broker sent one.
    pub(crate) cluster_id: Option<Arc<str>>,
    /// The top-level error code (version 13), otherwise 0.
    pub(crate) code: i16,
    /// The client's authorized operations on the topics, if the broker reports them.
    pub(crate) operations: Vec<Operations>,
}

/// Decodes a Metadata answer.
pub(crate) fn decode(bytes: &[u8], version: i16) -> Result<MetadataAnswer, WireError> {
    let mut reader = WireReader::new(bytes, version >= FIRST_FLEXIBLE);
    reader.i32("throttle time")?;
    let brokers = reader.vec("brokers", 10, WireReader::broker_address)?;
    if brokers.len() > MAX_BROKERS {
        return Err(WireError::Malformed { what: "number of brokers" });
    }
    let cluster_id = reader.nullable_string("cluster id")?;
    reader.i32("controller id")?;
    let topics = reader.vec("topics", 8, |reader| topic(reader, version))?;
    if (8..=10).contains(&version) {
        reader.i32("authorised operations")?;
    }
    let code = if version >= 13 { reader.i16("error code")? } else { 0 };
    reader.skip_tags()?;
    reader.finish("Metadata");
    let (topics, operations): (Vec<_>, Vec<_>) = topics.into_iter().flatten().unzip();
    let operations = operations.into_iter().filter(|(_, bits)| *bits != UNKNOWN_OPERATIONS).collect();
    Ok(MetadataAnswer { cluster: ClusterMetadata { brokers, topics }, cluster_id, code, operations })
}

/// Reads a topic and its operations. Returns `None` for a topic without a name, which only a request by id can
/// produce.
fn topic(reader: &mut WireReader<'_>, version: i16) -> Result<Option<(TopicMetadata, Operations)>, WireError> {
    let code = reader.i16("topic error code")?;
    let name = reader.nullable_string("topic name")?;
    let uuid = if version >= 10 { reader.uuid("topic id")? } else { None };
    reader.i8("is internal")?;
    let partitions = reader.vec("partitions", 18, |reader| partition(reader, version))?;
    let end = partitions.len() + MAX_GAPS;
    if partitions.iter().any(|partition| usize::try_from(partition.index).is_ok_and(|index| index >= end)) {
        return Err(WireError::Malformed { what: "partition index" });
    }
    let operations = if version >= 8 { reader.i32("authorised operations")? } else { UNKNOWN_OPERATIONS };
    reader.skip_tags()?;
    Ok(name.map(|name| (TopicMetadata { name: name.clone(), uuid, code, partitions }, (name, operations))))
}

fn partition(reader: &mut WireReader<'_>, version: i16) -> Result<PartitionMetadata, WireError> {
    let code = reader.i16("partition error code")?;
    let index = reader.i32("partition index")?;
    let leader = reader.i32("leader id")?;
    let leader_epoch = if version >= 7 { reader.i32("leader epoch")? } else { -1 };
    let leader_epoch = Some(leader_epoch).filter(|epoch| *epoch >= 0);
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
