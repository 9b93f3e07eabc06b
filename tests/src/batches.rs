//! Record batches as the log holds them, and the check that one idempotent producer wrote them.
use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The header of a batch, as Kafka's `DumpLogSegments` prints it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoggedBatch {
    /// The batch's topic.
    pub topic: String,
    /// The batch's partition.
    pub partition: i32,
    /// The offset of the first record.
    pub base_offset: i64,
    /// The offset of the last record.
    pub last_offset: i64,
    /// The number of records.
    pub count: i64,
    /// The sequence number of the first record, or -1 without idempotence.
    pub base_sequence: i32,
    /// The sequence number of the last record.
    pub last_sequence: i32,
    /// The producer id, or -1 without idempotence.
    pub producer_id: i64,
    /// The producer's epoch.
    pub producer_epoch: i16,
    /// The version of the batch format. Kafka 4 knows only version 2.
    pub magic: i8,
    /// The codec, such as `none` or `snappy`.
    pub compresscodec: String,
    /// The size in bytes, with the header.
    pub size: u64,
    /// Whether the CRC is valid.
    pub isvalid: bool,
}

/// Parses the output of `kafka batches`: one JSON object a line.
pub(crate) fn parse(text: &str) -> Result<Vec<LoggedBatch>> {
    text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("not a batch: {line}"))).collect()
}

/// The maximum size of a batch.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// The maximum number of records.
    pub records: i64,
    /// The maximum size on the wire in bytes, with the header.
    pub bytes: u64,
}

/// Counts and sizes of a topic's batches. `Display` is for people.
#[derive(Debug, Default)]
pub struct BatchStatistics {
    /// The number of batches.
    pub batches: usize,
    /// The number of records in all batches.
    pub records: i64,
    /// The number of records in batches with exactly the maximum number of records.
    pub records_in_full_batches: i64,
    /// The number of records in the batch that has the most.
    pub most_records: i64,
    /// The size of the largest batch in bytes.
    pub most_bytes: u64,
    /// The size of all batches in bytes.
    pub bytes: u64,
}

impl fmt::Display for BatchStatistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mean = self.records as f64 / self.batches.max(1) as f64;
        write!(
            f,
            "{} records in {} batches (mean {mean:.1}, most {}, {} in full batches), {} bytes (largest batch {})",
            self.records, self.batches, self.most_records, self.records_in_full_batches, self.bytes, self.most_bytes
        )
    }
}

/// Checks that one idempotent producer wrote all batches, with snappy and within `limits`.
///
/// All batches have one producer id and one epoch. The sequence numbers of each partition start at 0 and follow the
/// order of offsets, without gaps and repetitions.
///
/// # Errors
/// Returns an error that shows the first batch that violates this.
pub fn check_idempotent(batches: &[LoggedBatch], limits: BatchLimits) -> Result<BatchStatistics> {
    let mut statistics = BatchStatistics::default();
    let mut ends: BTreeMap<(&str, i32), (i64, i32)> = BTreeMap::new();
    let mut producer = None;
    for batch in batches {
        let stamp = (batch.producer_id, batch.producer_epoch);
        let first = *producer.get_or_insert(stamp);
        ensure!(batch.producer_id >= 0, "not idempotent: {batch:?}");
        ensure!(stamp == first, "producer id and epoch differ from {first:?} of the first batch: {batch:?}");
        let (offset, sequence) = ends.get(&(&*batch.topic, batch.partition)).copied().unwrap_or((0, 0));
        ensure!(batch.base_offset == offset, "offset {offset} expected: {batch:?}");
        ensure!(batch.base_sequence == sequence, "sequence {sequence} expected: {batch:?}");
        check_batch(batch, limits)?;
        ends.insert((&batch.topic, batch.partition), (batch.last_offset + 1, batch.last_sequence + 1));
        statistics.add(batch, limits);
    }
    Ok(statistics)
}

/// Batches of up to this many records may be uncompressed, because snappy may not make them smaller.
const MAX_UNCOMPRESSED_RECORDS: i64 = 3;

/// Checks a batch by itself, regardless of the batches before it.
fn check_batch(batch: &LoggedBatch, limits: BatchLimits) -> Result<()> {
    ensure!(batch.isvalid && batch.magic == 2, "invalid CRC or old format: {batch:?}");
    let small = batch.count <= MAX_UNCOMPRESSED_RECORDS && batch.compresscodec == "none";
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

impl BatchStatistics {
    fn add(&mut self, batch: &LoggedBatch, limits: BatchLimits) {
        self.batches += 1;
        self.records += batch.count;
        self.bytes += batch.size;
        self.most_records = self.most_records.max(batch.count);
        self.most_bytes = self.most_bytes.max(batch.size);
        if batch.count == limits.records {
            self.records_in_full_batches += batch.count;
        }
    }
}
