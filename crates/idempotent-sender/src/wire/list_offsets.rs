//! ListOffsets, versions 1 to 7 (KIP-79, 98, 207, 320).
//!
//! Rules: one partition a request; a leader that was just elected answers with an error until its high watermark is
//! known to be no older than what the leader before it had told (KIP-207).

use std::sync::Arc;

use super::reader::{Reader, WireError};
use super::writer::Writer;

pub(crate) const FIRST_FLEXIBLE: i16 = 6;
pub(crate) const VERSIONS: (i16, i16) = (1, 7);

/// Asks for the high watermark.
pub(crate) const LATEST: i64 = -1;
/// Asks for the log's start.
pub(crate) const EARLIEST: i64 = -2;

/// Asks the leader of one partition for one offset.
#[derive(Debug)]
pub(crate) struct ListOffsetsRequest {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    /// The leader epoch that is known, or -1.
    pub(crate) leader_epoch: i32,
    /// [`LATEST`] or [`EARLIEST`].
    pub(crate) timestamp: i64,
}

/// What a leader answered for one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Listed {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) code: i16,
    pub(crate) offset: i64,
}

impl ListOffsetsRequest {
    pub(crate) fn encode(&self, out: &mut Vec<u8>, version: i16) {
        let mut writer = Writer::new(out, version >= FIRST_FLEXIBLE);
        writer.i32(-1); // no replica
        if version >= 2 {
            writer.i8(0); // read uncommitted
        }
        writer.count(1);
        writer.string(&self.topic);
        writer.count(1);
        writer.i32(self.partition);
        if version >= 4 {
            writer.i32(self.leader_epoch);
        }
        writer.i64(self.timestamp);
        writer.no_tags();
        writer.no_tags();
        writer.no_tags();
    }
}

/// Decodes a ListOffsets answer.
pub(crate) fn decode(bytes: &[u8], version: i16) -> Result<Vec<Listed>, WireError> {
    let mut reader = Reader::new(bytes, version >= FIRST_FLEXIBLE);
    if version >= 2 {
        reader.i32("throttle time")?;
    }
    let mut all = Vec::new();
    reader.vec("topics", 3, |reader| {
        let topic = reader.string("topic name")?;
        all.extend(reader.vec("partitions", 22, |reader| listed(reader, &topic, version))?);
        reader.skip_tags()
    })?;
    reader.skip_tags()?;
    reader.end("ListOffsets");
    Ok(all)
}

fn listed(reader: &mut Reader<'_>, topic: &Arc<str>, version: i16) -> Result<Listed, WireError> {
    let partition = reader.i32("partition index")?;
    let code = reader.i16("error code")?;
    reader.i64("timestamp")?;
    let offset = reader.i64("offset")?;
    if version >= 4 {
        reader.i32("leader epoch")?;
    }
    reader.skip_tags()?;
    Ok(Listed { topic: topic.clone(), partition, code, offset })
}
