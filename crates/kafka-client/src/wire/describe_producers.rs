//! DescribeProducers, version 0 (KIP-664).

use std::sync::Arc;

use super::reader::{WireError, WireReader};
use super::writer::WireWriter;

pub(crate) const FIRST_FLEXIBLE: i16 = 0;
pub(crate) const VERSIONS: (i16, i16) = (0, 0);

#[derive(Debug)]
pub(crate) struct DescribeProducersRequest {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
}

impl DescribeProducersRequest {
    pub(crate) fn encode(&self, out: &mut Vec<u8>, version: i16) {
        let mut writer = WireWriter::new(out, version >= FIRST_FLEXIBLE);
        writer.count(1);
        writer.string(&self.topic);
        writer.count(1);
        writer.i32(self.partition);
        writer.no_tags();
        writer.no_tags();
    }
}

/// A producer's state in the requested partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActiveProducer {
    /// The producer id.
    pub id: i64,
    /// The newest epoch.
    pub epoch: i32,
    /// The last sequence number that was appended under that epoch.
    pub last_sequence: i32,
    /// The latest timestamp of its last batch, in milliseconds since the Unix epoch.
    pub last_timestamp: i64,
}

/// The answer for one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DescribedPartition {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) code: i16,
    pub(crate) producers: Vec<ActiveProducer>,
}

/// Returns all partitions of the answer.
pub(crate) fn decode(bytes: &[u8], version: i16) -> Result<Vec<DescribedPartition>, WireError> {
    let mut reader = WireReader::new(bytes, version >= FIRST_FLEXIBLE);
    reader.i32("throttle time")?;
    let mut all = Vec::new();
    reader.vec("topics", 3, |reader| {
        let topic = reader.string("topic name")?;
        all.extend(reader.vec("partitions", 9, |reader| described_partition(reader, &topic))?);
        reader.skip_tags()
    })?;
    reader.skip_tags()?;
    reader.finish("DescribeProducers");
    Ok(all)
}

fn described_partition(reader: &mut WireReader<'_>, topic: &Arc<str>) -> Result<DescribedPartition, WireError> {
    let partition = reader.i32("partition index")?;
    let code = reader.i16("error code")?;
    reader.nullable_string("error message")?;
    let producers = reader.vec("producers", 33, producer)?;
    reader.skip_tags()?;
    Ok(DescribedPartition { topic: topic.clone(), partition, code, producers })
}

fn producer(reader: &mut WireReader<'_>) -> Result<ActiveProducer, WireError> {
    let id = reader.i64("producer id")?;
    let epoch = reader.i32("producer epoch")?;
    let last_sequence = reader.i32("last sequence")?;
    let last_timestamp = reader.i64("last timestamp")?;
    reader.i32("coordinator epoch")?;
    reader.i64("transaction start offset")?;
    reader.skip_tags()?;
    Ok(ActiveProducer { id, epoch, last_sequence, last_timestamp })
}
