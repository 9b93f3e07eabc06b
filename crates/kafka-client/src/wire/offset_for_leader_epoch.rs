//! OffsetForLeaderEpoch, versions 2 to 4 (KIP-101, 320, 392).
//!
//! Rules:
//! - Each request is for one partition, and for the leader's current epoch.
//! - Version 2 is the first with the current leader epoch, which fences outdated requests.
//! - Version 3 is the first whose brokers require no more than the right Describe on the topic (Kafka 2.3). Earlier
//!   brokers require ClusterAction on the cluster.

use std::sync::Arc;

use super::reader::{WireError, WireReader};
use super::writer::WireWriter;

pub(crate) const FIRST_FLEXIBLE: i16 = 4;
pub(crate) const VERSIONS: (i16, i16) = (2, 4);

/// Requests the end offset of the current leader epoch from the leader of one partition.
#[derive(Debug)]
pub(crate) struct EpochEndRequest {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    /// The current leader epoch. A leader under another epoch answers with an error.
    pub(crate) leader_epoch: i32,
}

/// A leader's answer for one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct EpochEnd {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) code: i16,
    /// The epoch that the end offset belongs to: the requested one, or an earlier one. -1 if there is none.
    pub(crate) leader_epoch: i32,
    /// The end offset, or -1.
    pub(crate) end_offset: i64,
}

impl EpochEndRequest {
    pub(crate) fn encode(&self, out: &mut Vec<u8>, version: i16) {
        let mut writer = WireWriter::new(out, version >= FIRST_FLEXIBLE);
        if version >= 3 {
            writer.i32(-1); // replica id: none
        }
        writer.count(1);
        writer.string(&self.topic);
        writer.count(1);
        writer.i32(self.partition);
        writer.i32(self.leader_epoch); // the current epoch
        writer.i32(self.leader_epoch); // the epoch whose end is requested
        writer.no_tags();
        writer.no_tags();
        writer.no_tags();
    }
}

/// Decodes an OffsetForLeaderEpoch answer.
pub(crate) fn decode(bytes: &[u8], version: i16) -> Result<Vec<EpochEnd>, WireError> {
    let mut reader = WireReader::new(bytes, version >= FIRST_FLEXIBLE);
    reader.i32("throttle time")?;
    let mut all = Vec::new();
    reader.vec("topics", 3, |reader| {
        let topic = reader.string("topic name")?;
        all.extend(reader.vec("partitions", 18, |reader| epoch_end(reader, &topic))?);
        reader.skip_tags()
    })?;
    reader.skip_tags()?;
    reader.finish("OffsetForLeaderEpoch");
    Ok(all)
}

fn epoch_end(reader: &mut WireReader<'_>, topic: &Arc<str>) -> Result<EpochEnd, WireError> {
    let code = reader.i16("error code")?;
    let partition = reader.i32("partition index")?;
    let leader_epoch = reader.i32("leader epoch")?;
    let end_offset = reader.i64("end offset")?;
    reader.skip_tags()?;
    Ok(EpochEnd { topic: topic.clone(), partition, code, leader_epoch, end_offset })
}
