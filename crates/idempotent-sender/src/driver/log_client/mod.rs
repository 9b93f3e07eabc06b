//! Reads the logs of partitions, and appends single batches, over separate connections.
//!
//! Rules:
//! - Only leaders are asked, and only up to the high watermark. All returned records are on every in-sync replica.
//! - Transient errors are retried until the caller's deadline. An error names the operation, the partition and the
//!   cause.
//! - Each attempt to append sends the same bytes. The leader recognizes a repeated batch by its stamp.
//! - No request creates a topic.

mod error;
mod leaders;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kafka_courier_batcher::EncodedBatch;

use self::leaders::{AttemptError, Leaders, PartitionLeader};
use super::DriverConfig;
use crate::core::{Backoff, ErrorCode, PartAnswer, PartitionId, ProducePart, TopicId, TopicUuid, Treatment, classify};
use crate::wire::fetch::{FetchRequest, FetchedPart};
use crate::wire::list_offsets::{EARLIEST, LATEST, ListOffsetsRequest};
use crate::wire::messenger;
use crate::wire::produce::PartKey;

pub use self::error::{LogError, LogErrorKind, LogOperation};

/// The largest Fetch, in bytes. An answer's first batch is complete, however large, and must fit into an answer too.
const MAX_FETCH: i32 = 4 << 20;

/// A client that reads logs and appends single batches. It sends one request at a time to each broker.
///
/// # Errors
///
/// All methods retry transient errors until `deadline`, then fail with [`LogErrorKind::Unavailable`]. Permanent
/// errors are [`LogErrorKind::Refused`] and [`LogErrorKind::ClusterRefused`].
#[derive(Debug)]
pub struct LogClient {
    leaders: Leaders,
    backoff: Backoff,
    request_timeout: Duration,
}

/// A topic's current state in the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicInfo {
    /// The topic id, all zero if the brokers have none (before Kafka 2.8).
    pub uuid: TopicUuid,
    /// The number of partitions, numbered from 0.
    pub partitions: usize,
}

/// The settings of a topic that decide which records are removed from its log, and when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cleanup {
    /// `cleanup.policy`: `delete`, `compact`, both separated by a comma, or empty.
    pub policy: Box<str>,
    /// `retention.ms`, if the broker reports it. Negative: no limit.
    pub retention_ms: Option<i64>,
    /// `retention.bytes` of a partition, if the broker reports it. Negative: no limit.
    pub retention_bytes: Option<i64>,
}

impl Cleanup {
    /// Returns whether compaction removes records that have a later record with the same key.
    pub fn is_compacted(&self) -> bool {
        self.policy.contains("compact")
    }

    /// Returns whether retention deletes old records.
    pub fn deletes(&self) -> bool {
        self.policy.contains("delete")
    }
}

/// The readable range of a partition's log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offsets {
    /// The first offset that is still in the log.
    pub log_start: i64,
    /// The offset after the last record that is on every in-sync replica. Consumers read up to here.
    pub high_watermark: i64,
}

/// The result of one Fetch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchedBatches {
    /// The offset after the last record that is on every in-sync replica.
    pub high_watermark: i64,
    /// The first offset that is still in the log.
    pub log_start: i64,
    /// Record batches in the log's format, for [`BatchView`](kafka_courier_batcher::BatchView). The first batch may
    /// begin before the requested offset, the last may be cut off. Empty: no record arrived within `max_wait`.
    pub bytes: Vec<u8>,
}

/// The position and size of a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadFrom {
    /// The first wanted offset.
    pub offset: i64,
    /// The approximate number of bytes, at most 4 MiB. At least one batch is complete, whatever its size.
    pub max_bytes: u32,
    /// How long the leader may wait for a first record.
    pub max_wait: Duration,
}

impl LogClient {
    /// Creates a client for the cluster of `config`. The first request connects.
    pub fn new(config: &DriverConfig) -> Self {
        Self {
            leaders: Leaders::new(config),
            backoff: config.core.backoff,
            request_timeout: config.core.request_timeout,
        }
    }

    /// Returns the topic's id and its number of partitions.
    ///
    /// # Errors
    ///
    /// [`LogErrorKind::Refused`] with `UNKNOWN_TOPIC_OR_PARTITION` if the topic does not exist, otherwise as all
    /// methods.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the requests only read.
    pub async fn topic(&self, topic: &str, deadline: Instant) -> Result<TopicInfo, LogError> {
        let step = LogOperation::of("requesting metadata of topic", topic, None);
        self.retry(step, deadline, |_| async move {
            let found = self.leaders.describe(topic).await?;
            Ok(TopicInfo { uuid: found.uuid, partitions: found.partitions.len() })
        })
        .await
    }

