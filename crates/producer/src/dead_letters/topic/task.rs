//! The asynchronous side of the dead-letter topic: writes and reads it for the threads that ask.
//!
//! Rules: one task; what is asked is answered in order, but a claim to replay, which takes its time; when nobody can ask any
//! more, and claims are given back, it closes its producer and ends.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use kafka_courier_batcher::{BatchView, DecodeError};
use kafka_courier_dlq::{Bytes, Header};
use kafka_courier_idempotent_sender::core::ErrorCode;
use kafka_courier_idempotent_sender::driver::{Command, LogClient, ReadFrom};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use super::check::Check;
use super::lease::{self, Claims, Lease, NotTaken};
use super::policy::{TopicWarning, UnfitTopic};
use super::record::{self, Entry};
use crate::delivery::Delivery;
use crate::error::PublishError;
use crate::producer::KafkaProducer;
use crate::record::{ProducerRecord, borrowed};

/// How long a question to the cluster may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that are read at once.
const READ_BYTES: u32 = 1 << 20;
/// Bytes of a batch that somebody else wrote, uncompressed.
const UNCOMPRESSED: usize = 64 << 20;

/// A record to write.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// The partition, where the record belongs to what is there already.
    pub(crate) partition: Option<i32>,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<Header>,
}

/// Partition and offset.
pub(crate) type Place = (i32, i64);

/// What became of a record.
#[derive(Clone, Debug)]
pub(crate) enum Written {
    /// It is there: its partition, and its offset if that is known.
    At(i32, Option<i64>),
    /// It is not, or nobody knows.
    Not(NotWritten),
}

/// Why a record is not there.
#[derive(Clone, Debug)]
pub(crate) struct NotWritten {
    pub(crate) why: String,
    /// The topic takes no record now, whichever it is.
    pub(crate) outage: bool,
}

/// Entries that were read, and where to go on; `None`: that was all.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) entries: Vec<(i64, Entry)>,
    /// Where it was read from.
    pub(crate) from: i64,
    pub(crate) next: Option<i64>,
}

/// What is to be said of the topic, or why it takes no dead letters.
pub(crate) type Fitness = Result<Vec<TopicWarning>, UnfitTopic>;

pub(crate) enum Ask {
    /// Write these; where each is, or why it is not there.
    Append(Vec<Outgoing>, SyncSender<Result<Vec<Written>, String>>),
    /// How many partitions there are.
    Partitions(SyncSender<Result<i32, String>>),
    /// Read a partition from an offset on; `None`: from its start.
    Read(i32, Option<i64>, SyncSender<Result<Page, String>>),
    /// Whether the topic exists.
    Exists(SyncSender<Result<bool, String>>),
    /// Whether the topic is fit for dead letters.
    Check(SyncSender<Result<Fitness, String>>),
    /// Take the right to replay, for this long after each time that it is renewed.
    Claim(Duration, SyncSender<Result<Lease, NotTaken>>),
}

pub(crate) struct Task {
    pub(crate) producer: KafkaProducer,
    pub(crate) reader: Reader,
    pub(crate) asks: UnboundedReceiver<Ask>,
    pub(super) check: Check,
    /// Whether the log has what the check finds before the first dead letter.
    pub(super) logs_check: bool,
}

/// Reads the topic.
#[derive(Clone)]
pub(crate) struct Reader {
    pub(crate) topic: Arc<str>,
    pub(crate) log: Arc<LogClient>,
}

impl Task {
    pub(crate) async fn run(mut self) {
        let mut claims = JoinSet::new();
        if self.logs_check {
            self.check.logged(&self.reader).await;
        }
        while let Some(ask) = self.asks.recv().await {
            // Whoever asked may have lost patience.
            match ask {
                Ask::Append(records, reply) => {
                    let _ = reply.send(match self.check.before_writing(&self.producer, &self.reader).await {
                        Ok(()) => Ok(self.append(&records).await),
                        Err(unfit) => Err(unfit.to_string()),
                    });
                }
                Ask::Check(reply) => {
                    let _ = reply.send(Ok(self.check.for_caller(&self.reader).await));
                }
                Ask::Exists(reply) => {
                    let _ = reply.send(Ok(self.check.exists(&self.reader).await));
                }
                Ask::Partitions(reply) => {
                    let found = self.reader.log.topic(&self.reader.topic, Instant::now() + PATIENCE).await;
                    let _ = reply.send(match found {
                        Ok(topic) => Ok(i32::try_from(topic.partitions).unwrap_or(i32::MAX)),
                        Err(error) => Err(error.to_string()),
                    });
                }
                Ask::Read(partition, from, reply) => {
                    let _ = reply.send(self.reader.read(partition, from).await);
                }
                Ask::Claim(lease, reply) => {
                    while claims.try_join_next().is_some() {}
                    let (producer, reader) = (self.producer.clone(), self.reader.clone());
                    claims.spawn(claim(Claims { producer, reader, lease }, reply));
                }
            }
        }
        // Those that are held still are given up with the runtime, and run out.
        let _ = tokio::time::timeout(PATIENCE, async { while claims.join_next().await.is_some() {} }).await;
        self.producer.close(PATIENCE).await;
    }

