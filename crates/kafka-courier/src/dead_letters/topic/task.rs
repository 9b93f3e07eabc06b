//! The task of the dead-letter topic, which writes and reads the topic for blocking threads.
//!
//! Rules:
//! - One task answers requests in order. Only a claim to replay runs concurrently, because it can take a whole lease.
//! - The task closes its producer and ends once all senders of requests are dropped and all claims are released.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use kafka_courier_batcher::{BatchView, DecodeError};
use kafka_courier_client::ErrorCode;
use kafka_courier_client::log_client::{LogClient, LogError, ReadFrom};
use kafka_courier_dlq::{Bytes, Header};
use kafka_courier_idempotent_sender::driver::DriverCommand;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use super::check::TopicCheck;
use super::lease::{self, Claimant, Lease, LeaseError};
use super::policy::{TopicWarning, UnfitTopic};
use super::record::{self, TopicEntry};
use crate::delivery::Delivery;
use crate::error::{DeliveryError, PublishError};
use crate::producer::KafkaProducer;
use crate::record::{ProducerRecord, borrowed_headers};

/// The timeout of a request to the cluster.
const CLUSTER_TIMEOUT: Duration = Duration::from_secs(10);
/// The bytes of one Fetch.
const READ_BYTES: u32 = 1 << 20;
/// The largest uncompressed size of a batch, which another client may have written.
const MAX_UNCOMPRESSED: usize = 64 << 20;

/// A record to write.
#[derive(Clone, Debug)]
pub(crate) struct OutgoingRecord {
    /// The partition, if the record must follow earlier records of its letter or claim.
    pub(crate) partition: Option<i32>,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<Header>,
}

/// A partition and an offset.
pub(crate) type LogPosition = (i32, i64);

/// The outcome of writing a record.
#[derive(Clone, Debug)]
pub(crate) enum WriteOutcome {
    /// The record is in the log: its partition, and its offset if known.
    Written(i32, Option<i64>),
    /// The record is not in the log, or its outcome is unknown.
    Failed(WriteFailure),
}

/// The failure of a write.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum WriteFailure {
    /// The producer refused the record.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The record was not delivered, or its outcome is unknown.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
}

impl WriteFailure {
    /// Returns whether the topic currently accepts no record at all.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            Self::Publish(error) => !matches!(error, PublishError::TooLarge { .. }),
            Self::Delivery(error) => error.code() != Some(ErrorCode::MESSAGE_TOO_LARGE),
        }
    }
}

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

/// The sender of the answer to a request.
pub(crate) type Reply<A> = SyncSender<Result<A, RequestError>>;

/// A page of entries.
#[derive(Debug)]
pub(crate) struct TopicPage {
    pub(crate) entries: Vec<(i64, TopicEntry)>,
    /// The offset of the read.
    pub(crate) from: i64,
    /// The offset of the next page. `None` if the read was at the end of the partition.
    pub(crate) next: Option<i64>,
}

/// The warnings about the topic, or the reason for which it accepts no dead letters.
pub(crate) type Fitness = Result<Vec<TopicWarning>, UnfitTopic>;

/// A request to the task, with the sender of its answer.
pub(crate) enum TopicRequest {
    /// Write records, and return the outcome of each.
    Append(Vec<OutgoingRecord>, Reply<Vec<WriteOutcome>>),
    /// Return the number of partitions.
    Partitions(Reply<i32>),
    /// Read a partition from an offset, or from its start for `None`.
    Read(i32, Option<i64>, Reply<TopicPage>),
    /// Return whether the topic exists.
    Exists(Reply<bool>),
    /// Return whether the topic is fit for dead letters.
    Check(Reply<Fitness>),
    /// Claim the right to replay, with a lease of this duration.
    Claim(Duration, SyncSender<Result<Lease, LeaseError>>),
}

/// The task of a dead-letter topic.
pub(crate) struct TopicTask {
    pub(crate) producer: KafkaProducer,
    pub(crate) reader: TopicReader,
    pub(crate) requests: UnboundedReceiver<TopicRequest>,
    pub(super) check: TopicCheck,
    /// Whether the task checks the topic before the first request, and logs the result.
    pub(super) logs_check: bool,
}

