//! Reads the logs of partitions, and appends single batches, over separate connections.
//!
//! Rules:
//! - Only leaders are asked, and only up to the high watermark. All returned records are on every in-sync replica.
//! - Transient errors are retried until the caller's deadline. An error names the operation, the partition and the
//!   cause.
//! - Each attempt to append sends the same bytes. The leader recognizes a repeated batch by its stamp.
//! - No request creates a topic.
//! - An answer to an append is data: the caller decides whether the batch is written, is sent again, or fails.
//! - This parent imports its children. A child imports other children, never this parent.

mod append;
mod attempt;
mod error;
mod leaders;
mod read;
mod topic;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kafka_courier_batcher::EncodedBatch;

pub use self::append::AppendDecision;
use self::attempt::AttemptError;
pub use self::error::{LogError, LogErrorKind, LogOperation};
use self::leaders::{Leaders, PartitionLeader};
pub use self::read::{FetchedBatches, Offsets, ReadFrom};
pub use self::topic::{Cleanup, TopicInfo};
use crate::config::ClientConfig;
use crate::error_code::ErrorCode;
use crate::ids::{PartitionId, TopicId};
use crate::wire::fetch::{FetchRequest, FetchedPart};
use crate::wire::list_offsets::{EARLIEST, LATEST, ListOffsetsRequest};
use crate::wire::messenger;
use crate::wire::produce::{PartAnswer, ProducePart};

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
    retry_backoff: Duration,
    retry_backoff_max: Duration,
    request_timeout: Duration,
}

impl LogClient {
    /// Creates a client for the cluster of `config`. The first request connects.
    pub fn new(config: &ClientConfig) -> Self {
        Self {
            leaders: Leaders::new(config),
            retry_backoff: config.retry_backoff,
            retry_backoff_max: config.retry_backoff_max,
            request_timeout: config.request_timeout,
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

    /// Appends a stamped batch. Returns the first record's offset, if the leader names it, once every in-sync replica has
    /// the batch. The same bytes are sent again after each lost answer and each answer that `decide` retries, until `deadline`.
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
        decide: impl Fn(&PartAnswer) -> AppendDecision + Sync,
        deadline: Instant,
    ) -> Result<Option<i64>, LogError> {
        let step = LogOperation::of("appending to", topic, Some(partition));
        let (open, batch, decide) = (&AtomicBool::new(false), &batch, &decide);
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
                let judged = self.produce(&leader, part, decide, left).await;
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
        decide: impl Fn(&PartAnswer) -> AppendDecision,
        left: Duration,
    ) -> Result<Option<i64>, (AttemptError, bool)> {
        let time_limit = self.time_limit(left);
        let answered = leader.produce(part, time_limit).await.map_err(|failure| (failure, false))?;
        let answer = answered.parts.into_iter().next().flatten();
        let answer = answer.ok_or((AttemptError::PartitionMissing, false))?;
        appended(&answer, decide(&answer))
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
        let step = self.retry_backoff.saturating_mul(1 << doublings).min(self.retry_backoff_max);
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
fn appended(answer: &PartAnswer, decision: AppendDecision) -> Result<Option<i64>, (AttemptError, bool)> {
    let code = ErrorCode(answer.code);
    match decision {
        AppendDecision::Written => Ok(answer.base_offset),
        AppendDecision::Retry { refused } => Err((AttemptError::Transient(code), refused)),
        AppendDecision::Fail { refused } => Err((AttemptError::Permanent(code), refused)),
    }
}