    async fn append(&self, records: &[Outgoing]) -> Vec<Written> {
        let mut sent = Vec::with_capacity(records.len());
        for record in records {
            sent.push(send(&self.producer, &self.reader.topic, record).await);
        }
        self.producer.inner.intake.send_command(Command::SealOpen);
        let mut written = Vec::with_capacity(sent.len());
        for sent in sent {
            written.push(became(sent).await);
        }
        written
    }
}

/// Takes the right to replay, and keeps it.
async fn claim(claims: Claims, reply: SyncSender<Result<Lease, NotTaken>>) {
    match lease::take(claims).await {
        Ok((lease, keep)) => {
            // If whoever asked has lost patience the lease is dropped with the answer, and so given back.
            let _ = reply.send(Ok(lease));
            keep.await;
        }
        Err(why) => {
            let _ = reply.send(Err(why));
        }
    }
}

/// Writes a record by itself.
pub(super) async fn write_one(producer: &KafkaProducer, topic: &str, record: &Outgoing) -> Written {
    let sent = send(producer, topic, record).await;
    producer.inner.intake.send_command(Command::SealOpen);
    became(sent).await
}

async fn send(producer: &KafkaProducer, topic: &str, record: &Outgoing) -> Result<Delivery, PublishError> {
    let record = ProducerRecord {
        topic,
        partition: record.partition,
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers: &borrowed(&record.headers),
        timestamp: None,
    };
    producer.send(&record).await
}

async fn became(sent: Result<Delivery, PublishError>) -> Written {
    match sent {
        Err(error) => {
            let outage = !matches!(error, PublishError::TooLarge { .. });
            Written::Not(NotWritten { why: error.to_string(), outage })
        }
        Ok(delivery) => match delivery.await {
            Ok(metadata) => Written::At(metadata.partition, metadata.offset),
            Err(error) => {
                let outage = error.code() != Some(ErrorCode::MESSAGE_TOO_LARGE);
                Written::Not(NotWritten { why: error.to_string(), outage })
            }
        },
    }
}

impl Reader {
    /// What stands in a partition from an offset on.
    pub(super) async fn read(&self, partition: i32, from: Option<i64>) -> Result<Page, String> {
        let deadline = Instant::now() + PATIENCE;
        let offsets = self.log.offsets(&self.topic, partition, deadline).await.map_err(|error| error.to_string())?;
        let offset = from.unwrap_or(offsets.log_start).max(offsets.log_start);
        if offset >= offsets.high_watermark {
            return Ok(Page { entries: Vec::new(), from: offset, next: None });
        }
        let from = ReadFrom { offset, max_bytes: READ_BYTES, max_wait: Duration::from_millis(500) };
        let fetched =
            self.log.fetch(&self.topic, partition, from, deadline).await.map_err(|error| error.to_string())?;
        let (entries, next) = entries(&fetched.bytes, offset);
        if next == offset {
            return Err(format!("partition {partition} gave nothing at offset {offset}"));
        }
        Ok(Page { entries, from: offset, next: Some(next) })
    }
}

/// The entries of these batches from `offset` on, and the offset behind the last batch.
fn entries(mut bytes: &[u8], offset: i64) -> (Vec<(i64, Entry)>, i64) {
    let (mut found, mut next) = (Vec::new(), offset);
    while let Ok((batch, rest)) = BatchView::parse(bytes) {
        bytes = rest;
        next = batch.base_offset.saturating_add(batch.last_offset_delta.into()).saturating_add(1).max(next);
        if batch.is_control() {
            continue;
        }
        let skipped = |error: DecodeError| {
            // Nothing of ours: we write snappy. A topic that recompresses should not be used for letters.
            tracing::warn!(offset = batch.base_offset, %error, "a batch of the dead-letter topic can't be read");
        };
        let Ok(records) = batch.records(UNCOMPRESSED).map_err(skipped) else { continue };
        for record in &records {
            let Ok(record) = record.map_err(skipped) else { break };
            let at = batch.base_offset.saturating_add(record.offset_delta.into());
            if at >= offset {
                found.extend(record::entry(&record).map(|entry| (at, entry)));
            }
        }
    }
    (found, next)
}