/// Reads the topic.
#[derive(Clone)]
pub(crate) struct TopicReader {
    pub(crate) topic: Arc<str>,
    pub(crate) log: Arc<LogClient>,
}

impl TopicTask {
    pub(crate) async fn run(mut self) {
        let mut claims = JoinSet::new();
        if self.logs_check {
            self.check.check_and_log(&self.reader).await;
        }
        while let Some(request) = self.requests.recv().await {
            // The requester may have timed out, so a failed reply is no error.
            match request {
                TopicRequest::Append(records, reply) => {
                    let _ = reply.send(match self.check.before_writing(&self.producer, &self.reader).await {
                        Ok(()) => Ok(self.append(&records).await),
                        Err(unfit) => Err(unfit.into()),
                    });
                }
                TopicRequest::Check(reply) => {
                    let _ = reply.send(Ok(self.check.check_for_caller(&self.reader).await));
                }
                TopicRequest::Exists(reply) => {
                    let _ = reply.send(Ok(self.check.exists(&self.reader).await));
                }
                TopicRequest::Partitions(reply) => {
                    let found = self.reader.log.topic(&self.reader.topic, Instant::now() + CLUSTER_TIMEOUT).await;
                    let _ = reply.send(match found {
                        Ok(topic) => Ok(i32::try_from(topic.partitions).unwrap_or(i32::MAX)),
                        Err(error) => Err(error.into()),
                    });
                }
                TopicRequest::Read(partition, from, reply) => {
                    let _ = reply.send(self.reader.read(partition, from).await);
                }
                TopicRequest::Claim(lease, reply) => {
                    while claims.try_join_next().is_some() {}
                    let (producer, reader) = (self.producer.clone(), self.reader.clone());
                    claims.spawn(claim(Claimant { producer, reader, lease }, reply));
                }
            }
        }
        // Claimant that are still held after the timeout are dropped with the runtime, and expire.
        let _ = tokio::time::timeout(CLUSTER_TIMEOUT, async { while claims.join_next().await.is_some() {} }).await;
        self.producer.close(CLUSTER_TIMEOUT).await;
    }

    async fn append(&self, records: &[OutgoingRecord]) -> Vec<WriteOutcome> {
        let mut sent = Vec::with_capacity(records.len());
        for record in records {
            sent.push(send(&self.producer, &self.reader.topic, record).await);
        }
        self.producer.inner.intake.send_command(DriverCommand::SealOpen);
        let mut written = Vec::with_capacity(sent.len());
        for sent in sent {
            written.push(write_outcome(sent).await);
        }
        written
    }
}

/// Acquires the lease on the right to replay, and renews it.
async fn claim(claimant: Claimant, reply: SyncSender<Result<Lease, LeaseError>>) {
    match lease::acquire(claimant).await {
        Ok((lease, renewal)) => {
            // If the requester has timed out, the lease is dropped with the answer, which releases it.
            let _ = reply.send(Ok(lease));
            renewal.await;
        }
        Err(error) => {
            let _ = reply.send(Err(error));
        }
    }
}

/// Writes one record, and waits for its outcome.
pub(super) async fn write_one(producer: &KafkaProducer, topic: &str, record: &OutgoingRecord) -> WriteOutcome {
    let sent = send(producer, topic, record).await;
    producer.inner.intake.send_command(DriverCommand::SealOpen);
    write_outcome(sent).await
}

async fn send(producer: &KafkaProducer, topic: &str, record: &OutgoingRecord) -> Result<Delivery, PublishError> {
    let record = ProducerRecord {
        topic,
        partition: record.partition,
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers: &borrowed_headers(&record.headers),
        timestamp: None,
    };
    producer.send(&record).await
}

async fn write_outcome(sent: Result<Delivery, PublishError>) -> WriteOutcome {
    match sent {
        Err(error) => WriteOutcome::Failed(error.into()),
        Ok(delivery) => match delivery.await {
            Ok(metadata) => WriteOutcome::Written(metadata.partition, metadata.offset),
            Err(error) => WriteOutcome::Failed(error.into()),
        },
    }
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
fn parse_entries(mut bytes: &[u8], offset: i64) -> (Vec<(i64, TopicEntry)>, i64) {
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