    /// Returns a new producer id, for batches that the caller stamps.
    ///
    /// # Errors
    ///
    /// [`LogClient`] describes the errors.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: an unused id costs nothing.
    pub async fn producer_id(&self, deadline: Instant) -> Result<i64, LogError> {
        let step = LogOperation::of("requesting a producer id", "", None);
        self.retry(step, deadline, |_| async move { self.leaders.producer_id().await }).await
    }

    /// Returns the settings that remove records from the topic's log.
    ///
    /// # Errors
    ///
    /// [`LogErrorKind::Refused`] if the client may not describe the topic (`DescribeConfigs`), otherwise as all
    /// methods.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the requests only read.
    pub async fn cleanup(&self, topic: &str, deadline: Instant) -> Result<Cleanup, LogError> {
        let step = LogOperation::of("requesting the cleanup policy of topic", topic, None);
        self.retry(step, deadline, |_| async move { self.leaders.cleanup(topic).await }).await
    }

    /// Returns whether the topic's `cleanup.policy` removes records from the middle of its log.
    ///
    /// # Errors
    ///
    /// As [`cleanup`](Self::cleanup).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the requests only read.
    pub async fn is_compacted(&self, topic: &str, deadline: Instant) -> Result<bool, LogError> {
        Ok(self.cleanup(topic, deadline).await?.is_compacted())
    }

    /// Returns the readable range of the partition's log.
    ///
    /// # Errors
    ///
    /// [`LogClient`] describes the errors.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the requests only read.
    pub async fn offsets(&self, topic: &str, partition: i32, deadline: Instant) -> Result<Offsets, LogError> {
        // The start is requested first. An end that was requested earlier could be below the start.
        let log_start = self.offset(topic, partition, EARLIEST, deadline).await?;
        let high_watermark = self.offset(topic, partition, LATEST, deadline).await?;
        Ok(Offsets { log_start, high_watermark })
    }

    async fn offset(&self, topic: &str, partition: i32, timestamp: i64, deadline: Instant) -> Result<i64, LogError> {
        let step = LogOperation::of("requesting the offsets of", topic, Some(partition));
        self.retry(step, deadline, |left| async move {
            let leader = self.leaders.leader(topic, partition).await?;
            let request =
                ListOffsetsRequest { topic: leader.topic.clone(), partition, leader_epoch: leader.epoch, timestamp };
            let messenger::ListedOffsets(answer) = leader.ask(request, self.time_limit(left)).await?;
            let part = answer.iter().find(|part| *part.topic == *topic && part.partition == partition);
            match part.ok_or(AttemptError::PartitionMissing)? {
                part if part.code != ErrorCode::NONE.0 => Err(AttemptError::from_code(part.code)),
                part => Ok(part.offset),
            }
        })
        .await
    }

    /// Reads record batches.
    ///
    /// # Errors
    ///
    /// [`LogErrorKind::OutOfRange`] if the offset is not in the log, otherwise as described at [`LogClient`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the requests only read.
    pub async fn fetch(
        &self,
        topic: &str,
        partition: i32,
        from: ReadFrom,
        deadline: Instant,
    ) -> Result<FetchedBatches, LogError> {
        let step = LogOperation::of("reading", topic, Some(partition)).at(from.offset);
        self.retry(step, deadline, |left| async move {
            let leader = self.leaders.leader(topic, partition).await?;
            let max_wait = from.max_wait.min(left);
            let request = FetchRequest {
                topic: leader.topic.clone(),
                topic_uuid: leader.topic_uuid,
                partition,
                leader_epoch: leader.epoch,
                offset: from.offset,
                max_bytes: i32::try_from(from.max_bytes).unwrap_or(MAX_FETCH).min(MAX_FETCH),
                max_wait,
            };
            let answered = leader.ask(request, self.time_limit(left).saturating_add(max_wait)).await?;
            let messenger::Fetched((code, parts)) = answered;
            fetched(code, parts, partition)
        })
        .await
    }

