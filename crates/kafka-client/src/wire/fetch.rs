//! Fetch, versions 5 to 13, without a fetch session (KIP-74, 107, 227, 320, 516).
//!
//! Rules:
//! - Each request is for one partition. Answers for other partitions are skipped.
//! - Records are returned as raw bytes: whole batches, except the last one. Nothing here decodes them.

use std::sync::Arc;
use std::time::Duration;

use super::reader::{WireError, WireReader};
use super::writer::WireWriter;
use crate::ids::TopicUuid;

pub(crate) const FIRST_FLEXIBLE: i16 = 12;
/// Version 5 and later report the log's start.
pub(crate) const VERSIONS: (i16, i16) = (5, 13);
/// The first version that names topics by id.
const BY_TOPIC_ID: i16 = 13;
/// The first version whose answers have a top-level error code.
const TOP_LEVEL_ERROR: i16 = 7;

/// Requests records of one partition from its leader, up to the high watermark.
#[derive(Debug)]
pub(crate) struct FetchRequest {
    pub(crate) topic: Arc<str>,
    pub(crate) topic_uuid: Option<TopicUuid>,
    pub(crate) partition: i32,
    /// The leader epoch, if known.
    pub(crate) leader_epoch: Option<i32>,
    pub(crate) offset: i64,
    pub(crate) max_bytes: i32,
    /// How long the leader may wait for a first record.
    pub(crate) max_wait: Duration,
}

/// A leader's answer for one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FetchedPart {
    pub(crate) index: i32,
    pub(crate) code: i16,
    pub(crate) high_watermark: i64,
    pub(crate) log_start: i64,
    pub(crate) records: Vec<u8>,
}

/// The top-level error code, and the parts of the partitions.
pub(crate) type FetchAnswer = (i16, Vec<FetchedPart>);

impl FetchRequest {
    pub(crate) fn encode(&self, out: &mut Vec<u8>, version: i16) {
        let mut writer = WireWriter::new(out, version >= FIRST_FLEXIBLE);
        writer.i32(-1); // replica id: none
        writer.i32(i32::try_from(self.max_wait.as_millis()).unwrap_or(i32::MAX));
        writer.i32(1); // minimum bytes
        writer.i32(self.max_bytes);
        writer.i8(0); // isolation level: read uncommitted, up to the high watermark
        if version >= 7 {
            writer.i32(0); // session id: none
            writer.i32(-1);
        }
        writer.count(1);
        if version >= BY_TOPIC_ID {
            writer.uuid(self.topic_uuid);
        } else {
            writer.string(&self.topic);
        }
        writer.count(1);
        self.encode_partition(&mut writer, version);
        writer.no_tags();
        if version >= 7 {
            writer.count(0); // forgotten topics
        }
        if version >= 11 {
            writer.string(""); // rack: none, the leader must answer
        }
        writer.no_tags();
    }

    fn encode_partition(&self, writer: &mut WireWriter<'_>, version: i16) {
        writer.i32(self.partition);
        if version >= 9 {
            writer.i32(self.leader_epoch.unwrap_or(-1));
        }
        writer.i64(self.offset);
        if version >= 12 {
            writer.i32(-1); // last fetched epoch: for replicas only
        }
        writer.i64(-1); // log start offset: for replicas only
        writer.i32(self.max_bytes);
        writer.no_tags();
    }
}

/// Decodes a Fetch answer.
pub(crate) fn decode(bytes: &[u8], version: i16) -> Result<FetchAnswer, WireError> {
    let mut reader = WireReader::new(bytes, version >= FIRST_FLEXIBLE);
    reader.i32("throttle time")?;
    let mut code = 0;
    if version >= TOP_LEVEL_ERROR {
        code = reader.i16("error code")?;
        reader.i32("session id")?;
    }
    let mut parts = Vec::new();
    reader.vec("topics", 3, |reader| {
        if version >= BY_TOPIC_ID {
            reader.uuid("topic id")?;
        } else {
            reader.string("topic name")?;
        }
        parts.extend(reader.vec("partitions", 36, |reader| partition(reader, version))?);
        reader.skip_tags()
    })?;
    reader.skip_tags()?;
    reader.finish("Fetch");
    Ok((code, parts))
}

fn partition(reader: &mut WireReader<'_>, version: i16) -> Result<FetchedPart, WireError> {
    let index = reader.i32("partition index")?;
    let code = reader.i16("error code")?;
    let high_watermark = reader.i64("high watermark")?;
    reader.i64("last stable offset")?;
    let log_start = reader.i64("log start offset")?;
    reader.vec("aborted transactions", 16, |reader| {
        reader.i64("producer id")?;
        reader.i64("first offset")?;
        reader.skip_tags()
    })?;
    if version >= 11 {
        reader.i32("preferred read replica")?;
    }
    let records = reader.nullable_bytes("records")?.unwrap_or_default().to_vec();
    reader.skip_tags()?;
    Ok(FetchedPart { index, code, high_watermark, log_start, records })
}
