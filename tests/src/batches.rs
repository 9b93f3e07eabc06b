//! Record batches as they stand in the log, and what idempotent delivery promises of them.
use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The header of a batch, as Kafka's `DumpLogSegments` prints it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Batch {
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// The offset of its first record.
    pub base_offset: i64,
    /// The offset of its last record.
    pub last_offset: i64,
    /// How many records it has.
    pub count: i64,
    /// The sequence number of its first record; -1 when not idempotent.
    pub base_sequence: i32,
    /// The sequence number of its last record.
    pub last_sequence: i32,
    /// Who wrote it; -1 when not idempotent.
    pub producer_id: i64,
    /// The producer's epoch.
    pub producer_epoch: i16,
    /// The format: 2 is the only one since Kafka 4.
    pub magic: i8,
    /// `none`, `snappy` ..
    pub compresscodec: String,
    /// Bytes, with the header.
    pub size: u64,
    /// Whether its CRC holds.
    pub isvalid: bool,
}

/// Parses what `kafka batches` prints: a JSON object a line.
pub(crate) fn parse(text: &str) -> Result<Vec<Batch>> {
    text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("not a batch: {line}"))).collect()
}

/// The most that a batch may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Records.
    pub records: i64,
    /// Bytes on the wire, with the header.
    pub bytes: u64,
}

/// What a topic's batches look like, for a person.
#[derive(Debug, Default)]
pub struct Shape {
    /// How many batches.
    pub batches: usize,
    /// How many records in them.
    pub records: i64,
    /// Records that stand in batches of exactly as many as the limit allows.
    pub in_full: i64,
    /// The most records in a batch.
    pub most_records: i64,
    /// The most bytes in a batch.
    pub most_bytes: u64,
    /// All bytes.
    pub bytes: u64,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mean = self.records as f64 / self.batches.max(1) as f64;
        write!(
            f,
            "{} records in {} batches (mean {mean:.1}, most {}, {} in full ones), {} bytes (largest batch {})",
            self.records, self.batches, self.most_records, self.in_full, self.bytes, self.most_bytes
        )
    }
}

/// Checks that all batches were written by one idempotent producer with snappy within `limits`: a producer id, one epoch,
/// and in each partition sequence numbers from 0 without a gap or a repetition, in the order of offsets.
///
/// # Errors
/// The first batch that breaks this.
pub fn check_idempotent(batches: &[Batch], limits: Limits) -> Result<Shape> {
    let mut shape = Shape::default();
    let mut ends: BTreeMap<(&str, i32), (i64, i32)> = BTreeMap::new();
    let mut producer = None;
    for batch in batches {
        let stamp = (batch.producer_id, batch.producer_epoch);
        let first = *producer.get_or_insert(stamp);
        ensure!(batch.producer_id >= 0, "not idempotent: {batch:?}");
        ensure!(stamp == first, "another producer id or epoch than the first batch's {first:?}: {batch:?}");
        let (offset, sequence) = ends.get(&(&*batch.topic, batch.partition)).copied().unwrap_or((0, 0));
        ensure!(batch.base_offset == offset, "offset {offset} expected: {batch:?}");
        ensure!(batch.base_sequence == sequence, "sequence {sequence} expected: {batch:?}");
        check_alone(batch, limits)?;
        ends.insert((&batch.topic, batch.partition), (batch.last_offset + 1, batch.last_sequence + 1));
        shape.add(batch, limits);
    }
    Ok(shape)
}

/// As many records may be sent plain: there snappy may find nothing to shrink.
const SMALL: i64 = 3;

/// What must hold of a batch whatever stands before it.
fn check_alone(batch: &Batch, limits: Limits) -> Result<()> {
    ensure!(batch.isvalid && batch.magic == 2, "broken, or of an old format: {batch:?}");
    let small = batch.count <= SMALL && batch.compresscodec == "none";
    ensure!(small || batch.compresscodec == "snappy", "not snappy: {batch:?}");
    ensure!(batch.last_offset - batch.base_offset + 1 == batch.count, "offsets and count differ: {batch:?}");
    ensure!(
        i64::from(batch.last_sequence - batch.base_sequence) + 1 == batch.count,
        "sequences and count differ: {batch:?}"
    );
    ensure!(batch.count <= limits.records, "more than {} records: {batch:?}", limits.records);
    ensure!(batch.size <= limits.bytes, "more than {} bytes: {batch:?}", limits.bytes);
    Ok(())
}

impl Shape {
    fn add(&mut self, batch: &Batch, limits: Limits) {
        self.batches += 1;
        self.records += batch.count;
        self.bytes += batch.size;
        self.most_records = self.most_records.max(batch.count);
        self.most_bytes = self.most_bytes.max(batch.size);
        if batch.count == limits.records {
            self.in_full += batch.count;
        }
    }
}
