//! Reads the topic's log, page by page.
//!
//! Rule: another client may have written to the topic. An unreadable batch or record is skipped and logged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier_batcher::{BatchView, DecodeError};
use kafka_courier_client::log_client::{LogClient, LogError, ReadFrom};

use super::policy::UnfitTopic;
use super::record::{self, LoggedEntry};
use super::writer::WriteFailure;

/// The timeout of a request to the cluster.
pub(super) const CLUSTER_TIMEOUT: Duration = Duration::from_secs(10);
/// The bytes of one Fetch.
const READ_BYTES: u32 = 1 << 20;
/// The largest uncompressed size of a batch, which another client may have written.
const MAX_UNCOMPRESSED: usize = 64 << 20;

/// The failure of a request to the task.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Unfit(#[from] UnfitTopic),
    #[error(transparent)]
    Write(#[from] WriteFailure),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("partition {partition} returned no whole batch at offset {offset}")]
    NoBatch { partition: i32, offset: i64 },
    #[error("a record in {topic} did not become readable in time")]
    NotReadable { topic: Arc<str> },
}

/// A page of entries.
#[derive(Debug)]
pub(crate) struct TopicPage {
    pub(crate) entries: Vec<(i64, LoggedEntry)>,
    /// The offset of the read.
    pub(crate) from: i64,
    /// The offset of the next page. `None` if the read was at the end of the partition.
    pub(crate) next: Option<i64>,
}

/// Reads the topic.
#[derive(Clone)]
pub(crate) struct TopicReader {
    pub(crate) topic: Arc<str>,
    pub(crate) log: Arc<LogClient>,
}

impl TopicReader {
    /// Reads one page of a partition, from an offset or from the log's start.
    pub(super) async fn read(&self, partition: i32, from: Option<i64>) -> Result<TopicPage, RequestError> {
        let deadline = Instant::now() + CLUSTER_TIMEOUT;
        let offsets = self.log.offsets(&self.topic, partition, deadline).await?;
        let offset = from.unwrap_or(offsets.log_start).max(offsets.log_start);
        if offset >= offsets.high_watermark {
            return Ok(TopicPage { entries: Vec::new(), from: offset, next: None });
        }
        let from = ReadFrom { offset, max_bytes: READ_BYTES, max_wait: Duration::from_millis(500) };
        let fetched = self.log.fetch(&self.topic, partition, from, deadline).await?;
        let (entries, next) = parse_entries(&fetched.bytes, offset);
        if next == offset {
            return Err(RequestError::NoBatch { partition, offset });
        }
        Ok(TopicPage { entries, from: offset, next: Some(next) })
    }
}

/// Returns the entries of these batches from `offset`, and the offset after the last batch.
fn parse_entries(mut bytes: &[u8], offset: i64) -> (Vec<(i64, LoggedEntry)>, i64) {
    let (mut found, mut next) = (Vec::new(), offset);
    while let Ok((batch, rest)) = BatchView::parse(bytes) {
        bytes = rest;
        next = batch.base_offset.saturating_add(batch.last_offset_delta.into()).saturating_add(1).max(next);
        if batch.is_control() {
            continue;
        }
        let skipped = |error: DecodeError| {
            // Another client wrote the batch, since this library writes snappy. A topic that recompresses batches is
            // unsuitable for letters.
            tracing::warn!(offset = batch.base_offset, %error, "batch of the dead-letter topic is unreadable");
        };
        let Ok(records) = batch.records(MAX_UNCOMPRESSED).map_err(skipped) else { continue };
        for record in &records {
            let Ok(record) = record.map_err(skipped) else { break };
            let at = batch.base_offset.saturating_add(record.offset_delta.into());
            if at >= offset {
                found.extend(record::parse_entry(&record).map(|entry| (at, entry)));
            }
        }
    }
    (found, next)
}