    /// Appends a stamped batch. Returns the first record's offset once every in-sync replica has the batch. The same
    /// bytes are sent again after each lost answer and each transient error, until `deadline`.
    ///
    /// Appending the same batch again, later or in another process, is safe as long as the leader remembers the
    /// stamp.
    ///
    /// # Errors
    ///
    /// [`LogError::is_open`] returns whether the batch may be in the log despite the error.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: after a drop of this future, the batch may or may not be in the log.
    pub async fn append(
        &self,
        topic: &str,
        partition: i32,
        batch: Arc<EncodedBatch>,
        deadline: Instant,
    ) -> Result<i64, LogError> {
        let step = LogOperation::of("appending to", topic, Some(partition));
        let (open, batch) = (&AtomicBool::new(false), &batch);
        let result = self
            .retry(step, deadline, |left| async move {
                let leader = self.leaders.leader(topic, partition).await?;
                let part = ProducePart {
                    partition: PartitionId { topic: TopicId(0), index: partition },
                    topic: leader.topic.clone(),
                    topic_uuid: leader.topic_uuid,
                    batch: batch.clone(),
                };
                // The batch may be in the log from here on, until an answer proves that it is not.
                let was_open = open.swap(true, Ordering::Relaxed);
                let judged = self.produce(&leader, part, left).await;
                let refused = matches!(&judged, Err((_, refused)) if *refused);
                open.store(was_open || !refused, Ordering::Relaxed);
                judged.map_err(|(failure, _)| failure)
            })
            .await;
        result.map_err(|error| LogError { open: open.load(Ordering::Relaxed), ..error })
    }

    /// Makes one attempt. The error includes whether the leader certainly refused this attempt.
    async fn produce(
        &self,
        leader: &PartitionLeader,
        part: ProducePart,
        left: Duration,
    ) -> Result<i64, (AttemptError, bool)> {
        let keys = [PartKey::of(&part)];
        let time_limit = self.time_limit(left);
        let answered = leader.produce(part, time_limit).await.map_err(|failure| (failure, false))?;
        let answer = answered.0.into_answer(&keys).parts.into_iter().next().flatten();
        appended(&answer.ok_or((AttemptError::PartitionMissing, false))?)
    }

    /// Returns the time limit of one answer.
    fn time_limit(&self, left: Duration) -> Duration {
        self.request_timeout.min(left)
    }

    /// Repeats `attempt` until it succeeds, fails permanently, or the deadline passes. `attempt` gets the remaining
    /// time.
    async fn retry<A, F>(
        &self,
        step: LogOperation,
        deadline: Instant,
        mut attempt: impl FnMut(Duration) -> F,
    ) -> Result<A, LogError>
    where
        F: Future<Output = Result<A, AttemptError>>,
    {
        let mut failures = 0_u32;
        let mut earlier = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let failure = match tokio::time::timeout(left, attempt(left)).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(failure)) => failure,
                Err(_) => AttemptError::DeadlineExceeded,
            };
            // The earlier failure explains more than the passed deadline.
            let cut_off =
                matches!(failure, AttemptError::DeadlineExceeded | AttemptError::Lost(_)) && Instant::now() >= deadline;
            let failure = if cut_off { earlier.take().unwrap_or(failure) } else { failure };
            if let Some(kind) = failure.permanent_kind() {
                return Err(LogError { step, kind, open: false });
            }
            failures = failures.saturating_add(1);
            let wait = self.pause(failures);
            if Instant::now() + wait >= deadline {
                return Err(LogError { step, kind: failure.final_kind(), open: false });
            }
            tracing::debug!(%step, why = %failure.final_kind(), "log operation failed, retrying");
            earlier = Some(failure);
            self.leaders.invalidate(step.topic()).await;
            tokio::time::sleep(wait).await;
        }
    }

    fn pause(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let step = self.backoff.base.saturating_mul(1 << doublings).min(self.backoff.cap);
        step / 2 + (step / 2).mul_f64(fastrand::f64())
    }
}

/// Returns the batches of the requested partition from a Fetch answer.
fn fetched(code: i16, parts: Vec<FetchedPart>, partition: i32) -> Result<FetchedBatches, AttemptError> {
    if code != ErrorCode::NONE.0 {
        return Err(AttemptError::from_code(code));
    }
    let part = parts.into_iter().find(|part| part.index == partition).ok_or(AttemptError::PartitionMissing)?;
    if part.code != ErrorCode::NONE.0 {
        return Err(AttemptError::from_code(part.code));
    }
    Ok(FetchedBatches { high_watermark: part.high_watermark, log_start: part.log_start, bytes: part.records })
}

/// Returns the offset of the batch from a Produce answer. The error includes whether the leader certainly refused
/// this attempt.
fn appended(answer: &PartAnswer) -> Result<i64, (AttemptError, bool)> {
    let outcome = classify(answer);
    let code = ErrorCode(answer.code);
    match outcome.treatment {
        Treatment::Delivered => Ok(answer.base_offset),
        Treatment::Wait | Treatment::WaitForLeader | Treatment::Retry => {
            Err((AttemptError::Transient(code), outcome.refused))
        }
        Treatment::Duplicate | Treatment::Split | Treatment::Sequence | Treatment::NewTopicId | Treatment::Reject => {
            Err((AttemptError::Permanent(code), outcome.refused))
        }
    }
}
