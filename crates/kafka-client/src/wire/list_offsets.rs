//! ListOffsets, versions 1 to 7 (KIP-79, 98, 207, 320).
//!
//! Rules:
//! - Each request is for one partition.
//! - A newly elected leader answers with an error until its high watermark has reached the former leader's (KIP-207).

use std::sync::Arc;

use super::reader::{WireError, WireReader};
use super::writer::WireWriter;

pub(crate) const FIRST_FLEXIBLE: i16 = 6;
pub(crate) const VERSIONS: (i16, i16) = (1, 7);

/// Requests the high watermark.
pub const LATEST: i64 = -1;
/// Requests the log's start.
pub const EARLIEST: i64 = -2;

/// Requests one offset from the leader of one partition.
#[derive(Debug)]
pub(crate) struct ListOffsetsRequest {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    /// The leader epoch, if known.
    pub(crate) leader_epoch: Option<i32>,
    /// [`LATEST`], [`EARLIEST`], or milliseconds since the Unix epoch.
    pub(crate) timestamp: i64,
}

/// A leader's answer for one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ListedOffset {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) code: i16,
    pub(crate) offset: i64,
}

impl ListOffsetsRequest {
    pub(crate) fn encode(&self, out: &mut Vec<u8>, version: i16) {
        let mut writer = WireWriter::new(out, version >= FIRST_FLEXIBLE);
        writer.i32(-1); // replica id: none
        if version >= 2 {
            writer.i8(0); // isolation level: read uncommitted
        }
        writer.count(1);
        writer.string(&self.topic);
        writer.count(1);
        writer.i32(self.partition);
        if version >= 4 {
            writer.i32(self.leader_epoch.unwrap_or(-1));
        }
        writer.i64(self.timestamp);
        writer.no_tags();
        writer.no_tags();
        writer.no_tags();
    }
}

/// Decodes a ListOffsets answer.
pub(crate) fn decode(bytes: &[u8], version: i16) -> Result<Vec<ListedOffset>, WireError> {
    let mut reader = WireReader::new(bytes, version >= FIRST_FLEXIBLE);
    if version >= 2 {
        reader.i32("throttle time")?;
    }
    let mut all = Vec::new();
    reader.vec("topics", 3, |reader| {
        let topic = reader.string("topic name")?;
        all.extend(reader.vec("partitions", 22, |reader| listed_offset(reader, &topic, version))?);
        reader.skip_tags()
    })?;
    reader.skip_tags()?;
    reader.finish("ListOffsets");
    Ok(all)
}

fn listed_offset(reader: &mut WireReader<'_>, topic: &Arc<str>, version: i16) -> Result<ListedOffset, WireError> {
    let partition = reader.i32("partition index")?;
    let code = reader.i16("error code")?;
    reader.i64("timestamp")?;
    let offset = reader.i64("offset")?;
    if version >= 4 {
        reader.i32("leader epoch")?;
    }
    reader.skip_tags()?;
    Ok(ListedOffset { topic: topic.clone(), partition, code, offset })
}
